"""The random run, short: every fault, every answer, and not one broken promise. random_run.py is the long one.

WARMUP_SEED=n repeats a plan, WARMUP_REQUESTS=n makes it longer; a failure prints what happened around each violation.
"""

import pytest
from faults import random_run
from faults.random_plan import Plan
from faults.random_rig import FAULTS

REQUESTS = 10_000


def test_the_same_seed_makes_the_same_plan():
    first, again, other = (Plan(seed, 500, FAULTS) for seed in ("1.0", "1.0", "1.1"))
    assert (first.accounts, first.steps, first.faults) == (again.accounts, again.steps, again.faults)
    assert first.steps != other.steps


def test_every_fault_is_planned():
    assert {name for _, name, _ in Plan("1.0", random_run.ROUND, FAULTS).faults} == set(FAULTS)


def test_random_faults_break_no_promise(build, run_folder):
    seed, requests, only = random_run.numbers()
    figures, found = random_run.run(run_folder / "random", build, seed, int(requests or REQUESTS), only=only)
    print(figures)
    assert not found, "\n\n".join(found)
    if requests or only is not None:
        return
    # It was not as quiet as that because nothing went on.
    assert set(figures.happened) == set(FAULTS)
    assert {"200", "401", "404", "409", "500", "502", "503", "hung up"} <= set(figures.statuses)
    assert figures.moves > REQUESTS / 10


@pytest.mark.parametrize("requests", [1, 39, 40])
def test_a_round_may_be_short(requests):
    assert len(Plan("1.0", requests, FAULTS).steps) == requests


def test_growth_is_told():
    warm = [(14000, 130, 16)] * (random_run.WARM_ROUNDS + 1)
    assert random_run.grown(warm[2:] + [(20000, 500, 17)]) == []
    assert random_run.grown(warm + [(15000, 140, 16)]) == []
    assert len(random_run.grown(warm + [(17000, 180, 17)])) == 3

"""The model of one row under concurrent retries: spin goes through all of its states.

It finds nothing wrong with the algorithm as it is, and it finds every mistake that is built in: into the statements of
the model, or into the source of the decision, which the model uses as it is compiled.
"""

import pathlib
import re
import shutil
import subprocess

import pytest

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parents[2]

# All states, by the number of requests and of outside writes. Whoever changes the model or the decision gets other
# numbers: see what has changed, and whether the model's steps are still those of the code (README.md), before they go
# here.
STATES = {(2, 2): 7539, (3, 3): 161597, (4, 2): 714598}

# Mistakes in the statements, -DBUG_name in retry.pml: a part of the assertion that finds it.
WRONG_STATEMENTS = {
    "swap_first": "accepted",  # the row is moved before Instantly is asked
    "no_state_guard": "row==0",  # UPDATE … without the loaded state in its condition
    "no_owner_guard": "owner==",  # … without the owner
    "marks_first": "row==3",  # a mark "in progress" before the call, which a crash leaves behind
}

# Mistakes in fcgi/decision.c: what stands there, what is put in its place, a part of the assertion that finds it.
MOVED_MEANWHILE = "facts->unseen_commit ? ERR_OK : ERR_MOVED_MEANWHILE"
OTHER = "case REREAD_OTHER:\n\t\treturn answer(ERR_MOVED_MEANWHILE)"
WRONG_DECISIONS = {
    "timeout-is-acceptance": ("case UPSTREAM_UNREACHABLE:\n\tcase UPSTREAM_TIMEOUT:",
                              "case UPSTREAM_TIMEOUT:\n\t\treturn after_swap(facts);\n\tcase UPSTREAM_UNREACHABLE:",
                              "accepted"),
    "refusal-is-the-500": ("answer(ERR_UPSTREAM_REJECTED)", "answer(ERR_NOT_CONFIRMED)", "!=500"),
    "no-row-is-success": ("return after_reread(facts)", "return answer(ERR_OK)", "!=200"),
    "warming-is-always-ours": (MOVED_MEANWHILE, "ERR_OK", "!=200"),
    "other-state-is-success": (OTHER, OTHER.replace("MOVED_MEANWHILE", "OK"), "!=200"),
    "still-stuck-is-success": ("case REREAD_STUCK:", "case REREAD_STUCK:\n\t\treturn answer(ERR_OK);", "!=200"),
    "altered-is-success": ("case SWAP_ALTERED:", "case SWAP_ALTERED:\n\t\treturn answer(ERR_OK);", "!=200"),
    "lost-is-success": ("case SWAP_LOST:", "case SWAP_LOST:\n\t\treturn answer(ERR_OK);", "!=200"),
    "own-success-is-a-conflict": (MOVED_MEANWHILE, "ERR_MOVED_MEANWHILE", "!=409"),
    "gone-is-a-conflict": ("answer(ERR_NO_ACCOUNT)", "answer(ERR_MOVED_MEANWHILE)", "!=409"),
    "conflict-is-gone": (OTHER, OTHER.replace("MOVED_MEANWHILE", "NO_ACCOUNT"), "!=404"),
    "unavailable-after-the-call": ("answer(ERR_NOT_CONFIRMED) : next", "answer(ERR_UNAVAILABLE) : next", "!=503"),
    "refused-swap-is-502": ("case SWAP_REFUSED:", "return answer(ERR_UPSTREAM_REJECTED);\n\tcase SWAP_REFUSED:",
                            "!=502"),
    "lost-swap-asks-again": ("case SWAP_LOST:", "case SWAP_LOST:\n\t\treturn next(STEP_CALL);", "calls==1"),
    "forgets-an-outcome": ("case REREAD_GONE:\n\t\treturn", "case REREAD_GONE:\n\t\tbreak;\n\t\treturn", "==503"),
}


def run(folder, *command):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def search(folder, requests, writes, bug=None, decision=TOP / "fcgi/decision.c"):
    """All that spin says of the whole search: the model with the decision of that file."""
    run(folder, "gcc", "-w", f"-I{TOP}/fcgi", f"-I{TOP}/shared", "-o", "decisions", HERE / "decisions.c", decision,
        TOP / "shared/err.c")
    (folder / "decisions.inc").write_text(run(folder, "./decisions"))
    shutil.copy(HERE / "retry.pml", folder)
    mistake = [f"-DBUG_{bug}"] if bug else []
    run(folder, "spin", f"-DN={requests}", f"-DWRITES={writes}", *mistake, "-a", "retry.pml")
    # SAFETY: assertions and deadlocks are all that is looked for, no cycles. No path is longer than a million steps.
    run(folder, "gcc", "-w", "-O1", "-DSAFETY", "-o", "pan", "pan.c")
    return run(folder, "./pan", "-m1000000")


def violation(said):
    """The first thing that spin found wrong, if anything."""
    found = re.search(r"^pan:1: (.*)", said, re.M)
    return found[1] if found else None


@pytest.mark.parametrize("requests, writes", STATES)
def test_nothing_is_wrong_in_any_state(tmp_path, requests, writes):
    said = search(tmp_path, requests, writes)
    assert violation(said) is None
    assert "errors: 0" in said and "Search not completed" not in said and "max search depth too small" not in said
    states = int(re.search(r"(\d+) states, stored", said)[1])
    seconds = re.search(r"elapsed time ([\d.]+)", said)[1]
    print(f"\n{requests} requests, {writes} outside writes: {states} states, {seconds} s")
    # Every statement of the model was run; the backends alone never come to their end.
    unreached = re.findall(r"^\s+retry\.pml:\d+, state \d+, (.*)", said, re.M)
    assert unreached == ['"-end-"']
    assert states == STATES[requests, writes], "the model has changed: see STATES"


@pytest.mark.parametrize("bug", WRONG_STATEMENTS)
def test_wrong_statement_is_found(tmp_path, bug):
    assert WRONG_STATEMENTS[bug] in (violation(search(tmp_path, 2, 2, bug)) or "")


@pytest.mark.parametrize("bug", WRONG_DECISIONS)
def test_wrong_decision_is_found(tmp_path, bug):
    place, mistake, found_by = WRONG_DECISIONS[bug]
    source = (TOP / "fcgi/decision.c").read_text()
    assert source.count(place) == 1, place
    (tmp_path / "decision.c").write_text(source.replace(place, mistake))
    assert found_by in (violation(search(tmp_path, 2, 2, decision=tmp_path / "decision.c")) or "")

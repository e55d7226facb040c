"""Many at once: one account is moved once, nobody sees another's, and nobody else's write is lost."""

import collections
import random
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import STUCK, WARMING, wait_for
from test_database import QUICK, responders, scratch_world
from test_swap import AUDIT, moves
from test_transport import Raw

BANNED = ("error", "banned")


@pytest.fixture(scope="module")
def audited_world(postgres, template, sandbox):
    with scratch_world(postgres, template, sandbox) as world:
        world.execute(AUDIT)
        yield world


def at_once(count, function, *lists):
    """Call it with each of the arguments from as many threads, all let go together."""
    barrier = threading.Barrier(count)

    def call(*arguments):
        barrier.wait(30)
        return function(*arguments)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, *lists))


def check_one_winner(world, account, answers):
    """One 200, conflicts for all others, and each tells the truth."""
    assert collections.Counter(answer.status for answer in answers) == {200: 1, 409: len(answers) - 1}
    for answer in answers:
        if answer.status == 409:
            assert answer.error["details"] == {"status": "warming", "warmup_status": "warming"}
    assert world.state(account) == WARMING
    assert moves(world, account) == [(STUCK, WARMING)]


@pytest.mark.parametrize("connections", [8, 2, 1])
def test_hundred_retries_of_one_account_move_it_once(responder, audited_world, connections):
    world = audited_world
    wait_for(lambda: responders(world) == 0)  # those of the case before
    server = responder(world, WARMUP_WORKERS=32, WARMUP_DB_CONNECTIONS=connections, **QUICK)
    account = world.add_account()
    hold = world.sandbox.hold(world.address(account))
    with ThreadPoolExecutor(100) as pool:
        answers = [pool.submit(world.retry, Raw(server), account) for _ in range(100)]
        wait_for(lambda: hold.waiting == 32, 30, "all workers in the window")
        assert responders(world) <= connections
        hold.release()
        check_one_winner(world, account, [answer.result() for answer in answers])
    assert 32 <= world.enables(account) <= 100


@pytest.mark.parametrize("serve", ["fastcgi"], indirect=True)
def test_hundred_retries_of_one_account_through_the_web_server(serve, audited_world):
    world = audited_world
    host, account = serve(world, **QUICK), world.add_account()
    check_one_winner(world, account, at_once(100, lambda _: world.retry(host, account), range(100)))


@pytest.mark.parametrize("serve", ["cgi"], indirect=True)
def test_twenty_cgi_processes_move_an_account_once(serve, audited_world):
    world = audited_world
    host, account = serve(world, **QUICK), world.add_account()
    hold = world.sandbox.hold(world.address(account))
    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(world.retry, host, account) for _ in range(20)]
        wait_for(lambda: hold.waiting == 20, 30, "all processes in the window")
        hold.release()
        check_one_winner(world, account, [answer.result() for answer in answers])
    assert world.enables(account) == 20


@pytest.mark.parametrize("serve", ["fastcgi"], indirect=True)
def test_several_processes_behind_one_server_move_an_account_once(serve, audited_world):
    world = audited_world
    wait_for(lambda: responders(world) == 0)
    host = serve(world, fcgi_options={"max_procs": 3}, WARMUP_WORKERS=8, WARMUP_DB_CONNECTIONS=2, **QUICK)
    wait_for(lambda: len(host.server.responder_pids()) == 3)
    for _ in range(5):
        account = world.add_account()
        check_one_winner(world, account, at_once(20, lambda _, account=account: world.retry(host, account), range(20)))
    assert responders(world) <= 6


def test_accounts_of_several_owners_are_never_mixed_up(responder, audited_world):
    world = audited_world
    server = responder(world, WARMUP_WORKERS=16, WARMUP_DB_CONNECTIONS=4, **QUICK)
    owners = {str(uuid.uuid4()): None for _ in range(5)}
    for owner in owners:
        owners[owner] = world.add_key(owner), world.add_domain(owner, domain=f"{owner}.example")
    own, foreign = [], []
    for owner, (key, domain) in owners.items():
        for _ in range(12):
            account = world.add_account(random.choice(["joe", "joe", "refused"]), user=owner, domain_id=domain,
                                        agentmail_inbox_id=owner)
            own.append((owner, key, account))
            foreign.append((owner, owners[random.choice([other for other in owners if other != owner])][0], account))
    requests = own + foreign
    random.shuffle(requests)

    def ask(owner, key, account):
        return world.retry(Raw(server), account, key=key)

    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda request: ask(*request), requests))
    callers = {key: owner for owner, (key, _) in owners.items()}
    for (owner, key, account), answer in zip(requests, answers):
        if callers[key] != owner:
            assert answer.status == 404
            assert not any(other in answer.body.decode() for other in owners)
        elif answer.status == 200:
            shown = answer.json["account"]
            assert (shown["id"], shown["user_id"], shown["agentmail_inbox_id"]) == (account, owner, owner)
            assert shown["email_domains"]["domain"] == f"{owner}.example"
            assert shown["email_address"] == world.address(account)
        else:
            assert answer.status == 502
            assert world.address(account).startswith("refused+")
        assert len(moves(world, account)) == (1 if world.state(account) == WARMING else 0)
    for owner, _, account in own:
        assert world.enables(account) == 1


def test_who_bans_an_account_meanwhile_is_never_overruled(responder, audited_world):
    world = audited_world
    server = responder(world, WARMUP_WORKERS=16, WARMUP_DB_CONNECTIONS=4, **QUICK)
    accounts = [world.add_account() for _ in range(80)]
    holds = {account: world.sandbox.hold(world.address(account)) for account in accounts}
    lock = threading.Lock()  # over the administrator's connection, or they would wait for each other anyway

    def ban(account):
        holds[account].arrived.wait(20)
        # Some well before the swap, some well after it, most at a random instant around it.
        swap, write = random.choice([(0.05, 0), (0, 0.3)] + [(random.uniform(0, 0.004), random.uniform(0, 0.008))] * 4)
        threading.Timer(swap, holds[account].release).start()
        time.sleep(write)
        with lock:
            world.execute("UPDATE accounts SET status = 'error', warmup_status = 'banned' WHERE id = %s", account)

    with ThreadPoolExecutor(16) as writers, ThreadPoolExecutor(16) as callers:
        bans = [writers.submit(ban, account) for account in accounts]
        answers = list(callers.map(lambda account: world.retry(Raw(server), account), accounts))
        for done in bans:
            done.result()
    seen = collections.Counter()
    for account, answer in zip(accounts, answers):
        assert world.state(account) == BANNED
        history = world.execute("SELECT by_whom, from_state, to_state FROM audit WHERE account = %s ORDER BY n",
                                account)
        if answer.status == 200:
            assert [(who, tuple(old), tuple(new)) for who, old, new in history] == [
                ("warmup", STUCK, WARMING), ("postgres", WARMING, BANNED)]
        else:
            assert (answer.status, answer.error["details"]["warmup_status"]) == (409, "banned")
            assert [(who, tuple(old), tuple(new)) for who, old, new in history] == [("postgres", STUCK, BANNED)]
        seen[answer.status] += 1
    assert set(seen) == {200, 409}, f"it was no race: {seen}"


def test_retries_with_failing_calls_in_between_converge(responder, audited_world):
    world = audited_world
    server = responder(world, WARMUP_WORKERS=16, WARMUP_DB_CONNECTIONS=3, **QUICK)
    accounts = [world.add_account() for _ in range(20)]
    troubles = ["refused", "error-500", "lost-after-accept", "rate-limited", "close-before-headers", "not-http"]
    for account in accounts:
        world.sandbox.script(world.address(account), *random.choices(troubles, k=3))

    def until_it_is_done(account):
        statuses = []
        for _ in range(10):
            statuses.append(world.retry(Raw(server), account).status)
            if statuses[-1] in (200, 409):
                break
        return statuses

    for statuses in at_once(40, until_it_is_done, accounts * 2):
        assert set(statuses[:-1]) <= {502}
        assert statuses[-1] in (200, 409)
    for account in accounts:
        assert (world.state(account), moves(world, account)) == (WARMING, [(STUCK, WARMING)])
        assert world.sandbox.accepted(world.address(account))

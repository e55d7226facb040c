"""The responder's process itself: killed, stopped, short of what the system gives; and many on one database."""

import contextlib
import os
import pathlib
import random
import re
import resource
import secrets
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import stack
from conftest import SANITIZER_VARIABLES, STUCK, WARMING, Fcgi, check_log, wait_for
from faults import audit
from faults.proxies import SERVER, Hold, UpProxy
from test_database import QUICK, responders, scratch_world, session
from test_swap import check_not_confirmed
from test_transport import Listener, Raw, Spawned, read_answer, serves, threads, whole, window


@pytest.fixture(scope="module")
def audited(postgres, template, sandbox):
    with scratch_world(postgres, template, sandbox) as world:
        audit.install(world)
        yield world


@pytest.fixture
def listener(run_folder):
    with Listener(run_folder / f"listener-{secrets.token_hex(4)}") as listener:
        yield listener


def left_behind(world):
    """What the responder still has on the server: connections, transactions, locks."""
    return world.execute(
        "SELECT a.pid, a.state, l.locktype FROM pg_stat_activity a LEFT JOIN pg_locks l USING (pid)"
        " WHERE a.datname = current_database() AND a.usename = 'warmup'")


# --- killed --------------------------------------------------------------------------------------

def test_killed_after_the_acceptance_and_before_the_swap_leaves_a_row_that_the_next_retry_moves(
        build, audited, listener):
    """D02."""
    world, account = audited, audited.add_account()
    with UpProxy(world.sandbox.port) as proxy:
        hold = Hold()
        proxy.on(SERVER, "Reply", hold)
        settings = world.settings(INSTANTLY_API_URL=proxy.url(world.sandbox.url), WARMUP_WORKERS=2, **QUICK)
        with Spawned(listener.folder / "1", build, settings, listener) as server:
            with stack.fcgi_connect(listener.socket_path) as peer:
                peer.sendall(whole(world, account))
                assert hold.arrived.wait(20)
                assert world.sandbox.accepted(world.address(account))
                server.process.send(signal.SIGKILL)
                with pytest.raises(ConnectionError):
                    read_answer(peer)
        hold.release()
        assert world.state(account) == STUCK
        wait_for(lambda: not left_behind(world))
        with Spawned(listener.folder / "2", build, settings, listener):
            assert world.retry(Raw(listener), account).status == 200
    assert (world.state(account), world.enables(account)) == (WARMING, 2)
    assert len(audit.moves(world, account)) == 1
    audit.check(world, account)


class Family:
    """Several processes on one listening socket; whoever is killed is replaced, as a web server does."""

    def __init__(self, build, world, listener, count, **changes):
        self.build, self.settings, self.listener = build, world.settings(**changes), listener
        self.number, self.servers, self.dead = 0, [], []
        for _ in range(count):
            self.spawn()

    def spawn(self):
        self.number += 1
        self.servers.append(Spawned(self.listener.folder / str(self.number), self.build, self.settings,
                                    self.listener).start())

    def kill_one(self):
        server = self.servers.pop(random.randrange(len(self.servers)))
        server.process.send(signal.SIGKILL)
        server.stop()
        self.dead.append(server)
        self.spawn()

    def stop(self):
        assert all([server.stop() for server in self.servers])
        return "".join(server.log() for server in self.servers + self.dead)


def test_processes_killed_at_random_move_each_account_once(build, audited, listener):
    """I02 and D10: many callers of few accounts, and nobody's process is safe."""
    world, seed = audited, random.randrange(1 << 32)
    random.seed(seed)
    print("random seed", seed)
    accounts = []
    family = Family(build, world, listener, 3, WARMUP_WORKERS=4, WARMUP_DB_CONNECTIONS=2, **QUICK)
    done = threading.Event()

    def until_it_is_done(account):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(ConnectionError, BrokenPipeError):
                answer = world.retry(Raw(listener), account)
                assert answer.status in (200, 409, 503), answer
                if answer.status != 503:
                    return answer.status
        raise AssertionError("it never came to an end")

    def kill():
        while not done.is_set():
            time.sleep(random.uniform(0, 0.04))
            family.kill_one()

    killer = ThreadPoolExecutor(1)
    try:
        killing = killer.submit(kill)
        with ThreadPoolExecutor(24) as pool:
            while len(family.dead) < 12:
                some = [world.add_account() for _ in range(20)]
                accounts += some
                assert set(pool.map(until_it_is_done, some * 4)) <= {200, 409}
                assert not killing.done()
    finally:
        done.set()
        killer.shutdown()
        log = family.stop()
    killing.result()
    for account in accounts:
        assert world.state(account) == WARMING
        assert len(audit.moves(world, account)) == 1
        audit.check(world, account)
    wait_for(lambda: not left_behind(world), what="the end of all that the killed left on the server")
    for secret in world.secrets:
        assert secret not in log


def test_two_web_servers_on_one_database_move_an_account_once(build, run_folder, audited):
    """I05."""
    world = audited
    hosts = [Fcgi(run_folder / f"lighttpd-{secrets.token_hex(4)}", build / "warmup.fcgi",
                  world.settings(WARMUP_WORKERS=8, WARMUP_DB_CONNECTIONS=2, **QUICK)) for _ in range(2)]
    account = world.add_account()
    hold = world.sandbox.hold(world.address(account))
    with ThreadPoolExecutor(16) as pool:
        answers = [pool.submit(world.retry, host, account) for host in hosts * 8]
        wait_for(lambda: hold.waiting == 16)
        hold.release()
        statuses = sorted(answer.result().status for answer in answers)
    assert statuses == [200] + [409] * 15
    assert len(audit.moves(world, account)) == 1
    audit.check(world, account)
    for host in hosts:
        assert host.stop()
        check_log(host, world.secrets)


# --- stopped -------------------------------------------------------------------------------------

@pytest.mark.parametrize("where", ["call", "swap"])
def test_process_that_was_stopped_for_longer_than_every_limit_goes_on_and_answers_the_truth(responder, audited, where):
    """D11: as a machine that was suspended, or starved."""
    world = audited
    server = responder(world, WARMUP_WORKERS=2, WARMUP_DB_CONNECTIONS=1, WARMUP_DB_TIMEOUT_MS=500,
                       WARMUP_UPSTREAM_TIMEOUT_MS=500, **QUICK)
    serves(server, world)
    account = world.add_account()
    with contextlib.ExitStack() as others, window(Raw(server), world, account) as answer:
        if where == "swap":
            other = others.enter_context(session(world))
            other.execute("SELECT FROM accounts WHERE id = %s FOR UPDATE", (account,))
            world.sandbox.hold(world.address(account)).release()
            wait_for(lambda: world.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                                           " AND datname = current_database() AND usename = 'warmup'"))
        server.process.send(signal.SIGSTOP)
        time.sleep(1.2)
        server.process.send(signal.SIGCONT)
        answer = answer.result(20)
    if where == "call":
        assert (answer.status, answer.error["details"]) == (502, {"reason": "timeout"})
    else:
        check_not_confirmed(answer)
    assert world.state(account) == STUCK
    again = world.retry(Raw(server), account)
    assert again.status == 200
    audit.check(world, account)
    assert server.stop()


# --- short of something --------------------------------------------------------------------------

INHERIT = """\
import os, resource, sys
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
null = os.open("/dev/null", os.O_RDONLY)
for fd in range(3, 1200):
    os.dup2(null, fd, inheritable=True)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_more_than_a_thousand_inherited_descriptors_are_no_matter(build, audited, listener):
    """D05: none of our descriptors fits into select()'s set then."""
    world = audited
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 1500:
        pytest.skip("this system grants too few descriptors")
    shell = f"exec {sys.executable} -c '{INHERIT}' \"$0\""
    settings = world.settings(WARMUP_WORKERS=4, WARMUP_DB_CONNECTIONS=2, **QUICK)
    with Spawned(listener.folder, build, settings, listener, shell) as server:
        wait_for(lambda: threads(server) > 4, what="the workers")
        for _ in range(8):
            account = world.add_account()
            assert world.retry(Raw(listener), account).status == 200
        room = re.search(r"FDSize:\s*(\d+)", pathlib.Path(f"/proc/{server.pid}/status").read_text())[1]
        assert int(room) > 1200
        assert server.stop()


def test_log_that_nobody_reads_any_more_disturbs_nothing(build, audited, listener):
    """D07: EPIPE on standard error."""
    world = audited
    reading, writing = os.pipe()
    environment = {**SANITIZER_VARIABLES, **{name: str(value) for name, value in world.settings(**QUICK).items()}}
    child = subprocess.Popen([build / "warmup.fcgi"], stdin=listener, stdout=subprocess.DEVNULL, stderr=writing,
                             env=environment)
    os.close(writing)
    try:
        assert world.retry(Raw(listener), world.add_account()).status == 200
        os.close(reading)
        for behaviour, status in (("joe", 200), ("refused", 502)) * 3:
            assert world.retry(Raw(listener), world.add_account(behaviour)).status == status
    finally:
        child.terminate()
        assert child.wait(20) == 0


# --- nothing grows -------------------------------------------------------------------------------

def resources(server):
    """Resident memory in KiB, descriptors, threads."""
    status = pathlib.Path(f"/proc/{server.pid}/status").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return resident, stack.descriptors(server.pid), threads(server)


def test_trouble_of_every_kind_leaves_nothing_behind(responder, audited):
    """D10 and D12, in little: after a hundred rounds it has what it had after twenty."""
    world = audited
    server = responder(world, WARMUP_WORKERS=4, WARMUP_DB_CONNECTIONS=2, WARMUP_DB_TIMEOUT_MS=2000,
                       WARMUP_UPSTREAM_TIMEOUT_MS=150, **QUICK)
    serves(server, world, workers=4)
    troubles = ["joe", "refused", "reset-mid-body", "close-before-headers", "endless", "not-http", "deep", "oversized"]

    def rounds(count):
        for number in range(count):
            with ThreadPoolExecutor(4) as pool:
                accounts = [world.add_account(random.choice(troubles)) for _ in range(4)]
                for answer in pool.map(lambda account: world.retry(Raw(server), account), accounts):
                    assert answer.status in (200, 502), answer
            if number % 5 == 0:
                world.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'warmup'"
                              " AND datname = current_database()")
            if number % 7 == 0:
                with stack.fcgi_connect(server.socket_path) as peer:
                    peer.sendall(stack.fcgi_begin())

    rounds(20)
    before = resources(server)
    rounds(80)
    after = resources(server)
    assert responders(world) <= 2
    assert not [state for _, state, _ in left_behind(world) if state != "idle"]
    assert after[1] <= before[1] + 4 and after[2] == before[2], (before, after)
    assert SANITIZER_VARIABLES or after[0] <= before[0] + 1024, (before, after)
    assert server.stop()

"""A request killed by kill -9 at every one of its system calls, then made again: nothing is lost, nothing moves twice.

killat.c counts the calls and kills at the entry of the n-th; n goes from 1 until a request ends before it comes to its
n-th call. After each crash the row is as it was, or moved as a whole, and moved only if Instantly had said yes; the
same request again ends as it should. So the crash points are complete, not sampled, and the test says so or fails.
"""

import collections
import contextlib
import dataclasses
import itertools
import os
import secrets
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

import stack
from conftest import ROUTE, SANITIZER_VARIABLES, STUCK, WARMING, World, as_answer, wait_for
from faults import audit

MESSAGE = "Warmup was enabled but failed to update account status"

# Accounts that never change.
VETO = """
CREATE FUNCTION veto() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER veto BEFORE UPDATE OF status ON accounts FOR EACH ROW
    WHEN (OLD.agentmail_inbox_id = 'veto') EXECUTE FUNCTION veto();
"""


@dataclasses.dataclass(frozen=True)
class Path:
    """A row, and what a request for it ends with; `mend` takes the reason away."""

    status: int
    columns: dict
    behaviour: str = "joe"
    mend: str = ""


PATHS = {
    "200": Path(200, {}),
    "409": Path(409, {"status": "active", "warmup_status": "active"}),
    "502": Path(502, {}, "refused", "email_address = 'joe+' || email_address"),
    "500": Path(500, {"agentmail_inbox_id": "veto"}, mend="agentmail_inbox_id = NULL"),
}

# A request that was a call shorter this time never came to its n-th call; another one may.
TRIES, BEYOND = 6, 3
THREADS = 6

Run = collections.namedtuple("Run", "killed count last answer application")
applications = itertools.count(1)


@pytest.fixture(scope="module")
def killat(build):
    program = build / "tests" / "faults" / "killat"
    assert program.exists(), f"{program} is missing: run make unit-programs first"
    return program


@pytest.fixture(scope="module")
def own(postgres, template, sandbox):
    name = "crash_" + secrets.token_hex(4)
    postgres.create_database(name, template)
    world = World(postgres, name, sandbox)
    audit.install(world)
    world.execute(VETO)
    yield world
    world.connection.close()


def variables(world, account):
    return {"REQUEST_METHOD": "PATCH", "SCRIPT_NAME": "", "PATH_INFO": ROUTE.format(account), "CONTENT_LENGTH": "0",
            "HTTP_AUTHORIZATION": f"Bearer {world.key}"}


def ask(path, world, account):
    return as_answer(*stack.parse_answer(stack.fcgi_request(path, variables(world, account)).stdout))


@pytest.fixture(scope="module")
def healthy(own, build, run_folder):
    """A responder that nobody kills, for the requests afterwards."""
    settings = {name: str(value) for name, value in own.settings(WARMUP_JOB_WAIT_MS=0).items()}
    server = stack.Responder(run_folder / "healthy", build / "warmup.fcgi", {**SANITIZER_VARIABLES, **settings})
    with server:
        yield lambda account: ask(server.socket_path, own, account)
        assert server.stop()


class Cut:
    """Runs of a request that end at its n-th system call, as CGI or as FastCGI; n = 0: that do not."""

    def __init__(self, kind, world, killat, build):
        self.kind, self.world, self.killat, self.program = kind, world, killat, build / "warmup.fcgi"

    def start(self, account, n, application, **options):
        settings = self.world.settings(WARMUP_WORKERS=1, WARMUP_DB_CONNECTIONS=1)
        settings["DATABASE_URL"] += f"?application_name={application}&sslmode=disable"
        environment = {**SANITIZER_VARIABLES, **{name: str(value) for name, value in settings.items()}}
        mode = ["worker"]
        if self.kind == "cgi":
            environment, mode = environment | variables(self.world, account), []
        reading, writing = os.pipe()
        with os.fdopen(writing, "wb"):
            child = subprocess.Popen([self.killat, str(writing), str(n), *mode, "--", self.program], env=environment,
                                     stderr=subprocess.DEVNULL, pass_fds=[writing], **options)
        return child, os.fdopen(reading, encoding="ascii")

    def __call__(self, account, n):
        application = f"crash-{os.getpid()}-{next(applications)}"
        if self.kind == "cgi":
            child, report = self.start(account, n, application, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            with report:
                output = child.communicate(timeout=60)[0]
                words = report.read().split()
        else:
            # Not open here, or a connection that nobody accepted would outlive the responder.
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(f"\0{application}")
                listener.listen(8)
                child, report = self.start(account, n, application, stdin=listener, stdout=subprocess.DEVNULL)
            with report:
                assert report.readline() == "ready\n"
                output = self.fetch(f"\0{application}", account)
                words = report.read().split()
            child.wait(60)
        with contextlib.suppress(ValueError):
            answer = as_answer(*stack.parse_answer(output))
            if len(answer.body) == int(answer.headers.get("content-length", -1)):
                return Run(words[0] == "killed", int(words[1]), words[2] == "1", answer, application)
        return Run(words[0] == "killed", int(words[1]), words[2] == "1", None, application)

    def fetch(self, address, account):
        """What came back, if only a part."""
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(60)
            peer.connect(address)
            try:
                peer.sendall(stack.fcgi_begin()
                             + stack.fcgi_stream(stack.FCGI_PARAMS, stack.fcgi_pairs(variables(self.world, account)))
                             + stack.fcgi_stream(stack.FCGI_STDIN, b""))
                return stack.fcgi_read(peer).stdout
            except OSError:
                return b""


def moves(world, account):
    return [change.states for change in audit.moves(world, account)]


def check_crash(world, path, account, before, run):
    """What is there after the crash, once the database has noticed it. Whether the row moved."""
    wait_for(lambda: world.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s",
                                   run.application)[0][0] == 0, 30, "the end of the session")
    after, moved = world.account(account), moves(world, account)
    if not moved:
        assert after == before
        assert run.answer is None or run.answer.status == path.status != 200
        return False
    assert moved == [(STUCK, WARMING)]
    changed = {"status": "warming", "warmup_status": "warming", "updated_at": after["updated_at"]}
    assert after == before | changed and after["updated_at"] > before["updated_at"]
    assert path.status == 200 and world.sandbox.accepted(before["email_address"])
    assert run.answer is None or run.answer.status == 200
    return True


def check_retry(world, path, account, healthy, moved):
    """The same request again, and with the reason of its refusal taken away."""
    answer = healthy(account)
    if path.status == 200:
        assert answer.status == (409 if moved else 200)
    else:
        assert answer.status == path.status
        assert (answer.error["message"] == MESSAGE) == (path.status == 500)
    if path.mend:
        assert moves(world, account) == []
        world.execute(f"UPDATE accounts SET {path.mend} WHERE id = %s", account)
        assert healthy(account).status == 200
    if path.status == 409:
        assert (world.state(account), moves(world, account)) == (("active", "active"), [])
    else:
        assert (world.state(account), moves(world, account)) == (WARMING, [(STUCK, WARMING)])


def cut_and_retry(cut, path, healthy, n):
    world = cut.world
    account = world.add_account(path.behaviour, **path.columns)
    before, address = world.account(account), world.address(account)
    run = cut(account, n)
    if not run.killed:
        assert run.answer is not None and run.answer.status == path.status
    assert len(world.sandbox.enables(address)) <= (path.status != 409)
    check_retry(world, path, account, healthy, check_crash(world, path, account, before, run))
    return run


def cut_until_reached(cut, path, healthy, n):
    """The run that was killed at call n; the last one that was not, if none was."""
    for _ in range(TRIES):
        run = cut_and_retry(cut, path, healthy, n)
        if run.killed:
            break
    return run


@pytest.mark.parametrize("kind", ["cgi", "fastcgi"])
@pytest.mark.parametrize("path", PATHS)
def test_killed_at_every_system_call(own, healthy, killat, build, path, kind):
    cut = Cut(kind, own, killat, build)
    own.sandbox.clear()
    runs = [cut_and_retry(cut, PATHS[path], healthy, 0) for _ in range(3)]
    points = range(1, max(run.count for run in runs) + BEYOND + 1)
    with ThreadPoolExecutor(THREADS) as pool:
        runs += pool.map(lambda n: cut_until_reached(cut, PATHS[path], healthy, n), points)
    reached = {run.count for run in runs if run.killed}
    whole = min(run.count for run in runs if not run.killed)
    # Beyond it are the numbers that only a longer run has, which waited once more for a reply: some of them come up.
    count = next(n for n in itertools.count(1) if n not in reached) - 1
    print(f"\n{path} as {kind}: killed at each of {count} system calls")
    assert count >= whole, f"call {count + 1} of {whole} was not reached"

    def at_the_last():
        return any(run.killed and run.last and run.count <= count for run in runs)

    # Which call is the last differs from run to run, so that to be killed just there may take more of them.
    for n in itertools.islice(itertools.cycle(range(whole, count + 1)), 10 * TRIES):
        if at_the_last():
            break
        runs.append(cut_and_retry(cut, PATHS[path], healthy, n))
    assert at_the_last(), "the last call was not reached"

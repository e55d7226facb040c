"""Every allocation and every call into the system that a request makes, failed in turn, once and from then on.

fail.c, preloaded, counts them and lets the n-th fail; n goes from 1 until a request ends before it comes to its n-th.
Whatever fails: the process neither crashes nor hangs, the answer is one that fits what was done, the row is as it was
or moved as a whole, and the same request again, without a fault, ends as it should.

Four kinds of runs: a whole life as CGI with TLS to Instantly; the start under FastCGI; a request under FastCGI on the
connections that are there; and one for which all have to be made anew, with TLS.

WARMUP_FAULTS=all in the environment makes it complete; otherwise of the long ones every STEP-th is taken.
"""

import collections
import contextlib
import mmap
import os
import pathlib
import re
import secrets
import signal
import socket
import ssl
import struct
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import stack
from conftest import ROUTE, SANITIZER_MARKS, SANITIZER_VARIABLES, STUCK, UPSTREAM_KEY, WARMING, World, as_answer
from faults import audit
from sandbox import wire
from sandbox.behaviours import BEHAVIOURS, sent
from sandbox.instantly import Sandbox

MESSAGE = "Warmup was enabled but failed to update account status"
COMPLETE = os.environ.get("WARMUP_FAULTS") == "all"
SLOW = int(os.environ.get("SLOW", 5 if SANITIZER_VARIABLES else 1))

# Accepted, and the connection is closed: the next call has to make another one.
BEHAVIOURS.setdefault("then-close", (sent(lambda connection, data: wire.whole(connection, data) and False),
                                     "accepted, and closed after the reply"))

ALLOCATIONS, CALLS = 1, 2
CRYPTO, OTHERS = 1, 2
SCOPE_ALL, SCOPE_START, SCOPE_REQUEST = range(3)
LIMITS = {"WARMUP_DB_TIMEOUT_MS": 600 * SLOW, "WARMUP_UPSTREAM_TIMEOUT_MS": 1500 * SLOW,
          "WARMUP_UPSTREAM_CONNECT_TIMEOUT_MS": 1000 * SLOW}
HANGS = 10 * SLOW  # seconds; far beyond the sum of these limits
TRIES, BEYOND = 5, 2


# Out of memory these end the process by themselves, whoever calls them: their own fault, and counted apart. How it is
# noticed, the signal, and whose allocation had failed.
NOT_OURS = {"libfcgi": ("fcgiapp.c:", [signal.SIGABRT], ""),  # asserts that malloc() does not fail
            "the C library's reading of nsswitch.conf": (
                r"in \S*/warmup.fcgi calling (getpwuid|getaddrinfo)$", (signal.SIGSEGV, signal.SIGABRT), "libc.so"),
            "OpenSSL": (r"in \S*/libcrypto.so", [signal.SIGSEGV], "libcrypto.so")}


class Control:
    """struct control of fail.c."""

    FIELDS = ("armed", "what", "scope", "at", "persistent", "choice", "part", "count", "failed", "choices", "passing",
              "done", "live")
    TEXTS = {"name": (104, 64), "caller": (168, 128), "asserted": (296, 128)}

    def __init__(self, path):
        self.path = path
        path.write_bytes(bytes(4096))
        with open(path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 4096)

    def __getitem__(self, name):
        if name in self.TEXTS:
            at, size = self.TEXTS[name]
            return self._memory[at:at + size].partition(b"\0")[0].decode()
        return struct.unpack_from("q", self._memory, 8 * self.FIELDS.index(name))[0]

    def __setitem__(self, name, value):
        struct.pack_into("q", self._memory, 8 * self.FIELDS.index(name), value)

    def arm(self, **values):
        """Everything else is zero, but what is alive."""
        self["armed"] = 0
        for name in self.FIELDS[1:12]:
            self[name] = values.get(name, 0)
        for at, size in self.TEXTS.values():
            self._memory[at:at + size] = bytes(size)
        self["armed"] = 1

    def disarm(self):
        self["armed"] = 0


Outcome = collections.namedtuple("Outcome", "answer status asserted log")


def environment_of(world, build, control, **changes):
    settings = world.settings(**LIMITS, WARMUP_WORKERS=1, WARMUP_DB_CONNECTIONS=1, **changes)
    settings["DATABASE_URL"] += "?sslmode=disable"
    variables = {**SANITIZER_VARIABLES, **{name: str(value) for name, value in settings.items()},
                 "LD_PRELOAD": str(build / "tests" / "faults" / "fail.so"), "FAIL_CONTROL": str(control.path)}
    if SANITIZER_VARIABLES:
        # What the dynamic linker keeps passes for lost, because its calls come through fail.so.
        suppressions = control.path.with_name("suppressions")
        suppressions.write_text("leak:_dl_map_object_deps\nleak:dl_open_worker\n")
        variables["LSAN_OPTIONS"] = f"suppressions='{suppressions}':print_suppressions=0"
        variables["ASAN_OPTIONS"] = SANITIZER_VARIABLES.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
    return variables


def variables_of(world, account):
    return {"REQUEST_METHOD": "PATCH", "SCRIPT_NAME": "", "PATH_INFO": ROUTE.format(account), "CONTENT_LENGTH": "0",
            "HTTP_AUTHORIZATION": f"Bearer {world.key}"}


def ask(path, world, account):
    return as_answer(*stack.parse_answer(stack.fcgi_request(path, variables_of(world, account), timeout=HANGS).stdout))


class CgiRuns:
    """Each request is a life of its own."""

    scope = SCOPE_ALL
    behaviour = "joe"

    def __init__(self, folder, build, world, changes):
        self.world, self.build, self.control = world, build, Control(folder / "control")
        self.environment = environment_of(world, build, self.control, WARMUP_JOB_WAIT_MS=0, **changes)
        self.program = build / "warmup.fcgi"

    def request(self, account):
        try:
            done = subprocess.run([self.program], env=self.environment | variables_of(self.world, account), check=False,
                                  stdin=subprocess.DEVNULL, capture_output=True, timeout=HANGS)
        except subprocess.TimeoutExpired as late:
            return Outcome(None, "hangs", "", (late.stderr or b"").decode())
        answer = None
        with contextlib.suppress(ValueError):
            answer = as_answer(*stack.parse_answer(done.stdout))
            if len(answer.body) != int(answer.headers["content-length"]):
                answer = None
        return Outcome(answer, done.returncode, self.control["asserted"], done.stderr.decode())

    def fault(self, account, **values):
        self.control.arm(scope=self.scope, **values)
        outcome = self.request(account)
        self.control.disarm()
        return outcome

    def retry(self, account):
        return self.request(account)

    def close(self):
        pass


class ServerRuns:
    """Requests to one process, which is started again only if it died."""

    scope = SCOPE_REQUEST

    def __init__(self, folder, build, world, changes, cold):
        self.world, self.build, self.control, self.cold = world, build, Control(folder / "control"), cold
        self.behaviour = "then-close" if cold else "joe"
        self.environment = environment_of(world, build, self.control, WARMUP_JOB_WAIT_MS=0 if cold else 120, **changes)
        self.folder, self.server, self.said = folder, None, 0
        self.name = f"fault-{secrets.token_hex(4)}"
        self.environment["DATABASE_URL"] += f"&application_name={self.name}"

    def start(self):
        self.server = stack.Responder(self.folder / "server", self.build / "warmup.fcgi", self.environment).start()
        self.said = len(self.server.log())
        for _ in range(3):
            ask(self.server.socket_path, self.world, self.world.add_account(self.behaviour))
        self.live = self.control["live"]

    def request(self, account):
        answer = None
        with contextlib.suppress(ValueError, ConnectionError, TimeoutError):
            answer = ask(self.server.socket_path, self.world, account)
        return answer

    def cut(self):
        """The connection to the database ends; that to Instantly has ended already."""
        self.world.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s",
                           self.name)
        time.sleep(0.01)

    def fault(self, account, **values):
        if self.server is None or not self.server.process.alive():
            self.start()
        if self.cold:
            self.cut()
        said = len(self.server.log())
        self.control.arm(scope=self.scope, **values)
        answer = self.request(account)
        ended = stack.wait_until(lambda: self.control["done"] or not self.server.process.alive(), HANGS, 0.0005)
        self.control.disarm()
        status = 0 if ended else "hangs"
        if not self.server.process.alive():
            self.server.stop()
            status = self.server.process.returncode
        return Outcome(answer, status, self.control["asserted"], self.server.log()[said:])

    def retry(self, account):
        if not self.server.process.alive():
            self.start()
        return Outcome(self.request(account), 0, "", "")

    def close(self):
        if self.server is not None:
            assert self.server.stop(), "it did not end by itself"
            for mark in SANITIZER_MARKS:
                assert mark not in self.server.log(), self.server.log()[-5000:]


class StartRuns(ServerRuns):
    """Starts of a process, each with a first request."""

    scope = SCOPE_START

    def __init__(self, folder, build, world, changes):
        super().__init__(folder, build, world, changes, False)
        self.environment["WARMUP_JOB_WAIT_MS"] = "0"

    def fault(self, account, **values):
        self.close()
        self.control.arm(scope=self.scope, **values)
        said = len(self.server.log()) if self.server else 0
        self.server = stack.Responder(self.folder / "server", self.build / "warmup.fcgi", self.environment).start()
        answer = self.request(account)
        self.control.disarm()
        status = 0
        if answer is None and self.server.process.wait(HANGS):
            self.server.stop()
            status = self.server.process.returncode
        return Outcome(answer, status, self.control["asserted"], self.server.log()[said:])

    def start(self):
        self.server = stack.Responder(self.folder / "server", self.build / "warmup.fcgi", self.environment).start()


@pytest.fixture(scope="module")
def secure(run_folder):
    """A sandbox that speaks TLS, and the certificate to trust."""
    folder = run_folder / f"secure-{secrets.token_hex(4)}"
    folder.mkdir()
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                    "-keyout", folder / "key.pem", "-out", folder / "certificate.pem"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    with Sandbox(UPSTREAM_KEY, context) as box:
        box.job_seconds = 0.05
        box.certificate = folder / "certificate.pem"
        yield box


def audited_world(postgres, template, box):
    name = "failures_" + secrets.token_hex(4)
    postgres.create_database(name, template)
    world = World(postgres, name, box)
    audit.install(world)
    return world


@pytest.fixture(scope="module")
def worlds(postgres, template, sandbox, secure):
    made = {"http": audited_world(postgres, template, sandbox), "https": audited_world(postgres, template, secure)}
    yield made
    for world in made.values():
        world.connection.close()


@pytest.fixture
def runs(request, build, run_folder, worlds, secure):
    """Makes one that runs requests of a kind."""
    made = []
    trusting = {"INSTANTLY_CA_FILE": secure.certificate}

    def make(kind):
        folder = run_folder / f"failures-{secrets.token_hex(4)}"
        folder.mkdir()
        made.append({"cgi": lambda: CgiRuns(folder, build, worlds["https"], trusting),
                     "start": lambda: StartRuns(folder, build, worlds["http"], {}),
                     "warm": lambda: ServerRuns(folder, build, worlds["http"], {}, False),
                     "cold": lambda: ServerRuns(folder, build, worlds["https"], trusting, True)}[kind]())
        return made[-1]

    yield make
    for run in made:
        run.close()


def moves(world, account):
    return [change.states for change in audit.moves(world, account)]


class Wrong(AssertionError):
    pass


def expect(condition, what):
    if not condition:
        raise Wrong(what)


def check_row(world, account, before):
    """Whether it moved: as a whole, once, and only with Instantly's yes."""
    after, moved = world.account(account), moves(world, account)
    if not moved:
        expect(after == before, "the row changed")
        return False
    changed = {"status": "warming", "warmup_status": "warming", "updated_at": after["updated_at"]}
    expect(moved == [(STUCK, WARMING)] and after == before | changed, f"it moved otherwise: {moved}")
    expect(world.sandbox.accepted(before["email_address"]), "it moved without Instantly's yes")
    return True


def check_answer(outcome, address, world, moved):
    """That the answer fits what was done."""
    status, asked = outcome.answer.status, len(world.sandbox.enables(address)) > 0
    if status == 200:
        expect(moved, "200, but the row did not move")
        expect(outcome.answer.json["account"]["email_address"] == address, "another's account")
    elif status == 503:
        expect(not asked, "503, but Instantly was asked")
    elif status == 502:
        expect(not moved, "502, but the row moved")
    elif status == 500:
        told = outcome.answer.body and outcome.answer.error["message"] == MESSAGE
        expect(world.sandbox.accepted(address) if told else not moved, "the wrong 500")
    else:
        raise Wrong(f"the answer was {status}")


def judge(run, outcome, account, before, persistent):
    """How it ended, in one word; Wrong if it must not end so."""
    world, control = run.world, run.control
    for mark in SANITIZER_MARKS:
        expect(mark not in outcome.log, outcome.log[-3000:])
    expect(all(secret not in outcome.log for secret in world.secrets), "a secret is in the log")
    moved = check_row(world, account, before)
    if outcome.asserted:
        for who, (what, numbers, caller) in NOT_OURS.items():
            if re.search(what, outcome.asserted) and -outcome.status in numbers and caller in control["caller"]:
                return f"ended by {who}"
        raise Wrong(outcome.asserted)
    if outcome.answer is not None:
        expect(outcome.status == 0, f"it ended with {outcome.status}")
        check_answer(outcome, before["email_address"], world, moved)
        return str(outcome.answer.status)
    if run.scope == SCOPE_START:
        expect(outcome.status in (1, 64, 78) and outcome.log, f"no answer, and it ended with {outcome.status}")
        return "did not start"
    expect(outcome.status == 0, f"no answer, and it ended with {outcome.status}")
    if run.scope == SCOPE_ALL and persistent:
        return "no answer"
    # What failed was the way to the web server.
    if run.scope == SCOPE_ALL and "warmup.fcgi" in control["caller"] and control["name"] in ("write", "poll"):
        return "no answer"
    expect("libfcgi" in control["caller"] or (persistent and control["name"] in ("read", "write")), "no answer")
    return "no answer"


def one(run, what, n, persistent, choice, part):
    """One request with a fault and one without. Whether the n-th was reached, and how it ended."""
    world, control = run.world, run.control
    account = world.add_account(run.behaviour)
    before = world.account(account)
    outcome = run.fault(account, what=what, at=n, persistent=persistent, choice=choice, part=part)
    reached = control["failed"] > 0
    try:
        how = judge(run, outcome, account, before, persistent)
        expect(reached or how == "200", f"without a fault: {how}")
        again = run.retry(account)
        expect(again.status == 0 and again.answer is not None, f"the retry ended with {again.status}")
        expect(again.answer.status in (200, 409), f"the retry: {again.answer}")
        expect((world.state(account), moves(world, account)) == (WARMING, [(STUCK, WARMING)]), "it is still stuck")
    except Wrong as wrong:
        caller = pathlib.Path(control["caller"]).name
        raise Wrong(f"{wrong}\nnumber {n}, {control['name']} by {caller}, {'from then on' if persistent else 'once'},"
                    f" error {choice}\n{outcome}") from None
    return reached, how


def ways(run, what, n, part):
    """The n-th failed in every way: once and from then on, with every error that such a call can have."""
    ended = collections.Counter()
    for persistent in (0, 1):
        choice = 0
        while True:
            for _ in range(TRIES):
                reached, how = one(run, what, n, persistent, choice, part)
                if reached:
                    ended[how] += 1
                    break
            choice += 1
            if not reached or what == ALLOCATIONS or choice >= run.control["choices"]:
                break
    return ended, reached


def check_memory(run):
    """After all of it a process holds no more than at its start, but for what its libraries keep for later."""
    if not isinstance(run, ServerRuns) or run.scope != SCOPE_REQUEST:
        return
    for _ in range(5):
        answer = run.retry(run.world.add_account(run.behaviour)).answer
        assert answer is not None and answer.status == 200, (answer, run.server.log()[-2000:])
    grown = run.control["live"] - run.live
    assert grown < 100, f"{grown} blocks of memory were not given back"


def fail_every(made, what, part, step):
    """Fails every step-th on several runs at once. What came of it: a text."""
    lengths = []
    for run in made:
        account = run.world.add_account(run.behaviour)
        assert run.fault(account, what=what, part=part).answer.status == 200
        lengths.append(run.control["count"])
    points = range(1, max(lengths) + 1, step)

    def share(number):
        run = made[number]
        found = [(n, *ways(run, what, n, part)) for n in points[number::len(made)]]
        check_memory(run)
        run.close()  # here: what this thread started ends with it
        return found

    with ThreadPoolExecutor(len(made)) as pool:
        found = [point for points_of_one in pool.map(share, range(len(made))) for point in points_of_one]
    ended = sum((counter for _, counter, _ in found), collections.Counter())
    missed = [n for n, _, reached in found if not reached and n <= min(lengths)]
    assert not missed, f"not reached: {missed} of {lengths}"
    return (f"{sum(reached for _, _, reached in found)} of {max(lengths)} failed, {sum(ended.values())} runs:"
            f" {', '.join(f'{how} {count}' for how, count in sorted(ended.items()))}")


def run_kind(runs, kind, what, part, step):
    made = [runs(kind) for _ in range(THREADS[kind])]
    for run in made:
        if run.scope == SCOPE_REQUEST:
            run.start()
    said = fail_every(made, what, part, 1 if COMPLETE else step)
    print(f"\n{kind}: {said}")


# Those of a warm request wait for Instantly's job most of the time.
THREADS = {"cgi": 4, "start": 4, "warm": 8, "cold": 4}


# OpenSSL makes some 30,000 allocations to get ready and 26,000 for a connection, the others some hundreds.
@pytest.mark.parametrize("kind, part, step", [
    ("warm", 0, 1), ("cgi", OTHERS, 1), ("cold", OTHERS, 1), ("start", OTHERS, 1),
    ("cgi", CRYPTO, 701), ("cold", CRYPTO, 503), ("start", CRYPTO, 997)],
    ids=["warm", "cgi", "cold", "start", "cgi-crypto", "cold-crypto", "start-crypto"])
def test_every_allocation_failed(runs, kind, part, step):
    run_kind(runs, kind, ALLOCATIONS, part, step)


@pytest.mark.parametrize("kind, step", [("warm", 1), ("cgi", 2), ("cold", 2), ("start", 2)])
def test_every_call_failed(runs, kind, step):
    run_kind(runs, kind, CALLS, 0, step)

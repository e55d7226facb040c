"""FastCGI on the socket itself: whatever a peer does there, other requests are answered, and the process lives."""

import contextlib
import os
import pathlib
import random
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import stack
from conftest import ROUTE, SANITIZER_VARIABLES, STUCK, WARMING, as_answer, check_log, wait_for

# What another request may take while peers misbehave but a worker is free, and while none is.
SOON, IN_A_WHILE = 1.0, 5.0

FLOOD = "import os, sys; data = sys.stdin.buffer.read()\nwhile True: os.write(1, data)"

SIGNALS = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGCHLD, signal.SIGALRM, signal.SIGPIPE]


def variables(method, path, headers=(), length=0):
    """A request as a web server describes it that is mounted at the root."""
    pairs = {"REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": path, "CONTENT_LENGTH": length}
    return pairs | {"HTTP_" + name.upper().replace("-", "_"): value for name, value in dict(headers).items()}


class Raw:
    """Asks a responder on its socket, one connection a request."""

    kind = "fastcgi"

    def __init__(self, server):
        self.server = server

    def log(self):
        return self.server.log()

    def request(self, method, path, headers=(), body=b"", timeout=30):
        answer = stack.fcgi_request(self.server.socket_path, variables(method, path, headers, len(body)), body, timeout)
        assert (answer.stderr, answer.app_status) == (b"", 0)
        return as_answer(*stack.parse_answer(answer.stdout))


class Spawned(stack.Server):
    """The responder on a listening socket that outlives it, started through a shell command."""

    name = "responder"

    def __init__(self, folder, build, settings, listener, shell='exec "$0"', stdout=subprocess.DEVNULL):
        super().__init__(folder)
        self.command = ["/bin/sh", "-c", shell, build / "warmup.fcgi"]
        self.settings = {**SANITIZER_VARIABLES, **{name: str(value) for name, value in settings.items()}}
        self.listener, self.stdout = listener, stdout

    def start(self):
        self.process = stack.Process(self.command, self.folder, self.folder / self.log_name, self.settings,
                                     stdin=self.listener, stdout=self.stdout)
        return self

    def stop(self, patience=30):
        return self.process is None or self.process.stop(signal.SIGTERM, patience)


class Listener:
    """A listening socket in a folder; something for Raw, too."""

    def __init__(self, folder, backlog=1024):
        folder.mkdir(parents=True)
        self.folder, self.socket_path = folder, folder / "app.sock"
        self.socket = socket.socket(socket.AF_UNIX)
        stack._at(self.socket_path, self.socket.bind)
        self.socket.listen(backlog)

    def fileno(self):
        return self.socket.fileno()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


@contextlib.contextmanager
def window(host, world, *accounts, **options):
    """Retries whose enables have arrived at Instantly and are held there: between the gate and the swap.

    They go on when the block ends. Gives the future of their answer; of several a list of futures.
    """
    holds = [world.sandbox.hold(world.address(account)) for account in accounts]
    with ThreadPoolExecutor(len(accounts)) as pool:
        answers = [pool.submit(world.retry, host, account, **options) for account in accounts]
        try:
            for hold in holds:
                assert hold.arrived.wait(20), "no enable came"
            yield answers if len(accounts) > 1 else answers[0]
        finally:
            for hold in holds:
                hold.release()


def opening(world, account, length=0, flags=0):
    """The records of a retry up to its body."""
    pairs = variables("PATCH", ROUTE.format(account), world.bearer(), length)
    return stack.fcgi_begin(flags) + stack.fcgi_stream(stack.FCGI_PARAMS, stack.fcgi_pairs(pairs))


def whole(world, account, body=b"", flags=0):
    return opening(world, account, len(body), flags) + stack.fcgi_stream(stack.FCGI_STDIN, body)


def record(kind, content=b"", version=1, request=1, length=None):
    return stack.FCGI_HEADER.pack(version, kind, request, len(content) if length is None else length, 0) + content


def read_answer(connection):
    return as_answer(*stack.parse_answer(stack.fcgi_read(connection).stdout))


def drip(connection, data, pause, stop=None):
    """Send byte by byte until all is sent, the other side has gone, or stop is set. How long it took."""
    begun = time.monotonic()
    with contextlib.suppress(OSError):
        for i in range(len(data)):
            connection.sendall(data[i:i + 1])
            if stop is None:
                time.sleep(pause)
            elif stop.wait(pause):
                break
    return time.monotonic() - begun


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def threads(server):
    assert server.process.alive(), server.log()[-2000:]
    return len(os.listdir(f"/proc/{server.pid}/task"))


def serves(server, world, within=IN_A_WHILE, workers=None):
    """Prove that it serves, with each worker if their number is given, and in time."""
    begun = time.monotonic()
    accounts = [world.add_account() for _ in range(workers or 1)]
    if workers:
        with window(Raw(server), world, *accounts) as answers:
            pass
        answers = [answers] if workers == 1 else answers
        assert [answer.result().status for answer in answers] == [200] * workers
    else:
        assert world.retry(Raw(server), accounts[0]).status == 200
    took = time.monotonic() - begun
    assert took < within, f"answered after {took:.2f} s"
    assert server.process.alive()


@pytest.fixture
def account(world):
    return world.add_account()


# --- slow and silent peers ----------------------------------------------------------------------

UNFINISHED = {
    "silent": lambda world, account: b"",
    "half-a-begin": lambda world, account: stack.fcgi_begin()[:4],
    "begin-without-params": lambda world, account: stack.fcgi_begin(),
    "half-params": lambda world, account: opening(world, account)[:60],
    "params-without-end": lambda world, account: opening(world, account)[:-8],
    "half-a-body": lambda world, account: opening(world, account, 100) + record(stack.FCGI_STDIN, b"x" * 50),
    "body-without-end": lambda world, account: opening(world, account, 5) + record(stack.FCGI_STDIN, b"x" * 5),
}


def test_unfinished_requests_do_not_delay_others_and_are_shed(responder, world, account):
    server = responder(world, WARMUP_WORKERS=9, WARMUP_DB_CONNECTIONS=2, WARMUP_JOB_WAIT_MS=0)
    serves(server, world)
    with contextlib.ExitStack() as peers:
        for begin in [*UNFINISHED.values(), UNFINISHED["half-params"]]:
            peer = peers.enter_context(stack.fcgi_connect(server.socket_path))
            peer.sendall(begin(world, account))
        time.sleep(0.1)
        serves(server, world, SOON)
        # One more, and no worker is free: then peers are shed early, and all workers come back.
        peers.enter_context(stack.fcgi_connect(server.socket_path))
        serves(server, world, IN_A_WHILE, workers=9)
    assert (world.state(account), world.enables(account)) == (STUCK, 0)


def test_more_silent_peers_than_workers_do_not_keep_a_request_out(responder, world):
    server = responder(world, WARMUP_WORKERS=4, WARMUP_DB_CONNECTIONS=1, WARMUP_JOB_WAIT_MS=0)
    serves(server, world)
    with contextlib.ExitStack() as peers:
        for _ in range(9):
            peers.enter_context(stack.fcgi_connect(server.socket_path))
        time.sleep(0.1)
        serves(server, world)


def test_silent_peers_that_always_come_back_do_not_keep_a_request_out(responder, world):
    server = responder(world, WARMUP_WORKERS=4, WARMUP_DB_CONNECTIONS=1, WARMUP_JOB_WAIT_MS=0)
    stop = threading.Event()

    def pester():
        while not stop.is_set():
            with contextlib.suppress(OSError), stack.fcgi_connect(server.socket_path, 0.1) as peer:
                while not stop.is_set():
                    with contextlib.suppress(TimeoutError):
                        if not peer.recv(1):
                            break

    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(pester)
        try:
            time.sleep(0.5)
            serves(server, world)
            serves(server, world)
        finally:
            stop.set()


def test_trickling_peers_are_ended_after_the_limit(responder, world):
    """Parameters, a body, bytes after the request, and an answer that is taken up slowly; all at once."""
    server = responder(world, WARMUP_WORKERS=9, WARMUP_DB_CONNECTIONS=2, WARMUP_JOB_WAIT_MS=0)
    params, body, after = (world.add_account() for _ in range(3))
    unread = world.add_account(state=WARMING, agentmail_inbox_id="x")
    world.execute("UPDATE accounts SET status = repeat('s', 4000000) WHERE id = %s", unread)
    serves(server, world)
    stop = threading.Event()
    with contextlib.ExitStack() as peers, ThreadPoolExecutor(3) as pool:
        first, second, third, fourth = (peers.enter_context(stack.fcgi_connect(server.socket_path)) for _ in range(4))
        second.sendall(opening(world, body, 100))
        third.sendall(whole(world, after))
        fourth.sendall(whole(world, unread))
        long = b"".join(stack.fcgi_record(stack.FCGI_STDIN, b"x") for _ in range(100))
        took = [pool.submit(drip, first, opening(world, params), 0.2, stop),
                pool.submit(drip, second, long, 0.2, stop),
                pool.submit(drip, third, b"x" * 1000, 0.05, stop)]
        try:
            assert read_answer(third).status == 200
            for future in took:
                assert future.result(15) < 7.5
            second.settimeout(1)
            with contextlib.suppress(ConnectionError):  # it may also hang up without a word
                assert read_answer(second).status == 400
            fourth.settimeout(1)
            with pytest.raises(ConnectionError):
                stack.fcgi_read(fourth)
        finally:
            stop.set()
        serves(server, world, IN_A_WHILE, workers=9)
    assert (world.state(params), world.state(body), world.state(after)) == (STUCK, STUCK, WARMING)
    assert (world.enables(params), world.enables(body)) == (0, 0)


def test_one_worker_survives_a_peer_that_goes_on_sending(responder, world):
    server = responder(world, WARMUP_WORKERS=1, WARMUP_DB_CONNECTIONS=1, WARMUP_JOB_WAIT_MS=0)
    account, stop = world.add_account(), threading.Event()
    with stack.fcgi_connect(server.socket_path) as peer, ThreadPoolExecutor(1) as pool:
        peer.sendall(whole(world, account))
        pool.submit(drip, peer, b"x" * 1000, 0.02, stop)
        try:
            serves(server, world)
        finally:
            stop.set()


# What comes first, the number of the request whose records then follow without end, faster than they can be taken up,
# so that hardly any read waits, and how soon the worker is to be free again: a body over any limit; and records of a
# request that does not exist, in the place of parameters and of a body.
FLOODS = {
    "body": (lambda world, account: opening(world, account, 1 << 40), 1, 2),
    "strange-records-for-params": (lambda world, account: stack.fcgi_begin(), 7, IN_A_WHILE),
    "strange-records-for-a-body": (lambda world, account: opening(world, account, 5), 7, IN_A_WHILE),
}


@pytest.mark.parametrize("what", FLOODS)
def test_one_worker_survives_a_flood(responder, world, account, what):
    server = responder(world, WARMUP_WORKERS=1, WARMUP_DB_CONNECTIONS=1, WARMUP_JOB_WAIT_MS=0)
    serves(server, world)
    begin, number, within = FLOODS[what]
    for _ in range(3 if what == "body" else 1):
        with stack.fcgi_connect(server.socket_path) as peer:
            peer.sendall(begin(world, account))
            peer.setblocking(True)
            records = record(stack.FCGI_STDIN, bytes(0xFFFF), request=number) * 16
            with subprocess.Popen([sys.executable, "-c", FLOOD], stdin=subprocess.PIPE, stdout=peer,
                                  stderr=subprocess.DEVNULL) as flood:
                try:
                    flood.stdin.write(records)
                    flood.stdin.close()
                    time.sleep(0.2)
                    serves(server, world, within)
                finally:
                    flood.kill()
    assert (world.state(account), world.enables(account)) == (STUCK, 0)


def test_one_worker_survives_a_peer_that_does_not_read(responder, world):
    server = responder(world, WARMUP_WORKERS=1, WARMUP_DB_CONNECTIONS=1, WARMUP_JOB_WAIT_MS=0)
    unread = world.add_account(agentmail_inbox_id="x" * 4_000_000)
    with stack.fcgi_connect(server.socket_path) as peer:
        peer.sendall(whole(world, unread))
        wait_for(lambda: world.state(unread) == WARMING)
        serves(server, world)


def test_large_answer_read_slowly_but_in_time_arrives_whole(responder, world):
    server = responder(world, WARMUP_WORKERS=4, WARMUP_DB_CONNECTIONS=1, WARMUP_JOB_WAIT_MS=0)
    inbox = "x" * 4_000_000
    account = world.add_account(agentmail_inbox_id=inbox)
    with stack.fcgi_connect(server.socket_path) as peer:
        peer.sendall(whole(world, account))
        wait_for(lambda: world.state(account) == WARMING)
        time.sleep(1)
        answer = read_answer(peer)
    assert answer.json["account"]["agentmail_inbox_id"] == inbox
    assert int(answer.headers["content-length"]) == len(answer.body)


# --- kept, half-closed and closed connections ----------------------------------------------------

def test_connections_to_be_kept_are_answered_and_hold_no_worker(responder, world):
    server = responder(world, WARMUP_WORKERS=4, WARMUP_DB_CONNECTIONS=2, WARMUP_JOB_WAIT_MS=0)
    accounts = [world.add_account() for _ in range(8)]
    with contextlib.ExitStack() as kept:
        peers = [kept.enter_context(stack.fcgi_connect(server.socket_path)) for _ in accounts]
        for peer, account in zip(peers, accounts):
            peer.sendall(whole(world, account, flags=stack.FCGI_KEEP_CONN))
        assert [read_answer(peer).status for peer in peers] == [200] * 8
        serves(server, world, SOON * 2, workers=4)
        assert [peer.recv(1) for peer in peers] == [b""] * 8


def test_peer_that_ended_its_sending_is_answered(responder, world, account):
    server = responder(world, WARMUP_JOB_WAIT_MS=0)
    with stack.fcgi_connect(server.socket_path) as peer:
        peer.sendall(whole(world, account, b"{}"))
        peer.shutdown(socket.SHUT_WR)
        assert read_answer(peer).status == 200


def test_peer_that_hangs_up_before_the_answer_changes_nothing(responder, world):
    server = responder(world, WARMUP_WORKERS=4, WARMUP_JOB_WAIT_MS=0)
    serves(server, world)
    at_once, meanwhile = [world.add_account() for _ in range(8)], world.add_account()
    for account in at_once:
        with stack.fcgi_connect(server.socket_path) as peer:
            peer.sendall(whole(world, account))
    hold = world.sandbox.hold(world.address(meanwhile))
    with stack.fcgi_connect(server.socket_path) as peer:
        peer.sendall(whole(world, meanwhile))
        assert hold.arrived.wait(20)
    hold.release()
    for account in [*at_once, meanwhile]:
        wait_for(lambda account=account: world.state(account) == WARMING)
        assert world.enables(account) == 1
    serves(server, world, workers=4)


def test_connect_and_close_again_and_again(responder, world):
    server = responder(world, WARMUP_WORKERS=4, WARMUP_JOB_WAIT_MS=0)
    for i in range(50):
        peer = stack.fcgi_connect(server.socket_path)
        if i % 2:
            peer.sendall(opening(world, "x")[:i])
        peer.close()
    serves(server, world, workers=4)


def test_abort_in_the_middle_of_a_body_ends_the_request(responder, world, account):
    server = responder(world, WARMUP_WORKERS=2, WARMUP_JOB_WAIT_MS=0)
    for _ in range(4):
        with stack.fcgi_connect(server.socket_path) as peer:
            peer.sendall(opening(world, account, 20) + stack.fcgi_record(stack.FCGI_STDIN, b"x" * 10)
                         + stack.fcgi_record(stack.FCGI_ABORT))
            with contextlib.suppress(ConnectionError):  # it may also hang up without a word
                assert read_answer(peer).status == 400
    serves(server, world, workers=2)
    assert (world.state(account), world.enables(account)) == (STUCK, 0)


# --- what is no FastCGI --------------------------------------------------------------------------

GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
    "noise": random.Random(1).randbytes(65536),
    "wrong-version": record(stack.FCGI_BEGIN, struct.pack("!HB5x", 1, 0), version=2),
    "short-begin": record(stack.FCGI_BEGIN, b"\0"),
    "params-before-begin": record(stack.FCGI_PARAMS, b"\1\1ab"),
    "request-zero": record(stack.FCGI_BEGIN, struct.pack("!HB5x", 1, 0), request=0),
    "unknown-role": record(stack.FCGI_BEGIN, struct.pack("!HB5x", 99, 0)) + record(stack.FCGI_PARAMS),
    "unknown-type": stack.fcgi_begin() + record(99, b"x" * 8),
    "management": record(9, b"\x0e\0FCGI_MAX_CONNS", request=0),
    "more-content-than-comes": stack.fcgi_begin() + record(stack.FCGI_PARAMS, b"\1\1ab", length=0xFFFF),
    "longest-names": stack.fcgi_begin() + stack.fcgi_stream(stack.FCGI_PARAMS, b"\xff" * 64),
    "two-gigabytes": stack.fcgi_begin() + stack.fcgi_stream(stack.FCGI_PARAMS, b"\xff\xff\xff\xff\0" + b"x" * 64),
    "name-longer-than-its-record": stack.fcgi_begin() + stack.fcgi_stream(stack.FCGI_PARAMS, b"\x64\x01REQUEST_METHOD"),
    "no-params": stack.fcgi_begin() + record(stack.FCGI_PARAMS) + record(stack.FCGI_STDIN),
    "nameless-params": stack.fcgi_begin() + stack.fcgi_stream(stack.FCGI_PARAMS, b"\0\0\0\1x\1\0=" * 100)
                       + stack.fcgi_stream(stack.FCGI_STDIN, b""),
}


def test_garbage_costs_a_connection_and_no_more(responder, world):
    server = responder(world, WARMUP_WORKERS=4, WARMUP_JOB_WAIT_MS=0)
    for what, data in GARBAGE.items():
        with stack.fcgi_connect(server.socket_path, 10) as peer:
            with contextlib.suppress(OSError):
                peer.sendall(data)
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(65536):
                    pass
        assert server.process.alive(), what
    serves(server, world, workers=4)


def test_request_of_another_number_is_answered_under_it(responder, world, account):
    server = responder(world, WARMUP_JOB_WAIT_MS=0)
    pairs = stack.fcgi_pairs(variables("PATCH", ROUTE.format(account), world.bearer()))
    with stack.fcgi_connect(server.socket_path) as peer:
        peer.sendall(record(stack.FCGI_BEGIN, struct.pack("!HB5x", 1, 0), request=300)
                     + record(stack.FCGI_PARAMS, pairs, request=300) + record(stack.FCGI_PARAMS, request=300)
                     + record(stack.FCGI_STDIN, b"strange", request=7) + record(stack.FCGI_STDIN, request=300))
        data = b""
        while piece := peer.recv(65536):
            data += piece
    numbers, status = set(), b""
    while data:
        _, kind, number, length, padding = stack.FCGI_HEADER.unpack(data[:8])
        numbers.add((kind, number))
        status += data[8:8 + length] if kind == stack.FCGI_STDOUT else b""
        data = data[8 + length + padding:]
    assert status.startswith(b"Status: 200 OK\r\n")
    assert (stack.FCGI_STDOUT, 300) in numbers and (stack.FCGI_END, 300) in numbers


def test_many_records_of_one_byte_make_one_request(responder, world, account):
    server = responder(world, WARMUP_JOB_WAIT_MS=0)
    pairs = stack.fcgi_pairs(variables("PATCH", ROUTE.format(account), world.bearer(), 3))
    with stack.fcgi_connect(server.socket_path) as peer:
        peer.sendall(stack.fcgi_begin()
                     + b"".join(stack.fcgi_record(stack.FCGI_PARAMS, pairs[i:i + 1]) for i in range(len(pairs)))
                     + stack.fcgi_record(stack.FCGI_PARAMS)
                     + stack.fcgi_record(stack.FCGI_STDIN, b"a") * 3 + stack.fcgi_record(stack.FCGI_STDIN))
        assert read_answer(peer).status == 200


# --- signals and descriptors ---------------------------------------------------------------------

def test_signal_storm_cuts_nothing_short(responder, world):
    server = responder(world, WARMUP_WORKERS=16, WARMUP_JOB_WAIT_MS=0)
    serves(server, world)
    accounts = [world.add_account(behaviour) for behaviour in ("joe", "slow") for _ in range(5)]
    data = {account: opening(world, account, 30)
            + b"".join(stack.fcgi_record(stack.FCGI_STDIN, b"x") for _ in range(30))
            + stack.fcgi_record(stack.FCGI_STDIN) for account in accounts}

    def trickle(account):
        with stack.fcgi_connect(server.socket_path) as peer:
            for i in range(0, len(data[account]), 8):
                peer.sendall(data[account][i:i + 8])
                time.sleep(0.02)
            return read_answer(peer)

    sent = 0
    with ThreadPoolExecutor(len(accounts)) as pool:
        answers = [pool.submit(trickle, account) for account in accounts]
        while not all(answer.done() for answer in answers):
            server.process.send(SIGNALS[sent % len(SIGNALS)])
            sent += 1
            time.sleep(0.001)
    assert [answer.result().status for answer in answers] == [200] * len(accounts)
    assert [world.enables(account) for account in accounts] == [1] * len(accounts)
    assert sent > 300
    assert server.process.alive()


def test_nothing_is_written_to_standard_output(build, run_folder, world):
    with Listener(run_folder / "stdout") as listener, open(listener.folder / "stdout", "wb+") as output:
        with Spawned(listener.folder, build, world.settings(WARMUP_JOB_WAIT_MS=0), listener, stdout=output) as server:
            for behaviour, status in (("joe", 200), ("refused", 502)):
                assert world.retry(Raw(listener), world.add_account(behaviour)).status == status
            assert Raw(listener).request("GET", "/healthz").status == 200
            assert Raw(listener).request("GET", "/nowhere").status == 404
            assert server.stop()
        assert os.fstat(output.fileno()).st_size == 0
        check_log(server, world.secrets)


def test_full_log_disturbs_nothing(build, run_folder, world):
    with Listener(run_folder / "log-full") as listener:
        settings = world.settings(WARMUP_WORKERS=4, WARMUP_DB_CONNECTIONS=2, WARMUP_JOB_WAIT_MS=0)
        with Spawned(listener.folder, build, settings, listener, 'exec "$0" 2>/dev/full') as server:
            for behaviour, status in (("joe", 200), ("refused", 502)) * 3:
                assert world.retry(Raw(listener), world.add_account(behaviour)).status == status
            assert server.stop()


@pytest.mark.parametrize("reader", ["gone", "stuck"])
def test_log_that_nobody_reads_disturbs_nothing(build, run_folder, world, reader):
    settings = world.settings(WARMUP_WORKERS=4, WARMUP_DB_CONNECTIONS=2, WARMUP_JOB_WAIT_MS=0)
    reading, writing = os.pipe()
    with Listener(run_folder / f"log-{reader}") as listener, os.fdopen(reading) as end, os.fdopen(writing, "wb"):
        shell = f'exec "$0" 2>/proc/{os.getpid()}/fd/{writing}'
        with Spawned(listener.folder, build, settings, listener, shell) as server:
            wait_for(lambda: threads(server) == 5)
            if reader == "gone":
                end.close()
            else:
                os.set_blocking(writing, False)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        os.write(writing, b"x" * 4096)
            begun = time.monotonic()
            for behaviour, status in (("joe", 200), ("refused", 502)) * 3:
                assert world.retry(Raw(listener), world.add_account(behaviour)).status == status
            assert time.monotonic() - begun < 3
            assert server.stop()


@pytest.mark.parametrize("closed", ["1", "2", "1 2"])
def test_closed_standard_descriptors_do_not_become_something_else(build, run_folder, world, closed):
    """Or what is meant for the log would be written into a connection, or stop the workers."""
    shell = 'exec "$0"' + "".join(f" {fd}>&-" for fd in closed.split())
    with Listener(run_folder / f"closed-{closed}") as listener:
        settings = world.settings(WARMUP_WORKERS=4, WARMUP_DB_CONNECTIONS=2, WARMUP_JOB_WAIT_MS=0)
        with Spawned(listener.folder, build, settings, listener, shell) as server:
            for behaviour, status in (("joe", 200), ("refused", 502)) * 3:
                assert world.retry(Raw(listener), world.add_account(behaviour)).status == status
            used = cpu_seconds(server.pid)
            time.sleep(0.3)
            assert cpu_seconds(server.pid) - used < 0.2
            for fd in closed.split():
                # Only root sees the descriptors of a process that hides its memory.
                with contextlib.suppress(FileNotFoundError, PermissionError):
                    assert os.readlink(f"/proc/{server.pid}/fd/{fd}") == "/dev/null"
            assert server.stop()


def test_listener_that_does_not_block_is_served_like_any(build, run_folder, world):
    with Listener(run_folder / "nonblocking") as listener:
        listener.socket.setblocking(False)
        with Spawned(listener.folder, build, world.settings(WARMUP_JOB_WAIT_MS=0), listener) as server:
            for _ in range(3):
                assert world.retry(Raw(listener), world.add_account()).status == 200
            used = cpu_seconds(server.pid)
            time.sleep(0.5)
            assert cpu_seconds(server.pid) - used < 0.2


def test_processes_share_one_socket_and_lose_nothing_when_one_stops(build, run_folder, world):
    accounts = [world.add_account() for _ in range(60)]
    settings = world.settings(WARMUP_WORKERS=4, WARMUP_DB_CONNECTIONS=2, WARMUP_JOB_WAIT_MS=0)
    with Listener(run_folder / "shared") as listener, contextlib.ExitStack() as processes:
        servers = [processes.enter_context(Spawned(listener.folder / str(i), build, settings, listener))
                   for i in range(3)]
        for server in servers:
            wait_for(lambda server=server: threads(server) > 4)
        with ThreadPoolExecutor(20) as pool:
            answers = [pool.submit(world.retry, Raw(listener), account) for account in accounts[:30]]
            assert servers[0].stop()
            answers += [pool.submit(world.retry, Raw(listener), account) for account in accounts[30:]]
        assert [answer.result().status for answer in answers] == [200] * 60
        assert servers[0].process.returncode == 0
        assert world.retry(Raw(listener), world.add_account()).status == 200
    assert [world.enables(account) for account in accounts] == [1] * 60


def test_what_comes_while_no_process_runs_is_served_by_the_next(build, run_folder, world):
    settings = world.settings(WARMUP_JOB_WAIT_MS=0)
    account = world.add_account()
    with Listener(run_folder / "successor") as listener:
        with Spawned(listener.folder / "first", build, settings, listener) as first:
            assert world.retry(Raw(listener), world.add_account()).status == 200
            assert first.stop()
        with stack.fcgi_connect(listener.socket_path) as peer:
            peer.sendall(whole(world, account))
            with Spawned(listener.folder / "second", build, settings, listener):
                assert read_answer(peer).status == 200


def test_two_hundred_connections_at_once_are_all_answered(responder, world):
    server = responder(world)
    serves(server, world)
    account = world.add_account(state=WARMING)
    with contextlib.ExitStack() as peers:
        opened = [peers.enter_context(stack.fcgi_connect(server.socket_path)) for _ in range(200)]
        for peer in opened:
            peer.sendall(whole(world, account))
        assert [read_answer(peer).status for peer in opened] == [409] * 200


def test_out_of_descriptors_it_neither_ends_nor_spins_and_then_goes_on(responder, world):
    server = responder(world, WARMUP_WORKERS=8, WARMUP_DB_CONNECTIONS=2, WARMUP_JOB_WAIT_MS=0)
    serves(server, world, workers=8)
    accounts = [world.add_account() for _ in range(10)]
    limits, said = resource.prlimit(server.pid, resource.RLIMIT_NOFILE), len(server.log())
    with contextlib.ExitStack() as peers:
        # Lower than what is open already, so that nothing can be opened.
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        opened = [peers.enter_context(stack.fcgi_connect(server.socket_path)) for _ in accounts]
        for peer, account in zip(opened, accounts):
            peer.sendall(whole(world, account))
        used = cpu_seconds(server.pid)
        time.sleep(1)
        assert server.process.alive()
        assert cpu_seconds(server.pid) - used < 0.5
        lines = server.log()[said:].count("open files")
        assert 1 <= lines < 20, f"{lines} lines about one thing"
        assert [world.state(account) for account in accounts] == [STUCK] * 10
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
        assert [read_answer(peer).status for peer in opened] == [200] * 10
    assert [world.enables(account) for account in accounts] == [1] * 10


# From too few to accept with to enough for all.
@pytest.mark.parametrize("limit", range(6, 15))
def test_few_descriptors_make_an_honest_answer(responder, world, account, limit):
    server = responder(world, WARMUP_WORKERS=2, WARMUP_DB_CONNECTIONS=1, WARMUP_JOB_WAIT_MS=0)
    serves(server, world)
    world.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                  " WHERE datname = current_database() AND usename = 'warmup'")
    time.sleep(0.1)
    limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (limit, limits[1]))
    with stack.fcgi_connect(server.socket_path) as peer:
        peer.sendall(whole(world, account))
        time.sleep(0.3)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
        answer = read_answer(peer)
    assert answer.status in (200, 502, 503)
    assert world.state(account) == (WARMING if answer.status == 200 else STUCK)
    serves(server, world, workers=2)

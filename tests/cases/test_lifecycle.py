"""Start, stop, and what the program is started with on standard input."""

import contextlib
import os
import pathlib
import random
import secrets
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import stack
from conftest import SANITIZER_VARIABLES, STUCK, WARMING, wait_for
from test_database import QUICK, SLACK, Mute, session, timed, waiting
from test_transport import Listener, Raw, Spawned, cpu_seconds, opening, read_answer, threads, whole, window

# A leak check at the exit of a sanitized build takes its time.
PROMPT = 5.0 if SANITIZER_VARIABLES else 1.0

EX_USAGE = 64


@pytest.fixture
def account(world):
    return world.add_account()


@pytest.fixture
def listener(run_folder):
    with Listener(run_folder / f"listener-{secrets.token_hex(4)}") as listener:
        yield listener


def asleep(server):
    """Whether all its threads wait for something to happen."""
    with contextlib.suppress(OSError):
        tasks = list(pathlib.Path(f"/proc/{server.pid}/task").iterdir())
        return all((task / "stat").read_text().rpartition(")")[2].split()[0] == "S" for task in tasks)


def living(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"


def ended(server, within):
    """Its exit status, after it ended by itself in time."""
    assert server.process.wait(within), f"it still runs after {within} s"
    assert server.stop()
    return server.process.returncode


def queue(path, world, accounts):
    """Whole requests on connections of their own."""
    peers = [stack.fcgi_connect(path) for _ in accounts]
    for peer, account in zip(peers, accounts):
        peer.sendall(whole(world, account))
    return peers


# --- stop ----------------------------------------------------------------------------------------

def test_idle_workers_end_at_once_every_time(build, world, listener):
    settings = world.settings(WARMUP_WORKERS=32, WARMUP_DB_CONNECTIONS=1, **QUICK)
    slowest = 0
    for i in range(50):
        with Spawned(listener.folder / str(i), build, settings, listener) as server:
            wait_for(lambda: threads(server) >= 33)
            if i % 5 == 0:
                assert Raw(listener).request("GET", "/healthz").status == 200
            wait_for(lambda: asleep(server))
            begun = time.monotonic()
            server.process.send(signal.SIGTERM)
            assert ended(server, 10) == 0
            slowest = max(slowest, time.monotonic() - begun)
        assert server.log().count("error") == 0, server.log()
    assert slowest < PROMPT, f"the slowest took {slowest:.2f} s"


def test_stop_at_any_instant_of_the_start_ends_it(build, world, listener):
    settings = world.settings(WARMUP_WORKERS=8, WARMUP_DB_CONNECTIONS=2, **QUICK)
    for i in range(40):
        with Spawned(listener.folder / str(i), build, settings, listener) as server:
            time.sleep(random.uniform(0, 0.03))
            server.process.send(signal.SIGTERM)
            # Before its first line the signal ends it as any program.
            assert ended(server, 10) in (0, -signal.SIGTERM)


def test_stop_while_the_database_says_nothing_at_the_start(build, world, listener):
    with Mute() as mute:
        settings = world.settings(DATABASE_URL=mute.url(), WARMUP_DB_TIMEOUT_MS=400)
        with Spawned(listener.folder, build, settings, listener) as server:
            wait_for(lambda: mute.peers)
            server.process.send(signal.SIGTERM)
            assert ended(server, 0.4 + SLACK) == 0


@pytest.mark.parametrize("workers, signals",
                         [(1, "TERM"), (3, "TERM"), (3, "INT"), (1, "TERM TERM"), (3, "INT TERM INT")])
def test_requests_in_flight_and_queued_are_answered_before_the_end(responder, world, workers, signals):
    server = responder(world, WARMUP_WORKERS=workers, WARMUP_DB_CONNECTIONS=2, **QUICK)
    accounts = [world.add_account() for _ in range(6)]
    holds = [world.sandbox.hold(world.address(account)) for account in accounts]
    with contextlib.ExitStack() as peers:
        opened = [peers.enter_context(peer) for peer in queue(server.socket_path, world, accounts)]
        wait_for(lambda: sum(hold.waiting for hold in holds) == workers)
        for name in signals.split():
            server.process.send(getattr(signal, "SIG" + name))
            time.sleep(0.1)
        assert server.process.alive()
        for hold in holds:
            hold.release()
        assert [read_answer(peer).status for peer in opened] == [200] * 6
    assert ended(server, 5) == 0
    assert [(world.state(account), world.enables(account)) for account in accounts] == [(WARMING, 1)] * 6


def test_hundred_queued_requests_are_answered_before_the_end(responder, world):
    server = responder(world, WARMUP_WORKERS=2, WARMUP_DB_CONNECTIONS=2, **QUICK)
    held, account = world.add_account(), world.add_account(state=WARMING)
    hold = world.sandbox.hold(world.address(held))
    with contextlib.ExitStack() as peers:
        opened = [peers.enter_context(peer) for peer in queue(server.socket_path, world, [held] * 2)]
        wait_for(lambda: hold.waiting == 2)
        queued = [peers.enter_context(peer) for peer in queue(server.socket_path, world, [account] * 100)]
        server.process.send(signal.SIGTERM)
        time.sleep(0.1)
        hold.release()
        assert sorted(read_answer(peer).status for peer in opened) == [200, 409]
        assert [read_answer(peer).status for peer in queued] == [409] * 100
    assert ended(server, 5) == 0


def test_request_that_still_arrives_is_answered_before_the_end(responder, world, account):
    server = responder(world, WARMUP_WORKERS=2, WARMUP_DB_CONNECTIONS=1, **QUICK)
    data = opening(world, account, 5) + stack.fcgi_stream(stack.FCGI_STDIN, b"{   }")
    with stack.fcgi_connect(server.socket_path) as peer:
        peer.sendall(data[:20])
        wait_for(lambda: threads(server) >= 3)
        time.sleep(0.1)
        server.process.send(signal.SIGTERM)
        time.sleep(0.1)
        peer.sendall(data[20:])
        assert read_answer(peer).status == 200
    assert ended(server, 5) == 0


def test_stop_while_instantly_hangs_is_answered_and_bounded(responder, world):
    account = world.add_account("hang")
    server = responder(world, WARMUP_WORKERS=4, WARMUP_UPSTREAM_TIMEOUT_MS=600, **QUICK)
    with queue(server.socket_path, world, [account])[0] as peer:
        wait_for(lambda: world.enables(account) == 1)
        server.process.send(signal.SIGTERM)
        assert read_answer(peer).status == 502
    assert ended(server, 0.6 + SLACK) == 0


def test_stop_while_the_database_hangs_is_answered_and_bounded(responder, fresh_world):
    world = fresh_world
    account = world.add_account()
    server = responder(world, WARMUP_WORKERS=4, WARMUP_DB_CONNECTIONS=1, WARMUP_DB_TIMEOUT_MS=500, **QUICK)
    assert Raw(server).request("GET", "/healthz").status == 200
    with session(world) as other:
        other.execute("LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE")
        with contextlib.ExitStack() as peers:
            opened = [peers.enter_context(peer) for peer in queue(server.socket_path, world, [account] * 2)]
            waiting(world)
            server.process.send(signal.SIGTERM)
            assert [read_answer(peer).status for peer in opened] == [503, 503]
            assert ended(server, 0.5 + SLACK) == 0


def test_stop_with_everything_hanging_takes_no_longer_than_the_slowest_request(responder, world):
    """Those who wait in the queue are answered, too, if only by 503: the sum of the limits bounds the whole stop."""
    accounts = [world.add_account("hang") for _ in range(4)]
    limits = {"WARMUP_DB_TIMEOUT_MS": 100, "WARMUP_UPSTREAM_TIMEOUT_MS": 1200, "WARMUP_JOB_WAIT_MS": 0}
    server = responder(world, WARMUP_WORKERS=1, **limits)
    with contextlib.ExitStack() as peers:
        opened = [peers.enter_context(peer) for peer in queue(server.socket_path, world, accounts)]
        wait_for(lambda: sum(map(world.enables, accounts)) == 1)
        server.process.send(signal.SIGTERM)
        begun = time.monotonic()
        assert {read_answer(peer).status for peer in opened} <= {502, 503}
        assert ended(server, 10) == 0
        took = time.monotonic() - begun
    assert took < 2 * 0.1 + 1.2 + SLACK / 2, f"it took {took:.2f} s"
    assert [world.state(account) for account in accounts] == [STUCK] * 4


def test_stop_with_silent_peers_is_bounded(responder, world):
    server = responder(world, WARMUP_WORKERS=4, WARMUP_DB_CONNECTIONS=1, **QUICK)
    with contextlib.ExitStack() as peers:
        for _ in range(6):
            peers.enter_context(stack.fcgi_connect(server.socket_path))
        wait_for(lambda: threads(server) >= 5)
        time.sleep(0.1)
        server.process.send(signal.SIGTERM)
        assert ended(server, 4) == 0


def test_stop_under_load_loses_no_answer(build, world, listener):
    """A successor takes over the socket while requests keep coming: each is answered once, by one of the two."""
    settings = world.settings(WARMUP_WORKERS=4, WARMUP_DB_CONNECTIONS=2, **QUICK)
    accounts = [world.add_account() for _ in range(120)]
    with contextlib.ExitStack() as servers, ThreadPoolExecutor(12) as pool:
        server = servers.enter_context(Spawned(listener.folder / "0", build, settings, listener))
        wait_for(lambda: threads(server) >= 5)
        answers = [pool.submit(world.retry, Raw(listener), account) for account in accounts]
        for i in range(1, 6):
            successor = servers.enter_context(Spawned(listener.folder / str(i), build, settings, listener))
            wait_for(lambda successor=successor: threads(successor) >= 5)
            server.process.send(signal.SIGTERM)
            assert ended(server, 10) == 0
            server = successor
        assert [answer.result().status for answer in answers] == [200] * 120
    assert [world.enables(account) for account in accounts] == [1] * 120


@pytest.mark.parametrize("serve", ["fastcgi"], indirect=True)
def test_web_server_that_stops_gracefully_gets_its_answer_and_leaves_nobody_behind(serve, world, account):
    host = serve(world, fcgi_options={"max_procs": 2}, **QUICK)
    wait_for(lambda: len(host.server.responder_pids()) == 2)
    pids = host.server.responder_pids()
    with window(host, world, account) as answer:
        host.server.process.send(signal.SIGINT)
        time.sleep(0.3)
        assert all(living(pid) for pid in pids)
    assert answer.result().status == 200
    assert host.server.process.wait(10)
    assert host.stop()
    assert not any(living(pid) for pid in pids)
    assert world.state(account) == WARMING


@pytest.mark.parametrize("serve", ["fastcgi"], indirect=True)
def test_web_server_that_hangs_up_at_its_stop_does_not_undo_the_move(serve, world, account):
    host = serve(world, **QUICK)
    wait_for(host.server.responder_pids)
    pid, = host.server.responder_pids()
    with ThreadPoolExecutor(1) as pool:
        hold = world.sandbox.hold(world.address(account))
        answer = pool.submit(world.retry, host, account)
        assert hold.arrived.wait(20)
        host.server.process.send(signal.SIGTERM)
        with pytest.raises(OSError):
            answer.result(20)
        hold.release()
    wait_for(lambda: world.state(account) == WARMING)
    wait_for(lambda: not living(pid), what="the responder's end")
    assert world.enables(account) == 1


# A server that loses patience with a CGI program sends it these.
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE])
def test_signal_does_not_end_a_cgi_program_between_call_and_swap(build, world, account, number):
    environment = {**SANITIZER_VARIABLES, **world.settings(**QUICK), "REQUEST_METHOD": "PATCH", "SCRIPT_NAME": "",
                   "PATH_INFO": f"/api/email/accounts/{account}/retry-warmup",
                   "HTTP_AUTHORIZATION": f"Bearer {world.key}"}
    hold = world.sandbox.hold(world.address(account))
    child = subprocess.Popen([build / "warmup.fcgi"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, env={name: str(value) for name, value in environment.items()})
    assert hold.arrived.wait(20)
    child.send_signal(number)
    time.sleep(0.05)
    hold.release()
    output = child.communicate(timeout=20)[0]
    assert (child.returncode, stack.parse_answer(output).status) == (0, 200)
    assert world.state(account) == WARMING


# --- idle ----------------------------------------------------------------------------------------

def test_idle_process_uses_no_processor(responder, world):
    server = responder(world)
    assert Raw(server).request("GET", "/healthz").status == 200
    time.sleep(0.3)
    used = cpu_seconds(server.pid)
    time.sleep(2)
    assert cpu_seconds(server.pid) - used < 0.1


# --- start ---------------------------------------------------------------------------------------

def run(build, world, stdin, shell='exec "$0"', **environment):
    """Start it as no web server would; status, standard output, standard error, seconds."""
    environment = {**SANITIZER_VARIABLES, **world.settings(**QUICK), **environment}
    child, took = timed(subprocess.run, ["/bin/sh", "-c", shell, build / "warmup.fcgi"], stdin=stdin, timeout=20,
                        env={name: str(value) for name, value in environment.items()}, capture_output=True)
    return child.returncode, child.stdout, child.stderr.decode(), took


def check_usage(done):
    status, output, error, took = done
    assert (status, output) == (EX_USAGE, b"")
    assert error.startswith("warmup.fcgi: to be started by a web server") and error.count("\n") == 1
    assert took < PROMPT * 2


def test_started_by_hand_it_says_what_it_is_for(build, world):
    with socket.socket(socket.AF_UNIX) as bound, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        one, two = socket.socketpair()
        reading, writing = os.pipe()
        with one, two, os.fdopen(reading), os.fdopen(writing, "wb"):
            for stdin in (subprocess.DEVNULL, one, reading, bound, datagram):
                check_usage(run(build, world, stdin))
        check_usage(run(build, world, None, 'exec "$0" <&-'))


def test_command_line_is_never_read(build, world, listener):
    check_usage(run(build, world, subprocess.DEVNULL, 'exec "$0" --help -v migrate'))
    shell = 'exec "$0" --version -c /dev/null'
    with Spawned(listener.folder, build, world.settings(**QUICK), listener, shell) as server:
        assert Raw(listener).request("GET", "/healthz").status == 200
        assert server.process.alive()


def test_listening_socket_counts_more_than_variables_of_a_request(build, world, listener, account):
    """An environment with leftovers of a request must not turn a FastCGI process into a CGI program."""
    settings = world.settings(**QUICK, REQUEST_METHOD="GET", GATEWAY_INTERFACE="CGI/1.1", PATH_INFO="/healthz")
    with Spawned(listener.folder, build, settings, listener):
        assert world.retry(Raw(listener), account).status == 200


def test_tcp_socket_is_served_too(build, world, run_folder, account):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with Spawned(run_folder / f"tcp-{secrets.token_hex(4)}", build, world.settings(**QUICK), listener):
            with socket.create_connection(listener.getsockname(), timeout=20) as peer:
                peer.sendall(whole(world, account))
                assert read_answer(peer).status == 200


def test_database_that_is_away_at_the_start_is_used_when_it_is_there(build, world, listener, account):
    """The process serves at once; nothing of the start has to be repeated."""
    port = stack.free_port()
    url = world.settings()["DATABASE_URL"].replace(f":{world.postgres.port}/", f":{port}/") + "?sslmode=disable"
    with Spawned(listener.folder, build, world.settings(DATABASE_URL=url, **QUICK), listener) as server:
        assert world.retry(Raw(listener), account).status == 503
        assert world.state(account) == STUCK
        with socket.create_server(("127.0.0.1", port)) as front:
            def forward():
                with contextlib.suppress(OSError):
                    while True:
                        client = front.accept()[0]
                        back = socket.create_connection(("127.0.0.1", world.postgres.port))
                        for one, two in ((client, back), (back, client)):
                            threading.Thread(target=pump, args=(one, two), daemon=True).start()

            def pump(one, two):
                with contextlib.suppress(OSError):
                    while data := one.recv(65536):
                        two.sendall(data)
                for end in (one, two):
                    with contextlib.suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)

            thread = threading.Thread(target=forward)
            thread.start()
            try:
                assert world.retry(Raw(listener), account).status == 200
                assert server.process.alive()
                assert server.stop()
            finally:
                front.shutdown(socket.SHUT_RDWR)
                thread.join(10)

"""SIGTERM, again and again, while requests keep coming: no reply is lost.

WARMUP_STOPS=1000 in the environment makes it that many stops under load; otherwise it is 100.
"""

import contextlib
import os
import random
import secrets
import signal
import socket
import subprocess
import threading
import time

import pytest

import stack
from conftest import ROUTE, SANITIZER_VARIABLES, WARMING, as_answer, check_log, wait_for

STOPS = int(os.environ.get("WARMUP_STOPS", "100"))
CLIENTS = 6
STOPPED_WITHIN = 30 if SANITIZER_VARIABLES else 10


@pytest.fixture
def listener():
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0stop-{secrets.token_hex(8)}")
        listening.listen(1024)
        yield listening


class Sharing(stack.Server):
    """A responder on a socket that outlives it."""

    name = "responder"

    def __init__(self, folder, build, world, listener, workers):
        super().__init__(folder)
        self.listener, self.workers, self.command = listener, workers, [build / "warmup.fcgi"]
        settings = world.settings(WARMUP_WORKERS=workers, WARMUP_DB_CONNECTIONS=2, WARMUP_JOB_WAIT_MS=0)
        self.settings = {**SANITIZER_VARIABLES, **{name: str(value) for name, value in settings.items()}}

    def start(self):
        self.process = stack.Process(self.command, self.folder, self.folder / self.log_name, self.settings,
                                     stdin=self.listener, stdout=subprocess.DEVNULL)
        wait_for(lambda: len(os.listdir(f"/proc/{self.pid}/task")) == self.workers + 1, 30, "its workers' start")
        return self

    def stop(self):
        return self.process is None or self.process.stop(signal.SIGTERM, STOPPED_WITHIN)

    def ended_well(self):
        assert self.process.wait(STOPPED_WITHIN) and self.stop(), "it did not end by itself"
        return self.process.returncode == 0


def ask(listener, method, path, world=None, timeout=60):
    """One request; OSError if the reply is lost."""
    pairs = {"REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": path, "CONTENT_LENGTH": "0"}
    if world:
        pairs["HTTP_AUTHORIZATION"] = f"Bearer {world.key}"
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(timeout)
        peer.connect(listener.getsockname())
        peer.sendall(stack.fcgi_begin() + stack.fcgi_stream(stack.FCGI_PARAMS, stack.fcgi_pairs(pairs))
                     + stack.fcgi_stream(stack.FCGI_STDIN, b""))
        return as_answer(*stack.parse_answer(stack.fcgi_read(peer).stdout))


class Client(threading.Thread):
    """Frees one account after another, asks for each once more, and notes what was wrong."""

    def __init__(self, world, listener):
        super().__init__()
        self.world, self.listener, self.over = world, listener, threading.Event()
        self.replies, self.wrong = 0, []

    def run(self):
        while not self.over.is_set():
            account = self.world.add_account()
            for expected in (200, 409):
                try:
                    status = ask(self.listener, "PATCH", ROUTE.format(account), self.world).status
                except (OSError, ValueError) as error:
                    status = repr(error)
                self.replies += 1
                if status != expected:
                    self.wrong.append((account, expected, status))
            if self.world.state(account) != WARMING or self.world.enables(account) != 1:
                self.wrong.append((account, self.world.state(account), self.world.enables(account)))


def test_no_reply_is_lost_by_stops_under_load(build, run_folder, world, listener):
    """A successor shares the socket; one of the two answers, and the row is moved by one call to Instantly."""
    folder = run_folder / f"stop-{secrets.token_hex(4)}"
    world.sandbox.clear()
    clients = [Client(world, listener) for _ in range(CLIENTS)]
    slowest = 0
    with contextlib.ExitStack() as servers:
        server = servers.enter_context(Sharing(folder / "first", build, world, listener, 4))
        for client in clients:
            client.start()
        try:
            for i in range(STOPS):
                successor = servers.enter_context(Sharing(folder / str(i % 2), build, world, listener, 4))
                time.sleep(random.uniform(0, 0.02))
                begun = time.monotonic()
                server.process.send(signal.SIGTERM)
                assert server.ended_well(), server.log()[-2000:]
                slowest = max(slowest, time.monotonic() - begun)
                server = successor
        finally:
            for client in clients:
                client.over.set()
            for client in clients:
                client.join(60)
        replies, wrong = sum(client.replies for client in clients), [w for client in clients for w in client.wrong]
        print(f"\n{STOPS} stops, {replies} replies, {len(wrong)} lost or wrong, the slowest stop {slowest:.2f} s")
        assert wrong == []
        assert replies > STOPS
        assert server.stop() and server.process.returncode == 0
        check_log(server, world.secrets)


def test_stop_leaves_nobody_waiting_who_another_process_could_serve(build, run_folder, world, listener):
    """The kernel tells one process of a new connection. If that one is about to end, the other must still come to know.

    One request after the other: the next one, which would wake the other process, comes only after the reply.
    """
    folder = run_folder / f"handover-{secrets.token_hex(4)}"
    with contextlib.ExitStack() as servers:
        server = servers.enter_context(Sharing(folder / "first", build, world, listener, 32))
        for i in range(STOPS // 2):
            successor = servers.enter_context(Sharing(folder / str(i % 2), build, world, listener, 32))
            server.process.send(signal.SIGTERM)
            for _ in range(40):
                assert ask(listener, "GET", "/nowhere", timeout=5).status == 404
                time.sleep(random.uniform(0, 0.0003))
            assert server.ended_well(), server.log()[-2000:]
            server = successor
        assert server.stop() and server.process.returncode == 0

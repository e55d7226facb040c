"""What the cases of this folder share: each web server with the responder behind it, a client, and the matrix.

`served` is one server in one place; the same cases run against each. At the end a matrix is printed, a row for each case
and a column for each server and place.
"""

import collections
import dataclasses
import http.client
import secrets
import socket

import pytest

from conftest import World, as_answer, check_log
from hosts import servers

SERVERS_OWN = ("date", "server", "connection", "accept-ranges", "keep-alive", "vary", "upgrade")


@dataclasses.dataclass
class Client:
    """Requests to a host, with its own headers taken away from the answers."""

    server: servers.Host

    @property
    def health(self):
        return self.server.health

    def log(self):
        return self.server.log()

    def request(self, method, path, headers=(), body=b"", timeout=40, chunked=False):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=timeout)
        try:
            return self.on(connection, method, path, headers, body, chunked)
        finally:
            connection.close()

    def on(self, connection, method, path, headers=(), body=b"", chunked=False):
        connection.request(method, path, body=iter([body]) if chunked else body or None, headers=dict(headers),
                           encode_chunked=chunked)
        answer = connection.getresponse()
        got = as_answer(answer.status, answer.getheaders(), answer.read())
        for name in SERVERS_OWN:
            got.headers.pop(name, None)
        return got

    def raw(self, head, body=b""):
        """A connection on which these lines, and so much of a body, were sent."""
        connection = socket.create_connection(("127.0.0.1", self.server.port), timeout=40)
        connection.sendall("".join(line + "\r\n" for line in [*head, ""]).encode("latin-1") + body)
        return connection


@pytest.fixture(scope="session")
def hosts_world(postgres, template, sandbox):
    """A database of these cases' own: one of them shuts it."""
    postgres.create_database("hosts", template)
    return World(postgres, "hosts", sandbox)


@pytest.fixture
def world(hosts_world):
    return hosts_world


def short(sample):
    return sample.removesuffix(".conf").removesuffix("/.htaccess")


@pytest.fixture(scope="session", params=[
    pytest.param((sample, mount), id=f"{short(sample)}-at-{mount}")
    for sample in servers.HOSTS for mount in ("/", "/api")])
def served(request, build, run_folder, hosts_world):
    sample, mount = request.param
    server = servers.HOSTS[sample](run_folder / f"host-{secrets.token_hex(4)}", build / "warmup.fcgi",
                                   hosts_world.settings(), mount).start()
    yield Client(server)
    assert server.stop(), "it did not end by itself"
    assert not server.responder_pids(), "it left the responder behind"
    check_log(server, hosts_world.secrets)


@pytest.fixture
def host(build, run_folder, hosts_world):
    """Starts a server of a case's own: host(sample, edit, WARMUP_WORKERS=1)."""
    started = []

    def start(sample, edit=None, **changes):
        server = servers.HOSTS[sample](run_folder / f"host-{secrets.token_hex(4)}", build / "warmup.fcgi",
                                       hosts_world.settings(**changes), edit=edit)
        started.append(server)
        return Client(server.start())

    yield start
    for server in started:
        server.stop()
        check_log(server, hosts_world.secrets)


# --- the matrix ----------------------------------------------------------------------------------

MARKS = {"passed": ".", "failed": "F", "skipped": "-"}


def _place(item):
    """The case and the column of an item of the matrix; None for others."""
    callspec = getattr(item, "callspec", None)
    if callspec is None or "served" not in callspec.params:
        return None
    sample, mount = callspec.params["served"]
    column = f"{short(sample)}-at-{mount}"
    others = [part for part in callspec.id.replace(column, "").split("-") if part]
    return item.originalname.removeprefix("test_") + (f" [{'-'.join(others)}]" if others else ""), (short(sample), mount)


def pytest_collection_modifyitems(config, items):
    config.warmup_places = {item.nodeid: place for item in items if (place := _place(item))}


def pytest_terminal_summary(terminalreporter, config):
    places, cells = getattr(config, "warmup_places", {}), collections.defaultdict(dict)
    for outcome, mark in MARKS.items():
        for report in terminalreporter.stats.get(outcome, []):
            if report.nodeid in places and (report.when == "call" or outcome != "passed"):
                case, column = places[report.nodeid]
                cells[case][column] = mark
    columns = list(dict.fromkeys(column for row in cells.values() for column in row))
    if not columns:
        return
    write = terminalreporter.write_line
    write("")
    write("host x mount x case (. passed, F failed, - skipped)")
    for number, (sample, mount) in enumerate(columns, 1):
        write(f"  {number:2} {sample} at {mount}")
    width = max(map(len, cells))
    write(" " * width + "".join(f" {number:2}" for number in range(1, len(columns) + 1)))
    for case, row in cells.items():
        write(f"{case:{width}}" + "".join(f"  {row.get(column, ' ')}" for column in columns))

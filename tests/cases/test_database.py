"""The database before the call: whatever it does, the caller has an answer in time, and Instantly is asked only after
the account was read.
"""

import contextlib
import re
import select
import signal
import socket
import struct
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest
import stack
from conftest import DATABASE_PASSWORD, ROUTE, STUCK, WARMING, Cgi, World, check_log, wait_for, warmupctl
from test_transport import Raw, serves, window

UNAVAILABLE = ("unavailable", "The service is temporarily unavailable; retry after the time in Retry-After")
QUICK = {"WARMUP_JOB_WAIT_MS": 0}

# On a shared, noisy machine: what may be added to a limit, and what "at once" may take.
SLACK, AT_ONCE = 1.5, 2.0


@contextlib.contextmanager
def private_world(folder, build, sandbox, settings=None):
    """A World on a PostgreSQL of its own, to stop and to pause."""
    with stack.Postgres(folder, settings) as server:
        server.create_database("own")
        warmupctl(build, server.url("own"), "migrate", "--role")
        with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE ROLE warmup LOGIN PASSWORD %s IN ROLE warmup_responder", (DATABASE_PASSWORD,))
        world = World(server, "own", sandbox)
        yield world
        world.connection.close()


@contextlib.contextmanager
def scratch_world(postgres, template, sandbox):
    """A World on a database of its own, for all cases of a file."""
    name = "scratch_" + stack.secrets.token_hex(4)
    postgres.create_database(name, template)
    world = World(postgres, name, sandbox)
    yield world
    world.connection.close()


def start_again(world):
    world.postgres.start()
    world.connection.close()
    world.connection = world.postgres.connect(world.name)


@pytest.fixture(scope="module")
def own(run_folder, build, sandbox):
    settings = {"max_connections": 16, "synchronous_commit": "on"}
    with private_world(run_folder / "postgres-database", build, sandbox, settings) as world:
        yield world


@pytest.fixture(scope="module")
def scratch(postgres, template, sandbox):
    """A database to break, by those who mend it again."""
    with scratch_world(postgres, template, sandbox) as world:
        yield world


class Proxy:
    """Between the responder and PostgreSQL, without TLS: sees the statements, and can come between them.

    `on` has a list for each statement ("load", "swap", "read"); each time it is about to be run, the first function is
    taken off its list and called with the connection, else it passes. `down` refuses new connections, by closing.
    """

    MARKS = {"swap": b"UPDATE accounts", "load": b"FROM api_keys", "read": b"FROM accounts"}

    class Connection:
        def __init__(self, client, server):
            self.client, self.server = client, server

        def forward(self):
            self.server.sendall(self.message)

        def reply(self):
            """What PostgreSQL answers, to the end."""
            data = b""
            while not re.search(rb"Z\0\0\0\x05[ITE]$", data):
                data += self.server.recv(65536) or b"Z\0\0\0\x05E"
            return data

        def cut(self):
            """Hang up on both, by force."""
            for end in (self.client, self.server):
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.shutdown(socket.SHUT_RDWR)

        def hold(self):
            """Say nothing until the client leaves."""
            self.client.settimeout(30)
            with contextlib.suppress(OSError):
                while self.client.recv(65536):
                    pass
            self.cut()

    def __init__(self, world):
        self.world, self.down, self.seen, self.refused = world, False, [], 0
        self.on = {name: [] for name in self.MARKS}
        self.connections, self.threads = [], []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    @property
    def settings(self):
        return {"DATABASE_URL": self.world.settings()["DATABASE_URL"].replace(
            f":{self.world.postgres.port}/", f":{self.port}/") + "?sslmode=disable&gssencmode=disable", **QUICK}

    def _accept(self):
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            if self.down:
                self.refused += 1
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self.world.postgres.port))
            connection = self.Connection(client, server)
            self.connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self.threads.append(thread)
            thread.start()

    def _serve(self, connection):
        statements, first = {}, True
        buffer = b""
        with contextlib.suppress(OSError), connection.client as client, connection.server as server:
            while True:
                ready = select.select([client, server], [], [], 30)[0]
                if not ready:
                    return
                if server in ready:
                    data = server.recv(65536)
                    if not data:
                        return
                    client.sendall(data)
                if client not in ready:
                    continue
                data = client.recv(65536)
                if not data:
                    return
                buffer += data
                if first:  # the startup packet has no type
                    if len(buffer) < 4 or len(buffer) < struct.unpack("!I", buffer[:4])[0]:
                        continue
                    first, data, buffer = False, buffer, b""
                    server.sendall(data)
                    continue
                # libpq sends the messages of one statement together, up to its Sync (S) or a password (p).
                if not re.search(rb"(S\0\0\0\x04|X\0\0\0\x04)$", buffer) and buffer[:1] not in b"pQ":
                    continue
                message, buffer = buffer, b""
                what = self._statement(message, statements)
                if what:
                    self.seen.append(what)
                connection.message = message
                if what and self.on[what]:
                    self.on[what].pop(0)(connection)
                else:
                    server.sendall(message)

    def _statement(self, data, statements):
        """Which of the statements some messages run; takes note of those they prepare."""
        run = None
        while len(data) >= 5 and data[:1] != b"p":
            kind, length = data[:1], struct.unpack("!I", data[1:5])[0]
            content, data = data[5:1 + length], data[1 + length:]
            if kind == b"P":
                name, text = content.split(b"\0")[:2]
                statements[name] = next((what for what, mark in self.MARKS.items() if mark in text), None)
            elif kind == b"B":
                run = statements.get(content.split(b"\0")[1])
        return run

    def __enter__(self):
        self.threads.append(threading.Thread(target=self._accept))
        self.threads[0].start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.cut()
        for thread in self.threads:
            thread.join(35)
            assert not thread.is_alive()


class Mute:
    """A listener that accepts connections, counts them, and says what it is told to, by default nothing."""

    def __init__(self, words=None):
        self.words, self.peers = words, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._accept)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                peer = self.listener.accept()[0]
                self.peers.append(peer)
                if self.words:
                    peer.recv(1024)
                    peer.sendall(self.words)
                    peer.close()

    def url(self, options=""):
        password = urllib.parse.quote(DATABASE_PASSWORD)
        return f"postgresql://warmup:{password}@127.0.0.1:{self.port}/x?sslmode=disable{options}"

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(10)
        for peer in self.peers:
            peer.close()


@contextlib.contextmanager
def session(world):
    """A transaction of somebody else."""
    with contextlib.closing(world.postgres.connect(world.name)) as connection:
        connection.autocommit = False
        with connection.cursor() as cursor:
            yield cursor
        connection.rollback()


def waiting(world, count=1):
    """The server processes of the responder that wait for a lock, as soon as there are so many."""
    pids = []

    def found():
        pids[:] = [pid for pid, in world.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND usename = 'warmup'"
            " AND wait_event_type = 'Lock'")]
        return len(pids) == count

    wait_for(found, 20, "a statement that waits for a lock")
    return pids


def end_connections(world):
    """As an administrator, or a server that is restarted, ends all of the responder's."""
    ended = world.execute("SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
                          " WHERE datname = current_database() AND usename = 'warmup'")
    wait_for(lambda: not world.execute("SELECT 1 FROM pg_stat_activity WHERE pid = ANY(%s)", [pid for pid, _ in ended]))


def responders(world):
    """How many connections the responder has to this database."""
    return world.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                         " AND application_name = 'warmup'")[0][0]


def check_unavailable(answer):
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert list(answer.error) == ["code", "message", "request_id"]
    assert (answer.error["code"], answer.error["message"]) == UNAVAILABLE


def check_left_alone(world, account):
    assert (world.state(account), world.enables(account)) == (STUCK, 0)


def check_moved(world, account, answer):
    assert answer.status == 200, answer
    assert (world.state(account), world.enables(account)) == (WARMING, 1)


def timed(function, *arguments, **options):
    begun = time.monotonic()
    return function(*arguments, **options), time.monotonic() - begun


# --- connections that end ------------------------------------------------------------------------

def test_connections_ended_while_idle_cost_no_request(responder, world):
    server = responder(world, WARMUP_WORKERS=8, WARMUP_DB_CONNECTIONS=4, **QUICK)
    for _ in range(3):
        accounts = [world.add_account() for _ in range(8)]
        end_connections(world)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda account: world.retry(Raw(server), account), accounts))
        for account, answer in zip(accounts, answers):
            check_moved(world, account, answer)
    assert responders(world) <= 4


def test_connection_ended_while_the_account_is_read_is_replaced(serve, scratch):
    world = scratch
    host, account = serve(world, WARMUP_DB_CONNECTIONS=1, **QUICK), world.add_account()
    assert host.request("GET", "/healthz").status == 200
    with session(world) as other, ThreadPoolExecutor(1) as pool:
        other.execute("LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE")
        answer = pool.submit(world.retry, host, account)
        waiting(world)
        end_connections(world)
        waiting(world)  # the same statement again, on another connection
        other.connection.rollback()
        check_moved(world, account, answer.result(20))


@pytest.mark.parametrize("when", ["before", "after"])
def test_connection_cut_while_the_account_is_read_is_replaced(serve, world, when):
    account = world.add_account()
    with Proxy(world) as proxy:
        host = serve(world, **proxy.settings)

        def cut(connection):
            if when == "after":
                connection.forward()
                connection.client.sendall(connection.reply()[:40])
            connection.cut()

        proxy.on["load"] = [cut, cut]
        check_moved(world, account, world.retry(host, account))
        assert proxy.seen == ["load", "load", "load", "swap"]
        host.stop()


# --- a server that is away -----------------------------------------------------------------------

@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_stopped_server_answers_503_and_the_next_request_after_its_return_is_right(responder, own, mode):
    server = responder(own, WARMUP_WORKERS=8, WARMUP_DB_CONNECTIONS=4, **QUICK)
    accounts = [own.add_account() for _ in range(9)]
    check_moved(own, accounts[0], own.retry(Raw(server), accounts[0]))
    pid = server.pid
    own.postgres.stop(mode)
    try:
        for _ in range(3):
            answer, took = timed(own.retry, Raw(server), accounts[1])
            check_unavailable(answer)
            assert took < AT_ONCE
            health = Raw(server).request("GET", "/healthz")
            assert (health.status, health.body) == (503, b'{"status":"unavailable"}')
        with ThreadPoolExecutor(8) as pool:
            for answer in pool.map(lambda account: own.retry(Raw(server), account), accounts[1:]):
                check_unavailable(answer)
    finally:
        start_again(own)
    for account in accounts[1:]:
        assert own.enables(account) == 0
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda account: own.retry(Raw(server), account), accounts[1:]))
    for account, answer in zip(accounts[1:], answers):
        check_moved(own, account, answer)
    health = Raw(server).request("GET", "/healthz")
    assert (health.status, health.body) == (200, b'{"status":"ok"}')
    assert server.pid == pid and server.process.alive()


def test_restarted_server_costs_no_request(responder, own):
    server = responder(own, WARMUP_WORKERS=8, WARMUP_DB_CONNECTIONS=4, **QUICK)
    serves(server, own, workers=8)
    own.postgres.stop()
    start_again(own)
    serves(server, own, workers=8)


def test_paused_server_answers_503_within_the_limit(serve, own):
    account = own.add_account()
    own.postgres.pause()
    try:
        host = serve(own, WARMUP_DB_TIMEOUT_MS=400, **QUICK)
        answer, took = timed(own.retry, host, account)
        check_unavailable(answer)
        assert 0.3 < took < 0.4 + SLACK
        check_left_alone(own, account)
    finally:
        own.postgres.resume()
    check_moved(own, account, own.retry(host, account))


def test_open_connections_go_on_while_the_server_takes_no_new_ones(responder, own):
    server = responder(own, WARMUP_WORKERS=4, WARMUP_DB_CONNECTIONS=1, **QUICK)
    serves(server, own)
    own.postgres.pause()
    try:
        for _ in range(3):
            account = own.add_account()
            check_moved(own, account, own.retry(Raw(server), account))
    finally:
        own.postgres.resume()


def test_stopped_server_process_answers_503_within_the_limit_and_is_discarded(serve, scratch):
    world = scratch
    host = serve(world, WARMUP_DB_TIMEOUT_MS=700, WARMUP_DB_CONNECTIONS=1, **QUICK)
    first, second = world.add_account(), world.add_account()
    assert host.request("GET", "/healthz").status == 200
    stopped = None
    try:
        with session(world) as other, ThreadPoolExecutor(1) as pool:
            other.execute("LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE")
            begun = time.monotonic()
            answer = pool.submit(world.retry, host, first)
            stopped = waiting(world)[0]
            stack.os.kill(stopped, signal.SIGSTOP)
            other.connection.rollback()
            check_unavailable(answer.result(20))
            assert time.monotonic() - begun < 0.7 + SLACK
        check_left_alone(world, first)
        # The pool has one place: what was discarded does not hold it.
        check_moved(world, second, world.retry(host, second))
        assert world.state(first) == STUCK
    finally:
        if stopped:
            stack.os.kill(stopped, signal.SIGCONT)
    wait_for(lambda: world.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", stopped)[0][0] == 0,
             what="the end of the discarded connection")


def test_silent_server_answers_503_within_the_limit(serve, world):
    account = world.add_account()
    with Mute() as mute:
        host = serve(world, DATABASE_URL=mute.url(), WARMUP_DB_TIMEOUT_MS=250, **QUICK)
        for _ in range(2):
            answer, took = timed(world.retry, host, account)
            check_unavailable(answer)
            assert took < 0.25 + SLACK
        health, took = timed(host.request, "GET", "/healthz")
        assert health.status == 503 and took < 0.25 + SLACK
    check_left_alone(world, account)


def test_several_silent_servers_together_have_one_limit(serve, world):
    account = world.add_account()
    with Mute() as one, Mute() as two, Mute() as three:
        servers = ",".join(f"127.0.0.1:{mute.port}" for mute in (one, two, three))
        url = f"postgresql://warmup@{servers}/x?connect_timeout=5"
        host = serve(world, DATABASE_URL=url, WARMUP_DB_TIMEOUT_MS=300, **QUICK)
        answer, took = timed(world.retry, host, account)
        check_unavailable(answer)
        assert took < 0.3 + SLACK
    check_left_alone(world, account)


# Ways to name servers; {dead} is a port where nobody listens, {port} the right one.
SERVERS = {
    "uri": "postgresql://warmup:{quoted}@127.0.0.1:{dead},127.0.0.1:{port}/{name}",
    "uri-last-dead": "postgresql://warmup:{quoted}@127.0.0.1:{port},127.0.0.1:{dead}/{name}",
    "postgres-uri": "postgres://warmup:{quoted}@127.0.0.1:{port}/{name}?sslmode=disable&application_name=warmup",
    "parameters-of-the-uri": "postgresql:///{name}?host=127.0.0.1,127.0.0.1&port={dead},{port}&user=warmup"
                             "&password={quoted}",
    "keywords": "host=127.0.0.1 port={port} user=warmup dbname={name} password='{escaped}'",
    "keywords-two-ports": "host=127.0.0.1,127.0.0.1 port={dead},{port} user=warmup dbname={name} password='{escaped}'",
    "keywords-one-port": "host=127.0.0.9,127.0.0.1 port={port} user=warmup dbname={name} password='{escaped}'",
    "addresses": "hostaddr=127.0.0.1,127.0.0.1 port={dead},{port} user=warmup dbname={name} password='{escaped}'",
    "names-and-addresses": "host=one.invalid,two.invalid hostaddr=127.0.0.1,127.0.0.1 port={dead},{port} user=warmup"
                           " dbname={name} password='{escaped}'",
    "twenty": "host=" + "127.0.0.1," * 19 + "127.0.0.1 port=" + "{dead}," * 19 + "{port} user=warmup dbname={name}"
              " password='{escaped}' connect_timeout=1",
}


@pytest.mark.parametrize("form", SERVERS)
def test_of_several_servers_the_one_that_is_there_serves(build, world, form):
    account = world.add_account()
    url = SERVERS[form].format(dead=stack.free_port(), port=world.postgres.port, name=world.name,
                               quoted=urllib.parse.quote(DATABASE_PASSWORD, safe=""),
                               escaped=DATABASE_PASSWORD.replace("'", "\\'"))
    host = Cgi(build / "warmup.fcgi", world.settings(DATABASE_URL=url, **QUICK))
    check_moved(world, account, world.retry(host, account))
    check_log(host, world.secrets)


@contextlib.contextmanager
def read_only(world):
    """For the responder, as a standby or a former primary is."""
    world.execute("ALTER ROLE warmup SET default_transaction_read_only = on")
    try:
        yield
    finally:
        world.execute("ALTER ROLE warmup RESET default_transaction_read_only")


def test_of_several_servers_the_one_that_can_be_written_serves(serve, world, own):
    account = world.add_account()
    if not own.execute("SELECT 1 FROM pg_database WHERE datname = %s", world.name):
        own.postgres.create_database(world.name)
    url = world.settings()["DATABASE_URL"].replace("@127.0.0.1", f"@127.0.0.1:{own.postgres.port},127.0.0.1")
    with read_only(own):
        host = serve(world, DATABASE_URL=url + "?target_session_attrs=read-write", **QUICK)
        check_moved(world, account, world.retry(host, account))


def test_only_server_serves_as_soon_as_it_can_be_written(serve, own):
    account = own.add_account()
    url = own.settings()["DATABASE_URL"] + "?target_session_attrs=read-write"
    host = serve(own, DATABASE_URL=url, WARMUP_DB_TIMEOUT_MS=1000, **QUICK)
    with read_only(own):
        time.sleep(0.1)  # until the connections ahead of the first request are there
        end_connections(own)
        answer, took = timed(own.retry, host, account)
        check_unavailable(answer)
        assert took < 1 + SLACK
        check_left_alone(own, account)
    check_moved(own, account, own.retry(host, account))


@pytest.mark.parametrize("serve", ["cgi"], indirect=True)
def test_of_several_servers_a_silent_one_does_not_keep_the_others_out(serve, world):
    """Each has connect_timeout, in seconds, to itself, as always with libpq."""
    account = world.add_account()
    with Mute() as mute:
        url = world.settings()["DATABASE_URL"].replace("@127.0.0.1", f"@127.0.0.1:{mute.port},127.0.0.1")
        host = serve(world, DATABASE_URL=url + "?connect_timeout=2", WARMUP_DB_TIMEOUT_MS=5000, **QUICK)
        check_moved(world, account, world.retry(host, account))


def test_server_that_is_starting_answers_503(serve, world):
    account = world.add_account()
    fields = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"
    with Mute(b"E" + struct.pack("!I", 4 + len(fields)) + fields) as starting:
        host = serve(world, DATABASE_URL=starting.url(), **QUICK)
        answer, took = timed(world.retry, host, account)
        check_unavailable(answer)
        assert took < AT_ONCE
        assert "the database system is starting up" in host.log()
    check_left_alone(world, account)


def test_server_that_is_shutting_down_answers_503(serve, own):
    account = own.add_account()
    own.postgres.process.send(signal.SIGTERM)  # waits for the sessions that are open, takes no new ones
    try:
        host = serve(own, WARMUP_DB_TIMEOUT_MS=1000, **QUICK)
        answer, took = timed(own.retry, host, account)
        check_unavailable(answer)
        assert took < 1 + SLACK
        assert "the database system is shutting down" in host.log()
        check_left_alone(own, account)
    finally:
        own.postgres.stop()
        start_again(own)
    check_moved(own, account, own.retry(host, account))


# --- a server that refuses -----------------------------------------------------------------------

def test_server_out_of_connections_answers_503_until_one_is_free(serve, own):
    account = own.add_account()
    with contextlib.ExitStack() as others:
        def take_all():
            with contextlib.suppress(psycopg2.OperationalError):
                while True:
                    others.enter_context(contextlib.closing(psycopg2.connect(own.settings()["DATABASE_URL"])))

        take_all()
        host = serve(own, **QUICK)
        answer, took = timed(own.retry, host, account)
        check_unavailable(answer)
        assert took < AT_ONCE
        assert re.search("remaining connection slots|too many clients", host.log())
        check_left_alone(own, account)
    wait_for(lambda: own.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = 'warmup'")[0][0] < 8)
    check_moved(own, account, own.retry(host, account))


def test_one_open_connection_serves_all_while_the_server_grants_no_more(responder, own):
    accounts = [own.add_account() for _ in range(24)]
    own.execute("ALTER ROLE warmup CONNECTION LIMIT 1")
    try:
        server = responder(own, WARMUP_WORKERS=8, WARMUP_DB_CONNECTIONS=8, **QUICK)
        # Of several that come at the same time PostgreSQL may refuse all: until there is one, there is none.
        wait_for(lambda: Raw(server).request("GET", "/healthz").status == 200)
        time.sleep(1.1)  # now it tries to open more, and is refused
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda account: own.retry(Raw(server), account), accounts))
        for account, answer in zip(accounts, answers):
            check_moved(own, account, answer)
    finally:
        own.execute("ALTER ROLE warmup CONNECTION LIMIT -1")


# What is wrong, what the log must name, and how it is broken and mended again.
REFUSALS = {
    "wrong-password": ("password authentication failed", "ALTER ROLE {role} PASSWORD 'another'",
                       "ALTER ROLE {role} PASSWORD '{password}'"),
    "missing-role": ("password authentication failed", "ALTER ROLE {role} RENAME TO {role}_2",
                     "ALTER ROLE {role}_2 RENAME TO {role}; ALTER ROLE {role} PASSWORD '{password}'"),
    "no-login": ("not permitted to log in", "ALTER ROLE {role} NOLOGIN", "ALTER ROLE {role} LOGIN"),
    "no-connect": ("permission denied for database", "REVOKE CONNECT ON DATABASE {database} FROM PUBLIC",
                   "GRANT CONNECT ON DATABASE {database} TO PUBLIC"),
    "missing-table": ("42P01", "ALTER TABLE accounts RENAME TO gone", "ALTER TABLE gone RENAME TO accounts"),
    "missing-column": ("42703", "ALTER TABLE accounts RENAME daily_limit TO gone",
                       "ALTER TABLE accounts RENAME gone TO daily_limit"),
    "missing-privilege": ("42501", "REVOKE SELECT ON api_keys FROM warmup_responder",
                          "GRANT SELECT ON api_keys TO warmup_responder"),
    "missing-privilege-on-a-column": (
        "42501", "REVOKE SELECT ON accounts FROM warmup_responder;"
        " GRANT SELECT (id, user_id) ON accounts TO warmup_responder",
        "GRANT SELECT ON accounts TO warmup_responder"),
}


@pytest.fixture
def other_role(scratch):
    """A role of the case's own with the responder's rights: those of the shared one must not be touched."""
    password = "pw-" + stack.secrets.token_hex(12)
    role = "role_" + stack.secrets.token_hex(4)
    scratch.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}' IN ROLE warmup_responder")
    scratch.secrets.append(password)
    yield {"role": role, "password": password, "database": scratch.name}
    scratch.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize("what", REFUSALS)
def test_refusal_answers_503_with_one_clear_line_until_it_is_mended(responder, build, scratch, other_role, what):
    world, (named, break_it, mend_it) = scratch, REFUSALS[what]
    account = world.add_account()
    settings = {"DATABASE_URL": world.postgres.url(world.name, other_role["role"], other_role["password"]), **QUICK}
    world.execute(break_it.format(**other_role))
    try:
        server = responder(world, WARMUP_WORKERS=2, WARMUP_DB_CONNECTIONS=1, **settings)
        answer, took = timed(world.retry, Raw(server), account)
        check_unavailable(answer)
        assert took < AT_ONCE
        assert 1 <= server.log().count(named) <= 3
        cgi = Cgi(build / "warmup.fcgi", world.settings(**settings))
        check_unavailable(world.retry(cgi, account))
        assert cgi.log().count(named) == 1
        check_log(cgi, world.secrets)
    finally:
        world.execute(mend_it.format(**other_role))
    check_left_alone(world, account)
    check_moved(world, account, world.retry(Raw(server), account))
    assert server.process.alive()
    assert server.stop()


def test_statement_timeout_of_the_database_answers_503(serve, scratch):
    world = scratch
    world.execute(f"ALTER DATABASE {world.name} SET statement_timeout = '150ms'")
    host, account = serve(world, WARMUP_DB_CONNECTIONS=1, **QUICK), world.add_account()
    assert host.request("GET", "/healthz").status == 200
    with session(world) as other:
        other.execute("LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE")
        answer, took = timed(world.retry, host, account)
        check_unavailable(answer)
        assert took < 0.15 + SLACK
        assert "57014" in host.log()
    world.execute(f"ALTER DATABASE {world.name} RESET statement_timeout")
    check_moved(world, account, world.retry(host, account))


# --- rows ----------------------------------------------------------------------------------------

def test_row_locked_by_another_session_does_not_delay_the_gate(host, world):
    moved, stuck = world.add_account(state=WARMING), world.add_account()
    with session(world) as other:
        other.execute("SELECT FROM accounts WHERE id IN (%s, %s) FOR UPDATE", (moved, stuck))
        answer, took = timed(world.retry, host, moved)
        assert answer.status == 409
        assert took < AT_ONCE
        with window(host, world, stuck) as answer:  # gate and call are passed, too
            other.connection.rollback()
    check_moved(world, stuck, answer.result())


@pytest.mark.parametrize("address", [None, "", " "])
def test_account_without_an_address_answers_409_of_its_own(host, world, address):
    account = world.add_account(email_address=address)
    before = len(world.sandbox.calls)
    answer = world.retry(host, account)
    assert (answer.status, answer.error["code"]) == (409, "conflict")
    assert answer.error["message"] == "The account has no usable email address to warm up"
    assert answer.error["details"] == {"status": "pending", "warmup_status": "not_started"}
    assert len(world.sandbox.calls) == before
    assert world.state(account) == STUCK


def test_account_of_another_type_answers_404(host, world):
    account = world.add_account(type="linkedin")
    answer = world.retry(host, account)
    assert (answer.status, answer.error["message"]) == (404, "No such email account")
    check_left_alone(world, account)


def test_missing_or_foreign_domain_is_null(host, world):
    foreign = world.add_domain(user=str(stack.secrets.token_hex(16)), domain="secret.example")
    for domain in (None, foreign, "00000000-0000-4000-8000-000000000000"):
        account = world.add_account(domain_id=domain)
        answer = world.retry(host, account)
        check_moved(world, account, answer)
        assert answer.json["account"]["email_domains"] is None
        assert b"secret.example" not in answer.body


# What is there a second time: more than a key allows.
TWICE = {
    "accounts": "SELECT * FROM accounts_t UNION ALL SELECT * FROM accounts_t",
    "email_domains": "SELECT * FROM email_domains_t UNION ALL"
                     " SELECT id, user_id, 'other.example', status FROM email_domains_t",
    "api_keys": "SELECT * FROM api_keys_t UNION ALL"
                " SELECT id, gen_random_uuid(), key_hash, prefix, name, created_at, revoked_at FROM api_keys_t",
}


@contextlib.contextmanager
def instead_of(world, table, kind, query):
    """Something else in a table's place, made from what it holds, the table itself being {table}_t."""
    world.execute(f"ALTER TABLE {table} RENAME TO {table}_t")
    world.execute(f"CREATE {kind} {table} AS {query}")
    world.execute(f"GRANT SELECT, UPDATE ON {table} TO warmup_responder")
    try:
        yield
    finally:
        world.execute(f"DROP {kind} {table}")
        world.execute(f"ALTER TABLE {table}_t RENAME TO {table}")


@pytest.mark.parametrize("table", TWICE)
def test_two_rows_for_one_id_answer_500(responder, build, scratch, table):
    world = scratch
    account = world.add_account(domain_id=world.add_domain())
    # The accounts are a table, because they are also written.
    with instead_of(world, table, "TABLE" if table == "accounts" else "VIEW", TWICE[table]):
        for host in (Raw(responder(world, **QUICK)), Cgi(build / "warmup.fcgi", world.settings(**QUICK))):
            answer = world.retry(host, account)
            assert (answer.status, answer.error["code"]) == (500, "internal_error")
            assert answer.error["message"] == "Something went wrong on our side; it has been logged"
            assert "details" not in answer.error
            assert "several rows" in host.log()
    check_left_alone(world, account)


@pytest.mark.parametrize("table", ["email_domains", "api_keys"])
def test_view_may_stand_for_a_table_that_is_only_read(responder, build, scratch, table):
    world = scratch
    domain = world.add_domain()
    with instead_of(world, table, "VIEW", f"SELECT * FROM {table}_t"):
        for host in (Raw(responder(world, **QUICK)), Cgi(build / "warmup.fcgi", world.settings(**QUICK))):
            account = world.add_account(domain_id=domain)
            answer = world.retry(host, account)
            check_moved(world, account, answer)
            assert answer.json["account"]["email_domains"] == {"id": domain, "domain": "acme.com", "status": "verified"}


# --- the pool ------------------------------------------------------------------------------------

def test_more_requests_than_connections_are_all_served_within_the_pool(responder, fresh_world):
    world = fresh_world
    server = responder(world, WARMUP_WORKERS=24, WARMUP_DB_CONNECTIONS=3, **QUICK)
    accounts = [world.add_account() for _ in range(96)]
    most = 0
    with ThreadPoolExecutor(24) as pool:
        answers = [pool.submit(world.retry, Raw(server), account) for account in accounts]
        while not all(answer.done() for answer in answers):
            most = max(most, responders(world))
            time.sleep(0.005)
    for account, answer in zip(accounts, answers):
        check_moved(world, account, answer.result())
    assert 1 <= most <= 3


def test_no_connection_free_in_time_answers_503(responder, fresh_world):
    world = fresh_world
    server = responder(world, WARMUP_WORKERS=4, WARMUP_DB_CONNECTIONS=1, WARMUP_DB_TIMEOUT_MS=600, **QUICK)
    serves(server, world)
    accounts = [world.add_account() for _ in range(3)]
    with session(world) as other, ThreadPoolExecutor(3) as pool:
        other.execute("LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE")
        begun = time.monotonic()
        for answer in pool.map(lambda account: world.retry(Raw(server), account), accounts):
            check_unavailable(answer)
        assert 0.5 < time.monotonic() - begun < 0.6 + SLACK
    for account in accounts:
        check_left_alone(world, account)
    serves(server, world, workers=4)


def test_nothing_is_held_while_instantly_is_asked(responder, fresh_world):
    world = fresh_world
    server = responder(world, WARMUP_WORKERS=8, WARMUP_DB_CONNECTIONS=1, **QUICK)
    accounts = [world.add_account() for _ in range(4)]
    with window(Raw(server), world, *accounts) as answers:
        assert world.execute("SELECT state, xact_start, backend_xmin FROM pg_stat_activity"
                             " WHERE datname = current_database() AND usename = 'warmup'") == [("idle", None, None)]
        assert world.execute("SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
                             " WHERE a.usename = 'warmup' AND a.datname = current_database()") == [(0,)]
        serves(server, world)
        assert Raw(server).request("GET", "/healthz").status == 200
    for account, answer in zip(accounts, answers):
        check_moved(world, account, answer.result())


def test_request_that_is_wrong_in_itself_costs_no_connection(serve, world):
    with Mute() as mute:
        host = serve(world, DATABASE_URL=mute.url(), WARMUP_WORKERS=2, WARMUP_DB_CONNECTIONS=1,
                     WARMUP_DB_TIMEOUT_MS=300, **QUICK)
        path = ROUTE.format("11111111-1111-4111-8111-111111111111")
        # The connection ahead of the first request is given up by now.
        assert host.request("GET", "/healthz").status == 503
        time.sleep(0.3)
        before = len(mute.peers)
        for method, path, headers, status in (
                ("PATCH", path, {}, 401), ("PATCH", path, {"Authorization": "Basic eDp5"}, 401),
                ("PATCH", path, {"Authorization": "Bearer two tokens"}, 401),
                ("PATCH", path, {"Authorization": "Bearer " + "x" * 513}, 401),
                ("PATCH", path, {"Authorization": 'Bearer "x"'}, 401),
                ("PATCH", path + "/", world.bearer(), 404), ("GET", path, world.bearer(), 405),
                ("OPTIONS", path, {}, 204), ("POST", "/healthz", {}, 405)):
            answer, took = timed(host.request, method, path, headers)
            assert (answer.status, took < AT_ONCE) == (status, True)
        assert len(mute.peers) == before


# --- prepared statements -------------------------------------------------------------------------

def test_without_prepared_statements_all_is_the_same(serve, scratch):
    world = scratch
    host = serve(world, WARMUP_DB_PREPARED="off", WARMUP_DB_CONNECTIONS=1, **QUICK)
    account, lost = world.add_account(), world.add_account()
    check_moved(world, account, world.retry(host, account))
    assert world.retry(host, account).status == 409
    with window(host, world, lost) as answer:
        world.execute("UPDATE accounts SET status = 'error', warmup_status = 'banned' WHERE id = %s", lost)
        assert host.request("GET", "/healthz").status == 200
    assert answer.result().error["details"] == {"status": "error", "warmup_status": "banned"}


# Each is done while the responder runs, and the next request must be right.
CHANGES = [
    "ALTER TABLE accounts ADD COLUMN added_1 text",
    "ALTER TABLE accounts ADD COLUMN added_2 integer NOT NULL DEFAULT 7",
    "ALTER TABLE accounts DROP COLUMN added_1",
    "ALTER TABLE accounts ALTER COLUMN daily_limit TYPE bigint",
    "ALTER TABLE accounts ALTER COLUMN daily_limit TYPE smallint",
    "ALTER TABLE accounts ALTER COLUMN status TYPE varchar(40), ALTER COLUMN warmup_status TYPE varchar(40)",
    "ALTER TABLE accounts ALTER COLUMN email_address TYPE varchar(300)",
    "ALTER TABLE accounts ALTER COLUMN updated_at TYPE timestamp(3) USING updated_at AT TIME ZONE 'UTC'",
    "ALTER TABLE accounts ALTER COLUMN updated_at TYPE timestamptz USING updated_at AT TIME ZONE 'UTC'",
    "ALTER TABLE email_domains ALTER COLUMN status TYPE varchar(20)",
    "ALTER TABLE api_keys ALTER COLUMN prefix TYPE varchar(24)",
    "ALTER TABLE api_keys ADD COLUMN added text",
    "CREATE INDEX ON accounts (user_id)",
    "DROP INDEX warmup_accounts_stuck",
    "ALTER TABLE accounts RENAME TO old; CREATE TABLE accounts (LIKE old INCLUDING ALL);"
    " GRANT SELECT, UPDATE (status, warmup_status, updated_at) ON accounts TO warmup_responder",
]


@pytest.mark.parametrize("prepared", ["on", "off"])
def test_changes_of_the_tables_go_unnoticed(responder, fresh_world, prepared):
    world = fresh_world
    server = responder(world, WARMUP_WORKERS=2, WARMUP_DB_CONNECTIONS=1, WARMUP_DB_PREPARED=prepared, **QUICK)
    domain = world.add_domain()
    for change in ["SELECT", *CHANGES]:
        world.execute(change)
        account = world.add_account(domain_id=domain, daily_limit=50)
        answer = world.retry(Raw(server), account)
        assert answer.status == 200, change
        check_moved(world, account, answer)
        shown = answer.json["account"]
        assert (shown["daily_limit"], shown["email_domains"]["id"]) == (50, domain)
        assert world.retry(Raw(server), account).status == 409
    assert world.execute("SELECT count(*) FROM accounts") == [(1,)]


@pytest.mark.parametrize("prepared", ["on", "off"])
def test_states_that_become_an_enum_go_unnoticed(responder, fresh_world, prepared):
    """What was prepared for texts cannot be run any more: it is prepared anew."""
    world = fresh_world
    server = responder(world, WARMUP_WORKERS=2, WARMUP_DB_CONNECTIONS=1, WARMUP_DB_PREPARED=prepared, **QUICK)
    serves(server, world)
    world.execute("DROP INDEX warmup_accounts_stuck")
    world.execute("CREATE TYPE state AS ENUM ('pending', 'warming', 'active', 'error')")
    world.execute("ALTER TABLE accounts ALTER COLUMN status DROP DEFAULT,"
                  " ALTER COLUMN status TYPE state USING status::state")
    for _ in range(2):
        account = world.add_account()
        check_moved(world, account, world.retry(Raw(server), account))

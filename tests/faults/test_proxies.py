"""The proxies themselves: that they see whole messages, act on the right one, and do to it what a rule says."""

import contextlib
import socket
import struct
import threading
import time

import psycopg2
import pytest

from conftest import STUCK, WARMING, wait_for
from faults.proxies import (CLIENT, SERVER, Hold, HttpSplitter, PgProxy, PgSplitter, UpProxy, after, call, cut, delay,
                            drop, reset, stall)
from test_database import QUICK, check_moved
from test_transport import Raw

SWAP = "warmup_swap"


def pg(kind, payload=b""):
    return kind + struct.pack("!I", 4 + len(payload)) + payload


def startup(code, payload=b""):
    return struct.pack("!II", 8 + len(payload), code) + payload


# --- splitting -----------------------------------------------------------------------------------

CONVERSATION = [
    ("SSLRequest", startup(80877103)), ("Startup", startup(196608, b"user\0x\0\0")),
    ("Password", pg(b"p", b"secret\0")), ("Parse", pg(b"P", b"one\0SELECT 1\0\0\0")), ("Sync", pg(b"S")),
    ("Bind", pg(b"B", b"\0one\0\0\0\0\0\0\0")), ("Execute", pg(b"E", b"\0\0\0\0\0")), ("Sync", pg(b"S")),
    ("Parse", pg(b"P", b"\0SELECT 2\0\0\0")), ("Bind", pg(b"B", b"\0\0\0\0\0\0\0\0")), ("Sync", pg(b"S")),
    ("Query", pg(b"Q", b"SELECT 3\0")), ("Terminate", pg(b"X")),
]


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_split_postgresql_in_pieces_of_any_size(step):
    splitter, data = PgSplitter(), b"".join(raw for _, raw in CONVERSATION)
    messages = [message for at in range(0, len(data), step) for message in splitter.feed(CLIENT, data[at:at + step])]
    assert [(message.name, message.raw) for message in messages] == CONVERSATION
    about = {name: [(message.statement, message.about) for message in messages if message.name == name]
             for name in ("Bind", "Execute", "Query")}
    assert about == {"Bind": [("one", b"SELECT 1"), ("", b"SELECT 2")], "Execute": [("one", b"SELECT 1")],
                     "Query": [("", b"SELECT 3")]}
    answers = list(splitter.feed(SERVER, pg(b"C", b"SELECT 1\0") + pg(b"Z", b"I")))
    assert [(message.name, message.payload, message.about) for message in answers] == [
        ("CommandComplete", b"SELECT 1\0", b"SELECT 3"), ("ReadyForQuery", b"I", b"SELECT 3")]


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_split_http_in_pieces_of_any_size(step):
    first = b"POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
    second = b"GET /b HTTP/1.1\r\n\r\n"
    splitter, data = HttpSplitter(), first + second
    messages = [message for at in range(0, len(data), step) for message in splitter.feed(CLIENT, data[at:at + step])]
    assert [(message.name, message.raw, message.payload) for message in messages] == [
        ("Request", first, b"abc"), ("Request", second, b"")]
    replies = [("Interim", b"HTTP/1.1 100 Continue\r\n\r\n"), ("Reply", b"HTTP/1.1 204 No Content\r\n\r\n"),
               ("Reply", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")]
    data = b"".join(raw for _, raw in replies)
    messages = [message for at in range(0, len(data), step) for message in splitter.feed(SERVER, data[at:at + step])]
    assert [(message.name, message.raw) for message in messages] == replies
    assert {message.about for message in messages} == {second}


@pytest.mark.parametrize("raw", [
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\n{}", b"\x00\x01garbage", b"<html>", b"\x16\x03\x01\x02\x00"])
def test_what_is_no_reply_with_a_length_passes_as_it_is(raw):
    splitter = HttpSplitter()
    messages = [message for at in range(len(raw)) for message in splitter.feed(SERVER, raw[at:at + 1])]
    assert {message.name for message in messages} == {"Bytes"}
    assert b"".join(message.raw for message in messages) == raw


# --- before PostgreSQL ---------------------------------------------------------------------------

@pytest.fixture
def proxy(postgres):
    with PgProxy(postgres.port) as proxy:
        yield proxy


def connect(proxy, world):
    connection = psycopg2.connect(proxy.url(world.settings()["DATABASE_URL"]) + "?sslmode=prefer", connect_timeout=10)
    connection.autocommit = True
    return connection


def ask(connection, text="SELECT 1"):
    with connection.cursor() as cursor:
        cursor.execute(text)
        return cursor.fetchall()


def test_without_rules_all_passes_and_is_counted(proxy, world):
    with contextlib.closing(connect(proxy, world)) as connection:
        assert ask(connection) == [(1,)]
        assert len(ask(connection, "SELECT repeat('x', 1000) FROM generate_series(1, 5000)")) == 5000
        assert (proxy.counts[CLIENT, "Query"], proxy.counts[SERVER, "DataRow"]) == (2, 5001)
        assert (proxy.accepted, len(proxy.connections)) == (1, 1)
    wait_for(lambda: not proxy.connections)


@pytest.fixture(scope="module")
def counter(shared_world):
    """A statement that leaves a trace on the server, even if its reply is lost."""
    shared_world.execute("CREATE SEQUENCE traces; GRANT USAGE ON SEQUENCE traces TO warmup")
    yield lambda: shared_world.execute("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM traces")[0][0]
    shared_world.execute("DROP SEQUENCE traces")


@pytest.mark.parametrize("action, answers, arrives", [
    (cut, False, False), (reset, False, False), (after(cut), False, True), (after(6, cut), False, False),
    (after(6, reset), False, False), (delay(0.2), True, True), (call(lambda message: None), True, True)],
    ids=["cut", "reset", "after-cut", "after-6-cut", "after-6-reset", "delay", "call"])
def test_action_on_a_query(proxy, world, counter, action, answers, arrives):
    rule, before = proxy.on(CLIENT, "Query", action, payload=b"nextval"), counter()
    with contextlib.closing(connect(proxy, world)) as connection:
        begun = time.monotonic()
        if answers:
            ask(connection, "SELECT nextval('traces')")
            assert time.monotonic() - begun > (0.2 if action.__name__ == "later" else 0)
        else:
            with pytest.raises(psycopg2.OperationalError):
                ask(connection, "SELECT nextval('traces')")
            with pytest.raises(psycopg2.InterfaceError):
                ask(connection)
        assert (rule.matched, rule.fired, rule.hit.is_set()) == (1, 1, True)
    if arrives:
        wait_for(lambda: counter() == before + 1)
    else:
        wait_for(lambda: not world.execute("SELECT 1 FROM pg_stat_activity WHERE usename = 'warmup' AND datname ="
                                           " current_database() AND query ~ 'nextval'"))
        assert counter() == before


def test_reset_is_seen_as_a_reset_and_cut_as_an_end(proxy):
    """On a bare socket: libpq tells both in the same words."""
    for action, expected in ((reset, ConnectionResetError), (cut, b"")):
        proxy.on(CLIENT, "Startup", action)
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as peer:
            peer.sendall(startup(80877103))
            assert peer.recv(1) == b"N"
            peer.sendall(startup(196608, b"user\0x\0\0"))
            if isinstance(expected, bytes):
                assert peer.recv(1) == expected
            else:
                with pytest.raises(expected):
                    peer.recv(1)


def test_stall_keeps_the_connection_and_says_nothing_more(proxy, world):
    with contextlib.closing(connect(proxy, world)) as connection:
        proxy.on(SERVER, "CommandComplete", stall)
        raw = socket.socket(fileno=connection.fileno())
        try:
            raw.sendall(pg(b"Q", b"SELECT 1\0"))
            raw.settimeout(10)
            seen = b""
            while b"D\0\0\0" not in seen:
                seen += raw.recv(4096)
            raw.sendall(pg(b"Q", b"SELECT 2\0"))
            raw.settimeout(0.3)
            with pytest.raises(TimeoutError):
                raw.recv(1)
            assert b"C\0\0\0" not in seen and len(proxy.connections) == 1
        finally:
            raw.detach()
    wait_for(lambda: not proxy.connections)  # the client has left


def test_hold_waits_for_the_release_and_others_pass(proxy, world):
    hold = Hold()
    proxy.on(CLIENT, "Query", hold, payload=b"held")
    with contextlib.closing(connect(proxy, world)) as one, contextlib.closing(connect(proxy, world)) as two:
        thread = threading.Thread(target=ask, args=(one, "SELECT 'held'"))
        thread.start()
        assert hold.arrived.wait(10)
        assert ask(two) == [(1,)]
        assert thread.is_alive()
        hold.release()
        thread.join(10)
        assert not thread.is_alive()


def test_rules_count_occurrences_and_can_be_taken_away(proxy, world):
    seen = []
    second = proxy.on(CLIENT, "Query", call(seen.append), nth=2)
    later = proxy.on(CLIENT, "Query", call(seen.append), nth=4, always=True)
    with contextlib.closing(connect(proxy, world)) as connection:
        for number in range(1, 7):
            ask(connection, f"SELECT {number}")
        # The message that the older rule took never came to the other.
        assert [message.about for message in seen] == [b"SELECT 2", b"SELECT 5", b"SELECT 6"]
        assert (second.fired, later.fired) == (1, 2)
        proxy.remove(later)
        ask(connection, "SELECT 7")
        proxy.on(CLIENT, "Query", cut, always=True)
        proxy.clear()
        ask(connection, "SELECT 8")
        assert len(seen) == 3


def test_dropped_notice_costs_nothing_else(proxy, world):
    proxy.on(SERVER, "NoticeResponse", drop)
    with contextlib.closing(connect(proxy, world)) as connection, connection.cursor() as cursor:
        cursor.execute("DO $$ BEGIN RAISE NOTICE 'one'; RAISE NOTICE 'two'; END $$")
        assert [notice.strip() for notice in connection.notices] == ["NOTICE:  two"]


def test_new_connections_are_refused_or_swallowed_and_accepted_again(proxy, world):
    with contextlib.closing(connect(proxy, world)) as old:
        proxy.refuse()
        with pytest.raises(psycopg2.OperationalError, match="refused"):
            connect(proxy, world)
        proxy.swallow()
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as peer:
            peer.sendall(startup(80877103))
            peer.settimeout(0.3)
            with pytest.raises(TimeoutError):
                peer.recv(1)
        proxy.accept()
        with contextlib.closing(connect(proxy, world)) as new:
            assert ask(old) == ask(new) == [(1,)]
        proxy.disconnect()
        with pytest.raises(psycopg2.OperationalError):
            ask(old)


def test_failing_action_is_told_to_the_test(postgres, world):
    with pytest.raises(ZeroDivisionError), PgProxy(postgres.port) as proxy:
        proxy.on(CLIENT, "Startup", call(lambda message: 1 / 0))
        with pytest.raises(psycopg2.OperationalError):
            connect(proxy, world)


def test_url_of_another_server_is_refused(proxy):
    with pytest.raises(ValueError):
        proxy.url("postgresql://user@127.0.0.1:1/x")


# --- with the responder --------------------------------------------------------------------------

def test_prepared_statement_is_known_by_its_name(responder, proxy, world):
    seen = []
    for direction, name in ((CLIENT, "Bind"), (CLIENT, "Execute"), (SERVER, "CommandComplete")):
        proxy.on(direction, name, call(seen.append), statement=SWAP)
    server = responder(world, DATABASE_URL=proxy.url(world.settings()["DATABASE_URL"]), **QUICK)
    account = world.add_account()
    check_moved(world, account, world.retry(Raw(server), account))
    assert [message.name for message in seen] == ["Bind", "Execute", "CommandComplete"]
    assert all(b"UPDATE accounts" in message.about for message in seen)
    assert account.encode() in seen[0].payload and seen[2].payload == b"SELECT 1\0"
    assert server.stop()


def up(proxy, world):
    return {"INSTANTLY_API_URL": proxy.url(world.sandbox.url), **QUICK}


@pytest.fixture
def upstream(sandbox):
    with UpProxy(sandbox.port) as proxy:
        yield proxy


# What is done, whether Instantly had the request by then, and the reason that the caller is given.
UPSTREAM = {
    "cut-request": (CLIENT, "Request", cut, False, "incomplete"),
    "cut-inside-the-request": (CLIENT, "Request", after(50, cut), False, "incomplete"),
    "reset-reply": (SERVER, "Reply", reset, True, "incomplete"),
    "cut-reply": (SERVER, "Reply", cut, True, "incomplete"),
    "cut-inside-the-reply": (SERVER, "Reply", after(140, cut), True, "incomplete"),
    "reset-inside-the-reply": (SERVER, "Reply", after(140, reset), True, "incomplete"),
    "stall-request": (CLIENT, "Request", stall, False, "timeout"),
    "stall-reply": (SERVER, "Reply", stall, True, "timeout"),
    "stall-inside-the-reply": (SERVER, "Reply", after(140, stall), True, "timeout"),
    "drop-reply": (SERVER, "Reply", drop, True, "timeout"),
}


@pytest.mark.parametrize("what", UPSTREAM)
def test_action_on_a_call(responder, upstream, world, what):
    direction, name, action, has_it, reason = UPSTREAM[what]
    server = responder(world, **up(upstream, world), WARMUP_UPSTREAM_TIMEOUT_MS=600, WARMUP_DB_CONNECTIONS=1)
    account = world.add_account()
    rule = upstream.on(direction, name, action, about=world.address(account).encode(), always=True)
    answer = world.retry(Raw(server), account)
    assert (answer.status, answer.error["details"], rule.fired) == (502, {"reason": reason}, 1)
    assert (world.state(account), world.enables(account), world.sandbox.accepted(world.address(account))) == (
        STUCK, int(has_it), has_it)
    upstream.clear()
    assert world.retry(Raw(server), account).status == 200
    assert world.state(account) == WARMING
    assert server.stop()


def test_held_and_delayed_replies_arrive(responder, upstream, world):
    server, hold = responder(world, **up(upstream, world), WARMUP_DB_CONNECTIONS=1), Hold()
    held, delayed = world.add_account(), world.add_account()
    upstream.on(SERVER, "Reply", after(100, hold), about=world.address(held).encode())
    upstream.on(SERVER, "Reply", delay(0.3), about=world.address(delayed).encode())
    answers = []
    thread = threading.Thread(target=lambda: answers.append(world.retry(Raw(server), held)))
    thread.start()
    assert hold.arrived.wait(20) and world.state(held) == STUCK
    begun = time.monotonic()
    check_moved(world, delayed, world.retry(Raw(server), delayed))
    assert time.monotonic() - begun >= 0.3
    hold.release()
    thread.join(20)
    check_moved(world, held, answers[0])
    assert server.stop()

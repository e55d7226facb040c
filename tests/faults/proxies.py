"""Between the responder and its two servers: proxies that see whole messages and can come between any two of them.

    with PgProxy(postgres.port) as proxy:
        rule = proxy.on("server", "CommandComplete", cut, statement="warmup_swap")     # once, at the first
        hold = Hold()
        proxy.on("client", "Bind", hold, about=b"UPDATE accounts", nth=2, always=True)   # from the second on
        DATABASE_URL = proxy.url(url)

A rule names what it waits for and what is done then, in place of forwarding the message; without a rule that matches, a
message passes. Rules may be added and taken away at any time, from any thread. Every wait ends with stop().

What can be done with a message:

    cut, reset              forward nothing, close both sides: with FIN, with RST
    stall                   forward nothing, nor anything later in either direction, and keep the connection
    drop                    lose this message only
    delay(seconds)          forward it later
    Hold()                  forward it when .release() is called; .arrived is set when it is there
    after(cut), after(n, cut)   forward all of it, or its first n bytes, and do that then
    call(function)          call function(message), then forward; call(function, cut): then do that
    any function of (connection, message)

Messages of PostgreSQL have the names of its documentation (Startup, Parse, Bind, Execute, Sync, Query, Terminate;
RowDescription, DataRow, CommandComplete, ErrorResponse, ReadyForQuery, ...). Those of HTTP are Request and Reply, each
as a whole, and Interim for a 1xx; what cannot be understood passes as Bytes.
"""

import collections
import contextlib
import dataclasses
import os
import re
import select
import socket
import struct
import threading
import urllib.parse

import stack

CLIENT, SERVER = "client", "server"  # where a message comes from


@dataclasses.dataclass
class Message:
    """One message as it came. `raw` is all of it, `payload` what follows its type and length (of HTTP: the body).

    `about` is what it belongs to, or answers: the text of the SQL statement, or the HTTP request. `statement` is the
    name under which the statement was prepared, "" if it has none.
    """

    direction: str
    name: str
    raw: bytes
    payload: bytes = b""
    about: bytes = b""
    statement: str = ""


# --- what can be done ----------------------------------------------------------------------------

def forward(connection, message):
    connection.send(message.direction, message.raw)


def cut(connection, message):
    connection.close()


def reset(connection, message):
    connection.close(abruptly=True)


def stall(connection, message):
    connection.stalled.set()


def drop(connection, message):
    """Say nothing of it."""


def delay(seconds):
    def later(connection, message):
        connection.closed.wait(seconds)
        forward(connection, message)
    return later


def after(*how):
    """after(action): forward it, then act; after(n, action): forward n bytes of it, then act with the rest."""
    size, action = how if len(how) == 2 else (None, how[0])

    def act(connection, message):
        size_now = len(message.raw) if size is None else size
        connection.send(message.direction, message.raw[:size_now])
        action(connection, dataclasses.replace(message, raw=message.raw[size_now:]))
    return act


def call(function, action=forward):
    def act(connection, message):
        function(message)
        action(connection, message)
    return act


class Hold:
    """Keeps messages waiting until released. `arrived` is set by the first; all further ones pass once released."""

    def __init__(self, action=forward):
        self.arrived, self.released, self.action = threading.Event(), threading.Event(), action

    def __call__(self, connection, message):
        self.arrived.set()
        while not self.released.wait(0.02) and not connection.closed.is_set():
            pass
        self.action(connection, message)

    def release(self):
        self.released.set()


# --- rules ---------------------------------------------------------------------------------------

class Rule:
    """When to do what. `matched` counts messages that fit, `fired` those with which something was done.

    `hit` is set with the first of the latter. What is None, fits always; `where` is a function of the message.
    """

    def __init__(self, direction, name, action, statement=None, about=None, payload=None, where=None, nth=1,
                 always=False):
        if direction not in (None, CLIENT, SERVER):
            raise ValueError(f"a message comes from the client or the server, not {direction!r}")
        self.direction, self.name, self.action = direction, name, action
        self.statement, self.about, self.payload, self.where = statement, about, payload, where
        self.nth, self.always = nth, always
        self.matched = self.fired = 0
        self.hit = threading.Event()

    def _fits(self, message):
        return ((self.direction is None or message.direction == self.direction)
                and (self.name is None or message.name == self.name)
                and (self.statement is None or message.statement == self.statement)
                and (self.about is None or self.about in message.about)
                and (self.payload is None or self.payload in message.payload)
                and (self.where is None or self.where(message)))

    def wants(self, message):
        """Whether its action is due; the proxy asks one message at a time."""
        if not self._fits(message):
            return False
        self.matched += 1
        if self.matched != self.nth and not (self.always and self.matched > self.nth):
            return False
        self.fired += 1
        self.hit.set()
        return True


# --- connections ---------------------------------------------------------------------------------

class Closed(Exception):
    """The connection was closed while something was to be done with it."""


class Connection:
    """One client and, for it, one connection to the server. A thread a direction, none of which blocks in the kernel:

    so a socket is really gone when it is closed, and RST goes out at once.
    """

    def __init__(self, proxy, client, server):
        self.proxy, self.number = proxy, 0
        self.sockets = {CLIENT: client, SERVER: server}
        self.closed, self.stalled = threading.Event(), threading.Event()
        self._lock, self._wake = threading.Lock(), os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._left = len(self.sockets)
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.splitters = proxy.splitters()
        self.threads = [threading.Thread(target=self._pump, args=(direction,), daemon=True)
                        for direction in (CLIENT, SERVER)]

    def close(self, abruptly=False):
        """Both sides, with FIN or with RST; any number of times."""
        with self._lock:
            if not self.closed.is_set():
                self.closed.set()
                for sock in self.sockets.values():
                    with contextlib.suppress(OSError):
                        if abruptly:
                            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        else:
                            sock.shutdown(socket.SHUT_RDWR)
                    sock.close()
                os.eventfd_write(self._wake, 1)

    def send(self, direction, data):
        """Towards the other side of where it came from."""
        sock = self.sockets[SERVER if direction == CLIENT else CLIENT]
        while data:
            self._wait(sock, select.POLLOUT)
            with contextlib.suppress(BlockingIOError):
                with self._lock:
                    data = data[sock.send(data):]

    def _wait(self, sock, events):
        poll = select.poll()
        with self._lock:
            if self.closed.is_set():
                raise Closed()
            poll.register(sock, events)
            poll.register(self._wake, select.POLLIN)
        poll.poll()
        if self.closed.is_set():
            raise Closed()

    def _receive(self, direction):
        sock = self.sockets[direction]
        while True:
            self._wait(sock, select.POLLIN)
            with contextlib.suppress(BlockingIOError):
                with self._lock:
                    return sock.recv(65536)

    def _pump(self, direction):
        try:
            while data := self._receive(direction):
                for message in self.splitters.feed(direction, data):
                    if self.stalled.is_set():
                        continue
                    if message.name in ("SSLRequest", "GSSENCRequest"):
                        self.send(SERVER, b"N")  # the client goes on in the clear
                        continue
                    self.proxy._act(self, message)
            # A client that is told nothing more is not told that the server has gone, either.
            if direction == SERVER and self.stalled.is_set():
                self.closed.wait()
        except (Closed, OSError):
            pass
        except Exception as error:  # of an action: the test is to know
            self.proxy.errors.append(error)
        finally:
            self.close()
            with self._lock:
                self._left -= 1
                last = self._left == 0
            if last:
                os.close(self._wake)
                self.proxy._forget(self)


class Proxy:
    """What both have in common: a port of 127.0.0.1 that stays the same, connections, rules, counters.

    `counts` counts messages by (direction, name), `accepted` connections; `connections` are those that are open. What
    an action raised ends its connection, and is raised again when the `with` block ends.
    """

    def __init__(self, target_port):
        self.target_port, self.port = target_port, stack.free_port()
        self.accepted, self.counts = 0, collections.Counter()
        self.connections, self.errors = [], []
        self._rules, self._lock = [], threading.Lock()
        self._listener = self._acceptor = None
        self._hole, self._swallowed = False, []

    # Rules

    def on(self, direction, name, action, **conditions):
        """Add a rule; see the top of this file, and Rule for the conditions. Of several that fit, the oldest acts."""
        rule = Rule(direction, name, action, **conditions)
        with self._lock:
            self._rules.append(rule)
        return rule

    def remove(self, rule):
        with self._lock:
            self._rules = [other for other in self._rules if other is not rule]

    def clear(self):
        """Take all rules away; what is held already stays held."""
        with self._lock:
            self._rules = []

    def _act(self, connection, message):
        with self._lock:
            self.counts[message.direction, message.name] += 1
            action = next((rule.action for rule in self._rules if rule.wants(message)), forward)
        action(connection, message)

    # Connections

    def url(self, url):
        """A connection URL of the server behind, changed to lead here."""
        parts = urllib.parse.urlsplit(url)
        netloc = re.sub(rf":{self.target_port}$", f":{self.port}", parts.netloc)
        if netloc == parts.netloc:
            raise ValueError(f"no URL of port {self.target_port}")
        return urllib.parse.urlunsplit(parts._replace(netloc=netloc))

    def refuse(self):
        """From now on nobody listens here: new connections are refused by the kernel; open ones go on."""
        if self._listener:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
            self._acceptor.join()
            self._listener.close()
            self._listener = None

    def swallow(self):
        """From now on new connections are accepted, and nobody is there: a black hole."""
        self._hole = True
        self._listen()

    def accept(self):
        """From now on all is well again, for new connections; those in the black hole stay there."""
        self._hole = False
        self._listen()

    def disconnect(self, abruptly=False):
        """Close all connections that are open."""
        with self._lock:
            now = list(self.connections)
        for connection in now:
            connection.close(abruptly)

    def _listen(self):
        if self._listener:
            return
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self._listener.listen(1024)
        self._acceptor = threading.Thread(target=self._serve, args=(self._listener,), daemon=True)
        self._acceptor.start()

    def _serve(self, listener):
        while True:
            try:
                client = listener.accept()[0]
            except OSError:
                return
            self.accepted += 1
            if self._hole:
                self._swallowed.append(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target_port), timeout=30)
            except OSError:  # as if the client had been refused itself
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
                continue
            connection = Connection(self, client, server)
            with self._lock:
                self.connections.append(connection)
            for thread in connection.threads:
                thread.start()

    def _forget(self, connection):
        with self._lock:
            self.connections.remove(connection)

    def start(self):
        self._listen()
        return self

    def stop(self):
        self.refuse()
        with self._lock:
            last = list(self.connections)
        for connection in last:
            connection.close()
            for thread in connection.threads:
                thread.join(10)
        for client in self._swallowed:
            client.close()

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, *_):
        self.stop()
        if kind is None and self.errors:
            raise self.errors[0]


# --- PostgreSQL ----------------------------------------------------------------------------------

CLIENT_NAMES = {
    b"B": "Bind", b"C": "Close", b"D": "Describe", b"E": "Execute", b"F": "FunctionCall", b"H": "Flush", b"P": "Parse",
    b"Q": "Query", b"S": "Sync", b"X": "Terminate", b"c": "CopyDone", b"d": "CopyData", b"f": "CopyFail",
    b"p": "Password",
}
SERVER_NAMES = {
    b"1": "ParseComplete", b"2": "BindComplete", b"3": "CloseComplete", b"A": "NotificationResponse",
    b"C": "CommandComplete", b"D": "DataRow", b"E": "ErrorResponse", b"G": "CopyInResponse", b"H": "CopyOutResponse",
    b"I": "EmptyQueryResponse", b"K": "BackendKeyData", b"N": "NoticeResponse", b"R": "Authentication",
    b"S": "ParameterStatus", b"T": "RowDescription", b"V": "FunctionCallResponse", b"Z": "ReadyForQuery",
    b"c": "CopyDone", b"d": "CopyData", b"n": "NoData", b"s": "PortalSuspended", b"t": "ParameterDescription",
    b"v": "NegotiateProtocolVersion",
}
# The first message of a connection has a number instead of a type.
STARTUP_NAMES = {80877102: "CancelRequest", 80877103: "SSLRequest", 80877104: "GSSENCRequest"}


class PgSplitter:
    """The messages of a connection, and which statement they are about: one runs at a time, up to its Sync."""

    def __init__(self):
        self._buffers = {CLIENT: b"", SERVER: b""}
        self._started = False
        self._prepared = {}  # name: text
        self._current = ("", b"")

    def feed(self, direction, data):
        self._buffers[direction] += data
        while message := self._next(direction):
            if direction == CLIENT:
                self._follow(message)
            message.statement, message.about = self._current
            yield message

    def _next(self, direction):
        buffer = self._buffers[direction]
        typed = direction == SERVER or self._started
        at = 1 if typed else 0
        if len(buffer) < at + 4:
            return None
        size = at + struct.unpack_from("!I", buffer, at)[0]
        if len(buffer) < size:
            return None
        self._buffers[direction] = buffer[size:]
        raw, payload = buffer[:size], buffer[at + 4:size]
        if typed:
            names = CLIENT_NAMES if direction == CLIENT else SERVER_NAMES
            return Message(direction, names.get(raw[:1], "Unknown"), raw, payload)
        name = STARTUP_NAMES.get(struct.unpack_from("!I", payload)[0], "Startup")
        self._started = name == "Startup"
        return Message(direction, name, raw, payload)

    def _follow(self, message):
        if message.name == "Parse":
            name, text = message.payload.split(b"\0")[:2]
            self._prepared[name] = text
            self._current = (name.decode(), text)
        elif message.name == "Bind":
            name = message.payload.split(b"\0")[1]
            self._current = (name.decode(), self._prepared.get(name, b""))
        elif message.name == "Query":
            self._current = ("", message.payload.rstrip(b"\0"))


class PgProxy(Proxy):
    """Before PostgreSQL, or PgBouncer. Encryption is declined; passwords, and whatever else, pass."""

    splitters = PgSplitter


# --- HTTP ----------------------------------------------------------------------------------------

class HttpSplitter:
    """Requests and replies with a length, one at a time; what else comes passes as it is, to the connection's end."""

    BEGINNINGS = {CLIENT: rb"[A-Z]{1,7}\Z|[A-Z]{1,7} ", SERVER: rb"HTTP/1\.|H(T(T(P(/1?)?)?)?)?\Z"}

    def __init__(self):
        self._buffers = {CLIENT: b"", SERVER: b""}
        self._lost = set()
        self._request = b""

    def feed(self, direction, data):
        self._buffers[direction] += data
        while message := self._next(direction):
            if message.name == "Request":
                self._request = message.raw
            message.about = self._request
            yield message

    def _next(self, direction):
        buffer = self._buffers[direction]
        if direction in self._lost:
            self._buffers[direction] = b""
            return Message(direction, "Bytes", buffer) if buffer else None
        end = buffer.find(b"\r\n\r\n") + 4
        if end < 4:
            if buffer and (len(buffer) > 65536 or not re.match(self.BEGINNINGS[direction], buffer)):
                self._lost.add(direction)
                return self._next(direction)
            return None
        head = buffer[:end]
        name, length = self._judge(direction, head)
        if name is None:
            self._lost.add(direction)
            return self._next(direction)
        if len(buffer) < end + length:
            return None
        self._buffers[direction] = buffer[end + length:]
        return Message(direction, name, buffer[:end + length], buffer[end:end + length])

    @staticmethod
    def _judge(direction, head):
        """What it is, and the length of its body; None if that cannot be told."""
        lengths = re.findall(rb"(?im)^content-length: *(\d+)\r$", head)
        if re.search(rb"(?im)^transfer-encoding:", head) or len(lengths) > 1:
            return None, 0
        if direction == CLIENT:
            return "Request", int(lengths[0]) if lengths else 0
        status = re.match(rb"HTTP/1\.\d (\d{3})\b", head)
        if status and status[1][:1] == b"1":
            return "Interim", 0
        if status and status[1] in (b"204", b"304"):
            return "Reply", 0
        return ("Reply", int(lengths[0])) if status and lengths else (None, 0)


class UpProxy(Proxy):
    """Before the sandbox Instantly. `about` of a request or reply holds the address in question, if it is an enable."""

    splitters = HttpSplitter

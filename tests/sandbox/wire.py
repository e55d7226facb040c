"""HTTP/1.1 on a bare socket, for a server that must also be able to break it.

Owns reading a request exactly as it came, what a reply is, and the ways to put a reply on the wire
("senders"), most of them wrong on purpose. Knows nothing of Instantly. A sender is called as
`sender(connection, data)` with the whole correct reply; it returns True if the connection is still
good for another request.
"""
import dataclasses
import json
import select
import socket
import ssl
import struct
from http import HTTPStatus

HEAD_MAX = 64 << 10  # request line and headers
BODY_MAX = 1 << 20
IDLE_SECONDS = 30.0  # no single read or write waits longer
SLOW_SECONDS = 1.0  # before a slow reply
DRIP_SECONDS = 0.2  # between two bytes of a dripping one


class Left(OSError):
    """The client is gone, or the sandbox stops: nobody is there to answer."""


class BadRequest(Exception):
    """Not a request that can be served; carries the status to answer and the bytes that came."""

    def __init__(self, status, head):
        super().__init__(status)
        self.status, self.head = status, head


class Connection:
    """One accepted socket with its read buffer."""

    def __init__(self, sock):
        self.sock, self.buffer = sock, bytearray()

    def fill(self):
        """Read once more; the end of the stream is the end of the conversation."""
        data = self.sock.recv(65536)
        if not data:
            raise Left()
        self.buffer += data

    def take(self, size):
        while len(self.buffer) < size:
            self.fill()
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    def line(self, most=1024):
        while (end := self.buffer.find(b"\r\n")) < 0:
            if len(self.buffer) > most:
                raise BadRequest(400, bytes(self.buffer[:most]))
            self.fill()
        return self.take(end + 2)[:-2]

    def read_request(self):
        """The next request: (method, target, version, headers, head, body)."""
        while (end := self.buffer.find(b"\r\n\r\n")) < 0 and len(self.buffer) <= HEAD_MAX:
            self.fill()
        if not 0 <= end <= HEAD_MAX - 4:
            raise BadRequest(431, bytes(self.buffer[:HEAD_MAX]))
        head = self.take(end + 4)
        first, *lines = head[:-4].decode("latin-1").split("\r\n")
        words = first.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1.") or any(
                line.find(":") < 1 or line[0] in " \t" for line in lines):
            raise BadRequest(400, head)
        headers = [(name, value.strip(" \t")) for name, _, value in (
            line.partition(":") for line in lines)]
        return (*words, headers, head, self.read_body(headers, head))

    def read_body(self, headers, head):
        """The payload; of a chunked one the chunks put together."""
        lengths, chunked = values(headers, "content-length"), values(headers, "transfer-encoding")
        if len(lengths) + len(chunked) > 1 or (chunked and chunked[0].lower() != "chunked") or any(
                not (text.isascii() and text.isdigit()) for text in lengths):
            raise BadRequest(400, head)
        length = int(lengths[0][:9]) if lengths else 0
        if length > BODY_MAX:
            raise BadRequest(413, head)
        if "100-continue" in (text.lower() for text in values(headers, "expect")):
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not chunked:
            return self.take(length)
        body = b""
        while size := self.chunk_size(head):
            if len(body) + size > BODY_MAX:
                raise BadRequest(413, head)
            body += self.take(size)
            self.line()
        while self.line():  # trailers
            pass
        return body

    def chunk_size(self, head):
        try:
            return int(self.line().partition(b";")[0][:8], 16)
        except ValueError:
            raise BadRequest(400, head) from None

    def send(self, data):
        self.sock.sendall(data)

    def gone(self, seconds=None):
        """Wait; True as soon as the client hung up (or the sandbox stops), False when time is up.

        Asks the kernel for the TCP state instead of peeking, which TLS sockets cannot do.
        """
        poll = select.poll()
        poll.register(self.sock, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        return bool(poll.poll(None if seconds is None else seconds * 1000))

    def abort(self):
        """From another thread: make every wait on this connection end now."""
        try:
            # Not SSLSocket.shutdown(), which would drop TLS state under the reading thread.
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self):
        """An orderly end: close_notify under TLS, then FIN."""
        try:
            if isinstance(self.sock, ssl.SSLSocket):
                self.sock.setblocking(False)  # say goodbye, do not wait for theirs
                self.sock.unwrap()
        except (OSError, ValueError):
            pass
        self.sock.close()

    def reset(self):
        """A rude end: with nothing to linger for, the kernel sends RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def drain(self):
        """Swallow what is still coming, or closing would turn into RST and eat our answer."""
        socket.socket.shutdown(self.sock, socket.SHUT_WR)
        self.sock.settimeout(0.5)
        for _ in range(64):
            self.buffer.clear()
            self.fill()


def values(headers, name):
    """All values of one header, in order; name in lower case."""
    return [value for key, value in headers if key.lower() == name]


# --- senders -------------------------------------------------------------------------------------

def whole(connection, data):
    connection.send(data)
    return True


def hang(connection, data):
    connection.gone()


def close(connection, data):
    """Return nothing, which closes."""


def reset(connection, data):
    connection.reset()


def reset_mid_body(connection, data):
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"id\":\"67")
    connection.gone(0.05)  # let the client read that much first
    connection.reset()


def slow(connection, data):
    return not connection.gone(SLOW_SECONDS) and whole(connection, data)


def drip(connection, data):
    for at in range(len(data)):
        connection.send(data[at:at + 1])
        if connection.gone(DRIP_SECONDS):
            return False
    return True


def drip_body(connection, data):
    head, gap, body = data.partition(b"\r\n\r\n")
    connection.send(head + gap)
    return drip(connection, body)


def endless(connection, data):
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                    b"Transfer-Encoding: chunked\r\n\r\n7\r\n{\"id\":\"\r\n")
    chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
    while not connection.gone(0):
        connection.send(chunk)


def only(raw):
    """These bytes instead of the reply, then an orderly close."""
    return lambda connection, data: connection.send(raw)


def first(raw):
    """These bytes before the reply."""
    return lambda connection, data: whole(connection, raw + data)


def headers(*lines):
    """The reply with these header lines put into it."""
    def sender(connection, data):
        status, gap, rest = data.partition(b"\r\n")
        return whole(connection, gap.join((status, *lines, rest)))
    return sender


# --- replies -------------------------------------------------------------------------------------

@dataclasses.dataclass
class Reply:
    """A reply to give: body as bytes or str is sent as it is, anything else but None as JSON.

    `headers` is a dict, or a list of pairs where a name must come twice; what it names replaces the
    default of that name. `verdict` None lets the status alone decide: a 200 that means no must say
    so. `send` is a sender.
    """
    status: int = 200
    body: object = None
    headers: object = ()
    verdict: str = None
    send: object = whole

    def encode(self, last=False):
        body = self.body
        if body is None:
            body = b""
        elif not isinstance(body, (bytes, str)):
            body = json.dumps(body, separators=(",", ":"))
        if isinstance(body, str):
            body = body.encode()
        given = list(self.headers.items() if isinstance(self.headers, dict) else self.headers)
        default = [("Content-Type", "application/json; charset=utf-8")] if body else []
        if self.status != 204 and not values(given, "transfer-encoding"):
            default.append(("Content-Length", str(len(body))))
        if last:
            default.append(("Connection", "close"))
        default = [pair for pair in default if not values(given, pair[0].lower())]
        try:
            phrase = HTTPStatus(self.status).phrase
        except ValueError:
            phrase = "Other"
        lines = [f"HTTP/1.1 {self.status} {phrase}", *(f"{n}: {v}" for n, v in default + given)]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def error(status, message, headers=()):
    """An error in the form that Instantly gives to all of them."""
    name = HTTPStatus(status).phrase
    return Reply(status, {"statusCode": status, "error": name, "message": message}, headers)

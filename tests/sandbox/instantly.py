"""A stand-in for the Instantly API, that behaves, or misbehaves as it is told.

Serves the four routes that matter here (enable warm-up, a background job, one account, the list of
accounts) on 127.0.0.1, keeps an exact record of every call, and can be scripted per address. `service.py` is
what it does when all is well, `behaviours.py` the table of what else it can do, `wire.py` how that
gets onto the socket. Refuses to be more: no other routes, no rate limit of its own.

As a library:   with Sandbox("key") as box: ...  box.url, box.script(...), box.calls
As a program:   instantly.py --port 0 --key KEY       (--list prints the behaviours)
"""
import argparse
import collections
import json
import os
import signal
import socket
import ssl
import sys
import threading
import time
from urllib.parse import quote

if __package__:
    from . import wire
    from .behaviours import ACCEPTED, BEHAVIOURS, REFUSED, named_by
    from .service import BASE, SCOPES, Call, Service
else:
    import wire
    from behaviours import ACCEPTED, BEHAVIOURS, REFUSED, named_by
    from service import BASE, SCOPES, Call, Service

Reply = wire.Reply

ALREADY = "already"  # verdict on an enable refused with one of these while warm-up is on
ALREADY_STATUSES = (400, 409, 422)
LEDGER = ("n", "time", "connection", "turn", "method", "target", "kind", "address", "emails", "job",
          "behaviour", "verdict", "authorization_ok")  # of a Call; headers and body are added


class Hold:
    """Keeps enables of one address waiting between arrival and decision."""

    def __init__(self):
        self.arrived, self.waiting = threading.Event(), 0
        self.released = threading.Event()

    def release(self):
        self.released.set()


class Sandbox(Service):
    """The server. All methods may be called from any thread."""

    def __init__(self, key, tls=None, ledger=None, latency=0.0, port=0, keep=100_000):
        """`latency` in seconds; `keep`: how many calls to remember."""
        super().__init__()
        self.key, self.tls, self.latency, self.port = key, tls, latency, port
        self.redirect_to = None  # Location of the redirects; None: another path of this server
        self._calls, self._count = collections.deque(maxlen=keep), 0
        self._scripts = {kind: collections.defaultdict(collections.deque)
                         for kind in SCOPES}
        self._holds = {}
        self._connections = {}  # Connection: Thread
        self._listener = self._acceptor = None
        self._stopping = threading.Event()
        self._ledger_path, self._ledger, self._ledger_lock = ledger, None, threading.Lock()

    # --- what a test does with it ----------------------------------------------------------------

    @property
    def url(self):
        host = "https://localhost" if self.tls else "http://127.0.0.1"
        return f"{host}:{self.port}{BASE}"

    def start(self):
        """Listen; after a stop() on the same port again."""
        self._stopping.clear()
        if self._ledger_path:
            self._ledger = open(self._ledger_path, "ab")
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self._listener.listen(1024)
        self.port = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()
        return self

    def stop(self):
        """Close the listener and all connections at once; calls, scripts and accounts stay."""
        if self._stopping.is_set() or not self._acceptor:
            return
        self._stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept(), which close() would not
        self._acceptor.join()
        self._listener.close()
        with self._lock:
            still_open = dict(self._connections)
            for hold in self._holds.values():
                hold.release()
        for connection in still_open:
            connection.abort()
        for thread in still_open.values():
            thread.join(5)
        with self._ledger_lock:
            if self._ledger:
                self._ledger.close()
                self._ledger = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def script(self, address, *steps):
        """Behaviours of the next enables of the address, each used once.

        A step is a name in BEHAVIOURS, a Reply, or a function of the call that returns a Reply, or
        None to go on with what the address itself selects.
        """
        self._add_steps("enable", address, steps)

    def script_job(self, address, *steps):
        """The same for reading jobs of the address."""
        self._add_steps("job", address, steps)

    def script_account(self, address, *steps):
        """The same for reading the account."""
        self._add_steps("account", address, steps)

    def script_list(self, *steps):
        """The same for the list of accounts, which is nobody's."""
        self._add_steps("accounts", None, steps)

    def _add_steps(self, kind, address, steps):
        for step in steps:
            if not (isinstance(step, Reply) or callable(step) or step in BEHAVIOURS):
                raise ValueError(f"no such behaviour: {step!r}")
        with self._lock:
            self._scripts[kind][address].extend(steps)

    def hold(self, address):
        """Let enables of the address wait, from now until .release()."""
        with self._lock:
            hold = self._holds.get(address)
            if hold is None or hold.released.is_set():
                hold = self._holds[address] = Hold()
        return hold

    @property
    def calls(self):
        with self._lock:
            return list(self._calls)

    def enables(self, address=None):
        """The enables so far, of one address or of all."""
        return [call for call in self.calls
                if call.kind == "enable" and (address is None or address in call.emails)]

    def accepted(self, address):
        """Did an enable leave the address with warm-up on?"""
        return any(call.verdict in (ACCEPTED, ALREADY) for call in self.enables(address))

    def clear(self):
        """Forget the calls; scripts and accounts stay."""
        with self._lock:
            self._calls.clear()

    def unscript(self):
        """Forget all steps that were not used."""
        with self._lock:
            for table in self._scripts.values():
                table.clear()

    # --- connections -----------------------------------------------------------------------------

    def _accept(self):
        number = 0
        while not self._stopping.is_set():
            try:
                sock = self._listener.accept()[0]
                sock.settimeout(wire.IDLE_SECONDS)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.tls:  # the handshake itself is left to the connection's thread
                    sock = self.tls.wrap_socket(sock, server_side=True,
                                                do_handshake_on_connect=False)
            except OSError:
                time.sleep(0.01)  # out of descriptors, or the client already gone
                continue
            number += 1
            connection = wire.Connection(sock)
            thread = threading.Thread(target=self._serve, args=(connection, number), daemon=True)
            with self._lock:
                self._connections[connection] = thread
            thread.start()

    def _serve(self, connection, number):
        try:
            if self.tls:
                connection.sock.do_handshake()
            turn = 1
            while not self._stopping.is_set() and self._serve_one(connection, number, turn):
                turn += 1
        except OSError:
            pass  # the client left, or was too slow
        finally:
            connection.close()
            with self._lock:
                del self._connections[connection]

    def _serve_one(self, connection, number, turn):
        """One request, one reply; true if the connection is good for another."""
        try:
            method, target, version, headers, head, body = connection.read_request()
        except wire.BadRequest as bad:
            self._record(self._take(Call(number, turn, head=bad.head)))
            connection.send(wire.error(bad.status, "Unreadable request").encode(last=True))
            connection.drain()
            return False
        call = self._take(Call(number, turn, method=method, target=target, headers=headers,
                               head=head, body=body))
        last = version == "HTTP/1.0" or "close" in (
            text.lower() for text in wire.values(headers, "connection"))
        reply = self._decide(call)
        # On record before a single byte of the reply: what was done counts, read or not.
        self._record(call)
        if self.latency and self._stopping.wait(self.latency):
            return False
        return reply.send(connection, reply.encode(last)) and not last

    def _take(self, call):
        """Enter a call into the list, as it came."""
        call.time = time.time()
        call.authorization_ok = (
            wire.values(call.headers, "authorization") == [f"Bearer {self.key}"])
        self.classify(call)
        with self._lock:
            self._count += 1
            call.n = self._count
            self._calls.append(call)
        return call

    def _record(self, call):
        """One line in the ledger, on disk when this returns, without the key in any form."""
        if not self._ledger_path:
            return
        line = {name: getattr(call, name) for name in LEDGER}
        line["headers"] = [pair for pair in call.headers if pair[0].lower() != "authorization"]
        line["body"] = call.body.decode(errors="backslashreplace")
        text = json.dumps(line)
        for form in self.key, json.dumps(self.key)[1:-1], quote(self.key, safe=""):
            text = text.replace(json.dumps(form)[1:-1], "[key]")
        with self._ledger_lock:
            if self._ledger is None:
                raise wire.Left()  # stopped meanwhile: no record, so no reply
            self._ledger.write(text.encode() + b"\n")
            self._ledger.flush()
            os.fsync(self._ledger.fileno())

    # --- decisions -------------------------------------------------------------------------------

    def _decide(self, call):
        """The reply, with all its effects done and the verdict set."""
        if call.kind != "enable":
            return self._judge(call)
        self._wait_if_held(call)
        reply = self._judge(call)
        call.verdict = reply.verdict or (ACCEPTED if 200 <= reply.status < 300 else REFUSED)
        with self._lock:
            if call.verdict == ACCEPTED:
                for address in call.emails:
                    self.set_account(address, 1)
            elif call.verdict == REFUSED and reply.status in ALREADY_STATUSES and (
                    self.accounts.get(call.address, {}).get("warmup_status") == 1):
                call.verdict = ALREADY
        return reply

    def _wait_if_held(self, call):
        with self._lock:
            hold = self._holds.get(call.address)
            if hold is None or hold.released.is_set():
                return
            hold.waiting += 1
        hold.arrived.set()
        hold.released.wait()
        if self._stopping.is_set():
            raise wire.Left()

    def _judge(self, call):
        """Gates in the order of the real thing: the edge, the key, the route, the scope, the form."""
        if not any(wire.values(call.headers, "user-agent")):
            return Reply(403, "error code: 1010", {"Content-Type": "text/plain; charset=UTF-8"})
        if not call.authorization_ok:
            missing = not wire.values(call.headers, "authorization")
            return wire.error(401, "Missing Authorization header" if missing else "Invalid API key")
        serve = {"enable": self.enable, "job": self.read_job, "account": self.read_account,
                 "accounts": self.list_accounts}.get(call.kind)
        if serve is None:
            return wire.error(404, f"Route {call.method}:{call.target} not found")
        refusal = self.judge_scope(call)
        if refusal is None and call.kind == "enable":
            refusal = self.judge_form(call)
        return refusal or self._behave(call, serve)

    def _behave(self, call, normally):
        """The next scripted step; without one, of an enable what its address selects."""
        with self._lock:
            steps = self._scripts[call.kind].get(call.address)
            step = steps.popleft() if steps else None
        if isinstance(step, Reply) or callable(step):
            call.behaviour = "scripted"
            reply = step if isinstance(step, Reply) else step(call)
            if reply is not None:
                if call.kind == "enable":
                    self.adopt_job(call, reply)
                return reply
            step = None
        call.behaviour = step or (named_by(call.address) if call.kind == "enable" else "normal")
        behave = BEHAVIOURS[call.behaviour][0]
        return behave(self, call, lambda outcome="done", done=False: normally(call, outcome, done))


def arguments():
    parser = argparse.ArgumentParser(description="Stand-in for the Instantly API, on 127.0.0.1.")
    parser.add_argument("--list", action="store_true", help="print the behaviours and leave")
    parser.add_argument("--key", help="the API key to accept")
    parser.add_argument("--port", type=int, default=0, help="0, the default: any free one")
    parser.add_argument("--port-file", help="write the port there once it listens")
    parser.add_argument("--ledger", help="append one JSON line per call, synced before the reply")
    parser.add_argument("--latency", type=float, default=0, metavar="MS", help="before every reply")
    parser.add_argument("--tls-cert", help="PEM; with --tls-key serves https://localhost")
    parser.add_argument("--tls-key")
    options = parser.parse_args()
    if not options.key and not options.list:
        parser.error("--key is required")
    if bool(options.tls_cert) != bool(options.tls_key):
        parser.error("--tls-cert and --tls-key belong together")
    return options


def main():
    options = arguments()
    if options.list:
        for name, (_, description) in BEHAVIOURS.items():
            print(f"{name:22}{description}")
        return 0
    tls = None
    if options.tls_cert:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.tls_cert, options.tls_key)
    # Blocked before any thread starts, so that only sigwait() below ever sees them.
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    # Nobody can ask a program for its calls: the ledger is its memory.
    with Sandbox(options.key, tls, options.ledger, options.latency / 1000, options.port,
                 keep=0) as box:
        print(f"listening on {box.url}", flush=True)
        if options.port_file:
            with open(options.port_file + ".new", "w", encoding="ascii") as file:
                file.write(f"{box.port}\n")
            os.replace(options.port_file + ".new", options.port_file)  # never seen half written
        signal.sigwait(ends)
    return 0


if __name__ == "__main__":
    sys.exit(main())

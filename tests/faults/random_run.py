"""Many clients, an outside writer and every fault of random_rig.py against the real thing, in rounds; then the checker.

    python3 tests/faults/random_run.py [--build build] [--requests 1000000] [--round 2500] [--clients 48]

The seed is printed; WARMUP_SEED=n makes the same plan again (see random_plan.py for what that decides and what not),
WARMUP_ROUND=n only that round of it, WARMUP_REQUESTS=n sets the number of requests. SIGTERM and SIGINT let the present
round end and tell what there is to tell. Exit status 1 after a violation.
"""

import argparse
import collections
import hashlib
import itertools
import json
import os
import pathlib
import queue
import random
import secrets
import shutil
import signal
import socket
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg2

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.dont_write_bytecode = True

from conftest import SANITIZER_MARKS  # noqa: E402
from faults import audit, checker  # noqa: E402
from faults.random_plan import EVERY, UNKNOWN, Account, Plan  # noqa: E402
from faults.random_rig import BOUND, CONNECTIONS_MAX, DB_MS, FAULTS, FELT, WRITES, Rig  # noqa: E402

CLIENTS, WRITERS = 48, 3
ROUND = 2500
REQUEST = ("PATCH /api/email/accounts/{}/retry-warmup HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {}\r\n"
           "X-Request-Id: {}\r\nConnection: close\r\n\r\n")
VIOLATIONS_TOLD = 20  # of one round
# What the responder that is never killed may grow after so many rounds: heaps fill up to what their busiest moment
# needed, and there they stay.
WARM_ROUNDS, GROWTH_KIB, GROWTH_DESCRIPTORS = 20, 2048, 40


def ask(port, account, key, request_id, hang_up=False):
    """(status, body as JSON or None) of one request; (None, None) if there was no whole answer."""
    data = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=BOUND + 5) as connection:
            connection.sendall(REQUEST.format(account, key, request_id).encode())
            if hang_up:
                return None, None
            while piece := connection.recv(65536):
                data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
    except (OSError, IndexError, ValueError):
        return None, None
    try:
        body = json.loads(body)
    except ValueError:
        body = None
    return status, body if isinstance(body, dict) and {"account", "error"} & set(body) else None


class Round:
    """One plan, carried out. `history` is complete after run()."""

    def __init__(self, rig, plan, clients):
        self.rig, self.plan, self.clients = rig, plan, clients
        self.lock, self.started = threading.Condition(), 0
        self.limit = 0  # requests that may begin before the next fault does
        self.steps = iter(enumerate(plan.steps))
        self.probes, self.numbers = itertools.count(), itertools.count()
        self.jobs = queue.PriorityQueue()
        self.tokens = {name: f"pk_live_{secrets.token_hex(32)}" for name in (*plan.keys, UNKNOWN)}
        self.history = checker.History(
            [], [], [], bound=BOUND, in_flight=FELT + 1.5,
            keys={name: checker.Key(owner) for name, owner in plan.keys.items()} | {
                UNKNOWN: checker.Key(UNKNOWN, float("-inf"), float("-inf"))})
        self.written = 0

    # --- clients ---------------------------------------------------------------------------------

    def retry(self, server, account, owner, key, hang_up=False, request_id=None):
        request_id = request_id or f"{self.plan.seed}-p{next(self.probes)}"
        request = checker.Request(request_id, account, owner, key, time.time(), hung_up=hang_up,
                                  where=server.folder.name)
        request.status, request.body = ask(server.port, account, self.tokens[key], request.id, hang_up)
        request.ended = time.time()
        self.history.requests.append(request)
        return request

    def _client(self):
        servers = self.rig.servers
        while True:
            with self.lock:
                self.lock.wait_for(lambda: self.started < self.limit)
                number, step = next(self.steps, (None, None))
                if step is None:
                    return
                self.started += 1
                self.lock.notify_all()
            now = time.monotonic()
            if step.write:
                self._put(now + step.write_after, step.write, step.account)
            if step.revokes:
                self._put(now, None, step.revokes)
            self.retry(servers[step.server % len(servers)], step.account.id, step.owner, step.key, step.hangs_up,
                       f"{self.plan.seed}-{number}")

    def felt(self, rng):
        """A function to wait until so many more requests have begun, and some time has passed; but not for ever."""
        least = rng.choice((0, 0, 0.1, 0.3, 0.7))

        def wait(count):
            nonlocal least
            end = time.monotonic() + least
            with self.lock:
                until = self.started + count
                self.lock.wait_for(lambda: self.started >= until, FELT)
            time.sleep(max(0.0, end - time.monotonic()))
            least = 0  # of a fault in several parts, the first one

        return wait

    # --- the outside writer ----------------------------------------------------------------------

    def _put(self, due, what, subject):
        """`what` is done with an account; None revokes a key. The number keeps two of the same time apart."""
        self.jobs.put((due, next(self.numbers), what, subject))

    def _writer(self):
        connection = None
        while True:
            due, _, what, subject = job = self.jobs.get()
            if subject is None:
                self.jobs.put(job)
                return
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                connection = connection if connection and not connection.closed else self.rig.connect()
                with connection.cursor() as cursor:
                    if what is None:
                        self._revoke(cursor, subject)
                    else:
                        owners = self.plan.owners
                        other = owners[(owners.index(subject.owner) + 1) % len(owners)]
                        cursor.execute(WRITES[what], {"id": subject.id, "owner": subject.owner, "other": other,
                                                      "address": subject.address})
                        self.written += cursor.rowcount
            except psycopg2.Error:
                if connection:
                    connection.close()
                if what is None:  # a key is revoked for certain, a write is left out
                    self._put(time.monotonic() + 0.1, what, subject)

    def _revoke(self, cursor, name):
        key = self.history.keys[name]
        key.revoked_from = min(key.revoked_from, time.time())
        cursor.execute("UPDATE api_keys SET revoked_at = now() WHERE key_hash = %s", (self._hash(name),))
        key.revoked_at = time.time()

    def _hash(self, name):
        return hashlib.sha256(self.tokens[name].encode()).digest()

    # --- faults ----------------------------------------------------------------------------------

    def _faults(self):
        for at, name, seed in self.plan.faults:
            self._let_begin(at)
            with self.lock:
                self.lock.wait_for(lambda at=at: self.started >= at)
            self._let_begin(at + self.plan.every)
            fault = checker.Fault(name, time.time(), 0.0)
            rng = random.Random(seed)
            FAULTS[name](self.rig, rng, self.felt(rng))
            fault.ended = time.time()
            self.history.faults.append(fault)
            self._recover(fault)
        self._let_begin(float("inf"))

    def _let_begin(self, limit):
        """Clients that are quicker than the faults wait here, so that each fault meets its requests."""
        with self.lock:
            self.limit = limit
            self.lock.notify_all()

    def _probe_account(self):
        account = Account(str(self.plan._uuid()), self.plan.owners[0], f"joe+{secrets.token_hex(8)}@probe.example", [])
        self._add([account])
        return account

    def _recover(self, fault):
        """Retry through each web server until it succeeds: how long did the last of them take?"""
        accounts = [self._probe_account() for _ in self.rig.servers]
        began = time.time()
        for server, account in zip(self.rig.servers, accounts):
            while time.time() < began + 10:
                answer = self.retry(server, account.id, account.owner, f"{account.owner[:8]}-0")
                if answer.status in (200, 409):
                    break
                fault.refused_by_server |= not answer.ours
                time.sleep(0.01)
        fault.recovery = time.time() - began

    # --- a round ---------------------------------------------------------------------------------

    def _add(self, accounts):
        values = ",".join(["(%s, %s, 'email', %s, 'pending', 'not_started')"] * len(accounts))
        self.rig.execute("INSERT INTO accounts (id, user_id, type, email_address, status, warmup_status)"
                         " VALUES " + values, *itertools.chain.from_iterable((a.id, a.owner, a.address) for a in accounts))

    def _prepare(self):
        for server in self.rig.servers:  # opened to append, so that this is safe
            os.truncate(server.folder / server.log_name, 0)
        self.rig.execute("TRUNCATE accounts, api_keys, audit")
        self._add(self.plan.accounts)
        for name, owner in self.plan.keys.items():
            self.rig.execute("INSERT INTO api_keys (user_id, key_hash, prefix) VALUES (%s, %s, %s)",
                             owner, self._hash(name), self.tokens[name][:24])
        self.rig.sandbox.clear()
        for account in self.plan.accounts:
            self.rig.sandbox.script(account.address, *account.replies)

    def run(self):
        self._prepare()
        began = time.monotonic()
        clients = [threading.Thread(target=self._client, daemon=True) for _ in range(self.clients)]
        writers = [threading.Thread(target=self._writer, daemon=True) for _ in range(WRITERS)]
        for thread in clients + writers:
            thread.start()
        self._faults()  # servers are started again in here, which only the main thread may do
        for thread in clients:
            thread.join()
        self._put(float("inf"), None, None)
        for thread in writers:
            thread.join()
        self.seconds = time.monotonic() - began
        self.rig.calm()
        self._sweep()
        self._collect()
        return checker.check(self.history)

    def _sweep(self):
        """Faults off: whatever is still stuck is asked for again, at most twice."""
        self.rig.sandbox.unscript()
        self._recover(checker.Fault("the end", 0.0, 0.0))
        time.sleep(2 * DB_MS / 1000)  # what was given up has ended by the server's statement_timeout
        stuck = self.rig.execute("SELECT id::text, user_id::text FROM accounts"
                                 " WHERE status = 'pending' AND warmup_status = 'not_started'")
        with ThreadPoolExecutor(self.clients) as pool:
            list(pool.map(self._settle, stuck, itertools.cycle(self.rig.servers)))

    def _settle(self, row, server):
        account, owner = row
        answers = self.history.sweep[account] = []
        while len(answers) < 2 and (not answers or answers[-1].status not in (200, 409)):
            answers.append(self.retry(server, account, owner, f"{owner[:8]}-0"))

    def _collect(self):
        history = self.history
        history.calls = [checker.Call(call.time, call.address, call.verdict, call.behaviour or "none")
                         for call in self.rig.sandbox.calls if call.kind == "enable"]
        history.changes = audit.read(self.rig.execute)
        asked, complaints = {}, set()
        for server in self.rig.servers:
            text = server.log()
            history.leaks += [f"{server.folder.name}: {what}" for what, secret in (
                ("Instantly's key", self.rig.secrets[0]), ("the database's password", self.rig.secrets[1]),
                *self.tokens.items(), *(("a sanitizer's report", mark) for mark in SANITIZER_MARKS)) if secret in text]
            for line in text.splitlines():
                if line.startswith("{"):
                    entry = json.loads(line)
                    if "upstream_ms" in entry:
                        asked[entry["request_id"]] = entry["upstream_ms"] > 0
                    else:
                        complaints.add(entry.get("request_id"))
        for request in history.requests:
            if request.id in asked:
                request.upstream, request.troubled = asked[request.id], request.id in complaints


class Figures:
    """What all rounds came to."""

    def __init__(self):
        self.requests = self.moves = self.calls = self.written = 0
        self.statuses, self.happened = collections.Counter(), collections.Counter()
        self.slowest, self.recoveries = collections.Counter(), collections.defaultdict(list)
        self.measures = []

    def add(self, done, measure):
        history = done.history
        self.requests += len(history.requests)
        self.calls += len(history.calls)
        self.moves += sum(change.by_whom == checker.RESPONDER for change in history.changes)
        self.written += done.written
        for request in history.requests:
            whose = "" if request.ours or request.status is None else " (web server's)"
            self.statuses["hung up" if request.hung_up else f"{request.status}{whose}"] += 1
        for fault in history.faults:
            self.happened[fault.kind] += 1
            self.recoveries[fault.kind].append(fault.recovery)
            for request in history.requests:
                if request.sent <= fault.ended and request.ended >= fault.began:
                    self.slowest[fault.kind] = max(self.slowest[fault.kind], request.ended - request.sent)
        self.measures.append(measure)

    def __str__(self):
        lines = [f"{self.requests} requests, {self.calls} calls of Instantly, {self.moves} moves,"
                 f" {self.written} writes from outside",
                 "answers: " + ", ".join(f"{status}: {count}" for status, count in sorted(
                     self.statuses.items(), key=lambda item: -item[1])),
                 f"{'fault':24}{'times':>6}{'slowest answer':>16}{'recovery: median':>18}{'worst':>8}"]
        for kind in sorted(self.happened):
            times = self.recoveries[kind]
            lines.append(f"{kind:24}{self.happened[kind]:6}{self.slowest[kind]:14.2f} s"
                         f"{statistics.median(times):16.2f} s{max(times):6.2f} s")
        first, last = self.measures[0], self.measures[-1]
        lines.append("the responder that is never killed: %d KiB, %d descriptors, %d database connections of all; "
                     "after the first round %d, %d, %d" % (*last, *first))
        return "\n".join(lines)


def tell(seed, number, done, violations, measure, say):
    """Say how a round went; its violations as text, each with what is needed to look for its cause."""
    history, texts = done.history, []
    if violations:
        first, began = violations[0].at, min(request.sent for request in history.requests)
        say(f"first violation after {sum(request.sent <= first for request in history.requests)} requests,"
            f" {first - began:.1f} s of round {number}")
    for violation in violations[:VIOLATIONS_TOLD]:
        texts.append(f"WARMUP_SEED={seed} WARMUP_ROUND={number}: {violation}\n{checker.around(history, violation)}")
        say(texts[-1])
    slowest = max(request.ended - request.sent for request in history.requests)
    none = checker.Fault("no fault", 0.0, 0.0, 0.0)
    worst = max(history.faults, key=lambda fault: fault.recovery, default=none)
    say(f"round {number}: {len(history.requests)} requests in {done.seconds:.0f} s, {len(violations)} violations;"
        f" slowest answer {slowest:.2f} s, slowest recovery {worst.recovery:.2f} s ({worst.kind});"
        " %d KiB, %d descriptors, %d connections" % measure)
    return texts


def grown(measures):
    """What is wrong with the memory, descriptors and connections of all rounds, as text."""
    if len(measures) <= WARM_ROUNDS:
        return []
    warm, last = measures[WARM_ROUNDS], measures[-1]
    limits = (warm[0] + GROWTH_KIB, warm[1] + GROWTH_DESCRIPTORS, CONNECTIONS_MAX)
    return [f"I10: {what}: {now}, after round {WARM_ROUNDS} {before}" for what, now, before, limit in zip(
        ("KiB of the responder", "descriptors of the responder", "database connections"), last, warm, limits)
        if now > limit]


def run(folder, build, seed, requests, per_round=ROUND, clients=CLIENTS, every=EVERY, only=None, say=print,
        stopping=threading.Event()):
    """All rounds, or those until somebody sets `stopping`; (figures, violations as text)."""
    figures, found = Figures(), []
    say(f"WARMUP_SEED={seed}: {requests} requests in rounds of {per_round}, {clients} clients")
    with Rig(folder, build) as rig:
        for number in range((requests + per_round - 1) // per_round) if only is None else [only]:
            size = min(per_round, requests - number * per_round)
            done = Round(rig, Plan(f"{seed}.{number}", size if size > 0 else per_round, FAULTS, every), clients)
            violations = done.run()
            figures.add(done, rig.measure())
            found += tell(seed, number, done, violations, figures.measures[-1], say)
            if stopping.is_set():
                break
        found += grown(figures.measures)
    for server in rig.servers:  # what they said at their end
        found += [f"{server.folder.name}:\n{server.log()}" for mark in SANITIZER_MARKS if mark in server.log()]
    return figures, found


def numbers():
    """Seed, requests, and the only round, of the environment."""
    seed = os.environ.get("WARMUP_SEED") or str(secrets.randbelow(10**9))
    only = os.environ.get("WARMUP_ROUND")
    return seed, os.environ.get("WARMUP_REQUESTS"), None if only is None else int(only)


def main():
    seed, requests, only = numbers()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build", help="folder of the programs under test")
    parser.add_argument("--requests", type=int, default=int(requests or 1_000_000))
    parser.add_argument("--round", type=int, default=ROUND)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--every", type=int, default=EVERY, help="requests from the beginning of a fault to the next")
    options = parser.parse_args()
    folder = pathlib.Path(options.build).resolve() / "tests" / f"random-{os.getpid()}"
    stopping = threading.Event()
    for number in signal.SIGTERM, signal.SIGINT:
        signal.signal(number, lambda *_: stopping.set())
    try:
        figures, found = run(folder, options.build, seed, options.requests, options.round, options.clients,
                             options.every, only, lambda text: print(text, flush=True), stopping)
        print(f"\n{figures}\n{len(found)} violations")
    finally:
        if "WARMUP_KEEP" not in os.environ:
            shutil.rmtree(folder, ignore_errors=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

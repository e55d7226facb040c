"""What the random run runs on, and every way to disturb it: a table, FAULTS.

One PostgreSQL, one sandbox Instantly, and three web servers with responders on them: one that is never killed, one with
two processes that are, and one that sees both through proxies.
"""

import contextlib
import os
import pathlib
import secrets
import signal
import subprocess
import time

import psycopg2
import stack
from conftest import SANITIZER_VARIABLES
from sandbox.instantly import Sandbox

from faults import audit
from faults.proxies import CLIENT, SERVER, PgProxy, UpProxy, after, cut, delay, reset, stall

TOP = pathlib.Path(__file__).resolve().parents[2]
LOGIN = "warmup"

# Short limits, so that many requests that run into one fit. What an answer may take is their sum (the contract), and
# what a busy machine adds.
DB_MS, CONNECT_MS, UPSTREAM_MS, JOB_MS = 500, 300, 500, 220
BOUND = (2 * DB_MS + UPSTREAM_MS + JOB_MS) / 1000 + 2.0
LIMITS = {"WARMUP_DB_TIMEOUT_MS": DB_MS, "WARMUP_UPSTREAM_TIMEOUT_MS": UPSTREAM_MS, "WARMUP_WORKERS": 32,
          "WARMUP_UPSTREAM_CONNECT_TIMEOUT_MS": CONNECT_MS, "WARMUP_DB_CONNECTIONS": 4}
CONNECTIONS_MAX = 4 * 4  # of that many processes
FELT = 1.2  # seconds that a fault lasts at most if no more requests come
LATENCY = 0.03  # of Instantly, so that there is something between reading a row and moving it

POSTGRES = {
    "max_connections": 80,
    # A server that crashes (but not the machine) must keep what it confirmed, or the run would accuse the responder.
    "synchronous_commit": "on",
    # So that commits can be made to wait for a standby that does not exist.
    "wal_level": "replica",
    "max_wal_senders": 2,
    "log_min_messages": "fatal",
}

WRITES = {
    "ban": "UPDATE accounts SET status = 'error', warmup_status = 'banned', updated_at = now() WHERE id = %(id)s",
    "graduate": "UPDATE accounts SET status = 'active', warmup_status = 'warmed', updated_at = now() WHERE id = %(id)s",
    "warm": "UPDATE accounts SET status = 'warming', warmup_status = 'warming', updated_at = now() WHERE id = %(id)s",
    "put back": "UPDATE accounts SET status = 'pending', warmup_status = 'not_started', updated_at = now()"
                " WHERE id = %(id)s",
    "delete": "DELETE FROM accounts WHERE id = %(id)s",
    "create again": "INSERT INTO accounts (id, user_id, type, email_address, status, warmup_status)"
                    " VALUES (%(id)s, %(owner)s, 'email', %(address)s, 'pending', 'not_started') ON CONFLICT DO NOTHING",
    "hand over": "UPDATE accounts SET user_id = %(other)s WHERE id = %(id)s",
}


class Rig:
    def __init__(self, folder, build):
        self.folder, self.build = pathlib.Path(folder), pathlib.Path(build).resolve()
        self.secrets = [secrets.token_hex(20), "p@ss'" + secrets.token_hex(8)]
        upstream_key, self.password = self.secrets
        self.sandbox = Sandbox(upstream_key, latency=LATENCY, keep=1_000_000)
        self.sandbox.job_seconds = 0.05
        self.stopped = set()  # pids that got SIGSTOP

    def __enter__(self):
        with contextlib.ExitStack() as started:
            self.postgres = started.enter_context(stack.Postgres(self.folder / "postgres", POSTGRES))
            self.postgres.create_database("random")
            self._migrate()
            self.admin = self.connect()
            started.enter_context(self.sandbox)
            self.pg_proxy = started.enter_context(PgProxy(self.postgres.port))
            self.up_proxy = started.enter_context(UpProxy(self.sandbox.port))
            self.steady = started.enter_context(self._server("steady", 1))
            self.killed = started.enter_context(self._server("killed", 2, WARMUP_JOB_WAIT_MS=JOB_MS))
            self.proxied = started.enter_context(self._server(
                "proxied", 1, WARMUP_JOB_WAIT_MS=JOB_MS,
                DATABASE_URL=self.pg_proxy.url(self._url()) + "?sslmode=disable&gssencmode=disable",
                INSTANTLY_API_URL=self.up_proxy.url(self.sandbox.url)))
            self.servers = [self.steady, self.killed, self.proxied]
            self._started = started.pop_all()
        return self

    def __exit__(self, *error):
        self.calm()
        self._started.__exit__(*error)

    def _url(self):
        return self.postgres.url("random", LOGIN, self.password)

    def _migrate(self):
        subprocess.run([self.build / "warmupctl", "migrate", "--role", "--schema", TOP / "deploy/schema"], check=True,
                       stdout=subprocess.DEVNULL, env={"PATH": stack.PATH, "DATABASE_URL": self.postgres.url("random")})
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE ROLE {LOGIN} LOGIN PASSWORD %s IN ROLE warmup_responder", (self.password,))
            cursor.execute(audit.AUDIT)

    def _server(self, name, max_procs, **changes):
        settings = {"DATABASE_URL": self._url(), "INSTANTLY_API_KEY": self.secrets[0],
                    "INSTANTLY_API_URL": self.sandbox.url, "WARMUP_JOB_WAIT_MS": 0, **LIMITS, **changes}
        return stack.Lighttpd(self.folder / name, self.build / "warmup.fcgi", settings, mount="/", max_procs=max_procs,
                              variables=SANITIZER_VARIABLES, extra="server.max-connections = 1000\nserver.max-fds = 2048")

    # --- the database ----------------------------------------------------------------------------

    def connect(self):
        """The administrator's own connection, which no fault of commits holds up."""
        connection = self.postgres.connect("random")
        with connection.cursor() as cursor:
            cursor.execute("SET synchronous_commit = local; SET statement_timeout = 5000")
        return connection

    def execute(self, text, *values):
        """In the main thread. Over a restart of the server, it waits until that is up."""
        for attempt in range(100):
            try:
                if self.admin.closed:
                    self.admin = self.connect()
                with self.admin.cursor() as cursor:
                    cursor.execute(text, values or None)
                    return cursor.fetchall() if cursor.description else None
            except (psycopg2.OperationalError, psycopg2.InterfaceError):
                if attempt == 99:
                    raise
                with contextlib.suppress(psycopg2.Error):
                    self.admin.close()
                time.sleep(0.05)

    def backends(self):
        return [pid for pid, in self.execute("SELECT pid FROM pg_stat_activity WHERE usename = %s", LOGIN)]

    def terminate(self, condition="true"):
        self.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                     f" WHERE usename = '{LOGIN}' AND {condition}")

    # --- processes -------------------------------------------------------------------------------

    def send(self, pid, number):
        if number == signal.SIGSTOP:
            self.stopped.add(pid)
        elif number == signal.SIGCONT:
            self.stopped.discard(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def responders(self, *servers):
        return [pid for server in servers for pid in server.responder_pids()]

    def calm(self):
        """The end of everything that a fault may have left behind."""
        for pid in list(self.stopped):
            self.send(pid, signal.SIGCONT)
        for proxy in (self.pg_proxy, self.up_proxy):
            proxy.clear()
            proxy.accept()
        self.sandbox.latency = LATENCY

    def measure(self):
        """Of the responders that are never killed: (RSS in KiB, descriptors, database connections of all)."""
        rss = descriptors = 0
        for pid in self.responders(self.steady):
            with contextlib.suppress(OSError):
                status = pathlib.Path(f"/proc/{pid}/status").read_text()
                rss += int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
                descriptors += stack.descriptors(pid)
        return rss, descriptors, len(self.backends())


# --- faults --------------------------------------------------------------------------------------
# Each is fault(rig, rng, felt): begins with the call, ends with the return. felt(n) waits until n more requests
# have begun, and in some rounds of the plan until a part of their time limits, or all of them, have passed, too.

def backends_ended(rig, rng, felt):
    for _ in range(4):
        rig.terminate(f"random() < {rng.choice((0.3, 0.7, 1))}")
        felt(8)


def backends_stopped(rig, rng, felt):
    pids = rig.backends()
    for pid in rng.sample(pids, max(1, len(pids) // rng.choice((1, 2, 4)))) if pids else ():
        rig.send(pid, signal.SIGSTOP)
    felt(30)
    for pid in pids:
        rig.send(pid, signal.SIGCONT)


def backend_killed(rig, rng, felt):
    """The server answers by ending all sessions and recovering."""
    pids = rig.backends()
    if pids:
        os.kill(rng.choice(pids), signal.SIGKILL)
    felt(10)
    rig.execute("SELECT 1")


def postgres_restarted(rig, rng, _felt):
    rig.postgres.restart(rng.choice(("immediate", "fast")))


def postgres_down(rig, _rng, felt):
    rig.postgres.stop("immediate")
    felt(25)
    rig.postgres.start()


def postgres_paused(rig, _rng, felt):
    rig.postgres.pause()
    felt(25)
    rig.postgres.resume()


def rows_locked(rig, rng, felt):
    """By somebody who changes nothing, or rolls back what he changed."""
    with contextlib.closing(rig.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN; SET LOCAL lock_timeout = 500")
        with contextlib.suppress(psycopg2.Error):
            cursor.execute(rng.choice((
                "SELECT 1 FROM accounts WHERE random() < 0.5 FOR UPDATE",
                "LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE",
                "UPDATE accounts SET status = 'error', warmup_status = 'banned' WHERE random() < 0.5")))
        felt(25)
        with contextlib.suppress(psycopg2.Error):
            cursor.execute("ROLLBACK")


def commits_hang(rig, rng, felt):
    """Each waits for a standby; some are ended meanwhile, which commits without saying so."""
    rig.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    rig.execute("SELECT pg_reload_conf()")
    for _ in range(3):
        felt(8)
        if rng.random() < 0.6:
            rig.terminate("wait_event = 'SyncRep'")
    rig.execute("ALTER SYSTEM RESET synchronous_standby_names")
    rig.execute("SELECT pg_reload_conf()")


def role_changed(rig, rng, felt):
    """For new sessions: no more than two of them; nothing may be written; every conflict is an error."""
    on, off = rng.choice((
        ("CONNECTION LIMIT 2", "CONNECTION LIMIT -1"),
        ("SET default_transaction_read_only = on", "RESET default_transaction_read_only"),
        ("SET default_transaction_isolation = 'serializable'", "RESET default_transaction_isolation")))
    rig.execute(f"ALTER ROLE {LOGIN} {on}")
    rig.terminate()
    felt(25)
    rig.execute(f"ALTER ROLE {LOGIN} {off}")


PG_MESSAGES = [(CLIENT, name) for name in ("Bind", "Execute", "Sync", "Startup", "Parse")] + [
    (SERVER, name) for name in ("BindComplete", "DataRow", "CommandComplete", "ReadyForQuery", "Authentication")]
UP_MESSAGES = [(CLIENT, "Request"), (SERVER, "Reply")]


def at_messages(proxy, rng, felt, messages, about=()):
    """Nothing that TCP rules out, such as the loss of one message between two others."""
    for _ in range(8):
        direction, name = rng.choice(messages)
        action = rng.choice((cut, reset, stall, delay(rng.choice((0.05, 0.3, 0.8)))))
        if rng.random() < 0.4:
            action = rng.choice((after(action), after(rng.randrange(1, 20), action)))
        conditions = {"statement": rng.choice(about)} if about and rng.random() < 0.8 else {}
        proxy.on(direction, name, action, nth=rng.randrange(1, 5), **conditions)
    felt(45)
    proxy.clear()
    # What was stalled stays so: the client has to give it up by itself.


def database_messages(rig, rng, felt):
    at_messages(rig.pg_proxy, rng, felt, PG_MESSAGES, ("warmup_swap", "warmup_swap", "warmup_read", "warmup_load"))


def instantly_messages(rig, rng, felt):
    at_messages(rig.up_proxy, rng, felt, UP_MESSAGES)


def away(proxy, rng, felt):
    """Nobody listens, or nobody answers; what was open is closed, or stays."""
    rng.choice((proxy.refuse, proxy.swallow))()
    if rng.random() < 0.7:
        proxy.disconnect(abruptly=rng.random() < 0.5)
    felt(30)
    proxy.accept()


def database_away(rig, rng, felt):
    away(rig.pg_proxy, rng, felt)


def instantly_away(rig, rng, felt):
    away(rig.up_proxy, rng, felt)


def instantly_restarted(rig, rng, felt):
    rig.sandbox.stop()
    felt(rng.choice((0, 20)))
    rig.sandbox.start()


def instantly_slow(rig, rng, felt):
    rig.sandbox.latency = rng.choice((0.15, 0.45, 0.6))
    felt(30)
    rig.sandbox.latency = LATENCY


def end_responders(rig, rng, felt, number):
    for _ in range(2):
        pids = rig.responders(rig.killed, rig.proxied)
        if pids:
            rig.send(rng.choice(pids), number)
        felt(12)


def kill_responders(rig, rng, felt):
    end_responders(rig, rng, felt, signal.SIGKILL)


def term_responders(rig, rng, felt):
    end_responders(rig, rng, felt, signal.SIGTERM)


def responders_stopped(rig, rng, felt):
    pids = rig.responders(*rig.servers)
    for pid in rng.sample(pids, min(2, len(pids))):
        rig.send(pid, signal.SIGSTOP)
    felt(15)
    for pid in pids:
        rig.send(pid, signal.SIGCONT)


FAULTS = {function.__name__.replace("_", " "): function for function in (
    backends_ended, backends_stopped, backend_killed, postgres_restarted, postgres_down, postgres_paused, rows_locked,
    commits_hang, role_changed, database_messages, instantly_messages, database_away, instantly_away,
    instantly_restarted, instantly_slow, kill_responders, term_responders, responders_stopped)}

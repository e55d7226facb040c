"""A primary that dies and a real standby that takes its place, behind one DATABASE_URL with both."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import stack
from conftest import DATABASE_PASSWORD, STUCK, UPSTREAM_KEY, WARMING, World, wait_for, warmupctl
from faults import audit, servers
from test_database import QUICK, SLACK, check_unavailable, timed
from test_swap import check_not_confirmed
from test_transport import Raw, window


class Pair(World):
    """A World on a primary with a standby. After a failover the World is where the database went."""

    def __init__(self, folder, build, sandbox):
        self.folder, self.number = folder, 0
        primary = stack.Postgres(folder / "0", servers.PRIMARY).start()
        primary.create_database("own")
        warmupctl(build, primary.url("own"), "migrate", "--role")
        with contextlib.closing(primary.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE ROLE warmup LOGIN PASSWORD %s IN ROLE warmup_responder", (DATABASE_PASSWORD,))
        super().__init__(primary, "own", sandbox)
        audit.install(self)
        self.standby = None
        self.follow()

    def follow(self):
        """A new standby for whatever is the primary now."""
        self.number += 1
        if self.standby:
            self.standby.stop("immediate")
        self.standby = servers.Standby(self.folder / str(self.number), self.postgres).start()
        assert self.standby.caught_up()

    def url(self, *hosts, options="?target_session_attrs=read-write"):
        """Of the given servers, else of the standby and the primary, the wrong one first."""
        ports = [server.port for server in hosts or (self.standby, self.postgres)]
        one = self.settings()["DATABASE_URL"]
        return one.replace(f"127.0.0.1:{self.postgres.port}",
                           ",".join(f"127.0.0.1:{port}" for port in ports)) + options

    def fail_over(self):
        """The standby becomes the primary, and this World's server; the old one is dead."""
        self.postgres.stop("immediate")
        self.standby.promote()
        self.connection.close()
        self.postgres, self.standby = self.standby, None
        self.connection = self.postgres.connect(self.name)

    def stop(self):
        self.connection.close()
        for server in (self.standby, self.postgres):
            if server:
                server.stop("immediate")


@pytest.fixture(scope="module")
def running(run_folder, build, sandbox):
    pair = Pair(run_folder / "pair", build, sandbox)
    yield pair
    pair.stop()


@pytest.fixture
def pair(running):
    """With a standby, also after a case that promoted it."""
    if running.standby is None:
        running.follow()
    return running


def check_moved(pair, account, answer, enables=1):
    assert answer.status == 200, answer
    assert (pair.state(account), pair.enables(account)) == (WARMING, enables)
    assert len(audit.moves(pair, account)) == 1
    audit.check(pair, account)


def test_standby_alone_answers_503_until_it_is_promoted(responder, pair):
    """A12. No restart, and nothing is decided on data that may be old."""
    account = pair.add_account()
    assert pair.standby.caught_up()
    server = responder(pair, DATABASE_URL=pair.url(), WARMUP_DB_TIMEOUT_MS=1000, **QUICK)
    pair.postgres.stop("immediate")
    answer, took = timed(pair.retry, Raw(server), account)
    check_unavailable(answer)
    assert took < 1 + SLACK
    pair.fail_over()
    assert pair.enables(account) == 0
    check_moved(pair, account, pair.retry(Raw(server), account))
    assert server.process.alive() and server.stop()


def test_standby_that_lags_is_not_asked(responder, pair):
    """A13. It still says pending, where the primary knows better."""
    server = responder(pair, DATABASE_URL=pair.url(), **QUICK)
    account = pair.add_account()
    assert pair.standby.caught_up()
    pair.standby.ask("SELECT pg_wal_replay_pause()")
    try:
        check_moved(pair, account, pair.retry(Raw(server), account))
        assert pair.retry(Raw(server), account).status == 409
        assert pair.enables(account) == 1
    finally:
        pair.standby.ask("SELECT pg_wal_replay_resume()")
    assert server.stop()


def test_standby_that_is_asked_all_the_same_moves_nothing(responder, pair):
    """A13, where DATABASE_URL names it alone and demands nothing: the gate passes on old data, and the swap fails."""
    server = responder(pair, DATABASE_URL=pair.url(pair.standby, options=""), WARMUP_DB_TIMEOUT_MS=600, **QUICK)
    account = pair.add_account()
    assert pair.standby.caught_up()
    pair.standby.ask("SELECT pg_wal_replay_pause()")
    try:
        pair.execute("UPDATE accounts SET status = 'error', warmup_status = 'banned' WHERE id = %s", account)
        answer, took = timed(pair.retry, Raw(server), account)
        check_not_confirmed(answer)
        assert took < 0.6 + SLACK
        assert (pair.state(account), audit.moves(pair, account)) == (("error", "banned"), [])
        assert "the database is read-only" in server.log()
    finally:
        pair.standby.ask("SELECT pg_wal_replay_resume()")
    assert server.stop()


def test_failover_between_gate_and_swap_answers_200(responder, pair):
    """C14. The swap is made where the database is by then."""
    server = responder(pair, DATABASE_URL=pair.url(), WARMUP_DB_TIMEOUT_MS=20000, **QUICK)
    account = pair.add_account()
    address = pair.address(account)
    assert pair.standby.caught_up()
    with window(Raw(server), pair, account) as answer:
        pair.postgres.stop("immediate")
        pair.sandbox.hold(address).release()
        time.sleep(0.3)  # by now it tries, and the only one there is read-only
        assert not answer.done()
        pair.fail_over()
    check_moved(pair, account, answer.result())
    assert server.stop()


def test_demoted_primary_is_left_for_the_new_one(responder, pair):
    """C14, 25006: the old one is there, and read-only, as a primary is that was fenced."""
    server = responder(pair, DATABASE_URL=pair.url(pair.postgres, pair.standby), WARMUP_DB_CONNECTIONS=1,
                       WARMUP_DB_TIMEOUT_MS=20000, **QUICK)
    account, old = pair.add_account(), pair.postgres
    assert pair.standby.caught_up()
    with window(Raw(server), pair, account) as answer:
        pair.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        pair.execute("SELECT pg_reload_conf()")
        pair.connection.close()
        pair.standby.promote()
        pair.postgres, pair.standby = pair.standby, None
        pair.connection = pair.postgres.connect(pair.name)
    try:
        check_moved(pair, account, answer.result())
        assert "the database is read-only" in server.log()
    finally:
        old.stop("immediate")
    assert server.stop()


def test_write_lost_by_a_failover_is_made_again_by_the_next_retry(responder, pair):
    """C15. What an asynchronous standby did not get is gone, after a 200; the limit is the database's own."""
    server = responder(pair, DATABASE_URL=pair.url(), WARMUP_DB_TIMEOUT_MS=10000, **QUICK)
    account = pair.add_account()
    assert pair.standby.caught_up()
    pair.standby.cut_off()
    check_moved(pair, account, pair.retry(Raw(server), account))
    pair.fail_over()
    assert (pair.state(account), audit.changes(pair, account)) == (STUCK, [])
    check_moved(pair, account, pair.retry(Raw(server), account), enables=2)
    assert pair.retry(Raw(server), account).status == 409
    assert UPSTREAM_KEY not in server.log()
    assert server.stop()


def test_failover_while_many_retry_loses_none(responder, pair):
    """Those that come meanwhile get a 503 or a 500, and are right when they come again."""
    server = responder(pair, DATABASE_URL=pair.url(), WARMUP_WORKERS=8, WARMUP_DB_CONNECTIONS=4,
                       WARMUP_DB_TIMEOUT_MS=500, **QUICK)
    accounts = [pair.add_account() for _ in range(24)]
    assert pair.standby.caught_up()
    pair.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")  # so that no 200 can be lost
    pair.execute("SELECT pg_reload_conf()")
    wait_for(lambda: pair.execute("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"))

    def until_it_is_done(account):
        statuses = []
        deadline = time.monotonic() + 60
        while not statuses or statuses[-1] not in (200, 409):
            assert time.monotonic() < deadline, statuses
            statuses.append(pair.retry(Raw(server), account).status)
            time.sleep(0.02)
        return statuses

    with ThreadPoolExecutor(12) as pool:
        futures = [pool.submit(until_it_is_done, account) for account in accounts]
        wait_for(lambda: sum(future.done() for future in futures) >= 6)
        pair.fail_over()
        pair.execute("ALTER SYSTEM RESET synchronous_standby_names")
        pair.execute("SELECT pg_reload_conf()")
        seen = [future.result() for future in futures]
    assert {status for statuses in seen for status in statuses[:-1]} <= {500, 503}
    for account in accounts:
        assert pair.state(account) == WARMING
        assert len(audit.moves(pair, account)) == 1
        audit.check(pair, account)
    assert server.process.alive() and server.stop()

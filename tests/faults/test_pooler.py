"""PgBouncer between the responder and PostgreSQL: in both of its modes, away, back, and full."""

import contextlib
import secrets
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest
from conftest import DATABASE_PASSWORD, STUCK, WARMING, Cgi, check_log
from faults import audit, servers
from test_database import QUICK, SLACK, check_unavailable, scratch_world, timed
from test_swap import check_not_confirmed
from test_transport import Raw, window

# What the manual says of poolers.
PREPARED = {"transaction": "off", "session": "on"}


@pytest.fixture(scope="module")
def pooled(postgres, template, sandbox):
    with scratch_world(postgres, template, sandbox) as world:
        audit.install(world)
        yield world


@pytest.fixture(params=PREPARED)
def mode(request):
    return request.param


def bouncer_before(world, folder, mode, **settings):
    users = {"warmup": DATABASE_PASSWORD, world.postgres.user: world.postgres.password}
    return servers.PgBouncer(folder / f"pgbouncer-{secrets.token_hex(4)}", world.postgres, users, pool_mode=mode,
                             max_client_conn=100, **settings)


@pytest.fixture
def bouncer(pooled, run_folder, mode):
    with bouncer_before(pooled, run_folder, mode) as bouncer:
        yield bouncer


def through(bouncer, world, mode, **changes):
    return {"DATABASE_URL": bouncer.url(world.settings()["DATABASE_URL"]), "WARMUP_DB_PREPARED": PREPARED[mode],
            **QUICK, **changes}


def check_moved(world, account, answer):
    assert answer.status == 200, answer
    assert (world.state(account), world.enables(account)) == (WARMING, 1)
    assert len(audit.moves(world, account)) == 1
    audit.check(world, account)


def test_all_is_the_same_behind_it(responder, build, bouncer, pooled, mode):
    server = responder(pooled, **through(bouncer, pooled, mode, WARMUP_WORKERS=8, WARMUP_DB_CONNECTIONS=4))
    cgi = Cgi(build / "warmup.fcgi", pooled.settings(**through(bouncer, pooled, mode)))
    accounts = [pooled.add_account(domain_id=pooled.add_domain()) for _ in range(16)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda account: pooled.retry(Raw(server), account), accounts))
    for account, answer in zip(accounts, answers):
        check_moved(pooled, account, answer)
        assert answer.json["account"]["email_domains"]["domain"] == "acme.com"
        assert pooled.retry(Raw(server), account).status == 409
    account = pooled.add_account()
    check_moved(pooled, account, pooled.retry(cgi, account))
    banned = pooled.add_account()
    with window(Raw(server), pooled, banned) as answer:
        pooled.execute("UPDATE accounts SET status = 'error', warmup_status = 'banned' WHERE id = %s", banned)
    assert answer.result().error["details"] == {"status": "error", "warmup_status": "banned"}
    check_log(cgi, pooled.secrets)
    assert '"level":"error"' not in server.log()
    assert server.stop()


def test_restart_of_it_between_gate_and_swap_goes_unnoticed(responder, bouncer, pooled, mode):
    server, account = responder(pooled, **through(bouncer, pooled, mode, WARMUP_DB_CONNECTIONS=2)), pooled.add_account()
    with window(Raw(server), pooled, account) as answer:
        bouncer.restart()
    check_moved(pooled, account, answer.result())
    assert server.stop()


def test_restart_of_the_server_behind_it_between_gate_and_swap(responder, bouncer, pooled, mode):
    """What it lends are connections that have gone; each costs a try."""
    server, account = responder(pooled, **through(bouncer, pooled, mode, WARMUP_DB_CONNECTIONS=2)), pooled.add_account()
    with window(Raw(server), pooled, account) as answer:
        pooled.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'warmup'"
                       " AND datname = current_database()")
    check_moved(pooled, account, answer.result())
    assert server.stop()


def test_it_is_away_and_comes_back(responder, bouncer, pooled, mode):
    server = responder(pooled, **through(bouncer, pooled, mode, WARMUP_DB_TIMEOUT_MS=500))
    account = pooled.add_account()
    bouncer.stop()
    check_unavailable(pooled.retry(Raw(server), account))
    assert (pooled.state(account), pooled.enables(account)) == (STUCK, 0)
    bouncer.start()
    check_moved(pooled, account, pooled.retry(Raw(server), account))
    late = pooled.add_account()
    with window(Raw(server), pooled, late) as answer:
        bouncer.stop()
    check_not_confirmed(answer.result())
    assert pooled.state(late) == STUCK
    bouncer.start()
    assert (pooled.retry(Raw(server), late).status, pooled.state(late)) == (200, WARMING)
    assert server.stop()


@contextlib.contextmanager
def taken(bouncer, world):
    """The one connection that it may have to the server is lent to somebody else."""
    with contextlib.closing(psycopg2.connect(bouncer.url(world.settings()["DATABASE_URL"]))) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")  # in a transaction that stays open
            yield


@pytest.mark.parametrize("limits", [{"query_wait_timeout": 1}, {"query_wait_timeout": 60}])
def test_no_connection_of_it_comes_free_in_time(responder, run_folder, pooled, mode, limits):
    """It says so itself, or keeps silent: 503 within our own limit either way."""
    with bouncer_before(pooled, run_folder, mode, default_pool_size=1, **limits) as bouncer:
        with taken(bouncer, pooled):
            server = responder(pooled, **through(bouncer, pooled, mode, WARMUP_DB_CONNECTIONS=1,
                                                 WARMUP_DB_TIMEOUT_MS=1500))
            account = pooled.add_account()
            answer, took = timed(pooled.retry, Raw(server), account)
            check_unavailable(answer)
            assert took < 1.5 + SLACK
            assert (pooled.state(account), pooled.enables(account)) == (STUCK, 0)
        check_moved(pooled, account, pooled.retry(Raw(server), account))
        # In session mode the responder's own connection keeps what it was lent.
        if mode == "transaction":
            late = pooled.add_account()
            with contextlib.ExitStack() as others, window(Raw(server), pooled, late) as answer:
                others.enter_context(taken(bouncer, pooled))
                pooled.sandbox.hold(pooled.address(late)).release()
                check_not_confirmed(answer.result(30))
                assert pooled.state(late) == STUCK
            assert (pooled.retry(Raw(server), late).status, pooled.state(late)) == (200, WARMING)
        assert server.stop()


def test_wrong_setting_for_its_mode_is_told_and_moves_nothing_twice(responder, run_folder, pooled):
    """Prepared statements and the transaction mode do not go together; what comes of it is a matter of luck."""
    with bouncer_before(pooled, run_folder, "transaction", default_pool_size=4) as bouncer:
        server = responder(pooled, **through(bouncer, pooled, "transaction", WARMUP_DB_PREPARED="on",
                                             WARMUP_DB_CONNECTIONS=4, WARMUP_WORKERS=8, WARMUP_DB_TIMEOUT_MS=1000))
        accounts = [pooled.add_account() for _ in range(24)]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda account: pooled.retry(Raw(server), account), accounts))
        assert {answer.status for answer in answers} <= {200, 500, 503}
        for account, answer in zip(accounts, answers):
            assert len(audit.moves(pooled, account)) == (pooled.state(account) == WARMING)
            assert pooled.state(account) == (WARMING if answer.status == 200 else STUCK)
            audit.check(pooled, account)
        if any(answer.status != 200 for answer in answers):
            assert "behind a pooler set WARMUP_DB_PREPARED=off" in server.log()
        assert server.process.alive() and server.stop()

"""Between Instantly's acceptance and the answer: whatever happens to the row or to the database, the row is moved at
most once, nothing of somebody else is overwritten, and the answer is true.
"""

import contextlib
import signal
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import stack
from conftest import SANITIZER_VARIABLES, STUCK, WARMING, check_log, wait_for
from test_database import QUICK, SLACK, Proxy, end_connections, private_world, session, start_again, timed, waiting
from test_transport import Raw, window

MESSAGE = "Warmup was enabled but failed to update account status"

# Every change of a state, in the order in which it became visible, and by whom.
AUDIT = """
CREATE TABLE audit (n serial, account uuid, by_whom text, from_state text[], to_state text[]);
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO audit (account, by_whom, from_state, to_state) VALUES (NEW.id, session_user,
        ARRAY[OLD.status::text, OLD.warmup_status::text], ARRAY[NEW.status::text, NEW.warmup_status::text]);
    RETURN NULL;
END $$;
CREATE TRIGGER audit AFTER UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION audit();
"""
NO_AUDIT = "DROP TRIGGER audit ON accounts; DROP FUNCTION audit; DROP TABLE audit"


def moves(world, account):
    """What the responder did to a row."""
    return [(tuple(old), tuple(new)) for old, new in world.execute(
        "SELECT from_state, to_state FROM audit WHERE account = %s AND by_whom = 'warmup' ORDER BY n", account)]


@pytest.fixture(scope="module", autouse=True)
def audited(shared_world):
    shared_world.execute(AUDIT)
    yield
    shared_world.execute(NO_AUDIT)


@pytest.fixture(scope="module")
def quick(build, run_folder, shared_world):
    """The responder by itself: for what cannot depend on how it is asked."""
    settings = {name: str(value) for name, value in shared_world.settings(**QUICK).items()}
    server = stack.Responder(run_folder / "responder-swap", build / "warmup.fcgi", {**SANITIZER_VARIABLES, **settings})
    with server:
        yield Raw(server)
        assert server.stop(), "the responder did not end by itself"
    check_log(server, shared_world.secrets)


@pytest.fixture
def audited_world(fresh_world):
    fresh_world.execute(AUDIT)
    return fresh_world


@pytest.fixture
def account(world):
    return world.add_account()


def set_state(where, account, *state):
    """By the administrator, or in somebody's transaction."""
    where.execute("UPDATE accounts SET status = %s, warmup_status = %s WHERE id = %s",
                  *([(*state, account)] if hasattr(where, "fetchall") else (*state, account)))


def check_moved(world, account, answer, times=1):
    """200 with the row as it is now; moved once; asked for once."""
    assert answer.status == 200, answer
    row, shown = world.account(account), answer.json["account"]
    assert (shown["status"], shown["warmup_status"]) == (row["status"], row["warmup_status"]) == WARMING
    assert shown["updated_at"].rstrip("Z") == row["updated_at"].partition("+")[0]
    assert moves(world, account) == [(STUCK, WARMING)] * times
    assert world.enables(account) == 1


def check_conflict(world, account, answer, *state):
    assert (answer.status, answer.error["code"]) == (409, "conflict")
    assert answer.error["message"] == (
        "The account was changed by someone else meanwhile; details show its present state")
    assert answer.error["details"] == dict(zip(("status", "warmup_status"), state))
    assert world.state(account) == state
    assert moves(world, account) == []
    assert world.enables(account) == 1


def check_not_confirmed(answer):
    assert answer.status == 500
    assert answer.error == {"code": "internal_error", "message": MESSAGE,
                            "request_id": answer.headers["x-request-id"], "details": {"upstream": "enabled"}}
    assert "retry-after" not in answer.headers


def check_stays(world, account, answer):
    """500; the row is untouched, and another retry would be let through."""
    check_not_confirmed(answer)
    assert (world.state(account), moves(world, account), world.enables(account)) == (STUCK, [], 1)


def check_gone(answer, address, world):
    assert (answer.status, answer.error["code"]) == (404, "not_found")
    assert answer.error["message"] == "No such email account"
    assert "details" not in answer.error
    assert len(world.sandbox.enables(address)) == 1


# --- the row is changed meanwhile ----------------------------------------------------------------

@pytest.mark.parametrize("state", [WARMING, ("error", "banned")])
def test_row_moved_meanwhile_answers_409_with_its_present_state(host, world, account, state):
    with window(host, world, account) as answer:
        set_state(world, account, *state)
    check_conflict(world, account, answer.result(), *state)


@pytest.mark.parametrize("state", [("active", "warmed"), ("pending", "suspended"), ("paused", "not_started"),
                                   ("pending", ""), ("warming", "not_started"), ("pending", "warming")])
def test_any_other_state_found_meanwhile_is_a_conflict(quick, world, account, state):
    with window(quick, world, account) as answer:
        set_state(world, account, *state)
    check_conflict(world, account, answer.result(), *state)


def test_warmup_status_that_vanished_meanwhile_is_a_conflict(quick, world, account):
    with window(quick, world, account) as answer:
        set_state(world, account, "pending", None)
    check_conflict(world, account, answer.result(), "pending", None)


@pytest.mark.parametrize("state", [WARMING, ("error", "banned")])
def test_row_moved_while_the_swap_waits_for_it_answers_409_with_its_present_state(host, world, account, state):
    with session(world) as other:
        with window(host, world, account) as answer:
            set_state(other, account, *state)
            world.sandbox.hold(world.address(account)).release()
            waiting(world)
            other.connection.commit()
        check_conflict(world, account, answer.result(), *state)


def test_row_let_go_while_the_swap_waits_for_it_is_moved(host, world, account):
    with session(world) as other:
        with window(host, world, account) as answer:
            set_state(other, account, "error", "banned")
            world.sandbox.hold(world.address(account)).release()
            waiting(world)
            other.connection.rollback()
        check_moved(world, account, answer.result())


def test_row_deleted_meanwhile_answers_404(host, world, account):
    address = world.address(account)
    with window(host, world, account) as answer:
        world.execute("DELETE FROM accounts WHERE id = %s", account)
    check_gone(answer.result(), address, world)


def test_row_deleted_while_the_swap_waits_for_it_answers_404(quick, world, account):
    address = world.address(account)
    with session(world) as other:
        with window(quick, world, account) as answer:
            other.execute("DELETE FROM accounts WHERE id = %s", (account,))
            world.sandbox.hold(address).release()
            waiting(world)
            other.connection.commit()
    check_gone(answer.result(), address, world)


@pytest.mark.parametrize("state", [STUCK, WARMING, ("error", "banned")])
def test_row_given_to_another_owner_meanwhile_answers_404_and_tells_nothing(quick, world, account, state):
    other, address = str(uuid.uuid4()), world.address(account)
    with window(quick, world, account) as answer:
        world.execute("UPDATE accounts SET user_id = %s, status = %s, warmup_status = %s,"
                      " email_address = 'theirs@x.example', agentmail_inbox_id = 'theirs' WHERE id = %s",
                      other, *state, account)
    answer = answer.result()
    check_gone(answer, address, world)
    assert not any(text in answer.body for text in (other.encode(), b"theirs", state[1].encode()))
    assert (world.state(account), moves(world, account)) == (state, [])


def test_row_that_became_another_type_meanwhile_answers_404(quick, world, account):
    with window(quick, world, account) as answer:
        world.execute("UPDATE accounts SET type = 'linkedin' WHERE id = %s", account)
    check_gone(answer.result(), world.address(account), world)
    assert world.state(account) == STUCK


def test_row_moved_away_and_back_meanwhile_is_moved(quick, world, account):
    with window(quick, world, account) as answer:
        set_state(world, account, *WARMING)
        set_state(world, account, "error", "banned")
        set_state(world, account, *STUCK)
    check_moved(world, account, answer.result())


def test_answer_shows_what_else_changed_meanwhile(quick, world, account):
    domain = world.add_domain(domain="new.example")
    with window(quick, world, account) as answer:
        world.execute("UPDATE accounts SET daily_limit = 7, agentmail_inbox_id = 'inb', domain_id = %s WHERE id = %s",
                      domain, account)
    check_moved(world, account, answer.result())
    shown = answer.result().json["account"]
    assert (shown["daily_limit"], shown["agentmail_inbox_id"]) == (7, "inb")
    assert shown["email_domains"] == {"id": domain, "domain": "new.example", "status": "verified"}


def test_swap_changes_three_columns_of_one_row(host, world):
    accounts = [world.add_account(daily_limit=5, agentmail_inbox_id="inb", updated_at="2020-01-01T00:00:00Z")
                for _ in range(3)]
    before = [world.account(account) for account in accounts]
    check_moved(world, accounts[1], world.retry(host, accounts[1]))
    after = [world.account(account) for account in accounts]
    changed = {name for name in before[1] if before[1][name] != after[1][name]}
    assert changed == {"status", "warmup_status", "updated_at"}
    assert (before[0], before[2]) == (after[0], after[2])
    assert after[1]["updated_at"] > "2020-01-02"


# --- the row cannot be written -------------------------------------------------------------------

def on_update(world, account, body, timing="BEFORE", declare="TRIGGER"):
    """A trigger of one account only, so that it may stay in a shared database."""
    name = "t_" + stack.secrets.token_hex(4)
    world.execute(f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
                  f" $$ BEGIN {body} END $$")
    deferred = "DEFERRABLE INITIALLY DEFERRED" if declare == "CONSTRAINT TRIGGER" else ""
    world.execute(f"CREATE {declare} {name} {timing} UPDATE ON accounts {deferred} FOR EACH ROW"
                  f" WHEN (OLD.id = '{account}') EXECUTE FUNCTION {name}()")
    return name


# The body of a trigger, when it runs, and what kind it is.
VETOES = {
    "raises": ("RAISE EXCEPTION 'no: %% and a secret', NEW.email_address;", "BEFORE", "TRIGGER"),
    "raises-after": ("RAISE EXCEPTION 'no';", "AFTER", "TRIGGER"),
    "swallows": ("RETURN NULL;", "BEFORE", "TRIGGER"),
    "raises-at-commit": ("RAISE EXCEPTION 'no';", "AFTER", "CONSTRAINT TRIGGER"),
    "violates-at-commit": ("RAISE unique_violation;", "AFTER", "CONSTRAINT TRIGGER"),
    "statement-timeout": ("RAISE query_canceled;", "BEFORE", "TRIGGER"),
    "lock-timeout": ("RAISE lock_not_available;", "BEFORE", "TRIGGER"),
    "disk-full": ("RAISE disk_full;", "BEFORE", "TRIGGER"),
}


@pytest.mark.parametrize("veto", VETOES)
def test_vetoed_write_answers_500_and_leaves_the_row(quick, world, account, veto):
    name = on_update(world, account, *VETOES[veto])
    answer = world.retry(quick, account)
    world.execute(f"DROP FUNCTION {name} CASCADE")
    check_stays(world, account, answer)


@pytest.mark.parametrize("state", [("error", "banned"), ("warming", "warmed"), ("pending", "warming"), STUCK])
def test_write_that_became_another_state_answers_500(quick, world, account, state):
    on_update(world, account, f"NEW.status := '{state[0]}'; NEW.warmup_status := '{state[1]}'; RETURN NEW;")
    check_not_confirmed(world.retry(quick, account))
    assert (world.state(account), world.enables(account)) == (state, 1)


# What forbids the write, and whether the load is let through.
FORBIDDEN = {
    "privilege": "REVOKE UPDATE (status, warmup_status, updated_at) ON accounts FROM warmup_responder",
    "privilege-on-a-column": "REVOKE UPDATE (updated_at) ON accounts FROM warmup_responder",
    "check-constraint": "ALTER TABLE accounts ADD CHECK (status <> 'warming')",
    "unique-index": "INSERT INTO accounts (user_id, status) VALUES (gen_random_uuid(), 'warming');"
                    " CREATE UNIQUE INDEX ON accounts (status)",
    "row-security": "ALTER TABLE accounts ENABLE ROW LEVEL SECURITY;"
                    " CREATE POLICY p ON accounts FOR SELECT USING (true)",
    "row-security-on-the-new-row": "ALTER TABLE accounts ENABLE ROW LEVEL SECURITY;"
                                   " CREATE POLICY p ON accounts FOR SELECT USING (true); CREATE POLICY q ON accounts"
                                   " FOR UPDATE USING (true) WITH CHECK (status <> 'warming')",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_forbidden_write_answers_500_and_leaves_the_row(responder, audited_world, what):
    world = audited_world
    account = world.add_account()
    server = responder(world, WARMUP_WORKERS=2, WARMUP_DB_CONNECTIONS=1, **QUICK)
    with window(Raw(server), world, account) as answer:
        world.execute(FORBIDDEN[what])
    check_stays(world, account, answer.result())
    assert answer.result().headers["x-request-id"] in server.log()
    assert server.process.alive()


def test_reading_that_becomes_forbidden_after_the_swap_answers_500(serve, fresh_world):
    world = fresh_world
    account = world.add_account()
    on_update(world, account, "REVOKE SELECT ON accounts FROM warmup_responder; RETURN NULL;")
    check_not_confirmed(world.retry(serve(world, **QUICK), account))
    assert (world.state(account), world.enables(account)) == (STUCK, 1)


def test_limit_of_the_database_itself_answers_500(serve, audited_world):
    world = audited_world
    for name in ("lock_timeout", "statement_timeout"):
        world.execute(f"ALTER DATABASE {world.name} RESET ALL")
        world.execute(f"ALTER DATABASE {world.name} SET {name} = '200ms'")
        host, account = serve(world, WARMUP_DB_CONNECTIONS=1, **QUICK), world.add_account()
        with session(world) as other:
            other.execute("SELECT FROM accounts WHERE id = %s FOR UPDATE", (account,))
            answer, took = timed(world.retry, host, account)
            assert took < 0.2 + SLACK
        check_stays(world, account, answer)
        again = world.retry(host, account)
        assert (again.status, moves(world, account)) == (200, [(STUCK, WARMING)])


def test_row_locked_for_longer_than_the_limit_answers_500_and_is_moved_at_most_once(serve, world, account):
    host = serve(world, WARMUP_DB_TIMEOUT_MS=500, **QUICK)
    with session(world) as other:
        other.execute("SELECT FROM accounts WHERE id = %s FOR UPDATE", (account,))
        answer, took = timed(world.retry, host, account)
        assert 0.4 < took < 0.5 + SLACK
        check_stays(world, account, answer)
    # What was given up may still run on the server, if it is not told to end it: then it counts as any other writer.
    again = world.retry(host, account)
    assert again.status in (200, 409)
    assert (world.state(account), moves(world, account)) == (WARMING, [(STUCK, WARMING)])


# --- what may succeed when repeated --------------------------------------------------------------

def fail_first(world, account, times, sqlstate, timing="BEFORE", declare="TRIGGER"):
    """A trigger that fails so many times; a sequence counts, since it survives what is rolled back."""
    sequence = "s_" + stack.secrets.token_hex(4)
    world.execute(f"CREATE SEQUENCE {sequence}")
    on_update(world, account, f"IF nextval('{sequence}') <= {times} THEN RAISE EXCEPTION 'again'"
                              f" USING ERRCODE = '{sqlstate}'; END IF; RETURN NEW;", timing, declare)
    return lambda: world.execute(f"SELECT last_value FROM {sequence}")[0][0]


# 40003 is a statement whose outcome the server itself does not know.
@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "40003"])
def test_rolled_back_swap_is_repeated(quick, world, account, sqlstate):
    tries = fail_first(world, account, 2, sqlstate)
    check_moved(world, account, world.retry(quick, account))
    assert tries() == 3


def test_swap_rolled_back_at_commit_is_repeated(quick, world, account):
    tries = fail_first(world, account, 1, "40001", "AFTER", "CONSTRAINT TRIGGER")
    check_moved(world, account, world.retry(quick, account))
    assert tries() == 2


def test_swap_that_is_always_rolled_back_ends_within_the_limit_without_a_storm(serve, world, account):
    host = serve(world, WARMUP_DB_TIMEOUT_MS=400, **QUICK)
    tries = fail_first(world, account, 1_000_000, "40001")
    answer, took = timed(world.retry, host, account)
    check_stays(world, account, answer)
    assert 0.3 < took < 0.4 + SLACK
    assert 3 <= tries() <= 12


def test_isolation_level_of_the_database_changes_nothing(serve, audited_world):
    world = audited_world
    for level in ("repeatable read", "serializable"):
        world.execute(f"ALTER DATABASE {world.name} SET default_transaction_isolation = '{level}'")
        host = serve(world, WARMUP_DB_CONNECTIONS=2, **QUICK)
        plain, banned, freed = (world.add_account() for _ in range(3))
        check_moved(world, plain, world.retry(host, plain))
        for account, end in ((banned, "commit"), (freed, "rollback")):
            with session(world) as other, window(host, world, account) as answer:
                set_state(other, account, "error", "banned")
                world.sandbox.hold(world.address(account)).release()
                waiting(world)
                getattr(other.connection, end)()
            if end == "commit":
                check_conflict(world, account, answer.result(), "error", "banned")
            else:
                check_moved(world, account, answer.result())


def test_read_only_server_is_asked_again_until_it_is_writable(serve, audited_world):
    world = audited_world
    host, first, second = serve(world, WARMUP_DB_TIMEOUT_MS=4000, **QUICK), world.add_account(), world.add_account()

    def switch(value):
        world.execute(f"ALTER DATABASE {world.name} SET default_transaction_read_only = {value}")
        end_connections(world)

    with window(host, world, first) as answer:
        switch("on")
        world.sandbox.hold(world.address(first)).release()
        time.sleep(0.2)
        # This session is read-only neither: it is older.
        world.execute(f"ALTER DATABASE {world.name} SET default_transaction_read_only = off")
    check_moved(world, first, answer.result())
    assert "read-only" in host.log()
    switch("off")
    check_moved(world, second, world.retry(host, second))


# --- connections that end ------------------------------------------------------------------------

def test_connections_ended_between_gate_and_swap_are_replaced(host, world, account):
    with window(host, world, account) as answer:
        end_connections(world)
    check_moved(world, account, answer.result())


def test_connection_ended_while_the_swap_waits_is_replaced(quick, world, account):
    with session(world) as other, window(quick, world, account) as answer:
        other.execute("SELECT FROM accounts WHERE id = %s FOR UPDATE", (account,))
        world.sandbox.hold(world.address(account)).release()
        for _ in range(2):
            waiting(world)
            end_connections(world)
        waiting(world)
        other.connection.rollback()
    check_moved(world, account, answer.result())


def test_stopped_server_process_is_given_up_and_moves_nothing_later(serve, world, account):
    host, stopped = serve(world, WARMUP_DB_TIMEOUT_MS=1200, **QUICK), None
    try:
        with session(world) as other, window(host, world, account) as answer:
            other.execute("SELECT FROM accounts WHERE id = %s FOR UPDATE", (account,))
            world.sandbox.hold(world.address(account)).release()
            stopped = waiting(world)[0]
            stack.os.kill(stopped, signal.SIGSTOP)
            other.connection.rollback()
        check_moved(world, account, answer.result())
    finally:
        if stopped:
            stack.os.kill(stopped, signal.SIGCONT)
    wait_for(lambda: not world.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", stopped))
    assert moves(world, account) == [(STUCK, WARMING)]


@pytest.mark.parametrize("lost", ["before", "after", "rows"])
def test_connection_cut_around_the_swap_moves_the_row_once(serve, world, account, lost):
    """Before it arrived; after it was done, its reply unseen; after its rows were seen, but not that it was done."""
    with Proxy(world) as proxy:
        host = serve(world, **proxy.settings)

        def cut(connection):
            if lost != "before":
                connection.forward()
                reply = connection.reply()
                assert b"Z\0\0\0\x05I" in reply
                if lost == "rows":
                    connection.client.sendall(reply[:reply.index(b"C\0\0\0")])
                    time.sleep(0.1)
            connection.cut()

        proxy.on["swap"] = [cut]
        check_moved(world, account, world.retry(host, account))
        assert proxy.seen == ["load", "swap", "swap"] + ([] if lost == "before" else ["read"])
        host.stop()


def test_swap_and_reading_again_may_each_be_cut_and_the_answer_is_still_right(serve, world, account):
    with Proxy(world) as proxy:
        host = serve(world, **proxy.settings)

        def done_but_cut(connection):
            connection.forward()
            connection.reply()
            connection.cut()

        proxy.on["swap"] = [Proxy.Connection.cut, done_but_cut, done_but_cut]
        proxy.on["read"] = [Proxy.Connection.cut, done_but_cut]
        check_moved(world, account, world.retry(host, account))
        host.stop()


@pytest.mark.parametrize("state", [("error", "banned"), ("active", "warmed")])
def test_row_moved_on_after_an_unseen_commit_answers_409_with_its_present_state(serve, world, account, state):
    with Proxy(world) as proxy:
        host = serve(world, **proxy.settings)

        def moved_on(connection):
            connection.forward()
            connection.reply()
            set_state(world, account, *state)
            connection.cut()

        proxy.on["swap"] = [moved_on]
        answer = world.retry(host, account)
        assert (answer.status, answer.error["details"]["warmup_status"]) == (409, state[1])
        assert (world.state(account), moves(world, account), world.enables(account)) == (state, [(STUCK, WARMING)], 1)
        host.stop()


def test_row_moved_by_another_before_the_cut_swap_arrived_counts_as_moved(serve, world, account):
    """Whose move it was cannot be known then, and it is where it was wanted."""
    with Proxy(world) as proxy:
        host = serve(world, **proxy.settings)

        def moved_by_another(connection):
            set_state(world, account, *WARMING)
            connection.cut()

        proxy.on["swap"] = [moved_by_another]
        answer = world.retry(host, account)
        assert (answer.status, world.state(account), moves(world, account)) == (200, WARMING, [])
        host.stop()


def test_row_deleted_after_an_unseen_commit_answers_404(serve, world, account):
    address = world.address(account)
    with Proxy(world) as proxy:
        host = serve(world, **proxy.settings)

        def deleted(connection):
            connection.forward()
            connection.reply()
            world.execute("DELETE FROM accounts WHERE id = %s", account)
            connection.cut()

        proxy.on["swap"] = [deleted]
        check_gone(world.retry(host, account), address, world)
        host.stop()


def test_unseen_commit_that_cannot_be_read_again_answers_500_and_the_next_retry_409(serve, world, account):
    with Proxy(world) as proxy:
        host = serve(world, **proxy.settings, WARMUP_DB_TIMEOUT_MS=500, WARMUP_DB_CONNECTIONS=1)

        def last_word(connection):
            connection.forward()
            connection.reply()
            proxy.down = True
            connection.cut()

        proxy.on["swap"] = [last_word]
        answer, took = timed(world.retry, host, account)
        check_not_confirmed(answer)
        assert 0.4 < took < 0.5 + SLACK
        assert (world.state(account), moves(world, account)) == (WARMING, [(STUCK, WARMING)])
        assert proxy.refused < 20
        proxy.down = False
        again = world.retry(host, account)
        assert (again.status, world.enables(account)) == (409, 1)
        host.stop()


def test_swap_whose_reply_never_comes_is_given_up_and_read_again(serve, world, account):
    with Proxy(world) as proxy:
        host = serve(world, **proxy.settings, WARMUP_DB_TIMEOUT_MS=1000)

        def silent(connection):
            connection.forward()
            connection.reply()
            connection.hold()

        proxy.on["swap"] = [silent]
        answer, took = timed(world.retry, host, account)
        check_moved(world, account, answer)
        assert took < 1 + SLACK
        host.stop()


def test_database_that_only_holds_the_swap_answers_500_within_the_limit(serve, world, account):
    with Proxy(world) as proxy:
        host = serve(world, **proxy.settings, WARMUP_DB_TIMEOUT_MS=400)
        proxy.on["swap"] = [Proxy.Connection.hold] * 50
        answer, took = timed(world.retry, host, account)
        check_stays(world, account, answer)
        assert 0.3 < took < 0.4 + SLACK
        proxy.on["swap"] = []
        again = world.retry(host, account)
        assert (again.status, moves(world, account)) == (200, [(STUCK, WARMING)])
        host.stop()


# --- a server that goes away ---------------------------------------------------------------------

@pytest.fixture(scope="module")
def own(run_folder, build, sandbox):
    # Able to wait for a standby that does not exist.
    settings = {"wal_level": "replica", "max_wal_senders": 2, "synchronous_commit": "on"}
    with private_world(run_folder / "postgres-swap", build, sandbox, settings) as world:
        world.execute(AUDIT)
        yield world


def test_server_that_stops_and_stays_away_answers_500_within_the_limit(serve, own):
    host, account = serve(own, WARMUP_DB_TIMEOUT_MS=500, **QUICK), own.add_account()
    try:
        with window(host, own, account) as answer:
            own.postgres.stop("immediate")
            begun = time.monotonic()
        check_not_confirmed(answer.result())
        assert 0.4 < time.monotonic() - begun < 0.5 + SLACK
    finally:
        start_again(own)
    assert (own.state(account), moves(own, account), own.enables(account)) == (STUCK, [], 1)
    again = own.retry(host, account)
    assert (again.status, moves(own, account)) == (200, [(STUCK, WARMING)])


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_server_that_comes_back_within_the_limit_answers_200(serve, own, mode):
    host, account = serve(own, WARMUP_DB_TIMEOUT_MS=15000, **QUICK), own.add_account()
    address = own.address(account)
    with window(host, own, account) as answer:
        own.postgres.stop(mode)
        own.sandbox.hold(address).release()
        time.sleep(0.2)
        start_again(own)
    check_moved(own, account, answer.result())


def test_server_that_accepts_and_says_nothing_answers_500_within_the_limit(serve, own):
    host, account = serve(own, WARMUP_DB_TIMEOUT_MS=500, WARMUP_DB_CONNECTIONS=1, **QUICK), own.add_account()
    try:
        with window(host, own, account) as answer:
            end_connections(own)
            own.postgres.pause()
            begun = time.monotonic()
        check_not_confirmed(answer.result())
        assert 0.4 < time.monotonic() - begun < 0.5 + SLACK
    finally:
        own.postgres.resume()
    assert own.retry(host, account).status == 200
    assert moves(own, account) == [(STUCK, WARMING)]


@contextlib.contextmanager
def no_standby(world):
    """Commits wait for a standby that does not come, whatever statement_timeout says."""
    world.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    world.execute("SELECT pg_reload_conf()")
    wait_for(lambda: world.execute("SHOW synchronous_standby_names") == [("nobody",)])
    world.execute("SET synchronous_commit = 'local'")
    try:
        yield
    finally:
        world.execute("ALTER SYSTEM RESET synchronous_standby_names")
        world.execute("SELECT pg_reload_conf()")
        wait_for(lambda: world.execute("SHOW synchronous_standby_names") == [("",)])


def committing(world):
    """The server processes that are done but for the standby's word."""
    return [pid for pid, in world.execute("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'")]


def test_commit_that_waits_for_a_standby_answers_500_within_the_limit(serve, own):
    host, account = serve(own, WARMUP_DB_TIMEOUT_MS=500, **QUICK), own.add_account()
    with no_standby(own):
        answer, took = timed(own.retry, host, account)
        check_not_confirmed(answer)
        assert 0.4 < took < 0.5 + SLACK
        assert committing(own)
    wait_for(lambda: own.state(account) == WARMING)
    assert (moves(own, account), own.enables(account)) == ([(STUCK, WARMING)], 1)
    assert own.retry(host, account).status == 409


def test_commit_ended_while_it_waits_for_a_standby_answers_200(serve, own):
    """The row is moved, but the connection says only that it has ended."""
    host, account = serve(own, WARMUP_DB_TIMEOUT_MS=10000, **QUICK), own.add_account()
    with no_standby(own), ThreadPoolExecutor(1) as pool:
        answer = pool.submit(own.retry, host, account)
        wait_for(lambda: committing(own))
        for pid in committing(own):
            own.execute("SELECT pg_terminate_backend(%s, 5000)", pid)
        check_moved(own, account, answer.result(20))

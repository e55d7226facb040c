"""The connection to PostgreSQL fails at every single message of a request, in every way, once and for good.

What a request exchanges is first watched, then broken at the first message, at the second, and so on to the last: so
there is no place where a connection may break that is not tried.
"""

import time

import pytest
import stack
from conftest import SANITIZER_VARIABLES, STUCK, WARMING, Cgi, check_log, wait_for
from faults import audit
from faults.proxies import CLIENT, SERVER, Hold, PgProxy, after, call, cut, reset, stall
from test_database import QUICK, SLACK, check_unavailable
from test_swap import check_not_confirmed
from test_transport import Raw

LIMIT_MS = 250

# What is done to a message; what is lost for good is cut.
WAYS = {"cut": cut, "reset": reset, "after-cut": after(cut), "after-3-cut": after(3, cut), "after-reset": after(reset)}


@pytest.fixture(scope="module")
def audited(shared_world):
    audit.install(shared_world)
    yield shared_world
    audit.remove(shared_world)


@pytest.fixture(scope="module")
def proxy(postgres):
    with PgProxy(postgres.port) as proxy:
        yield proxy


@pytest.fixture(scope="module", params=["cgi", "fastcgi"])
def host(request, build, run_folder, proxy, audited):
    """One connection: as CGI made for the request, as FastCGI there already."""
    settings = audited.settings(DATABASE_URL=proxy.url(audited.settings()["DATABASE_URL"]), WARMUP_WORKERS=1,
                                WARMUP_DB_CONNECTIONS=1, WARMUP_DB_TIMEOUT_MS=LIMIT_MS, **QUICK)
    settings = {**SANITIZER_VARIABLES, **{name: str(value) for name, value in settings.items()}}
    if request.param == "cgi":
        host = Cgi(build / "warmup.fcgi", settings)
        yield host
    else:
        with stack.Responder(run_folder / "responder-messages", build / "warmup.fcgi", settings) as server:
            host = Raw(server)
            yield host
            assert server.stop(), "the responder did not end by itself"
    check_log(host, audited.secrets)


@pytest.fixture(autouse=True)
def without_rules(proxy):
    yield
    proxy.clear()


def get_ready(host, proxy):
    """As FastCGI a connection that is idle, whatever became of the one before; as CGI none."""
    proxy.clear()
    if host.kind == "fastcgi":
        wait_for(lambda: host.request("GET", "/healthz").status == 200)
    else:
        wait_for(lambda: not proxy.connections)


def phase_of(message):
    """To which part of a request a message belongs."""
    for phase, mark in (("load", b"FROM api_keys"), ("swap", b"UPDATE accounts"), ("read", b"FROM accounts")):
        if mark in message.about:
            return phase
    return "connect"


@pytest.fixture(scope="module")
def script(host, proxy, audited):
    """(direction, name, phase) of each message of a request that goes well."""
    get_ready(host, proxy)
    seen = []
    proxy.on(None, None, call(seen.append), always=True)
    account = audited.add_account()
    assert audited.retry(host, account).status == 200
    if host.kind == "cgi":
        wait_for(lambda: not proxy.connections)
    proxy.clear()
    found = [(message.direction, message.name, phase_of(message)) for message in seen]
    assert [name for direction, name, phase in found if phase == "swap" and direction == SERVER][-3:] == [
        "DataRow", "CommandComplete", "ReadyForQuery"]
    return found


def places(script):
    """The numbers of the messages at which it is to break, with what is there. Nothing depends on the last word, which
    comes after the answer; and of a dozen ParameterStatus in a row one is enough."""
    return [(number, *message) for number, message in enumerate(script, 1)
            if message[1] != "Terminate" and message != (script[number:] + [None])[0]]


def check_one_move(world, account, enables=1):
    assert (world.state(account), world.enables(account)) == (WARMING, enables)
    assert len(audit.moves(world, account)) == 1
    audit.check(world, account)


def retry_from(world, host, proxy, number, action, **conditions):
    """A retry during which the rule acts on the message of that number. Its answer, the account, the rule."""
    get_ready(host, proxy)
    account = world.add_account()
    rule = proxy.on(None, None, action, nth=number, **conditions)
    return world.retry(host, account), account, rule


@pytest.mark.parametrize("way", WAYS)
def test_connection_that_breaks_at_any_message_costs_at_most_a_503(host, proxy, audited, script, way):
    world = audited
    for number, direction, name, phase in places(script):
        answer, account, rule = retry_from(world, host, proxy, number, WAYS[way])
        where = (number, direction, name, phase, answer)
        assert rule.fired == 1, where
        # Where there is no connection at all, there is nothing to fall back on before the call.
        if phase == "connect" and answer.status != 200:
            check_unavailable(answer)
            assert (world.state(account), world.enables(account)) == (STUCK, 0), where
            answer = world.retry(host, account)
        assert answer.status == 200, where
        check_one_move(world, account)


def test_connection_that_falls_silent_at_any_message_is_given_up_in_time(host, proxy, audited, script):
    """Before the call the time is over then: 503. After it there is time for a second try: 200."""
    world = audited
    for number, direction, name, phase in places(script):
        begun = time.monotonic()
        answer, account, rule = retry_from(world, host, proxy, number, stall)
        where = (number, direction, name, phase, answer, time.monotonic() - begun)
        assert rule.fired == 1 and time.monotonic() - begun < 2 * LIMIT_MS / 1000 + SLACK, where
        if phase == "swap":
            assert answer.status == 200, where
        else:
            check_unavailable(answer)
            assert (world.state(account), world.enables(account)) == (STUCK, 0), where
            get_ready(host, proxy)
            assert world.retry(host, account).status == 200, where
        check_one_move(world, account)


@pytest.mark.parametrize("way", ["cut", "after-cut"])
def test_connections_that_break_from_some_message_on_lose_nothing(host, proxy, audited, script, way):
    """For good, as far as this request goes. The next one finds what this one left, and puts it right."""
    world = audited
    for number, direction, name, phase in places(script):
        begun = time.monotonic()
        answer, account, rule = retry_from(world, host, proxy, number, WAYS[way], always=True)
        where = (number, direction, name, phase, answer)
        assert time.monotonic() - begun < 2 * LIMIT_MS / 1000 + SLACK, where
        assert rule.fired >= 1 and rule.fired < 60, where
        if answer.status == 503:
            assert phase != "swap", where
            assert (world.state(account), world.enables(account)) == (STUCK, 0), where
        elif answer.status == 500:
            check_not_confirmed(answer)
            assert world.enables(account) == 1, where
            assert phase == "swap" or (name, way) == ("ReadyForQuery", "after-cut"), where  # the load went well
        else:  # the last messages of the swap that went well
            assert (answer.status, phase, name, way) == (200, "swap", "ReadyForQuery", "after-cut"), where
        audit.check(world, account)
        moved = world.state(account) == WARMING
        get_ready(host, proxy)
        assert world.retry(host, account).status == (409 if moved else 200), where
        check_one_move(world, account, enables=1 if moved or answer.status == 503 else 2)


@pytest.mark.parametrize("name, committed", [("Bind", False), ("Sync", False), ("CommandComplete", True)])
def test_swap_that_is_cut_is_asked_for_once_and_moved_once(host, proxy, audited, name, committed):
    """C03 and C06 by name: after the commit and unseen; before it arrived."""
    world = audited
    get_ready(host, proxy)
    account = world.add_account()
    states = []
    rule = proxy.on(SERVER if committed else CLIENT, name, call(lambda _: states.append(world.state(account)), cut),
                    about=b"UPDATE accounts")
    assert world.retry(host, account).status == 200
    assert (rule.fired, states) == (1, [WARMING if committed else STUCK])
    check_one_move(world, account)


def test_swap_that_arrives_late_undoes_nothing(host, proxy, audited):
    """The network kept it back, another try moved the row, and then somebody else changed it."""
    world, hold = audited, Hold()
    get_ready(host, proxy)
    account = world.add_account()
    proxy.on(CLIENT, None, hold, about=b"UPDATE accounts")  # its first message; the others wait behind it
    assert world.retry(host, account).status == 200
    assert hold.arrived.is_set()
    late = list(proxy.connections)
    world.execute("UPDATE accounts SET status = 'error', warmup_status = 'banned' WHERE id = %s", account)
    swaps = proxy.counts[CLIENT, "Execute"]
    hold.release()
    wait_for(lambda: proxy.counts[CLIENT, "Execute"] == swaps + 1, what="the late swap")
    wait_for(lambda: any(connection.closed.is_set() for connection in late))
    wait_for(lambda: not world.execute("SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND usename = 'warmup'"
                                       " AND datname = current_database()"))
    assert world.state(account) == ("error", "banned")
    assert len(audit.moves(world, account)) == 1
    audit.check(world, account)

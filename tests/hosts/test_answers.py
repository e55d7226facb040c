"""What the responder answers arrives, whole and unchanged, through every web server; and nothing else gets to it."""

import concurrent.futures
import http.client
import stat
import uuid

import pytest
import stack

from conftest import ROUTE, STUCK, WARMING, Cgi
from hosts.conftest import SERVERS_OWN

KIB = 1024


def assert_ours(answer, status, **headers):
    """JSON from the responder, with its headers to the letter."""
    assert answer.status == status, answer
    wanted = {"content-type": "application/json; charset=utf-8", "cache-control": "no-store",
              "x-content-type-options": "nosniff", **{name.replace("_", "-"): value for name, value in headers.items()}}
    assert {name: answer.headers.get(name) for name in wanted} == wanted
    # Behind Apache the length may become chunks.
    assert answer.headers.get("content-length") in (None, str(len(answer.body)))
    if status >= 400:
        assert answer.error["request_id"] == answer.headers["x-request-id"]
    return answer


def untouched(world, account):
    return (world.state(account), world.enables(account)) == (STUCK, 0)


# --- what the responder answers ------------------------------------------------------------------

def test_stuck_account_answers_200_then_409(served, world):
    account = world.add_account(domain_id=world.add_domain(), agentmail_inbox_id="inb_abc123", daily_limit=50)
    answer = assert_ours(world.retry(served, account, headers={"X-Request-Id": "from-the-caller"}), 200)
    assert answer.headers["x-request-id"] == "from-the-caller"
    assert (answer.json["account"]["id"], answer.json["account"]["email_domains"]["domain"]) == (account, "acme.com")
    assert (world.state(account), world.enables(account)) == (WARMING, 1)
    answer = assert_ours(world.retry(served, account), 409)
    assert answer.error["details"] == {"status": "warming", "warmup_status": "warming"}
    assert world.enables(account) == 1


def test_health_answers_200(served):
    answer = assert_ours(served.request("GET", served.health), 200)
    assert answer.body == b'{"status":"ok"}'


def test_head_has_the_headers_and_no_body(served):
    answer = served.request("HEAD", served.health)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-type"] == "application/json; charset=utf-8"


def test_bad_id_answers_400(served, world):
    assert_ours(world.retry(served, "42"), 400)


@pytest.mark.parametrize("bearer", [
    None, "", "Bearer", "Basic eDp5", "Bearer pk_live_" + "0" * 64, "Bearer a, Bearer b", "Bearer " + "x" * 7000],
    ids=["none", "empty", "no-token", "basic", "unknown", "two", "long"])
def test_no_good_key_answers_401(served, world, bearer):
    account = world.add_account()
    answer = served.request("PATCH", ROUTE.format(account), {} if bearer is None else {"Authorization": bearer})
    assert_ours(answer, 401, www_authenticate="Bearer")
    assert untouched(world, account)


def test_scheme_may_be_in_any_case_and_spaced(served, world):
    account = world.add_account()
    answer = served.request("PATCH", ROUTE.format(account), {"Authorization": f"bEARER   {world.key}"})
    assert_ours(answer, 200)


def test_other_names_of_the_header_do_not_count(served, world):
    account = world.add_account()
    answer = served.request("PATCH", ROUTE.format(account), {
        "Redirect-Http-Authorization": f"Bearer {world.key}", "Http-Authorization": f"Bearer {world.key}"})
    assert_ours(answer, 401)
    assert untouched(world, account)


def test_absent_account_answers_404(served, world):
    assert_ours(world.retry(served, uuid.uuid4()), 404)


def test_other_method_answers_405(served, world):
    answer = served.request("POST", ROUTE.format(uuid.uuid4()), world.bearer())
    assert_ours(answer, 405, allow="PATCH, OPTIONS")


def test_options_answers_204_with_allow(served):
    for path, allow in ((ROUTE.format(uuid.uuid4()), "PATCH, OPTIONS"), (served.health, "GET, HEAD, OPTIONS")):
        answer = served.request("OPTIONS", path)
        assert (answer.status, answer.body, answer.headers["allow"]) == (204, b"", allow)


def test_large_body_answers_413(served, world):
    assert_ours(world.retry(served, uuid.uuid4(), body=b"x" * (64 * KIB + 1)), 413)
    assert_ours(world.retry(served, uuid.uuid4(), body=b"x" * served.server.body_kib * KIB), 413)


def test_large_body_with_a_bad_key_gets_its_401(served, world):
    """A server that is not rid of the body may lose the answer."""
    answer = world.retry(served, uuid.uuid4(), key="pk_live_" + "0" * 64, body=b"x" * served.server.body_kib * KIB)
    assert_ours(answer, 401, www_authenticate="Bearer")


def test_body_beyond_the_limit_of_the_server_is_refused(served, world):
    account = world.add_account()
    try:
        assert world.retry(served, account, body=b"x" * 2048 * KIB).status in (413, 500)  # 500: mod_fcgid
    except (ConnectionError, TimeoutError):
        pass  # refused while it was still being sent
    assert untouched(world, account)
    assert_ours(served.request("GET", served.health), 200)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_body_within_the_limit_is_dropped(served, world, chunked):
    account = world.add_account()
    answer = served.request("PATCH", ROUTE.format(account), world.bearer(), b'{"id":"x"}' * 6000, chunked=chunked)
    assert_ours(answer, 200)
    assert world.state(account) == WARMING


def test_large_header_is_refused_by_the_server(served, world):
    account = world.add_account()
    try:
        answer = world.retry(served, account, headers={"X-Large": "x" * 20 * KIB})
        assert answer.status in (400, 431)
    except ConnectionError:
        pass
    assert untouched(world, account)


def test_refusal_by_instantly_answers_502(served, world):
    account = world.add_account("rate-limited")
    answer = assert_ours(world.retry(served, account), 502, retry_after="7")
    assert answer.error["details"] == {"upstream_status": 429, "reason": "refused"}
    assert world.state(account) == STUCK


def test_shut_database_answers_503_and_recovers(served, world):
    account = world.add_account()
    administrator = world.postgres.connect()
    cursor = administrator.cursor()
    cursor.execute("ALTER DATABASE hosts ALLOW_CONNECTIONS false")
    try:
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                       " WHERE datname = 'hosts' AND usename = 'warmup'")
        assert_ours(world.retry(served, account), 503, retry_after="5")
        answer = served.request("GET", served.health)
        assert (answer.status, answer.body) == (503, b'{"status":"unavailable"}')
    finally:
        cursor.execute("ALTER DATABASE hosts ALLOW_CONNECTIONS true")
        administrator.close()
    assert untouched(world, account)
    assert_ours(world.retry(served, account), 200)


@pytest.mark.parametrize("method, path, key, status", [
    ("PATCH", ROUTE.format(uuid.uuid4()), None, 401), ("PATCH", ROUTE.format("42"), "good", 400),
    ("PATCH", ROUTE.format(uuid.uuid4()), "good", 404), ("DELETE", ROUTE.format(uuid.uuid4()), None, 405)],
    ids=["401", "400", "404", "405"])
def test_answer_has_the_bytes_that_the_program_wrote(served, world, build, method, path, key, status):
    headers = {"X-Request-Id": "the-same", **(world.bearer() if key else {})}
    written = Cgi(build / "warmup.fcgi", world.settings()).request(method, path, headers)
    answer = served.request(method, path, headers)
    assert (answer.status, answer.body) == (written.status, written.body)
    assert answer.status == status
    for answered in (answer, written):  # Apache may send chunks instead
        for name in ("content-length", "transfer-encoding"):
            answered.headers.pop(name, None)
    assert answer.headers == {name: value for name, value in written.headers.items() if name not in SERVERS_OWN}


# --- what must not make a difference -------------------------------------------------------------

@pytest.mark.parametrize("query", ["?a=b", "?--help", "?-c+/etc/passwd", "?"])
def test_query_means_nothing(served, query):
    assert_ours(served.request("GET", served.health + query), 200)


def test_two_requests_on_one_connection(served, world):
    connection = http.client.HTTPConnection("127.0.0.1", served.server.port, timeout=40)
    for _ in range(2):
        answer = served.on(connection, "PATCH", ROUTE.format(uuid.uuid4()), world.bearer())
        assert_ours(answer, 404)
    connection.close()


def test_headers_that_other_programs_obey_mean_nothing(served, world):
    account = world.add_account()
    headers = {"Proxy": "http://127.0.0.1:9", "X-Request-Id": "mine", "X_Request_Id": "forged", "X-Http-Method-Override": "GET"}
    answer = assert_ours(world.retry(served, account, headers=headers), 200)
    assert answer.headers["x-request-id"] in ("mine", "forged")  # lighttpd gives both the same name


def test_six_callers_at_once_move_the_row_once(served, world):
    account = world.add_account()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: world.retry(served, account), range(6)))
    assert sorted(answer.status for answer in answers) == [200] + [409] * 5
    assert world.state(account) == WARMING


# --- the site beside it --------------------------------------------------------------------------

def test_site_beside_it_is_untouched(served):
    mark = served.server.mark
    for path, text in (("/index.html", "index"), ("/api/other.txt", "other")):
        answer = served.request("GET", path)
        assert (answer.status, answer.body.decode()) == (200, f"{text} {mark}\n")
    answer = served.request("GET", "/missing")
    assert (answer.status, answer.body.decode()) == (404, f"error page {mark}\n")
    if served.server.mount == "/api":
        assert served.request("GET", "/healthz").body.decode() == f"health of the site {mark}\n"
        assert served.request("PATCH", "/healthz").headers.get("allow") != "GET, HEAD, OPTIONS"


def test_paths_that_only_look_alike_are_the_sites(served, world):
    account = world.add_account()
    path = ROUTE.format(account)
    for other in (path + "/", path + "x", path + "/more", "/x" + path, "/apix" + path.removeprefix("/api"),
                  path.replace("/email", "/email/x"), path.upper(), path + "%0a", path + "%2f", "/api" + path,
                  path.replace("/retry", "%2fretry") + "%2f", "/warmup.fcgi", "/warmup.conf"):
        answer = served.request("PATCH", other, world.bearer())
        assert answer.status in (200, 400, 403, 404, 405), other
        assert b'"account"' not in answer.body, other
    assert untouched(world, account)


def test_nobody_else_may_write_to_the_socket(served):
    sockets = [path for path in served.server.run.rglob("*") if path.is_socket()]
    for path in sockets:
        assert not path.stat().st_mode & stat.S_IWOTH, path
    if served.server.external:
        assert stat.S_IMODE(served.server.socket_path.stat().st_mode) == 0o660

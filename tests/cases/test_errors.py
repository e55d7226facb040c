"""Every error, to the byte; and what holds for every answer: headers, request id, methods, bodies, order of judgement.

What other files share with this one: assert_error() for an error's exact bytes and headers, and the fixture `gateway`,
which hands over variables as they are, where a web server would mend or refuse them.
"""

import json
import re
import secrets
import socket
import subprocess
import threading
import uuid

import pytest

import stack
from conftest import ROUTE, SANITIZER_VARIABLES, Cgi, as_answer, check_log

ABSENT = "c0ffee00-0000-4000-8000-000000000000"  # no such account: 404, once all before it was good
KIB = 1024
BODY_MAX = 64 * KIB

UNAUTHORIZED = "Missing or invalid API key; send it as \"Authorization: Bearer <key>\""
NO_ROUTE = "No such route"
NO_ACCOUNT = "No such email account"
INVALID_ID = "The account id in the path is not a valid UUID"
BODY_CUT = "The request body does not have the announced length; send none, this call needs none"
BODY_LARGE = "The request body is larger than 64 KiB; send none, this call needs none"
NOT_ALLOWED = "This path does not take that method; see the Allow header"
NOT_STUCK = "Only an account that is pending and whose warmup has not started can be retried"
NO_ADDRESS = "The account has no usable email address to warm up"
MOVED = "The account was changed by someone else meanwhile; details show its present state"
NOT_CONFIRMED = "Warmup was enabled but failed to update account status"
REJECTED = "Instantly refused to enable warmup; retry after the time in Retry-After"
UNUSABLE = "Instantly gave no usable answer; retry after the time in Retry-After"
UNAVAILABLE = "The service is temporarily unavailable; retry after the time in Retry-After"
NOT_CONFIGURED = "The service is not configured; the server's error log names the setting"

BASIC = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
UUID4 = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def assert_headers(answer, **more):
    """All headers of an answer with a body: these and no others."""
    assert answer.headers == {
        **BASIC, "content-type": "application/json; charset=utf-8", "content-length": str(len(answer.body)),
        "x-request-id": answer.headers.get("x-request-id"), **{name.replace("_", "-"): more[name] for name in more}}


def assert_error(answer, status, code, message, details=None, **headers):
    """An error's status, all headers and exact body."""
    error = {"code": code, "message": message, "request_id": answer.headers.get("x-request-id")}
    if details is not None:
        error["details"] = details
    assert (answer.status, answer.body.decode()) == (status, json.dumps({"error": error}, separators=(",", ":")))
    assert_headers(answer, **headers)


def assert_unauthorized(answer):
    assert_error(answer, 401, "unauthorized", UNAUTHORIZED, www_authenticate="Bearer")


def assert_no_account(answer):
    assert_error(answer, 404, "not_found", NO_ACCOUNT)


def masked(answer):
    """An answer without the one thing in which two of the same may differ."""
    mine = answer.headers["x-request-id"]
    return (answer.status, {**answer.headers, "x-request-id": "*"}, answer.body.replace(mine.encode(), b"*"))


class Repeated(dict):
    """Variables of which one name may come twice: made from a list of pairs."""

    def __init__(self, pairs):
        super().__init__(pairs)
        self.pairs = list(pairs)

    def items(self):
        return self.pairs

    def __len__(self):  # from here on: what Python 3.13 starts a process with
        return len(self.pairs)

    def keys(self):
        return [name for name, _ in self.pairs]

    def values(self):
        return [value for _, value in self.pairs]


class Gateway:
    """Hands exactly these variables, and this standard input, to the program: as CGI or as FastCGI."""

    def __init__(self, kind, binary, folder, settings):
        self.kind, self.binary, self.cgi_log = kind, binary, ""
        self.settings = {**SANITIZER_VARIABLES, **{name: str(value) for name, value in settings.items()}}
        self.responder = kind == "fastcgi" and stack.Responder(folder, binary, self.settings).start()

    def ask(self, variables, body=b"", arguments=()):
        if self.kind == "cgi":
            pairs = Repeated([*self.settings.items(), *variables.items()])
            answer = stack.run_cgi([self.binary, *arguments], pairs, body)
            self.cgi_log += answer.stderr
            assert answer.returncode == 0, answer
        else:
            raw = stack.fcgi_request(self.responder.socket_path, variables, body)
            assert (raw.stderr, raw.app_status) == (b"", 0)
            answer = stack.parse_answer(raw.stdout)
        first, *headers = answer.headers
        assert first[0] == "Status" and re.fullmatch(f"{answer.status} [A-Z][A-Za-z ]+", first[1])
        assert len({name.lower() for name, _ in headers}) == len(headers), "a header came twice"
        return as_answer(answer.status, headers, answer.body)

    def retry(self, account_id, key, body=b"", **variables):
        """PATCH for an account, as a server that is mounted at the root describes it."""
        return self.ask({"REQUEST_METHOD": "PATCH", "SCRIPT_NAME": "", "PATH_INFO": ROUTE.format(account_id),
                         "HTTP_AUTHORIZATION": f"Bearer {key}",
                         **{name: str(value) for name, value in variables.items()}}, body)

    def log(self):
        return self.responder.log() if self.responder else self.cgi_log

    def stop(self):
        return not self.responder or self.responder.stop()


@pytest.fixture(scope="module", params=["cgi", "fastcgi"])
def module_gateway(request, build, run_folder, shared_world):
    folder = run_folder / f"gateway-{secrets.token_hex(4)}"
    gateway = Gateway(request.param, build / "warmup.fcgi", folder, shared_world.settings(WARMUP_JOB_WAIT_MS=0))
    yield gateway
    assert gateway.stop(), "the responder did not end by itself"
    check_log(gateway, shared_world.secrets)


@pytest.fixture
def gateway(module_gateway, world):
    since = len(module_gateway.log())
    yield module_gateway
    check_log(module_gateway, world.secrets, since)


@pytest.fixture(scope="module", autouse=True)
def stalled(build, shared_world):
    """CGI processes that never get all of their body, by the status they should answer.

    They take five seconds, so they begin before the other cases, and are looked at after them.
    """
    def begin(announced):
        child = subprocess.Popen(
            [build / "warmup.fcgi"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={
                **SANITIZER_VARIABLES, **shared_world.settings(), "CONTENT_LENGTH": str(announced),
                "REQUEST_METHOD": "PATCH", "PATH_INFO": ROUTE.format(ABSENT),
                "HTTP_AUTHORIZATION": f"Bearer {shared_world.key}"})
        child.stdin.write(b"12345")
        child.stdin.flush()
        return child

    children = {400: begin(10), 413: begin(70000)}
    yield children
    for child in children.values():
        child.kill()
        child.wait()


# --- the table, row by row -----------------------------------------------------------------------

def test_bad_id_answers_400(host, world):
    assert_error(world.retry(host, "42"), 400, "invalid_request", INVALID_ID)


def test_cut_body_answers_400(gateway, world):
    account = world.add_account()
    answer = gateway.retry(account, world.key, b"12345", CONTENT_LENGTH=10)
    assert_error(answer, 400, "invalid_request", BODY_CUT)
    assert world.enables(account) == 0


def test_no_key_answers_401(host):
    assert_unauthorized(host.request("PATCH", ROUTE.format(ABSENT)))


@pytest.mark.parametrize("path", [
    "/", "/api", "/api/", "/api/email/accounts", f"/api/email/accounts/{ABSENT}", "/apix",
    ROUTE.format(ABSENT) + "/", ROUTE.format(ABSENT) + "/more", ROUTE.format(ABSENT) + "x", ROUTE.format(""),
    ROUTE.format(f"{ABSENT}/{ABSENT}"), "/v1" + ROUTE.format(ABSENT), ROUTE.format(ABSENT).upper(), "/healthz/",
    "/healthz/more", "/healthzz", "/health", "/HEALTHZ", "/" + "x" * 3000],
    ids=["root", "mount", "mount-slash", "list", "account", "near-mount", "trailing-slash", "extra-segment",
         "longer-last", "empty-id", "two-ids", "prefixed", "upper-case", "health-slash", "health-extra",
         "health-longer", "health-shorter", "health-upper", "long"])
def test_other_paths_answer_404(host, world, path):
    assert_error(host.request("PATCH", path, world.bearer()), 404, "not_found", NO_ROUTE)


def test_absent_account_answers_404(host, world):
    assert_no_account(world.retry(host, ABSENT))


def test_other_method_answers_405(host, world):
    answer = host.request("POST", ROUTE.format(ABSENT), world.bearer())
    assert_error(answer, 405, "method_not_allowed", NOT_ALLOWED, allow="PATCH, OPTIONS")


@pytest.mark.parametrize("state", [
    ("warming", "warming"), ("pending", "warming"), ("warming", "not_started"), ("active", "active"),
    ("error", "banned"), ("pending", None), ("pending", ""), ("PENDING", "not_started"), ("pending ", "not_started"),
    ("pending", "Not_Started"), ("connected", "not_started"), ("", "not_started"), ("pending", "warmed"),
    ("pending", "suspended"), ("pending", "completed"), ("not_started", "pending"), ("päusiert", "\"\\\u0001")],
    ids=lambda state: "/".join(str(part).encode("unicode_escape").decode() or "empty" for part in state))
def test_gate_closed_answers_409_and_calls_nobody(host, world, state):
    account = world.add_account(state=state)
    before = world.account(account)
    answer = world.retry(host, account)
    assert answer.error["details"] == {"status": state[0], "warmup_status": state[1]}
    if state[0].isascii() and "\u0001" not in str(state[1]):  # json.dumps() escapes otherwise than we
        assert_error(answer, 409, "conflict", NOT_STUCK, {"status": state[0], "warmup_status": state[1]})
    assert world.account(account) == before
    assert world.enables(account) == 0


def test_no_address_answers_409_with_its_own_message(host, world):
    account = world.add_account(email_address=None)
    before, calls = world.account(account), len(world.sandbox.calls)
    assert_error(world.retry(host, account), 409, "conflict", NO_ADDRESS,
                 {"status": "pending", "warmup_status": "not_started"})
    assert (world.account(account), len(world.sandbox.calls)) == (before, calls)


def test_lost_swap_answers_409_with_the_present_state(host, world):
    account = world.add_account()
    held, answers = world.sandbox.hold(world.address(account)), []
    thread = threading.Thread(target=lambda: answers.append(world.retry(host, account)))
    thread.start()
    assert held.arrived.wait(10)
    world.execute("UPDATE accounts SET status = 'error', warmup_status = 'banned' WHERE id = %s", account)
    before = world.account(account)
    held.release()
    thread.join()
    assert_error(answers[0], 409, "conflict", MOVED, {"status": "error", "warmup_status": "banned"})
    assert world.account(account) == before


def test_large_body_answers_413(host, world):
    answer = world.retry(host, ABSENT, body=b"x" * (BODY_MAX + 1))
    assert_error(answer, 413, "payload_too_large", BODY_LARGE)


def test_unconfirmed_swap_answers_500(host, world):
    account = world.add_account(agentmail_inbox_id="vetoed")
    world.execute("CREATE OR REPLACE FUNCTION veto() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    world.execute("CREATE TRIGGER veto BEFORE UPDATE ON accounts FOR EACH ROW"
                  " WHEN (old.agentmail_inbox_id = 'vetoed') EXECUTE FUNCTION veto()")
    try:
        answer = world.retry(host, account)
    finally:
        world.execute("DROP TRIGGER veto ON accounts")
    assert_error(answer, 500, "internal_error", NOT_CONFIRMED, {"upstream": "enabled"})
    assert (world.state(account), world.enables(account)) == (("pending", "not_started"), 1)


@pytest.mark.parametrize("settings, name", [
    ({"DATABASE_URL": None}, "DATABASE_URL"), ({"INSTANTLY_API_KEY": ""}, "INSTANTLY_API_KEY"),
    ({"WARMUP_WORKERS": "many"}, "WARMUP_WORKERS"), ({"WARMUP_WOKRERS": "1"}, "WARMUP_WOKRERS")],
    ids=["missing", "empty", "malformed", "unknown"])
def test_bad_setting_as_cgi_answers_500_and_logs_its_name(build, world, settings, name):
    host = Cgi(build / "warmup.fcgi", world.settings(**settings))
    answer = world.retry(host, ABSENT)
    assert_error(answer, 500, "internal_error", NOT_CONFIGURED)
    assert name in check_log(host, world.secrets)


@pytest.mark.parametrize("behaviour, details, retry_after", [
    ("rate-limited", {"upstream_status": 429, "reason": "refused"}, "7"),
    ("refused", {"upstream_status": 422, "reason": "refused"}, "5"),
    ("job-failed", {"upstream_status": 200, "reason": "job_failed"}, "5"),
    ("error-member", {"upstream_status": 200, "reason": "error"}, "5")])
def test_no_from_instantly_answers_502(host, world, behaviour, details, retry_after):
    answer = world.retry(host, world.add_account(behaviour))
    assert_error(answer, 502, "upstream_rejected", REJECTED, details, retry_after=retry_after)


@pytest.mark.parametrize("behaviour, reason", [
    ("html", "not_json"), ("cut-length", "incomplete"), ("oversized", "oversized")])
def test_nothing_usable_from_instantly_answers_502(host, world, behaviour, reason):
    answer = world.retry(host, world.add_account(behaviour))
    assert_error(answer, 502, "upstream_unavailable", UNUSABLE, {"reason": reason}, retry_after="5")


def test_unreachable_database_answers_503(serve, world):
    host = serve(world, DATABASE_URL=f"postgresql://warmup@127.0.0.1:{stack.free_port()}/none")
    assert_error(world.retry(host, ABSENT), 503, "unavailable", UNAVAILABLE, retry_after="5")


# --- the request id ------------------------------------------------------------------------------

@pytest.mark.parametrize("sent", ["a", "-", "..", "A-z_0.9", "x" * 64, "ERR_OK", "0"])
def test_good_request_id_is_echoed(host, sent):
    answer = host.request("GET", "/", {"X-Request-Id": sent})
    assert (answer.headers["x-request-id"], answer.error["request_id"]) == (sent, sent)
    assert f'"request_id":"{sent}"' in host.log()


@pytest.mark.parametrize("sent", [
    "", "x" * 65, "x" * 5000, "a b", "a/b", "a,b", "a:b", "{a}", 'a"b', "a\\b", "a\tb", "\u00e9", "%0d%0aX-Evil: 1",
    "$(id)", "%n%s", "a+b", "a~b"], ids=lambda text: text[:12].encode("unicode_escape").decode() or "empty")
def test_odd_request_id_is_replaced_by_a_uuid(host, sent):
    answer = host.request("GET", "/", {"X-Request-Id": sent})
    assert UUID4.fullmatch(answer.headers["x-request-id"])
    assert_error(answer, 404, "not_found", NO_ROUTE)


@pytest.mark.parametrize("sent", [b"a\r\nX-Evil: 1", b"a\nX-Evil: 1", b"a\r\n\r\n{}", b"a\n", b"\xff", b"a\x1b[2J"])
def test_line_breaks_in_a_request_id_reach_no_header(gateway, sent):
    answer = gateway.ask({b"REQUEST_METHOD": b"GET", b"PATH_INFO": b"/", b"HTTP_X_REQUEST_ID": sent})
    assert UUID4.fullmatch(answer.headers["x-request-id"])
    assert_error(answer, 404, "not_found", NO_ROUTE)


def test_fresh_request_ids_differ(host):
    seen = {host.request("GET", "/").headers["x-request-id"] for _ in range(20)}
    assert len(seen) == 20 and all(UUID4.fullmatch(one) for one in seen)


@pytest.mark.parametrize("names", [("X-Request-Id", "X_Request_Id"), ("X_Request_Id", "X-Request-Id")])
def test_request_id_sent_under_two_names_is_answered_once(shared_hosts, names):
    sent = dict(zip(names, ("first", "second")))
    answer = shared_hosts["fastcgi"].request("GET", "/", sent)
    assert answer.headers["x-request-id"] in sent.values()
    assert_error(answer, 404, "not_found", NO_ROUTE)


# --- methods -------------------------------------------------------------------------------------

@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "TRACE"])
def test_other_methods_answer_405_without_a_key(host, method):
    answer = host.request(method, ROUTE.format(ABSENT))
    assert_error(answer, 405, "method_not_allowed", NOT_ALLOWED, allow="PATCH, OPTIONS")


# lighttpd answers these by itself, with 501.
@pytest.mark.parametrize("method", ["FOO", "patch", "Patch", "PATCHX", "PATC", "", "PATCH ", "OTHER", "GET\nPATCH",
                                    "options", "head", "x" * 2000])
def test_unknown_methods_answer_405(gateway, world, method):
    account = world.add_account()
    before = world.account(account)
    answer = gateway.retry(account, world.key, REQUEST_METHOD=method)
    assert_error(answer, 405, "method_not_allowed", NOT_ALLOWED, allow="PATCH, OPTIONS")
    assert (world.account(account), world.enables(account)) == (before, 0)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE"])
def test_health_takes_no_other_method(host, method):
    answer = host.request(method, "/healthz")
    assert_error(answer, 405, "method_not_allowed", NOT_ALLOWED, allow="GET, HEAD, OPTIONS")


@pytest.mark.parametrize("path, allow", [
    (ROUTE.format(ABSENT), "PATCH, OPTIONS"), (ROUTE.format("42"), "PATCH, OPTIONS"),
    ("/healthz", "GET, HEAD, OPTIONS")], ids=["retry", "bad-id", "health"])
@pytest.mark.parametrize("bearer", ["", "Bearer wrong"], ids=["no-key", "bad-key"])
def test_options_answers_204_with_allow_and_no_body(host, path, allow, bearer):
    answer = host.request("OPTIONS", path, {"X-Request-Id": "mine", **({"Authorization": bearer} if bearer else {})})
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers == {**BASIC, "x-request-id": "mine", "allow": allow}


def test_options_elsewhere_answers_404(host):
    assert_error(host.request("OPTIONS", "/nowhere"), 404, "not_found", NO_ROUTE)


@pytest.mark.parametrize("path, status", [("/healthz", 200), (ROUTE.format(ABSENT), 405), ("/nowhere", 404)])
def test_head_answers_like_get_without_the_body(host, path, status):
    get, head = (host.request(method, path, {"X-Request-Id": "mine"}) for method in ("GET", "HEAD"))
    assert (head.status, head.headers, head.body) == (status, get.headers, b"")
    assert get.headers["content-length"] == str(len(get.body)) != "0"


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic eDp5"}, {"Accept": "text/html"}],
                         ids=["plain", "with-a-key", "with-accept"])
@pytest.mark.parametrize("query", ["", "?", "?a=b&c"])
def test_health_answers_ok_and_nothing_else(host, world, headers, query):
    calls = len(world.sandbox.calls)
    answer = host.request("GET", "/healthz" + query, headers)
    answer.headers.pop("accept-ranges", None)  # lighttpd's own, on every 200 of a GET
    assert (answer.status, answer.body) == (200, b'{"status":"ok"}')
    assert_headers(answer)
    assert len(world.sandbox.calls) == calls


# --- the order of judgement ----------------------------------------------------------------------

LARGE = b"x" * (BODY_MAX + 1)


@pytest.mark.parametrize("method, path, key, body, status", [
    ("POST", "/nowhere", None, LARGE, 404),
    ("POST", ROUTE.format("bad"), None, LARGE, 405),
    ("PATCH", ROUTE.format("bad"), None, LARGE, 401),
    ("PATCH", ROUTE.format("bad"), "unknown", LARGE, 401),
    ("PATCH", ROUTE.format("bad"), None, b"", 401),
    ("PATCH", ROUTE.format("bad"), "unknown", b"", 401),
    ("PATCH", ROUTE.format(ABSENT), "unknown", b"", 401),
    ("PATCH", ROUTE.format("bad"), "good", LARGE, 413),
    ("PATCH", ROUTE.format(ABSENT), "good", LARGE, 413),
    ("PATCH", ROUTE.format("bad"), "good", b"{}", 400),
    ("PATCH", ROUTE.format(ABSENT), "good", b"{}", 404)],
    ids=["route-first", "method-second", "key-missing-third", "key-unknown-third", "key-missing-before-id",
         "key-unknown-before-id", "key-before-account", "body-before-id", "body-before-account", "id-before-account",
         "account-last"])
def test_first_flaw_in_the_documented_order_is_answered(host, world, method, path, key, body, status):
    token = {"good": world.key, "unknown": "pk_live_" + "0" * 64}.get(key)
    assert host.request(method, path, world.bearer(token) if token else {}, body).status == status


@pytest.mark.parametrize("columns, body, status", [
    ({"state": ("active", "active")}, LARGE, 413),
    ({"state": ("active", "active"), "type": "linkedin"}, b"", 404),
    ({"state": ("active", "active"), "user": str(uuid.uuid4())}, b"", 404),
    ({"state": ("active", "active"), "email_address": None}, b"", 409),
    ({"state": ("pending", "not_started")}, LARGE, 413)],
    ids=["body-before-gate", "type-before-gate", "owner-before-gate", "gate-before-address", "body-before-call"])
def test_account_is_judged_after_the_body_and_before_the_gate(host, world, columns, body, status):
    account = world.add_account(**columns)
    before, calls = world.account(account), len(world.sandbox.calls)
    answer = world.retry(host, account, body=body)
    assert answer.status == status
    if status == 409:
        assert answer.error["message"] == NOT_STUCK
    assert (world.account(account), len(world.sandbox.calls)) == (before, calls)


@pytest.mark.parametrize("key, id_, status", [(None, ABSENT, 401), ("good", "bad", 400), ("good", ABSENT, 400)],
                         ids=["401-first", "before-the-id", "before-the-account"])
def test_cut_body_is_judged_after_the_key_and_before_the_rest(gateway, world, key, id_, status):
    answer = gateway.retry(id_, world.key if key else "unknown", b"12345", CONTENT_LENGTH=10)
    assert answer.status == status
    if status == 400:
        assert_error(answer, 400, "invalid_request", BODY_CUT)


# --- bodies --------------------------------------------------------------------------------------

@pytest.mark.parametrize("size, status", [
    (0, 404), (1, 404), (BODY_MAX - 1, 404), (BODY_MAX, 404), (BODY_MAX + 1, 413), (900 * KIB, 413),
    (2048 * KIB, 413)])
def test_body_of_up_to_64_kib_is_dropped(host, world, size, status):
    answer = world.retry(host, ABSENT, body=b"x" * size)
    if status == 404:
        assert_no_account(answer)
    else:
        assert_error(answer, 413, "payload_too_large", BODY_LARGE)


@pytest.mark.parametrize("size", [900 * KIB, 2048 * KIB])
def test_large_body_without_a_key_still_gets_its_401(host, size):
    assert_unauthorized(host.request("PATCH", ROUTE.format(ABSENT), body=b"x" * size))


def test_body_content_means_nothing(host, world):
    account = world.add_account()
    answer = world.retry(host, account, body=b'{"id":"x","include_all_emails":true,"status":"active"}')
    assert (answer.status, world.state(account)) == (200, ("warming", "warming"))
    assert [call.body for call in world.sandbox.enables(world.address(account))] == [
        b'{"emails":["%s"]}' % world.address(account).encode()]


OK, CUT, TOO_LARGE = 404, 400, 413  # a whole body ends at the absent account


@pytest.mark.parametrize("announced, size, status", [
    (None, 0, OK), ("", 0, OK), ("0", 0, OK), ("5", 5, OK), ("00005", 5, OK), ("65536", 65536, OK),
    ("10", 5, CUT), ("1", 0, CUT), ("65536", 5, CUT), ("5", 10, CUT), ("1", 2, CUT),
    ("garbage", 0, CUT), ("-1", 0, CUT), ("-1", 5, CUT), ("+5", 5, CUT), (" 5", 5, CUT), ("5 ", 5, CUT), ("5x", 5, CUT),
    ("0x5", 5, CUT), ("5.0", 5, CUT), ("5,5", 5, CUT), ("5e0", 5, CUT), ("\u0665", 5, CUT), ("--", 0, CUT),
    ("65537", 65537, TOO_LARGE), ("65537", 5, TOO_LARGE), ("65537", 0, TOO_LARGE), ("4294967296", 0, TOO_LARGE),
    ("9223372036854775807", 0, TOO_LARGE), ("18446744073709551621", 5, TOO_LARGE), ("9" * 400, 0, TOO_LARGE)],
    ids=lambda value: value[:24].encode("unicode_escape").decode() if isinstance(value, str) else None)
def test_announced_length_and_body_must_agree(gateway, world, announced, size, status):
    variables = {} if announced is None else {"CONTENT_LENGTH": announced}
    answer = gateway.retry(ABSENT, world.key, b"x" * size, **variables)
    if status == OK:
        assert_no_account(answer)
    elif status == CUT:
        assert_error(answer, 400, "invalid_request", BODY_CUT)
    else:
        assert_error(answer, 413, "payload_too_large", BODY_LARGE)


@pytest.mark.parametrize("size, status", [(0, OK), (5, OK), (BODY_MAX, OK), (BODY_MAX + 1, TOO_LARGE),
                                          (2048 * KIB, TOO_LARGE)])
@pytest.mark.parametrize("length", [{}, {"CONTENT_LENGTH": ""}], ids=["no-length", "empty-length"])
def test_chunked_body_without_a_length_is_read_to_its_end(gateway, world, size, status, length):
    answer = gateway.retry(ABSENT, world.key, b"x" * size, HTTP_TRANSFER_ENCODING="chunked", **length)
    assert answer.status == status


def test_answer_arrives_although_the_client_sends_on(build, world):
    """As plain CGI all of a large body is taken: a web server that cannot write it may drop the answer."""
    for headers, status in (({}, 401), ({"HTTP_AUTHORIZATION": f"Bearer {world.key}"}, 413)):
        size = 5 * KIB * KIB
        with subprocess.Popen([build / "warmup.fcgi"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, env={
                                  **SANITIZER_VARIABLES, **world.settings(), **headers, "REQUEST_METHOD": "PATCH",
                                  "PATH_INFO": ROUTE.format(ABSENT), "CONTENT_LENGTH": str(size)}) as child:
            child.stdin.write(b"x" * size)  # a broken pipe would raise
            child.stdin.close()
            assert stack.parse_answer(child.stdout.read()).status == status
            assert child.wait() == 0


def test_cut_stream_of_a_body_answers_400_and_changes_nothing(gateway, world):
    """A web server that hangs up in the middle of a body, or withdraws the request."""
    if gateway.kind == "cgi":
        pytest.skip("the records of FastCGI")
    account = world.add_account()
    variables = {"REQUEST_METHOD": "PATCH", "PATH_INFO": ROUTE.format(account), "CONTENT_LENGTH": "10",
                 "HTTP_AUTHORIZATION": f"Bearer {world.key}"}
    begun = stack.fcgi_begin() + stack.fcgi_stream(stack.FCGI_PARAMS, stack.fcgi_pairs(variables))
    for rest in (stack.fcgi_record(stack.FCGI_STDIN, b"12345"),
                 stack.fcgi_record(stack.FCGI_STDIN, b"12345") + stack.fcgi_record(stack.FCGI_ABORT),
                 stack.FCGI_HEADER.pack(1, stack.FCGI_STDIN, 1, 10, 0) + b"12345"):
        with stack.fcgi_connect(gateway.responder.socket_path) as connection:
            connection.sendall(begun + rest)
            connection.shutdown(socket.SHUT_WR)
            status, headers, body = stack.parse_answer(stack.fcgi_read(connection).stdout)
        assert_error(as_answer(status, headers[1:], body), 400, "invalid_request", BODY_CUT)
    assert (world.state(account), world.enables(account)) == (("pending", "not_started"), 0)


def test_stalled_body_as_cgi_is_given_up_after_five_seconds(stalled):
    for status, child in stalled.items():
        assert stack.parse_answer(child.stdout.read()).status == status  # while standard input is still open
        child.stdin.close()
        assert child.wait(20) == 0

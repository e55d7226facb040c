"""Everything that Instantly can answer, or fail to: what the caller hears, that the row only moves on an acceptance,
and that the next call makes it good.

Whatever is not an acceptance leaves the row as it was, and Instantly was asked once. Timeouts are short here.
"""

import contextlib
import datetime
import functools
import json
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import time
from urllib.parse import quote

import pytest

import stack
from conftest import ADDRESS_MARK, STUCK, UPSTREAM_KEY, WARMING, Cgi, Fcgi, check_log
from sandbox import wire
from sandbox.behaviours import BEHAVIOURS
from sandbox.instantly import Reply, Sandbox
from test_errors import NO_ADDRESS, REJECTED, UNUSABLE, assert_error, assert_headers

# One worker: it keeps its connection from case to case.
TIMEOUT = {"WARMUP_UPSTREAM_TIMEOUT_MS": 300, "WARMUP_WORKERS": 1}
QUICK = {**TIMEOUT, "WARMUP_JOB_WAIT_MS": 0}
FOLLOWING = {**TIMEOUT, "WARMUP_JOB_WAIT_MS": 150}  # one look at the job, after 100 ms
SLACK = 2  # seconds that a loaded machine may add


@pytest.fixture(scope="module")
def starter(build, run_folder, shared_world):
    """The responder with other settings, one for all cases that want the same ones."""
    hosts = {}

    def get(kind, **changes):
        settings = shared_world.settings(**changes)
        key = (kind, *settings.items())
        if key not in hosts:
            binary = build / "warmup.fcgi"
            hosts[key] = Cgi(binary, settings) if kind == "cgi" else Fcgi(
                run_folder / f"lighttpd-{secrets.token_hex(4)}", binary, settings)
        return hosts[key]

    yield get
    for host in hosts.values():
        assert host.stop(), "the responder did not end by itself"
        check_log(host, shared_world.secrets)


@pytest.fixture(params=["cgi", "fastcgi"])
def start(request, starter):
    return functools.partial(starter, request.param)


@pytest.fixture
def quick(start):
    return start(**QUICK)


@pytest.fixture
def following(start):
    return start(**FOLLOWING)


@pytest.fixture
def fast(starter):
    """For long tables, whose rows have nothing to do with how a request came to us."""
    return starter("fastcgi", **QUICK)


@pytest.fixture
def fast_following(starter):
    return starter("fastcgi", **FOLLOWING)


def jobs_read(world, account):
    return [call for call in world.sandbox.calls if call.kind == "job" and call.address == world.address(account)]


def accounts_read(world, account):
    return [call for call in world.sandbox.calls if call.kind == "account" and call.address == world.address(account)]


def refused(status, retry_after="5"):
    return "upstream_rejected", {"upstream_status": status, "reason": "refused"}, retry_after


def failed(reason):
    return "upstream_rejected", {"upstream_status": 200, "reason": reason}, "5"


def unusable(reason):
    return "upstream_unavailable", {"reason": reason}, "5"


def assert_502(answer, expected):
    code, details, retry_after = expected
    message = REJECTED if code == "upstream_rejected" else UNUSABLE
    assert_error(answer, 502, code, message, details, retry_after=retry_after)


def assert_accepted(answer, world, account, enables=1):
    assert (answer.status, answer.json["account"]["id"]) == (200, account)
    assert_headers(answer)
    assert (world.state(account), world.enables(account)) == (WARMING, enables)


def assert_left_alone_then_good(host, world, account, expected, repeats=0):
    """A call that ends as expected and leaves the row untouched; then one that goes well.

    `repeats` is how often libcurl may ask again, where a connection kept from before turns out dead.
    """
    before, address = world.account(account), world.address(account)
    assert_502(world.retry(host, account), expected)
    assert world.account(account) == before
    calls = world.sandbox.enables(address)
    assert len(calls) <= 1 + (repeats if calls[0].turn > 1 else 0) and all(call.turn == 1 for call in calls[1:])
    world.sandbox.script(address, "normal")
    assert_accepted(world.retry(host, account), world, account, len(calls) + 1)
    assert world.sandbox.accepted(address)


# --- what is no acceptance -----------------------------------------------------------------------

REFUSED = {
    "refused": refused(422), "bad-request": refused(400), "unauthorized": refused(401), "no-plan": refused(402),
    "forbidden": refused(403), "not-found": refused(404), "conflict": refused(409), "rate-limited": refused(429, "7"),
    "error-500": refused(500), "error-503": refused(503),
    **{f"redirect-{code}": refused(code) for code in (301, 302, 303, 307, 308)},
    "error-member": failed("error"), "job-failed-at-once": failed("job_failed"),
    "array": unusable("not_json"), "null": unusable("not_json"), "html": unusable("not_json"),
    "trailing-bytes": unusable("not_json"), "deep": unusable("not_json"), "invalid-utf8": unusable("not_json"),
    "gzip-bomb": unusable("not_json"), "not-http": unusable("not_json"),
    "cut-close": unusable("not_json"),  # nothing but the JSON tells that it was cut
    "oversized": unusable("oversized"), "endless": unusable("oversized"),
    "cut-length": unusable("incomplete"), "cut-chunked": unusable("incomplete"),
    "reset-mid-body": unusable("incomplete"),
    "hang": unusable("timeout"), "slow": unusable("timeout"), "slow-body": unusable("timeout"),
    "slow-header": unusable("timeout"),
}
# Not a byte came: on a connection kept from before, libcurl asks once more on a fresh one.
NO_BYTE = ("reset-before-headers", "close-before-headers", "lost-after-accept")
# libcurl's own limits on headers, whose names for it differ between versions.
HEADERS = ("huge-header", "many-headers")
JOB_FAILED = ("job-failed", "job-status-failed", "job-cancelled")
ACCEPTED = ("normal", "empty", "no-content", "bom", "nul-in-string", "job-no-id", "early-hints", "continue-first",
            "close-after-second")
JOB_OPEN = ("job-slow", "job-unreadable", "job-hangs")
ELSEWHERE = ("rate-limited-date", "already-warming")


def test_no_behaviour_of_the_sandbox_is_left_out():
    assert {*REFUSED, *NO_BYTE, *HEADERS, *JOB_FAILED, *ACCEPTED, *JOB_OPEN, *ELSEWHERE} == set(BEHAVIOURS)


@pytest.mark.parametrize("behaviour", REFUSED)
def test_no_acceptance_answers_502_and_leaves_the_row(quick, world, behaviour):
    began = time.monotonic()
    assert_left_alone_then_good(quick, world, world.add_account(behaviour), REFUSED[behaviour])
    assert time.monotonic() - began < 0.3 + SLACK  # whatever it does, for no longer than the limit


@pytest.mark.parametrize("behaviour", NO_BYTE)
def test_lost_reply_answers_502_and_leaves_the_row(quick, world, behaviour):
    assert_left_alone_then_good(quick, world, world.add_account(behaviour), unusable("incomplete"), repeats=1)


@pytest.mark.parametrize("behaviour", HEADERS)
def test_boundless_headers_answer_502_and_leave_the_row(quick, world, behaviour):
    account = world.add_account(behaviour)
    before, answer = world.account(account), world.retry(quick, account)
    assert answer.error["details"]["reason"] in ("oversized", "incomplete")
    assert_502(answer, unusable(answer.error["details"]["reason"]))
    assert (world.account(account), world.enables(account)) == (before, 1)
    world.sandbox.script(world.address(account), "normal")
    assert_accepted(world.retry(quick, account), world, account, 2)


@pytest.mark.parametrize("behaviour", JOB_FAILED)
def test_failed_job_answers_502_and_leaves_the_row(following, world, behaviour):
    account = world.add_account(behaviour)
    assert_left_alone_then_good(following, world, account, failed("job_failed"))
    assert len(jobs_read(world, account)) == 2


def reply(status=200, body=None, headers=(), **more):
    """The next enable is answered so, whatever comes of it."""
    return Reply(status, body, headers, verdict="none", **more)


JOB = {"id": "0123456789abcdef01234567", "status": "pending"}


@pytest.mark.parametrize("status", [300, 304, 305, 399, 410, 418, 451, 499, 501, 502, 504, 520, 599, 600, 999])
def test_other_statuses_are_refusals(fast, world, status):
    account = world.add_account()
    world.sandbox.script(world.address(account), reply(status, JOB if status != 304 else None))
    assert_left_alone_then_good(fast, world, account, refused(status))


def sized(size):
    """A JSON object of that many bytes."""
    text = json.dumps({**JOB, "x": ""}, separators=(",", ":"))
    return text[:-2] + "x" * (size - len(text)) + text[-2:]


# Whatever does not follow the grammar of JSON, whole, in one object.
NOT_JSON = {
    "blank": " ", "blanks": "\r\n\t ", "number": "1", "true": "true", "string": '"ok"', "word": "OK", "open": "{",
    "closed": "}", "open-string": '{"id":"', "no-value": '{"id"}', "no-value-but-colon": '{"id":}',
    "no-colon": '{"id" 1}',
    "comma-last": '{"id":"x",}', "comma-first": '{,"id":"x"}', "comma-missing": '{"id":"x" "status":"y"}',
    "two-objects": "{}{}", "two-lines": "{}\n{}", "object-and-word": "{} ok", "array-of-object": '[{"id":"x"}]',
    "single-quotes": "{'id':'x'}", "bare-name": "{id:1}", "comment": '{/* */"id":"x"}', "nan": '{"x":NaN}',
    "infinity": '{"x":Infinity}', "hex": '{"x":0x10}', "plus": '{"x":+1}', "capital-true": '{"x":True}',
    "nul-at-the-end": "{}\0", "nul-after-the-start": "{\0}", "bad-escape": '{"x":"\\q"}',
    "short-escape": '{"x":"\\u12"}',
    "lone-surrogate": '{"x":"\\ud800"}', "prefix": ")]}',\n{}", "event": "data: {}\n\n",
}
# The same, but a lenient parser reads them.
NEARLY_JSON = {
    "control-character": '{"x":"a\1b"}', "line-feed-in-string": '{"x":"a\nb"}', "leading-zero": '{"x":01}',
    "point-without-digit": '{"x":1.}', "control-between": '{\1"x":1}', "form-feed-between": "{\f}",
    "latin-1": b'{"x":"caf\xe9"}', "cut-utf-8": b'{"x":"\xe2\x82"}', "overlong-utf-8": b'{"x":"\xc0\xaf"}',
    "escape-without-hex": '{"x":"\\u12g4"}',
    "surrogate-utf-8": b'{"x":"\xed\xa0\x80"}', "utf-16": "{}".encode("utf-16"),
}


@pytest.mark.parametrize("form", [*NOT_JSON, *NEARLY_JSON])
def test_reply_that_is_not_one_json_object_is_no_acceptance(fast, world, form):
    account = world.add_account()
    world.sandbox.script(world.address(account), reply(200, {**NOT_JSON, **NEARLY_JSON}[form]))
    assert_left_alone_then_good(fast, world, account, unusable("not_json"))


@pytest.mark.parametrize("job, expected", [
    ({"status": "failed"}, "job_failed"),
    ({"status": "cancelled"}, "job_failed"),
    ({"status": "success", "data": {"failed_count": 1}}, "job_failed"),
    ({"status": "success", "data": {"failed_count": 1, "processed_emails": []}}, "job_failed"),
    ({"status": "success", "data": {"processed_emails": [{"email": "ADDRESS", "status": "failed"}]}}, "job_failed"),
    ({"status": "success", "data": {"processed_emails": [{"email": "UPPER", "status": "failed"}]}}, "job_failed"),
    ({"status": "success", "data": {"failed_count": 0, "success_count": 1, "processed_emails": [
        {"email": "other@x.example", "status": "success"}, {"email": "ADDRESS", "status": "failed"}]}}, "job_failed"),
    ({"error": "no"}, "error"), ({"error": ""}, "error"), ({"error": {}}, "error"), ({"error": False}, "error"),
    ({"error": 0}, "error"), ({"error": []}, "error"), ({"id": None, "error": "x"}, "error"),
    ({"status": "failed", "error": "no"}, None)],
    ids=lambda value: re.sub("[^a-z_]+", "-", json.dumps(value))[:60].strip("-") if isinstance(value, dict) else None)
def test_reply_that_says_no_is_no_acceptance(fast, world, job, expected):
    account = world.add_account()
    address = world.address(account)
    text = json.dumps({**JOB, **job}).replace("ADDRESS", address).replace("UPPER", address.upper())
    world.sandbox.script(address, reply(200, text))
    if expected is None:  # either word is true
        assert world.retry(fast, account).error["details"]["reason"] in ("job_failed", "error")
    else:
        assert_left_alone_then_good(fast, world, account, failed(expected))
    assert jobs_read(world, account) == []


def test_reply_of_more_than_64_kib_is_oversized(quick, world):
    account = world.add_account()
    world.sandbox.script(world.address(account), reply(200, sized(65537)))
    assert_left_alone_then_good(quick, world, account, unusable("oversized"))


@pytest.mark.parametrize("raw, reasons", [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 200\r\n\r\n{}", ("timeout", "incomplete")),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{}", ("not_json",)),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", ("incomplete",)),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", ("incomplete",)),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", ("incomplete", "timeout")),
    (b"HTTP/1.1\r\n\r\n{}", ("not_json", "incomplete")),
    (b"HTTP/200T\r\xff\xff\n\r\n:", ("not_json", "incomplete")),
    (b"HTTP/2200\r\nContent-Length: 2\r\n\r\n{}", ("not_json",)),
    (b"HTTP/HT0 y\r\n\r\n", ("not_json",)), (b"HTTP/\r\n\r\n{}", ("not_json", "incomplete")),
    (b"HTTP/x y\r\nHTTP/1.1 200 OK\r\n\r\n", ("not_json",)),
    (b"HTTP/2 200\r\nContent-Length: 2\r\n\r\n{}", ("not_json",)),
    (b"HTTP/1.1 20\r\nContent-Length: 2\r\n\r\n{}", ("not_json", "incomplete")),
    (b"HTTP/9.9 200 OK\r\nContent-Length: 2\r\n\r\n{}", ("not_json", "incomplete")),
    (b"HTTP/1.1 100 Continue\r\n\r\n" * 3, ("incomplete",)),
    (b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000, ("incomplete", "oversized")),
    (b"<html>", ("not_json",)), (b"{}", ("not_json",)), (b"\r\n", ("not_json", "incomplete"))],
    ids=["two-lengths", "short-length", "bad-chunk", "no-last-chunk", "cut-header", "no-status",
         "no-version", "http-2200", "http-word", "http-alone", "two-status-lines", "http-2",
         "short-status", "http-9", "only-continue", "endless-continue", "html-without-head", "json-without-head",
         "empty-line"])
def test_broken_http_is_no_acceptance(fast, world, raw, reasons):
    account = world.add_account()
    before = world.account(account)
    world.sandbox.script(world.address(account), reply(send=wire.only(raw)))
    answer = world.retry(fast, account)
    assert answer.error["details"]["reason"] in reasons
    assert_502(answer, unusable(answer.error["details"]["reason"]))
    assert (world.account(account), world.enables(account)) == (before, 1)
    assert_accepted(world.retry(fast, account), world, account, 2)


def test_cut_status_line_is_no_acceptance(quick, world):
    """libcurl does not count it, and so may ask again as if nothing had come."""
    account, cut = world.add_account(), reply(send=wire.only(b"HTTP/1.1 200"))
    world.sandbox.script(world.address(account), cut, cut)
    assert world.retry(quick, account).error["code"] == "upstream_unavailable"
    assert (world.state(account), world.enables(account) <= 2) == (STUCK, True)


# --- what is one ---------------------------------------------------------------------------------

@pytest.mark.parametrize("behaviour", [name for name in ACCEPTED if name != "close-after-second"])
def test_acceptance_answers_200(quick, world, behaviour):
    account = world.add_account(behaviour)
    assert_accepted(world.retry(quick, account), world, account)
    assert world.sandbox.accepted(world.address(account))


def test_kept_connection_that_turns_out_dead_costs_a_second_enable(start, world):
    """Allowed: at most two enables on the wire for one request, and Instantly takes the second for no change."""
    host = start(WARMUP_JOB_WAIT_MS=0, WARMUP_WORKERS=1)  # of its own: libcurl does so five times, then not once
    assert_accepted(world.retry(host, first := world.add_account()), world, first)
    account = world.add_account("close-after-second")
    assert_accepted(world.retry(host, account), world, account, 2 if host.kind == "fastcgi" else 1)
    assert [call.turn > 1 for call in world.sandbox.enables(world.address(account))] == (
        [True, False] if host.kind == "fastcgi" else [False])


@pytest.mark.parametrize("behaviour", ["bom", "nul-in-string", "job-no-id", "empty", "no-content"])
def test_acceptance_stands_when_there_is_no_job_to_follow(following, world, behaviour):
    account = world.add_account(behaviour)
    assert_accepted(world.retry(following, account), world, account)


@pytest.mark.parametrize("behaviour", JOB_OPEN)
def test_acceptance_stands_when_the_job_tells_nothing(following, world, behaviour):
    account, began = world.add_account(behaviour), time.monotonic()
    assert_accepted(world.retry(following, account), world, account)
    assert len(jobs_read(world, account)) == 1
    assert time.monotonic() - began < 0.15 + SLACK


@pytest.mark.parametrize("step", [
    "not-found", "unauthorized", "error-500", "html", "empty", "no-content", "array", "cut-length",
    "reset-before-headers", "oversized", "trailing-bytes", "error-member", "job-no-id"])
def test_acceptance_stands_when_the_job_cannot_be_read(fast_following, world, step):
    account = world.add_account()
    world.sandbox.script_job(world.address(account), step)
    assert_accepted(world.retry(fast_following, account), world, account)
    assert len(jobs_read(world, account)) >= 1


@pytest.mark.parametrize("body", [
    "{}", " {} ", "\r\n{\r\n}\r\n\t", '{"error":null}', '{"status":"failing"}', '{"status":"Failed"}',
    '{"status":null}',
    '{"status":7}', '{"status":["failed"]}', '{"status":"pending","data":{"failed_count":1}}', '{"Error":"x"}',
    '{"message":"x"}', '{"data":{"error":"x"}}', '{"id":7,"status":"pending"}', '{"id":"","status":"pending"}',
    '{"status":"paused"}', '{"status":"draining"}', '{"status":"in-progress"}', '{"status":"success"}',
    '{"status":"success","data":null}', '{"status":"success","data":{"failed_count":0}}',
    '{"status":"success","data":{"failed_count":1,"processed_emails":[{"email":"ADDRESS","status":"success"},'
    '{"email":"other@x.example","status":"failed"}]}}',
    '{"x":"\\u0000\\ud83d\\ude00"}', '{"x":"\u2028\U0001f600"}', '{"x":1e999,"y":-0.0,"z":' + "9" * 300 + "}",
    '{"a":1,"a":2}', '{"a":' + "[" * 200 + "]" * 200 + "}", sized(65536)],
    ids=lambda body: re.sub("[^a-z_0]+", "-", body)[:50].strip("-") or "object")
def test_one_json_object_that_says_no_no_is_an_acceptance(fast, world, body):
    account = world.add_account()
    world.sandbox.script(world.address(account), reply(200, body.replace("ADDRESS", world.address(account))))
    assert_accepted(world.retry(fast, account), world, account)


@pytest.mark.parametrize("status", [200, 201, 202, 203, 205, 206, 207, 226, 299])
def test_every_2xx_is_an_acceptance(fast, world, status):
    account = world.add_account()
    world.sandbox.script(world.address(account), reply(status, JOB if status != 205 else None))
    assert_accepted(world.retry(fast, account), world, account)


@pytest.mark.parametrize("raw", [
    b"HTTP/1.0 200 OK\r\n\r\n{}", b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}",
    b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;x=y\r\n}\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Trailer: x\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}"],
    ids=["http-1.0", "until-close", "no-phrase", "chunked", "trailer", "two-interim", "other-type"])
def test_whole_reply_in_any_framing_is_an_acceptance(fast, world, raw):
    account = world.add_account()
    world.sandbox.script(world.address(account), reply(send=wire.only(raw)))
    assert_accepted(world.retry(fast, account), world, account)


# --- the job -------------------------------------------------------------------------------------

def test_job_is_not_followed_when_that_is_off(quick, world):
    account = world.add_account("job-failed")
    assert_accepted(world.retry(quick, account), world, account)
    assert jobs_read(world, account) == []


def test_job_is_read_after_growing_waits_until_time_is_up(start, world):
    account, began = world.add_account("job-slow"), time.monotonic()
    answer = world.retry(start(WARMUP_JOB_WAIT_MS=350, WARMUP_WORKERS=1), account)
    assert_accepted(answer, world, account)
    enable, reads = world.sandbox.enables(world.address(account))[0], jobs_read(world, account)
    assert len(reads) == 2  # after 100 and 300 ms; the next would be after 700
    assert 0.09 < reads[0].time - enable.time and 0.29 < reads[1].time - enable.time
    assert time.monotonic() - began < 0.35 + SLACK
    assert {(call.method, call.target) for call in reads} == {("GET", f"/api/v2/background-jobs/{reads[0].job}")}


def test_job_that_fails_late_answers_502(start, world):
    account = world.add_account()
    world.sandbox.script_job(world.address(account), Reply(200, {**JOB, "status": "in-progress"}),
                             Reply(200, {**JOB, "status": "failed"}))
    before = world.account(account)
    answer = world.retry(start(WARMUP_JOB_WAIT_MS=350, WARMUP_WORKERS=1), account)
    assert_502(answer, failed("job_failed"))
    assert (world.account(account), len(jobs_read(world, account))) == (before, 2)


def test_job_that_ends_well_is_read_no_more(start, world):
    account = world.add_account()
    assert_accepted(world.retry(start(WARMUP_JOB_WAIT_MS=350, WARMUP_WORKERS=1), account), world, account)
    assert len(jobs_read(world, account)) == 1


@pytest.mark.parametrize("id_", [
    "a/b", "../accounts/x", "a?b#c", "a b", "%2e%2e", "\u00fc", "a\r\nX-Evil: 1", "a\"b", "~._-", "0a9F"])
def test_job_id_cannot_change_the_address_of_the_call(fast_following, world, id_):
    account = world.add_account()
    count = len(world.sandbox.calls)
    world.sandbox.script(world.address(account), reply(200, {**JOB, "id": id_}))
    assert_accepted(world.retry(fast_following, account), world, account)
    targets = [call.target for call in world.sandbox.calls[count + 1:]]
    # One that looks like no id need not be followed.
    assert targets in ([], ["/api/v2/background-jobs/" + quote(id_, safe="~")]) and (targets or id_ != "0a9F")


# --- already warming -----------------------------------------------------------------------------

@pytest.mark.parametrize("status", [400, 409, 422])
def test_refusal_of_an_account_that_is_warming_is_an_acceptance(quick, world, status):
    account = world.add_account()
    world.sandbox.set_account(world.address(account), 1)
    world.sandbox.script(world.address(account), Reply(status, {"message": "Warmup is already enabled"}))
    assert_accepted(world.retry(quick, account), world, account)
    assert [call.verdict for call in world.sandbox.enables(world.address(account))] == ["already"]
    assert len(accounts_read(world, account)) == 1


def test_behaviour_already_warming_is_an_acceptance(quick, world):
    account = world.add_account("already-warming")
    assert_accepted(world.retry(quick, account), world, account)


@pytest.mark.parametrize("status", [401, 402, 403, 404, 410, 429, 500, 503])
def test_other_refusals_do_not_ask_for_the_account(fast, world, status):
    account = world.add_account()
    world.sandbox.set_account(world.address(account), 1)
    world.sandbox.script(world.address(account), Reply(status, {"message": "Warmup is already enabled"}))
    assert_502(world.retry(fast, account), refused(status))
    assert (accounts_read(world, account), world.state(account)) == ([], STUCK)


@pytest.mark.parametrize("found", [
    Reply(200, {"warmup_status": 0}), Reply(200, {"warmup_status": -1}), Reply(200, {"warmup_status": -2}),
    Reply(200, {"warmup_status": 2}), Reply(200, {"warmup_status": 1.5}), Reply(200, {"warmup_status": "1"}),
    Reply(200, {"warmup_status": True}), Reply(200, {"warmup_status": None}), Reply(200, {}), Reply(200, None),
    Reply(200, [{"warmup_status": 1}]), Reply(200, {"account": {"warmup_status": 1}}), Reply(200, '{"warmup_status":1'),
    Reply(200, '{"warmup_status":1}}'), Reply(200, "<html>"), Reply(404, {"warmup_status": 1}),
    Reply(403, {"warmup_status": 1}), Reply(500, {"warmup_status": 1}), Reply(302, {"warmup_status": 1}), "hang",
    "reset-before-headers", "cut-length", "oversized"],
    ids=["paused", "banned", "unknown", "two", "fraction", "text", "true", "null", "absent", "empty", "array", "inside",
         "cut", "trailing", "html", "404", "403", "500", "302", "hang", "reset", "cut-length", "oversized"])
@pytest.mark.parametrize("status", [422])
def test_refusal_stands_unless_the_account_is_warming(fast, world, status, found):
    account = world.add_account()
    world.sandbox.script(world.address(account), Reply(status, {"message": "no"}, {"Retry-After": "9"}))
    world.sandbox.script_account(world.address(account), found)
    assert_left_alone_then_good(fast, world, account, refused(status, "9"))
    # A kept connection that breaks before a byte came may cost a second reading, as with enables.
    assert len(accounts_read(world, account)) in ((1, 2) if found == "reset-before-headers" else (1,))


# --- Retry-After ---------------------------------------------------------------------------------

def date_in(seconds, form):
    return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)).strftime(form)


@pytest.mark.parametrize("given, expected", [
    ("1", "1"), ("7", "7"), ("5", "5"), ("60", "60"), ("3600", "3600"), ("007", "7"), (" 7 ", "7"),
    (None, "5"), ("", "5"), ("0", "5"), ("3601", "5"), ("86400", "5"), ("-5", "5"), ("-1", "5"), ("soon", "5"),
    ("99999999999999999999", "5"), ("9223372036854775807", "5"), ("4294967297", "5"), ("2147483648", "5"), ("+", "5"),
    ("Sun, 06 Nov 1994 08:49:37 GMT", "5"), ("Sunday, 06-Nov-94 08:49:37 GMT", "5"), ("Sun Nov  6 08:49:37 1994", "5"),
    ("Fri, 31 Dec 9999 23:59:59 GMT", "5"), ("7\tx", None), ("1.5", None), ("7, 9", None)],
    ids=lambda value: "absent" if value is None else value.strip() or "empty")
def test_retry_after_in_seconds_is_handed_on_from_1_to_3600(fast, world, given, expected):
    account = world.add_account()
    world.sandbox.script(world.address(account), Reply(429, {}, {} if given is None else {"Retry-After": given}))
    answer = world.retry(fast, account)
    # Some are read up to where they stop being a number: no more is promised than a number in the range.
    assert_502(answer, refused(429, expected or answer.headers["retry-after"]))
    assert 1 <= int(answer.headers["retry-after"]) <= 3600


# The clock that libcurl reads may still be in the second before ours.
@pytest.mark.parametrize("form", ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"],
                         ids=["imf-fixdate", "rfc-850", "asctime"])
@pytest.mark.parametrize("seconds, wanted", [(60, range(55, 62)), (3590, range(3585, 3592)), (-60, [5]), (-2, [5]),
                                             (7200, [5]), (365 * 86400, [5])])
def test_retry_after_as_a_date_is_handed_on_as_seconds(fast, world, seconds, wanted, form):
    account = world.add_account()
    world.sandbox.script(world.address(account), Reply(503, {}, {"Retry-After": date_in(seconds, form)}))
    answer = world.retry(fast, account)
    assert answer.status == 502 and int(answer.headers["retry-after"]) in wanted


def test_behaviour_rate_limited_date(quick, world):
    answer = world.retry(quick, world.add_account("rate-limited-date"))
    assert 55 <= int(answer.headers["retry-after"]) <= 61
    assert_502(answer, refused(429, answer.headers["retry-after"]))


@pytest.mark.parametrize("body", ["<html>", "[]", "{"])
def test_retry_after_of_an_unusable_reply_does_not_count(fast, world, body):
    account = world.add_account()
    world.sandbox.script(world.address(account), Reply(200, body, {"Retry-After": "7"}, "none"))
    assert_502(world.retry(fast, account), unusable("not_json"))


# --- the log -------------------------------------------------------------------------------------

@pytest.mark.parametrize("behaviour, status, operator", [
    ("unauthorized", 401, True), ("no-plan", 402, True), ("forbidden", 403, True), ("bad-request", 400, False),
    ("not-found", 404, False), ("rate-limited", 429, False), ("error-500", 500, False)])
def test_refusals_that_only_the_operator_can_mend_are_logged_as_such(quick, world, behaviour, status, operator):
    account, since, mine = world.add_account(behaviour), len(quick.log()), "mine-" + secrets.token_hex(8)
    assert world.retry(quick, account, headers={"X-Request-Id": mine}).status == 502
    lines = [json.loads(line) for line in quick.log()[since:].splitlines()]
    assert [line.get("request_id") for line in lines] == [mine] * len(lines)
    assert (lines[-1]["status"], lines[-1]["code"], lines[-1]["upstream_status"]) == (502, "upstream_rejected", status)
    assert (lines[-1]["account_id"], lines[-1]["user_id"]) == (account, world.user)
    faults = [("Instantly" in line["fault"], line["level"]) for line in lines[:-1]]
    assert faults == ([(True, "error")] if operator else [])


def test_words_of_instantly_reach_neither_the_caller_nor_the_log(quick, world):
    mark = "mark" + secrets.token_hex(8)
    for answer in (Reply(422, {"message": mark, "error": mark}, {"X-Mark": mark}), Reply(200, mark, verdict="none"),
                   Reply(200, {"error": mark}, verdict="refused"),
                   Reply(200, {**JOB, "status": "failed", "data": mark})):
        account, since = world.add_account(), len(quick.log())
        world.sandbox.script(world.address(account), answer)
        got = world.retry(quick, account)
        assert got.status == 502 and mark.encode() not in got.body and mark not in str(got.headers)
        assert mark not in quick.log()[since:]


# --- what Instantly sees -------------------------------------------------------------------------

def test_request_to_instantly_is_exactly_this(host, world):
    account = world.add_account()
    assert world.retry(host, account, headers={"Cookie": "a=b", "User-Agent": "caller", "X-Request-Id": "mine",
                                               "Expect": ""}, body=b'{"a":1}').status == 200
    call = world.sandbox.enables(world.address(account))[0]
    body = b'{"emails":["%s"]}' % world.address(account).encode()
    assert (call.method, call.target, call.body) == ("POST", "/api/v2/accounts/warmup/enable", body)
    headers = dict(call.headers)
    assert re.fullmatch(r"warmup[a-z-]*/\d+\.\d+\.\d+", headers.pop("User-Agent"))
    assert headers == {"Host": f"127.0.0.1:{world.sandbox.port}", "Authorization": f"Bearer {UPSTREAM_KEY}",
                       "Accept": "application/json", "Content-Type": "application/json",
                       "Content-Length": str(len(body))}
    assert len(call.headers) == len(headers) + 1
    job = jobs_read(world, account)[0]
    headers = dict(job.headers)
    assert headers.pop("User-Agent").startswith("warmup")
    assert headers == {"Host": f"127.0.0.1:{world.sandbox.port}", "Authorization": f"Bearer {UPSTREAM_KEY}",
                       "Accept": "application/json"}
    assert job.body == b""


def test_cookies_of_instantly_are_not_kept(quick, world):
    first, second = world.add_account(), world.add_account()
    world.sandbox.script(world.address(first), Reply(200, JOB, {"Set-Cookie": "a=b; Path=/"}))
    for account in (first, second):
        assert_accepted(world.retry(quick, account), world, account)
    assert wire.values(world.sandbox.enables(world.address(second))[0].headers, "cookie") == []


@pytest.mark.parametrize("slashes", ["/", "///"])
def test_slash_at_the_end_of_the_base_address_does_not_count(build, world, slashes):
    host = Cgi(build / "warmup.fcgi", world.settings(INSTANTLY_API_URL=world.sandbox.url + slashes, **QUICK))
    account = world.add_account()
    assert_accepted(world.retry(host, account), world, account)


@pytest.mark.parametrize("local", [
    "o'neil", 'quo"te', "back\\slash", 'both\\"', "per%cent", "%41", "pl+us", "sla/sh", "que?ry", "hash#", "am&p",
    "com,ma", "semi;colon", "{curly}", "[square]", "<script>", "</script>", "$(id)", "`id`", "a@b", "..", "tilde~_-.",
    "\u00fcml\u00e4ut",
    "\u65e5\u672c", "\U0001f600", "e\u0301", "\\u0041", "\\n", "%0d%0a", "*", "=?utf-8?q?x?="])
def test_address_arrives_as_it_is(fast, world, local):
    """In the body of the enable, and percent-encoded in the path that reads the account."""
    address = f"{local}+{secrets.token_hex(4)}{ADDRESS_MARK}"
    account = world.add_account(email_address=address)
    world.sandbox.script(address, Reply(422, {}))
    assert_502(world.retry(fast, account), refused(422))
    assert_accepted(world.retry(fast, account), world, account, 2)
    body = ('{"emails":[%s]}' % json.dumps(address, ensure_ascii=False)).encode()
    assert [call.body for call in world.sandbox.enables(address)] == [body, body]
    assert [call.target for call in accounts_read(world, account)] == [
        "/api/v2/accounts/" + quote(address, safe="~")]


@pytest.mark.parametrize("local", ["line\u2028separator", "para\u2029graph", "next\u0085line", "no\u00a0break",
                                   "x" * (512 - 13 - len(ADDRESS_MARK))])
def test_odd_address_arrives_as_it_is_in_other_words(fast, world, local):
    """As JSON says it, perhaps with escapes."""
    address = f"{local}+{secrets.token_hex(6)}{ADDRESS_MARK}"
    account = world.add_account(email_address=address)
    assert_accepted(world.retry(fast, account), world, account)
    assert [json.loads(call.body) for call in world.sandbox.enables(address)] == [{"emails": [address]}]


@pytest.mark.parametrize("address", [
    None, "", " ", "   ", "\t", "\n", "a b@x.example", " a@x.example", "a@x.example ", "a@x.example\n",
    "a\r\nb@x.example",
    "a\tb@x.example", "a\u0001@x.example", "a\u007f@x.example", "x" * 100_000 + "@x.example"],
    ids=lambda address: "null" if address is None else address[:16].encode("unicode_escape").decode() or "empty")
def test_account_without_a_usable_address_answers_409_and_calls_nobody(host, world, address):
    account = world.add_account(email_address=address)
    before, calls = world.account(account), len(world.sandbox.calls)
    assert_error(world.retry(host, account), 409, "conflict", NO_ADDRESS,
                 {"status": "pending", "warmup_status": "not_started"})
    assert (world.account(account), len(world.sandbox.calls)) == (before, calls)


# --- redirects -----------------------------------------------------------------------------------

@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("target", ["other-port", "other-host", "file", "same"])
def test_redirects_are_not_followed(fast, world, code, target):
    box = world.sandbox
    with Sandbox(UPSTREAM_KEY) as other:
        box.redirect_to = {"other-port": other.url + "/accounts/warmup/enable",
                           "other-host": other.url.replace("127.0.0.1", "localhost") + "/accounts/warmup/enable",
                           "file": "file:///etc/passwd", "same": box.url + "/accounts/warmup/enable"}[target]
        try:
            account, calls = world.add_account(f"redirect-{code}"), len(box.calls)
            assert_502(world.retry(fast, account), refused(code))
            assert (other.calls, len(box.calls), world.state(account)) == ([], calls + 1, STUCK)
        finally:
            box.redirect_to = None


def test_redirects_of_the_job_and_of_the_account_are_not_followed(following, world):
    with Sandbox(UPSTREAM_KEY) as other:
        away = Reply(302, None, {"Location": other.url + "/background-jobs/x"})
        account = world.add_account()
        world.sandbox.script_job(world.address(account), away)
        assert_accepted(world.retry(following, account), world, account)
        account = world.add_account("bad-request")
        world.sandbox.script_account(world.address(account), away)
        assert_502(world.retry(following, account), refused(400))
        assert other.calls == []


# --- the way there -------------------------------------------------------------------------------

def test_closed_port_is_unreachable(start, world):
    host = start(INSTANTLY_API_URL=f"http://127.0.0.1:{stack.free_port()}", **QUICK)
    account = world.add_account()
    before = world.account(account)
    assert_502(world.retry(host, account), unusable("unreachable"))
    assert world.account(account) == before


def test_name_that_is_none_is_unreachable(build, world):
    """A label is too long for DNS, so no resolver has to be asked."""
    host = Cgi(build / "warmup.fcgi", world.settings(INSTANTLY_API_URL=f"https://{'x' * 64}.invalid/api/v2"))
    account = world.add_account()
    assert_502(world.retry(host, account), unusable("unreachable"))
    assert world.state(account) == STUCK


@contextlib.contextmanager
def black_hole():
    """A port on which nothing connects any more: its queue is full and nobody accepts."""
    with socket.socket() as listener, contextlib.ExitStack() as clients:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_connecting_has_a_limit_of_its_own(serve, world):
    account, began = world.add_account(), time.monotonic()
    with black_hole() as port:
        host = serve(world, INSTANTLY_API_URL=f"http://127.0.0.1:{port}", WARMUP_UPSTREAM_CONNECT_TIMEOUT_MS=200)
        assert_502(world.retry(host, account), unusable("timeout"))
        assert time.monotonic() - began < 0.2 + SLACK
    assert world.state(account) == STUCK


def test_restart_of_instantly_between_two_calls_goes_unnoticed(start, world):
    with Sandbox(UPSTREAM_KEY) as box:
        host = start(INSTANTLY_API_URL=box.url, **QUICK)
        for _ in range(3):
            account = world.add_account()
            assert world.retry(host, account).status == 200
            assert len(box.enables(world.address(account))) == 1
            box.stop()
            box.start()


# --- TLS -----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A folder with an authority, ca.pem, and what it and others signed: NAME.pem with NAME.key."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*words, **options):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, **options)

    def authority(name):
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")

    def leaf(name, host, signer="ca", dates=("20200101000000Z", "20990101000000Z")):
        (folder / "sign.cnf").write_text(
            "[ca]\ndefault_ca=own\n[own]\nnew_certs_dir=.\ndatabase=index.txt\nserial=serial\ndefault_md=sha256\n"
            "policy=any\nunique_subject=no\nx509_extensions=names\n[any]\ncommonName=supplied\n"
            f"[names]\nsubjectAltName={host}\n")
        (folder / "index.txt").write_text("")
        (folder / "serial").write_text(secrets.token_hex(8))
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost",
                "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl("ca", "-batch", "-config", "sign.cnf", "-in", f"{name}.csr", "-out", f"{name}.pem", "-notext",
                "-cert", f"{signer}.pem", "-keyfile", f"{signer}.key", "-startdate", dates[0], "-enddate", dates[1])

    authority("ca")
    authority("other")
    leaf("good", "DNS:localhost")
    leaf("wrong-host", "DNS:api.instantly.ai")
    leaf("address-only", "IP:127.0.0.1")
    leaf("expired", "DNS:localhost", dates=("20200101000000Z", "20200201000000Z"))
    leaf("not-yet", "DNS:localhost", dates=("20900101000000Z", "20990101000000Z"))
    leaf("unknown-authority", "DNS:localhost", "other")
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
            "-keyout", "self-signed.key", "-out", "self-signed.pem")
    return folder


def tls(certificates, name="good"):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
    return context


@pytest.fixture(scope="module")
def secure(certificates):
    """A sandbox that speaks TLS, with a good certificate until a case gives it another one."""
    with Sandbox(UPSTREAM_KEY, tls(certificates)) as box:
        yield box


def use(box, context):
    """Another certificate, and no connection or session from before."""
    box.stop()
    box.tls = context
    box.clear()
    box.start()


@pytest.fixture
def trusting(start, certificates, secure):
    """The responder that is to reach the secure sandbox and trusts the authority."""
    yield start(INSTANTLY_API_URL=secure.url, INSTANTLY_CA_FILE=certificates / "ca.pem", **QUICK)
    use(secure, tls(certificates))


def test_certificate_of_the_named_authority_is_trusted(trusting, secure, world):
    for _ in range(2):
        account = world.add_account()
        assert world.retry(trusting, account).status == 200
        call, = secure.enables(world.address(account))
        assert call.authorization_ok and world.state(account) == WARMING


def test_server_that_closes_after_each_reply_costs_no_call(trusting, secure, world):
    """libcurl repeats a call whose kept connection turns out dead; its count of such must not add up over calls."""
    done = wire.Reply(200, {"id": "675266e304a8e55b17f0228b", "status": "success"}, verdict="accepted",
                      send=lambda connection, data: wire.whole(connection, data) and False)
    for _ in range(1 if trusting.kind == "cgi" else 20):
        account = world.add_account()
        secure.script(world.address(account), done)
        assert world.retry(trusting, account).status == 200
        time.sleep(0.01)


def assert_no_tls(host, box, world, reasons=("tls",)):
    account = world.add_account()
    before, answer = world.account(account), world.retry(host, account)
    assert answer.error["details"]["reason"] in reasons
    assert_502(answer, unusable(answer.error["details"]["reason"]))
    assert (box.calls, world.account(account)) == ([], before)


@pytest.mark.parametrize("name", [
    "wrong-host", "address-only", "expired", "not-yet", "unknown-authority", "self-signed"])
def test_wrong_certificate_is_refused_before_the_key_is_sent(trusting, secure, certificates, world, name):
    use(secure, tls(certificates, name))
    assert_no_tls(trusting, secure, world)


def test_kept_connection_is_no_way_around_the_certificate(trusting, secure, certificates, world):
    account = world.add_account()
    assert world.retry(trusting, account).status == 200
    use(secure, tls(certificates, "wrong-host"))
    assert_no_tls(trusting, secure, world)
    use(secure, tls(certificates))
    account = world.add_account()
    assert world.retry(trusting, account).status == 200


def test_tls_1_1_is_too_old(trusting, secure, certificates, world):
    context = tls(certificates)
    try:
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning):
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    except (ssl.SSLError, ValueError):
        pytest.skip("this OpenSSL knows no TLS 1.1")
    use(secure, context)
    assert_no_tls(trusting, secure, world)


def test_tls_1_2_is_new_enough(trusting, secure, certificates, world):
    context = tls(certificates)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    use(secure, context)
    account = world.add_account()
    assert world.retry(trusting, account).status == 200


def test_server_that_wants_a_certificate_of_ours_gets_none(trusting, secure, certificates, world):
    context = tls(certificates)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # later versions refuse after the handshake
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    use(secure, context)
    assert_no_tls(trusting, secure, world, ("tls", "incomplete"))


class AnswersPlainly:
    """In the place of an SSLContext: a server of HTTP, to which the beginning of TLS is no request."""

    def wrap_socket(self, sock, **_):
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}")
        sock.close()
        raise OSError


class HangsUp:
    def wrap_socket(self, sock, **_):
        sock.close()
        raise OSError


def test_plain_http_on_the_port_is_no_tls(trusting, secure, world):
    use(secure, AnswersPlainly())
    assert_no_tls(trusting, secure, world)


def test_silent_port_ends_the_handshake_by_timeout(trusting, secure, world):
    secure.stop()
    secure.clear()
    with socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        silent.bind(("127.0.0.1", secure.port))
        silent.listen(5)
        assert_no_tls(trusting, secure, world, ("timeout",))
    secure.start()


def test_port_that_hangs_up_in_the_handshake_is_no_answer(trusting, secure, world):
    use(secure, HangsUp())
    assert_no_tls(trusting, secure, world, ("tls", "incomplete"))


def test_without_the_named_authority_the_systems_decide(start, secure, world):
    """Ours is none of them."""
    host = start(INSTANTLY_API_URL=secure.url, **QUICK)
    secure.clear()
    assert_no_tls(host, secure, world)


def test_named_authority_stands_alone(start, secure, certificates, world):
    host = start(INSTANTLY_API_URL=secure.url, INSTANTLY_CA_FILE=certificates / "other.pem", **QUICK)
    secure.clear()
    assert_no_tls(host, secure, world)


@pytest.mark.parametrize("file", ["absent.pem", "good.key"])
def test_unusable_file_of_authorities_trusts_nobody(build, certificates, secure, world, file):
    host = Cgi(build / "warmup.fcgi", world.settings(
        INSTANTLY_API_URL=secure.url, INSTANTLY_CA_FILE=certificates / file, **QUICK))
    secure.clear()
    assert_no_tls(host, secure, world)

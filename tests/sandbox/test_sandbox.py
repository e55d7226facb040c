"""The sandbox does what its table says: each behaviour seen from a client that reads raw bytes."""
import email.utils
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import types
from urllib.parse import quote

import pytest

from . import instantly, wire
from .behaviours import BEHAVIOURS
from .instantly import Reply, Sandbox

KEY = "sandbox key/1"
ENABLE = "/api/v2/accounts/warmup/enable"
HEADERS = {"Authorization": f"Bearer {KEY}", "User-Agent": "test",
           "Content-Type": "application/json"}


@pytest.fixture(name="box")
def running_sandbox(monkeypatch):
    monkeypatch.setattr(wire, "DRIP_SECONDS", 0.02)
    with Sandbox(KEY) as box:
        yield box
        began = time.monotonic()
    assert time.monotonic() - began < 1, "stop() must not wait for anybody"


class Client:
    """One kept connection, on which a call is one line."""

    def __init__(self, box, timeout=2.0):
        self.http = http.client.HTTPConnection("127.0.0.1", box.port, timeout=timeout)

    def __del__(self):
        self.http.close()

    def call(self, method, target, body=None, headers=None):
        self.http.request(method, target, body, HEADERS if headers is None else headers)
        reply = self.http.getresponse()
        data = reply.read()
        return reply.status, json.loads(data) if data[:1] in (b"{", b"[") else data, reply

    def enable(self, *emails, **members):
        return self.call("POST", ENABLE, json.dumps({"emails": emails, **members}))


def request(address, more=""):
    body = json.dumps({"emails": [address]}, separators=(",", ":"))
    head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    return (f"POST {ENABLE} HTTP/1.1\r\nHost: x\r\n{head}{more}"
            f"Content-Length: {len(body)}\r\n\r\n{body}").encode()


def raw(box, data, most=1 << 20, seconds=2.0):
    """Send bytes; all that comes back (up to `most`), and how it ended."""
    with socket.create_connection(("127.0.0.1", box.port), timeout=seconds) as sock:
        sock.sendall(data)
        got = bytearray()
        try:
            while len(got) < most:
                more = sock.recv(65536)
                if not more:
                    return bytes(got), "fin"
                got += more
        except TimeoutError:
            return bytes(got), "open"
        except ConnectionResetError:
            return bytes(got), "rst"
        return bytes(got), "more"


def until(condition, seconds=2.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    assert condition()


# --- when all is well ----------------------------------------------------------------------------

def test_enable_queues_a_job_that_succeeds(box):
    client = Client(box)
    status, job, reply = client.enable("a@demo.example")
    assert status == 200 and reply.getheader("Content-Type").startswith("application/json")
    assert job["status"] == "pending" and job["progress"] == 0 and job["data"] == {}
    assert len(job["id"]) == 24 and int(job["id"], 16) and job["user_id"] is None
    assert job["type"] == "update-warmup-accounts" and job["entity_type"] == "workspace"
    path = f"/api/v2/background-jobs/{job['id']}"
    assert client.call("GET", path)[1]["status"] == "in-progress"
    time.sleep(box.job_seconds)
    done = client.call("GET", path)[1]
    assert done["status"] == "success" and done["progress"] == 100
    assert done["data"] == {"step": "DONE", "total_to_process": 1, "success_count": 1,
                            "failed_count": 0, "processed_emails": [
                                {"email": "a@demo.example", "status": "success"}]}
    assert box.accounts["a@demo.example"]["warmup_status"] == 1 and box.accepted("a@demo.example")
    assert not box.accepted("b@demo.example")


def test_calls_are_recorded_byte_for_byte(box):
    data = request("a@demo.example", more="x-Odd:  two  words \r\n")
    data = data.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    raw(box, data)
    client = Client(box)
    client.enable("b@demo.example", "c@demo.example")
    client.call("GET", "/api/v2/accounts/c%40demo.example")
    first, second, third = box.calls
    assert first.head + first.body == data and ("x-Odd", "two  words") in first.headers
    assert first.body == b'{"emails":["a@demo.example"]}'
    assert [(call.n, call.connection, call.turn) for call in box.calls] == [
        (1, 1, 1), (2, 2, 1), (3, 2, 2)]
    assert (second.kind, second.address, second.verdict) == ("enable", "b@demo.example", "accepted")
    assert (third.kind, third.address, third.verdict) == ("account", "c@demo.example", "none")
    assert box.enables() == [first, second] and box.enables("c@demo.example") == [second]
    box.clear()
    assert box.calls == [] and abs(first.time - time.time()) < 5


def test_accounts(box):
    client, path = Client(box), "/api/v2/accounts/" + quote("odd+1@demo.example", safe="")
    assert client.call("GET", path)[:2] == (404, {
        "statusCode": 404, "error": "Not Found", "message": "Account not found"})
    box.set_account("odd+1@demo.example", -1, 55)
    status, account, _ = client.call("GET", path)
    assert status == 200 and account["email"] == "odd+1@demo.example"
    assert account["warmup_status"] == -1 and account["stat_warmup_score"] == 55
    assert client.call("GET", "/api/v2/background-jobs/" + "0" * 24)[0] == 404


def test_list_of_accounts_comes_in_pages(box):
    client, path = Client(box), "/api/v2/accounts"
    assert client.call("GET", path)[:2] == (200, {"items": [], "next_starting_after": None})
    for name in "cab":
        box.set_account(f"{name}@demo.example", 1)
    whole = client.call("GET", path)[1]
    assert [item["email"] for item in whole["items"]] == [f"{name}@demo.example" for name in "abc"]
    assert whole["next_starting_after"] is None
    first = client.call("GET", f"{path}?limit=2")[1]
    assert first == {"items": whole["items"][:2], "next_starting_after": "b@demo.example"}
    rest = client.call("GET", f"{path}?limit=2&starting_after={quote(first['next_starting_after'])}")
    assert rest[1] == {"items": whole["items"][2:], "next_starting_after": None}
    for limit in "0", "101", "x", "":
        assert client.call("GET", f"{path}?limit={limit}&x=")[0] == (200 if limit == "" else 400)
    assert {call.kind for call in box.calls} == {"accounts"}


def test_list_of_accounts_can_be_scripted(box):
    box.script_list("error-503", Reply(200, b"[]"))
    client = Client(box)
    assert [client.call("GET", "/api/v2/accounts?limit=1")[0] for _ in range(3)] == [503, 200, 200]
    assert [call.behaviour for call in box.calls] == ["error-503", "scripted", "normal"]


@pytest.mark.parametrize("scope, refused", [
    ("accounts:update", ["enable"]), ("accounts:read", ["account", "accounts"]),
    ("background-jobs:read", ["job"])])
def test_scope_that_the_key_lacks_is_a_403_on_its_routes(box, scope, refused):
    box.set_account("a@demo.example", 1)
    box.scopes.remove(scope)
    client = Client(box)
    got = {"enable": client.enable("a@demo.example"),
           "account": client.call("GET", "/api/v2/accounts/a%40demo.example"),
           "accounts": client.call("GET", "/api/v2/accounts"),
           "job": client.call("GET", "/api/v2/background-jobs/" + "0" * 24)}
    assert [kind for kind, reply in got.items() if reply[0] == 403] == refused
    for kind in refused:
        assert got[kind][1] == {"statusCode": 403, "error": "Forbidden",
                                "message": f"Missing scope {scope}"}
    assert [call.verdict for call in box.calls if call.kind == "enable"] == [
        "refused" if "enable" in refused else "accepted"]


@pytest.mark.parametrize("change, status, message", [
    ({"User-Agent": ""}, 403, None),
    ({"Authorization": None}, 401, "Missing Authorization header"),
    ({"Authorization": "Bearer wrong"}, 401, "Invalid API key"),
    ({"Content-Type": "text/plain"}, 400, "Body must be a JSON object sent as application/json"),
])
def test_gates(box, change, status, message):
    headers = {n: v for n, v in {**HEADERS, **change}.items() if v is not None}
    got, body, reply = Client(box).call("POST", ENABLE, '{"emails":["a@demo.example"]}', headers)
    assert got == status and box.calls[0].verdict == "refused" and box.calls[0].behaviour is None
    assert box.calls[0].authorization_ok == ("Authorization" not in change)
    if message is None:
        assert body == b"error code: 1010"
        assert reply.getheader("Content-Type").startswith("text/plain")
    else:
        assert body["message"] == message and body["statusCode"] == status
    assert not box.accounts


@pytest.mark.parametrize("body, status, verdict", [
    ('{"emails":"a@demo.example"}', 400, "refused"),
    ('{"emails":[1]}', 400, "refused"),
    (json.dumps({"emails": ["a@demo.example"] * 101}), 400, "refused"),
    (json.dumps({"emails": ["a@demo.example"] * 100}), 200, "accepted"),
    ("[]", 400, "refused"), ("nonsense", 400, "refused"), ("", 400, "refused"),
    ('{"email":"a@demo.example"}', 200, "none"), ('{"emails":[]}', 200, "none"),
    ("{}", 200, "none"),
    ('{"include_all_emails":true}', 200, "everything"),
    ('{"emails":["a@demo.example"],"include_all_emails":true}', 200, "everything"),
])
def test_forms(box, body, status, verdict):
    assert Client(box).call("POST", ENABLE, body)[0] == status
    assert box.calls[0].verdict == verdict
    assert box.accepted("a@demo.example") == (verdict == "accepted")


def test_unknown_routes(box):
    client = Client(box)
    for method, path in ("GET", ENABLE), ("POST", "/api/v2/accounts"), ("GET", "/"), (
            "POST", "/api/v1/accounts/warmup/enable"):
        assert client.call(method, path)[0] == 404
    assert {call.kind for call in box.calls} == {"other"}


def test_chunked_bodies_and_expect(box):
    head = request("a@demo.example").partition(b"Content-Length")[0]
    got, _ = raw(box, head + b"Expect: 100-continue\r\nConnection: close\r\n"
                 b"Transfer-Encoding: chunked\r\n\r\nb\r\n{\"emails\":[\r\n"
                 b"12;x=y\r\n\"a@demo.example\"]}\r\n0\r\nTrailer: x\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert box.calls[0].body == b'{"emails":["a@demo.example"]}' and box.accepted("a@demo.example")


@pytest.mark.parametrize("data, status", [
    (b"\x16\x03\x01\x02\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nbad line\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nX: " + b"x" * 70000 + b"\r\n\r\n", 431),
    (b"POST / HTTP/1.1\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 100_000, 413),
    (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400),
    (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n", 400),
])
def test_unreadable_requests(box, data, status):
    with socket.create_connection(("127.0.0.1", box.port), timeout=2) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(65536).startswith(b"HTTP/1.1 %d " % status)
    assert box.calls[0].kind == "other" and box.calls[0].method == ""
    assert data.startswith(box.calls[0].head) and len(box.calls[0].head) <= wire.HEAD_MAX


# --- the table -----------------------------------------------------------------------------------

REFUSALS = {"refused": 422, "bad-request": 400, "unauthorized": 401, "no-plan": 402,
            "forbidden": 403, "not-found": 404, "conflict": 409, "rate-limited": 429,
            "rate-limited-date": 429, "error-500": 500, "error-503": 503, "already-warming": 400}
JOBS = {  # how the job ends, what its item says, verdict
    "job-failed": ("success", "failed", "refused"),
    "job-failed-at-once": ("success", "failed", "refused"),
    "job-status-failed": ("failed", None, "refused"),
    "job-cancelled": ("cancelled", None, "refused"),
    "job-slow": ("in-progress", None, "accepted"),
    "normal": ("success", "success", "accepted"),
}
REPLIES = {  # what a raw client gets: start of the bytes, their end or None, how it ends, verdict
    "error-member": (b"HTTP/1.1 200", b'\r\n\r\n{"error":"Account not found"}', "fin", "refused"),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0", b"\r\n\r\n", "fin", "accepted"),
    "no-content": (b"HTTP/1.1 204 No Content\r\nConnection", b"\r\n\r\n", "fin", "accepted"),
    "array": (b"HTTP/1.1 200", b"\r\n\r\n[]", "fin", "none"),
    "null": (b"HTTP/1.1 200", b"\r\n\r\nnull", "fin", "none"),
    "html": (b"HTTP/1.1 200", b"</title>", "fin", "none"),
    "trailing-bytes": (b"HTTP/1.1 200", b"}}garbage", "fin", "none"),
    "deep": (b"HTTP/1.1 200", b"\r\n\r\n" + b"[" * 1001 + b"]" * 1001, "fin", "none"),
    "invalid-utf8": (b"HTTP/1.1 200", b'"pend\xff\xc0\x80ing"}', "fin", "none"),
    "cut-length": (b"HTTP/1.1 200", b'\r\n\r\n{"id":"67', "fin", "none"),
    "cut-chunked": (b"HTTP/1.1 200", b'"pending"}\r\n', "fin", "none"),
    "cut-close": (b"HTTP/1.0 200", b'\r\n\r\n{"id":"67', "fin", "none"),
    "reset-mid-body": (b"HTTP/1.1 200", b'\r\n\r\n{"id":"67', "rst", "none"),
    "reset-before-headers": (b"", b"", "rst", "none"),
    "close-before-headers": (b"", b"", "fin", "none"),
    "lost-after-accept": (b"", b"", "rst", "accepted"),
    "endless": (b"HTTP/1.1 200", None, "more", "none"),
    "huge-header": (b"HTTP/1.1 200 OK\r\nX-Filler: xx", b"}", "fin", "accepted"),
    "many-headers": (b"HTTP/1.1 200 OK\r\nX-Filler: xx", None, "more", "accepted"),
    "not-http": (b"\x00\x01\x02", b"\r\n\r\n", "fin", "none"),
    "early-hints": (b"HTTP/1.1 103 Early Hints\r\n", b"}", "fin", "accepted"),
    "continue-first": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK", b"}", "fin", "accepted"),
}
REDIRECTS = [f"redirect-{code}" for code in (301, 302, 303, 307, 308)]
ELSEWHERE = {"job-no-id", "job-unreadable", "job-hangs", "bom", "nul-in-string", "oversized",
             "gzip-bomb", "hang", "slow", "slow-body", "slow-header", "close-after-second"}


def test_every_behaviour_is_tested():
    assert set(BEHAVIOURS) == {*REFUSALS, *JOBS, *REPLIES, *REDIRECTS, *ELSEWHERE}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(box, name):
    address = f"{name}+7@demo.example"
    status, body, reply = Client(box).enable(address)
    assert status == body["statusCode"] == REFUSALS[name] and "error" in body and body["message"]
    call, = box.calls
    assert call.behaviour == name
    assert call.verdict == ("already" if name == "already-warming" else "refused")
    assert box.accepted(address) == (name == "already-warming")
    after = reply.getheader("Retry-After")
    if name == "rate-limited":
        assert after == "7"
    elif name == "rate-limited-date":
        date = email.utils.parsedate_to_datetime(after).timestamp()
        assert 55 < date - time.time() <= 61 and after.endswith(" GMT")
    else:
        assert after is None


@pytest.mark.parametrize("name", JOBS)
def test_jobs(box, name):
    box.job_seconds = 0.02
    end, item, verdict = JOBS[name]
    address, client = f"{name}@demo.example", Client(box)
    first = client.enable(address)[1]
    assert first["status"] == (end if name == "job-failed-at-once" else "pending")
    assert box.calls[0].verdict == verdict and (address in box.accounts) == (verdict == "accepted")
    time.sleep(0.03)
    job = client.call("GET", f"/api/v2/background-jobs/{first['id']}")[1]
    assert job["status"] == end
    if item:
        assert job["data"]["failed_count"] == (item == "failed")
        processed, = job["data"]["processed_emails"]
        assert processed["email"] == address and processed["status"] == item
        assert processed.get("error") == ("Account not found" if item == "failed" else None)


@pytest.mark.parametrize("name", REPLIES)
def test_replies(box, name):
    start, end, how, verdict = REPLIES[name]
    address = f"{name}@demo.example"
    got, ended = raw(box, request(address, more="Connection: close\r\n"))
    assert got.startswith(start) and ended == how
    assert end is None or got.endswith(end)
    assert box.calls[0].verdict == verdict and box.accepted(address) == (verdict == "accepted")


@pytest.mark.parametrize("name", REDIRECTS)
def test_redirects(box, name):
    client = Client(box)
    status, _, reply = client.enable(f"{name}@demo.example")
    assert status == int(name[-3:]) and reply.getheader("Location") == box.url + "/elsewhere"
    box.redirect_to = "http://127.0.0.1:1/"
    assert client.enable(f"{name}@demo.example")[2].getheader("Location") == box.redirect_to
    assert {call.verdict for call in box.calls} == {"none"}


def test_bodies_that_need_a_closer_look(box):
    client = Client(box)
    assert "id" not in client.enable("job-no-id@demo.example")[1]
    assert "\0" in client.enable("nul-in-string@demo.example")[1]["id"]
    assert client.enable("bom@demo.example")[1].startswith(b'\xef\xbb\xbf{"id":')
    assert {call.verdict for call in box.calls} == {"accepted"}
    _, body, reply = client.enable("oversized@demo.example")
    assert reply.getheader("Content-Length") == "70000" and isinstance(body, dict)
    _, body, reply = client.enable("gzip-bomb@demo.example")
    assert reply.getheader("Content-Encoding") == "gzip" and len(body) < 20_000
    assert [call.verdict for call in box.calls[-2:]] == ["none", "none"]


def test_jobs_that_cannot_be_read(box):
    client = Client(box, timeout=0.1)
    job = client.enable("job-unreadable@demo.example")[1]
    assert client.call("GET", f"/api/v2/background-jobs/{job['id']}")[0] == 403
    job = client.enable("job-hangs@demo.example")[1]
    with pytest.raises(TimeoutError):
        client.call("GET", f"/api/v2/background-jobs/{job['id']}")
    assert box.accepted("job-hangs@demo.example") and len(box.calls) == 4


def test_hang_ends_when_the_client_leaves(box):
    assert raw(box, request("hang@demo.example"), seconds=0.1) == (b"", "open")
    until(lambda: not box._connections)
    assert box.calls[0].verdict == "none"


def test_slow_replies(box):
    began = time.monotonic()
    assert Client(box).enable("slow@demo.example")[0] == 200
    assert 1 <= time.monotonic() - began < 1.5
    for name, whole_head in ("slow-body", True), ("slow-header", False):
        got, ended = raw(box, request(f"{name}@demo.example"), most=1 << 20, seconds=0.01)
        assert ended == "open" and (b"\r\n\r\n" in got) == whole_head and not got.endswith(b"}")
        assert box.calls[-1].verdict == "accepted"
    until(lambda: len(box._connections) <= 1)  # both noticed that nobody reads


def test_close_after_second_hits_only_reused_connections(box):
    client = Client(box)
    assert client.enable("close-after-second@demo.example")[0] == 200
    with pytest.raises(http.client.RemoteDisconnected):
        client.enable("close-after-second@demo.example")
    assert client.enable("close-after-second@demo.example")[0] == 200  # reconnects
    assert [call.verdict for call in box.calls] == ["accepted", "none", "accepted"]


# --- control -------------------------------------------------------------------------------------

def test_scripts_come_before_the_address(box):
    address, client, seen = "refused@demo.example", Client(box), []
    box.script(address, "normal", Reply(202, {"id": "made-up"}, {"X-Mine": "1"}), seen.append,
               lambda call: Reply(200, b"no", verdict="refused"), "error-503",
               Reply(200, "{}", [("Content-Length", "2"), ("Content-Length", "2")]))
    statuses = []
    for _ in range(6):
        status, body, reply = client.enable(address)
        statuses.append(status)
        if status == 202:
            assert reply.getheader("X-Mine") == "1"
            assert client.call("GET", "/api/v2/background-jobs/made-up")[1]["id"] == "made-up"
    assert statuses == [200, 202, 422, 200, 503, 200] and seen == [box.enables()[2]]
    assert [call.verdict for call in box.enables()] == [
        "accepted", "accepted", "already", "refused", "refused", "accepted"]
    assert body == {} and len(reply.msg.get_all("Content-Length")) == 2
    with pytest.raises(ValueError):
        box.script(address, "no-such-behaviour")


def test_scripts_for_jobs_and_accounts(box):
    address, client = "a@demo.example", Client(box)
    box.job_seconds = 0
    path = f"/api/v2/background-jobs/{client.enable(address)[1]['id']}"
    box.script_job(address, "error-503", "array", "job-failed")
    assert [client.call("GET", path)[0] for _ in range(2)] == [503, 200]
    assert client.call("GET", path)[1]["data"]["failed_count"] == 1
    box.script_account(address, "not-found", Reply(200, {"warmup_status": 0}))
    path = f"/api/v2/accounts/{address}"
    assert [client.call("GET", path)[0] for _ in range(3)] == [404, 200, 200]


def test_hold_keeps_calls_until_released(box):
    address, statuses = "refused@demo.example", []
    box.script(address, "normal", "normal")
    hold = box.hold(address)
    assert box.hold(address) is hold
    threads = [threading.Thread(target=lambda: statuses.append(Client(box).enable(address)[0]))
               for _ in range(3)]
    for thread in threads:
        thread.start()
    assert hold.arrived.wait(2)
    until(lambda: hold.waiting == 3)
    assert Client(box).enable("b@demo.example")[0] == 200  # nobody else waits
    assert statuses == [] and not box.accepted(address) and len(box.enables(address)) == 3
    hold.release()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 200, 422]
    assert Client(box).enable(address)[0] == 422  # released for good


def test_stop_ends_everything_and_start_takes_the_same_port(tmp_path):
    box = Sandbox(KEY, ledger=tmp_path / "ledger").start()
    box.hold("held@demo.example")
    ends = []
    threads = [threading.Thread(target=lambda a=address: ends.append(
        raw(box, request(f"{a}@demo.example"), most=1 << 40)[1]))
        for address in ("hang", "held", "endless")]
    for thread in threads:
        thread.start()
    idle = Client(box)
    idle.enable("a@demo.example")
    until(lambda: len(box.calls) == 4)
    began, port = time.monotonic(), box.port
    box.stop()
    box.stop()
    assert time.monotonic() - began < 1 and not box._connections
    for thread in threads:
        thread.join(2)
    assert len(ends) == 3 and "open" not in ends
    with pytest.raises(ConnectionError):
        Client(box).enable("a@demo.example")
    with box:
        assert box.port == port and Client(box).enable("a@demo.example")[0] == 200
    lines = [json.loads(line) for line in (tmp_path / "ledger").read_text().splitlines()]
    assert [line["n"] for line in lines][-1] == 5 and "held@demo.example" not in str(lines)


def test_ledger_is_written_before_the_reply_and_without_the_key(tmp_path):
    path, key = tmp_path / "ledger", 'se"cret'
    with Sandbox(key, ledger=path) as box:
        client = Client(box)
        seen = []
        box.script("hook@demo.example", Reply(
            200, b"", send=lambda connection, data: (
                seen.append(path.read_text()), wire.whole(connection, data))[1]))
        headers = {**HEADERS, "Authorization": f"Bearer {key}", "X-Copy": key}
        body = json.dumps({"emails": ["hook@demo.example"], "x": key})
        client.call("POST", ENABLE, body, headers)
        client.call("POST", ENABLE, '{"emails":["a@demo.example"]}')
        client.call("GET", "/" + quote(key, safe=""))
    assert json.loads(seen[0])["verdict"] == "accepted"
    text = path.read_text()
    assert "cret" not in text and "Bearer" not in text and KEY not in text
    first, second, third = map(json.loads, text.splitlines())
    assert first["authorization_ok"] and not second["authorization_ok"]
    assert first["kind"] == "enable" and first["emails"] == ["hook@demo.example"]
    assert ["X-Copy", "[key]"] in first["headers"] and second["verdict"] == "refused"
    assert third["target"] == "/[key]"


def test_many_clients_at_once(box):
    def work(number):
        client = Client(box, timeout=5)
        for turn in range(5):
            assert client.enable(f"user{number}@demo.example")[0] == 200
    threads = [threading.Thread(target=work, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(box.enables()) == 250 and {call.verdict for call in box.calls} == {"accepted"}
    assert [call.n for call in box.calls] == list(range(1, 251))


def test_latency():
    with Sandbox(KEY, latency=0.1) as box:
        began = time.monotonic()
        assert Client(box).enable("a@demo.example")[0] == 200
        assert 0.1 <= time.monotonic() - began < 0.5


# --- TLS and the program -------------------------------------------------------------------------

@pytest.fixture(name="certificate")
def self_signed_certificate(tmp_path):
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1", "-subj",
                    "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                    "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


def test_tls(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    trust = ssl.create_default_context(cafile=certificate[0])

    def connect(box):
        sock = socket.create_connection(("127.0.0.1", box.port), timeout=2)
        return trust.wrap_socket(sock, server_hostname="localhost", suppress_ragged_eofs=False)

    with Sandbox(KEY, context) as box:
        assert box.url.startswith("https://localhost:")
        with connect(box) as tls:
            tls.sendall(request("cut-close@demo.example"))
            got = b""
            while more := tls.recv(65536):  # ends by close_notify, or this would raise
                got += more
            assert got.endswith(b'{"id":"67')
        with connect(box) as tls:
            tls.sendall(request("lost-after-accept@demo.example"))
            with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):  # some Pythons mistake RST
                tls.recv(1)
        with connect(box) as tls:
            tls.sendall(request("hang@demo.example"))
            until(lambda: len(box.calls) == 3)
        until(lambda: not box._connections)
        raw(box, request("a@demo.example"), seconds=0.2)  # plain HTTP on a TLS port
        assert len(box.calls) == 3


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_program(tmp_path, certificate, end):
    ledger, port_file = tmp_path / "ledger", tmp_path / "port"
    command = [sys.executable, instantly.__file__, "--port", "0", "--key", KEY, "--ledger", ledger,
               "--port-file", port_file, "--latency", "1"]
    secure = end == signal.SIGINT
    if secure:
        command += ["--tls-cert", certificate[0], "--tls-key", certificate[1]]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as program:
        line = program.stdout.readline()
        until(port_file.exists)
        port = int(port_file.read_text())
        host = "https://localhost" if secure else "http://127.0.0.1"
        assert line == f"listening on {host}:{port}/api/v2\n"
        if not secure:
            assert Client(types.SimpleNamespace(port=port)).enable("a@demo.example")[0] == 200
            assert json.loads(ledger.read_text())["verdict"] == "accepted"
        os.kill(program.pid, end)
        assert program.wait(3) == 0
        assert program.stdout.read() == "" and program.stderr.read() == ""


def test_program_lists_its_behaviours():
    out = subprocess.run([sys.executable, instantly.__file__, "--list"], check=True,
                         capture_output=True, text=True).stdout
    assert [line.split()[0] for line in out.splitlines()] == list(BEHAVIOURS)

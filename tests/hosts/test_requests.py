"""Requests that are odd, cut short or given up, through every web server: an answer or none, and never half an effect."""

import time
import uuid

import pytest

from conftest import ROUTE, STUCK, WARMING, check_log, wait_for
from hosts.test_answers import assert_ours, untouched


def lines(method, target, world, *more):
    return [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {world.key}", *more]


def exchange(served, head, body=b""):
    """The status and all that came, for requests that http.client does not send."""
    with served.raw([*head, "Connection: close"], body) as connection:
        connection.settimeout(40)
        data = b""
        while piece := connection.recv(65536):
            data += piece
    return int(data.split()[1]) if data else None, data


@pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD", "FOO", "patch", "TRACE"])
def test_other_method_changes_nothing(served, world, method):
    account = world.add_account()
    answer = served.request(method, ROUTE.format(account), world.bearer())
    if answer.headers.get("allow") == "PATCH, OPTIONS":
        assert answer.status == 405
    else:  # the server's own answer; Apache echoes a TRACE
        assert method in ("FOO", "patch", "TRACE") and answer.status in (200, 400, 405, 501), answer
    assert untouched(world, account)


@pytest.mark.parametrize("path", [
    "//api/email/accounts/{}/retry-warmup", "/api/email/./accounts/{}/retry-warmup", "/x/../api/email/accounts/{}/retry-warmup",
    "/api/email/accounts/{other}/../{}/retry-warmup", "/api/em%61il/accounts/{}/retry-warmup",
    "/api/email/accounts/{other}%2f..%2f{}/retry-warmup", "http://127.0.0.1/api/email/accounts/{}/retry-warmup"])
def test_path_is_the_one_that_the_server_decoded(served, world, path):
    account, other = world.add_account(), world.add_account()
    status, data = exchange(served, lines("PATCH", path.format(account, other=other), world))
    assert status in (200, 400, 403, 404, 405), data
    assert (world.state(account), world.enables(account)) == ((WARMING, 1) if status == 200 else (STUCK, 0))
    assert untouched(world, other)


@pytest.mark.parametrize("extra", ["%0a", "%0d%0aX-Forged:%20x", "%C3%28", "%00", "%zz", "%20", "'"])
def test_odd_bytes_in_the_id_are_no_id_and_stay_out_of_log_and_headers(served, world, extra):
    account, since = world.add_account(), len(served.log())
    status, data = exchange(served, lines("PATCH", ROUTE.format(account + extra), world, "X-Request-Id: odd-bytes"))
    assert status in (400, 403, 404, 405), data
    assert b"x-forged" not in data.lower()
    if b'"code":"' in data:
        assert b'"code":"invalid_request"' in data
    assert untouched(world, account)
    ours = [line for line in check_log(served.server, world.secrets, since).splitlines() if "odd-bytes" in line]
    assert len(ours) == (b'"code":"' in data)


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_body_cut_short_has_no_effect_or_a_whole_one(served, world, framing):
    account = world.add_account()
    more, part = {"length": (["Content-Length: 10"], b"12345"),
                  "chunked": (["Transfer-Encoding: chunked"], b"a\r\n12345")}[framing]
    served.raw(lines("PATCH", ROUTE.format(account), world, *more), part).close()
    time.sleep(0.3)
    assert_ours(served.request("GET", served.health), 200)
    if framing == "length":
        assert untouched(world, account)
    else:  # mod_cgid ends the input of a program as if all were well; what it does then, it does to the end
        wait_for(lambda: untouched(world, account) or (world.state(account), world.enables(account)) == (WARMING, 1))


def test_caller_who_hangs_up_changes_nothing(served, world):
    account = world.add_account()
    held = world.sandbox.hold(world.address(account))
    connection = served.raw(lines("PATCH", ROUTE.format(account), world))
    assert held.arrived.wait(20)
    connection.close()
    held.release()
    wait_for(lambda: world.state(account) == WARMING)
    assert world.enables(account) == 1
    assert_ours(served.request("GET", served.health), 200)


@pytest.mark.parametrize("more", [
    ["Content-Length: -1"], ["Content-Length: x"], ["Content-Length: 99999999999999999999"],
    ["Content-Length: 0", "Content-Length: 5"], ["Content-Length: 5", "Transfer-Encoding: chunked"]],
    ids=["negative", "no-number", "huge", "two", "with-chunks"])
def test_lengths_that_make_no_sense_are_refused_or_mean_nothing(served, world, more):
    account = world.add_account()
    status, data = exchange(served, lines("PATCH", ROUTE.format(account), world, *more), b"0\r\n\r\n")
    assert status in (200, 400, 413, 500, 501), data
    assert (world.state(account), world.enables(account)) == ((WARMING, 1) if status == 200 else (STUCK, 0))
    assert_ours(served.request("GET", served.health), 200)


def test_expect_continue_is_answered(served, world):
    status, data = exchange(served, lines("PATCH", ROUTE.format(uuid.uuid4()), world, "Content-Length: 2",
                                          "Expect: 100-continue"), b"{}")
    assert status in (100, 404), data
    assert b'"code":"not_found"' in data

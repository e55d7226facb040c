"""Who is let in: the Authorization header in all its forms, keys known, unknown and revoked, accounts of others.

Whether a key was taken is mostly seen by an account that does not exist: 404 with a good key, 401 without.
A NUL cannot be part of any case: neither an environment nor libfcgi's variables can carry one.
"""

import hashlib
import hmac
import http.client
import threading
import uuid

import pytest

import stack
from conftest import ROUTE, STUCK, WARMING
from test_errors import (ABSENT, assert_no_account, assert_unauthorized, gateway, masked,  # noqa: F401
                         module_gateway)

UNKNOWN = "pk_live_" + "0" * 64

# Each is filled in with a good key.
MALFORMED = {
    "empty": "",
    "spaces": "   ",
    "scheme-alone": "Bearer",
    "scheme-and-space": "Bearer ",
    "scheme-and-spaces": "Bearer    ",
    "token-alone": "{}",
    "no-space": "Bearer{}",
    "other-scheme": "Basic {}",
    "token-scheme": "Token {}",
    "longer-scheme": "Bearers {}",
    "shorter-scheme": "Beare {}",
    "quoted-scheme": "\"Bearer\" {}",
    "scheme-twice": "Bearer Bearer {}",
    "two-tokens": "Bearer {} {}",
    "two-tokens-apart": "Bearer {}   x",
    "joined-headers": "Bearer {}, Bearer {}",
    "joined-without-space": "Bearer {},Bearer {}",
    "comma-at-the-end": "Bearer {},",
    "comma-first": "Bearer ,{}",
    "semicolon": "Bearer {};",
    "parameter": "Bearer {}; realm=\"x\"",
    "named": "Bearer token=\"{}\"",
    "quoted": "Bearer \"{}\"",
    "angled": "Bearer <{}>",
    "tab-instead-of-space": "Bearer\t{}",
    "tab-after-space": "Bearer \t{}",
    "tab-inside": "Bearer {}\tx",
    "colon": "Bearer: {}",
    "equals": "Bearer={}",
    "percent": "Bearer %70{}",
    "backslash": "Bearer \\{}",
    "star": "Bearer {}*",
    "at": "Bearer {}@",
    "non-ascii": "Bearer {}\u00e9",
    "non-ascii-only": "Bearer \u00ff",
    "no-break-space": "Bearer\u00a0{}",
    "sql": "Bearer ' OR 1=1--",
}

# What no HTTP client sends and no web server passes, but CGI can carry.
RAW = {
    "line-feed-at-the-end": b"Bearer %s\n",
    "crlf-at-the-end": b"Bearer %s\r\n",
    "line-feed-inside": b"Bearer\n%s",
    "two-lines": b"Bearer %s\r\nX-Evil: 1",
    "high-byte": b"Bearer %s\xff",
    "high-byte-first": b"\xffBearer %s",
    "utf-8-bom": b"\xef\xbb\xbfBearer %s",
    "control": b"Bearer %s\x01",
    "escape": b"Bearer \x1b[31m%s",
    "delete": b"Bearer %s\x7f",
    "vertical-tab": b"Bearer\x0b%s",
    "tab-at-the-end": b"Bearer %s\t",  # which servers trim
    "tab-first": b"\tBearer %s",
}


def authorized(host, key, header="Bearer {}", **more):
    """Whether a header with this key gets past the authentication."""
    answer = host.request("PATCH", ROUTE.format(ABSENT), {"Authorization": header.format(key, key), **more})
    assert answer.status in (401, 404)
    return answer.status == 404


# --- the form of the header ----------------------------------------------------------------------

@pytest.mark.parametrize("header", [
    "Bearer {}", "bearer {}", "BEARER {}", "bEaReR {}", "Bearer  {}", "Bearer" + " " * 50 + "{}", " Bearer {}",
    "Bearer {} ", "   Bearer   {}   "],
    ids=["plain", "lower", "upper", "mixed", "two-spaces", "many-spaces", "space-before", "space-behind", "everywhere"])
def test_scheme_in_any_case_and_spaces_do_not_count(host, world, header):
    assert authorized(host, world.key, header)


# A server may trim the value, so once more without one.
@pytest.mark.parametrize("header", [" Bearer {}", "Bearer {} ", "   bearer   {}   "])
def test_spaces_at_the_ends_do_not_count_however_they_come(gateway, world, header):  # noqa: F811
    assert_no_account(gateway.retry(ABSENT, "", HTTP_AUTHORIZATION=header.format(world.key)))


def test_missing_header_answers_401(host):
    assert_unauthorized(host.request("PATCH", ROUTE.format(ABSENT)))


@pytest.mark.parametrize("form", MALFORMED)
def test_malformed_header_answers_the_one_401(host, world, form):
    header = MALFORMED[form].format(world.key, world.key)
    assert_unauthorized(host.request("PATCH", ROUTE.format(ABSENT), {"Authorization": header}))


@pytest.mark.parametrize("form", RAW)
def test_bytes_that_no_server_passes_answer_the_one_401(gateway, world, form):  # noqa: F811
    raw = RAW[form].replace(b"%s", world.key.encode())
    answer = gateway.ask({b"REQUEST_METHOD": b"PATCH", b"PATH_INFO": ROUTE.format(ABSENT).encode(),
                          b"HTTP_AUTHORIZATION": raw})
    assert_unauthorized(answer)


def test_missing_unknown_revoked_and_malformed_answer_the_same(host, world):
    revoked = world.add_key(world.user, revoked=True)
    path = ROUTE.format(world.add_account())
    answers = [host.request("PATCH", path, headers) for headers in (
        {}, {"Authorization": ""}, {"Authorization": "Basic eDp5"}, world.bearer(UNKNOWN), world.bearer(revoked),
        world.bearer("x"), world.bearer(world.key + "0"), world.bearer(world.key[:-1]),
        world.bearer(world.key.upper()), world.bearer(world.key[len("pk_live_"):]),
        world.bearer(hashlib.sha256(world.key.encode()).hexdigest()))]
    for answer in answers:
        assert_unauthorized(answer)
        assert masked(answer) == masked(answers[0])


def test_prefix_of_a_key_is_no_key(host, world):
    assert not authorized(host, world.key[:24])


# --- the token -----------------------------------------------------------------------------------

@pytest.mark.parametrize("token", [
    "x", "0", "=", "==", "-._~+/=", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "Bearer", "pk_live_short",
    "A" * 511, "Z" * 512],
    ids=["letter", "zero", "equals", "two-equals", "all-marks", "jwt", "scheme", "short", "511-bytes", "512-bytes"])
def test_any_token_whose_hash_is_in_the_table_counts(host, world, token):
    user = str(uuid.uuid4())
    # add_key() would make so short a token a secret to be searched for in logs.
    world.execute("INSERT INTO api_keys (user_id, key_hash, prefix) VALUES (%s, %s, 'odd')",
                  user, hashlib.sha256(token.encode()).digest())
    try:
        answer = world.retry(host, world.add_account(user=user, state=WARMING), key=token)
    finally:
        world.execute("DELETE FROM api_keys WHERE user_id = %s", user)
    assert answer.status == 409
    assert not authorized(host, token)


@pytest.mark.parametrize("size", [513, 514, 1024, 4096, 7000])
def test_token_of_more_than_512_bytes_is_malformed(host, world, size):
    key = world.add_key(world.user, uuid.uuid4().hex + "k" * (size - 32))
    assert_unauthorized(host.request("PATCH", ROUTE.format(ABSENT), world.bearer(key)))


def test_spaces_are_no_part_of_the_512_bytes(host, world):
    key = world.add_key(world.user, uuid.uuid4().hex * 16)
    assert len(key) == 512 and authorized(host, key, "   Bearer" + " " * 300 + "{}   ")


def test_tokens_differ_in_case(host, world):
    key = world.add_key(world.user, "MixedCase" + uuid.uuid4().hex)
    assert authorized(host, key) and not authorized(host, key.lower()) and not authorized(host, key.swapcase())


def test_hash_is_of_the_whole_token_and_plain_sha256(host, world):
    """Neither of a part, nor keyed, nor as text, nor cut."""
    key, hashes = UNKNOWN[:-4] + "abcd", set()
    hashes.add(hmac.new(b"", key.encode(), hashlib.sha256).digest())
    hashes.add(hashlib.sha256(key[8:].encode()).digest())
    hashes.add(hashlib.sha256(f"Bearer {key}".encode()).digest())
    hashes.add(hashlib.sha256((key + "\n").encode()).digest())
    user = str(uuid.uuid4())
    for one in hashes:
        world.execute("INSERT INTO api_keys (user_id, key_hash, prefix) VALUES (%s, %s, 'x')", user, one)
    try:
        assert not authorized(host, key)
    finally:
        world.execute("DELETE FROM api_keys WHERE user_id = %s", user)


# --- where the header comes from -----------------------------------------------------------------

def test_header_of_an_apache_rewrite_counts(gateway, world):  # noqa: F811
    variables = {"REQUEST_METHOD": "PATCH", "PATH_INFO": ROUTE.format(ABSENT)}
    good, bad = f"Bearer {world.key}", f"Bearer {UNKNOWN}"
    for more, taken in (({"REDIRECT_HTTP_AUTHORIZATION": good}, True),
                        ({"HTTP_AUTHORIZATION": "", "REDIRECT_HTTP_AUTHORIZATION": good}, True),
                        ({"HTTP_AUTHORIZATION": good, "REDIRECT_HTTP_AUTHORIZATION": ""}, True),
                        ({"HTTP_AUTHORIZATION": good, "REDIRECT_HTTP_AUTHORIZATION": good}, True),
                        ({"HTTP_AUTHORIZATION": good, "REDIRECT_HTTP_AUTHORIZATION": bad}, True),
                        ({"HTTP_AUTHORIZATION": bad, "REDIRECT_HTTP_AUTHORIZATION": good}, False),
                        ({"HTTP_AUTHORIZATION": "", "REDIRECT_HTTP_AUTHORIZATION": ""}, False),
                        ({"HTTP_AUTHORIZATION": "", "REDIRECT_HTTP_AUTHORIZATION": bad}, False),
                        ({"REDIRECT_HTTP_AUTHORIZATION": "Basic eDp5"}, False),
                        ({"REDIRECT_HTTP_AUTHORIZATION": f"{good}, {good}"}, False)):
        answer = gateway.ask({**variables, **more})
        (assert_no_account if taken else assert_unauthorized)(answer)


@pytest.mark.parametrize("name", [
    "Redirect-Http-Authorization", "Redirect-Authorization", "X-Authorization", "Proxy-Authorization",
    "X-Forwarded-Authorization", "Http-Authorization", "Authorization2"])
def test_other_headers_are_no_authorization(host, world, name):
    """A header's variable begins with HTTP_, so a client cannot make the name that a rewrite makes."""
    assert_unauthorized(host.request("PATCH", ROUTE.format(ABSENT), {name: f"Bearer {world.key}"}))


@pytest.mark.parametrize("name", ["AUTHORIZATION", "REDIRECT_REDIRECT_HTTP_AUTHORIZATION", "HTTP_AUTHORIZATION_",
                                  "HTTP_AUTHORIZATIO", "http_authorization", "REMOTE_USER"])
def test_other_variables_are_no_authorization(gateway, world, name):  # noqa: F811
    assert_unauthorized(gateway.ask({"REQUEST_METHOD": "PATCH", "PATH_INFO": ROUTE.format(ABSENT),
                                     name: f"Bearer {world.key}"}))


@pytest.mark.parametrize("query", ["?access_token={}", "?Authorization=Bearer%20{}", "?token={}"])
def test_key_in_the_query_is_not_looked_at(host, world, query):
    assert_unauthorized(host.request("PATCH", ROUTE.format(ABSENT) + query.format(world.key)))


def test_two_headers_arrive_joined_and_are_malformed(shared_hosts, world):
    """lighttpd joins them; each would be good."""
    client = http.client.HTTPConnection("127.0.0.1", shared_hosts["fastcgi"].server.port, timeout=20)
    client.putrequest("PATCH", ROUTE.format(ABSENT))
    for _ in range(2):
        client.putheader("Authorization", f"Bearer {world.key}")
    client.endheaders()
    answer = client.getresponse()
    assert (answer.status, answer.getheader("WWW-Authenticate")) == (401, "Bearer")
    client.close()


# --- what it costs -------------------------------------------------------------------------------

def test_malformed_header_costs_no_database_call(serve, world):
    """With no database there: who asks it says 503, who does not says 401."""
    host = serve(world, DATABASE_URL=f"postgresql://warmup@127.0.0.1:{stack.free_port()}/none")
    assert world.retry(host, ABSENT).status == 503
    assert world.retry(host, ABSENT, key=UNKNOWN).status == 503
    assert world.retry(host, ABSENT, key="x" * 512).status == 503
    assert_unauthorized(host.request("PATCH", ROUTE.format(ABSENT)))
    assert_unauthorized(world.retry(host, ABSENT, key="x" * 513))
    for form in MALFORMED.values() if serve.kind == "fastcgi" else list(MALFORMED.values())[::4]:
        assert_unauthorized(host.request("PATCH", ROUTE.format(ABSENT), {"Authorization": form.format("x", "y")}))


# --- revoking ------------------------------------------------------------------------------------

@pytest.mark.parametrize("when", ["now()", "now() - interval '1 year'", "now() + interval '1 year'", "'infinity'",
                                  "'-infinity'"], ids=["now", "past", "future", "infinity", "minus-infinity"])
def test_key_is_revoked_from_the_moment_it_is_set(host, world, when):
    key = world.add_key(world.user)
    digest = hashlib.sha256(key.encode()).digest()
    assert authorized(host, key)
    world.execute(f"UPDATE api_keys SET revoked_at = {when} WHERE key_hash = %s", digest)
    assert not authorized(host, key)
    world.execute("UPDATE api_keys SET revoked_at = NULL WHERE key_hash = %s", digest)
    assert authorized(host, key)
    world.execute("DELETE FROM api_keys WHERE key_hash = %s", digest)
    assert not authorized(host, key)


def test_one_revoked_key_leaves_the_others_of_the_user(host, world):
    revoked = world.add_key(world.user, revoked=True)
    assert not authorized(host, revoked) and authorized(host, world.key)


def test_key_revoked_while_its_request_runs_does_not_stop_it(host, world):
    key = world.add_key(world.user)
    account, other = world.add_account(), world.add_account()
    held, answers = world.sandbox.hold(world.address(account)), []
    thread = threading.Thread(target=lambda: answers.append(world.retry(host, account, key=key)))
    thread.start()
    assert held.arrived.wait(10)
    world.execute("UPDATE api_keys SET revoked_at = now() WHERE key_hash = %s", hashlib.sha256(key.encode()).digest())
    held.release()
    thread.join()
    assert (answers[0].status, world.state(account)) == (200, WARMING)
    assert_unauthorized(world.retry(host, other, key=key))
    assert (world.state(other), world.enables(other)) == (STUCK, 0)


# --- whose account -------------------------------------------------------------------------------

@pytest.mark.parametrize("state", [STUCK, WARMING, ("active", "active"), ("error", "banned"), ("pending", None)],
                         ids=lambda state: "-".join(map(str, state)))
@pytest.mark.parametrize("columns", [{"user": str(uuid.uuid4())}, {"type": "linkedin"}, {"type": "Email"}, {"type": ""},
                                     {"type": "email "}, {"user": str(uuid.uuid4()), "type": "linkedin"}],
                         ids=["foreign", "linkedin", "capital", "no-type", "space-in-type", "foreign-linkedin"])
def test_account_of_others_or_of_another_type_looks_absent(host, world, state, columns):
    account = world.add_account(state=state, **columns)
    before, calls = world.account(account), len(world.sandbox.calls)
    answer = world.retry(host, account)
    assert_no_account(answer)
    assert masked(answer) == masked(world.retry(host, ABSENT))
    assert (world.account(account), len(world.sandbox.calls)) == (before, calls)


def test_each_owner_moves_his_own(host, world):
    other = str(uuid.uuid4())
    keys = {world.user: world.key, other: world.add_key(other)}
    accounts = {user: world.add_account(user=user) for user in keys}
    assert_no_account(world.retry(host, accounts[other], key=keys[world.user]))
    assert_no_account(world.retry(host, accounts[world.user], key=keys[other]))
    for user, key in keys.items():
        answer = world.retry(host, accounts[user], key=key)
        assert (answer.status, answer.json["account"]["user_id"]) == (200, user)

"""Which ids are ids: the documented pattern to the letter, from the path to the database and back."""

import random
import re
import uuid
from urllib.parse import quote

import pytest

from conftest import WARMING
from test_errors import (INVALID_ID, NO_ROUTE, assert_error, assert_no_account, assert_unauthorized,
                         gateway, module_gateway)  # noqa: F401

NIL = "00000000-0000-0000-0000-000000000000"
MAX = "ffffffff-ffff-ffff-ffff-ffffffffffff"
PATTERN = re.compile(  # used with fullmatch() only: Python's $ also matches before a line feed at the end
    "([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[1-8][0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}"
    f"|{NIL}|{MAX})")

ACCEPTED = {
    "version-4": "11111111-1111-4111-8111-111111111111",
    "upper-case": "AAAAAAAA-AAAA-4AAA-AAAA-AAAAAAAAAAAA",
    "mixed-case": "AaBbCcDd-EeFf-1aBc-bDeF-0123456789aB",
    "nil": NIL,
    "max": MAX,
    "version-1-zeros": "00000000-0000-1000-8000-000000000000",
    "version-8-all-f": "FFFFFFFF-FFFF-8FFF-BFFF-FFFFFFFFFFFF",
    **{f"version-{digit}": f"11111111-1111-{digit}111-8111-111111111111" for digit in "1235678"},
    **{f"variant-{digit}": f"11111111-1111-4111-{digit}111-111111111111" for digit in "9abAB"},
}
REJECTED = {
    "published-sample": "aaaa1111-1111-1111-1111-111111111111",
    "max-upper-case": MAX.upper(),
    "max-last-capital": MAX[:-1] + "F",
    "max-first-capital": "F" + MAX[1:],
    "max-but-one": MAX[:-1] + "e",
    "nil-but-one": NIL[:-1] + "1",
    "version-0-zeros": "00000000-0000-0000-8000-000000000000",
    **{f"version-{digit}": f"11111111-1111-{digit}111-8111-111111111111" for digit in "09aAfF"},
    **{f"variant-{digit}": f"11111111-1111-4111-{digit}111-111111111111" for digit in "07cCfF"},
    "last-group-11": "11111111-1111-4111-8111-11111111111",
    "last-group-13": "11111111-1111-4111-8111-1111111111111",
    "hyphen-behind": "11111111-1111-4111-8111-111111111111-",
    "hyphen-moved": "1111111-11111-4111-8111-111111111111",
    "hyphen-for-digit": "1111111--1111-4111-8111-111111111111",
    "digit-for-hyphen": "1111111111111-4111-8111-111111111111",
    "no-hyphens": "11111111111141118111111111111111",
    "hyphens-every-four": "1111-1111-1111-4111-8111-1111-1111-1111",
    "braces": "{11111111-1111-4111-8111-111111111111}",
    "urn": "urn:uuid:11111111-1111-4111-8111-111111111111",
    "space-before": " 11111111-1111-4111-8111-111111111111",
    "space-behind": "11111111-1111-4111-8111-111111111111 ",
    "spaces-only": "   ",
    "letter-g": "g1111111-1111-4111-8111-111111111111",
    "letter-z-last": "11111111-1111-4111-8111-11111111111z",
    "unicode-hyphen": "11111111\u20101111-4111-8111-111111111111",
    "full-width-digit": "\uff111111111-1111-4111-8111-111111111111",
    "plus": "+1111111-1111-4111-8111-111111111111",
    "minus": "-1111111-1111-4111-8111-111111111111",
    "0x": "0x111111-1111-4111-8111-111111111111",
    "escaped-digit": "1111111%31-1111-4111-8111-111111111111",
    "escaped-digit-in-36": "%311111-1111-4111-8111-1111111111111",
    "sql": "11111111-1111-4111-8111-111111111111' OR 1=1--",
    "comma": "11111111-1111-4111-8111-111111111111,",
    "semicolon": "11111111-1111-4111-8111-111111111111;x",
    "two": "11111111-1111-4111-8111-11111111111111111111-1111-4111-8111-111111111111",
    "half": "11111111-1111-4111",
    "number": "42",
    "word": "all",
    "dash": "-",
    "placeholder": "{id}",
    "null": "null",
    "wildcard": "%",
    "underscores": "11111111_1111_4111_8111_111111111111",
    "very-long": "1" * 1900,
}
# An environment can carry these, a server refuses some of them itself.
REJECTED_RAW = {
    "line-feed": b"11111111-1111-4111-8111-111111111111\n",
    "crlf": b"11111111-1111-4111-8111-111111111111\r\n",
    "line-feed-before": b"\n11111111-1111-4111-8111-111111111111",
    "line-feed-for-hyphen": b"11111111\n1111-4111-8111-111111111111",
    "tab": b"\t1111111-1111-4111-8111-111111111111",
    "control": b"11111111-1111-4111-8111-11111111111\x01",
    "delete": b"11111111-1111-4111-8111-11111111111\x7f",
    "high-byte": b"11111111-1111-4111-8111-11111111111\xff",
    "cut-utf-8": b"11111111-1111-4111-8111-1111111111\xc3\x28",
    "overlong-slash": b"11111111-1111-4111-8111-1111111111\xc0\xaf",
    "high-bit-set": bytes(byte | 0x80 for byte in b"11111111-1111-4111-8111-111111111111"),
    "escape": b"\x1b[2J",
}


def raw_path(id_):
    return b"/api/email/accounts/" + (id_ if isinstance(id_, bytes) else id_.encode()) + b"/retry-warmup"


def ask(gateway, id_, key=None):  # noqa: F811
    variables = {b"REQUEST_METHOD": b"PATCH", b"SCRIPT_NAME": b"", b"PATH_INFO": raw_path(id_)}
    if key:
        variables[b"HTTP_AUTHORIZATION"] = b"Bearer " + key.encode()
    return gateway.ask(variables)


@pytest.mark.parametrize("name", ACCEPTED)
def test_id_of_the_pattern_is_looked_up(gateway, world, name):  # noqa: F811
    assert_no_account(ask(gateway, ACCEPTED[name], world.key))


@pytest.mark.parametrize("name", REJECTED)
def test_id_off_the_pattern_answers_400(gateway, world, name):  # noqa: F811
    assert_error(ask(gateway, REJECTED[name], world.key), 400, "invalid_request", INVALID_ID)


@pytest.mark.parametrize("name", REJECTED_RAW)
def test_id_of_odd_bytes_answers_400_and_stays_out_of_the_log(gateway, world, name):  # noqa: F811
    since = len(gateway.log())
    assert_error(ask(gateway, REJECTED_RAW[name], world.key), 400, "invalid_request", INVALID_ID)
    # One whole line with the route's pattern; what was sent is not in it.
    lines = gateway.log()[since:].splitlines()
    assert len(lines) == 1 and '"route":"/api/email/accounts/{id}/retry-warmup","status":400' in lines[0]


@pytest.mark.parametrize("name", [*ACCEPTED, *REJECTED, *REJECTED_RAW])
def test_without_a_key_every_id_answers_401(gateway, name):  # noqa: F811
    assert_unauthorized(ask(gateway, {**ACCEPTED, **REJECTED, **REJECTED_RAW}[name]))


@pytest.mark.parametrize("id_", [
    b"", b"/", b"11111111-1111-4111-8111-111111111111/", b"/11111111-1111-4111-8111-111111111111",
    b"11111111-1111-4111-8111-111111111111/x", b"../11111111-1111-4111-8111-111111111111",
    b"11111111/1111-4111-8111-111111111111"])
def test_id_segment_that_is_empty_or_several_is_no_route(gateway, world, id_):  # noqa: F811
    assert_error(ask(gateway, id_, world.key), 404, "not_found", NO_ROUTE)


def test_nul_in_the_id_ends_the_path(gateway, world):  # noqa: F811
    """FastCGI could carry one, an environment cannot, and lighttpd refuses %00."""
    if gateway.kind == "cgi":
        pytest.skip("an environment cannot hold a NUL")
    account = world.add_account()
    assert_error(ask(gateway, account.encode() + b"\0", world.key), 404, "not_found", NO_ROUTE)
    assert world.enables(account) == 0


# lighttpd refuses control characters and bytes that are not UTF-8 by itself.
@pytest.mark.parametrize("name", [*ACCEPTED, *(name for name in REJECTED if name != "very-long")])
def test_percent_encoded_id_is_judged_decoded(shared_hosts, world, name):
    id_ = {**ACCEPTED, **REJECTED}[name]
    for encoded in (quote(id_, safe=""), "".join(f"%{byte:02x}" for byte in id_.encode())):
        answer = world.retry(shared_hosts["fastcgi"], encoded)
        if name in ACCEPTED:
            assert_no_account(answer)
        else:
            assert_error(answer, 400, "invalid_request", INVALID_ID)


@pytest.mark.parametrize("encoded", [
    "11111111-1111-4111-8111-11111111111%2531", "%2511111111-1111-4111-8111-111111111", "%%331%%331%%331",
    "%zz111111-1111-4111-8111-111111111111", "%7Bid%7D", "%20", "11111111-1111-4111-8111-111111111111%20",
    "11111111-1111-4111-8111-11111111111%C3%28"])
def test_id_is_decoded_once(shared_hosts, world, encoded):
    assert_error(world.retry(shared_hosts["fastcgi"], encoded), 400, "invalid_request", INVALID_ID)


# A slash that is not doubled by it: lighttpd merges those.
@pytest.mark.parametrize("encoded", [
    "x%2Fx", "11111111-1111-4111-8111-111111111111%2Fx", "11111111%2F1111-4111-8111-111111111111",
    "x%2F..%2F11111111-1111-4111-8111-1111111111112%2Fx"])
def test_encoded_slash_is_a_slash(shared_hosts, world, encoded):
    assert_error(world.retry(shared_hosts["fastcgi"], encoded), 404, "not_found", NO_ROUTE)


def test_percent_encoded_id_of_an_account_moves_it(shared_hosts, world):
    account = world.add_account()
    answer = world.retry(shared_hosts["fastcgi"], "".join(f"%{ord(letter):02X}" for letter in account))
    assert (answer.status, answer.json["account"]["id"], world.state(account)) == (200, account, WARMING)


def changed(random_, text):
    """A text near to an id: now and then one, mostly not."""
    for _ in range(random_.choice((0, 1, 1, 1, 2))):
        at, letter = random_.randrange(len(text)), random_.choice("0123456789abcdefABCDEF-gG%+ xX{")
        text = random_.choice((text[:at] + letter + text[at + 1:], text[:at] + letter + text[at + 1:],
                               text[:at] + text[at + 1:], text[:at] + letter + text[at:], text.upper()))
    return text


def test_ids_agree_with_the_documented_pattern(gateway, world):  # noqa: F811
    seed = random.randrange(1 << 32)
    random_ = random.Random(seed)
    bases = [NIL, MAX, *ACCEPTED.values(), *(value for value in REJECTED.values() if len(value) == 36)]
    accepted = 0
    for _ in range(1000 if gateway.kind == "fastcgi" else 20):
        id_ = changed(random_, random_.choice(bases))
        expected = bool(PATTERN.fullmatch(id_))
        assert ask(gateway, id_, world.key).status == (404 if expected else 400), (seed, id_)
        accepted += expected
    assert gateway.kind == "cgi" or 100 < accepted < 900


@pytest.mark.parametrize("change", [str.upper, str.capitalize, str.swapcase], ids=["upper", "capital", "swapped"])
def test_upper_case_id_works_and_is_answered_in_lower_case(host, world, change):
    account = world.add_account(id=f"abcdef{uuid.uuid4().hex[:2]}-abcd-4abc-abcd-{uuid.uuid4().hex[:12]}")
    since = len(host.log())
    answer = world.retry(host, change(account))
    assert (answer.status, answer.json["account"]["id"], world.state(account)) == (200, account, WARMING)
    assert f'"account_id":"{account}"' in host.log()[since:] and change(account) not in host.log()[since:]


@pytest.mark.parametrize("id_", [NIL, MAX], ids=["nil", "max"])
def test_nil_and_max_are_looked_up_like_any_other(host, world, id_):
    assert_no_account(world.retry(host, id_))
    world.add_account(id=id_)
    try:
        answer = world.retry(host, id_)
        assert (answer.status, answer.json["account"]["id"], world.state(id_)) == (200, id_, WARMING)
        assert world.retry(host, id_).status == 409
    finally:
        world.execute("DELETE FROM accounts WHERE id = %s", id_)
    assert_no_account(world.retry(host, id_))


def test_other_spellings_that_postgres_takes_find_nothing(host, world):
    account = world.add_account()
    for spelling in (account.replace("-", ""), f"%7B{account}%7D" if host.kind == "fastcgi" else f"{{{account}}}",
                     "-".join(re.findall("....", account.replace("-", "")))):
        assert_error(world.retry(host, spelling), 400, "invalid_request", INVALID_ID)
    assert world.enables(account) == 0

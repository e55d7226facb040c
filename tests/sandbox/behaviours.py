"""Every way in which the sandbox can answer: one table, BEHAVIOURS.

A row is name -> (function, description). The function gets the sandbox, the call and `normal`, and
returns the reply to send. `normal(outcome, done)` makes the reply of a well-behaved service:
outcome is what becomes of the job, done shows it finished at once. Every row works on every route.

The verdict of a reply says what the sandbox did, not how the reply looks: ACCEPTED if warm-up is
now on, REFUSED if it said no (at once, or later by the job), NONE if it did neither.
"""
import gzip
import time
from email.utils import formatdate

if __package__:
    from . import wire
else:
    import wire

ACCEPTED, REFUSED, NONE = "accepted", "refused", "none"
JOB = b'{"id":"675266e304a8e55b17f0228b","status":"pending"}'  # for replies that enable nothing


def status(code, message, headers=()):
    return lambda box, call, normal: wire.error(code, message, headers)


def body(data, kind="application/json", verdict=NONE):
    """200 with this body, nothing done."""
    return lambda box, call, normal: wire.Reply(200, data, {"Content-Type": kind}, verdict)


def job(outcome, at_once=False):
    """The normal answer with a job that ends so."""
    return lambda box, call, normal: normal(outcome, at_once)


def fault(sender):
    """No usable reply, nothing done."""
    return lambda box, call, normal: wire.Reply(verdict=NONE, send=sender)


def sent(sender, **changes):
    """The normal reply, done as usual, but changed or sent in this way."""
    def behave(box, call, normal):
        reply = normal()
        reply.send = sender
        for name, change in changes.items():
            setattr(reply, name, change(getattr(reply, name)))
        return reply
    return behave


def redirect(code):
    return lambda box, call, normal: wire.Reply(
        code, b"", {"Location": box.redirect_to or f"{box.url}/elsewhere"}, NONE)


def rate_limited_date(box, call, normal):
    return wire.error(429, "Rate limit exceeded",
                      {"Retry-After": formatdate(time.time() + 60, usegmt=True)})


def already_warming(box, call, normal):
    for address in call.emails:
        box.set_account(address, 1)
    return wire.error(400, "Warmup is already enabled for this account")


def close_if_reused(box, call, normal):
    return normal() if call.turn == 1 else wire.Reply(verdict=NONE, send=wire.close)


def without_id(data):
    return {name: value for name, value in data.items() if name != "id"}


def nul_in_id(data):
    return {**data, "id": data["id"][:6] + "\0" + data["id"][6:]} if "id" in data else data


def with_bom(data):
    return b"\xef\xbb\xbf" + wire.Reply(body=data).encode().partition(b"\r\n\r\n")[2]


def bomb(box, call, normal):
    packed = gzip.compress(b"{" + b" " * (10 << 20) + b"}")
    return wire.Reply(200, packed, {"Content-Encoding": "gzip"}, NONE)


OK_JSON = b"HTTP/1.%d 200 OK\r\nContent-Type: application/json\r\n"

BEHAVIOURS = {
    "normal": (lambda box, call, normal: normal(), "accepted, and the job succeeds"),
    # Refusals
    "refused": (status(422, "Validation failed"), "422 JSON"),
    "bad-request": (status(400, "Bad request"), "400 JSON"),
    "unauthorized": (status(401, "Invalid API key"), "401 JSON, though the key is right"),
    "no-plan": (status(402, "Paid plan required"), "402 JSON"),
    "forbidden": (status(403, "Missing scope"), "403 JSON"),
    "not-found": (status(404, "Not found"), "404 JSON"),
    "conflict": (status(409, "Conflict"), "409 JSON"),
    "rate-limited": (status(429, "Rate limit exceeded", {"Retry-After": "7"}),
                     "429 JSON, Retry-After: 7"),
    "rate-limited-date": (rate_limited_date, "429 JSON, Retry-After a date in 60 s"),
    "error-500": (status(500, "Internal server error"), "500 JSON"),
    "error-503": (status(503, "Service unavailable"), "503 JSON"),
    "already-warming": (already_warming, "400 JSON, but the account says warmup_status 1"),
    # Jobs
    "job-failed": (job("item-failed"), "a pending job that succeeds with this address failed"),
    "job-failed-at-once": (job("item-failed", True), "the enable reply is that finished job"),
    "job-status-failed": (job("failed"), "a pending job that ends as failed"),
    "job-cancelled": (job("cancelled"), "a pending job that ends as cancelled"),
    "job-slow": (job("slow"), "accepted; the job stays in-progress"),
    "job-no-id": (sent(wire.whole, body=without_id), "accepted; the job carries no id"),
    "job-unreadable": (job("unreadable"), "accepted; reading the job is answered with 403"),
    "job-hangs": (job("hangs"), "accepted; reading the job is never answered"),
    # Bodies of a 200 (and one 204)
    "error-member": (body(b'{"error":"Account not found"}', verdict=REFUSED), "an error member"),
    "empty": (sent(wire.whole, body=lambda data: None), "accepted; Content-Length: 0"),
    "no-content": (sent(wire.whole, status=lambda code: 204, body=lambda data: None),
                   "accepted; 204"),
    "array": (body(b"[]"), "an empty array"),
    "null": (body(b"null"), "JSON null"),
    "html": (body(b"<!doctype html><title>Welcome</title>", "text/html"), "an HTML page"),
    "trailing-bytes": (body(JOB + b"}garbage"), "a JSON object, then garbage"),
    "bom": (sent(wire.whole, body=with_bom), "accepted; a byte order mark before the JSON"),
    "deep": (body(b"[" * 1001 + b"]" * 1001), "arrays, 1001 deep"),
    "invalid-utf8": (body(JOB.replace(b"pending", b"pend\xff\xc0\x80ing")), "bytes not UTF-8"),
    "nul-in-string": (sent(wire.whole, body=nul_in_id), "accepted; \\u0000 inside the job's id"),
    "oversized": (body(JOB[:-1] + b',"x":"' + b"x" * (70000 - len(JOB) - 7) + b'"}'),
                  "a JSON object of 70000 bytes"),
    "gzip-bomb": (bomb, "10 MiB of JSON as 10 KiB of gzip that nobody asked for"),
    # Time
    "hang": (fault(wire.hang), "no answer until the client leaves"),
    "slow": (sent(wire.slow), "accepted; the answer comes after 1 s"),
    "slow-body": (sent(wire.drip_body), "accepted; the body comes at 5 bytes a second"),
    "slow-header": (sent(wire.drip), "accepted; all of it comes at 5 bytes a second"),
    # The wire
    "cut-length": (fault(wire.only(OK_JSON % 1 + b"Content-Length: 100\r\n\r\n" + JOB[:9])),
                   "9 of 100 promised bytes, then FIN"),
    "cut-chunked": (fault(wire.only(OK_JSON % 1 + b"Transfer-Encoding: chunked\r\n\r\n"
                                    + b"%x\r\n%s\r\n" % (len(JOB), JOB))),
                    "whole JSON in a chunk, but no last chunk, then FIN"),
    "cut-close": (fault(wire.only(OK_JSON % 0 + b"\r\n" + JOB[:9])),
                  "HTTP/1.0 without a length, JSON cut by FIN"),
    "reset-mid-body": (fault(wire.reset_mid_body), "9 of 100 promised bytes, then RST"),
    "reset-before-headers": (fault(wire.reset), "RST instead of a reply"),
    "close-before-headers": (fault(wire.close), "FIN instead of a reply"),
    "close-after-second": (close_if_reused, "FIN instead of a reply on a reused connection; "
                                            "accepted on a fresh one"),
    "lost-after-accept": (sent(wire.reset), "accepted, but RST instead of the reply"),
    **{f"redirect-{code}": (redirect(code), f"{code} with a Location")
       for code in (301, 302, 303, 307, 308)},
    "endless": (fault(wire.endless), "200, chunks without end"),
    "huge-header": (sent(wire.headers(b"X-Filler: " + b"x" * 400_000)),
                    "accepted; one header of 400 KB"),
    "many-headers": (sent(wire.headers(*[b"X-Filler: " + b"x" * 1000] * 5000)),
                     "accepted; 5000 headers of 1 KB"),
    "not-http": (fault(wire.only(b"\x00\x01\x02 no HTTP here\r\n\r\n")), "garbage, then FIN"),
    "early-hints": (sent(wire.first(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")),
                    "accepted; 103 before the reply"),
    "continue-first": (sent(wire.first(b"HTTP/1.1 100 Continue\r\n\r\n")),
                       "accepted; 100 before the reply"),
}


def named_by(address):
    """The behaviour that an address asks for: NAME@… or NAME+anything@…, else `normal`."""
    name = address.rpartition("@")[0].partition("+")[0].lower()
    return name if name in BEHAVIOURS else "normal"

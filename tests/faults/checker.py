"""Decides from what was recorded whether the responder kept its promises: the invariants I1 to I11.

Four records are joined, all with times of the same machine's clock: what each client sent and got (Request), what the
sandbox was asked and did (Call), what became of the rows (audit.Change), and what the responder says it did (its log).
Beside them stand the faults, since some answers are only excused by one. Nothing here knows how faults are made, and
nothing is repaired or guessed: what can be decided is decided, everything else is left alone.

    for violation in check(history): print(violation)
"""

import bisect
import collections
import dataclasses
import typing

from conftest import STUCK, WARMING
from faults.audit import RESPONDER
from faults.audit import WRITES as OUR_COLUMNS

MESSAGE_500 = "Warmup was enabled but failed to update account status"
MESSAGE_GATE = "Only an account that is pending and whose warmup has not started can be retried"
# An acceptance whose job fails later counts only if nobody could read that job in time.
PERHAPS = ("job-failed", "job-status-failed", "job-cancelled")
CALLS_MAX = 2  # enables of one request: a second if a kept connection turns out dead


@dataclasses.dataclass
class Request:
    """`status` is None if no whole answer came: the client hung up, or was hung up on. `body` is None if not JSON."""

    id: str
    account: str
    owner: str  # whose key it carries
    key: str
    sent: float
    ended: float = 0.0
    status: typing.Optional[int] = None
    body: typing.Optional[dict] = None
    hung_up: bool = False
    where: str = ""  # the web server
    # By the responder's log, None if it has no line of it:
    upstream: typing.Optional[bool] = None  # whether it asked Instantly
    troubled: typing.Optional[bool] = None  # whether it complained of something, say a lost connection

    @property
    def error(self):
        return (self.body or {}).get("error", {})

    @property
    def ours(self):
        """Whether the answer is the responder's own and not the web server's."""
        return self.body is not None

    def __str__(self):
        said = self.error.get("message") or self.status
        return (f"{self.sent:.4f}–{self.ended:.4f} {self.where} request {self.id} of {self.owner[:8]}:"
                f" {self.status} {'hung up' if self.hung_up else said}")


@dataclasses.dataclass
class Call:
    """One enable at the sandbox."""

    at: float
    address: str
    verdict: str  # accepted, already, refused, none
    behaviour: str = "normal"

    @property
    def accepted(self):
        """Whether its reply may pass for acceptance."""
        return self.verdict in ("accepted", "already") or self.behaviour in PERHAPS

    def __str__(self):
        return f"{self.at:.4f} enable of {self.address}: {self.behaviour}, {self.verdict}"


@dataclasses.dataclass
class Fault:
    kind: str
    began: float
    ended: float
    recovery: typing.Optional[float] = None  # seconds from its end to the first success
    refused_by_server: bool = False  # meanwhile the web server had nobody to hand requests to

    def __str__(self):
        return f"{self.began:.4f}–{self.ended:.4f} fault {self.kind}"


@dataclasses.dataclass
class Key:
    owner: str
    revoked_from: float = float("inf")  # when somebody began to revoke it
    revoked_at: float = float("inf")  # when that was done for certain


@dataclasses.dataclass
class History:
    requests: list
    calls: list
    changes: list
    faults: list = dataclasses.field(default_factory=list)
    keys: dict = dataclasses.field(default_factory=dict)  # name of a key: Key
    sweep: dict = dataclasses.field(default_factory=dict)  # account: its answers without faults, in order
    leaks: list = dataclasses.field(default_factory=list)  # secrets that were found where they must not be
    bound: float = 5.0  # seconds for any answer
    in_flight: float = 2.0  # seconds that the database may go on with a statement that was given up
    recovery: float = 2.0  # seconds for I11
    respawn: float = 5.0  # and while the web server has yet to start a responder
    slack: float = 0.25  # between a row's change and its being visible; undisturbed writers only
    kills: tuple = ("kill", "term")  # kinds of faults that end a responder, and so a request
    kill_slack: float = 3.0  # until the web server has noticed and started another


class Violation(typing.NamedTuple):
    invariant: str
    text: str
    account: typing.Optional[str]
    at: float

    def __str__(self):
        return f"{self.invariant}: {self.text} (account {self.account}, {self.at:.4f})"


def state(row):
    return None if row is None else (row.get("status"), row.get("warmup_status"))


def same_time(shown, stored):
    """A time of an answer and the same of to_jsonb()."""
    return shown is not None and stored is not None and shown.rstrip("Z") == stored.partition("+")[0]


class Row:
    """What an account was, when: a list of (from, to, row or None), gapless, of growing times."""

    def __init__(self, changes, slack):
        self.changes = sorted(changes, key=lambda change: change.n)
        first = self.changes[0] if self.changes else None
        self.spans = [(float("-inf"), first.at + slack if first else float("inf"), first and first.old)]
        for i, change in enumerate(self.changes):
            end = self.changes[i + 1].at + slack if i + 1 < len(self.changes) else float("inf")
            self.spans.append((change.at, end, change.new))

    def at_some_instant(self, sent, ended, holds):
        return any(begin <= ended and sent <= end and holds(row) for begin, end, row in self.spans)

    def always(self, sent, ended, holds):
        return not self.at_some_instant(sent, ended, lambda row: not holds(row))


class Checker:
    def __init__(self, history):
        self.history, self.found = history, []
        by_account = collections.defaultdict(list)
        for change in history.changes:
            by_account[change.account].append(change)
        self.rows = {account: Row(changes, history.slack) for account, changes in by_account.items()}
        self.requests = collections.defaultdict(list)
        for request in history.requests:
            self.requests[request.account].append(request)
        self.calls = collections.defaultdict(list)
        for call in sorted(history.calls, key=lambda call: call.at):
            self.calls[call.address].append(call)

    def add(self, invariant, text, account, at):
        self.found.append(Violation(invariant, text, account, at))

    def all(self):
        for account, row in self.rows.items():
            self.check_changes(account, row)
        for account, requests in self.requests.items():
            row = self.rows.get(account) or Row([], self.history.slack)
            for request in requests:
                self.check_answer(request, row)
            self.check_successes(requests, row)
            self.check_calls(account, requests)
        self.check_sweep()
        for leak in self.history.leaks:
            self.add("I8", f"in the log: {leak}", None, 0.0)
        for fault in self.history.faults:
            limit = self.history.respawn if fault.refused_by_server else self.history.recovery
            if fault.recovery is not None and fault.recovery > limit:
                self.add("I11", f"{fault.recovery:.2f} s until all was well after {fault.kind}", None, fault.ended)
        return sorted(self.found, key=lambda violation: violation.at)

    # --- what may have done it -------------------------------------------------------------------

    def addresses(self, account):
        """All that the account ever had."""
        spans = self.rows[account].spans if account in self.rows else []
        return {row["email_address"] for _, _, row in spans if row}

    def calls_between(self, account, began, ended):
        for address in self.addresses(account):
            calls = self.calls[address]
            first = bisect.bisect_left([call.at for call in calls], began)
            for call in calls[first:]:
                if call.at > ended:
                    break
                yield call

    def may_have_called(self, request):
        """By its answer: steps 5 and 6 were reached, or nobody knows."""
        if not request.ours or request.status is None:
            return True
        if request.status in (409, 404):
            return request.upstream is not False and request.error.get("message") != MESSAGE_GATE
        return request.status in (200, 500, 502)

    def may_have_moved(self, request, change):
        """Whether its swap can have been what changed the row then."""
        return (self.may_have_called(request) and request.status != 502 and request.owner == change.old["user_id"]
                and request.sent <= change.at <= self.until(request) + self.history.in_flight)

    def until(self, request):
        """Who got no answer of its own cannot tell how long the request went on."""
        return request.ended if request.ours else max(request.ended, request.sent + self.history.bound)

    def accepted_for(self, request, until):
        """Whether Instantly accepted between this request's begin and then, not after its end."""
        return any(call.accepted for call in self.calls_between(
            request.account, request.sent, min(until, self.until(request))))

    # --- I1, I2, I3: the row ---------------------------------------------------------------------

    def check_changes(self, account, row):
        before = None
        for change in row.changes:
            if before is not None and state(before.new) != state(change.old):
                self.add("I3", f"entry {change.n} found {state(change.old)}, but {before.n} left {state(before.new)}",
                         account, change.at)
            before = change
            if change.by_whom == RESPONDER:
                self.check_move(account, change)

    def check_move(self, account, change):
        if change.operation != "UPDATE" or change.old is None or change.new is None:
            self.add("I3", f"the responder's {change.operation}", account, change.at)
            return
        if state(change.old) != STUCK:
            moved_before = state(change.old) == WARMING
            self.add("I2" if moved_before else "I3", f"moved from {state(change.old)}", account, change.at)
        if state(change.new) != WARMING:
            self.add("I3", f"moved to {state(change.new)}", account, change.at)
        changed = {name for name in change.new if change.new[name] != change.old.get(name)}
        if changed - OUR_COLUMNS:
            self.add("I3", f"changed {sorted(changed - OUR_COLUMNS)}", account, change.at)
        movers = [request for request in self.requests[account] if self.may_have_moved(request, change)]
        if not movers:
            known = [request for request in self.requests[account]
                     if request.sent <= change.at <= self.until(request) + self.history.in_flight]
            foreign = known and all(request.owner != change.old["user_id"] for request in known)
            self.add("I9" if foreign else "I5", "moved, but by none whose answer allows it", account, change.at)
        elif not any(self.accepted_for(request, change.at) for request in movers):
            self.add("I1", "moved without acceptance", account, change.at)

    # --- the answers -----------------------------------------------------------------------------

    def check_answer(self, request, row):
        if request.ended - request.sent > self.history.bound:
            self.bad("I10", request, f"took {request.ended - request.sent:.2f} s")
        if not request.ours:
            if not request.hung_up and not self.excused(request):
                self.bad("I10", request, f"no answer of the responder's ({request.status}), and nobody killed it")
            return
        judge = getattr(self, f"check_{request.status}", None)
        if judge is None:
            self.bad("I10", request, "no documented status")
            return
        judge(request, row)
        if request.status != 500 and request.error.get("message") == MESSAGE_500:
            self.bad("I6", request, "carries the message of the 500")
        if request.upstream and not self.may_have_called(request):
            self.bad("I5", request, "by its log it asked Instantly")

    def bad(self, invariant, request, text):
        self.add(invariant, f"{text}: {request}", request.account, request.ended)

    def excused(self, request):
        """Whether a responder was ended while the request ran, or shortly before."""
        return any(fault.kind.startswith(self.history.kills) and fault.began <= request.ended
                   and request.sent <= fault.ended + self.history.kill_slack for fault in self.history.faults)

    def check_200(self, request, row):
        shown = request.body.get("account") or {}
        if shown.get("id") != request.account or shown.get("user_id") != request.owner:
            self.bad("I9", request, f"shows {shown.get('id')} of {shown.get('user_id')}")
        if state(shown) != WARMING:
            self.bad("I4", request, "does not show a warming row")

        def is_shown(stored):
            return (stored is not None and state(stored) == WARMING and stored["user_id"] == request.owner
                    and stored["email_address"] == shown.get("email_address")
                    and same_time(shown.get("updated_at"), stored["updated_at"]))

        if not row.at_some_instant(request.sent, request.ended, is_shown):
            self.bad("I4", request, f"the row was never so: {shown.get('status')} {shown.get('updated_at')}")
        if not self.accepted_for(request, request.ended):
            self.bad("I1", request, "success without acceptance")

    def check_successes(self, requests, row):
        """Who lost no try on the way has made the very move that he shows, and no two have made the same."""
        winners = {}
        for request in requests:
            if request.status != 200 or not request.ours or request.troubled is not False:
                continue
            shown = (request.body.get("account") or {}).get("updated_at")
            move = next((change for change in row.changes if change.by_whom == RESPONDER and change.new
                         and same_time(shown, change.new["updated_at"])), None)
            if move is None or move.n in winners:
                self.bad("I4", request, f"somebody else's move: {winners[move.n] if move else ''}")
            else:
                winners[move.n] = request

    def check_401(self, request, _row):
        key = self.history.keys.get(request.key)
        if key is not None and request.ended < key.revoked_from:
            self.bad("I10", request, "refused a good key")

    def check_404(self, request, row):
        if row.always(request.sent, request.ended,
                      lambda stored: stored is not None and stored["user_id"] == request.owner):
            self.bad("I4", request, "the row was there all the time")

    def check_409(self, request, row):
        self.check_owner(request, row)
        details = request.error.get("details") or {}
        said = (details.get("status"), details.get("warmup_status"))
        if said == STUCK or not row.at_some_instant(
                request.sent, request.ended, lambda stored: stored is not None and state(stored) == said
                and stored["user_id"] == request.owner):
            self.bad("I4", request, f"the row was never {said}")

    def check_500(self, request, row):
        self.check_owner(request, row)
        if request.error.get("message") != MESSAGE_500:
            self.bad("I6", request, "something that should never happen")
        elif not self.accepted_for(request, request.ended):
            self.bad("I6", request, "claims that Instantly accepted")

    def check_502(self, request, row):
        """That it moved nothing is checked with the moves."""
        self.check_owner(request, row)

    def check_owner(self, request, row):
        if not row.at_some_instant(request.sent, request.ended,
                                   lambda stored: stored is not None and stored["user_id"] == request.owner):
            self.bad("I9", request, "the account was never the caller's")

    def check_503(self, request, _row):
        """That it asked nobody is checked with the calls."""

    # --- I5, I10: the calls; keys; the end -------------------------------------------------------

    def last_call(self, request):
        """A call whose reply never came may be read by Instantly after the request has ended."""
        unread = request.status in (None, 502) or not request.ours
        return self.until(request) + (self.history.in_flight if unread else 0)

    def check_calls(self, account, requests):
        """Each enable belongs to a request that may have made it; each made at most so many."""
        callers = sorted((request for request in requests if self.may_have_called(request)),
                         key=self.last_call)
        left = {request.id: CALLS_MAX for request in callers}
        for call in sorted(self.calls_between(account, float("-inf"), float("inf")), key=lambda call: call.at):
            caller = next((request for request in callers
                           if left[request.id] and request.sent <= call.at <= self.last_call(request)), None)
            if caller is None:
                self.add("I5", f"nobody who may have asked: {call}", account, call.at)
            else:
                left[caller.id] -= 1
        for request in requests:
            key = self.history.keys.get(request.key)
            if key is None or not request.ours:
                continue
            if request.sent > key.revoked_at and request.status not in (401, 503):
                self.bad("I9", request, "the key was revoked before")

    def check_sweep(self):
        for account, answers in self.history.sweep.items():
            row = self.rows[account].spans[-1][2] if account in self.rows else None
            at = answers[-1].ended if answers else 0
            if state(row) == STUCK:
                self.add("I7", f"still stuck after {len(answers)} retries: {answers[-1:]}", account, at)
            if answers and answers[-1].status not in (200, 409) and row is not None:
                self.add("I7", f"not settled after {len(answers)} retries: {answers[-1]}", account, at)


def check(history):
    """All that is wrong with it, in order of time."""
    return Checker(history).all()


def around(history, violation, seconds=2.0):
    """What is known of that account at about that time, for a reader."""
    checker = Checker(history)
    began, ended = violation.at - seconds, violation.at + seconds
    lines = [(fault.began, str(fault)) for fault in history.faults if fault.began <= ended and fault.ended >= began]
    if violation.account is not None:
        lines += [(request.sent, str(request)) for request in checker.requests[violation.account]
                  if request.sent <= ended and request.ended >= began]
        lines += [(call.at, str(call)) for call in checker.calls_between(violation.account, began, ended)]
        lines += [(change.at, f"{change.at:.4f} audit {change.n}: {change.by_whom} {change.operation} "
                              f"{state(change.old)} → {state(change.new)} (backend {change.pid})")
                  for change in (checker.rows[violation.account].changes if violation.account in checker.rows else [])]
    return "\n".join(line for _, line in sorted(lines))

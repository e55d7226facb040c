"""What the sandbox knows and does while it behaves: accounts, jobs, and what a call means.

No sockets and no misbehaviour here; `instantly.py` serves it, `behaviours.py` bends it.
"""
import dataclasses
import json
import os
import re
import threading
import time
import uuid
from urllib.parse import parse_qs, unquote

if __package__:
    from . import wire
    from .behaviours import ACCEPTED, NONE, REFUSED
else:
    import wire
    from behaviours import ACCEPTED, NONE, REFUSED

EVERYTHING = "everything"  # verdict on include_all_emails, which would hit the whole workspace
EMAILS_MAX = 100
KEPT_MAX = 100_000  # accounts and jobs remembered, so that a long benchmark does not grow for ever

BASE = "/api/v2"
ROUTES = (  # kind, method, path below the base, scope that the key must have
    ("enable", "POST", re.compile("/accounts/warmup/enable"), "accounts:update"),
    ("job", "GET", re.compile("/background-jobs/([^/]+)"), "background-jobs:read"),
    ("account", "GET", re.compile("/accounts/([^/]+)"), "accounts:read"),
    ("accounts", "GET", re.compile("/accounts"), "accounts:read"),
)
SCOPES = {kind: scope for kind, _, _, scope in ROUTES}
PAGE, PAGE_MAX = 10, 100  # accounts in one list, unless the call says otherwise
JOB_ENDS = {  # outcome: (status at the end, what the item complains of)
    "done": ("success", None),
    "item-failed": ("success", "Account not found"),
    "failed": ("failed", None),
    "cancelled": ("cancelled", None),
    "slow": ("in-progress", None),
    "unreadable": ("success", None),
    "hangs": ("success", None),
}
FAILED_ENDS = ("item-failed", "failed", "cancelled")
NOT_JSON = {}  # told apart by identity


@dataclasses.dataclass
class Call:
    """One request as it came, and what was decided about it."""
    connection: int  # 1 is the first connection
    turn: int  # 1 is the first request of its connection
    n: int = 0  # 1 is the first call
    time: float = 0.0  # seconds since 1970
    method: str = ""
    target: str = ""
    headers: list = dataclasses.field(default_factory=list, repr=False)
    head: bytes = dataclasses.field(default=b"", repr=False)
    body: bytes = b""
    kind: str = "other"  # enable, job, account, accounts, other
    address: str = None  # whose call it is; of an enable, the first of `emails`
    emails: list = dataclasses.field(default_factory=list)
    job: str = None
    behaviour: str = None  # None if the call did not get as far
    authorization_ok: bool = False
    verdict: str = NONE


@dataclasses.dataclass
class Job:
    """A background job; its state follows from its age."""
    id: str
    emails: list
    outcome: str = "done"  # a key of JOB_ENDS
    born: float = dataclasses.field(default_factory=time.monotonic)


def json_object(body):
    """The object in these bytes, or NOT_JSON."""
    try:
        value = json.loads(body.decode())
    except (ValueError, RecursionError):
        return NOT_JSON
    return value if isinstance(value, dict) else NOT_JSON


def put(table, key, value):
    """Put a row into a dict, forgetting the oldest when it is full."""
    table[key] = value
    if len(table) > KEPT_MAX:
        del table[next(iter(table))]


class Service:
    """The well-behaved provider. Its replies are made here, and sent elsewhere."""

    def __init__(self):
        self.job_seconds = 0.12  # how long a job is in-progress
        self.accounts = {}  # address: the account as the API shows it
        self.scopes = set(SCOPES.values())  # what the key may do
        self._lock = threading.RLock()
        self._jobs = {}
        self._workspace = str(uuid.uuid4())

    def set_account(self, address, warmup_status, score=None):
        """Make an account known, or change it."""
        with self._lock:
            put(self.accounts, address, {"email": address, "status": 1,
                "warmup_status": warmup_status, "stat_warmup_score": score})

    def classify(self, call):
        """Kind, address and job of a call, before anything is judged."""
        path, match = call.target.partition("?")[0], None
        for kind, method, pattern, _ in ROUTES:
            if call.method == method and path.startswith(BASE) and (
                    match := pattern.fullmatch(path, len(BASE))):
                call.kind = kind
                break
        if call.kind == "enable":
            emails = json_object(call.body).get("emails")
            if isinstance(emails, list):
                call.emails = [email for email in emails if isinstance(email, str)]
            call.address = next(iter(call.emails), None)
        elif call.kind == "job":
            call.job = match[1]
            if job := self._jobs.get(call.job):
                call.address = next(iter(job.emails), None)
        elif call.kind == "account":
            call.address = unquote(match[1])

    def judge_form(self, call):
        """What an enable gets before any behaviour; None if it names 1 to 100 addresses."""
        media = [value.partition(";")[0].strip().lower()
                 for value in wire.values(call.headers, "content-type")]
        form = json_object(call.body)
        if media != ["application/json"] or form is NOT_JSON:
            return wire.error(400, "Body must be a JSON object sent as application/json")
        emails = form.get("emails") or []
        if not isinstance(emails, list) or not len(call.emails) == len(emails) <= EMAILS_MAX:
            return wire.error(400, f"emails must be an array of at most {EMAILS_MAX} strings")
        if form.get("include_all_emails") is True:
            return wire.Reply(body=self._new_job(emails), verdict=EVERYTHING)
        # Nobody named, perhaps by a misspelt member: the real one does not complain either.
        return None if emails else wire.Reply(body=self._new_job([]), verdict=NONE)

    def judge_scope(self, call):
        """What a call gets whose scope the key lacks; None if it has it."""
        scope = SCOPES[call.kind]
        return None if scope in self.scopes else wire.error(403, f"Missing scope {scope}")

    # The routes. `outcome` is what becomes of the job, `done` shows it finished at once.

    def enable(self, call, outcome, done):
        verdict = REFUSED if outcome in FAILED_ENDS else ACCEPTED
        return wire.Reply(body=self._new_job(call.emails, outcome, done), verdict=verdict)

    def read_job(self, call, outcome, _done):
        job = self._jobs.get(call.job)
        if job is None:
            return wire.error(404, "Background job not found")
        if outcome != "done":  # a behaviour scripted for the reading bends the job itself
            job.outcome = outcome
        if job.outcome == "unreadable":
            return wire.error(403, "Missing scope background-jobs:read")
        return wire.Reply(body=self._show(job),
                          send=wire.hang if job.outcome == "hangs" else wire.whole)

    def read_account(self, call, _outcome, _done):
        account = self.accounts.get(call.address)
        return wire.Reply(body=account) if account else wire.error(404, "Account not found")

    def list_accounts(self, call, _outcome, _done):
        query = parse_qs(call.target.partition("?")[2])
        limit, after = query.get("limit", [str(PAGE)])[0], query.get("starting_after", [""])[0]
        if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= PAGE_MAX):
            return wire.error(400, f"limit must be a number from 1 to {PAGE_MAX}")
        with self._lock:
            left = sorted(address for address in self.accounts if address > after)
            items = [self.accounts[address] for address in left[:int(limit)]]
        more = items[-1]["email"] if len(left) > len(items) else None
        return wire.Reply(body={"items": items, "next_starting_after": more})

    def adopt_job(self, call, reply):
        """Let a job be read that only a scripted reply made up."""
        if isinstance(reply.body, dict) and isinstance(reply.body.get("id"), str):
            self._keep(Job(reply.body["id"], call.emails))

    def _new_job(self, emails, outcome="done", done=False):
        job = Job(os.urandom(12).hex(), emails, outcome)
        self._keep(job)
        return self._show(job, "done" if done else "pending")

    def _keep(self, job):
        with self._lock:
            put(self._jobs, job.id, job)

    def _show(self, job, phase=None):
        """The job: pending in the enable reply, then in-progress for a while, then its end.

        Time decides, not the number of readings, as for the real one.
        """
        end, problem = JOB_ENDS[job.outcome]
        if phase is None:
            phase = "done" if time.monotonic() - job.born >= self.job_seconds else "in-progress"
        status = end if phase == "done" else phase
        data = {}
        if status == "success":
            item = {"status": "failed", "error": problem} if problem else {"status": "success"}
            count = len(job.emails)
            data = {"step": "DONE", "total_to_process": count,
                    "success_count": 0 if problem else count,
                    "failed_count": count if problem else 0,
                    "processed_emails": [{"email": email, **item} for email in job.emails]}
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        return {"id": job.id, "workspace_id": self._workspace, "user_id": None,
                "type": "update-warmup-accounts", "entity_id": self._workspace,
                "entity_type": "workspace", "data": data,
                "progress": {"pending": 0, "success": 100}.get(status, 50), "status": status,
                "created_at": now, "updated_at": now}

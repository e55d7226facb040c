"""What a round of the random run is to be, made from its seed alone: accounts, requests, the outside writer, faults.

Everything is tied to the number of a request, not to the clock: the n-th request asks for this account, the next enable
of that address meets this reply, this fault begins with the n-th request and goes on for so many. What the seed does
not decide: how the threads of clients, responders and servers interleave, which of several processes or messages a
fault meets, and how long a fault lasts that takes its time by nature (a restart).
"""

import dataclasses
import hashlib
import random
import typing
import uuid

OWNERS, KEYS = 4, 3  # keys of each owner; the first is never revoked
WINDOW = 8  # accounts that are asked for at a time
PER_ACCOUNT = 4  # requests, on average
EVERY = 110  # requests from the beginning of a fault to that of the next
UNKNOWN = "nobody's"

# How the sandbox meets an enable: (weight, behaviour). What takes the whole time limit is rare, or nothing gets done.
REPLIES = [
    (120, "normal"), (6, "empty"), (6, "job-slow"), (4, "job-unreadable"), (2, "job-hangs"), (3, "early-hints"),
    (4, "already-warming"), (6, "close-after-second"),
    (8, "lost-after-accept"), (8, "refused"), (6, "rate-limited"), (5, "error-500"), (4, "error-503"),
    (6, "job-failed"), (3, "job-failed-at-once"), (3, "job-status-failed"), (2, "job-cancelled"), (3, "error-member"),
    (5, "close-before-headers"), (5, "reset-before-headers"), (4, "reset-mid-body"), (4, "cut-length"),
    (3, "cut-chunked"), (3, "cut-close"), (2, "html"), (2, "oversized"), (2, "not-http"), (2, "redirect-302"),
    (3, "hang"), (3, "slow"),
]

# What the outside writer does with an account: (weight, name); the SQL is random_rig.WRITES.
WRITES = [(5, "ban"), (5, "graduate"), (3, "delete"), (6, "create again"), (8, "put back"), (2, "hand over"),
          (2, "warm")]


def pick(rng, weighted):
    return rng.choices([value for _, value in weighted], [weight for weight, _ in weighted])[0]


@dataclasses.dataclass
class Account:
    id: str
    owner: str
    address: str
    replies: list


@dataclasses.dataclass
class Step:
    """One request: which account, with whose which key, through which web server, and what happens beside it."""

    account: Account
    owner: str
    key: str  # its name
    server: int  # modulo the number of servers
    hangs_up: bool
    write: typing.Optional[str]  # what is done to the row
    write_after: float  # seconds after sending
    revokes: typing.Optional[str]  # name of a key


class Plan:
    """`faults`: a list of (number of the first request, name, seed of its own); of `kinds`, each in turn, shuffled."""

    def __init__(self, seed, requests, kinds, every=EVERY):
        self.seed, self.requests = seed, requests
        self.rng = rng = random.Random(hashlib.sha256(str(seed).encode()).digest())
        self.owners = [self._uuid() for _ in range(OWNERS)]
        self.keys = {f"{owner[:8]}-{n}": owner for owner in self.owners for n in range(KEYS)}
        self.accounts = [self._account() for _ in range(requests // PER_ACCOUNT + WINDOW)]
        revoked = {rng.randrange(requests): name for name in self.keys
                   if not name.endswith("-0") and rng.random() < 0.7}
        self.steps = [self._step(n, revoked.get(n)) for n in range(requests)]
        self.faults = self._faults(list(kinds), every)

    def _uuid(self):
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def _account(self):
        account_id = self._uuid()
        return Account(account_id, self.rng.choice(self.owners), f"joe+{account_id[:13]}@round.example",
                       [pick(self.rng, REPLIES) for _ in range(6)])

    def _step(self, n, revokes):
        rng = self.rng
        account = self.accounts[n // PER_ACCOUNT + rng.randrange(WINDOW)]
        owner = account.owner if rng.random() < 0.96 else rng.choice(self.owners)
        key = UNKNOWN if rng.random() < 0.01 else f"{owner[:8]}-{rng.randrange(KEYS) if rng.random() < 0.3 else 0}"
        return Step(account, owner, key, rng.randrange(1000), rng.random() < 0.02,
                    pick(rng, WRITES) if rng.random() < 0.2 else None, max(0.0, rng.uniform(-0.05, 0.3)), revokes)

    def _faults(self, kinds, every):
        """One after the other with a pause, so that it can be told how long each was felt."""
        self.every = max(40, min(every, self.requests // len(kinds)))
        places = range(self.every // 2, self.requests - self.every // 2, self.every)
        order = []
        while len(order) < len(places):
            order += self.rng.sample(kinds, len(kinds))
        return [(at, name, self.rng.getrandbits(64)) for at, name in zip(places, order)]

"""The truth about moves: a trigger that writes down every change of an account, and the check of it against Instantly's
ledger.

What the responder claims counts for nothing here: the table says what was changed, by whom and when, and the sandbox
what was asked of it and what it said.
"""

import dataclasses
import datetime

from conftest import STUCK, WARMING

INSTALL = """
CREATE TABLE fault_audit (
    n bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), txid bigint NOT NULL,
    pid integer NOT NULL, application text NOT NULL, by_whom name NOT NULL, old jsonb NOT NULL, new jsonb
);
CREATE FUNCTION fault_audit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO fault_audit (txid, pid, application, by_whom, old, new) VALUES (txid_current(), pg_backend_pid(),
        current_setting('application_name'), session_user, to_jsonb(OLD),
        CASE WHEN TG_OP = 'UPDATE' THEN to_jsonb(NEW) END);
    RETURN NULL;
END $$;
CREATE TRIGGER fault_audit AFTER UPDATE OR DELETE ON accounts FOR EACH ROW EXECUTE FUNCTION fault_audit();
"""
REMOVE = "DROP TRIGGER fault_audit ON accounts; DROP FUNCTION fault_audit; DROP TABLE fault_audit"

RESPONDER = "warmup"  # the role that the responder logs in as
WRITES = {"status", "warmup_status", "updated_at"}


@dataclasses.dataclass
class Change:
    """A line of the audit: an account before and after, `new` None if it was deleted."""

    n: int
    at: datetime.datetime
    txid: int
    pid: int
    application: str
    by_whom: str
    old: dict
    new: dict

    @property
    def states(self):
        """From where to where."""
        return tuple(row and (row["status"], row["warmup_status"]) for row in (self.old, self.new))


def install(world):
    world.execute(INSTALL)


def remove(world):
    world.execute(REMOVE)


def changes(world, account=None):
    """All changes, or those of one account, in their order."""
    return [Change(*line) for line in world.execute(
        "SELECT n, at, txid, pid, application, by_whom, old, new FROM fault_audit"
        " WHERE %s::text IS NULL OR old->>'id' = %s ORDER BY n", account, account)]


def moves(world, account=None):
    """Those that the responder made."""
    return [change for change in changes(world, account) if change.by_whom == RESPONDER]


def check(world, account):
    """The invariants I1, I2, I3 of one account: its moves followed an acceptance, one a stay, and overwrote nothing."""
    enables = world.sandbox.enables(world.address(account))
    stays = 1
    for change in changes(world, account):
        if change.by_whom != RESPONDER:
            stays += change.states[1] == STUCK
            continue
        assert change.states == (STUCK, WARMING), change
        assert {name for name in change.old if change.old[name] != change.new[name]} <= WRITES, change
        stays -= 1
        assert stays >= 0, f"moved twice: {changes(world, account)}"
        assert any(call.verdict in ("accepted", "already") and call.time <= change.at.timestamp()
                   for call in enables), f"moved without an acceptance: {change}, {enables}"

"""The truth about accounts: a trigger that writes down every change, in the order in which the row saw them, and the
check of what it tells against Instantly's own record.

What the responder says of itself is not asked. A change and its entry are one transaction, so neither is ever without
the other, whatever is killed.

    execute(AUDIT)                                   as the owner of the tables, once per database
    execute(READ) -> rows -> Change(*row)            in order
"""

import datetime
import typing

from conftest import STUCK, WARMING

AUDIT = """
CREATE TABLE audit (
    n bigserial PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    txid bigint NOT NULL DEFAULT txid_current(),
    pid integer NOT NULL DEFAULT pg_backend_pid(),
    application text NOT NULL DEFAULT current_setting('application_name'),
    by_whom text NOT NULL DEFAULT session_user,
    operation text NOT NULL,
    account uuid NOT NULL,
    old jsonb,
    new jsonb
);
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO audit (operation, account, new) VALUES (TG_OP, NEW.id, to_jsonb(NEW));
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO audit (operation, account, old) VALUES (TG_OP, OLD.id, to_jsonb(OLD));
    ELSE
        INSERT INTO audit (operation, account, old, new) VALUES (TG_OP, OLD.id, to_jsonb(OLD), to_jsonb(NEW));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON accounts FOR EACH ROW EXECUTE FUNCTION audit();
"""
READ = "SELECT n, at, txid, pid, application, by_whom, operation, account, old, new FROM audit ORDER BY n"
READ_ONE = READ.replace("ORDER BY", "WHERE account = %s ORDER BY")
REMOVE = "DROP TRIGGER audit ON accounts; DROP FUNCTION audit; DROP TABLE audit"

RESPONDER = "warmup"  # the role that the responder logs in as
WRITES = {"status", "warmup_status", "updated_at"}


class Change(typing.NamedTuple):
    """One entry. `at` is when the row was changed; others see it from the commit on, which is not before."""

    n: int
    at: typing.Union[datetime.datetime, float]
    txid: int
    pid: int
    application: str
    by_whom: str
    operation: str
    account: str
    old: typing.Optional[dict]
    new: typing.Optional[dict]

    @property
    def states(self):
        """From where to where."""
        return tuple(row and (row["status"], row["warmup_status"]) for row in (self.old, self.new))


def read(execute, account=None):
    """All entries, or those of one account, with times in seconds since 1970."""
    rows = execute(READ) if account is None else execute(READ_ONE, account)
    return [Change(*row)._replace(at=row[1].timestamp(), account=str(row[7])) for row in rows]


def install(world):
    world.execute(AUDIT)


def remove(world):
    world.execute(REMOVE)


def changes(world, account):
    """What became of one account since it was made."""
    return [change for change in read(world.execute, account) if change.operation != "INSERT"]


def moves(world, account):
    """Those of its changes that the responder made."""
    return [change for change in changes(world, account) if change.by_whom == RESPONDER]


def check(world, account):
    """The invariants I1, I2, I3 of one account: its moves followed an acceptance, one a stay, and overwrote nothing."""
    enables = world.sandbox.enables(world.address(account))
    history = changes(world, account)
    stays = 1
    for change in history:
        if change.by_whom != RESPONDER:
            stays += change.states[1] == STUCK
            continue
        assert change.states == (STUCK, WARMING), change
        assert {name for name in change.old if change.old[name] != change.new[name]} <= WRITES, change
        stays -= 1
        assert stays >= 0, f"moved twice: {history}"
        assert any(call.verdict in ("accepted", "already") and call.time <= change.at for call in enables), (
            f"moved without an acceptance: {change}, {enables}")

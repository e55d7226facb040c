"""The truth about accounts: a trigger that writes down every change, in the order in which the row saw them.

What the responder says of itself is not asked. A change and its entry are one transaction, so neither is ever without
the other, whatever is killed.

    execute(AUDIT)                                   as the owner of the tables, once per database
    execute(READ) -> rows -> Change(*row)            in order
"""

import datetime
import typing

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


def read(execute):
    """All entries, with times in seconds since 1970."""
    return [Change(*row)._replace(at=row[1].timestamp(), account=str(row[7])) for row in execute(READ)]

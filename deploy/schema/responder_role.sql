-- responder_role.sql: the least that the responder needs, as a role of its own.
--
-- Not part of `warmupctl migrate`, because making roles is often somebody else's right:
--     warmupctl migrate --role        or        psql -f responder_role.sql
-- Then give it to the login that DATABASE_URL names:
--     CREATE ROLE warmup LOGIN PASSWORD 'secret' IN ROLE warmup_responder;
-- Safe to apply twice.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'warmup_responder') THEN
        CREATE ROLE warmup_responder NOLOGIN;
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO warmup_responder',
                   (SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE c.oid = 'accounts'::regclass));
END
$$;

GRANT SELECT ON accounts, email_domains, api_keys TO warmup_responder;
GRANT UPDATE (status, warmup_status, updated_at) ON accounts TO warmup_responder;

-- The responder gives up on a statement by itself and closes the connection; on its connections it
-- also sets statement_timeout, so that the server does the same. Behind a pooler in transaction mode
-- (WARMUP_DB_PREPARED=off) it cannot; then set it for the login, because settings are not inherited
-- from a group role:
--     ALTER ROLE warmup SET statement_timeout = '5s';

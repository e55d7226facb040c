-- 0001_tables.sql: the tables that warmup works on.
--
-- Safe to apply twice, and beside an existing deployment: a table (or a view of the same shape,
-- where warmup only reads) that is there already is left as it is.

CREATE TABLE IF NOT EXISTS email_domains (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id    uuid NOT NULL,
    domain     text NOT NULL,
    status     text NOT NULL DEFAULT 'pending'
);

CREATE TABLE IF NOT EXISTS accounts (
    id                 uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id            uuid NOT NULL,
    type               text NOT NULL DEFAULT 'email',
    email_address      text,
    domain_id          uuid,
    status             text NOT NULL DEFAULT 'pending',
    warmup_status      text DEFAULT 'not_started',
    agentmail_inbox_id text,
    daily_limit        integer,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now()
);

-- key_hash is the SHA-256 of a whole key; the key itself is stored nowhere. prefix is its first 24
-- characters, which may be shown and logged. Where a data API serves the schema to the roles anon and
-- authenticated (Supabase), they get nothing of a table that is made here.
DO $$
DECLARE
    outsider name;
BEGIN
    IF to_regclass('api_keys') IS NULL THEN
        CREATE TABLE api_keys (
            id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            user_id    uuid NOT NULL,
            key_hash   bytea NOT NULL UNIQUE CHECK (octet_length(key_hash) = 32),
            prefix     text NOT NULL,
            name       text,
            created_at timestamptz NOT NULL DEFAULT now(),
            revoked_at timestamptz
        );
        FOR outsider IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated') LOOP
            EXECUTE format('REVOKE ALL ON api_keys FROM %I', outsider);
            IF to_regclass('warmup_migrations') IS NOT NULL THEN -- warmupctl's notes
                EXECUTE format('REVOKE ALL ON warmup_migrations FROM %I', outsider);
            END IF;
        END LOOP;
    END IF;
END
$$;

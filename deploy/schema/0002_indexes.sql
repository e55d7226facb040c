-- 0002_indexes.sql: what the statements need to stay fast at any size.
--
-- The load, the read and the swap find each row by a unique index on one column. In a deployment
-- that was there before, one is added only where none does the same, and never to a view. On a
-- large, busy table create them beforehand with CREATE INDEX CONCURRENTLY and the names below:
-- then this file finds them and does nothing.

DO $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES ('accounts', 'id'), ('email_domains', 'id'), ('api_keys', 'key_hash'))
                 AS list (table_name, column_name)
    LOOP
        IF EXISTS (SELECT FROM pg_class c
                   WHERE c.oid = to_regclass(wanted.table_name) AND c.relkind IN ('r', 'p'))
           AND NOT EXISTS (SELECT FROM pg_index i
                   JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                   WHERE i.indrelid = to_regclass(wanted.table_name) AND i.indisunique
                     AND i.indisvalid AND i.indpred IS NULL AND i.indnkeyatts = 1
                     AND a.attname = wanted.column_name)
        THEN
            EXECUTE format('CREATE UNIQUE INDEX IF NOT EXISTS %I ON %I (%I)',
                'warmup_' || wanted.table_name || '_' || wanted.column_name,
                wanted.table_name, wanted.column_name);
        END IF;
    END LOOP;
END
$$;

-- The stuck accounts, oldest first: a handful among millions, so this index stays small.
CREATE INDEX IF NOT EXISTS warmup_accounts_stuck ON accounts (created_at)
    WHERE status = 'pending' AND warmup_status = 'not_started' AND type = 'email';

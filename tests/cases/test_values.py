"""What stands in the columns, and how it looks in the answer: texts, numbers and times of every kind, and other types
than the documented ones."""

import contextlib
import datetime
import hashlib
import json
import random
import secrets
import uuid

import pytest

from conftest import ADDRESS_MARK, STUCK, WARMING, World, check_log, warmupctl
from test_errors import NO_ADDRESS, NOT_STUCK, Gateway, assert_headers, gateway, module_gateway  # noqa: F401
from test_retry_warmup import MEMBERS

TEXTS = {
    "empty": "", "space": " ", "blanks": " \t\r\n ", "quote": '"', "quotes": 'a"b""c', "apostrophe": "o'neil",
    "backslash": "\\", "backslashes": "\\\\n\\u0041\\", "backslash-quote": '\\"', "slash": "a/b",
    "control": "\u0001", "controls": "".join(map(chr, range(1, 32))), "delete": "\u007f", "c1": "\u0080\u0085\u009f",
    "escape": "\u001b[31mred", "line-separators": "a\u2028b\u2029c", "script": "</script><!-- &amp; -->",
    "accents": "\u00e9e\u0301", "wide": "\u65e5\u672c\u8a9e", "emoji": "\U0001f600\U0001f468\u200d\U0001f469",
    "last-character": "\U0010ffff", "before-the-surrogates": "\ud7ff\ue000", "no-characters": "\ufffe\uffff\ufdd0",
    "replacement": "\ufffd", "byte-order-mark": "\ufeffx", "right-to-left": "\u202eabc", "no-break-space": "\u00a0",
    "json": '{"a":[null,true]}', "null": "null", "number": "1e3", "percent": "%s%n%00%d",
    "crlf": "a\r\nSet-Cookie: x=y",
    "braces": "{}[],:", "sql": "'; DROP TABLE accounts; --",
}


@contextlib.contextmanager
def serving(kind, build, run_folder, world, **changes):
    """The responder on a database of its own."""
    gateway = Gateway(kind, build / "warmup.fcgi", run_folder / f"gateway-{secrets.token_hex(4)}",  # noqa: F811
                      world.settings(**{"WARMUP_JOB_WAIT_MS": 0, **changes}))
    yield gateway
    assert gateway.stop(), "the responder did not end by itself"
    check_log(gateway, world.secrets)


@pytest.fixture
def serve_fresh(build, run_folder, fresh_world):
    """Call it when the database is as it should be: a connection that was opened earlier keeps its settings."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(serving("fastcgi", build, run_folder, fresh_world))


def moved(gateway, world, account, key=None):  # noqa: F811
    """The account of a 200."""
    answer = gateway.retry(account, key or world.key)
    assert (answer.status, answer.body.decode().count("\n")) == (200, 0), answer
    assert_headers(answer)
    assert (list(answer.json), list(answer.json["account"])) == (["account"], MEMBERS)
    return answer.json["account"]


# --- texts ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", TEXTS)
def test_text_round_trips(gateway, world, name):  # noqa: F811
    text = TEXTS[name]
    account = world.add_account(agentmail_inbox_id=text, domain_id=world.add_domain(domain=text, status=text))
    answer = moved(gateway, world, account)
    domain = answer["email_domains"]
    assert (answer["agentmail_inbox_id"], domain["domain"], domain["status"]) == (text, text, text)


@pytest.mark.parametrize("name", TEXTS)
def test_state_round_trips_in_a_conflict(gateway, world, name):  # noqa: F811
    account = world.add_account(state=(TEXTS[name], TEXTS[name]))
    before, answer = world.account(account), gateway.retry(account, world.key)
    assert (answer.status, answer.body.count(b"\n"), answer.error["message"]) == (409, 0, NOT_STUCK)
    assert answer.error["details"] == {"status": TEXTS[name], "warmup_status": TEXTS[name]}
    assert (world.account(account), world.enables(account)) == (before, 0)


def test_address_is_shown_as_it_is(gateway, world):  # noqa: F811
    for local in ('quo"te', "back\\slash", "\u00fcml\u00e4ut", "\U0001f600", "line\u2028separator", "</script>"):
        address = f"{local}+{secrets.token_hex(4)}{ADDRESS_MARK}"
        assert moved(gateway, world, world.add_account(email_address=address))["email_address"] == address


@pytest.mark.parametrize("unit", ['"', "\u20ac", "\u2028"], ids=["quotes", "euros", "separators"])
def test_megabytes_round_trip(gateway, world, unit):  # noqa: F811
    text = unit * ((1 << 20) // len(unit.encode()))
    account = world.add_account(agentmail_inbox_id=text, domain_id=world.add_domain(domain=text, status=text))
    answer = moved(gateway, world, account)
    domain = answer["email_domains"]
    assert answer["agentmail_inbox_id"] == domain["domain"] == domain["status"] == text


def test_megabytes_of_state_round_trip_in_a_conflict(gateway, world):  # noqa: F811
    texts = ["x" * (1 << 20), "\u20ac\"" * (1 << 18)]
    answer = gateway.retry(world.add_account(state=texts), world.key)
    assert (answer.status, list(answer.error["details"].values())) == (409, texts)


# --- numbers -------------------------------------------------------------------------------------

@pytest.mark.parametrize("limit", [0, 1, -1, 50, 2147483647, -2147483648, None])
def test_daily_limit_is_exact(gateway, world, limit):  # noqa: F811
    answer = gateway.retry(world.add_account(daily_limit=limit), world.key)
    assert answer.status == 200
    assert b'"daily_limit":%s,' % json.dumps(limit).encode() in answer.body


def test_daily_limit_in_other_integer_types_is_exact(serve_fresh, fresh_world):
    world, cases = fresh_world, {
        "bigint": [9007199254740993, -9007199254740993, 9223372036854775807, -9223372036854775808, 0, None],
        "smallint": [32767, -32768, None]}
    for kind, limits in cases.items():
        world.execute("UPDATE accounts SET daily_limit = NULL")
        world.execute(f"ALTER TABLE accounts ALTER daily_limit TYPE {kind}")
        gateway = serve_fresh()  # noqa: F811
        for limit in limits:
            answer = gateway.retry(world.add_account(daily_limit=limit), world.key)
            assert answer.status == 200 and b'"daily_limit":%s,' % json.dumps(limit).encode() in answer.body


# --- times ---------------------------------------------------------------------------------------

TIMES = {
    "2026-04-20 15:00:00+00": "2026-04-20T15:00:00Z",
    "2026-04-20 15:00:00.123456+00": "2026-04-20T15:00:00.123456Z",
    "2026-04-20 15:00:00.100000+00": "2026-04-20T15:00:00.1Z",
    "2026-04-20 15:00:00.120+00": "2026-04-20T15:00:00.12Z",
    "2026-04-20 15:00:00.000001+00": "2026-04-20T15:00:00.000001Z",
    "2026-04-20 15:00:00.010100+00": "2026-04-20T15:00:00.0101Z",
    "2026-04-20 15:00:00.999999+00": "2026-04-20T15:00:00.999999Z",
    "2026-04-20 15:00:00+05:30": "2026-04-20T09:30:00Z",
    "2026-04-20 23:30:00-12:45": "2026-04-21T12:15:00Z",
    "2016-12-31 23:59:60+00": "2017-01-01T00:00:00Z",  # PostgreSQL's way with a leap second
    "2024-02-29 23:59:59+00": "2024-02-29T23:59:59Z",
    "2000-02-29 00:00:00+00": "2000-02-29T00:00:00Z",
    "1900-03-01 00:00:00+00": "1900-03-01T00:00:00Z",
    "2100-02-28 23:59:59.999999+00": "2100-02-28T23:59:59.999999Z",
    "2038-01-19 03:14:08+00": "2038-01-19T03:14:08Z",
    "1999-12-31 23:59:59.999999+00": "1999-12-31T23:59:59.999999Z",
    "2000-01-01 00:00:00+00": "2000-01-01T00:00:00Z",
    "1970-01-01 00:00:00+00": "1970-01-01T00:00:00Z",
    "1969-12-31 23:59:59.999999+00": "1969-12-31T23:59:59.999999Z",
    "0999-01-02 03:04:05+00": "0999-01-02T03:04:05Z",
    "0001-01-01 00:00:00+00": "0001-01-01T00:00:00Z",
    "9999-12-31 23:59:59.999999+00": "9999-12-31T23:59:59.999999Z",
    # What the form of an answer has no words for.
    "infinity": None, "-infinity": None, "0001-12-31 23:59:59.999999+00 BC": None, "0044-03-15 12:00:00+00 BC": None,
    "4714-11-24 00:00:00+00 BC": None, "10000-01-01 00:00:00+00": None, "294276-12-31 23:59:59.999999+00": None,
}


@pytest.mark.parametrize("given", TIMES)
def test_time_is_utc_with_a_fraction_only_if_there_is_one(gateway, world, given):  # noqa: F811
    answer = moved(gateway, world, world.add_account(created_at=given))
    assert answer["created_at"] == TIMES[given]


def test_every_time_of_the_calendar_is_as_postgres_has_it(gateway, world):  # noqa: F811
    seed = random.randrange(1 << 32)
    random_ = random.Random(seed)
    first = datetime.datetime(1, 1, 1, tzinfo=datetime.timezone.utc)
    for _ in range(100 if gateway.kind == "fastcgi" else 3):
        at = first + datetime.timedelta(days=random_.randrange(3652059), seconds=random_.randrange(86400),
                                        microseconds=random_.choice((0, 500000, random_.randrange(1000000))))
        account = world.add_account(created_at=at)
        expected = world.execute("SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')"
                                 " FROM accounts WHERE id = %s", account)[0][0].rstrip("0").rstrip(".") + "Z"
        assert moved(gateway, world, account)["created_at"] == expected, seed


def test_updated_at_is_the_time_of_the_move(gateway, world):  # noqa: F811
    account = world.add_account(created_at="2026-01-01T00:00:00Z", updated_at="infinity")
    before, answer = world.execute("SELECT now()")[0][0], moved(gateway, world, account)
    stored, after = world.execute("SELECT updated_at, now() FROM accounts WHERE id = %s", account)[0]
    assert datetime.datetime.fromisoformat(answer["updated_at"].replace("Z", "+00:00")) == stored
    assert before <= stored <= after and answer["created_at"] == "2026-01-01T00:00:00Z"


SETTINGS = {
    "german": {"timezone": "'Asia/Kolkata'", "datestyle": "'German, DMY'", "client_encoding": "'LATIN1'"},
    "sql": {"timezone": "'Australia/Lord_Howe'", "datestyle": "'SQL, MDY'", "bytea_output": "'escape'",
            "standard_conforming_strings": "off", "backslash_quote": "off", "quote_all_identifiers": "on",
            "transform_null_equals": "on", "extra_float_digits": "-15"},
    "postgres": {"timezone": "'<+13>-13'", "datestyle": "'Postgres'", "intervalstyle": "'iso_8601'"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_the_database_change_nothing(serve_fresh, fresh_world, name):
    world = fresh_world
    for setting, value in SETTINGS[name].items():
        world.execute(f"ALTER DATABASE {world.name} SET {setting} = {value}")
    gateway = serve_fresh()  # noqa: F811
    account = world.add_account(created_at="2026-03-04 05:06:07.08+00", agentmail_inbox_id="\u20ac \\ ' \u00e9",
                                domain_id=world.add_domain(domain="\u65e5\u672c"))
    answer = moved(gateway, world, account)
    assert (answer["created_at"], answer["agentmail_inbox_id"]) == ("2026-03-04T05:06:07.08Z", "\u20ac \\ ' \u00e9")
    assert answer["email_domains"]["domain"] == "\u65e5\u672c"
    assert abs(datetime.datetime.fromisoformat(answer["updated_at"].replace("Z", "+00:00"))
               - datetime.datetime.now(datetime.timezone.utc)) < datetime.timedelta(minutes=5)


def test_time_zone_of_the_process_changes_nothing(build, run_folder, world):
    account = world.add_account(created_at="2026-03-04 05:06:07+00")
    with serving("cgi", build, run_folder, world, TZ="Asia/Kolkata", LC_ALL="de_DE.UTF-8", PGTZ="Asia/Kolkata",
                 PGDATESTYLE="German", PGCLIENTENCODING="LATIN1") as gateway:  # noqa: F811
        assert moved(gateway, world, account)["created_at"] == "2026-03-04T05:06:07Z"


# --- other encodings -----------------------------------------------------------------------------

@contextlib.contextmanager
def encoded_world(postgres, build, sandbox, encoding):
    name = "encoded_" + secrets.token_hex(4)
    with contextlib.closing(postgres.connect()) as administrator:
        administrator.cursor().execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}'"
                                       " LC_COLLATE 'C' LC_CTYPE 'C'")
        warmupctl(build, postgres.url(name), "migrate", "--role")
        world = World(postgres, name, sandbox)
        try:
            yield world
        finally:
            world.connection.close()
            administrator.cursor().execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("encoding, text", [("LATIN1", "caf\u00e9 \u00df"), ("EUC_JP", "\u65e5\u672c")],
                         ids=["latin-1", "euc-jp"])
def test_text_of_a_database_in_another_encoding_is_utf_8_here(template, postgres, build, sandbox, run_folder, encoding,
                                                              text):
    with encoded_world(postgres, build, sandbox, encoding) as world:
        world.connection.set_client_encoding("UTF8")
        account = world.add_account(agentmail_inbox_id=text)
        with serving("fastcgi", build, run_folder, world) as gateway:  # noqa: F811
            assert moved(gateway, world, account)["agentmail_inbox_id"] == text


# In a database of no encoding, a text may hold any bytes.
GOOD_BYTES = {rb"\xe2\x82\xac": "\u20ac", b"inb": "inb"}
ODD_BYTES = {rb"inb_\xff\xfe": "inb_\ufffd\ufffd", rb"caf\xe9": "caf\ufffd"}


@pytest.fixture(scope="module")
def bytes_world(template, postgres, build, sandbox):
    with encoded_world(postgres, build, sandbox, "SQL_ASCII") as world:
        yield world


@pytest.fixture(params=["cgi", "fastcgi"])
def bytes_gateway(request, build, run_folder, bytes_world):
    with serving(request.param, build, run_folder, bytes_world) as gateway:  # noqa: F811
        yield gateway


@pytest.mark.parametrize("literal", [*GOOD_BYTES, *ODD_BYTES], ids=["utf-8", "ascii", "ff-fe", "latin-1"])
@pytest.mark.parametrize("column", ["accounts SET agentmail_inbox_id", "email_domains SET domain"],
                         ids=["account", "domain"])
def test_bytes_of_a_database_without_an_encoding_come_out_as_utf_8(bytes_gateway, bytes_world, column, literal):
    """Replaced where they are none. A 500 would be right, too; a 503 promises that trying again will help."""
    world = bytes_world
    account = world.add_account(domain_id=world.add_domain())
    world.execute(f"UPDATE {column} = E'{literal.decode()}'")
    answer = bytes_gateway.retry(account, world.key)
    text = answer.body.decode()  # whatever it is, it is UTF-8
    assert answer.status == 200 or (literal in ODD_BYTES and answer.status == 500), text
    if answer.status == 200:
        shown = answer.json["account"]
        assert {**GOOD_BYTES, **ODD_BYTES}[literal] == (
            shown["agentmail_inbox_id"] if "inbox" in column else shown["email_domains"]["domain"])


@pytest.mark.parametrize("column, message", [("status", NOT_STUCK), ("email_address", NO_ADDRESS)],
                         ids=["state", "address"])
def test_odd_bytes_in_the_state_or_the_address_close_the_gate(bytes_gateway, bytes_world, column, message):
    world = bytes_world
    account, calls = world.add_account(), len(world.sandbox.calls)
    world.execute(f"UPDATE accounts SET {column} = E'pend\\xffing' WHERE id = %s", account)
    answer = bytes_gateway.retry(account, world.key)
    assert answer.status in (409, 500), answer.body.decode()
    if answer.status == 409:
        status = "pend\ufffding" if column == "status" else "pending"
        assert (answer.error["message"], answer.error["details"]) == (
            message, {"status": status, "warmup_status": "not_started"})
    assert len(world.sandbox.calls) == calls


# --- other types and views -----------------------------------------------------------------------

ENUMS = """
    DROP INDEX warmup_accounts_stuck;
    CREATE TYPE account_status AS ENUM ('active', 'pending', 'error', 'warming');
    CREATE TYPE warmup_state AS ENUM ('banned', 'not_started', 'warming');
    CREATE TYPE account_type AS ENUM ('linkedin', 'email');
    ALTER TABLE accounts ALTER status DROP DEFAULT, ALTER warmup_status DROP DEFAULT, ALTER type DROP DEFAULT;
    ALTER TABLE accounts ALTER status TYPE account_status USING status::account_status,
        ALTER warmup_status TYPE warmup_state USING warmup_status::warmup_state,
        ALTER type TYPE account_type USING type::account_type;
    ALTER TABLE email_domains ALTER status DROP DEFAULT;
    ALTER TABLE email_domains ALTER status TYPE account_status USING 'active'"""
VARCHARS = """
    ALTER TABLE accounts ALTER status TYPE varchar(20), ALTER warmup_status TYPE varchar, ALTER type TYPE varchar(8),
        ALTER email_address TYPE varchar(320), ALTER agentmail_inbox_id TYPE varchar(64);
    ALTER TABLE email_domains ALTER domain TYPE varchar(255), ALTER status TYPE varchar(20);
    ALTER TABLE api_keys ALTER prefix TYPE varchar(24)"""
DOMAINS = """
    CREATE DOMAIN word AS text CHECK (value <> ''); CREATE DOMAIN owner AS uuid; CREATE DOMAIN at AS timestamptz;
    CREATE DOMAIN amount AS integer CHECK (value >= 0);
    ALTER TABLE accounts ALTER status TYPE word, ALTER warmup_status TYPE word, ALTER type TYPE word,
        ALTER email_address TYPE word, ALTER user_id TYPE owner, ALTER created_at TYPE at, ALTER updated_at TYPE at,
        ALTER daily_limit TYPE amount;
    ALTER TABLE email_domains ALTER user_id TYPE owner; ALTER TABLE api_keys ALTER user_id TYPE owner"""
CITEXTS = """
    CREATE EXTENSION citext;
    ALTER TABLE accounts ALTER email_address TYPE citext, ALTER agentmail_inbox_id TYPE citext;
    ALTER TABLE email_domains ALTER domain TYPE citext, ALTER status TYPE citext"""
MORE_COLUMNS = """
    ALTER TABLE accounts ADD COLUMN name text DEFAULT 'x', ADD COLUMN k uuid, ADD COLUMN prefix text,
        ADD COLUMN key_hash bytea, ADD COLUMN revoked_at timestamptz DEFAULT now(), ADD COLUMN moved int,
        ADD COLUMN domain text DEFAULT 'x', DROP COLUMN agentmail_inbox_id;
    ALTER TABLE accounts ADD COLUMN agentmail_inbox_id text;
    ALTER TABLE email_domains ADD COLUMN warmup_status text, ADD COLUMN type text, ADD COLUMN created_at int;
    ALTER TABLE api_keys ADD COLUMN status text, ADD COLUMN email_address text, ADD COLUMN type text"""
DOMAINS_VIEW = """
    ALTER TABLE email_domains RENAME TO real_domains;
    CREATE VIEW email_domains AS SELECT domain, status, id, user_id FROM real_domains;
    GRANT SELECT ON email_domains TO warmup_responder; REVOKE ALL ON real_domains FROM warmup_responder"""
KEYS_VIEW = """
    CREATE TABLE tokens (owner uuid, hash text, label varchar(40), dead boolean);
    CREATE RULE add AS ON INSERT TO api_keys DO INSTEAD
        INSERT INTO tokens VALUES (new.user_id, encode(new.key_hash, 'hex'), new.prefix, new.revoked_at IS NOT NULL);
    INSERT INTO tokens SELECT user_id, encode(key_hash, 'hex'), prefix, revoked_at IS NOT NULL FROM api_keys;
    DROP TABLE api_keys;
    CREATE VIEW api_keys AS SELECT gen_random_uuid() AS id, owner AS user_id, decode(hash, 'hex') AS key_hash,
        label AS prefix, now() AS created_at, CASE WHEN dead THEN now() END AS revoked_at FROM tokens;
    GRANT SELECT ON api_keys TO warmup_responder"""
SCHEMAS = {"enum": ENUMS, "varchar": VARCHARS, "domain": DOMAINS, "citext": CITEXTS, "more-columns": MORE_COLUMNS,
           "domains-view": DOMAINS_VIEW, "keys-view": KEYS_VIEW, "both-views": DOMAINS_VIEW + ";" + KEYS_VIEW}


@pytest.mark.parametrize("name", SCHEMAS)
def test_other_types_and_views_serve_as_well(build, run_folder, fresh_world, name):
    world = fresh_world
    if name == "citext" and not world.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'citext'"):
        pytest.skip("citext is not installed")
    domain = world.add_domain(domain="Acme.com", status="active")
    revoked = world.add_key(world.user, revoked=True)
    accounts = {prepared: world.add_account(domain_id=domain, daily_limit=7, created_at="2026-04-20T15:00:00Z")
                for prepared in ("on", "off")}
    world.execute(SCHEMAS[name])
    for prepared, account in accounts.items():
        with serving("fastcgi", build, run_folder, world, WARMUP_DB_PREPARED=prepared) as gateway:  # noqa: F811
            address, answer = world.address(account), moved(gateway, world, account)
            assert (answer["email_address"], answer["daily_limit"], answer["type"]) == (address, 7, "email")
            assert (answer["status"], answer["warmup_status"], answer["created_at"]) == (
                *WARMING, "2026-04-20T15:00:00Z")
            assert answer["email_domains"] == {"id": domain, "domain": "Acme.com", "status": "active"}
            assert (world.state(account), world.enables(account)) == (WARMING, 1)
            again = gateway.retry(account, world.key)
            assert (again.status, again.error["details"]) == (409, {"status": "warming", "warmup_status": "warming"})
            assert gateway.retry(account, revoked).status == 401
            assert gateway.retry(uuid.uuid4(), world.key).status == 404


def test_absent_values_of_a_view_are_null(serve_fresh, fresh_world):
    world = fresh_world
    world.execute("ALTER TABLE email_domains RENAME TO real_domains; CREATE VIEW email_domains AS SELECT id, user_id,"
                  " NULL::text AS domain, NULL::text AS status FROM real_domains;"
                  " GRANT SELECT ON email_domains TO warmup_responder;"
                  " ALTER TABLE accounts ALTER created_at DROP NOT NULL")
    domain = world.execute("INSERT INTO real_domains (user_id, domain) VALUES (%s, 'x') RETURNING id", world.user)[0][0]
    answer = moved(serve_fresh(), world, world.add_account(domain_id=domain, created_at=None))
    assert answer["email_domains"] == {"id": domain, "domain": None, "status": None}
    assert (answer["created_at"], answer["agentmail_inbox_id"], answer["daily_limit"]) == (None, None, None)


@pytest.mark.parametrize("view", [
    "CREATE VIEW email_domains AS SELECT * FROM real UNION ALL SELECT * FROM real",
    "CREATE VIEW api_keys AS SELECT * FROM real UNION ALL SELECT * FROM real"], ids=["domains", "keys"])
def test_view_with_two_rows_for_one_answers_500_and_calls_nobody(serve_fresh, fresh_world, view):
    world, name = fresh_world, view.split()[2]
    account = world.add_account(domain_id=world.add_domain())
    world.execute(f"ALTER TABLE {name} RENAME TO real; {view}; GRANT SELECT ON {name} TO warmup_responder")
    answer = serve_fresh().retry(account, world.key)
    assert (answer.status, answer.error["code"], "details" in answer.error) == (500, "internal_error", False)
    assert (world.state(account), world.enables(account)) == (STUCK, 0)


def test_key_of_nobody_answers_500_and_calls_nobody(serve_fresh, fresh_world):
    world = fresh_world
    account = world.add_account()
    world.execute("ALTER TABLE api_keys ALTER user_id DROP NOT NULL; UPDATE api_keys SET user_id = NULL")
    answer = serve_fresh().retry(account, world.key)
    assert (answer.status, answer.error["code"], "details" in answer.error) == (500, "internal_error", False)
    assert (world.state(account), world.enables(account)) == (STUCK, 0)


@pytest.mark.parametrize("prefix", ["KEY", "x" * 25, "x" * 5000, "", "\u001b[31m\r\n\"", "\u20ac" * 20])
def test_prefix_column_puts_no_more_than_a_prefix_into_the_log(gateway, world, prefix):  # noqa: F811
    key = world.add_key(world.user)
    world.execute("UPDATE api_keys SET prefix = %s WHERE key_hash = %s", prefix.replace("KEY", key),
                  hashlib.sha256(key.encode()).digest())
    since = len(gateway.log())
    assert gateway.retry(uuid.uuid4(), key).status == 404
    line, = gateway.log()[since:].splitlines()
    assert len(json.loads(line).get("key_prefix", "").encode()) <= 24


# --- the linked domain ---------------------------------------------------------------------------

def test_domain_of_another_owner_is_shown_as_null(gateway, world):  # noqa: F811
    account = world.add_account(domain_id=world.add_domain(user=str(uuid.uuid4()), domain="secret.example"))
    assert moved(gateway, world, account)["email_domains"] is None


def test_domain_that_is_gone_is_shown_as_null(gateway, world):  # noqa: F811
    assert moved(gateway, world, world.add_account(domain_id=str(uuid.uuid4())))["email_domains"] is None


def test_domain_is_read_anew_with_the_moved_row(host, world):
    """Changed while Instantly was asked: the answer shows it as it is now."""
    domain = world.add_domain(status="pending")
    account = world.add_account(domain_id=domain)

    def verify(_call):
        world_connection.cursor().execute("UPDATE email_domains SET status = 'verified' WHERE id = %s", (domain,))

    with contextlib.closing(world.postgres.connect(world.name)) as world_connection:
        world.sandbox.script(world.address(account), verify)
        answer = world.retry(host, account)
    assert answer.json["account"]["email_domains"] == {"id": domain, "domain": "acme.com", "status": "verified"}


def test_only_three_columns_change(gateway, world):  # noqa: F811
    account = world.add_account(domain_id=world.add_domain(), daily_limit=3, agentmail_inbox_id="inb")
    before = world.account(account)
    moved(gateway, world, account)
    after = world.account(account)
    assert {name for name in before if before[name] != after[name]} == {"status", "warmup_status", "updated_at"}

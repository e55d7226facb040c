"""The operator's tool: migrations, API keys, and the rights that it leaves the responder."""

import json
import os
import re
import secrets
import shutil
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest
import stack
from conftest import SANITIZER_VARIABLES, STUCK, TOP, WARMING, warmupctl
from test_database import QUICK
from test_transport import Raw

MIGRATIONS = sorted(file.name for file in (TOP / "deploy/schema").glob("[0-9]*.sql"))
COMMANDS = ["migrate", "key add", "key list", "key revoke", "doctor"]
USER = "11111111-1111-4111-8111-111111111111"
KEY = re.compile(r"pk_live_[0-9a-f]{64}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@pytest.fixture
def ctl(build):
    """Run the tool; the result whatever it is. A binary of another place may be named."""
    def run(url, *arguments, binary=build / "warmupctl", **environment):
        environment = {**SANITIZER_VARIABLES, "PATH": stack.PATH, **environment}
        if url:
            environment["DATABASE_URL"] = url
        return subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False,
                              env=environment, stdin=subprocess.DEVNULL)
    return run


@pytest.fixture
def empty(postgres):
    """The URL of an empty database, and a function that runs SQL there."""
    name = "empty_" + secrets.token_hex(4)
    url = postgres.create_database(name)
    connection = postgres.connect(name)

    def execute(text, *values):
        with connection.cursor() as cursor:
            cursor.execute(text, values)
            return cursor.fetchall() if cursor.description else None

    yield url, execute
    connection.close()
    administrator = postgres.connect()
    administrator.cursor().execute(f"DROP DATABASE {name} WITH (FORCE)")
    administrator.close()


@pytest.fixture
def url(world):
    """Of a database with the tables."""
    return world.postgres.url(world.name)


@pytest.fixture
def user():
    """Somebody without keys so far."""
    return str(uuid.uuid4())


@pytest.fixture
def folder(run_folder):
    folder = run_folder / f"ctl-{secrets.token_hex(4)}"
    folder.mkdir()
    return folder


def tables(execute):
    return {name for name, in execute("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
                                      " AND relkind IN ('r', 'v')")}


def indexes(execute):
    return {name for name, in execute("SELECT indexname FROM pg_indexes WHERE schemaname = 'public'")}


def check_failed(done, said):
    assert (done.returncode, said in done.stderr) == (1, True), done


def check_misused(done):
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr != ""


# --- migrate -------------------------------------------------------------------------------------

def test_migrate_fills_an_empty_database_and_may_be_repeated(ctl, empty):
    url, execute = empty
    done = ctl(url, "migrate")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(None, 1) for line in done.stdout.splitlines()] == [[name, "applied"] for name in MIGRATIONS]
    assert tables(execute) == {"accounts", "email_domains", "api_keys", "warmup_migrations"}
    assert "warmup_accounts_stuck" in indexes(execute)
    noted = execute("SELECT name, applied_at FROM warmup_migrations ORDER BY name")
    assert [name for name, _ in noted] == MIGRATIONS
    before = indexes(execute)
    done = ctl(url, "migrate")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(None, 1) for line in done.stdout.splitlines()] == [
        [name, "already applied"] for name in MIGRATIONS]
    assert execute("SELECT name, applied_at FROM warmup_migrations ORDER BY name") == noted
    assert indexes(execute) == before


def test_migrate_speaks_json(ctl, empty):
    url, _ = empty
    for result in ("applied", "already applied"):
        done = ctl(url, "migrate", "--json", "--role")
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout) == {"migrations": [{"file": name, "result": result} for name in MIGRATIONS]
                                           + [{"file": "responder_role.sql", "result": "applied"}]}


def test_migrate_makes_the_columns_that_are_promised(ctl, empty):
    url, execute = empty
    assert ctl(url, "migrate").returncode == 0
    columns = {}
    for table, name, kind in execute("SELECT table_name, column_name, data_type FROM information_schema.columns"
                                     " WHERE table_schema = 'public'"):
        columns.setdefault(table, {})[name] = kind
    assert columns["accounts"] == {
        "id": "uuid", "user_id": "uuid", "type": "text", "email_address": "text", "domain_id": "uuid", "status": "text",
        "warmup_status": "text", "agentmail_inbox_id": "text", "daily_limit": "integer",
        "created_at": "timestamp with time zone", "updated_at": "timestamp with time zone"}
    assert columns["email_domains"] == {"id": "uuid", "user_id": "uuid", "domain": "text", "status": "text"}
    for name, kind in {"id": "uuid", "user_id": "uuid", "key_hash": "bytea", "prefix": "text",
                       "created_at": "timestamp with time zone", "revoked_at": "timestamp with time zone"}.items():
        assert columns["api_keys"][name] == kind


def test_files_do_the_same_by_psql_twice_and_then_by_migrate(ctl, empty, postgres):
    url, execute = empty
    psql = postgres._bin / "psql"
    for _ in range(2):
        for name in MIGRATIONS:
            subprocess.run([psql, "-q", "-v", "ON_ERROR_STOP=1", "-f", TOP / "deploy/schema" / name, url], check=True,
                           timeout=60, capture_output=True, env={"PATH": stack.PATH, "PGSSLMODE": "disable"})
    before = indexes(execute), tables(execute)
    assert ctl(url, "migrate").returncode == 0
    assert (indexes(execute) - {"warmup_migrations_pkey"}, tables(execute) - {"warmup_migrations"}) == before


def test_migrate_leaves_tables_that_are_there_as_they_are(ctl, empty):
    url, execute = empty
    execute("CREATE TABLE accounts (id uuid, user_id uuid, type varchar(20), email_address text, domain_id uuid,"
            " status text, warmup_status text, agentmail_inbox_id text, daily_limit int, created_at timestamptz,"
            " updated_at timestamptz, extra text)")
    execute("CREATE TABLE email_domains (id uuid PRIMARY KEY, user_id uuid, domain text, status text, extra text)")
    execute("INSERT INTO accounts (id, extra) VALUES (%s, 'kept')", USER)
    assert ctl(url, "migrate").returncode == 0
    assert execute("SELECT extra FROM accounts") == [("kept",)]
    # An index only where none does the same.
    assert {"warmup_accounts_id", "warmup_accounts_stuck", "email_domains_pkey"} <= indexes(execute)
    assert "warmup_email_domains_id" not in indexes(execute)


def test_migrate_leaves_views_that_are_only_read_as_they_are(ctl, empty):
    url, execute = empty
    execute("CREATE SCHEMA theirs; CREATE TABLE theirs.d (id uuid, user_id uuid, domain text, status text);"
            " CREATE VIEW email_domains AS SELECT * FROM theirs.d;"
            " CREATE TABLE theirs.k (id uuid, user_id uuid, key_hash bytea, prefix text, created_at timestamptz,"
            " revoked_at timestamptz); CREATE VIEW api_keys AS SELECT * FROM theirs.k")
    for _ in range(2):
        done = ctl(url, "migrate", "--role")
        assert (done.returncode, done.stderr) == (0, "")
    assert execute("SELECT relkind FROM pg_class WHERE relname IN ('email_domains', 'api_keys')") == [("v",), ("v",)]


def test_migrations_at_the_same_time_wait_for_each_other(ctl, empty):
    url, execute = empty
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda _: ctl(url, "migrate", "--role"), range(6)))
    assert [(done.returncode, done.stderr) for done in results] == [(0, "")] * 6
    assert execute("SELECT count(*) FROM warmup_migrations") == [(len(MIGRATIONS),)]


def test_migrate_applies_a_file_as_a_whole_or_not_at_all(ctl, empty, folder):
    url, execute = empty
    (folder / "0001_good.sql").write_text("CREATE TABLE good ();")
    (folder / "0002_broken.sql").write_text("CREATE TABLE half ();\nCREATE TABEL other ();")
    (folder / "0003_later.sql").write_text("CREATE TABLE later ();")
    done = ctl(url, "migrate", "--schema", folder)
    check_failed(done, '0002_broken.sql was not applied: ERROR:  syntax error at or near "TABEL"')
    assert [line.split(None, 1) for line in done.stdout.splitlines()] == [["0001_good.sql", "applied"],
                                                                          ["0002_broken.sql", "failed"]]
    assert tables(execute) == {"good", "warmup_migrations"}
    assert execute("SELECT name FROM warmup_migrations") == [("0001_good.sql",)]
    done = ctl(url, "migrate", "--schema", folder, "--json")
    assert (done.returncode, json.loads(done.stdout)["migrations"]) == (
        1, [{"file": "0001_good.sql", "result": "already applied"}, {"file": "0002_broken.sql", "result": "failed"}])
    (folder / "0002_broken.sql").write_text("CREATE TABLE half () -- without semicolon")
    assert ctl(url, "migrate", "--schema", folder).returncode == 0
    assert tables(execute) == {"good", "half", "later", "warmup_migrations"}


def test_failing_file_leaves_nothing(ctl, empty, folder):
    url, execute = empty
    for text in ("SELECT 1/0", "DO $$ BEGIN RAISE EXCEPTION 'stop'; END $$", "CREATE TABLE half (); SELECT nothing()",
                 "CREATE TABLE half (); \\bad", "CREATE TABLE half (); ROLLBACK; SELECT 1/0"):
        (folder / "0001_bad.sql").write_text(text)
        check_failed(ctl(url, "migrate", "--schema", folder), "0001_bad.sql was not applied: ERROR")
        assert tables(execute) == {"warmup_migrations"}
        assert execute("SELECT count(*) FROM warmup_migrations") == [(0,)]


def test_migrate_of_a_database_that_takes_no_changes_fails(ctl, empty):
    url, execute = empty
    execute(f"ALTER DATABASE {url.rpartition('/')[2]} SET default_transaction_read_only = on")
    done = ctl(url, "migrate", "--json")
    check_failed(done, "warmupctl: migrate: ERROR:  cannot execute CREATE TABLE in a read-only transaction")
    assert (json.loads(done.stdout), tables(execute)) == ({"migrations": []}, set())


def test_migrate_refuses_a_file_that_is_too_long(ctl, empty, folder):
    url, execute = empty
    prologue = len("".join(re.findall(r'"(.*)"', (TOP / "deploy/migrate.c").read_text().partition("#define PROLOGUE")[2]
                                      .partition("\n\n")[0]))) - 1
    # The first leaves no room for the note that it was applied, the second none for its own last byte.
    for size, said in ((2**20 - prologue, "0001_long.sql was not applied: it is too long"),
                       (2**20 - prologue + 1, "0001_long.sql cannot be read")):
        (folder / "0001_long.sql").write_text("CREATE TABLE long ();".ljust(size))
        check_failed(ctl(url, "migrate", "--schema", folder), said)
        assert tables(execute) == {"warmup_migrations"}


def test_migrate_takes_only_files_that_are_migrations(ctl, empty, folder):
    url, execute = empty
    (folder / "0001_good.sql").write_text("CREATE TABLE good ()")
    for name in ("readme.sql", "1_short.sql", "0002_no.txt", "0003_it's.sql", "0004_UPPER.sql", "0005_.sql~",
                 ".0006_x.sql", "00071_x.sql"):
        (folder / name).write_text("CREATE TABLE bad ()")
    done = ctl(url, "migrate", "--schema", folder)
    assert (done.returncode, [line.split()[0] for line in done.stdout.splitlines()]) == (0, ["0001_good.sql"])
    assert tables(execute) == {"good", "warmup_migrations"}


def test_migrate_without_files_fails(ctl, empty, folder):
    url, execute = empty
    for where in (folder, folder / "absent", "/dev/null"):
        check_failed(ctl(url, "migrate", "--schema", where), "no schema files found")
    assert tables(execute) == set()


def test_installed_copy_finds_its_files(ctl, empty, build, folder):
    url, execute = empty
    (folder / "bin").mkdir()
    shutil.copy(build / "warmupctl", folder / "bin")
    check_failed(ctl(url, "migrate", binary=folder / "bin/warmupctl"), "no schema files found")
    shutil.copytree(TOP / "deploy/schema", folder / "share/warmup/schema")
    done = ctl(url, "migrate", "--role", binary=folder / "bin/warmupctl")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(tables(execute)) == 4


def test_make_install_gives_a_working_copy(ctl, empty, build, folder):
    url, _ = empty
    # What is built is built: no compiling here.
    subprocess.run(["make", "-s", "-o", "all", "install", f"BUILD={os.path.relpath(build, TOP)}",
                    f"DESTDIR={folder}", "PREFIX=/usr"], cwd=TOP,
                   timeout=60, env={"PATH": stack.PATH}, capture_output=True, check=True)
    assert ctl(url, "migrate", binary=folder / "usr/bin/warmupctl").returncode == 0


# --- keys ----------------------------------------------------------------------------------------

def add_key(ctl, url, user, *more):
    done = ctl(url, "key", "add", "--user", user, "--json", *more)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def keys(ctl, url, *more):
    done = ctl(url, "key", "list", "--json", *more)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)["keys"]


def test_key_is_shown_once_and_only_its_hash_is_kept(ctl, url, world, user):
    done = ctl(url, "key", "add", "--user", user, "--name", "for a script")
    assert done.returncode == 0
    lines = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert list(lines) == ["id", "user", "name", "key"]
    assert (lines["user"], lines["name"]) == (user, "for a script")
    assert KEY.fullmatch(lines["key"])
    assert "cannot be shown again" in done.stderr and lines["key"] not in done.stderr
    row, = world.execute("SELECT to_jsonb(k), key_hash = sha256(%s::bytea) FROM api_keys k WHERE id = %s",
                               lines["key"].encode(), lines["id"])
    assert row[1] is True
    assert (row[0]["user_id"], row[0]["prefix"], row[0]["name"]) == (user, lines["key"][:24], "for a script")
    assert row[0]["revoked_at"] is None
    assert lines["key"] not in json.dumps(row[0])
    assert lines["key"] not in ctl(url, "key", "list").stdout


def test_keys_differ_and_speak_json(ctl, url, user):
    made = [add_key(ctl, url, user, "--name", name) for name in ('a "quoted" é', "x" * 200)]
    made.append(add_key(ctl, url, user))
    assert [list(key) for key in made] == [["id", "user", "name", "key"]] * 3
    assert [key["name"] for key in made] == ['a "quoted" é', "x" * 200, None]
    assert all(KEY.fullmatch(key["key"]) and key["user"] == user for key in made)
    assert len({key["key"] for key in made}) == 3
    listed = keys(ctl, url, "--user", user)
    assert [list(key) for key in listed] == [["id", "user", "prefix", "name", "created", "revoked"]] * 3
    assert [(key["id"], key["name"], key["prefix"]) for key in listed] == [
        (key["id"], key["name"], key["key"][:24]) for key in made]
    assert all(TIME.fullmatch(key["created"]) and key["revoked"] is None for key in listed)


def test_key_that_is_not_kept_is_not_shown(ctl, fresh_world, user):
    fresh_world.execute("CREATE FUNCTION veto() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    fresh_world.execute("CREATE TRIGGER t BEFORE INSERT ON api_keys FOR EACH ROW EXECUTE FUNCTION veto()")
    done = ctl(fresh_world.postgres.url(fresh_world.name), "key", "add", "--user", user)
    check_failed(done, "key add: a trigger or a rule keeps keys out of api_keys")
    assert done.stdout == ""


def test_list_shows_all_or_one_users(ctl, url, world, user):
    other = add_key(ctl, url, str(uuid.uuid4()))
    mine = add_key(ctl, url, user)
    assert {key["id"] for key in keys(ctl, url)} >= {other["id"], mine["id"]}
    assert [key["id"] for key in keys(ctl, url, "--user", user)] == [mine["id"]]
    assert [key["id"] for key in keys(ctl, url, "--user", user.upper())] == [mine["id"]]
    assert keys(ctl, url, "--user", str(uuid.uuid4())) == []
    assert ctl(url, "key", "list", "--user", str(uuid.uuid4())).stdout == "no keys\n"
    table = ctl(url, "key", "list", "--user", user).stdout.splitlines()
    assert table[0].split() == ["id", "user", "prefix", "name", "created", "revoked"]
    assert table[1].split()[:4] == [mine["id"], user, mine["key"][:24], "-"]


def test_terminal_is_not_obeyed_by_names(ctl, url, user):
    assert ctl(url, "key", "add", "--user", user, "--name", "a\x1b[2Jb\nc\rd").returncode == 0
    shown = ctl(url, "key", "list", "--user", user).stdout
    assert "\x1b" not in shown and "a?[2Jb?c?d" in shown


@pytest.mark.parametrize("how", ["id", "upper-id", "shown prefix", "short prefix", "whole key"])
def test_revoke_by_what_is_known_of_a_key(ctl, url, world, how, user):
    key, other = add_key(ctl, url, user), add_key(ctl, url, user)
    word = {"id": key["id"], "upper-id": key["id"].upper(), "shown prefix": key["key"][:24],
            "short prefix": key["key"][:18], "whole key": key["key"]}[how]
    done = ctl(url, "key", "revoke", word, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    revoked, = json.loads(done.stdout)["keys"]
    assert revoked["id"] == key["id"] and TIME.fullmatch(revoked["revoked"])
    assert key["key"] not in done.stdout
    assert {entry["id"]: entry["revoked"] is not None for entry in keys(ctl, url, "--user", user)} == {
        key["id"]: True, other["id"]: False}


def test_revoke_twice_keeps_the_first_time(ctl, url, world, user):
    key = add_key(ctl, url, user)
    first = ctl(url, "key", "revoke", key["id"])
    at = world.execute("SELECT revoked_at FROM api_keys WHERE id = %s", key["id"])
    second = ctl(url, "key", "revoke", key["id"])
    assert (first.returncode, second.returncode, first.stdout == second.stdout) == (0, 0, True)
    assert world.execute("SELECT revoked_at FROM api_keys WHERE id = %s", key["id"]) == at


def test_revoke_of_what_is_unknown_fails(ctl, url, user):
    key = add_key(ctl, url, user)
    for word in (str(uuid.uuid4()), "pk_live_zzzz", "pk_live_" + "0" * 64, "%%%%%%%%%%%%", "____________",
                 "' OR 1=1 -- x"):
        check_failed(ctl(url, "key", "revoke", word), "no such key")
    assert [entry["revoked"] for entry in keys(ctl, url, "--user", user)] == [None]
    assert ctl(url, "key", "revoke", key["id"]).returncode == 0


def test_revoke_of_an_ambiguous_prefix_revokes_nothing(ctl, url, world, user):
    one, two = ("pk_live_abcd" + digit + secrets.token_hex(32)[:59] for digit in "12")
    for key in (one, two):
        world.add_key(user, key)
    done = ctl(url, "key", "revoke", "pk_live_abcd")
    check_failed(done, "several keys begin like that; nothing was revoked")
    assert done.stdout == ""
    assert [entry["revoked"] for entry in keys(ctl, url, "--user", user)] == [None, None]
    # One of them is revoked already: still ambiguous, or the other would be meant by accident.
    assert ctl(url, "key", "revoke", one[:24]).returncode == 0
    check_failed(ctl(url, "key", "revoke", "pk_live_abcd"), "several keys")
    assert sum(entry["revoked"] is None for entry in keys(ctl, url, "--user", user)) == 1


def test_key_works_from_its_making_to_its_revocation(ctl, url, world, responder):
    server = responder(world, WARMUP_DB_CONNECTIONS=1, **QUICK)
    key = add_key(ctl, url, world.user)
    world.secrets.append(key["key"])
    account, later = world.add_account(), world.add_account()
    assert world.retry(Raw(server), account, key=key["key"]).status == 200
    assert ctl(url, "key", "revoke", key["id"]).returncode == 0
    answer = world.retry(Raw(server), later, key=key["key"])
    assert (answer.status, answer.error["code"]) == (401, "unauthorized")
    assert (world.state(account), world.state(later), world.enables(later)) == (WARMING, STUCK, 0)


# --- wrong usage, and a database that does not answer --------------------------------------------

MISUSES = [
    [], ["nonsense"], ["key"], ["key", "nonsense"], ["migrate", "extra"], ["migrate", "--nonsense"],
    ["migrate", "--user", USER], ["migrate", "--schema"], ["key", "add"], ["key", "add", "--user"],
    ["key", "add", "--user", "x"],
    ["key", "add", "--user", USER + "0"], ["key", "add", "--user", USER.replace("-", "")],
    ["key", "add", "--user", "{" + USER[:-2] + "}"], ["key", "add", "--user", USER[:-1] + "g"], ["key", "add", USER],
    ["key", "add", "--user", USER, "extra"], ["key", "add", "--user", USER, "--name", "x" * 201],
    ["key", "add", "--user", USER, "--name", b"\xff"], ["key", "add", "--user", USER, "--role"],
    ["key", "list", "extra"], ["key", "list", "--user", "x"], ["key", "list", "--name", "x"],
    ["key", "revoke"], ["key", "revoke", ""], ["key", "revoke", "pk_live_abc"],
    ["key", "revoke", "pk_live_" + "0" * 65],
    ["key", "revoke", USER, USER], ["key", "revoke", "--user", USER], ["--json"], ["--migrate"],
]


def test_wrong_usage_is_told_and_changes_nothing(build, url, world):
    before = world.execute("SELECT count(*) FROM api_keys")
    for arguments in MISUSES:
        done = subprocess.run([build / "warmupctl", *arguments], capture_output=True, text=True, timeout=60,
                              env={**SANITIZER_VARIABLES, "PATH": stack.PATH, "DATABASE_URL": url}, check=False)
        assert (arguments, done.returncode, done.stdout, bool(done.stderr)) == (arguments, 2, "", True)
    assert world.execute("SELECT count(*) FROM api_keys") == before


@pytest.mark.parametrize("arguments", [
    ["--help"], ["-h"], ["key", "--help"],
    *(command.split() + [option] for command in COMMANDS for option in ("--help", "-h"))])
def test_help_needs_no_database(ctl, arguments):
    done = ctl(None, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    command = " ".join(arguments[:-1])
    assert f"warmupctl {command}" in done.stdout
    if command in COMMANDS:
        assert done.stdout.startswith(f"usage: warmupctl {command}") and "--json" in done.stdout
    else:
        assert all(f"warmupctl {name}" in done.stdout for name in COMMANDS)


def test_version_needs_no_database(ctl):
    done = ctl(None, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"warmupctl \d+\.\d+\.\d+\S*\n", done.stdout)


@pytest.mark.parametrize("arguments", [
    ["migrate"], ["key", "add", "--user", USER], ["key", "list"], ["key", "revoke", USER]])
def test_unreachable_database_fails_without_its_password(ctl, postgres, arguments):
    password = "pw-" + secrets.token_hex(12)
    for url, said in ((f"postgresql://nobody:{password}@127.0.0.1:{stack.free_port()}/x", "refused"),
                      (postgres.url("postgres", "nobody", password), "password authentication failed"),
                      (postgres.url("absent"), "does not exist")):
        done = ctl(url, *arguments, "--json")
        check_failed(done, said)
        assert done.stdout == ""
        assert password not in done.stderr and postgres.password not in done.stderr


def test_missing_or_malformed_settings_fail_by_name(ctl, folder):
    secret = "pw-" + secrets.token_hex(12)
    check_failed(ctl(None, "key", "list"), "DATABASE_URL")
    for environment, said in (({"DATABASE_URL": f"postgresql://[{secret}"}, "DATABASE_URL"),
                              ({"WARMUP_NONSENSE": secret}, "WARMUP_NONSENSE"),
                              ({"WARMUP_CONFIG": str(folder / "absent")}, "WARMUP_CONFIG")):
        done = ctl("postgresql://127.0.0.1:1/x", "key", "list", **environment)
        check_failed(done, said)
        assert secret not in done.stderr


def test_settings_file_of_the_responder_serves_the_tool(ctl, url, folder):
    file = folder / "warmup.conf"
    file.write_text(stack.settings_text({"DATABASE_URL": url, "INSTANTLY_API_KEY": "x", "WARMUP_WORKERS": 4}))
    file.chmod(0o600)
    assert keys(lambda _, *arguments: ctl(None, *arguments, WARMUP_CONFIG=str(file)), None) != []


def test_table_that_is_missing_fails_with_the_way_out(ctl, empty):
    url, _ = empty
    for arguments in (["key", "list"], ["key", "add", "--user", USER], ["key", "revoke", USER]):
        done = ctl(url, *arguments)
        check_failed(done, "run warmupctl migrate")
        assert not KEY.search(done.stdout + done.stderr)


def test_full_standard_output_is_a_failure(ctl, url, build):
    """A key that could not be shown must not look like success."""
    with open("/dev/full", "w", encoding="ascii") as full:
        done = subprocess.run([build / "warmupctl", "key", "add", "--user", USER], stdout=full, timeout=60, check=False,
                              stderr=subprocess.DEVNULL,
                              env={**SANITIZER_VARIABLES, "PATH": stack.PATH, "DATABASE_URL": url})
    assert done.returncode == 1


# --- least privilege -----------------------------------------------------------------------------

ALLOWED = [
    "SELECT * FROM accounts", "SELECT * FROM email_domains", "SELECT * FROM api_keys",
    "UPDATE accounts SET status = 'x', warmup_status = 'y', updated_at = now()",
]
DENIED = [
    *(f"UPDATE accounts SET {column} = {column}" for column in (
        "id", "user_id", "type", "email_address", "domain_id", "agentmail_inbox_id", "daily_limit", "created_at")),
    "UPDATE accounts SET status = 'x', email_address = 'x'",
    "INSERT INTO accounts (user_id) VALUES (gen_random_uuid())",
    "DELETE FROM accounts", "TRUNCATE accounts", "UPDATE email_domains SET status = 'x'", "DELETE FROM email_domains",
    "UPDATE api_keys SET revoked_at = NULL", "UPDATE api_keys SET user_id = user_id", "DELETE FROM api_keys",
    "INSERT INTO api_keys (user_id, key_hash, prefix) VALUES (gen_random_uuid(), '', '')", "SELECT * FROM other",
    "SELECT * FROM warmup_migrations", "DROP TABLE accounts", "ALTER TABLE accounts ADD COLUMN x int",
    "CREATE TRIGGER t BEFORE UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE TABLE mine ()", "SELECT * FROM accounts FOR UPDATE OF accounts; DELETE FROM accounts",
    "SELECT rolpassword FROM pg_authid",
]


def test_role_of_the_responder_may_do_its_work_and_nothing_else(fresh_world):
    world = fresh_world
    world.add_account(domain_id=world.add_domain())
    world.execute("CREATE TABLE other ()")
    connection = psycopg2.connect(world.settings()["DATABASE_URL"])
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            for text in ALLOWED:
                cursor.execute(text)
            for text in DENIED:
                with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                    cursor.execute(text)
                    pytest.fail(f"allowed: {text}")
    finally:
        connection.close()


def test_role_works_in_another_schema_too(build, empty, ctl):
    """The tables may lie where the role was never let in before."""
    url, execute = empty
    execute("CREATE SCHEMA app")
    name = url.rpartition("/")[2]
    execute(f"ALTER DATABASE {name} SET search_path = app")
    assert warmupctl(build, url, "migrate", "--role")
    assert execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'app'") == [(4,)]
    assert execute("SELECT has_schema_privilege('warmup_responder', 'app', 'USAGE'),"
                   " has_column_privilege('warmup_responder', 'app.accounts', 'status', 'UPDATE')") == [(True, True)]
    assert os.path.basename(name).startswith("empty_")

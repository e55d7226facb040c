"""warmupctl doctor: a deployment that is right passes, and each way to be wrong is found, told with what to do, and
survived. Whatever it looks at stays as it was, and no output holds a secret.
"""

import contextlib
import http.client
import http.server
import json
import pathlib
import re
import secrets
import socket
import subprocess
import threading
import time

import psycopg2
import pytest
import stack
from conftest import (
    DATABASE_PASSWORD, ROUTE, SANITIZER_MARKS, SANITIZER_VARIABLES, STUCK, UPSTREAM_KEY, Fcgi, World, check_log,
    warmupctl)
from sandbox.instantly import Reply, Sandbox
from test_database import SLACK, private_world
from test_upstream import certificates, secure, tls, use  # noqa: F401  the first two are fixtures

NIL = "00000000-0000-0000-0000-000000000000"
DATABASE = ["connect", "version", "encoding", "writable", "statements", "indexes", "stuck_index", "migrations",
            "privileges", "row_security", "connections", "timeout", "pooler", "keys"]
HOST = ["host.health", "host.route", "host.bodies", "host.authorization"]
CHECKS = ["settings", *(f"database.{name}" for name in DATABASE), "instantly.accounts", "instantly.jobs", *HOST]
LINE = re.compile(r"(ok|warn|fail|skip) {2,4}([a-z._]+) +(\S.*)")


class Report:
    """What doctor said, from either form."""

    def __init__(self, done):
        self.done, self.status, self.text = done, done.returncode, done.stdout
        self.checks = json.loads(done.stdout)["checks"] if done.stdout.startswith("{") else []

    def of(self, check):
        found = [entry for entry in self.checks if entry["check"] == check]
        assert found, (check, self.text)
        return found

    def results(self, check):
        return [entry["result"] for entry in self.of(check)]

    def problems(self):
        """The names of checks that are not well, each once."""
        return list(dict.fromkeys(entry["check"] for entry in self.checks if entry["result"] in ("warn", "fail")))

    def expect(self, check, result, found="", todo=None):
        """One line of that check is like this."""
        lines = self.of(check)
        assert any(line["result"] == result and re.search(found, line["found"])
                   and (todo is None or re.search(todo, line["todo"] or "")) for line in lines), lines


def rows_of(world):
    """Every row of every table, with the transaction that wrote it."""
    tables = world.execute("SELECT quote_ident(relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
                           " AND relkind = 'r' ORDER BY 1")
    return {table: world.execute(f"SELECT xmin::text, ctid::text, to_jsonb(t)::text FROM {table} t ORDER BY 2")
            for table, in tables}


@pytest.fixture
def doctor(build):
    """Run it with a world's settings; it must change no row, enable nothing, and tell no secret."""
    def run(world, *arguments, form="--json", stdin=None, closed=False, **changes):
        environment = {**SANITIZER_VARIABLES, "PATH": stack.PATH,
                       **{name: str(value) for name, value in world.settings(**changes).items()}}
        before = None if closed else rows_of(world)
        enables = len(world.sandbox.enables())
        done = subprocess.run([build / "warmupctl", "doctor", *map(str, arguments), *([form] if form else [])],
                              capture_output=True, text=True, timeout=60, check=False, env=environment,
                              input=stdin if stdin is not None else "")
        for secret in [*world.secrets, world.postgres.password]:
            assert secret not in done.stdout + done.stderr, "a secret is in the output"
        for mark in SANITIZER_MARKS:
            assert mark not in done.stderr, done.stderr
        assert closed or rows_of(world) == before
        assert len(world.sandbox.enables()) == enables
        report = Report(done)
        if form:
            results = {entry["result"] for entry in report.checks}
            worst = next(word for word in ("fail", "warn", "ok") if word in results | {"ok"})
            assert json.loads(done.stdout)["result"] == worst
            assert done.returncode == (1 if worst == "fail" else 0) and done.stderr == "", done
            assert list(dict.fromkeys(entry["check"] for entry in report.checks)) == CHECKS
            assert all((entry["todo"] is not None) == (entry["result"] in ("warn", "fail")) for entry in report.checks)
            assert all(entry["found"] and entry["todo"] != "" for entry in report.checks)
        return report
    return run


@pytest.fixture
def login(fresh_world):
    """Makes a login of its own and gives its URL: login("SUPERUSER")."""
    made = []

    def make(options="IN ROLE warmup_responder", name=None):
        name, password = name or "login_" + secrets.token_hex(4), "pw-" + secrets.token_hex(8)
        fresh_world.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}' {options}")
        fresh_world.secrets.append(password)
        made.append(name)
        return name, fresh_world.postgres.url(fresh_world.name, name, password)

    yield make
    for name in made:
        fresh_world.execute(f"REASSIGN OWNED BY {name} TO CURRENT_USER; DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.fixture
def served(build, run_folder):
    """A World behind lighttpd; gives the server's URL: served(world, extra=…)."""
    started = []

    def start(world, settings=None, **options):
        host = Fcgi(run_folder / f"doctor-{secrets.token_hex(4)}", build / "warmup.fcgi", settings or world.settings(),
                    **options)
        started.append((host, world))
        return host.server.url

    yield start
    for host, world in started:
        host.stop()
        check_log(host, world.secrets)


@pytest.fixture
def key_file(run_folder):
    def write(text):
        file = run_folder / f"key-{secrets.token_hex(4)}"
        file.write_text(text)
        return file
    return write


# --- when all is well, and the form of the report ------------------------------------------------

def test_deployment_that_is_right_has_no_problem(doctor, fresh_world, login, served, key_file):
    world = fresh_world
    name, url = login()
    world.execute(f"ALTER ROLE {name} SET statement_timeout = '5s'")
    world.add_account(domain_id=world.add_domain())
    world.sandbox.clear()
    report = doctor(world, "--url", served(world), "--key-file", key_file(world.key + "\n"), DATABASE_URL=url)
    assert report.problems() == [] and report.status == 0
    assert [check["check"] for check in report.checks if check["result"] == "skip"] == ["database.migrations"]
    report.expect("settings", "ok", "from the environment, no settings file")
    report.expect("database.connect", "ok", f"login {name}, database {world.name}")
    report.expect("database.version", "ok", r"PostgreSQL 1\d\.\d+")
    report.expect("database.timeout", "ok", "statement_timeout is 5s")
    report.expect("instantly.accounts", "ok", re.escape(world.sandbox.url) + ".*accounts:update only shows")
    report.expect("host.authorization", "ok", "the key arrives and is good")
    assert [(call.kind, call.method, call.authorization_ok) for call in world.sandbox.calls] == [
        ("accounts", "GET", True), ("job", "GET", True)]


def test_report_for_people_is_a_line_a_check(doctor, fresh_world):
    fresh_world.execute("DELETE FROM api_keys")
    report = doctor(fresh_world, form=None)
    *lines, counts = report.text.splitlines()
    checks = [LINE.fullmatch(line) for line in lines if not line.startswith("      -> ")]
    assert all(checks) and [check[2] for check in checks] == CHECKS
    assert len({check.start(3) for check in checks}) == 1
    assert [lines[number - 1].split()[1] for number, line in enumerate(lines) if line.startswith("      -> ")] == [
        "database.keys"]
    words = [check[1] for check in checks]
    assert counts == ", ".join(f"{words.count(word)} {word}" for word in ("ok", "warn", "fail", "skip"))
    assert (report.status, report.done.stderr, words.count("warn")) == (0, "", 1)


def test_terminal_is_not_obeyed_by_what_was_found(doctor, fresh_world, build):
    fresh_world.execute('ALTER TABLE accounts ADD "x\x1b[2J\x9b\ny" text;'
                        ' GRANT UPDATE ("x\x1b[2J\x9b\ny") ON accounts TO warmup_responder')
    text = doctor(fresh_world, form=None).text
    assert "x?[2J? y of accounts" in text and "\x1b" not in text and "\x9b" not in text
    report = doctor(fresh_world)
    assert report.problems() == ["database.privileges"] and "\x1b" not in report.text
    report.expect("database.privileges", "warn", "x\x1b\\[2J\x9b y of accounts")


@pytest.mark.parametrize("arguments, said", [
    (["--url"], ""), (["extra"], ""), (["--user", "x"], ""), (["--key-file", "/dev/null"], "is for --url"),
    (["--url", "http://example.com"], "https://"), (["--url", "ftp://localhost"], "https://"),
    (["--url", "https://u:p@localhost"], "https://"), (["--url", "https://localhost/?x"], "https://"),
    (["--url", "localhost"], "https://"), (["--url", ""], "https://"),
    (["--url", "http://localhost/" + "x" * 2000], "too long"),
    (["--url", "http://localhost:1", "--key-file", "/nonexistent/key"], "--key-file"),
    (["--url", "http://localhost:1", "--key-file", "/dev/null"], "--key-file"),
    (["--url", "http://localhost:1", "--key-file", "/"], "--key-file"),
])
def test_wrong_usage_ends_with_2(doctor, world, arguments, said):
    report = doctor(world, *arguments, form=None)
    assert (report.status, report.text) == (2, "") and said in report.done.stderr and report.done.stderr


@pytest.mark.parametrize("text", ["", "\n", "two keys", "key\nkey", "k\x01", "ké", "x" * 513],
                         ids=["nothing", "blank", "two", "two-lines", "control", "not-ascii", "too-long"])
def test_key_file_without_one_key_is_wrong_usage(doctor, world, key_file, text):
    for file, stdin in ((key_file(text), None), ("-", text)):
        report = doctor(world, "--url", "http://localhost:1", "--key-file", file, form=None, stdin=stdin)
        assert (report.status, report.text) == (2, "") and "--key-file takes a file" in report.done.stderr


def test_full_standard_output_is_a_failure(build, world):
    for form in [], ["--json"]:
        with open("/dev/full", "w", encoding="ascii") as full:
            done = subprocess.run([build / "warmupctl", "doctor", *form], stdout=full, timeout=60, check=False,
                                  stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                  env={**SANITIZER_VARIABLES, "PATH": stack.PATH, **world.settings()})
        assert done.returncode == 1


# --- settings ------------------------------------------------------------------------------------

@pytest.mark.parametrize("changes, found", [
    ({"DATABASE_URL": None}, "DATABASE_URL: missing"), ({"INSTANTLY_API_KEY": None}, "INSTANTLY_API_KEY: missing"),
    ({"WARMUP_WORKERS": 0}, "WARMUP_WORKERS: must be"), ({"WARMUP_NONSENSE": 1}, "WARMUP_NONSENSE: no such setting"),
    ({"DATABASE_URL": "postgresql://["}, "DATABASE_URL: must be"),
    ({"WARMUP_CONFIG": "/nonexistent"}, "WARMUP_CONFIG: settings file /nonexistent cannot be read")])
def test_settings_that_the_responder_would_refuse_come_first(doctor, world, changes, found):
    report = doctor(world, "--url", "http://localhost:1", **changes)
    assert report.problems() == ["settings"] and report.status == 1
    report.expect("settings", "fail", found, "settings file or the environment")
    assert {line["result"] for line in report.checks[1:]} == {"skip"}


def test_each_setting_that_is_wrong_has_its_line(doctor, world):
    report = doctor(world, WARMUP_WORKERS=0, WARMUP_DB_PREPARED="x")
    assert report.results("settings") == ["fail", "fail"]


def test_settings_file_is_named_and_judged(doctor, world, run_folder):
    file = run_folder / f"doctor-{secrets.token_hex(4)}.conf"
    file.write_text(stack.settings_text(world.settings()))
    nothing = dict.fromkeys(world.settings())
    file.chmod(0o600)
    doctor(world, WARMUP_CONFIG=file, **nothing).expect("settings", "ok", f"^from {re.escape(str(file))} and the env")
    file.chmod(0o604)
    report = doctor(world, WARMUP_CONFIG=file, **nothing)
    assert report.problems() == ["settings"] and report.status == 0
    report.expect("settings", "warn", "readable by everyone; run chmod o-r", "permissions")


# --- the database --------------------------------------------------------------------------------

def assert_not_connected(report, found):
    assert report.problems() == ["database.connect"] and report.status == 1
    report.expect("database.connect", "fail", found, "DATABASE_URL")
    assert {report.results(f"database.{name}")[0] for name in DATABASE[1:]} == {"skip"}
    assert report.results("instantly.accounts") == ["ok"]


def test_database_that_refuses_the_login_is_told_in_its_words(doctor, world):
    postgres, password = world.postgres, "pw-" + secrets.token_hex(12)
    for url, found in (
            (postgres.url(world.name, "warmup", password), 'password authentication failed for user "warmup"'),
            (postgres.url("absent", "warmup", DATABASE_PASSWORD), 'database "absent" does not exist'),
            (f"postgresql://warmup:{password}@127.0.0.1:{stack.free_port()}/x", "Connection refused")):
        report = doctor(world, DATABASE_URL=url)
        assert_not_connected(report, found)
        assert password not in report.text
        text = doctor(world, DATABASE_URL=url, form=None).text
        assert password not in text and re.search(r"^fail  database\.connect .*" + found, text, re.M)


def test_database_that_does_not_answer_is_given_up(doctor, world):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        report = doctor(world, DATABASE_URL=f"postgresql://127.0.0.1:{silent.getsockname()[1]}/x",
                        WARMUP_DB_TIMEOUT_MS=300)
        assert time.monotonic() - began < 0.3 + 2 * SLACK
    assert_not_connected(report, "no answer within WARMUP_DB_TIMEOUT_MS")


def test_database_that_is_stopped_is_told(doctor, run_folder, build, sandbox):
    with private_world(run_folder / f"postgres-{secrets.token_hex(4)}", build, sandbox) as world:
        world.postgres.stop()
        assert_not_connected(doctor(world, closed=True), "Connection refused")


def test_standby_is_told(doctor, run_folder, build, sandbox):
    with private_world(run_folder / f"postgres-{secrets.token_hex(4)}", build, sandbox, {"wal_level": "replica"}) as world:
        world.postgres.stop()
        (world.postgres.folder / "data" / "standby.signal").touch()
        world.postgres.start()
        report = doctor(world, closed=True)
    assert report.problems() == ["database.writable"]
    report.expect("database.writable", "fail", "a standby", "target_session_attrs=read-write")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_encoding_other_than_utf8_is_a_warning(doctor, postgres, build, sandbox, template, encoding):
    name = "encoding_" + secrets.token_hex(4)
    with contextlib.closing(postgres.connect()) as administrator, administrator.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'")
        warmupctl(build, postgres.url(name), "migrate", "--role")
        world = World(postgres, name, sandbox)
        report = doctor(world)
        assert report.problems() == ["database.encoding"] and report.status == 0
        report.expect("database.encoding", "warn", encoding, "UTF8")
        world.connection.close()
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


STATEMENTS, ROWS = "database.statements", "database.row_security"
# What is done to a fresh database: the one check that finds it, how, and the way out.
BROKEN = {
    "table-missing": ("ALTER TABLE email_domains RENAME TO x", STATEMENTS, "fail",
                      '^relation "email_domains" does not exist$', "warmupctl migrate"),
    "column-missing": ("ALTER TABLE accounts DROP daily_limit", STATEMENTS, "fail", 'daily_limit.* does not exist$',
                       "add the column"),
    "key-column-missing": ("ALTER TABLE api_keys DROP prefix", STATEMENTS, "fail", "prefix.* does not exist$",
                           "add the column"),
    "type-wrong": ("ALTER TABLE accounts ALTER user_id TYPE text", STATEMENTS, "fail", "operator does not exist",
                   "columns and types"),
    "select-on-keys-missing": ("REVOKE SELECT ON api_keys FROM warmup_responder", STATEMENTS, "fail",
                               "permission denied for table api_keys", "GRANT warmup_responder"),
    "select-on-accounts-missing": ("REVOKE SELECT ON accounts FROM warmup_responder", STATEMENTS, "fail",
                                   "permission denied for table accounts", "GRANT warmup_responder"),
    "select-on-domains-missing": ("REVOKE SELECT ON email_domains FROM warmup_responder", STATEMENTS, "fail",
                                  "permission denied for table email_domains", "GRANT warmup_responder"),
    "update-of-one-column-missing": ("REVOKE UPDATE (updated_at) ON accounts FROM warmup_responder", STATEMENTS, "fail",
                                     "permission denied for table accounts", "GRANT warmup_responder"),
    "schema-closed": ("REVOKE USAGE ON SCHEMA public FROM PUBLIC, warmup_responder", STATEMENTS, "fail",
                      "does not exist", "right to its schema"),
    "read-only": ("ALTER DATABASE {name} SET default_transaction_read_only = on", "database.writable", "fail",
                  "transactions are read-only", "target_session_attrs=read-write"),
    "index-on-accounts-missing": ("ALTER TABLE accounts DROP CONSTRAINT accounts_pkey", "database.indexes", "fail",
                                  "accounts has no unique index on id", "warmupctl migrate"),
    "index-on-domains-missing": ("ALTER TABLE email_domains DROP CONSTRAINT email_domains_pkey", "database.indexes",
                                 "fail", "email_domains has no unique index on id", "warmupctl migrate"),
    "index-on-keys-is-not-unique": (
        "ALTER TABLE api_keys DROP CONSTRAINT api_keys_key_hash_key; CREATE INDEX ON api_keys (key_hash);"
        " CREATE UNIQUE INDEX ON api_keys (key_hash, id);"
        " CREATE UNIQUE INDEX ON api_keys (key_hash) WHERE revoked_at IS NULL",
        "database.indexes", "fail", "api_keys has no unique index on key_hash", "warmupctl migrate"),
    "stuck-index-missing": ("DROP INDEX warmup_accounts_stuck", "database.stuck_index", "warn", "no index of the stuck",
                            "warmupctl migrate"),
    "may-insert-accounts": ("GRANT INSERT (status) ON accounts TO warmup_responder", "database.privileges", "warn",
                            "may INSERT accounts$", "responder_role.sql"),
    "may-delete-and-truncate": ("GRANT DELETE, TRUNCATE ON accounts TO PUBLIC", "database.privileges", "warn",
                                "may DELETE, TRUNCATE accounts$", "responder_role.sql"),
    "may-update-other-columns": ("GRANT UPDATE (email_address, user_id) ON accounts TO warmup_responder",
                                 "database.privileges", "warn", "may UPDATE user_id, email_address of accounts$",
                                 "responder_role.sql"),
    "may-update-every-column": ("GRANT UPDATE ON accounts TO warmup_responder", "database.privileges", "warn",
                                "may UPDATE every column of accounts$", "responder_role.sql"),
    "may-write-keys": ("GRANT INSERT, UPDATE (revoked_at), DELETE ON api_keys TO warmup_responder",
                       "database.privileges", "warn", "may INSERT, UPDATE, DELETE api_keys$", "responder_role.sql"),
    "may-update-domains": ("GRANT UPDATE ON email_domains TO warmup_responder", "database.privileges", "warn",
                           "may UPDATE email_domains$", "responder_role.sql"),
    "keys-hidden": ("ALTER TABLE api_keys ENABLE ROW LEVEL SECURITY", ROWS, "fail", "every key gets a 401",
                    "CREATE POLICY warmup_keys ON api_keys FOR SELECT TO warmup USING"),
    "domains-hidden": ("ALTER TABLE email_domains ENABLE ROW LEVEL SECURITY", ROWS, "fail", "SELECT no row of email_dom",
                       "CREATE POLICY warmup_domains"),
    "accounts-not-to-be-moved": (
        "ALTER TABLE accounts ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON accounts FOR SELECT USING (true)",
        ROWS, "fail", "UPDATE no row of accounts", "CREATE POLICY warmup_move ON accounts FOR UPDATE"),
    "policy-of-another-role": (
        "ALTER TABLE email_domains ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON email_domains TO postgres USING (true)",
        ROWS, "fail", "email_domains", "CREATE POLICY"),
    "policy-of-another-command": (
        "ALTER TABLE email_domains ENABLE ROW LEVEL SECURITY;"
        " CREATE POLICY p ON email_domains FOR UPDATE USING (true)", ROWS, "fail", "email_domains", "CREATE POLICY"),
    "policy-only-restricts": (
        "ALTER TABLE email_domains ENABLE ROW LEVEL SECURITY;"
        " CREATE POLICY p ON email_domains AS RESTRICTIVE USING (true)", ROWS, "fail", "email_domains", "CREATE POLICY"),
    "database-takes-few": ("ALTER DATABASE {name} CONNECTION LIMIT 7", "database.connections", "warn",
                           "WARMUP_DB_CONNECTIONS is 8, the server takes 7", "lower WARMUP_DB_CONNECTIONS"),
    "keys-none": ("DELETE FROM api_keys", "database.keys", "warn", "no key", "warmupctl key add"),
    "keys-revoked": ("UPDATE api_keys SET revoked_at = now()", "database.keys", "warn", "no key", "warmupctl key add"),
}
# What one of them brings along.
ALONG = {"select-on-keys-missing": ["database.keys"], "schema-closed": ["database.keys"], "keys-hidden":
         ["database.keys"]}


@pytest.mark.parametrize("case", BROKEN)
def test_database_that_is_broken_is_told(doctor, fresh_world, case):
    text, check, result, found, todo = BROKEN[case]
    fresh_world.execute(text.format(name=fresh_world.name))
    report = doctor(fresh_world)
    report.expect(check, result, found, todo)
    assert report.problems() == [check, *ALONG.get(case, [])]
    assert report.status == (1 if result == "fail" else 0)


@pytest.mark.parametrize("text", [
    "CREATE POLICY a ON {0} USING (true)",
    "CREATE POLICY a ON {0} TO warmup USING (true)",
    "CREATE POLICY a ON {0} FOR SELECT TO warmup_responder USING (true);"
    " CREATE POLICY b ON {0} FOR UPDATE TO postgres, warmup_responder USING (true)"])
def test_row_level_security_with_policies_for_the_login_is_fine(doctor, fresh_world, text):
    for table in ("accounts", "email_domains", "api_keys"):
        fresh_world.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; {text.format(table)}")
    assert doctor(fresh_world).problems() == []


def test_row_level_security_is_nothing_to_who_passes_it_by(doctor, fresh_world):
    for table in ("accounts", "email_domains", "api_keys"):
        fresh_world.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    url = fresh_world.postgres.url(fresh_world.name)
    assert doctor(fresh_world, DATABASE_URL=url).problems() == ["database.privileges"]
    report = doctor(fresh_world)
    assert report.results("database.row_security") == ["fail"] * 4


def test_policies_of_the_readme_are_enough(doctor, fresh_world):
    readme = (pathlib.Path(__file__).resolve().parents[2] / "README.md").read_text()
    policies = re.findall(r"^CREATE POLICY .*;$", readme, re.M)
    assert len(policies) == 4
    for table in ("accounts", "email_domains", "api_keys"):
        fresh_world.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    fresh_world.execute("".join(policies))
    assert doctor(fresh_world).problems() == []


@pytest.mark.parametrize("options, found", [
    ("SUPERUSER", "the login is a superuser"), ("CREATEROLE", "may make roles"), ("CREATEDB", "may make databases"),
    ("BYPASSRLS", "passes row level security by")])
def test_login_with_a_right_too_many_is_a_warning(doctor, fresh_world, login, options, found):
    _, url = login(options + " IN ROLE warmup_responder")
    report = doctor(fresh_world, DATABASE_URL=url)
    assert report.problems() == ["database.privileges"] and report.results("database.privileges") == ["warn"]
    report.expect("database.privileges", "warn", found, "responder_role.sql")


def test_owner_as_the_login_is_a_warning_a_table(doctor, fresh_world, login):
    name, url = login()
    fresh_world.execute(f"ALTER TABLE accounts OWNER TO {name}; ALTER TABLE api_keys OWNER TO {name}")
    report = doctor(fresh_world, DATABASE_URL=url)
    assert [line["found"] for line in report.of("database.privileges")] == [
        "the login owns accounts", "the login owns api_keys"]


def test_views_in_place_of_tables_need_no_index(doctor, fresh_world):
    fresh_world.execute(
        "ALTER TABLE api_keys RENAME TO k; CREATE VIEW api_keys AS SELECT * FROM k; ALTER TABLE email_domains RENAME TO"
        " d; CREATE VIEW email_domains AS SELECT * FROM d; GRANT SELECT ON api_keys, email_domains TO warmup_responder")
    assert doctor(fresh_world).problems() == []


def test_newest_migration_is_told_to_who_may_read_it(doctor, fresh_world):
    fresh_world.execute("GRANT SELECT ON warmup_migrations TO warmup_responder")
    doctor(fresh_world).expect("database.migrations", "ok", r"0002_indexes\.sql$")
    fresh_world.execute("DROP TABLE warmup_migrations")
    doctor(fresh_world).expect("database.migrations", "skip", "cannot read warmup_migrations")


def test_role_that_takes_few_connections_is_a_warning(doctor, fresh_world, login):
    _, url = login("CONNECTION LIMIT 3 IN ROLE warmup_responder")
    report = doctor(fresh_world, DATABASE_URL=url)
    assert report.problems() == ["database.connections"]
    report.expect("database.connections", "warn", "the server takes 3 of this login")
    assert doctor(fresh_world, DATABASE_URL=url, WARMUP_DB_CONNECTIONS=3).problems() == []
    assert doctor(fresh_world, WARMUP_DB_CONNECTIONS=97).problems() == []
    assert doctor(fresh_world, WARMUP_DB_CONNECTIONS=98).problems() == ["database.connections"]


def test_statements_without_end_behind_a_pooler_are_a_warning(doctor, fresh_world, login):
    name, url = login()
    report = doctor(fresh_world, DATABASE_URL=url, WARMUP_DB_PREPARED="off")
    assert report.problems() == ["database.timeout"]
    report.expect("database.timeout", "warn", "statement_timeout is 0",
                  f"ALTER ROLE {name} SET statement_timeout = '5s'$")
    assert doctor(fresh_world, DATABASE_URL=url).problems() == []
    fresh_world.execute(f"ALTER ROLE {name} SET statement_timeout = '5s'")
    assert doctor(fresh_world, DATABASE_URL=url, WARMUP_DB_PREPARED="off").problems() == []


@contextlib.contextmanager
def pooler(world):
    """What a pooler shows of itself: another process number than the server's. Gives the URL."""
    def relay(source, target, rename):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(re.sub(rb"K\0\0\0\x0c....", b"K\0\0\0\x0c\0\0\0\x07", data, flags=re.S)
                               if rename else data)
            target.shutdown(socket.SHUT_WR)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                client = listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", world.postgres.port))
                for pair in ((client, server, False), (server, client, True)):
                    threading.Thread(target=relay, args=pair, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield world.settings()["DATABASE_URL"].replace(
            f":{world.postgres.port}/", f":{listener.getsockname()[1]}/") + "?sslmode=disable&gssencmode=disable"
        listener.shutdown(socket.SHUT_RDWR)


def test_pooler_with_prepared_statements_is_a_warning(doctor, fresh_world):
    fresh_world.execute(f"ALTER DATABASE {fresh_world.name} SET statement_timeout = '5s'")
    with pooler(fresh_world) as url:
        report = doctor(fresh_world, DATABASE_URL=url)
        assert report.problems() == ["database.pooler"]
        report.expect("database.pooler", "warn", "a pooler is between", "WARMUP_DB_PREPARED=off")
        report = doctor(fresh_world, DATABASE_URL=url, WARMUP_DB_PREPARED="off")
        assert report.problems() == []
        report.expect("database.pooler", "ok", "a pooler is between")


def test_lock_on_a_table_stops_no_other_check(doctor, fresh_world):
    with contextlib.closing(psycopg2.connect(fresh_world.postgres.url(fresh_world.name))) as other:
        other.cursor().execute("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")
        report = doctor(fresh_world, closed=True, WARMUP_DB_TIMEOUT_MS=500)
    assert report.problems() == ["database.statements", "database.keys"]
    report.expect("database.statements", "fail", "no answer in time", "run this again")
    report.expect("database.keys", "fail", "no answer in time")


def test_login_that_may_nothing_stops_no_check(doctor, fresh_world, login):
    _, url = login("")
    report = doctor(fresh_world, DATABASE_URL=url)
    assert report.problems() == ["database.statements", "database.keys"]
    found = [line["found"] for line in report.of("database.statements")]
    assert len(set(found)) == len(found) and all(line.startswith("permission denied for table ") for line in found)
    assert {"permission denied for table api_keys", "permission denied for table accounts"} <= set(found)


def test_database_that_is_empty_stops_no_check(doctor, fresh_world):
    fresh_world.execute("DROP TABLE accounts, api_keys, email_domains, warmup_migrations")
    report = doctor(fresh_world)
    assert [line["found"] for line in report.of("database.statements")] == [
        'relation "api_keys" does not exist', 'relation "accounts" does not exist']
    assert report.results("database.indexes") == report.results("database.privileges") == ["skip"]
    assert report.problems() == ["database.statements", "database.keys"]


# --- Instantly -----------------------------------------------------------------------------------

@pytest.fixture
def other_box():
    with Sandbox(UPSTREAM_KEY) as box:
        yield box


# What the list of accounts answers: how it is found, and the way out.
LISTS = {
    "unauthorized": ("fail", r"refused \(401\)", "INSTANTLY_API_KEY"),
    "no-plan": ("fail", r"no paid plan \(402\)", "plan"),
    "forbidden": ("fail", r"lacks the scope accounts:read \(403\)", "scopes accounts:read"),
    "edge": ("fail", r"what stands before Instantly \(403\)", "edge"),
    "not-found": ("fail", r"no such API \(404\)", "INSTANTLY_API_URL"),
    "rate-limited": ("warn", r"too many requests .*\(429\)", "limit"),
    "error-503": ("fail", r"should not come \(503\)", "try again"),
    "html": ("fail", r"not JSON .*\(200\)", "INSTANTLY_API_URL"),
    "array": ("fail", r"not JSON .*\(200\)", "INSTANTLY_API_URL"),
    "no-items": ("fail", r"not JSON .*\(200\)", "INSTANTLY_API_URL"),
    "redirect-302": ("fail", r"not JSON .*\(302\)", "INSTANTLY_API_URL"),
    "cut-length": ("fail", "not JSON", "INSTANTLY_API_URL"),
    "not-http": ("fail", "not JSON", "INSTANTLY_API_URL"),
    "hang": ("fail", "no answer in time", "WARMUP_UPSTREAM_TIMEOUT_MS"),
}
STEPS = {"edge": Reply(403, "error code: 1010", {"Content-Type": "text/plain"}), "no-items": Reply(200, {"x": 1})}


@pytest.mark.parametrize("step", LISTS)
def test_answer_of_instantly_is_judged(doctor, world, other_box, step):
    result, found, todo = LISTS[step]
    other_box.script_list(STEPS.get(step, step))
    report = doctor(world, INSTANTLY_API_URL=other_box.url, WARMUP_UPSTREAM_TIMEOUT_MS=1000)
    report.expect("instantly.accounts", result, found, todo)
    assert report.problems() == ["instantly.accounts"]
    assert report.results("instantly.jobs") == ["ok" if step == "forbidden" else "skip"]
    assert {(call.kind, call.method) for call in other_box.calls} <= {("accounts", "GET"), ("job", "GET")}


def test_key_that_instantly_does_not_know_is_told(doctor, world):
    report = doctor(world, INSTANTLY_API_KEY="instantly-" + secrets.token_hex(8))
    report.expect("instantly.accounts", "fail", "401", "INSTANTLY_API_KEY")
    assert (report.problems(), report.status) == (["instantly.accounts"], 1)


@pytest.mark.parametrize("scope, check, result, found", [
    ("accounts:read", "instantly.accounts", "fail", "lacks the scope accounts:read"),
    ("background-jobs:read", "instantly.jobs", "warn", "lacks the scope background-jobs:read")])
def test_scope_that_the_key_lacks_is_named(doctor, world, other_box, scope, check, result, found):
    other_box.scopes.remove(scope)
    report = doctor(world, INSTANTLY_API_URL=other_box.url)
    assert report.problems() == [check]
    report.expect(check, result, found, "scope")


def test_jobs_that_are_not_followed_need_no_scope(doctor, world, other_box):
    other_box.scopes.remove("background-jobs:read")
    report = doctor(world, INSTANTLY_API_URL=other_box.url, WARMUP_JOB_WAIT_MS=0)
    assert report.problems() == []
    report.expect("instantly.jobs", "skip", "WARMUP_JOB_WAIT_MS is 0")
    assert [call.kind for call in other_box.calls] == ["accounts"]


def test_base_address_that_is_wrong_is_told(doctor, world):
    url = world.sandbox.url.replace("/api/v2", "/api/v1")
    report = doctor(world, INSTANTLY_API_URL=url)
    report.expect("instantly.accounts", "fail", re.escape(url) + r": there is no such API \(404\)", "INSTANTLY_API_URL")
    url = f"http://127.0.0.1:{stack.free_port()}"
    report = doctor(world, INSTANTLY_API_URL=url)
    report.expect("instantly.accounts", "fail", re.escape(url) + ": no connection", "firewall")
    assert report.problems() == ["instantly.accounts"]


def test_tls_that_is_not_to_be_trusted_is_told(doctor, world, secure, certificates):  # noqa: F811
    good = {"INSTANTLY_API_URL": secure.url, "INSTANTLY_CA_FILE": certificates / "ca.pem"}
    assert doctor(world, **good).problems() == []
    for changes in ({"INSTANTLY_CA_FILE": None}, {"INSTANTLY_CA_FILE": certificates / "other.pem"},
                    {"INSTANTLY_CA_FILE": "/nonexistent"}):
        report = doctor(world, **{**good, **changes})
        report.expect("instantly.accounts", "fail", "TLS", "INSTANTLY_CA_FILE")
        assert report.problems() == ["instantly.accounts"]
    use(secure, tls(certificates, "expired"))
    doctor(world, **good).expect("instantly.accounts", "fail", "TLS")
    use(secure, tls(certificates))


# --- through the host ----------------------------------------------------------------------------

class Site:
    """A host between doctor and lighttpd: hands everything on, unless `before` answers, or `after` bends, it.

    before(method, path, headers) gives None or (status, headers, body), and may change the headers; after(answer) changes
    the list [status, headers, body].
    """

    def __init__(self, url, before=None, after=None):
        self.seen = []
        port = int(url.rpartition(":")[2]) if url else None

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def serve(handler):
                headers = dict(handler.headers)
                self.seen.append((handler.command, handler.path, headers.copy()))
                answer = before(handler.command, handler.path, headers) if before else None
                answer = list(answer or handler.ask(headers))
                if after:
                    after(answer)
                status, headers, body = answer
                handler.send_response_only(status)
                for name, value in headers.items():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        handler.send_header(name, value)
                if status != 204:
                    handler.send_header("Content-Length", str(len(body)))
                handler.end_headers()
                handler.wfile.write(body)

            def ask(handler, headers):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
                with contextlib.closing(connection):
                    connection.request(handler.command, handler.path, headers=headers)
                    answer = connection.getresponse()
                    return answer.status, dict(answer.getheaders()), answer.read()

            do_GET = do_PATCH = do_OPTIONS = do_POST = serve

            def log_message(handler, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


HTML = b"<!doctype html><title>Not what you asked for</title>"


@pytest.fixture(scope="module")
def front(build, run_folder, shared_world):
    """The URL of the shared world behind lighttpd."""
    host = Fcgi(run_folder / f"doctor-front-{secrets.token_hex(4)}", build / "warmup.fcgi", shared_world.settings())
    yield host.server.url
    host.stop()
    check_log(host, shared_world.secrets)


def test_requests_are_those_that_change_nothing(doctor, world, front, key_file):
    with Site(front) as site:
        report = doctor(world, "--url", site.url + "/", "--key-file", key_file(f"  {world.key}\n\n"))
        assert report.problems() == []
    assert [(method, path) for method, path, _ in site.seen] == [
        ("GET", "/healthz"), ("OPTIONS", ROUTE.format(NIL)), ("PATCH", ROUTE.format(NIL)),
        ("PATCH", ROUTE.format(NIL[:-1] + "1"))]
    assert [headers.get("Authorization") for _, _, headers in site.seen] == [
        None, None, "Bearer pk_live_" + "0" * 64, f"Bearer {world.key}"]
    assert len({headers["X-Request-Id"] for _, _, headers in site.seen}) == 1
    assert not any("Content-Length" in headers for _, _, headers in site.seen)


@pytest.mark.parametrize("nil_account", [False, True])
def test_key_from_standard_input_moves_not_even_the_nil_account(doctor, fresh_world, served, nil_account):
    if nil_account:
        fresh_world.add_account(id=NIL)
    report = doctor(fresh_world, "--url", served(fresh_world), "--key-file", "-", stdin=fresh_world.key)
    assert report.problems() == []
    if nil_account:
        assert fresh_world.state(NIL) == STUCK


@pytest.mark.parametrize("mount", ["/api", "/cgi-bin/warmup.cgi"])
def test_other_mounts_are_found(doctor, world, served, key_file, mount):
    url = served(world, mount=mount)
    report = doctor(world, "--url", url + ("" if mount == "/api" else mount), "--key-file", key_file(world.key))
    assert report.problems() == []
    report.expect("host.health", "ok", "/api/healthz$" if mount == "/api" else mount + "/healthz$")


def test_host_without_a_key_is_looked_at_as_far_as_that_goes(doctor, world, front):
    report = doctor(world, "--url", front)
    assert report.problems() == []
    report.expect("host.authorization", "skip", "--key-file")


def test_host_that_is_not_there_is_told(doctor, world, key_file):
    report = doctor(world, "--url", f"http://127.0.0.1:{stack.free_port()}", "--key-file", key_file(world.key))
    assert report.problems() == ["host.health"]
    report.expect("host.health", "fail", "no connection", "start the web server")
    assert [report.results(check)[0] for check in HOST[1:]] == ["skip"] * 3
    with socket.create_server(("127.0.0.1", 0)) as silent:
        report = doctor(world, "--url", f"http://127.0.0.1:{silent.getsockname()[1]}", WARMUP_UPSTREAM_TIMEOUT_MS=500)
    report.expect("host.health", "fail", "no answer in time", "log")


def test_host_whose_certificate_is_not_to_be_trusted_is_told(doctor, world, secure):  # noqa: F811
    report = doctor(world, "--url", secure.url.replace("/api/v2", ""))
    report.expect("host.health", "fail", "TLS", "certificate")
    assert report.problems() == ["host.health"]


def test_mount_that_is_elsewhere_is_told(doctor, world, front, key_file):
    report = doctor(world, "--url", front + "/elsewhere", "--key-file", key_file(world.key))
    assert report.problems() == ["host.health", "host.route"]
    report.expect("host.route", "fail", "no route of it", "before /api/email/accounts/")
    assert report.results("host.bodies") == report.results("host.authorization") == ["skip"]


def test_site_that_knows_nothing_of_us_is_told(doctor, world):
    with Site(None, before=lambda *_: (404, {"Content-Type": "text/html"}, HTML)) as site:
        report = doctor(world, "--url", site.url)
    assert report.problems() == ["host.health", "host.route"]
    report.expect("host.health", "warn", "neither /healthz nor /api/healthz", "deploy/hosts")
    report.expect("host.route", "fail", "answers 404 to OPTIONS and 404 to PATCH", "deploy/hosts")


def test_health_that_is_the_sites_own_is_a_warning(doctor, world, front):
    with Site(front, before=lambda _, path, __: (200, {}, b"fine") if "healthz" in path else None) as site:
        report = doctor(world, "--url", site.url)
    assert (report.problems(), report.status) == (["host.health"], 0)


def test_options_that_the_host_answers_itself_are_a_warning(doctor, world, front):
    with Site(front, before=lambda method, *_: (200, {"Allow": "GET"}, b"") if method == "OPTIONS" else None) as site:
        report = doctor(world, "--url", site.url)
    assert report.problems() == ["host.route"]
    report.expect("host.route", "warn", r"answered by something else \(200\)", "OPTIONS")


def test_method_that_the_host_refuses_is_told(doctor, world, front):
    with Site(front, before=lambda method, *_: (405, {}, HTML) if method == "PATCH" else None) as site:
        report = doctor(world, "--url", site.url)
    assert report.problems() == ["host.bodies"]
    report.expect("host.bodies", "fail", "the host itself answers 405", "PATCH")


def test_error_pages_of_the_host_are_told(doctor, world, front, key_file):
    def after(answer):
        if answer[0] >= 400:
            answer[2] = HTML

    with Site(front, after=after) as site:
        report = doctor(world, "--url", site.url, "--key-file", key_file(world.key))
    assert report.problems() == ["host.bodies"]
    report.expect("host.bodies", "fail", "pages of its own",
                  "ProxyErrorOverride.*fastcgi_intercept_errors.*server.error-intercept")
    assert report.results("host.authorization") == ["skip"]


def test_error_pages_of_a_real_lighttpd_are_told(doctor, world, served, run_folder):
    pages = run_folder / f"pages-{secrets.token_hex(4)}"
    pages.mkdir()
    (pages / "401.html").write_bytes(HTML)
    url = served(world, extra=f'server.error-intercept = "enable"\nserver.errorfile-prefix = "{pages}/"')
    report = doctor(world, "--url", url)
    assert report.problems() == ["host.bodies"]
    report.expect("host.bodies", "fail", "pages of its own", "server.error-intercept")


@pytest.mark.parametrize("name, result", [("WWW-Authenticate", "fail"), ("Cache-Control", "fail"),
                                          ("X-Request-Id", "warn")])
@pytest.mark.parametrize("how", ["gone", "changed"])
def test_header_that_does_not_come_through_is_told(doctor, world, front, name, result, how):
    def after(answer):
        headers = {key: value for key, value in answer[1].items() if key.lower() != name.lower()}
        answer[1] = {**headers, name: "something else"} if how == "changed" else headers

    with Site(front, after=after) as site:
        report = doctor(world, "--url", site.url)
    assert report.problems() == ["host.bodies"] and report.results("host.bodies") == [result]
    report.expect("host.bodies", result, f"the header {name} does not come through")


def drop_authorization(_, __, headers):
    headers.pop("Authorization", None)


def test_host_that_drops_the_authorization_header_is_told(doctor, world, front, key_file):
    with Site(front, before=drop_authorization) as site:
        report = doctor(world, "--url", site.url, "--key-file", key_file(world.key))
    assert report.problems() == ["host.authorization"] and report.status == 1
    report.expect("host.authorization", "fail", "the host drops the Authorization header",
                  r"CGIPassAuth On, or SetEnvIf Authorization")


def test_real_apache_that_drops_the_header_is_told(doctor, world, build, run_folder, key_file):
    if not pathlib.Path("/usr/sbin/apache2").exists():
        pytest.skip("Apache is not installed; run: deploy/packages hosts")
    from hosts import servers
    edit = {True: lambda text: re.sub(r"(?m)^ *CGIPassAuth On\n", "", text), False: None}
    for drops in (True, False):
        server = servers.ApacheProxyFcgi(run_folder / f"apache-{secrets.token_hex(4)}", build / "warmup.fcgi",
                                         world.settings(), edit=edit[drops]).start()
        try:
            report = doctor(world, "--url", f"http://127.0.0.1:{server.port}", "--key-file", key_file(world.key))
        finally:
            server.stop()
        assert report.problems() == (["host.authorization"] if drops else [])


def test_key_that_is_not_good_is_told_apart(doctor, fresh_world, served, key_file):
    url = served(fresh_world)
    for key, found in ((fresh_world.add_key(fresh_world.user, revoked=True), "the key is revoked"),
                       ("pk_live_" + secrets.token_hex(32), "the key is not in the database")):
        fresh_world.secrets.append(key)
        report = doctor(fresh_world, "--url", url, "--key-file", key_file(key))
        assert report.problems() == ["host.authorization"]
        report.expect("host.authorization", "fail", found, "warmupctl key list")


def test_responder_on_another_database_is_told(doctor, world, fresh_world, front, key_file):
    """It serves the shared world; doctor looks at the fresh one."""
    report = doctor(fresh_world, "--url", front, "--key-file", key_file(world.key))
    assert report.problems() == ["host.authorization"]
    report.expect("host.authorization", "fail", "not in this database", "another one")
    revoked = fresh_world.add_key(fresh_world.user, key=world.key, revoked=True)
    report = doctor(fresh_world, "--url", front, "--key-file", key_file(revoked))
    report.expect("host.authorization", "fail", "revoked in this database", "another one")


def test_key_that_cannot_be_looked_up_is_judged_by_the_responder(doctor, world, front, key_file):
    nowhere = f"postgresql://127.0.0.1:{stack.free_port()}/x"
    report = doctor(world, "--url", front, "--key-file", key_file(world.key), DATABASE_URL=nowhere)
    assert report.problems() == ["database.connect"]
    report.expect("host.authorization", "ok", "arrives and is good")
    report = doctor(world, "--url", front, "--key-file", key_file("unknown"), DATABASE_URL=nowhere)
    report.expect("host.authorization", "fail", "cannot be looked up", "CGIPassAuth")


def test_responder_in_trouble_is_told(doctor, world, served, build, front):
    url = served(world, settings=world.settings(DATABASE_URL=f"postgresql://127.0.0.1:{stack.free_port()}/x"))
    report = doctor(world, "--url", url)
    assert report.problems() == ["host.health", "host.bodies"]
    for check in report.problems():
        report.expect(check, "fail", "the responder answers 503", "error log")
    body = b'{"error":{"code":"internal_error","message":"The service is not configured"}}'
    with Site(None, before=lambda *_: (500, {}, body)) as site:
        report = doctor(world, "--url", site.url)
    report.expect("host.health", "fail", "the responder answers 500", "error log")


def test_host_that_answers_too_much_or_no_http_is_told(doctor, world):
    with Site(None, before=lambda *_: (200, {}, b"x" * 100_000)) as site:
        doctor(world, "--url", site.url).expect("host.health", "fail", "too long", "--url")

"""Settings: where they come from, what is said of wrong ones, and what the log is made of."""

import json
import os
import re
import secrets
import subprocess
import time

import pytest
import stack
from conftest import ROUTE, SANITIZER_VARIABLES, UPSTREAM_KEY, as_answer, wait_for
from test_database import QUICK, responders
from test_transport import Listener, Raw, Spawned, threads, variables

EX_CONFIG = 78
PROMPT = 5.0 if SANITIZER_VARIABLES else 2.0
SECRET = "secret-" + secrets.token_hex(8)

REQUIRED = ["DATABASE_URL", "INSTANTLY_API_KEY"]

# A setting, and values that are wrong; no log line may show one.
MALFORMED = [
    ("DATABASE_URL", f"postgresql://[{SECRET}"), ("DATABASE_URL", f"nonsense={SECRET}"), ("DATABASE_URL", SECRET),
    ("DATABASE_URL", f"postgresql://u:{SECRET}@h/d?nonsense=1"), ("DATABASE_URL", f"host=h password='{SECRET}"),
    ("DATABASE_URL", f"postgresql://u:{SECRET}@h/" + "d" * 5000),
    ("INSTANTLY_API_KEY", f"{SECRET} "), ("INSTANTLY_API_KEY", f"two {SECRET}"),
    ("INSTANTLY_API_KEY", f"{SECRET}\r\nX: y"),
    ("INSTANTLY_API_KEY", f"{SECRET}é"), ("INSTANTLY_API_KEY", SECRET + "x" * 512),
    ("INSTANTLY_API_URL", f"http://{SECRET}.example/api"), ("INSTANTLY_API_URL", f"ftp://localhost/{SECRET}"),
    ("INSTANTLY_API_URL", f"https://user:{SECRET}@api.example/v2"),
    ("INSTANTLY_API_URL", f"https://{SECRET}@api.example"),
    ("INSTANTLY_API_URL", f"https://api.example/?key={SECRET}"),
    ("INSTANTLY_API_URL", f"https://api.example/#{SECRET}"),
    ("INSTANTLY_API_URL", SECRET), ("INSTANTLY_API_URL", f"/{SECRET}"), ("INSTANTLY_API_URL", f"file:///{SECRET}"),
    ("INSTANTLY_API_URL", f"http://127.0.0.1.{SECRET}.example"), ("INSTANTLY_API_URL", f"http://localhost.{SECRET}"),
    ("INSTANTLY_API_URL", f"http://10.0.0.1/{SECRET}"), ("INSTANTLY_API_URL", f"https://a.example/{SECRET} x"),
    *((name, value) for name in ("WARMUP_WORKERS", "WARMUP_DB_CONNECTIONS")
      for value in ("0", "-1", "+5", "1.5", "5x", "0x10", "ten", "4 ", "99999", "1" * 30)),
    ("WARMUP_WORKERS", "1025"), ("WARMUP_DB_CONNECTIONS", "257"),
    *((f"WARMUP_{name}_MS", value)
      for name in ("DB_TIMEOUT", "UPSTREAM_TIMEOUT", "UPSTREAM_CONNECT_TIMEOUT", "JOB_WAIT")
      for value in ("-1", "1s", "9999999999")),
    ("WARMUP_DB_TIMEOUT_MS", "0"), ("WARMUP_UPSTREAM_TIMEOUT_MS", "0"),
    ("WARMUP_DB_PREPARED", "yes"), ("WARMUP_DB_PREPARED", "ON"),
    ("WARMUP_LOG_LEVEL", "loud"), ("WARMUP_LOG_LEVEL", "INFO"),
    ("WARMUP_CONFIG", f"/nowhere/{SECRET}.conf"), ("WARMUP_CONFIG", "/"),
]

CONFIG_ERROR = {"code": "internal_error",
                "message": "The service is not configured; the server's error log names the setting"}


@pytest.fixture
def account(world):
    return world.add_account()


@pytest.fixture(scope="module")
def listener(run_folder):
    with Listener(run_folder / "settings") as listener:
        yield listener


def start_badly(build, listener, settings):
    """Exit status and lines of the log of a FastCGI process that does not like its settings."""
    environment = {**SANITIZER_VARIABLES, **{name: str(value) for name, value in settings.items()}}
    begun = time.monotonic()
    child = subprocess.run([build / "warmup.fcgi"], stdin=listener, env=environment, timeout=PROMPT * 2,
                           capture_output=True)
    assert time.monotonic() - begun < PROMPT
    assert child.stdout == b""
    return child.returncode, child.stderr.decode().splitlines()


def ask_as_cgi(build, settings, account=None, **more):
    """A healthz as plain CGI, or a retry with the variables that `more` adds."""
    environment = {**SANITIZER_VARIABLES, "REQUEST_METHOD": "PATCH" if account else "GET", "SCRIPT_NAME": "",
                   "PATH_INFO": ROUTE.format(account) if account else "/healthz", **settings, **more}
    answer = stack.run_cgi(build / "warmup.fcgi", {name: str(value) for name, value in environment.items()})
    assert answer.returncode == 0
    return as_answer(answer.status, answer.headers, answer.body), answer.stderr


def check_named(lines, name):
    """One line of JSON that names the setting, and no secret."""
    assert len(lines) == 1, lines
    line = json.loads(lines[0])
    assert list(line) == ["time", "level", "fault", "detail"]
    assert (line["level"], line["fault"]) == ("error", "settings")
    assert name in line["detail"]
    if name != "WARMUP_CONFIG":  # a path is no secret
        assert SECRET not in lines[0]


def check_not_configured(answer):
    assert answer.status == 500
    assert answer.error == {**CONFIG_ERROR, "request_id": answer.headers["x-request-id"]}
    assert answer.headers["cache-control"] == "no-store"


# --- wrong settings ------------------------------------------------------------------------------

@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("value", [None, ""])
def test_missing_setting_is_named(build, world, listener, name, value):
    settings = world.settings(**{name: value})
    status, lines = start_badly(build, listener, settings)
    assert status == EX_CONFIG
    check_named(lines, name)
    answer, log = ask_as_cgi(build, settings)
    check_not_configured(answer)
    check_named([line for line in log.splitlines() if '"fault"' in line], name)


@pytest.mark.parametrize("name", ["WARMUP_WORKER", "WARMUP_", "WARMUP_DATABASE_URL", "WARMUP_workers",
                                  "WARMUP_" + "X" * 40])
def test_unknown_setting_is_named(build, world, listener, name):
    settings = world.settings(**{name: SECRET})
    status, lines = start_badly(build, listener, settings)
    assert status == EX_CONFIG
    check_named(lines, name)
    answer, log = ask_as_cgi(build, settings)
    check_not_configured(answer)
    check_named([line for line in log.splitlines() if '"fault"' in line], name)


def test_unknown_setting_with_a_very_long_name_is_reported(build, world, listener):
    status, lines = start_badly(build, listener, world.settings(**{"WARMUP_" + "X" * 500: SECRET}))
    assert status == EX_CONFIG
    check_named(lines, "WARMUP_XXX")


def test_malformed_settings_are_named_and_their_values_are_not(build, world, listener):
    for name, value in MALFORMED:
        status, lines = start_badly(build, listener, world.settings(**{name: value}))
        assert status == EX_CONFIG, (name, value)
        check_named(lines, name)


@pytest.mark.parametrize("name, value", [
    ("DATABASE_URL", f"postgresql://[{SECRET}"), ("INSTANTLY_API_KEY", f"a {SECRET}"),
    ("INSTANTLY_API_URL", f"http://{SECRET}.example"), ("WARMUP_DB_TIMEOUT_MS", "soon"), ("WARMUP_WORKERS", "0"),
    ("WARMUP_CONFIG", f"/nowhere/{SECRET}")])
def test_malformed_setting_answers_500_as_cgi(build, world, account, name, value):
    answer, log = ask_as_cgi(build, world.settings(**{name: value}), account, HTTP_AUTHORIZATION=f"Bearer {world.key}",
                             HTTP_X_REQUEST_ID="mine-1")
    check_not_configured(answer)
    assert answer.headers["x-request-id"] == "mine-1"
    check_named([line for line in log.splitlines() if '"fault"' in line], name)
    assert world.enables(account) == 0


def test_all_that_is_wrong_is_named_at_once(build, world, listener):
    settings = world.settings(DATABASE_URL=None, INSTANTLY_API_KEY=None, WARMUP_WORKERS="x", WARMUP_NONSENSE="1")
    status, lines = start_badly(build, listener, settings)
    assert status == EX_CONFIG
    for name in ("DATABASE_URL", "INSTANTLY_API_KEY", "WARMUP_WORKERS", "WARMUP_NONSENSE"):
        assert sum(name in json.loads(line)["detail"] for line in lines) == 1


@pytest.mark.parametrize("name, value", [
    ("WARMUP_WORKERS", "1"), ("WARMUP_WORKERS", "1024"), ("WARMUP_WORKERS", ""), ("WARMUP_DB_CONNECTIONS", "256"),
    ("WARMUP_JOB_WAIT_MS", "0"), ("WARMUP_DB_PREPARED", "off"), ("WARMUP_LOG_LEVEL", "debug"),
    ("WARMUP_DB_TIMEOUT_MS", "007000")])
def test_values_at_the_edges_are_taken(responder, world, account, name, value):
    changes = {"WARMUP_JOB_WAIT_MS": 0, "WARMUP_DB_CONNECTIONS": 1, name: value}
    server = responder(world, **changes)
    assert world.retry(Raw(server), account).status == 200


def test_number_of_workers_is_the_number_that_was_set(responder, world):
    for count in (1, 5):
        server = responder(world, WARMUP_WORKERS=count, WARMUP_DB_CONNECTIONS=1)
        wait_for(lambda server=server, count=count: threads(server) == count + 1)


# --- where they come from ------------------------------------------------------------------------

def test_settings_file_is_read_with_quotes_and_comments(build, world, listener, run_folder, account):
    settings = world.settings()
    url = settings["DATABASE_URL"].replace("\\", "\\\\").replace('"', '\\"')
    file = run_folder / "settings" / "warmup.conf"
    file.write_text(f"""\
# comment, with NAME=value
; another

  DATABASE_URL = "{url}"\t
INSTANTLY_API_KEY='{settings["INSTANTLY_API_KEY"]}'
INSTANTLY_API_URL={settings["INSTANTLY_API_URL"]}\r
WARMUP_WORKERS=7
WARMUP_WORKERS=3
WARMUP_DB_CONNECTIONS="1"
WARMUP_DB_PREPARED=
SOMETHING_ELSE=of another program
WARMUP_JOB_WAIT_MS=0""")
    file.chmod(0o600)
    with Spawned(listener.folder / "file", build, {"WARMUP_CONFIG": file}, listener) as server:
        assert world.retry(Raw(listener), account).status == 200
        assert threads(server) == 4
        assert '"fault"' not in server.log()
    answer, log = ask_as_cgi(build, {"WARMUP_CONFIG": file})
    assert (answer.status, '"fault"' in log) == (200, False)


def test_environment_counts_more_than_the_file(build, world, listener, run_folder):
    file = run_folder / "settings" / "other.conf"
    file.write_text(stack.settings_text(world.settings(WARMUP_WORKERS=7, WARMUP_DB_CONNECTIONS=1)))
    file.chmod(0o600)
    settings = {"WARMUP_CONFIG": file, "WARMUP_WORKERS": 2}
    with Spawned(listener.folder / "environment", build, settings, listener) as server:
        assert Raw(listener).request("GET", "/healthz").status == 200
        assert threads(server) == 3


@pytest.mark.parametrize("line, named", [
    ("WARMUP_WORKER=3", "WARMUP_WORKER"), ("WARMUP_WORKERS=x", "WARMUP_WORKERS"), (SECRET, "line 1"),
    (f'INSTANTLY_API_KEY="{SECRET}', "INSTANTLY_API_KEY"), (f'INSTANTLY_API_KEY="{SECRET}" x', "INSTANTLY_API_KEY"),
    (f"INSTANTLY_API_KEY={SECRET}\\", "INSTANTLY_API_KEY"), (f"WARMUP_{SECRET * 20}=1", "NAME=value")],
    ids=["unknown", "malformed", "no-equals", "open-quote", "behind-the-quote", "backslash", "long-name"])
def test_wrong_line_of_the_file_is_named(build, world, listener, run_folder, line, named):
    file = run_folder / "settings" / "wrong.conf"
    file.write_text(line + "\n")
    file.chmod(0o600)
    settings = world.settings(WARMUP_CONFIG=file)
    status, lines = start_badly(build, listener, settings)
    assert status == EX_CONFIG
    assert len(lines) == 1
    detail = json.loads(lines[0])["detail"]
    assert named in detail and "line 1" in detail
    assert SECRET not in detail


def test_file_that_others_can_read_is_a_warning(build, world, listener, run_folder):
    file = run_folder / "settings" / "open.conf"
    file.write_text(stack.settings_text(world.settings(WARMUP_DB_CONNECTIONS=1)))
    for mode, warned in ((0o644, True), (0o604, True), (0o640, False), (0o600, False)):
        file.chmod(mode)
        answer, log = ask_as_cgi(build, {"WARMUP_CONFIG": file})
        assert answer.status == 200
        faults = [json.loads(line) for line in log.splitlines() if '"fault"' in line]
        assert [(fault["level"], "readable by everyone" in fault["detail"]) for fault in faults] == (
            [("warn", True)] if warned else [])


def test_file_that_cannot_be_read_is_an_error_even_if_the_environment_has_all(build, world, listener):
    for path in ("/nowhere/warmup.conf", "/", "/dev/null/x", "relative/warmup.conf"):
        status, lines = start_badly(build, listener, world.settings(WARMUP_CONFIG=path))
        assert status == EX_CONFIG
        check_named(lines, "WARMUP_CONFIG")


# Each would be felt at once if it were obeyed.
HOSTILE = {"DATABASE_URL": "postgresql://127.0.0.1:1/x", "INSTANTLY_API_URL": "http://127.0.0.1:1/",
           "INSTANTLY_API_KEY": "x", "WARMUP_WORKERS": "1", "WARMUP_CONFIG": "/nowhere", "WARMUP_LOG_LEVEL": "error",
           "WARMUP_DB_TIMEOUT_MS": "1", "WARMUP_UPSTREAM_TIMEOUT_MS": "1", "WARMUP_NONSENSE": "1",
           "PGHOST": "127.0.0.9", "PGOPTIONS": "-c search_path=x", "http_proxy": "http://127.0.0.1:1/",
           "ALL_PROXY": "http://127.0.0.1:1/", "HTTP_PROXY": "http://127.0.0.1:1/"}


def test_settings_never_come_from_a_request(responder, world):
    server = responder(world, WARMUP_WORKERS=2, WARMUP_DB_CONNECTIONS=1, **QUICK)
    for _ in range(3):
        account = world.add_account()
        params = {**HOSTILE, **variables("PATCH", ROUTE.format(account), world.bearer())}
        answer = stack.parse_answer(stack.fcgi_request(server.socket_path, params).stdout)
        assert (answer.status, world.enables(account)) == (200, 1)
    assert threads(server) == 3
    assert server.log().count('"level":"info"') == 3


def test_header_of_a_client_names_no_setting(host, world):
    account = world.add_account()
    headers = {name.replace("_", "-"): value for name, value in HOSTILE.items()}
    assert world.retry(host, account, headers=headers).status == 200


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_proxy_of_the_environment_is_ignored(build, world, account, name):
    environment = world.settings(**QUICK, **{name: "http://127.0.0.1:1/", "NO_PROXY": ""})
    answer, _ = ask_as_cgi(build, environment, account, HTTP_AUTHORIZATION=f"Bearer {world.key}")
    assert (answer.status, world.enables(account)) == (200, 1)


def test_variables_of_libpq_fill_in_only_what_the_url_leaves_open(build, world):
    url = world.settings()["DATABASE_URL"]
    foreign = {"PGHOST": "127.0.0.9", "PGPORT": "1", "PGUSER": "nobody", "PGDATABASE": "nothing", "PGPASSWORD": SECRET,
               "PGCLIENTENCODING": "LATIN1", "PGAPPNAME": "mine", "TZ": "Asia/Kolkata", "LC_ALL": "de_DE.UTF-8"}
    answer, log = ask_as_cgi(build, world.settings(DATABASE_URL=url), **foreign)
    assert (answer.status, SECRET in log) == (200, False)


# --- the log -------------------------------------------------------------------------------------

ALWAYS = ["time", "level", "request_id", "method", "route", "status", "code", "duration_ms", "db_ms", "upstream_ms"]
CALLER = ["user_id", "key_prefix"]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")


def last_line(host, request_id):
    """The line about a request; FastCGI writes it before the answer is sent."""
    lines = [line for line in host.log().splitlines() if request_id in line]
    assert len(lines) == 1, lines
    return json.loads(lines[0])


@pytest.mark.parametrize("what, status, code, level, more", [
    ("joe", 200, "ok", "info", ["account_id", *CALLER, "upstream_status"]),
    ("moved", 409, "conflict", "info", ["account_id", *CALLER]),
    ("key", 401, "unauthorized", "info", []),
    ("absent", 404, "not_found", "info", CALLER),
    ("refused", 502, "upstream_rejected", "warn", ["account_id", *CALLER, "upstream_status"]),
    ("close-before-headers", 502, "upstream_unavailable", "warn", ["account_id", *CALLER]),
    ("id", 400, "invalid_request", "info", CALLER),
    ("route", 404, "not_found", "info", []),
    ("method", 405, "method_not_allowed", "info", []),
])
def test_line_of_a_request_has_the_documented_members(host, world, what, status, code, level, more):
    account = world.add_account(what, state=("warming", "warming") if what == "moved" else ("pending", "not_started"))
    request_id = "line-" + secrets.token_hex(8)
    path = {"absent": ROUTE.format("11111111-1111-4111-8111-111111111111"), "id": ROUTE.format("x-y"),
            "route": ROUTE.format(account) + "/more"}.get(what, ROUTE.format(account))
    method, key = "POST" if what == "method" else "PATCH", "pk_live_" + "0" * 64 if what == "key" else None
    begun = time.monotonic()
    answer = host.request(method, path, {**world.bearer(key), "X-Request-Id": request_id})
    took = (time.monotonic() - begun) * 1000
    line = last_line(host, request_id)
    assert list(line) == ALWAYS + more
    assert (answer.status, line["status"], line["code"], line["level"]) == (status, status, code, level)
    assert TIME.fullmatch(line["time"])
    assert line["method"] == method
    assert line["route"] == ("-" if what == "route" else "/api/email/accounts/{id}/retry-warmup")
    assert 0 <= line["db_ms"] + line["upstream_ms"] <= line["duration_ms"] + 0.01 and line["duration_ms"] <= took
    if "user_id" in more:
        assert (line["user_id"], line["key_prefix"]) == (world.user, world.key[:24])
    if "account_id" in more:
        assert line["account_id"] == account
    if "upstream_status" in more:
        assert line["upstream_status"] == {200: 200, 502: 422}[status]


@pytest.mark.parametrize("level, shown", [("debug", [200, 409, 502, 500]), ("info", [200, 409, 502, 500]),
                                          ("warn", [502, 500]), ("error", [500])])
def test_level_of_the_log_filters(responder, world, level, shown):
    server = responder(world, WARMUP_LOG_LEVEL=level, WARMUP_DB_CONNECTIONS=1, WARMUP_WORKERS=2, **QUICK)
    account, vetoed = world.add_account(), world.add_account()
    name = "no_" + secrets.token_hex(4)
    world.execute(f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$")
    world.execute(f"CREATE TRIGGER {name} BEFORE UPDATE ON accounts FOR EACH ROW WHEN (OLD.id = '{vetoed}')"
                  f" EXECUTE FUNCTION {name}()")
    asked = [account, account, world.add_account("refused"), vetoed]
    assert [world.retry(Raw(server), each).status for each in asked] == [200, 409, 502, 500]
    world.execute(f"DROP FUNCTION {name} CASCADE")
    lines = [json.loads(line) for line in server.log().splitlines()]
    assert [line["status"] for line in lines if "status" in line] == shown


def test_hostile_texts_stay_in_one_line_or_out_of_the_log(responder, world):
    server = responder(world, WARMUP_DB_CONNECTIONS=1, **QUICK)
    account = world.add_account()
    texts = ['"}\n{"level":"error"}', "a\r\nb", "%s%n%x", "\u2028\u202e", "\x1b[31m", "\x7f\0x", "x" * 70000]
    for text in texts:
        headers = {"X-Request-Id": text, "User-Agent": text, "Referer": text}
        assert world.retry(Raw(server), account, headers=headers).status in (200, 409)
        assert Raw(server).request(text, "/healthz" + text, headers).status == 404
    lines = server.log().splitlines()
    assert len(lines) == 2 * len(texts)
    for line in lines:
        assert list(json.loads(line))[:5] == ALWAYS[:5]
        assert re.fullmatch(r"[\x20-\x7e]{1,600}", line)


def test_secrets_are_not_where_others_can_see_them(responder, world):
    """Not in the arguments of the process, and not in the statements that the database shows."""
    server = responder(world, WARMUP_DB_CONNECTIONS=1, WARMUP_WORKERS=1, WARMUP_DB_PREPARED="off", **QUICK)
    assert world.retry(Raw(server), world.add_account()).status == 200
    arguments = open(f"/proc/{server.pid}/cmdline", "rb").read()
    shown = repr(world.execute("SELECT query FROM pg_stat_activity WHERE application_name = 'warmup'"))
    for secret in (UPSTREAM_KEY, world.key, *world.secrets):
        assert secret.encode() not in arguments
        assert secret not in shown
    assert responders(world) >= 1
    assert os.path.basename(arguments.split(b"\0")[0]) == b"warmup.fcgi"

"""What a hostile caller, a hostile row or a hostile network can make of it: no statement more, no secret, no cost
without a bound.
"""

import os
import pathlib
import re
import secrets
import shutil
import subprocess
import urllib.parse
import uuid
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor

import pytest
import stack
from conftest import (ADDRESS_MARK, DATABASE_PASSWORD, ROUTE, SANITIZER_VARIABLES, STUCK, TOP, UPSTREAM_KEY, WARMING,
                      Cgi, check_log)
from faults.proxies import CLIENT, PgProxy
from faults.test_process import resources
from test_database import QUICK, check_unavailable, private_world
from test_transport import Raw, serves

# --- G11: SQL injection --------------------------------------------------------------------------

INJECTIONS = [
    "'", "''", "' OR '1'='1", "' OR 1=1--", "'; DROP TABLE accounts; --", "1; SELECT pg_sleep(5)", "\\'; SELECT 1; --",
    "') UNION SELECT NULL, version()--", "admin'/*", "$$; SELECT 1; $$", "$1", "$2::text", "{0}", "%27%20OR%201=1",
    "'||(SELECT password FROM pg_shadow LIMIT 1)||'", "\"; COPY (SELECT 1) TO PROGRAM 'id'; --", "E'\\x27'",
    "0x27", "\u02bc OR 1=1", "\uff07; SELECT 1", "a\\", "NULL", "1e309", "'::uuid", "x' AND pg_sleep(5) IS NULL--",
    "SELECT", ";", "--", "/*", "*/", "\x00'", "\r\n'; SELECT 1", "%s%n%x",
]


@pytest.fixture(scope="module")
def logged(run_folder, build, sandbox):
    """A server that writes down every statement, with who sent it."""
    settings = {"log_statement": "all", "log_line_prefix": "<%u> ", "log_min_error_statement": "panic"}
    with private_world(run_folder / "postgres-logged", build, sandbox, settings) as world:
        yield world


def statements(world, since=0):
    """The distinct statements of the responder, each on one line."""
    text = world.postgres.log()[since:]
    found = re.findall(r"(?m)^<warmup> LOG:  (?:statement|execute [^:]*): (.*(?:\n(?!<).*)*)", text)
    return [" ".join(statement.split()) for statement in found]


def known(world):
    """All that the program can say, from its source."""
    source = (TOP / "shared" / "account.c").read_text()
    macros = {name: "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', body)) for name, body in
              re.findall(r"(?m)^#define (COLUMNS|JOIN_DOMAIN)((?:.*\\\n)*.*)$", source)}
    texts = set()
    for body in re.findall(r'\{ "warmup_\w+",((?:[^"}]|"[^"]*")*?)\d \}', source):
        parts = re.findall(r'"([^"]*)"|\b(COLUMNS|JOIN_DOMAIN)\b', body)
        texts.add(" ".join("".join(text or macros[macro] for text, macro in parts).split()))
    assert len(texts) == 3, texts
    return texts | {"SELECT 1"}


@pytest.mark.parametrize("prepared", ["on", "off"])
def test_no_text_makes_a_statement_of_its_own(responder, logged, prepared):
    world = logged
    server = responder(world, WARMUP_WORKERS=2, WARMUP_DB_CONNECTIONS=1, WARMUP_DB_PREPARED=prepared, **QUICK)
    serves(server, world)
    host, since = Raw(server), len(world.postgres.log())
    asked = 0
    for text in INJECTIONS:
        quoted = text.replace("\x00", "")  # which ends a text, in PostgreSQL and in libfcgi
        # From outside: the id, the path, the key, the other headers, the query.
        assert host.request("PATCH", ROUTE.format(text), world.bearer()).status in (400, 404)
        assert host.request("PATCH", ROUTE.format(world.add_account()) + quoted, world.bearer()).status == 404
        assert host.request("PATCH", ROUTE.format(uuid.uuid4()), {"Authorization": f"Bearer {text}"}).status == 401
        assert host.request("PATCH", ROUTE.format(uuid.uuid4()), {"Authorization": text}).status == 401
        # From the database: a row that says such things, on the way to Instantly and back into the swap's parameters.
        account = world.add_account(agentmail_inbox_id=quoted, domain_id=world.add_domain(domain=quoted, status=quoted))
        world.execute("UPDATE accounts SET email_address = %s WHERE id = %s", f"x{quoted}{ADDRESS_MARK}", account)
        answer = world.retry(host, account, headers={"X-Request-Id": text, "User-Agent": text, "X-Forwarded-For": text})
        assert answer.status == 200 or b"no usable email address" in answer.body, (text, answer)
        assert world.state(account) == (WARMING if answer.status == 200 else STUCK)
        odd = world.add_account(state=(quoted, quoted))
        assert world.retry(host, odd).status == 409
        asked += 1
    assert asked == len(INJECTIONS)
    seen = statements(world, since)
    assert len(seen) > 3 * len(INJECTIONS)  # they are logged, indeed
    assert set(seen) <= known(world), set(seen) - known(world)
    assert world.execute("SELECT count(*) > 0 FROM accounts") == [(True,)]
    assert server.stop()


# --- G04, G06: keys ------------------------------------------------------------------------------

def test_keys_are_looked_up_by_hash_and_never_compared(world):
    """G04: whatever is timed, depends on a hash that the caller cannot steer, not on the beginning of a key."""
    source = {file.name: file.read_text() for folder in ("fcgi", "shared") for file in (TOP / folder).glob("*.c")}
    assert "k.key_hash = $1::bytea" in source["account.c"] and "SHA256" in source["api_key.c"].upper()
    for name in ("bearer.c", "api_key.c", "retry_warmup.c"):
        assert not re.search(r"\b(strn?(case)?cmp|memcmp|bcmp)\(", source[name].replace("strncasecmp(header", "")), name
    assert world.execute("SELECT count(*) FROM pg_indexes WHERE tablename = 'api_keys' AND indexdef LIKE"
                         " '%%UNIQUE%%(key_hash)%%'") == [(1,)]


MALFORMED = ["", "Bearer", "Basic eDp5", "Bearer two tokens", "Bearer \t", 'Bearer "x"', "Bearer " + "x" * 513,
             "x" * 16000]


def test_flood_of_bad_keys_costs_nothing_that_grows(responder, postgres, world):
    """G06: a lookup for one that is well formed, none for one that is not; memory and descriptors stay as they are."""
    with PgProxy(postgres.port) as proxy:
        server = responder(world, DATABASE_URL=proxy.url(world.settings()["DATABASE_URL"]), WARMUP_WORKERS=8,
                           WARMUP_DB_CONNECTIONS=2, WARMUP_LOG_LEVEL="warn", **QUICK)
        serves(server, world, workers=8)
        host, path = Raw(server), ROUTE.format(uuid.uuid4())

        def flood(headers):
            with ThreadPoolExecutor(8) as pool:
                assert set(pool.map(lambda header: host.request("PATCH", path, {"Authorization": header}).status,
                                    headers)) == {401}

        def unknown(count):
            return [f"Bearer pk_live_{secrets.token_hex(32)}" for _ in range(count)]

        flood(unknown(300) + MALFORMED * 40)
        before, asked = resources(server), proxy.counts[CLIENT, "Execute"]
        flood(MALFORMED * 150)
        assert proxy.counts[CLIENT, "Execute"] == asked
        flood(unknown(900))
        assert proxy.counts[CLIENT, "Execute"] == asked + 900
        after = resources(server)
        # A few connections may be closing, before or after.
        assert after[1] <= before[1] + 8 and after[2] == before[2], (before, after)
        assert SANITIZER_VARIABLES or after[0] <= before[0] + 256, (before, after)
        assert proxy.accepted <= 2
        assert server.log() == "" or all('"level":"info"' not in line for line in server.log().splitlines())
        assert server.stop()


# --- G08: secrets --------------------------------------------------------------------------------

def forms(secret):
    """As it is, and as it might travel."""
    encoded = secret.encode()
    return {encoded, b64encode(encoded).rstrip(b"="), urllib.parse.quote(secret, safe="").encode(),
            encoded.hex().encode(), secret.replace("'", "\\'").encode(), secret.replace("'", "''").encode()}


def test_secrets_appear_in_no_form_anywhere(responder, build, fresh_world, run_folder):
    """Logs, answers, the process's title and arguments, what the database shows: after trouble of every kind."""
    world = fresh_world
    server = responder(world, WARMUP_LOG_LEVEL="debug", WARMUP_DB_CONNECTIONS=1, WARMUP_UPSTREAM_TIMEOUT_MS=200)
    cgi = Cgi(build / "warmup.fcgi", world.settings(WARMUP_LOG_LEVEL="debug", WARMUP_UPSTREAM_TIMEOUT_MS=200))
    said = b""
    for host in (Raw(server), cgi):
        for behaviour in ("joe", "refused", "unauthorized", "error-member", "html", "reset-mid-body", "job-failed",
                          "hang"):
            answer = world.retry(host, world.add_account(behaviour))
            # A 200 shows the account, with its address.
            said += repr(answer.headers).encode() + (answer.body if answer.status != 200 else b"")
        with_bad_key = host.request("PATCH", ROUTE.format(uuid.uuid4()), {"Authorization": f"Basic {world.key}"})
        said += with_bad_key.body
    world.execute("ALTER TABLE accounts RENAME TO gone")
    for host in (Raw(server), cgi):
        said += world.retry(host, uuid.uuid4()).body
    wrong = world.settings(DATABASE_URL=world.postgres.url(world.name, "warmup", DATABASE_PASSWORD + "x"))
    cgi_wrong = Cgi(build / "warmup.fcgi", wrong)
    check_unavailable(world.retry(cgi_wrong, uuid.uuid4()))
    shown = repr(world.execute("SELECT query, application_name FROM pg_stat_activity WHERE usename = 'warmup'"))
    process = b"".join(pathlib.Path(f"/proc/{server.pid}/{name}").read_bytes() for name in ("cmdline", "comm"))
    everywhere = b"\n".join([said, server.log().encode(), cgi.log().encode(), cgi_wrong.log().encode(), shown.encode(),
                             process])
    for secret in (UPSTREAM_KEY, DATABASE_PASSWORD, world.key, ADDRESS_MARK):
        for form in forms(secret):
            assert form not in everywhere, f"a secret, as {form[:8]!r}..."
    assert check_log(server, world.secrets)


# --- H09: TLS to the database --------------------------------------------------------------------

@pytest.fixture(scope="module")
def encrypted(run_folder, build, sandbox):
    """A server with a certificate for localhost, and two authorities: the one that signed it, and another."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    folder = run_folder / "postgres-tls"
    with private_world(folder, build, sandbox) as world:
        for name in ("server", "other"):
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                            "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                            "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt"], check=True,
                           capture_output=True)
        for name in ("server.key", "server.crt"):
            (folder / name).rename(folder / "data" / name)
            (folder / "data" / name).chmod(0o600)
            if os.geteuid() == 0:
                shutil.chown(folder / "data" / name, "postgres", "postgres")
        shutil.copy(folder / "data" / "server.crt", folder / "ca.crt")
        world.execute("ALTER SYSTEM SET ssl = on")
        world.execute("SELECT pg_reload_conf()")
        assert stack.wait_until(lambda: world.execute("SHOW ssl") == [("on",)], 10)
        yield world, folder


@pytest.mark.parametrize("host, authority, served", [
    ("localhost", "ca.crt", True), ("localhost", "other.crt", False), ("127.0.0.1", "ca.crt", False),
    ("localhost", "absent.crt", False)])
def test_certificate_of_the_database_is_verified(responder, encrypted, host, authority, served):
    world, folder = encrypted
    url = world.settings()["DATABASE_URL"].replace("@127.0.0.1:", f"@{host}:")
    server = responder(world, DATABASE_URL=f"{url}?sslmode=verify-full&sslrootcert={urllib.parse.quote(str(folder))}"
                                           f"/{authority}", WARMUP_DB_CONNECTIONS=1, **QUICK)
    account = world.add_account()
    answer = world.retry(Raw(server), account)
    if served:
        assert answer.status == 200
        assert world.execute("SELECT bool_and(s.ssl) FROM pg_stat_ssl s JOIN pg_stat_activity USING (pid)"
                             " WHERE usename = 'warmup'") == [(True,)]
    else:
        check_unavailable(answer)
        assert (world.state(account), world.enables(account)) == (STUCK, 0)
        assert not world.execute("SELECT 1 FROM pg_stat_activity WHERE usename = 'warmup'")
    assert server.stop()


def test_sample_settings_ask_for_a_verified_database():
    sample = (TOP / "deploy" / "warmup.conf.example").read_text()
    assert re.search(r"(?m)^DATABASE_URL=.*\bsslmode=verify-full\b", sample)

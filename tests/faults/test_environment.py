"""Variables of the environment that the libraries beneath us read: which count, on purpose, and which must not.

Everything below is what a shell, a container or a web server may hand down without anybody meaning us.
"""

import contextlib
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import urllib.parse

import pytest
import stack
from conftest import DATABASE_PASSWORD, SANITIZER_VARIABLES, STUCK, TOP, UPSTREAM_KEY, Cgi, warmupctl
from sandbox.instantly import Sandbox
from test_database import QUICK, check_moved, check_unavailable
from test_transport import Raw, Spawned, read_answer, whole

# Whatever these are, every request is answered as if they were not there.
NEUTRAL = {
    # Taken away at start: see shared/environment.c.
    "PGOPTIONS": "-c search_path=nowhere -c default_transaction_read_only=on -c statement_timeout=1",
    "PGHOSTADDR": "127.0.0.9", "PGSERVICE": "nothing", "PGDATESTYLE": "nonsense", "PGTZ": "Nowhere/Nowhere",
    "PGGEQO": "nonsense",
    # Fill in what DATABASE_URL leaves open, and here it leaves nothing open.
    "PGHOST": "127.0.0.9,127.0.0.8", "PGPORT": "1", "PGUSER": "nobody", "PGDATABASE": "nothing",
    "PGPASSWORD": "nonsense", "PGPASSFILE": "/nowhere/pgpass", "PGSERVICEFILE": "/nowhere/service",
    "PGSYSCONFDIR": "/nowhere", "PGLOCALEDIR": "/nowhere", "PGCLIENTENCODING": "LATIN1", "PGAPPNAME": "x" * 300,
    "PGCONNECT_TIMEOUT": "nonsense", "PGSSLCERT": "/nowhere/cert", "PGSSLROOTCERT": "/nowhere/root",
    "PGSSLMODE": "disable", "PGTARGETSESSIONATTRS": "read-write", "PGGSSENCMODE": "prefer",
    # Of curl, the program, but not of libcurl; or switched off.
    "CURL_CA_BUNDLE": "/nowhere/ca.pem", "CURL_HOME": "FOLDER", "SSL_CERT_FILE": "/nowhere/ca.pem",
    "SSL_CERT_DIR": "/nowhere", "NETRC": "FOLDER/.netrc", "HOME": "FOLDER", "XDG_CONFIG_HOME": "FOLDER",
    # libfcgi's wait for a peer to close: transport.c closes by itself. Its list of peers is of no use on a Unix socket.
    "LIBFCGI_OS_CLOSE_POLL_TIMEOUT": "600000", "LIBFCGI_IS_AF_UNIX_KEEPER_POLL_TIMEOUT": "600000",
    "FCGI_WEB_SERVER_ADDRS": "192.0.2.1",
    # Of the C library: memory, names, languages, time. The last but one sets all memory to other bytes than zero.
    "RES_OPTIONS": "timeout:30 attempts:9 ndots:15", "LOCALDOMAIN": "evil.example", "HOSTALIASES": "FOLDER/aliases",
    "LC_ALL": "de_DE.UTF-8", "LANG": "tr_TR.UTF-8", "LANGUAGE": "de", "LC_NUMERIC": "de_DE", "TZ": "Asia/Kolkata",
    "TZDIR": "/nowhere", "MALLOC_ARENA_MAX": "1", "MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "165",
    "MALLOC_TRACE": "FOLDER/trace",
}

# On the loader's word, before our first line; a system's policy; or the operator's: these count.
HONOURED = {"LD_PRELOAD", "LD_LIBRARY_PATH", "OPENSSL_CONF", "PGSSLMODE", "PGPASSFILE", "PGTARGETSESSIONATTRS",
            "FCGI_WEB_SERVER_ADDRS", "RES_OPTIONS"}


@pytest.fixture(scope="module")
def folder(run_folder):
    """A home with files that programs obey."""
    folder = run_folder / "hostile-home"
    (folder / ".postgresql").mkdir(parents=True)
    (folder / ".netrc").write_text("default login evil password evil\n")
    (folder / ".curlrc").write_text("proxy = http://127.0.0.1:1\nverbose\n")
    (folder / ".pgpass").write_text("*:*:*:*:evil\n")
    (folder / ".pgpass").chmod(0o600)
    (folder / ".pg_service.conf").write_text("[evil]\nhostaddr=127.0.0.9\noptions=-c search_path=evil\n")
    (folder / "aliases").write_text("localhost evil.example\n")
    return folder


def put(value, folder):
    return value.replace("FOLDER", str(folder))


def check_same(world, host):
    """A retry, its repetition, and the form of numbers and times."""
    account = world.add_account(daily_limit=1234567, created_at="2026-04-20T15:00:00.5Z")
    answer = world.retry(host, account)
    check_moved(world, account, answer)
    shown = answer.json["account"]
    assert (shown["daily_limit"], shown["created_at"]) == (1234567, "2026-04-20T15:00:00.5Z")
    assert world.sandbox.enables(world.address(account))[0].authorization_ok
    assert world.retry(host, account).status == 409


@pytest.mark.parametrize("name", NEUTRAL)
def test_variable_changes_nothing(build, world, folder, name):
    check_same(world, Cgi(build / "warmup.fcgi", world.settings(**QUICK, **{name: put(NEUTRAL[name], folder)})))


def test_all_variables_together_change_nothing(responder, world, folder):
    hostile = {name: put(value, folder) for name, value in NEUTRAL.items()}
    server = responder(world, WARMUP_WORKERS=1, WARMUP_DB_CONNECTIONS=1, **QUICK, **hostile)
    for _ in range(3):
        check_same(world, Raw(server))
    # A peer that does not close after its answer holds nobody.
    with stack.fcgi_connect(server.socket_path) as silent:
        account = world.add_account()
        silent.sendall(whole(world, account))
        check_moved(world, account, read_answer(silent))
        check_same(world, Raw(server))
    assert not (folder / "trace").exists()
    assert server.stop()


def test_empty_environment_serves(build, world, run_folder):
    """As lighttpd's bin-copy-environment leaves it; the settings come from the file, whose name is all there is."""
    file = run_folder / f"empty-{secrets.token_hex(4)}.conf"
    file.write_text(stack.settings_text(world.settings(**QUICK)))
    file.chmod(0o600)
    check_same(world, Cgi(build / "warmup.fcgi", {"WARMUP_CONFIG": file}))


def test_tool_is_not_led_astray_either(build, world, folder):
    hostile = {name: put(NEUTRAL[name], folder) for name in ("PGOPTIONS", "PGHOSTADDR", "PGSERVICE", "PGTZ")}
    url = world.postgres.url(world.name)
    done = subprocess.run([build / "warmupctl", "key", "list"], capture_output=True, text=True, timeout=60,
                          env={**SANITIZER_VARIABLES, **hostile, "PATH": stack.PATH, "DATABASE_URL": url})
    assert (done.returncode, done.stdout) == (0, warmupctl(build, url, "key", "list"))


# --- TLS -----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                    "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


@contextlib.contextmanager
def secure_sandbox(certificate, **limits):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    for name, value in limits.items():
        setattr(context, name, value)
    if limits:
        context.set_ciphers("ALL:@SECLEVEL=0")
    with Sandbox(UPSTREAM_KEY, context) as box:
        yield box


@pytest.fixture(params=["cgi", "fastcgi"])
def started(request, build, responder):
    """The responder with these settings and variables."""
    def start(world, **changes):
        if request.param == "cgi":
            return Cgi(build / "warmup.fcgi", world.settings(**changes))
        return Raw(responder(world, WARMUP_WORKERS=1, WARMUP_DB_CONNECTIONS=1, **changes))
    return start


def test_keys_of_tls_sessions_are_written_nowhere(started, world, certificate, run_folder):
    keys = run_folder / f"keys-{secrets.token_hex(4)}"
    with secure_sandbox(certificate) as box:
        host = started(world, INSTANTLY_API_URL=box.url, INSTANTLY_CA_FILE=certificate[0], SSLKEYLOGFILE=keys, **QUICK)
        account = world.add_account()
        assert (world.retry(host, account).status, len(box.enables(world.address(account)))) == (200, 1)
    assert not keys.exists()


def test_keys_of_tls_sessions_of_the_tool_are_written_nowhere(build, world, certificate, run_folder):
    keys = run_folder / f"keys-{secrets.token_hex(4)}"
    with secure_sandbox(certificate) as box:
        settings = world.settings(INSTANTLY_API_URL=box.url, INSTANTLY_CA_FILE=str(certificate[0]))
        subprocess.run([build / "warmupctl", "doctor"], capture_output=True, timeout=60, check=False,
                       env={**SANITIZER_VARIABLES, **settings, "PATH": stack.PATH, "SSLKEYLOGFILE": keys})
        assert box.calls
    assert not keys.exists()


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE"])
def test_no_variable_adds_an_authority(started, world, certificate, tmp_path, name):
    """INSTANTLY_CA_FILE is the one way."""
    digest = subprocess.run(["openssl", "x509", "-in", certificate[0], "-noout", "-hash"], check=True,
                            capture_output=True, text=True).stdout.strip()
    shutil.copy(certificate[0], tmp_path / f"{digest}.0")
    with secure_sandbox(certificate) as box:
        host = started(world, INSTANTLY_API_URL=box.url, **QUICK,
                       **{name: tmp_path if name == "SSL_CERT_DIR" else certificate[0]})
        account = world.add_account()
        answer = world.retry(host, account)
        assert (answer.status, answer.error["details"], box.calls) == (502, {"reason": "tls"}, [])
        assert world.state(account) == STUCK


WEAK = """\
openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = weak
[weak]
MinProtocol = TLSv1
CipherString = ALL:@SECLEVEL=0
VerifyMode = None
"""


def test_policy_of_openssl_cannot_make_it_weaker_than_ours(started, world, certificate, tmp_path):
    """OPENSSL_CONF counts, as the system's policy; below TLS 1.2 and to a wrong certificate it leads nowhere."""
    (tmp_path / "weak.cnf").write_text(WEAK)
    variables = {"OPENSSL_CONF": tmp_path / "weak.cnf", **QUICK}
    with pytest.warns(DeprecationWarning):
        old = secure_sandbox(certificate, minimum_version=ssl.TLSVersion.TLSv1_1,
                             maximum_version=ssl.TLSVersion.TLSv1_1)
        with old as box:
            host = started(world, INSTANTLY_API_URL=box.url, INSTANTLY_CA_FILE=certificate[0], **variables)
            answer = world.retry(host, world.add_account())
            assert (answer.error["details"], box.calls) == ({"reason": "tls"}, [])
    with secure_sandbox(certificate) as box:
        host = started(world, INSTANTLY_API_URL=box.url, **variables)
        answer = world.retry(host, world.add_account())
        assert (answer.error["details"], box.calls) == ({"reason": "tls"}, [])


# --- what counts on purpose ----------------------------------------------------------------------

def bare_url(world):
    return f"postgresql://127.0.0.1:{world.postgres.port}/{world.name}"


def test_variables_of_libpq_fill_in_what_the_url_leaves_open(started, world, tmp_path):
    passwords = tmp_path / "pgpass"
    escaped = DATABASE_PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    passwords.write_text(f"127.0.0.1:{world.postgres.port}:*:warmup:{escaped}\n")
    passwords.chmod(0o600)
    check_same(world, started(world, DATABASE_URL=bare_url(world), PGUSER="warmup", PGPASSFILE=passwords,
                              PGTARGETSESSIONATTRS="read-write", **QUICK))


@pytest.mark.parametrize("name, value", [("PGTARGETSESSIONATTRS", "standby"), ("PGSSLMODE", "verify-full")])
def test_demand_of_the_environment_is_obeyed(started, world, name, value):
    """It makes the connection stricter than DATABASE_URL does: nothing is sent to a server that falls short."""
    host = started(world, WARMUP_DB_TIMEOUT_MS=2000, **QUICK, **{name: value})
    check_unavailable(world.retry(host, world.add_account()))
    assert "cannot connect to the database" in host.log()


def test_service_that_the_url_names_counts(started, world, tmp_path):
    services = tmp_path / "services"
    services.write_text(f"[ours]\nhost=127.0.0.1\nport={world.postgres.port}\ndbname={world.name}\nuser=warmup\n")
    password = urllib.parse.quote(DATABASE_PASSWORD, safe="")
    check_same(world, started(world, DATABASE_URL=f"postgresql://?service=ours&password={password}",
                              PGSERVICEFILE=services, PGSERVICE="nothing", **QUICK))


@pytest.mark.parametrize("allowed, served", [
    ("127.0.0.1", True), ("192.0.2.1,127.0.0.1", True), ("192.0.2.1, 127.0.0.1 ,198.51.100.7", True), ("", True),
    ("192.0.2.1", False), ("127.0.0.10", False), ("127.0.0", False), ("27.0.0.1", False), (",", False), ("*", False)])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_list_of_web_servers_filters_peers_over_tcp(build, world, run_folder, family, allowed, served):
    """Over IPv6 the peer is an IPv4 one, which the kernel shows as ::ffff:127.0.0.1."""
    with socket.socket(family) as listener:
        try:
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind(("::" if family == socket.AF_INET6 else "127.0.0.1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        listener.listen(16)
        settings = world.settings(FCGI_WEB_SERVER_ADDRS=allowed, WARMUP_WORKERS=1, WARMUP_DB_CONNECTIONS=1, **QUICK)
        with Spawned(run_folder / f"peers-{secrets.token_hex(4)}", build, settings, listener) as server:
            account = world.add_account()
            with socket.create_connection(("127.0.0.1", listener.getsockname()[1]), timeout=20) as peer:
                if served:
                    peer.sendall(whole(world, account))
                    check_moved(world, account, read_answer(peer))
                else:
                    with contextlib.suppress(ConnectionError):
                        peer.sendall(whole(world, account))
                    with pytest.raises(ConnectionError):
                        read_answer(peer)
                    assert (world.state(account), world.enables(account)) == (STUCK, 0)
            assert server.stop()


# --- the list itself -----------------------------------------------------------------------------

def test_every_variable_that_is_taken_away_is_tried_and_in_the_manual():
    source = (TOP / "shared" / "environment.c").read_text()
    taken = set(re.findall(r'^\t"(\w+)",', source, re.M))
    assert taken == {"SSLKEYLOGFILE"} | {name for name in taken if name in NEUTRAL} and len(taken) == 7
    manual = (TOP / "fcgi" / "warmup.fcgi.8").read_text()
    for name in taken | {"RES_OPTIONS", "FCGI_WEB_SERVER_ADDRS", "OPENSSL_CONF", "PGPASSFILE"}:
        assert f".Ev {name}" in manual, name
    assert HONOURED >= {"LD_PRELOAD"}

"""The same requests through every web server of deploy/hosts, mounted at / and at /api, beside a site of its own.

    pytest tests/hosts [--build DIR] [-k "nginx and api"]
"""

import concurrent.futures
import dataclasses
import http.client
import re
import secrets
import shutil
import stat
import subprocess
import uuid

import pytest

import hosts
from conftest import ROUTE, STUCK, WARMING, World, as_answer, check_log

KIB = 1024
SLOWEST_SECONDS = 22
SERVERS_OWN = ("date", "server", "connection", "accept-ranges", "keep-alive", "vary", "upgrade")


@dataclasses.dataclass
class Client:
    """Requests to a host, with its own headers taken away from the answers."""

    server: hosts.Host

    @property
    def health(self):
        return self.server.health

    def request(self, method, path, headers=(), body=b"", timeout=40, chunked=False):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=timeout)
        try:
            return self.on(connection, method, path, headers, body, chunked)
        finally:
            connection.close()

    def on(self, connection, method, path, headers=(), body=b"", chunked=False):
        connection.request(method, path, body=iter([body]) if chunked else body or None, headers=dict(headers),
                           encode_chunked=chunked)
        answer = connection.getresponse()
        got = as_answer(answer.status, answer.getheaders(), answer.read())
        for name in SERVERS_OWN:
            got.headers.pop(name, None)
        return got


@pytest.fixture(scope="session")
def hosts_world(postgres, template, sandbox):
    """A database of these cases' own: one of them shuts it."""
    postgres.create_database("hosts", template)
    return World(postgres, "hosts", sandbox)


@pytest.fixture(scope="module", params=[
    pytest.param((sample, mount), id=f"{sample.removesuffix('.conf').removesuffix('/.htaccess')}-at-{mount}")
    for sample in hosts.HOSTS for mount in ("/", "/api")])
def served(request, build, run_folder, hosts_world):
    sample, mount = request.param
    server = hosts.HOSTS[sample](run_folder / f"host-{secrets.token_hex(4)}", build / "warmup.fcgi",
                                   hosts_world.settings(), mount).start()
    yield Client(server)
    assert server.stop(), "it did not end by itself"
    check_log(server, hosts_world.secrets)


@pytest.fixture
def world(hosts_world):
    return hosts_world


def assert_ours(answer, status, **headers):
    """JSON from the responder, with its headers to the letter."""
    assert answer.status == status, answer
    wanted = {"content-type": "application/json; charset=utf-8", "cache-control": "no-store",
              "x-content-type-options": "nosniff", **{name.replace("_", "-"): value for name, value in headers.items()}}
    assert {name: answer.headers.get(name) for name in wanted} == wanted
    # Behind Apache the length may become chunks.
    assert answer.headers.get("content-length") in (None, str(len(answer.body)))
    if status >= 400:
        assert answer.error["request_id"] == answer.headers["x-request-id"]
    return answer


def untouched(world, account):
    return (world.state(account), world.enables(account)) == (STUCK, 0)


# --- what the responder answers ------------------------------------------------------------------

def test_stuck_account_answers_200_then_409(served, world):
    account = world.add_account(domain_id=world.add_domain(), agentmail_inbox_id="inb_abc123", daily_limit=50)
    answer = assert_ours(world.retry(served, account, headers={"X-Request-Id": "from-the-caller"}), 200)
    assert answer.headers["x-request-id"] == "from-the-caller"
    assert (answer.json["account"]["id"], answer.json["account"]["email_domains"]["domain"]) == (account, "acme.com")
    assert (world.state(account), world.enables(account)) == (WARMING, 1)
    answer = assert_ours(world.retry(served, account), 409)
    assert answer.error["details"] == {"status": "warming", "warmup_status": "warming"}
    assert world.enables(account) == 1


def test_health_answers_200(served):
    answer = assert_ours(served.request("GET", served.health), 200)
    assert answer.body == b'{"status":"ok"}'


def test_head_has_the_headers_and_no_body(served):
    answer = served.request("HEAD", served.health)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-type"] == "application/json; charset=utf-8"


def test_bad_id_answers_400(served, world):
    assert_ours(world.retry(served, "42"), 400)


@pytest.mark.parametrize("bearer", [
    None, "", "Bearer", "Basic eDp5", "Bearer pk_live_" + "0" * 64, "Bearer a, Bearer b", "Bearer " + "x" * 7000],
    ids=["none", "empty", "no-token", "basic", "unknown", "two", "long"])
def test_no_good_key_answers_401(served, world, bearer):
    account = world.add_account()
    answer = served.request("PATCH", ROUTE.format(account), {} if bearer is None else {"Authorization": bearer})
    assert_ours(answer, 401, www_authenticate="Bearer")
    assert untouched(world, account)


def test_scheme_may_be_in_any_case_and_spaced(served, world):
    account = world.add_account()
    answer = served.request("PATCH", ROUTE.format(account), {"Authorization": f"bEARER   {world.key}"})
    assert_ours(answer, 200)


def test_other_names_of_the_header_do_not_count(served, world):
    account = world.add_account()
    answer = served.request("PATCH", ROUTE.format(account), {
        "Redirect-Http-Authorization": f"Bearer {world.key}", "Http-Authorization": f"Bearer {world.key}"})
    assert_ours(answer, 401)
    assert untouched(world, account)


def test_absent_account_answers_404(served, world):
    assert_ours(world.retry(served, uuid.uuid4()), 404)


def test_other_method_answers_405(served, world):
    answer = served.request("POST", ROUTE.format(uuid.uuid4()), world.bearer())
    assert_ours(answer, 405, allow="PATCH, OPTIONS")


def test_options_answers_204_with_allow(served):
    for path, allow in ((ROUTE.format(uuid.uuid4()), "PATCH, OPTIONS"), (served.health, "GET, HEAD, OPTIONS")):
        answer = served.request("OPTIONS", path)
        assert (answer.status, answer.body, answer.headers["allow"]) == (204, b"", allow)


def test_large_body_answers_413(served, world):
    assert_ours(world.retry(served, uuid.uuid4(), body=b"x" * (64 * KIB + 1)), 413)
    assert_ours(world.retry(served, uuid.uuid4(), body=b"x" * served.server.body_kib * KIB), 413)


def test_body_beyond_the_limit_of_the_server_is_refused(served, world):
    account = world.add_account()
    try:
        assert world.retry(served, account, body=b"x" * 2048 * KIB).status in (413, 500)  # 500: mod_fcgid
    except (ConnectionError, TimeoutError):
        pass  # refused while it was still being sent
    assert untouched(world, account)
    assert_ours(served.request("GET", served.health), 200)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_body_within_the_limit_is_dropped(served, world, chunked):
    account = world.add_account()
    answer = served.request("PATCH", ROUTE.format(account), world.bearer(), b'{"id":"x"}' * 6000, chunked=chunked)
    assert_ours(answer, 200)
    assert world.state(account) == WARMING


def test_large_header_is_refused_by_the_server(served, world):
    account = world.add_account()
    try:
        answer = world.retry(served, account, headers={"X-Large": "x" * 20 * KIB})
        assert answer.status in (400, 431)
    except ConnectionError:
        pass
    assert untouched(world, account)


def test_refusal_by_instantly_answers_502(served, world):
    account = world.add_account("rate-limited")
    answer = assert_ours(world.retry(served, account), 502, retry_after="7")
    assert answer.error["details"] == {"upstream_status": 429, "reason": "refused"}
    assert world.state(account) == STUCK


def test_shut_database_answers_503_and_recovers(served, world):
    account = world.add_account()
    administrator = world.postgres.connect()
    cursor = administrator.cursor()
    cursor.execute("ALTER DATABASE hosts ALLOW_CONNECTIONS false")
    try:
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                       " WHERE datname = 'hosts' AND usename = 'warmup'")
        assert_ours(world.retry(served, account), 503, retry_after="5")
        answer = served.request("GET", served.health)
        assert (answer.status, answer.body) == (503, b'{"status":"unavailable"}')
    finally:
        cursor.execute("ALTER DATABASE hosts ALLOW_CONNECTIONS true")
        administrator.close()
    assert untouched(world, account)
    assert_ours(world.retry(served, account), 200)


# --- what must not make a difference -------------------------------------------------------------

@pytest.mark.parametrize("query", ["?a=b", "?--help", "?-c+/etc/passwd", "?"])
def test_query_means_nothing(served, query):
    assert_ours(served.request("GET", served.health + query), 200)


def test_two_requests_on_one_connection(served, world):
    connection = http.client.HTTPConnection("127.0.0.1", served.server.port, timeout=40)
    for _ in range(2):
        answer = served.on(connection, "PATCH", ROUTE.format(uuid.uuid4()), world.bearer())
        assert_ours(answer, 404)
    connection.close()


def test_six_callers_at_once_move_the_row_once(served, world):
    account = world.add_account()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: world.retry(served, account), range(6)))
    assert sorted(answer.status for answer in answers) == [200] + [409] * 5
    assert world.state(account) == WARMING


# --- the site beside it --------------------------------------------------------------------------

def test_site_beside_it_is_untouched(served):
    mark = served.server.mark
    for path, text in (("/index.html", "index"), ("/api/other.txt", "other")):
        answer = served.request("GET", path)
        assert (answer.status, answer.body.decode()) == (200, f"{text} {mark}\n")
    answer = served.request("GET", "/missing")
    assert (answer.status, answer.body.decode()) == (404, f"error page {mark}\n")
    if served.server.mount == "/api":
        assert served.request("GET", "/healthz").body.decode() == f"health of the site {mark}\n"
        assert served.request("PATCH", "/healthz").headers.get("allow") != "GET, HEAD, OPTIONS"


def test_paths_that_only_look_alike_are_the_sites(served, world):
    account = world.add_account()
    path = ROUTE.format(account)
    for other in (path + "/", path + "x", path + "/more", "/x" + path, "/apix" + path.removeprefix("/api"),
                  path.replace("/email", "/email/x"), path.upper(), path + "%0a", path + "%2f", "/api" + path,
                  path.replace("/retry", "%2fretry") + "%2f", "/warmup.fcgi", "/warmup.conf"):
        answer = served.request("PATCH", other, world.bearer())
        assert answer.status in (200, 400, 403, 404, 405), other
        assert b'"account"' not in answer.body, other
    assert untouched(world, account)


def test_nobody_else_may_write_to_the_socket(served):
    sockets = [path for path in served.server.run.rglob("*") if path.is_socket()]
    for path in sockets:
        assert not path.stat().st_mode & stat.S_IWOTH, path
    if served.server.external:
        assert stat.S_IMODE(served.server.socket_path.stat().st_mode) == 0o660


# --- the samples themselves ----------------------------------------------------------------------

def test_every_sample_is_tried():
    found = {str(path.relative_to(hosts.SAMPLES)) for path in hosts.SAMPLES.rglob("*")
             if path.name.endswith((".conf", ".htaccess"))}
    assert found == set(hosts.HOSTS)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_finds_little_to_say_about_the_units(tmp_path, build):
    for source in (hosts.SAMPLES / "systemd").iterdir():
        text = source.read_text().replace("/usr/local/lib/warmup", str(build))
        (tmp_path / source.name).write_text(re.sub(r"(?m)^Documentation=.*\n", "", text))
    units = [tmp_path / "warmup.socket", tmp_path / "warmup.service"]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
    assert "warmup" not in done.stdout + done.stderr, done
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", units[1]], capture_output=True, text=True)
    assert float(re.search(r"exposure level for \S+ (\S+)", done.stdout)[1]) <= 1.5


def test_slowest_answer_is_waited_for(build, run_folder, world):
    """All servers at once: with the default settings an answer may take 22 s."""
    started = []
    account = world.add_account()
    held = world.sandbox.hold(world.address(account))
    try:
        for sample in hosts.HOSTS:
            folder = run_folder / f"host-{secrets.token_hex(4)}"
            settings = world.settings(WARMUP_UPSTREAM_TIMEOUT_MS=SLOWEST_SECONDS * 1000)
            started.append(hosts.HOSTS[sample](folder, build / "warmup.fcgi", settings).start())
        with concurrent.futures.ThreadPoolExecutor(len(started)) as pool:
            answers = list(pool.map(lambda server: world.retry(Client(server), account), started))
    finally:
        held.release()
        for server in started:
            server.stop()
    for answer in answers:
        assert_ours(answer, 502, retry_after="5")
        assert answer.error["details"] == {"reason": "timeout"}


@pytest.mark.parametrize("sample", [sample for sample in hosts.HOSTS if sample.startswith(("apache", "shared"))])
def test_apache_without_its_line_for_the_key_answers_a_clean_401(build, run_folder, world, sample):
    def forget(text):
        changed = re.sub(r"(?m)^\s*(CGIPassAuth|SetEnvIf Authorization).*\n", "", text)
        assert changed != text or not text.count("Authorization")
        return changed

    server = hosts.HOSTS[sample](run_folder / f"host-{secrets.token_hex(4)}", build / "warmup.fcgi",
                                   world.settings(), edit=forget)
    with server:
        account = world.add_account()
        assert_ours(world.retry(Client(server), account), 401, www_authenticate="Bearer")
        assert untouched(world, account)

"""How the path is found, whatever the web server calls it; and what of the environment must not matter."""

import contextlib
import secrets
import socket
import subprocess
import threading
import uuid

import pytest

import stack
from conftest import ROUTE, SANITIZER_VARIABLES, STUCK, WARMING, check_log
from test_errors import (ABSENT, NO_ROUTE, UUID4, Gateway, Repeated, assert_error, assert_no_account,
                         gateway, module_gateway)  # noqa: F401

PATH = ROUTE.format(ABSENT)
BELOW_API = PATH.removeprefix("/api")
REDIRECTED = {"REDIRECT_URL": PATH, "REDIRECT_STATUS": "200"}

# What each web server and way to mount it was seen to set; "absent" is a variable that is not there.
HOSTS = {
    "lighttpd-fastcgi-api": {"SCRIPT_NAME": "/api", "PATH_INFO": BELOW_API, "REQUEST_URI": PATH, "CONTENT_LENGTH": "0",
                             "REDIRECT_STATUS": "200"},
    "lighttpd-fastcgi-root": {"SCRIPT_NAME": "", "PATH_INFO": PATH, "REQUEST_URI": PATH, "CONTENT_LENGTH": "0"},
    "lighttpd-fastcgi-api-email": {"SCRIPT_NAME": "/api/email", "PATH_INFO": PATH.removeprefix("/api/email"),
                                   "REQUEST_URI": PATH, "CONTENT_LENGTH": "0"},
    "apache-fcgid-api": {"SCRIPT_NAME": "/api", "PATH_INFO": BELOW_API, "REQUEST_URI": PATH, "CONTENT_LENGTH": "0"},
    "apache-proxy": {"SCRIPT_NAME": PATH, "REQUEST_URI": PATH},
    "apache-proxy-sethandler": {"SCRIPT_NAME": "/api", "PATH_INFO": BELOW_API, "REQUEST_URI": PATH},
    "apache-cgid-api": {"SCRIPT_NAME": "/api", "PATH_INFO": BELOW_API, "REQUEST_URI": PATH,
                        "GATEWAY_INTERFACE": "CGI/1.1"},
    "apache-cgid-root": {"SCRIPT_NAME": "", "PATH_INFO": PATH, "REQUEST_URI": PATH, "GATEWAY_INTERFACE": "CGI/1.1"},
    "htaccess-index": {"SCRIPT_NAME": "/api/index.cgi", "REQUEST_URI": PATH, **REDIRECTED},
    "htaccess-index-path": {"SCRIPT_NAME": "/api/index.cgi", "PATH_INFO": BELOW_API, "REQUEST_URI": PATH, **REDIRECTED},
    "htaccess-index-fcgi-path": {"SCRIPT_NAME": "/api/index.fcgi", "PATH_INFO": BELOW_API, "REQUEST_URI": PATH,
                                 "CONTENT_LENGTH": "0", **REDIRECTED},
    "htaccess-in-the-root": {"SCRIPT_NAME": "/index.cgi", "PATH_INFO": PATH, "REQUEST_URI": PATH, **REDIRECTED},
    "nginx": {"SCRIPT_NAME": PATH, "REQUEST_URI": PATH, "CONTENT_LENGTH": "", "REDIRECT_STATUS": "200"},
    "nginx-split": {"SCRIPT_NAME": "/api", "PATH_INFO": BELOW_API, "REQUEST_URI": PATH, "CONTENT_LENGTH": ""},
    "cgi-bin": {"SCRIPT_NAME": "/cgi-bin/warmup.cgi", "PATH_INFO": PATH, "REQUEST_URI": "/cgi-bin/warmup.cgi" + PATH},
    "cgi-bin-api": {"SCRIPT_NAME": "/cgi-bin/api", "PATH_INFO": PATH, "REQUEST_URI": "/cgi-bin/api" + PATH},
    "script": {"PATH_INFO": PATH},
    "script-empty-name": {"SCRIPT_NAME": "", "PATH_INFO": PATH},
    "mount-with-a-slash": {"SCRIPT_NAME": "/api/", "PATH_INFO": BELOW_API, "REQUEST_URI": PATH},
    "only-uri": {"REQUEST_URI": PATH},
    "empty-path-info": {"SCRIPT_NAME": "/api/index.cgi", "PATH_INFO": "", "REQUEST_URI": PATH},
    "empty-everything-but-uri": {"SCRIPT_NAME": "", "PATH_INFO": "", "REQUEST_URI": PATH},
    "uri-with-query": {"SCRIPT_NAME": "/api/index.cgi", "REQUEST_URI": PATH + "?a=b/c&d", "QUERY_STRING": "a=b/c&d"},
    "uri-with-empty-query": {"REQUEST_URI": PATH + "?"},
    "uri-with-two-question-marks": {"REQUEST_URI": PATH + "??x"},
    "uri-with-an-address-in-the-query": {"REQUEST_URI": PATH + "?next=http://x/y"},
    "absolute-uri": {"REQUEST_URI": "http://example.com" + PATH},
    "absolute-uri-port-query": {"REQUEST_URI": f"https://example.com:8443{PATH}?x"},
    "absolute-uri-beside-path": {"SCRIPT_NAME": "/api", "PATH_INFO": BELOW_API,
                                 "REQUEST_URI": "http://example.com" + PATH},
    "other-uri-beside-path": {"SCRIPT_NAME": "/api", "PATH_INFO": BELOW_API, "REQUEST_URI": "/nowhere"},
    "raw-uri-beside-path": {"SCRIPT_NAME": "/api", "PATH_INFO": BELOW_API,
                            "REQUEST_URI": "//api/x/..//email/%61ccounts/" + ABSENT + "/retry-warmup"},
    "query-beside-path": {"PATH_INFO": PATH, "QUERY_STRING": "id=" + ABSENT, "REQUEST_URI": PATH + "?id=" + ABSENT},
    "hostile-translated": {"PATH_INFO": PATH, "PATH_TRANSLATED": "/etc/passwd", "SCRIPT_FILENAME": "/etc/passwd",
                           "DOCUMENT_ROOT": "/"},
}
NOWHERE = {
    "nothing": {},
    "empty": {"SCRIPT_NAME": "", "PATH_INFO": "", "REQUEST_URI": ""},
    "near-mount": {"SCRIPT_NAME": "/apix", "PATH_INFO": BELOW_API, "REQUEST_URI": "/apix" + BELOW_API},
    "near-mount-whole": {"SCRIPT_NAME": "/apix" + BELOW_API, "REQUEST_URI": "/apix" + BELOW_API},
    "other-mount": {"SCRIPT_NAME": "/v2", "PATH_INFO": BELOW_API, "REQUEST_URI": "/v2" + BELOW_API},
    "mount-alone": {"SCRIPT_NAME": "/api", "PATH_INFO": "", "REQUEST_URI": "/api"},
    "mount-slash": {"SCRIPT_NAME": "/api", "PATH_INFO": "/", "REQUEST_URI": "/api/"},
    "trailing-slash": {"SCRIPT_NAME": "/api", "PATH_INFO": BELOW_API + "/", "REQUEST_URI": PATH + "/"},
    # As nginx and Apache's ProxyPass describe them.
    "trailing-slash-in-script": {"SCRIPT_NAME": PATH + "/", "REQUEST_URI": PATH + "/"},
    "extra-segment-in-script": {"SCRIPT_NAME": PATH + "/more", "REQUEST_URI": PATH + "/more"},
    "two-extra-segments-in-script": {"SCRIPT_NAME": PATH + "/more/x", "REQUEST_URI": PATH + "/more/x"},
    "below-health": {"SCRIPT_NAME": "/healthz/x", "REQUEST_URI": "/healthz/x"},
    "trailing-slash-in-uri": {"REQUEST_URI": PATH + "/"},
    "trailing-slash-before-query": {"REQUEST_URI": PATH + "/?x"},
    "extra-segment": {"PATH_INFO": PATH + "/x"},
    "extra-segment-before": {"PATH_INFO": "/x" + PATH},
    "double-slash-first": {"PATH_INFO": "/" + PATH},
    "double-slash-inside": {"PATH_INFO": PATH.replace("/email", "//email")},
    "no-slash-first": {"PATH_INFO": PATH[1:]},
    "no-slash-at-the-seam": {"SCRIPT_NAME": "/api", "PATH_INFO": BELOW_API[1:]},
    "dots": {"PATH_INFO": PATH.replace("/email", "/x/../email")},
    "one-dot": {"PATH_INFO": PATH.replace("/email", "/./email")},
    "upper-case": {"PATH_INFO": PATH.upper()},
    "capital": {"PATH_INFO": PATH.replace("api", "Api")},
    "backslashes": {"PATH_INFO": PATH.replace("/", "\\")},
    "semicolon": {"PATH_INFO": PATH + ";x"},
    "query-in-path": {"PATH_INFO": PATH + "?x"},
    "fragment": {"REQUEST_URI": PATH + "#x"},
    "line-feed": {"PATH_INFO": PATH + "\n"},
    "space": {"PATH_INFO": PATH + " "},
    "space-first": {"PATH_INFO": " " + PATH},
    # Raw escapes are never decoded here: a server's access rules saw the decoded path.
    "escaped-letter-in-uri": {"REQUEST_URI": PATH.replace("accounts", "%61ccounts")},
    "escaped-slash-in-uri": {"REQUEST_URI": PATH.replace("/retry", "%2Fretry")},
    "escaped-dots-in-uri": {"REQUEST_URI": PATH.replace("/email", "/x/%2e%2e/email")},
    "double-slash-in-uri": {"REQUEST_URI": "/" + PATH},
    "double-slash-inside-uri": {"REQUEST_URI": PATH.replace("/email", "//email")},
    "dots-in-uri": {"REQUEST_URI": PATH.replace("/email", "/x/../email")},
    # What the server decoded counts, even if the raw one would be a route.
    "uri-beside-other-path": {"SCRIPT_NAME": "/api", "PATH_INFO": "/other", "REQUEST_URI": PATH},
    "uri-beside-slash": {"SCRIPT_NAME": "/api/index.cgi", "PATH_INFO": "/", "REQUEST_URI": PATH},
    "absolute-uri-without-path": {"REQUEST_URI": "http://example.com"},
    "absolute-uri-in-the-query": {"REQUEST_URI": "x?http://example.com" + PATH},
    "no-scheme-before-the-host": {"REQUEST_URI": "x/y://example.com" + PATH},
    "absolute-uri-in-path-info": {"PATH_INFO": "http://example.com" + PATH},
    "path-in-redirect-url": {"REDIRECT_URL": PATH},
    "path-in-query": {"QUERY_STRING": PATH},
    "path-in-translated": {"PATH_TRANSLATED": PATH, "SCRIPT_FILENAME": PATH, "DOCUMENT_URI": PATH},
    "path-in-a-header": {"HTTP_X_ORIGINAL_URL": PATH, "HTTP_X_REWRITE_URL": PATH, "HTTP_PATH_INFO": PATH,
                         "HTTP_REQUEST_URI": PATH},
    "two-segments-taken-off": {"SCRIPT_NAME": "/api/x/index.cgi", "PATH_INFO": BELOW_API, "REQUEST_URI": "/"},
    "asterisk": {"REQUEST_URI": "*"},
    "very-long-path": {"PATH_INFO": "/api" + "/x" * 50_000},
    "very-long-script": {"SCRIPT_NAME": "/x" * 50_000, "PATH_INFO": "/y"},
    "very-long-uri": {"REQUEST_URI": PATH + "x" * 100_000},
    "very-long-id": {"PATH_INFO": ROUTE.format("1" * 100_000)},
}


def patch(gateway, key, variables, **options):  # noqa: F811
    return gateway.ask({"REQUEST_METHOD": "PATCH", "HTTP_AUTHORIZATION": f"Bearer {key}", **variables}, **options)


@pytest.mark.parametrize("name", HOSTS)
def test_every_host_leads_to_the_route(gateway, world, name):  # noqa: F811
    assert_no_account(patch(gateway, world.key, HOSTS[name]))


@pytest.mark.parametrize("name", NOWHERE)
def test_anything_else_is_no_route(gateway, world, name):  # noqa: F811
    assert_error(patch(gateway, world.key, NOWHERE[name]), 404, "not_found", NO_ROUTE)


@pytest.mark.parametrize("name", ["lighttpd-fastcgi-api", "apache-proxy", "htaccess-index", "htaccess-index-path",
                                  "cgi-bin", "script", "absolute-uri"])
def test_account_is_moved_through_every_kind_of_host(gateway, world, name):  # noqa: F811
    account = world.add_account()
    answer = patch(gateway, world.key, {variable: value.replace(ABSENT, account)
                                        for variable, value in HOSTS[name].items()})
    assert (answer.status, answer.json["account"]["id"], world.state(account)) == (200, account, WARMING)


@pytest.mark.parametrize("mount", [
    {"SCRIPT_NAME": "", "PATH_INFO": "/healthz"}, {"SCRIPT_NAME": "/healthz"}, {"PATH_INFO": "/healthz"},
    {"SCRIPT_NAME": "/cgi-bin/warmup.cgi", "PATH_INFO": "/healthz"}, {"SCRIPT_NAME": "/api", "PATH_INFO": "/healthz"},
    {"SCRIPT_NAME": "/index.cgi", "REQUEST_URI": "/healthz?x"}, {"REQUEST_URI": "/healthz"}])
def test_health_is_found_in_the_same_ways(gateway, mount):  # noqa: F811
    answer = gateway.ask({"REQUEST_METHOD": "GET", **mount})
    assert (answer.status, answer.body) == (200, b'{"status":"ok"}')


def test_first_known_route_counts(gateway, world):  # noqa: F811
    """SCRIPT_NAME and PATH_INFO together, before PATH_INFO alone, before REQUEST_URI."""
    other = world.add_account(state=("active", "active"))
    assert_no_account(patch(gateway, world.key, {"SCRIPT_NAME": PATH, "REQUEST_URI": ROUTE.format(other)}))
    assert patch(gateway, world.key, {"SCRIPT_NAME": "/api", "PATH_INFO": ROUTE.format(other).removeprefix("/api"),
                                      "REQUEST_URI": PATH}).status == 409
    assert patch(gateway, world.key, {"SCRIPT_NAME": PATH, "PATH_INFO": ROUTE.format(other)}).status == 409


def test_escape_in_the_id_of_a_raw_path_is_no_digit(gateway, world):  # noqa: F811
    account = world.add_account()
    answer = patch(gateway, world.key, {"REQUEST_URI": ROUTE.format(f"%{ord(account[0]):02x}{account[1:]}")})
    assert (answer.status, answer.error["code"], world.enables(account)) == (400, "invalid_request", 0)


@pytest.mark.parametrize("query", ["?", "?x", "?a=b&c=d", "?id=" + ABSENT, "?/", "?" + "x" * 2000, "?-s", "?--help",
                                   "?%2500", "?\"<>"], ids=lambda query: query[:12])
def test_query_is_never_part_of_the_path(host, world, query):
    assert_no_account(host.request("PATCH", PATH + query, world.bearer()))


@pytest.mark.parametrize("path, found", [
    ("//api/email/accounts/{}/retry-warmup", True), ("/api/x/../email/accounts/{}/retry-warmup", True),
    ("/api/./email/accounts/{}/retry-warmup", True), ("/%61pi/email/accounts/{}/retry-warmup", True),
    ("/api/email/accounts/{}/retry-warmup/", False), ("/api/email/accounts/{}/retry-warmup/.", False),
    ("/api/email/accounts/{}/retry-warmup%2F", False), ("/api/email%2Faccounts/{}%2Fretry-warmup", True),
    ("/api/email/accounts/{}/retry-warmup;x", False), ("/api/email/accounts/{}/retry-warmup%3Fx", False),
    ("/api/email/accounts/{}/retry-warmup%20", False), ("/apix/email/accounts/{}/retry-warmup", False)])
def test_path_counts_as_lighttpd_normalized_it(shared_hosts, world, path, found):
    answer = shared_hosts["fastcgi"].request("PATCH", path.format(ABSENT), world.bearer())
    if found:
        assert_no_account(answer)
    else:
        assert_error(answer, 404, "not_found", NO_ROUTE)


@pytest.mark.parametrize("mount, path", [("/api", PATH), ("/api", "/apix" + BELOW_API), ("/api/", PATH)],
                         ids=["mount", "near-mount", "mount-with-a-slash"])
def test_below_a_mount_of_lighttpd(build, run_folder, world, mount, path):
    """Its "/api" is a plain prefix, so /apix comes through, too."""
    with stack.Lighttpd(run_folder / f"lighttpd-{secrets.token_hex(4)}", build / "warmup.fcgi", world.settings(),
                        mount=mount, variables=SANITIZER_VARIABLES) as server:
        with contextlib.closing(socket.create_connection(("127.0.0.1", server.port), timeout=20)) as client:
            client.sendall(f"PATCH {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                           f"Authorization: Bearer {world.key}\r\n\r\n".encode())
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert (b"No such email account" if path == PATH else b"No such route") in answer
        check_log(server, world.secrets)


# --- what must not matter ------------------------------------------------------------------------

@pytest.mark.parametrize("arguments", [
    ["--help"], ["-c", "/etc/passwd"], ["-s"], ["--version"], ["-"], ["--"], ["check"], ["migrate", "--role"], ["%s%n"],
    [""] * 3, ["x" * 100_000]], ids=lambda arguments: "_".join(arguments)[:20] or "empty")
def test_command_line_is_never_read(build, run_folder, world, arguments):
    """As CGI, some servers make arguments out of a query."""
    cgi = Gateway("cgi", build / "warmup.fcgi", run_folder, world.settings())
    assert_no_account(patch(cgi, world.key, {"PATH_INFO": PATH}, arguments=arguments))
    check_log(cgi, world.secrets)


@pytest.mark.parametrize("arguments", [["--help"], ["-s", "/tmp/x.sock"]])
def test_command_line_is_not_read_as_fastcgi_either(build, run_folder, world, arguments):
    server = stack.Responder(run_folder / f"responder-{secrets.token_hex(4)}",
                             [build / "warmup.fcgi", *arguments], {**SANITIZER_VARIABLES, **world.settings()})
    with server:
        answer = stack.fcgi_request(server.socket_path, {
            "REQUEST_METHOD": "PATCH", "PATH_INFO": PATH, "HTTP_AUTHORIZATION": f"Bearer {world.key}"})
        assert b"No such email account" in answer.stdout
        check_log(server, world.secrets)


@pytest.mark.parametrize("pairs, status", [
    ([("PATH_INFO", PATH), ("PATH_INFO", "/nowhere")], 404),
    ([("PATH_INFO", "/nowhere"), ("PATH_INFO", PATH)], 404),
    ([("HTTP_AUTHORIZATION", "bad"), ("PATH_INFO", PATH)], 401),
    ([("REQUEST_METHOD", "PATCH"), ("REQUEST_METHOD", "GET"), ("PATH_INFO", PATH)], 404)],
    ids=["path-first", "path-second", "key-second", "method"])
def test_first_of_several_with_one_name_counts(gateway, world, pairs, status):  # noqa: F811
    """Some servers send X-A and X_A under one name."""
    answer = gateway.ask(Repeated([*pairs, ("REQUEST_METHOD", "PATCH"), ("HTTP_AUTHORIZATION", f"Bearer {world.key}")]))
    assert answer.status == status
    if status == 404:
        assert answer.error["message"] == (NO_ROUTE if pairs[0][1] == "/nowhere" else "No such email account")


def test_names_that_only_begin_alike_are_others(gateway, world):  # noqa: F811
    answer = patch(gateway, world.key, {
        "PATH_INFO": PATH, "PATH_INFO_": "/nowhere", "PATH_INF": "/nowhere", "SCRIPT_NAME_": "/x",
        "REQUEST_METHOD_": "GET", "REQUEST_METHO": "GET", "CONTENT_LENGTH_": "-1", "CONTENT_LENGT": "-1",
        "path_info": "/nowhere", "HTTP_X_REQUEST_ID_": "mine", "HTTP_X_REQUEST": "mine"})
    assert_no_account(answer)
    assert UUID4.fullmatch(answer.headers["x-request-id"])


@pytest.mark.parametrize("environment", [{}, {"GATEWAY_INTERFACE": "CGI/1.1"}, {"PATH_INFO": "/healthz"}],
                         ids=["empty", "cgi-without-method", "path-only"])
@pytest.mark.parametrize("arguments", [[], ["--help"]], ids=["plain", "help"])
@pytest.mark.parametrize("stdin", [subprocess.PIPE, subprocess.DEVNULL], ids=["pipe", "null"])
def test_without_a_request_it_says_so_and_exits_64(build, environment, arguments, stdin):
    done = subprocess.run([build / "warmup.fcgi", *arguments], env={**SANITIZER_VARIABLES, **environment}, timeout=20,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
                          **({"input": b""} if stdin == subprocess.PIPE else {"stdin": stdin}))
    assert (done.returncode, done.stdout) == (64, b"")
    assert done.stderr.count(b"\n") == 1 and done.stderr.startswith(b"warmup.fcgi: ") and done.stderr.endswith(b"\n")


def test_settings_are_not_taken_from_fastcgi_variables(gateway, world):  # noqa: F811
    if gateway.kind == "cgi":
        pytest.skip("as plain CGI the environment is both")
    account = world.add_account()
    answer = patch(gateway, world.key, {
        "PATH_INFO": ROUTE.format(account), "DATABASE_URL": "postgresql://127.0.0.1:1/x", "INSTANTLY_API_KEY": "other",
        "INSTANTLY_API_URL": "http://127.0.0.1:1", "WARMUP_CONFIG": "/etc/passwd", "WARMUP_NO_SUCH": "1",
        "PGHOST": "127.0.0.1", "PGPORT": "1"})
    assert (answer.status, world.state(account)) == (200, WARMING)


@pytest.mark.parametrize("name", ["Database-Url", "Instantly-Api-Url", "Warmup-Config", "Warmup-Workers", "Path-Info",
                                  "Script-Name", "Request-Method", "Content-Length-", "Pghost"])
def test_no_header_is_a_setting_or_a_variable(host, world, name):
    """A header's variable begins with HTTP_."""
    assert_no_account(host.request("PATCH", PATH, {**world.bearer(), name: "http://127.0.0.1:1/nowhere"}))


# --- proxies -------------------------------------------------------------------------------------

class Listener:
    """A port that accepts and records."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.seen = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection = self.socket.accept()[0]
                self.seen.append(connection.recv(65536))
                connection.close()


@pytest.fixture
def listener():
    listener = Listener()
    yield listener
    listener.socket.shutdown(socket.SHUT_RDWR)
    listener.socket.close()


def test_proxy_listener_would_see_a_call(listener):
    """That the cases below can fail."""
    with contextlib.closing(socket.create_connection(listener.socket.getsockname())) as client:
        client.sendall(b"CONNECT")
        client.shutdown(socket.SHUT_WR)
        client.recv(1)
    assert listener.seen == [b"CONNECT"]


PROXIES = ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "HTTP_PROXY", "CURL_PROXY",
           "socks_proxy", "PROXY", "ftp_proxy")


@pytest.mark.parametrize("kind", ["cgi", "fastcgi"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxies_of_the_environment_are_ignored(build, run_folder, world, listener, kind, scheme):
    """Over http a proxy would see our key, over https it would be asked for a tunnel."""
    hostile = {name: listener.url for name in PROXIES} | {"no_proxy": "", "NO_PROXY": ""}
    if scheme == "https":
        hostile["INSTANTLY_API_URL"] = f"https://127.0.0.1:{stack.free_port()}"
    account = world.add_account()
    server = Gateway(kind, build / "warmup.fcgi", run_folder / f"gateway-{secrets.token_hex(4)}",
                     world.settings(WARMUP_JOB_WAIT_MS=0, **hostile))
    answer = server.retry(account, world.key)
    assert server.stop()
    check_log(server, world.secrets)
    assert listener.seen == []
    if scheme == "http":
        assert (answer.status, world.enables(account), world.state(account)) == (200, 1, WARMING)
    else:
        assert (answer.status, answer.error["details"]["reason"]) == (502, "unreachable")
        assert world.state(account) == STUCK


def test_proxy_header_has_no_effect(host, world, listener):
    account = world.add_account()
    answer = world.retry(host, account, headers={"Proxy": listener.url, "Http-Proxy": listener.url,
                                                 "X-Request-Id": uuid.uuid4().hex})
    assert (answer.status, world.enables(account), listener.seen) == (200, 1, [])

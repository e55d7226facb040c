"""What the cases stand on: a private PostgreSQL, the sandbox Instantly, and the responder, asked as plain CGI and as
FastCGI behind lighttpd.

A case states the row before, the request, what Instantly replies; then the exact answer, the row after, and what
Instantly saw. After every case the responder's log is searched for secrets and for sanitizer reports.

    pytest tests/cases [--build DIR]        DIR holds the programs, default build
"""

import dataclasses
import hashlib
import http.client
import json
import os
import pathlib
import secrets
import shutil
import subprocess
import sys
import time
import uuid

import pytest

TOP = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP / "tests"))
sys.dont_write_bytecode = True

import stack  # noqa: E402
from sandbox.instantly import Sandbox  # noqa: E402

STUCK = ("pending", "not_started")
WARMING = ("warming", "warming")
ROUTE = "/api/email/accounts/{}/retry-warmup"

# The secrets and what they are for; none may appear in any log. Made anew for every run.
UPSTREAM_KEY = "instantly-" + secrets.token_hex(16)
DATABASE_PASSWORD = "p@ss'" + secrets.token_hex(8)
ADDRESS_MARK = "@mark-" + secrets.token_hex(4) + ".example"

# A run under sanitizers ends with their report on standard error.
SANITIZER_MARKS = ("Sanitizer", "runtime error:")
SANITIZER_VARIABLES = {name: value for name, value in os.environ.items() if name.endswith("SAN_OPTIONS")}


def pytest_addoption(parser):
    parser.addoption("--build", default="build", help="folder of the programs under test")


@dataclasses.dataclass
class Answer:
    status: int
    headers: dict  # by lower-case name; a repeated one is joined by ", "
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json["error"]


def as_answer(status, headers, body):
    by_name = {}
    for name, value in headers:
        name = name.lower()
        by_name[name] = f"{by_name[name]}, {value}" if name in by_name else value
    return Answer(status, by_name, body)


class Cgi:
    """Each request starts the program, as a web server does for plain CGI."""

    kind = "cgi"

    def __init__(self, binary, settings):
        self.binary, self.settings, self._log = binary, settings, ""

    def request(self, method, path, headers=(), body=b"", timeout=40, variables=None):
        environment = {**SANITIZER_VARIABLES, "GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": method,
                       "SCRIPT_NAME": "", "PATH_INFO": path.partition("?")[0],
                       "QUERY_STRING": path.partition("?")[2],
                       **{name: str(value) for name, value in self.settings.items()}}
        if body:
            environment["CONTENT_LENGTH"] = str(len(body))
        for name, value in dict(headers).items():
            environment["HTTP_" + name.upper().replace("-", "_")] = value
        environment.update(variables or {})
        answer = stack.run_cgi(self.binary, environment, body, timeout)
        self._log += answer.stderr
        assert answer.returncode == 0, answer
        return as_answer(answer.status, [header for header in answer.headers if header[0] != "Status"], answer.body)

    def log(self):
        return self._log

    def stop(self):
        return True


class Fcgi:
    """The program behind lighttpd, which spawned it."""

    kind = "fastcgi"

    def __init__(self, folder, binary, settings, **options):
        self.settings = settings
        self.server = stack.Lighttpd(folder, binary, settings, mount=options.pop("mount", "/"),
                                     variables=SANITIZER_VARIABLES, **options).start()

    def request(self, method, path, headers=(), body=b"", timeout=40):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=timeout)
        try:
            connection.request(method, path, body=body or None, headers=dict(headers))
            answer = connection.getresponse()
            got = as_answer(answer.status, answer.getheaders(), answer.read())
        finally:
            connection.close()
        for name in ("date", "server", "connection"):  # lighttpd's own
            got.headers.pop(name, None)
        return got

    def log(self):
        return self.server.log()

    def stop(self):
        return self.server.stop(graceful=True)


@pytest.fixture(scope="session")
def build(request):
    folder = (TOP / request.config.getoption("build")).resolve()
    assert (folder / "warmup.fcgi").exists(), f"{folder}/warmup.fcgi is missing: run make first"
    return folder


@pytest.fixture(scope="session")
def run_folder():
    """A folder of this run's own, below the project's ignored one."""
    folder = TOP / "build" / "tests" / f"{os.getpid()}-{secrets.token_hex(3)}"
    folder.mkdir(parents=True)
    yield folder
    if "WARMUP_KEEP" not in os.environ:
        shutil.rmtree(folder, ignore_errors=True)


def warmupctl(build, url, *arguments, status=0):
    """Run warmupctl and return what it printed."""
    done = subprocess.run([build / "warmupctl", *arguments], capture_output=True, text=True, timeout=60,
                          env={**SANITIZER_VARIABLES, "PATH": stack.PATH, "DATABASE_URL": url})
    assert done.returncode == status, done
    return done.stdout


@pytest.fixture(scope="session")
def postgres(run_folder):
    with stack.Postgres(run_folder / "postgres") as server:
        server.create_database("template_warmup")
        yield server


@pytest.fixture(scope="session")
def template(postgres, build):
    """The name of a database with the schema and the role, to make others from."""
    warmupctl(build, postgres.url("template_warmup"), "migrate", "--role")
    connection = postgres.connect("template_warmup")
    connection.cursor().execute("CREATE ROLE warmup LOGIN PASSWORD %s IN ROLE warmup_responder", (DATABASE_PASSWORD,))
    connection.close()
    return "template_warmup"


@pytest.fixture(scope="session")
def sandbox():
    with Sandbox(UPSTREAM_KEY) as server:
        server.job_seconds = 0.05  # done when it is first looked at, after 100 ms
        yield server


class World:
    """One database with its accounts and keys, seen as the administrator."""

    def __init__(self, postgres, name, sandbox):
        self.postgres, self.name, self.sandbox = postgres, name, sandbox
        self.connection = postgres.connect(name)
        self.secrets = [UPSTREAM_KEY, DATABASE_PASSWORD, ADDRESS_MARK]
        self.user = str(uuid.uuid4())
        self.key = self.add_key(self.user)

    def execute(self, text, *values):
        """Run SQL as the administrator; its rows, if it has any."""
        with self.connection.cursor() as cursor:
            cursor.execute(text, values)
            return cursor.fetchall() if cursor.description else None

    def settings(self, **changes):
        """The responder's settings; a value of None takes one out."""
        settings = {"DATABASE_URL": self.postgres.url(self.name, "warmup", DATABASE_PASSWORD),
                    "INSTANTLY_API_KEY": UPSTREAM_KEY, "INSTANTLY_API_URL": self.sandbox.url, **changes}
        return {name: value for name, value in settings.items() if value is not None}

    def add_key(self, user, key=None, revoked=False):
        key = key or "pk_live_" + secrets.token_hex(32)
        self.execute("INSERT INTO api_keys (user_id, key_hash, prefix, revoked_at) VALUES"
                     " (%s, %s, %s, CASE WHEN %s THEN now() END)",
                     user, hashlib.sha256(key.encode()).digest(), key[:24], revoked)
        self.secrets.append(key)
        return key

    def add_domain(self, user=None, domain="acme.com", status="verified"):
        return self.execute("INSERT INTO email_domains (user_id, domain, status) VALUES (%s, %s, %s) RETURNING id",
                            user or self.user, domain, status)[0][0]

    def add_account(self, behaviour="joe", state=STUCK, user=None, **columns):
        """A row; `behaviour` begins the address and so selects what the sandbox does. Gives its id."""
        row = {"id": str(uuid.uuid4()), "user_id": user or self.user, "type": "email",
               "email_address": f"{behaviour}+{secrets.token_hex(4)}{ADDRESS_MARK}", "status": state[0],
               "warmup_status": state[1], **columns}
        names = ", ".join(row)
        self.execute(f"INSERT INTO accounts ({names}) VALUES ({', '.join(['%s'] * len(row))})", *row.values())
        return row["id"]

    def account(self, account_id):
        """The row as a dictionary of texts."""
        return self.execute("SELECT to_jsonb(a) FROM accounts a WHERE id = %s", account_id)[0][0]

    def state(self, account_id):
        row = self.account(account_id)
        return row["status"], row["warmup_status"]

    def address(self, account_id):
        return self.account(account_id)["email_address"]

    def enables(self, account_id):
        """How often Instantly was asked for an account."""
        return len(self.sandbox.enables(self.address(account_id)))

    def bearer(self, key=None):
        return {"Authorization": f"Bearer {key or self.key}"}

    def retry(self, host, account_id, key=None, **options):
        return host.request("PATCH", ROUTE.format(account_id), {**self.bearer(key), **options.pop("headers", {})},
                            **options)


@pytest.fixture(scope="session")
def shared_world(postgres, template, sandbox):
    postgres.create_database("shared", template)
    return World(postgres, "shared", sandbox)


@pytest.fixture
def world(shared_world):
    """The database that cases share: each adds its own rows and looks at no others."""
    return shared_world


@pytest.fixture
def fresh_world(postgres, template, sandbox):
    """A database of the case's own, to break."""
    name = "fresh_" + secrets.token_hex(4)
    postgres.create_database(name, template)
    world = World(postgres, name, sandbox)
    yield world
    world.connection.close()
    administrator = postgres.connect()
    administrator.cursor().execute(f"DROP DATABASE {name} WITH (FORCE)")
    administrator.close()


def check_log(host, secrets_of_world, since=0):
    """The log since an offset: JSON lines only, no secret, no sanitizer report."""
    text = host.log()[since:]
    for mark in SANITIZER_MARKS:
        assert mark not in text, text[-5000:]
    for secret in secrets_of_world:
        assert secret not in text, "a secret is in the log"
    for line in text.splitlines():
        if line.startswith("{"):
            json.loads(line)
    return text


@pytest.fixture(scope="session")
def shared_hosts(build, run_folder, shared_world):
    hosts = {"cgi": Cgi(build / "warmup.fcgi", shared_world.settings()),
             "fastcgi": Fcgi(run_folder / "lighttpd", build / "warmup.fcgi", shared_world.settings())}
    yield hosts
    assert hosts["fastcgi"].stop(), "the responder did not end by itself"
    check_log(hosts["fastcgi"], shared_world.secrets)


@pytest.fixture(params=["cgi", "fastcgi"])
def host(request, shared_hosts, world):
    """The responder with default settings, both ways."""
    host = shared_hosts[request.param]
    since = len(host.log())
    yield host
    check_log(host, world.secrets, since)


@pytest.fixture(params=["cgi", "fastcgi"])
def serve(request, build, run_folder):
    """Starts the responder with other settings: serve(world, WARMUP_WORKERS=1)."""
    started = []

    def start(world, fcgi_options=None, **changes):
        settings = world.settings(**changes)
        if request.param == "cgi":
            host = Cgi(build / "warmup.fcgi", settings)
        else:
            folder = run_folder / f"lighttpd-{secrets.token_hex(4)}"
            host = Fcgi(folder, build / "warmup.fcgi", settings, **(fcgi_options or {}))
        started.append((host, world))
        return host

    start.kind = request.param
    yield start
    for host, world in started:
        assert host.stop(), "the responder did not end by itself"
        check_log(host, world.secrets)


@pytest.fixture
def responder(build, run_folder):
    """Starts the responder by itself, its socket on descriptor 0: responder(world, WARMUP_WORKERS=4)."""
    started = []

    def start(world, **changes):
        settings = {**SANITIZER_VARIABLES, **{name: str(value) for name, value in world.settings(**changes).items()}}
        server = stack.Responder(run_folder / f"responder-{secrets.token_hex(4)}", build / "warmup.fcgi", settings)
        started.append((server.start(), world))
        return server

    yield start
    for server, world in started:
        server.stop()
        check_log(server, world.secrets)


def wait_for(condition, seconds=10, what="the condition"):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about within {seconds} s"
        time.sleep(0.01)

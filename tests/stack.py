"""The private servers of the demo and of the tests: PostgreSQL, lighttpd, and the responder by itself.

Each is a class with start() and stop() and can be used in a `with` statement. Everything lives below the folder that is
given, listens on 127.0.0.1 or a socket in that folder only, and is stopped by its process id. So any number of copies
runs side by side, next to whatever else the machine does. When Python dies, even by kill -9, its servers die too.

Works as root and as any user, in folders with spaces, with very long paths, and which others cannot enter.
"""

import collections
import contextlib
import os
import pathlib
import random
import re
import secrets
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.parse

import psycopg2
from psycopg2 import sql

# Debian keeps servers in sbin, which is not on an ordinary user's PATH.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PORT_TRIES = 5


class Failed(RuntimeError):
    """A server did not start; the text ends with the end of its log."""


def free_port():
    """A TCP port of 127.0.0.1 that nobody uses now.

    It lies below the range from which the kernel serves outgoing connections: none of those can take it while its
    server is stopped for a moment.
    """
    end = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(100):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", random.randrange(10000, end) if end > 11000 else 0))
            return probe.getsockname()[1]
    raise Failed("no free TCP port")


def _processes(field, value):
    """The pids of the living whose "ppid" or "pgrp" is value."""
    column = {"ppid": 1, "pgrp": 2}[field]  # of /proc/PID/stat, after the name
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                # The name in parentheses may itself hold spaces and parentheses.
                fields = pathlib.Path("/proc", entry, "stat").read_text(errors="replace").rpartition(")")[2].split()
                if int(fields[column]) == value and fields[0] not in "ZX":
                    found.append(int(entry))
    return found


def descriptors(pid):
    """How many a process has. Where only root may count them, because it hides its memory: how many its table has room for,
    which grows with them in powers of two."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except PermissionError:
        return int(re.search(r"FDSize:\s*(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])


def wait_until(condition, seconds, pause=0.01):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
    return True


class Process:
    """A child in a session of its own, its output in a log file.

    `at_death` is the signal that the kernel sends it when the thread that started it ends, however that happens: so
    start servers in the main thread. setpriv arranges that, because a preexec_fn is not safe beside other threads;
    `privileges` are further options of setpriv.
    """

    def __init__(self, command, folder, log, environment=None, at_death="KILL", privileges=(), stdin=None, stdout=None):
        with open(log, "ab") as output:
            self._child = subprocess.Popen(
                ["/usr/bin/setpriv", "--pdeathsig", at_death, *privileges, "--", *map(str, command)],
                cwd=folder, env={"PATH": PATH} if environment is None else environment, start_new_session=True,
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=output if stdout is None else stdout, stderr=output)
        self.pid = self._child.pid

    @property
    def returncode(self):
        """As in subprocess; None until stop(), even if it has ended."""
        return self._child.returncode

    def alive(self):
        if self.returncode is not None:
            return False
        # Its status is not collected yet: until stop(), its pid and process group cannot become somebody else's.
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def wait(self, seconds):
        """Whether it ended by itself within that time."""
        return wait_until(lambda: not self.alive(), seconds)

    def send(self, number):
        if self.alive():
            os.kill(self.pid, number)

    def _tell_what_it_does(self):
        """Where each thread of each process of the group waits, to standard error: what else is there to go by?"""
        for pid in _processes("pgrp", self.pid):
            for task in pathlib.Path("/proc", str(pid), "task").glob("*"):
                with contextlib.suppress(OSError):
                    found = [(task / name).read_text(errors="replace").strip() for name in ("comm", "wchan", "syscall")]
                    print(f"process {pid} thread {task.name}:", *found, file=sys.stderr)

    def stop(self, number=signal.SIGTERM, patience=10):
        """Ask by a signal, wait, then kill it and what is left of its process group. Whether asking was enough."""
        if self.returncode is not None:
            return True
        deadline = time.monotonic() + patience
        self.send(number)
        self.send(signal.SIGCONT)  # a stopped process cannot obey
        obeyed = self.wait(patience) and wait_until(
            lambda: not _processes("pgrp", self.pid), deadline - time.monotonic())
        if not obeyed:
            self._tell_what_it_does()
        os.killpg(self.pid, signal.SIGKILL)
        self._child.wait()
        return obeyed


def as_account(name):
    """Options of setpriv to run as an account, for root; none for others.

    An account of Debian's cannot pass a folder such as /root; one capability lets it. Containers often lack the lesser.
    """
    if os.geteuid() != 0:
        return []
    options = [f"--reuid={name}", f"--regid={name}", "--clear-groups"]
    held = int(re.search(r"CapEff:\s*(\w+)", pathlib.Path("/proc/self/status").read_text())[1], 16)
    for number, capability in ((2, "dac_read_search"), (1, "dac_override")):
        if held >> number & 1:
            return options + [f"--inh-caps=+{capability}", f"--ambient-caps=+{capability}"]
    return options


class Server:
    """What the servers share: a folder, a process, start and stop, `with`."""

    name = "server"
    log_name = "error.log"

    def __init__(self, folder):
        self.folder = pathlib.Path(folder).resolve()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.process = None

    @property
    def pid(self):
        return self.process.pid

    def log(self):
        """What it wrote to its log so far."""
        file = self.folder / self.log_name
        return file.read_text(errors="replace") if file.exists() else ""

    def _write(self, name, text, mode=0o600):
        """Created with its mode: a secret is never readable by others, not even for a moment."""
        file = self.folder / name
        file.unlink(missing_ok=True)
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as output:
            output.write(text)
        return file

    def _failed(self, what):
        return Failed(f"{self.name}: {what}\n" + "\n".join(self.log().splitlines()[-15:]))

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()


class Postgres(Server):
    """A PostgreSQL cluster of its own: TCP on 127.0.0.1 only, a random password, tuned for short lives.

    `settings` are added to those below. The port stays the same over stop() and start().
    """

    name = "PostgreSQL"
    log_name = "postgres.log"
    user = "postgres"
    SETTINGS = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",  # a socket's path may have 107 bytes at most
        "dynamic_shared_memory_type": "mmap",  # inside the data folder, not in /dev/shm
        "max_connections": 100,
        "shared_buffers": "16MB",
        # A crash of the machine may take the data with it; a crash of the server (stop("immediate")) does not.
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "wal_level": "minimal",
        "max_wal_senders": 0,
        "jit": "off",
    }
    STOP = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}

    def __init__(self, folder, settings=None):
        super().__init__(folder)
        self.settings = {**self.SETTINGS, **(settings or {})}
        self.password = secrets.token_hex(16)
        self.port = None
        self._made = False
        versions = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: float(p.parts[4]))
        if not versions:
            raise Failed("PostgreSQL is not installed; run: deploy/packages demo")
        self._bin = versions[-1].parent

    def _run(self, *command):
        # An environment of our own: a PGDATA or PGOPTIONS of the caller's must not reach it.
        return Process(command, self.folder, self.folder / self.log_name, {"PATH": PATH, "LC_ALL": "C", "TZ": "UTC"},
                       privileges=as_account("postgres"))  # PostgreSQL refuses to be root

    def _initdb(self):
        data = self.folder / "data"
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir(mode=0o700)
        word = self._write("password", self.password + "\n")
        if os.geteuid() == 0:
            shutil.chown(data, "postgres", "postgres")
            shutil.chown(word, "postgres", "postgres")
        child = self._run(self._bin / "initdb", "--pgdata=data", f"--username={self.user}", "--pwfile=password",
                          "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions")
        ended = child.wait(60)
        child.stop()
        word.unlink()
        if not ended or child.returncode != 0:
            raise self._failed("initdb failed")
        self._made = True

    def start(self):
        if not self._made:
            self._initdb()
        for _ in range(PORT_TRIES):
            port = self.port or free_port()
            options = [f"-c{name}={value}" for name, value in {**self.settings, "port": port}.items()]
            self.process = self._run(self._bin / "postgres", "-D", "data", *options)
            if self._answers(port):
                self.port = port
                return self
            self.stop("immediate")
            time.sleep(0.2)  # after a kill -9, the sessions of the former server need a moment to notice
        raise self._failed("did not start")

    def _answers(self, port):
        """Whether it is up within 30 s. The password proves that it is ours and not another server on that port."""
        def settled():
            with contextlib.suppress(psycopg2.OperationalError):
                self._connect(port, "postgres").close()
                return True
            return not self.process.alive()

        return wait_until(settled, 30) and self.process.alive()

    def stop(self, mode="fast"):
        if self.process:
            self.process.stop(self.STOP[mode], 30)

    def restart(self, mode="fast"):
        self.stop(mode)
        return self.start()

    def pause(self):
        """No new connection is served from now on; open ones go on, each has a process of its own."""
        self.process.send(signal.SIGSTOP)

    def resume(self):
        self.process.send(signal.SIGCONT)

    def url(self, database="postgres", user=None, password=None):
        def quote(text):
            return urllib.parse.quote(text, safe="")
        return (f"postgresql://{quote(user or self.user)}:{quote(self.password if password is None else password)}"
                f"@127.0.0.1:{self.port}/{quote(database)}")

    def _connect(self, port, database):
        connection = psycopg2.connect(host="127.0.0.1", port=port, user=self.user, password=self.password,
                                      dbname=database, connect_timeout=10, sslmode="disable", gssencmode="disable")
        connection.autocommit = True
        return connection

    def connect(self, database="postgres"):
        """A psycopg2 connection of the superuser, in autocommit mode."""
        return self._connect(self.port, database)

    def create_database(self, name, template=None):
        """Return its url(). A template, while nobody is connected to it, is copied with all it holds."""
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
            sql.Identifier(name), sql.Identifier(template or "template1"))
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
        return self.url(name)


# In the form of systemd's EnvironmentFile: a plain value as it is, any other in double quotes with escapes.
PLAIN_VALUE = re.compile(r"[A-Za-z0-9_./:@%+,=?&~-]*")


def settings_text(environment):
    """The text of a settings file."""
    lines = []
    for name, value in environment.items():
        value = str(value)
        if "\n" in value:
            raise ValueError(f"{name}: a setting is one line")
        if not PLAIN_VALUE.fullmatch(value):
            value = '"' + re.sub(r'(["\\$`])', r"\\\1", value) + '"'
        lines.append(f"{name}={value}\n")
    return "".join(lines)


def _words(command):
    """A path, or a list of words whose paths are absolute: the working directory will be another one."""
    if isinstance(command, (str, os.PathLike)):
        return [str(pathlib.Path(command).resolve())]
    return [str(word) for word in command]


class Lighttpd(Server):
    """lighttpd with the responder behind it, spawned by lighttpd.

    `responder` is a path or a list of words. `environment` are the responder's settings, put into a file that only its
    owner can read; `variables` (say, ASAN_OPTIONS) go into its real environment. `port` is where to begin to look for a
    free one. `extra` is added to lighttpd.conf. start() cannot tell whether the responder likes its settings; see log()
    """

    name = "lighttpd"
    log_name = "error.log"
    # Names relative to the folder: a socket's path may have 107 bytes at most, and bin-path is cut at spaces. The
    # document root is an empty folder, since the settings and logs beside it are not for publication.
    CONF = """\
server.modules = ( "mod_fastcgi" )
server.bind = "127.0.0.1"
server.port = {port}
server.document-root = var.CWD + "/empty"
server.upload-dirs = ( "uploads" )
server.errorlog = "error.log"
fastcgi.server = ( "{mount}" => (( {root}
  "bin-path" => "./responder",
  "socket" => "app.sock",
  "max-procs" => {max_procs},
  "check-local" => "disable"
)) )
{extra}
"""

    def __init__(self, folder, responder, environment, mount="/api", max_procs=1, extra="", port=None, variables=None):
        super().__init__(folder)
        self.command = _words(responder)
        self.environment, self.variables = environment, variables or {}
        self.mount, self.max_procs, self.extra = mount, max_procs, extra
        self.wanted_port = port
        self.port = None

    @property
    def url(self):
        """Without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def responder_pids(self):
        return _processes("ppid", self.pid)

    def _write_files(self, port):
        for name in ("empty", "uploads"):
            (self.folder / name).mkdir(exist_ok=True)
        settings = self._write("settings", settings_text(self.environment))
        exports = "".join(f"export {name}={shlex.quote(str(value))}\n"
                          for name, value in {**self.variables, "WARMUP_CONFIG": settings}.items())
        self._write("responder", f"#!/bin/sh\n{exports}exec {shlex.join(self.command)}\n", 0o700)
        root = '"fix-root-scriptname" => "enable",' if self.mount == "/" else ""
        return self._write("lighttpd.conf", self.CONF.format(
            port=port, mount=self.mount, root=root, max_procs=self.max_procs, extra=self.extra))

    def _ports(self):
        if self.port is not None:
            return [self.port]
        if self.wanted_port is not None:
            return range(self.wanted_port, min(self.wanted_port + 100, 65536))
        return (free_port() for _ in range(PORT_TRIES))

    def start(self):
        binary = shutil.which("lighttpd", path=PATH)
        if not binary:
            raise Failed("lighttpd is not installed; run: deploy/packages demo")
        for port in self._ports():
            self._write_files(port)
            before = len(self.log())
            # At our death it gets the signal that it hands on to the responders, which are no children of ours.
            self.process = Process([binary, "-D", "-f", "lighttpd.conf"], self.folder, self.folder / self.log_name,
                                   at_death="TERM")

            def said(text):
                return text in self.log()[before:]

            wait_until(lambda: said("server started") or not self.process.alive(), 30)
            if self.process.alive():
                self.port = port
                return self
            self.stop()
            if not said("Address already in use"):
                break
        raise self._failed("did not start")

    def stop(self, graceful=False, patience=30):
        """Whether lighttpd and the responders all ended by themselves.

        Graceful lets requests in flight end first; otherwise lighttpd hangs up on them at once. The responders get
        SIGTERM either way, and from lighttpd never more than that.
        """
        if self.process is None:
            return True
        return self.process.stop(signal.SIGINT if graceful else signal.SIGTERM, patience)


def _at(path, use):
    """Call use() with a short name for a socket's path, which may have 107 bytes at most."""
    path = pathlib.Path(path)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        return use(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


class Responder(Server):
    """The responder by itself, its listening socket on descriptor 0, as spawn-fcgi and systemd start it.

    `environment` is its whole environment. start() cannot tell whether it likes that; ask process.alive().
    """

    name = "responder"

    def __init__(self, folder, binary, environment):
        super().__init__(folder)
        self.command, self.environment = _words(binary), environment

    @property
    def socket_path(self):
        return self.folder / "app.sock"

    def start(self):
        self.socket_path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            _at(self.socket_path, listener.bind)
            self.socket_path.chmod(0o600)
            listener.listen(1024)
            self.process = Process(self.command, self.folder, self.folder / self.log_name, self.environment,
                                   stdin=listener, stdout=subprocess.DEVNULL)
        return self

    def stop(self, patience=30):
        """Whether it ended by itself."""
        return self.process is None or self.process.stop(signal.SIGTERM, patience)


# The records of FastCGI 1.0, as far as a web server needs them.
FCGI_BEGIN, FCGI_ABORT, FCGI_END, FCGI_PARAMS, FCGI_STDIN, FCGI_STDOUT, FCGI_STDERR = range(1, 8)
FCGI_HEADER = struct.Struct("!BBHHBx")  # version, type, request, length of content and of padding
FCGI_KEEP_CONN = 1

FcgiAnswer = collections.namedtuple("FcgiAnswer", "stdout stderr app_status")
Answer = collections.namedtuple("Answer", "status headers body")
CgiAnswer = collections.namedtuple("CgiAnswer", "status headers body stderr returncode")


def fcgi_connect(path, timeout=30):
    """A connected socket; the timeout holds for each single operation on it."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(timeout)
    try:
        _at(path, connection.connect)
    except BaseException:
        connection.close()
        raise
    return connection


def fcgi_begin(flags=0):
    return fcgi_record(FCGI_BEGIN, struct.pack("!HB5x", 1, flags))


def fcgi_record(kind, content=b""):
    return FCGI_HEADER.pack(1, kind, 1, len(content), 0) + content


def fcgi_stream(kind, content):
    """As many records as it takes, and the empty one that ends a stream."""
    parts = [content[i:i + 0xFFFF] for i in range(0, len(content), 0xFFFF)]
    return b"".join(fcgi_record(kind, part) for part in [*parts, b""])


def fcgi_pairs(params):
    """The names and values of the PARAMS stream; text or bytes."""
    encoded = b""
    for pair in params.items():
        pair = [part if isinstance(part, bytes) else str(part).encode() for part in pair]
        for part in pair:
            encoded += struct.pack("!B", len(part)) if len(part) < 128 else struct.pack("!I", len(part) | 1 << 31)
        encoded += b"".join(pair)
    return encoded


def fcgi_read(connection):
    """One whole answer from a connection."""
    streams = {FCGI_STDOUT: b"", FCGI_STDERR: b""}

    def receive(size):
        data = b""
        while len(data) < size:
            piece = connection.recv(size - len(data))
            if not piece:
                raise ConnectionError(f"the responder hung up after {streams}")
            data += piece
        return data

    while True:
        _, kind, _, length, padding = FCGI_HEADER.unpack(receive(FCGI_HEADER.size))
        content = receive(length + padding)[:length]
        if kind == FCGI_END:
            return FcgiAnswer(streams[FCGI_STDOUT], streams[FCGI_STDERR], struct.unpack("!I", content[:4])[0])
        streams[kind] += content


def fcgi_request(path, params, body=b"", timeout=30):
    """One request on a connection of its own."""
    with fcgi_connect(path, timeout) as connection:
        # A responder may answer, and hang up, before it has read all of the body.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(fcgi_begin() + fcgi_stream(FCGI_PARAMS, fcgi_pairs(params))
                               + fcgi_stream(FCGI_STDIN, body))
        return fcgi_read(connection)


def parse_answer(raw):
    """Status, a list of (name, value), and body of a CGI answer; ValueError if it is none."""
    head, blank, body = raw.partition(b"\r\n\r\n")
    if not blank:
        raise ValueError(f"no CGI answer: {raw[:200]!r}")
    headers = [tuple(line.split(": ", 1)) for line in head.decode("latin-1").split("\r\n")]
    if any(len(header) != 2 for header in headers):
        raise ValueError(f"no CGI header: {head!r}")
    status = next((value for name, value in headers if name.lower() == "status"), "200")
    return Answer(int(status.split()[0]), headers, body)


def run_cgi(binary, environment, stdin=b"", timeout=30):
    """Run as plain CGI with exactly this environment. Without a CGI answer: status None, and the body is all output."""
    child = subprocess.run(_words(binary), env=environment, input=stdin, timeout=timeout, check=False,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        answer = parse_answer(child.stdout)
    except ValueError:
        answer = Answer(None, [], child.stdout)
    return CgiAnswer(*answer, child.stderr.decode(errors="replace"), child.returncode)

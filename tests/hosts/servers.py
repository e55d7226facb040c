"""The web servers of deploy/hosts, each with a small site of its own and the responder beside it.

Each is a class with start() and stop(), in the manner of stack.py: private, on a free port of 127.0.0.1, below a folder of
its own, ended by its process id. What joins the responder to the server is the sample file itself: only its paths are
replaced, and to mount at /api the lines are exchanged as its comment says. Root runs them as www-data.
"""

import contextlib
import http.client
import os
import pathlib
import re
import secrets
import shutil
import signal
import tempfile

import stack

SAMPLES = pathlib.Path(__file__).resolve().parents[2] / "deploy" / "hosts"
ACCOUNT = "www-data"


def choose_other(text):
    """The sample's other choice: each line "#x", not "# x", in place of the one above it."""
    changed = re.sub(r"(?m)^.*\n([ \t]*)#(?=[^\s#!])(.*)$", r"\1\2", text)
    assert changed != text, "nothing to choose"
    return changed


def own(*paths):
    """Hand files and folders, with all in them, to the account that the servers run as."""
    if os.geteuid() == 0:
        for path in paths:
            for entry in [path, *path.rglob("*")]:
                shutil.chown(entry, ACCOUNT, ACCOUNT)


class SpawnFcgi(stack.Server):
    """The responder on a socket, started by spawn-fcgi.sh."""

    name = "spawn-fcgi"
    log_name = "responder.log"

    def __init__(self, folder, script, socket):
        super().__init__(folder)
        self.script, self.socket = script, socket

    def start(self):
        log = self._write(self.log_name, self.log())
        own(self._write("spawn-fcgi.sh", self.script, 0o700), log)
        self.process = stack.Process(["/bin/sh", "spawn-fcgi.sh"], self.folder, log,
                                     privileges=stack.as_account(ACCOUNT))
        stack.wait_until(lambda: self.socket.exists() or not self.process.alive(), 10)
        if not self.socket.exists() or not self.process.alive():
            self.stop()
            raise self._failed("did not start")
        return self

    def stop(self):
        return self.process is None or self.process.stop(patience=30)


class Host(stack.Server):
    """A web server with a site, and the responder beside it at "/" or "/api".

    The site asks for what would spoil our answers, pages of its own for errors: the samples must withstand that. `edit`
    changes the sample's text before it is used.
    """

    sample = None
    external = False  # whether the responder is started by itself
    body_kib = 900  # so much the server lets through
    reload = None  # the signal for a graceful restart or a new configuration
    modules = ()  # of Apache

    def __init__(self, folder, binary, settings, mount="/", edit=None):
        super().__init__(folder)
        self.mount, self.edit, self.port, self.responder = mount, edit or (lambda text: text), None, None
        self.mark = secrets.token_hex(8)
        # Sockets need short paths, mod_fcgid and lighttpd paths without a space.
        self.run = pathlib.Path(tempfile.mkdtemp(prefix="warmup-"))
        self._fill(binary, settings)

    @property
    def health(self):
        return "/healthz" if self.mount == "/" else "/api/healthz"

    @property
    def socket_path(self):
        return self.run / "warmup.sock"

    def _fill(self, binary, settings):
        for name in ("lib", "home/warmup", "tmp"):
            (self.run / name).mkdir(parents=True)
        for name in ("lib", "home/warmup"):
            shutil.copy(binary, self.run / name / "warmup.fcgi")
        for name in ("warmup.conf", "home/warmup.conf"):
            (self.run / name).touch(0o600)
            (self.run / name).write_text(stack.settings_text(settings))
        self.site = self.run / "site"
        (self.site / "api").mkdir(parents=True, exist_ok=True)
        (self.site / "index.html").write_text(f"index {self.mark}\n")
        (self.site / "error.html").write_text(f"error page {self.mark}\n")
        (self.site / "api" / "other.txt").write_text(f"other {self.mark}\n")
        if self.mount == "/api":
            (self.site / "healthz").write_text(f"health of the site {self.mark}\n")

    def adapt(self, text, mount=None):
        """A sample's text with the paths of this test."""
        if (mount or self.mount) == "/api":
            text = choose_other(text)
        for old, new in (("/usr/local/lib/warmup", "lib"), ("/etc/warmup/warmup.conf", "warmup.conf"),
                         ("/run/lighttpd/warmup.sock", "warmup.sock"), ("/run/warmup.sock", "warmup.sock"),
                         ("/home/YOU", "home")):
            text = text.replace(old, "\0" + new)
        return text.replace("\0", f"{self.run}/")

    def sample_text(self):
        return self.adapt(self.edit((SAMPLES / self.sample).read_text()))

    def start(self):
        own(self.folder, self.run)
        if self.external:
            script = self.adapt((SAMPLES / "spawn-fcgi.sh").read_text(), "/")
            self.responder = SpawnFcgi(self.folder, script, self.socket_path).start()
        for _ in range(stack.PORT_TRIES):
            port = stack.free_port()
            self._write(self.log_name, self.log())
            command = self._configure(port)
            own(self.folder, self.run)
            self.process = stack.Process(command, self.folder, self.folder / self.log_name, at_death="TERM",
                                         privileges=stack.as_account(ACCOUNT))
            if self._answers(port):
                self.port = port
                return self
            self.process.stop()
        failure = self._failed("did not start")
        self.stop()
        raise failure

    def _answers(self, port):
        """Whether it is up within 10 s, with our site and not another server's."""
        def settled():
            try:
                return self.mark in _get(port, "/index.html") or not self.process.alive()
            except OSError:
                return not self.process.alive()

        return stack.wait_until(settled, 10, 0.05) and self.process.alive()

    def log(self):
        return super().log() + (self.responder.log() if self.responder else "")

    def responder_pids(self):
        """The processes that run our program, by the first word of their command lines, which everybody may read."""
        found = []
        for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                program = pathlib.Path(os.fsdecode(entry.read_bytes().split(b"\0")[0]))
                if program.name == "warmup.fcgi" and self.run in program.parents:
                    found.append(int(entry.parts[2]))
        return found

    def _stop_responder(self):
        return self.responder is None or self.responder.stop()

    def stop(self, patience=30):
        """Whether the server and the responder ended by themselves, each within so many seconds."""
        ended = self.process is None or self.process.stop(patience=patience)
        ended = self._stop_responder() and ended
        shutil.rmtree(self.run, ignore_errors=True)
        return ended


def _get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode(errors="replace")
    finally:
        connection.close()


class Nginx(Host):
    name = "nginx"
    sample = "nginx.conf"
    reload = signal.SIGHUP
    external = True
    CONF = """\
daemon off;
worker_processes 1;
pid nginx.pid;
events {{ }}
http {{
    access_log off;
    default_type text/plain;
    client_body_temp_path "{run}/tmp/body"; proxy_temp_path "{run}/tmp/proxy"; fastcgi_temp_path "{run}/tmp/fastcgi";
    uwsgi_temp_path "{run}/tmp/uwsgi"; scgi_temp_path "{run}/tmp/scgi";
    server {{
        listen 127.0.0.1:{port};
        root {run}/site;
        error_page 400 401 403 404 405 409 413 500 502 503 504 /error.html;
        fastcgi_intercept_errors on;
        include warmup.conf;
    }}
}}
"""

    def _configure(self, port):
        shutil.copy("/etc/nginx/fastcgi_params", self.folder)
        self._write("warmup.conf", self.sample_text())
        self._write("nginx.conf", self.CONF.format(port=port, run=self.run))
        return ["/usr/sbin/nginx", "-p", f"{self.folder}/", "-c", "nginx.conf", "-e", self.log_name]


class Apache(Host):
    """The site has what a shop or a blog has: a rule that gives every path that is no file to one program."""

    name = "Apache"
    reload = signal.SIGUSR1
    site_override = "FileInfo"
    CONF = """\
ServerRoot "{folder}"
ServerName localhost
Listen 127.0.0.1:{port}
PidFile "{run}/apache.pid"
DefaultRuntimeDir "{run}"
Mutex file:{run}
ErrorLog "{folder}/error.log"
LogLevel warn
{load}
StartServers 1
ServerLimit 2
ThreadsPerChild 16
MaxRequestWorkers 32
TypesConfig /etc/mime.types
<IfModule mod_fcgid.c>
    FcgidIPCDir "{run}/tmp"
    FcgidProcessTableFile "{run}/fcgid_shm"
</IfModule>
<IfModule mod_cgid.c>
    ScriptSock cgid.sock
</IfModule>
<Directory />
    AllowOverride None
    Require all denied
</Directory>
DocumentRoot "{run}/site"
<Directory "{run}/site">
    AllowOverride {override}
    Options {options}
    Require all granted
</Directory>
{everywhere}
<VirtualHost 127.0.0.1:{port}>
    ProxyErrorOverride On
    ErrorDocument 401 /error.html
    ErrorDocument 404 /error.html
    ErrorDocument 409 /error.html
    ErrorDocument 502 /error.html
    ErrorDocument 503 /error.html
{here}
</VirtualHost>
"""
    HTACCESS = """\
RewriteEngine On
RewriteCond %{REQUEST_FILENAME} !-f
RewriteCond %{REQUEST_FILENAME} !-d
RewriteCond %{REQUEST_URI} !^/missing
RewriteRule . /index.html [L]
"""
    MODULES = ("mpm_event", "authz_core", "alias", "rewrite", "setenvif", "env", "mime", "dir", "proxy")
    options = "SymLinksIfOwnerMatch"

    def _configure(self, port):
        loads = "".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"
                        for name in (*self.MODULES, *self.modules))
        self._write_site()
        # Both places that the sample names: for all sites of the server, and inside one.
        everywhere, here = (self._include(), "") if self.mount == "/" else ("", self._include())
        self._write("apache.conf", self.CONF.format(
            folder=self.folder, run=self.run, port=port, load=loads, override=self.site_override, options=self.options,
            everywhere=everywhere, here=here))
        return ["/usr/sbin/apache2", "-DFOREGROUND", "-f", self.folder / "apache.conf"]

    def _write_site(self):
        (self.site / ".htaccess").write_text(self.HTACCESS)

    def _include(self):
        self._write("warmup.conf", self.sample_text())
        return f'Include "{self.folder}/warmup.conf"'


class ApacheProxyFcgi(Apache):
    sample = "apache-proxy-fcgi.conf"
    external = True
    modules = ("proxy_fcgi",)


class ApacheFcgid(Apache):
    sample = "apache-fcgid.conf"
    modules = ("fcgid",)


class ApacheCgid(Apache):
    sample = "apache-cgid.conf"
    modules = ("cgid",)


class SharedHosting(Apache):
    """A customer's folder of somebody else's Apache: FileInfo and a host that runs scripts, nothing more."""

    options = "SymLinksIfOwnerMatch ExecCGI"
    program = None

    def adapt(self, text, mount=None):
        # These samples stand for a folder api; the other choice is the top folder.
        return super().adapt(text, {"/": "/api", "/api": "/"}[self.mount] if mount is None else mount)

    def _include(self):
        return ""

    def _write_site(self):
        ours, site = self.sample_text(), self.HTACCESS
        top = self.site if self.mount == "/" else self.site / "api"
        if self.mount == "/":
            site = ours + site
        else:
            (top / ".htaccess").write_text(ours)
        (self.site / ".htaccess").write_text(site)
        self._put_program(top)

    def _put_program(self, folder):
        sample = SAMPLES / self.program
        script = folder / sample.name
        script.write_text(self.adapt(sample.read_text(), "/"))
        script.chmod(0o755)


class SharedHostingCgi(SharedHosting):
    sample = "shared-hosting/cgi/.htaccess"
    program = "shared-hosting/cgi/warmup.cgi"
    modules = ("cgid",)


class SharedHostingFcgid(SharedHosting):
    sample = "shared-hosting/fcgid/.htaccess"
    program = "shared-hosting/fcgid/warmup.fcgi"
    body_kib = 100  # mod_fcgid's default is 128, and no .htaccess can change it
    modules = ("fcgid",)


class Lighttpd(Host):
    name = "lighttpd"
    reload = signal.SIGUSR1
    CONF = """\
server.modules = ( )
server.bind = "127.0.0.1"
server.port = {port}
server.document-root = "{run}/site"
server.upload-dirs = ( "uploads" )
server.errorlog = "error.log"
server.errorfile-prefix = var.CWD + "/error-"
index-file.names = ( "index.html" )
mimetype.assign = ( "" => "text/plain" )
{extra}
include "warmup.conf"
"""
    extra = ""

    def _configure(self, port):
        (self.folder / "uploads").mkdir(exist_ok=True)
        for status in (400, 401, 404, 405, 409, 413, 502, 503):
            shutil.copy(self.site / "error.html", self.folder / f"error-{status}.html")
        self._write("warmup.conf", self.sample_text())
        self._write("lighttpd.conf", self.CONF.format(port=port, run=self.run, extra=self.extra.format(run=self.run)))
        return ["/usr/sbin/lighttpd", "-D", "-f", "lighttpd.conf"]


class LighttpdFastcgi(Lighttpd):
    sample = "lighttpd-fastcgi.conf"


class LighttpdExternal(Lighttpd):
    sample = "lighttpd-external.conf"
    external = True


class LighttpdCgi(Lighttpd):
    sample = "lighttpd-cgi.conf"
    # The sample relies on the file in /etc, which is not for a test to write.
    extra = 'server.modules += ( "mod_setenv" )\nsetenv.set-environment = ( "WARMUP_CONFIG" => "{run}/warmup.conf" )'


HOSTS = {host.sample: host for host in (
    Nginx, ApacheProxyFcgi, ApacheFcgid, ApacheCgid, LighttpdFastcgi, LighttpdExternal, LighttpdCgi,
    SharedHostingCgi, SharedHostingFcgid)}

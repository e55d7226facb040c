"""What leaves this folder: the Debian package, "make install", and the folder for shared hosting.

Each is built, looked through, installed and taken away again. The system is left as it is: installations go into
folders of their own, with dpkg under fakeroot, so that owners are what they will be whoever runs this.

    pytest tests/package
"""

import gzip
import os
import pathlib
import re
import shutil
import stat
import subprocess
import tarfile
import types

import pytest

import stack
from conftest import TOP, Cgi, World

VERSION = re.search(r'WARMUP_VERSION "(.*)"', (TOP / "shared/version.h").read_text())[1]
SAMPLE = TOP / "deploy/warmup.conf.example"
HOSTS = sorted(str(path.relative_to(TOP / "deploy")) for path in (TOP / "deploy/hosts").rglob("*") if path.is_file())
# What an installation of the package adds to a system, and a test of it must not.
SYSTEM = ("/etc/warmup", "/usr/lib/warmup", "/usr/bin/warmupctl", "/usr/share/warmup",
          "/etc/systemd/system/sockets.target.wants/warmup.socket")


def run(*command, cwd=TOP, variables=None):
    environment = {"PATH": stack.PATH, "LC_ALL": "C.UTF-8", **(variables or {})}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=300, check=False)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def files_below(folder):
    """Everything that is no folder, relative to it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def host_mode(name):
    """The mode that a file of HOSTS is installed with."""
    return 0o755 if os.access(TOP / "deploy" / name, os.X_OK) else 0o644


def health(program, settings_file):
    """The status of /healthz, asked as CGI, where the database refuses."""
    answer = stack.run_cgi(program, {
        "REQUEST_METHOD": "GET", "PATH_INFO": "/healthz", "WARMUP_CONFIG": str(settings_file),
        "DATABASE_URL": "postgresql://warmup@127.0.0.1:1/none"})
    assert answer.body == b'{"status":"unavailable"}', answer
    return answer.status


# --- the package ----------------------------------------------------------------------------------------------------

@pytest.fixture(scope="session")
def package():
    run("make", "-s", "deb")
    found = list((TOP / "build").glob("warmup-fcgi_*.deb"))
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="session")
def members(package, run_folder):
    """path: its entry in the package and, of files, what is in it."""
    archive = run_folder / "package.tar"
    with archive.open("wb") as output:
        subprocess.run(["dpkg-deb", "--fsys-tarfile", package], stdout=output, check=True)
    with tarfile.open(archive) as tar:
        return {entry.name.removeprefix("."): types.SimpleNamespace(
            entry=entry, content=tar.extractfile(entry).read() if entry.isfile() else None) for entry in tar}


def test_package_has_our_version(package, members):
    architecture = run("dpkg", "--print-architecture").strip()
    assert package.name == f"warmup-fcgi_{VERSION}_{architecture}.deb"
    assert run("dpkg-deb", "-f", package, "Version").strip() == VERSION
    changelog = gzip.decompress(members["/usr/share/doc/warmup-fcgi/changelog.gz"].content).decode()
    assert changelog.startswith(f"warmup-fcgi ({VERSION}) ")
    released = re.findall(r"^## \[(.*)\]", (TOP / "CHANGELOG.md").read_text(), re.M)
    assert re.findall(r"^warmup-fcgi \((.*?)\)", changelog, re.M) == released


def test_lintian_has_nothing_to_say(package):
    said = run("lintian", "--allow-root", "--fail-on", "error,warning", "--display-info", package).splitlines()
    # For this one see the comment in the file of overrides.
    assert not [line for line in said if "package-supports-alternative-init-but-no-init.d-script" not in line]


def test_package_holds_what_it_should(members):
    units = next(name for name in ("/lib/systemd/system", "/usr/lib/systemd/system") if name in members)
    doc = "/usr/share/doc/warmup-fcgi"
    wanted = {
        "/usr/lib/warmup/warmup.fcgi": 0o755, "/usr/bin/warmupctl": 0o755,
        f"{units}/warmup.socket": 0o644, f"{units}/warmup.service": 0o644,
        "/usr/share/man/man8/warmup.fcgi.8.gz": 0o644, "/usr/share/man/man8/warmupctl.8.gz": 0o644,
        f"{doc}/README.md.gz": 0o644, f"{doc}/changelog.gz": 0o644, f"{doc}/copyright": 0o644,
        "/usr/share/lintian/overrides/warmup-fcgi": 0o644,
        "/usr/share/warmup/warmup.conf.example": 0o640,
        **{f"/usr/share/warmup/schema/{path.name}": 0o644 for path in (TOP / "deploy/schema").iterdir()},
        **{f"/usr/share/warmup/{name}": host_mode(name) for name in HOSTS}}
    entries = [member.entry for member in members.values()]
    assert {entry.name[1:]: entry.mode for entry in entries if not entry.isdir()} == wanted
    assert {entry.mode for entry in entries if entry.isdir()} == {0o755}
    assert {(entry.uname, entry.gname) for entry in entries} == {("root", "root")}


def test_package_names_its_own_places(members):
    for name, member in members.items():
        if member.content is not None and not name.endswith("README.md.gz"):
            content = gzip.decompress(member.content) if name.endswith(".gz") else member.content
            assert b"/usr/local" not in content, name
    unit = members["/usr/share/warmup/hosts/systemd/warmup.service"].content
    assert b"\nExecStart=/usr/lib/warmup/warmup.fcgi\n" in unit


def test_licence_is_the_projects(members):
    told = members["/usr/share/doc/warmup-fcgi/copyright"].content.decode()
    ours = " ".join((TOP / "LICENSE").read_text().partition("Permission is")[2].split())
    assert ours in " ".join(told.replace("\n .\n", "\n").split())


def test_same_sources_give_the_same_package(package, run_folder):
    """Elsewhere, in a path with a space, without git, whatever the environment says."""
    folder = run_folder / "a new folder"
    folder.mkdir()
    for name in ("fcgi", "shared", "deploy"):
        shutil.copytree(TOP / name, folder / name)
    for name in ("Makefile", "README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(TOP / name, folder)
    said = run("sh", "-c", "umask 077 && make -s deb V=1 PREFIX=/opt DOCDIR=/opt/doc", cwd=folder,
               variables={"CFLAGS": "-O0", "TZ": "Pacific/Auckland"})
    assert said == f"build/{package.name}\n"
    assert (folder / "build" / package.name).read_bytes() == package.read_bytes()


class Root:
    """A folder that dpkg takes for a whole system, with nothing in it."""

    def __init__(self, folder):
        self.path = folder
        for name in ("info", "updates", "triggers"):
            (self.path / "var/lib/dpkg" / name).mkdir(parents=True)
        (self.path / "var/lib/dpkg/status").touch()

    def dpkg(self, *arguments, then=("true",)):
        """What the package needs is not in this root; its scripts take the programs of the system.

        Only the command `then` sees the owners that were given: they are fakeroot's invention, which ends with it.
        """
        options = (f"--root={self.path}", "--force-script-chrootless", "--force-depends", "--force-unsafe-io")
        return run("fakeroot", "sh", "-c", 'cd "$1" && shift && dpkg "$@" >&2 && ' + " ".join(then), "sh",
                   self.path, *options, *arguments)

    def files(self):
        return {name for name in files_below(self.path) if not name.startswith(("var/lib/dpkg/", "var/log/"))}


@pytest.fixture
def root(tmp_path):
    before = [name for name in SYSTEM if os.path.lexists(name)]
    yield Root(tmp_path / "a root")
    assert [name for name in SYSTEM if os.path.lexists(name)] == before


def test_package_installs_upgrades_and_goes(package, root):
    settings, socket = root.path / "etc/warmup/warmup.conf", "etc/systemd/system/sockets.target.wants/warmup.socket"

    said = root.dpkg("--install", package, then=("stat", "-c", "'%A %U:%G'", "etc/warmup", "etc/warmup/warmup.conf"))
    assert said == "drwxr-x--- root:www-data\n-rw-r----- root:www-data\n"
    assert settings.read_text() == SAMPLE.read_text()
    # The service is for the socket to start.
    assert os.path.islink(root.path / socket)
    assert not (root.path / "etc/systemd/system/multi-user.target.wants").exists()
    assert run(root.path / "usr/bin/warmupctl", "--version").split()[-1] == VERSION
    assert health(root.path / "usr/lib/warmup/warmup.fcgi", settings) == 503

    settings.write_text("DATABASE_URL=edited\n")
    settings.chmod(0o600)
    root.dpkg("--install", package)
    assert (settings.read_text(), mode(settings)) == ("DATABASE_URL=edited\n", 0o600)

    root.dpkg("--remove", "warmup-fcgi")
    assert "etc/warmup/warmup.conf" in root.files()
    assert not {name for name in root.files() if name.startswith("usr/")}
    root.dpkg("--install", package)
    assert settings.read_text() == "DATABASE_URL=edited\n"

    # Who took the settings away does not get the sample's again.
    settings.unlink()
    root.dpkg("--install", package)
    assert not settings.exists()

    root.dpkg("--purge", "warmup-fcgi")
    assert root.files() == set()
    assert not settings.parent.exists()


def test_purge_leaves_what_the_operator_put_there(package, root):
    root.dpkg("--install", package)
    (root.path / "etc/warmup/ca.pem").touch()
    root.dpkg("--purge", "warmup-fcgi")
    assert root.files() == {"etc/warmup/ca.pem"}


def test_settings_that_were_there_first_stay(package, root):
    (root.path / "etc/warmup").mkdir(parents=True)
    (root.path / "etc/warmup/warmup.conf").write_text("DATABASE_URL=first\n")
    root.dpkg("--install", package)
    assert (root.path / "etc/warmup/warmup.conf").read_text() == "DATABASE_URL=first\n"


# --- make install ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("prefix", ["/usr/local", "/usr", "/opt/warm up"])
def test_make_install_and_uninstall(tmp_path, prefix):
    run("sh", "-c", 'umask 077 && make -s install DESTDIR="$1" PREFIX="$2"', "sh", tmp_path / "a stage", prefix)
    top = tmp_path / "a stage" / prefix[1:]
    installed = files_below(top)
    manuals, units = ("warmup.fcgi.8", "warmupctl.8"), ("warmup.socket", "warmup.service")
    assert installed == {
        "lib/warmup/warmup.fcgi", "bin/warmupctl", "share/warmup/warmup.conf.example",
        *(f"share/warmup/schema/{path.name}" for path in (TOP / "deploy/schema").iterdir()),
        *(f"share/warmup/{name}" for name in HOSTS), *(f"share/man/man8/{name}" for name in manuals),
        *(f"share/doc/warmup/{name}" for name in ("README.md", "CHANGELOG.md", "LICENSE")),
        *(f"lib/systemd/system/{name}" for name in units)}
    assert files_below(tmp_path / "a stage") == {f"{prefix[1:]}/{name}" for name in installed}

    # All may be read by everybody, but the sample of what will hold passwords, and a copy of it.
    sample = top / "share/warmup/warmup.conf.example"
    assert {name for name in installed if not mode(top / name) & stat.S_IROTH} == {str(sample.relative_to(top))}
    assert mode(pathlib.Path(shutil.copy(sample, tmp_path))) == 0o640
    for name in HOSTS:
        assert mode(top / "share/warmup" / name) == host_mode(name)

    # Texts name the places of this installation.
    for name in installed:
        if not name.startswith(("share/doc", "lib/warmup", "bin")):
            source = TOP / "deploy" / name.removeprefix("share/warmup/")
            content = (top / name).read_text()
            assert prefix == "/usr/local" or "/usr/local" not in content, name
            assert not source.is_file() or content == source.read_text().replace("/usr/local", prefix), name
    assert f"{prefix}/lib/warmup/warmup.fcgi" in (top / "share/warmup/hosts/lighttpd-fastcgi.conf").read_text()
    assert run(top / "bin/warmupctl", "--version").split()[-1] == VERSION
    assert health(top / "lib/warmup/warmup.fcgi", sample) == 503

    run("make", "-s", "uninstall", f"DESTDIR={tmp_path / 'a stage'}", f"PREFIX={prefix}")
    assert files_below(tmp_path / "a stage") == set()
    assert not [path for path in (tmp_path / "a stage").rglob("*") if path.name == "warmup"]


# --- shared hosting -------------------------------------------------------------------------------------------------

@pytest.fixture(scope="session")
def portable(run_folder):
    """build/portable, elsewhere: it may be put anywhere."""
    run("make", "-s", "portable")
    return shutil.copytree(TOP / "build/portable", run_folder / "a home" / "warmup")


def test_portable_needs_glibc_and_nothing_else(portable):
    needs = (portable / "needs.txt").read_text()
    found = re.findall(r"^\s*(\S+) => (/.*) \(0x", run("ldd", portable / "warmup.fcgi"), re.M)
    brought = {name for name, path in found if pathlib.Path(path).is_relative_to(portable)}
    assert brought == {path.name for path in (portable / "lib").iterdir()}
    assert {"libfcgi.so.0", "libcjson.so.1", "libcurl.so.4", "libpq.so.5"} <= brought
    assert all(path.is_file() and not path.is_symlink() for path in (portable / "lib").iterdir())
    others = {name for name, _ in found} - brought
    assert others <= {"libc.so.6", "libm.so.6", "libresolv.so.2"}
    assert set(re.search(r"of glibc: (.*)", needs)[1].split()) == others


def test_portable_needs_the_glibc_that_its_page_tells(portable):
    page = (TOP / "deploy/hosts/shared-hosting/README.md").read_text()
    told = dict(re.findall(r"^\| Debian (\d+) \| (\S+) or newer ", page, re.M))
    here = re.search(r'^VERSION_ID="?(\d+)', pathlib.Path("/etc/os-release").read_text(), re.M)[1]
    assert re.search(r"glibc (\S+) or newer", (portable / "needs.txt").read_text())[1] == told[here]


def test_portable_serves_as_cgi(portable, tmp_path, postgres, template, sandbox):
    postgres.create_database("portable", template)
    world = World(postgres, "portable", sandbox)
    (tmp_path / "warmup.conf").write_text(stack.settings_text(world.settings()))
    server = Cgi(portable / "warmup.fcgi", {"WARMUP_CONFIG": tmp_path / "warmup.conf"})
    assert server.request("GET", "/healthz").status == 200
    assert world.retry(server, world.add_account()).status == 200

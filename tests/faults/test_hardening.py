"""What a program that holds secrets owes them: no core file, no view from outside, nothing left lying in memory; and
what the compiler and the linker can do against those who try to make it misbehave."""

import contextlib
import os
import pathlib
import re
import resource
import secrets
import signal
import subprocess

import pytest

import stack
from conftest import ROUTE, SANITIZER_VARIABLES, UPSTREAM_KEY, as_answer

PROGRAMS = ["warmup.fcgi", "warmupctl"]
plain_build = pytest.mark.skipif(bool(SANITIZER_VARIABLES), reason="a sanitizer has its own flags and its own memory")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can look into it, that is the point")


# --- the programs as they are built ---------------------------------------------------------------------------------

def readelf(file, *options):
    return subprocess.run(["readelf", "--wide", *options, file], check=True, capture_output=True, text=True,
                          env={"PATH": stack.PATH, "LC_ALL": "C"}).stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_program_is_linked_with_every_protection(build, program):
    segments = readelf(build / program, "--program-headers")
    dynamic = readelf(build / program, "--dynamic")
    assert "Elf file type is DYN" in segments and re.search(r"FLAGS_1\).*\bPIE\b", dynamic)
    assert "GNU_RELRO" in segments and re.search(r"FLAGS_1\).*\bNOW\b", dynamic)
    assert re.search(r"GNU_STACK .* RW +0x", segments)
    assert not re.search(r"LOAD .* (RWE|W E) ", segments)
    # Code apart from data: no segment holds both the ELF header or constants and code.
    assert re.search(r"LOAD .* R   0x", segments) and re.search(r"LOAD .* R E 0x", segments)
    assert not re.search(r"RPATH|RUNPATH|TEXTREL", dynamic)


@plain_build
@pytest.mark.parametrize("program", PROGRAMS)
def test_program_is_compiled_with_every_protection(build, program):
    symbols = readelf(build / program, "--dyn-syms")
    assert "__stack_chk_fail" in symbols
    assert {"__snprintf_chk", "__vsnprintf_chk"} <= set(re.findall(r"__\w+_chk\b", symbols))


@plain_build
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="of this processor's")
def test_objects_mark_where_jumps_may_land(build):
    for source in ("fcgi/main", "shared/http", "deploy/warmupctl"):
        assert re.search(r"x86 feature: IBT, SHSTK", readelf(build / f"{source}.o", "--notes"))


# --- from outside ---------------------------------------------------------------------------------------------------

def settings(world, **changes):
    return {**SANITIZER_VARIABLES, **{name: str(value) for name, value in world.settings(**changes).items()}}


def ask(server, world, account):
    pairs = {"REQUEST_METHOD": "PATCH", "SCRIPT_NAME": "", "PATH_INFO": ROUTE.format(account), "CONTENT_LENGTH": "0",
             "HTTP_AUTHORIZATION": f"Bearer {world.key}"}
    return as_answer(*stack.parse_answer(stack.fcgi_request(server.socket_path, pairs).stdout))


def dumped(command, number, folder, **options):
    """Whether a program left a core when it was ended by this signal, with no limit on cores."""
    def prepare():
        resource.setrlimit(resource.RLIMIT_CORE, [resource.RLIM_INFINITY] * 2)
        signal.signal(number, signal.SIG_DFL)  # what a shell starts in the background ignores SIGQUIT

    child = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **options,
                             preexec_fn=prepare)
    stack.wait_until(lambda: "State:\tS" in pathlib.Path(f"/proc/{child.pid}/status").read_text(), 10)
    child.send_signal(number)
    status = os.waitpid(child.pid, 0)[1]
    child.returncode = 0
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == number
    return os.WCOREDUMP(status) or any(folder.glob("core*"))


@plain_build
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGQUIT])
@pytest.mark.parametrize("kind", ["cgi", "fastcgi"])
def test_crash_leaves_no_core(build, run_folder, world, kind, number):
    folder = run_folder / f"core-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        if not dumped(["/bin/sleep", "60"], number, folder):
            pytest.skip("this machine keeps no cores at all")
        for core in folder.glob("core*"):
            core.unlink()
        with contextlib.ExitStack() as cleanup:
            if kind == "fastcgi":
                listener = cleanup.enter_context(stack.socket.socket(stack.socket.AF_UNIX))
                listener.bind(f"\0core-{secrets.token_hex(8)}")
                listener.listen(8)
                options = {"env": settings(world), "stdin": listener}
            else:
                account = world.add_account("hang")
                options = {"env": {**settings(world), "REQUEST_METHOD": "PATCH", "PATH_INFO": ROUTE.format(account),
                                   "HTTP_AUTHORIZATION": f"Bearer {world.key}"}, "stdin": subprocess.DEVNULL}
            assert not dumped([build / "warmup.fcgi"], number, folder, **options)
    finally:
        for core in folder.glob("core*"):
            core.unlink()


def test_nobody_but_root_sees_its_environment_or_memory(build, run_folder, world):
    """Not even a process of the same account: a web server runs many programs as one."""
    server = stack.Responder(run_folder / "seen", build / "warmup.fcgi", settings(world))
    account = stack.as_account("www-data")
    look = ["/usr/bin/setpriv", *account, "--"] if account else []
    server.command = [*look, *server.command]
    with server:
        assert ask(server, world, world.add_account()).status == 200
        for name in ("environ", "mem", "maps", "fd/0", "auxv"):
            found = subprocess.run([*look, "/usr/bin/head", "-c", "1", f"/proc/{server.pid}/{name}"], check=False,
                                   stdin=subprocess.DEVNULL, capture_output=True, env={"PATH": stack.PATH})
            assert (found.returncode, found.stdout) == (1, b""), name
            assert b"Permission denied" in found.stderr or b"Input/output error" in found.stderr, found.stderr
        limits = pathlib.Path(f"/proc/{server.pid}/limits").read_text()
        assert re.search(r"Max core file size +0 +0 ", limits), limits
        assert server.stop()


# --- what stays in memory -------------------------------------------------------------------------------------------

def memory(pid):
    """All that a process can write to, in pieces."""
    with open(f"/proc/{pid}/maps", encoding="ascii") as maps, open(f"/proc/{pid}/mem", "rb") as file:
        for line in maps:
            span, rights = line.split()[:2]
            if rights.startswith("rw"):
                start, end = (int(number, 16) for number in span.split("-"))
                with contextlib.suppress(OSError):
                    file.seek(start)
                    yield file.read(end - start)


def found(pid, text, before=40):
    """What stands before each place in memory where the text is."""
    return [piece[max(0, at.start() - before):at.start()] for piece in memory(pid)
            for at in re.finditer(re.escape(text.encode()), piece)]


@as_root
@plain_build
def test_callers_token_does_not_stay_in_memory(build, run_folder, world):
    """libfcgi keeps the worker's latest request, as it was received, until the next; nothing else keeps a token."""
    with stack.Responder(run_folder / "wiped", build / "warmup.fcgi", settings(world, WARMUP_WORKERS=1)) as server:
        for _ in range(3):
            world.key, former = world.add_key(world.user), world.key
            assert ask(server, world, world.add_account()).status == 200
            assert [before[-25:] for before in found(server.pid, world.key)] in ([], [b"HTTP_AUTHORIZATIONBearer "])
            assert found(server.pid, former[40:]) == []
        assert server.stop()


@as_root
@plain_build
def test_setting_that_does_not_count_does_not_stay_in_memory(build, run_folder, world):
    """Of a file in which a secret stands twice, the last counts; the other is gone, and so is the file's text."""
    # Of another length: memory that is freed is soon another text's of the same length.
    former, key = "former-" + secrets.token_hex(200), "latter-" + secrets.token_hex(20)
    file = run_folder / "twice.conf"
    file.write_text("# A long text.\n" * 200 + f"INSTANTLY_API_KEY={former}\nINSTANTLY_API_KEY={key}\n")
    file.chmod(0o600)
    environment = settings(world, INSTANTLY_API_KEY=None, WARMUP_CONFIG=file, WARMUP_WORKERS=1)
    with stack.Responder(run_folder / "twice", build / "warmup.fcgi", environment) as server:
        # Refused by the sandbox, which knows another key: so it is asked with the one that counts.
        assert ask(server, world, world.add_account()).status == 502
        assert found(server.pid, former[300:]) == []
        places = found(server.pid, key)
        assert places and not any(b"INSTANTLY_API_KEY" in before for before in places), places
        assert server.stop()

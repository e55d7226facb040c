"""What the machine does to a request: a full disk under the database, clocks that jump, names that do not resolve, and
more callers than there are workers.
"""

import calendar
import contextlib
import json
import os
import pathlib
import shutil
import ssl
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import stack
from conftest import SANITIZER_VARIABLES, STUCK, UPSTREAM_KEY, WARMING, wait_for
from faults import audit
from faults.proxies import PgProxy
from sandbox.instantly import Sandbox
from test_database import QUICK, SLACK, Mute, check_unavailable, private_world, scratch_world, timed
from test_swap import check_not_confirmed
from test_transport import Raw, read_answer, serves, threads, whole, window

DAY = 86400


@pytest.fixture(scope="module")
def audited(postgres, template, sandbox):
    with scratch_world(postgres, template, sandbox) as world:
        audit.install(world)
        yield world


# --- a full disk ---------------------------------------------------------------------------------

HISTORY = """
CREATE TABLE history (account uuid);
CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN INSERT INTO history VALUES (NEW.id); RETURN NULL; END $$;
CREATE TRIGGER remember AFTER UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION remember();
"""


def test_full_disk_answers_500_and_the_gate_still_works(responder, run_folder, build, sandbox):
    """C16. The kernel itself says so to PostgreSQL: a table that the swap writes to lies on a full device."""
    with private_world(run_folder / "postgres-full", build, sandbox) as world:
        audit.install(world)
        world.execute(HISTORY)
        path = world.execute("SELECT current_setting('data_directory') || '/' || pg_relation_filepath('history')")
        file = pathlib.Path(path[0][0])
        file.rename(file.with_name(file.name + ".real"))
        file.symlink_to("/dev/full")
        server = responder(world, WARMUP_DB_CONNECTIONS=1, **QUICK)
        account, moved = world.add_account(), world.add_account(state=WARMING)
        check_not_confirmed(world.retry(Raw(server), account))
        assert '"detail":"53100"' in server.log()
        assert (world.state(account), world.enables(account), audit.moves(world, account)) == (STUCK, 1, [])
        assert world.retry(Raw(server), moved).status == 409
        assert Raw(server).request("GET", "/healthz").status == 200
        world.execute("DROP TRIGGER remember ON accounts")
        assert world.retry(Raw(server), account).status == 200
        assert (world.state(account), len(audit.moves(world, account))) == (WARMING, 1)
        audit.check(world, account)
        assert server.stop()


# --- clocks --------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def faketime():
    """What to preload so that the wall clock, and no other, follows a file."""
    found = sorted(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if SANITIZER_VARIABLES:
        pytest.skip("a sanitizer wants to be loaded first")
    if not found:
        raise stack.Failed("faketime is not installed; run: deploy/packages faults")
    return found[0]


@pytest.fixture
def clock(faketime, tmp_path):
    """The variables, and a function that sets the responder's wall clock so many seconds off."""
    file = tmp_path / "time"

    def jump(seconds):
        new = tmp_path / "time.new"
        new.write_text(f"{seconds:+d}\n")
        new.replace(file)

    jump(0)
    variables = {"LD_PRELOAD": faketime, "FAKETIME_TIMESTAMP_FILE": file, "FAKETIME_NO_CACHE": 1,
                 "FAKETIME_DONT_FAKE_MONOTONIC": 1, "DONT_FAKE_MONOTONIC": 1}
    return variables, jump


def logged_at(server, request_id):
    """What its wall clock said at the end of a request, as seconds from ours."""
    line = next(json.loads(line) for line in server.log().splitlines() if request_id in line)
    whole_seconds = time.strptime(line["time"].partition(".")[0].rstrip("Z"), "%Y-%m-%dT%H:%M:%S")
    return calendar.timegm(whole_seconds) - time.time()


@pytest.mark.parametrize("jump_by", [DAY, -DAY, 400 * DAY])
def test_clock_that_jumps_during_the_call_changes_nothing(responder, audited, clock, jump_by):
    """C21. All deadlines are monotonic, and updated_at comes from the database."""
    world, (variables, jump) = audited, clock
    server = responder(world, WARMUP_WORKERS=2, WARMUP_DB_CONNECTIONS=1, **QUICK, **variables)
    serves(server, world)
    account = world.add_account()
    with window(Raw(server), world, account) as answer:
        jump(jump_by)
    answer = answer.result()
    assert answer.status == 200
    # Proof that it did jump.
    assert abs(logged_at(server, answer.headers["x-request-id"]) - jump_by) < 60
    assert answer.json["account"]["updated_at"].rstrip("Z") == world.account(account)["updated_at"].partition("+")[0]
    assert world.execute("SELECT now() - updated_at < '1 minute' FROM accounts WHERE id = %s", account) == [(True,)]
    assert len(audit.moves(world, account)) == 1
    audit.check(world, account)
    serves(server, world, workers=2)
    assert server.stop()


@pytest.mark.parametrize("jump_by", [DAY, -DAY])
def test_clock_that_jumps_moves_no_time_limit(responder, audited, clock, jump_by):
    """Of the call, of connecting to the database, of waiting for a connection."""
    world, (variables, jump) = audited, clock
    account = world.add_account("hang")
    server = responder(world, WARMUP_WORKERS=2, WARMUP_UPSTREAM_TIMEOUT_MS=700, **QUICK, **variables)
    serves(server, world)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(timed, world.retry, Raw(server), account)
        wait_for(lambda: world.enables(account))
        jump(jump_by)
        answer, took = answer.result(30)
    assert (answer.status, answer.error["details"]) == (502, {"reason": "timeout"})
    assert 0.6 < took < 0.7 + SLACK
    assert server.stop()
    jump(0)
    with Mute() as mute:
        server = responder(world, DATABASE_URL=mute.url(), WARMUP_DB_TIMEOUT_MS=700, WARMUP_DB_CONNECTIONS=1,
                           **QUICK, **variables)
        time.sleep(0.8)  # the connection ahead of the first request is given up
        seen = len(mute.peers)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(timed, world.retry, Raw(server), account)
            wait_for(lambda: len(mute.peers) > seen)
            jump(jump_by)
            answer, took = answer.result(30)
        check_unavailable(answer)
        assert 0.6 < took < 0.7 + SLACK
        assert server.stop()


@pytest.mark.parametrize("jump_by", [DAY, -DAY])
def test_clock_that_jumps_while_the_swap_is_repeated_neither_ends_nor_prolongs_it(
        responder, postgres, audited, clock, jump_by):
    """Here one limit spans many waits: the database is away all the time."""
    world, (variables, jump) = audited, clock
    with PgProxy(postgres.port) as proxy:
        server = responder(world, DATABASE_URL=proxy.url(world.settings()["DATABASE_URL"]), WARMUP_WORKERS=2,
                           WARMUP_DB_CONNECTIONS=1, WARMUP_DB_TIMEOUT_MS=1500, **QUICK, **variables)
        serves(server, world)
        account = world.add_account()
        with window(Raw(server), world, account) as answer:
            proxy.refuse()
            proxy.disconnect()
            begun = time.monotonic()
            world.sandbox.hold(world.address(account)).release()
            time.sleep(0.5)
            jump(jump_by)
            check_not_confirmed(answer.result(30))
            assert 1.4 < time.monotonic() - begun < 1.5 + SLACK
        assert world.state(account) == STUCK
        proxy.accept()
        assert world.retry(Raw(server), account).status == 200
        assert server.stop()


# --- names ---------------------------------------------------------------------------------------

SLOW_RESOLVER = """\
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result)
{
	int (*next)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
	*(void **)&next = dlsym(RTLD_NEXT, "getaddrinfo");
	if (node == NULL || strstr(node, "black-hole") == NULL)
		return next(node, service, hints, result);
	usleep(3000000);
	return EAI_AGAIN;
}
"""


@pytest.fixture(scope="module")
def black_hole_resolver(run_folder):
    """To be preloaded: asks for names with "black-hole" in them are answered by nobody."""
    if SANITIZER_VARIABLES:
        pytest.skip("a sanitizer wants to be loaded first")
    source, library = run_folder / "resolver.c", run_folder / "resolver.so"
    source.write_text(SLOW_RESOLVER)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def test_name_that_nobody_resolves_is_given_up_in_time_and_nothing_piles_up(responder, audited, black_hole_resolver):
    """B15."""
    world = audited
    server = responder(world, INSTANTLY_API_URL="https://black-hole.invalid/api/v2", LD_PRELOAD=black_hole_resolver,
                       WARMUP_WORKERS=4, WARMUP_DB_CONNECTIONS=1, WARMUP_UPSTREAM_CONNECT_TIMEOUT_MS=150, **QUICK)
    accounts = [world.add_account() for _ in range(24)]
    assert world.retry(Raw(server), world.add_account(state=WARMING)).status == 409
    most, base = 0, threads(server)
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(timed, world.retry, Raw(server), account) for account in accounts]
        while not all(answer.done() for answer in answers):
            most = max(most, threads(server))
            time.sleep(0.01)
    for account, answer in zip(accounts, answers):
        answer, took = answer.result()
        assert answer.status == 502 and answer.error["details"]["reason"] in ("timeout", "unreachable")
        assert took < 0.15 + SLACK  # and not as long as the resolver takes
        assert world.state(account) == STUCK
    assert most <= base + 4 * 20, f"{most} threads"  # 3 s of calls that take 150 ms
    wait_for(lambda: threads(server) == base, 10, "the end of the resolver's threads")
    assert server.stop()


# --- HTTP/2 --------------------------------------------------------------------------------------

def test_http_2_is_not_spoken_even_if_offered(responder, audited, tmp_path):
    """B24: so there is no GOAWAY to be misread."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                    "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    context.set_alpn_protocols(["h2", "http/1.1"])
    with Sandbox(UPSTREAM_KEY, context) as box:
        server = responder(audited, INSTANTLY_API_URL=box.url, INSTANTLY_CA_FILE=tmp_path / "cert.pem", **QUICK)
        account = audited.add_account()
        assert audited.retry(Raw(server), account).status == 200
        call, = box.enables(audited.address(account))
        assert call.head.split(b"\r\n")[0].endswith(b" HTTP/1.1")
        assert server.stop()


# --- more callers than workers -------------------------------------------------------------------

def test_two_hundred_callers_while_instantly_holds_all_cost_no_memory_and_lose_nothing(responder, audited):
    """B26: they wait in the socket's queue, and are served in their turn."""
    world = audited
    server = responder(world, WARMUP_WORKERS=8, WARMUP_DB_CONNECTIONS=2, **QUICK)
    serves(server, world, workers=8)

    def resident():
        lines = pathlib.Path(f"/proc/{server.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

    before = resident()
    accounts = [world.add_account() for _ in range(200)]
    holds = [world.sandbox.hold(world.address(account)) for account in accounts]
    with contextlib.ExitStack() as peers:
        opened = [peers.enter_context(stack.fcgi_connect(server.socket_path)) for _ in accounts]
        for peer, account in zip(opened, accounts):
            peer.sendall(whole(world, account))
        wait_for(lambda: sum(hold.arrived.is_set() for hold in holds) == 8)
        assert stack.descriptors(server.pid) <= 128
        assert SANITIZER_VARIABLES or resident() < before + 1024
        for hold in holds:
            hold.release()
        assert [read_answer(peer).status for peer in opened] == [200] * 200
    for account in accounts:
        assert (world.state(account), world.enables(account)) == (WARMING, 1)
        audit.check(world, account)
    assert SANITIZER_VARIABLES or resident() < before + 1024
    assert server.stop()

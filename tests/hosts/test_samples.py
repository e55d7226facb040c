"""The samples as such: that each is tried, the page that systemd writes of its units, limits, and what a forgotten line does."""

import concurrent.futures
import re
import subprocess

import pytest

from conftest import WARMING, wait_for
from hosts import servers
from hosts.test_answers import assert_ours, untouched

SLOWEST_SECONDS = 22


def test_every_sample_is_tried():
    found = {str(path.relative_to(servers.SAMPLES)) for path in servers.SAMPLES.rglob("*")
             if path.name.endswith((".conf", ".htaccess"))}
    assert found == set(servers.HOSTS)


def test_systemd_finds_little_to_say_about_the_units(tmp_path):
    for source in (servers.SAMPLES / "systemd").iterdir():
        text = source.read_text().replace("/usr/local/lib/warmup/warmup.fcgi", "/bin/true")  # which is there to be found
        (tmp_path / source.name).write_text(re.sub(r"(?m)^Documentation=.*\n", "", text))
    units = [tmp_path / "warmup.socket", tmp_path / "warmup.service"]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
    assert "warmup" not in done.stdout + done.stderr, done
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", units[1]], capture_output=True, text=True)
    assert float(re.search(r"exposure level for \S+ (\S+)", done.stdout)[1]) <= 1.5


def test_slowest_answer_is_waited_for(host, world):
    """All servers at once: with the default settings an answer may take 22 s."""
    account = world.add_account()
    held = world.sandbox.hold(world.address(account))
    clients = [host(sample, WARMUP_UPSTREAM_TIMEOUT_MS=SLOWEST_SECONDS * 1000) for sample in servers.HOSTS]
    try:
        with concurrent.futures.ThreadPoolExecutor(len(clients)) as pool:
            answers = list(pool.map(lambda client: world.retry(client, account), clients))
    finally:
        held.release()
    for answer in answers:
        assert_ours(answer, 502, retry_after="5")
        assert answer.error["details"] == {"reason": "timeout"}


@pytest.mark.parametrize("sample", [sample for sample in servers.HOSTS if sample.startswith(("apache", "shared"))])
def test_apache_without_its_line_for_the_key_answers_a_clean_401(host, world, sample):
    def forget(text):
        changed = re.sub(r"(?m)^\s*(CGIPassAuth|SetEnvIf Authorization).*\n", "", text)
        assert changed != text or not text.count("Authorization")
        return changed

    account = world.add_account()
    assert_ours(world.retry(host(sample, forget), account), 401, www_authenticate="Bearer")
    assert untouched(world, account)


@pytest.mark.parametrize("sample", ["nginx.conf", "apache-proxy-fcgi.conf", "lighttpd-external.conf"])
def test_host_that_loses_patience_does_not_double_the_effect(host, world, sample):
    def hurry(text):
        changed = re.sub(r"(timeout=|read_timeout |\"read-timeout\" => )30", r"\g<1>1", text)
        assert changed != text
        return changed

    client, account = host(sample, hurry), world.add_account()
    held = world.sandbox.hold(world.address(account))
    assert world.retry(client, account).status == 504
    held.release()
    wait_for(lambda: world.state(account) == WARMING)
    assert_ours(world.retry(client, account), 409)
    assert world.enables(account) == 1

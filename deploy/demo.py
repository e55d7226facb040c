"""The demo itself, once everything is installed and built; see deploy/demo."""

import argparse
import json
import pathlib
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import uuid

TOP = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP / "tests"))

import stack  # noqa: E402
from sandbox.instantly import Sandbox  # noqa: E402

# The accounts: the address (its first part tells the sandbox how to behave), the state, what a retry leads to.
ACCOUNTS = [
    ("joe@acme.example", "pending", "not_started", "200: the published example"),
    ("ann@acme.example", "pending", "not_started", "200"),
    ("eve@acme.example", "active", "warmed", "409: not stuck, Instantly is not asked"),
    ("rate-limited@acme.example", "pending", "not_started", "502: Instantly says 429 with Retry-After: 7"),
    ("job-failed@acme.example", "pending", "not_started", "502: Instantly accepts, then its job fails"),
    ("hang@acme.example", "pending", "not_started", "502 after 3 s: Instantly does not answer"),
    (None, "pending", "not_started", "409: no email address"),
]
BOLD, PLAIN = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")


class Demo:
    def __init__(self, folder, port):
        self.folder, self.port = folder, port
        self.user = str(uuid.uuid4())
        self.key = None
        self.ids = []

    def warmupctl(self, *arguments):
        """Run a command against the private database, and give what it printed."""
        done = subprocess.run([TOP / "build/warmupctl", *arguments], check=True, capture_output=True, text=True,
                              env={"PATH": stack.PATH, "DATABASE_URL": self.postgres.url("demo")})
        return done.stdout

    def prepare_database(self):
        self.postgres.create_database("demo")
        self.warmupctl("migrate", "--role")
        self.key = json.loads(self.warmupctl("key", "add", "--user", self.user, "--name", "demo", "--json"))["key"]
        password = secrets.token_hex(16)
        self.connection = self.postgres.connect("demo")
        cursor = self.connection.cursor()
        cursor.execute("CREATE ROLE warmup LOGIN PASSWORD %s IN ROLE warmup_responder", (password,))
        cursor.execute("INSERT INTO email_domains (user_id, domain, status) VALUES (%s, 'acme.example', 'verified')"
                       " RETURNING id", (self.user,))
        domain = cursor.fetchone()[0]
        for address, status, warmup_status, _ in ACCOUNTS:
            cursor.execute("INSERT INTO accounts (user_id, email_address, domain_id, status, warmup_status, daily_limit,"
                           " agentmail_inbox_id) VALUES (%s, %s, %s, %s, %s, 50, 'inb_abc123') RETURNING id",
                           (self.user, address, domain, status, warmup_status))
            self.ids.append(cursor.fetchone()[0])
        return self.postgres.url("demo", "warmup", password)

    def start(self):
        print("demo: starting PostgreSQL, the sandbox Instantly and lighttpd", flush=True)
        self.postgres = stack.Postgres(self.folder / "postgres").start()
        upstream_key = secrets.token_hex(16)
        self.sandbox = Sandbox(upstream_key).start()
        settings = {"DATABASE_URL": self.prepare_database(), "INSTANTLY_API_KEY": upstream_key,
                    "INSTANTLY_API_URL": self.sandbox.url, "WARMUP_UPSTREAM_TIMEOUT_MS": 3000}
        self.web = stack.Lighttpd(self.folder / "lighttpd", TOP / "build/warmup.fcgi", settings, mount="/",
                                  port=self.port).start()
        print(f"\n  web server     {self.web.url}\n  database       127.0.0.1:{self.postgres.port}, private and new"
              f"\n  Instantly      {self.sandbox.url}, a sandbox\n  settings, logs {self.web.folder.relative_to(TOP)}")

    def stop(self):
        for server in ("web", "sandbox", "postgres"):
            if hasattr(self, server):
                getattr(self, server).stop()

    def url(self, account):
        return f"{self.web.url}/api/email/accounts/{account}/retry-warmup"

    def show(self, title, account, key, expected):
        """Run curl and show the command, the status, the headers that matter, and the body. Whether it was as expected."""
        print(f"\n{BOLD}{title}{PLAIN}\n")
        lines = [["curl", "--request", "PATCH"], ["--url", self.url(account)],
                 ["--header", f"Authorization: Bearer {key}"]]
        print("$ " + " \\\n    ".join(shlex.join(line) for line in lines))
        done = subprocess.run([*sum(lines, []), "--silent", "--show-error", "--include", "--max-time", "60"],
                              capture_output=True, text=True)
        head, _, body = done.stdout.replace("\r\n", "\n").partition("\n\n")
        status, *headers = head.split("\n")
        print(f"\n{status}{done.stderr}")
        for header in headers:
            if re.match("(content-type|retry-after|www-authenticate|x-request-id):", header, re.I):
                print(header)
        print("\n" + (json.dumps(json.loads(body), indent=2, ensure_ascii=False) if body else "(no body)"), flush=True)
        if status.split()[1:2] == [str(expected)]:
            return True
        print(f"demo: expected {expected}; the log is\n{self.web.log()}", file=sys.stderr)
        return False

    def state(self, account):
        cursor = self.connection.cursor()
        cursor.execute("SELECT status || ' / ' || warmup_status FROM accounts WHERE id = %s", (account,))
        return cursor.fetchone()[0]

    def examples(self):
        stuck, limited = self.ids[0], self.ids[3]
        print(f"\nThe inbox {ACCOUNTS[0][0]} is stuck: its row says {self.state(stuck)}.")
        good = self.show("1. The published example: ask Instantly again, and move the row", stuck, self.key, 200)
        asked = [call.body.decode() for call in self.sandbox.enables(ACCOUNTS[0][0])]
        print(f"\nThe row now says {self.state(stuck)}. Instantly was asked {len(asked)} time{'s' * (len(asked) != 1)}:"
              f" {' '.join(asked)}")
        good &= self.show("2. The same again: nothing left to do", stuck, self.key, 409)
        good &= self.show("3. A key that nobody issued", self.ids[1], "pk_live_" + "0" * 64, 401)
        good &= self.show("4. Instantly refuses: come back after Retry-After", limited, self.key, 502)
        print(f"\nThe row still says {self.state(limited)}: a later call can free it.")
        return good

    def invite(self):
        print(f"\n{BOLD}Try more{PLAIN} (the key above opens all of them):\n")
        for account, (address, status, warmup_status, what) in zip(self.ids, ACCOUNTS):
            print(f"  {account}  {address or '-':26} {status + '/' + warmup_status:20} {what}")
        print(f"\n  curl {self.web.url}/healthz\n\nServing until Ctrl-C.", flush=True)


def main():
    parser = argparse.ArgumentParser(prog="deploy/demo", description="See README.md.")
    parser.add_argument("--once", action="store_true", help="end after the examples")
    parser.add_argument("--port", type=int, default=8080, help="of the web server; the next free one is taken")
    arguments = parser.parse_args()
    folder = TOP / "build" / f"demo-{secrets.token_hex(3)}"
    folder.mkdir(parents=True)
    # From here on a signal ends the demo the same way as the examples do: through the `finally`. Ctrl-C, too, where a
    # script has started it in the background, which makes it ignore that.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    demo, good = Demo(folder, arguments.port), False
    try:
        demo.start()
        good = demo.examples()
        if good and not arguments.once:
            demo.invite()
            signal.pause()
    except stack.Failed as failure:
        print(f"demo: {failure}", file=sys.stderr)
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        print("\ndemo: stopping what was started", flush=True)
        demo.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

"""More private servers for these tests, in the manner of stack.py: a standby of PostgreSQL, and PgBouncer."""

import contextlib
import shutil

import stack

PRIMARY = {"wal_level": "replica", "max_wal_senders": 4, "hot_standby": "on", "synchronous_commit": "on",
           "wal_keep_size": "64MB", "wal_receiver_timeout": "5s", "wal_retrieve_retry_interval": "100ms"}


class Standby(stack.Postgres):
    """Follows another server by streaming replication, until it is promoted."""

    name = "PostgreSQL standby"

    def __init__(self, folder, primary):
        super().__init__(folder, primary.settings)
        self.primary, self.password = primary, primary.password

    def _initdb(self):
        data = self.folder / "data"
        data.mkdir(mode=0o700)
        if stack.os.geteuid() == 0:
            shutil.chown(data, "postgres", "postgres")
        child = self._run(self._bin / "pg_basebackup", "-d", self.primary.url(), "-D", "data", "-R", "-X", "stream",
                          "-c", "fast", "--no-sync")
        ended = child.wait(60)
        child.stop()
        if not ended or child.returncode != 0:
            raise self._failed("pg_basebackup failed")
        self._made = True

    def ask(self, text):
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(text)
            return cursor.fetchall() if cursor.description else None

    def caught_up(self):
        with contextlib.closing(self.primary.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_wal_lsn()")
            target = cursor.fetchone()[0]
        return stack.wait_until(lambda: self.ask(f"SELECT pg_last_wal_replay_lsn() >= '{target}'") == [(True,)], 20)

    def cut_off(self):
        """It gets nothing more from its primary, and does not know."""
        self.ask("ALTER SYSTEM SET primary_conninfo = ''")
        self.ask("SELECT pg_reload_conf()")
        assert stack.wait_until(lambda: not self.ask("SELECT 1 FROM pg_stat_wal_receiver"), 20)

    def promote(self):
        assert self.ask("SELECT pg_promote(true, 30)") == [(True,)]


class PgBouncer(stack.Server):
    """A pooler before a PostgreSQL server. The port stays the same over stop() and start()."""

    name = "PgBouncer"
    log_name = "pgbouncer.log"
    CONF = """\
[databases]
* = host=127.0.0.1 port={target}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = users
admin_users = postgres
{settings}
"""

    def __init__(self, folder, postgres, users, **settings):
        """`users`: name to password."""
        super().__init__(folder)
        self.postgres, self.users, self.settings, self.port = postgres, users, settings, stack.free_port()

    def start(self):
        binary = shutil.which("pgbouncer", path=stack.PATH)
        if not binary:
            raise stack.Failed("PgBouncer is not installed; run: deploy/packages faults")
        users = self._write("users", "".join('"{}" "{}"\n'.format(name, word.replace('"', '""'))
                                             for name, word in self.users.items()))
        conf = self._write("pgbouncer.ini", self.CONF.format(
            target=self.postgres.port, port=self.port,
            settings="\n".join(f"{name} = {value}" for name, value in self.settings.items())))
        if stack.os.geteuid() == 0:
            for file in (users, conf):
                shutil.chown(file, "postgres", "postgres")
        before = len(self.log())
        self.process = stack.Process([binary, conf.name], self.folder, self.folder / self.log_name,
                                     privileges=stack.as_account("postgres"))  # it refuses to be root
        if not stack.wait_until(lambda: "process up" in self.log()[before:] or not self.process.alive(), 20):
            self.stop()
        if not self.process.alive():
            raise self._failed("did not start")
        return self

    def stop(self):
        if self.process:
            # SIGINT would wait for queries that run, SIGTERM does not; it leaves nothing behind either way.
            self.process.stop(stack.signal.SIGTERM, 20)

    def restart(self):
        self.stop()
        return self.start()

    def url(self, url):
        """A connection URL of the server behind, changed to lead here."""
        changed = url.replace(f"@127.0.0.1:{self.postgres.port}/", f"@127.0.0.1:{self.port}/")
        assert changed != url
        return changed

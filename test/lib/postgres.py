# What it is: a private PostgreSQL cluster, from initdb to its removal.
# Who calls it: the live tests, the demo, the bench.
# Never: touches a cluster that it did not make, or listens on a TCP port.
import os
import re
import shutil
import signal
import subprocess

import psycopg2

import guardian
from processes import Process, eventually, free_port, make_directory, remove_directory, tail

MODES = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
DEFAULTS = {
    "listen_addresses": "''",
    "max_connections": 60,
    "max_worker_processes": 40,
    "fsync": "off",
    "log_line_prefix": "'%m [%p] %d '",
    "log_statement": "none",
    "max_prepared_transactions": 10,
    "shared_buffers": "'64MB'",
    "wal_level": "logical",
    "max_replication_slots": 20,
}
PLUGINS = f"pgoutput, test_decoding, pg_eventbus, {os.environ.get('WAL2JSON_PLUGIN', 'wal2json')}"


def directory_of(what, pg_config=None):
    """Where pg_config says that it is: bindir, pkglibdir, sharedir."""
    return subprocess.run([pg_config or os.environ.get("PG_CONFIG", "pg_config"), f"--{what}"], check=True,
                          stdout=subprocess.PIPE, text=True).stdout.strip()


def bin_directory(pg_config=None):
    return directory_of("bindir", pg_config)


def knows_setting(name, binaries=None):
    """Whether this server has the setting: new minors bring some, and older ones would not start with them."""
    known = subprocess.run([os.path.join(binaries or bin_directory(), "postgres"), "--describe-config"], check=True,
                           stdout=subprocess.PIPE, text=True).stdout
    return any(line.split("\t", 1)[0] == name for line in known.splitlines())


def unprivileged_user():
    """PostgreSQL refuses to run as root; everybody else runs it as himself."""
    return "postgres" if os.geteuid() == 0 else None


class PostgresCluster:
    """config: a dictionary of settings as they stand in postgresql.conf (texts in quotes). None removes one.
    environment: variables that the server has beside its own. initdb: further options of initdb. postgres: the program,
    where it is that of another installation. pg_config: of another version, whose programs are used then."""

    def __init__(self, preload=True, config=None, name="pg", copy_of=None, environment=None, initdb=(), postgres=None,
                 pg_config=None):
        self.user = unprivileged_user()
        self.superuser = "postgres"
        self.binaries = bin_directory(pg_config)
        self.postgres = postgres or os.path.join(self.binaries, "postgres")
        self.environment = dict(os.environ, **environment) if environment else None
        self.port = free_port()
        self.directory = make_directory(name, self.user)
        self.data = os.path.join(self.directory, "data")
        self.log_path = os.path.join(self.directory, "log")
        self.process = None
        self.config = dict(DEFAULTS, unix_socket_directories=f"'{self.directory}'", port=self.port)
        if knows_setting("output_plugin_libraries", self.binaries):
            self.config["output_plugin_libraries"] = f"'{PLUGINS}'"
        if preload:
            self.config["shared_preload_libraries"] = "'pg_eventbus'"
        self.config.update(config or {})
        if copy_of:
            self._run("pg_basebackup", "-D", self.data, "-R", "-c", "fast", "-d",
                      f"host={copy_of.directory} port={copy_of.port} user={self.superuser} dbname=postgres")
        else:
            self._run("initdb", "-D", self.data, "-U", self.superuser, "-A", "trust", "-N", "-E", "UTF8",
                      "--locale=C.UTF-8", "--no-instructions", *initdb)
            with open(os.path.join(self.data, "postgresql.conf"), "a") as text:
                text.write("include 'test.conf'\n")
        self.write_config()

    def _run(self, program, *arguments):
        process = Process([os.path.join(self.binaries, program), *arguments], self.log_path, self.user,
                          directory=self.directory)
        process.wait(120)
        if process.child.returncode != 0:
            raise RuntimeError(f"{program} failed:\n{tail(self.log_path)}")

    def write_config(self, **changes):
        """Settings of this and the next start; a running server takes them at reload()."""
        self.config.update(changes)
        path = os.path.join(self.data, "test.conf")
        with open(path, "w") as text:
            text.writelines(f"{name} = {value}\n" for name, value in self.config.items() if value is not None)
        shutil.copymode(os.path.join(self.data, "postgresql.conf"), path)
        if self.user:
            shutil.chown(path, self.user, self.user)

    def reload(self, **changes):
        self.write_config(**changes)
        self.read_config()

    def read_config(self):
        """Until every process has been told; a worker takes it in its next round."""
        loaded = "SELECT pg_conf_load_time()"
        before = self.execute(loaded)
        os.kill(self.process.pid, signal.SIGHUP)
        eventually(lambda: self.execute(loaded) > before, 60, "the configuration is read again")

    def start(self, wait=True, options=()):
        # A postmaster that was asked to go quickly leaves its children to themselves: SIGQUIT tells them.
        self.process = Process([self.postgres, "-D", self.data, *options], self.log_path, self.user, self.environment,
                               signal.SIGQUIT, self.directory)
        if wait:
            self.process.wait_ready(self.accepts)
        return self

    def accepts(self):
        try:
            self.connect().close()
            return True
        except psycopg2.OperationalError:
            return False

    def stop(self, mode="fast", seconds=60):
        """How long it took, in seconds."""
        return self.process.end(MODES[mode], seconds) if self.process else 0.0

    def restart(self, mode="fast", seconds=60):
        self.stop(mode, seconds)
        return self.start()

    def kill_postmaster(self):
        """kill -9; every child must then leave by itself."""
        children = {pid: guardian.start_time(pid) for pid in self.children()}
        self.process.end(signal.SIGKILL)
        eventually(lambda: not any(guardian.start_time(pid) == start for pid, start in children.items() if start),
                   30, "the children of a killed postmaster leave")

    def children(self):
        found = []
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{entry}/stat", "rb") as stat:
                    if int(stat.read().rpartition(b")")[2].split()[1]) == self.process.pid:
                        found.append(int(entry))
            except OSError:
                continue
        return found

    def wait_recovered(self, seconds=60):
        """After a crash of a child: until the server takes connections again."""
        eventually(self.accepts, seconds, "the server recovers from a crash")

    def remove(self):
        if self.process and self.process.running():
            self.stop("immediate")
        remove_directory(self.directory)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.remove()

    def connect(self, database="postgres", autocommit=True, **more):
        connection = psycopg2.connect(host=self.directory, port=self.port, dbname=database,
                                      **{"user": self.superuser, **more})
        connection.autocommit = autocommit
        return connection

    def execute(self, sql, *arguments, database="postgres"):
        connection = self.connect(database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, arguments or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def program(self, name, *arguments, standard_input=None):
        """Runs a client program of this server's version as the superuser; returns what it prints."""
        done = subprocess.run([os.path.join(self.binaries, name), "-h", self.directory, "-p", str(self.port), "-U",
                               self.superuser, *arguments], input=standard_input, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{name} failed: {done.stderr}")
        return done.stdout

    def start_receiving(self, database, slot, options, end, path="-"):
        """pg_recvlogical up to a place in the WAL. An option without "=" is given without a value."""
        return subprocess.Popen([
            os.path.join(bin_directory(), "pg_recvlogical"), "-h", self.directory, "-p", str(self.port), "-U",
            self.superuser, "-d", database, "-S", slot, "--start", "--no-loop", "--endpos", end, "-f", path,
            *[word for option in options for word in ("-o", option)]], stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def receive(self, database, slot, options, end=None):
        """All there is now, or up to a place in the WAL, as bytes, and what pg_recvlogical and the server complain about."""
        end = end or self.execute("SELECT pg_current_wal_flush_lsn()")[0][0]
        return self.start_receiving(database, slot, options, end).communicate(timeout=120)

    def log_size(self):
        return os.path.getsize(self.log_path)

    def log_text(self, since=0):
        with open(self.log_path, "rb") as text:
            text.seek(since)
            return text.read().decode(errors="replace")

    def wait_log(self, pattern, since=0, deadline=30):
        eventually(lambda: re.search(pattern, self.log_text(since)), deadline, f"the server's log says {pattern!r}")

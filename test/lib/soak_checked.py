# What it is: what PostgreSQL itself can check beside a soak: a standby that compares every page it replays, page checksums,
# and amcheck over all that is left.
# Who calls it: soak.py, for scripts/soak --checked.
# Never: counts a check that did not run.
import os
import re
import subprocess

from postgres import PostgresCluster, bin_directory
from processes import eventually

CONFIG = {"wal_consistency_checking": "'all'", "wal_keep_size": "'6GB'", "full_page_writes": "on"}
INITDB = ("--data-checksums",)
WORRIES = re.compile(r"FATAL|PANIC|inconsistent page|invalid page|checksum|WARNING: .*(?:page|relation)")
HARMLESS = re.compile(r"the database system is (?:starting up|shutting down|not yet accepting)|could not connect to the primary"
                      r"|could not receive data from WAL stream|terminating walreceiver|streaming replication .*timeout"
                      r"|connection to server|could not send|due to administrator command|checksums? are enabled"
                      r"|canceling statement|recovery is in progress|could not load library")


class Beside:
    """A streaming standby of a cluster that was made with INITDB and CONFIG."""

    def __init__(self, primary):
        self.primary = primary
        assert primary.execute("SHOW data_checksums") == [("on",)]
        assert primary.execute("SHOW wal_consistency_checking") == [("all",)]
        config = {name: value for name, value in primary.config.items() if name not in ("port", "unix_socket_directories")}
        self.standby = PostgresCluster(name="standby", copy_of=primary, config=config)

    def __enter__(self):
        self.standby.start()
        return self

    def __exit__(self, *_):
        self.standby.remove()

    def figures(self):
        return {"WAL compared, MB": int(self.standby.execute(
            "SELECT pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0') / 1048576")[0][0])}

    def wrong(self):
        """Ends both servers; what is wrong as texts."""
        end = self.primary.execute("SELECT pg_current_wal_flush_lsn()")[0][0]
        eventually(lambda: self.standby.execute("SELECT pg_last_wal_replay_lsn() >= %s", end)[0][0], 300,
                   "the standby has replayed all of it")
        found = []
        for name, server in (("primary", self.primary), ("standby", self.standby)):
            install = ["--install-missing"] if server is self.primary else []
            found += self._run(name, "pg_amcheck", "--all", "--heapallindexed", "--parent-check"
                               if server is self.primary else "--skip=none", "--jobs=2", *install, "-h", server.directory,
                               "-p", str(server.port), "-U", server.superuser)
            if server is self.primary:
                eventually(lambda: self.standby.execute("SELECT pg_last_wal_replay_lsn() >= %s", self.primary.execute(
                    "SELECT pg_current_wal_flush_lsn()")[0][0])[0][0], 60, "the standby has the extension amcheck, too")
        found += [f"the standby's log: {line}" for line in self.standby.log_text().splitlines()
                  if WORRIES.search(line) and not HARMLESS.search(line)][:10]
        for name, server in (("primary", self.primary), ("standby", self.standby)):
            server.stop("fast")
            found += self._run(name, "pg_checksums", "--check", "-D", server.data)
        return found

    def _run(self, name, program, *arguments):
        done = subprocess.run([os.path.join(bin_directory(), program), *arguments], capture_output=True, text=True,
                              user=self.primary.user, cwd="/")
        print(f"{name}: {program} ended with {done.returncode}. {done.stdout[-400:]}", flush=True)
        return [] if done.returncode == 0 else [f"{name}: {program}: {done.stdout[-1500:]}{done.stderr[-1500:]}"]

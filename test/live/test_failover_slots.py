# What it is: routes from the WAL on a standby that is promoted, where the server's slots go along (PostgreSQL 17).
# Who calls it: pytest.
# Never: shares a cluster: primaries die here.
import contextlib
import os
import signal
import threading

import psycopg2
import pytest

from database import Database
from postgres import knows_setting
from servers import PostgresCluster, eventually, stays

from test_wal import WAL_SETTINGS, publish_wal, text_of

__test__ = knows_setting("sync_replication_slots")  # older servers keep slots to themselves: test_promotion.py

KEYS = 5


@pytest.fixture
def pair(redis_server, name):
    """A database with a route from the WAL; its standby, which has the route's slot."""
    with PostgresCluster(config=dict(WAL_SETTINGS, fsync="on")) as primary:
        primary.execute("SELECT pg_create_physical_replication_slot('standby', true)")
        db = Database(primary, name)
        db.run("CREATE TABLE item (key text, n int, PRIMARY KEY (key, n))")
        db.broker("redis", redis_server.url)
        db.route("out", "redis", f"stream:{name}", source="wal")
        db.wait_state("out", "active", deadline=60)
        with PostgresCluster(name="standby", copy_of=primary, config=dict(
                WAL_SETTINGS, primary_slot_name="'standby'", hot_standby_feedback="on",
                sync_replication_slots="on")) as standby:
            yield db, standby


def wait_synced(db, standby):
    """Until the standby would continue where the primary is; traffic is what takes its slot there."""
    def synced():
        publish_wal(db, "traffic", {})
        return standby.execute("SELECT synced AND NOT temporary AND failover AND invalidation_reason IS NULL "
                               "FROM pg_replication_slots WHERE slot_name LIKE 'pg\\_eventbus\\_%'") == [(True,)]
    eventually(synced, 120, "the standby has the slot")


def promoted(standby, name):
    standby.execute("SELECT pg_promote()")
    return Database(standby, name, extension=False, create=False)


def items(redis_server, name):
    """What has arrived, (key, n) in order, each once; the same id is the same row."""
    found = {}
    for entry in (text_of(entry) for entry in redis_server.stream(name)):
        if entry["topic"].startswith("public.item."):
            key, n = entry["key"].split("/")
            assert found.setdefault(entry["id"], (key, int(n))) == (key, int(n))
    return list(found.values())


class Writer:
    """Commits rows of all keys, one a transaction, n counting up, until the server goes."""

    def __init__(self, db):
        self.committed, self.tried = {}, 0
        self._connection = db.connect()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def _write(self):
        with contextlib.suppress(psycopg2.Error), self._connection.cursor() as cursor:
            while True:
                key, n = f"k{self.tried % KEYS}", self.tried // KEYS + 1
                self.tried += 1
                cursor.execute("INSERT INTO item VALUES (%s, %s)", (key, n))
                self.committed[key] = n

    def wait_ended(self):
        self._thread.join(60)
        assert not self._thread.is_alive()
        self._connection.close()


def test_the_promoted_standby_goes_on_by_itself(pair, redis_server, name):
    """Under load, with what a user would set so that nothing is lost: every commit that was acknowledged arrives."""
    db, standby = pair
    wait_synced(db, standby)
    primary = db.cluster
    primary.reload(synchronous_standby_names="'*'", synchronized_standby_slots="'standby'")
    eventually(lambda: primary.execute("SELECT sync_state FROM pg_stat_replication") == [("sync",)], 60)
    writer = Writer(db)
    eventually(lambda: len(items(redis_server, name)) > 500, 120, "events flow")
    primary.kill_postmaster()
    writer.wait_ended()
    after = promoted(standby, name)
    after.wait_state("out", "active", deadline=60)
    assert after.run("SELECT failover FROM pg_replication_slots WHERE slot_name LIKE 'pg\\_eventbus\\_%%' AND active") == \
        [(True,)]
    after.run("INSERT INTO item SELECT 'later', g FROM generate_series(1, 10) g")
    there = set(after.run("SELECT key, n FROM item"))
    assert there >= {(key, n) for key, last in writer.committed.items() for n in range(1, last + 1)}
    eventually(lambda: set(items(redis_server, name)) >= there, 60, "all that was committed arrives")
    found = items(redis_server, name)
    assert set(found) == there, "what the new primary does not have was sent"
    for key in [*writer.committed, "later"]:
        of_key = [n for one, n in found if one == key]
        assert of_key == sorted(of_key), f"disorder within {key}"


def test_no_event_goes_out_that_the_standby_has_not(pair, redis_server, name):
    """While the standby receives nothing, nothing is sent that a promotion would take back; the route says why."""
    db, standby = pair
    wait_synced(db, standby)
    primary = db.cluster
    primary.reload(synchronized_standby_slots="'standby'")
    db.run("INSERT INTO item VALUES ('a', 1)")
    eventually(lambda: items(redis_server, name) == [("a", 1)], 60, "events flow")
    receiver = standby.execute("SELECT pid FROM pg_stat_wal_receiver")[0][0]
    os.kill(receiver, signal.SIGSTOP)
    try:
        db.run("INSERT INTO item VALUES ('a', 2)")
        db.wait_error("out", "synchronized_standby_slots", 60)
        assert [check["level"] for check in db.health() if check["name"] == "route out"] == ["error"]
        stays(lambda: items(redis_server, name) == [("a", 1)], 2, "an event goes out that the standby has not")
    finally:
        os.kill(receiver, signal.SIGCONT)
    eventually(lambda: items(redis_server, name) == [("a", 1), ("a", 2)], 60, "it goes out when the standby has it")
    db.wait_status("out", 60, state="active", last_error=lambda text: text and "synchronized_standby_slots" in text)


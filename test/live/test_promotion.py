# What it is: a standby that is promoted while events flow: routes from the log continue, those from the WAL say what is lost.
# Who calls it: pytest.
# Never: gives the standby a replication slot; failover slots are test_failover_slots.py's.
import re
import threading

import psycopg2
import pytest

from database import Database
from servers import PostgresCluster, eventually

from test_wal import WAL_SETTINGS, publish_wal, text_of

KEYS = 7
RATE = 0.002  # seconds between transactions


class Publisher:
    """Transactions, one after the other, that each publish to both sources and note that they did."""

    def __init__(self, db):
        self.connection, self.stopping = db.connect(), threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        n = 0
        try:
            with self.connection.cursor() as cursor:
                while not self.stopping.wait(RATE):
                    n += 1
                    cursor.execute("INSERT INTO sent SELECT %(n)s, eventbus.publish('shop.log', to_jsonb(%(n)s), %(key)s), "
                                   "eventbus.publish_wal('shop.wal', to_jsonb(%(n)s), %(key)s)",
                                   {"n": n, "key": f"k{n % KEYS}"})
        except psycopg2.Error:
            return  # the server is gone

    def stop(self):
        self.stopping.set()
        self.thread.join()
        self.connection.close()


@pytest.fixture
def promoted(redis_server, name):
    """A primary that is killed under load, once both routes and the standby have got somewhere; the promoted standby."""
    with PostgresCluster(config=WAL_SETTINGS) as primary:
        db = Database(primary, name)
        db.run("CREATE TABLE sent (n int, id bigint, lsn pg_lsn)")
        db.broker("redis", redis_server.url)
        db.route("log", "redis", f"stream:{name}-log", "shop.log")
        db.route("wal", "redis", f"stream:{name}-wal", "shop.wal", source="wal")
        db.wait_state("wal", "active", deadline=60)
        with PostgresCluster(name="standby", copy_of=primary, config=WAL_SETTINGS) as standby:
            publisher = Publisher(db)
            client = redis_server.client()
            eventually(lambda: client.xlen(f"{name}-log") > 500 and client.xlen(f"{name}-wal") > 500
                       and standby.execute("SELECT count(*) FROM sent", database=name)[0][0] > 500, 60, "events flow")
            eventually(lambda: standby.execute("SELECT wal_slot FROM eventbus.cursor WHERE wal_slot IS NOT NULL AND "
                                               "wal_lsn > '0/0'", database=name), 60, "the cursor has come along")
            primary.kill_postmaster()
            publisher.stop()
            db.connection.close()
            standby.execute("SELECT pg_promote()")
            db = Database(standby, name, extension=False, create=False)
            yield db
            db.connection.close()


def entries_of(redis_server, stream):
    return [text_of(entry) for entry in redis_server.stream(stream)]


def test_routes_from_the_log_go_on_at_their_cursors(promoted, redis_server, name):
    db = promoted
    sent = dict(db.run("SELECT n, id FROM sent"))
    last = db.publish("shop.log", 1000000, "k0")
    client = redis_server.client()

    def arrived():
        return {e["id"] for e in entries_of(redis_server, f"{name}-log")}

    eventually(lambda: arrived() >= {str(id) for id in sent.values()} | {str(last)}, 60,
               "all that was committed and replicated arrives")
    found = entries_of(redis_server, f"{name}-log")
    assert len({(e["id"], e["time"]) for e in found}) == client.xlen(f"{name}-log"), "a stream has each event once"
    for key in {e["key"] for e in found}:
        numbers = [int(e["payload"]) for e in found if e["key"] == key]
        assert numbers == sorted(numbers), f"{key}: {numbers}"
    db.wait_status("log", 60, state="active", lag=lambda lag: not lag)


def test_routes_from_the_wal_say_what_is_lost_and_begin_anew_when_told(promoted, redis_server, name):
    db, stream = promoted, f"{name}-wal"
    words = db.wait_status("wal", 60, state="lost")["last_error"]
    match = re.fullmatch(r"replication slot pg_eventbus_\d+_\d+ is gone: what was committed from ([0-9A-F/]+)"
                         r"(?: \(of the transaction there, from change (\d+)\))? on is not delivered", words)
    assert match and db.status("wal")["lag"] is None
    check = {row["name"]: row for row in db.health()}["route wal"]
    assert (check["level"], check["detail"]) == ("error", words)
    assert "eventbus.restart_route('wal')" in check["hint"]

    # What it says of the loss is true: a transaction was over when the next one's message was written.
    before = db.run("SELECT s.n FROM sent s JOIN sent next ON next.n = s.n + 1 WHERE next.lsn <= %s", match[1])
    arrived = {int(e["payload"]) for e in entries_of(redis_server, stream)}
    assert len(before) > 100 and {n for n, in before} <= arrived

    count = redis_server.client().xlen(stream)
    db.cluster.restart()
    db.reconnect()
    db.wait_status("wal", 60, state="lost", last_error=words)
    publish_wal(db, "shop.wal", "nobody's", "k0")
    marker = db.publish("shop.log", 1000000, "k0")
    eventually(lambda: entries_of(redis_server, f"{name}-log")[-1]["id"] == str(marker), 60, "the log's route continues")
    assert redis_server.client().xlen(stream) == count, "it never begins again by itself"

    db.run("SELECT eventbus.restart_route('wal')")
    db.wait_status("wal", 60, state="active", lag=lambda lag: lag is not None and not lag)
    for n in range(20):
        publish_wal(db, "shop.wal", n, "k0")
    eventually(lambda: redis_server.client().xlen(stream) >= count + 20, 60, "the route continues")
    assert [e["payload"] for e in entries_of(redis_server, stream)[count:]] == [str(n) for n in range(20)]
    assert {row["name"]: row for row in db.health()}["route wal"]["level"] == "ok"

# What it is: two who change the same thing at the same time: operators, the keeper and senders, each stopped at the worst
#             place.
# Who calls it: pytest.
# Never: leaves a stopped process behind.
import contextlib
import os
import signal

import pytest

from servers import PostgresCluster, eventually

from test_locks import open_transaction  # noqa: F401
from test_wal import WAL_SETTINGS, publish_wal


@pytest.fixture(scope="module")
def cluster():
    with PostgresCluster(config={**WAL_SETTINGS, "eventbus.rotation_period": 1, "eventbus.segment_size": "'1MB'"}) as server:
        yield server


@contextlib.contextmanager
def stopped(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        def is_stopped():
            with open(f"/proc/{pid}/stat") as stat:
                return stat.read().rpartition(")")[2].split()[0] == "T"
        eventually(is_stopped, why="the process stands")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# The log


def keeper_amid_rotation(db):
    """The keeper's process id, while it looks whether a segment has been passed."""
    db.publish("t", "more")  # it has a reason to look
    for _ in range(500):
        pid = db.one("SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
                     "AND backend_type = 'pg_eventbus keeper' AND query = 'rotating the event log'")
        if pid:
            return pid
    return None


def test_a_route_that_commits_after_a_younger_one_gets_its_events(db, stream, open_transaction, redis_server, name):  # noqa: F811
    """Its id is the lower one; the keeper has looked at the routes before, and locks the segment after."""
    older = open_transaction(f"SELECT eventbus.create_route('older', 'redis', 'stream:{name}:older')")
    db.route("younger", "redis", f"stream:{name}:younger")
    events = [db.publish("t", number) for number in range(10)]
    eventually(lambda: redis_server.client().xlen(f"{name}:younger") >= 10)

    def committed_amid_rotation():
        pid = keeper_amid_rotation(db)
        with stopped(pid) if pid else contextlib.nullcontext():
            if not pid or db.one("SELECT query FROM pg_stat_activity WHERE pid = %s", pid) != "rotating the event log":
                return False
            older.commit()
            return True
    eventually(committed_amid_rotation, 60, "the keeper is caught as it looks")
    eventually(lambda: set(events) <= set(redis_server.stream_ids(f"{name}:older")), 20, "the older one gets them all")


# What a sender knows of its routes


@contextlib.contextmanager
def sender_that_reads_routes(db, open_transaction, route="out"):  # noqa: F811
    """A transaction that commits after the sender has begun to read its routes, and before it reads any event."""
    pid = db.sender(route)
    holder = open_transaction("LOCK eventbus.route_config IN ACCESS EXCLUSIVE MODE")
    db.run("UPDATE eventbus.broker_config SET url = url")
    eventually(lambda: db.one("SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s", pid) == "Lock")
    yield holder.cursor()
    holder.commit()


def test_what_is_published_with_a_change_of_topics_is_judged_by_the_new_ones(db, redis_server, open_transaction, name):  # noqa: F811
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"stream:{name}", "a")
    db.publish("a", 1)
    eventually(lambda: len(redis_server.stream_ids(name)) == 1)
    with sender_that_reads_routes(db, open_transaction) as cursor:
        cursor.execute("SELECT eventbus.alter_route('out', topics => 'a, b')")
        cursor.execute("SELECT eventbus.publish('b', '2')")
    db.publish("a", 3)
    eventually(lambda: len(redis_server.stream_ids(name)) == 3, why="all have come, the one with the change, too")
    assert [entry["topic"] for entry in redis_server.stream(name)] == [b"a", b"b", b"a"]


@pytest.fixture
def wal_route(db, redis_server, name):
    client = redis_server.client()
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"list:{name}", "a", source="wal")
    db.wait_state("out", "active", deadline=60)
    publish_wal(db, "a", 1)
    eventually(lambda: client.llen(name) == 1)
    return client


def test_the_same_from_the_wal(db, wal_route, open_transaction, name):  # noqa: F811
    with sender_that_reads_routes(db, open_transaction) as cursor:
        cursor.execute("SELECT eventbus.alter_route('out', topics => 'a, b')")
        cursor.execute("SELECT eventbus.publish_wal('b', '2')")
    publish_wal(db, "a", 3)
    eventually(lambda: wal_route.llen(name) >= 2)
    eventually(lambda: wal_route.llen(name) == 3, 10, "the event with the change is there, too")


def test_a_new_route_from_the_wal_gets_what_is_published_with_it(db, wal_route, open_transaction, name):  # noqa: F811
    here = db.one("SELECT pg_current_wal_lsn()")
    publish_wal(db, "a", 2)
    eventually(lambda: db.one("SELECT confirmed_flush_lsn > %s FROM pg_replication_slots WHERE slot_name ~ "
                              "'^pg_eventbus' AND database = current_database()", here), 60, "the slot's place is confirmed")
    with sender_that_reads_routes(db, open_transaction) as cursor:
        cursor.execute("SELECT eventbus.create_route('new', 'redis', %s, 'b', '{\"source\": \"wal\"}')", (f"list:{name}-new",))
        cursor.execute("SELECT eventbus.publish_wal('b', '2')")
    eventually(lambda: wal_route.llen(f"{name}-new") == 1, 10, "it takes what commits with it")


def test_an_extension_made_anew_at_once_begins_anew(db, stream, redis_server, name):
    """Brokers and routes have the numbers that those before them had; the workers have seen no time without."""
    for number in range(20):
        db.publish("t", number)
    stream(20)
    db.wait_status("out", delivered=20)
    pid = db.sender("out")
    db.run("BEGIN; DROP EXTENSION pg_eventbus CASCADE; CREATE EXTENSION pg_eventbus")
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"stream:{name}")
    db.run("COMMIT")
    db.publish("t", "new")
    db.wait_status("out", sender_pid=lambda now: now not in (None, pid), delivered=1)
    assert db.one("SELECT delivered FROM eventbus.cursor") in (0, 1)


# Transactions that operators keep open


OPEN = ["drop_route('other')", "pause_route('other')", "alter_route('other', topics => 'x')"]


@pytest.mark.parametrize("change", OPEN)
def test_a_route_that_is_being_changed_holds_up_no_other(db, stream, redis_server, open_transaction, change, name):  # noqa: F811
    redis_server.client().set(f"{name}:other", "no stream")
    db.route("other", "redis", f"stream:{name}:other", "poison, fine")
    db.publish("fine", 0)
    db.wait_dead("other", 1)
    stream(1)
    holder = open_transaction(f"SELECT eventbus.{change}")
    for number in range(1, 6):
        db.publish("poison", number)
        stream(number + 1)
    holder.rollback()
    db.wait_dead("other", 6)


def test_dead_letters_that_are_sent_again_wait_for_nobody(db, stream, redis_server, open_transaction, name):  # noqa: F811
    """Their route is being dropped when they have arrived, and is not in the end."""
    client = redis_server.client()
    client.set(f"{name}:other", "no stream")
    db.route("other", "redis", f"stream:{name}:other", "poison")
    letters = [db.publish("poison", number) for number in range(3)]
    db.wait_dead("other", 3)
    client.delete(f"{name}:other")
    stream(3)
    with stopped(db.sender("other")):
        assert db.one("SELECT eventbus.redeliver()") == 3
        holder = open_transaction("SELECT eventbus.drop_route('other')")
    eventually(lambda: redis_server.stream_ids(f"{name}:other") == letters, why="they arrive")
    for number in range(3, 6):
        db.publish("fine", number)
        stream(number + 1)
    holder.rollback()
    eventually(lambda: db.one("SELECT count(*) FROM eventbus.dead_letter_store") == 0, why="they are forgotten")
    assert redis_server.stream_ids(f"{name}:other") == letters

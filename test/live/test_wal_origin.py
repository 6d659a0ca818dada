# What it is: the route option "origin": what replication has written stays out, and the ids of the rest do not change.
# Who calls it: pytest.
# Never: takes silence for proof: a route of "any" beside it has what the other one leaves out.
import contextlib
import json

import pytest

from database import Database
from servers import PostgresCluster, eventually

from test_wal import WAL_SETTINGS, publish_wal, text_of


@pytest.fixture(scope="module")
def cluster():
    with PostgresCluster(config=WAL_SETTINGS) as server:
        yield server


@pytest.fixture
def both(redis_server, name):
    """both(db): a route of each kind; streams(any, none) waits for so many entries of each and returns them."""
    def streams(**counts):
        found = {}
        for origin, count in counts.items():
            key = f"{name}_{origin}"
            eventually(lambda: redis_server.client().xlen(key) >= count, 60,
                       f"{count} entries of {origin}, there are {redis_server.client().xlen(key)}")
            found[origin] = [text_of(entry) for entry in redis_server.stream(key)]
            assert len(found[origin]) == count, [entry["id"] for entry in found[origin]]
        return found["any"], found["none"]

    def make(db, **options):
        db.broker("redis", redis_server.url)
        for origin in ("any", "none"):
            db.route(origin, "redis", f"stream:{name}_{origin}", source="wal", origin=origin, **options)
        for origin in ("any", "none"):
            db.wait_state(origin, "active", deadline=60)
        return streams
    return make


@pytest.fixture
def origin(cluster, db):
    """origin(cursor): what the session writes meanwhile has come by replication, as far as the WAL can tell."""
    made = db.name[:60]
    db.run("SELECT pg_replication_origin_create(%s)", made)

    @contextlib.contextmanager
    def of(cursor):
        cursor.execute("SELECT pg_replication_origin_session_setup(%s)", (made,))
        yield
        cursor.execute("SELECT pg_replication_origin_session_reset()")
    yield of
    eventually(lambda: db.run("SELECT pg_replication_origin_drop(%s)", made), 30)


def fill(cursor, first, rows):
    cursor.execute("INSERT INTO item SELECT g, repeat('x', 200) FROM generate_series(%s, %s) g", (first, first + rows - 1))


@pytest.mark.parametrize("rows", [3, 15000], ids=["small", "streamed"])
def test_what_has_an_origin_is_left_out(db, both, origin, rows):
    """Rows, TRUNCATE and messages of whole transactions; the first one also so large that it is decoded before its
    COMMIT, which tells of the message whose it is."""
    db.run("CREATE TABLE item (id int PRIMARY KEY, words text)")
    streams = both(db, format="row")
    connection = db.connect(autocommit=False)
    cursor = connection.cursor()
    with origin(cursor):
        connection.commit()
        fill(cursor, 1, rows)
        publish_wal(db, "theirs", 1, connection=connection)
        cursor.execute("SAVEPOINT a")
        cursor.execute("DELETE FROM item WHERE id = 1")
        cursor.execute("RELEASE a")
        cursor.execute("UPDATE item SET words = 'y' WHERE id = 2")
        connection.commit()
        cursor.execute("TRUNCATE item")
        connection.commit()
        for topic in ("theirs.a", "theirs.b"):  # a transaction of nothing else
            publish_wal(db, topic, 1, connection=connection)
        connection.commit()
        publish_wal(db, "theirs.now", 1, function="publish_now", connection=connection)
        connection.commit()
    fill(cursor, 1, rows)
    publish_wal(db, "ours", 1, connection=connection)
    cursor.execute("TRUNCATE item")
    connection.commit()
    publish_wal(db, "ours.now", 1, function="publish_now", connection=connection)
    connection.commit()
    publish_wal(db, "ours.alone", 1, connection=connection)
    connection.commit()
    connection.close()
    ours, theirs = rows + 4, rows + 7
    everything, local = streams(any=ours + theirs, none=ours)
    assert local == everything[theirs:], "the same ids"
    assert [e["topic"] for e in local[rows:]] == ["ours", "public.item.truncate", "ours.now", "ours.alone"]


def test_a_part_of_a_transaction_has_an_origin(db, both, origin):
    """The WAL tells it of each row, and of the COMMIT: a message goes with the latter."""
    db.run("CREATE TABLE item (id int PRIMARY KEY, words text)")
    streams = both(db)
    connection = db.connect(autocommit=False)
    cursor = connection.cursor()
    fill(cursor, 1, 1)
    with origin(cursor):
        fill(cursor, 2, 2)
        publish_wal(db, "message", 1, connection=connection)
    fill(cursor, 4, 1)
    connection.commit()
    everything, local = streams(any=5, none=3)
    assert [e.get("key") for e in everything] == ["1", "2", "3", None, "4"]
    assert local == [everything[0], everything[3], everything[4]]
    assert [e["id"].partition("-")[2] for e in local] == ["1", "4", "5"], "counted whether taken or not"
    with origin(cursor):
        connection.commit()
        publish_wal(db, "with.their.commit", 1, connection=connection)
        fill(cursor, 10, 1)
        connection.commit()
    connection.commit()
    fill(cursor, 20, 1)
    with origin(cursor):
        connection.commit()
    fill(cursor, 30, 1)
    connection.commit()
    connection.close()
    everything, local = streams(any=9, none=4)
    assert [e.get("key") for e in everything[5:]] == [None, "10", "20", "30"]
    assert local[3] == everything[8]


def test_who_wants_none_does_not_meet_what_is_wrong_with_it(db, both, origin):
    """A replicated row that cannot be made an event is a dead letter of the route that asks for it alone."""
    db.run("CREATE TYPE mood AS ENUM ('ok', 'bad')")
    db.run("CREATE TABLE ward (id int PRIMARY KEY, patient mood)")
    db.run("CREATE TABLE kept AS SELECT 'bad'::mood AS patient")
    db.run("DELETE FROM pg_enum WHERE enumtypid = 'mood'::regtype AND enumlabel = 'bad'")
    streams = both(db, tables="public.ward")
    with origin(db.connection.cursor()):
        db.run("INSERT INTO ward SELECT 1, patient FROM kept")
    db.run("INSERT INTO ward VALUES (2, 'ok')")
    streams(any=1, none=1)
    assert [letter["key"] for letter in db.wait_dead("any")] == ["1"] and db.dead("none") == []


def test_a_subscription_makes_no_loop(cluster, both, name):
    """What another server's rows become here goes to "any" alone; our own goes to both."""
    with PostgresCluster(config=WAL_SETTINGS, name="publisher") as publisher:
        there = Database(publisher, name, extension=False)
        here = Database(cluster, f"{name}_here")
        try:
            for db in (there, here):
                db.run("CREATE TABLE item (id int PRIMARY KEY, words text)")
            streams = both(here)
            there.run("INSERT INTO item VALUES (1, 'copied')")
            there.run("CREATE PUBLICATION items FOR TABLE item")
            here.run(f"CREATE SUBSCRIPTION items CONNECTION 'host={publisher.directory} port={publisher.port} "
                     f"dbname={name} user=postgres' PUBLICATION items")
            eventually(lambda: here.one("SELECT count(*) FROM item") == 1, 60, "the first copy")
            eventually(lambda: here.one("SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel"), 60)
            there.run("INSERT INTO item VALUES (2, 'applied')")
            there.run("UPDATE item SET words = 'again' WHERE id = 1")
            eventually(lambda: here.one("SELECT count(*) FROM item WHERE words IN ('applied', 'again')") == 2, 60)
            here.run("INSERT INTO item VALUES (3, 'ours')")
            everything, local = streams(any=4, none=1)
            assert local == everything[-1:] and local[0]["key"] == "3"
            here.run("DROP SUBSCRIPTION items")
        finally:
            here.drop()
            there.drop()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("time", [None, "infinity", "-infinity", "4713-01-01 BC", "2001-01-01"],
                         ids=["none", "never", "before_all", "long_ago", "years_ago"])
def test_a_time_that_an_origin_says_is_not_believed(db, redis_server, name, origin, time, streamed):
    """An event's age is that of its COMMIT here; a dead letter of it can be stored."""
    db.run("CREATE TABLE item (id int PRIMARY KEY, words text)")
    db.broker("redis", redis_server.url)
    redis_server.client().set(f"{name}-no-stream", "x")
    db.route("good", "redis", f"stream:{name}", source="wal", max_age=3600)
    db.route("bad", "redis", f"stream:{name}-no-stream", source="wal")
    for route in ("good", "bad"):
        db.wait_state(route, "active", deadline=60)
    rows = 4000 if streamed else 1
    with contextlib.closing(db.connect()) as connection, connection.cursor() as cursor, origin(cursor):
        cursor.execute("BEGIN")
        if time:
            cursor.execute("SELECT pg_replication_origin_xact_setup('0/1', %s)", (time,))
        cursor.execute("INSERT INTO item SELECT g, repeat('x', 900) FROM generate_series(1, %s) g", (rows,))
        cursor.execute("COMMIT")
    db.run("INSERT INTO item VALUES (0, 'here')")
    eventually(lambda: redis_server.client().xlen(name) == rows + 1, 60, "all are delivered, none is too old")
    first = text_of(redis_server.stream(name)[0])
    assert db.one("SELECT abs(extract(epoch FROM now() - %s::timestamptz)) < 600", first["time"])
    said = json.loads(first["payload"])["source"]["ts_ms"]
    assert said == {None: 946684800000, "2001-01-01": db.one("SELECT extract(epoch FROM '2001-01-01'::timestamptz) * 1000")
                    }.get(time)
    db.wait_dead("bad", rows + 1, 60)
    db.wait_status("bad", 60, in_flight=0, lag=lambda lag: lag is not None and not lag)

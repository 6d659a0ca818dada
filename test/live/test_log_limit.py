# What it is: eventbus.max_log_size with on_log_full = error: what is refused, what gives way before, what comes back.
# Who calls it: pytest.
# Never: looks at a segment by its name.
import threading

import psycopg2
import psycopg2.extras
import pytest

from database import Database
from servers import PostgresCluster, eventually

MB = 1024 * 1024
LIMIT = 8 * MB
SIZE = ("SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c WHERE c.relnamespace = 'eventbus'::regnamespace "
        "AND c.relkind = 'r' AND c.relname ~ '^log_[0-9]+$'")
EMPTY = 128 * 1024  # four tables without a row: the indexes of their large values, and maps
FULL = "53400"  # configuration_limit_exceeded


@pytest.fixture
def limit(setting):
    """The log of each database may take 8 MB."""
    setting("eventbus.max_log_size", "8MB")


@pytest.fixture
def kept(db, limit):
    """A route "out" that keeps everything: its broker is there, and it is paused."""
    db.broker("nobody", "redis:///nonexistent/redis.sock")
    db.route("out", "nobody", "list:x")
    db.run("SELECT eventbus.pause_route('out')")


def fill(db, megabytes=None, connection=None):
    """Publishes about that much, or until it is refused; returns what was said then."""
    with (connection or db.connection).cursor() as cursor:
        try:
            for _ in range(20 * megabytes if megabytes else 10000):
                cursor.execute("SELECT eventbus.publish_text('t', repeat('x', 440)) FROM generate_series(1, 100)")
        except psycopg2.Error as error:
            return error
    return None


def level(db, check):
    return {row["name"]: row["level"] for row in db.health()}.get(check)


def test_routes_that_take_none_of_it_let_all_of_it_go(db, redis_server, limit):
    """As fast as one session can publish; their senders write what they have passed as soon as the log needs room."""
    db.broker("redis", redis_server.url)
    for n in range(5):
        db.route(f"other {n}", "redis", "stream:unused", "other.#")
        db.wait_state(f"other {n}", "active")
    assert fill(db, 48) is None


def test_publishers_are_refused_while_the_broker_is_down_and_go_on_when_it_is_back(db, durable_redis, name, limit):
    db.broker("redis", durable_redis.url)
    db.route("out", "redis", f"stream:{name}")
    durable_redis.kill()
    committed, refused = [], []

    def publish(n):
        connection = db.connect()
        while not refused or n not in refused:
            try:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT eventbus.publish_text('t', repeat('x', 1500)), eventbus.publish_text('t', 'x')")
                    committed.extend(cursor.fetchone())
            except psycopg2.Error as error:
                assert error.pgcode == FULL and "max_log_size" in error.diag.message_detail
                assert "eventbus.status" in error.diag.message_hint
                refused.append(n)
        connection.close()
    threads = [threading.Thread(target=publish, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(refused) == [0, 1, 2, 3]
    assert 0.9 * LIMIT < db.one(SIZE) < 1.05 * LIMIT, "the bound holds, and is used"
    assert level(db, "log") == "error"
    durable_redis.start()
    eventually(lambda: durable_redis.client().xlen(name) >= len(committed), 60, "all that was committed is delivered")
    assert sorted(durable_redis.stream_ids(name)) == sorted(committed)
    eventually(lambda: db.one(SIZE) < EMPTY, 60, "nobody has to publish for the log to shrink")
    db.publish("t", "again")
    eventually(lambda: durable_redis.client().xlen(name) == len(committed) + 1)


def test_the_log_comes_down_when_the_route_is_dropped(db, kept):
    assert fill(db).pgcode == FULL
    db.run("SELECT eventbus.drop_route('out')")
    eventually(lambda: db.one(SIZE) < EMPTY, 60, "an empty log")
    assert fill(db, 1) is None


def test_a_transaction_fails_where_it_exceeds_the_limit_and_goes_on_from_its_savepoint(db, stream, limit):
    with db.connect(autocommit=False) as late, late.cursor() as cursor:
        cursor.execute("SELECT eventbus.publish_text('t', 'first')")
        cursor.execute("SAVEPOINT a")
        assert fill(db, 5, late) is None
        cursor.execute("ROLLBACK TO a")
        assert fill(db, 5, late).pgcode == FULL, "what was rolled back still takes disk"
        cursor.execute("ROLLBACK TO a")
        late.commit()
    assert [entry["payload"] for entry in stream(1)] == [b"first"]
    eventually(lambda: db.one(SIZE) < EMPTY, 60, "an empty log")


def test_another_transaction_keeps_the_log_full_until_it_ends(db, stream, limit):
    late = db.connect(autocommit=False)
    fill(db, 5, late)
    assert fill(db).pgcode == FULL
    held = {row["name"]: row for row in db.health()}["log"]
    assert held["level"] == "error" and str(late.info.backend_pid) in held["detail"]
    late.rollback()
    late.close()
    eventually(lambda: db.one(SIZE) < EMPTY, 60, "an empty log")
    assert fill(db, 1) is None


def test_large_payloads_count(db, kept):
    refused = None
    while refused is None:
        try:
            db.run("SELECT eventbus.publish_bytes('t', decode(repeat('ab', 300000), 'hex'))")
        except psycopg2.Error as error:
            refused = error
    assert refused.pgcode == FULL
    assert 0.9 * LIMIT < db.one(SIZE) < 1.05 * LIMIT
    with pytest.raises(psycopg2.Error) as too_large:
        db.run("SELECT eventbus.publish_text('t', repeat('x', 9000000))")
    assert too_large.value.pgcode == FULL


def test_retention_gives_way_before_anything_is_refused(db, stream, setting, limit):
    setting("eventbus.retention", "1h")
    db.publish("t", "kept")
    stream(1)
    eventually(lambda: db.one("SHOW eventbus.retention") == "1h")
    published = 1
    for _ in range(4 * LIMIT // MB):
        assert fill(db, 1) is None
        published += 2000
        eventually(lambda: db.status("out")["delivered"] == published, 60, "all of it is delivered")
    assert db.one(SIZE) <= LIMIT
    assert db.one("SELECT count(*) FROM eventbus.event") > 0, "there was room for some of it"


def test_bound_without_preload():
    with PostgresCluster(preload=False, config={"eventbus.max_log_size": "'8MB'"}) as cluster:
        db = Database(cluster, "bound")
        for _ in range(2):
            assert fill(db).pgcode == FULL
        assert 0.9 * LIMIT < db.one(SIZE) < 1.05 * LIMIT


def test_health_warns_before_the_log_is_full(db, kept):
    assert level(db, "log") == "ok"
    fill(db, 3)
    assert level(db, "log") == "ok"
    fill(db, 2)
    assert level(db, "log") == "warning"
    fill(db, 2)
    assert level(db, "log") == "error"
    assert "out" in {row["name"]: row["detail"] for row in db.health()}["log"]


def test_health_warns_of_a_route_that_lags(db, stream, setting):
    assert level(db, "lag") == "ok"
    setting("eventbus.lag_warning", "1s")
    db.run("SELECT eventbus.pause_route('out')")
    db.wait_state("out", "paused")
    db.publish("t", 1)
    eventually(lambda: level(db, "lag") == "warning", 30, "a lag of more than a second")
    db.run("SELECT eventbus.resume_route('out')")
    eventually(lambda: level(db, "lag") == "ok", 30, "no lag")
    setting("eventbus.lag_warning", "0")
    eventually(lambda: level(db, "lag") is None, 30, "no warning")

# What it is: events that no route took: counted by topic when they leave the log, and shown.
# Who calls it: pytest.
# Never: takes a count of nothing for proof: something else is counted beside it, of the same segment or a later one.
import os
import signal

import psycopg2
import pytest

from servers import eventually

MARK = "mark.of.test"


@pytest.fixture(autouse=True)
def soon(setting):
    """Where there is no route, nobody wakes the keeper."""
    setting("eventbus.safety_poll", "500ms")


def unrouted(db):
    return dict(db.run("SELECT topic, events FROM eventbus.unrouted"))


def counted(db):
    """What is counted once everything published so far has left the log, a mark of no route among it."""
    before = unrouted(db).get(MARK, 0)
    db.publish(MARK, 1)
    db.wait_log_empty()
    found = unrouted(db)
    assert found.pop(MARK, 0) == before + 1, "the mark is counted"
    return found


def check(db):
    [row] = [row for row in db.health() if row["name"] == "unrouted"]
    return row


@pytest.fixture
def orders(db, redis_server, name):
    """A route of shop.order.# alone."""
    db.broker("redis", redis_server.url)
    db.route("orders", "redis", f"stream:{name}", "shop.order.#")


def publish_many(db, topic, count, connection=None):
    with (connection or db.connection).cursor() as cursor:
        cursor.execute("SELECT eventbus.publish(%s, to_jsonb(g)) FROM generate_series(1, %s) g", (topic, count))


def test_counts_are_exact(db, orders):
    publish_many(db, "shop.order.paid", 7)
    publish_many(db, "shop.invoice", 12)
    publish_many(db, "shop", 1)
    rolled_back = db.connect(autocommit=False)
    publish_many(db, "shop.invoice", 5, rolled_back)
    rolled_back.rollback()
    with rolled_back.cursor() as cursor:
        cursor.execute("SELECT eventbus.publish('shop.part', '1'); SAVEPOINT s; "
                       "SELECT eventbus.publish('shop.part', '2'); SELECT eventbus.publish('shop.undone', '2'); ROLLBACK TO s; "
                       "SELECT eventbus.publish('shop.part', '3')")
    rolled_back.commit()
    rolled_back.close()
    db.run("SELECT eventbus.publish_now('shop.now', '1')")
    db.run("SELECT eventbus.publish_wal('shop.wal', '1')")
    assert counted(db) == {"shop.invoice": 12, "shop": 1, "shop.part": 2}
    publish_many(db, "shop.invoice", 30000)  # several segments
    assert counted(db) == {"shop.invoice": 30012, "shop": 1, "shop.part": 2}
    [row] = db.rows("SELECT * FROM eventbus.unrouted WHERE topic = 'shop.invoice'")
    assert db.one("SELECT %s > now() - interval '5 min' AND %s > %s", row["first_at"], row["last_at"], row["first_at"])
    db.wait_status("orders", delivered=7)


def test_without_any_route(db):
    publish_many(db, "a.b", 3)
    assert counted(db) == {"a.b": 3}


def test_times_are_those_of_publishing(db):
    before = db.one("SELECT clock_timestamp()")
    publish_many(db, "a.b", 2)
    after = db.one("SELECT clock_timestamp()")
    counted(db)
    [(first, last)] = db.run("SELECT first_at, last_at FROM eventbus.unrouted WHERE topic = 'a.b'")
    assert before <= first <= last <= after


def test_a_route_of_all_topics_leaves_nothing_to_count(db, stream):
    publish_many(db, "a.b", 3)
    stream(3)
    db.wait_log_empty()
    assert unrouted(db) == {}
    assert (check(db)["level"], check(db)["hint"]) == ("ok", None)


def test_paused_and_held_routes_will_take_theirs(db, redis_server, orders, name):
    db.run("SELECT eventbus.pause_route('orders')")
    db.wait_state("orders", "paused")
    db.broker("nobody", "redis://127.0.0.1:1")
    db.route("away", "nobody", f"stream:{name}", "mail.#")
    publish_many(db, "shop.order.paid", 4)
    publish_many(db, "mail.sent", 3)
    publish_many(db, "shop.invoice", 2)
    db.run("SELECT eventbus.resume_route('orders')")
    db.wait_status("orders", delivered=4)
    db.run("SELECT eventbus.alter_broker('nobody', url => %s)", redis_server.url)
    db.wait_status("away", delivered=3)
    assert counted(db) == {"shop.invoice": 2}


def test_a_route_made_later_does_not_take_what_was_before(db, redis_server, name, setting):
    setting("eventbus.retention", "1h")
    publish_many(db, "shop.order.paid", 5)
    db.broker("redis", redis_server.url)
    db.route("orders", "redis", f"stream:{name}", "shop.order.#")
    publish_many(db, "shop.order.paid", 2)
    db.wait_status("orders", delivered=2)
    setting("eventbus.retention", "0")
    assert counted(db) == {"shop.order.paid": 5}
    assert "shop.order.paid" not in check(db)["detail"] and MARK in check(db)["detail"], "it has a route by now"


def test_a_route_from_the_earliest_takes_what_was_before(db, redis_server, name, setting):
    setting("eventbus.retention", "1h")
    publish_many(db, "shop.order.paid", 5)
    publish_many(db, "shop.invoice", 5)
    db.broker("redis", redis_server.url)
    db.route("orders", "redis", f"stream:{name}", "shop.order.#", start="earliest")
    db.wait_status("orders", delivered=5)
    setting("eventbus.retention", "0")
    assert counted(db) == {"shop.invoice": 5}


def test_what_a_route_had_is_not_counted_when_its_topics_change(db, orders, setting):
    setting("eventbus.retention", "1h")
    publish_many(db, "shop.order.paid", 5)
    db.wait_status("orders", delivered=5)
    db.run("SELECT eventbus.alter_route('orders', topics => 'shop.invoice')")
    publish_many(db, "shop.order.paid", 2)
    publish_many(db, "shop.invoice", 3)
    db.wait_status("orders", delivered=8)
    setting("eventbus.retention", "0")
    assert counted(db) == {"shop.order.paid": 2}


def test_what_a_route_had_is_not_counted_when_it_goes(db, stream, setting):
    setting("eventbus.retention", "1h")
    publish_many(db, "a.b", 3)
    stream(3)
    db.run("SELECT eventbus.drop_broker('redis', true)")
    publish_many(db, "a.b", 2)
    setting("eventbus.retention", "0")
    assert counted(db) == {"a.b": 2}


def test_other_changes_of_a_route_do_not_matter(db, orders, setting):
    setting("eventbus.retention", "1h")
    publish_many(db, "shop.invoice", 3)
    db.run("SELECT eventbus.alter_route('orders', topics => 'shop.order.#', options => '{\"max_attempts\": 3}')")
    setting("eventbus.retention", "0")
    assert counted(db) == {"shop.invoice": 3}


def test_routes_from_the_wal_take_nothing_of_the_log(db, redis_server, name):
    db.broker("redis", redis_server.url)
    db.route("changes", "redis", f"stream:{name}", "#", source="wal")
    publish_many(db, "a.b", 3)
    assert counted(db) == {"a.b": 3}
    assert "a.b (3 events" in check(db)["detail"]


def test_the_last_hundred_topics(db):
    for n in range(60):
        db.publish(f"old.{n}", n)
    assert counted(db) == {f"old.{n}": 1 for n in range(60)}
    for n in range(150):
        db.publish(f"topic.{n}", n)
    db.wait_log_empty()
    assert unrouted(db) == {f"topic.{n}": 1 for n in range(50, 150)}
    db.publish("topic.149", 1)
    db.publish("old.7", 1)
    db.wait_log_empty()
    assert unrouted(db) == {**{f"topic.{n}": 1 for n in range(51, 149)}, "topic.149": 2, "old.7": 1}
    row = check(db)
    assert row["detail"].startswith("100 topics of the last 24 hours were taken by no route: old.7 (1 event, last at ")
    assert row["detail"].endswith(" and 97 more") and len(row["detail"]) < 500


def test_long_topics_and_large_events(db):
    longest = "long." + "ä" * 125
    assert len(longest.encode()) == 255
    db.publish(longest, 1)
    db.publish(longest[:-1] + "é", "x" * 100000)
    db.run("SELECT eventbus.publish_text('a.' || repeat('b', 253), repeat('c', 3000), "
           "headers => jsonb_build_object('h', repeat('d', 3000)))")
    assert counted(db) == {longest: 1, longest[:-1] + "é": 1, "a." + "b" * 253: 1}


@pytest.mark.parametrize("encoding", ("LATIN1", "SQL_ASCII"))
def test_other_encodings(cluster, make_database, redis_server, name, encoding):
    cluster.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
    db = make_database(create=False)
    db.connection.set_client_encoding("UTF8")
    db.broker("redis", redis_server.url)
    db.route("r", "redis", f"stream:{name}", "café.#")
    db.publish("café.open", 1)
    db.publish("thé.hot", 1)
    assert counted(db) == {"thé.hot": 1}
    db.wait_status("r", delivered=1)
    assert "thé.hot (1 event" in check(db)["detail"]


def test_health_and_its_hint(db, orders):
    assert (check(db)["level"], check(db)["hint"]) == ("ok", None)
    publish_many(db, "shop.o'clock", 2)
    db.publish("shop.invoice", 1)
    db.wait_log_empty()
    row = check(db)
    assert row["level"] == "ok"
    assert row["detail"].startswith("2 topics of the last 24 hours were taken by no route: shop.invoice (1 event, last at 2")
    assert "shop.o'clock (2 events, last at" in row["detail"]
    assert "eventbus.routes_for('shop.invoice')" in row["hint"]
    db.run("SELECT eventbus.alter_route('orders', topics => 'shop.#')")
    assert check(db)["hint"] is None, "both have a route by now"
    assert unrouted(db) == {"shop.o'clock": 2, "shop.invoice": 1}
    db.run("SELECT eventbus.alter_route('orders', topics => 'shop.order.#')")
    db.run("UPDATE eventbus.unrouted SET last_at = last_at - interval '25 hours'")
    assert check(db)["hint"] is None, "a day is over"


def test_nothing_is_logged(db, told, orders):
    for n in range(20):
        db.publish(f"shop.{n}", n)
    assert len(counted(db)) == 20
    assert not [line for line in told("shop.") + told("no route")], "no line a topic"


def keeper_of(db):
    return db.one("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type LIKE '%%keeper'")


def test_a_keeper_that_ends_counts_nothing_twice(db, setting):
    total = 0
    for _ in range(5):
        publish_many(db, "a.b", 3000)
        total += 3000
        keeper = eventually(lambda: keeper_of(db), why="there is a keeper")
        os.kill(keeper, signal.SIGTERM)
        eventually(lambda: keeper_of(db) not in (None, keeper), why="there is another one")
    assert counted(db) == {"a.b": total}


def test_counts_outlive_crashes_of_the_server(cluster, db, setting):
    publish_many(db, "a.b", 3)
    assert counted(db) == {"a.b": 3}
    setting("eventbus.retention", "1h")
    publish_many(db, "a.b", 4)
    os.kill(keeper_of(db), signal.SIGKILL)  # the postmaster ends everybody, and recovers
    eventually(lambda: not cluster.accepts() or db.connection.closed or not alive(db), 30, "the crash is noticed")
    cluster.wait_recovered()
    db.reconnect()
    assert unrouted(db) == {"a.b": 3, MARK: 1}
    setting("eventbus.retention", "0")
    total = 7
    for _ in range(3):  # wherever it is: counting, truncating, or neither
        publish_many(db, "a.b", 20000)
        total += 20000
        eventually(lambda: unrouted(db)["a.b"] > 3, why="the keeper is at it")
        cluster.kill_postmaster()
        cluster.start()
        cluster.wait_recovered()
        db.reconnect()
    assert counted(db) == {"a.b": total}, "each once"


def alive(db):
    try:
        return db.one("SELECT true")
    except psycopg2.Error:
        return False


def test_a_locked_table_delays_nothing(db, told):
    publish_many(db, "a.b", 3)
    assert counted(db) == {"a.b": 3}
    holder = db.connect(autocommit=False)
    holder.cursor().execute("DELETE FROM eventbus.unrouted WHERE topic = 'a.b'")
    publish_many(db, "a.b", 2)
    db.wait_log_empty()
    holder.rollback()
    holder.cursor().execute("LOCK TABLE eventbus.unrouted_store")
    publish_many(db, "a.b", 2)
    db.wait_log_empty()
    assert "eventbus.unrouted_store is locked by process" in check(db)["detail"] and check(db)["level"] == "ok"
    holder.rollback()
    holder.close()
    assert counted(db) == {"a.b": 3}, "as documented, what left the log meanwhile is not counted"


def test_a_table_that_takes_no_rows_delays_nothing(db, told):
    db.run("ALTER TABLE eventbus.unrouted_store ADD CHECK (topic <> 'bad.topic')")
    db.publish("bad.topic", 1)
    db.wait_log_empty()
    db.publish("bad.topic", 2)
    db.wait_log_empty()
    eventually(lambda: len(told("cannot be counted")) == 1, why="it is told once")
    db.run("ALTER TABLE eventbus.unrouted_store DROP CONSTRAINT unrouted_store_topic_check")
    assert counted(db) == {}


def test_a_table_that_is_not_there_costs_health_nothing_else(db):
    db.run("ALTER TABLE eventbus.unrouted_store RENAME TO elsewhere")
    try:
        assert check(db)["level"] == "warning" and "unrouted_store" in check(db)["detail"]
        publish_many(db, "a.b", 3)
        db.wait_log_empty()
    finally:
        db.run("ALTER TABLE eventbus.elsewhere RENAME TO unrouted_store")
    assert check(db)["level"] == "ok"


def test_rights(cluster, db, name):
    publish_many(db, "a.b", 3)
    counted(db)
    for role in ("watcher", "stranger"):
        db.run(f"CREATE ROLE {name}_{role} LOGIN")
    try:
        db.run(f"GRANT USAGE ON SCHEMA eventbus TO {name}_stranger")
        db.run(f"SELECT eventbus.grant_monitor('{name}_watcher')")
        assert db.one("SELECT has_table_privilege('pg_monitor', 'eventbus.unrouted', 'SELECT')")
        watcher = db.connect(user=f"{name}_watcher")
        with watcher.cursor() as cursor:
            cursor.execute("SELECT events FROM eventbus.unrouted WHERE topic = 'a.b'")
            assert cursor.fetchall() == [(3,)]
            cursor.execute("SELECT detail FROM eventbus.health() WHERE name = 'unrouted'")
            assert "a.b (3 events" in cursor.fetchall()[0][0]
            for refused in ("DELETE FROM eventbus.unrouted", "SELECT setval('eventbus.unrouted_after', 1)"):
                with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                    cursor.execute(refused)
        watcher.close()
        stranger = db.connect(user=f"{name}_stranger")
        with stranger.cursor() as cursor, pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute("SELECT * FROM eventbus.unrouted")
        stranger.close()
        db.run(f"SELECT eventbus.revoke_monitor('{name}_watcher')")
        assert not db.one(f"SELECT has_table_privilege('{name}_watcher', 'eventbus.unrouted', 'SELECT')")
    finally:
        for role in ("watcher", "stranger"):
            db.run(f"DROP OWNED BY {name}_{role}")
            db.run(f"DROP ROLE {name}_{role}")


def test_the_extension_made_anew_begins_with_nothing(db):
    publish_many(db, "a.b", 3)
    assert counted(db) == {"a.b": 3}
    db.run("DELETE FROM eventbus.unrouted")
    publish_many(db, "a.b", 1)
    assert counted(db) == {"a.b": 1}
    db.run("DROP EXTENSION pg_eventbus")
    assert db.one("SELECT to_regclass('eventbus.unrouted') IS NULL")
    db.run("CREATE EXTENSION pg_eventbus")
    assert unrouted(db) == {}
    publish_many(db, "a.c", 2)
    assert counted(db) == {"a.c": 2}

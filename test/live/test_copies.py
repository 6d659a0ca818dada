# What it is: copies of a database or server, which deliver nothing until they are adopted; eventbus.delivery.
# Who calls it: pytest.
# Never: waits for nothing to happen without having seen that it was told.
import os
import re
import time

import psycopg2
import pytest

from database import Database
from postgres import PostgresCluster
from servers import eventually, stays


@pytest.fixture
def original(make_database, redis_server, name):
    db = make_database()
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"stream:{name}")
    db.route("rest", "redis", f"list:{name}:rest", "rest.#")
    db.publish("t", "first")
    db.wait_status("out", delivered=1, in_flight=0)
    eventually(lambda: db.one("SELECT bool_and(delivered = CASE route WHEN 'out' THEN 1 ELSE 0 END) FROM eventbus.status"))
    return db


def payloads(redis_server, name):
    return [entry["payload"] for entry in redis_server.stream(name)]


def copy_check(db):
    return [row for row in db.health() if row["name"] == "copy"]


def wait_paused(cluster, db, begin=0):
    cluster.wait_log(rf"WARNING:  pg_eventbus: database \"?{db.name}\"? is a copy.*: redis\n.*\n.*HINT: .*adopt", begin)
    [check] = copy_check(db)
    assert check["level"] == "error" and "redis" in check["detail"] and "eventbus.adopt()" in check["hint"]


def notices_of(db, sql):
    del db.connection.notices[:]
    db.run(sql)
    return "".join(db.connection.notices)


def restore(db, make_database, cluster):
    dump = cluster.program("pg_dump", "-d", db.name)
    restored = make_database("restored", extension=False)
    cluster.program("psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", restored.name, standard_input=dump)
    return restored


def make_template_copy(original, cluster, name):
    original.connection.close()
    cluster.execute(f'CREATE DATABASE "{name}_copy" TEMPLATE "{original.name}"')
    original.reconnect()


def adopt_what_waits(copy, redis_server, name, start):
    """One event, "waits", on the route "out": it is delivered or left out, as is said. Returns what is delivered."""
    said = notices_of(copy, f"SELECT eventbus.adopt('{start}')")
    assert f'route "out" {"delivers" if start == "cursor" else "leaves out"} 1 event that waited' in said, said
    assert "rest" not in said
    copy.publish("t", "adopted")
    expected = [b'"waits"', b'"adopted"'] if start == "cursor" else [b'"adopted"']
    eventually(lambda: payloads(redis_server, f"{name}:copy") == expected, 60, "it delivers what it said")
    return expected


def test_a_restored_dump_waits_to_be_adopted(original, make_database, cluster, redis_server, name):
    copy = restore(original, make_database, cluster)
    wait_paused(cluster, copy)
    copy.publish("t", "of the copy")
    original.publish("t", "second")
    eventually(lambda: len(payloads(redis_server, name)) == 2, 60)
    stays(lambda: len(payloads(redis_server, name)) == 2 and copy.status("out")["state"] == "stopped", 2,
          "the copy delivers nothing")
    # A broker of its own is no copy.
    copy.broker("own", redis_server.url)
    copy.route("own", "own", f"list:{name}:own")
    copy.publish("own", "x")
    eventually(lambda: redis_server.client().llen(f"{name}:own") == 1, 60, "its own broker is served")
    with pytest.raises(psycopg2.errors.InvalidParameterValue, match="invalid start"):
        copy.run("SELECT eventbus.adopt('later')")
    copy.run("SELECT eventbus.alter_route('out', %s)", f"stream:{name}:copy")
    copy.run("SELECT eventbus.adopt()")
    copy.wait_state("out", "active")
    copy.publish("t", "adopted")
    eventually(lambda: b'"adopted"' in payloads(redis_server, f"{name}:copy"), 60, "it delivers")
    assert not copy_check(copy)
    assert "no broker has come here" in notices_of(copy, "SELECT eventbus.adopt()")
    assert len(payloads(redis_server, name)) == 2


@pytest.mark.parametrize("start", ["cursor", "now"])
def test_what_a_restored_dump_has_published_waits_and_is_said(original, make_database, cluster, redis_server, name, start):
    """It has no cursors: all that is in its log waits."""
    copy = restore(original, make_database, cluster)
    wait_paused(cluster, copy)
    copy.publish("t", "waits")
    assert copy.one("SELECT array_agg(events_waiting ORDER BY route) FROM eventbus.status") == [1, 0]
    assert copy.status("out")["lag"].total_seconds() > 0
    copy.run("SELECT eventbus.alter_route('out', %s)", f"stream:{name}:copy")
    expected = adopt_what_waits(copy, redis_server, name, start)
    copy.wait_status("out", delivered=len(expected), events_waiting=0)


@pytest.mark.parametrize("start", ["cursor", "now"])
def test_what_redeliver_put_back_is_sent_as_adopt_says(original, make_database, cluster, redis_server, name, start):
    redis = redis_server.client()
    redis.delete(name)
    redis.set(name, "no stream")
    original.publish("t", "dead")
    original.wait_dead("out")
    original.run("SELECT eventbus.pause_route('out')")
    original.wait_state("out", "paused")
    assert original.one("SELECT eventbus.redeliver('out')") == 1
    make_template_copy(original, cluster, name)
    copy = make_database("copy", extension=False, create=False)
    wait_paused(cluster, copy)
    copy.run("SELECT eventbus.alter_route('out', %s)", f"stream:{name}:copy")
    copy.run("SELECT eventbus.resume_route('out')")
    said = notices_of(copy, f"SELECT eventbus.adopt('{start}')")
    assert ('route "out" leaves out 1 dead letter that redeliver had put back' in said) == (start == "now"), said
    copy.publish("t", "adopted")
    expected = {b'"dead"', b'"adopted"'} if start == "cursor" else {b'"adopted"'}
    eventually(lambda: set(payloads(redis_server, f"{name}:copy")) == expected, 60, "it delivers what it said")
    assert len(copy.dead("out")) == (start == "now")


@pytest.mark.parametrize("start", ["cursor", "now"])
def test_a_database_made_of_another_waits_with_its_events(original, make_database, cluster, redis_server, name, start):
    original.run("SELECT eventbus.pause_route('out')")
    original.publish("t", "waits")
    make_template_copy(original, cluster, name)
    original.run("SELECT eventbus.resume_route('out')")
    eventually(lambda: len(payloads(redis_server, name)) == 2, 60)
    copy = make_database("copy", extension=False, create=False)
    wait_paused(cluster, copy)
    copy.run("SELECT eventbus.resume_route('out')")
    copy.run("SELECT eventbus.alter_route('out', %s)", f"stream:{name}:copy")
    expected = adopt_what_waits(copy, redis_server, name, start)
    copy.wait_status("out", delivered=1 + len(expected))  # counted once Redis has answered, after the stream has it
    copy.wait_log_empty()
    assert not copy.rows("SELECT * FROM eventbus.unrouted"), "what was left out had a route"
    assert len(payloads(redis_server, name)) == 2


@pytest.mark.parametrize("as_standby", [False, True])
def test_a_base_backup_waits_unless_it_is_a_standby(redis_server, name, as_standby):
    with PostgresCluster(name="original") as server:
        db = Database(server, name)
        db.broker("redis", redis_server.url)
        db.route("out", "redis", f"stream:{name}")
        db.publish("t", "first")
        db.wait_status("out", delivered=1, in_flight=0)
        clone = PostgresCluster(name="clone", copy_of=server)
        if not as_standby:
            os.unlink(os.path.join(clone.data, "standby.signal"))
        with clone:
            copy = Database(clone, name, extension=False, create=False)
            if as_standby:
                assert not [row for row in copy.health() if row["level"] == "error"]
                assert {row["level"] for row in copy.health() if row["name"] == "route out"} == {"ok"}
                server.stop()
                clone.execute("SELECT pg_promote()")
                copy.reconnect()
                copy.wait_state("out", "active", deadline=60)
                assert not copy_check(copy)
            else:
                clone.wait_recovered()
                wait_paused(clone, copy)
                clone.restart()  # what it began from is gone by now
                copy.reconnect()
                begin = clone.log_size()
                clone.restart(mode="immediate")
                copy.reconnect()
                wait_paused(clone, copy, begin)
                copy.publish("t", "waits")
                stays(lambda: len(payloads(redis_server, name)) == 1, 2, "nothing is delivered")
                copy.run("SELECT eventbus.adopt()")
            event = copy.publish("t", "from here")
            eventually(lambda: event in redis_server.stream_ids(name), 60, "it delivers")
            begin = clone.log_size()
            clone.restart()
            copy.reconnect()
            copy.wait_state("out", "active", deadline=60)
            assert not re.search("is a copy", clone.log_text(begin))
            copy.connection.close()
        db.connection.close()


def test_copies_may_deliver(original, make_database, cluster, redis_server, name, setting):
    setting("eventbus.copies", "deliver")
    copy = restore(original, make_database, cluster)
    copy.wait_state("out", "active", deadline=60)
    [check] = copy_check(copy)
    assert check["level"] == "ok"
    setting("eventbus.copies", "pause")
    copy.wait_state("out", "stopped", deadline=60)
    assert copy_check(copy)[0]["level"] == "error"


def test_the_log_of_a_copy_is_bounded(original, make_database, cluster, name, setting):
    """Also where a full log is an error: whoever tries the copy out is not to meet with it."""
    setting("eventbus.max_log_size", "2MB")
    copy = restore(original, make_database, cluster)
    wait_paused(cluster, copy)
    for _ in range(60):
        copy.run("SELECT count(eventbus.publish('t', to_jsonb(repeat('x', 1000)))) FROM generate_series(1, 200)")
    eventually(lambda: copy.one("SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relname ~ '^log_[0-9]$'") <
               3 * 1024 * 1024, 60, "the log is as small as it may be")
    assert copy.one("SELECT skipped FROM eventbus.cursor JOIN eventbus.route_config ON id = route_id WHERE name = 'out'") != 0


def delivery_check(db):
    return [row["level"] for row in db.health() if row["name"] == "delivery"]


def test_delivery_is_switched_as_often_as_one_likes(original, cluster):
    """Each time a keeper begins again, which is no reason for back-off: with it each turn took twice as long as the last."""
    def keeper():
        return [row["detail"] for row in original.health() if row["name"] == "keeper" and row["level"] == "ok"]

    took = []
    for turn in range(10):
        begin = time.monotonic()
        before = eventually(keeper, 60, "a keeper runs")
        cluster.execute(f'ALTER DATABASE "{original.name}" SET eventbus.delivery = {"on" if turn % 2 else "off"}')
        cluster.execute("SELECT pg_reload_conf()")
        eventually(lambda: keeper() and keeper() != before, 60, "the next keeper runs")
        eventually(lambda: delivery_check(original) == ([] if turn % 2 else ["warning"]), 30, "it has read the setting")
        took.append(time.monotonic() - begin)
    assert sum(took[5:]) < 4 * sum(took[:5]), took


@pytest.mark.parametrize("whose", ["server", "database"])
def test_delivery_is_switched_off_and_on(original, cluster, redis_server, name, setting, whose):
    def switch(value):
        if whose == "server":
            setting("eventbus.delivery", value)
        else:
            cluster.execute(f'ALTER DATABASE "{original.name}" SET eventbus.delivery = {value}')
            cluster.execute("SELECT pg_reload_conf()")

    begin = cluster.log_size()
    switch("off")
    original.wait_state("out", "stopped", deadline=60)
    cluster.wait_log(rf"WARNING:  pg_eventbus: nothing of database \"?{original.name}\"? is delivered: eventbus.delivery is off",
                     begin)
    original.publish("t", "waits")
    original.run("SET eventbus.delivery = on")  # what a session has says nothing
    assert delivery_check(original) == ["warning"]
    stays(lambda: len(payloads(redis_server, name)) == 1, 2, "nothing is delivered")
    switch("on")
    eventually(lambda: len(payloads(redis_server, name)) == 2, 60, "delivery resumes")
    original.run("SET eventbus.delivery = off")
    assert delivery_check(original) == []
    original.run("RESET eventbus.delivery")
    role = f"{name}_app"
    cluster.execute(f'CREATE ROLE "{role}" LOGIN')
    try:
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            original.run(f'SET ROLE "{role}"; SET eventbus.delivery = off')
    finally:
        original.run("RESET ROLE")
        cluster.execute(f'DROP ROLE "{role}"')

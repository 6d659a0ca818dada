# What it is: eventbus.on_log_full = skip: the route that lags leaves its oldest events out, and each of them is counted.
# Who calls it: pytest.
# Never: asserts how many are left out; that they and what arrived are all there is.
import re

import pytest

from servers import eventually, free_port
from test_log_limit import EMPTY, LIMIT, SIZE

pytestmark = pytest.mark.usefixtures("bounded")


@pytest.fixture
def bounded(setting):
    setting("eventbus.max_log_size", "8MB")
    setting("eventbus.on_log_full", "skip")


def publish(db, count, topic="t"):
    """Events of half a kilobyte that say which one they are; returns their ids."""
    ids = []
    for first in range(0, count, 100):
        ids += [row[0] for row in db.run(
            "SELECT eventbus.publish_text(%s, repeat('x', 440) || g) FROM generate_series(%s, %s) g", topic, first, first + 99)]
    return ids


def skipped(db, route="out"):
    return db.status(route)["skipped"]


def holds_to_the_limit(db):
    return db.one(SIZE) < 1.1 * LIMIT


def all_accounted_for(db, server, key, ids, route="out"):
    """Each event is in the stream once or was left out, in order; what was left out are the older ones."""
    eventually(lambda: server.client().xlen(key) + skipped(db, route) >= len(ids), 60, "all events are delivered or left out")
    arrived = server.stream_ids(key)
    assert arrived == sorted(set(arrived)), "in order, none twice"
    assert set(arrived) <= set(ids)
    assert len(arrived) + skipped(db, route) == len(ids)
    assert arrived[-1] == ids[-1], "the newest ones are kept"
    status = db.wait_status(route, in_flight=0)
    assert status["delivered"] <= len(arrived)
    return arrived


def test_a_paused_route_skips_ahead_and_nobody_else_notices(db, stream, redis_server, name, log_from_here, cluster):
    db.route("other", "redis", f"stream:{name}:other", "t")
    db.run("SELECT eventbus.pause_route('out')")
    db.wait_state("out", "paused")
    ids = publish(db, 40000)
    assert holds_to_the_limit(db)
    assert 0 < skipped(db) < len(ids)
    eventually(lambda: redis_server.client().xlen(f"{name}:other") == len(ids), 60, "the other route has everything")
    assert skipped(db, "other") == 0
    text = cluster.log_text(log_from_here)
    assert len(re.findall(r'WARNING:.* route "out" skips ahead: the event log is full .* events are left out', text)) == 1
    assert "other" not in "".join(re.findall(r'route "\w+" skips', text))
    db.run("SELECT eventbus.resume_route('out')")
    all_accounted_for(db, redis_server, name, ids)
    eventually(lambda: db.one(SIZE) < EMPTY, 60, "an empty log")
    cluster.wait_log('route "out" skips no longer', log_from_here)


@pytest.mark.parametrize("poison", [
    "UPDATE eventbus.route_config SET destination = 'nonsense' WHERE name = 'out'",
    "UPDATE eventbus.route_config SET topics = '' WHERE name = 'out'",
    "UPDATE eventbus.broker_config SET url = 'nonsense' WHERE name = 'redis'"])
def test_a_row_that_cannot_be_used(db, stream, redis_server, name, poison):
    """Its route stands, and makes no publisher wait for ever."""
    db.broker("good", redis_server.url)
    db.route("other", "good", f"stream:{name}:other", "t")
    destination, url = db.one("SELECT destination FROM eventbus.route_config WHERE name = 'out'"), redis_server.url
    db.run(poison)
    db.wait_status("out", 60, state="held", last_error=lambda text: text and "cannot be used" in text)
    ids = publish(db, 40000)
    assert holds_to_the_limit(db)
    assert 0 < skipped(db) < len(ids)
    eventually(lambda: redis_server.client().xlen(f"{name}:other") == len(ids), 60, "the other route has everything")
    if "broker_config" in poison:
        db.run("SELECT eventbus.alter_broker('redis', %s)", url)
    else:
        db.run("SELECT eventbus.alter_route('out', destination => %s, topics => 't')", destination)
    all_accounted_for(db, redis_server, name, ids)


def test_a_route_whose_broker_is_frozen(db, frozen_redis, redis_server, name):
    db.broker("sick", frozen_redis.url)
    db.route("out", "sick", f"stream:{name}", "t")
    first = db.publish("t", 0)
    eventually(lambda: frozen_redis.client().xlen(name) == 1)
    frozen_redis.freeze()
    ids = [first, *publish(db, 40000)]
    assert holds_to_the_limit(db)
    assert skipped(db) > 0
    frozen_redis.thaw()
    eventually(lambda: frozen_redis.stream_ids(name)[-1:] == ids[-1:], 60, "the newest event")
    db.wait_status("out", in_flight=0, state="active")
    arrived = frozen_redis.stream_ids(name)
    assert arrived == sorted(set(arrived)) and set(arrived) <= set(ids)
    # What was under way when it was left out may have arrived all the same.
    status = db.status("out")
    assert status["delivered"] + status["skipped"] == len(ids)
    assert status["delivered"] <= len(arrived)


def test_a_held_route(db, rabbit, name):
    db.broker("rabbit", rabbit.url)
    db.route("out", "rabbit", f"exchange:{name}")
    db.publish("t", 0)
    db.wait_state("out", "held")
    publish(db, 30000)
    assert holds_to_the_limit(db) and skipped(db) > 0
    db.wait_state("out", "held")


def test_a_route_that_nobody_serves(db, cluster, setting, redis_server, name):
    """No sender runs: its module is missing for ever, or no worker slot is free. Here: it is killed off each time."""
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"stream:{name}")
    db.run("UPDATE eventbus.broker_config SET url = 'nosuch://x' WHERE name = 'redis'")
    db.run("SELECT eventbus.wake_workers()")
    db.wait_state("out", "stopped")
    ids = publish(db, 40000)
    assert holds_to_the_limit(db)
    eventually(lambda: skipped(db) > 0, 30, "events are left out by the keeper")
    db.run("UPDATE eventbus.broker_config SET url = %s WHERE name = 'redis'", redis_server.url)
    db.run("SELECT eventbus.wake_workers()")
    all_accounted_for(db, redis_server, name, ids)


def test_all_routes_that_lag_in_the_same_part_skip(db, name):
    db.broker("nobody", f"redis://127.0.0.1:{free_port()}")
    db.broker("nobody_else", f"redis://127.0.0.1:{free_port()}")
    db.route("all", "nobody", f"stream:{name}")
    db.route("some", "nobody", f"stream:{name}", "some.*")
    db.route("else", "nobody_else", f"stream:{name}")
    db.route("none", "nobody_else", f"stream:{name}", "none")
    for _ in range(8):
        publish(db, 3000, "t")
        publish(db, 1000, "some.t")
    assert holds_to_the_limit(db)
    assert skipped(db, "all") == skipped(db, "else") > skipped(db, "some") > 0
    assert skipped(db, "none") == 0


def test_what_was_left_out_stays_so_over_a_restart(db, durable_redis, name, cluster):
    durable_redis.kill()
    db.broker("redis", durable_redis.url)
    db.route("out", "redis", f"stream:{name}")
    ids = publish(db, 40000)
    before = skipped(db)
    assert before > 0
    cluster.restart()
    db.reconnect()
    assert skipped(db) == before
    durable_redis.start()
    all_accounted_for(db, durable_redis, name, ids)


def test_an_open_transaction_lets_the_log_exceed_and_then_it_comes_down(db, stream, redis_server, name, setting):
    late = db.connect(autocommit=False)
    with late.cursor() as cursor:
        cursor.execute("SELECT eventbus.publish_text('late', 'late')")
    publish(db, 40000)  # nobody fails
    held = {row["name"]: row for row in db.health()}["log"]
    if db.one(SIZE) > LIMIT:
        assert held["level"] == "error" and str(late.info.backend_pid) in held["detail"]
    late.commit()
    late.close()
    eventually(lambda: redis_server.client().xlen(name) + skipped(db) == 40001, 60, "all is delivered or left out")
    eventually(lambda: db.one(SIZE) < EMPTY, 60, "an empty log")


def test_a_route_that_keeps_up_skips_nothing(db, stream, redis_server, name):
    ids = []
    for _ in range(10):
        ids += publish(db, 4000)
        eventually(lambda: redis_server.client().xlen(name) == len(ids), 60, "all is delivered")
    assert skipped(db) == 0

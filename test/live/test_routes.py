# What it is: brokers and routes change while everything runs: no restart, nobody else disturbed.
# Who calls it: pytest.
# Never: restarts anything.
import time

import psycopg2
import pytest

from servers import RedisServer, eventually, free_port, stays

SOON = 5  # a change takes effect within a second; a busy machine gets some more


def payloads(server, key):
    return [entry["payload"] for entry in server.stream(key)]


def test_change_of_destination_and_topics_takes_effect_soon(db, redis_server, name):
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"stream:{name}:one", "a.#")
    db.publish("a", 1)
    db.publish("b", 1)
    eventually(lambda: payloads(redis_server, f"{name}:one") == [b"1"])
    sender = db.sender("out")
    db.run("SELECT eventbus.alter_route('out', %s, 'b.#')", f"stream:{name}:two")

    def changed():
        db.publish("b", 2)
        return redis_server.client().exists(f"{name}:two")
    eventually(changed, SOON, "the altered route delivers to its new destination")
    db.publish("a", 3)
    db.publish("b", 3)
    eventually(lambda: payloads(redis_server, f"{name}:two")[-1:] == [b"3"])
    assert payloads(redis_server, f"{name}:one") == [b"1"]
    assert db.sender("out") == sender, "no restart"


def test_first_route_and_broker_take_effect_soon(db, redis_server, name):
    begun = time.monotonic()
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"stream:{name}")
    db.publish("t", 1)
    eventually(lambda: redis_server.client().exists(name), SOON, "the first event through a new broker")
    assert time.monotonic() - begun < SOON


def test_rolled_back_route_never_was(db, redis_server, name, stream):
    db.run("BEGIN")
    db.route("ghost", "redis", f"stream:{name}:ghost")
    db.run("ROLLBACK")
    db.publish("t", 1)
    stream(1)
    assert db.status("ghost") is None
    assert not redis_server.client().exists(f"{name}:ghost")


def test_altered_url_moves_to_the_other_server(db, redis_server, name):
    with RedisServer() as second:
        db.broker("redis", redis_server.url)
        db.route("out", "redis", f"stream:{name}")
        db.publish("t", 1)
        eventually(lambda: payloads(redis_server, name) == [b"1"])
        db.run("SELECT eventbus.alter_broker('redis', %s)", second.url)

        def moved():
            db.publish("t", 2)
            return second.client().exists(name)
        eventually(moved, SOON, "the altered broker is another server")


def test_pause_and_resume(db, stream):
    db.publish("t", 1)
    stream(1)
    db.run("SELECT eventbus.pause_route('out')")
    db.wait_state("out", "paused", deadline=SOON)
    db.publish("t", 2)
    stays(lambda: len(stream()) == 1, 1, "a paused route delivers nothing")
    db.run("SELECT eventbus.resume_route('out')")
    db.publish("t", 3)
    assert [entry["payload"] for entry in stream(3, SOON)] == [b"1", b"2", b"3"]
    db.wait_state("out", "active")


def test_pausing_one_route_leaves_the_other_alone(db, stream, redis_server, name):
    db.route("other", "redis", f"stream:{name}:other")
    db.run("SELECT eventbus.pause_route('out')")
    db.wait_state("out", "paused")
    for n in range(100):
        db.publish("t", n)
    eventually(lambda: redis_server.client().xlen(f"{name}:other") == 100)
    assert not stream()
    db.run("SELECT eventbus.resume_route('out')")
    assert len(stream(100)) == 100
    assert redis_server.client().xlen(f"{name}:other") == 100


def test_dropped_route_stops_and_its_name_can_be_used_again(db, stream, redis_server, name):
    db.publish("t", 1)
    stream(1)
    db.run("SELECT eventbus.drop_route('out')")
    assert db.status("out") is None
    with pytest.raises(psycopg2.Error, match="out"):
        db.run("SELECT eventbus.drop_route('out')")
    db.publish("t", 2)
    db.route("out", "redis", f"stream:{name}:again")
    db.publish("t", 3)
    eventually(lambda: payloads(redis_server, f"{name}:again") == [b"3"])
    assert len(stream()) == 1


def test_drop_broker_in_use_needs_cascade_and_then_stops_the_sender(db, stream):
    db.publish("t", 1)
    stream(1)
    sender = db.sender("out")
    with pytest.raises(psycopg2.Error) as refused:
        db.run("SELECT eventbus.drop_broker('redis')")
    assert "out" in str(refused.value) and "HINT" in str(refused.value)
    db.run("SELECT eventbus.drop_broker('redis', true)")
    eventually(lambda: sender not in db.workers(), why="the sender leaves with its broker")
    assert db.status("out") is None


def test_strict_order(db, redis_server, name):
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"list:{name}:{{key}}", order="strict")
    db.run("SELECT eventbus.publish('t', to_jsonb(g), (g % 5)::text) FROM generate_series(1, 1000) g")
    db.wait_status("out", delivered=1000)
    for key in range(5):
        assert [int(value) for value in redis_server.client().lrange(f"{name}:{key}", 0, -1)] == \
            [n for n in range(1, 1001) if n % 5 == key]


def test_status_row_of_a_healthy_route(db, stream):
    before = db.one("SELECT clock_timestamp()")
    for n in range(10):
        db.publish("t", n)
    stream(10)
    row = db.wait_status("out", delivered=10, in_flight=0, state="active")
    assert (row["broker"], row["dead"], row["retries"], row["last_error"]) == ("redis", 0, 0, None)
    assert row["last_delivered_at"] >= before
    assert row["last_error_at"] is None
    assert row["lag"] is None or row["lag"].total_seconds() < SOON
    assert row["sender_pid"] in db.workers()


def test_health_of_a_healthy_database(db, stream):
    db.publish("t", 1)
    stream(1)
    eventually(lambda: all(row["level"] == "ok" for row in db.health()), why=f"all is well: {db.health()}")
    assert db.health() and set(db.health()[0]) == {"name", "level", "detail", "hint"}


def test_lag_is_the_age_of_the_oldest_unsettled_event(db, name):
    db.broker("nobody", f"redis://127.0.0.1:{free_port()}")
    db.route("out", "nobody", f"stream:{name}")
    db.publish("t", 1)
    published = db.one("SELECT clock_timestamp()")
    db.wait_status("out", lag=lambda lag: lag is not None and lag.total_seconds() >= 2)
    lag = db.status("out")["lag"]
    assert lag.total_seconds() <= (db.one("SELECT clock_timestamp()") - published).total_seconds() + 1


def test_one_sick_broker_delays_nobody_else(db, stream, frozen_redis, name):
    db.broker("sick", frozen_redis.url)
    db.route("sick", "sick", f"stream:{name}")
    db.publish("t", 0)
    eventually(lambda: frozen_redis.client().xlen(name) == 1)
    frozen_redis.freeze()
    for n in range(1, 500):
        db.publish("t", n)
    assert len(stream(500, 10)) == 500
    frozen_redis.thaw()
    eventually(lambda: frozen_redis.client().xlen(name) >= 500)
    assert payloads(frozen_redis, name) == [str(n).encode() for n in range(500)]


def test_idle_workers_run_no_query_and_write_nothing(db, stream, cluster, setting):
    setting("autovacuum", "off")  # what the server does by itself is not what is measured
    setting("checkpoint_timeout", "1h")
    db.publish("t", 1)
    stream(1)
    db.wait_log_empty()

    def position():
        """Bytes of WAL ever written in the cluster, and transactions committed in this database."""
        return cluster.execute("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0'), (SELECT xact_commit "
                               "FROM pg_stat_database WHERE datname = %s)", db.name)[0]
    settled = [0, time.monotonic(), 0]

    def quiet():
        """Seven seconds with next to no WAL; autovacuum may come once and begin them again, workers may not."""
        written, transactions = position()
        if written - settled[0] > 512:
            settled[:] = [written, time.monotonic(), transactions]
        return time.monotonic() - settled[1] > 7
    eventually(quiet, 60, "idle workers write no WAL")
    assert position()[1] - settled[2] <= 3, "idle workers run no transactions to speak of"

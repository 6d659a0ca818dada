# What it is: what an operator sees: throughput and latency, counters that survive, what the workers say they do.
# Who calls it: pytest.
# Never: asserts absolute speed; what is slow here was made slow by the test.
import os
import re
import signal
import time

import psycopg2

from database import Database
from servers import PostgresCluster, eventually

from test_wal import WAL_SETTINGS


def seconds(interval):
    return None if interval is None else interval.total_seconds()


def crash(db, cluster):
    """kill -9 of the sender: PostgreSQL ends everybody, recovers, and starts again."""
    os.kill(db.sender("out"), signal.SIGKILL)

    def noticed():
        try:
            db.one("SELECT 1")
            return False
        except psycopg2.Error:
            return True

    eventually(noticed, 60, "the server notices the crash")
    cluster.wait_recovered()
    db.reconnect()


def test_throughput_and_latency(db, stream):
    before = db.status("out")
    assert (before["throughput"], before["latency_p50"], before["latency_p99"]) == (0, None, None)
    begun = time.monotonic()
    db.run("SELECT eventbus.publish('t', to_jsonb(n)) FROM generate_series(1, 700) n")
    row = db.wait_status("out", delivered=700, throughput=lambda rate: rate > 0)
    if time.monotonic() - begun < 50:
        assert 700 / 70 <= row["throughput"] <= 700 / 60 + 0.01, "all of it in the last 60 to 70 s"
    assert 0 < seconds(row["latency_p50"]) <= seconds(row["latency_p99"]) <= (time.monotonic() - begun) * 1.1
    assert list(row)[13:16] == ["throughput", "latency_p50", "latency_p99"], "new columns come last"


def test_latency_of_a_slow_broker(db, frozen_redis, name):
    """Half of the events wait for a frozen broker: the 99th percentile shows it, the other route does not."""
    db.broker("ill", frozen_redis.url, heartbeat=0)
    db.route("out", "ill", f"list:{name}")
    for n in range(20):
        db.publish("t", n)
    db.wait_status("out", delivered=20)
    frozen_redis.freeze()
    for n in range(4):
        db.publish("t", n)
    frozen = time.monotonic()
    db.wait_status("out", lag=lambda lag: lag.total_seconds() > 2)
    frozen_redis.thaw()
    row = db.wait_status("out", delivered=24, latency_p99=lambda latency: seconds(latency) >= 2 * 0.9)
    assert seconds(row["latency_p99"]) <= (time.monotonic() - frozen) * 1.1
    assert row["latency_p50"] < row["latency_p99"]


def test_latency_counts_from_the_commit(db, redis_server, name, setting):
    """A transaction stays open after publish: that is not the broker's doing."""
    setting("eventbus.safety_poll", "100ms")
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"list:{name}", "slow")
    writer = db.connect(autocommit=False)
    published = time.monotonic()
    db.publish("slow", 1, connection=writer)
    eventually(lambda: time.monotonic() - published > 6, 30)
    committed = time.monotonic()
    writer.commit()
    writer.close()
    row = db.wait_status("out", delivered=1)
    arrived = time.monotonic()
    assert seconds(row["latency_p99"]) <= (arrived - committed + 2) * 1.1, "the time before COMMIT is not counted"


def test_a_new_sender_keeps_the_figures(db, stream):
    db.run("SELECT eventbus.publish('t', to_jsonb(n)) FROM generate_series(1, 100) n")
    before = db.wait_status("out", delivered=100, latency_p50=lambda latency: latency is not None)
    db.run("SELECT pg_terminate_backend(%s)", before["sender_pid"])
    after = db.wait_status("out", 60, sender_pid=lambda pid: pid not in (None, before["sender_pid"]))
    assert (after["delivered"], after["latency_p50"]) == (100, before["latency_p50"])
    assert after["throughput"] > 0
    db.publish("t", 101)
    db.wait_status("out", delivered=101)


def test_counters_survive_a_clean_restart(db, stream, cluster, redis_server):
    redis_server.client().set(f"{stream.key}_text", "no stream")
    db.route("bad", "redis", f"stream:{stream.key}_text")
    for n in range(50):
        db.publish("t", n)
    db.wait_status("out", delivered=50)
    db.wait_status("bad", dead=50)
    cluster.restart("fast")
    db.reconnect()
    after = db.wait_status("out", 60, sender_pid=lambda pid: pid is not None)
    assert (after["delivered"], after["dead"], after["last_delivered_at"] is not None) == (50, 0, True)
    bad = db.wait_status("bad", 60, sender_pid=lambda pid: pid is not None)
    assert (bad["delivered"], bad["dead"]) == (0, 50) and "WRONGTYPE" in bad["last_error"]


def test_counters_survive_kill_9(db, stream, cluster):
    """What was written down before the crash is there after it; what was not is delivered, and counted, once more."""
    db.run("SELECT eventbus.publish('t', to_jsonb(n)) FROM generate_series(1, 100) n")
    db.wait_status("out", delivered=100)
    eventually(lambda: db.one("SELECT sum(delivered) FROM eventbus.cursor") == 100, 60, "the cursor is written")
    db.run("CHECKPOINT")
    crash(db, cluster)
    assert db.wait_status("out", 60, sender_pid=lambda pid: pid is not None)["delivered"] == 100

    db.run("SELECT eventbus.publish('t', to_jsonb(n)) FROM generate_series(1, 100) n")
    db.wait_status("out", delivered=lambda n: n >= 150)
    crash(db, cluster)
    db.wait_status("out", 60, delivered=lambda n: 200 <= n <= 300, in_flight=0)
    assert len({entry["id"] for entry in stream()}) == 200


def activity(db, kind="sender"):
    return [dict(zip(("name", "state", "query", "event"), row)) for row in db.run(
        "SELECT application_name, state, query, wait_event FROM pg_stat_activity "
        "WHERE backend_type = %s AND datname = current_database()", f"pg_eventbus {kind}")]


def wait_activity(db, pattern, state="idle"):
    """Until pg_stat_activity says of the sender what is expected."""
    def there():
        [sender] = activity(db)
        assert re.search(pattern, sender["query"]) and sender["state"] == state, sender
        return sender
    return eventually(there, 60, f"the sender says {pattern}")


def test_workers_say_whom_they_serve_and_what_they_wait_for(db, frozen_redis, name, cluster):
    db.broker("cache", frozen_redis.url)
    db.route("out", "cache", f"list:{name}")
    db.publish("t", 0)
    db.wait_status("out", delivered=1)
    sender = wait_activity(db, '^broker "cache": nothing to deliver$')
    assert sender["name"] == f"pg_eventbus sender {name} to cache"[:63]
    assert sender["event"], "it sleeps"
    [keeper] = activity(db, "keeper")
    assert keeper["name"].startswith("pg_eventbus keeper of database") and keeper["state"] == "idle"
    assert cluster.execute("SELECT query FROM pg_stat_activity WHERE backend_type = 'pg_eventbus launcher'"
                           " AND application_name = 'pg_eventbus launcher'") != []

    frozen_redis.freeze()
    db.publish("t", 1)
    wait_activity(db, '^broker "cache": waiting for acknowledgements$')
    frozen_redis.thaw()
    db.wait_status("out", delivered=2)
    wait_activity(db, "nothing to deliver$")

    frozen_redis.kill()
    db.publish("t", 2)
    wait_activity(db, r'^broker "cache": down, next attempt at \d{4}-.*: .*(refused|lost|closed|reset)')
    frozen_redis.start()
    wait_activity(db, "nothing to deliver$")

    frozen_redis.client().delete(name)
    frozen_redis.client().execute_command("CONFIG", "SET", "maxmemory", "1")
    db.publish("t", 3)
    wait_activity(db, "waiting to offer again what was refused")
    frozen_redis.client().execute_command("CONFIG", "SET", "maxmemory", "0")
    wait_activity(db, "nothing to deliver$")


def test_no_free_worker_slot_is_told_once_by_name(redis_server, name):
    """Launcher, keeper and one sender fit; the log names the brokers that must wait, and says when they need not."""
    with PostgresCluster(config={"max_worker_processes": 4}) as cluster:
        db = Database(cluster, name)
        for broker in ("first", "second", "third"):
            db.broker(broker, redis_server.url)
            db.route(broker, broker, f"list:{name}")
        refused = r"cannot start \d of its senders: no background worker slot is free"
        cluster.wait_log(refused, deadline=60)
        cluster.wait_log(rf"DETAIL:  Database {name}, brokers: .*(first|second|third)")
        def slots():
            [row] = [row for row in db.health() if row["name"] == "worker slots"]
            return row

        # Keepers that only look at databases have had their turn: two senders are missing.
        eventually(lambda: slots()["level"] == "error" and "max_worker_processes = 7 " in slots()["hint"], 60, "4 + 2 + 1")
        told = re.search(r"Set max_worker_processes to at least (\d+) and", cluster.log_text())
        assert int(told.group(1)) >= 6, "what was missing when the first found none, counted in the same way"
        served = next(row["route"] for row in eventually(
            lambda: db.rows("SELECT route FROM eventbus.status WHERE sender_pid IS NOT NULL"), 60))
        for broker in {"first", "second", "third"} - {served}:
            db.run("SELECT eventbus.drop_broker(%s, true)", broker)
        cluster.wait_log(f"all senders of database {name} have found a background worker slot", deadline=60)


def test_the_number_counts_the_decoders_of_senders_that_are_missing(redis_server, name):
    """A sender of routes from the WAL wants a decoder: whoever sets the number must not be told another one then."""
    config = dict(WAL_SETTINGS, max_worker_processes=4)
    with PostgresCluster(config=config, name="slots") as cluster:
        db = Database(cluster, name)
        db.broker("first", redis_server.url)
        db.route("first", "first", f"list:{name}")
        db.wait_state("first", "active", deadline=60)
        db.broker("second", redis_server.url)
        db.route("second", "second", f"stream:{name}", source="wal")

        def slots():
            return next(row for row in db.health() if row["name"] == "worker slots")

        eventually(lambda: slots()["level"] == "error", 60, "there is no room")
        number = int(re.search(r"max_worker_processes = (\d+) ", slots()["hint"]).group(1))
        assert number == 4 + 2 + 1
        assert f"Set max_worker_processes to at least {number} and" in cluster.log_text()
        cluster.write_config(max_worker_processes=number)
        cluster.restart()
        db.reconnect()
        db.wait_state("second", "active", deadline=60)
        assert slots()["level"] == "ok"


def test_health_gives_new_senders_a_moment_and_no_longer(db, redis_server, name):
    db.broker("redis", redis_server.url)
    [keeper] = eventually(lambda: db.rows("SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_eventbus keeper' "
                                          "AND datname = current_database()"), 60, "a keeper runs")
    os.kill(keeper["pid"], signal.SIGSTOP)
    try:
        db.route("out", "redis", f"list:{name}")
        def check():
            return next(row for row in db.health() if row["name"] == "route out")

        assert check()["level"] == "ok" and "about to start" in check()["detail"]
        eventually(lambda: check()["level"] == "error", 10, "it does not start")
        assert check()["detail"] == "no sender runs for broker redis"
    finally:
        os.kill(keeper["pid"], signal.SIGCONT)
    db.wait_state("out", "active")


def test_no_free_slot_for_a_keeper_names_the_database(name):
    """Where nobody has looked yet, nothing is said of events that may not exist."""
    with PostgresCluster(config={"max_worker_processes": 2}) as cluster:
        cluster.wait_log("cannot start a keeper for database (postgres|template1): no background worker slot is free",
                         deadline=60)
        assert "DETAIL:  If it has the extension, its events wait; it is tried" in cluster.log_text()


def test_a_broker_that_alter_broker_has_mended_is_told_to_be_back(db, redis_server, name, told):
    """The sender that told of the trouble is not the one that works."""
    db.broker("redis", redis_server.url.replace("redis://", "redis://nobody:wrong@"))
    db.route("out", "redis", f"list:{name}")
    db.publish("t", 1)
    db.wait_state("out", "held")
    db.run("SELECT eventbus.alter_broker('redis', %s)", redis_server.url)
    db.wait_status("out", delivered=1)
    eventually(lambda: told("LOG", 'broker "redis" is back: its new sender is connected'), 30, "it is told")
    db.run("SELECT eventbus.alter_broker('redis', options => %s::jsonb)", '{"heartbeat": 20}')
    db.publish("t", 2)
    db.wait_status("out", delivered=2)
    assert len(told("LOG", 'broker "redis" is back')) == 1, "there was no trouble the second time"


def test_health_says_what_to_do(db, redis_server, frozen_redis, name):
    """Each check has a level and a detail, and a hint where something is wrong."""
    db.broker("well", redis_server.url)
    db.broker("away", frozen_redis.url)
    db.broker("refusing", redis_server.url.replace("redis://", "redis://nobody:wrong@"))
    for route in ("well", "away", "refusing"):
        db.route(route, route, f"list:{name}")
    db.route("paused", "well", f"list:{name}")
    db.run("SELECT eventbus.pause_route('paused')")
    redis_server.client().set(f"{name}_text", "no list")
    db.route("bad", "well", f"list:{name}_text")
    frozen_redis.kill()
    db.publish("t", 1)
    db.wait_dead("bad")
    db.wait_state("away", "retrying")
    db.wait_state("refusing", "held")
    health = {row["name"]: row for row in db.health()}
    assert {name: health[f"route {name}"]["level"] for name in ("well", "away", "refusing", "paused", "bad")} == {
        "well": "ok", "away": "error", "refusing": "error", "paused": "warning", "bad": "ok"}
    assert health["dead letters"]["level"] == "warning"
    for row in health.values():
        assert row["level"] in ("ok", "warning", "error") and row["detail"]
        assert row["level"] == "ok" or row["hint"].endswith("."), row
    assert "alter_broker" in health["route away"]["hint"] and "resume_route" in health["route paused"]["hint"]
    assert "wrong" not in str(health), "no password"


def test_last_delivered_at_does_not_go_back_when_dead_letters_have_been_sent_again(db, redis_server, name):
    client = redis_server.client()
    client.set(f"{name}:bad", "no stream")
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"stream:{name}:{{topic}}")
    db.publish("good", 1)
    db.publish("bad", 2)
    db.wait_dead("out")
    first = db.wait_status("out", delivered=1, dead=1)["last_delivered_at"]
    client.delete(f"{name}:bad")
    db.run("SELECT eventbus.redeliver('out')")
    db.wait_status("out", delivered=2)
    db.run("SELECT eventbus.pause_route('out')")  # makes the sender count again
    db.wait_state("out", "paused")
    assert db.status("out")["last_delivered_at"] > first
    assert db.status("out")["delivered"] == 2

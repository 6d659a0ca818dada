# What it is: what an operator sees: throughput and latency, counters that survive, what the workers say they do.
# Who calls it: pytest.
# Never: asserts absolute speed; what is slow here was made slow by the test.
import os
import re
import signal
import time

import psycopg2

from servers import eventually


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
    assert list(row)[-3:] == ["throughput", "latency_p50", "latency_p99"]


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

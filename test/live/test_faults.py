# What it is: things die: brokers, senders, the whole server; nothing is lost, nothing invented, nothing disordered.
# Who calls it: pytest.
# Never: accepts a duplicate in a Redis stream, or one with another id elsewhere.
import os
import random
import signal
import threading

import psycopg2
import pytest

from servers import eventually


class Load:
    """Publishers that write each event's id into a table in the same transaction: what the table holds in the end
    is what was committed, whatever a client heard of it. Every fifth transaction is rolled back, each key counts up
    under a row lock."""

    KEYS = 4

    def __init__(self, db, publishers=4, synchronous_commit="on"):
        self.db, self.stopping = db, threading.Event()
        self.count, self.counting = 0, threading.Lock()  # commits that clients have heard of
        self.options = f"-c synchronous_commit={synchronous_commit}"
        db.run("CREATE TABLE sent (id bigint PRIMARY KEY, key text, n int)")
        db.run("CREATE TABLE counters (key text PRIMARY KEY, n int)")
        db.run("INSERT INTO counters SELECT 'k' || g, 0 FROM generate_series(1, %s) g", self.KEYS)
        self.threads = [threading.Thread(target=self._publish, args=(number,)) for number in range(publishers)]

    def _publish(self, number):
        dice = random.Random(number)
        while not self.stopping.is_set():
            try:
                connection = self.db.connect(autocommit=False, application_name="load", options=self.options)
                with connection.cursor() as cursor:
                    while not self.stopping.is_set():
                        self._one(cursor, dice)
                        if dice.random() < 0.2:
                            connection.rollback()
                        else:
                            connection.commit()
                            with self.counting:
                                self.count += 1
                connection.close()
            except psycopg2.Error:
                self.stopping.wait(0.05)

    def _one(self, cursor, dice):
        key = f"k{dice.randint(1, self.KEYS)}"
        cursor.execute("""WITH counted AS (UPDATE counters SET n = n + 1 WHERE key = %s RETURNING key, n)
                          INSERT INTO sent SELECT eventbus.publish('load', to_jsonb(n), key), key, n FROM counted""",
                       (key,))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def wait_more(self, count):
        target = self.count + count
        eventually(lambda: self.count >= target, 60, f"{count} more transactions")

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def is_taken_back(self):
        """Whether commits that clients have heard of are gone. While they continue, some may not be noticed."""
        self.db.reconnect()
        heard = self.count
        return self.db.one("SELECT count(*) FROM sent") < heard

    def committed(self):
        """id -> (key, n)"""
        self.db.reconnect()
        return {row[0]: (row[1], row[2]) for row in self.db.run("SELECT * FROM sent")}


def check(received, committed, duplicates_allowed):
    """received: (id, key, n) in the order of arrival."""
    ids = [row[0] for row in received]
    assert set(committed) - set(ids) == set(), "lost"
    assert set(ids) - set(committed) == set(), "phantom"
    assert duplicates_allowed or len(ids) == len(set(ids)), f"{len(ids) - len(set(ids))} duplicates"
    first_seen = {}
    for event, key, n in received:
        assert committed[event] == (key, n), "the same id, another event"
        first_seen.setdefault(key, {}).setdefault(event, n)
    for key, events in first_seen.items():
        order = list(events.values())
        assert order == sorted(order), f"key {key} is out of order"


def from_stream(server, key):
    return [(int(entry["id"]), entry["key"].decode(), int(entry["payload"])) for entry in server.stream(key)]


def all_in_stream(server, key, committed):
    eventually(lambda: set(server.stream_ids(key)) >= set(committed), 60, "every committed event is in the stream")
    return from_stream(server, key)


@pytest.fixture
def durable(db, durable_redis, name):
    """A route "out" into a stream of a Redis that keeps what it acknowledged."""
    db.broker("redis", durable_redis.url)
    db.route("out", "redis", f"stream:{name}")
    return durable_redis


def test_redis_killed_and_restarted_under_load(db, durable, name):
    with Load(db) as load:
        for _ in range(3):
            load.wait_more(150)
            durable.kill()
            load.wait_more(100)
            durable.start()
    committed = load.committed()
    check(all_in_stream(durable, name, committed), committed, duplicates_allowed=False)
    db.wait_status("out", state="active", in_flight=0, dead=0)


def test_redis_killed_and_restarted_list(db, durable_redis, name):
    """A list cannot tell a duplicate: at least once, in order, nothing invented."""
    db.broker("redis", durable_redis.url)
    db.route("out", "redis", f"list:{name}")
    db.publish("t", 0)
    for n in range(1, 300):
        if n == 100:
            durable_redis.kill()
        if n == 200:
            durable_redis.start()
        db.publish("t", n)
    eventually(lambda: b"299" in durable_redis.client().lrange(name, -1, -1))
    got = [int(value) for value in durable_redis.client().lrange(name, 0, -1)]
    assert list(dict.fromkeys(got)) == list(range(300))


def test_redis_frozen_and_thawed_under_load(db, durable, name):
    with Load(db) as load:
        load.wait_more(100)
        durable.freeze()
        load.wait_more(300)
        durable.thaw()
        load.wait_more(50)
    committed = load.committed()
    check(all_in_stream(durable, name, committed), committed, duplicates_allowed=False)


def test_rabbit_killed_and_restarted_under_load(db, rabbit, name):
    rabbit.declare(name)
    db.broker("rabbit", rabbit.url)
    db.route("out", "rabbit", f"queue:{name}")
    with Load(db) as load:
        load.wait_more(200)
        rabbit.kill()
        load.wait_more(200)
        db.wait_state("out", "retrying", "connecting")
        rabbit.start()
        load.wait_more(100)
    committed = load.committed()
    db.wait_status("out", 60, state="active", in_flight=0, lag=lambda lag: not lag)
    received = [(int(properties.message_id), properties.headers["event-key"], int(body))
                for properties, body, _ in rabbit.take_until_idle(name, 2)]
    check(received, committed, duplicates_allowed=True)


def test_sender_terminated_comes_back(db, durable, name):
    with Load(db) as load:
        for _ in range(3):
            load.wait_more(100)
            pid = db.sender("out")
            db.run("SELECT pg_terminate_backend(%s)", pid)
            db.wait_status("out", sender_pid=lambda now, before=pid: now not in (None, before))
    committed = load.committed()
    check(all_in_stream(durable, name, committed), committed, duplicates_allowed=False)


def test_launcher_and_keeper_terminated_come_back(db, stream, make_database, cluster, redis_server, name):
    db.publish("t", 1)
    stream(1)
    everybody = "SELECT pid FROM pg_stat_activity WHERE backend_type ILIKE '%eventbus%'"
    before = {row[0] for row in cluster.execute(everybody)}
    cluster.execute(f"SELECT pg_terminate_backend(pid) FROM ({everybody}) workers")
    eventually(lambda: not before & {row[0] for row in cluster.execute(everybody)}, 10, "all of them obey SIGTERM")
    db.publish("t", 2)
    stream(2, 60)
    second = make_database("second")
    second.broker("redis", redis_server.url)
    second.route("out", "redis", f"stream:{name}:second")
    second.publish("t", 3)
    eventually(lambda: redis_server.client().exists(f"{name}:second"), 60, "a new database is served")
    db.wait_log_empty()


def test_sender_killed_restarts_the_server_and_loses_nothing(db, durable, name, cluster):
    with Load(db) as load:
        load.wait_more(200)
        os.kill(db.sender("out"), signal.SIGKILL)
        cluster.wait_recovered()
        load.wait_more(200)
    committed = load.committed()
    check(all_in_stream(durable, name, committed), committed, duplicates_allowed=False)


def test_backend_killed_under_load(db, durable, name, cluster):
    with Load(db) as load:
        load.wait_more(200)
        os.kill(cluster.execute("SELECT pid FROM pg_stat_activity WHERE datname = %s AND application_name = 'load' "
                                "LIMIT 1", db.name)[0][0], signal.SIGKILL)
        cluster.wait_recovered()
        load.wait_more(200)
    committed = load.committed()
    check(all_in_stream(durable, name, committed), committed, duplicates_allowed=False)


def test_immediate_restart_under_load(db, durable, rabbit, name, cluster):
    """Twice; Redis gets everything once, RabbitMQ at least once and with the same id."""
    rabbit.declare(name)
    db.broker("rabbit", rabbit.url)
    db.route("copy", "rabbit", f"queue:{name}")
    with Load(db) as load:
        for _ in range(2):
            load.wait_more(300)
            cluster.restart("immediate")
        load.wait_more(200)
    committed = load.committed()
    check(all_in_stream(durable, name, committed), committed, duplicates_allowed=False)
    db.wait_status("copy", 60, in_flight=0, lag=lambda lag: not lag)
    received = [(int(properties.message_id), properties.headers["event-key"], int(body))
                for properties, body, _ in rabbit.take_until_idle(name, 1)]
    check(received, committed, duplicates_allowed=True)


def test_nothing_leaves_before_it_is_durable(db, durable, name, cluster, setting):
    """Asynchronous commits that a crash takes back must not have been sent."""
    setting("wal_writer_delay", "10s")
    crashes = 0
    with Load(db, synchronous_commit="off") as load:
        def crash_until_taken_back():
            nonlocal crashes
            load.wait_more(300)
            cluster.restart("immediate")
            crashes += 1
            return crashes >= 3 and load.is_taken_back()
        eventually(crash_until_taken_back, 180, "the control: a crash takes back commits")
        load.wait_more(100)
    committed = load.committed()
    check(all_in_stream(durable, name, committed), committed, duplicates_allowed=False)


def test_killed_postmaster_under_load(db, durable, name, cluster):
    with Load(db) as load:
        load.wait_more(200)
        cluster.kill_postmaster()
        cluster.start()
        load.wait_more(100)
    committed = load.committed()
    check(all_in_stream(durable, name, committed), committed, duplicates_allowed=False)


def test_clean_restart_sends_nothing_twice(db, rabbit, name, cluster):
    rabbit.declare(name)
    db.broker("rabbit", rabbit.url)
    db.route("out", "rabbit", f"queue:{name}")
    ids = [str(db.publish("t", n)) for n in range(100)]
    db.wait_status("out", delivered=100, in_flight=0)
    cluster.restart("fast")
    db.reconnect()
    ids.append(str(db.publish("t", 100)))
    assert [properties.message_id for properties, _, _ in rabbit.take(name, 101)] == ids
    assert rabbit.take_until_idle(name, 0.5) == []

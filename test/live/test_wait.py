# What it is: eventbus.wait_for_delivery, with brokers that take events, freeze, refuse and come back.
# Who calls it: pytest.
# Never: asserts how fast a wait ends, but that it ends long before its timeout.
import os
import signal
import threading
import time

import psycopg2
import pytest

from database import Database
from servers import PostgresCluster, eventually

LONG = "10 min"  # a wait that must not last so long
SOON = 60        # seconds in which such a wait ends when it should


class Waiting(threading.Thread):
    """A wait in a session of its own; `answer()` is what it returned, or the error that it raised."""

    def __init__(self, db, event, timeout=LONG, route=None):
        super().__init__(daemon=True)
        self.connection = db.connect()
        self.arguments, self.outcome = (event, timeout, route), None
        self.pid = self.connection.info.backend_pid
        self.start()

    def run(self):
        try:
            with self.connection.cursor() as cursor:
                cursor.execute("SELECT eventbus.wait_for_delivery(%s, %s, %s)", self.arguments)
                self.outcome = cursor.fetchone()[0]
        except psycopg2.Error as error:
            self.outcome = error

    def sleeps(self, db):
        """Until the session sleeps on its condition variable."""
        eventually(lambda: self.outcome is not None or db.one(
            "SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = %s", self.pid), 30,
            "the session waits")
        assert self.outcome is None, f"it did not wait: {self.outcome!r}"
        return self

    def answer(self):
        self.join(SOON)
        assert not self.is_alive(), "the wait does not end"
        self.connection.close()
        if isinstance(self.outcome, psycopg2.Error):
            raise self.outcome
        return self.outcome


def wait(db, event, timeout=LONG, route=None):
    return db.one("SELECT eventbus.wait_for_delivery(%s, %s, %s)", event, timeout, route)


def test_true_once_it_is_there(db, stream, redis_server):
    for n in range(20):
        event = db.publish("t", n)
        assert wait(db, event) is True
        assert redis_server.stream_ids(stream.key)[-1] == event, "true means that the broker has it"
    assert wait(db, event) is True and wait(db, event, route="out") is True, "and stays so"
    eventually(lambda: wait(db, event, "0 s"), 60, "once the cursor is written, no sender need be asked")


def test_frozen_broker_false_then_true(db, frozen_redis, name):
    db.broker("redis", frozen_redis.url, heartbeat=0)
    db.route("out", "redis", f"stream:{name}")
    assert wait(db, db.publish("t", 0)) is True
    frozen_redis.freeze()
    event = db.publish("t", 1)
    assert wait(db, event, "300 ms") is False
    waiting = [Waiting(db, event).sleeps(db), Waiting(db, event, route="out").sleeps(db)]
    frozen_redis.thaw()
    assert [one.answer() for one in waiting] == [True, True]
    assert event in frozen_redis.stream_ids(name)


def test_all_routes_or_one_of_them(db, redis_server, frozen_redis, name):
    db.broker("well", redis_server.url)
    db.broker("ill", frozen_redis.url, heartbeat=0)
    db.route("well", "well", f"list:{name}")
    db.route("ill", "ill", f"list:{name}", "t")
    db.route("unconcerned", "ill", f"list:{name}", "another")
    frozen_redis.freeze()
    event = db.publish("t", 1)
    assert wait(db, event, route="well") is True
    assert wait(db, event, "100 ms", "ill") is False
    assert wait(db, event, "100 ms") is False
    assert wait(db, db.publish("u", 2)) is True, "the frozen broker's route does not take it"
    with pytest.raises(psycopg2.errors.InvalidParameterValue, match="does not take event"):
        wait(db, event, route="unconcerned")
    waiting = Waiting(db, event).sleeps(db)
    frozen_redis.thaw()
    assert waiting.answer() is True


def test_dead_letter_is_false_at_once_and_true_after_redeliver(db, redis_server, frozen_redis, name):
    db.broker("redis", redis_server.url)
    db.broker("ill", frozen_redis.url, heartbeat=0)
    db.route("bad", "redis", f"stream:{name}")
    db.route("ill", "ill", f"list:{name}")
    frozen_redis.freeze()
    redis_server.client().set(name, "no stream")
    event = db.publish("t", 1)
    assert wait(db, event) is False, "although the other route might still take it"
    assert [letter["event_id"] for letter in db.dead("bad")] == [event]
    assert wait(db, event, route="bad") is False
    db.run("SELECT eventbus.redeliver('bad')")
    assert wait(db, event, route="bad") is False, "refused again"
    redis_server.client().delete(name)
    db.run("SELECT eventbus.redeliver('bad')")
    assert wait(db, event, route="bad") is True
    assert redis_server.stream_ids(name) == [event] and db.dead("bad") == []


def test_delivered_while_an_older_one_is_refused(db, rabbit, name):
    """The older event of another key is in back-off, so the cursor stands before both."""
    rabbit.declare(name)
    rabbit.do(lambda channel: channel.queue_declare(f"full_{name}", durable=True, arguments={
        "x-max-length": 1, "x-overflow": "reject-publish"}))
    db.broker("rabbit", rabbit.url)
    db.route("out", "rabbit", "queue:{header:to}")
    assert wait(db, db.publish("t", 0, "a", {"to": f"full_{name}"})) is True
    refused = db.publish("t", 1, "a", {"to": f"full_{name}"})
    db.wait_status("out", retries=lambda n: n >= 1)
    event = db.publish("t", 2, "b", {"to": name})
    assert wait(db, event) is True
    assert wait(db, refused, "0 s") is False
    assert db.status("out")["lag"].total_seconds() > 0, "the control: the older one still waits"
    waiting = Waiting(db, refused).sleeps(db)
    rabbit.take(f"full_{name}", 1)
    assert waiting.answer() is True


def test_fifty_at_once(db, stream, redis_server):
    """Each publishes and waits, ten times; nobody is forgotten, and what is true is there."""
    missing, wrong = [], []

    def work():
        connection = db.connect()
        with connection.cursor() as cursor:
            for n in range(10):
                event = db.publish("t", n, connection=connection)
                cursor.execute("SELECT eventbus.wait_for_delivery(%s, %s)", (event, LONG))
                if cursor.fetchone()[0] is not True:
                    wrong.append(event)
                done.append(event)
        connection.close()

    done = []
    threads = [threading.Thread(target=work) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads) and len(done) == 500 and not wrong
    missing = set(done) - set(redis_server.stream_ids(stream.key))
    assert not missing


def test_sender_terminated_while_somebody_waits(db, frozen_redis, name):
    db.broker("redis", frozen_redis.url, heartbeat=0)
    db.route("out", "redis", f"stream:{name}")
    assert wait(db, db.publish("t", 0)) is True
    frozen_redis.freeze()
    event = db.publish("t", 1)
    waiting = Waiting(db, event).sleeps(db)
    short = Waiting(db, event, "1 s")
    pid = db.sender("out")
    db.run("SELECT pg_terminate_backend(%s)", pid)
    db.wait_status("out", 60, sender_pid=lambda now: now not in (None, pid))
    assert short.answer() is False
    assert waiting.outcome is None, "a new sender answers nothing that is not so"
    frozen_redis.thaw()
    assert waiting.answer() is True
    assert frozen_redis.stream_ids(name).count(event) == 1


def test_settled_where_no_sender_runs(db, stream, cluster):
    """The cursor in its table is enough: nobody has to be asked."""
    event = db.publish("t", 1)
    assert wait(db, event) is True
    cursor = "SELECT delivered FROM eventbus.cursor c JOIN eventbus.route_config r ON r.id = c.route_id"
    eventually(lambda: db.one(cursor) == 1, 60, "the cursor is written")
    os.kill(db.sender("out"), signal.SIGSTOP)
    try:
        assert wait(db, event, "0 s") is True
    finally:
        os.kill(db.sender("out"), signal.SIGCONT)


def test_paused_waits_and_goes_on(db, stream):
    db.run("SELECT eventbus.pause_route('out')")
    event = db.publish("t", 1)
    assert wait(db, event, "200 ms") is False
    waiting = Waiting(db, event).sleeps(db)
    db.run("SELECT eventbus.resume_route('out')")
    assert waiting.answer() is True


def test_route_dropped_while_somebody_waits(db, stream):
    db.run("SELECT eventbus.pause_route('out')")
    event = db.publish("t", 1)
    everywhere, there = Waiting(db, event).sleeps(db), Waiting(db, event, route="out").sleeps(db)
    db.run("SELECT eventbus.drop_route('out')")
    assert everywhere.answer() is True, "no route is left that takes it"
    with pytest.raises(psycopg2.errors.UndefinedObject, match="does not exist"):
        there.answer()


def test_another_route_of_the_same_name_is_another_one(db, stream, name):
    db.run("SELECT eventbus.pause_route('out')")
    db.wait_state("out", "paused")
    waiting = Waiting(db, db.publish("t", 1), route="out")
    waiting.sleeps(db)
    db.run("BEGIN; SELECT eventbus.drop_route('out')")
    db.route("out", "redis", f"stream:{name}")
    db.run("COMMIT")
    with pytest.raises(psycopg2.errors.UndefinedObject, match="does not exist"):
        waiting.answer()


def test_rotated_away_counts_as_delivered(db, stream):
    event = db.publish("t", 1)
    assert wait(db, event) is True
    db.wait_log_empty(120)
    assert wait(db, event, "0 s") is True and wait(db, event, "0 s", "out") is True


def test_left_out_is_false(db, stream, redis_server, name, setting):
    """Who waits hears it at once; who comes later, as long as the log holds the event; what was delivered stays true
    for those who waited. The log holds it because the sender of another route is stopped."""
    db.broker("other", redis_server.url)
    db.route("held", "other", f"stream:{name}:held")
    assert wait(db, db.publish("t", 0)) is True
    os.kill(db.sender("held"), signal.SIGSTOP)
    try:
        delivered = db.publish("t", 1)
        assert wait(db, delivered, route="out") is True
        both = Waiting(db, delivered).sleeps(db)
        db.run("SELECT eventbus.pause_route('out')")
        db.wait_state("out", "paused")
        event = db.publish("t", 2)
        waiting = Waiting(db, event, route="out").sleeps(db)
        setting("eventbus.max_log_size", "8MB")
        setting("eventbus.on_log_full", "skip")
        for _ in range(200):
            db.run("SELECT eventbus.publish_text('t', repeat('x', 440)) FROM generate_series(1, 100)")
        assert waiting.answer() is False
        assert db.status("out")["skipped"] > 0
        assert wait(db, event, route="out") is False and wait(db, event) is False
        assert db.one("SELECT count(*) FROM eventbus.event WHERE id = %s", event) == 1, "the control: the log holds it"
        assert wait(db, delivered, route="out") is False, "it cannot be told from what was left out"
        assert both.outcome is None, "but this one was answered before, and waits for the other route"
        db.run("SELECT pg_cancel_backend(%s)", both.pid)
        with pytest.raises(psycopg2.errors.QueryCanceled):
            both.answer()
    finally:
        os.kill(db.sender("held"), signal.SIGCONT)
    eventually(lambda: db.one("SELECT count(*) FROM eventbus.event WHERE id = %s", event) == 0, 60, "the log lets it go")
    assert wait(db, event, route="out") is True, "nothing is known of it any more"


def test_transaction_that_is_still_open(db, stream, setting):
    """Committed: true. Rolled back: an error, at once."""
    setting("eventbus.retention", "1h")
    for end, expected in (("commit", True), ("rollback", psycopg2.errors.UndefinedObject)):
        writer = db.connect(autocommit=False)
        event = db.publish("t", 1, connection=writer)
        waiting = Waiting(db, event).sleeps(db)
        getattr(writer, end)()
        if expected is True:
            assert waiting.answer() is True
        else:
            for again in (waiting, Waiting(db, event)):
                with pytest.raises(expected, match="was rolled back"):
                    again.answer()
        writer.close()


def test_cancelled_and_terminated_at_once(db, stream):
    db.run("SELECT eventbus.pause_route('out')")
    event = db.publish("t", 1)
    for end, error in (("pg_cancel_backend", psycopg2.errors.QueryCanceled),
                       ("pg_terminate_backend", psycopg2.OperationalError)):
        waiting = Waiting(db, event).sleeps(db)
        db.run(f"SELECT {end}(%s)", waiting.pid)
        with pytest.raises(error):
            waiting.answer()


def test_found_in_a_long_log(db, frozen_redis, name):
    """A log of several segments, written by several sessions at once: each event is found, old or new."""
    db.broker("redis", frozen_redis.url, heartbeat=0)
    db.route("out", "redis", f"stream:{name}")
    frozen_redis.freeze()
    ids = []

    def publish():
        connection = db.connect()
        with connection.cursor() as cursor:
            for _ in range(5):
                cursor.execute("SELECT eventbus.publish('t', to_jsonb(repeat('x', 500))) FROM generate_series(1, 500)")
                ids.extend(row[0] for row in cursor.fetchall())
        connection.close()

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids.sort()
    chosen = ids[::97] + ids[-1:]
    assert db.run("SELECT eventbus.wait_for_delivery(id, '0 s'), count(*) FROM unnest(%s) AS id GROUP BY 1", chosen) == \
        [(False, len(chosen))]
    frozen_redis.thaw()
    assert wait(db, ids[-1]) is True
    db.wait_status("out", 60, delivered=len(ids))
    assert db.run("SELECT eventbus.wait_for_delivery(id, '30 s'), count(*) FROM unnest(%s) AS id GROUP BY 1",
                  chosen) == [(True, len(chosen))]


def test_places_are_limited_and_come_back(redis_server, name):
    """256 wait; one more is refused; all of them are terminated, and as many can wait again."""
    with PostgresCluster(config={"max_connections": 300}) as cluster:
        db = Database(cluster, name)
        db.broker("redis", redis_server.url)
        db.route("out", "redis", f"stream:{name}")
        db.run("SELECT eventbus.pause_route('out')")
        event = db.publish("t", 1)
        asleep = ("SELECT count(*) FROM pg_stat_activity "
                  "WHERE query LIKE '%%wait_for_delivery%%' AND wait_event_type = 'Extension'")
        for _ in range(2):
            waiting = [Waiting(db, event) for _ in range(256)]
            eventually(lambda: db.one(asleep) == 256, 120, "256 sessions wait")
            with pytest.raises(psycopg2.errors.ConfigurationLimitExceeded, match="too many sessions wait"):
                wait(db, event)
            db.run("SELECT pg_terminate_backend(pid) FROM unnest(%s) AS pid", [one.pid for one in waiting])
            for one in waiting:
                with pytest.raises(psycopg2.OperationalError):
                    one.answer()
        assert wait(db, event, "0 s") is False


def test_server_that_cannot_deliver(name):
    """Without preload, and on a standby: an error that says what to do."""
    with PostgresCluster(preload=False) as plain:
        db = Database(plain, name)
        event = db.publish("t", 1)
        with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState, match="shared_preload_libraries"):
            wait(db, event)
    with PostgresCluster(name="primary") as primary:
        db = Database(primary, name)
        event = db.publish("t", 1)
        with PostgresCluster(name="standby", copy_of=primary) as standby:
            follower = Database(standby, name, extension=False, create=False)
            with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState, match="on a standby"):
                wait(follower, event)
            follower.connection.close()


def test_no_table_is_polled(db, frozen_redis, name):
    """While a session waits it runs no query: its tables are read as often after two seconds as at once."""
    db.broker("redis", frozen_redis.url, heartbeat=0)
    db.route("out", "redis", f"stream:{name}")
    assert wait(db, db.publish("t", 0)) is True
    frozen_redis.freeze()
    waiting = Waiting(db, db.publish("t", 1)).sleeps(db)

    def switches():
        with open(f"/proc/{waiting.pid}/status") as status:
            return int(next(line for line in status if line.startswith("voluntary_ctxt")).split()[1])

    before, end = switches(), time.monotonic() + 2
    eventually(lambda: time.monotonic() > end, 30)
    assert waiting.outcome is None and switches() - before <= 3, "it sleeps"
    frozen_redis.thaw()
    assert waiting.answer() is True

# What it is: a wall clock that is set back or forward an hour while events flow: nothing waits for it, nothing is late.
# Who calls it: pytest.
# Never: changes the time of anything but the PostgreSQL server that the test started.
import threading

import pytest

from database import Database
from faults import kill_sender
from kills import kill_senders
from servers import Clock, PostgresCluster, eventually

HOUR = 3600


@pytest.fixture(scope="module")
def clock():
    with Clock() as made:
        yield made


@pytest.fixture(scope="module")
def timed(clock):
    """A server that goes by the clock."""
    config = {"eventbus.rotation_period": 1, "eventbus.segment_size": "'1MB'"}
    with PostgresCluster(config=config, environment=clock.environment, name="clock") as server:
        yield server


@pytest.fixture
def db(timed, clock, name):
    clock.set(0)
    database = Database(timed, name)
    yield database
    timed.wait_recovered()
    database.drop()


class Publisher(threading.Thread):
    """Publishes numbers, one a transaction, until it is stopped."""

    def __init__(self, db):
        super().__init__(daemon=True)
        self.db, self.count, self.stopping = db, 0, threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.join()

    def run(self):
        connection = self.db.connect()
        while not self.stopping.wait(0.005):
            self.db.publish("t", self.count, connection=connection)
            self.count += 1
        connection.close()

    def wait_more(self, count):
        wanted = self.count + count
        eventually(lambda: self.count >= wanted)
        return wanted


def saved(db):
    """How many deliveries the route's cursor knows of."""
    return db.one("SELECT delivered FROM eventbus.cursor")


@pytest.mark.parametrize("jump", [-HOUR, HOUR], ids=["back", "forward"])
def test_cursors_and_status_go_on(db, clock, durable_redis, jump, name):
    db.broker("redis", durable_redis.url)
    db.route("out", "redis", f"list:{name}")
    arrived = lambda: [int(body) for body in durable_redis.client().lrange(name, 0, -1)]  # noqa: E731
    with Publisher(db) as publisher:
        publisher.wait_more(20)
        eventually(lambda: saved(db) > 0)
        clock.jump(jump)
        count = publisher.wait_more(50)
        db.wait_status("out", delivered=lambda n: n >= count, lag=lambda lag: lag.total_seconds() >= 0)
        eventually(lambda: saved(db) >= count, why="cursors are written, whatever was done to the clock")
    count = publisher.count
    db.wait_status("out", delivered=count, in_flight=0)
    eventually(lambda: saved(db) == count, why="cursors are written to the last event")
    assert db.one("SELECT abs(extract(epoch FROM now() - last_delivered_at)) < 60 FROM eventbus.status"), \
        "what is shown is the clock's time"
    assert db.status("out")["throughput"] > 0
    db.run("CREATE TABLE flushed ()")  # and with it the cursors
    kill_sender(db)
    db.publish("t", count)
    eventually(lambda: arrived()[-1] == count)
    assert arrived() == list(range(count + 1)), "a crash repeats only what was not acknowledged"


def test_rotation_goes_on(db, clock, redis_server, name):
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"list:{name}")
    generation = lambda: db.one("SELECT last_value FROM eventbus.log_generation")  # noqa: E731
    fill = lambda: db.run("SELECT eventbus.publish_text('t', repeat('x', 1000)) FROM generate_series(1, 100)")  # noqa: E731
    fill()
    eventually(lambda: redis_server.client().llen(name) == 100)
    clock.jump(-HOUR)
    before = generation()

    def has_advanced():
        fill()
        return generation() > before

    eventually(has_advanced, 30, "the log continues to the next segment")


def test_waiting_for_delivery_ends(db, clock, redis_server, name):
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"list:{name}")
    db.run("SELECT eventbus.pause_route('out')")
    event, answers = db.publish("t", 1), []

    def wait():
        connection = db.connect()
        with connection.cursor() as cursor:
            cursor.execute("SELECT eventbus.wait_for_delivery(%s, '2 s')", (event,))
            answers.append(cursor.fetchone()[0])
        connection.close()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    eventually(lambda: db.one("SELECT count(*) FROM pg_stat_activity WHERE query ~ '^SELECT eventbus.wait_for' "
                              "AND wait_event IS NOT NULL"))
    clock.jump(-HOUR)
    thread.join(30)
    assert answers == [False]


def test_a_sender_is_started_again(db, clock, redis_server, name):
    """The keeper's pause before it starts another one, and the launcher's before another keeper, are no moments."""
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"list:{name}")
    pid = db.sender("out")
    for number in range(3):
        db.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'pg_eventbus %r' "
               "AND datname = current_database()")
        clock.jump(-HOUR)
        db.publish("t", number)
        eventually(lambda: redis_server.client().llen(name) == number + 1, why="another sender delivers")
    assert db.sender("out") != pid


@pytest.mark.parametrize("first", [-HOUR, HOUR])
def test_streams_stay_free_of_repetitions(db, clock, durable_redis, first, name):
    """What may have been sent by an earlier sender is known by more than the time when it was published, and by Redis's
    clock. Each second time the clock stays where it is, an hour away from Redis's or not at all."""
    jumps = iter([first, 0, -first, 0] * 2)
    counted = kill_senders(db, durable_redis, name, 8, after=lambda: clock.jump(next(jumps)))
    wrong = {what: counted[what] for what in ("lost", "invented", "duplicates", "disordered") if counted[what]}
    assert not wrong and counted["repeated"], counted

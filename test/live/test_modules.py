# What it is: a protocol's module that is missing when a sender starts: its routes are held, and all else continues.
# Who calls it: pytest.
# Never: takes a module from an installation that others use.
import contextlib

import pytest

from database import Database
from installation import Installation
from servers import PostgresCluster, eventually
from test_log_limit import LIMIT, SIZE
from test_log_skip import all_accounted_for, holds_to_the_limit, publish, skipped


@pytest.fixture(scope="module")
def installation():
    with Installation() as made:
        yield made


@pytest.fixture(scope="module")
def cluster(installation):
    with PostgresCluster(config={"eventbus.rotation_period": 1, "eventbus.segment_size": "'1MB'"},
                         postgres=installation.postgres) as server:
        yield server


@pytest.fixture
def missing(installation):
    """with missing("redis"): its module is not there."""
    @contextlib.contextmanager
    def without(protocol):
        installation.take_away(protocol)
        try:
            yield installation.path(protocol)
        finally:
            installation.put_back(protocol)
    return without


@pytest.fixture
def routes(db, redis_server, mosquitto, name):
    """Two routes to Redis, and one to another broker."""
    db.broker("redis", redis_server.url)
    db.broker("mosquitto", mosquitto.url)
    db.route("out", "redis", f"stream:{name}")
    db.route("list", "redis", f"list:{name}-list")
    db.route("other", "mosquitto", f"topic:{name}")
    db.publish("t", "first")
    for route in ("out", "list", "other"):
        db.wait_status(route, delivered=1)
    return db


def start_anew(db):
    """Ends Redis' sender; returns what its successor, another process, says of the module."""
    pid = db.sender("out")
    db.run("SELECT pg_terminate_backend(%s)", pid)
    row = db.wait_status("out", 60, state="held", last_error=lambda text: text and "cannot be used" in text)
    assert "broker_config" not in row["last_error"], "its row is as it should be"
    assert row["sender_pid"] != pid
    return row["last_error"]


def test_its_routes_are_held_and_go_on_when_it_is_back(routes, missing, redis_server, name, cluster):
    db, begin = routes, cluster.log_size()
    with missing("redis") as path:
        words = start_anew(db)
        assert "could not load the redis module of pg_eventbus" in words and path in words
        assert {row["name"]: row for row in db.health()}["route out"]["level"] == "error"
        db.wait_status("list", state="held", last_error=words)
        held = db.sender("out")
        ids = [db.publish("t", n) for n in range(100)]
        db.wait_status("other", delivered=101, state="active")
        # Whoever changes the configuration has it tried again: it stays, and says nothing again.
        db.run("SELECT eventbus.resume_route('out'), eventbus.resume_route('other')")
        db.publish("t", "another")
        db.wait_status("other", delivered=102)
        assert db.sender("out") == held
        log = cluster.log_text(begin)
        assert log.count('broker "redis" is left out: could not load the redis module of pg_eventbus') == 1
        assert "ERROR" not in log
    db.wait_status("out", 90, delivered=102, state="active")
    db.wait_status("list", delivered=102, state="active")
    assert redis_server.stream_ids(name)[1:101] == ids
    assert cluster.log_text(begin).count('broker "redis" can be used now') == 1
    assert db.sender("out") != held


def test_publishers_are_told_at_once_that_the_broker_cannot_be_made(db, missing, redis_server):
    with missing("redis"):
        with pytest.raises(Exception, match="could not load the redis module of pg_eventbus"):
            db.broker("redis", redis_server.url)
    db.broker("redis", redis_server.url)


def test_a_full_log_leaves_its_events_out(routes, missing, redis_server, name, setting):
    """With on_log_full = skip: no publisher waits for a module that may never come."""
    db = routes
    first = redis_server.stream_ids(name)
    setting("eventbus.max_log_size", "8MB")
    setting("eventbus.on_log_full", "skip")
    db.run("SELECT eventbus.pause_route('list')")
    with missing("redis"):
        start_anew(db)
        ids = publish(db, 40000)
        assert holds_to_the_limit(db), f"{db.one(SIZE)} of {LIMIT}"
        assert 0 < skipped(db) < len(ids)
        db.wait_status("other", 60, delivered=len(ids) + 1)
        assert skipped(db, "other") == 0
        db.run("SELECT eventbus.drop_route('list')")
    db.run("SELECT eventbus.resume_route('out')")
    all_accounted_for(db, redis_server, name, first + ids)
    eventually(lambda: not db.status("out")["lag"], 60, "nothing waits")

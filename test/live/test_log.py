# What it is: what the log holds and releases: rotation, retention, a long transaction beside it, the event view.
# Who calls it: pytest.
# Never: looks at a segment by its name.
import pytest

from servers import eventually, stays

HELD = "SELECT count(*) FROM eventbus.event"


@pytest.fixture
def retention(setting):
    return lambda value: setting("eventbus.retention", value)


def dead_tuples(db):
    db.run("SELECT pg_stat_force_next_flush()")
    return db.one("SELECT coalesce(sum(n_dead_tup), 0)::int FROM pg_stat_user_tables WHERE schemaname = 'eventbus'")


def test_event_view_shows_what_the_log_holds(db, retention):
    retention("1h")
    first = db.publish("a.b", {"n": 1}, "k", {"h": True})
    second = db.one("SELECT eventbus.publish_text('t', 'żółw')")
    third = db.one("SELECT eventbus.publish_bytes('t', '\\x00ff')")
    rows = db.rows("SELECT * FROM eventbus.event ORDER BY id")
    assert [row["id"] for row in rows] == [first, second, third]
    assert (rows[0]["topic"], rows[0]["key"], rows[0]["headers"]) == ("a.b", "k", {"h": True})
    assert rows[0]["payload"] == '{"n": 1}' and rows[0]["content_type"] == "application/json"
    assert rows[1]["payload"] == "żółw" and rows[1]["key"] is None and rows[1]["headers"] is None
    assert rows[2]["content_type"] == "application/octet-stream"
    assert db.one("SELECT bool_and(published_at BETWEEN now() - interval '1 min' AND now()) FROM eventbus.event")


def test_the_log_is_let_go_when_all_routes_have_passed(db, stream):
    for _ in range(5):
        db.run("SELECT eventbus.publish('t', to_jsonb(g)) FROM generate_series(1, 2000) g")
    stream(10000)
    db.wait_log_empty()


def test_retention_keeps_and_then_lets_go(db, stream, retention):
    retention("1h")
    db.run("SELECT eventbus.publish('t', to_jsonb(g)) FROM generate_series(1, 500) g")
    stream(500)
    stays(lambda: db.one(HELD) == 500, 4, "retention keeps the events")
    retention("0")
    db.wait_log_empty()


def test_a_paused_route_keeps_its_events_in_the_log(db, stream):
    db.run("SELECT eventbus.pause_route('out')")
    db.wait_state("out", "paused")
    db.run("SELECT eventbus.publish('t', to_jsonb(g)) FROM generate_series(1, 500) g")
    stays(lambda: db.one(HELD) == 500, 4, "nothing is released that a route has not passed")
    db.run("SELECT eventbus.resume_route('out')")
    stream(500)
    db.wait_log_empty()


def test_the_log_keeps_what_one_route_behind_several_that_go_along_together_has_not_passed(db, redis_server, name):
    db.broker("redis", redis_server.url)
    for route in ("first", "second", "behind"):
        db.route(route, "redis", f"stream:{name}:{route}")
    db.run("SELECT eventbus.pause_route('behind')")
    db.wait_state("behind", "paused")
    event = db.publish("t", "kept")
    generation = "SELECT last_value FROM eventbus.log_generation"
    begun = db.one(generation)

    def has_rotated():
        db.publish("t", "more")
        return db.one(generation) >= begun + 3
    eventually(has_rotated, 60, "the segment with the event is not the one that is written to")
    stays(lambda: db.one("SELECT count(*) FROM eventbus.event WHERE id = %s", event) == 1, 3, "it is released")
    db.run("SELECT eventbus.resume_route('behind')")
    eventually(lambda: event in redis_server.stream_ids(f"{name}:behind"))


def test_rotation_goes_on_beside_a_long_transaction(db, stream, redis_server):
    old = db.connect(autocommit=False)
    old.set_session(isolation_level="REPEATABLE READ")
    old.cursor().execute("SELECT count(*) FROM pg_class")
    for _ in range(10):
        db.run("SELECT eventbus.publish('t', to_jsonb(g)) FROM generate_series(1, 2000) g")
    stream(20000)
    db.wait_log_empty()
    assert dead_tuples(db) < 100, "dead tuples do not grow with the events"
    assert old.info.transaction_status != 0
    old.rollback()
    old.close()


def test_rotation_passes_an_old_writer_by(db, stream):
    """A transaction that published before several rotations and commits after them."""
    late = db.connect(autocommit=False)
    late.cursor().execute("SELECT eventbus.publish_text('t', 'late')")
    published = 0

    def some_are_gone():
        nonlocal published
        db.run("SELECT eventbus.publish_text('t', repeat('x', 2000)) FROM generate_series(1, 100)")
        published += 100
        return db.one(HELD) < published
    eventually(some_are_gone, 60, "segments that the old writer is not in are truncated")
    stream(published)
    late.commit()
    late.close()
    assert stream(published + 1)[-1]["payload"] == b"late"
    db.wait_log_empty()


def test_earliest_takes_what_the_log_still_holds(db, redis_server, name, retention):
    retention("1h")
    held = [db.publish("t", n) for n in range(10)]
    db.broker("redis", redis_server.url)
    db.route("new", "redis", f"stream:{name}:new")
    db.route("all", "redis", f"stream:{name}:all", start="earliest")
    later = db.publish("t", 10)
    eventually(lambda: redis_server.client().xlen(f"{name}:all") >= 11)
    eventually(lambda: redis_server.client().xlen(f"{name}:new") >= 1)
    assert redis_server.stream_ids(f"{name}:all") == [*held, later]
    assert redis_server.stream_ids(f"{name}:new") == [later]


def test_a_route_takes_the_later_events_of_its_own_transaction(db, redis_server, name):
    db.broker("redis", redis_server.url)
    db.run("BEGIN")
    db.publish("t", "before")
    db.route("out", "redis", f"stream:{name}")
    after = db.publish("t", "after")
    db.run("COMMIT")
    eventually(lambda: after in redis_server.stream_ids(name))

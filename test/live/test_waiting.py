# What it is: what status says of what waits, of what is tried again and when, and of errors that are over; wait_for_route.
# Who calls it: pytest.
# Never: takes a number for granted that it has not counted itself.
import datetime
import threading

from servers import eventually


def column(db, route, name):
    return db.one(f"SELECT {name} FROM eventbus.status WHERE route = %s", route)


def publish_many(db, topic, count):
    db.run("SELECT count(eventbus.publish(%s, jsonb_build_object('n', g), 'k' || g %% 7)) FROM generate_series(1, %s) g",
           topic, count)


def test_what_waits_is_counted_up_to_ten_thousand_and_estimated_above(db, redis_server, name):
    db.broker("redis", redis_server.url)
    db.route("some", "redis", f"stream:{name}", "some.#")
    db.route("all", "redis", f"stream:{name}:all", "#")
    for route in ("some", "all"):
        db.run("SELECT eventbus.pause_route(%s)", route)
    assert column(db, "some", "(events_waiting, bytes_waiting, waiting_estimated)::text") == "(0,0,f)"
    publish_many(db, "some.x", 3000)
    publish_many(db, "other", 3000)
    assert column(db, "some", "(events_waiting, waiting_estimated)::text") == "(3000,f)"
    assert column(db, "all", "(events_waiting, waiting_estimated)::text") == "(6000,f)"
    sizes = db.one("SELECT sum(octet_length(payload)) FROM eventbus.event WHERE topic = 'some.x'")
    assert column(db, "some", "bytes_waiting") == sizes
    publish_many(db, "other", 40000)
    publish_many(db, "some.x", 4000)
    assert column(db, "all", "waiting_estimated") and 45000 <= column(db, "all", "events_waiting") <= 55000
    assert column(db, "some", "waiting_estimated") and column(db, "some", "events_waiting") > 3000
    since = column(db, "some", "paused_since")
    db.run("SELECT eventbus.pause_route('some')")  # once more is not again
    assert since and column(db, "some", "paused_since") == since
    for route in ("some", "all"):
        db.run("SELECT eventbus.resume_route(%s)", route)
    eventually(lambda: all(column(db, route, "(events_waiting, bytes_waiting, waiting_estimated)::text") == "(0,0,f)"
                           for route in ("some", "all")), 60, "nothing waits")
    assert redis_server.client().xlen(name) == 7000 and redis_server.client().xlen(f"{name}:all") == 50000
    assert column(db, "some", "paused_since") is None


def test_what_waits_in_the_wal_is_told_in_bytes(db, redis_server, name):
    db.broker("redis", redis_server.url)
    db.run("SELECT eventbus.create_route('wal', 'redis', %s, options => '{\"source\": \"wal\"}')", f"stream:{name}")
    assert db.one("SELECT eventbus.wait_for_route('wal', '60 s')")
    db.run("SELECT eventbus.pause_route('wal')")
    assert not db.one("SELECT eventbus.wait_for_route('wal', '60 s')"), "at once, for it is paused"
    for _ in range(20):
        db.run("SELECT eventbus.publish_wal('t', to_jsonb(repeat('x', 10000)))")
    assert column(db, "wal", "events_waiting IS NULL AND waiting_estimated AND bytes_waiting > 200000")
    db.run("SELECT eventbus.resume_route('wal')")
    eventually(lambda: redis_server.client().xlen(name) == 20, 60)


def test_an_error_that_is_over_is_told_apart_and_what_is_tried_again_says_when(db, durable_redis, name):
    db.broker("redis", durable_redis.url)
    db.route("out", "redis", f"list:{name}")
    assert db.one("SELECT eventbus.wait_for_route('out', '60 s')")
    durable_redis.kill()
    db.publish("t", 1)
    db.wait_state("out", "retrying", deadline=60)
    for _ in range(2):  # attempts that fail at once are told one after the other, also after a pause
        times = set()
        eventually(lambda: times.add(column(db, "out", "last_error_at")) or len(times) > 3, 60, "each attempt is told")
        assert column(db, "out", "next_attempt_at IS NULL OR next_attempt_at > last_error_at")
        db.run("SELECT eventbus.pause_route('out')")
        db.wait_state("out", "paused")
        db.run("SELECT eventbus.resume_route('out')")
    assert not db.one("SELECT eventbus.wait_for_route('out', '100 ms')")
    eventually(lambda: column(db, "out", "next_attempt_at - clock_timestamp() BETWEEN interval '-1 s' AND interval '2 s'"), 30,
               "the next attempt is told")
    found = []
    other = db.connect()

    def wait():
        with other.cursor() as cursor:
            cursor.execute("SELECT eventbus.wait_for_route('out', '2 minutes')")
            found.extend(cursor.fetchone())
    waiting = threading.Thread(target=wait)
    waiting.start()
    durable_redis.start()
    waiting.join(120)
    assert found == [True]
    db.wait_status("out", delivered=1)
    words, at = column(db, "out", "last_error"), column(db, "out", "last_error_at")
    assert words and at
    assert column(db, "out", "last_error_before IS NULL AND last_error_before_at IS NULL")
    eventually(lambda: column(db, "out", "last_error IS NULL AND last_error_at IS NULL"), 120, "it is over")
    assert datetime.datetime.now(at.tzinfo) - at >= datetime.timedelta(seconds=59)
    assert column(db, "out", "last_error_before") == words and column(db, "out", "last_error_before_at") == at
    assert column(db, "out", "next_attempt_at") is None
    assert [row["level"] for row in db.health() if row["name"] == "route out"] == ["ok"]
    # It stays over, whatever ends the route's being active.
    db.run("SELECT eventbus.pause_route('out')")
    db.wait_status("out", state="paused", last_error=None, last_error_before=words)
    db.run(f'ALTER DATABASE "{db.name}" SET eventbus.delivery = off')
    db.cluster.execute("SELECT pg_reload_conf()")
    db.wait_status("out", 60, sender_pid=None, last_error=None, last_error_before=words)
    db.run(f'ALTER DATABASE "{db.name}" RESET eventbus.delivery')
    db.cluster.execute("SELECT pg_reload_conf()")
    db.run("SELECT eventbus.resume_route('out')")
    db.wait_status("out", 60, state="active", last_error=None, last_error_before=words)
    durable_redis.kill()
    eventually(lambda: column(db, "out", "last_error_before IS NULL AND last_error IS NOT NULL"), 60, "the next one is told")


def test_what_redeliver_has_put_back_waits_again(db, redis_server, name):
    redis_server.client().set(f"{name}:out", "no list")
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"list:{name}:out")
    db.publish("t", "12345")
    db.wait_dead("out")
    eventually(lambda: column(db, "out", "dead_letters = 1 AND events_waiting = 0 AND lag = interval '0'"), 30)
    db.run("SELECT eventbus.pause_route('out')")
    db.wait_state("out", "paused")
    assert db.one("SELECT eventbus.redeliver('out')") == 1
    assert column(db, "out", "(dead_letters, events_waiting, bytes_waiting)::text") == "(0,1,7)"
    assert column(db, "out", "lag > interval '0'")
    [check] = [row for row in db.health() if row["name"] == "route out"]
    assert "nothing waits" not in check["detail"], check
    del db.connection.notices[:]
    db.run("SELECT eventbus.drop_route('out')")
    assert 'route "out" is dropped with 1 event that waits' in "".join(db.connection.notices)


def test_a_held_route_says_when_it_is_tried_again(db, rabbit, name):
    db.broker("rabbit", rabbit.url)
    db.route("out", "rabbit", f"queue:{name}_nowhere")
    db.publish("t", 1)
    db.publish("t", 2)
    db.wait_state("out", "held", deadline=60)
    eventually(lambda: column(db, "out", "next_attempt_at > clock_timestamp() - interval '1 s'"), 60)
    assert column(db, "out", "(events_waiting, dead_letters)::text") == "(2,0)"
    rabbit.declare(f"{name}_nowhere")
    db.wait_status("out", 60, delivered=2, state="active")
    with rabbit.listener(f"{name}_nowhere") as heard:
        eventually(lambda: len(heard.bodies()) == 2, 60)
        assert heard.bodies() == [b"1", b"2"]


def test_a_route_is_not_ready_before_its_sender_knows_the_broker_as_it_is(db, redis_server, name):
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"list:{name}")
    for _ in range(10):
        assert db.one("SELECT eventbus.wait_for_route('out', '60 s')")
        db.run("SELECT eventbus.alter_broker('redis', %s)", "redis://127.0.0.1:1")
        for _ in range(50):  # the sender of the broker as it was leaves meanwhile
            assert not db.one("SELECT eventbus.wait_for_route('out', '0')")
        db.run("SELECT eventbus.alter_broker('redis', %s)", redis_server.url)

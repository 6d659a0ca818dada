# What it is: hundreds of routes on one broker that read the same log: each gets its own events, and no more of it is
# held in memory than for a few routes.
# Who calls it: pytest.
# Never: asserts a time of its own; what is slow is compared with one route on the same machine.
import os
import re
import signal

import psycopg2
import pytest

from servers import eventually

EVERYTHING = 4  # routes of "#"
CHOOSY = 116    # routes of "x.N.#"
EVENTS = 3000


def topic(n):
    return f"x.{n % (CHOOSY + 10)}.made"  # some are nobody's but of the routes of "#"


@pytest.fixture
def redis(durable_redis):
    return durable_redis


def make_routes(run, name, count=EVERYTHING + CHOOSY):
    for n in range(count):
        topics = "#" if n < EVERYTHING else f"x.{n - EVERYTHING}.#"
        run("SELECT eventbus.create_route(%s, 'redis', %s, %s)", (f"r{n}", f"stream:{name}:{n}", topics))


def publish(run, begin=0, count=EVENTS):
    run("SELECT count(eventbus.publish('x.' || n %% %s || '.made', to_jsonb(n), 'k' || n %% 7))"
        " FROM generate_series(%s::int, %s) n", (CHOOSY + 10, begin, begin + count - 1))


def expected(n, begin=0, count=EVENTS):
    return [event for event in range(begin, begin + count)
            if n < EVERYTHING or event % (CHOOSY + 10) == n - EVERYTHING]


def by_key(payloads):
    keys = {}
    for payload in payloads:
        keys.setdefault(payload % 7, []).append(payload)
    return keys


def wait_delivered(redis, name, routes=EVERYTHING + CHOOSY, begin=0, count=EVENTS, deadline=60):
    """Every stream has exactly its events, each once, in order within a key."""
    client = redis.client()
    wanted = {n: expected(n, begin, count) for n in range(routes)}

    def lengths():
        short = {n: (client.xlen(f"{name}:{n}"), len(events)) for n, events in wanted.items()
                 if client.xlen(f"{name}:{n}") < len(events)}
        assert not short, f"{len(short)} streams are short, such as {list(short.items())[:3]}"
        return True
    eventually(lengths, deadline, "all is delivered")
    for n, events in wanted.items():
        got = [int(entry["payload"]) for entry in redis.stream(f"{name}:{n}")]
        assert by_key(got) == by_key(events), f"stream {n} has got {len(got)} events of {len(events)}"


def resident(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as text:
        kb = {key: int(value) for key, value in re.findall(r"^(\w+):\s+(\d+) kB", text.read(), re.M)}
    return (kb["RssAnon"] + kb["RssFile"]) / 1024


class Transaction:
    def __init__(self, db):
        self.connection = db.connect(autocommit=False)

    def __enter__(self):
        def run(sql, arguments=None):
            with self.connection.cursor() as cursor:
                cursor.execute(sql, arguments)
        return run

    def __exit__(self, *_):
        self.connection.commit()
        self.connection.close()


def test_routes_made_in_one_transaction_with_their_events(db, redis, name):
    db.broker("redis", redis.url)
    with Transaction(db) as run:
        publish(run, -100, 100)  # before the routes are made: nobody's
        make_routes(run, name)
        publish(run)
    wait_delivered(redis, name)
    publish(lambda sql, arguments: db.run(sql, *arguments), EVENTS, 500)
    wait_delivered(redis, name, count=EVENTS + 500)


def test_routes_made_right_before_the_events(db, redis, name):
    db.broker("redis", redis.url)
    with Transaction(db) as run:
        make_routes(run, name)
    with Transaction(db) as run:
        publish(run)
    wait_delivered(redis, name)


def test_routes_made_one_by_one_while_events_go_by(db, redis, name):
    """Each gets what commits after it was made, and nothing of before."""
    db.broker("redis", redis.url)
    made_at = {}
    for n in range(60):
        topics = "#" if n < EVERYTHING else f"x.{n - EVERYTHING}.#"
        db.route(f"r{n}", "redis", f"stream:{name}:{n}", topics)
        made_at[n] = n * 20
        publish(lambda sql, arguments: db.run(sql, *arguments), n * 20, 20)
    total = 60 * 20
    client = redis.client()
    for n, begin in made_at.items():
        events = [event for event in expected(n, 0, total) if event >= begin]
        eventually(lambda: client.xlen(f"{name}:{n}") >= len(events), 60, f"stream {n} has its {len(events)} events")
        assert by_key(int(entry["payload"]) for entry in redis.stream(f"{name}:{n}")) == by_key(events)


def test_an_open_transaction_that_made_routes_delays_nobody_and_loses_nothing(db, redis, name):
    """The routes' cursors are from before what others have published meanwhile."""
    db.broker("redis", redis.url)
    with Transaction(db) as run:
        make_routes(run, name, 30)
        publish(lambda sql, arguments: db.run(sql, *arguments), 0, 500)  # by somebody else
        publish(run, 500, 500)
    publish(lambda sql, arguments: db.run(sql, *arguments), 1000, 500)
    wait_delivered(redis, name, 30, 0, 1500)


def test_a_killed_sender_goes_on_where_each_route_stood(db, redis, cluster, name):
    db.broker("redis", redis.url)
    make_routes(lambda sql, arguments: db.run(sql, *arguments), name)
    sender = db.sender("r0")
    publish(lambda sql, arguments: db.run(sql, *arguments))
    eventually(lambda: redis.client().xlen(f"{name}:0") > EVENTS // 10, 60, "some of it is delivered")
    db.run("SELECT pg_terminate_backend(%s)", sender)
    publish(lambda sql, arguments: db.run(sql, *arguments), EVENTS, 1000)
    wait_delivered(redis, name, count=EVENTS + 1000)
    assert db.one("SELECT sum(delivered) FROM eventbus.status") >= sum(
        len(expected(n, 0, EVENTS + 1000)) for n in range(EVERYTHING + CHOOSY))


def kill_sender(db):
    """kill -9, after which PostgreSQL restarts all its processes."""
    os.kill(db.sender("r0"), signal.SIGKILL)

    def is_down():
        try:
            db.one("SELECT 1")
            return False
        except psycopg2.Error:
            return True

    def is_up():
        try:
            db.reconnect()
            return True
        except psycopg2.OperationalError:
            return False
    eventually(is_down, 60, "the server has noticed")
    eventually(is_up, 60, "the server is up again")


def test_senders_killed_in_the_midst_leave_each_event_once(db, redis, name):
    """What was acknowledged after the last cursors comes again, and the streams have it already."""
    db.broker("redis", redis.url)
    with Transaction(db) as run:
        make_routes(run, name)
        publish(run)
    client = redis.client()
    for share in (0.05, 0.3, 0.6):
        eventually(lambda: client.xlen(f"{name}:0") > EVENTS * share or client.xlen(f"{name}:1") > EVENTS * share, 60,
                   "some of it is delivered")
        kill_sender(db)
    wait_delivered(redis, name)


def test_trouble_of_one_among_many_is_its_own(db, servers, name):
    """Two brokers with 40 routes each: one is held, one has dead letters, one changes, one goes, one is paused."""
    count, everything = 40, range(0, 3)
    server = servers({"user": ["default on nopass ~* &* +@all", "few on >pw ~ok* &ok* +@all"]})
    client = server.client()
    db.broker("a", server.url)
    db.broker("b", server.url.replace("://", "://few:pw@"))
    with Transaction(db) as run:
        for broker in "ab":
            for n in range(count):
                key = f"no:{name}" if (broker, n) == ("b", 1) else f"ok:{name}:{broker}:{n}"
                run("SELECT eventbus.create_route(%s, %s, %s, %s)",
                    (f"{broker}{n}", broker, f"stream:{key}", "#" if n in everything else f"x.{n}.#"))
        client.set(f"ok:{name}:a:2", "no stream")
        run("SELECT count(eventbus.publish('x.' || n % 50 || '.made', to_jsonb(n), 'k' || n % 7))"
            " FROM generate_series(0, 999) n")

    def more(begin):
        db.run("SELECT count(eventbus.publish('x.' || n %% 50 || '.made', to_jsonb(n), 'k' || n %% 7))"
               " FROM generate_series(%s::int, %s) n", begin, begin + 999)
    db.run("SELECT eventbus.pause_route('a7')")
    more(1000)
    db.run("SELECT eventbus.alter_route('a5', topics := 'x.5.#, x.45.#')")
    db.run("SELECT eventbus.drop_route('a6')")
    more(2000)
    db.run("SELECT eventbus.resume_route('a7')")
    more(3000)

    def arrived(broker, n):
        return [int(entry["payload"]) for entry in server.stream(f"ok:{name}:{broker}:{n}")]
    for broker in "ab":
        for n in range(count):
            if (broker, n) in {("a", 2), ("a", 5), ("a", 6), ("b", 1)}:
                continue
            wanted = [event for event in range(4000) if n in everything or event % 50 == n]
            eventually(lambda: client.xlen(f"ok:{name}:{broker}:{n}") >= len(wanted), 60, f"{broker}{n} has all of its")
            assert by_key(arrived(broker, n)) == by_key(wanted), f"{broker}{n}"
    # Altered in the midst: all of its old topic, of the new one what it had not come to yet, the last at any rate.
    eventually(lambda: len(arrived("a", 5)) == len(set(arrived("a", 5)))
               and set(range(5, 4000, 50)) | set(range(2045, 4000, 50)) <= set(arrived("a", 5)), 60, "a5 has all of its")
    assert all(event % 50 in (5, 45) for event in arrived("a", 5))
    db.wait_status("a2", dead=4000)
    assert db.wait_state("b1", "held")["dead"] == 0
    server.client().execute_command("ACL", "SETUSER", "few", "~no*")
    db.run("SELECT eventbus.resume_route('b1')")
    eventually(lambda: client.xlen(f"no:{name}") >= 4000, 60, "b1 has all of it")
    assert by_key(int(entry["payload"]) for entry in server.stream(f"no:{name}")) == by_key(range(4000))


def test_a_paused_route_keeps_its_events_and_nobody_waits_for_it(db, redis, name):
    db.broker("redis", redis.url)
    make_routes(lambda sql, arguments: db.run(sql, *arguments), name, 60)
    db.run("SELECT eventbus.pause_route('r1')")
    publish(lambda sql, arguments: db.run(sql, *arguments), 0, 10_000)
    client = redis.client()
    for n in (0, 2, EVERYTHING, 59):
        eventually(lambda: client.xlen(f"{name}:{n}") == len(expected(n, 0, 10_000)), 60, f"stream {n} is complete")
    assert client.xlen(f"{name}:1") == 0
    # Where all start again, the one that is far behind does not block the others.
    db.run("SELECT pg_terminate_backend(%s)", db.sender("r0"))
    publish(lambda sql, arguments: db.run(sql, *arguments), 10_000, 1000)
    for n in (0, 2, EVERYTHING, 59):
        eventually(lambda: client.xlen(f"{name}:{n}") == len(expected(n, 0, 11_000)), 60, f"stream {n} is complete")
    db.run("SELECT eventbus.resume_route('r1')")
    wait_delivered(redis, name, 60, 0, 11_000)


def test_memory_is_bounded_and_the_start_prompt(db, redis, name):
    count = 8000
    db.broker("redis", redis.url)
    with Transaction(db) as run:
        make_routes(run, name, 1)
    idle = resident(db.sender("r0"))
    db.run("SELECT eventbus.drop_route('r0')")

    with Transaction(db) as run:
        make_routes(run, name)
        publish(run, 0, count)
    peak = 0.0

    def done():
        nonlocal peak
        row = db.status("r0")
        if row and row["sender_pid"]:
            peak = max(peak, resident(row["sender_pid"]))
        return redis.client().xlen(f"{name}:0") == count
    eventually(done, 60, "the first route of '#' has everything")
    wait_delivered(redis, name, count=count)
    assert peak - idle <= 128, f"{peak - idle:.0f} MB above idle"

    # A sender that starts again begins to deliver at once, and loses and repeats nothing.
    db.run("SELECT pg_terminate_backend(%s)", db.sender("r0"))
    publish(lambda sql, arguments: db.run(sql, *arguments), count, 500)
    eventually(lambda: redis.client().xlen(f"{name}:0") > count, 30, "the first event after a restart")
    wait_delivered(redis, name, count=count + 500, deadline=30)


def test_routes_that_stand_still_at_different_times_share_the_memory(db, redis, name):
    """Each of them could fill a stream of its own with 8 MB."""
    routes, events = 10, 1000
    db.broker("redis", redis.url)
    db.route("r0", "redis", f"stream:{name}:0", "#")
    idle = resident(db.sender("r0"))
    for n in range(1, routes):
        db.route(f"r{n}", "redis", f"stream:{name}:{n}", "#")
        db.run("SELECT eventbus.pause_route(%s)", f"r{n}")
        db.run("SELECT count(eventbus.publish('x', to_jsonb(repeat('y', 9000)))) FROM generate_series(1, %s)", events)
        eventually(lambda: redis.client().xlen(f"{name}:0") >= events * n, 60, "the route that is not paused continues")
    above = resident(db.sender("r0")) - idle
    assert above <= 64, f"{above:.0f} MB above idle"
    for n in range(1, routes - 2):
        db.run("SELECT eventbus.drop_route(%s)", f"r{n}")
    for n in (routes - 2, routes - 1):
        db.run("SELECT eventbus.resume_route(%s)", f"r{n}")
        eventually(lambda: redis.client().xlen(f"{name}:{n}") == events * (routes - n), 60, f"stream {n} gets all")
    assert redis.client().xlen(f"{name}:0") == events * (routes - 1)


@pytest.mark.parametrize("served", (True, False), ids=("served", "sender-stopped"))
def test_routes_that_are_gone_leave_no_place_behind(db, served):
    """There are 2048 places for live status, of which a broker's routes give theirs back when it is dropped, also
    when its sender has been stopped by then."""
    for turn in range(4):
        db.broker("bench", "redis://127.0.0.1:1")
        db.run("SELECT eventbus.create_route('r' || n, 'bench', 'stream:' || n, 'none.' || n) FROM generate_series(1, 700) n")
        eventually(lambda: db.one("SELECT bool_and(sender_pid IS NOT NULL) FROM eventbus.status"), 60,
                   f"in turn {turn} all are shown")
        if not served:
            os.kill(db.sender("r1"), signal.SIGTERM)
        db.run("SELECT eventbus.drop_broker('bench', true)")

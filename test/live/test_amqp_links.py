# What it is: the way to RabbitMQ breaks: refused, swallowed, slow, dribbling, cut, frozen; and what comes after.
# Who calls it: pytest.
# Never: accepts a lost event, another order within a key, or a broker that is back and not used.
import os
import signal
import time

import pytest

from servers import Steady, eventually

RETURN = 10  # seconds at most from a broker's return to its first delivery; at most 2 on a quiet machine


@pytest.fixture
def beside(db, rabbit, redis_server, name):
    """What has to continue: the same RabbitMQ reached directly, and Redis. beside(steady) watches both, and checks them
    in the end."""
    rabbit.declare(f"{name}_beside")
    db.broker("direct", rabbit.url)
    db.route("beside", "direct", f"queue:{name}_beside")
    db.broker("redis", redis_server.url)
    db.route("elsewhere", "redis", f"stream:{name}")
    with rabbit.listener(f"{name}_beside") as heard:
        def in_redis():
            return [entry["payload"] for entry in redis_server.stream(name)]

        def watch(steady):
            steady.watch("another broker to the same RabbitMQ", heard.bodies)
            steady.watch("second broker", in_redis)

        def check(steady):
            for bodies in (heard.bodies, in_redis):
                steady.check(bodies, duplicates=False)
        watch.check = check
        yield watch


@pytest.fixture
def way(db, rabbit, make_proxy, name):
    """way("slow") makes a broker and a route of that name, through a proxy, into a queue of its own."""
    listeners = []

    def make(route, parameters="?heartbeat=1", **options):
        proxy = make_proxy(rabbit)
        rabbit.declare(f"{name}_{route}")
        db.broker(route, f"amqp://guest:guest@127.0.0.1:{proxy.port}{parameters}", **options)
        db.route(route, route, f"queue:{name}_{route}")
        listeners.append(rabbit.listener(f"{name}_{route}").__enter__())
        return proxy, listeners[-1]
    yield make
    for listener in listeners:
        listener.__exit__()


def is_back(heard, seen, since, record_property, what):
    """Waits for a delivery beyond the `seen` ones, and records how long after `since` it came."""
    took = eventually(lambda: len(heard.messages) > seen and max(heard.messages[seen][0] - since, 0.001), RETURN,
                      f"{what}: delivery resumes")
    record_property(f"seconds from return to first delivery, {what}", round(took, 2))
    print(f"{what}: {took:.2f} s from return to first delivery")


WORDS = {"refused": "could not connect to 127.0.0.1:{port}: Connection refused",
         "swallowed": "the broker did not greet within 1 s",
         "frozen": "no heartbeat for 2 s"}


def test_broken_ways_delay_no_other_and_are_used_again(db, name, beside, way, told, record_property):
    """Connections refused; connections swallowed; a standing connection swallowed, which heartbeats find out."""
    proxies, heard = {}, {}
    for route, options in (("refused", {}), ("swallowed", {"connect_timeout": 1}), ("frozen", {"connect_timeout": 1})):
        proxies[route], heard[route] = way(route, **options)
    with Steady(db) as steady:
        beside(steady)
        before = steady.before()
        for listener in heard.values():
            eventually(lambda: listener.messages)
        proxies["refused"].refuse()
        proxies["swallowed"].refuse()
        proxies["swallowed"].black_hole()
        proxies["frozen"].black_hole()
        for route, words in WORDS.items():
            words = words.format(port=proxies[route].port)
            db.wait_state(route, "retrying", "connecting")
            eventually(lambda: told(f'broker "{route}"', words), why=f"{route}: {words}")
            [line] = told(f'broker "{route}"', words)
            assert line.startswith("WARNING") and "next attempt in" in line
            assert [check["level"] for check in db.health() if check["name"] == f"route {route}"] == ["error"]
        steady.goes_on(before)
        for route, proxy in proxies.items():
            seen, since = len(heard[route].messages), time.monotonic()
            proxy.pass_on()
            is_back(heard[route], seen, since, record_property, route)
            eventually(lambda: told(f'broker "{route}"', "is back after"))
            assert len(told(f'broker "{route}"', "is back after")) == 1
            db.wait_state(route, "active")
        steady.stop()
        for listener in heard.values():
            steady.check(listener.bodies)
        beside.check(steady)
    for route in WORDS:
        lines = told(f'broker "{route}"')
        assert len(set(lines)) == len(lines) <= 4, lines


def test_slow_ways_deliver_and_delay_no_other(db, name, beside, way, told):
    """Two seconds each way, and one byte at a time: slow, but no fault; login and heartbeats work through both."""
    slow, heard_slow = way("slow")
    dribbling, heard_dribbling = way("dribbling")
    with Steady(db) as steady:
        beside(steady)
        before = steady.before()
        for proxy, make_slow in ((slow, lambda: slow.delay(2)), (dribbling, dribbling.dribble)):
            made = proxy.connections
            proxy.cut()  # so that the login goes the slow way
            make_slow()
            eventually(lambda: proxy.connections > made)
        stood_at = len(heard_slow.messages), len(heard_dribbling.messages)
        steady.goes_on(before)
        db.wait_state("slow", "active", deadline=60)
        db.wait_state("dribbling", "active", deadline=60)
        eventually(lambda: len(heard_slow.messages) > stood_at[0] and len(heard_dribbling.messages) > stood_at[1], 60)
        for route in ("slow", "dribbling"):
            assert len(told(f'broker "{route}"')) <= 2, told(f'broker "{route}"')
        steady.stop()
        slow.pass_on()
        dribbling.pass_on()
        steady.check(heard_slow.bodies)
        steady.check(heard_dribbling.bodies)
        beside.check(steady)


def test_cut_between_publish_and_acknowledgement(db, rabbit, name, way):
    """Sent again with the same id, before anything newer; also when a frame is cut in two."""
    proxy, heard = way("out", parameters="")
    with Steady(db, rate=500) as steady:
        eventually(lambda: heard.messages)
        for _ in range(3):
            acknowledged = db.status("out")["delivered"]
            db.wait_status("out", delivered=lambda n: n > acknowledged)  # the connection is there
            proxy.hold_answers()
            seen = len(heard.messages)
            eventually(lambda: len(heard.messages) > seen + 50, why="messages arrive whose acknowledgements do not")
            assert db.wait_status("out", in_flight=lambda n: n > 0)["delivered"] < len(heard.messages)
            cuts = proxy.cuts
            proxy.cut_after_bytes(1001)
            eventually(lambda: proxy.cuts > cuts)
            steady.publish_more(100)
        steady.stop()
        steady.check(heard.bodies)
    ids = [properties.message_id for _, properties, _ in heard.messages]
    assert len(ids) > len(set(ids)), "the fault was there: something was sent twice"
    assert len(set(ids)) == steady.count(), "with the same id"
    db.wait_status("out", state="active", in_flight=0, dead=0)


def test_broker_stopped_or_frozen_and_back(db, rabbit, name, redis_server, told, record_property):
    """The node says good-bye and starts again; it is stalled, and continues."""
    rabbit.declare(name)
    db.broker("rabbit", rabbit.url + "?heartbeat=1", connect_timeout=1)
    db.route("out", "rabbit", f"queue:{name}")
    db.broker("redis", redis_server.url)
    db.route("elsewhere", "redis", f"stream:{name}")
    with rabbit.listener(name) as heard, Steady(db) as steady:
        steady.watch("second broker", lambda: [entry["payload"] for entry in redis_server.stream(name)])
        before = steady.before()
        eventually(lambda: heard.messages)
        rabbit.freeze()
        try:
            eventually(lambda: told('broker "rabbit"', "no heartbeat for 2 s; next attempt in"))
            db.wait_state("out", "retrying")
            steady.goes_on(before)
            seen = len(heard.messages)
        finally:
            since = time.monotonic()
            rabbit.thaw()
        is_back(heard, seen, since, record_property, "node thawed")
        db.wait_state("out", "active")
        eventually(lambda: len(told('broker "rabbit"', "is back after")) == 1, why="the return is told")
        rabbit.stop()
        db.wait_error("out", "320 CONNECTION_FORCED|closed the connection|refused")
        db.wait_state("out", "retrying")
        seen = len(heard.messages)
        rabbit.start()
        is_back(heard, seen, time.monotonic(), record_property, "node started")
        db.wait_state("out", "active")
        steady.stop()
        steady.check(heard.bodies)
        steady.check(lambda: [entry["payload"] for entry in redis_server.stream(name)], duplicates=False)
    eventually(lambda: len(told('broker "rabbit"', "is back after")) == 2, why="each return is told once")


def test_an_altered_broker_repeats_nothing_that_was_confirmed(db, rabbit, name):
    """The answers have come when the sender sees the change: it reads them before it leaves."""
    rabbit.declare(name)
    db.broker("rabbit", rabbit.url)
    db.route("out", "rabbit", f"queue:{name}")
    db.publish("t", 0)
    db.wait_status("out", delivered=1)
    rabbit.suspend_queue(name)
    db.run("SELECT eventbus.publish('t', to_jsonb(g)) FROM generate_series(1, 100) g")
    db.wait_status("out", in_flight=100)
    pid = db.sender("out")
    os.kill(pid, signal.SIGSTOP)
    try:
        rabbit.suspend_queue(name, False)

        def unconfirmed():
            return sum(map(int, rabbit.control("list_channels", "--no-table-headers", "messages_unconfirmed").split()))
        eventually(lambda: rabbit.depth(name) == 101 and unconfirmed() == 0, 30, "all confirms are on their way")
        db.run("SELECT eventbus.alter_broker('rabbit', options => '{\"window\": 500}')")
    finally:
        os.kill(pid, signal.SIGCONT)
    db.wait_status("out", sender_pid=lambda other: other not in (None, pid))
    last = db.publish("t", 101)
    db.wait_status("out", in_flight=0, lag=lambda lag: not lag)
    got = [int(body) for _, body, _ in rabbit.take_until_idle(name)]
    assert got == list(range(102)), f"each once, and event {last} after them"

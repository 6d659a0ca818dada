# What it is: what RabbitMQ refuses: an event, a key, a route; and that only that one waits or is put aside.
# Who calls it: pytest.
# Never: takes a route for healthy because it complains of nothing: arrivals are counted.
import json
import re

import pytest

from servers import Steady, eventually


class Beside:
    """A second route on the broker in question, and a route on another broker: what has to continue."""

    def __init__(self, heard, redis_server, stream):
        self.heard, self.redis_server, self.stream = heard, redis_server, stream

    def watched_by(self, steady):
        steady.watch("second route", self.heard.bodies)
        steady.watch("second broker", self.in_redis)

    def in_redis(self):
        return [entry["payload"] for entry in self.redis_server.stream(self.stream)]

    def check(self, steady):
        steady.check(self.heard.bodies, duplicates=False)
        steady.check(self.in_redis, duplicates=False)


@pytest.fixture
def beside(db, rabbit, redis_server, name):
    """The user of broker "rabbit" may write to exchanges whose names begin with allowed."""
    rabbit.declare(f"{name}_beside", f"allowed_{name}_beside")
    db.broker("rabbit", rabbit.url.replace("guest:guest", "limited:s3cret-of-limited"))
    db.broker("redis", redis_server.url)
    db.route("second", "rabbit", f"exchange:allowed_{name}_beside", "steady")
    db.route("elsewhere", "redis", f"stream:{name}", "steady")
    with rabbit.listener(f"{name}_beside") as heard:
        yield Beside(heard, redis_server, name)


def full_queue(channel, queue):
    """It nacks what comes while a message waits in it."""
    channel.queue_declare(queue, durable=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})


# The event, the key


def test_event_and_key_in_trouble_delay_no_other(db, rabbit, name, beside, told):
    """Key "lost" is routed nowhere, the queue of key "full" takes no more, that of "mute" does not answer; a queue has
    vanished."""
    exchange = f"allowed_{name}"

    def declare(channel):
        channel.exchange_declare(exchange, "direct", durable=True)
        channel.queue_declare(name, durable=True)
        channel.queue_declare(f"{name}_vanished", durable=True)
        for number in range(20):
            channel.queue_bind(name, exchange, f"k{number}")
        full_queue(channel, f"{name}_full")
        channel.queue_bind(f"{name}_full", exchange, "full")
        channel.queue_declare(f"{name}_mute", durable=True)
        channel.queue_bind(f"{name}_mute", exchange, "mute")
    rabbit.do(declare)
    # A mute key is told within the test's time, and a busy machine's RabbitMQ is not taken for one.
    db.run("SELECT eventbus.alter_broker('rabbit', options => '{\"confirm_timeout\": 10}')")
    db.route("keys", "rabbit", f"exchange:{exchange}", "steady, sick", routing_key="{key}")
    db.broker("guest", rabbit.url)
    db.route("vanishing", "guest", f"queue:{name}_vanished", "sick")
    with rabbit.listener(name) as heard:
        with Steady(db) as steady:
            steady.watch("same route", heard.bodies)
            beside.watched_by(steady)
            before = steady.before()
            rabbit.do(lambda channel: channel.queue_delete(f"{name}_vanished"))
            rabbit.suspend_queue(f"{name}_mute")
            sick_keys = ["lost", "full", "mute"]
            with Steady(db, keys=0, rate=20, sick=sick_keys, topics=dict.fromkeys(sick_keys, "sick")) as sick:
                steady.goes_on(before)
                db.wait_status("keys", retries=lambda n: n >= 3, state="active")
        for words in ("basic.nack", "no acknowledgement within"):
            db.wait_error("keys", words, 60)
        letters = db.wait_dead("keys", sick.published["lost"])
        assert [(letter["key"], json.loads(letter["payload"])["n"]) for letter in letters] == \
            [("lost", n) for n in range(1, sick.published["lost"] + 1)]
        assert all(f"312 NO_ROUTE: exchange '{exchange}', routing key 'lost'" in letter["error"] for letter in letters)
        assert len(told('route "keys"', "is a dead letter", "NO_ROUTE")) == 1, "one line a minute"
        db.wait_state("vanishing", "held")
        db.wait_error("vanishing", "there is no such queue, declare it")
        assert db.status("vanishing")["dead"] == 0
        rabbit.declare(f"{name}_vanished")
        rabbit.suspend_queue(f"{name}_mute", False)
        with rabbit.listener(f"{name}_vanished") as redelivered, rabbit.listener(f"{name}_full") as drained, \
                rabbit.listener(f"{name}_mute") as heard_again:
            sick.check(redelivered.bodies, duplicates=False)
            sick.check(drained.bodies, but=["lost", "mute"])
            sick.check(heard_again.bodies, but=["lost", "full"])
        db.wait_status("keys", state="active", in_flight=0, lag=lambda lag: not lag)
        steady.check(heard.bodies, duplicates=False)
        beside.check(steady)


def test_strict_order_under_nacks(db, rabbit, name):
    """A queue that is drained message by message: nothing overtakes, however often it says no."""
    rabbit.do(lambda channel: full_queue(channel, name))
    db.broker("rabbit", rabbit.url)
    db.route("out", "rabbit", f"queue:{name}", order="strict")
    db.run("SELECT eventbus.publish('t', to_jsonb(g), 'k' || g % 3) FROM generate_series(1, 30) g")
    db.wait_status("out", retries=lambda n: n >= 3)
    with rabbit.listener(name) as heard:
        eventually(lambda: len(heard.messages) >= 30, 60, "all events arrive")
        db.wait_status("out", delivered=30, dead=0, in_flight=0)
        got = [int(body) for body in heard.bodies()]
    assert sorted(got) == list(range(1, 31))
    for key in range(3):
        assert [n for n in got if n % 3 == key] == [n for n in range(1, 31) if n % 3 == key]


@pytest.mark.parametrize("limit", [{"max_attempts": 3}, {"max_age": "1 s"}], ids=["attempts", "age"])
def test_limits_of_patience_end_in_dead_letters(db, rabbit, name, limit):
    """Each event of the key in turn; other keys are not concerned."""
    def declare(channel):
        channel.exchange_declare(name, "direct", durable=True)
        full_queue(channel, name)
        channel.queue_declare(f"{name}_other", durable=True)
        channel.queue_bind(name, name, "full")
        channel.queue_bind(f"{name}_other", name, "other")
    rabbit.do(declare)
    db.broker("rabbit", rabbit.url)
    db.route("out", "rabbit", f"exchange:{name}", routing_key="{key}", **limit)
    db.publish("t", 0, "full")
    db.wait_status("out", delivered=1)
    ids = [db.publish("t", n, "full") for n in range(1, 4)]
    other = db.publish("t", 4, "other")
    assert [properties.message_id for properties, _, _ in rabbit.take(f"{name}_other", 1)] == [str(other)]
    letters = db.wait_dead("out", 3)
    assert [letter["event_id"] for letter in letters] == ids
    assert all(next(iter(limit)) in letter["error"] for letter in letters) and "basic.nack" in letters[0]["error"]
    if "max_attempts" in limit:
        assert [letter["attempts"] for letter in letters] == [3, 3, 3]
    assert [body for _, body, _ in rabbit.take(name, 1)] == [b"0"]
    assert db.one("SELECT eventbus.redeliver()") == 3
    with rabbit.listener(name) as heard:
        eventually(lambda: sorted(heard.bodies()) == [b"1", b"2", b"3"], why="an operator overrides the limits")


def test_message_over_the_brokers_size_limit_is_a_dead_letter(db, rabbit, name):
    """RabbitMQ closes the channel without saying which message it was."""
    rabbit.declare(name)
    db.broker("rabbit", rabbit.url)

    def limit(size):  # RabbitMQ 3 reads the one, 4 the other
        rabbit.control("eval", f"application:set_env(rabbit, max_message_size, {size}), "
                               f"persistent_term:put(max_message_size, {size}).")

    limit(100000)
    try:
        db.route("out", "rabbit", f"queue:{name}")
        db.run("BEGIN")
        ids = [db.publish("t", "x" * (200000 if n == 25 else 10), f"k{n % 5}") for n in range(50)]
        db.run("COMMIT")
        [letter] = db.wait_dead("out")
        assert letter["event_id"] == ids[25] and "message size 200002" in letter["error"]
        db.wait_status("out", delivered=49, dead=1, state="active")
    finally:
        limit(134217728)
    got = [int(properties.message_id) for properties, _, _ in rabbit.take_until_idle(name)]
    assert list(dict.fromkeys(got)) == ids[:25] + ids[26:]


# The route


def test_held_routes_delay_no_other_and_catch_up_by_themselves(db, rabbit, name, beside, told):
    """An exchange is deleted while events flow, another one may not be written to."""
    gone, forbidden = f"allowed_{name}_gone", f"forbidden_{name}"

    def declare(channel):  # what is unroutable is taken by the same queue: the exchange comes back with its binding
        channel.exchange_declare(f"{gone}_all", "fanout", durable=True)
        channel.queue_declare(gone, durable=True)
        channel.queue_bind(gone, f"{gone}_all")
        channel.exchange_declare(gone, "topic", durable=True, arguments={"alternate-exchange": f"{gone}_all"})
    rabbit.do(declare)
    rabbit.declare(forbidden, forbidden)
    db.route("gone", "rabbit", f"exchange:{gone}")
    db.route("forbidden", "rabbit", f"exchange:{forbidden}")
    with rabbit.listener(gone) as heard_gone, rabbit.listener(forbidden) as heard_forbidden, Steady(db) as steady:
        beside.watched_by(steady)
        before = steady.before()
        assert heard_gone.messages
        rabbit.do(lambda channel: channel.exchange_delete(gone))
        words = {"gone": f"404 NOT_FOUND - no exchange '{gone}' in vhost '/'",
                 "forbidden": f"403 ACCESS_REFUSED - (write )?access to exchange '{forbidden}' in vhost '/' refused for "
                              "user 'limited'"}
        for route in words:
            row = db.wait_state(route, "held")
            assert re.fullmatch(words[route], row["last_error"]) and row["dead"] == 0
        stood_at = len(heard_gone.messages)
        steady.goes_on(before)
        assert len(heard_gone.messages) == stood_at and not heard_forbidden.messages
        for route in words:
            assert [(check["level"], "held" in check["detail"]) for check in db.health()
                    if check["name"] == f"route {route}"] == [("error", True)]
            [line] = told(f'route "{route}"')
            assert f'route "{route}" to broker "rabbit"' in line
            assert re.search(f"is held: {words[route]}; trying again in", line)
        rabbit.do(declare)
        rabbit.control("set_permissions", "limited", ".*", "^(allowed|forbidden).*", ".*")
        try:
            for route in words:
                db.wait_status(route, 60, state="active", last_delivered_at=lambda at: at is not None)
                eventually(lambda: len(told(f'route "{route}"')) == 2)
                assert "delivers again after" in told(f'route "{route}"')[1]
            steady.stop()
            steady.check(heard_forbidden.bodies, duplicates=False)
        finally:
            rabbit.control("set_permissions", "limited", ".*", "^allowed.*", ".*")
        steady.check(heard_gone.bodies)
        beside.check(steady)

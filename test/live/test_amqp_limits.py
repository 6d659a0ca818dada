# What it is: what RabbitMQ returns, forbids by routing key, or limits: what it costs, and whom.
# Who calls it: pytest.
# Never: takes a route for healthy because it complains of nothing: arrivals are counted.
import json
import re
import time
from collections import Counter

import pytest

from servers import PostgresCluster, eventually


@pytest.fixture(scope="module")
def cluster():
    """Slots want settings that need a restart."""
    with PostgresCluster(config={"wal_sender_timeout": "0"}) as server:
        yield server


@pytest.fixture
def as_app(rabbit):
    """as_app(limits): the URL of user "app", who has these limits until the test's end."""
    def make(**limits):
        rabbit.control("set_user_limits", "app", json.dumps(limits))
        return rabbit.url.replace("guest:guest", "app:s3cret-of-app")
    yield make
    rabbit.control("clear_user_limits", "app", "all")


def connections(rabbit):
    """The broker's process of each connection: another one after a reconnect."""
    return rabbit.control("list_connections", "pid")


def channels_of(rabbit, user):
    """Their numbers."""
    rows = rabbit.control("list_channels", "--no-table-headers", "-q", "user", "number").splitlines()
    return [number for owner, number in (row.split() for row in rows) if owner == user]


def test_unroutable_events_from_the_wal_are_dead_letters_and_disturb_nobody(db, rabbit, name, told):
    """Their ids are texts; one event goes to two routes, and routes from the log share the connection."""
    rabbit.declare(f"{name}_log")

    def declare(channel):
        channel.exchange_declare(name, "direct", durable=True)
        channel.queue_declare(name, durable=True)
        channel.queue_bind(name, name, "good")
    rabbit.do(declare)
    db.broker("rabbit", rabbit.url)
    for route in ("wal", "other_wal"):
        db.route(route, "rabbit", f"exchange:{name}", "w", source="wal", routing_key="{key}")
    db.route("log", "rabbit", f"queue:{name}_log", "l")
    for route in ("wal", "other_wal"):
        db.wait_state(route, "active", deadline=60)
    before = connections(rabbit)
    with rabbit.listener(name) as heard, rabbit.listener(f"{name}_log") as heard_log:
        for n in range(30):
            db.run("SELECT eventbus.publish_wal('w', %s::jsonb, %s)", str(n), "bad" if n % 10 == 5 else "good")
            db.publish("l", n)
        for route in ("wal", "other_wal"):
            letters = db.wait_dead(route, 3)
            assert [json.loads(letter["payload"]) for letter in letters] == [5, 15, 25]
            assert all(f"312 NO_ROUTE: exchange '{name}', routing key 'bad'" in letter["error"] for letter in letters)
        eventually(lambda: len(heard.messages) >= 54 and len(heard_log.messages) >= 30)
        assert Counter(heard.bodies()) == {str(n).encode(): 2 for n in range(30) if n % 10 != 5}
        assert [int(body) for body in heard_log.bodies()] == list(range(30))
    assert not told('broker "rabbit" (', "next attempt"), "the connection stays"
    eventually(lambda: connections(rabbit) == before, why="the connection is the one of before")
    for route in ("wal", "other_wal", "log"):
        db.wait_status(route, state="active", in_flight=0)


def test_unroutable_rows_repeat_no_neighbours(db, rabbit, name, told):
    """60 of 260 rows, and 140 events of the log on the same connection: each once. After each return 0.1 sent again
    what was under way: 496 arrivals of the 200 rows, 227 of the 140."""
    rabbit.declare(f"{name}_log")

    def declare(channel):
        channel.exchange_declare(name, "topic", durable=True)
        channel.queue_declare(name, durable=True)
        channel.queue_bind(name, name, "public.good.#")
    rabbit.do(declare)
    db.run("CREATE TABLE good (id int PRIMARY KEY)")
    db.run("CREATE TABLE unbound (id int PRIMARY KEY)")
    db.broker("rabbit", rabbit.url)
    db.route("rows", "rabbit", f"exchange:{name}", "public.#", source="wal", format="row")
    db.route("log", "rabbit", f"queue:{name}_log", "l")
    db.wait_state("rows", "active", deadline=60)
    before = connections(rabbit)
    unbound = [n for n in range(260) if n % 13 in (1, 5, 9)]
    assert len(unbound) == 60
    with rabbit.listener(name) as heard, rabbit.listener(f"{name}_log") as heard_log:
        for n in range(260):
            db.run(f"INSERT INTO {'unbound' if n in unbound else 'good'} VALUES (%s)", n)
            if n < 140:
                db.publish("l", n)
        letters = db.wait_dead("rows", 60)
        assert [json.loads(letter["payload"])["id"] for letter in letters] == unbound
        assert all("312 NO_ROUTE" in letter["error"] and letter["attempts"] == 1 for letter in letters)
        for route, delivered in (("rows", 200), ("log", 140)):
            db.wait_status(route, state="active", delivered=delivered, in_flight=0)
        eventually(lambda: len(heard.messages) >= 200 and len(heard_log.messages) >= 140)
        assert [json.loads(body)["id"] for body in heard.bodies()] == [n for n in range(260) if n not in unbound]
        assert [int(body) for body in heard_log.bodies()] == list(range(140))
    assert not told('broker "rabbit" (', "next attempt") and connections(rabbit) == before, "the connection stays"


def test_one_forbidden_routing_key_does_not_hold_the_route(db, rabbit, name, told):
    """By a topic permission: RabbitMQ closes the channel, and names exchange and routing key."""
    exchange = f"allowed_{name}"
    rabbit.declare(name, exchange)
    db.broker("rabbit", rabbit.url.replace("guest:guest", "limited:s3cret-of-limited"))
    rabbit.control("set_topic_permissions", "limited", exchange, r"^ok\.", ".*")
    try:
        with rabbit.listener(name) as heard:
            db.route("out", "rabbit", f"exchange:{exchange}")
            db.run("BEGIN")
            db.publish("no.1", 0, "k0")
            for n in range(1, 46):
                db.publish(f"ok.{n}", n, f"k{n}")
            db.run("COMMIT")
            eventually(lambda: {int(body) for body in heard.bodies()} == set(range(1, 46)), why="the allowed ones arrive")
            row = db.wait_error("out", f"403 ACCESS_REFUSED - .*access to topic 'no.1' in exchange '{exchange}'")
            assert row["state"] == "active" and not told("is held")
            rabbit.control("clear_topic_permissions", "limited")
            eventually(lambda: 0 in {int(body) for body in heard.bodies()}, 60, "it arrives once it may")
            db.wait_status("out", state="active", in_flight=0, dead=0)
    finally:
        rabbit.control("clear_topic_permissions", "limited")


class Neighbours:
    """Numbered events that are allowed, of 45 keys, beside one that RabbitMQ forbids by its routing key, no.1."""

    def __init__(self, db, rabbit, exchange, heard):
        self.db, self.rabbit, self.heard, self.published = db, rabbit, heard, 0
        self.refusal = rf"connection <[^>]+> \(127\.0\.0\.1:(\d+) -> .*\n.* access to topic 'no\.1' in exchange '{exchange}'"

    def connection(self):
        """The only connection that there is: the port on our side."""
        def only_one():
            rows = self.rabbit.control("list_connections", "--no-table-headers", "user", "peer_port").splitlines()
            ports = [port for user, port in (row.split() for row in rows) if user == "limited"]
            return ports[0] if len(ports) == 1 else None
        return eventually(only_one, 60, "the broker has one connection of ours")

    def refusals(self, connection):
        """As RabbitMQ's log counts them, seconds later: status counts what is sent again beside the forbidden one too."""
        with open(self.rabbit.log_path, encoding="utf-8", errors="replace") as log:
            return re.findall(self.refusal, log.read()).count(connection)

    def flow_until(self, done, why):
        """All have arrived then. Their numbers."""
        first = self.published + 1
        deadline = time.monotonic() + 60
        while not done():
            assert time.monotonic() < deadline, f"{why}: {self.db.status('out')}"
            self.db.run("SELECT eventbus.publish('ok.' || n, to_jsonb(n), 'k' || mod(n, 45)) "
                        "FROM generate_series(%s, %s) n", self.published + 1, self.published + 100)
            self.published += 100
            eventually(lambda: len(self.heard.messages) > self.published - 300)
        numbers = set(range(first, self.published + 1))
        eventually(lambda: numbers <= self.heard_numbers(), 60, "all neighbours arrive")
        return numbers

    def flow_for(self, refusals, connection):
        """Until so many more have been refused."""
        wanted = self.refusals(connection) + refusals
        return self.flow_until(lambda: self.refusals(connection) >= wanted, f"{refusals} refusals")

    def heard_numbers(self):
        return {int(body) for body in self.heard.bodies()}


@pytest.mark.parametrize("most_channels", [None, 1], ids=["free", "one-channel"])
def test_retries_of_a_forbidden_routing_key_repeat_no_neighbours(db, rabbit, name, told, most_channels):
    """What is under way on the channel that RabbitMQ closes comes again: at a connection's first refusal, and at no
    other one, whichever event of that routing key it is. With one channel alone the forbidden one waits for its turn."""
    exchange = f"allowed_{name}"
    rabbit.declare(name, exchange)
    rabbit.control("set_topic_permissions", "limited", exchange, r"^ok\.", ".*")
    if most_channels:
        rabbit.control("set_user_limits", "limited", json.dumps({"max-channels": most_channels}))
    db.broker("rabbit", rabbit.url.replace("guest:guest", "limited:s3cret-of-limited"))
    try:
        with rabbit.listener(name) as heard:
            db.route("out", "rabbit", f"exchange:{exchange}")
            neighbours = Neighbours(db, rabbit, exchange, heard)
            db.publish("no.1", 0, "forbidden")
            if most_channels:  # which is learned by one that is too many, and ends the connection
                neighbours.flow_until(lambda: told("routes take turns on the 1 channel"), "the limit is told")
            connection = neighbours.connection()
            neighbours.flow_until(lambda: neighbours.refusals(connection) > 0, "the connection's first refusal")
            numbers = neighbours.flow_for(4, connection)
            db.publish("no.1", -1, "another")
            numbers |= neighbours.flow_for(4, connection)
            times = Counter(int(body) for body in heard.bodies())
            assert not {n: times[n] for n in numbers if times[n] != 1}
            assert neighbours.connection() == connection, "it stays"
            rabbit.control("clear_topic_permissions", "limited")
            eventually(lambda: {0, -1} <= neighbours.heard_numbers(), 60, "they arrive once they may")
            db.wait_status("out", state="active", in_flight=0, dead=0)
            assert sorted(channels_of(rabbit, "limited")) == ["1"], "the channel aside is closed"
    finally:
        rabbit.control("clear_topic_permissions", "limited")
        rabbit.control("clear_user_limits", "limited", "all")


def open_too_many(db, rabbit, routes, told):
    """Publishes numbers from 1 on until the limit of channels is told; the next number. RabbitMQ counts channels a
    little late: of some that are opened together a busy one lets all through. Then it ends the connection."""
    for n in range(1, 21):
        db.publish("t", n)
        for route in routes:
            db.wait_status(route, 60, delivered=n, in_flight=0)
        if told('broker "rabbit" (', "530 NOT_ALLOWED"):
            return n + 1
        assert len(channels_of(rabbit, "app")) > 3, "the limit was neither kept nor told"
        rabbit.control("close_all_user_connections", "app", "once more")
    raise AssertionError("RabbitMQ never kept its limit")


def test_routes_take_turns_on_the_channels_that_a_user_may_have(db, rabbit, name, as_app, told):
    """RabbitMQ ends the connection for one channel too many."""
    routes = [f"r{n}" for n in range(5)]
    for route in routes:
        rabbit.declare(f"{name}_{route}")
    db.broker("rabbit", as_app(**{"max-channels": 3}))
    for route in routes:
        db.route(route, "rabbit", f"queue:{name}_{route}")
    first = open_too_many(db, rabbit, routes, told)
    db.run("SELECT eventbus.publish('t', to_jsonb(n), 'k' || mod(n, 20)) FROM generate_series(%s, 2000) n", first)
    for route in routes:
        db.wait_status(route, 60, delivered=2000, in_flight=0, dead=0)
    *late, line = told('broker "rabbit" (', "next attempt", "530 NOT_ALLOWED")
    turns = [re.search(r"530 NOT_ALLOWED - number of channels opened for user 'app' has reached the maximum allowed user "
                       r"limit of \(?3\)?; routes take turns on the ([34]) channels that the broker lets us have", more)
             for more in (*late, line)]
    assert all(turns), (late, line)
    kept = [int(turn[1]) for turn in turns]
    assert kept in ([3], [4], [4, 3]), "each refusal is believed, and told once"
    assert len(channels_of(rabbit, "app")) <= kept[-1], "RabbitMQ counted late for as many as are open"
    assert "number of channels" in db.status("r0")["last_error"]
    for route in routes:
        got = [int(body) for _, body, _ in rabbit.take_until_idle(f"{name}_{route}")]
        assert list(dict.fromkeys(got)) == list(range(1, 2001)), "in order"
        assert late or len(got) == 2000, "each once: nothing had been sent before the refusal"
        assert max(Counter(got).values()) <= 1 + len(late)


def test_a_route_too_many_costs_the_others_once(db, rabbit, name, as_app, told):
    """It comes while the others are at work: what is under way is sent again once, and never again."""
    routes = [f"r{n}" for n in range(4)]
    for route in routes:
        rabbit.declare(f"{name}_{route}")
    db.broker("rabbit", as_app(**{"max-channels": 3}))
    for n, route in enumerate(routes):
        db.route(route, "rabbit", f"queue:{name}_{route}", "#" if n < 3 else "late")
    db.run("SELECT eventbus.publish('t', to_jsonb(n), 'k' || n % 20) FROM generate_series(1, 1000) n")
    for route in routes[:3]:
        db.wait_status(route, 60, delivered=1000)
    for n in range(1001, 1101):
        db.publish("late", n)
    for route in routes:
        db.wait_status(route, 60, delivered=1100 if route != "r3" else 100, in_flight=0)
    assert len(told('broker "rabbit" (', "next attempt")) == 1
    for route in routes:
        times = Counter(int(body) for _, body, _ in rabbit.take_until_idle(f"{name}_{route}"))
        assert set(times) == set(range(1 if route != "r3" else 1001, 1101)) and max(times.values()) <= 2

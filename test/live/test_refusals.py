# What it is: refused events: dead letters and what is done with them; routes that are stalled; Redis out of memory.
# Who calls it: pytest.
# Never: accepts a refusal that ends in silence.
import re

import pytest

from servers import eventually, stays


# Unroutable: basic.return


@pytest.fixture
def unroutable(db, rabbit, name):
    """Two dead letters of the route "out", whose exchange has no queue, and a delivered event."""
    rabbit.declare(f"{name}_other", name, "bound.#")
    db.broker("rabbit", rabbit.url)
    db.route("out", "rabbit", f"exchange:{name}")
    ids = [db.publish("lost.cause", {"n": 1}, "k", {"h": "v"}), db.publish("lost.again", {"n": 2})]
    fine = db.publish("bound.fine", {"n": 3})
    assert [properties.message_id for properties, _, _ in rabbit.take(f"{name}_other", 1)] == [str(fine)]
    db.wait_dead("out", 2)
    return ids


def bind_everything(rabbit, name):
    def act(channel):
        channel.queue_declare(name, durable=True)
        channel.queue_bind(name, name, "lost.#")
    rabbit.do(act)


def test_unroutable_event_is_a_dead_letter_in_the_brokers_words(db, unroutable):
    letters = db.dead("out")
    assert [letter["event_id"] for letter in letters] == unroutable
    first = letters[0]
    assert "NO_ROUTE" in first["error"]
    assert (first["route"], first["topic"], first["key"], first["headers"]) == ("out", "lost.cause", "k", {"h": "v"})
    assert first["attempts"] == 1
    db.wait_status("out", dead=2, delivered=1, state="active")


def test_redeliver_after_the_queue_is_declared(db, rabbit, unroutable, name):
    bind_everything(rabbit, name)
    assert db.one("SELECT eventbus.redeliver('out')") == 2
    taken = rabbit.take(name, 2)
    assert sorted(int(properties.message_id) for properties, _, _ in taken) == unroutable
    by_id = {int(properties.message_id): (properties, body) for properties, body, _ in taken}
    properties, body = by_id[unroutable[0]]
    assert body == b'{"n": 1}' and properties.type == "lost.cause"
    assert properties.headers["event-key"] == "k" and properties.headers["h"] == "v"
    db.wait_dead("out", 0)


def test_redeliver_of_one_event(db, rabbit, unroutable, name):
    bind_everything(rabbit, name)
    assert db.one("SELECT eventbus.redeliver(NULL, %s)", unroutable[1]) == 1
    assert [properties.message_id for properties, _, _ in rabbit.take(name, 1)] == [str(unroutable[1])]
    assert [letter["event_id"] for letter in db.wait_dead("out", 1)] == [unroutable[0]]


def test_redelivered_and_refused_again_is_a_dead_letter_again(db, unroutable):
    assert db.one("SELECT eventbus.redeliver('out')") == 2

    def back():
        letters = db.dead("out")
        assert len(letters) == 2 and all(letter["attempts"] >= 2 for letter in letters), letters
        return True
    eventually(back, why="both are dead letters again")
    assert [letter["event_id"] for letter in db.dead("out")] == unroutable


def test_refused_again_and_asked_for_once_more_while_others_are_still_sent(db, rabbit, name):
    """What is under way then is forgotten as it arrives; the one that was refused is not, and is sent without anybody
    asking a third time."""
    missing, full = f"{name}_missing", f"{name}_full"
    db.broker("rabbit", rabbit.url)
    db.route("out", "rabbit", "queue:{header:to}")
    first = db.publish("t", 1, "a", {"to": missing})
    second = db.publish("t", 2, "b", {"to": full})
    db.wait_dead("out", 2)
    rabbit.do(lambda channel: (
        channel.queue_declare(full, durable=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}),
        channel.basic_publish("", full, b"it is full")))
    assert db.one("SELECT eventbus.redeliver()") == 2
    db.wait_status("out", dead=3, retries=lambda n: n >= 1)
    assert [(letter["event_id"], letter["attempts"]) for letter in db.dead("out")] == [(first, 2)]
    rabbit.declare(missing)
    assert db.one("SELECT eventbus.redeliver()") == 1
    assert rabbit.depth(missing) == 0, "it waits for the others"
    rabbit.do(lambda channel: channel.queue_purge(full))
    assert [properties.message_id for properties, _, _ in rabbit.take(full, 1)] == [str(second)]
    assert [properties.message_id for properties, _, _ in rabbit.take(missing, 1)] == [str(first)]
    db.wait_dead("out", 0)


def test_what_was_put_back_by_mistake_can_be_discarded(db, rabbit, unroutable, name):
    """The sender has them already; what is left of them goes out when the route does."""
    def found():
        [row] = [row for row in db.health() if row["name"] == "dead letters"]
        return row["level"], row["detail"]

    db.run("SELECT eventbus.pause_route('out')")
    db.wait_state("out", "paused")
    assert db.one("SELECT eventbus.redeliver('out')") == 2
    assert db.dead("out") == [] and found() == ("warning", "none; put back, and not delivered yet, 2 on: out")
    eventually(lambda: db.one("SELECT eventbus.wait_for_delivery(%s, '0')", unroutable[0]) is False)
    assert db.one("SELECT eventbus.discard('out', %s)", unroutable[0]) == 1
    assert found() == ("warning", "none; put back, and not delivered yet, 1 on: out")
    bind_everything(rabbit, name)
    db.run("SELECT eventbus.resume_route('out')")
    assert [properties.message_id for properties, _, _ in rabbit.take(name, 1)] == [str(unroutable[1])]
    eventually(lambda: found() == ("ok", "none"), why="it has been delivered")
    assert rabbit.take_until_idle(name) == []


def test_a_dead_letter_that_is_discarded_on_its_way_makes_no_other_come_twice(db, frozen_redis, name):
    count, client = 40, frozen_redis.client()
    client.set(name, "no stream")
    db.broker("redis", frozen_redis.url)
    db.route("out", "redis", f"stream:{name}")
    ids = [db.publish("t", "x" * 200_000) for _ in range(count)]
    db.wait_dead("out", count, deadline=60)
    client.delete(name)
    pid = db.sender("out")
    frozen_redis.freeze()
    assert db.one("SELECT eventbus.redeliver()") == count
    eventually(lambda: db.one("SELECT query FROM pg_stat_activity WHERE pid = %s", pid).endswith("acknowledgements"), 30)
    assert db.one("SELECT eventbus.discard('out', %s)", ids[-1]) == 1
    eventually(lambda: db.one("SELECT query FROM pg_stat_activity WHERE pid = %s", pid).endswith("acknowledgements"), 30)
    frozen_redis.thaw()
    eventually(lambda: {row["name"]: row["detail"] for row in db.health()}["dead letters"] == "none", 60, "all are through")
    arrived = frozen_redis.stream_ids(name)
    assert len(arrived) == len(set(arrived)) and set(ids[:-1]) <= set(arrived) <= set(ids)
    assert db.sender("out") == pid


def test_memory_does_not_grow_with_what_is_sent_again(db, redis_server, name):
    count, size = 40, 5_000_000

    def most_so_far():
        with open(f"/proc/{db.sender('out')}/status", encoding="utf-8") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

    client = redis_server.client()
    client.set(name, "no stream")
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"stream:{name}")
    db.run("SET eventbus.max_payload = '16MB'")
    for n in range(count):
        db.run("SELECT eventbus.publish_text('t', repeat(%s, %s), headers => jsonb_build_object('n', %s))",
               chr(ord("a") + n % 26), size, n)
    db.wait_dead("out", count, deadline=60)
    client.delete(name)
    pid = db.sender("out")
    db.run("SELECT pg_terminate_backend(%s)", pid)
    db.wait_status("out", sender_pid=lambda new: new not in (None, pid))
    db.wait_state("out", "active")
    before = most_so_far()
    assert db.one("SELECT eventbus.redeliver()") == count
    eventually(lambda: client.xlen(name) == count, 60, "all arrive")
    assert [entry["payload"][:1] for entry in redis_server.stream(name)] == [b"%c" % (97 + n % 26) for n in range(count)]
    grown = most_so_far() - before
    client.delete(name)
    assert grown < 80_000, f"{grown} kB for {count} dead letters of {size} bytes"


def test_rolled_back_redelivery_sends_nothing(db, rabbit, unroutable, name):
    bind_everything(rabbit, name)
    db.run("BEGIN")
    assert db.one("SELECT eventbus.redeliver('out')") == 2
    db.run("ROLLBACK")
    assert len(db.dead("out")) == 2
    stays(lambda: rabbit.depth(name) == 0, 1, "nothing was sent")


def test_discard(db, unroutable):
    assert db.one("SELECT eventbus.discard('out', %s)", unroutable[0]) == 1
    assert [letter["event_id"] for letter in db.dead("out")] == [unroutable[1]]
    assert db.one("SELECT eventbus.discard()") == 1
    assert db.dead("out") == []
    assert db.one("SELECT eventbus.discard('out')") == 0


def test_missing_queue_holds_the_route_that_names_it(db, rabbit, name):
    db.broker("rabbit", rabbit.url)
    db.route("out", "rabbit", f"queue:{name}")
    events = [db.publish("t", number, key="same") for number in range(5)]
    db.wait_state("out", "held")
    db.wait_error("out", "no such queue, declare it")
    assert db.status("out")["dead"] == 0
    rabbit.declare(name)
    db.wait_status("out", 60, delivered=5, state="active")
    assert [properties.message_id for properties, _, _ in rabbit.take(name, 5)] == [str(event) for event in events]


def test_missing_queue_of_one_event_is_unroutable(db, rabbit, name):
    db.broker("rabbit", rabbit.url)
    db.route("out", "rabbit", "queue:{key}")
    event = db.publish("t", 1, key=name)
    [letter] = db.wait_dead("out")
    assert letter["event_id"] == event and "NO_ROUTE" in letter["error"]
    rabbit.declare(name)
    db.one("SELECT eventbus.redeliver()")
    assert [properties.message_id for properties, _, _ in rabbit.take(name, 1)] == [str(event)]


@pytest.mark.parametrize("stands", ["held", "paused"])
def test_route_that_stands_still_stops_no_other_however_much_waits(db, rabbit, name, stands):
    """More events than a sender keeps in memory: the others must not wait behind them, and none is read twice."""
    rabbit.declare(f"{name}_other")
    db.broker("rabbit", rabbit.url)
    db.route("moving", "rabbit", f"queue:{name}_other")
    db.route("standing", "rabbit", f"exchange:{name}")
    if stands == "paused":
        rabbit.declare(name, name, "#")
        db.run("SELECT eventbus.pause_route('standing')")
        db.wait_state("standing", "paused")
    for first in range(1, 50000, 10000):
        db.run("SELECT count(eventbus.publish('t', to_jsonb(g), (g %% 10)::text)) FROM generate_series(%s, %s) g",
               first, first + 9999)
    db.wait_status("moving", 60, delivered=50000, lag=lambda lag: not lag)
    db.wait_state("standing", stands)
    if stands == "paused":
        db.run("SELECT eventbus.resume_route('standing')")
    else:
        rabbit.declare(name, name, "#")
    db.wait_status("standing", 90, lag=lambda lag: not lag, state="active")
    db.wait_status("moving", delivered=50000)
    got = [int(body) for _, body, _ in rabbit.take_until_idle(name)]
    arrived = list(dict.fromkeys(got))  # the queue may be bound a moment after its exchange is there
    assert len(got) == len(arrived), "nothing was sent twice"
    if stands == "paused":
        assert set(arrived) == set(range(1, 50001))
    for key in range(10):
        of_key = [n for n in arrived if n % 10 == key]
        assert of_key == sorted(of_key)


def test_malformed_expiration_is_a_dead_letter(db, rabbit, name):
    """A broken priority or expiration is the event's own fault: a dead letter, and the link continues."""
    rabbit.declare(name)
    db.broker("rabbit", rabbit.url)
    db.route("out", "rabbit", f"queue:{name}")
    bad = db.publish("t", 1, None, {"expiration": "tomorrow"})
    fine = db.publish("t", 2)
    assert [properties.message_id for properties, _, _ in rabbit.take(name, 1)] == [str(fine)]
    [letter] = db.wait_dead("out")
    assert letter["event_id"] == bad and "expiration" in letter["error"].lower()


def test_redis_out_of_memory_is_tried_again(db, durable_redis, name):
    durable_redis.client().config_set("maxmemory-policy", "noeviction")
    db.broker("redis", durable_redis.url)
    db.route("out", "redis", f"stream:{name}")
    db.publish("t", 1, "k")
    eventually(lambda: durable_redis.client().xlen(name) == 1)
    durable_redis.client().config_set("maxmemory", "1")
    for n in range(2, 6):
        db.publish("t", n, "k")
    row = db.wait_status("out", retries=lambda n: n >= 1, dead=0)
    assert "OOM" in row["last_error"]
    durable_redis.client().config_set("maxmemory", "0")
    eventually(lambda: durable_redis.client().xlen(name) == 5)
    assert [entry["payload"] for entry in durable_redis.stream(name)] == [b"1", b"2", b"3", b"4", b"5"]


def test_what_is_refused_for_the_time_being_is_told_before_anybody_asks(db, durable_redis, name):
    def health():
        return next((row["level"], row["detail"], row["hint"]) for row in db.health() if row["name"] == "route out")
    durable_redis.client().config_set("maxmemory-policy", "noeviction")
    durable_redis.client().config_set("maxmemory", "1")
    db.broker("redis", durable_redis.url)
    db.route("out", "redis", f"stream:{name}")
    event = db.publish("t", 1, "k")
    db.wait_status("out", state="active", retries=lambda n: n >= 1)
    level, detail, hint = eventually(lambda: (row := health())[0] == "warning" and row, 60, "health warns")
    assert re.match("refused for the time being by broker redis: OOM .*; the oldest undelivered event is [0-9]+ s old$", detail)
    assert "memory" in hint
    shown = re.escape(f'route "out" to broker "redis" ({durable_redis.url}) delivers ')  # others share the log
    begun = f'WARNING:.* {shown}nothing for [0-9.]+ s: .* refused for the time being: OOM.*event {event} to stream'
    eventually(lambda: re.search(begun, db.cluster.log_text()), 60, "the log says so")
    durable_redis.client().config_set("maxmemory", "0")
    db.wait_status("out", 60, delivered=1)
    assert health()[0] == "ok"
    eventually(lambda: re.search(f'LOG:.* {shown}again after [0-9.]+ s', db.cluster.log_text()), 30, "and its end")
    assert len(re.findall(shown, db.cluster.log_text())) == 2, "one line a change of state"


def test_max_age_ends_in_the_dead_letters(db, durable_redis, name):
    durable_redis.client().config_set("maxmemory-policy", "noeviction")
    durable_redis.client().config_set("maxmemory", "1")
    db.broker("redis", durable_redis.url)
    db.route("out", "redis", f"stream:{name}", max_age="1 s")
    event = db.publish("t", 1)
    [letter] = db.wait_dead("out")
    assert letter["event_id"] == event and "OOM" in letter["error"]
    durable_redis.client().config_set("maxmemory", "0")
    assert db.one("SELECT eventbus.redeliver()") == 1
    eventually(lambda: durable_redis.client().exists(name), why="an operator's redelivery overrides the age")
    assert durable_redis.stream_ids(name) == [event]

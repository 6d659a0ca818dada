# What it is: keys, and events without one, that a broker refuses for long, beside a route that continues.
# Who calls it: pytest.
# Never: takes what came for what came once: consumers take everything that stands in the queues.
import os
import signal

import psycopg2
import pytest

from servers import eventually

FULL = {"x-max-length": 1, "x-overflow": "reject-publish"}
HEALTHY_KEYS = 20


def declare_queues(rabbit, name):
    """An exchange, its queue for everything "rest.#", and one that takes a message, for "full.#"."""
    def declare(channel):
        channel.exchange_declare(name, "topic", durable=True)
        for queue, arguments in (("rest", None), ("full", FULL)):
            channel.queue_declare(f"{name}_{queue}", durable=True, arguments=arguments)
            channel.queue_bind(f"{name}_{queue}", name, f"{queue}.#")
    rabbit.do(declare)


@pytest.fixture
def queues(db, rabbit, name):
    """A route "out" to them."""
    declare_queues(rabbit, name)
    db.broker("rabbit", rabbit.url)
    db.route("out", "rabbit", f"exchange:{name}")
    return name


def publish(db, topic, count, key):
    """In one transaction; `key` is an SQL expression of g. Returns the ids."""
    return [row["id"] for row in db.rows(
        f"SELECT eventbus.publish(%s, to_jsonb(g), {key}) AS id FROM generate_series(1, %s) g", topic, count)]


def publish_healthy(db, count):
    return publish(db, "rest.t", count, f"(g %% {HEALTHY_KEYS})::text")


def stand_still(db, key="'stuck'", count=20):
    """Events of which the broker takes the first one; returns all ids once another has been refused."""
    ids = publish(db, "full.t", count, key)
    db.wait_error("out", "nack|reject|confirm")
    return ids


def ids(taken):
    return [int(properties.message_id) for properties, _, _ in taken]


def parked_keys(db):
    return db.rows("SELECT parked_key, key, event_ids FROM eventbus.cursor WHERE parked_key > 0 ORDER BY parked_key")


def wait_parked_keys(db, count, deadline=60):
    eventually(lambda: len(parked_keys(db)) == count, deadline, f"{count} parked keys, there are {parked_keys(db)}")


def publish_until_parked_keys(db, count):
    """Detours begin after some seconds in which others are delivered: healthy events until there are `count`."""
    published = []

    def there():
        published.extend(publish_healthy(db, 20))
        return len(parked_keys(db)) == count
    eventually(there, 60, f"{count} parked keys")
    return published


def is_connected(db):
    try:
        return db.one("SELECT true")
    except psycopg2.Error:
        return False


def end_sender(db, cluster, how):
    pid = db.sender("out")
    if how == "terminated":
        db.run("SELECT pg_terminate_backend(%s)", pid)
    else:
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not is_connected(db), 30, "the server ends all sessions when a sender is killed")
        cluster.wait_recovered()
        db.reconnect()
    db.wait_status("out", 60, sender_pid=lambda now: now not in (None, pid))


def by_key(taken):
    found = {}
    for properties, _, _ in taken:
        found.setdefault(properties.headers.get("event-key"), []).append(int(properties.message_id))
    return found


def test_a_key_that_is_refused_for_hours_stops_no_other(db, rabbit, queues, cluster):
    """More events than a sender keeps in memory pass it; restarts send none of them again; it comes in its order."""
    stuck = stand_still(db)
    healthy = []
    for _ in range(7):
        healthy += publish_healthy(db, 10000)
        stuck += publish(db, "full.t", 10, "'stuck'")
    db.wait_status("out", 120, delivered=len(healthy) + 1)
    [parked_key] = parked_keys(db)
    assert (parked_key["key"], parked_key["event_ids"]) == ("stuck", None)
    row = db.wait_status("out", state="active", lag=lambda lag: lag)
    assert row["retries"] > 0 and row["dead"] == 0
    taken = rabbit.take_until_idle(f"{queues}_rest")
    assert sorted(ids(taken)) == healthy, "each once"
    assert all(of_key == sorted(of_key) for of_key in by_key(taken).values()), "in order"

    for how in ("terminated", "killed"):
        end_sender(db, cluster, how)
        again = publish_healthy(db, 100)
        assert ids(rabbit.take(f"{queues}_rest", 100, 60)) == again
        assert ids(rabbit.take_until_idle(f"{queues}_rest")) == [], f"nothing is sent again after it was {how}"
        assert len(parked_keys(db)) == 1

    assert ids(rabbit.take(f"{queues}_full", len(stuck), 60)) == stuck, "in order, each once"
    wait_parked_keys(db, 0)
    db.wait_status("out", lag=lambda lag: not lag, in_flight=0, delivered=len(healthy) + 200 + len(stuck))
    later = publish(db, "full.t", 1, "'stuck'")
    assert ids(rabbit.take(f"{queues}_full", 1)) == later
    db.wait_log_empty()


def test_events_without_a_key_are_tried_again_beside_the_route(db, rabbit, queues, cluster):
    stuck = stand_still(db, "NULL", 4)
    healthy = publish_healthy(db, 2000)
    healthy += publish_until_parked_keys(db, 1)
    assert ids(rabbit.take(f"{queues}_rest", len(healthy), 60)) == healthy
    assert set(map(int, parked_keys(db)[0]["event_ids"])) < set(stuck)
    end_sender(db, cluster, "terminated")
    more = publish_healthy(db, 10)
    assert ids(rabbit.take(f"{queues}_rest", 10, 60)) == more
    assert ids(rabbit.take_until_idle(f"{queues}_rest")) == []
    assert sorted(ids(rabbit.take(f"{queues}_full", len(stuck), 90))) == stuck
    wait_parked_keys(db, 0)
    db.wait_status("out", lag=lambda lag: not lag, delivered=len(healthy) + 10 + len(stuck))


def test_keys_come_and_go_while_others_flow(db, rabbit, queues, cluster):
    """Several keys parked, one after the other, the queue being emptied now and then; with restarts.

    With order "key" what is under way together may be refused and taken in turn; "strict" allows nothing of it."""
    db.run("SELECT eventbus.alter_route('out', options => '{\"order\": \"strict\"}')")
    published, taken = [], []
    for turn in range(6):
        published += publish(db, "full.t", 30, f"'stuck ' || g %% 3 + {turn % 2}")
        published += publish_healthy(db, 500)
        if turn == 0:
            published += publish_until_parked_keys(db, 3)
        if turn == 3:
            end_sender(db, cluster, "terminated")
        if turn == 4:
            taken += rabbit.take_until_idle(f"{queues}_full", 3)
        db.wait_status("out", 60, delivered=lambda count, least=500 * (turn + 1): count >= least)

    def all_came():
        taken.extend(rabbit.take_until_idle(f"{queues}_full") + rabbit.take_until_idle(f"{queues}_rest"))
        return set(ids(taken)) == set(published)
    eventually(all_came, 120, "everything arrives")
    for of_key in by_key(taken).values():
        first_times = list(dict.fromkeys(of_key))
        assert first_times == sorted(first_times)
    wait_parked_keys(db, 0)


def test_parked_keys_follow_their_route(db, rabbit, queues):
    """Paused, altered and dropped with it."""
    stuck = stand_still(db)
    publish_healthy(db, 100)
    wait_parked_keys(db, 1)
    db.run("SELECT eventbus.pause_route('out')")
    db.wait_state("out", "paused")
    rabbit.do(lambda channel: channel.queue_purge(f"{queues}_full"))
    retries = db.status("out")["retries"]
    publish_healthy(db, 100)
    assert db.status("out")["retries"] == retries
    rabbit.declare(f"{queues}_other")
    db.run("SELECT eventbus.alter_route('out', %s)", f"queue:{queues}_other")
    db.run("SELECT eventbus.resume_route('out')")
    came = by_key(rabbit.take(f"{queues}_other", 100 + len(stuck) - 1, 60))
    assert came["stuck"] == stuck[1:]
    wait_parked_keys(db, 0)

    db.run("SELECT eventbus.alter_route('out', %s)", f"exchange:{queues}")
    stand_still(db)
    publish_healthy(db, 100)
    wait_parked_keys(db, 1)
    db.run("SELECT eventbus.drop_route('out')")
    assert parked_keys(db) == []

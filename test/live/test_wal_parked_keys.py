# What it is: keys of a route from the WAL that a broker refuses for long, beside the route that continues.
# Who calls it: pytest.
# Never: takes what came for what came once: consumers take everything that stands in the queues.
import itertools
import json
import os

import pytest

from faults import kill_sender, terminate_sender
from servers import PostgresCluster, eventually

from test_parked_keys import declare_queues, parked_keys, wait_parked_keys
from test_wal import WAL_SETTINGS

NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def cluster():
    with PostgresCluster(config=WAL_SETTINGS) as server:
        yield server


@pytest.fixture
def queues(db, rabbit, name):
    """A route "out" to them."""
    declare_queues(rabbit, name)
    db.broker("rabbit", rabbit.url)
    db.route("out", "rabbit", f"exchange:{name}", "rest.#, full.#", source="wal")
    db.wait_state("out", "active", deadline=60)
    return name


def publish(db, topic, count, key):
    """In one transaction; `key` is an SQL expression of n. Returns the payloads, numbers that rise."""
    numbers = list(itertools.islice(NUMBERS, count))
    db.run(f"SELECT count(eventbus.publish_wal(%s, to_jsonb(n), {key})) FROM generate_series(%s, %s) n", topic,
           numbers[0], numbers[-1])
    return numbers


def publish_healthy(db, count):
    return publish(db, "rest.t", count, "(n %% 20)::text")


def numbers_of(taken):
    return [json.loads(body) for _, body, _ in taken]


def test_a_key_that_is_refused_for_hours_stops_no_other(db, rabbit, queues):
    """More events than a sender keeps in memory pass it; restarts send none of them again; it comes in its order."""
    stuck = publish(db, "full.t", 20, "'stuck'")
    db.wait_error("out", "nack|reject|confirm")
    healthy = []
    for _ in range(5):
        healthy += publish_healthy(db, 10000)
        stuck += publish(db, "full.t", 10, "'stuck'")
    db.wait_status("out", 120, delivered=len(healthy) + 1)
    [parked_key] = parked_keys(db)
    assert (parked_key["key"], parked_key["event_ids"]) == ("stuck", None)
    taken = rabbit.take_until_idle(f"{queues}_rest")
    assert sorted(numbers_of(taken)) == healthy, "each once"

    for end_sender in (terminate_sender, kill_sender):
        end_sender(db)
        again = publish_healthy(db, 100)
        assert numbers_of(rabbit.take(f"{queues}_rest", 100, 60)) == again
        assert numbers_of(rabbit.take_until_idle(f"{queues}_rest")) == [], "nothing is sent again"
        assert len(parked_keys(db)) == 1

    taken = rabbit.take(f"{queues}_full", len(stuck), 90)
    assert numbers_of(taken) == stuck, "in order, each once"
    assert len({properties.message_id for properties, _, _ in taken}) == len(stuck)
    wait_parked_keys(db, 0)
    db.wait_status("out", 60, lag=lambda lag: not lag, in_flight=0, delivered=len(healthy) + 200 + len(stuck))
    later = publish(db, "full.t", 1, "'stuck'")
    assert numbers_of(rabbit.take(f"{queues}_full", 1)) == later
    eventually(lambda: db.one("SELECT confirmed_flush_lsn > wal_lsn - 1000 FROM pg_replication_slots, eventbus.cursor "
                              "WHERE database = current_database()"), 60, "the slot follows")


def test_keys_come_and_go_while_others_flow(db, rabbit, queues):
    """Several keys parked, one after the other, the queue being emptied now and then; with restarts and changes."""
    options = '{"source": "wal", "order": "strict"}'
    db.run("SELECT eventbus.alter_route('out', options => %s::jsonb)", options)
    published, taken = [], []
    for turn in range(6):
        published += publish(db, "full.t", 30, f"'stuck ' || n %% 3 + {turn % 2}")
        published += publish_healthy(db, 500)
        if turn == 0:
            def there():
                published.extend(publish_healthy(db, 20))
                return len(parked_keys(db)) == 3
            eventually(there, 60, "three parked keys")
        if turn == 3:
            terminate_sender(db)
        if turn == 4:
            taken += rabbit.take_until_idle(f"{queues}_full", 3)
        if turn == 5:
            db.run("SELECT eventbus.alter_route('out', topics => 'full.#, rest.#')")
        db.wait_status("out", 60, delivered=lambda count, least=500 * (turn + 1): count >= least)

    def all_came():
        taken.extend(rabbit.take_until_idle(f"{queues}_full") + rabbit.take_until_idle(f"{queues}_rest"))
        return set(numbers_of(taken)) == set(published)
    eventually(all_came, 120, "everything arrives")
    by_key = {}
    for properties, body, _ in taken:
        by_key.setdefault(properties.headers.get("event-key"), []).append(json.loads(body))
    for of_key in by_key.values():
        first_times = list(dict.fromkeys(of_key))
        assert first_times == sorted(first_times)
    wait_parked_keys(db, 0)


def test_parked_keys_go_with_their_route(db, rabbit, queues):
    publish(db, "full.t", 20, "'stuck'")
    db.wait_error("out", "nack|reject|confirm")
    publish_healthy(db, 100)
    wait_parked_keys(db, 1)
    db.run("SELECT eventbus.drop_route('out')")
    assert parked_keys(db) == []
    eventually(lambda: not db.run("SELECT 1 FROM pg_replication_slots WHERE database = current_database()"), 60,
               "the slot goes with it")


def test_a_key_waits_with_its_route_while_no_file_can_be_had(db, rabbit, queues, name, cluster, told):
    """What is put aside waits in a file. Without one nothing ends, and nothing healthy is sent again."""
    rabbit.declare(f"{name}_log")
    db.route("log", "rabbit", f"queue:{name}_log", "log.#")
    temporary = os.path.join(cluster.data, "base", "pgsql_tmp")
    os.makedirs(temporary, exist_ok=True)
    before = os.stat(temporary).st_mode
    os.chmod(temporary, 0)
    try:
        sender = db.sender("out")
        stuck = publish(db, "full.t", 20, "'stuck'")
        healthy = publish_healthy(db, 2000)
        eventually(lambda: told("cannot be put aside", "out"), 60, "it is told")
        db.wait_status("out", 60, delivered=len(healthy) + 1)
        db.publish("log.x", 1)
        db.wait_status("log", 60, delivered=1)
        assert db.sender("out") == sender and parked_keys(db) == []
    finally:
        os.chmod(temporary, before)
    more = publish_healthy(db, 100)
    wait_parked_keys(db, 1)
    assert sorted(numbers_of(rabbit.take_until_idle(f"{queues}_rest"))) == healthy + more, "each once"
    assert numbers_of(rabbit.take(f"{queues}_full", len(stuck), 90)) == stuck

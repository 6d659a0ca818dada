# What it is: routes from the WAL: messages and row changes, their ids, their order, what a rollback leaves of them.
# Who calls it: pytest.
# Never: shares a cluster with the other files: slots want settings that need a restart.
import json
import re

import pytest

from servers import PostgresCluster, eventually

WAL_SETTINGS = {"wal_level": "logical", "output_plugin_libraries": "'pgoutput, test_decoding, pg_eventbus'",
                "wal_sender_timeout": "0"}


@pytest.fixture(scope="module")
def cluster():
    with PostgresCluster(config=WAL_SETTINGS) as server:
        yield server


@pytest.fixture
def wal(db, redis_server, name):
    """A route "out" from the WAL into a Redis stream, its slot ready; returns the entries when called."""
    db.broker("redis", redis_server.url)

    def entries(count, deadline=60):
        eventually(lambda: redis_server.client().xlen(name) >= count, deadline,
                   f"{count} entries in stream {name}, there are {redis_server.client().xlen(name)}")
        found = redis_server.stream(name)
        assert len(found) == count, f"{len(found)} entries instead of {count}"
        return found

    def make(topics="#", route="out", wait=True, **options):
        db.route(route, "redis", f"stream:{name}", topics, source="wal", **options)
        if wait:
            db.wait_state(route, "active", deadline=60)
        return entries

    return make


def text_of(entry):
    return {name.decode() if isinstance(name, bytes) else name: value.decode() if isinstance(value, bytes) else value
            for name, value in entry.items()}


def publish_wal(db, topic, payload, key=None, headers=None, function="publish_wal", connection=None):
    with (connection or db.connection).cursor() as cursor:
        cursor.execute(f"SELECT eventbus.{function}(%s, %s::jsonb, %s, %s::jsonb)",
                       (topic, json.dumps(payload), key, None if headers is None else json.dumps(headers)))
        return cursor.fetchone()[0]


def test_a_message_arrives_with_all_it_has(db, wal):
    entries = wal("shop.#")
    publish_wal(db, "other.topic", {"n": 0})
    lsn = publish_wal(db, "shop.order.created", {"n": 1}, "order-1", {"traceparent": "00-1"})
    entry = entries(1)[0]
    assert re.fullmatch(r"[0-9A-F]+/[0-9A-F]+-1", entry["id"]) and re.fullmatch(r"[0-9A-F]+/[0-9A-F]+", lsn)
    assert (entry["topic"], entry["key"], entry["content_type"]) == ("shop.order.created", "order-1", "application/json")
    assert json.loads(entry["payload"]) == {"n": 1} and json.loads(entry["headers"]) == {"traceparent": "00-1"}

# What it is: what arrives in Redis: streams, channels, lists, every field, any bytes.
# Who calls it: pytest.
# Never: trusts the sender's own word: redis-py reads what is there.
import json
import re

import pytest

from servers import eventually

RFC3339_MICROSECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")
UNICODE = "żółw 🐢 \u202e 漢字 \"quoted\" back\\slash"


def test_stream_entry_carries_every_field(db, stream, cluster):
    before = db.one("SELECT clock_timestamp()")
    event = db.publish("shop.order.created", {"total": 12.5, "lines": [1, 2]}, "order-17",
                       {"traceparent": "00-ab-cd-01"})
    [entry] = stream(1)
    assert int(entry["id"]) == event
    assert entry["topic"] == b"shop.order.created"
    assert entry["key"] == b"order-17"
    assert json.loads(entry["payload"]) == {"total": 12.5, "lines": [1, 2]}
    assert entry["content_type"] == b"application/json"
    assert json.loads(entry["headers"]) == {"traceparent": "00-ab-cd-01"}
    assert RFC3339_MICROSECONDS.fullmatch(entry["time"].decode())
    assert db.one("SELECT %s::timestamptz BETWEEN %s AND clock_timestamp()", entry["time"].decode(), before)
    system = cluster.execute("SELECT system_identifier FROM pg_control_system()")[0][0]
    assert entry["source"].decode() == f"postgresql://{system}/{db.name}"
    assert set(entry) == {"id", "topic", "key", "payload", "content_type", "headers", "time", "source"}


def test_absent_key_and_headers_are_absent_fields(db, stream):
    db.publish("a", {})
    [entry] = stream(1)
    assert set(entry) == {"id", "topic", "payload", "content_type", "time", "source"}


def test_text_and_bytes(db, stream):
    db.run("SELECT eventbus.publish_text('t', %s)", UNICODE)
    db.run("SELECT eventbus.publish_text('t', 'a;b', NULL, NULL, 'text/csv')")
    every_byte = bytes(range(256)) * 3
    db.run("SELECT eventbus.publish_bytes('t', %s)", every_byte)
    db.run("SELECT eventbus.publish_bytes('t', %s, 'k', '{\"a\": 1}', 'image/png')", b"\x00")
    db.run("SELECT eventbus.publish_bytes('t', '')")
    db.run("SELECT eventbus.publish_text('t', '')")
    found = [(entry["payload"], entry["content_type"]) for entry in stream(6)]
    assert found == [(UNICODE.encode(), b"text/plain"), (b"a;b", b"text/csv"),
                     (every_byte, b"application/octet-stream"), (b"\x00", b"image/png"),
                     (b"", b"application/octet-stream"), (b"", b"text/plain")]


def test_unicode_everywhere(db, stream):
    db.publish("магазин.заказ", {"имя": UNICODE}, "ключ-🐢", {"ярлык": UNICODE, "nested": ["é", 1, True]})
    [entry] = stream(1)
    assert entry["topic"].decode() == "магазин.заказ"
    assert entry["key"].decode() == "ключ-🐢"
    assert json.loads(entry["payload"]) == {"имя": UNICODE}
    assert json.loads(entry["headers"]) == {"ярлык": UNICODE, "nested": ["é", 1, True]}


def test_payload_of_10_megabytes(db, stream):
    """Between small neighbours, in order; compressible and not."""
    db.publish("small", 1)
    db.run("SELECT eventbus.publish_text('big', repeat('0123456789', 1024 * 1024))")
    db.run("SELECT eventbus.publish_bytes('big', string_agg(sha512(g::text::bytea), '' ORDER BY g)) "
           "FROM generate_series(1, 163840) g")
    db.publish("small", 2)
    first, text, noise, last = stream(4, 60)
    assert text["payload"] == b"0123456789" * (1024 * 1024)
    assert len(noise["payload"]) == 163840 * 64
    assert db.one("SELECT sha256(string_agg(sha512(g::text::bytea), '' ORDER BY g)) = sha256(%s) "
                  "FROM generate_series(1, 163840) g", noise["payload"])
    assert (first["payload"], last["payload"]) == (b"1", b"2")


def test_channel_and_its_alias(db, redis_server, name):
    db.broker("redis", redis_server.url)
    db.route("all", "redis", f"channel:{name}.{{topic}}")
    db.route("alias", "redis", f"topic:{name}/{{topic/}}/{{key}}", "shop.#")
    with redis_server.client().pubsub() as subscriber:
        subscriber.psubscribe(f"{name}*")
        eventually(lambda: subscriber.get_message(timeout=1), why="the subscription stands")
        db.publish("shop.cart", {"n": 1}, "k")
        got = {}

        def both():
            message = subscriber.get_message(timeout=1)
            if message:
                got[message["channel"].decode()] = message["data"]
            return len(got) == 2
        eventually(both, why="a message from each route")
    assert {channel: json.loads(data) for channel, data in got.items()} == {
        f"{name}.shop.cart": {"n": 1}, f"{name}/shop/cart/k": {"n": 1}}


def test_list_keeps_order(db, redis_server, name):
    db.broker("redis", redis_server.url)
    db.route("all", "redis", f"list:{name}")
    db.run("SELECT eventbus.publish_text('t', g::text) FROM generate_series(1, 1000) g")
    eventually(lambda: redis_server.client().llen(name) >= 1000)
    assert [int(value) for value in redis_server.client().lrange(name, 0, -1)] == list(range(1, 1001))


def test_template_renders_each_placeholder(db, redis_server, name):
    db.broker("redis", redis_server.url)
    db.route("all", "redis", f"list:{name}:{{topic}}:{{topic/}}:{{key}}:{{header:region}}")
    db.publish("a.b", 1, "k", {"region": "eu"})
    db.publish("a.b", 2)
    eventually(lambda: redis_server.client().lrange(f"{name}:a.b:a/b:k:eu", 0, -1) == [b"1"])
    eventually(lambda: redis_server.client().lrange(f"{name}:a.b:a/b::", 0, -1) == [b"2"])


@pytest.mark.parametrize("patterns, taken", [
    ("#", ["a", "a.b", "a.b.c", "x.b"]),
    ("a.*", ["a.b"]),
    ("a.#", ["a", "a.b", "a.b.c"]),
    ("#.b, *.*.c", ["a.b", "a.b.c", "x.b"]),
    ("a.#.c", ["a.b.c"]),
    ("x", []),
])
def test_topic_patterns(db, redis_server, name, patterns, taken):
    db.broker("redis", redis_server.url)
    db.route("some", "redis", f"list:{name}", patterns)
    db.route("last", "redis", f"list:{name}", "the.end")
    for topic in ("a", "a.b", "a.b.c", "x.b", "the.end"):
        db.run("SELECT eventbus.publish_text(%s, %s)", topic, topic)
    expected = sorted([*taken, "the.end"] + (["the.end"] if patterns == "#" else []))
    eventually(lambda: len(redis_server.client().lrange(name, 0, -1)) >= len(expected))
    assert sorted(value.decode() for value in redis_server.client().lrange(name, 0, -1)) == expected


def test_maxlen_trims_the_stream(db, redis_server, name):
    db.broker("redis", redis_server.url)
    db.route("all", "redis", f"stream:{name}", maxlen=500)
    db.run("SELECT eventbus.publish('t', to_jsonb(g)) FROM generate_series(1, 5000) g")
    db.wait_status("all", delivered=5000)
    assert 500 <= redis_server.client().xlen(name) < 1500
    assert redis_server.stream(name)[-1]["payload"] == b"5000"


def test_source_is_what_the_setting_says(db, stream, setting):
    setting("eventbus.source", "urn:shop:main")
    seen = []

    def renamed():
        db.publish("t", len(seen))
        seen.append(stream(len(seen) + 1)[-1]["source"])
        return seen[-1] == b"urn:shop:main"
    eventually(renamed, why="the new source on a message")


def test_wrong_type_of_key_is_a_dead_letter_of_that_event_only(db, redis_server, name):
    """WRONGTYPE concerns the event; those that go elsewhere continue."""
    redis_server.client().set(f"{name}:bad", "a string, no stream")
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"stream:{name}:{{key}}")
    bad = db.publish("t", {"n": 1}, "bad", {"h": "v"})
    db.publish("t", {"n": 2}, "good")
    eventually(lambda: redis_server.client().xlen(f"{name}:good") == 1)
    [letter] = db.wait_dead("out")
    assert letter["event_id"] == bad and letter["topic"] == "t" and letter["key"] == "bad"
    assert letter["payload"] is not None and letter["headers"] == {"h": "v"}
    assert "WRONGTYPE" in letter["error"]
    assert letter["attempts"] == 1 and letter["failed_at"] is not None
    redis_server.client().delete(f"{name}:bad")
    assert db.one("SELECT eventbus.redeliver('out', %s)", bad) == 1
    eventually(lambda: redis_server.client().xlen(f"{name}:bad") == 1, why="the redelivered event arrives")
    assert redis_server.stream_ids(f"{name}:bad") == [bad]
    db.wait_dead("out", 0)

# What it is: characters that one broker's protocol refuses and others take: whose event it costs what, from log and WAL.
# Who calls it: pytest.
# Never: takes a dead letter for enough: what comes after it has to arrive.
import pytest

from servers import PostgresCluster, eventually
from test_wal import WAL_SETTINGS, publish_wal

# Control characters and what Unicode has reserved as no character: mosquitto ends the connection for them, 3.1.1 or 5.
BAD = {"newline": ("\n", "U+000A"), "escape": ("\x1b", "U+001B"), "delete": ("\x7f", "U+007F"),
       "C1": ("\x85", "U+0085"), "reserved": ("\ufdd0", "U+FDD0"), "last": ("\U0010ffff", "U+10FFFF")}


@pytest.fixture(scope="module")
def cluster():
    with PostgresCluster(config=WAL_SETTINGS) as server:
        yield server


@pytest.fixture
def subscriber(mosquitto, name):
    with mosquitto.subscriber([f"{name}/#"]) as made:
        yield made


@pytest.fixture(params=["log", "wal"])
def publish(request, db):
    """publish(topic, payload, key, headers) for routes of publish.source."""
    def make(topic, payload, key=None, headers=None):
        send = db.publish if request.param == "log" else lambda *event: publish_wal(db, *event)
        return send(topic, payload, key, headers)
    make.source = request.param
    return make


def flaw(name):
    return f" has the character {name}, which no MQTT text may have"


def only_letter(db, route):
    [letter] = db.wait_dead(route)
    assert letter["attempts"] <= 1
    return letter["error"]


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("character, name_of", BAD.values(), ids=BAD)
def test_in_a_name_of_mqtt(db, mosquitto, name, subscriber, publish, character, name_of, version):
    db.broker("mqtt", mosquitto.url, version=version)
    db.route("out", "mqtt", f"topic:{name}/{{key}}", source=publish.source)
    db.wait_state("out", "active")
    publish("t", 1, f"bad{character}key")
    publish("t", 2, "good")
    assert [message.payload for message in subscriber.take(1)] == [b"2"]
    assert only_letter(db, "out") == "the destination's name" + flaw(name_of)
    db.wait_status("out", state="active", delivered=1, dead=1, retries=0, last_error=lambda text: name_of in text)


@pytest.mark.parametrize("character, name_of", BAD.values(), ids=BAD)
def test_in_properties_of_mqtt_5(db, mosquitto, name, subscriber, publish, character, name_of):
    db.broker("mqtt", mosquitto.url)
    db.route("out", "mqtt", f"topic:{name}/x", source=publish.source)
    db.wait_state("out", "active")
    text = f"bad{character}"
    publish("t", 1, text)
    publish("t", 2, None, {"x": text})
    publish("t", 3, None, {"list": ["a", text]})
    publish("t", 4, None, {text: "x"})
    publish("t", 5, None, {"reply-to": text})
    publish("t", 6, "good", {"correlation-id": text, "x": "a\xa0"})
    assert [message.payload for message in subscriber.take(1)] == [b"6"]
    assert [letter["error"] for letter in db.wait_dead("out", 5)] == [
        what + flaw(name_of) for what in ("the key", 'header "x"', 'header "list"', "a header's name",
                                          'header "reply-to"')]
    db.wait_status("out", state="active", delivered=1, dead=5, retries=0)


def test_mqtt_3_1_1_has_no_properties(db, mosquitto, name, subscriber, publish):
    db.broker("mqtt", mosquitto.url, version="3.1.1")
    db.route("out", "mqtt", f"topic:{name}/x", source=publish.source)
    db.wait_state("out", "active")
    publish("t", 1, "bad\nkey", {"a\n": "b\n"})
    assert [message.payload for message in subscriber.take(1)] == [b"1"]


def test_a_row_whose_key_has_one(db, mosquitto, name, subscriber):
    db.run("CREATE TABLE item (a text, b int, PRIMARY KEY (a, b))")
    db.broker("mqtt", mosquitto.url)
    db.route("rows", "mqtt", f"topic:{name}/x", "public.#", source="wal")
    db.run("SELECT eventbus.capture('item')")
    db.route("captured", "mqtt", f"topic:{name}/y", "public.#")
    db.wait_state("rows", "active")
    db.run("INSERT INTO item VALUES (E'bad\\n', 1), ('good', 2)")
    messages = {message.topic: dict(message.user)["event-key"] for message in subscriber.take(2)}
    assert messages == {f"{name}/x": "good/2", f"{name}/y": "good/2"}
    for route in ("rows", "captured"):
        assert only_letter(db, route) == "the key" + flaw("U+000A")
        db.wait_status(route, state="active", delivered=1, dead=1, retries=0)


def test_anybodys_message_in_the_wal(db, mosquitto, name, subscriber):
    """A prefix becomes a topic that everybody takes; a payload is nobody's text."""
    db.broker("mqtt", mosquitto.url)
    db.route("out", "mqtt", f"topic:{name}/{{topic/}}", source="wal", tables="-*.*")
    db.wait_state("out", "active")
    db.run("SELECT pg_logical_emit_message(true, E'a\\n\\x1b.\\x7f\u0085b.c', E'\\x01\u0085')")
    db.run("SELECT pg_logical_emit_message(true, 'good', '2')")
    first, second = subscriber.take(2)
    assert (first.topic, first.payload) == (f"{name}/a__/__b/c", "\x01\x85".encode())
    assert dict(first.user)["event-topic"] == "a__.__b.c"
    assert second.payload == b"2"
    db.run("SELECT pg_logical_emit_message(true, E'a\\uFDD0', '3')")
    db.run("SELECT pg_logical_emit_message(true, 'good', '4')")
    assert [message.payload for message in subscriber.take(3)[2:]] == [b"4"]
    assert only_letter(db, "out") == "the destination's name" + flaw("U+FDD0")
    db.wait_status("out", state="active", retries=0)


def test_forged_messages_with_what_publish_wal_refuses(db, mosquitto, name, subscriber):
    """U+0000 in a header is JSON, but no jsonb; a topic with a control character is somebody's own message."""
    db.broker("mqtt", mosquitto.url)
    db.route("out", "mqtt", f"topic:{name}/x", "t", source="wal", tables="-*.*")
    db.wait_state("out", "active")
    db.run("SELECT eventbus.publish_wal('t', '1')")
    head = bytes([1, 0]) + (1).to_bytes(2, "little") + (0xFFFF).to_bytes(2, "little") + \
        len("application/json").to_bytes(2, "little") + len('{"h":"\\u0000"}').to_bytes(4, "little") + bytes(4) + \
        (1_700_000_000_000_000).to_bytes(8, "little")
    db.run("SELECT pg_logical_emit_message(true, 'pg_eventbus', %s::bytea)",
           head + b"t" + b"application/json" + b'{"h":"\\u0000"}' + b"2")
    db.run("SELECT eventbus.publish_wal('t', '3')")
    assert [message.payload for message in subscriber.take(2)] == [b"1", b"3"]
    assert only_letter(db, "out").startswith('header "h"' + flaw("U+0000"))


@pytest.mark.parametrize("character, name_of", BAD.values(), ids=BAD)
def test_amqp_and_redis_take_them(db, rabbit, redis_server, name, publish, character, name_of):
    del name_of
    key = f"a{character}b"
    rabbit.declare(name, exchange=name, binding=key)
    db.broker("rabbit", rabbit.url)
    db.broker("redis", redis_server.url)
    db.route("amqp", "rabbit", f"exchange:{name}", routing_key="{key}", source=publish.source)
    db.route("stream", "redis", f"stream:{name}:{{key}}", source=publish.source)
    for route in ("amqp", "stream"):
        db.wait_state(route, "active")
    publish("t", 1, key, {f"x{character}": f"y{character}", "reply-to": key})
    publish("t", 2, key)
    entries = eventually(lambda: len(got := redis_server.stream(f"{name}:{key}")) == 2 and got)
    assert [entry["payload"] for entry in entries] == [b"1", b"2"] and entries[0]["key"].decode() == key
    (properties, body, _), _ = rabbit.take(name, 2)
    assert (body, properties.reply_to, properties.headers["event-key"]) == (b"1", key, key)
    assert properties.headers[f"x{character}"] == f"y{character}"
    for route in ("amqp", "stream"):
        db.wait_status(route, delivered=2, dead=0, retries=0, state="active")

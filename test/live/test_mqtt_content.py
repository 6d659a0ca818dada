# What it is: what arrives over MQTT: topics, properties, qualities of service, any bytes, every way to connect.
# Who calls it: pytest.
# Never: trusts the sender's own word: paho's Python client reads what the broker sends on.
import json
import re

import pytest

from servers import eventually, free_port

RFC3339_MICROSECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")
VERSIONS = {"5": ["p5"], "3.1.1": ["p2", "p4"]}  # as the log of mosquitto 2.0, or from 2.1 on, says them
TEXT, BYTES = {"PayloadFormatIndicator": 1}, {"PayloadFormatIndicator": 0}
PASSWORD = "s3cret-of-app"


@pytest.fixture
def subscribe(mosquitto):
    """subscribe(topic, …): subscribers that go with the test."""
    made = []

    def make(*topics, server=mosquitto, **more):
        made.append(server.subscriber(topics, **more))
        return made[-1]

    yield make
    for subscriber in made:
        subscriber.close()


@pytest.fixture
def arrived(db, mosquitto, name, subscribe):
    """A subscriber to the test's topics, and the broker and the route "out" that publish there."""
    subscriber = subscribe(f"{name}/#")
    db.broker("mqtt", mosquitto.url)
    db.route("out", "mqtt", f"topic:{name}/{{topic/}}")
    return subscriber


def user_names(message):
    return [key for key, _ in message.user]


# What a message carries


def test_message_carries_every_property(db, arrived, name, cluster):
    before = db.one("SELECT clock_timestamp()")
    event = db.publish("shop.order.created", {"total": 12.5}, "order-17", {"tenant": "t1"})
    [message] = arrived.take(1)
    assert message.topic == f"{name}/shop/order/created"
    assert json.loads(message.payload) == {"total": 12.5}
    assert (message.qos, message.retain, message.content_type) == (1, False, "application/json")
    assert message.properties == TEXT
    user = dict(message.user)
    assert user["event-id"] == str(event)
    assert user["event-topic"] == "shop.order.created"
    assert user["event-key"] == "order-17"
    assert RFC3339_MICROSECONDS.fullmatch(user["event-time"])
    assert db.one("SELECT %s::timestamptz BETWEEN %s AND clock_timestamp()", user["event-time"], before)
    system = cluster.execute("SELECT system_identifier FROM pg_control_system()")[0][0]
    assert user["event-source"] == f"postgresql://{system}/{db.name}"
    assert user["tenant"] == "t1"
    assert sorted(user_names(message)) == ["event-id", "event-key", "event-source", "event-time", "event-topic",
                                           "tenant"]


def test_absent_key_and_headers_are_absent_properties(db, arrived):
    db.publish("a", {})
    [message] = arrived.take(1)
    assert sorted(user_names(message)) == ["event-id", "event-source", "event-time", "event-topic"]


def test_in_3_1_1_a_message_is_topic_and_payload(db, mosquitto, name, subscribe):
    subscriber = subscribe(f"{name}/#")
    db.broker("mqtt", mosquitto.url, version="3.1.1", client_id=name)
    db.route("out", "mqtt", f"topic:{name}/{{topic/}}/{{key}}")
    db.publish("shop.order", {"n": 1}, "k", {"tenant": "t1"})
    [message] = subscriber.take(1)
    assert (message.topic, message.payload) == (f"{name}/shop/order/k", b'{"n": 1}')
    assert (message.content_type, message.user, message.properties) == (None, [], {})
    db.wait_status("out", delivered=1, dead=0, in_flight=0)


@pytest.mark.parametrize("options, spoken", [({}, "5"), ({"version": "5"}, "5"), ({"version": "3.1.1"}, "3.1.1")])
def test_version(db, mosquitto, name, subscribe, options, spoken):
    subscriber = subscribe(name)
    db.broker("mqtt", mosquitto.url, client_id=name, **options)
    db.route("out", "mqtt", f"topic:{name}")
    db.publish("t", 1)
    subscriber.take(1)
    connected = re.findall(rf"New client connected from \S+ as {name} \((p\d)", mosquitto.log_text())
    assert connected in [[said] for said in VERSIONS[spoken]]


def test_headers_become_user_properties(db, arrived):
    db.publish("t", {}, None, {"text": "żółw 🐢", "integer": 42, "negative": -7, "large": 9007199254740993, "real": 2.5,
                               "yes": True, "traceparent": "00-0af7-b7ad-01", "list": ["a", 1, False], "event-id": "x"})
    [message] = arrived.take(1)
    got = [pair for pair in message.user if not pair[0].startswith("event-")]
    assert sorted(got) == sorted([
        ("text", "żółw 🐢"), ("integer", "42"), ("negative", "-7"), ("large", "9007199254740993"), ("real", "2.5"),
        ("yes", "true"), ("traceparent", "00-0af7-b7ad-01"), ("list", "a"), ("list", "1"), ("list", "false")])
    assert "x" not in dict(message.user)["event-id"]


def test_headers_that_are_properties_of_the_protocol(db, arrived):
    db.publish("t", {}, None, {"correlation-id": "c-1", "reply-to": "answers/here", "expiration": "60000"})
    [message] = arrived.take(1)
    assert bytes.fromhex(message.properties["CorrelationData"]) == b"c-1"
    assert message.properties["ResponseTopic"] == "answers/here"
    assert 50 <= message.properties["MessageExpiryInterval"] <= 60
    assert not {"correlation-id", "reply-to", "expiration"} & set(user_names(message))


def test_text_and_bytes(db, arrived):
    every_byte = bytes(range(256)) * 5
    db.run("SELECT eventbus.publish_text('t', 'żółw')")
    db.run("SELECT eventbus.publish_text('t', 'a;b', NULL, NULL, 'text/csv')")
    db.run("SELECT eventbus.publish_bytes('t', %s)", every_byte)
    db.run("SELECT eventbus.publish_bytes('t', '', NULL, NULL, 'application/x-nothing')")
    assert [(message.payload, message.content_type, message.properties) for message in arrived.take(4)] == [
        ("żółw".encode(), "text/plain", TEXT), (b"a;b", "text/csv", TEXT),
        (every_byte, "application/octet-stream", BYTES), (b"", "application/x-nothing", BYTES)]


def test_unicode_everywhere(db, mosquitto, name, subscribe):
    subscriber = subscribe(f"{name}/#")
    db.broker("mqtt", mosquitto.url)
    db.route("out", "mqtt", f"topic:{name}/{{topic/}}/{{key}}")
    db.publish("магазин.заказ", {"имя": "🐢"}, "ключ", {"ярлык": "漢字"})
    [message] = subscriber.take(1)
    assert message.topic == f"{name}/магазин/заказ/ключ"
    assert json.loads(message.payload) == {"имя": "🐢"}
    user = dict(message.user)
    assert (user["event-topic"], user["event-key"], user["ярлык"]) == ("магазин.заказ", "ключ", "漢字")


@pytest.mark.parametrize("version", VERSIONS)
def test_payload_of_10_megabytes(db, mosquitto, name, subscribe, version):
    """Between small neighbours, in order."""
    subscriber = subscribe(name)
    db.broker("mqtt", mosquitto.url, version=version)
    db.route("out", "mqtt", f"topic:{name}")
    db.publish("small", 1)
    db.run("SELECT eventbus.publish_text('big', repeat('0123456789', 1024 * 1024))")
    db.publish("small", 2)
    assert [message.payload for message in subscriber.take(3, 60)] == [b"1", b"0123456789" * (1024 * 1024), b"2"]


# Where it goes


def test_template_renders_each_placeholder(db, mosquitto, name, subscribe):
    subscriber = subscribe(f"{name}/#")
    db.broker("mqtt", mosquitto.url)
    db.route("out", "mqtt", f"topic:{name}/{{topic}}/{{topic/}}/{{key}}/{{header:region}}")
    db.publish("a.b", 1, "k", {"region": "eu"})
    db.publish("a.b", 2)
    assert [(message.topic, message.payload) for message in subscriber.take(2)] == [
        (f"{name}/a.b/a/b/k/eu", b"1"), (f"{name}/a.b/a/b//", b"2")]


@pytest.mark.parametrize("key", ["with+plus", "with#hash"])
def test_wildcard_in_a_topic_is_a_dead_letter_of_that_event_only(db, mosquitto, name, subscribe, key):
    subscriber = subscribe(f"{name}/#")
    db.broker("mqtt", mosquitto.url)
    db.route("out", "mqtt", f"topic:{name}/{{key}}")
    bad = db.publish("t", 1, key)
    db.publish("t", 2, "fine")
    assert [message.payload for message in subscriber.take(1)] == [b"2"]
    [letter] = db.wait_dead("out")
    assert letter["event_id"] == bad and "topic" in letter["error"]
    db.wait_status("out", state="active", delivered=1, dead=1)


@pytest.mark.parametrize("version", VERSIONS)
def test_many_keep_their_order(db, mosquitto, name, subscribe, version):
    subscriber = subscribe(name)
    db.broker("mqtt", mosquitto.url, version=version)
    db.route("out", "mqtt", f"topic:{name}")
    db.run("SELECT eventbus.publish('t', to_jsonb(g), (g % 7)::text) FROM generate_series(1, 20000) g")
    assert [int(message.payload) for message in subscriber.take(20000, 60)] == list(range(1, 20001))
    db.wait_status("out", delivered=20000, in_flight=0)


def test_routes_to_two_brokers_from_one_event(db, arrived, redis_server, name):
    db.broker("redis", redis_server.url)
    db.route("copy", "redis", f"stream:{name}")
    event = db.publish("t", {"n": 1})
    [message] = arrived.take(1)
    assert dict(message.user)["event-id"] == str(event)
    db.wait_status("copy", delivered=1)
    assert redis_server.stream_ids(name) == [event]


# How it is kept and acknowledged


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_quality_of_service(db, mosquitto, name, subscribe, qos, version):
    subscriber = subscribe(name, qos=2)
    db.broker("mqtt", mosquitto.url, version=version)
    db.route("out", "mqtt", f"topic:{name}", qos=qos)
    ids = [db.publish("t", n) for n in range(50)]
    messages = subscriber.take(50)
    assert [int(message.payload) for message in messages] == list(range(50))
    assert {message.qos for message in messages} == {qos}
    if version == "5":
        assert [int(dict(message.user)["event-id"]) for message in messages] == ids
    db.wait_status("out", delivered=50, in_flight=0, dead=0)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_nobody_subscribes_is_delivered(db, mosquitto, name, qos):
    """PUBACK and PUBREC say "no matching subscribers" (16): the broker has taken it."""
    db.broker("mqtt", mosquitto.url)
    db.route("out", "mqtt", f"topic:{name}", qos=qos)
    for n in range(5):
        db.publish("t", n)
    db.wait_status("out", delivered=5, dead=0, in_flight=0, retries=0, state="active")


@pytest.mark.parametrize("version", VERSIONS)
def test_retained_for_those_who_come_later(db, mosquitto, name, subscribe, version):
    db.broker("mqtt", mosquitto.url, version=version)
    db.route("kept", "mqtt", f"topic:{name}/kept/{{key}}", retain=True)
    db.route("gone", "mqtt", f"topic:{name}/gone/{{key}}")
    for n in (1, 2):
        db.publish("t", n, "k")
    db.wait_status("kept", delivered=2)
    db.wait_status("gone", delivered=2)
    [message] = subscribe(f"{name}/#").take(1)
    assert (message.topic, message.payload, message.retain) == (f"{name}/kept/k", b"2", True)
    if version == "5":
        assert dict(message.user)["event-key"] == "k"


def test_message_expires(db, mosquitto, name, subscribe):
    """The subscriber is told what is left of the time; one who comes too late gets nothing."""
    subscriber = subscribe(f"{name}/#")
    db.broker("mqtt", mosquitto.url)
    db.route("out", "mqtt", f"topic:{name}/{{key}}", retain=True)
    db.publish("t", 1, "long", {"expiration": "60000"})
    db.publish("t", 2, "short", {"expiration": 2000})
    left = {message.topic: message.properties["MessageExpiryInterval"] for message in subscriber.take(2)}
    assert 50 <= left[f"{name}/long"] <= 60 and left[f"{name}/short"] <= 2

    def expired():
        with mosquitto.subscriber([f"{name}/#"]) as late:
            eventually(lambda: b"1" in late.bodies())
            return b"2" not in late.bodies()
    eventually(expired, why="one of the retained messages has expired, the other one has not")


# How it connects


def test_last_will_when_the_connection_is_lost(db, mosquitto, name, subscribe, make_proxy):
    proxy = make_proxy(mosquitto)
    subscriber = subscribe(f"{name}/#")
    db.broker("mqtt", f"mqtt://127.0.0.1:{proxy.port}",
              will={"topic": f"{name}/will", "payload": "gone", "qos": 1, "retain": True})
    db.route("out", "mqtt", f"topic:{name}/out")
    db.publish("t", 1)
    [message] = subscriber.take(1)
    assert message.topic == f"{name}/out"
    proxy.cut()
    eventually(lambda: [message.payload for message in subscriber.messages if message.topic == f"{name}/will"] ==
               [b"gone"], why="the broker publishes the last will")
    [late] = subscribe(f"{name}/will").take(1)
    assert late.retain
    db.publish("t", 2)
    eventually(lambda: subscriber.bodies()[-1] == b"2", why="the sender is back")


def test_several_hosts_of_which_the_first_is_dead(db, mosquitto, name, subscribe):
    subscriber = subscribe(name)
    db.broker("mqtt", f"mqtt://127.0.0.1:{free_port()},127.0.0.1:{mosquitto.port}")
    db.route("out", "mqtt", f"topic:{name}")
    db.publish("t", 1)
    subscriber.take(1)
    db.wait_status("out", state="active", delivered=1)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scheme, port", [("ws", "ws_port"), ("wss", "wss_port"), ("mqtts", "tls_port")])
def test_transports(db, mosquitto, certificates, name, subscribe, scheme, port, version):
    subscriber = subscribe(name)
    tls = {} if scheme == "ws" else {"ca_file": certificates.ca}
    db.broker("mqtt", f"{scheme}://127.0.0.1:{getattr(mosquitto, port)}", version=version, **tls)
    db.route("out", "mqtt", f"topic:{name}")
    ids = [db.publish("t", n) for n in range(200)]
    messages = subscriber.take(200)
    assert [int(message.payload) for message in messages] == list(range(200))
    if version == "5":
        assert [int(dict(message.user)["event-id"]) for message in messages] == ids


def test_mutual_tls(db, mosquitto, certificates, name, subscribe):
    subscriber = subscribe(name)
    url = f"mqtts://127.0.0.1:{mosquitto.mutual_tls_port}"
    db.broker("mqtt", url, ca_file=certificates.ca)
    db.route("out", "mqtt", f"topic:{name}")
    db.publish("t", 1)
    row = db.wait_status("out", last_error=lambda text: bool(text), delivered=0)
    assert row["state"] in ("held", "retrying", "connecting")
    db.run("SELECT eventbus.alter_broker('mqtt', NULL, %s)", json.dumps({
        "ca_file": certificates.ca, "cert_file": certificates.client_cert, "key_file": certificates.client_key}))
    subscriber.take(1)


def test_name_and_password(db, mosquitto, name, subscribe, tmp_path):
    subscriber = subscribe(f"{name}/#")
    secret = tmp_path / "password"
    secret.write_text(f"{PASSWORD}\n")
    for directory in [secret, *list(secret.parents)[:-1]]:
        directory.chmod(0o755)
    db.broker("url", mosquitto.url.replace("://", f"://app:{PASSWORD}@"), client_id=f"{name}_url")
    db.broker("file", mosquitto.url.replace("://", "://app@"), password_file=str(secret), client_id=f"{name}_file")
    for broker in ("url", "file"):
        db.route(broker, broker, f"topic:{name}/{broker}")
    db.publish("t", 1)
    assert sorted(message.topic for message in subscriber.take(2)) == [f"{name}/file", f"{name}/url"]
    for broker in ("url", "file"):
        assert re.search(rf"as {name}_{broker} \(p5, .*u'app'\)", mosquitto.log_text())


def test_client_id_is_the_same_after_a_reconnect(db, mosquitto, name, subscribe, make_proxy):
    proxy = make_proxy(mosquitto)
    subscriber = subscribe(name)
    before = len(mosquitto.log_text())
    db.broker("mqtt", f"mqtt://127.0.0.1:{proxy.port}")
    db.route("out", "mqtt", f"topic:{name}")
    db.publish("t", 1)
    subscriber.take(1)
    proxy.cut()
    db.publish("t", 2)
    eventually(lambda: b"2" in subscriber.bodies())
    clients = re.findall(r"New client connected from \S+ as (\S+) ", mosquitto.log_text()[before:])
    assert len(clients) >= 2 and len(set(clients)) == 1, clients


def test_receive_maximum_of_the_broker_is_kept(db, name, subscribe, mosquitto_of):
    """A broker that wants one message at a time: all arrive, in order, and it need not disconnect us (0x93)."""
    server = mosquitto_of({"max_inflight_messages": 1})
    subscriber = subscribe(name, server=server)
    db.broker("mqtt", server.url)
    db.route("out", "mqtt", f"topic:{name}")
    db.run("SELECT eventbus.publish('t', to_jsonb(g)) FROM generate_series(1, 2000) g")
    assert [int(message.payload) for message in subscriber.take(2000, 60)] == list(range(1, 2001))
    db.wait_status("out", state="active", retries=0, last_error=None)

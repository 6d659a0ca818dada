# What it is: what arrives in RabbitMQ: exchanges, queues, every property and header, any bytes.
# Who calls it: pytest.
# Never: trusts the sender's own word: pika reads what is there.
import json
import re

import pytest

RFC3339_MICROSECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")


@pytest.fixture
def queue(db, rabbit, name):
    """A route "out" for all topics into a durable queue of the test's name."""
    rabbit.declare(name)
    db.broker("rabbit", rabbit.url)
    db.route("out", "rabbit", f"queue:{name}")
    return name


def test_message_carries_every_property(db, queue, rabbit, cluster):
    event = db.publish("shop.order.created", {"total": 12.5}, "order-17", {"tenant": "t1"})
    [(properties, body, method)] = rabbit.take(queue, 1)
    assert json.loads(body) == {"total": 12.5}
    assert properties.message_id == str(event)
    assert properties.type == "shop.order.created"
    assert properties.headers["event-key"] == "order-17"
    assert properties.content_type == "application/json"
    assert properties.delivery_mode == 2
    system = cluster.execute("SELECT system_identifier FROM pg_control_system()")[0][0]
    assert properties.app_id == f"postgresql://{system}/{db.name}"
    assert RFC3339_MICROSECONDS.fullmatch(properties.headers["event-time"])
    assert db.one("SELECT floor(extract(epoch FROM %s::timestamptz))", properties.headers["event-time"]) == \
        properties.timestamp
    assert db.one("SELECT abs(extract(epoch FROM clock_timestamp()) - %s) < 60", properties.timestamp)
    assert properties.headers["tenant"] == "t1"
    assert set(properties.headers) == {"event-key", "event-time", "tenant"}
    assert (method.exchange, method.routing_key) == ("", queue)


def test_header_types(db, queue, rabbit):
    headers = {"text": "żółw 🐢", "integer": 42, "negative": -7, "large": 9007199254740993, "real": 2.5, "yes": True,
               "no": False, "words": ["a", "b"], "mixed": [1, "two", 3.5, False], "empty": []}
    db.publish("t", {}, None, headers)
    [(properties, _, _)] = rabbit.take(queue, 1)
    got = {name: value for name, value in properties.headers.items() if not name.startswith("event-")}
    assert got == headers
    assert type(got["yes"]) is bool and type(got["integer"]) is int and type(got["real"]) is float
    assert "event-key" not in properties.headers


def test_headers_that_are_properties_of_the_protocol(db, queue, rabbit):
    db.publish("t", {}, None, {"correlation-id": "c-1", "reply-to": "answers", "expiration": "60000", "priority": 5,
                               "traceparent": "00-0af7-b7ad-01"})
    [(properties, _, _)] = rabbit.take(queue, 1)
    assert properties.correlation_id == "c-1"
    assert properties.reply_to == "answers"
    assert properties.expiration == "60000"
    assert properties.priority == 5
    assert properties.headers["traceparent"] == "00-0af7-b7ad-01"


def test_text_and_bytes(db, queue, rabbit):
    every_byte = bytes(range(256)) * 5
    db.run("SELECT eventbus.publish_text('t', 'żółw')")
    db.run("SELECT eventbus.publish_bytes('t', %s)", every_byte)
    db.run("SELECT eventbus.publish_bytes('t', '', NULL, NULL, 'application/x-nothing')")
    found = [(body, properties.content_type) for properties, body, _ in rabbit.take(queue, 3)]
    assert found == [("żółw".encode(), "text/plain"), (every_byte, "application/octet-stream"),
                     (b"", "application/x-nothing")]


def test_payload_of_10_megabytes(db, queue, rabbit):
    """Many frames, between small neighbours, in order."""
    db.publish("small", 1)
    db.run("SELECT eventbus.publish_text('big', repeat('0123456789', 1024 * 1024))")
    db.publish("small", 2)
    bodies = [body for _, body, _ in rabbit.take(queue, 3, 60)]
    assert bodies == [b"1", b"0123456789" * (1024 * 1024), b"2"]


def test_unicode_everywhere(db, queue, rabbit):
    db.publish("магазин.заказ", {"имя": "🐢"}, "ключ", {"ярлык": "漢字"})
    [(properties, body, _)] = rabbit.take(queue, 1)
    assert properties.type == "магазин.заказ"
    assert properties.headers["event-key"] == "ключ" and properties.headers["ярлык"] == "漢字"
    assert json.loads(body) == {"имя": "🐢"}


def test_exchange_routes_by_topic(db, rabbit, name):
    rabbit.declare(f"{name}_orders", name, "shop.order.*")
    rabbit.declare(f"{name}_all", name, "#")
    db.broker("rabbit", rabbit.url)
    db.route("out", "rabbit", f"exchange:{name}")
    db.publish("shop.order.created", 1)
    db.publish("shop.cart.emptied", 2)
    db.publish("shop.order.paid", 3)
    everything = rabbit.take(f"{name}_all", 3)
    assert [method.routing_key for _, _, method in everything] == \
        ["shop.order.created", "shop.cart.emptied", "shop.order.paid"]
    assert [body for _, body, _ in rabbit.take(f"{name}_orders", 2)] == [b"1", b"3"]


def test_routing_key_and_exchange_are_templates(db, rabbit, name):
    rabbit.declare(f"{name}_eu", f"{name}.orders", "region.eu.k", "direct")
    db.broker("rabbit", rabbit.url)
    db.route("out", "rabbit", f"exchange:{name}.{{topic}}", routing_key="region.{header:region}.{key}")
    db.publish("orders", {"n": 1}, "k", {"region": "eu"})
    [(_, body, method)] = rabbit.take(f"{name}_eu", 1)
    assert json.loads(body) == {"n": 1}
    assert (method.exchange, method.routing_key) == (f"{name}.orders", "region.eu.k")


def test_not_persistent_on_request(db, rabbit, name):
    rabbit.declare(name)
    db.broker("rabbit", rabbit.url)
    db.route("out", "rabbit", f"queue:{name}", persistent=False)
    db.publish("t", 1)
    [(properties, _, _)] = rabbit.take(name, 1)
    assert properties.delivery_mode in (None, 1)


def test_virtual_host(db, rabbit, name):
    rabbit.declare(name, vhost="second")
    db.broker("rabbit", rabbit.url + "/second")
    db.route("out", "rabbit", f"queue:{name}")
    db.publish("t", {"n": 1})
    [(_, body, _)] = rabbit.take(name, 1, vhost="second")
    assert json.loads(body) == {"n": 1}


def test_many_keep_their_order(db, queue, rabbit):
    db.run("SELECT eventbus.publish('t', to_jsonb(g), (g % 7)::text) FROM generate_series(1, 20000) g")
    assert [int(body) for _, body, _ in rabbit.take(queue, 20000, 60)] == list(range(1, 20001))
    db.wait_status("out", delivered=20000, in_flight=0)


def test_routes_to_both_brokers_from_one_event(db, queue, rabbit, redis_server, name):
    db.broker("redis", redis_server.url)
    db.route("copy", "redis", f"stream:{name}")
    event = db.publish("t", {"n": 1})
    [(properties, _, _)] = rabbit.take(queue, 1)
    assert properties.message_id == str(event)
    db.wait_status("copy", delivered=1)
    assert redis_server.stream_ids(name) == [event]

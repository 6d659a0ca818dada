# What it is: the usual mistakes of a URL, made at real brokers: TLS at a plain port, plain at a TLS port, another protocol's.
# Who calls it: pytest.
# Never: accepts a reason that does not say what to write instead, or one without bounds.
import psycopg2
import pytest

# Scheme in the URL, whose port and which, what the reason says to write.
MISTAKES = [
    ("amqp", "rabbit", "tls_port", "amqps://"),
    ("amqps", "rabbit", "port", "amqp://"),
    ("redis", "redis_server", "tls_port", "rediss://"),
    ("rediss", "redis_server", "port", "redis://"),
    ("mqtt", "mosquitto", "tls_port", "mqtts://"),
    ("mqtts", "mosquitto", "port", "mqtt://"),
    ("ws", "mosquitto", "wss_port", "wss://"),
    ("wss", "mosquitto", "ws_port", "ws://"),
    ("ws", "mosquitto", "port", "mqtt://"),
    ("mqtt", "mosquitto", "ws_port", "use ws://|MQTT 3.1.1"),
    ("mqtt", "rabbit", "port", "speaks AMQP on this port, whose scheme is amqp://"),
    ("redis", "rabbit", "port", "speaks AMQP on this port, whose scheme is amqp://"),
    ("amqp", "redis_server", "port", "speaks Redis' protocol on this port, whose scheme is redis://|did not greet"),
]


@pytest.mark.parametrize("scheme,broker,port,words", MISTAKES, ids=[f"{s}-{b}-{p}" for s, b, p, _ in MISTAKES])
def test_the_reason_says_what_to_write(db, request, certificates, name, scheme, broker, port, words):
    server = request.getfixturevalue(broker)
    with_tls = {"ca_file": certificates.ca} if scheme in ("amqps", "rediss", "mqtts", "wss") else {}
    user = "app:s3cret-of-app@" if scheme != "redis" else ":s3cret-of-app@"
    db.broker("b", f"{scheme}://{user}127.0.0.1:{getattr(server, port)}", connect_timeout=2, **with_tls)
    kind = {"a": "queue", "r": "stream"}.get(scheme[0], "topic")
    db.route("out", "b", f"{kind}:{name}")
    db.publish("t", 1)
    error = db.wait_error("out", words.replace(".", r"\."))["last_error"]
    print(error)
    assert len(error) < 400 and error.isprintable() and "s3cret" not in error


SCHEMES = {"tcp": "mqtt://", "ssl": "mqtts://", "TLS": "mqtts://", "rabbitmq": "amqp://", "amqp+ssl": "amqps://",
           "redis+tls": "rediss://", "valkey": "redis://", "redis-sentinel": "redis://", "postgres": "a database",
           "postgresql": "a database", "http": "HTTP is not there yet", "kafka": "Kafka is not there yet",
           "nats": "NATS is not there yet", "nothing": "Known schemes: amqp, amqps, mqtt"}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_schemes_of_others(db, scheme):
    with pytest.raises(psycopg2.Error, match=f'unknown URL scheme "{scheme.lower()}"'.replace("+", r"\+")) as error:
        db.run("SELECT eventbus.create_broker('b', %s)", f"{scheme}://app:s3cret@host")
    said = error.value.diag
    assert SCHEMES[scheme] in f"{said.message_detail} {said.message_hint}"
    assert "Known schemes: amqp, amqps," in said.message_hint and "s3cret" not in str(error.value)

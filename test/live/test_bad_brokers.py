# What it is: brokers that talk nonsense, say nothing or let nobody in: status says so.
# Who calls it: pytest.
# Never: accepts a lost event, or a healthy broker that was blocked.
import socket
import threading

import pytest

from servers import eventually, free_port


class FakeBroker:
    """A TCP server that is no broker. manner: garbage, closes, silent."""

    def __init__(self, manner):
        self.manner = manner
        self.accepted = 0
        self._connections = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            if self.manner == "garbage":
                connection.sendall(b"\x00\xff\x13garbage, and no protocol at all\r\n" * 50)
            if self.manner == "closes":
                connection.close()
            else:
                self._connections.append(connection)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            connection.close()
        self._thread.join()


class Target:
    """One protocol's broker for the tests that run over all of them."""

    subscriber = None

    def __init__(self, protocol, server, name):
        self.protocol, self.server, self.name = protocol, server, name
        self.url = server.url
        self.destination = {"redis": f"stream:{name}:healed", "amqp": f"queue:{name}", "mqtt": f"topic:{name}"}[protocol]
        if protocol == "amqp":
            server.declare(name)
        if protocol == "mqtt":
            self.subscriber = server.subscriber([name])

    def bad_url(self, port):
        return f"{self.protocol}://127.0.0.1:{port}"

    def received(self, count):
        if self.protocol == "redis":
            eventually(lambda: self.server.client().xlen(f"{self.name}:healed") >= count)
            return self.server.stream_ids(f"{self.name}:healed")
        if self.protocol == "mqtt":
            return [int(dict(message.user)["event-id"]) for message in self.subscriber.take(count)]
        return [int(properties.message_id) for properties, _, _ in self.server.take(self.name, count)]


@pytest.fixture(params=["redis", "amqp", "mqtt"])
def target(request, name):
    server = request.getfixturevalue({"redis": "redis_server", "amqp": "rabbit", "mqtt": "mosquitto"}[request.param])
    made = Target(request.param, server, name)
    yield made
    if made.subscriber:
        made.subscriber.close()


def publish_past_a_bad_broker(db, stream, target, url, states, **options):
    """A bad broker beside a good one; then the bad one's settings are fixed. Returns its last error."""
    db.broker("bad", url, **options)
    db.route("bad", "bad", target.destination)
    ids = [db.publish("t", n) for n in range(20)]
    assert [int(entry["id"]) for entry in stream(20, 10)] == ids, "the good broker continues"
    db.wait_state("bad", *states)
    row = db.wait_status("bad", last_error=lambda text: bool(text), delivered=0)
    assert row["last_error_at"] is not None and row["dead"] == 0
    assert any(check["level"] != "ok" and "bad" in f"{check['name']} {check['detail']}" for check in db.health())
    db.run("SELECT eventbus.alter_broker('bad', %s)", target.url)
    assert target.received(20) == ids, "nothing is lost"
    db.wait_status("bad", state="active", delivered=20)
    return row["last_error"]


@pytest.mark.parametrize("manner", ["garbage", "closes", "silent"])
def test_broker_that_is_none(db, stream, target, manner):
    with FakeBroker(manner) as fake:
        error = publish_past_a_bad_broker(db, stream, target, target.bad_url(fake.port),
                                          ("connecting", "retrying", "held"), connect_timeout=1)
        assert fake.accepted >= 1
        assert "garbage" not in error or error.isprintable()


def test_broker_that_is_not_there(db, stream, target):
    error = publish_past_a_bad_broker(db, stream, target, target.bad_url(free_port()), ("connecting", "retrying"))
    assert "refused" in error.lower()


def test_refused_login(db, stream, target):
    url = target.url.replace("guest:guest@", "").replace("://", "://app:wr0ng-password@")
    error = publish_past_a_bad_broker(db, stream, target, url, ("held", "retrying"))
    assert "wr0ng-password" not in error
    assert any(word in error for word in ("WRONGPASS", "ACCESS_REFUSED", "refused", "not authorized"))


def test_state_is_logged_once_and_not_per_attempt(db, name, cluster, log_from_here):
    with FakeBroker("closes") as fake:
        db.broker("bad", f"redis://127.0.0.1:{fake.port}")
        db.route("bad", "bad", f"stream:{name}")
        db.publish("t", 1)
        eventually(lambda: fake.accepted >= 6, 60, "several attempts")
    lines = [line for line in cluster.log_text(log_from_here).splitlines()
             if '"bad"' in line and " STATEMENT: " not in line and " HINT: " not in line]
    assert 1 <= len(lines) <= 3, lines

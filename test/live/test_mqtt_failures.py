# What it is: MQTT brokers that refuse, vanish, freeze or are cut off: what is sick waits, everything else continues.
# Who calls it: pytest.
# Never: accepts a lost event, disorder within a key, or a healthy route below 95 % of its rate.
import json
from types import SimpleNamespace

import pytest

from servers import Steady, eventually

USERS = {"reader": "s3cret-of-reader", "writer": "s3cret-of-writer"}
READ_ALL = ["user reader", "topic readwrite #", "user writer"]


class Stage:
    """A mosquitto of the test's own, the routes "out" and "second" to it, and "copy" to a Redis. What out, second and
    copy have received is read by other clients; the MQTT one is there before anything is published, and its session
    outlives the broker."""

    def __init__(self, db, server, redis_server, name):
        self.db, self.server, self.redis, self.name = db, server, redis_server, name
        self.subscriber = server.subscriber(["out/#", "second/#"], qos=2, client_id="stage")
        server.save()
        db.broker("redis", redis_server.url)
        db.route("copy", "redis", f"stream:{name}")

    def connect(self, url=None, second="#", options=None, **route_options):
        self.db.broker("sick", url or self.server.url, **(options or {}))
        self.db.route("out", "sick", "topic:out/{key}", **route_options)
        self.db.route("second", "sick", "topic:second/{key}", second, **route_options)

    def _under(self, route):
        return [message for message in list(self.subscriber.messages) if message.topic.startswith(f"{route}/")]

    def out(self):
        return [message.payload for message in self._under("out")]

    def second(self):
        return [message.payload for message in self._under("second")]

    def copy(self):
        return [entry["payload"] for entry in self.redis.stream(self.name)]

    def wait_more(self, bodies, deadline=30):
        """Something new arrives."""
        known = len(bodies())
        eventually(lambda: len(bodies()) > known, deadline, "something new arrives")

    def check(self, steady, duplicates=True, forgiven=()):
        """In the end everybody has everything, but what MQTT is forgiven, and Redis has it once."""
        steady.check(self.out, duplicates=duplicates, forgiven=forgiven)
        steady.check(self.second, duplicates=duplicates, forgiven=forgiven)
        steady.check(self.copy, duplicates=False)
        for route in ("out", "second"):
            seen = {}
            for message in self._under(route):
                seen.setdefault(message.payload, set()).add(dict(message.user).get("event-id"))  # none in 3.1.1
            assert all(len(ids) == 1 for ids in seen.values()), "a repetition has the same id"
            self.db.wait_status(route, state="active", in_flight=0, dead=0)


@pytest.fixture
def stage_of(db, redis_server, name, mosquitto_of):
    """stage_of(config, …): a Stage with such a mosquitto."""
    made = []

    def make(*arguments, **more):
        made.append(Stage(db, mosquitto_of(*arguments, durable=True, **more), redis_server, name))
        return made[-1]

    yield make
    for stage in made:
        stage.subscriber.close()


@pytest.fixture
def stage(stage_of):
    return stage_of()


# One event, one key


def over_the_limit(db, stage, restrict, widen):
    """Events of the key "big" become too large for the broker: dead letters, and nobody else notices."""
    stage.connect(second="steady")
    with Steady(db, sick=["big"], topics={"big": "large"}, more={"big": {"filler": "x" * 4000}}) as steady:
        for watched in ("out", "second", "copy"):
            steady.watch(watched, getattr(stage, watched))
        before = steady.before()
        eventually(lambda: any(b"filler" in body for body in stage.out()), why="the control: large ones do arrive")
        restrict()
        steady.publish_more(100)
        letters = eventually(lambda: db.dead("out"), why="what is too large is a dead letter")
        assert "too large" in letters[0]["error"].lower() or "maximum packet size" in letters[0]["error"].lower()
        assert letters[0]["key"] == "big" and letters[0]["attempts"] == 1
        steady.goes_on(before)
    steady.check(stage.out, but=["big"])
    steady.check(stage.second, but=["big"])
    steady.check(stage.copy, duplicates=False)
    db.wait_status("out", state="active", in_flight=0)
    assert {letter["key"] for letter in db.dead("out")} == {"big"} and not db.dead("second")
    widen()
    db.one("SELECT eventbus.redeliver('out')")
    steady.check(stage.out)
    db.wait_dead("out", 0)


def test_message_size_limit(db, stage):
    """mosquitto answers PUBACK 149, "packet too large"."""
    over_the_limit(db, stage, lambda: stage.server.change(message_size_limit=2000),
                   lambda: stage.server.change(message_size_limit=0))


def test_max_packet_size(db, stage):
    """The broker names its maximum in CONNACK and would disconnect whoever exceeds it: it is not sent at all."""
    over_the_limit(db, stage, lambda: stage.server.restart(max_packet_size=2000),
                   lambda: stage.server.restart(max_packet_size=20000))
    assert "too large" not in stage.server.log_text()


def test_max_packet_size_that_3_1_1_does_not_tell(db, stage):
    """mosquitto hangs up at each packet that is too large: nobody says which it was. Its key waits, others continue."""
    stage.connect(second="steady", options={"version": "3.1.1"})
    with Steady(db, sick=["big"], topics={"big": "large"}, more={"big": {"filler": "x" * 4000}}) as steady:
        for watched in ("out", "second", "copy"):
            steady.watch(watched, getattr(stage, watched))
        before = steady.before()
        eventually(lambda: any(b"filler" in body for body in stage.out()), why="the control: large ones do arrive")
        stage.server.restart(max_packet_size=2000)
        db.wait_error("out", "^the connection broke each time this event was offered: ", 90)
        steady.goes_on(before)
        db.cluster.wait_log(r'route "out" to broker "sick" .*: event \d+ breaks the connection each time')
        assert not db.dead("out") and not db.dead("second")
        stage.server.restart(max_packet_size=20000)
    for bodies in (stage.out, stage.copy):
        steady.check(bodies)
    steady.check(stage.second, but=["big"])
    db.wait_status("out", state="active", in_flight=0, dead=0)


# One route


def test_topic_denied_by_acl_holds_the_route_and_heals_by_itself(db, stage_of):
    """PUBACK 135, "not authorized", in MQTT 5."""
    both = [*READ_ALL, "topic write out/#", "topic write second/#"]
    stage = stage_of(users=USERS, acl=both)
    stage.connect(stage.server.url.replace("://", "://writer:s3cret-of-writer@"))
    with Steady(db) as steady:
        steady.watch("second", stage.second)
        steady.watch("copy", stage.copy)
        eventually(stage.out, why="the control: the route delivers before")
        before = steady.before()
        stage.server.permit([*READ_ALL, "topic write second/#"])
        row = db.wait_state("out", "held")
        assert "not authorized" in row["last_error"].lower() and row["dead"] == 0
        steady.goes_on(before)
        assert db.status("out")["state"] == "held"
        assert db.status("second")["state"] == "active"
        stage.server.permit(both)
        db.wait_state("out", "active", deadline=60)
    stage.check(steady)


# The broker


def test_broker_killed_and_restarted(db, stage):
    """mosquitto acknowledges before it passes a message on or saves it: a kill between the two is its own loss."""
    stage.connect()
    with Steady(db) as steady:
        steady.watch("copy", stage.copy)
        eventually(stage.out)
        before = steady.before()
        stage.server.kill()
        lost_by_broker = steady.just_now()
        db.wait_state("out", "retrying")
        db.wait_error("out", "refused|closed|reset|lost")
        steady.goes_on(before)
        stage.server.start()
        stage.wait_more(stage.out)
    stage.check(steady, forgiven=lost_by_broker)


def test_broker_restarted_gracefully(db, stage):
    stage.connect()
    with Steady(db) as steady:
        for _ in range(3):
            stage.wait_more(stage.out)
            steady.publish_more(50)
            stage.server.restart()
        stage.wait_more(stage.out, 60)
    stage.check(steady)


def test_broker_frozen_and_thawed(db, stage):
    """The kernel still takes connections for it; the heartbeat finds out."""
    stage.connect(options={"heartbeat": 2, "connect_timeout": 2})
    with Steady(db) as steady:
        steady.watch("copy", stage.copy)
        eventually(stage.out)
        before = steady.before()
        stage.server.freeze()
        try:
            steady.goes_on(before)
            db.wait_state("out", "retrying", "connecting")
            assert db.status("out")["last_error"]
        finally:
            stage.server.thaw()
        stage.wait_more(stage.out)
    stage.check(steady)


@pytest.fixture
def proxied(stage, make_proxy):
    """A Stage whose sender goes through a proxy; its own clients do not."""
    proxy = make_proxy(stage.server)
    stage.connect(f"mqtt://127.0.0.1:{proxy.port}", options={"heartbeat": 2, "connect_timeout": 2})
    stage.proxy = proxy
    return stage


@pytest.mark.parametrize("fault", ["refuse", "black_hole"])
def test_unreachable(db, proxied, fault):
    with Steady(db) as steady:
        steady.watch("copy", proxied.copy)
        eventually(proxied.out)
        before = steady.before()
        getattr(proxied.proxy, fault)()
        steady.goes_on(before)
        row = db.wait_state("out", "retrying", "connecting")
        assert row["last_error"]
        assert fault == "refuse" or proxied.proxy.swallowed > 0
        proxied.proxy.pass_on()
        proxied.wait_more(proxied.out)
    proxied.check(steady)


def test_two_seconds_of_latency(db, stage, make_proxy):
    """Slow, and not sick: the link stands, events arrive at their rate, late."""
    proxy = make_proxy(stage.server)
    stage.connect(f"mqtt://127.0.0.1:{proxy.port}")
    with Steady(db) as steady:
        steady.watch("copy", stage.copy)
        eventually(stage.out)
        before = steady.before()
        proxy.delay(2)
        steady.goes_on(before)
        db.wait_status("out", lag=lambda lag: lag.total_seconds() > 3)
        delivered = len(stage.out())
        steady.publish_more(300)
        eventually(lambda: len(stage.out()) >= delivered + 300, 60, "events arrive nevertheless")
        proxy.pass_on()
    stage.check(steady)
    assert proxy.connections == 1


def test_dribble(db, proxied):
    """A byte at a time, each way, with reconnects on the way."""
    with Steady(db, rate=50) as steady:
        steady.watch("copy", proxied.copy)
        eventually(proxied.out)
        before = steady.before()
        proxied.proxy.dribble()
        steady.goes_on(before)
        known = len(proxied.out())
        db.run("SELECT eventbus.alter_broker('sick', NULL, '{\"heartbeat\": 5}')")
        eventually(lambda: proxied.proxy.connections > 1, 60, "the sender reconnects by dribbling")
        eventually(lambda: len(proxied.out()) > known, 60, "something gets through")
        proxied.proxy.pass_on()
    proxied.check(steady)


@pytest.mark.parametrize("version, qos", [("5", 1), ("5", 2), ("3.1.1", 2)])
def test_cut_between_publish_and_acknowledgement(db, stage, make_proxy, version, qos):
    """The broker has got them, we have not heard of it: sent again with the same id. With QoS 2 none arrives twice, as
    long as the broker keeps our session, which 3.1.1 cannot bound and we do not ask for there."""
    proxy = make_proxy(stage.server)
    stage.connect(f"mqtt://127.0.0.1:{proxy.port}", options={"version": version}, qos=qos)
    with Steady(db) as steady:
        steady.watch("copy", stage.copy)
        eventually(stage.out)
        before = steady.before()
        for _ in range(5):
            known = len(stage.out())
            proxy.hold_answers()
            eventually(lambda: proxy.held > 0 and (qos == 2 or len(stage.out()) > known),
                       why="the broker has got something and its acknowledgement is held back")
            answered = proxy.to_client
            proxy.cut()
            eventually(lambda: proxy.to_client > answered + 200, why="more than a CONNACK: the sender is back")
        steady.goes_on(before)
    assert proxy.cuts >= 5
    once = (version, qos) == ("5", 2)
    stage.check(steady, duplicates=not once)
    if not once:
        assert len(stage.out()) > steady.count(), "the control: repetitions were necessary"


@pytest.mark.parametrize("qos", [1, 2])
def test_sender_terminated_before_the_acknowledgement(db, stage, make_proxy, qos):
    """Its successor knows nothing of packet ids: what was under way comes again, new events are not taken for it."""
    proxy = make_proxy(stage.server)
    stage.connect(f"mqtt://127.0.0.1:{proxy.port}", qos=qos)
    with Steady(db) as steady:
        for _ in range(3):
            stage.wait_more(stage.out)
            proxy.hold_answers()
            eventually(lambda: proxy.held > 0, why="acknowledgements are held back")
            sender = db.sender("out")
            db.run("SELECT pg_terminate_backend(%s)", sender)
            eventually(lambda: sender not in db.workers(), why="the sender obeys SIGTERM")
            proxy.cut()
            db.wait_status("out", sender_pid=lambda pid: pid not in (None, sender))
        stage.wait_more(stage.out)
    stage.check(steady)


def test_cut_after_some_bytes(db, stage, make_proxy):
    """In the middle of a packet, wherever that is."""
    proxy = make_proxy(stage.server)
    stage.connect(f"mqtt://127.0.0.1:{proxy.port}")
    with Steady(db) as steady:
        for count in (1, 13, 77, 200, 400, 1001):
            stage.wait_more(stage.out)
            known = proxy.cuts
            proxy.cut_after_bytes(count)
            eventually(lambda: proxy.cuts > known)
        stage.wait_more(stage.out)
    stage.check(steady)


# Credentials and TLS


def test_password_that_is_no_longer_right(db, stage_of):
    """Everything on that broker is held, with the reason; it resumes by itself when the broker lets us in again."""
    stage = stage_of(users=USERS)
    stage.connect(stage.server.url.replace("://", "://writer:s3cret-of-writer@"))
    with Steady(db) as steady:
        steady.watch("copy", stage.copy)
        eventually(stage.out)
        before = steady.before()
        stage.server.restart(users={**USERS, "writer": "changed"})
        db.wait_state("out", "held")
        error = db.wait_state("second", "held")["last_error"]
        assert "not authorized" in error.lower() and "s3cret" not in error
        steady.goes_on(before)
        known = len(stage.out())
        stage.server.restart(users=USERS)
        eventually(lambda: len(stage.out()) > known, 60, "it continues")
    stage.check(steady)


@pytest.fixture
def tls_stage(stage_of, certificates):
    """A Stage with a mosquitto that speaks TLS; certificate and key are what it shows."""
    def make(cert, key):
        return stage_of(certificates=SimpleNamespace(ca=certificates.ca, server_cert=cert, server_key=key))
    return make


@pytest.mark.parametrize("scheme", ["mqtts", "wss"])
@pytest.mark.parametrize("fault, said", [("expired", "expired"), ("elsewhere", "mismatch")])
def test_bad_certificate(db, tls_stage, certificates, fault, said, scheme):
    """Expired, or for another host: held, with the reason; back when the broker shows a good one."""
    stage = tls_stage(getattr(certificates, f"{fault}_cert"), getattr(certificates, f"{fault}_key"))
    port = {"mqtts": stage.server.tls_port, "wss": stage.server.wss_port}[scheme]
    stage.connect(f"{scheme}://127.0.0.1:{port}", options={"ca_file": certificates.ca})
    with Steady(db) as steady:
        steady.watch("copy", stage.copy)
        before = steady.before()
        db.wait_error("out", said)
        db.wait_state("out", "held", "retrying")
        steady.goes_on(before)
        assert stage.out() == []
        stage.server.present(certificates.server_cert, certificates.server_key)
        stage.server.restart()
        stage.wait_more(stage.out, 60)
    stage.check(steady)


def test_authority_that_is_not_trusted(db, tls_stage, certificates):
    stage = tls_stage(certificates.server_cert, certificates.server_key)
    stage.connect(f"mqtts://127.0.0.1:{stage.server.tls_port}", options={"ca_file": certificates.other_ca})
    with Steady(db) as steady:
        steady.watch("copy", stage.copy)
        before = steady.before()
        db.wait_error("out", "certificate|issuer|verify")
        db.wait_state("out", "held", "retrying")
        steady.goes_on(before)
        assert stage.out() == []
        db.run("SELECT eventbus.alter_broker('sick', NULL, %s)", json.dumps({"ca_file": certificates.ca}))
        stage.wait_more(stage.out, 60)
    stage.check(steady)

# What it is: an MQTT broker that is in no Debian package: mochi-mqtt, MQTT 5 and 3.1.1, with every quality of service.
# Who calls it: pytest, with FULL=1 in the environment; its first run fetches Go modules.
# Never: runs by itself, or fails because the broker cannot be had.
import json
import os

import pytest

import mochi as broker
from mosquitto import Subscriber
from servers import eventually


@pytest.fixture(scope="module")
def mochi():
    if not os.environ.get("FULL"):
        pytest.skip("FULL=1 tests mochi-mqtt as well, which Go fetches and builds")
    program, missing = broker.build()
    if missing:
        pytest.skip(f"mochi-mqtt cannot be had: {missing}")
    with broker.Mochi(program) as server:
        yield server


def publish(db, count, begin=0):
    db.run("SELECT eventbus.publish('t', jsonb_build_object('n', n), 'k' || n %% 20) FROM generate_series(%s, %s) n",
           begin, begin + count - 1)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_everything_arrives(db, mochi, name, version, qos):
    with Subscriber(mochi.port, [f"{name}/#"], qos=2) as subscriber:
        db.broker("mochi", mochi.url, version=version)
        db.route("out", "mochi", f"topic:{name}/{{key}}", qos=qos)
        publish(db, 2000)
        eventually(lambda: len(subscriber.messages) >= 2000, 60, "all have come")
        assert sorted(json.loads(body)["n"] for body in subscriber.bodies()) == list(range(2000))
        db.wait_status("out", delivered=2000, in_flight=0, dead=0, state="active")


@pytest.mark.parametrize("qos", [1, 2])
def test_cut(db, mochi, make_proxy, name, qos):
    """At least once, with QoS 2 as well: it answers repetitions by 0x91, whether it has passed the message on or not."""
    proxy = make_proxy(mochi)
    with Subscriber(mochi.port, [f"{name}/#"], qos=2) as subscriber:
        db.broker("mochi", f"mqtt://127.0.0.1:{proxy.port}")
        db.route("out", "mochi", f"topic:{name}/{{key}}", qos=qos)
        db.wait_state("out", "active")
        for begin in range(0, 1000, 200):
            proxy.hold_answers()
            publish(db, 200, begin)
            eventually(lambda: proxy.held > 0, why="acknowledgements are held back")
            proxy.cut()
            eventually(lambda begin=begin: len({*subscriber.bodies()}) >= begin + 200, 60, "all have come")
        assert {json.loads(body)["n"] for body in subscriber.bodies()} == set(range(1000))


def test_one_topic_that_the_acl_denies(db, mochi, name):
    with Subscriber(mochi.port, [f"{name}/#"]) as subscriber:
        db.broker("mochi", mochi.url)
        db.route("out", "mochi", f"topic:{name}/{{key}}")
        event = db.publish("t", {"n": -1}, "forbidden")
        publish(db, 200)
        eventually(lambda: len(subscriber.messages) >= 200, 60, "others are delivered")
        db.wait_error("out", rf"event {event} to topic .*0x87")


def test_a_client_id_that_others_have(db, mochi, name):
    with Subscriber(mochi.port, [f"{name}/#"]) as subscriber:
        db.broker("mochi", mochi.url, client_id=name)
        db.route("out", "mochi", f"topic:{name}/{{key}}", qos=2)
        publish(db, 100)
        eventually(lambda: len(subscriber.messages) >= 100)
        with Subscriber(mochi.port, [], client_id=name):
            db.wait_error("out", "another client")
        publish(db, 100, 100)
        eventually(lambda: {json.loads(body)["n"] for body in subscriber.bodies()} >= set(range(200)), 90, "at least once")

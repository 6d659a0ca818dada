# What it is: draining a backlog into Redis, RabbitMQ and mosquitto, against programs that send from memory.
# Who calls it: bench/run.
# Never: lets the programs send anything but what our own messages carry (a first event of ours is their model).
import statistics
import time

from harness import load, table
from harness.world import eventually

FIELDS = {"payload", "id", "topic", "content_type", "time", "source"}


def _wait_quick(done, deadline=300):
    """Polls every few milliseconds; the time at which it came true."""
    end = time.monotonic() + deadline
    while not done():
        if time.monotonic() > end:
            raise AssertionError(f"the backlog was not drained within {deadline} s")
        time.sleep(0.003)
    return time.monotonic()


class _Drain:
    """Ours: publish while the route is paused, resume, wait until the broker has everything."""

    def __init__(self, world, arrived):
        self.world, self.arrived = world, arrived
        self.starts = []

    def run(self, publish):
        self.world.prepare()
        self.world.sql("SELECT eventbus.pause_route('bench')")
        count = publish()
        self.world.sql("CHECKPOINT")
        begun = time.monotonic()
        self.world.sql("SELECT eventbus.resume_route('bench')")
        first = _wait_quick(lambda: self.arrived() > 0)
        done = _wait_quick(lambda: self.arrived() >= count)
        self.starts.append(first - begun)
        surplus = self.arrived() - count
        if surplus:
            raise AssertionError(f"{surplus} events too many have arrived")
        eventually(lambda: self.world.status()["in_flight"] == 0, 30, "everything is settled")
        return count / (done - begun)

    def note(self):
        return f"resume to the first arrival: {max(self.starts) * 1000:.0f} ms at most, part of ours"


def _model_entry(world):
    """One event of ours in the stream; its id as the prefix that our driver gives entries ('' when it is *)."""
    world.sql("SELECT eventbus.publish(%s, %s)", load.TOPIC, load.PAYLOAD)
    world.wait_added(1)
    entry_id, fields = world.redis_client.xrange("bench")[0]
    fields = {name.decode(): value.decode() for name, value in fields.items()}
    if set(fields) != FIELDS or fields["payload"] != load.PAYLOAD:
        raise AssertionError(f"the baseline does not send what we send: {fields}")
    left, right = entry_id.decode().split("-")
    return fields, f"{left}-" if right == fields["id"] else ""


def _redis(world, runs, publish, what, at_least):
    world.redis_route()
    model, prefix = _model_entry(world)
    drain = _Drain(world, lambda: world.redis_client.xlen("bench"))
    theirs, ours = [], []
    for _ in range(runs):
        world.redis_client.delete("bench", "baseline")
        world.prepare()
        done = world.program("xadd", socket=world.redis.socket, stream="baseline", count=world.events, pipeline=1000,
                             payload=load.PAYLOAD, topic=model["topic"], source=model["source"], id_prefix=prefix)
        theirs.append(done["count"] / done["seconds"])
        world.redis_client.delete("baseline")
        ours.append(drain.run(publish))
        world.say(f"theirs {theirs[-1]:.0f} events/s, ours {ours[-1]:.0f} events/s")
    yield table.compare(what, theirs, ours, "events/s", at_least=at_least, note=drain.note(),
                        detail={"resume_to_first_s": drain.starts})


def redis_batches(world):
    yield from _redis(world, world.runs, lambda: world.publish_batches(world.events),
                      f"draining {world.events} (transactions of 1000) into a stream : hiredis XADD by 1000", 0.6)


def redis_single(world):
    def publish():
        # How fast the backlog comes about is not what is measured.
        return world.pgbench("publish_1", "-c", 16, "-j", 2, "-t", world.events // 16,
                             settings="-c synchronous_commit=off")["count"]

    yield from _redis(world, 1, publish,
                      f"draining {world.events} (a transaction each, one run) into a stream : the same", 0.6)


def _check_message(world):
    world.sql("SELECT eventbus.publish(%s, %s)", load.TOPIC, load.PAYLOAD)
    [(properties, body, _)] = world.rabbit.take("bench", 1)
    carried = {"content_type", "delivery_mode", "message_id", "timestamp", "type", "app_id", "headers"}
    given = {name for name, value in vars(properties).items() if value is not None}
    if given != carried or set(properties.headers) != {"event-time"} or body.decode() != load.PAYLOAD:
        raise AssertionError(f"the baseline does not send what we send: {properties} {body}")
    return properties.app_id


def amqp(world):
    world.rabbit.declare("bench")
    world.rabbit.declare("baseline")
    world.amqp_route("queue:bench")
    source = _check_message(world)
    connection = world.rabbit.connection()
    channel = connection.channel()
    drain = _Drain(world, lambda: channel.queue_declare("bench", passive=True).method.message_count)
    theirs, ours = [], []
    for _ in range(world.runs):
        world.prepare()
        done = world.program("amqp_publish", port=world.rabbit.port, queue="baseline", count=world.amqp_events,
                             window=1000, payload=load.PAYLOAD, topic=load.TOPIC, source=source)
        theirs.append(done["count"] / done["seconds"])
        channel.queue_purge("baseline")
        ours.append(drain.run(lambda: world.publish_batches(world.amqp_events)))
        channel.queue_purge("bench")
        world.say(f"theirs {theirs[-1]:.0f} events/s, ours {ours[-1]:.0f} events/s")
    connection.close()
    yield table.compare(f"draining {world.amqp_events} into a durable RabbitMQ queue : rabbitmq-c, window 1000",
                        theirs, ours, "events/s", at_least=0.9, note=drain.note(),
                        detail={"resume_to_first_s": drain.starts})


class _Markers:
    """What a client sees of a drain into mosquitto: the first event and the last one, which have keys of their own, and
    how many the broker says it has received. Nobody subscribes to the others: no third party shares the machine."""

    RECEIVED = "$SYS/broker/publish/messages/received"

    def __init__(self, world):
        self.world = world
        self.ends = world.mosquitto.subscriber(["bench/first", "bench/last"])
        self.counter = world.mosquitto.subscriber([self.RECEIVED], qos=0)

    def publish(self):
        def one(key):
            self.world.sql("SELECT eventbus.publish(%s, %s, %s)", load.TOPIC, load.PAYLOAD, key)

        self.ends.messages.clear()
        one("first")
        self.world.publish_batches(self.world.mqtt_events - 2)
        one("last")
        return self.world.mqtt_events

    def arrived(self):
        return [0, 1, self.world.mqtt_events][len(self.ends.messages)]

    def received(self):
        """By the broker, when its count has come to rest."""
        seen = []

        def rests():
            seen.append(int(self.counter.messages[-1].payload) if self.counter.messages else None)
            return len(seen) > 150 and len(set(seen[-150:])) == 1 and seen[-1] is not None  # 3 s; it tells each second

        eventually(rests, 30, "mosquitto's count of messages comes to rest")
        return seen[-1]

    def close(self):
        self.ends.close()
        self.counter.close()


def _mqtt_model(world):
    with world.mosquitto.subscriber(["bench/model"]) as subscriber:
        world.sql("SELECT eventbus.publish(%s, %s, 'model')", load.TOPIC, load.PAYLOAD)
        [message] = subscriber.take(1)
    user = dict(message.user)
    if set(user) != {"event-id", "event-topic", "event-key", "event-time", "event-source"} or message.qos != 1 or \
            message.content_type != "application/json" or message.properties != {"PayloadFormatIndicator": 1} or \
            message.payload.decode() != load.PAYLOAD:
        raise AssertionError(f"the baseline does not send what we send: {message}")
    return user["event-source"]


def mqtt(world):
    world.mqtt_route("topic:bench/{key}")
    source = _mqtt_model(world)

    def theirs_once(window, count):
        world.prepare()
        done = world.program("mqtt_publish", port=world.mosquitto.port, destination="bench/", count=count,
                             window=window, payload=load.PAYLOAD, topic=load.TOPIC, source=source)
        return done["count"] / done["seconds"]

    tried = {window: [] for window in (10, 20, 50, 100)}
    for _ in range(3):
        for window, rates in tried.items():
            rates.append(theirs_once(window, world.mqtt_events // 4))
    best = max(tried, key=lambda window: statistics.median(tried[window]))
    world.say("theirs by window: " + ", ".join(f"{window}: {statistics.median(rates):.0f} events/s"
                                               for window, rates in tried.items()))
    markers = _Markers(world)
    drain = _Drain(world, markers.arrived)
    theirs, ours = [], []
    for _ in range(world.runs):
        theirs.append(theirs_once(best, world.mqtt_events))
        before = markers.received()
        ours.append(drain.run(markers.publish))
        got = markers.received() - before
        if got != world.mqtt_events:
            raise AssertionError(f"mosquitto has received {got} events of {world.mqtt_events}")
        world.say(f"theirs {theirs[-1]:.0f} events/s, ours {ours[-1]:.0f} events/s")
    markers.close()
    yield table.compare(f"draining {world.mqtt_events} to mosquitto, QoS 1 : paho MQTTAsync, window {best}",
                        theirs, ours, "events/s", at_least=0.9, note=drain.note(),
                        detail={"resume_to_first_s": drain.starts, "theirs_by_window": tried})

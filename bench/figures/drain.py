# What it is: draining a backlog into a Redis stream and a RabbitMQ queue, against programs that send from memory.
# Who calls it: bench/run.
# Never: lets the programs send anything but what our own messages carry (a first event of ours is their model).
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

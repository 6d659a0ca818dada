# What it is: how much of what is published arrives on healthy routes while another route is held, another key is
# retried and another broker is frozen, all at once, against windows without these faults.
# Who calls it: bench/run.
# Never: counts a window in which a fault was not there, or begins one before what the last one left behind is delivered.
import datetime
import statistics
import time

from harness import table
from harness.publisher import Publisher
from harness.world import Database, RedisServer, eventually

EVERY = 0.01  # seconds between two transactions
KEYS = 20     # healthy ones; a transaction has an event of each, and one of the key that is to be retried
PUBLISH = ("SELECT count(eventbus.publish('fair', to_jsonb(repeat('x', 200)), 'k' || n))"
           f" FROM generate_series(0, {KEYS}) n")
BEHIND = 20_000  # so many further events go by while the key is in back-off


class _Scene:
    """Routes: `held` and `beside` on one Redis, `by-key` on RabbitMQ, where key k0 has a queue of its own, and `frozen`
    on another Redis."""

    def __init__(self, world, database):
        self.world, self.database, self.redis = world, database, world.redis_client
        self.other = world.start(RedisServer())
        self.redis.execute_command("ACL SETUSER fair on >pw ~* &* +@all")
        world.rabbit.do(self._declare)
        database.broker("redis", world.redis.url.replace("://", "://fair:pw@"))
        database.broker("rabbit", world.rabbit.url)
        database.broker("other", self.other.url)
        for route, broker, destination, more in (
                ("beside", "redis", "stream:fair:beside", {"maxlen": 10_000}),
                ("held", "redis", "stream:held", {"maxlen": 10_000}),
                ("by-key", "rabbit", "exchange:fair", {"routing_key": "{key}"}),
                ("frozen", "other", "stream:frozen", {"maxlen": 10_000})):
            database.route(route, broker, destination, **more)
            database.sender(route)

    @staticmethod
    def _declare(channel):
        channel.exchange_declare("fair", "direct")
        for queue, keys in (("fair-rest", range(1, KEYS + 1)), ("fair-full", [0])):
            channel.queue_declare(queue, arguments={"x-queue-mode": "lazy"})
            for key in keys:
                channel.queue_bind(queue, "fair", f"k{key}")

    def _take_at_most(self, count):
        self.world.rabbit.control("set_policy", "fair", "^fair-full$", "--apply-to", "queues",
                                  f'{{"max-length": {count}, "overflow": "reject-publish"}}')

    def break_all(self):
        """A full queue that rejects, a permission taken away, a frozen server; until each is seen."""
        before = self.database.status("by-key")["retries"]
        self._take_at_most(1)
        self.redis.execute_command("ACL SETUSER fair resetkeys ~fair:*")
        self.other.freeze()
        self.database.wait_state("held", "held")
        self.database.wait_status("by-key", retries=lambda retries: retries > before)
        self.database.wait_status("frozen", lag=lambda lag: lag > datetime.timedelta(seconds=0.5))

    def mend_all(self):
        """Until everything is delivered."""
        self.other.thaw()
        self.redis.execute_command("ACL SETUSER fair ~*")
        self._take_at_most(10_000_000)
        for route in ("beside", "held", "by-key", "frozen"):
            self.database.wait_status(route, 120, state="active", lag=lambda lag: lag < datetime.timedelta(seconds=0.3))

    def window(self, load):
        """What arrived on the healthy routes, as shares of what was published meanwhile: the load keeps a steady pace
        only as far as the machine lets it."""
        begun, published, added = time.monotonic(), load.published, self.world.added("fair:beside")
        self.world.rabbit.do(lambda channel: channel.queue_purge("fair-rest"))
        eventually(lambda: load.published - published > BEHIND * 1.2, 600, "the window's events are published")
        added = self.world.added("fair:beside") - added
        queued = self.world.rabbit.do(lambda channel: channel.queue_purge("fair-rest").method.message_count)
        published = load.published - published
        seconds = time.monotonic() - begun
        self.world.rabbit.do(lambda channel: channel.queue_purge("fair-full"))
        return {"beside": added / published, "by-key": queued / (published * KEYS / (KEYS + 1)),
                "published": published / seconds}


def pace(windows):
    return statistics.median(one["published"] for one in windows)


def run(world):
    database = Database(world.cluster, "fair")
    scene = _Scene(world, database)
    free, faulty = [], []
    try:
        with Publisher(database, PUBLISH, EVERY) as load:
            scene.mend_all()
            scene.window(load)
            for _ in range(world.runs):
                free.append(scene.window(load))
                scene.break_all()
                try:
                    faulty.append(scene.window(load))
                    assert database.status("held")["state"] == "held" and database.status("by-key")["lag"].seconds > 5
                finally:
                    scene.mend_all()
                world.say(", ".join(f"{name} {free[-1][name]:.3g} → {faulty[-1][name]:.3g}" for name in free[-1]))
        dead = database.one("SELECT count(*) FROM eventbus.dead_letter")
        assert dead == 0, f"{dead} dead letters"
    finally:
        database.drop()
    notes = {"beside": "a Redis stream; the held route is on the same broker",
             "by-key": f"other keys of the same RabbitMQ route, over {BEHIND} events beyond the key in back-off"}
    for route, note in notes.items():
        yield table.compare(f"another route held, a key retried, a broker frozen: {route} : without faults",
                            [one[route] for one in free], [one[route] for one in faulty], "of the load", at_least=0.95,
                            note=f"{note}; {pace(free):.0f} events/s were published without, {pace(faulty):.0f} with faults",
                            detail={"free": free, "faulty": faulty})

# What it is: 500 routes of one broker against one: a backlog that was published in the routes' own transaction, the
# sender's memory meanwhile, and what publishers notice of them while the broker is away.
# Who calls it: bench/run.
# Never: compares runs of different shape: one route gets its events in its own transaction as well.
import time

from figures.memory import _resident, _Watch
from harness import load, table
from harness.world import eventually

ROUTES = 500
EVERYTHING = 10  # of them "#", the others "x.N.#"
EVENTS = 50_000
LIMIT_MB = 128


def _topics(routes, everything):
    return ["#" if n < everything else f"x.{n - everything}.#" for n in range(routes)]


def _make_routes(run, topics):
    for n, topic in enumerate(topics):
        run("SELECT eventbus.create_route(%s, 'bench', %s, %s)", (f"many{n}", f"stream:many:{n}", topic))


def _drop_routes(world):
    world.sql("SELECT eventbus.drop_route(route) FROM eventbus.status WHERE route LIKE 'many%%'")


class _Drain:
    def __init__(self, world):
        self.world = world
        world.redis_route(topics="bench.idle")  # keeps the sender, so that it can be seen idle
        self.pid = world.status()["sender_pid"]
        world.sql("SELECT eventbus.publish('bench.idle', '1')")
        world.wait_added(1)
        self.idle = _resident(self.pid)
        self.watches = []

    def run(self, routes, everything):
        """Deliveries a second from the COMMIT of routes and events to the last delivery."""
        world, choosy = self.world, ROUTES - EVERYTHING
        world.redis_client.delete(*[f"many:{n}" for n in range(ROUTES)])
        world.prepare()
        transaction = world.cluster.connect(autocommit=False)
        with transaction.cursor() as cursor:
            _make_routes(cursor.execute, _topics(routes, everything))
            cursor.execute("SELECT count(eventbus.publish('x.' || n %% %s || '.made', %s))"
                           " FROM generate_series(1, %s) n", (choosy, load.PAYLOAD, EVENTS))
        wanted = EVENTS * everything + (EVENTS if routes > everything else 0)
        with _Watch(self.pid) as watch:
            begun = time.monotonic()
            transaction.commit()
            transaction.close()
            self._wait(routes, everything, wanted)
            seconds = time.monotonic() - begun
        self.watches.append(watch)
        _drop_routes(world)
        return wanted / seconds

    def _wait(self, routes, everything, wanted):
        pipeline = self.world.redis_client.pipeline(transaction=False)

        def lengths(numbers):
            for n in numbers:
                pipeline.xlen(f"many:{n}")
            return sum(pipeline.execute())
        # The last one is looked for on few streams: counting takes from who is counted.
        eventually(lambda: lengths(range(everything)) == EVENTS * everything, 600, "routes of '#' have everything")
        eventually(lambda: lengths(range(routes)) == wanted, 60, "all routes have everything")


def drain(world):
    scene = _Drain(world)
    one, many = [], []
    for _ in range(world.runs):
        one.append(scene.run(1, 1))
        many.append(scene.run(ROUTES, EVERYTHING))
        world.say(f"one route {one[-1]:.0f} deliveries/s, {ROUTES} routes {many[-1]:.0f}")
    peak = max(watch.peak()[0] for watch in scene.watches)
    yield table.compare(f"draining {EVENTS} through {ROUTES} routes that were made with them : through one", one, many,
                        "deliveries/s", at_least=0.5, note=f"{EVERYTHING} of them take all, the others 1 in "
                        f"{ROUTES - EVERYTHING}; from COMMIT to the last delivery")
    above = peak - scene.idle[0]
    yield table.Row(f"sender's memory above idle meanwhile, {ROUTES} routes", scene.idle[0], above, "MB",
                    bound=f"≤ {LIMIT_MB}", met=above <= LIMIT_MB, note="baseline: idle; RssAnon + RssFile")


def _published(world, topics):
    """tps of publishers whose routes' broker is away."""
    world.sql("SELECT eventbus.create_broker('bench', 'redis://127.0.0.1:1')")
    try:
        _make_routes(lambda sql, arguments: world.sql(sql, *arguments), topics)
        eventually(lambda: world.one("SELECT bool_and(sender_pid IS NOT NULL) FROM eventbus.status"), 30, "a sender")
        world.prepare()
        return world.pgbench("order_event", "-c", 16, "-j", 2, "-T", world.seconds)["tps"]
    finally:
        world.sql("SELECT eventbus.drop_broker('bench', true)")


def publish_away(world):
    for what, topics in ((f"{ROUTES} routes", _topics(ROUTES, EVERYTHING)),
                         (f"{ROUTES} routes, one of which matches", _topics(ROUTES, 1))):
        one, many = [], []
        _published(world, ["#"])
        for _ in range(world.runs):
            one.append(_published(world, ["#"]))
            many.append(_published(world, topics))
            world.say(f"one route {one[-1]:.0f} tps, {what} {many[-1]:.0f} tps")
        yield table.compare(f"insert + publish, broker away, 16 clients, {what} : one route", one, many, "tps",
                            at_least=0.95)

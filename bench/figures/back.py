# What it is: how long a broker is back before the first event arrives there: after a restart, after being frozen.
# Who calls it: bench/run.
# Never: counts the time that the broker itself takes to start.
import socket
import statistics
import time

from harness import table
from harness.publisher import Publisher
from harness.world import Database, MosquittoServer, RabbitNode, RedisServer

AWAY = 6.0  # seconds; by then attempts are as far apart as they get
MOST = 2.0


def _at_once(met, deadline=120):
    """The time at which it came true."""
    end = time.monotonic() + deadline
    while not met():
        assert time.monotonic() < end, f"not within {deadline} s"
        time.sleep(0.001)
    return time.monotonic()


def _accepts(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _delivered_before(database):
    """Waits until nothing has been acknowledged for a while; says how many were before."""
    return database.wait_status("back", lag=lambda lag: lag.total_seconds() > AWAY)["delivered"]


def _restarted(server, database):
    server.kill()
    before = _delivered_before(database)
    server.start(wait=False)
    return _at_once(lambda: _accepts(server.port)), before


def _thawed(server, database):
    server.freeze()
    try:
        before = _delivered_before(database)
    finally:
        begun = time.monotonic()
        server.thaw()
    return begun, before


def _measure(server, database, returned):
    """Seconds from the broker's return to the first acknowledgement."""
    begun, before = returned(server, database)
    took = _at_once(lambda: database.status("back")["delivered"] > before) - begun
    server.wait_ready()
    database.wait_status("back", 60, state="active", lag=lambda lag: lag.total_seconds() < 0.5)
    return took


def run(world):
    database = Database(world.cluster, "back")
    rabbit = RabbitNode()
    try:
        for name, server, destination in (("Redis", RedisServer(), "stream:back"), ("RabbitMQ", rabbit, "queue:back"),
                                          ("mosquitto", MosquittoServer(), "topic:back")):
            with server:
                if server is rabbit:
                    rabbit.declare("back")
                database.broker("back", server.url, heartbeat=1)
                database.route("back", "back", destination)
                with Publisher(database, "SELECT count(eventbus.publish('back', '1', 'k'))", 0.02):
                    database.wait_state("back", "active")
                    for what, returned in (("accepts connections after a restart", _restarted),
                                           ("is thawed (SIGCONT)", _thawed)):
                        took = [_measure(server, database, returned) for _ in range(world.runs)]
                        world.say(f"{name} {what}: " + ", ".join(f"{seconds:.2f}" for seconds in took) + " s")
                        median = statistics.median(took)
                        yield table.Row(f"{name} {what}, until the first acknowledged event", None, median, "s",
                                        spread=f"{min(took):.2f}–{max(took):.2f}", bound=f"≤ {MOST:g}",
                                        met=median <= MOST, detail={"seconds": took})
                database.run("SELECT eventbus.drop_broker('back', true)")
    finally:
        database.drop()

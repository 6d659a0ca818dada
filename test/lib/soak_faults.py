# What it is: the soak's hands that break something: brokers, connections, processes of the server, the server.
# Who calls it: soak.py, by the seed's dice.
# Never: makes a broker forget what it has acknowledged; that would be its loss, not ours.
import os
import signal

from processes import eventually
from soak_hands import hand

WORKERS = "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE %s"


def state(process):
    with open(f"/proc/{process.pid}/stat", "rb") as stat:
        return stat.read().rpartition(b")")[2].split()[0]


def killed(world, server):
    """Comes back a while later, beside the next hands."""
    world.loosen()
    server.kill()
    assert not server.process.running()
    world.later(world.dice.random() * 3, server.start)


def frozen(world, server):
    world.loosen()
    server.freeze()
    world.later(0.5 + world.dice.random() * 4, server.thaw)
    eventually(lambda: state(server.process) == b"T", 10, "it is stalled")


@hand(fault=True)
def kill_redis(world):
    killed(world, world.redis)


@hand(0.3, fault=True)
def kill_rabbit(world):
    killed(world, world.rabbit)


def drain(world):
    """Nobody publishes to mosquitto any more, and its subscribers have heard everything, until refill(): what a session
    still has to get when mosquitto ends, or while its client comes back, 2.0 sends out of order."""
    world.proxies["mosquitto"].refuse()
    world.arrivals.mark()  # it is connected
    eventually(lambda: world.mosquitto.process.sockets() <= world.arrivals.sockets, 30,
               "mosquitto has read what connections that were cut had sent")
    world.arrivals.mark()


def refill(world):
    if not world.mosquitto.process.running():
        world.mosquitto.start()
    world.arrivals.mark()
    world.proxies["mosquitto"].pass_on()


@hand(fault=True)
def kill_mosquitto(world):
    """What it has acknowledged is on its disk: nobody hears an answer while it writes, or later."""
    world.loosen()
    drain(world)
    mosquitto = world.mosquitto
    mosquitto.save()
    mosquitto.kill()
    assert not mosquitto.process.running()
    world.later(world.dice.random() * 3, lambda: refill(world))


@hand(fault=True)
def restart_mosquitto(world):
    world.loosen()
    drain(world)
    world.mosquitto.stop()
    assert not world.mosquitto.process.running()
    world.later(world.dice.random() * 2, lambda: refill(world))


@hand(fault=True)
def freeze_redis(world):
    frozen(world, world.redis)


@hand(fault=True)
def freeze_rabbit(world):
    frozen(world, world.rabbit)


@hand(fault=True)
def freeze_mosquitto(world):
    frozen(world, world.mosquitto)


@hand(2, fault=True)
def cut(world):
    """Every connection to a broker is reset, once."""
    proxy = world.dice.choice(list(world.proxies.values()))
    before = proxy.cuts
    eventually(lambda: proxy.cut() or proxy.cuts > before, 30, "there is a connection to cut")


@hand(2, fault=True)
def cut_before_the_answer(world):
    """The broker has what was published, and nobody hears that it has."""
    proxy = world.proxies[world.dice.choice(list(world.proxies))]
    world.loosen()
    proxy.hold_answers()
    try:
        eventually(lambda: proxy.held > 0, 60, "the broker answers")
        world.wait(world.dice.random())
    finally:
        proxy.cut()


@hand(0.7, fault=True)
def restart_at_once(world):
    restarted(world, lambda: world.postgres.restart("immediate"))


@hand(0.7, fault=True)
def restart_fast(world):
    def stop_and_start():
        most = 60 if world.beside else 5  # a standby gets all of the WAL first
        took = world.postgres.stop("fast")
        world.postgres.start()
        assert took < most, f"a fast shutdown waits for no broker; it took {took:.1f} s"
    restarted(world, stop_and_start)


@hand(0.5, fault=True)
def kill_postmaster(world):
    def kill_and_start():
        world.postgres.kill_postmaster()
        world.postgres.start()
    restarted(world, kill_and_start)


def restarted(world, how):
    begun = "SELECT pg_postmaster_start_time()"
    before = world.sql(begun)
    how()
    assert world.sql(begun) != before, "it is the same postmaster"


@hand(fault=True)
def terminate_workers(world):
    world.loosen()  # PostgreSQL starts the launcher again 5 s later, by a clock that must not be set back meanwhile
    world.terminate(world.dice.choice(["pg_eventbus%", "pg_eventbus sender", "pg_eventbus keeper"]))


@hand(0.7, fault=True)
def kill_sender(world):
    crashed(world, world.sql(WORKERS, "pg_eventbus sender"))


@hand(0.4, fault=True)
def kill_backend(world):
    crashed(world, world.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'soak load'"))


def crashed(world, pids):
    since = world.postgres.log_size()
    os.kill(world.dice.choice(pids or eventually(lambda: world.sql(WORKERS, "pg_eventbus sender"), 60))[0],
            signal.SIGKILL)
    world.postgres.wait_log("was terminated by signal 9", since)
    world.postgres.wait_recovered()

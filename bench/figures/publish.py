# What it is: a business insert with eventbus.publish, against the same with an outbox row or a pg_notify.
# Who calls it: bench/run.
# Never: lets one side's backlog weigh on the other's run.
from harness import table

CLIENTS = (1, 4, 16)


def _options(clients, seconds):
    return "-c", clients, "-j", min(clients, 2), "-T", seconds


def _theirs(world, script, clients):
    world.prepare()
    return world.pgbench(script, *_options(clients, world.seconds))["tps"]


def _ours(world, clients, routed, keeping_up):
    """tps; with a route, also which part of the events had been delivered when the publishers stopped."""
    world.prepare()
    before = world.added() if routed else 0
    done = world.pgbench("order_event", *_options(clients, world.seconds))
    if routed:
        keeping_up.append((world.added() - before) / done["count"])
        world.wait_added(before + done["count"])
    return done["tps"]


def _against(world, script, clients, what, at_least, routed):
    theirs, ours, keeping_up = [], [], []
    for name in (script, "order_event"):
        world.pgbench(name, *_options(clients, 1))
    for _ in range(world.runs):
        theirs.append(_theirs(world, script, clients))
        ours.append(_ours(world, clients, routed, keeping_up))
        world.say(f"{clients} clients: theirs {theirs[-1]:.0f} tps, ours {ours[-1]:.0f} tps")
    note = f"{min(keeping_up):.0%} delivered by the last COMMIT, at the least" if routed else ""
    plural = "client" if clients == 1 else "clients"
    return table.compare(f"{what}, {clients} {plural}", theirs, ours, "tps", at_least=at_least, note=note,
                         detail={"delivered_by_the_end": keeping_up})


def no_route(world):
    for clients in CLIENTS:
        yield _against(world, "order_outbox", clients, "insert + publish, no route : + outbox row", 0.95, False)


def with_route(world):
    world.redis_route(options={"maxlen": 100_000})
    for clients in CLIENTS:
        yield _against(world, "order_outbox", clients, "insert + publish, route at work : + outbox row", 0.8, True)


def against_notify(world):
    world.redis_route(options={"maxlen": 100_000})
    yield _against(world, "order_notify", 16, "insert + publish, route at work : + pg_notify, no listener", 2.0, True)

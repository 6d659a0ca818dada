# What it is: COMMIT to a hiredis subscriber having the event, against COMMIT to a libpq LISTEN client having a NOTIFY.
# Who calls it: bench/run.
# Never: measures by itself; build/bench/latency does, both kinds in turn within one run.
#
# A transaction that does nothing but NOTIFY commits without waiting for its WAL, one that publishes waits as every
# transaction does that wrote something. So the rows with a bound have the same business insert in both.
from harness import load, table

# events a second -> publishing connections
RATES = {100: 1, 5000: 4}
CHANNEL = "bench_latency"
TOPIC = "bench.latency"
EVENT = f"eventbus.publish('{TOPIC}', $1)"
NOTIFY = f"pg_notify('{CHANNEL}', $1)"
ORDER = "WITH b AS (INSERT INTO orders (customer, amount) VALUES (42, 1999) RETURNING id) SELECT {} FROM b"


def _run(world, rate, event, notify):
    world.prepare()
    done = world.program("latency", conninfo=world.conninfo, socket=world.redis.socket, channel=CHANNEL, rate=rate,
                         seconds=world.seconds, threads=RATES[rate], payload_bytes=len(load.PAYLOAD), event=event,
                         notify=notify)
    for kind in ("event", "notify"):
        if done[kind]["lost"]:
            raise AssertionError(f"{done[kind]['lost']} of kind {kind} did not arrive")
    world.say(f"{rate}/s: NOTIFY {done['notify']['p50']} µs, event {done['event']['p50']} µs (p50);"
              f" {done['notify']['p99']}, {done['event']['p99']} (p99)")
    return done


def _row(what, runs, part, at_most=None, note=""):
    return table.compare(what, [run["notify"][part] for run in runs], [run["event"][part] for run in runs], "µs",
                         at_most=at_most, note=note, detail={"runs": runs})


def run(world):
    world.redis_route(f"channel:{CHANNEL}", topics=TOPIC)
    for rate in RATES:
        runs, bare = [], []
        for _ in range(world.runs):
            runs.append(_run(world, rate, ORDER.format(EVENT), ORDER.format(NOTIFY)))
            bare.append(_run(world, rate, f"SELECT {EVENT}", f"SELECT {NOTIFY}"))
        late = max(one["behind"] / one["published"] for one in runs)
        yield _row(f"COMMIT to Redis subscriber, {rate}/s, p50 : NOTIFY to LISTEN client", runs, "p50", 3.0,
                   "from just before COMMIT is sent, a business insert in both; half-second blocks in turn;"
                   f" {late:.0%} began over 1 ms late, at the most")
        yield _row("  the same, p99", runs, "p99")
        yield _row("  p50 without the insert", bare, "p50",
                   note="for information: NOTIFY alone commits without waiting for its WAL, publishing waits")

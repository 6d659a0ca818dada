# What it is: COMMIT to a hiredis subscriber having the event, against COMMIT to a libpq LISTEN client having a NOTIFY.
# Who calls it: bench/run.
# Never: measures by itself; build/bench/latency does, both kinds in turn within one run.
from harness import load, table

# events a second -> publishing connections
RATES = {100: 1, 5000: 4}


def run(world):
    world.redis_route("channel:bench_latency", topics="bench.latency")
    for rate, threads in RATES.items():
        done = []
        for _ in range(world.runs):
            world.prepare()
            done.append(world.program(
                "latency", conninfo=world.conninfo, socket=world.redis.socket, redis_channel="bench_latency",
                rate=rate, seconds=world.seconds, threads=threads, payload_bytes=len(load.PAYLOAD),
                statement="SELECT eventbus.publish('bench.latency', $1)"))
            last = done[-1]
            for kind in ("event", "notify"):
                if last[kind]["lost"]:
                    raise AssertionError(f"{last[kind]['lost']} of kind {kind} did not arrive")
            world.say(f"{rate}/s: NOTIFY {last['notify']['p50']} µs, event {last['event']['p50']} µs (p50);"
                      f" {last['notify']['p99']}, {last['event']['p99']} (p99)")
        late = max(run["behind"] / run["published"] for run in done)
        note = ("from just before COMMIT is sent, for both; half-second blocks in turn; "
                f"{late:.0%} began over 1 ms late, at the most")
        for part, at_most in (("p50", 3.0), ("p99", None)):
            yield table.compare(f"COMMIT to Redis subscriber, {rate}/s, {part} : NOTIFY to LISTEN client",
                                [run["notify"][part] for run in done], [run["event"][part] for run in done], "µs",
                                at_most=at_most, note=note if part == "p50" else "", detail={"runs": done})

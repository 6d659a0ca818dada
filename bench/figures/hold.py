# What it is: a long run at a steady rate with a REPEATABLE READ transaction held open: rate, dead tuples, rotation.
# Who calls it: bench/run.
# Never: vacuums, or looks into the log's tables between minutes (its lock would keep rotation waiting).
import time

from harness import table

RATE = 2000
LOG_TABLES = """
SELECT c.oid::regclass::text, c.relfilenode::bigint, pg_total_relation_size(c.oid)
FROM pg_class c WHERE c.relnamespace = 'eventbus'::regnamespace AND c.relkind = 'r' ORDER BY 1"""


class _Tables:
    """The extension's tables over time: sizes, and how often each got a new file (that is a rotation)."""

    def __init__(self, world):
        self.world = world
        self.files, self.rotations, self.most_bytes = {}, {}, 0

    def look(self):
        total = 0
        for name, file, size in self.world.sql(LOG_TABLES):
            if name in self.files and self.files[name] != file:
                self.rotations[name] = self.rotations.get(name, 0) + 1
            self.files[name] = file
            total += size
        self.most_bytes = max(self.most_bytes, total)
        return total

    def dead(self):
        """Dead tuples by pgstattuple, which reads the tables themselves."""
        return {name: self.world.one("SELECT dead_tuple_count FROM pgstattuple(%s::regclass)", name)
                for name in (*self.files, "pg_catalog.pg_class")}

    def log(self):
        return {name for name in self.files if name.startswith("eventbus.log_")}


def _minute(world, tables, seconds):
    """Delivered a second over this minute, and the log's size at its end."""
    begun, before = time.monotonic(), world.added()
    while time.monotonic() < begun + seconds:
        tables.look()
        time.sleep(min(1.0, max(0.0, begun + seconds - time.monotonic())))
    rate = (world.added() - before) / (time.monotonic() - begun)
    size = tables.look() / 1024 / 1024
    lag = world.status()["lag"]
    world.say(f"{rate:.0f} delivered a second, log {size:.1f} MB, lag {lag}, "
              f"rotations so far {sum(tables.rotations.values())}")
    return {"rate": rate, "log_mb": size, "lag_s": lag.total_seconds() if lag else 0.0,
            "rotations": sum(tables.rotations.values())}


def run(world):
    world.redis_route(options={"maxlen": 100_000})
    minute = min(60, max(5, world.hold_seconds // 10))
    minutes = max(1, world.hold_seconds // minute)
    tables = _Tables(world)
    load = world.start_pgbench("order_event", "-c", 4, "-j", 1, "-R", RATE, "-T", minute * (minutes + 1) + 10)
    try:
        time.sleep(3)  # pgbench gets into its stride
        free = _minute(world, tables, minute)
        rotations_before = sum(tables.rotations.values())
        holder = world.cluster.connect(autocommit=False)
        with holder.cursor() as cursor:  # both a snapshot and a transaction id stay
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT pg_current_xact_id(), pg_current_snapshot()")
        held = [_minute(world, tables, minute) for _ in range(minutes)]
        dead = tables.dead()
        held_state = world.one("SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'")
        holder.rollback()
        holder.close()
        summary = world.finish_pgbench(load)
    finally:
        if load.poll() is None:
            load.kill()
            load.communicate()
    if held_state != 1:
        raise AssertionError("the transaction was not held to the end")

    detail = {"free": free, "held": held, "dead": dead, "rotations": tables.rotations,
              "most_mb": tables.most_bytes / 1024 / 1024, "pgbench": summary}
    what = f"{minute * minutes} s with a REPEATABLE READ transaction held, {RATE} events/s"
    rates = [one["rate"] for one in held]
    yield table.compare(f"{what}: delivered, held : before", [free["rate"]] * len(rates), rates, "events/s",
                        at_least=0.95, note=f"lag at most {max(one['lag_s'] for one in held):.3f} s at a minute's end",
                        detail=detail)
    in_log = sum(dead[name] for name in tables.log())
    others = ", ".join(f"{name} {count}" for name, count in sorted(dead.items())
                       if count and name not in tables.log())
    yield table.Row("  dead tuples in the log", 0, in_log, "tuples", bound="≤ 0",
                    met=in_log == 0, note=f"elsewhere: {others or 'none'}")
    during = sum(tables.rotations.values()) - rotations_before
    last = held[-1]["rotations"] - held[len(held) // 2 - 1]["rotations"] if len(held) > 1 else during
    yield table.Row("  rotations while held", rotations_before, during, "truncations", bound="≥ 1, to the end",
                    met=during > 0 and last > 0,
                    note=f"log at most {tables.most_bytes / 1024 / 1024:.1f} MB, at the end {held[-1]['log_mb']:.1f} MB")

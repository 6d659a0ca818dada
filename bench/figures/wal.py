# What it is: routes from the WAL: draining row changes and messages into a Redis stream; COMMIT to a subscriber.
# Who calls it: bench/run.
# Never: lets anything be decoded before the clock starts but what a paused route holds in memory (2 % at most).
import os
import subprocess
import time

from database import Database
from figures.latency import ORDER, RATES
from harness import load, table
from harness.world import SETTINGS, eventually
from servers import PostgresCluster

CONFIG = SETTINGS | {"wal_level": "logical", "max_replication_slots": 10,
                     "output_plugin_libraries": "'pgoutput, wal2json, pg_eventbus'"}
ROW = ("id bigint PRIMARY KEY, customer text, amount numeric, paid boolean, placed_at timestamptz DEFAULT now(), "
       "note text")


class _Wal:
    """A cluster that logs what decoding needs, with one route into a stream of the same name."""

    def __init__(self, world):
        self.world = world
        self.cluster = world.start(PostgresCluster(config=CONFIG, name="bench-wal"))
        self.db = Database(self.cluster, "bench")
        self.db.run(f"CREATE TABLE item ({ROW})")
        self.db.broker("redis", f"redis://{world.redis.socket}")
        self.next = 1

    def route(self, name, destination=None, topics="#", **options):
        self.db.route(name, "redis", destination or f"stream:{name}", topics, **options)
        self.db.wait_state(name, "active", deadline=60)

    def one_by_one(self, statement):
        """A transaction each; how fast the backlog comes about is not what is measured."""
        with self.db.connect(options="-c synchronous_commit=off").cursor() as cursor:
            cursor.execute(f"DO $$ BEGIN FOR i IN {self.next}..{self.next + self.world.events - 1} LOOP {statement}; "
                           "COMMIT; END LOOP; END $$")
        self.next += self.world.events
        return self.cluster.execute("SELECT pg_current_wal_insert_lsn()")[0][0]

    def drain(self, route, make):
        self.world.redis_client.delete(route)
        self.db.run("SELECT eventbus.pause_route(%s)", route)
        self.db.wait_state(route, "paused")
        make()
        self.cluster.execute("CHECKPOINT")
        begun = time.monotonic()
        self.db.run("SELECT eventbus.resume_route(%s)", route)
        while self.world.redis_client.xlen(route) < self.world.events:
            time.sleep(0.01)  # seldom: who looks takes the time of what is measured
            if time.monotonic() > begun + 300:
                raise AssertionError(f"the backlog of {route} was not drained within 300 s")
        took = time.monotonic() - begun
        if self.world.redis_client.xlen(route) != self.world.events:
            raise AssertionError("events too many have arrived")
        eventually(lambda: self.db.status(route)["in_flight"] == 0, 30, "everything is settled")
        self.world.redis_client.delete(route)
        return self.world.events / took

    def receive(self, slot, until):
        """pg_recvlogical into a file, until it has read everything."""
        path = os.path.join(self.cluster.directory, "received")
        program = os.path.join(subprocess.check_output(["pg_config", "--bindir"], text=True).strip(), "pg_recvlogical")
        begun = time.monotonic()
        subprocess.run([program, "-h", self.cluster.directory, "-p", str(self.cluster.port), "-U", "postgres", "-d",
                        "bench", "--slot", slot, "--start", "-f", path, "--endpos", until, "--no-loop", "-o",
                        "format-version=2", "-o", "include-transaction=false", "-o", "filter-tables=eventbus.*"],
                       check=True)
        took = time.monotonic() - begun
        with open(path, encoding="utf-8") as received:
            count = sum(1 for line in received if '"table":"item"' in line)
        os.unlink(path)
        if count != self.world.events:
            raise AssertionError(f"pg_recvlogical has received {count} changes")
        return count / took


def drain(world):
    wal = _Wal(world)
    wal.route("changes", topics="public.item.#", source="wal", messages="-*")
    wal.db.run("SELECT pg_create_logical_replication_slot('theirs', 'wal2json')")
    theirs, ours = [], []
    for _ in range(world.runs):
        end = []
        ours.append(wal.drain("changes", lambda: end.append(wal.one_by_one(
            "INSERT INTO item VALUES (i, 'customer ' || i % 1000, i * 1.25, i % 2 = 0, DEFAULT, NULL)"))))
        theirs.append(wal.receive("theirs", end[0]))
        wal.db.run("TRUNCATE item")
        wal.db.run("SELECT pg_replication_slot_advance('theirs', pg_current_wal_lsn())")
        eventually(lambda: world.redis_client.xlen("changes") == 1, 60, "the TRUNCATE is an event, too")
        world.say(f"theirs {theirs[-1]:.0f} changes/s, ours {ours[-1]:.0f} changes/s")
    yield table.compare(f"{world.events} single-row inserts from the WAL into a stream : pg_recvlogical, wal2json 2, to a file",
                        theirs, ours, "changes/s", at_least=2.0)


def messages(world):
    wal = _Wal(world)
    wal.route("logged", topics="logged.event")
    wal.route("message", topics="wal.event", source="wal", tables="-*.*")
    log_path, wal_path = [], []
    for _ in range(world.runs):
        wal_path.append(wal.drain("message", lambda: wal.one_by_one(
            f"PERFORM eventbus.publish_wal('wal.event', '{load.PAYLOAD}')")))
        log_path.append(wal.drain("logged", lambda: wal.one_by_one(
            f"PERFORM eventbus.publish('logged.event', '{load.PAYLOAD}')")))
        world.say(f"log {log_path[-1]:.0f} events/s, WAL {wal_path[-1]:.0f} events/s")
    yield table.compare(f"{world.events} publish_wal, a transaction each, into a stream : publish, from the log",
                        log_path, wal_path, "events/s", at_least=1.0)


def latency(world):
    wal = _Wal(world)
    wal.db.run(load.TABLES)
    paths = {"log": "publish", "wal": "publish_wal"}
    for path in paths:
        wal.route(path, f"channel:bench_{path}", f"bench.{path}", source=path)
    conninfo = f"host={wal.cluster.directory} port={wal.cluster.port} dbname=bench user=postgres"
    for rate, threads in RATES.items():
        medians = {path: [] for path in paths}
        for _ in range(world.runs):
            for path, function in paths.items():
                done = world.program("latency", conninfo=conninfo, socket=world.redis.socket, channel=f"bench_{path}",
                                     rate=rate, seconds=world.seconds, threads=threads,
                                     payload_bytes=len(load.PAYLOAD), notify=ORDER.format("pg_notify('bench_log', $1)"),
                                     event=ORDER.format(f"eventbus.{function}('bench.{path}', $1)"))
                if done["event"]["lost"]:
                    raise AssertionError(f"{done['event']['lost']} events did not arrive")
                medians[path].append(done["event"]["p50"])
            world.say(f"{rate}/s: log {medians['log'][-1]} µs, WAL {medians['wal'][-1]} µs (p50)")
        yield table.compare(f"COMMIT to Redis subscriber, {rate}/s, p50, publish_wal : publish, from the log",
                            medians["log"], medians["wal"], "µs", at_most=1.5)

# What it is: the servers that a figure needs (private, started when first asked for) and the hands to work them.
# Who calls it: bench/run makes one; every figure gets it.
# Never: uses a server, port or directory that it did not make.
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from functools import cached_property

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "test", "lib"))

from database import Database  # noqa: E402
from kills import kill_senders  # noqa: E402
from servers import (MosquittoServer, PostgresCluster, RabbitNode, RedisServer, eventually,  # noqa: E402
                     make_directory, remove_directory)

from harness import load  # noqa: E402

PROGRAMS = os.path.abspath(os.path.join(HERE, "..", "..", "build", "bench"))

# Everything else is as initdb leaves it; None takes a setting of the tests' clusters back.
SETTINGS = {
    "shared_preload_libraries": "'pg_eventbus'",
    "listen_addresses": "''",
    "max_wal_size": "'4GB'",  # checkpoints are made before a run, not in its middle
    "fsync": "on",
    "synchronous_commit": "on",
    "shared_buffers": None,
    "max_connections": None,
    "max_worker_processes": None,
    "max_prepared_transactions": None,
    "wal_level": None,
    "max_replication_slots": None,
}


def environment(name, default):
    return int(os.environ.get(name, default))


class World:
    runs = environment("BENCH_RUNS", 5)
    seconds = environment("BENCH_SECONDS", 6)
    hold_seconds = environment("BENCH_HOLD_SECONDS", 600)
    events = environment("BENCH_EVENTS", 1_000_000)
    amqp_events = environment("BENCH_AMQP_EVENTS", 200_000)
    mqtt_events = environment("BENCH_MQTT_EVENTS", 200_000)
    memory_events = environment("BENCH_MEMORY_EVENTS", 5_000_000)

    def __enter__(self):
        subprocess.run(["make", "-s", "-C", os.path.join(HERE, "..")], check=True)
        self.directory = make_directory("bench")
        self.started = []
        try:
            self.cluster = self.start(PostgresCluster(config=SETTINGS, name="bench-pg"))
            self.connection = self.cluster.connect()
            self.sql("CREATE EXTENSION pg_eventbus")
            self.sql("CREATE EXTENSION pgstattuple")
            self.sql(load.TABLES)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for server in reversed(self.started):
            server.remove()
        remove_directory(self.directory)

    def start(self, server):
        self.started.append(server)
        return server.start()

    @cached_property
    def redis(self):
        return self.start(RedisServer())

    @cached_property
    def redis_client(self):
        return self.redis.client()

    @cached_property
    def rabbit(self):
        return self.start(RabbitNode())

    @cached_property
    def mosquitto(self):
        return self.start(MosquittoServer({"log_type": "error", "sys_interval": 1}))

    def sql(self, text, *arguments):
        with self.connection.cursor() as cursor:
            cursor.execute(text, arguments or None)
            return cursor.fetchall() if cursor.description else []

    def one(self, text, *arguments):
        return self.sql(text, *arguments)[0][0]

    def say(self, text):
        print(f"  {text}", flush=True)

    def cluster_log_tail(self, lines=20):
        text = self.cluster.log_text().partition("starting PostgreSQL")[2].splitlines()
        text = [line for line in text if "checkpoint" not in line]
        return "the server's log ends:\n" + "\n".join(text[-lines:])

    # Brokers and routes

    def redis_route(self, destination="stream:bench", topics="#", options=None):
        """A broker on Redis' unix socket and one route to it, both named bench."""
        self.sql("SELECT eventbus.create_broker('bench', %s)", f"redis://{self.redis.socket}")
        self._route(destination, topics, options)

    def amqp_route(self, destination):
        self.sql("SELECT eventbus.create_broker('bench', %s)", self.rabbit.url)
        self._route(destination, "#", None)

    def mqtt_route(self, destination):
        self.sql("SELECT eventbus.create_broker('bench', %s)", self.mosquitto.url)
        self._route(destination, "#", None)

    def _route(self, destination, topics, options):
        self.sql("SELECT eventbus.create_route('bench', 'bench', %s, %s, %s)", destination, topics,
                 json.dumps(options or {}))
        eventually(lambda: self.status()["sender_pid"], 15, "a sender serves the route")

    def status(self):
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT * FROM eventbus.status WHERE route = 'bench'")
            return dict(zip([column.name for column in cursor.description], cursor.fetchone()))

    def added(self, stream="bench"):
        """How many entries the stream has ever got, whatever maxlen trimmed."""
        return self.redis_client.xinfo_stream(stream)["entries-added"] if self.redis_client.exists(stream) else 0

    def wait_added(self, count, deadline=120):
        eventually(lambda: self.added() >= count, deadline, f"the stream has got {count} entries")

    def clear(self):
        """After a figure: no broker, no route, nothing kept."""
        self.cluster.wait_recovered()
        self.connection.close()
        self.connection = self.cluster.connect()
        if self.sql("SELECT 1 FROM eventbus.broker WHERE name = 'bench'"):
            self.sql("SELECT eventbus.drop_broker('bench', true)")
        if "redis" in self.__dict__:
            self.redis_client.flushall()
        self.prepare()

    # Runs

    def prepare(self):
        """Before every run, ours and theirs alike: empty tables, no dirty pages, the last run's log release."""
        self.sql("TRUNCATE orders, outbox")
        deadline = time.monotonic() + 5
        while self.log_bytes() > 128 * 1024 * 1024 and time.monotonic() < deadline:
            time.sleep(0.05)
        self.sql("CHECKPOINT")

    def log_bytes(self):
        return int(self.one("SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c"
                            " WHERE c.relnamespace = 'eventbus'::regnamespace AND c.relkind = 'r'"))

    def program(self, name, **arguments):
        """Runs one of the baseline programs; what it printed."""
        command = [os.path.join(PROGRAMS, name), *(f"{key}={value}" for key, value in arguments.items())]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{name} failed: {done.stderr.strip()}")
        return json.loads(done.stdout)

    @property
    def conninfo(self):
        return f"host={self.cluster.directory} port={self.cluster.port} dbname=postgres user=postgres"

    def start_pgbench(self, script, *options, settings=""):
        path = os.path.join(self.directory, f"{script}.sql")
        with open(path, "w", encoding="utf-8") as out:
            out.write(load.SCRIPTS[script])
        pgbench = os.path.join(subprocess.check_output(["pg_config", "--bindir"], text=True).strip(), "pgbench")
        command = [pgbench, "-n", "-M", "prepared", "-f", path, "-D", f"payload={load.PAYLOAD}",
                   "-h", self.cluster.directory, "-p", str(self.cluster.port), "-U", "postgres",
                   *map(str, options), "postgres"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                env={**os.environ, "PGOPTIONS": settings})

    def finish_pgbench(self, child):
        out, err = child.communicate()
        if child.returncode != 0:
            raise RuntimeError(f"pgbench failed: {err.strip()}")
        return {"tps": float(re.search(r"^tps = ([\d.]+)", out, re.M)[1]),
                "count": int(re.search(r"actually processed: (\d+)", out)[1]),
                "latency_ms": float(re.search(r"latency average = ([\d.]+)", out)[1])}

    def pgbench(self, script, *options, settings=""):
        return self.finish_pgbench(self.start_pgbench(script, *options, settings=settings))

    def publish_batches(self, count, clients=2):
        """Publishes `count` events in transactions of 1000; returns count."""
        per_client = count // 1000 // clients
        self.pgbench("publish_1000", "-c", clients, "-j", clients, "-t", per_client)
        rest = count - per_client * 1000 * clients
        if rest:
            self.sql("SELECT count(eventbus.publish(%s, %s)) FROM generate_series(1, %s)", load.TOPIC, load.PAYLOAD,
                     rest)
        return count

    # Facts

    def describe(self):
        with open("/proc/cpuinfo", encoding="utf-8") as text:
            cpu = re.search(r"model name\s*: (.*)", text.read())
        with open("/proc/meminfo", encoding="utf-8") as text:
            memory = int(re.search(r"MemTotal:\s*(\d+)", text.read())[1]) // 1024
        shown = ["shared_buffers", "synchronous_commit", "fsync", "full_page_writes", "max_wal_size",
                 "max_worker_processes", "autovacuum"]
        settings = ", ".join(f"{name} = {self.one(f'SHOW {name}')}" for name in shown)
        return "\n".join([
            f"{time.strftime('%Y-%m-%d %H:%M')} · {os.cpu_count()} × {cpu[1] if cpu else platform.machine()}"
            f" · {memory} MB · Linux {platform.release()} · {self._idle():.0%} idle before we began"
            f" · fdatasync of 8 kB {self._fdatasync_us():.0f} µs",
            self.one("SELECT version()").split(" on ")[0]
            + f" · extension {self.one('SELECT extversion FROM pg_extension WHERE extname = %s', 'pg_eventbus')}"
            f" · {self._version('redis-server', '--version')} · rabbitmq-server {self._rabbit_version()}"
            f" · {self._version('mosquitto', '-h')}",
            f"initdb's settings except max_wal_size; {settings}",
            f"{self.runs} runs each, ours and theirs in turn; of {self.seconds} s where they are timed;"
            f" {len(load.PAYLOAD)}-byte JSON payload; CHECKPOINT before each run;"
            " ratio: median of the pairs' ratios, spread: their lowest and highest"])

    @staticmethod
    def _idle():
        """How much of the machine nobody else uses; with much less than 100 % the figures mean little."""
        def ticks():
            with open("/proc/stat", encoding="utf-8") as text:
                values = [int(value) for value in text.readline().split()[1:9]]
            return values[3] + values[4], sum(values)
        before = ticks()
        time.sleep(2)
        after = ticks()
        return (after[0] - before[0]) / (after[1] - before[1])

    def _fdatasync_us(self):
        path = os.path.join(self.directory, "fdatasync")
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        took = []
        for _ in range(200):
            os.pwrite(file, bytes(8192), 0)
            begun = time.monotonic()
            os.fdatasync(file)
            took.append(time.monotonic() - begun)
        os.close(file)
        os.unlink(path)
        return statistics.median(took) * 1e6

    @staticmethod
    def _version(*command):
        text = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout
        found = re.search(r"(?:v=|version )([\d.]+)", text)
        return f"{command[0]} {found[1] if found else '?'}"

    @staticmethod
    def _rabbit_version():
        found = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", "rabbitmq-server"], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True, check=False).stdout
        return found or "?"

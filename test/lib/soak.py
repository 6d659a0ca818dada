# What it is: the soak: servers of its own, publishers of all shapes, hands by a seed's dice, and the judgement.
# Who calls it: the live test, scripts/soak.
# Never: ends before everything was given back to rest: held transactions, paused routes, frozen brokers.
import contextlib
import os
import random
import re
import subprocess
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field

import psycopg2

import soak_faults  # noqa: F401  registers its hands
import soak_checked
import soak_judge
from brokers import RabbitNode, RedisServer
from clock import Clock
from database import Database
from mosquitto import MosquittoServer
from postgres import PostgresCluster, bin_directory
from processes import eventually
from proxy import Proxy
from soak_hands import HANDS, NotNow
from soak_load import SHAPES, Load

DISASTER = re.compile(r"PANIC|TRAP:|signal 11|signal 6\b|stuck spinlock|terminate called|invalid page|could not read block")
CONFIG = {
    # Segments that change often; WAL that is written late: an event that left before it was durable would show.
    "eventbus.rotation_period": 1, "eventbus.segment_size": "'1MB'", "wal_writer_delay": "'5s'",
    "wal_sender_timeout": 0, "max_prepared_transactions": 60, "allow_in_place_tablespaces": "on",
    "deadlock_timeout": "'200ms'", "max_wal_size": "'512MB'",
    # Autovacuum is close behind everybody, and comes against wraparound as early as it can be had.
    "autovacuum_naptime": 1, "autovacuum_vacuum_cost_delay": 0, "autovacuum_vacuum_threshold": 20,
    "autovacuum_freeze_max_age": 100000, "vacuum_freeze_table_age": 0, "vacuum_freeze_min_age": 0,
}
BUSY = (psycopg2.errors.LockNotAvailable, psycopg2.errors.DeadlockDetected, psycopg2.errors.FeatureNotSupported,
        psycopg2.errors.WrongObjectType, psycopg2.errors.ObjectInUse)
LONGEST_REST = 180  # seconds
OPTIONS = "-c lock_timeout=3s -c client_min_messages=warning"


@dataclass
class Outcome:
    seed: int
    wrong: list
    routes: list
    hands: Counter
    not_now: Counter
    shapes: Counter
    figures: dict = field(default_factory=dict)

    def text(self):
        lines = [f"seed {self.seed}: {'; '.join(f'{name} {value}' for name, value in self.figures.items())}",
                 f"{'route':12}" + "".join(f"{name:>14}" for name in list(self.routes[0])[1:])]
        lines += [f"{row['route']:12}" + "".join(f"{row[name]:14}" for name in list(row)[1:]) for row in self.routes]
        for title, counts in (("hands", self.hands), ("had no hold", self.not_now), ("transactions", self.shapes)):
            lines.append(f"{title}: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
        return "\n".join(lines + [f"WRONG: {text}" for text in self.wrong])


class Loose(threading.Thread):
    """What a hand has left to be done a while later, beside other hands; tried again while the server is away."""

    def __init__(self, seconds, action):
        super().__init__(daemon=True)
        self.seconds, self.action, self.now, self.error = seconds, action, threading.Event(), None
        self.start()

    def run(self):
        self.now.wait(self.seconds)
        end = time.monotonic() + 90
        while True:
            try:
                self.action()
                return
            except (psycopg2.OperationalError, NotNow) as error:
                if time.monotonic() > end:
                    self.error = error
                    return
                time.sleep(0.1)
            except Exception as error:  # told by whoever waits for it
                self.error = error
                return


class World:
    """hands: names of hands and of shapes of transactions; where it names none of the one kind, that kind is whole if
    it are the shapes, and empty if it are the hands. None: everything. checked: beside what soak_checked.py checks."""

    def __init__(self, seed, hands=None, checked=False):
        unknown = set(hands or ()) - HANDS.keys() - SHAPES.keys()
        assert not unknown, f"unknown hands {sorted(unknown)}; known are {sorted(HANDS)} and {sorted(SHAPES)}"
        self.seed, self.dice = seed, random.Random(seed)
        self.hands = [name for name in HANDS if hands is None or name in hands]
        self.shapes = [name for name in SHAPES if name in (hands or ())] or list(SHAPES)
        self.checked, self.beside = checked, None
        self.acts, self.loose, self.wrong, self.stopping = [], [], [], threading.Event()
        self.done, self.not_now, self.figures = Counter(), Counter(), Counter()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.clock = stack.enter_context(Clock())
            config, initdb = ({**CONFIG, **soak_checked.CONFIG}, soak_checked.INITDB) if self.checked else (CONFIG, ())
            self.postgres = stack.enter_context(PostgresCluster(config=config, environment=self.clock.environment,
                                                                initdb=initdb))
            self.redis = stack.enter_context(RedisServer.durable())
            self.rabbit = stack.enter_context(RabbitNode())
            self.mosquitto = stack.enter_context(MosquittoServer(
                # Unlimited, packet ids would be used twice once a slow subscriber has 65 535 of them.
                {"max_inflight_messages": 1000}, durable=True))
            servers = {"redis": self.redis, "rabbit": self.rabbit, "mosquitto": self.mosquitto}
            self.proxies = {name: stack.enter_context(Proxy(server.port)) for name, server in servers.items()}
            if self.checked:
                self.beside = stack.enter_context(soak_checked.Beside(self.postgres))
            self.arrivals = soak_judge.Arrivals(self)
            self.arrivals.listen([stack.enter_context(self.mosquitto.recorder(topics, f"soak{qos}", qos))
                                  for qos, topics in self.arrivals.topics().items()])
            self._configure(servers)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.stack.close()

    def _configure(self, servers):
        self.db = Database(self.postgres, "soak")
        self.load = Load(self.db, self.seed, self.shapes)
        self.db.run("CREATE TABLESPACE elsewhere LOCATION ''")
        self.db.run("CREATE ACCESS METHOD heap_too TYPE TABLE HANDLER heap_tableam_handler")
        self.db.run("SELECT eventbus.capture('item', topic => '{schema}.{table}.{op}')")
        for queue in soak_judge.AMQP.values():
            self.rabbit.declare(queue)
        for name, server in servers.items():
            self.db.broker(name, server.url.replace(str(server.port), str(self.proxies[name].port)))
        self.routes = {**{route: ("redis", f"{kind}:{key}", {}) for route, (kind, key) in soak_judge.REDIS.items()},
                       **{route: ("rabbit", f"queue:{queue}", {}) for route, queue in soak_judge.AMQP.items()},
                       **{route: ("mosquitto", f"topic:{topic}", {"qos": int(topic[-1])})
                          for route, topic in soak_judge.MQTT.items()}}
        for route, (broker, destination, options) in self.routes.items():
            if route.startswith("wal_"):
                options = {**options, "source": "wal", "tables": "public.item", "messages": "soak.*"}
            self.db.route(route, broker, destination, "soak.#, public.item.#", **options)
        for route in self.routes:
            self.db.wait_state(route, "active", deadline=60)

    # What hands are made of

    def sql(self, sql, *arguments):
        return self._run(sql, arguments)[0]

    def told(self, sql):
        """What the server tells a client that runs this."""
        return "".join(self._run(sql, ())[1])

    def _run(self, sql, arguments):
        connection = self.db.connect(options=OPTIONS, application_name="soak hand")
        connection.notices = deque()  # of a list it keeps fifty
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, arguments or None)
                return cursor.fetchall() if cursor.description else [], connection.notices
        except BUSY as error:
            raise NotNow(type(error).__name__) from error
        finally:
            connection.close()

    def program(self, name, *arguments):
        done = subprocess.run([os.path.join(bin_directory(), name), *(
            [] if "-l" in arguments else ["-h", self.postgres.directory, "-p", str(self.postgres.port), "-U",
                                          self.postgres.superuser]), *arguments],
            env={**os.environ, "PGOPTIONS": OPTIONS}, capture_output=True, text=True)
        if done.returncode and re.search("lock timeout|deadlock detected|not supported", done.stderr):
            raise NotNow(f"{name}: a lock, or not supported")
        assert done.returncode == 0, f"{name} {arguments}: {done.stderr}"
        return done.stdout + done.stderr

    def db_status(self, route):
        rows = self.sql("SELECT state, delivered, dead, in_flight, lag > '0' FROM eventbus.status WHERE route = %s", route)
        return dict(zip(("state", "delivered", "dead", "in_flight", "lags"), rows[0])) if rows else None

    def publish_many(self, count, commit=True, wait=True):
        """In one transaction, on a session of its own."""
        first = self.load.number(count)
        connection = self.db.connect(autocommit=False)
        with connection.cursor() as cursor:
            cursor.execute(f"""INSERT INTO sent SELECT u, 'l', 'many', u, 'many', eventbus.publish('soak.many',
                jsonb_build_object('u', u, 'k', 'many', 'n', u), 'many') FROM generate_series({first}, {first + count - 1}) u""")
        (connection.commit if commit else connection.rollback)()
        connection.close()

    def terminate(self, like):
        gone = self.sql("SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE %s", like)
        if not gone:
            raise NotNow("nobody is there")
        eventually(lambda: not self.sql("SELECT 1 FROM pg_stat_activity WHERE pid = ANY (%s)", [pid for pid, _ in gone]),
                   30, f"{like} obeys SIGTERM")

    def await_launcher(self):
        eventually(lambda: self.sql("SELECT 1 FROM pg_stat_activity WHERE backend_type = 'pg_eventbus launcher'"), 30,
                   "the launcher is there again")

    def flows(self):
        """Delivery continues."""
        client = self.redis.client()
        before = client.xlen("s")
        eventually(lambda: client.xlen("s") > before, 60, "delivery resumes")

    def patiently(self, action, tries=20):
        for left in reversed(range(tries)):
            try:
                return action()
            except NotNow:
                if not left:
                    raise

    def wait(self, seconds):
        self.stopping.wait(seconds)

    def later(self, seconds, action):
        self.loose.append(Loose(seconds, action))

    def loosen(self):
        """What hands have left to be done later is done now."""
        for loose in self.loose:
            loose.now.set()
        for loose in self.loose:
            loose.join()
        errors = [loose.error for loose in self.loose if loose.error]
        self.loose = []
        if errors:
            raise AssertionError(f"what a hand had left to do failed: {errors}") from errors[0]

    # The run

    def act(self, name):
        act = {"hand": name, "from": self.load.last, "at": time.monotonic(), "wall": time.time()}
        self.acts.append(act)
        try:
            HANDS[name][2](self)
            self.done[name] += 1
        except NotNow as reason:
            self.not_now[f"{name} ({reason})"] += 1
        except psycopg2.OperationalError:
            self.not_now[f"{name} (no connection)"] += 1
            self.postgres.wait_recovered()  # the last hand was not over yet
        except AssertionError as error:
            self.wrong.append(f"hand {name}: {error}; {self._who_waits()}")
            self.postgres.wait_recovered()
        act["seconds"] = time.monotonic() - act["at"]

    def _who_waits(self):
        try:
            return "; ".join(f"{who}: {waits} ({query})" for who, waits, query in self.sql(
                """SELECT coalesce(nullif(application_name, ''), backend_type), concat_ws('/', state, wait_event_type, wait_event),
                    left(query, 100) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND wait_event IS NOT NULL"""))
        except psycopg2.Error as error:
            return f"nobody can be asked: {error}"

    def run(self, seconds):
        weights = [HANDS[name][0] for name in self.hands]
        begun = time.monotonic()
        self.load.start()
        try:
            while time.monotonic() < begun + seconds and not self.wrong:
                if self.hands:
                    self.act(self.dice.choices(self.hands, weights)[0])
                self.wait(self.dice.random() * (0.5 if self.hands else 1))
        finally:
            self.loosen()
            for server in (self.redis, self.rabbit, self.mosquitto):
                server.thaw()
            self.load.stop()
        self.figures["seconds"] = round(time.monotonic() - begun)
        return self._judged()

    def _judged(self):
        begun = time.monotonic()
        self.postgres.wait_recovered()
        for name in ("batch_events", "rotation_period", "safety_poll", "segment_size"):
            self.sql(f"ALTER SYSTEM RESET eventbus.{name}")
        self.sql("SELECT pg_reload_conf()")
        committed = self.load.committed()
        late = self._rest({route: len(soak_judge.expected(committed, route)) for route in self.routes})
        self.figures["until rest, s"] = round(time.monotonic() - begun)
        taken = self.arrivals.take()
        faults = sum(count for name, count in self.done.items() if HANDS[name][1])
        routes, wrong = soak_judge.judge(committed, taken, faults, self.acts, self.arrivals.moments)
        wrong = self.wrong + late + wrong
        dead = self.sql("SELECT route, error, count(*) FROM eventbus.dead_letter GROUP BY 1, 2")
        wrong += [f"{route}: {count} dead letters: {error}" for route, error, count in dead]
        found = [line for line in self.postgres.log_text().splitlines() if DISASTER.search(line) and "signal 9" not in line]
        wrong += [f"the server's log: {line}" for line in found[:5]]
        if self.beside:
            self.figures.update(self.beside.figures())
            wrong += self.beside.wrong()
        figures = {"published": self.load.last, "committed": len(committed),
                   "rolled back": self.load.last - len(committed), "faults": faults, "dead letters": len(dead),
                   "last hands": " ".join(act["hand"] for act in self.acts[-3:])}
        return Outcome(self.seed, wrong, routes, self.done, self.not_now, self.load.counts,
                       {**self.figures, **figures})

    def _rest(self, wanted):
        """Waits until everything has arrived, or nothing more comes although nobody is behind, or for long. What is
        wrong with it as texts."""
        last, begun = None, time.monotonic()
        since = begun
        while True:
            counts = self.arrivals.counts()
            behind = [route for route, count in wanted.items() if counts[route] < count]
            states = {route: self.db_status(route) for route in self.routes}
            busy = [route for route, state in states.items() if state["lags"] or state["in_flight"]]
            if not behind and not busy:
                return []
            if (counts, states) != last:
                last, since = (counts, states), time.monotonic()
            if time.monotonic() - since > (30 if busy else 10) or time.monotonic() - begun > LONGEST_REST:
                errors = re.findall(r"ERROR:  .*", self.postgres.log_text())[-1:] if busy else []
                return [f"{route} does not come to rest: {states[route]}, {counts[route]} of {wanted[route]}; the server's "
                        f"last error was {errors}" for route in busy]
            self.wait(0.3)


def soak(seed, seconds, hands=None, checked=False):
    with World(seed, hands, checked) as world:
        return world.run(seconds)

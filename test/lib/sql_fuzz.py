# What it is: the fuzzer of what SQL reaches: every function of ours, triggers, event triggers and the output plugin, by
# roles and transactions of all kinds, beside senders that deliver what comes of it; and what must never come of it.
# Who calls it: the live test, scripts/fuzz-sql.
# Never: continues with a server that has crashed; forgives an internal error without a reason (FORGIVEN).
import contextlib
import random
import re
import threading
import time
from collections import Counter, deque

import psycopg2

from brokers import RedisServer
from database import Database
from mosquitto import MosquittoServer
from postgres import PostgresCluster
from processes import eventually
from sql_fuzz_acts import ACTS, SCHEMA, TABLES
from sql_fuzz_values import WORDS, Values

CONFIG = {
    "eventbus.rotation_period": 1, "eventbus.segment_size": "'1MB'", "max_wal_size": "'1GB'",
    "log_min_messages": "warning",
    # The SQLSTATE tells what happened in workers as well.
    "log_line_prefix": "'%m [%p] %e %b '", "max_prepared_transactions": 20,
}
# Who, and how often.
ROLES = {"postgres": 8, "fuzz_publisher": 2, "fuzz_operator": 3, "fuzz_replicator": 2, "fuzz_owner": 3,
         "fuzz_monitor": 1, "fuzz_nobody": 1}
STRANGERS = [role for role in ROLES if role != "postgres"]
GRANTS = """
GRANT USAGE ON SCHEMA eventbus TO fuzz_publisher, fuzz_operator, fuzz_owner;
SELECT eventbus.grant_publisher('fuzz_publisher');
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA eventbus TO fuzz_operator;
GRANT SELECT ON eventbus.event, eventbus.dead_letter, eventbus.status, eventbus.broker, eventbus.route TO fuzz_operator;
GRANT EXECUTE ON FUNCTION eventbus.capture, eventbus.uncapture, eventbus.publish_change TO fuzz_owner;
ALTER TABLE fuzz.t OWNER TO fuzz_owner;
ALTER TABLE fuzz."odd ""name""." OWNER TO fuzz_owner;
"""
BEGINS = ["", "", "BEGIN", "BEGIN", "BEGIN ISOLATION LEVEL SERIALIZABLE", "BEGIN ISOLATION LEVEL REPEATABLE READ",
          "BEGIN READ ONLY",
          "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY"]
OPTIONS = "-c statement_timeout=3s -c lock_timeout=500ms -c idle_in_transaction_session_timeout=0"
CRASH = re.compile(r"was terminated by signal|PANIC|TRAP:|stuck spinlock|terminate called|reinitializing|invalid page")
INTERNAL = re.compile(r"\[\d+\] (XX\w{3}) ")
LONGEST = 60  # seconds of a statement, whose timeout is 3
# Rights, a transaction that has failed before, what the session's own limits cut short, and a schema that is gone.
NO_FAULT_OF_A_VIEW = ("42501", "25P02", "40", "53", "54", "57014", "55P03", "42P01", "42883", "3F000")
# Internal errors that are PostgreSQL's own: a pattern of the message, and why it is not ours.
FORGIVEN = {}


def shortened(sql):
    return sql if len(sql) < 4000 else f"{sql[:2000]} ... {sql[-1900:]}"


class Session:
    """A connection of one role to one database."""

    def __init__(self, world, database, role):
        self.world, self.database, self.role = world, database, role
        self.history = deque(maxlen=30)
        self.connect()

    def connect(self):
        self.connection = self.database.connect(user=self.role, options=OPTIONS, client_encoding=self.database.shown_in)
        self.in_transaction = self.careful = False

    def run(self, sql):
        """True where it succeeded. Of a careful transaction an error takes back no more than its statement."""
        if not self.careful or self.failed():
            return self._run(sql)
        self._run("SAVEPOINT before")
        fine = self._run(sql)
        if self.failed():
            self._run("ROLLBACK TO before")
        return fine

    def show(self, *views):
        """Views answer whoever may ask, whatever stands behind them."""
        for view in views:
            fine = self.run(f"SELECT * FROM eventbus.{view}")
            if not fine and not self.last_error.pgcode.startswith(NO_FAULT_OF_A_VIEW):
                self.world.tell(self, f"a view that fails, {self.last_error.pgcode}: {self.last_error}", view)

    def failed(self):
        return self.connection.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_INERROR

    def _run(self, sql):
        world = self.world
        self.history.append(sql)
        world.count += 1
        world.running = (time.monotonic(), self, sql)
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(sql.encode())
            return True
        except psycopg2.Error as error:
            self._judge(error, sql)
            return False
        finally:
            world.running = None
            self.connection.notices.clear()

    def run_aside(self, *statements, show=()):
        """What is not to last: rolled back, whatever it did."""
        own = not self.in_transaction
        self._run("BEGIN" if own else "SAVEPOINT aside")
        for statement in statements:
            self.run(statement)
        self.show(*show)
        self._run("ROLLBACK" if own else "ROLLBACK TO aside")

    def _judge(self, error, sql):
        world = self.world
        self.last_error = error
        world.errors[error.pgcode] += 1
        if self.connection.closed or error.pgcode is None:
            world.tell(self, f"the connection is lost: {error}", sql)
        elif error.pgcode.startswith("XX"):
            if not any(re.search(pattern, str(error)) for pattern in FORGIVEN):
                world.tell(self, f"an internal error, {error.pgcode}: {error}", sql)
        elif not (error.diag.message_primary or "").strip():
            world.tell(self, f"an error without a message, {error.pgcode}", sql)

    def begin(self, how, careful):
        self.in_transaction, self.careful = self._run(how), careful

    def end(self, how):
        self.careful = False
        if how == "PREPARE":
            how = self.world.dice.choice(["COMMIT PREPARED 'fuzz'", "ROLLBACK PREPARED 'fuzz'"])
            if not self._run("PREPARE TRANSACTION 'fuzz'"):
                how = "ROLLBACK"
        self._run(how)
        if self.connection.info.transaction_status != psycopg2.extensions.TRANSACTION_STATUS_IDLE:
            self._run("ROLLBACK")
        self.in_transaction = False

    def text(self):
        return "\n".join(f"    {shortened(sql)};" for sql in self.history)


class World:
    def __init__(self, seed, brokers):
        self.seed, self.dice, self.brokers = seed, random.Random(seed), brokers
        self.wrong, self.errors, self.acts = [], Counter(), Counter()
        self.count, self.running, self.over = 0, None, threading.Event()
        self.names = {"table": list(TABLES), "role": list(STRANGERS), "route": ["all", "r", 'odd "r".', "fuzz_wal"],
                      "broker": ["b", "redis", 'odd "b".', "état"]}
        self.values = Values(self.dice, self.names)

    def tell(self, session, what, sql):
        where = f"{session.role} in {session.database.name}, statement {self.count}"
        self.wrong.append(f"{where}: {what}\n{shortened(sql)}\n  after\n{session.text()}")

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.cluster = stack.enter_context(PostgresCluster(config=CONFIG, name="fuzz"))
            self.redis = stack.enter_context(RedisServer())
            self.urls = {"redis": (self.redis.url, "stream:{topic}")}
            if self.brokers:
                server = stack.enter_context(MosquittoServer({"allow_anonymous": "true"}))
                self.urls["mosquitto"] = (server.url, "topic:{topic/}")
            for role in STRANGERS:
                self.cluster.execute(f"CREATE ROLE {role} LOGIN {'REPLICATION' if role == 'fuzz_replicator' else ''}")
            self.cluster.execute("GRANT fuzz_operator TO fuzz_replicator; GRANT pg_monitor TO fuzz_monitor; "
                                 "GRANT fuzz_publisher TO fuzz_owner")
            self.databases = [self._database("fuzz_utf8", "UTF8"), self._database("fuzz_ascii", "SQL_ASCII"),
                              self._database("fuzz_latin", "LATIN1")]
            self.sessions = [Session(self, database, role) for database in self.databases for role in ROLES]
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.stack.close()

    def _database(self, name, encoding):
        self.cluster.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
        database = Database(self.cluster, name, create=False)
        # Whatever bytes come back from a database without an encoding, LATIN1 has characters for them.
        database.shown_in = "LATIN1" if encoding == "SQL_ASCII" else "UTF8"
        database.connection.set_client_encoding("UTF8")
        database.run(SCHEMA)
        database.connection.set_client_encoding(database.shown_in)
        database.run(GRANTS)
        for role in ROLES:
            database.run(f"SET ROLE {role}")
            database.run(f"CREATE FUNCTION fuzz.as_{role}(call text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS "
                         "$$ DECLARE got text; BEGIN EXECUTE 'SELECT ' || call INTO got; RETURN got; END $$")
            database.run("RESET ROLE")
        for broker, (url, destination) in self.urls.items():
            database.broker(broker, url)
            database.route("all" if broker == "redis" else f"all_{broker}", broker, destination, "#")
        database.route("fuzz_wal", "redis", "stream:wal-{topic}", "#", source="wal")
        database.route("good", "redis", f"stream:good-{name}", "good.only")
        database.route("good_wal", "redis", f"stream:good-wal-{name}", "good.only", source="wal")
        for route in ("good", "good_wal"):
            database.wait_state(route, "active", deadline=120)
        database.run("SELECT pg_create_logical_replication_slot(%s, 'pg_eventbus')", f"slot_{name}")
        return database

    def slot(self, session):
        return f"slot_{session.database.name}"

    def learn(self):
        """What there is to be called."""
        database = self.databases[0]
        rows = database.run("""
            SELECT p.proname::text, p.prorettype::regtype::text, p.pronargdefaults,
                   coalesce(p.proargnames, '{}')::text[],
                   ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY a (t, n) ORDER BY n)
            FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
                JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
            WHERE e.extname = 'pg_eventbus'
            ORDER BY p.oid::regprocedure::text COLLATE "C" """)
        self.functions = [(name, list(zip(names, types)), defaults) for name, _, defaults, names, types in rows]
        self.triggers = [name for name, result, *_ in rows if result == "trigger"]
        self.event_triggers = [name for name, result, *_ in rows if result == "event_trigger"]
        self.views = [row[0] for row in database.run(
            "SELECT viewname::text FROM pg_views WHERE schemaname = 'eventbus' ORDER BY 1")]
        assert len(self.functions) > 30 and self.triggers and self.event_triggers and len(self.views) > 6

    # The run

    def watch(self):
        """A statement that obeys neither its timeout nor anything else ends with the server."""
        while not self.over.wait(1):
            running = self.running
            if running and time.monotonic() - running[0] > LONGEST:
                self.tell(running[1], f"has not ended within {LONGEST} s", running[2])
                self.cluster.stop("immediate")
                return

    def round(self):
        dice = self.dice
        session = dice.choices(self.sessions, [ROLES[session.role] for session in self.sessions])[0]
        if not session.in_transaction and (begin := dice.choice(BEGINS)):
            session.begin(begin, careful=dice.random() < 0.8)
        weights = [weight if session.role == "postgres" or not superuser else 0.1 for weight, superuser,
                   _ in ACTS.values()]
        for _ in range(dice.randint(1, 4)):
            saved = session.in_transaction and dice.random() < 0.4
            if saved:
                session.run("SAVEPOINT s")
            name = dice.choices(list(ACTS), weights)[0]
            self.acts[name] += 1
            ACTS[name][2](session, self.values)
            if self.wrong:
                return
            if saved:
                session.run(dice.choice(["ROLLBACK TO s", "RELEASE s"]))
            if session.failed() and dice.random() < 0.7:
                break
        if session.in_transaction and dice.random() < 0.8:
            session.end(dice.choice(["COMMIT", "COMMIT", "ROLLBACK", "PREPARE"]))

    def tidy(self):
        """What stays of committed rounds is bounded: brokers have processes; roles, shapes and settings come back."""
        for session in self.sessions:
            if session.in_transaction:
                session.end("COMMIT")
            session.run("DISCARD ALL")
            session.run("SET SESSION AUTHORIZATION DEFAULT; RESET ALL")
        for database in self.databases:
            for gid, in database.run("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"):
                database.run(f"ROLLBACK PREPARED '{gid}'")
            for name, in database.run("SELECT name FROM eventbus.broker_config WHERE name <> ALL (%s)",
                                      list(self.urls)):
                database.run("SELECT eventbus.drop_broker(%s, true)", name)
            for name, in database.run("SELECT name FROM eventbus.route_config WHERE name !~ '^(all|good|fuzz_wal)'"):
                database.run("SELECT eventbus.drop_route(%s)", name)
            database.run("DELETE FROM eventbus.topic_grant")
            database.run("SELECT eventbus.discard()")
            database.run("SELECT pg_replication_slot_advance(%s, pg_current_wal_flush_lsn())", f"slot_{database.name}")

    def run(self, seconds):
        watcher = threading.Thread(target=self.watch, daemon=True)
        watcher.start()
        self.learn()
        end, rounds = time.monotonic() + seconds, 0
        while time.monotonic() < end and not self.wrong:
            self.round()
            rounds += 1
            if rounds % 100 == 0 and not self.wrong:
                self.tidy()
            if rounds % 20 == 0:
                self._crashed()
        if not self.wrong:
            self._afterwards()
        self.over.set()
        self._crashed()
        return self.wrong

    def _crashed(self):
        """What the server's log tells of crashes, and of internal errors in workers."""
        for line in self.cluster.log_text().splitlines():
            found = INTERNAL.search(line)
            if CRASH.search(line) or (found and " client backend " not in line
                                      and not any(re.search(pattern, line) for pattern in FORGIVEN)):
                self.wrong.append(f"the server's log: {line[:1000]}")
                return

    def _afterwards(self):
        """Every view answers, and what is good is delivered."""
        self.tidy()
        for session in self.sessions:
            session.connection.close()
        for database in self.databases:
            asker = Session(self, database, "postgres")
            asker.show(*self.views, "health()")
            asker.connection.close()
            event = database.publish("good.only", {"n": 1})
            database.run("SELECT eventbus.publish_wal('good.only', '1')")
            for key in (f"good-{database.name}", f"good-wal-{database.name}"):
                try:
                    eventually(lambda: self.redis.client().xlen(key) > 0, 60, f"stream {key} has something")
                except AssertionError as error:
                    self.wrong.append(f"{error}; status is {database.rows('SELECT * FROM eventbus.status')}")
                    return
            assert [int(entry["id"]) for entry in self.redis.stream(f"good-{database.name}")][-1] == event

    def text(self):
        acts = ", ".join(f"{name} {count}" for name, count in sorted(self.acts.items()))
        errors = ", ".join(f"{code} {count}" for code, count in self.errors.most_common())
        return "\n".join([f"seed {self.seed}: {self.count} statements", f"acts: {acts}", f"errors: {errors}",
                          *(f"WRONG: {text}" for text in self.wrong)])


def fuzz(seed, seconds, brokers=False):
    """Prints its seed before anything can go wrong; returns what was wrong as a text and the whole as another."""
    print(f"SQL fuzzer: seed {seed}", flush=True)
    with World(seed, brokers) as world:
        world.run(seconds)
        return world

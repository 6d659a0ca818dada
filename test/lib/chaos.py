# What it is: writers that do whatever transactions may do, hands that disturb them, and what a slot says of it afterwards.
# Who calls it: test_wal_chaos.py.
# Never: takes its own word for what has committed: that is what the slot of the plugin is read for.
import io
import json
import os
import random
import signal
import threading
import time
from contextlib import closing

import psycopg2

from processes import eventually

TABLES = ["plain", "wide", "other"]


class Writer(threading.Thread):
    """One connection; each error (a lock, a deadlock, the server's restart) only ends a transaction."""

    def __init__(self, chaos, seed, number):
        super().__init__(daemon=True)
        self.chaos, self.dice, self.number, self.connection = chaos, random.Random(f"{seed}-{number}"), number, None
        self.transactions, self.prepared, self.counter = 0, [], 0

    def run(self):
        while not self.chaos.over.is_set():
            try:
                if self.connection is None or self.connection.closed:
                    self.connection = self.chaos.connect()
                    self.connection.cursor().execute("SET lock_timeout = '2s'; SET deadlock_timeout = '200ms'")
                with self.connection.cursor() as cursor:
                    self._transaction(cursor)
                self.transactions += 1
            except psycopg2.Error:
                self._roll_back()
                self.chaos.over.wait(0.05)
        if self.connection is not None:
            self.connection.close()

    def _roll_back(self):
        try:
            self.connection.cursor().execute("ROLLBACK")
        except (psycopg2.Error, AttributeError):
            self.connection = None

    def _transaction(self, cursor):
        if self.prepared and self.dice.random() < 0.3:
            name = self.prepared.pop(self.dice.randrange(len(self.prepared)))
            cursor.execute(f"{self.dice.choice(['COMMIT', 'COMMIT', 'ROLLBACK'])} PREPARED '{name}'")
            return
        cursor.execute("BEGIN")
        for _ in range(self.dice.randint(1, 5)):
            self._step(cursor)
        end = self.dice.random()
        if end < 0.12:
            self.counter += 1
            name = f"{self.number}-{self.counter}"
            cursor.execute(f"PREPARE TRANSACTION '{name}'")
            self.prepared.append(name)
        else:
            cursor.execute("COMMIT" if end < 0.9 else "ROLLBACK")

    def _step(self, cursor):
        self.dice.choices([self._change, self._message, self._many, self._savepoint, self._exception, self._copy,
                           self._truncate, self._alter, self._table], [30, 20, 3, 12, 6, 4, 1, 2, 2])[0](cursor)

    def _table_name(self):
        return self.dice.choice(TABLES)

    def _change(self, cursor):
        table, key = self._table_name(), self.dice.randint(1, 200)
        cursor.execute(self.dice.choice([
            f"INSERT INTO {table} VALUES ({key}, repeat('x', {self.dice.randint(0, 50)})) ON CONFLICT (id) DO UPDATE SET words = 'again'",
            f"UPDATE {table} SET words = 'changed {self.dice.random()}' WHERE id = {key}",
            f"UPDATE {table} SET id = id + 1000 WHERE id = {key}",
            f"DELETE FROM {table} WHERE id = {key}"]))

    def _message(self, cursor):
        self.counter += 1
        content = json.dumps(f"{self.number} {self.counter}")
        kind = self.dice.random()
        if kind < 0.5:
            cursor.execute("SELECT eventbus.publish_wal('chaos.own', %s::jsonb, %s)", (content, str(self.dice.randint(1, 9))))
        elif kind < 0.8:
            cursor.execute("SELECT pg_logical_emit_message(true, 'chaos.foreign', %s)", (content,))
        else:
            cursor.execute("SELECT eventbus.publish_now('chaos.now', %s::jsonb)", (content,))

    def _many(self, cursor):
        """More than is decoded in one piece."""
        first = self.dice.randint(10000, 1000000)
        cursor.execute(f"INSERT INTO {self._table_name()} SELECT g, repeat('y', 900) FROM generate_series({first}, {first + 3500}) g "
                       "ON CONFLICT (id) DO NOTHING")

    def _savepoint(self, cursor):
        cursor.execute("SAVEPOINT s")
        for _ in range(self.dice.randint(1, 3)):
            self.dice.choice([self._change, self._message, self._message])(cursor)
        if self.dice.random() < 0.5:
            cursor.execute("ROLLBACK TO s")
        elif self.dice.random() < 0.5:
            cursor.execute("RELEASE s")

    def _exception(self, cursor):
        rows = self.dice.choice([3, 3, 3000])
        cursor.execute(f"""DO $$ BEGIN
            PERFORM eventbus.publish_wal('chaos.own', '"begun"', 'x');
            BEGIN
                INSERT INTO other SELECT g, repeat('z', 900) FROM generate_series(2000000, 2000000 + {rows}) g ON CONFLICT (id) DO NOTHING;
                PERFORM eventbus.publish_wal('chaos.own', '"half"', 'x');
                IF random() < 0.5 THEN RAISE EXCEPTION 'undone'; END IF;
            EXCEPTION WHEN raise_exception THEN NULL; END;
            PERFORM eventbus.publish_wal('chaos.own', '"done"', 'x');
            DELETE FROM other WHERE id >= 2000000;
        END $$""")

    def _copy(self, cursor):
        first = self.dice.randint(3000000, 9000000)
        rows = "".join(f"{first + n}\tcopied\n" for n in range(self.dice.randint(1, 300)))
        cursor.copy_expert(f"COPY {self._table_name()} (id, words) FROM STDIN", io.StringIO(rows))

    def _truncate(self, cursor):
        cursor.execute("TRUNCATE plain, other")

    def _alter(self, cursor):
        table = self._table_name()
        cursor.execute(self.dice.choice([
            f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS extra int DEFAULT {self.dice.randint(1, 9)}",
            f"ALTER TABLE {table} DROP COLUMN IF EXISTS extra",
            f"ALTER TABLE {table} ALTER words TYPE varchar", f"ALTER TABLE {table} ALTER words TYPE text",
            "GRANT USAGE ON SCHEMA public TO PUBLIC", f"GRANT SELECT ON {table} TO PUBLIC"]))

    def _table(self, cursor):
        self.counter += 1
        name = f"made_{self.number}_{self.counter}"
        cursor.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, words text)")
        cursor.execute(f"INSERT INTO {name} SELECT g, 'made' FROM generate_series(1, 5) g")
        if self.dice.random() < 0.7:
            cursor.execute(f"DROP TABLE {name}")


class Chaos:
    """Writers and hands, for so many seconds."""

    def __init__(self, database, name, seed, seconds, writers=3):
        self.db, self.name, self.seconds = database, name, seconds
        self.over, self.dice, self.done = threading.Event(), random.Random(f"{seed}-hands"), []
        self.writers = [Writer(self, seed, number) for number in range(writers)]
        self.passing = 0

    def connect(self):
        return self.db.connect()

    def sql(self, *statements, arguments=None):
        """Each in a transaction of its own; the last one's rows."""
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement, arguments)
            return cursor.fetchall() if cursor.description else []

    def run(self):
        for writer in self.writers:
            writer.start()
        deadline = time.monotonic() + self.seconds
        while time.monotonic() < deadline:
            self.over.wait(self.dice.uniform(0.1, 0.8))
            hand = self.dice.choices([self.end_sender, self.end_decoder, self.kill_decoder, self.kill_backend, self.pause,
                                      self.route, self.checkpoint, self.rewrite], [4, 6, 1, 1, 4, 3, 2, 1])[0]
            try:
                hand()
                self.done.append(hand.__name__)
            except psycopg2.Error:
                pass  # the server restarts, or somebody has a lock
        self.over.set()
        for writer in self.writers:
            writer.join(60)
        eventually(self._no_prepared, 60, "prepared transactions end")
        eventually(lambda: self.sql("SELECT eventbus.resume_route(route) FROM eventbus.status"), 60, "all routes continue")

    def _no_prepared(self):
        try:
            for (name,) in self.sql("SELECT gid FROM pg_prepared_xacts"):
                self.sql(f"ROLLBACK PREPARED '{name}'")
            return True
        except psycopg2.Error:
            return False

    def _pids(self, kind):
        return [pid for (pid,) in self.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = %s AND datname = %s",
                                          arguments=(kind, self.db.name))]

    def end_sender(self):
        for pid in self._pids("pg_eventbus sender"):
            self.sql(f"SELECT pg_terminate_backend({pid})")

    def end_decoder(self):
        for pid in self._pids("pg_eventbus decoder"):
            self.sql(f"SELECT pg_terminate_backend({pid})")

    def _kill(self, pids):
        if not pids:
            return
        os.kill(self.dice.choice(pids), signal.SIGKILL)
        self.over.wait(0.2)
        eventually(self._answers, 60, "the server is back")

    def _answers(self):
        try:
            return bool(self.sql("SELECT 1"))
        except psycopg2.Error:
            return False

    def kill_decoder(self):
        self._kill(self._pids("pg_eventbus decoder"))

    def kill_backend(self):
        self._kill(self._pids("client backend")[:1])

    def pause(self):
        self.sql("SELECT eventbus.pause_route('some')")
        self.over.wait(self.dice.uniform(0.1, 1.5))
        self.sql("SELECT eventbus.resume_route('some')")

    def route(self):
        """One that comes and goes; its stream stays."""
        if self.sql("SELECT 1 FROM eventbus.route WHERE name = 'passing'"):
            self.sql("SELECT eventbus.drop_route('passing')")
            return
        self.passing += 1
        self.sql(f"SELECT eventbus.create_route('passing', 'first', 'stream:{self.name}-passing-{self.passing}', '#', "
                 "'{\"source\": \"wal\", \"format\": \"wal2json\"}')")

    def checkpoint(self):
        self.sql("CHECKPOINT")

    def rewrite(self):
        self.sql("SET lock_timeout = '1s'", self.dice.choice(["VACUUM FULL eventbus.cursor", "VACUUM FULL plain",
                                                              "VACUUM pg_class", "REINDEX TABLE wide"]))


def expected(rows):
    """What a slot says that was read with wal2json's format 2, transactions and LSNs: (id, topic, payload) in order; of
    messages of no transaction, which have the place of their end there, only topic and payload."""
    events, lone, commit, number = [], [], None, 0
    for (data,) in rows:
        said = json.loads(bytes(data).decode(errors="replace"), strict=False)
        action = said["action"]
        if action == "B":
            commit, number = said["lsn"], 0
            continue
        if action == "C":
            commit = None
            continue
        if action == "M" and not said["transactional"]:
            lone.append(content_of(said))
            continue
        number += 1
        ident = f"{commit}-{number}"
        if action == "M":
            events.append((ident, *content_of(said)))
            continue
        verb = {"I": "insert", "U": "update", "D": "delete", "T": "truncate"}[action]
        said.pop("lsn", None)
        said.pop("xid", None)
        if said["schema"] != "eventbus":
            events.append((ident, f"{said['schema']}.{said['table']}.{verb}", said))
    return events, lone


def content_of(message):
    """Topic and payload of a message, ours or anybody's; ours has its topic within."""
    if message["prefix"] != "pg_eventbus":
        return message["prefix"], json.loads(message["content"])
    topic = next(t for t in ("chaos.own", "chaos.now") if t in message["content"])
    return topic, json.loads('"' + message["content"].split('"')[-2] + '"')

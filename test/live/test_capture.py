# What it is: captured tables end to end: a consumer that applies the events has the table; dumps bring captures back.
# Who calls it: pytest.
# Never: reads the log: what counts is what arrives at the broker.
import json
import os
import random
import subprocess
import threading

import psycopg2.errors
import pytest
import replay
from postgres import bin_directory
from processes import eventually

SEED = int(os.environ.get("CAPTURE_SEED", "7"))
VALUES = {  # type -> a random value as SQL
    "integer": lambda dice: str(dice.randint(-5, 5)),
    "bigint": lambda dice: str(dice.randint(-2**63, 2**63 - 1)),
    "numeric": lambda dice: dice.choice(["'NaN'", f"{dice.randint(0, 10**30)}.{dice.randint(0, 10**9)}", "-0.10"]),
    "double precision": lambda dice: dice.choice(["'-Infinity'", "0.1", "1e300", repr(dice.random())]),
    "boolean": lambda dice: dice.choice(["true", "false"]),
    "text": lambda dice: dice.choice(["''", "'a\"b\\c'", "E'\\n\\t\\x01'", "'żółw 🐢'",
                                      f"repeat('long {dice.random()} ', 500)"]),
    "char(5)": lambda dice: f"'{dice.randint(0, 99)}'",
    "bytea": lambda dice: f"'\\x{dice.randbytes(dice.randint(0, 9)).hex()}'",
    "timestamptz": lambda dice: dice.choice(["'infinity'", f"to_timestamp({dice.random() * 2e9})"]),
    "date": lambda dice: f"date '2024-02-29' + {dice.randint(-10**6, 10**6)}",
    "interval": lambda dice: f"make_interval(days => {dice.randint(-9, 9)}, secs => {dice.random()})",
    "uuid": lambda dice: "gen_random_uuid()",
    # Not 'null': within a row's JSON it is what NULL is.
    "jsonb": lambda dice: dice.choice(["'{\"a\": [1, null, \"\\u00e9\"]}'", "'\"null\"'", "'7.50'"]),
    "text[]": lambda dice: dice.choice(["'{}'", "'{a,NULL,\"b c\"}'", "'{{a,b},{c,d}}'"]),
    "int4range": lambda dice: f"int4range({dice.randint(0, 4)}, {dice.randint(5, 9)})",
    "mood": lambda dice: dice.choice(["'sad'", "'glad'"]),
    "pair": lambda dice: f"ROW({dice.randint(0, 9)}, 'x, \"y\"')",
    "pair[]": lambda dice: f"ARRAY[ROW({dice.randint(0, 9)}, NULL)::pair]",
}


class RandomTable:
    """A table of random columns, and random changes to it."""

    def __init__(self, dice, db, number):
        self.dice, self.db, self.run, self.name, self.added = dice, db, db.run, f"random_{number}", 0
        self.types = {f"c {i}" if dice.random() < 0.2 else f"c{i}": dice.choice(list(VALUES))
                      for i in range(dice.randint(1, 9))}
        columns = [f'"{name}" {kind}' for name, kind in self.types.items()]
        self.kind = dice.choice(["keyless", "keyed", "partitioned"])
        columns.insert(dice.randint(0, len(columns)), "id integer NOT NULL")
        if self.kind != "keyless":
            columns.append("PRIMARY KEY (id)")
        if dice.random() < 0.5:
            columns.append("twice integer GENERATED ALWAYS AS (id * 2) STORED")
        by = " PARTITION BY LIST (id)" if self.kind == "partitioned" else ""
        db.run(f"CREATE TABLE {self.name} ({', '.join(columns)}){by}")
        if by:
            db.run(f"CREATE TABLE {self.name}_some PARTITION OF {self.name} FOR VALUES IN (1, 2, 3, 4)")
            db.run(f"CREATE TABLE {self.name}_rest PARTITION OF {self.name} DEFAULT")
        db.run(f"CREATE TABLE {self.name}_copy (LIKE {self.name})")
        db.run(f"SELECT eventbus.capture('{self.name}')")

    def value(self, name):
        return "NULL" if self.dice.random() < 0.2 else VALUES[self.types[name]](self.dice)

    def alter(self):
        """Another shape, which an event of its own tells those who keep a copy."""
        name = self.dice.choice(list(self.types))
        self.added += 1
        new = f"added {self.added}"
        kind = self.dice.choice(["add", "drop", "rename", "retype"])
        if kind == "drop" and len(self.types) > 1:
            change = f'DROP COLUMN "{name}"'
            del self.types[name]
        elif kind == "rename":
            change = f'RENAME COLUMN "{name}" TO "{new}"'
            self.types = {new if n == name else n: kind for n, kind in self.types.items()}
        elif kind == "retype":
            change = f'ALTER COLUMN "{name}" TYPE text USING "{name}"::text'
            self.types[name] = "text"
        else:
            self.types[new] = self.dice.choice([kind for kind in VALUES if kind != "uuid"])  # the same in both tables
            change = f'ADD COLUMN "{new}" {self.types[new]} DEFAULT {self.value(new)}'
        self.run(f"ALTER TABLE {self.name} {change}")
        self.db.publish("alter", f"ALTER TABLE {self.name}_copy {change}")

    def change(self):
        kind = self.dice.choices(["insert", "update", "delete", "truncate", "alter"], [5, 5, 2, 0.3, 0.5])[0]
        if kind == "alter":
            return self.alter()
        some = f"id % {self.dice.randint(1, 7)} = 0"
        if kind == "insert":
            names = list(self.types)
            rows = ", ".join(f"({self.dice.randint(1, 40)}, {', '.join(self.value(n) for n in names)})"
                             for _ in range(self.dice.randint(1, 4)))
            skip = "" if self.kind == "keyless" else " ON CONFLICT DO NOTHING"
            self.run(f"INSERT INTO {self.name} (id, {', '.join(f'{chr(34)}{n}{chr(34)}' for n in names)}) "
                     f"VALUES {rows}{skip}")
        elif kind == "update":
            names = self.dice.sample(list(self.types), self.dice.randint(1, len(self.types)))
            new = [f'"{n}" = {self.value(n)}' for n in names]
            if self.dice.random() < 0.2:
                new.append(f"id = id + {self.dice.randint(100, 10**6)}")  # one that nobody has
            self.run(f"UPDATE {self.name} SET {', '.join(new)} WHERE {some}")
        elif kind == "delete":
            self.run(f"DELETE FROM {self.name} WHERE {some}")
        else:
            self.run(f"TRUNCATE {self.name}")


def test_replaying_the_events_gives_the_table(db, stream):
    """Seven random tables, some 600 random changes of rows and columns, some of it rolled back or prepared."""
    dice = random.Random(SEED)
    db.run("CREATE TYPE mood AS ENUM ('sad', 'glad')")
    db.run("CREATE TYPE pair AS (a integer, b text)")
    tables = [RandomTable(dice, db, i) for i in range(7)]

    def take_back(shapes):
        for table, types in zip(tables, shapes):
            table.types = types

    for _ in range(150):
        before = [dict(table.types) for table in tables]
        db.run("BEGIN")
        for _ in range(dice.randint(1, 6)):
            inner = dice.random() < 0.3
            if inner:
                db.run("SAVEPOINT s")
            shapes = [dict(table.types) for table in tables]
            dice.choice(tables).change()
            if inner and dice.random() < 0.5:
                db.run("ROLLBACK TO s")
                take_back(shapes)
        end = dice.choices(["COMMIT", "ROLLBACK", "COMMIT PREPARED 'p'", "ROLLBACK PREPARED 'p'"], [6, 1, 2, 1])[0]
        if "PREPARED" in end:
            db.run("PREPARE TRANSACTION 'p'")
        db.run(end)
        if "ROLLBACK" in end:
            take_back(before)
    db.publish("end", {})
    last = eventually(lambda: (lambda all: all and all[-1]["topic"] == b"end" and all)(stream()), 60,
                      "the last event arrives")

    kinds = set()
    with db.connection.cursor() as cursor:
        for entry in last[:-1]:
            envelope = json.loads(entry["payload"])
            if entry["topic"] == b"alter":
                cursor.execute(envelope)
                kinds.add("alter")
                continue
            assert envelope["source"]["schema"] == "public"
            kinds.add(envelope["op"])
            replay.apply(cursor, envelope["source"]["table"] + "_copy", entry["payload"].decode())
        for table in tables:
            wrong = replay.differences(cursor, table.name, table.name + "_copy")
            assert not wrong, f"seed {SEED}: " + "\n".join(wrong)
    assert kinds == {"c", "u", "d", "t", "alter"}


def test_consumers_keep_a_map_of_the_fleet(db, rabbit, name):
    """The example of docs/capture.md: positions are updated, a consumer of RabbitMQ keeps its map in step."""
    rabbit.declare(name, exchange=name, binding="fleet.#")
    db.broker("rabbit", rabbit.url)
    db.route("map", "rabbit", f"exchange:{name}", topics="fleet.#")
    db.run("CREATE TABLE truck (plate text PRIMARY KEY, lat numeric, lon numeric, driver text, phone text)")
    db.run("SELECT eventbus.capture('truck', topic => 'fleet.{table}.{op}', columns => '-phone')")
    dice = random.Random(SEED)
    db.run("INSERT INTO truck SELECT 'T-' || i, 50, 10, 'driver ' || i, '0123' FROM generate_series(1, 50) i")
    sent = 50
    for _ in range(200):
        plate = f"T-{dice.randint(1, 50)}"
        if dice.random() < 0.05:
            sent += len(db.run("DELETE FROM truck WHERE plate = %s RETURNING 1", plate))
        else:
            sent += len(db.run("UPDATE truck SET lat = lat + %s, phone = 'x' WHERE plate = %s RETURNING 1",
                               dice.randint(1, 5), plate))
    known = {}
    for properties, body, method in rabbit.take(name, sent):
        change = json.loads(body)
        assert method.routing_key == "fleet.truck." + {"c": "insert", "u": "update", "d": "delete"}[change["op"]]
        row = change["after"] or change["before"]
        assert properties.headers["event-key"] == row["plate"] and "phone" not in row
        if change["op"] == "d":
            del known[row["plate"]]
        else:
            assert change["before"] == known.get(row["plate"])
            known[row["plate"]] = row
    there = {row["plate"]: row for row in (json.loads(r[0]) for r in db.run(
        "SELECT (to_jsonb(t) - 'phone')::text FROM truck t"))}
    assert known == there
    assert rabbit.take_until_idle(name) == []


def growth(db, statement):
    """By how many bytes of its own memory a fresh session grows, at the most, while it runs the statement."""
    db.reconnect()
    with open(f"/proc/{db.one('SELECT pg_backend_pid()')}/status", "rb", buffering=0) as status:
        def private():
            status.seek(0)
            return next(int(line.split()[1]) for line in status.read().splitlines() if line.startswith(b"RssAnon"))

        done = threading.Event()
        seen = [private()]

        def watch():
            while not done.wait(0.002):
                seen.append(private())
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            db.run(statement)
        finally:
            done.set()
            watcher.join()
    assert len(seen) > 20, "the statement was too short to be watched"
    return (max(seen) - seen[0]) * 1024


def test_a_large_statement_keeps_nothing_of_its_rows(db):
    """Its events would take 100 MB and more. PostgreSQL's own queue for triggers has 12 bytes a row."""
    rows = 200_000
    db.broker("hold", "redis:///nonexistent.sock")
    db.route("hold", "hold", "list:x")
    db.run("CREATE TABLE item (id integer PRIMARY KEY, filler text)")
    insert = f"INSERT INTO item SELECT i, repeat('x', 200) FROM generate_series(1, {rows}) i"
    without = growth(db, insert)
    db.run("TRUNCATE item")
    db.run("SELECT eventbus.capture('item')")
    for statement in (insert, "UPDATE item SET filler = filler || 'y'", "DELETE FROM item"):
        most = growth(db, statement)
        assert most - without < 24 * rows + 4 * 1024 * 1024, f"{most} bytes for {statement}, {without} without capture"
    assert db.run("SELECT topic, count(*), sum(length(payload)) > 40000000 FROM eventbus.event GROUP BY 1 ORDER BY 1") == [
        ("public.item.delete", rows, True), ("public.item.insert", rows, True), ("public.item.update", rows, True)]


def test_a_dump_brings_captures_back(db, make_database):
    db.run("CREATE TABLE item (id integer PRIMARY KEY, name text, secret text)")
    db.run("SELECT eventbus.capture('item', columns => '-secret', condition => 'NEW.id > 1', headers => '{\"a\": 1}')")
    db.run("SELECT eventbus.capture_ddl('schema.{tag}', 'CREATE TABLE')")
    listed = db.run("SELECT relation::text, topic, operations, columns, condition, headers FROM eventbus.captured")
    dump = subprocess.run([os.path.join(bin_directory(), "pg_dump"), "-h", db.cluster.directory, "-p",
                           str(db.cluster.port), "-U", db.cluster.superuser, db.name], check=True, capture_output=True)
    other = make_database("restored", extension=False)
    subprocess.run([os.path.join(bin_directory(), "psql"), "-h", db.cluster.directory, "-p", str(db.cluster.port), "-U",
                    db.cluster.superuser, "-v", "ON_ERROR_STOP=1", "-q", other.name], input=dump.stdout, check=True,
                   stdout=subprocess.DEVNULL)
    assert other.run("SELECT relation::text, topic, operations, columns, condition, headers FROM eventbus.captured") \
        == listed
    other.broker("hold", "redis:///nonexistent.sock")
    other.route("hold", "hold", "list:x")
    other.run("CREATE TABLE more (id integer)")
    other.run("INSERT INTO item VALUES (1, 'a', 's'), (2, 'b', 's')")
    assert [(topic, key) for topic, key in other.run("SELECT topic, key FROM eventbus.event ORDER BY id")] == [
        ("schema.CREATE TABLE", "public.more"), ("public.item.insert", "2")]


def test_dropping_the_extension_takes_captures_along(db):
    db.run("CREATE TABLE item (id integer)")
    db.run("SELECT eventbus.capture('item')")
    db.run("SELECT eventbus.capture_ddl()")
    with pytest.raises(psycopg2.errors.DependentObjectsStillExist):
        db.run("DROP EXTENSION pg_eventbus")
    db.run("DROP EXTENSION pg_eventbus CASCADE")
    db.run("INSERT INTO item VALUES (1)")
    db.run("ALTER TABLE item RENAME id TO number")
    db.run("ALTER TABLE item DROP number, ADD other integer")
    assert db.run("SELECT evtname FROM pg_event_trigger") == []
    db.run("CREATE EXTENSION pg_eventbus")
    db.run("SELECT eventbus.capture('item', topic => 'again')")
    db.broker("hold", "redis:///nonexistent.sock")
    db.route("hold", "hold", "list:x")
    db.run("INSERT INTO item VALUES (2)")
    assert db.run("SELECT topic FROM eventbus.event") == [("again",)]

# What it is: ids and order of events from the WAL: the same at every replay, whatever stands beside what.
# Who calls it: pytest.
# Never: compares ids with each other only: what is expected comes from what was done.
import io
import itertools
import json
import os
import random
import re

import pytest

from faults import kill_sender, terminate_sender
from servers import PostgresCluster, eventually

from test_wal import WAL_SETTINGS, publish_wal, text_of

SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))
REPLAYS = 10


@pytest.fixture(scope="module")
def cluster():
    with PostgresCluster(config=WAL_SETTINGS) as server:
        yield server


@pytest.fixture
def route(db, redis_server, name):
    db.run("CREATE TABLE item (id int PRIMARY KEY, words text)")
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"stream:{name}", source="wal")
    db.wait_state("out", "active", deadline=60)


def entries_of(redis_server, stream, count, deadline=120):
    eventually(lambda: redis_server.client().xlen(stream) >= count, deadline,
               f"{count} entries, there are {redis_server.client().xlen(stream)}")
    return [text_of(entry) for entry in redis_server.stream(stream)]


def lasting(entry):
    """Without the time at which a change was made an event."""
    return {**entry, "payload": re.sub(r'"ts_ms":\d+}$', "}", entry["payload"])}


def shortened(entry):
    return {field: value if len(value) < 500 else f"{value[:20]}…{value[-400:]}" for field, value in entry.items()}


def events_of(entries):
    """Topic, key and, of messages, the payload."""
    return [(e["topic"], e.get("key"), e["payload"] if e["topic"].startswith("shop.") else None) for e in entries]


def check_ids(entries, transactions):
    """Each transaction has one LSN, which grows, and its events are numbered from 1; each id is there once."""
    ids = [e["id"] for e in entries]
    assert len(set(ids)) == len(ids), "two events have one id"
    at, before = 0, (0, 0)
    for events in transactions:
        of_this = ids[at:at + len(events)]
        assert [i.partition("-")[2] for i in of_this] == [str(n) for n in range(1, len(events) + 1)], events[:5]
        lsns = {i.partition("-")[0] for i in of_this}
        assert len(lsns) == 1
        lsn = tuple(int(part, 16) for part in lsns.pop().split("/"))
        assert lsn > before
        at, before = at + len(events), lsn


class Session:
    """A connection that does things at random, and knows what should come of them."""

    def __init__(self, db, number, rng, committed, numbers):
        self.db, self.rng, self.committed, self.numbers = db, rng, committed, numbers
        self.connection = db.connect(options="-c lock_timeout=10s")
        self.tables = [f"{kind}_{number}" for kind in ("item", "left", "right")]
        for table in self.tables:
            db.run(f"CREATE TABLE {table} (id int PRIMARY KEY, words text)")
            db.run(f"ALTER TABLE {table} ALTER words SET STORAGE EXTERNAL")
        self.events, self.savepoints, self.prepared, self.has_truncated = None, [], [], False

    def run(self, sql, *arguments):
        with self.connection.cursor() as cursor:
            cursor.execute(sql, arguments)

    def found(self, *event):
        self.events.append(event)

    # What may be done within a transaction.

    def row(self):
        n, item = next(self.numbers), self.tables[0]
        self.run(f"INSERT INTO {item} VALUES (%s, 'x')", n)
        self.found(f"public.{item}.insert", str(n), None)
        if self.rng.random() < .3:
            self.run(f"UPDATE {item} SET words = 'y' WHERE id = %s", n)
            self.found(f"public.{item}.update", str(n), None)
        if self.rng.random() < .3:
            self.run(f"DELETE FROM {item} WHERE id = %s", n)
            self.found(f"public.{item}.delete", str(n), None)

    def copy(self):
        table = self.rng.choice(self.tables)
        numbers = list(itertools.islice(self.numbers, self.rng.choice([2, 30])))
        with self.connection.cursor() as cursor:
            cursor.copy_expert(f"COPY {table} FROM STDIN", io.StringIO("".join(f"{n}\tc\n" for n in numbers)))
        self.events += [(f"public.{table}.insert", str(n), None) for n in numbers]

    def truncate(self):
        while self.prepared:  # they have locks on the tables
            self.end_prepared()
        self.has_truncated = True
        self.run(f"TRUNCATE {self.tables[1]}, {self.tables[2]}")
        for table in self.tables[1:]:
            self.found(f"public.{table}.truncate", None, None)

    def message(self):
        n = next(self.numbers)
        key = self.rng.choice([None, "a", "b"])
        publish_wal(self.db, "shop.said", n, key, connection=self.connection)
        self.found("shop.said", key, str(n))

    def large_message(self):
        n = next(self.numbers)
        words = f"{n} " + "m" * self.rng.choice([1000, 200_000, 300_000])
        publish_wal(self.db, "shop.long", words, "a", connection=self.connection)
        self.found("shop.long", "a", json.dumps(words))

    def foreign_message(self):
        n = next(self.numbers)
        self.run("SELECT pg_logical_emit_message(true, 'shop.foreign', %s)", str(n))
        self.found("shop.foreign", None, str(n))

    def now(self):
        """Outlives a rollback, and comes before what is not committed."""
        n = next(self.numbers)
        publish_wal(self.db, "shop.now", n, "a", function="publish_now", connection=self.connection)
        self.committed.append([("shop.now", "a", str(n))])

    def lock(self):
        self.run(f"SELECT 1 FROM {self.tables[0]} LIMIT 1 FOR UPDATE SKIP LOCKED")

    def large(self):
        table = self.tables[0]
        rows, length = self.rng.choice([(30, 100_000), (1500, 1800)])
        numbers = list(itertools.islice(self.numbers, rows))
        self.run(f"INSERT INTO {table} SELECT g, repeat('z', %s) FROM generate_series(%s, %s) g",
                 length, numbers[0], numbers[-1])
        self.events += [(f"public.{table}.insert", str(n), None) for n in numbers]

    def savepoint(self):
        self.savepoints.append(len(self.events))
        self.run(f"SAVEPOINT s{len(self.savepoints)}")

    def back(self):
        if self.savepoints:
            self.run(f"ROLLBACK TO s{len(self.savepoints)}")
            del self.events[self.savepoints[-1]:]

    def release(self):
        if self.savepoints:
            self.run(f"RELEASE s{len(self.savepoints)}")
            self.savepoints.pop()

    def end(self):
        how = self.rng.choice(["COMMIT", "COMMIT", "ROLLBACK", "PREPARE"])
        if how == "PREPARE":
            gid = f"{self.db.name}-{next(self.numbers)}"
            self.run(f"PREPARE TRANSACTION '{gid}'")
            self.prepared.append((gid, self.events))
        else:
            self.run(how)
            if how == "COMMIT" and self.events:
                self.committed.append(self.events)
        self.events, self.savepoints = None, []

    def end_prepared(self, how=None):
        if not self.prepared:
            return
        gid, events = self.prepared.pop(self.rng.randrange(len(self.prepared)))
        how = how or self.rng.choice(["COMMIT", "ROLLBACK"])
        self.db.run(f"{how} PREPARED '{gid}'")
        if how == "COMMIT" and events:
            self.committed.append(events)

    WITHIN = {row: 6, copy: 3, truncate: 2, message: 8, large_message: 2, foreign_message: 3, now: 5, lock: 1, large: 1.5,
              savepoint: 5, back: 3, release: 2, end: 5}

    def act(self):
        if self.events is None:
            if self.rng.random() < .2:
                return self.end_prepared() if self.rng.random() < .5 else self.now()
            while self.prepared and self.has_truncated:
                self.end_prepared()
            self.has_truncated = False
            self.run("BEGIN")
            self.events = []
        self.rng.choices([*self.WITHIN], [*self.WITHIN.values()])[0](self)

    def finish(self):
        if self.events is not None:
            self.end()
        while self.prepared:
            self.end_prepared()
        self.connection.close()


def test_ids_are_unique_and_the_same_at_every_replay(db, route, redis_server, name):
    """Routes that are stalled keep the slot where it is: after each restart all of it is decoded again."""
    print(f"SEED={SEED}")
    rng = random.Random(SEED)
    replays = [f"again{n}" for n in range(REPLAYS)]
    for which in replays:
        db.route(which, "redis", f"stream:{name}-{which}", source="wal")
        db.wait_state(which, "active", deadline=60)
        db.run("SELECT eventbus.pause_route(%s)", which)
        db.wait_state(which, "paused")
    redis_server.client().set(f"{name}-refused", "not a stream")
    db.route("refused", "redis", f"stream:{name}-refused", "shop.#", source="wal")
    db.wait_state("refused", "active", deadline=60)
    committed, numbers = [], itertools.count(1)
    sessions = [Session(db, n, rng, committed, numbers) for n in range(5)]
    for _ in range(400):
        rng.choice(sessions).act()
    for session in sessions:
        session.finish()
    expected = [event for events in committed for event in events]
    live = entries_of(redis_server, name, len(expected))
    assert events_of(live) == expected
    check_ids(live, committed)
    said = [e["id"] for e in live if e["topic"].startswith("shop.")]
    dead = db.wait_dead("refused", len(said), 120)
    assert [d["message_id"] for d in sorted(dead, key=lambda d: said.index(d["message_id"]))] == said
    assert len({d["id"] for d in dead}) == len(said) and {d["event_id"] for d in dead} == {None}
    for turn, which in enumerate(replays):
        db.run("SELECT eventbus.resume_route(%s)", which)
        stream = f"{name}-{which}"
        some = rng.randrange(len(expected))
        eventually(lambda: redis_server.client().xlen(stream) > some, 120, "a part arrives")
        (kill_sender if turn % 5 == 4 else terminate_sender)(db)
        again = entries_of(redis_server, stream, len(expected))
        for event, first in zip(again, live):
            assert lasting(event) == lasting(first), f"{which}: {shortened(event)} after {shortened(first)}"
        assert len(again) == len(live), which


def test_neighbours_in_the_wal(db, route, redis_server, name):
    """What begins where a message ends: another one, a row, a commit."""
    connection = db.connect()
    with connection.cursor() as cursor:
        for n in range(20):
            cursor.execute("BEGIN")
            publish_wal(db, "shop.within", n, "a", connection=connection)
            publish_wal(db, "shop.now", n, "a", function="publish_now", connection=connection)
            cursor.execute("COMMIT")
            cursor.execute("BEGIN")
            cursor.execute("INSERT INTO item VALUES (%s)", (n,))
            publish_wal(db, "shop.within", n, "a", connection=connection)
            publish_wal(db, "shop.now", n, "a", function="publish_now", connection=connection)
            cursor.execute("DELETE FROM item")
            cursor.execute("COMMIT")
    connection.close()
    said = [("shop.now", "a"), ("shop.within", "a"), ("shop.now", "a"), ("public.item.insert",), ("shop.within", "a"),
            ("public.item.delete",)]
    found = entries_of(redis_server, name, 20 * len(said))
    assert [e["topic"] for e in found] == [event[0] for event in said] * 20
    check_ids(found, [events for _ in range(20) for events in (said[:1], said[1:2], said[2:3], said[3:])])


def test_dead_letters_of_neighbours(db, route, redis_server, name):
    redis_server.client().set(name, "not a stream")
    with db.connect() as connection:
        with connection.cursor() as cursor:
            for n in range(2):
                cursor.execute("BEGIN")
                publish_wal(db, "shop.within", n, connection=connection)
                publish_wal(db, "shop.now", n, function="publish_now", connection=connection)
                cursor.execute("COMMIT")
    dead = db.wait_dead("out", 4)
    assert len({d["message_id"] for d in dead}) == 4


def rows(first, count):
    return f"INSERT INTO item SELECT g, repeat('x', 2000) FROM generate_series({first}, {first + count - 1}) g"


# Each in a transaction: what is published and written, and what comes of it.
BLOCKS = {
    "rows within": [
        "SELECT eventbus.publish_wal('shop.started', '1', 'job')", "SAVEPOINT s", rows(1, 3000),
        "SELECT eventbus.publish_wal('shop.half', '1', 'job')", rows(3001, 3000), "RELEASE s",
        "SELECT eventbus.publish_wal('shop.done', '1', 'job')"],
    "rows without": [
        "SAVEPOINT s", "SELECT eventbus.publish_wal('shop.started', '1', 'job')", "RELEASE s", rows(1, 3000),
        "SELECT eventbus.publish_wal('shop.half', '1', 'job')", rows(3001, 3000), "SAVEPOINT s",
        "SELECT eventbus.publish_wal('shop.done', '1', 'job')", "RELEASE s"],
    "rows beside": [
        "SAVEPOINT s", "SELECT eventbus.publish_wal('shop.started', '1', 'job')", "RELEASE s", "SAVEPOINT s",
        rows(1, 3000), "SELECT eventbus.publish_wal('shop.half', '1', 'job')", "RELEASE s",
        "SELECT eventbus.publish_wal('shop.done', '1', 'job')"],
    "rolled back within": [
        "SELECT eventbus.publish_wal('shop.started', '1', 'job')", "SAVEPOINT s",
        "SELECT eventbus.publish_wal('shop.never', '1', 'job')", "SAVEPOINT t",
        "SELECT eventbus.publish_wal('shop.never', '1', 'job')", "RELEASE t", "ROLLBACK TO s", "SAVEPOINT u",
        rows(1, 3000), "SELECT eventbus.publish_wal('shop.half', '1', 'job')", "RELEASE u",
        "SELECT eventbus.publish_wal('shop.done', '1', 'job')"],
    "rows rolled back": [
        "SELECT eventbus.publish_wal('shop.started', '1', 'job')", "SAVEPOINT s", rows(1, 3000),
        "SELECT eventbus.publish_wal('shop.never', '1', 'job')", "ROLLBACK TO s",
        "SELECT eventbus.publish_wal('shop.half', '1', 'job')", rows(3001, 3000),
        "SELECT eventbus.publish_wal('shop.done', '1', 'job')"],
    "messages alone": [
        "SELECT eventbus.publish_wal('shop.started', '1', 'job')", "SAVEPOINT s",
        "SELECT count(eventbus.publish_wal('shop.half', to_jsonb(repeat('m', 1000)), 'job')) "
        "FROM generate_series(1, 3000)", "RELEASE s", "SELECT eventbus.publish_wal('shop.done', '1', 'job')"],
}


@pytest.mark.parametrize("restarted", ["", "before its commit", "while it is delivered"])
@pytest.mark.parametrize("how", ["commit", "prepare"])
@pytest.mark.parametrize("what", BLOCKS)
def test_a_key_keeps_its_order_over_blocks(db, route, redis_server, name, what, how, restarted):
    """A transaction that is streamed is numbered as it was written. What was read before a restart is not streamed
    again, where it lies before what is confirmed."""
    with db.connect() as connection:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
            for part, statement in enumerate(BLOCKS[what]):
                cursor.execute(statement)
                if restarted == "before its commit" and part == len(BLOCKS[what]) // 2:
                    publish_wal(db, "shop.beside", 1)
                    entries_of(redis_server, name, 1)
                    terminate_sender(db)
            if how == "prepare":
                cursor.execute(f"PREPARE TRANSACTION '{db.name}'")
                cursor.execute(f"COMMIT PREPARED '{db.name}'")
            else:
                cursor.execute("COMMIT")
    if restarted == "while it is delivered":
        eventually(lambda: redis_server.client().xlen(name) > 500, 60, "a part arrives")
        terminate_sender(db)
    kept = {"rows rolled back": range(3001, 6001), "messages alone": []}.get(what)
    said = [e for e in ["shop.started", *["shop.half"] * (3000 if what == "messages alone" else 1), "shop.done"]]
    count = len(said) + (len(kept) if kept is not None else sum("generate_series" in s for s in BLOCKS[what]) * 3000)
    publish_wal(db, "shop.last", 1)
    beside = restarted == "before its commit"
    found = entries_of(redis_server, name, count + 1 + beside)[beside:]
    assert [e["topic"] for e in found if e["topic"].startswith("shop.")] == [*said, "shop.last"]
    assert [e["id"].partition("-")[2] for e in found] == [*map(str, range(1, count + 1)), "1"]
    assert len({e["id"].partition("-")[0] for e in found[:-1]}) == 1

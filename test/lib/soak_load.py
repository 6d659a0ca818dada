# What it is: the publishers of the soak: transactions of every shape, and the truth about them, which stands in a table.
# Who calls it: soak.py.
# Never: takes a client's word for a commit; uses a number twice, whatever became of its transaction.
import contextlib
import random
import threading
import time
from collections import Counter

import psycopg2

from processes import eventually

KEYS = 12
SHAPES = {}  # name -> (weight, function)
QUIET = "-c client_min_messages=error -c lock_timeout=20s"

TABLES = """
    CREATE TABLE sent (u bigint PRIMARY KEY, source "char" NOT NULL, k text NOT NULL, n bigint NOT NULL,
                       shape text NOT NULL, told text);
    CREATE TABLE counters (k text PRIMARY KEY, n bigint NOT NULL);
    CREATE TABLE item (k text PRIMARY KEY, n bigint NOT NULL, u bigint NOT NULL, pad text);
    CREATE TABLE skew (id int PRIMARY KEY, busy boolean NOT NULL);
    CREATE TABLE others (n int);
    INSERT INTO counters SELECT 'k' || g, 0 FROM generate_series(0, 99) g;
    INSERT INTO item SELECT 'i' || g, 0, 0 FROM generate_series(0, 99) g;
"""
# Each numbers its event within its key under a row lock, so that the numbers' order is the order of commits.
EVENT = """WITH counted AS (UPDATE counters SET n = n + 1 WHERE k = %(k)s RETURNING n)
    INSERT INTO sent SELECT %(u)s, %(source)s, %(k)s, n, %(shape)s, eventbus.{publish}('soak.' || %(k)s,
        jsonb_build_object('u', %(u)s, 'k', %(k)s, 'n', n, 'pad', repeat('x', %(pad)s)), %(k)s) FROM counted"""
LOG, MESSAGE = EVENT.format(publish="publish"), EVENT.format(publish="publish_wal")
ROW = """WITH counted AS (UPDATE item SET n = n + 1, u = %(u)s, pad = repeat('y', %(pad)s) WHERE k = %(k)s RETURNING n)
    INSERT INTO sent SELECT %(u)s, 'c', %(k)s, n, %(shape)s FROM counted"""
BULK = """INSERT INTO sent SELECT u, 'l', %(k)s, u, %(shape)s, eventbus.publish('soak.bulk',
    jsonb_build_object('u', u, 'k', %(k)s, 'n', u), %(k)s) FROM generate_series(%(first)s, %(last)s) u"""


def shape(weight):
    def register(function):
        SHAPES[function.__name__] = (weight, function)
        return function
    return register


class Publisher(threading.Thread):
    """One session, and a second one beside it where a shape needs two."""

    def __init__(self, load, number, seed):
        super().__init__(daemon=True)
        self.load, self.number, self.dice = load, number, random.Random(f"{seed} {number}")
        self.connection = self.other = None
        self.shape = ""

    def run(self):
        names = list(self.load.shapes)
        weights = [SHAPES[name][0] for name in names]
        while not self.load.stopping.wait(self.dice.random() * self.load.pause):
            try:
                if self.connection is None:
                    self.connection, self.other = (self.load.db.connect(autocommit=False, application_name="soak load",
                                                                        options=QUIET) for _ in range(2))
                self.shape = self.dice.choices(names, weights)[0]
                with self.connection.cursor() as cursor:
                    if SHAPES[self.shape][1](self, cursor) is not False:
                        self.load.counted(self.shape)
                self.connection.rollback()
            except psycopg2.Error as error:
                self.load.counted(f"error {error.pgcode or 'connection'}")
                self.leave()
                self.load.stopping.wait(0.05)
        self.leave()

    def leave(self):
        for connection in filter(None, (self.connection, self.other)):
            connection.close()
        self.connection = self.other = None

    def cancel(self):
        """Asked by a clock: the connection may be gone by then."""
        with contextlib.suppress(psycopg2.Error, AttributeError):
            self.connection.cancel()

    # What a transaction is made of

    def one(self, cursor, key=None):
        """An event of the log, a message in the WAL, or a change of a captured row."""
        key = self.dice.randrange(KEYS) if key is None else key
        pad = self.dice.choice([0, 0, 10, 300, 3000])
        sql, source, name = self.dice.choice([(LOG, "l", f"k{key}"), (LOG, "l", f"k{key}"),
                                              (MESSAGE, "m", f"k{key}"), (ROW, "c", f"i{key}")])
        cursor.execute(sql, {"u": self.load.number(), "k": name, "source": source, "shape": self.shape, "pad": pad})

    def some(self, cursor):
        for key in sorted(self.dice.choices(range(KEYS), k=self.dice.randint(1, 4))):  # in order: no deadlocks
            self.one(cursor, key)

    def own(self, cursor):
        """One whose key no other session wants, for what stays open."""
        self.one(cursor, 20 + self.number)

    def bulk(self, cursor, least, most, key="bulk"):
        """key: of what this session has under way once at a time, so that numbers rise with commits."""
        count = self.dice.randint(least, most)
        first = self.load.number(count)
        cursor.execute(BULK, {"k": f"{key}{self.number}", "shape": self.shape, "first": first, "last": first + count - 1})


@shape(6)
def plain(publisher, cursor):
    publisher.some(cursor)
    publisher.connection.commit()


@shape(6)
def rolled_back(publisher, cursor):
    publisher.some(cursor)
    publisher.connection.rollback()


@shape(0.06)
def bulk(publisher, cursor):
    publisher.bulk(cursor, 100, 1500)
    publisher.connection.commit()


@shape(0.4)
def bulk_rolled_back(publisher, cursor):
    publisher.bulk(cursor, 100, 4000)
    publisher.connection.rollback()


@shape(2)
def savepoints(publisher, cursor):
    """Some are rolled back, some released, one within the other."""
    for _ in range(publisher.dice.randint(1, 3)):
        cursor.execute("SAVEPOINT outside")
        publisher.own(cursor)
        cursor.execute("SAVEPOINT inside")
        publisher.own(cursor)
        cursor.execute(publisher.dice.choice(["ROLLBACK TO inside", "RELEASE inside"]))
        publisher.own(cursor)
        cursor.execute(publisher.dice.choice(["ROLLBACK TO outside", "RELEASE outside"]))
    publisher.some(cursor)
    publisher.connection.commit()


@shape(1)
def exception_blocks(publisher, cursor):
    numbers = [publisher.load.number() for _ in range(4)]
    values = ", ".join(f"({u}, {u % 2 == 0})" for u in numbers)
    key = f"k{40 + publisher.number}"
    event = LOG
    for name, value in {"u": "event.u", "source": "'l'", "k": f"'{key}'", "shape": "'exception_blocks'",
                        "pad": "9"}.items():
        event = event.replace(f"%({name})s", value)
    cursor.execute(f"""DO $$ DECLARE event record; BEGIN
        FOR event IN SELECT * FROM (VALUES {values}) v (u, fails) LOOP
            BEGIN
                {event};
                IF event.fails THEN PERFORM 1 / 0; END IF;
            EXCEPTION WHEN division_by_zero THEN NULL;
            END;
        END LOOP;
    END $$""")
    publisher.connection.commit()


@shape(1)
def asynchronous(publisher, cursor):
    cursor.execute("SET LOCAL synchronous_commit = off")
    publisher.some(cursor)
    publisher.connection.commit()


@shape(0.3)
def asleep_before_commit(publisher, cursor):
    publisher.own(cursor)
    publisher.load.stopping.wait(publisher.dice.random())
    if publisher.dice.random() < 0.5:
        publisher.connection.commit()


@shape(0.6)
def prepared(publisher, cursor):
    """Ended at once or some time later, by another session, and at the latest when the soak ends."""
    name = f"own {publisher.number}"
    if publisher.load.prepared.busy(name):
        return False
    publisher.one(cursor, 60 + publisher.number)
    if publisher.dice.random() < 0.1:
        publisher.bulk(cursor, 50, 500, "prepared")
    publisher.load.prepared.begin(name)
    cursor.execute(f"PREPARE TRANSACTION '{name}'")
    publisher.load.prepared.end(name, publisher.dice.choice([0, 0, 0.5, 3]) * publisher.dice.random(),
                                publisher.dice.choice(["COMMIT", "COMMIT", "ROLLBACK"]))


@shape(0.5)
def serialization_failures(publisher, cursor):
    """Two that each write what the other has read: the second one's COMMIT fails."""
    ids = publisher.number * 2, publisher.number * 2 + 1
    with publisher.other.cursor() as second:
        try:
            for number, session in enumerate((cursor, second)):
                session.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
                session.execute("SELECT count(*) FROM skew WHERE busy AND id IN (%s, %s)", ids)
            publisher.one(cursor, 70 + ids[0])
            publisher.one(second, 70 + ids[1])
            for number, session in enumerate((cursor, second)):
                session.execute("INSERT INTO skew VALUES (%s, true) ON CONFLICT (id) DO UPDATE SET busy = true",
                                (ids[number],))
            publisher.connection.commit()
            publisher.other.commit()
        except psycopg2.errors.SerializationFailure:
            publisher.connection.rollback()
            publisher.other.rollback()
            return True
    return False


@shape(0.5)
def cancelled(publisher, cursor):
    """By statement_timeout or by pg_cancel_backend, at whatever point of publishing it hits."""
    timer = None
    if publisher.dice.random() < 0.5:
        cursor.execute(f"SET LOCAL statement_timeout = {publisher.dice.randint(1, 25)}")
    else:
        timer = threading.Timer(publisher.dice.random() * 0.03, publisher.cancel)
        timer.start()
    try:
        publisher.bulk(cursor, 100, 4000)
        if publisher.dice.random() < 0.9:  # its rollback after COMMIT was not reached in time is as good
            publisher.connection.rollback()
        else:
            publisher.connection.commit()
        return False
    except psycopg2.errors.QueryCanceled:
        publisher.connection.rollback()
        return True
    finally:
        if timer:
            timer.join()


class Prepared(threading.Thread):
    """Ends prepared transactions: nothing that a session has to wait for may depend on that session."""

    def __init__(self, cluster, database):
        super().__init__(daemon=True)
        self.cluster, self.database = cluster, database
        self.due, self.lock, self.stopping = {}, threading.Lock(), threading.Event()

    def busy(self, name):
        with self.lock:
            return name in self.due

    def begin(self, name):
        """From here on it may be there, whatever the session hears."""
        with self.lock:
            self.due[name] = (time.monotonic() + 5, "ROLLBACK")

    def end(self, name, seconds, how):
        with self.lock:
            self.due[name] = (time.monotonic() + seconds, how)

    def run(self):
        while not self.stopping.wait(0.05):
            with self.lock:
                now = [(name, how) for name, (due, how) in self.due.items() if due <= time.monotonic()]
            if now:
                self._end(now)

    def _end(self, names):
        try:
            there = {row[0] for row in self.cluster.execute("SELECT gid FROM pg_prepared_xacts")}
            for name, how in names:
                if name in there:
                    self.cluster.execute(f"{how} PREPARED '{name}'", database=self.database)
                with self.lock:
                    self.due.pop(name, None)
        except psycopg2.Error:
            pass  # the server is away, or somebody else was faster; again

    def finish(self):
        def all_gone():
            with self.lock:
                self.due = {name: (0, how) for name, (_, how) in self.due.items()}
            return not self.due and not self.cluster.execute("SELECT 1 FROM pg_prepared_xacts")
        eventually(all_gone, 60, "no transaction stays prepared")
        self.stopping.set()
        self.join()


class Load:
    """publishers sessions, each with a pause of up to so many seconds between two transactions."""

    def __init__(self, db, seed, shapes=None, publishers=4, pause=0.04):
        self.db, self.pause, self.shapes = db, pause, shapes or list(SHAPES)
        self.stopping, self.lock = threading.Event(), threading.Lock()
        self.last, self.counts = 0, Counter()
        for statement in filter(str.strip, TABLES.split(";")):
            db.run(statement)
        self.prepared = Prepared(db.cluster, db.name)
        self.publishers = [Publisher(self, number, seed) for number in range(publishers)]

    def number(self, count=1):
        """The first of so many numbers that nobody has."""
        with self.lock:
            first = self.last + 1
            self.last += count
            return first

    def counted(self, what):
        with self.lock:
            self.counts[what] += 1

    def start(self):
        for thread in (self.prepared, *self.publishers):
            thread.start()

    def stop(self):
        self.stopping.set()
        for thread in self.publishers:
            thread.join()
        self.prepared.finish()

    def committed(self):
        """u -> (source, key, n, shape)"""
        self.db.reconnect()
        return {u: rest for u, *rest in self.db.run("SELECT u, source, k, n, shape FROM sent")}

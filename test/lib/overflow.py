# What it is: publishers of many kinds of small transactions that fill a log of which a route leaves its oldest part out.
# Who calls it: the tests of what eventbus.on_log_full = skip counts.
# Never: takes the extension's word for anything: what was committed stands in a table, what arrived at the brokers.
import random
import threading

import psycopg2

from processes import eventually

QUIET = "-c client_min_messages=error"  # libpq would print the warning of every crash
KEYS = 7


class _Publisher(threading.Thread):
    """Writes the ids of its events into a table in the same transaction."""

    def __init__(self, database, seed, number):
        super().__init__()
        self.database, self.number = database, number
        self.dice = random.Random(f"{seed} {number}")
        self.stopping = threading.Event()
        self.failures = []

    def run(self):
        while not self.stopping.is_set() and not self.failures:
            try:
                connection = self.database.connect(options=QUIET)
            except psycopg2.OperationalError:
                self.stopping.wait(0.02)
                continue
            try:
                with connection.cursor() as cursor:
                    self._end_prepared(cursor)
                    while not self.stopping.is_set():
                        self._transaction(cursor)
            except psycopg2.Error as error:
                if not connection.closed:
                    self.failures.append(error)
            connection.close()

    def _end_prepared(self, cursor):
        """What a crash has left: it keeps the log full."""
        cursor.execute("SELECT gid FROM pg_prepared_xacts WHERE gid LIKE %s", (f"{self.number}-%",))
        for (gid,) in cursor.fetchall():
            cursor.execute("COMMIT PREPARED %s", (gid,))

    def _publish(self):
        topic, key = self.dice.choice(["t", "t", "some.t"]), self.dice.choice(["NULL", f"'k{self.dice.randrange(KEYS)}'"])
        return (f"INSERT INTO sent SELECT eventbus.publish_text('{topic}', repeat('x', {self.dice.randint(1, 300)}), "
                f"key => {key}), '{topic}' FROM generate_series(1, {self.dice.randint(1, 4)});")

    def _transaction(self, cursor):
        kind = self.dice.choices(["plain", "savepoints", "rollback", "prepared", "slow"], [12, 4, 2, 1, 1])[0]
        if kind == "plain":
            cursor.execute(self._publish())
        elif kind == "savepoints":
            cursor.execute(f"BEGIN; {self._publish()} SAVEPOINT a; {self._publish()} ROLLBACK TO a; SAVEPOINT b; "
                           f"{self._publish()} RELEASE b; COMMIT")
        elif kind == "rollback":
            cursor.execute(f"BEGIN; {self._publish()} ROLLBACK")
        elif kind == "slow":
            cursor.execute(f"BEGIN; {self._publish()}")
            self.stopping.wait(self.dice.random() * 0.2)
            cursor.execute(f"{self._publish()} COMMIT")
        else:
            gid = f"{self.number}-{self.dice.randrange(2**40)}"
            cursor.execute(f"BEGIN; {self._publish()} PREPARE TRANSACTION '{gid}'")
            self.stopping.wait(self.dice.random() * 0.05)
            cursor.execute(f"{self.dice.choice(['COMMIT', 'COMMIT', 'ROLLBACK'])} PREPARED '{gid}'")


class Overflow:
    """Publishers at work until the end of the with statement."""

    def __init__(self, database, seed, publishers=8):
        self.database, self.dice = database, random.Random(seed)
        database.run("CREATE TABLE sent (id bigint, topic text)")
        self.publishers = [_Publisher(database, seed, number) for number in range(publishers)]

    def __enter__(self):
        for publisher in self.publishers:
            publisher.start()
        return self

    def __exit__(self, *_):
        for publisher in self.publishers:
            publisher.stopping.set()
        for publisher in self.publishers:
            publisher.join()
        self.check()

    def pause(self, most):
        """While they continue."""
        self.publishers[0].stopping.wait(self.dice.random() * most)
        self.check()

    def check(self):
        failures = [failure for publisher in self.publishers for failure in publisher.failures]
        assert not failures, failures

    def _look(self):
        try:
            self.database.reconnect()
            for (gid,) in self.database.run("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"):
                self.database.run("COMMIT PREPARED %s", gid)
            return [dict(self.database.run("SELECT id, topic FROM sent"))]
        except psycopg2.Error:  # the crash that was the last end may come to pass only now
            return None

    def committed(self):
        """Ends what is left prepared; returns topic by id of all that was committed."""
        return eventually(self._look, 60, "the server recovers")[0]

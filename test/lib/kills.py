# What it is: events at a steady rate into a Redis stream while their sender is killed again and again.
# Who calls it: the live test and the figure of the same name.
# Never: takes the sender's word for anything: what was committed stands in a table, what arrived in the stream.
import os
import random
import signal
import threading
import time

import psycopg2

from processes import eventually

KEYS = 20
AT_ONCE = 20  # events of one transaction
QUIET = "-c client_min_messages=error"  # libpq would print the warning of every crash
SENDER = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_eventbus sender' AND datname = %s"


class _Publisher(threading.Thread):
    """Numbers its events and writes them into a table in the same transaction. Numbers whose COMMIT was not answered
    are not used again; the table knows whether they were committed. What an outage cost is made up for."""

    def __init__(self, database, rate):
        super().__init__()
        self.database, self.rate, self.next, self.begun = database, rate, 1, time.monotonic()
        self.stopping = threading.Event()

    def run(self):
        while not self.stopping.is_set():
            try:
                connection = self.database.connect(options=QUIET)
                with connection.cursor() as cursor:
                    self._publish(cursor)
                connection.close()
            except psycopg2.Error:
                self.stopping.wait(0.02)

    def _publish(self, cursor):
        while not self.stopping.is_set():
            first, self.next = self.next, self.next + AT_ONCE
            cursor.execute(f"""INSERT INTO sent SELECT eventbus.publish('kills', to_jsonb(n), 'k' || n %% {KEYS}), n
                               FROM generate_series(%s, %s) n""", (first, self.next - 1))
            self.stopping.wait(max(0.0, self.begun + self.next / self.rate - time.monotonic()))


def _sender(database, but):
    """The process id of the sender, if there is another one than `but` and the server is up."""
    try:
        connection = database.cluster.connect(options=QUIET)
        with connection.cursor() as cursor:
            cursor.execute(SENDER, (database.name,))
            found = [pid for (pid,) in cursor.fetchall() if pid != but]
        connection.close()
        return found
    except psycopg2.OperationalError:
        return []


def kill_senders(database, redis, stream, kills, rate=2000, seed=1, by=signal.SIGKILL, after=lambda: None):
    """The database's only sender delivers into the stream and is killed so many times: every third one as soon as it is
    there, while it still asks what the stream holds, the others in the midst of delivering. What was counted in the end.
    A list beside the stream shows what is sent again: `repeated` is what a stream without a past would have twice."""
    database.run("CREATE TABLE sent (id bigint PRIMARY KEY, n int)")
    database.broker("redis", redis.url)
    database.route("out", "redis", f"stream:{stream}")
    database.route("beside", "redis", f"list:{stream}:beside")
    client, dice, last = redis.client(), random.Random(seed), None
    publisher = _Publisher(database, rate)
    publisher.start()
    try:
        for number in range(kills):
            [last] = eventually(lambda: _sender(database, last), 60, "there is a sender")
            length = client.xlen(stream)
            if number % 3:
                eventually(lambda: client.xlen(stream) > length, 60, "the sender delivers")
            publisher.stopping.wait(dice.random() * 0.3)
            os.kill(last, by)
            after()
        eventually(lambda: _sender(database, last), 60, "there is a sender after the last kill")
    finally:
        publisher.stopping.set()
        publisher.join()
    database.cluster.wait_recovered()
    database.reconnect()
    committed = dict(database.run("SELECT id, n FROM sent"))
    eventually(lambda: client.xlen(stream) >= len(committed), 60, "as many entries as events")
    for route in ("out", "beside"):
        database.wait_status(route, 60, in_flight=0, lag=lambda lag: not lag)
    arrived = [(int(entry["id"]), int(entry["payload"])) for entry in redis.stream(stream)]
    beside = client.lrange(f"{stream}:beside", 0, -1)
    numbers = [n for _, n in arrived]
    by_key = [[n for n in numbers if n % KEYS == key] for key in range(KEYS)]
    return {"kills": kills, "events": len(committed), "lost": len(committed.items() - set(arrived)),
            "invented": len(set(arrived) - committed.items()), "duplicates": len(arrived) - len(set(arrived)),
            "disordered": sum(order != sorted(order) for order in by_key),
            "repeated": len(beside) - len(set(beside))}

# What it is: COMMIT PREPARED of transactions that are none of ours wakes nobody; of those that are, those whom it concerns.
# Who calls it: pytest.
# Never: counts on a sender's word for how often it has tried: a listener counts.
import contextlib
import socket
import threading

import pytest

from servers import eventually, stays


class Refusing:
    """Takes connections and closes them: a broker that is down, behind a load balancer."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self.socket.getsockname()[1]}"
        self.count = 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                self.socket.accept()[0].close()
                self.count += 1

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


@pytest.fixture
def refusing():
    with contextlib.closing(Refusing()) as listener:
        yield listener


class Foreign(threading.Thread):
    """Commits and rolls back prepared transactions of an application's own, one after the other."""

    def __init__(self, db):
        super().__init__(daemon=True)
        self.connection, self.name, self.count, self.stopping = db.connect(), db.name, 0, threading.Event()
        db.run("CREATE TABLE foreign_work (n int)")

    def run(self):
        with self.connection.cursor() as cursor:
            while not self.stopping.is_set():
                cursor.execute(f"BEGIN; INSERT INTO foreign_work VALUES (1); PREPARE TRANSACTION '{self.name}'")
                cursor.execute(f"{'ROLLBACK' if self.count % 7 == 0 else 'COMMIT'} PREPARED '{self.name}'")
                self.count += 1
        self.connection.close()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.join()


def attempts_beside(db, refusing, seconds, *work):
    """How often the listener is asked while nothing is done, and while all that is done."""
    def count():
        before = refusing.count
        stays(lambda: [one() for one in work] is not None, seconds)
        return refusing.count - before
    return count()


@pytest.fixture
def down(db, refusing, name):
    db.broker("down", refusing.url)
    db.route("out", "down", f"list:{name}")
    db.publish("t", 1)
    db.wait_state("out", "retrying")
    eventually(lambda: refusing.count >= 6, 60, "the pauses between attempts have become long")
    return refusing


def test_foreign_transactions_reset_no_pauses(db, down):
    with Foreign(db) as foreign:
        tried = attempts_beside(db, down, 6)
        assert foreign.count > 50, "enough of them to show anything"
    assert tried <= 9, f"{tried} attempts beside {foreign.count} foreign transactions"


def test_what_concerns_others_resets_no_pauses(db, down, redis_server, cluster, name):
    """Routes and brokers that come, change and go beside it, reloads, and being told to look again."""
    db.broker("well", redis_server.url)
    db.route("beside", "well", f"list:{name}-beside")
    db.route("same broker", "down", f"list:{name}-same")
    db.run("SELECT eventbus.pause_route('same broker')")

    def others():
        db.run("SELECT eventbus.pause_route('beside'), eventbus.wake_workers()")
        db.run("SELECT eventbus.resume_route('beside')")
        db.run("SELECT eventbus.alter_broker('well', options => '{\"window\": 100}')")
        db.run("SELECT eventbus.alter_route('same broker', topics => 'a')")
        db.run("SELECT pg_reload_conf()")

    # A route that was changed is tried at once; one that is paused has nothing to be tried for.
    tried = attempts_beside(db, down, 6, others)
    assert tried <= 9, f"{tried} attempts"


def test_a_word_of_the_operator_does(db, down):
    before = down.count
    db.run("SELECT eventbus.resume_route('out')")
    eventually(lambda: down.count > before, 2, "resume_route tries at once")


def test_many_of_them_cost_an_idle_sender_nothing(db, stream):
    db.publish("t", 1)
    stream(1)
    pid = db.sender("out")

    def ticks():
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    with Foreign(db) as foreign:
        eventually(lambda: foreign.count > 20)
        before, counted = ticks(), foreign.count
        eventually(lambda: foreign.count > counted + 300, 60)
        spent = ticks() - before
    assert spent <= 10, f"{spent} hundredths of a second for 300 of them"


@pytest.mark.parametrize("between", ["nothing", "a restart"])
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_what_was_prepared_takes_effect(db, cluster, redis_server, stream, name, end, between):
    """Published, a route made, a broker changed; the session that prepared it is gone, and the server restarted."""
    other = f"{name}-other"
    db.publish("t", "before")
    stream(1)
    db.run(f"""BEGIN;
        SELECT eventbus.publish('t', '"prepared"');
        PREPARE TRANSACTION '{name}-event'""")
    db.run(f"""BEGIN;
        SELECT eventbus.create_route('made', 'redis', 'list:{other}', 'u');
        PREPARE TRANSACTION '{name}-route'""")
    if between == "a restart":
        cluster.restart()
    db.reconnect()
    db.sender("out")
    db.run(f"{end} PREPARED '{name}-route'")
    db.run(f"{end} PREPARED '{name}-event'")
    if end == "ROLLBACK":
        assert db.status("made") is None
        db.publish("t", "after")
        assert [entry["payload"] for entry in stream(2)] == [b'"before"', b'"after"']
        return
    assert [entry["payload"] for entry in stream(2, deadline=10)] == [b'"before"', b'"prepared"']  # not after safety_poll
    db.publish("u", 1)
    eventually(lambda: redis_server.client().llen(other) == 1, 10, "the route that was made delivers")


def test_a_prepared_broker_change_takes_effect(db, down, redis_server, name):
    db.run(f"""BEGIN;
        SELECT eventbus.alter_broker('down', '{redis_server.url}');
        PREPARE TRANSACTION '{name}'""")
    before = down.count
    db.run(f"COMMIT PREPARED '{name}'")
    eventually(lambda: redis_server.client().llen(name) == 1, 10)
    assert down.count <= before + 1


def test_who_waits_for_a_prepared_event_hears_of_its_end(db, stream, name):
    connection = db.connect()
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT eventbus.publish('t', '1')")
        event = cursor.fetchone()[0]
        cursor.execute(f"PREPARE TRANSACTION '{name}'")
    connection.close()
    said = []

    def wait():
        waiting = db.connect()
        try:
            waiting.cursor().execute("SELECT eventbus.wait_for_delivery(%s, '60 s')", (event,))
        except Exception as error:
            said.append(str(error))
        waiting.close()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    eventually(lambda: db.one("SELECT count(*) FROM pg_stat_activity WHERE query ~ '^SELECT eventbus.wait_for' "
                              "AND wait_event IS NOT NULL"))
    db.run(f"ROLLBACK PREPARED '{name}'")
    thread.join(20)
    assert said and "was rolled back" in said[0]


def test_a_prepared_extension_is_noticed(make_database, redis_server, name):
    """Neither its making nor its end is known to the session that commits it."""
    db = make_database(extension=False)
    db.run(f"BEGIN; CREATE EXTENSION pg_eventbus; PREPARE TRANSACTION '{name}'")
    db.reconnect()
    db.run(f"COMMIT PREPARED '{name}'")
    eventually(lambda: db.workers(), 20, "a keeper comes")
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"list:{name}")
    db.sender("out")
    db.run(f"BEGIN; DROP EXTENSION pg_eventbus; PREPARE TRANSACTION '{name}'")
    db.run(f"COMMIT PREPARED '{name}'")
    db.wait_workers_gone(20)

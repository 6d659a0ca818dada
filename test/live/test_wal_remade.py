# What it is: slots that somebody has dropped and made again, or advanced, by hand; and that no other slot is taken for one.
# Who calls it: pytest.
# Never: lets a sender run while the slot changes hands: the server runs without the library meanwhile.
import contextlib
import random
import threading

import psycopg2
import pytest

from database import Database
from faults import kill_sender, terminate_sender
from servers import PostgresCluster, eventually

from test_wal import WAL_SETTINGS, publish_wal, text_of

PRELOAD = "'pg_eventbus'"


@pytest.fixture(scope="module")
def cluster():
    with PostgresCluster(config=WAL_SETTINGS) as server:
        yield server


@pytest.fixture
def out(db, redis_server, name):
    """A route "out" from the WAL that has delivered one event; returns the topics that have arrived."""
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"stream:{name}", "shop.#", source="wal")
    db.wait_state("out", "active", deadline=60)
    publish_wal(db, "shop.first", {})
    db.wait_status("out", delivered=1)
    return lambda: [text_of(entry)["topic"] for entry in redis_server.stream(name)]


@contextlib.contextmanager
def without_workers(db):
    def restart(preload):
        db.connection.close()
        db.cluster.write_config(shared_preload_libraries=preload)
        db.cluster.restart()
        db.connection = db.connect()
    restart("''")
    yield
    restart(PRELOAD)


def slot_of(db):
    rows = db.rows("SELECT * FROM pg_replication_slots WHERE database = current_database()")
    return rows[0] if rows else None


def remake(db, before):
    slot = slot_of(db)["slot_name"]
    if before:
        publish_wal(db, "shop.missed", {})
    db.run("SELECT pg_drop_replication_slot(%s)", slot)
    db.run("SELECT pg_create_logical_replication_slot(%s, 'pg_eventbus')", slot)
    if not before:
        publish_wal(db, "shop.after", {})


def advance(db):
    publish_wal(db, "shop.missed", {})
    db.run("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", slot_of(db)["slot_name"])


@pytest.mark.parametrize("change", [lambda db: remake(db, True), lambda db: remake(db, False), advance],
                         ids=["missed", "after", "advanced"])
def test_another_slot_of_the_same_name_is_lost(db, out, told, change):
    db.route("log", "redis", f"list:{db.name}_log", "log.#")
    with without_workers(db):
        change(db)
    row = db.wait_state("out", "lost", deadline=60)
    assert "is not delivered" in row["last_error"]
    assert any("has lost its place in the WAL" in line for line in told('route "out"'))
    db.cluster.wait_log(r"DETAIL:  Replication slot .* was made again or advanced by somebody, and begins at ")
    check = {check["name"]: check for check in db.health()}["route out"]
    assert check["level"] == "error" and "restart_route" in check["hint"]
    eventually(lambda: slot_of(db) is None, 60, "a slot that nobody needs keeps no WAL")
    publish_wal(db, "shop.not.either", {})
    db.publish("log.t", {})
    db.wait_status("log", 60, delivered=1)
    terminate_sender(db)
    db.wait_state("out", "lost", deadline=60)
    db.run("SELECT eventbus.restart_route('out')")
    db.wait_state("out", "active", deadline=60)
    publish_wal(db, "shop.again", {})
    db.wait_status("out", delivered=2)
    assert out() == ["shop.first", "shop.again"]
    for _ in range(2):
        terminate_sender(db)
    publish_wal(db, "shop.last", {})
    eventually(lambda: out()[-1] == "shop.last", 60)


def test_what_a_hint_says_can_be_run_whatever_the_route_is_called(db, redis_server, name):
    """What an operator has called it is no statement of theirs for those who do as the hint says."""
    route = "it's'); SELECT ('\\"
    db.broker("redis", redis_server.url)
    db.route(route, "redis", f"stream:{name}", "shop.#", source="wal")
    db.wait_state(route, "active", deadline=60)
    since = db.cluster.log_size()
    with without_workers(db):
        remake(db, True)
    db.wait_state(route, "lost", deadline=60)
    hint = {check["name"]: check for check in db.health()}[f"route {route}"]["hint"]
    literal = db.one("SELECT quote_literal(%s)", route)
    assert hint.endswith(f"then SELECT eventbus.restart_route({literal}).")
    assert f"then eventbus.restart_route({literal})." in db.cluster.log_text(since)
    db.run(hint[hint.index("SELECT"):].rstrip("."))
    db.wait_state(route, "active", deadline=60)


def test_a_route_that_comes_later_takes_the_slot_that_is_there(db, out, redis_server, name):
    """It has no place in it yet, and none to lose."""
    with without_workers(db):
        remake(db, True)
        db.route("second", "redis", f"stream:{name}_second", "shop.#", source="wal")
        publish_wal(db, "shop.second", {})
    db.wait_state("out", "lost", deadline=60)
    eventually(lambda: [text_of(e)["topic"] for e in redis_server.stream(f"{name}_second")] == ["shop.second"], 60)
    terminate_sender(db)
    db.wait_state("second", "active", deadline=60)
    assert db.status("out")["state"] == "lost" and slot_of(db)


@pytest.mark.parametrize("system", ["NULL", "1"], ids=["0.1", "pg_upgrade"])
def test_a_cursor_that_says_nothing_of_the_slot(db, out, system):
    """0.1 moved its slots beyond cursors; pg_upgrade makes slots again, where it has seen that nothing is left."""
    with without_workers(db):
        db.run(f"UPDATE eventbus.cursor SET wal_system = {system}, wal_lsn = wal_lsn - 100000")
    db.wait_state("out", "active", deadline=60)
    publish_wal(db, "shop.next", {})
    eventually(lambda: out()[-1] == "shop.next", 60)  # what lies between is found in the stream, where it is not confirmed
    assert db.one("SELECT wal_system = system_identifier FROM eventbus.cursor, pg_control_system()")
    for _ in range(3):
        terminate_sender(db)
        db.wait_state("out", "active", deadline=60)
    assert out() == ["shop.first", "shop.next"]


class Watch(threading.Thread):
    """Looks all the time: the slot stands behind no cursor that names it. A cursor is looked at later than the slot."""

    def __init__(self, db):
        super().__init__(daemon=True)
        self.db, self.looks, self.wrong, self.over = db, 0, [], threading.Event()

    def run(self):
        connection = None
        while not self.over.wait(0.005):
            try:
                connection = connection or self.db.connect()
                with connection.cursor() as cursor:
                    cursor.execute("SELECT slot_name, confirmed_flush_lsn FROM pg_replication_slots "
                                   "WHERE database = current_database()")
                    for slot, confirmed in cursor.fetchall():
                        cursor.execute("SELECT route_id, parked_key, wal_lsn FROM eventbus.cursor "
                                       "WHERE wal_slot = %s AND wal_lsn < %s AND wal_system IS NOT NULL", (slot, confirmed))
                        self.wrong += [(slot, confirmed, row) for row in cursor.fetchall()]
                        self.looks += 1
            except psycopg2.Error:
                connection = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()


def restart_at_once(db):
    db.cluster.restart("immediate")
    db.reconnect()


def test_no_fault_makes_another_slot_of_it(db, out, redis_server, name, make_database):
    """Senders and servers that end at any moment, beside WAL of others that moves the slot, routes that come (one in a
    transaction that lasts), are stalled and go."""
    other = make_database("other", extension=False)
    other.run("CREATE TABLE filler (words text)")
    seed = random.randrange(1 << 30)
    print("seed", seed)
    dice = random.Random(seed)
    sent, over = [], threading.Event()

    def write():
        mine = theirs = None
        number = 0
        while not over.wait(dice.random() * 0.02):
            try:
                mine = mine or db.connect()
                theirs = theirs or other.connect()
                with mine.cursor() as cursor:
                    cursor.execute("SELECT eventbus.publish_wal('shop.n', to_jsonb(%s::int))", (number := number + 1,))
                sent.append(number)
                if dice.random() < 0.1:
                    theirs.cursor().execute("INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 3000)")
            except psycopg2.Error:
                mine = theirs = None

    writer = threading.Thread(target=write, daemon=True)
    with Watch(db) as watch:
        writer.start()
        for turn in range(12):
            slow = db.connect(autocommit=False)
            slow.cursor().execute("SELECT eventbus.create_route(%s, 'redis', %s, 'shop.#', '{\"source\": \"wal\"}')",
                                  (f"slow{turn}", f"stream:{name}_slow"))
            if turn % 3 == 1:
                db.run("SELECT eventbus.pause_route('out')")
            over.wait(dice.random() * 2)
            slow.commit()
            slow.close()
            over.wait(dice.random() * 0.5)
            dice.choice([kill_sender, terminate_sender, restart_at_once])(db)
            db.run("SELECT eventbus.resume_route('out')")
            db.run(f"SELECT eventbus.drop_route('slow{turn}')")
            states = [row["state"] for row in db.rows("SELECT state FROM eventbus.status")]
            assert "lost" not in states and not watch.wrong, watch.wrong
        over.set()
        writer.join()
        publish_wal(db, "shop.last", {})
        eventually(lambda: out()[-1] == "shop.last", 60, "all arrives")
        other.reconnect()
        other.run("INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 5000)")
        end = db.one("SELECT pg_current_wal_lsn()")
        db.run("SELECT eventbus.wake_workers()")
        eventually(lambda: db.one("SELECT %s - confirmed_flush_lsn < 2000000 FROM pg_replication_slots "
                                  "WHERE database = current_database()", end), 60, "an idle route's slot follows")
    assert watch.looks > 100 and not watch.wrong
    arrived = {text_of(entry)["payload"] for entry in redis_server.stream(name)}
    assert [n for n in sent if str(n) not in arrived] == []

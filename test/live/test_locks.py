# What it is: locks that others hold, and transactions that others keep open, beside senders: none is stalled for them.
# Who calls it: pytest.
# Never: measures how long something takes but to see that it ends.
import contextlib
import re

import pytest

from servers import PostgresCluster, eventually, wait_gone

from test_wal import WAL_SETTINGS, publish_wal

QUICKLY = 5  # seconds; a second is meant, on a machine that has other things to do, too


@pytest.fixture(scope="module")
def cluster():
    with PostgresCluster(config=WAL_SETTINGS) as server:
        yield server


@pytest.fixture
def open_transaction(db):
    """open_transaction(sql, database) runs it in a transaction that stays open; returns its connection."""
    with contextlib.ExitStack() as stack:
        def begin(sql, database=db):
            connection = stack.enter_context(contextlib.closing(database.connect(autocommit=False)))
            with connection.cursor() as cursor:
                cursor.execute(sql)
            return connection
        yield begin


def pid_of(connection):
    return connection.info.backend_pid


def terminated_quickly(db, route):
    pid = db.sender(route)
    db.run("SELECT pg_terminate_backend(%s)", pid)
    wait_gone(pid, QUICKLY, "the sender obeys")


# The slot of a broker


@pytest.fixture
def both(db, redis_server, name):
    """A route from the log that delivers; making the one from the WAL is the test's business."""
    client = redis_server.client()
    db.run("CREATE TABLE item (id int)")
    db.broker("redis", redis_server.url)
    db.route("log", "redis", f"list:{name}-log")
    sent = iter(range(1000))

    def delivers():
        number = next(sent)
        db.publish("t", number)
        eventually(lambda: client.llen(f"{name}-log") == number + 1, why="the route from the log continues")

    delivers()
    return delivers


def starting(db, words):
    db.wait_status("out", state="starting", last_error=lambda text: text and words in text)


def test_a_slot_waits_for_a_chain_of_transactions_and_nobody_else_does(db, both, open_transaction, redis_server, name):
    """Each begins before the one before it ends. PostgreSQL's decoder waits for those that run where it begins, and then
    for those that run by then."""
    running = open_transaction("INSERT INTO item VALUES (0)")
    db.route("out", "redis", f"list:{name}", "first", source="wal")
    for number in range(1, 5):
        if number <= 2:
            starting(db, f"process {pid_of(running)}")
        after = open_transaction(f"INSERT INTO item VALUES ({number})")
        running.commit()
        running = after
        for _ in range(3):
            both()
    terminated_quickly(db, "log")
    both()
    running.commit()
    db.wait_state("out", "active", deadline=60)
    publish_wal(db, "first", {})
    eventually(lambda: redis_server.client().llen(name) == 1)


def test_a_slot_waits_for_prepared_ones_and_for_those_of_other_databases(db, both, open_transaction, make_database, name):
    other = make_database("other", extension=False)
    other.run("CREATE TABLE item (id int)")
    elsewhere = open_transaction("INSERT INTO item VALUES (1)", other)
    db.route("out", "redis", f"list:{name}", source="wal")
    starting(db, f"process {pid_of(elsewhere)}")
    db.run(f"BEGIN; INSERT INTO item VALUES (1); PREPARE TRANSACTION '{name}'")
    elsewhere.commit()
    starting(db, "(prepared)")
    last = open_transaction("INSERT INTO item VALUES (2)")
    both()
    db.run(f"COMMIT PREPARED '{name}'")
    both()
    last.commit()
    db.wait_state("out", "active", deadline=60)


def test_a_server_that_makes_a_slot_goes_down(db, both, open_transaction, cluster, name):
    first = open_transaction("INSERT INTO item VALUES (1)")
    db.route("out", "redis", f"list:{name}", source="wal")
    starting(db, "waits for transaction")
    open_transaction("INSERT INTO item VALUES (2)")
    first.commit()
    both()
    assert cluster.stop("fast") < QUICKLY
    cluster.start()
    db.reconnect()
    db.wait_state("out", "active", deadline=60)
    both()


# Locks on our own tables


LOCKS = {"cursors": "LOCK eventbus.cursor IN ACCESS EXCLUSIVE MODE",
         "segments": "LOCK eventbus.log_0, eventbus.log_1, eventbus.log_2, eventbus.log_3 IN ACCESS EXCLUSIVE MODE",
         "routes": "LOCK eventbus.route_config IN ACCESS EXCLUSIVE MODE",
         "extension": "DROP EXTENSION pg_eventbus"}


def wants_something(db):
    """Something happens that senders want to write down, or to read, whatever is locked."""
    with contextlib.suppress(Exception):
        connection = db.connect(options="-c lock_timeout=100ms")
        connection.cursor().execute("SELECT eventbus.publish('t', '1'), eventbus.wake_workers()")


@pytest.mark.parametrize("lock", LOCKS)
def test_a_sender_beside_a_lock_obeys(db, both, open_transaction, cluster, lock, name):
    holder = open_transaction(LOCKS[lock])
    wants_something(db)
    [(pid,)] = cluster.execute("SELECT pid FROM pg_stat_activity WHERE datname = %s AND backend_type = 'pg_eventbus sender'",
                               db.name)
    with contextlib.suppress(AssertionError):  # a sender need not wait, but if it does, it has to obey all the same
        eventually(lambda: cluster.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'", pid), 1)
    cluster.execute("SELECT pg_terminate_backend(%s)", pid)
    wait_gone(pid, QUICKLY, "the sender obeys")
    holder.rollback()
    db.publish("t", 2)
    db.wait_status("log", in_flight=0, lag=lambda lag: lag is not None and not lag, sender_pid=lambda pid: pid)


TERMINATE_WHILE_IT_WAITS = """
DO $$
BEGIN
    FOR attempt IN 1..100000 LOOP
        PERFORM pg_stat_clear_snapshot();
        EXIT WHEN (SELECT wait_event_type = 'Lock' AND pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s);
    END LOOP;
END $$"""


def test_a_row_that_is_locked_for_a_moment_cuts_no_round_off(db, both, open_transaction, cluster):
    """A sender that is told to leave just when it waits for a cursor's row, which it does for 10 ms at most, leaves as always."""
    for attempt in range(5):
        from_here = len(cluster.log_text())
        pid = db.sender("log")
        holder = open_transaction("SELECT 1 FROM eventbus.cursor FOR UPDATE")
        db.publish("t", attempt)  # there is a cursor to write
        db.run(TERMINATE_WHILE_IT_WAITS, pid)
        wait_gone(pid, 30, "it leaves")
        cut_off = "FATAL" in cluster.log_text()[from_here:]
        holder.rollback()
        db.wait_status("log", sender_pid=lambda now: now not in (None, pid))
        if not cut_off:
            return
    raise AssertionError("each of five rounds was cut off")


@pytest.mark.parametrize("lock", LOCKS)
def test_a_server_beside_a_lock_goes_down(db, both, open_transaction, cluster, lock):
    open_transaction(LOCKS[lock])
    wants_something(db)
    assert cluster.stop("fast") < QUICKLY
    cluster.start()
    db.reconnect()


def test_delivery_goes_on_while_cursors_cannot_be_written(db, both, open_transaction, told):
    holder = open_transaction(LOCKS["cursors"])
    for _ in range(5):
        both()
    eventually(lambda: told("cursors of broker", "locked"))
    both()
    holder.rollback()
    eventually(lambda: told("LOG", "written again"))
    eventually(lambda: db.one("SELECT sum(delivered) FROM eventbus.cursor") == 7, why="what was delivered is written")
    assert len(told("cursors of broker", "locked")) == 1


@pytest.mark.parametrize("lock", ["cursors", "routes"])
def test_what_a_new_sender_waits_for_is_told(db, both, open_transaction, cluster, log_from_here, lock):
    table = {"cursors": "cursor", "routes": "route_config"}[lock]
    oid = db.one("SELECT %s::regclass::oid::bigint", f"eventbus.{table}")
    sender = db.sender("log")
    holder = open_transaction(LOCKS[lock])
    [(pid,)] = cluster.execute("SELECT pid FROM pg_stat_activity WHERE datname = %s AND backend_type = 'pg_eventbus sender'",
                               db.name)
    assert pid == sender
    cluster.execute("SELECT pg_terminate_backend(%s)", pid)
    eventually(lambda: re.search(rf"still waiting for AccessShareLock on relation {oid} .*(\n.*)?holding the lock: {pid_of(holder)}",
                                 cluster.log_text(log_from_here)), why="the log says who waits for what")
    locked = f"table eventbus.{table} is locked by process {pid_of(holder)}"
    check = {row["name"]: row for row in db.health()}["tables"]
    assert (check["level"], check["detail"]) == ("error", locked) and check["hint"]
    if lock == "cursors":
        status = db.status("log")
        assert status["state"] == "stopped" and status["last_error"] == f"the route's status cannot be read: {locked}"
    holder.rollback()
    db.publish("t", 2)
    db.wait_status("log", in_flight=0, lag=lambda lag: lag is not None and not lag, sender_pid=lambda pid: pid)
    assert "tables" not in {row["name"] for row in db.health()}


def test_answers_are_heard_while_the_log_is_locked(db, both, open_transaction, frozen_redis, name):
    """What has been read continues: here, the route's state changes although nothing can be read."""
    db.broker("other", frozen_redis.url)
    db.route("out", "other", f"list:{name}")
    db.publish("t", 1)
    db.wait_status("out", delivered=1)
    holder = open_transaction(LOCKS["segments"])
    wants_something(db)
    frozen_redis.kill()
    db.wait_state("out", "retrying")
    frozen_redis.start()
    db.wait_state("out", "active")
    holder.rollback()
    db.publish("t", 2)
    db.wait_status("out", delivered=2)


# Locks on tables of users


def as_monitor(db, sql):
    """In a session of its own, which knows no table yet."""
    with contextlib.closing(db.connect(options="-c statement_timeout=5s")) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SET ROLE pg_monitor")
            cursor.execute(sql)
            return cursor.fetchall()


CAPTURED = "SELECT relation::text, condition, error, headers::text FROM eventbus.captured ORDER BY 1"


@pytest.fixture
def captured(db):
    """Tables captured with conditions: of columns and rows of the table alone, and of a row of another table."""
    db.run("CREATE TABLE place (id int, city text); CREATE TABLE one (id int, v text); CREATE TABLE two (id int, at place)")
    db.run("SELECT eventbus.capture('one', condition => 'NEW.id > 1 AND OLD.* IS DISTINCT FROM NEW.*')")
    db.run("SELECT eventbus.capture('two', condition => '(NEW.at).city = ''here''', headers => '{\"a\": 1}')")
    return [("one", "((new.id > 1) AND (old.* IS DISTINCT FROM new.*))", None, None),
            ("two", "((new.at).city = 'here'::text)", None, '{"a": 1}')]


@pytest.mark.parametrize("locked", ["one", "two", "place"])
def test_captured_waits_for_no_table(db, captured, open_transaction, locked):
    """PostgreSQL's own functions open the table, and wait for whoever has it."""
    assert as_monitor(db, CAPTURED) == captured
    open_transaction(f"LOCK TABLE {locked} IN ACCESS EXCLUSIVE MODE")
    if locked == "place":  # its columns are told by it alone
        [one, two] = as_monitor(db, CAPTURED)
        assert one == captured[0]
        assert two[1] is None and "locked" in two[2] and two[3] == '{"a": 1}'
    else:
        assert as_monitor(db, CAPTURED) == captured


def test_monitoring_waits_for_no_table(db, both, captured, open_transaction, name):
    """On PostgreSQL 16 and later, pg_publication_tables opens every table that is published."""
    db.run("CREATE PUBLICATION ours FOR TABLE one, two")
    db.route("out", "redis", f"list:{name}", source="wal", publication="ours", messages="-*")
    db.wait_state("out", "active")
    open_transaction("LOCK TABLE one, two, place IN ACCESS EXCLUSIVE MODE")
    health = as_monitor(db, "SELECT name, level, hint FROM eventbus.health() WHERE name = 'tables of route out'")
    assert len(health) == 1
    assert as_monitor(db, "SELECT state FROM eventbus.status WHERE route = 'out'") == [("active",)]
    for view in ("route", "broker", "allowed"):
        as_monitor(db, f"SELECT * FROM eventbus.{view}")

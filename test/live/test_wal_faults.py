# What it is: routes from the WAL through kills, restarts, lost slots and ends of databases.
# Who calls it: pytest.
# Never: accepts a change that is lost, that was rolled back, or that comes again under another id.
import json
import re
import threading
import time

import psycopg2
import pytest

from faults import kill_postmaster, kill_sender, terminate_sender
from servers import PostgresCluster, eventually

from test_wal import WAL_SETTINGS, publish_wal, text_of  # noqa: E402


@pytest.fixture(scope="module")
def cluster():
    with PostgresCluster(config=dict(WAL_SETTINGS, fsync="on", max_wal_size="'64MB'", min_wal_size="'32MB'")) as server:
        yield server


@pytest.fixture
def route(db, redis_server, name):
    db.run("CREATE TABLE item (id int PRIMARY KEY, words text)")
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"stream:{name}", "public.item.#, shop.#", source="wal")
    db.wait_state("out", "active", deadline=60)


def slot_of(db):
    rows = db.rows("SELECT * FROM pg_replication_slots WHERE slot_name LIKE 'pg_eventbus%%' AND database = %s", db.name)
    return rows[0] if rows else None


@pytest.mark.parametrize("fault", [kill_sender, kill_postmaster, terminate_sender])
def test_a_long_transaction_goes_on_in_its_middle(db, route, redis_server, name, fault):
    """The fault comes when a part of one transaction has arrived; what arrived has the ids that it has in the end."""
    rows = 60000
    client = redis_server.client()
    db.run("INSERT INTO item SELECT g, repeat('x', 300) FROM generate_series(1, %s) g", rows)
    eventually(lambda: client.xlen(name) > 2000, 60, "a part of the transaction arrives")
    at_fault = []
    fault(db, lambda: at_fault.append(client.xlen(name)))
    assert at_fault[0] < rows, "the fault came too late to show anything"
    publish_wal(db, "shop.after", {})
    eventually(lambda: client.xlen(name) > rows, 120, f"{rows + 1} entries; there are {client.xlen(name)}")
    entries = [text_of(entry) for entry in redis_server.stream(name)]
    assert [e["key"] for e in entries[:-1]] == [str(n) for n in range(1, rows + 1)], "lost, twice or in disorder"
    assert [e["id"].partition("-")[2] for e in entries[:-1]] == [str(n) for n in range(1, rows + 1)]
    assert len({e["id"].partition("-")[0] for e in entries[:-1]}) == 1 and entries[-1]["topic"] == "shop.after"


def test_a_restart_leaves_out_what_was_acknowledged(db, redis_server, name):
    """To a list, which tells no repetition: a sender that ends in good order sends nothing again."""
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"list:{name}", source="wal")
    db.wait_state("out", "active", deadline=60)
    client = redis_server.client()
    for n in range(1, 201):
        publish_wal(db, "shop.n", n)
        if n % 50 == 0:
            eventually(lambda: client.llen(name) == n, 60, f"{n} elements")
            terminate_sender(db)
    eventually(lambda: client.llen(name) >= 200, 60, "all elements")
    assert [json.loads(e) for e in client.lrange(name, 0, -1)] == list(range(1, 201))


def test_no_route_is_held_up_by_another(db, redis_server, name):
    """What a paused route has no room for goes to its file; afterwards it gets all of it."""
    db.run("CREATE TABLE item (id int PRIMARY KEY, words text)")
    db.broker("redis", redis_server.url)
    for which in ("moves", "stands"):
        db.route(which, "redis", f"stream:{name}-{which}", "public.item.#", source="wal")
    db.wait_state("moves", "active", deadline=60)
    db.wait_state("stands", "active", deadline=60)
    db.run("SELECT eventbus.pause_route('stands')")
    db.wait_state("stands", "paused")
    client = redis_server.client()
    for part in range(5):
        db.run("INSERT INTO item SELECT g, repeat('y', 500) FROM generate_series(%s, %s) g",
               part * 10000 + 1, part * 10000 + 10000)
    eventually(lambda: client.xlen(f"{name}-moves") == 50000, 120, "the other route continues")
    assert client.xlen(f"{name}-stands") == 0
    confirmed = slot_of(db)["confirmed_flush_lsn"]
    db.run("SELECT eventbus.resume_route('stands')")
    publish_wal(db, "public.item.last", {})
    for which in ("moves", "stands"):
        eventually(lambda: client.xlen(f"{name}-{which}") >= 50001, 120, f"all arrives on {which}")
        entries = [text_of(entry) for entry in redis_server.stream(f"{name}-{which}")]
        assert [e.get("key") for e in entries] == [*map(str, range(1, 50001)), None]
    eventually(lambda: slot_of(db)["confirmed_flush_lsn"] > confirmed, 60, "the slot follows")


def test_the_slot_waits_for_open_transactions_and_nobody_else_does(db, redis_server, name):
    db.broker("redis", redis_server.url)
    open_one = db.connect(autocommit=False)
    with open_one.cursor() as cursor:
        cursor.execute("CREATE TABLE unfinished ()")
        cursor.execute("SELECT pg_backend_pid()")
        pid = cursor.fetchone()[0]
    db.route("log", "redis", f"stream:{name}-log")
    db.route("out", "redis", f"stream:{name}", source="wal")
    db.wait_status("out", 60, state="starting", last_error=lambda text: text and f"process {pid}" in text)
    db.publish("still.delivered", {})
    eventually(lambda: redis_server.client().xlen(f"{name}-log") == 1, 60, "the log's route continues")
    terminate_sender(db)
    db.wait_status("out", 60, state="starting", last_error=lambda text: text and f"process {pid}" in text)
    open_one.commit()
    db.wait_status("out", 60, state="active", last_error=lambda text: not text)
    publish_wal(db, "shop.first", {})
    eventually(lambda: redis_server.client().xlen(name) == 1, 60, "the first event")
    open_one.close()


def test_others_traffic_moves_the_slot(db, route, cluster, setting, make_database):
    setting("eventbus.safety_poll", "200ms")
    other = make_database("other", extension=False)
    other.run("CREATE TABLE filler (words text)")
    before = slot_of(db)
    for _ in range(4):
        other.run("INSERT INTO filler SELECT repeat('z', 1000) FROM generate_series(1, 3000)")
        cluster.execute("CHECKPOINT")
    written = cluster.execute("SELECT pg_current_wal_lsn()")[0][0]
    # It moves behind cursors, and those are not written for less than a megabyte of others' WAL.
    eventually(lambda: db.one("SELECT %s - confirmed_flush_lsn < 1500000 AND restart_lsn > %s FROM pg_replication_slots "
                              "WHERE slot_name = %s", written, before["restart_lsn"], before["slot_name"]),
               60, "the slot moves on")


def test_nothing_is_written_while_nothing_happens(db, route, cluster, setting):
    setting("eventbus.safety_poll", "200ms")
    publish_wal(db, "shop.one", {})
    db.wait_status("out", delivered=1)
    cluster.execute("CHECKPOINT")

    seen = []

    def still():
        now = db.run("SELECT pg_current_wal_insert_lsn(), xmin::text FROM eventbus.cursor")
        if not seen or seen[-1][0] != now:
            seen.append((now, time.monotonic()))
        return time.monotonic() - seen[-1][1] > 3

    eventually(still, 60, "three seconds without a write")


def test_a_lost_slot_stops_its_route_until_it_is_restarted(db, route, redis_server, name, cluster, setting, told):
    publish_wal(db, "shop.one", {})
    db.wait_status("out", delivered=1)
    db.run("SELECT eventbus.pause_route('out')")
    db.wait_state("out", "paused")
    publish_wal(db, "shop.kept", {})
    setting("max_slot_wal_keep_size", "1MB")
    db.run("CREATE TABLE filler (words text)")

    def lost():
        db.run("INSERT INTO filler SELECT repeat('z', 1000) FROM generate_series(1, 20000)")
        db.run("SELECT pg_switch_wal()")
        db.run("CHECKPOINT")
        return slot_of(db)["wal_status"] == "lost"

    eventually(lost, 120, "the server gives the slot up")
    db.wait_status("out", 60, state="lost", last_error=lambda text: text and "slot" in text)
    check = next(row for row in db.health() if row["name"] == "WAL for broker redis")
    assert check["level"] == "error" and "was invalidated" in check["detail"], check
    db.run("SELECT eventbus.resume_route('out')")
    check = next(row for row in db.health() if row["name"] == "route out")
    assert check["level"] == "error" and "restart_route" in check["hint"]
    assert told("lost its place", "out")
    lost_after = db.run("SELECT wal_lsn, wal_number FROM eventbus.cursor")[0]
    terminate_sender(db)
    db.wait_state("out", "lost")
    publish_wal(db, "shop.not.either", {})
    db.run("SELECT eventbus.restart_route('out')")
    db.wait_state("out", "active", deadline=60)
    publish_wal(db, "shop.again", {})

    def topics():
        return [text_of(e)["topic"] for e in redis_server.stream(name)]
    eventually(lambda: topics()[-1] == "shop.again", 60, "what comes after the restart")
    kept = [text_of(e)["id"].split("-")[0] for e in redis_server.stream(name) if text_of(e)["topic"] == "shop.kept"]
    assert topics() == ["shop.one"] + ["shop.kept"] * len(kept) + ["shop.again"]
    # What the sender had in memory when the slot was given up it may have sent; the place that it names lies behind that.
    assert not kept or db.one("SELECT (%s::pg_lsn, %s) >= (%s::pg_lsn, 1)", *lost_after, kept[0])


def test_a_paused_route_that_has_no_room_says_that_it_is_lost(db, redis_server, name, setting):
    """All of the broker's are paused and full: nobody hears the decoder that the server ends with the slot."""
    def wal_check():
        return next((row["level"], row["detail"]) for row in db.health() if row["name"] == "WAL for broker redis")

    db.run("CREATE TABLE item (id int PRIMARY KEY, words text)")
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"stream:{name}", source="wal")
    db.wait_state("out", "active", deadline=60)
    eventually(lambda: wal_check()[0] == "ok", 60)
    setting("max_slot_wal_keep_size", "96MB")
    db.run("SELECT eventbus.pause_route('out')")
    db.wait_state("out", "paused")
    levels = []

    def lost():
        db.run("INSERT INTO item SELECT g, repeat('v', 500) FROM generate_series(%s, %s) g",
               len(levels) * 10000 + 1, len(levels) * 10000 + 10000)
        levels.append(wal_check())
        if len(levels) > 20:
            db.run("CHECKPOINT")
        return (slot_of(db) or {"wal_status": "lost"})["wal_status"] == "lost"

    eventually(lost, 120, "the server gives the slot up")
    assert [level for level, _ in levels if level == "warning"], levels
    assert [detail for level, detail in levels if level == "error" and "about to be invalidated" in detail], levels
    db.wait_status("out", 60, state="lost", last_error=lambda text: text and "slot" in text)
    assert wal_check()[0] == "error" and "about to be" not in wal_check()[1], wal_check()
    db.run("SELECT eventbus.restart_route('out'); SELECT eventbus.resume_route('out')")
    db.wait_state("out", "active", deadline=60)


def test_a_paused_route_whose_slot_is_not_made_yet_says_so(db, redis_server, name):
    db.broker("redis", redis_server.url)
    open_one = db.connect(autocommit=False)
    with open_one.cursor() as cursor:
        cursor.execute("CREATE TABLE unfinished ()")
    db.route("out", "redis", f"stream:{name}", source="wal")
    db.run("SELECT eventbus.pause_route('out')")
    db.wait_status("out", 60, state="starting", last_error=lambda text: text and "process" in text)
    open_one.close()
    db.wait_state("out", "paused", deadline=60)


def test_payloads_are_the_same_whatever_the_database_has_set(db, redis_server, name):
    db.run("CREATE TABLE odd (id int PRIMARY KEY, f float8, b bytea, r tstzrange, i interval, t timestamptz)")
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"stream:{name}", "public.odd.#", source="wal", format="row")
    db.wait_state("out", "active", deadline=60)
    for number in (1, 2):
        db.run("INSERT INTO odd VALUES (%s, 0.1::float8 + 0.2::float8, '\\xdead', '[2020-03-04 05:06:07+00,)', '1 day 2 hours', "
               "'2020-03-04 05:06:07+00')", number)
        eventually(lambda: redis_server.client().xlen(name) == number, 60, "the row arrives")
        for change in ("extra_float_digits = 0", "datestyle = 'SQL, DMY'", "timezone = 'America/New_York'",
                       "bytea_output = escape", "intervalstyle = iso_8601", "search_path = nowhere"):
            db.run(f"ALTER DATABASE {db.name} SET {change}")
        terminate_sender(db)
        db.wait_state("out", "active", deadline=60)
    first, second = (json.loads(text_of(entry)["payload"]) for entry in redis_server.stream(name))
    assert (first.pop("id"), second.pop("id")) == (1, 2)
    assert first == second == {"f": 0.30000000000000004, "b": "\\xdead", "r": '["2020-03-04 05:06:07+00",)',
                               "i": "1 day 02:00:00", "t": "2020-03-04T05:06:07+00:00"}


def test_the_file_of_a_route_that_stands_still_goes_with_the_slot(db, redis_server, name, setting):
    """The bound of the WAL is that of the file, too."""
    db.run("CREATE TABLE item (id int PRIMARY KEY, words text)")
    db.broker("redis", redis_server.url)
    for which in ("moves", "stands"):
        db.route(which, "redis", f"stream:{name}-{which}", source="wal")
        db.wait_state(which, "active", deadline=60)
    db.run("SELECT eventbus.pause_route('stands')")
    db.wait_state("stands", "paused")

    def file_size():
        return db.one("SELECT coalesce(sum(size), 0) FROM pg_ls_tmpdir()")

    def write(part):
        db.run("INSERT INTO item SELECT g, repeat('y', 500) FROM generate_series(%s, %s) g",
               part * 10000 + 1, part * 10000 + 10000)

    for part in range(3):
        write(part)
    eventually(lambda: redis_server.client().xlen(f"{name}-moves") == 30000, 120, "the other route continues")
    assert file_size() > 30000 * 500 / 2, "the control: there is a file"
    setting("max_slot_wal_keep_size", "1MB")
    parts = iter(range(3, 100))

    def lost():
        write(next(parts))
        db.run("SELECT pg_switch_wal()")
        db.run("CHECKPOINT")
        return slot_of(db) is None or slot_of(db)["wal_status"] == "lost"

    eventually(lost, 120, "the server gives the slot up")
    for which in ("moves", "stands"):
        db.wait_state(which, "lost", deadline=60)
    assert file_size() == 0


def drop_slot(db):
    """As soon as no sender has it."""
    slot = slot_of(db)["slot_name"]

    def dropped():
        try:
            db.run(f"""DO $$ BEGIN
                PERFORM pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = '{slot}';
                PERFORM pg_drop_replication_slot('{slot}'); END $$""")
            return True
        except psycopg2.Error:  # the next sender was quicker
            return False

    eventually(dropped, 60, "somebody drops the slot while it is not in use")


def test_a_dropped_slot_is_not_silently_made_anew(db, route, redis_server, name):
    publish_wal(db, "shop.one", {})
    db.wait_status("out", delivered=1)
    drop_slot(db)
    db.wait_state("out", "lost", deadline=60)
    assert slot_of(db) is None
    check = {row["name"]: row for row in db.health()}["WAL for broker redis"]
    assert check["level"] == "error" and "restart_route" in check["hint"], "no sender makes a slot for a lost route"


def test_a_slot_goes_with_its_last_route(db, route, redis_server, name):
    db.route("second", "redis", f"stream:{name}-2", source="wal")
    db.route("log", "redis", f"stream:{name}-3")
    db.wait_state("second", "active", deadline=60)
    db.run("SELECT eventbus.drop_route('out')")
    publish_wal(db, "shop.one", {})
    db.wait_status("second", delivered=1)
    assert slot_of(db)
    db.run("SELECT eventbus.drop_route('second')")
    eventually(lambda: slot_of(db) is None, 60, "the slot is dropped")
    db.wait_state("log", "active")


@pytest.mark.parametrize("how", ["broker", "extension"])
def test_a_slot_goes_with_its_broker_and_with_the_extension(db, route, how):
    assert slot_of(db)
    db.run("SELECT eventbus.drop_broker('redis', true)" if how == "broker" else "DROP EXTENSION pg_eventbus")
    eventually(lambda: slot_of(db) is None, 60, "the slot is dropped")


def test_a_database_with_a_slot_can_be_dropped(make_database, redis_server, name):
    for turn in range(5):  # a sender that is about to end may have the slot still
        db = make_database(f"short{turn}")
        db.broker("redis", redis_server.url)
        db.route("out", "redis", f"stream:{name}", source="wal")
        db.wait_state("out", "active", deadline=60)
        db.drop(force=False)
        assert not db.cluster.execute("SELECT 1 FROM pg_replication_slots WHERE database = %s", db.name)


def copy_database(db):
    db.connection.close()
    db.cluster.execute(f'CREATE DATABASE "{db.name}_copy" TEMPLATE "{db.name}"')
    db.reconnect()


def restore_dump(db):
    db.cluster.execute(f'CREATE DATABASE "{db.name}_copy"')
    db.cluster.program("psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", f"{db.name}_copy",
                       standard_input=db.cluster.program("pg_dump", "-d", db.name))


@pytest.mark.parametrize("make_copy", [copy_database, restore_dump])
def test_a_copy_of_a_database_begins_on_a_slot_of_its_own(db, route, redis_server, name, make_database, make_copy):
    publish_wal(db, "shop.one", {})
    db.wait_status("out", delivered=1)
    make_copy(db)
    copy = make_database("copy", extension=False, create=False)
    copy.run("SELECT eventbus.adopt()")
    copy.wait_state("out", "active", deadline=60)
    publish_wal(copy, "shop.of.the.copy", {})
    publish_wal(db, "shop.two", {})
    eventually(lambda: redis_server.client().xlen(name) == 3, 60, "both deliver")
    assert slot_of(copy)["slot_name"] != slot_of(db)["slot_name"]


def test_commits_that_do_not_wait_for_the_disk(db, route, redis_server, name):
    connection = db.connect(options="-c synchronous_commit=off")
    for n in range(20):
        publish_wal(db, "shop.n", n, connection=connection)
    eventually(lambda: redis_server.client().xlen(name) == 20, 60, "all arrive")
    assert len({text_of(e)["id"].partition("-")[0] for e in redis_server.stream(name)}) == 20
    connection.close()


def test_prepared_transactions(db, route, redis_server, name):
    connection = db.connect(autocommit=False)
    for n, end in ((1, "ROLLBACK"), (2, "COMMIT")):
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO item VALUES (%s, 'p')", (n,))
            cursor.execute("SELECT eventbus.publish_wal('shop.beside', '1')")
            cursor.execute(f"PREPARE TRANSACTION '{db.name}-{n}'")
        connection.rollback()
        db.run(f"{end} PREPARED '{db.name}-{n}'")
    for end in ("ROLLBACK", "COMMIT"):
        with connection.cursor() as cursor:
            cursor.execute("SELECT eventbus.publish_wal('shop.alone', to_jsonb(%s::text))", (end,))
            cursor.execute(f"PREPARE TRANSACTION '{db.name}'")
        connection.rollback()
        db.run(f"{end} PREPARED '{db.name}'")
    eventually(lambda: redis_server.client().xlen(name) == 3, 60, "what was committed arrives")
    entries = [text_of(e) for e in redis_server.stream(name)]
    assert [(e["topic"], e.get("key")) for e in entries] == [("public.item.insert", "2"), ("shop.beside", None),
                                                             ("shop.alone", None)]
    assert entries[2]["payload"] == '"COMMIT"'
    connection.close()


def test_a_changed_route_goes_on_in_the_middle_of_a_transaction(db, redis_server, name):
    """To a list, which tells no repetition: changing a route opens its slot again."""
    rows = 40000
    db.run("CREATE TABLE item (id int PRIMARY KEY, words text)")
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"list:{name}", source="wal", format="row")
    db.wait_state("out", "active", deadline=60)
    client = redis_server.client()
    db.run("INSERT INTO item SELECT g, repeat('x', 200) FROM generate_series(1, %s) g", rows)
    eventually(lambda: client.llen(name) > 1000, 60, "a part of the transaction arrives")
    for topics in ("public.#", "public.item.#"):
        db.run("SELECT eventbus.alter_route('out', topics => %s)", topics)
    assert client.llen(name) < rows, "the changes came too late to show anything"
    eventually(lambda: client.llen(name) >= rows, 120, f"{rows} elements; there are {client.llen(name)}")
    assert [json.loads(e)["id"] for e in client.lrange(name, 0, -1)] == list(range(1, rows + 1))


def test_lag_of_a_route_that_stands_still(db, route, cluster, setting, name):
    """As long as something waits it is never 0: known to the sender, read again by the next one, or not known."""
    def finding(check):
        found = {row["name"]: row for row in db.health()}[check]
        return found["level"], found["detail"]

    db.wait_status("out", lag=lambda lag: lag is not None and not lag)
    db.run("SELECT eventbus.pause_route('out')")
    db.wait_state("out", "paused")
    publish_wal(db, "shop.waits", {})
    published = db.one("SELECT clock_timestamp()")

    def behind(state, seconds, deadline=60):
        def there():
            status, age = db.status("out"), (db.one("SELECT clock_timestamp()") - published).total_seconds()
            assert status["state"] == state and status["lag"] and status["lag"].total_seconds() >= seconds
            assert age - 30 <= status["lag"].total_seconds() <= age + 1
            return True
        eventually(there, deadline, f"a lag of {seconds} s")

    behind("paused", 1)
    setting("eventbus.lag_warning", "1s")
    eventually(lambda: finding("lag")[0] == "warning" and "out (" in finding("lag")[1], 60, "health() warns")
    cluster.restart()
    db.reconnect()
    behind("paused", 2)
    assert re.fullmatch(r"paused; the oldest event that waits is \d+ s old", finding("route out")[1])

    cluster.write_config(max_worker_processes=3)  # the server's own, the launcher and the keeper: no sender
    cluster.restart()
    db.reconnect()
    db.wait_status("out", 60, state="paused", sender_pid=None, lag=None)
    eventually(lambda: finding("worker slots")[0] == "error", 60, "there is no room for a sender")
    assert finding("route out")[1] == "paused; the oldest event that waits is of unknown age"
    cluster.write_config(max_worker_processes=40)
    cluster.restart()
    db.reconnect()
    behind("paused", 3)
    db.run("SELECT eventbus.resume_route('out')")
    db.wait_status("out", 60, state="active", delivered=1, lag=lambda lag: lag is not None and not lag)
    assert finding("lag")[0] == "ok"


def test_a_change_that_cannot_be_decoded_is_a_dead_letter(db, route, redis_server, name, cluster, told):
    """By a type whose output function takes its values for something else."""
    db.run("CREATE TYPE sick")
    db.run("CREATE FUNCTION sick_in(cstring) RETURNS sick IMMUTABLE STRICT LANGUAGE internal AS 'int4in'")
    db.run("CREATE FUNCTION sick_out(sick) RETURNS cstring IMMUTABLE STRICT LANGUAGE internal AS 'enum_out'")
    db.run("CREATE TYPE sick (INPUT = sick_in, OUTPUT = sick_out, LIKE = int4)")
    db.run("CREATE TABLE ward (id int PRIMARY KEY, patient sick)")
    db.run("SELECT eventbus.alter_route('out', topics => '#')")
    pid = db.sender("out")
    publish_wal(db, "shop.before", {})
    db.wait_status("out", delivered=1)
    db.run("INSERT INTO ward VALUES (1, '5')")
    publish_wal(db, "shop.behind", {})
    words = "a change of table public.ward cannot be decoded: invalid internal value for enum: 5"
    db.wait_status("out", 60, state="active", delivered=2, dead=1, last_error=lambda text: text and text.startswith(words),
                   sender_pid=pid)
    dead, = db.wait_dead("out")
    assert (dead["topic"], dead["key"], dead["error"]) == ("public.ward.insert", "1", words)
    eventually(lambda: f"is a dead letter: {words}" in cluster.log_text(), 60, "the log names it")
    assert not told("are stalled")
    db.run("SELECT eventbus.alter_route('out', options => %s)", '{"source": "wal", "tables": "-public.ward"}')
    db.run("INSERT INTO ward VALUES (2, '6')")
    publish_wal(db, "shop.last", {})
    db.wait_status("out", 60, delivered=3, dead=1)
    assert [text_of(e)["topic"] for e in redis_server.stream(name)] == ["shop.before", "shop.behind", "shop.last"]


def test_memory_does_not_grow_with_a_transaction(db, route, redis_server, name):
    def private():
        with open(f"/proc/{db.sender('out')}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))

    client = redis_server.client()
    grown = []
    for part in range(2):  # the first one pays for what a sender needs at all
        rows = (10000, 150000)[part]
        before = private()
        db.run("INSERT INTO item SELECT g, repeat('x', 1000) FROM generate_series(%s, %s) g",
               part * 1000000 + 1, part * 1000000 + rows)
        eventually(lambda: client.xlen(name) == (10000, 160000)[part], 240, "all arrive")
        grown.append(private() - before)
    assert grown[1] < 40000, f"{grown} kB for 10 000 and 150 000 rows of 1 kB"


def test_many_subtransactions_are_no_files_of_their_own(db, route, redis_server, name):
    """Of what a sender that begins again reads again, PostgreSQL would write each into a file, to stay within little
    memory: one after the other, or all at once where the transaction itself is the largest of them."""
    with db.connect(autocommit=False) as publisher:
        with publisher.cursor() as cursor:
            cursor.execute("""DO $$ BEGIN FOR n IN 1..25000 LOOP
                    BEGIN INSERT INTO item VALUES (n, repeat('one', 1 + n % 100));
                    EXCEPTION WHEN division_by_zero THEN NULL; END;
                    IF n % 10 = 0 THEN INSERT INTO item VALUES (1000000 + n, 'beside them'); END IF;
                END LOOP; END $$""")
        for n in range(2):
            pid, flushed = db.sender("out"), db.one("SELECT pg_current_wal_lsn()")
            db.run("INSERT INTO item VALUES (%s, 'another')", -n)
            eventually(lambda: redis_server.client().xlen(name) == n + 1, 60)
            eventually(lambda: db.one("SELECT confirmed_flush_lsn > %s FROM pg_replication_slots", flushed), 60,
                       "the sender has confirmed what comes after the subtransactions")
            if n == 0:
                db.run("SELECT pg_terminate_backend(%s)", pid)
                eventually(lambda: db.sender("out") not in (None, pid), 60, "another sender")
        publisher.commit()
    eventually(lambda: redis_server.client().xlen(name) == 27502, 120, "all arrive")
    assert db.one("SELECT spill_txns FROM pg_stat_replication_slots") < 100


def test_no_event_arrives_before_its_row_can_be_seen(db, route, redis_server, name, setting):
    """A transaction whose WAL is on disk, but which waits for a standby that does not exist, is seen by nobody."""
    db.route("log", "redis", f"stream:{name}-log", "marker")
    client = redis_server.client()
    setting("synchronous_standby_names", "nobody")
    local = "-c synchronous_commit=local"
    blocked = db.connect()
    writer = threading.Thread(target=blocked.cursor().execute, args=("INSERT INTO item VALUES (1, 'waits')",))
    writer.start()
    other = db.connect(options=local)
    with other.cursor() as cursor:
        def waits():
            cursor.execute("SELECT pid FROM pg_stat_activity WHERE datname = %s AND wait_event = 'SyncRep'", (db.name,))
            return cursor.fetchone()

        eventually(waits, 60, "the transaction waits for its standby")
        publish_wal(db, "shop.second", {}, connection=other)
        for n in range(1, 4):  # the sender has been there, and has read what comes after
            cursor.execute("SELECT eventbus.publish('marker', '1')")
            eventually(lambda: client.xlen(f"{name}-log") == n, 60, "an event from the log")
        cursor.execute("SELECT count(*) FROM item")
        assert cursor.fetchone() == (0,) and client.xlen(name) == 0
        db.wait_status("out", lag=lambda lag: lag is not None and lag.total_seconds() > 0)
        cursor.execute("SELECT pg_cancel_backend(%s)", waits())  # PostgreSQL then does not wait, and has committed
        eventually(lambda: client.xlen(name) == 2, 60, "both arrive")
        assert [text_of(e)["topic"] for e in redis_server.stream(name)] == ["public.item.insert", "shop.second"]
    writer.join()
    blocked.close()
    other.close()


def test_a_cursor_that_somebody_reads_is_not_taken_back(db, route, name):
    """A process that decodes is not in others' snapshots, as a rule: what it writes would count as rolled back."""
    db.route("second", "redis", f"stream:{name}-2", "second", source="wal")
    db.wait_state("second", "active", deadline=60)
    eventually(lambda: db.one("SELECT count(*) FROM eventbus.cursor WHERE wal_slot IS NOT NULL") == 2, 60, "cursors")
    holder = db.connect(autocommit=False)
    with holder.cursor() as cursor:
        cursor.execute("SELECT 1 FROM eventbus.cursor ORDER BY route_id DESC LIMIT 1 FOR UPDATE")
    publish_wal(db, "shop.one", {})
    eventually(lambda: db.one("SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s", db.sender("out")) == "Lock",
               60, "the sender has written one cursor, and waits for the other")
    db.run("SELECT pg_current_xact_id()")  # a later transaction ends first: who reads now looks at the earlier one
    assert db.run("SELECT delivered FROM eventbus.cursor") == [(0,), (0,)]
    holder.rollback()
    eventually(lambda: sorted(db.run("SELECT delivered FROM eventbus.cursor")) == [(0,), (1,)], 60, "it is committed")
    holder.close()

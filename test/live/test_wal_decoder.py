# What it is: the decoder, a process of its own: what holds it up or ends it is nobody else's, and nothing is lost by it.
# Who calls it: pytest.
# Never: looks at what decoding makes of a change; that is for test_wal.py and test_undecodable.py.
import os
import signal
import time

import pytest

from faults import terminate_sender
from servers import PostgresCluster, eventually

from test_parked_keys import declare_queues, parked_keys, wait_parked_keys
from test_wal import WAL_SETTINGS, publish_wal, text_of
from test_wal_parked_keys import publish, publish_healthy, numbers_of
from test_wal_faults import slot_of


@pytest.fixture(scope="module")
def cluster():
    with PostgresCluster(name="decoder", config=dict(WAL_SETTINGS, max_wal_size="'1GB'", autovacuum="off",
                                                     max_slot_wal_keep_size="'64MB'")) as server:
        yield server


@pytest.fixture
def route(db, redis_server, name):
    """One from the WAL, and one from the log on the same broker."""
    db.run("CREATE TABLE item (id int CONSTRAINT item_pkey PRIMARY KEY, words text)")
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"stream:{name}", "public.#, shop.#", source="wal")
    db.route("log", "redis", f"stream:{name}-log", "log.#")
    db.wait_state("out", "active", deadline=60)
    return name


def decoder(db):
    return db.one("SELECT pid FROM pg_stat_activity WHERE datname = %s AND backend_type = 'pg_eventbus decoder'", db.name)


def wait_decoder(db, but=None):
    return eventually(lambda: (pid := decoder(db)) != but and pid, 60, "a decoder runs")


def wait_confirmed(db):
    """Nothing of before is decoded again. One event more arrives."""
    db.run("CHECKPOINT")
    end = db.one("SELECT pg_current_wal_insert_lsn()")
    db.run("SELECT eventbus.publish_wal('shop.mark', '1')")
    eventually(lambda: db.one("SELECT restart_lsn >= %s::pg_lsn - 2000 FROM pg_replication_slots WHERE slot_name = %s", end,
                              slot_of(db)["slot_name"]), 60, "the slot releases what came before")


def keys(redis_server, name):
    return [text_of(entry).get("key") for entry in redis_server.stream(name)]


def test_an_open_change_of_a_table_holds_up_nobody(db, route, redis_server):
    """Whose lock it takes, decoding need not ask for: it looks at the table as it was."""
    client = redis_server.client()
    db.run("INSERT INTO item SELECT g, 'x' FROM generate_series(1, 100) g")
    eventually(lambda: client.xlen(route) == 100, 60, "what came before")
    other = db.connect(autocommit=False)
    with other.cursor() as cursor:
        db.run("SELECT eventbus.pause_route('out')")
        db.run("INSERT INTO item VALUES (101, 'before')")
        cursor.execute("ALTER TABLE item DROP CONSTRAINT item_pkey")
        sender = db.sender("out")
        terminate_sender(db)  # what is known of the table is looked up again
        db.run("SELECT eventbus.resume_route('out')")
        publish_wal(db, "shop.later", {})
        eventually(lambda: client.xlen(route) == 102, 60, "changes arrive meanwhile")
        assert db.sender("out") != sender
        db.publish("log.x", 1)
        eventually(lambda: client.xlen(f"{route}-log") == 1, 60, "the log's as well")
        other.rollback()
    assert keys(redis_server, route)[100] == "101"
    other.close()


def test_a_lock_in_an_output_function_is_told_and_costs_only_the_wal(db, route, redis_server, cluster):
    """A row in a column is written by us, without one; a range of rows by PostgreSQL, which locks their type's relation."""
    client = redis_server.client()
    db.run("CREATE TYPE part AS (a int, b text)")
    db.run("CREATE TYPE parts AS RANGE (subtype = part)")
    db.run("CREATE TABLE whole (id int PRIMARY KEY, p part)")
    db.run("CREATE TABLE ranges (id int PRIMARY KEY, r parts)")
    db.run("INSERT INTO whole SELECT g, (g, 'x')::part FROM generate_series(1, 300) g")
    db.run("INSERT INTO ranges SELECT g, parts((g, 'x')::part, (g, 'y')::part) FROM generate_series(1, 300) g")
    eventually(lambda: client.xlen(route) == 600, 60, "what came before")
    wait_confirmed(db)
    other = db.connect(autocommit=False)
    with other.cursor() as cursor:
        cursor.execute("ALTER TYPE part ADD ATTRIBUTE c int")
        db.run("SET lock_timeout = '5s'")
        db.run("INSERT INTO whole SELECT 301, p FROM whole WHERE id = 300")
        db.run("SELECT pg_terminate_backend(%s)", wait_decoder(db))  # another one knows nothing of the type yet
        eventually(lambda: client.xlen(route) == 602, 60, "a row arrives meanwhile")
        db.run("INSERT INTO ranges SELECT 301, r FROM ranges WHERE id = 300")
        begun = time.monotonic()
        try:
            db.wait_status("out", 30, state="failing", last_error=lambda text: text and "lock" in text)
            assert time.monotonic() - begun < 15
            db.publish("log.x", 1)
            eventually(lambda: client.xlen(f"{route}-log") == 1, 60, "the log's routes continue")
            sender = db.sender("out")
            terminate_sender(db)
            assert eventually(lambda: db.sender("out") != sender, 30, "SIGTERM is obeyed")
        finally:
            other.rollback()
    eventually(lambda: client.xlen(route) == 603, 60, "it arrives when the lock is gone")
    assert not db.dead("out")
    other.close()


def test_a_decoder_that_somebody_ends(db, route, redis_server):
    """Another one begins; nothing is lost, nothing comes twice into a stream."""
    client = redis_server.client()
    pids = set()
    for n in range(1, 6):
        db.run("INSERT INTO item SELECT g, 'x' FROM generate_series(%s, %s) g", n * 1000, n * 1000 + 499)
        pid = wait_decoder(db)
        pids.add(pid)
        db.run("SELECT pg_terminate_backend(%s)", pid)
        db.run("INSERT INTO item SELECT g, 'x' FROM generate_series(%s, %s) g", n * 1000 + 500, n * 1000 + 999)
        wait_decoder(db, but=pid)
    eventually(lambda: client.xlen(route) == 5000, 90, "all arrive")
    assert keys(redis_server, route) == [str(n) for n in range(1000, 6000)]
    assert len(pids) == 5
    db.wait_status("out", 60, state="active", delivered=5000)


def test_no_slot_for_a_decoder(redis_server, name):
    with PostgresCluster(name="full", config=dict(WAL_SETTINGS, max_worker_processes="4")) as server:
        from database import Database
        db = Database(server, "full")
        db.broker("redis", redis_server.url)
        db.route("log", "redis", f"stream:{name}-log", "log.#")
        db.route("out", "redis", f"stream:{name}", "shop.#", source="wal")
        # The launchers, PostgreSQL's own and ours, the keeper, the sender: that is all.
        row = db.wait_status("out", 60, state="failing", last_error=lambda text: text and "max_worker_processes is 4" in text)
        db.publish("log.x", 1)
        eventually(lambda: redis_server.client().xlen(f"{name}-log") == 1, 60, "routes from the log do without")
        slots = next(check for check in db.health() if check["name"] == "worker slots")
        assert slots["level"] == "error" and "max_worker_processes = 6" in slots["hint"], (slots, row)
        warnings = [line for line in server.log_text().splitlines()
                    if "no background worker slot is free for the decoder" in line and "WARNING" in line]
        assert len(warnings) == 1, "told once"
        server.execute("ALTER SYSTEM SET max_worker_processes = 8")
        server.restart()
        db.reconnect()
        db.wait_state("out", "active", deadline=60)
        publish_wal(db, "shop.x", {})
        eventually(lambda: redis_server.client().xlen(name) == 1, 60, "it arrives")
        assert next(check for check in db.health() if check["name"] == "worker slots")["level"] == "ok"


def test_other_databases_leave_no_slot_behind(db, route, cluster, redis_server):
    """More WAL than the server keeps for a slot, in a few seconds, and none of it the route's."""
    other = cluster.connect("postgres")
    with other.cursor() as cursor:
        cursor.execute("CREATE TABLE filler (words text)")
        slot = slot_of(db)["slot_name"]
        begun = db.one("SELECT pg_current_wal_lsn()")
        for _ in range(12):
            cursor.execute("INSERT INTO filler SELECT repeat('z', 1000) FROM generate_series(1, 20000)")
            eventually(lambda: db.one("SELECT pg_current_wal_lsn() - restart_lsn < 30000000 FROM pg_replication_slots "
                                      "WHERE slot_name = %s", slot), 12, "the slot comes along")
            cursor.execute("CHECKPOINT")
        assert db.one("SELECT pg_current_wal_lsn() - %s::pg_lsn", begun) > 3 * 64 * 1024 * 1024
        # A transaction that holds the place back, and ends without any more WAL than its commit.
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO filler SELECT repeat('z', 1000) FROM generate_series(1, 40000)")
        pid = wait_decoder(db)
        eventually(lambda: db.one("SELECT state = 'idle' AND pg_current_wal_lsn() - restart_lsn > "
                                  "35000000 FROM pg_stat_activity, pg_replication_slots WHERE pid = %s "
                                  "AND slot_name = %s", pid, slot), 60, "all that can be read is, and it is held back")
        cursor.execute("COMMIT")
        eventually(lambda: db.one("SELECT pg_current_wal_lsn() - restart_lsn < 30000000 FROM pg_replication_slots "
                                  "WHERE slot_name = %s", slot), 12, "the slot comes along once it has ended")
        cursor.execute("DROP TABLE filler")
    other.close()
    assert slot_of(db)["wal_status"] != "lost"
    publish_wal(db, "shop.x", {})
    eventually(lambda: redis_server.client().xlen(route) == 1, 60, "delivery resumes")


def test_an_idle_decoder_sleeps(db, route):
    pid = wait_decoder(db)

    def switches():
        with open(f"/proc/{pid}/status", encoding="utf-8") as status:
            return sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)
    publish_wal(db, "shop.x", {})
    db.wait_status("out", 60, delivered=1, in_flight=0)
    seen = []

    def sleeps():
        """For five seconds it has been woken twice at most."""
        seen.append((time.monotonic(), switches()))
        old = [count for at, count in seen if at <= seen[-1][0] - 5]
        return old and seen[-1][1] - old[-1] <= 2
    eventually(sleeps, 90, "it sleeps")


def test_a_parked_key_survives_two_starts_in_short_succession(db, rabbit, name):
    declare_queues(rabbit, name)
    db.broker("rabbit", rabbit.url)
    db.route("out", "rabbit", f"exchange:{name}", "rest.#, full.#", source="wal")
    db.wait_state("out", "active", deadline=60)
    stuck = publish(db, "full.t", 20, "'stuck'")
    db.wait_error("out", "nack|reject|confirm")
    healthy = publish_healthy(db, 5000)
    wait_parked_keys(db, 1)
    db.wait_status("out", 60, delivered=len(healthy) + 1)
    for pause in (0.0, 0.05, 0.1, 0.15, 0.2, 0.3):
        terminate_sender(db)
        pid = db.sender("out")
        deadline = time.monotonic() + pause
        while time.monotonic() < deadline:  # how long the second one lives is what is tried
            pass
        os.kill(pid, signal.SIGTERM)
        eventually(lambda pid=pid: db.sender("out") != pid, 60, "the next sender")
        assert len(parked_keys(db)) == 1
    taken = rabbit.take(f"{name}_full", len(stuck), 90)
    assert list(dict.fromkeys(numbers_of(taken))) == stuck, "all of the key, in its order"
    wait_parked_keys(db, 0)


@pytest.mark.parametrize("table", ["eventbus.cursor", None])
def test_rewrites_while_a_route_is_paused(db, route, redis_server, table):
    """Of all tables, the catalog's as well. A sender that begins then decodes what lies before them."""
    client = redis_server.client()
    db.run("SELECT eventbus.pause_route('out')")
    for n in range(1, 21):
        db.run("INSERT INTO item VALUES (%s, 'x')", n)
        db.publish("log.x", n)
    eventually(lambda: client.xlen(f"{route}-log") == 20)
    db.run(f"VACUUM FULL {table or ''}")
    db.run("INSERT INTO item VALUES (21, 'x')")
    terminate_sender(db)
    db.run("SELECT eventbus.resume_route('out')")
    eventually(lambda: client.xlen(route) == 21, 60, "all arrive")
    db.publish("log.x", 21)
    eventually(lambda: client.xlen(f"{route}-log") == 21, 60, "routes from the log continue")
    assert keys(redis_server, route) == [str(n) for n in range(1, 22)]
    db.wait_status("out", 60, state="active", last_error=None)


def test_a_table_that_changes_on_the_backlog(db, route, redis_server):
    """Rows from before an ALTER TABLE, decoded behind an error and beside another route that begins."""
    client = redis_server.client()

    def wards():
        return [e for e in map(text_of, redis_server.stream(route)) if e["topic"].startswith("public.ward.")]
    db.run("SELECT eventbus.pause_route('out')")
    db.run("CREATE TYPE mood AS ENUM ('good', 'bad')")
    db.run("CREATE TABLE kept AS SELECT 'bad'::mood AS m")
    db.run("DELETE FROM pg_enum WHERE enumlabel = 'bad'")
    db.run("CREATE TABLE ward (id int PRIMARY KEY, a int, m mood, b text)")
    db.run("INSERT INTO ward SELECT g, g, 'good', 'b' || g FROM generate_series(1, 300) g")
    db.run("INSERT INTO ward SELECT 301, 301, m, 'b301' FROM kept")
    db.run("INSERT INTO ward SELECT g, g, 'good', 'b' || g FROM generate_series(302, 400) g")
    db.run("ALTER TABLE ward ALTER a TYPE text USING 'text ' || a, DROP b, ADD c bigint DEFAULT 7")
    db.run("INSERT INTO ward SELECT g, 'text ' || g, 'good', 7 FROM generate_series(401, 500) g")
    db.route("second", "redis", f"stream:{route}-second", "public.ward.#", source="wal", format="row")
    db.wait_state("second", "active", deadline=60)
    db.run("SELECT eventbus.resume_route('out')")
    eventually(lambda: len(wards()) == 499, 60, "all but the one that cannot be decoded")
    db.wait_dead("out", 1)
    rows = {int(e["key"]): e["payload"] for e in wards()}
    assert all(f'"a":{n},' in rows[n] and f'"b":"b{n}"' in rows[n] for n in range(1, 401) if n != 301)
    assert all(f'"a":"text {n}"' in rows[n] and '"c":7' in rows[n] for n in range(401, 501))
    db.run("INSERT INTO ward VALUES (501, 'x', 'good', 8)")
    eventually(lambda: len(wards()) == 500 and client.xlen(f"{route}-second") == 1, 60, "both get what comes")


def own_memory(pid):
    """In megabytes, without what is shared."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024


def test_a_large_event_leaves_no_memory_behind(db, route, redis_server):
    client = redis_server.client()
    db.run("CREATE TABLE large (id int PRIMARY KEY, words text)")
    db.run("ALTER TABLE large ALTER words SET STORAGE EXTERNAL")
    db.run("INSERT INTO large VALUES (1, repeat('x', 1000000))")
    eventually(lambda: client.xlen(route) == 1, 60, "a small one")
    wait_confirmed(db)
    pids = {"decoder": wait_decoder(db), "sender": db.sender("out")}
    before = {kind: own_memory(pid) for kind, pid in pids.items()}
    db.run("INSERT INTO large VALUES (2, repeat('x', 150000000))")
    db.run("SELECT eventbus.publish_wal('shop.large', to_jsonb(repeat('x', 16000000)))")
    eventually(lambda: client.xlen(route) == 4, 120, "the large ones")
    db.wait_status("out", 60, delivered=4, in_flight=0)
    assert pids == {"decoder": wait_decoder(db), "sender": db.sender("out")}, "the same processes"
    for kind, pid in pids.items():
        eventually(lambda kind=kind, pid=pid: own_memory(pid) < before[kind] + 15, 30,
                   f"{kind} gives it back: {own_memory(pid)} MB, {before[kind]} before")


def test_a_large_transaction_that_goes_on_in_its_middle_fits_into_memory(db, route, redis_server):
    """It lies before the slot's confirmed_flush_lsn, where PostgreSQL streams nothing, and is decoded in one stroke."""
    client, rows = redis_server.client(), 150000
    db.run("INSERT INTO item SELECT g, repeat('x', 900) FROM generate_series(1, %s) g", rows)
    eventually(lambda: client.xlen(route) > 20000, 60, "a part of it arrives")
    db.run("SELECT eventbus.pause_route('out')")
    db.wait_status("out", 60, state="paused", in_flight=0)
    there = client.xlen(route)
    assert there < rows, "too late to show anything"
    end = db.one("SELECT split_part(%s, '-', 1)::pg_lsn", text_of(redis_server.stream(route)[-1])["id"])
    eventually(lambda: db.one("SELECT confirmed_flush_lsn >= %s FROM pg_replication_slots WHERE slot_name = %s", end,
                              slot_of(db)["slot_name"]), 60, "its beginning is confirmed")
    pid = wait_decoder(db)
    terminate_sender(db)
    db.run("SELECT eventbus.resume_route('out')")
    largest, decoding = 0, wait_decoder(db, but=pid)

    def all_there():
        nonlocal largest
        largest = max(largest, own_memory(decoding))
        return client.xlen(route) == rows
    eventually(all_there, 120, "all of it")
    assert keys(redis_server, route) == [str(n) for n in range(1, rows + 1)]
    assert largest < 100, f"{largest} MB for a transaction of {rows * 900 / 1e6} MB"


def test_routes_that_change_while_a_decoder_starts(db, route, redis_server, cluster):
    """What is published after alter_route or create_route has returned is taken as they say, however long a start takes."""
    client = redis_server.client()
    db.route("changing", "redis", f"stream:{route}-changing", "t0.#", source="wal")
    db.wait_state("changing", "active", deadline=60)
    cluster.reload(post_auth_delay="1")
    try:
        for turn in range(1, 5):
            db.run("SELECT pg_terminate_backend(%s)", wait_decoder(db))
            db.run(f"SELECT eventbus.alter_route('changing', topics => 't{turn}.#')")
            db.route(f"new{turn}", "redis", f"stream:{route}-new{turn}", f"n{turn}.#", source="wal")
            sender = db.sender("out")
            if turn % 2 == 0:
                os.kill(sender, signal.SIGSTOP)
            try:
                for topic in (f"t{turn}.x", f"n{turn}.x", "shop.x"):
                    publish_wal(db, topic, turn)
                late = time.monotonic() + 3  # by then the decoder is there before its sender, if it was started
                eventually(lambda: turn % 2 == 1 or time.monotonic() > late)
            finally:
                os.kill(sender, signal.SIGCONT)
            end = db.one("SELECT pg_current_wal_insert_lsn()")
            assert db.one("SELECT eventbus.wait_for_delivery(%s::pg_lsn, '60 s')", end)
            assert client.xlen(f"{route}-new{turn}") == 1 and client.xlen(f"{route}-changing") == turn
            assert client.xlen(route) == turn
    finally:
        cluster.reload(post_auth_delay=None)

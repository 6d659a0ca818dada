# What it is: what operators and other people's transactions do to a server: the soak's hands that break nothing.
# Who calls it: soak.py, by the seed's dice.
# Never: is counted without having seen that it happened; ends what it began in the session that others wait for.
import os
import re

import psycopg2

from processes import eventually, make_directory, remove_directory

HANDS = {}  # name -> (weight, is it a fault, function)
SEGMENTS = [f"eventbus.log_{i}" for i in range(4)]
OTHERS = ["eventbus.cursor", "eventbus.broker_config", "eventbus.route_config", "eventbus.dead_letter_store", "sent",
          "counters", "item"]
VACUUMS = ["", "", "FREEZE", "FULL", "TRUNCATE ON", "INDEX_CLEANUP ON", "INDEX_CLEANUP OFF", "DISABLE_PAGE_SKIPPING",
           "ANALYZE", "FREEZE, DISABLE_PAGE_SKIPPING, TRUNCATE ON", "FULL, FREEZE, ANALYZE", "PARALLEL 2",
           "PROCESS_TOAST OFF"]
FORMATS = ["plain", "custom", "directory", "tar"]


class NotNow(Exception):
    """The hand had no hold this time: a lock was taken, or the server refuses such a thing. It is not counted."""


def hand(weight=1.0, fault=False):
    def register(function):
        HANDS[function.__name__] = (weight, fault, function)
        return function
    return register


def some_tables(world):
    """Segments mostly: all of them, or one."""
    return world.dice.choice([SEGMENTS, SEGMENTS, [world.dice.choice(SEGMENTS)], [world.dice.choice(OTHERS)],
                              ["eventbus.cursor"]])


def place(world, table):
    return world.sql("SELECT relfilenode FROM pg_class WHERE oid = %s::regclass", table)[0][0]


@hand(6)
def vacuum(world):
    """All forms, of single tables and of the whole database."""
    form = world.dice.choice(VACUUMS)
    tables = some_tables(world) if world.dice.random() < 0.8 else []
    said = world.told(f"VACUUM ({', '.join(filter(None, ['VERBOSE', form]))}) {', '.join(tables)}")
    vacuumed = set(re.findall(r'vacuuming "(?:[^".]+\.)?(\w+\.\w+)"', said))
    wanted = {name if "." in name else f"public.{name}" for name in tables or SEGMENTS + OTHERS}
    assert wanted <= vacuumed, f"VACUUM ({form}) left out {wanted - vacuumed}: {said[-2000:]}"
    world.figures["dead tuples of the log that VACUUM removed"] += sum(
        int(count) for count in re.findall(r'eventbus\.log_\d".*?(?:tuples: |found )(\d+) remov', said, re.S))


@hand(0.7)
def vacuumdb(world):
    words = world.dice.choice([["--all"], ["--freeze"], ["--full"], ["--analyze", "--jobs=2"], ["--analyze-in-stages"],
                               ["--disable-page-skipping"]])
    said = world.program("vacuumdb", "--echo", *words, *([] if "--all" in words else ["-d", world.db.name]))
    assert re.search(r"^(VACUUM|ANALYZE)", said, re.M), said


@hand(0.5)
def anti_wraparound(world):
    """Uses up transaction ids until autovacuum has to come, also to tables that it is turned off for. A segment that is
    truncated is young again: one route is stalled meanwhile, so that they are held."""
    count = ("SELECT sum(pg_stat_get_autovacuum_count(oid)) FROM pg_class "
             "WHERE relnamespace = 'eventbus'::regnamespace AND relname ~ '^log_[0-9]$'")
    world.loosen()  # what holds xmin back keeps the ids' age
    world.sql("SELECT pg_reload_conf()")  # autovacuum plans again: by a clock that was set back it may sleep for an hour
    route = world.dice.choice([name for name in world.routes if not name.startswith("wal_")])
    world.sql("SELECT eventbus.pause_route(%s)", route)

    def came():
        # Slots keep catalogs' rows until a snapshot is logged: by a clock that was set back the background writer logs
        # none for an hour, and autovacuum stays with the first database whose catalogs cannot be frozen.
        world.sql("CHECKPOINT")
        return eventually(lambda: world.sql(count)[0][0] > before, 10)

    try:
        before = world.sql(count)[0][0]
        for _ in range(3):
            world.sql("""DO $$ BEGIN
                FOR i IN 1 .. 40000 LOOP
                    BEGIN INSERT INTO others VALUES (i); EXCEPTION WHEN division_by_zero THEN NULL; END;
                END LOOP;
            END $$""")
        eventually(came, 90, "autovacuum comes to the log against wraparound")
    finally:
        world.later(0, lambda: world.sql("SELECT eventbus.resume_route(%s)", route))
    world.sql("TRUNCATE others")


@hand()
def analyze(world):
    tables = world.dice.choice([[], some_tables(world)])
    said = world.told(f"ANALYZE VERBOSE {', '.join(tables)}")
    assert all(f'"{table}"' in said for table in tables if "." in table) and 'analyzing "' in said, said


@hand(0.7)
def reindex(world):
    what = world.dice.choice([f'DATABASE "{world.db.name}"', f'SYSTEM "{world.db.name}"', "SCHEMA eventbus",
                              "TABLE eventbus.cursor", "TABLE sent", "TABLE CONCURRENTLY eventbus.cursor",
                              f"TABLE {world.dice.choice(SEGMENTS)}"])
    said = world.told(f"REINDEX (VERBOSE) {what}")
    assert "was reindexed" in said, said


@hand(0.7)
def cluster(world):
    if world.dice.random() < 0.3:
        return all_clustered(world)
    table, index = world.dice.choice([("eventbus.cursor", "cursor_pkey"), ("sent", "sent_pkey"), ("item", "item_pkey")])
    before = place(world, table)
    world.sql(f"CLUSTER {table} USING {index}")
    assert place(world, table) != before, f"CLUSTER left {table} where it was"


def all_clustered(world):
    world.sql("ALTER TABLE eventbus.cursor CLUSTER ON cursor_pkey")
    before = place(world, "eventbus.cursor")
    world.sql("CLUSTER")
    assert place(world, "eventbus.cursor") != before, "CLUSTER left eventbus.cursor where it was"


def rewritten(world, table, how):
    """The table gets another file with the same rows."""
    before = place(world, table)
    if how == "fillfactor":
        world.sql(f"ALTER TABLE {table} SET (fillfactor = {world.dice.randint(50, 100)})")
        world.sql(f"VACUUM FULL {table}")
    elif how == "tablespace":
        now = world.sql("SELECT reltablespace FROM pg_class WHERE oid = %s::regclass", table)[0][0]
        world.sql(f"ALTER TABLE {table} SET TABLESPACE {'pg_default' if now else 'elsewhere'}")
    elif table == "eventbus.cursor":
        world.sql(f"ALTER TABLE {table} ALTER settled_ids TYPE bigint[] USING settled_ids || '{{}}'::bigint[]")
    else:  # whose columns are all in a view
        now = world.sql("SELECT amname FROM pg_class c JOIN pg_am a ON a.oid = relam WHERE c.oid = %s::regclass", table)
        world.sql(f"ALTER TABLE {table} SET ACCESS METHOD {'heap' if now == [('heap_too',)] else 'heap_too'}")
    assert place(world, table) != before, f"{how} left {table} where it was"


def one_of_ours(world):
    return world.dice.choice(SEGMENTS * 2 + ["eventbus.cursor"])


@hand()
def rewrite(world):
    """By VACUUM FULL, which takes rows with their transactions."""
    rewritten(world, one_of_ours(world), "fillfactor")


@hand()
def copy_elsewhere(world):
    """Page for page, by ALTER TABLE … SET TABLESPACE."""
    rewritten(world, one_of_ours(world), "tablespace")


@hand(0.5)
def rows_anew(world):
    """By ALTER TABLE that stores each row as one of its own transaction."""
    rewritten(world, one_of_ours(world), "rows anew")


@hand(0.4, fault=True)
def rewrite_within_a_batch(world):
    """Cursors stand in the midst of a transaction's events when its segment is written again, without what was rolled
    back before them; then the senders begin again."""
    world.loosen()
    world.publish_many(6000, commit=False)
    world.publish_many(3000)
    arrived = world.redis.client().xlen("s")
    world.publish_many(9000, wait=False)
    eventually(lambda: world.redis.client().xlen("s") > arrived + 3500, 60, "a part of them arrives")
    for server in (world.redis, world.rabbit, world.mosquitto):
        server.freeze()
    try:
        for table in SEGMENTS:
            world.patiently(lambda table=table: rewritten(world, table, "fillfactor"))
        world.terminate("pg_eventbus sender")
    finally:
        for server in (world.redis, world.rabbit, world.mosquitto):
            server.thaw()


@hand()
def checkpoint(world):
    before = world.sql("SELECT checkpoint_lsn FROM pg_control_checkpoint()")[0][0]
    world.sql("CHECKPOINT")
    assert world.sql("SELECT checkpoint_lsn FROM pg_control_checkpoint()")[0][0] != before


@hand(0.5)
def dump(world):
    how = world.dice.choice(FORMATS)
    directory = make_directory("dump", world.postgres.user)
    try:
        path = os.path.join(directory, "dump")
        world.program("pg_dump", "-d", world.db.name, f"--format={how}", "-f", path)
        if how == "plain":
            with open(path) as text:
                assert "CREATE EXTENSION IF NOT EXISTS pg_eventbus" in text.read()
        else:
            assert "EXTENSION - pg_eventbus" in world.program("pg_restore", "-l", path)
    finally:
        remove_directory(directory)


@hand(1.5)
def reload(world):
    name, value = world.dice.choice([
        ("batch_events", world.dice.choice([1, 7, 300, 2000, 50000])), ("rotation_period", world.dice.randint(1, 10)),
        ("safety_poll", world.dice.choice([100, 2000, 60000])),
        ("segment_size", world.dice.choice(["64kB", "256kB", "1MB", "16MB"]))])
    world.sql(f"ALTER SYSTEM SET eventbus.{name} = '{value}'")
    world.sql("SELECT pg_reload_conf()")
    eventually(lambda: world.sql("SELECT setting IN (SELECT setting FROM pg_file_settings WHERE name = s.name) OR "
                                 "source = 'configuration file' FROM pg_settings s WHERE name = %s",
                                 f"eventbus.{name}")[0][0], 30, f"eventbus.{name} becomes {value}")
    if name == "batch_events":  # one event at a time is for a while only
        world.later(3, lambda: world.sql("ALTER SYSTEM RESET eventbus.batch_events") or world.sql(
            "SELECT pg_reload_conf()"))


# Transactions that have nothing to do with us, and those that stay open


@hand(1.5)
def foreign_two_phase(world):
    names = [f"foreign {world.load.number()}" for _ in range(world.dice.randint(1, 15))]
    connection = world.db.connect()
    try:
        with connection.cursor() as cursor:
            for name in names:
                cursor.execute("BEGIN")
                cursor.execute("INSERT INTO others VALUES (1)")
                world.load.prepared.begin(name)
                cursor.execute(f"PREPARE TRANSACTION '{name}'")
        there = {row[0] for row in world.sql("SELECT gid FROM pg_prepared_xacts")}
        assert there & set(names), "none of them stands prepared"
    finally:
        connection.close()
        for name in names:
            world.load.prepared.end(name, world.dice.random() * 3, world.dice.choice(["COMMIT", "ROLLBACK"]))


def held(world, column, seconds, *statements, end="commit"):
    """A session whose transaction stays open for so long beside whatever comes next. column: of pg_stat_activity, what
    it holds meanwhile."""
    connection = world.db.connect(autocommit=False, application_name="soak held")
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    assert world.sql(f"SELECT 1 FROM pg_stat_activity WHERE pid = %s AND {column} IS NOT NULL", connection.info.backend_pid)

    def let_go():
        try:
            getattr(connection, end)()
        except psycopg2.Error:
            pass  # a crash has ended it; the table knows how
        connection.close()
    world.later(seconds, let_go)


@hand()
def long_reader(world):
    held(world, "backend_xmin", world.dice.random() * 8, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
         "SELECT count(*) FROM sent")


def event_sql(world):
    """An event with a key of its own."""
    u = world.load.number()
    return (f"INSERT INTO sent SELECT {u}, 'l', 'held{u}', {u}, 'held', eventbus.publish('soak.held', "
            f"jsonb_build_object('u', {u}, 'k', 'held{u}', 'n', {u}), 'held{u}')")


@hand()
def long_publisher(world):
    held(world, "backend_xid", world.dice.random() * 6, event_sql(world), end=world.dice.choice(["commit", "rollback"]))


@hand()
def overlapping_publishers(world):
    """The first one ends while the second one, which began within it, is open."""
    seconds = 0.5 + world.dice.random() * 4
    for number in range(2):
        held(world, "backend_xid", seconds * (number + 1), event_sql(world),
             end=world.dice.choice(["commit", "commit", "rollback"]))


@hand(0.6)
def clock(world):
    """Set back or forward under the server; delivery resumes meanwhile."""
    if world.clock is None:
        raise NotNow("no clock")
    world.loosen()
    world.await_launcher()  # which PostgreSQL starts again by that clock
    by = world.dice.choice([-3600, -3600, -60, -2, 2, 60, 3600])
    moment = world.sql("SELECT extract(epoch FROM clock_timestamp())::float8")[0][0]
    world.clock.jump(by)
    assert abs(world.sql("SELECT extract(epoch FROM clock_timestamp())::float8")[0][0] - moment - by) < 1.5
    world.flows()
    cursors = "SELECT sum(delivered) FROM eventbus.cursor"
    before = world.sql(cursors)[0][0]
    eventually(lambda: world.sql(cursors)[0][0] > before, 30, f"cursors are written with the clock {by} s off")
    world.later(world.dice.random() * 6, lambda: world.clock.jump(-by))


# Changes of the configuration


@hand(1.5)
def pause_and_resume(world):
    route = world.dice.choice(list(world.routes))
    world.sql("SELECT eventbus.pause_route(%s)", route)
    eventually(lambda: world.db_status(route)["state"] == "paused", 30, f"{route} is paused")
    world.later(world.dice.random() * 4, lambda: world.sql("SELECT eventbus.resume_route(%s)", route))


@hand()
def alter_route(world):
    route = world.dice.choice(list(world.routes))
    topics = ", ".join(world.dice.sample(["soak.#", "public.item.#", f"nobody.{world.load.number()}"], 3))
    world.sql("SELECT eventbus.alter_route(%s, topics => %s)", route, topics)
    assert world.sql("SELECT topics FROM eventbus.route WHERE name = %s", route) == [(topics,)]


@hand(fault=True)
def alter_broker(world):
    """Its sender connects again."""
    broker = world.dice.choice(list(world.proxies))
    before = world.proxies[broker].connections
    world.loosen()
    options = world.sql("SELECT options FROM eventbus.broker WHERE name = %s", broker)[0][0]
    seconds = world.dice.choice([n for n in range(3, 10) if n != options.get("connect_timeout")])  # it is another one
    world.sql("SELECT eventbus.alter_broker(%s, options => %s::jsonb)", broker, f'{{"connect_timeout": {seconds}}}')
    eventually(lambda: world.proxies[broker].connections > before, 60, f"the sender of {broker} connects anew")


@hand()
def unrelated_route(world):
    name = f"unrelated{world.load.number()}"
    world.sql("SELECT eventbus.create_broker(%s, %s)", name, world.redis.url)
    world.sql("SELECT eventbus.create_route(%s, %s, 'stream:unrelated', 'nobody.#')", name, name)
    assert world.db_status(name)
    if world.dice.random() < 0.5:
        eventually(lambda: world.db_status(name)["state"] == "active", 60, f"{name} is active")
    world.sql("SELECT eventbus.drop_broker(%s, cascade => true)", name)
    assert not world.db_status(name)


@hand(0.7)
def redeliver(world):
    """An event that its broker refuses becomes a dead letter, and is delivered once the reason is gone."""
    world.loosen()
    client, name = world.redis.client(), f"refused{world.load.number()}"
    client.set(name, "not a list")
    world.sql("SELECT eventbus.create_route(%s, 'redis', %s, 'refused.#')", name, f"list:{name}")
    world.sql("SELECT eventbus.publish('refused.one', '1')")
    eventually(lambda: world.db_status(name)["dead"] == 1, 60, "the event is refused")
    client.delete(name)
    assert world.sql("SELECT eventbus.redeliver(%s)", name) == [(1,)]
    eventually(lambda: client.lrange(name, 0, -1) == [b"1"], 60, "the event is delivered")
    world.sql("SELECT eventbus.drop_route(%s)", name)

# What it is: dumps restored in whatever order pg_restore -j likes: every broker and route is there, and delivers.
# Who calls it: pytest.
# Never: lets a restored sender loose on a broker that is not this test's.
import os
import shutil

import psycopg2
import pytest

from servers import eventually

BROKERS, ROUTES, TIMES = 300, 900, 10
CONFIGURATION = """SELECT (SELECT array_agg((id, name, url, options)::text ORDER BY id) FROM eventbus.broker_config),
                          (SELECT array_agg((id, name, broker_id, destination, topics, options, paused, source)::text
                                            ORDER BY id) FROM eventbus.route_config),
                          (SELECT array_agg(t::text ORDER BY t::text) FROM eventbus.topic_grant t),
                          (SELECT array_agg(d::text ORDER BY d::text) FROM eventbus.ddl_capture d)"""
# Of the tables that a dump carries, what checks a row that comes in.
CHECKS = """SELECT conname FROM pg_constraint WHERE contype = 'f' AND conrelid IN ('eventbus.route_config'::regclass,
                                                                                     'eventbus.dead_letter_store'::regclass)"""


@pytest.fixture
def many(make_database, redis_server, name):
    """Hundreds of brokers, and many times as much in routes as a block holds; one of them delivers."""
    db = make_database()
    db.run("CREATE TABLE item (id int); CREATE ROLE restored_publisher")
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"stream:{name}", "out.#")
    db.run("SELECT eventbus.create_broker('b' || n, 'redis://localhost:1/' || n) FROM generate_series(1, %s) n", BROKERS)
    db.run("SELECT eventbus.create_route('r' || n, 'redis', 'stream:' || repeat('x', 200) || n, 'other.#')"
           " FROM generate_series(1, %s) n", ROUTES)
    # Brokers that have routes have senders; these have nothing but what refers to them.
    db.run("INSERT INTO eventbus.route_config (name, broker_id, destination, topics, paused)"
           " SELECT 'p' || n, (SELECT max(id) FROM eventbus.broker_config) - 3 + n, 'stream:x', 'other.#', true"
           " FROM generate_series(1, 3) n")
    db.run("SELECT eventbus.allow('restored_publisher', 'shop.#'), eventbus.capture_ddl()")
    yield db
    db.run("DROP OWNED BY restored_publisher; DROP ROLE restored_publisher")


def delivers(cluster, begin, db, redis, name):
    """Once the keeper has seen the rows, woken by them or by the test, and has said that they are a copy's."""
    cluster.wait_log(rf"database \"?{db.name}\"? is a copy", begin)
    db.run("SELECT eventbus.adopt()")
    before = redis.client().xlen(name)
    assert db.publish("out.x", 1) > 0
    eventually(lambda: redis.client().xlen(name) > before, 60, "the restored route delivers")


def restored(cluster, target, archive, *options):
    cluster.program("pg_restore", "-j", "4", "--exit-on-error", *options, "-d", target.name, archive)


@pytest.mark.parametrize("form", ["custom", "directory"])
def test_parallel_restores_lose_nothing(many, make_database, cluster, redis_server, name, form):
    archive = os.path.join(cluster.directory, f"{name}.dump")
    cluster.program("pg_dump", "-F", form, "-f", archive, "-d", many.name)
    expected = many.run(CONFIGURATION)
    last_id = many.one("SELECT last_value FROM eventbus.event_id")
    try:
        for time in range(TIMES):
            copy = make_database(f"copy{time}", extension=False)
            begin = cluster.log_size()
            restored(cluster, copy, archive)
            assert copy.run(CONFIGURATION) == expected, f"restore {time}"
            assert copy.one("SELECT last_value FROM eventbus.event_id") >= last_id
            assert not copy.run(CHECKS)
            if time in (0, TIMES - 1):
                delivers(cluster, begin, copy, redis_server, name)  # workers were woken by the rows, and by nothing else
                copy.route("new", "redis", f"stream:{name}:new", "new.#")
                assert copy.one("SELECT count(*) FROM eventbus.route_config") == ROUTES + 5, "ids continue"
            copy.run("DROP OWNED BY restored_publisher")
            copy.drop()
    finally:
        shutil.rmtree(archive, ignore_errors=True)


@pytest.mark.parametrize("options", [("--clean", "--if-exists"), ("--data-only",), ("--data-only", "--disable-triggers")])
def test_over_a_database_that_has_the_extension(many, make_database, cluster, redis_server, name, options):
    archive = os.path.join(cluster.directory, f"{name}.dump")
    cluster.program("pg_dump", "-Fc", "-f", archive, "-d", many.name)
    expected = many.run(CONFIGURATION)
    copy = make_database("copy")
    copy.run("CREATE TABLE item (id int)")
    for _ in range(3):
        if "--clean" not in options:
            # In the order in which workers read them, or one of the two has to give way.
            copy.run("TRUNCATE eventbus.broker_config, eventbus.route_config, eventbus.cursor,"
                     " eventbus.dead_letter_store; DELETE FROM eventbus.topic_grant; DELETE FROM eventbus.ddl_capture")
        begin = cluster.log_size()
        restored(cluster, copy, archive, *options)
        copy.reconnect()
        assert copy.run(CONFIGURATION) == expected
        assert not copy.run(CHECKS)
        if "--disable-triggers" in options:  # nothing tells the workers then
            copy.run("SELECT eventbus.wake_workers()")
        delivers(cluster, begin, copy, redis_server, name)
    copy.run("DROP OWNED BY restored_publisher")


def test_nothing_refers_to_what_is_gone(db, redis_server, name):
    """What foreign keys would do, without their checks of rows that come in: also for whoever writes the tables himself."""
    db.broker("redis", redis_server.url)
    redis_server.client().set(name, "no list")
    db.route("wrong", "redis", f"list:{name}")
    db.route("other", "redis", f"list:{name}")
    db.publish("t", 1)
    db.wait_dead("wrong", 1)
    db.wait_dead("other", 1)
    for statement in ("DELETE FROM eventbus.broker_config", "TRUNCATE eventbus.broker_config"):
        with pytest.raises(psycopg2.errors.ForeignKeyViolation) as error:
            db.run(statement)
        assert error.value.diag.message_detail == "Routes: other, wrong." and "drop_broker" in error.value.diag.message_hint
    db.run("DELETE FROM eventbus.route_config WHERE name = 'wrong'")
    rows = "SELECT (SELECT count(*) FROM eventbus.cursor), (SELECT count(*) FROM eventbus.dead_letter_store)"
    assert db.run(rows) == [(1, 1)]
    db.run("SELECT eventbus.drop_broker('redis', cascade => true)")
    assert db.run(rows) == [(0, 0)]


def test_a_route_that_came_meanwhile_keeps_its_broker(db, redis_server, name):
    """Whatever the deleting transaction's snapshot shows."""
    db.broker("redis", redis_server.url)
    other = db.connect(autocommit=False)
    other.set_session(isolation_level="REPEATABLE READ")
    with other.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM eventbus.route_config")
        db.route("late", "redis", f"list:{name}")
        with pytest.raises(psycopg2.errors.ForeignKeyViolation):
            cursor.execute("DELETE FROM eventbus.broker_config")
    other.close()

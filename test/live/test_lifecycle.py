# What it is: workers come and go with extensions, databases, restarts, slots and promotion, and block nobody.
# Who calls it: pytest.
# Never: accepts a statement that hangs on a worker.
import re
import time

import psycopg2
import pytest

from database import Database
from servers import PostgresCluster, eventually, stays


def timed(action):
    begun = time.monotonic()
    action()
    return time.monotonic() - begun


def freeze_with_events_under_way(db, server):
    server.freeze()
    db.run("SELECT eventbus.publish_text('t', repeat('x', 10000)) FROM generate_series(1, 2000)")
    db.wait_status("out", in_flight=lambda n: n > 0, lag=lambda lag: lag.total_seconds() > 0)


@pytest.fixture
def busy_with_a_frozen_broker(db, frozen_redis, name):
    """The database's sender stands in broker I/O: its broker is frozen with events under way."""
    db.broker("redis", frozen_redis.url)
    db.route("out", "redis", f"stream:{name}")
    db.publish("t", 0)
    eventually(lambda: frozen_redis.client().xlen(name) == 1)
    freeze_with_events_under_way(db, frozen_redis)
    return db


# The matrix: what happens to the database, how it ends, and where its workers stand meanwhile


@pytest.fixture(params=["starting", "running", "in_broker_io"])
def standing(request, db, frozen_redis, name):
    """A database with a route to a Redis of its own, its workers in the named state."""
    db.broker("redis", frozen_redis.url)
    db.route("out", "redis", f"stream:{name}")
    if request.param != "starting":
        db.publish("t", "first")
        eventually(lambda: frozen_redis.client().xlen(name) == 1)
    if request.param == "in_broker_io":
        freeze_with_events_under_way(db, frozen_redis)
    return db


def delivers_again(db, server, key):
    server.thaw()
    db.reconnect()
    event = db.publish("t", "after")
    eventually(lambda: event in server.stream_ids(key), 60, "delivery resumes")


def test_drop_database(standing, cluster):
    assert timed(lambda: standing.drop(force=False)) < 10
    assert not cluster.execute("SELECT 1 FROM pg_database WHERE datname = %s", standing.name)
    standing.wait_workers_gone(10)


def test_drop_database_that_may_not(standing, cluster, frozen_redis, name):
    """Somebody who does not own it."""
    cluster.execute("DROP ROLE IF EXISTS stranger; CREATE ROLE stranger LOGIN")
    stranger = cluster.connect(user="stranger")
    standing.connection.close()
    with pytest.raises(psycopg2.errors.InsufficientPrivilege), stranger.cursor() as cursor:
        cursor.execute(f'DROP DATABASE "{standing.name}"')
    stranger.close()
    delivers_again(standing, frozen_redis, name)


def test_a_stranger_with_createdb_stops_nothing(standing, cluster, frozen_redis, name):
    """They may copy templates, and databases of their own; not this one."""
    cluster.execute("DROP ROLE IF EXISTS stranger; CREATE ROLE stranger LOGIN CREATEDB")
    stranger = cluster.connect(user="stranger")
    pid = standing.sender("out")
    with stranger.cursor() as cursor:
        for statements in ([f'CREATE DATABASE mine TEMPLATE "{standing.name}"'],
                           ["BEGIN", "SAVEPOINT s", f'CREATE DATABASE mine TEMPLATE "{standing.name}"'],
                           ["BEGIN", "SAVEPOINT s", f'ALTER DATABASE "{standing.name}" RENAME TO mine']):
            with pytest.raises(psycopg2.Error):
                for statement in statements:
                    cursor.execute(statement)
            if len(statements) > 1:
                cursor.execute("ROLLBACK TO s")
                assert standing.sender("out") == pid, "the same sender as ever"
                cursor.execute("ROLLBACK")
    stranger.close()
    assert standing.sender("out") == pid
    cluster.execute("DROP ROLE stranger")


@pytest.mark.parametrize("end", ("ROLLBACK TO s", "ROLLBACK TO first"))
def test_workers_come_back_when_what_they_left_for_is_rolled_back(standing, make_database, cluster, frozen_redis, name,
                                                                  end):
    """An owner's RENAME within a savepoint, of two databases in one transaction, which then stays open."""
    other = make_database("other")
    other.broker("frozen", frozen_redis.url)
    other.route("out", "frozen", f"stream:{name}:other")
    other.connection.close()
    standing.connection.close()
    owner = cluster.connect()
    with owner.cursor() as cursor:
        for statement in ("BEGIN", "SAVEPOINT first", "SAVEPOINT s",
                          f'ALTER DATABASE "{standing.name}" RENAME TO "{standing.name}_new"', "SAVEPOINT second",
                          f'ALTER DATABASE "{other.name}" RENAME TO "{other.name}_new"', "RELEASE second", end):
            cursor.execute(statement)
        delivers_again(standing, frozen_redis, name)
        delivers_again(other, frozen_redis, f"{name}:other")
        cursor.execute("ROLLBACK")
    owner.close()


def test_create_database_from_template(standing, make_database, cluster, frozen_redis, name):
    standing.connection.close()
    assert timed(lambda: cluster.execute(f'CREATE DATABASE "{name}_copy" TEMPLATE "{standing.name}"')) < 10
    copy = make_database("copy", extension=False, create=False)
    copy.run("SELECT eventbus.alter_route('out', %s)", f"stream:{name}:copy")
    copy.run("SELECT eventbus.adopt()")
    delivers_again(standing, frozen_redis, name)

    def copied():
        copy.publish("t", "copy")
        return frozen_redis.client().exists(f"{name}:copy")
    eventually(copied, 60, "the copy delivers, too")


def test_create_database_from_template_that_fails(standing, cluster, frozen_redis, name):
    standing.connection.close()
    with pytest.raises(psycopg2.errors.DuplicateDatabase):
        cluster.execute(f'CREATE DATABASE postgres TEMPLATE "{standing.name}"')
    delivers_again(standing, frozen_redis, name)


def test_drop_extension(standing):
    assert timed(lambda: standing.run("DROP EXTENSION pg_eventbus CASCADE")) < 10
    standing.wait_workers_gone(10)


def test_drop_extension_rolled_back(standing, frozen_redis, name):
    assert timed(lambda: standing.run("BEGIN; DROP EXTENSION pg_eventbus CASCADE; ROLLBACK")) < 10
    delivers_again(standing, frozen_redis, name)


def test_drop_database_with_force_while_its_broker_is_frozen(busy_with_a_frozen_broker):
    assert timed(lambda: busy_with_a_frozen_broker.drop(force=True)) < 10
    busy_with_a_frozen_broker.wait_workers_gone(10)


def test_refused_drop_database_leaves_delivery_going(db, stream, cluster):
    """DROP DATABASE fails because of a client: the workers are there again afterwards."""
    db.publish("t", 1)
    stream(1)
    with pytest.raises(Exception, match="being accessed by other users"):
        cluster.execute(f'DROP DATABASE "{db.name}"')
    db.publish("t", 2)
    stream(2, 60)


# CREATE and DROP EXTENSION


def test_create_extension_rolled_back_leaves_no_worker(make_database):
    db = make_database(extension=False)
    db.run("BEGIN; CREATE EXTENSION pg_eventbus; ROLLBACK")
    db.wait_workers_gone()
    db.run("CREATE EXTENSION pg_eventbus")
    eventually(db.workers, why="a keeper")


def test_everything_in_one_transaction(make_database, redis_server, name):
    db = make_database(extension=False)
    db.run("BEGIN; CREATE EXTENSION pg_eventbus")
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"stream:{name}")
    event = db.publish("t", 1)
    db.run("COMMIT")
    eventually(lambda: redis_server.client().exists(name))
    assert redis_server.stream_ids(name) == [event]


def test_drop_extension_sends_the_workers_home_and_it_can_come_again(db, stream, redis_server, name):
    db.publish("t", 1)
    stream(1)
    db.run("DROP EXTENSION pg_eventbus CASCADE")
    db.wait_workers_gone()
    assert not db.one("SELECT 1 FROM pg_namespace WHERE nspname = 'eventbus'")
    db.run("CREATE EXTENSION pg_eventbus")
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"stream:{name}:again")
    event = db.publish("t", 2)
    eventually(lambda: redis_server.client().exists(f"{name}:again"))
    assert redis_server.stream_ids(f"{name}:again") == [event]


def test_create_and_drop_in_quick_succession(make_database, stream, redis_server, name):
    db = make_database("quick", extension=False)
    for n in range(12):
        db.run("CREATE EXTENSION pg_eventbus")
        db.broker("redis", redis_server.url)
        db.route("out", "redis", f"stream:{name}:{n}")
        if n < 11:
            assert timed(lambda: db.run("DROP EXTENSION pg_eventbus CASCADE")) < 10
    db.publish("t", 1)
    eventually(lambda: redis_server.client().exists(f"{name}:11"), 60)


def test_workers_say_whom_they_serve(db, stream, cluster):
    db.publish("t", 1)
    stream(1)
    with open(f"/proc/{db.sender('out')}/cmdline", "rb") as text:
        title = text.read().decode()
    assert db.name in title and "redis" in title
    types = [row[0] for row in cluster.execute("SELECT DISTINCT backend_type FROM pg_stat_activity")]
    assert len([kind for kind in types if "eventbus" in kind]) >= 3, f"launcher, keeper, sender: {types}"


def test_no_transaction_is_open_while_a_broker_is_frozen(busy_with_a_frozen_broker, cluster):
    db = busy_with_a_frozen_broker
    sender = db.sender("out")
    eventually(lambda: cluster.execute("SELECT xact_start IS NULL AND backend_xmin IS NULL FROM pg_stat_activity "
                                       "WHERE pid = %s", sender)[0][0], 5, "the sender holds no transaction")


# The server as a whole


def test_fast_stop_with_frozen_brokers(busy_with_a_frozen_broker, cluster, rabbit, name):
    db = busy_with_a_frozen_broker
    rabbit.declare(name)
    db.broker("rabbit", rabbit.url)
    db.route("copy", "rabbit", f"queue:{name}")
    db.publish("t", 1)
    rabbit.take(name, 1)
    rabbit.freeze()
    try:
        db.run("SELECT eventbus.publish_text('t', repeat('x', 10000)) FROM generate_series(1, 2000)")
        db.wait_status("copy", in_flight=lambda n: n > 0)
        assert cluster.stop("fast") < 5
    finally:
        rabbit.thaw()
        cluster.start()
    db.reconnect()
    assert len(rabbit.take(name, 2000)) == 2000, "it continues where it stopped"


def test_two_databases_with_a_broker_each(make_database, redis_server, rabbit, name):
    first, second = make_database("first"), make_database("second")
    rabbit.declare(name)
    first.broker("b", redis_server.url)
    first.route("out", "b", f"stream:{name}")
    second.broker("b", rabbit.url)
    second.route("out", "b", f"queue:{name}")
    for n in range(100):
        first.publish("t", {"first": n})
        second.publish("t", {"second": n})
    eventually(lambda: redis_server.client().xlen(name) >= 100)
    assert all(b"first" in entry["payload"] for entry in redis_server.stream(name))
    assert all(b"second" in body for _, body, _ in rabbit.take(name, 100))
    first.wait_status("out", delivered=100)
    second.wait_status("out", delivered=100)
    assert first.sender("out") != second.sender("out")


def test_dump_and_restore_carry_brokers_and_routes(db, stream, make_database, cluster, redis_server, name):
    """Not the log: what the dumped database has delivered does not come again."""
    db.route("paused", "redis", f"list:{name}", "a.#", max_attempts=3)
    db.run("SELECT eventbus.pause_route('paused')")
    db.publish("t", "original")
    stream(1)
    dump = cluster.program("pg_dump", "-d", db.name)
    restored = make_database("restored", extension=False)
    cluster.program("psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", restored.name, standard_input=dump)
    restored.run("SELECT eventbus.adopt()")
    restored.wait_state("out", "active")
    restored.run("SELECT eventbus.alter_route('out', %s)", f"stream:{name}:restored")
    event = restored.publish("t", "restored")
    eventually(lambda: redis_server.client().exists(f"{name}:restored"))
    assert redis_server.stream_ids(f"{name}:restored") == [event]
    restored.wait_state("paused", "paused")
    assert len(stream()) == 1
    restored.broker("another", redis_server.url)
    restored.route("another", "another", f"list:{name}:another")


def test_without_preload_publish_works_and_says_so_once(redis_server, name):
    with PostgresCluster(preload=False) as plain:
        db = Database(plain, name)
        db.broker("redis", redis_server.url)
        db.route("out", "redis", f"stream:{name}")
        told = [notice for notice in db.connection.notices if "not preloaded: events will wait" in notice]
        assert len(told) == 3, "CREATE EXTENSION, create_broker and create_route say so"
        assert all("Set shared_preload_libraries = 'pg_eventbus' in postgresql.conf" in notice for notice in told)
        plain.write_config(shared_preload_libraries="'auto_explain'")
        plain.restart()
        db.reconnect()
        hints = [row["hint"] for row in db.health() if row["name"] == "preload"]
        assert "shared_preload_libraries = 'auto_explain, pg_eventbus'" in hints[0]
        db.reconnect()
        ids = [db.publish("t", n) for n in range(3)]
        notices = [notice for notice in db.connection.notices if "shared_preload_libraries" in notice]
        assert len(notices) == 1 and "WARNING" in notices[0] and "HINT" in notices[0]
        assert any(row["level"] == "error" and "shared_preload_libraries" in f"{row['detail']} {row['hint']}"
                   for row in db.health())
        assert not redis_server.client().exists(name)
        plain.write_config(shared_preload_libraries="'pg_eventbus'")
        plain.restart()
        eventually(lambda: redis_server.client().xlen(name) >= 3, why="the waiting events arrive")
        assert redis_server.stream_ids(name) == ids


def test_too_few_worker_slots(redis_server, name):
    """Slots for the launcher and the keeper, none for the sender (one is the server's own)."""
    with PostgresCluster(config={"max_worker_processes": 3}) as small:
        db = Database(small, name)
        db.broker("redis", redis_server.url)
        db.route("out", "redis", f"stream:{name}")
        ids = [db.publish("t", n) for n in range(3)]
        small.wait_log(r"WARNING.*(worker|slot)")
        assert re.search(r"max_worker_processes", small.log_text())
        eventually(lambda: any(row["level"] in ("warning", "error")
                               and "max_worker_processes" in f"{row['detail']} {row['hint']}"
                               for row in db.health()), why="health() says so")
        stays(lambda: len(re.findall(r"WARNING", small.log_text())) <= 3, 3, "once per change, not per attempt")
        small.write_config(max_worker_processes=10)
        small.restart()
        eventually(lambda: redis_server.client().xlen(name) >= 3)
        assert redis_server.stream_ids(name) == ids


def test_standby_is_quiet_and_delivers_after_promotion(durable_redis, name):
    with PostgresCluster() as primary:
        db = Database(primary, name)
        db.broker("redis", durable_redis.url)
        db.route("out", "redis", f"stream:{name}")
        ids = [db.publish("t", n) for n in range(50)]
        eventually(lambda: durable_redis.client().xlen(name) >= 50)
        with PostgresCluster(name="standby", copy_of=primary) as standby:
            durable_redis.kill()
            ids += [db.publish("t", n) for n in range(50, 100)]
            written = db.one("SELECT pg_current_wal_flush_lsn()")
            eventually(lambda: standby.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", written)[0][0])
            workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type ILIKE '%eventbus%'"
            assert standby.execute(workers)[0][0] == 0, "no worker runs in recovery"
            primary.stop("immediate")
            standby.execute("SELECT pg_promote()")
            durable_redis.start()
            promoted = Database(standby, name, extension=False, create=False)
            ids.append(promoted.publish("t", 100))
            eventually(lambda: set(durable_redis.stream_ids(name)) >= set(ids), 60)
            assert durable_redis.stream_ids(name) == ids, "each once, in order"

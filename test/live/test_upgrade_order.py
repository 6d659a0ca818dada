# What it is: files that are replaced while the server runs on with the library that it has loaded, and what starts then.
# Who calls it: pytest.
# Never: replaces files of the real installation. The older library is this one, told another version (make older); with
# FULL=1 it is 0.1's own, built from git.
import os
import subprocess

import psycopg2
import pytest

import first_release
import revision
from database import Database
from installation import Installation
from postgres import directory_of
from servers import PostgresCluster, RabbitNode, RedisServer, eventually, stays

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OLDER = "0.0"
LIBRARIES = ("pg_eventbus.so", "pg_eventbus_redis.so")
REAL = "FULL=1 builds 0.1"


@pytest.fixture
def installation():
    subprocess.run(["make", "--no-print-directory", "-s", "-C", ROOT, "older", f"OLDER_VERSION={OLDER}"], check=True, env={
        name: value for name, value in os.environ.items() if not name.startswith("MAKE")})
    with Installation() as made:
        for library in LIBRARIES:
            made.put_in(library, os.path.join(ROOT, "build", "older", library))
        scripts = os.path.join(directory_of("sharedir"), "extension")
        ours = next(name for name in os.listdir(ROOT) if name.startswith("pg_eventbus--") and name.count("--") == 1 and name.endswith(".sql"))
        made.put_script(os.path.join(scripts, ours), f"pg_eventbus--{OLDER}.sql")
        made.put_script(os.path.join(ROOT, "src", "schema", "00_library.sql"), f"pg_eventbus--{OLDER}--{ours[13:-4].strip('-')}.sql")
        yield made


def replace_files(installation):
    for library in LIBRARIES:
        installation.put_in(library, os.path.join(directory_of("pkglibdir"), library))


def refused(db, sql):
    with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState, match="library of pg_eventbus that is older") as error:
        db.run(sql)
    assert "Restart the server" in error.value.diag.message_hint


def arrived(redis, name):
    return [int(body) for body in redis.client().lrange(name, 0, -1)]


def test_a_server_that_runs_on_with_its_library_when_files_are_replaced(installation, redis_server, name):
    """A sender that runs continues; one that starts finds a module that is not of its library, and its events wait."""
    with PostgresCluster(postgres=installation.postgres) as server:
        db = Database(server, name, extension=False)
        db.run(f"CREATE EXTENSION pg_eventbus VERSION '{OLDER}'")
        db.broker("redis", redis_server.url)
        db.route("out", "redis", f"list:{name}")
        db.publish("t", 0)
        db.wait_status("out", delivered=1)
        begin = server.log_size()
        replace_files(installation)
        db.publish("t", 1)
        db.wait_status("out", delivered=2, state="active")

        refused(db, "ALTER EXTENSION pg_eventbus UPDATE")
        other = Database(server, f"{name}_other", extension=False)
        refused(other, "CREATE EXTENSION pg_eventbus")
        assert db.one("SELECT extversion FROM pg_extension WHERE extname = 'pg_eventbus'") == OLDER

        pid = db.sender("out")
        db.run("SELECT pg_terminate_backend(%s)", pid)
        row = db.wait_status("out", 60, state="held", last_error=lambda text: text and "is of another version" in text)
        assert row["sender_pid"] != pid
        server.wait_log(r"WARNING:  pg_eventbus: .*\"redis\".*is of another version(.|\n)*restart the server", begin)
        assert [check["level"] for check in db.health() if check["name"] == "route out"] == ["error"]
        for number in range(2, 6):
            db.publish("t", number)
        stays(lambda: arrived(redis_server, name) == [0, 1], 1, "they wait")

        server.restart()
        db.reconnect(), other.reconnect()
        server.wait_log(rf"WARNING:  pg_eventbus: events of database {name} wait: its extension is version {OLDER}", begin)
        db.publish("t", 6)
        stays(lambda: arrived(redis_server, name) == [0, 1], 1, "until the update")
        db.run("ALTER EXTENSION pg_eventbus UPDATE")
        eventually(lambda: arrived(redis_server, name) == list(range(7)), 30, "each once")
        other.run("CREATE EXTENSION pg_eventbus")


def test_an_extension_that_is_newer_than_the_library(db, cluster):
    """Where a package was taken back: the hint is not ALTER EXTENSION, which would do nothing."""
    begin = cluster.log_size()
    db.run("UPDATE pg_extension SET extversion = '0.10' WHERE extname = 'pg_eventbus'")
    db.run("SELECT eventbus.wake_workers()")
    cluster.wait_log(r"WARNING:  pg_eventbus: events of database .* wait: .*0\.10(.|\n)*HINT:  Install that version .*restart the server", begin)
    [check] = [row for row in db.health() if row["name"] == "version"]
    assert "restart the server" in check["hint"] and "ALTER" not in check["hint"]
    db.publish("t", 1)
    with pytest.raises(psycopg2.Error) as error:
        db.run("SELECT eventbus.redeliver()")
    assert "restart the server" in error.value.diag.message_hint


# With the library of 0.1

@pytest.fixture
def first(monkeypatch):
    """An installation with all files of 0.1."""
    if os.environ.get("FULL") != "1":
        pytest.skip(REAL)
    if revision.name_of(first_release.COMMIT) is None:
        pytest.skip(f"this clone does not have {first_release.COMMIT}")
    new = {what: directory_of(what) for what in ("pkglibdir", "sharedir")}
    monkeypatch.setenv("PG_CONFIG", revision.build(first_release.COMMIT))
    with Installation() as made:
        made.new = new
        yield made


def replace_all_files(installation):
    """As `make install` does."""
    for file in os.listdir(installation.new["pkglibdir"]):
        if file.startswith("pg_eventbus"):
            installation.put_in(file, os.path.join(installation.new["pkglibdir"], file))
    scripts = os.path.join(installation.new["sharedir"], "extension")
    for file in os.listdir(scripts):
        if file.startswith("pg_eventbus"):
            installation.put_script(os.path.join(scripts, file))


def test_0_1_itself_with_new_files_a_restart_and_the_update(first):
    with RedisServer.durable() as redis, RabbitNode() as rabbit, PostgresCluster(postgres=first.postgres) as server:
        db = Database(server, "kept")
        db.run("CREATE TABLE seen (id int)")
        db.broker("wal", redis.url)
        db.route("changes", "wal", "list:kept:wal", source="wal", tables="public.seen")
        db.wait_state("changes", "active", deadline=60)
        state = first_release.make(db, redis, rabbit)
        held = db.connect(autocommit=False)
        prepared = db.publish("shop.prepared", 1, connection=held)
        held.cursor().execute("PREPARE TRANSACTION 'kept'")
        held.close()
        begin = server.log_size()
        replace_all_files(first)
        state.out += [db.publish("shop.new_files", 1)]
        refused(db, "ALTER EXTENSION pg_eventbus UPDATE")
        refused(Database(server, "other", extension=False), "CREATE EXTENSION pg_eventbus")
        first_release.open_brokers(rabbit)
        for route in ("out", "parked"):
            db.run("SELECT pg_terminate_backend(%s)", db.sender(route))
        redis.start()
        for module in ("redis", "amqp"):
            server.wait_log(f"(WARNING|ERROR):  .*the {module} module of pg_eventbus is of another version", begin, 60)
        state.out += [db.publish("shop.new_files", 2)]
        stays(lambda: first_release.nothing_has_come(state, redis), 2, "they wait for the restart")

        server.restart("immediate")
        db.reconnect()
        server.wait_log(r"WARNING:  pg_eventbus: events of database kept wait: .*version 0\.1", begin)
        state.out += [db.publish("shop.restarted", 3)]
        db.run("COMMIT PREPARED 'kept'")
        db.run("INSERT INTO seen VALUES (1)")
        stays(lambda: first_release.nothing_has_come(state, redis), 2, "and for the update")
        db.run("ALTER EXTENSION pg_eventbus UPDATE")
        state.paused_after += [*state.out[-3:], prepared]
        state.out = sorted([*state.out, prepared])
        first_release.check_delivered(db, state, redis, rabbit)
        first_release.check_letters(db, state, redis)
        first_release.check_paused(db, state, redis)
        first_release.check_rights(db)
        eventually(lambda: redis.client().llen("kept:wal") == 1, 60, "the route from the WAL continues")
        assert [check for check in db.health() if check["level"] == "error"] == []

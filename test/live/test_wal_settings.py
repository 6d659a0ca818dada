# What it is: what the server has to be set to for routes from the WAL, and what is said where it is not.
# Who calls it: pytest.
# Never: leaves a hint untried that names a setting.
import os
import re
import signal

import psycopg2
import pytest

from database import Database
from faults import terminate_sender
from postgres import knows_setting
from servers import PostgresCluster, eventually

from test_wal import WAL_SETTINGS, publish_wal
from test_wal_faults import drop_slot


@pytest.fixture(scope="module")
def cluster():
    with PostgresCluster(config=WAL_SETTINGS) as server:
        yield server


@pytest.fixture
def route(db, redis_server, name):
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"stream:{name}", "shop.#", source="wal")
    db.wait_state("out", "active", deadline=60)


def test_a_server_that_is_not_set_up_says_so(name, redis_server):
    with PostgresCluster(config={"wal_level": "replica"}) as cluster:
        db = Database(cluster, name)
        db.broker("redis", redis_server.url)
        with pytest.raises(psycopg2.Error, match="(?s)wal_level is not logical.*: wal_level = logical"):
            db.route("out", "redis", f"stream:{name}", source="wal")
        for function in ("publish_wal", "publish_now"):
            with pytest.raises(psycopg2.Error, match="wal_level = logical"):
                publish_wal(db, "shop.n", 1, function=function)
        db.connection.close()
    config = dict(WAL_SETTINGS, max_replication_slots=1)
    with PostgresCluster(config=config) as cluster:
        db = Database(cluster, name)
        db.broker("redis", redis_server.url)
        db.run("SELECT pg_create_logical_replication_slot('other', 'test_decoding')")
        with pytest.raises(psycopg2.Error, match="(?s)no replication slot is free.*max_replication_slots = 5"):
            db.route("out", "redis", f"stream:{name}", source="wal")
        # Somebody is quicker than the sender.
        db.run("SELECT pg_drop_replication_slot('other')")
        db.run("BEGIN")
        db.route("out", "redis", f"stream:{name}", source="wal")
        cluster.execute("SELECT pg_create_physical_replication_slot('other')")
        db.run("COMMIT")
        db.wait_status("out", 60, state="failing", last_error="no replication slot is free: all 1 are in use")
        # It waits ever longer between its attempts; who has fixed it need not.
        wait = "next_attempt_at - clock_timestamp() > interval '5 s'"
        eventually(lambda: db.one(f"SELECT {wait} FROM eventbus.status"), 120, "the next attempt is some time away")
        waits_until = db.one("SELECT next_attempt_at FROM eventbus.status")
        db.run("SELECT eventbus.resume_route('out')")
        eventually(lambda: db.one("SELECT next_attempt_at <> %s FROM eventbus.status", waits_until), 60, "it has tried")
        assert db.one("SELECT clock_timestamp() < %s", waits_until), "before its time"
        check = {row["name"]: row for row in db.health()}["WAL"]
        assert (check["level"], check["detail"]) == ("error", "no replication slot is free: all 1 are in use")
        assert check["hint"] == ("Put this line into postgresql.conf and restart the server: max_replication_slots = 5")
        cluster.write_config(max_replication_slots=5)
        cluster.restart()
        db.reconnect()
        db.wait_state("out", "active", deadline=60)
        assert {row["name"]: row for row in db.health()}["WAL"]["level"] == "ok"
        # With a slot the server would not start on such a level.
        drop_slot(db)
        db.wait_state("out", "lost", deadline=60)
        cluster.write_config(wal_level="replica")
        cluster.restart()
        db.reconnect()
        check = {row["name"]: row for row in db.health()}["WAL"]
        assert (check["level"], check["hint"]) == (
            "error", "Put this line into postgresql.conf and restart the server: wal_level = logical")
        db.connection.close()


def last_errors(db, where):
    route = "= 'out'" if where == "status" else "_id = (SELECT id FROM eventbus.route_config WHERE name = 'out') AND parked_key = 0"
    [row] = db.rows(f"SELECT last_error, last_error_at FROM eventbus.{where} WHERE route{route}")
    return row["last_error"], row["last_error_at"]


def test_that_a_slot_was_lost_is_the_last_error_from_then_on(db, route, name):
    slot = db.one("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()")
    drop_slot(db)
    db.wait_status("out", 60, state="lost", last_error=lambda text: text and slot in text)
    eventually(lambda: last_errors(db, "status") == last_errors(db, "cursor"), 60, "the cursor has it as well")
    before = last_errors(db, "status")
    says(db, "sender", "nothing to deliver; 1 of its routes from the WAL lost their replication slot$")
    db.run("SELECT eventbus.restart_route('out')")
    db.wait_status("out", 60, state="active", last_error=before[0], last_error_at=before[1])
    terminate_sender(db)
    db.wait_status("out", 60, state="active", last_error=before[0], last_error_at=before[1])


def says(db, kind, pattern, state="idle"):
    def there():
        rows = db.cluster.execute("SELECT query, state FROM pg_stat_activity WHERE backend_type = %s AND datname = %s",
                                  f"pg_eventbus {kind}", db.name)
        assert len(rows) == 1 and re.search(pattern, rows[0][0]) and rows[0][1] == state, rows
        return True
    eventually(there, 60, f"the {kind} says {pattern}")


def test_what_workers_of_routes_from_the_wal_say_they_do(db, cluster, redis_server, name):
    holder = db.connect(autocommit=False)
    holder.cursor().execute("CREATE TABLE item ()")
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"stream:{name}", source="wal")
    waits = f"(process|transaction).* {holder.info.backend_pid}"
    says(db, "decoder", waits)
    says(db, "sender", f'^broker "redis": nothing to deliver; its replication slot is being made: .*{waits}')
    holder.rollback()
    db.wait_state("out", "active", deadline=60)
    says(db, "decoder", "^waiting for WAL to be written$")
    says(db, "sender", '^broker "redis": nothing to deliver$')
    pid = db.sender("out")
    os.kill(pid, signal.SIGSTOP)
    try:
        db.run("SELECT eventbus.publish_wal('t', to_jsonb(repeat(md5(n::text), 1000))) FROM generate_series(1, 100) n")
        says(db, "decoder", "^waiting for the sender: its routes have no room$")
    finally:
        os.kill(pid, signal.SIGCONT)
    db.wait_status("out", 60, delivered=100)


@pytest.fixture
def libraries(cluster):
    """By the file: ALTER SYSTEM would make one name of a quoted list."""
    before = cluster.config["output_plugin_libraries"]
    yield lambda names: cluster.reload(output_plugin_libraries=f"'{names}'")
    cluster.reload(output_plugin_libraries=before)


if knows_setting("output_plugin_libraries"):  # servers before it let every plugin decode
    def test_what_cannot_be_decoded_is_tried_again_and_holds_up_nothing_else(db, route, redis_server, name, libraries, told):
        db.route("log", "redis", f"stream:{name}-log")
        libraries("pgoutput")
        terminate_sender(db)
        db.wait_status("out", 60, state="failing", last_error=lambda text: text and "output_plugin_libraries" in text)
        says(db, "sender", "nothing to deliver; the WAL cannot be read: .*output_plugin_libraries")
        check = {row["name"]: row for row in db.health()}
        assert check["route out"]["level"] == check["WAL"]["level"] == "error"
        assert "output_plugin_libraries = 'pgoutput, pg_eventbus'" in check["WAL"]["hint"]
        with pytest.raises(psycopg2.Error, match="output_plugin_libraries"):
            db.route("another", "redis", f"stream:{name}", source="wal")
        db.publish("shop.log", {})
        publish_wal(db, "shop.later", {})
        eventually(lambda: redis_server.client().xlen(f"{name}-log") == 1, 60, "the log's route continues")
        libraries("pgoutput, pg_eventbus")
        eventually(lambda: redis_server.client().xlen(name) == 1, 60, "the event arrives once it can be read")
        db.wait_state("out", "active")
        assert len(told("are stalled")) == 1 and len(told("continue")) == 1
        # When it is over, it is still the last thing that went wrong; for the next sender, too.
        for _ in range(2):
            eventually(lambda: last_errors(db, "status") == last_errors(db, "cursor"), 60, "the cursor has it as well")
            words, since = last_errors(db, "status")
            assert "output_plugin_libraries" in words and since is not None
            terminate_sender(db)
            db.wait_state("out", "active")

    def test_a_list_that_alter_system_was_given_in_quotes(db, redis_server, name, setting):
        db.broker("redis", redis_server.url)
        setting("output_plugin_libraries", "pgoutput, pg_eventbus")  # makes one name of it
        with pytest.raises(psycopg2.Error) as error:
            db.route("out", "redis", f"stream:{name}", source="wal")
        hint = error.value.diag.message_hint
        assert hint.startswith("What ALTER SYSTEM is given in quotes is one name.")
        command = re.search("ALTER SYSTEM SET [^;]*;", hint).group(0)
        db.run(command)
        db.cluster.read_config()
        db.route("out", "redis", f"stream:{name}", source="wal")

    def test_lag_where_the_wal_cannot_be_read(db, route, libraries, name):
        db.route("second", "redis", f"stream:{name}-2", "second", source="wal")
        db.wait_state("second", "active", deadline=60)
        libraries("pgoutput")
        before = db.one("SELECT clock_timestamp()")
        terminate_sender(db)
        publish_wal(db, "shop.later", {})
        db.wait_status("out", 60, state="failing", lag=None)
        libraries("pgoutput, pg_eventbus")
        db.wait_status("out", 60, state="active", delivered=1, lag=lambda lag: lag is not None and not lag)
        # What has happened since it last could is counted from then on.
        libraries("pgoutput")
        db.run("SELECT eventbus.drop_route('second')")  # the slot is opened again without it
        db.wait_status("out", 60, state="failing")
        publish_wal(db, "shop.later", {})
        db.wait_status("out", 60, state="failing", lag=lambda lag: lag is not None and lag.total_seconds() >= 1)
        assert db.status("out")["lag"] < db.one("SELECT clock_timestamp()") - before
        libraries("pgoutput, pg_eventbus")
        db.wait_status("out", 60, state="active", delivered=2, lag=lambda lag: lag is not None and not lag)

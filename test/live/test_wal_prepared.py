# What it is: prepared transactions that change the catalog, and decoders that begin while they are not committed yet.
# Who calls it: pytest.
# Never: takes what a new decoder says of a table for right because the one before said it.
import json

import pytest

from servers import PostgresCluster, eventually, wait_gone

from test_wal import WAL_SETTINGS, text_of


@pytest.fixture(scope="module")
def cluster():
    with PostgresCluster(config=dict(WAL_SETTINGS, max_prepared_transactions="5")) as server:
        yield server


@pytest.mark.parametrize("mode", ["fast", "immediate"])
@pytest.mark.parametrize("in_subtransaction", [False, True])
def test_a_decoder_that_begins_at_a_restart_which_it_has_outlasted(db, redis_server, name, mode, in_subtransaction):
    """PostgreSQL 15 keeps with the snapshot of a checkpoint at shutdown not which transactions that run have changed the
    catalog, and takes for granted that none do; prepared ones do. Their commits were overlooked."""
    db.run("CREATE TABLE item (id int PRIMARY KEY, words text)")
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"stream:{name}", source="wal", format="wal2json")
    db.wait_state("out", "active", deadline=60)
    types = lambda: [json.loads(e["payload"])["columns"][1]["type"] for e in map(text_of, redis_server.stream(name))]
    slot = lambda: db.one("SELECT restart_lsn FROM pg_replication_slots WHERE database = current_database()")

    db.run("INSERT INTO item VALUES (1, 'x')")
    change = "ALTER TABLE item ALTER words TYPE varchar"
    preparing = db.connect(autocommit=False)
    with preparing.cursor() as cursor:
        for statement in ["SAVEPOINT s", change, "RELEASE s"] if in_subtransaction else [change]:
            cursor.execute(statement)
        cursor.execute(f"PREPARE TRANSACTION '{name}'")
    preparing.close()
    eventually(lambda: types() == ["text"], 60)
    db.cluster.restart(mode)
    db.reconnect()
    checkpoint = db.one("SELECT checkpoint_lsn FROM pg_control_checkpoint()")

    # What began behind the checkpoint is what the slot goes back there for, once the prepared one is committed.
    running = db.connect(autocommit=False)
    running.cursor().execute("SELECT pg_logical_emit_message(true, 'begun', '')")
    db.run(f"COMMIT PREPARED '{name}'")
    numbers = iter(range(2, 1000))

    def comes_to_checkpoint():
        db.run("CHECKPOINT")
        db.run("INSERT INTO item VALUES (%s, 'x')", next(numbers))
        return slot() == checkpoint

    eventually(comes_to_checkpoint, 60, "the slot begins at the checkpoint")
    pid = db.one("SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_eventbus decoder' AND datname = current_database()")
    db.run("SELECT pg_terminate_backend(%s)", pid)
    wait_gone(pid)
    assert slot() == checkpoint
    last = next(numbers)
    db.run("INSERT INTO item VALUES (%s, 'x')", last)
    eventually(lambda: len(types()) == last, 60, "all arrive")
    running.close()
    assert types() == ["text"] + ["character varying"] * (last - 1)

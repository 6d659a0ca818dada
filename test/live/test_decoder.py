# What it is: the output plugin as its clients see it: over the replication protocol, without preload, and with
#   transactions of many rows; and that a consumer that applies what it is told has the tables.
# Who calls it: pytest. DECODER_SEED changes what happens.
# Never: looks at single records of a format; sql/decoder*.sql does.
import json
import os
import random

import pytest

import replay
from database import Database
from servers import PostgresCluster, eventually
from workload import Workload

SEED = int(os.environ.get("DECODER_SEED", "5"))


@pytest.fixture
def slot(db):
    db.run("SELECT pg_create_logical_replication_slot('decoded', 'pg_eventbus')")
    yield "decoded"
    eventually(lambda: db.one("SELECT active FROM pg_replication_slots WHERE slot_name = 'decoded'") is False, 30,
               "nobody uses the slot any more")
    db.run("SELECT pg_drop_replication_slot('decoded')")


def receive(db, options):
    out, errors = db.cluster.receive(db.name, "decoded", options)
    return out.decode().splitlines(), errors.decode()


def test_a_streaming_client(db, slot):
    """What happens outside of transactions must not need the catalog, where a walsender has none."""
    db.run("CREATE TABLE item (id integer PRIMARY KEY)")
    db.run("SELECT pg_logical_emit_message(false, 'beside', 'x')")
    db.run("INSERT INTO item VALUES (1)")
    lines, _ = receive(db, ["tables=public.*"])
    message, change = map(json.loads, lines)
    assert message["message"] == {"prefix": "beside", "content": "eA=="} and message["op"] == "m"
    assert change["after"] == {"id": 1}
    assert message["source"]["name"] == change["source"]["name"] and message["source"]["db"] == db.name


def test_options_without_a_value(db, slot):
    """Only the replication protocol has them: for switches they mean yes, and version 2."""
    db.run("CREATE TABLE item (id integer PRIMARY KEY)")
    db.run("INSERT INTO item VALUES (1)")
    lines, _ = receive(db, ["format-version", "include-pk", "add-tables=public.item"])
    assert [json.loads(line)["action"] for line in lines][-3:] == ["B", "I", "C"]
    assert json.loads(lines[-2])["pk"] == [{"name": "id", "type": "integer"}]
    for option, complaint in (("tables", 'option "tables" needs a value'),
                              ("no-such-option", 'option "no-such-option" = "(null)" is unknown')):
        assert complaint in receive(db, [option])[1]


@pytest.fixture
def little_memory(db, setting):
    """Decoding spills, or streams, early."""
    setting("logical_decoding_work_mem", "64kB")
    eventually(lambda: db.one("SELECT current_setting('logical_decoding_work_mem')") == "64kB", 30, "the setting is known")


def test_blocks_of_unfinished_transactions(db, slot, little_memory):
    db.run("CREATE TABLE item (id integer PRIMARY KEY, text text)")
    db.run("INSERT INTO item SELECT i, repeat('x', 100) FROM generate_series(1, 3000) i")
    lines, _ = receive(db, ["streaming=on", "tables=public.*"])
    records = [json.loads(line) for line in lines]
    marks = [record["status"] for record in records if "status" in record]
    assert marks[-1] == "STREAM_COMMIT" and marks.count("STREAM_START") == marks.count("STREAM_STOP") > 1
    changes = [record for record in records if "op" in record]
    assert [record["after"]["id"] for record in changes] == list(range(1, 3001))
    assert [record["transaction"]["total_order"] for record in changes] == list(range(1, 3001))
    assert {record["transaction"]["id"] for record in changes} == {records[-1]["id"]}


def test_without_preload_and_without_the_extension():
    with PostgresCluster(preload=False, name="plain") as cluster:
        db = Database(cluster, "plain", extension=False)
        db.run("SELECT pg_create_logical_replication_slot('decoded', 'pg_eventbus')")
        db.run("CREATE TABLE item (id integer PRIMARY KEY)")
        db.run("INSERT INTO item VALUES (1)")
        for read in (lambda: [row[0] for row in db.run("SELECT data FROM pg_logical_slot_peek_changes('decoded', "
                                                       "NULL, NULL)")], lambda: receive(db, [])[0]):
            assert [json.loads(record)["after"] for record in read()] == [{"id": 1}]
        db.connection.close()


def read(db):
    return [row[0] for row in db.run("SELECT data FROM pg_logical_slot_get_changes('decoded', NULL, NULL, "
                                     "'publication_names', 'everything', 'messages', '-*')")]


def rebuild(db, dice, apply, changes=read, **kind):
    """Random changes, decoded now and then, applied to copies; the tables and their copies are then equal."""
    workload = Workload(db, dice, tables=6, ddl=False, **kind)
    kept = {}  # the copies of tables whose rows can be told apart
    for number, table in enumerate(workload.tables):
        db.run(f"CREATE TABLE copy_{number} (LIKE {table})")
        if kind["identity"] == "FULL" or table.kind != "keyless":
            kept[table.schema, table.name] = f"copy_{number}"
    db.run("CREATE PUBLICATION everything FOR TABLE " + ", ".join(map(str, workload.tables))
           + " WITH (publish_via_partition_root)")
    db.run("SELECT count(*) FROM pg_logical_slot_get_changes('decoded', NULL, NULL)")
    kinds = set()
    for _ in range(6):
        for _ in range(30):
            workload.transaction()
        with db.connection.cursor() as cursor:
            for record in changes(db):
                change = json.loads(record)
                copy = kept.get((change["source"]["schema"], change["source"]["table"]))
                if copy:
                    kinds.add(change["op"])
                    apply(cursor, copy, record)
            for table in workload.tables:
                copy = kept.get((table.schema, table.name))
                wrong = copy and replay.differences(cursor, str(table), copy)
                assert not wrong, f"seed {SEED}: " + "\n".join(wrong)
    assert kinds == {"c", "u", "d", "t"}


def test_replaying_the_changes_gives_the_tables(db, slot):
    rebuild(db, random.Random(SEED), replay.apply, identity="FULL")


def test_replaying_the_changes_by_their_keys_gives_the_tables(db, slot):
    """Without the whole old rows: what an UPDATE did not touch and did not log stays as it is."""
    rebuild(db, random.Random(SEED + 1), lambda *change: replay.apply_by_key(*change, "id"), identity="DEFAULT")


def test_replaying_unfinished_transactions_gives_the_tables(db, slot, little_memory):
    """Blocks of transactions, some of which come to nothing, in whole or in part."""
    blocks = replay.Blocks()

    def receive_blocks(db):
        db.run("SELECT pg_logical_emit_message(true, 'flush', '')")
        lines, _ = receive(db, ["streaming=on", "publication_names=everything", "messages=-*"])
        return [change for line in lines for change in blocks.take(line)]

    rebuild(db, random.Random(SEED + 2), lambda *change: replay.apply_by_key(*change, "id"), receive_blocks,
            identity="DEFAULT", many=True)
    assert {"STREAM_START", "STREAM_STOP", "STREAM_ABORT of a part", "STREAM_COMMIT"} <= blocks.marks


def anonymous_memory(pid):
    """In kB; 0 when the process has gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as text:
            return next((int(line.split()[1]) for line in text if line.startswith("RssAnon")), 0)
    except OSError:
        return 0


@pytest.mark.parametrize("options", [["format=debezium"], ["format-version=2"],
                                     ["format-version=1", "write-in-chunks"]], ids=["debezium", "version 2", "chunks"])
def test_a_transaction_of_many_rows_is_not_held_in_memory(db, slot, little_memory, options):
    """What a walsender needs for 30 times the rows is not more by a fraction of their text."""
    db.run("CREATE TABLE item (id bigint PRIMARY KEY, text text)")
    peaks, written = [], []
    for rows in (10_000, 300_000):
        db.run("INSERT INTO item SELECT i, repeat('x', 100) FROM generate_series(1, %s) i", rows)
        path = os.path.join(db.cluster.directory, "received")
        child = db.cluster.start_receiving(db.name, "decoded", ["tables=public.item", *options],
                                           db.one("SELECT pg_current_wal_flush_lsn()"), path)
        peak = 0
        while child.poll() is None:
            for (pid,) in db.run("SELECT active_pid FROM pg_replication_slots WHERE active_pid IS NOT NULL"):
                peak = max(peak, anonymous_memory(pid))
        assert child.returncode == 0, child.stderr.read()
        peaks.append(peak)
        written.append(os.path.getsize(path))
        os.remove(path)
        db.run("TRUNCATE item")
    assert written[1] > 20 * written[0] and written[1] > 30_000_000
    assert 0 < peaks[1] < peaks[0] + 8 * 1024, f"kB at most: {peaks}, bytes written: {written}"

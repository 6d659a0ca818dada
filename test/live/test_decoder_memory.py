# What it is: what decoding keeps in memory: of tables that come and go, nothing.
# Who calls it: pytest.
# Never: counts shared memory, which every process has its part of.
import re

import pytest

from servers import PostgresCluster, eventually
from test_wal import WAL_SETTINGS

TABLES, KB_A_TABLE = 3000, 1
COME_AND_GO = f"""
    DO $$
    BEGIN
        FOR i IN 1..{TABLES} LOOP
            EXECUTE format('CREATE TABLE passing_%s (id integer PRIMARY KEY, a text, b text, c date, d numeric)', i);
            EXECUTE format('INSERT INTO passing_%s VALUES (1, ''a'', ''b'')', i);
            COMMIT;
            EXECUTE format('DROP TABLE passing_%s', i);
            COMMIT;
        END LOOP;
    END $$"""


@pytest.fixture(scope="module")
def cluster():
    with PostgresCluster(config=dict(WAL_SETTINGS, autovacuum="off")) as server:
        yield server


def memory(pid):
    """kB of a process's own."""
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"^RssAnon:\s+(\d+) kB", status.read(), re.M).group(1))


def test_tables_that_come_and_go_leave_nothing_in_a_walsender(db, cluster, tmp_path):
    db.run("SELECT pg_create_logical_replication_slot('passing', 'pg_eventbus')")
    out = tmp_path / "out"
    receiving = cluster.start_receiving(db.name, "passing", ["publication_names=passing"], "FFFFFFFF/0", str(out))
    db.run("CREATE PUBLICATION passing FOR ALL TABLES")
    pid = eventually(lambda: db.one("SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'passing'"), 30,
                     "the slot is read")
    sizes = []
    for round in range(2):
        db.run(COME_AND_GO)
        eventually(lambda: out.exists() and out.read_text().count('"table":"passing_') == (round + 1) * TABLES, 120,
                   "all tables are decoded")
        sizes.append(memory(pid))
    receiving.terminate()
    receiving.wait()
    eventually(lambda: not db.one("SELECT active FROM pg_replication_slots WHERE slot_name = 'passing'"), 30, "it is free")
    db.run("SELECT pg_drop_replication_slot('passing')")
    assert sizes[1] - sizes[0] < TABLES * KB_A_TABLE


def test_tables_that_come_and_go_leave_nothing_in_a_sender(db, redis_server, name):
    """Nor with several selections, each of which has plans of its own."""
    db.broker("redis", redis_server.url)
    for route, options in {"whole": {}, "row": {"format": "row"}, "theirs": {"format": "wal2json"}}.items():
        db.route(route, "redis", f"stream:{name}-{route}", "public.#", source="wal", **options)
        db.wait_state(route, "active", deadline=60)
    pid = db.sender("whole")
    sizes = []
    for round in range(2):
        db.run(COME_AND_GO)
        for route in "whole", "row", "theirs":
            eventually(lambda: redis_server.client().xlen(f"{name}-{route}") == (round + 1) * TABLES, 120,
                       f"all tables are decoded for {route}")
        sizes.append(memory(pid))
    assert db.sender("whole") == pid and sizes[1] - sizes[0] < TABLES * KB_A_TABLE

# What it is: decoding that an error breaks off, which PostgreSQL then swallows: a transaction was rolled back meanwhile.
# Who calls it: pytest.
# Never: lets a fault pass unseen: each look-up in the catalog is broken off once, until there are no more.
import itertools
import os
import re
import subprocess

import pytest

from database import Database
from installation import Installation
from servers import PostgresCluster, eventually
from test_wal import WAL_SETTINGS, text_of

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
TABLES = """
    CREATE SCHEMA s;
    CREATE TYPE mood AS ENUM ('sad', 'glad');
    CREATE TYPE pair AS (a integer, b mood);
    CREATE DOMAIN small AS integer;
    CREATE TABLE s.t (id small PRIMARY KEY, m mood, p pair, pa pair[], d date, words text DEFAULT 'x');
    CREATE TABLE s.whole (id integer PRIMARY KEY, m mood[], words text);
    ALTER TABLE s.whole REPLICA IDENTITY FULL;
    CREATE TABLE s.parted (id integer PRIMARY KEY, words text) PARTITION BY LIST (id);
    CREATE TABLE s.part (words text, id integer NOT NULL);
    ALTER TABLE s.parted ATTACH PARTITION s.part DEFAULT;
    CREATE PUBLICATION chosen FOR TABLE s.t, s.whole WHERE (id > 0), s.parted WITH (publish_via_partition_root);
"""
STALE = ["GRANT USAGE ON SCHEMA s TO public", "ALTER PUBLICATION chosen OWNER TO {}",
         "ALTER TYPE mood RENAME TO humour", "ALTER TYPE humour RENAME TO mood"]


def changes(id):
    row = "'sad', ROW(1, 'glad'), ARRAY[ROW(2, 'sad')::pair], '2024-02-29'"
    return [f"INSERT INTO s.t VALUES ({id}, {row})", f"INSERT INTO s.whole VALUES ({id}, '{{sad,glad}}', 'x')",
            f"INSERT INTO s.parted VALUES ({id}, 'x')", f"UPDATE s.t SET id = id + 1000 WHERE id = {id}",
            f"UPDATE s.whole SET words = 'y' WHERE id = {id}", f"DELETE FROM s.parted WHERE id = {id}"]


@pytest.fixture(scope="module")
def installation():
    """One whose library raises an error where the file faults.at says."""
    with Installation() as made:
        subprocess.run(["make", "--no-print-directory", "-s", "-C", ROOT, "faults"], check=True, env={
            name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")})
        made.put_in("pg_eventbus.so", os.path.join(ROOT, "build", "faults", "pg_eventbus.so"))
        yield made


@pytest.fixture(scope="module")
def cluster(installation):
    config = dict(WAL_SETTINGS, logical_decoding_work_mem="'64kB'")
    with PostgresCluster(config=config, postgres=installation.postgres) as server:
        yield server


@pytest.fixture
def fault(cluster):
    """fault(3): in each process the third look-up from now on fails."""
    path = os.path.join(cluster.data, "faults.at")

    def at(number):
        with open(path + ".new", "w") as file:
            file.write(f"{number}, {next(times)}")
        os.chmod(path + ".new", 0o644)
        os.rename(path + ".new", path)

    times = itertools.count()
    yield at
    if os.path.exists(path):
        os.unlink(path)


@pytest.fixture
def tables(db):
    """A slot, and tables that know how to make a round of changes, each in a transaction of its own."""
    owner = f"owner_{db.name}"
    for statement in filter(str.strip, TABLES.split(";")):
        db.run(statement)
    db.run(f"CREATE ROLE {owner} SUPERUSER")
    db.transactions = []
    ids = itertools.count(1)

    def round():
        for change in changes(next(ids)):
            db.run("BEGIN")
            db.run(change)
            db.transactions.append(db.one("SELECT pg_current_xact_id()::text"))
            db.run("COMMIT")

    def stale():
        for ddl in STALE:
            db.run(ddl.format(owner))

    db.round, db.stale = round, stale
    db.run("SELECT pg_create_logical_replication_slot('slot', 'pg_eventbus', false, true)")
    yield db
    db.run("SELECT pg_drop_replication_slot('slot')")
    for gid, in db.run("SELECT gid FROM pg_prepared_xacts"):
        db.run(f"ROLLBACK PREPARED '{gid}'")
    db.run("DROP PUBLICATION chosen")
    db.run(f"DROP ROLE {owner}")


def decode(db, options):
    """What a new session reads from the slot: of transactions that were committed, one line a change, without the time of
    decoding. And the fault that it met."""
    connection = db.connect()
    with connection.cursor() as cursor:
        cursor.execute("SELECT xid::text, data FROM pg_logical_slot_peek_changes('slot', NULL, NULL, VARIADIC %s::text[])",
                       ([text for option in options.items() for text in option],))
        found = [(xid, re.sub(r'"ts_ms":\d+', "", data)) for xid, data in cursor.fetchall()
                 if xid in db.transactions and '"table":"' in data]
    met = [line.strip() for line in connection.notices if "catalog fault" in line]
    connection.close()
    return found, met


OPTIONS = [{}, {"streaming": "on"}, {"publication_names": "chosen"},
           {"publication_names": "chosen", "transactions": "on", "streaming": "on"}]
BULK = "INSERT INTO {} SELECT -g FROM generate_series(1, 1500) g"


@pytest.mark.parametrize("options", OPTIONS + [{"format-version": "2"}, {"format-version": "1"}],
                         ids=lambda options: "-".join(options) or "none")
def test_a_transaction_that_was_rolled_back_meets_a_stale_plan(tables, options):
    for _ in range(2):
        tables.round()
        tables.stale()
        for table in "s.t", "s.whole", "s.parted":
            for ends in ["ROLLBACK"], ["PREPARE TRANSACTION 'prepared'", "ROLLBACK PREPARED 'prepared'"]:
                for statement in "BEGIN", BULK.format(table), *ends:
                    tables.run(statement)
    tables.round()
    found, _ = decode(tables, options)
    assert [xid for xid, _ in found] == tables.transactions


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "none")
def test_every_look_up_is_broken_off_once(tables, fault, options):
    """As if the transaction were rolled back at that moment: a prepared one, and one that is streamed. What comes of the
    transactions after them is what comes without a fault."""
    streamed = tables.connect(autocommit=False)
    fault(0)
    tables.round()
    for number, table in enumerate(("s.t", "s.whole", "s.parted")):
        tables.stale()
        tables.run("BEGIN")
        tables.run(f"INSERT INTO {table} VALUES (0)")
        for change in changes(-9000 * (number + 1)):
            tables.run(change)
        tables.run(f"PREPARE TRANSACTION 'prepared {number}'")
        tables.round()
        tables.stale()
        streamed.cursor().execute(BULK.format(table))
        tables.round()
    whole, met = decode(tables, options)
    assert [xid for xid, _ in whole] == tables.transactions and not met
    faults = []
    for number in itertools.count(1):
        fault(number)
        found, met = decode(tables, options)
        assert found == whole, met
        if not met:
            break
        faults += met
    print(len(faults))
    assert len(faults) > 100 and any("OutputFunctionCall" in line for line in faults)


def test_routes_from_the_wal(tables, fault, redis_server, name, cluster):
    """The same where a sender decodes: one transaction is open, streamed and broken off; those after it are whole."""
    fault(0)
    tables.broker("redis", redis_server.url)
    routes = {"whole": {}, "row": {"format": "row", "publication": "chosen"}, "theirs": {"format": "wal2json"}}
    for route, options in routes.items():
        tables.route(route, "redis", f"stream:{name}-{route}", "s.#,marker", source="wal", **options)
        tables.wait_state(route, "active", deadline=60)
    pid = tables.sender("whole")

    def arrived(count):
        entries = {route: [text_of(entry)["topic"] for entry in redis_server.stream(f"{name}-{route}")] for route in routes}
        return all(len(found) >= count for found in entries.values()) and entries

    expected, faults, bulk = [], [], "INSERT INTO s.t (id, words) SELECT -g, repeat('x', 1000) FROM generate_series(1, 2500) g"
    streamed = tables.connect(autocommit=False)
    for number in itertools.count(1):
        fault(number)
        tables.stale()
        begin = cluster.log_size()
        streamed.cursor().execute(bulk)
        tables.run("SELECT eventbus.publish_wal('marker', '{}')")
        tables.round()
        expected += ["marker", "s.t.insert", "s.whole.insert", "s.part.insert", "s.t.update", "s.whole.update",
                     "s.part.delete"]
        entries = eventually(lambda: arrived(len(expected)), 60, f"{len(expected)} entries a route")
        streamed.rollback()
        for route, topics in entries.items():
            assert [topic.replace("parted", "part") for topic in topics] == expected, (route, faults[-1:])
        met = re.findall(r"catalog fault \d+: (\w+)", cluster.log_text(begin))
        assert len(met) == 1
        faults += met
        # Then all is known of the table, and what each of its rows asks for comes again and again.
        if faults[-5:] == ["OutputFunctionCall"] * 5:
            break
    assert len(faults) > 50, faults
    assert tables.sender("whole") == pid and not any(tables.dead(route) for route in routes)
    streamed.close()
    for route in routes:
        tables.run("SELECT eventbus.drop_route(%s)", route)

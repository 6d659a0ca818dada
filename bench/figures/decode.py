# What it is: decoding a backlog of single-row inserts with pg_logical_slot_peek_changes: our plugin against wal2json
#   and pgoutput.
# Who calls it: bench/run.
# Never: times the reading of WAL from disk: every plugin has read it once before its first run.
import time

from harness import table
from harness.world import SETTINGS
from servers import PostgresCluster

CALLS = {  # the slot, and how it is read
    "pgoutput": ("pgoutput", "binary_changes", "'proto_version', '1', 'publication_names', 'everything'"),
    "wal2json": ("wal2json", "changes", "'format-version', '2'"),
    "ours, wal2json 2": ("pg_eventbus", "changes", "'format-version', '2'"),
    "ours, debezium": ("pg_eventbus", "changes", "'format', 'debezium'"),
}


def _backlog(world):
    """A cluster with slots of all plugins, and the inserts behind them."""
    cluster = world.start(PostgresCluster(config=SETTINGS | {"wal_level": "logical", "max_replication_slots": 10},
                                          name="bench-decode"))
    connection = cluster.connect()
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE orders (id bigint PRIMARY KEY, customer text, amount numeric, paid boolean, "
                   "placed_at timestamptz DEFAULT now(), note text)")
    cursor.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    for plugin in sorted({plugin for plugin, _, _ in CALLS.values()}):
        cursor.execute("SELECT pg_create_logical_replication_slot(%s, %s)", (plugin, plugin))
    cursor.execute("SET synchronous_commit = off")
    cursor.execute(f"""DO $$ BEGIN FOR i IN 1..{world.events} LOOP
        INSERT INTO orders VALUES (i, 'customer ' || i % 1000, i * 1.25, i % 2 = 0, DEFAULT, NULL); COMMIT;
        END LOOP; END $$""")
    cursor.execute("CHECKPOINT")
    return cursor


def _timed(world, cursor, name):
    plugin, function, options = CALLS[name]
    begun = time.monotonic()
    cursor.execute(f"SELECT count(*) FROM pg_logical_slot_peek_{function}('{plugin}', NULL, NULL, {options})")
    took = time.monotonic() - begun
    assert cursor.fetchone()[0] >= world.events
    return world.events / took


def run(world):
    cursor = _backlog(world)
    rates = {name: [] for name in CALLS}
    for name in CALLS:
        _timed(world, cursor, name)
    for _ in range(world.runs):
        for name in CALLS:
            rates[name].append(_timed(world, cursor, name))
        world.say(", ".join(f"{name} {rates[name][-1]:.0f}/s" for name in CALLS))
    for ours, theirs, bound in (("ours, wal2json 2", "wal2json", 1.3), ("ours, debezium", "wal2json", 1.0),
                                ("ours, debezium", "pgoutput", 0.7)):
        yield table.compare(f"{world.events} single-row inserts decoded, {ours} : {theirs}", rates[theirs],
                            rates[ours], "events/s", at_least=bound)

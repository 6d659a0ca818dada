# What it is: captured tables, against the PL/pgSQL triggers that one would otherwise write, and against none.
# Who calls it: bench/run.
# Never: times the making of the rows; those of the bulk statement stand in a table.
import time

from harness import table

CLIENTS = 16
COLUMNS = """id bigint{key}, device integer NOT NULL, name text, amount numeric(12, 2), at timestamptz NOT NULL,
    ok boolean, attributes jsonb, token uuid"""
KEYED, KEYLESS = COLUMNS.format(key=" PRIMARY KEY"), COLUMNS.format(key=" NOT NULL")
ROWS = """SELECT i, i %% 1000, 'reading ' || i, i * 0.01, now() + i * interval '1 s', i %% 3 = 0,
    jsonb_build_object('unit', 'km/h', 'value', i %% 250), gen_random_uuid() FROM generate_series(1, %s) i"""

# What stands between the row and whoever is to know of it.
NOTHING = ()
CAPTURE = ("SELECT eventbus.capture('reading')",)
OUTBOX = ("""CREATE OR REPLACE FUNCTION to_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO row_outbox (payload) VALUES (to_jsonb(NEW));
    RETURN NULL;
END $$""", "CREATE TRIGGER to_outbox AFTER INSERT ON reading FOR EACH ROW EXECUTE FUNCTION to_outbox()")
NOTIFY = ("""CREATE OR REPLACE FUNCTION to_channel() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    payload jsonb := to_jsonb(NEW);
BEGIN
    payload := jsonb_set(payload, '{_op}', to_jsonb(TG_OP));
    payload := jsonb_set(payload, '{_table}', to_jsonb(TG_TABLE_NAME));
    PERFORM pg_notify('changes', payload::text);
    RETURN NULL;
END $$""", "CREATE TRIGGER to_channel AFTER INSERT ON reading FOR EACH ROW EXECUTE FUNCTION to_channel()")


def _prepare(world, columns, triggers):
    """The table again, with these triggers and no others."""
    world.sql("DROP TABLE IF EXISTS reading, row_outbox")
    world.sql(f"CREATE TABLE reading ({columns})")
    world.sql("CREATE TABLE row_outbox (id bigserial PRIMARY KEY, payload jsonb, created_at timestamptz DEFAULT now())")
    for statement in triggers:
        world.sql(statement)
    world.prepare()


def _clear(world):
    world.sql("DROP TABLE reading, row_outbox")
    world.sql("DROP FUNCTION IF EXISTS to_outbox(), to_channel()")


def _single(world, triggers):
    _prepare(world, KEYED, triggers)
    return world.pgbench("reading", "-c", CLIENTS, "-j", 2, "-T", world.seconds)["tps"]


def single(world):
    world.redis_route(options={"maxlen": 100_000})
    theirs, ours = [], []
    for _ in range(world.runs):
        theirs.append(_single(world, NOTIFY))
        before = world.added()
        ours.append(_single(world, CAPTURE))
        world.wait_added(before + world.one("SELECT count(*) FROM reading"))
        world.say(f"theirs {theirs[-1]:.0f} tps, ours {ours[-1]:.0f} tps")
    _clear(world)
    yield table.compare(f"captured insert, route at work : PL/pgSQL, pg_notify, {CLIENTS} clients", theirs, ours, "tps",
                        at_least=2.0)


def _bulk(world, columns, triggers):
    """Seconds that the statement takes."""
    _prepare(world, columns, triggers)
    begun = time.monotonic()
    world.sql("INSERT INTO reading SELECT * FROM reading_source")
    return time.monotonic() - begun


def bulk(world):
    world.sql("DROP TABLE IF EXISTS reading_source")
    world.sql(f"CREATE TABLE reading_source ({KEYLESS})")
    world.sql(f"INSERT INTO reading_source {ROWS}", world.events)
    world.sql("VACUUM ANALYZE reading_source")
    for columns, what in ((KEYLESS, "no index"), (KEYED, "primary key")):
        took = {NOTHING: [], OUTBOX: [], CAPTURE: []}
        for _ in range(world.runs):
            for triggers, seconds in took.items():
                seconds.append(_bulk(world, columns, triggers))
            world.say(f"{what}: no trigger %.2f s, outbox trigger %.2f s, ours %.2f s"
                      % tuple(seconds[-1] for seconds in took.values()))
        speed = {triggers: [world.events / second for second in seconds] for triggers, seconds in took.items()}
        yield table.compare(f"{world.events} captured rows, {what} : PL/pgSQL into an outbox", speed[OUTBOX],
                            speed[CAPTURE], "rows/s", at_least=4.0)
        yield table.compare(f"{world.events} captured rows, {what} : no trigger", took[NOTHING], took[CAPTURE], "s",
                            at_most=4.0)
    world.sql("DROP TABLE reading_source")
    _clear(world)

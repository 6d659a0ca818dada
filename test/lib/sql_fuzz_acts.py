# What it is: what the SQL fuzzer does, by names: calls, triggers made by hand, DDL, slots, messages, rows by hand.
# Who calls it: sql_fuzz.py, by the dice.
# Never: looks at what comes of it: whoever runs the statements does.
from sql_fuzz_values import (ARGUMENTS, CONDITIONS, FIELDS, INTEGERS, PATTERNS, SIZES, TAGS, TEMPLATES, TOPICS, WORDS,
                             bytes_literal,
                             literal)

ACTS = {}

SCHEMA = """
CREATE SCHEMA fuzz;
CREATE DOMAIN fuzz.dom AS integer[] CHECK (VALUE IS NULL OR cardinality(VALUE) < 100);
CREATE TYPE fuzz.inner AS (n integer, d fuzz.dom);
CREATE TYPE fuzz.comp AS (n integer, note text, inners fuzz.inner[]);
CREATE TYPE fuzz.mood AS ENUM ('sad', 'gl ad');
CREATE TYPE fuzz.ranges AS RANGE (SUBTYPE = integer, MULTIRANGE_TYPE_NAME = fuzz.many_ranges);
CREATE TABLE fuzz.t (id int PRIMARY KEY, note text, j jsonb, arr int[], dom fuzz.dom, comp fuzz.comp);
CREATE TABLE fuzz.kinds (id int, {columns});
ALTER TABLE fuzz.kinds REPLICA IDENTITY FULL;
CREATE TABLE fuzz."odd ""name""." ("odd ""column""." int PRIMARY KEY, "état.{{op}}" text, note text, gone int);
ALTER TABLE fuzz."odd ""name""." DROP gone;
CREATE UNLOGGED TABLE fuzz.keyless (id int, note text);
CREATE TABLE fuzz.parted (id int, note text) PARTITION BY LIST (id);
CREATE TABLE fuzz.part PARTITION OF fuzz.parted FOR VALUES IN (1, 2) PARTITION BY HASH (note);
CREATE TABLE fuzz.leaf PARTITION OF fuzz.part FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE TABLE fuzz.other (note text, id int);
ALTER TABLE fuzz.parted ATTACH PARTITION fuzz.other DEFAULT;
CREATE TABLE fuzz.child (more text, twice int GENERATED ALWAYS AS (id * 2) STORED) INHERITS (fuzz.t);
CREATE VIEW fuzz.v AS SELECT id, note FROM fuzz.t;
CREATE MATERIALIZED VIEW fuzz.m AS SELECT id, note FROM fuzz.t;
CREATE TABLE fuzz.wide (id int PRIMARY KEY, note text, {wide});
CREATE FOREIGN DATA WRAPPER fuzz_wrapper;
CREATE SERVER fuzz_server FOREIGN DATA WRAPPER fuzz_wrapper OPTIONS (password 's3cret');
CREATE FOREIGN TABLE fuzz.f (id int, note text) SERVER fuzz_server OPTIONS (password 's3cret');
CREATE FUNCTION fuzz.volatile(int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN $1 > 1; END $$;
CREATE FUNCTION fuzz.run(call text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
    $$ DECLARE got text; BEGIN EXECUTE 'SELECT ' || call INTO got; RETURN got; END $$;
CREATE TABLE fuzz.bait (call text);
INSERT INTO fuzz.bait VALUES ('1');
CREATE INDEX ON fuzz.bait (fuzz.run(call));
CREATE MATERIALIZED VIEW fuzz.trap AS SELECT fuzz.run(call) FROM fuzz.bait;
CREATE PUBLICATION fuzz_publication FOR TABLE fuzz.t WHERE (id > 0), fuzz.parted;
GRANT USAGE, CREATE ON SCHEMA fuzz TO PUBLIC;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA fuzz TO PUBLIC;
""".format(columns=", ".join(f'"c{n}" {type}' for n, type in enumerate(FIELDS)),
           wide=", ".join(f"w{n} int" for n in range(1500)))
SIMPLE = {"id": "int", "note": "text"}
TABLES = {
    "fuzz.t": {**SIMPLE, "j": "jsonb", "arr": "int[]", "dom": "fuzz.dom", "comp": "fuzz.comp"},
    "fuzz.kinds": {"id": "int", **{f"c{n}": type for n, type in enumerate(FIELDS)}},
    'fuzz."odd ""name""."': {'"odd ""column""."': "int", '"état.{op}"': "text", "note": "text"},
    "fuzz.keyless": SIMPLE, "fuzz.parted": SIMPLE, "fuzz.part": SIMPLE, "fuzz.leaf": SIMPLE, "fuzz.other": SIMPLE,
    "fuzz.child": {**SIMPLE, "more": "text"}, "fuzz.v": SIMPLE, "fuzz.m": SIMPLE, "fuzz.wide": {**SIMPLE, "w7": "int"},
    "fuzz.f": SIMPLE,
}
DDL = [
    "ALTER TABLE {table} RENAME COLUMN {column} TO {name}", "ALTER TABLE {table} DROP COLUMN {column} CASCADE",
    "ALTER TABLE {table} ADD COLUMN {name} {type}", "ALTER TABLE {table} ALTER COLUMN {column} TYPE text USING NULL",
    "ALTER TABLE {table} RENAME TO {name}", "ALTER TABLE {table} SET SCHEMA public",
    "ALTER TABLE {table} REPLICA IDENTITY FULL",
    "ALTER TABLE {table} DISABLE TRIGGER ALL", "ALTER TABLE {table} OWNER TO {role}",
    "ALTER TABLE {table} SET UNLOGGED",
    "DROP TABLE {table} CASCADE", "ALTER TABLE fuzz.parted DETACH PARTITION fuzz.part",
    "CREATE TABLE fuzz.{name} (LIKE {table} INCLUDING ALL)",
    "CREATE TABLE fuzz.{name} AS SELECT 1 AS a, {text} AS b",
    "ALTER TYPE fuzz.comp RENAME ATTRIBUTE note TO {name} CASCADE",
    "ALTER TYPE fuzz.comp DROP ATTRIBUTE inners CASCADE", "ALTER TYPE fuzz.mood RENAME VALUE 'sad' TO {text}",
    "DROP DOMAIN fuzz.dom CASCADE",
    "CREATE OR REPLACE VIEW fuzz.v AS SELECT id, note, 1 AS {name} FROM fuzz.t",
    "ALTER VIEW fuzz.v RENAME COLUMN note TO {name}",
    "ALTER FOREIGN TABLE fuzz.f OPTIONS (SET password {text})",
    "CREATE USER MAPPING FOR PUBLIC SERVER fuzz_server OPTIONS (password {text})",
    "CREATE FUNCTION fuzz.{name}() RETURNS text LANGUAGE sql AS $a$ SELECT {text} $a$",
    "CREATE PROCEDURE fuzz.{name}() LANGUAGE sql BEGIN ATOMIC SELECT {text}; END",
    "CREATE SCHEMA {name} CREATE TABLE t (a int) CREATE VIEW v AS SELECT * FROM t", "DROP SCHEMA fuzz CASCADE",
    "REFRESH MATERIALIZED VIEW fuzz.m",
    "COMMENT ON TABLE {table} IS {text}", "GRANT SELECT ON {table} TO {role}", "CREATE INDEX ON {table} ({column})",
    "REINDEX TABLE {table}",
    "CLUSTER {table}", "TRUNCATE {table} CASCADE",
    "CREATE TRIGGER {name} AFTER INSERT ON {table} EXECUTE FUNCTION eventbus.publish_change({text})",
    "ALTER EXTENSION pg_eventbus ADD TABLE {table}", "DROP EXTENSION pg_eventbus CASCADE",
    "DROP FUNCTION eventbus.publish_change CASCADE",
    "ALTER TABLE eventbus.log_0 ADD COLUMN {name} {type}", "DROP OWNED BY {role}",
    "REASSIGN OWNED BY {role} TO postgres",
    "DO $a$ BEGIN EXECUTE 'CREATE TABLE fuzz.{name} (a int)'; DROP TABLE fuzz.{name}; END $a$",
    "ALTER TABLE {table} ADD CONSTRAINT {name} CHECK (id > 0) NOT VALID", "SELECT 1 AS a INTO fuzz.{name}",
    "IMPORT FOREIGN SCHEMA a FROM SERVER fuzz_server INTO fuzz",
    "ALTER TABLE ALL IN TABLESPACE pg_default OWNED BY {role} SET TABLESPACE pg_default",
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {role}",
]
SETTINGS = {
    "datestyle": ["'ISO, DMY'", "'SQL'", "'German'"], "intervalstyle": ["sql_standard", "iso_8601"],
    "bytea_output": ["escape", "hex"],
    "extra_float_digits": ["-15", "3"], "timezone": ["'Asia/Kathmandu'", "'UTC'", "'<+15:59:59>-15:59:59'"],
    "search_path": ["fuzz, pg_catalog", "''", "eventbus"],
    "session_replication_role": ["replica", "origin", "local"],
    "default_transaction_isolation": ["serializable", "'read committed'"],
    "lc_messages": ["'C'"], "work_mem": ["'64kB'"], "row_security": ["off", "on"],
    "plan_cache_mode": ["force_generic_plan", "auto"],
    "event_triggers": ["off"], "check_function_bodies": ["off", "on"], "force_parallel_mode": ["on", "off"],
    "jit": ["on", "off"],
    "synchronous_commit": ["off", "on"], "xmlbinary": ["hex"], "quote_all_identifiers": ["on", "off"],
    "log_statement": ["all", "none"],
    "eventbus.max_payload": ["1", "100", "'1GB'", "-1"], "eventbus.source": ["''", "repeat", "'a b'", "'ä'"],
    "eventbus.max_log_size": ["-1", "1"],
    "eventbus.on_log_full": ["skip", "refuse", "nosuch"], "eventbus.nosuch": ["1"],
    "max_stack_depth": ["'100kB'", "'2MB'"], "client_min_messages": ["debug5", "notice"],
}
PLUGIN = {
    "format": ["debezium", "wal2json", "x"], "tables": ["fuzz.*", "-fuzz.t", "*.*", "fuzz.t, public.?", "\"", "."],
    "messages": ["*", "fuzz.*, -x", "-", ""],
    "publication_names": ["fuzz_publication", "nosuch", "", "\"a", "fuzz_publication,fuzz_publication"],
    "origin": ["none", "any", "x"], "source": ["s", ""],
    "actions": ["insert", "insert,update,delete,truncate", "x", ""], "filter-origins": ["1,2", "x", "99999999999"],
    "filter-tables": ["fuzz.*", "*.t", "a", "\\", "a\\"],
    "add-tables": ["fuzz.*", "*.*", ".", "a.b.c"], "filter-msg-prefixes": ["fuzz", "a,b", ""],
    "add-msg-prefixes": ["fuzz,wal2json"], "format-version": ["1", "2", "0", "3", "x"],
    "skip-empty-xacts": None, "transactions": None, "streaming": None, "include-transaction": None,
    "include-xids": None, "include-timestamp": None,
    "include-pk": None, "include-origin": None, "include-schemas": None, "include-types": None,
    "include-type-oids": None, "include-typmod": None,
    "include-domain-data-type": None, "include-column-positions": None, "include-not-null": None,
    "include-default": None,
    "numeric-data-types-as-string": None, "pretty-print": None, "write-in-chunks": None, "include-lsn": None,
    "nosuch": ["1"], "include-unchanged-toast": ["1"],
}


def act(weight, superuser=False):
    """superuser: only he gets anywhere with it."""
    def named(function):
        ACTS[function.__name__] = (weight, superuser, function)
        return function
    return named


def table_of(values):
    return values.dice.choice(list(TABLES))


def change(session, values, table):
    """A row of a table inserted, updated or deleted, or all of them."""
    columns = TABLES[table]
    chosen = values.dice.sample(list(columns), values.dice.randint(1, len(columns)))
    kind = values.dice.randrange(8)
    if kind < 4:
        fields = ", ".join(values.field(columns[column]) for column in chosen)
        session.run(f"INSERT INTO {table} ({', '.join(chosen)}) VALUES ({fields})")
    elif kind < 6:
        session.run(f"UPDATE {table} SET {', '.join(f'{c} = {values.field(columns[c])}' for c in chosen)}")
    else:
        session.run(f"DELETE FROM {table}" if kind == 6 else f"TRUNCATE {table}")


def ddl(values):
    table = table_of(values)
    column = values.dice.choice(list(TABLES[table]))
    name = values.one(["a", "note", "b", "id"])
    if values.chance(0.4):
        name = '"' + (values.words()[:70].replace('"', '""') or "x") + '"'
    return values.one(DDL).format(table=table, column=column, name=name, type=values.one(list(FIELDS)),
                                  text=literal(values.words()),
                                  role=values.one(values.names["role"]))


def arguments(values, first=TEMPLATES):
    return ", ".join(literal(values.near(pool)) for pool in [first, *[ARGUMENTS] * values.dice.randint(0, 4)])


def call_of(values, functions):
    """A call of one of our functions: positional, or by names, with defaults left away."""
    name, parameters, defaults = values.dice.choice(functions)
    given = parameters[:len(parameters) - values.dice.randint(0, defaults)]
    by_name = values.chance(0.3)
    rendered = [f"{parameter} => {values.of(type, parameter, name)}" if by_name else values.of(type, parameter,
                                                                                               name) for parameter,
                type in given]
    return f"eventbus.{name}({', '.join(rendered)})"


@act(30)
def call(session, values):
    made = call_of(values, session.world.functions)
    kind = values.dice.randrange(16)
    if kind == 0:
        session.run(f"SELECT * FROM {made}")
    elif kind == 1:
        session.run(f"SELECT {made} FROM generate_series(1, 3)")
    elif kind == 2:
        session.run(f"SELECT 1 WHERE ({made}) IS NULL")
    elif kind == 3:
        session.run(f"DO $do$ BEGIN PERFORM {made}; EXCEPTION WHEN OTHERS THEN "
                    "IF SQLSTATE LIKE 'XX%' THEN RAISE; END IF; END $do$")
    elif kind == 4:
        session.run(f"DECLARE fuzz_cursor CURSOR {values.one(['', 'WITH HOLD'])} FOR "
                    f"SELECT {made} FROM generate_series(1, 3)")
        session.run("FETCH 2 FROM fuzz_cursor")
        session.run(values.one(["CLOSE fuzz_cursor", "MOVE 1 FROM fuzz_cursor", "SELECT 1"]))
    elif kind == 5:
        session.run(f"EXPLAIN (ANALYZE, VERBOSE) SELECT {made}")
    elif kind == 6:
        session.run(f"PREPARE fuzz_plan AS SELECT {made}")
        session.run("EXECUTE fuzz_plan")
        session.run("EXECUTE fuzz_plan")
        session.run("DEALLOCATE ALL")
    elif kind == 7:
        session.run(f"SELECT fuzz.as_{values.one(values.names['role'])}({literal(made)})")
    elif kind == 8:
        session.run(f"CREATE TEMP TABLE fuzz_result AS SELECT {made}")
        session.run("DROP TABLE IF EXISTS pg_temp.fuzz_result")
    elif kind == 9:
        session.run(f"UPDATE fuzz.bait SET call = {literal(made)}")
        session.run(values.one(["REFRESH MATERIALIZED VIEW fuzz.trap", "REINDEX TABLE fuzz.bait", "ANALYZE fuzz.bait"]))
        session.run("UPDATE fuzz.bait SET call = '1'")
    else:
        session.run(f"SELECT {made}")


@act(10)
def publish(session, values):
    """What is likely to be taken."""
    topic = literal(values.one(TOPICS[:5]))
    session.run(values.one([
        f"SELECT eventbus.publish({topic}, {values.jsonb()}, {values.text()}, "
        f"{values.of('jsonb', 'headers', 'publish')})",
        f"SELECT eventbus.publish_text({topic}, {values.text()})",
        f"SELECT eventbus.publish_bytes({topic}, {values.bytea()}, 'k')",
        f"SELECT eventbus.publish_wal({topic}, {values.jsonb()}, {values.text()})",
        f"SELECT eventbus.publish_now({topic}, {values.jsonb()})"]))


@act(6)
def emit(session, values):
    prefix = literal(values.one(["pg_eventbus", "pg_eventbus", "wal2json", *TOPICS]))
    content = bytes_literal(values.message()) if values.chance(0.3) else values.one([values.bytea, values.text])()
    session.run(f"SELECT pg_logical_emit_message({values.one(['true', 'false'])}, {prefix}, {content})")


@act(8)
def change_rows(session, values):
    change(session, values, table_of(values))


@act(8)
def capture(session, values):
    """A table captured, changed in its shape and its rows."""
    table = table_of(values)
    made = [f"{name} => {values.of(type, name, 'capture')}" for name, type in (
        ("topic", "text"), ("operations", "text"), ("columns", "text"), ("key", "text"), ("condition", "text"),
        ("payload", "text"),
        ("headers", "jsonb")) if values.chance(0.3)]
    session.run(f"SELECT eventbus.capture({', '.join([literal(table), *made])})")
    for _ in range(values.dice.randint(1, 3)):
        session.run_aside(ddl(values)) if values.chance(0.3) else change(session, values, table)
    session.show("captured")
    if values.chance(0.8):
        session.run(f"SELECT eventbus.uncapture({literal(table)})")


@act(8, superuser=True)
def trigger_by_hand(session, values):
    table = table_of(values)
    events = " OR ".join(values.dice.sample(["INSERT", "UPDATE", "DELETE", "TRUNCATE", "UPDATE OF note"],
                                            values.dice.randint(1, 3)))
    when = f"WHEN ({values.near(CONDITIONS)})" if values.chance(0.3) else ""
    kind = values.one(["CONSTRAINT TRIGGER", "TRIGGER", "TRIGGER"])
    timing = values.one(["BEFORE", "AFTER", "AFTER", "INSTEAD OF"])
    manner = values.one(["", "REFERENCING NEW TABLE AS n", "DEFERRABLE INITIALLY DEFERRED"])
    level = values.one(["ROW", "STATEMENT"])
    session.run(f"CREATE {kind} fuzz_by_hand {timing} {events} ON {table} {manner} FOR EACH {level} {when} "
                f"EXECUTE FUNCTION eventbus.{values.one(session.world.triggers)}({arguments(values)})")
    session.show("captured")
    for _ in range(values.dice.randint(1, 2)):
        change(session, values, table)
    session.run(f"DROP TRIGGER IF EXISTS fuzz_by_hand ON {table}")


@act(6, superuser=True)
def event_trigger(session, values):
    event = values.one(["ddl_command_start", "ddl_command_end", "sql_drop", "table_rewrite"])
    session.run(f"CREATE EVENT TRIGGER fuzz_event ON {event} "
                f"EXECUTE FUNCTION eventbus.{values.one(session.world.event_triggers)}()")
    session.run_aside(ddl(values))
    session.run("DROP EVENT TRIGGER IF EXISTS fuzz_event")


@act(6)
def captured_ddl(session, values):
    session.run(f"SELECT eventbus.capture_ddl({literal(values.near(TEMPLATES))}, {literal(values.near(TAGS))}, "
                f"{values.one(['true', 'false'])})")
    for _ in range(3):
        session.run_aside(ddl(values))
    session.run("SELECT eventbus.uncapture_ddl()")


@act(5)
def change_shape(session, values):
    session.run_aside(ddl(values))


@act(8)
def read_slot(session, values):
    options = []
    for name in values.dice.sample(list(PLUGIN), values.dice.randint(0, 4)):
        value = values.near(PLUGIN[name] or ["on", "off", "1", ""])
        options += [literal(values.mutated(name) if values.chance(0.05) else name),
                    "NULL" if values.chance(0.05) else literal(value)]
    most = values.one(["NULL", "NULL", "1", "0"])
    function = values.one(["peek_changes", "peek_binary_changes", "get_changes", "get_binary_changes"])
    session.run(f"SELECT count(*) FROM pg_logical_slot_{function}('{session.world.slot(session)}', NULL, {most}, "
                f"VARIADIC ARRAY[{', '.join(options)}]::text[])")


@act(4)
def look(session, values):
    session.show(values.one(session.world.views), "health()")


@act(3)
def set_something(session, values):
    name = values.dice.choice(list(SETTINGS))
    value = values.one(SETTINGS[name])
    if value == "repeat":
        value = literal("x" * values.one(SIZES[:8]))
    session.run(f"SET {values.one(['', 'LOCAL'])} {name} = {value}")


@act(3)
def become(session, values):
    session.run(values.one(["RESET ROLE", "RESET SESSION AUTHORIZATION", f"SET ROLE {values.one(values.names['role'])}",
                            f"SET SESSION AUTHORIZATION {values.one(values.names['role'])}", "RESET ALL",
                            "DISCARD ALL"]))


@act(5, superuser=True)
def rows_by_hand(session, values):
    """What a dump, or a superuser's own hand, leaves in our tables: views show it."""
    text, options = values.text, values.jsonb
    rows = {
        "broker_config (name, url, options)": [text(), literal(values.near(["redis://127.0.0.1:1", "x"])), options()],
        "topic_grant (role, topics)": [values.of("regrole", "role"), text(PATTERNS)],
        "ddl_capture (topic, tags)": [text(TEMPLATES), f"ARRAY[{text(TAGS)}, NULL]"],
        "route_config (name, broker_id, destination, topics, options, source)": [
            text(), "(SELECT min(id) FROM eventbus.broker_config)", text(), text(PATTERNS), options(),
            values.one(["'log'", "'wal'"])],
        "dead_letter_store (route_id, lsn, number, topic, headers, content_type, payload_bytes, published_at, error, "
        "attempts, failed_at)": [
            "(SELECT min(id) FROM eventbus.route_config)", values.one(["'0/0'", "'0/1'", "'FFFFFFFF/FFFFFFFF'"]),
            values.one(INTEGERS), text(), options(), text(),
            values.bytea(), "'infinity'", text(), "-1", "now()"],
        "log_0 (id, xid, published_at, topic, key, payload_json, payload_text, captured_by, headers, content_type, "
        "payload_bytes)": [
            values.one(INTEGERS), "pg_current_xact_id()", values.one(["'infinity'", "'4713-01-01 BC'", "now()"]),
            text(TOPICS), text(), options(),
            text(), text(WORDS), options(), text(), values.bytea()],
    }
    into = values.dice.choice(list(rows))
    statement = f"INSERT INTO eventbus.{into} VALUES ({', '.join(rows[into])})"
    session.run_aside(statement, show=[*session.world.views, "health()"])

# What it is: what pg_upgrade does to workers, events and cursors, and a library that is newer than its extension.
# Who calls it: pytest.
# Never: shares a cluster: this one is stopped, copied and told lies about its version.
import json
import os
import re

import psycopg2
import pytest

from database import Database
from installation import Installation
from servers import PostgresCluster, eventually, free_port, stays, wait_gone


OLD = os.environ.get("OLD_PG_CONFIG")  # of the version to come from; its own, where none is named (scripts/test-on)


@pytest.fixture
def old(name):
    with PostgresCluster(name="old", pg_config=OLD) as server:
        yield server


@pytest.fixture
def waiting(old, durable_redis, name):
    """Ten events that were delivered, ten that wait for their broker."""
    db = Database(old, name)
    db.broker("redis", durable_redis.url)
    db.route("out", "redis", f"list:{name}")
    for number in range(10):
        db.publish("t", number)
    db.wait_status("out", delivered=10, in_flight=0)
    eventually(lambda: db.one("SELECT delivered FROM eventbus.cursor") == 10)
    durable_redis.kill()
    for number in range(10, 20):
        db.publish("t", number)
    db.wait_state("out", "retrying")
    db.connection.close()
    return durable_redis


def arrived(redis, name):
    return [int(body) for body in redis.client().lrange(name, 0, -1)]


KEPT = """SELECT (SELECT array_agg((id, name, url)::text ORDER BY id) FROM eventbus.broker_config),
                 (SELECT array_agg((id, name, destination, source)::text ORDER BY id) FROM eventbus.route_config),
                 (SELECT array_agg((role, topics)::text) FROM eventbus.topic_grant),
                 (SELECT array_agg((relation, topic)::text) FROM eventbus.captured),
                 (SELECT count(*) FROM eventbus.dead_letter_store)"""


def upgrade(old, new):
    new._run("pg_upgrade", "-b", old.binaries, "-B", new.binaries, "-d", old.data, "-D", new.data, "-U", new.superuser,
             "-p", str(free_port()), "-P", str(free_port()), "-s", new.directory)


def workers(cluster):
    return cluster.execute("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'pg_eventbus%'")


def test_no_worker_runs_in_binary_upgrade_mode(old, waiting, name):
    old.stop()
    waiting.start()
    old.start(options=["-b"])
    db = Database(old, name, extension=False, create=False)
    db.publish("t", 20)  # nobody does, but it harms nobody either
    db.run("SELECT eventbus.wake_workers()")
    stays(lambda: not workers(old) and arrived(waiting, name) == list(range(10)), 2,
          "no worker runs, and nothing is delivered")
    db.connection.close()
    old.restart()
    eventually(lambda: len(arrived(waiting, name)) >= 21, 60, "a start as always delivers")
    assert arrived(waiting, name) == list(range(21))


def test_pg_upgrade_keeps_events_and_cursors(old, waiting, name):
    old.stop()
    waiting.start()
    new = PostgresCluster(name="new")
    try:
        upgrade(old, new)
        assert arrived(waiting, name) == list(range(10)), "nothing is delivered in the midst of the copy"
        new.start()
        eventually(lambda: len(arrived(waiting, name)) >= 20, 60, "the new server delivers what waited")
        db = Database(new, name, extension=False, create=False)
        for number in range(20, 30):
            db.publish("t", number)
        eventually(lambda: len(arrived(waiting, name)) >= 30, 60)
        assert arrived(waiting, name) == list(range(30)), "each once, in order"
        db.wait_status("out", delivered=30, in_flight=0, lag=lambda lag: not lag)
        db.connection.close()
    finally:
        new.remove()


# What says no to a row that comes in before the row that it refers to, and what stands in its place.
CHECKS = """SELECT conname FROM pg_constraint WHERE contype = 'f'
            AND conrelid IN ('eventbus.route_config'::regclass, 'eventbus.dead_letter_store'::regclass)"""
TRIGGERS = """SELECT array_agg((tgrelid::regclass, tgname, tgenabled)::text ORDER BY tgrelid::regclass::text, tgname)
              FROM pg_trigger WHERE tgfoid = 'eventbus.configuration_changed'::regproc"""


def drop_slots(cluster):
    """As docs/upgrade.md says: a slot that a decoder has cannot be dropped, and none has it while nothing is delivered."""
    cluster.execute("ALTER SYSTEM SET eventbus.delivery = off")
    cluster.execute("SELECT pg_reload_conf()")
    eventually(lambda: not cluster.execute("SELECT FROM pg_replication_slots WHERE active"), 60, "no decoder has a slot")
    cluster.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_type = 'logical'")
    cluster.execute("ALTER SYSTEM RESET eventbus.delivery")


def test_pg_upgrade_keeps_all_else(old, durable_redis, name):
    """Dead letters, captures, grants, a route from the WAL, a parked key; each said in docs/upgrade.md."""
    db, redis = Database(old, name), durable_redis
    db.broker("redis", redis.url)
    db.run("CREATE TABLE item (id int PRIMARY KEY, what text); CREATE ROLE writer")
    db.run("SELECT eventbus.capture('item', topic => 'item.changed'), eventbus.allow('writer', 'item.#')")
    db.route("out", "redis", f"list:{name}", "item.#")
    redis.client().set(f"{name}:wrong", "no list")
    db.route("wrong", "redis", f"list:{name}:wrong", "bad")
    db.route("changes", "redis", f"list:{name}:wal", "item.#", source="wal")
    db.run("SELECT eventbus.wait_for_route('changes', '1 minute')")
    db.publish("bad", 1)
    db.wait_dead("wrong", 1, 60)
    db.run("INSERT INTO item VALUES (1, 'before')")
    eventually(lambda: redis.client().llen(name) >= 1 and redis.client().llen(f"{name}:wal") >= 0, 60)
    db.wait_status("out", delivered=1, in_flight=0)
    eventually(lambda: db.one("SELECT sum(delivered) FROM eventbus.cursor c JOIN eventbus.route_config r"
                              " ON r.id = c.route_id WHERE r.name = 'out'") == 1)
    redis.kill()
    db.run("INSERT INTO item VALUES (2, 'waits')")
    last = db.one("SELECT last_value FROM eventbus.event_id")
    letters, triggers = db.dead("wrong"), db.one(TRIGGERS)
    before = db.run(KEPT)
    if db.connection.server_version >= 170000:  # which takes no slot along in which something has not been confirmed
        drop_slots(old)
    db.connection.close()
    old.stop()
    redis.start()
    redis.client().delete(name)
    new = PostgresCluster(name="new")
    try:
        upgrade(old, new)
        new.start()
        db = Database(new, name, extension=False, create=False)
        eventually(lambda: redis.client().llen(name) >= 1, 60, "what waited in the log is delivered")
        assert db.run(KEPT) == before and db.dead("wrong") == letters
        assert db.one("SELECT last_value FROM eventbus.event_id") >= last
        assert not db.run(CHECKS), "a dump of the new server's is restored in any order, too"
        assert db.one(TRIGGERS) == triggers and sum("gone" in each for each in triggers) == 2
        db.run("INSERT INTO item VALUES (3, 'after')")
        eventually(lambda: redis.client().llen(name) >= 2, 60, "the capture continues")
        bodies = [json.loads(body) for body in redis.client().lrange(name, 0, -1)]
        assert [str(body).count("waits") for body in bodies] == [1, 0], bodies
        db.wait_state("changes", "lost")
        db.run("SELECT eventbus.restart_route('changes')")
        db.run("SELECT eventbus.wait_for_route('changes', '1 minute')")
        db.wait_state("changes", "active", deadline=60)
        redis.client().delete(f"{name}:wrong")
        assert db.one("SELECT eventbus.redeliver('wrong')") == 1
        eventually(lambda: redis.client().llen(f"{name}:wrong") == 1, 60, "a dead letter is sent again")
        assert [check for check in db.health() if check["level"] == "error"] == []
        db.connection.close()
    finally:
        new.remove()


# After `make install` and a restart, before ALTER EXTENSION


def set_version(db, version):
    db.run("UPDATE pg_extension SET extversion = %s WHERE extname = 'pg_eventbus'", version)


def test_a_newer_library_waits_for_the_update(old, redis_server, name):
    db = Database(old, name)
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"list:{name}")
    db.publish("t", 0)
    db.wait_status("out", delivered=1)
    ours = db.one("SELECT extversion FROM pg_extension WHERE extname = 'pg_eventbus'")
    set_version(db, "0.1")
    begin = old.log_size()
    old.restart()
    db.reconnect()
    old.wait_log(r"WARNING:  pg_eventbus: events of database .* wait: its extension is version 0\.1, the server's "
                 rf"library {re.escape(ours)}\n.*\n.*HINT:  Run ALTER EXTENSION pg_eventbus UPDATE", begin)
    for number in range(1, 6):
        db.publish("t", number)
    db.run("SELECT eventbus.wake_workers()")
    [check] = [row for row in db.health() if row["name"] == "version"]
    assert check["level"] == "error" and "ALTER EXTENSION pg_eventbus UPDATE" in check["hint"]
    for what in ("* FROM eventbus.status", "eventbus.redeliver()", "eventbus.discard()"):
        with pytest.raises(psycopg2.Error, match="before its update") as error:
            db.run(f"SELECT {what}")
        assert "ALTER EXTENSION pg_eventbus UPDATE" in error.value.diag.message_hint
    only_keeper = lambda: [kind for (kind,) in old.execute(  # noqa: E731
        "SELECT backend_type FROM pg_stat_activity WHERE datname = %s AND backend_type LIKE 'pg_eventbus%%'", name)]
    stays(lambda: only_keeper() == ["pg_eventbus keeper"], 2, "the keeper stays, and no sender comes")
    assert old.log_text(begin).count("events of database") == 1, "said once"
    assert arrived(redis_server, name) == [0]
    set_version(db, ours)
    db.run("ALTER EXTENSION pg_eventbus UPDATE")
    eventually(lambda: arrived(redis_server, name) == list(range(6)), 10, "delivery resumes, and at once")
    old.wait_log("LOG:  pg_eventbus: the extension of database .* is version .* now", begin)
    assert not [row for row in db.health() if row["name"] == "version"]
    db.connection.close()


def test_a_running_sender_leaves_where_the_version_is_another(old, redis_server, name):
    db = Database(old, name)
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"list:{name}")
    pid = db.sender("out")
    set_version(db, "0.1")
    db.run("SELECT eventbus.wake_workers()")
    wait_gone(pid)
    db.publish("t", 0)
    old.restart()
    old.restart()
    assert arrived(redis_server, name) == []


# ALTER EXTENSION

@pytest.fixture(scope="module")
def cluster():
    """A server that has the SQL of 0.1 as well, as it was released."""
    with Installation() as installation:
        installation.put_script(os.path.join(os.path.dirname(__file__), "..", "data", "pg_eventbus--0.1.sql"))
        with PostgresCluster(postgres=installation.postgres) as server:
            yield server


WHAT_THERE_IS = {
    "functions": """SELECT p.oid::regprocedure::text, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), prosrc, probin,
            provolatile, proparallel, proisstrict, prosecdef, proconfig::text, obj_description(p.oid, 'pg_proc'),
            (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(coalesce(proacl, acldefault('f', proowner))) a)::text,
            EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e')
        FROM pg_proc p WHERE pronamespace = 'eventbus'::regnamespace""",
    "relations": """SELECT c.relname::text, relkind, relpersistence, reloptions::text, obj_description(c.oid, 'pg_class'),
            (SELECT array_agg(a::text ORDER BY a::text)
             FROM unnest(coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner))) a)::text,
            CASE relkind WHEN 'v' THEN pg_get_viewdef(c.oid) WHEN 'i' THEN pg_get_indexdef(c.oid) END
        FROM pg_class c WHERE relnamespace = 'eventbus'::regnamespace""",
    "columns": """SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod), attnotnull, attidentity,
            pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE relnamespace = 'eventbus'::regnamespace AND relkind <> 'S'""",
    "order": """SELECT c.relname::text, array_agg(a.attname::text ORDER BY a.attnum)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE relnamespace = 'eventbus'::regnamespace AND (relkind = 'v' OR relname ~ '^log_[0-9]') GROUP BY 1""",
    "storage": """SELECT c.relname::text, a.attname::text, a.attstorage, a.attcompression, a.attstattarget, a.attgenerated, a.attacl::text,
            (SELECT array_agg(o ORDER BY o) FROM unnest(a.attoptions) o WHERE o NOT LIKE 'pg_attver=%')::text  -- minors' own
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE relnamespace = 'eventbus'::regnamespace AND relkind IN ('r', 'v')""",
    "tables": """SELECT c.relname::text, t.reloptions::text, c.relreplident, c.relrowsecurity, c.relowner::regrole::text, c.reltablespace, x.amname::text,
            (SELECT array_agg(indexrelid::regclass::text || indisunique || indisclustered || indisvalid ORDER BY indexrelid::regclass::text) FROM pg_index WHERE indrelid = c.oid)::text
        FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid LEFT JOIN pg_am x ON x.oid = c.relam
        WHERE c.relnamespace = 'eventbus'::regnamespace""",
    "sequences": """SELECT seqrelid::regclass::text, seqtypid::regtype::text, seqstart, seqincrement, seqmax, seqmin, seqcache, seqcycle,
            (SELECT refobjid::regclass::text || refobjsubid || deptype::text FROM pg_depend d WHERE d.objid = seqrelid AND d.deptype IN ('a', 'i'))
        FROM pg_sequence""",
    "triggers": """SELECT tgrelid::regclass::text, CASE WHEN tgisinternal THEN tgfoid::regproc::text ELSE pg_get_triggerdef(t.oid) END, tgenabled,
            obj_description(t.oid, 'pg_trigger')
        FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid WHERE relnamespace = 'eventbus'::regnamespace""",
    "constraints": """SELECT conrelid::regclass::text, conname::text, contype, convalidated, condeferrable, pg_get_constraintdef(oid),
            obj_description(oid, 'pg_constraint')
        FROM pg_constraint WHERE connamespace = 'eventbus'::regnamespace""",
    "more of functions": """SELECT p.oid::regprocedure::text, prokind, proowner::regrole::text, procost, prorows, proleakproof, proretset,
            proargmodes::text, proargnames::text, prolang, prosupport::text, pronargdefaults FROM pg_proc p WHERE pronamespace = 'eventbus'::regnamespace""",
    "schema": """SELECT nspowner::regrole::text, nspacl::text, obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = 'eventbus'""",
    "members": """SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend
        WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_eventbus') AND deptype = 'e'""",
    "what dumps leave out": """SELECT pg_describe_object(classoid, objoid, objsubid), privtype,
            (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(initprivs) a)::text
        FROM pg_init_privs LEFT JOIN pg_class c ON c.oid = objoid AND classoid = 'pg_class'::regclass
        WHERE privtype = 'e'  -- what an owner has by himself says nothing
        AND (c.oid IS NULL OR NOT (initprivs @> acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)
                                   AND initprivs <@ acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)))""",
    "event triggers": """SELECT evtname::text, evtevent::text, evtfoid::regproc::text, evtenabled, evttags::text, obj_description(oid, 'pg_event_trigger')
        FROM pg_event_trigger""",
    "extension": """SELECT extversion, obj_description(oid, 'pg_extension'),
            ARRAY(SELECT c::regclass::text FROM unnest(extconfig) c ORDER BY 1), extcondition::text
        FROM pg_extension WHERE extname = 'pg_eventbus'"""}


def test_the_update_makes_what_creation_makes(make_old, make_database):
    old, new = make_old("old"), make_database("new")
    old.run("ALTER EXTENSION pg_eventbus UPDATE")
    for what, query in WHAT_THERE_IS.items():
        after, fresh = (sorted(map(str, database.run(query))) for database in (old, new))
        assert len(fresh) > 0
        assert after == fresh, what


DIFFERENCES = ["ALTER TABLE eventbus.cursor SET (fillfactor = 60)", "ALTER TABLE eventbus.log_0 SET (toast.autovacuum_enabled = on)",
               "ALTER TABLE eventbus.log_1 ALTER payload_text SET STORAGE EXTENDED", "ALTER TABLE eventbus.cursor ALTER key SET NOT NULL",
               "ALTER TABLE eventbus.cursor ALTER retries SET DEFAULT 1", "DROP INDEX eventbus.route_config_broker_id",
               "ALTER TABLE eventbus.route_config RENAME CONSTRAINT route_config_name_key TO other",
               "ALTER SEQUENCE eventbus.log_generation CACHE 5", "ALTER FUNCTION eventbus.health() COST 5", "ALTER FUNCTION eventbus.health() STRICT",
               "GRANT SELECT ON eventbus.event TO pg_monitor", "REVOKE EXECUTE ON FUNCTION eventbus.health() FROM pg_monitor",
               "COMMENT ON COLUMN eventbus.status.lag IS 'other'", "COMMENT ON TRIGGER gone ON eventbus.route_config IS 'other'",
               "ALTER TABLE eventbus.route_config DISABLE TRIGGER gone", "ALTER EVENT TRIGGER eventbus_follow_dropped DISABLE",
               "ALTER EXTENSION pg_eventbus DROP VIEW eventbus.status", "DELETE FROM pg_init_privs WHERE objoid = 'eventbus.status'::regclass",
               "UPDATE pg_extension SET extconfig = extconfig[1:2], extcondition = extcondition[1:2] WHERE extname = 'pg_eventbus'"]


def test_the_comparison_sees_each_difference(make_database):
    db = make_database()
    everything = lambda: [sorted(map(str, db.run(query))) for query in WHAT_THERE_IS.values()]  # noqa: E731
    whole = everything()
    for sql in DIFFERENCES:
        db.run("BEGIN")
        db.run(sql)
        assert everything() != whole, sql
        db.run("ROLLBACK")


@pytest.fixture
def roles(cluster):
    names = ["Waits", "waits_and_grants", "waits_through", "does_not_wait"]
    for role in names:
        cluster.execute(f'CREATE ROLE "{role}"')
    yield names
    for role in names:
        cluster.execute(f'DROP ROLE "{role}"')


FORMS = [f"eventbus.wait_for_delivery({first}, interval, text)" for first in ("bigint", "pg_lsn", "text")]


def who_may_wait(db, roles):
    """By form: who may call it, and who may let others."""
    return [[(role, db.one("SELECT has_function_privilege(%s, %s, 'EXECUTE')", role, form),
              db.one("SELECT has_function_privilege(%s, %s, 'EXECUTE WITH GRANT OPTION')", role, form)) for role in roles]
            for form in FORMS]


def test_the_update_takes_back_what_default_privileges_gave(make_old, cluster, name):
    """At 0.1's creation, and in the update itself; what was granted since stays."""
    db = make_old()
    db.run("CREATE ROLE evil; CREATE ROLE trusted")
    try:
        for kind in ("TABLES", "SEQUENCES", "FUNCTIONS"):
            db.run(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON {kind} TO evil")
        db.run("GRANT SELECT ON eventbus.broker_config, eventbus.status TO evil")
        db.run("GRANT EXECUTE ON FUNCTION eventbus.create_broker TO evil")
        # As if that had been so when they were made.
        made = ("'eventbus.broker_config'::regclass", "'eventbus.status'::regclass", "'eventbus.create_broker'::regproc")
        for thing in made:
            catalog, acl = ("pg_proc", "proacl") if "regproc" in thing else ("pg_class", "relacl")
            db.run(f"DELETE FROM pg_init_privs WHERE objoid = {thing}")
            db.run(f"INSERT INTO pg_init_privs SELECT oid, '{catalog}'::regclass, 0, 'e', {acl} FROM {catalog} WHERE oid = {thing}")
        db.run("GRANT SELECT ON eventbus.route_config TO trusted; GRANT EXECUTE ON FUNCTION eventbus.alter_broker TO trusted")
        db.run("ALTER EXTENSION pg_eventbus UPDATE")

        def given(role):
            return {row[0] for row in db.run(
                "SELECT relname::text FROM pg_class, aclexplode(relacl) a WHERE relnamespace = 'eventbus'::regnamespace "
                "AND a.grantee = %s::regrole UNION SELECT proname::text FROM pg_proc, aclexplode(proacl) a "
                "WHERE pronamespace = 'eventbus'::regnamespace AND a.grantee = %s::regrole", role, role)}
        assert given("evil") == set()
        assert given("trusted") == {"route_config", "alter_broker", "adopt"}
        assert {"status", "trigger_error"} <= given("pg_monitor")
    finally:
        db.run("DROP OWNED BY evil, trusted; DROP ROLE evil, trusted")


def test_who_could_wait_can_after_the_update(roles, make_old, make_database, cluster, name):
    """Clients that call it with a parameter without a type find another form now; a dump carries their right, too."""
    db = make_old()
    db.run(f'GRANT EXECUTE ON FUNCTION {FORMS[0]}, eventbus.capture_ddl(text, text) TO "Waits"')
    with pytest.raises(psycopg2.Error, match="cannot tell who calls it"):
        db.run("SELECT eventbus.create_broker('b', 'redis://localhost')")
    db.run(f"GRANT EXECUTE ON FUNCTION {FORMS[0]} TO waits_and_grants WITH GRANT OPTION")
    db.run("GRANT USAGE ON SCHEMA eventbus TO waits_and_grants")
    db.run(f"SET ROLE waits_and_grants; GRANT EXECUTE ON FUNCTION {FORMS[0]} TO waits_through; RESET ROLE")
    db.run("ALTER EXTENSION pg_eventbus UPDATE")
    expected = [("Waits", True, False), ("waits_and_grants", True, True), ("waits_through", True, False),
                ("does_not_wait", False, False)]
    assert who_may_wait(db, roles) == [expected] * 3
    assert db.one("SELECT has_function_privilege('Waits', 'eventbus.capture_ddl(text, text, boolean)', 'EXECUTE')")
    copy = make_database("copy", extension=False)
    cluster.program("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", copy.name,
                    standard_input=cluster.program("pg_dump", "-d", db.name))
    assert who_may_wait(copy, roles) == [expected] * 3
    assert copy.one("SELECT has_function_privilege('Waits', 'eventbus.capture_ddl(text, text, boolean)', 'EXECUTE')")
    assert not db.one("SELECT bool_or(prosecdef) FROM pg_proc WHERE proname IN ('create_broker', 'capture_ddl')")
    # Nothing else remembers the roles.
    for database in (db, copy):
        for role in roles:
            database.run(f'DROP OWNED BY "{role}"')


def test_captures_of_0_1_are_as_those_of_0_2_after_the_update(roles, make_old, make_database, cluster):
    """Partitions made by whoever owns the table, and the view for whoever could read it."""
    db = make_old()
    db.run('CREATE SCHEMA lab AUTHORIZATION "Waits"; GRANT USAGE ON SCHEMA eventbus TO waits_through')
    db.run("GRANT EXECUTE ON FUNCTION eventbus.trigger_arguments TO waits_through; GRANT SELECT ON eventbus.captured TO waits_through")
    db.run('SET ROLE "Waits"; CREATE TABLE lab.whole (id int) PARTITION BY LIST (id); '
           "CREATE TABLE lab.one PARTITION OF lab.whole FOR VALUES IN (1); CREATE TABLE lab.plain (id int); RESET ROLE")
    db.run("SELECT eventbus.capture('lab.whole', operations => 'insert', condition => 'NEW.id > 0'), eventbus.capture('lab.plain')")
    partition = 'SET ROLE "Waits"; CREATE TABLE lab.two PARTITION OF lab.whole FOR VALUES IN (2); RESET ROLE'
    with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="permission denied for function"):
        db.run(partition)
    db.run("RESET ROLE; ALTER EXTENSION pg_eventbus UPDATE")
    db.run(partition)
    db.run("SELECT eventbus.capture('lab.plain')")
    functions = "SELECT tgfoid::regproc::text, tgrelid::regclass::text FROM pg_trigger WHERE tgname = '00_eventbus_insert' ORDER BY 2"
    expected = [("eventbus.publish_partitioned", "lab.one"), ("eventbus.publish_change", "lab.plain"),
                ("eventbus.publish_partitioned", "lab.two"), ("eventbus.publish_partitioned", "lab.whole")]
    assert db.run(functions) == expected
    captured = "SELECT relation::text, condition FROM eventbus.captured ORDER BY 1"
    db.run("SET ROLE waits_through")
    assert db.run(captured) == [("lab.plain", None), ("lab.whole", "(new.id > 0)")]
    db.run("RESET ROLE")
    copy = make_database("copy", extension=False)
    cluster.program("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", copy.name,
                    standard_input=cluster.program("pg_dump", "-d", db.name))
    assert copy.run(functions) == expected
    copy.run(partition.replace("two", "three").replace("(2)", "(3)"))
    copy.run("SET ROLE waits_through")
    assert copy.run(captured) == [("lab.plain", None), ("lab.whole", "(new.id > 0)")]
    db.run("SELECT eventbus.uncapture('lab.whole')")
    assert not db.one("SELECT count(*) FROM pg_trigger WHERE tgfoid = 'eventbus.publish_partitioned'::regproc")
    for database in (db, copy):
        database.run("RESET ROLE")
        for role in roles:
            database.run(f'DROP OWNED BY "{role}" CASCADE')

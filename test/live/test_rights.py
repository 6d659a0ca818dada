# What it is: who may do what: the recipes of docs/rights.md as they stand there, topic grants, a database full of traps.
# Who calls it: pytest.
# Never: grants by itself what a recipe should.
import os
import re
import threading

import psycopg2
import pytest

from servers import PostgresCluster, eventually

DOCS = os.path.join(os.path.dirname(__file__), "..", "..", "docs")
ROLES = ("app", "operator", "monitor", "fleet")
REFUSED = psycopg2.errors.InsufficientPrivilege

# Who may call which function and read which view once the recipes have run; what is in no list is the superuser's.
PUBLISHER = {"publish", "publish_bytes", "publish_now", "publish_text", "publish_wal", "wait_for_delivery"}
MONITOR_FUNCTIONS = {"delivery_status", "health", "redacted_url", "routes_for", "trigger_arguments", "trigger_condition",
                     "trigger_error"}
OPERATOR_FUNCTIONS = MONITOR_FUNCTIONS | {
    "adopt", "alter_broker", "alter_route", "captured_payload", "create_broker", "create_route", "discard", "drop_broker", "drop_route", "home",
    "pause_route", "redeliver", "restart_route", "resume_route", "test_broker", "test_route", "wait_for_route",
    "wake_workers"}
FUNCTIONS = {"app": PUBLISHER, "operator": OPERATOR_FUNCTIONS, "monitor": MONITOR_FUNCTIONS, "fleet": {"capture", "uncapture"}}
MONITOR_VIEWS = {"allowed", "broker", "captured", "route", "status", "unrouted"}
VIEWS = {"app": set(), "operator": MONITOR_VIEWS | {"dead_letter", "event"}, "monitor": MONITOR_VIEWS, "fleet": set()}
OWNERS_FUNCTIONS = {"grant_monitor", "grant_operator", "grant_publisher", "revoke_monitor", "revoke_operator",
                    "revoke_publisher", "allow", "capture", "capture_ddl", "configuration_changed", "disallow", "follow_captured",
                    "publish_change", "publish_ddl", "publish_partitioned", "topic_grants_changed", "uncapture", "uncapture_ddl"}


def documented_sql(page, title):
    """The SQL blocks of a chapter of a page."""
    with open(os.path.join(DOCS, page)) as text:
        chapters = re.split(r"^## (.*)\n", text.read(), flags=re.M)
    found = re.findall(r"^```sql\n(.*?)^```", chapters[chapters.index(title) + 1], re.S | re.M)
    assert found, f"the chapter {title} of {page} has no SQL"
    return found


@pytest.fixture
def roles(db):
    """The trigger and roles of the docs, with the rights that its recipes give them in the test's database."""
    trigger = documented_sql("publish.md", "A trigger that publishes")[0].partition("SELECT eventbus.create_broker")[0]
    db.run(trigger.replace("CREATE EXTENSION pg_eventbus;", ""))
    for role in ROLES:
        db.run(f"CREATE ROLE {role} LOGIN")
    for title in ("Rights", "Topics"):
        for block in documented_sql("rights.md", title):
            db.run(block)
    yield ROLES
    for role in ROLES:
        db.run(f"DROP OWNED BY {role} CASCADE")
        db.run(f"DROP ROLE {role}")


@pytest.fixture
def run_as(db, roles):
    """run_as(role, sql, …) in a session of the role's own."""
    connections = {}

    def run(role, sql, *arguments):
        if role not in connections:
            connections[role] = db.connect(user=role)
        with connections[role].cursor() as cursor:
            cursor.execute(sql, arguments or None)
            return cursor.fetchall() if cursor.description else None

    yield run
    for connection in connections.values():
        connection.close()


# The recipes


def test_recipes_give_what_they_say_and_no_more(db, roles):
    functions = [row[0] for row in db.run(
        "SELECT proname::text FROM pg_proc WHERE pronamespace = 'eventbus'::regnamespace")]
    named = set().union(OWNERS_FUNCTIONS, *FUNCTIONS.values())
    assert set(functions) == named, "each function has its place in the recipes, or is the owner's alone"
    relations = [row[0] for row in db.run(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'eventbus'::regnamespace AND relkind IN ('r', 'v', 'S')")]
    for role in roles:
        assert {name for name in functions if db.run(
            "SELECT bool_or(has_function_privilege(%s, oid, 'EXECUTE')) FROM pg_proc WHERE proname = %s "
            "AND pronamespace = 'eventbus'::regnamespace", role, name)[0][0]} == FUNCTIONS[role], role
        assert {name for name in relations if db.run(
            "SELECT has_table_privilege(%s, %s, 'SELECT')", role, f"eventbus.{name}")[0][0]} == VIEWS[role], role
        assert not [name for name in relations if db.run(
            "SELECT has_table_privilege(%s, %s, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')", role,
            f"eventbus.{name}")[0][0]], role


def test_publisher(db, stream, run_as):
    event = run_as("app", "SELECT eventbus.publish('shop.product.listed', '1')")[0][0]
    run_as("app", "SELECT eventbus.publish_text('shop.order.paid', 'x'), eventbus.publish_bytes('shop.order.paid', 'x')")
    assert int(stream(3)[0]["id"]) == event
    for refused in ("SELECT eventbus.publish('billing.paid', '1')", "SELECT eventbus.allow('app', '#')",
                    "SELECT * FROM eventbus.event", "SELECT * FROM eventbus.status",
                    "SELECT eventbus.create_broker('b', 'redis://h')", "SELECT * FROM eventbus.health()"):
        with pytest.raises(REFUSED):
            run_as("app", refused)
    # the trigger's function publishes as its owner
    db.run("GRANT INSERT ON product TO monitor")
    run_as("monitor", "INSERT INTO product VALUES ('SKU-1', 'walnut desk', 349)")
    assert stream(4)[3]["key"] == b"SKU-1"


def test_owner_of_a_table(db, run_as):
    db.run("GRANT CREATE ON SCHEMA public TO fleet")
    run_as("fleet", "CREATE TABLE truck (id integer PRIMARY KEY)")
    run_as("fleet", "SELECT eventbus.capture('truck', topic => 'fleet.{table}.{op}')")
    run_as("fleet", "INSERT INTO truck VALUES (1)")
    assert db.run("SELECT topic, key FROM eventbus.event WHERE topic ~ '^fleet'") == [("fleet.truck.insert", "1")]
    for refused in ("SELECT eventbus.capture('truck')", "SELECT eventbus.capture('product', topic => 'fleet.{op}')",
                    "SELECT eventbus.publish('fleet.x', '1')", "SELECT eventbus.capture_ddl('fleet.{tag}')",
                    "SELECT * FROM eventbus.captured"):
        with pytest.raises(REFUSED):
            run_as("fleet", refused)
    run_as("fleet", "SELECT eventbus.uncapture('truck')")


def test_operator(db, redis_server, name, run_as):
    run_as("operator", "SELECT eventbus.create_broker('b', %s)", redis_server.url.replace("//", "//app:s3cret-of-app@"))
    run_as("operator", "SELECT eventbus.create_broker('files', 'redis://h')")
    run_as("operator", "SELECT eventbus.create_route('r', 'b', %s)", f"list:{name}")
    run_as("operator", "SELECT eventbus.alter_route('r', topics => 'a.#'), eventbus.pause_route('r'), "
                       "eventbus.resume_route('r'), eventbus.wake_workers()")
    db.publish("a.b", {"n": 1})
    db.wait_status("r", delivered=1)
    assert "s3cret" not in str(run_as("operator", "SELECT * FROM eventbus.broker"))
    assert run_as("operator", "SELECT delivered FROM eventbus.status, eventbus.route WHERE route = name") == [(1,)]
    db.run("SELECT eventbus.capture('product', topic => 'p.{op}')")
    db.run("INSERT INTO product VALUES ('SKU-2', 'oak desk', 249)")
    assert run_as("operator", "SELECT payload::jsonb #>> '{after,sku}' FROM eventbus.event WHERE topic = 'p.insert'") == [("SKU-2",)]
    run_as("operator", "SELECT count(*) FROM eventbus.event, eventbus.dead_letter, eventbus.allowed, eventbus.health()")
    run_as("operator", "SELECT eventbus.redeliver(), eventbus.discard(), eventbus.alter_broker('b', options => '{}')")
    for refused in ("SELECT * FROM eventbus.broker_config", "SELECT eventbus.publish('a', '1')",
                    """SELECT eventbus.create_route('w', 'b', 'list:w', options => '{"source": "wal"}')""",
                    "SELECT eventbus.allow('operator', '#')", "SELECT * FROM eventbus.log_0",
                    """SELECT eventbus.alter_broker('files', options => '{"password_file": "/etc/shadow"}')"""):
        with pytest.raises(REFUSED):
            run_as("operator", refused)
    run_as("operator", "SELECT eventbus.drop_route('r'), eventbus.drop_broker('b')")


def test_monitor(db, redis_server, run_as):
    db.broker("b", redis_server.url.replace("//", "//app:s3cret-of-app@"))
    db.route("r", "b", "list:l")
    assert run_as("monitor", "SELECT route FROM eventbus.status") == [("r",)]
    assert run_as("monitor", "SELECT count(*) > 0 FROM eventbus.health()") == [(True,)]
    assert "s3cret" not in str(run_as("monitor", "SELECT * FROM eventbus.broker, eventbus.route, eventbus.allowed"))
    for refused in ("SELECT eventbus.publish('a', '1')", "SELECT eventbus.pause_route('r')",
                    "SELECT * FROM eventbus.event", "SELECT * FROM eventbus.dead_letter",
                    "SELECT * FROM eventbus.broker_config", "SELECT eventbus.disallow('app')"):
        with pytest.raises(REFUSED):
            run_as("monitor", refused)


# Topic grants


def test_topic_grants_come_with_a_dump(db, cluster, make_database, roles):
    db.run("CREATE ROLE gone")
    db.run("SELECT eventbus.allow('gone', 'a')")
    db.run("DROP ROLE gone")
    dump = cluster.program("pg_dump", "-d", db.name)
    restored = make_database("restored", extension=False)
    cluster.program("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", restored.name, standard_input=dump)
    assert restored.run("SELECT role::text, topics FROM eventbus.topic_grant ORDER BY 2") == [
        ("fleet", "fleet.#"), ("app", "shop.order.*"), ("app", "shop.product.#")]
    with pytest.raises(REFUSED, match='role "app" may not publish topic "billing"'):
        restored.run("SET ROLE app; SELECT eventbus.publish('billing', '1')")
    restored.run(f"RESET ROLE; DROP OWNED BY {', '.join(roles)}")


def test_topic_grants_without_preload():
    with PostgresCluster(preload=False, name="plain") as server:
        server.execute("CREATE EXTENSION pg_eventbus; CREATE ROLE app LOGIN; SELECT eventbus.grant_publisher('app')")
        connection = server.connect(user="app")
        with connection.cursor() as cursor:
            cursor.execute("SELECT eventbus.publish('b', '1')")
            server.execute("SELECT eventbus.allow('app', 'a')")
            cursor.execute("SELECT eventbus.publish('a', '1')")
            with pytest.raises(REFUSED) as refused:
                cursor.execute("SELECT eventbus.publish('b', '1')")
            assert refused.value.diag.message_hint == "It may publish: a."
        connection.close()


def test_a_grant_binds_publishers_that_are_at_work(db, roles):
    """Sessions publish in transactions that continue; once disallow has returned, no call publishes what it forbids."""
    db.broker("nowhere", "redis:///nonexistent/redis.sock")
    db.route("hold", "nowhere", "list:l")
    db.run("SELECT eventbus.pause_route('hold')")
    stop = threading.Event()
    failures = []

    def work():
        connection = db.connect(user="app", autocommit=False)
        with connection.cursor() as cursor:
            while not stop.is_set():
                for _ in range(50):
                    cursor.execute("SAVEPOINT s; SELECT eventbus.publish('shop.order.always', '1')")
                    try:
                        cursor.execute("SELECT eventbus.publish('shop.cart', '1')")
                    except REFUSED:
                        cursor.execute("ROLLBACK TO s")
                connection.commit()
        connection.close()

    def guarded():
        try:
            work()
        except Exception as failure:
            failures.append(failure)

    threads = [threading.Thread(target=guarded) for _ in range(3)]
    for thread in threads:
        thread.start()
    next_id = "SELECT nextval('eventbus.event_id')"
    forbidden = []
    try:
        for _ in range(5):
            db.run("SELECT eventbus.allow('app', 'shop.cart')")
            begin = db.one(next_id)
            eventually(lambda: db.one(next_id) > begin + 200)
            db.run("SELECT eventbus.disallow('app', 'shop.cart')")
            begin = db.one(next_id)
            eventually(lambda: db.one(next_id) > begin + 200)
            forbidden.append((begin, db.one(next_id)))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert db.one("SELECT count(*) FROM eventbus.event WHERE topic = 'shop.cart'") > 0
    for begin, end in forbidden:  # but for the one call of each session that had been checked before
        assert db.one("SELECT count(*) FROM eventbus.event WHERE topic = 'shop.cart' AND id BETWEEN %s AND %s", begin,
                      end) <= len(threads)


# Traps

# What an attacker puts before pg_catalog: every operator and function of the types that our SQL works with, as
# PL/pgSQL that notes who ran into it. The attacker owns the database, so it is everybody's search path, workers' too.
TRAPS = """
CREATE SCHEMA traps;
CREATE TABLE traps.caught (who text, what text);
CREATE FUNCTION traps.note(what text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS
    $$ BEGIN INSERT INTO traps.caught VALUES (session_user || ' as ' || current_user, what); END $$;
DO $do$
DECLARE
    types regtype[] = '{int2,int4,int8,text,name,oid,bool,timestamptz,interval,jsonb,bytea,xid8,pg_snapshot,regrole,numeric,float8,"char"}';
    o record;
    one text;
BEGIN
    FOR o IN SELECT oprname, oprleft::regtype AS l, oprright::regtype AS r, oprresult::regtype AS result FROM pg_operator
             WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprleft = ANY (types) AND oprright = ANY (types) LOOP
        EXECUTE format('CREATE FUNCTION traps.%I(%s, %s) RETURNS %s LANGUAGE plpgsql AS '
                       '$$ BEGIN PERFORM traps.note(%L); RETURN NULL; END $$',
                       'op ' || o.oprname, o.l, o.r, o.result, 'operator ' || o.oprname);
        EXECUTE format('CREATE OPERATOR traps.%s (FUNCTION = traps.%I, LEFTARG = %s, RIGHTARG = %s)',
                       o.oprname, 'op ' || o.oprname, o.l, o.r);
    END LOOP;
    FOR o IN SELECT proname, array_to_string(array(SELECT t::regtype::text FROM unnest(proargtypes) AS t), ', ') AS arguments,
                    prorettype::regtype AS result FROM pg_proc
             WHERE pronamespace = 'pg_catalog'::regnamespace AND provariadic = 0 AND NOT proretset AND prokind IN ('f', 'a')
             AND prorettype = ANY (types) AND proargtypes::oid[] <@ types::oid[] LOOP
        EXECUTE format('CREATE FUNCTION traps.%I(%s) RETURNS %s LANGUAGE plpgsql AS '
                       '$$ BEGIN PERFORM traps.note(%L); RETURN NULL; END $$',
                       o.proname, o.arguments, o.result, 'function ' || o.proname);
    END LOOP;
    FOR one IN SELECT relname FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v')
               UNION ALL SELECT unnest('{broker_config,route_config,cursor,dead_letter_store,topic_grant,log_0,status,event}'::text[]) LOOP
        EXECUTE format('CREATE TABLE traps.%I (oid oid, id int, name text, relname name, nspname name)', one);
    END LOOP;
    FOREACH one IN ARRAY '{jsonb,xid8,pg_snapshot,regrole,interval,timestamptz}'::text[] LOOP
        EXECUTE format('CREATE DOMAIN traps.%I AS pg_catalog.text', one);
    END LOOP;
END $do$;
GRANT USAGE ON SCHEMA traps TO PUBLIC;
"""


def test_a_database_full_of_traps(cluster, make_database, redis_server, name, log_from_here):
    """From CREATE EXTENSION to delivery and dead letters, by SQL and by workers: nobody runs into any of them."""
    db = make_database(extension=False)
    db.run(TRAPS)
    assert db.one("SELECT count(*) FROM pg_proc WHERE pronamespace = 'traps'::regnamespace") > 500
    cluster.execute(f'ALTER DATABASE "{db.name}" SET search_path = traps, pg_catalog, pg_temp')
    db.reconnect()
    redis_server.client().set(name, "no list")
    with db.connection.cursor() as cursor:
        def one(sql, *arguments):
            cursor.execute(sql, arguments)
            return cursor.fetchone()[0]

        # the traps work: whoever is not careful is caught
        one("SELECT 1::int4 = 1::int4")
        assert one("TABLE traps.caught") == "postgres as postgres"
        cursor.execute("TRUNCATE traps.caught")

        cursor.execute("CREATE EXTENSION pg_eventbus; CREATE ROLE trapped")
        one("SELECT eventbus.create_broker('b', %s)", redis_server.url)
        one("SELECT eventbus.alter_broker('b', options => '{\"window\": 5}'::pg_catalog.jsonb)")
        one("SELECT eventbus.create_route('good', 'b', %s, 'good')", f"stream:{name}_good")
        one("SELECT eventbus.create_route('bad', 'b', %s, 'bad')", f"list:{name}")
        one("SELECT eventbus.alter_route('bad', topics => 'bad.*'), eventbus.pause_route('bad'), "
            "eventbus.resume_route('bad')")
        one("SELECT eventbus.allow('trapped', 'a, b'), eventbus.disallow('trapped', 'a')")
        for topic in ("good", "bad.one", "bad.two"):
            one("SELECT eventbus.publish(%s, '1'::pg_catalog.jsonb), eventbus.publish_text(%s, 'x'), "
                "eventbus.publish_bytes(%s, 'x')", topic, topic, topic)
        cursor.execute("SET search_path = pg_catalog")
        dead = "SELECT count(*) FROM eventbus.dead_letter"
        eventually(lambda: one(dead) == 6, 60, "the dead letters")
        eventually(lambda: redis_server.client().xlen(f"{name}_good") == 3, 60, "what is delivered")
        eventually(lambda: one("SELECT min(delivered) FROM eventbus.status WHERE route = 'good'") == 3, 60, "counted")
        redis_server.client().delete(name)
        cursor.execute("RESET search_path")
        one("SELECT eventbus.redeliver('bad', (SELECT event_id FROM eventbus.dead_letter LIMIT 1))")
        cursor.execute("SELECT * FROM eventbus.health(), eventbus.status, eventbus.broker, eventbus.route, eventbus.event, "
                       "eventbus.allowed, eventbus.delivery_status(), eventbus.dead_letter")
        cursor.execute("SET search_path = pg_catalog")
        eventually(lambda: one(dead) == 5, 60, "the letter that was sent again arrives")
        generation = one("SELECT last_value FROM eventbus.log_generation")
        one("SELECT eventbus.publish('good', '1')")
        eventually(lambda: one("SELECT last_value FROM eventbus.log_generation") > generation, 60, "rotation")
        cursor.execute("RESET search_path")
        one("SELECT eventbus.discard(), eventbus.wake_workers()")
        one("SELECT eventbus.drop_route('good'), eventbus.drop_broker('b', true), eventbus.disallow('trapped')")
        cursor.execute("DROP ROLE trapped")
        cursor.execute("SET search_path = pg_catalog")
        cursor.execute("SELECT DISTINCT who, what FROM traps.caught")
        assert cursor.fetchall() == []


def test_default_privileges_give_nothing_of_ours(cluster, make_database):
    """ALTER DEFAULT PRIVILEGES of who installs is for their own objects."""
    db = make_database(extension=False)
    db.run("CREATE ROLE anybody LOGIN; CREATE ROLE everyone LOGIN")
    for kind in ("TABLES", "SEQUENCES", "FUNCTIONS", "SCHEMAS"):
        db.run(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON {kind} TO anybody WITH GRANT OPTION")
        db.run(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON {kind} TO PUBLIC")
    db.run("CREATE EXTENSION pg_eventbus")
    given = db.run("""
        SELECT 'eventbus'::text, grantee::regrole::text FROM pg_namespace, aclexplode(nspacl)
        WHERE nspname = 'eventbus' AND grantee NOT IN (nspowner, 'pg_monitor'::regrole)
        UNION SELECT relname::text, grantee::regrole::text FROM pg_class, aclexplode(relacl)
        WHERE relnamespace = 'eventbus'::regnamespace AND grantee NOT IN (relowner, 'pg_monitor'::regrole)
        UNION SELECT proname::text, grantee::regrole::text FROM pg_proc, aclexplode(proacl)
        WHERE pronamespace = 'eventbus'::regnamespace AND grantee NOT IN (proowner, 'pg_monitor'::regrole)""")
    assert given == []
    db.run("DROP OWNED BY anybody; DROP ROLE anybody, everyone")

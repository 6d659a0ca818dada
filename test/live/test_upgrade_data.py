# What it is: what 0.1 left behind (a half delivered batch, a parked key, dead letters, captures, grants) under the next library:
# before ALTER EXTENSION UPDATE, in it, and after it.
# Who calls it: pytest.
# Never: takes what a later version makes for what 0.1 left: test/data/0.1.json is 0.1's own (scripts/keep-release).
import os
import re
import threading
import time

import psycopg2
import pytest

import first_release
from database import Database
from installation import Installation
from servers import PostgresCluster, RedisServer, eventually, stays

HINT = "ALTER EXTENSION pg_eventbus UPDATE"


@pytest.fixture(scope="module")
def installation():
    with Installation() as made:
        made.put_script(first_release.SCRIPT)
        yield made


@pytest.fixture(scope="module")
def cluster(installation):
    with PostgresCluster(postgres=installation.postgres, config={"eventbus.rotation_period": 1}) as server:
        yield server


def waits(db):
    return [check for check in db.health() if check["name"] == "version" and check["level"] == "error" and HINT in check["hint"]]


# What 0.1 left

def publish_more(db, state):
    """What is published before the update comes after it."""
    db.run(f"SET ROLE {first_release.ROLE}")
    more = [db.publish("shop.more", number) for number in range(5)]
    db.run("RESET ROLE")
    state.paused_after += more
    state.out += more + first_release.captured(db, "INSERT INTO item VALUES (30, 'before the update')")
    state.items.append(30)


def test_what_0_1_left_is_delivered_after_the_update(installation, rabbit, name):
    """Beside a database that is of the library's version, which nothing disturbs."""
    with RedisServer.durable() as redis, PostgresCluster(
            postgres=installation.postgres, config={"autovacuum": "off"}) as server:  # it has transactions of its own
        db = Database(server, "kept", extension=False)
        db.run("CREATE EXTENSION pg_eventbus VERSION '0.1'")
        state = first_release.put_in(db, redis, rabbit)
        first_release.open_brokers(rabbit)
        other = Database(server, "other")
        other.broker("redis", redis.url)
        other.route("out", "redis", f"list:{name}:other")
        begin = server.log_size()
        server.restart("immediate")
        db.reconnect(), other.reconnect()
        server.wait_log(r"WARNING:  pg_eventbus: events of database kept wait: .*version 0\.1(.|\n)*HINT:  Run " + HINT, begin)
        assert waits(db) and not waits(other)
        publish_more(db, state)
        for number in range(20):
            other.publish("t", number)
        other.wait_status("out", delivered=20, state="active")
        stays(lambda: first_release.nothing_has_come(state, redis), 1, "nothing of 0.1's is delivered before the update")
        db.run("ALTER EXTENSION pg_eventbus UPDATE")
        first_release.check_delivered(db, state, redis, rabbit)
        first_release.check_letters(db, state, redis)
        first_release.check_paused(db, state, redis)
        first_release.check_rights(db)
        other.publish("t", 20)
        other.wait_status("out", delivered=21, state="active")
        assert [int(body) for body in redis.client().lrange(f"{name}:other", 0, -1)] == list(range(21))
        for database in (db, other):
            assert [check for check in database.health() if check["level"] == "error"] == []
        assert server.log_text(begin).count("events of database") == 1


# Before the update

VALUES = {"text": "'a'", "jsonb": "'{}'", "bytea": "'a'", "bigint": "1", "interval": "'0'", "boolean": "true",
          "regclass": "'item'", "regrole": "'postgres'"}
FUNCTIONS = """SELECT proname::text, proargtypes::regtype[]::text[] FROM pg_proc
               WHERE pronamespace = 'eventbus'::regnamespace AND prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)"""
ABOUT_ARGUMENTS = ("22023", "42704")  # a topic that is none, a route that does not exist


def calls_of_old_functions(db):
    for function, types in db.run(FUNCTIONS):
        yield f"SELECT eventbus.{function}({', '.join(f'{VALUES[type]}::{type}' for type in types)})"


OLD_ROUTE = """INSERT INTO eventbus.broker_config (name, url) VALUES ('a', 'redis://127.0.0.1:1');
               INSERT INTO eventbus.route_config (name, broker_id, destination, topics) SELECT 'a', id, 'stream:a', '#'
               FROM eventbus.broker_config"""


def test_every_function_of_0_1_works_or_asks_for_the_update(make_old):
    """Not one error about what the schema of 0.1 does not have, and no publisher's error at all."""
    db = make_old()
    db.run("CREATE TABLE item (id int PRIMARY KEY, what text)")
    db.run(OLD_ROUTE)
    views = [f"SELECT * FROM {view}" for (view,) in db.run(
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'eventbus'::regnamespace AND relkind = 'v'")]
    told = 0
    for sql in [*calls_of_old_functions(db), *views]:
        try:
            db.run(sql)
        except psycopg2.Error as error:
            assert "publish" not in sql, f"{sql}: {error}"
            hint = error.diag.message_hint or ""
            assert error.pgcode in ABOUT_ARGUMENTS or error.pgcode == "55000" and HINT in hint, f"{sql}: {error}"
            told += HINT in hint
    assert told > 5 and waits(db)


PUBLISHERS = ["SELECT eventbus.publish('t', '{}')", "SELECT eventbus.publish('t', '{}', 'k', '{}')",
              "SELECT eventbus.publish_text('t', 'x')", "SELECT eventbus.publish_text('t', 'x', 'k', NULL, 'text/html')",
              "SELECT eventbus.publish_bytes('t', 'x')", "SELECT eventbus.publish_bytes('t', 'x', 'k', '{}', 'image/png')",
              "INSERT INTO item VALUES (1, 'a'), (2, 'b')", "UPDATE item SET what = 'c'", "DELETE FROM item WHERE id = 2",
              "INSERT INTO whole VALUES (1)", "TRUNCATE item", "INSERT INTO by_hand VALUES (1)",
              "ALTER TABLE item RENAME what TO other", "ALTER TABLE item RENAME other TO what",
              "CREATE TABLE part_2 PARTITION OF whole FOR VALUES IN (2)", "INSERT INTO whole VALUES (2)", "DROP TABLE part_2",
              "DELETE FROM whole", "DELETE FROM by_hand"]
# As 0.1's own functions make them: these are its tables and triggers.
CAPTURES = """CREATE TABLE item (id int PRIMARY KEY, what text);
              CREATE TABLE whole (id int PRIMARY KEY) PARTITION BY LIST (id);
              CREATE TABLE part_1 PARTITION OF whole FOR VALUES IN (1);
              CREATE TABLE by_hand (id int PRIMARY KEY);
              SELECT eventbus.capture('item', topic => 't.{op}'), eventbus.capture('whole', topic => 'w.{op}');
              CREATE TRIGGER publishes AFTER INSERT ON by_hand FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change('h');
              INSERT INTO eventbus.ddl_capture VALUES (true, 'ddl.{tag}', NULL);
              CREATE EVENT TRIGGER eventbus_ddl_command_end ON ddl_command_end EXECUTE FUNCTION eventbus.publish_ddl();
              CREATE EVENT TRIGGER eventbus_sql_drop ON sql_drop EXECUTE FUNCTION eventbus.publish_ddl()"""


def test_all_that_published_in_0_1_publishes_before_in_and_after_the_update(make_old, redis_server, name):
    """Captures of DDL, too, which the update itself makes: its commands come to the trigger while the table is still the old."""
    db = make_old()
    db.run(CAPTURES)
    db.run(OLD_ROUTE.replace("redis://127.0.0.1:1", redis_server.url).replace("stream:a", f"stream:{name}"))
    db.run("INSERT INTO eventbus.cursor (route_id, done) SELECT id, pg_current_snapshot() FROM eventbus.route_config")
    for sql in PUBLISHERS:
        db.run(sql)
    before = db.run("SELECT id::int, topic FROM eventbus.event ORDER BY id")
    topics = [topic for _, topic in before]
    assert topics.count("t") == 6 and {"t.insert", "t.update", "t.delete", "t.truncate", "w.insert", "h"} <= set(topics)
    assert sum(topic.startswith("ddl.") for topic in topics) >= 4
    db.run("ALTER EXTENSION pg_eventbus UPDATE")
    for sql in PUBLISHERS:
        db.run(sql)
    db.wait_status("a", 60, state="active", lag=lambda lag: not lag, delivered=lambda count: count >= 2 * len(before))
    came = redis_server.stream(name)
    assert [(int(entry["id"]), entry["topic"].decode()) for entry in came[:len(before)]] == before
    after = [entry["topic"].decode() for entry in came[-len(before):]]
    assert after == topics
    assert len({entry["id"] for entry in came}) == len(came)


# In the update

class Load:
    """Sessions that do something again and again until the end of the block; what failed, and how long it took at most."""

    def __init__(self, db):
        self.db, self.threads, self.stopped = db, [], threading.Event()
        self.ids, self.errors, self.slowest = [], [], 0.0

    def __enter__(self):
        return self

    def add(self, turn):
        connection = self.db.connect()

        def work():
            cursor = connection.cursor()
            cursor.execute(PREPARED)
            while not self.stopped.is_set():
                begun = time.monotonic()
                try:
                    self.ids += turn(cursor) or []
                except psycopg2.Error as error:
                    connection.rollback()
                    self.errors.append(error)
                self.slowest = max(self.slowest, time.monotonic() - begun)
                self.stopped.wait(0.01)  # so that delivery keeps up
            connection.close()
        self.threads.append(threading.Thread(target=work))
        self.threads[-1].start()

    def __exit__(self, *_):
        self.stopped.set()
        for thread in self.threads:
            thread.join()


def published(*statements):
    def turn(cursor):
        ids = []
        for sql, arguments in statements:
            cursor.execute(sql, arguments)
            ids += [id for (id,) in cursor.fetchall() if id is not None]
        return ids
    return turn


PUBLISHED = [published(("SELECT eventbus.publish('t', '{}')", None), ("SELECT eventbus.publish_text('t', 'x', 'k')", None)),
             published(("SELECT eventbus.publish(%s, %s::jsonb, key => %s)", ("t", "{}", "k")),
                       ("SELECT eventbus.publish_bytes(%s, %s)", ("t", b"\x00"))),
             published(("SELECT publishes('x')", None), ("SELECT eventbus.publish('t', to_jsonb(g)) FROM generate_series(1, 20) g", None)),
             lambda cursor: cursor.execute("INSERT INTO item (what) VALUES ('a'); INSERT INTO whole VALUES (1)"),
             published(("EXECUTE prepared('x')", None))]
PREPARED = "PREPARE prepared (text) AS SELECT eventbus.publish_text('t', $1, headers => '{}')"


def look_around(cursor):
    """In transactions that read the tables in an order that is not the update's."""
    for sql in ("BEGIN", "SELECT id FROM eventbus.event LIMIT 1", "SELECT count(*) FROM eventbus.dead_letter",
                "SELECT eventbus.wait_for_delivery(1, '0')", "SELECT count(*) FROM eventbus.captured",
                "SELECT count(*) FROM eventbus.route", "SELECT count(*) FROM eventbus.dead_letter", "COMMIT"):
        cursor.execute(sql)


def test_the_update_beside_publishers_and_readers(make_old, redis_server, name):
    """No publish fails, none waits for a transaction that is open, nothing is lost or comes twice, and workers follow."""
    db = make_old()
    db.run(CAPTURES[:CAPTURES.index("CREATE TRIGGER publishes")].replace("id int PRIMARY KEY, what", "id serial PRIMARY KEY, what")
           .replace("whole (id int PRIMARY KEY)", "whole (id int)"))
    db.run("CREATE FUNCTION publishes(x text) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RETURN eventbus.publish_text('t', x); END $$")
    db.run(OLD_ROUTE.replace("redis://127.0.0.1:1", redis_server.url).replace("stream:a", f"stream:{name}"))
    db.run("INSERT INTO eventbus.cursor (route_id, done) SELECT id, pg_current_snapshot() FROM eventbus.route_config")
    open_one, prepared = db.connect(autocommit=False), db.connect(autocommit=False)
    first = [db.publish("t", n, connection=connection) for n, connection in enumerate((open_one, prepared))]
    prepared.cursor().execute(f"PREPARE TRANSACTION '{name}'")
    with Load(db) as publishers, Load(db) as readers:
        for turn in PUBLISHED:
            publishers.add(turn)
        for _ in range(2):
            readers.add(look_around)
        eventually(lambda: len(publishers.ids) > 200, 60, "they publish")
        begun = time.monotonic()
        db.run("SET statement_timeout = '60 s'; ALTER EXTENSION pg_eventbus UPDATE")
        took = time.monotonic() - begun
        now = len(publishers.ids)
        eventually(lambda: len(publishers.ids) > now + 500, 60, "they continue")
        db.wait_status("a", 60, delivered=lambda count: count > now)
    open_one.commit()
    db.run(f"COMMIT PREPARED '{name}'")
    assert not publishers.errors, publishers.errors[0]
    assert {error.pgcode for error in readers.errors} <= {"55000"}, readers.errors[-1]
    assert publishers.slowest < 10 and took < 30, (publishers.slowest, took)
    everything = db.one("SELECT last_value FROM eventbus.event_id")
    db.wait_status("a", 60, state="active", lag=lambda lag: not lag, in_flight=0)
    came = redis_server.stream_ids(name)
    assert len(set(came)) == len(came), "nothing twice"
    assert set(publishers.ids) | set(first) <= set(came) and len(came) <= everything
    captures = db.one("SELECT (SELECT count(*) FROM item) + (SELECT count(*) FROM whole)")
    assert len(came) == len(publishers.ids) + len(first) + captures, "nothing lost"
    for connection in (open_one, prepared):
        connection.close()


def test_the_update_waits_for_a_reader_and_nobody_for_the_update(make_old, cluster):
    db, begin = make_old(), cluster.log_size()
    reader, updater = db.connect(autocommit=False), db.connect()
    reader.cursor().execute("SELECT * FROM eventbus.dead_letter")
    done = threading.Thread(target=lambda: updater.cursor().execute("ALTER EXTENSION pg_eventbus UPDATE"))
    done.start()
    db.run("SET lock_timeout = '1 s'")

    def is_told():
        db.publish("t", 1)
        db.run("SELECT * FROM eventbus.dead_letter")
        return re.search(rf"DETAIL:  Processes: .*\b{reader.get_backend_pid()}\b", cluster.log_text(begin))  # and who has just read
    eventually(is_told, 60, "it says whom it waits for")
    assert done.is_alive() and db.one("SELECT extversion FROM pg_extension WHERE extname = 'pg_eventbus'") == "0.1"
    reader.rollback()
    done.join(60)
    assert db.one("SELECT extversion FROM pg_extension WHERE extname = 'pg_eventbus'") != "0.1"
    reader.close(), updater.close()


RIGHTS = """SELECT o.what, a.grantee::regrole::text, a.privilege_type, a.is_grantable
            FROM (SELECT p.oid::regprocedure::text AS what, proacl AS acl, proowner AS owner FROM pg_proc p
                  WHERE pronamespace = 'eventbus'::regnamespace
                  UNION ALL SELECT c.oid::regclass::text, relacl, relowner FROM pg_class c WHERE relnamespace = 'eventbus'::regnamespace
                  UNION ALL SELECT nspname::text, nspacl, nspowner FROM pg_namespace WHERE nspname = 'eventbus') o,
                 aclexplode(o.acl) a WHERE a.grantee <> o.owner AND a.grantee <> 'pg_monitor'::regrole"""
OWNERS = """SELECT DISTINCT proowner::regrole::text FROM pg_proc WHERE pronamespace = 'eventbus'::regnamespace
            UNION SELECT relowner::regrole::text FROM pg_class WHERE relnamespace = 'eventbus'::regnamespace
            UNION SELECT evtowner::regrole::text FROM pg_event_trigger
            UNION SELECT extowner::regrole::text FROM pg_extension WHERE extname = 'pg_eventbus'"""


def test_what_was_granted_in_0_1_is_granted_after_the_update_and_in_a_dump(make_old, make_database, cluster, name):
    """Whoever of the superusers runs the update, what it makes is the extension's owner's."""
    db = make_old()
    db.run("CREATE ROLE publishes_1; CREATE ROLE operates_1; CREATE ROLE other_superuser SUPERUSER LOGIN")
    try:
        db.run("GRANT USAGE ON SCHEMA eventbus TO publishes_1, operates_1")
        db.run("GRANT EXECUTE ON FUNCTION eventbus.publish(text, jsonb, text, jsonb), eventbus.publish_wal TO publishes_1")
        db.run("GRANT EXECUTE ON FUNCTION eventbus.create_route, eventbus.redeliver, eventbus.health TO operates_1 WITH GRANT OPTION")
        db.run("GRANT SELECT ON eventbus.status, eventbus.event, eventbus.dead_letter, eventbus.log_0 TO operates_1")
        before = set(db.run(RIGHTS))
        updater = Database(cluster, db.name, extension=False, create=False, user="other_superuser")
        updater.run("ALTER EXTENSION pg_eventbus UPDATE")
        assert updater.one("SELECT current_user || current_setting('role')") == "other_superusernone"
        updater.connection.close()
        after = set(db.run(RIGHTS))
        assert len(before) > 8 and before <= after, before - after
        assert db.run(OWNERS) == [("postgres",)]
        copy = make_database("copy", extension=False)
        path = os.path.join(cluster.directory, f"{name}.dump")
        cluster.program("pg_dump", "-Fc", "-f", path, "-d", db.name)
        cluster.program("pg_restore", "-d", copy.name, path)
        assert set(copy.run(RIGHTS)) == after
    finally:
        for database in (db, *([copy] if "copy" in locals() else [])):
            database.run("DROP OWNED BY publishes_1, operates_1")
        db.run("DROP ROLE publishes_1, operates_1, other_superuser")  # nothing is the latter's

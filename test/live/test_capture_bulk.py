# What it is: statements that change many captured rows: their events wait in memory, and nobody can tell.
# Who calls it: pytest.
# Never: takes for granted that events waited; the WAL says whether they did.
import json

import pytest

from servers import eventually

ROWS = 1000
# Fires after our own trigger, once a row.
BESIDE = """CREATE FUNCTION beside() RETURNS trigger LANGUAGE plpgsql AS $$ {} $$;
            CREATE TRIGGER zz_beside AFTER INSERT ON item FOR EACH ROW EXECUTE FUNCTION beside()"""


@pytest.fixture
def item(db):
    """A captured table, in a database that the keeper serves: elsewhere events don't wait."""
    db.run("CREATE EXTENSION pg_walinspect")
    db.run("CREATE TABLE item (n integer)")
    db.run("SELECT eventbus.capture('item', topic => 'item', payload => 'row')")
    eventually(db.workers, 30, "the database has a keeper")
    return db


def records_of_many(db, work):
    """How many WAL records of several tuples work() writes."""
    db.run("SELECT pg_create_physical_replication_slot('records_of_many', true)")  # what is written from here is kept
    try:
        begin = db.one("SELECT pg_current_wal_insert_lsn()")
        work()
        db.run("CHECKPOINT")  # all of it is readable then
        return db.one("SELECT count(*) FROM pg_get_wal_records_info(%s, pg_current_wal_flush_lsn())"
                      " WHERE resource_manager = 'Heap2' AND record_type LIKE 'MULTI_INSERT%%'", begin)
    finally:
        db.run("SELECT pg_drop_replication_slot('records_of_many')")


def insert(db, first, last):
    db.run("INSERT INTO item SELECT generate_series(%s, %s)", first, last)


def arrived(stream, count):
    """Payloads in the order of arrival, which is the ids' order; rows by their number."""
    entries = stream(count)
    ids = [int(entry["id"]) for entry in entries]
    assert ids == sorted(set(ids))
    texts = [entry["payload"].decode() for entry in entries]
    return [int(text[len('{"n":'):-1]) if text.startswith("{") else text for text in texts]


def numbers(*ranges):
    return [n for first, last in ranges for n in range(first, last + 1)]


def test_rows_are_written_by_pages_in_order(item, stream):
    assert 2 <= records_of_many(item, lambda: insert(item, 1, ROWS)) <= ROWS / 10
    assert arrived(stream, ROWS) == numbers((1, ROWS))


def test_few_rows_are_written_one_by_one(item, stream):
    def work():
        for n in range(1, 9):
            insert(item, 8 * n - 7, 8 * n)
    assert records_of_many(item, work) == 0
    assert arrived(stream, 64) == numbers((1, 64))


def test_every_command_sees_what_was_published_before(item, stream):
    """The view is read amid the statement, each time with a few events waiting."""
    item.run("CREATE TABLE seen (n integer, events bigint, last bigint)")
    item.run(BESIDE.format("""BEGIN
        IF NEW.n % 20 = 0 THEN
            INSERT INTO seen SELECT NEW.n, count(*), max((payload::json->>'n')::bigint) FROM eventbus.event;
        END IF;
        RETURN NULL;
    END"""))
    item.run("SELECT eventbus.pause_route('out')")  # so that the log keeps all
    assert records_of_many(item, lambda: insert(item, 1, ROWS)) > 10
    assert item.run("SELECT n, events, last FROM seen ORDER BY n") == [(n, n, n) for n in range(20, ROWS + 1, 20)]
    item.run("SELECT eventbus.resume_route('out')")
    assert arrived(stream, ROWS) == numbers((1, ROWS))


def test_publish_amid_the_rows_keeps_the_order(item, stream):
    """A simple expression of PL/pgSQL: no statement begins for it."""
    item.run(BESIDE.format("""DECLARE id bigint; BEGIN
        IF NEW.n % 13 = 0 THEN id := eventbus.publish_text('note', NEW.n || ' it was'); END IF;
        RETURN NULL;
    END"""))
    insert(item, 1, 130)
    expected = [each for n in range(1, 131) for each in ([n, f"{n} it was"] if n % 13 == 0 else [n])]
    assert arrived(stream, len(expected)) == expected


def test_blocks_that_fail_amid_the_rows_take_back_their_own_only(item, stream):
    """While some of the statement's events wait, blocks begin that publish many themselves, and fail with those
    waiting, too; or succeed."""
    item.run("CREATE TABLE inner_item (n integer)")
    item.run("SELECT eventbus.capture('inner_item', topic => 'inner', payload => 'row')")
    item.run(BESIDE.format("""BEGIN
        IF NEW.n % 50 = 40 THEN
            BEGIN
                INSERT INTO inner_item SELECT i FROM generate_series(1000 * NEW.n, 1000 * NEW.n + 29) i;
                INSERT INTO inner_item SELECT 1000 * NEW.n + 30 + i FROM generate_series(0, 29) i;
                IF NEW.n % 100 = 40 THEN RAISE EXCEPTION 'no'; END IF;
            EXCEPTION WHEN raise_exception THEN NULL;
            END;
        ELSIF NEW.n % 50 = 45 THEN
            BEGIN
                INSERT INTO inner_item VALUES (-1);
                PERFORM 1 / 0;
            EXCEPTION WHEN division_by_zero THEN NULL;
            END;
        END IF;
        RETURN NULL;
    END"""))
    item.run("""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.n % 1000 = 25 AND NEW.n / 1000 % 200 = 190 THEN RAISE EXCEPTION 'with those waiting'; END IF;
        RETURN NULL; END $$;
        CREATE TRIGGER zz_refuse AFTER INSERT ON inner_item FOR EACH ROW EXECUTE FUNCTION refuse()""")
    insert(item, 1, ROWS)
    expected = []
    for n in range(1, ROWS + 1):
        expected.append(n)
        if n % 100 == 90 and n % 200 != 190:
            expected += numbers((1000 * n, 1000 * n + 59))
    assert arrived(stream, len(expected)) == expected


def test_savepoints_around_many_rows(item, stream):
    item.run("BEGIN")
    insert(item, 1, 100)
    item.run("SAVEPOINT a")
    insert(item, -100, -1)
    item.run("SAVEPOINT b")
    insert(item, -100, -1)
    item.run("RELEASE b; ROLLBACK TO a")
    insert(item, 101, 200)
    item.run("SAVEPOINT c")
    insert(item, 201, 300)
    item.run("COMMIT")
    assert arrived(stream, 300) == numbers((1, 300))


def test_an_error_half_way_publishes_nothing(item, stream):
    item.run(BESIDE.format("BEGIN IF NEW.n = 500 THEN RAISE EXCEPTION 'half-way'; END IF; RETURN NULL; END"))
    with pytest.raises(Exception, match="half-way"):
        insert(item, 1, ROWS)
    insert(item, 2001, 2100)
    assert arrived(stream, 100) == numbers((2001, 2100))


def test_prepared_transactions_of_many_rows(item, stream, name):
    for how, first in (("COMMIT", 1), ("ROLLBACK", 1001), ("COMMIT", 2001)):
        item.run("BEGIN")
        insert(item, first, first + 99)
        item.run(f"PREPARE TRANSACTION '{name}'")
        item.run(f"{how} PREPARED '{name}'")
    assert arrived(stream, 200) == numbers((1, 100), (2001, 2100))


def test_deferred_triggers_of_many_rows(item, stream):
    """They fire at COMMIT, or when SET CONSTRAINTS says so."""
    item.run("SELECT eventbus.uncapture('item')")
    item.run("CREATE CONSTRAINT TRIGGER late AFTER INSERT ON item DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
             " EXECUTE FUNCTION eventbus.publish_change('late', 'payload=row')")

    def work():
        item.run("BEGIN")
        insert(item, 1, 300)
        item.run("SELECT eventbus.publish_text('t', 'before')")
        item.run("SET CONSTRAINTS ALL IMMEDIATE")
        item.run("SELECT eventbus.publish_text('t', 'between')")
        item.run("SET CONSTRAINTS ALL DEFERRED")
        insert(item, 301, 600)
        item.run("SELECT eventbus.publish_text('t', 'after')")
        item.run("COMMIT")
    assert records_of_many(item, work) >= 2
    assert arrived(stream, 603) == ["before", *numbers((1, 300)), "between", "after", *numbers((301, 600))]


def test_copy_and_cursors(item, stream):
    item.run("SELECT eventbus.pause_route('out')")
    item.run("BEGIN")
    item.run("DECLARE early CURSOR FOR SELECT count(*) FROM eventbus.event")
    assert records_of_many(item, lambda: item.run("COPY item FROM PROGRAM 'seq 1 200'")) >= 1
    item.run("DECLARE late CURSOR FOR SELECT count(*) FROM eventbus.event")
    insert(item, 201, 300)
    assert [item.one(f"FETCH {cursor}") for cursor in ("early", "late")] == [0, 200]
    assert item.one("SELECT count(*) FROM eventbus.event") == 300
    item.run("COMMIT")
    item.run("SELECT eventbus.resume_route('out')")
    assert arrived(stream, 300) == numbers((1, 300))


def test_a_route_takes_what_is_published_after_it(item, redis_server, name):
    item.broker("redis", redis_server.url)
    item.run("BEGIN")
    insert(item, 1, 100)
    item.route("out", "redis", f"stream:{name}")
    insert(item, 101, 200)
    item.run("COMMIT")
    eventually(lambda: redis_server.client().xlen(name) >= 100, 30, "the route delivers")
    assert [entry["payload"] for entry in redis_server.stream(name)] == [b'{"n":%d}' % n for n in range(101, 201)]


def test_the_log_can_be_dropped_behind_a_copy(item):
    item.run("BEGIN")
    item.run("COPY item FROM PROGRAM 'seq 1 100'")
    item.run("DROP EXTENSION pg_eventbus CASCADE")
    item.run("COMMIT")
    assert item.one("SELECT count(*) FROM item") == 100


def test_what_was_written_by_pages_survives_a_crash(item, cluster):
    """Pages written again and pages written to, and whole ones where a block begins amid the rows."""
    item.broker("hold", "redis:///nonexistent.sock")
    item.route("hold", "hold", "list:x")
    item.run(BESIDE.format("""BEGIN
        IF NEW.n % 400 = 37 THEN
            BEGIN PERFORM eventbus.publish_text('t', 'phantom'); PERFORM 1 / 0; EXCEPTION WHEN others THEN NULL; END;
        END IF;
        RETURN NULL;
    END"""))
    item.run("CHECKPOINT")
    insert(item, 1, 2 * ROWS)
    item.publish("t", {"n": -1})
    insert(item, 2 * ROWS + 1, 3 * ROWS)
    look = "SELECT id, topic, payload, headers::text, published_at FROM eventbus.event ORDER BY id"
    before = item.run(look)
    assert len(before) == 3 * ROWS + 1
    cluster.kill_postmaster()
    cluster.start()
    cluster.wait_recovered()
    item.reconnect()
    assert item.run(look) == before
    insert(item, 1, 10)
    assert item.one("SELECT min(id) > %s FROM eventbus.event WHERE id > %s", before[-1][0], before[-1][0])
    assert item.one("SELECT count(*) = count(DISTINCT id) FROM eventbus.event")


def test_what_arrives_is_what_the_view_shows(item, stream):
    """Both put back what the stored events leave out; large ones, stored apart, too."""
    item.run("SELECT eventbus.pause_route('out')")
    item.run('CREATE TABLE "wh""y" (id integer PRIMARY KEY, "na""me" text)')
    item.run("""SELECT eventbus.capture('"wh""y"', topic => 'change.{op}', headers => '{"pg-txid": 0, "more": [1, "x"]}')""")
    item.run("SELECT eventbus.capture('item', topic => 'plain.{op}')")
    item.run("""INSERT INTO "wh""y" SELECT i, E'\\x01\\x02 "' || i FROM generate_series(1, 50) i""")
    item.run("""UPDATE "wh""y" SET "na""me" = repeat('long', 5000) WHERE id = 7""")
    item.run("""DELETE FROM "wh""y" WHERE id <= 8; TRUNCATE "wh""y" """)
    item.run("INSERT INTO item VALUES (1); UPDATE item SET n = 2; DELETE FROM item")
    tables = ["plain", "do.t", 'quo"te']  # one that the topic names word by word, two that it cannot
    for table in tables:
        quoted = '"' + table.replace('"', '""') + '"'
        item.run(f"CREATE TABLE {quoted} (n integer)")
        item.run("SELECT eventbus.capture(%s)", quoted)
        item.run(f"INSERT INTO {quoted} VALUES (1); UPDATE {quoted} SET n = 2; DELETE FROM {quoted}; TRUNCATE {quoted}")
        item.run(f"ALTER TABLE {quoted} RENAME TO {quoted[:-1]}s\"")
    item.run("SELECT eventbus.publish_text('t', E'\\x01\\x02\\x03\\x04\\x05\\x06')")
    shown = item.rows("SELECT id, topic, payload, headers::text AS headers FROM eventbus.event ORDER BY id")
    item.run("SELECT eventbus.resume_route('out')")
    entries = stream(len(shown))
    assert len(shown) == 50 + 1 + 8 + 1 + 3 + 3 * 4 + 1
    for row, entry in zip(shown, entries):
        for name, value in row.items():
            assert entry.get(name) == (None if value is None else str(value).encode())
    changes = [json.loads(row["payload"]) for row in shown[:-1]]
    assert changes[2]["after"] == {"id": 3, 'na"me': '\x01\x02 "3'} and changes[2]["source"]["table"] == 'wh"y'
    assert [(change["source"]["schema"], change["source"]["table"], change["op"]) for change in changes[-3 * 4:]] == [
        ("public", table, op) for table in tables for op in "cudt"]
    assert {row["topic"] for row in shown[-5 - 2 * 4:-1 - 2 * 4]} == {
        f"public.plain.{op}" for op in ("insert", "update", "delete", "truncate")}
    assert {(json.loads(row["headers"])["pg-txid"], json.loads(row["headers"])["pg-user"]) for row in shown[:-1]} == {
        (change["source"]["txId"], "postgres") for change in changes}
    assert shown[-1]["payload"] == "\x01\x02\x03\x04\x05\x06" and shown[-1]["headers"] is None

# What it is: one event, change, row or dead letter that raises an error in our own code costs only itself.
# Who calls it: pytest.
# Never: breaks what is not its own database's.
import json
import os
import statistics
import threading
import time

import psycopg2
import pytest

from servers import PostgresCluster, eventually

from test_wal import WAL_SETTINGS, publish_wal, text_of


@pytest.fixture(scope="module")
def cluster():
    with PostgresCluster(config=dict(WAL_SETTINGS, allow_system_table_mods="on", fsync="on")) as server:
        yield server


def arrived(redis_server, name, count, deadline=60):
    return eventually(lambda: len(found := [text_of(e) for e in redis_server.stream(name)]) == count and found,
                      deadline, f"{count} entries of {name}")


@pytest.fixture
def ward(db):
    """A table with a type whose output function fails for whatever is in it."""
    db.run("CREATE TYPE mood AS ENUM ('ok', 'bad')")
    db.run("CREATE TABLE ward (id int PRIMARY KEY, patient mood)")
    db.run("CREATE TABLE item (id int PRIMARY KEY, words text)")

    def spoil():
        db.run("DELETE FROM pg_enum WHERE enumtypid = 'mood'::regtype AND enumlabel = 'bad'")

    db.bad = db.one("SELECT oid FROM pg_enum WHERE enumtypid = 'mood'::regtype AND enumlabel = 'bad'")
    db.spoil = spoil
    # The value is taken in before the label goes, and its change is decoded afterwards.
    db.run("CREATE TABLE kept AS SELECT 'bad'::mood AS patient")
    spoil()
    return db


INSERT_BAD = "INSERT INTO ward SELECT g, patient FROM kept, generate_series(%s, %s) g"


@pytest.fixture
def route(db, redis_server, name):
    db.broker("redis", redis_server.url)

    def make(route, topics, **options):
        db.route(route, "redis", f"stream:{name}-{route}", topics, source="wal", **options)
        db.wait_state(route, "active", deadline=60)
    return make


def passes(db, cluster, begin):
    """How often decoding of the database's WAL has begun."""
    oid = db.one("SELECT oid FROM pg_database WHERE datname = current_database()")
    return cluster.log_text(begin).count(f'starting logical decoding for slot "pg_eventbus_{oid}_')


def test_a_row_whose_output_function_fails(ward, route, redis_server, name, cluster):
    route("all", "#")
    route("shop", "shop.#")
    route("some", "#", tables="public.item")
    route("topic", "public.item.#")
    pid, begin = ward.sender("all"), cluster.log_size()
    ward.run("INSERT INTO item VALUES (1, 'x')")
    ward.run(INSERT_BAD, 1, 1)
    publish_wal(ward, "shop.n", {})
    ward.run("BEGIN")
    ward.run("INSERT INTO item VALUES (2, 'x')")
    ward.run("INSERT INTO ward VALUES (2, 'ok')")
    ward.run(INSERT_BAD, 3, 3)
    ward.run("INSERT INTO item VALUES (4, 'x')")
    ward.run("COMMIT")
    entries = arrived(redis_server, f"{name}-all", 5)
    assert [e.get("key") for e in entries] == ["1", None, "2", "2", "4"]
    assert [e["id"].partition("-")[2] for e in entries] == ["1", "1", "1", "2", "4"], "the dead one keeps its number"
    arrived(redis_server, f"{name}-shop", 1)
    # The one that takes messages has them as well.
    arrived(redis_server, f"{name}-some", 4)
    dead = ward.wait_dead("all", 2)
    assert [(d["topic"], d["key"], d["payload"], d["incomplete"]) for d in dead] == [
        ("public.ward.insert", "1", None, True), ("public.ward.insert", "3", None, True)]
    assert all(d["error"] == f"a change of table public.ward cannot be decoded: invalid internal value for enum: {ward.bad}"
               for d in dead)
    assert dead[1]["message_id"].partition("-")[2] == "3"
    arrived(redis_server, f"{name}-topic", 3)
    assert not ward.dead("shop") and not ward.dead("some") and not ward.dead("topic")
    assert ward.sender("all") == pid and ward.status("all")["state"] == "active"
    assert {row["name"]: row for row in ward.health()}["dead letters"]["level"] == "warning"
    assert ward.one("SELECT eventbus.redeliver()") == 0 and ward.one("SELECT eventbus.discard()") == 2
    assert passes(ward, cluster, begin) == 0, "what is wrong with a table's first changes costs no second pass"


def test_a_row_that_fails_behind_many_of_its_table(ward, route, redis_server, name, cluster):
    """The pass begins again, once: nothing is lost, and nothing comes twice."""
    route("all", "#")
    pid, begin = ward.sender("all"), cluster.log_size()
    ward.run("INSERT INTO ward SELECT g, 'ok' FROM generate_series(1, 300) g")
    ward.run("BEGIN")
    ward.run("INSERT INTO ward SELECT g, 'ok' FROM generate_series(301, 400) g")
    ward.run(INSERT_BAD, 401, 440)
    ward.run("INSERT INTO ward SELECT g, 'ok' FROM generate_series(441, 500) g")
    ward.run("COMMIT")
    assert [e["key"] for e in arrived(redis_server, f"{name}-all", 460)] == [str(n) for n in [*range(1, 401), *range(441, 501)]]
    assert [d["key"] for d in ward.wait_dead("all", 40)] == [str(n) for n in range(401, 441)]
    assert ward.sender("all") == pid and passes(ward, cluster, begin) == 1


def test_routes_that_do_not_want_a_table_never_meet_it(ward, route, redis_server, name, cluster):
    """Nor does one whose topics leave it out: its row's type has no entry in the catalog at all."""
    route("item", "public.item.#")
    ward.run("CREATE TABLE broken (id int PRIMARY KEY, what mood[])")
    ward.run("INSERT INTO broken VALUES (1, '{ok}')")
    ward.run("UPDATE pg_type SET typoutput = 0 WHERE oid = 'mood'::regtype")
    ward.run(INSERT_BAD, 1, 3)
    ward.run("INSERT INTO item VALUES (1, 'x')")
    arrived(redis_server, f"{name}-item", 1)
    assert not ward.dead("item")
    assert passes(ward, cluster, 0) == 1


@pytest.fixture
def speaking(ward):
    """A type whose output function is written in PL/pgSQL, and what is made of it."""
    ward.run("CREATE TYPE pair AS (a int, m mood)")
    ward.run("CREATE DOMAIN moods AS mood[]")
    ward.run("CREATE TYPE span AS RANGE (subtype = mood)")
    columns = ["m mood", "a mood[]", "p pair", "pp pair[]", "d moods", "r span"]
    values = ["'ok'", "'{ok}'", "ROW(1, 'ok')", "ARRAY[ROW(1, 'ok')::pair]", "'{ok}'", "'[ok,ok]'"]
    ward.run("CREATE FUNCTION said(mood) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'called'; RETURN 'x'; END $$")
    for n, column in enumerate(columns):
        ward.run(f"CREATE TABLE said_{n} (id int PRIMARY KEY, {column}, words text)")
    ward.run("UPDATE pg_type SET typoutput = 'said'::regproc WHERE oid = 'mood'::regtype")

    def insert():
        for n, value in enumerate(values):
            ward.run(f"INSERT INTO said_{n} VALUES (1, {value}, 'x'), (2, NULL, 'y')")
        return len(values)

    ward.insert = insert
    return ward


@pytest.mark.parametrize("format", ["debezium", "wal2json"])
def test_output_functions_in_other_languages_are_not_called(speaking, route, redis_server, name, cluster, log_from_here, format):
    route("all", "#", format=format)
    count = speaking.insert()
    assert [e["key"] for e in arrived(redis_server, f"{name}-all", count)] == ["2"] * count
    dead = speaking.wait_dead("all", count)
    assert all("is not written in C" in d["error"] and d["topic"].startswith("public.said_") for d in dead)
    assert "called" not in cluster.log_text(log_from_here)


@pytest.mark.parametrize("options, instead", [({}, "__debezium_unavailable_value"), ({"format-version": "1"}, None),
                                              ({"format-version": "2"}, None)])
def test_the_output_plugin_leaves_out_what_it_cannot_write(speaking, options, instead):
    """An error would stop its slot for good."""
    speaking.run("SELECT pg_create_logical_replication_slot('said', 'pg_eventbus')")
    try:
        count = speaking.insert()
        del speaking.connection.notices[:]
        rows = [json.loads(data) for data, in speaking.run(
            "SELECT data FROM pg_logical_slot_peek_changes('said', NULL, NULL, VARIADIC %s::text[])",
            [text for option in options.items() for text in option])]
    finally:
        speaking.run("SELECT pg_drop_replication_slot('said')")
    if options.get("format-version") == "1":
        rows = [dict(zip(c["columnnames"], c["columnvalues"])) for row in rows for c in row["change"]]
    elif options:
        rows = [{c["name"]: c["value"] for c in row["columns"]} for row in rows if row["action"] == "I"]
    else:
        rows = [row["after"] for row in rows]
    names = ["m", "a", "p", "pp", "d", "r"]
    assert rows == [row for name in names for row in (
        {"id": 1, **({name: instead} if instead else {}), "words": "x"}, {"id": 2, name: None, "words": "y"})]
    notices = "".join(speaking.connection.notices)
    assert notices.count("are left out") == count and "called" not in notices


def test_values_that_are_not_what_they_say(db, route, redis_server, name):
    """Rows and arrays that functions in C have given to another type than they made: their changes are dead letters."""
    db.run("CREATE TYPE pair AS (a int, b text); CREATE TYPE other AS (a text, b int)")
    db.run("CREATE TABLE item (id int PRIMARY KEY, p pair, pp pair[], n text[])")
    for argument, result in (("other", "pair"), ("record", "pair"), ("int[]", "text[]")):
        db.run(f"CREATE FUNCTION lie({argument}) RETURNS {result} IMMUTABLE STRICT LANGUAGE internal AS 'byteasend'")
    route("all", "#")
    pid = db.sender("all")
    lies = {"p": "lie(ROW('x', 1)::other)", "pp": "ARRAY[lie(ROW(1, 2))]", "n": "lie(ARRAY[1])"}
    for n, (column, lie) in enumerate(lies.items()):
        db.run(f"INSERT INTO item (id, {column}) VALUES ({n}, {lie})")
    db.run("CREATE TABLE gone (id int PRIMARY KEY, p pair)")
    db.run("INSERT INTO gone VALUES (1, lie(ROW('x', 1)::other))")
    db.run("DROP TABLE gone; DROP TYPE other CASCADE")
    db.run("INSERT INTO item (id, p) VALUES (9, ROW(1, 'x'))")
    entry, = arrived(redis_server, f"{name}-all", 1)
    assert json.loads(entry["payload"])["after"]["p"] == {"a": 1, "b": "x"}
    dead = db.wait_dead("all", 4)
    assert [(d["topic"], d["key"]) for d in dead] == [("public.item.insert", "0"), ("public.item.insert", "1"),
                                                      ("public.item.insert", "2"), ("public.gone.insert", "1")]
    words = ["public.pair is marked as one of public.other", "public.pair is marked as one of pg_catalog.record",
             "text[] is marked as an array of integer", "public.pair is marked as one of public.other"]
    assert all(d["incomplete"] and word in d["error"] for d, word in zip(dead, words)), dead
    assert db.sender("all") == pid


def test_casts_to_json_in_c_are_called(db):
    """hstore's, as PostgreSQL's to_json does, also within arrays."""
    db.run("CREATE EXTENSION hstore")
    db.run("CREATE TABLE stored (h hstore, a hstore[])")
    db.run("SELECT pg_create_logical_replication_slot('stored', 'pg_eventbus')")
    db.run("""INSERT INTO stored VALUES ('a=>1', ARRAY['b=>NULL'::hstore])""")
    try:
        data = db.one("SELECT data FROM pg_logical_slot_peek_changes('stored', NULL, NULL)")
    finally:
        db.run("SELECT pg_drop_replication_slot('stored')")
    assert json.loads(data)["after"] == {"h": {"a": "1"}, "a": [{"b": None}]}


def test_large_transactions(ward, route, redis_server, name):
    """Decoded while they run: ids and order are those of the others, and rolled-back savepoints leave nothing."""
    route("all", "#")
    pid = ward.sender("all")
    rows = 20000
    ward.run("BEGIN")
    ward.run("INSERT INTO item SELECT g, repeat('x', 300) FROM generate_series(1, %s) g", rows)
    ward.run(INSERT_BAD, 1, 5)
    ward.run("SAVEPOINT s")
    ward.run(INSERT_BAD, 6, 10)
    ward.run("INSERT INTO item SELECT g, repeat('x', 300) FROM generate_series(%s, %s) g", 3 * rows, 4 * rows)
    ward.run("ROLLBACK TO s")
    ward.run("INSERT INTO item VALUES (0, 'x')")
    ward.run("COMMIT")
    entries = arrived(redis_server, f"{name}-all", rows + 1, 120)
    assert [e["id"].partition("-")[2] for e in entries] == [str(n) for n in [*range(1, rows + 1), rows + 6]]
    dead = ward.wait_dead("all", 5)
    assert [d["key"] for d in dead] == ["1", "2", "3", "4", "5"]
    assert ward.sender("all") == pid


def test_ten_thousand_undecodable_rows(ward, route, redis_server, name):
    """Beside as many good ones in one transaction, each alternating with one of good ones alone. How much longer it takes
    until all have arrived and the others are dead letters is a figure for a quiet machine: asserted with FULL=1."""
    route("all", "#")
    pid = ward.sender("all")
    client = redis_server.client()
    rows, took = 10000, {False: [], True: []}
    for part, bad in enumerate([False, True] * (5 if os.environ.get("FULL") else 1)):
        ward.run("BEGIN")
        ward.run("INSERT INTO item SELECT g, 'x' FROM generate_series(%s, %s) g", part * rows + 1, part * rows + rows)
        if bad:
            ward.run(INSERT_BAD, part * rows + 1, part * rows + rows)
        begun = time.monotonic()
        ward.run("COMMIT")
        eventually(lambda: client.xlen(f"{name}-all") == (part + 1) * rows, 240, "the good ones arrive")
        eventually(lambda: ward.status("all")["dead"] == (part + 1) // 2 * rows, 120, "the others are dead letters")
        took[bad].append(time.monotonic() - begun)
    assert ward.sender("all") == pid
    ratio = statistics.median(took[True]) / statistics.median(took[False])
    print(f"undecodable rows: {ratio:.2f} times as long, {took}")
    assert not os.environ.get("FULL") or ratio < 3


def test_a_transaction_that_postgresql_cannot_decode(db, route, redis_server, name):
    """Each route gets word of it once it has failed three times; what commits behind it continues."""
    db.run("CREATE TABLE item (id int PRIMARY KEY, words text)")
    db.run("CREATE TABLE lost (id int, words text)")
    route("all", "#")
    route("shop", "shop.#")
    pid = db.sender("all")
    other = db.connect()
    # The table loses a column in the catalog while a statement writes to it.
    statement = "INSERT INTO lost SELECT g, pg_advisory_xact_lock(g)::text FROM generate_series(1, 2) g"
    with other.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(2)")
        writer = threading.Thread(target=db.run, args=(statement,))
        writer.start()
        eventually(lambda: cursor.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
                   or cursor.fetchall(), 30, "the statement waits before its second row")
        cursor.execute("DELETE FROM pg_attribute WHERE attrelid = 'lost'::regclass AND attnum = 2")
        cursor.execute("SELECT pg_advisory_unlock(2)")
    writer.join()
    db.run("INSERT INTO item VALUES (1, 'x')")
    publish_wal(db, "shop.n", {})
    arrived(redis_server, f"{name}-shop", 1, 90)
    for which in ("all", "shop"):
        assert "cannot be decoded, and no further change of it is delivered" in db.wait_dead(which)[0]["error"]
    assert db.sender("all") == pid
    db.run("DELETE FROM pg_class WHERE relname = 'lost'")


@pytest.fixture
def log_route(db, redis_server, name):
    db.broker("redis", redis_server.url)
    for which, topics in (("all", "#"), ("good", "good.#")):
        db.route(which, "redis", f"stream:{name}-{which}", topics)
        db.wait_state(which, "active", deadline=60)


def test_a_corrupt_value_in_the_log(db, log_route, redis_server, name):
    """Chunks of a TOASTed payload are gone: its event is a dead letter of the routes that take it."""
    pid = db.sender("all")
    db.publish("good.1", 1)
    db.run("BEGIN")  # nobody has read it before it is spoilt
    lost = db.one("SELECT eventbus.publish_text('bad.2', repeat(md5('x'), 1000), 'k', '{\"h\": 1}')")
    segment = db.one("SELECT tableoid::regclass::text FROM eventbus.log_0 WHERE id = %(n)s UNION ALL "
                     "SELECT tableoid::regclass::text FROM eventbus.log_1 WHERE id = %(n)s UNION ALL "
                     "SELECT tableoid::regclass::text FROM eventbus.log_2 WHERE id = %(n)s UNION ALL "
                     "SELECT tableoid::regclass::text FROM eventbus.log_3 WHERE id = %(n)s" % {"n": lost})
    toast = db.one("SELECT reltoastrelid::regclass::text FROM pg_class WHERE oid = %s::regclass", segment)
    # A TOAST table is nobody's to delete from, unless it is taken for another kind.
    for kind in "rt":
        db.run("UPDATE pg_class SET relkind = %s WHERE oid = %s::regclass", kind, toast)
        if kind == "r":
            db.run(f"DELETE FROM {toast}")
    db.run("COMMIT")
    db.publish("good.3", 3)
    assert [e["topic"] for e in arrived(redis_server, f"{name}-all", 2)] == ["good.1", "good.3"]
    arrived(redis_server, f"{name}-good", 2)
    dead, = db.wait_dead("all")
    assert (dead["event_id"], dead["topic"], dead["key"], dead["headers"], dead["payload"]) == (
        lost, "bad.2", "k", {"h": 1}, None)
    assert "chunk number" in dead["error"]
    assert not db.dead("good") and db.sender("all") == pid and db.health()


def test_a_dead_letter_that_cannot_be_read_any_more(db, log_route, redis_server, name):
    """Sent again among others, it stays where it was and says why; the others arrive, and the sender does not end."""
    redis_server.client().set(f"{name}-all", "not a stream")
    pid = db.sender("all")
    for topic in ("t.1", "t.2", "t.3"):
        db.run("SELECT eventbus.publish_text(%s, (SELECT string_agg(md5(g::text), '') FROM generate_series(1, 1000) g))", topic)
    ids = [letter["event_id"] for letter in db.wait_dead("all", 3)]
    toast = db.one("SELECT reltoastrelid::regclass::text FROM pg_class WHERE oid = 'eventbus.dead_letter_store'::regclass")
    value = db.one(f"SELECT DISTINCT chunk_id FROM {toast} ORDER BY 1 OFFSET 1 LIMIT 1")
    for kind in "rt":
        db.run("UPDATE pg_class SET relkind = %s WHERE oid = %s::regclass", kind, toast)
        if kind == "r":
            db.run(f"DELETE FROM {toast} WHERE chunk_id = %s", value)

    def is_lost():
        db.run("VACUUM eventbus.dead_letter_store")
        try:
            db.run("SELECT md5(payload) FROM eventbus.dead_letter")
        except psycopg2.Error as error:
            return "missing chunk number 0" in str(error)
    eventually(is_lost, 60, "the chunks are gone")
    redis_server.client().delete(f"{name}-all")
    assert db.one("SELECT eventbus.redeliver()") == 3
    assert sorted(entry["topic"] for entry in arrived(redis_server, f"{name}-all", 2)) == ["t.1", "t.3"]
    dead, = eventually(lambda: db.rows("SELECT event_id, error, incomplete FROM eventbus.dead_letter"), 60, "it is dead again")
    assert (dead["event_id"], dead["incomplete"]) == (ids[1], True)
    assert dead["error"].startswith("it cannot be read any more: missing chunk number 0") and "WRONGTYPE" in dead["error"]
    assert db.one("SELECT eventbus.redeliver()") == 0 and db.one("SELECT eventbus.discard('all', %s)", ids[1]) == 1
    assert db.sender("all") == pid


def test_a_dead_letter_that_the_table_does_not_take(db, log_route, redis_server, name):
    """Without what it does not take it is stored all the same; the others as they are."""
    db.run("ALTER TABLE eventbus.dead_letter_store ADD CHECK (payload_text <> '\"poison\"')")
    pid = db.sender("all")
    redis_server.client().set(f"{name}-all", "not a stream")
    for n, payload in enumerate(["a", "poison", "b"]):
        db.publish(f"t.{n}", payload)
    dead = db.wait_dead("all", 3)
    assert [d["payload"] for d in dead] == ['"a"', None, '"b"'] and [d["incomplete"] for d in dead] == [False, True, False]
    assert "could not be stored: new row for relation" in dead[1]["error"] and "WRONGTYPE" in dead[1]["error"]
    assert db.sender("all") == pid


@pytest.mark.parametrize("refused, left", [
    ("headers::text LIKE '%poison%'", {"payload": '"x"', "headers": None, "headers_text": '{"h": "poison"}'}),
    ("coalesce(headers::text, headers_text) LIKE '%poison%'",
     {"payload": None, "headers": None, "headers_text": None}),
    ("payload_text = '\"x\"' OR headers_text LIKE '%poison%'",
     {"payload": None, "headers": {"h": "poison"}, "headers_text": None}),
    ("payload_text = '\"x\"' OR headers::text LIKE '%poison%'",
     {"payload": None, "headers": None, "headers_text": '{"h": "poison"}'}),
])
def test_as_much_of_a_dead_letter_is_stored_as_the_table_takes(db, log_route, redis_server, name, refused, left):
    db.run(f"ALTER TABLE eventbus.dead_letter_store ADD CONSTRAINT sound CHECK (({refused}) IS NOT TRUE)")
    redis_server.client().set(f"{name}-all", "not a stream")
    db.publish("t.1", "x", "k", {"h": "poison"})
    db.publish("t.2", "y", "k", {"h": 1})
    first, second = db.wait_dead("all", 2)
    assert {column: first[column] for column in left} == left
    whole = left["payload"] is not None
    assert first["incomplete"] != whole and ("which could not be stored: new row" in first["error"]) != whole
    assert (second["payload"], second["headers"], second["headers_text"], second["incomplete"]) == ('"y"', {"h": 1}, None, False)
    db.run("ALTER TABLE eventbus.dead_letter_store DROP CONSTRAINT sound")
    redis_server.client().delete(f"{name}-all")
    assert db.one("SELECT eventbus.redeliver()") == 1 + whole
    entries = arrived(redis_server, f"{name}-all", 1 + whole)
    assert sorted(entry["headers"] for entry in entries) == ['{"h": "poison"}', '{"h": 1}'][not whole:]
    assert whole or db.one("SELECT eventbus.discard('all', %s)", first["event_id"]) == 1


def test_a_large_dead_letter_that_memory_never_suffices_for(db, log_route, redis_server, name):
    """For a minute it is waited for, as for any shortage; then it is stored without its payload."""
    db.run("CREATE FUNCTION short() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF length(NEW.payload_text) > 1000000 "
           "THEN RAISE EXCEPTION 'out of memory' USING ERRCODE = '53200'; END IF; RETURN NEW; END $$")
    db.run("CREATE TRIGGER short BEFORE INSERT ON eventbus.dead_letter_store FOR EACH ROW EXECUTE FUNCTION short()")
    pid = db.sender("all")
    redis_server.client().set(f"{name}-all", "not a stream")
    began = time.monotonic()
    db.publish("bad.1", "x" * (1 << 20), "k", {"h": 1})
    db.publish("bad.2", "y")
    first, second = db.wait_dead("all", 2, 150)
    assert time.monotonic() - began > 60
    assert (first["key"], first["payload"], first["headers"], first["incomplete"]) == ("k", None, {"h": 1}, True)
    assert "(without payload, which could not be stored: out of memory)" in first["error"]
    assert (second["payload"], second["incomplete"]) == ('"y"', False) and db.sender("all") == pid


def test_a_shortage_makes_no_dead_letter_smaller(db, log_route, redis_server, name, cluster):
    """While the table takes nothing, everything waits; then it is stored whole. It is told once."""
    db.run("CREATE FUNCTION short() RETURNS trigger LANGUAGE plpgsql AS "
           "$$BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = '53100'; END$$")
    db.run("CREATE TRIGGER short BEFORE INSERT ON eventbus.dead_letter_store FOR EACH ROW EXECUTE FUNCTION short()")
    pid, begin = db.sender("all"), cluster.log_size()
    redis_server.client().set(f"{name}-all", "not a stream")
    db.publish("bad.1", "x")
    db.publish("good.2", 2)
    words = 'dead letters of broker "redis" cannot be stored'
    eventually(lambda: words in cluster.log_text(begin), 60, "the log tells of it")
    arrived(redis_server, f"{name}-good", 1)
    db.run("DROP TRIGGER short ON eventbus.dead_letter_store")
    dead = db.wait_dead("all", 2, 60)
    assert [d["payload"] for d in dead] == ['"x"', "2"] and not any(d["incomplete"] for d in dead)
    assert cluster.log_text(begin).count(words) == 1 and db.sender("all") == pid
    db.publish("good.3", 3)
    arrived(redis_server, f"{name}-good", 2)


def test_a_poisoned_row_parks_its_route_alone(db, log_route, redis_server, name, cluster):
    pid = db.sender("all")
    db.run("UPDATE eventbus.route_config SET destination = 'nonsense' WHERE name = 'all'")
    row = db.wait_status("all", 60, state="held", last_error=lambda text: text and "cannot be used" in text)
    assert row["sender_pid"] == pid
    db.publish("good.1", 1)
    arrived(redis_server, f"{name}-good", 1)
    assert {row["name"]: row for row in db.health()}["route all"]["level"] == "error"
    db.run("SELECT eventbus.alter_route('all', destination => %s)", f"stream:{name}-all")
    arrived(redis_server, f"{name}-all", 1)
    assert db.sender("all") == pid


@pytest.mark.parametrize("poison", [
    "url = 'nonsense'", "url = ''", "url = 'redis://:payload-secret@h:99999'", "url = 'foo://x'", "options = '[]'",
    "options = '{\"no_longer\": 1}'", "options = '{\"window\": \"x\"}'"])
def test_a_poisoned_broker_holds_its_routes_alone(db, redis_server, name, cluster, poison):
    for broker in ("good", "bad"):
        db.broker(broker, redis_server.url)
        db.route(f"to_{broker}", broker, f"stream:{name}-{broker}")
        db.wait_state(f"to_{broker}", "active")
    begin = cluster.log_size()
    db.run(f"UPDATE eventbus.broker_config SET {poison} WHERE name = 'bad'")
    row = db.wait_status("to_bad", 60, state="held", last_error=lambda text: text and "cannot be used" in text)
    db.publish("first", 1)
    arrived(redis_server, f"{name}-good", 1)
    db.run("SELECT eventbus.resume_route('to_good'), eventbus.resume_route('to_bad')")
    db.publish("second", 2)
    arrived(redis_server, f"{name}-good", 2)
    assert db.status("to_bad")["sender_pid"] == row["sender_pid"], "it stays, and does not begin again and again"
    assert {check["name"]: check for check in db.health()}["route to_bad"]["level"] == "error"
    log = cluster.log_text(begin)
    assert log.count('broker "bad" is left out') == 1
    assert "ERROR" not in log and "payload-secret" not in log + row["last_error"]
    if "url" in poison:
        db.run("SELECT eventbus.alter_broker('bad', %s)", redis_server.url)
    else:
        db.run("UPDATE eventbus.broker_config SET options = '{}' WHERE name = 'bad'")
    arrived(redis_server, f"{name}-bad", 2)
    db.wait_state("to_bad", "active")

# What it is: routes from the WAL: messages and row changes, their ids, their order, what a rollback leaves of them.
# Who calls it: pytest.
# Never: shares a cluster with the other files: slots want settings that need a restart.
import json
import random
import re

import psycopg2
import pytest

import replay
from servers import PostgresCluster, eventually

WAL_SETTINGS = {"wal_sender_timeout": "0"}

SEED = random.randrange(1 << 30)


@pytest.fixture(scope="module")
def cluster():
    with PostgresCluster(config=WAL_SETTINGS) as server:
        yield server


@pytest.fixture
def wal(db, redis_server, name):
    """A route "out" from the WAL into a Redis stream, its slot ready; returns the entries when called."""
    db.broker("redis", redis_server.url)

    def entries(count=None, deadline=60):
        if count is None:
            return [text_of(entry) for entry in redis_server.stream(name)]
        eventually(lambda: redis_server.client().xlen(name) >= count, deadline,
                   f"{count} entries in stream {name}, there are {redis_server.client().xlen(name)}")
        found = [text_of(entry) for entry in redis_server.stream(name)]
        assert len(found) == count, f"{len(found)} entries instead of {count}"
        return found

    def make(topics="#", route="out", wait=True, **options):
        db.route(route, "redis", f"stream:{name}", topics, source="wal", **options)
        if wait:
            db.wait_state(route, "active", deadline=60)
        return entries

    return make


def text_of(entry):
    return {field: value.decode(errors="backslashreplace") for field, value in entry.items()}


def publish_wal(db, topic, payload, key=None, headers=None, function="publish_wal", connection=None):
    with (connection or db.connection).cursor() as cursor:
        cursor.execute(f"SELECT eventbus.{function}(%s, %s::jsonb, %s, %s::jsonb)",
                       (topic, json.dumps(payload), key, None if headers is None else json.dumps(headers)))
        return cursor.fetchone()[0]


def test_a_message_arrives_with_all_it_has(db, wal):
    entries = wal("shop.#")
    publish_wal(db, "other.topic", {"n": 0})
    lsn = publish_wal(db, "shop.order.created", {"n": 1}, "order-1", {"traceparent": "00-1"})
    entry = entries(1)[0]
    assert re.fullmatch(r"[0-9A-F]+/[0-9A-F]+-1", entry["id"]) and re.fullmatch(r"[0-9A-F]+/[0-9A-F]+", lsn)
    assert (entry["topic"], entry["key"], entry["content_type"]) == ("shop.order.created", "order-1", "application/json")
    assert json.loads(entry["payload"]) == {"n": 1} and json.loads(entry["headers"]) == {"traceparent": "00-1"}


def test_anybodys_messages_are_events(db, wal):
    entries = wal()
    db.run("SELECT pg_logical_emit_message(true, 'shop.order.created', '{\"n\": 1}')")
    db.run("SELECT pg_logical_emit_message(true, 'no topic*', 'words')")
    db.run("SELECT pg_logical_emit_message(true, 'bytes', '\\x00ff'::bytea)")
    found = entries(3)
    assert [(e["topic"], e["content_type"]) for e in found[:2]] == [
        ("shop.order.created", "application/json"), ("no_topic_", "text/plain")]
    assert [e["payload"] for e in found] == ['{"n": 1}', "words", "\x00\\xff"]
    assert found[2]["content_type"] == "application/octet-stream"


def test_changes_of_rows(db, wal):
    db.run("CREATE TABLE item (id int PRIMARY KEY, words text)")
    entries = wal("public.item.#")
    db.run("INSERT INTO item VALUES (1, 'a'), (2, 'b')")
    db.run("UPDATE item SET words = 'c' WHERE id = 2")
    db.run("DELETE FROM item WHERE id = 1")
    db.run("TRUNCATE item")
    found = entries(5)
    assert [(e["topic"].rpartition(".")[2], e.get("key")) for e in found] == [
        ("insert", "1"), ("insert", "2"), ("update", "2"), ("delete", "1"), ("truncate", None)]
    changes = [json.loads(e["payload"]) for e in found]
    assert [(c["op"], c["before"], c["after"]) for c in changes] == [
        ("c", None, {"id": 1, "words": "a"}), ("c", None, {"id": 2, "words": "b"}),
        ("u", None, {"id": 2, "words": "c"}), ("d", {"id": 1}, None), ("t", None, None)]
    commit, number = zip(*(e["id"].split("-") for e in found))
    assert number == ("1", "2", "1", "1", "1") and len(set(commit)) == 4
    assert all(c["source"]["ts_ms"] > 0 and c["source"]["lsn"] > 0 for c in changes)


@pytest.mark.parametrize("format", ["debezium", "row", "wal2json"])
def test_a_key_that_is_stored_out_of_line(db, wal, format):
    """An UPDATE of another column does not touch it; the old row has it, which PostgreSQL logs for its sake."""
    db.run("CREATE TABLE item (words text, part int, n int, PRIMARY KEY (words, part))")
    db.run("ALTER TABLE item ALTER words SET STORAGE EXTERNAL")
    db.run("CREATE UNIQUE INDEX item_part ON item (part, words)")
    entries = wal("public.item.#", format=format)
    words = "k" * 2500
    db.run("INSERT INTO item VALUES (%s, 7, 0)", words)
    for n, identity in enumerate(("DEFAULT", "USING INDEX item_part", "FULL"), 1):
        db.run(f"ALTER TABLE item REPLICA IDENTITY {identity}")
        db.run("UPDATE item SET n = %s", n)
        db.run("UPDATE item SET part = 8")
        db.run("UPDATE item SET part = 7, n = -n")
    db.run("DELETE FROM item")
    found = entries(11)
    inserted, *updated, deleted = [e["key"] for e in found]
    assert inserted == updated[0] == updated[2] == updated[6] == updated[8] == deleted
    assert inserted != updated[1] == updated[7] and updated[3] == updated[5] != updated[4]
    assert updated[3].startswith("7/kkk") and updated[4].startswith("8/kkk") and len(set(updated)) == 4
    for entry in found:
        payload = json.loads(entry["payload"])
        if format == "wal2json":
            row = {c["name"]: c["value"] for c in payload.get("identity", payload.get("columns"))}
        else:
            row = payload if format == "row" else payload["after"] or payload["before"]
        assert row["words"] == words


@pytest.mark.parametrize("identity", ["NOTHING", "DEFAULT"])
@pytest.mark.parametrize("format", ["debezium", "row", "wal2json"])
def test_a_key_that_the_wal_does_not_have(db, wal, format, identity):
    """A part of one would be another key: the event is a dead letter, and the order of the others stays. A DELETE that
    has nothing has no key, either; wal2json has no words for what has no identity."""
    if format == "wal2json" and db.connection.server_version >= 170000:
        pytest.skip("PostgreSQL 17 knows of primary keys that are deferrable, and so does wal2json there")
    db.run("CREATE TABLE item (part int, words text, n int, PRIMARY KEY (part, words) DEFERRABLE)")
    db.run("ALTER TABLE item ALTER words SET STORAGE EXTERNAL")
    db.run(f"ALTER TABLE item REPLICA IDENTITY {identity}")
    entries = wal("public.item.#", format=format)
    for part, words in ((1, "k" * 2500), (2, "short")):
        db.run("INSERT INTO item VALUES (%s, %s, 0)", part, words)
        db.run("UPDATE item SET n = 1 WHERE part = %s", part)
        db.run("UPDATE item SET words = words || 'x' WHERE part = %s", part)
    db.run("DELETE FROM item WHERE part = 2")
    db.run("ALTER TABLE item REPLICA IDENTITY FULL")
    db.run("UPDATE item SET n = 2")
    db.run("DELETE FROM item")
    long, short = "1/kkkkk", "2/short"
    unsure = [("update", long), ("update", short), ("update", short), ("delete", "")]
    if format == "wal2json":
        unsure = []
    expected = [("insert", long), ("insert", short), *unsure, ("update", long), ("delete", long)]
    found = entries(len(expected))
    assert sorted((e["topic"].rpartition(".")[2], e.get("key", "")[:7]) for e in found) == sorted(expected)
    if not unsure:
        assert db.dead("out") == []
        return
    letter, = db.wait_dead("out")
    assert letter["topic"] == "public.item.update" and letter["incomplete"] and letter["key"] is None
    assert 'the WAL does not have its key: column "words" is stored out of line and was not changed' in letter["error"]


def test_what_leaves_out_a_column_of_the_key_leaves_out_the_key(db, wal, redis_server, name):
    """A publication of a column list; partitions under the name of their parent, with an identity of their own."""
    db.run("CREATE TABLE item (a int, b int, c int NOT NULL, PRIMARY KEY (a, b)) PARTITION BY LIST (a);"
           "CREATE TABLE one PARTITION OF item FOR VALUES IN (1); CREATE TABLE two PARTITION OF item FOR VALUES IN (2);"
           "CREATE UNIQUE INDEX two_c ON two (c, a); ALTER TABLE two REPLICA IDENTITY USING INDEX two_c;"
           "CREATE PUBLICATION root FOR TABLE item WITH (publish_via_partition_root);"
           "CREATE PUBLICATION part FOR TABLE item (b, c) WITH (publish_via_partition_root, publish = 'insert')")
    entries = wal("public.item.#", publication="root")
    db.route("part", "redis", f"stream:{name}-part", source="wal", publication="part")
    db.wait_state("part", "active")
    db.run("INSERT INTO item VALUES (1, 7, 3), (2, 7, 3)")
    db.run("UPDATE item SET c = 4")
    db.run("DELETE FROM item")
    assert [e.get("key") for e in entries(6)] == ["1/7", "2/7", "1/7", "2/7", "1/7", None]
    found = eventually(lambda: len(got := redis_server.stream(f"{name}-part")) == 2 and got)
    assert all("key" not in entry for entry in found)


def test_a_key_that_names_an_object_is_the_same_from_everywhere(db, wal, redis_server, name):
    """Types such as regclass write the schema only where search_path does not find the object; sessions and the decoder
    have one each."""
    db.run("CREATE SCHEMA own; CREATE TABLE own.t (x int); CREATE TABLE near (x int); CREATE TYPE own.e AS ENUM ('a'); "
           "CREATE FUNCTION own.f(int) RETURNS int LANGUAGE sql AS 'SELECT 1'; "
           "CREATE OPERATOR own.#-# (leftarg = int4, rightarg = int4, function = int4pl); "
           "CREATE COLLATION own.c FROM \"C\"; CREATE TEXT SEARCH CONFIGURATION own.g (COPY = simple); "
           "CREATE TEXT SEARCH DICTIONARY own.d (TEMPLATE = simple); CREATE DOMAIN own.class AS regclass")
    keys = {"regclass": ["own.t", "pg_class", "public.near"], "own.class": ["own.t"], "regproc": ["own.f", "now"],
            "regprocedure": ["own.f(integer)"], "regoper": ["own.#-#"], "regoperator": ["own.#-#(integer,integer)"],
            "regtype": ["own.e", "integer", "own.t[]"], "regcollation": ["own.c"], "regconfig": ["own.g"],
            "regdictionary": ["own.d"], "regnamespace": ["own"], "regrole": ["postgres"],
            "regclass[]": ["{own.t,pg_class,public.near}"]}
    db.run(f"ALTER DATABASE \"{db.name}\" SET search_path = own, public")  # the decoder's
    entries = wal(tables="public.k*")
    db.route("log", "redis", f"stream:{name}-log")
    for i, type_name in enumerate(keys):
        db.run(f"CREATE TABLE k{i} (id {type_name} PRIMARY KEY); SELECT eventbus.capture('k{i}')")
    expected = []
    for path in ("public", "own, public", "pg_catalog, own"):
        db.run(f"SET search_path = {path}")
        for i, (type_name, names) in enumerate(keys.items()):
            for key in names:
                db.run(f"INSERT INTO public.k{i} VALUES (%s)", key)
                assert db.one("SHOW search_path") == path
                expected.append(key)
            db.run(f"DELETE FROM public.k{i}")
            expected += names
    assert sorted(e["key"] for e in entries(len(expected))) == sorted(expected)
    captured = eventually(lambda: len(got := redis_server.stream(f"{name}-log")) == len(expected) and got, 60)
    assert sorted(e["key"].decode() for e in captured) == sorted(expected)


def test_what_is_rolled_back_leaves_nothing(db, wal):
    """In a transaction that is decoded as a whole, and in one that is streamed because it is large."""
    db.run("CREATE TABLE item (id int PRIMARY KEY, words text)")
    entries = wal()
    for first, rows in ((0, 2), (100000, 20000)):
        with db.connect(autocommit=False) as connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO item SELECT g, repeat('x', 200) FROM generate_series(%s, %s) g",
                           (first + 1, first + rows))
            cursor.execute("SAVEPOINT a")
            publish_wal(db, "never", {}, connection=connection)
            cursor.execute("INSERT INTO item SELECT -g, 'never' FROM generate_series(%s, %s) g",
                           (first + 1, first + rows))
            cursor.execute("ROLLBACK TO a")
            publish_wal(db, "last", {}, connection=connection)
    found = entries(20004)
    assert [e["key"] for e in found if e["topic"] == "public.item.insert"] == [
        str(id) for first, rows in ((0, 2), (100000, 20000)) for id in range(first + 1, first + rows + 1)]
    assert [int(e["id"].partition("-")[2]) for e in found] == [*range(1, 4), *range(1, 20002)]
    assert found[2]["topic"] == found[-1]["topic"] == "last"
    times = {json.loads(e["payload"])["source"]["ts_ms"] for e in found[3:-1]}
    assert len(times) == 1 and times.pop() > 1.7e12, "the commit's time stands in what was made before it"


def test_now_outlives_a_rollback(db, wal):
    entries = wal()
    connection = db.connect(autocommit=False)
    publish_wal(db, "now", {}, function="publish_now", connection=connection)
    publish_wal(db, "later", {}, connection=connection)
    assert [e["topic"] for e in entries(1)] == ["now"], "it need not wait for the end of its transaction"
    connection.rollback()
    publish_wal(db, "after", {})
    assert [e["topic"] for e in entries(2)] == ["now", "after"]
    connection.close()


def test_which_changes_are_taken(db, wal, redis_server, name):
    db.run("CREATE SCHEMA shop")
    db.run("CREATE TABLE shop.a (id int PRIMARY KEY, n int)")
    db.run("CREATE TABLE shop.b (id int PRIMARY KEY, n int)")
    db.run("CREATE PUBLICATION chosen FOR TABLE shop.a WHERE (id > 1), shop.b (id)")
    wal()
    for route, options in (("tables", {"tables": "shop.a, -shop.b", "messages": "-*"}),
                           ("operations", {"operations": ["delete"], "messages": "shop.*"}),
                           ("publication", {"publication": "chosen", "messages": "-*"}),
                           ("rows", {"format": "row", "tables": "shop.a", "operations": "insert, delete"})):
        db.route(route, "redis", f"list:{name}-{route}", source="wal", **options)
    eventually(lambda: all(db.status(r)["state"] == "active" for r in ("tables", "operations", "publication", "rows")),
               60, "all routes deliver")
    db.run("INSERT INTO shop.a VALUES (1, 10), (2, 20)")
    db.run("INSERT INTO shop.b VALUES (3, 30)")
    db.run("DELETE FROM shop.a WHERE id = 2")
    publish_wal(db, "shop.message", {"m": 1})
    publish_wal(db, "other.message", {"m": 2})
    client = redis_server.client()

    def received(route, count):
        eventually(lambda: client.llen(f"{name}-{route}") >= count, 60, f"{count} elements of {route}")
        return [json.loads(element) for element in client.lrange(f"{name}-{route}", 0, -1)]

    def shown(changes):
        return [(c["op"], c["after"] or c["before"]) if "op" in c else c for c in changes]

    assert shown(received("tables", 3)) == [("c", {"id": 1, "n": 10}), ("c", {"id": 2, "n": 20}), ("d", {"id": 2})]
    assert shown(received("operations", 2)) == [("d", {"id": 2}), {"m": 1}]
    assert shown(received("publication", 3)) == [("c", {"id": 2, "n": 20}), ("c", {"id": 3}), ("d", {"id": 2})]
    assert shown(received("rows", 5)) == [{"id": 1, "n": 10}, {"id": 2, "n": 20}, {"id": 2}, {"m": 1}, {"m": 2}]


def test_a_publication_that_is_younger_than_the_backlog_is_no_news(db, wal, redis_server, name, cluster):
    """create_route has seen it; each start of a decoder on older WAL would speak of it."""
    db.run("CREATE TABLE item (id int PRIMARY KEY)")
    wal("none.at.all")
    db.run("SELECT eventbus.pause_route('out')")
    publish_wal(db, "none.at.all", {})
    db.run("INSERT INTO item VALUES (1)")
    db.run("CREATE PUBLICATION later FOR TABLE item")
    begin = cluster.log_size()
    db.run("SELECT eventbus.alter_route('out', topics => '#', options => %s)", '{"source": "wal", "publication": "later", "messages": "-*"}')
    db.run("INSERT INTO item VALUES (2)")
    db.run("SELECT eventbus.resume_route('out')")
    db.wait_status("out", 60, delivered=lambda n: n >= 1, in_flight=0, lag=lambda lag: lag is not None and not lag)
    assert text_of(redis_server.stream(name)[-1])["key"] == "2"
    assert 'publication "later" does not exist' not in cluster.log_text(begin)


def test_a_publication_must_exist(db, wal):
    db.run("CREATE TABLE item (id int PRIMARY KEY)")
    db.run('CREATE PUBLICATION "Odd, one" FOR TABLE item')
    for refused in ("absent", '"Odd, one", absent'):
        with pytest.raises(psycopg2.Error, match='(?s)do not exist: absent\n.*Existing publications: "Odd, one"'):
            wal(publication=refused)
    wal(publication='"Odd, one"')
    with pytest.raises(psycopg2.Error, match="do not exist: absent"):
        db.run("SELECT eventbus.alter_route('out', options => '{\"source\": \"wal\", \"publication\": \"absent\"}')")

    def finding():
        return db.one("SELECT level || ': ' || detail FROM eventbus.health() WHERE name = 'tables of route out'")

    assert finding().startswith("ok: ")
    db.run('DROP PUBLICATION "Odd, one"')
    assert finding() == 'error: publications that do not exist: "Odd, one"; nothing comes through them'


def test_payloads_of_wal2json_are_the_plugins(db, wal):
    """Byte for byte what a slot of the output plugin says of the same changes; topics, keys and messages as ever."""
    db.run("CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN amount AS numeric(8, 2)")
    db.run("CREATE TABLE item (id int PRIMARY KEY, words text, \"Odd\"\" name\" mood[], price amount, n float8, "
           "bytes bytea, document jsonb, moment timestamptz DEFAULT now(), code varchar(10), "
           "large text, class regclass DEFAULT 'item')")
    db.run("ALTER TABLE item ALTER large SET STORAGE EXTERNAL")
    db.run("CREATE TABLE whole (id int, words text); ALTER TABLE whole REPLICA IDENTITY FULL")
    db.run("CREATE TABLE bare (id int, words text)")
    db.run("CREATE TABLE parts (id int PRIMARY KEY, n int) PARTITION BY RANGE (id)")
    db.run("CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (100)")
    entries = wal(format="wal2json")
    db.run("SELECT pg_create_logical_replication_slot(%s, 'pg_eventbus')", db.name[:60])

    db.run("INSERT INTO item VALUES (1, E'quote \" back \\\\ line \\n \u00e4', '{sad,happy}', 1.5, 'NaN', '\\xdeadbeef', "
           "'{\"a\": [1, null]}', '2026-01-01 00:00:00+00', 'c', repeat('x', 10000)); INSERT INTO item VALUES (2)")
    db.run("UPDATE item SET words = 'changed' WHERE id = 1")
    db.run("UPDATE item SET id = 3 WHERE id = 2")
    db.run("DELETE FROM item WHERE id = 3")
    db.run("BEGIN; INSERT INTO whole VALUES (1, 'a'), (2, NULL); UPDATE whole SET words = 'b'; DELETE FROM whole; COMMIT")
    db.run("INSERT INTO bare VALUES (1, 'a'); UPDATE bare SET words = 'b'; DELETE FROM bare")
    db.run("INSERT INTO parts VALUES (1, 2); TRUNCATE parts, whole")  # with part
    db.run("SELECT pg_logical_emit_message(true, 'shop.words', 'content')")
    publish_wal(db, "shop.order", {"n": 1}, "k")
    db.run("INSERT INTO item SELECT g, repeat('x', 300) FROM generate_series(1001, 11000) g")  # decoded in parts
    publish_wal(db, "end", {})

    found = eventually(lambda: (lambda all: all and all[-1]["topic"] == "end" and all)(entries()), 60, "the last event")
    said = [row[0] for row in db.run(
        "SELECT data FROM pg_logical_slot_get_changes(%s, NULL, NULL, 'format-version', '2', 'include-transaction', 'off', "
        "'filter-tables', 'eventbus.*', 'messages', '-*')", db.name[:60])]
    db.run("SELECT pg_drop_replication_slot(%s)", db.name[:60])
    changes = [e for e in found if e["topic"].startswith("public.")]
    assert len(said) > 10010
    words = {"I": "insert", "U": "update", "D": "delete", "T": "truncate"}
    for event, expected in zip(changes, said, strict=True):
        change = json.loads(expected)
        assert event["payload"] == expected
        assert event["topic"] == f"{change['schema']}.{change['table']}.{words[change['action']]}"
    assert {e["content_type"] for e in changes} == {"application/json"}
    assert [e.get("key") for e in changes[:16]] == ["1", "2", "1", "3", "3"] + [None] * 7 + ["1"] + [None] * 3
    assert changes[4]["payload"] == ('{"action":"D","schema":"public","table":"item","identity":'
                                     '[{"name":"id","type":"integer","value":3}]}')
    assert [e["payload"] for e in found if e["topic"].startswith("shop.")] == ["content", '{"n": 1}']


def test_messages_and_changes_of_one_transaction_keep_their_order(db, wal):
    """Messages of a transaction without anything else take a shorter way; here the two ways meet in every order."""
    db.run("CREATE TABLE item (id int PRIMARY KEY)")
    entries = wal()
    expected = []

    def act(cursor, what, expect):
        if what == "m":
            cursor.execute("SELECT eventbus.publish_wal('m', to_jsonb(%s))", (act.n,))
        elif what == "i":
            cursor.execute("INSERT INTO item VALUES (%s)", (act.n,))
        elif what == "(":
            cursor.execute(f"SAVEPOINT s{act.n}")
            act.open.append(f"s{act.n}")
        elif what == ")":
            cursor.execute(f"RELEASE {act.open.pop()}")
        elif what == "!":
            cursor.execute(f"ROLLBACK TO {act.open.pop()}")
        if what in "mi":
            expect.append((what, act.n))
        act.n += 1

    act.n, act.open = 1, []
    connection = db.connect(autocommit=False)
    for script, kept in (("mmm", "mmm"), ("mim", "mim"), ("imi", "imi"), ("m(m)m", "mmm"), ("(m)(i)m", "mim"),
                         ("m(i)m(m)", "mimm"), ("m(m!m", "m_m"), ("(mi!m", "__m"), ("m(i!m", "m_m"), ("(m)(m)i", "mmi")):
        done = []
        with connection.cursor() as cursor:
            for what in script:
                act(cursor, what, done)
        connection.commit()
        assert len(done) == len(kept)
        expected += [one for one, stays in zip(done, kept) if stays != "_"]
    with connection.cursor() as cursor:
        act(cursor, "m", [])
    connection.rollback()
    with connection.cursor() as cursor:
        for _ in range(3000):
            act(cursor, "m", expected)
    connection.commit()
    connection.close()
    found = [("m", json.loads(e["payload"])) if e["topic"] == "m" else ("i", int(e["key"]))
             for e in entries(len(expected))]
    assert found == expected


def decoded(payload):
    """Without the time of decoding, which is each sender's own."""
    return {name: value for name, value in json.loads(payload).items() if name != "ts_ms"}


def test_all_brokers_get_all_that_a_message_carries(db, wal, rabbit, mosquitto, redis_server, name):
    db.run("CREATE TABLE item (id int PRIMARY KEY, words text)")
    rabbit.declare(name)
    db.broker("rabbit", rabbit.url)
    db.broker("mosquitto", mosquitto.url)
    db.route("queue", "rabbit", f"queue:{name}", source="wal", tables="public.item")
    db.route("topic", "mosquitto", f"topic:{name}/{{topic/}}", source="wal", tables="public.item")
    stream = wal(tables="public.item")
    for route in ("queue", "topic"):
        db.wait_state(route, "active", deadline=60)
    with mosquitto.subscriber([f"{name}/#"]) as subscriber:
        db.run("INSERT INTO item VALUES (1, 'a')")
        publish_wal(db, "shop.order", {"n": 1}, "k", {"tenant": "t1"})
        entries = stream(2)
        messages = subscriber.take(2)
    taken = rabbit.take(name, 2)
    source = f"postgresql://{db.one('SELECT system_identifier FROM pg_control_system()')}/{db.name}"
    for entry, topic, key, headers in zip(entries, ("public.item.insert", "shop.order"), "1k", ({}, {"tenant": "t1"})):
        assert set(entry) == {"payload", "id", "topic", "key", "content_type", "time", "source"} | (
            {"headers"} if headers else set())
        assert re.fullmatch(r"[0-9A-F]+/[0-9A-F]+-1", entry["id"])
        assert (entry["topic"], entry["key"], entry["content_type"], entry["source"]) == (
            topic, key, "application/json", source)
        assert json.loads(entry.get("headers", "{}")) == headers
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", entry["time"])
    assert json.loads(entries[0]["payload"])["after"] == {"id": 1, "words": "a"}
    assert json.loads(entries[1]["payload"]) == {"n": 1}
    for entry, (properties, body, _) in zip(entries, taken, strict=True):
        assert decoded(body) == decoded(entry["payload"])
        assert (properties.message_id, properties.type, properties.content_type, properties.app_id) == (
            entry["id"], entry["topic"], "application/json", source)
        assert properties.headers == {"event-key": entry["key"], "event-time": entry["time"],
                                      **json.loads(entry.get("headers", "{}"))}
        assert properties.timestamp == db.one("SELECT floor(extract(epoch FROM %s::timestamptz))::bigint", entry["time"])
        assert properties.delivery_mode == 2
    for entry, message in zip(entries, messages, strict=True):
        assert decoded(message.payload) == decoded(entry["payload"]) and message.content_type == "application/json"
        assert message.topic == f"{name}/{entry['topic'].replace('.', '/')}"
        assert dict(message.user) == {
            "event-id": entry["id"], "event-topic": entry["topic"], "event-key": entry["key"],
            "event-time": entry["time"], "event-source": source, **json.loads(entry.get("headers", "{}"))}


def test_dead_letters_of_the_wal(db, wal, redis_server, name):
    redis_server.client().set(f"{name}-sick", "no stream")
    db.broker("second", redis_server.url)
    db.route("sick", "second", f"stream:{name}-sick", source="wal", tables="-*.*")
    db.wait_state("sick", "active", deadline=60)
    publish_wal(db, "shop.order", {"n": 1}, "k")
    letter = db.wait_dead("sick")[0]
    assert (letter["topic"], letter["key"], json.loads(letter["payload"])) == ("shop.order", "k", {"n": 1})
    assert re.fullmatch(r"[0-9A-F]+/[0-9A-F]+-1", letter["message_id"]) and letter["id"] == letter["message_id"]
    redis_server.client().delete(f"{name}-sick")
    assert db.one("SELECT eventbus.redeliver('sick', %s)", letter["id"]) == 1
    eventually(lambda: redis_server.client().xlen(f"{name}-sick") == 1, 60, "the dead letter arrives")
    assert text_of(redis_server.stream(f"{name}-sick")[0])["id"] == letter["message_id"]
    db.wait_dead("sick", 0)


def test_replaying_the_events_gives_the_tables(db, wal):
    """Random changes in transactions of every size, some of it rolled back; the large ones are decoded in parts."""
    dice = random.Random(SEED)
    tables = [f"t{i}" for i in range(3)]
    for table in tables:
        db.run(f"CREATE TABLE {table} (id int, n numeric, words text, moment timestamptz DEFAULT clock_timestamp())")
        db.run(f"ALTER TABLE {table} REPLICA IDENTITY FULL; CREATE TABLE {table}_copy (LIKE {table})")
    entries = wal("public.t0.#, public.t1.#, public.t2.#, end")

    def change(large):
        table = dice.choice(tables)
        rows = 1500 if large else dice.randint(1, 5)
        kind = dice.choice(["insert"] * 3 + ["update"] * 2 + ["delete"] + ["truncate"] * (dice.random() < 0.1))
        some = f"WHERE ctid IN (SELECT ctid FROM {table} ORDER BY md5(id::text || {dice.random()}) LIMIT {rows // 10 + 1})"
        db.run({"insert": f"INSERT INTO {table} SELECT g, random() * 1000, repeat(md5(g::text), {dice.choice([1, 40, 300])}) "
                          f"FROM generate_series(1, {rows}) g",
                "update": f"UPDATE {table} SET n = n + 1 {some}",
                "delete": f"DELETE FROM {table} {some}",
                "truncate": f"TRUNCATE {table}"}[kind])

    for _ in range(60):
        large = dice.random() < 0.1
        db.run("BEGIN")
        for _ in range(dice.randint(1, 5)):
            inner = dice.random() < 0.4
            if inner:
                db.run("SAVEPOINT s")
            change(large)
            if inner and dice.random() < 0.5:
                db.run("ROLLBACK TO s")
        db.run(dice.choices(["COMMIT", "ROLLBACK"], [5, 1])[0])
    publish_wal(db, "end", {})
    found = eventually(lambda: (lambda all: all and all[-1]["topic"] == "end" and all)(entries()), 120, "the last event")
    assert len({e["id"] for e in found}) == len(found)
    with db.connection.cursor() as cursor:
        for entry in found[:-1]:
            replay.apply(cursor, json.loads(entry["payload"])["source"]["table"] + "_copy", entry["payload"])
        for table in tables:
            wrong = replay.differences(cursor, table, f"{table}_copy")
            assert not wrong, f"seed {SEED}: " + "\n".join(wrong)[:2000]

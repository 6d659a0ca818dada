# What it is: databases whose encoding is not UTF8: what UTF-8 does not have is refused, and stops nobody.
# Who calls it: pytest.
# Never: takes for granted that an event arrived because nothing complained.
import json
import re

import psycopg2
import pytest

from database import Database
from servers import PostgresCluster, eventually

from test_interleavings import stopped
from test_wal import WAL_SETTINGS, text_of

BAD = {  # a text of the database that has no place in UTF-8, and the SQLSTATE that says so
    "WIN1252": ("chr(129)", "22P05"),
    "SQL_ASCII": (r"E'a\303'", "22021"),
}
GOOD = {"WIN1252": ("chr(228)", "ä"), "SQL_ASCII": (r"E'\303\244'", "ä"), "LATIN1": ("chr(228)", "ä"),
        "EUC_JP": (r"E'\244\242'", "あ")}


@pytest.fixture(scope="module")
def cluster():
    with PostgresCluster(config=WAL_SETTINGS) as server:
        yield server


@pytest.fixture
def encoded(cluster, name):
    """encoded(encoding): a database of it."""
    made = []

    def make(encoding):
        of = f"{name[:40]}_{encoding.lower()}"
        cluster.execute(f"CREATE DATABASE \"{of}\" ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'")
        database = Database(cluster, of, create=False)
        database.connection.set_client_encoding("UTF8")
        made.append(database)
        return database

    yield make
    for database in made:
        database.drop()


@pytest.fixture
def out(redis_server, name):
    """out(db, topics): a route of the log to a stream of the test's own."""
    def make(db, topics="#", **options):
        db.broker("redis", redis_server.url)
        db.route("out", "redis", f"stream:{name}", topics, **options)
        db.wait_state("out", "active", deadline=60)
        return lambda count: eventually(lambda: len(found := [text_of(e) for e in redis_server.stream(name)]) == count
                                        and found, 60, f"{count} entries")
    return make


def create_in(cluster, of, encoding):
    """A database with the extension, as a client sees it that converts nothing; None: no database has that encoding."""
    try:
        cluster.execute(f"CREATE DATABASE \"{of}\" ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'")
    except psycopg2.errors.UndefinedObject:
        return None
    return Database(cluster, of, create=False, client_encoding="SQL_ASCII")


def test_every_encoding_that_a_database_may_have(cluster, redis_server, name):
    delivered = []
    for encoding, in cluster.execute("SELECT pg_encoding_to_char(i) FROM generate_series(0, 60) i"):
        db = create_in(cluster, f"{name}_{encoding}", encoding) if encoding else None
        if db is None:
            continue
        assert db.one("SHOW server_encoding") == encoding
        db.broker("redis", redis_server.url)
        db.route("out", "redis", f"stream:{name}")
        db.run("SELECT eventbus.publish_text('t', %s)", encoding)
        delivered.append(encoding)
        eventually(lambda: [text_of(e)["payload"] for e in redis_server.stream(name)] == delivered, 60,
                   f"an event of a database of {encoding}")
        db.drop()
    assert len(delivered) >= 34 and {"UTF8", "EUC_JIS_2004", "KOI8U", "LATIN10"} <= set(delivered)


def refused(db, sql):
    with pytest.raises(psycopg2.Error) as caught:
        db.run(sql)
    return caught.value.diag


@pytest.mark.parametrize("encoding", ["WIN1252", "SQL_ASCII"])
def test_what_utf8_does_not_have_is_an_error_of_publish(encoded, out, encoding):
    db = encoded(encoding)
    arrive = out(db)
    bad, state = BAD[encoding]
    good, character = GOOD[encoding]
    for call, what in [(f"publish_text('t.{{}}', 'x')", "topic"), ("publish_text('t', {0})", "payload"),
                       ("publish_text('t', 'x', {0})", "key"), ("publish('t', to_jsonb({0}::text))", "payload"),
                       ("publish('t', '1', headers => jsonb_build_object('h', {0}))", "headers"),
                       ("publish_bytes('t', 'x', {0})", "key"), ("publish_wal('t', to_jsonb({0}::text))", "payload"),
                       ("publish_now('t', '1', {0})", "key")]:
        if what == "topic":
            call = "publish_text('t.' || {0}, 'x')"
        diag = refused(db, f"SELECT eventbus.{call.format(bad)}")
        assert (diag.sqlstate, diag.message_primary) == (state, f"{what} holds a character that cannot be delivered")
        assert diag.message_detail.startswith("Brokers get UTF-8: ") and diag.message_hint
    db.run(f"SELECT eventbus.publish_text('t.' || {good}, {good}, {good}, jsonb_build_object('h', {good}))")
    entry, = arrive(1)
    assert (entry["topic"], entry["key"], entry["payload"]) == (f"t.{character}", character, character)
    assert json.loads(entry["headers"]) == {"h": character}


@pytest.mark.parametrize("encoding", ["LATIN1", "EUC_JP"])
def test_texts_of_routes_are_utf8_to_brokers(encoded, redis_server, name, encoding):
    """Patterns match, and destinations are named, as in a database of UTF8."""
    db = encoded(encoding)
    character = GOOD[encoding][1]
    db.broker("redis", redis_server.url)
    db.route(f"r{character}", "redis", f"stream:{name}{character}", f"{character}.#")
    db.run(f"SELECT eventbus.publish_text('{character}.x', '{character}')")
    eventually(lambda: redis_server.client().xlen(f"{name}{character}"), 60, "the event arrives")
    db.wait_state(f"r{character}", "active")


@pytest.mark.parametrize("shift", [0, 1])
def test_a_long_key_is_cut_between_characters(encoded, out, redis_server, name, shift):
    """SQL_ASCII knows no characters; what is UTF-8 there is taken for it."""
    db = encoded("SQL_ASCII")
    arrive = out(db)
    db.route("wal", "redis", f"stream:{name}-wal", "public.#", source="wal")
    db.wait_state("wal", "active", deadline=60)
    db.run("CREATE TABLE long (words text PRIMARY KEY)")
    db.run("SELECT eventbus.capture('long')")
    db.run(f"INSERT INTO long VALUES (repeat('x', {shift}) || repeat(E'\\303\\244', 1023))")
    captured, = arrive(1)
    eventually(lambda: redis_server.client().xlen(f"{name}-wal") == 1, 60, "the WAL's")
    changed = text_of(redis_server.stream(f"{name}-wal")[0])
    assert captured["key"] == changed["key"] and captured["key"].startswith("x" * shift + "ä" * 500)
    assert not db.dead("wal")


@pytest.mark.parametrize("encoding", ["LATIN1", "EUC_JP"])
def test_options_are_texts_of_the_database(encoded, encoding):
    db = encoded(encoding)
    character = GOOD[encoding][1]
    db.broker("mqtt", "mqtt://127.0.0.1:1", client_id=character)
    db.route("out", "mqtt", "topic:t", source="wal", messages=f"{character}*")
    db.run("SELECT eventbus.alter_broker('mqtt', 'mqtt://127.0.0.1:2')")
    db.run("SELECT eventbus.alter_route('out', topics => 'x')")
    assert db.one("SELECT options ->> 'messages' FROM eventbus.route") == f"{character}*"


@pytest.mark.parametrize("encoding", ["WIN1252", "SQL_ASCII"])
def test_an_event_of_an_old_log_is_a_dead_letter(encoded, out, encoding):
    """As 0.1 stored it: straight into the segment. A sender of its own, a restart and status survive it."""
    db = encoded(encoding)
    arrive = out(db)
    bad = BAD[encoding][0]
    pid = db.sender("out")
    segment = db.one("SELECT 'eventbus.log_' || last_value % 4 FROM eventbus.log_generation")
    row = f"INSERT INTO {segment} (id, xid, published_at, topic, key, payload_text, content_type)" \
          " SELECT nextval('eventbus.event_id'), pg_current_xact_id(), now(), {}, {}, {}, 'text/plain'"
    db.run("SELECT eventbus.publish('t.1', '1')")
    db.run(row.format("'t.2'", "'k'", f"'x' || {bad}"))
    db.run(row.format(f"'t.' || {bad}", "NULL", "'y'"))
    db.run(row.format("'t.4'", f"'k' || {bad}", "'z'"))
    db.run("SELECT eventbus.publish('t.5', '5')")
    assert [entry["topic"] for entry in arrive(2)] == ["t.1", "t.5"]
    dead = db.wait_dead("out", 3)
    assert [(d["topic"], d["key"]) for d in dead] == [("t.2", "k"), ("t.?" if encoding == "WIN1252" else "t.a?", None),
                                                      ("t.4", "k?" if encoding == "WIN1252" else "ka?")]
    raw = b"x\x81" if encoding == "WIN1252" else b"xa\xc3"
    assert bytes(db.one("SELECT decode(payload, 'base64') FROM eventbus.dead_letter WHERE topic = 't.2'")) == raw
    assert all(d["error"].startswith("the event cannot be read from the log: ") for d in dead)
    assert db.sender("out") == pid
    db.run("SELECT eventbus.pause_route('out')")
    db.run(row.format("'t.6'", "'k'", bad))
    db.run("SELECT eventbus.alter_broker('redis', 'redis://127.0.0.1:1')")
    assert db.status("out") and db.health()
    assert db.one("SELECT eventbus.redeliver()") == 0
    assert db.one("SELECT eventbus.discard()") == 3


def test_status_counts_for_nobody_what_cannot_be_read(encoded, redis_server, name):
    """Where no sender runs, status and health() read the log themselves."""
    db = encoded("WIN1252")
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"stream:{name}")
    db.route("other", "redis", f"stream:{name}")
    sender = db.sender("out")
    keeper = db.one("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type = "
                    "'pg_eventbus keeper'")
    with stopped(keeper):  # it would start another one
        db.run("SELECT pg_terminate_backend(%s)", sender)
        db.wait_state("out", "stopped", deadline=60)
        without_a_sender(db)


def without_a_sender(db):
    segment = db.one("SELECT 'eventbus.log_' || last_value % 4 FROM eventbus.log_generation")
    db.run(f"INSERT INTO {segment} (id, xid, published_at, topic, payload_text, content_type) SELECT "
           "nextval('eventbus.event_id'), pg_current_xact_id(), now() - interval '1 h', chr(129), chr(129), 'text/plain'")
    assert db.status("out")["lag"].total_seconds() >= 3600
    db.run("UPDATE eventbus.route_config SET topics = '.' WHERE name = 'out'")
    assert "cannot be read" in db.status("out")["last_error"]
    assert db.status("other")["lag"].total_seconds() >= 3600
    assert {"route out", "route other"} <= {row["name"] for row in db.health()}


def test_a_captured_change_names_table_and_column(encoded, out):
    db = encoded("WIN1252")
    arrive = out(db)
    db.run("CREATE TABLE customer (id int PRIMARY KEY, name text, note text)")
    db.run("SELECT eventbus.capture('customer')")
    diag = refused(db, "INSERT INTO customer VALUES (1, 'x', chr(129))")
    assert diag.sqlstate == "22P05" and diag.message_primary == (
        'a change of table "customer" cannot be published: column "note" holds a character that cannot be delivered')
    assert "columns => '-note'" in diag.message_hint
    db.run("""CREATE TABLE odd (id int PRIMARY KEY, "it's" text)""")
    db.run("SELECT eventbus.capture('odd')")
    assert """columns => '-"it''s"'.""" in refused(db, "INSERT INTO odd VALUES (1, chr(129))").message_hint
    db.run("INSERT INTO customer VALUES (1, 'é', 'y')")
    entry, = arrive(1)
    assert json.loads(entry["payload"])["after"]["name"] == "é"
    db.run("SELECT eventbus.capture('customer', columns => '-note')")
    db.run("INSERT INTO customer VALUES (2, 'z', chr(129))")
    arrive(2)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
def test_the_view_shows_of_captured_rows_what_arrives(cluster, out, redis_server, name, encoding):
    """In a database whose name was given in UTF-8; and the view's function takes every text that a database may hold."""
    of = f"{name[:40]}_{encoding.lower()}_é"
    cluster.execute(f"CREATE DATABASE \"{of}\" ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'")
    db = Database(cluster, of, create=False)
    try:
        db.connection.set_client_encoding("UTF8")
        good, character = GOOD[encoding]
        db.run(f'CREATE TABLE "t{character}" (id int PRIMARY KEY, words text)')
        db.run(f"SELECT eventbus.capture('\"t{character}\"')")
        db.run("CREATE TABLE u (id int PRIMARY KEY, words text)")
        db.run(f"SELECT eventbus.capture('u', topic => '{character}.{{op}}')")
        arrive = out(db)
        for table in (f"t{character}", "u"):
            db.run(f"""INSERT INTO "{table}" VALUES (1, {good} || chr(1) || chr(6)); UPDATE "{table}" SET words = {good};
                       DELETE FROM "{table}"; TRUNCATE "{table}" """)
        shown = db.rows("SELECT topic, payload, key FROM eventbus.event ORDER BY id")
        entries = arrive(8)
        assert [{column: entry.get(column) for column in row} for row, entry in zip(shown, entries)] == shown
        assert [json.loads(row["payload"])["source"]["table"] for row in shown] == [f"t{character}"] * 4 + ["u"] * 4
        assert [json.loads(row["payload"])["op"] for row in shown] == list("cudt") * 2
        call = "eventbus.captured_payload({0} || E'\\006' || {0}, {0} || '.' || {0} || '.' || {0}, '1', now())"
        assert json.loads(db.one(f"SELECT '\"' || ltrim({call.format(good)}, ',')").partition('"source":')[2].rpartition(
            ',"op"')[0])["schema"] == character
        for bad in (BAD.get(encoding, [good])[0], "chr(127)", "chr(31)", "''"):
            assert db.one(f"SELECT octet_length({call.format(bad)})") > 100
    finally:
        db.drop()


def test_names_of_another_database_stop_nobody(cluster, encoded, out):
    """Roles are of all databases; their names' bytes are of the one in which they were made."""
    cluster.execute("CREATE ROLE \"Áda\" SUPERUSER")  # 0xC3 0x81 in UTF-8
    try:
        db = encoded("WIN1252")
        arrive = out(db)
        db.run("CREATE TABLE t (id int PRIMARY KEY)")
        db.run("SELECT eventbus.capture('t')")
        db.run("SELECT eventbus.capture_ddl()")
        db.run("DO $$ BEGIN EXECUTE format('SET ROLE %I', (SELECT rolname FROM pg_roles WHERE rolname LIKE '%da')); END $$")
        db.run("INSERT INTO t VALUES (1)")
        db.run("RESET ROLE")
        entry = arrive(1)[0]
        assert json.loads(entry["headers"])["pg-user"] == "Ã?da"
        db.run("SELECT eventbus.uncapture_ddl()")
    finally:
        cluster.execute("DROP ROLE \"Áda\"")


def test_rows_and_messages_from_the_wal(encoded, out):
    db = encoded("WIN1252")
    db.run("CREATE TABLE item (id int PRIMARY KEY, words text)")
    arrive = out(db, source="wal")
    pid = db.sender("out")
    db.run("INSERT INTO item VALUES (1, 'é'), (2, chr(129)), (3, 'ü')")
    db.run("SELECT pg_logical_emit_message(true, 'shop.note', chr(129))")
    db.run("INSERT INTO item VALUES (4, 'x')")
    entries = arrive(4)
    assert [e["key"] for e in entries if "key" in e] == ["1", "3", "4"]
    assert [e["content_type"] for e in entries if e["topic"] == "shop.note"] == ["application/octet-stream"]
    dead, = db.wait_dead("out")
    assert (dead["topic"], dead["key"], dead["payload"]) == ("public.item.insert", "2", None)
    assert dead["error"].startswith("a change of table public.item cannot be decoded: character with byte sequence 0x81")
    assert db.sender("out") == pid


# A character of the database that UTF-8 does not have, and what is shown of it.
TEXTLESS = {"WIN1252": ("chr(129)", "?"), "SQL_ASCII": (r"E'a\303'", "a?"), "EUC_JP": (r"E'\251\241'", "?")}


@pytest.mark.parametrize("encoding", TEXTLESS)
def test_rows_without_text_in_utf8_block_nothing(encoded, out, redis_server, name, cluster, encoding):
    """Wherever in a row it stands, the change is a dead letter with as much as there is of it; the others arrive. They are
    not sent again, for they are not whole, and are discarded one by one."""
    db = encoded(encoding)
    bad, shown = TEXTLESS[encoding]
    db.run("CREATE TABLE item (id int PRIMARY KEY, words text)")
    db.run("CREATE TABLE named (name text PRIMARY KEY, n int)")
    db.run("CREATE TABLE whole (id int, words text)")
    db.run("ALTER TABLE whole REPLICA IDENTITY FULL")
    db.run(f"""DO $$ BEGIN EXECUTE format('CREATE TABLE %I (id int PRIMARY KEY)', {bad} || 't');
        EXECUTE format('CREATE TABLE columned (id int PRIMARY KEY, %I int)', {bad} || 'c');
        EXECUTE format('CREATE TYPE mood AS ENUM (''ok'', %L)', {bad} || 'e'); END $$""")
    db.run("CREATE TABLE ward (id int PRIMARY KEY, patient mood)")
    arrive = out(db, source="wal")
    pid, begin = db.sender("out"), cluster.log_size()
    ok = iter(range(1000, 2000))
    good, expected = [], []

    def run(sql, *dead):
        """And a good one beside it."""
        db.run("BEGIN")
        db.run(sql.replace("BAD", f"({bad})"))
        n = str(next(ok))
        db.run("INSERT INTO item VALUES (%s, 'x')", int(n))
        db.run("COMMIT")
        good.append(n)
        expected.extend(dead)

    run("INSERT INTO item VALUES (1, BAD)", ("public.item.insert", "1"))
    run("UPDATE item SET words = BAD || 'y' WHERE id = 1", ("public.item.update", "1"))
    run("INSERT INTO named VALUES (BAD, 1)", ("public.named.insert", None))
    run("UPDATE named SET n = 2", ("public.named.update", None))
    run("DELETE FROM named", ("public.named.delete", None))
    run("INSERT INTO whole VALUES (1, BAD)", ("public.whole.insert", None))
    run("DELETE FROM whole", ("public.whole.delete", None))
    table = f"EXECUTE format('%s %I %s', {{}}, {bad} || 't', {{}})"
    run("DO $$ BEGIN " + table.format("'INSERT INTO'", "'VALUES (1)'") + "; END $$", (f"public.{shown}t.insert", "1"))
    run("DO $$ BEGIN " + table.format("'TRUNCATE'", "''") + "; END $$", (f"public.{shown}t.truncate", None))
    run("INSERT INTO columned VALUES (1, 1)", ("public.columned.insert", "1"))
    run("INSERT INTO ward SELECT 1, enum_last(NULL::mood)", ("public.ward.insert", "1"))
    dead = db.wait_dead("out", len(expected))
    arrived = arrive(len(good))
    assert [e["key"] for e in arrived] == good
    assert [(d["topic"], d["key"]) for d in dead] == expected
    assert all(d["incomplete"] and d["payload"] is None for d in dead)
    assert all(re.match(r"a change of table public\.\S+ cannot be decoded: (character with byte sequence|invalid byte "
                        "sequence)", d["error"]) for d in dead), [d["error"] for d in dead]
    assert db.sender("out") == pid and db.status("out")["state"] == "active"
    assert db.one("SELECT eventbus.redeliver()") == 0
    for letter in dead[:3]:
        assert db.one("SELECT eventbus.discard('out', %s)", letter["id"]) == 1
    assert db.one("SELECT eventbus.discard('out')") == len(dead) - 3 and not db.dead("out")


@pytest.mark.parametrize("encoding", TEXTLESS)
def test_large_transactions_without_text_in_utf8(encoded, out, cluster, encoding):
    """Streamed: many such rows of a table of which others came before, with messages and a savepoint."""
    db = encoded(encoding)
    bad, _ = TEXTLESS[encoding]
    db.run("CREATE TABLE item (id int PRIMARY KEY, words text)")
    arrive = out(db, source="wal")
    pid = db.sender("out")
    db.run("INSERT INTO item SELECT g, 'x' FROM generate_series(1, 200) g")
    db.run("BEGIN")
    db.run(f"INSERT INTO item SELECT g, repeat('x', 2000) || {bad} FROM generate_series(201, 1700) g")
    db.run(f"SELECT pg_logical_emit_message(true, 'shop.note', {bad})")
    db.run("SAVEPOINT s")
    db.run(f"INSERT INTO item SELECT g, repeat('x', 2000) || {bad} FROM generate_series(1701, 3200) g")
    db.run("ROLLBACK TO s")
    db.run("INSERT INTO item VALUES (3201, 'x')")
    db.run("COMMIT")
    entries = arrive(202)
    assert [e.get("key") for e in entries] == [*map(str, range(1, 201)), None, "3201"]
    assert [e["id"].partition("-")[2] for e in entries[200:]] == ["1501", "1502"]
    dead = db.wait_dead("out", 1500)
    assert [d["key"] for d in dead] == [str(n) for n in range(201, 1701)]
    assert db.sender("out") == pid and db.one("SELECT eventbus.discard()") == 1500


# A character that is longer in UTF-8 than in the database, by name and by how long it is in both.
LONGER = {"LATIN1": ("chr(228)", 1, 2), "WIN1252": ("chr(128)", 1, 3), "EUC_JP": (r"E'\244\242'", 2, 3)}


@pytest.mark.parametrize("encoding", LONGER)
def test_limits_count_what_is_delivered(encoded, out, encoding):
    db = encoded(encoding)
    arrive = out(db)
    character, own, delivered = LONGER[encoding]
    for text, most, topic in [("topic", 255, f"repeat({character}, %d)"), ("key", 1024, "'t'")]:
        few, many = most // delivered, most // own
        key = "'k'" if text == "topic" else f"repeat({character}, %d)"
        for function in ("publish('{}', '1', key => {})", "publish_wal({}, '1', key => {})"):
            function = function.replace("'{}'", "{}").replace("{}", "%s", 1).replace("{}", "%s", 1)
            call = function % (topic, key)
            for count in (few + 1, many):
                diag = refused(db, f"SELECT eventbus.{call % count}")
                assert diag.sqlstate in ("22023", "54000") and text in diag.message_primary
            db.run(f"SELECT eventbus.{call % few}")
    entries = arrive(2)
    assert [len(entries[i][name].encode()) for i, name in ((0, "topic"), (1, "key"))] == [
        255 // delivered * delivered, 1024 // delivered * delivered]


@pytest.mark.parametrize("encoding", LONGER)
def test_keys_made_of_rows_are_as_long_as_keys_may_be(encoded, redis_server, name, encoding):
    """Of the log and of the WAL: the same key, whole characters, told apart from one that begins alike."""
    db = encoded(encoding)
    character, own, delivered = LONGER[encoding]
    db.run("CREATE TABLE long (words text PRIMARY KEY)")
    db.run("SELECT eventbus.capture('long')")
    db.broker("redis", redis_server.url)
    db.route("log", "redis", f"stream:{name}-log")
    db.route("wal", "redis", f"stream:{name}-wal", source="wal", tables="public.long")
    db.wait_state("wal", "active")
    db.run(f"INSERT INTO long VALUES (repeat({character}, {1023 // own})), ('a' || repeat({character}, {1022 // own})), "
           f"('a' || repeat({character}, {1022 // own - 1}) || 'b'), (repeat({character}, {1024 // delivered}))")
    keys = [eventually(lambda: len(got := redis_server.stream(f"{name}-{source}")) == 4 and
                       [entry["key"].decode() for entry in got], 60) for source in ("log", "wal")]
    assert keys[0] == keys[1] and len(set(keys[0])) == 4
    for key in keys[0][:3]:
        assert 1024 - delivered < len(key.encode()) <= 1024 and re.search(r"~[0-9a-f]{16}$", key)
    assert "~" not in keys[0][3]


def test_a_topic_made_of_names_is_as_long_as_topics_may_be(encoded, out, redis_server, name):
    """Two names of 63 bytes are 252 in UTF-8. Nobody can refuse a row in the WAL any more; a capture is refused."""
    db = encoded("LATIN1")
    db.broker("redis", redis_server.url)
    db.route("wal", "redis", f"stream:{name}", source="wal")
    db.wait_state("wal", "active")
    long = "ä" * 63
    db.run(f"CREATE SCHEMA \"{long}\"")
    db.run(f"CREATE TABLE \"{long}\".\"{long}\" (id int PRIMARY KEY)")
    db.run(f"CREATE TABLE \"{long}\".fits (id int PRIMARY KEY)")
    db.run(f"INSERT INTO \"{long}\".\"{long}\" VALUES (1); INSERT INTO \"{long}\".fits VALUES (1)")
    entry, = eventually(lambda: redis_server.stream(name), 60)
    assert entry["topic"].decode() == f"{long}.fits.insert"
    letter, = db.wait_dead("wal")
    assert letter["topic"] == f"{long}.{long}.insert" and letter["incomplete"]
    assert "its topic has 260 bytes in UTF-8, and a topic at most 255" in letter["error"]
    db.wait_status("wal", state="active", delivered=1, dead=1)
    diag = refused(db, f"SELECT eventbus.capture('\"{long}\".\"{long}\"')")
    assert (diag.message_primary, diag.message_detail) == ("invalid topic", "The topic has 260 bytes.")


def test_control_characters_of_other_encodings(encoded, redis_server, name):
    """In LATIN1 they have a byte of their own; what is one in LATIN1 is a letter in WIN1252, and so is its UTF-8."""
    latin = encoded("LATIN1")
    latin.run("DO $$BEGIN EXECUTE format('CREATE TABLE %I (id int PRIMARY KEY)', 'a' || chr(133) || 'b'); END$$")
    latin.broker("redis", redis_server.url)
    latin.route("log", "redis", f"stream:{name}-log")
    latin.route("wal", "redis", f"stream:{name}-wal", source="wal", topics="public.#")
    latin.wait_state("wal", "active")
    latin.run("SELECT eventbus.capture(oid::regclass) FROM pg_class WHERE relname = 'a' || chr(133) || 'b'")
    latin.run("DO $$BEGIN EXECUTE format('INSERT INTO %I VALUES (1)', 'a' || chr(133) || 'b'); END$$")
    for source in ("log", "wal"):
        entry, = eventually(lambda: redis_server.stream(f"{name}-{source}"), 60)
        assert entry["topic"] == b"public.a_b.insert"
    assert refused(latin, "SELECT eventbus.publish('a' || chr(133), '1')").message_detail == (
        "The topic has a control character, U+0085.")
    windows = encoded("WIN1252")
    windows.broker("redis", redis_server.url)
    windows.route("log", "redis", f"stream:{name}-windows", "Â….#")
    windows.run("SELECT eventbus.publish('Â….x', '1')")
    entry, = eventually(lambda: redis_server.stream(f"{name}-windows"), 60)
    assert entry["topic"].decode() == "Â….x"


def test_errors_of_routes_quote_what_was_given(encoded, rabbit):
    db = encoded("LATIN1")
    db.broker("rabbit", rabbit.url)
    diag = refused(db, "SELECT eventbus.create_route('r', 'rabbit', 'queue:{ä}', '#')")
    assert diag.message_primary == 'invalid template "{ä}"' and diag.message_detail == "Unknown placeholder {ä}."
    diag = refused(db, f"SELECT eventbus.create_route('r', 'rabbit', 'queue:{'ä' * 128}', '#')")
    assert (diag.message_primary, diag.message_detail) == ("destination is too long", "It is 256 bytes long.")

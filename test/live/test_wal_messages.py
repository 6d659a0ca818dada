# What it is: messages in the WAL that anybody may have written, under any prefix, ours too: each costs only itself.
# Who calls it: pytest.
# Never: takes for granted that a message was harmless because nothing complained.
import json
import struct
import time

import psycopg2
import pytest

from servers import PostgresCluster, eventually

from test_encodings import encoded  # noqa: F401
from test_undecodable import passes
from test_wal import WAL_SETTINGS, publish_wal, text_of

OURS = "pg_eventbus"


@pytest.fixture(scope="module")
def cluster():
    with PostgresCluster(config=WAL_SETTINGS) as server:
        yield server


@pytest.fixture
def route(redis_server, name):
    """route(db): "all" to a stream; "dead", whatever it takes is refused."""
    def make(db, topics="#"):
        redis_server.client().set(f"{name}-dead", "not a stream")
        db.broker("redis", redis_server.url)
        for which in ("all", "dead"):
            db.route(which, "redis", f"stream:{name}-{which}", topics, source="wal")
            db.wait_state(which, "active", deadline=60)

    def arrive(count, which="all"):
        stream = f"{name}-{which}"
        return eventually(lambda: len(found := [text_of(e) for e in redis_server.stream(stream)]) == count and found,
                          60, f"{count} entries")
    make.arrive = arrive
    return make


def emit(db, prefix, content, transactional=True):
    db.run("SELECT pg_logical_emit_message(%s, %s, %s::bytea)", transactional, prefix, content)


def own(topic=b"shop.forged", key=b"k", content_type=b"application/json", headers=b'{"a": 1}', payload=b"1", version=1,
        is_bytes=0, published_at=None):
    published_at = time.time_ns() // 1000 if published_at is None else published_at
    return struct.pack("=BBHHHIxxxxq", version, is_bytes, len(topic), 0xFFFF if key is None else len(key),
                       len(content_type), len(headers), published_at) + topic + (key or b"") + content_type + headers + payload


FORGED = {
    "headers that are an array": own(headers=b"[1]"),
    "headers that are a number": own(headers=b"1"),
    "headers that are no JSON": own(headers=b"{words}"),
    "headers that do not end": own(headers=b'{"a": 1'),
    "deep headers": own(headers=b'{"a": ' + b"[" * 100000 + b"]" * 100000 + b"}"),
    "headers that are deeper than publish takes": own(headers=b'{"a":' * 101 + b"1" + b"}" * 101),
    "headers that are larger than publish takes": own(headers=b'{"a": "' + b"x" * (5 << 20) + b'"}'),
    "headers that are no text": own(headers=b'{"a": "\xff"}'),
    "no topic": own(topic=b""),
    "a topic that is a pattern": own(topic=b"shop.*"),
    "an empty word": own(topic=b"shop..x"),
    "a line in a topic": own(topic=b"shop\nx"),
    "a long topic": own(topic=b"x" * 256),
    "a topic that is no text": own(topic=b"shop.\xff"),
    "a topic cut within a character": own(topic="é".encode()[:1]),
    "a NUL in a topic": own(topic=b"shop\0x"),
    "a long key": own(key=b"k" * 5000),
    "a NUL in a key": own(key=b"k\0"),
    "a key that is no text": own(key=b"\xc3"),
    "no content type": own(content_type=b""),
    "lines in a content type": own(content_type=b"text/plain\r\nX-Y: z"),
    "a payload that is no text": own(payload=b"\xff\xfe"),
    "a NUL in a payload": own(payload=b"a\0b"),
    "a time before all": own(published_at=-(1 << 63)),
    "a time behind all": own(published_at=(1 << 63) - 1),
    "another version": own(version=2),
    "no truth value": own(is_bytes=2),
    "too short": own()[:20],
    "lengths beyond its end": own()[:40],
    "nothing": b"",
    "words": b"words",
}


@pytest.mark.parametrize("transactional", [True, False])
def test_a_message_larger_than_max_payload_is_named_and_not_sent(db, route, transactional):
    """Anybody's and our own; eventbus.max_payload is 16 MB."""
    route(db)
    pid = db.sender("all")
    over = (16 << 20) + 1
    db.run("SELECT pg_logical_emit_message(%s, 'anybodys', repeat('x', %s))", transactional, over)
    emit(db, OURS, own(topic=b"shop.big", payload=b'"' + b"x" * (over - 2) + b'"'), transactional)
    db.run("SELECT pg_logical_emit_message(%s, 'fits', repeat('x', %s))", transactional, over - 1)
    publish_wal(db, "shop.last", {"n": 1}, "k")
    assert [entry["topic"] for entry in route.arrive(2)] == ["fits", "shop.last"]
    dead = db.wait_dead("all", 2)
    assert {d["topic"] for d in dead} == {"anybodys", "shop.big"}
    for letter in dead:
        assert f"a message of {over} bytes is larger than eventbus.max_payload ({over - 1} bytes)" in letter["error"]
        assert letter["payload"] is None and letter["incomplete"]
    assert db.status("all")["dead"] == 2 and db.sender("all") == pid


def test_health_tells_of_messages_that_every_role_may_write(db, redis_server, name):
    def level():
        [row] = [row for row in db.health() if row["name"] == "messages in the WAL"]
        return row["level"], row["detail"], row["hint"]
    db.broker("redis", redis_server.url)
    db.route("takes", "redis", f"stream:{name}", source="wal")
    db.route("some", "redis", f"stream:{name}", source="wal", messages="shop.*")
    db.route("none", "redis", f"stream:{name}", source="wal", messages="-*")
    found, detail, hint = level()
    assert found == "warning" and detail.endswith(": some, takes")
    try:
        db.run(hint.partition(" (publish_wal")[0])
        assert level()[0] == "ok"
    finally:
        db.run(hint.partition(" (publish_wal")[0].replace("REVOKE", "GRANT").replace(" FROM PUBLIC", " TO PUBLIC"))
    for route in ("takes", "some"):
        db.run("SELECT eventbus.drop_route(%s)", route)
    assert level()[0] == "ok"


@pytest.mark.parametrize("transactional", [True, False])
@pytest.mark.parametrize("encoding", ["UTF8", "SQL_ASCII", "WIN1252", "EUC_JP"])
def test_a_forged_message_is_somebodys_message(encoded, route, redis_server, name, cluster, encoding, transactional):  # noqa: F811
    """What publish_wal cannot have written has the prefix as its topic and is as it is. Its dead letter is whole: it is
    sent again, and discarded."""
    db = encoded(encoding)
    route(db)
    pid, begin = db.sender("all"), cluster.log_size()
    for content in FORGED.values():
        emit(db, OURS, content, transactional)
    publish_wal(db, "shop.last", {"n": 1}, "k", {"h": 1})
    entries = route.arrive(len(FORGED) + 1)
    for what, entry in zip(FORGED, entries):
        assert (entry["topic"], entry.get("key"), entry.get("headers")) == (OURS, None, None), what
        kind = "text/plain" if what in ("nothing", "words") else "application/octet-stream"
        assert entry["content_type"] == kind, what
    assert entries[-1]["topic"] == "shop.last" and entries[-1]["headers"] == '{"h": 1}'
    assert [e["payload"] for e in redis_server.stream(f"{name}-all")][:-1] == [*FORGED.values()]
    dead = db.wait_dead("dead", len(FORGED) + 1)
    assert len(db.rows("SELECT * FROM eventbus.dead_letter_store")) == len(dead)
    assert not any(d["incomplete"] for d in dead)
    assert db.one("SELECT eventbus.discard('dead', %s)", dead[0]["id"]) == 1
    redis_server.client().delete(f"{name}-dead")
    assert db.one("SELECT eventbus.redeliver('dead')") == len(FORGED)
    again = route.arrive(len(FORGED), "dead")
    assert sorted((e["id"], e["payload"]) for e in again) == sorted((e["id"], e["payload"]) for e in entries[1:])
    assert db.sender("all") == pid and passes(db, cluster, begin) == 0


def test_one_that_publish_wal_could_have_written_is_taken_for_that(db, route):
    """Who may emit messages at all is for the administrator to say (docs/wal.md)."""
    route(db)
    emit(db, OURS, own())
    entry, = route.arrive(1)
    assert (entry["topic"], entry["key"], entry["payload"]) == ("shop.forged", "k", "1")


NO_JSONB = {"a NUL in a text": '{"a": "\\u0000"}', "half a character": '{"a": "\\ud800"}',
            "a number without end": '{"a": 1e400000}',
            "small numbers that are gigabytes": '{"a": [' + ", ".join(["1e131071"] * 100000) + "]}"}


@pytest.mark.parametrize("encoding", ["UTF8", "WIN1252", "SQL_ASCII"])
def test_headers_that_are_json_and_no_jsonb(encoded, route, redis_server, name, encoding):  # noqa: F811
    """Brokers take them. The table of dead letters has them as text: the letter is whole, is sent again as it was, and
    discarded. One that jsonb can hold is one."""
    db = encoded(encoding)
    route(db)
    # What the database has no character for, nor an escape of it in a jsonb.
    headers = [*NO_JSONB.values(), '{"日本": "ä日🐢", "b": [1]}', '{"b": 1}']
    for payload, text in enumerate(headers):
        emit(db, OURS, own(headers=text.encode(), payload=b"%d" % payload))
    sent = route.arrive(len(headers))
    assert [e["headers"] for e in sent] == headers
    dead = db.wait_dead("dead", len(headers))
    assert [(d["payload"], d["key"], d["incomplete"]) for d in dead] == [(str(n), "k", False) for n in range(len(headers))]
    assert all(d["error"].startswith("WRONGTYPE") and "stored" not in d["error"] for d in dead)
    escaped = r'{"\u65e5\u672c": "\u00e4\u65e5\ud83d\udc22", "b": [1]}'
    assert [d["headers_text"] for d in dead[:-2]] == headers[:-2] and not any(d["headers"] for d in dead[:-2])
    if encoding == "UTF8":
        assert (dead[-2]["headers"], dead[-2]["headers_text"]) == (json.loads(headers[-2]), None)
    elif encoding == "WIN1252":
        assert (dead[-2]["headers"], dead[-2]["headers_text"]) == (None, escaped)
    else:
        assert (dead[-2]["headers"] or json.loads(dead[-2]["headers_text"])) == json.loads(headers[-2])
    assert (dead[-1]["headers"], dead[-1]["headers_text"]) == ({"b": 1}, None)
    assert db.one("SELECT eventbus.discard('dead', %s)", dead[0]["id"]) == 1
    # Refused again, it is as it was.
    assert db.one("SELECT eventbus.redeliver('dead')") == len(headers) - 1
    kept = ["id", "payload", "key", "headers", "headers_text", "incomplete"]
    again = eventually(lambda: len(rows := db.dead("dead")) == len(dead) - 1
                       and all(d["attempts"] == 2 for d in rows) and rows, 60, "they are dead again")
    assert [[d[k] for k in kept] for d in again] == [[d[k] for k in kept] for d in dead[1:]]
    redis_server.client().delete(f"{name}-dead")
    assert db.one("SELECT eventbus.redeliver('dead')") == len(headers) - 1
    arrived = {e["id"]: e for e in route.arrive(len(headers) - 1, "dead")}
    for before in sent[1:]:
        assert arrived[before["id"]]["payload"] == before["payload"] and arrived[before["id"]]["key"] == "k"
        assert json.loads(arrived[before["id"]]["headers"]) == json.loads(before["headers"])
    assert db.wait_dead("dead", 0) == []


@pytest.mark.parametrize("encoding", ["WIN1252", "EUC_JP"])
def test_a_payload_that_the_database_has_no_characters_for(encoded, route, redis_server, name, encoding):  # noqa: F811
    """Its dead letter holds its bytes, and is whole."""
    db = encoded(encoding)
    route(db)
    payload = '"ä日🐢"'
    emit(db, OURS, own(payload=payload.encode()))
    sent, = route.arrive(1)
    letter, = db.wait_dead("dead")
    assert sent["payload"] == payload and not letter["incomplete"]
    assert bytes(db.one("SELECT decode(payload, 'base64') FROM eventbus.dead_letter")).decode() == payload
    redis_server.client().delete(f"{name}-dead")
    assert db.one("SELECT eventbus.redeliver('dead')") == 1
    assert route.arrive(1, "dead") == [sent]


@pytest.mark.parametrize("encoding", ["UTF8", "WIN1252"])
@pytest.mark.parametrize("function", ["publish_wal", "publish_now"])
def test_whatever_publish_wal_takes_is_its_own(encoded, route, encoding, function):  # noqa: F811
    """At the bounds of what it takes."""
    db = encoded(encoding)
    route(db)
    character = "é"
    topics = ["shop order.é", " ", "x" * 255, character * 127, "a-b_c/d:e@f!"]
    keys = [None, "", " ", "k" * 1024, character * 512, "a\nb"]
    headers = [None, {}, {"a": [1, {"b": None}], "é\n": "\x01"}, {"deep": json.loads("[" * 99 + "]" * 99)}]
    sent = [(topic, "k", None) for topic in topics] + [("t", key, None) for key in keys] + [("t", "k", h) for h in headers]
    for n, (topic, key, header) in enumerate(sent):
        publish_wal(db, topic, n, key, header, function=function)
    entries = route.arrive(len(sent))
    found = [(e["topic"], e.get("key"), json.loads(e["headers"]) if "headers" in e else None) for e in entries]
    assert found == sent and [e["payload"] for e in entries] == [str(n) for n in range(len(sent))]
    with pytest.raises(psycopg2.Error, match="headers are nested deeper than 100"):
        db.run(f"SELECT eventbus.{function}('t', '1', NULL, ('{{\"a\": ' || repeat('[', 100) || repeat(']', 100) || '}}')::jsonb)")


def test_deep_json_is_text(db, route, redis_server, name, cluster):
    route(db)
    pid, begin = db.sender("all"), cluster.log_size()
    contents = ["[" * depth + "]" * depth for depth in (1000, 1001, 100_000, 5_000_000)]
    contents += ["[" * 5_000_000, '{"a":' * 100_000 + "1" + "}" * 100_000, "1e400", "[" * 999 + "1e400" + "]" * 999]
    for content in contents:
        db.run("SELECT pg_logical_emit_message(true, 'shop.deep', %s)", content)
        db.run("SELECT pg_logical_emit_message(false, 'shop.deep', %s)", content)
    entries = route.arrive(2 * len(contents))
    kinds = ["json"] + 5 * ["text"] + 2 * ["json"]
    assert [e["content_type"] for e in entries[::2]] == [
        "application/json" if kind == "json" else "text/plain" for kind in kinds]
    assert [e["payload"] for e in entries[1::2]] == contents
    assert db.sender("all") == pid and passes(db, cluster, begin) == 0
    db.wait_dead("dead", 2 * len(contents))
    assert db.one("SELECT eventbus.discard('dead')") == 2 * len(contents)


PREFIXES = {  # and the topic that comes of it
    "a" + "é" * 200: "a" + "é" * 127,
    "é" * 200: "é" * 127,
    "x" * 254 + "é": "x" * 254,
    "x" * 253 + "あ" + "y": "x" * 253,
    "x" * 10000: "x" * 255,
    "": "_",
    ".": "_",
    "a.*.b c.": "a._.b_c_",
    "a\nb": "a_b",
    "a b": "a_b",
}


def test_any_prefix_makes_a_topic(db, route, redis_server, name):
    route(db)
    for n, prefix in enumerate(PREFIXES):
        db.run("SELECT pg_logical_emit_message(%s, %s, %s)", n % 2 == 0, prefix, str(n))
    assert [e["topic"] for e in route.arrive(len(PREFIXES))] == [*PREFIXES.values()]
    dead = db.wait_dead("dead", len(PREFIXES))
    assert sorted(d["topic"] for d in dead) == sorted(PREFIXES.values())
    assert db.one("SELECT eventbus.discard('dead', %s)", dead[0]["id"]) == 1
    redis_server.client().delete(f"{name}-dead")
    assert db.one("SELECT eventbus.redeliver('dead')") == len(PREFIXES) - 1
    assert sorted(e["topic"] for e in route.arrive(len(PREFIXES) - 1, "dead")) == sorted(d["topic"] for d in dead[1:])
    eventually(lambda: not db.dead("dead"), 60, "none is left")


@pytest.mark.parametrize("encoding, prefix, topics", [
    ("WIN1252", "'x' || chr(129) || repeat(chr(228), 200)", ["x?" + "ä" * 126]),
    ("WIN1252", "chr(129)", ["?"]),
    ("SQL_ASCII", r"E'a\303'", ["a?"]),
    ("SQL_ASCII", r"E'\303\244' || repeat(E'\377', 300)", ["ä" + "?" * 253]),
    ("EUC_JP", r"E'\244\242' || E'\251\241'", ["あ?"]),
])
def test_a_prefix_that_has_no_text_in_utf8(encoded, route, redis_server, name, cluster, encoding, prefix, topics):  # noqa: F811
    db = encoded(encoding)
    route(db)
    pid, begin = db.sender("all"), cluster.log_size()
    for transactional in (True, False):
        db.run(f"SELECT pg_logical_emit_message({transactional}, {prefix}, {prefix})")
    entries = route.arrive(2)
    assert [(e["topic"], e["content_type"]) for e in entries] == [(topics[0], "application/octet-stream")] * 2
    assert len(db.wait_dead("dead", 2)) == 2
    redis_server.client().delete(f"{name}-dead")
    assert db.one("SELECT eventbus.redeliver('dead')") == 2
    route.arrive(2, "dead")
    eventually(lambda: not db.dead("dead"), 60, "none is left")
    assert db.sender("all") == pid and passes(db, cluster, begin) == 0


def test_patterns_of_messages_are_of_the_databases_encoding(encoded, redis_server, name):  # noqa: F811
    db = encoded("WIN1252")
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"stream:{name}", source="wal", messages="ä*")
    db.wait_state("out", "active", deadline=60)
    for topic in ("ä.x", "b.x", "ä.y"):
        db.run("SELECT pg_logical_emit_message(true, %s, 'x')", topic)
        publish_wal(db, topic, 1)
    eventually(lambda: [text_of(e)["topic"] for e in redis_server.stream(name)] == ["ä.x", "ä.x", "ä.y", "ä.y"], 60,
               "those that fit")


def test_a_message_that_cannot_be_made_an_event(encoded, redis_server, name, cluster):  # noqa: F811
    """Of a database without its conversion into UTF-8. Routes that do not want it never meet it."""
    db = encoded("WIN1252")
    db.broker("redis", redis_server.url)
    db.run("CREATE TABLE item (id int PRIMARY KEY)")
    db.route("shop", "redis", f"stream:{name}-shop", "shop.#", source="wal")
    db.wait_state("shop", "active", deadline=60)
    pid, begin = db.sender("shop"), cluster.log_size()
    client = redis_server.client()
    spoil = "UPDATE pg_conversion SET conproc = '%s'::regproc WHERE conname = 'windows_1252_to_utf8'"
    db.connection.set_client_encoding("WIN1252")
    db.run(spoil % "iso8859_1_to_utf8")
    try:
        db.run("SELECT pg_logical_emit_message(true, 'other', chr(228))")
        db.run("SELECT pg_logical_emit_message(true, 'shop.good', 'x')")
        eventually(lambda: client.xlen(f"{name}-shop") == 1, 60, "what is ASCII arrives")
        assert passes(db, cluster, begin) == 0
        db.route("all", "redis", f"stream:{name}-all", source="wal")
        db.wait_state("all", "active", deadline=60)
        db.run("SELECT pg_logical_emit_message(true, 'other.' || n, chr(228)) FROM generate_series(1, 3) n")
        db.run("SELECT pg_logical_emit_message(false, 'other.now', chr(228))")
        db.run("SELECT pg_logical_emit_message(true, chr(228), 'x')")
        db.run("BEGIN")
        db.run("INSERT INTO item VALUES (1)")
        db.run("SELECT pg_logical_emit_message(true, 'other.beside', chr(228))")
        db.run("SELECT pg_logical_emit_message(true, 'shop.beside', 'x')")
        db.run("COMMIT")
        dead = db.wait_dead("all", 6, 60)
        assert [(d["topic"], d["incomplete"]) for d in dead] == [
            *((f"other.{n}", True) for n in (1, 2, 3, "now")), ("?", True), ("other.beside", True)]
        assert all(d["error"].startswith("a message cannot be decoded: ") for d in dead)
        begin = cluster.log_size()
        db.run("SELECT pg_logical_emit_message(true, 'other.last', chr(228))")
        db.wait_dead("all", 7)
        assert passes(db, cluster, begin) == 0, "once one has failed, others cost no second pass"
        eventually(lambda: [text_of(e)["id"].partition("-")[2] for e in redis_server.stream(f"{name}-all")] == ["1", "3"],
                   60, "the others arrive, with their numbers")
        eventually(lambda: client.xlen(f"{name}-shop") == 2, 60, "the other route has all of its own")
    finally:
        db.run(spoil % "win_to_utf8")
    assert db.one("SELECT eventbus.redeliver()") == 0 and db.one("SELECT eventbus.discard()") == 7
    assert db.sender("all") == pid

# What it is: what a database of 0.1 is like when the library is replaced, made by 0.1 itself or put in from test/data, and
# what has to become of it.
# Who calls it: test_upgrade_data.py; scripts/keep-0.1, which made test/data/0.1.json with the library of 0.1.
# Never: uses what only a later version has before the update.
import json
import os
import re

import psycopg2

from processes import eventually

COMMIT = "794d505"
TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCRIPT = os.path.join(TREE, "test", "data", "pg_eventbus--0.1.sql")
DATA = os.path.join(TREE, "test", "data", "0.1.json")
NAME = "kept"  # of streams, lists, queues
ROLE = "kept_app"
HALF, ALL = 20, 60  # events of the batch that 0.1 delivered in part
FIRST_XID = 1000    # of what is kept: a new database's transactions are before it
TABLES = ("broker_config", "route_config", "cursor", "dead_letter_store", *(f"log_{number}" for number in range(4)))
SEQUENCES = ("event_id", "log_generation", "broker_config_id_seq", "route_config_id_seq")
ITEMS = f"""CREATE TABLE item (id int PRIMARY KEY, what text);
            SELECT eventbus.capture('item', topic => 'item.{{op}}', headers => '{{"of": "item"}}');
            CREATE ROLE {ROLE}; GRANT USAGE ON SCHEMA eventbus TO {ROLE};
            GRANT EXECUTE ON FUNCTION eventbus.publish(text, jsonb, text, jsonb) TO {ROLE};"""


def declare(rabbit, limited):
    """An exchange, a queue for what it takes, and one for "full.#", which takes one message while it is limited."""
    def queues(channel):
        channel.exchange_declare(NAME, "topic", durable=True)
        limits = {"x-max-length": 1, "x-overflow": "reject-publish"} if limited else None
        for queue, arguments in (("rest", None), ("full", limits)):
            channel.queue_delete(f"{NAME}_{queue}")
            channel.queue_declare(f"{NAME}_{queue}", durable=True, arguments=arguments)
            channel.queue_bind(f"{NAME}_{queue}", NAME, f"{queue}.#")
    rabbit.do(queues)


def publish_all(db, topic, count, key):
    """In one transaction; `key` is an SQL expression of g. Returns the ids."""
    return [row["id"] for row in db.rows(
        f"SELECT eventbus.publish(%s, to_jsonb(g), {key}) AS id FROM generate_series(1, %s) g", topic, count)]


class State:
    """The ids of events, by what became of them; a dictionary in JSON."""

    def __init__(self, **what):
        self.items = []  # that were captured since
        self.__dict__.update(what)


def burn(db, until):
    """Transactions, until the next one has this id."""
    while int(db.one("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")) < until:
        db.run("SELECT pg_current_xact_id()")


def make_routes(db, redis, rabbit):
    db.broker("redis", redis.url)
    db.broker("rabbit", rabbit.url)
    db.route("out", "redis", f"stream:{NAME}:out", "shop.#, item.#")
    db.route("half", "redis", f"stream:{NAME}:{{key}}", "bulk")
    db.route("wrong", "redis", f"list:{NAME}:wrong", "bad")
    db.route("paused", "redis", f"list:{NAME}:paused", "shop.#")
    db.route("parked", "rabbit", f"exchange:{NAME}", "full.#, rest.#")


def publish_kinds(db, number):
    """An event of each kind, with values that encodings and quoting change where they go wrong."""
    headers, text = json.dumps({"n": number, "t": "\u00fc\"'"}), f"text {number} \u20ac\t{{}}"
    return [db.publish("shop.json", {"n": number, "text": "a \"b\" \\ \u00e4"}, key=f"k{number % 3}", headers={"h": 1}),
            db.one("SELECT eventbus.publish_text('shop.text', %s, %s, %s::jsonb)", text, f"k{number % 3}", headers),
            db.one("SELECT eventbus.publish_bytes('shop.bytes', %s)", psycopg2.Binary(bytes(range(256)))),
            db.publish("shop.large", {"n": number, "large": "x" * 3000})]


def captured(db, sql):
    """The ids of the events that a statement makes by its triggers."""
    before = db.one("SELECT coalesce(max(id), 0) FROM eventbus.event")
    db.run(sql)
    return [id for (id,) in db.run("SELECT id FROM eventbus.event WHERE id > %s ORDER BY id", before)]


def make(db, redis, rabbit):
    """By the functions that 0.1 has. Redis is killed in the end, so that events wait."""
    client = redis.client()
    burn(db, FIRST_XID)
    db.run(ITEMS)
    db.run(f"SELECT eventbus.allow('{ROLE}', 'shop.#')")
    declare(rabbit, limited=True)
    client.set(f"{NAME}:wrong", "no list")
    client.execute_command("ACL", "SETUSER", "default", "resetkeys", f"~{NAME}:[^b]*")
    make_routes(db, redis, rabbit)
    state = State(out=publish_kinds(db, 0))
    shop = list(state.out)
    state.out += captured(db, "INSERT INTO item VALUES (1, 'one'), (2, 'two \u00e9')")
    state.out += captured(db, "UPDATE item SET what = 'changed' WHERE id = 1")
    state.out += captured(db, "DELETE FROM item WHERE id = 2")
    db.wait_status("paused", delivered=len(shop), in_flight=0)
    db.run("SELECT eventbus.pause_route('paused')")
    db.wait_state("paused", "paused")
    state.paused_before = shop
    state.paused_after = publish_kinds(db, 1)
    state.out += state.paused_after
    state.dead = [db.publish("bad", {"n": 1}, key="k", headers={"h": [1, True, "\u00fc"]}),
                  db.one("SELECT eventbus.publish_text('bad', 'two \u20ac', 'k')"),
                  db.one("SELECT eventbus.publish_bytes('bad', %s)", psycopg2.Binary(b"\x00\xff\x01"))]
    db.wait_dead("wrong", 3, 60)
    state.full = publish_all(db, "full.t", 20, "'stuck'")
    db.wait_error("parked", "nack|reject|confirm", 60)
    state.rest = publish_all(db, "rest.t", 60, "(g %% 20)::text")
    eventually(lambda: db.run("SELECT 1 FROM eventbus.cursor WHERE detour > 0 AND key = 'stuck'"), 20, "a key is parked")
    state.half = publish_all(db, "bulk", ALL, f"CASE WHEN g <= {HALF} THEN 'half' ELSE 'blocked' END")
    db.wait_status("half", 60, state="held", delivered=HALF)
    eventually(lambda: db.run("SELECT 1 FROM eventbus.cursor c JOIN eventbus.route_config r ON r.id = route_id "
                              "WHERE name = 'half' AND batch IS NOT NULL AND c.delivered = %s", HALF), 60,
               "a cursor stands within a batch")
    eventually(lambda: client.xlen(f"{NAME}:out") == len(state.out), 60, "what is not held is delivered")
    eventually(lambda: all(delivered >= len(state.out) for (delivered,) in db.run(
        "SELECT c.delivered FROM eventbus.cursor c JOIN eventbus.route_config r ON r.id = route_id WHERE name = 'out'")), 60)
    state.streams = {key: redis.stream_ids(f"{NAME}:{key}") for key in ("out", "half")}
    redis.kill()
    state.waiting = publish_kinds(db, 2)
    state.paused_after += state.waiting
    state.waiting += captured(db, "INSERT INTO item SELECT n, 'item ' || n FROM generate_series(10, 20) n")
    state.out += state.waiting
    db.wait_state("out", "retrying")
    state.letters = letters(db)
    return state


LETTER = ("event_id", "route", "topic", "key", "payload", "headers", "error", "attempts", "message_id")


def letters(db):
    """As the view shows them, without what a version may add."""
    rows = db.rows(f"SELECT {', '.join(LETTER)}, failed_at::text FROM eventbus.dead_letter ORDER BY event_id")
    return [dict(row) for row in rows]


# Keeping it, and putting it in

def keep(db, state, redis):
    kept = {"state": state.__dict__, "tables": {}, "sequences": {}, "streams": {}}
    for table in TABLES:
        kept["tables"][table] = [row for (row,) in db.run(f"SELECT to_jsonb(t) FROM eventbus.{table} t")]
    for sequence in SEQUENCES:
        kept["sequences"][sequence] = db.one(f"SELECT last_value FROM eventbus.{sequence}")
    for key in ("out", "half"):
        kept["streams"][key] = [{name: value.decode("latin-1") for name, value in entry.items()}
                                for entry in redis.stream(f"{NAME}:{key}")]
    with open(DATA, "w") as text:
        json.dump(kept, text, indent=0, sort_keys=True)
        text.write("\n")


def insert(db, table, row):
    db.run(f"INSERT INTO eventbus.{table} OVERRIDING SYSTEM VALUE SELECT * FROM jsonb_populate_record(NULL::eventbus.{table}, "
           "%s::jsonb)", json.dumps(row))


def put_in(db, redis, rabbit):
    """Into a database with the schema of 0.1, while nobody delivers. Rows of the log are written by transactions of the
    same ids as in 0.1's server: what its cursors say of transactions is true here."""
    with open(DATA) as text:
        kept = json.load(text)
    assert int(db.one("SELECT pg_current_xact_id()::text")) < FIRST_XID, "a new server's"
    db.run(ITEMS)
    db.run(f"INSERT INTO eventbus.topic_grant VALUES ('{ROLE}', 'shop.#')")
    by_xid = {}
    for number in range(4):
        for row in kept["tables"][f"log_{number}"]:
            by_xid.setdefault(int(row["xid"]), []).append((f"log_{number}", row))
    for xid in sorted(by_xid):
        burn(db, xid)
        db.run("BEGIN")
        assert int(db.one("SELECT pg_current_xact_id()::text")) == xid
        for table, row in by_xid[xid]:
            insert(db, table, row)
        db.run("COMMIT")
    for table in ("broker_config", "route_config", "cursor", "dead_letter_store"):
        for row in kept["tables"][table]:
            insert(db, table, row)
    for name, url in (("redis", redis.url), ("rabbit", rabbit.url)):
        db.run("UPDATE eventbus.broker_config SET url = %s WHERE name = %s", url, name)
    for sequence, value in kept["sequences"].items():
        db.run(f"SELECT setval('eventbus.{sequence}', %s)", value)
    source = db.one("SELECT 'postgresql://' || system_identifier || '/' || current_database() FROM pg_control_system()")
    for key, entries in kept["streams"].items():
        for entry in entries:
            assert re.fullmatch(r"postgresql://\d+/kept", entry["source"])
            entry["source"] = source  # this server's, for they are its own
            redis.client().xadd(f"{NAME}:{key}", {name: value.encode("latin-1") for name, value in entry.items()})
    redis.client().set(f"{NAME}:wrong", "no list")
    return State(**kept["state"])


# What has to become of it

def open_brokers(rabbit):
    """What refused some of the events takes them now; Redis does since its restart."""
    declare(rabbit, limited=False)


def nothing_has_come(state, redis):
    return all(redis.stream_ids(f"{NAME}:{key}") == ids for key, ids in state.streams.items())


def check_delivered(db, state, redis, rabbit):
    """Nothing is lost, and nothing stands in a stream twice."""
    for key, ids in (("out", state.out), ("half", state.half[:HALF]), ("blocked", state.half[HALF:])):
        eventually(lambda key=key, ids=ids: redis.client().xlen(f"{NAME}:{key}") >= len(ids), 60, f"stream {key} has all")
        came = redis.stream_ids(f"{NAME}:{key}")
        assert came == ids, f"{key}: {came} instead of {ids}"
    for route in ("out", "half"):
        db.wait_status(route, 60, state="active", in_flight=0)
    full = [int(properties.message_id) for properties, _, _ in rabbit.take_until_idle(f"{NAME}_full")]
    assert sorted(set(full)) == state.full[-len(set(full)):] and full[-1] == state.full[-1], "what was parked, in its order"
    assert len(set(full)) >= len(state.full) - 1, full
    check_bodies(redis.stream(f"{NAME}:out"), state)


def check_bodies(entries, state):
    by_id = {int(entry["id"]): entry for entry in entries}
    items = [(entry["topic"].decode(), json.loads(entry["payload"]), json.loads(entry["headers"])) for entry in entries
             if entry["topic"].startswith(b"item.")]
    assert [topic for topic, _, _ in items[:4]] == ["item.insert", "item.insert", "item.update", "item.delete"]
    assert [body["after"] for _, body, _ in items[1:4]] == [{"id": 2, "what": "two \u00e9"}, {"id": 1, "what": "changed"}, None]
    assert [body["after"]["id"] for _, body, _ in items[4:]] == list(range(10, 21)) + state.items, "those that waited"
    assert {body["source"]["table"] for _, body, _ in items} == {"item"}
    assert all(headers["of"] == "item" and headers["pg-user"] for _, _, headers in items)
    for number, ids in ((1, state.paused_after[:4]), (2, state.waiting[:4])):
        made, text, plain, large = (by_id[id] for id in ids)
        assert json.loads(made["payload"]) == {"n": number, "text": "a \"b\" \\ \u00e4"} and json.loads(made["headers"]) == {"h": 1}
        assert text["payload"].decode() == f"text {number} \u20ac\t{{}}" and text["key"] == f"k{number % 3}".encode()
        assert json.loads(text["headers"]) == {"n": number, "t": "\u00fc\"'"}
        assert plain["payload"] == bytes(range(256)) and plain["content_type"] == b"application/octet-stream"
        assert json.loads(large["payload"]) == {"n": number, "large": "x" * 3000}


def check_letters(db, state, redis):
    """They are as they were, and can be sent again."""
    assert letters(db) == state.letters and [letter["event_id"] for letter in state.letters] == state.dead
    redis.client().delete(f"{NAME}:wrong")
    assert db.one("SELECT eventbus.redeliver('wrong')") == 3
    eventually(lambda: redis.client().llen(f"{NAME}:wrong") == 3, 60, "dead letters are sent again")
    bodies = redis.client().lrange(f"{NAME}:wrong", 0, -1)
    assert sorted(bodies) == sorted([b'{"n": 1}', "two \u20ac".encode(), b"\x00\xff\x01"])
    eventually(lambda: not letters(db), 30, "and are no dead letters any more")


def check_paused(db, state, redis):
    before = redis.client().llen(f"{NAME}:paused")
    assert db.status("paused")["state"] == "paused" and before in (0, len(state.paused_before))
    db.run("SELECT eventbus.resume_route('paused')")
    wanted = len(state.paused_after)
    eventually(lambda: redis.client().llen(f"{NAME}:paused") >= before + wanted, 60, "what waited for the route")
    bodies = redis.client().lrange(f"{NAME}:paused", before, -1)
    assert len(bodies) == wanted and [bodies[n] for n in (1, 5)] == [f"text {n} \u20ac\t{{}}".encode() for n in (1, 2)]


def check_rights(db):
    """Who could publish can, and no other topic than before."""
    db.run(f"SET ROLE {ROLE}")
    try:
        db.publish("shop.allowed", 1)
        try:
            db.publish("other", 1)
        except psycopg2.errors.InsufficientPrivilege:
            return
        raise AssertionError("a topic that was not granted")
    finally:
        db.run("RESET ROLE")

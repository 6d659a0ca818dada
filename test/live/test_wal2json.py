# What it is: our wal2json format against Debian's wal2json: random workloads and options on two slots of one database.
# Who calls it: pytest. WAL2JSON_SEED changes what happens; WAL2JSON_PLUGIN=… compares with another build of wal2json.
# Never: looks into what the two say: they say the same, byte for byte.
import json
import os
import random
import re

import psycopg2
import pytest

from workload import Workload

SEED = int(os.environ.get("WAL2JSON_SEED", "11"))
THEIRS = os.environ.get("WAL2JSON_PLUGIN", "wal2json")
ROUNDS, TRANSACTIONS, CALLS = 7, 60, 16

SWITCHES = ["include-transaction", "include-xids", "include-timestamp", "include-pk", "include-origin",
            "include-schemas", "include-types", "include-type-oids", "include-typmod", "include-domain-data-type",
            "include-column-positions", "include-not-null", "include-default", "pretty-print", "write-in-chunks",
            "include-lsn"]
SETTINGS = {"DateStyle": ["ISO, MDY", "German, DMY", "SQL, MDY"], "TimeZone": ["UTC", "Europe/Warsaw", "Asia/Kolkata"],
            "extra_float_digits": ["0", "1", "-2"], "IntervalStyle": ["postgres", "iso_8601"],
            "search_path": ["public", '"Other", public', "pg_catalog"]}


def switch_value(dice):
    return dice.choices(["1", "0", "true", "off", "yes", "perhaps"], [6, 6, 2, 2, 1, 0.1])[0]


def table_list(dice, workload):
    def name(text):
        return "".join("\\" + c if c in ' ".,\\*' else c for c in text)

    def one():
        table = dice.choice(workload.tables)
        return dice.choice([f"{name(table.schema)}.{name(table.name)}", f"*.{name(table.name)}",
                            f"{name(table.schema)}.*", f"{name(table.schema)}.{name(table.name + '_some')}"])

    if dice.random() < 0.05:
        return dice.choice(["noschema", "a.b,,c.d", "a.b c.d", "", " ", "*.*", "\\*.\\*"])
    return dice.choice([",", ", ", " ,\t"]).join(one() for _ in range(dice.randint(1, 3)))


def random_options(dice, workload, version, old):
    options = [("format-version", version)] if dice.random() < 0.95 else []
    switches = SWITCHES if old else SWITCHES + ["numeric-data-types-as-string"]
    for name in dice.sample(switches, dice.choice([0, 1, 3, 5, len(switches) // 2])):
        options.append((name, switch_value(dice)))
    if dice.random() < 0.15:
        options.append(("actions", dice.choice(["insert", "insert, update", "delete,truncate", "", "nothing"])))
    if dice.random() < 0.3:
        options.append((dice.choice(["filter-tables", "add-tables"]), table_list(dice, workload)))
    if dice.random() < 0.2:
        options.append((dice.choice(["filter-msg-prefixes", "add-msg-prefixes"]),
                        dice.choice(["one", "one, two", "shop.order", "", "x y"])))
    if dice.random() < 0.1:
        options.append(("filter-origins", dice.choice(["1", "1, 2", "", "x", "1 2"])))
    if dice.random() < 0.05:
        options.append(dice.choice([("include-unchanged-toast", "1"), ("no-such-option", "x"), ("format-version", "3"),
                                    ("format-version", "0"), ("format-version", "x"), ("format-version", " 0x2")]))
    dice.shuffle(options)
    # Without any option of wal2json's, ours would be another format.
    return options or [("include-lsn", "0")]


def decode(connection, function, slot, options, end=None):
    """Rows and warnings up to a place in the WAL, or the error. Who compares two slots names the end: what autovacuum
    commits between two calls is a transaction, too."""
    del connection.notices[:]
    flat = [text for option in options for text in option]
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT lsn::text, xid::text, data FROM {function}(%s, %s, NULL, VARIADIC %s::text[])",
                           (slot, end, flat))
            rows = cursor.fetchall()
    except psycopg2.Error as error:
        words = error.diag
        return "error", [words.sqlstate, words.message_primary, words.message_detail, words.message_hint], []
    return "rows", rows, [line.split("\n")[0] for line in connection.notices
                          if "cache reference leak" not in line]


def is_old(connection):
    """2.5 lacks an option, and has two faults in version 1 that 2.6 has not."""
    outcome, words, _ = decode(connection, "pg_logical_slot_peek_changes", "theirs",
                               [("numeric-data-types-as-string", "1")])
    return outcome == "error" and "is unknown" in words[1]


def without_comma(rows):
    """2.5 puts a comma before a message outside of transactions that comes after a transaction."""
    return [(lsn, xid, data.replace('"change":[,{', '"change":[{').replace('"change": [\n\t\t,{', '"change": [\n\t\t{'))
            for lsn, xid, data in rows]


def without_optionals(rows):
    """2.7 fills an array that 2.6 leaves empty unless types are included."""
    return [(lsn, xid, data if '"columntypes"' in data else re.sub(r'("columnoptionals": ?\[)[truefals, ]*', r"\1", data))
            for lsn, xid, data in rows]


TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null|[\s\S]')


def assert_numbers_are_strings(theirs, ours):
    """What numeric-data-types-as-string does, by wal2json's documentation: a column's number is a string, and what is no
    number in JSON is not lost. All else is what it is without the option, byte for byte."""
    key, last, strings = None, None, 0
    theirs, ours = TOKEN.findall(theirs), TOKEN.findall(ours)
    assert len(theirs) == len(ours)
    for wanted, mine in zip(theirs, ours):
        if wanted == ":":
            key = last
        last = wanted
        values = key in ('"value"', '"columnvalues"', '"keyvalues"')
        if values and re.match("-?[0-9]", wanted):
            wanted = f'"{wanted}"'
            strings += 1
        if values and wanted == "null" and mine in ('"NaN"', '"Infinity"', '"-Infinity"'):
            continue
        assert mine == wanted, f"{key}: {mine} instead of {wanted}"
    return strings


def keys_of(rows):
    """The tables of version 2's objects with their primary keys."""
    changes = [json.loads(data) for _, _, data in rows]
    return {(c["schema"], c["table"], tuple((column["name"], column["type"]) for column in c["pk"]))
            for c in changes if c["action"] in "IUD"}


def without_key(data, keys):
    """A transaction in version 1 without its primary keys, each of which is among the keys."""
    def pairs(found):
        pk = dict(found).get("pk")
        if pk is None:
            return found
        found = [pair for pair in found if pair[0] != "pk"]
        pk = dict(pk)
        columns = tuple(zip(pk["pknames"], pk["pktypes"]))
        assert (dict(found)["schema"], dict(found)["table"], columns) in keys
        seen.append(columns)
        return found
    seen = []
    return json.loads(data, object_pairs_hook=pairs, parse_float=str), len(seen)


def assert_what_is_newer(db, end):
    """Options that 2.6 has, where theirs is 2.5 and has not: what they say without them is the rest of it."""
    def both(theirs_options, ours_options):
        theirs = decode(db.connection, "pg_logical_slot_peek_changes", "theirs", theirs_options, end)
        ours = decode(db.connection, "pg_logical_slot_peek_changes", "ours", ours_options, end)
        assert theirs[0] == ours[0] == "rows" and len(theirs[1]) == len(ours[1])
        return without_optionals(without_comma(theirs[1])), ours[1]

    strings = 0
    for version in "1", "2":
        for pretty in "0", "1":
            options = [("format-version", version), ("pretty-print", pretty), ("include-type-oids", "1"),
                       ("include-column-positions", "1"), ("include-xids", "1")]
            for wanted, mine in zip(*both(options, [*options, ("numeric-data-types-as-string", "1")])):
                assert wanted[:2] == mine[:2]
                strings += assert_numbers_are_strings(wanted[2], mine[2])
    with_keys, _ = both([("format-version", "2"), ("include-pk", "1")], [("format-version", "2"), ("include-pk", "1")])
    keys, seen = keys_of(with_keys), 0
    for wanted, mine in zip(*both([("format-version", "1")], [("format-version", "1"), ("include-pk", "1")])):
        rest, count = without_key(mine[2], keys)
        assert rest == without_key(wanted[2], keys)[0]
        seen += count
    return strings, seen


@pytest.fixture
def slots(db):
    """Both begin at the same place."""
    db.run("SELECT pg_create_logical_replication_slot('theirs', %s)", THEIRS)
    db.run("SELECT pg_copy_logical_replication_slot('theirs', 'ours', false, 'pg_eventbus')")
    yield
    for name in ("theirs", "ours", "theirs_too", "ours_too"):
        db.run("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", name)


def test_the_same_bytes_as_wal2json(cluster, db, slots):
    dice = random.Random(SEED)
    old = is_old(db.connection)
    workload = Workload(db, dice)
    beside = db.connect(autocommit=False).cursor()
    db.run("CREATE TABLE beside (id serial PRIMARY KEY, text text)")
    kinds = set()
    for _ in range(ROUNDS):
        del workload.trace[:]
        for _ in range(TRANSACTIONS):
            workload.transaction()
            if dice.random() < 0.3:
                beside.execute("INSERT INTO beside (text) VALUES ('open for some time')")
            elif dice.random() < 0.3:
                beside.execute(dice.choice(["COMMIT", "ROLLBACK"]))
        # What lies outside of transactions is only flushed with the next one.
        db.run("SELECT pg_logical_emit_message(true, 'last', 'flushes what came before')")
        end = db.one("SELECT pg_current_wal_flush_lsn()")
        for name, choices in SETTINGS.items():
            db.run("SELECT set_config(%s, %s, false)", name, dice.choice(choices))
        db.run("SET bytea_output = hex")
        for call in range(CALLS):
            version = str(call % 2 + 1)
            options = random_options(dice, workload, version, old)
            named = dict(options)
            if old and "include-pk" in named and named.get("format-version", "1") != "2":
                options = [option for option in options if option[0] != "include-pk"] or [("include-lsn", "0")]
            theirs = decode(db.connection, "pg_logical_slot_peek_changes", "theirs", options, end)
            ours = decode(db.connection, "pg_logical_slot_peek_changes", "ours", options, end)
            if old and theirs[0] == "rows":
                theirs = (theirs[0], without_comma(theirs[1]), theirs[2])
            if theirs[0] == "rows":
                theirs = (theirs[0], without_optionals(theirs[1]), theirs[2])
            kinds.add((theirs[0], version, bool(theirs[1])))
            told = f"seed {SEED}, options {options}"
            assert ours[0] == theirs[0], f"{told}: {ours[1][:3]} instead of {theirs[1][:3]}"
            for mine, wanted in zip(ours[1], theirs[1]):
                assert mine == wanted, f"{told}\n" + "\n".join(workload.trace[-400:])
            assert len(ours[1]) == len(theirs[1]), told
            assert ours[2] == theirs[2], told
        db.run("SET search_path = public")
        if old:
            numbers, primary_keys = assert_what_is_newer(db, end)
            assert numbers > 100 and primary_keys > 20
        for name in "theirs", "ours":
            db.run("SELECT count(*) FROM pg_logical_slot_get_changes(%s, %s, NULL, 'format-version', '2')", name, end)
    beside.connection.close()
    # The same over the replication protocol, where options may come without a value; nothing is confirmed by the first.
    for _ in range(TRANSACTIONS):
        workload.transaction()
    db.run("SELECT pg_logical_emit_message(true, 'last', '')")
    end = db.one("SELECT pg_current_wal_flush_lsn()")
    for name in "theirs", "ours":
        db.run("SELECT pg_copy_logical_replication_slot(%s, %s)", name, name + "_too")
    for suffix, options in (("", ["format-version", "include-lsn", "include-timestamp", "include-xids"]),
                            ("_too", ["format-version=1", "pretty-print", "include-type-oids", "actions"])):
        theirs, complaint = cluster.receive(db.name, "theirs" + suffix, options, end)
        ours, _ = cluster.receive(db.name, "ours" + suffix, options, end)
        if old:
            theirs = theirs.replace(b'"change": [\n\t\t,{', b'"change": [\n\t\t{')
        assert len(theirs) > 1000, complaint
        assert ours == theirs, f"seed {SEED}, options {options}"
    assert {("rows", "1", True), ("rows", "2", True)} <= kinds

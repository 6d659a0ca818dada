# What it is: what our plugin lets through for random publications, against pgoutput: tables, columns, rows, operations.
# Who calls it: pytest. PUBLICATION_SEED changes what happens.
# Never: looks at how a change is written; test_wal2json.py does.
import json
import os
import random
import struct

import psycopg2

from workload import Workload, quoted

SEED = int(os.environ.get("PUBLICATION_SEED", "3"))
ROUNDS, TRANSACTIONS = 5, 50


class Reader:
    """The messages of pgoutput, version 1, as (operation, table, new row, identity)."""

    def __init__(self):
        self.relations = {}

    def text(self):
        end = self.data.index(b"\0", self.at)
        found, self.at = self.data[self.at:end].decode(), end + 1
        return found

    def number(self, kind):
        size = struct.calcsize(kind)
        self.at += size
        return struct.unpack(kind, self.data[self.at - size:self.at])[0]

    def row(self, columns):
        values = {}
        for name in columns[:self.number(">H")]:
            kind = self.number("c")
            if kind == b"t":
                size = self.number(">I")
                values[name] = self.data[self.at:self.at + size].decode()
                self.at += size
            elif kind == b"n":
                values[name] = None
        return values

    def read(self, data):
        self.data, self.at = bytes(data), 0
        kind = self.number("c").decode()
        if kind == "R":
            oid, schema, name = self.number(">I"), self.text(), self.text()
            self.number("c")
            columns = []
            for _ in range(self.number(">H")):
                self.number("B")
                columns.append(self.text())
                self.at += 8
            self.relations[oid] = (f"{schema}.{name}", columns)
        elif kind in "IUD":
            table, columns = self.relations[self.number(">I")]
            rows = {}
            while self.at < len(self.data):
                part = self.number("c").decode()
                rows[part] = self.row(columns)
            yield kind, table, rows.get("N"), rows.get("K") or rows.get("O") if kind == "D" else None
        elif kind == "T":
            count = self.number(">I")
            self.number("B")
            for _ in range(count):
                yield "T", self.relations[self.number(">I")][0], None, None


def as_text(column):
    value = column["value"]
    if column["type"] == "bytea" and value is not None:
        return "\\x" + value
    return {True: "t", False: "f"}.get(value, value) if isinstance(value, bool) else value


def ours(db, names):
    for (data,) in db.run("SELECT data FROM pg_logical_slot_peek_changes('ours', NULL, NULL, 'format-version', '2', "
                          "'include-transaction', '0', 'numeric-data-types-as-string', '1', 'messages', '-*', "
                          "'publication_names', %s)", names):
        change = json.loads(data)
        # pgoutput leaves out generated columns.
        rows = [None if part not in change else {column["name"]: as_text(column) for column in change[part]
                                                 if column["name"] != "twice"} for part in ("columns", "identity")]
        yield (change["action"], f"{change['schema']}.{change['table']}", rows[0],
               rows[1] if change["action"] == "D" else None)


def theirs(db, names):
    reader = Reader()
    for (data,) in db.run("SELECT data FROM pg_logical_slot_peek_binary_changes('theirs', NULL, NULL, "
                          "'proto_version', '1', 'publication_names', %s)", names):
        yield from reader.read(data)


def outcome(changes, db, names):
    try:
        return list(changes(db, names))
    except psycopg2.Error as error:
        return error.diag.message_primary


def random_publication(dice, workload):
    kind = dice.random()
    if kind < 0.15:
        what = "FOR ALL TABLES"
    elif kind < 0.35:
        what = f"FOR TABLES IN SCHEMA {dice.choice(['public', quoted('Other')])}"
    else:
        parts = []
        for table in dice.sample(workload.tables, dice.randint(1, 4)):
            name = table.part("some") if table.kind == "partitioned" and dice.random() < 0.3 else str(table)
            some = dice.sample(list(table.types), dice.randint(0, len(table.types)))
            columns = f" ({', '.join(['id', *map(quoted, some)])})" if dice.random() < 0.25 else ""
            parts.append(name + columns + dice.choice(["", f" WHERE (id % {dice.randint(2, 4)} = 0)"]))
        what = "FOR TABLE " + ", ".join(parts)
    operations = dice.choice(["insert, update, delete, truncate"] * 3 + ["insert", "update, truncate", "delete"])
    root = dice.choice(["true", "false"])
    return f"{what} WITH (publish = '{operations}', publish_via_partition_root = {root})"


def test_the_same_changes_as_pgoutput(db):
    dice = random.Random(SEED)
    workload = Workload(db, dice, tables=7)
    for name, plugin in ("theirs", "pgoutput"), ("ours", "pg_eventbus"):
        db.run("SELECT pg_create_logical_replication_slot(%s, %s)", name, plugin)
    seen = set()
    try:
        for _ in range(ROUNDS):
            made = []
            while len(made) < 6:
                try:
                    db.run(f"CREATE PUBLICATION p{len(made)} {random_publication(dice, workload)}")
                    made.append(f"p{len(made)}")
                except psycopg2.Error as error:  # such as a filter for a partitioned table that is not published as one
                    assert error.pgcode in ("22023", "42P16"), error
            for name in "theirs", "ours":
                db.run("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", name)
            for _ in range(TRANSACTIONS):
                workload.transaction()
            for _ in range(8):
                names = ",".join(dice.sample(made, dice.randint(1, 3)))
                told = f"seed {SEED}, " + str(db.run("SELECT p::text FROM pg_publication p")) + f" {names}"
                mine, wanted = outcome(ours, db, names), outcome(theirs, db, names)
                if isinstance(wanted, str):  # 15 takes a list of all columns for another when some were dropped; we do not
                    assert not isinstance(mine, str) or mine[:33] == wanted[:33], told
                    continue
                assert len(mine) == len(wanted), f"{told}: {[c[:2] for c in mine]} instead of {[c[:2] for c in wanted]}"
                for (kind, table, new, old), (their_kind, their_table, their_new, their_old) in zip(mine, wanted):
                    assert (kind, table, new) == (their_kind, their_table, their_new), told
                    if kind == "D":
                        assert old and all(their_old[column] == value for column, value in old.items()), told
                    seen.add(kind)
            for name in made:
                db.run(f"DROP PUBLICATION {name}")
    finally:
        for name in "theirs", "ours":
            db.run("SELECT pg_drop_replication_slot(%s)", name)
    assert seen == {"I", "U", "D", "T"}

# What it is: applies events in Debezium's envelope to an empty copy of a table, and says whether the two are equal.
# Who calls it: the tests of everything that turns changes of tables into events.
# Never: knows where the events come from.
import json


def apply(cursor, copy, envelope):
    """One event, as its JSON text, on the table `copy` (a quoted, qualified name). PostgreSQL reads the rows from the
    text: Python's numbers are too short for numeric's."""
    change = json.loads(envelope)
    kind = change["op"]
    if kind == "t":
        cursor.execute(f"TRUNCATE {copy}")
        return
    missing = {name for name in ("before", "after") if change[name] is None}
    assert missing == {"c": {"before"}, "u": set(), "d": {"after"}}[kind], f"rows of {kind}: {envelope}"
    if "before" not in missing:
        # Rows are compared as JSON, where every value has one text; of several equal rows one goes.
        cursor.execute(f"""DELETE FROM {copy} WHERE ctid = (
            SELECT ctid FROM {copy} c WHERE to_jsonb(c) = %s::jsonb -> 'before' LIMIT 1)""", (envelope,))
        assert cursor.rowcount == 1, f"the copy has no row as it was before {envelope}"
    if "after" not in missing:
        cursor.execute(f"INSERT INTO {copy} SELECT * FROM json_populate_record(NULL::{copy}, %s::json -> 'after')",
                       (envelope,))


def differences(cursor, table, copy):
    """Rows that are in one of the two only, as texts, which every type has; equal tables have none."""
    cursor.execute(f"""WITH these AS (SELECT r::text AS row FROM {table} r), those AS (SELECT r::text FROM {copy} r)
        SELECT 'only in {table}: ' || row FROM (TABLE these EXCEPT ALL TABLE those) r (row)
        UNION ALL SELECT 'only in {copy}: ' || row FROM (TABLE those EXCEPT ALL TABLE these) r (row)""")
    return [row[0] for row in cursor.fetchall()]


class Blocks:
    """Puts transactions together that come in blocks before they are finished; take(record) returns, as texts, the
    changes that a record makes valid, in the order of commits."""

    def __init__(self):
        self.open, self.block, self.marks = {}, None, set()

    def take(self, record):
        told = json.loads(record)
        mark = told.get("status")
        if mark is None:
            if self.block is None:
                return [record]
            assert told["transaction"]["id"] == self.block
            self.open[self.block].append((told["transaction"].get("sub_id"), record))
            return []
        self.marks.add(mark + (" of a part" if "sub_id" in told else ""))
        whose = told["id"]
        if mark == "STREAM_START":
            assert self.block is None
            self.block = whose
            self.open.setdefault(whose, [])
        elif mark == "STREAM_STOP":
            assert self.block == whose
            self.block = None
        elif mark == "STREAM_ABORT" and "sub_id" in told:
            self.open[whose] = [change for change in self.open[whose] if change[0] != told["sub_id"]]
        elif mark == "STREAM_ABORT":
            del self.open[whose]
        elif mark == "STREAM_COMMIT":
            return [change[1] for change in self.open.pop(whose)]
        return []


UNAVAILABLE = "__debezium_unavailable_value"


def apply_by_key(cursor, copy, envelope, key):
    """The same for events without the whole old row: the column `key` finds it, and what was not logged stays."""
    change = json.loads(envelope)
    kind, after, before = change["op"], change["after"], change["before"]
    if kind == "t":
        cursor.execute(f"TRUNCATE {copy}")
    elif kind == "c":
        cursor.execute(f"INSERT INTO {copy} SELECT * FROM json_populate_record(NULL::{copy}, %s::json -> 'after')",
                       (envelope,))
    elif kind == "d":
        cursor.execute(f"DELETE FROM {copy} WHERE {key} = %s", (before[key],))
    else:
        names = ", ".join('"' + name.replace('"', '""') + '"' for name, value in after.items() if value != UNAVAILABLE)
        cursor.execute(f"UPDATE {copy} SET ({names}) = (SELECT {names} FROM json_populate_record(NULL::{copy}, "
                       f"(SELECT json_object_agg(k, v) FROM json_each(%s::json -> 'after') AS c (k, v) "
                       f"WHERE v::text <> to_json(%s::text)::text))) WHERE {key} = %s",
                       (envelope, UNAVAILABLE, (before or after)[key]))
    assert kind == "t" or cursor.rowcount == 1, f"the copy has no row of {envelope}"

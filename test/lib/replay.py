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
        cursor.execute(f"INSERT INTO {copy} SELECT * FROM jsonb_populate_record(NULL::{copy}, %s::jsonb -> 'after')",
                       (envelope,))


def differences(cursor, table, copy):
    """Rows that are in one of the two only, as texts; equal tables have none."""
    cursor.execute(f"""SELECT 'only in {table}: ' || r::text FROM (TABLE {table} EXCEPT ALL TABLE {copy}) r
        UNION ALL SELECT 'only in {copy}: ' || r::text FROM (TABLE {copy} EXCEPT ALL TABLE {table}) r""")
    return [row[0] for row in cursor.fetchall()]

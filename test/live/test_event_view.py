# What it is: who may read the payloads of captured events in the view eventbus.event after the update from 0.1.
# Who calls it: pytest.
# Never: grants by itself what the update should.
import psycopg2
import pytest

from test_upgrade import cluster  # noqa: F401


def test_who_could_read_the_view_can_after_the_update(make_old, make_database, cluster):  # noqa: F811
    """By a grant on the view, on one of its columns, on a view over a view over it; and in a dump restored."""
    db = make_old()
    db.run("""CREATE ROLE "Reads"; CREATE ROLE reads_payload; CREATE ROLE reads_above; CREATE ROLE reads_topic;
              GRANT USAGE ON SCHEMA eventbus TO "Reads", reads_payload;
              GRANT SELECT ON eventbus.event TO "Reads" WITH GRANT OPTION;
              GRANT SELECT (payload) ON eventbus.event TO reads_payload;
              CREATE VIEW of_shop AS SELECT * FROM eventbus.event WHERE topic LIKE 'shop.%';
              CREATE VIEW payloads AS SELECT payload FROM of_shop;
              GRANT SELECT ON payloads TO reads_above""")
    db.run("CREATE TABLE item (id int); SELECT eventbus.capture('item', topic => 'shop.item.{op}'); INSERT INTO item VALUES (7)")
    reads = {"Reads": "eventbus.event", "reads_payload": "eventbus.event", "reads_above": "payloads"}

    def payload(database, role):
        with psycopg2.connect(database.connection.dsn) as connection, connection.cursor() as cursor:
            cursor.execute(f'SET ROLE "{role}"; SELECT payload FROM {reads.get(role, "eventbus.event")}')
            return cursor.fetchone()[0]

    before = {role: payload(db, role) for role in reads}
    db.run("ALTER EXTENSION pg_eventbus UPDATE")
    assert {role: payload(db, role).replace('"0.2"', '"0.1"') for role in reads} == before
    copy = make_database("copy", extension=False)
    cluster.program("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", copy.name,
                    standard_input=cluster.program("pg_dump", "-d", db.name))
    copy.run("INSERT INTO item VALUES (8)")
    for role in reads:
        assert '{"id":8}' in payload(copy, role)
    function = "eventbus.captured_payload(text, text, xid8, timestamptz)"
    for database in (db, copy):
        assert database.one("SELECT has_function_privilege('Reads', %s, 'EXECUTE WITH GRANT OPTION')", function)
        assert not database.one("SELECT has_function_privilege('reads_topic', %s, 'EXECUTE')", function)
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            payload(database, "reads_topic")
        database.run('DROP OWNED BY "Reads", reads_payload, reads_above, reads_topic CASCADE')
    db.run('DROP ROLE "Reads", reads_payload, reads_above, reads_topic')

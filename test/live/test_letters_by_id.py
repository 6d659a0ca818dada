# What it is: dead letters by the id that messages carry: as drivers pass it, and what 0.1 has stored after the update.
# Who calls it: pytest.
# Never: needs a broker.
import psycopg
import psycopg2
import pytest

from test_upgrade import cluster  # noqa: F401

LETTERS = """INSERT INTO eventbus.dead_letter_store (route_id, {}, topic, content_type, payload_text, published_at, error,
                 attempts, failed_at)
             SELECT r.id, i.*, 't', 'x/y', 'p', now(), 'e', 1, now() FROM eventbus.route_config r, (VALUES {}) i WHERE r.name = 'r'"""


def make_route(db):
    db.broker("nowhere", "redis:///nonexistent/redis.sock")
    db.route("r", "nowhere", "list:l")
    db.run("SELECT eventbus.pause_route('r')")


def ids(db):
    return [row[0] for row in db.run("SELECT id FROM eventbus.dead_letter ORDER BY event_id, id COLLATE \"C\"")]


@pytest.mark.parametrize("driver", [psycopg2, psycopg])
@pytest.mark.parametrize("function", ["redeliver", "discard"])
def test_as_drivers_pass_it(make_database, driver, function):  # noqa: F811
    db = make_database()
    make_route(db)
    db.run(LETTERS.format("lsn, number", "('0/0'::pg_lsn, 17), ('0/0', 40000), ('0/0', 3000000000), ('0/16B3748', 3)"))
    everything = ["17", "40000", "3000000000", "0/16B3748-3"]
    calls = [  # parameters, and the ids that they mean
        (("r", 17), ["17"]), (("r", 40000), ["40000"]), (("r", 3000000000), ["3000000000"]), (("r", "17"), ["17"]),
        (("r", "0/16B3748-3"), ["0/16B3748-3"]), (("r", "0/16b3748-3"), ["0/16B3748-3"]), (("r", 18), []), (("r", "18"), []),
        ((None, 17), ["17"]), ((None, "0/16B3748-3"), ["0/16B3748-3"])]
    connection = driver.connect(db.connection.dsn)
    cursor = connection.cursor()
    for parameters, meant in calls:
        cursor.execute(f"SELECT eventbus.{function}(%s, %s)", parameters)
        assert cursor.fetchone()[0] == len(meant), parameters
        cursor.execute('SELECT id FROM eventbus.dead_letter ORDER BY event_id, id COLLATE "C"')
        assert [row[0] for row in cursor] == [id for id in everything if id not in meant], parameters
        connection.rollback()
    for sql, parameters, meant in [("(%s)", ("r",), everything), ("()", (), everything), ("(event_id => %s)", (17,), ["17"]),
                                   ("(event_id => %s)", ("17",), ["17"]), ("(route => %s, id => %s)", ("r", "17"), ["17"]),
                                   ("(%s::text, %s::bigint)", ("r", "17"), ["17"])]:
        cursor.execute(f"SELECT eventbus.{function}{sql}", parameters)
        assert cursor.fetchone()[0] == len(meant), (sql, parameters)
        connection.rollback()
    for wrong in ("x", "", "0/1", "17x", "0/0-17"):
        with pytest.raises(driver.Error, match="invalid event id") as refused:
            cursor.execute(f"SELECT eventbus.{function}(%s, %s)", ("r", wrong))
        assert refused.value.diag.sqlstate == "22023" and "0/16B3748-3" in refused.value.diag.message_hint
        connection.rollback()
    for null in ("('r', NULL)", "(NULL, NULL)", "(event_id => NULL)", "('r', NULL::text)", "('r', NULL::bigint)",
                 "(route, event_id) FROM eventbus.dead_letter", "('r', (SELECT event_id FROM eventbus.dead_letter WHERE false))"):
        with pytest.raises(driver.Error, match="id is null") as refused:
            cursor.execute(f"SELECT eventbus.{function}{null}")
        assert refused.value.diag.sqlstate == "22004" and "column id" in refused.value.diag.message_hint.lower()
        connection.rollback()
        assert ids(db) == everything
    connection.close()


def test_each_as_it_is_shown(make_database):  # noqa: F811
    db = make_database()
    make_route(db)
    db.run(LETTERS.format("lsn, number", "('0/0'::pg_lsn, 17), ('0/16B3748', 3), ('0/16B3748', 17), ('FFFFFFFF/FFFFFFFF', 9223372036854775807)"))
    assert db.run("SELECT event_id, message_id = id FROM eventbus.dead_letter ORDER BY event_id") == [(17, True)] + [(None, True)] * 3
    for id in ids(db):
        assert db.one("SELECT eventbus.discard('r', %s)", id) == 1
    assert ids(db) == []


def test_what_0_1_has_stored(make_old):  # noqa: F811
    """Letters of both kinds, two of the WAL under one id among them; the WAL's events that stand beside their route."""
    db = make_old()
    db.run("INSERT INTO eventbus.broker_config (name, url) VALUES ('nowhere', 'redis:///nonexistent/redis.sock')")
    db.run("INSERT INTO eventbus.route_config (name, broker_id, destination, topics, source, paused)"
           " SELECT n, id, 'list:l', '#', s, true FROM eventbus.broker_config, (VALUES ('r', 'log'), ('w', 'wal'), ('x', 'wal')) v (n, s)")
    db.run(LETTERS.format("event_id, lsn, number", """(17, NULL::pg_lsn, NULL::bigint), (9, NULL, NULL), (23934000, '0/16D3600', 3),
        (23934001, '0/16D3600', 4), (23935000, '0/16D3A00', 1), (23935001, '0/16D3A00', 1), (23935002, '0/16D3A00', 1)"""))
    db.run("UPDATE eventbus.dead_letter_store SET requeued = true WHERE event_id = 9")
    db.run("""INSERT INTO eventbus.cursor (route_id, detour, key, event_ids, settled_ids, done, wal_lsn, wal_number)
              SELECT r.id, c.* FROM eventbus.route_config r,
                  (VALUES (0, NULL, NULL::bigint[], NULL::bigint[], '1:1:'::pg_snapshot, '0/300'::pg_lsn, 7),
                          (1, 'k', NULL, '{768, 769}', '1:1:', '0/200', 1), (2, NULL, '{256, 257}', '{257}', '1:1:', '0/100', 2),
                          (3, NULL, '{255}', NULL, '1:1:', '0/100', 1)) c
              WHERE r.name = 'w' OR (r.name = 'x' AND c.column1 <= 1)""")
    log = "SELECT event_ids::text[], settled_ids::text[] FROM eventbus.cursor JOIN eventbus.route_config r ON r.id = route_id WHERE r.name = 'r'"
    db.run("INSERT INTO eventbus.cursor (route_id, detour, event_ids, settled_ids, done) SELECT id, 1, '{1, 2}', '{2}', '1:1:'"
           " FROM eventbus.route_config WHERE name = 'r'")
    before = db.run(log)
    db.run("BEGIN; ALTER EXTENSION pg_eventbus UPDATE")  # before a sender sees it
    assert ids(db) == ["17", "0/16D3600-3", "0/16D3600-4", "0/16D3A00-1", "0/16D3A00-23935001", "0/16D3A00-23935002"]
    assert db.run("SELECT lsn, number, requeued FROM eventbus.dead_letter_store WHERE requeued") == [("0/0", 9, True)]
    assert db.run("SELECT r.name, parked_key, key, event_ids, settled_ids, wal_lsn, wal_number FROM eventbus.cursor"
                  " JOIN eventbus.route_config r ON r.id = route_id WHERE r.source = 'wal' ORDER BY 1, 2") == [
        ("w", 0, None, None, None, "0/100", 1), ("w", 1, "k", None, None, "0/200", 1),
        ("x", 0, None, None, None, "0/300", 7), ("x", 1, "k", None, None, "0/200", 1)]
    assert db.run(log) == before
    db.run("COMMIT")
    assert db.one("SELECT eventbus.discard('r', '0/16D3600-4')") == 1 and db.one("SELECT eventbus.discard('r', 9)") == 1

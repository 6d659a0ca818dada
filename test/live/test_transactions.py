# What it is: what a transaction's end means: nothing of a rollback arrives, everything of a commit does, in order.
# Who calls it: pytest.
# Never: asserts on timing alone.
import random
import threading

import pytest

from servers import eventually


def in_parallel(count, work):
    """work(number) in `count` threads; the first error is raised here."""
    errors = []

    def guarded(number):
        try:
            work(number)
        except Exception as error:
            errors.append(error)
    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def texts(entries):
    return [entry["payload"].decode() for entry in entries]


def publish_text(db, text, connection=None):
    with (connection or db.connection).cursor() as cursor:
        cursor.execute("SELECT eventbus.publish_text('t', %s)", (text,))


def test_rollback_publishes_nothing(db, stream):
    db.run("BEGIN")
    publish_text(db, "phantom")
    db.run("ROLLBACK")
    publish_text(db, "kept")
    assert texts(stream(1)) == ["kept"]


def test_failed_statement_publishes_nothing(db, stream):
    with pytest.raises(Exception, match="division by zero"):
        db.run("SELECT eventbus.publish_text('t', 'phantom'), 1 / (random() * 0)::int")
    publish_text(db, "kept")
    assert texts(stream(1)) == ["kept"]


def test_savepoints(db, stream):
    db.run("BEGIN")
    publish_text(db, "one")
    db.run("SAVEPOINT a")
    publish_text(db, "phantom")
    db.run("SAVEPOINT b")
    publish_text(db, "phantom, too")
    db.run("ROLLBACK TO a")
    publish_text(db, "two")
    db.run("RELEASE a")
    db.run("""DO $$ BEGIN
                BEGIN
                  PERFORM eventbus.publish_text('t', 'phantom of a block');
                  RAISE EXCEPTION 'no';
                EXCEPTION WHEN raise_exception THEN
                  PERFORM eventbus.publish_text('t', 'three');
                END;
              END $$""")
    db.run("COMMIT")
    publish_text(db, "four")
    assert texts(stream(4)) == ["one", "two", "three", "four"]


def test_two_phase_commit(db, stream, name, setting):
    setting("eventbus.safety_poll", "1s")  # which is what notices a COMMIT PREPARED at the latest
    for end in ("ROLLBACK", "COMMIT"):
        db.run("BEGIN")
        publish_text(db, end)
        db.run(f"PREPARE TRANSACTION '{name}_{end}'")
    publish_text(db, "between")
    assert texts(stream(1)) == ["between"]
    db.run(f"ROLLBACK PREPARED '{name}_ROLLBACK'")
    db.run(f"COMMIT PREPARED '{name}_COMMIT'")
    assert texts(stream(2)) == ["between", "COMMIT"]


def test_prepared_transaction_outlives_a_restart(db, stream, cluster, name, setting):
    setting("eventbus.safety_poll", "1s")
    db.run("BEGIN")
    publish_text(db, "prepared")
    db.run(f"PREPARE TRANSACTION '{name}'")
    publish_text(db, "before")
    stream(1)
    cluster.restart("immediate")
    db.reconnect()
    publish_text(db, "after")
    db.run(f"COMMIT PREPARED '{name}'")
    assert sorted(texts(stream(3))) == ["after", "before", "prepared"]


def test_explain_publishes_nothing_and_analyze_once(db, stream):
    db.run("EXPLAIN SELECT eventbus.publish_text('t', 'phantom')")
    db.run("EXPLAIN ANALYZE SELECT eventbus.publish_text('t', 'analyzed')")
    publish_text(db, "kept")
    assert texts(stream(2)) == ["analyzed", "kept"]


def test_prepared_statement_publishes_each_time(db, stream):
    db.run("PREPARE again AS SELECT eventbus.publish_text('t', 'same')")
    for _ in range(10):
        db.run("EXECUTE again")
    assert texts(stream(10)) == ["same"] * 10


@pytest.mark.parametrize("setting, value", [
    ("synchronous_commit", "off"), ("default_transaction_isolation", "serializable"),
    ("default_transaction_isolation", "repeatable read"), ("(force_parallel_mode|debug_parallel_query)", "on")])
def test_under_setting(db, stream, setting, value):
    """The last one has another name from PostgreSQL 16 on."""
    assert db.run("SELECT set_config(name, %s, false) FROM pg_settings WHERE name ~ ('^' || %s || '$')",
                  value, setting) == [(value,)]
    for n in range(20):
        publish_text(db, str(n))
    assert texts(stream(20)) == [str(n) for n in range(20)]


def test_trigger_publishes(db, stream):
    db.run("""CREATE TABLE inventory (sku text PRIMARY KEY, name text);
              CREATE FUNCTION listed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                PERFORM eventbus.publish('shop.product.listed', to_jsonb(NEW), NEW.sku); RETURN NEW; END $$;
              CREATE TRIGGER listed AFTER INSERT ON inventory FOR EACH ROW EXECUTE FUNCTION listed();""")
    db.run("INSERT INTO inventory SELECT 'sku-' || g, 'thing' FROM generate_series(1, 3) g")
    assert [entry["key"] for entry in stream(3)] == [b"sku-1", b"sku-2", b"sku-3"]


def test_late_commit_is_what_a_naive_reader_loses(db, stream):
    """The control: `id > last` loses an event that commits late; the stream has it."""
    db.run("CREATE TABLE naive (id bigint PRIMARY KEY)")
    late = db.connect(autocommit=False)
    late.cursor().execute("INSERT INTO naive SELECT eventbus.publish_text('t', 'late')")
    db.run("INSERT INTO naive SELECT eventbus.publish_text('t', 'early')")
    stream(1)
    read = [row[0] for row in db.run("SELECT id FROM naive ORDER BY id")]
    late.commit()
    late.close()
    read += [row[0] for row in db.run("SELECT id FROM naive WHERE id > %s", max(read))]
    assert len(read) == 1, "the naive reader has lost the late one"
    assert texts(stream(2)) == ["early", "late"]


def test_sleeping_publishers_lose_nothing_where_a_naive_reader_does(db, stream, redis_server):
    db.run("CREATE TABLE naive (id bigint PRIMARY KEY)")
    publishers, each, done = 8, 40, threading.Event()
    naive = []

    def read_naively():
        connection = db.connect()
        with connection.cursor() as cursor:
            last_round = False
            while not last_round:
                last_round = done.is_set()
                cursor.execute("SELECT id FROM naive WHERE id > %s ORDER BY id", (naive[-1] if naive else 0,))
                naive.extend(row[0] for row in cursor.fetchall())
        connection.close()

    def publish_sleepily(number):
        dice = random.Random(number)
        connection = db.connect(autocommit=False)
        with connection.cursor() as cursor:
            for n in range(each):
                cursor.execute("INSERT INTO naive SELECT eventbus.publish('t', '1')")
                if n % 5 == 4:
                    cursor.execute("SAVEPOINT s; SELECT eventbus.publish('t', '-1'); ROLLBACK TO s")
                cursor.execute("SELECT pg_sleep(%s)", (dice.random() * 0.03,))
                if n % 7 == 6:
                    connection.rollback()
                else:
                    connection.commit()
        connection.close()

    reader = threading.Thread(target=read_naively)
    reader.start()
    in_parallel(publishers, publish_sleepily)
    done.set()
    reader.join()
    committed = {row[0] for row in db.run("SELECT id FROM naive")}
    assert committed - set(naive), "the control shows no fault: the test proves nothing"
    ids = [int(entry["id"]) for entry in stream(len(committed))]
    assert len(ids) == len(set(ids)) and set(ids) == committed


def test_order_within_a_key(db, stream):
    """Transactions that update one row conflict on it, so their events arrive in the order of their commits."""
    keys, publishers, each = 4, 8, 60
    db.run("CREATE TABLE counters (key int PRIMARY KEY, n int NOT NULL)")
    db.run("INSERT INTO counters SELECT g, 0 FROM generate_series(0, %s) g", keys - 1)

    def count(number):
        dice = random.Random(number)
        connection = db.connect(autocommit=False)
        with connection.cursor() as cursor:
            for _ in range(each):
                key = dice.randrange(keys)
                cursor.execute("UPDATE counters SET n = n + 1 WHERE key = %s RETURNING n", (key,))
                db.publish("count", cursor.fetchone()[0], str(key), connection=connection)
                if dice.random() < 0.3:
                    cursor.execute("SELECT pg_sleep(%s)", (dice.random() * 0.01,))
                connection.commit()
        connection.close()

    in_parallel(publishers, count)
    seen = {}
    for entry in stream(publishers * each, 60):
        seen.setdefault(int(entry["key"]), []).append(int(entry["payload"]))
    assert seen == {key: list(range(1, n + 1)) for key, n in db.run("SELECT * FROM counters")}


def resident_kilobytes(pid):
    with open(f"/proc/{pid}/status") as text:
        return next(int(line.split()[1]) for line in text if line.startswith("RssAnon"))


def test_one_transaction_of_200_000_events(db, stream, redis_server):
    publish_text(db, "first")
    stream(1)
    pid = db.sender("out")
    idle = most = resident_kilobytes(pid)
    db.run("SELECT count(eventbus.publish('bulk', jsonb_build_object('n', g, 'filler', repeat('x', 200)))) "
           "FROM generate_series(1, 200000) g")

    def arrived():
        nonlocal most
        most = max(most, resident_kilobytes(pid))
        return redis_server.client().xlen(stream.key) >= 200001
    eventually(arrived, 120)
    ids = redis_server.stream_ids(stream.key)
    assert len(ids) == 200001 and ids == sorted(set(ids))
    assert most - idle < 64 * 1024, f"the sender grew by {(most - idle) / 1024:.0f} MB"
    db.wait_status("out", delivered=200001, in_flight=0, dead=0)

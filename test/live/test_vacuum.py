# What it is: what operators do to the log's tables: VACUUM in its forms, rewrites, TRUNCATE; nothing is lost by it.
# Who calls it: pytest.
# Never: assumes that VACUUM did something: each test shows that it did.
import pytest

from servers import eventually, stays, wait_gone

SEGMENT = "SELECT 'log_' || last_value % 4 FROM eventbus.log_generation"
PUBLISH = "SELECT eventbus.publish_text('t', repeat('x', 100)) FROM generate_series(1, {})"


@pytest.fixture
def setting_here(cluster):
    """The log stays in one segment, and keeps what is delivered: places on its pages are used for long."""
    names = {"eventbus.rotation_period": "1h", "eventbus.segment_size": "64MB", "eventbus.retention": "1h"}
    for name, value in names.items():
        cluster.execute(f"ALTER SYSTEM SET {name} = %s", value)
    cluster.read_config()
    yield
    for name in names:
        cluster.execute(f"ALTER SYSTEM RESET {name}")
    cluster.read_config()


class Log:
    """Publishes, rolls back, and knows what has to arrive."""

    def __init__(self, db):
        self.db, self.expected = db, []

    def publish(self, count=1):
        self.expected += [row[0] for row in self.db.run(PUBLISH.format(count))]

    def roll_back(self, count):
        self.db.run("BEGIN")
        self.db.run(PUBLISH.format(count))
        self.db.run("ROLLBACK")

    def segment(self):
        return self.db.one(SEGMENT)

    def pages(self):
        return self.db.one(f"SELECT pg_relation_size('eventbus.{self.segment()}') / 8192")

    def vacuum(self, options=""):
        self.db.run(f"VACUUM {options} eventbus.{self.segment()}")

    def files(self):
        return self.db.one("SELECT array_agg(pg_relation_filenode('eventbus.log_' || i)::text) FROM generate_series(0, 3) i")


@pytest.fixture
def log(setting_here, db):
    return Log(db)


@pytest.fixture
def arrived(stream, log):
    """Waits until exactly what was published has arrived, once, in order."""
    def check():
        rows = stream(len(log.expected))
        assert [int(row["id"]) for row in rows] == log.expected
        stays(lambda: len(stream(len(log.expected))) == len(log.expected), 0.5, "nothing comes twice")
    return check


def test_places_of_rolled_back_events_are_used_again(log, arrived):
    log.publish()
    log.roll_back(5)
    log.publish()
    arrived()
    log.vacuum()
    log.publish(5)
    arrived()


def test_a_page_whose_end_was_cut_off_is_filled_again(log, arrived):
    log.publish(3)
    log.roll_back(20)
    log.publish()  # behind them, so that the sender looks there
    arrived()
    log.db.run(f"DELETE FROM eventbus.{log.segment()} WHERE id = %s", log.expected[-1])
    log.vacuum("(TRUNCATE off)")
    log.publish(5)
    arrived()


@pytest.mark.parametrize("more", [1, 5000])
def test_pages_that_were_cut_off_come_again(log, arrived, more):
    log.publish(10)
    log.roll_back(3000)
    log.publish()  # behind them, so that the sender looks there
    arrived()
    log.db.run(f"DELETE FROM eventbus.{log.segment()} WHERE id = %s", log.expected[-1])
    before = log.pages()
    log.vacuum("(TRUNCATE on)")
    assert log.pages() < before, "the file was cut"
    log.publish(more)
    arrived()
    log.publish(3)
    arrived()


def test_an_open_transaction_publishes_on_beside_vacuum(log, arrived, db):
    log.publish(3)
    late = db.connect(autocommit=False)
    with late.cursor() as cursor:
        cursor.execute("SELECT eventbus.publish_text('t', 'early')")
        ids = [cursor.fetchone()[0]]
        log.roll_back(10)
        log.publish(2)
        arrived()
        log.vacuum()
        cursor.execute("SELECT eventbus.publish_text('t', 'late')")
        ids.append(cursor.fetchone()[0])
        late.commit()
    late.close()
    log.expected += ids
    arrived()


@pytest.mark.parametrize("options", ["(FREEZE)", "(FREEZE, DISABLE_PAGE_SKIPPING)", "(FULL)", "(FULL, FREEZE)"])
def test_frozen_or_rewritten_and_published_on(log, arrived, options):
    for _ in range(3):
        log.publish(100)
        log.roll_back(100)
        arrived()
        log.vacuum(options)
    log.publish(100)
    arrived()
    if "FREEZE" in options:
        frozen = log.db.one("SELECT age(relfrozenxid) FROM pg_class WHERE oid = %s::regclass", f"eventbus.{log.segment()}")
        assert frozen < 100, "its horizon moves although the segment is held"


def test_order_of_a_key_holds_on_a_vacuumed_page(log, arrived, setting):
    """Batches end in the midst of pages; what is published later must not stand before what is earlier."""
    setting("eventbus.batch_events", "2")
    log.publish()
    for _ in range(10):
        log.roll_back(3)
        log.publish(2)
        log.vacuum()
    log.db.run("SELECT eventbus.pause_route('out')")
    log.db.wait_state("out", "paused")
    for _ in range(20):
        log.roll_back(2)
        log.publish(3)
        log.vacuum()
    log.db.run("SELECT eventbus.resume_route('out')")
    arrived()


@pytest.fixture
def other_tablespace(cluster):
    connection = cluster.connect()
    with connection.cursor() as cursor:
        cursor.execute("SET allow_in_place_tablespaces = on")
        cursor.execute("CREATE TABLESPACE other LOCATION ''")
    connection.close()
    yield
    connection = cluster.connect()

    def dropped():
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLESPACE IF EXISTS other")
        return True
    eventually(dropped, 60, "the tablespace is empty")
    connection.close()


def assert_each_once(log, redis_server, key):
    eventually(lambda: redis_server.client().xlen(key) >= len(log.expected), 60, "all have arrived")
    assert sorted(redis_server.stream_ids(key)) == log.expected, "each once"


@pytest.fixture
def in_the_midst(log, redis_server, make_proxy, name):
    """A route that delivers a batch slowly, and has delivered a part of it."""
    proxy = make_proxy(redis_server)
    log.db.broker("slow", f"redis://127.0.0.1:{proxy.port}", window=500)
    log.db.route("midst", "slow", f"stream:{name}:midst")
    log.roll_back(26000)
    log.db.run("SELECT eventbus.pause_route('midst')")
    log.db.wait_state("midst", "paused")
    log.publish(26000)
    proxy.delay(0.02)
    log.db.run("SELECT eventbus.resume_route('midst')")
    eventually(lambda: log.db.status("midst")["delivered"] > 5000)

    def goes_on():
        proxy.pass_on()
        assert_each_once(log, redis_server, f"{name}:midst")
    return goes_on


@pytest.mark.parametrize("then", ["lives", "terminated"])
@pytest.mark.parametrize("rewrite", ["VACUUM FULL", "tablespace"])
def test_rewritten_in_the_midst_of_a_batch(log, in_the_midst, rewrite, then, request):
    """What the batch has in the segment begins again; a stream has each event once all the same."""
    db, before = log.db, log.files()
    if rewrite == "tablespace":
        request.getfixturevalue("other_tablespace")
        db.run(f"ALTER TABLE eventbus.{log.segment()} SET TABLESPACE other")
        request.addfinalizer(lambda: db.run(f"ALTER TABLE eventbus.{log.segment()} SET TABLESPACE pg_default"))
    else:
        log.vacuum("(FULL)")
    assert log.files() != before
    assert db.status("midst")["delivered"] < 26000, "it stood in the midst of the batch"
    if then == "terminated":
        sender = db.sender("midst")
        db.run("SELECT pg_terminate_backend(%s)", sender)
        eventually(lambda: db.status("midst")["sender_pid"] not in (None, sender), 60, "a new sender")
    log.publish(100)
    in_the_midst()


def test_truncated_by_hand_in_the_midst_of_a_batch(log, in_the_midst, redis_server, name):
    """What an operator throws away is gone; what is published afterwards arrives."""
    db = log.db
    db.run(f"TRUNCATE eventbus.{log.segment()}")
    assert db.status("midst")["delivered"] < 26000, "it stood in the midst of the batch"
    log.expected = []
    log.publish(5000)
    eventually(lambda: set(redis_server.stream_ids(f"{name}:midst")) >= set(log.expected), 60, "the later ones")
    ids = redis_server.stream_ids(f"{name}:midst")
    assert len(ids) == len(set(ids)), "none twice"


def test_a_cursor_of_an_unknown_file_begins_its_batch_again(log, in_the_midst, cluster):
    """As one of 0.1, which did not know files."""
    db, sender = log.db, log.db.sender("midst")
    assert db.one("SELECT count(*) FROM eventbus.cursor WHERE batch IS NOT NULL AND start_block + end_block > 0") > 0
    db.run("BEGIN; LOCK eventbus.cursor; SELECT pg_terminate_backend(%s)", sender)
    wait_gone(sender, 30, "it leaves")
    db.run("UPDATE eventbus.cursor SET files = NULL; COMMIT")
    eventually(lambda: db.status("midst")["sender_pid"] not in (None, sender), 60, "a new sender")
    in_the_midst()


def test_health_names_what_the_log_was_not_made_for(log):
    def found():
        return [(row["level"], row["detail"], row["hint"]) for row in log.db.health() if row["name"] == "log"][0]
    segment = log.segment()
    assert found()[0] == "ok"
    log.db.run(f"CREATE INDEX by_id ON eventbus.{segment} (id)")
    level, detail, hint = found()
    assert level == "error" and segment in detail and "index" in detail and "Drop the index" in hint
    log.db.run("DROP INDEX eventbus.by_id")
    log.db.run(f"ALTER TABLE eventbus.{segment} SET UNLOGGED")
    level, detail, hint = found()
    assert level == "error" and "unlogged" in detail and "SET LOGGED" in hint
    log.db.run(f"ALTER TABLE eventbus.{segment} SET LOGGED")
    assert found()[0] == "ok"

# What it is: eventbus.wait_for_delivery of all that commits before a place in the WAL.
# Who calls it: pytest.
# Never: asserts how fast a wait ends, but that it ends long before its timeout, and before any poll.
import psycopg2
import pytest

from faults import terminate_sender
from postgres import PLUGINS, knows_setting
from servers import PostgresCluster, eventually

from test_parked_keys import declare_queues, wait_parked_keys
from test_interleavings import stopped
from test_wait import LONG, Waiting
from test_wal import WAL_SETTINGS, publish_wal, text_of
from test_wal_parked_keys import publish, publish_healthy


@pytest.fixture(scope="module")
def cluster():
    """Nobody looks by himself: a sender that is not told of something sleeps for an hour, and so does the WAL writer."""
    with PostgresCluster(config=dict(WAL_SETTINGS, **{"eventbus.safety_poll": "'1h'", "wal_writer_delay": "'10s'",
                                                     "autovacuum": "off"})) as server:
        yield server


def here(db):
    return db.one("SELECT pg_current_wal_insert_lsn()")


def wait(db, lsn=None, timeout=LONG, route=None):
    return db.one("SELECT eventbus.wait_for_delivery(%s::pg_lsn, %s, %s)", lsn or here(db), timeout, route)


@pytest.fixture
def out(db, redis_server, name):
    """A route "out" to a stream; returns what stands there."""
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"stream:{name}", source="wal")
    db.wait_state("out", "active", deadline=60)
    return lambda: [text_of(entry)["topic"] for entry in redis_server.stream(name)]


def test_true_once_all_is_there(db, out):
    db.run("CREATE TABLE item (id int PRIMARY KEY, words text)")
    for n in range(20):
        db.run("INSERT INTO item VALUES (%s)", n)
        publish_wal(db, f"a.{n}", {})
        publish_wal(db, f"b.{n}", {}, function="publish_now")
        lsn = here(db)
        assert wait(db, lsn) is True
        assert out()[-3:] == ["public.item.insert", f"a.{n}", f"b.{n}"]
        assert wait(db, lsn, route="out") is True, "and stays so"
    db.run("INSERT INTO item SELECT g, repeat('x', 300) FROM generate_series(100, 20100) g")
    assert wait(db) is True
    assert len(out()) == 60 + 20001


def test_nothing_that_is_the_routes(db, out, cluster):
    """WAL of others, WAL that nobody has flushed, and none at all: the sender is told to read on."""
    assert wait(db) is True
    for _ in range(3):
        cluster.execute("SELECT pg_current_xact_id() FROM generate_series(1, 10)")
        assert wait(db) is True
    db.run("SET synchronous_commit = off")
    for _ in range(20):
        cluster.execute("SELECT pg_logical_emit_message(false, 'another database', 'x')")
        assert wait(db, timeout="10 s") is True, "long before anybody flushes it"
        db.run("SELECT pg_current_xact_id()")
        assert wait(db, timeout="10 s") is True
    cluster.execute("SELECT pg_switch_wal()")
    assert wait(db) is True


def test_the_wal_ends_with_a_page(db, redis_server, name, told):
    """The next record would begin behind the header of a page that is not there yet: nothing is read up to it."""
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"stream:{name}", source="wal", messages="wanted.*")
    db.wait_state("out", "active", deadline=60)
    place = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"

    def emit(size):
        db.run("SELECT pg_logical_emit_message(false, 'fill', repeat('x', %s))", size)

    def ends_with_a_page():
        before = int(db.one(place))
        emit(400)
        overhead = int(db.one(place)) - before - 400
        room = 8192 - int(db.one(place)) % 8192
        if room < 500:
            return False
        emit(room - overhead)
        return int(db.one(place)) % 8192 in (24, 40)
    for _ in range(3):
        eventually(ends_with_a_page, 60, "the WAL ends with a page")
        assert wait(db) is True
    assert not told("are stalled"), "nor flushed"


def test_whoever_stands_still_is_waited_for(db, out, cluster):
    assert wait(db, route="out") is True
    db.run("SELECT eventbus.pause_route('out')")
    db.wait_state("out", "paused")
    before = here(db)
    publish_wal(db, "t", {})
    assert wait(db, timeout="200 ms") is False
    waiting = [Waiting(db, here(db)).sleeps(db), Waiting(db, here(db), route="out").sleeps(db)]
    db.run("SELECT eventbus.resume_route('out')")
    assert [one.answer() for one in waiting] == [True, True] and out() == ["t"]
    terminate_sender(db)
    assert wait(db) is True and wait(db, before) is True


def test_all_routes_from_the_wal_or_one_of_them(db, redis_server, frozen_redis, name):
    """A broker that does not answer; a route of the log does not count. What was before it has been settled."""
    db.broker("well", redis_server.url)
    db.broker("ill", frozen_redis.url, heartbeat=0)
    db.route("well", "well", f"stream:{name}", source="wal")
    db.route("ill", "ill", f"stream:{name}", source="wal")
    db.route("log", "ill", f"stream:{name}")
    for route in ("well", "ill"):
        db.wait_state(route, "active", deadline=60)
    before = here(db)
    assert wait(db, before) is True
    frozen_redis.freeze()
    publish_wal(db, "t", {})
    db.publish("t", {})
    lsn = here(db)
    assert wait(db, lsn, route="well") is True and wait(db, before) is True
    assert wait(db, lsn, "200 ms", "ill") is False and wait(db, lsn, "200 ms") is False
    with pytest.raises(psycopg2.errors.InvalidParameterValue, match='route "log" is not from the WAL'):
        wait(db, lsn, route="log")
    waiting = Waiting(db, lsn).sleeps(db)
    frozen_redis.thaw()
    assert waiting.answer() is True


def test_a_dead_letter_is_settled(db, out, redis_server, name):
    redis_server.client().set(name, "no stream")
    publish_wal(db, "t", {})
    assert wait(db) is True and len(db.dead("out")) == 1, "which is stored by then"


def test_a_key_on_a_parked_key_is_waited_for(db, rabbit, name, cluster):
    """Beside its route, which is past it, and after a restart, also while the parked key has not been shown its events."""
    declare_queues(rabbit, name)
    db.broker("rabbit", rabbit.url)
    db.route("out", "rabbit", f"exchange:{name}", "rest.#, full.#", source="wal")
    db.wait_state("out", "active", deadline=60)
    before = here(db)
    stuck = publish(db, "full.t", 20, "'stuck'")
    db.wait_error("out", "nack|reject|confirm")
    healthy = publish_healthy(db, 20000)
    lsn = here(db)
    wait_parked_keys(db, 1)
    db.wait_status("out", 60, delivered=len(healthy) + 1)
    assert wait(db, before) is True and wait(db, lsn, "200 ms") is False
    waiting = Waiting(db, lsn).sleeps(db)
    terminate_sender(db)
    assert wait(db, lsn, "0 s") is False and wait(db, lsn, "500 ms") is False
    if knows_setting("output_plugin_libraries"):
        cluster.reload(output_plugin_libraries="'pgoutput'")
        try:
            terminate_sender(db)
            db.wait_state("out", "failing", deadline=60)
            assert wait(db, lsn, "500 ms") is False
        finally:
            cluster.reload(output_plugin_libraries=f"'{PLUGINS}'")
    assert waiting.outcome is None
    with rabbit.listener(f"{name}_full") as heard:
        assert waiting.answer() is True
        eventually(lambda: len(heard.messages) == len(stuck))


def test_a_slot_that_is_being_made(db, redis_server, name):
    """What commits meanwhile is not the route's; but it is not settled before there is a slot."""
    db.broker("redis", redis_server.url)
    open_one = db.connect(autocommit=False)
    open_one.cursor().execute("SELECT pg_current_xact_id()")
    db.route("out", "redis", f"stream:{name}", source="wal")
    db.wait_state("out", "starting", deadline=60)
    publish_wal(db, "t", {})
    lsn = here(db)
    assert wait(db, lsn, "200 ms") is False
    open_one.commit()
    open_one.close()
    assert wait(db, lsn) is True


def test_what_is_lost_is_not_waited_for(db, out):
    before = here(db)
    assert wait(db, before) is True
    db.run("SELECT eventbus.pause_route('out')")
    publish_wal(db, "t", {})
    waiting = Waiting(db, here(db)).sleeps(db)
    slot = db.one("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()")

    def dropped():
        """Whichever decoder has it by now."""
        db.run("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s AND active", slot)
        try:
            db.run("SELECT pg_drop_replication_slot(%s)", slot)
        except psycopg2.errors.ObjectInUse:
            return False
        return True
    eventually(dropped, 60, "the slot is dropped between two senders")
    assert waiting.answer() is False
    db.wait_state("out", "lost")
    assert wait(db) is False


def test_where_no_sender_answers(db, out):
    """What is written down counts, and what is not there is waited for."""
    publish_wal(db, "t", {})
    assert wait(db) is True
    db.wait_status("out", delivered=1)
    eventually(lambda: db.one("SELECT delivered = 1 FROM eventbus.cursor"), 60, "the cursor is written")
    lsn = db.one("SELECT wal_lsn FROM eventbus.cursor")
    with stopped(db.sender("out")):
        publish_wal(db, "t", {})
        assert wait(db, lsn, "0 s") is True and wait(db, timeout="200 ms") is False
    assert wait(db) is True and out() == ["t", "t"]


def test_a_transaction_does_not_wait_for_itself(db, out):
    connection = db.connect(autocommit=False)
    lsn = publish_wal(db, "t", {}, connection=connection)
    cursor = connection.cursor()
    cursor.execute("SELECT eventbus.wait_for_delivery(pg_current_wal_insert_lsn(), %s)", (LONG,))
    assert cursor.fetchone()[0] is True and out() == []
    connection.commit()
    connection.close()
    assert wait(db) is True and wait(db, lsn) is True and out() == ["t"]


def test_without_a_route_and_on_a_standby(db, make_database, cluster):
    assert wait(db) is True
    with PostgresCluster(name="standby", copy_of=cluster, config=WAL_SETTINGS) as standby:
        with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState, match="on a standby"):
            standby.execute("SELECT eventbus.wait_for_delivery('0/1'::pg_lsn)", database=db.name)


def test_cancelled_while_it_waits(db, out):
    db.run("SELECT eventbus.pause_route('out')")
    publish_wal(db, "t", {})
    waiting = Waiting(db, here(db)).sleeps(db)
    db.run("SELECT pg_cancel_backend(%s)", waiting.pid)
    with pytest.raises(psycopg2.errors.QueryCanceled):
        waiting.answer()

# What it is: what a Redis stream holds of events from the WAL: a sender that begins again adds none of them twice, and takes
#   none of another timeline for its own.
# Who calls it: pytest.
# Never: takes for granted that LSNs were used twice.
import json

import pytest

from database import Database
from servers import PostgresCluster, eventually, wait_gone

from test_wal import WAL_SETTINGS, text_of

@pytest.fixture(scope="module")
def cluster():
    with PostgresCluster(config=WAL_SETTINGS) as server:
        yield server


EARLY = 6000  # messages that the old primary sends and the standby does not get
LATE = 4000


def entries_of(redis_server, stream):
    return [text_of(entry) for entry in redis_server.stream(stream)]


@pytest.fixture
def promoted(durable_redis, name):
    """A standby that was cut off before its primary delivered EARLY messages, and promoted when that was gone."""
    config = dict(WAL_SETTINGS, autovacuum="off", checkpoint_timeout="'1h'", wal_keep_size="'256MB'")
    with PostgresCluster(config=config) as primary:
        db = Database(primary, name)
        db.broker("redis", durable_redis.url)
        db.route("out", "redis", f"stream:{name}", "m.#", source="wal")
        db.wait_state("out", "active", deadline=60)
        with PostgresCluster(name="standby", copy_of=primary, config=config) as standby:
            end = primary.execute("SELECT pg_current_wal_flush_lsn()")[0][0]
            eventually(lambda: standby.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", end)[0][0], 60,
                       "it has come along")
            standby.execute("ALTER SYSTEM SET primary_conninfo = ''")
            standby.read_config()
            eventually(lambda: not standby.execute("SELECT 1 FROM pg_stat_wal_receiver"), 60, "it is cut off")
            for n in range(EARLY):
                db.run("SELECT eventbus.publish_wal('m.early', to_jsonb(%s), 'k')", n)
            eventually(lambda: durable_redis.client().xlen(name) == EARLY, 60, "all arrive")
            primary.stop("immediate")
            db.connection.close()
            standby.execute("SELECT pg_promote()")
            db = Database(standby, name, extension=False, create=False)
            db.wait_status("out", 60, state="lost")
            db.run("SELECT eventbus.restart_route('out')")
            db.wait_state("out", "active", deadline=60)
            yield db
            db.connection.close()


def test_a_promoted_standby_uses_lsns_again(promoted, durable_redis, name):
    """Events whose id an event of the old primary has are added all the same, also by a sender that begins again with them."""
    db, early = promoted, {entry["id"] for entry in entries_of(durable_redis, name)}
    durable_redis.freeze()
    try:
        for n in range(LATE):  # of several lengths, so that some commits end where one of the old ones did
            db.run("SELECT eventbus.publish_wal('m.late', jsonb_build_object('n', %s, 'more', repeat(' ', %s)), 'k')",
                   n, n % 5 * 8)
        pid = db.sender("out")
        db.run("SELECT pg_terminate_backend(%s)", pid)
        wait_gone(pid)
    finally:
        durable_redis.thaw()
    db.wait_status("out", 60, delivered=lambda n: n >= LATE, in_flight=0, state="active")
    entries = entries_of(durable_redis, name)
    late = [entry for entry in entries if entry["topic"] == "m.late"]
    assert len({entry["id"] for entry in late} & early) > 10, "LSNs were used twice"
    assert [json.loads(entry["payload"])["n"] for entry in late] == list(range(LATE)), "each once, in order"
    assert len(entries) == EARLY + LATE



def test_messages_of_no_transaction_and_a_sender_that_begins_anew(db, redis_server, make_proxy, name):
    """The WAL has no time for them: each reading gives another one. What has arrived unanswered comes once all the same."""
    proxy = make_proxy(redis_server)
    db.broker("redis", f"redis://127.0.0.1:{proxy.port}")
    db.route("out", "redis", f"stream:{name}", "shop.#", source="wal")
    db.wait_state("out", "active", deadline=60)

    def emit(first, last):
        """Of two that follow each other the content is the same."""
        db.run("SELECT pg_logical_emit_message(false, 'shop.note', (g / 2)::text) FROM generate_series(%s, %s) g", first, last)

    emit(0, 9)
    db.wait_status("out", delivered=10)
    proxy.hold_answers()
    emit(10, 49)
    db.run("SELECT eventbus.publish_now('shop.own', '1'), eventbus.publish_wal('shop.own', '2')")
    client = redis_server.client()
    eventually(lambda: client.xlen(name) == 52, 60, "all are there")
    before = db.status("out")
    assert before["delivered"] == 10, "and nothing is answered"
    db.run("SELECT pg_terminate_backend(%s)", before["sender_pid"])
    wait_gone(before["sender_pid"])
    emit(50, 59)
    proxy.pass_on()
    db.wait_status("out", 60, delivered=62, in_flight=0, state="active")
    entries = entries_of(redis_server, name)
    assert len({entry["id"] for entry in entries}) == len(entries)
    notes = [entry["payload"] for entry in entries if entry["topic"] == "shop.note"]
    assert notes == [str(n // 2) for n in range(60)], "each once, in order"
    assert [entry["payload"] for entry in entries if entry["topic"] == "shop.own"] == ["1", "2"]

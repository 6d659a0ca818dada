# What it is: what leaves the log undelivered is counted once, whatever ends meanwhile: the sender, the keeper, the server.
# Who calls it: pytest; EVENTBUS_SEED repeats a run, EVENTBUS_ENDS makes it longer.
# Never: allows for a difference: what arrived and what was left out are all that was committed.
import os
import signal

import pytest

from overflow import QUIET, Overflow
from servers import eventually, stays
from test_log_limit import SIZE

SEED = int(os.environ.get("EVENTBUS_SEED", "1"))
ENDS = int(os.environ.get("EVENTBUS_ENDS", "5"))
LIMIT = 1024 * 1024

pytestmark = pytest.mark.usefixtures("bounded")


@pytest.fixture
def bounded(setting):
    setting("eventbus.max_log_size", "1MB")
    setting("eventbus.on_log_full", "skip")


def look(db, sql, *arguments):
    """Rows, over a connection of its own; none while the server recovers."""
    try:
        return db.cluster.execute(sql, *arguments, database=db.name)
    except Exception:  # noqa: BLE001  whatever a server that goes down says
        return []


def worker(db, kind, but=None):
    rows = look(db, "SELECT pid FROM pg_stat_activity WHERE backend_type = %s AND datname = %s", f"pg_eventbus {kind}", db.name)
    return next((pid for (pid,) in rows if pid != but), None)


def sender_of(db, route):
    rows = look(db, "SELECT sender_pid FROM eventbus.status WHERE route = %s AND sender_pid IS NOT NULL", route)
    return rows[0][0] if rows else None


def skipped_now(db, route):
    rows = look(db, "SELECT skipped FROM eventbus.status WHERE route = %s", route)
    return rows[0][0] if rows else None


def wait_skipping(db, route):
    before = eventually(lambda: [skipped_now(db, route)], 60)[0] or 0
    eventually(lambda: (skipped_now(db, route) or 0) > before, 60, f"route {route} leaves events out")


def settled(db):
    """Until the log has room and nobody leaves anything out any more."""
    counts = "SELECT route, skipped FROM eventbus.status ORDER BY 1"

    def quiet():
        before = db.run(counts)
        stays(lambda: db.one(SIZE) < 1.3 * LIMIT and before == db.run(counts), 1.5)
        return True
    eventually(quiet, 60, "the log has room, and nothing is left out any more")


def wait_idle(db, *routes):
    for route in routes:
        db.wait_status(route, 60, state="active", in_flight=0, lag=lambda lag: lag.total_seconds() == 0)


def account(db, server, key, route, sent):
    arrived = server.stream_ids(key)
    assert len(arrived) == len(set(arrived)) and set(arrived) <= set(sent)
    skipped = db.status(route)["skipped"]
    assert len(arrived) + skipped == len(sent), f"{len(sent) - len(arrived) - skipped} of {len(sent)} uncounted (seed {SEED})"
    return arrived, skipped


def kill_sender(db, route):
    os.kill(eventually(lambda: sender_of(db, route), 60, "a sender"), signal.SIGKILL)


def end_sender(db, route):
    pid = eventually(lambda: sender_of(db, route), 60, "a sender")
    look(db, "SELECT pg_terminate_backend(%s)", pid)


def end_keeper(db, route):
    pid = eventually(lambda: worker(db, "keeper"), 60, "a keeper")
    look(db, "SELECT pg_terminate_backend(%s)", pid)


def end_server(db, route):
    db.cluster.restart("immediate")


@pytest.mark.parametrize("ends", [[kill_sender], [end_sender, end_keeper], [end_server, kill_sender, end_keeper]],
                         ids=["killed", "terminated", "mixed"])
def test_what_is_left_out_is_counted_once_whatever_ends(db, durable_redis, redis_server, name, ends):
    durable_redis.kill()
    db.broker("away", durable_redis.url)
    db.route("all", "away", f"stream:{name}:all")
    db.route("some", "away", f"stream:{name}:some", "some.*")
    db.broker("there", redis_server.url)
    db.route("beside", "there", f"stream:{name}:beside")
    with Overflow(db, SEED) as overflow:
        for number in range(ENDS):
            wait_skipping(db, "all")
            overflow.pause(0.5)
            ends[number % len(ends)](db, "all")
    sent = overflow.committed()
    settled(db)
    assert db.status("all")["delivered"] == 0
    durable_redis.start()
    wait_idle(db, "all", "some", "beside")
    account(db, durable_redis, f"{name}:all", "all", sent)
    account(db, durable_redis, f"{name}:some", "some", [id for id, topic in sent.items() if topic == "some.t"])
    arrived = redis_server.stream_ids(f"{name}:beside")
    assert len(arrived) == len(set(arrived))
    assert len(set(sent) - set(arrived)) <= db.status("beside")["skipped"]


def test_a_broker_that_comes_and_goes_while_senders_are_killed(db, durable_redis, name):
    """What was under way, or acknowledged just before a crash, may be counted and arrive; nothing does neither."""
    durable_redis.kill()
    db.broker("away", durable_redis.url)
    db.route("out", "away", f"stream:{name}")
    with Overflow(db, SEED) as overflow:
        for number in range(ENDS):
            wait_skipping(db, "out")
            durable_redis.start()
            overflow.pause(1)
            (end_sender if number % 2 else kill_sender)(db, "out")
            durable_redis.kill()
    sent = overflow.committed()
    settled(db)
    durable_redis.start()
    wait_idle(db, "out")
    arrived = durable_redis.stream_ids(name)
    assert len(arrived) == len(set(arrived)) and set(arrived) <= set(sent)
    assert len(sent) - len(arrived) <= db.status("out")["skipped"], f"uncounted events (seed {SEED})"

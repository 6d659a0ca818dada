# What it is: a sender that is killed over and over at 2 000 events a second: its stream has each event once.
# Who calls it: pytest.
# Never: is content with at least once.
import signal

from kills import kill_senders


def check(counted):
    assert counted["events"] > 1000 and counted["repeated"] > 0, f"the control: something was sent again: {counted}"
    wrong = {name: counted[name] for name in ("lost", "invented", "duplicates", "disordered") if counted[name]}
    assert not wrong, counted


def test_killed_senders_leave_each_event_once_in_the_stream(db, durable_redis, name):
    """kill -9, after which PostgreSQL restarts all its processes."""
    check(kill_senders(db, durable_redis, name, 50))


def test_terminated_senders_leave_each_event_once_in_the_stream(db, durable_redis, name):
    """They leave in order; the list has repetitions only of what was unacknowledged just then."""
    counted = kill_senders(db, durable_redis, name, 3, by=signal.SIGTERM)
    check({**counted, "repeated": 1})

# What it is: RabbitMQ lets nobody in, or asks for a pause: what status, health and the log say, and who continues.
# Who calls it: pytest.
# Never: leaves an alarm, a user or a virtual host behind.
import json
import time

import pytest

from servers import Steady, eventually


@pytest.fixture
def in_redis(db, redis_server, name):
    """A second broker, which has to continue; returns what it has got."""
    db.broker("redis", redis_server.url)
    db.route("elsewhere", "redis", f"stream:{name}", "steady")
    return lambda: [entry["payload"] for entry in redis_server.stream(name)]


@pytest.fixture
def second_route(db, rabbit, name):
    """A route on the broker "rabbit" that has to continue; returns what its queue has got."""
    rabbit.declare(f"{name}_second")
    db.broker("rabbit", rabbit.url)
    db.route("second", "rabbit", f"queue:{name}_second", "steady")
    with rabbit.listener(f"{name}_second") as heard:
        yield heard.bodies


# Nobody is let in


@pytest.fixture
def entrances(rabbit, certificates, name):
    """Ways to be refused: broker -> (URL, options, what it says, how it is fixed: an action, or a URL)."""
    users = [f"{name}_1", f"{name}_2"]
    for user in users:
        rabbit.control("add_user", user, "s3cret")
        rabbit.control("set_permissions", user, ".*", ".*", ".*")
    expired = rabbit.listen_with(certificates.expired_cert, certificates.expired_key)
    elsewhere = rabbit.listen_with(certificates.elsewhere_cert, certificates.elsewhere_key)
    trusted = {"ca_file": certificates.ca}
    fixed = f"amqps://guest:guest@localhost:{rabbit.tls_port}"
    not_accepted = "the server's certificate is not accepted: "

    def make_vhost():
        rabbit.control("add_vhost", name)
        rabbit.control("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
        rabbit.declare(name, vhost=name)
    yield {
        "password": (f"amqp://{users[0]}:wr0ng@127.0.0.1:{rabbit.port}", {},
                     "403 ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see "
                     "the broker logfile.", lambda: rabbit.control("change_password", users[0], "wr0ng")),
        "vhost": (f"{rabbit.url}/{name}", {}, f"530 NOT_ALLOWED - vhost {name} not found", make_vhost),
        "rights": (f"amqp://{users[1]}:s3cret@127.0.0.1:{rabbit.port}/second", {},
                   f"530 NOT_ALLOWED - access to vhost 'second' refused for user '{users[1]}'",
                   lambda: rabbit.control("set_permissions", "-p", "second", users[1], ".*", ".*", ".*")),
        "authority": (fixed, {"ca_file": certificates.other_ca}, not_accepted, fixed),
        "expired": (f"amqps://guest:guest@localhost:{expired}", trusted,
                    not_accepted + "certificate has expired", fixed),
        "name": (f"amqps://guest:guest@localhost:{elsewhere}", trusted, not_accepted + "hostname mismatch", fixed),
        "address": (f"amqps://guest:guest@127.0.0.1:{elsewhere}", trusted,
                    not_accepted + "IP address mismatch", fixed),
    }
    for user in users:
        rabbit.control("delete_user", user)
    rabbit.control("delete_vhost", name)


def test_who_is_not_let_in_is_held_and_delays_no_other(db, rabbit, certificates, name, entrances, in_redis,
                                                       second_route, told):
    """All of them at once: each says what the broker said, once, and resumes by itself when it is let in."""
    rabbit.declare(name)
    rabbit.declare(name, vhost="second")
    with Steady(db) as steady:
        steady.watch("second route", second_route)
        steady.watch("second broker", in_redis)
        before = steady.before()
        for broker, (url, options, _, _) in entrances.items():
            db.broker(broker, url, **options)
            db.route(broker, broker, f"queue:{name}", "sick")
        db.publish("sick", 1)
        for broker, (_, _, words, _) in entrances.items():
            row = db.wait_state(broker, "held")
            assert row["last_error"].startswith(words) and (row["delivered"], row["dead"]) == (0, 0)
        steady.goes_on(before)
    levels = {check["name"]: (check["level"], check["detail"]) for check in db.health()}
    for broker, (_, _, words, fix) in entrances.items():
        assert levels[f"route {broker}"][0] == "error" and "held" in levels[f"route {broker}"][1]
        [line] = told(f'broker "{broker}"')
        assert line.startswith("WARNING") and words in line and "next attempt in" in line and "wr0ng" not in line
        if callable(fix):
            fix()
        else:
            db.run("SELECT eventbus.alter_broker(%s, %s, %s::jsonb)", broker, fix,
                   json.dumps({"ca_file": certificates.ca}))
    for broker, (_, _, _, fix) in entrances.items():
        db.wait_status(broker, 60, state="active", delivered=1)
        if callable(fix):
            *_, line = told(f'broker "{broker}"')  # half fixed, it may have said something else before
            assert line.startswith("LOG") and "is back after" in line
    assert db.health() and not [check for check in db.health() if check["level"] == "error"]
    steady.check(in_redis, duplicates=False)
    steady.check(second_route, duplicates=False)


def test_client_certificate_instead_of_a_password(db, rabbit, certificates, name):
    """SASL EXTERNAL: the user is the certificate's common name."""
    rabbit.declare(name)
    rabbit.control("add_user", "eventbus", "not used")
    try:
        rabbit.control("set_permissions", "eventbus", ".*", ".*", ".*")
        db.broker("rabbit", f"amqps://localhost:{rabbit.tls_port}", ca_file=certificates.ca,
                  cert_file=certificates.client_cert, key_file=certificates.client_key)
        db.route("out", "rabbit", f"queue:{name}")
        event = db.publish("t", 1)
        assert [properties.message_id for properties, _, _ in rabbit.take(name, 1)] == [str(event)]
        assert "eventbus" in rabbit.control("list_connections", "user").split()
    finally:
        rabbit.control("delete_user", "eventbus")


# The broker asks for a pause


def test_memory_and_disk_alarm_block_only_their_broker(db, rabbit, name, in_redis, told):
    """connection.blocked: RabbitMQ reads no more, for longer than two heartbeats."""
    rabbit.declare(name)
    db.broker("rabbit", rabbit.url + "?heartbeat=1")
    db.route("out", "rabbit", f"queue:{name}")
    with rabbit.listener(name) as heard, Steady(db) as steady:
        steady.watch("second broker", in_redis)
        before = steady.before()
        eventually(lambda: heard.messages)
        for alarm, words in ((rabbit.memory_alarm, "low on memory"), (rabbit.disk_alarm, "low on disk")):
            with alarm():
                row = db.wait_state("out", "blocked")
                assert row["last_error"] == words
                assert [(check["level"], words in check["detail"]) for check in db.health()
                        if check["name"] == "route out"] == [("warning", True)]
                steady.goes_on(before)
                assert db.status("out")["state"] == "blocked"
            db.wait_state("out", "active")
        steady.stop()
        steady.check(heard.bodies, duplicates=False)
        steady.check(in_redis, duplicates=False)
    lines = told('broker "rabbit"')
    assert len(lines) == 4, lines
    for line, level, words in zip(lines, ("WARNING", "LOG") * 2,
                                  ("takes no messages for now: low on memory", "takes messages again after",
                                   "takes no messages for now: low on disk", "takes messages again after")):
        assert line.startswith(level) and words in line


def test_blocked_sender_obeys_sigterm_and_loses_nothing(db, rabbit, name):
    """More is waiting than the sockets take."""
    rabbit.declare(name)
    db.broker("rabbit", rabbit.url)
    db.route("out", "rabbit", f"queue:{name}")
    db.publish("t", "first")
    db.wait_status("out", delivered=1)
    with rabbit.memory_alarm():
        db.run("SELECT eventbus.publish_text('t', repeat('x', 20000)) FROM generate_series(1, 2000)")
        db.wait_state("out", "blocked")
        sender = db.sender("out")
        begun = time.monotonic()
        db.run("SELECT pg_terminate_backend(%s)", sender)
        eventually(lambda: sender not in db.workers(), 10, "a blocked sender obeys SIGTERM")
        assert time.monotonic() - begun < 10
    with rabbit.listener(name) as heard:
        eventually(lambda: len({properties.message_id for _, properties, _ in list(heard.messages)}) == 2001, 60)
        db.wait_status("out", state="active", in_flight=0, dead=0)

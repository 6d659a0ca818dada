# What it is: every way in which a Redis can fail, and what is delivered beside it: other keys, a second route, a second broker.
# Who calls it: pytest.
# Never: accepts a lost event or a duplicate in a stream, or a line of log for every attempt.
import re
from contextlib import ExitStack

import pytest

from proxy import Proxy
from servers import eventually, free_port
from steady import Steady

WINDOW = 1.5
USERS = ["default on nopass ~* &* +@all", "app on >s3cret-of-app ~* &* +@all"]


class Entries:
    """Payloads of a stream in its order, read on from where it was read before."""

    def __init__(self, server, key):
        self.client, self.key, self.last, self.bodies = server.client(), key, "-", []

    def __call__(self):
        for entry, fields in self.client.xrange(self.key, self.last, "+"):
            self.last = f"({entry.decode()}"
            self.bodies.append(fields[b"payload"])
        return self.bodies


class Heard:
    """What was published on a channel since this was made."""

    def __init__(self, server, channel):
        self.pubsub, self.bodies = server.client().pubsub(), []
        self.pubsub.subscribe(channel)
        eventually(lambda: self.pubsub.get_message(timeout=1), why="the subscription stands")

    def __call__(self):
        while message := self.pubsub.get_message():
            self.bodies.append(message["data"])
        return self.bodies


@pytest.fixture
def second_broker(db, redis_server, name):
    """Another broker, in good health, that gets everything, too."""
    db.broker("healthy", redis_server.url)
    db.route("healthy", "healthy", f"stream:{name}:healthy", "steady.#")
    return Entries(redis_server, f"{name}:healthy")


@pytest.fixture
def make_steady(db, second_broker):
    """make_steady() publishes, and watches the second broker."""
    def make(**more):
        steady = Steady(db, rate=200, window=WINDOW, **more)
        steady.watch("second broker", second_broker)
        return steady

    return make


def check_told_once(lines):
    """Until the broker is back, each reason is told once, however many attempts fail for it."""
    assert lines
    reasons = []
    for line in lines:
        if "is back after" in line:
            reasons.clear()
        else:
            reason = re.search(r"\): (.*); next attempt in", line)[1]
            assert reason not in reasons, lines
            reasons.append(reason)


def attempts(server):
    return server.client().info("stats")["total_connections_received"]


def wait_trouble(db, route, pattern):
    db.wait_status(route, state="retrying", last_error=lambda text: text and re.search(pattern, text))


def everything(entries):
    """The payloads of several streams."""
    return lambda: [body for one in entries for body in one()]


# One key, one route


def test_permission_taken_away_holds_the_route_and_given_back_heals_it(db, servers, make_steady, said):
    server = servers({"user": [*USERS, "pattern on >pw ~* &* +@all", "command on >pw ~* &* +@all"]})
    rules = {"pattern": ("resetkeys ~fine:*", "~*"), "command": ("-xadd", "+xadd")}
    steady, arrived = make_steady(), {}
    for user in rules:
        db.broker(user, server.url.replace("://", f"://{user}:pw@"))
        db.route(f"{user}-held", user, f"stream:held:{user}")
        db.route(f"{user}-fine", user, f"channel:fine:{user}")
        arrived[user] = Entries(server, f"held:{user}")
        steady.watch(f"second route of {user}", Heard(server, f"fine:{user}"))
    with steady:
        before = steady.before()
        for user, (take, _) in rules.items():
            eventually(arrived[user], why="events arrive while they may")
            server.client().execute_command(f"ACL SETUSER {user} {take}")
        for user in rules:
            row = db.wait_state(f"{user}-held", "held")
            assert row["last_error"].startswith("NOPERM") and row["dead"] == 0
        steady.goes_on(before)
        for user, (_, give) in rules.items():
            db.wait_state(f"{user}-held", "held")
            server.client().execute_command(f"ACL SETUSER {user} {give}")
        for user in rules:
            db.wait_state(f"{user}-held", "active")
    for user in rules:
        steady.check(arrived[user], duplicates=False)
        held, healed = said(f"{user}-held")
        assert "is held: NOPERM" in held and "delivers again" in healed
        db.wait_status(f"{user}-held", dead=0)


@pytest.mark.parametrize("words, fault, fixed", [
    ("OOM", "CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
    ("READONLY", "REPLICAOF 127.0.0.1 {port}", "REPLICAOF NO ONE"),
])
def test_server_that_takes_no_writes_gets_them_later(db, servers, make_steady, said, words, fault, fixed):
    """Publishing to channels is no write: that route continues."""
    server = servers({"maxmemory-policy": "noeviction"})
    db.broker("sick", server.url)
    db.route("stream", "sick", "stream:s")
    db.route("channel", "sick", "channel:c")
    arrived = Entries(server, "s")
    with make_steady() as steady:
        steady.watch("second route", Heard(server, "c"))
        before = steady.before()
        server.client().execute_command(fault.format(port=free_port()))
        row = db.wait_status("stream", retries=lambda n: n > 0, dead=0)
        assert row["last_error"].startswith(words)
        steady.goes_on(before)
        server.client().execute_command(fixed)
    steady.check(arrived, duplicates=False)
    db.wait_status("stream", state="active", dead=0, in_flight=0)

    def told():  # what is refused for more than 3 s is delivered beside the route; that it does and that it is over is told
        begun_and_over = ["are refused for", "has nothing beside it any more"]
        lines = [re.search("|".join(begun_and_over) + "|$", line)[0] for line in said("stream")]
        return lines == begun_and_over * (len(lines) // 2)
    eventually(told, why="no line for every attempt")
    assert not said("sick")


def test_key_of_the_wrong_type_costs_its_own_events_alone(db, servers, make_steady, said):
    server = servers()
    server.client().set("s:bad", "a string, no stream")
    db.broker("sick", server.url)
    db.route("by-key", "sick", "stream:s:{key}")
    with make_steady(sick=["bad"]) as steady:
        healthy = everything([Entries(server, f"s:{key}") for key in steady.healthy])
        steady.watch("other keys", healthy)
        eventually(lambda: db.dead("by-key"), why="the fault is there")
        before = steady.before()
        steady.goes_on(before)
    steady.check(healthy, but=["bad"], duplicates=False)
    lost = db.wait_dead("by-key", steady.published["bad"])
    assert all(letter["key"] == "bad" and letter["error"].startswith("WRONGTYPE") for letter in lost)
    db.wait_status("by-key", state="active", dead=len(lost))
    assert len(said("by-key")) == 1
    server.client().delete("s:bad")
    assert db.one("SELECT eventbus.redeliver('by-key')") == len(lost)
    eventually(lambda: sorted(server.stream_ids("s:bad")) == [letter["event_id"] for letter in lost],
               why="what was sent again is there")
    db.wait_dead("by-key", 0)


def test_payload_too_large_for_the_server_is_a_dead_letter(db, servers, make_steady, said):
    """The server ends the connection over it; everything else continues, each event once."""
    server = servers({"proto-max-bulk-len": "1mb"})
    db.broker("sick", server.url)
    db.route("stream", "sick", "stream:s", "steady.#, large")
    db.route("second", "sick", "stream:second", "steady.#")
    arrived = Entries(server, "s")
    with make_steady() as steady:
        steady.watch("same route", arrived)
        steady.watch("second route", Entries(server, "second"))
        before = steady.before()
        large = db.one("SELECT eventbus.publish_text('large', repeat('x', 3 * 1024 * 1024), 'k0')")
        [letter] = db.wait_dead("stream")
        assert letter["event_id"] == large and "invalid bulk length" in letter["error"]
        steady.goes_on(before)
    steady.check(arrived, duplicates=False)
    db.wait_status("stream", state="active", dead=1)
    assert len(said("stream")) == 1
    check_told_once(said("sick"))


# The broker, before it lets anybody in


def test_brokers_that_let_nobody_in(db, servers, certificates, make_steady, said):
    """All at once; each resumes by itself when its server is fixed, or with alter_broker when it was our mistake."""
    def tls(kind):
        made = servers(certificates=certificates)
        made.client().config_set("tls-cert-file", getattr(certificates, f"{kind}_cert"),
                                 "tls-key-file", getattr(certificates, f"{kind}_key"))
        return made

    def give_certificate(server):
        server.client().config_set("tls-cert-file", certificates.server_cert, "tls-key-file", certificates.server_key)

    trusted, alter = {"ca_file": certificates.ca}, "SELECT eventbus.alter_broker(%s, %s, %s::jsonb)"
    known, expired, elsewhere = tls("server"), tls("expired"), tls("elsewhere")
    strict = servers()
    porter = strict.client(single_connection_client=True)
    porter.config_set("requirepass", "s3cret")
    wrong = servers({"user": USERS})
    full = servers()
    occupant = full.client(single_connection_client=True)
    occupant.config_set("maxclients", 1)
    loading = servers({"save": "3600 1000000", "key-load-delay": 0, "loading-process-events-interval-bytes": 1024})
    loading.client().mset({f"key{n}": n for n in range(20000)})
    loading.client().save()
    loading.stop()
    with open(loading.config_path, "a") as config:
        config.write("key-load-delay 1000\n")
    loading.start(wait=False)
    orphan = servers({"replica-serve-stale-data": "no"})
    orphan.client().execute_command(f"REPLICAOF 127.0.0.1 {free_port()}")

    def secure(server):
        return f"rediss://127.0.0.1:{server.tls_port}"

    cases = {  # name: server, URL, options, states, last_error, how it is fixed
        "password": (wrong, wrong.url.replace("://", "://app:wr0ng@"), {}, "held", "^WRONGPASS",
                     lambda: db.run(alter, "password", wrong.url.replace("://", "://app:s3cret-of-app@"), None)),
        "nobody": (strict, strict.url, {}, "held", "^NOAUTH",
                   lambda: porter.config_set("requirepass", "")),
        "authority": (known, secure(known), {"ca_file": certificates.other_ca}, "held", "certificate",
                      lambda: db.run(alter, "authority", None, f'{{"ca_file": "{certificates.ca}"}}')),
        "expired": (expired, secure(expired), trusted, "held", "expired", lambda: give_certificate(expired)),
        "elsewhere": (elsewhere, secure(elsewhere), trusted, "held", "mismatch|name|address",
                      lambda: give_certificate(elsewhere)),
        "full": (full, full.url, {}, "retrying", "max number of clients",
                 lambda: occupant.config_set("maxclients", 100)),
        "loading": (loading, loading.url, {}, "retrying", "^LOADING",
                    lambda: loading.client().config_set("key-load-delay", 0)),
        "orphan": (orphan, orphan.url, {}, "retrying", "^MASTERDOWN",
                   lambda: orphan.client().execute_command("REPLICAOF NO ONE")),
    }
    for name, (server, url, options, *_) in cases.items():
        db.broker(name, url, **options)
        db.route(name, name, "stream:s")
    with make_steady() as steady:
        before = steady.before()
        for name, (_, _, _, state, error, _) in cases.items():
            row = db.wait_state(name, state)
            assert re.search(error, row["last_error"]) and "wr0ng" not in row["last_error"], (name, row["last_error"])
        steady.goes_on(before)
        for name in ("password", "authority", "expired"):
            eventually(lambda server=cases[name][0]: attempts(server) >= 4, 60, f"{name} is tried several times")
        for name, (*_, fix) in cases.items():
            check_told_once(said(name))
            assert "is back" not in said(name)[-1]
            fix()
        for name in cases:
            db.wait_state(name, "active")
    for name, (server, *_) in cases.items():
        steady.check(Entries(server, "s"), duplicates=False)
        if name not in ("password", "authority"):  # what is altered gets a sender that knows of no trouble
            assert "is back" in said(name)[-1], said(name)
        db.wait_status(name, dead=0)


# The broker, while it serves


def test_connection_killed_server_frozen_server_restarted(db, durable_redis, make_steady, said):
    server = durable_redis
    db.broker("sick", server.url, heartbeat=2, connect_timeout=2)
    db.route("out", "sick", "stream:s")
    with make_steady() as steady:
        before = steady.before()
        eventually(lambda: server.client().xlen("s"))
        for _ in range(3):
            assert server.client().execute_command("CLIENT KILL TYPE normal SKIPME yes") >= 1
            db.wait_error("out", "closed the connection|reset by peer")
            length = server.client().xlen("s")
            eventually(lambda: server.client().xlen("s") > length + 20, why="events continue behind the cut")
        server.freeze()
        try:
            wait_trouble(db, "out", "no (reply|answer)")
            steady.goes_on(before)
        finally:
            server.thaw()
        db.wait_state("out", "active")
        server.kill()
        wait_trouble(db, "out", "refused")
        steady.goes_on(before)
        server.start()
        db.wait_state("out", "active")
    steady.check(Entries(server, "s"), duplicates=False)
    check_told_once(said("sick"))


def test_sender_follows_the_primary_among_several_hosts(db, servers, make_steady, said):
    one, two = servers({"repl-diskless-sync-delay": 0}), servers()
    two.client().execute_command(f"REPLICAOF 127.0.0.1 {one.port}")
    eventually(lambda: two.client().info("replication")["master_link_status"] == "up")
    db.broker("pair", f"redis://127.0.0.1:{two.port},127.0.0.1:{one.port}")
    db.route("out", "pair", "stream:s")
    with make_steady() as steady:
        before = steady.before()
        db.wait_state("out", "active")
        one.client().execute_command(f"FAILOVER TO 127.0.0.1 {two.port}")
        eventually(lambda: two.client().info("replication")["role"] == "master")
        length = two.client().xlen("s")
        eventually(lambda: two.client().xlen("s") > length + 20, why="events arrive at the new primary")
        steady.goes_on(before)
    steady.check(Entries(two, "s"), duplicates=False)
    check_told_once(said("pair"))
    assert any("is a replica" in line for line in said("pair"))


# The network between


def test_network_that_refuses_swallows_delays_dribbles_and_cuts(db, servers, make_steady, said):
    """Five ways at once, each with a proxy, a broker and a stream of its own on one server."""
    server = servers()
    ways = ("refuse", "black_hole", "delay", "dribble", "cut")
    with ExitStack() as stack:
        proxies = {way: stack.enter_context(Proxy(server.port)) for way in ways}
        for way, proxy in proxies.items():
            options = {"heartbeat": 1, "connect_timeout": 1} if way == "black_hole" else {}
            db.broker(way, f"redis://127.0.0.1:{proxy.port}", **options)
            db.route(way, way, f"stream:{way}")
        steady = stack.enter_context(make_steady())
        before = steady.before()
        for way in ways:
            eventually(lambda way=way: server.client().xlen(way) > 0)
        proxies["refuse"].refuse()
        proxies["black_hole"].black_hole()
        proxies["delay"].delay(2)
        proxies["dribble"].dribble()
        proxies["cut"].hold_answers()
        wait_trouble(db, "refuse", "refused")
        wait_trouble(db, "black_hole", "no (reply|answer)")
        eventually(lambda: proxies["black_hole"].swallowed > 0)
        db.wait_status("cut", state="active", in_flight=lambda n: n > 0)
        steady.goes_on(before)
        eventually(lambda: db.status("delay")["lag"].total_seconds() > 2, why="the delay is there")
        slow = server.client().xlen("delay")
        eventually(lambda: server.client().xlen("delay") > slow, why="events arrive late, and arrive")
        assert db.status("dribble")["in_flight"] > 0 and db.status("dribble")["state"] == "active"
        unacknowledged = proxies["cut"].held
        assert unacknowledged > 0
        proxies["cut"].cut()
        for way in ways[:-1]:
            proxies[way].pass_on()
        for way in ways:
            db.wait_state(way, "active")
        for _ in range(3):
            proxies["cut"].hold_answers()
            eventually(lambda: proxies["cut"].held > 0)
            proxies["cut"].cut()
        proxies["delay"].cut()
        proxies["dribble"].cut_after_bytes(1000)
        steady.publish_more(200)
        steady.stop()
        for way in ways:
            steady.check(Entries(server, way), duplicates=False)
        for way in ways:
            check_told_once(said(way))

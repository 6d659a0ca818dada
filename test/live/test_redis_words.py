# What it is: what Redis, or something that stands before it, says, and whose trouble that is.
# Who calls it: pytest.
# Never: takes a proxy's words for a refusal for good, or one forbidden name for the route's trouble.
import time

import pytest

from processes import Process
from servers import eventually, free_port, stays
from talking_proxy import TalkingProxy
from test_encodings import encoded  # noqa: F401

USERS = {"user": ["default on nopass ~* &* +@all", "names on >pw ~open* &open* +@all",
                  "nothing on >pw resetkeys resetchannels +@all", "commands on >pw ~* &* +@all -xadd"]}


@pytest.fixture
def proxy(redis_server):
    with TalkingProxy(redis_server.port) as proxy:
        yield proxy


def url_of(server, user):
    return server.url.replace("://", f"://{user}:pw@")


def publish(db, topic, count, keys):
    db.run("SELECT count(eventbus.publish(%s, to_jsonb(g), 'key ' || g %% %s)) FROM generate_series(1, %s) g",
           topic, keys, count)


@pytest.mark.parametrize("kind", ["stream", "list", "channel"])
def test_a_forbidden_name_in_front_of_allowed_ones(db, servers, name, kind, said):
    """Redis lets this user write some keys only: 45 events pass the forbidden one, which is a dead letter in the end."""
    server = servers(USERS)
    db.broker("sick", url_of(server, "names"))
    db.route("out", "sick", f"{kind}:{{topic}}", "#", max_attempts=4)
    db.run("BEGIN")
    secret = db.publish("secret", {"n": 1}, "k")
    publish(db, "open", 45, 9)
    db.run("COMMIT")
    row = db.wait_status("out", delivered=45, state="active")
    assert "NOPERM" in row["last_error"] and f"event {secret} to {kind} \"secret\"" in row["last_error"], row
    assert row["dead"] == 0 or row["retries"] > 0

    def flows():
        publish(db, "open", 1, 1)
        return db.status("out")["dead"] == 1
    eventually(flows, 60, "the forbidden event is given up while others flow")
    [letter] = db.dead("out")
    assert letter["event_id"] == secret and "NOPERM" in letter["error"] and letter["attempts"] >= 4
    assert not any("is held" in line for line in said("out"))


def test_where_every_name_is_forbidden_the_route_is_held(db, servers, said):
    server = servers(USERS)
    db.broker("sick", url_of(server, "nothing"))
    db.route("out", "sick", "stream:{topic}", "#", max_attempts=1)
    publish(db, "a", 20, 5)
    row = db.wait_state("out", "held")
    assert row["dead"] == 0 and row["last_error"].startswith("NOPERM")
    stays(lambda: db.status("out")["dead"] == 0, 5, "nothing is given up")
    server.client().execute_command("ACL SETUSER nothing allkeys")
    db.wait_status("out", 60, delivered=20, state="active", dead=0)
    assert [entry["payload"] for entry in server.stream("a")] and len(server.stream("a")) == 20
    held, healed = said("out")
    assert "is held: NOPERM" in held and "delivers again" in healed


def test_changed_topics_free_a_route_that_is_held(db, servers):
    server = servers(USERS)
    db.broker("sick", url_of(server, "names"))
    db.route("out", "sick", "stream:{topic}")
    db.publish("secret", 1, "k")
    db.wait_state("out", "held")
    db.run("SELECT eventbus.alter_route('out', topics => 'open.#')")
    db.wait_status("out", state="active", lag=lambda lag: not lag, dead=0)
    db.publish("open", 2, "k")
    db.wait_status("out", delivered=1)


def test_max_age_frees_a_route_that_is_held(db, servers):
    server = servers(USERS)
    db.broker("sick", url_of(server, "commands"))
    db.route("out", "sick", "stream:s", "#", max_age="3 s")
    event = db.publish("t", 1)
    row = db.wait_state("out", "held")
    assert "xadd" in row["last_error"].lower()
    [letter] = db.wait_dead("out")
    assert letter["event_id"] == event and letter["error"].startswith("max_age") and "NOPERM" in letter["error"]
    db.wait_state("out", "active")


@pytest.mark.parametrize("words", ["ERR Connection refused", "ERR no upstream host", "upstream failure"])
def test_a_proxy_whose_server_is_away_makes_no_dead_letters(db, redis_server, proxy, name, words, said):
    db.broker("sick", proxy.url)
    db.route("out", "sick", f"stream:{name}", "#", max_attempts=3)
    publish(db, "t", 50, 10)
    db.wait_status("out", delivered=50)
    proxy.say(words)
    publish(db, "t", 200, 10)
    row = db.wait_state("out", "retrying")
    assert words in row["last_error"] and row["dead"] == 0
    stays(lambda: db.status("out")["dead"] == 0, 8, "nothing is given up")
    assert proxy.said < 2000, "one at a time"
    publish(db, "t", 50, 10)
    proxy.pass_on()
    db.wait_status("out", 30, delivered=300, dead=0, state="active")
    entries = redis_server.stream(name)
    assert len(entries) == 300
    by_key = {}
    for entry in entries:
        by_key.setdefault(entry["key"], []).append(int(entry["id"]))
    assert all(ids == sorted(ids) for ids in by_key.values())
    assert len(said("out")) == 2, said("out")


@pytest.mark.parametrize("kind, command, answer, words", [
    ("stream", b"XADD", ":1", "answered XADD with an integer, not with the id of an entry"),
    ("stream", b"XADD", "+OK", "answered XADD with a status, not with the id of an entry"),
    ("stream", b"XADD", "$-1", "answered XADD with nothing, not with the id of an entry"),
    ("list", b"RPUSH", ":0", "answered RPUSH with an integer, not with the length of the list")])
def test_an_answer_that_is_not_the_commands_delivers_nothing(db, redis_server, proxy, name, kind, command, answer, words):
    db.broker("sick", proxy.url)
    db.route("out", "sick", f"{kind}:{name}", "#", max_attempts=3)
    proxy.say(answer, about=command)
    publish(db, "t", 60, 10)
    row = db.wait_status("out", state="retrying", last_error=lambda text: text and words in text)
    assert (row["delivered"], row["dead"]) == (0, 0) and proxy.said < 200
    proxy.pass_on()
    db.wait_status("out", 30, delivered=60, dead=0, state="active")
    count = redis_server.client().xlen if kind == "stream" else redis_server.client().llen
    assert count(name) == 60


def test_a_proxy_that_does_not_know_the_command_holds_the_route(db, redis_server, proxy, name, said):
    db.broker("sick", proxy.url)
    db.route("out", "sick", f"stream:{name}", "#", max_attempts=1)
    db.route("list", "sick", f"list:{name}-list")
    proxy.say("ERR unknown command 'XADD', with args beginning with: 'payload-secret'", about=b"XADD")
    publish(db, "t", 20, 5)
    row = db.wait_state("out", "held")
    assert "ERR unknown command 'XADD'" in row["last_error"] and "payload-secret" not in row["last_error"]
    db.wait_status("list", delivered=20, state="active")
    proxy.pass_on()
    db.wait_status("out", 60, delivered=20, dead=0, state="active")
    assert len(redis_server.stream(name)) == 20
    held, healed = said("out")
    assert "is held: ERR unknown command 'XADD'" in held and "delivers again" in healed


def test_a_strange_answer_to_one_event_waits_while_others_go_on(db, redis_server, proxy, name):
    db.broker("sick", proxy.url)
    db.route("out", "sick", f"list:{name}")
    proxy.say("ERR what is this", about=b"poison")
    poison = db.publish("t", "poison", "k")
    db.wait_status("out", retries=lambda n: n > 0)  # what is under way together may overtake
    behind = db.publish("t", "behind", "k")
    publish(db, "t", 100, 10)
    row = db.wait_status("out", delivered=100, state="active", dead=0)
    assert "ERR what is this" in row["last_error"] and f"event {poison} " in row["last_error"]
    proxy.pass_on()
    db.wait_status("out", 60, delivered=102, dead=0)
    bodies = redis_server.client().lrange(name, 0, -1)
    assert bodies.index(b'"poison"') < bodies.index(b'"behind"') and behind > poison


def test_a_strange_answer_to_one_event_alone_is_a_dead_letter_after_a_minute(db, proxy, name):
    db.broker("sick", proxy.url)
    db.route("out", "sick", f"list:{name}")
    proxy.say("ERR what is this", about=b"poison")
    began = time.monotonic()
    poison = db.publish("t", "poison", "k")

    def flows():
        publish(db, "t", 1, 1)
        return db.status("out")["dead"] == 1
    eventually(flows, 180, "it is given up while others flow")
    assert time.monotonic() - began >= 60
    [letter] = db.dead("out")
    assert letter["event_id"] == poison and letter["error"] == "ERR what is this" and letter["attempts"] >= 5


@pytest.mark.parametrize("encoding, words", [("UTF8", "ä日🐢"), ("SQL_ASCII", "ä日🐢"), ("WIN1252", "ä??"), ("EUC_JP", "ä日?")])
def test_a_dead_letter_has_any_words(encoded, proxy, name, encoding, words):  # noqa: F811
    """A NUL, what is no UTF-8, what the database has no character for, and more than is shown."""
    db = encoded(encoding)
    db.broker("sick", proxy.url)
    db.route("out", "sick", f"stream:{name}")
    db.wait_state("out", "active")
    proxy.say("WRONGTYPE \0 \x01 \x7f \udcff\udcc3( ä日🐢 " + "🐢" * 1000, about=b"XADD")
    db.publish("t", 1, "k", {"h": 1})
    letter, = db.wait_dead("out")
    assert letter["error"].startswith(f"WRONGTYPE ? ? ? ??( {words} ") and len(letter["error"]) <= 300
    assert (letter["payload"], letter["headers"], letter["incomplete"]) == ("1", {"h": 1}, False)


def test_arguments_that_redis_repeats_are_not_shown(db, servers, cluster):
    server = servers({"rename-command": "RPUSH HIDDEN"})
    db.broker("sick", server.url)
    db.route("out", "sick", "list:l")
    db.publish("t", "the secret of it", "k")
    row = db.wait_state("out", "held")
    assert "unknown command" in row["last_error"].lower() and "secret of it" not in row["last_error"]
    assert "is not supported" in row["last_error"] and row["dead"] == 0


def test_idle_connections_that_redis_closes_are_no_trouble(db, servers, said):
    server = servers({"timeout": 1})
    db.broker("sick", server.url)
    db.route("out", "sick", "list:l")
    for n in range(4):
        db.publish("t", n, "k")
        db.wait_status("out", delivered=n + 1, state="active")
        before = server.client().info("stats")["total_connections_received"]
        stays(lambda: db.status("out")["state"] == "active", 3, "an idle close is no trouble")
        assert server.client().info("stats")["total_connections_received"] > before
    assert server.client().lrange("l", 0, -1) == [b"0", b"1", b"2", b"3"]
    assert said("sick") == []


def test_a_sentinel_is_named(db, tmp_path, servers, said):
    server, port = servers(), free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\nsentinel monitor it 127.0.0.1 {server.port} 1\n")
    sentinel = Process(["redis-server", str(config), "--sentinel"], tmp_path / "log")
    try:
        db.broker("sick", f"redis://127.0.0.1:{port}", connect_timeout=20)
        for kind in ("stream", "list", "channel"):
            db.route(kind, "sick", f"{kind}:x")
        db.publish("t", 1)
        for kind in ("stream", "list", "channel"):
            row = db.wait_state(kind, "held")
            assert "Redis Sentinel" in row["last_error"] and "not supported" in row["last_error"] and row["dead"] == 0
    finally:
        sentinel.end()


def test_half_a_proxy_is_named(db, redis_server, said):
    with TalkingProxy(redis_server.port, closes_at=["CLIENT", "PUBLISH", "XADD"]) as half:
        db.broker("sick", half.url)
        db.route("out", "sick", "channel:x")
        db.publish("t", 1)
        row = db.wait_state("out", "held")
        assert "twemproxy" in row["last_error"] and "not supported" in row["last_error"] and row["dead"] == 0

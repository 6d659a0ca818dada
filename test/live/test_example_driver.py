# What it is: examples/driver-file, built outside of the tree from what is installed, beside the modules of a server: a
#             protocol that pg_eventbus does not know, without hosts and without a connection.
# Who calls it: pytest.
# Never: adds a module to an installation that others use.
import json
import os
import shutil
import subprocess

import psycopg2
import pytest

from installation import Installation
from processes import make_directory, remove_directory
from servers import PostgresCluster, eventually

EXAMPLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "examples", "driver-file")


@pytest.fixture(scope="module")
def installation():
    with Installation() as made:
        yield made


@pytest.fixture(scope="module")
def cluster(installation, built):
    installation.put_in("pg_eventbus_file.so", built)
    with PostgresCluster(postgres=installation.postgres) as server:
        yield server


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The module, made in a copy of the folder with nothing but PG_CONFIG."""
    there = tmp_path_factory.mktemp("elsewhere") / "driver-file"
    shutil.copytree(EXAMPLE, there, ignore=shutil.ignore_patterns("*.so"))
    environment = {"PATH": os.environ["PATH"], "PG_CONFIG": os.environ.get("PG_CONFIG", "pg_config")}
    made = subprocess.run(["make", "-C", there], env=environment, capture_output=True, text=True)
    assert made.returncode == 0 and "warning" not in made.stderr, made.stderr
    return there / "pg_eventbus_file.so"


@pytest.fixture
def directory():
    """That the server's user may write into."""
    made = make_directory("events")
    os.chmod(made, 0o777)
    yield made
    remove_directory(made)


def lines(*path):
    place = os.path.join(*path)
    if not os.path.exists(place):
        return []
    text = open(place).read()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def refused(db, call, *arguments):
    with pytest.raises(psycopg2.Error) as error:
        db.run(f"SELECT eventbus.{call}", *arguments)
    return error.value.diag


def test_it_is_short():
    program, = (name for name in os.listdir(EXAMPLE) if name.endswith(".cpp"))
    assert len(open(os.path.join(EXAMPLE, program)).readlines()) <= 150
    assert sorted(os.listdir(EXAMPLE)) == ["Makefile", "README.md", program]


def test_events_become_lines(db, directory):
    db.broker("files", f"file://{directory}", window=50)
    db.route("orders", "files", "file:orders.jsonl", "shop.order.*")
    db.route("by topic", "files", "file:{topic}.jsonl")
    db.run("SELECT eventbus.publish('shop.order.placed', json %s, 17, %s)", '{"id":\n 1,\n"total": 1e400}',
           json.dumps({"tenant": "ä\"\n"}))
    ids = [db.publish("shop.order.paid", {"n": n}, key=f"k{n % 7}") for n in range(500)]
    db.wait_status("orders", delivered=501, state="active")
    db.wait_status("by topic", delivered=501)
    found = lines(directory, "orders.jsonl")
    assert found[0]["topic"] == "shop.order.placed" and found[0]["key"] == "17"
    assert found[0]["headers"] == {"tenant": "ä\"\n"} and '"total": 1e400' in open(f"{directory}/orders.jsonl").readline()
    assert found[0]["content_type"] == "application/json" and found[0]["source"].startswith("postgresql://")
    assert found[0]["time"].endswith("Z")
    for key in {event["key"] for event in found[1:]}:
        assert [e["payload"]["n"] for e in found if e["key"] == key] == [n for n in range(500) if f"k{n % 7}" == key]
    assert sorted(int(event["id"]) for event in found[1:]) == ids
    assert [e["topic"] for e in lines(directory, "shop.order.placed.jsonl")] == ["shop.order.placed"]
    assert len(lines(directory, "shop.order.paid.jsonl")) == 500
    assert oct(os.stat(f"{directory}/orders.jsonl").st_mode & 0o777) == "0o600", "PostgreSQL's umask"


def test_one_event_is_to_blame_for_itself_alone(db, directory):
    db.broker("files", f"file://{directory}", sync=False)
    db.route("keyed", "files", "file:{key}")
    db.publish("t", 1, key="../outside")
    db.publish("t", 2, key=".")
    db.run("SELECT eventbus.publish_bytes('t', '\\x00ff'::bytea, 'bytes')")
    db.publish("t", 3, key="good")
    db.wait_status("keyed", delivered=1, dead=3)
    assert [e["payload"] for e in lines(directory, "good")] == [3] and os.listdir(directory) == ["good"]
    errors = [row["error"] for row in db.dead("keyed")]
    assert ["no file" in error for error in errors] == [True, True, False] and "bytes" in errors[2]


def test_what_is_wrong_is_said_when_it_is_made(db, directory):
    said = refused(db, "create_broker('b', %s, '{\"sinc\": true}')", f"file://{directory}")
    assert said.message_primary == 'unknown broker option "sinc"' and said.message_hint.endswith("window, sync.")
    said = refused(db, "create_broker('b', %s, '{\"client_id\": \"me\"}')", f"file://{directory}")
    assert said.message_primary == 'broker option "client_id" is not for file', "mqtt says that it has it"
    said = refused(db, "create_broker('b', %s, '{\"sync\": 1}')", f"file://{directory}")
    assert said.message_detail == "It must be true or false."
    for url in ("file://host/path", f"file://user:s3cret@host{directory}", "file://", "file:///"):
        said = refused(db, "create_broker('b', %s)", url)
        assert said.message_primary == "malformed broker URL" and "Write file:///path" in said.message_hint
        assert "s3cret" not in str(said.message_detail)
    assert "wss, redis" in refused(db, "create_broker('b', 'nosuch://h')").message_hint
    assert "mqtts, ws, wss" in refused(db, "create_broker('b', 'nosuch://h')").message_hint
    assert "amqps, file, mqtt" in refused(db, "create_broker('b', 'nosuch://h')").message_hint

    db.broker("b", f"file://{directory}")
    said = refused(db, "create_route('r', 'b', 'queue:q')")
    assert said.message_hint == "Destinations for file are file:NAME."
    assert refused(db, "create_route('r', 'b', 'file:a/b')").message_primary == \
        'destination has a "/", which no file\'s name may have'
    said = refused(db, "create_route('r', 'b', 'file:a', options => '{\"maxlen\": 1}')")
    assert said.message_primary == 'route option "maxlen" is not for file'
    assert db.one("SELECT url FROM eventbus.broker WHERE name = 'b'") == f"file://{directory}"
    assert db.run("SELECT step, ok FROM eventbus.test_broker('b')") == [("connect", True)]


def test_a_directory_that_is_not_there(db, directory):
    """The route waits, says why, and continues when it is."""
    there = os.path.join(directory, "later")
    db.broker("files", f"file://{there}")
    db.route("out", "files", "file:out.jsonl")
    db.publish("t", 1)
    row = db.wait_error("out", "No such file or directory")
    assert row["state"] == "held" and there in row["last_error"] and row["delivered"] == 0
    step, = db.rows("SELECT * FROM eventbus.test_broker('files')")
    assert not step["ok"] and "No such file or directory" in step["detail"]
    os.mkdir(there)
    os.chmod(there, 0o777)
    db.run("SELECT eventbus.resume_route('out')")
    db.wait_status("out", delivered=1, state="active")
    assert [e["payload"] for e in lines(there, "out.jsonl")] == [1]

    # What stands where a route's file should be holds that route alone.
    os.mkdir(os.path.join(there, "second.jsonl"))
    db.route("second", "files", "file:second.jsonl")
    db.publish("t", 2)
    db.wait_error("second", "Is a directory")
    db.wait_status("out", delivered=2, state="active")
    assert db.status("second")["state"] == "held"
    os.rmdir(os.path.join(there, "second.jsonl"))
    db.run("SELECT eventbus.resume_route('second')")
    db.wait_status("second", delivered=1, state="active")


def test_it_is_removed_again(db, directory, installation, built):
    db.broker("files", f"file://{directory}")
    db.route("out", "files", "file:out.jsonl")
    db.publish("t", 1)
    db.wait_status("out", delivered=1)
    db.run("SELECT eventbus.drop_broker('files', true)")
    installation.take_away("file")
    try:
        db.reconnect()
        said = refused(db, "create_broker('files', %s)", f"file://{directory}")
        assert said.message_primary == 'unknown URL scheme "file"' and "amqp, amqps, mqtt" in said.message_hint
    finally:
        installation.put_in("pg_eventbus_file.so", built)
    db.reconnect()
    db.broker("files", f"file://{directory}")
    db.route("out", "files", "file:out.jsonl")
    db.publish("t", 2)
    eventually(lambda: [e["payload"] for e in lines(directory, "out.jsonl")] == [1, 2], 30, "the second line is there")


@pytest.mark.parametrize("contents", ["text", "library"])
def test_a_file_that_is_no_module(db, directory, installation, contents, tmp_path, redis_server, name):
    """It disables itself alone, and says why where its scheme is asked for, or one that nobody has."""
    junk = tmp_path / "junk"
    if contents == "text":
        junk.write_text("#!/bin/sh\nexit 1\n")
    else:
        source = tmp_path / "junk.c"
        source.write_text("int nothing(void) { return 1; }\n")
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", junk, source], check=True)
    installation.put_in("pg_eventbus_junk.so", junk)
    try:
        db.reconnect()
        assert "the junk module of pg_eventbus" in refused(db, "create_broker('b', 'junk://h')").message_primary \
            or contents == "text"
        said = refused(db, "create_broker('b', 'nosuch://h')")
        assert "Modules that could not be loaded: junk (" in said.message_detail and "junk" not in said.message_hint
        assert "junk" in refused(db, "create_broker('b', 'junk://h')").message_primary
        db.broker("redis", redis_server.url)
        db.route("out", "redis", f"stream:{name}")
        db.publish("t", 1)
        db.wait_status("out", delivered=1)
    finally:
        installation.take_away("junk")

# What it is: test_broker and test_route at real brokers: what works, each step that may fail, and that nobody else notices.
# Who calls it: pytest.
# Never: takes a test for good that has sent a message, put out a sender, or told a password.
import contextlib
import re
import socket
import threading
import time

import psycopg2
import pytest

from fake_mqtt import FakeMqtt
from servers import PostgresCluster, eventually, free_port

SECRET = "s3cret"
MQTT = ("connect", "login", "broker", "destination", "permission")


def rows(db, call, name="b", connection=None):
    """The steps of test_broker or test_route: [(step, ok, detail, hint)]; no password is in them."""
    with (connection or db.connection).cursor() as cursor:
        cursor.execute(f"SELECT step, ok, detail, hint FROM eventbus.{call}(%s)", (name,))
        found = cursor.fetchall()
    print(*found, sep="\n")
    assert found and SECRET not in str(found)
    assert all(detail and detail.isprintable() and len(detail) < 1600 for _, _, detail, _ in found)
    return found


def steps(found):
    return [(step, ok) for step, ok, _, _ in found]


def detail(found, step):
    return next(row[2] for row in found if row[0] == step)


@contextlib.contextmanager
def listener(talk=lambda connection: None):
    """A server that takes connections, lets `talk` do with each what it likes, and keeps them open; yields its port."""
    server = socket.create_server(("127.0.0.1", 0))
    taken = []

    def serve():
        with contextlib.suppress(OSError):
            while True:
                taken.append(server.accept()[0])
                threading.Thread(target=talk, args=(taken[-1],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        for connection in taken:
            connection.close()


# Brokers that are well


def test_rabbitmq(db, rabbit):
    db.broker("b", f"amqp://app:s3cret-of-app@127.0.0.1:{rabbit.port}/")
    found = rows(db, "test_broker")
    assert steps(found) == [("connect", True), ("login", True), ("broker", True)]
    assert detail(found, "connect") == f"127.0.0.1:{rabbit.port}"
    assert 'user "app", virtual host "/"' in detail(found, "login")
    assert re.match(r"RabbitMQ \d+\.\d+.*, cluster .*; frames of at most 131072 bytes, \d+ channels, heartbeat 30 s",
                    detail(found, "broker"))
    assert all(hint is None for *_, hint in found)


def test_redis(db, redis_server):
    db.broker("b", f"redis://app:s3cret-of-app@127.0.0.1:{redis_server.port}/3")
    found = rows(db, "test_broker")
    assert steps(found) == [("connect", True), ("login", True), ("broker", True)]
    assert detail(found, "login") == 'as user "app", database 3'
    version = redis_server.client().info("server")["redis_version"]
    assert detail(found, "broker").startswith(f"Redis {version}, standalone, role master, no limit of memory")


def test_mosquitto(db, mosquitto):
    db.broker("b", f"mqtt://app:s3cret-of-app@127.0.0.1:{mosquitto.port}")
    found = rows(db, "test_broker")
    assert steps(found) == [("connect", True), ("login", True), ("broker", True)]
    assert re.search(r'user "app", client_id "pgeventbus\w+" \(which is not the sender', detail(found, "login"))
    assert re.match("MQTT 5, .*QoS 2 at most, .*retains messages, heartbeat 30 s", detail(found, "broker"))
    db.run("""SELECT eventbus.alter_broker('b', options => '{"version": "3.1.1"}')""")
    assert "MQTT 3.1.1" in detail(rows(db, "test_broker"), "broker")


@pytest.mark.parametrize("scheme,broker,port", [("amqps", "rabbit", "tls_port"), ("rediss", "redis_server", "tls_port"),
                                                ("mqtts", "mosquitto", "tls_port"), ("ws", "mosquitto", "ws_port"),
                                                ("wss", "mosquitto", "wss_port")])
def test_tls_and_websockets(db, request, certificates, scheme, broker, port):
    server = request.getfixturevalue(broker)
    tls = {} if scheme == "ws" else {"ca_file": certificates.ca}
    user = "" if scheme.startswith("redis") else "app:s3cret-of-app@"
    db.broker("b", f"{scheme}://{user}localhost:{getattr(server, port)}", **tls)
    found = rows(db, "test_broker")
    expected = ["connect", "tls", "websocket", "login", "broker"]
    if scheme == "ws":
        expected.remove("tls")
    if not scheme.startswith("ws"):
        expected.remove("websocket")
    assert steps(found) == [(step, True) for step in expected]
    if tls:
        assert re.match(r"TLSv1\.\d, \w+; the server's certificate is valid until \d{4}-\d\d-\d\d$", detail(found, "tls"))


# Brokers that are not


@pytest.mark.parametrize("url,words", [
    ("amqp://app:s3cret-wrong@127.0.0.1:{rabbit}", "403 ACCESS_REFUSED"),
    ("amqp://app:s3cret-of-app@127.0.0.1:{rabbit}/nowhere", "530 NOT_ALLOWED - vhost nowhere not found"),
    ("redis://app:s3cret-wrong@127.0.0.1:{redis}", "WRONGPASS"),
    ("mqtt://app:s3cret-wrong@127.0.0.1:{mosquitto}", "not authorized"),
])
def test_login_refused(db, rabbit, redis_server, mosquitto, url, words):
    db.broker("b", url.format(rabbit=rabbit.port, redis=redis_server.port, mosquitto=mosquitto.port))
    found = rows(db, "test_broker")
    assert steps(found) == [("connect", True), ("login", False)]
    assert words in detail(found, "login") and "eventbus.alter_broker" in found[-1][3]


@pytest.mark.parametrize("scheme", ["amqp", "redis", "mqtt", "wss"])
def test_nothing_listens(db, scheme):
    db.broker("b", f"{scheme}://127.0.0.1:{free_port()}")
    found = rows(db, "test_broker")
    assert steps(found) == [("connect", False)]
    assert "Connection refused" in detail(found, "connect") and "eventbus.alter_broker" in found[-1][3]


def test_no_such_host(db):
    db.broker("b", "amqp://nowhere.invalid")
    assert steps(rows(db, "test_broker")) == [("connect", False)]


@pytest.mark.parametrize("scheme,broker,port,step,words", [
    ("amqp", "rabbit", "tls_port", "login", "amqps://"), ("amqps", "rabbit", "port", "tls", "amqp://"),
    ("redis", "redis_server", "tls_port", "login", "rediss://"), ("rediss", "redis_server", "port", "tls", "redis://"),
    ("mqtt", "mosquitto", "tls_port", "login", "mqtts://"), ("mqtts", "mosquitto", "port", "tls", "mqtt://"),
    ("wss", "mosquitto", "ws_port", "tls", "ws://"), ("ws", "mosquitto", "port", "websocket", "mqtt://")])
def test_wrong_port(db, request, certificates, scheme, broker, port, step, words):
    server = request.getfixturevalue(broker)
    tls = {"ca_file": certificates.ca} if scheme in ("amqps", "rediss", "mqtts", "wss") else {}
    db.broker("b", f"{scheme}://127.0.0.1:{getattr(server, port)}", **tls)
    found = rows(db, "test_broker")
    assert steps(found)[-1] == (step, False) and found[0][:2] == ("connect", True)
    assert words in found[-1][2]


def test_a_certificate_that_is_not_accepted(db, rabbit):
    db.broker("b", f"amqps://127.0.0.1:{rabbit.tls_port}")
    found = rows(db, "test_broker")
    assert steps(found) == [("connect", True), ("tls", False)]
    assert "certificate is not accepted" in found[-1][2] and "ca_file" in found[-1][3]


def test_a_password_file_that_cannot_be_read(db, redis_server):
    db.broker("b", f"redis://app@127.0.0.1:{redis_server.port}", password_file="/nowhere/at/all")
    found = rows(db, "test_broker")
    assert steps(found) == [("settings", False)] and "/nowhere/at/all" in found[0][2]


def dribble(first):
    """A broker that continues saying something, and never enough."""
    def talk(connection):
        with contextlib.suppress(OSError):
            connection.sendall(first)
            while True:
                connection.sendall(b"\0")
                time.sleep(0.05)
    return talk


@pytest.mark.parametrize("scheme,talk", [
    ("amqp", None), ("amqps", None), ("redis", None), ("mqtt", None), ("ws", None),
    ("amqp", dribble(b"\x01\0\0\0\0\x80\0")), ("redis", dribble(b"+")), ("mqtt", dribble(b"\x20\xff\x7f\0\0"))])
def test_ten_seconds_are_all_that_it_takes(db, scheme, talk):
    with listener(talk or (lambda connection: None)) as port:
        db.broker("b", f"{scheme}://127.0.0.1:{port}", connect_timeout=300)
        begun = time.monotonic()
        found = rows(db, "test_broker")
        took = time.monotonic() - begun
    assert steps(found)[0] == ("connect", True) and steps(found)[-1][1] is False
    assert "within 10 s" in found[-1][2]
    assert 9 < took < 20


def test_options_may_be_less_patient(db):
    with listener() as port:
        db.broker("b", f"amqp://127.0.0.1:{port}", connect_timeout=0.5)
        assert "did not greet within 500 ms" in rows(db, "test_broker")[-1][2]


def test_hosts_one_after_the_other(db, redis_server):
    with listener() as silent:
        dead = free_port()
        db.broker("b", f"redis://127.0.0.1:{dead},127.0.0.1:{silent},127.0.0.1:{redis_server.port}")
        begun = time.monotonic()
        found = rows(db, "test_broker")
        assert time.monotonic() - begun < 9
    assert steps(found) == [("connect", False), ("connect", True), ("login", False),
                            ("connect", True), ("login", True), ("broker", True)]


def test_a_replica(db, redis_server, servers):
    replica = servers({"replicaof": f"127.0.0.1 {redis_server.port}"})
    eventually(lambda: replica.client().info("replication")["master_link_status"] == "up", 30)
    db.broker("b", replica.url)
    found = rows(db, "test_broker")
    assert steps(found)[-1] == ("broker", False) and "primary" in found[-1][3]


# What ends it, and who may


@pytest.mark.parametrize("scheme", ["amqp", "redis", "mqtt"])
def test_statement_timeout_and_cancel_end_the_wait_at_once(db, scheme):
    with listener() as port:
        db.broker("b", f"{scheme}://127.0.0.1:{port}")
        session = db.connect()
        with session.cursor() as cursor:
            cursor.execute("SET statement_timeout = '300 ms'")
            begun = time.monotonic()
            with pytest.raises(psycopg2.errors.QueryCanceled):
                cursor.execute("SELECT * FROM eventbus.test_broker('b')")
            assert time.monotonic() - begun < 5
            # the session is as good as new, and so is a subtransaction that caught it
            cursor.execute("""DO $$ BEGIN PERFORM eventbus.test_broker('b'); EXCEPTION WHEN query_canceled THEN
                              RAISE NOTICE 'caught'; END $$""")
            cursor.execute("RESET statement_timeout")
            cursor.execute("SELECT pg_backend_pid()")
            pid = cursor.fetchone()[0]
        ended = []

        def wait():
            try:
                rows(db, "test_broker", connection=session)
            except psycopg2.OperationalError as error:
                ended.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        eventually(lambda: db.one("SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = %s", pid), 20)
        begun = time.monotonic()
        assert db.one("SELECT pg_terminate_backend(%s)", pid)
        waiting.join(20)
        assert ended and time.monotonic() - begun < 5


def test_names_that_are_not_there(db, redis_server):
    for call, noun in (("test_broker", "broker"), ("test_route", "route")):
        with pytest.raises(psycopg2.errors.UndefinedObject, match=f'{noun} "x" does not exist') as error:
            rows(db, call, "x")
        assert f"There is no {noun} yet" in error.value.diag.message_hint
        with pytest.raises(psycopg2.errors.NullValueNotAllowed):
            rows(db, call, None)
    db.broker("b", redis_server.url)
    with pytest.raises(psycopg2.errors.UndefinedObject) as error:
        rows(db, "test_broker", "x")
    assert "Existing brokers: b" in error.value.diag.message_hint


def test_operators_may_and_nobody_else(db, redis_server, name):
    db.broker("b", redis_server.url)
    db.route("r", "b", f"stream:{name}")
    roles = {kind: f"inspect_{kind}" for kind in ("operator", "monitor", "publisher")}
    for kind, role in roles.items():
        db.run(f"CREATE ROLE {role} LOGIN")
        db.run(f"SELECT eventbus.grant_{kind}('{role}')")
    db.run("CREATE ROLE inspect_nobody LOGIN")
    db.run("GRANT USAGE ON SCHEMA eventbus TO inspect_nobody")
    db.run("GRANT pg_monitor TO inspect_nobody")
    try:
        with contextlib.closing(db.connect(user="inspect_operator")) as session:
            assert steps(rows(db, "test_broker", connection=session))[-1] == ("broker", True)
            assert steps(rows(db, "test_route", "r", connection=session))[-1] == ("permission", True)
        for role in (roles["monitor"], roles["publisher"], "inspect_nobody"):
            with contextlib.closing(db.connect(user=role)) as session:
                for call in ("test_broker", "test_route"):
                    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                        rows(db, call, connection=session)
    finally:
        for role in (*roles.values(), "inspect_nobody"):
            db.run(f"DROP OWNED BY {role}")
            db.run(f"DROP ROLE {role}")


def test_nobody_calls_it_unasked(db, redis_server):
    db.broker("b", redis_server.url)
    db.run("CREATE FUNCTION ask(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN "
           "PERFORM eventbus.test_broker('b'); RETURN $1; END $$")
    db.run("CREATE TABLE t AS SELECT 1 AS i")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="security-restricted"):
        db.run("CREATE INDEX ON t (ask(i))")


def test_read_only_and_within_the_transaction_that_makes_it(db, redis_server, name):
    db.run("BEGIN")
    db.broker("b", redis_server.url)
    db.route("r", "b", f"list:{name}")
    assert steps(rows(db, "test_route", "r"))[-1] == ("permission", True)
    db.run("COMMIT")
    db.run("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    assert steps(rows(db, "test_broker"))[-1] == ("broker", True)
    db.run("COMMIT")
    assert db.run("SELECT b.name, t.ok FROM eventbus.broker b, eventbus.test_broker(b.name) t WHERE step = 'login'") == [
        ("b", True)]


def test_delivery_that_is_off_is_told(db, redis_server):
    db.broker("b", redis_server.url)
    db.run("SET eventbus.delivery = off")
    db.connection.notices.clear()
    assert steps(rows(db, "test_broker"))[-1] == ("broker", True)
    assert "nothing is delivered from this database" in str(db.connection.notices)
    db.run("SET eventbus.delivery = on")
    db.run("ALTER TABLE eventbus.broker_config DISABLE TRIGGER ALL")
    db.run("UPDATE eventbus.broker_config SET home = 'elsewhere'")
    db.connection.notices.clear()
    assert steps(rows(db, "test_broker"))[-1] == ("broker", True)
    assert "eventbus.adopt()" in str(db.connection.notices)


def test_rows_that_were_written_by_hand(db, redis_server):
    db.broker("b", redis_server.url)
    db.route("r", "b", "stream:s")
    db.run("UPDATE eventbus.route_config SET destination = 'nonsense'")
    assert steps(rows(db, "test_route", "r")) == [("settings", False)]
    db.run("UPDATE eventbus.broker_config SET url = 'kafka://h'")
    assert steps(rows(db, "test_broker")) == [("settings", False)]


# Destinations


def test_destinations_of_rabbitmq(db, rabbit, name):
    db.broker("b", f"amqp://limited:s3cret-of-limited@127.0.0.1:{rabbit.port}")
    rabbit.declare(name, exchange=f"{name}.x")
    for route, destination in (("queue", f"queue:{name}"), ("exchange", f"exchange:{name}.x"),
                               ("no_queue", f"queue:{name}.none"), ("no_exchange", f"exchange:{name}.none"),
                               ("varies", "exchange:shop.{topic}")):
        db.route(route, "b", destination, topics="nothing.at.all")
    login = [("connect", True), ("login", True), ("broker", True)]
    found = rows(db, "test_route", "queue")
    assert steps(found) == [*login, ("destination", True), ("permission", None)]
    assert detail(found, "destination") == f"queue '{name}' is there, with 0 messages and 0 consumers"
    found = rows(db, "test_route", "exchange")
    assert steps(found) == [*login, ("destination", True), ("permission", None)]
    assert "nor whether a queue is bound" in detail(found, "permission")
    for route in ("no_queue", "no_exchange"):
        found = rows(db, "test_route", route)
        assert steps(found) == [*login, ("destination", False)]
        assert "404 NOT_FOUND" in detail(found, "destination") and "Declare the" in found[-1][3]
    found = rows(db, "test_route", "varies")
    assert steps(found) == [*login, ("destination", None)]
    assert "exchange:shop.{topic}" in found[-1][2] and "routes_for" in found[-1][3]
    assert rabbit.depth(name) == 0


def test_an_exclusive_queue(db, rabbit, name):
    db.broker("b", rabbit.url)
    db.route("r", "b", f"queue:{name}", topics="nothing.at.all")
    with contextlib.closing(rabbit.connection()) as connection:
        connection.channel().queue_declare(name, exclusive=True)
        found = rows(db, "test_route", "r")
        assert ("destination", True) in steps(found) and "405" in detail(found, "destination")


def test_destinations_of_redis(db, redis_server, name):
    client = redis_server.client()
    client.acl_setuser("writer", enabled=True, passwords=["+s3cret-writer"], keys=[f"{name}:may*"],
                       channels=[f"{name}:may*"], commands=["+xadd", "+rpush", "+publish"])
    client.set(f"{name}:text", "x")
    client.rpush(f"{name}:list", "x")
    db.broker("b", f"redis://app:s3cret-of-app@127.0.0.1:{redis_server.port}")
    db.broker("w", f"redis://writer:s3cret-writer@127.0.0.1:{redis_server.port}")
    answers = {
        f"stream:{name}:new": (True, "not there yet", True), f"list:{name}:list": (True, "is there", True),
        f"stream:{name}:text": (False, "something of the type string", True),
        f"stream:{name}:list": (False, "something of the type list", True),
        f"channel:{name}:c": (True, "subscribers by its name now: 0", True),
    }
    for number, (destination, (ok, words, may)) in enumerate(answers.items()):
        db.route(f"r{number}", "b", destination, topics="nothing.at.all")
        found = rows(db, "test_route", f"r{number}")
        assert steps(found)[3:] == [("destination", ok), ("permission", may)] and words in detail(found, "destination")
        if not ok:
            assert "WRONGTYPE" in detail(found, "destination") and "dead letter" in found[3][3]
    db.route("varies", "b", "stream:{topic}", topics="nothing.at.all")
    assert steps(rows(db, "test_route", "varies"))[3:] == [("destination", None)]
    # A user that may write and nothing else cannot be told more; the server says no more than that.
    db.route("may", "w", f"stream:{name}:may", topics="nothing.at.all")
    found = rows(db, "test_route", "may")
    assert steps(found)[2:] == [("broker", None), ("destination", None), ("permission", None)]
    assert "NOPERM" in detail(found, "permission")
    # One that may ask is told.
    client.acl_setuser("writer", enabled=True, keys=[f"{name}:may*"], channels=[f"{name}:may*"],
                       commands=["+xadd", "+rpush", "+publish", "+acl|dryrun", "+type", "+pubsub", "+info"])
    assert steps(rows(db, "test_route", "may"))[2:] == [("broker", True), ("destination", True), ("permission", True)]
    for number, destination in enumerate((f"stream:{name}:no", f"channel:{name}:no")):
        db.route(f"no{number}", "w", destination, topics="nothing.at.all")
        found = rows(db, "test_route", f"no{number}")
        assert steps(found)[-1] == ("permission", False) and "no permissions to access" in detail(found, "permission")
    assert sorted(key.decode() for key in client.keys(f"{name}*")) == [f"{name}:list", f"{name}:text"]
    client.acl_deluser("writer")


def test_destinations_of_mqtt(db, mosquitto, mosquitto_of):
    db.broker("b", f"mqtt://app:s3cret-of-app@127.0.0.1:{mosquitto.port}")
    db.route("plain", "b", "topic:shop/orders", topics="nothing.at.all", retain=True)
    assert steps(rows(db, "test_route", "plain")) == [(step, None if step == "permission" else True) for step in MQTT]
    db.route("varies", "b", "topic:shop/{topic/}", topics="nothing.at.all")
    found = rows(db, "test_route", "varies")
    assert steps(found)[3:] == [("destination", None)] and "topic:shop/{topic/}" in found[-1][2]
    little = mosquitto_of({"retain_available": "false", "max_packet_size": 100})
    db.broker("little", little.url)
    for route, destination, options, words in (
            ("retain", "topic:{topic}", {"retain": True}, "does not retain"),
            ("long", f"topic:{'t' * 200}", {}, "too large for the broker")):
        db.route(route, "little", destination, topics="nothing.at.all", **options)
        found = rows(db, "test_route", route)
        assert steps(found)[3:] == [("destination", False)] and words in found[-1][2] and "alter_route" in found[-1][3]


# Nobody else notices


def test_an_mqtt_sender_is_not_put_out(db, mosquitto):
    will = {"topic": "wills/inspection", "payload": "gone"}
    db.broker("b", f"mqtt://app:s3cret-of-app@127.0.0.1:{mosquitto.port}", client_id="inspected", will=will)
    db.route("r", "b", "topic:inspection/all")
    with mosquitto.subscriber(["inspection/#", "wills/#"]) as heard:
        db.publish("t", 1)
        db.wait_status("r", delivered=1)
        before = len(re.findall(r"as inspected ", mosquitto.log_text()))
        for _ in range(5):
            found = rows(db, "test_route", "r")
            assert steps(found)[-1] == ("permission", None)
            assert re.search(r'client_id "inspected-test-\w{6}"', detail(found, "login"))
        # one that is broken off leaves no will either
        session = db.connect()
        with listener() as port:
            db.broker("silent", f"mqtt://127.0.0.1:{port}", will=will)
            with session.cursor() as cursor, pytest.raises(psycopg2.errors.QueryCanceled):
                cursor.execute("SET statement_timeout = '300 ms'")
                cursor.execute("SELECT * FROM eventbus.test_broker('silent')")
        db.publish("t", 2)
        db.wait_status("r", delivered=2, state="active", last_error=None)
        assert len(heard.take(2)) == 2 and len(heard.bodies()) == 2, "the two events, and no will"
        assert len(re.findall(r"as inspected ", mosquitto.log_text())) == before, "the sender has not reconnected"


def test_no_session_and_no_will_is_left(db):
    with FakeMqtt() as broker:
        db.broker("b", broker.url, client_id="inspected")
        db.route("r", "b", "topic:t", topics="nothing.at.all")
        rows(db, "test_route", "r")
        ids = [client for _, client in broker.connects if client != "inspected"]
        assert len(ids) == 1 and ids[0].startswith("inspected-test-") and not broker.published


def test_a_redis_sender_does_not_wait_for_it(db, redis_server, name):
    """A sender waits until the server has done with connections of its name; the test has another one."""
    with listener() as silent:
        db.broker("b", f"redis://127.0.0.1:{silent}")
        names = []

        def look(connection):
            names.append(connection.recv(1000))
        with listener(look) as port:
            db.run("SELECT eventbus.alter_broker('b', url => %s)", f"redis://127.0.0.1:{port}")
            session = db.connect()
            with session.cursor() as cursor, pytest.raises(psycopg2.errors.QueryCanceled):
                cursor.execute("SET statement_timeout = '500 ms'")
                cursor.execute("SELECT * FROM eventbus.test_broker('b')")
            eventually(lambda: names, 10)
    assert b"pg_eventbus-test" in names[0] and b"pg_eventbus:" not in names[0]


def test_on_a_standby(redis_server, name):
    with PostgresCluster() as primary:
        primary.execute("CREATE EXTENSION pg_eventbus")
        primary.execute("SELECT eventbus.create_broker('b', %s)", redis_server.url)
        primary.execute("SELECT eventbus.create_route('r', 'b', %s)", f"stream:{name}")
        with PostgresCluster(name="standby", copy_of=primary) as standby:
            assert standby.execute("SELECT pg_is_in_recovery()") == [(True,)]
            found = standby.execute("SELECT step, ok FROM eventbus.test_route('r')")
            assert found == [("connect", True), ("login", True), ("broker", True), ("destination", True),
                             ("permission", True)]

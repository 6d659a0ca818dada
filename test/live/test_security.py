# What it is: TLS, logins, sockets, several hosts; and that no password is ever shown.
# Who calls it: pytest.
# Never: prints a secret.
import json
import os
import threading

import psycopg2
import pytest

from servers import eventually, free_port, make_directory, remove_directory
from talking_proxy import TalkingProxy

SECRET = "hunter2+very/secret"
ENCODED = "hunter2%2Bvery%2Fsecret"


@pytest.fixture
def password_file():
    directory = make_directory("password")
    path = os.path.join(directory, "password")
    with open(path, "w") as text:
        text.write("  s3cret-of-app \n")
    os.chmod(path, 0o644)
    yield path
    remove_directory(directory)


def arrives_in_redis(db, server, name, url, database=0, **options):
    db.broker("b", url, **options)
    db.route("out", "b", f"stream:{name}")
    event = db.publish("t", {"n": 1})
    eventually(lambda: server.client(database).exists(name), why=f"an event through {url.split('@')[-1]}")
    assert [int(entry["id"]) for entry in server.stream(name, database)] == [event]


def arrives_in_rabbit(db, node, name, url, **options):
    node.declare(name)
    db.broker("b", url, **options)
    db.route("out", "b", f"queue:{name}")
    event = db.publish("t", {"n": 1})
    assert [properties.message_id for properties, _, _ in node.take(name, 1)] == [str(event)]


# Ways to get there


def test_redis_unix_socket_and_database(db, redis_server, name):
    arrives_in_redis(db, redis_server, name, f"redis://{redis_server.socket}?db=1", 1)


def test_redis_encoded_unix_socket(db, redis_server, name):
    arrives_in_redis(db, redis_server, name, f"redis://{redis_server.socket.replace('/', '%2F')}/2", 2)


def test_redis_database_in_the_path(db, redis_server, name):
    arrives_in_redis(db, redis_server, name, redis_server.url + "/3", 3)


def test_redis_host_name(db, redis_server, name):
    arrives_in_redis(db, redis_server, name, f"redis://localhost:{redis_server.port}")


def test_redis_first_host_is_dead(db, redis_server, name):
    arrives_in_redis(db, redis_server, name, f"redis://127.0.0.1:{free_port()},127.0.0.1:{redis_server.port}/0")


def test_amqp_first_host_is_dead(db, rabbit, name):
    arrives_in_rabbit(db, rabbit, name, f"amqp://guest:guest@127.0.0.1:{free_port()},127.0.0.1:{rabbit.port}")


# Logins


def test_redis_user_and_password(db, redis_server, name):
    arrives_in_redis(db, redis_server, name, f"redis://app:s3cret-of-app@127.0.0.1:{redis_server.port}")


def test_redis_password_file(db, redis_server, name, password_file):
    arrives_in_redis(db, redis_server, name, f"redis://app@127.0.0.1:{redis_server.port}",
                     password_file=password_file)


def test_amqp_user_and_password(db, rabbit, name):
    arrives_in_rabbit(db, rabbit, name, f"amqp://app:s3cret-of-app@127.0.0.1:{rabbit.port}/%2F")


def test_amqp_password_file(db, rabbit, name, password_file):
    arrives_in_rabbit(db, rabbit, name, f"amqp://app@127.0.0.1:{rabbit.port}", password_file=password_file)


def test_missing_password_file_is_on_status_and_heals(db, redis_server, name, password_file):
    os.rename(password_file, password_file + ".away")
    db.broker("b", f"redis://app@127.0.0.1:{redis_server.port}", password_file=password_file)
    db.route("out", "b", f"stream:{name}")
    event = db.publish("t", 1)
    db.wait_error("out", "password_file|password file|No such file")
    os.rename(password_file + ".away", password_file)
    eventually(lambda: redis_server.client().exists(name), 60)
    assert redis_server.stream_ids(name) == [event]


# TLS


def test_rediss(db, redis_server, certificates, name):
    arrives_in_redis(db, redis_server, name, f"rediss://app:s3cret-of-app@127.0.0.1:{redis_server.tls_port}",
                     ca_file=certificates.ca)


def test_rediss_with_a_client_certificate(db, redis_server, certificates, name):
    arrives_in_redis(db, redis_server, name, f"rediss://localhost:{redis_server.tls_port}", ca_file=certificates.ca,
                     cert_file=certificates.client_cert, key_file=certificates.client_key)


def test_amqps(db, rabbit, certificates, name):
    arrives_in_rabbit(db, rabbit, name, f"amqps://guest:guest@localhost:{rabbit.tls_port}", ca_file=certificates.ca)


def test_amqps_unverified_on_request(db, rabbit, name):
    arrives_in_rabbit(db, rabbit, name, f"amqps://guest:guest@127.0.0.1:{rabbit.tls_port}", verify=False)


@pytest.mark.parametrize("scheme", ["rediss", "amqps"])
def test_certificate_of_an_unknown_authority_is_refused(db, redis_server, rabbit, certificates, name, scheme):
    port = redis_server.tls_port if scheme == "rediss" else rabbit.tls_port
    kind = "stream" if scheme == "rediss" else "queue"
    if kind == "queue":
        rabbit.declare(name)
    db.broker("b", f"{scheme}://127.0.0.1:{port}", ca_file=certificates.other_ca)
    db.route("out", "b", f"{kind}:{name}")
    event = db.publish("t", 1)
    row = db.wait_error("out", "certificate")
    assert row["state"] in ("held", "retrying") and row["delivered"] == 0
    db.run("SELECT eventbus.alter_broker('b', NULL, %s::jsonb)", json.dumps({"ca_file": certificates.ca}))
    db.wait_status("out", delivered=1, state="active")
    assert event


def test_plain_tcp_where_tls_is_expected_is_an_error_on_status(db, redis_server, certificates, name):
    db.broker("b", f"rediss://127.0.0.1:{redis_server.port}", ca_file=certificates.ca, connect_timeout=2)
    db.route("out", "b", f"stream:{name}")
    db.publish("t", 1)
    assert db.wait_status("out", last_error=lambda text: bool(text))["delivered"] == 0


def refused_until_mended(db, name, url, refused, words, fixed):
    """A broker's options that refuse the server, and others that take it."""
    db.broker("b", url, **refused)
    db.route("out", "b", f"stream:{name}")
    db.publish("t", 1)
    row = db.wait_error("out", words)
    assert row["state"] in ("held", "retrying") and row["delivered"] == 0
    db.run("SELECT eventbus.alter_broker('b', NULL, %s::jsonb)", json.dumps(fixed))
    db.wait_status("out", delivered=1, state="active")


def test_a_revoked_certificate_is_refused(db, redis_server, certificates, name):
    trusted = {"ca_file": certificates.ca}
    refused_until_mended(db, name, f"rediss://localhost:{redis_server.tls_port}",
                         {**trusted, "crl_file": certificates.server_crl}, "certificate revoked",
                         {**trusted, "crl_file": certificates.empty_crl})


def test_a_name_in_the_subject_alone_is_not_enough(db, servers, certificates, name):
    server = servers({"tls-cert-file": certificates.subject_cert, "tls-key-file": certificates.subject_key}, certificates)
    trusted = {"ca_file": certificates.ca}
    refused_until_mended(db, name, f"rediss://localhost:{server.tls_port}", trusted, "hostname mismatch",
                         {**trusted, "verify": False})


def test_the_least_version_of_tls_is_an_option(db, servers, certificates, name):
    server = servers({"tls-protocols": "TLSv1.2"}, certificates)
    trusted = {"ca_file": certificates.ca}
    refused_until_mended(db, name, f"rediss://localhost:{server.tls_port}", {**trusted, "tls_min_version": "1.3"},
                         "TLS handshake failed", {**trusted, "tls_min_version": "1.2"})


# Secrets


def everything_shown(db):
    """What any view of the extension, its functions and the server's own views and log show."""
    views = [row[0] for row in db.run("SELECT quote_ident(viewname) FROM pg_views WHERE schemaname = 'eventbus'")]
    assert {"status", "event", "dead_letter"} <= set(views)
    shown = [str(db.rows(f"SELECT * FROM eventbus.{view}")) for view in views]
    shown.append(str(db.health()))
    shown.append(str(db.cluster.execute("SELECT * FROM pg_stat_activity WHERE pid <> pg_backend_pid()")))
    return "\n".join(shown)


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_password_is_never_shown(db, redis_server, rabbit, name, cluster, log_from_here, scheme):
    """A refused login, an unreachable host and a working one, all with a password."""
    port = redis_server.port if scheme == "redis" else rabbit.port
    kind = "stream" if scheme == "redis" else "queue"
    secretive = db.connect()
    with secretive.cursor() as cursor:
        for broker, where in (("refused", f"127.0.0.1:{port}"), ("dead", f"127.0.0.1:{free_port()}"),
                              ("list", f"127.0.0.1:{free_port()},127.0.0.1:{port}")):
            cursor.execute("SELECT eventbus.create_broker(%s, %s)", (broker, f"{scheme}://app:{ENCODED}@{where}"))
    secretive.close()
    for broker in ("refused", "dead", "list"):
        db.route(broker, broker, f"{kind}:{name}")
    db.publish("t", 1)
    for broker in ("refused", "dead", "list"):
        db.wait_status(broker, last_error=lambda text: bool(text))
    shown = everything_shown(db) + cluster.log_text(log_from_here)
    assert SECRET not in shown and ENCODED not in shown
    assert '"refused"' in cluster.log_text(log_from_here), "the log does speak of the broker"


@pytest.mark.parametrize("words", ["ERR unknown command 'AUTH', with these: 'app' '{}'", "ERR AUTH app {} is not for us",
                                   "LOADING {}", "ERR cut: AUTH app {:.9}"])
def test_password_in_the_words_of_a_server(db, redis_server, name, cluster, log_from_here, words):
    """Redis answers an AUTH that it does not know with its arguments, and so do proxies."""
    with TalkingProxy(redis_server.port) as proxy:
        proxy.say(words.format(SECRET))
        secretive = db.connect()
        with secretive.cursor() as cursor:
            cursor.execute("SELECT eventbus.create_broker('b', %s)", (f"redis://app:{ENCODED}@127.0.0.1:{proxy.port}",))
        secretive.close()
        db.route("out", "b", f"stream:{name}")
        db.publish("t", 1)
        db.wait_error("out", r"\*\*\*")
        shown = everything_shown(db) + cluster.log_text(log_from_here)
    assert proxy.said > 0
    assert SECRET[:9] not in shown and ENCODED not in shown


REFUSED_URLS = {
    "slash": f"amqp://app:1234/{ENCODED}@rabbit", "question": f"redis://app:1234?{ENCODED}=x@host",
    "port": f"redis://app:{ENCODED}@127.0.0.1:notaport", "scheme": f"nosuch://app:{ENCODED}@host",
    "database": f"redis://app:{ENCODED}@host:1/x", "bracket": f"amqp://app:{ENCODED}@[::1",
    "parameter": f"redis://app:{ENCODED}@host?nosuch=1", "no_scheme": f"app:{ENCODED}@host",
}
REFUSED_CALLS = {
    "taken": f"create_broker('taken', 'redis://app:{ENCODED}@host')",
    "unknown": f"alter_broker('nobody', 'redis://app:{ENCODED}@host')",
    "option": f"create_broker('b', 'redis://app:{ENCODED}@host', '{{\"nosuch\": 1}}')",
    "empty": f"create_broker('', 'redis://app:{ENCODED}@host')",
}


@pytest.mark.parametrize("url", REFUSED_URLS.values(), ids=REFUSED_URLS)
def test_refused_url_shows_no_password(db, cluster, log_from_here, url):
    with pytest.raises(psycopg2.Error) as refused:
        db.broker("b", url)
    shown = str(refused.value) + str(refused.value.diag.message_detail) + str(refused.value.diag.message_hint)
    assert ENCODED not in shown and SECRET not in shown
    assert refused.value.diag.message_hint
    assert ENCODED not in cluster.log_text(log_from_here), "the log's STATEMENT line has it"


@pytest.mark.parametrize("call", REFUSED_CALLS.values(), ids=REFUSED_CALLS)
def test_refused_call_shows_no_password(db, cluster, log_from_here, call):
    db.broker("taken", "redis://host")
    with pytest.raises(psycopg2.Error) as refused:
        db.run(f"SELECT eventbus.{call}")
    assert ENCODED not in str(refused.value) + cluster.log_text(log_from_here)


HIDDEN = "<hidden by pg_eventbus: it may hold a password>"
CALLS = {
    "plain": "SELECT eventbus.create_broker('b', '{url}')",
    "alter": "SELECT eventbus.alter_broker('b', '{url}')",
    "block": "DO $$ BEGIN PERFORM eventbus.create_broker('b', '{url}'); END $$",
    "assignment": "DO $$ DECLARE x text; BEGIN x := eventbus.create_broker('b', '{url}'); END $$",
    "several": "SELECT 1; SELECT eventbus.create_broker('b', '{url}'); SELECT 2",
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_that_waits_and_fails_shows_no_password(db, cluster, log_from_here, call):
    """In pg_stat_activity, in the log's lines about its wait and its error, and afterwards."""
    if "alter" in call:
        db.broker("b", "redis://h")
    blocker = db.connect(autocommit=False)
    with blocker.cursor() as cursor:
        cursor.execute("SELECT eventbus.drop_broker('b')" if "alter" in call
                       else "SELECT eventbus.create_broker('b', 'redis://h')")
    secretive = db.connect()
    errors = []

    def wait():
        with secretive.cursor() as cursor:
            cursor.execute("SET log_lock_waits = on; SET deadlock_timeout = '50 ms'")
            try:
                cursor.execute(call.format(url=f"redis://app:{ENCODED}@h"))
            except psycopg2.Error as error:
                errors.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    pid = secretive.info.backend_pid
    activity = "SELECT query FROM pg_stat_activity WHERE pid = %s"
    try:
        eventually(lambda: db.one("SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted", pid) == 1)
        assert db.one(activity, pid) == HIDDEN
        cluster.wait_log(f"process {pid} still waiting", log_from_here)
    finally:
        blocker.commit()
        thread.join()
    assert len(errors) == 1 and ENCODED not in errors[0]
    assert db.one(activity, pid) == HIDDEN
    log = cluster.log_text(log_from_here)
    assert log.count(f"STATEMENT:  {HIDDEN}") >= 2 and ENCODED not in log, log
    blocker.close()
    secretive.close()


def test_a_call_that_succeeds_shows_no_password_in_what_fails_after_it(db, cluster, log_from_here):
    with pytest.raises(psycopg2.errors.DivisionByZero):
        db.run(f"SELECT eventbus.create_broker('b', 'redis://app:{ENCODED}@h'), 1 / (random() < 0)::int")
    log = cluster.log_text(log_from_here)
    assert "division by zero" in log and HIDDEN in log and ENCODED not in log


def test_an_ordinary_role_reads_neither_brokers_nor_the_log(db, cluster):
    db.run(f"CREATE ROLE {db.name}_app LOGIN")
    try:
        db.run(f"SELECT eventbus.grant_publisher('{db.name}_app')")
        connection = db.connect(user=f"{db.name}_app")
        with connection.cursor() as cursor:
            cursor.execute("SELECT eventbus.publish('t', '1')")
            assert cursor.fetchone()[0] > 0
            relations = [row[0] for row in db.run(
                "SELECT quote_ident(relname) FROM pg_class WHERE relnamespace = 'eventbus'::regnamespace "
                "AND relkind IN ('r', 'v', 'm', 'p')")]
            for relation in relations:
                with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                    cursor.execute(f"SELECT * FROM eventbus.{relation}")
            for call in ("create_broker('b', 'redis://h')", "drop_broker('b')", "health()",
                         "redeliver()", "discard()", "pause_route('x')"):
                with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                    cursor.execute(f"SELECT eventbus.{call}")
        connection.close()
    finally:
        db.run(f"DROP OWNED BY {db.name}_app; DROP ROLE {db.name}_app")

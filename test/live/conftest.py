# What it is: what all live tests share: one cluster and one server of each kind a run; a database a test.
# Who calls it: pytest.
# Never: a default port, a server that outlives the run.
import contextlib
import os
import re
import sys
import zlib

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))

from brokers import Broker  # noqa: E402
from database import Database  # noqa: E402
from processes import tail  # noqa: E402
from servers import (Certificates, MosquittoServer, PostgresCluster, Proxy, RabbitNode, RedisServer,  # noqa: E402
                     eventually)

REDIS_USERS = ["default on nopass ~* &* +@all", "app on >s3cret-of-app ~* &* +@all"]
MOSQUITTO_USERS = {"app": "s3cret-of-app"}
RABBIT_USERS = {"app": ("s3cret-of-app", ".*"), "limited": ("s3cret-of-limited", "^allowed.*")}
DISASTER = re.compile(r"PANIC|TRAP:|signal 11|signal 6\b|stuck spinlock|terminate called")


@pytest.fixture(scope="session")
def certificates():
    made = Certificates()
    yield made
    made.remove()


@pytest.fixture(scope="session")
def redis_server(certificates):
    with RedisServer({"user": REDIS_USERS}, certificates) as server:
        yield server


@pytest.fixture(scope="session")
def rabbit(certificates):
    with RabbitNode(certificates, RABBIT_USERS) as node:
        yield node


@pytest.fixture(scope="session")
def mosquitto(certificates):
    """Whoever gives no name may do everything as well."""
    with MosquittoServer({"allow_anonymous": "true"}, certificates, MOSQUITTO_USERS) as server:
        yield server


@pytest.fixture(scope="session")
def cluster():
    # Small segments that change often, so that every test has rotation continuing beside it.
    with PostgresCluster(config={"eventbus.rotation_period": 1, "eventbus.segment_size": "'1MB'"}) as server:
        yield server


@pytest.fixture
def setting(cluster):
    """setting(name, value) changes the running server's configuration until the test's end."""
    changed = set()

    def change(name, value):
        changed.add(name)
        cluster.execute(f"ALTER SYSTEM SET {name} = %s", value)
        cluster.read_config()

    yield change
    for name in changed:
        cluster.execute(f"ALTER SYSTEM RESET {name}")
    cluster.read_config()


@pytest.fixture
def durable_redis():
    """A Redis of the test's own, to be killed and restarted."""
    with RedisServer.durable() as server:
        yield server


@pytest.fixture
def frozen_redis(durable_redis):
    """A Redis of the test's own that the test freezes; thawed at the end, so that it can go."""
    yield durable_redis
    durable_redis.thaw()


@pytest.fixture
def mosquitto_of():
    """mosquitto_of(config, …): a mosquitto of the test's own."""
    with contextlib.ExitStack() as stack:
        yield lambda *arguments, **more: stack.enter_context(MosquittoServer(*arguments, **more))


@pytest.fixture
def make_proxy():
    """make_proxy(server) is a running Proxy before a broker; make_proxy(server.tls_port) before that port."""
    with contextlib.ExitStack() as stack:
        yield lambda server: stack.enter_context(Proxy(getattr(server, "port", server)))


@pytest.fixture
def name(request):
    """A name for queues, streams and the like that no other test uses."""
    whole = re.sub(r"\W+", "_", request.node.name.removeprefix("test_")).strip("_").lower()
    return whole if len(whole) <= 48 else f"{whole[:39]}_{zlib.crc32(whole.encode()):08x}"


@pytest.fixture
def make_database(cluster, name, log_from_here):
    """Databases of this test: make_database() or make_database("second"); dropped at the end."""
    made = []

    def make(suffix="", **more):
        database = Database(cluster, f"{name}_{suffix}" if suffix else name, **more)
        made.append(database)
        return database

    yield make
    if not cluster.process.running():
        cluster.start()
    cluster.wait_recovered()
    for database in made:
        database.drop()


@pytest.fixture
def make_old(make_database):
    """The same with 0.1 of the extension, where the cluster's installation has its SQL."""
    def make(suffix=""):
        database = make_database(suffix, extension=False)
        database.run("CREATE EXTENSION pg_eventbus VERSION '0.1'")
        return database
    return make


@pytest.fixture
def db(make_database):
    """A fresh database with the extension."""
    return make_database()


@pytest.fixture
def log_from_here(cluster):
    """Where this test's part of the server log begins; whatever happened, no process may have crashed by itself."""
    begin = cluster.log_size()
    yield begin
    found = DISASTER.search(cluster.log_text(begin))
    assert not found, f"the server's log has {found.group(0)!r}:\n{cluster.log_text(begin)[-4000:]}"


@pytest.fixture
def told(cluster, log_from_here):
    """told("held", name) returns what the workers have logged since the test began, one line a message, level first,
    without hints: the lines with all the words in them."""
    def lines(*words):
        found = re.findall(r"(?:WARNING|LOG):  pg_eventbus: .*", cluster.log_text(log_from_here))
        return [line for line in found if all(word in line for word in words)]
    return lines


@pytest.fixture
def stream(db, redis_server, name):
    """A route "out" for all topics into a Redis stream; returns the entries when called."""
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"stream:{name}")

    def entries(count=None, deadline=30):
        """All entries, or as soon as there are `count` of them."""
        if count is not None:
            eventually(lambda: redis_server.client().xlen(name) >= count, deadline,
                       f"{count} entries in stream {name}, there are {redis_server.client().xlen(name)}")
        found = redis_server.stream(name)
        assert count is None or len(found) == count, f"{len(found)} entries instead of {count}"
        return found

    entries.key = name
    return entries


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows what the server said meanwhile, and what its brokers said."""
    report = (yield).get_result()
    if report.failed and "log_from_here" in item.funcargs and os.path.exists(item.funcargs["cluster"].log_path):
        log = item.funcargs["cluster"].log_text(item.funcargs["log_from_here"])
        report.sections.append(("PostgreSQL's log", log[-6000:]))
    if report.failed:
        for broker in Broker.started:
            if broker in item.funcargs.values() or broker.has_logged_since(call.start):
                report.sections.append((f"the end of the log of {type(broker).__name__}, port {broker.port}",
                                        tail(broker.log_path, 100)[-8000:]))


@pytest.fixture
def servers():
    """servers(config, …) starts a Redis of the test's own."""
    with contextlib.ExitStack() as stack:
        yield lambda *arguments, **more: stack.enter_context(RedisServer(*arguments, **more))


@pytest.fixture
def said(cluster, log_from_here):
    """said(what) is what the server's log has said of a broker or route since the test began."""
    def lines(what):
        return [line.partition("pg_eventbus: ")[2] for line in cluster.log_text(log_from_here).splitlines()
                if re.search(rf' (WARNING|LOG):  pg_eventbus: (broker|route) "{what}"', line)]

    return lines

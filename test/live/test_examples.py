# What it is: the programs of examples/, one a stack, directly and through PgBouncer in transaction mode: what arrives.
# Who calls it: pytest.
# Never: changes a program, or sets up more than examples/README.md tells its readers to.
import contextlib
import datetime
import decimal
import itertools
import json
import os
import re
import shutil
import subprocess
import threading
import uuid

import psycopg2
import pytest

from pgbouncer import PgBouncer

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
EXAMPLES = os.path.join(ROOT, "examples")
PYTHON = "/usr/bin/python3"
ROLE = "shop"
STACKS = ["psycopg2", "psycopg", "sqlalchemy", "django", "node"]


def expected(order, payment):
    """What each of the programs publishes, in its order: topic, key, payload, headers."""
    def product(n, price):
        return {"sku": f"SKU-{n}", "price": price}
    return [
        ("shop.order.placed", str(order),
         {"id": order, "customer": "Żaneta O'Neill", "lines": [{"sku": "SKU-1", "quantity": 2}]},
         {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tenant": 7}),
        ("shop.payment.received", payment, {"order": order, "amount": "19.80"}, None),
        *(("shop.product.imported", f"SKU-{n}", {**product(n, 9.90), "name": f"desk {n}"}, None) for n in range(1, 5)),
        ("shop.product.repriced", "SKU-1", product(1, 8.90), None),
        ("shop.product.repriced", "SKU-2", product(2, 12.00), None),
        ("shop.stock.counted", "SKU-1", {"sku": "SKU-1", "stock": 3}, None),
        ("shop.stock.counted", "SKU-2", {"sku": "SKU-2", "stock": 0}, None),
        ("shop.product.withdrawn", None, ["SKU-3", "SKU-4"], None)]


def in_groups(events):
    """Of a statement with several events, the order is the plan's: their keys differ."""
    return [sorted(group, key=str) for _, group in itertools.groupby(events, key=lambda event: event[0])]


@pytest.fixture(scope="session")
def node():
    """node(program, environment): runs a program or `-e SOURCE` of which `require('pg')` is Debian's, or npm's as
    examples/package-lock.json pins it, in build/examples."""
    if shutil.which("node") is None:
        pytest.skip("there is no Node.js; scripts/install-packages check installs it")
    modules = "/usr/share/nodejs"
    if not os.path.isdir(f"{modules}/pg"):
        modules = fetched_modules()

    def run(*arguments, **environment):
        return subprocess.run(["node", *arguments], env={**os.environ, **environment, "NODE_PATH": modules},
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    return run


def fetched_modules():
    directory = os.path.join(ROOT, "build", "examples")
    wanted = {}
    for name in ("package.json", "package-lock.json"):
        with open(os.path.join(EXAMPLES, name)) as text:
            wanted[name] = text.read()
    modules, mark = os.path.join(directory, "node_modules"), os.path.join(directory, "fetched")
    if os.path.exists(mark) and open(mark).read() == wanted["package-lock.json"]:
        return modules
    if shutil.which("npm") is None:
        pytest.skip("there is neither Debian's node-pg nor npm; scripts/install-packages check installs the one or the other")
    os.makedirs(directory, exist_ok=True)
    for name, content in wanted.items():
        with open(os.path.join(directory, name), "w") as text:
            text.write(content)
    done = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"], cwd=directory,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        pytest.skip("npm could not fetch pg, which wants the network: " + "; ".join(done.stderr.splitlines()[:4]))
    with open(mark, "w") as text:
        text.write(wanted["package-lock.json"])
    return modules


@pytest.fixture
def shop(db, cluster, redis_server, name):
    """What examples/README.md says, run here; the environment variables that lead there."""
    with open(os.path.join(EXAMPLES, "README.md")) as text:
        recipe = re.search(r"^```sql\nCREATE EXTENSION pg_eventbus;\n(.*?)^```", text.read(), re.S | re.M).group(1)
    assert "redis://127.0.0.1:6379" in recipe and "stream:shop" in recipe
    db.run(recipe.replace("redis://127.0.0.1:6379", redis_server.url).replace("stream:shop", f"stream:{name}"))
    cluster.program("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", os.path.join(EXAMPLES, "shop.sql"),
                    f"dbname={db.name} user={ROLE}")
    yield {"PGHOST": cluster.directory, "PGPORT": str(cluster.port), "PGDATABASE": db.name, "PGUSER": ROLE}
    db.run(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")


@pytest.fixture
def arrived(shop, db, redis_server, name):
    """The events in the stream, once there are `count` of them and none waits: topic, key, payload, headers."""
    def event(entry):
        topic, key, payload, headers = (entry[field].decode() if field in entry else None
                                        for field in ("topic", "key", "payload", "headers"))
        return topic, key, json.loads(payload), json.loads(headers or "null")

    def events(count):
        db.wait_status("shop", delivered=lambda delivered: delivered >= count, in_flight=0, lag=datetime.timedelta(0))
        found = [event(entry) for entry in redis_server.stream(name)]
        assert len(found) == count, found
        return found
    return events


@pytest.fixture
def bouncer(cluster):
    if shutil.which("pgbouncer") is None:
        pytest.skip("there is no PgBouncer; scripts/install-packages check installs it")
    with PgBouncer(cluster, [ROLE]) as running:
        yield running


def through(bouncer, environment):
    return {**environment, "PGHOST": bouncer.directory, "PGPORT": str(bouncer.port)}


def where(environment):
    return {"host": environment["PGHOST"], "port": environment["PGPORT"], "dbname": environment["PGDATABASE"], "user": ROLE}


@pytest.fixture
def run(request):
    """run(stack, environment): what the stack's program has printed."""
    def program(stack, environment):
        if stack == "node":
            done = request.getfixturevalue("node")(os.path.join(EXAMPLES, "shop_node.js"), **environment)
        else:
            needed = subprocess.run([PYTHON, "-c", f"import {stack}"], capture_output=True, text=True)
            if needed.returncode != 0:
                pytest.skip(f"there is no python3-{stack}; scripts/install-packages check installs it")
            done = subprocess.run([PYTHON, os.path.join(EXAMPLES, f"shop_{stack}.py")], env={**os.environ, **environment},
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and not done.stderr, done.stderr
        return json.loads(done.stdout)
    return program


@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pgbouncer"])
@pytest.mark.parametrize("stack", STACKS)
def test_example(stack, pooled, run, shop, arrived, db, request):
    """Run twice: events are those of committed transactions, in the order of these, and none besides."""
    environment = through(request.getfixturevalue("bouncer"), shop) if pooled else shop
    made = [run(stack, environment) for _ in range(2)]
    assert in_groups(arrived(22)) == in_groups(event for run in made for event in expected(run["order"], run["payment"]))
    assert db.run("SELECT id FROM orders ORDER BY 1") == [(run["order"],) for run in made]
    assert {row[0] for row in db.run("SELECT id::text FROM payment")} == {run["payment"] for run in made}
    assert db.run("SELECT sku, price::text, stock FROM product ORDER BY 1") == [("SKU-1", "8.90", 3), ("SKU-2", "12.00", 0)]


NODE_VALUES = """
const { Pool } = require('pg');
const pool = new Pool();
async function outcome(name, args) {
  const places = args.map((_, i) => '$' + (i + 1)).join(', ');
  try {
    await pool.query(`SELECT eventbus.${name}('shop.node', ${places})`, args);
    return 'taken';
  } catch (error) {
    return `${error.code} ${error.message} ${error.hint}`;
  }
}
(async () => {
  const told = {};
  const arrays = {
    numbers: [1, 2], texts: ['1', '2'], objects: [{ a: 1 }, { b: 'x:y' }], nested: [[1], [2]], nothing: [null] };
  for (const name of ['publish', 'publish_wal', 'publish_now']) {
    for (const [kind, array] of Object.entries(arrays)) {
      told[`${name} payload ${kind}`] = await outcome(name, [array]);
      told[`${name} headers ${kind}`] = await outcome(name, [1, 'k', array]);
    }
  }
  told.rest = [
    await outcome('publish', [{ a: [1, "it's"] }]),
    await outcome('publish', [JSON.stringify([1, 'two']), 17, { h: 1 }]),
    await outcome('publish', [true, undefined, undefined]),
    await outcome('publish', [5, 10n ** 20n, null]),
    await outcome('publish', ['{}', ['1', '2']]),
    await outcome('publish', ['text']),
    await outcome('publish', [undefined])];
  await pool.end();
  console.log(JSON.stringify(told));
})();
"""


def test_what_node_makes_of_values(node, shop, arrived):
    """Objects are JSON by themselves, arrays are not, and the error says what to do."""
    done = node("-e", NODE_VALUES, **shop)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    *rest, text, nothing = told.pop("rest")
    assert len(told) == 30
    for what, said in told.items():
        assert re.match(rf"22P02 {what.split()[1]} (is|are) not valid JSON It looks like an array of PostgreSQL's\..*"
                        r"JSON\.stringify", said), (what, said)
    assert rest == ["taken"] * 5
    assert text.startswith("22P02 payload is not valid JSON") and "publish_text" in text
    assert nothing.startswith("22004 payload must not be null")
    assert [event[1:] for event in arrived(5)] == [
        (None, {"a": [1, "it's"]}, None), ("17", [1, "two"], {"h": 1}), (None, True, None), (str(10 ** 20), 5, None),
        ('{"1","2"}', {}, None)]


def test_psycopg_prepares_by_itself(shop, arrived):
    """From its fifth run on, a statement a set of types, each of which fits a function."""
    psycopg = pytest.importorskip("psycopg", reason="scripts/install-packages check installs python3-psycopg")
    from psycopg.types.json import Json, Jsonb
    keys = [None, "k", 1, 40000, 2 ** 40, 2 ** 70, uuid.UUID(int=5), decimal.Decimal("1.50"), datetime.date(2026, 11, 30)]
    payloads = [Jsonb({"a": 1}), Json([1]), '"x"']
    headers = [None, Jsonb({"h": 1}), Json({"h": 1}), '{"h": 1}']
    published = list(itertools.product(payloads, keys, headers)) * 7
    with psycopg.connect(**where(shop)) as connection:
        for values in published:
            connection.execute("SELECT eventbus.publish('shop.t', %s, %s, %s)", values)
        prepared = connection.execute("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%publish%'").fetchone()[0]
        assert prepared > 20

    def plain(value):
        return value.obj if isinstance(value, (Json, Jsonb)) else None if value is None else json.loads(value)
    assert [event[1:] for event in arrived(len(published))] == [
        (None if key is None else str(key), plain(payload), plain(header)) for payload, key, header in published]


def test_one_server_connection_for_everybody(db, shop, bouncer, arrived):
    """PgBouncer gives it from client to client at each transaction's end, however that ends; rights, roles and settings of
    one transaction are not those of the next, and only what was committed arrives, in order within its key."""
    db.run("CREATE ROLE narrow; GRANT narrow TO shop; SELECT eventbus.grant_publisher('narrow'), "
           "eventbus.allow('narrow', 'shop.narrow'), eventbus.allow('shop', '#')")
    clients, rounds = 4, 40
    committed, surprises = [[] for _ in range(clients)], []

    def act(cursor, client, nth):
        """Whether the transaction is to be committed."""
        publish = "SELECT eventbus.publish(%s, %s, %s)"
        value = json.dumps([client, nth])
        if nth % 5 == 0:
            cursor.execute("SET LOCAL ROLE narrow")
            cursor.execute("SAVEPOINT s")
            with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="may not publish topic"):
                cursor.execute(publish, ("shop.wide", value, client))
            cursor.execute("ROLLBACK TO s")
            cursor.execute(publish, ("shop.narrow", value, client))
        elif nth % 5 == 1:
            cursor.execute("SAVEPOINT s")
            cursor.execute(publish, ("shop.wide", '"undone"', client))
            cursor.execute("ROLLBACK TO s")
            cursor.execute(publish, ("shop.wide", value, client))
        elif nth % 5 == 2:
            cursor.execute("SET LOCAL synchronous_commit = off")
            cursor.execute(publish, ("shop.wide", value, client))
        else:
            cursor.execute(publish, ("shop.wide", value, client))
        return nth % 4 != 3

    def work(client):
        try:
            with contextlib.closing(psycopg2.connect(**where(through(bouncer, shop)))) as connection:
                for nth in range(rounds):
                    with connection.cursor() as cursor:
                        if act(cursor, client, nth):
                            connection.commit()
                            committed[client].append([client, nth])
                        else:
                            connection.rollback()
        except BaseException as error:
            surprises.append(error)

    threads = [threading.Thread(target=work, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not surprises
    found = arrived(sum(map(len, committed)))
    for client in range(clients):
        assert [payload for _, key, payload, _ in found if key == str(client)] == committed[client]
    assert db.one("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'shop'") == 1
    db.run("DROP OWNED BY narrow; DROP ROLE narrow")


def test_waiting_through_a_pooler(db, shop, bouncer, arrived):
    with contextlib.closing(psycopg2.connect(**where(through(bouncer, shop)))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT eventbus.publish('shop.t', '1')")
            cursor.execute("SELECT eventbus.wait_for_delivery(%s, '30 s')", cursor.fetchone())
            assert cursor.fetchone() == (True,)
    assert len(arrived(1)) == 1

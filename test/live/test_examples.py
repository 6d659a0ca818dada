# What it is: the programs of examples/, one a stack, directly and through PgBouncer in transaction mode: what arrives.
# Who calls it: pytest.
# Never: changes a program, or sets up more than examples/README.md tells its readers to.
import json
import os
import shutil
import subprocess

import pytest

from pgbouncer import PgBouncer
from servers import eventually

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
EXAMPLES = os.path.join(ROOT, "examples")
PYTHON = "/usr/bin/python3"
ROLE = "shop"
STACKS = {"psycopg2": "psycopg2", "psycopg": "psycopg", "sqlalchemy": "sqlalchemy", "django": "django"}


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


def event(entry):
    def text(name):
        return entry[name].decode() if name in entry else None
    return text("topic"), text("key"), json.loads(entry["payload"]), json.loads(text("headers") or "null")


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
        pytest.skip("there is neither Debian's node-pg nor npm, which fetches pg; scripts/install-packages check installs one")
    os.makedirs(directory, exist_ok=True)
    for name, content in wanted.items():
        with open(os.path.join(directory, name), "w") as text:
            text.write(content)
    done = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"], cwd=directory,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        pytest.skip(f"npm could not fetch pg, which wants the network: {done.stderr[-500:]}")
    with open(mark, "w") as text:
        text.write(wanted["package-lock.json"])
    return modules


@pytest.fixture
def shop(db, cluster, name):
    """A database with the programs' tables and role; the environment variables that lead there."""
    db.run(f"CREATE ROLE {ROLE} LOGIN")
    db.run(f"GRANT CREATE ON SCHEMA public TO {ROLE}; SELECT eventbus.grant_publisher('{ROLE}')")
    cluster.program("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", os.path.join(EXAMPLES, "shop.sql"),
                    f"dbname={db.name} user={ROLE}")
    yield {"PGHOST": cluster.directory, "PGPORT": str(cluster.port), "PGDATABASE": db.name, "PGUSER": ROLE}
    db.run(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")


@pytest.fixture
def bouncer(cluster):
    if shutil.which("pgbouncer") is None:
        pytest.skip("there is no PgBouncer; scripts/install-packages check installs it")
    with PgBouncer(cluster, [ROLE]) as running:
        yield running


def through(bouncer, environment):
    return {**environment, "PGHOST": bouncer.directory, "PGPORT": str(bouncer.port)}


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
@pytest.mark.parametrize("stack", [*STACKS, "node"])
def test_example(stack, pooled, run, shop, stream, db, request):
    environment = through(request.getfixturevalue("bouncer"), shop) if pooled else shop
    made = run(stack, environment)
    found = [event(entry) for entry in stream(11)]
    assert found == expected(made["order"], made["payment"])
    assert db.run("SELECT id FROM orders") == [(made["order"],)]
    assert db.run("SELECT id::text FROM payment") == [(made["payment"],)]
    assert db.run("SELECT sku, price::text, stock FROM product ORDER BY 1") == [("SKU-1", "8.90", 3), ("SKU-2", "12.00", 0)]

# What it is: every block of SQL in README.md and docs/, run as a reader would: page by page, in a database of its own.
# Who calls it: pytest.
# Never: corrects a document by skipping what fails in it: see lib/documents.py for what a comment may say.
import pathlib
import re

import pytest

from documents import Brokers, Page, Psql, Wrong, blocks

TREE = pathlib.Path(__file__).resolve().parents[2]
PAGES = [TREE / "README.md", *sorted((TREE / "docs").glob("*.md"))]


def sql_of(path):
    return [block.text for block in blocks(path.read_text(), path.name) if block.language == "sql"]


@pytest.fixture
def brokers(redis_server, rabbit, mosquitto):
    return Brokers(redis_server, rabbit, mosquitto)


@pytest.fixture
def new_roles(cluster):
    """Roles belong to the cluster: those that a page makes go when its database is gone."""
    query = "SELECT rolname FROM pg_roles"
    before = cluster.execute(query)
    yield
    for role in set(cluster.execute(query)) - set(before):
        cluster.execute(f'DROP ROLE "{role[0]}"')


@pytest.mark.parametrize("path", [path for path in PAGES if sql_of(path)], ids=lambda path: path.name)
def test_blocks_run(cluster, brokers, new_roles, make_database, tmp_path, path):
    text = path.read_text()
    brokers.forget(text)
    database = make_database(extension=not any("CREATE EXTENSION pg_eventbus" in sql for sql in sql_of(path)))
    Page(text, path.relative_to(TREE).as_posix(), brokers, tmp_path,
         lambda: Psql(cluster, database.name, tmp_path)).run()


# The runner itself


def page(*parts):
    return "\n\n".join(part if part.startswith("<!--") else f"```sql\n{part}\n```" for part in parts)


CASES = [
    (page("SELECT 1;"), None),
    (page("SELECT 1;", "SELECT no_such_column;"), r":5: raises \['42703'\] instead of nothing"),
    (page("<!-- test: error 42703 -->", "SELECT no_such_column;"), None),
    (page("<!-- test: error 42501 -->", "SELECT no_such_column;"), r"raises \['42703'\] instead of \['42501'\]"),
    (page("<!-- test: error 42703 -->", "SELECT 1;"), "raises nothing"),
    (page("<!-- test: error 42703 -->", "SELECT no_such_column;\nSELECT 1/0;"), r"\['42703', '22012'\]"),
    (page("\\no_such_command"), r"raises \['psql'\]"),
    (page("SELECT 1", "SELECT 1;"), "no semicolon"),
    (page("SELECT 1;  -- one"), None),
    (page("<!-- test: skip: -->", "SELECT 1;"), "a reason"),
    (page("<!-- test: skip: it would stop the server -->", "SELECT no_such_column;"), None),
    (page("<!-- test: before: CREATE TABLE t (i integer) -->", "INSERT INTO t VALUES (1);", "SELECT * FROM t;"), None),
    (page("<!-- test: before: SELECT 1/0 -->", "SELECT 1;"), "before: .*22012"),
    (page("<!-- test: until: SELECT count(*) = 0 FROM eventbus.route -->", "SELECT 1;"), None),
    (page("<!-- test: until: SELECT 1/0 -->", "SELECT 1;"), "until: .*22012"),
    (page("<!-- test: prints: walnut -->", "SELECT 'walnut';"), None),
    (page("<!-- test: prints: walnut -->", "SELECT 'oak';"), "does not print 'walnut'"),
    (page("SET application_name = 'reader';", "<!-- test: until: SELECT current_setting('application_name') = 'reader' -->",
          "SELECT 1;"), None),
    (page("<!-- test: errors 42703 -->", "SELECT 1;"), "no such comment"),
    (page("SELECT 1;", "<!-- test: error 42703 -->"), "without a block"),
    ("```pgsql\nSELECT 1;\n```", "begins with ```sql"),
    ("* in a list\n  ```sql\n  SELECT 1/0;\n  ```\n", "22012"),
    ("<!-- test: run -->\n```sh\nfalse\n```\n", "ends with 1"),
    ("<!-- test: run -->\n<!-- test: prints: PONG -->\n```sh\nredis-cli ping\n```\n", None),
    ("```sh\nfalse\n```\n", None),
    (page("<!-- test: run -->", "SELECT 1;"), "not for sql"),
]


def test_the_runner_finds_what_is_wrong(db, brokers, tmp_path):
    for text, complaint in CASES:
        try:
            Page(text, "page.md", brokers, tmp_path, lambda: Psql(db.cluster, db.name, tmp_path)).run()
            said = None
        except Wrong as wrong:
            said = str(wrong)
        assert said == complaint or said and complaint and re.search(complaint, said, re.S), (text, complaint, said)


def test_no_block_reaches_another_broker(brokers, redis_server, rabbit, mosquitto):
    text = ("'redis://10.0.0.8:6379/1' 'amqp://app:secret@rabbit.example,other.example:5673/shop?heartbeat=5' "
            "'mqtts://x' 'wss://user@[::1]:8080/mqtt' 'redis:///run/redis.sock'")
    assert brokers.in_place(text) == (
        f"'redis://127.0.0.1:{redis_server.port}/1' 'amqp://guest:guest@127.0.0.1:{rabbit.port}/shop?heartbeat=5' "
        f"'mqtts://127.0.0.1:{mosquitto.tls_port}' 'wss://127.0.0.1:{mosquitto.wss_port}/mqtt' 'redis:///run/redis.sock'")
    assert brokers.in_place_for_shell("redis-cli -p 6379 xrange a - +") == f"redis-cli -p {redis_server.port} xrange a - +"


# Lists that are whole


def rows_of(page):
    """[(what the first cell names, with its arguments; the whole row)] of a page's tables."""
    lines = (TREE / "docs" / page).read_text().splitlines()
    return [(re.findall(r"`([^`]+)`", line.split(" | ")[0]), line) for line in lines if line.startswith("| `")]


def test_every_function_is_listed(db):
    """docs/functions.md names each function with its arguments, and none that does not exist."""
    functions = {}
    for name, arguments in db.run("""
            SELECT proname, coalesce((SELECT array_agg(arg) FROM unnest(proargnames[:pronargs]) AS arg), '{}')
            FROM pg_proc WHERE pronamespace = 'eventbus'::regnamespace"""):
        functions.setdefault(name, []).append(arguments)
    listed = {}
    for calls, _ in rows_of("functions.md"):
        for call in calls:
            if "(" in call:
                listed.setdefault(call.partition("(")[0], []).append(call)
    assert set(listed) == set(functions)
    for name, forms in functions.items():
        for arguments in forms:
            assert any(all(re.search(rf"\b{argument}\b", call) for argument in arguments) for call in listed[name]), (
                name, arguments, listed[name])


def test_every_view_is_listed_with_its_columns(db):
    columns = {}
    for view, column in db.run("""
            SELECT relname, attname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0
            WHERE relnamespace = 'eventbus'::regnamespace AND relkind = 'v' AND NOT attisdropped"""):
        columns.setdefault(view, set()).add(column)
    listed = {names[0]: set(re.findall(r"`(\w+)`", row)[1:]) for names, row in rows_of("functions.md") if "(" not in names[0]}
    assert set(listed) == set(columns)
    for view, names in columns.items():
        assert not names - listed[view], view


def test_every_setting_is_listed(db):
    listed = {names[0] for names, _ in rows_of("settings.md")}
    assert listed == {row[0] for row in db.run("SELECT name FROM pg_settings WHERE name LIKE 'eventbus.%%'")}

# What it is: workers that somebody ends, and settings of databases and roles that are theirs as well.
# Who calls it: pytest.
# Never: touches the cluster that other tests share.
import os

import pytest

from servers import PostgresCluster, eventually, wait_gone


@pytest.fixture(scope="module")
def cluster():
    with PostgresCluster(name="workers") as server:
        yield server


@pytest.fixture
def served(db, stream):
    db.publish("t", 0)
    stream(1)
    return db


def worker(db, kind):
    found = db.one("SELECT max(pid) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = %s",
                   f"pg_eventbus {kind}")
    return found


def delivers(db, redis_server, name, deadline=30):
    event = db.publish("t", "x")
    eventually(lambda: event in redis_server.stream_ids(name), deadline, "delivery resumes")


def end(db, pid):
    db.run("SELECT pg_terminate_backend(%s)", pid)
    wait_gone(pid)


def test_a_keeper_that_ends_before_it_has_looked(served, redis_server, name):
    """It has not found that there is no extension: the database is looked at again."""
    db = served
    with db.connect(autocommit=False) as holder, holder.cursor() as cursor:
        cursor.execute("LOCK TABLE eventbus.broker_config IN ACCESS EXCLUSIVE MODE")
        ended = None
        for _ in range(2):
            before = ended
            ended = eventually(lambda before=before: (pid := worker(db, "keeper")) != before and pid, 60, "a keeper runs")
            end(db, ended)
        holder.rollback()
    eventually(lambda: worker(db, "keeper"), 60, "there is a keeper again")
    end(db, db.sender("out"))
    delivers(db, redis_server, name, 60)


@pytest.mark.parametrize("kind", ["sender", "keeper"])
def test_who_is_terminated_is_back_soon_however_often(served, redis_server, name, kind):
    """What somebody ends has not failed: it is not waited for longer and longer, up to a minute."""
    pid = worker(served, kind)
    for _ in range(9):
        end(served, pid)
        pid = eventually(lambda: worker(served, kind), 12, f"the {kind} is back")
        delivers(served, redis_server, name)


@pytest.mark.parametrize("of", ["DATABASE {database}", "ROLE {role}", "ROLE {role} IN DATABASE {database}"])
@pytest.mark.parametrize("setting", ["role", "session_authorization"])
def test_workers_are_nobody_elses_role(served, cluster, redis_server, name, of, setting):
    """ALTER DATABASE SET role is for sessions; workers need the rights of the superuser that they are."""
    whose = of.format(database=f'"{served.name}"', role=cluster.superuser)
    weak = served.connect()
    cursor = weak.cursor()
    cursor.execute("DROP ROLE IF EXISTS weak")
    cursor.execute("CREATE ROLE weak")
    cursor.execute(f"ALTER {whose} SET {setting} = 'weak'")
    try:
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type ~ 'pg_eventbus (k|s)' "
                       "AND datname = current_database()")
        cursor.execute("SELECT eventbus.publish('t', '1')")
        event, = cursor.fetchone()
        eventually(lambda: str(event) in map(str, redis_server.stream_ids(name)), 30, "delivery resumes")
    finally:
        cursor.execute(f"ALTER {whose} RESET {setting}")
        weak.close()


def test_tables_are_restored_in_any_order(served, make_database, cluster, redis_server, name):
    """pg_restore -j loads route_config before broker_config, if it likes: the archive does not say which refers to which."""
    db = served
    archive, listing = (os.path.join(cluster.directory, f"{name}.{part}") for part in ("dump", "list"))
    cluster.program("pg_dump", "-Fc", "-f", archive, "-d", db.name)
    lines = cluster.program("pg_restore", "-l", archive).splitlines()
    of_routes, = [line for line in lines if "TABLE DATA eventbus route_config" in line]
    lines.remove(of_routes)
    at, = [at for at, line in enumerate(lines) if "TABLE DATA eventbus broker_config" in line]
    with open(listing, "w") as text:
        text.write("\n".join([*lines[:at], of_routes, *lines[at:]]))
    restored = make_database("restored", extension=False)
    cluster.program("pg_restore", "-L", listing, "--exit-on-error", "-d", restored.name, archive)
    restored.run("SELECT eventbus.adopt()")
    restored.wait_state("out", "active")
    delivers(restored, redis_server, name)
    # What else the references are for, continues.
    with pytest.raises(Exception, match="route"):
        restored.run("SELECT eventbus.drop_broker('redis')")
    restored.run("SELECT eventbus.drop_route('out')")
    assert restored.one("SELECT count(*) FROM eventbus.cursor") == 0
    restored.run("SELECT eventbus.drop_broker('redis')")

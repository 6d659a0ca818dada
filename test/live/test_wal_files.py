# What it is: what routes from the WAL have no room for in memory, where its files cannot be written or read, or grow.
# Who calls it: pytest.
# Never: lets a route that has no part in it are stalled, or accepts that anything is lost, twice or in disorder.
import contextlib
import glob
import json
import os
import subprocess

import pytest

from servers import PostgresCluster, eventually

from test_parked_keys import parked_keys, wait_parked_keys
from test_wal import WAL_SETTINGS, publish_wal, text_of
from test_wal_parked_keys import numbers_of, publish, publish_healthy, queues  # noqa: F401


@pytest.fixture(scope="module")
def cluster():
    with PostgresCluster(name="files", config=dict(WAL_SETTINGS, max_wal_size="'1GB'", autovacuum="off")) as server:
        yield server


def temporary(cluster):
    path = os.path.join(cluster.data, "base", "pgsql_tmp")
    if not os.path.isdir(path):
        os.mkdir(path, 0o700)
        owner = os.stat(cluster.data)
        os.chown(path, owner.st_uid, owner.st_gid)
    return path


@contextlib.contextmanager
def forbidden(cluster):
    """Whoever opens a temporary file is refused."""
    path = temporary(cluster)
    before = os.stat(path).st_mode
    os.chmod(path, 0)
    try:
        yield
    finally:
        os.chmod(path, before)


@contextlib.contextmanager
def no_directory(cluster):
    """A file stands where the directory was."""
    path = temporary(cluster)
    os.rename(path, f"{path}_away")
    with open(path, "w"):
        pass
    try:
        yield
    finally:
        os.unlink(path)
        os.rename(f"{path}_away", path)


@contextlib.contextmanager
def full(cluster, size="1m"):
    """A file can be begun; the disk is full soon. Afterwards there is a disk with room."""
    path = temporary(cluster)
    owner = os.stat(cluster.data)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700,uid={owner.st_uid},gid={owner.st_gid}",
                              "tmpfs", path])
    if mounted.returncode != 0:
        pytest.skip("this user may not mount a tmpfs")
    try:
        yield
        subprocess.run(["mount", "-o", "remount,size=1g", path], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def fix(disk):
    """Leaves the trouble, but for a full disk, which is there until the test ends."""
    with contextlib.suppress(StopIteration):
        next(disk.gen)


@pytest.fixture(params=[forbidden, no_directory, full])
def disk(request, cluster):
    """disk(): there is trouble from now on; returns what ends it."""
    disks = []

    def begin(**arguments):
        disks.append(request.param(cluster, **arguments))
        disks[-1].__enter__()
        return lambda: fix(disks[-1])

    yield begin
    for each in disks:
        each.gen.close()


def two_routes(db, redis_server, name):
    """Beside one that is paused one that moves, and one from the log."""
    db.run("CREATE TABLE item (id int PRIMARY KEY, words text)")
    db.broker("redis", redis_server.url)
    for which in ("moves", "stands"):
        db.route(which, "redis", f"stream:{name}-{which}", "public.item.#", source="wal")
        db.wait_state(which, "active", deadline=60)
    db.route("log", "redis", f"stream:{name}-log", "log.#")
    db.run("SELECT eventbus.pause_route('stands')")
    db.wait_state("stands", "paused")


def insert(db, first, last):
    """In small transactions: the decoder needs no file for them."""
    for begin in range(first, last + 1, 1000):
        db.run("INSERT INTO item SELECT g, repeat('x', 300) FROM generate_series(%s, %s) g", begin,
               min(begin + 999, last))


def keys(redis_server, name):
    return [text_of(entry).get("key") for entry in redis_server.stream(name)]


def assert_all(redis_server, name, rows):
    eventually(lambda: redis_server.client().xlen(name) >= rows, 120, f"{rows} entries of {name}")
    assert keys(redis_server, name) == [str(n) for n in range(1, rows + 1)]


def test_a_file_that_cannot_be_written_stops_its_route_alone(db, redis_server, name, cluster, told, disk):
    two_routes(db, redis_server, name)
    sender, rows = db.sender("moves"), 60000
    fixed = disk()
    insert(db, 1, rows)
    assert_all(redis_server, f"{name}-moves", rows)
    shown = db.wait_status("stands", 60, state="paused", last_error=lambda text: text and "temporary file" in text)
    assert shown["last_error_at"] and shown["delivered"] == 0
    assert db.wait_status("moves", 60, state="active", lag=lambda lag: not lag)["last_error"] is None
    assert any("temporary file" in check["detail"] for check in db.health() if check["name"] == "route stands")
    db.publish("log.x", 1)
    db.wait_status("log", 60, delivered=1)
    insert(db, rows + 1, rows + 20000)
    assert_all(redis_server, f"{name}-moves", rows + 20000)
    assert len(told("WARNING")) == 1 and told("WARNING", '"stands"', "has fallen behind", "temporary file")
    fixed()
    db.run("SELECT eventbus.resume_route('stands')")
    assert_all(redis_server, f"{name}-stands", rows + 20000)
    assert_all(redis_server, f"{name}-moves", rows + 20000)
    db.wait_status("stands", 60, state="active", lag=lambda lag: not lag)
    assert db.sender("moves") == sender, "the sender has continued all the while"
    assert told("LOG", '"stands"', "resumes") and len(told("WARNING")) == 1


def test_a_route_that_moves_gets_all_without_a_file(db, redis_server, name, cluster, told):
    """It is resumed while the disk is still full: it has memory to continue with."""
    two_routes(db, redis_server, name)
    with forbidden(cluster):
        insert(db, 1, 40000)
        db.wait_status("stands", 60, last_error=lambda text: text and "temporary file" in text)
        db.run("SELECT eventbus.resume_route('stands')")
        for which in ("stands", "moves"):
            assert_all(redis_server, f"{name}-{which}", 40000)
        db.wait_status("stands", 60, state="active")


def test_a_sender_that_ends_meanwhile_loses_nothing(db, redis_server, name, cluster):
    """The slot holds whatever waits in a file, or should."""
    two_routes(db, redis_server, name)
    with forbidden(cluster):
        insert(db, 1, 40000)
        db.wait_status("stands", 60, last_error=lambda text: text and "temporary file" in text)
        pid = db.sender("moves")
        db.run("SELECT pg_terminate_backend(%s)", pid)
        db.wait_status("moves", 60, sender_pid=lambda now: now not in (None, pid))
        insert(db, 40001, 50000)
        assert_all(redis_server, f"{name}-moves", 50000)
    db.run("SELECT eventbus.resume_route('stands')")
    assert_all(redis_server, f"{name}-stands", 50000)


def files_of(pid):
    """The temporary files that a process has open: their /proc paths, and how long they are."""
    found = {}
    for path in glob.glob(f"/proc/{pid}/fd/*"):
        with contextlib.suppress(FileNotFoundError):
            if "pgsql_tmp" in os.readlink(path):
                found[path] = os.stat(path).st_size
    return found


@pytest.mark.parametrize("damage", ["cut", "overwrite"])
def test_a_file_that_was_damaged_is_read_again_from_the_wal(db, redis_server, name, told, damage):
    two_routes(db, redis_server, name)
    sender, rows = db.sender("moves"), 60000
    insert(db, 1, rows)
    assert_all(redis_server, f"{name}-moves", rows)
    files = eventually(lambda: files_of(sender), 60, "there is a file")
    for path, size in files.items():
        os.truncate(path, 0)
        if damage == "overwrite":
            os.truncate(path, size)
    db.run("SELECT eventbus.resume_route('stands')")
    assert_all(redis_server, f"{name}-stands", rows)
    insert(db, rows + 1, rows + 1000)
    for which in ("stands", "moves"):
        assert_all(redis_server, f"{name}-{which}", rows + 1000)
    db.wait_status("stands", 60, state="active")
    assert db.sender("moves") == sender
    assert len(told("WARNING")) == 1 and told("WARNING", '"stands"', "temporary file")


def space_of(paths):
    """What files that may be closed by now take on disk."""
    space = 0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            space += os.stat(path).st_blocks * 512
    return space


def test_a_route_that_always_lags_uses_little_disk(db, redis_server, make_proxy, name):
    """What has been read of its file is given back before all of it has been."""
    size, lag, total = 100_000, 200, 2500
    proxy = make_proxy(redis_server)
    proxy.delay(0.003)
    db.broker("redis", f"redis://127.0.0.1:{proxy.port}")
    db.route("slow", "redis", f"channel:{name}-slow", "slow.#", source="wal", order="strict")
    db.route("other", "redis", f"channel:{name}-other", "other.#", source="wal")
    for which in ("slow", "other"):
        db.wait_state(which, "active", deadline=60)
    db.run("SELECT eventbus.pause_route('slow')")
    db.wait_state("slow", "paused")
    sender, published = db.sender("slow"), 0

    def publish_some():
        nonlocal published
        db.run("SELECT count(eventbus.publish_wal('slow.x', to_jsonb(repeat('x', %s)), 'one')) "
               "FROM generate_series(1, 20)", size)
        published += 20

    while published < 2 * lag:
        publish_some()
    eventually(lambda: files_of(sender), 60, "there is a file")
    db.run("SELECT eventbus.resume_route('slow')")
    largest, empty = 0, 0
    while published < total:
        behind = published - db.status("slow")["delivered"]
        if behind < 2 * lag:
            publish_some()
        files = files_of(sender)
        empty += not files
        largest = max(largest, space_of(files))
    assert not empty, "it has caught up, and that shows nothing"
    assert size * lag < largest < size * 2 * lag + 40e6, f"{largest / 1e6} MB on disk of {size * total / 1e6} MB"
    db.wait_status("slow", 120, delivered=total)
    eventually(lambda: not files_of(sender), 60, "nothing is left of it")


def big(db, count, key):
    """Refused like others of its topic; a few of them fill a small disk."""
    numbers = publish(db, "full.t", count, f"'{key}'")
    db.run("SELECT count(eventbus.publish_wal('full.big', to_jsonb(repeat('x', 30000)), %s)) FROM generate_series(1, 40)",
           key)
    return numbers


@pytest.mark.parametrize("parted", ["already", "at that moment"])
def test_a_key_whose_file_fails_waits_alone(db, rabbit, queues, name, cluster, told, parted):
    """There is no room for what comes of it, or for what has come when it is put aside, nor is there for a while."""
    sender = db.sender("out")
    healthy, stuck = publish_healthy(db, 20), publish(db, "full.t", 20, "'stuck'")
    disk = full(cluster, "256k")
    if parted == "already":
        healthy += publish_healthy(db, 200)
        wait_parked_keys(db, 1)
    disk.__enter__()
    try:
        stuck += big(db, 20, "stuck")
        healthy += publish_healthy(db, 200)
        db.wait_error("out", "temporary file")
        healthy += publish_healthy(db, 2000)
        db.wait_status("out", 60, delivered=lambda count: count >= len(healthy))
        assert told("WARNING", '"out"', "has fallen behind", "temporary file")
        assert db.sender("out") == sender and len(parked_keys(db)) == 1
        fix(disk)
        taken = []

        def all_came():
            taken.extend(rabbit.take_until_idle(f"{queues}_full"))
            return sum(len(body) > 10000 for _, body, _ in taken) >= 40
        eventually(all_came, 120, "all of the key arrives")
        small = [json.loads(body) for _, body, _ in taken if len(body) < 10000]
        assert small == stuck and len(taken) == len(stuck) + 40
        wait_parked_keys(db, 0)
        assert sorted(numbers_of(rabbit.take_until_idle(f"{queues}_rest"))) == healthy, "each once"
        assert db.sender("out") == sender
    finally:
        disk.gen.close()


def test_an_event_that_memory_does_not_suffice_for_is_a_dead_letter(db, redis_server, name, told):
    """It ends no sender: its routes are `failing` for a minute, then it is given without its payload."""
    db.run("CREATE TABLE item (id int PRIMARY KEY, words text)")
    db.broker("redis", redis_server.url)
    db.route("out", "redis", f"stream:{name}", "public.item.#", source="wal")
    db.route("log", "redis", f"stream:{name}-log", "log.#")
    db.wait_state("out", "active", deadline=60)
    insert(db, 1, 1)
    assert_all(redis_server, name, 1)
    sender = db.sender("out")
    with open(f"/proc/{sender}/status") as status:
        used = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmSize"))
    owner = os.stat(f"/proc/{sender}")
    subprocess.run(["prlimit", f"--pid={sender}", f"--as={used + 60_000_000}:"], user=owner.st_uid, group=owner.st_gid,
                   check=True)
    db.run("INSERT INTO item VALUES (2, repeat('x', 100000000))")
    insert(db, 3, 1000)
    db.wait_status("out", 60, state="failing", last_error=lambda text: text and "out of memory" in text)
    db.publish("log.x", 1)
    db.wait_status("log", 60, delivered=1)
    letter = db.wait_dead("out", deadline=150)[0]
    assert letter["key"] == "2" and letter["incomplete"] and "out of memory" in letter["error"]
    eventually(lambda: redis_server.client().xlen(name) == 999, 60, "all others arrive")
    assert keys(redis_server, name) == [str(n) for n in range(1, 1001) if n != 2]
    db.wait_status("out", 60, state="active", lag=lambda lag: not lag)
    assert db.sender("out") == sender and len(told("WARNING", "out of memory for an event")) == 1

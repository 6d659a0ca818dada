# What it is: routes from the WAL while everything happens at once, compared with a slot of the plugin that is read after it.
# Who calls it: pytest; CHAOS_SEED=n repeats a seed, FULL=1 makes it five minutes.
# Never: says less than all: what is compared is every event, its id, its place in the order, and its content.
import json
import os
import random
from collections import Counter

import pytest

from chaos import TABLES, Chaos, expected
from servers import PostgresCluster, eventually

from test_wal import WAL_SETTINGS, text_of

SEED = int(os.environ.get("CHAOS_SEED") or random.randrange(1 << 30))
SECONDS = 300 if os.environ.get("FULL") else 20


@pytest.fixture(scope="module")
def cluster():
    with PostgresCluster(name="chaos", config=dict(WAL_SETTINGS, fsync="on", max_prepared_transactions="20",
                                                   max_wal_size="'2GB'", log_statement="none")) as server:
        yield server


def arrived(redis_server, stream):
    """Each event once. One that came again is shown as it stands there: the entries' ids tell when it was added, and
    which other events were then, the time whether it was looked for as another one."""
    entries = redis_server.client().xrange(stream)
    times = Counter(fields[b"id"] for _, fields in entries)
    twice = [place for place, (_, fields) in enumerate(entries) if times[fields[b"id"]] > 1]
    around = sorted({place + near for place in twice[:6] for near in (-1, 0, 1)} & set(range(len(entries))))
    shown = [(place, entries[place][0], {name: value[:200] for name, value in entries[place][1].items()}) for place in around]
    assert not twice, f"{stream}: {len(twice)} of {len(entries)} entries have an id that others have, too: {shown} (seed {SEED})"
    events = [text_of({name.decode(): value for name, value in fields.items()}) for _, fields in entries]
    return [(e["id"], e["topic"], json.loads(e["payload"])) for e in events]


def first_difference(got, wanted):
    for at, (one, other) in enumerate(zip(got, wanted)):
        if one != other:
            return f"at {at}: got {one}, the slot says {other}"
    return f"{len(got)} instead of {len(wanted)}: {(got[len(wanted):] or wanted[len(got):])[:1]}"


def parts(events):
    """Rows, and messages. PostgreSQL gives the slot a message with the LSN of its end, where the next record begins, and so
    puts it behind the changes of that one where they are another subtransaction's; test_wal_ids.py knows the order."""
    own = [event[0].split("-")[0:1] + list(event[1:]) for event in events]
    return [e for e in own if e[1].startswith("public.")], [e for e in own if not e[1].startswith("public.")]


def compare(got, wanted, lone, what, whole=True):
    """Messages of no transaction stand somewhere in between, in their own order, each with an id of its own."""
    alone = [(topic, content) for _, topic, content in got if topic == "chaos.now"]
    assert alone == lone, f"{what}, of no transaction: {first_difference(alone, lone)} (seed {SEED})"
    rest = [event for event in got if event[1] != "chaos.now"]
    shown = slice(None) if whole else slice(0, 1)  # of a part of the events only the commits' places can be told
    assert [e[0].split("-")[shown] for e in rest] == [e[0].split("-")[shown] for e in wanted], \
        f"{what}: {first_difference(rest, wanted)} (seed {SEED})"
    for these, those in zip(parts(rest), parts(wanted)):
        assert these == those, f"{what}: {first_difference(these, those)} (seed {SEED})"


def test_everything_at_once(db, redis_server, name):
    for table in TABLES:
        db.run(f"CREATE TABLE {table} (id int PRIMARY KEY, words text)")
    db.broker("first", redis_server.url)
    db.broker("second", redis_server.url)
    db.route("all", "first", f"stream:{name}-all", source="wal", format="wal2json")
    db.route("some", "first", f"stream:{name}-some", "public.wide.#, chaos.own", source="wal", format="wal2json")
    db.route("aside", "second", f"stream:{name}-aside", source="wal", format="wal2json")
    for route in ("all", "some", "aside"):
        db.wait_state(route, "active", deadline=60)
    db.run("SELECT pg_create_logical_replication_slot('afterwards', 'pg_eventbus')")
    chaos = Chaos(db, name, SEED, SECONDS)
    chaos.run()
    assert sum(writer.transactions for writer in chaos.writers) > 3 * SECONDS and len(chaos.done) > SECONDS / 3, chaos.done
    db.reconnect()
    end = db.one("SELECT pg_current_wal_insert_lsn()")
    eventually(lambda: db.one("SELECT eventbus.wait_for_delivery(%s::pg_lsn, '10 s')", end), 300, "all is delivered")
    rows = db.run("SELECT data FROM pg_logical_slot_get_binary_changes('afterwards', NULL, NULL, 'format', 'wal2json', "
                  "'format-version', '2', 'include-transaction', 'true', 'include-lsn', 'true')")
    wanted, lone = expected(rows)
    assert not db.one("SELECT count(*) FROM eventbus.dead_letter")
    compare(arrived(redis_server, f"{name}-all"), wanted, lone, "route all")
    compare(arrived(redis_server, f"{name}-aside"), wanted, lone, "route aside, of another broker")
    some = [event for event in wanted if event[1].startswith("public.wide.") or event[1] == "chaos.own"]
    compare(arrived(redis_server, f"{name}-some"), some, [], "route some", whole=False)
    places = {event[0]: place for place, event in enumerate(wanted)}
    for number in range(1, chaos.passing + 1):
        got = [event for event in arrived(redis_server, f"{name}-passing-{number}") if event[1] != "chaos.now"]
        if got:  # no gap from its first event to its last
            first = places[got[0][0]]
            compare(got, wanted[first:first + len(got)], [], f"route passing {number}")

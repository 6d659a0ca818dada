# What it is: a million publishes in one statement, against INSERT INTO outbox SELECT of the same rows.
# Who calls it: bench/run.
# Never: times the making of the rows; they stand in a table.
import time

from harness import load, table


def _timed(world, statement):
    world.prepare()
    begun = time.monotonic()
    world.sql(statement)
    return world.events / (time.monotonic() - begun)


def run(world):
    world.sql("DROP TABLE IF EXISTS source")
    world.sql("CREATE TABLE source AS SELECT %s::text AS topic, %s::jsonb AS payload FROM generate_series(1, %s)",
              load.TOPIC, load.PAYLOAD, world.events)
    world.sql("VACUUM ANALYZE source")
    theirs, ours = [], []
    for _ in range(world.runs):
        theirs.append(_timed(world, "INSERT INTO outbox (topic, payload) SELECT topic, payload FROM source"))
        ours.append(_timed(world, "SELECT count(eventbus.publish(topic, payload)) FROM source"))
        world.say(f"theirs {theirs[-1]:.0f} rows/s, ours {ours[-1]:.0f} rows/s")
    world.sql("DROP TABLE source")
    yield table.compare(f"{world.events} publishes in one statement : INSERT INTO outbox SELECT", theirs, ours,
                        "rows/s", at_least=0.9)

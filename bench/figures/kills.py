# What it is: what a Redis stream holds twice, or not at all, after its sender was killed 50 times at 2 000 events/s.
# Who calls it: bench/run.
# Never: counts a kill that hit nobody.
from harness import table
from harness.world import Database, kill_senders

KILLS = 50
RATE = 2000


def run(world):
    database = Database(world.cluster, "kills")
    try:
        counted = kill_senders(database, world.redis, "kills", KILLS, RATE)
    finally:
        database.drop()
    world.say(", ".join(f"{number} {name}" for name, number in counted.items()))
    for what in ("duplicates", "lost"):
        yield table.Row(f"{KILLS} times kill -9 of a sender at {RATE} events/s into a Redis stream: {what}",
                        None, counted[what], "events", bound="≤ 0", met=counted[what] == 0, detail=counted,
                        note=f"{counted['events']} events; {counted['repeated']} were sent again, as a list beside the"
                             " stream shows" if what == "duplicates" else "")
    assert counted["invented"] == counted["disordered"] == 0, counted

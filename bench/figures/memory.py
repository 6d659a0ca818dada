# What it is: a sender's resident memory above idle, while it drains a long backlog and one huge transaction.
# Who calls it: bench/run.
# Never: counts shared buffers as the sender's own (VmRSS, which does, is in the note).
import re
import threading

from harness import load, table

LIMIT_MB = 64


def _resident(pid):
    """(own, with shared memory) in MB."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as text:
        kb = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB", text.read(), re.M)}
    return (kb["RssAnon"] + kb["RssFile"]) / 1024, kb["VmRSS"] / 1024


class _Watch:
    """Samples a process every 100 ms, in a thread of its own."""

    def __init__(self, pid):
        self.pid = pid
        self.samples = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._over.wait(0.1):
            self.samples.append(_resident(self.pid))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def peak(self):
        return max(own for own, _ in self.samples), max(whole for _, whole in self.samples)


def _row(world, what, idle, watch):
    peak, whole = watch.peak()
    if world.status()["sender_pid"] != watch.pid:
        raise AssertionError("the sender was not the same all the time")
    above = peak - idle[0]
    return table.Row(f"sender's memory above idle, {what}", idle[0], above, "MB", bound=f"≤ {LIMIT_MB}",
                     met=above <= LIMIT_MB,
                     note=f"baseline: idle; RssAnon + RssFile; with shared memory {idle[1]:.0f} → {whole:.0f} MB",
                     detail={"idle": idle, "peak": peak, "peak_rss": whole, "samples": watch.samples})


def run(world):
    # Trimmed, so that Redis does not have to hold them all.
    world.redis_route(options={"maxlen": 100_000})
    world.publish_batches(1000, clients=1)
    world.wait_added(1000)
    world.prepare()
    pid = world.status()["sender_pid"]
    idle = _resident(pid)

    world.sql("SELECT eventbus.pause_route('bench')")
    before = world.added()
    with _Watch(pid) as watch:
        world.publish_batches(world.memory_events)
        world.say(f"{world.memory_events} published")
        world.sql("SELECT eventbus.resume_route('bench')")
        world.wait_added(before + world.memory_events, 600)
    yield _row(world, f"draining {world.memory_events}", idle, watch)

    world.prepare()
    before = world.added()
    with _Watch(pid) as watch:
        world.sql("SELECT count(eventbus.publish(%s, %s)) FROM generate_series(1, %s)", load.TOPIC, load.PAYLOAD,
                  world.events)
        world.wait_added(before + world.events, 600)
    yield _row(world, f"one transaction of {world.events}", idle, watch)

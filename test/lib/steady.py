# What it is: a steady stream of events of many keys, and how much of it arrives while something else is broken.
# Who calls it: the live tests of faults.
# Never: compares absolute speeds: a window during the fault is held against one before it, in shares of what was
# published meanwhile.
import json
import threading
import time

from processes import eventually

WINDOW = 4.0   # seconds
ENOUGH = 0.95  # of what arrived before the fault
TRIES = 3      # a window that a busy machine has spoiled is tried again; a stall spoils them all


class Steady:
    """Publishes events round robin over the keys at a constant rate; payload {"key": key, "n": n}, n counting up
    from 1 within the key.

        with Steady(db, sick=["bad"]) as steady:              # 20 healthy keys and one that the fault is about
            steady.watch("second route", lambda: bodies)      # all payloads that have arrived so far, in order
            before = steady.before()
            ...                                               # break something
            steady.goes_on(before)                            # what is watched gets 95 % of before, of healthy keys
            ...                                               # fix it
        steady.check(lambda: bodies)                          # nothing lost, nothing invented, order within each key

    topics: key -> topic, where it is not "steady". more: key -> what its payloads hold beside key and n. window: how
    long is measured, in seconds."""

    def __init__(self, db, keys=20, rate=100, sick=(), topics=None, more=None, window=WINDOW):
        self.healthy = {f"k{number}" for number in range(keys)}
        self.keys = [*sorted(self.healthy), *sick]
        self.published = dict.fromkeys(self.keys, 0)  # key -> the n that was committed last
        self._rate, self._topics, self._more, self._window = rate, topics or {}, more or {}, window
        self._watched = {}
        self._db, self._connection = db, db.connect()
        self._stopping, self._error = threading.Event(), None
        self._thread = threading.Thread(target=self._publish, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop()
        self._connection.close()

    def stop(self):
        """Publishes no more."""
        self._stopping.set()
        self._thread.join()

    def _publish(self):
        begun, done = time.monotonic(), 0
        try:
            while not self._stopping.wait(0.01):
                due = int((time.monotonic() - begun) * self._rate)
                for number in range(done, due):
                    self._publish_one(self.keys[number % len(self.keys)])
                done = due
        except Exception as error:  # told by the next who looks
            self._error = error

    def _publish_one(self, key):
        n = self.published[key] + 1
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT eventbus.publish(%s, %s::jsonb, %s)",
                           (self._topics.get(key, "steady"),
                            json.dumps({"key": key, "n": n, **self._more.get(key, {})}), key))
        self.published[key] = n

    def count(self):
        """How many events have been published."""
        if self._error:
            raise self._error
        return sum(self.published.values())

    def publish_more(self, count, deadline=60):
        """Waits until so many more have been published."""
        target = self.count() + count
        eventually(lambda: self.count() >= target, deadline, f"{count} more events are published")

    # What is delivered beside a fault

    def watch(self, name, bodies):
        self._watched[name] = bodies

    def before(self):
        """Waits until everything that is watched gets events of all healthy keys, then measures a window."""
        for name, bodies in self._watched.items():
            eventually(lambda: {key for key, _ in decode(bodies())} >= self.healthy, 60,
                       f"{name} gets events of every healthy key")
        shares = self.window()
        assert min(shares.values()) > 0.5, f"the control: events arrive before the fault: {shares}; {self._routes()}"
        return shares

    def window(self):
        """name -> arrived in a window, as a share of what was published in it; healthy keys only."""
        start = self._now()
        end_of_window = time.monotonic() + self._window
        eventually(lambda: time.monotonic() >= end_of_window, self._window * 10)
        end = self._now()
        shares = {}
        for name, (published, arrived) in end.items():
            first_published, first_arrived = start[name]
            assert published > first_published, "nothing was published"
            shares[name] = (arrived - first_arrived) / (published - first_published)
        return shares

    def _now(self):
        self.count()
        return {name: (sum(self.published[key] for key in self.healthy),
                       len({one for one in decode(bodies()) if one[0] in self.healthy}))
                for name, bodies in self._watched.items()}

    def goes_on(self, before):
        """Everything that is watched gets events at 95 % of its rate or more. The lowest ratio."""
        tried = []
        while True:
            tried.append({name: share / min(before[name], 1.0) for name, share in self.window().items()})
            if min(tried[-1].values()) >= ENOUGH:
                return min(tried[-1].values())
            assert len(tried) < TRIES, \
                f"windows during the fault, against the one before it ({before}): {tried}; {self._routes()}"

    def _routes(self):
        shown = ("route", "state", "in_flight", "lag", "last_error")
        return [{name: str(row[name]) for name in shown} for row in self._db.rows("SELECT * FROM eventbus.status")]

    # In the end

    def just_now(self):
        """What was published last, is being published or comes next: one event before and one behind, of each key."""
        return {(key, n) for key, last in self.published.items() for n in range(last - 1, last + 2)}

    def check(self, bodies, deadline=60, but=(), forgiven=(), duplicates=True):
        """Everything published has arrived or arrives, nothing else, and in order within each key, where a repetition
        does not count. but: keys that are left out of account. forgiven: events that may be missing. duplicates:
        whether there may be repetitions."""
        expected = {(key, n) for key, last in self.published.items() if key not in but for n in range(1, last + 1)}

        def counted():
            return [one for one in decode(bodies()) if one[0] not in but]

        def there():
            lost = expected - set(counted()) - set(forgiven)
            assert not lost, f"{len(lost)} of {len(expected)} are missing, such as {sorted(lost)[:5]}"
            return True
        eventually(there, deadline, "every event has arrived")
        arrived = counted()
        firsts = list(dict.fromkeys(arrived))
        assert set(firsts) <= expected, f"invented: {sorted(set(firsts) - expected)[:5]}"
        assert duplicates or len(firsts) == len(arrived), f"{len(arrived) - len(firsts)} duplicates"
        for key in self.keys:
            order = [n for other, n in firsts if other == key]
            assert order == sorted(order), f"key {key} is out of order: {order}"


def decode(bodies):
    """Payloads as (key, n)."""
    return [(body["key"], body["n"]) for body in map(json.loads, bodies)]

# What it is: a publisher that keeps a steady pace beside what a figure does.
# Who calls it: the figures.
# Never: catches up by publishing faster than its pace.
import threading
import time


class Publisher(threading.Thread):
    """Runs a statement, which says how many events it has published, every so many seconds on a connection of its own,
    for as long as the with block lasts."""

    def __init__(self, database, statement, every):
        super().__init__()
        self.published = 0
        self._statement, self._every = statement, every
        self._connection, self._stopping = database.connect(), threading.Event()

    def run(self):
        due = time.monotonic()
        with self._connection.cursor() as cursor:
            while not self._stopping.wait(max(0.0, due - time.monotonic())):
                cursor.execute(self._statement)
                self.published += cursor.fetchone()[0]
                due = max(due + self._every, time.monotonic() - self._every)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self.join()
        self._connection.close()

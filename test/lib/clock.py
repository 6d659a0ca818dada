# What it is: a wall clock that a test sets back and forward while the servers that were started with it run.
# Who calls it: live tests of what a clock that jumps does: PostgresCluster(environment=clock.environment).
# Never: changes the time of anybody else, or a clock that only runs on.
import mmap
import os
import struct
import subprocess

from processes import make_directory, remove_directory

SOURCE = os.path.join(os.path.dirname(__file__), "clock.c")


class Clock:
    """With `with`; jump(-3600) sets it back an hour, at once and for all processes that were started with its
    environment, also for those that they start."""

    def __init__(self):
        self.directory = make_directory("clock")
        library, path = (os.path.join(self.directory, name) for name in ("clock.so", "offset"))
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library, SOURCE, "-ldl"], check=True)
        self.file = open(path, "w+b")
        self.file.write(bytes(8))
        self.file.flush()
        os.chmod(path, 0o644)
        self.map = mmap.mmap(self.file.fileno(), 8)
        self.environment = {"LD_PRELOAD": library, "EVENTBUS_TEST_CLOCK": path}

    @property
    def offset(self):
        """In seconds, against the time of everybody else."""
        return struct.unpack("q", self.map[:])[0] / 1e6

    def set(self, offset):
        self.map[:] = struct.pack("q", round(offset * 1e6))

    def jump(self, seconds):
        self.set(self.offset + seconds)

    def remove(self):
        self.map.close()
        self.file.close()
        remove_directory(self.directory)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()

# What it is: private processes, their directories and ports, and how a test waits for something.
# Who calls it: the servers beside it, the live tests, the demo.
# Never: uses a default port, ends a process by its name, or leaves one behind.
import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import guardian

_handed_out = set()
_guardian = None
_watched = {}
_directories = set()


def free_port():
    """A loopback TCP port that nobody listens on; never the same one twice. Below the range from which the kernel
    takes the ports of outgoing connections, or one of those could sit on it while its server is restarted."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            if port not in _handed_out and probe.connect_ex(("127.0.0.1", port)) != 0:
                _handed_out.add(port)
                return port


def eventually(predicate, deadline=30.0, why=""):
    """Polls until the predicate returns something true, and returns that; AssertionError after the deadline.
    An AssertionError raised by the predicate itself counts as "not yet"."""
    end, last = time.monotonic() + deadline, None
    while True:
        try:
            last = predicate()
            if last:
                return last
        except AssertionError as error:
            last = error
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline} s: {why or 'it never came true'}; last seen: {last!r}")
        time.sleep(0.02)


def stays(predicate, seconds, why=""):
    """Asserts that the predicate holds all the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert predicate(), why or "it did not stay so"
        time.sleep(0.02)


def wait_gone(pid, deadline=60, why="it is gone"):
    """Until a process has ended. pg_stat_activity does not tell within a transaction: it shows one moment all along."""
    eventually(lambda: not os.path.exists(f"/proc/{pid}"), deadline, f"{pid}: {why}")


def _tell(line):
    global _guardian
    if _guardian is None:
        _guardian = subprocess.Popen([sys.executable, guardian.__file__], stdin=subprocess.PIPE, text=True,
                                     bufsize=1, start_new_session=True)
    _guardian.stdin.write(line + "\n")


def release_all():
    """What runs is to stay when this program ends. Returns what end_released() needs to end it later."""
    _tell("release")
    return {"processes": {str(pid): list(known) for pid, known in _watched.items()},
            "directories": sorted(_directories)}


def end_released(kept):
    guardian.end_all({int(pid): tuple(known) for pid, known in kept["processes"].items()})
    for directory in kept["directories"]:
        shutil.rmtree(directory, ignore_errors=True)


def still_runs(kept):
    return any(guardian.start_time(pid) == start for pid, (start, _) in kept["processes"].items())


def make_directory(name, owner=None, mode=0o755):
    """A new directory under /tmp that goes when the run goes."""
    path = tempfile.mkdtemp(prefix=f"eventbus-{name}-", dir="/tmp")
    os.chmod(path, mode)
    if owner:
        account = pwd.getpwnam(owner)
        os.chown(path, account.pw_uid, account.pw_gid)
    _directories.add(path)
    _tell(f"dir {path}")
    return path


def remove_directory(path):
    shutil.rmtree(path, ignore_errors=True)
    _directories.discard(path)
    _tell(f"undir {path}")


class Process:
    """One child process in a session of its own, its output in a file."""

    def __init__(self, command, log, user=None, environment=None, gentle=signal.SIGTERM, directory="/"):
        self.command, self.log_path, self.gentle = command, log, gentle
        switch = {}
        if user:
            account = pwd.getpwnam(user)
            switch = {"user": account.pw_uid, "group": account.pw_gid,
                      "extra_groups": os.getgrouplist(user, account.pw_gid)}
        with open(log, "ab") as output:
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                          start_new_session=True, env=environment, cwd=directory, **switch)
        self.pid = self.child.pid
        self.start = guardian.start_time(self.pid)
        if self.start is not None:
            _watched[self.pid] = (self.start, int(gentle))
            _tell(f"watch {self.pid} {self.start} {int(gentle)}")

    def running(self):
        return self.child.poll() is None

    def sockets(self):
        """How many it has open."""
        directory, count = f"/proc/{self.pid}/fd", 0
        for fd in os.listdir(directory):
            with contextlib.suppress(FileNotFoundError):  # closed since
                count += os.readlink(f"{directory}/{fd}").startswith("socket:")
        return count

    def signal(self, number):
        """To the process and its group."""
        if self.running():
            os.killpg(self.pid, number)

    def wait(self, seconds=30):
        """The time it took to end, in seconds; SIGKILL and AssertionError when it does not."""
        begun = time.monotonic()
        try:
            self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.child.wait()
            raise AssertionError(f"{self.command[0]} did not end within {seconds} s") from None
        finally:
            _watched.pop(self.pid, None)
            _tell(f"forget {self.pid}")
        return time.monotonic() - begun

    def end(self, number=None, seconds=30):
        self.signal(number or self.gentle)
        return self.wait(seconds)

    def wait_ready(self, probe, deadline=60):
        """Until probe() is true; says what the log says when the process dies instead."""
        def ready():
            if not self.running():
                raise RuntimeError(f"{self.command[0]} ended with {self.child.returncode}:\n{tail(self.log_path)}")
            return probe()
        eventually(ready, deadline, f"{self.command[0]} is ready; its log:\n{tail(self.log_path)}")


def tail(path, lines=40):
    try:
        with open(path, errors="replace") as text:
            return "".join(text.readlines()[-lines:])
    except OSError:
        return ""

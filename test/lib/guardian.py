# What it is: a watcher beside a test run: when the run is gone, it ends what the run left behind.
# Who calls it: processes.py starts it as a program of its own and talks to it over its standard input.
# Never: ends a process that was not handed to it (a pid's start time is checked, so reuse is harmless).
"""Lines read: `watch PID START SIGNAL`, `forget PID`, `dir PATH`, `undir PATH`, `release`. End of file: clean up."""
import os
import shutil
import signal
import sys
import time


def start_time(pid):
    """The kernel's start time of a process in clock ticks, or None when it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def send(pid, start, number):
    """Signals the process, and its whole group where it leads one."""
    if start_time(pid) != start:
        return
    try:
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
    except ProcessLookupError:
        pass


def end_all(processes, patience=5.0):
    """processes: pid -> (start time, gentle signal). Gently first, SIGKILL for what remains."""
    for pid, (start, number) in processes.items():
        send(pid, start, number)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and any(start_time(p) == s for p, (s, _) in processes.items()):
        time.sleep(0.05)
    for pid, (start, _) in processes.items():
        send(pid, start, signal.SIGKILL)


def main():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    processes, directories = {}, set()
    for line in sys.stdin:
        word, *rest = line.rstrip("\n").split(" ")
        if word == "watch":
            processes[int(rest[0])] = (int(rest[1]), int(rest[2]))
        elif word == "forget":
            processes.pop(int(rest[0]), None)
        elif word == "dir":
            directories.add(rest[0])
        elif word == "undir":
            directories.discard(rest[0])
        elif word == "release":
            return
    end_all(processes)
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()

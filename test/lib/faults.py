# What it is: faults that befall the sender of route "out"; each waits until another one is there.
# Who calls it: the live tests of routes from the WAL.
# Never: waits before it has called `then`, which looks at how things stand when the fault strikes.
import os
import signal

import psycopg2

from processes import eventually


def kill_sender(db, then=lambda: None):
    pid = db.sender("out")
    os.kill(pid, signal.SIGKILL)
    then()

    def another():
        try:
            db.reconnect()
            return (db.status("out") or {}).get("sender_pid") not in (None, pid)
        except psycopg2.Error:  # the server is about to restart, or does
            return False

    eventually(another, 60, "the server is back, and another sender")


def kill_postmaster(db, then=lambda: None):
    db.cluster.kill_postmaster()
    then()
    db.cluster.start()
    db.reconnect()


def terminate_sender(db, then=lambda: None):
    pid = db.sender("out")
    db.run("SELECT pg_terminate_backend(%s)", pid)
    then()
    eventually(lambda: (db.status("out") or {}).get("sender_pid") not in (None, pid), 60, "another sender")

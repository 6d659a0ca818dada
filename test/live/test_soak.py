# What it is: a while of random disasters under load, on servers of its own. SOAK_SECONDS (20) and SOAK_SEED (1) set it.
# Who calls it: pytest.
# Never: accepts a lost, invented or disordered event, or a duplicate in a Redis stream.
import os
import random
import re
import signal
import time

import psycopg2
import pytest

from conftest import DISASTER
from database import Database
from servers import PostgresCluster, RabbitNode, RedisServer
from test_faults import Load, all_in_stream, check

SECONDS = float(os.environ.get("SOAK_SECONDS", "20"))
SEED = int(os.environ.get("SOAK_SEED", "1"))


class Disasters:
    def __init__(self, postgres, redis, rabbit, load, dice):
        self.postgres, self.redis, self.rabbit, self.load, self.dice = postgres, redis, rabbit, load, dice
        self.all = [self.kill_redis, self.freeze_redis, self.freeze_rabbit, self.restart_at_once, self.restart_fast,
                    self.kill_postmaster, self.terminate_workers, self.kill_sender]

    def pause(self, longest):
        self.load.stopping.wait(self.dice.random() * longest)

    def kill_redis(self):
        self.redis.kill()
        self.pause(1)
        self.redis.start()

    def freeze_redis(self):
        self.redis.freeze()
        self.pause(2)
        self.redis.thaw()

    def freeze_rabbit(self):
        self.rabbit.freeze()
        self.pause(2)
        self.rabbit.thaw()

    def restart_at_once(self):
        self.postgres.restart("immediate")

    def restart_fast(self):
        assert self.postgres.stop("fast") < 5, "a fast shutdown waits for no broker"
        self.postgres.start()

    def kill_postmaster(self):
        self.postgres.kill_postmaster()
        self.postgres.start()

    def terminate_workers(self):
        self.postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'pg_eventbus%'")

    def kill_sender(self):
        pids = self.postgres.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_eventbus sender'")
        if pids:
            os.kill(self.dice.choice(pids)[0], signal.SIGKILL)
            self.postgres.wait_recovered()


@pytest.mark.parametrize("seed", [SEED])
def test_random_disasters_lose_and_invent_nothing(seed):
    # WAL that is written late: an event that left before it was durable would show.
    config = {"eventbus.rotation_period": 1, "eventbus.segment_size": "'1MB'", "wal_writer_delay": "'5s'"}
    dice = random.Random(seed)
    with PostgresCluster(config=config) as postgres, RedisServer.durable() as redis, RabbitNode() as rabbit:
        db = Database(postgres, "soak")
        rabbit.declare("q")
        db.broker("redis", redis.url)
        db.route("stream", "redis", "stream:s")
        db.broker("rabbit", rabbit.url)
        db.route("queue", "rabbit", "queue:q")
        with Load(db, 3) as load:
            disasters = Disasters(postgres, redis, rabbit, load, dice)
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                disaster = dice.choice(disasters.all)
                try:
                    disaster()
                except psycopg2.OperationalError:
                    postgres.wait_recovered()  # the last disaster was not over yet
                disasters.pause(1.5)
        committed = load.committed()
        assert committed, "the load published nothing"
        check(all_in_stream(redis, "s", committed), committed, duplicates_allowed=False)
        db.wait_status("queue", 60, in_flight=0, lag=lambda lag: not lag)
        received = [(int(properties.message_id), properties.headers["event-key"], int(body))
                    for properties, body, _ in rabbit.take_until_idle("q", 2)]
        check(received, committed, duplicates_allowed=True)
        assert not re.findall(DISASTER, "\n".join(line for line in postgres.log_text().splitlines()
                                                  if "signal 9" not in line))

# What it is: the one import for what tests are made of: private servers, a proxy, certificates, events, waiting.
# Who calls it: the live tests, the demo, the bench.
# Never: does anything by itself.
from brokers import RabbitNode, RedisServer
from certificates import Certificates
from clock import Clock
from mosquitto import MosquittoServer
from postgres import PostgresCluster
from processes import (end_released, eventually, free_port, make_directory, release_all, remove_directory, stays,
                       still_runs, wait_gone)
from proxy import Proxy
from steady import Steady

__all__ = ["Certificates", "Clock", "MosquittoServer", "PostgresCluster", "Proxy", "RabbitNode", "RedisServer", "Steady",
           "end_released", "eventually", "free_port", "make_directory", "release_all", "remove_directory", "stays",
           "still_runs", "wait_gone"]

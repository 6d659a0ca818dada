# What it is: the one import for private servers: PostgreSQL, Redis, RabbitMQ, a proxy, certificates and waiting.
# Who calls it: the live tests, the demo, the bench.
# Never: does anything by itself.
from brokers import RabbitNode, RedisServer
from certificates import Certificates
from postgres import PostgresCluster
from processes import (end_released, eventually, free_port, make_directory, release_all, remove_directory, stays,
                       still_runs)
from proxy import Proxy

__all__ = ["Certificates", "PostgresCluster", "Proxy", "RabbitNode", "RedisServer", "end_released", "eventually",
           "free_port", "make_directory", "release_all", "remove_directory", "stays", "still_runs"]

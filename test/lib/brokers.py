# What it is: a private Redis server and a private RabbitMQ node.
# Who calls it: the live tests, the demo, the bench.
# Never: uses a default port, another node's directory or a shared epmd.
import json
import logging
import os
import signal
import socket
import subprocess
import uuid
from contextlib import contextmanager

import pika
import pika.data
import redis

from listener import Listener
from processes import Process, free_port, make_directory, remove_directory


class _Number(int):
    """What pika 1.2 takes for `long`. It would make integers of doubles, and reads signed 64-bit header values as
    unsigned ones, which other clients do not."""

    def __new__(cls, value):
        return value - 2**64 if isinstance(value, int) and value >= 2**63 else value


pika.data.long = _Number
logging.getLogger("pika").setLevel(logging.CRITICAL)  # polling a node that starts is no error


class Broker:
    """What all have in common: a directory, a process, and being started, killed, frozen and thawed."""

    process = None
    directory = None
    started = []  # all that have been started and not been removed

    def start(self, wait=True):
        if self not in Broker.started:
            Broker.started.append(self)
        self._launch()
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self):
        self.process.wait_ready(self._answers, 120)

    def kill(self):
        self.process.end(signal.SIGKILL)

    def freeze(self):
        self.process.signal(signal.SIGSTOP)

    def thaw(self):
        self.process.signal(signal.SIGCONT)

    def stop(self):
        if self.process and self.process.running():
            self.thaw()
            self.process.end()

    @property
    def log_path(self):
        return self.process.log_path

    def has_logged_since(self, moment):
        """As time.time() gives it. RabbitMQ's log is written seconds later."""
        return os.path.exists(self.log_path) and os.path.getmtime(self.log_path) >= moment

    def remove(self):
        if self.process and self.process.running():
            self.process.end(signal.SIGKILL)
        if self in Broker.started:
            Broker.started.remove(self)
        remove_directory(self.directory)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.remove()


class RedisServer(Broker):
    """config: redis.conf directives, name -> value; repeated ones (user) as a list."""

    def __init__(self, config=None, certificates=None, password=None):
        self.directory = make_directory("redis")
        self.port = free_port()
        self.socket = os.path.join(self.directory, "redis.sock")
        self.password = password
        self.tls_port = free_port() if certificates else None
        settings = {"port": self.port, "bind": "127.0.0.1", "unixsocket": self.socket, "unixsocketperm": "777",
                    "dir": self.directory, "save": '""', "appendonly": "no", "daemonize": "no"}
        if certificates:
            settings.update({"tls-port": self.tls_port, "tls-cert-file": certificates.server_cert,
                             "tls-key-file": certificates.server_key, "tls-ca-cert-file": certificates.ca,
                             "tls-auth-clients": "optional"})
        if password:
            settings["requirepass"] = password
        settings.update(config or {})
        self.config_path = os.path.join(self.directory, "redis.conf")
        with open(self.config_path, "w") as text:
            for name, value in settings.items():
                for line in value if isinstance(value, list) else [value]:
                    text.write(f"{name} {line}\n")

    @classmethod
    def durable(cls, **more):
        """What it acknowledged is still there after kill -9."""
        return cls({"appendonly": "yes", "appendfsync": "always"}, **more)

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def _launch(self):
        self.process = Process(["redis-server", self.config_path], os.path.join(self.directory, "log"))

    def _answers(self):
        try:
            return self.client().ping()
        except redis.ConnectionError:  # BusyLoadingError is one, too
            return False

    def client(self, db=0, **more):
        return redis.Redis(host="127.0.0.1", port=self.port, db=db, **{"password": self.password, **more})

    def stream(self, key, db=0):
        """The entries of a stream: a list of dictionaries, names as text, values as bytes."""
        return [{name.decode(): value for name, value in fields.items()}
                for _, fields in self.client(db).xrange(key)]

    def stream_ids(self, key):
        return [int(entry["id"]) for entry in self.stream(key)]


class RabbitNode(Broker):
    """users: name -> (password, pattern of what it may write). guest/guest may do everything. mqtt: with RabbitMQ's
    MQTT plugin on mqtt_port; what is published there goes through amq.topic, with dots for slashes."""

    def __init__(self, certificates=None, users=None, mqtt=False):
        self.directory = make_directory("rabbit")
        self.port, self.distribution_port, self.epmd_port = free_port(), free_port(), free_port()
        self.tls_port = free_port() if certificates else None
        self.mqtt_port = free_port() if mqtt else None
        self.node = f"eventbus{uuid.uuid4().hex[:8]}@localhost"
        self.epmd = None
        lines = ["loopback_users = none", "disk_free_limit.absolute = 50MB", "handshake_timeout = 60000",
                 f"load_definitions = {self._write('definitions.json', self._definitions(users or {}))}"]
        if certificates:
            lines += [f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}", f"ssl_options.cacertfile = {certificates.ca}",
                      f"ssl_options.certfile = {certificates.server_cert}",
                      f"ssl_options.keyfile = {certificates.server_key}",
                      "ssl_options.verify = verify_peer", "ssl_options.fail_if_no_peer_cert = false",
                      "auth_mechanisms.1 = PLAIN", "auth_mechanisms.2 = EXTERNAL",
                      "ssl_cert_login_from = common_name"]
        if mqtt:
            lines += [f"mqtt.listeners.tcp.1 = 127.0.0.1:{self.mqtt_port}", "mqtt.exchange = amq.topic"]
        self._config = self._write("rabbitmq.conf", "\n".join(lines) + "\n")
        plugins = [name for name, wanted in [("rabbitmq_auth_mechanism_ssl", certificates), ("rabbitmq_mqtt", mqtt)]
                   if wanted]
        self._plugins = self._write("enabled_plugins", f"[{','.join(plugins)}].\n")

    @staticmethod
    def _definitions(users):
        everybody = {"guest": ("guest", ".*"), **users}
        return json.dumps({
            "vhosts": [{"name": "/"}, {"name": "second"}],
            "users": [{"name": name, "password": password, "tags": "administrator" if name == "guest" else ""}
                      for name, (password, _) in everybody.items()],
            "permissions": [{"user": name, "vhost": vhost, "configure": ".*", "write": write, "read": ".*"}
                            for name, (_, write) in everybody.items() for vhost in ("/", "second")]})

    def _write(self, name, text):
        path = os.path.join(self.directory, name)
        with open(path, "w") as out:
            out.write(text)
        return path

    @property
    def url(self):
        return f"amqp://guest:guest@127.0.0.1:{self.port}"

    @property
    def mqtt_url(self):
        return f"mqtt://guest:guest@127.0.0.1:{self.mqtt_port}"

    def _environment(self):
        return {
            "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": self.directory,
            "RABBITMQ_NODENAME": self.node, "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1", "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "ERL_EPMD_PORT": str(self.epmd_port), "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": os.path.join(self.directory, "mnesia"),
            "RABBITMQ_LOG_BASE": os.path.join(self.directory, "log"), "RABBITMQ_CONFIG_FILE": self._config,
            "RABBITMQ_ENABLED_PLUGINS_FILE": self._plugins,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    def _launch(self):
        output = os.path.join(self.directory, "output")
        if self.epmd is None:  # started here, so that the node finds one and starts none that outlives it
            self.epmd = Process(["epmd"], output, environment=self._environment())
            self.epmd.wait_ready(self._epmd_listens)
        self.process = Process(["/usr/lib/rabbitmq/bin/rabbitmq-server"], output, environment=self._environment(),
                               directory=self.directory)

    @property
    def log_path(self):
        return os.path.join(self.directory, "log", f"{self.node}.log")

    def _epmd_listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.epmd_port)) == 0

    def _answers(self):
        try:
            self.connection().close()
            return True
        except (pika.exceptions.AMQPError, OSError):
            return False

    def kill(self):
        """With what it has said to be declared on disk. RabbitMQ 3.10 answers a declaration once Mnesia's log has been
        synced, but what makes that transaction a committed one is logged by another process, mnesia_recover, which may
        be late; it is then in the VM's memory for up to 2 s, and without it the next start takes the queue, exchange
        or binding for rolled back, and the messages are lost with their queue. Without Mnesia (Khepri) nothing waits."""
        self.control("eval", "whereis(mnesia_recover) =:= undefined orelse "
                             "begin mnesia_recover:sync(), ok = mnesia:sync_log() end.")
        super().kill()

    def remove(self):
        if self.epmd and self.epmd.running():
            self.epmd.end(signal.SIGKILL)
        super().remove()

    def connection(self, vhost="/"):
        return pika.BlockingConnection(pika.ConnectionParameters(
            "127.0.0.1", self.port, vhost, pika.PlainCredentials("guest", "guest"), socket_timeout=10,
            blocked_connection_timeout=30, heartbeat=0))

    def declare(self, queue, exchange=None, binding="#", kind="topic", vhost="/"):
        """A durable queue, and a durable exchange that it is bound to where one is named."""
        connection = self.connection(vhost)
        channel = connection.channel()
        channel.queue_declare(queue, durable=True)
        if exchange:
            channel.exchange_declare(exchange, kind, durable=True)
            channel.queue_bind(queue, exchange, binding)
        connection.close()

    def do(self, action):
        """action(channel), on a connection of its own."""
        connection = self.connection()
        try:
            return action(connection.channel())
        finally:
            connection.close()

    def control(self, *arguments):
        """Runs rabbitmqctl; returns what it prints."""
        return subprocess.run(["/usr/lib/rabbitmq/bin/rabbitmqctl", "-q", *arguments], check=True, timeout=60,
                              env=self._environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              text=True).stdout

    @contextmanager
    def memory_alarm(self):
        self.control("set_vm_memory_high_watermark", "0.00001")
        try:
            yield
        finally:
            self.control("set_vm_memory_high_watermark", "0.4")

    @contextmanager
    def disk_alarm(self):
        self.control("set_disk_free_limit", "1000000GB")
        try:
            yield
        finally:
            self.control("set_disk_free_limit", "50MB")

    def listen_with(self, certificate, key):
        """Another port with TLS, with a certificate of its own; it goes with the node."""
        port = free_port()
        self.control("eval", f'rabbit_networking:start_ssl_listener({{"127.0.0.1", {port}}}, '
                             f'[{{certfile, "{certificate}"}}, {{keyfile, "{key}"}}], 1).')
        return port

    def suspend_queue(self, queue, suspended=True):
        """A queue that hangs: it takes messages and acknowledges none."""
        self.control("eval", f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)), '
                             f'sys:{"suspend" if suspended else "resume"}(amqqueue:get_pid(Q)).')

    def listener(self, queue, vhost="/"):
        return Listener(self, queue, vhost)

    def depth(self, queue):
        return self.do(lambda channel: channel.queue_declare(queue, passive=True).method.message_count)

    def take(self, queue, count, deadline=30, vhost="/"):
        """Consumes `count` messages, each as (properties, body, method); AssertionError when fewer come."""
        taken = self._consume(queue, count, deadline, vhost)
        assert len(taken) == count, f"queue {queue} gave {len(taken)} of {count} messages within {deadline} s"
        return taken

    def take_until_idle(self, queue, idle=1.0):
        """Everything that is there, until nothing more comes for a while."""
        return self._consume(queue, None, idle)

    def waiting(self, queue):
        """How many messages of a queue nobody has been given yet."""
        return self.do(lambda channel: channel.queue_declare(queue, passive=True)).method.message_count

    def _consume(self, queue, count, idle, vhost="/"):
        """What is not taken stays in the queue: messages are acknowledged one by one."""
        connection = self.connection(vhost)
        taken = []
        try:
            channel = connection.channel()
            channel.basic_qos(prefetch_count=min(count or 500, 500))
            for method, properties, body in channel.consume(queue, inactivity_timeout=idle):
                if method is None:
                    if count is None and self.waiting(queue) > 0:
                        continue  # it is only slow
                    break
                channel.basic_ack(method.delivery_tag)
                taken.append((properties, body, method))
                if len(taken) == count:
                    break
            channel.cancel()
            return taken
        finally:
            connection.close()

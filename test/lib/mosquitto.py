# What it is: a private mosquitto, and an MQTT client that is not ours, which collects what it is sent.
# Who calls it: the live tests, the demo, the bench.
# Never: lets a message be published before the subscription that is to see it stands.
import os
import shutil
import signal
import subprocess
import threading
from dataclasses import dataclass, field

from paho.mqtt import client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from brokers import Broker
from processes import Process, eventually, free_port, make_directory


class MosquittoServer(Broker):
    """Listens on port and ws_port; with certificates on tls_port, wss_port and mutual_tls_port (which wants a client's
    certificate) as well. users: name -> password; nobody else may enter then, the test's own clients are the first of
    them. acl: lines of an ACL file. config: further directives, name -> value. durable: sessions and queues survive a
    kill, as far as save() has written them."""

    def __init__(self, config=None, certificates=None, users=None, acl=None, durable=False):
        self.directory = make_directory("mosquitto")
        self.certificates, self.users = certificates, users or {}
        self.port, self.ws_port = free_port(), free_port()
        self.tls_port, self.wss_port, self.mutual_tls_port = (free_port() if certificates else None for _ in range(3))
        self._database = self._path("mosquitto.db")
        # As root it would become the user mosquitto, who may not read this directory.
        self._settings = {"user": "root", "log_type": "all", "sys_interval": 0,
                          "allow_anonymous": "false" if users else "true",
                          # No limits; but max_queued_messages 0 would disconnect whoever it refuses a message.
                          "max_queued_messages": 10_000_000, "max_inflight_messages": 0,
                          "max_packet_size": 268_435_455}  # 2.1 has a limit of its own
        if durable:
            self._settings.update({"persistence": "true", "persistence_location": f"{self.directory}/",
                                   "autosave_interval": 0})
        if certificates:
            self.present(certificates.server_cert, certificates.server_key)
        if users:
            self._settings["password_file"] = self._write_passwords()
        if acl is not None:
            self._acl = self._path("acl")
            self._write(self._acl, acl)
            self._settings["acl_file"] = self._acl
        self._configure(config or {})

    def _configure(self, changes):
        self._settings.update(changes)
        self._write(self._path("mosquitto.conf"),
                    [*(f"{name} {value}" for name, value in self._settings.items()), *self._listeners()])

    def _path(self, name):
        return os.path.join(self.directory, name)

    @staticmethod
    def _write(path, lines):
        with open(path, "w") as text:
            text.write("".join(f"{line}\n" for line in lines))
        os.chmod(path, 0o644)

    def _write_passwords(self):
        path = self._path("passwords")
        self._write(path, [f"{name}:{password}" for name, password in self.users.items()])
        subprocess.run(["mosquitto_passwd", "-U", path], check=True, stdout=subprocess.DEVNULL)
        return path

    def _listeners(self):
        websockets = ["protocol websockets"]  # for these, mosquitto 2.0 leaves the address out of account
        lines = [f"listener {self.port} 127.0.0.1", f"listener {self.ws_port} 127.0.0.1", *websockets]
        if self.certificates:
            tls = [f"cafile {self.certificates.ca}", f"certfile {self._path('cert')}", f"keyfile {self._path('key')}"]
            lines += [f"listener {self.tls_port} 127.0.0.1", *tls,
                      f"listener {self.wss_port} 127.0.0.1", *websockets, *tls,
                      f"listener {self.mutual_tls_port} 127.0.0.1", *tls, "require_certificate true"]
        return lines

    @property
    def url(self):
        return f"mqtt://127.0.0.1:{self.port}"

    def _launch(self):
        self.process = Process(["mosquitto", "-c", self._path("mosquitto.conf")], self._path("log"))

    def _answers(self):
        try:
            with Subscriber(self.port, [], deadline=1, **self._login()):
                return True
        except (AssertionError, OSError):
            return False

    def _login(self):
        return {"user": next(iter(self.users.items()))} if self.users else {}

    def log_text(self):
        with open(self._path("log"), errors="replace") as text:
            return text.read()

    def save(self):
        """Writes sessions, subscriptions and queues to disk, now."""
        written = os.stat(self._database).st_mtime_ns if os.path.exists(self._database) else 0
        self.process.signal(signal.SIGUSR1)
        eventually(lambda: os.path.exists(self._database) and os.stat(self._database).st_mtime_ns > written)

    def present(self, cert, key):
        """The certificate that it shows from its next start on."""
        shutil.copy(cert, self._path("cert"))
        shutil.copy(key, self._path("key"))

    def permit(self, acl):
        """Another ACL, in force for the clients that are connected as well."""
        self._write(self._acl, acl)
        self._reload()

    def change(self, **config):
        """Directives that mosquitto reads again while it runs (not max_packet_size)."""
        self._configure(config)
        self._reload()

    def restart(self, users=None, **config):
        """With other users, other directives."""
        self.stop()
        if users:
            self.users = users
            self._write_passwords()
        self._configure(config)
        return self.start()

    def _reload(self):
        before = self.log_text().count("Reloading config")
        self.process.signal(signal.SIGHUP)
        eventually(lambda: self.log_text().count("Reloading config") > before, why="mosquitto reads its files again")

    def subscriber(self, topics, **more):
        return Subscriber(self.port, topics, **{**self._login(), **more})

    def recorder(self, topics, client_id, qos):
        return Recorder(self.port, topics, client_id, qos, self._path(f"recorded.{client_id}"))


@dataclass
class Message:
    topic: str
    payload: bytes
    qos: int
    retain: bool
    content_type: str | None
    user: list = field(default_factory=list)        # user properties as (name, value)
    properties: dict = field(default_factory=dict)  # the others, by paho's names


class Subscriber:
    """An MQTT 5 client; messages: what it has got so far, in order. With a client id its session outlives its
    connection, and a restart of the broker. user: (name, password). hear: called with each message as it comes."""

    def __init__(self, port, topics, qos=1, client_id=None, user=None, deadline=30, hear=None):
        self.messages, self._hear = [], hear
        self._topics, self._options = topics, SubscribeOptions(qos=qos, retainAsPublished=True)
        self._ready, self._persistent = threading.Event(), client_id is not None
        self._client = paho.Client(client_id=client_id or "", protocol=paho.MQTTv5)
        self._client.reconnect_delay_set(1, 1)
        if user:
            self._client.username_pw_set(*user)
        self._client.on_connect, self._client.on_message = self._connected, self._arrived
        self._client.on_subscribe = lambda *_: self._ready.set()
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = 3600 if self._persistent else 0
        self._client.connect("127.0.0.1", port, clean_start=not self._persistent, properties=session)
        self._client.loop_start()
        if not self._ready.wait(deadline):
            self.close()
            raise AssertionError(f"no subscription to {topics} on port {port} within {deadline} s")

    def _connected(self, client, _userdata, flags, reason, _properties=None):
        if reason != 0:
            return
        if self._topics and not flags["session present"]:
            client.subscribe([(topic, self._options) for topic in self._topics])
        else:
            self._ready.set()

    def _arrived(self, _client, _userdata, message):
        properties = message.properties.json() if message.properties else {}
        self.messages.append(Message(message.topic, message.payload, message.qos, bool(message.retain),
                                     properties.pop("ContentType", None),
                                     [tuple(pair) for pair in properties.pop("UserProperty", [])], properties))
        if self._hear:
            self._hear(self.messages[-1])

    def bodies(self):
        return [message.payload for message in self.messages]

    def take(self, count, deadline=30):
        """All messages, when there are exactly so many."""
        eventually(lambda: len(self.messages) >= count, deadline,
                   f"{count} messages, of which {len(self.messages)} have come")
        assert len(self.messages) == count, f"{len(self.messages)} messages instead of {count}"
        return self.messages

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Recorder:
    """mosquitto_sub, which keeps up with what this interpreter would not: QoS 2, a session that outlives connections and
    restarts of the broker, and a file for what it gets. MQTT 3.1.1, so without properties: with 5, mosquitto 2.0 stops
    for ever to send to a client that was some thousand messages behind.

    topics: of one QoS. Up to 2.0.12 mosquitto sends a client what is published next before what waits for it, once the
    client acknowledges a message behind max_inflight_messages others: QoS 1 overtakes QoS 2 there (mosquitto #2306)."""

    def __init__(self, port, topics, client_id, qos, path):
        self._path, self._read = path, 0
        self._process = Process(["mosquitto_sub", "--quiet", "-V", "311", "-p", str(port), "-i", client_id, "-c",
                                 "-q", str(qos), "-F", "%t\\t%U\\t%p",
                                 *(word for topic in topics for word in ("-t", topic))], path)

    def news(self):
        """(topic, payload, when it came, as time.time() says) of what came since the last call; payloads are of one
        line."""
        with open(self._path, "rb") as recorded:
            recorded.seek(self._read)
            for line in recorded:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                topic, moment, payload = line[:-1].split(b"\t", 2)
                yield topic.decode(), payload, float(moment)

    def close(self):
        self._process.end()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

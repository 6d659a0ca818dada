# What it is: the soak's judge: what was committed against what each route's destination got.
# Who calls it: soak.py, when everything has come to rest.
# Never: asks the extension what it has delivered.
import json
import threading
import time
from collections import Counter

from paho.mqtt import publish

from processes import eventually

DUPLICATES_A_FAULT = 12000  # cursors are written every 10 000 events at the latest; what is on its way comes on top


def parsed(payload):
    """An event's (u, key, n): its own payload, or a row's in Debezium's envelope."""
    body = json.loads(payload)
    body = body.get("after", body)
    return body["u"], body["k"], body["n"]


class Arrivals:
    """What each route's destination got, in order of arrival: (u, key, n, id), where lists and MQTT 3.1.1 have no ids."""

    def __init__(self, world):
        self.world, self.recorders = world, []
        self.by_topic = {topic: [] for topic in MQTT.values()}
        self.moments = {}  # route -> when each came, as time.time() says, in the order in which it is taken
        self.distinct = {topic: set() for topic in MQTT.values()}
        self.marks = set()
        self.lock = threading.Lock()
        self.sockets = 1000  # that mosquitto has when nobody but its subscribers is connected

    def listen(self, recorders):
        """recorders: mosquitto's subscribers, which stand when this returns."""
        self.recorders = recorders
        eventually(lambda: self.mark(deadline=1) or True, 30, "mosquitto's subscribers have heard something")
        end = time.monotonic() + 1  # the connections that asked are closed by then
        while time.monotonic() < end:
            self.sockets = min(self.sockets, self.world.mosquitto.process.sockets())

    def mark(self, deadline=120):
        """Until the subscribers have heard what mosquitto has by now."""
        mark = f"{time.monotonic()}"
        publish.single(MARK, mark, qos=2, port=self.world.mosquitto.port)
        wanted = {(recorder, mark) for recorder in self.recorders}
        eventually(lambda: self.heard() or wanted <= self.marks, deadline, "mosquitto's subscribers have heard everything")

    @staticmethod
    def topics():
        """QoS -> topics."""
        return {qos: [*(topic for topic in MQTT.values() if topic.endswith(str(qos))), MARK] for qos in (1, 2)}

    def heard(self):
        """Takes in what the MQTT subscribers have got since."""
        with self.lock:
            for recorder, (topic, payload, moment) in ((recorder, news) for recorder in self.recorders
                                                       for news in recorder.news()):
                if topic == MARK:
                    self.marks.add((recorder, payload.decode()))
                    continue
                event = parsed(payload)
                self.by_topic[topic].append((*event, None))
                self.moments.setdefault(ROUTES[topic], []).append(moment)
                self.distinct[topic].add(event[0])

    def counts(self):
        """Of what can be counted without taking it, to see that nothing comes any more."""
        client = self.world.redis.client()
        counts = {route: client.xlen(key) if kind == "stream" else client.llen(key)
                  for route, (kind, key) in REDIS.items()}
        self.heard()
        counts |= {route: len(self.distinct[topic]) for route, topic in MQTT.items()}
        return counts | {route: self.world.rabbit.depth(queue) for route, queue in AMQP.items()}

    def take(self):
        client = self.world.redis.client()
        self.heard()
        taken = {route: self.by_topic[topic] for route, topic in MQTT.items()}
        for route, (kind, key) in REDIS.items():
            if kind == "stream":
                entries = client.xrange(key)
                taken[route] = [(*parsed(fields[b"payload"]), fields[b"id"].decode()) for _, fields in entries]
                self.moments[route] = [int(place.split(b"-")[0]) / 1000 for place, _ in entries]
            else:
                taken[route] = [(*parsed(element), None) for element in client.lrange(key, 0, -1)]
        for route, queue in AMQP.items():
            taken[route] = self.world.rabbit.do(lambda channel, queue=queue: drained(channel, queue))
        return taken


def drained(channel, queue):
    """Everything in the queue; unlike take_until_idle it is not acknowledged one by one."""
    messages = []
    for method, properties, body in channel.consume(queue, auto_ack=True, inactivity_timeout=3):
        if method is None:
            break
        messages.append((*parsed(body), properties.message_id))
    return messages


REDIS = {"stream": ("stream", "s"), "list": ("list", "l"), "wal_stream": ("stream", "ws"), "wal_list": ("list", "wl")}
AMQP = {"queue": "q", "wal_queue": "wq"}
MARK = "soak/mark"  # what the soak sends by itself
MQTT = {"qos1": "soak/qos1", "qos2": "soak/qos2", "wal_qos1": "wal/qos1", "wal_qos2": "wal/qos2"}
ROUTES = {topic: route for route, topic in MQTT.items()}
SOURCES = {False: {"l", "c"}, True: {"m", "c"}}  # of the log: publish and captured rows; of the WAL: messages and rows


def expected(committed, route):
    return {u: row for u, row in committed.items() if row[0] in SOURCES[route.startswith("wal_")]}


def judge(committed, taken, faults, acts, moments=None, once=("stream", "wal_stream")):
    """(a row of figures a route, what is wrong as texts). moments: Arrivals.moments."""
    rows, wrong = [], []
    for route, arrived in taken.items():
        wanted = expected(committed, route)
        firsts, ids, changed = {}, {}, set()
        for u, key, n, identity in arrived:
            firsts.setdefault(u, (key, n))
            if ids.setdefault(u, identity) != identity or firsts[u] != (key, n):
                changed.add(u)
        lost, phantom = wanted.keys() - firsts.keys(), firsts.keys() - wanted.keys()
        changed |= {u for u, seen in firsts.items() if u in wanted and seen != tuple(wanted[u][1:3])}
        disordered = out_of_order(firsts)
        repeated = len(arrived) - len(firsts)
        rows.append({"route": route, "committed": len(wanted), "arrived": len(firsts), "lost": len(lost),
                     "phantom": len(phantom), "out of order": len(disordered), "duplicates": repeated})
        for what, numbers in (("lost", lost), ("phantom", phantom), ("another event or id", changed),
                              ("out of order", disordered)):
            if numbers:
                wrong.append(f"{route}: {len(numbers)} {what}: {told(numbers, committed, acts)}")
                wrong += came(route, numbers, arrived, acts, moments)
        if repeated > (0 if route in once else faults * DUPLICATES_A_FAULT):
            twice = {u for u, count in Counter(u for u, *_ in arrived).items() if count > 1}
            wrong.append(f"{route}: {repeated} duplicates after {faults} faults: {told(twice, committed, acts)}")
            wrong += came(route, twice, arrived, acts, moments)
    return rows, wrong


def out_of_order(firsts):
    """Numbers of events that came behind a later one of their key."""
    highest, found = {}, set()
    for u, (key, n) in firsts.items():
        if n < highest.get(key, 0):
            found.add(u)
        highest[key] = max(n, highest.get(key, 0))
    return found


def told(numbers, committed, acts):
    """Some of the events, the shapes of their transactions, and the hands that acted about when they were published."""
    some = sorted(numbers)
    shapes = Counter(f"{committed[u][3]} ({committed[u][0]})" if u in committed else "rolled back" for u in some)
    hands = Counter()
    for u in some:
        before = [act for act in acts if act["from"] <= u]
        hands[before[-1]["hand"] if before else "none"] += 1
    return (f"such as {some[:5]}, of transactions {dict(shapes)}, hands that began last before they were published "
            f"{dict(hands.most_common(5))}")


def came(route, numbers, arrived, acts, moments):
    """When some of them came, what of their key came before them, and which hands acted then; nothing where that is not
    known."""
    if route not in (moments or {}) or not acts:
        return []
    begun, words = acts[0]["wall"], []
    seconds = [round(moment - begun, 2) for moment in moments[route]]
    for u in sorted(numbers)[:: max(1, len(numbers) // 4)][:4]:
        at = [i for i, event in enumerate(arrived) if event[0] == u]
        if not at:
            continue
        _, key, n, _ = arrived[at[0]]
        overtook = [i for i in range(at[0]) if arrived[i][1] == key and arrived[i][2] > n]
        since = seconds[overtook[0] if overtook else at[0]] - 15
        hands = [f"{act['hand']} {act['wall'] - begun:.1f}" for act in acts
                 if since < act["wall"] - begun < seconds[at[-1]] + 1]
        words.append(f"{route}: {u} ({key}/{n}) came at {[seconds[i] for i in at]} s, behind later ones of its key: "
                     f"{[(seconds[i], arrived[i][0]) for i in overtook[:3]]}; hands: {', '.join(hands[-25:])}")
    return words

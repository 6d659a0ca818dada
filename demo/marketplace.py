# What it is: the demo: a marketplace's inserts arrive at a cache refresh (Redis), a search indexer (RabbitMQ) and the
# labels on the shelves (MQTT).
# Who calls it: demo/run, after building and installing.
# Never: touches a server that is not its own, or ends well when an expected message has not arrived.
import contextlib
import datetime
import json
import os
import sys
import textwrap
import threading
import time

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "test", "lib"))

import pika  # noqa: E402
import psycopg2  # noqa: E402

from database import Database  # noqa: E402
from servers import (MosquittoServer, PostgresCluster, RabbitNode, RedisServer, eventually, release_all,  # noqa: E402
                     still_runs)

KEPT = os.path.join(HERE, "..", "build", "demo.json")
KEEP = os.environ.get("KEEP", "") not in ("", "0")
COLOURS = {"shop": "36", "cache refresh": "33", "search indexer": "35", "shelf labels": "34",
           "demo": "1", "good": "32", "bad": "31"}
TOPIC, EXCHANGE, QUEUE, LABELS = "shop.product.listed", "shop", "search-index", "shop/shelf"
_print_lock = threading.Lock()


def paint(kind, text):
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\033[{COLOURS[kind]}m{text}\033[0m"


def put_line(who, what):
    now = datetime.datetime.now().strftime("%H:%M:%S.%f")[:-3]
    print(f"  {now}  {paint(who, f'{who:<14}')}  {what}", flush=True)


def tell(who, what):
    """One line of the live picture."""
    with _print_lock:
        put_line(who, what)


def headline(text):
    with _print_lock:
        print(f"\n{paint('demo', text)}", flush=True)


class Shop:
    """Lists products; remembers when each one was committed."""

    def __init__(self, database):
        self.database, self.committed, self.rolled_back = database, {}, set()

    def list_product(self, sku, name, price, way="trigger"):
        """way: the table with the trigger, the captured one, or no table at all."""
        sql, values = {"trigger": ("INSERT INTO inventory VALUES (%s, %s, %s)", (sku, name, price)),
                       "capture": ("INSERT INTO auction VALUES (%s, %s, %s)", (sku, name, price)),
                       "publish": (f"SELECT eventbus.publish('{TOPIC}', %s, key => %s)",
                                   (json.dumps({"sku": sku, "name": name, "price": price}), sku))}[way]
        with _print_lock:  # a consumer may hear of it before this connection hears of its own COMMIT
            self.database.run(sql, *values)
            self.committed[sku] = time.time()
            put_line("shop", f"COMMIT    {sku}  {name:<20}  {sql % tuple(map(repr, values))};")

    def think_better_of(self, sku, name, price):
        self.rolled_back.add(sku)
        self.database.run("BEGIN")
        self.database.run("INSERT INTO inventory VALUES (%s, %s, %s)", sku, name, price)
        self.database.run("ROLLBACK")
        tell("shop", f"ROLLBACK  {sku}  {name:<20}  nobody may hear of this one")


class Consumer(threading.Thread):
    """Prints each product that it hears of."""

    def __init__(self, who, shop, receive):
        super().__init__(daemon=True)
        self.who, self.shop, self.receive = who, shop, receive
        self.ready, self.heard, self.stopping = threading.Event(), [], threading.Event()
        self.fault = None

    def run(self):
        while not self.stopping.is_set():
            try:
                self.receive(self)
            except (pika.exceptions.AMQPError, OSError):
                pass
            except Exception as error:  # the demo's own: not to be taken for events that are lost
                self.fault = f"the consumer \"{self.who}\" is broken: {error!r}"
                return
            self.stopping.wait(0.2)

    def works(self):
        assert self.fault is None, self.fault
        return True

    def hear(self, body, where):
        arrived = time.time()
        product = json.loads(body)
        sku = product["sku"]
        what = "again   " if sku in self.heard else "received"
        with _print_lock:
            passed = max(0.0, arrived - self.shop.committed.get(sku, arrived)) * 1000
            when = f"{passed:7.1f} ms" if passed < 1000 else f"{passed / 1000:7.1f} s "
            put_line(self.who, f"{what}  {sku}  {product['name']:<20}  {when} after COMMIT   {where}")
        self.heard.append(sku)


def listen_on_redis(redis):
    def receive(consumer):
        with redis.client().pubsub() as subscription:
            subscription.subscribe(TOPIC)
            while not consumer.stopping.is_set():
                message = subscription.get_message(timeout=0.2)
                if message and message["type"] == "subscribe":
                    consumer.ready.set()
                elif message:
                    consumer.hear(message["data"], f"channel {TOPIC}")
    return receive


def consume_from_rabbitmq(rabbit):
    def receive(consumer):
        channel = rabbit.connection().channel()
        messages = channel.consume(QUEUE, inactivity_timeout=0.2)
        consumer.ready.set()
        for method, properties, body in messages:
            if consumer.stopping.is_set():
                return
            if method is not None:
                consumer.hear(body, f"queue {QUEUE}, message_id {properties.message_id}")
                channel.basic_ack(method.delivery_tag)
    return receive


def listen_on_mqtt(mosquitto):
    def receive(consumer):
        with mosquitto.subscriber([f"{LABELS}/#"], hear=lambda message: consumer.hear(
                message.payload, f"topic {message.topic}, event-id {dict(message.user)['event-id']}")):
            consumer.ready.set()
            consumer.stopping.wait()
    return receive


def show_status(database):
    """What is wrong now: eventbus.status keeps the last error for a minute after the route is well again."""
    rows = database.run("SELECT route, broker, state, delivered, dead, retries, events_waiting, "
                        "coalesce(date_trunc('milliseconds', lag)::text, '-'), "
                        "coalesce(CASE WHEN state <> 'active' THEN last_error END, '-') FROM eventbus.status ORDER BY route")
    table = [("route", "broker", "state", "delivered", "dead", "retries", "waiting", "lag", "what is wrong")]
    table += [tuple(map(str, row)) for row in rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    with _print_lock:
        print()
        for row in table:
            print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
        print(flush=True)


def wait_settled(database, but=""):
    """A consumer has a message before its broker's acknowledgement is in the status. but: a route whose broker is away."""
    eventually(lambda: database.run("SELECT bool_and((state = 'active' AND events_waiting = 0) = (route <> %s)) "
                                    "FROM eventbus.status", but)[0][0], 15, "routes are active, and nothing waits for them")


def set_up(database, redis, rabbit, mosquitto):
    with open(os.path.join(HERE, "marketplace.sql")) as text:
        sql = text.read()
    database.run(sql)
    with _print_lock:
        print(textwrap.indent(sql.partition("\n\n")[2], "    "), flush=True)
    rabbit.declare(QUEUE, EXCHANGE, "shop.product.*")
    for call in (f"create_broker('cache', '{redis.url}')", f"create_broker('rabbit', '{rabbit.url}')",
                 f"create_broker('labels', '{mosquitto.url}')",
                 "create_route('cache-refresh', 'cache', 'channel:{topic}', 'shop.product.*')",
                 f"create_route('search-index', 'rabbit', 'exchange:{EXCHANGE}', 'shop.product.*')",
                 f"create_route('shelf-labels', 'labels', 'topic:{LABELS}/{{key}}', 'shop.product.*')"):
        database.run(f"SELECT eventbus.{call}")
        tell("demo", f"SELECT eventbus.{call};")


def all_arrived(shop, consumers, deadline):
    """True when every consumer has heard of every committed product, in order, and of nothing else."""
    expected = list(shop.committed)
    with contextlib.suppress(AssertionError):
        eventually(lambda: all(set(consumer.heard) >= set(expected) for consumer in consumers), deadline)
    fine = True
    for consumer in consumers:
        consumer.works()
        heard = list(dict.fromkeys(consumer.heard))
        lost = [sku for sku in expected if sku not in heard]
        phantom = [sku for sku in heard if sku not in shop.committed]
        good = heard == expected
        fine = fine and good
        tell("demo", f"{consumer.who:<14}  {len(heard)} of {len(expected)} expected, {len(lost)} lost, "
             f"{len(phantom)} phantom, {'in order' if good else 'NOT as expected'}  "
             + paint("good" if good else "bad", "OK" if good else f"lost {lost}, phantom {phantom}"))
    return fine


def play(database, redis, rabbit, mosquitto, stack):
    headline("Setting up: what publishes (copy the one that you want), three brokers, three routes")
    set_up(database, redis, rabbit, mosquitto)
    shop = Shop(database)
    consumers = [Consumer("cache refresh", shop, listen_on_redis(redis)),
                 Consumer("search indexer", shop, consume_from_rabbitmq(rabbit)),
                 Consumer("shelf labels", shop, listen_on_mqtt(mosquitto))]
    for consumer in consumers:
        consumer.start()
        stack.callback(consumer.join, 5)
        stack.callback(consumer.stopping.set)
        eventually(lambda consumer=consumer: consumer.ready.is_set() and consumer.works(), 10,
                   f"the consumer \"{consumer.who}\" listens")
    for route in ("cache-refresh", "search-index", "shelf-labels"):
        database.wait_state(route, "active")

    headline("Products are listed in the table with the trigger, in the captured one, and by a call; all consumers hear of each")
    for number, (name, price, way) in enumerate([("walnut desk", 349.0, "trigger"), ("green tea, 100 g", 7.5, "trigger"),
                                                 ("brass lamp", 89.9, "capture"), ("wool blanket", 59.0, "publish")], 1):
        shop.list_product(f"SKU-{number:03}", name, price, way)
        arrived = f"SKU-{number:03}"
        with contextlib.suppress(AssertionError):
            eventually(lambda sku=arrived: all(sku in consumer.heard for consumer in consumers), 10)
    fine = all_arrived(shop, consumers, 15)
    wait_settled(database)
    show_status(database)

    headline("The promise: RabbitMQ is killed; the shop continues, the others continue, one insert is rolled back")
    rabbit.kill()
    tell("demo", "RabbitMQ is gone (kill -9)")
    shop.list_product("SKU-005", "bicycle bell", 12.0)
    shop.think_better_of("SKU-006", "perpetual motion", 999.0)
    shop.list_product("SKU-007", "garden chair", 45.0)
    shop.list_product("SKU-008", "paper lantern", 9.0)
    eventually(lambda: database.status("search-index")["state"] != "active", 15, "status knows that RabbitMQ is gone")
    wait_settled(database, but="search-index")
    show_status(database)
    tell("demo", "RabbitMQ is started again …")
    rabbit.start()
    fine = all_arrived(shop, consumers, 30) and fine
    wait_settled(database)
    show_status(database)
    return fine


def keep(cluster, redis, rabbit, mosquitto):
    kept = release_all()
    os.makedirs(os.path.dirname(KEPT), exist_ok=True)
    with open(KEPT, "w") as text:
        json.dump(kept, text)
    print("Left running (KEEP=1):\n"
          f"  PostgreSQL  psql -h {cluster.directory} -p {cluster.port} -U postgres shop\n"
          f"  Redis       redis-cli -p {redis.port} subscribe {TOPIC}\n"
          f"  RabbitMQ    {rabbit.url}   (queue {QUEUE})\n"
          f"  mosquitto   {mosquitto.url}   (topic {LABELS}/#)\n"
          "Try             INSERT INTO inventory VALUES ('SKU-100', 'your own', 1.00);\n"
          f"or              SELECT eventbus.publish('{TOPIC}', '{{\"sku\": \"SKU-101\"}}', key => 'SKU-101');\n"
          "and             SELECT * FROM eventbus.status;\n"
          "Stop it with    demo/stop")


def main():
    if os.path.exists(KEPT):
        with open(KEPT) as text:
            if still_runs(json.load(text)):
                sys.exit("a demo is already running; stop it with demo/stop")
    headline("Starting a private PostgreSQL, Redis, RabbitMQ and mosquitto")
    servers = contextlib.ExitStack()
    with servers, contextlib.ExitStack() as stack:
        cluster = PostgresCluster(name="demo", config={"log_min_messages": "warning"})
        servers.callback(cluster.remove)
        cluster.start()
        tell("demo", f"PostgreSQL is up, socket in {cluster.directory}, shared_preload_libraries = 'pg_eventbus'")
        redis = servers.enter_context(RedisServer())
        tell("demo", f"Redis is up, 127.0.0.1:{redis.port}")
        tell("demo", "RabbitMQ begins, which takes some seconds …")
        rabbit = servers.enter_context(RabbitNode())
        tell("demo", f"RabbitMQ is up, 127.0.0.1:{rabbit.port}")
        mosquitto = servers.enter_context(MosquittoServer())
        tell("demo", f"mosquitto is up, 127.0.0.1:{mosquitto.port}")
        try:
            fine = play(Database(cluster, "shop", extension=False), redis, rabbit, mosquitto, stack)
        except (AssertionError, psycopg2.Error) as error:
            print(paint("bad", f"The demo stopped: {error}\nPostgreSQL's log ends with:\n{cluster.log_text()[-2000:]}"))
            fine = False
        print(paint("good", "Every committed event arrived at every consumer, and nothing else did.") if fine
              else paint("bad", "Something is missing: see above."))
        if KEEP:
            keep(cluster, redis, rabbit, mosquitto)
            servers.pop_all()
    if not KEEP:
        print("Everything is stopped and removed.")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())

# What it is: what is published: the payload, the tables and the pgbench scripts, ours and theirs in the same shape.
# Who calls it: the world and the figures.
# Never: gives one side a different statement shape, payload or number of round trips.

TOPIC = "shop.order.created"


def _payload(size):
    """A JSON object as jsonb prints it, so that what goes in is what comes out."""
    before = '{"sku": "A-4711-XL", "note": "'
    after = '", "order": 1234567, "price": 1999, "currency": "EUR", "customer": 42}'
    return before + ("a note from the customer " * 20)[:size - len(before) - len(after)] + after


PAYLOAD = _payload(256)

TABLES = """
CREATE TABLE orders (
    id bigserial PRIMARY KEY, customer bigint NOT NULL, amount numeric NOT NULL,
    placed_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE outbox (
    id bigserial PRIMARY KEY, topic text NOT NULL, payload jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now());
"""

_ORDER = """\\set customer random(1, 100000)
\\set amount random(100, 100000)
WITH b AS (INSERT INTO orders (customer, amount) VALUES (:customer, :amount) RETURNING id)
"""

SCRIPTS = {
    "order_event": _ORDER + f"SELECT eventbus.publish('{TOPIC}', :payload) FROM b;\n",
    "order_outbox": _ORDER + f"INSERT INTO outbox (topic, payload) SELECT '{TOPIC}', :payload FROM b;\n",
    "order_notify": _ORDER + "SELECT pg_notify('shop_order_created', :payload) FROM b;\n",
    "publish_1": f"SELECT eventbus.publish('{TOPIC}', :payload);\n",
    "reading": "\\set id random(1, 9000000000000000000)\n\\set device random(0, 999)\n"
               "INSERT INTO reading VALUES (:id, :device, 'reading ' || :device, :device * 0.01, now(), :device % 3 = 0,"
               " jsonb_build_object('unit', 'km/h', 'value', :device % 250), gen_random_uuid());\n",
    "publish_1000": f"SELECT count(eventbus.publish('{TOPIC}', :payload)) FROM generate_series(1, 1000);\n",
}

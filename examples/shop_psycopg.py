#!/usr/bin/python3
"""What it is: a shop that publishes with psycopg 3, each event in the transaction that writes what it tells of.
Who calls it: whoever copies from it; test/live/test_examples.py. PGHOST, PGDATABASE, PGUSER, ... say where to.
Never: waits for a broker, or publishes what is not committed.
"""
import json
import uuid
from decimal import Decimal

import psycopg
from psycopg.types.json import Jsonb


def place_order(connection, customer, lines, headers):
    """A dictionary as payload, an integer as key, headers."""
    with connection.transaction():
        order_id = connection.execute("INSERT INTO orders (customer, lines) VALUES (%s, %s) RETURNING id",
                                      (customer, Jsonb(lines))).fetchone()[0]
        connection.execute("SELECT eventbus.publish('shop.order.placed', %s, key => %s, headers => %s)",
                           (Jsonb({"id": order_id, "customer": customer, "lines": lines}), order_id, Jsonb(headers)))
    return order_id


def pay(connection, order_id, amount):
    """A UUID as key."""
    payment_id = uuid.uuid4()
    with connection.transaction():
        connection.execute("INSERT INTO payment (id, order_id, amount) VALUES (%s, %s, %s)", (payment_id, order_id, amount))
        connection.execute("SELECT eventbus.publish('shop.payment.received', %s, %s)",
                           (Jsonb({"order": order_id, "amount": str(amount)}), payment_id))
    return payment_id


def import_products(connection, products):
    """Rows and their events in one statement, of one parameter."""
    with connection.transaction():
        connection.execute("""
            WITH imported AS (
                INSERT INTO product (sku, name, price)
                SELECT sku, name, price FROM jsonb_to_recordset(%s) AS given (sku varchar, name text, price numeric)
                ON CONFLICT (sku) DO UPDATE SET name = excluded.name, price = excluded.price
                RETURNING sku, name, price)
            SELECT eventbus.publish('shop.product.imported', to_jsonb(imported), imported.sku) FROM imported""",
                           (Jsonb(products),))


def change_prices(connection, prices):
    """The same with arrays."""
    with connection.transaction():
        connection.execute("""
            WITH repriced AS (
                UPDATE product SET price = given.price FROM unnest(%s::varchar[], %s::numeric[]) AS given (sku, price)
                WHERE product.sku = given.sku
                RETURNING product.sku, product.price)
            SELECT eventbus.publish('shop.product.repriced', to_jsonb(repriced), repriced.sku) FROM repriced""",
                           (list(prices), list(prices.values())))


def count_stock(connection, counts):
    """Statement by statement; psycopg sends them together, and the server answers once."""
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany("UPDATE product SET stock = %s WHERE sku = %s", [(count, sku) for sku, count in counts.items()])
        cursor.executemany("SELECT eventbus.publish('shop.stock.counted', %s, %s)",
                           [(Jsonb({"sku": sku, "stock": count}), sku) for sku, count in counts.items()])


def withdraw(connection, skus):
    """A list as payload: psycopg makes an array of PostgreSQL's of a list that is not wrapped. No key."""
    with connection.transaction():
        connection.execute("DELETE FROM product WHERE sku = ANY (%s)", (skus,))
        connection.execute("SELECT eventbus.publish('shop.product.withdrawn', %s)", (Jsonb(skus),))


def main():
    # prepare_threshold=None: psycopg prepares what it has run five times, which PgBouncer before 1.21 in transaction mode
    # does not follow. Leave it out where no such pooler is between.
    with psycopg.connect("", autocommit=True, prepare_threshold=None) as connection:
        order_id = place_order(connection, "Żaneta O'Neill", [{"sku": "SKU-1", "quantity": 2}],
                               {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tenant": 7})
        payment_id = pay(connection, order_id, Decimal("19.80"))
        try:
            pay(connection, -1, Decimal("5.00"))  # there is no such order: COMMIT fails, and nobody hears of the payment
        except psycopg.errors.ForeignKeyViolation:
            pass
        import_products(connection, [{"sku": f"SKU-{n}", "name": f"desk {n}", "price": "9.90"} for n in range(1, 5)])
        change_prices(connection, {"SKU-1": Decimal("8.90"), "SKU-2": Decimal("12.00")})
        count_stock(connection, {"SKU-1": 3, "SKU-2": 0})
        withdraw(connection, ["SKU-3", "SKU-4"])
    print(json.dumps({"order": order_id, "payment": str(payment_id)}))


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""What it is: a shop that publishes with Django (3.2 and later), each event in its transaction.atomic().
Who calls it: whoever copies from it; test/live/test_examples.py. PGHOST, PGDATABASE, PGUSER, ... say where to.
Never: waits for a broker, or publishes what is not committed. It wants no transaction.on_commit().
"""
import json
import os
import uuid
from decimal import Decimal

import django
from django.conf import settings

settings.configure(  # what is settings.py in a project
    INSTALLED_APPS=[], USE_TZ=True, DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"],
        **{name: os.environ.get(f"PG{name}", "") for name in ("HOST", "PORT", "USER", "PASSWORD")},
        "DISABLE_SERVER_SIDE_CURSORS": True}})  # as Django's manual says for PgBouncer in transaction mode
django.setup()

from django.core.serializers.json import DjangoJSONEncoder  # noqa: E402
from django.db import IntegrityError, connection, models, transaction  # noqa: E402


class Order(models.Model):
    id = models.BigAutoField(primary_key=True)
    customer = models.TextField()
    lines = models.JSONField()

    class Meta:
        app_label, db_table, managed = "shop", "orders", False


class Payment(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    order = models.ForeignKey(Order, models.PROTECT)
    amount = models.DecimalField(max_digits=12, decimal_places=2)

    class Meta:
        app_label, db_table, managed = "shop", "payment", False


class Product(models.Model):
    sku = models.CharField(max_length=20, primary_key=True)
    name = models.TextField()
    price = models.DecimalField(max_digits=12, decimal_places=2)
    stock = models.IntegerField(default=0)

    class Meta:
        app_label, db_table, managed = "shop", "product", False


def as_json(value):
    return None if value is None else json.dumps(value, cls=DjangoJSONEncoder)


def publish(topic, payload, key=None, headers=None):
    """The event's id. payload: whatever DjangoJSONEncoder can say; key: of any type; headers: a dictionary."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT eventbus.publish(%s, %s, %s, %s)", [topic, as_json(payload), key, as_json(headers)])
        return cursor.fetchone()[0]


@transaction.atomic
def place_order(customer, lines, headers):
    """A dictionary as payload, an integer as key, headers."""
    order = Order.objects.create(customer=customer, lines=lines)
    publish("shop.order.placed", {"id": order.id, "customer": customer, "lines": lines}, order.id, headers)
    return order.id


@transaction.atomic
def pay(order_id, amount):
    """A UUID as key; the encoder makes a text of the amount."""
    payment = Payment.objects.create(order_id=order_id, amount=amount)
    publish("shop.payment.received", {"order": order_id, "amount": amount}, payment.id)
    return payment.id


@transaction.atomic
def import_products(products):
    """Rows by the ORM, their events in one statement."""
    for product in products:
        Product.objects.update_or_create(sku=product["sku"], defaults=product)
    with connection.cursor() as cursor:
        cursor.execute("""
            SELECT eventbus.publish('shop.product.imported', to_jsonb(given), given.sku)
            FROM jsonb_to_recordset(%s) AS given (sku text, name text, price numeric)""", [as_json(products)])


@transaction.atomic
def change_prices(prices):
    """Rows and their events in one statement, of two arrays."""
    with connection.cursor() as cursor:
        cursor.execute("""
            WITH repriced AS (
                UPDATE product SET price = given.price FROM unnest(%s::varchar[], %s::numeric[]) AS given (sku, price)
                WHERE product.sku = given.sku
                RETURNING product.sku, product.price)
            SELECT eventbus.publish('shop.product.repriced', to_jsonb(repriced), repriced.sku) FROM repriced""",
                       [list(prices), list(prices.values())])


@transaction.atomic
def count_stock(counts):
    """executemany."""
    for sku, count in counts.items():
        Product.objects.filter(sku=sku).update(stock=count)
    with connection.cursor() as cursor:
        cursor.executemany("SELECT eventbus.publish('shop.stock.counted', %s, %s)",
                           [(as_json({"sku": sku, "stock": count}), sku) for sku, count in counts.items()])


@transaction.atomic
def withdraw(skus):
    """A list as payload, no key."""
    Product.objects.filter(sku__in=skus).delete()
    publish("shop.product.withdrawn", skus)


def main():
    order_id = place_order("Żaneta O'Neill", [{"sku": "SKU-1", "quantity": 2}],
                           {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tenant": 7})
    payment_id = pay(order_id, Decimal("19.80"))
    try:
        pay(-1, Decimal("5.00"))  # there is no such order: COMMIT fails, and nobody hears of the payment
    except IntegrityError:
        pass
    import_products([{"sku": f"SKU-{n}", "name": f"desk {n}", "price": Decimal("9.90")} for n in range(1, 5)])
    change_prices({"SKU-1": Decimal("8.90"), "SKU-2": Decimal("12.00")})
    count_stock({"SKU-1": 3, "SKU-2": 0})
    withdraw(["SKU-3", "SKU-4"])
    print(json.dumps({"order": order_id, "payment": str(payment_id)}))


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""What it is: a shop that publishes with SQLAlchemy's ORM (1.4 and 2), each event in its session's transaction.
Who calls it: whoever copies from it; test/live/test_examples.py. PGHOST, PGDATABASE, PGUSER, ... say where to.
Never: waits for a broker, or publishes what is not committed.
"""
import json
import uuid
from decimal import Decimal

from sqlalchemy import (BigInteger, Column, ForeignKey, Identity, Integer, Numeric, String, Text, create_engine, func,
                        literal, select, text)
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, declarative_base

Base = declarative_base()
JSON = JSONB(none_as_null=True)  # otherwise None would be sent as JSON's null, which is no headers


class Order(Base):
    __tablename__ = "orders"
    id = Column(BigInteger, Identity(always=True), primary_key=True)
    customer = Column(Text, nullable=False)
    lines = Column(JSONB, nullable=False)


class Payment(Base):
    __tablename__ = "payment"
    id = Column(UUID(as_uuid=True), primary_key=True, default=uuid.uuid4)
    order_id = Column(BigInteger, ForeignKey("orders.id", deferrable=True, initially="DEFERRED"), nullable=False)
    amount = Column(Numeric(12, 2), nullable=False)


class Product(Base):
    __tablename__ = "product"
    sku = Column(String(20), primary_key=True)
    name = Column(Text, nullable=False)
    price = Column(Numeric(12, 2), nullable=False)
    stock = Column(Integer, nullable=False, server_default="0")


def publish(session, topic, payload, key=None, headers=None):
    """The event's id. payload: whatever JSON can say; key: of any type; headers: a dictionary."""
    session.flush()  # rows before the events that tell of them: their ids are there, and their locks keep the order
    return session.scalar(select(func.eventbus.publish(topic, literal(payload, JSON), key, literal(headers, JSON))))


def place_order(session, customer, lines, headers):
    """A dictionary as payload, an integer as key, headers."""
    order = Order(customer=customer, lines=lines)
    session.add(order)
    session.flush()
    publish(session, "shop.order.placed", {"id": order.id, "customer": customer, "lines": lines}, order.id, headers)
    return order.id


def pay(session, order_id, amount):
    """A UUID as key."""
    payment = Payment(id=uuid.uuid4(), order_id=order_id, amount=amount)
    session.add(payment)
    publish(session, "shop.payment.received", {"order": order_id, "amount": str(amount)}, payment.id)
    return payment.id


def import_products(session, products):
    """Rows by the ORM, their events in one statement."""
    for product in products:
        session.merge(Product(**product))
    session.flush()
    session.execute(text("""
        SELECT eventbus.publish('shop.product.imported', to_jsonb(given), given.sku)
        FROM jsonb_to_recordset(CAST(:products AS jsonb)) AS given (sku text, name text, price numeric)"""),
                    {"products": json.dumps(products, default=str)})


def change_prices(session, prices):
    """Rows and their events in one statement, of two arrays."""
    session.execute(text("""
        WITH repriced AS (
            UPDATE product SET price = given.price
            FROM unnest(CAST(:skus AS varchar[]), CAST(:prices AS numeric[])) AS given (sku, price)
            WHERE product.sku = given.sku
            RETURNING product.sku, product.price)
        SELECT eventbus.publish('shop.product.repriced', to_jsonb(repriced), repriced.sku) FROM repriced"""),
                    {"skus": list(prices), "prices": list(prices.values())})


def count_stock(session, counts):
    """executemany, with texts that are JSON."""
    for sku, count in counts.items():
        session.get(Product, sku).stock = count
    session.flush()
    session.execute(text("SELECT eventbus.publish('shop.stock.counted', :payload, :sku)"),
                    [{"payload": json.dumps({"sku": sku, "stock": count}), "sku": sku} for sku, count in counts.items()])


def withdraw(session, skus):
    """A list as payload, no key."""
    for sku in skus:
        session.delete(session.get(Product, sku))
    publish(session, "shop.product.withdrawn", skus)


def main():
    engine = create_engine("postgresql+psycopg2://")
    with Session(engine) as session, session.begin():  # COMMIT at the end, ROLLBACK when something is raised
        order_id = place_order(session, "Żaneta O'Neill", [{"sku": "SKU-1", "quantity": 2}],
                               {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tenant": 7})
        payment_id = pay(session, order_id, Decimal("19.80"))
    try:
        with Session(engine) as session, session.begin():
            pay(session, -1, Decimal("5.00"))  # there is no such order: COMMIT fails, and nobody hears of the payment
    except IntegrityError:
        pass
    with Session(engine) as session, session.begin():
        import_products(session, [{"sku": f"SKU-{n}", "name": f"desk {n}", "price": Decimal("9.90")} for n in range(1, 5)])
        change_prices(session, {"SKU-1": Decimal("8.90"), "SKU-2": Decimal("12.00")})
        count_stock(session, {"SKU-1": 3, "SKU-2": 0})
        withdraw(session, ["SKU-3", "SKU-4"])
    print(json.dumps({"order": order_id, "payment": str(payment_id)}))


if __name__ == "__main__":
    main()

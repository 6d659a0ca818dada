-- What it is: the tables of the shop that the programs beside this file write to.
-- Who calls it: psql -f shop.sql, as the role that the programs use; test/live/test_examples.py.
-- Never: needs a right on eventbus: only publishing does.
CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer text NOT NULL,
    lines jsonb NOT NULL);

CREATE TABLE payment (
    id uuid PRIMARY KEY,
    order_id bigint NOT NULL REFERENCES orders DEFERRABLE INITIALLY DEFERRED,  -- looked at by COMMIT
    amount numeric(12, 2) NOT NULL);

CREATE TABLE product (
    sku varchar(20) PRIMARY KEY,
    name text NOT NULL,
    price numeric(12, 2) NOT NULL,
    stock integer NOT NULL DEFAULT 0);

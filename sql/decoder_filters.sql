-- What the output plugin lets through: tables, actions, messages, origins, publications; and what options it takes.
\set SHOW_CONTEXT never
CREATE FUNCTION decoded(VARIADIC options text[] DEFAULT '{}')
RETURNS TABLE (op text, "table" text, before json, after json) LANGUAGE sql AS $$
    SELECT d::json ->> 'op',
           coalesce(d::json -> 'message' ->> 'prefix',
                    concat_ws('.', d::json -> 'source' ->> 'schema', d::json -> 'source' ->> 'table')),
           d::json -> 'before', d::json -> 'after'
    FROM (SELECT data FROM pg_logical_slot_peek_changes('filters', NULL, NULL, VARIADIC
                           ARRAY['format', 'debezium', 'tables', '-eventbus.*'] || options)) AS changes (d)
$$;
CREATE FUNCTION done() RETURNS text LANGUAGE sql AS
$$ SELECT 'done' FROM (SELECT count(*) FROM pg_logical_slot_get_changes('filters', NULL, NULL)) AS all_of_them $$;
SELECT 'ready' FROM pg_create_logical_replication_slot('filters', 'pg_eventbus');

-- Options
SELECT * FROM pg_logical_slot_peek_changes('filters', NULL, NULL, 'format', 'xml');
SELECT * FROM pg_logical_slot_peek_changes('filters', NULL, NULL, 'format', 'debezium', 'include-xids', '1');
SELECT * FROM pg_logical_slot_peek_changes('filters', NULL, NULL, 'nonsense', '1');
SELECT * FROM pg_logical_slot_peek_changes('filters', NULL, NULL, 'tables', 'item');
SELECT * FROM pg_logical_slot_peek_changes('filters', NULL, NULL, 'messages', 'a,,b');
SELECT * FROM pg_logical_slot_peek_changes('filters', NULL, NULL, 'transactions', 'perhaps');
SELECT * FROM pg_logical_slot_peek_changes('filters', NULL, NULL, 'origin', 'there');
SELECT * FROM pg_logical_slot_peek_changes('filters', NULL, NULL, 'publication_names', '');
SELECT * FROM pg_logical_slot_peek_changes('filters', NULL, NULL, 'include-xids', '1', 'streaming', 'on');
SELECT * FROM pg_logical_slot_peek_changes('filters', NULL, NULL, 'include-xids', 'perhaps');
SELECT * FROM pg_logical_slot_peek_changes('filters', NULL, NULL, 'include-unchanged-toast', '1');
SELECT * FROM pg_logical_slot_peek_changes('filters', NULL, NULL, 'format-version', '3');

-- Our own tables: never, whatever is asked for. Brokers have passwords.
CREATE PUBLICATION pub_secret FOR TABLES IN SCHEMA eventbus;
SELECT eventbus.create_broker('secret', 'redis://:s3cret@127.0.0.1:1');
SELECT eventbus.alter_broker('secret', options => '{}');
SELECT eventbus.drop_broker('secret');
SELECT 'the control', count(*) > 0 FROM pg_logical_slot_peek_changes('filters', NULL, NULL, 'format', 'debezium', 'transactions', 'on');
SELECT data FROM pg_logical_slot_peek_changes('filters', NULL, NULL, 'format', 'debezium', 'tables', 'eventbus.broker_config');
SELECT count(*) FROM pg_logical_slot_peek_changes('filters', NULL, NULL, 'add-tables', 'eventbus.broker_config') WHERE data LIKE '%s3cret%';
SELECT count(*) FROM pg_logical_slot_peek_changes('filters', NULL, NULL, 'format', 'debezium', 'publication_names', 'pub_secret') WHERE data LIKE '%s3cret%';
DROP PUBLICATION pub_secret;
SELECT done();

-- Tables
CREATE SCHEMA shop;
CREATE TABLE shop.order_a (id integer PRIMARY KEY);
CREATE TABLE shop.order_b (id integer PRIMARY KEY);
CREATE TABLE shop."order.c*" (id integer PRIMARY KEY);
CREATE TABLE plain (id integer PRIMARY KEY);
INSERT INTO shop.order_a VALUES (1);
INSERT INTO shop.order_b VALUES (1);
INSERT INTO shop."order.c*" VALUES (1);
INSERT INTO plain VALUES (1);
UPDATE plain SET id = 2;
DELETE FROM plain;
TRUNCATE plain, shop.order_a;
SELECT op, "table" FROM decoded('tables', 'shop.*');
SELECT op, "table" FROM decoded('tables', 'shop.order_?, -shop.order_b');
SELECT op, "table" FROM decoded('tables', '-shop.*');
SELECT op, "table" FROM decoded('tables', '*.order.c\*');
SELECT op, "table" FROM decoded('add-tables', 'shop.*,*.plain', 'filter-tables', 'shop.order_b');
SELECT op, "table" FROM decoded('add-tables', 'shop.order\.c\*');
SELECT op, "table" FROM decoded('actions', 'update, delete');
SELECT op, "table" FROM decoded('actions', 'truncate', 'tables', 'public.plain');
SELECT done();

-- Messages
SELECT count(pg_logical_emit_message(true, prefix, 'x')) AS sent
FROM unnest(ARRAY['shop.order', 'shop.item', 'debug', 'shop*']) AS prefix;
SELECT "table" AS prefix FROM decoded();
SELECT "table" AS prefix FROM decoded('messages', 'shop.*');
SELECT "table" AS prefix FROM decoded('messages', '-debug, -shop\*');
SELECT "table" AS prefix FROM decoded('add-msg-prefixes', 'debug,shop.item');
SELECT "table" AS prefix FROM decoded('filter-msg-prefixes', 'debug,shop.item');
SELECT done();
-- a pattern takes no longer the more stars it has, whatever the name, which may be anybody's
SELECT count(pg_logical_emit_message(true, repeat('a', 1000) || e, '1')) FROM unnest('{b,c}'::text[]) e;
SELECT right("table", 2) AS prefix FROM decoded('messages', '*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b');
SELECT right("table", 2) AS prefix FROM decoded('messages', '*?a*?\a??*c, -*ac*ac*');
SELECT done();

-- Origins
SELECT pg_replication_origin_create('eventbus_test') > 0 AS made;
SELECT pg_replication_origin_session_setup('eventbus_test');
INSERT INTO plain VALUES (10);
SELECT pg_replication_origin_session_reset();
INSERT INTO plain VALUES (11);
SELECT after FROM decoded();
SELECT after FROM decoded('origin', 'any');
SELECT after FROM decoded('origin', 'none');
SELECT after FROM decoded('filter-origins', (SELECT string_agg(roident::text, ',') FROM pg_replication_origin));
SELECT done();
SELECT pg_replication_origin_drop('eventbus_test');

-- Publications: a table, a schema, all tables, operations
CREATE PUBLICATION pub_plain FOR TABLE plain WITH (publish = 'insert, delete');
CREATE PUBLICATION pub_shop FOR TABLES IN SCHEMA shop;
CREATE PUBLICATION pub_all FOR ALL TABLES WITH (publish = 'truncate');
INSERT INTO plain VALUES (20);
INSERT INTO shop.order_a VALUES (20);
UPDATE plain SET id = 21 WHERE id = 20;
DELETE FROM plain WHERE id = 21;
TRUNCATE shop.order_a, plain;
SELECT op, "table", after FROM decoded('publication_names', 'pub_plain');
SELECT op, "table", after FROM decoded('publication_names', 'pub_shop');
SELECT op, "table", after FROM decoded('publication_names', 'pub_plain, pub_shop');
SELECT op, "table", after FROM decoded('publication_names', 'pub_all');
SELECT op, "table", after FROM decoded('publication_names', 'pub_plain, "No such"');
-- What a publication has is what it had when the change was made.
ALTER PUBLICATION pub_plain DROP TABLE plain;
INSERT INTO plain VALUES (22);
ALTER PUBLICATION pub_plain ADD TABLE plain;
INSERT INTO plain VALUES (23);
SELECT op, "table", after FROM decoded('publication_names', 'pub_plain');
SELECT done();

-- Columns and rows
CREATE TABLE account (id integer PRIMARY KEY, owner text, balance integer NOT NULL);
ALTER TABLE account REPLICA IDENTITY FULL;
CREATE PUBLICATION pub_columns FOR TABLE account (id, balance) WITH (publish = 'insert');
CREATE PUBLICATION pub_rows FOR TABLE account WHERE (balance > 100);
CREATE PUBLICATION pub_rows_too FOR TABLE account WHERE (owner = 'ann');
INSERT INTO account VALUES (1, 'ann', 50), (2, 'bob', 150), (3, NULL, 50);
UPDATE account SET balance = 200 WHERE id = 1;
UPDATE account SET balance = 60 WHERE id = 2;
UPDATE account SET balance = 201 WHERE id = 1;
DELETE FROM account;
SELECT op, before, after FROM decoded('publication_names', 'pub_columns');
SELECT op, before, after FROM decoded('publication_names', 'pub_rows');
SELECT op, before, after FROM decoded('publication_names', 'pub_rows,pub_rows_too');
SELECT op, before, after FROM decoded('publication_names', 'pub_rows,pub_columns');
SELECT data FROM pg_logical_slot_peek_changes('filters', NULL, NULL, 'format-version', '2', 'publication_names',
                                              'pub_columns', 'skip-empty-xacts', '1');
SELECT done();

-- Partitions, under their own names or their ancestor's
CREATE TABLE parted (id integer PRIMARY KEY, n integer) PARTITION BY RANGE (id);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE TABLE parted_high (n integer, gone integer, id integer NOT NULL);
ALTER TABLE parted_high DROP COLUMN gone;
ALTER TABLE parted ATTACH PARTITION parted_high FOR VALUES FROM (10) TO (20);
CREATE PUBLICATION pub_leaves FOR TABLE parted;
CREATE PUBLICATION pub_root FOR TABLE parted WITH (publish_via_partition_root);
CREATE PUBLICATION pub_root_rows FOR TABLE parted WHERE (id <> 1) WITH (publish_via_partition_root);
INSERT INTO parted VALUES (1, 1), (11, 1);
UPDATE parted SET n = 2;
UPDATE parted SET id = 12 WHERE id = 1;
TRUNCATE parted;
SELECT * FROM decoded('publication_names', 'pub_leaves');
SELECT * FROM decoded('publication_names', 'pub_root');
SELECT * FROM decoded('publication_names', 'pub_leaves,pub_root', 'tables', 'public.parted');
SELECT * FROM decoded('publication_names', 'pub_root_rows');
SELECT done();

SELECT 'gone' FROM pg_drop_replication_slot('filters');
DROP PUBLICATION pub_plain, pub_shop, pub_all, pub_columns, pub_rows, pub_rows_too, pub_leaves, pub_root, pub_root_rows;
DROP TABLE plain, account, parted, shop.order_a, shop.order_b, shop."order.c*";
DROP SCHEMA shop;
DROP FUNCTION decoded, done;

-- The output plugin in its own format: Debezium's envelope. What differs from run to run is masked.
CREATE FUNCTION decoded_raw(VARIADIC options text[] DEFAULT '{}') RETURNS SETOF text LANGUAGE sql AS $$
    SELECT data FROM pg_logical_slot_get_changes('decoder', NULL, NULL, VARIADIC
                     ARRAY['format', 'debezium', 'source', 'test', 'tables', '-eventbus.*'] || options)
$$;
CREATE FUNCTION decoded(VARIADIC options text[] DEFAULT '{}') RETURNS SETOF text LANGUAGE sql AS $$
    SELECT regexp_replace(regexp_replace(data, '("txId":|"ts_ms":|"lsn":|"id":"|"sub_id":")[0-9]+', '\1N', 'g'),
                          '"source":{"version":"[^"]*","connector":"postgresql","name":"test","db":"[^"]*",',
                          '"source":{…,')
    FROM decoded_raw(VARIADIC options) data
$$;
-- The row and nothing else.
CREATE FUNCTION decoded_rows(VARIADIC options text[] DEFAULT '{}')
RETURNS TABLE (op text, "table" text, before json, after json) LANGUAGE sql AS $$
    SELECT d::json ->> 'op', concat_ws('.', d::json -> 'source' ->> 'schema', d::json -> 'source' ->> 'table'),
           d::json -> 'before', d::json -> 'after'
    FROM decoded_raw(VARIADIC options) d
$$;
SET timezone = 'Europe/Berlin';
SELECT 'ready' FROM pg_create_logical_replication_slot('decoder', 'pg_eventbus');

-- The envelope
CREATE TABLE item (id integer PRIMARY KEY, name text, price numeric);
INSERT INTO item VALUES (1, 'a "desk"', 349.50), (2, NULL, 'NaN');
UPDATE item SET price = 10 WHERE id = 1;
UPDATE item SET id = 3 WHERE id = 1;
DELETE FROM item WHERE id = 2;
TRUNCATE item;
SELECT * FROM decoded();

-- What the replica identity says of the old row
CREATE TABLE keyless (a integer, b text);
CREATE TABLE by_index (a integer, b integer NOT NULL, c text);
CREATE UNIQUE INDEX by_index_b ON by_index (b);
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_b;
CREATE TABLE whole (a integer, b text);
ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE nothing (a integer PRIMARY KEY, b text);
ALTER TABLE nothing REPLICA IDENTITY NOTHING;
INSERT INTO keyless VALUES (1, 'x');
INSERT INTO by_index VALUES (1, 2, 'x');
INSERT INTO whole VALUES (1, 'x');
INSERT INTO nothing VALUES (1, 'x');
UPDATE keyless SET b = 'y';
UPDATE by_index SET c = 'y';
UPDATE by_index SET b = 3;
UPDATE whole SET b = 'y';
UPDATE nothing SET b = 'y';
DELETE FROM keyless;
DELETE FROM by_index;
DELETE FROM whole;
DELETE FROM nothing;
SELECT * FROM decoded_rows();
-- With the whole old row, the columns that have changed are named.
INSERT INTO whole VALUES (1, 'x'), (NULL, NULL);
UPDATE whole SET b = 'y';
UPDATE whole SET a = a;
SELECT d::json -> 'before' AS before, d::json -> 'after' AS after, d::json -> 'changed' AS changed FROM decoded_raw() d
WHERE d::json ->> 'op' = 'u';

-- Types
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE TYPE pair AS (a integer, b text);
CREATE DOMAIN small AS integer;
CREATE TABLE types (
    i2 smallint, i8 bigint, f4 real, f8 double precision, n numeric, ok boolean, t text, v varchar(5), c char(3),
    "ch" "char", b bytea, d date, ts timestamp, tz timestamptz, tm time, iv interval, u uuid, j json, jb jsonb, ta text[],
    ia integer[], m mood, p pair, pa pair[], s small, r int4range, bits bit(3), ip inet, x xml, cash money, k oid);
INSERT INTO types VALUES (
    1, 9223372036854775807, 1.5, 'NaN', 1234567890.0100, true, E'tab\t"quote" \\ \x01', 'vc', 'c', 'x', '\xdeadbeef',
    '2024-02-29', '2024-02-29 12:00:00.5', '2024-02-29 12:00:00+00', '12:00', '1 day 2 hours',
    'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a":  1}', '{"b": [1, null]}', '{a,NULL,"b c"}', '{{1,2},{3,4}}', 'glad',
    ROW(1, 'x, "y"'), ARRAY[ROW(2, NULL)::pair], 7, '[1,5)', B'101', '10.0.0.1/24', '<a>"b"</a>', 12.5, 4000000000);
INSERT INTO types (f4, f8, d, ts, tz) VALUES ('-Infinity', 'Infinity', 'infinity', '-infinity', '0044-03-15 BC');
SELECT jsonb_pretty(after::jsonb) FROM decoded_rows() LIMIT 1;
INSERT INTO types (f4, f8, d, ts, tz) VALUES ('-Infinity', 'Infinity', 'infinity', '-infinity', '0044-03-15 BC');
SELECT json_strip_nulls(after) FROM decoded_rows();

-- A record is one line, and valid, also with line ends in a json and a byte that is no text.
CREATE TABLE lines (j json, ja json[], c "char");
INSERT INTO lines VALUES (E'{"a":\n [1,\r\n2]}', ARRAY[E'[1,\n2]'::json], '\x00'), ('1', NULL, 'ż');
SELECT d ~ '[\n\r]' AS line_ends, d::json -> 'after' AS after FROM decoded_raw() d;

-- A conversion to json in a language that may look into tables is not called.
CREATE TYPE odd AS ENUM ('one', 'two');
CREATE FUNCTION odd_json(odd) RETURNS json LANGUAGE sql AS $$ SELECT to_json(count(*)) FROM types $$;
CREATE CAST (odd AS json) WITH FUNCTION odd_json(odd);
CREATE TABLE odd_table (o odd);
INSERT INTO odd_table VALUES ('two');
SELECT after FROM decoded_rows();

-- Values that an UPDATE does not touch and that are stored apart
CREATE TABLE big (id integer PRIMARY KEY, t text, b bytea, n integer);
ALTER TABLE big ALTER t SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL;
INSERT INTO big VALUES (1, repeat('x', 10000), decode(repeat('00', 5000), 'hex'), 1);
UPDATE big SET n = 2;
UPDATE big SET t = repeat('y', 9000);
ALTER TABLE big REPLICA IDENTITY FULL;
UPDATE big SET n = 3;
SELECT op, length(before ->> 't') AS t_before, length(after ->> 't') AS t, length(after ->> 'b') AS b,
       CASE WHEN length(after ->> 'b') < 100 THEN after ->> 'b' END AS instead
FROM decoded_rows();

-- A key that is stored apart: an UPDATE of another column logs the old row, and nothing is unavailable.
CREATE TABLE long_key (k text, part integer, n integer, PRIMARY KEY (k, part));
ALTER TABLE long_key ALTER k SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX long_key_part ON long_key (part, k);
INSERT INTO long_key VALUES (repeat('k', 2500), 1, 1);
UPDATE long_key SET n = 2;
ALTER TABLE long_key REPLICA IDENTITY USING INDEX long_key_part;
UPDATE long_key SET n = 3;
ALTER TABLE long_key REPLICA IDENTITY FULL;
UPDATE long_key SET n = 4;
ALTER TABLE long_key REPLICA IDENTITY NOTHING;
UPDATE long_key SET n = 5;
DELETE FROM long_key;
SELECT op, length(before ->> 'k') AS k_before, length(after ->> 'k') AS k,
       CASE WHEN length(after ->> 'k') < 100 THEN after ->> 'k' END AS instead
FROM decoded_rows();

-- Partitions
CREATE TABLE parted (id integer PRIMARY KEY, t text) PARTITION BY LIST (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
CREATE TABLE parted_2 (t text, id integer NOT NULL);
ALTER TABLE parted ATTACH PARTITION parted_2 DEFAULT;
INSERT INTO parted VALUES (1, 'one'), (2, 'two');
UPDATE parted SET id = 5 WHERE id = 1;
TRUNCATE parted;
SELECT * FROM decoded_rows();

-- The table as it was when it changed
BEGIN;
CREATE TABLE moving (a integer PRIMARY KEY, b text);
INSERT INTO moving VALUES (1, 'one');
ALTER TABLE moving RENAME b TO c;
INSERT INTO moving VALUES (2, 'two');
ALTER TABLE moving ADD COLUMN d integer DEFAULT 4;
UPDATE moving SET c = 'uno' WHERE a = 1;
SAVEPOINT s;
ALTER TABLE moving DROP COLUMN c;
INSERT INTO moving VALUES (3, 3);
ROLLBACK TO s;
ALTER TABLE moving RENAME TO moved;
INSERT INTO moved VALUES (4, 'four', 4);
ALTER TYPE mood RENAME VALUE 'glad' TO 'happy';
COMMIT;
ALTER TABLE moved ALTER d TYPE text;
INSERT INTO moved VALUES (5, 'five', '5');
ALTER TABLE moved SET SCHEMA pg_catalog;
DROP TABLE pg_catalog.moved;
SELECT * FROM decoded_rows();

-- Messages
SELECT 'sent' FROM pg_logical_emit_message(true, 'shop.order', 'żółw');
SELECT 'sent' FROM pg_logical_emit_message(false, 'shop.now', '\x00ff01'::bytea);
BEGIN;
SELECT 'sent' FROM pg_logical_emit_message(true, 'shop.order', 'never');
SELECT 'sent' FROM pg_logical_emit_message(false, 'shop.now', 'all the same');
ROLLBACK;
SELECT 'sent' FROM pg_logical_emit_message(true, 'shop.order', '');
SELECT * FROM decoded();

-- BEGIN and END
BEGIN;
INSERT INTO item VALUES (10, 'ten', 10);
SELECT 'sent' FROM pg_logical_emit_message(true, 'shop.order', 'x');
COMMIT;
CREATE TABLE only_ddl (a integer);
SELECT * FROM decoded('transactions', 'on', 'skip-empty-xacts', 'on');
-- Empty transactions, too; workers make others beside.
CREATE TABLE more_ddl (a integer);
SELECT count(*) FILTER (WHERE d ~ '"status":"END".*"event_count":0') > 0 AS empty FROM decoded('transactions', 'on') d;

SELECT 'gone' FROM pg_drop_replication_slot('decoder');
DROP FUNCTION decoded_rows, decoded, decoded_raw;
DROP TABLE item, keyless, by_index, whole, nothing, types, odd_table, lines, big, long_key, parted, only_ddl, more_ddl;
DROP CAST (odd AS json);
DROP FUNCTION odd_json;
DROP TYPE mood, pair, odd;
DROP DOMAIN small;
RESET timezone;

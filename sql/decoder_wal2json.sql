-- wal2json's format: what 2.6 has and 2.5 has not, and where we differ from both because they write no JSON or lose
-- something. test/live/test_wal2json.py compares the rest byte for byte.
\set SHOW_CONTEXT never
CREATE FUNCTION decoded(VARIADIC options text[]) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT data FROM pg_logical_slot_peek_changes('wal2json', NULL, NULL, VARIADIC
                     ARRAY['skip-empty-xacts', 'on', 'tables', '-eventbus.*'] || options)
$$;
CREATE FUNCTION done() RETURNS text LANGUAGE sql AS
$$ SELECT 'done' FROM (SELECT count(*) FROM pg_logical_slot_get_changes('wal2json', NULL, NULL)) AS all_of_them $$;
SELECT 'ready' FROM pg_create_logical_replication_slot('wal2json', 'pg_eventbus');

-- Both versions, pretty and not, in chunks and not
CREATE TABLE item (id integer PRIMARY KEY, name varchar(10) NOT NULL DEFAULT 'none', price numeric(8,2));
BEGIN;
INSERT INTO item VALUES (1, 'desk', 349.5), (2, 'chair', NULL);
UPDATE item SET price = 'NaN' WHERE id = 1;
UPDATE item SET id = 3 WHERE id = 2;
DELETE FROM item WHERE id = 1;
SELECT 'sent' FROM pg_logical_emit_message(true, 'prefix', 'in "it"');
SELECT 'sent' FROM pg_logical_emit_message(false, 'prefix', 'beside it');
TRUNCATE item;
COMMIT;
SELECT * FROM decoded('format-version', '1');
SELECT * FROM decoded('format-version', '2');
SELECT * FROM decoded('format-version', '1', 'pretty-print', '1', 'include-pk', '1');
SELECT * FROM decoded('format-version', '1', 'write-in-chunks', '1', 'include-column-positions', '1',
                      'include-type-oids', '1', 'include-default', '1', 'include-not-null', '1');
SELECT * FROM decoded('format-version', '2', 'include-column-positions', '1', 'include-type-oids', '1',
                      'include-default', '1', 'include-not-null', '1', 'include-pk', '1', 'include-schemas', '0');
SELECT * FROM decoded('format-version', '1', 'numeric-data-types-as-string', '1', 'actions', 'insert, update');
SELECT * FROM decoded('format-version', '2', 'numeric-data-types-as-string', '1', 'actions', 'insert, update');
SELECT done();

-- Types
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE TYPE pair AS (a integer, b text);
CREATE TABLE types (
    i2 smallint, i8 bigint, f4 real, f8 double precision, n numeric, ok boolean, t text, v varchar(5), c char(3), b bytea,
    d date, ts timestamp(3), tz timestamptz, tm time, iv interval, u uuid, j json, jb jsonb, ta text[], m mood, p pair,
    r int4range, bits bit(3), ip inet, cash money, k oid);
INSERT INTO types VALUES (
    1, 9223372036854775807, 1.5, 'NaN', 1234567890.0100, true, E'tab\t"quote" \\ \x01', 'vc', 'c', '\xdeadbeef',
    '2024-02-29', '2024-02-29 12:00:00.5', '2024-02-29 12:00:00+00', '12:00', '1 day 2 hours',
    'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', E'{"a":\n 1}', '{"b": [1, null]}', '{a,NULL,"b c"}', 'glad',
    ROW(1, 'x, "y"'), '[1,5)', B'101', '10.0.0.1/24', 12.5, 4000000000);
SELECT * FROM decoded('format-version', '1');
SELECT * FROM decoded('format-version', '1', 'include-typmod', '0');
SELECT * FROM decoded('format-version', '2', 'include-transaction', '0');
SELECT done();

-- Values that an UPDATE did not touch, partitions, tables that change within a transaction
CREATE TABLE big (id integer PRIMARY KEY, t text, n integer);
ALTER TABLE big ALTER t SET STORAGE EXTERNAL;
CREATE TABLE parted (id integer PRIMARY KEY, t text) PARTITION BY LIST (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
INSERT INTO big VALUES (1, repeat('x', 10000), 1);
SELECT done();
BEGIN;
UPDATE big SET n = 2;
ALTER TABLE big REPLICA IDENTITY FULL;
ALTER TABLE big RENAME n TO m;
UPDATE big SET m = 3, id = 2;
ALTER TABLE big DROP COLUMN t, ADD COLUMN extra integer DEFAULT 7;
UPDATE big SET m = 4;
INSERT INTO parted VALUES (1, 'one');
ALTER TYPE mood RENAME VALUE 'glad' TO 'happy';
INSERT INTO types (m) VALUES ('happy');
ALTER TABLE parted RENAME TO divided;
TRUNCATE divided;
COMMIT;
SELECT regexp_replace(d, 'x{100,}', 'x…', 'g') FROM decoded('format-version', '1', 'include-types', '0') d;
SELECT regexp_replace(d, 'x{100,}', 'x…', 'g') FROM decoded('format-version', '2', 'include-types', '0') d
WHERE d !~ '"table":"types"';
SELECT done();

-- The primary key where the identity is another (2.5 left it out in version 1)
CREATE TABLE keys (a integer PRIMARY KEY, b integer NOT NULL UNIQUE);
ALTER TABLE keys REPLICA IDENTITY USING INDEX keys_b_key;
INSERT INTO keys VALUES (1, 2);
UPDATE keys SET b = 3;
ALTER TABLE keys REPLICA IDENTITY FULL;
DELETE FROM keys;
SELECT * FROM decoded('format-version', '1', 'include-pk', '1');
SELECT * FROM decoded('format-version', '2', 'include-pk', '1');
SELECT done();

-- Rows without an identity
CREATE TABLE keyless (a integer);
INSERT INTO keyless VALUES (1);
UPDATE keyless SET a = 2;
DELETE FROM keyless;
SELECT * FROM decoded('format-version', '1');
SELECT * FROM decoded('format-version', '2');
SELECT done();

-- Types whose names need quotes: one that is simple is written as wal2json does, without them
CREATE SCHEMA "Odd";
CREATE TYPE "Simple" AS ENUM ('x');
CREATE TYPE "With ""quotes""" AS ENUM ('x');
CREATE TYPE "Odd"."Type" AS ENUM ('x');
CREATE TABLE quoted (a "Simple", b "With ""quotes""", c "Odd"."Type", d "Simple"[], e "char", id "Odd"."Type" PRIMARY KEY);
INSERT INTO quoted VALUES ('x', 'x', 'x', '{x}', 'x', 'x');
SELECT d, d::json IS NOT NULL AS valid FROM decoded('format-version', '1', 'include-pk', '1') d;
SELECT d, d::json IS NOT NULL AS valid FROM decoded('format-version', '2', 'include-pk', '1', 'actions', 'insert') d;
SELECT done();

-- Defaults with quotes, backslashes and line ends in them
CREATE TABLE defaults (a text DEFAULT 'say "hello"', b text DEFAULT E'back\\slash\nline', c integer DEFAULT 7);
INSERT INTO defaults DEFAULT VALUES;
SELECT d, d::json IS NOT NULL AS valid FROM decoded('format-version', '1', 'include-default', '1') d;
SELECT d, d::json IS NOT NULL AS valid FROM decoded('format-version', '2', 'include-default', '1', 'actions', 'insert') d;
SELECT done();
-- They are those of the time of the change, also where only what they name has changed.
CREATE SEQUENCE numbers;
CREATE TABLE numbered (n bigint DEFAULT nextval('numbers'));
INSERT INTO numbered DEFAULT VALUES;
ALTER SEQUENCE numbers RENAME TO "Numbers";
INSERT INTO numbered DEFAULT VALUES;
SELECT d::json #>> '{columns,0,default}' AS default FROM decoded('format-version', '2', 'include-default', '1',
                                                                 'include-transaction', '0') d;
SELECT done();

-- Bytes, whatever bytea_output says
CREATE TABLE bytes (b bytea);
INSERT INTO bytes VALUES ('\x00ff41');
SET bytea_output = escape;
SELECT * FROM decoded('format-version', '1');
SELECT * FROM decoded('format-version', '2');
RESET bytea_output;
SELECT done();

-- Messages with NULs, and such that are no text
SELECT 'sent' FROM pg_logical_emit_message(true, 'prefix', '\x61006200'::bytea);
SELECT 'sent' FROM pg_logical_emit_message(true, 'prefix', 'żółw'::bytea || '\x00'::bytea);
SELECT 'sent' FROM pg_logical_emit_message(true, 'prefix', '\x61ff2280'::bytea);
SELECT * FROM decoded('format-version', '1');
SELECT * FROM decoded('format-version', '2', 'include-transaction', '0');
SELECT done();

-- A byte that is no text
CREATE TABLE bytes_too (c "char");
INSERT INTO bytes_too VALUES ('ż'), ('z');
SELECT * FROM decoded('format-version', '1');
SELECT * FROM decoded('format-version', '2', 'include-transaction', '0');
SELECT done();

-- Domains, by their own name or their base type's
CREATE DOMAIN small AS numeric(4,1);
CREATE TABLE domains (s small, t small[]);
INSERT INTO domains VALUES (1.5, '{2.5}');
SELECT * FROM decoded('format-version', '1');
SELECT * FROM decoded('format-version', '1', 'include-domain-data-type', '1');
SELECT * FROM decoded('format-version', '1', 'include-domain-data-type', '1', 'include-typmod', '0');
SELECT * FROM decoded('format-version', '1', 'include-domain-data-type', '1', 'include-types', '0',
                      'include-not-null', '1');
SELECT * FROM decoded('format-version', '2', 'include-domain-data-type', '1');
SELECT done();

SELECT 'gone' FROM pg_drop_replication_slot('wal2json');
DROP TABLE item, types, big, divided, keys, keyless, quoted, defaults, numbered, bytes, bytes_too, domains;
DROP SEQUENCE "Numbers";
DROP TYPE "Simple", "With ""quotes""", "Odd"."Type";
DROP SCHEMA "Odd";
DROP DOMAIN small;
DROP TYPE mood, pair;
DROP FUNCTION decoded, done;

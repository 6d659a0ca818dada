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
DROP TABLE item, keys, keyless, quoted, defaults, numbered, bytes, bytes_too, domains;
DROP SEQUENCE "Numbers";
DROP TYPE "Simple", "With ""quotes""", "Odd"."Type";
DROP SCHEMA "Odd";
DROP DOMAIN small;
DROP FUNCTION decoded, done;

-- Captured tables: what is published of which change, and how it is asked for.
SET client_min_messages = error;  -- whether pg_eventbus is preloaded or not
SET timezone = 'UTC';
SET bytea_output = 'hex';
SET lc_monetary = 'C';
\set SHOW_CONTEXT never
-- A route that goes nowhere keeps the events in the log.
SELECT eventbus.create_broker('nowhere', 'redis:///nonexistent/redis.sock');
SELECT eventbus.create_route('hold', 'nowhere', 'list:held');
SELECT eventbus.pause_route('hold');
CREATE SCHEMA shop;
CREATE DOMAIN shop.word AS text CHECK (VALUE <> '');
CREATE TYPE shop.place AS (lat numeric, lon numeric);
CREATE TYPE shop.state AS ENUM ('new', 'paid');
CREATE TABLE seen AS SELECT coalesce(max(id), 0) AS id FROM eventbus.event;
-- The events since the last look, without what is different each time.
CREATE FUNCTION news() RETURNS TABLE (topic text, key text, payload jsonb) LANGUAGE sql AS $$
    WITH looked AS (UPDATE seen SET id = (SELECT coalesce(max(id), 0) FROM eventbus.event) RETURNING 1)
    SELECT e.topic, e.key, CASE WHEN jsonb_typeof(e.payload::jsonb) = 'object' THEN e.payload::jsonb - 'source' - 'ts_ms'
                           ELSE e.payload::jsonb END
    FROM eventbus.event e, seen WHERE e.id > seen.id AND EXISTS (SELECT FROM looked) ORDER BY e.id;
$$;

-- One call, and every change of the table is an event in Debezium's envelope
CREATE TABLE shop.item (
    id     integer PRIMARY KEY,
    name   text,
    price  numeric(10, 2),
    double integer GENERATED ALWAYS AS (id * 2) STORED
);
SELECT eventbus.capture('shop.item');
INSERT INTO shop.item VALUES (1, E'a "quoted"\\ line\nand\ttab \x01 €', 1.50), (2, NULL, NULL);
UPDATE shop.item SET price = 2, name = name WHERE id = 1;
DELETE FROM shop.item WHERE id = 2;
TRUNCATE shop.item;
SELECT * FROM news();
-- with where it comes from, and when
BEGIN;
INSERT INTO shop.item VALUES (3, 'three', 3);
SELECT (e.payload::jsonb -> 'source') - 'ts_ms' = jsonb_build_object('version', x.extversion, 'connector', 'postgresql',
           'name', 'postgresql://' || (SELECT system_identifier FROM pg_control_system()) || '/' || current_database(),
           'db', current_database(), 'schema', 'shop', 'table', 'item', 'txId', pg_current_xact_id()::text::bigint,
           'lsn', NULL, 'snapshot', false) AS source,
       (e.payload::jsonb ->> 'ts_ms')::bigint BETWEEN trunc(extract(epoch FROM now()) * 1000)
           AND extract(epoch FROM clock_timestamp()) * 1000 AS now,
       e.payload::jsonb #> '{source,ts_ms}' = e.payload::jsonb -> 'ts_ms' AS then,
       e.headers = jsonb_build_object('pg-txid', pg_current_xact_id()::text::bigint, 'pg-user', current_user) AS headers,
       e.content_type
FROM (SELECT * FROM eventbus.event ORDER BY id DESC LIMIT 1) e, pg_extension x WHERE x.extname = 'pg_eventbus';
COMMIT;
SELECT count(*) FROM news();

-- An UPDATE that changes nothing publishes nothing, unless asked; one that changes what is not published neither
UPDATE shop.item SET name = 'three', price = 3.0;
SELECT * FROM news();
SELECT eventbus.capture('shop.item', operations => 'update, unchanged');
UPDATE shop.item SET name = name;
SELECT * FROM news();
SELECT eventbus.capture('shop.item', columns => '-price');
UPDATE shop.item SET price = 4;
UPDATE shop.item SET price = 5, name = 'drei';
SELECT * FROM news();

-- Payload, columns, key, topic, headers, operations
SELECT eventbus.capture('shop.item', 'stock.{table}', 'insert, delete', payload => 'row', columns => 'id, name', key => 'name, id', headers => '{"origin": "capture", "n": 1}');
INSERT INTO shop.item VALUES (4, 'four', 4), (5, NULL, 5);
UPDATE shop.item SET name = 'five' WHERE id = 5;
DELETE FROM shop.item WHERE id = 4;
SELECT * FROM news();
SELECT headers - 'pg-txid' - 'pg-user' AS headers FROM eventbus.event ORDER BY id DESC LIMIT 1;
SELECT eventbus.capture('shop.item', payload => 'key');
UPDATE shop.item SET price = 1 WHERE id = 5;
DELETE FROM shop.item WHERE id = 5;
TRUNCATE shop.item;
SELECT * FROM news();

-- A condition over OLD and NEW; a row that there is none of is a row of nulls
SELECT eventbus.capture('shop.item', condition => 'NEW.price > 10 AND NEW.price IS DISTINCT FROM OLD.price OR (OLD).name = ''NEW.old "new"''');
INSERT INTO shop.item VALUES (1, 'low', 1), (2, 'high', 20), (3, 'NEW.old "new"', 3);
UPDATE shop.item SET name = 'higher' WHERE id = 2;
UPDATE shop.item SET price = 11 WHERE id = 1;
DELETE FROM shop.item;
SELECT topic, key FROM news();
SELECT operations, condition FROM eventbus.captured;
SELECT eventbus.capture('shop.item', operations => 'insert', condition => E'"new".name LIKE E''it\\''s NEW'' /* NEW */');
INSERT INTO shop.item VALUES (9, 'it''s NEW', 1), (10, 'no', 1);
SELECT topic, key FROM news();

-- Keys: primary key, replica identity, none; values joined by slashes; one that is too long is cut, and still its own
CREATE TABLE shop.pair (a text, b integer NOT NULL, c integer NOT NULL, PRIMARY KEY (a, b));
CREATE UNIQUE INDEX pair_c ON shop.pair (c);
SELECT eventbus.capture('shop.pair', operations => 'insert', payload => 'key');
INSERT INTO shop.pair VALUES ('x', 1, 10);
ALTER TABLE shop.pair REPLICA IDENTITY USING INDEX pair_c;
INSERT INTO shop.pair VALUES ('x', 2, 20);
ALTER TABLE shop.pair REPLICA IDENTITY FULL;
ALTER TABLE shop.pair DROP CONSTRAINT pair_pkey, ADD CONSTRAINT pair_pkey PRIMARY KEY (b, a) DEFERRABLE;
INSERT INTO shop.pair VALUES ('y', 3, 25);
INSERT INTO shop.pair VALUES (repeat('ö', 700) || '1', 3, 30), (repeat('ö', 700) || '2', 3, 31);
ALTER TABLE shop.pair DROP CONSTRAINT pair_pkey;
ALTER TABLE shop.pair ALTER a DROP NOT NULL;
INSERT INTO shop.pair VALUES (NULL, 4, 40);
SELECT topic, CASE WHEN length(key) > 20 THEN octet_length(key) || ' bytes' ELSE key END AS key, payload - 'a' AS payload FROM news();
SELECT count(DISTINCT key) FROM eventbus.event WHERE topic = 'shop.pair.insert' AND octet_length(key) > 1000;

-- One that an UPDATE changes is the new one from then on; what deletes the row has its last
CREATE TABLE shop.renamed (a text PRIMARY KEY);
SELECT eventbus.capture('shop.renamed');
INSERT INTO shop.renamed VALUES ('old');
UPDATE shop.renamed SET a = 'a/new';
DELETE FROM shop.renamed;
SELECT * FROM news();
DROP TABLE shop.renamed;

-- A row has one key, whatever the session has set
CREATE TABLE shop.moments (d date, ts timestamp, tt timestamptz, r daterange, iv interval, f float8, by bytea, n numeric, e shop.state, da date[]);
SELECT eventbus.capture('shop.moments', operations => 'insert', payload => 'key', key => 'd, ts, tt, r, iv, f, by, n, e, da');
INSERT INTO shop.moments VALUES ('2024-02-29', '2024-02-29 12:00:00.5', '2024-02-29 12:00+02', '[2024-02-01,2024-02-29)', '1 day 02:00', 0.1, '\x00ff', 1.50, 'paid', '{2024-02-29}');
SET datestyle = 'German';
SET intervalstyle = 'iso_8601';
SET timezone = 'Asia/Tokyo';
SET extra_float_digits = -10;
SET bytea_output = 'escape';
INSERT INTO shop.moments TABLE shop.moments;
SHOW timezone;
RESET datestyle;
RESET intervalstyle;
RESET extra_float_digits;
SET timezone = 'UTC';
SET bytea_output = 'hex';
SELECT key, count(*) FROM news() GROUP BY key;
DROP TABLE shop.moments;

-- All kinds of types, as to_jsonb has them
CREATE TABLE shop.kinds (
    b boolean, i2 smallint, i4 integer, i8 bigint, f4 real, f8 double precision, n numeric, m money,
    t text, v varchar(10), c char(5), nm name, by bytea, d date, tm time, tz timetz, ts timestamp, tt timestamptz,
    iv interval, u uuid, j json, jb jsonb, x xml, r int4range, mr int4multirange, ip inet, p point, tv tsvector,
    bt bit(3), e shop.state, w shop.word, pl shop.place, ia integer[], ta text[][], pa shop.place[], wa shop.word[], ea shop.state[]
);
SELECT eventbus.capture('shop.kinds', payload => 'row');
INSERT INTO shop.kinds VALUES (
    true, -32768, 2147483647, -9223372036854775808, 1.5, 1e100, 123456789012345678901234567890.0123456789, '12.30',
    E'\b\f\r\\/', 'vär', 'ch', 'name', '\x00ff5c22', '2024-02-29', '12:34:56.789', '12:34:56+02', '2024-02-29 12:34:56.789', '2024-02-29 12:34:56+02',
    '1 mon 2 days 03:04:05', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a" : [1, null], "ö": "\u00f6"}', '{"b": {"c": 1e3}}', '<a>"</a>', '[1,5)', '{[1,3),[5,7)}', '10.0.0.1/8', '(1,2)', 'a:1 b:2',
    '101', 'paid', 'word', ROW(1.50, -2), '{1,NULL,3}', '{{a,b},{c,"d e"}}', ARRAY[ROW(1, 2)::shop.place, NULL], '{x,y}', '{new,paid}');
INSERT INTO shop.kinds (f4, f8, n, d, ts, tt, ia, ta) VALUES ('NaN', '-Infinity', 'NaN', 'infinity', '-infinity', 'infinity', '{}', '[2:3]={a,b}');
INSERT INTO shop.kinds (n, f8) VALUES ('Infinity', 0.1), (-0.0, -0.0), (1e-30, 1e-30);
INSERT INTO shop.kinds (d, ts, tt, iv, j, jb, pl, mr) VALUES ('0044-03-15 BC', '0044-03-15 12:00 BC', '294276-12-31', '-1 year', 'null', 'null', ROW(NULL, NULL), '{}');
SELECT * FROM news();
SELECT count(*) AS rows, bool_and(e.payload::jsonb = to_jsonb(k)) AS as_to_jsonb
FROM (SELECT payload, row_number() OVER (ORDER BY id) AS n FROM eventbus.event WHERE topic = 'shop.kinds.insert') e
JOIN (SELECT ctid AS place, row_number() OVER (ORDER BY ctid) AS n FROM shop.kinds) place USING (n)
JOIN shop.kinds k ON k.ctid = place;
-- and whatever the session's settings, what is a date stays ISO
SET datestyle = 'German';
SET intervalstyle = 'iso_8601';
INSERT INTO shop.kinds (d, ts, iv, ia) VALUES ('29.02.2024', '29.02.2024 12:00', 'P1D', '{1}');
RESET datestyle;
RESET intervalstyle;
SELECT jsonb_strip_nulls(payload) AS payload FROM news();
TRUNCATE shop.kinds;

-- A type of one's own that has a cast to json uses it
CREATE EXTENSION IF NOT EXISTS hstore;
CREATE TABLE shop.stored (h hstore);
SELECT eventbus.capture('shop.stored', payload => 'row');
INSERT INTO shop.stored VALUES ('a=>1, b=>NULL');
SELECT topic, payload FROM news();
DROP TABLE shop.stored;
DROP EXTENSION hstore;

-- Toasted values arrive whole, changed or not
CREATE TABLE shop.long (id integer PRIMARY KEY, n integer, plain text, packed text);
ALTER TABLE shop.long ALTER plain SET STORAGE EXTERNAL;
SELECT eventbus.capture('shop.long');
INSERT INTO shop.long SELECT 1, 1, string_agg(md5(i::text), ''), repeat('x', 100000) FROM generate_series(1, 1000) i;
UPDATE shop.long SET n = 2;
UPDATE shop.long SET plain = plain || '!';
SELECT topic, l.plain LIKE (payload #>> '{after,plain}') || '%' AS plain, payload #>> '{before,packed}' = l.packed AS packed,
       payload -> 'changed' AS changed
FROM news(), shop.long l;
DROP TABLE shop.long;

-- ALTER TABLE is picked up within the session, renames too; what a capture needs cannot be dropped
SELECT eventbus.capture('shop.pair', columns => '-c', key => 'b, a');
ALTER TABLE shop.pair RENAME c TO secret;
ALTER TABLE shop.pair RENAME b TO "Nummer 1";
ALTER TABLE shop.pair ADD added integer DEFAULT 7;
ALTER TABLE shop.pair RENAME TO couple;
ALTER SCHEMA shop RENAME TO store;
INSERT INTO store.couple VALUES ('r', 5, 50);
ALTER TABLE store.couple ALTER added TYPE text USING 'was ' || added;
INSERT INTO store.couple VALUES ('r', 6, 60, 'text');
SELECT * FROM news();
SELECT relation, columns, key FROM eventbus.captured WHERE relation = 'store.couple'::regclass;
ALTER TABLE store.couple DROP COLUMN "Nummer 1";
ALTER TABLE store.couple DROP COLUMN secret;
INSERT INTO store.couple VALUES ('s', 7, 'x');
SELECT * FROM news();
SELECT relation, columns, key FROM eventbus.captured WHERE relation = 'store.couple'::regclass;
SELECT eventbus.capture('store.couple', columns => 'added');
ALTER TABLE store.couple DROP COLUMN added;
-- several at once, and those that a type takes along
ALTER TABLE store.couple ADD s1 integer, ADD s2 integer, ADD s3 store.state, ADD s4 integer;
SELECT eventbus.capture('store.couple', columns => '-s1, -s2, -s3, -s4');
ALTER TABLE store.couple DROP s1, DROP s2;
DROP TYPE store.state CASCADE;
SELECT columns FROM eventbus.captured WHERE relation = 'store.couple'::regclass;
-- a condition's columns are the trigger's, as PostgreSQL has it
SELECT eventbus.capture('store.couple', condition => 'NEW.s4 > 0');
ALTER TABLE store.couple RENAME s4 TO four;
SELECT condition FROM eventbus.captured WHERE relation = 'store.couple'::regclass;
ALTER TABLE store.couple DROP four;
SELECT eventbus.capture('store.couple', columns => 'added');

-- Dropping a column of the parent alone leaves it to its children, and secret there
CREATE TABLE store.elder (id integer PRIMARY KEY, pin text);
CREATE TABLE store.younger () INHERITS (store.elder);
SELECT eventbus.capture('store.elder', columns => '-pin');
SELECT eventbus.capture('store.younger', columns => '-pin');
ALTER TABLE ONLY store.elder DROP COLUMN pin;
INSERT INTO store.elder VALUES (1);
INSERT INTO store.younger VALUES (2, 'secret');
SELECT topic, payload -> 'after' AS after FROM news();
SELECT relation, columns FROM eventbus.captured WHERE relation IN ('store.elder'::regclass, 'store.younger') ORDER BY 1;

-- What cannot be captured is said at once, and changes nothing
SELECT eventbus.capture(NULL);
SELECT eventbus.capture('store.couple', topic => NULL);
SELECT eventbus.capture('store.couple', topic => '{what}');
SELECT eventbus.capture('store.couple', topic => 'a..b');
SELECT eventbus.capture('store.couple', operations => NULL);
SELECT eventbus.capture('store.couple', operations => 'insert, merge');
SELECT eventbus.capture('store.couple', operations => 'unchanged');
SELECT eventbus.capture('store.couple', columns => 'a, nope');
SELECT eventbus.capture('store.couple', columns => 'a, -added');
SELECT eventbus.capture('store.couple', columns => 'a,');
SELECT eventbus.capture('store.couple', columns => '"a');
SELECT eventbus.capture('store.couple', key => '-a');
SELECT eventbus.capture('store.couple', key => 'nope');
SELECT eventbus.capture('store.couple', payload => 'everything');
SELECT eventbus.capture('store.couple', headers => '[1]');
SELECT eventbus.capture('store.couple', condition => 'NEW.nope > 1');
SELECT eventbus.capture('store.couple', condition => 'NEW.a) EXECUTE FUNCTION f(');
SELECT eventbus.capture('store.couple', condition => 'true FROM store.item');
SELECT eventbus.capture('store.couple', condition => '1');
SELECT eventbus.capture('store.couple', condition => 'EXISTS (SELECT)');
SELECT eventbus.capture('store.couple', condition => 'count(*) > 1');
SELECT eventbus.capture('store.couple', condition => 'a = ''x''');
SELECT eventbus.capture('pg_class');
SELECT eventbus.capture('eventbus.log_0');
SELECT eventbus.capture('store.item_pkey');
SELECT relation, topic, columns FROM eventbus.captured WHERE relation = 'store.couple'::regclass;
SELECT eventbus.publish_change();

-- The end of it
SELECT eventbus.uncapture('store.couple');
SELECT eventbus.uncapture('store.couple');
SELECT eventbus.uncapture(NULL);
INSERT INTO store.couple VALUES ('quiet', 8, 'x');
SELECT * FROM news();
DROP SCHEMA store CASCADE;
SELECT * FROM eventbus.captured;
DROP FUNCTION news();
DROP TABLE seen;
SELECT eventbus.drop_broker('nowhere', cascade => true);

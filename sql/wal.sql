-- Routes from the WAL: what create_route says of them. Delivery is tested in test/live/test_wal.py.
SELECT eventbus.create_broker('wal_broker', 'redis://127.0.0.1:1');
SELECT eventbus.create_route('w', 'wal_broker', 'stream:s', options => '{"source": "table"}');
SELECT eventbus.create_route('w', 'wal_broker', 'stream:s', options => '{"tables": "public.*"}');
SELECT eventbus.create_route('w', 'wal_broker', 'stream:s', options => '{"source": "wal", "start": "earliest"}');
SELECT eventbus.create_route('w', 'wal_broker', 'stream:s', options => '{"source": "wal", "tables": 5}');
SELECT eventbus.create_route('w', 'wal_broker', 'stream:s', options => '{"source": "wal", "tables": "no_schema"}');
SELECT eventbus.create_route('w', 'wal_broker', 'stream:s', options => '{"source": "wal", "operations": "insert, upsert"}');
SELECT eventbus.create_route('w', 'wal_broker', 'stream:s', options => '{"source": "wal", "operations": ["insert", 1]}');
SELECT eventbus.create_route('w', 'wal_broker', 'stream:s', options => '{"source": "wal", "format": "xml"}');
SELECT eventbus.create_route('w', 'wal_broker', 'stream:s', options => '{"source": "wal", "format": 2}');
SELECT eventbus.create_route('w', 'wal_broker', 'stream:s', options => '{"format": "wal2json"}');
SELECT eventbus.create_route('w', 'wal_broker', 'stream:s', options => '{"source": "wal", "origin": "local"}');
SELECT eventbus.create_route('w', 'wal_broker', 'stream:s', options => '{"source": "wal", "origin": null}');
SELECT eventbus.create_route('w', 'wal_broker', 'stream:s', options => '{"origin": "none"}');
SELECT eventbus.create_route('w', 'wal_broker', 'stream:s', options => '{"source": "log", "origin": "any"}');
SELECT eventbus.create_route('w', 'wal_broker', 'stream:s', options => '{"source": "wal", "include-pk": true}');
BEGIN;
SELECT eventbus.create_route(format, 'wal_broker', 'stream:s',
                             options => jsonb_build_object('source', 'wal', 'format', format, 'tables', '-*.*'))
FROM unnest('{debezium, wal2json, row}'::text[]) format;
SELECT eventbus.alter_route('row', options => '{"source": "wal", "format": "wal2json", "tables": "-*.*"}');
SELECT eventbus.alter_route('row', options => '{"source": "wal", "origin": "none", "tables": "-*.*"}');
SELECT eventbus.alter_route('row', options => '{"source": "wal", "format": "wal2json2"}');
ROLLBACK;

-- Patterns of messages are not those of topics.
BEGIN;
SELECT eventbus.create_route('m', 'wal_broker', 'stream:s', options => '{"source": "wal", "tables": "-*.*", "messages": "soak.#"}');
SELECT eventbus.alter_route('m', options => '{"source": "wal", "tables": "-*.*", "messages": ["a.*", "-#.debug"]}');
SELECT eventbus.alter_route('m', options => '{"source": "wal", "tables": "-*.*", "messages": "shop.*, a#b, -*.x#"}');
ROLLBACK;

-- Tables without a replica identity, and who may take changes of every table.
BEGIN;
CREATE SCHEMA bare;
CREATE TABLE bare.nothing (id int, words text);
CREATE TABLE bare."None" (id int PRIMARY KEY);
ALTER TABLE bare."None" REPLICA IDENTITY NOTHING;
CREATE TABLE bare.whole (id int);
ALTER TABLE bare.whole REPLICA IDENTITY FULL;
CREATE TABLE bare.keyed (id int PRIMARY KEY);
SELECT eventbus.create_route(format, 'wal_broker', 'stream:s',
                             options => jsonb_build_object('source', 'wal', 'format', format, 'tables', 'bare.*'))
FROM unnest('{debezium, wal2json}'::text[]) format;
SELECT eventbus.create_route('inserts', 'wal_broker', 'stream:s',
                             options => '{"source": "wal", "tables": "bare.*", "operations": "insert, truncate"}');
SELECT name, level, detail, hint FROM eventbus.health() WHERE name LIKE 'tables of route%' ORDER BY 1;
-- Tables whose UPDATEs and DELETEs the topics leave out are not spoken of.
SELECT eventbus.create_route('elsewhere', 'wal_broker', 'stream:s', 'billing.#, *.*.insert', '{"source": "wal"}');
SELECT level, detail FROM eventbus.health() WHERE name = 'tables of route elsewhere';
SELECT eventbus.alter_route('elsewhere', topics => 'bare.nothing.delete');
SELECT eventbus.drop_route('elsewhere');
CREATE ROLE no_replication;
GRANT USAGE ON SCHEMA eventbus TO no_replication;
GRANT EXECUTE ON FUNCTION eventbus.create_route, eventbus.alter_route TO no_replication;
SET ROLE no_replication;
SAVEPOINT denied;
SELECT eventbus.create_route('w', 'wal_broker', 'stream:s', options => '{"source": "wal"}');
ROLLBACK TO denied;
SELECT eventbus.alter_route('debezium', options => '{"source": "wal"}');
ROLLBACK TO denied;
RESET ROLE;
ALTER ROLE no_replication REPLICATION;
SET ROLE no_replication;
SELECT eventbus.create_route('w', 'wal_broker', 'stream:s', options => '{"source": "wal", "tables": "-*.*"}');
ROLLBACK;

-- Lists that choose nothing, or that no table fits.
BEGIN;
\set ON_ERROR_ROLLBACK on
SELECT eventbus.create_route('w', 'wal_broker', 'stream:s', options => '{"source": "wal", "tables": []}');
SELECT eventbus.create_route('w', 'wal_broker', 'stream:s', options => '{"source": "wal", "messages": " "}');
\echo :LAST_ERROR_SQLSTATE
SELECT eventbus.create_route('w', 'wal_broker', 'stream:s', options => '{"source": "wal", "operations": []}');
SELECT eventbus.create_route('w', 'wal_broker', 'stream:s', options => '{"source": "wal", "publication": []}');
SELECT eventbus.create_route('w', 'wal_broker', 'stream:s', options => '{"source": "wal", "tables": "eventbus.*"}');
CREATE SCHEMA there;
CREATE TABLE there.a (id int PRIMARY KEY);
CREATE TABLE there.b (id int PRIMARY KEY) PARTITION BY LIST (id);
SELECT eventbus.create_route('w', 'wal_broker', 'stream:s', options => '{"source": "wal", "tables": "-*.*"}');
SELECT eventbus.alter_route('w', options => '{"source": "wal", "tables": "there.?, -eventbus.*"}');
SELECT eventbus.alter_route('w', options => '{"source": "wal", "tables": "there.a, There.a, there.b, there.x?, -there.b"}');
SELECT name, level, detail, hint FROM eventbus.health() WHERE name = 'tables of route w';
SELECT eventbus.alter_route('w', options => '{"source": "wal", "tables": []}');
SELECT eventbus.alter_route('w', options => '{"source": "wal", "tables": ["there.a", "eventbus.cursor"]}');
-- Publications that disagree on the columns of a table, which PostgreSQL refuses where it decodes.
CREATE TABLE there."C" (id int PRIMARY KEY, x int, y int);
CREATE PUBLICATION everything FOR TABLES IN SCHEMA there;
CREATE PUBLICATION whole FOR TABLE there."C" (id, x, y);
CREATE PUBLICATION part FOR TABLE there."C" (id, x), there.a;
SELECT eventbus.create_route('p', 'wal_broker', 'stream:s', options => '{"source": "wal", "publication": ["part", "whole"]}');
SELECT eventbus.create_route('p', 'wal_broker', 'stream:s', options => '{"source": "wal", "publication": "everything, part"}');
SELECT eventbus.create_route('p', 'wal_broker', 'stream:s', options => '{"source": "wal", "publication": "everything, whole"}');
SELECT eventbus.alter_route('p', options => '{"source": "wal", "publication": "everything, part"}', replace => true);
SELECT eventbus.alter_route('p', options => '{"source": "wal", "publication": "everything, part", "tables": "-there.C"}', replace => true);
SELECT eventbus.alter_route('p', topics => '#.a.*', options => '{"source": "wal", "publication": "everything, part"}', replace => true);
SELECT level FROM eventbus.health() WHERE name = 'tables of route p';
SELECT eventbus.alter_route('p', topics => '#', options => '{"source": "wal", "publication": "everything, whole"}', replace => true);
ALTER PUBLICATION whole SET TABLE there."C" (id);
SELECT level, detail, hint FROM eventbus.health() WHERE name = 'tables of route p';
\set ON_ERROR_ROLLBACK off
ROLLBACK;

-- A row that cannot be read, as of another version or by somebody's hand, shows as such, and hides no other.
BEGIN;
WITH strange AS (INSERT INTO eventbus.broker_config (name, url) VALUES ('strange_broker', 'nosuch://h') RETURNING id)
INSERT INTO eventbus.route_config (name, broker_id, destination, topics, source, options)
    SELECT name, id, 'stream:s', topics, 'wal', options::jsonb
    FROM (SELECT id FROM eventbus.broker_config WHERE name = 'wal_broker') b,
         (VALUES ('bad_option', '#', '{"nosuch": 1}'), ('bad_number', '#', '{"a": 1e4000}'), ('bad_topics', 'a..b', '{"source": "wal"}'),
                 ('good', '#', '{"source": "wal", "tables": "-*.*"}')) r (name, topics, options)
    UNION ALL SELECT 'bad_scheme', id, 'stream:s', '#', 'wal', '{}' FROM strange;
SELECT name, level, detail, hint FROM eventbus.health() WHERE name LIKE 'tables of route %' ORDER BY 1;
SELECT count(*) FROM eventbus.status;
ROLLBACK;

-- A route keeps its source.
SELECT eventbus.create_route('l', 'wal_broker', 'stream:s');
SELECT eventbus.alter_route('l', options => '{"source": "wal"}');
SELECT eventbus.restart_route('l');
SELECT eventbus.restart_route('none');
SELECT eventbus.drop_broker('wal_broker', true);

-- Arguments of publish_wal are those of publish.
SELECT eventbus.publish_wal(NULL, '1');
SELECT eventbus.publish_wal('a..b', '1');
SELECT eventbus.publish_now('a.b', NULL);
SELECT eventbus.publish_now('a.b', '1', repeat('k', 1025));

-- What gets no rows is told: partitioned and unlogged tables, views, what publications and topics leave nothing of.
CREATE SCHEMA parts;
CREATE TABLE parts.p (id int PRIMARY KEY) PARTITION BY LIST (id);
CREATE TABLE parts.p1 PARTITION OF parts.p DEFAULT;
CREATE TABLE parts.f (id int PRIMARY KEY);
CREATE UNLOGGED TABLE parts.ul (id int PRIMARY KEY);
CREATE VIEW parts.v AS SELECT 1;
CREATE PUBLICATION regress_parts FOR TABLE parts.p;
CREATE PUBLICATION regress_parts_root FOR TABLE parts.p WITH (publish_via_partition_root);
CREATE PUBLICATION regress_parts_f FOR TABLE parts.f WITH (publish = 'insert');
SELECT eventbus.create_broker('parts', 'redis://127.0.0.1:1');
\set QUIET on
BEGIN;
SELECT eventbus.create_route('partitioned', 'parts', 'stream:s', options => '{"source": "wal", "tables": "parts.p"}');
SELECT eventbus.create_route('partitions', 'parts', 'stream:s', options => '{"source": "wal", "tables": "parts.p*"}');
SELECT eventbus.create_route('root', 'parts', 'stream:s', options => '{"source": "wal", "tables": "parts.p", "publication": "regress_parts_root"}');
SELECT eventbus.create_route('no_root', 'parts', 'stream:s', options => '{"source": "wal", "tables": "parts.p", "publication": "regress_parts"}');
SELECT eventbus.create_route('unpublished', 'parts', 'stream:s', options => '{"source": "wal", "tables": "parts.f", "publication": "regress_parts"}');
SELECT eventbus.create_route('unlogged', 'parts', 'stream:s', options => '{"source": "wal", "tables": "parts.ul, parts.v"}');
SELECT eventbus.create_route('operations', 'parts', 'stream:s', options => '{"source": "wal", "messages": "-*", "operations": "update", "publication": "regress_parts_f"}');
SELECT eventbus.create_route('topics', 'parts', 'stream:s', 'parts.f.delete', options => '{"source": "wal", "messages": "-*", "operations": "insert"}');
-- the topic forgets the schema: it gets messages alone
SELECT eventbus.create_route('in_vain', 'parts', 'stream:s', 'p_1.#', options => '{"source": "wal", "tables": "parts.*"}');
SELECT eventbus.create_route('nothing', 'parts', 'stream:s', options => '{"source": "wal", "messages": "-*", "tables": "-*.*"}');
SELECT eventbus.create_route('something', 'parts', 'stream:s', 'parts.f.insert', options => '{"source": "wal", "messages": "-*", "operations": "insert"}');
-- also where topics name them, and messages are taken
SELECT eventbus.create_route('names', 'parts', 'stream:s', 'parts.p.#, *.ul.insert, parts.f.#, other.*', options => '{"source": "wal"}');
SELECT eventbus.create_route('names_no_root', 'parts', 'stream:s', 'parts.p.insert, *.*.update', options => '{"source": "wal", "publication": "regress_parts"}');
SELECT eventbus.create_route('names_unpublished', 'parts', 'stream:s', 'parts.f.#', options => '{"source": "wal", "publication": "regress_parts"}');
SELECT eventbus.create_route('names_alone', 'parts', 'stream:s', 'parts.p.#', options => '{"source": "wal", "messages": "-*"}');
-- but not where they are there under the name, are not asked for, or only those that are there may be meant
SELECT eventbus.create_route('names_root', 'parts', 'stream:s', 'parts.p.#', options => '{"source": "wal", "publication": "regress_parts_root"}');
SELECT eventbus.create_route('names_messages', 'parts', 'stream:s', 'parts.p.#', options => '{"source": "wal", "tables": "-*.*"}');
SELECT eventbus.create_route('names_others', 'parts', 'stream:s', 'parts.*.#, parts.p1.#, parts.p.created, parts.v.*', options => '{"source": "wal"}');
SELECT name, level, detail FROM eventbus.health() WHERE name LIKE 'tables of route %' ORDER BY 1;
SELECT DISTINCT hint FROM eventbus.health() WHERE name LIKE 'tables of route names%' AND level <> 'ok' ORDER BY 1;
ROLLBACK;
-- A slot of the broker's name that somebody else has made is not taken for ours; that without a place breaks no view.
SELECT format('pg_eventbus_%s_%s', (SELECT oid FROM pg_database WHERE datname = current_database()), id) AS slot
FROM eventbus.broker_config WHERE name = 'parts' \gset
BEGIN;
SELECT eventbus.create_route('r', 'parts', 'stream:s', options => '{"source": "wal"}');
SELECT slot_name = :'slot' AS made FROM pg_create_physical_replication_slot(:'slot');
SELECT level, replace(detail, :'slot', 'SLOT') AS detail, replace(hint, :'slot', 'SLOT') AS hint FROM eventbus.health() WHERE name = 'WAL for broker parts';
ROLLBACK;
DO $$ BEGIN PERFORM eventbus.create_route('r', 'parts', 'stream:s', options => '{"source": "wal"}');
EXCEPTION WHEN object_in_use THEN RAISE NOTICE 'refused: %', regexp_replace(sqlerrm, 'pg_eventbus_[0-9_]+', 'SLOT'); END $$;
SELECT pg_drop_replication_slot(:'slot') IS NULL AS dropped;
SELECT slot_name = :'slot' AS made FROM pg_create_logical_replication_slot(:'slot', 'test_decoding');
DO $$ BEGIN PERFORM eventbus.create_route('r', 'parts', 'stream:s', options => '{"source": "wal"}');
EXCEPTION WHEN object_in_use THEN RAISE NOTICE 'refused: %', regexp_replace(sqlerrm, 'pg_eventbus_[0-9_]+', 'SLOT'); END $$;
SELECT pg_drop_replication_slot(:'slot') IS NULL AS dropped;
\set QUIET off
SELECT eventbus.drop_broker('parts', true);
DROP PUBLICATION regress_parts, regress_parts_root, regress_parts_f;
DROP SCHEMA parts CASCADE;

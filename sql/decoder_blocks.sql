-- Transactions that are decoded before they are finished: blocks of unfinished ones, and prepared ones.
\set SHOW_CONTEXT never
-- Runs of the same kind as one line. Where a block ends depends on the memory that is left, so blocks that follow
-- each other are one.
CREATE FUNCTION decoded(slot text, VARIADIC options text[] DEFAULT '{}') RETURNS TABLE (what text, rows bigint)
LANGUAGE sql AS $$
    SELECT what, count(*) FROM (
        SELECT what, place, sum((what IS DISTINCT FROM before)::int) OVER (ORDER BY place) AS run FROM (
            SELECT what, place, lag(what) OVER (ORDER BY place) AS before FROM (
                SELECT place, coalesce(d::json ->> 'status', d::json ->> 'op')
                       || CASE WHEN d LIKE '%"sub_id"%' THEN ' of a subtransaction' ELSE '' END
                       || coalesce(' ' || (d::json ->> 'gid'), '')
                       || CASE WHEN d LIKE '%,"snapshot":false%' AND d::json #>> '{source,ts_ms}' IS NULL
                               THEN ', no time yet' ELSE '' END AS what
                FROM pg_logical_slot_get_changes(slot, NULL, NULL, VARIADIC
                         ARRAY['format', 'debezium', 'tables', '-eventbus.*'] || options)
                     WITH ORDINALITY AS all_of_them (lsn, xid, d, place)) AS named
            WHERE what !~ '^STREAM_ST') AS with_last) AS in_runs
    GROUP BY run, what ORDER BY run
$$;
SET logical_decoding_work_mem = '64kB';
CREATE TABLE item (id integer PRIMARY KEY, name text);
SELECT 'ready' FROM pg_create_logical_replication_slot('blocks', 'pg_eventbus');

-- Committed as a whole; the same in blocks
INSERT INTO item SELECT i, repeat('x', 100) FROM generate_series(1, 2000) i;
SELECT * FROM decoded('blocks');
BEGIN;
INSERT INTO item SELECT i, repeat('x', 100) FROM generate_series(2001, 4000) i;
SAVEPOINT s;
INSERT INTO item SELECT i, repeat('x', 100) FROM generate_series(4001, 6000) i;
SELECT 'sent' FROM pg_logical_emit_message(true, 'prefix', 'content');
RELEASE s;
COMMIT;
SELECT * FROM decoded('blocks', 'streaming', 'on');

-- Some of it, or all of it, comes to nothing
BEGIN;
INSERT INTO item SELECT i, repeat('x', 100) FROM generate_series(6001, 8000) i;
SAVEPOINT s;
INSERT INTO item SELECT i, repeat('x', 100) FROM generate_series(8001, 10000) i;
ROLLBACK TO s;
TRUNCATE item;
COMMIT;
SELECT what, rows > 0 AS some FROM decoded('blocks', 'streaming', 'on');
SELECT 'gone' FROM pg_drop_replication_slot('blocks');
-- How much of a whole one is sent before it is seen that it was rolled back depends on what is cached.
SELECT 'ready' FROM pg_create_logical_replication_slot('blocks', 'pg_eventbus');
BEGIN;
INSERT INTO item SELECT i, repeat('x', 100) FROM generate_series(1, 2000) i;
ROLLBACK;
SELECT what FROM decoded('blocks', 'streaming', 'on') WHERE what NOT IN ('c, no time yet', 'STREAM_ABORT');
SELECT 'gone' FROM pg_drop_replication_slot('blocks');

-- Two phases
SELECT 'ready' FROM pg_create_logical_replication_slot('phases', 'pg_eventbus', false, true);
BEGIN;
INSERT INTO item VALUES (1, 'prepared');
PREPARE TRANSACTION 'first';
SELECT * FROM decoded('phases');
COMMIT PREPARED 'first';
BEGIN;
INSERT INTO item VALUES (2, 'prepared');
PREPARE TRANSACTION 'second';
SELECT * FROM decoded('phases');
ROLLBACK PREPARED 'second';
SELECT * FROM decoded('phases');
BEGIN;
INSERT INTO item SELECT i, repeat('x', 100) FROM generate_series(3, 2000) i;
PREPARE TRANSACTION 'third';
SELECT * FROM decoded('phases', 'streaming', 'on');
COMMIT PREPARED 'third';
SELECT * FROM decoded('phases', 'streaming', 'on');

-- wal2json's format has them at COMMIT PREPARED
BEGIN;
UPDATE item SET name = 'again' WHERE id = 1;
PREPARE TRANSACTION 'fourth';
SELECT data FROM pg_logical_slot_get_changes('phases', NULL, NULL, 'format-version', '2', 'tables', 'public.item',
                                             'skip-empty-xacts', '1');
COMMIT PREPARED 'fourth';
SELECT data FROM pg_logical_slot_get_changes('phases', NULL, NULL, 'format-version', '2', 'tables', 'public.item',
                                             'skip-empty-xacts', '1');
SELECT 'gone' FROM pg_drop_replication_slot('phases');
-- What was being looked up when it was seen that the transaction had been rolled back is looked up again.
CREATE SCHEMA apart;
CREATE TABLE apart.item (id integer PRIMARY KEY, name text);
SELECT 'ready' FROM pg_create_logical_replication_slot('phases', 'pg_eventbus', false, true);
INSERT INTO apart.item VALUES (1, 'looked up');
GRANT USAGE ON SCHEMA apart TO public;
BEGIN;
INSERT INTO apart.item VALUES (2, 'prepared');
PREPARE TRANSACTION 'fifth';
ROLLBACK PREPARED 'fifth';
INSERT INTO apart.item VALUES (3, 'looked up anew');
SELECT d::json #>> '{after,name}' AS name FROM pg_logical_slot_get_changes('phases', NULL, NULL, 'tables', 'apart.*')
    AS changes (lsn, xid, d) WHERE d::json ->> 'op' = 'c';
SELECT 'gone' FROM pg_drop_replication_slot('phases');
DROP SCHEMA apart CASCADE;
DROP TABLE item;
DROP FUNCTION decoded;

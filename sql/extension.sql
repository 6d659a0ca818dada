-- The extension as an object: what it is made of, comments, dumps, DROP and CREATE.
SET client_min_messages = error;
\set SHOW_CONTEXT never
CREATE VIEW members AS
    SELECT classid, objid FROM pg_depend
    WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
      AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_eventbus');

-- Functions, as programs may call them
SELECT proname, pg_get_function_identity_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result
FROM members m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid ORDER BY proname COLLATE "C", 2;
SELECT p.oid::regprocedure AS function, provolatile, proparallel FROM members m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
WHERE provolatile <> 'v' OR proparallel <> 'u' ORDER BY 1;
-- Those that run with their owner's rights have a search path of their own
SELECT count(*) > 0 AS some, bool_and(proconfig = ARRAY['search_path=pg_catalog, pg_temp']) AS safe
FROM members m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid WHERE prosecdef;

-- Views, as programs may read them
SELECT c.relname, string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) AS columns
FROM members m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid JOIN pg_attribute a ON a.attrelid = c.oid AND attnum > 0
WHERE c.relkind = 'v' GROUP BY 1 ORDER BY c.relname COLLATE "C";
SELECT name, level FROM eventbus.health() WHERE name IN ('dead letters', 'log') ORDER BY name;
SELECT bool_and(level IN ('ok', 'warning', 'error')) AS levels, bool_and(level = 'ok' OR hint IS NOT NULL) AS hints FROM eventbus.health();

-- Everything is where it belongs
SELECT DISTINCT nspname FROM members m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid JOIN pg_namespace n ON n.oid = relnamespace
UNION SELECT DISTINCT nspname FROM members m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid JOIN pg_namespace n ON n.oid = pronamespace;

-- Nothing is without a comment: no object, no column of a view, no setting
SELECT pg_describe_object(classid, objid, 0) AS without_comment FROM members
WHERE classid NOT IN ('pg_type'::regclass) AND obj_description(objid, classid::regclass::text) IS NULL ORDER BY 1;
SELECT c.relname || '.' || attname AS without_comment
FROM members m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid JOIN pg_attribute a ON a.attrelid = c.oid AND attnum > 0
WHERE c.relkind = 'v' AND col_description(c.oid, attnum) IS NULL ORDER BY 1;
SELECT count(*) AS settings, count(*) FILTER (WHERE short_desc = '') AS without_description FROM pg_settings WHERE name LIKE 'eventbus.%';
SELECT name, unit, context, vartype, boot_val FROM pg_settings WHERE name LIKE 'eventbus.%' ORDER BY name COLLATE "C";

-- A dump carries brokers and routes
SELECT unnest(extconfig)::regclass AS dumped, unnest(extcondition) AS condition FROM pg_extension WHERE extname = 'pg_eventbus' ORDER BY 1;

-- The log is insert-only: without an index, a constraint or a vacuum
SELECT relname, relhasindex, relchecks, relpersistence, reloptions @> '{autovacuum_enabled=off}' AS left_alone
FROM pg_class WHERE relnamespace = 'eventbus'::regnamespace AND relname ~ '^log_[0-9]+$' AND relkind = 'r' ORDER BY relname;

-- What it is made of cannot be dropped by itself
DROP TABLE eventbus.log_0;
DROP VIEW eventbus.status;
DROP SCHEMA eventbus CASCADE;
CREATE EXTENSION pg_eventbus;

-- DROP leaves nothing behind, also not with brokers, routes and events in it
SELECT eventbus.create_broker('nowhere', 'redis:///nonexistent/redis.sock');
SELECT eventbus.create_route('hold', 'nowhere', 'list:held');
SELECT eventbus.publish('a', '1') > 0 AS published;
DROP VIEW members;
BEGIN;
DROP EXTENSION pg_eventbus;
SELECT eventbus.publish('a', '1');
ROLLBACK;
SELECT eventbus.publish('a', '2') > 0 AS published;
SELECT name FROM eventbus.route;
DROP EXTENSION pg_eventbus;
SELECT count(*) FROM pg_namespace WHERE nspname = 'eventbus';
SELECT count(*) FROM pg_proc WHERE probin LIKE '%pg_eventbus%';
SELECT count(*) FROM pg_class WHERE relname ~ '^(log_[0-9]+|event_id|broker_config)$';
SELECT eventbus.publish('a', '1');

-- CREATE in a transaction that rolls back, then for good; the same session continues
BEGIN;
CREATE EXTENSION pg_eventbus;
SELECT eventbus.publish('a', '1') > 0 AS published;
ROLLBACK;
SELECT count(*) FROM pg_namespace WHERE nspname = 'eventbus';
-- not into a schema that somebody has prepared
CREATE SCHEMA eventbus;
CREATE EXTENSION pg_eventbus;
DROP SCHEMA eventbus;
CREATE EXTENSION pg_eventbus;
BEGIN;
SELECT eventbus.publish('anew', '1') AS id \gset
SELECT :id AS first_id, topic, payload FROM eventbus.event;
COMMIT;
SELECT count(*) FROM eventbus.broker;
SELECT count(*) FROM eventbus.status;
-- Dropped and created in one transaction
BEGIN;
DROP EXTENSION pg_eventbus;
CREATE EXTENSION pg_eventbus;
SELECT eventbus.publish('anew', '2') AS first_id;
COMMIT;
SELECT eventbus.publish('anew', '3') AS second_id;

-- DDL as events: in the transaction of the command, with what it did to which object.
SET client_min_messages = error;  -- whether pg_eventbus is preloaded or not
SET timezone = 'UTC';
SET bytea_output = 'hex';
SET lc_monetary = 'C';
\set SHOW_CONTEXT never
-- A route that goes nowhere keeps the events in the log.
SELECT eventbus.create_broker('nowhere', 'redis:///nonexistent/redis.sock');
SELECT eventbus.create_route('hold', 'nowhere', 'list:held');
SELECT eventbus.pause_route('hold');
CREATE TABLE seen AS SELECT coalesce(max(id), 0) AS id FROM eventbus.event;
-- The events since the last look, without what is different each time.
CREATE FUNCTION news() RETURNS TABLE (topic text, key text, payload jsonb) LANGUAGE sql AS $$
    WITH looked AS (UPDATE seen SET id = (SELECT coalesce(max(id), 0) FROM eventbus.event) RETURNING 1)
    SELECT e.topic, e.key, CASE WHEN jsonb_typeof(e.payload::jsonb) = 'object' THEN e.payload::jsonb - 'source' - 'ts_ms'
                           ELSE e.payload::jsonb END
    FROM eventbus.event e, seen WHERE e.id > seen.id AND EXISTS (SELECT FROM looked) ORDER BY e.id;
$$;


SELECT eventbus.capture_ddl();
SELECT evtname, evtevent FROM pg_event_trigger WHERE evtname NOT LIKE 'eventbus\_follow\_%' ORDER BY 1;
CREATE TABLE thing (id integer PRIMARY KEY, "na me" text);
ALTER TABLE thing ADD COLUMN more integer DEFAULT 1;
ALTER TABLE thing ALTER COLUMN more TYPE bigint;
CREATE VIEW viewed AS SELECT * FROM thing;
CREATE FUNCTION doubled(integer) RETURNS integer LANGUAGE sql AS 'SELECT $1 * 2';
COMMENT ON TABLE thing IS 'a "thing"';
DROP VIEW viewed;
DROP FUNCTION doubled;
CREATE TEMP TABLE passing (id integer);
DROP TABLE passing;
SELECT topic, key, payload - 'command' - 'user' AS payload, left(payload ->> 'command', 50) AS command FROM news()
 WHERE payload ->> 'object_type' <> 'rule';  -- a view's, of which not every version tells
SELECT DISTINCT payload::jsonb ->> 'user' = current_user AS by_me, headers ->> 'pg-user' = current_user AS in_headers,
       (headers ->> 'pg-txid')::bigint > 0 AS txid, content_type FROM eventbus.event WHERE topic LIKE 'ddl.%';
-- what is rolled back did not happen
BEGIN;
DROP TABLE thing;
SELECT count(*) FROM news();
ROLLBACK;
-- text that may hold a password is not published
CREATE EXTENSION postgres_fdw;
CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'h');
CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (user 'u', password 'hunter2');
DROP EXTENSION postgres_fdw CASCADE;
SELECT DISTINCT topic, payload ->> 'identity' AS identity, payload -> 'in_extension' AS in_extension FROM news()
WHERE payload ->> 'command' IS NULL OR payload ->> 'identity' = 'public.postgres_fdw_handler()' ORDER BY 1, 2;
SELECT count(*) FROM eventbus.event WHERE payload LIKE '%hunter2%';
-- of what is sent at once, each command has its own text; GRANT names no object
SELECT $$a ' secret$$ IS NULL AS no\; CREATE TABLE one (id integer)\; GRANT SELECT ON one TO PUBLIC\;
REVOKE SELECT ON one FROM PUBLIC;
DO $$ BEGIN CREATE TABLE two (id integer); EXECUTE '  ALTER TABLE two ADD more text;  '; END $$;
CREATE TABLE three AS SELECT 1 AS id;
SELECT id INTO four FROM three;
CREATE INDEX CONCURRENTLY three_id ON three (id);
DROP INDEX CONCURRENTLY three_id;
CREATE SCHEMA made CREATE TABLE inside (id integer);
DROP TABLE one, two, three, four;
DROP SCHEMA made CASCADE;
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM PUBLIC;
SELECT topic, key, payload ->> 'object_type' AS type, payload ->> 'command' AS command FROM news();
-- some commands only, under a topic of one's own; a schema takes its tables along
SELECT eventbus.capture_ddl('schema.changes', 'create table , DROP SCHEMA');
CREATE SCHEMA box;
CREATE TABLE box.inner (id integer);
ALTER TABLE box.inner ADD more integer;
DROP SCHEMA box CASCADE;
SELECT topic, payload ->> 'event' AS event, payload ->> 'tag' AS tag, payload ->> 'identity' AS identity FROM news();
-- whoever runs the command needs no rights of ours
CREATE ROLE regress_eventbus_builder;
GRANT CREATE ON SCHEMA public TO regress_eventbus_builder;
SET ROLE regress_eventbus_builder;
CREATE TABLE his (id integer);
SELECT eventbus.capture_ddl();
RESET ROLE;
SELECT topic, payload ->> 'user' AS who, payload ->> 'identity' AS identity FROM news();
DROP TABLE his;
-- nor do his own functions run with the rights of others
REVOKE EXECUTE ON FUNCTION pg_event_trigger_dropped_objects(), pg_event_trigger_ddl_commands() FROM PUBLIC;
SET ROLE regress_eventbus_builder;
CREATE FUNCTION public.trap(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped %', current_user; END $$;
CREATE OPERATOR public.= (LEFTARG = text, RIGHTARG = text, FUNCTION = public.trap);
CREATE OPERATOR public.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = public.trap);
SET search_path = public, pg_catalog;
CREATE TABLE his (id integer, more text);
ALTER TABLE his DROP more;
DROP TABLE his;
RESET search_path;
DROP FUNCTION public.trap(text, text) CASCADE;
RESET ROLE;
GRANT EXECUTE ON FUNCTION pg_event_trigger_dropped_objects(), pg_event_trigger_ddl_commands() TO PUBLIC;
REVOKE CREATE ON SCHEMA public FROM regress_eventbus_builder;
DROP ROLE regress_eventbus_builder;
-- who has topic grants captures under topics that are all among them
CREATE ROLE regress_eventbus_granted;
GRANT USAGE ON SCHEMA eventbus TO regress_eventbus_granted;
GRANT EXECUTE ON FUNCTION eventbus.capture_ddl TO regress_eventbus_granted;
SELECT eventbus.allow('regress_eventbus_granted', 'ddl.CREATE TABLE, schema.*');
SET ROLE regress_eventbus_granted;
SELECT eventbus.capture_ddl();
SELECT eventbus.capture_ddl('elsewhere', 'CREATE TABLE');
SELECT eventbus.capture_ddl(tags => 'CREATE TABLE, DROP TABLE');
RESET ROLE;
SELECT topic, tags FROM eventbus.ddl_capture;
SET ROLE regress_eventbus_granted;
SELECT eventbus.capture_ddl(tags => 'CREATE TABLE');
SELECT eventbus.capture_ddl('schema.changes');
RESET ROLE;
SELECT eventbus.capture_ddl('schema.changes', 'create table , DROP SCHEMA');
SELECT eventbus.disallow('regress_eventbus_granted');
DROP OWNED BY regress_eventbus_granted;
DROP ROLE regress_eventbus_granted;
-- mistakes
SELECT eventbus.capture_ddl(NULL);
SELECT eventbus.capture_ddl('{what}');
SELECT eventbus.capture_ddl('#');
SELECT eventbus.capture_ddl('ddl', 'CREATE TABEL');
SELECT eventbus.capture_ddl('ddl', 'CREATE DATABASE');
SELECT eventbus.capture_ddl('ddl', '');
SELECT eventbus.publish_ddl();
SELECT topic, tags FROM eventbus.ddl_capture;
SELECT eventbus.uncapture_ddl();
SELECT eventbus.uncapture_ddl();
DROP TABLE thing;
SELECT * FROM news();
DROP FUNCTION news();
DROP TABLE seen;
SELECT eventbus.drop_broker('nowhere', cascade => true);

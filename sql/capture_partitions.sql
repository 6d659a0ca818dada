-- Partitions of captured tables: whoever may make one makes it, and no trigger made by hand profits from it.
SET client_min_messages = error;  -- whether pg_eventbus is preloaded or not
\set SHOW_CONTEXT never
SELECT eventbus.create_broker('nowhere', 'redis:///nonexistent/redis.sock');
SELECT eventbus.create_route('hold', 'nowhere', 'list:held');
SELECT eventbus.pause_route('hold');
SELECT coalesce(max(id), 0) AS before FROM eventbus.event \gset
CREATE ROLE regress_eventbus_owner;
CREATE ROLE regress_eventbus_member IN ROLE regress_eventbus_owner;
CREATE ROLE regress_eventbus_other;
CREATE SCHEMA lab AUTHORIZATION regress_eventbus_owner;
GRANT ALL ON SCHEMA lab TO regress_eventbus_member, regress_eventbus_other;
-- Who may execute the function behind captures of partitioned tables, and that behind all others.
CREATE VIEW may AS
    SELECT rolname, has_function_privilege(oid, 'eventbus.publish_partitioned()', 'EXECUTE') AS partitioned,
           has_function_privilege(oid, 'eventbus.publish_change()', 'EXECUTE') AS change
    FROM pg_roles WHERE rolname LIKE 'regress\_eventbus\_%' ORDER BY 1;
SET ROLE regress_eventbus_owner;
CREATE TABLE lab.parent (id integer PRIMARY KEY, name text) PARTITION BY LIST (id);
CREATE TABLE lab.before PARTITION OF lab.parent FOR VALUES IN (0);
CREATE TABLE lab.plain (id integer PRIMARY KEY);
RESET ROLE;
-- An administrator captures a table of somebody who has no right on eventbus, and sees to nothing else.
SELECT eventbus.capture('lab.parent', topic => 'shop.{op}', operations => 'insert', payload => 'key');
SELECT eventbus.capture('lab.plain', topic => 'shop.plain', operations => 'insert', payload => 'key');
SELECT * FROM may;
SET ROLE regress_eventbus_owner;
CREATE TABLE lab.made PARTITION OF lab.parent FOR VALUES IN (1);
CREATE TABLE lab.attached (id integer PRIMARY KEY, name text);
ALTER TABLE lab.parent ATTACH PARTITION lab.attached FOR VALUES IN (2);
RESET ROLE;
SELECT * FROM may;
-- a member of the owner, and a function with the owner's rights, as pg_partman's may be
SET ROLE regress_eventbus_member;
CREATE TABLE lab.by_member PARTITION OF lab.parent FOR VALUES IN (3) PARTITION BY LIST (id);
RESET ROLE;
CREATE FUNCTION lab.make() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    CREATE TABLE lab.by_function PARTITION OF lab.parent FOR VALUES IN (4);
    CREATE TABLE lab.by_function_too (LIKE lab.parent INCLUDING ALL);
    ALTER TABLE lab.parent ATTACH PARTITION lab.by_function_too FOR VALUES IN (5);
END $$;
ALTER FUNCTION lab.make() OWNER TO regress_eventbus_owner;
GRANT EXECUTE ON FUNCTION lab.make() TO regress_eventbus_other;
SET ROLE regress_eventbus_other;
SELECT lab.make();
RESET ROLE;
-- the owner of a partition that has partitions itself
ALTER TABLE lab.by_member OWNER TO regress_eventbus_other;
SELECT * FROM may;
SET ROLE regress_eventbus_other;
CREATE TABLE lab.below PARTITION OF lab.by_member DEFAULT;
RESET ROLE;
SELECT * FROM may;
-- in one statement with a schema, for another role
REVOKE EXECUTE ON FUNCTION eventbus.publish_partitioned FROM regress_eventbus_owner, regress_eventbus_other;
CREATE SCHEMA other AUTHORIZATION regress_eventbus_owner CREATE TABLE within PARTITION OF lab.parent FOR VALUES IN (6);
SELECT * FROM may;
-- a foreign table
CREATE FOREIGN DATA WRAPPER regress_eventbus_wrapper;
CREATE SERVER regress_eventbus_server FOREIGN DATA WRAPPER regress_eventbus_wrapper;
GRANT USAGE ON FOREIGN SERVER regress_eventbus_server TO regress_eventbus_other;
CREATE TABLE lab.far (id integer, name text) PARTITION BY LIST (id);
ALTER TABLE lab.far OWNER TO regress_eventbus_other;
SELECT eventbus.capture('lab.far');
SET ROLE regress_eventbus_other;
CREATE FOREIGN TABLE lab.foreign_one PARTITION OF lab.far DEFAULT SERVER regress_eventbus_server;
RESET ROLE;
SELECT * FROM may;
INSERT INTO lab.parent SELECT n, 'x' FROM generate_series(0, 6) n;
SELECT topic, string_agg(key, ' ' ORDER BY id) AS keys FROM eventbus.event WHERE id > :before GROUP BY 1;
SELECT relation, operations, error FROM eventbus.captured ORDER BY 1;
SELECT tgfoid::regproc, string_agg(tgrelid::regclass::text, ' ' ORDER BY tgrelid) AS on_tables FROM pg_trigger
WHERE tgname = '00_eventbus_insert' GROUP BY 1 ORDER BY 1;

ALTER TABLE lab.by_member OWNER TO regress_eventbus_owner;
ALTER TABLE lab.below OWNER TO regress_eventbus_owner;

-- Nobody gets the right by a command that makes no partition, by one on somebody else's table, or by one that fails
REVOKE EXECUTE ON FUNCTION eventbus.publish_partitioned FROM regress_eventbus_owner, regress_eventbus_other;
SET ROLE regress_eventbus_owner;
ALTER TABLE ONLY lab.parent ALTER name SET DEFAULT 'x';
CREATE TABLE lab.no_partition (LIKE lab.parent);
CREATE TABLE lab.wrong PARTITION OF lab.parent FOR VALUES IN (1);
CREATE TABLE lab.wrong PARTITION OF lab.nothing FOR VALUES IN (1);
ALTER TABLE lab.parent DETACH PARTITION lab.made;
SET ROLE regress_eventbus_other;
CREATE TABLE lab.wrong PARTITION OF lab.parent FOR VALUES IN (7);
ALTER TABLE lab.parent ATTACH PARTITION lab.made FOR VALUES IN (1);
RESET ROLE;
SELECT * FROM may;
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'lab.made'::regclass;

-- Whoever has it cannot publish what they like: no trigger made by hand executes the function, or is changed
SET ROLE regress_eventbus_owner;
CREATE TABLE lab.again PARTITION OF lab.parent FOR VALUES IN (8);
CREATE TRIGGER by_hand AFTER INSERT ON lab.plain FOR EACH ROW EXECUTE FUNCTION eventbus.publish_partitioned('any.topic');
RESET ROLE;
GRANT USAGE ON SCHEMA eventbus TO regress_eventbus_owner;
GRANT EXECUTE ON FUNCTION eventbus.capture TO regress_eventbus_owner;
GRANT CREATE, TEMPORARY ON DATABASE :"DBNAME" TO regress_eventbus_owner;
SET ROLE regress_eventbus_owner;
CREATE TRIGGER by_hand AFTER INSERT ON lab.plain FOR EACH ROW EXECUTE FUNCTION eventbus.publish_partitioned('any.topic');
CREATE CONSTRAINT TRIGGER by_hand AFTER INSERT ON lab.plain DEFERRABLE FOR EACH ROW EXECUTE FUNCTION eventbus.publish_partitioned('any.topic');
CREATE OR REPLACE TRIGGER "00_eventbus_insert" AFTER INSERT ON lab.parent FOR EACH ROW EXECUTE FUNCTION eventbus.publish_partitioned('any.topic');
CREATE TEMP TABLE passing (id integer);
CREATE TRIGGER by_hand AFTER INSERT ON passing FOR EACH ROW EXECUTE FUNCTION eventbus.publish_partitioned('any.topic');
DROP TABLE passing;
CREATE SCHEMA trick CREATE TABLE passing (id integer)
    CREATE TRIGGER by_hand AFTER INSERT ON passing FOR EACH ROW EXECUTE FUNCTION eventbus.publish_partitioned('any.topic');
DO $$ BEGIN
    CREATE TRIGGER by_hand AFTER INSERT ON lab.plain FOR EACH ROW EXECUTE FUNCTION eventbus.publish_partitioned('any.topic');
END $$;
-- in REFRESH MATERIALIZED VIEW, of whose commands PostgreSQL tells nothing
CREATE FUNCTION lab.made() RETURNS integer LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
CREATE MATERIALIZED VIEW lab.makes AS SELECT lab.made();
CREATE OR REPLACE FUNCTION lab.made() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN
    CREATE TRIGGER by_hand AFTER INSERT ON lab.plain FOR EACH ROW EXECUTE FUNCTION eventbus.publish_partitioned('any.topic');
    RETURN 1;
END $$;
REFRESH MATERIALIZED VIEW lab.makes;
CREATE OR REPLACE FUNCTION lab.made() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN
    CREATE SCHEMA trick CREATE TABLE passing (id integer)
        CREATE TRIGGER by_hand AFTER INSERT ON passing FOR EACH ROW EXECUTE FUNCTION eventbus.publish_partitioned('any.topic');
    RETURN 1;
END $$;
REFRESH MATERIALIZED VIEW lab.makes;
CREATE OR REPLACE FUNCTION lab.made() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN
    CREATE TABLE lab.by_refresh (id integer);
    CREATE TRIGGER theirs AFTER INSERT ON lab.by_refresh FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
    RETURN 1;
END $$;
REFRESH MATERIALIZED VIEW lab.makes;
DROP TABLE lab.by_refresh;
DROP MATERIALIZED VIEW lab.makes;
DROP FUNCTION lab.made();
SELECT eventbus.publish_partitioned();
CREATE TRIGGER by_hand AFTER INSERT ON lab.plain FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change('any.topic');
-- nor where PostgreSQL's function about the command is denied to them
RESET ROLE;
REVOKE EXECUTE ON FUNCTION pg_event_trigger_ddl_commands() FROM PUBLIC;
SET ROLE regress_eventbus_owner;
CREATE TRIGGER by_hand AFTER INSERT ON lab.plain FOR EACH ROW EXECUTE FUNCTION eventbus.publish_partitioned('any.topic');
RESET ROLE;
GRANT EXECUTE ON FUNCTION pg_event_trigger_ddl_commands() TO PUBLIC;
SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE tgname = 'by_hand';
-- other triggers, and those of a dump, are as before
SET ROLE regress_eventbus_owner;
CREATE FUNCTION lab.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER theirs AFTER INSERT ON lab.plain FOR EACH ROW EXECUTE FUNCTION lab.nothing();
SELECT eventbus.capture('lab.parent', operations => 'insert');
SELECT pg_get_triggerdef(oid) AS dumped FROM pg_trigger WHERE tgrelid = 'lab.parent'::regclass \gset
RESET ROLE;
DROP TRIGGER "00_eventbus_insert" ON lab.parent;
SET ROLE regress_eventbus_owner;
:dumped;
RESET ROLE;
GRANT EXECUTE ON FUNCTION eventbus.publish_change TO regress_eventbus_owner;
SET ROLE regress_eventbus_owner;
:dumped;
SELECT eventbus.capture('lab.parent', operations => 'insert', topic => 'again');
RESET ROLE;
DROP TRIGGER "00_eventbus_insert" ON lab.parent;
:dumped;
SELECT relation, topic, operations FROM eventbus.captured ORDER BY 1;

-- What is published of DDL is the command, and no GRANT
REVOKE EXECUTE ON FUNCTION eventbus.publish_partitioned FROM regress_eventbus_owner;
SELECT eventbus.capture_ddl();
SELECT coalesce(max(id), 0) AS before FROM eventbus.event \gset
SET ROLE regress_eventbus_owner;
CREATE TABLE lab.last PARTITION OF lab.parent FOR VALUES IN (9);
RESET ROLE;
SELECT topic, key, payload::jsonb ->> 'user' AS "user" FROM eventbus.event WHERE id > :before ORDER BY id;
SELECT eventbus.uncapture_ddl();

DROP SCHEMA lab, other CASCADE;
DROP FOREIGN DATA WRAPPER regress_eventbus_wrapper CASCADE;
DROP VIEW may;
DROP OWNED BY regress_eventbus_owner, regress_eventbus_member, regress_eventbus_other;
DROP ROLE regress_eventbus_owner, regress_eventbus_member, regress_eventbus_other;
SELECT eventbus.drop_broker('nowhere', cascade => true);

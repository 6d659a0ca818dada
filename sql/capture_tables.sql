-- Captures of every kind of table that takes triggers, and of every statement that changes rows.
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


-- Partitions: their rows are the captured table's; one that moves is deleted here and inserted there
CREATE TABLE measure (at date NOT NULL, place text NOT NULL, value numeric, PRIMARY KEY (at, place)) PARTITION BY RANGE (at);
CREATE TABLE measure_23 PARTITION OF measure FOR VALUES FROM ('2023-01-01') TO ('2024-01-01');
SELECT eventbus.capture('measure', columns => 'place, value, at');
-- one that comes later, with its columns in another order and one dropped
CREATE TABLE measure_24 (value numeric, gone integer, place text NOT NULL, at date NOT NULL, PRIMARY KEY (at, place));
ALTER TABLE measure_24 DROP COLUMN gone;
ALTER TABLE measure ATTACH PARTITION measure_24 FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE measure_else PARTITION OF measure DEFAULT PARTITION BY LIST (place);
CREATE TABLE measure_else_any PARTITION OF measure_else DEFAULT;
INSERT INTO measure VALUES ('2023-05-01', 'a', 1), ('2024-05-01', 'b', 2), ('2030-01-01', 'c', 3);
INSERT INTO measure_24 VALUES (4, 'd', '2024-06-01');
UPDATE measure SET value = value + 10 WHERE place IN ('b', 'c');
UPDATE measure SET at = '2024-07-01' WHERE place = 'a';
ALTER TABLE measure RENAME place TO "where";
DELETE FROM measure WHERE "where" <> 'd';
SELECT * FROM news();
SELECT DISTINCT payload::jsonb #>> '{source,table}' AS source_table FROM eventbus.event WHERE topic LIKE 'public.measure.%';
TRUNCATE measure;
SELECT * FROM news();
SELECT eventbus.capture('measure_24');
SELECT eventbus.uncapture('measure_24');
-- a partition that leaves is captured no more
ALTER TABLE measure DETACH PARTITION measure_24;
INSERT INTO measure_24 VALUES (1, 'alone', '2024-06-01');
SELECT * FROM news();
SELECT eventbus.capture('measure_24', topic => 'alone');
SELECT eventbus.uncapture('measure');
INSERT INTO measure VALUES ('2023-05-01', 'quiet', 1);
INSERT INTO measure_24 VALUES (2, 'loud', '2024-06-01');
SELECT topic, key FROM news();
-- what is captured by itself joins what is captured as a whole only after it has ceased to be
SELECT eventbus.capture('measure');
ALTER TABLE measure ATTACH PARTITION measure_24 FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
SELECT eventbus.uncapture('measure_24');
ALTER TABLE measure ATTACH PARTITION measure_24 FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
INSERT INTO measure VALUES ('2024-06-02', 'joined', 1);
SELECT topic, key FROM news();
DROP TABLE measure;

-- Inheritance: each table for itself
CREATE TABLE parent (id integer PRIMARY KEY, name text);
CREATE TABLE child (more integer) INHERITS (parent);
SELECT eventbus.capture('parent');
INSERT INTO parent VALUES (1, 'p');
INSERT INTO child VALUES (2, 'c', 3);
UPDATE parent SET name = 'x';
SELECT topic, payload -> 'after' AS after FROM news();
SELECT eventbus.capture('child', key => 'id');
UPDATE parent SET name = 'y';
SELECT topic, key, payload -> 'after' AS after FROM news() ORDER BY 1;
DROP TABLE parent CASCADE;

-- Foreign tables
CREATE EXTENSION postgres_fdw;
DO $$ BEGIN
    EXECUTE format('CREATE SERVER here FOREIGN DATA WRAPPER postgres_fdw OPTIONS (dbname %L, host %L, port %L)', current_database(),
        split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'));
    EXECUTE format('CREATE USER MAPPING FOR CURRENT_USER SERVER here OPTIONS (user %L)', current_user);
END $$;
CREATE TABLE far (id integer PRIMARY KEY, t text);
CREATE FOREIGN TABLE near (id integer, t text) SERVER here OPTIONS (table_name 'far');
SELECT eventbus.capture('near');
INSERT INTO near VALUES (1, 'a');
SELECT eventbus.capture('near', key => 'id');
INSERT INTO near VALUES (2, 'b');
UPDATE near SET t = 'c' WHERE id = 2;
DELETE FROM near WHERE id = 1;
SELECT * FROM news();
DROP EXTENSION postgres_fdw CASCADE;
DROP TABLE far;

-- Views have only INSTEAD OF triggers; those may publish by themselves
CREATE TABLE base (id integer PRIMARY KEY, t text);
CREATE VIEW shown AS SELECT id, upper(t) AS t FROM base;
SELECT eventbus.capture('shown');
CREATE TRIGGER also INSTEAD OF DELETE ON shown FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change('view.keyless');
CREATE TRIGGER publish INSTEAD OF INSERT OR UPDATE OR DELETE ON shown
    FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change('view.{op}', 'key=id', 'payload=row');
INSERT INTO base VALUES (1, 'a');
INSERT INTO shown VALUES (7, 'seven') RETURNING *;
UPDATE shown SET t = 'x' WHERE id = 1 RETURNING *;
DELETE FROM shown WHERE id = 1;
SELECT * FROM news();
SELECT relation, topic, operations, key, payload, triggers FROM eventbus.captured;
DROP VIEW shown;

-- Triggers made by hand: with WHEN, on columns, deferred to the end of the transaction
CREATE TRIGGER by_hand AFTER UPDATE OF t ON base FOR EACH ROW WHEN (OLD.t IS DISTINCT FROM NEW.t)
    EXECUTE FUNCTION eventbus.publish_change('hand', 'payload=row', 'headers={"made": "by hand"}');
CREATE CONSTRAINT TRIGGER at_the_end AFTER INSERT ON base DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change('late', 'payload=key');
BEGIN;
INSERT INTO base VALUES (2, 'b'), (3, 'c');
UPDATE base SET t = 'd' WHERE id = 2;
SELECT * FROM news();
COMMIT;
SELECT * FROM news();
SELECT relation, topic, operations, key, condition, payload, headers, triggers FROM eventbus.captured;
-- a condition is shown as PostgreSQL writes it, and nothing else is taken for one
CREATE TYPE place AS (street text, "Ci ty" text);
CREATE TABLE odd (gone integer, id integer, "Na me" text, at place);
ALTER TABLE odd DROP gone;
CREATE TRIGGER a AFTER UPDATE ON odd FOR EACH ROW
    WHEN (NEW.tableoid = 'odd'::regclass AND OLD.ctid <> NEW.ctid AND OLD.* IS DISTINCT FROM NEW.* AND (NEW.at)."Ci ty" > 'x'
          AND (OLD).id > 0 AND ROW(NEW.id, OLD."Na me") <> ROW(1, 'EXECUTE FUNCTION f()') AND NEW IS NOT NULL)
    EXECUTE FUNCTION eventbus.publish_change('t');
CREATE TRIGGER b AFTER INSERT ON odd FOR EACH ROW
    EXECUTE FUNCTION eventbus.publish_change('t', 'headers={"a": "WHEN (x) EXECUTE FUNCTION "}');
SELECT c.triggers, c.condition, t.tgqual IS NULL AND c.condition IS NULL OR
       position('WHEN (' || c.condition || ') EXECUTE FUNCTION' IN pg_get_triggerdef(t.oid)) > 0 AS right, c.error
FROM eventbus.captured c JOIN pg_trigger t ON t.tgrelid = c.relation AND t.tgname = c.triggers[1] WHERE c.relation = 'odd'::regclass ORDER BY 1;
SELECT * FROM eventbus.trigger_condition(0);
SELECT count(*) > 0 AS some, count(c.condition) AS conditions, count(c.error) AS errors FROM pg_trigger t, eventbus.trigger_condition(t.oid) c;
DROP TABLE odd;
DROP TYPE place;
-- and those that make no sense say so when they fire
CREATE TRIGGER wrong BEFORE INSERT ON base FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change('x');
INSERT INTO base VALUES (4, 'e');
DROP TRIGGER wrong ON base;
CREATE TRIGGER wrong AFTER INSERT ON base EXECUTE FUNCTION eventbus.publish_change('x');
INSERT INTO base VALUES (4, 'e');
DROP TRIGGER wrong ON base;
CREATE TRIGGER wrong AFTER INSERT ON base FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change();
INSERT INTO base VALUES (4, 'e');
DROP TRIGGER wrong ON base;
CREATE TRIGGER wrong AFTER INSERT ON base FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change('x', 'what=1');
INSERT INTO base VALUES (4, 'e');
DROP TRIGGER wrong ON base;
CREATE TRIGGER wrong AFTER INSERT ON base FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change('x', 'columns=nope');
INSERT INTO base VALUES (4, 'e');
DROP TRIGGER wrong ON base;
CREATE TRIGGER wrong AFTER INSERT ON base FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change('x', 'headers=[1]');
INSERT INTO base VALUES (4, 'e');
DROP TRIGGER wrong ON base;
CREATE TRIGGER wrong AFTER INSERT ON base FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change('x..y');
INSERT INTO base VALUES (4, 'e');
DROP TABLE base;
SELECT * FROM news();

-- Identity columns, ON CONFLICT, MERGE, COPY, rows changed twice, cascades
CREATE TABLE account (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text UNIQUE, n integer DEFAULT 0);
CREATE TABLE entry (id integer PRIMARY KEY, account integer REFERENCES account ON DELETE CASCADE);
SELECT eventbus.capture('account', 'account.{op}', payload => 'row');
SELECT eventbus.capture('entry', 'entry.{op}', payload => 'row');
INSERT INTO account (name) VALUES ('a') ON CONFLICT (name) DO UPDATE SET n = account.n + 1;
INSERT INTO account (name) VALUES ('a') ON CONFLICT (name) DO UPDATE SET n = account.n + 1;
INSERT INTO account (name) VALUES ('a') ON CONFLICT DO NOTHING;
MERGE INTO account USING (VALUES ('a', 10), ('b', 20)) AS new (name, n) ON account.name = new.name
    WHEN MATCHED THEN UPDATE SET n = new.n WHEN NOT MATCHED THEN INSERT (name, n) VALUES (new.name, new.n);
COPY entry FROM stdin;
1	1
2	1
\.
SELECT * FROM news();
BEGIN;
UPDATE account SET n = 1 WHERE name = 'b';
UPDATE account SET n = 2 WHERE name = 'b';
SAVEPOINT s;
UPDATE account SET n = 3 WHERE name = 'b';
ROLLBACK TO s;
COMMIT;
DELETE FROM account WHERE name = 'a';
SELECT * FROM news();
-- one event a table, whatever it held; and what is rolled back was not
BEGIN;
TRUNCATE account CASCADE;
ROLLBACK;
TRUNCATE account RESTART IDENTITY CASCADE;
SELECT * FROM news();
INSERT INTO account (name) VALUES ('a'), ('b');
SELECT count(*) FROM news();
-- rows that replication applies fire no triggers, unless it is asked for
SET session_replication_role = replica;
UPDATE account SET n = 7;
ALTER TABLE account ENABLE ALWAYS TRIGGER "00_eventbus_update";
UPDATE account SET n = 8 WHERE name = 'a';
RESET session_replication_role;
SELECT payload FROM news();
-- a trigger that changes the row has done so before
CREATE FUNCTION grow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.n := NEW.n + 100; RETURN NEW; END $$;
CREATE TRIGGER grow BEFORE UPDATE ON account FOR EACH ROW EXECUTE FUNCTION grow();
UPDATE account SET n = 5;
SELECT payload FROM news();
DROP TABLE account, entry;
DROP FUNCTION grow();

-- Temporary tables, tables without columns, rows of nothing
CREATE TEMP TABLE passing (id integer);
SELECT eventbus.capture('passing', topic => 'temporary.{table}', payload => 'row');
INSERT INTO passing VALUES (1);
CREATE TABLE empty ();
SELECT eventbus.capture('empty', payload => 'row');
INSERT INTO empty DEFAULT VALUES;
SELECT * FROM news();
DROP TABLE passing, empty;

-- A trigger that fires within a trigger
CREATE TABLE one (id integer PRIMARY KEY, n integer);
CREATE TABLE two (id integer PRIMARY KEY, n integer);
SELECT eventbus.capture('one', payload => 'row');
SELECT eventbus.capture('two', payload => 'row');
CREATE FUNCTION also() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO two VALUES (NEW.id, NEW.n);
    IF NEW.n > 0 THEN UPDATE one SET n = n - 1 WHERE id = NEW.id; END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER also AFTER INSERT ON one FOR EACH ROW EXECUTE FUNCTION also();
INSERT INTO one VALUES (1, 1), (2, 0);
SELECT * FROM news();
DROP TABLE one, two;
DROP FUNCTION also();
DROP FUNCTION news();
DROP TABLE seen;
SELECT eventbus.drop_broker('nowhere', cascade => true);

-- Values of types that users have made, as JSON in captures and in decoding: casts to json, and values that are not what
-- they say.
SET client_min_messages = warning;
CREATE SCHEMA kind;
SET search_path = kind, public;
\set SHOW_CONTEXT never
SELECT eventbus.create_broker('types', 'redis:///nonexistent.sock');
SELECT eventbus.create_route('types', 'types', 'list:x', topics => 'kind.#');
CREATE FUNCTION news() RETURNS TABLE (payload text) LANGUAGE sql AS
    $$ WITH last AS (SELECT max(id) AS id FROM eventbus.event WHERE topic LIKE 'kind.%') SELECT e.payload FROM eventbus.event e JOIN last USING (id) $$;
CREATE TYPE die AS ENUM ('one', 'two');
CREATE TYPE pair AS (a integer, d die);
CREATE DOMAIN thrown AS die;
CREATE TABLE game (id serial PRIMARY KEY, d die, t thrown, many die[], p pair, pairs pair[]);
SELECT eventbus.capture('game', payload => 'row', topic => 'kind.game');
CREATE PROCEDURE play() LANGUAGE sql AS
    $$ INSERT INTO game (d, t, many, p, pairs) VALUES ('one', 'two', '{one,NULL}', ROW(1, 'one'), ARRAY[ROW(2, 'two')::pair]) $$;

-- A session that knows the table follows its types' casts, and their functions, from one row to the next
CALL play();
SELECT * FROM news();
CREATE FUNCTION die_json(die) RETURNS json LANGUAGE sql AS $$ SELECT to_json('sql ' || $1::text) $$;
CREATE CAST (die AS json) WITH FUNCTION die_json(die);
CALL play();
SELECT * FROM news();
BEGIN;
CREATE OR REPLACE FUNCTION die_json(die) RETURNS json LANGUAGE sql AS $$ SELECT to_json('anew ' || $1::text) $$;
CALL play();
SELECT * FROM news();
CREATE OR REPLACE FUNCTION die_json(die) RETURNS json LANGUAGE plpgsql AS $$ BEGIN RETURN to_json(concat_ws(' ', 'plpgsql', nullif(current_setting('kind.of', true), ''), $1)); END $$;
CALL play();
SELECT * FROM news();
SAVEPOINT set;
ALTER FUNCTION die_json(die) SET kind.of = 'with a setting';
CALL play();
SELECT * FROM news();
ROLLBACK TO set;
CALL play();
SELECT * FROM news();
ALTER TYPE pair ADD ATTRIBUTE more text;
ALTER TYPE pair RENAME ATTRIBUTE d TO e;
CREATE OR REPLACE PROCEDURE play() LANGUAGE sql AS $$ INSERT INTO game (p, pairs) VALUES (ROW(1, 'one', 'm'), ARRAY[ROW(2, 'two', NULL)::pair]) $$;
CALL play();
SELECT * FROM news();
ROLLBACK;
DROP CAST (die AS json);
CALL play();
SELECT * FROM news();

-- A cast is called with what its function takes, as ::json calls it
CREATE FUNCTION die_json(die, integer) RETURNS json LANGUAGE sql AS $$ SELECT json_build_array($1::text, $2) $$;
CREATE CAST (die AS json) WITH FUNCTION die_json(die, integer);
CALL play();
SELECT news.payload, news.payload::json ->> 'd' = 'one'::die::json::text AS as_cast FROM news();
DROP CAST (die AS json);
CREATE FUNCTION die_json(die, integer, boolean) RETURNS json LANGUAGE plpgsql AS $$ BEGIN RETURN json_build_array($1::text, $2, $3); END $$;
CREATE CAST (die AS json) WITH FUNCTION die_json(die, integer, boolean);
CALL play();
SELECT news.payload, news.payload::json ->> 'd' = 'one'::die::json::text AS as_cast FROM news();
DROP CAST (die AS json);
CREATE FUNCTION any_json(anyelement) RETURNS json LANGUAGE plpgsql AS $$ BEGIN RETURN json_build_array($1::text, pg_typeof($1)); END $$;
CREATE CAST (die AS json) WITH FUNCTION any_json(anyelement);
CALL play();
SELECT news.payload, news.payload::json ->> 'd' = 'one'::die::json::text AS as_cast FROM news();
DROP CAST (die AS json);
CREATE EXTENSION IF NOT EXISTS citext;
CREATE FUNCTION words_json(citext) RETURNS json IMMUTABLE STRICT LANGUAGE internal AS 'lower';
CREATE CAST (citext AS json) WITH FUNCTION words_json(citext);
CREATE TABLE said (words citext);
SELECT eventbus.capture('said', payload => 'row', topic => 'kind.said');
INSERT INTO said VALUES ('"LOW"');
SELECT * FROM news();
-- Its NULL is JSON's, its errors are the writer's
CREATE OR REPLACE FUNCTION die_json(die) RETURNS json LANGUAGE plpgsql AS $$ BEGIN IF $1 = 'two' THEN RAISE 'no two'; END IF; RETURN NULL; END $$;
CREATE CAST (die AS json) WITH FUNCTION die_json(die);
INSERT INTO game (d, many, p) VALUES ('one', '{one,one}', ROW(1, 'one'));
SELECT * FROM news();
INSERT INTO game (many) VALUES ('{one,two}');
DROP CAST (die AS json);

-- A value that says to be of another type than its column is refused: functions in C make such, byteasend gives what it
-- is given.
CREATE TYPE other AS (a integer, d text);
CREATE FUNCTION lie(other) RETURNS pair IMMUTABLE STRICT LANGUAGE internal AS 'byteasend';
CREATE FUNCTION lie(record) RETURNS pair IMMUTABLE STRICT LANGUAGE internal AS 'byteasend';
CREATE FUNCTION lie(integer[]) RETURNS die[] IMMUTABLE STRICT LANGUAGE internal AS 'byteasend';
CREATE FUNCTION lie(text[]) RETURNS varchar[] IMMUTABLE STRICT LANGUAGE internal AS 'byteasend';
INSERT INTO game (p) VALUES (lie(ROW(1, 'one')::other));
INSERT INTO game (p) VALUES (lie(ROW(1, 'one')));
INSERT INTO game (pairs) VALUES (ARRAY[ROW(1, 'one')::pair, lie(ROW(1, 'one'))]);
INSERT INTO game (many) VALUES (lie('{1}'::integer[]));
CREATE TABLE harmless (words varchar[]);
SELECT eventbus.capture('harmless', payload => 'row', topic => 'kind.harmless');
INSERT INTO harmless VALUES (lie('{a,b}'::text[]));
SELECT * FROM news();

-- Nothing that SQL makes is such a value.
CREATE DOMAIN pairs_domain AS pair;
CREATE TABLE parent (a integer, d die) PARTITION BY LIST (a);
CREATE TABLE child (gone integer, d die, a integer);
ALTER TABLE child DROP gone;
ALTER TABLE parent ATTACH PARTITION child DEFAULT;
CREATE TABLE base (a integer, d die);
CREATE TABLE heir () INHERITS (base);
INSERT INTO parent VALUES (1, 'one');
INSERT INTO heir VALUES (2, 'two');
CREATE TABLE made (how text, p pair, pp pair[], d pairs_domain, dd pairs_domain[], parent parent, base base, bases base[]);
SELECT eventbus.capture('made', payload => 'row', topic => 'kind.made');
CREATE FUNCTION of_row() RETURNS pair LANGUAGE plpgsql AS $$ BEGIN RETURN ROW(1, 'one'::die); END $$;
CREATE FUNCTION of_record() RETURNS pair LANGUAGE plpgsql AS $$ DECLARE r record; BEGIN SELECT 1 AS a, 'one'::die AS d INTO r; RETURN r; END $$;
CREATE FUNCTION of_sql() RETURNS pair LANGUAGE sql AS $$ SELECT 1, 'one'::die $$;
CREATE FUNCTION of_set() RETURNS SETOF pair LANGUAGE plpgsql AS $$ BEGIN RETURN QUERY SELECT 1, 'one'::die; RETURN NEXT ROW(2, 'two'::die); END $$;
CREATE FUNCTION of_heir() RETURNS base LANGUAGE plpgsql AS $$ DECLARE r record; BEGIN SELECT heir AS whole FROM heir INTO r; RETURN r.whole; END $$;
CREATE FUNCTION of_domain() RETURNS pairs_domain LANGUAGE plpgsql AS $$ BEGIN RETURN ROW(1, 'one'::die); END $$;
CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE r record; BEGIN SELECT 9 AS a, 'two'::die AS d INTO r; NEW.p := r; NEW.base := r; NEW.d := r; NEW.pp := ARRAY[NEW.p]; RETURN NEW; END $$;
CREATE TRIGGER fill BEFORE INSERT ON made FOR EACH ROW WHEN (NEW.how = 'trigger') EXECUTE FUNCTION fill();
INSERT INTO made (how, p) VALUES ('row', of_row()), ('record', of_record()), ('sql', of_sql()), ('text', '(1,one)');
INSERT INTO made (how, p) SELECT 'set', of_set();
INSERT INTO made (how, pp) SELECT 'aggregate', array_agg(s) FROM of_set() s;
INSERT INTO made (how, d, dd) VALUES ('domain', of_domain(), ARRAY[ROW(1, 'one')::pair]::pairs_domain[]);
INSERT INTO made (how, parent) SELECT 'partition', parent FROM parent;
INSERT INTO made (how, parent) SELECT 'as parent', child::parent FROM child;
INSERT INTO made (how, base, bases) SELECT 'heir', heir::base, ARRAY[of_heir()] FROM heir;
INSERT INTO made (how, base, bases) SELECT 'whole', max(base::text)::base, array_agg(base) FROM base;
INSERT INTO made SELECT (json_populate_record(NULL::made, '{"how": "json", "p": {"a": 1}, "pp": [{"a": 2}], "d": {"a": 3}, "dd": [{"a": 4}], "parent": {"a": 5}, "bases": [{"a": 6}]}')).*;
INSERT INTO made (how) VALUES ('trigger');
UPDATE made SET how = 'field', p.a = 7, pp[3] = ROW(3, 'one') WHERE how = 'json';
ALTER TYPE pair ADD ATTRIBUTE more text;
UPDATE made SET how = how || ', pair changed';
SELECT count(*), bool_and(e.payload = row_to_json(m)::text) AS as_row_to_json
FROM made m JOIN eventbus.event e ON e.topic = 'kind.made' AND e.payload::json ->> 'how' = m.how
    AND (m.how <> 'set, pair changed' OR e.payload::json #>> '{p,a}' = (m.p).a::text);
SELECT payload FROM eventbus.event WHERE topic = 'kind.made' AND payload::json ->> 'how' IN ('trigger', 'field', 'heir') ORDER BY id;

-- Decoding
SELECT 'made' FROM pg_create_logical_replication_slot('types', 'pg_eventbus');
CREATE FUNCTION decoded() RETURNS TABLE (after json) LANGUAGE sql AS
    $$ SELECT data::json -> 'after' FROM pg_logical_slot_get_changes('types', NULL, NULL, 'tables', 'kind.*') $$;
CREATE EXTENSION IF NOT EXISTS hstore;
CREATE TABLE stored (h hstore, a hstore[]);
INSERT INTO stored VALUES ('n=>1', '{n=>1}');
ALTER EXTENSION hstore DROP CAST (hstore AS json);
DROP CAST (hstore AS json);
INSERT INTO stored VALUES ('n=>1', '{n=>1}');
CREATE FUNCTION stored_json(hstore, integer, boolean) RETURNS json IMMUTABLE LANGUAGE C AS '$libdir/hstore', 'hstore_to_json';
CREATE CAST (hstore AS json) WITH FUNCTION stored_json(hstore, integer, boolean);
INSERT INTO stored VALUES ('n=>1', '{n=>1}');
CREATE OR REPLACE FUNCTION stored_json(hstore, integer, boolean) RETURNS json IMMUTABLE LANGUAGE C AS '$libdir/hstore', 'hstore_to_json_loose';
INSERT INTO stored VALUES ('n=>1', '{n=>1}');
CREATE OR REPLACE FUNCTION stored_json(hstore, integer, boolean) RETURNS json LANGUAGE sql AS $$ SELECT json '7' $$;
INSERT INTO stored VALUES ('n=>1', '{n=>1}');
SELECT * FROM decoded();
CREATE TABLE lies (id integer, p pair, pairs pair[], many die[]);
INSERT INTO lies VALUES (1, lie(ROW(1, 'one')::other));
SELECT * FROM decoded();
SELECT 'gone' FROM pg_drop_replication_slot('types');
SELECT 'made' FROM pg_create_logical_replication_slot('types', 'pg_eventbus');
INSERT INTO lies (id, pairs) VALUES (2, ARRAY[lie(ROW(1, 'one'))]);
SELECT * FROM decoded();
SELECT 'gone' FROM pg_drop_replication_slot('types');
SELECT 'made' FROM pg_create_logical_replication_slot('types', 'pg_eventbus');
INSERT INTO lies (id, many) VALUES (3, lie('{1}'::integer[]));
SELECT * FROM decoded();

SELECT 'gone' FROM pg_drop_replication_slot('types');
SELECT eventbus.drop_route('types');
SELECT eventbus.drop_broker('types');
DROP CAST (hstore AS json);
CREATE CAST (hstore AS json) WITH FUNCTION hstore_to_json(hstore);
ALTER EXTENSION hstore ADD CAST (hstore AS json);
DROP SCHEMA kind CASCADE;

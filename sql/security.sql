-- Nobody gets in: whose rights count, and what somebody's objects may not do. See SECURITY.md.
SET client_min_messages = error;
\set SHOW_CONTEXT never
\set VERBOSITY default
CREATE ROLE regress_eventbus_operator;
CREATE ROLE regress_eventbus_reader;
CREATE ROLE regress_eventbus_other;
CREATE SCHEMA lab;
GRANT USAGE, CREATE ON SCHEMA lab TO PUBLIC;
GRANT USAGE ON SCHEMA eventbus TO regress_eventbus_operator, regress_eventbus_reader, regress_eventbus_other;
GRANT EXECUTE ON FUNCTION eventbus.create_broker, eventbus.alter_broker, eventbus.drop_broker, eventbus.create_route,
    eventbus.alter_route, eventbus.drop_route, eventbus.pause_route, eventbus.resume_route, eventbus.restart_route,
    eventbus.redeliver(text, bigint), eventbus.discard(text, bigint), eventbus.allow, eventbus.disallow, eventbus.capture, eventbus.uncapture,
    eventbus.capture_ddl, eventbus.uncapture_ddl TO regress_eventbus_operator;
GRANT regress_eventbus_operator TO regress_eventbus_reader;
GRANT pg_read_server_files TO regress_eventbus_reader;
-- No function that changes the configuration hides who calls it.
SELECT p.oid::regprocedure FROM pg_proc p WHERE pronamespace = 'eventbus'::regnamespace AND prosecdef ORDER BY 1;

-- 1. Rights are those of the current role, as PostgreSQL has it.
SET ROLE regress_eventbus_operator;
SELECT eventbus.create_broker('files', 'redis://u@127.0.0.1:1', '{"password_file": "/etc/passwd"}');
SET ROLE regress_eventbus_reader;
BEGIN;
SELECT eventbus.create_broker('files', 'redis://u@127.0.0.1:1', '{"password_file": "/etc/passwd"}');
-- what the password file is read for cannot be led elsewhere by those who could not have named it
SET ROLE regress_eventbus_operator;
SELECT eventbus.alter_broker('files', 'redis://u@127.0.0.1:2');
ROLLBACK;
RESET ROLE;
-- a definer's function has its owner's, and no others
SET ROLE regress_eventbus_reader;
CREATE FUNCTION lab.by_reader() RETURNS void LANGUAGE sql SECURITY DEFINER AS
    $$ SELECT eventbus.create_broker('files', 'redis://u@127.0.0.1:1', '{"password_file": "/etc/passwd"}') $$;
SET ROLE regress_eventbus_operator;
CREATE FUNCTION lab.by_operator() RETURNS void LANGUAGE sql SECURITY DEFINER AS
    $$ SELECT eventbus.create_broker('files', 'redis://u@127.0.0.1:1', '{"password_file": "/etc/passwd"}') $$;
BEGIN;
SELECT lab.by_reader();
ROLLBACK;
RESET ROLE;
SELECT lab.by_operator();  -- a superuser calls
-- code that runs where nobody has asked for it changes nothing: index expressions, materialized views
SET ROLE regress_eventbus_operator;
CREATE TABLE lab.bait (call text);
INSERT INTO lab.bait VALUES ('SELECT 1');
CREATE FUNCTION lab.trap(call text) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN EXECUTE call; RETURN 1; END $$;
CREATE MATERIALIZED VIEW lab.view AS SELECT lab.trap(call) FROM lab.bait;
RESET ROLE;
CREATE FUNCTION lab.try(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'done';
EXCEPTION WHEN OTHERS THEN
    RETURN sqlstate || ' ' || sqlerrm;
END $$;
CREATE FUNCTION lab.in_view(call text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    UPDATE lab.bait SET call = 'SELECT ' || in_view.call;
    RETURN lab.try('REFRESH MATERIALIZED VIEW lab.view');
END $$;
SELECT call, lab.in_view('eventbus.' || call) FROM unnest(ARRAY[
    $$create_broker('trap', 'redis://127.0.0.1:1')$$, $$alter_broker('trap', 'redis://127.0.0.1:1')$$,
    $$drop_broker('trap')$$, $$create_route('trap', 'trap', 'list:l')$$, $$alter_route('trap', 'list:l')$$,
    $$drop_route('trap')$$, $$pause_route('trap')$$, $$resume_route('trap')$$, $$restart_route('trap')$$,
    $$redeliver()$$, $$discard()$$, $$allow('regress_eventbus_other', '#')$$, $$disallow('regress_eventbus_other')$$,
    $$capture('lab.bait')$$, $$uncapture('lab.bait')$$, $$capture_ddl()$$, $$uncapture_ddl()$$]) call;
UPDATE lab.bait SET call = 'SELECT 1';
SET ROLE regress_eventbus_operator;
CREATE INDEX bait_trap_idx ON lab.bait (lab.trap(call));
RESET ROLE;
CREATE OR REPLACE FUNCTION lab.trap(call text) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN PERFORM eventbus.create_broker('files', 'redis://u@127.0.0.1:1', '{"password_file": "/etc/passwd"}'); RETURN 1; END $$;
SELECT lab.try('REINDEX TABLE lab.bait');
ANALYZE lab.bait;
SELECT count(*) FROM eventbus.broker WHERE name IN ('files', 'trap');
DROP TABLE lab.bait CASCADE;

-- 2. What leads routes from the WAL elsewhere, stops or ends them, wants what making them wants.
SELECT eventbus.create_broker('far', 'redis://127.0.0.1:1');
INSERT INTO eventbus.route_config (name, broker_id, destination, topics, source, options)
    SELECT 'from_wal', id, 'list:l', '#', 'wal', '{"source": "wal"}' FROM eventbus.broker_config WHERE name = 'far';
SELECT eventbus.create_broker('near', 'redis://127.0.0.1:1');
SELECT eventbus.create_route('from_log', 'near', 'list:l');
SET ROLE regress_eventbus_operator;
SELECT eventbus.alter_broker('far', 'redis://127.0.0.1:2');
SELECT eventbus.drop_broker('far', true);
SELECT eventbus.alter_route('from_wal', 'list:mine');
SELECT eventbus.drop_route('from_wal');
SELECT eventbus.pause_route('from_wal');
SELECT eventbus.resume_route('from_wal');
SELECT eventbus.restart_route('from_wal');
RESET ROLE;
BEGIN;
UPDATE eventbus.broker_config SET home = 'elsewhere' WHERE name = 'far';
GRANT EXECUTE ON FUNCTION eventbus.adopt TO regress_eventbus_operator;
SET ROLE regress_eventbus_operator;
SELECT eventbus.adopt();
ROLLBACK;
SET ROLE regress_eventbus_operator;
BEGIN;
SELECT eventbus.alter_broker('near', 'redis://127.0.0.1:2'), eventbus.alter_route('from_log', 'list:mine'),
       eventbus.pause_route('from_log'), eventbus.resume_route('from_log'), eventbus.drop_route('from_log');
ROLLBACK;
RESET ROLE;
ALTER ROLE regress_eventbus_operator REPLICATION;
SET ROLE regress_eventbus_operator;
SELECT eventbus.pause_route('from_wal'), eventbus.alter_broker('far', 'redis://127.0.0.1:2'), eventbus.drop_broker('far', true);
RESET ROLE;
ALTER ROLE regress_eventbus_operator NOREPLICATION;
SELECT eventbus.drop_broker('near', true);

-- 3. A captured parent's condition runs on no partition whose owner has not given TRIGGER.
SET ROLE regress_eventbus_operator;
CREATE TABLE lab.parent (id integer, secret text) PARTITION BY LIST (id);
CREATE TABLE lab.mine PARTITION OF lab.parent FOR VALUES IN (1);
CREATE TABLE lab.theirs PARTITION OF lab.parent FOR VALUES IN (2) PARTITION BY LIST (secret);
CREATE TABLE lab.leaf PARTITION OF lab.theirs DEFAULT;
SELECT eventbus.capture('lab.parent', condition => 'NEW.secret <> ''''');
RESET ROLE;
ALTER TABLE lab.leaf OWNER TO regress_eventbus_other;
SET ROLE regress_eventbus_operator;
SELECT eventbus.capture('lab.parent', condition => 'NEW.secret = ''x''');
RESET ROLE;
GRANT TRIGGER ON lab.leaf TO regress_eventbus_operator;
SET ROLE regress_eventbus_operator;
SELECT eventbus.capture('lab.parent', condition => 'NEW.secret = ''x''');
SELECT DISTINCT tgrelid::regclass FROM pg_trigger WHERE tgfoid = 'eventbus.publish_partitioned'::regproc ORDER BY 1;
RESET ROLE;
DROP TABLE lab.parent;

-- 4. What is left out stays so by name.
CREATE TABLE lab.person (id integer PRIMARY KEY, ssn text, name text);
SELECT eventbus.capture('lab.person', columns => '-ssn', payload => 'row');
SELECT eventbus.create_broker('nowhere', 'redis:///nonexistent/redis.sock');
SELECT eventbus.create_route('hold', 'nowhere', 'list:held');
SELECT eventbus.pause_route('hold');
SELECT coalesce(max(id), 0) AS before FROM eventbus.event \gset
INSERT INTO lab.person VALUES (1, 's3cret', 'a');
ALTER TABLE lab.person DROP ssn;
INSERT INTO lab.person VALUES (2, 'a');
ALTER TABLE lab.person ADD ssn text;
INSERT INTO lab.person VALUES (3, 'a', 's3cret');
ALTER TABLE lab.person DROP ssn;
ALTER TABLE lab.person RENAME name TO ssn;
INSERT INTO lab.person VALUES (4, 's3cret');
ALTER TABLE lab.person RENAME ssn TO tax;
ALTER TABLE lab.person ADD ssn text;
INSERT INTO lab.person VALUES (5, 's3cret', 's3cret');
SELECT columns FROM eventbus.captured WHERE relation = 'lab.person'::regclass;
SELECT payload FROM eventbus.event WHERE id > :before ORDER BY id;
DROP TABLE lab.person;
-- by whatever command: of a view, and of a type with its tables and what inherits from them
CREATE TABLE lab.person (id integer, ssn text, pet text);
CREATE TYPE lab.human AS (id integer, ssn text, pet text);
CREATE TABLE lab.typed OF lab.human;
SELECT eventbus.capture(t, columns => '-ssn', key => 'pet', payload => 'row') FROM unnest('{lab.person, lab.typed}'::regclass[]) t;
SELECT coalesce(max(id), 0) AS before FROM eventbus.event \gset
ALTER VIEW lab.person RENAME COLUMN ssn TO tax;
ALTER MATERIALIZED VIEW lab.person RENAME COLUMN pet TO beast;
ALTER TYPE lab.human RENAME ATTRIBUTE ssn TO tax CASCADE;
ALTER TYPE lab.human RENAME ATTRIBUTE pet TO beast CASCADE;
INSERT INTO lab.person VALUES (6, 's3cret', 'cat');
INSERT INTO lab.typed VALUES (7, 's3cret', 'dog');
SELECT relation, columns, key, error FROM eventbus.captured WHERE relation IN ('lab.person'::regclass, 'lab.typed'::regclass) ORDER BY 1;
SELECT key, payload FROM eventbus.event WHERE id > :before ORDER BY id;
DROP TABLE lab.person, lab.typed;

-- 5. Topic grants bind whoever logged in, SET ROLE or not; a definer's function binds its owner.
SELECT eventbus.grant_publisher('regress_eventbus_operator'), eventbus.grant_publisher('regress_eventbus_other');
GRANT regress_eventbus_other TO regress_eventbus_operator;
GRANT CREATE ON SCHEMA lab TO regress_eventbus_other;
SELECT eventbus.allow('regress_eventbus_operator', 'shop.#');
SET SESSION AUTHORIZATION regress_eventbus_operator;
SELECT eventbus.publish('shop.a', '1') > 0 AS published;
SELECT eventbus.publish('other.a', '1');
SET ROLE regress_eventbus_other;
SELECT eventbus.publish('shop.a', '1') > 0 AS published;
SELECT eventbus.publish('other.a', '1');
CREATE FUNCTION lab.as_other(topic text) RETURNS boolean LANGUAGE sql SECURITY DEFINER AS 'SELECT eventbus.publish(topic, ''1'') > 0';
CREATE FUNCTION lab.as_caller(topic text) RETURNS boolean LANGUAGE sql AS 'SELECT eventbus.publish(topic, ''1'') > 0';
CREATE FUNCTION lab.nested(topic text) RETURNS boolean LANGUAGE sql SECURITY DEFINER AS 'SELECT lab.as_caller(topic)';
SELECT lab.as_other('other.a'), lab.nested('other.a');
SELECT lab.as_caller('other.a');
RESET ROLE;
SELECT lab.as_other('other.a'), lab.nested('other.a');
SELECT lab.as_caller('other.a');
RESET SESSION AUTHORIZATION;
-- both bind: what the one may not, and what the other may not
SELECT eventbus.allow('regress_eventbus_other', '*.b');
SET SESSION AUTHORIZATION regress_eventbus_operator;
SET ROLE regress_eventbus_other;
SELECT eventbus.publish('shop.b', '1') > 0 AS published;
SELECT eventbus.publish('shop.a', '1');
SELECT eventbus.publish('other.b', '1') > 0 AS published;
RESET ROLE;
RESET SESSION AUTHORIZATION;
-- a superuser's session is free, and bound by the role that it takes on
SET ROLE regress_eventbus_other;
SELECT eventbus.publish('shop.a', '1');
RESET ROLE;
SELECT eventbus.publish('shop.a', '1') > 0 AS published;
SELECT eventbus.disallow('regress_eventbus_other'), eventbus.disallow('regress_eventbus_operator');
SELECT eventbus.revoke_publisher('regress_eventbus_other');

-- 6. A trigger made by hand breaks nothing but itself; whatever is no array of texts is read to its end and no further.
CREATE TABLE lab.odd (id integer PRIMARY KEY);
CREATE TRIGGER a AFTER INSERT ON lab.odd FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change('t', 'headers=nonsense');
CREATE TRIGGER b AFTER INSERT ON lab.odd FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change('t', 'headers=[]');
CREATE TRIGGER c AFTER INSERT ON lab.odd FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change('t', 'columns=id', 'columns=none');
CREATE TRIGGER d AFTER INSERT ON lab.odd FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change('t', 'headers={"a": 1}', 'headers={"b": 2}');
CREATE TRIGGER e AFTER INSERT ON lab.odd FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change();
CREATE TRIGGER f AFTER INSERT ON lab.odd FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change('{nonsense}', 'sense');
CREATE TRIGGER g AFTER INSERT ON lab.odd FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change('t..t');
CREATE TRIGGER h AFTER INSERT ON lab.odd FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change('t', 'key="id');
SELECT triggers, topic, columns, headers, error FROM eventbus.captured WHERE relation = 'lab.odd'::regclass ORDER BY 1;
DROP TABLE lab.odd;
SELECT input, eventbus.trigger_arguments(input::bytea) FROM (VALUES ('\x'), ('\x61'), ('\x6100'), ('\x00'), ('\x610062'),
    ('\xff00'), ('\xff'), ('\x610000')) v (input);
-- one with more than anybody could read is not read, but told of
CREATE TABLE lab.odd (id integer PRIMARY KEY);
SELECT format('CREATE TRIGGER a AFTER INSERT ON lab.odd FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change(%L, %L)',
    't', 'columns=id' || repeat(' ', 5000000)) AS make \gset
:make;
SELECT triggers, topic, length(columns), error FROM eventbus.captured WHERE relation = 'lab.odd'::regclass;
INSERT INTO lab.odd VALUES (1);
DROP TABLE lab.odd;
-- and none keeps others from dropping what is theirs, nor does a capture: changes fail then
CREATE TYPE lab.mood AS ENUM ('a');
ALTER TYPE lab.mood OWNER TO regress_eventbus_other;
SET ROLE regress_eventbus_operator;
CREATE TABLE lab.odd (id integer, mood lab.mood);
CREATE TABLE lab.key (id integer, mood lab.mood);
CREATE TABLE lab.only (id integer, mood lab.mood);
SELECT eventbus.capture('lab.key', key => 'mood'), eventbus.capture('lab.only', columns => 'mood', key => 'id', payload => 'row');
ALTER TABLE lab.key DROP mood;
RESET ROLE;
CREATE TRIGGER a AFTER INSERT ON lab.odd FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change('t', 'columns="', 'key=-');
SET ROLE regress_eventbus_other;
DROP TYPE lab.mood CASCADE;
RESET ROLE;
SELECT relation, columns, key, error FROM eventbus.captured WHERE relation IN ('lab.odd'::regclass, 'lab.key'::regclass, 'lab.only'::regclass) ORDER BY 1;
INSERT INTO lab.key VALUES (1);
INSERT INTO lab.only VALUES (1);
ALTER TABLE lab.odd RENAME id TO number;
DROP TABLE lab.odd, lab.key, lab.only;
SELECT eventbus.trigger_error(0, 'a'), eventbus.trigger_error('pg_class'::regclass, '\xff'), eventbus.trigger_error('pg_class'::regclass, '');

-- 7. DDL is published without what may be a secret.
SELECT eventbus.capture_ddl();
SELECT coalesce(max(id), 0) AS before FROM eventbus.event \gset
CREATE FOREIGN DATA WRAPPER lab_wrapper;
CREATE SERVER lab_server FOREIGN DATA WRAPPER lab_wrapper;
CREATE FOREIGN TABLE lab.far (id integer OPTIONS (a 's3cret', "b)" 's3cret)'), name text DEFAULT 'kept')
    SERVER lab_server OPTIONS (password 's3cret' /* ) */, other $a$s3cret$a$);
ALTER FOREIGN TABLE lab.far OPTIONS (SET password 's3cret'), ADD options integer;
ALTER TABLE lab.far ALTER id OPTIONS (SET a E's3\'cret');
ALTER TABLE lab.far RENAME options TO "options (";
CREATE FUNCTION lab.f(a integer, b text DEFAULT 's3cret') RETURNS text LANGUAGE plpgsql AS $f$ BEGIN RETURN 's3cret'; END $f$ COST 7;
CREATE OR REPLACE FUNCTION lab.g(a integer) RETURNS text RETURN 's3cret' || $1;
CREATE PROCEDURE lab.p() BEGIN ATOMIC SELECT 's3cret'; SELECT 's3cret'; END;
CREATE VIEW lab.v AS SELECT 'kept' AS a;
CREATE FUNCTION lab.t() RETURNS trigger LANGUAGE plpgsql SET lab.key = 's3cret' SET lab.pin TO -73737 AS 'BEGIN RETURN NULL; END' SET TIME ZONE UTC;
ALTER FUNCTION lab.t() SET search_path = $s$s3cret$s$, "s3cret" /* s3cret */ COST 8 RESET lab.pin SET lab."key" TO s3cret;
SET lab.key = 'kept';
ALTER PROCEDURE lab.p SET lab.key FROM CURRENT SECURITY DEFINER SET lab.key TO s3cret;
ALTER ROUTINE lab.t SET lab.key = 's3cret';
ALTER FUNCTION lab.t() SET SCHEMA lab;
CREATE TABLE lab.told (id integer, name text);
CREATE TRIGGER tell AFTER INSERT ON lab.told FOR EACH ROW WHEN (NEW.name <> 'kept') EXECUTE FUNCTION lab.t('s3cret', s3cret, 73737);
CREATE TRIGGER tell_by_the_old_word AFTER DELETE ON lab.told EXECUTE PROCEDURE lab . t ( $$s3cret)$$ );
CREATE TRIGGER tell_nothing AFTER UPDATE ON lab.told EXECUTE FUNCTION lab.t();
CREATE SCHEMA lab_too CREATE TABLE told (set integer, execute integer)
    CREATE TRIGGER tell AFTER INSERT ON told EXECUTE FUNCTION lab.t('s3cret') CREATE INDEX ON told (set, execute);
CREATE FUNCTION lab.many(set integer DEFAULT 1, "return" integer DEFAULT 2) RETURNS integer LANGUAGE sql SET lab.pin = 73737 BEGIN ATOMIC SELECT 1; END;
DROP SCHEMA lab_too CASCADE;
SELECT payload::jsonb ->> 'command' AS command FROM eventbus.event WHERE id > :before ORDER BY id;
SELECT count(*) FROM eventbus.event WHERE id > :before AND payload::jsonb ->> 'command' LIKE '%73737%';
SELECT count(*) FROM eventbus.event WHERE id > :before AND payload LIKE '%s3cret%';
SELECT eventbus.capture_ddl(include_bodies => true);
SELECT coalesce(max(id), 0) AS before FROM eventbus.event \gset
CREATE OR REPLACE FUNCTION lab.f(a integer, b text DEFAULT '') RETURNS text LANGUAGE plpgsql SET lab.key = 's3cret' AS $f$ BEGIN RETURN 'shown'; END $f$ COST 7;
CREATE FUNCTION lab.h(set integer) RETURNS void SET lab.key TO 's3cret' BEGIN ATOMIC UPDATE lab.told SET name = 'shown'; END;
DROP FOREIGN TABLE lab.far;
DROP SERVER lab_server;
SELECT payload::jsonb ->> 'command' AS command FROM eventbus.event WHERE id > :before ORDER BY id;
SELECT eventbus.uncapture_ddl();

-- 8. What is walked is bounded: headers and options, in depth and in what their text is.
SELECT coalesce(max(id), 0) AS before FROM eventbus.event \gset
SELECT eventbus.publish('deep', '1', headers => (repeat('{"a":', 100) || '1' || repeat('}', 100))::jsonb) > 0 AS published;
SELECT eventbus.publish('deep', '1', headers => (repeat('{"a":', 101) || '1' || repeat('}', 101))::jsonb);
SELECT eventbus.publish('deep', '1', headers => jsonb_build_object('a', (repeat('[', 1000) || repeat(']', 1000))::jsonb));
SELECT eventbus.publish_text('long', 'x', headers => jsonb_build_object('a', repeat('x', 1048576 - 20))) > 0 AS published;
SELECT eventbus.publish_text('long', 'x', headers => jsonb_build_object('a', repeat('x', 1048576)));
SELECT eventbus.publish_bytes('long', 'x', headers => '{"a": 1e131071}') > 0 AS published;
SELECT eventbus.publish_bytes('long', 'x', headers => (SELECT jsonb_object_agg(n, 1e131071) FROM generate_series(1, 8400) n));
SELECT topic, length(headers::text) > 500000 AS long FROM eventbus.event WHERE id > :before ORDER BY id;
SELECT eventbus.create_broker('deep', 'redis://h', (repeat('{"a":', 200) || '1' || repeat('}', 200))::jsonb);
SELECT eventbus.create_broker('long', 'redis://h', jsonb_build_object('a', repeat('x', 1048576)));
SELECT eventbus.create_route('deep', 'nowhere', 'list:l', options => (repeat('{"a":', 200) || '1' || repeat('}', 200))::jsonb);

-- 9. A function that is said to be PARALLEL SAFE and is not leads ours into a parallel operation: they refuse.
CREATE FUNCTION lab.said_to_be_safe(call text) RETURNS integer LANGUAGE plpgsql PARALLEL SAFE AS $$ BEGIN EXECUTE call; RETURN 1; END $$;
CREATE TABLE lab.calls (call text);
CREATE FUNCTION lab.in_parallel(call text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    TRUNCATE lab.calls;
    INSERT INTO lab.calls VALUES ('SELECT eventbus.' || call);
    EXECUTE 'SELECT lab.said_to_be_safe(call) FROM lab.calls';
    RETURN 'done';
EXCEPTION WHEN OTHERS THEN
    RETURN sqlstate || ' ' || sqlerrm;
END $$;
SELECT count(set_config(name, 'on', false)) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
SELECT call, lab.in_parallel(call) FROM unnest(ARRAY[
    $$publish('t', '1')$$, $$publish('t', '1'::jsonb, 1)$$, $$publish_text('t', 'a')$$, $$publish_bytes('t', 'a')$$,
    $$publish_wal('t', '1')$$, $$publish_now('t', '1')$$, $$wait_for_delivery(1::bigint)$$,
    $$wait_for_delivery(pg_current_wal_insert_lsn())$$, $$wait_for_delivery('1')$$, $$create_broker('b', 'redis://h')$$,
    $$alter_broker('nowhere', 'redis://h')$$, $$drop_broker('nowhere')$$, $$create_route('r', 'nowhere', 'list:l')$$,
    $$alter_route('hold', 'list:l')$$, $$drop_route('hold')$$, $$pause_route('hold')$$, $$resume_route('hold')$$,
    $$restart_route('hold')$$, $$redeliver()$$, $$discard()$$, $$allow('regress_eventbus_other', '#')$$,
    $$disallow('regress_eventbus_other')$$, $$capture('lab.calls')$$, $$uncapture('lab.calls')$$, $$capture_ddl()$$,
    $$uncapture_ddl()$$, $$grant_publisher('regress_eventbus_other')$$, $$revoke_publisher('regress_eventbus_other')$$,
    $$wake_workers()$$]) call;
SELECT count(set_config(name, 'off', false)) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');

DROP SCHEMA lab CASCADE;
DROP FOREIGN DATA WRAPPER lab_wrapper;
SELECT eventbus.drop_broker('nowhere', true);
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA eventbus FROM regress_eventbus_operator, regress_eventbus_other;
REVOKE ALL ON SCHEMA eventbus FROM regress_eventbus_operator, regress_eventbus_reader, regress_eventbus_other;
DROP ROLE regress_eventbus_operator, regress_eventbus_reader, regress_eventbus_other;

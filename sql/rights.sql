-- Who may do what: PUBLIC nothing, an application what it was granted, nobody more by a hostile environment.
SET client_min_messages = error;
\set SHOW_CONTEXT never
CREATE ROLE regress_eventbus_app;
CREATE ROLE regress_eventbus_operator;
CREATE ROLE regress_eventbus_monitor;
GRANT CREATE ON SCHEMA public TO regress_eventbus_app;
SELECT eventbus.create_broker('secret', 'redis://:s3cret@localhost:1');
SELECT eventbus.create_route('hold', 'secret', 'list:held');
SELECT eventbus.pause_route('hold');

-- Without a grant: nothing
SET ROLE regress_eventbus_app;
SELECT eventbus.publish('a', '1');
SELECT * FROM eventbus.event;
SELECT * FROM eventbus.status;
SELECT * FROM eventbus.health();
RESET ROLE;
SELECT c.oid::regclass AS allowed FROM pg_class c WHERE relnamespace = 'eventbus'::regnamespace
AND CASE relkind WHEN 'i' THEN false WHEN 'S' THEN has_sequence_privilege('regress_eventbus_app', c.oid, 'SELECT, USAGE, UPDATE')
    ELSE has_table_privilege('regress_eventbus_app', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER') END;
SELECT p.oid::regprocedure AS allowed FROM pg_proc p WHERE pronamespace = 'eventbus'::regnamespace
AND has_function_privilege('regress_eventbus_app', p.oid, 'EXECUTE');

-- USAGE alone: still nothing
GRANT USAGE ON SCHEMA eventbus TO regress_eventbus_app;
SET ROLE regress_eventbus_app;
SELECT eventbus.publish('a', '1');
SELECT eventbus.publish_text('a', 'x');
SELECT eventbus.publish_bytes('a', 'x');
SELECT eventbus.create_broker('b', 'redis://localhost');
SELECT eventbus.alter_broker('secret', 'redis://elsewhere');
SELECT eventbus.drop_broker('secret', true);
SELECT eventbus.create_route('r', 'secret', 'list:l');
SELECT eventbus.alter_route('hold', 'list:l');
SELECT eventbus.drop_route('hold');
SELECT eventbus.pause_route('hold');
SELECT eventbus.resume_route('hold');
SELECT eventbus.redeliver();
SELECT eventbus.discard();
SELECT * FROM eventbus.health();
SELECT * FROM eventbus.status;
SELECT * FROM eventbus.broker;
SELECT * FROM eventbus.route;
SELECT * FROM eventbus.dead_letter;
SELECT * FROM eventbus.event;
SELECT * FROM eventbus.broker_config;
SELECT * FROM eventbus.dead_letter_store;
SELECT * FROM eventbus.log_0;
SELECT * FROM eventbus.delivery_status();
SELECT eventbus.wake_workers();
SELECT eventbus.allow('regress_eventbus_app', '#');
SELECT eventbus.disallow('regress_eventbus_app');
SELECT * FROM eventbus.allowed;
SELECT * FROM eventbus.topic_grant;
RESET ROLE;

-- USAGE and EXECUTE: publishes, and cannot read or touch what it has published
SELECT eventbus.grant_publisher('regress_eventbus_app');
SET ROLE regress_eventbus_app;
BEGIN;
SELECT eventbus.publish('granted', '{"by": "app"}') AS id \gset
RESET ROLE;
SELECT topic, payload FROM eventbus.event WHERE id = :id;
SET ROLE regress_eventbus_app;
COMMIT;
SELECT eventbus.publish_text('a', 'x') > 0 AS published;
SELECT * FROM eventbus.event;
INSERT INTO eventbus.log_0 SELECT 1, '1', now(), 'forged', NULL, NULL, 'x/y', '1';
DELETE FROM eventbus.log_0;
TRUNCATE eventbus.log_0;
BEGIN;
LOCK TABLE eventbus.log_0 IN ACCESS SHARE MODE;
ROLLBACK;
SELECT nextval('eventbus.event_id');
SELECT currval('eventbus.event_id');
SELECT lastval();
SELECT last_value FROM eventbus.event_id;
SELECT last_value FROM pg_sequences WHERE schemaname = 'eventbus' AND sequencename = 'event_id';
SELECT count(*) FROM pg_stats WHERE schemaname = 'eventbus';
COPY eventbus.log_0 TO stdout;
-- nor in the places where long payloads are
SELECT reltoastrelid::regclass AS toast FROM pg_class WHERE relnamespace = 'eventbus'::regnamespace AND reltoastrelid <> 0 LIMIT 1 \gset
\set VERBOSITY sqlstate
SELECT * FROM :toast;
\set VERBOSITY default
SELECT setval('eventbus.log_generation', 17);
SELECT * FROM eventbus.cursor;
SET eventbus.max_payload = '256MB';
ALTER TABLE eventbus.log_0 SET (autovacuum_enabled = on);
CREATE TABLE eventbus.mine ();
-- through a trigger as the caller, through a function with its owner's rights as the owner
CREATE TABLE public.orders (id int);
CREATE FUNCTION public.tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM eventbus.publish('orders', to_jsonb(new)); RETURN NULL; END $$;
CREATE TRIGGER tell AFTER INSERT ON public.orders FOR EACH ROW EXECUTE FUNCTION public.tell();
INSERT INTO public.orders VALUES (1);
CREATE FUNCTION public.publish_for_others() RETURNS boolean LANGUAGE sql SECURITY DEFINER AS $$ SELECT eventbus.publish('others', '1') > 0 $$;
GRANT INSERT ON public.orders TO regress_eventbus_monitor;
SET ROLE regress_eventbus_monitor;
INSERT INTO public.orders VALUES (2);
SELECT public.publish_for_others();
RESET ROLE;

-- An operator manages brokers and routes without reading a password, or the server's files
GRANT USAGE ON SCHEMA eventbus TO regress_eventbus_operator;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA eventbus TO regress_eventbus_operator;
GRANT SELECT ON eventbus.broker, eventbus.route, eventbus.status, eventbus.dead_letter TO regress_eventbus_operator;
SET ROLE regress_eventbus_operator;
SELECT eventbus.create_broker('b', 'amqp://guest:s3cret@127.0.0.1:1');
SELECT eventbus.create_route('r', 'b', 'queue:q');
SELECT eventbus.alter_route('r', 'queue:other');
SELECT eventbus.pause_route('r');
SELECT name, url FROM eventbus.broker ORDER BY name;
SELECT name, destination FROM eventbus.route ORDER BY name;
SELECT route, broker FROM eventbus.status ORDER BY route;
SELECT eventbus.redeliver(), eventbus.discard();
SELECT count(*) FROM eventbus.dead_letter;
SELECT count(*) > 0 AS checked FROM eventbus.health();
SELECT url FROM eventbus.broker_config;
SELECT eventbus.create_broker('f', 'redis://localhost', '{"password_file": "/etc/shadow"}');
SELECT eventbus.alter_broker('b', 'amqp://guest@127.0.0.1:1', '{"password_file": "/etc/shadow"}');
SELECT eventbus.create_broker('f', 'rediss://localhost', '{"ca_file": "/etc/shadow"}');
SELECT eventbus.create_broker('f', 'rediss://localhost', '{"crl_file": "/etc/shadow"}');
SELECT eventbus.create_broker('f', 'rediss://localhost', '{"cert_file": "/etc/shadow", "key_file": "/etc/shadow"}');
RESET ROLE;
GRANT pg_read_server_files TO regress_eventbus_operator;
SET ROLE regress_eventbus_operator;
SELECT eventbus.create_broker('f', 'redis://localhost', '{"password_file": "/run/secret"}');
SELECT eventbus.drop_broker('f'), eventbus.drop_broker('b', true);
RESET ROLE;

-- A monitor sees the status
GRANT USAGE ON SCHEMA eventbus TO regress_eventbus_monitor;
GRANT SELECT ON eventbus.status, eventbus.broker TO regress_eventbus_monitor;
GRANT EXECUTE ON FUNCTION eventbus.health, eventbus.delivery_status, eventbus.redacted_url TO regress_eventbus_monitor;
SET ROLE regress_eventbus_monitor;
SELECT route, broker FROM eventbus.status;
SELECT url FROM eventbus.broker;
SELECT count(*) > 0 AS checked FROM eventbus.health();
SELECT eventbus.pause_route('hold');
-- and no password through a function of its own that costs next to nothing
CREATE FUNCTION pg_temp.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$ BEGIN RAISE WARNING 'leaked: %', $1; RETURN true; END $$;
SET client_min_messages = warning;
SELECT url FROM eventbus.broker WHERE pg_temp.leak(url);
SET client_min_messages = error;
RESET ROLE;

-- A hostile search path, with tables, functions, operators and types of familiar names
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA eventbus TO regress_eventbus_app;
SET ROLE regress_eventbus_app;
CREATE TABLE public.stolen (who text);
CREATE FUNCTION public.hijack() RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.stolen VALUES (current_user); END $$;
CREATE FUNCTION public.hijack_equal(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM public.hijack(); RETURN true; END $$;
CREATE FUNCTION public.hijack_equal(integer, integer) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM public.hijack(); RETURN true; END $$;
CREATE OPERATOR public.= (FUNCTION = public.hijack_equal, LEFTARG = text, RIGHTARG = text);
CREATE OPERATOR public.= (FUNCTION = public.hijack_equal, LEFTARG = integer, RIGHTARG = integer);
CREATE FUNCTION public.nextval(text) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN PERFORM public.hijack(); RETURN 1; END $$;
CREATE FUNCTION public.count() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN PERFORM public.hijack(); RETURN 1; END $$;
CREATE FUNCTION public.convert_to(text, text) RETURNS bytea LANGUAGE plpgsql AS $$ BEGIN PERFORM public.hijack(); RETURN ''; END $$;
CREATE FUNCTION public.pg_size_pretty(numeric) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.hijack(); RETURN 'huge'; END $$;
CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN PERFORM public.hijack(); RETURN now(); END $$;
CREATE FUNCTION public.string_agg(text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.hijack(); RETURN ''; END $$;
CREATE TEMP TABLE broker_config (id int, name text, url text, options jsonb);
CREATE TEMP TABLE route_config (id int, name text);
CREATE TEMP TABLE dead_letter_store (id int);
CREATE TEMP TABLE log_0 (id int);
CREATE TEMP TABLE pg_class (oid oid, relname name, relnamespace oid);
CREATE TEMP TABLE pg_namespace (oid oid, nspname name);
CREATE DOMAIN pg_temp.jsonb AS text;
CREATE DOMAIN pg_temp.pg_snapshot AS text;
CREATE DOMAIN pg_temp.xid8 AS text;
CREATE FUNCTION pg_temp.redacted_url(text) RETURNS text LANGUAGE sql AS 'SELECT $1';
SET search_path = pg_temp, public, pg_catalog;
SELECT eventbus.publish('hostile', '{"a": 1}'::pg_catalog.jsonb) OPERATOR(pg_catalog.>) 0 AS published;
SELECT eventbus.publish_text('hostile', 'x') OPERATOR(pg_catalog.>) 0 AS published;
SELECT eventbus.publish_bytes('hostile', 'x') OPERATOR(pg_catalog.>) 0 AS published;
SELECT eventbus.create_broker('h', 'redis:///nonexistent/h.sock');
SELECT eventbus.create_broker('h', 'redis:///nonexistent/h.sock');
SELECT eventbus.alter_broker('h', options => '{"window": 1}'::pg_catalog.jsonb);
SELECT eventbus.create_route('h', 'h', 'list:l');
SELECT eventbus.alter_route('h', topics => 'a.*');
SELECT eventbus.pause_route('h'), eventbus.resume_route('h'), eventbus.pause_route('h');
SELECT eventbus.redeliver('h'), eventbus.discard('h');
SELECT eventbus.allow('regress_eventbus_app', 'a, b'), eventbus.disallow('regress_eventbus_app', 'a'), eventbus.disallow('regress_eventbus_app');
SELECT pg_catalog.count(*) OPERATOR(pg_catalog.>) 0 AS checked FROM eventbus.health();
SELECT pg_catalog.count(*) OPERATOR(pg_catalog.>) 0 AS rows FROM eventbus.delivery_status();
SELECT eventbus.drop_broker('h');
SELECT eventbus.drop_route('h'), eventbus.drop_broker('h');
RESET search_path;
SELECT count(*) AS stolen FROM public.stolen;
SELECT (SELECT count(*) FROM pg_temp.broker_config), (SELECT count(*) FROM pg_temp.route_config), (SELECT count(*) FROM pg_temp.log_0);
RESET ROLE;
-- The views were bound when they were made, whoever reads them
SET search_path = pg_temp, public, pg_catalog;
SELECT name, url FROM eventbus.broker;
SELECT route FROM eventbus.status;
SELECT pg_catalog.count(*) OPERATOR(pg_catalog.>) 0 AS held FROM eventbus.event;
RESET search_path;
SELECT count(*) AS stolen FROM public.stolen;

SELECT eventbus.drop_broker('secret', true);
DISCARD TEMP;
DROP OWNED BY regress_eventbus_app, regress_eventbus_operator, regress_eventbus_monitor;
DROP ROLE regress_eventbus_app, regress_eventbus_operator, regress_eventbus_monitor;

-- Topic grants: what a role may publish.
SET client_min_messages = notice;
\set SHOW_CONTEXT never
CREATE ROLE regress_eventbus_app;
CREATE ROLE "regress_eventbus Team";
CREATE ROLE regress_eventbus_free;
CREATE ROLE regress_eventbus_super SUPERUSER;
SELECT count(eventbus.grant_publisher(quote_ident(rolname)::regrole)) FROM pg_roles
WHERE rolname IN ('regress_eventbus_app', 'regress_eventbus Team', 'regress_eventbus_free', 'regress_eventbus_super');
-- whether the current role may publish a topic: an id, or what the error says
CREATE FUNCTION public.try(topic text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    detail text;
    hint text;
BEGIN
    RETURN CASE WHEN eventbus.publish(topic, '1') > 0 THEN 'published' END;
EXCEPTION WHEN insufficient_privilege THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RETURN sqlerrm || ' | ' || hint;
END $$;

-- Without any, everything
SET ROLE regress_eventbus_app;
SELECT public.try('shop.order.created');
RESET ROLE;

-- With one, what it matches
SELECT eventbus.allow('regress_eventbus_app', ' shop.order.* ');
SELECT * FROM eventbus.allowed;
SET ROLE regress_eventbus_app;
SELECT topic, public.try(topic) FROM unnest('{shop.order.created,shop.order,shop.order.created.twice,billing.paid}'::text[]) AS topic;
\set VERBOSITY sqlstate
SELECT eventbus.publish('billing.paid', '1');
\set VERBOSITY default
SELECT eventbus.publish('billing.paid', '1');
SELECT eventbus.publish_text('billing.paid', 'x');
SELECT eventbus.publish_bytes('billing.paid', 'x');
SELECT eventbus.publish('not a.topic.', '1');
RESET ROLE;

-- Calls add up, and what is there already is no error; a list is several
SELECT eventbus.allow('regress_eventbus_app', 'billing.#, shop.order.*'), eventbus.allow('regress_eventbus_app', 'audit');
SELECT * FROM eventbus.allowed ORDER BY topics;
SET ROLE regress_eventbus_app;
SELECT topic, public.try(topic) FROM unnest('{shop.order.created,billing,billing.paid.twice,audit,audit.log}'::text[]) AS topic;
-- and only those who were granted it may
SELECT eventbus.allow('regress_eventbus_app', '#');
SELECT eventbus.disallow('regress_eventbus_app');
SELECT * FROM eventbus.allowed;
INSERT INTO eventbus.topic_grant VALUES ('regress_eventbus_app', '#');
DELETE FROM eventbus.topic_grant;
SELECT eventbus.topic_grants_changed();
RESET ROLE;

-- Others are not concerned, superusers never
SELECT eventbus.allow('regress_eventbus_super', 'nothing');
SET ROLE regress_eventbus_free;
SELECT public.try('whatever');
SET ROLE regress_eventbus_super;
SELECT public.try('whatever');
RESET ROLE;
ALTER ROLE regress_eventbus_super NOSUPERUSER;
SET ROLE regress_eventbus_super;
SELECT public.try('whatever');
RESET ROLE;

-- Grants of roles whose privileges it has count; what has only been granted to it for SET ROLE does not
SELECT eventbus.allow('"regress_eventbus Team"', 'team.#');
SET ROLE regress_eventbus_app;
SELECT public.try('team.event');
RESET ROLE;
GRANT "regress_eventbus Team" TO regress_eventbus_app, regress_eventbus_free;
SET ROLE regress_eventbus_app;
SELECT public.try('team.event'), public.try('audit');
SET ROLE regress_eventbus_free;
SELECT public.try('team.event'), public.try('whatever');
RESET ROLE;
ALTER ROLE regress_eventbus_free NOINHERIT;  -- from 16 on, for what is granted from now on
REVOKE "regress_eventbus Team" FROM regress_eventbus_free;
GRANT "regress_eventbus Team" TO regress_eventbus_free;
SET ROLE regress_eventbus_free;
SELECT public.try('whatever');
RESET ROLE;
REVOKE "regress_eventbus Team" FROM regress_eventbus_app;
SET ROLE regress_eventbus_app;
SELECT public.try('team.event');
RESET ROLE;

-- A function with its owner's rights publishes what its owner may, whoever calls it
CREATE FUNCTION public.as_app(topic text) RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT public.try($1)';
ALTER FUNCTION public.as_app OWNER TO regress_eventbus_app;
SELECT public.try('whatever'), public.as_app('whatever'), public.as_app('audit'), public.try('whatever');
SET ROLE regress_eventbus_super;
SELECT public.as_app('audit'), public.try('audit'), public.as_app('nothing'), public.try('nothing');
RESET ROLE;

-- Within its own transaction at once, and no longer after a rollback
BEGIN;
SAVEPOINT a;
SELECT eventbus.allow('regress_eventbus_app', 'late');
SET LOCAL ROLE regress_eventbus_app;
SELECT public.try('late');
ROLLBACK TO a;
SET LOCAL ROLE regress_eventbus_app;
SELECT public.try('late');
ROLLBACK;
SET ROLE regress_eventbus_app;
SELECT public.try('late');
RESET ROLE;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SET LOCAL ROLE regress_eventbus_app;
SELECT public.try('late');
RESET ROLE;
SELECT eventbus.allow('regress_eventbus_app', 'late');
SET LOCAL ROLE regress_eventbus_app;
SELECT public.try('late');
ROLLBACK;
-- whoever changes the table
INSERT INTO eventbus.topic_grant VALUES ('regress_eventbus_app', 'by.hand');
SET ROLE regress_eventbus_app;
SELECT public.try('by.hand');
RESET ROLE;

-- Taken back
SELECT eventbus.disallow('regress_eventbus_app', 'by.hand, billing.#');
SET ROLE regress_eventbus_app;
SELECT public.try('by.hand'), public.try('billing.paid');
RESET ROLE;
SELECT eventbus.disallow('regress_eventbus_app', 'shop.#');
SELECT eventbus.disallow('regress_eventbus_app', 'audit, shop.#');
SELECT eventbus.disallow('regress_eventbus_free');
SELECT eventbus.disallow('regress_eventbus_free', 'a');
SELECT eventbus.disallow('regress_eventbus_super', 'nothing');
SET ROLE regress_eventbus_super;
SELECT public.try('whatever');
RESET ROLE;
SELECT eventbus.disallow('regress_eventbus_app');
SET ROLE regress_eventbus_app;
SELECT public.try('whatever');
RESET ROLE;

-- Errors
SELECT eventbus.allow('regress_eventbus_app', 'a..b');
SELECT eventbus.allow('regress_eventbus_app', 'fine, a+b');
SELECT eventbus.allow('regress_eventbus_app', '');
SELECT eventbus.allow('regress_eventbus_app', repeat('a', 256));
SELECT eventbus.allow('regress_eventbus_app', NULL);
SELECT eventbus.allow(NULL, 'a');
SELECT eventbus.allow('regress_eventbus_nobody', 'a');
SELECT eventbus.allow('1', 'a');
SELECT eventbus.allow('-', 'a');
SELECT eventbus.disallow(NULL);
SELECT eventbus.disallow('regress_eventbus_app', 'a..b');
SELECT * FROM eventbus.allowed;

-- A role that goes leaves nothing that binds, shows, or is dumped
SELECT eventbus.revoke_publisher('"regress_eventbus Team"');
DROP ROLE "regress_eventbus Team";
SELECT * FROM eventbus.allowed;
SELECT topics FROM eventbus.topic_grant;
SET ROLE regress_eventbus_free;
SELECT public.try('whatever');
RESET ROLE;
TRUNCATE eventbus.topic_grant;

DROP FUNCTION public.try, public.as_app;
SELECT count(eventbus.revoke_publisher(quote_ident(rolname)::regrole)) FROM pg_roles
WHERE rolname IN ('regress_eventbus_app', 'regress_eventbus_free', 'regress_eventbus_super');
DROP ROLE regress_eventbus_app, regress_eventbus_free, regress_eventbus_super;

-- Captured tables: their owner decides, their writers need no rights of ours, and get none.
SET client_min_messages = error;  -- whether pg_eventbus is preloaded or not
\set SHOW_CONTEXT never
SELECT eventbus.create_broker('nowhere', 'redis:///nonexistent/redis.sock');
SELECT eventbus.create_route('hold', 'nowhere', 'list:held');
SELECT eventbus.pause_route('hold');
SELECT coalesce(max(id), 0) AS before FROM eventbus.event \gset
CREATE ROLE regress_eventbus_owner;
CREATE ROLE regress_eventbus_writer;
CREATE ROLE regress_eventbus_other;
CREATE SCHEMA shop AUTHORIZATION regress_eventbus_owner;
SET ROLE regress_eventbus_owner;
CREATE TABLE shop.item (id integer PRIMARY KEY, name text);
GRANT USAGE ON SCHEMA shop TO PUBLIC;
GRANT SELECT, INSERT, UPDATE, TRIGGER ON shop.item TO regress_eventbus_writer;
-- owning a table is not enough: the function has to be granted, and it alone
SELECT eventbus.capture('shop.item');
CREATE TRIGGER by_hand AFTER INSERT ON shop.item FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change('a');
RESET ROLE;
GRANT USAGE ON SCHEMA eventbus TO regress_eventbus_owner, regress_eventbus_other;
GRANT EXECUTE ON FUNCTION eventbus.capture, eventbus.uncapture TO regress_eventbus_owner, regress_eventbus_other;
SET ROLE regress_eventbus_owner;
CREATE TRIGGER by_hand AFTER INSERT ON shop.item FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change('a');
SELECT eventbus.capture('shop.item');
-- and having the function is not enough: the table has to be one's own
SET ROLE regress_eventbus_other;
SELECT eventbus.capture('shop.item');
SELECT eventbus.uncapture('shop.item');
-- a writer publishes through it, as himself, and by nothing else
SET ROLE regress_eventbus_writer;
INSERT INTO shop.item VALUES (1, 'one');
UPDATE shop.item SET name = 'two' WHERE id = 1;
SELECT eventbus.publish('a', '1');
CREATE TRIGGER by_hand AFTER INSERT ON shop.item FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change('a');
ALTER TABLE shop.item RENAME name TO title;
-- also where the schema is open to him, and where the table is his own
RESET ROLE;
GRANT USAGE ON SCHEMA eventbus TO regress_eventbus_writer;
SET ROLE regress_eventbus_writer;
SELECT eventbus.publish_change();
SELECT eventbus.capture('shop.item');
CREATE TEMP TABLE own (id integer);
CREATE TRIGGER by_hand AFTER INSERT ON own FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change('a');
SELECT eventbus.capture('own');
CREATE TEMP TABLE like_it (LIKE shop.item INCLUDING ALL);
INSERT INTO like_it VALUES (9, 'quiet');
DROP TABLE own, like_it;
RESET ROLE;
REVOKE USAGE ON SCHEMA eventbus FROM regress_eventbus_writer;
SET ROLE regress_eventbus_owner;
ALTER TABLE shop.item RENAME name TO title;
RESET ROLE;
SELECT topic, key, headers ->> 'pg-user' AS "user" FROM eventbus.event WHERE id > :before ORDER BY id;
-- nor does he need a right where he has topic grants that say otherwise
SELECT eventbus.allow('regress_eventbus_writer', 'nothing.of.this');
SET ROLE regress_eventbus_writer;
INSERT INTO shop.item VALUES (2, 'two');
-- but who may publish some topics only captures under those
RESET ROLE;
SELECT eventbus.allow('regress_eventbus_owner', 'shop.item.*');
SET ROLE regress_eventbus_owner;
SELECT eventbus.capture('shop.item', topic => 'elsewhere.{op}');
SELECT eventbus.capture('shop.item', topic => 'shop.item.{op}');
-- somebody's search_path and functions do not get in between
SET ROLE regress_eventbus_owner;
CREATE FUNCTION shop.publish_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
SET search_path = shop, eventbus, pg_catalog;
SELECT eventbus.capture('item', condition => 'NEW.id > 0');
INSERT INTO item VALUES (3, 'three');
RESET search_path;
-- nor does what reading a condition runs have other rights than the caller's
CREATE FUNCTION shop.me() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF current_user <> 'regress_eventbus_owner' THEN RAISE 'trapped %', current_user; END IF;
    RAISE NOTICE 'run by %', current_user;
    RETURN true;
END $$;
CREATE DOMAIN shop.mine AS integer CHECK (shop.me());
SET client_min_messages = notice;
SELECT eventbus.capture('shop.item', condition => 'NEW.id = ANY (''{1}''::shop.mine[])');
SET client_min_messages = error;
SELECT eventbus.capture('shop.item');
DROP DOMAIN shop.mine;
DROP FUNCTION shop.me();
RESET ROLE;
SELECT topic, key, headers ->> 'pg-user' AS "user" FROM eventbus.event WHERE id > :before ORDER BY id;
DROP SCHEMA shop CASCADE;
SELECT eventbus.disallow('regress_eventbus_writer');
SELECT eventbus.disallow('regress_eventbus_owner');
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA eventbus FROM regress_eventbus_owner, regress_eventbus_other;
REVOKE ALL ON SCHEMA eventbus FROM regress_eventbus_owner, regress_eventbus_other;
DROP ROLE regress_eventbus_owner, regress_eventbus_writer, regress_eventbus_other;
SELECT eventbus.drop_broker('nowhere', cascade => true);

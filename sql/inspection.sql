-- test_broker, test_route: what they refuse, and what they say where nothing listens. Real brokers are in test/live.
SET client_min_messages = warning;
\pset null (null)
SELECT eventbus.create_broker('queues', 'amqp://app:s3cret@127.0.0.1:1/v'), eventbus.create_broker('cache', 'redis://127.0.0.1:1,127.0.0.1:2'),
       eventbus.create_broker('devices', 'mqtt://127.0.0.1:1');
SELECT eventbus.create_route('r', 'queues', 'queue:{topic}');
SELECT * FROM eventbus.test_broker('queues');
SELECT step, ok, detail FROM eventbus.test_broker(name => 'cache');
SELECT step, ok, detail FROM eventbus.test_broker('devices');
SELECT step, ok, detail FROM eventbus.test_route('r');
SELECT b.name, t.step FROM eventbus.broker b, eventbus.test_broker(b.name) t ORDER BY 1, 2;

SELECT * FROM eventbus.test_broker(NULL);
SELECT * FROM eventbus.test_broker('nobody');
SELECT * FROM eventbus.test_route('nobody');
-- in read-only transactions, and of a broker that its own transaction has made
BEGIN READ ONLY;
SELECT step, ok FROM eventbus.test_route('r');
COMMIT;
BEGIN;
SELECT eventbus.create_broker('new', 'redis://app@127.0.0.1:1', '{"password_file": "/nowhere/at/all"}');
SELECT * FROM eventbus.test_broker('new');
ROLLBACK;
-- rows that were written by hand
BEGIN;
UPDATE eventbus.route_config SET destination = 'nonsense';
SELECT * FROM eventbus.test_route('r');
UPDATE eventbus.broker_config SET url = 'kafka://h' WHERE name = 'queues';
SELECT step, ok, detail FROM eventbus.test_broker('queues');
ROLLBACK;
-- nobody makes somebody else call it
CREATE FUNCTION ask(i integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM eventbus.test_broker(''queues''); RETURN i; END';
CREATE TABLE asked AS SELECT 1 AS i;
\set SHOW_CONTEXT never
CREATE INDEX ON asked (ask(i));
DROP TABLE asked;
DROP FUNCTION ask;
-- nothing is delivered from here, whatever it says
SET client_min_messages = notice;
SET eventbus.delivery = off;
SELECT step, ok FROM eventbus.test_broker('queues');
RESET eventbus.delivery;
BEGIN;
UPDATE eventbus.broker_config SET home = 'elsewhere';
SELECT step, ok FROM eventbus.test_broker('queues');
ROLLBACK;
SET client_min_messages = warning;
SELECT eventbus.drop_broker('queues', true), eventbus.drop_broker('cache'), eventbus.drop_broker('devices');

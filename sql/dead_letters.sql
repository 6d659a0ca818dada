-- The dead letters' view, redeliver and discard: arguments, counts, rollback. (How events get there: test/live.)
SET client_min_messages = error;
\set SHOW_CONTEXT never
SELECT * FROM eventbus.dead_letter;
SELECT eventbus.redeliver(), eventbus.discard();
SELECT eventbus.redeliver(NULL, NULL), eventbus.redeliver(NULL, 17), eventbus.discard(event_id => 17);
SELECT eventbus.redeliver('nobody');
SELECT eventbus.discard('nobody');
SELECT eventbus.redeliver('nobody', 17);
SELECT eventbus.redeliver('');

SELECT eventbus.create_broker('nowhere', 'redis:///nonexistent/redis.sock');
SELECT eventbus.create_route('one', 'nowhere', 'list:one');
SELECT eventbus.create_route('two', 'nowhere', 'list:two');
SELECT eventbus.pause_route('one'), eventbus.pause_route('two');
SELECT eventbus.redeliver('nobody');
SELECT eventbus.redeliver('one'), eventbus.redeliver('two', 17), eventbus.discard('one', -1);

-- What a sender would have stored
INSERT INTO eventbus.dead_letter_store (route_id, event_id, topic, key, headers, content_type, payload_text, payload_bytes, published_at, error, attempts, failed_at)
SELECT r.id, e.id, 'shop.order', e.key, e.headers, 'x/y', e.text, e.bytes, '2026-01-01 00:00Z', 'NO_ROUTE', 3, '2026-01-01 00:01Z'
FROM eventbus.route_config r,
     (VALUES (101, 'k', '{"h": 1}'::jsonb, 'text', NULL::bytea), (102, NULL, NULL, '{"a": 1}', NULL), (103, '', '{}', NULL, '\x00ff'), (104, NULL, NULL, '', NULL)) AS e(id, key, headers, text, bytes)
WHERE r.name = 'one' OR e.id = 101;
SET timezone = 'UTC';
SELECT * FROM eventbus.dead_letter ORDER BY event_id, route;
SELECT level, detail, hint FROM eventbus.health() WHERE name = 'dead letters';

-- Put back: no longer among the dead; not twice; counted until it is delivered, and discarded where it was a mistake
BEGIN;
SELECT eventbus.redeliver('one', 102);
SELECT eventbus.redeliver('one', 102);
SELECT event_id, route FROM eventbus.dead_letter ORDER BY event_id, route;
SELECT level, detail, hint FROM eventbus.health() WHERE name = 'dead letters';
SELECT eventbus.discard('one', 102);
SELECT eventbus.redeliver(event_id => 101);
SELECT eventbus.redeliver('one');
SELECT eventbus.redeliver();
SELECT count(*) FROM eventbus.dead_letter;
SELECT level, detail, hint FROM eventbus.health() WHERE name = 'dead letters';
ROLLBACK;
SELECT count(*) FROM eventbus.dead_letter;

-- What is incomplete is not sent again
BEGIN;
SELECT eventbus.discard('two');
DELETE FROM eventbus.dead_letter_store WHERE event_id <> 101;
UPDATE eventbus.dead_letter_store SET incomplete = true;
SET LOCAL client_min_messages = notice;
SELECT level, detail, hint FROM eventbus.health() WHERE name = 'dead letters';
SELECT eventbus.redeliver();
ROLLBACK;

-- Headers that are no jsonb are text: such a one is whole
BEGIN;
INSERT INTO eventbus.dead_letter_store (route_id, event_id, topic, headers_text, content_type, payload_text, published_at, error, attempts, failed_at)
SELECT id, 105, 'shop.order', '{"a": "\u0000"}', 'x/y', 'text', '2026-01-01 00:00Z', 'NO_ROUTE', 3, '2026-01-01 00:01Z' FROM eventbus.route_config WHERE name = 'one';
SELECT event_id, headers, headers_text, incomplete FROM eventbus.dead_letter WHERE event_id = 105;
SELECT eventbus.redeliver('one', 105), eventbus.discard('one', 105);
ROLLBACK;

-- Discarded
SELECT eventbus.discard('two', 102);
SELECT eventbus.discard('one', 102);
SELECT eventbus.discard(event_id => 101);
SELECT event_id, route FROM eventbus.dead_letter ORDER BY event_id, route;
BEGIN;
SELECT eventbus.discard();
ROLLBACK;
SELECT eventbus.discard('one');
SELECT count(*) FROM eventbus.dead_letter;

-- Gone with their route
INSERT INTO eventbus.dead_letter_store (route_id, event_id, topic, content_type, payload_text, published_at, error, attempts, failed_at)
SELECT id, 1, 't', 'x/y', 'p', now(), 'e', 1, now() FROM eventbus.route_config;
SELECT eventbus.drop_route('one');
SELECT event_id, route FROM eventbus.dead_letter;
SELECT eventbus.drop_broker('nowhere', true);
SELECT count(*) FROM eventbus.dead_letter_store;

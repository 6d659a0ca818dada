-- The dead letters' view, redeliver and discard: arguments, counts, rollback. (How events get there: test/live.)
SET client_min_messages = error;
\set SHOW_CONTEXT never
SELECT * FROM eventbus.dead_letter;
SELECT eventbus.redeliver(), eventbus.discard();
SELECT eventbus.redeliver(NULL), eventbus.redeliver(NULL, 17), eventbus.discard(event_id => 17);
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
INSERT INTO eventbus.dead_letter_store (route_id, number, topic, key, headers, content_type, payload_text, payload_bytes, published_at, error, attempts, failed_at)
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
DELETE FROM eventbus.dead_letter_store WHERE number <> 101;
UPDATE eventbus.dead_letter_store SET incomplete = true;
SET LOCAL client_min_messages = notice;
SELECT level, detail, hint FROM eventbus.health() WHERE name = 'dead letters';
SELECT eventbus.redeliver();
ROLLBACK;

-- Headers that are no jsonb are text: such a one is whole
BEGIN;
INSERT INTO eventbus.dead_letter_store (route_id, number, topic, headers_text, content_type, payload_text, published_at, error, attempts, failed_at)
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
INSERT INTO eventbus.dead_letter_store (route_id, number, topic, content_type, payload_text, published_at, error, attempts, failed_at)
SELECT id, 1, 't', 'x/y', 'p', now(), 'e', 1, now() FROM eventbus.route_config;
SELECT eventbus.drop_route('one');
SELECT event_id, route FROM eventbus.dead_letter;
SELECT eventbus.drop_broker('nowhere', true);
SELECT count(*) FROM eventbus.dead_letter_store;

-- By the id that messages carry: of the log and of the WAL, as a text, a number, and in whichever form
SELECT eventbus.create_broker('nowhere', 'redis:///nonexistent/redis.sock');
SELECT eventbus.create_route('one', 'nowhere', 'list:one');
SELECT eventbus.create_route('two', 'nowhere', 'list:two');
SELECT eventbus.pause_route('one'), eventbus.pause_route('two');
INSERT INTO eventbus.dead_letter_store (route_id, lsn, number, topic, content_type, payload_text, published_at, error, attempts, failed_at)
SELECT r.id, i.lsn, i.number, 't', 'x/y', 'p', now(), 'e', 1, now()
FROM eventbus.route_config r, (VALUES ('0/0'::pg_lsn, 17::bigint), ('0/0', 9), ('0/0', 100), ('0/16B3748', 3), ('0/16B3748', 17), ('ABC/DEF', 9223372036854775807)) i (lsn, number)
WHERE r.name = 'one' OR i.number = 17;
SELECT event_id, id, message_id, route FROM eventbus.dead_letter ORDER BY event_id, id, route;
CREATE FUNCTION left_after(call text) RETURNS TABLE (count bigint, "left" text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'SELECT eventbus.' || call INTO count;
    SELECT string_agg(route || ' ' || id, ', ' ORDER BY route, event_id, id) INTO "left" FROM eventbus.dead_letter;
    RAISE EXCEPTION USING ERRCODE = 'Z0001';
EXCEPTION WHEN sqlstate 'Z0001' THEN RETURN NEXT;
END $$;
SELECT call, l.count, l.left FROM unnest(ARRAY[
    $$discard('one', 17)$$, $$discard('one', '17')$$, $$discard('one', ' +17 ')$$, $$discard('one', 17::smallint)$$,
    $$discard('one', '17'::text)$$, $$discard('one', '17'::varchar)$$, $$discard('one', '0/16B3748-3')$$, $$discard('one', '0/16b3748-3')$$,
    $$discard('one', '0/16B3748-4')$$, $$discard('one', 18)$$, $$discard('one', '18')$$, $$discard('one', 'ABC/DEF-9223372036854775807')$$,
    $$discard(NULL, '17')$$, $$discard(NULL, '0/16B3748-17')$$, $$discard(id => '17', route => 'one')$$, $$discard(event_id => '17')$$,
    $$discard('one')$$, $$discard()$$, $$discard(NULL)$$, $$redeliver('one', '0/16B3748-17')$$, $$redeliver('one', 17)$$,
    $$redeliver('one', '17')$$, $$redeliver('one')$$, $$redeliver()$$, $$redeliver(route => 'one', id => 'ABC/DEF-1')$$]) call,
    left_after(call) l;
-- NULL names none and does not mean all: column event_id is NULL for events from the WAL
SELECT eventbus.discard(route, event_id) FROM eventbus.dead_letter WHERE id LIKE '%/%';
SELECT eventbus.discard('one', (SELECT event_id FROM eventbus.dead_letter WHERE false));
SELECT eventbus.redeliver('one', NULL::bigint);
SELECT eventbus.redeliver(event_id => NULL);
SELECT eventbus.discard('one', NULL);
SELECT count(*) FROM eventbus.dead_letter;
SELECT eventbus.discard(route, id) FROM eventbus.dead_letter WHERE route = 'two' ORDER BY id;
PREPARE by_number (text, bigint) AS SELECT eventbus.redeliver($1, $2);
PREPARE by_integer (text, integer) AS SELECT eventbus.redeliver($1, $2);
PREPARE by_text (text, text) AS SELECT eventbus.redeliver($1, $2);
PREPARE by_anything AS SELECT eventbus.redeliver($1, $2);
SELECT parameter_types FROM pg_prepared_statements WHERE name = 'by_anything';
EXECUTE by_number ('one', 17);
EXECUTE by_number ('one', 17);
EXECUTE by_integer ('one', 9);
EXECUTE by_text ('one', '0/16B3748-3');
EXECUTE by_text ('one', '0/16B3748-3');
EXECUTE by_anything ('one', 'ABC/DEF-9223372036854775807');
EXECUTE by_anything ('one', 100);
DEALLOCATE ALL;
\set VERBOSITY sqlstate
SELECT eventbus.redeliver('one', 'order-17');
\set VERBOSITY default
SELECT eventbus.redeliver('one', 'order-17');
SELECT eventbus.redeliver('one', '');
SELECT eventbus.discard('one', '0/16B3748');
SELECT eventbus.discard('one', '0/0-17');
SELECT eventbus.discard('one', '17, 18');
SELECT eventbus.discard('one', 1.5);
SELECT eventbus.discard(17);
SELECT eventbus.discard('nobody', '17');
SELECT count(*) FROM eventbus.dead_letter_store;
DROP FUNCTION left_after;
SELECT eventbus.drop_broker('nowhere', true);

-- create_route, alter_route, drop_route, pause_route, resume_route: destinations, templates, options.
SET client_min_messages = error;
\set SHOW_CONTEXT never
SELECT eventbus.create_broker('cache', 'redis:///nonexistent/redis.sock');
SELECT eventbus.create_broker('queues', 'amqp://guest@127.0.0.1:1');
CREATE FUNCTION refused(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'taken';
EXCEPTION WHEN others THEN
    RETURN sqlstate;
END $$;
CREATE VIEW routes AS SELECT name, broker, destination, topics, options, paused FROM eventbus.route ORDER BY name COLLATE "C";

-- Destinations of each protocol
SELECT eventbus.create_route('channel', 'cache', 'channel:news');
SELECT eventbus.create_route('topic', 'cache', 'topic:news.{topic}');
SELECT eventbus.create_route('stream', 'cache', 'stream:s', 'shop.#', '{"maxlen": 1000}');
SELECT eventbus.create_route('list', 'cache', 'list:{key}:{header:tenant}', 'a, b.*, #.c', '{"order": "strict"}');
SELECT eventbus.create_route('colon', 'cache', 'list:a:b:c');
SELECT eventbus.create_route('braces', 'cache', 'stream:{{slot}}.{topic}');
SELECT eventbus.create_route('exchange', 'queues', 'exchange:shop', options => '{"routing_key": "{key}", "persistent": false}');
SELECT eventbus.create_route('queue', 'queues', 'queue:{topic/}', options => '{"max_attempts": 5, "max_age": "1 h", "start": "earliest"}');
SELECT eventbus.create_route(destination => 'queue:q', broker => 'queues', name => 'by name', topics => '#', options => '{"max_age": 1.5, "start": "now", "order": "key"}');
SELECT * FROM routes;
SELECT created_at <= now() AS created FROM eventbus.route WHERE name = 'queue';
SELECT route, broker, delivered, dead, retries, in_flight, last_delivered_at FROM eventbus.status ORDER BY route COLLATE "C";

-- NULL, names, brokers
SELECT eventbus.create_route(NULL, 'cache', 'list:l');
SELECT eventbus.create_route('r', NULL, 'list:l');
SELECT eventbus.create_route('r', 'cache', NULL);
SELECT eventbus.create_route('r', 'cache', 'list:l', NULL);
SELECT eventbus.create_route('', 'cache', 'list:l');
SELECT eventbus.create_route(repeat('n', 64), 'cache', 'list:l');
SELECT eventbus.create_route(E'\t', 'cache', 'list:l');
SELECT eventbus.create_route('r', 'nobody', 'list:l');
SELECT eventbus.create_route('list', 'cache', 'list:l');
SELECT eventbus.create_route('list', 'queues', 'queue:q');

-- Destinations that are none
SELECT eventbus.create_route('r', 'cache', '');
SELECT eventbus.create_route('r', 'cache', 'list');
SELECT eventbus.create_route('r', 'cache', 'list:');
SELECT eventbus.create_route('r', 'cache', ':l');
SELECT eventbus.create_route('r', 'cache', 'List:l');
SELECT eventbus.create_route('r', 'cache', '{header:kind}');
-- of another protocol
SELECT eventbus.create_route('r', 'cache', 'queue:q');
SELECT eventbus.create_route('r', 'cache', 'exchange:x');
SELECT eventbus.create_route('r', 'queues', 'stream:s');
SELECT eventbus.create_route('r', 'queues', 'channel:c');
-- with placeholders that do not exist
SELECT eventbus.create_route('r', 'cache', 'list:{id}');
SELECT eventbus.create_route('r', 'cache', 'list:{Topic}');
SELECT eventbus.create_route('r', 'cache', 'list:{header}');
SELECT eventbus.create_route('r', 'cache', 'list:{header:}');
SELECT eventbus.create_route('r', 'cache', 'list:{}');
SELECT eventbus.create_route('r', 'cache', 'list:{key');
SELECT eventbus.create_route('r', 'cache', 'list:key}');
SELECT eventbus.create_route('r', 'cache', 'list:{a{key}}');
SELECT eventbus.create_route('r', 'queues', 'exchange:x', options => '{"routing_key": "{no}"}');
-- too long for AMQP
SELECT refused($$SELECT eventbus.create_route('r', 'queues', 'queue:' || repeat('q', 256))$$);
SELECT refused($$SELECT eventbus.create_route('r2', 'queues', 'exchange:' || repeat('x', 256))$$);
SELECT refused($$SELECT eventbus.create_route('r3', 'queues', 'exchange:x', options => jsonb_build_object('routing_key', repeat('k', 256)))$$);
SELECT refused($$SELECT eventbus.create_route('r4', 'queues', 'queue:{key}' || repeat('q', 256))$$);
SELECT refused($$SELECT eventbus.create_route('r5', 'queues', 'exchange:x', options => jsonb_build_object('routing_key', '{key}' || repeat('k', 256)))$$);
-- with what no MQTT topic may have
BEGIN;
SELECT eventbus.create_broker('sensors', 'mqtt://127.0.0.1:1');
SELECT refused($$SELECT eventbus.create_route('r', 'sensors', 'topic:shop/#')$$);
SELECT eventbus.create_route('plus', 'cache', 'topic:shop/+/x');
SELECT eventbus.create_route('good', 'sensors', 'topic:shop/{topic/}');
SELECT refused($$SELECT eventbus.alter_route('good', 'topic:{key}/+')$$);
SELECT refused($$SELECT eventbus.create_route('r', 'sensors', E'topic:shop/\n')$$);
SELECT refused($$SELECT eventbus.create_route('r', 'sensors', E'topic:{key}\u0085')$$);
SELECT refused($$SELECT eventbus.create_route('r', 'sensors', 'topic:shop', E'shop.a\u0085')$$);
SELECT refused($$SELECT eventbus.create_broker('r', 'mqtt://127.0.0.1:1', '{"client_id": "a\nb"}')$$);
SELECT refused($$SELECT eventbus.create_broker('r', 'mqtt://a%C2%85@127.0.0.1:1')$$);
SELECT eventbus.create_route('newline', 'cache', E'topic:shop\n');
SELECT eventbus.create_route('r', 'sensors', 'topic:shop/+/x', 'shop.#');
ROLLBACK;

-- Topic patterns
SELECT count(eventbus.create_route('p' || n, 'cache', 'list:l', p))
FROM unnest(ARRAY['#', '*', 'a', 'a.b', 'a.*.b', '#.a', 'a.#', 'a.#.b', '*.#', '#.#', 'a,b', ' a , b.# ', 'a-b_c:d/e', repeat('a', 255)]) WITH ORDINALITY AS t(p, n);
SELECT count(eventbus.drop_route(name)) FROM eventbus.route WHERE name ~ '^p[0-9]+$';
SELECT eventbus.create_route('r', 'cache', 'list:l', '');
SELECT eventbus.create_route('r', 'cache', 'list:l', ' ');
SELECT eventbus.create_route('r', 'cache', 'list:l', ',');
SELECT eventbus.create_route('r', 'cache', 'list:l', 'a,');
SELECT eventbus.create_route('r', 'cache', 'list:l', 'a,,b');
SELECT eventbus.create_route('r', 'cache', 'list:l', '.');
SELECT eventbus.create_route('r', 'cache', 'list:l', 'a..b');
SELECT eventbus.create_route('r', 'cache', 'list:l', 'a.');
SELECT eventbus.create_route('r', 'cache', 'list:l', 'shop.ord*');
SELECT eventbus.create_route('r', 'cache', 'list:l', 'shop.#x');
SELECT eventbus.create_route('r', 'cache', 'list:l', '**');
SELECT eventbus.create_route('r', 'cache', 'list:l', 'good, bad.**');
SELECT eventbus.create_route('r', 'cache', 'list:l', 'shop/+/created');
SELECT eventbus.create_route('r', 'cache', 'list:l', E'a\x01b');
SELECT eventbus.create_route('r', 'cache', 'list:l', repeat('a', 256));

-- What alter_route does not read is told, unless it is there already
SET client_min_messages = notice;
SELECT eventbus.alter_route('colon', options => '{"start": "earliest"}');
SELECT eventbus.alter_route('queue', options => '{"start": "earliest", "max_attempts": 6}');
SELECT eventbus.alter_route('colon', options => '{}');
SELECT eventbus.alter_route('queue', options => '{"max_age": null, "start": "earliest"}');
SELECT eventbus.alter_route('queue', options => '{"max_attempts": 5, "max_age": "1 h", "start": "earliest"}');
SET client_min_messages = error;

-- Options: unknown, of another protocol or another kind of destination, with wrong values
SELECT eventbus.create_route('r', 'cache', 'list:l', options => '[]');
SELECT eventbus.create_route('r', 'cache', 'list:l', options => '"x"');
SELECT eventbus.create_route('r', 'cache', 'list:l', options => '{"ordering": "key"}');
SELECT eventbus.create_route('r', 'queues', 'queue:q', options => '{"ordering": "key"}');
SELECT eventbus.create_route('r', 'cache', 'list:l', options => '{"": 1}');
SELECT eventbus.create_route('r', 'cache', 'list:l', options => '{"routing_key": "k"}');
SELECT eventbus.create_route('r', 'cache', 'list:l', options => '{"persistent": true}');
SELECT eventbus.create_route('r', 'cache', 'list:l', options => '{"qos": 1}');
SELECT eventbus.create_route('r', 'queues', 'queue:q', options => '{"maxlen": 10}');
SELECT eventbus.create_route('r', 'queues', 'queue:q', options => '{"retain": true}');
SELECT eventbus.create_route('r', 'cache', 'list:l', options => '{"maxlen": 10}');
SELECT eventbus.create_route('r', 'queues', 'queue:q', options => '{"routing_key": "k"}');
SELECT eventbus.create_route('r', 'cache', 'list:l', options => '{"order": "none"}');
SELECT eventbus.create_route('r', 'cache', 'list:l', options => '{"order": true}');
SELECT eventbus.create_route('r', 'cache', 'list:l', options => '{"start": "yesterday"}');
SELECT eventbus.create_route('r', 'cache', 'list:l', options => '{"start": 0}');
SELECT eventbus.create_route('r', 'cache', 'list:l', options => '{"max_attempts": 0}');
SELECT eventbus.create_route('r', 'cache', 'list:l', options => '{"max_attempts": -1}');
SELECT eventbus.create_route('r', 'cache', 'list:l', options => '{"max_attempts": "5"}');
SELECT eventbus.create_route('r', 'cache', 'list:l', options => '{"max_attempts": 1.5}');
SELECT eventbus.create_route('r', 'cache', 'list:l', options => '{"max_attempts": 2147483648}');
SELECT eventbus.create_route('r', 'cache', 'list:l', options => '{"max_age": 0}');
SELECT eventbus.create_route('r', 'cache', 'list:l', options => '{"max_age": "5 fortnights"}');
SELECT eventbus.create_route('r', 'cache', 'list:l', options => '{"max_age": ""}');
SELECT eventbus.create_route('r', 'cache', 'list:l', options => '{"max_age": "-5 s"}');
SELECT eventbus.create_route('r', 'cache', 'list:l', options => '{"max_age": [5]}');
SELECT eventbus.create_route('r', 'cache', 'stream:s', options => '{"maxlen": -1}');
SELECT eventbus.create_route('r', 'cache', 'stream:s', options => '{"maxlen": "many"}');
SELECT eventbus.create_route('r', 'queues', 'queue:q', options => '{"persistent": "yes"}');
SELECT eventbus.create_route('r', 'queues', 'exchange:x', options => '{"routing_key": 5}');
SELECT count(*) FROM eventbus.route WHERE name = 'r';

-- Changes: what is not given stays
SELECT eventbus.alter_route('stream', 'stream:other');
SELECT eventbus.alter_route('stream', topics => 'shop.*');
SELECT * FROM routes WHERE name = 'stream';
SELECT eventbus.alter_route('stream', options => '{}');
SELECT eventbus.alter_route('stream', destination => 'list:l', topics => 'a', options => '{"max_attempts": 1}');
SELECT eventbus.alter_route('stream', destination => 'list:l', topics => 'a', options => '{"max_attempts": 1, "maxlen": null}');
SELECT * FROM routes WHERE name = 'stream';
SELECT eventbus.alter_route('stream');
SELECT eventbus.alter_route(NULL, 'list:l');
SELECT eventbus.alter_route('nobody', 'list:l');
SELECT eventbus.alter_route('stream', 'queue:q');
SELECT eventbus.alter_route('stream', 'list:{no}');
SELECT eventbus.alter_route('stream', topics => 'a..b');

-- What was meant for another argument
SELECT eventbus.create_route('odd', 'queues', 'queue:q', '{"persistent": false}');
SELECT eventbus.create_route('odd', 'queues', 'queue:q', '  {topic}');
SELECT eventbus.create_route('odd', 'queues', 'queue:q', '{}');
SELECT eventbus.create_route('odd', 'queues', 'queue:q', '"shop.order"');
SELECT eventbus.create_route('odd', 'queues', 'queue:q', 'shop.order; shop.#');
SELECT eventbus.alter_route('stream', topics => '{"maxlen": 10}');
BEGIN;
SET LOCAL client_min_messages = notice;
SELECT eventbus.create_route('odd', 'queues', 'queue:q', 'shop/order, public.Order Items.insert, a.b');
SELECT eventbus.alter_route('odd', topics => 'shop/order.*');
SELECT eventbus.alter_route('odd', topics => 'shop.%');
SELECT eventbus.allow('pg_monitor', 'shop order, a%'), eventbus.disallow('pg_monitor');
SELECT eventbus.alter_route('odd', options => '{"order": "strict"}');
ROLLBACK;
SELECT eventbus.create_route('odd', 'amqp://u:secret@broker', 'queue:q');
SELECT eventbus.allow('pg_monitor', '{"a"}');
SELECT eventbus.alter_route('stream', options => '{"no": 1}');
SELECT eventbus.alter_route('stream', options => '{"no": null}');
SELECT eventbus.alter_route('stream', options => '{"qos": null}');
SELECT eventbus.alter_route('stream', options => '{"tables": null, "order": "strict", "max_age": "1 hour 30 min"}');
SELECT * FROM routes WHERE name = 'stream';
SELECT eventbus.alter_route('stream', options => '{"max_attempts": 1}', replace => true);
SELECT eventbus.alter_route('stream', replace => true);
SELECT * FROM routes WHERE name = 'stream';
SELECT eventbus.alter_route('stream', options => '[]');
SELECT eventbus.alter_route('stream', options => '{"maxlen": 10}');
SELECT * FROM routes WHERE name = 'stream';

-- Pause and resume, twice as well as once
SELECT eventbus.pause_route('stream');
SELECT eventbus.pause_route('stream');
SELECT name, paused FROM routes WHERE name IN ('stream', 'list');
SELECT eventbus.resume_route('stream');
SELECT eventbus.resume_route('stream');
SELECT name, paused FROM routes WHERE name IN ('stream', 'list');
SELECT eventbus.pause_route(NULL);
SELECT eventbus.pause_route('nobody');
SELECT eventbus.pause_route('');
SELECT eventbus.resume_route(NULL);
SELECT eventbus.resume_route('nobody');

-- Drops, rollbacks, names that are used again
BEGIN;
SELECT eventbus.drop_route('stream');
SELECT count(*) FROM eventbus.route WHERE name = 'stream';
ROLLBACK;
SELECT count(*) FROM eventbus.route WHERE name = 'stream';
SELECT eventbus.drop_route('stream');
SELECT eventbus.drop_route('stream');
SELECT eventbus.drop_route(NULL);
SELECT eventbus.create_route('stream', 'queues', 'queue:q');
BEGIN;
SELECT eventbus.create_route('rolled back', 'queues', 'queue:q');
SELECT route, broker FROM eventbus.status WHERE route = 'rolled back';
ROLLBACK;
SELECT name FROM routes;
SELECT count(eventbus.drop_route(name)) FROM eventbus.route;
SELECT eventbus.drop_route('stream');
SELECT count(*) FROM eventbus.status;
SELECT eventbus.drop_broker('cache');
SELECT eventbus.drop_broker('queues');
DROP VIEW routes;
DROP FUNCTION refused;

-- routes_for: where an event would go. wait_for_route: what it refuses. What drops say.
SET client_min_messages = warning;
SELECT eventbus.create_broker('queues', 'amqp://guest@127.0.0.1:1'), eventbus.create_broker('cache', 'redis://127.0.0.1:1'),
       eventbus.create_broker('devices', 'mqtt://127.0.0.1:1');
SELECT eventbus.create_route('all', 'queues', 'exchange:shop.{topic}', '#', '{"routing_key": "{topic/}/{key}/{header:x}"}'),
       eventbus.create_route('plain', 'queues', 'exchange:e', 'shop.#'),
       eventbus.create_route('queue', 'queues', 'queue:q', 'shop.order.*'),
       eventbus.create_route('stream', 'cache', 'stream:{topic/}:{key}', 'shop.order.created, billing.#'),
       eventbus.create_route('device', 'devices', 'topic:d/{topic/}', '*.order.*'),
       eventbus.create_route('waits', 'cache', 'list:w', 'shop.#');
SELECT eventbus.pause_route('waits');
\pset null (null)
SELECT last_value AS before FROM eventbus.event_id \gset
SELECT route, broker, destination, routing_key FROM eventbus.routes_for('shop.order.created', 'order-7');
SELECT route, destination, routing_key FROM eventbus.routes_for('shop.order.created');
SELECT route, destination FROM eventbus.routes_for('nobody.wants');
SELECT route, state FROM eventbus.routes_for('shop.x') WHERE route = 'waits';
SELECT route FROM eventbus.routes_for(topic => 'billing', key => '');
SELECT * FROM eventbus.routes_for(NULL);
SELECT * FROM eventbus.routes_for('shop.*');
SELECT * FROM eventbus.routes_for('');
SELECT * FROM eventbus.routes_for(repeat('x', 256));
-- nothing was published
SELECT last_value - :before AS published FROM eventbus.event_id;
-- a row that was written by hand costs only itself
SET client_min_messages = notice;
BEGIN;
UPDATE eventbus.route_config SET destination = 'nonsense' WHERE name = 'plain';
SELECT route FROM eventbus.routes_for('shop.x');
ROLLBACK;

SELECT eventbus.wait_for_route(NULL);
SELECT eventbus.wait_for_route('all', NULL);
SELECT eventbus.wait_for_route('nobody', '1 s');
SELECT eventbus.wait_for_route('waits', '1 hour');  -- at once
SELECT eventbus.wait_for_route('stream', '-1 s');
BEGIN;
SELECT eventbus.pause_route('stream');
SELECT eventbus.wait_for_route('stream', '1 s');
ROLLBACK;

-- drops say what goes with them
SELECT count(eventbus.publish('shop.order.created', '{}', 'k')) FROM generate_series(1, 3);
SELECT route, events_waiting, bytes_waiting, waiting_estimated FROM eventbus.status ORDER BY 1;
SELECT route, paused_since BETWEEN now() - interval '1 hour' AND clock_timestamp() AS paused FROM eventbus.status WHERE route = 'waits';
SELECT eventbus.drop_route('waits');
SELECT eventbus.drop_broker('queues');
SELECT eventbus.drop_broker('queues', cascade => true);
SELECT eventbus.drop_broker('devices', cascade => true);
INSERT INTO eventbus.dead_letter_store (route_id, number, topic, content_type, published_at, error, attempts, failed_at)
SELECT id, 1, 't', 'text/plain', now(), 'no', 1, now() FROM eventbus.route_config WHERE name = 'stream';
SELECT route, dead_letters FROM eventbus.status;
SELECT eventbus.drop_route('stream');
SELECT eventbus.drop_broker('cache');

-- publish, publish_text, publish_bytes: what they return, what they store, how often they run.
SET client_min_messages = error;  -- whether pg_eventbus is preloaded or not
\set SHOW_CONTEXT never
-- A route that goes nowhere keeps the events in the log.
SELECT eventbus.create_broker('nowhere', 'redis:///nonexistent/redis.sock');
SELECT eventbus.create_route('hold', 'nowhere', 'list:held');
SELECT eventbus.pause_route('hold');
CREATE TABLE mark (id bigint);
INSERT INTO mark SELECT eventbus.publish('mark', '0');
-- What has been published since the last look.
CREATE FUNCTION news(OUT topic text, OUT key text, OUT payload text, OUT content_type text, OUT headers jsonb)
RETURNS SETOF record LANGUAGE plpgsql AS $$
DECLARE
    seen bigint := (SELECT max(id) FROM mark);
BEGIN
    INSERT INTO mark SELECT eventbus.publish('mark', '0');
    RETURN QUERY SELECT e.topic, e.key, e.payload, e.content_type, e.headers
        FROM eventbus.event e WHERE e.id > seen AND e.topic <> 'mark' ORDER BY e.id;
END $$;

-- Types and defaults
SELECT pg_typeof(eventbus.publish('shop.order.created', '{"id": 17}'));
SELECT pg_typeof(eventbus.publish_text('shop.note', 'hello'));
SELECT pg_typeof(eventbus.publish_bytes('shop.image', '\x00ff'));
SELECT * FROM news();

-- Every argument, by place and by name
SELECT eventbus.publish('a.b', '[1, "two", null, true, {"x": 1.50}]', 'k1', '{"priority": 5, "tags": ["a", "b"], "x": true}') > 0 AS published;
SELECT eventbus.publish(headers => '{}', key => 'k2', payload => '"text"', topic => 'a.b') > 0 AS published;
SELECT eventbus.publish_text('a.b', '<a/>', 'k3', '{"h": "v"}', 'application/xml') > 0 AS published;
SELECT eventbus.publish_text(topic => 'a.b', payload => 'line one
line two', content_type => 'text/markdown') > 0 AS published;
SELECT eventbus.publish_bytes('a.b', '\xdeadbeef', 'k5', NULL, 'image/png') > 0 AS published;
SELECT eventbus.publish_bytes(content_type => 'x/y', topic => 'a.b', payload => '') > 0 AS published;
SELECT * FROM news();

-- Payloads that are nearly nothing: the JSON value null is a payload, SQL's NULL is not
SELECT eventbus.publish('a', 'null') > 0 AS published;
SELECT eventbus.publish('a', '{}', '') > 0 AS published;
SELECT eventbus.publish_text('a', '') > 0 AS published;
SELECT eventbus.publish_bytes('a', '') > 0 AS published;
SELECT topic, coalesce(key, '(null)') AS key, coalesce(payload, '(null)') AS payload FROM news();

-- Payloads of every size around TOAST's limits come back whole
SELECT count(eventbus.publish_text('big', repeat('x', size)))
FROM unnest(ARRAY[100, 126, 127, 1900, 1990, 2000, 2030, 2040, 4000, 8000, 8200, 100000, 1000000]) AS size;
SELECT count(eventbus.publish_bytes('big', decode(repeat('00ff', size), 'hex'))) FROM unnest(ARRAY[1000, 5000, 50000]) AS size;
SELECT eventbus.publish('big', jsonb_agg(i)) > 0 AS published FROM generate_series(1, 20000) AS i;
SELECT content_type, length(payload), payload = repeat('x', length(payload)) AS as_sent FROM news() WHERE content_type <> 'application/json';
SELECT eventbus.publish('big', jsonb_agg(i)) > 0 AS published FROM generate_series(1, 20000) AS i;
SELECT payload::jsonb = (SELECT jsonb_agg(i) FROM generate_series(1, 20000) AS i) AS as_sent FROM news();
-- and so do those that come compressed from a table, or with many of them a page
CREATE TABLE document (body text);
INSERT INTO document SELECT repeat(md5(i::text), 5000) FROM generate_series(1, 3) AS i;
SELECT count(eventbus.publish_text('document', body)) FROM document;
SELECT count(*), bool_and(d.body IS NOT NULL) AS as_sent FROM news() n LEFT JOIN document d ON d.body = n.payload;
DROP TABLE document;

-- Ids grow, and the clock is the wall's
SELECT eventbus.publish('id', '1') < eventbus.publish('id', '2') AS grows;
BEGIN;
SELECT eventbus.publish('time', '1') AS first \gset
SELECT pg_sleep(0.002);
SELECT eventbus.publish('time', '2') AS second \gset
SELECT b.published_at > a.published_at AS later, a.published_at > now() AS not_the_start,
       a.published_at < clock_timestamp() AS not_the_future
FROM eventbus.event a, eventbus.event b WHERE a.id = :first AND b.id = :second;
COMMIT;
SELECT topic, payload FROM news();

-- Topics that are right
SELECT count(eventbus.publish(topic, '0')) FROM unnest(ARRAY['a', 'A-b_c.0', 'x y', 'order:17/created', repeat('a', 255), repeat('a.', 127) || 'b']) AS topic;
SELECT topic FROM news() ORDER BY topic COLLATE "C";

-- EXPLAIN publishes nothing, nor does what is only planned
EXPLAIN (COSTS OFF) SELECT eventbus.publish('never', '1');
EXPLAIN (COSTS OFF, VERBOSE) SELECT eventbus.publish_text('never', 'x') FROM generate_series(1, 3);
EXPLAIN (COSTS OFF) SELECT 1 WHERE eventbus.publish('never', '1') > 0;
PREPARE never AS SELECT eventbus.publish('never', '1');
EXPLAIN (COSTS OFF) EXECUTE never;
DEALLOCATE never;
SELECT 1 AS one WHERE false AND eventbus.publish('never', '1') > 0;
SELECT CASE WHEN true THEN 1 ELSE eventbus.publish('never', '1') END AS one;
SELECT eventbus.publish('never', '1') FROM mark WHERE false;
SELECT * FROM news();
-- EXPLAIN ANALYZE runs it
DO $$ BEGIN EXECUTE 'EXPLAIN ANALYZE SELECT eventbus.publish(''analyzed'', ''1'')'; END $$;
SELECT topic, payload FROM news();

-- Once a row, also with constant arguments, in WHERE, in a join, under LIMIT
SELECT count(eventbus.publish('per.row', '1')) FROM generate_series(1, 3);
SELECT count(*) FROM generate_series(1, 3) WHERE eventbus.publish('per.row.where', '1') > 0;
SELECT count(*) FROM (SELECT eventbus.publish('per.row.limit', '1') FROM generate_series(1, 100) LIMIT 2) AS x;
SELECT count(*) FROM generate_series(1, 2) AS a, LATERAL (SELECT eventbus.publish('per.row.lateral', to_jsonb(a))) AS x;
WITH p AS (SELECT eventbus.publish('per.row.cte', to_jsonb(i)) FROM generate_series(1, 2) AS i) SELECT count(*) FROM p;
SELECT topic, count(*) FROM news() GROUP BY topic ORDER BY topic;

-- Prepared statements: a generic plan publishes at each execution
SET plan_cache_mode = force_generic_plan;
PREPARE constant AS SELECT eventbus.publish('prepared.constant', '1') > 0 AS published;
EXECUTE constant;
EXECUTE constant;
PREPARE variable(int) AS SELECT eventbus.publish('prepared.variable', to_jsonb($1), 'k' || $1) > 0 AS published;
EXECUTE variable(1);
EXECUTE variable(2);
RESET plan_cache_mode;
DO $$ BEGIN FOR i IN 1..10 LOOP EXECUTE 'EXECUTE constant'; PERFORM eventbus.publish('prepared.plpgsql', '1'); END LOOP; END $$;
DEALLOCATE ALL;
SELECT topic, count(*) FROM news() GROUP BY topic ORDER BY topic;

-- Parallel query: publishing stays with the leader
CREATE TABLE many AS SELECT i FROM generate_series(1, 20000) AS i;
ANALYZE many;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2;
SELECT count(set_config(name, 'on', false)) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
EXPLAIN (COSTS OFF) SELECT eventbus.publish('parallel', to_jsonb(i)) FROM many WHERE i % 1000 = 0;
SELECT count(eventbus.publish('parallel', to_jsonb(i))) FROM many WHERE i % 1000 = 0;
SELECT eventbus.publish('parallel.constant', '1') > 0 AS published;
SELECT topic, count(*) FROM news() GROUP BY topic ORDER BY topic;
SELECT count(set_config(name, 'off', false)) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
RESET parallel_setup_cost;
RESET parallel_tuple_cost;
RESET min_parallel_table_scan_size;
RESET max_parallel_workers_per_gather;
DROP TABLE many;

-- Wherever SQL takes a function: triggers, COPY, CREATE TABLE AS, defaults, RETURNING
CREATE TABLE orders (id int PRIMARY KEY, state text);
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM eventbus.publish('orders.' || lower(tg_op), to_jsonb(coalesce(new, old)), 'order-' || coalesce(new.id, old.id));
    RETURN NULL;
END $$;
CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON orders FOR EACH ROW EXECUTE FUNCTION tell();
INSERT INTO orders VALUES (1, 'new'), (2, 'new');
UPDATE orders SET state = 'paid' WHERE id = 1;
INSERT INTO orders VALUES (2, 'again') ON CONFLICT (id) DO UPDATE SET state = 'again';
DELETE FROM orders WHERE id = 2 RETURNING eventbus.publish('orders.returning', to_jsonb(id)) > 0 AS published;
SELECT topic, key, payload FROM news();
DROP TABLE orders;
COPY (SELECT eventbus.publish('copy', '1') > 0 FROM generate_series(1, 2)) TO STDOUT;
CREATE TABLE t AS SELECT eventbus.publish('ctas', '1') AS id;
ALTER TABLE t ADD event bigint DEFAULT eventbus.publish('default', '1');
INSERT INTO t VALUES (0);
DROP TABLE t;
SELECT topic, count(*) FROM news() GROUP BY topic ORDER BY topic;
-- but not where it would be run behind one's back
CREATE TABLE t (a int);
CREATE INDEX ON t (eventbus.publish('never', '1'));
DROP TABLE t;

SELECT eventbus.drop_broker('nowhere', true);
DROP FUNCTION news(), tell();
DROP TABLE mark;

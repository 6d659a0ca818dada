-- eventbus.captured_payload: what the view eventbus.event puts back, and whatever else somebody calls it with.
SET client_min_messages = error;
\set SHOW_CONTEXT never
CREATE FUNCTION made(stored text, topic text DEFAULT 'shop.item.update', xid xid8 DEFAULT '17',
                     published_at timestamptz DEFAULT '2026-01-02 03:04:05.678901+00') RETURNS text LANGUAGE sql AS
    $$ SELECT regexp_replace(eventbus.captured_payload(stored, topic, xid, published_at),
                             '"version":"[0-9.]+","connector":"postgresql","name":"[^"]*","db":"[^"]*"', 'NAMES', 'g') $$;

-- What captures write: the envelope in one byte, or in five where the topic is another one
SELECT made(E'\x01{"id":1}\x06}');
SELECT made(E'{"before":{"id":1},"after":null\x06}', 'shop.item.delete');
SELECT made(E'\x01{"id":1}\x02"a.b"\x03"c"\x04c\x05}', 'any');
SELECT made(E'\x01null\x06}', 'shop.item.truncate') = made(E'\x01null\x02"shop"\x03"item"\x04t\x05}', 'any') AS same;
SELECT made(E'\x06', 'shop.item.insert', '9223372036854775807', 'epoch'), made('', ''), made('{"a":"\n"}', 't');

-- Other control characters are themselves; so are letters after them
SELECT n, made(chr(n)) = chr(n) AS itself FROM generate_series(1, 31) n WHERE made(chr(n)) <> chr(n) OR n IN (7, 31);
SELECT count(*) FILTER (WHERE made('a' || chr(n)) = 'a' || made(chr(n))) AS at_the_end,
       count(*) FILTER (WHERE made(chr(n) || 'a') = made(chr(n)) || 'a') AS at_the_beginning FROM generate_series(1, 31) n;
SELECT count(*) FROM (SELECT made(string_agg(chr((n * 7919) % 40 + 1), '')) FROM generate_series(1, 10000) n GROUP BY n % 97) m (text)
WHERE text !~ E'[\x01-\x06]';

-- Topics that no capture makes
SELECT topic, made(E'\x06', topic) FROM unnest(ARRAY['', '.', '..', '...', 'a', 'a.', 'a.b', 'a.b.', 'a.b."', 'a.b.xyz', 'a.b.é',
    'é".ü\.insert', E'\x01.\x06.update', '.b.insert', 'a..truncate']) topic;

-- Times without end, and without a beginning
SELECT made(E'\x05', published_at => t) FROM unnest(ARRAY['infinity', '-infinity', '294276-12-31 23:59:59.999999+00',
    '4714-11-24 00:00:00+00 BC', '1969-12-31 23:59:59.9999+00']::timestamptz[]) t;

-- NULL is NULL, too much is an error, much is not
SELECT eventbus.captured_payload(NULL, 't', '1', now()) IS NULL AND eventbus.captured_payload('x', NULL, '1', now()) IS NULL AS nothing;
SELECT length(made(repeat('x', 20000000) || E'\x01')) AS long;
\set VERBOSITY sqlstate
SELECT eventbus.captured_payload(repeat(E'\x06', 8000000), 'a.b.insert', '1', now());
\set VERBOSITY default
SELECT length(eventbus.captured_payload(repeat(E'\x03', 10000000), repeat('t', 100000000), '1', now())) AS long;

-- What the view shows is what a row's columns make
CREATE TABLE item (id int PRIMARY KEY, what text);
SELECT eventbus.create_broker('nowhere', 'redis:///nonexistent/redis.sock');
SELECT eventbus.create_route('hold', 'nowhere', 'list:held', 'public.item.*, other');
SELECT eventbus.pause_route('hold');
SELECT eventbus.capture('item');
INSERT INTO item VALUES (1, E'\x01\x06');
UPDATE item SET what = 'b';
SELECT eventbus.capture('item', topic => 'other');
DELETE FROM item;
SELECT topic, payload::jsonb - 'source' - 'ts_ms' AS change, payload::jsonb -> 'source' ->> 'txId' = headers ->> 'pg-txid' AS txid,
       payload::jsonb -> 'source' -> 'schema' AS schema, payload::jsonb -> 'source' -> 'table' AS "table",
       (payload::jsonb -> 'ts_ms')::bigint = trunc(extract(epoch FROM published_at) * 1000) AS ts_ms
FROM eventbus.event WHERE topic LIKE 'public.item%' OR topic = 'other' ORDER BY id;

-- Who reads the view by a grant of their own wants one on the function
CREATE ROLE regress_eventbus_bi;
GRANT USAGE ON SCHEMA eventbus TO regress_eventbus_bi;
GRANT SELECT ON eventbus.event TO regress_eventbus_bi;
SET ROLE regress_eventbus_bi;
SELECT count(*) FROM eventbus.event WHERE topic = 'other';
SELECT payload FROM eventbus.event WHERE topic = 'other';
RESET ROLE;
GRANT EXECUTE ON FUNCTION eventbus.captured_payload TO regress_eventbus_bi;
SET ROLE regress_eventbus_bi;
SELECT payload LIKE '{"before":{"id":1,"what":"b"},"after":null,"source":%' AS whole FROM eventbus.event WHERE topic = 'other';
RESET ROLE;
DROP OWNED BY regress_eventbus_bi;
DROP ROLE regress_eventbus_bi;
SELECT eventbus.drop_broker('nowhere', true);
DROP TABLE item;
DROP FUNCTION made;

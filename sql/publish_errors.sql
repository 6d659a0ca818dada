-- Everything that publish, publish_text and publish_bytes refuse, and what they say.
SET client_min_messages = error;
\set SHOW_CONTEXT never
CREATE FUNCTION refused(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'taken';
EXCEPTION WHEN others THEN
    RETURN sqlstate;
END $$;

-- NULL
SELECT eventbus.publish(NULL, '1');
SELECT eventbus.publish('a', NULL);
SELECT eventbus.publish_text(NULL, 'x');
SELECT eventbus.publish_text('a', NULL);
SELECT eventbus.publish_text('a', 'x', content_type => NULL);
SELECT eventbus.publish_bytes(NULL, 'x');
SELECT eventbus.publish_bytes('a', NULL);
SELECT eventbus.publish_bytes('a', 'x', content_type => NULL);

-- Topics
SELECT eventbus.publish('', '1');
SELECT eventbus.publish(repeat('a', 256), '1');
SELECT eventbus.publish(repeat('a', 1000000), '1');
SELECT eventbus.publish('shop.*', '1');
SELECT eventbus.publish('shop.#', '1');
SELECT eventbus.publish('shop.+.created', '1');
SELECT eventbus.publish('a*b', '1');
SELECT eventbus.publish(E'a\nb', '1');
SELECT eventbus.publish(E'a\tb', '1');
SELECT eventbus.publish(E'a\x7f', '1');
SELECT eventbus.publish(E'a\u0085b', '1');
SELECT eventbus.publish('.', '1');
SELECT eventbus.publish('.a', '1');
SELECT eventbus.publish('a.', '1');
SELECT eventbus.publish('a..b', '1');
SELECT eventbus.publish_text('', 'x');
SELECT eventbus.publish_bytes('#', 'x');

-- Payloads that are no JSON, or no argument at all
SELECT eventbus.publish('a', '{"x": ');
SELECT eventbus.publish('a');
SELECT eventbus.publish();

-- Payloads over the limit, which is that of what is sent
SET eventbus.max_payload = 1024;
BEGIN;
SELECT eventbus.publish_text('a', repeat('x', 1024)) > 0 AS published;
SELECT eventbus.publish_bytes('a', decode(repeat('00', 1024), 'hex')) > 0 AS published;
SELECT eventbus.publish('a', to_jsonb(repeat('x', 1022))) > 0 AS published;
ROLLBACK;
SELECT eventbus.publish_text('a', repeat('x', 1025));
SELECT eventbus.publish_bytes('a', decode(repeat('00', 1025), 'hex'));
SELECT eventbus.publish('a', to_jsonb(repeat('x', 1023)));
SELECT eventbus.publish('a', to_jsonb(repeat(E'\n', 512)));       -- an escape is two bytes
SELECT eventbus.publish('a', to_jsonb(repeat(E'\x01', 171)));     -- or six
-- a number is written out, however short it came
SELECT refused($$SELECT eventbus.publish('a', '1e1100'::jsonb)$$);
SELECT refused($$SELECT eventbus.publish('a', '[1e-1100]'::jsonb)$$);
SELECT refused($$SELECT eventbus.publish('a', '{"a": [{"b": 1e1100}]}'::jsonb)$$);
RESET eventbus.max_payload;
SELECT eventbus.publish_text('a', repeat('x', 16 * 1024 * 1024 + 1));
SELECT refused($$SELECT eventbus.publish('a', jsonb_agg(1e131071)) FROM generate_series(1, 200)$$);
\set VERBOSITY sqlstate
SET eventbus.max_payload = 1023;
SET eventbus.max_payload = '257MB';
\set VERBOSITY default
SET eventbus.max_paylod = 1024;

-- Headers
SELECT eventbus.publish('a', '1', headers => '[]');
SELECT eventbus.publish('a', '1', headers => '"x"');
SELECT eventbus.publish('a', '1', headers => 'null');
SELECT eventbus.publish('a', '1', headers => '17');
SELECT eventbus.publish_text('a', 'x', headers => '[{"a": 1}]');
SELECT eventbus.publish('a', '1', headers => jsonb_build_object('h', repeat('x', 1024 * 1024)));

-- Keys
SELECT eventbus.publish('a', '1', repeat('k', 1025));
BEGIN;
SELECT eventbus.publish('a', '1', repeat('k', 1024)) > 0 AS published;
ROLLBACK;

-- Content types
SELECT eventbus.publish_text('a', 'x', content_type => '');
SELECT eventbus.publish_text('a', 'x', content_type => repeat('x', 256));
SELECT eventbus.publish_bytes('a', 'x', content_type => '');
SELECT refused($$SELECT eventbus.publish_text('a', 'x', content_type => E'text/plain\r\nX: y')$$);
SELECT refused($$SELECT eventbus.publish_bytes('a', 'x', content_type => E'text/plain\x7f')$$);

-- What was refused left nothing behind, not even in a transaction that stays open
BEGIN;
SELECT eventbus.publish('good', '1') AS first \gset
SAVEPOINT s;
SELECT eventbus.publish('bad.', '1');
ROLLBACK TO s;
SELECT topic FROM eventbus.event WHERE id >= :first;
ROLLBACK;
DROP FUNCTION refused;

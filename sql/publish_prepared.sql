-- What drivers prepare: parameters of the types that they send, or of none; and what they make of arrays.
SET client_min_messages = error;  -- whether pg_eventbus is preloaded or not
\set SHOW_CONTEXT never
SELECT eventbus.create_broker('nowhere', 'redis:///nonexistent/redis.sock');
SELECT eventbus.create_route('hold', 'nowhere', 'list:held');
SELECT eventbus.pause_route('hold');

-- JDBC sends varchar for setString, int4 or int8, uuid, the name of a PGobject's type, and no type for moments, some NULLs
-- and Types.OTHER; psycopg 3 the smallest integer that holds a number. Every combination runs twice, as of a prepared
-- statement, and the event is what was passed; a parameter without a type becomes a text (beside a jsonb, a jsonb).
CREATE TABLE public.parameter (argument text, type text, value text, arrives text);
INSERT INTO public.parameter VALUES
    ('payload', 'varchar', '''{"a":  1}''', '{"a":  1}'), ('payload', 'text', '''[1,  2]''', '[1,  2]'),
    ('payload', 'unknown', '''{"a":  1}''', '{"a":  1}'), ('payload', 'json', '''{"a":  1}''', '{"a":  1}'),
    ('payload', 'jsonb', '''{"a":  1}''', '{"a": 1}'),
    ('key', 'none', NULL, NULL), ('key', 'varchar', '''k''', 'k'), ('key', 'unknown', '''k''', 'k'), ('key', 'int2', '17', '17'),
    ('key', 'int4', '17', '17'), ('key', 'int8', '17', '17'), ('key', 'numeric', '17.50', '17.50'), ('key', 'bool', 'true', 't'),
    ('key', 'uuid', '''00000000-0000-0000-0000-000000000017''', '00000000-0000-0000-0000-000000000017'),
    ('key', 'date', '''2026-11-30''', '2026-11-30'), ('key', 'timestamptz', '''2026-11-30 12:00:00+02''', '2026-11-30T10:00:00+00:00'),
    ('key', 'int4[]', '''{1,2}''', '{1,2}'), ('key', 'varchar', 'NULL', NULL), ('key', 'int8', 'NULL', NULL), ('key', 'unknown', 'NULL', NULL),
    ('headers', 'none', NULL, NULL), ('headers', 'varchar', '''{"h":1}''', '{"h": 1}'), ('headers', 'unknown', '''{"h":1}''', '{"h": 1}'),
    ('headers', 'json', '''{"h":1}''', '{"h": 1}'), ('headers', 'jsonb', '''{"h":1}''', '{"h": 1}'), ('headers', 'varchar', 'NULL', NULL),
    ('headers', 'jsonb', 'NULL', NULL), ('headers', 'unknown', 'NULL', NULL);
CREATE FUNCTION public.misfits(function text, call_by_name boolean) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    given record;
    found record;
    last_id bigint := coalesce((SELECT max(id) FROM eventbus.event), 0);
    types text;
    call text;
    arguments text;
    tried int := 0;
BEGIN
    FOR given IN
        SELECT p.type AS p_type, p.value AS p_value, p.arrives AS payload, k.type AS k_type, k.value AS k_value, k.arrives AS key,
               h.type AS h_type, h.value AS h_value, h.arrives::jsonb AS headers
        FROM parameter p, parameter k, parameter h
        WHERE p.argument = 'payload' AND k.argument = 'key' AND h.argument = 'headers'
        AND (call_by_name OR k.type <> 'none' OR h.type = 'none')
        AND (function NOT IN ('publish_text', 'publish_bytes') OR p.type IN ('varchar', 'text', 'unknown'))
    LOOP
        IF function = 'publish_bytes' THEN
            given.p_type := CASE WHEN given.p_type = 'unknown' THEN 'unknown' ELSE 'bytea' END;
        END IF;
        SELECT string_agg(type, ', ' ORDER BY place), string_agg(value, ', ' ORDER BY place),
               string_agg(CASE WHEN call_by_name THEN name || ' => ' ELSE '' END || '$' || nth, ', ' ORDER BY place)
            INTO types, arguments, call
            FROM (SELECT *, row_number() OVER (ORDER BY place) AS nth
                  FROM (VALUES (1, 'topic', 'varchar', '''t.t'''), (2, 'payload', given.p_type, given.p_value),
                               (3, 'key', given.k_type, given.k_value), (4, 'headers', given.h_type, given.h_value)) a (place, name, type, value)
                  WHERE type <> 'none') passed;
        call := format('PREPARE call(%s) AS SELECT eventbus.%s(%s)', types, function, call);
        tried := tried + 1;
        BEGIN
            EXECUTE call;
            EXECUTE format('EXECUTE call(%s)', arguments);
            EXECUTE format('EXECUTE call(%s)', arguments);
            EXECUTE 'DEALLOCATE call';
        EXCEPTION WHEN OTHERS THEN
            RETURN NEXT format('%s with %s: %s', call, arguments, sqlerrm);
            CONTINUE;
        END;
        CONTINUE WHEN function IN ('publish_wal', 'publish_now');
        SELECT count(*) AS events, count(*) FILTER (WHERE topic = 't.t'
                   AND (function = 'publish_bytes' OR payload = given.payload) AND key IS NOT DISTINCT FROM given.key
                   AND headers IS NOT DISTINCT FROM given.headers) AS right_ones, max(id) AS last
            INTO found FROM eventbus.event WHERE id > last_id;
        IF found.events <> 2 OR found.right_ones <> 2 THEN
            RETURN NEXT format('%s with %s: %s of %s as expected', call, arguments, found.right_ones, found.events);
        END IF;
        last_id := coalesce(found.last, last_id);
    END LOOP;
    RETURN NEXT format('%s combinations of %s', tried, function);
END $$;
SELECT misfits(function, by_name) FROM unnest(ARRAY['publish', 'publish_text', 'publish_bytes', 'publish_wal', 'publish_now']) function, unnest(ARRAY[false, true]) by_name;
DROP FUNCTION public.misfits;
DROP TABLE public.parameter;

-- as JDBC's {? = call ...}, with casts, and in batches of arrays
CREATE FUNCTION public.last(OUT topic text, OUT key text, OUT payload text, OUT headers jsonb) LANGUAGE sql AS
    'SELECT topic, key, payload, headers FROM eventbus.event ORDER BY id DESC LIMIT 1';
PREPARE call(varchar, varchar, int8) AS SELECT * FROM eventbus.publish($1, $2, $3) AS result;
EXECUTE call('called', '{"n": 1}', 17) \g /dev/null
SELECT * FROM public.last();
PREPARE casts(varchar, varchar, uuid, varchar) AS SELECT eventbus.publish($1, $2::jsonb, $3, $4::jsonb);
EXECUTE casts('cast', '{"n":2}', NULL, '{"h":1}') \g /dev/null
SELECT * FROM public.last();
-- asyncpg, pgx and tokio-postgres ask which types the server has found: a cast gives a parameter another one
PREPARE asked AS SELECT eventbus.publish($1, $2::jsonb, $3::bigint, headers => $4);
SELECT parameter_types FROM pg_prepared_statements WHERE name = 'asked';
PREPARE batch(_varchar, _text, _int8) AS
    SELECT eventbus.publish(topic, payload, key) > 0 AS published FROM unnest($1, $2, $3) AS batch (topic, payload, key);
EXECUTE batch('{a,b}', ARRAY['{"n":3}', '[4]'], '{17,NULL}');
SELECT topic, payload, key FROM eventbus.event ORDER BY id DESC LIMIT 2;
DEALLOCATE ALL;
DROP FUNCTION public.last;

-- An array, as drivers write it (node-pg, pg8000, psycopg 3 of texts), is no JSON, wherever JSON belongs ...
PREPARE payload AS SELECT eventbus.publish('a', $1);
PREPARE payload_wal AS SELECT eventbus.publish_wal('a', $1);
PREPARE payload_now AS SELECT eventbus.publish_now('a', $1);
PREPARE headers AS SELECT eventbus.publish('a', '1', headers => $1);
PREPARE headers_wal AS SELECT eventbus.publish_wal('a', '1', headers => $1);
PREPARE headers_now AS SELECT eventbus.publish_now('a', '1', headers => $1);
PREPARE headers_text AS SELECT eventbus.publish_text('a', '1', headers => $1);
PREPARE headers_bytes AS SELECT eventbus.publish_bytes('a', '1', headers => $1);
\set array '{"1","2"}'
EXECUTE payload(:'array');
EXECUTE payload_wal(:'array');
EXECUTE payload_now(:'array');
EXECUTE headers(:'array');
EXECUTE headers_wal(:'array');
EXECUTE headers_now(:'array');
EXECUTE headers_text(:'array');
EXECUTE headers_bytes(:'array');
EXECUTE payload('{"{\"a\":1}","{\"b\":\"x:y\"}"}');
EXECUTE payload('{{"1"},{"2"}}');
EXECUTE payload('{NULL}');
EXECUTE payload('{plain,"with blank"}');
-- ... a key is any text
PREPARE key AS SELECT eventbus.publish('a', '1', $1);
EXECUTE key(:'array') \g /dev/null
SELECT key FROM eventbus.event ORDER BY id DESC LIMIT 1;
-- An array without elements cannot be told from an object without members
EXECUTE payload('{}') \g /dev/null
SELECT payload FROM eventbus.event ORDER BY id DESC LIMIT 1;
-- SQLAlchemy's JSON types make JSON's null of None
EXECUTE headers('null');
-- Pools set a session back between two users of it
DISCARD ALL;
SET client_min_messages = error;
SELECT eventbus.publish('a', '"discarded"', 17) \g /dev/null
SELECT payload, key FROM eventbus.event ORDER BY id DESC LIMIT 1;

SELECT eventbus.drop_broker('nowhere', true);

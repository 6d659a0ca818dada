-- What applications pass: every argument as a literal, NULL, a parameter without a type, and of each type that it takes.
SET client_min_messages = error;  -- whether pg_eventbus is preloaded or not
\set SHOW_CONTEXT never
SELECT last_value AS before FROM eventbus.event_id \gset
SELECT eventbus.create_broker('nowhere', 'redis:///nonexistent/redis.sock');
SELECT eventbus.create_route('hold', 'nowhere', 'list:held');
SELECT eventbus.pause_route('hold');

-- Every combination, by place and by name, fits one function, in which a parameter without a type is a text (headers
-- beside a jsonb payload, a jsonb).
CREATE TABLE public.spelling (argument text, sql text);
INSERT INTO public.spelling
SELECT argument, unnest(spellings) FROM (VALUES
    ('topic', ARRAY['''t.t''', '$', '''t.t''::text', '''t.t''::varchar']),
    ('payload', ARRAY['''{"a":1}''', '$', 'NULL', '''[1]''::text', '''[1]''::varchar', '''[1]''::json', '''[1]''::jsonb', '''1''::char(3)']),
    ('key', ARRAY['', '''k''', '$', 'NULL', '''k''::text', '''k''::varchar', '17', '17::bigint', 'gen_random_uuid()', 'current_date', '''shop''::name']),
    ('headers', ARRAY['', '''{}''', '$', 'NULL', '''{}''::text', '''{}''::varchar', '''{}''::json', '''{}''::jsonb'])) s (argument, spellings);
CREATE FUNCTION public.misfits(function text, by_name boolean) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    given record;
    call text;
    expected regtype[];
    types regtype[];
    tried int := 0;
BEGIN
    FOR given IN SELECT t.sql AS topic, p.sql AS payload, k.sql AS key, h.sql AS headers
                 FROM spelling t, spelling p, spelling k, spelling h
                 WHERE t.argument = 'topic' AND p.argument = 'payload' AND k.argument = 'key' AND h.argument = 'headers'
                 AND (by_name OR k.sql <> '' OR h.sql = '')
                 AND (function NOT IN ('publish_text', 'publish_bytes') OR p.sql IN ('$', '''{"a":1}''', '''[1]''::varchar')) LOOP
        CONTINUE WHEN function = 'publish_bytes' AND given.payload LIKE '%varchar';
        SELECT format('SELECT eventbus.%s(%s)', function,
                      string_agg(CASE WHEN by_name THEN name || ' => ' ELSE '' END ||
                                 CASE WHEN sql = '$' THEN '$' || nth ELSE sql END, ', ' ORDER BY place)),
               array_agg(CASE WHEN name = 'payload' AND function = 'publish_bytes' THEN 'bytea'::regtype ELSE 'text' END ORDER BY place)
                   FILTER (WHERE sql = '$')
            INTO call, expected
            FROM (SELECT *, count(*) FILTER (WHERE sql = '$') OVER (ORDER BY place) AS nth
                  FROM (VALUES (1, 'topic', given.topic), (2, 'payload', given.payload), (3, 'key', given.key), (4, 'headers', given.headers)) a (place, name, sql)
                  WHERE sql <> '') arguments;
        tried := tried + 1;
        BEGIN
            EXECUTE 'PREPARE call AS ' || call;
        EXCEPTION WHEN OTHERS THEN
            RETURN NEXT call || ': ' || sqlerrm;
            CONTINUE;
        END;
        SELECT parameter_types INTO types FROM pg_prepared_statements WHERE name = 'call';
        IF given.headers = '$' AND given.payload LIKE '%jsonb' AND types[cardinality(types)] = 'jsonb'::regtype THEN
            types[cardinality(types)] := 'text';
        END IF;
        IF types <> coalesce(expected, '{}') THEN
            RETURN NEXT call || ': ' || types::text;
        END IF;
        IF expected IS NULL AND given.payload <> 'NULL' AND function NOT IN ('publish_wal', 'publish_now') THEN
            EXECUTE 'EXECUTE call';
        END IF;
        EXECUTE 'DEALLOCATE call';
    END LOOP;
    RETURN NEXT format('%s combinations of %s', tried, function);
END $$;
SELECT misfits(function, by_name) FROM unnest(ARRAY['publish', 'publish_text', 'publish_bytes', 'publish_wal', 'publish_now']) function, unnest(ARRAY[false, true]) by_name;
SELECT DISTINCT topic, payload, key, content_type, headers FROM eventbus.event
WHERE id > :before AND topic = 't.t' AND (key IS NULL OR key NOT LIKE '%-%') ORDER BY 1, 2, 3, 4, 5;
DROP FUNCTION public.misfits;
DROP TABLE public.spelling;

-- json and text arrive as they were written, jsonb as PostgreSQL writes it
CREATE FUNCTION public.last(OUT topic text, OUT key text, OUT payload text, OUT content_type text, OUT headers jsonb) LANGUAGE sql AS
    'SELECT topic, key, payload, content_type, headers FROM eventbus.event ORDER BY id DESC LIMIT 1';
\set written '{ "b":1,  "a" : 1.0e2, "b":2 }'
SELECT eventbus.publish('a', :'written') > 0 AS published;
SELECT * FROM public.last();
SELECT eventbus.publish('a', :'written'::json) > 0 AS published;
SELECT * FROM public.last();
SELECT eventbus.publish('a', :'written'::jsonb) > 0 AS published;
SELECT * FROM public.last();
CREATE TABLE public.purchase (id int PRIMARY KEY, at timestamptz, items text[]);
CREATE FUNCTION public.tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM eventbus.publish('shop.order', row_to_json(NEW), key => NEW.id);
    RETURN NULL;
END $$;
CREATE TRIGGER tell AFTER INSERT ON public.purchase FOR EACH ROW EXECUTE FUNCTION public.tell();
INSERT INTO public.purchase VALUES (17, '2026-11-30 12:00+00', '{a,"b c"}');
SELECT topic, key, payload::jsonb - 'at' AS payload FROM public.last();

-- A key is the same whatever the session has set
SET datestyle = 'German';
SET bytea_output = 'escape';
SET extra_float_digits = 0;
SET quote_all_identifiers = on;
SELECT eventbus.publish('a', '1', date '2026-11-30') > 0 AS published;
SELECT key FROM public.last();
SELECT eventbus.publish('a', '1', timestamptz '2026-11-30 12:00+02') > 0 AS published;
SELECT key FROM public.last();
SELECT eventbus.publish('a', '1', '\x00ff'::bytea) > 0 AS published;
SELECT key FROM public.last();
SELECT eventbus.publish('a', '1', 0.1::float8 + 0.2::float8) > 0 AS published;
SELECT key FROM public.last();
SELECT eventbus.publish('a', '1', true) > 0 AS published;
SELECT key FROM public.last();
SELECT eventbus.publish('a', '1', 'public.purchase'::regclass) > 0 AS published;
SELECT key FROM public.last();
RESET quote_all_identifiers;
RESET datestyle;
RESET bytea_output;
RESET extra_float_digits;
CREATE DOMAIN public.order_id AS bigint CHECK (value > 0);
CREATE TYPE public.state AS ENUM ('new', 'paid');
SELECT eventbus.publish('a', '1', 17::public.order_id), eventbus.publish_text('a', '1', 'paid'::public.state) > 0 AS published \g /dev/null
SELECT key FROM eventbus.event ORDER BY id DESC LIMIT 2;

-- Batches
SELECT count(eventbus.publish(topic, payload, key)) FROM unnest(ARRAY['a', 'b'], ARRAY['1', '2'], ARRAY[17, 18]) AS batch (topic, payload, key);
SELECT count(eventbus.publish(topic, payload, id, headers)) FROM jsonb_to_recordset('[{"topic": "a", "id": 1, "payload": {"x": 1}, "headers": {"h": 1}}, {"topic": "b", "id": 2, "payload": [2]}]')
    AS batch (topic text, id bigint, payload jsonb, headers jsonb);
SELECT topic, key, payload, headers FROM eventbus.event ORDER BY id DESC LIMIT 4;

-- What is no JSON
SELECT eventbus.publish('a', 'it is''nt');
SELECT eventbus.publish('a', '');
SELECT eventbus.publish('a', '{"1","2"}');
SELECT eventbus.publish('a', '{1,{2,3}}');
SELECT eventbus.publish('a', ARRAY['1', '2']);
SELECT eventbus.publish('a', 5);
SELECT eventbus.publish('a', p) FROM public.purchase p;
SELECT eventbus.publish('a', '1', headers => 'x');
SELECT eventbus.publish('a', '1', headers => '[]'::json);
SELECT eventbus.publish('a', '1', 'k', 5);
SELECT eventbus.publish_wal('a', '{1}');
SELECT eventbus.publish('a', repeat('[', 1001) || repeat(']', 1001), 'deep') > 0 AS published;
SELECT eventbus.publish('a', repeat('[', 100000), 'deeper');
-- too long a key, once it is a text
SELECT eventbus.publish('a', '1', array_fill(1, ARRAY[600]));

DROP TABLE public.purchase;
DROP FUNCTION public.tell, public.last;
DROP DOMAIN public.order_id;
DROP TYPE public.state;
SELECT eventbus.drop_broker('nowhere', true);

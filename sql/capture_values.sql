-- Times, numbers and jsonb are written by hand: as to_json has them, whatever the zone and the value.
SET client_min_messages = warning;
SELECT eventbus.create_broker('values', 'redis:///nonexistent.sock');
SELECT eventbus.create_route('values', 'values', 'list:x', topics => 'values.#');
CREATE SCHEMA "values";
CREATE TABLE "values".time (id serial, at timestamptz, local timestamp, day date);
SELECT eventbus.capture('"values".time', payload => 'row', topic => 'values.time');
CREATE FUNCTION pg_temp.different_times() RETURNS TABLE (zone text, id text, published text, expected text) LANGUAGE sql AS $$
    SELECT current_setting('TimeZone'), t.id::text, e.payload, to_json(t)::text
    FROM "values".time t LEFT JOIN eventbus.event e ON e.topic = 'values.time' AND (e.payload::json->>'id')::int = t.id
    WHERE t.id > (SELECT max(id) - 2013 FROM "values".time) AND e.payload IS DISTINCT FROM to_json(t)::text
$$;
CREATE FUNCTION pg_temp.some_times() RETURNS void LANGUAGE sql AS $$
    INSERT INTO "values".time (at, local, day)
    SELECT at, at::timestamp, at::date
    FROM (SELECT timestamptz '2000-01-01 00:00 UTC' + (i * 7919 % 2000 - 1000) * interval '97 days 11:13:17' + i % 7 * interval '0.040305 s' AS at
          FROM generate_series(1, 2000) i
          UNION ALL
          VALUES (timestamptz 'infinity'), ('-infinity'), (NULL), ('0001-01-01 00:00 UTC'), ('0001-12-31 23:59:59.999999 BC UTC'),
                 ('9999-12-31 23:59:59.999999 UTC'), ('10000-01-01 00:00 UTC'), ('294276-12-30 23:59:59.999999 UTC'),
                 ('4713-11-26 00:00 BC UTC'), ('1969-12-31 23:59:59.5 UTC'), ('1999-12-31 23:59:59.000001 UTC'),
                 ('2024-03-31 00:59:59.9 UTC'), ('2024-03-31 01:00 UTC')) chosen
$$;
SET TimeZone = 'UTC';
SELECT pg_temp.some_times();
SELECT * FROM pg_temp.different_times();
SET TimeZone = 'Europe/Berlin';
SELECT pg_temp.some_times();
SELECT * FROM pg_temp.different_times();
SET TimeZone = 'America/St_Johns';
SELECT pg_temp.some_times();
SELECT * FROM pg_temp.different_times();
SET TimeZone = 'Africa/Monrovia';
SELECT pg_temp.some_times();
SELECT * FROM pg_temp.different_times();
SET TimeZone = '<+0545>-5:45';
SELECT pg_temp.some_times();
SELECT * FROM pg_temp.different_times();
SELECT payload FROM eventbus.event WHERE topic = 'values.time' ORDER BY id LIMIT 3;

CREATE TABLE "values".document (id serial, document jsonb);
SELECT eventbus.capture('"values".document', payload => 'row', topic => 'values.document');
INSERT INTO "values".document (document) VALUES
    ('null'), ('true'), ('false'), ('0'), ('-1.50'), ('1e40'), ('""'), (E'"a\\"b\\\\c\\n\\t\\u0001żółw"'), ('[]'), ('{}'), ('[[]]'), ('[{}]'),
    ('[1, "two", null, true, [3, {"four": 5.0}]]'), ('{"": {"b": [1, 2, 3], "a": null}, "\"": "x"}'), (NULL);
INSERT INTO "values".document (document)
    SELECT jsonb_build_object('n', i, 'texts', jsonb_agg(repeat('x', j)), 'numbers', jsonb_agg(j * 0.001), 'mixed',
                              jsonb_object_agg('key ' || j, CASE j % 4 WHEN 0 THEN 'null' WHEN 1 THEN to_jsonb(j) WHEN 2 THEN to_jsonb(j::text) ELSE '[true]' END))
    FROM generate_series(1, 30) i, generate_series(1, 5 * i) j GROUP BY i;
INSERT INTO "values".document (document) SELECT to_jsonb(array_agg(md5(i::text))) FROM generate_series(1, 3000) i;
INSERT INTO "values".document (document) SELECT jsonb_build_object('same', repeat('x', 20000));
SELECT d.id, e.payload, to_json(d) FROM "values".document d LEFT JOIN eventbus.event e
    ON e.topic = 'values.document' AND (e.payload::json->>'id')::int = d.id WHERE e.payload IS DISTINCT FROM to_json(d)::text;
SELECT count(*) FROM eventbus.event WHERE topic = 'values.document';
SELECT payload FROM eventbus.event WHERE topic = 'values.document' ORDER BY id LIMIT 14;

CREATE TABLE "values".number (id serial, number numeric);
SELECT eventbus.capture('"values".number', payload => 'row', topic => 'values.number');
INSERT INTO "values".number (number)
    SELECT sign * (digits / power(10::numeric, shift))::numeric FROM
        (VALUES (0::numeric), (1), (9), (10), (99), (9999), (10000), (10001), (99999999), (100000000), (123456789012345678901234567890), (5e200), (7e252), (1e300)) d(digits),
        (VALUES (0), (1), (2), (3), (4), (5), (7), (8), (9), (30), (63), (64), (65), (100), (260)) s(shift), (VALUES (1), (-1)) g(sign);
INSERT INTO "values".number (number)
    SELECT round(trunc(i * 7919 * 0.0001234567, i % 11) * power(10::numeric, i % 23 - 11), i % 31) FROM generate_series(1, 3000) i;
INSERT INTO "values".number (number) VALUES ('NaN'), ('Infinity'), ('-Infinity'), (NULL), (0.00), (-0.0001), (1e-63), (1e-64), (1e-1000), (1e1000), (1e131071);
SELECT n.id, e.payload, to_json(n) FROM "values".number n LEFT JOIN eventbus.event e
    ON e.topic = 'values.number' AND (e.payload::json->>'id')::int = n.id WHERE e.payload IS DISTINCT FROM to_json(n)::text;
SELECT count(*) FROM eventbus.event WHERE topic = 'values.number';
INSERT INTO "values".document (document) SELECT jsonb_agg(number ORDER BY id) FROM "values".number WHERE number > '-Infinity' AND number < 'Infinity';
SELECT count(*) FROM "values".document d JOIN eventbus.event e ON e.topic = 'values.document' AND (e.payload::json->>'id')::int = d.id WHERE d.id = 48 AND e.payload = to_json(d)::text;

SELECT eventbus.drop_route('values');
SELECT eventbus.drop_broker('values');
DROP SCHEMA "values" CASCADE;

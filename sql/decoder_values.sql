-- The output plugin: what values become that are made of others, and whose functions are called for them.
CREATE SCHEMA made_of;
SET search_path = made_of, public;
SET timezone = 'UTC';
SELECT 'made' FROM pg_create_logical_replication_slot('decoder_values', 'pg_eventbus');
CREATE FUNCTION decoded_rows() RETURNS TABLE (after json) LANGUAGE sql AS
    $$ SELECT data::json -> 'after'
       FROM pg_logical_slot_get_changes('decoder_values', NULL, NULL, 'tables', 'made_of.*') $$;
CREATE TYPE pair AS (a integer, b text);
CREATE DOMAIN small AS integer;

-- A conversion to json in a language that may look into tables is not called, nor one that looks for it itself: neither
-- for a column nor within what it is made of.
CREATE TYPE odd AS ENUM ('one', 'two');
CREATE TYPE even AS ENUM ('zero');
CREATE DOMAIN strange AS odd[];
CREATE TYPE odds AS (o odd, e even, s strange);
CREATE DOMAIN oddity AS odds;
CREATE TYPE odd_range AS RANGE (subtype = odd, multirange_type_name = odd_ranges);
CREATE FUNCTION odd_range_json(odd_range) RETURNS json LANGUAGE plpgsql AS $$ BEGIN RETURN 'false'; END $$;
CREATE CAST (odd_range AS json) WITH FUNCTION odd_range_json(odd_range);
CREATE CAST (even AS json) WITH FUNCTION to_json(anyelement);
CREATE TABLE odd_table (o odd, e even, a odd[], s strange, p odds, pa odds[], d oddity, r odd_range, ra odd_ranges);
CREATE FUNCTION odd_json(odd) RETURNS json LANGUAGE sql AS $$ SELECT to_json(count(*)) FROM odd_table $$;
CREATE CAST (odd AS json) WITH FUNCTION odd_json(odd);
INSERT INTO odd_table VALUES (
    'two', 'zero', '{two,NULL}', '{{one},{two}}', ROW('two', 'zero', '{one}'), ARRAY[ROW('two', 'zero', NULL)::odds, NULL],
    ROW('one', NULL, '{}'), '[one,two]', '{[one,one]}');
SELECT after FROM decoded_rows();

-- Arrays and rows are what to_json makes of them.
CREATE TABLE of_table (gone integer, a date, "odd ""name" "char"[]);
ALTER TABLE of_table DROP gone;
CREATE TYPE deep AS (p pair, pa pair[], t of_table, n numeric);
CREATE TABLE nested (
    id integer, b boolean[], n numeric[], f float8[], d date[], ts timestamp[], tz timestamptz[], u uuid[], j json[], jb jsonb[],
    by bytea[], r int4range[], v int2vector, na name[], ch "char"[], iv interval[], x xml[], t text[], c char(3)[], s small[],
    l int8[], deep deep, deeper deep[]);
INSERT INTO nested VALUES
    (1, '{t,f,NULL}', '{NaN,1.50,-0.001,Infinity}', '{NaN,1e300,-Infinity,0.1}', '{infinity,2024-02-29,0044-03-15 BC}',
     '{2024-02-29 12:00:00.5,-infinity}', '{2024-02-29 12:00+02}', '{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}',
     '{"{\"a\":  [1, null]}"}', '{"{\"a\":  [1, null]}","7"}', '{"\\x00ff"}', '{"[1,5)",empty}', '1 2', '{"a \"b"}',
     '{a,b}', '{1 day}', '{<a>\"b\"</a>}', '[0:1][2:3]={{a,"b\\\\c"},{NULL,""}}', '{a,bcd}', '{7}', '{9223372036854775807}',
     ROW(ROW(1, 'x, "y"'), ARRAY[ROW(2, NULL)::pair, NULL], ROW('2024-02-29', '{a}'), 1.50),
     ARRAY[[ROW(NULL, '{}', NULL, 'NaN')::deep], [ROW(ROW(1, repeat('long', 2000)), NULL, ROW(NULL, NULL), NULL)::deep]]),
    (2, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}',
     NULL, '{}');
SELECT nested.id, count(*) AS columns, string_agg(theirs.key, ' ') FILTER (WHERE theirs.value::text <> ours.value::text) AS differ
FROM decoded_rows() d JOIN nested ON nested.id = (d.after ->> 'id')::integer, json_each(d.after) ours
JOIN LATERAL json_each(row_to_json(nested)) theirs USING (key) GROUP BY nested.id ORDER BY nested.id;
-- Also within a column, as they were at the time of the change
BEGIN;
INSERT INTO nested (id, deep) VALUES (3, ROW(ROW(1, 'x'), NULL, ROW('2024-02-29', NULL), 1));
ALTER TYPE pair RENAME ATTRIBUTE a TO z;
INSERT INTO nested (id, deep) VALUES (4, ROW(ROW(1, 'x'), NULL, NULL, 1));
ALTER TYPE pair ADD ATTRIBUTE more text;
INSERT INTO nested (id, deep) VALUES (5, ROW(ROW(1, 'x', 'y'), NULL, NULL, 1));
ALTER TYPE deep DROP ATTRIBUTE n;
INSERT INTO nested (id, deep) VALUES (6, ROW(ROW(1, 'x', 'y'), NULL, NULL));
ALTER TABLE of_table ADD COLUMN late integer;
INSERT INTO nested (id, deep) SELECT 7, deep FROM nested WHERE id = 3;
COMMIT;
SELECT after -> 'id' AS id, after -> 'deep' AS deep FROM decoded_rows();

SELECT 'gone' FROM pg_drop_replication_slot('decoder_values');
SET client_min_messages = warning;
DROP SCHEMA made_of CASCADE;
RESET client_min_messages;
RESET search_path;
RESET timezone;

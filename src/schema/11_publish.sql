
-- Publishing. Applications have payloads, keys and headers of several types: each argument is taken as text, which a
-- literal, NULL or a parameter without a type becomes, or as "any", which takes what is no text. Of the functions that
-- a call fits, the one with texts comes first. Only where headers are a text may a call leave the key or them out, so
-- that no two functions fit; headers that are json or jsonb and come without a key have functions of their own. The
-- update from 0.1 reads this file as well.
DO $$
DECLARE
    made record;
BEGIN
    FOR made IN
        WITH kind (name, returns, payloads, rest, says) AS (VALUES
            ('publish', 'bigint', '{text,"\"any\""}'::text[], '',
             'publishes a JSON event in the current transaction; returns its id. topic: words joined by dots, 1 to 255 bytes; payload: json or a text that is JSON, sent as written, or jsonb, at most eventbus.max_payload (54000); key: of any type, its text is at most 1024 bytes; order is kept among events of one key; headers: a JSON object (json, jsonb or text), at most 1 MB, 100 deep. Errors: 22004 topic or payload is null; 22P02 payload or headers are no JSON; 42804 an argument of another type; 42501 a topic that is not granted (eventbus.allow). Delivered after COMMIT, never after ROLLBACK'),
            ('publish_wal', 'pg_lsn', '{text,"\"any\""}', '',
             'publishes a JSON event as a message in the WAL and nothing else: for routes with "source": "wal", which deliver it after COMMIT and never after ROLLBACK; others do not see it. Arguments and errors as of eventbus.publish; an error (55000) unless wal_level is logical. Returns where the message ends in the WAL (the event''s id, <commit LSN>-<n>, is known once it has committed)'),
            ('publish_now', 'pg_lsn', '{text,"\"any\""}', '',
             'as eventbus.publish_wal, but at once: the event is on disk when the call returns, and is delivered whatever becomes of the transaction'),
            ('publish_text', 'bigint', '{text}', ', content_type text DEFAULT ''text/plain''',
             'publishes a text event, sent as UTF-8; content_type: a MIME type, 1 to 255 bytes; otherwise as eventbus.publish'),
            ('publish_bytes', 'bigint', '{bytea}', ', content_type text DEFAULT ''application/octet-stream''',
             'publishes an event of arbitrary bytes, sent as they are; content_type: a MIME type, 1 to 255 bytes; otherwise as eventbus.publish')),
        form (name, returns, says, arguments) AS (
            SELECT name, returns, says,
                   pg_catalog.format('topic text, payload %s, key %s%s, headers %s%s', payload,
                                     key, CASE WHEN key = 'text' AND headers = 'text' THEN ' DEFAULT NULL' END,
                                     headers, CASE WHEN headers = 'text' THEN ' DEFAULT NULL' END) || rest
            FROM kind, pg_catalog.unnest(payloads) payload, (VALUES ('text'), ('"any"')) k (key), (VALUES ('text'), ('"any"')) h (headers)
            UNION ALL
            SELECT name, returns, says, pg_catalog.format('topic text, payload %s, headers %s', payload, headers) || rest
            FROM kind, pg_catalog.unnest(payloads) payload, (VALUES ('json'), ('jsonb')) h (headers)
            UNION ALL  -- what 0.1 had, and views and functions may hold on to
            SELECT name, returns, says,
                   CASE WHEN rest = '' THEN 'topic text, payload jsonb, key text DEFAULT NULL, headers jsonb DEFAULT NULL'
                        ELSE pg_catalog.format('topic text, payload %s, key text, headers jsonb, content_type text', payloads[1]) END
            FROM kind
            UNION ALL  -- or that one would be taken for its headers, and make a payload without a type a jsonb
            SELECT name, returns, says, 'topic text, payload text, key text, headers jsonb' FROM kind WHERE rest = '')
        SELECT *, 'eventbus.' || name || '(' || pg_catalog.regexp_replace(arguments, ' DEFAULT [^,]*', '', 'g') || ')' AS signature FROM form
    LOOP
        EXECUTE pg_catalog.format('CREATE OR REPLACE FUNCTION eventbus.%s(%s) RETURNS %s LANGUAGE C VOLATILE PARALLEL UNSAFE AS ''MODULE_PATHNAME'', %L',
                                  made.name, made.arguments, made.returns, 'eventbus_' || made.name);
        EXECUTE pg_catalog.format('COMMENT ON FUNCTION %s IS %L', made.signature, made.says);
    END LOOP;
END
$$;

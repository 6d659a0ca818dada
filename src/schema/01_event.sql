
-- What the log holds, for the eye. The update from 0.1 reads this file as well.

-- What captures store is shorter than what they publish: control characters stand for what the envelopes have in common
-- (src/source/log/payload_tokens.cpp), and headers that follow from other columns are not there.
CREATE OR REPLACE FUNCTION eventbus.captured_payload(stored text, topic text, xid xid8, published_at timestamptz) RETURNS text
    LANGUAGE C STABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'eventbus_captured_payload';
COMMENT ON FUNCTION eventbus.captured_payload(text, text, xid8, timestamptz) IS
    'the payload of a captured event as it is delivered, made of its columns in the log, for the view eventbus.event, whose readers need EXECUTE on it. Reads nothing. Errors: 54000 the payload is longer than 1 GB';

CREATE OR REPLACE VIEW eventbus.event AS
    SELECT id, topic, key,
           CASE
               WHEN payload_text IS NULL THEN payload_json::text
               WHEN content_type IS NOT NULL THEN payload_text
               ELSE eventbus.captured_payload(payload_text, topic, xid, published_at)
           END COLLATE pg_catalog."C" AS payload,
           coalesce(content_type, 'application/json') AS content_type,
           CASE
               WHEN captured_by IS NULL THEN headers
               ELSE coalesce(headers, '{}') || pg_catalog.jsonb_build_object('pg-txid', xid::text::numeric, 'pg-user', captured_by)
           END AS headers,
           published_at
    FROM (
        SELECT * FROM eventbus.log_0
        UNION ALL
        SELECT * FROM eventbus.log_1
        UNION ALL
        SELECT * FROM eventbus.log_2
        UNION ALL
        SELECT * FROM eventbus.log_3
    ) log;
COMMENT ON VIEW eventbus.event IS 'what the log still holds: events stay until every route has passed them and eventbus.retention has gone by';
COMMENT ON COLUMN eventbus.event.id IS 'event id, as publish returned it and as messages carry it';
COMMENT ON COLUMN eventbus.event.topic IS 'what kind of event it is';
COMMENT ON COLUMN eventbus.event.key IS 'what the event is about; NULL where there is no key';
COMMENT ON COLUMN eventbus.event.payload IS 'the payload where it is text or JSON; NULL where it is bytes';
COMMENT ON COLUMN eventbus.event.content_type IS 'MIME type of the payload';
COMMENT ON COLUMN eventbus.event.headers IS 'the headers given to publish; NULL where there are none';
COMMENT ON COLUMN eventbus.event.published_at IS 'when publish was called (wall clock, not the transaction''s start)';

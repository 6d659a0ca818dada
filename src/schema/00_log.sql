\echo Use "CREATE EXTENSION pg_eventbus" to load this file. \quit

CREATE SCHEMA eventbus;
COMMENT ON SCHEMA eventbus IS 'pg_eventbus: events that are delivered to brokers once their transaction has committed';

-- The log: insert-only segments, used in turn and truncated. No index, no constraint, no vacuum: nothing in them is
-- ever updated or deleted. Columns up to published_at are read from the raw tuple (src/log/reader.cpp).
CREATE SEQUENCE eventbus.event_id;
COMMENT ON SEQUENCE eventbus.event_id IS 'ids of events; gaps are normal (rolled back transactions)';
CREATE SEQUENCE eventbus.log_generation START 4;
COMMENT ON SEQUENCE eventbus.log_generation IS 'which segment is current: value modulo 4; set by the keeper when it rotates';

DO $do$
BEGIN
    FOR i IN 0 .. 3 LOOP
        EXECUTE pg_catalog.format($sql$
            CREATE TABLE eventbus.log_%1$s (
                id           bigint      NOT NULL,
                xid          xid8        NOT NULL,
                published_at timestamptz NOT NULL,
                topic        text        NOT NULL,
                key          text,
                headers      jsonb,
                content_type text,
                payload_json  jsonb,
                payload_text  text,
                payload_bytes bytea
            ) WITH (autovacuum_enabled = off, toast.autovacuum_enabled = off, vacuum_truncate = off);
            ALTER TABLE eventbus.log_%1$s
                ALTER payload_json SET STORAGE EXTERNAL,
                ALTER payload_text SET STORAGE EXTERNAL,
                ALTER payload_bytes SET STORAGE EXTERNAL;
            COMMENT ON TABLE eventbus.log_%1$s IS 'a segment of the event log: insert-only, truncated in turn; read it through the view eventbus.event';
        $sql$, i);
    END LOOP;
END
$do$;

CREATE VIEW eventbus.event AS
    SELECT id, topic, key, coalesce(payload_json::text, payload_text) AS payload, coalesce(content_type, 'application/json') AS content_type, headers, published_at FROM eventbus.log_0
    UNION ALL
    SELECT id, topic, key, coalesce(payload_json::text, payload_text) AS payload, coalesce(content_type, 'application/json') AS content_type, headers, published_at FROM eventbus.log_1
    UNION ALL
    SELECT id, topic, key, coalesce(payload_json::text, payload_text) AS payload, coalesce(content_type, 'application/json') AS content_type, headers, published_at FROM eventbus.log_2
    UNION ALL
    SELECT id, topic, key, coalesce(payload_json::text, payload_text) AS payload, coalesce(content_type, 'application/json') AS content_type, headers, published_at FROM eventbus.log_3;
COMMENT ON VIEW eventbus.event IS 'what the log still holds: events stay until every route has passed them and eventbus.retention has gone by';
COMMENT ON COLUMN eventbus.event.id IS 'event id, as publish returned it and as messages carry it';
COMMENT ON COLUMN eventbus.event.topic IS 'what kind of event it is';
COMMENT ON COLUMN eventbus.event.key IS 'what the event is about; NULL where there is no key';
COMMENT ON COLUMN eventbus.event.payload IS 'the payload where it is text or JSON; NULL where it is bytes';
COMMENT ON COLUMN eventbus.event.content_type IS 'MIME type of the payload';
COMMENT ON COLUMN eventbus.event.headers IS 'the headers given to publish; NULL where there are none';
COMMENT ON COLUMN eventbus.event.published_at IS 'when publish was called (wall clock, not the transaction''s start)';


-- The log: insert-only segments, used in turn and truncated. No index, no constraint, no vacuum: nothing in them is
-- ever updated or deleted. Columns up to published_at are read from the raw tuple (src/source/log/reader.cpp); the first eight
-- are those that most events have: without the others a tuple's header is shorter.
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
                payload_json  jsonb,
                payload_text  text,
                captured_by   text,
                headers       jsonb,
                content_type  text,
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

-- What captures store is shorter than what they publish: control characters stand for what the envelopes have in common
-- (src/source/log/phrases.cpp has the same list), and headers that follow from other columns are not there.
CREATE VIEW eventbus.event AS
    SELECT id, topic, key,
           CASE
               WHEN payload_text IS NULL THEN payload_json::text
               WHEN content_type IS NOT NULL THEN payload_text
               ELSE pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(payload_text,
                   E'\x06', pg_catalog.format(E'\x02"%s"\x03"%s"\x04%s\x05', pg_catalog.split_part(topic, '.', 1),
                       pg_catalog.split_part(topic, '.', 2),
                       pg_catalog.translate(pg_catalog.left(pg_catalog.split_part(topic, '.', 3), 1), 'i', 'c'))),
                   E'\x01', '{"before":null,"after":'),
                   E'\x02', (SELECT pg_catalog.format(',"source":{"version":"%s","connector":"postgresql","name":%s,"db":%s,"schema":',
                       (SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'pg_eventbus'),
                       pg_catalog.to_json(coalesce(nullif(pg_catalog.current_setting('eventbus.source', true), ''),
                           'postgresql://' || coalesce(nullif(pg_catalog.current_setting('cluster_name'), ''),
                               (SELECT system_identifier::text FROM pg_catalog.pg_control_system())) || '/' || pg_catalog.current_database())),
                       pg_catalog.to_json(pg_catalog.current_database()::text)))),
                   E'\x03', ',"table":'),
                   E'\x04', ',"txId":' || xid::text || ',"ts_ms":' || ms || ',"lsn":null,"snapshot":false},"op":"'),
                   E'\x05', '","ts_ms":' || ms)
           END AS payload,
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
    ) log, LATERAL (SELECT pg_catalog.trunc(extract(epoch FROM published_at) * 1000)::text AS ms) moment;
COMMENT ON VIEW eventbus.event IS 'what the log still holds: events stay until every route has passed them and eventbus.retention has gone by';
COMMENT ON COLUMN eventbus.event.id IS 'event id, as publish returned it and as messages carry it';
COMMENT ON COLUMN eventbus.event.topic IS 'what kind of event it is';
COMMENT ON COLUMN eventbus.event.key IS 'what the event is about; NULL where there is no key';
COMMENT ON COLUMN eventbus.event.payload IS 'the payload where it is text or JSON; NULL where it is bytes';
COMMENT ON COLUMN eventbus.event.content_type IS 'MIME type of the payload';
COMMENT ON COLUMN eventbus.event.headers IS 'the headers given to publish; NULL where there are none';
COMMENT ON COLUMN eventbus.event.published_at IS 'when publish was called (wall clock, not the transaction''s start)';


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


-- Events that no route took: written by the keeper when it releases a segment, in the same transaction. Not dumped: it
-- is information, not configuration. The update from 0.1 reads this file as well.
CREATE TABLE eventbus.unrouted_store (
    topic    text        COLLATE pg_catalog."C" PRIMARY KEY,
    events   bigint      NOT NULL,
    first_at timestamptz NOT NULL,
    last_at  timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE eventbus.unrouted_store IS 'events that no route took, counted by topic; read eventbus.unrouted instead';

CREATE VIEW eventbus.unrouted AS SELECT topic, events, first_at, last_at FROM eventbus.unrouted_store;
COMMENT ON VIEW eventbus.unrouted IS 'events of the log that no route took, a row a topic, the 100 topics whose events are the last: counted when they leave the log, which is a minute or so after they were published, or when slower routes and eventbus.retention release it. What a paused or held route will take is not counted; nor is what publish_wal and publish_now publish, or changes in the WAL. Survives restarts and crashes; not in dumps. Rows go when 100 other topics have later events, or when the extension''s owner DELETEs them here';
COMMENT ON COLUMN eventbus.unrouted.topic IS 'the events'' topic; eventbus.routes_for(topic) shows whether a route takes it by now';
COMMENT ON COLUMN eventbus.unrouted.events IS 'how many events of the topic have left the log since first_at without a route that took them; set back only with the row';
COMMENT ON COLUMN eventbus.unrouted.first_at IS 'when the first of them was published';
COMMENT ON COLUMN eventbus.unrouted.last_at IS 'when the last of them was published';

CREATE SEQUENCE eventbus.unrouted_after MINVALUE 0 START 0;
COMMENT ON SEQUENCE eventbus.unrouted_after IS 'events up to this id are not counted in eventbus.unrouted: since they were published a route was dropped, or its topics changed, that may have taken them';

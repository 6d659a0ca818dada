
-- Events that no route took: written by the keeper when it lets go of a segment, in the same transaction. Not dumped: it
-- is information, not configuration. The update from 0.1 reads this file as well.
CREATE TABLE eventbus.unrouted (
    topic    text        COLLATE pg_catalog."C" PRIMARY KEY,
    events   bigint      NOT NULL,
    first_at timestamptz NOT NULL,
    last_at  timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE eventbus.unrouted IS 'events of the log that no route took, a row a topic, the 100 topics of the last such events: counted when they leave the log, which is a minute or so after they were published, or once slower routes and eventbus.retention let go of them. Events that a paused or held route will take are not among them; those of publish_wal and publish_now, and changes in the WAL, never are. Rows go when 100 other topics are younger; the extension''s owner may DELETE them. Survives restarts; not in dumps';
COMMENT ON COLUMN eventbus.unrouted.topic IS 'the events'' topic; eventbus.routes_for(topic) shows whether a route takes it by now';
COMMENT ON COLUMN eventbus.unrouted.events IS 'how many events of the topic left the log since first_at without a route that took them; set back only with the row';
COMMENT ON COLUMN eventbus.unrouted.first_at IS 'when the first of them was published';
COMMENT ON COLUMN eventbus.unrouted.last_at IS 'when the last of them was published';

CREATE SEQUENCE eventbus.unrouted_after MINVALUE 0 START 0;
COMMENT ON SEQUENCE eventbus.unrouted_after IS 'events up to this id are not counted in eventbus.unrouted: since they were published a route was dropped, or its topics changed, that may have taken them';

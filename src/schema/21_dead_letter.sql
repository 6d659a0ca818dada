
-- What the table of dead letters shows. The update from 0.1 reads this file as well.
CREATE OR REPLACE VIEW eventbus.dead_letter AS
    SELECT CASE WHEN d.lsn = '0/0' THEN d.number END AS event_id, r.name AS route, d.topic, d.key,
           coalesce(d.payload_text, pg_catalog.encode(d.payload_bytes, 'base64')) AS payload,
           d.headers, d.error, d.attempts, d.failed_at,
           i.id AS message_id, d.incomplete, d.headers_text, i.id
    FROM eventbus.dead_letter_store d JOIN eventbus.route_config r ON r.id = d.route_id,
         LATERAL (SELECT CASE WHEN d.lsn = '0/0' THEN d.number::text ELSE d.lsn || '-' || d.number END) i (id)
    WHERE NOT d.requeued;
COMMENT ON VIEW eventbus.dead_letter IS 'events that a broker refused for good, a row an event and route; see eventbus.redeliver and eventbus.discard';
COMMENT ON COLUMN eventbus.dead_letter.event_id IS 'the number of an event of the log; NULL for one from the WAL, which has none: see id';
COMMENT ON COLUMN eventbus.dead_letter.id IS 'event id, as messages carry it and redeliver and discard want it: the number of an event of the log, 17; <commit LSN>-<n> of one from the WAL, 0/16B3748-3';
COMMENT ON COLUMN eventbus.dead_letter.message_id IS 'the same as id';
COMMENT ON COLUMN eventbus.dead_letter.route IS 'the route on which it was refused';
COMMENT ON COLUMN eventbus.dead_letter.topic IS 'the event''s topic';
COMMENT ON COLUMN eventbus.dead_letter.key IS 'the event''s key';
COMMENT ON COLUMN eventbus.dead_letter.payload IS 'the payload as it was sent; what was published as bytes, text or not, is shown in base64';
COMMENT ON COLUMN eventbus.dead_letter.headers IS 'the event''s headers; NULL: there are none, or see headers_text';
COMMENT ON COLUMN eventbus.dead_letter.headers_text IS 'headers that jsonb cannot hold, as the JSON text that they are; otherwise NULL. redeliver sends them as they are';
COMMENT ON COLUMN eventbus.dead_letter.error IS 'what the broker said, or why the event could not be read';
COMMENT ON COLUMN eventbus.dead_letter.incomplete IS 'whether this is only what could be kept of an event that could not be read or stored as a whole (a payload that is not there is NULL); such a one is never sent again';
COMMENT ON COLUMN eventbus.dead_letter.attempts IS 'how often it was offered to the broker in all; max_attempts counts only attempts beside which something else was delivered, so this may be more';
COMMENT ON COLUMN eventbus.dead_letter.failed_at IS 'when it was refused for good';

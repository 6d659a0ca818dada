
-- What is continuing. The update from 0.1 reads this file as well.
CREATE OR REPLACE FUNCTION eventbus.delivery_status(
        OUT route_id integer, OUT state text, OUT delivered bigint, OUT dead bigint, OUT retries bigint, OUT skipped bigint, OUT in_flight integer,
        OUT lag interval, OUT last_delivered_at timestamptz, OUT last_error text, OUT last_error_at timestamptz, OUT sender_pid integer,
        OUT throughput double precision, OUT latency_p50 interval, OUT latency_p99 interval, OUT dead_letters bigint,
        OUT events_waiting bigint, OUT bytes_waiting bigint, OUT waiting_estimated boolean, OUT paused_since timestamptz,
        OUT next_attempt_at timestamptz, OUT last_error_before text, OUT last_error_before_at timestamptz)
    RETURNS SETOF record LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_delivery_status';
COMMENT ON FUNCTION eventbus.delivery_status() IS 'what the senders of this database report of their routes; the view eventbus.status gives it names';

CREATE OR REPLACE VIEW eventbus.status AS
    SELECT r.name AS route, b.name AS broker,
           s.state, s.delivered, s.dead, s.retries, s.skipped, s.in_flight, s.lag, s.last_delivered_at, s.last_error, s.last_error_at, s.sender_pid,
           s.throughput, s.latency_p50, s.latency_p99, s.dead_letters, s.events_waiting, s.bytes_waiting, s.waiting_estimated,
           s.paused_since, s.next_attempt_at, s.last_error_before, s.last_error_before_at
    FROM eventbus.delivery_status() s
    JOIN eventbus.route_config r ON r.id = s.route_id
    JOIN eventbus.broker_config b ON b.id = r.broker_id;
COMMENT ON VIEW eventbus.status IS 'a row a route: how delivery goes';
COMMENT ON COLUMN eventbus.status.route IS 'the route''s name';
COMMENT ON COLUMN eventbus.status.broker IS 'the broker''s name';
COMMENT ON COLUMN eventbus.status.state IS 'active | connecting | retrying (the broker is down, or a proxy answers in its place; we try again) | blocked (the broker asked us to wait) | held (refused until settings are fixed, tried again slowly) | paused | starting (from the WAL: the slot is being made, last_error says whom it waits for) | failing (from the WAL: it cannot be read, or standbys that must have it first lag; we try again) | lost (from the WAL: the slot is gone, see restart_route) | stopped (no sender runs)';
COMMENT ON COLUMN eventbus.status.delivered IS 'events that the broker has acknowledged, since the route was created; never set back, repetitions count';
COMMENT ON COLUMN eventbus.status.dead IS 'how often events became dead letters, since the route was created; not lowered by redeliver or discard: dead_letters has what is there now';
COMMENT ON COLUMN eventbus.status.retries IS 'how often an event was offered again, since the route was created; never set back';
COMMENT ON COLUMN eventbus.status.skipped IS 'events that were left out because the log was full (eventbus.on_log_full = skip), since the route was created; never set back';
COMMENT ON COLUMN eventbus.status.in_flight IS 'events offered to the broker and not yet acknowledged';
COMMENT ON COLUMN eventbus.status.lag IS 'age of the oldest event that is not settled; 0 where there is none. Of a route from the WAL that is behind in reading, how long ago it had read all that there was; NULL where nobody can tell: it has no sender, or is lost';
COMMENT ON COLUMN eventbus.status.last_delivered_at IS 'when the broker last acknowledged an event';
COMMENT ON COLUMN eventbus.status.last_error IS 'what is wrong, in the broker''s words or of reading the WAL; NULL once the route has been active for a minute without another error, until there is one: it is in last_error_before then. Of a route that is starting, whom it waits for';
COMMENT ON COLUMN eventbus.status.last_error_at IS 'when that was; NULL with it';
COMMENT ON COLUMN eventbus.status.sender_pid IS 'process id of the sender; NULL where none runs';
COMMENT ON COLUMN eventbus.status.throughput IS 'events a second that the broker has acknowledged, over the last minute (60 to 70 s)';
COMMENT ON COLUMN eventbus.status.latency_p50 IS 'from commit to the broker''s acknowledgement, the median over the last five minutes, within 10 %; NULL where nothing was delivered. Commit is estimated: never too late, too early by at most the time since the sender last looked into the log (eventbus.safety_poll), and only for transactions that stay open after publish';
COMMENT ON COLUMN eventbus.status.latency_p99 IS 'the same, the 99th percentile';
COMMENT ON COLUMN eventbus.status.dead_letters IS 'dead letters that are there now, without those that were put back to be delivered; NULL while somebody has locked their table';
COMMENT ON COLUMN eventbus.status.events_waiting IS 'events of the log that are committed and not settled, and those that redeliver has put back; counted where they are at most 10000, see waiting_estimated. NULL of a route from the WAL, where nobody has counted them, and of one whose row cannot be used';
COMMENT ON COLUMN eventbus.status.bytes_waiting IS 'bytes of their payloads; of a route from the WAL, bytes of WAL that were written since its cursor, whatever they are of. NULL where nobody can tell';
COMMENT ON COLUMN eventbus.status.waiting_estimated IS 'whether these two are estimates: taken from the oldest 10000 (or 20000 that other routes take) and from how many ids were given since';
COMMENT ON COLUMN eventbus.status.paused_since IS 'since when the route is paused; NULL: it is not, or was by version 0.1';
COMMENT ON COLUMN eventbus.status.next_attempt_at IS 'when the broker is connected to again, the route that is held tried again, or the next event that was refused for the time being offered again; NULL: nothing waits for a time of its own';
COMMENT ON COLUMN eventbus.status.last_error_before IS 'the last error of a route that has been active for a minute since, whatever its state is by now; NULL: there was none, or it is in last_error';
COMMENT ON COLUMN eventbus.status.last_error_before_at IS 'when that was';

CREATE OR REPLACE FUNCTION eventbus.health(OUT name text, OUT level text, OUT detail text, OUT hint text)
    RETURNS SETOF record LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_health';
COMMENT ON FUNCTION eventbus.health() IS 'a row a check: level is ok, warning or error; hint says what to do';

-- Tells the launcher, at commit, that there is something to serve here.
CREATE OR REPLACE FUNCTION eventbus.wake_workers() RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'eventbus_wake_workers';
COMMENT ON FUNCTION eventbus.wake_workers() IS 'at commit, makes the workers look at the configuration again; every function that changes it calls it by itself';

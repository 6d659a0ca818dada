
-- What is going on.
CREATE FUNCTION eventbus.route_status(
        OUT route_id integer, OUT state text, OUT delivered bigint, OUT dead bigint, OUT retries bigint, OUT skipped bigint, OUT in_flight integer,
        OUT lag interval, OUT last_delivered_at timestamptz, OUT last_error text, OUT last_error_at timestamptz, OUT sender_pid integer,
        OUT throughput double precision, OUT latency_p50 interval, OUT latency_p99 interval)
    RETURNS SETOF record LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_route_status';
COMMENT ON FUNCTION eventbus.route_status() IS 'what the senders of this database report of their routes; the view eventbus.status gives it names';

CREATE VIEW eventbus.status AS
    SELECT r.name AS route, b.name AS broker,
           s.state, s.delivered, s.dead, s.retries, s.skipped, s.in_flight, s.lag, s.last_delivered_at, s.last_error, s.last_error_at, s.sender_pid,
           s.throughput, s.latency_p50, s.latency_p99
    FROM eventbus.route_status() s
    JOIN eventbus.route_config r ON r.id = s.route_id
    JOIN eventbus.broker_config b ON b.id = r.broker_id;
COMMENT ON VIEW eventbus.status IS 'a row a route: how delivery goes';
COMMENT ON COLUMN eventbus.status.route IS 'the route''s name';
COMMENT ON COLUMN eventbus.status.broker IS 'the broker''s name';
COMMENT ON COLUMN eventbus.status.state IS 'active | connecting | retrying (the broker is down, or a proxy answers in its place; we try again) | blocked (the broker asked us to wait) | held (refused until settings are mended, tried again slowly) | paused | starting (from the WAL: the slot is being made, last_error says whom it waits for) | failing (from the WAL: it cannot be read, or standbys that must have it first lag; we try again) | lost (from the WAL: the slot is gone, see restart_route) | stopped (no sender runs)';
COMMENT ON COLUMN eventbus.status.delivered IS 'events that the broker has acknowledged';
COMMENT ON COLUMN eventbus.status.dead IS 'how often events became dead letters; not lowered by redeliver or discard: eventbus.dead_letter and health() have what is there now';
COMMENT ON COLUMN eventbus.status.retries IS 'how often an event was offered again';
COMMENT ON COLUMN eventbus.status.skipped IS 'events that were left out because the log was full (eventbus.on_log_full = skip)';
COMMENT ON COLUMN eventbus.status.in_flight IS 'events offered to the broker and not yet acknowledged';
COMMENT ON COLUMN eventbus.status.lag IS 'age of the oldest event that is not settled; 0 where there is none. Of a route from the WAL that is behind in reading, how long ago it had read all that there was; NULL where nobody can tell: it has no sender, or is lost';
COMMENT ON COLUMN eventbus.status.last_delivered_at IS 'when the broker last acknowledged an event';
COMMENT ON COLUMN eventbus.status.last_error IS 'what last went wrong, in the broker''s words or of reading the WAL; stays when it is over. Of a route that is starting, whom it waits for';
COMMENT ON COLUMN eventbus.status.last_error_at IS 'when that was';
COMMENT ON COLUMN eventbus.status.sender_pid IS 'process id of the sender; NULL where none runs';
COMMENT ON COLUMN eventbus.status.throughput IS 'events a second that the broker has acknowledged, over the last minute (60 to 70 s)';
COMMENT ON COLUMN eventbus.status.latency_p50 IS 'from commit to the broker''s acknowledgement, the median over the last five minutes, within 10 %; NULL where nothing was delivered. Commit is estimated: never too late, too early by at most the time since the sender last looked into the log (eventbus.safety_poll), and only for transactions that stay open after publish';
COMMENT ON COLUMN eventbus.status.latency_p99 IS 'the same, the 99th percentile';

CREATE FUNCTION eventbus.health(OUT name text, OUT level text, OUT detail text, OUT hint text)
    RETURNS SETOF record LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_health';
COMMENT ON FUNCTION eventbus.health() IS 'a row a check: level is ok, warning or error; hint says what to do';

-- Tells the launcher, at commit, that there is something to serve here.
CREATE FUNCTION eventbus.wake_workers() RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'eventbus_wake_workers';
COMMENT ON FUNCTION eventbus.wake_workers() IS 'at commit, makes the workers look at the configuration anew; every function that changes it calls it by itself';

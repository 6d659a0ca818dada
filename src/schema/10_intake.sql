
-- Waiting.
CREATE FUNCTION eventbus.wait_for_delivery(event_id bigint, timeout interval DEFAULT '10 s', route text DEFAULT NULL)
    RETURNS boolean LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_wait_for_delivery';
COMMENT ON FUNCTION eventbus.wait_for_delivery(bigint, interval, text) IS
    'waits until an event is delivered on every route that takes it, or on the one named. True: it is, or no route takes it, or the log no longer holds it and it is no dead letter. False: not within timeout (0 or less: looks once), or, at once, it is a dead letter on one of the routes, or was left out there because the log was full (eventbus.on_log_full = skip; as long as the log holds it). Routes are those that exist at the call; one created after the event does not count. Errors: in the transaction that publishes the event; an id not given out; an event rolled back; a route that does not exist or does not take the event; on a standby; without preload; more than 256 sessions waiting';
CREATE FUNCTION eventbus.wait_for_delivery(lsn pg_lsn, timeout interval DEFAULT '10 s', route text DEFAULT NULL)
    RETURNS boolean LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_wait_for_delivery_lsn';
COMMENT ON FUNCTION eventbus.wait_for_delivery(pg_lsn, interval, text) IS
    'waits until all routes from the WAL, or the one named, have settled everything that committed before a place in the WAL: have delivered it, or stored it as a dead letter. For pg_current_wal_insert_lsn() after COMMIT; what the calling transaction itself has written commits later, and so does that of publish_wal behind the place that it returns. True: they have, or there is no such route. False: not within timeout (0 or less: looks once at what is written down), or, at once, a route is lost. Routes are those that exist at the call. Errors: a place that the WAL has not reached; a route that does not exist or is not from the WAL; on a standby; without preload; more than 256 sessions waiting';
CREATE FUNCTION eventbus.wait_for_delivery(event text, timeout interval DEFAULT '10 s', route text DEFAULT NULL)
    RETURNS boolean LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_wait_for_delivery_text';
COMMENT ON FUNCTION eventbus.wait_for_delivery(text, interval, text) IS
    'the same for a literal or a parameter without a type: the id of an event of the log (42) or a place in the WAL (0/16B3748)';

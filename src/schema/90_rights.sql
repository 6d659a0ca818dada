
-- The last file. Nobody but the owner has any rights until they are granted.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA eventbus FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA eventbus FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA eventbus FROM PUBLIC;
REVOKE ALL ON SCHEMA eventbus FROM PUBLIC;

-- Monitoring sees how delivery goes, and neither events nor brokers' credentials.
GRANT USAGE ON SCHEMA eventbus TO pg_monitor;
GRANT SELECT ON eventbus.status, eventbus.route, eventbus.broker, eventbus.captured, eventbus.allowed TO pg_monitor;
GRANT EXECUTE ON FUNCTION eventbus.route_status(), eventbus.health(), eventbus.redacted_url(text), eventbus.trigger_arguments(bytea) TO pg_monitor;

SELECT eventbus.wake_workers();

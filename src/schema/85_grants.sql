
-- What a role wants for its work, granted by one call.
CREATE OR REPLACE FUNCTION eventbus.grant_publisher(role regrole) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_grant_publisher';
COMMENT ON FUNCTION eventbus.grant_publisher(regrole) IS
    'lets a role publish and wait for delivery, and nothing else: GRANT EXECUTE on every form of publish, publish_text, publish_bytes, publish_wal, publish_now and wait_for_delivery, and USAGE on the schema. Which topics, eventbus.allow says. For whoever may GRANT these; 42501 otherwise';
CREATE OR REPLACE FUNCTION eventbus.revoke_publisher(role regrole) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_revoke_publisher';
COMMENT ON FUNCTION eventbus.revoke_publisher(regrole) IS
    'takes back what eventbus.grant_publisher grants';
CREATE OR REPLACE FUNCTION eventbus.grant_operator(role regrole) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_grant_operator';
COMMENT ON FUNCTION eventbus.grant_operator(regrole) IS
    'lets a role configure brokers and routes, read events and dead letters and send them again, and see what eventbus.grant_monitor shows. It may send events to every address that the server reaches. For whoever may GRANT these; 42501 otherwise';
CREATE OR REPLACE FUNCTION eventbus.revoke_operator(role regrole) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_revoke_operator';
COMMENT ON FUNCTION eventbus.revoke_operator(regrole) IS
    'takes back what eventbus.grant_operator grants, which includes what eventbus.grant_monitor does';
CREATE OR REPLACE FUNCTION eventbus.grant_monitor(role regrole) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_grant_monitor';
COMMENT ON FUNCTION eventbus.grant_monitor(regrole) IS
    'lets a role read status, health(), routes, brokers without passwords, captured tables, topic grants and topics without a route, and no event. Members of pg_monitor may without it. For whoever may GRANT these; 42501 otherwise';
CREATE OR REPLACE FUNCTION eventbus.revoke_monitor(role regrole) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_revoke_monitor';
COMMENT ON FUNCTION eventbus.revoke_monitor(regrole) IS
    'takes back what eventbus.grant_monitor grants';

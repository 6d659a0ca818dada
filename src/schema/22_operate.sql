
-- Brokers and routes are made and changed by these. The update from 0.1 reads this file as well.
CREATE OR REPLACE FUNCTION eventbus.home() RETURNS text
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_home';
COMMENT ON FUNCTION eventbus.home() IS
    'what tells this database from its copies: system identifier/database/number, the last of a server that began from a base backup or went back in time';

CREATE OR REPLACE FUNCTION eventbus.create_broker(name text, url text, options jsonb DEFAULT '{}') RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_create_broker';
COMMENT ON FUNCTION eventbus.create_broker(text, text, jsonb) IS
    'names a broker. url: scheme://[user[:password]@]host[:port][,host...][/path], scheme amqp, amqps, mqtt, mqtts, ws, wss (MQTT in a WebSocket), redis or rediss; options: password_file, ca_file, crl_file, cert_file, key_file, verify, tls_min_version (1.2, 1.3), connect_timeout, heartbeat (durations: seconds, or a text such as 90 s or 15 minutes), window (messages); AMQP and MQTT: confirm_timeout (duration); MQTT alone: version (5, 3.1.1), client_id (text), session_expiry (duration), will (object of topic, payload, qos, retain)';

CREATE OR REPLACE FUNCTION eventbus.alter_broker(name text, url text DEFAULT NULL, options jsonb DEFAULT NULL, replace boolean DEFAULT false) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_alter_broker';
COMMENT ON FUNCTION eventbus.alter_broker(text, text, jsonb, boolean) IS
    'changes a broker''s URL or options (NULL leaves what is). Options that are named replace those of the same name, one that is null goes, the others stay; with replace (default false) these are all that there are. Its sender reconnects within a second of the commit';

CREATE OR REPLACE FUNCTION eventbus.drop_broker(name text, cascade boolean DEFAULT false) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_drop_broker';
COMMENT ON FUNCTION eventbus.drop_broker(text, boolean) IS
    'forgets a broker; an error (2BP01) while routes use it, unless cascade (default false), which drops them, what waits for them and their dead letters too, and says so in a NOTICE';

CREATE OR REPLACE FUNCTION eventbus.create_route(name text, broker text, destination text, topics text DEFAULT '#', options jsonb DEFAULT '{}') RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_create_route';
COMMENT ON FUNCTION eventbus.create_route(text, text, text, text, jsonb) IS
    'sends events to a destination. destination: kind:template (exchange:, queue: | topic: | channel:, topic:, stream:, list:) with {topic}, {topic/}, {key}, {header:NAME}; topics: comma-separated patterns, * is one word, # zero or more; both, and a name that placeholders make, at most 64 kB; options: order, max_attempts, max_age, start, and what the broker''s protocol knows (routing_key, persistent | qos, retain | maxlen); "source": "wal" takes changes and messages from the WAL instead of the log, with tables, publication, operations, messages, format (debezium, wal2json, row) and origin (any, none), and wants the attribute REPLICATION. Takes every event that becomes visible from now on; "start": "earliest" takes what the log still holds as well';

CREATE OR REPLACE FUNCTION eventbus.alter_route(name text, destination text DEFAULT NULL, topics text DEFAULT NULL, options jsonb DEFAULT NULL, replace boolean DEFAULT false) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_alter_route';
COMMENT ON FUNCTION eventbus.alter_route(text, text, text, jsonb, boolean) IS
    'changes a route (NULL leaves what is). Options that are named replace those of the same name, one that is null goes, the others stay; with replace (default false) these are all that there are. Takes effect within a second of the commit for events not yet offered to the broker';

CREATE OR REPLACE FUNCTION eventbus.drop_route(name text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_drop_route';
COMMENT ON FUNCTION eventbus.drop_route(text) IS 'forgets a route, what waits for it and its dead letters, and says in a NOTICE how many these are';

CREATE OR REPLACE FUNCTION eventbus.pause_route(name text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_pause_route';
COMMENT ON FUNCTION eventbus.pause_route(text) IS 'stops delivery on a route; its events wait in the log or the WAL';

CREATE OR REPLACE FUNCTION eventbus.resume_route(name text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_resume_route';
COMMENT ON FUNCTION eventbus.resume_route(text) IS 'resumes a paused route where it stopped; tries a held route at once, and the WAL of one that is failing';

CREATE OR REPLACE FUNCTION eventbus.restart_route(name text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_restart_route';
COMMENT ON FUNCTION eventbus.restart_route(text) IS
    'lets a route from the WAL whose replication slot was lost (state lost) begin again, with what commits from now on; what was committed between its cursor and now is not delivered. An error for other routes';

CREATE OR REPLACE FUNCTION eventbus.redeliver(route text DEFAULT NULL, event_id bigint DEFAULT 0) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_redeliver';
COMMENT ON FUNCTION eventbus.redeliver(text, bigint) IS
    'sends dead letters again, with the same event id: all, those of a route (NULL: of all), or one by its event_id. Returns how many were put back. Each leaves the dead letters once the broker has taken it, or returns to them when it is refused again. Errors: 22004 event_id is null (that of an event from the WAL is: see the function with id)';
CREATE OR REPLACE FUNCTION eventbus.redeliver(route text, id text) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_redeliver_text';
COMMENT ON FUNCTION eventbus.redeliver(text, text) IS
    'the same by column id of eventbus.dead_letter: 17, or 0/16B3748-3 of an event from the WAL. Errors: 22004 id is null; 22023 it is no event id';

CREATE OR REPLACE FUNCTION eventbus.discard(route text DEFAULT NULL, event_id bigint DEFAULT 0) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_discard';
COMMENT ON FUNCTION eventbus.discard(text, bigint) IS 'deletes dead letters for good: all, those of a route (NULL: of all), or one by its event_id. Returns how many. Errors: 22004 event_id is null (that of an event from the WAL is: see the function with id)';
CREATE OR REPLACE FUNCTION eventbus.discard(route text, id text) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_discard_text';
COMMENT ON FUNCTION eventbus.discard(text, text) IS
    'the same by column id of eventbus.dead_letter: 17, or 0/16B3748-3 of an event from the WAL. Errors: 22004 id is null; 22023 it is no event id';

CREATE OR REPLACE FUNCTION eventbus.routes_for(topic text, key text DEFAULT NULL,
        OUT route text, OUT broker text, OUT destination text, OUT routing_key text, OUT state text)
    RETURNS SETOF record LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_routes_for';
COMMENT ON FUNCTION eventbus.routes_for(text, text) IS
    'where an event of a topic (and key) would go: a row a route that takes it, with its destination and routing key (AMQP; NULL elsewhere) as they would be rendered, headers being unknown as if there were none, and its state as in eventbus.status. No row: nobody takes it. Of a route from the WAL the topics are judged, not its tables and messages. Publishes nothing. Errors: 22004 topic is null; 22023 it is no topic';

CREATE OR REPLACE FUNCTION eventbus.wait_for_route(name text, timeout interval DEFAULT '10 s') RETURNS boolean
    LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_wait_for_route';
COMMENT ON FUNCTION eventbus.wait_for_route(text, interval) IS
    'waits until a route that has been committed takes what commits from now on and its broker is there: until its state is active. True: it is. False: not within timeout (0 or less: looks once), or, at once, it is lost or paused. Errors: 42704 it does not exist, or was made in this transaction; 55000 on a standby, or without preload';

CREATE OR REPLACE FUNCTION eventbus.test_broker(name text, OUT step text, OUT ok boolean, OUT detail text, OUT hint text)
    RETURNS SETOF record LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_test_broker';
COMMENT ON FUNCTION eventbus.test_broker(text) IS
    'connects to a broker now, from the calling session on this server, as its sender does, within 10 s in all, and sends no message. A row a step: connect, tls, websocket, login, broker (product, version, limits), or settings, where these cannot be used. ok: false, it has failed there, and nothing more was tried of that host; NULL: nobody can know before a message is published. hint: what to do; NULL: nothing. Of several hosts one after the other, until one lets us in. Changes nothing, also on a standby and in a read-only transaction. Errors: 42704 it does not exist';
CREATE OR REPLACE FUNCTION eventbus.test_route(name text, OUT step text, OUT ok boolean, OUT detail text, OUT hint text)
    RETURNS SETOF record LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_test_route';
COMMENT ON FUNCTION eventbus.test_route(text) IS
    'the same as test_broker of the route''s broker, and whether the destination is there and may be written to, as far as the broker tells without being sent a message: rows destination and permission. AMQP: a passive declare; Redis: TYPE or PUBSUB NUMSUB, and ACL DRYRUN of Redis 7.0; MQTT: QoS, retain, size and characters of the name. ok is NULL of what only a message shows, and of a destination whose name is made of each event. Writes nothing. Errors: 42704 it does not exist';

CREATE OR REPLACE FUNCTION eventbus.adopt(start text DEFAULT 'cursor') RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_adopt';
COMMENT ON FUNCTION eventbus.adopt(text) IS
    'delivers from this database to brokers that have come here by a dump or with a copy of it, to which nothing is delivered until then. start: cursor (default), routes resume where they stood when the copy was made: what waited then is delivered from here as well; or now, what waits is left out. Routes from the WAL whose slot did not come along begin again with what commits from now on. NOTICEs say what becomes of which route. Errors: 22023 another start; 42501 routes from the WAL without REPLICATION';

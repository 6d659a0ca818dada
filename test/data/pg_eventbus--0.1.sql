\echo Use "CREATE EXTENSION pg_eventbus" to load this file. \quit

CREATE SCHEMA eventbus;
COMMENT ON SCHEMA eventbus IS 'pg_eventbus: events that are delivered to brokers once their transaction has committed';

-- The log: insert-only segments, used in turn and truncated. No index, no constraint, no vacuum: nothing in them is
-- ever updated or deleted. Columns up to published_at are read from the raw tuple (src/log/reader.cpp); the first eight
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

-- What captures store is shorter than what they publish: control characters stand for what the envelopes have in common
-- (src/log/phrases.cpp has the same list), and headers that follow from other columns are not there.
CREATE VIEW eventbus.event AS
    SELECT id, topic, key,
           CASE
               WHEN payload_text IS NULL THEN payload_json::text
               WHEN content_type IS NOT NULL THEN payload_text
               ELSE pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(payload_text,
                   E'\x06', pg_catalog.format(E'\x02"%s"\x03"%s"\x04%s\x05', pg_catalog.split_part(topic, '.', 1),
                       pg_catalog.split_part(topic, '.', 2),
                       pg_catalog.translate(pg_catalog.left(pg_catalog.split_part(topic, '.', 3), 1), 'i', 'c'))),
                   E'\x01', '{"before":null,"after":'),
                   E'\x02', (SELECT pg_catalog.format(',"source":{"version":"%s","connector":"postgresql","name":%s,"db":%s,"schema":',
                       (SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'pg_eventbus'),
                       pg_catalog.to_json(coalesce(nullif(pg_catalog.current_setting('eventbus.source', true), ''),
                           'postgresql://' || coalesce(nullif(pg_catalog.current_setting('cluster_name'), ''),
                               (SELECT system_identifier::text FROM pg_catalog.pg_control_system())) || '/' || pg_catalog.current_database())),
                       pg_catalog.to_json(pg_catalog.current_database()::text)))),
                   E'\x03', ',"table":'),
                   E'\x04', ',"txId":' || xid::text || ',"ts_ms":' || ms || ',"lsn":null,"snapshot":false},"op":"'),
                   E'\x05', '","ts_ms":' || ms)
           END AS payload,
           coalesce(content_type, 'application/json') AS content_type,
           CASE
               WHEN captured_by IS NULL THEN headers
               ELSE coalesce(headers, '{}') || pg_catalog.jsonb_build_object('pg-txid', xid::text::numeric, 'pg-user', captured_by)
           END AS headers,
           published_at
    FROM (
        SELECT * FROM eventbus.log_0
        UNION ALL
        SELECT * FROM eventbus.log_1
        UNION ALL
        SELECT * FROM eventbus.log_2
        UNION ALL
        SELECT * FROM eventbus.log_3
    ) log, LATERAL (SELECT pg_catalog.trunc(extract(epoch FROM published_at) * 1000)::text AS ms) moment;
COMMENT ON VIEW eventbus.event IS 'what the log still holds: events stay until every route has passed them and eventbus.retention has gone by';
COMMENT ON COLUMN eventbus.event.id IS 'event id, as publish returned it and as messages carry it';
COMMENT ON COLUMN eventbus.event.topic IS 'what kind of event it is';
COMMENT ON COLUMN eventbus.event.key IS 'what the event is about; NULL where there is no key';
COMMENT ON COLUMN eventbus.event.payload IS 'the payload where it is text or JSON; NULL where it is bytes';
COMMENT ON COLUMN eventbus.event.content_type IS 'MIME type of the payload';
COMMENT ON COLUMN eventbus.event.headers IS 'the headers given to publish; NULL where there are none';
COMMENT ON COLUMN eventbus.event.published_at IS 'when publish was called (wall clock, not the transaction''s start)';

-- Publishing.
CREATE FUNCTION eventbus.publish(topic text, payload jsonb, key text DEFAULT NULL, headers jsonb DEFAULT NULL)
    RETURNS bigint LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'eventbus_publish';
COMMENT ON FUNCTION eventbus.publish(text, jsonb, text, jsonb) IS
    'publishes a JSON event in the current transaction; returns its id. topic: words joined by dots, 1 to 255 bytes; payload: at most eventbus.max_payload; key: order is kept among events of one key; headers: a JSON object. Delivered after COMMIT, never after ROLLBACK';

CREATE FUNCTION eventbus.publish_text(topic text, payload text, key text DEFAULT NULL, headers jsonb DEFAULT NULL, content_type text DEFAULT 'text/plain')
    RETURNS bigint LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'eventbus_publish_text';
COMMENT ON FUNCTION eventbus.publish_text(text, text, text, jsonb, text) IS
    'publishes a text event, sent as UTF-8; content_type: a MIME type, 1 to 255 bytes; otherwise as eventbus.publish';

CREATE FUNCTION eventbus.publish_bytes(topic text, payload bytea, key text DEFAULT NULL, headers jsonb DEFAULT NULL, content_type text DEFAULT 'application/octet-stream')
    RETURNS bigint LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'eventbus_publish_bytes';
COMMENT ON FUNCTION eventbus.publish_bytes(text, bytea, text, jsonb, text) IS
    'publishes an event of arbitrary bytes, sent as they are; content_type: a MIME type, 1 to 255 bytes; otherwise as eventbus.publish';

CREATE FUNCTION eventbus.publish_wal(topic text, payload jsonb, key text DEFAULT NULL, headers jsonb DEFAULT NULL)
    RETURNS pg_lsn LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'eventbus_publish_wal';
COMMENT ON FUNCTION eventbus.publish_wal(text, jsonb, text, jsonb) IS
    'publishes a JSON event as a message in the WAL and nothing else: for routes with "source": "wal", which deliver it after COMMIT and never after ROLLBACK; others do not see it. Arguments and errors as of eventbus.publish; an error unless wal_level is logical. Returns where the message ends in the WAL (the event''s id, <commit LSN>-<n>, is known once it has committed)';

CREATE FUNCTION eventbus.publish_now(topic text, payload jsonb, key text DEFAULT NULL, headers jsonb DEFAULT NULL)
    RETURNS pg_lsn LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'eventbus_publish_now';
COMMENT ON FUNCTION eventbus.publish_now(text, jsonb, text, jsonb) IS
    'as eventbus.publish_wal, but at once: the event is on disk when the call returns, and is delivered whatever becomes of the transaction';

-- Waiting.
CREATE FUNCTION eventbus.wait_for_delivery(event_id bigint, timeout interval DEFAULT '10 s', route text DEFAULT NULL)
    RETURNS boolean LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_wait_for_delivery';
COMMENT ON FUNCTION eventbus.wait_for_delivery(bigint, interval, text) IS
    'waits until an event is delivered on every route that takes it, or on the one named. True: it is, or no route takes it, or the log no longer holds it and it is no dead letter. False: not within timeout (0 or less: looks once), or, at once, it is a dead letter on one of the routes, or was left out there because the log was full (eventbus.on_log_full = skip; as long as the log holds it). Routes are those that exist at the call; one created after the event does not count. Errors: in the transaction that publishes the event; an id not given out; an event rolled back; a route that does not exist or does not take the event; on a standby; without preload; more than 256 sessions waiting';
-- Capture: triggers that make events of a table's changes, and event triggers that make events of DDL. The triggers
-- are all that is kept of a capture: dumps, renames and partitions need no help from us.
CREATE FUNCTION eventbus.publish_change() RETURNS trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'eventbus_publish_change';
COMMENT ON FUNCTION eventbus.publish_change() IS
    'trigger function: publishes the row that was inserted, updated or deleted. CREATE TRIGGER … AFTER … FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change(topic, ''name=value'', …); names: columns, headers, key, payload, unchanged. Also INSTEAD OF, and AFTER TRUNCATE FOR EACH STATEMENT. eventbus.capture makes such triggers';

CREATE FUNCTION eventbus.capture(
    relation   regclass,
    topic      text  DEFAULT '{schema}.{table}.{op}',
    operations text  DEFAULT 'insert, update, delete, truncate',
    columns    text  DEFAULT NULL,
    key        text  DEFAULT NULL,
    condition  text  DEFAULT NULL,
    payload    text  DEFAULT 'change',
    headers    jsonb DEFAULT NULL
) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'eventbus_capture';
COMMENT ON FUNCTION eventbus.capture(regclass, text, text, text, text, text, text, jsonb) IS
    'publishes every change of a table from now on; needs its ownership. topic: with {schema}, {table}, {op}; operations: some of insert, update, delete, truncate, and unchanged (UPDATEs that change nothing, too); columns: "a, b" these only, "-a, -b" all but these; key: columns whose values, joined by /, are the event''s key (default: replica identity or primary key); condition: SQL over OLD and NEW, a row that there is none of being null; payload: change (before and after, as Debezium has it), row or key; headers: a JSON object. A second call replaces the first';

CREATE FUNCTION eventbus.uncapture(relation regclass) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'eventbus_uncapture';
COMMENT ON FUNCTION eventbus.uncapture(regclass) IS 'ends what eventbus.capture began; an error where the table is not captured';

CREATE FUNCTION eventbus.trigger_arguments(tgargs bytea) RETURNS text[]
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'eventbus_trigger_arguments';
COMMENT ON FUNCTION eventbus.trigger_arguments(bytea) IS 'the texts of pg_trigger.tgargs';

CREATE VIEW eventbus.captured AS
    SELECT t.tgrelid::pg_catalog.regclass AS relation,
           t.arguments[1] AS topic,
           pg_catalog.concat_ws(', ',
               CASE WHEN pg_catalog.bool_or(t.tgtype & 4 <> 0) THEN 'insert' END,
               CASE WHEN pg_catalog.bool_or(t.tgtype & 16 <> 0) THEN 'update' END,
               CASE WHEN pg_catalog.bool_or(t.tgtype & 8 <> 0) THEN 'delete' END,
               CASE WHEN pg_catalog.bool_or(t.tgtype & 32 <> 0) THEN 'truncate' END,
               CASE WHEN 'unchanged=true' = ANY (t.arguments) THEN 'unchanged' END) AS operations,
           (SELECT pg_catalog.substr(a, 9) FROM pg_catalog.unnest(t.arguments[2:]) a WHERE a LIKE 'columns=%') AS columns,
           (SELECT pg_catalog.substr(a, 5) FROM pg_catalog.unnest(t.arguments[2:]) a WHERE a LIKE 'key=%') AS key,
           (pg_catalog.array_agg(t.condition ORDER BY t.tgtype & 16 DESC, t.tgtype & 4 DESC) FILTER (WHERE t.condition IS NOT NULL))[1] AS condition,
           coalesce((SELECT pg_catalog.substr(a, 9) FROM pg_catalog.unnest(t.arguments[2:]) a WHERE a LIKE 'payload=%'), 'change') AS payload,
           (SELECT pg_catalog.substr(a, 9)::pg_catalog.jsonb FROM pg_catalog.unnest(t.arguments[2:]) a WHERE a LIKE 'headers=%') AS headers,
           pg_catalog.array_agg(t.tgname ORDER BY t.tgname) AS triggers
    FROM (SELECT tgrelid, tgtype, tgname, eventbus.trigger_arguments(tgargs) AS arguments,
                 pg_catalog.substring(pg_catalog.pg_get_triggerdef(oid), 'WHEN \((.*)\) EXECUTE FUNCTION ') AS condition,
                 CASE WHEN tgname LIKE '00\_eventbus\_%' THEN '' ELSE tgname END AS made_by_hand
          FROM pg_catalog.pg_trigger
          WHERE tgfoid = 'eventbus.publish_change'::pg_catalog.regproc AND tgparentid = 0 AND NOT tgisinternal) t
    GROUP BY t.tgrelid, t.made_by_hand, t.arguments;
COMMENT ON VIEW eventbus.captured IS 'the tables whose changes are published, by eventbus.capture or by triggers made by hand';
COMMENT ON COLUMN eventbus.captured.relation IS 'the table';
COMMENT ON COLUMN eventbus.captured.topic IS 'the topic''s template';
COMMENT ON COLUMN eventbus.captured.operations IS 'which operations are published';
COMMENT ON COLUMN eventbus.captured.columns IS 'which columns are published; NULL: all';
COMMENT ON COLUMN eventbus.captured.key IS 'which columns make the key; NULL: the replica identity or the primary key';
COMMENT ON COLUMN eventbus.captured.condition IS 'which rows are published; NULL: all';
COMMENT ON COLUMN eventbus.captured.payload IS 'change, row or key';
COMMENT ON COLUMN eventbus.captured.headers IS 'headers that every event carries beside pg-txid and pg-user';
COMMENT ON COLUMN eventbus.captured.triggers IS 'the triggers behind it';

CREATE FUNCTION eventbus.follow_captured() RETURNS event_trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'eventbus_follow_captured';
COMMENT ON FUNCTION eventbus.follow_captured() IS 'event trigger function: keeps captures true when columns are renamed or dropped';
CREATE EVENT TRIGGER eventbus_follow_captured ON ddl_command_end
    WHEN TAG IN ('ALTER TABLE', 'ALTER FOREIGN TABLE') EXECUTE FUNCTION eventbus.follow_captured();
COMMENT ON EVENT TRIGGER eventbus_follow_captured IS 'keeps captures true when columns are renamed';
CREATE EVENT TRIGGER eventbus_follow_dropped ON sql_drop EXECUTE FUNCTION eventbus.follow_captured();
COMMENT ON EVENT TRIGGER eventbus_follow_dropped IS 'keeps captures true when columns are dropped';

CREATE TABLE eventbus.ddl_capture (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    topic   text    NOT NULL,
    tags    text[]
);
COMMENT ON TABLE eventbus.ddl_capture IS 'how DDL is published; written by eventbus.capture_ddl';
SELECT pg_catalog.pg_extension_config_dump('eventbus.ddl_capture', '');

CREATE FUNCTION eventbus.publish_ddl() RETURNS event_trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp  -- it looks things up with its owner's rights
    AS 'MODULE_PATHNAME', 'eventbus_publish_ddl';
COMMENT ON FUNCTION eventbus.publish_ddl() IS 'event trigger function: publishes an event for each object that a DDL command has made, changed, dropped or rewritten';

CREATE FUNCTION eventbus.capture_ddl(topic text DEFAULT 'ddl.{tag}', tags text DEFAULT NULL) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_capture_ddl';
COMMENT ON FUNCTION eventbus.capture_ddl(text, text) IS
    'publishes DDL of this database from now on, inside its transaction. topic: with {tag}, the command tag as in CREATE TABLE; tags: comma-separated command tags, NULL: all. A second call replaces the first';

CREATE FUNCTION eventbus.uncapture_ddl() RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_uncapture_ddl';
COMMENT ON FUNCTION eventbus.uncapture_ddl() IS 'ends what eventbus.capture_ddl began; an error where DDL is not captured';

-- Brokers and routes. The tables hold passwords: nobody but superusers reads them; the views hide them.
CREATE TABLE eventbus.broker_config (
    id         integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text        NOT NULL UNIQUE,
    url        text        NOT NULL,
    options    jsonb       NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE eventbus.broker_config IS 'brokers as the senders read them, passwords included; read eventbus.broker instead';

CREATE TABLE eventbus.route_config (
    id          integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text        NOT NULL UNIQUE,
    broker_id   integer     NOT NULL REFERENCES eventbus.broker_config (id),
    destination text        NOT NULL,
    topics      text        NOT NULL,
    options     jsonb       NOT NULL DEFAULT '{}',
    paused      boolean     NOT NULL DEFAULT false,
    source      text        NOT NULL DEFAULT 'log' CHECK (source IN ('log', 'wal')),
    created_at  timestamptz NOT NULL DEFAULT pg_catalog.now()
);
CREATE INDEX route_config_broker_id ON eventbus.route_config (broker_id);
COMMENT ON TABLE eventbus.route_config IS 'routes as the senders read them; read eventbus.route instead';

CREATE FUNCTION eventbus.configuration_changed() RETURNS trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'eventbus_configuration_changed';
COMMENT ON FUNCTION eventbus.configuration_changed() IS 'trigger function: at commit, makes the workers look at brokers and routes anew, those of a restored dump as well';
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON eventbus.broker_config
    FOR EACH STATEMENT EXECUTE FUNCTION eventbus.configuration_changed();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON eventbus.route_config
    FOR EACH STATEMENT EXECUTE FUNCTION eventbus.configuration_changed();

COMMENT ON SEQUENCE eventbus.broker_config_id_seq IS 'ids of brokers';
COMMENT ON SEQUENCE eventbus.route_config_id_seq IS 'ids of routes';

SELECT pg_catalog.pg_extension_config_dump('eventbus.event_id', '');  -- ids go on rising in a restored database
SELECT pg_catalog.pg_extension_config_dump('eventbus.broker_config', '');
SELECT pg_catalog.pg_extension_config_dump('eventbus.route_config', '');
SELECT pg_catalog.pg_extension_config_dump('eventbus.broker_config_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('eventbus.route_config_id_seq', '');

CREATE TABLE eventbus.cursor (
    route_id         integer     NOT NULL REFERENCES eventbus.route_config (id) ON DELETE CASCADE,
    detour           integer     NOT NULL DEFAULT 0,  -- 0: the route itself
    key              text,                            -- the detour's key, or
    event_ids        bigint[],                        -- its events, where they have none
    settled_ids      bigint[],                        -- those of them settled although the cursor is before them
    done             pg_snapshot NOT NULL,
    batch            pg_snapshot,
    start_generation bigint      NOT NULL DEFAULT 0,
    start_block      bigint      NOT NULL DEFAULT 0,
    start_offset     integer     NOT NULL DEFAULT 0,
    end_generation   bigint      NOT NULL DEFAULT 0,
    end_block        bigint      NOT NULL DEFAULT 0,
    end_offset       integer     NOT NULL DEFAULT 0,
    settled_id       bigint      NOT NULL DEFAULT 0,
    creator_xid      xid8        NOT NULL DEFAULT '0',
    creator_id       bigint      NOT NULL DEFAULT 0,
    first_generation bigint      NOT NULL DEFAULT 0,
    wal_slot         text,
    wal_lsn          pg_lsn      NOT NULL DEFAULT '0/0',
    wal_number       bigint      NOT NULL DEFAULT 0,
    wal_lost         boolean     NOT NULL DEFAULT false,
    delivered        bigint      NOT NULL DEFAULT 0,
    dead             bigint      NOT NULL DEFAULT 0,
    retries          bigint      NOT NULL DEFAULT 0,
    skipped          bigint      NOT NULL DEFAULT 0,
    last_delivered_at timestamptz,
    last_error       text,
    last_error_at    timestamptz,
    PRIMARY KEY (route_id, detour)
) WITH (fillfactor = 50);
COMMENT ON TABLE eventbus.cursor IS 'how far each route, and each detour of it, has got in the log or the WAL, and the route''s counters; written by the senders';
COMMENT ON COLUMN eventbus.cursor.wal_slot IS 'of a route from the WAL: the replication slot in which it stands; NULL: it has not begun';
COMMENT ON COLUMN eventbus.cursor.wal_lsn IS 'of a route from the WAL: what commits before it is settled';
COMMENT ON COLUMN eventbus.cursor.wal_number IS 'of a route from the WAL: so many changes of what commits at wal_lsn are settled as well';
COMMENT ON COLUMN eventbus.cursor.wal_lost IS 'of a route from the WAL: its slot is gone, and changes after wal_lsn with it; eventbus.restart_route begins anew';
COMMENT ON COLUMN eventbus.cursor.detour IS '0: the route itself; otherwise a key, or events without one, that the broker refuses for long, and that the route passes over';

CREATE TABLE eventbus.dead_letter_store (
    route_id      integer     NOT NULL REFERENCES eventbus.route_config (id) ON DELETE CASCADE,
    event_id      bigint      NOT NULL,
    lsn           pg_lsn,
    number        bigint,
    topic         text        NOT NULL,
    key           text,
    headers       jsonb,
    content_type  text        NOT NULL,
    payload_text  text,
    payload_bytes bytea,
    published_at  timestamptz NOT NULL,
    error         text        NOT NULL,
    attempts      integer     NOT NULL,
    failed_at     timestamptz NOT NULL,
    requeued      boolean     NOT NULL DEFAULT false,
    PRIMARY KEY (route_id, event_id)
);
CREATE INDEX dead_letter_store_requeued ON eventbus.dead_letter_store (route_id) WHERE requeued;
COMMENT ON TABLE eventbus.dead_letter_store IS 'events that a broker refused for good, whole; read eventbus.dead_letter instead';
COMMENT ON COLUMN eventbus.dead_letter_store.lsn IS 'of an event from the WAL: where its transaction''s commit stands, and in number the how-manieth of its changes it is';

CREATE FUNCTION eventbus.redacted_url(url text) RETURNS text
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'eventbus_redacted_url';
COMMENT ON FUNCTION eventbus.redacted_url(text) IS 'the URL with its password replaced by ***';

CREATE VIEW eventbus.broker AS
    SELECT name, eventbus.redacted_url(url) AS url, options, created_at FROM eventbus.broker_config;
COMMENT ON VIEW eventbus.broker IS 'the brokers, passwords hidden';
COMMENT ON COLUMN eventbus.broker.name IS 'the broker''s name';
COMMENT ON COLUMN eventbus.broker.url IS 'its URL, the password replaced by ***';
COMMENT ON COLUMN eventbus.broker.options IS 'its options';
COMMENT ON COLUMN eventbus.broker.created_at IS 'when it was created';

CREATE VIEW eventbus.route AS
    SELECT r.name, b.name AS broker, r.destination, r.topics, r.options, r.paused, r.created_at
    FROM eventbus.route_config r JOIN eventbus.broker_config b ON b.id = r.broker_id;
COMMENT ON VIEW eventbus.route IS 'the routes';
COMMENT ON COLUMN eventbus.route.name IS 'the route''s name';
COMMENT ON COLUMN eventbus.route.broker IS 'the broker it delivers to';
COMMENT ON COLUMN eventbus.route.destination IS 'kind:template';
COMMENT ON COLUMN eventbus.route.topics IS 'comma-separated topic patterns';
COMMENT ON COLUMN eventbus.route.options IS 'its options';
COMMENT ON COLUMN eventbus.route.paused IS 'whether delivery is paused';
COMMENT ON COLUMN eventbus.route.created_at IS 'when it was created';

CREATE VIEW eventbus.dead_letter AS
    SELECT d.event_id, r.name AS route, d.topic, d.key,
           coalesce(d.payload_text, pg_catalog.encode(d.payload_bytes, 'base64')) AS payload,
           d.headers, d.error, d.attempts, d.failed_at,
           coalesce(d.lsn || '-' || d.number, d.event_id::text) AS message_id
    FROM eventbus.dead_letter_store d JOIN eventbus.route_config r ON r.id = d.route_id
    WHERE NOT d.requeued;
COMMENT ON VIEW eventbus.dead_letter IS 'events that a broker refused for good, a row an event and route; see eventbus.redeliver and eventbus.discard';
COMMENT ON COLUMN eventbus.dead_letter.event_id IS 'event id, for redeliver and discard; of an event from the WAL a number that is unique on its route';
COMMENT ON COLUMN eventbus.dead_letter.message_id IS 'event id as the message carries it: the same, or <commit LSN>-<n> of an event from the WAL';
COMMENT ON COLUMN eventbus.dead_letter.route IS 'the route on which it was refused';
COMMENT ON COLUMN eventbus.dead_letter.topic IS 'the event''s topic';
COMMENT ON COLUMN eventbus.dead_letter.key IS 'the event''s key';
COMMENT ON COLUMN eventbus.dead_letter.payload IS 'the payload as it was sent; bytes that are not text are shown in base64';
COMMENT ON COLUMN eventbus.dead_letter.headers IS 'the event''s headers';
COMMENT ON COLUMN eventbus.dead_letter.error IS 'what the broker said';
COMMENT ON COLUMN eventbus.dead_letter.attempts IS 'how often it was offered to the broker';
COMMENT ON COLUMN eventbus.dead_letter.failed_at IS 'when it was refused for good';

CREATE FUNCTION eventbus.create_broker(name text, url text, options jsonb DEFAULT '{}') RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_create_broker';
COMMENT ON FUNCTION eventbus.create_broker(text, text, jsonb) IS
    'names a broker. url: scheme://[user[:password]@]host[:port][,host…][/path], scheme amqp, amqps, mqtt, mqtts, ws, wss (MQTT in a WebSocket), redis or rediss; options: password_file, ca_file, cert_file, key_file, verify, connect_timeout (s), heartbeat (s), window (messages); AMQP alone: confirm_timeout (s); MQTT alone: version (5, 3.1.1), client_id (text), session_expiry (s), will (object of topic, payload, qos, retain)';

CREATE FUNCTION eventbus.alter_broker(name text, url text DEFAULT NULL, options jsonb DEFAULT NULL) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_alter_broker';
COMMENT ON FUNCTION eventbus.alter_broker(text, text, jsonb) IS
    'changes a broker''s URL or options (all of them; NULL leaves what is); its sender reconnects within a second of the commit';

CREATE FUNCTION eventbus.drop_broker(name text, cascade boolean DEFAULT false) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_drop_broker';
COMMENT ON FUNCTION eventbus.drop_broker(text, boolean) IS
    'forgets a broker; an error while routes use it, unless cascade, which drops them and their dead letters too';

CREATE FUNCTION eventbus.create_route(name text, broker text, destination text, topics text DEFAULT '#', options jsonb DEFAULT '{}') RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_create_route';
COMMENT ON FUNCTION eventbus.create_route(text, text, text, text, jsonb) IS
    'sends events to a destination. destination: kind:template (exchange:, queue: · topic: · channel:, topic:, stream:, list:) with {topic}, {topic/}, {key}, {header:NAME}; topics: comma-separated patterns, * is one word, # zero or more; options: order, max_attempts, max_age, start, and what the broker''s protocol knows (routing_key, persistent · qos, retain · maxlen); "source": "wal" takes changes and messages from the WAL instead of the log, with tables, publication, operations, messages and format (debezium, wal2json, row), and wants the attribute REPLICATION. Takes every event that becomes visible from now on; "start": "earliest" takes what the log still holds as well';

CREATE FUNCTION eventbus.alter_route(name text, destination text DEFAULT NULL, topics text DEFAULT NULL, options jsonb DEFAULT NULL) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_alter_route';
COMMENT ON FUNCTION eventbus.alter_route(text, text, text, jsonb) IS
    'changes a route (NULL leaves what is); takes effect within a second of the commit for events not yet offered to the broker';

CREATE FUNCTION eventbus.drop_route(name text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_drop_route';
COMMENT ON FUNCTION eventbus.drop_route(text) IS 'forgets a route, its cursor and its dead letters';

CREATE FUNCTION eventbus.pause_route(name text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_pause_route';
COMMENT ON FUNCTION eventbus.pause_route(text) IS 'stops delivery on a route; its events wait in the log or the WAL';

CREATE FUNCTION eventbus.resume_route(name text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_resume_route';
COMMENT ON FUNCTION eventbus.resume_route(text) IS 'goes on with a paused route where it stopped; tries a held route at once';

CREATE FUNCTION eventbus.restart_route(name text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_restart_route';
COMMENT ON FUNCTION eventbus.restart_route(text) IS
    'lets a route from the WAL whose replication slot was lost (state lost) begin anew, with what commits from now on; what was committed between its cursor and now is not delivered. An error for other routes';

CREATE FUNCTION eventbus.redeliver(route text DEFAULT NULL, event_id bigint DEFAULT NULL) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_redeliver';
COMMENT ON FUNCTION eventbus.redeliver(text, bigint) IS
    'sends dead letters again, with the same event id; NULL means all. Returns how many were put back. Each leaves the dead letters once the broker has taken it, or returns to them when it is refused again';

CREATE FUNCTION eventbus.discard(route text DEFAULT NULL, event_id bigint DEFAULT NULL) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_discard';
COMMENT ON FUNCTION eventbus.discard(text, bigint) IS 'deletes dead letters for good; NULL means all. Returns how many';
-- Who may publish what. A role of which no row speaks, and none of whose roles, may publish every topic.
CREATE TABLE eventbus.topic_grant (
    role   regrole NOT NULL,
    topics text    NOT NULL,
    PRIMARY KEY (role, topics)
);
COMMENT ON TABLE eventbus.topic_grant IS 'topic grants, a row a role and pattern; read eventbus.allowed instead';
-- The rows of a dropped role bind nobody; they are neither shown nor dumped.
SELECT pg_catalog.pg_extension_config_dump('eventbus.topic_grant', 'WHERE role::pg_catalog.oid IN (SELECT oid FROM pg_catalog.pg_roles)');

CREATE FUNCTION eventbus.topic_grants_changed() RETURNS trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'eventbus_topic_grants_changed';
COMMENT ON FUNCTION eventbus.topic_grants_changed() IS 'at commit, makes every session forget what it remembers of eventbus.topic_grant';
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON eventbus.topic_grant
    FOR EACH STATEMENT EXECUTE FUNCTION eventbus.topic_grants_changed();

CREATE VIEW eventbus.allowed AS
    SELECT g.role, g.topics FROM eventbus.topic_grant g WHERE g.role::oid IN (SELECT oid FROM pg_catalog.pg_roles);
COMMENT ON VIEW eventbus.allowed IS 'topic grants, a row a role and pattern: a role with any may publish what matches one of them and nothing else; one without may publish everything. See eventbus.allow';
COMMENT ON COLUMN eventbus.allowed.role IS 'the role; it binds the members that inherit its privileges as well';
COMMENT ON COLUMN eventbus.allowed.topics IS 'a topic pattern';

CREATE FUNCTION eventbus.allow(role regrole, topics text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_allow';
COMMENT ON FUNCTION eventbus.allow(regrole, text) IS
    'lets a role publish topics, and from the first call on nothing else; calls add up. topics: comma-separated patterns, * is one word, # zero or more. Grants of roles whose privileges a role has count for it; superusers are exempt. In force for every session from the commit on. It gives no right to call publish: GRANT EXECUTE does';

CREATE FUNCTION eventbus.disallow(role regrole, topics text DEFAULT NULL) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_disallow';
COMMENT ON FUNCTION eventbus.disallow(regrole, text) IS
    'takes topic grants back: patterns as they stand in eventbus.allowed, separated by commas; NULL means all of the role''s. An error where there is none. A role whose last grant goes may publish every topic again';


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
COMMENT ON COLUMN eventbus.status.state IS 'active · connecting · retrying (the broker is down, we try again) · blocked (the broker asked us to wait) · held (refused until settings are mended, tried again slowly) · paused · starting (from the WAL: the slot is being made, last_error says whom it waits for) · failing (from the WAL: it cannot be read, or standbys that must have it first lag; we try again) · lost (from the WAL: the slot is gone, see restart_route) · stopped (no sender runs)';
COMMENT ON COLUMN eventbus.status.delivered IS 'events that the broker has acknowledged';
COMMENT ON COLUMN eventbus.status.dead IS 'events that went to the dead letters';
COMMENT ON COLUMN eventbus.status.retries IS 'how often an event was offered again';
COMMENT ON COLUMN eventbus.status.skipped IS 'events that were left out because the log was full (eventbus.on_log_full = skip)';
COMMENT ON COLUMN eventbus.status.in_flight IS 'events offered to the broker and not yet acknowledged';
COMMENT ON COLUMN eventbus.status.lag IS 'age of the oldest event that is not settled; 0 where there is none. Of a route from the WAL that is behind in reading, how long ago it had read all that there was; NULL where nobody can tell: it has no sender, or is lost';
COMMENT ON COLUMN eventbus.status.last_delivered_at IS 'when the broker last acknowledged an event';
COMMENT ON COLUMN eventbus.status.last_error IS 'what last went wrong, in the broker''s words';
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

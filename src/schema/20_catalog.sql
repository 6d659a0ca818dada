
-- Brokers and routes. The tables hold passwords: nobody but superusers reads them; the views hide them.
CREATE TABLE eventbus.broker_config (
    id         integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text        NOT NULL UNIQUE,
    url        text        NOT NULL,
    options    jsonb       NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    home       text
);
COMMENT ON COLUMN eventbus.broker_config.home IS 'where it was made or adopted: system identifier/database/copy. Nobody delivers to one that was made elsewhere: see eventbus.adopt';
COMMENT ON TABLE eventbus.broker_config IS 'brokers as the senders read them, passwords included; read eventbus.broker instead';

CREATE TABLE eventbus.route_config (
    id          integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text        NOT NULL UNIQUE,
    broker_id   integer     NOT NULL,  -- a brokers; see the triggers "gone"
    destination text        NOT NULL,
    topics      text        NOT NULL,
    options     jsonb       NOT NULL DEFAULT '{}',
    paused      boolean     NOT NULL DEFAULT false,
    source      text        NOT NULL DEFAULT 'log' CHECK (source IN ('log', 'wal')),
    created_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
    paused_at   timestamptz
);
CREATE INDEX route_config_broker_id ON eventbus.route_config (broker_id);
COMMENT ON COLUMN eventbus.route_config.paused_at IS 'since when it is paused';
COMMENT ON TABLE eventbus.route_config IS 'routes as the senders read them; read eventbus.route instead';

CREATE FUNCTION eventbus.configuration_changed() RETURNS trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'eventbus_configuration_changed';
COMMENT ON FUNCTION eventbus.configuration_changed() IS 'trigger function: at commit, makes the workers look at brokers and routes again, those of a restored dump as well; for each row that is deleted: an error (23503) for a broker that routes use, and a route''s dead letters go with it';
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON eventbus.broker_config
    FOR EACH STATEMENT EXECUTE FUNCTION eventbus.configuration_changed();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON eventbus.route_config
    FOR EACH STATEMENT EXECUTE FUNCTION eventbus.configuration_changed();
-- In the place of foreign keys: a broker that routes use cannot be deleted, and a route's dead letters go with it. Rows
-- that come in are not checked; whoever makes one locks what it refers to. pg_restore -j loads route_config before
-- broker_config, if it likes, and the check of each of thousands of dead letters would cost as much as the letter. (A
-- foreign key whose checks are switched off has them back after pg_upgrade: a dump does not say so.)
CREATE TRIGGER gone AFTER DELETE ON eventbus.broker_config
    FOR EACH ROW EXECUTE FUNCTION eventbus.configuration_changed();
CREATE TRIGGER gone AFTER DELETE ON eventbus.route_config
    FOR EACH ROW EXECUTE FUNCTION eventbus.configuration_changed();

COMMENT ON SEQUENCE eventbus.broker_config_id_seq IS 'ids of brokers';
COMMENT ON SEQUENCE eventbus.route_config_id_seq IS 'ids of routes';

SELECT pg_catalog.pg_extension_config_dump('eventbus.event_id', '');  -- ids keep rising in a restored database
SELECT pg_catalog.pg_extension_config_dump('eventbus.broker_config', '');
SELECT pg_catalog.pg_extension_config_dump('eventbus.route_config', '');
SELECT pg_catalog.pg_extension_config_dump('eventbus.broker_config_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('eventbus.route_config_id_seq', '');

CREATE TABLE eventbus.cursor (
    route_id         integer     NOT NULL REFERENCES eventbus.route_config (id) ON DELETE CASCADE,
    parked_key       integer     NOT NULL DEFAULT 0,  -- 0: the route itself
    source           text        NOT NULL,
    place            text,
    key              text,                            -- the parked key, or
    event_ids        text[],                          -- parked events that have none
    settled_ids      text[],                          -- those of them settled although the place is before them
    done             pg_snapshot,
    batch            pg_snapshot,
    start_generation bigint      NOT NULL DEFAULT 0,
    start_block      bigint      NOT NULL DEFAULT 0,
    start_offset     integer     NOT NULL DEFAULT 0,
    end_generation   bigint      NOT NULL DEFAULT 0,
    end_block        bigint      NOT NULL DEFAULT 0,
    end_offset       integer     NOT NULL DEFAULT 0,
    settled_id       bigint      NOT NULL DEFAULT 0,
    files            bigint[],
    creator_xid      xid8        NOT NULL DEFAULT '0',
    creator_id       bigint      NOT NULL DEFAULT 0,
    first_generation bigint      NOT NULL DEFAULT 0,
    wal_slot         text,
    wal_lsn          pg_lsn      NOT NULL DEFAULT '0/0',
    wal_number       bigint      NOT NULL DEFAULT 0,
    wal_lost         boolean     NOT NULL DEFAULT false,
    wal_system       bigint,
    delivered        bigint      NOT NULL DEFAULT 0,
    dead             bigint      NOT NULL DEFAULT 0,
    retries          bigint      NOT NULL DEFAULT 0,
    skipped          bigint      NOT NULL DEFAULT 0,
    last_delivered_at timestamptz,
    last_error       text,
    last_error_at    timestamptz,
    PRIMARY KEY (route_id, parked_key)
) WITH (fillfactor = 50);
COMMENT ON TABLE eventbus.cursor IS 'how far each route, and each parked key of it, has got in the log or the WAL, and the route''s counters; written by the senders';
COMMENT ON COLUMN eventbus.cursor.source IS 'which source the route has: log or wal. A source has columns of its own beside place, which nobody else writes: the log done to first_generation, the WAL wal_slot to wal_system';
COMMENT ON COLUMN eventbus.cursor.place IS 'up to where everything is settled, as the source writes it: of the log the snapshot whose transactions are settled, and within a batch the next one and where in the log; of the WAL where a transaction commits, and how many changes of it, 0/16B3748-3. NULL: nothing has been written yet';
COMMENT ON COLUMN eventbus.cursor.wal_slot IS 'of a route from the WAL: the replication slot in which it stands; NULL: it has not begun';
COMMENT ON COLUMN eventbus.cursor.wal_lsn IS 'of a route from the WAL: what commits before it is settled';
COMMENT ON COLUMN eventbus.cursor.wal_number IS 'of a route from the WAL: so many changes of what commits at wal_lsn are settled as well';
COMMENT ON COLUMN eventbus.cursor.wal_lost IS 'of a route from the WAL: its slot is gone, and changes after wal_lsn with it; eventbus.restart_route begins again';
COMMENT ON COLUMN eventbus.cursor.wal_system IS 'of a route from the WAL: system identifier of the server that wrote wal_lsn, whose slot never stands behind it; NULL, or another server (before pg_upgrade): it may';
COMMENT ON COLUMN eventbus.cursor.files IS 'within a batch: relfilenodes of log_0 to log_3, in which start and end are places; where a segment has another one (VACUUM FULL, TRUNCATE), or with NULL, what the batch has in it begins again';
COMMENT ON COLUMN eventbus.cursor.parked_key IS '0: the route itself; otherwise the number of a key, or of events without one, that the broker refuses for long, and that the route passes over';

CREATE TABLE eventbus.dead_letter_store (
    route_id      integer     NOT NULL,
    lsn           pg_lsn      NOT NULL DEFAULT '0/0',
    number        bigint      NOT NULL,
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
    incomplete    boolean     NOT NULL DEFAULT false,
    headers_text  text,
    PRIMARY KEY (route_id, lsn, number)
);
CREATE INDEX dead_letter_store_requeued ON eventbus.dead_letter_store (route_id) WHERE requeued;
COMMENT ON TABLE eventbus.dead_letter_store IS 'events that a broker refused for good, whole; read eventbus.dead_letter instead';
COMMENT ON COLUMN eventbus.dead_letter_store.lsn IS 'with number, the event''s id: of an event from the WAL where its transaction''s commit stands; 0/0: it is one of the log';
COMMENT ON COLUMN eventbus.dead_letter_store.number IS 'of an event of the log its id; of one from the WAL the how-manieth change of its transaction it is';

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

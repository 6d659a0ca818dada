-- Capture: triggers that make events of a table's changes, and event triggers that make events of DDL. The triggers
-- are all that is kept of a capture: dumps, renames and partitions need no help from us.
CREATE FUNCTION eventbus.publish_change() RETURNS trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'eventbus_publish_change';
COMMENT ON FUNCTION eventbus.publish_change() IS
    'trigger function: publishes the row that was inserted, updated or deleted. CREATE TRIGGER ... AFTER ... FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change(topic, ''name=value'', ...); names: columns, headers, key, payload, unchanged. Also INSTEAD OF, and AFTER TRUNCATE FOR EACH STATEMENT. eventbus.capture makes such triggers';

CREATE FUNCTION eventbus.publish_partitioned() RETURNS trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'eventbus_publish_change';
COMMENT ON FUNCTION eventbus.publish_partitioned() IS
    'trigger function: eventbus.publish_change for what eventbus.capture makes on partitioned tables. Whoever makes or attaches a partition of one needs EXECUTE on it, for PostgreSQL gives the partition its triggers in their name; the owner of the parent is given it by then. It is no right to publish: triggers made by hand that execute it are refused to whoever may not execute eventbus.publish_change';

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
COMMENT ON FUNCTION eventbus.trigger_arguments(bytea) IS 'the texts of pg_trigger.tgargs; NULL for one that is no text in the database''s encoding';

CREATE FUNCTION eventbus.trigger_error(relation oid, tgargs bytea) RETURNS text
    LANGUAGE C STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'eventbus_trigger_error';
COMMENT ON FUNCTION eventbus.trigger_error(oid, bytea) IS 'what is wrong with the arguments of a trigger of eventbus.publish_change on a table, so that its changes fail; NULL: nothing';

CREATE FUNCTION eventbus.trigger_condition(trigger oid, OUT condition text, OUT error text)
    LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'eventbus_trigger_condition';
COMMENT ON FUNCTION eventbus.trigger_condition(oid) IS 'the WHEN of a trigger, read without waiting for a lock on its table; NULL: it has none. error: why it cannot be shown now';

CREATE VIEW eventbus.captured AS
    SELECT t.tgrelid::pg_catalog.regclass AS relation,
           t.arguments[1] AS topic,
           pg_catalog.concat_ws(', ',
               CASE WHEN pg_catalog.bool_or(t.tgtype & 4 <> 0) THEN 'insert' END,
               CASE WHEN pg_catalog.bool_or(t.tgtype & 16 <> 0) THEN 'update' END,
               CASE WHEN pg_catalog.bool_or(t.tgtype & 8 <> 0) THEN 'delete' END,
               CASE WHEN pg_catalog.bool_or(t.tgtype & 32 <> 0) THEN 'truncate' END,
               CASE WHEN 'unchanged=true' = ANY (t.arguments[2:]) THEN 'unchanged' END) AS operations,
           (SELECT pg_catalog.substr(a, 9) FROM pg_catalog.unnest(t.arguments[2:]) WITH ORDINALITY u (a, n) WHERE a LIKE 'columns=%' ORDER BY n DESC LIMIT 1) AS columns,
           (SELECT pg_catalog.substr(a, 5) FROM pg_catalog.unnest(t.arguments[2:]) WITH ORDINALITY u (a, n) WHERE a LIKE 'key=%' ORDER BY n DESC LIMIT 1) AS key,
           (pg_catalog.array_agg(t.condition ORDER BY t.tgtype & 16 DESC, t.tgtype & 4 DESC) FILTER (WHERE t.condition IS NOT NULL))[1] AS condition,
           coalesce((SELECT pg_catalog.substr(a, 9) FROM pg_catalog.unnest(t.arguments[2:]) WITH ORDINALITY u (a, n) WHERE a LIKE 'payload=%' ORDER BY n DESC LIMIT 1), 'change') AS payload,
           CASE WHEN t.error IS NULL THEN
               (SELECT pg_catalog.substr(a, 9) FROM pg_catalog.unnest(t.arguments[2:]) WITH ORDINALITY u (a, n) WHERE a LIKE 'headers=%' ORDER BY n DESC LIMIT 1)::pg_catalog.jsonb END AS headers,
           pg_catalog.array_agg(t.tgname ORDER BY t.tgname) AS triggers,
           coalesce(t.error, pg_catalog.min(t.not_shown)) AS error
    FROM (SELECT tgrelid, tgtype, tgname, eventbus.trigger_arguments(tgargs) AS arguments,
                 eventbus.trigger_error(tgrelid, tgargs) AS error,
                 c.condition, c.error AS not_shown,
                 CASE WHEN tgname LIKE '00\_eventbus\_%' THEN '' ELSE tgname END AS made_by_hand
          FROM pg_catalog.pg_trigger CROSS JOIN LATERAL eventbus.trigger_condition(oid) c
          WHERE tgfoid IN ('eventbus.publish_change'::pg_catalog.regproc, 'eventbus.publish_partitioned'::pg_catalog.regproc)
          AND tgparentid = 0 AND NOT tgisinternal) t
    GROUP BY t.tgrelid, t.made_by_hand, t.arguments, t.error;
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
COMMENT ON COLUMN eventbus.captured.error IS 'what is wrong with a trigger made by hand, so that changes of its table fail; or why the condition cannot be shown now. NULL: nothing';

CREATE FUNCTION eventbus.follow_captured() RETURNS event_trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'eventbus_follow_captured';
COMMENT ON FUNCTION eventbus.follow_captured() IS 'event trigger function: keeps captures true when columns are renamed or dropped, lets owners of captured tables make partitions, and refuses triggers made by hand that are not theirs to make';
CREATE EVENT TRIGGER eventbus_follow_captured ON ddl_command_end
    WHEN TAG IN ('ALTER TABLE', 'ALTER FOREIGN TABLE', 'ALTER VIEW', 'ALTER MATERIALIZED VIEW', 'ALTER TYPE')
    EXECUTE FUNCTION eventbus.follow_captured();
COMMENT ON EVENT TRIGGER eventbus_follow_captured IS 'keeps captures true when columns are renamed';
CREATE EVENT TRIGGER eventbus_follow_dropped ON sql_drop EXECUTE FUNCTION eventbus.follow_captured();
COMMENT ON EVENT TRIGGER eventbus_follow_dropped IS 'keeps captures true when columns are dropped';
CREATE EVENT TRIGGER eventbus_follow_partitions ON ddl_command_start
    WHEN TAG IN ('CREATE TABLE', 'CREATE FOREIGN TABLE', 'ALTER TABLE', 'CREATE SCHEMA')
    EXECUTE FUNCTION eventbus.follow_captured();
COMMENT ON EVENT TRIGGER eventbus_follow_partitions IS 'gives the owner of a captured partitioned table EXECUTE on eventbus.publish_partitioned when it is needed';
CREATE EVENT TRIGGER eventbus_follow_triggers ON ddl_command_end
    WHEN TAG IN ('CREATE TRIGGER', 'CREATE SCHEMA')
    EXECUTE FUNCTION eventbus.follow_captured();
COMMENT ON EVENT TRIGGER eventbus_follow_triggers IS 'refuses triggers made by hand that execute eventbus.publish_partitioned';

CREATE TABLE eventbus.ddl_capture (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    topic   text    NOT NULL,
    tags    text[],
    include_bodies boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE eventbus.ddl_capture IS 'how DDL is published; written by eventbus.capture_ddl';
SELECT pg_catalog.pg_extension_config_dump('eventbus.ddl_capture', '');

CREATE FUNCTION eventbus.publish_ddl() RETURNS event_trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp  -- it looks things up with its owner's rights
    AS 'MODULE_PATHNAME', 'eventbus_publish_ddl';
COMMENT ON FUNCTION eventbus.publish_ddl() IS 'event trigger function: publishes an event for each object that a DDL command has made, changed, dropped or rewritten';

CREATE FUNCTION eventbus.capture_ddl(topic text DEFAULT 'ddl.{tag}', tags text DEFAULT NULL, include_bodies boolean DEFAULT false) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_capture_ddl';
COMMENT ON FUNCTION eventbus.capture_ddl(text, text, boolean) IS
    'publishes DDL of this database from now on, inside its transaction. topic: with {tag}, the command tag as in CREATE TABLE; tags: comma-separated command tags, NULL: all; include_bodies: the command''s text has the bodies of functions and procedures as well, default false: they, and all strings of a command that makes one, are ***. What stands in OPTIONS (...), what triggers give their functions, and the values of SET for functions are *** always, and commands on servers, user mappings, subscriptions and foreign-data wrappers have no text: there may be passwords in it. Topic grants of the caller have to have the topics of all tags. A second call replaces the first';

CREATE FUNCTION eventbus.uncapture_ddl() RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_uncapture_ddl';
COMMENT ON FUNCTION eventbus.uncapture_ddl() IS 'ends what eventbus.capture_ddl began; an error where DDL is not captured';

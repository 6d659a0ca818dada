\echo Use "ALTER EXTENSION pg_eventbus UPDATE" to load this file. \quit

-- From 0.1 (commit 794d505) to 0.2. Whatever changes src/schema changes this file as well: test/lint/upgrades says where.
-- here: 00_library.sql

-- What this makes is the extension's owner's, whichever superuser runs it: they may be dropped one day, or lose that.
SELECT pg_catalog.set_config('pg_eventbus_update.role', pg_catalog.current_setting('role'), true);
SELECT pg_catalog.set_config('role', r.rolname, true)
FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_roles r ON r.oid = e.extowner
WHERE e.extname = 'pg_eventbus' AND r.rolsuper AND r.rolname <> current_user;

-- All locks that this takes on tables and views, or none: whoever has some of them and wants others is let through, so
-- that nobody's locks and ours go in a circle, in whichever order they are taken. Nobody waits for us longer than 0.8 s
-- (a circle of a second would be a deadlock) while we wait for others. Publishing takes none of them.
DO $$
DECLARE
    lock_timeout text := pg_catalog.current_setting('lock_timeout');
    relations pg_catalog.oid[] := ARRAY['eventbus.dead_letter_store'::pg_catalog.regclass, 'eventbus.route_config', 'eventbus.broker_config',
                                        'eventbus.cursor', 'eventbus.ddl_capture']
        || ARRAY(SELECT c.oid FROM pg_catalog.pg_class c
                 WHERE c.relnamespace = 'eventbus'::pg_catalog.regnamespace AND c.relkind = 'v' ORDER BY c.relname);
    relation pg_catalog.oid;
    begun timestamptz := pg_catalog.clock_timestamp();
    told boolean := false;
    most integer := 50;  -- ms
    until timestamptz;
BEGIN
    LOOP
        BEGIN
            until := pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => most / 1000.0);
            FOREACH relation IN ARRAY relations LOOP
                PERFORM pg_catalog.set_config('lock_timeout', greatest(1, pg_catalog.trunc(1000 * extract(epoch FROM until - pg_catalog.clock_timestamp())))
                    || 'ms', true);
                EXECUTE pg_catalog.format(CASE (SELECT relkind FROM pg_catalog.pg_class WHERE oid = relation)
                    WHEN 'v' THEN 'ALTER VIEW %s RESET (security_barrier)'  -- LOCK TABLE would lock what it reads as well
                    ELSE 'LOCK TABLE %s IN ACCESS EXCLUSIVE MODE' END, relation::pg_catalog.regclass);
            END LOOP;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            most := least(2 * most, 800);
            IF NOT told AND pg_catalog.clock_timestamp() - begun > '5 s' THEN
                told := true;
                RAISE WARNING USING MESSAGE = 'pg_eventbus waits for sessions that use its tables',
                    DETAIL = (SELECT pg_catalog.format('Processes: %s.', pg_catalog.string_agg(DISTINCT coalesce(l.pid::text, 'a prepared transaction'), ', '))
                              FROM pg_catalog.pg_locks l
                              WHERE l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
                              AND l.relation = ANY (relations) AND l.granted AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()),
                    HINT = 'Publishing continues meanwhile; the update does when they end their transactions.';
            END IF;
            PERFORM pg_catalog.pg_sleep(0.05);
        END;
    END LOOP;
    PERFORM pg_catalog.set_config('lock_timeout', lock_timeout, true);
END
$$;

-- What 0.1 wrote of a place within a batch may be one of a file that is gone: such batches begin again.
-- instead of: CREATE TABLE eventbus.cursor 12a6af05
ALTER TABLE eventbus.cursor RENAME COLUMN detour TO parked_key;
ALTER TABLE eventbus.cursor ADD COLUMN source text, ADD COLUMN place text;
UPDATE eventbus.cursor c SET source = r.source FROM eventbus.route_config r WHERE r.id = c.route_id;
COMMENT ON COLUMN eventbus.cursor.source IS 'which source the route has: log or wal. A source has columns of its own beside place, which nobody else writes: the log done to first_generation, the WAL wal_slot to wal_system';
COMMENT ON COLUMN eventbus.cursor.place IS 'up to where everything is settled, as the source writes it: of the log the snapshot whose transactions are settled, and within a batch the next one and where in the log; of the WAL where a transaction commits, and how many changes of it, 0/16B3748-3. NULL: nothing has been written yet';
COMMENT ON TABLE eventbus.cursor IS 'how far each route, and each parked key of it, has got in the log or the WAL, and the route''s counters; written by the senders';
COMMENT ON COLUMN eventbus.cursor.wal_lost IS 'of a route from the WAL: its slot is gone, and changes after wal_lsn with it; eventbus.restart_route begins again';
COMMENT ON COLUMN eventbus.cursor.parked_key IS '0: the route itself; otherwise the number of a key, or of events without one, that the broker refuses for long, and that the route passes over';
ALTER TABLE eventbus.cursor ADD COLUMN files bigint[];
COMMENT ON COLUMN eventbus.cursor.files IS 'within a batch: relfilenodes of log_0 to log_3, in which start and end are places; where a segment has another one (VACUUM FULL, TRUNCATE), or with NULL, what the batch has in it begins again';

-- Slots that 0.1 has moved may stand behind its cursors.
ALTER TABLE eventbus.cursor ADD COLUMN wal_system bigint;
COMMENT ON COLUMN eventbus.cursor.wal_system IS 'of a route from the WAL: system identifier of the server that wrote wal_lsn, whose slot never stands behind it; NULL, or another server (before pg_upgrade): it may';

-- Brokers say where they were made. Those that 0.1 made are at home here; those that come by a dump of 0.1 are not.
-- instead of: CREATE TABLE eventbus.broker_config 86d29db1
ALTER TABLE eventbus.broker_config ADD COLUMN home text;
COMMENT ON COLUMN eventbus.broker_config.home IS 'where it was made or adopted: system identifier/database/copy. Nobody delivers to one that was made elsewhere: see eventbus.adopt';

-- instead of: CREATE TABLE eventbus.route_config 825b897c
ALTER TABLE eventbus.route_config ADD COLUMN paused_at timestamptz;
COMMENT ON COLUMN eventbus.route_config.paused_at IS 'since when it is paused';

-- Dead letters of events that cannot be read as a whole.
-- instead of: CREATE TABLE eventbus.dead_letter_store 636d71f4
ALTER TABLE eventbus.dead_letter_store ADD COLUMN incomplete boolean NOT NULL DEFAULT false;
ALTER TABLE eventbus.dead_letter_store ADD COLUMN headers_text text;

-- Triggers in the place of foreign keys: see 20_catalog.sql.
ALTER TABLE eventbus.route_config DROP CONSTRAINT route_config_broker_id_fkey;
ALTER TABLE eventbus.dead_letter_store DROP CONSTRAINT dead_letter_store_route_id_fkey;
CREATE TRIGGER gone AFTER DELETE ON eventbus.broker_config
    FOR EACH ROW EXECUTE FUNCTION eventbus.configuration_changed();
CREATE TRIGGER gone AFTER DELETE ON eventbus.route_config
    FOR EACH ROW EXECUTE FUNCTION eventbus.configuration_changed();
COMMENT ON FUNCTION eventbus.configuration_changed() IS 'trigger function: at commit, makes the workers look at brokers and routes again, those of a restored dump as well; for each row that is deleted: an error (23503) for a broker that routes use, and a route''s dead letters go with it';

-- An event's id is a place and a number: those of the log stand at 0/0. 0.1 could store two events of the WAL under one
-- id, for it took the end of a message for its place: the second one gets a number that no other has.
UPDATE eventbus.dead_letter_store SET lsn = '0/0', number = event_id WHERE lsn IS NULL;
UPDATE eventbus.dead_letter_store d SET number = event_id
WHERE EXISTS (SELECT FROM eventbus.dead_letter_store o WHERE o.route_id = d.route_id AND o.lsn = d.lsn AND o.number = d.number
              AND o.event_id < d.event_id);
-- here: 21_dead_letter.sql
ALTER TABLE eventbus.dead_letter_store
    DROP COLUMN event_id,
    ALTER COLUMN lsn SET DEFAULT '0/0',
    ALTER COLUMN lsn SET NOT NULL,
    ALTER COLUMN number SET NOT NULL,
    ADD PRIMARY KEY (route_id, lsn, number);
COMMENT ON COLUMN eventbus.dead_letter_store.lsn IS 'with number, the event''s id: of an event from the WAL where its transaction''s commit stands; 0/0: it is one of the log';
COMMENT ON COLUMN eventbus.dead_letter_store.number IS 'of an event of the log its id; of one from the WAL the how-manieth change of its transaction it is';

-- Events of the WAL that stand beside their route were known by other numbers. Those of a key are all that the key has;
-- what had no key comes to the route again, which goes back to where the first of them stands.
UPDATE eventbus.cursor c SET settled_ids = NULL
FROM eventbus.route_config r WHERE r.id = c.route_id AND r.source = 'wal' AND c.parked_key > 0 AND c.key IS NOT NULL;
WITH again AS (
    DELETE FROM eventbus.cursor c USING eventbus.route_config r
    WHERE r.id = c.route_id AND r.source = 'wal' AND c.parked_key > 0 AND c.key IS NULL
    RETURNING c.route_id, c.wal_lsn, c.wal_number),
first AS (
    SELECT DISTINCT ON (route_id) * FROM again ORDER BY route_id, wal_lsn, wal_number)
UPDATE eventbus.cursor c SET wal_lsn = f.wal_lsn, wal_number = f.wal_number
FROM first f WHERE c.route_id = f.route_id AND c.parked_key = 0 AND (f.wal_lsn, f.wal_number) < (c.wal_lsn, c.wal_number);
ALTER TABLE eventbus.cursor
    DROP CONSTRAINT cursor_pkey,  -- whose column is called as it was
    ADD PRIMARY KEY (route_id, parked_key),
    ALTER COLUMN source SET NOT NULL,
    ALTER COLUMN done DROP NOT NULL,
    ALTER COLUMN event_ids TYPE text[],
    ALTER COLUMN settled_ids TYPE text[];

-- Publishing with arguments of other types. A call that leaves arguments out shall fit one of the functions only.
UPDATE pg_catalog.pg_proc SET pronargdefaults = 0, proargdefaults = NULL
WHERE oid IN ('eventbus.publish_text(text, text, text, jsonb, text)'::pg_catalog.regprocedure,
              'eventbus.publish_bytes(text, bytea, text, jsonb, text)'::pg_catalog.regprocedure);
-- here: 11_publish.sql
CREATE TEMPORARY TABLE publish_form AS
    SELECT o.of, p.oid::pg_catalog.regprocedure AS form
    FROM (VALUES ('eventbus.publish(text, jsonb, text, jsonb)'::pg_catalog.regprocedure),
                 ('eventbus.publish_wal(text, jsonb, text, jsonb)'), ('eventbus.publish_now(text, jsonb, text, jsonb)'),
                 ('eventbus.publish_text(text, text, text, jsonb, text)'),
                 ('eventbus.publish_bytes(text, bytea, text, jsonb, text)')) o (of)
         JOIN pg_catalog.pg_proc op ON op.oid = o.of
         JOIN pg_catalog.pg_proc p ON p.pronamespace = op.pronamespace AND p.proname = op.proname AND p.oid <> op.oid;

-- here: 01_event.sql
-- here: 30_status.sql
-- here: 31_unrouted.sql
-- instead of: SELECT eventbus.grant_monitor c1055c22
GRANT SELECT ON eventbus.unrouted TO pg_monitor;
-- here: 85_grants.sql
REVOKE ALL ON FUNCTION eventbus.grant_publisher(regrole), eventbus.revoke_publisher(regrole), eventbus.grant_operator(regrole),
    eventbus.revoke_operator(regrole), eventbus.grant_monitor(regrole), eventbus.revoke_monitor(regrole) FROM PUBLIC;

-- Waiting for routes from the WAL, and with a parameter without a type.
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
REVOKE ALL ON FUNCTION eventbus.wait_for_delivery(pg_lsn, interval, text),
    eventbus.wait_for_delivery(text, interval, text) FROM PUBLIC;

-- Comments in ASCII: databases of any encoding can read them.
COMMENT ON FUNCTION eventbus.publish_change() IS
    'trigger function: publishes the row that was inserted, updated or deleted. CREATE TRIGGER ... AFTER ... FOR EACH ROW EXECUTE FUNCTION eventbus.publish_change(topic, ''name=value'', ...); names: columns, headers, key, payload, unchanged. Also INSTEAD OF, and AFTER TRUNCATE FOR EACH STATEMENT. eventbus.capture makes such triggers';

COMMENT ON EXTENSION pg_eventbus IS 'delivers committed events to AMQP, MQTT and Redis brokers, at least once, in order per key';

-- Configuration is changed with the rights of the extension's owner, and by right of who calls: the functions ask
-- PostgreSQL who that is, which SECURITY DEFINER would hide. Some have other arguments now.
-- here: 22_operate.sql
UPDATE eventbus.broker_config SET home = eventbus.home();
REVOKE ALL ON FUNCTION eventbus.alter_broker(text, text, jsonb, boolean), eventbus.alter_route(text, text, text, jsonb, boolean),
    eventbus.adopt(text), eventbus.home(), eventbus.delivery_status(), eventbus.routes_for(text, text), eventbus.wait_for_route(text, interval),
    eventbus.test_broker(text), eventbus.test_route(text), eventbus.redeliver(text, text), eventbus.discard(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eventbus.delivery_status(), eventbus.routes_for(text, text) TO pg_monitor;
-- instead of: CREATE FUNCTION eventbus.allow ad8b361c
-- instead of: CREATE FUNCTION eventbus.disallow 2a0ec882
-- instead of: CREATE FUNCTION eventbus.uncapture_ddl e0a199c8
ALTER FUNCTION eventbus.allow(regrole, text) SECURITY INVOKER;
ALTER FUNCTION eventbus.disallow(regrole, text) SECURITY INVOKER;
ALTER FUNCTION eventbus.uncapture_ddl() SECURITY INVOKER;

-- A trigger that somebody made by hand does not break the view.
COMMENT ON FUNCTION eventbus.trigger_arguments(bytea) IS 'the texts of pg_trigger.tgargs; NULL for one that is no text in the database''s encoding';
CREATE FUNCTION eventbus.trigger_error(relation oid, tgargs bytea) RETURNS text
    LANGUAGE C STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'eventbus_trigger_error';
COMMENT ON FUNCTION eventbus.trigger_error(oid, bytea) IS 'what is wrong with the arguments of a trigger of eventbus.publish_change on a table, so that its changes fail; NULL: nothing';
REVOKE ALL ON FUNCTION eventbus.trigger_error(oid, bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eventbus.trigger_error(oid, bytea) TO pg_monitor;
CREATE FUNCTION eventbus.trigger_condition(trigger oid, OUT condition text, OUT error text)
    LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'eventbus_trigger_condition';
COMMENT ON FUNCTION eventbus.trigger_condition(oid) IS 'the WHEN of a trigger, read without waiting for a lock on its table; NULL: it has none. error: why it cannot be shown now';
REVOKE ALL ON FUNCTION eventbus.trigger_condition(oid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eventbus.trigger_condition(oid) TO pg_monitor;
CREATE FUNCTION eventbus.publish_partitioned() RETURNS trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'eventbus_publish_change';
COMMENT ON FUNCTION eventbus.publish_partitioned() IS
    'trigger function: eventbus.publish_change for what eventbus.capture makes on partitioned tables. Whoever makes or attaches a partition of one needs EXECUTE on it, for PostgreSQL gives the partition its triggers in their name; the owner of the parent is given it by then. It is no right to publish: triggers made by hand that execute it are refused to whoever may not execute eventbus.publish_change';
REVOKE ALL ON FUNCTION eventbus.publish_partitioned() FROM PUBLIC;
CREATE OR REPLACE VIEW eventbus.captured AS
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
COMMENT ON COLUMN eventbus.captured.error IS 'what is wrong with a trigger made by hand, so that changes of its table fail; or why the condition cannot be shown now. NULL: nothing';

-- DDL without what may be a secret.
-- instead of: CREATE TABLE eventbus.ddl_capture 79228054
ALTER TABLE eventbus.ddl_capture ADD COLUMN include_bodies boolean NOT NULL DEFAULT false;
CREATE FUNCTION eventbus.capture_ddl(topic text DEFAULT 'ddl.{tag}', tags text DEFAULT NULL, include_bodies boolean DEFAULT false) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_capture_ddl';
REVOKE ALL ON FUNCTION eventbus.capture_ddl(text, text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION eventbus.capture_ddl(text, text, boolean) IS
    'publishes DDL of this database from now on, inside its transaction. topic: with {tag}, the command tag as in CREATE TABLE; tags: comma-separated command tags, NULL: all; include_bodies: the command''s text has the bodies of functions and procedures as well, default false: they, and all strings of a command that makes one, are ***. What stands in OPTIONS (...), what triggers give their functions, and the values of SET for functions are *** always, and commands on servers, user mappings, subscriptions and foreign-data wrappers have no text: there may be passwords in it. Topic grants of the caller have to have the topics of all tags. A second call replaces the first';

-- Columns are renamed by other commands as well.
DROP EVENT TRIGGER eventbus_follow_captured;
CREATE EVENT TRIGGER eventbus_follow_captured ON ddl_command_end
    WHEN TAG IN ('ALTER TABLE', 'ALTER FOREIGN TABLE', 'ALTER VIEW', 'ALTER MATERIALIZED VIEW', 'ALTER TYPE')
    EXECUTE FUNCTION eventbus.follow_captured();
COMMENT ON EVENT TRIGGER eventbus_follow_captured IS 'keeps captures true when columns are renamed';

-- Captures of partitioned tables execute a function of their own.
COMMENT ON FUNCTION eventbus.follow_captured() IS 'event trigger function: keeps captures true when columns are renamed or dropped, lets owners of captured tables make partitions, and refuses triggers made by hand that are not theirs to make';
CREATE EVENT TRIGGER eventbus_follow_partitions ON ddl_command_start
    WHEN TAG IN ('CREATE TABLE', 'CREATE FOREIGN TABLE', 'ALTER TABLE', 'CREATE SCHEMA')
    EXECUTE FUNCTION eventbus.follow_captured();
COMMENT ON EVENT TRIGGER eventbus_follow_partitions IS 'gives the owner of a captured partitioned table EXECUTE on eventbus.publish_partitioned when it is needed';
CREATE EVENT TRIGGER eventbus_follow_triggers ON ddl_command_end
    WHEN TAG IN ('CREATE TRIGGER', 'CREATE SCHEMA')
    EXECUTE FUNCTION eventbus.follow_captured();
COMMENT ON EVENT TRIGGER eventbus_follow_triggers IS 'refuses triggers made by hand that execute eventbus.publish_partitioned';
WITH moved AS (
    UPDATE pg_catalog.pg_trigger t SET tgfoid = 'eventbus.publish_partitioned'::pg_catalog.regproc
    FROM pg_catalog.pg_class c
    WHERE c.oid = t.tgrelid AND t.tgfoid = 'eventbus.publish_change'::pg_catalog.regproc AND t.tgname LIKE '00\_eventbus\_%'
    AND (c.relkind = 'p' OR t.tgparentid <> 0)
    RETURNING t.oid)
UPDATE pg_catalog.pg_depend d SET refobjid = 'eventbus.publish_partitioned'::pg_catalog.regproc
FROM moved m
WHERE d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND d.objid = m.oid
AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.refobjid = 'eventbus.publish_change'::pg_catalog.regproc;

-- instead of: DO ae90abb6
-- ALTER DEFAULT PRIVILEGES gives nobody a right on ours. What 0.1's objects were made with stands in pg_init_privs, which
-- what an administrator has granted since does not; 0.1 itself gave only to pg_monitor.
DO $$
DECLARE
    object record;
    made pg_catalog.oid[] := ARRAY['eventbus.wait_for_delivery(pg_lsn, interval, text)'::pg_catalog.regprocedure,
                                   'eventbus.wait_for_delivery(text, interval, text)'::pg_catalog.regprocedure,
                                   'eventbus.capture_ddl(text, text, boolean)'::pg_catalog.regprocedure,
                                   'eventbus.alter_broker(text, text, jsonb, boolean)'::pg_catalog.regprocedure,
                                   'eventbus.alter_route(text, text, text, jsonb, boolean)'::pg_catalog.regprocedure,
                                   'eventbus.adopt(text)'::pg_catalog.regprocedure,
                                   'eventbus.home()'::pg_catalog.regprocedure,
                                   'eventbus.delivery_status()'::pg_catalog.regprocedure,
                                   'eventbus.routes_for(text, text)'::pg_catalog.regprocedure,
                                   'eventbus.wait_for_route(text, interval)'::pg_catalog.regprocedure,
                                   'eventbus.trigger_error(oid, bytea)'::pg_catalog.regprocedure,
                                   'eventbus.trigger_condition(oid)'::pg_catalog.regprocedure,
                                   'eventbus.publish_partitioned()'::pg_catalog.regprocedure,
                                   'eventbus.captured_payload(text, text, xid8, timestamptz)'::pg_catalog.regprocedure,
                                   'eventbus.redeliver(text, text)'::pg_catalog.regprocedure,
                                   'eventbus.discard(text, text)'::pg_catalog.regprocedure];
    made_relations pg_catalog.oid[] := ARRAY['eventbus.unrouted'::pg_catalog.regclass, 'eventbus.unrouted_store'::pg_catalog.regclass,
                                             'eventbus.unrouted_after'::pg_catalog.regclass];
BEGIN
    FOR object IN
        SELECT o.name, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END AS grantee
        FROM (SELECT 'ROUTINE ' || p.oid::pg_catalog.regprocedure AS name, p.proowner AS owner,
                     CASE WHEN p.oid = ANY (made) OR f.form IS NOT NULL THEN coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))
                          ELSE i.initprivs END AS acl
              FROM pg_catalog.pg_proc p LEFT JOIN pg_catalog.pg_init_privs i
                   ON i.objoid = p.oid AND i.classoid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                   LEFT JOIN pg_temp.publish_form f ON f.form = p.oid
              WHERE p.pronamespace = 'eventbus'::pg_catalog.regnamespace
              UNION ALL
              SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::pg_catalog.regclass, c.relowner,
                     CASE WHEN c.oid = ANY (made_relations) THEN c.relacl ELSE i.initprivs END
              FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_init_privs i
                   ON i.objoid = c.oid AND i.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND i.objsubid = 0
              WHERE c.relnamespace = 'eventbus'::pg_catalog.regnamespace AND c.relkind IN ('r', 'v', 'S')
              UNION ALL
              SELECT 'SCHEMA eventbus', n.nspowner, i.initprivs
              FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_init_privs i
                   ON i.objoid = n.oid AND i.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
              WHERE n.nspname = 'eventbus') o,
             pg_catalog.aclexplode(o.acl) a
        WHERE a.grantee NOT IN (o.owner, 'pg_monitor'::pg_catalog.regrole)
        GROUP BY 1, 2 LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %s CASCADE', object.name, object.grantee);
    END LOOP;
END
$$;

-- Who may call a function may call its new forms: a call with a literal may be another one's now. Who reads the view
-- eventbus.captured calls more functions, and who reads eventbus.event, or a view over it, calls one. What is granted in
-- here would count as the extension's own, which dumps leave to it, so the note that says so is set back.
DO $$
DECLARE
    form record;
    given record;
    noted pg_catalog.aclitem[];
BEGIN
    FOR form IN WITH RECURSIVE form (of, made) AS (
                    VALUES ('eventbus.wait_for_delivery(bigint, interval, text)'::pg_catalog.regprocedure,
                            'eventbus.wait_for_delivery(pg_lsn, interval, text)'::pg_catalog.regprocedure),
                           ('eventbus.wait_for_delivery(bigint, interval, text)',
                            'eventbus.wait_for_delivery(text, interval, text)'),
                           ('eventbus.capture_ddl(text, text)',
                            'eventbus.capture_ddl(text, text, boolean)'),
                           ('eventbus.route_status()', 'eventbus.delivery_status()'),
                           ('eventbus.route_status()', 'eventbus.routes_for(text, text)'),
                           ('eventbus.create_route(text, text, text, text, jsonb)',
                            'eventbus.wait_for_route(text, interval)'),
                           ('eventbus.redeliver(text, bigint)', 'eventbus.redeliver(text, text)'),
                           ('eventbus.discard(text, bigint)', 'eventbus.discard(text, text)'),
                           ('eventbus.alter_broker(text, text, jsonb)', 'eventbus.adopt(text)'),
                           ('eventbus.alter_broker(text, text, jsonb)',
                            'eventbus.alter_broker(text, text, jsonb, boolean)'),
                           ('eventbus.alter_route(text, text, text, jsonb)',
                            'eventbus.alter_route(text, text, text, jsonb, boolean)'),
                           ('eventbus.trigger_arguments(bytea)', 'eventbus.trigger_error(oid, bytea)'),
                           ('eventbus.trigger_arguments(bytea)', 'eventbus.trigger_condition(oid)')
                    UNION ALL SELECT f.of, f.form FROM pg_temp.publish_form f),
                shown (oid) AS (
                    SELECT 'eventbus.event'::pg_catalog.regclass::pg_catalog.oid
                    UNION
                    SELECT r.ev_class FROM shown, pg_catalog.pg_depend d, pg_catalog.pg_rewrite r
                    WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = shown.oid
                    AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = d.objid)
                SELECT f.made, p.proacl AS acl, p.proowner AS owner FROM form f JOIN pg_catalog.pg_proc p ON p.oid = f.of
                UNION ALL
                SELECT 'eventbus.captured_payload(text, text, xid8, timestamptz)', acl, c.relowner
                FROM shown s JOIN pg_catalog.pg_class c ON c.oid = s.oid,
                     LATERAL (SELECT c.relacl UNION ALL
                              SELECT a.attacl FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid) g (acl) LOOP
        SELECT initprivs INTO noted FROM pg_catalog.pg_init_privs
        WHERE objoid = form.made AND classoid = 'pg_catalog.pg_proc'::pg_catalog.regclass;
        FOR given IN SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END AS grantee,
                            pg_catalog.bool_or(a.is_grantable) AS is_grantable
                     FROM pg_catalog.aclexplode(form.acl) a
                     WHERE a.privilege_type IN ('EXECUTE', 'SELECT') AND a.grantee <> form.owner GROUP BY 1 LOOP
            EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %s%s', form.made, given.grantee,
                                      CASE WHEN given.is_grantable THEN ' WITH GRANT OPTION' END);
        END LOOP;
        UPDATE pg_catalog.pg_init_privs SET initprivs = noted
        WHERE objoid = form.made AND classoid = 'pg_catalog.pg_proc'::pg_catalog.regclass;
        -- From PostgreSQL 17 on roles in such notes cannot be dropped.
        DELETE FROM pg_catalog.pg_shdepend d USING pg_catalog.pg_proc p
        WHERE p.oid = d.objid AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = form.made
        AND d.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
        AND d.deptype = 'i' AND d.refobjid <> p.proowner;
    END LOOP;
END
$$;
DROP FUNCTION eventbus.capture_ddl(text, text);
DROP FUNCTION eventbus.route_status();
DROP FUNCTION eventbus.alter_broker(text, text, jsonb);
DROP FUNCTION eventbus.alter_route(text, text, text, jsonb);
DROP TABLE pg_temp.publish_form;
SELECT pg_catalog.set_config('role', pg_catalog.current_setting('pg_eventbus_update.role'), true);

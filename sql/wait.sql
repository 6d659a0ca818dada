-- What it is: eventbus.wait_for_delivery in one session: what it refuses, and what it can tell without a broker.
-- Who calls it: make installcheck.
-- Never: needs a broker that is there.
\set VERBOSITY default
\set SHOW_CONTEXT never
SELECT eventbus.create_broker('away', 'redis:///nonexistent/redis.sock');

-- Nothing takes the event: there is nothing to wait for.
SELECT eventbus.publish('wait.none', '1') AS id \gset
SELECT eventbus.wait_for_delivery(:id);

-- Refused arguments.
SELECT eventbus.wait_for_delivery(NULL);
SELECT eventbus.wait_for_delivery(:id, NULL);
SELECT eventbus.wait_for_delivery(:id, route => 'nowhere');
SELECT eventbus.wait_for_delivery(-1);
SELECT eventbus.wait_for_delivery(0);
SELECT eventbus.wait_for_delivery(9223372036854775807);

-- Not in the transaction that publishes, nor in a subtransaction of it, nor in the same statement.
BEGIN;
CREATE TEMP TABLE published AS SELECT eventbus.publish('wait.none', '2') AS id;
SAVEPOINT inner_one;
DO $$
BEGIN
    PERFORM eventbus.wait_for_delivery((SELECT id FROM published));
EXCEPTION WHEN invalid_transaction_state THEN
    RAISE NOTICE 'refused in the transaction';
END $$;
ROLLBACK TO inner_one;
SAVEPOINT inner_two;
UPDATE published SET id = eventbus.publish('wait.none', '3');
RELEASE inner_two;
DO $$
BEGIN
    PERFORM eventbus.wait_for_delivery((SELECT id FROM published));
EXCEPTION WHEN invalid_transaction_state THEN
    RAISE NOTICE 'refused after RELEASE of its savepoint';
END $$;
COMMIT;
SELECT eventbus.wait_for_delivery(id) FROM published;
DO $$
BEGIN
    PERFORM eventbus.wait_for_delivery(eventbus.publish('wait.none', '4'));
EXCEPTION WHEN invalid_transaction_state THEN
    RAISE NOTICE '%', regexp_replace(SQLERRM, '\d+', 'N');
END $$;

-- What was rolled back will never be delivered. (The locks keep rotation from taking it out of the log meanwhile.)
BEGIN;
LOCK TABLE eventbus.log_0, eventbus.log_1, eventbus.log_2, eventbus.log_3 IN ACCESS SHARE MODE;
SAVEPOINT undone;
SELECT eventbus.publish('wait.none', '5') AS undone \gset
ROLLBACK TO undone;
DO $$
BEGIN
    PERFORM eventbus.wait_for_delivery(last_value) FROM eventbus.event_id;
EXCEPTION WHEN undefined_object THEN
    RAISE NOTICE '%', regexp_replace(SQLERRM, '\d+', 'N');
END $$;
COMMIT;

-- A route whose broker is away: false, at once where there is no time.
SELECT eventbus.create_route('waiting', 'away', 'list:l', 'wait.some.#');
SELECT eventbus.wait_for_delivery(:id);
SELECT eventbus.publish('wait.some', '7') AS id \gset
SELECT eventbus.wait_for_delivery(:id, '0 s'), eventbus.wait_for_delivery(:id, '-1 month'),
       eventbus.wait_for_delivery(:id, '10 ms'), eventbus.wait_for_delivery(:id, '10 ms', 'waiting');

-- A route that does not take the event: nothing to wait for on all, a mistake when it is named.
SELECT eventbus.publish('wait.none', '8') AS other \gset
SELECT eventbus.wait_for_delivery(:other);
DO $$
BEGIN
    PERFORM eventbus.wait_for_delivery((SELECT id FROM eventbus.event WHERE payload = '8' AND topic = 'wait.none'), route => 'waiting');
EXCEPTION WHEN invalid_parameter_value THEN
    RAISE NOTICE '%', regexp_replace(SQLERRM, '\d+', 'N');
END $$;

-- A route that is younger than the event does not count.
SELECT eventbus.create_route('younger', 'away', 'list:l', 'wait.#');
SELECT eventbus.wait_for_delivery(:other), eventbus.wait_for_delivery(:other, route => 'younger');

-- Under REPEATABLE READ, too, and without a lock on the log.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) > 0 AS snapshot_taken FROM eventbus.route;
SELECT eventbus.wait_for_delivery(:other), eventbus.wait_for_delivery(:id, '10 ms');
SELECT count(*) AS locked_segments FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
    WHERE l.pid = pg_backend_pid() AND c.relname ~ '^log_\d$';
COMMIT;

-- Ended by a cancel, and the place is free again: far more calls than places.
SET statement_timeout = '50ms';
SELECT eventbus.wait_for_delivery(:id, '1 hour');
SELECT eventbus.wait_for_delivery(:id, '1000000 years');
RESET statement_timeout;
SELECT count(*) FROM (SELECT eventbus.wait_for_delivery(:id, '0 s') FROM generate_series(1, 300)) AS calls;
DO $$
DECLARE
    refused int := 0;
BEGIN
    FOR i IN 1 .. 300 LOOP
        BEGIN
            PERFORM eventbus.wait_for_delivery(1, route => 'nowhere');
        EXCEPTION WHEN undefined_object THEN
            refused := refused + 1;
        END;
    END LOOP;
    RAISE NOTICE '% refused', refused;
END $$;

-- It must be granted, and is enough then.
CREATE ROLE regress_eventbus_waiter;
GRANT USAGE ON SCHEMA eventbus TO regress_eventbus_waiter;
SET ROLE regress_eventbus_waiter;
SELECT eventbus.wait_for_delivery(:id, '0 s');
RESET ROLE;
GRANT EXECUTE ON FUNCTION eventbus.wait_for_delivery(bigint, interval, text) TO regress_eventbus_waiter;
SET ROLE regress_eventbus_waiter;
CREATE TEMP TABLE route_config (id int, name text, topics text);
SELECT eventbus.wait_for_delivery(:id, '0 s');
RESET ROLE;

DROP TABLE route_config;

-- A place in the WAL: what commits before it, on routes from the WAL; there is none yet.
SELECT eventbus.wait_for_delivery(pg_current_wal_insert_lsn()), eventbus.wait_for_delivery('0/0'::pg_lsn, '0 s'),
       eventbus.wait_for_delivery(pg_current_wal_insert_lsn(), '1 h');
SELECT eventbus.wait_for_delivery(NULL::pg_lsn);
SELECT eventbus.wait_for_delivery(pg_current_wal_insert_lsn(), NULL);
SELECT eventbus.wait_for_delivery(pg_current_wal_insert_lsn(), route => 'nowhere');
SELECT eventbus.wait_for_delivery(pg_current_wal_insert_lsn(), route => 'waiting');
DO $$
BEGIN
    PERFORM eventbus.wait_for_delivery('FFFFFFFF/FFFFFFFF'::pg_lsn);
EXCEPTION WHEN invalid_parameter_value THEN
    RAISE NOTICE '%', SQLERRM;
END $$;

-- A literal, and a parameter without a type, are texts: an id, or a place. Named, they are what the name says.
SELECT eventbus.wait_for_delivery('0/1'), eventbus.wait_for_delivery('0/1', '0 s'), eventbus.wait_for_delivery(event_id => :'other', timeout => '0 s'),
       eventbus.wait_for_delivery(lsn => '0/1', timeout => '0 s'), eventbus.wait_for_delivery(:'other', '0 s');
PREPARE untyped AS SELECT eventbus.wait_for_delivery($1), eventbus.wait_for_delivery($1, $2), eventbus.wait_for_delivery($1, $2, $3);
PREPARE named AS SELECT eventbus.wait_for_delivery(event_id => $1), eventbus.wait_for_delivery(lsn => $2);
SELECT name, parameter_types FROM pg_prepared_statements ORDER BY 1;
EXECUTE untyped('0/1', '0 s', NULL);
EXECUTE untyped(:'other', '0 s', NULL);
EXECUTE untyped('one', '0 s', NULL);
EXECUTE untyped('1/one', '0 s', NULL);
EXECUTE untyped(NULL, '0 s', NULL);
DEALLOCATE ALL;

-- A route from the WAL whose broker is away.
SET client_min_messages = warning;
SELECT eventbus.create_route('changes', 'away', 'list:l', 'wait.#', '{"source": "wal", "tables": "none.*"}');
RESET client_min_messages;
SELECT eventbus.wait_for_delivery('0/1'::pg_lsn), eventbus.wait_for_delivery('0/1'::pg_lsn, route => 'changes');
-- What commits before its slot is made is not the route's.
DO $$
BEGIN
    FOR i IN 1 .. 600 LOOP
        EXIT WHEN (SELECT state NOT IN ('starting', 'stopped', 'failing') FROM eventbus.status WHERE route = 'changes');
        PERFORM pg_sleep(0.05);
    END LOOP;
END $$;
SELECT eventbus.publish_wal('wait.some', '1') IS NOT NULL AS published;
SELECT pg_current_wal_insert_lsn() AS lsn \gset
SELECT eventbus.wait_for_delivery(:'lsn', '0 s'), eventbus.wait_for_delivery(:'lsn'::pg_lsn, '-1 month'), eventbus.wait_for_delivery(:'lsn', '100 ms', 'changes');
SET statement_timeout = '50ms';
SELECT eventbus.wait_for_delivery(:'lsn', '1 hour');
RESET statement_timeout;
SELECT count(*) FROM (SELECT eventbus.wait_for_delivery(:'lsn'::pg_lsn, '0 s') FROM generate_series(1, 300)) AS calls;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT eventbus.wait_for_delivery(:'lsn', '10 ms');
COMMIT;
SET ROLE regress_eventbus_waiter;
SELECT eventbus.wait_for_delivery(:'lsn'::pg_lsn, '0 s');
SELECT eventbus.wait_for_delivery(:'lsn', '0 s');
RESET ROLE;
GRANT EXECUTE ON FUNCTION eventbus.wait_for_delivery(pg_lsn, interval, text), eventbus.wait_for_delivery(text, interval, text) TO regress_eventbus_waiter;
SET ROLE regress_eventbus_waiter;
SELECT eventbus.wait_for_delivery(:'lsn'::pg_lsn, '0 s'), eventbus.wait_for_delivery(:'lsn', '0 s');
RESET ROLE;
SELECT eventbus.drop_broker('away', true);
REVOKE ALL ON FUNCTION eventbus.wait_for_delivery(bigint, interval, text), eventbus.wait_for_delivery(pg_lsn, interval, text),
    eventbus.wait_for_delivery(text, interval, text) FROM regress_eventbus_waiter;
REVOKE ALL ON SCHEMA eventbus FROM regress_eventbus_waiter;
DROP ROLE regress_eventbus_waiter;

-- An event belongs to its transaction: rollback, savepoints, exception blocks, read only, isolation levels.
SET client_min_messages = error;
\set SHOW_CONTEXT never
SELECT eventbus.create_broker('nowhere', 'redis:///nonexistent/redis.sock');
SELECT eventbus.create_route('hold', 'nowhere', 'list:held');
SELECT eventbus.pause_route('hold');
CREATE TABLE mark AS SELECT eventbus.publish('mark', '0') AS id;
CREATE VIEW news AS
    SELECT topic, payload FROM eventbus.event WHERE id > (SELECT min(id) FROM mark) ORDER BY id;

-- Seen by its own transaction at once, by nobody after ROLLBACK
BEGIN;
SELECT eventbus.publish('rolled.back', '1') > 0 AS published;
SELECT * FROM news;
ROLLBACK;
SELECT * FROM news;
BEGIN;
SELECT eventbus.publish('committed', '1') > 0 AS published;
COMMIT;
SELECT * FROM news;
-- Ids of events that were rolled back do not come again
BEGIN;
SELECT eventbus.publish('rolled.back', '1') AS before \gset
ROLLBACK;
SELECT eventbus.publish('after.rollback', '1') > :before AS grows;

-- An error ends the transaction
BEGIN;
SELECT eventbus.publish('error', '1') > 0 AS published;
SELECT 1 / 0;
COMMIT;
-- and a statement by itself
SELECT eventbus.publish('error', to_jsonb(1 / (3 - i))) FROM generate_series(1, 3) AS i;
SELECT * FROM news;

-- Savepoints
BEGIN;
SELECT eventbus.publish('savepoint', '1') > 0 AS published;
SAVEPOINT a;
SELECT eventbus.publish('savepoint', '"undone with a"') > 0 AS published;
SAVEPOINT b;
SELECT eventbus.publish('savepoint', '"undone in b, then with a"') > 0 AS published;
RELEASE b;
ROLLBACK TO a;
SELECT eventbus.publish('savepoint', '2') > 0 AS published;
SAVEPOINT c;
SELECT eventbus.publish('savepoint', '3') > 0 AS published;
RELEASE c;
SAVEPOINT d;
SELECT eventbus.publish('savepoint', '"undone with d"') > 0 AS published;
ROLLBACK TO d;
COMMIT;
SELECT * FROM news WHERE topic = 'savepoint';
BEGIN;
SAVEPOINT a;
SELECT eventbus.publish('savepoint.only', '1') > 0 AS published;
ROLLBACK TO a;
COMMIT;
BEGIN;
SAVEPOINT a;
SELECT eventbus.publish('savepoint.only', '2') > 0 AS published;
RELEASE a;
COMMIT;
SELECT * FROM news WHERE topic = 'savepoint.only';
BEGIN;
SAVEPOINT a;
SELECT eventbus.publish('savepoint.all', '1') > 0 AS published;
RELEASE a;
ROLLBACK;
SELECT * FROM news WHERE topic = 'savepoint.all';

-- Exception blocks
DO $$
BEGIN
    PERFORM eventbus.publish('block', '1');
    BEGIN
        PERFORM eventbus.publish('block', '"undone"');
        RAISE EXCEPTION 'no';
    EXCEPTION WHEN raise_exception THEN
        PERFORM eventbus.publish('block', '2');
    END;
    BEGIN
        PERFORM eventbus.publish('block', '3');
        BEGIN
            PERFORM eventbus.publish('bad topic.', '"refused"');
        EXCEPTION WHEN invalid_parameter_value THEN
            PERFORM eventbus.publish('block', '4');
        END;
    EXCEPTION WHEN others THEN
        RAISE EXCEPTION 'not reached';
    END;
    FOR i IN 5 .. 104 LOOP  -- more subtransactions than a backend caches
        BEGIN
            PERFORM eventbus.publish('block', to_jsonb(i));
            IF i % 2 = 0 THEN RAISE EXCEPTION 'even'; END IF;
        EXCEPTION WHEN raise_exception THEN NULL;
        END;
    END LOOP;
END $$;
SELECT count(*), string_agg(payload, ' ') AS payloads FROM news WHERE topic = 'block';

-- Refusals by SQLSTATE, as programs see them
CREATE FUNCTION state_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'ok';
EXCEPTION WHEN others THEN
    RETURN sqlstate;
END $$;
SELECT state_of($$SELECT eventbus.publish(NULL, '1')$$) AS is_null, state_of($$SELECT eventbus.publish('', '1')$$) AS topic,
       state_of($$SELECT eventbus.publish_text('a', repeat('x', 17000000))$$) AS size,
       state_of($$SELECT eventbus.publish('a', '1', headers => '[]')$$) AS headers,
       state_of($$SELECT eventbus.publish_text('a', 'x', content_type => '')$$) AS content_type;
DROP FUNCTION state_of;

-- Procedures that commit on their way
CREATE PROCEDURE steps() LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. 4 LOOP
        PERFORM eventbus.publish('procedure', to_jsonb(i));
        IF i % 2 = 0 THEN COMMIT; ELSE ROLLBACK; END IF;
    END LOOP;
END $$;
CALL steps();
DROP PROCEDURE steps;
SELECT * FROM news WHERE topic = 'procedure';

-- At the last moment: a deferred trigger, a cursor that outlives its transaction
CREATE TABLE t (a int);
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM eventbus.publish('deferred', to_jsonb(new.a)); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER tell AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION tell();
BEGIN;
INSERT INTO t VALUES (1);
SELECT * FROM news WHERE topic = 'deferred';
COMMIT;
BEGIN;
INSERT INTO t VALUES (2);
ROLLBACK;
SELECT * FROM news WHERE topic = 'deferred';
DROP TABLE t;
DROP FUNCTION tell;
BEGIN;
DECLARE held CURSOR WITH HOLD FOR SELECT eventbus.publish('held', to_jsonb(i)) > 0 AS published FROM generate_series(1, 3) AS i;
COMMIT;
FETCH ALL FROM held;
CLOSE held;
SELECT topic, count(*) FROM news WHERE topic = 'held' GROUP BY 1;

-- Read only
BEGIN READ ONLY;
SELECT eventbus.publish('read.only', '1');
ROLLBACK;
BEGIN READ ONLY;
SELECT eventbus.publish_text('read.only', 'x');
ROLLBACK;
BEGIN READ ONLY;
SELECT eventbus.publish_bytes('read.only', 'x');
ROLLBACK;
BEGIN READ ONLY;
SELECT count(*) FROM news WHERE topic = 'read.only';
SELECT count(*) >= 0 AS readable FROM eventbus.status;
SELECT count(*) > 0 AS readable FROM eventbus.health();
COMMIT;
CREATE TABLE untouched (id integer);
SET default_transaction_read_only = on;
SELECT eventbus.publish('read.only', '1');
SELECT eventbus.create_broker('b', 'redis://localhost');
SELECT eventbus.pause_route('hold');
SELECT eventbus.redeliver();
SELECT eventbus.capture('untouched');
SELECT eventbus.uncapture('untouched');
SELECT eventbus.capture_ddl();
SELECT eventbus.allow('pg_monitor', 'a');
SELECT eventbus.grant_publisher('pg_monitor');
RESET default_transaction_read_only;
DROP TABLE untouched;

-- Isolation levels, and commits that do not wait
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT eventbus.publish('level', '"repeatable read"') > 0 AS published;
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT eventbus.publish('level', '"serializable"') > 0 AS published;
SELECT * FROM news WHERE topic = 'level';
COMMIT;
SET synchronous_commit = off;
SELECT eventbus.publish('level', '"synchronous_commit off"') > 0 AS published;
RESET synchronous_commit;
SELECT * FROM news WHERE topic = 'level';

-- Nothing of it all has left a trace of what was undone
SELECT topic, count(*) FROM news GROUP BY topic ORDER BY topic;

SELECT eventbus.drop_broker('nowhere', true);
DROP VIEW news;
DROP TABLE mark;

-- What it is: what the isolation specs share.
-- Who calls it: test/regress-run, once, in the database that the specs run in.
-- Never: reaches behind the SQL contract, but for the segments' sizes and which one is current.
CREATE SCHEMA test;
CREATE TABLE test.start (id bigint, generation bigint);
INSERT INTO test.start VALUES (0, 0);
CREATE TABLE test.seen (id bigint);

-- For each topic a broker that is never there, and a route: its sender reads the log as far as the topic's first
-- event and delivers nothing. That it has come so far shows as the route's lag. A second route to the same broker
-- takes marks: where a mark shows, the sender has passed all that became visible before it.
CREATE FUNCTION test.broker(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM eventbus.create_broker(name, 'redis:///nonexistent/redis.sock');
    PERFORM eventbus.create_route('mark.' || name, name, 'list:mark', 'mark.' || name);
END $$;
CREATE FUNCTION test.setup(VARIADIC topics text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM test.broker(topic), eventbus.create_route(topic, topic, 'list:' || topic, topic) FROM unnest(topics) AS topic;
    UPDATE test.start SET id = (SELECT last_value FROM eventbus.event_id);
    DELETE FROM test.seen;
END $$;
CREATE FUNCTION test.teardown() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM eventbus.drop_broker(name, true) FROM eventbus.broker;
END $$;

CREATE FUNCTION test.publish(topic text, payload text DEFAULT '0') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM eventbus.publish(topic, to_jsonb(payload));
END $$;

-- What the log shows of this permutation's events, in id order.
CREATE VIEW test.news AS
    SELECT topic, payload FROM eventbus.event WHERE id > (SELECT id FROM test.start) AND topic NOT LIKE 'mark.%' ORDER BY id;

-- The reader that everybody writes first: what has a higher id than the last one that it has seen.
CREATE FUNCTION test.naive() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    one record;
BEGIN
    FOR one IN SELECT id, topic FROM eventbus.event
               WHERE id > (SELECT max(id) FROM (SELECT id FROM test.start UNION ALL SELECT id FROM test.seen) AS s)
               AND topic NOT LIKE 'mark.%' ORDER BY id LOOP
        INSERT INTO test.seen VALUES (one.id);
        RETURN NEXT one.topic;
    END LOOP;
END $$;

-- Whether the route's sender holds events.
CREATE FUNCTION test.has(route text) RETURNS boolean LANGUAGE sql AS $$
    SELECT lag > interval '0' FROM eventbus.status s WHERE s.route = has.route;
$$;

CREATE FUNCTION test.eventually(condition text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    deadline timestamptz := clock_timestamp() + interval '60 s';
    holds boolean;
BEGIN
    LOOP
        EXECUTE 'SELECT ' || condition INTO holds;
        IF holds THEN RETURN 'yes'; END IF;
        IF clock_timestamp() > deadline THEN RETURN 'not within 60 s'; END IF;
        PERFORM pg_sleep(0.02);
    END LOOP;
END $$;

-- Whether the sender of a topic has found it, once it has passed the mark that was published last.
CREATE FUNCTION test.passed(topic text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF test.eventually(format('test.has(%L)', 'mark.' || topic)) <> 'yes' THEN RETURN 'no mark within 60 s'; END IF;
    RETURN CASE WHEN test.has(topic) THEN 'found it' ELSE 'found nothing' END;
END $$;
-- Lets the sender continue after the mark.
CREATE FUNCTION test.unmark(topic text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM eventbus.drop_route('mark.' || topic);
END $$;

-- The log's segments.
CREATE VIEW test.segment AS
    SELECT c.oid, substr(c.relname, 5)::int AS number, pg_relation_size(c.oid) AS bytes,
           EXISTS (SELECT FROM pg_locks l WHERE l.relation = c.oid AND l.mode = 'RowExclusiveLock' AND l.granted) AS written
    FROM pg_class c WHERE c.relnamespace = 'eventbus'::regnamespace AND c.relkind = 'r' AND c.relname ~ '^log_[0-9]+$';
CREATE FUNCTION test.log_bytes() RETURNS bigint LANGUAGE sql AS $$ SELECT sum(bytes)::bigint FROM test.segment $$;
CREATE FUNCTION test.generation() RETURNS bigint LANGUAGE sql AS $$ SELECT last_value FROM eventbus.log_generation $$;
CREATE FUNCTION test.note_generation() RETURNS void LANGUAGE sql AS $$ UPDATE test.start SET generation = test.generation() $$;
-- Until the log has continued to another segment since the last call of either.
CREATE FUNCTION test.rotated() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN test.eventually('test.generation() > (SELECT generation FROM test.start)');
END $$;

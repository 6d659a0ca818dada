\echo Use "CREATE EXTENSION pg_eventbus" to load this file. \quit

CREATE SCHEMA eventbus;
COMMENT ON SCHEMA eventbus IS 'pg_eventbus: events that are delivered to brokers once their transaction has committed';

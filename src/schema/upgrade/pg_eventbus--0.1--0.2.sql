\echo Use "ALTER EXTENSION pg_eventbus UPDATE" to load this file. \quit

-- From 0.1 (commit 794d505) to 0.2. Whatever changes src/schema changes this file as well.

-- What 0.1 wrote of a place within a batch may be one of a file that is gone: such batches begin again.
ALTER TABLE eventbus.cursor ADD COLUMN files bigint[];
COMMENT ON COLUMN eventbus.cursor.files IS 'within a batch: relfilenodes of log_0 to log_3, in which start and end are places; where a segment has another one (VACUUM FULL, TRUNCATE), or with NULL, what the batch has in it begins again';

-- MQTT brokers have the option confirm_timeout, too.
COMMENT ON FUNCTION eventbus.create_broker(text, text, jsonb) IS
    'names a broker. url: scheme://[user[:password]@]host[:port][,host…][/path], scheme amqp, amqps, mqtt, mqtts, ws, wss (MQTT in a WebSocket), redis or rediss; options: password_file, ca_file, cert_file, key_file, verify, connect_timeout (s), heartbeat (s), window (messages); AMQP and MQTT: confirm_timeout (s); MQTT alone: version (5, 3.1.1), client_id (text), session_expiry (s), will (object of topic, payload, qos, retain)';

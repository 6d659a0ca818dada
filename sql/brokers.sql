-- create_broker, alter_broker, drop_broker: what they keep, hide and refuse.
SET client_min_messages = error;
\set SHOW_CONTEXT never
CREATE FUNCTION refused(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'taken';
EXCEPTION WHEN others THEN
    RETURN sqlstate;
END $$;
CREATE VIEW brokers AS SELECT name, url, options FROM eventbus.broker ORDER BY name COLLATE "C";

-- Every form of URL; no password is shown
SELECT eventbus.create_broker('redis', 'redis://localhost');
SELECT eventbus.create_broker('redis.db', 'redis://127.0.0.1:6380/3');
SELECT eventbus.create_broker('redis.login', 'redis://app:s3cret@10.0.0.1,10.0.0.2:6380/0');
SELECT eventbus.create_broker('redis.password', 'redis://:s3cret@localhost');
SELECT eventbus.create_broker('redis.socket', 'redis:///run/redis/redis.sock?db=2');
SELECT eventbus.create_broker('redis.tls', 'rediss://localhost', '{"verify": false}');
SELECT eventbus.create_broker('amqp', 'amqp://localhost');
SELECT eventbus.create_broker('amqp.vhost', 'amqp://guest:s3cret@a.example:5673,b.example/%2Fshop');
SELECT eventbus.create_broker('amqp.ip6', 'amqp://guest:s3%40cret@[::1]:5672');
SELECT eventbus.create_broker('amqp.upper', 'AMQP://guest:s3cret@LOCALHOST');
SELECT eventbus.create_broker('amqps', 'amqps://guest:s3cret@localhost', '{"ca_file": "/etc/ssl/ca.pem", "crl_file": "/etc/ssl/crl.pem", "tls_min_version": "1.3", "cert_file": "/etc/ssl/c.pem", "key_file": "/etc/ssl/k.pem"}');
SELECT eventbus.create_broker('options', 'amqp://guest@localhost', '{"password_file": "/run/secret", "connect_timeout": 2.5, "heartbeat": 0, "window": 100}');
SELECT eventbus.create_broker('mqtt', 'wss://u:hunter2@a,b:8884/mqtt', '{"version": "5", "client_id": "me", "session_expiry": 60, "will": {"topic": "gone", "qos": 1}}');
SELECT eventbus.drop_broker('mqtt');
SELECT eventbus.create_broker(options => '{"window": 1}', url => 'redis://h', name => 'by name');
SELECT eventbus.create_broker(repeat('n', 63), 'redis://localhost');
SELECT * FROM brokers;
SELECT count(*) AS shown FROM eventbus.broker WHERE broker::text LIKE '%s3%cret%';
SELECT created_at <= now() AS created FROM eventbus.broker WHERE name = 'redis';

-- Options that do nothing beside others are told
SET client_min_messages = notice;
SELECT eventbus.create_broker('mqtt', 'mqtt://a', '{"client_id": "me", "session_expiry": 60}');
SELECT eventbus.alter_broker('mqtt', options => '{"client_id": "me", "session_expiry": 0}');
SELECT eventbus.alter_broker('mqtt', options => '{"version": "3.1.1", "session_expiry": "1 minute", "client_id": null}');
SELECT eventbus.create_broker('idle', 'amqps://u@a?heartbeat=5&connection_timeout=1000', '{"heartbeat": 7, "connect_timeout": 2, "verify": false, "ca_file": "/ca"}');
SELECT eventbus.alter_broker('idle', options => '{"heartbeat": null, "connect_timeout": null, "ca_file": null, "password_file": "/"}');
SET client_min_messages = error;
SELECT eventbus.drop_broker('mqtt');
SELECT eventbus.drop_broker('idle');

-- Names
SELECT eventbus.create_broker(NULL, 'redis://localhost');
SELECT eventbus.create_broker('', 'redis://localhost');
SELECT eventbus.create_broker(repeat('n', 64), 'redis://localhost');
SELECT eventbus.create_broker(E'a\nb', 'redis://localhost');
SELECT eventbus.create_broker('redis', 'redis://elsewhere');

-- URLs, none of which is quoted in its error
SELECT eventbus.create_broker('b', NULL);
SELECT eventbus.create_broker('b', '');
SELECT eventbus.create_broker('b', 'localhost:6379');
SELECT eventbus.create_broker('b', '://s3cret@localhost');
SELECT eventbus.create_broker('b', 'http://u:s3cret@localhost');
SELECT eventbus.create_broker('b', 'kafka://u:s3cret@localhost');
SELECT eventbus.create_broker('b', 'postgresql:/u:s3cret@localhost');
SELECT eventbus.create_broker('b', 'redis://');
SELECT eventbus.create_broker('b', 'amqp://u:s3cret@');
SELECT eventbus.create_broker('b', 'amqp://u:s3cret@:5672');
SELECT eventbus.create_broker('b', 'amqp://u:s3cret@host:port');
SELECT eventbus.create_broker('b', 'amqp://u:s3cret@host:0');
SELECT eventbus.create_broker('b', 'amqp://u:s3cret@host:65536');
SELECT eventbus.create_broker('b', 'amqp://u:s3cret@host:-1');
SELECT eventbus.create_broker('b', 'amqp://u:s3cret@host name');
SELECT eventbus.create_broker('b', 'amqp://u:s3cret@a,,b');
SELECT eventbus.create_broker('b', 'amqp://u:s3cret@::1');
SELECT eventbus.create_broker('b', 'amqp://u:s3cret@[::1');
SELECT eventbus.create_broker('b', 'amqp://u:s3cret@[::1]x');
SELECT eventbus.create_broker('b', 'amqp://u:s3cret%zz@host');
SELECT eventbus.create_broker('b', 'amqp://u:s3/cret@host');
SELECT eventbus.create_broker('b', 'amqp://app:1234/s3cret@rabbit');
SELECT eventbus.create_broker('b', 'amqp://app:1234?s3cret=x@rabbit');
SELECT eventbus.create_broker('b', E'amqp://u:s3cret@host\n');
SELECT eventbus.create_broker('b', 'amqp://u:s3cret@host?x');
SELECT eventbus.create_broker('b', 'amqp://u:s3cret@host?vhost=a');
SELECT eventbus.create_broker('b', 'amqp:///run/rabbit.sock');
SELECT eventbus.create_broker('b', 'redis://:s3cret@host/shop');
SELECT eventbus.create_broker('b', 'redis://:s3cret@host/-1');
SELECT eventbus.create_broker('b', 'redis://:s3cret@host/1?db=2');
SELECT eventbus.create_broker('b', 'redis://:s3cret@host?database=2');
SELECT eventbus.create_broker('b', 'redis://user@host');
SELECT eventbus.create_broker('b', 'redis:///' || repeat('p', 200));
SELECT eventbus.create_broker('b', 'rediss:///run/redis.sock');

-- Options
SELECT eventbus.create_broker('b', 'redis://localhost', '[]');
SELECT eventbus.create_broker('b', 'redis://localhost', 'null');
SELECT eventbus.create_broker('b', 'redis://localhost', '{"pasword_file": "/s3cret"}');
SELECT eventbus.create_broker('b', 'redis://localhost', '{"password": "s3cret"}');
SELECT eventbus.create_broker('b', 'redis://localhost', '{"password_file": 17}');
SELECT eventbus.create_broker('b', 'redis://localhost', '{"password_file": ""}');
SELECT refused($$SELECT eventbus.create_broker('b', 'redis://u:s3cret@localhost', '{"password_file": "/run/secret"}')$$);
SELECT refused($$SELECT eventbus.create_broker('b', 'amqp://u:s3cret@localhost', '{"password_file": "/run/secret"}')$$);
SELECT eventbus.create_broker('b', 'redis://localhost', '{"verify": "yes"}');
SELECT eventbus.create_broker('b', 'redis://localhost', '{"verify": false}');
SELECT eventbus.create_broker('b', 'redis://localhost', '{"ca_file": "/ca.pem"}');
SELECT eventbus.create_broker('b', 'redis://localhost', '{"crl_file": "/crl.pem"}');
SELECT eventbus.create_broker('b', 'redis://localhost', '{"tls_min_version": "1.3"}');
SELECT eventbus.create_broker('b', 'rediss://localhost', '{"tls_min_version": "1.1"}');
SELECT eventbus.create_broker('b', 'rediss://localhost', '{"cert_file": "/c.pem"}');
SELECT eventbus.create_broker('b', 'amqp://localhost', '{"ca_file": "/ca.pem"}');
SELECT eventbus.create_broker('b', 'amqps://localhost', '{"key_file": "/k.pem"}');
SELECT eventbus.create_broker('b', 'amqp://localhost', '{"connect_timeout": 0}');
SELECT eventbus.create_broker('b', 'amqp://localhost', '{"connect_timeout": "1 fortnight"}');
SELECT eventbus.create_broker('b', 'amqp://localhost', '{"heartbeat": -1}');
SELECT eventbus.create_broker('b', 'amqp://localhost', '{"heartbeat": 1.5}');
SELECT eventbus.create_broker('b', 'amqp://localhost', '{"client_id": "me"}');
SELECT eventbus.create_broker('b', 'mqtt://localhost', '{"will": {"topic": "a/#"}}');
SELECT eventbus.create_broker('b', 'mqtt://localhost', '{"version": "4"}');
SELECT eventbus.create_broker('b', 'mqtt://localhost/path');
SELECT eventbus.create_broker('b', 'mqtt:///run/mosquitto.sock');
SELECT eventbus.create_broker('b', 'ws://localhost', '{"ca_file": "/ca.pem"}');
SELECT eventbus.create_broker('b', 'amqp://localhost', '{"window": 0}');
SELECT eventbus.create_broker('b', 'amqp://localhost', '{"window": 1000001}');
SELECT refused($$SELECT eventbus.create_broker('b', 'amqp://localhost', '{"window": 1e400}')$$);
SELECT count(*) FROM eventbus.broker WHERE name = 'b';

-- Changes: what is not given stays
SELECT eventbus.alter_broker('redis', 'redis://:s3cret@new.example/1');
SELECT eventbus.alter_broker('redis', options => '{"window": 10}');
SELECT * FROM brokers WHERE name = 'redis';
SELECT eventbus.alter_broker('redis', options => '{"heartbeat": 10}');
SELECT * FROM brokers WHERE name = 'redis';
SELECT eventbus.alter_broker('redis', 'amqp://localhost', '{}');
SELECT * FROM brokers WHERE name = 'redis';
-- one that is null goes, whether it is there or not; a name that is none is an error
SELECT eventbus.alter_broker('redis', options => '{"window": null, "verify": null, "connect_timeout": "1500 ms"}');
SELECT * FROM brokers WHERE name = 'redis';
SELECT eventbus.alter_broker('redis', options => '{"windows": null}');
SELECT eventbus.alter_broker('redis', options => '{"session_expiry": null}');
-- all of them
SELECT eventbus.alter_broker('redis', options => '{"heartbeat": "1 min"}', replace => true);
SELECT * FROM brokers WHERE name = 'redis';
SELECT eventbus.alter_broker('redis', options => '{"heartbeat": null}', replace => true);
SELECT eventbus.alter_broker('redis', replace => true);
SELECT eventbus.alter_broker('redis', options => '{}', replace => true);
SELECT * FROM brokers WHERE name = 'redis';
SELECT eventbus.alter_broker('redis');
SELECT * FROM brokers WHERE name = 'redis';
SELECT eventbus.alter_broker(NULL, 'redis://localhost');
SELECT eventbus.alter_broker('nobody', 'redis://localhost');
SELECT eventbus.alter_broker('redis', 'http://u:s3cret@localhost');
SELECT eventbus.alter_broker('redis', 'amqp://u:s3cret@host:port');
SELECT eventbus.alter_broker('redis', '');
SELECT eventbus.alter_broker('redis', options => '{"no": 1}');
SELECT eventbus.alter_broker('redis', options => '17');
-- to a protocol that cannot serve its routes
SELECT eventbus.create_route('r', 'redis', 'queue:q');
SELECT eventbus.alter_broker('redis', 'redis://localhost');
SELECT eventbus.alter_broker('redis', 'amqps://localhost');
SELECT * FROM brokers WHERE name = 'redis';

-- Drops
SELECT eventbus.drop_broker(NULL);
SELECT eventbus.drop_broker('');
SELECT eventbus.drop_broker('nobody');
SELECT eventbus.create_route('a', 'redis', 'queue:q');
SELECT eventbus.drop_broker('redis');
SELECT eventbus.drop_broker('redis', NULL);
SELECT eventbus.drop_broker('redis', true);
SELECT count(*) FROM eventbus.route;
SELECT eventbus.drop_broker('redis');
SELECT eventbus.drop_broker(name, cascade => false) FROM eventbus.broker ORDER BY name;
SELECT eventbus.drop_broker('redis');
SELECT eventbus.create_route('r', 'redis', 'list:l');

-- A transaction that rolls back, and names that are used again
BEGIN;
SELECT eventbus.create_broker('again', 'redis://localhost');
ROLLBACK;
SELECT eventbus.create_broker('again', 'redis://localhost');
BEGIN;
SELECT eventbus.drop_broker('again');
SELECT eventbus.create_broker('again', 'amqp://localhost');
COMMIT;
SELECT * FROM brokers;
SELECT eventbus.drop_broker('again');

-- URLs as they are shown, whatever they look like
SELECT url, eventbus.redacted_url(url) FROM unnest(ARRAY[
    'amqp://localhost', 'amqp://u@h', 'amqp://u:p@h/v', 'amqp://u:@h', 'redis://:p@h:1/0', 'redis:///run/x.sock',
    'amqp://u:p@ss@h', 'amqp://u:p/q@h', 'amqp://u:p?q@h', 'amqp://u:p:q@h', 'no url, p@ss:word', '', 'x://u:p@[', 'amqp://h?password=p&x=1']) AS url;
SELECT eventbus.redacted_url(NULL) IS NULL AS is_null, length(eventbus.redacted_url('redis://' || repeat('h', 5000))) AS length;
DROP VIEW brokers;
DROP FUNCTION refused;

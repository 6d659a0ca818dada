-- The settings of a bounded log: what they take, and who may change them.
SET client_min_messages = error;
\set SHOW_CONTEXT never
SHOW eventbus.max_log_size;
SHOW eventbus.on_log_full;
SHOW eventbus.lag_warning;

-- They belong to the server: a session cannot change them for itself
SET eventbus.max_log_size = '1GB';
SET eventbus.on_log_full = 'skip';
SET eventbus.lag_warning = '1h';

-- Values that are none
\set VERBOSITY sqlstate
ALTER SYSTEM SET eventbus.max_log_size = '-2';
ALTER SYSTEM SET eventbus.lag_warning = '-1';
ALTER SYSTEM SET eventbus.rotation_period = '400ms';
ALTER SYSTEM SET eventbus.segment_size = '500B';
\set VERBOSITY default
ALTER SYSTEM SET eventbus.max_log_size = 0;
ALTER SYSTEM SET eventbus.max_log_size = '500kB';
ALTER SYSTEM SET eventbus.max_log_size = '1 parsec';
ALTER SYSTEM SET eventbus.max_log_size = '4000TB';
ALTER SYSTEM SET eventbus.on_log_full = 'drop';

-- Without a limit the log's size is only shown
SELECT name, level, regexp_replace(detail, '^\d+ \w+', 'SIZE') AS detail, hint FROM eventbus.health() WHERE name IN ('lag', 'log') ORDER BY name;

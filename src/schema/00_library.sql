
-- A server continues with the library that it has loaded when the files are replaced. The update from 0.1 reads this file as well.
DO $$
BEGIN
    CREATE FUNCTION eventbus.check_library() RETURNS void LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'eventbus_check_library';
EXCEPTION WHEN undefined_function THEN
    RAISE EXCEPTION 'the server runs a library of pg_eventbus that is older than its SQL'
        USING ERRCODE = 'object_not_in_prerequisite_state',
              DETAIL = 'It was loaded before its files were replaced: it is version 0.1.',
              HINT = 'Restart the server, then run the command again.';
END
$$;
SELECT eventbus.check_library();
DROP FUNCTION eventbus.check_library();

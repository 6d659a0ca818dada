-- grant_publisher, grant_operator, grant_monitor: ordinary GRANTs, and what takes them back.
SET client_min_messages = notice;
\set SHOW_CONTEXT never
CREATE ROLE regress_eventbus_a;
CREATE ROLE "regress_eventbus B";
-- what a role has, functions by name where it has every form of them
CREATE FUNCTION public.has(who text) RETURNS TABLE (what text) LANGUAGE sql AS $$
    SELECT string_agg(name, ' ' ORDER BY name COLLATE "C") FROM (
        SELECT proname || CASE WHEN bool_and(has_function_privilege(who, oid, 'EXECUTE')) THEN '' ELSE ' (some)' END
        FROM pg_proc WHERE pronamespace = 'eventbus'::regnamespace GROUP BY proname
        HAVING bool_or(has_function_privilege(who, oid, 'EXECUTE'))
        UNION ALL SELECT relname::text FROM pg_class WHERE relnamespace = 'eventbus'::regnamespace AND relkind IN ('r', 'v', 'S')
        AND has_table_privilege(who, oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')
        UNION ALL SELECT 'USAGE' WHERE has_schema_privilege(who, 'eventbus', 'USAGE')) o (name) $$;
SELECT eventbus.grant_publisher('regress_eventbus_a');
SELECT * FROM public.has('regress_eventbus_a');
SELECT eventbus.grant_monitor('"regress_eventbus B"');
SELECT * FROM public.has('regress_eventbus B');
SELECT eventbus.grant_operator('"regress_eventbus B"');
SELECT * FROM public.has('regress_eventbus B');
-- once more changes nothing; both have what is the other's after one is taken back
SELECT eventbus.grant_operator('regress_eventbus_a');
SELECT eventbus.revoke_publisher('regress_eventbus_a');
SELECT * FROM public.has('regress_eventbus_a');
SELECT eventbus.revoke_operator('regress_eventbus_a');
SELECT * FROM public.has('regress_eventbus_a');
SELECT eventbus.revoke_operator('regress_eventbus_a');
SELECT eventbus.revoke_operator('"regress_eventbus B"'), eventbus.revoke_monitor('"regress_eventbus B"');
SELECT * FROM public.has('regress_eventbus B');
-- by an ordinary role nothing is granted, whatever it may call
GRANT USAGE ON SCHEMA eventbus TO regress_eventbus_a;
SET ROLE regress_eventbus_a;
SELECT eventbus.grant_publisher('regress_eventbus_a');
RESET ROLE;
GRANT EXECUTE ON FUNCTION eventbus.grant_publisher TO regress_eventbus_a;
SET ROLE regress_eventbus_a;
SELECT eventbus.grant_publisher('regress_eventbus_a');
-- nor where it has them itself, and may not hand them on
RESET ROLE;
SELECT eventbus.grant_publisher('regress_eventbus_a'), eventbus.grant_publisher('"regress_eventbus B"');
GRANT EXECUTE ON FUNCTION eventbus.revoke_publisher, eventbus.grant_monitor TO regress_eventbus_a;
SET ROLE regress_eventbus_a;
SELECT eventbus.grant_publisher('"regress_eventbus B"');
SELECT eventbus.revoke_publisher('"regress_eventbus B"');
SELECT eventbus.grant_monitor('"regress_eventbus B"');
RESET ROLE;
SELECT * FROM public.has('regress_eventbus B');
-- who may, grants
GRANT USAGE ON SCHEMA eventbus TO regress_eventbus_a WITH GRANT OPTION;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA eventbus TO regress_eventbus_a WITH GRANT OPTION;
GRANT SELECT ON ALL TABLES IN SCHEMA eventbus TO regress_eventbus_a WITH GRANT OPTION;
SET ROLE regress_eventbus_a;
SELECT eventbus.grant_monitor('"regress_eventbus B"');
RESET ROLE;
SELECT * FROM public.has('regress_eventbus B');
SET ROLE regress_eventbus_a;
SELECT eventbus.revoke_monitor('"regress_eventbus B"');
RESET ROLE;
SELECT * FROM public.has('regress_eventbus B');
SELECT eventbus.revoke_publisher('"regress_eventbus B"');
REVOKE ALL ON ALL TABLES IN SCHEMA eventbus FROM regress_eventbus_a CASCADE;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA eventbus FROM regress_eventbus_a CASCADE;
-- nonsense
SELECT eventbus.grant_publisher(NULL);
SELECT eventbus.grant_publisher('regress_eventbus_nobody');
SELECT eventbus.grant_publisher('4000000000');
DROP FUNCTION public.has;
REVOKE ALL ON SCHEMA eventbus FROM regress_eventbus_a CASCADE;
DROP ROLE regress_eventbus_a, "regress_eventbus B";

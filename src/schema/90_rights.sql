
-- The last file. Nobody but the owner has any rights until they are granted, whatever ALTER DEFAULT PRIVILEGES says.
DO $$
DECLARE
    object record;
BEGIN
    FOR object IN
        SELECT o.name, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END AS grantee
        FROM (SELECT 'ROUTINE ' || oid::pg_catalog.regprocedure AS name, proowner AS owner, coalesce(proacl, pg_catalog.acldefault('f', proowner)) AS acl
              FROM pg_catalog.pg_proc WHERE pronamespace = 'eventbus'::pg_catalog.regnamespace
              UNION ALL
              SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || oid::pg_catalog.regclass, relowner, relacl
              FROM pg_catalog.pg_class WHERE relnamespace = 'eventbus'::pg_catalog.regnamespace AND relkind IN ('r', 'v', 'S')
              UNION ALL
              SELECT 'SCHEMA eventbus', nspowner, nspacl FROM pg_catalog.pg_namespace WHERE nspname = 'eventbus') o,
             pg_catalog.aclexplode(o.acl) a
        WHERE a.grantee <> o.owner
        GROUP BY 1, 2 LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %s CASCADE', object.name, object.grantee);
    END LOOP;
END
$$;

-- Monitoring sees how delivery goes, and neither events nor brokers' credentials.
SELECT eventbus.grant_monitor('pg_monitor');

SELECT eventbus.wake_workers();

-- Who may publish what. A role of which no row speaks, and none of whose roles, may publish every topic.
CREATE TABLE eventbus.topic_grant (
    role   regrole NOT NULL,
    topics text    NOT NULL,
    PRIMARY KEY (role, topics)
);
COMMENT ON TABLE eventbus.topic_grant IS 'topic grants, a row a role and pattern; read eventbus.allowed instead';
-- The rows of a dropped role bind nobody; they are neither shown nor dumped.
SELECT pg_catalog.pg_extension_config_dump('eventbus.topic_grant', 'WHERE role::pg_catalog.oid IN (SELECT oid FROM pg_catalog.pg_roles)');

CREATE FUNCTION eventbus.topic_grants_changed() RETURNS trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'eventbus_topic_grants_changed';
COMMENT ON FUNCTION eventbus.topic_grants_changed() IS 'at commit, makes every session forget what it remembers of eventbus.topic_grant';
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON eventbus.topic_grant
    FOR EACH STATEMENT EXECUTE FUNCTION eventbus.topic_grants_changed();

CREATE VIEW eventbus.allowed AS
    SELECT g.role, g.topics FROM eventbus.topic_grant g WHERE g.role::oid IN (SELECT oid FROM pg_catalog.pg_roles);
COMMENT ON VIEW eventbus.allowed IS 'topic grants, a row a role and pattern: a role with any may publish what matches one of them and nothing else; one without may publish everything. See eventbus.allow';
COMMENT ON COLUMN eventbus.allowed.role IS 'the role; it binds the members that inherit its privileges as well';
COMMENT ON COLUMN eventbus.allowed.topics IS 'a topic pattern';

CREATE FUNCTION eventbus.allow(role regrole, topics text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_allow';
COMMENT ON FUNCTION eventbus.allow(regrole, text) IS
    'lets a role publish topics, and from the first call on nothing else; calls add up. topics: comma-separated patterns, * is one word, # zero or more. Grants of roles whose privileges a role has count for it; superusers are exempt. In force for every session from the commit on. It gives no right to call publish: GRANT EXECUTE does';

CREATE FUNCTION eventbus.disallow(role regrole, topics text DEFAULT NULL) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'eventbus_disallow';
COMMENT ON FUNCTION eventbus.disallow(regrole, text) IS
    'takes topic grants back: patterns as they stand in eventbus.allowed, separated by commas; NULL means all of the role''s. An error where there is none. A role whose last grant goes may publish every topic again';


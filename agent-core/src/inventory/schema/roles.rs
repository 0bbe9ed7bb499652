//! The database itself, and the roles that matter to it: attributes, memberships, settings. Never a password.
use super::{Ask, Query, grants};
use crate::inventory::roles::PARAMETER_GRANTS_SINCE;

pub(super) fn queries(ask: &Ask) -> Vec<Query> {
    vec![
        database(),
        database_settings(ask),
        settings_of_all_roles(ask),
        roles(),
        memberships(
            "member of",
            "CASE WHEN m.admin_option THEN ' with admin option' ELSE '' END",
        ),
        memberships(
            "membership options",
            "format(': inherit %s, set %s', to_jsonb(m) ->> 'inherit_option', to_jsonb(m) ->> 'set_option')",
        ),
        role_settings(ask),
        LABELS.to_owned(),
    ]
    .into_iter()
    .chain((ask.version >= PARAMETER_GRANTS_SINCE).then(|| PARAMETERS.to_owned()))
    .chain((ask.version >= PARAMETER_GRANTS_SINCE).then(|| PARAMETERS_OF_ALL.to_owned()))
    .collect()
}

/// Security labels of roles and of the database.
const LABELS: &str = "
    SELECT 0::oid, 0::oid, o.kind, o.identity, NULL, NULL, '', jsonb_object_agg('label of ' || l.provider, l.label)
    FROM pg_shseclabel l
    JOIN (SELECT 'pg_authid'::regclass AS class, oid, 'role' AS kind, quote_ident(rolname) AS identity
          FROM pg_roles WHERE rolname !~ '^pg_'
          UNION ALL SELECT 'pg_database'::regclass, oid, 'database', '' FROM pg_database WHERE datname = current_database()) o
        ON o.class = l.classoid AND o.oid = l.objoid
    GROUP BY o.kind, o.identity";

/// What a role may SET or ALTER SYSTEM, whoever granted it.
const PARAMETERS: &str = "
    SELECT 0::oid, 0::oid, 'role', quote_ident(pg_get_userbyid(g.grantee)), NULL, NULL, '',
           jsonb_build_object('parameters', string_agg(g.said, E'\\n' ORDER BY g.said))
    FROM (SELECT DISTINCT a.grantee, format('%s on %s%s', a.privilege_type, p.parname,
                                            CASE WHEN a.is_grantable THEN ' with grant option' ELSE '' END) AS said
          FROM pg_parameter_acl p CROSS JOIN LATERAL aclexplode(p.paracl) a
          WHERE a.grantee NOT IN (0, 10) AND pg_get_userbyid(a.grantee) !~ '^pg_') g
    GROUP BY g.grantee";

/// The same of everybody, and of PostgreSQL's own roles, which are told with the database.
const PARAMETERS_OF_ALL: &str = "
    SELECT 0::oid, 0::oid, 'database', '', NULL, NULL, '',
           jsonb_build_object('parameters', string_agg(g.said, E'\\n' ORDER BY g.said))
    FROM (SELECT DISTINCT format('%s on %s to %s%s', a.privilege_type, p.parname, coalesce(r.rolname, 'PUBLIC'),
                                 CASE WHEN a.is_grantable THEN ' with grant option' ELSE '' END) AS said
          FROM pg_parameter_acl p CROSS JOIN LATERAL aclexplode(p.paracl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
          WHERE a.grantee = 0 OR r.rolname ~ '^pg_') g
    HAVING count(*) > 0";

/// Without its name, which may differ at the two ends. `encoding` and what follows are what CREATE DATABASE was told.
fn database() -> Query {
    format!(
        "SELECT d.tableoid, d.oid, 'database', '', NULL, NULL, '', jsonb_build_object(
             'encoding', pg_encoding_to_char(d.encoding),
             'collate', d.datcollate,
             'ctype', d.datctype,
             'locale provider', coalesce(to_jsonb(d) ->> 'datlocprovider', 'c'),
             'locale', coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'),
             'owner', quote_ident(pg_get_userbyid(d.datdba)),
             'connection limit', nullif(d.datconnlimit, -1),
             'template', CASE WHEN d.datistemplate THEN 'yes' END,
             'comment', shobj_description(d.oid, 'pg_database'),
             'grants', {})
         FROM pg_database d WHERE d.datname = current_database()",
        grants("coalesce(d.datacl, acldefault('d', d.datdba))", "d.datdba")
    )
}

/// `{setting}` and its value, of an entry of pg_db_role_setting; a property for each.
fn settings(ask: &Ask, suffix: &str) -> String {
    let name = "split_part(c, '=', 1)";
    format!(
        "jsonb_object_agg('setting ' || {name} || {suffix}, {})",
        ask.setting(name, "substr(c, strpos(c, '=') + 1)")
    )
}

fn database_settings(ask: &Ask) -> Query {
    format!(
        "SELECT 0::oid, 0::oid, 'database', '', NULL, NULL, '', {}
         FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) c
         WHERE d.datname = current_database() AND s.setrole = 0 GROUP BY s.setrole",
        settings(ask, "''")
    )
}

/// ALTER ROLE ALL: of the server, in effect in this database too.
fn settings_of_all_roles(ask: &Ask) -> Query {
    format!(
        "SELECT 0::oid, 0::oid, 'database', '', NULL, NULL, '', {}
         FROM pg_db_role_setting s, unnest(s.setconfig) c
         WHERE s.setdatabase = 0 AND s.setrole = 0 GROUP BY s.setrole",
        settings(ask, "' (of all roles)'")
    )
}

/// The roles that own an object of this database, are granted something on one, or are named by a policy (pg_shdepend knows),
/// have a setting or a user mapping in it; their members, as the migration carries them (see `Roles::with_members`), and what all these are
/// members of. An extension's objects do not count: their owner is who created it; nor does pgconvoy's schema. `reaching`: whoever else may
/// do what they may, superusers and readers and writers of all data among them.
const USED: &str = "
    WITH RECURSIVE direct AS (
        SELECT s.refobjid AS oid FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid
        WHERE d.datname = current_database() AND s.refclassid = 'pg_authid'::regclass AND s.deptype IN ('o', 'a', 'r')
          AND s.classid <> 'pg_extension'::regclass
          AND NOT EXISTS (SELECT FROM member m WHERE m.classid = s.classid AND m.objid = s.objid)
          AND NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                          WHERE s.classid = 'pg_class'::regclass AND c.oid = s.objid AND n.nspname = 'pgconvoy')
          AND NOT EXISTS (SELECT FROM pg_namespace n
                          WHERE s.classid = 'pg_namespace'::regclass AND n.oid = s.objid AND n.nspname = 'pgconvoy')
        UNION SELECT s.setrole FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
        WHERE d.datname = current_database() AND s.setrole <> 0
        UNION SELECT m.umuser FROM pg_user_mappings m WHERE m.umuser <> 0),
    own AS (SELECT r.oid FROM pg_roles r WHERE r.rolname ~ '^pg_'),
    users AS (SELECT oid FROM direct
              UNION SELECT m.member FROM pg_auth_members m JOIN users u ON u.oid = m.roleid JOIN pg_roles r ON r.oid = m.member
              WHERE NOT r.rolsuper AND u.oid NOT IN (SELECT oid FROM own)),
    used AS (SELECT oid FROM users UNION SELECT m.roleid FROM pg_auth_members m JOIN used u ON u.oid = m.member),
    everything AS (SELECT r.oid FROM pg_roles r WHERE r.rolsuper
                   UNION SELECT m.member FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid
                   WHERE r.rolname IN ('pg_read_all_data', 'pg_write_all_data')),
    reaching AS (SELECT oid FROM users UNION SELECT oid FROM everything
                 UNION SELECT m.member FROM pg_auth_members m JOIN reaching u ON u.oid = m.roleid
                 WHERE u.oid NOT IN (SELECT oid FROM own))";

/// All but PostgreSQL's own, with whether this database uses them: a role that the source uses may be there at the target
/// without being used. The superuser that initdb made is what the server's owner made of it.
fn roles() -> Query {
    format!(
        "{USED}
         SELECT 0::oid, 0::oid, 'role', quote_ident(r.rolname), NULL, NULL, '', jsonb_build_object(
             'used', CASE WHEN r.oid IN (SELECT oid FROM used) THEN 'yes' END,
             'reaching', CASE WHEN r.oid IN (SELECT oid FROM reaching) THEN 'yes' END,
             'superuser', CASE WHEN r.rolsuper THEN 'yes' END,
             'built in', CASE WHEN r.oid < 16384 THEN 'yes' END,
             'agent', CASE WHEN r.rolname = current_user THEN 'yes' END,
             'attributes', concat_ws(', ', CASE WHEN r.rolcanlogin THEN 'login' ELSE 'nologin' END,
                 CASE WHEN r.rolinherit THEN 'inherit' ELSE 'noinherit' END, CASE WHEN r.rolsuper THEN 'superuser' END,
                 CASE WHEN r.rolcreaterole THEN 'createrole' END, CASE WHEN r.rolcreatedb THEN 'createdb' END,
                 CASE WHEN r.rolreplication THEN 'replication' END, CASE WHEN r.rolbypassrls THEN 'bypassrls' END),
             'connection limit', nullif(r.rolconnlimit, -1),
             'valid until', r.rolvaliduntil,
             'comment', shobj_description(r.oid, 'pg_authid'))
         FROM pg_roles r WHERE r.rolname !~ '^pg_'"
    )
}

/// Whoever granted it, and however often.
fn memberships(property: &str, options: &str) -> Query {
    format!(
        "SELECT 0::oid, 0::oid, 'role', quote_ident(pg_get_userbyid(g.member)), NULL, NULL, '',
                jsonb_build_object('{property}', string_agg(g.said, E'\\n' ORDER BY g.said))
         FROM (SELECT DISTINCT m.member, quote_ident(pg_get_userbyid(m.roleid)) || {options} AS said FROM pg_auth_members m) g
         WHERE pg_get_userbyid(g.member) !~ '^pg_'
         GROUP BY g.member"
    )
}

fn role_settings(ask: &Ask) -> Query {
    format!(
        "SELECT 0::oid, 0::oid, 'role', quote_ident(r.rolname), NULL, NULL, '', {}
         FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) c
         WHERE s.setdatabase = 0 OR d.datname = current_database()
         GROUP BY r.rolname",
        settings(
            ask,
            "CASE WHEN s.setdatabase <> 0 THEN ' (in this database)' ELSE '' END"
        )
    )
}

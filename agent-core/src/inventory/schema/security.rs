//! Who may do what: owners and effective grants of everything that has them (the built-in default spelled out where the catalog
//! holds none), grants on columns, default privileges, policies, what was changed of the grants on PostgreSQL's own objects. Members of extensions are told by
//! their grants, and by the row security of their tables.
use super::{Query, grant_lines, grants};
use crate::inventory::access;
use crate::inventory::system::{self, Changes};

pub(super) fn queries() -> Vec<Query> {
    vec![
        POLICIES.to_owned(),
        owners_and_grants(),
        column_grants(),
        row_type_grants(),
        default_privileges(),
        system_grants(),
    ]
}

/// pg_dump writes those on an extension's tables, too: the classes are zero, such policies are not left out here.
const POLICIES: &str = "
    SELECT 0::oid, 0::oid, 'policy', format('%I on %s', p.polname, r.identity), r.schema, r.name,
           coalesce(m.extension, r.kind || ' ' || r.identity), jsonb_build_object(
        'command', CASE p.polcmd WHEN 'r' THEN 'select' WHEN 'a' THEN 'insert' WHEN 'w' THEN 'update' WHEN 'd' THEN 'delete'
                                 ELSE 'all' END,
        'permissive', p.polpermissive,
        'roles', (SELECT string_agg(CASE o WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(o)) END, ', '
                                    ORDER BY o = 0, pg_get_userbyid(o)) FROM unnest(p.polroles) o),
        'using', pg_get_expr(p.polqual, p.polrelid),
        'with check', pg_get_expr(p.polwithcheck, p.polrelid))
    FROM pg_policy p
    JOIN relation r ON r.oid = p.polrelid
    LEFT JOIN member m ON m.classid = r.class AND m.objid = r.member_oid";

/// The classes are zero: members of extensions are not left out here. A sequence is of the table whose column owns it: that of an identity
/// column is told here first by its own name.
fn owners_and_grants() -> Query {
    format!(
        "SELECT 0::oid, 0::oid, i.type, i.identity, (parse_ident(i.schema))[1], f.name, m.extension, jsonb_build_object(
             'owner', CASE WHEN m.objid IS NULL AND NOT o.follows THEN quote_ident(pg_get_userbyid(o.owner)) END,
             'holds rows', CASE WHEN m.objid IS NOT NULL AND o.keyword = 'TABLE' AND o.class = 'pg_class'::regclass
                                     AND pg_relation_size(o.oid) > 0 THEN 'yes' END,
             'owner of a member', CASE WHEN m.objid IS NOT NULL THEN quote_ident(pg_get_userbyid(o.owner)) END,
             'row security', CASE WHEN m.objid IS NOT NULL AND c.relrowsecurity THEN 'enabled' END,
             'forced row security', CASE WHEN m.objid IS NOT NULL AND c.relforcerowsecurity THEN 'enabled' END,
             'grants', {})
         FROM ({}) o (class, oid, owner, acl, keyword, grant_keyword, late, follows)
         LEFT JOIN member m ON m.classid = o.class AND m.objid = o.oid
         LEFT JOIN pg_class c ON c.oid = o.oid AND o.class = c.tableoid
         LEFT JOIN LATERAL (SELECT t.relname AS name FROM pg_depend d JOIN pg_class t ON t.oid = d.refobjid
                            WHERE o.follows AND d.classid = o.class AND d.objid = o.oid
                              AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')) f ON true
         CROSS JOIN LATERAL pg_identify_object(o.class, o.oid, 0) i
         WHERE m.objid IS NULL OR o.acl IS NOT NULL",
        grants("o.acl", "o.owner"),
        access::objects()
    )
}

fn column_grants() -> Query {
    format!(
        "SELECT 0::oid, 0::oid, 'column', format('%s.%I', r.identity, a.attname), r.schema, r.name,
                coalesce(m.extension, r.kind || ' ' || r.identity), jsonb_build_object('grants', {})
         FROM relation r
         JOIN pg_class c ON c.oid = r.oid
         JOIN pg_attribute a ON a.attrelid = r.oid
         LEFT JOIN member m ON m.classid = r.class AND m.objid = r.member_oid
         WHERE a.attacl IS NOT NULL AND a.attnum > 0 AND NOT a.attisdropped",
        grants("a.attacl", "c.relowner")
    )
}

/// Of a table's row type, where they are not the built-in default: no dump carries them.
fn row_type_grants() -> Query {
    let (set, default) = (
        grants("t.typacl", "t.typowner"),
        grants("acldefault('T', t.typowner)", "t.typowner"),
    );
    format!(
        "SELECT r.class, r.member_oid, r.kind, r.identity, r.schema, r.name, NULL,
                jsonb_build_object('row type grants', CASE WHEN {set} IS DISTINCT FROM {default} THEN coalesce({set}, 'none') END)
         FROM relation r JOIN pg_type t ON t.typrelid = r.oid
         WHERE r.relkind <> 'c' AND t.typacl IS NOT NULL"
    )
}

fn default_privileges() -> Query {
    format!(
        "SELECT d.tableoid, d.oid, 'default privileges', i.identity, n.nspname, NULL, NULL,
                jsonb_build_object('grants', coalesce({}, 'none'))
         FROM pg_default_acl d
         LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
         CROSS JOIN LATERAL pg_identify_object(d.tableoid, d.oid, 0) i",
        grants("d.defaclacl", "d.defaclrole")
    )
}

/// Only what is not as initdb made it is told, as its difference to that, a line for each privilege: `system` marks it. Majors have other
/// objects and grant otherwise.
fn system_grants() -> Query {
    let Changes {
        objects,
        granted,
        revoked,
    } = system::changes();
    format!(
        "SELECT 0::oid, 0::oid, i.type, i.identity, NULL, NULL, '', jsonb_build_object(
             'system', 'yes', 'grants', {}, 'revoked grants', {})
         FROM {objects} CROSS JOIN LATERAL pg_identify_object(o.class, o.oid, o.sub) i",
        grant_lines(
            &granted,
            "o.owner",
            "a.grantee, a.grantor, a.privilege_type"
        ),
        grant_lines(
            &revoked,
            "o.owner",
            "a.grantee, a.grantor, a.privilege_type"
        )
    )
}

//! Roles of a server, and what a database has beside its objects: read alike at both ends. What is read goes to the coordinator and into the ledger: no
//! password, and settings veiled (invariant 5, credentials stay home).
use std::collections::{BTreeMap, HashSet};

use pgconvoy_proto::model::{
    Entry, Grant, Membership, ParameterGrant, Properties, Role, RoleChoice, Roles, Setting,
};
use tokio_postgres::{Error, Row};

use super::access::Found;
use super::system;
use crate::session::Session;

/// GRANT ... ON PARAMETER.
pub(super) const PARAMETER_GRANTS_SINCE: u32 = 150_000;
/// From here on a membership's grantor must hold ADMIN OPTION, and what the catalog says of it can be relied on.
const GRANTORS_SINCE: u32 = 160_000;

/// Every role of the server but PostgreSQL's own.
pub async fn read(session: &Session) -> Result<Roles, Error> {
    Ok(Roles {
        roles: roles(session).await?,
        memberships: memberships(session).await?,
        parameters: parameters(session).await?,
    })
}

/// The roles that are asked for; `needed` are those that the selected objects name.
pub async fn choose(
    session: &Session,
    choice: RoleChoice,
    needed: &[(String, String)],
) -> Result<Roles, Error> {
    Ok(match choice {
        RoleChoice::None => Roles::default(),
        RoleChoice::All => read(session).await?,
        RoleChoice::Used => {
            let server = read(session).await?;
            let users = server.with_members(needed.iter().map(|(role, _)| role.clone()));
            let names = server.with_groups(users);
            server.only(&names)
        }
    })
}

/// In the order in which they were made. Made again in that order pg_dump lists those of a policy as at the source.
async fn roles(session: &Session) -> Result<Vec<Role>, Error> {
    let rows = session
        .query(
            "SELECT rolname::text, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication,
                    rolbypassrls, rolconnlimit, rolvaliduntil::text, shobj_description(oid, 'pg_authid'), rolconfig,
                    ARRAY(SELECT l.provider FROM pg_shseclabel l WHERE l.classoid = 'pg_authid'::regclass AND l.objoid = r.oid ORDER BY 1),
                    ARRAY(SELECT l.label FROM pg_shseclabel l WHERE l.classoid = 'pg_authid'::regclass AND l.objoid = r.oid
                          ORDER BY l.provider)
             FROM pg_roles r WHERE rolname !~ '^pg_' ORDER BY oid",
            &[],
        )
        .await?;
    let role = |row: &Row| Role {
        name: row.get(0),
        superuser: row.get(1),
        inherit: row.get(2),
        create_role: row.get(3),
        create_db: row.get(4),
        login: row.get(5),
        replication: row.get(6),
        bypass_rls: row.get(7),
        connection_limit: row.get(8),
        valid_until: row.get(9),
        comment: row.get(10),
        settings: settings(row.get(11)),
        labels: labels(row, 12),
    };
    Ok(rows.iter().map(role).collect())
}

/// Two columns from `at` on: providers, labels.
fn labels(row: &Row, at: usize) -> Vec<(String, String)> {
    let (providers, labels): (Vec<String>, Vec<String>) = (row.get(at), row.get(at + 1));
    providers.into_iter().zip(labels).collect()
}

fn settings(config: Option<Vec<String>>) -> Vec<Setting> {
    let items = config.unwrap_or_default();
    items
        .iter()
        .filter_map(|item| Setting::parse(item))
        .map(|setting| setting.veil())
        .collect()
}

/// The grantor is told where it says something: not before 16 when it is gone, and not when it is the first superuser (OID 10), which may
/// have another name elsewhere.
async fn memberships(session: &Session) -> Result<Vec<Membership>, Error> {
    let rows = session
        .query(
            "SELECT r.rolname::text, u.rolname::text, g.rolname::text, m.admin_option,
                    (to_jsonb(m) ->> 'inherit_option')::bool, (to_jsonb(m) ->> 'set_option')::bool
             FROM pg_auth_members m
             JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles u ON u.oid = m.member
             LEFT JOIN pg_roles g ON g.oid = m.grantor AND g.oid <> 10
             ORDER BY 1, 2, 3 NULLS FIRST",
            &[],
        )
        .await?;
    let membership = |row: &Row| Membership {
        role: row.get(0),
        member: row.get(1),
        grantor: row.get(2),
        admin: row.get(3),
        inherit: row.get(4),
        set: row.get(5),
    };
    Ok(rows.iter().map(membership).collect())
}

/// Without what the first superuser has by itself.
async fn parameters(session: &Session) -> Result<Vec<ParameterGrant>, Error> {
    if session.server_version() < PARAMETER_GRANTS_SINCE {
        return Ok(Vec::new());
    }
    let rows = session
        .query(
            "SELECT p.parname, pg_get_userbyid(a.grantor)::text,
                    CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee)::text END, a.privilege_type, a.is_grantable
             FROM pg_parameter_acl p CROSS JOIN LATERAL aclexplode(p.paracl) a
             WHERE a.grantee <> 10 ORDER BY 1, 3, 4",
            &[],
        )
        .await?;
    let grant = |row: &Row| ParameterGrant {
        parameter: row.get(0),
        grant: Grant {
            grantor: row.get(1),
            grantee: row.get(2),
            privilege: row.get(3),
            grantable: row.get(4),
        },
    };
    Ok(rows.iter().map(grant).collect())
}

/// Whether a membership's grantor can be given, and means what it says.
pub fn knows_grantors(server_version: u32) -> bool {
    server_version >= GRANTORS_SINCE
}

/// Roles that the selected objects need, each with one object that needs it: owners, grantees, roles of policies, of
/// default privileges, of user mappings, of large objects, of PostgreSQL's own objects, and of the database itself. `found` is what is selected, `skipped` what is not; `whole`: nothing is
/// left out, and the database's settings go along.
pub async fn needed<'a>(
    session: &Session,
    found: impl Iterator<Item = &'a Found>,
    skipped: &HashSet<Entry>,
    whole: bool,
) -> Result<Vec<(String, String)>, Error> {
    let mut roles: BTreeMap<String, String> = BTreeMap::new();
    let mut note = |role: &str, object: String| {
        if !role.is_empty() {
            roles.entry(role.to_owned()).or_insert(object);
        }
    };
    for Found { access, .. } in found.filter(|found| !skipped.contains(&found.access.entry)) {
        if !access.owner_keyword.is_empty() {
            note(
                &access.owner,
                format!("owner of {} {}", access.kind, access.identity),
            );
        }
        let columns = access.column_grants.iter().flat_map(|(_, grants)| grants);
        for grant in access.grants.iter().chain(columns) {
            note(
                &grant.grantee,
                format!("granted on {} {}", access.kind, access.identity),
            );
        }
    }
    if whole {
        for changed in system::changed(session).await? {
            for grant in &changed.granted {
                note(
                    &grant.grantee,
                    format!("granted on {} {}", changed.kind, changed.identity),
                );
            }
        }
    }
    // Default privileges go with their schema.
    let rows = session
        .query(
            "SELECT pg_get_userbyid(r)::text, 'named by policy ' || quote_ident(polname) || ' on ' || polrelid::regclass,
                    p.tableoid, p.oid
             FROM pg_policy p CROSS JOIN LATERAL unnest(polroles) r WHERE r <> 0
             UNION ALL
             SELECT pg_get_userbyid(defaclrole), 'has default privileges', 'pg_namespace'::regclass::oid, defaclnamespace
             FROM pg_default_acl
             UNION ALL
             SELECT pg_get_userbyid(a.grantee), 'granted by default privileges', 'pg_namespace'::regclass::oid, defaclnamespace
             FROM pg_default_acl CROSS JOIN LATERAL aclexplode(defaclacl) a WHERE a.grantee <> 0
             UNION ALL
             SELECT usename, 'has a user mapping on server ' || srvname, 'pg_user_mapping'::regclass::oid, umid
             FROM pg_user_mappings WHERE umuser <> 0 AND usename IS NOT NULL
             UNION ALL
             SELECT DISTINCT pg_get_userbyid(lomowner), 'owner of large objects', m.tableoid, 0::oid
             FROM pg_largeobject_metadata m WHERE $1
             UNION ALL
             SELECT DISTINCT pg_get_userbyid(a.grantee), 'granted on large objects', m.tableoid, 0::oid
             FROM pg_largeobject_metadata m CROSS JOIN LATERAL aclexplode(lomacl) a WHERE a.grantee <> 0 AND $1",
            &[&whole],
        )
        .await?;
    for row in rows {
        let (class, oid) = (row.get(2), row.get(3));
        if !skipped.contains(&Entry { class, oid }) {
            note(row.get(0), row.get(1));
        }
    }
    let Properties {
        owner,
        role_settings,
        grants,
        ..
    } = properties(session, whole).await?;
    for (role, _) in role_settings {
        note(&role, "has settings for the database".into());
    }
    for grant in grants.iter().filter(|grant| grant.grantee != owner) {
        note(&grant.grantee, "granted on the database".into());
    }
    Ok(roles.into_iter().collect())
}

/// What this database has beside its objects; settings only `with_settings`.
pub async fn properties(session: &Session, with_settings: bool) -> Result<Properties, Error> {
    let row = session
        .query_one(
            "SELECT pg_get_userbyid(datdba)::text, shobj_description(oid, 'pg_database'),
                    ARRAY(SELECT l.provider FROM pg_shseclabel l WHERE l.classoid = 'pg_database'::regclass AND l.objoid = d.oid ORDER BY 1),
                    ARRAY(SELECT l.label FROM pg_shseclabel l WHERE l.classoid = 'pg_database'::regclass AND l.objoid = d.oid
                          ORDER BY l.provider)
             FROM pg_database d WHERE datname = current_database()",
            &[],
        )
        .await?;
    let mut properties = Properties {
        owner: row.get(0),
        comment: row.get(1),
        labels: labels(&row, 2),
        grants: database_grants(session).await?,
        ..Properties::default()
    };
    if !with_settings {
        return Ok(properties);
    }
    let rows = session
        .query(
            "SELECT r.rolname::text, s.setconfig
             FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
             LEFT JOIN pg_roles r ON r.oid = s.setrole
             WHERE d.datname = current_database() AND (s.setrole = 0 OR r.oid IS NOT NULL) ORDER BY 1 NULLS FIRST",
            &[],
        )
        .await?;
    for row in rows {
        let settings = settings(row.get(1)).into_iter();
        match row.get::<_, Option<String>>(0) {
            None => properties.settings.extend(settings),
            Some(role) => {
                let of_role = settings.map(|setting| (role.clone(), setting));
                properties.role_settings.extend(of_role);
            }
        }
    }
    Ok(properties)
}

async fn database_grants(session: &Session) -> Result<Vec<Grant>, Error> {
    let rows = session
        .query(
            "SELECT pg_get_userbyid(a.grantor)::text,
                    CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee)::text END, a.privilege_type, a.is_grantable
             FROM pg_database CROSS JOIN LATERAL aclexplode(coalesce(datacl, acldefault('d', datdba))) a
             WHERE datname = current_database() ORDER BY 2, 3, 1",
            &[],
        )
        .await?;
    let grant = |row: &Row| Grant {
        grantor: row.get(0),
        grantee: row.get(1),
        privilege: row.get(2),
        grantable: row.get(3),
    };
    Ok(rows.iter().map(grant).collect())
}

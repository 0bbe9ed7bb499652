//! Default privileges: what pg_default_acl holds, and the statements that change it.
use std::collections::BTreeSet;

use pgconvoy_proto::model::DefaultPrivileges;
use tokio_postgres::Error;

use super::access;
use crate::session::{Session, quote_grantee, quote_ident};

/// By role, schema and kind of object.
pub async fn read(session: &Session) -> Result<Vec<DefaultPrivileges>, Error> {
    let rows = session
        .query(
            "SELECT pg_get_userbyid(d.defaclrole)::text, n.nspname::text,
                    CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS'
                         WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END,
                    pg_get_userbyid(a.grantor)::text,
                    CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee)::text END, a.privilege_type, a.is_grantable
             FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
             LEFT JOIN LATERAL aclexplode(d.defaclacl) a ON true ORDER BY 1, 2, 3",
            &[],
        )
        .await?;
    let mut found: Vec<DefaultPrivileges> = Vec::new();
    for row in rows {
        let next = DefaultPrivileges {
            role: row.get(0),
            schema: row.get(1),
            objects: row.get(2),
            grants: Vec::new(),
        };
        if found.last().is_none_or(|last| !last.is_of(&next)) {
            found.push(next);
        }
        if let (Some(last), Some(_)) = (found.last_mut(), row.get::<_, Option<&str>>(3)) {
            last.grants.push(access::grant(&row, 3));
        }
    }
    Ok(found)
}

/// Revokes everything of `now`, and grants what is `wanted`; without one it is PostgreSQL's own default.
pub fn statements(now: &DefaultPrivileges, wanted: Option<&DefaultPrivileges>) -> Vec<String> {
    let role = quote_ident(&now.role);
    let place = now.schema.as_ref().map_or_else(String::new, |schema| {
        format!(" IN SCHEMA {}", quote_ident(schema))
    });
    let alter = format!("ALTER DEFAULT PRIVILEGES FOR ROLE {role}{place}");
    let on = &now.objects;
    let mut grantees: BTreeSet<&str> = now.grants.iter().map(|g| g.grantee.as_str()).collect();
    if now.schema.is_none() {
        // Of PostgreSQL's own default, where there is no row.
        grantees.extend(["", &now.role]);
    }
    let mut statements: Vec<String> = grantees
        .into_iter()
        .map(|grantee| format!("{alter} REVOKE ALL ON {on} FROM {}", quote_grantee(grantee)))
        .collect();
    match wanted {
        Some(wanted) => statements.extend(wanted.grants.iter().map(|grant| {
            format!(
                "{alter} GRANT {} ON {on} TO {}{}",
                grant.privilege,
                quote_grantee(&grant.grantee),
                grant.option()
            )
        })),
        // In a schema nothing is granted by default. Elsewhere: acldefault() (src/backend/utils/adt/acl.c).
        None if now.schema.is_none() => {
            statements.push(format!("{alter} GRANT ALL ON {on} TO {role}"));
            match on.as_str() {
                "FUNCTIONS" => statements.push(format!("{alter} GRANT EXECUTE ON {on} TO PUBLIC")),
                "TYPES" => statements.push(format!("{alter} GRANT USAGE ON {on} TO PUBLIC")),
                _ => {}
            }
        }
        None => {}
    }
    statements
}

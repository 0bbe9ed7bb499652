//! What a database holds, read from its catalogs: the tables to copy, what is built on them, and who may do what.
//!
//! Every query names `pg_catalog` objects under an empty search path, so that no user object can stand in for them.
pub mod access;
pub mod built;
pub mod built_in;
pub mod large_objects;
pub mod newer;
pub mod tables;

/// OIDs of objects made after initdb start here (src/include/access/transam.h, FirstNormalObjectId).
const FIRST_NORMAL_OID: u32 = 16384;

/// Schemas that are never a migration's: PostgreSQL's own, and ours. A condition on `nspname`; `{}` is its alias.
pub(crate) fn foreign_schema(alias: &str) -> String {
    format!(
        "({alias}.nspname IN ('pg_catalog', 'information_schema', 'pgconvoy') OR {alias}.nspname LIKE 'pg\\_toast%' \
         OR {alias}.nspname LIKE 'pg\\_temp%')"
    )
}

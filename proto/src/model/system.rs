//! What somebody changed of the grants on PostgreSQL's own objects: a difference to what initdb granted, since majors grant otherwise.
use serde::{Deserialize, Serialize};

use super::Grant;

/// Of one object of `pg_catalog` or `information_schema`, or of one column of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemGrants {
    /// As pg_identify_object() says it, of the relation where it is about a column: "function".
    pub kind: String,
    /// Schema-qualified and quoted, arguments included.
    pub identity: String,
    /// What GRANT ON calls it.
    pub keyword: String,
    /// Name of the column; none: the object itself.
    pub column: Option<String>,
    pub owner: String,
    /// What initdb did not grant, each after what it rests on.
    pub granted: Vec<Grant>,
    /// What initdb granted and is gone.
    pub revoked: Vec<Grant>,
}

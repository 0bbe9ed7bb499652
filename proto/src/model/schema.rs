//! A database without its rows, as each agent describes its own.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How the digest of a secret begins, where a property would hold the secret itself: `(masked:` and hexadecimal digits and `)`.
pub const MASK: &str = "(masked:";

/// What was compared of two schemas: the counts by kind are its source value, as JSON.
pub const SCHEMA_COMPARED: &str = "schema-compared";

/// Kinds of objects whose definition is a query: the deparser's words for it depend on what made it.
pub const QUERIES: &[&str] = &["view", "materialized view"];
/// Kind of objects whose locale reads differently on servers of two majors.
pub const COLLATION: &str = "collation";
/// Property of a table that belongs to an extension: it has something in it. Not compared.
pub const HOLDS_ROWS: &str = "holds rows";
/// Of something on such a table: the statement.
pub const MADE_BY: &str = "made by";

/// Codes of the findings that a comparison of schemas makes anew each time.
pub const OF_SCHEMA: &[&str] = &[
    SCHEMA_COMPARED,
    "object-missing",
    "object-extra",
    "object-differs",
    "database-made-otherwise",
    "definition-not-compared",
    "managed-clash",
    "managed-differs",
    "managed-grants",
    "managed-skew",
    RLS_SKIPPED,
];

/// Row level security was left out: a comparison that has looked at it knows better.
pub const RLS_SKIPPED: &str = "rls-skipped";

/// Of a difference that is told by the migration and accepted, and is no news as long as the target has it so. The message is the property.
pub const TOLD: &str = "told-before";

/// Codes of findings of a step that could not do what it was to do: a comparison that finds it done settles them.
pub const OF_STEPS: &[&str] = &[
    "not-restored",
    "foreign-key-not-built",
    "view-not-refreshed",
    "sequence-not-set",
    "not-null-stays",
];

/// An object of a database and what makes it that one. Two ends have the same object when `kind` and `identity` agree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaObject {
    /// "table", "column", "function": mostly as pg_identify_object() says it.
    pub kind: String,
    /// Schema-qualified and quoted: "public.t", "p on public.t", "public.f(integer)".
    pub identity: String,
    /// Kind and identity of what it goes with, its table or its schema; empty: nothing.
    pub parent: String,
    /// What it does not have is absent.
    pub properties: BTreeMap<String, String>,
}

impl SchemaObject {
    /// "policy p on public.t"
    pub fn name(&self) -> String {
        match self.identity.as_str() {
            "" => self.kind.clone(),
            identity => format!("{} {identity}", self.kind),
        }
    }

    pub fn get(&self, property: &str) -> Option<&str> {
        self.properties.get(property).map(String::as_str)
    }
}

/// What one end holds.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// server_version_num
    pub version: u32,
    pub objects: Vec<SchemaObject>,
}

impl Catalog {
    pub fn major(&self) -> u32 {
        self.version / 10_000
    }
}

/// A view's query as one server's deparser prints it, or the locale of an ICU collation, for another server to print again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// What it is of, kind and identity; comes back with the answer.
    pub object: String,
    pub query: String,
}

//! What each end holds in the schemas that a platform manages, and of the whole database: what the two are told apart by.
use serde::{Deserialize, Serialize};

use super::{DefaultPrivileges, Entry, Named};

/// How the definition of a trigger ends that has arguments: they may be keys.
pub const UNTOLD: &str = "(its arguments are not told)";

/// An object of the catalog that an archive may have an entry for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Holding {
    /// At this end.
    pub entry: Entry,
    /// As pg_identify_object() says it: "table constraint", "function".
    pub kind: String,
    /// Schema-qualified and quoted.
    pub identity: String,
    /// None: of the whole database.
    pub schema: Option<String>,
    /// The relation, type or publication that it is part of.
    pub of: Option<Entry>,
    /// Of a sequence that no column owns: the tables whose defaults take their values from it.
    pub feeds: Vec<Entry>,
    /// Of what it is part of, where it has none of its own.
    pub owner: String,
    /// Of a trigger: schema, name and owner of its function.
    pub function: Option<(String, String, String)>,
    /// Made by an extension of this name.
    pub extension: Option<String>,
    /// Of a policy: whom it is for; empty: everybody.
    pub roles: Vec<String>,
    /// What would make it by hand.
    pub definition: Option<String>,
}

impl Holding {
    pub fn named(&self) -> Named {
        Named {
            kind: self.kind.clone(),
            identity: self.identity.clone(),
        }
    }
}

/// A table in a managed schema.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeldTable {
    pub entry: Entry,
    pub schema: String,
    pub name: String,
    pub row_security: bool,
    /// In their order.
    pub columns: Vec<HeldColumn>,
    /// Foreign keys are not among them: what refers to nothing is looked for when the rows are in.
    pub constraints: Vec<HeldConstraint>,
}

impl HeldTable {
    /// `schema.table`
    pub fn plain(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    pub fn column(&self, name: &str) -> Option<&HeldColumn> {
        self.columns.iter().find(|column| column.name == name)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeldColumn {
    pub name: String,
    /// format_type()
    pub data_type: String,
    /// The type that a domain is of; empty: it is none.
    pub domain_of: String,
    /// Of an enum.
    pub labels: Vec<String>,
    pub not_null: bool,
    /// Of a generated column, what it is computed by.
    pub default: Option<String>,
    pub generated: bool,
    pub identity: bool,
}

impl HeldColumn {
    /// The type of its values.
    pub fn base(&self) -> &str {
        match self.domain_of.as_str() {
            "" => &self.data_type,
            base => base,
        }
    }
}

/// What a table, or a domain that a column is of, demands of rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeldConstraint {
    pub name: String,
    /// For people.
    pub definition: String,
    pub demand: Demand,
    /// The rows that are there fulfil it: none of NOT VALID, and no index whose building has failed.
    pub fulfilled: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Demand {
    /// `sql`, of these columns, is not false.
    Check { sql: String, columns: Vec<String> },
    Unique {
        keys: Vec<Key>,
        /// Of which rows.
        predicate: Option<String>,
        /// NULLS NOT DISTINCT
        nulls_equal: bool,
    },
    /// An exclusion constraint.
    #[default]
    Other,
}

/// A column of an index, or an expression.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub sql: String,
    pub column: Option<String>,
}

/// What is asked for: names of schemas, `schema.table.column` of versions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HoldingsAsked {
    /// Globs.
    pub schemas: Vec<String>,
    pub versions: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Holdings {
    /// Managed schemas that are there.
    pub schemas: Vec<String>,
    pub objects: Vec<Holding>,
    pub tables: Vec<HeldTable>,
    pub roles: Vec<String>,
    pub default_privileges: Vec<DefaultPrivileges>,
    /// Name and version.
    pub extensions: Vec<(String, String)>,
    /// Of those that were asked for and can be read: column, and its highest value.
    pub versions: Vec<(String, String)>,
}

impl Holdings {
    pub fn table(&self, plain: &str) -> Option<&HeldTable> {
        self.tables.iter().find(|table| table.plain() == plain)
    }

    pub fn extension_version(&self, extension: &str) -> Option<&str> {
        let found = self.extensions.iter().find(|(name, _)| name == extension);
        found.map(|(_, version)| version.as_str())
    }

    pub fn version(&self, column: &str) -> Option<&str> {
        let found = self.versions.iter().find(|(name, _)| name == column);
        found.map(|(_, version)| version.as_str())
    }
}

/// What is counted of a table's rows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Count {
    /// All of them.
    Rows,
    /// Those that hold something in a column: neither null nor its default, which is SQL of the source's catalog.
    Data {
        column: String,
        default: Option<String>,
    },
    /// Those that have one of these labels.
    Labels {
        column: String,
        labels: Vec<String>,
    },
    Nulls {
        column: String,
    },
    /// Those whose value is a JSON object.
    Encrypted {
        column: String,
    },
    /// Those of which this condition, SQL of the target's catalog, is false.
    Refused {
        by: String,
    },
    /// Of those with one key all but one. SQL of the target's catalog.
    Surplus {
        keys: Vec<String>,
        predicate: Option<String>,
        nulls_equal: bool,
    },
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Question {
    pub schema: String,
    pub name: String,
    pub counts: Vec<Count>,
}

/// In the order of the questions and their counts. None: the role may not read the table; of a count: this database cannot evaluate the other
/// one's SQL.
pub type Counted = Vec<Option<Vec<Option<u64>>>>;

//! What the steps of a plan do, and what they are about: objects as the source's catalog and the archive name them.
use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{Derived, Oid, Properties, Roles, SystemGrants};

/// How an archive entry names its object: the catalog that holds it (OID of its pg_class row) and its OID there.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Entry {
    pub class: Oid,
    pub oid: Oid,
}

/// A privilege as aclexplode() tells it. An empty grantee is PUBLIC.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grant {
    pub grantor: String,
    pub grantee: String,
    pub privilege: String,
    pub grantable: bool,
}

impl Grant {
    /// How its statement ends. PUBLIC is given no option.
    pub fn option(&self) -> &'static str {
        match self.grantable && !self.grantee.is_empty() {
            true => " WITH GRANT OPTION",
            false => "",
        }
    }
}

/// Who owns an object and who may do what with it: the effective grants, built-in defaults spelled out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// At the source.
    pub entry: Entry,
    /// As pg_identify_object() says it: "table", "function".
    pub kind: String,
    /// Schema-qualified and quoted, arguments included.
    pub identity: String,
    /// What ALTER ... OWNER and GRANT ON call it.
    pub owner_keyword: String,
    pub grant_keyword: Option<String>,
    pub owner: String,
    pub grants: Vec<Grant>,
    /// By column name.
    pub column_grants: Vec<(String, Vec<Grant>)>,
}

/// A row of pg_default_acl: what is granted on objects that a role makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultPrivileges {
    pub role: String,
    /// None: in all.
    pub schema: Option<String>,
    /// What ALTER DEFAULT PRIVILEGES calls the objects: TABLES.
    pub objects: String,
    pub grants: Vec<Grant>,
}

impl DefaultPrivileges {
    /// Both are about the same objects.
    pub fn is_of(&self, other: &Self) -> bool {
        (&self.role, &self.schema, &self.objects) == (&other.role, &other.schema, &other.objects)
    }

    /// As pg_identify_object() says it.
    pub fn identity(&self) -> String {
        let place = match &self.schema {
            Some(schema) => format!(" in schema {schema}"),
            None => String::new(),
        };
        format!(
            "for role {}{place} on {}",
            self.role,
            self.objects.to_lowercase()
        )
    }

    /// The same grants, in any order.
    pub fn is_same(&self, other: &Self) -> bool {
        let set = |of: &Self| of.grants.iter().cloned().collect::<HashSet<Grant>>();
        self.is_of(other) && set(self) == set(other)
    }
}

/// Large objects of one owner and with the same grants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LargeObjects {
    pub owner: String,
    /// Effective, as in [`Access`].
    pub grants: Vec<Grant>,
    /// First and last OID of ranges in which the source has no other large objects: a million objects of one application
    /// are one range.
    pub ranges: Vec<(Oid, Oid)>,
}

/// A comment on an object, or a security label, that no archive entry brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// What COMMENT ON and SECURITY LABEL ON call the object: "LARGE OBJECT 16500".
    pub on: String,
    /// Of a security label; none: a comment.
    pub provider: Option<String>,
    pub text: String,
}

/// A foreign key of the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignKey {
    pub name: String,
    pub schema: String,
    pub table: String,
    pub table_oid: Oid,
    /// The referencing table is partitioned: PostgreSQL before 18 refuses NOT VALID there.
    pub partitioned: bool,
    /// pg_get_constraintdef()
    pub definition: String,
    pub validated: bool,
    pub columns: Vec<String>,
    pub referenced_schema: String,
    pub referenced_table: String,
    pub referenced_columns: Vec<String>,
    pub match_full: bool,
    /// The last column is a period (PostgreSQL 18): rows that refer to it lie within those that it refers to.
    #[serde(default)]
    pub period: bool,
    /// What makes row `p` the one that row `c` refers to, by column: the key's own operators and collations. Of a period it is not asked.
    /// None: an older ledger's key.
    #[serde(default)]
    pub equalities: Vec<String>,
    /// The referenced table is not partitioned: a row of a table that inherits from it is none of its.
    #[serde(default)]
    pub referenced_only: bool,
}

/// Where a sequence stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceValue {
    pub schema: String,
    pub name: String,
    pub last_value: i64,
    pub is_called: bool,
    /// Schema and name of the table whose column owns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<(String, String)>,
    /// The next run of the step leaves it where it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stays: bool,
}

/// How the position of a sequence ends that has given out no number since it was made or set.
pub const NOT_CALLED: &str = ", not called yet";

impl SequenceValue {
    /// For people and for the comparison.
    pub fn position(&self) -> String {
        let state = if self.is_called { "" } else { NOT_CALLED };
        format!("{}{state}", self.last_value)
    }
}

/// An object by its archive entry and by the name that finds it at the other end: pg_identify_object()'s.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    pub entry: Entry,
    pub kind: String,
    pub identity: String,
}

/// A materialized view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    pub entry: Entry,
    pub schema: String,
    pub name: String,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub schema: String,
    pub table: String,
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IndexOn {
    Table,
    /// A table, by functions that may read other tables: built when all rows are in.
    TableAndOthers,
    /// A partitioned table: built when the last leaf is loaded, valid once its partitions' indexes are attached.
    Partitioned,
    /// Built after the refresh.
    MaterializedView,
}

/// A primary key or unique constraint in two statements. The first lets the table be read meanwhile, and takes the time; ADD CONSTRAINT
/// alone keeps readers out while it builds the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyStatements {
    /// `CREATE UNIQUE INDEX`, as pg_get_indexdef() has it at the source.
    pub create: String,
    /// `ALTER TABLE ... ADD CONSTRAINT ... USING INDEX`.
    pub adopt: String,
}

/// What a step does at the target. Kept in the ledger as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Work {
    /// Roles that the target's server lacks. Their passwords come with the archive.
    Roles(Roles),
    /// The archive's pre-data section and row level security, in one transaction.
    PreData,
    /// Owners and grants; `late`: of what post-data makes.
    Access {
        late: bool,
        objects: Vec<Access>,
    },
    /// Grants on PostgreSQL's own objects, where they are not as initdb made them.
    SystemGrants {
        changes: Vec<SystemGrants>,
    },
    /// The user's default privileges on a platform, which has some of its own at both ends; `gone`: the source has none of these.
    DefaultPrivileges {
        wanted: Vec<DefaultPrivileges>,
        gone: Vec<DefaultPrivileges>,
    },
    /// Columns of inheritance children that may be null although the parent's may not: pg_dump's archive does not say so.
    DropNotNull {
        columns: Vec<Column>,
    },
    /// The unique index of a key, before its constraint: see [`KeyStatements`].
    KeyIndex {
        schema: String,
        name: String,
        table: Oid,
        create: String,
        size_bytes: u64,
    },
    /// One index, or the constraint that it carries. `key`: of a constraint whose index a step of its own builds first.
    Index {
        entry: Entry,
        schema: String,
        name: String,
        table: Oid,
        on: IndexOn,
        constraint: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<KeyStatements>,
        size_bytes: u64,
    },
    /// ALTER INDEX ... ATTACH PARTITION, all of them.
    AttachIndexes,
    ForeignKey(ForeignKey),
    /// The rest of the archive's post-data section. `made`: objects of it, as pg_identify_object() names
    /// them: where one of them exists at the target, the transaction has committed.
    PostData {
        made: Vec<Made>,
    },
    /// Owners, grants, comments and security labels of the large objects, which no archive entry brings.
    LargeObjects {
        access: Vec<LargeObjects>,
        notes: Vec<Note>,
    },
    /// REFRESH of the views that are populated at the source, each after those that it reads.
    Refresh {
        views: Vec<View>,
    },
    Sequences {
        values: Vec<SequenceValue>,
    },
    /// VACUUM (ANALYZE); only ANALYZE for a partitioned table.
    Statistics {
        schema: String,
        name: String,
        partitioned: bool,
    },
    /// Rows that were in tables of the platform when the plan was written go: nothing of the migration is in these tables yet, or the ledger
    /// says so, and nothing is done.
    Vacate {
        /// Schema and name.
        tables: Vec<(String, String)>,
    },
    /// What this level of the platform computes from rows, and the source does not have.
    Derive(Derived),
    /// Rows of the platform's tables that refer to nothing are looked for: its foreign keys were there before, and do not fire on a load.
    ManagedKeys,
    /// Settings, grants and comment of the database itself. Late: the settings are for the sessions that come after.
    Database(Properties),
}

impl Work {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Roles(_) => "roles",
            Self::PreData => "pre-data",
            Self::Access { .. } => "access",
            Self::SystemGrants { .. } => "system-grants",
            Self::DefaultPrivileges { .. } => "default-privileges",
            Self::DropNotNull { .. } => "drop-not-null",
            Self::Index {
                constraint: true, ..
            } => "constraint",
            Self::KeyIndex { .. } => "key-index",
            Self::Index { .. } => "index",
            Self::AttachIndexes => "attach-indexes",
            Self::ForeignKey(_) => "foreign-key",
            Self::PostData { .. } => "post-data",
            Self::LargeObjects { .. } => "large-objects",
            Self::Refresh { .. } => "refresh",
            Self::Sequences { .. } => "sequences",
            Self::Statistics { .. } => "statistics",
            Self::Vacate { .. } => "vacate",
            Self::Derive(_) => "derive",
            Self::ManagedKeys => "managed-keys",
            Self::Database(_) => "database",
        }
    }

    /// What the step is about, for people.
    pub fn object(&self) -> String {
        match self {
            Self::Roles(roles) => format!("{} roles", roles.roles.len()),
            Self::PreData => "pre-data of the archive".into(),
            Self::Access { objects, .. } => {
                format!("owners and grants of {} objects", objects.len())
            }
            Self::SystemGrants { changes } => {
                format!("grants on {} of PostgreSQL's own objects", changes.len())
            }
            Self::DefaultPrivileges { wanted, gone } => {
                format!("{} default privileges", wanted.len() + gone.len())
            }
            Self::DropNotNull { columns } => format!("{} inherited columns", columns.len()),
            Self::KeyIndex { schema, name, .. } | Self::Index { schema, name, .. } => {
                format!("{schema}.{name}")
            }
            Self::AttachIndexes => "indexes of partitions".into(),
            Self::ForeignKey(key) => format!("{}.{}: {}", key.schema, key.table, key.name),
            Self::PostData { .. } => "post-data of the archive".into(),
            Self::LargeObjects { .. } => "owners, grants and comments of large objects".into(),
            Self::Refresh { views } => format!("{} materialized views", views.len()),
            Self::Sequences { values } => format!("{} sequences", values.len()),
            Self::Statistics { schema, name, .. } => format!("{schema}.{name}"),
            Self::Vacate { tables } => format!("rows of {} tables of the platform", tables.len()),
            Self::Derive(derived) => derived.of.clone(),
            Self::ManagedKeys => "foreign keys of the platform's tables".into(),
            Self::Database(_) => "settings, grants and comment of the database".into(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub number: u32,
    pub work: Work,
}

//! Domain types that the three programs share. Messages become these once, on receipt, or are refused; nothing behind the
//! door sees a protobuf type.
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

mod access;
mod check;
mod convert;
mod holdings;
pub mod object;
mod pair;
mod platform;
mod roles;
mod schema;
mod slim;
mod sync;
mod system;
mod table;

pub use access::{
    ACCESS_COMPARED, AccessAnswer, AccessRefusal, AccessRules, AskedTable, Besides, Identity,
    OF_ACCESS, ProbeAsked, Probed, RightsAsked, RoleRights, Sample, SampleAsked, TableRights,
};
pub use check::{
    Answer, Ask, At, CHECKS_RUN, Check, Expect, LONGEST_TIMEOUT_MS, OF_CHECKS, Refusal, Rows, Why,
};
pub use holdings::{
    Count, Counted, Demand, HeldColumn, HeldConstraint, HeldTable, Holding, Holdings,
    HoldingsAsked, Key, Question, UNTOLD,
};
pub use pair::{Buckets, MAX_BUCKETS, Pair, Place, RowValues, TableDigest, Value, bucket_count};
pub use platform::{
    Derived, Fixed, Named, Platform, Problem, RowRule, Rules, Shape, Signs, Tenancy, Told, Version,
};
pub use roles::{
    Membership, ParameterGrant, Properties, Role, RoleChoice, Roles, Setting, is_built_in,
};
pub use schema::{
    Catalog, Definition, MASK, OF_SCHEMA, OF_STEPS, RLS_SKIPPED, SCHEMA_COMPARED, SchemaObject,
    TOLD,
};
pub use slim::SlimPair;
pub use sync::{How, SyncCounts, SyncUnderWay};
pub use system::SystemGrants;
pub use table::{Format, OTHER_ROWS, Part, Relation, Table};

/// An object identifier of the *source* database.
pub type Oid = u32;

/// A message that does not say what its specification asks for.
#[derive(Debug, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct Malformed(pub String);

impl Malformed {
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl From<Malformed> for tonic::Status {
    fn from(error: Malformed) -> Self {
        tonic::Status::invalid_argument(error.to_string())
    }
}

/// Digest of a multiset of rows: counts, and the sum modulo 2^128 of the rows' XXH3-128. Digests of disjoint sets add up
/// to the digest of their union, in any order; a row that is there twice counts twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    pub rows: u64,
    /// COPY data without header, trailer and row terminators.
    pub bytes: u64,
    #[serde(with = "hex_sum")]
    pub sum: u128,
}

impl Digest {
    pub fn add_row(&mut self, bytes: u64, hash: u128) {
        self.rows += 1;
        self.bytes += bytes;
        self.sum = self.sum.wrapping_add(hash);
    }

    /// The sum as 32 hexadecimal digits: how the ledger and the report show it.
    pub fn hex(&self) -> String {
        format!("{:032x}", self.sum)
    }

    pub fn parse_hex(text: &str) -> Result<u128, Malformed> {
        u128::from_str_radix(text, 16)
            .map_err(|_| Malformed::new("a digest that is not hexadecimal"))
    }
}

impl AddAssign for Digest {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

mod hex_sum {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(sum: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{sum:032x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

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

impl SequenceValue {
    /// For people and for the comparison.
    pub fn position(&self) -> String {
        let state = if self.is_called {
            ""
        } else {
            ", not called yet"
        };
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Info,
    Warning,
    /// Source and target differ: the verdict is "differs".
    Difference,
    /// The migration cannot be started.
    Blocker,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Difference => "difference",
            Self::Blocker => "blocker",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Info, Self::Warning, Self::Difference, Self::Blocker]
            .into_iter()
            .find(|s| s.as_str() == text)
    }
}

/// Something found: data, not an error. An error means that we could not look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub severity: Severity,
    /// Stable, for machines.
    pub code: String,
    pub object: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source_value: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target_value: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

/// Findings that a comparison makes anew each time: the earlier ones about what is compared again are forgotten.
pub const OF_COMPARISON: &[&str] = &[
    "rows-differ",
    "row-missing",
    "row-extra",
    "row-changed",
    "generated-differ",
    "columns-differ",
    "table-missing",
    "table-extra",
];

/// Findings about files of storage buckets, made anew each time files are copied or compared.
pub const OF_OBJECTS: &[&str] = &[
    "file-differs",
    "file-lost",
    "file-extra",
    "file-missing",
    "file-refused",
    "file-changed",
    "file-rows-not-written",
    "files-more",
];

/// What of a platform's rows has no place at the target: found anew by each sync.
pub const OF_PLATFORM: &[&str] = &[
    "skew-table",
    "skew-column",
    "skew-type",
    "skew-labels",
    "skew-null",
    "skew-required",
    "skew-check",
    "skew-unique",
];

/// Findings that a sync makes anew each time: the earlier ones about what is looked at again are forgotten.
pub const OF_SYNC: &[&str] = &[SYNC_ORPHANS];
pub const SYNC_ORPHANS: &str = "sync-orphans";

impl Finding {
    pub fn new(
        severity: Severity,
        code: &str,
        object: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            code: code.into(),
            object: object.into(),
            message: message.into(),
            source_value: String::new(),
            target_value: String::new(),
            hint: String::new(),
        }
    }

    pub fn values(mut self, source: impl Into<String>, target: impl Into<String>) -> Self {
        self.source_value = source.into();
        self.target_value = target.into();
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

/// Bytes that have crossed so far, of one part or one scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub rows: u64,
    pub bytes: u64,
    pub wire_bytes: u64,
}

/// Which tables a command is about: globs over `schema` and over `schema.table`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Selection {
    pub include_schema: Vec<String>,
    pub exclude_schema: Vec<String>,
    pub include_table: Vec<String>,
    pub exclude_table: Vec<String>,
    /// Schema `storage` is left out, whatever the globs say.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub skip_storage: bool,
}

impl Selection {
    pub fn leaves_nothing_out(&self) -> bool {
        *self == Self::default()
    }

    /// All that a migration with the selection `planned` has moved is chosen.
    pub fn covers(&self, planned: &Self) -> bool {
        self.is_everything() && (!self.skip_storage || planned.skip_storage)
    }

    /// No glob was given. --skip-storage leaves the rest of the database whole: its large objects, its settings.
    pub fn is_everything(&self) -> bool {
        let skip_storage = self.skip_storage;
        *self
            == Self {
                skip_storage,
                ..Self::default()
            }
    }
}

/// The ledger's phase of a migration that is being taken back, and cannot go forward any more.
pub const ROLLING_BACK: &str = "rollback";

/// How ids of rehearsals begin, and of nothing else: what has one is about the scratch database of that rehearsal.
pub const REHEARSAL: &str = "rehearsal-";

/// What a migration was asked for; kept in the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    pub selection: Selection,
    pub skip_schema: bool,
    pub skip_data: bool,
    pub skip_rls: bool,
    pub no_verify: bool,
    pub roles: RoleChoice,
    /// Tables are cut into parts of about this size.
    pub part_bytes: u64,
    /// Business checks, run with each verification.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    /// All that the target has is dropped first.
    pub replace: bool,
    /// The files that the rows of storage.objects speak of are carried too.
    pub storage_objects: bool,
    /// The databases live on a platform: what of them is whose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenancy: Option<Box<Tenancy>>,
}

/// A field that the specification requires.
pub fn required<T>(field: Option<T>, name: &str) -> Result<T, Malformed> {
    field.ok_or_else(|| Malformed::new(format!("{name} is missing")))
}

pub fn parse_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Malformed> {
    serde_json::from_str(text).map_err(|error| Malformed::new(error.to_string()))
}

/// Domain types have string keys and finite numbers only: they always serialise.
pub fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| unreachable!("{error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[test]
    fn digests_survive_the_wire_and_json() {
        let digest = Digest {
            rows: 3,
            bytes: 99,
            sum: u128::MAX - 5,
        };
        assert_eq!(Digest::from(wire::Digest::from(digest)), digest);
        assert_eq!(parse_json::<Digest>(&to_json(&digest)).ok(), Some(digest));
    }
}

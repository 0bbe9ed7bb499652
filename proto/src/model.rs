//! Domain types that the three programs share. Messages become these once, on receipt, or are refused; nothing behind the
//! door sees a protobuf type.
use std::fmt;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

mod convert;
mod pair;

pub use pair::{Buckets, MAX_BUCKETS, Pair, Place, RowValues, TableDigest, Value, bucket_count};

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

/// COPY format of a table, chosen at planning time: for the copy and for the digests at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Text,
    Binary,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Binary => "binary",
        })
    }
}

/// A relation whose rows are copied as one unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub oid: Oid,
    pub schema: String,
    pub name: String,
    #[serde(default)]
    pub relation: Relation,
    /// Copied columns, key columns first, generated ones left out.
    pub columns: Vec<String>,
    /// How many of the first columns form the key; 0: no usable key.
    pub key_columns: usize,
    pub format: Format,
    /// Condition on the rows, of an extension's configuration table.
    pub filter: Option<String>,
    /// Heap and TOAST, an estimate.
    pub size_bytes: u64,
    /// Heap blocks when the snapshot was opened.
    pub blocks: u32,
    /// Read and loaded through the root of its partition tree (hash partitions on an enum: the hash depends on OIDs).
    pub through_root: bool,
    pub unlogged: bool,
    /// Stored generated columns: not copied, but digested by `verify`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub generated: Vec<String>,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// What the rows of a [`Table`] are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relation {
    /// Those of a table, cut into parts by ranges of heap blocks.
    #[default]
    Table,
    /// Pages of the database's large objects, all of them, cut into parts by ranges of their OIDs.
    LargeObjects {
        /// When the snapshot was opened.
        objects: u64,
        /// The first OID of each slice, in order. Slices hold about the same number of objects; a part is one or several.
        slices: Vec<Oid>,
    },
}

/// More large objects than this are worth a part of their own, however small they are: making one costs more than its bytes.
const LARGE_OBJECTS_PER_PART: u64 = 20_000;
const MOST_PARTS: u64 = 10_000;

impl Table {
    /// Cuts the table into parts of about `part_bytes`. Wide rows live in TOAST: the size that decides counts it. Pure:
    /// the same plan gives the same parts on every run.
    pub fn parts(&self, part_bytes: u64) -> Vec<Part> {
        let wanted = self.size_bytes / part_bytes.max(1);
        match &self.relation {
            Relation::Table => self.cut(&self.block_cuts(wanted.clamp(1, MOST_PARTS))),
            Relation::LargeObjects { objects, slices } => {
                let wanted = wanted.max(objects / LARGE_OBJECTS_PER_PART);
                let each = slices.len().div_ceil(wanted.clamp(1, MOST_PARTS) as usize);
                let cuts: Vec<Oid> = slices
                    .iter()
                    .copied()
                    .step_by(each.max(1))
                    .skip(1)
                    .collect();
                self.cut(&cuts)
            }
        }
    }

    fn block_cuts(&self, wanted: u64) -> Vec<u32> {
        let blocks_each = u64::from(self.blocks).div_ceil(wanted).max(1);
        (blocks_each..u64::from(self.blocks))
            .step_by(blocks_each as usize)
            .map(|block| block as u32)
            .collect()
    }

    /// One part more than there are cuts.
    fn cut(&self, cuts: &[u32]) -> Vec<Part> {
        let firsts = std::iter::once(0).chain(cuts.iter().copied());
        let ends = cuts.iter().copied().map(Some).chain([None]);
        firsts
            .zip(ends)
            .enumerate()
            .map(|(number, (first, end))| Part {
                table: self.oid,
                number: number as u32,
                first,
                end,
            })
            .collect()
    }
}

/// A range of heap blocks of a table, or of OIDs of large objects. The last part is open at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    pub table: Oid,
    pub number: u32,
    pub first: u32,
    pub end: Option<u32>,
}

impl Part {
    /// The condition that selects the part; none for a whole table. `column` is what the range is of, `value` how a bound of
    /// it is written.
    pub fn condition(&self, column: &str, value: impl Fn(u32) -> String) -> Option<String> {
        let from = (self.first > 0).then(|| format!("{column} >= {}", value(self.first)));
        let to = self.end.map(|end| format!("{column} < {}", value(end)));
        match (from, to) {
            (Some(from), Some(to)) => Some(format!("{from} AND {to}")),
            (from, to) => from.or(to),
        }
    }
}

/// How an archive entry names its object: the catalog that holds it (OID of its pg_class row) and its OID there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IndexOn {
    Table,
    /// A partitioned table: built when the last leaf is loaded, valid once its partitions' indexes are attached.
    Partitioned,
    /// Built after the refresh.
    MaterializedView,
}

/// What a step does at the target. Kept in the ledger as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Work {
    /// The archive's pre-data section and row level security, in one transaction.
    PreData,
    /// Owners and grants; `late`: of what post-data makes.
    Access {
        late: bool,
        objects: Vec<Access>,
    },
    /// One index, or the constraint that it carries.
    Index {
        entry: Entry,
        schema: String,
        name: String,
        table: Oid,
        on: IndexOn,
        constraint: bool,
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
}

impl Work {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::PreData => "pre-data",
            Self::Access { .. } => "access",
            Self::Index {
                constraint: true, ..
            } => "constraint",
            Self::Index { .. } => "index",
            Self::AttachIndexes => "attach-indexes",
            Self::ForeignKey(_) => "foreign-key",
            Self::PostData { .. } => "post-data",
            Self::LargeObjects { .. } => "large-objects",
            Self::Refresh { .. } => "refresh",
            Self::Sequences { .. } => "sequences",
            Self::Statistics { .. } => "statistics",
        }
    }

    /// What the step is about, for people.
    pub fn object(&self) -> String {
        match self {
            Self::PreData => "pre-data of the archive".into(),
            Self::Access { objects, .. } => {
                format!("owners and grants of {} objects", objects.len())
            }
            Self::Index { schema, name, .. } => format!("{schema}.{name}"),
            Self::AttachIndexes => "indexes of partitions".into(),
            Self::ForeignKey(key) => format!("{}.{}: {}", key.schema, key.table, key.name),
            Self::PostData { .. } => "post-data of the archive".into(),
            Self::LargeObjects { .. } => "owners, grants and comments of large objects".into(),
            Self::Refresh { views } => format!("{} materialized views", views.len()),
            Self::Sequences { values } => format!("{} sequences", values.len()),
            Self::Statistics { schema, name, .. } => format!("{schema}.{name}"),
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
}

impl Selection {
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }
}

/// What a migration was asked for; kept in the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    pub selection: Selection,
    pub skip_schema: bool,
    pub skip_data: bool,
    pub skip_rls: bool,
    pub no_verify: bool,
    /// Tables are cut into parts of about this size.
    pub part_bytes: u64,
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

    fn table(blocks: u32, size_bytes: u64) -> Table {
        Table {
            oid: 1,
            schema: "s".into(),
            name: "t".into(),
            relation: Relation::Table,
            columns: vec!["a".into()],
            key_columns: 1,
            format: Format::Binary,
            filter: None,
            size_bytes,
            blocks,
            through_root: false,
            unlogged: false,
            generated: Vec::new(),
        }
    }

    #[test]
    fn parts_cover_every_block_once_and_the_last_is_open() {
        for (blocks, size) in [
            (0, 0),
            (1, 8192),
            (1000, 8_192_000),
            (7, 1 << 40),
            (999, 70_000_000),
        ] {
            let parts = table(blocks, size).parts(16 << 20);
            assert_eq!(parts[0].first, 0);
            assert_eq!(parts.last().map(|part| part.end), Some(None));
            for pair in parts.windows(2) {
                assert_eq!(pair[0].end, Some(pair[1].first));
            }
        }
    }

    fn large_objects(objects: u64, slices: Vec<Oid>, size_bytes: u64) -> Table {
        Table {
            relation: Relation::LargeObjects { objects, slices },
            ..table(0, size_bytes)
        }
    }

    #[test]
    fn large_objects_are_cut_where_slices_begin_and_every_oid_is_in_one_part() {
        let slices: Vec<Oid> = (0..10).map(|n| 1000 + n * 100).collect();
        let bounds = |objects, size: u64| -> Vec<(u32, Option<u32>)> {
            let parts = large_objects(objects, slices.clone(), size).parts(16 << 20);
            parts.iter().map(|part| (part.first, part.end)).collect()
        };
        assert_eq!(bounds(10, 1), [(0, None)]);
        let halves = [(0, Some(1500)), (1500, None)];
        assert_eq!(bounds(10, 32 << 20), halves, "by size");
        assert_eq!(bounds(2 * LARGE_OBJECTS_PER_PART, 1), halves, "by number");
        assert_eq!(bounds(10, 1 << 40).len(), slices.len());
        assert_eq!(large_objects(0, vec![], 0).parts(16 << 20).len(), 1);
    }

    #[test]
    fn a_part_is_a_condition_on_what_its_range_is_of() {
        let condition = |first, end| {
            let part = Part {
                table: 1,
                number: 0,
                first,
                end,
            };
            part.condition("oid", |bound| bound.to_string())
        };
        assert_eq!(condition(0, None), None);
        assert_eq!(condition(0, Some(9)).as_deref(), Some("oid < 9"));
        assert_eq!(
            condition(5, Some(9)).as_deref(),
            Some("oid >= 5 AND oid < 9")
        );
    }

    #[test]
    fn a_large_toast_is_cut_by_its_size() {
        assert!(table(100, 1 << 30).parts(64 << 20).len() >= 15);
        assert_eq!(table(100, 800_000).parts(64 << 20).len(), 1);
    }

    #[test]
    fn tables_survive_the_wire() {
        for before in [table(3, 4), large_objects(7, vec![1, 5], 4)] {
            let after = Table::try_from(wire::Table::from(before.clone())).ok();
            assert_eq!(Some(before), after);
        }
    }

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

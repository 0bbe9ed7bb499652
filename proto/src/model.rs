//! Domain types that the three programs share. Messages that say what a database holds, or is to hold, become these once, on
//! receipt, or are refused.
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

mod access;
mod check;
mod convert;
mod finding;
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
mod work;

pub use access::{
    ACCESS_COMPARED, AccessAnswer, AccessRefusal, AccessRules, AskedTable, Besides, Identity,
    OF_ACCESS, ProbeAsked, Probed, RightsAsked, RoleRights, Sample, SampleAsked, TableRights,
};
pub use check::{
    Answer, Ask, At, CHECKS_RUN, Check, Expect, LONGEST_TIMEOUT_MS, OF_CHECKS, Refusal, Rows, Why,
};
pub use finding::{
    Finding, OF_COMPARISON, OF_OBJECTS, OF_PLATFORM, OF_SYNC, ROWS_NOT_BROUGHT, SYNC_ORPHANS,
    Severity,
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
    Membership, ParameterGrant, Properties, Role, RoleChoice, Roles, Setting, is_built_in, veiled,
};
pub use schema::{
    COLLATION, Catalog, Definition, HOLDS_ROWS, MADE_BY, MASK, OF_SCHEMA, OF_STEPS, QUERIES,
    RLS_SKIPPED, SCHEMA_COMPARED, SchemaObject, TOLD,
};
pub use slim::SlimPair;
pub use sync::{How, SyncCounts, SyncUnderWay};
pub use system::SystemGrants;
pub use table::{Format, OTHER_ROWS, Part, Relation, Table};
pub use work::{
    Access, Column, DefaultPrivileges, Entry, ForeignKey, Grant, IndexOn, KeyStatements,
    LargeObjects, Made, NOT_CALLED, Note, SequenceValue, Step, View, Work,
};

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

/// The ledger's phase of a finished migration after which another one was planned. It stays that when the later one is taken back or its
/// ledger is removed.
pub const SUPERSEDED: &str = "superseded";

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
        let received = Digest::try_from(wire::Digest::from(digest));
        assert_eq!(received.ok(), Some(digest));
        assert_eq!(parse_json::<Digest>(&to_json(&digest)).ok(), Some(digest));
    }
}

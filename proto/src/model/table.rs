//! What is copied as one unit, and how it is cut into parts.
use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Oid;

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
    /// Copied columns of type `character(n)` in a table that the migration makes at the target: PostgreSQL pads their values with
    /// blanks to n characters, whatever it is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub padded: Vec<String>,
    /// Copied and generated columns that are arrays: digests of a table in binary are of what a load stores.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arrays: Vec<String>,
    /// Set on all rows in the transaction that loads some: column, and value as SQL writes it. Neither copied nor digested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixed: Vec<(String, String)>,
    /// Of a platform, and there before: it may have columns of its own, and it is never truncated.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub managed: bool,
    /// A configuration table of an extension, which makes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub of_extension: bool,
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

/// How a filter calls the other rows of its table, where it looks at those.
pub const OTHER_ROWS: &str = "pgconvoy_other";

impl Table {
    /// Whether a row is carried depends on other rows, which not everybody may see.
    pub fn depends_on_other_rows(&self) -> bool {
        let filter = self.filter.as_deref();
        filter.is_some_and(|filter| filter.contains(OTHER_ROWS))
    }

    /// Somebody else makes it at the target, with its keys, before the first row arrives.
    pub fn comes_with_keys(&self) -> bool {
        self.managed || self.of_extension
    }

    /// The same columns are copied. In what order is the key's to say, and another index may be the key by now.
    pub fn has_columns_of(&self, other: &Self) -> bool {
        let columns = |table: &'_ Self| table.columns.iter().cloned().collect::<HashSet<String>>();
        columns(self) == columns(other)
    }

    /// As it is, read in the order of another description of it.
    pub fn in_order_of(self, other: &Self) -> Self {
        Self {
            columns: other.columns.clone(),
            key_columns: other.key_columns,
            format: other.format,
            ..self
        }
    }

    /// It has this schema and name.
    pub fn is(&self, (schema, name): (&str, &str)) -> bool {
        self.relation == Relation::Table && self.schema == schema && self.name == name
    }

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
    /// There is no other part.
    pub fn is_whole(&self) -> bool {
        self.first == 0 && self.end.is_none()
    }

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
            padded: Vec::new(),
            arrays: Vec::new(),
            fixed: Vec::new(),
            managed: false,
            of_extension: false,
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
}

//! Arrays as they are when they have been loaded.
//!
//! An array's binary form begins with the count of its dimensions, a flag, and the type of its elements. The flag says whether the
//! stored value has a bitmap of nulls (`array_send` in src/backend/utils/adt/arrayfuncs.c), which one may have whose nulls were overwritten,
//! or that was cut out of one with nulls. What loads it counts the nulls itself (`array_recv`). So the flag of equal arrays may
//! differ, and a digest of rows takes that which a load gives.
use std::borrow::Cow;

use pgconvoy_proto::model::{Format, Table};

use super::binary::{self, LENGTH_BYTES};

/// Dimensions, flag, type of the elements.
const HEADER_BYTES: usize = 12;
const FLAG: std::ops::Range<usize> = 4..8;
/// Length and lower bound.
const DIMENSION_BYTES: usize = 8;

/// Knows which fields of a table's binary rows are arrays.
#[derive(Clone, Debug)]
pub struct Arrays {
    columns: Vec<bool>,
}

impl Arrays {
    /// `columns`: of every column up to the last array, whether it is one.
    pub fn new(columns: Vec<bool>) -> Self {
        Self { columns }
    }

    /// Of rows that begin with the copied columns and the generated ones. None for a table without arrays, and in text, which has no
    /// such flag.
    pub fn of(table: &Table) -> Option<Self> {
        let columns = table.columns.iter().chain(&table.generated);
        let mut columns: Vec<bool> = columns.map(|name| table.arrays.contains(name)).collect();
        let last = columns.iter().rposition(|is_array| *is_array)?;
        columns.truncate(last + 1);
        (table.format == Format::Binary).then(|| Self::new(columns))
    }

    /// The row as it is after a load.
    pub fn as_loaded<'a>(&self, row: &'a [u8]) -> Cow<'a, [u8]> {
        let mut loaded = Cow::Borrowed(row);
        for ((begin, value), &is_array) in binary::fields(row).zip(&self.columns) {
            if is_array && has_idle_bitmap(value) {
                let array = begin + LENGTH_BYTES;
                loaded.to_mut()[array + FLAG.start..array + FLAG.end].fill(0);
            }
        }
        loaded
    }
}

/// Whether the flag speaks of nulls, and there are none. What is no array has none.
fn has_idle_bitmap(array: &[u8]) -> bool {
    if array.get(FLAG).is_none_or(|flag| flag == [0; 4]) {
        return false;
    }
    let dimensions = array.first_chunk().map_or(0, |n| u32::from_be_bytes(*n)) as usize;
    let elements = dimensions
        .checked_mul(DIMENSION_BYTES)
        .and_then(|bytes| array.get(HEADER_BYTES.checked_add(bytes)?..));
    let Some(mut elements) = elements else {
        return false;
    };
    while let Some((length, rest)) = elements.split_first_chunk() {
        let length = i32::from_be_bytes(*length);
        // A null, or no array.
        let Some(next) = usize::try_from(length)
            .ok()
            .and_then(|length| rest.get(length..))
        else {
            return false;
        };
        elements = next;
    }
    elements.is_empty()
}

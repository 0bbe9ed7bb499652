//! What a sync finds and does.
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use super::{Malformed, Selection};
use crate::wire;

/// How a table was brought to what the source has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// There was no difference.
    #[default]
    Equal,
    /// Row by row.
    Rows,
    /// Emptied and copied again whole.
    Copy,
}

impl How {
    /// As the ledger has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Rows => "rows",
            Self::Copy => "copy",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Equal, Self::Rows, Self::Copy]
            .into_iter()
            .find(|how| how.as_str() == text)
    }
}

/// Rows of one table that differed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncCounts {
    pub how: How,
    /// Only at the source. Of a table that is copied without looking at its rows: all of the source's.
    pub inserted: u64,
    /// At both ends, with different contents.
    pub changed: u64,
    /// Only at the target. Of a table that is copied without looking at its rows: all of the target's.
    pub deleted: u64,
}

impl SyncCounts {
    pub fn total(&self) -> u64 {
        self.inserted + self.changed + self.deleted
    }
}

impl AddAssign for SyncCounts {
    /// The sum's `how` is of no meaning.
    fn add_assign(&mut self, other: Self) {
        self.inserted += other.inserted;
        self.changed += other.changed;
        self.deleted += other.deleted;
    }
}

/// A sync that has begun to change the target: kept in the ledger until it has ended, for `resume`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SyncUnderWay {
    pub selection: Selection,
    pub skip_schema: bool,
    pub skip_data: bool,
    pub skip_rls: bool,
    pub force: bool,
    /// Files of storage buckets go along.
    pub storage_objects: bool,
}

impl TryFrom<wire::SyncCounts> for SyncCounts {
    type Error = Malformed;

    fn try_from(counts: wire::SyncCounts) -> Result<Self, Malformed> {
        use wire::sync_counts::How as Sent;
        Ok(Self {
            how: match counts.how() {
                Sent::Equal => How::Equal,
                Sent::Rows => How::Rows,
                Sent::Copy => How::Copy,
                Sent::Unspecified => {
                    return Err(Malformed::new("it is not said how a table was synced"));
                }
            },
            inserted: counts.inserted,
            changed: counts.changed,
            deleted: counts.deleted,
        })
    }
}

impl From<SyncCounts> for wire::SyncCounts {
    fn from(counts: SyncCounts) -> Self {
        use wire::sync_counts::How as Sent;
        let how = match counts.how {
            How::Equal => Sent::Equal,
            How::Rows => Sent::Rows,
            How::Copy => Sent::Copy,
        };
        Self {
            how: how.into(),
            inserted: counts.inserted,
            changed: counts.changed,
            deleted: counts.deleted,
        }
    }
}

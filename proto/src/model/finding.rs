//! Findings: what is to be told, and which of them a comparison makes anew.
use serde::{Deserialize, Serialize};

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

/// A table of a migration without rows, of which no sync has brought them.
pub const ROWS_NOT_BROUGHT: &str = "rows-not-brought";

/// Findings that a comparison makes anew each time: the earlier ones about what is compared again are forgotten.
pub const OF_COMPARISON: &[&str] = &[
    ROWS_NOT_BROUGHT,
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

//! How a command ended: the verdict of the last JSON line, and the exit code.
use std::fmt;
use std::process::ExitCode;

use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Digests that both agents computed from their own databases agree, for every table.
    Proven,
    /// The command did what it says; it proves nothing.
    Ok,
    /// Migrated with --no-verify.
    Unverified,
    /// Verification found differences.
    Differs,
    /// Preflight found a blocker.
    Blocked,
    /// An error: could not look, or could not do.
    Failed,
    Interrupted,
}

impl Verdict {
    pub fn code(self) -> u8 {
        match self {
            Self::Proven | Self::Ok | Self::Unverified => 0,
            Self::Failed => 1,
            Self::Differs => 3,
            Self::Blocked => 4,
            Self::Interrupted => 130,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Ok => "ok",
            Self::Unverified => "unverified",
            Self::Differs => "differs",
            Self::Blocked => "blocked",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }

    /// A verdict that the ledger holds.
    pub fn of_ledger(text: &str) -> Option<Self> {
        [Self::Proven, Self::Unverified, Self::Differs]
            .into_iter()
            .find(|v| v.as_str() == text)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        verdict.code().into()
    }
}

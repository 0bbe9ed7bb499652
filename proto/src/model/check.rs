//! Business checks: a question to one or both databases, and what the answer must be. Whoever reads them decides; the agents only ask.
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Malformed, required};
use crate::wire;

/// What came of the checks, for the report: as JSON in the finding's source value.
pub const CHECKS_RUN: &str = "checks-run";

/// Findings that a run of checks makes anew each time.
pub const OF_CHECKS: &[&str] = &[CHECKS_RUN, "check-failed", "check-not-run"];

/// A named assertion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    pub sql: String,
    /// Of the file, where the statement begins, from 1; 0: not known.
    #[serde(default)]
    pub line: u32,
    pub expect: Expect,
    pub at: At,
    /// 1 to 3,600,000.
    pub timeout_ms: u32,
    #[serde(default)]
    pub hint: String,
}

/// What must be true of what the query returns. "no-rows", "equal", "at-least 5"
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    NoRows,
    /// The same rows at both ends, in any order.
    Equal,
    /// One row with one number, at least this.
    AtLeast(i64),
}

impl FromStr for Expect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            ["no-rows"] => Ok(Self::NoRows),
            ["equal"] => Ok(Self::Equal),
            ["at-least", number] => match number.parse() {
                Ok(number) => Ok(Self::AtLeast(number)),
                Err(_) => Err(format!("at-least {number:?}: not a whole number")),
            },
            _ => Err(format!("{text:?} is none of no-rows, equal, at-least N")),
        }
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRows => f.write_str("no-rows"),
            Self::Equal => f.write_str("equal"),
            Self::AtLeast(number) => write!(f, "at-least {number}"),
        }
    }
}

impl Serialize for Expect {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Expect {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Where a check is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum At {
    Source,
    #[default]
    Target,
    Both,
}

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "source" => Ok(Self::Source),
            "target" => Ok(Self::Target),
            "both" => Ok(Self::Both),
            _ => Err(format!("{text:?} is none of source, target, both")),
        }
    }
}

/// What an agent is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub sql: String,
    pub timeout_ms: u32,
    pub prepare_only: bool,
}

pub const LONGEST_TIMEOUT_MS: u32 = 3_600_000;

impl TryFrom<wire::CheckRequest> for Ask {
    type Error = Malformed;

    fn try_from(request: wire::CheckRequest) -> Result<Self, Malformed> {
        if !(1..=LONGEST_TIMEOUT_MS).contains(&request.timeout_ms) {
            return Err(Malformed::new("a check's time limit is 1 ms to 1 h"));
        }
        Ok(Self {
            sql: request.sql,
            timeout_ms: request.timeout_ms,
            prepare_only: request.prepare_only,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Rows(Rows),
    Refused(Refusal),
}

/// What a query returned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    pub rows: u64,
    /// Sum modulo 2^128 of the rows' XXH3-128.
    pub sum: u128,
    /// The first column of the first rows.
    pub first: Vec<String>,
    /// Of one row with one column.
    pub single: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub why: Why,
    pub message: String,
    /// Of the statement, from 1.
    pub line: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Syntax,
    Writes,
    Timeout,
    Other,
}

impl From<Answer> for wire::CheckResponse {
    fn from(answer: Answer) -> Self {
        use wire::check_refusal::Why as W;
        use wire::check_response::Answer as A;
        let answer = match answer {
            Answer::Rows(rows) => A::Rows(wire::CheckRows {
                rows: rows.rows,
                sum: rows.sum.to_be_bytes().to_vec().into(),
                first: rows.first,
                single: rows.single,
            }),
            Answer::Refused(refusal) => A::Refusal(wire::CheckRefusal {
                why: match refusal.why {
                    Why::Syntax => W::Syntax,
                    Why::Writes => W::Writes,
                    Why::Timeout => W::Timeout,
                    Why::Other => W::Other,
                }
                .into(),
                message: refusal.message,
                line: refusal.line.unwrap_or(0),
            }),
        };
        Self {
            answer: Some(answer),
        }
    }
}

impl TryFrom<wire::CheckResponse> for Answer {
    type Error = Malformed;

    fn try_from(response: wire::CheckResponse) -> Result<Self, Malformed> {
        use wire::check_refusal::Why as W;
        use wire::check_response::Answer as A;
        Ok(match required(response.answer, "answer")? {
            A::Rows(rows) => {
                let sum = <[u8; 16]>::try_from(rows.sum.as_ref())
                    .map_err(|_| Malformed::new("a sum that is not 16 bytes"))?;
                Self::Rows(Rows {
                    rows: rows.rows,
                    sum: u128::from_be_bytes(sum),
                    first: rows.first,
                    single: rows.single,
                })
            }
            A::Refusal(refusal) => Self::Refused(Refusal {
                why: match refusal.why() {
                    W::Syntax => Why::Syntax,
                    W::Writes => Why::Writes,
                    W::Timeout => Why::Timeout,
                    W::Other => Why::Other,
                    W::Unspecified => return Err(Malformed::new("a refusal without a reason")),
                },
                line: (refusal.line > 0).then_some(refusal.line),
                message: refusal.message,
            }),
        })
    }
}

//! How two answers compare. Pure.
use pgconvoy_proto::model::AccessAnswer;

/// Two answers to one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    pub source: AccessAnswer,
    pub target: AccessAnswer,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The same rows; none are some, too.
    SameRows,
    /// Both ends have more than are read: nothing is said of the rows themselves.
    BothMany,
    /// Neither end lets it in.
    SameRefusal,
    /// The same error at both ends: it works at neither.
    FailsAlike,
    Differs,
    /// A policy's function writes: it is refused here, and would not be refused to an application.
    Writes,
    TooSlow(At),
    NotAsked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Source,
    Target,
    Both,
}

impl At {
    pub fn text(self) -> &'static str {
        match self {
            Self::Source => "at the source",
            Self::Target => "at the target",
            Self::Both => "at both ends",
        }
    }
}

pub fn judge(source: AccessAnswer, target: AccessAnswer) -> Judged {
    use AccessAnswer::{Many, NotAsked, Refused, Rows, TimedOut};
    let outcome = match (&source, &target) {
        (NotAsked, _) | (_, NotAsked) => Outcome::NotAsked,
        (TimedOut, TimedOut) => Outcome::TooSlow(At::Both),
        (TimedOut, _) => Outcome::TooSlow(At::Source),
        (_, TimedOut) => Outcome::TooSlow(At::Target),
        (Rows(one), Rows(other)) if one == other => Outcome::SameRows,
        (Many, Many) => Outcome::BothMany,
        (Refused(one), Refused(other)) if one.is_as(other) => {
            if one.is_of_writing() {
                Outcome::Writes
            } else if one.is_denial() {
                Outcome::SameRefusal
            } else {
                Outcome::FailsAlike
            }
        }
        _ => Outcome::Differs,
    };
    Judged {
        source,
        target,
        outcome,
    }
}

/// For people: counts, never values.
pub fn answer_text(answer: &AccessAnswer) -> String {
    match answer {
        AccessAnswer::Rows(digest) if digest.rows == 1 => "1 row".into(),
        AccessAnswer::Rows(digest) => format!("{} rows", digest.rows),
        AccessAnswer::Many => "more rows than are read".into(),
        AccessAnswer::Refused(refusal) => format!("refused: {}", refusal.told),
        AccessAnswer::TimedOut => "no answer in time".into(),
        AccessAnswer::NotAsked => "not asked".into(),
    }
}

#[cfg(test)]
mod tests {
    use pgconvoy_proto::model::{AccessRefusal, Digest};

    use super::*;

    fn rows(rows: u64, sum: u128) -> AccessAnswer {
        AccessAnswer::Rows(Digest {
            rows,
            bytes: 1,
            sum,
        })
    }

    fn refused(code: &str, raised: Option<&str>) -> AccessAnswer {
        AccessAnswer::Refused(AccessRefusal {
            code: code.into(),
            raised: raised.map(str::to_owned),
            told: "in the words of this server".into(),
        })
    }

    #[test]
    fn only_what_was_answered_alike_is_the_same() {
        let of = |one, other| judge(one, other).outcome;
        assert_eq!(of(rows(2, 7), rows(2, 7)), Outcome::SameRows);
        assert_eq!(of(rows(2, 7), rows(2, 8)), Outcome::Differs);
        assert_eq!(of(rows(2, 7), AccessAnswer::Many), Outcome::Differs);
        assert_eq!(
            of(AccessAnswer::Many, AccessAnswer::Many),
            Outcome::BothMany
        );
        let denied = || refused("42501", None);
        assert_eq!(of(denied(), denied()), Outcome::SameRefusal);
        assert_eq!(of(rows(0, 0), denied()), Outcome::Differs);
        assert_eq!(of(denied(), refused("42P01", None)), Outcome::Differs);
        let raised = |message| refused("P0001", Some(message));
        assert_eq!(of(raised("a"), raised("a")), Outcome::FailsAlike);
        assert_eq!(of(raised("a"), raised("b")), Outcome::Differs);
        let writes = || refused("25006", None);
        assert_eq!(of(writes(), writes()), Outcome::Writes);
        assert_eq!(of(writes(), rows(0, 0)), Outcome::Differs);
        assert_eq!(
            of(rows(1, 1), AccessAnswer::TimedOut),
            Outcome::TooSlow(At::Target)
        );
    }
}

//! How much the target's PostgreSQL writes to its write-ahead log while the phases run, and whether it had to make checkpoints for that.
use std::time::Instant;

use pgconvoy_proto::model::{Finding, Severity};
use pgconvoy_proto::survey::Wal;

use crate::ends::Ends;
use crate::text::bytes;

/// Each writes every changed page of memory to disk, and the first change of every page after it whole into the log.
const MANY_CHECKPOINTS: u64 = 3;

pub struct Watch {
    begin: Wal,
    begun: Instant,
}

impl Watch {
    pub async fn begin(ends: &mut Ends) -> anyhow::Result<Self> {
        Ok(Self {
            begin: ends.target_survey().await?.wal,
            begun: Instant::now(),
        })
    }

    /// What was written since, and what would make it less.
    pub async fn end(self, ends: &mut Ends) -> anyhow::Result<Finding> {
        let now = ends.target_survey().await?.wal;
        let seconds = self.begun.elapsed().as_secs_f64();
        Ok(finding(&self.begin, &now, seconds))
    }
}

fn finding(begin: &Wal, now: &Wal, seconds: f64) -> Finding {
    // Counters begin anew when a server was recovered.
    let written = now.written.saturating_sub(begin.written);
    let since = |wal: &Wal| wal.requested_checkpoints;
    let checkpoints = since(now).saturating_sub(since(begin));
    let message = format!(
        "the target's PostgreSQL wrote {} of WAL in {seconds:.0} s, with {checkpoints} checkpoints that were not timed",
        bytes(written)
    );
    if checkpoints < MANY_CHECKPOINTS {
        return Finding::new(Severity::Info, "wal", "target", message);
    }
    // A checkpoint begins when about half of it is written (PostgreSQL manual, WAL Configuration).
    let enough = (2 * written).next_power_of_two();
    let hint = format!(
        "for a migration like this: ALTER SYSTEM SET max_wal_size = '{}MB' (now {}), SELECT pg_reload_conf(), and back again after it",
        enough >> 20,
        bytes(now.limit)
    );
    Finding::new(Severity::Warning, "checkpoints", "target", message).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wal(written: u64, requested_checkpoints: u64) -> Wal {
        Wal {
            written,
            requested_checkpoints,
            limit: 1 << 30,
        }
    }

    #[test]
    fn many_checkpoints_are_a_warning_that_says_how_much_would_do() {
        let few = finding(&wal(5 << 30, 7), &wal(6 << 30, 9), 10.0);
        assert_eq!((few.severity, few.code.as_str()), (Severity::Info, "wal"));
        let many = finding(&wal(5 << 30, 7), &wal(10 << 30, 17), 10.0);
        assert_eq!(many.severity, Severity::Warning);
        assert!(many.message.contains("10 checkpoints"), "{}", many.message);
        assert!(many.hint.contains("'16384MB'"), "{}", many.hint);
        let recovered = finding(&wal(5 << 30, 7), &wal(4 << 30, 0), 10.0);
        assert_eq!(recovered.severity, Severity::Info);
    }
}

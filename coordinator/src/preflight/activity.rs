//! What goes on at the source, and where may be written, as findings. Pure.
use std::path::Path;

use pgconvoy_proto::model::Finding;
use pgconvoy_proto::survey::{CollationVersion, Jobs, LongTransaction, SourceSurvey, TargetSurvey};

use super::{blocker, info, names, warning};
use crate::text::{bytes, duration};

const SOURCE: &str = "source";

pub fn findings(source: &SourceSurvey, target: &TargetSurvey) -> Vec<Finding> {
    let mut found = vec![writes(source), sessions(source)];
    found.extend(source.long_transactions.iter().map(long_transaction));
    found.extend(jobs(&source.jobs));
    found.extend(unknown_rows(source));
    found.extend(collations(&source.collation, &target.collation));
    if let Some(error) = &target.data_dir_error {
        found.push(
            blocker(
                "data-dir",
                target.data_dir.clone(),
                format!("the target agent cannot write to its --data-dir: {error}"),
            )
            .hint("give it a folder that it may write to"),
        );
    }
    found
}

/// The run folder is this machine's.
pub fn run_dir(parent: &Path, tried: Result<(), String>) -> Option<Finding> {
    let error = tried.err()?;
    Some(
        blocker(
            "run-dir",
            parent.display().to_string(),
            format!("the run folder cannot be written: {error}"),
        )
        .hint("--run-dir DIR: a folder that you may write to"),
    )
}

fn writes(source: &SourceSurvey) -> Finding {
    let seconds = source.sample_seconds;
    if source.transactions == 0 {
        let what = format!("nothing was written in {seconds:.1} s");
        return info("no-writes", SOURCE, what);
    }
    let wal = match source.wal_bytes {
        Some(count) => format!(", {} of WAL", bytes(count)),
        None => String::new(),
    };
    let tables: Vec<String> = source
        .written
        .iter()
        .map(|(table, rows)| format!("{table} ({rows} rows)"))
        .collect();
    let of = match tables.is_empty() {
        true => "; the statistics do not say yet to which tables".into(),
        false => format!(": {}", names(&tables)),
    };
    let count = source.transactions;
    warning(
        "writes-seen",
        SOURCE,
        format!("{count} transactions wrote to the server in {seconds:.1} s{wal}{of}"),
    )
    .hint("the application is not in maintenance mode: stop it, or migrate --then-sync and stop it for the sync")
}

fn sessions(source: &SourceSurvey) -> Finding {
    let all: u64 = source.sessions.iter().map(|s| s.count).sum();
    let busy: u64 = source.sessions.iter().map(|s| s.busy).sum();
    let who: Vec<String> = source
        .sessions
        .iter()
        .map(|s| {
            let application = match s.application.as_str() {
                "" => "no name",
                name => name,
            };
            format!(
                "{} as {}: {} ({} busy)",
                application, s.role, s.count, s.busy
            )
        })
        .collect();
    match (all, busy) {
        (0, _) => info("sessions", SOURCE, "nobody else is connected"),
        (_, 0) => info(
            "sessions",
            SOURCE,
            format!("{all} other sessions, all idle; {}", names(&who)),
        ),
        _ => warning(
            "sessions",
            SOURCE,
            format!("{all} other sessions, {busy} of them busy; {}", names(&who)),
        )
        .hint("end user sessions and background jobs before the last step"),
    }
}

fn long_transaction(open: &LongTransaction) -> Finding {
    let who = format!("{} as {}", open.application, open.role);
    let what = format!(
        "a transaction has been open for {} ({})",
        duration(open.seconds),
        open.state
    );
    let hint = match open.state.as_str() {
        "prepared" => "COMMIT PREPARED or ROLLBACK PREPARED",
        _ => "let it end, or pg_terminate_backend(): what it has not committed is not migrated",
    };
    warning("long-transaction", who, what).hint(hint)
}

fn jobs(jobs: &Jobs) -> Option<Finding> {
    match jobs {
        Jobs::None => None,
        Jobs::Unreadable => Some(
            warning(
                "jobs-unknown",
                "cron.job",
                "the agent's role may not read pg_cron's jobs",
            )
            .hint("look at them with a superuser, and suspend them"),
        ),
        Jobs::Active(jobs) if jobs.is_empty() => None,
        Jobs::Active(jobs) => {
            let all: Vec<String> = jobs
                .iter()
                .map(|(name, at)| format!("{name} ({at})"))
                .collect();
            let what = format!("{} jobs of pg_cron are scheduled", all.len());
            Some(
                warning("scheduled-jobs", names(&all), what)
                    .hint("note which they are, and suspend them when the application stops: SELECT cron.alter_job(jobid, active := false) FROM cron.job WHERE active"),
            )
        }
    }
}

fn unknown_rows(source: &SourceSurvey) -> Option<Finding> {
    let unknown = source.tables.iter().filter(|t| t.estimated_rows.is_none());
    let unknown: Vec<String> = unknown
        .map(|t| format!("{}.{}", t.schema, t.name))
        .collect();
    (!unknown.is_empty()).then(|| {
        let what = format!(
            "{} tables were never analysed: how many rows they have is not known",
            unknown.len()
        );
        info("rows-unknown", names(&unknown), what).hint("ANALYZE, at the source")
    })
}

fn collations(source: &CollationVersion, target: &CollationVersion) -> Vec<Finding> {
    let version = |of: &CollationVersion| of.actual.clone().unwrap_or_else(|| "none".into());
    let mut found = Vec::new();
    for (end, of) in [(SOURCE, source), ("target", target)] {
        if of.recorded != of.actual {
            let what = "the system's collation has changed since the database was made: its text indexes may be out of order";
            found.push(
                warning("collation-version", end, what)
                    .hint("REINDEX DATABASE, then ALTER DATABASE ... REFRESH COLLATION VERSION"),
            );
        }
    }
    if source.actual != target.actual && source.actual.is_some() && target.actual.is_some() {
        let what = "the ends' collations are of different versions: sorting may differ; indexes are built anew";
        found.push(
            info("collation-version", "both ends", what).values(version(source), version(target)),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgconvoy_proto::model::Severity;
    use pgconvoy_proto::survey::Sessions;

    fn codes(source: &SourceSurvey, target: &TargetSurvey) -> Vec<(String, Severity)> {
        let found = findings(source, target).into_iter();
        found.map(|f| (f.code, f.severity)).collect()
    }

    #[test]
    fn a_quiet_source_has_nothing_to_warn_of_and_a_busy_one_has() {
        let quiet = codes(&SourceSurvey::default(), &TargetSurvey::default());
        assert!(
            quiet
                .iter()
                .all(|(_, severity)| *severity == Severity::Info),
            "{quiet:?}"
        );

        let busy = SourceSurvey {
            transactions: 3,
            sessions: vec![Sessions {
                count: 2,
                busy: 1,
                ..Sessions::default()
            }],
            long_transactions: vec![LongTransaction::default()],
            jobs: Jobs::Unreadable,
            collation: CollationVersion {
                recorded: Some("1".into()),
                actual: Some("2".into()),
            },
            ..SourceSurvey::default()
        };
        let target = TargetSurvey {
            data_dir_error: Some("read-only".into()),
            ..TargetSurvey::default()
        };
        let found = codes(&busy, &target);
        let is = |code: &str, severity| found.contains(&(code.to_owned(), severity));
        for code in [
            "writes-seen",
            "sessions",
            "long-transaction",
            "jobs-unknown",
            "collation-version",
        ] {
            assert!(is(code, Severity::Warning), "{code} in {found:?}");
        }
        assert!(is("data-dir", Severity::Blocker), "{found:?}");
    }
}

//! pg_restore connects to the target itself.
use std::path::Path;

use pgconvoy_agent_core::child::{self, Error};
use tonic::Status;

use super::{Failure, Restore, verbose};
use crate::sessions::application_name;

pub(super) async fn run(restore: &Restore<'_>, list: &Path) -> Result<(), Failure> {
    let libpq = restore
        .database
        .libpq(&application_name(&restore.migration.id))
        .await
        .map_err(Status::from)?;
    let mut command = verbose(restore.tool, list);
    libpq.apply(&mut command);
    command
        .args(["--single-transaction", "--no-password"])
        .args(["--dbname", &libpq.conninfo])
        .arg(restore.archive);
    match child::run(command, &mut tokio::io::sink()).await {
        Ok(warnings) => {
            for warning in warnings.lines().filter(|line| line.contains("warning:")) {
                tracing::warn!(%warning, "pg_restore");
            }
            Ok(())
        }
        Err(Error::Failed { stderr, .. }) => Err(blame(&stderr)),
        Err(error) => Err(Status::internal(error.to_string()).into()),
    }
}

/// Which entry failed and why, from pg_restore's complaints.
fn blame(stderr: &str) -> Failure {
    let says = |words: &[&str]| words.iter().any(|words| stderr.contains(words));
    if says(&[
        "server closed the connection",
        "FATAL:",
        "could not connect",
        "connection to server",
    ]) {
        return Status::unavailable(format!("pg_restore lost the target database: {stderr}"))
            .into();
    }
    if says(&["deadlock detected", "canceling statement"]) {
        return Status::aborted(format!("pg_restore: {stderr}")).into();
    }
    if says(&[
        "No space left on device",
        "Check free disk space",
        "Input/output error",
        "out of shared memory",
    ]) {
        return Status::resource_exhausted(format!("pg_restore: {stderr}")).into();
    }
    let dump_id = stderr
        .split("from TOC entry ")
        .nth(1)
        .and_then(|rest| rest.split(';').next()?.trim().parse().ok());
    let Some(dump_id) = dump_id else {
        return Status::internal(format!("pg_restore failed: {stderr}")).into();
    };
    let message = stderr
        .lines()
        .skip_while(|line| !line.contains("ERROR:"))
        .map(|line| {
            line.split_once("ERROR:")
                .map_or(line, |(_, message)| message)
                .trim()
        })
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ");
    Failure::Refused { dump_id, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_and_the_reason_are_taken_from_the_complaint() {
        let stderr = "pg_restore: while PROCESSING TOC:\npg_restore: from TOC entry 215; 1259 16386 TABLE t owner\n\
                      pg_restore: error: could not execute query: ERROR:  role \"x\" does not exist\n";
        let Failure::Refused { dump_id, message } = blame(stderr) else {
            panic!("no entry is blamed");
        };
        assert_eq!(
            (dump_id, message.as_str()),
            (215, "role \"x\" does not exist")
        );
    }

    #[test]
    fn a_lost_server_is_nobodys_fault() {
        let stderr = "pg_restore: from TOC entry 215; 1259 1 TABLE t o\npg_restore: error: could not execute query: \
                      server closed the connection unexpectedly\n";
        let Failure::Other(status) = blame(stderr) else {
            panic!("an entry is blamed");
        };
        assert_eq!(status.code(), tonic::Code::Unavailable);
    }

    #[test]
    fn a_statement_that_somebody_cancels_or_that_finds_no_disk_is_nobodys_fault() {
        for (said, code) in [
            (
                "canceling statement due to user request",
                tonic::Code::Aborted,
            ),
            (
                "could not extend file \"base/5/16390\": wrote only 4096 of 8192 bytes at block 7\nHINT:  Check free disk space.",
                tonic::Code::ResourceExhausted,
            ),
        ] {
            let stderr = format!(
                "pg_restore: from TOC entry 215; 1259 1 INDEX i o\npg_restore: error: could not execute query: ERROR:  {said}\n"
            );
            let Failure::Other(status) = blame(&stderr) else {
                panic!("an entry is blamed");
            };
            assert_eq!(status.code(), code);
        }
    }
}

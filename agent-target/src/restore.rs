//! Runs entries of the archive at the target: pg_restore with a list, all of it in one transaction.
//!
//! All or nothing is what makes a kill harmless: after it, either every entry of the list is there or none. An entry that
//! PostgreSQL refuses is left out, told as such, and the rest is run again.
use std::io::Write;
use std::path::Path;

use pgconvoy_agent_core::child::{self, Error};
use pgconvoy_agent_core::database::Database;
use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::tools::Tool;
use pgconvoy_proto::model::{Finding, Severity};
use tonic::Status;

use crate::archive::Line;
use crate::ledger::write;
use crate::sessions::application_name;
use crate::steps::Migration;

/// After so many refused entries something else is wrong.
const MAX_REFUSED: usize = 500;

pub struct Restore<'a> {
    pub database: &'a Database,
    pub session: &'a Session,
    pub migration: &'a Migration,
    pub tool: &'a Tool,
    pub archive: &'a Path,
}

/// Lost, these change nothing that the application reads.
const COSMETIC: &[&str] = &["COMMENT", "SECURITY LABEL", "DEFAULT ACL"];

impl Restore<'_> {
    /// Restores the entries, in the order given. Errors when an entry is refused that `vital` holds for.
    pub async fn run(
        &self,
        mut lines: Vec<Line>,
        vital: impl Fn(&Line) -> bool,
    ) -> Result<Vec<Finding>, Status> {
        let mut findings = Vec::new();
        while !lines.is_empty() {
            let Err(failure) = self.attempt(&lines).await else {
                break;
            };
            let (dump_id, message) = blame(&failure)?;
            let at = lines
                .iter()
                .position(|line| line.dump_id == dump_id)
                .ok_or_else(|| {
                    Status::internal(format!(
                        "pg_restore blames an entry that was not asked for: {message}"
                    ))
                })?;
            let line = lines.remove(at);
            if vital(&line) || findings.len() == MAX_REFUSED {
                return Err(Status::internal(format!(
                    "cannot create {}: {message}",
                    line.rest
                )));
            }
            tracing::warn!(entry = %line.rest, %message, "refused; the rest is tried without it");
            let finding = self.finding(line, message);
            // Before the rest commits: after that nothing would tell that the entry is missing.
            write::findings(
                self.session,
                &self.migration.id,
                std::slice::from_ref(&finding),
            )
            .await?;
            findings.push(finding);
        }
        Ok(findings)
    }

    fn finding(&self, line: Line, message: String) -> Finding {
        let chosen = !self.migration.options.selection.is_everything();
        let severity = if chosen || line.is_any(COSMETIC) {
            Severity::Warning
        } else {
            Severity::Difference
        };
        let hint = if chosen {
            "it may need an object that is not selected"
        } else {
            "create it by hand at the target; the message is PostgreSQL's own"
        };
        Finding::new(severity, "not-restored", line.rest, message).hint(hint)
    }

    async fn attempt(&self, lines: &[Line]) -> Result<(), Failure> {
        let io =
            |error: std::io::Error| Failure::Other(format!("writing pg_restore's list: {error}"));
        let folder = self.archive.parent().unwrap_or(self.archive);
        let mut list = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
        for line in lines {
            writeln!(list, "{}", line.text).map_err(io)?;
        }
        list.flush().map_err(io)?;
        let libpq = self
            .database
            .libpq(&application_name(&self.migration.id))
            .map_err(|error| Failure::Other(error.to_string()))?;
        let mut command = child::command(&self.tool.path);
        libpq.apply(&mut command);
        command
            .args([
                "--no-owner",
                "--no-tablespaces",
                "--single-transaction",
                "--no-password",
                // Only then does it say which entry failed.
                "--verbose",
            ])
            .arg("--use-list")
            .arg(list.path())
            .args(["--dbname", &libpq.conninfo])
            .arg(self.archive);
        match child::run(command, &mut tokio::io::sink()).await {
            Ok(warnings) => {
                for warning in warnings.lines().filter(|line| line.contains("warning:")) {
                    tracing::warn!(%warning, "pg_restore");
                }
                Ok(())
            }
            Err(Error::Failed { stderr, .. }) => Err(Failure::Refused(stderr)),
            Err(error) => Err(Failure::Other(error.to_string())),
        }
    }
}

enum Failure {
    /// pg_restore ended with these complaints.
    Refused(String),
    Other(String),
}

/// Which entry failed and why. An error that is not one entry's (the connection broke, the disk is full) ends the step.
fn blame(failure: &Failure) -> Result<(u32, String), Status> {
    let stderr = match failure {
        Failure::Refused(stderr) => stderr,
        Failure::Other(text) => return Err(Status::internal(text.clone())),
    };
    let lost = [
        "server closed the connection",
        "FATAL:",
        "could not connect",
        "connection to server",
    ];
    if lost.iter().any(|words| stderr.contains(words)) {
        return Err(Status::unavailable(format!(
            "pg_restore lost the target database: {stderr}"
        )));
    }
    if stderr.contains("deadlock detected") {
        return Err(Status::aborted(format!("pg_restore: {stderr}")));
    }
    if stderr.contains("No space left on device") || stderr.contains("out of shared memory") {
        return Err(Status::resource_exhausted(format!("pg_restore: {stderr}")));
    }
    let dump_id = stderr
        .split("from TOC entry ")
        .nth(1)
        .and_then(|rest| rest.split(';').next()?.trim().parse().ok())
        .ok_or_else(|| Status::internal(format!("pg_restore failed: {stderr}")))?;
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
    Ok((dump_id, message))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_entry_and_the_reason_are_taken_from_the_complaint() {
        let stderr = "pg_restore: while PROCESSING TOC:\npg_restore: from TOC entry 215; 1259 16386 TABLE t owner\n\
                      pg_restore: error: could not execute query: ERROR:  role \"x\" does not exist\n";
        let (id, message) = blame(&Failure::Refused(stderr.into())).unwrap();
        assert_eq!((id, message.as_str()), (215, "role \"x\" does not exist"));
    }

    #[test]
    fn a_lost_server_is_nobodys_fault() {
        let stderr = "pg_restore: from TOC entry 215; 1259 1 TABLE t o\npg_restore: error: could not execute query: \
                      server closed the connection unexpectedly\n";
        let status = blame(&Failure::Refused(stderr.into())).unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unavailable);
    }
}

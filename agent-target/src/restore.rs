//! Runs entries of the archive at the target: pg_restore with a list, all of it in one transaction.
//!
//! All or nothing is what makes a kill harmless: after it, either every entry of the list is there or none. An entry that
//! PostgreSQL refuses is left out, told as such, and the rest is run again.
//!
//! Two ways, chosen by versions: pg_restore connects to the target itself ([`direct`]), or, where its own settings are ones that an older
//! server does not know, writes the entries as SQL, which a session of ours runs ([`script`]). Indexes are SQL in any case
//! ([`prepared`]).
mod direct;
pub mod prepared;
mod script;

use std::io::Write;
use std::path::Path;

use pgconvoy_agent_core::child;
use pgconvoy_agent_core::database::Database;
use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::tools::Tool;
use pgconvoy_proto::model::{Finding, Severity};
use tonic::Status;

use crate::archive::Line;
use crate::ledger::write;
use crate::steps::Migration;

/// After so many refused entries something else is wrong.
const MAX_REFUSED: usize = 500;

/// From this major on pg_restore begins with `SET transaction_timeout`, which servers of older majors refuse.
const SETS_NEW_SETTINGS: u32 = 17;

pub struct Restore<'a> {
    pub database: &'a Database,
    pub session: &'a Session,
    pub migration: &'a Migration,
    pub tool: &'a Tool,
    pub archive: &'a Path,
    /// What pg_restore wrote of the entries before, where it did.
    pub prepared: Option<&'a prepared::Statements>,
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
            let (dump_id, message) = match failure {
                Failure::Refused { dump_id, message } => (dump_id, message),
                Failure::Other(status) => return Err(status),
            };
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
        let chosen = !self.migration.options.selection.leaves_nothing_out();
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

    /// Runs the entries, all or none.
    async fn attempt(&self, lines: &[Line]) -> Result<(), Failure> {
        if let Some(statements) = self.prepared {
            return prepared::run(self.session, statements, lines).await;
        }
        let list = list_in(self.archive, lines)?;
        let server = self.session.server_version() / 10_000;
        if self.tool.version.0 >= SETS_NEW_SETTINGS && server < SETS_NEW_SETTINGS {
            script::run(self, list.path(), lines).await
        } else {
            direct::run(self, list.path()).await
        }
    }
}

/// The lines as `--use-list` reads them, in a temporary file beside the archive.
fn list_in(archive: &Path, lines: &[Line]) -> Result<tempfile::NamedTempFile, Status> {
    let write = || {
        let folder = archive.parent().unwrap_or(archive);
        let mut list = tempfile::NamedTempFile::new_in(folder)?;
        for line in lines {
            writeln!(list, "{}", line.text)?;
        }
        list.flush()?;
        Ok(list)
    };
    write().map_err(|error: std::io::Error| {
        Status::resource_exhausted(format!("writing pg_restore's list: {error}"))
    })
}

/// What all ways have in common. Verbose: only then does it say which entry it is at.
fn verbose(tool: &Tool, list: &Path) -> tokio::process::Command {
    let mut command = child::command(&tool.path);
    command
        .args(["--no-owner", "--no-tablespaces", "--verbose", "--use-list"])
        .arg(list);
    command
}

/// Why entries were not restored; none of them was.
enum Failure {
    /// PostgreSQL refused this one.
    Refused { dump_id: u32, message: String },
    /// Not one entry's fault: the connection broke, the disk is full.
    Other(Status),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Other(status)
    }
}

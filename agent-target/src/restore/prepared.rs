//! Indexes: pg_restore writes all of them as SQL, once; sessions of ours run those that are due, each group in one transaction.
//!
//! Reading the archive costs pg_restore more than building a small index does, and what is set for a build is set in our own sessions.
use std::collections::HashMap;
use std::path::Path;

use pgconvoy_agent_core::child;
use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::tools::Tool;
use tonic::Status;

use super::script::{Cutter, Piece, apply, statement};
use super::{Failure, list_in, verbose};
use crate::archive::Line;

/// By dump id.
pub type Statements = HashMap<u32, Vec<u8>>;

/// As in `script`, for one transaction.
const SETTINGS: &str =
    "BEGIN; SET LOCAL check_function_bodies = off; SET LOCAL lc_monetary TO DEFAULT";

/// Has pg_restore write the entries.
pub async fn write(tool: &Tool, archive: &Path, lines: &[Line]) -> Result<Statements, Status> {
    let failed = |text: String| Status::internal(format!("pg_restore's script: {text}"));
    let list = list_in(archive, lines)?;
    let mut command = verbose(tool, list.path());
    command.arg("--file=-").arg(archive);
    let mut script = Vec::new();
    child::run(command, &mut script)
        .await
        .map_err(|error| failed(error.to_string()))?;
    let mut cutter = Cutter::new(lines);
    let mut pieces: Vec<Piece> = script
        .split_inclusive(|byte| *byte == b'\n')
        .filter_map(|line| cutter.line(line))
        .collect();
    pieces.extend(cutter.finish().map_err(failed)?);
    Ok(pieces
        .into_iter()
        .map(|piece| (piece.dump_id, piece.sql))
        .collect())
}

/// Runs the entries, all or none.
pub(super) async fn run(
    session: &Session,
    statements: &Statements,
    lines: &[Line],
) -> Result<(), Failure> {
    statement(session, SETTINGS).await?;
    for line in lines {
        let sql = statements.get(&line.dump_id).ok_or_else(|| {
            Status::internal(format!("pg_restore wrote nothing for {}", line.rest))
        })?;
        let piece = Piece {
            dump_id: line.dump_id,
            sql: sql.clone(),
        };
        if let Err(failure) = apply(session, piece).await {
            if let Failure::Refused { .. } = failure {
                statement(session, "ROLLBACK").await?;
            }
            return Err(failure);
        }
    }
    Ok(statement(session, "COMMIT").await?)
}

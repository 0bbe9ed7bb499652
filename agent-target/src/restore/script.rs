//! pg_restore writes the entries as SQL, and a session of ours runs them, entry by entry, in one transaction.
//!
//! No SQL of an object is read or changed: the script is cut at the comments that pg_restore writes above each entry. What comes before
//! the first is pg_restore's own: settings, which our session has already (agent-core/src/session.rs) but for those set here.
use std::collections::VecDeque;
use std::path::Path;

use pgconvoy_agent_core::child::Running;
use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::status;
use tokio::io::{AsyncBufReadExt, BufReader};
use tonic::Status;

use super::{Failure, Restore, verbose};
use crate::archive::Line;
use crate::sessions::application_name;

/// Function bodies may name what comes later; amounts of money are spelled as the target's database has it.
const SETTINGS: &str = "SET check_function_bodies = off; RESET lc_monetary";

pub(super) async fn run(restore: &Restore<'_>, list: &Path, lines: &[Line]) -> Result<(), Failure> {
    // A session of its own: pg_restore writes settings between the entries, which must not outlive them.
    let session = restore
        .database
        .connect(&application_name(&restore.migration.id))
        .await
        .map_err(Status::from)?;
    statement(&session, SETTINGS).await?;
    statement(&session, "BEGIN").await?;
    let outcome = entries(restore, &session, list, lines).await;
    if outcome.is_ok() {
        statement(&session, "COMMIT").await?;
    }
    // Its locks are gone before the rest is tried.
    session.close().await;
    outcome
}

pub(super) async fn statement(session: &Session, sql: &str) -> Result<(), Status> {
    session
        .batch_execute(sql)
        .await
        .map_err(|error| status::postgres("restoring entries", &error))
}

/// Runs each entry as soon as pg_restore has written the next one's beginning.
async fn entries(
    restore: &Restore<'_>,
    session: &Session,
    list: &Path,
    lines: &[Line],
) -> Result<(), Failure> {
    let failed = |text: String| Status::internal(format!("pg_restore's script: {text}"));
    let mut command = verbose(restore.tool, list);
    command.arg("--file=-").arg(restore.archive);
    let mut pg_restore = Running::start(command)
        .await
        .map_err(|error| failed(error.to_string()))?;
    let mut cutter = Cutter::new(lines);
    let mut script = BufReader::new(pg_restore.stdout());
    let mut line = Vec::new();
    while script
        .read_until(b'\n', &mut line)
        .await
        .map_err(|error| failed(error.to_string()))?
        > 0
    {
        if let Some(piece) = cutter.line(&line) {
            apply(session, piece).await?;
        }
        line.clear();
    }
    // Only then is the last entry known to be whole.
    pg_restore
        .finish()
        .await
        .map_err(|error| failed(error.to_string()))?;
    if let Some(piece) = cutter.finish().map_err(failed)? {
        apply(session, piece).await?;
    }
    Ok(())
}

pub(super) async fn apply(session: &Session, piece: Piece) -> Result<(), Failure> {
    let Piece { dump_id, sql } = piece;
    let refused = |message: String| Failure::Refused { dump_id, message };
    let sql = String::from_utf8(sql)
        .map_err(|_| refused("it has bytes that are not valid UTF-8".into()))?;
    let Err(error) = session.batch_execute(&sql).await else {
        return Ok(());
    };
    match error.as_db_error() {
        Some(db) if status::is_refusal(&error) => {
            let more = [("DETAIL", db.detail()), ("HINT", db.hint())];
            let mut message = db.message().to_owned();
            for (word, text) in more {
                message.extend(text.map(|text| format!("; {word}:  {text}")));
            }
            Err(refused(message))
        }
        _ => Err(status::postgres("restoring entries", &error).into()),
    }
}

/// One entry's statements.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) dump_id: u32,
    pub(super) sql: Vec<u8>,
}

/// Cuts a verbose script of pg_restore's, line by line, at the comments of the entries that were asked for, in their order. A function
/// body may hold such a comment: it counts only where it is the next entry's, and then the entry before it is refused as one without an
/// end, and nothing of the body is ever run.
pub(super) struct Cutter {
    /// Dump id and comment of the entries to come.
    expected: VecDeque<(u32, Vec<u8>)>,
    /// What psql is told at the end of the script, from what it is told at the beginning: a random key is in it.
    unrestrict: Option<Vec<u8>>,
    current: Option<u32>,
    text: Vec<u8>,
}

impl Cutter {
    pub(super) fn new(lines: &[Line]) -> Self {
        let mut lines: Vec<&Line> = lines.iter().collect();
        lines.sort_by_key(|line| pass(line));
        let expected = lines.into_iter().map(|line| {
            let (id, entry) = (line.dump_id, line.entry);
            let comment = format!(
                "-- TOC entry {id} (class {} OID {})\n",
                entry.class, entry.oid
            );
            (id, comment.into_bytes())
        });
        Self {
            expected: expected.collect(),
            unrestrict: None,
            current: None,
            text: Vec::new(),
        }
    }

    /// Takes a line with its end. Some: the entry that ended before it.
    pub(super) fn line(&mut self, line: &[u8]) -> Option<Piece> {
        if self
            .expected
            .front()
            .is_some_and(|(_, comment)| comment == line)
        {
            let next = self.expected.pop_front().map(|(dump_id, _)| dump_id);
            let settings = settings_at_end(&self.text);
            let for_next = self.text.split_off(settings);
            let sql = std::mem::replace(&mut self.text, for_next);
            let before = std::mem::replace(&mut self.current, next);
            // Before the first entry: pg_restore's own.
            return before.map(|dump_id| Piece { dump_id, sql });
        }
        if let (None, Some(key)) = (self.current, line.strip_prefix(b"\\restrict ")) {
            self.unrestrict = Some([b"\\unrestrict ", key].concat());
        }
        if self.unrestrict.as_deref() != Some(line) {
            self.text.extend_from_slice(line);
        }
        None
    }

    /// The last entry. An error when an entry was not in the script.
    pub(super) fn finish(self) -> Result<Option<Piece>, String> {
        if let Some((dump_id, _)) = self.expected.front() {
            return Err(format!("it lacks entry {dump_id}"));
        }
        let sql = self.text;
        Ok(self.current.map(|dump_id| Piece { dump_id, sql }))
    }
}

/// pg_restore writes grants after everything else, and event triggers after these (src/bin/pg_dump/pg_backup_archiver.c,
/// _tocEntryRestorePass).
fn pass(line: &Line) -> u8 {
    if line.is("DEFAULT ACL") {
        1
    } else if line.is("EVENT TRIGGER") || line.rest.starts_with("COMMENT - EVENT TRIGGER ") {
        2
    } else {
        0
    }
}

/// Where the settings for the next entry begin, which pg_restore writes above its comment: `SET default_table_access_method = heap;`.
fn settings_at_end(text: &[u8]) -> usize {
    let mut end = text.len();
    for line in text.split_inclusive(|byte| *byte == b'\n').rev() {
        if !(line == b"\n" || line == b"--\n" || line.starts_with(b"SET default_table")) {
            break;
        }
        end -= line.len();
    }
    end
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn line(text: &str) -> Line {
        Line::parse(text).unwrap()
    }

    fn cut(lines: &[Line], script: &str) -> Result<Vec<(u32, String)>, String> {
        let mut cutter = Cutter::new(lines);
        let mut pieces: Vec<Piece> = script
            .as_bytes()
            .split_inclusive(|byte| *byte == b'\n')
            .filter_map(|line| cutter.line(line))
            .collect();
        pieces.extend(cutter.finish()?);
        Ok(pieces
            .into_iter()
            .map(|piece| {
                let sql = String::from_utf8(piece.sql).unwrap();
                let lines = sql
                    .lines()
                    .filter(|line| !line.is_empty() && !line.starts_with("--"));
                (piece.dump_id, lines.collect::<Vec<_>>().join("\n"))
            })
            .collect())
    }

    const PREAMBLE: &str =
        "--\n-- PostgreSQL database dump\n--\n\n\\restrict kEy\n\nSET transaction_timeout = 0;\n\n";
    const END: &str =
        "-- Completed on\n\n--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict kEy\n\n";

    #[test]
    fn entries_are_cut_at_their_comments_and_the_frame_is_left_away() {
        let lines = [
            line("6; 2615 16386 SCHEMA - s o"),
            line("232; 1259 16505 TABLE s t o"),
        ];
        let script = format!(
            "{PREAMBLE}--\n-- TOC entry 6 (class 2615 OID 16386)\n-- Name: s\n--\n\nCREATE SCHEMA s;\n\n\n\
             SET default_table_access_method = heap;\n\n\
             --\n-- TOC entry 232 (class 1259 OID 16505)\n-- Dependencies: 6\n--\n\nCREATE TABLE s.t (\n);\n\n\n{END}"
        );
        let cut = cut(&lines, &script).unwrap();
        assert_eq!(
            cut,
            [
                (6, "CREATE SCHEMA s;".to_owned()),
                // The setting is the table's: refused, it is the table that is blamed.
                (
                    232,
                    "SET default_table_access_method = heap;\nCREATE TABLE s.t (\n);".to_owned()
                ),
            ]
        );
    }

    #[test]
    fn a_comment_in_a_body_is_text_unless_it_is_the_next_entrys() {
        let lines = [
            line("7; 1255 20 FUNCTION s f() o"),
            line("8; 1259 21 TABLE s t o"),
            line("9; 1259 22 TABLE s u o"),
        ];
        let body = "CREATE FUNCTION s.f() AS $$\n-- TOC entry 9 (class 1259 OID 22)\n\\unrestrict other\nSELECT 1;\n$$;\n";
        let script = format!(
            "{PREAMBLE}-- TOC entry 7 (class 1255 OID 20)\n{body}\n-- TOC entry 8 (class 1259 OID 21)\nCREATE TABLE s.t ();\n\n\
             -- TOC entry 9 (class 1259 OID 22)\nCREATE TABLE s.u ();\n\n{END}"
        );
        let cut = cut(&lines, &script).unwrap();
        assert_eq!(cut.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [7, 8, 9]);
        assert!(cut[0].1.ends_with("SELECT 1;\n$$;") && cut[0].1.contains("\\unrestrict other"));
        assert_eq!(cut[2].1, "CREATE TABLE s.u ();");
    }

    #[test]
    fn grants_and_event_triggers_come_last() {
        let lines = [
            line("1; 3466 30 EVENT TRIGGER - e o"),
            line("2; 0 0 COMMENT - EVENT TRIGGER e o"),
            line("3; 826 31 DEFAULT ACL s DEFAULT PRIVILEGES FOR TABLES o"),
            line("4; 2620 32 TRIGGER s t x o"),
        ];
        let cutter = Cutter::new(&lines);
        let order: Vec<u32> = cutter.expected.iter().map(|(id, _)| *id).collect();
        assert_eq!(order, [4, 3, 1, 2]);
    }

    #[test]
    fn an_entry_that_is_not_in_the_script_is_an_error() {
        let lines = [
            line("6; 2615 16386 SCHEMA - s o"),
            line("7; 2615 16387 SCHEMA - t o"),
        ];
        let script =
            format!("{PREAMBLE}-- TOC entry 6 (class 2615 OID 16386)\nCREATE SCHEMA s;\n{END}");
        assert!(cut(&lines, &script).unwrap_err().contains('7'));
    }
}

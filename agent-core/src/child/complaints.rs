//! What pg_dump and pg_restore print to stderr, without the SQL they print with it.
//!
//! Credentials stay home: `Command was: CREATE USER MAPPING ... (password '...')` holds a secret. SQL is left out
//! as it is read, before anything is kept: cutting first could lose the words that mark it.

use std::collections::VecDeque;

use tokio::io::{AsyncRead, AsyncReadExt};

/// The last so many bytes are kept.
const KEPT: usize = 64 * 1024;
/// A line may be a whole function body, or a row of a gigabyte; its start says what it is.
const LINE: usize = 4 * 1024;

const PROGRAMS: &[&str] = &[
    "pg_dump: ",
    "pg_restore: ",
    "pg_dumpall: ",
    "psql: ",
    "pgconvoy: ",
];
/// After these words comes SQL, up to the next line of a program's own.
const SQL_FOLLOWS: &[&str] = &[
    "ommand was:",
    "uery was:",
    "QUERY:",
    "STATEMENT:",
    "SQL statement \"",
    "SQL function \"",
];

/// Reads to the end of the stream. An error of the pipe ends it like its end: there is nobody left to hear it.
pub(super) async fn collect(mut stderr: impl AsyncRead + Unpin) -> String {
    let mut complaints = Complaints::default();
    let mut buffer = vec![0; 8 * 1024];
    loop {
        match stderr.read(&mut buffer).await {
            Ok(0) => break,
            Ok(read) => complaints.push(&buffer[..read]),
            Err(error) => {
                tracing::debug!(%error, "the messages of a child end early");
                break;
            }
        }
    }
    complaints.finish()
}

#[derive(Default)]
struct Complaints {
    lines: VecDeque<String>,
    size: usize,
    dropped: bool,
    line: Vec<u8>,
    in_sql: bool,
    /// The next line only points at a column of SQL that is not shown.
    caret: bool,
}

impl Complaints {
    fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            let room = LINE.saturating_sub(self.line.len());
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if text.len() < piece.len() {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line))
            .trim_end()
            .to_owned();
        let own = PROGRAMS.iter().any(|program| line.starts_with(program));
        if std::mem::take(&mut self.caret) && line.trim() == "^" {
            return;
        }
        if self.in_sql && !own {
            return;
        }
        self.in_sql = false;
        if is_excerpt(&line) {
            self.caret = true;
            return;
        }
        match SQL_FOLLOWS
            .iter()
            .filter_map(|words| line.find(words))
            .min()
        {
            Some(at) => {
                self.in_sql = true;
                self.keep_introduction(&line[..at]);
            }
            None => self.keep(line),
        }
    }

    /// Of `pg_dump: detail: Query was: ...` nothing is worth keeping; of `error: x failed: Query was: ...` the start.
    fn keep_introduction(&mut self, before: &str) {
        let words = before
            .trim_end_matches(|char: char| char.is_alphabetic())
            .trim_end();
        let bare = [
            "",
            "pg_dump: detail:",
            "pg_restore: detail:",
            "CONTEXT:",
            "pg_dump: error: The",
        ];
        if !bare.contains(&words) {
            self.keep(words.to_owned());
        }
    }

    fn keep(&mut self, line: String) {
        if line.is_empty() {
            return;
        }
        self.size += line.len() + 1;
        self.lines.push_back(line);
        while self.size > KEPT {
            let Some(oldest) = self.lines.pop_front() else {
                break;
            };
            self.size -= oldest.len() + 1;
            self.dropped = true;
        }
    }

    fn finish(mut self) -> String {
        if !self.line.is_empty() {
            self.end_line();
        }
        if self.dropped {
            self.lines.push_front("[...]".into());
        }
        Vec::from(self.lines).join("\n")
    }
}

/// `LINE 1: CREATE USER MAPPING ...`, the server's excerpt of a statement it could not read.
fn is_excerpt(line: &str) -> bool {
    line.strip_prefix("LINE ")
        .and_then(|rest| rest.split_once(':'))
        .is_some_and(|(number, _)| {
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrub(text: &str) -> String {
        let mut complaints = Complaints::default();
        // In pieces, as a pipe delivers them.
        text.as_bytes()
            .chunks(7)
            .for_each(|piece| complaints.push(piece));
        complaints.finish()
    }

    #[test]
    fn the_sql_after_command_was_is_left_out() {
        let text = "pg_restore: while PROCESSING TOC:\n\
                    pg_restore: from TOC entry 3; 1418 16390 USER MAPPING USER MAPPING ann SERVER far ann\n\
                    pg_restore: error: could not execute query: ERROR:  server \"far\" does not exist\n\
                    Command was: CREATE USER MAPPING FOR ann SERVER far OPTIONS (\n    password 's3cret'\n);\n\n\n\
                    pg_restore: warning: errors ignored on restore: 1\n";
        let wanted = "pg_restore: while PROCESSING TOC:\n\
                      pg_restore: from TOC entry 3; 1418 16390 USER MAPPING USER MAPPING ann SERVER far ann\n\
                      pg_restore: error: could not execute query: ERROR:  server \"far\" does not exist\n\
                      pg_restore: warning: errors ignored on restore: 1";
        assert_eq!(scrub(text), wanted);
    }

    #[test]
    fn excerpts_and_queries_are_left_out_and_hints_stay() {
        let text = "pg_restore: error: could not execute query: ERROR:  syntax error at or near \"x\"\n\
                    LINE 1: CREATE USER MAPPING FOR x OPTIONS (password 's3cret')\n        ^\n\
                    HINT:  think\n\
                    CONTEXT:  SQL statement \"SELECT 's3cret'\n from s3cret\"\n\
                    pg_dump: error: query failed: ERROR:  permission denied for table t\n\
                    pg_dump: detail: Query was: LOCK TABLE s3cret\n IN ACCESS SHARE MODE";
        let wanted = "pg_restore: error: could not execute query: ERROR:  syntax error at or near \"x\"\n\
                      HINT:  think\n\
                      pg_dump: error: query failed: ERROR:  permission denied for table t";
        assert_eq!(scrub(text), wanted);
    }

    #[test]
    fn the_end_is_kept_and_sql_stays_out_however_long() {
        let statement = "x s3cret\n".repeat(20_000);
        let text = format!("pg_restore: error: a\nCommand was: {statement}pg_restore: error: b\n");
        assert_eq!(scrub(&text), "pg_restore: error: a\npg_restore: error: b");
        let one_line = format!(
            "pg_restore: error: a\nCommand was: {}\npg_restore: error: b",
            "s3cret ".repeat(20_000)
        );
        assert_eq!(
            scrub(&one_line),
            "pg_restore: error: a\npg_restore: error: b"
        );
        let many: String = (0..5_000)
            .map(|n| format!("pg_restore: warning: number {n} of many\n"))
            .collect();
        let kept = scrub(&many);
        assert!(
            kept.len() <= KEPT + 10
                && kept.starts_with("[...]\n")
                && kept.ends_with("number 4999 of many")
        );
    }
}

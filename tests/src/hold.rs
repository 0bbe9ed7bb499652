//! Sessions that stand in the way: somebody who holds a lock, somebody who waits for one.
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};

use anyhow::{Context, Result, ensure};
use pgconvoy_coordinator::demo::server::Server;

/// Something that a psql of its own holds until this is released or dropped: an advisory lock, an open transaction.
#[derive(Debug)]
pub struct Hold {
    session: Child,
    input: Option<ChildStdin>,
}

impl Hold {
    /// The exclusive advisory lock `key` of a database.
    pub fn advisory_lock(server: &Server, database: &str, key: i64) -> Result<Self> {
        let lock = format!("SELECT 'held' FROM pg_advisory_lock({key});");
        Self::after(server, database, &lock)
    }

    /// A transaction that has run `sql` and will be rolled back.
    pub fn transaction(server: &Server, database: &str, sql: &str) -> Result<Self> {
        let open = format!("BEGIN; {sql}; SELECT 'held';");
        Self::after(server, database, &open)
    }

    /// `sql` answers `held` when it is.
    fn after(server: &Server, database: &str, sql: &str) -> Result<Self> {
        let mut session = server
            .psql_command(database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let mut input = session.stdin.take().context("stdin is piped")?;
        let output = session.stdout.take().context("stdout is piped")?;
        let hold = writeln!(input, "{sql}");
        let mut answer = String::new();
        BufReader::new(output).read_line(&mut answer)?;
        let hold = hold.map(|()| Self {
            session,
            input: Some(input),
        })?;
        ensure!(answer.trim() == "held", "it could not be had: {answer:?}");
        Ok(hold)
    }

    pub fn release(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // End of input: psql ends by itself, and the server is told.
        self.input = None;
        let _ = self.session.wait();
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.end();
    }
}

/// SQL that somebody else runs at the same time. Ended when dropped.
#[derive(Debug)]
pub struct Background(Child);

impl Background {
    pub fn psql(server: &Server, database: &str, sql: &str) -> Result<Self> {
        let session = server
            .psql_command(database)
            .args(["-c", sql])
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()?;
        Ok(Self(session))
    }

    /// Whether it is done; an error when it failed.
    pub fn finished(&mut self) -> Result<bool> {
        let Some(status) = self.0.try_wait()? else {
            return Ok(false);
        };
        ensure!(status.success(), "psql ended with {status}");
        Ok(true)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

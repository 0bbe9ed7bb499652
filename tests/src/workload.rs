//! An application that works at a server until it is stopped.
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};
use pgconvoy_coordinator::demo::server::Server;

/// One session that runs the same SQL over and over. Stopped when dropped.
#[derive(Debug)]
pub struct Workload {
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    session: Child,
    feeding: Option<JoinHandle<Result<()>>>,
}

const DONE: &str = "workload-done";

impl Workload {
    pub fn start(server: &Server, database: &str, sql: &str) -> Result<Self> {
        let mut session = server
            .psql_command(database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let mut input = session.stdin.take().context("stdin is piped")?;
        let output = session.stdout.take().context("stdout is piped")?;
        let (done, stop) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let round = format!("{sql}\n\\echo {DONE}\n");
        let feeding = {
            let (done, stop) = (done.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut answers = BufReader::new(output).lines();
                while !stop.load(Ordering::Relaxed) {
                    input.write_all(round.as_bytes())?;
                    let ended = answers.find(|line| line.as_ref().map_or(true, |l| l == DONE));
                    ended.context("the application's session ended")??;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        };
        Ok(Self {
            done,
            stop,
            session,
            feeding: Some(feeding),
        })
    }

    /// How often it has run its SQL.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Lets it finish what it is at. An error when it failed, or has done nothing.
    pub fn stop(mut self) -> Result<u64> {
        self.end()?;
        ensure!(self.done() > 0, "the application has done nothing");
        Ok(self.done())
    }

    fn end(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(feeding) = self.feeding.take() {
            feeding
                .join()
                .map_err(|_| anyhow::anyhow!("the application panicked"))??;
        }
        ensure!(
            self.session.wait()?.success(),
            "the application's session failed"
        );
        Ok(())
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        if self.feeding.is_some() {
            // The test has failed already, or does not care.
            let _ = self.end();
        }
    }
}

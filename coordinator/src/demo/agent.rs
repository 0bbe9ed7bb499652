//! An agent as a process of its own, on this machine.
use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::server;

const READY_DEADLINE: Duration = Duration::from_secs(30);
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
const LISTENING: &str = "listening on ";

/// A running agent. Killed when the value is dropped.
#[derive(Debug)]
pub struct Agent {
    process: Option<Child>,
    ready_line: String,
    port: u16,
}

/// A command without anything of ours, or of libpq's, from the caller's environment.
pub fn clean_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (variable, _) in env::vars_os() {
        if variable.to_string_lossy().starts_with("PG") {
            command.env_remove(variable);
        }
    }
    command.stdin(Stdio::null());
    command
}

impl Agent {
    /// Starts it and returns when it says that it is ready. Its log (stderr) is appended to `log`.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let program = PathBuf::from(command.get_program());
        let stderr = File::options().create(true).append(true).open(log)?;
        command.stdout(Stdio::piped()).stderr(stderr);
        // Ctrl-C is for whoever started the agent: it ends the agent in its own time.
        command.process_group(0);
        let mut process = command
            .spawn()
            .with_context(|| format!("{} could not be started", program.display()))?;
        let lines = read_lines(process.stdout.take().context("stdout is piped")?);
        let mut agent = Self {
            process: Some(process),
            ready_line: String::new(),
            port: 0,
        };
        agent.ready_line = match ready_line(&lines) {
            Ok(line) => line,
            Err(why) => bail!("{} {why}; its log says:\n{}", program.display(), tail(log)),
        };
        agent.port = port_in(&agent.ready_line)
            .with_context(|| format!("no port in `{}`", agent.ready_line))?;
        Ok(agent)
    }

    /// What it said when it was ready: who it is, where it listens, for which database.
    pub fn ready_line(&self) -> &str {
        &self.ready_line
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits; past a deadline it is killed.
    pub fn stop(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => server::end(&mut process, Signal::TERM, DRAIN_DEADLINE),
            None => Ok(()),
        }
    }

    /// Leaves it running when the value is dropped.
    pub fn keep(mut self) {
        self.process = None;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Reads on after the ready line, so that the agent never finds its stdout full. Ends with the agent.
fn read_lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Nobody listens any more once the agent is ready.
            let _ = sender.send(line);
        }
    });
    lines
}

fn ready_line(lines: &Receiver<String>) -> Result<String, String> {
    loop {
        match lines.recv_timeout(READY_DEADLINE) {
            Ok(line) if line.contains(LISTENING) => return Ok(line),
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!("was not ready within {READY_DEADLINE:?}"));
            }
            Err(RecvTimeoutError::Disconnected) => return Err("ended at once".to_owned()),
        }
    }
}

fn port_in(ready_line: &str) -> Option<u16> {
    let address = ready_line.split_once(LISTENING)?.1;
    let address = address.split([' ', ',', ';']).next()?;
    address.rsplit_once(':')?.1.parse().ok()
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::port_in;

    #[test]
    fn the_port_is_read_from_the_ready_line() {
        let line =
            "pgconvoy-source 0.1.0 listening on 127.0.0.1:40123, database shop, identity source";
        assert_eq!(port_in(line), Some(40123));
        assert_eq!(
            port_in("target agent listening on 127.0.0.1:7 (database x)"),
            Some(7)
        );
        assert_eq!(port_in("starting"), None);
    }
}

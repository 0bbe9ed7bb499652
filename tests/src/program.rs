//! The programs under test as processes: where they are, how they run, what they said.
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::within;

/// The program `name` that was built beside this test. Panics, saying what to do, when it was not.
///
/// # Panics
/// When it is not there.
pub fn path(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    // target/debug/deps/e2e-0123456789abcdef
    let built = test
        .ancestors()
        .nth(2)
        .expect("a folder above deps")
        .join(name);
    assert!(
        built.is_file(),
        "{} is missing: the tests run the real programs; build them first with `cargo build --workspace` \
         (scripts/test.sh does)",
        built.display()
    );
    built
}

/// What a finished program left.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub command: String,
    /// 128 + signal when a signal ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Both outputs.
    pub fn text(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }

    /// # Panics
    /// When it ended with another code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "`{}` ended with {} and not {code}.\n--- stdout\n{}\n--- stderr\n{}",
            self.command, self.code, self.stdout, self.stderr
        );
        self
    }

    /// # Panics
    /// When `words` are in neither output (case does not matter).
    #[track_caller]
    pub fn says(self, words: &str) -> Self {
        assert!(
            self.text().to_lowercase().contains(&words.to_lowercase()),
            "`{}` does not say `{words}`.\n--- stdout\n{}\n--- stderr\n{}",
            self.command,
            self.stdout,
            self.stderr
        );
        self
    }

    /// The last line of `--json`.
    ///
    /// # Panics
    /// When it is not the JSON of a result.
    pub fn result(&self) -> serde_json::Value {
        let last = self.stdout.lines().last().unwrap_or_default();
        let value: serde_json::Value =
            serde_json::from_str(last).unwrap_or_else(|error| panic!("not JSON ({error}): {last}"));
        assert_eq!(value["event"], "result", "the last line is {last}");
        value
    }
}

/// A program that runs. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    command: String,
    process: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    /// Outputs go to files in `folder`, so that no full pipe ever stops the program.
    pub fn start(mut command: Command, folder: &Path) -> Result<Self> {
        let shown = shown(&command);
        let (stdout_file, stdout) = tempfile::Builder::new()
            .prefix("stdout-")
            .tempfile_in(folder)?
            .keep()?;
        let (stderr_file, stderr) = tempfile::Builder::new()
            .prefix("stderr-")
            .tempfile_in(folder)?
            .keep()?;
        let process = command
            .stdout(stdout_file)
            .stderr(stderr_file)
            .spawn()
            .with_context(|| format!("`{shown}` could not be started"))?;
        Ok(Self {
            command: shown,
            process,
            stdout,
            stderr,
        })
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().is_ok_and(|status| status.is_none())
    }

    /// What it has written to stderr until now.
    pub fn said_so_far(&self) -> Result<String> {
        read(&self.stderr)
    }

    /// `kill -9`.
    pub fn kill(mut self) -> Result<Outcome> {
        self.process.kill()?;
        self.outcome()
    }

    /// Waits for its end; past the deadline it is an error, and the program is killed.
    pub fn wait(mut self, deadline: Duration) -> Result<Outcome> {
        if within(deadline, || !self.is_running()) {
            return self.outcome();
        }
        self.process.kill()?;
        let outcome = self.outcome()?;
        bail!(
            "`{}` still ran after {deadline:?}.\n--- stdout\n{}\n--- stderr\n{}",
            outcome.command,
            outcome.stdout,
            outcome.stderr
        )
    }

    fn outcome(&mut self) -> Result<Outcome> {
        use std::os::unix::process::ExitStatusExt;
        let status = self.process.wait()?;
        let code = status.code().or(status.signal().map(|signal| 128 + signal));
        Ok(Outcome {
            command: self.command.clone(),
            code: code.context("a process ends by exit or by signal")?,
            stdout: read(&self.stdout)?,
            stderr: read(&self.stderr)?,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or_default();
    let arguments = command
        .get_args()
        .map(|argument| argument.to_string_lossy());
    std::iter::once(program.to_string_lossy())
        .chain(arguments)
        .collect::<Vec<_>>()
        .join(" ")
}

fn read(path: &Path) -> Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

/// The most memory that a process has had resident, in bytes.
pub fn peak_resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .context("no VmHWM")?;
    let kilobytes: u64 = line
        .split_whitespace()
        .nth(1)
        .context("no number")?
        .parse()?;
    Ok(kilobytes * 1024)
}

/// The scheduling policies of its threads, each once, as the kernel numbers them (sched(7); proc_pid_stat(5), field 41).
pub fn scheduling_policies(pid: u32) -> Result<Vec<u32>> {
    let mut policies = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(thread?.path().join("stat"))?;
        let (_, after_the_name) = stat.rsplit_once(')').context("no name")?;
        let policy = after_the_name.split_whitespace().nth(38);
        policies.push(policy.context("no policy")?.parse()?);
    }
    policies.sort_unstable();
    policies.dedup();
    Ok(policies)
}

/// A program in a folder of its own that stands in for another: prints and exits.
pub fn fake(folder: &Path, name: &str, script: &str) -> Result<PathBuf> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let path = folder.join(name);
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(&path)?;
    write!(file, "#!/bin/sh\n{script}\n")?;
    ensure!(path.is_file(), "{} was not written", path.display());
    Ok(path)
}

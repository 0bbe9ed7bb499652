//! Children that die with the agent, also when the agent is killed with -9: a pg_restore that went on alone would
//! write to a database that `resume` takes for quiet.
//!
//! Linux sends a signal of the child's choice when its parent dies (PR_SET_PDEATHSIG), but the child has to ask for
//! it before it becomes pg_dump. So the agent starts itself again: [`become_child_if_asked`], first in `main`, asks
//! and then turns into the program. Two catches. The signal fires when the parent *thread* ends: [`spawn`] starts
//! every child from one thread that lives as long as the process; do not call `Command::spawn` on what [`command`]
//! returns. And only the child itself is told, not its own children: do not use `pg_restore --jobs`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

mod complaints;

const EXEC_FLAG: &str = "--pgconvoy-become-child";
const COULD_NOT_EXEC: i32 = 127;
/// A grandchild that keeps stderr open must not keep us.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Whether this program's `main` knows [`EXEC_FLAG`].
static ARMED: AtomicBool = AtomicBool::new(false);
static SPAWNER: Mutex<Option<mpsc::Sender<Job>>> = Mutex::new(None);

type Job = Box<dyn FnOnce() + Send>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot run {program}: {source}")]
    Spawn {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("lost touch with {program}: {source}")]
    Wait {
        program: String,
        #[source]
        source: io::Error,
    },
    /// `stderr` holds the last 64 KiB, without SQL.
    #[error("{program} failed ({status}): {stderr}")]
    Failed {
        program: String,
        status: ExitStatus,
        stderr: String,
    },
}

/// To be called first in `main`, before any thread is started. Returns unless this process was started by
/// [`spawn`] to become something else.
pub fn become_child_if_asked() {
    ARMED.store(true, Ordering::Relaxed);
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().as_deref() == Some(OsStr::new(EXEC_FLAG)) {
        let error = become_child(arguments);
        eprintln!("pgconvoy: {error}");
        std::process::exit(COULD_NOT_EXEC);
    }
}

/// `PARENT_PID PROGRAM ARGUMENTS...`: comes back only with the reason why this did not work.
fn become_child(mut arguments: impl Iterator<Item = OsString>) -> String {
    let parent = arguments
        .next()
        .and_then(|pid| pid.to_str()?.parse().ok())
        .and_then(Pid::from_raw);
    let (Some(parent), Some(program)) = (parent, arguments.next()) else {
        return format!("{EXEC_FLAG} is for the agent's own use");
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return format!("cannot bind the life of a child to the agent's: {error}");
    }
    // The agent may have died before the line above.
    if getppid() != Some(parent) {
        return "the agent is gone".into();
    }
    let error = std::process::Command::new(&program).args(arguments).exec();
    format!("cannot run {}: {error}", program.display())
}

/// A command that dies with this process and when its [`Child`] is dropped, without stdin. Start it with [`spawn`],
/// [`Running::start`] or [`run`].
pub fn command(program: &Path) -> Command {
    let mut command = if ARMED.load(Ordering::Relaxed) {
        // Not current_exe(): after an upgrade of the package that path is another program, or none.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg(EXEC_FLAG)
            .arg(std::process::id().to_string())
            .arg(program);
        command
    } else {
        // Not one of the agents (a test): started again it would not know what is wanted.
        tracing::debug!(program = %program.display(), "child is not bound to the life of this process");
        Command::new(program)
    };
    // English messages: complaints are told from SQL by their words.
    command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// The name of what a [`command`] will run.
fn program_of(command: &Command) -> String {
    let command = command.as_std();
    let arguments: Vec<_> = command.get_args().take(3).collect();
    let program = match arguments[..] {
        [flag, _, program] if flag == EXEC_FLAG => program,
        _ => command.get_program(),
    };
    Path::new(program)
        .file_name()
        .unwrap_or(program)
        .to_string_lossy()
        .into_owned()
}

/// Starts a command from a thread that lives as long as this process.
pub async fn spawn(mut command: Command) -> io::Result<Child> {
    let runtime = tokio::runtime::Handle::current();
    let (answer, answered) = oneshot::channel();
    submit(Box::new(move || {
        let _runtime = runtime.enter();
        // When nobody waits any more the child is dropped, and thereby killed.
        drop(answer.send(command.spawn()));
    }))?;
    answered
        .await
        .map_err(|_| io::Error::other("the thread that starts children has died"))?
}

fn submit(job: Job) -> io::Result<()> {
    let mut spawner = SPAWNER.lock().unwrap_or_else(PoisonError::into_inner);
    let sender = match spawner.as_ref() {
        Some(sender) => sender,
        None => {
            let (sender, jobs) = mpsc::channel::<Job>();
            std::thread::Builder::new()
                .name("pgconvoy-spawn".into())
                .spawn(move || jobs.into_iter().for_each(|job| job()))?;
            spawner.insert(sender)
        }
    };
    sender
        .send(job)
        .map_err(|_| io::Error::other("the thread that starts children has died"))
}

/// A child whose stdout the caller reads; its stderr is read in the background and kept in bounds.
pub struct Running {
    program: String,
    child: Child,
    stdout: ChildStdout,
    complaints: AbortOnDropHandle<String>,
}

impl Running {
    pub async fn start(mut command: Command) -> Result<Self, Error> {
        let program = program_of(&command);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed = |source| Error::Spawn {
            program: program.clone(),
            source,
        };
        let mut child = spawn(command).await.map_err(failed)?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(failed(io::Error::other("it has no pipes")));
        };
        let complaints = AbortOnDropHandle::new(tokio::spawn(complaints::collect(stderr)));
        Ok(Self {
            program,
            child,
            stdout,
            complaints,
        })
    }

    /// Read to its end before [`Self::finish`].
    pub fn stdout(&mut self) -> &mut ChildStdout {
        &mut self.stdout
    }

    /// Waits for the end. What is left of stdout is not read: a child that still writes fails. Success gives the
    /// warnings on stderr, without SQL.
    pub async fn finish(self) -> Result<String, Error> {
        let Self {
            program,
            mut child,
            stdout,
            mut complaints,
        } = self;
        drop(stdout);
        let status = child.wait().await.map_err(|source| Error::Wait {
            program: program.clone(),
            source,
        })?;
        let stderr = match tokio::time::timeout(LAST_WORDS, &mut complaints).await {
            Ok(Ok(stderr)) => stderr,
            Ok(Err(_)) | Err(_) => "(its messages could not be read to their end)".into(),
        };
        if status.success() {
            Ok(stderr)
        } else {
            Err(Error::Failed {
                program,
                status,
                stderr,
            })
        }
    }
}

/// Runs a child to its end. `stdout` gets what it prints, as it comes; stderr as in [`Running::finish`].
pub async fn run<W>(command: Command, stdout: &mut W) -> Result<String, Error>
where
    W: tokio::io::AsyncWrite + Unpin + ?Sized,
{
    let mut running = Running::start(command).await?;
    let copied = tokio::io::copy(running.stdout(), stdout).await;
    copied.map_err(|source| Error::Wait {
        program: running.program.clone(),
        source,
    })?;
    running.finish().await
}

#[cfg(test)]
mod tests;

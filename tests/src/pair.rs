//! A source and a target, each a PostgreSQL server with its agent, and the coordinator that an operator would run.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use pgconvoy_coordinator::demo::agent::{Agent, clean_command};
use pgconvoy_coordinator::demo::server::{self, Server, free_port};
use tempfile::TempDir;

use crate::program::{self, Outcome, Running};

/// The database that is moved; it has this name at both ends.
pub const DATABASE: &str = "app";
/// No command of a test runs longer, or something hangs.
const COMMAND_DEADLINE: Duration = Duration::from_secs(300);

/// What differs from a usual pair.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The superuser's name at both ends; else `postgres`.
    pub superuser: Option<&'static str>,
    /// Server settings, for both ends.
    pub settings: Vec<(String, String)>,
    /// Folders with the programs of each end's server; without them the newest installed.
    pub source_bin: Option<PathBuf>,
    pub target_bin: Option<PathBuf>,
    /// Replaces the connection URL that the source agent gets.
    pub source_url: Option<fn(&Server) -> String>,
    /// Replaces the target agent's; given the source and the target.
    pub target_url: Option<fn(&Server, &Server) -> String>,
    /// Folder that the agents search for pg_dump and pg_restore.
    pub source_pg_bin: Option<PathBuf>,
    pub target_pg_bin: Option<PathBuf>,
    /// More arguments for the agents.
    pub source_arguments: Vec<String>,
    pub target_arguments: Vec<String>,
    /// The target agent's --data-dir lies on a filesystem of this size, bytes, which only the agent sees. Needs root or user namespaces.
    pub target_disk: Option<u64>,
    /// Run before the agents start.
    pub before_agents: Option<fn(&Pair) -> Result<()>>,
}

/// Dropped in this order: agents, servers, the folder with everything they wrote.
#[derive(Debug)]
pub struct Pair {
    pub source_agent: AgentProcess,
    pub target_agent: AgentProcess,
    pub source: Server,
    pub target: Server,
    folder: TempDir,
}

/// An agent that can be killed and started again at the same address.
#[derive(Debug)]
pub struct AgentProcess {
    role: &'static str,
    port: u16,
    arguments: Vec<String>,
    database_url: String,
    /// More of its environment, by name; the last word counts.
    environment: Vec<(&'static str, String)>,
    log: PathBuf,
    /// A folder that is a small filesystem for it, and its size in bytes.
    disk: Option<(PathBuf, u64)>,
    /// As `chrt` takes it.
    scheduling: Option<&'static str>,
    /// Its stderr is a pipe that nobody reads.
    unheard: bool,
    running: Option<Agent>,
}

impl Pair {
    pub fn new() -> Result<Self> {
        Self::with(Options::default())
    }

    pub fn with(options: Options) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("pgconvoy-test-")
            .tempdir()?;
        let source = start_server_of(options.source_bin.clone(), "source", &options)?;
        let target = start_server_of(options.target_bin.clone(), "target", &options)?;
        let pki = folder.path().join("pki");
        let loopback = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        pgconvoy_proto::pki::init(&pki, &loopback, &loopback, 30)?;

        let source_url = options
            .source_url
            .map_or_else(|| source.url(DATABASE), |url| url(&source));
        let source_agent = AgentProcess::new(
            "source",
            folder.path(),
            source_url,
            options.source_pg_bin,
            &options.source_arguments,
        )?;
        let mut more = options.target_arguments.clone();
        let data_dir = folder.path().join("target-data");
        more.extend(["--data-dir".to_owned(), shown(&data_dir)]);
        let target_url = options
            .target_url
            .map_or_else(|| target.url(DATABASE), |url| url(&source, &target));
        let mut target_agent = AgentProcess::new(
            "target",
            folder.path(),
            target_url,
            options.target_pg_bin,
            &more,
        )?;
        target_agent.disk = options.target_disk.map(|bytes| (data_dir, bytes));
        let mut pair = Self {
            source_agent,
            target_agent,
            source,
            target,
            folder,
        };
        if let Some(prepare) = options.before_agents {
            prepare(&pair)?;
        }
        pair.source_agent.start()?;
        pair.target_agent.start()?;
        Ok(pair)
    }

    /// Where everything of this pair but the servers' data lies: logs, run folders, certificates.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn pki(&self) -> PathBuf {
        self.folder().join("pki")
    }

    /// Artefacts of the latest run.
    pub fn latest_run(&self) -> PathBuf {
        self.folder().join("runs/latest")
    }

    /// SQL at the source.
    pub fn at_source(&self, sql: &str) -> Result<String> {
        self.source.psql(DATABASE, sql).context("at the source")
    }

    /// SQL at the target.
    pub fn at_target(&self, sql: &str) -> Result<String> {
        self.target.psql(DATABASE, sql).context("at the target")
    }

    /// Runs `pgconvoy` with what it needs to reach both agents, and waits for it.
    pub fn pgconvoy(&self, arguments: &[&str]) -> Result<Outcome> {
        self.spawn(arguments)?.wait(COMMAND_DEADLINE)
    }

    pub fn spawn(&self, arguments: &[&str]) -> Result<Running> {
        Running::start(self.command(arguments), self.folder())
    }

    /// The command line that [`Pair::pgconvoy`] runs. What `arguments` give themselves is not given again.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = clean_command(&program::path("pgconvoy"));
        let identity = self.pki().join("coordinator.pem");
        let runs = self.folder().join("runs");
        let usual = [
            ("--source", self.source_agent.url()),
            ("--target", self.target_agent.url()),
            ("--identity", shown(&identity)),
            ("--run-dir", shown(&runs)),
        ];
        command.args(arguments).current_dir(self.folder());
        for (flag, value) in usual {
            if !arguments.contains(&flag) {
                command.arg(flag).arg(value);
            }
        }
        command
    }

    /// `migrate` with the usual expectations: it ends proven.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn migrate(&self, arguments: &[&str]) -> Outcome {
        let mut all = vec!["migrate"];
        all.extend(arguments);
        self.pgconvoy(&all).expect("migrate runs").expect(0)
    }
}

/// A server with an empty database [`DATABASE`].
pub fn start_server(name: &str, options: &Options) -> Result<Server> {
    start_server_of(None, name, options)
}

fn start_server_of(bin: Option<PathBuf>, name: &str, options: &Options) -> Result<Server> {
    let mut settings: Vec<(String, String)> = [
        ("fsync", "off"),
        ("full_page_writes", "off"),
        ("max_wal_size", "8GB"),
        ("shared_buffers", "64MB"),
        ("wal_level", "logical"),
        ("log_line_prefix", "%m [%p] %a "),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    settings.extend(options.settings.iter().cloned());
    let server = Server::start(server::Options {
        bin,
        name: format!("test-{name}"),
        superuser: options.superuser.unwrap_or_default().into(),
        password: Some(password(name)),
        settings,
        ..server::Options::default()
    })?;
    server.create_database(DATABASE)?;
    Ok(server)
}

/// Different for every server, and easily searched for. A `+` and a `/` have to be escaped in a URL.
fn password(name: &str) -> String {
    static SERVERS: AtomicU32 = AtomicU32::new(0);
    let number = SERVERS.fetch_add(1, Ordering::Relaxed);
    format!("pw+{name}/{}-{number}-pw", std::process::id())
}

impl AgentProcess {
    fn new(
        role: &'static str,
        folder: &Path,
        database_url: String,
        pg_bin: Option<PathBuf>,
        more: &[String],
    ) -> Result<Self> {
        let identity = folder.join("pki").join(format!("{role}.pem"));
        let mut arguments = vec!["--identity".to_owned(), shown(&identity)];
        if let Some(bin) = pg_bin {
            arguments.extend(["--pg-bin".to_owned(), shown(&bin)]);
        }
        arguments.extend(more.iter().cloned());
        let log = folder.join(format!("{role}-agent.log"));
        Ok(Self {
            role,
            port: free_port()?,
            arguments,
            database_url,
            environment: Vec::new(),
            log,
            disk: None,
            scheduling: None,
            unheard: false,
            running: None,
        })
    }

    pub fn start(&mut self) -> Result<()> {
        let program = program::path(&format!("pgconvoy-{}", self.role));
        let mut command = match (&self.disk, self.scheduling) {
            (None, None) if self.unheard => unheard(&program, &self.log),
            (None, None) => clean_command(&program),
            (None, Some(policy)) => {
                let mut command = clean_command(Path::new("chrt"));
                command.args([policy, "0"]).arg(&program);
                command
            }
            (Some((folder, bytes)), _) => on_small_disk(&program, folder, *bytes)?,
        };
        command
            .arg("--listen")
            .arg(format!("127.0.0.1:{}", self.port))
            .args(&self.arguments)
            .env("PGCONVOY_DATABASE_URL", &self.database_url)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.log.parent().context("a log file is in a folder")?);
        self.running = Some(Agent::start(command, &self.log)?);
        Ok(())
    }

    /// For its next start.
    pub fn set(&mut self, variable: &'static str, value: &str) {
        self.environment.push((variable, value.to_owned()));
    }

    /// The scheduling policy of its next start: `--idle`, as `chrt` takes it.
    pub fn schedule(&mut self, policy: &'static str) {
        self.scheduling = Some(policy);
    }

    /// From its next start on nobody reads its stderr, and what it writes there is an error.
    pub fn lose_stderr(&mut self) {
        self.unheard = true;
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Result<()> {
        self.running
            .as_mut()
            .context("the agent does not run")?
            .kill()
    }

    /// Kills it if it runs, and starts it anew at the same address.
    pub fn restart(&mut self) -> Result<()> {
        self.running = None;
        self.start()
    }

    /// SIGTERM.
    pub fn stop(&mut self) -> Result<()> {
        self.running
            .as_mut()
            .context("the agent does not run")?
            .stop()
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> u32 {
        self.running
            .as_ref()
            .and_then(Agent::pid)
            .expect("the agent runs")
    }

    /// What it printed when it was ready.
    pub fn ready_line(&self) -> &str {
        self.running.as_ref().map_or("", Agent::ready_line)
    }

    /// Everything that it has logged, over all its lives.
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }
}

/// The program, whose stderr is a pipe that was read by its starter alone, until that became the program.
fn unheard(program: &Path, log: &Path) -> Command {
    let lose = "mkfifo \"$0\" && exec 3<>\"$0\" 2>\"$0\" 3<&- && exec \"$@\"";
    let mut command = clean_command(Path::new("sh"));
    command.args(["-c", lose]).arg(log.with_extension("fifo"));
    command.arg(program);
    command
}

/// The program, in a mount namespace of its own in which `folder` is a filesystem of so many bytes. Its process is the one that is started.
fn on_small_disk(program: &Path, folder: &Path, bytes: u64) -> Result<Command> {
    fs::create_dir_all(folder)?;
    let mount = format!("mount -t tmpfs -o size={bytes} none \"$0\" && exec \"$@\"");
    let mut command = clean_command(Path::new("unshare"));
    command.args(["--map-root-user", "--mount", "sh", "-c", &mount]);
    command.arg(folder).arg(program);
    Ok(command)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

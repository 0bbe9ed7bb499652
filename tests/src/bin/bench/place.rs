//! Where it is measured: two servers, each with its own place in the network, and agents that are new for every run.
//!
//! Nothing is left behind: servers, agents and the link end with their values, the folder with the place.
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::thread;

use anyhow::{Context, Result, ensure};
use pgconvoy_tests::demo::agent::{Agent, clean_command};
use pgconvoy_tests::demo::server::{self, Server};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

/// It has this name at both ends.
pub const DATABASE: &str = "bench";

/// Durable, as a server that people use; no more checkpoints than a server for such data would have.
const SETTINGS: [(&str, &str); 4] = [
    ("shared_buffers", "512MB"),
    ("max_wal_size", "4GB"),
    ("max_locks_per_transaction", "256"),
    ("listen_addresses", "*"),
];

/// What a link is like.
#[derive(Clone, Debug)]
pub struct Link {
    /// One way, milliseconds.
    pub delay: String,
    /// Mbit/s.
    pub rate: String,
    /// Percent.
    pub loss: String,
}

impl FromStr for Link {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split('/').collect::<Vec<_>>()[..] {
            [delay, rate, loss] => Ok(Self {
                delay: delay.into(),
                rate: rate.into(),
                loss: loss.into(),
            }),
            _ => Err("not like 25/200/0: milliseconds one way, Mbit/s, percent lost".into()),
        }
    }
}

/// One end: a server, and where in the network it is.
pub struct End {
    pub server: Server,
    host: &'static str,
    namespace: Option<String>,
}

impl End {
    fn start(name: &str, host: &'static str, namespace: Option<String>) -> Result<Self> {
        let options = server::Options {
            name: format!("bench-{name}"),
            settings: SETTINGS.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec(),
            ..server::Options::default()
        };
        let server = inside(namespace.as_deref(), || Server::start(options))??;
        let end = Self {
            server,
            host,
            namespace,
        };
        let mut access = File::options()
            .append(true)
            .open(end.server.folder().join("data/pg_hba.conf"))?;
        writeln!(access, "host all all 10.77.0.0/24 trust")?;
        end.psql("postgres", "SELECT pg_reload_conf()")?;
        Ok(end)
    }

    /// As both ends reach it.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgresql://postgres@{}:{}/{database}",
            self.host,
            self.server.port()
        )
    }

    pub fn psql(&self, database: &str, sql: &str) -> Result<String> {
        inside(self.namespace.as_deref(), || {
            self.server.psql(database, sql)
        })?
    }

    /// A program of PostgreSQL's, at this end.
    pub fn client(&self, name: &str) -> Result<Command> {
        let installed = self.server.installation().program(name);
        Ok(self.at(&if installed.is_file() {
            installed
        } else {
            name.into()
        }))
    }

    /// Any program, at this end, without libpq's variables of the caller.
    pub fn at(&self, program: &Path) -> Command {
        match &self.namespace {
            None => clean_command(program),
            Some(name) => {
                let mut command = clean_command(Path::new("nsenter"));
                command.arg(format!("--net=/run/netns/{name}")).arg(program);
                command
            }
        }
    }

    pub fn renew(&self) -> Result<()> {
        self.psql(
            "postgres",
            &format!("DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)"),
        )?;
        self.psql(
            "postgres",
            &format!("CREATE DATABASE {DATABASE} TEMPLATE template0"),
        )?;
        // What an earlier run left to be written is not this one's burden.
        self.psql("postgres", "CHECKPOINT").map(drop)
    }

    pub fn postmaster(&self) -> Result<u32> {
        self.server.pid().context("the server runs")
    }
}

/// Runs on a thread of its own in a network namespace: what it starts stays there.
fn inside<T: Send>(namespace: Option<&str>, work: impl FnOnce() -> T + Send) -> Result<T> {
    let Some(name) = namespace else {
        return Ok(work());
    };
    let path = format!("/run/netns/{name}");
    let there =
        File::open(&path).with_context(|| format!("{path}: scripts/bench.sh --wan makes it"))?;
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

pub struct Place {
    pub name: String,
    pub source: End,
    pub target: End,
    pub folder: TempDir,
    programs: PathBuf,
    _link: Option<Cable>,
}

impl Place {
    pub fn prepare(
        namespaces: &[String],
        link: Option<&Link>,
        congestion: Option<&str>,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("pgconvoy-bench-")
            .tempdir()?;
        let own = std::env::current_exe()?;
        let programs = own
            .parent()
            .context("the folder of this program")?
            .to_owned();
        let cable = match (link, namespaces) {
            (Some(link), [one, other]) => Some(Cable::lay(&programs, one, other, link)?),
            _ => None,
        };
        let names = ["127.0.0.1", "10.77.0.1", "10.77.0.2"].map(str::to_owned);
        pgconvoy_proto::pki::init(&folder.path().join("pki"), &names, &names, 30)?;
        let (hosts, ends) = match namespaces {
            [one, other] => (["10.77.0.1", "10.77.0.2"], [Some(one), Some(other)]),
            _ => (["127.0.0.1"; 2], [None, None]),
        };
        for namespace in ends.iter().flatten() {
            if let Some(algorithm) = congestion {
                let write = || fs::write("/proc/sys/net/ipv4/tcp_congestion_control", algorithm);
                inside(Some(namespace.as_str()), write)?.context("congestion control")?;
            }
        }
        let [one, other] = ends.map(|name| name.cloned());
        Ok(Self {
            name: match link {
                None => "loopback".into(),
                Some(link) => format!(
                    "{} ms, {} Mbit/s, {} % lost{}",
                    link.delay.parse::<f64>()? * 2.0,
                    link.rate,
                    link.loss,
                    congestion.map_or(String::new(), |name| format!(", {name}"))
                ),
            },
            source: End::start("source", hosts[0], one)?,
            target: End::start("target", hosts[1], other)?,
            folder,
            programs,
            _link: cable,
        })
    }

    pub fn renew_source(&self) -> Result<()> {
        self.source.renew()
    }

    pub fn at_source(&self, sql: &str) -> Result<String> {
        self.source.psql(DATABASE, sql)
    }

    /// What the latest run of `pgconvoy` wrote.
    pub fn latest_events(&self) -> PathBuf {
        self.folder.path().join("runs/latest/events.jsonl")
    }

    /// New agents. Ended when dropped.
    pub fn agents(&self) -> Result<Agents> {
        let data = self.folder.path().join("agent-data");
        if data.exists() {
            fs::remove_dir_all(&data)?;
        }
        let start = |role: &str, end: &End| -> Result<Agent> {
            let mut command = end.at(&self.programs.join(format!("pgconvoy-{role}")));
            command
                .arg("--listen")
                .arg(format!("{}:0", end.host))
                .arg("--identity")
                .arg(self.folder.path().join(format!("pki/{role}.pem")))
                .env("PGCONVOY_DATABASE_URL", end.url(DATABASE))
                .current_dir(self.folder.path());
            if role == "target" {
                command.arg("--data-dir").arg(&data);
            }
            Agent::start(
                command,
                &self.folder.path().join(format!("{role}-agent.log")),
            )
        };
        Ok(Agents {
            source: start("source", &self.source)?,
            target: start("target", &self.target)?,
        })
    }

    /// `pgconvoy COMMAND`, beside the target.
    pub fn pgconvoy(&self, agents: &Agents, command: &str) -> Command {
        let mut pgconvoy = self.target.at(&self.programs.join("pgconvoy"));
        let url = |end: &End, agent: &Agent| format!("https://{}:{}", end.host, agent.port());
        pgconvoy
            .arg(command)
            .args(["--source", &url(&self.source, &agents.source)])
            .args(["--target", &url(&self.target, &agents.target)])
            .arg("--identity")
            .arg(self.folder.path().join("pki/coordinator.pem"))
            .arg("--run-dir")
            .arg(self.folder.path().join("runs"))
            .current_dir(self.folder.path());
        pgconvoy
    }
}

pub struct Agents {
    pub source: Agent,
    pub target: Agent,
}

/// The program that is the link. Killed when dropped.
struct Cable(Child);

impl Cable {
    fn lay(programs: &Path, one: &str, other: &str, link: &Link) -> Result<Self> {
        let mut process = Command::new(programs.join("pgconvoy-link"))
            .args([
                one,
                other,
                "--delay",
                &link.delay,
                "--rate",
                &link.rate,
                "--loss",
                &link.loss,
            ])
            .stdout(Stdio::piped())
            .spawn()
            .context("pgconvoy-link")?;
        let stdout = process.stdout.take().context("its stdout")?;
        let cable = Self(process);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line.trim() == "ready", "the link did not come up");
        Ok(cable)
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        // One that has ended by itself has said why.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

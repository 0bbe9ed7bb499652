//! What the demo is played on: a folder, two servers, a PKI, two agents.
use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::agent::{Agent, clean_command};
use super::server::{self, Server};
use super::{CHECKS, DATABASE, SAMPLE};

const CERTIFICATE_DAYS: u32 = 30;
const LOOPBACK: &str = "127.0.0.1";

/// Fields are dropped in this order: agents before the servers they talk to, the folder last.
pub struct Stage {
    agents: Option<(Agent, Agent)>,
    source: Server,
    target: Server,
    folder: TempDir,
}

impl Stage {
    pub fn with_servers(bin: Option<PathBuf>) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("pgconvoy-demo-")
            .tempdir()?;
        // The servers may run under another user, who has to pass through; nobody may list it.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o711))?;
        let password = random_password()?;
        let start = |name: &str| {
            Server::start(server::Options {
                bin: bin.clone(),
                inside: Some(folder.path().to_path_buf()),
                name: name.to_owned(),
                password: Some(password.clone()),
                settings: vec![
                    ("fsync".to_owned(), "off".to_owned()),
                    ("max_wal_size".to_owned(), "4GB".to_owned()),
                ],
                detached: true,
                ..server::Options::default()
            })
        };
        let source = start("source")?;
        let target = start("target")?;
        source.create_database(DATABASE)?;
        target.create_database(DATABASE)?;
        write_private(
            &folder.path().join("pgpass"),
            &format!("{LOOPBACK}:*:*:postgres:{password}\n"),
        )?;
        Ok(Self {
            agents: None,
            source,
            target,
            folder,
        })
    }

    /// Answers how many rows there are.
    pub fn load_sample(&self, scale: u32) -> Result<String> {
        let file = self.folder().join("sample.sql");
        fs::write(&file, SAMPLE)?;
        fs::write(self.checks(), CHECKS)?;
        self.source
            .psql_file_with(DATABASE, &file, &[("scale", &scale.to_string())])?;
        self.source.psql(
            DATABASE,
            "SELECT sum(reltuples)::bigint FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
             WHERE relkind = 'r' AND nspname IN ('shop', 'billing', 'audit')",
        )
    }

    pub fn start_agents(&mut self) -> Result<()> {
        let here = [LOOPBACK.to_owned(), "localhost".to_owned()];
        pgconvoy_proto::pki::init(&self.pki(), &here, &here, CERTIFICATE_DAYS)?;
        let source = self.start_agent("source", &self.source, &[])?;
        let data = self.folder().join("target-agent");
        let target = self.start_agent("target", &self.target, &["--data-dir".as_ref(), &data])?;
        self.agents = Some((source, target));
        Ok(())
    }

    fn start_agent(&self, role: &str, server: &Server, more: &[&Path]) -> Result<Agent> {
        let program = beside_this_program(&format!("pgconvoy-{role}"))?;
        let mut command = clean_command(&program);
        command
            .args(["--listen", "127.0.0.1:0", "--identity"])
            .arg(self.pki().join(format!("{role}.pem")))
            .arg("--pg-bin")
            .arg(&server.installation().bin)
            .args(more)
            // Not as an argument: those are for everybody to see.
            .env("PGCONVOY_DATABASE_URL", server.url(DATABASE))
            .current_dir(self.folder());
        Agent::start(command, &self.folder().join(format!("{role}-agent.log")))
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn pki(&self) -> PathBuf {
        self.folder().join("pki")
    }

    fn checks(&self) -> PathBuf {
        self.folder().join("checks.toml")
    }

    /// Arguments that make this program run `command` on this stage.
    pub fn arguments(&self, command: &str) -> Vec<String> {
        let mut arguments = vec![command.to_owned()];
        if let Some((source, target)) = &self.agents {
            arguments.extend(["--source".to_owned(), source.url()]);
            arguments.extend(["--target".to_owned(), target.url()]);
        }
        arguments.extend([
            "--identity".to_owned(),
            shown(&self.pki().join("coordinator.pem")),
        ]);
        arguments.extend(["--run-dir".to_owned(), shown(&self.folder().join("runs"))]);
        if command == "migrate" {
            arguments.extend(["--checks".to_owned(), shown(&self.checks())]);
        }
        arguments
    }

    pub fn describe_servers(&self) -> String {
        let mut text = String::new();
        for (name, server) in [("source", &self.source), ("target", &self.target)] {
            let major = server.installation().major;
            let _ = writeln!(
                text,
                "      {name}: PostgreSQL {major} on {LOOPBACK}:{}",
                server.port()
            );
        }
        text
    }

    pub fn describe_agents(&self) -> String {
        let agents = self
            .agents
            .iter()
            .flat_map(|(source, target)| [source, target]);
        agents
            .map(|agent| format!("      {}\n", agent.ready_line()))
            .collect()
    }

    /// For `--keep`: command lines to paste.
    pub fn how_to_look(&self) -> Result<String> {
        let stop = self.write_stop_script()?;
        let pgpass = shown(&self.folder().join("pgpass"));
        let program = std::env::current_exe()?;
        let mut text = String::new();
        for (name, server) in [("source", &self.source), ("target", &self.target)] {
            let psql = server.installation().program("psql");
            let url = server.url_as("postgres", None, DATABASE);
            let _ = writeln!(
                text,
                "  the {name} database:\n    PGPASSFILE={pgpass} {} {url}",
                shown(&psql)
            );
        }
        for command in ["status", "report", "verify"] {
            let arguments = self.arguments(command).join(" ");
            let _ = writeln!(text, "  {command}:\n    {} {arguments}", shown(&program));
        }
        let _ = writeln!(
            text,
            "  logs and artefacts:\n    ls {}",
            shown(self.folder())
        );
        let _ = writeln!(
            text,
            "  stop all of it and remove its files:\n    {}",
            shown(&stop)
        );
        Ok(text)
    }

    fn write_stop_script(&self) -> Result<PathBuf> {
        let agents = self
            .agents
            .iter()
            .flat_map(|(source, target)| [source.pid(), target.pid()]);
        let servers = [self.source.pid(), self.target.pid()];
        let list = |pids: Vec<u32>| {
            pids.iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let agents = list(agents.flatten().collect());
        let servers = list(servers.into_iter().flatten().collect());
        let folder = shown(self.folder());
        // SIGINT: PostgreSQL's fast shutdown.
        let script = format!(
            "#!/bin/sh\n\
             kill {agents}\n\
             kill -INT {servers}\n\
             for pid in {agents} {servers}; do while kill -0 $pid 2>/dev/null; do sleep 0.1; done; done\n\
             rm -rf '{folder}'\n"
        );
        let path = self.folder().join("stop.sh");
        fs::write(&path, script)?;
        fs::set_permissions(&path, Permissions::from_mode(0o700))?;
        Ok(path)
    }

    pub fn stop(mut self) -> Result<()> {
        if let Some((mut source, mut target)) = self.agents.take() {
            source.stop()?;
            target.stop()?;
        }
        Ok(())
    }

    /// Everything goes on without us.
    pub fn keep(self) {
        if let Some((source, target)) = self.agents {
            source.keep();
            target.keep();
        }
        self.source.keep();
        self.target.keep();
        let _ = self.folder.keep();
    }
}

/// The agents are installed where this program is.
fn beside_this_program(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe().context("where this program lives is unknown")?;
    let path = this.with_file_name(name);
    ensure!(
        path.is_file(),
        "{} is missing; build or install all three programs: cargo build --workspace",
        path.display()
    );
    Ok(path)
}

fn random_password() -> Result<String> {
    let mut bytes = [0_u8; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    Ok(())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

//! A throw-away PostgreSQL server on a loopback port of its own. It listens nowhere else, and nothing of it is left when
//! the value is dropped: the process is ended by its own pid, its folder removed.
//!
//! The coordinator links no PostgreSQL client: what is asked of the server goes through `psql`.
use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{Seek, SeekFrom, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use super::installation::Installation;

const START_DEADLINE: Duration = Duration::from_secs(60);
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// Ports below the range that the kernel hands out by itself, so that nobody takes one while its server restarts.
const PORTS: std::ops::Range<u32> = 15_000..32_000;
/// A unix socket's path may have 107 bytes, its name included.
const LONGEST_SOCKET_FOLDER: usize = 85;

/// What a server shall be like.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Folder with initdb and postgres; without it the newest found is taken.
    pub bin: Option<PathBuf>,
    /// The server's folder is made inside this one; without it in the system's temporary folder.
    pub inside: Option<PathBuf>,
    /// Name of the folder, for people who look.
    pub name: String,
    /// Name of the superuser; empty: `postgres`.
    pub superuser: String,
    /// Password of the superuser: every connection has to give it (SCRAM). Without it everybody on loopback is trusted.
    pub password: Option<String>,
    /// Settings for the server's command line.
    pub settings: Vec<(String, String)>,
    /// Stays out of the terminal's process group, so that Ctrl-C reaches only the caller.
    pub detached: bool,
}

/// A running server, or one that [`Server::stop_immediate`] has stopped.
#[derive(Debug)]
pub struct Server {
    installation: Installation,
    folder: Option<TempDir>,
    port: u16,
    options: Options,
    process: Option<Child>,
}

impl Server {
    /// Makes a cluster, starts it and returns when it takes connections.
    pub fn start(options: Options) -> Result<Self> {
        let installation = Installation::find(options.bin.as_deref())?;
        let folder = make_folder(&options)?;
        let superuser = superuser(&options);
        initdb(
            &installation,
            folder.path(),
            superuser,
            options.password.as_deref(),
        )?;
        let mut server = Self {
            installation,
            folder: Some(folder),
            port: 0,
            options,
            process: None,
        };
        server.launch_on_a_free_port()?;
        Ok(server)
    }

    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The postmaster's process.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    pub fn folder(&self) -> &Path {
        self.folder
            .as_ref()
            .expect("a server has its folder until it is dropped")
            .path()
    }

    fn log_file(&self) -> PathBuf {
        self.folder().join("server.log")
    }

    pub fn log(&self) -> String {
        fs::read(self.log_file())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    pub fn superuser(&self) -> &str {
        superuser(&self.options)
    }

    /// Connection URL of the superuser, with the password when there is one.
    pub fn url(&self, database: &str) -> String {
        self.url_as(self.superuser(), self.options.password.as_deref(), database)
    }

    pub fn url_as(&self, user: &str, password: Option<&str>, database: &str) -> String {
        let secret = password.map_or_else(String::new, |secret| format!(":{}", escape(secret)));
        format!(
            "postgresql://{}{secret}@127.0.0.1:{}/{}",
            escape(user),
            self.port,
            escape(database)
        )
    }

    /// Runs SQL (several statements, each its own transaction) as the superuser; answers what psql prints, unaligned
    /// and without headings. The first error ends it.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String> {
        self.psql_as(
            self.superuser(),
            self.options.password.as_deref(),
            database,
            sql,
        )
    }

    pub fn psql_as(
        &self,
        user: &str,
        password: Option<&str>,
        database: &str,
        sql: &str,
    ) -> Result<String> {
        // Through a file and not an argument: the SQL may be long.
        let mut input = tempfile::tempfile()?;
        input.write_all(sql.as_bytes())?;
        input.seek(SeekFrom::Start(0))?;
        let mut command = self.psql_command_as(user, password, database);
        command.arg("-f").arg("-").stdin(input);
        let output = command.output().context("psql could not be started")?;
        finished("psql", &output)
    }

    pub fn psql_file(&self, database: &str, file: &Path) -> Result<String> {
        self.psql_file_with(database, file, &[])
    }

    /// The same with variables of psql's.
    pub fn psql_file_with(
        &self,
        database: &str,
        file: &Path,
        variables: &[(&str, &str)],
    ) -> Result<String> {
        let mut command = self.psql_command(database);
        for (name, value) in variables {
            command.arg("-v").arg(format!("{name}={value}"));
        }
        let output = command.arg("-f").arg(file).output()?;
        finished(&format!("psql -f {}", file.display()), &output)
    }

    /// A psql command line, for callers that feed it or keep it running.
    pub fn psql_command(&self, database: &str) -> Command {
        self.psql_command_as(self.superuser(), self.options.password.as_deref(), database)
    }

    fn psql_command_as(&self, user: &str, password: Option<&str>, database: &str) -> Command {
        let mut command = self.installation.command("psql");
        command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d"]);
        command.arg(self.url_as(user, None, database));
        if let Some(secret) = password {
            command.env("PGPASSWORD", secret);
        }
        command
    }

    pub fn create_database(&self, name: &str) -> Result<()> {
        let quoted = name.replace('"', "\"\"");
        self.psql(
            "postgres",
            &format!("CREATE DATABASE \"{quoted}\" TEMPLATE template0 ENCODING 'UTF8'"),
        )
        .map(drop)
    }

    /// As if the machine had lost its power: no checkpoint; the next start recovers from the log.
    pub fn stop_immediate(&mut self) -> Result<()> {
        self.stop(Signal::QUIT)
    }

    /// Starts a stopped server again (a running one is stopped first, clients disconnected), on the same port.
    pub fn restart(&mut self) -> Result<()> {
        self.stop(Signal::INT)?;
        self.launch()
    }

    /// Leaves the server running and its folder in place when the value is dropped.
    pub fn keep(mut self) -> PathBuf {
        self.process = None;
        let folder = self
            .folder
            .take()
            .expect("a server has its folder until it is dropped");
        folder.keep()
    }

    fn launch_on_a_free_port(&mut self) -> Result<()> {
        for _ in 0..5 {
            self.port = free_port()?;
            match self.launch() {
                // Somebody was quicker.
                Err(_) if self.log().contains("Address already in use") => {
                    fs::write(self.log_file(), "")?;
                }
                outcome => return outcome,
            }
        }
        bail!("no free port was found for PostgreSQL")
    }

    fn launch(&mut self) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file())?;
        let mut command = self.installation.command("postgres");
        command
            .arg("-D")
            .arg(self.folder().join("data"))
            .args(["-p", &self.port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1"])
            .arg("-c")
            .arg(format!(
                "unix_socket_directories={}",
                socket_folder(self.folder())
            ))
            .args(["-c", "logging_collector=off"]);
        for (name, value) in &self.options.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.stdout(log.try_clone()?).stderr(log);
        if self.options.detached {
            command.process_group(0);
        }
        drop_privileges(&mut command)?;
        let process = command.spawn().context("postgres could not be started")?;
        self.process = Some(process);
        self.wait_until_ready()
    }

    /// Polls, because PostgreSQL tells nobody when it is ready.
    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        let port = self.port.to_string();
        loop {
            let process = self
                .process
                .as_mut()
                .context("the server was not started")?;
            if let Some(status) = process.try_wait()? {
                self.process = None;
                bail!(
                    "postgres ended with {status}; its log says:\n{}",
                    self.log()
                );
            }
            let ready = self
                .installation
                .command("pg_isready")
                .args(["-q", "-h", "127.0.0.1", "-p", &port, "-d", "postgres"])
                .status()?;
            if ready.success() {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "postgres was not ready within {START_DEADLINE:?}; its log says:\n{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(&mut self, signal: Signal) -> Result<()> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        end(&mut process, signal, STOP_DEADLINE)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing in it is worth a checkpoint, and a failure here has nobody to tell.
        let _ = self.stop(Signal::QUIT);
    }
}

/// Sends a signal and waits; a process that ignores it past the deadline is killed.
pub fn end(process: &mut Child, signal: Signal, deadline: Duration) -> Result<()> {
    if process.try_wait()?.is_some() {
        return Ok(());
    }
    let pid = i32::try_from(process.id())
        .ok()
        .and_then(Pid::from_raw)
        .context("a process id out of range")?;
    // It may have ended by itself since: then there is nothing to signal.
    let _ = kill_process(pid, signal);
    let deadline = Instant::now() + deadline;
    while process.try_wait()?.is_none() {
        if Instant::now() > deadline {
            process.kill()?;
            process.wait()?;
            return Ok(());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A loopback port that nobody listens on, and that this process has not handed out before.
pub fn free_port() -> Result<u16> {
    static HANDED_OUT: AtomicU32 = AtomicU32::new(0);
    // Processes that start together begin at different places.
    let start = std::process::id().wrapping_mul(2_654_435_761) >> 12;
    for _ in 0..1000 {
        let turn = HANDED_OUT.fetch_add(1, Ordering::Relaxed);
        let offset = start.wrapping_add(turn) % (PORTS.end - PORTS.start);
        let port = u16::try_from(PORTS.start + offset)?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between {} and {}", PORTS.start, PORTS.end)
}

fn make_folder(options: &Options) -> Result<TempDir> {
    let prefix = match options.name.as_str() {
        "" => "pgconvoy-server-".to_owned(),
        name => format!("pgconvoy-{name}-"),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix);
    let folder = match &options.inside {
        Some(parent) => builder.tempdir_in(parent)?,
        None => builder.tempdir()?,
    };
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700))?;
    if let Some((uid, gid)) = unprivileged()? {
        chown(folder.path(), Some(uid), Some(gid))?;
    }
    Ok(folder)
}

fn superuser(options: &Options) -> &str {
    match options.superuser.as_str() {
        "" => "postgres",
        name => name,
    }
}

fn initdb(
    installation: &Installation,
    folder: &Path,
    superuser: &str,
    password: Option<&str>,
) -> Result<()> {
    let locales = ["C.UTF-8", "C"];
    let mut refusals = String::new();
    for locale in locales {
        let mut command = installation.command("initdb");
        command
            .args(["-U", superuser, "-E", "UTF8", "--no-sync"])
            .arg(format!("--locale={locale}"))
            .arg("-D")
            .arg(folder.join("data"))
            .current_dir(folder);
        match password {
            None => command.args(["-A", "trust"]),
            Some(secret) => command
                .args(["-A", "scram-sha-256"])
                .arg("--pwfile")
                .arg(password_file(folder, secret)?),
        };
        drop_privileges(&mut command)?;
        let output = command.output().context("initdb could not be started")?;
        if output.status.success() {
            return Ok(());
        }
        let _ = write!(
            refusals,
            "{locale}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    bail!("initdb failed: {refusals}")
}

/// In the server's own folder, which nobody else may enter; gone with it.
fn password_file(folder: &Path, secret: &str) -> Result<PathBuf> {
    let path = folder.join("password");
    fs::write(&path, secret)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    if let Some((uid, gid)) = unprivileged()? {
        chown(&path, Some(uid), Some(gid))?;
    }
    Ok(path)
}

fn socket_folder(folder: &Path) -> String {
    let path = folder.to_string_lossy().into_owned();
    if path.len() > LONGEST_SOCKET_FOLDER {
        String::new()
    } else {
        path
    }
}

/// PostgreSQL refuses to run as root.
fn drop_privileges(command: &mut Command) -> Result<()> {
    if let Some((uid, gid)) = unprivileged()? {
        command.uid(uid).gid(gid);
    }
    Ok(())
}

/// User and group for the server when we are root; nobody else may change to another user, or has to.
fn unprivileged() -> Result<Option<(u32, u32)>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let accounts = fs::read_to_string("/etc/passwd")?;
    let account = account(&accounts, "postgres").or_else(|| account(&accounts, "nobody"));
    match account {
        Some(ids) => Ok(Some(ids)),
        None => bail!(
            "PostgreSQL does not run as root, and this machine has neither a user `postgres` nor `nobody`"
        ),
    }
}

fn account(accounts: &str, name: &str) -> Option<(u32, u32)> {
    let fields = accounts
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.len() > 3 && fields[0] == name)?;
    Some((fields[2].parse().ok()?, fields[3].parse().ok()?))
}

fn finished(what: &str, output: &Output) -> Result<String> {
    ensure!(
        output.status.success(),
        "{what}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.trim_end_matches('\n').to_owned())
}

/// For the parts of a connection URL.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::{account, escape};

    #[test]
    fn the_parts_of_a_url_are_escaped() {
        assert_eq!(escape("plain_1.0~x-y"), "plain_1.0~x-y");
        assert_eq!(escape("p@ss:w/rd ü"), "p%40ss%3Aw%2Frd%20%C3%BC");
    }

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let accounts = "postgresx:x:7:8::/:/bin/sh\npostgres:x:101:104:admin,,:/var:/bin/bash\n";
        assert_eq!(account(accounts, "postgres"), Some((101, 104)));
        assert_eq!(account(accounts, "nobody"), None);
    }
}

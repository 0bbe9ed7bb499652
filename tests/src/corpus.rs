//! Databases to test with that are not part of this repository: `../shared/corpus`, beside its root. A test that cannot find
//! what it needs there says so aloud and leaves it out; every claim is also proven on databases of the suite's own.
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use pgconvoy_coordinator::demo::server::Server;

use crate::say_aloud;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus")
}

/// A file of the corpus, if it is there; else says that `purpose` is left out.
pub fn file(name: &str, purpose: &str) -> Option<PathBuf> {
    let path = folder().join(name);
    if path.is_file() {
        return Some(path);
    }
    say_aloud(&format!(
        "../shared/corpus/{name} is not there: left out {purpose}"
    ));
    None
}

/// Loads `NAME.sql.xz` of the samples. Answers false when the corpus is not there.
pub fn load_sample(server: &Server, database: &str, name: &str) -> Result<bool> {
    let file = file(
        &format!("samples/{name}.sql.xz"),
        &format!("the migration of {name}"),
    );
    let Some(file) = file else { return Ok(false) };
    let mut unpack = std::process::Command::new("xz")
        .arg("-dc")
        .arg(&file)
        .stdout(Stdio::piped())
        .spawn()
        .context("xz could not be started: install xz-utils")?;
    let sql = unpack.stdout.take().context("stdout is piped")?;
    let output = server
        .psql_command(database)
        .arg("-f")
        .arg("-")
        .stdin(sql)
        .output()?;
    ensure!(unpack.wait()?.success(), "xz failed on {}", file.display());
    ensure!(
        output.status.success(),
        "{name} could not be loaded: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(true)
}

//! The run folder: artefacts of one migration, for people and for the archive. Nothing is read back from it: the ledger is the only truth.
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::Context;
use pgconvoy_proto::model::Selection;
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::source_client::SourceClient;
use pgconvoy_proto::wire::target_client::TargetClient;
use serde_json::Value;
use tokio_stream::StreamExt;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::ends::said;
use crate::events::Reporter;
use crate::ledger::Ledger;
use crate::report;

#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
}

/// Whether runs can leave their artefacts under this folder, or why not: tried where it is, or where it would be made.
pub fn is_writable(parent: &Path) -> Result<(), String> {
    let mut there = parent;
    while !there.exists() {
        there = match there.parent() {
            Some(up) if !up.as_os_str().is_empty() => up,
            _ => Path::new("."),
        };
    }
    // The file is gone when it is dropped.
    let tried = tempfile::NamedTempFile::new_in(there);
    tried.map(drop).map_err(|error| error.to_string())
}

impl RunDir {
    /// Makes the migration's folder and points `latest` at it.
    pub fn create(parent: &Path, migration: &str) -> anyhow::Result<Self> {
        let path = parent.join(migration);
        let cannot = || format!("--run-dir {}: cannot write there", parent.display());
        fs::create_dir_all(&path).with_context(cannot)?;
        let (latest, new) = (parent.join("latest"), parent.join(".latest.new"));
        if new.is_symlink() {
            fs::remove_file(&new).with_context(cannot)?;
        }
        symlink(migration, &new).with_context(cannot)?;
        fs::rename(&new, &latest).with_context(cannot)?;
        Ok(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `events.jsonl`, to append to.
    pub fn events(&self) -> anyhow::Result<File> {
        let path = self.path.join("events.jsonl");
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| path.display().to_string())
    }

    fn write(&self, name: &str, content: &str) -> anyhow::Result<()> {
        let path = self.path.join(name);
        fs::write(&path, content).with_context(|| path.display().to_string())
    }

    /// What there is to say of the migration: summary.txt, verification.json, report.html. What they are about is done, and its verdict is in
    /// the ledger, whether or not the folder takes them.
    pub fn write_report(&self, ledger: &Ledger, verification: &Value, reporter: &Reporter) {
        let write = || {
            self.write("summary.txt", &report::text(ledger))?;
            self.write_json("verification.json", verification)?;
            self.write("report.html", &report::html(ledger))
        };
        if let Err(error) = write() {
            reporter.note(format!(
                "the report could not be written ({error:#}): pgconvoy report --html FILE makes it again"
            ));
        }
    }

    /// How something ended. It is done, whether or not the folder takes this.
    pub fn write_result(&self, name: &str, result: &Value, reporter: &Reporter) {
        if let Err(error) = self.write_json(name, result) {
            reporter.note(format!("{name} could not be written ({error:#})"));
        }
    }

    fn write_json(&self, name: &str, value: &Value) -> anyhow::Result<()> {
        self.write(name, &serde_json::to_string_pretty(value)?)
    }

    /// rls_policies.sql and storage_config.sql, from the source.
    pub async fn fetch_source_artefacts(
        &self,
        source: &mut SourceClient<Channel>,
        selection: &Selection,
    ) -> anyhow::Result<()> {
        let request = wire::SourceArtefactsRequest {
            selection: Some(selection.clone().into()),
        };
        let artefacts = source.artefacts(request).await.map_err(said("source"))?;
        self.receive(artefacts.into_inner(), "source").await
    }

    /// schema.sql, from the target agent's archive.
    pub async fn fetch_artefacts(
        &self,
        target: &mut TargetClient<Channel>,
        migration: &str,
    ) -> anyhow::Result<()> {
        let request = wire::ArtefactsRequest {
            migration: migration.to_owned(),
        };
        let artefacts = target.artefacts(request).await.map_err(said("target"))?;
        self.receive(artefacts.into_inner(), "target").await
    }

    async fn receive(
        &self,
        mut artefacts: Streaming<wire::Artefact>,
        agent: &'static str,
    ) -> anyhow::Result<()> {
        let mut open: Option<(String, File)> = None;
        while let Some(artefact) = artefacts.next().await {
            let artefact = artefact.map_err(said(agent))?;
            let name = &artefact.name;
            anyhow::ensure!(
                !name.contains('/') && !name.starts_with('.'),
                "the {agent} agent sent an artefact with the name {name:?}"
            );
            let mut file = match open.take() {
                Some((opened, file)) if opened == *name => file,
                _ => File::create(self.path.join(name)).with_context(|| name.clone())?,
            };
            file.write_all(&artefact.data)
                .with_context(|| name.clone())?;
            open = Some((artefact.name, file));
        }
        Ok(())
    }
}

//! The ledger as the coordinator sees it: what was planned, and what of it is done.
use std::collections::HashMap;

use anyhow::anyhow;
use pgconvoy_proto::model::{
    Digest, Finding, Malformed, Oid, Options, Part, SCHEMA_COMPARED, Severity, Step, SyncUnderWay,
    Table, parse_json, required,
};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::ledger_item::Item;
use pgconvoy_proto::wire::target_client::TargetClient;
use serde::Serialize;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::ends::said;
use crate::verdict::Verdict;

#[derive(Clone, Debug)]
pub struct Ledger {
    pub id: String,
    pub options: Options,
    pub snapshot: String,
    pub source: String,
    pub target: String,
    pub phase: String,
    /// None while unfinished.
    pub verdict: Option<Verdict>,
    pub created_at: String,
    pub finished_at: String,
    pub archive_received: bool,
    /// A sync that has begun to change the target, and has not ended.
    pub sync: Option<SyncUnderWay>,
    /// What crossed the network, by snapshot.
    pub crossed: Vec<Crossed>,
    /// None: no file was carried.
    pub objects: Option<Objects>,
    pub tables: Vec<TableEntry>,
    pub steps: Vec<StepEntry>,
    pub findings: Vec<Finding>,
}

/// Bytes that crossed the network under one snapshot, after compression.
#[derive(Clone, Debug, Serialize)]
pub struct Crossed {
    pub snapshot: String,
    /// Of parts that were loaded.
    pub parts: u64,
    /// Of tables that were synced: pairs and rows.
    pub syncs: u64,
}

/// Files of storage buckets.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Objects {
    pub copied: u64,
    pub bytes: u64,
    /// Read back and equal to what the source agent read.
    pub proven: u64,
    /// Rows without a file at the source.
    pub missing: u64,
    /// What the target's Storage API does not take.
    pub refused: u64,
    pub seconds: f64,
}

impl Objects {
    pub fn entries(&self) -> u64 {
        self.copied + self.missing + self.refused
    }
}

#[derive(Clone, Debug)]
pub struct TableEntry {
    pub table: Table,
    /// The snapshot that its rows are of.
    pub snapshot: String,
    /// As the source agent read it, where that was not the sum of the parts.
    pub read_at_source: Option<Digest>,
    pub target: Option<Digest>,
    /// Parts that are loaded under `snapshot`, by number; of a table that is to converge, under any.
    pub parts: HashMap<u32, Digest>,
    /// As the migration left the table.
    left: Option<Digest>,
    /// Holds rows of several snapshots: to be synced before its keys are built.
    pub converge: bool,
    /// The table is unlogged and the server crashed since it was loaded.
    pub void: bool,
    /// From the first part's begin to the last part's commit, summed.
    pub seconds: f64,
}

impl TableEntry {
    /// Parts that are not loaded yet.
    pub fn missing(&self, part_bytes: u64) -> Vec<Part> {
        if self.read_at_source.is_some() && !self.void {
            return Vec::new();
        }
        let all = self.table.parts(part_bytes).into_iter();
        all.filter(|part| self.void || !self.parts.contains_key(&part.number))
            .collect()
    }

    /// What must still be true of the target's table if nobody but us has written to it; none: that cannot be told.
    pub fn left(&self) -> Option<Digest> {
        let loaded = || (!self.parts.is_empty() && !self.converge).then(|| self.loaded());
        self.left.or_else(loaded).filter(|_| !self.void)
    }

    fn loaded(&self) -> Digest {
        let add = |mut sum: Digest, part: &Digest| {
            sum += *part;
            sum
        };
        self.parts.values().fold(Digest::default(), add)
    }

    /// The source's digest: as its agent read it, or of the parts that it sent.
    pub fn source(&self) -> Digest {
        self.read_at_source.unwrap_or_else(|| self.loaded())
    }
}

#[derive(Clone, Debug)]
pub struct StepEntry {
    pub step: Step,
    pub state: String,
    pub error: String,
    pub seconds: f64,
}

impl StepEntry {
    pub fn is_done(&self) -> bool {
        self.state == "done"
    }
}

impl Ledger {
    /// Whether the schemas of both ends were compared before.
    pub fn is_compared(&self) -> bool {
        self.findings.iter().any(|f| f.code == SCHEMA_COMPARED)
    }

    /// Reads the ledger of a migration, of the latest when none is named.
    pub async fn read(
        target: &mut TargetClient<Channel>,
        migration: Option<&str>,
    ) -> anyhow::Result<Self> {
        Ok(Self::ask(target, migration).await?)
    }

    /// The same; none where there is no such migration, or no ledger at all.
    pub async fn find(
        target: &mut TargetClient<Channel>,
        migration: Option<&str>,
    ) -> anyhow::Result<Option<Self>> {
        match Self::ask(target, migration).await {
            Ok(ledger) => Ok(Some(ledger)),
            Err(Unread::Refused(status)) if status.code() == Code::NotFound => Ok(None),
            Err(unread) => Err(unread.into()),
        }
    }

    async fn ask(
        target: &mut TargetClient<Channel>,
        migration: Option<&str>,
    ) -> Result<Self, Unread> {
        let request = wire::ReadLedgerRequest {
            migration: migration.unwrap_or_default().into(),
        };
        let mut items = target.read_ledger(request).await?.into_inner();
        let mut ledger: Option<Self> = None;
        let mut places = HashMap::new();
        while let Some(item) = items.message().await? {
            let item = required(item.item, "ledger item")?;
            match (item, &mut ledger) {
                (Item::Header(header), None) => ledger = Some(Self::from_header(header)?),
                (Item::Table(entry), Some(ledger)) => {
                    let entry = table_entry(entry)?;
                    places.insert(entry.table.oid, ledger.tables.len());
                    ledger.tables.push(entry);
                }
                (Item::Part(part), Some(ledger)) => ledger.add_part(&places, part)?,
                (Item::Step(entry), Some(ledger)) => ledger.steps.push(StepEntry {
                    step: required(entry.step, "step")?.try_into()?,
                    state: entry.state,
                    error: entry.error,
                    seconds: entry.seconds,
                }),
                (Item::Finding(finding), Some(ledger)) => ledger.findings.push(finding.try_into()?),
                (Item::Header(_), Some(_)) | (_, None) => {
                    return Err(anyhow!("the target agent sent a ledger without order").into());
                }
            }
        }
        Ok(ledger.ok_or_else(|| anyhow!("the target agent sent an empty ledger"))?)
    }

    fn from_header(header: wire::LedgerHeader) -> anyhow::Result<Self> {
        let mut options: Options = parse_json(&header.options)?;
        options.part_bytes = options.part_bytes.max(1);
        Ok(Self {
            id: header.id,
            options,
            snapshot: header.snapshot,
            source: header.source,
            target: header.target,
            phase: header.phase,
            verdict: Verdict::of_ledger(&header.verdict),
            created_at: header.created_at,
            finished_at: header.finished_at,
            archive_received: header.archive_received,
            sync: match header.sync.as_str() {
                "" => None,
                sync => Some(parse_json(sync)?),
            },
            crossed: header.crossed.into_iter().map(Into::into).collect(),
            objects: header.objects.map(Into::into),
            tables: Vec::new(),
            steps: Vec::new(),
            findings: Vec::new(),
        })
    }

    fn add_part(
        &mut self,
        places: &HashMap<Oid, usize>,
        part: wire::LedgerPart,
    ) -> anyhow::Result<()> {
        let at = places
            .get(&part.table)
            .ok_or_else(|| anyhow!("the ledger has a part of an unplanned table"))?;
        let table = &mut self.tables[*at];
        table.void |= part.void;
        table.seconds += part.seconds;
        // Adopted under a new snapshot, a table keeps the parts of its old one.
        if (part.snapshot == table.snapshot || table.converge)
            && let Some(digest) = part.digest
        {
            table.parts.insert(part.number, digest.try_into()?);
        }
        Ok(())
    }

    pub fn table(&self, oid: Oid) -> Option<&TableEntry> {
        self.tables.iter().find(|entry| entry.table.oid == oid)
    }

    pub fn missing_parts(&self) -> usize {
        let each = |entry: &TableEntry| entry.missing(self.options.part_bytes).len();
        self.tables.iter().map(each).sum()
    }

    pub fn to_converge(&self) -> usize {
        let open = |entry: &&TableEntry| entry.converge;
        self.tables.iter().filter(open).count()
    }

    pub fn differences(&self) -> usize {
        self.findings
            .iter()
            .filter(|f| f.severity == Severity::Difference)
            .count()
    }

    pub fn warnings(&self) -> usize {
        self.findings
            .iter()
            .filter(|f| f.severity == Severity::Warning)
            .count()
    }
}

/// Why a ledger was not read.
enum Unread {
    Refused(Status),
    Malformed(anyhow::Error),
}

impl From<Status> for Unread {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

impl From<anyhow::Error> for Unread {
    fn from(error: anyhow::Error) -> Self {
        Self::Malformed(error)
    }
}

impl From<Malformed> for Unread {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error.into())
    }
}

impl From<Unread> for anyhow::Error {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Refused(status) => said("target")(status),
            Unread::Malformed(error) => error,
        }
    }
}

impl From<wire::SnapshotBytes> for Crossed {
    fn from(bytes: wire::SnapshotBytes) -> Self {
        Self {
            snapshot: bytes.snapshot,
            parts: bytes.parts,
            syncs: bytes.syncs,
        }
    }
}

impl From<wire::ObjectsSummary> for Objects {
    fn from(summary: wire::ObjectsSummary) -> Self {
        Self {
            copied: summary.copied,
            bytes: summary.bytes,
            proven: summary.proven,
            missing: summary.missing,
            refused: summary.refused,
            seconds: summary.seconds,
        }
    }
}

fn table_entry(entry: wire::LedgerTable) -> anyhow::Result<TableEntry> {
    Ok(TableEntry {
        table: required(entry.table, "table")?.try_into()?,
        snapshot: entry.snapshot,
        read_at_source: entry.source_digest.map(TryInto::try_into).transpose()?,
        target: entry.target_digest.map(TryInto::try_into).transpose()?,
        left: entry.left_digest.map(TryInto::try_into).transpose()?,
        converge: entry.converge,
        parts: HashMap::new(),
        void: false,
        seconds: 0.0,
    })
}

//! Rows, compared: by table, and of those that differ by row.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use pgconvoy_proto::model::{Buckets, Digest, Finding, Oid, Table};
use pgconvoy_proto::wire::target_digest_request::Keep;

use crate::digest::{Digester, Held, compare, compare_generated};
use crate::narrow::{self, Detail, Differing};
use crate::workers::each;

/// The source's digest of each table that was read.
pub type Digests = HashMap<Oid, Digest>;

/// A comparison of rows: what it reads, and how far down it goes.
#[derive(Clone)]
pub struct Comparison {
    pub digester: Digester,
    pub held: Held,
    /// None: by tables only.
    pub detail: Option<Detail>,
}

impl Comparison {
    /// Compares the tables, several at once; then, one by one, the rows of those that differ.
    pub async fn tables(&self, tables: &[Table]) -> anyhow::Result<(Digests, Vec<Finding>)> {
        let compared: Arc<Mutex<Vec<Compared>>> = Arc::default();
        let work = {
            let (comparison, compared) = (self.clone(), compared.clone());
            move |table: Table| {
                let (comparison, compared) = (comparison.clone(), compared.clone());
                async move {
                    let result = comparison.table(table).await?;
                    compared
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(result);
                    Ok(())
                }
            }
        };
        each(tables.to_vec(), self.digester.jobs, work).await?;
        let mut compared =
            std::mem::take(&mut *compared.lock().unwrap_or_else(PoisonError::into_inner));
        compared.sort_by_cached_key(|table| tables.iter().position(|t| t.oid == table.oid));
        let mut digests = Digests::new();
        let mut findings = Vec::new();
        for table in compared {
            digests.insert(table.oid, table.source);
            let Some(mut finding) = table.finding else {
                continue;
            };
            let mut rows = Vec::new();
            if let (Some(detail), Some(differing)) = (self.detail, table.differing) {
                let narrowed =
                    narrow::narrow(&self.digester, &self.held, &differing, detail).await?;
                finding.message = format!("{}: {}", finding.message, narrowed.summary);
                rows = narrowed.rows;
            }
            findings.push(finding);
            findings.extend(rows);
        }
        Ok((digests, findings))
    }

    async fn table(&self, table: Table) -> anyhow::Result<Compared> {
        let buckets = match self.detail {
            Some(_) => narrow::buckets_for(&table),
            None => 0,
        };
        let (source, target) = tokio::try_join!(
            self.digester.source(&self.held, &table, buckets),
            self.digester.target(&table, buckets, Keep::Seen)
        )?;
        let finding = compare(
            &self.digester.reporter,
            &table,
            source.digest,
            target.digest,
        );
        let differing = finding.as_ref().map(|_| Differing {
            rows: source.digest.rows.max(target.digest.rows),
            buckets: Buckets::differing(&source.buckets, &target.buckets),
            table: table.clone(),
        });
        Ok(Compared {
            oid: table.oid,
            source: source.digest,
            finding: finding.or_else(|| compare_generated(&table, &source, &target)),
            differing,
        })
    }
}

/// How a table compares.
struct Compared {
    oid: Oid,
    source: Digest,
    finding: Option<Finding>,
    differing: Option<Differing>,
}

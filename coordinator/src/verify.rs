//! `verify`: both agents read their databases again, and the digests are compared. The source reads all tables under one
//! snapshot. With --detailed, tables that differ are narrowed down to rows (see `narrow`).
mod critical;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::bail;
use pgconvoy_proto::model::{
    Buckets, Check, Digest, Finding, OF_COMPARISON, Oid, Options, RoleChoice, Selection, Severity,
    Table,
};
use pgconvoy_proto::selection::Filter;
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::target_digest_request::Keep;

use crate::cli::{Global, VerifyArgs};
use crate::ends::{self, Ends, said};
use crate::events::{Event, Reporter};
use crate::inventory::{self, Inventory, Lease};
use crate::ledger::Ledger;
use crate::live::{self, Live};
use crate::narrow::{self, Detail, Differing};
use crate::objects::{self, Carrier};
use crate::phases::verify::{Digester, Held, compare, compare_generated, each};
use crate::run_dir::RunDir;
use crate::schema::{self, Sequences};
use crate::verdict::Verdict;
use crate::{Ended, access, checks, preflight, report, text, unknown};
pub use critical::{Counted, count};

pub async fn verify(args: VerifyArgs, global: &Global, reporter: &Arc<Reporter>) -> Ended {
    let given = args.checks.as_deref().map(checks::read).transpose()?;
    let mut ends = ends::connect(&args.ends).await?;
    let ledger = Ledger::read(&mut ends.target, global.migration.as_deref()).await?;
    args.profile.profile.check(&ledger)?;
    let dir = RunDir::create(&global.run_dir, &ledger.id)?;
    reporter.log_to(dir.events()?);
    let cpus = ends.target_facts(&[]).await?.server.cpus;
    let options = Options {
        storage_objects: ledger.options.storage_objects || args.storage_objects,
        ..ledger.options.clone()
    };
    let asked = Asked {
        ledger: &ledger,
        selection: args.filters.selection(),
        options,
        skip_schema: args.skip_schema || ledger.options.skip_schema,
        checks: checks::with(&ledger.options.checks, given.unwrap_or_default()),
        jobs: args.streams.unwrap_or(cpus.clamp(2, 8)) as usize,
        verbose: args.verbose,
    };
    if args.critical_only {
        return Box::pin(critical::verify(asked, ends, reporter)).await;
    }
    let detail = args.detailed.then_some(Detail {
        rows: args.rows as usize,
        show_values: args.show_values,
    });
    let looked = Box::pin(look(&asked, &mut ends, detail, reporter)).await?;
    conclude(&asked, looked, &mut ends, &dir, reporter).await
}

/// What a verification is asked for.
struct Asked<'a> {
    ledger: &'a Ledger,
    selection: Selection,
    /// The migration's; files are compared when that is asked for now, too.
    options: Options,
    skip_schema: bool,
    checks: Vec<Check>,
    jobs: usize,
    verbose: bool,
}

/// What came of looking.
struct Looked {
    tables: Vec<Table>,
    schema: schema::Compared,
    digests: Digests,
    /// Files that were read at both ends; none: nobody asked for that.
    files: Option<u64>,
    /// Of the schema, of rows and of files.
    findings: Vec<Finding>,
    checked: checks::Checked,
    /// By users.
    seen: access::Compared,
}

/// Compares schemas, then rows and what the business checks say, under one snapshot of the source.
async fn look(
    asked: &Asked<'_>,
    ends: &mut Ends,
    detail: Option<Detail>,
    reporter: &Arc<Reporter>,
) -> anyhow::Result<Looked> {
    let ledger = asked.ledger;
    // A key of its own: the snapshot of an unfinished copy stays open.
    let key = format!("{}-verify", ledger.id);
    let carried = objects::are_carried(&asked.options, &asked.selection)?;
    if carried {
        refuse_without_storage(ends, &asked.options.selection).await?;
    }
    let schema = compare_schemas(asked, ends, reporter).await?;
    let options = &asked.options;
    let inventory = inventory::open(ends, &key, options, RoleChoice::None, Lease::Short).await?;
    let chosen = Filter::new(&asked.selection)?;
    if let Err(error) = unknown::refuse(ledger, &asked.selection, &inventory) {
        inventory::close(ends, &key).await?;
        return Err(error);
    }
    let (mut tables, mut findings) = shapes(ledger, &inventory, &chosen);
    tables.retain(|table| schema.is_readable(table));
    findings.extend(schema.findings.iter().cloned());
    let live = Arc::new(Live::traced(reporter.clone()));
    let display = reporter
        .is_live()
        .then(|| live::show(live.clone(), reporter.clone()));
    let comparison = Comparison {
        held: Held {
            key: key.clone(),
            snapshot: inventory.snapshot.clone(),
        },
        digester: Digester {
            migration: ledger.id.clone(),
            ends: ends.clone(),
            jobs: asked.jobs,
            reporter: reporter.clone(),
            live: live.clone(),
        },
        detail,
    };
    let carrier = Carrier {
        migration: ledger.id.clone(),
        held: comparison.held.clone(),
        ends: ends.clone(),
        streams: asked.jobs,
        compression: 0,
        reporter: reporter.clone(),
        live,
    };
    let read = async {
        let compared = comparison.tables(&tables).await?;
        let files = match carried {
            // The ledger of an unfinished migration is its driver's alone to write.
            true => Some(carrier.compare_all(ledger.verdict.is_some()).await?),
            false => None,
        };
        let held = Some(&comparison.held);
        let ends = &comparison.digester.ends;
        let checked = checks::run(ends, &asked.checks, held, reporter).await?;
        let whole = asked.selection.covers(&ledger.options.selection);
        let seen = access::Asked::new(ledger, &tables, &compared.1, whole);
        let seen = access::run(ends, seen, &comparison.held, reporter).await?;
        anyhow::Ok((compared, files, checked, seen))
    };
    let read = read.await;
    // Whatever came of it: the snapshot holds locks at the source.
    inventory::close(ends, &key).await?;
    drop(display);
    let ((digests, of_rows), files, checked, seen) = read?;
    findings.extend(of_rows);
    let files = files.map(|(count, of_files)| {
        findings.extend(of_files);
        count
    });
    Ok(Looked {
        tables,
        schema,
        digests,
        files,
        findings,
        checked,
        seen,
    })
}

/// Without both APIs there is no answer: that is told before hours are spent on tables.
async fn refuse_without_storage(ends: &Ends, selection: &Selection) -> anyhow::Result<()> {
    let found = preflight::storage::findings(ends, selection).await?;
    match found.into_iter().find(|f| f.severity == Severity::Blocker) {
        None => Ok(()),
        Some(blocker) => bail!("{}: {} ({})", blocker.object, blocker.message, blocker.hint),
    }
}

async fn compare_schemas(
    asked: &Asked<'_>,
    ends: &Ends,
    reporter: &Reporter,
) -> anyhow::Result<schema::Compared> {
    if asked.skip_schema {
        return Ok(schema::Compared::default());
    }
    schema::compare_ends(
        ends,
        asked.ledger,
        &asked.selection,
        Sequences::Now,
        reporter,
    )
    .await
}

/// Writes down what was found, and tells.
async fn conclude(
    asked: &Asked<'_>,
    looked: Looked,
    ends: &mut Ends,
    dir: &RunDir,
    reporter: &Reporter,
) -> Ended {
    let ledger = asked.ledger;
    let Looked {
        tables,
        schema,
        digests,
        files,
        mut findings,
        checked,
        seen,
    } = looked;
    let mut lasting = lasting(ledger, &schema);
    lasting.retain(|finding| !checked.supersedes(finding) && !seen.supersedes(finding));
    lasting.retain(|finding| files.is_none() || !objects::is_about_file(finding));
    for finding in findings.iter().chain(&lasting) {
        reporter.emit(&Event::Finding(finding.clone()));
    }
    let nothing = findings.is_empty() && checked.findings.is_empty();
    if tables.is_empty() && nothing && schema.summary.is_none() {
        reporter.note("there is no table to compare: nothing is proven");
        conclude_line(Verdict::Unverified, 0, None, &[], reporter);
        return Ok((Verdict::Unverified, report::json(ledger)));
    }
    let asked_for = checked.findings.iter().chain(&seen.findings);
    let verdict = verdict(findings.iter().chain(asked_for), &lasting);
    // The ledger of an unfinished migration is its driver's alone to write.
    if ledger.verdict.is_some() {
        schema.record(ends, ledger).await?;
        checked.record(ends, ledger).await?;
        seen.record(ends, ledger).await?;
    }
    let partial = !asked.selection.covers(&ledger.options.selection);
    if files.is_some() {
        forget_files(ends, ledger).await?;
    }
    record(ends, ledger, &digests, verdict, &findings, partial).await?;
    findings.extend(checked.findings);
    findings.extend(seen.findings);
    findings.extend(lasting);
    let compared = (&tables[..], files);
    tell(asked, ends, dir, compared, &findings, verdict, reporter).await
}

/// They were looked at again.
async fn forget_files(ends: &mut Ends, ledger: &Ledger) -> anyhow::Result<()> {
    if ledger.verdict.is_none() {
        return Ok(());
    }
    let request = wire::RecordRequest {
        migration: ledger.id.clone(),
        compared: objects::earlier(ledger),
        ..Default::default()
    };
    ends.target.record(request).await.map_err(said("target"))?;
    Ok(())
}

/// The last line of stdout, for a script: `verdict=proven tables=12 differences=0 warnings=0 checks=5 checks_failed=0`.
fn conclude_line(
    verdict: Verdict,
    tables: usize,
    files: Option<u64>,
    findings: &[Finding],
    reporter: &Reporter,
) {
    let failed = findings
        .iter()
        .filter(|f| f.code == "check-failed" || f.code == "check-not-run")
        .count();
    let files = files.map_or_else(String::new, |files| format!(" files={files}"));
    let line = format!(
        "verdict={verdict} tables={tables} differences={} warnings={} checks={} checks_failed={failed}{files}\n",
        count_of(Severity::Difference, findings),
        count_of(Severity::Warning, findings),
        checks::count(findings),
    );
    reporter.quiet();
    crate::show(reporter, &line);
}

/// Differences that the migration left, and that no comparison makes anew: equal rows do not prove a target that lacks a policy or
/// a foreign key.
pub fn lasting(ledger: &Ledger, schema: &schema::Compared) -> Vec<Finding> {
    let left = ledger.findings.iter().filter(|finding| {
        finding.severity == Severity::Difference
            && !OF_COMPARISON.contains(&finding.code.as_str())
            && !schema.supersedes(finding)
    });
    left.cloned().collect()
}

pub fn verdict<'a>(
    findings: impl IntoIterator<Item = &'a Finding>,
    lasting: &'a [Finding],
) -> Verdict {
    let mut all = findings.into_iter().chain(lasting);
    if all.all(|finding| finding.severity != Severity::Difference) {
        Verdict::Proven
    } else {
        Verdict::Differs
    }
}

/// Tables of the ledger that were asked for and are at the source as planned; findings for the others.
fn shapes(ledger: &Ledger, inventory: &Inventory, chosen: &Filter) -> (Vec<Table>, Vec<Finding>) {
    let now: HashMap<Oid, &Table> = inventory.tables.iter().map(|t| (t.oid, t)).collect();
    let mut findings = Vec::new();
    let mut tables = Vec::new();
    for entry in ledger
        .tables
        .iter()
        .filter(|entry| chosen.admits(&entry.table.schema, &entry.table.name))
    {
        let planned = &entry.table;
        match now.get(&planned.oid) {
            Some(table) if table.columns == planned.columns => tables.push(planned.clone()),
            Some(table) => findings.push(
                difference(
                    "columns-differ",
                    planned,
                    "its columns changed at the source since the migration",
                )
                .values(table.columns.join(", "), planned.columns.join(", ")),
            ),
            None => findings.push(difference(
                "table-extra",
                planned,
                "it is gone from the source",
            )),
        }
    }
    let unknown = inventory.tables.iter().filter(|table| {
        chosen.admits(&table.schema, &table.name) && ledger.table(table.oid).is_none()
    });
    if !ledger.options.skip_data {
        findings.extend(unknown.map(|table| {
            difference(
                "table-missing",
                table,
                "it is new at the source since the migration",
            )
        }));
    }
    (tables, findings)
}

fn difference(code: &str, table: &Table, message: &str) -> Finding {
    Finding::new(Severity::Difference, code, table.to_string(), message)
}

/// The source's digest of each table that was read.
type Digests = HashMap<Oid, Digest>;

/// A comparison of rows: what it reads, and how far down it goes.
#[derive(Clone)]
struct Comparison {
    digester: Digester,
    held: Held,
    /// None: by tables only.
    detail: Option<Detail>,
}

impl Comparison {
    /// Compares the tables, several at once; then, one by one, the rows of those that differ.
    async fn tables(&self, tables: &[Table]) -> anyhow::Result<(Digests, Vec<Finding>)> {
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
            self.digester.target(&table, buckets, Keep::Read)
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

/// What was read is the ledger's newest knowledge. The verdict of an unfinished migration is not touched; nor does a part of the tables
/// prove the whole.
async fn record(
    ends: &mut Ends,
    ledger: &Ledger,
    digests: &Digests,
    verdict: Verdict,
    findings: &[Finding],
    partial: bool,
) -> anyhow::Result<()> {
    if ledger.verdict.is_none() {
        return Ok(());
    }
    let tables = digests.iter().map(|(oid, source)| wire::RecordTable {
        table: *oid,
        source_digest: Some((*source).into()),
        ..Default::default()
    });
    let settles = verdict == Verdict::Differs || !partial;
    let request = wire::RecordRequest {
        migration: ledger.id.clone(),
        verdict: if settles {
            verdict.as_str().into()
        } else {
            String::new()
        },
        tables: tables.collect(),
        findings: findings.iter().cloned().map(Into::into).collect(),
        compared: compared(digests, findings, ledger),
        ..Default::default()
    };
    ends.target.record(request).await.map_err(said("target"))?;
    Ok(())
}

/// Every table that this comparison speaks of; the schema's objects are recorded by themselves.
fn compared(digests: &Digests, findings: &[Finding], ledger: &Ledger) -> Vec<String> {
    let read = digests
        .keys()
        .filter_map(|oid| ledger.table(*oid))
        .map(|e| e.table.to_string());
    let of_rows = findings
        .iter()
        .filter(|finding| OF_COMPARISON.contains(&finding.code.as_str()));
    read.chain(of_rows.map(|finding| finding.object.clone()))
        .collect()
}

async fn tell(
    asked: &Asked<'_>,
    ends: &mut Ends,
    dir: &RunDir,
    (tables, files): (&[Table], Option<u64>),
    findings: &[Finding],
    verdict: Verdict,
    reporter: &Reporter,
) -> Ended {
    let ledger = Ledger::read(&mut ends.target, Some(&asked.ledger.id)).await?;
    let json = report::json(&ledger);
    dir.write_report(&ledger, &json)?;
    reporter.quiet();
    if asked.verbose {
        reporter.line(&report::text(&ledger));
    }
    let bytes = ledger
        .tables
        .iter()
        .filter(|entry| tables.iter().any(|table| table.oid == entry.table.oid))
        .map(|entry| entry.source().bytes)
        .sum();
    reporter.line(&format!(
        "{verdict}: {} tables, {} of COPY data{} compared, {} differences",
        tables.len(),
        text::bytes(bytes),
        files.map_or_else(String::new, |files| format!(" and {files} files")),
        count_of(Severity::Difference, findings)
    ));
    conclude_line(verdict, tables.len(), files, findings, reporter);
    Ok((verdict, json))
}

/// Rows are counted with their table.
fn count_of(severity: Severity, findings: &[Finding]) -> usize {
    let of = findings.iter().filter(|f| f.severity == severity);
    of.filter(|f| !f.code.starts_with("row-")).count()
}

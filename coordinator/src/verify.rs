//! `verify`: both agents read their databases again, and the digests are compared. The source reads all tables under one
//! snapshot. With --detailed, tables that differ are narrowed down to rows (see `narrow`).
mod critical;
mod rows;
mod told;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use anyhow::bail;
use pgconvoy_proto::facts::ServerFacts;
use pgconvoy_proto::model::{
    Check, Finding, OF_COMPARISON, Options, ROWS_NOT_BROUGHT, Relation, RoleChoice, Selection,
    Severity, Table,
};
use pgconvoy_proto::selection::Filter;
use pgconvoy_proto::wire;

use crate::cli::{Global, VerifyArgs};
use crate::digest::{Digester, Held};
use crate::ends::{self, Ends, said};
use crate::events::{Event, Reporter};
use crate::gone;
use crate::inventory::{self, Inventory, Lease};
use crate::ledger::Ledger;
use crate::left_out::LeftOut;
use crate::live::{self, Live};
use crate::narrow::Detail;
use crate::objects::{self, Carrier};
use crate::phases::snapshot::{self, without_large_objects};
use crate::run_dir::RunDir;
use crate::schema::{self, Question, Sequences};
use crate::verdict::Verdict;
use crate::{Ended, access, checks, effort, preflight, report, unknown};
pub use critical::{Counted, count};
use rows::{Comparison, Digests};

pub async fn verify(args: VerifyArgs, global: &Global, reporter: &Arc<Reporter>) -> Ended {
    let given = args.checks.as_deref().map(checks::read).transpose()?;
    let mut ends = ends::connect(&args.ends).await?;
    let ledger = Ledger::read(&mut ends.target, global.migration.as_deref()).await?;
    args.profile.profile.check(&ledger)?;
    let dir = RunDir::create(&global.run_dir, &ledger.id)?;
    reporter.log_to(dir.events()?);
    let target = ends.target_facts(&[]).await?.server;
    let options = Options {
        storage_objects: ledger.options.storage_objects || args.storage_objects,
        ..ledger.options.clone()
    };
    let asked = Asked {
        ledger: &ledger,
        selection: args.filters.selection(),
        options,
        skip_schema: args.skip_schema || ledger.options.skip_schema,
        left_out: LeftOut {
            data: args.skip_data || is_without_rows(&ledger),
            rls: args.skip_rls,
        },
        checks: checks::with(&ledger.options.checks, given.unwrap_or_default()),
        jobs: effort::streams(args.streams, target.cpus),
        target,
        verbose: args.verbose,
    };
    if args.critical_only {
        return Box::pin(critical::verify(asked, ends, reporter)).await;
    }
    if asked.left_out.data {
        let looked = look_at_definitions(&asked, &ends, reporter).await?;
        return conclude(&asked, looked, &mut ends, &dir, reporter).await;
    }
    let detail = args.detailed.then_some(Detail {
        rows: args.rows as usize,
        show_values: args.show_values,
    });
    let looked = Box::pin(look(&asked, &mut ends, detail, reporter)).await?;
    conclude(&asked, looked, &mut ends, &dir, reporter).await
}

/// The migration has left them out, and no sync has brought them since.
fn is_without_rows(ledger: &Ledger) -> bool {
    ledger.options.skip_data && ledger.tables.is_empty()
}

/// What a verification is asked for.
struct Asked<'a> {
    ledger: &'a Ledger,
    selection: Selection,
    /// The migration's; files are compared when that is asked for now, too.
    options: Options,
    skip_schema: bool,
    /// Of a migration that has left row level security out, it is compared all the same: somebody may have made it by hand since.
    left_out: LeftOut,
    checks: Vec<Check>,
    jobs: usize,
    target: ServerFacts,
    verbose: bool,
}

/// What came of looking.
#[derive(Default)]
struct Looked {
    tables: Vec<Table>,
    /// Tables of the ledger that neither end has any more.
    forgotten: Vec<Table>,
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

/// Compares schemas, and nothing else: no table is read, and the source needs no snapshot.
async fn look_at_definitions(
    asked: &Asked<'_>,
    ends: &Ends,
    reporter: &Reporter,
) -> anyhow::Result<Looked> {
    let schema = compare_schemas(asked, ends, reporter).await?;
    Ok(Looked {
        findings: schema.findings.clone(),
        schema,
        ..Looked::default()
    })
}

/// Compares schemas, then rows and what the business checks say, under one snapshot of the source.
async fn look(
    asked: &Asked<'_>,
    ends: &mut Ends,
    detail: Option<Detail>,
    reporter: &Arc<Reporter>,
) -> anyhow::Result<Looked> {
    let ledger = asked.ledger;
    let key = inventory::own_key("verify");
    let carried = objects::are_carried(&asked.options, &asked.selection)?;
    if carried {
        refuse_without_storage(ends, &asked.options.selection).await?;
    }
    let schema = compare_schemas(asked, ends, reporter).await?;
    let options = &asked.options;
    let inventory = inventory::open(ends, &key, options, RoleChoice::None, Lease::Short).await?;
    // The target may have work for longer than the lease, while nobody reads at the source.
    let _lease = snapshot::keep_alive(ends.source.clone(), key.clone(), Lease::Short);
    let chosen = Filter::new(&asked.selection)?;
    if let Err(error) = unknown::refuse(ledger, &asked.selection, &inventory) {
        inventory::close(ends, &key).await?;
        return Err(error);
    }
    let mut shapes = shapes(ledger, &inventory, &chosen);
    if let Err(error) = shapes.leave_unreadable(asked, ends, &schema).await {
        inventory::close(ends, &key).await?;
        return Err(error);
    }
    let Shapes {
        tables,
        mut findings,
        gone,
    } = shapes;
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
            scan_sessions: effort::scan_sessions(
                asked.jobs,
                inventory.machine.as_deref(),
                &asked.target,
            ),
            reporter: reporter.clone(),
            live: live.clone(),
        },
        detail,
    };
    let carrier = Carrier {
        migration: ledger.id.clone(),
        held: comparison.held.clone(),
        rows: objects::Rows::of(&inventory.tables),
        ends: ends.clone(),
        streams: asked.jobs,
        compression: 0,
        reporter: reporter.clone(),
        live,
    };
    let read = async {
        let gone = gone::ask(
            &mut comparison.digester.ends.clone(),
            ledger,
            gone,
            &inventory,
        )
        .await?;
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
        let mut seen = access::Asked::new(ledger, &tables, &compared.1, whole);
        seen.left_out = asked.left_out;
        let seen = access::run(ends, seen, &comparison.held, reporter).await?;
        anyhow::Ok((gone, compared, files, checked, seen))
    };
    let read = read.await;
    // Whatever came of it: the snapshot holds locks at the source.
    inventory::close(ends, &key).await?;
    drop(display);
    let (gone, (digests, of_rows), files, checked, seen) = read?;
    findings.extend(gone.findings);
    findings.extend(of_rows);
    let files = files.map(|(count, of_files)| {
        findings.extend(of_files);
        count
    });
    Ok(Looked {
        tables,
        forgotten: gone.forgotten,
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
    let question = Question {
        ledger: asked.ledger,
        selection: &asked.selection,
        left_out: asked.left_out,
        sequences: Sequences::Now,
    };
    schema::compare_ends(ends, &question, reporter).await
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
        forgotten,
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
    let unseen = lasting
        .iter()
        .any(|finding| asked.left_out.is_about(finding));
    lasting.retain(|finding| !asked.left_out.is_about(finding));
    for finding in findings.iter().chain(&lasting) {
        reporter.emit(&Event::Finding(finding.clone()));
    }
    let nothing = findings.is_empty() && checked.findings.is_empty();
    if tables.is_empty() && nothing && schema.summary.is_none() {
        reporter.note("there is no table to compare: nothing is proven");
        told::last_line(
            Verdict::Unverified,
            (0, None),
            asked.left_out,
            &[],
            reporter,
        );
        return Ok((Verdict::Unverified, report::json(ledger)));
    }
    let asked_for = checked.findings.iter().chain(&seen.findings);
    let verdict = match verdict(findings.iter().chain(asked_for), &lasting) {
        Verdict::Proven if asked.left_out.data => Verdict::Ok,
        Verdict::Proven if findings.iter().any(|f| f.code == ROWS_NOT_BROUGHT) => {
            Verdict::Unverified
        }
        verdict => verdict,
    };
    let partial = unseen
        || !asked.selection.covers(&ledger.options.selection)
        || asked.left_out.exceeds(&ledger.options);
    let mut entries = vec![
        gone::entry(&forgotten),
        schema.entry(),
        checked.entry(ledger),
        seen.entry(ledger),
    ];
    if files.is_some() {
        // They were looked at again.
        entries.push(wire::RecordRequest {
            compared: objects::earlier(ledger),
            ..Default::default()
        });
    }
    entries.push(entry(ledger, &digests, verdict, &findings, partial));
    // Each is a transaction that waits for the disk.
    entries.retain(|entry| *entry != wire::RecordRequest::default());
    record(ends, ledger, entries, reporter).await?;
    findings.extend(checked.findings);
    findings.extend(seen.findings);
    findings.extend(lasting);
    let compared = (&tables[..], files);
    told::tell(asked, ends, dir, compared, &findings, verdict, reporter).await
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

/// Tables that can be compared, and what stands in the way of the others.
#[derive(Default)]
struct Shapes {
    /// Of the ledger, asked for, and at the source as planned.
    tables: Vec<Table>,
    findings: Vec<Finding>,
    /// Of the ledger, and not at the source.
    gone: Vec<Table>,
}

impl Shapes {
    /// Leaves out the tables that the target lacks, or columns of them. That is the comparison of schemas' to tell; where there was none,
    /// the target is asked.
    async fn leave_unreadable(
        &mut self,
        asked: &Asked<'_>,
        ends: &mut Ends,
        schema: &schema::Compared,
    ) -> anyhow::Result<()> {
        if !asked.skip_schema {
            self.tables.retain(|table| schema.is_readable(table));
            return Ok(());
        }
        let request = wire::PlanSyncRequest {
            migration: asked.ledger.id.clone(),
            tables: self.tables.iter().cloned().map(Into::into).collect(),
            dry_run: true,
            to_be_read: true,
            ..Default::default()
        };
        let found = ends.plan_sync(request).await?;
        let unreadable: HashSet<&str> = found.iter().map(|f| f.object.as_str()).collect();
        self.tables
            .retain(|table| !unreadable.contains(table.to_string().as_str()));
        self.findings.extend(found);
        Ok(())
    }
}

fn shapes(ledger: &Ledger, inventory: &Inventory, chosen: &Filter) -> Shapes {
    let now: HashMap<String, &Table> = inventory
        .tables
        .iter()
        .map(|t| (t.to_string(), t))
        .collect();
    let mut shapes = Shapes::default();
    for entry in ledger
        .tables
        .iter()
        .filter(|entry| chosen.admits(&entry.table.schema, &entry.table.name))
    {
        let planned = &entry.table;
        match now.get(&planned.to_string()) {
            Some(table) if columns(table) == columns(planned) => {
                shapes.tables.push(planned.clone());
            }
            Some(table) => shapes.findings.push(
                difference(
                    "columns-differ",
                    planned,
                    "its columns changed at the source since the migration",
                )
                .values(listed(table), listed(planned)),
            ),
            // No large object is left.
            None if planned.relation != Relation::Table => {
                shapes.tables.push(without_large_objects(planned));
            }
            None => shapes.gone.push(planned.clone()),
        }
    }
    let known = ledger.tables.iter().map(|entry| entry.table.to_string());
    let known: HashSet<String> = known.collect();
    let unknown = inventory.tables.iter().filter(|table| {
        chosen.admits(&table.schema, &table.name) && !known.contains(&table.to_string())
    });
    shapes.findings.extend(unknown.map(|table| {
        if ledger.options.skip_data {
            let message = "the migration left its rows out, and no sync has brought them since";
            return Finding::new(
                Severity::Warning,
                ROWS_NOT_BROUGHT,
                table.to_string(),
                message,
            )
            .hint("pgconvoy sync brings them");
        }
        let message = "it is new at the source since the migration";
        difference("table-missing", table, message)
    }));
    shapes
}

/// Those that are computed too. In what order they are read is the key's to say, and another index may be the key by now.
fn columns(table: &Table) -> BTreeSet<String> {
    let generated = table.generated.iter();
    let generated = generated.map(|name| format!("{name} (generated)"));
    table.columns.iter().cloned().chain(generated).collect()
}

fn listed(table: &Table) -> String {
    Vec::from_iter(columns(table)).join(", ")
}

fn difference(code: &str, table: &Table, message: &str) -> Finding {
    Finding::new(Severity::Difference, code, table.to_string(), message)
}

/// What was read is the ledger's newest knowledge, unless somebody drives the migration or has since: then it is his alone to write.
async fn record(
    ends: &mut Ends,
    ledger: &Ledger,
    entries: Vec<wire::RecordRequest>,
    reporter: &Reporter,
) -> anyhow::Result<()> {
    let mut driven = ledger.verdict.is_none();
    for entry in entries {
        if driven {
            break;
        }
        let request = wire::RecordRequest {
            migration: ledger.id.clone(),
            seen_snapshot: ledger.snapshot.clone(),
            ..entry
        };
        let answer = ends.target.record(request).await;
        driven = answer.map_err(said("target"))?.into_inner().not_written;
    }
    if driven {
        reporter.note("the migration is under way, or was meanwhile: its ledger is left alone");
    }
    Ok(())
}

/// What rows say. A part of the tables does not prove the whole.
fn entry(
    ledger: &Ledger,
    digests: &Digests,
    verdict: Verdict,
    findings: &[Finding],
    partial: bool,
) -> wire::RecordRequest {
    let tables = digests.iter().map(|(oid, source)| wire::RecordTable {
        table: *oid,
        source_digest: Some((*source).into()),
        ..Default::default()
    });
    let settles = verdict == Verdict::Differs || !partial;
    let verdict = match verdict {
        // Of a migration without rows.
        Verdict::Ok => Verdict::Unverified,
        verdict => verdict,
    };
    wire::RecordRequest {
        verdict: if settles {
            verdict.as_str().into()
        } else {
            String::new()
        },
        tables: tables.collect(),
        findings: findings.iter().cloned().map(Into::into).collect(),
        compared: compared(digests, findings, ledger),
        ..Default::default()
    }
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

//! `verify`: both agents read their databases again, and the digests are compared. The source reads all tables under one
//! snapshot. With --detailed, tables that differ are narrowed down to rows (see `narrow`).
mod critical;
mod rows;
mod told;

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::bail;
use pgconvoy_proto::model::{
    Check, Finding, OF_COMPARISON, Oid, Options, ROWS_NOT_BROUGHT, RoleChoice, Selection, Severity,
    Table,
};
use pgconvoy_proto::selection::Filter;
use pgconvoy_proto::wire;

use crate::cli::{Global, VerifyArgs};
use crate::ends::{self, Ends, said};
use crate::events::{Event, Reporter};
use crate::inventory::{self, Inventory, Lease};
use crate::ledger::Ledger;
use crate::left_out::LeftOut;
use crate::live::{self, Live};
use crate::narrow::Detail;
use crate::objects::{self, Carrier};
use crate::phases::verify::{Digester, Held};
use crate::run_dir::RunDir;
use crate::schema::{self, Question, Sequences};
use crate::verdict::Verdict;
use crate::{Ended, access, checks, preflight, report, unknown};
pub use critical::{Counted, count};
use rows::{Comparison, Digests};

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
        left_out: LeftOut {
            data: args.skip_data || is_without_rows(&ledger),
            rls: args.skip_rls,
        },
        checks: checks::with(&ledger.options.checks, given.unwrap_or_default()),
        jobs: args.streams.unwrap_or(cpus.clamp(2, 8)) as usize,
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
    verbose: bool,
}

/// What came of looking.
#[derive(Default)]
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
        rows: objects::Rows::of(&inventory.tables),
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
        let mut seen = access::Asked::new(ledger, &tables, &compared.1, whole);
        seen.left_out = asked.left_out;
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
    // The ledger of an unfinished migration is its driver's alone to write.
    if ledger.verdict.is_some() {
        schema.record(ends, ledger).await?;
        checked.record(ends, ledger).await?;
        seen.record(ends, ledger).await?;
    }
    let partial = unseen
        || !asked.selection.covers(&ledger.options.selection)
        || asked.left_out.exceeds(&ledger.options);
    if files.is_some() {
        forget_files(ends, ledger).await?;
    }
    record(ends, ledger, &digests, verdict, &findings, partial).await?;
    findings.extend(checked.findings);
    findings.extend(seen.findings);
    findings.extend(lasting);
    let compared = (&tables[..], files);
    told::tell(asked, ends, dir, compared, &findings, verdict, reporter).await
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
    findings.extend(unknown.map(|table| {
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
    (tables, findings)
}

fn difference(code: &str, table: &Table, message: &str) -> Finding {
    Finding::new(Severity::Difference, code, table.to_string(), message)
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
    let verdict = match verdict {
        // Of a migration without rows.
        Verdict::Ok => Verdict::Unverified,
        verdict => verdict,
    };
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

//! Which tables a sync is about, and what stands in its way.
use std::collections::HashSet;

use pgconvoy_proto::model::{Digest, Finding, RLS_SKIPPED, Relation, Severity, Table};
use pgconvoy_proto::selection::Filter;
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::target_digest_request::Keep;

use super::{Asked, TARGET_WRITTEN};
use crate::converge::Scanned;
use crate::digest::Digester;
use crate::gone::{self, Gone};
use crate::inventory::Inventory;
use crate::ledger::Ledger;
use crate::phases::Run;
use crate::phases::snapshot::without_large_objects;
use crate::schema::Compared;

#[derive(Default)]
pub struct Scope {
    /// The tables that can be synced.
    pub tables: Vec<Table>,
    /// What has drifted apart: tables that cannot.
    pub findings: Vec<Finding>,
    /// Tables of the ledger that neither end has any more.
    pub forgotten: Vec<Table>,
}

impl Scope {
    pub fn is_blocked(&self, force: bool) -> bool {
        !self.findings.is_empty() && !force
    }
}

/// More than the migration itself, which nobody may leave open unasked, this sync leaves row level security out.
fn leaves_rls_out(asked: &Asked, ledger: &Ledger) -> bool {
    asked.left_out.rls && !ledger.options.skip_rls
}

/// Invariant 6 (no open window): rows come into tables only whose row level security is compared, or by --force.
pub fn opened(run: &Run, asked: &Asked) -> Option<Finding> {
    let stops = leaves_rls_out(asked, &run.ledger) && !asked.force && !asked.dry_run;
    stops.then(|| {
        Finding::new(
            Severity::Blocker,
            "skip-rls",
            RLS,
            "--skip-rls: nobody looks whether the target's tables are as closed as the source's",
        )
        .hint("leave it out, or add --force if that is meant")
    })
}

/// For the ledger and the report.
pub fn without_rls(asked: &Asked, ledger: &Ledger) -> Option<Finding> {
    leaves_rls_out(asked, ledger).then(|| {
        let what = "sync --skip-rls: policies and row level security were not compared";
        Finding::new(Severity::Warning, RLS_SKIPPED, RLS, what)
            .hint("pgconvoy verify compares them")
    })
}

/// What the findings about it are about, as with `migrate`.
const RLS: &str = "row level security";

/// Schema drift is found, and named; what is to be done about it is the user's to say.
pub async fn find(
    run: &mut Run,
    asked: &Asked,
    inventory: &Inventory,
    schema: &Compared,
) -> anyhow::Result<Scope> {
    let chosen = Filter::new(&asked.selection)?;
    let is_chosen = |table: &&Table| match table.relation {
        Relation::Table => chosen.admits(&table.schema, &table.name),
        Relation::LargeObjects { .. } => chosen.admits_large_objects(),
    };
    let mut tables: Vec<Table> = inventory.tables.iter().filter(is_chosen).cloned().collect();
    tables.extend(emptied_large_objects(&run.ledger, &tables, &chosen));
    let gone = run.ledger.tables.iter().map(|entry| &entry.table);
    let gone = gone.filter(|table| table.relation == Relation::Table);
    let now: HashSet<String> = tables.iter().map(Table::to_string).collect();
    let gone = gone
        .filter(is_chosen)
        .filter(|table| !now.contains(&table.to_string()));
    let gone = gone.cloned().collect();
    let Gone {
        mut findings,
        forgotten,
    } = gone::ask(&mut run.ends, &run.ledger, gone, inventory).await?;
    findings.extend(plan(run, &tables, true).await?);
    for table in &tables {
        let retyped = schema.retyped(table);
        if !retyped.is_empty() {
            findings.push(of_another_type(table, &retyped));
        }
        let demands = schema.demands(table);
        if !demands.is_empty() {
            findings.push(stricter(table, demands));
        }
    }
    let drifted: HashSet<&str> = findings.iter().map(|f| f.object.as_str()).collect();
    tables.retain(|table| !drifted.contains(table.to_string().as_str()));
    if tables.is_empty() && findings.is_empty() && forgotten.is_empty() {
        anyhow::bail!("no table is selected: see --table and the other filters");
    }
    Ok(Scope {
        tables,
        findings,
        forgotten,
    })
}

/// The target may still have large objects when the source has none any more.
fn emptied_large_objects(ledger: &Ledger, now: &[Table], chosen: &Filter) -> Option<Table> {
    let is_pages = |table: &&Table| table.relation != Relation::Table;
    if now.iter().any(|table| is_pages(&table)) || !chosen.admits_large_objects() {
        return None;
    }
    let mut planned = ledger.tables.iter().map(|entry| &entry.table);
    planned.find(is_pages).map(without_large_objects)
}

fn of_another_type(table: &Table, columns: &[String]) -> Finding {
    let columns = columns.join(", ");
    drifted(
        table,
        format!("columns are of another type at the target: {columns}"),
    )
}

fn stricter(table: &Table, demands: &[String]) -> Finding {
    let demands = demands.join("; ");
    drifted(
        table,
        format!("the target refuses rows that the source may have: {demands}"),
    )
}

fn drifted(table: &Table, message: String) -> Finding {
    Finding::new(
        Severity::Difference,
        "columns-differ",
        table.to_string(),
        message,
    )
    .hint("change the target's table as the source's was changed, or leave it out: --exclude-table")
}

/// Has the target check that it has the tables, with their columns. Unless `dry_run`, tables that are new to the ledger are
/// entered into it.
pub async fn plan(run: &mut Run, tables: &[Table], dry_run: bool) -> anyhow::Result<Vec<Finding>> {
    let request = wire::PlanSyncRequest {
        migration: run.ledger.id.clone(),
        tables: tables.iter().cloned().map(Into::into).collect(),
        dry_run,
        ..Default::default()
    };
    run.ends.plan_sync(request).await
}

/// Tables that differ and are not as the migration left them: a sync would overwrite what somebody else has written there.
pub async fn written_by_others(
    ledger: &Ledger,
    digester: &Digester,
    scanned: &[Scanned],
) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for scanned in scanned.iter().filter(|scanned| !scanned.is_equal()) {
        findings.extend(written_by_another(ledger, digester, scanned).await?);
    }
    Ok(findings)
}

async fn written_by_another(
    ledger: &Ledger,
    digester: &Digester,
    scanned: &Scanned,
) -> anyhow::Result<Option<Finding>> {
    let table = &scanned.table;
    let mut target = scanned.target.digest;
    let entry = ledger.table(table.oid).or_else(|| {
        ledger
            .tables
            .iter()
            .find(|e| e.table.to_string() == table.to_string())
    });
    let told = |rows: String, left: String, target: Digest| {
        let message = format!("{rows}: sync makes it as the source is");
        let finding = Finding::new(
            Severity::Warning,
            TARGET_WRITTEN,
            table.to_string(),
            message,
        );
        finding.values(left, target.hex()).hint(
            "without --force nothing is overwritten; verify --detailed names the rows that differ",
        )
    };
    let Some(entry) = entry else {
        return Ok((target.rows > 0).then(|| {
            told(
                format!(
                    "{} rows at the target did not come with the migration",
                    target.rows
                ),
                String::new(),
                target,
            )
        }));
    };
    let planned = &entry.table;
    // In another format, or with other columns, the same rows have another digest.
    let comparable = planned.has_columns_of(table)
        && planned.format == table.format
        && planned.filter == table.filter;
    let Some(left) = entry.left().filter(|_| comparable) else {
        return Ok(None);
    };
    if planned.columns != table.columns {
        // Another index is the key by now, and its columns come first.
        let as_left = table.clone().in_order_of(planned);
        target = digester
            .target(&as_left, 0, Keep::Unspecified)
            .await?
            .digest;
    }
    Ok((left != target).then(|| {
        told(
            format!(
                "somebody has written to it at the target since the migration left it ({} rows then, {} now)",
                left.rows, target.rows
            ),
            left.hex(),
            target,
        )
    }))
}

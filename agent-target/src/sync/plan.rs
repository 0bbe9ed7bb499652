//! Whether the tables of the source are at the target, with the same columns; and their place in the ledger.
use std::collections::{BTreeSet, HashMap};

use pgconvoy_agent_core::inventory::tables;
use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{Finding, Relation, Selection, Severity, Table, object};
use pgconvoy_proto::selection::Filter;
use pgconvoy_proto::wire;
use tonic::Status;

use crate::ledger;
use crate::sessions::{Purpose, Sessions};

pub async fn plan(
    sessions: &Sessions,
    request: wire::PlanSyncRequest,
) -> Result<Vec<Finding>, Status> {
    let migration = &request.migration;
    let wanted: Result<Vec<Table>, _> = request.tables.into_iter().map(Table::try_from).collect();
    let wanted = wanted?;
    let session = sessions.take(migration, Purpose::Plain).await?;
    let here = tables_here(&session)
        .await
        .map_err(|error| status::postgres("reading the catalogs", &error))?;
    let (mut findings, mut fitting) = (Vec::new(), Vec::new());
    for table in &wanted {
        match misfit(table, here.get(&table.to_string()), request.to_be_read) {
            Some(finding) => findings.push(finding),
            None => fitting.push(table),
        }
    }
    for table in request.gone.into_iter().map(Table::try_from) {
        let table = table?;
        findings.extend(here.get(&table.to_string()).map(|_| extra(&table)));
    }
    if !request.dry_run {
        enter(&session, migration, &fitting)
            .await
            .map_err(ledger::failed)?;
    }
    sessions.give_back(migration, Purpose::Plain, session);
    Ok(findings)
}

async fn tables_here(session: &Session) -> Result<HashMap<String, Table>, tokio_postgres::Error> {
    let everything = Filter::new(&Selection::default())
        .unwrap_or_else(|error| unreachable!("a filter without globs: {error}"));
    let mut here = tables::relations(session, &everything).await?;
    tables::describe(session, &mut here).await?;
    Ok(here
        .into_iter()
        .map(|table| (table.to_string(), table))
        .collect())
}

fn extra(table: &Table) -> Finding {
    let message = "it is gone from the source";
    Finding::new(
        Severity::Difference,
        "table-extra",
        table.to_string(),
        message,
    )
    .hint("drop it at the target, or leave it out: --exclude-table")
}

/// Of all columns, whether or not they are computed.
fn names(table: &Table) -> BTreeSet<&String> {
    table.columns.iter().chain(&table.generated).collect()
}

fn misfit(table: &Table, here: Option<&Table>, to_be_read: bool) -> Option<Finding> {
    if table.relation != Relation::Table {
        return None;
    }
    let difference = |code: &str, message: &str| {
        Finding::new(Severity::Difference, code, table.to_string(), message)
    };
    let Some(here) = here.filter(|here| here.through_root == table.through_root) else {
        return Some(
            difference("table-missing", "the target has no such table").hint(
                "create it at the target as it is at the source, or leave it out: --exclude-table",
            ),
        );
    };
    let columns = |table: &Table| -> BTreeSet<String> {
        let generated = table
            .generated
            .iter()
            .map(|name| format!("{name} (generated)"));
        table.columns.iter().cloned().chain(generated).collect()
    };
    let (source, mut target) = (columns(table), columns(here));
    if table.is(object::TABLE) && !source.contains(object::VERSION) {
        // Of files that are carried each end has its own.
        target.remove(object::VERSION);
    }
    // A platform's table may have columns that only the service at this end knows, or computes.
    let fits = table.managed && table.columns.iter().all(|name| here.columns.contains(name))
        || to_be_read && names(table).is_subset(&names(here));
    if source == target || fits {
        return None;
    }
    let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| -> Vec<String> {
        a.difference(b).cloned().collect()
    };
    let told: Vec<String> = [
        ("source", only(&source, &target)),
        ("target", only(&target, &source)),
    ]
    .into_iter()
    .filter(|(_, columns)| !columns.is_empty())
    .map(|(end, columns)| format!("only the {end} has {}", columns.join(", ")))
    .collect();
    Some(
        difference(
            "columns-differ",
            &format!("its columns have drifted apart: {}", told.join("; ")),
        )
            .values(
                Vec::from_iter(source).join(", "),
                Vec::from_iter(target).join(", "),
            )
            .hint("change the target's table as the source's was changed, or leave it out: --exclude-table"),
    )
}

/// A table that was dropped and made again at the source has another OID; one that was renamed has another name.
async fn enter(
    session: &Session,
    migration: &str,
    tables: &[&Table],
) -> Result<(), tokio_postgres::Error> {
    let plans: Vec<serde_json::Value> = tables.iter().map(ledger::json).collect();
    let statements = [
        "WITH moved AS (
             UPDATE pgconvoy.tables t SET oid = (p ->> 'oid')::oid FROM unnest($2::jsonb[]) p, pgconvoy.tables old
             WHERE t.migration = $1 AND t.schema = p ->> 'schema' AND t.name = p ->> 'name' AND t.oid <> (p ->> 'oid')::oid
               AND old.migration = t.migration AND old.oid = t.oid
               AND NOT EXISTS (SELECT FROM pgconvoy.tables u WHERE u.migration = $1 AND u.oid = (p ->> 'oid')::oid)
             RETURNING old.oid AS old, t.oid AS new)
         UPDATE pgconvoy.parts SET table_oid = moved.new FROM moved WHERE migration = $1 AND table_oid = moved.old",
        "UPDATE pgconvoy.tables t SET schema = p ->> 'schema', name = p ->> 'name' FROM unnest($2::jsonb[]) p
         WHERE t.migration = $1 AND t.oid = (p ->> 'oid')::oid",
        "INSERT INTO pgconvoy.tables (migration, oid, schema, name, plan)
         SELECT $1, (p ->> 'oid')::oid, p ->> 'schema', p ->> 'name', p FROM unnest($2::jsonb[]) p
         ON CONFLICT DO NOTHING",
    ];
    for statement in statements {
        session.execute(statement, &[&migration, &plans]).await?;
    }
    Ok(())
}

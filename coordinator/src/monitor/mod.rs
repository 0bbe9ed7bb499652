//! `monitor`: how the target does in the days after a migration, on one screen; and, where the source is still there, what differs from it
//! since. It changes nothing, and what it finds is for people: it is no verdict on the migration.
mod told;

use std::sync::Arc;

use pgconvoy_proto::health::Health;
use pgconvoy_proto::model::{Finding, RoleChoice, Selection, Severity, parse_json};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::target_client::TargetClient;
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::cli;
use crate::digest::Held;
use crate::ends::{self, said};
use crate::events::Reporter;
use crate::inventory::{self, Lease};
use crate::ledger::Ledger;
use crate::left_out::LeftOut;
use crate::phases::snapshot;
use crate::schema::{self, Question, Sequences};
use crate::verdict::Verdict;
use crate::verify::{Counted, count};
use crate::{Ended, show};

/// Tables that are counted at once: the databases have others to serve.
const JOBS: usize = 2;

pub async fn monitor(asked: cli::Ends, migration: Option<&str>, reporter: &Arc<Reporter>) -> Ended {
    let mut target = ends::target(&asked).await?;
    let health = health(&mut target).await?;
    let mut findings = told::findings(&health);
    let mut text = told::text(&health);
    let mut since = Value::Null;
    if asked.source.is_some() {
        match differences(&asked, migration, reporter).await {
            Ok(differences) => {
                text += &told::since_text(&differences);
                let tables: Vec<Value> = differences.tables.iter().map(told::table).collect();
                since = json!({ "schema": differences.schema, "tables": tables });
            }
            // The source is retired some day, and the ledger cleaned: the target is looked at all the same.
            Err(error) => findings.push(told::not_compared(&error)),
        }
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    text += &told::findings_text(&findings);
    show(reporter, &text);
    Ok((
        Verdict::Ok,
        json!({ "health": health, "since": since, "findings": findings }),
    ))
}

async fn health(target: &mut TargetClient<Channel>) -> anyhow::Result<Health> {
    let answer = target.health(wire::HealthRequest {}).await;
    Ok(parse_json(
        &answer.map_err(said("target"))?.into_inner().health,
    )?)
}

/// What differs by now. After the application has moved, tables are expected to.
struct Differences {
    schema: Vec<Finding>,
    tables: Vec<Counted>,
}

async fn differences(
    asked: &cli::Ends,
    migration: Option<&str>,
    reporter: &Arc<Reporter>,
) -> anyhow::Result<Differences> {
    let mut ends = ends::connect(asked).await?;
    let ledger = Ledger::read(&mut ends.target, migration).await?;
    let question = Question {
        ledger: &ledger,
        selection: &Selection::default(),
        left_out: LeftOut::by_migration(&ledger.options),
        sequences: Sequences::Coming,
    };
    let mut compared = schema::compare_ends(&ends, &question, reporter).await?;
    compared
        .findings
        .retain(|finding| finding.severity == Severity::Difference);
    let key = inventory::own_key("monitor");
    let options = &ledger.options;
    let inventory =
        inventory::open(&mut ends, &key, options, RoleChoice::None, Lease::Short).await?;
    // The target may have work for longer than the lease, while nobody reads at the source.
    let _lease = snapshot::keep_alive(ends.source.clone(), key.clone(), Lease::Short);
    let held = Held {
        key: key.clone(),
        snapshot: inventory.snapshot.clone(),
    };
    let planned = ledger.tables.iter().map(|entry| &entry.table);
    let there = |oid| inventory.tables.iter().any(|table| table.oid == oid);
    let tables: Vec<_> = planned
        .filter(|table| there(table.oid) && compared.is_readable(table))
        .cloned()
        .collect();
    let counted = count(&ends, &held, &tables, JOBS, reporter).await;
    inventory::close(&mut ends, &key).await?;
    Ok(Differences {
        schema: std::mem::take(&mut compared.findings),
        tables: counted?,
    })
}

//! What the agents are asked about a platform.
use pgconvoy_proto::model::{
    Counted, Finding, Fixed, Holdings, HoldingsAsked, Platform, Question, Told, parse_json, to_json,
};
use pgconvoy_proto::wire;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::skew::FIXED_VALUES;
use crate::ends::{Ends, said};

/// What each end holds, the source first. `migration`: of a rehearsal the target is its scratch database.
pub async fn holdings(
    ends: &Ends,
    platform: &Platform,
    migration: &str,
) -> anyhow::Result<(Holdings, Holdings)> {
    let asked = HoldingsAsked {
        schemas: platform.managed_schemas.clone(),
        versions: platform.versions.iter().map(|v| v.column.clone()).collect(),
    };
    let request = wire::HoldingsRequest {
        asked: to_json(&asked),
        migration: migration.to_owned(),
    };
    let (mut source, mut target) = (ends.source.clone(), ends.target.clone());
    tokio::try_join!(
        async {
            let pieces = source.holdings(request.clone()).await;
            whole(pieces.map_err(said("source"))?.into_inner(), "source").await
        },
        async {
            let pieces = target.holdings(request.clone()).await;
            whole(pieces.map_err(said("target"))?.into_inner(), "target").await
        }
    )
}

/// How many rows these hold at the target.
pub async fn count(ends: &Ends, tables: &[(String, String)]) -> anyhow::Result<Vec<u64>> {
    let mut counts = Vec::new();
    for (schema, name) in tables {
        let table = wire::Table {
            // Not asked for by its OID.
            oid: 1,
            schema: schema.clone(),
            name: name.clone(),
            format: wire::Format::Text.into(),
            through_root: true,
            ..Default::default()
        };
        let request = wire::CountRequest {
            table: Some(table),
            ..Default::default()
        };
        let answer = ends.target.clone().count_rows(request).await;
        counts.push(answer.map_err(said("target"))?.into_inner().rows);
    }
    Ok(counts)
}

/// Longer than any of these queries takes.
const QUERY_MS: u32 = 60_000;

/// How far each item of the checklist concerns this database. What the source refuses (a table of another level) stays open.
pub async fn fill(ends: &Ends, outside: &mut [Told]) -> anyhow::Result<()> {
    for told in outside.iter_mut().filter(|told| !told.query.is_empty()) {
        told.found = single(ends, &told.query).await?.unwrap_or_default();
    }
    Ok(())
}

/// Which rows lose their value at the target: nobody can see it there. What the source refuses, it is to be asked by hand.
pub async fn name_rows(
    ends: &Ends,
    fixed: &[Fixed],
    findings: &mut [Finding],
) -> anyhow::Result<()> {
    let of_fixed = findings.iter_mut().filter(|f| f.code == FIXED_VALUES);
    for finding in of_fixed {
        let mut all = fixed.iter().filter(|fixed| !fixed.which.is_empty());
        if let Some(fixed) = all.find(|fixed| fixed.column == finding.object) {
            let which = match single(ends, &fixed.which).await? {
                Some(which) => {
                    finding.source_value.clone_from(&which);
                    which
                }
                None => format!("what the source says: {}", fixed.which),
            };
            finding.hint = fixed.why.replace("{}", &which);
        }
    }
    Ok(())
}

/// None: the source refuses it, or it has no value.
async fn single(ends: &Ends, sql: &str) -> anyhow::Result<Option<String>> {
    let request = wire::CheckRequest {
        sql: sql.to_owned(),
        timeout_ms: QUERY_MS,
        ..Default::default()
    };
    let answer = ends.source.clone().run_check(request).await;
    let answer = answer.map_err(said("source"))?.into_inner().answer;
    Ok(match answer {
        Some(wire::check_response::Answer::Rows(rows)) => rows.single,
        _ => None,
    })
}

pub async fn measure(ends: &Ends, questions: &[Question]) -> anyhow::Result<Counted> {
    if questions.is_empty() {
        return Ok(Counted::new());
    }
    let request = wire::MeasureRequest {
        questions: to_json(&questions),
    };
    let answer = ends.source.clone().measure(request).await;
    let counted: Counted = parse_json(&answer.map_err(said("source"))?.into_inner().counted)?;
    anyhow::ensure!(
        counted.len() == questions.len(),
        "the source agent answered {} of {} questions",
        counted.len(),
        questions.len()
    );
    Ok(counted)
}

async fn whole(
    mut pieces: impl Stream<Item = Result<wire::HoldingsResponse, Status>> + Unpin,
    agent: &'static str,
) -> anyhow::Result<Holdings> {
    let mut json = Vec::new();
    while let Some(piece) = pieces.next().await {
        json.extend_from_slice(&piece.map_err(said(agent))?.piece);
    }
    Ok(serde_json::from_slice(&json)?)
}

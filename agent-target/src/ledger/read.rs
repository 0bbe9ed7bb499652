//! Reads a migration's ledger out, for `status`, `resume`, `report`.
use pgconvoy_agent_core::session::Session;
use pgconvoy_proto::model::{Finding, Severity, Table, to_json};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::ledger_item::Item;
use tokio::sync::mpsc;
use tonic::Status;

use super::{digest, failed, from_json};
use crate::archive::Store;

type Items = mpsc::Sender<Result<wire::LedgerItem, Status>>;

/// Which of the migrations comes first when the latest is asked for: the one that is unfinished, then the one that none was planned after.
/// The server's clock, which may have been set back, is asked last.
pub const LATEST_FIRST: &str =
    "verdict IS NULL DESC, phase = 'superseded', created_at DESC, id DESC";

/// Sends the ledger of `migration`, the latest when it is empty. One transaction: what is sent is of one moment.
pub async fn send(
    session: &Session,
    store: &Store,
    migration: &str,
    target: &str,
    items: &Items,
) -> Result<(), Status> {
    session
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await
        .map_err(failed)?;
    let mut header = header(session, migration, target).await?;
    let id = header.id.clone();
    // One whose folder is lost is to be sent again.
    header.archive_received &= store.has_archive(&id)?;
    header.crossed = crossed(session, &id).await?;
    header.objects = objects(session, &id).await?;
    let mut all = vec![Item::Header(header)];
    all.extend(tables(session, &id).await?);
    all.extend(parts(session, &id).await?);
    all.extend(steps(session, &id).await?);
    all.extend(findings(session, &id).await?);
    session.batch_execute("COMMIT").await.map_err(failed)?;
    for item in all {
        if items
            .send(Ok(wire::LedgerItem { item: Some(item) }))
            .await
            .is_err()
        {
            tracing::debug!("the reader of the ledger left");
            break;
        }
    }
    Ok(())
}

async fn header(
    session: &Session,
    migration: &str,
    target: &str,
) -> Result<wire::LedgerHeader, Status> {
    let rfc3339 = r#"'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'"#;
    let query = format!(
        "SELECT id, options::text, snapshot, source, phase, coalesce(verdict, ''),
                to_char(created_at AT TIME ZONE 'UTC', {rfc3339}),
                coalesce(to_char(finished_at AT TIME ZONE 'UTC', {rfc3339}), ''), archive_at IS NOT NULL,
                coalesce(sync::text, '')
         FROM pgconvoy.migrations WHERE $1 IN ('', id) ORDER BY {LATEST_FIRST} LIMIT 1"
    );
    let row = session
        .query_opt(&query, &[&migration])
        .await
        .map_err(failed)?
        .ok_or_else(|| {
            Status::not_found(match migration {
                "" => "there is no migration in this database's ledger".to_owned(),
                id => format!("there is no migration {id} in this database's ledger"),
            })
        })?;
    Ok(wire::LedgerHeader {
        id: row.get(0),
        options: row.get(1),
        snapshot: row.get(2),
        source: row.get(3),
        target: target.to_owned(),
        phase: row.get(4),
        verdict: row.get(5),
        created_at: row.get(6),
        finished_at: row.get(7),
        archive_received: row.get(8),
        sync: row.get(9),
        crossed: Vec::new(),
        objects: None,
    })
}

async fn crossed(session: &Session, id: &str) -> Result<Vec<wire::SnapshotBytes>, Status> {
    let rows = session
        .query(
            "SELECT snapshot, sum(parts)::int8, sum(syncs)::int8 FROM (
                 SELECT snapshot, wire_bytes AS parts, 0 AS syncs, committed_at FROM pgconvoy.parts WHERE migration = $1
                 UNION ALL
                 SELECT snapshot, 0, wire_bytes, committed_at FROM pgconvoy.syncs WHERE migration = $1) crossed
             WHERE committed_at IS NOT NULL GROUP BY 1 ORDER BY min(committed_at)",
            &[&id],
        )
        .await
        .map_err(failed)?;
    let bytes = |row: &tokio_postgres::Row, at| row.get::<_, Option<i64>>(at).unwrap_or(0) as u64;
    Ok(rows
        .iter()
        .map(|row| wire::SnapshotBytes {
            snapshot: row.get(0),
            parts: bytes(row, 1),
            syncs: bytes(row, 2),
        })
        .collect())
}

/// None: no file was carried.
async fn objects(session: &Session, id: &str) -> Result<Option<wire::ObjectsSummary>, Status> {
    let row = session
        .query_one(
            "SELECT count(*), count(*) FILTER (WHERE state = 'copied'), coalesce(sum(bytes) FILTER (WHERE state = 'copied'), 0)::int8,
                    count(*) FILTER (WHERE state = 'copied' AND digest = target_digest AND bytes = target_bytes),
                    count(*) FILTER (WHERE state = 'missing'), count(*) FILTER (WHERE state = 'refused'),
                    coalesce(extract(epoch FROM max(done_at) - min(started_at)), 0)::float8
             FROM pgconvoy.objects WHERE migration = $1",
            &[&id],
        )
        .await
        .map_err(failed)?;
    let number = |at| row.get::<_, i64>(at) as u64;
    Ok((number(0) > 0).then(|| wire::ObjectsSummary {
        copied: number(1),
        bytes: number(2),
        proven: number(3),
        missing: number(4),
        refused: number(5),
        seconds: row.get(6),
    }))
}

async fn tables(session: &Session, id: &str) -> Result<Vec<Item>, Status> {
    let rows = session
        .query(
            "SELECT plan, coalesce(snapshot, ''), source_rows, source_bytes, source_digest,
                    target_rows, target_bytes, target_digest, left_rows, left_bytes, left_digest, converge
             FROM pgconvoy.tables WHERE migration = $1 ORDER BY schema, name",
            &[&id],
        )
        .await
        .map_err(failed)?;
    let mut items = Vec::with_capacity(rows.len());
    for row in rows {
        items.push(Item::Table(wire::LedgerTable {
            table: Some(from_json::<Table>(row.get(0))?.into()),
            snapshot: row.get(1),
            source_digest: digest(&row, 2)?.map(Into::into),
            target_digest: digest(&row, 5)?.map(Into::into),
            left_digest: digest(&row, 8)?.map(Into::into),
            converge: row.get(11),
        }));
    }
    Ok(items)
}

/// A part of an unlogged table is void when its mark is gone: the server crashed, and emptied the table too.
async fn parts(session: &Session, id: &str) -> Result<Vec<Item>, Status> {
    let rows = session
        .query(
            "SELECT p.table_oid, p.number, p.snapshot, p.rows, p.bytes, p.digest,
                    extract(epoch FROM p.committed_at - p.started_at)::float8,
                    (t.plan ->> 'unlogged')::bool AND NOT EXISTS (
                        SELECT FROM pgconvoy.unlogged_parts u
                        WHERE u.migration = p.migration AND u.table_oid = p.table_oid AND u.number = p.number)
             FROM pgconvoy.parts p JOIN pgconvoy.tables t ON t.migration = p.migration AND t.oid = p.table_oid
             WHERE p.migration = $1 ORDER BY 1, 2",
            &[&id],
        )
        .await
        .map_err(failed)?;
    let mut items = Vec::with_capacity(rows.len());
    for row in rows {
        items.push(Item::Part(wire::LedgerPart {
            table: row.get(0),
            number: row.get::<_, i32>(1) as u32,
            snapshot: row.get(2),
            digest: digest(&row, 3)?.map(Into::into),
            seconds: row.get::<_, Option<f64>>(6).unwrap_or(0.0),
            void: row.get(7),
        }));
    }
    Ok(items)
}

async fn steps(session: &Session, id: &str) -> Result<Vec<Item>, Status> {
    let rows = session
        .query(
            "SELECT number, work, state, coalesce(error, ''),
                    coalesce(extract(epoch FROM finished_at - started_at), 0)::float8
             FROM pgconvoy.steps WHERE migration = $1 ORDER BY number",
            &[&id],
        )
        .await
        .map_err(failed)?;
    let steps = rows.into_iter().map(|row| {
        Item::Step(wire::LedgerStep {
            step: Some(wire::Step {
                number: row.get::<_, i32>(0) as u32,
                work: to_json(&row.get::<_, serde_json::Value>(1)),
            }),
            state: row.get(2),
            error: row.get(3),
            seconds: row.get(4),
        })
    });
    Ok(steps.collect())
}

async fn findings(session: &Session, id: &str) -> Result<Vec<Item>, Status> {
    let rows = session
        .query(
            "SELECT severity, code, object, message, source_value, target_value, hint
             FROM pgconvoy.findings WHERE migration = $1 ORDER BY number",
            &[&id],
        )
        .await
        .map_err(failed)?;
    rows.into_iter()
        .map(|row| {
            let severity = Severity::parse(row.get(0)).ok_or_else(|| {
                Status::data_loss("the ledger holds a finding of unknown severity")
            })?;
            let finding = Finding::new(
                severity,
                row.get(1),
                row.get::<_, &str>(2),
                row.get::<_, &str>(3),
            )
            .values(row.get::<_, &str>(4), row.get::<_, &str>(5))
            .hint(row.get::<_, &str>(6));
            Ok(Item::Finding(finding.into()))
        })
        .collect()
}

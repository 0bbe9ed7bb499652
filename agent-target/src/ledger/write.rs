//! Writes the plan into the ledger, and the small changes after that.
use pgconvoy_agent_core::session::Session;
use pgconvoy_proto::model::{
    Digest, Entry, Finding, OF_ACCESS, OF_CHECKS, OF_COMPARISON, OF_OBJECTS, OF_PLATFORM,
    OF_SCHEMA, OF_STEPS, OF_SYNC, Options, SUPERSEDED, Step, SyncUnderWay, TOLD, Table, parse_json,
    required,
};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::plan_item::Item;
use pgconvoy_proto::wire::target_digest_request::Keep;
use tokio_postgres::types::Type;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::{failed, json};
use crate::before::Before;
use crate::facts;
use crate::sessions::Sessions;

/// Rows of the plan per statement.
const BATCH: usize = 500;

#[derive(Default)]
struct Batch {
    tables: Vec<Table>,
    steps: Vec<Step>,
    findings: Vec<Finding>,
}

/// Writes header, tables and steps in one transaction, and what the target is before the migration.
pub async fn create(
    sessions: &Sessions,
    mut items: impl Stream<Item = Result<wire::PlanItem, Status>> + Unpin,
) -> Result<(), Status> {
    let first = items.next().await.transpose()?.and_then(|item| item.item);
    let Some(Item::Header(header)) = first else {
        return Err(Status::invalid_argument("a plan begins with its header"));
    };
    let database = sessions.database(&header.id);
    let session = &database.connect("pgconvoy plan").await?;
    let before = Before::read(session).await.map_err(failed)?;
    session.batch_execute("BEGIN").await.map_err(failed)?;
    // Two coordinators at once: the second waits here, and then sees the first one's migration.
    session
        .batch_execute("SELECT pg_advisory_xact_lock(hashtext('pgconvoy'), hashtext('plan'))")
        .await
        .map_err(failed)?;
    session
        .batch_execute(include_str!("schema.sql"))
        .await
        .map_err(failed)?;
    refuse_unfinished(session).await?;
    let options: Options = parse_json(&header.options)?;
    if !options.skip_schema && !options.replace {
        refuse_objects(session, &options).await?;
    }
    supersede(session).await?;
    insert_header(session, &header).await?;
    insert_before(session, &header, &before).await?;
    let mut batch = Batch::default();
    while let Some(item) = items.next().await {
        match required(item?.item, "plan item")? {
            Item::Header(_) => return Err(Status::invalid_argument("a second header")),
            Item::Table(table) => batch.tables.push(table.try_into()?),
            Item::Step(step) => batch.steps.push(step.try_into()?),
            Item::Finding(finding) => batch.findings.push(finding.try_into()?),
        }
        if batch.tables.len() + batch.steps.len() >= BATCH {
            insert(session, &header, std::mem::take(&mut batch)).await?;
        }
    }
    insert(session, &header, batch).await?;
    session.batch_execute("COMMIT").await.map_err(failed)
}

async fn refuse_unfinished(session: &Session) -> Result<(), Status> {
    let unfinished = session
        .query_opt(
            "SELECT id FROM pgconvoy.migrations WHERE verdict IS NULL LIMIT 1",
            &[],
        )
        .await
        .map_err(failed)?;
    match unfinished {
        None => Ok(()),
        Some(row) => Err(Status::already_exists(format!(
            "migration {} is unfinished: run pgconvoy resume",
            row.get::<_, &str>(0)
        ))),
    }
}

/// Earlier migrations are not the latest any more, whatever becomes of the one that is planned, and whatever the clock says.
async fn supersede(session: &Session) -> Result<(), Status> {
    session
        .execute("UPDATE pgconvoy.migrations SET phase = $1", &[&SUPERSEDED])
        .await
        .map_err(failed)?;
    Ok(())
}

/// Somebody may have made something since preflight looked.
async fn refuse_objects(session: &Session, options: &Options) -> Result<(), Status> {
    let managed = options.tenancy.iter();
    let managed: Vec<String> = managed.flat_map(|of| of.schemas.clone()).collect();
    let objects = facts::objects(session, &managed).await.map_err(failed)?;
    match objects.first() {
        None => Ok(()),
        Some(first) => Err(Status::failed_precondition(format!(
            "the target database is not empty any more: {} objects ({first}); nothing is overwritten",
            objects.len()
        ))),
    }
}

async fn insert_before(
    session: &Session,
    header: &wire::MigrationHeader,
    before: &Before,
) -> Result<(), Status> {
    session
        .execute(
            "INSERT INTO pgconvoy.before (migration, target, backup) VALUES ($1, $2, nullif($3, ''))",
            &[&header.id, &json(before), &header.backup],
        )
        .await
        .map_err(failed)?;
    Ok(())
}

async fn insert_header(session: &Session, header: &wire::MigrationHeader) -> Result<(), Status> {
    let options: Options = parse_json(&header.options)?;
    let skipped: Vec<Entry> = header.skipped.iter().map(|entry| (*entry).into()).collect();
    session
        .execute(
            "INSERT INTO pgconvoy.migrations (id, source, source_version, options, skipped, snapshot)
             VALUES ($1, $2, $3, $4, $5, $6)",
            &[
                &header.id,
                &header.source,
                &(header.source_version as i32),
                &json(&options),
                &json(&skipped),
                &header.snapshot,
            ],
        )
        .await
        .map_err(failed)?;
    Ok(())
}

async fn insert(
    session: &Session,
    header: &wire::MigrationHeader,
    batch: Batch,
) -> Result<(), Status> {
    let plans: Vec<_> = batch.tables.iter().map(json).collect();
    session
        .execute(
            "INSERT INTO pgconvoy.tables (migration, oid, schema, name, plan, snapshot)
             SELECT $1, (p ->> 'oid')::oid, p ->> 'schema', p ->> 'name', p, $3 FROM unnest($2::jsonb[]) p",
            &[&header.id, &plans, &header.snapshot],
        )
        .await
        .map_err(failed)?;
    let numbers: Vec<i32> = batch.steps.iter().map(|step| step.number as i32).collect();
    let kinds: Vec<&str> = batch.steps.iter().map(|step| step.work.kind()).collect();
    let objects: Vec<String> = batch.steps.iter().map(|step| step.work.object()).collect();
    let works: Vec<_> = batch.steps.iter().map(|step| json(&step.work)).collect();
    session
        .execute(
            "INSERT INTO pgconvoy.steps (migration, number, kind, object, work)
             SELECT $1, s.* FROM unnest($2::int[], $3::text[], $4::text[], $5::jsonb[]) s",
            &[&header.id, &numbers, &kinds, &objects, &works],
        )
        .await
        .map_err(failed)?;
    findings(session, &header.id, &batch.findings).await
}

/// Adds findings, in place of earlier ones of the same code about the same object.
pub async fn findings(
    session: &Session,
    migration: &str,
    findings: &[Finding],
) -> Result<(), Status> {
    if findings.is_empty() {
        return Ok(());
    }
    let found: serde_json::Value = json(&findings);
    session
        .execute(
            "WITH found AS (
                 SELECT f.*, o.number FROM jsonb_array_elements($2::jsonb) WITH ORDINALITY o (finding, number)
                 CROSS JOIN jsonb_to_record(o.finding) f (severity text, code text, object text, message text,
                     source_value text, target_value text, hint text)
             ), earlier AS (
                 DELETE FROM pgconvoy.findings e USING found f
                 WHERE e.migration = $1 AND e.code = f.code AND e.object = f.object
             )
             INSERT INTO pgconvoy.findings
                 (migration, severity, code, object, message, source_value, target_value, hint)
             SELECT $1, severity, code, object, message, coalesce(source_value, ''), coalesce(target_value, ''),
                 coalesce(hint, '') FROM found ORDER BY number",
            &[&migration, &found],
        )
        .await
        .map_err(failed)?;
    Ok(())
}

/// The changes of a RecordRequest, in one transaction that is on the disk when this returns; and so is whatever committed before it.
/// False: nothing was written, somebody else drives the migration or has since (see RecordRequest.seen_snapshot).
pub async fn record(session: &Session, request: wire::RecordRequest) -> Result<bool, Status> {
    let sync = match request.sync.as_str() {
        "" => None,
        sync => Some(json(&parse_json::<SyncUnderWay>(sync)?)),
    };
    let options = match request.options.as_str() {
        "" => None,
        options => Some(json(&parse_json::<Options>(options)?)),
    };
    session
        .batch_execute("BEGIN; SET LOCAL synchronous_commit TO DEFAULT")
        .await
        .map_err(failed)?;
    if !request.seen_snapshot.is_empty() && !is_still_finished(session, &request).await? {
        session.batch_execute("ROLLBACK").await.map_err(failed)?;
        return Ok(false);
    }
    let changed = session
        .execute(
            "UPDATE pgconvoy.migrations SET
                 phase = coalesce(nullif($2, ''), phase),
                 snapshot = coalesce(nullif($3, ''), snapshot),
                 verdict = CASE WHEN $5::jsonb IS NOT NULL THEN NULL ELSE coalesce(nullif($4, ''), verdict) END,
                 finished_at = CASE WHEN $5::jsonb IS NOT NULL THEN NULL WHEN $4 <> '' THEN clock_timestamp()
                     ELSE finished_at END,
                 sync = CASE WHEN $4 <> '' THEN NULL ELSE coalesce($5, sync) END,
                 options = coalesce($6, options)
             WHERE id = $1",
            &[
                &request.migration,
                &request.phase,
                &request.snapshot,
                &request.verdict,
                &sync,
                &options,
            ],
        )
        .await
        .map_err(failed)?;
    if changed != 1 {
        return Err(Status::not_found(format!(
            "there is no migration {}",
            request.migration
        )));
    }
    session
        .execute(
            "DELETE FROM pgconvoy.tables WHERE migration = $1 AND oid = ANY ($2)",
            &[&request.migration, &request.gone],
        )
        .await
        .map_err(failed)?;
    record_tables(session, &request.migration, request.tables).await?;
    for step in request.steps {
        let step = Step::try_from(step)?;
        session
            .execute(
                "INSERT INTO pgconvoy.steps (migration, number, work, object, kind) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (migration, number) DO UPDATE
                 SET work = excluded.work, object = excluded.object, state = 'open', error = NULL",
                &[
                    &request.migration,
                    &(step.number as i32),
                    &json(&step.work),
                    &step.work.object(),
                    &step.work.kind(),
                ],
            )
            .await
            .map_err(failed)?;
    }
    session
        .execute(
            "DELETE FROM pgconvoy.findings WHERE migration = $1 AND object = ANY ($2)
             AND code = ANY ($3)",
            &[
                &request.migration,
                &request.compared,
                &[
                    OF_ACCESS,
                    OF_CHECKS,
                    OF_COMPARISON,
                    OF_OBJECTS,
                    OF_PLATFORM,
                    OF_SCHEMA,
                    OF_STEPS,
                    OF_SYNC,
                    &[TOLD],
                ]
                .concat(),
            ],
        )
        .await
        .map_err(failed)?;
    let new: Result<Vec<Finding>, _> = request
        .findings
        .into_iter()
        .map(Finding::try_from)
        .collect();
    findings(session, &request.migration, &new?).await?;
    session.batch_execute("COMMIT").await.map_err(failed)?;
    Ok(true)
}

/// And stays so until the transaction ends.
async fn is_still_finished(
    session: &Session,
    request: &wire::RecordRequest,
) -> Result<bool, Status> {
    let found = session
        .query_opt(
            "SELECT FROM pgconvoy.migrations
             WHERE id = $1 AND snapshot = $2 AND verdict IS NOT NULL AND sync IS NULL FOR UPDATE",
            &[&request.migration, &request.seen_snapshot],
        )
        .await
        .map_err(failed)?;
    Ok(found.is_some())
}

/// All of them at once: there may be tens of thousands.
async fn record_tables(
    session: &Session,
    migration: &str,
    records: Vec<wire::RecordTable>,
) -> Result<(), Status> {
    if records.is_empty() {
        return Ok(());
    }
    let converging = records.iter().filter(|record| record.converge);
    let converging: Vec<u32> = converging.map(|record| record.table).collect();
    if !converging.is_empty() {
        // A part on its way commits, or finds that its snapshot is not the table's any more.
        session
            .execute(
                "SELECT FROM pgconvoy.tables WHERE migration = $1 AND oid = ANY ($2) FOR UPDATE",
                &[&migration, &converging],
            )
            .await
            .map_err(failed)?;
    }
    let mut columns = Records::default();
    for record in records {
        columns.push(record)?;
    }
    session
        .execute(
            "UPDATE pgconvoy.tables t SET snapshot = coalesce(nullif(r.snapshot, ''), t.snapshot),
                 plan = coalesce(r.plan, t.plan), source_rows = r.rows, source_bytes = r.bytes, source_digest = r.digest,
                 left_rows = CASE WHEN r.equal THEN r.rows ELSE left_rows END,
                 left_bytes = CASE WHEN r.equal THEN r.bytes ELSE left_bytes END,
                 left_digest = CASE WHEN r.equal THEN r.digest ELSE left_digest END,
                 target_rows = CASE WHEN r.equal THEN r.rows WHEN r.converge THEN NULL ELSE target_rows END,
                 target_bytes = CASE WHEN r.equal THEN r.bytes WHEN r.converge THEN NULL ELSE target_bytes END,
                 target_digest = CASE WHEN r.equal THEN r.digest WHEN r.converge THEN NULL ELSE target_digest END,
                 verified_at = CASE WHEN r.equal THEN clock_timestamp() WHEN r.converge THEN NULL ELSE verified_at END,
                 converge = NOT r.equal AND (t.converge OR r.converge AND EXISTS (
                     SELECT FROM pgconvoy.parts p WHERE p.migration = t.migration AND p.table_oid = t.oid))
             FROM unnest($2::oid[], $3::text[], $4::jsonb[], $5::int8[], $6::int8[], $7::text[], $8::bool[], $9::bool[])
                 r (oid, snapshot, plan, rows, bytes, digest, equal, converge)
             WHERE t.migration = $1 AND t.oid = r.oid",
            &[
                &migration,
                &columns.oid,
                &columns.snapshot,
                &columns.plan,
                &columns.rows,
                &columns.bytes,
                &columns.digest,
                &columns.equal,
                &columns.converge,
            ],
        )
        .await
        .map_err(failed)?;
    Ok(())
}

/// Column by column.
#[derive(Default)]
struct Records {
    oid: Vec<u32>,
    snapshot: Vec<String>,
    plan: Vec<Option<serde_json::Value>>,
    rows: Vec<Option<i64>>,
    bytes: Vec<Option<i64>>,
    digest: Vec<Option<String>>,
    equal: Vec<bool>,
    converge: Vec<bool>,
}

impl Records {
    fn push(&mut self, record: wire::RecordTable) -> Result<(), Status> {
        let source = record.source_digest.map(Digest::try_from).transpose()?;
        let planned = record.planned.map(Table::try_from).transpose()?;
        self.oid.push(record.table);
        self.snapshot.push(record.snapshot);
        self.plan.push(planned.as_ref().map(json));
        self.rows.push(source.map(|d| d.rows as i64));
        self.bytes.push(source.map(|d| d.bytes as i64));
        self.digest.push(source.map(|d| d.hex()));
        self.equal.push(record.equal);
        self.converge.push(record.converge);
        Ok(())
    }
}

/// What the target agent read back of a table.
pub async fn target_digest(
    session: &Session,
    migration: &str,
    table: u32,
    digest: Digest,
    keep: Keep,
) -> Result<(), Status> {
    session
        .execute_typed(
            "UPDATE pgconvoy.tables SET target_rows = $3, target_bytes = $4, target_digest = $5,
                 verified_at = clock_timestamp(),
                 left_rows = CASE WHEN $6 THEN $3 ELSE left_rows END,
                 left_bytes = CASE WHEN $6 THEN $4 ELSE left_bytes END,
                 left_digest = CASE WHEN $6 THEN $5 ELSE left_digest END
             WHERE migration = $1 AND oid = $2
               AND (NOT $7 OR EXISTS (SELECT FROM pgconvoy.migrations WHERE id = $1 AND verdict IS NOT NULL))",
            &[
                (&migration, Type::TEXT),
                (&table, Type::OID),
                (&(digest.rows as i64), Type::INT8),
                (&(digest.bytes as i64), Type::INT8),
                (&digest.hex(), Type::TEXT),
                (&(keep == Keep::Left), Type::BOOL),
                (&(keep == Keep::Seen), Type::BOOL),
            ],
        )
        .await
        .map_err(failed)?;
    Ok(())
}

/// A step's state, and when it began or ended.
pub async fn step_state(
    session: &Session,
    migration: &str,
    numbers: &[u32],
    state: &str,
    error: Option<&str>,
) -> Result<(), Status> {
    let numbers: Vec<i32> = numbers.iter().map(|number| *number as i32).collect();
    session
        .execute(
            "UPDATE pgconvoy.steps SET state = $3, error = $4,
                 started_at = CASE WHEN $3 = 'running' THEN clock_timestamp() ELSE started_at END,
                 finished_at = CASE WHEN $3 = 'running' THEN NULL ELSE clock_timestamp() END
             WHERE migration = $1 AND number = ANY ($2)",
            &[&migration, &numbers, &state, &error],
        )
        .await
        .map_err(failed)?;
    Ok(())
}

/// The schema archive is in the data dir, whole.
pub async fn archive_received(session: &Session, migration: &str) -> Result<(), Status> {
    session
        .execute(
            "UPDATE pgconvoy.migrations SET archive_at = clock_timestamp() WHERE id = $1",
            &[&migration],
        )
        .await
        .map_err(failed)?;
    Ok(())
}

//! Whether what the catalog promises is so. PostgreSQL does not look at rows that were loaded under a foreign key's nose, nor does
//! anybody else: keys are read for rows that refer to nothing, validated or not.
use std::collections::HashSet;

use pgconvoy_agent_core::database::Database;
use pgconvoy_agent_core::inventory::built;
use pgconvoy_agent_core::session::{Session, qualified};
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{Finding, ForeignKey, Selection, Severity};
use pgconvoy_proto::selection::Filter;
use pgconvoy_proto::wire;
use tokio_postgres::Error;
use tonic::Status;

use crate::steps::foreign_key;

/// Of user tables: schema, table, name, whether it is as it should be. Foreign keys are read, not only looked up.
const CONSTRAINTS: &str = "
    SELECT n.nspname::text, c.relname::text, k.conname::text, k.convalidated
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE k.contype <> 'f' AND c.relpersistence <> 't' ORDER BY 1, 2, 3";
const INDEXES: &str = "
    SELECT n.nspname::text, c.relname::text, x.relname::text, i.indisvalid AND i.indisready AND i.indislive
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relpersistence <> 't' AND c.relkind <> 'p' ORDER BY 1, 2, 3";
const PARTITIONED_INDEXES: &str = "
    SELECT n.nspname::text, c.relname::text, x.relname::text, i.indisvalid
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'p' ORDER BY 1, 2, 3";
const POLICIES: &str = "
    SELECT n.nspname::text, c.relname::text, p.polname::text, c.relrowsecurity
    FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 1, 2, 3";

/// What every one of the selections admits.
struct Scope(Vec<Filter>);

impl Scope {
    fn admits(&self, schema: &str, table: &str) -> bool {
        let ours = schema == "pgconvoy" || schema == "pg_catalog" || schema == "information_schema";
        let toast = schema.starts_with("pg_toast");
        !ours && !toast && self.0.iter().all(|filter| filter.admits(schema, table))
    }
}

pub async fn check(
    database: &Database,
    selections: Vec<Selection>,
) -> Result<wire::IntegrityResponse, Status> {
    let filters: Result<Vec<Filter>, _> = selections.iter().map(Filter::new).collect();
    let filters = filters.map_err(|error| Status::invalid_argument(error.to_string()))?;
    let session = database.connect("pgconvoy verify").await?;
    look(&session, &Scope(filters))
        .await
        .map_err(|error| status::postgres("looking at constraints and indexes", &error))
}

async fn look(session: &Session, scope: &Scope) -> Result<wire::IntegrityResponse, Error> {
    let mut findings = Vec::new();
    let foreign_keys = foreign_keys(session, scope, &mut findings).await?;
    let (constraints, open) = states(session, scope, CONSTRAINTS).await?;
    findings.extend(open.into_iter().map(|name| {
        Finding::new(
            Severity::Warning,
            "not-validated",
            name,
            "the constraint is not validated",
        )
        .hint("ALTER TABLE ... VALIDATE CONSTRAINT, when its rows are mended")
    }));
    let (indexes, invalid) = states(session, scope, INDEXES).await?;
    findings.extend(invalid.into_iter().map(|name| {
        Finding::new(
            Severity::Difference,
            "index-invalid",
            name,
            "no query uses the index: it is not valid",
        )
        .hint("REINDEX INDEX")
    }));
    let (partitioned, incomplete) = states(session, scope, PARTITIONED_INDEXES).await?;
    findings.extend(incomplete.into_iter().map(|name| {
        let what = "the index is not valid: a partition has none that is attached to it";
        Finding::new(Severity::Warning, "index-invalid", name, what)
            .hint("ALTER INDEX ... ATTACH PARTITION, if the source has it; verify compares the two")
    }));
    let (policies, idle) = states(session, scope, POLICIES).await?;
    findings.extend(idle.into_iter().map(|name| {
        let what = "the policy does nothing: row level security is off on its table";
        Finding::new(Severity::Warning, "policy-idle", name, what)
            .hint("ALTER TABLE ... ENABLE ROW LEVEL SECURITY, if the source has it")
    }));
    Ok(wire::IntegrityResponse {
        findings: findings.into_iter().map(Into::into).collect(),
        foreign_keys,
        constraints,
        indexes: indexes + partitioned,
        policies,
    })
}

/// How many there are, and those that are not as they should be, as `schema.table: name`.
async fn states(
    session: &Session,
    scope: &Scope,
    query: &str,
) -> Result<(u32, Vec<String>), Error> {
    let (mut count, mut not) = (0, Vec::new());
    for row in session.query(query, &[]).await? {
        let (schema, table, name): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
        if !scope.admits(schema, table) {
            continue;
        }
        count += 1;
        if !row.get::<_, bool>(3) {
            not.push(format!("{schema}.{table}: {name}"));
        }
    }
    Ok((count, not))
}

async fn foreign_keys(
    session: &Session,
    scope: &Scope,
    findings: &mut Vec<Finding>,
) -> Result<u32, Error> {
    let (keys, _) = built::foreign_keys(session, &HashSet::new()).await?;
    let mut count = 0;
    for key in keys
        .iter()
        .filter(|key| scope.admits(&key.schema, &key.table))
    {
        count += 1;
        let table = qualified(&key.schema, &key.table);
        let (orphans, sample) = foreign_key::orphans(session, key, &table).await?;
        findings.extend(told(key, orphans, &sample));
    }
    Ok(count)
}

fn told(key: &ForeignKey, orphans: i64, sample: &str) -> Option<Finding> {
    let object = format!("{}.{}: {}", key.schema, key.table, key.name);
    let referenced = format!("{}.{}", key.referenced_schema, key.referenced_table);
    match (orphans, key.validated) {
        (0, true) => None,
        (0, false) => Some(
            Finding::new(
                Severity::Warning,
                "not-validated",
                object,
                "the foreign key is not validated, and has no orphans",
            )
            .hint("ALTER TABLE ... VALIDATE CONSTRAINT"),
        ),
        (_, validated) => {
            let severity = if validated {
                Severity::Difference
            } else {
                Severity::Warning
            };
            let what =
                format!("{orphans} rows refer to nothing in {referenced} (for example {sample})");
            Some(
                Finding::new(severity, "orphans", object, what).hint(
                    "mend the rows; a key that is validated and has orphans was loaded around",
                ),
            )
        }
    }
}

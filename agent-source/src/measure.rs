//! Counts rows that the other end may have no room for: one scan of each table that is asked about.
use pgconvoy_agent_core::database::Database;
use pgconvoy_agent_core::session::{Session, qualified, quote_ident, quote_literal};
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{Count, Counted, Question};
use tokio_postgres::Error;
use tonic::Status;

pub async fn measure(database: &Database, questions: &[Question]) -> Result<Counted, Status> {
    let session = database.connect("pgconvoy preflight").await?;
    session
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await
        .map_err(|error| status::postgres("counting rows", &error))?;
    let mut counted = Counted::new();
    for question in questions {
        let what = format!("counting rows of {}.{}", question.schema, question.name);
        let answer = ask(&session, question).await;
        counted.push(answer.map_err(|error| status::postgres(&what, &error))?);
    }
    Ok(counted)
}

async fn ask(session: &Session, question: &Question) -> Result<Option<Vec<Option<u64>>>, Error> {
    let name = qualified(&question.schema, &question.name);
    let readable = "SELECT FROM pg_class c WHERE c.oid = to_regclass($1)
        AND has_schema_privilege(c.relnamespace, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AND NOT row_security_active(c.oid)";
    if session.query_opt(readable, &[&name]).await?.is_none() {
        return Ok(None);
    }
    // One scan for all that are about a row by itself.
    let counts: Vec<String> = question.counts.iter().filter_map(sql).collect();
    let query = format!("SELECT {} FROM {name}", counts.join(", "));
    let row = session.query_one(&query, &[]).await?;
    let mut counted = (0..counts.len()).map(|at| row.get::<_, i64>(at) as u64);
    let mut all = Vec::new();
    for count in &question.counts {
        all.push(match foreign(count, &name) {
            Some(query) => attempt(session, &query).await?,
            None => counted.next(),
        });
    }
    Ok(Some(all))
}

/// None: this database does not take it.
async fn attempt(session: &Session, query: &str) -> Result<Option<u64>, Error> {
    session.batch_execute("SAVEPOINT counting").await?;
    match session.query_one(query, &[]).await {
        Ok(row) => {
            session.batch_execute("RELEASE counting").await?;
            Ok(Some(row.get::<_, i64>(0) as u64))
        }
        Err(error) if error.as_db_error().is_some() => {
            session.batch_execute("ROLLBACK TO counting").await?;
            tracing::info!(query, reason = %status::postgres_text(&error), "not counted");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What is asked in SQL of the other end's catalog: a query of its own, which may fail here. The transaction is READ ONLY.
fn foreign(count: &Count, name: &str) -> Option<String> {
    match count {
        Count::Refused { by } => Some(format!("SELECT count(*) FROM {name} WHERE NOT ({by})")),
        Count::Surplus {
            keys,
            predicate,
            nulls_equal,
        } => {
            let mut conditions: Vec<String> = predicate.iter().map(|p| format!("({p})")).collect();
            if !nulls_equal {
                conditions.extend(keys.iter().map(|key| format!("{key} IS NOT NULL")));
            }
            let conditions = match conditions.is_empty() {
                true => String::new(),
                false => format!("WHERE {}", conditions.join(" AND ")),
            };
            Some(format!(
                "SELECT coalesce(sum(n - 1), 0)::int8 FROM (SELECT count(*) AS n FROM {name} {conditions} GROUP BY {}) k",
                keys.join(", ")
            ))
        }
        _ => None,
    }
}

/// Values are compared as text: not every type has an equality. None: see [`foreign`].
fn sql(count: &Count) -> Option<String> {
    let condition = match count {
        Count::Rows => return Some("count(*)".into()),
        Count::Refused { .. } | Count::Surplus { .. } => return None,
        Count::Data { column, default } => {
            let column = quote_ident(column);
            match default {
                Some(default) => format!("{column}::text <> ({default})::text"),
                None => format!("{column} IS NOT NULL"),
            }
        }
        Count::Labels { column, labels } => {
            let labels: Vec<String> = labels.iter().map(|label| quote_literal(label)).collect();
            format!(
                "{}::text = ANY (ARRAY[{}]::text[])",
                quote_ident(column),
                labels.join(", ")
            )
        }
        Count::Nulls { column } => format!("{} IS NULL", quote_ident(column)),
        Count::Encrypted { column } => {
            format!("{}::text ~ '^\\s*[{{].*[}}]\\s*$'", quote_ident(column))
        }
    };
    Some(format!("count(*) FILTER (WHERE {condition})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_column_holds_is_counted_as_text() {
        let data = |default: Option<&str>| Count::Data {
            column: "a\"b".into(),
            default: default.map(str::to_owned),
        };
        assert_eq!(
            sql(&data(Some("'{}'::jsonb"))).as_deref(),
            Some("count(*) FILTER (WHERE \"a\"\"b\"::text <> ('{}'::jsonb)::text)")
        );
        assert!(sql(&data(None)).is_some_and(|sql| sql.contains("IS NOT NULL")));
        let labels = Count::Labels {
            column: "f".into(),
            labels: vec!["it's".into()],
        };
        assert!(sql(&labels).is_some_and(|sql| sql.contains("ARRAY['it''s']")));
    }
}

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

async fn ask(session: &Session, question: &Question) -> Result<Option<Vec<u64>>, Error> {
    let name = qualified(&question.schema, &question.name);
    let readable = "SELECT FROM pg_class c WHERE c.oid = to_regclass($1)
        AND has_schema_privilege(c.relnamespace, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AND NOT row_security_active(c.oid)";
    if session.query_opt(readable, &[&name]).await?.is_none() {
        return Ok(None);
    }
    let counts: Vec<String> = question.counts.iter().map(sql).collect();
    let query = format!("SELECT {} FROM {name}", counts.join(", "));
    let row = session.query_one(&query, &[]).await?;
    let each = (0..question.counts.len()).map(|at| row.get::<_, i64>(at) as u64);
    Ok(Some(each.collect()))
}

/// Values are compared as text: not every type has an equality.
fn sql(count: &Count) -> String {
    let condition = match count {
        Count::Rows => return "count(*)".into(),
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
    format!("count(*) FILTER (WHERE {condition})")
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
            sql(&data(Some("'{}'::jsonb"))),
            "count(*) FILTER (WHERE \"a\"\"b\"::text <> ('{}'::jsonb)::text)"
        );
        assert!(sql(&data(None)).contains("IS NOT NULL"));
        let labels = Count::Labels {
            column: "f".into(),
            labels: vec!["it's".into()],
        };
        assert!(sql(&labels).contains("ARRAY['it''s']"));
    }
}

//! Asks for the rows of tables as one identity. An answer is the digest of all the rows that it sees, or that there are more than are read.
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use pgconvoy_proto::model::{AccessAnswer, AskedTable, Format, ProbeAsked, Probed};
use tokio_postgres::Error;
use tonic::Status;

use super::{become_role, failed, is_timeout, refusal};
use crate::rows::RowDigester;
use crate::session::{Session, qualified, quote_ident};

/// In the READ ONLY transaction that the session is in; the session is closed.
pub async fn probe(session: Session, asked: &ProbeAsked) -> Result<Probed, Status> {
    if let Err(error) = disguise(&session, asked).await {
        session.close().await;
        return Ok(Probed::NotAllowed(refusal(error)?.told));
    }
    let begun = Instant::now();
    let budget = Duration::from_millis(asked.budget_ms.into());
    let mut answers = Vec::new();
    session
        .batch_execute("SAVEPOINT asked")
        .await
        .map_err(failed)?;
    for table in &asked.tables {
        answers.push(match begun.elapsed() < budget {
            true => ask(&session, table, asked).await?,
            false => AccessAnswer::NotAsked,
        });
    }
    session.close().await;
    Ok(Probed::Answers(answers))
}

/// The agents' sessions are pinned to fail where a policy applies; this one is to obey it.
async fn disguise(session: &Session, asked: &ProbeAsked) -> Result<(), Error> {
    let limit = asked.timeout_ms;
    session
        .batch_execute(&format!(
            "SET LOCAL row_security = on; SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = {limit}"
        ))
        .await?;
    for (name, value) in &asked.settings {
        session
            .execute("SELECT pg_catalog.set_config($1, $2, true)", &[name, value])
            .await?;
    }
    become_role(session, &asked.role).await
}

/// One table. Whatever a policy's function has set, or has left broken, is undone.
async fn ask(
    session: &Session,
    table: &AskedTable,
    asked: &ProbeAsked,
) -> Result<AccessAnswer, Status> {
    let answer = match read(session, table, asked).await {
        Ok(answer) => answer?,
        Err(error) if is_timeout(&error) => AccessAnswer::TimedOut,
        Err(error) => AccessAnswer::Refused(refusal(error)?),
    };
    session
        .batch_execute("ROLLBACK TO SAVEPOINT asked")
        .await
        .map_err(failed)?;
    Ok(answer)
}

async fn read(
    session: &Session,
    table: &AskedTable,
    asked: &ProbeAsked,
) -> Result<Result<AccessAnswer, Status>, Error> {
    let mut data = pin!(session.copy_out(&copy_out(table, asked.rows)).await?);
    // As text: it does not depend on OIDs.
    let mut rows = RowDigester::new(Format::Text);
    let mut bytes = 0;
    while let Some(piece) = data.try_next().await? {
        bytes += piece.len() as u64;
        if bytes > asked.bytes.into() {
            // What is on its way is thrown away; there is a limit to it, of rows and of time.
            return Ok(Ok(AccessAnswer::Many));
        }
        if let Err(error) = rows.feed(&piece) {
            return Ok(Err(Status::internal(format!("{table}: {error}"))));
        }
    }
    Ok(match rows.finish() {
        Ok(digest) if digest.rows > asked.rows.into() => Ok(AccessAnswer::Many),
        Ok(digest) => Ok(AccessAnswer::Rows(digest)),
        Err(error) => Err(Status::internal(format!("{table}: {error}"))),
    })
}

/// One row more than are read: then there are more. Partitions and children are in it, as in an application's query.
fn copy_out(table: &AskedTable, rows: u32) -> String {
    let columns: Vec<String> = table.columns.iter().map(|name| quote_ident(name)).collect();
    let filter = match &table.filter {
        Some(filter) => format!(" WHERE ({filter})"),
        None => String::new(),
    };
    format!(
        "COPY (SELECT {} FROM {}{filter} LIMIT {}) TO STDOUT",
        columns.join(", "),
        qualified(&table.schema, &table.name),
        u64::from(rows) + 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_its_columns_and_ends_one_row_after_its_limit() {
        let table = AskedTable {
            schema: "s".into(),
            name: "t".into(),
            columns: vec!["id".into(), "A".into()],
            filter: Some("a OR b".into()),
        };
        assert_eq!(
            copy_out(&table, 5),
            "COPY (SELECT \"id\", \"A\" FROM \"s\".\"t\" WHERE (a OR b) LIMIT 6) TO STDOUT"
        );
    }
}

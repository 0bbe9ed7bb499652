//! Asks the database what a business check wants to know. It cannot write: one statement, which must return rows, in a READ ONLY
//! transaction that is undone; and the session ends with it, so that nothing it has set lives on.
use futures_util::{TryStreamExt, pin_mut};
use pgconvoy_proto::model::{Answer, Ask, Refusal, Rows, Why};
use tokio_postgres::error::{ErrorPosition, SqlState};
use tokio_postgres::{Error, SimpleQueryMessage, SimpleQueryRow};
use tonic::Status;
use xxhash_rust::xxh3::Xxh3;

use crate::database::Database;
use crate::session::Session;
use crate::status;

const SHOWN_ROWS: usize = 5;
const SHOWN_CHARACTERS: usize = 100;

/// A session for one check of the database as it is now.
pub async fn begin(database: &Database) -> Result<Session, Status> {
    let session = database.connect("pgconvoy check").await?;
    session
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await
        .map_err(|error| status::postgres("beginning a check", &error))?;
    Ok(session)
}

/// Asks, in the READ ONLY transaction that the session is in, and closes the session.
pub async fn run(session: Session, ask: &Ask) -> Result<Answer, Status> {
    let answer = match query(&session, ask).await {
        Ok(answer) => answer,
        Err(error) => match refusal(&ask.sql, &error) {
            Some(refusal) => Answer::Refused(refusal),
            None => return Err(status::postgres("running a check", &error)),
        },
    };
    session.close().await;
    Ok(answer)
}

async fn query(session: &Session, ask: &Ask) -> Result<Answer, Error> {
    let limit = format!("SET LOCAL statement_timeout = {}", ask.timeout_ms);
    session.batch_execute(&limit).await?;
    // Refuses more than one statement: the next one could end the transaction, and write.
    let prepared = session.prepare(&ask.sql).await?;
    if prepared.columns().is_empty() {
        // COPY ... TO PROGRAM is allowed in a READ ONLY transaction.
        return Ok(Answer::Refused(Refusal {
            why: Why::Writes,
            message: "it is no query: it returns no columns".into(),
            line: None,
        }));
    }
    let mut rows = Rows::default();
    if ask.prepare_only {
        return Ok(Answer::Rows(rows));
    }
    // Values as text, whatever their types.
    let messages = session.simple_query_raw(&ask.sql).await?;
    pin_mut!(messages);
    while let Some(message) = messages.try_next().await? {
        if let SimpleQueryMessage::Row(row) = message {
            add(&mut rows, &row);
        }
    }
    Ok(Answer::Rows(rows))
}

fn add(rows: &mut Rows, row: &SimpleQueryRow) {
    rows.sum = rows.sum.wrapping_add(digest(row));
    rows.rows += 1;
    let value = (!row.is_empty()).then(|| row.get(0)).flatten();
    let shown = value.map(|text| text.chars().take(SHOWN_CHARACTERS).collect::<String>());
    rows.single = if rows.rows == 1 && row.len() == 1 {
        shown.clone()
    } else {
        None
    };
    if rows.first.len() < SHOWN_ROWS {
        rows.first.push(shown.unwrap_or_else(|| "NULL".into()));
    }
}

/// Lengths keep values apart; null is no text.
fn digest(row: &SimpleQueryRow) -> u128 {
    let mut hash = Xxh3::new();
    for at in 0..row.len() {
        match row.get(at) {
            Some(value) => {
                hash.update(&(value.len() as u64).to_be_bytes());
                hash.update(value.as_bytes());
            }
            None => hash.update(&u64::MAX.to_be_bytes()),
        }
    }
    hash.digest128()
}

/// What PostgreSQL said against the query; none: it did not speak of it.
fn refusal(sql: &str, error: &Error) -> Option<Refusal> {
    let refused = error.as_db_error()?;
    let why = match refused.code() {
        &SqlState::SYNTAX_ERROR => Why::Syntax,
        &SqlState::READ_ONLY_SQL_TRANSACTION => Why::Writes,
        &SqlState::QUERY_CANCELED => Why::Timeout,
        state if ["08", "57"].contains(&&state.code()[..2]) => return None,
        _ => Why::Other,
    };
    Some(Refusal {
        why,
        message: status::postgres_text(error),
        line: line(sql, refused.position()),
    })
}

fn line(sql: &str, position: Option<&ErrorPosition>) -> Option<u32> {
    let Some(ErrorPosition::Original(at)) = position else {
        return None;
    };
    let before = sql.chars().take((*at as usize).saturating_sub(1));
    Some(before.filter(|c| *c == '\n').count() as u32 + 1)
}

//! What a user may see, asked of the database as that user: under its role, with its claims, the application's settings, and row level
//! security in force. Everything happens in a READ ONLY transaction that is undone, in a session that ends with it.
//!
//! Claims are personal. They are parameters of statements here, and part of no error and no log.
mod probe;
mod rights;
mod sample;

use pgconvoy_proto::model::AccessRefusal;
use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};
use tonic::Status;
use xxhash_rust::xxh3::xxh3_128;

use crate::database::Database;
use crate::session::{Session, quote_ident};
use crate::status;

pub use probe::probe;
pub use rights::rights;
pub use sample::sample;

/// A session for one identity, of the database as it is now.
pub async fn begin(database: &Database) -> Result<Session, Status> {
    let session = database.connect("pgconvoy access").await?;
    session
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await
        .map_err(failed)?;
    Ok(session)
}

fn failed(error: Error) -> Status {
    status::postgres("asking what users may see", &error)
}

/// Becomes the role until the transaction, or the savepoint before it, is undone.
async fn become_role(session: &Session, role: &str) -> Result<(), Error> {
    let set = format!("SET LOCAL ROLE {}", quote_ident(role));
    session.batch_execute(&set).await
}

/// What PostgreSQL said against it; an error when it did not speak of it: the connection, the server, its resources.
fn refusal(error: Error) -> Result<AccessRefusal, Status> {
    match error.as_db_error() {
        Some(said) if !["08", "53", "57", "58"].contains(&&said.code().code()[..2]) => {
            Ok(AccessRefusal {
                code: said.code().code().to_owned(),
                raised: is_raised(said)
                    .then(|| format!("{:032x}", xxh3_128(said.message().as_bytes()))),
                told: told(said),
            })
        }
        _ => Err(failed(error)),
    }
}

/// By RAISE of a function: the words are the user's.
fn is_raised(said: &DbError) -> bool {
    said.code().code().starts_with("P0") || said.routine() == Some("exec_stmt_raise")
}

/// Messages may hold values of rows. The server's own about names, rights and syntax do not.
fn told(said: &DbError) -> String {
    let code = said.code().code();
    if code.starts_with("42") && !is_raised(said) {
        format!("{} [SQLSTATE {code}]", said.message())
    } else {
        format!("SQLSTATE {code}")
    }
}

fn is_timeout(error: &Error) -> bool {
    [
        Some(&SqlState::QUERY_CANCELED),
        Some(&SqlState::LOCK_NOT_AVAILABLE),
    ]
    .contains(&error.code())
}

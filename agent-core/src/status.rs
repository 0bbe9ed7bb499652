//! Errors of the agents as gRPC status: the one place that decides what a caller may retry.
//!
//! UNAVAILABLE, ABORTED and DATA_LOSS may be retried at once, OUT_OF_RANGE when other tables are there; FAILED_PRECONDITION asks for
//! `resume`; the rest is for a person.
use std::error::Error as _;

use tokio_postgres::error::SqlState;
use tonic::{Code, Status};

use crate::{database, scan, snapshot, storage};

/// What PostgreSQL, or the way to it, said: message, detail, hint and SQLSTATE in one line.
pub fn postgres_text(error: &tokio_postgres::Error) -> String {
    let Some(db) = error.as_db_error() else {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        return text;
    };
    let mut text = format!("{}: {}", db.severity(), db.message());
    for more in [db.detail(), db.hint()].into_iter().flatten() {
        text = format!("{text} ({more})");
    }
    text = format!("{text} [SQLSTATE {}]", db.code().code());
    if db.code() == &SqlState::LOCK_NOT_AVAILABLE {
        text += ": somebody holds a lock on this table, or waits for one (pg_stat_activity says who): end that, or wait for it, and try again";
    }
    text
}

/// `doing` says what was attempted: "loading public.users, part 3".
pub fn postgres(doing: &str, error: &tokio_postgres::Error) -> Status {
    Status::new(
        postgres_code(error),
        format!("{doing}: {}", postgres_text(error)),
    )
}

fn postgres_code(error: &tokio_postgres::Error) -> Code {
    error
        .code()
        .map_or(Code::Unavailable, |state| state_code(state.code()))
}

/// INTERNAL is left to what PostgreSQL refuses for what it is. Somebody who cancels a statement, a deadlock, a server that stops, a disk that
/// is full or fails refuse nothing.
fn state_code(state: &str) -> Code {
    match (state, &state[..2]) {
        // A library or an extension's file that the server does not have: a refusal.
        ("58P01", _) => Code::Internal,
        // query_canceled, and what becomes of transactions beside others.
        ("57014", _) | (_, "40") => Code::Aborted,
        // too_many_connections; connections, and operators who stop the server or end sessions.
        ("53300", _) | (_, "08" | "57") => Code::Unavailable,
        // Disk, memory, locks; the system's own errors, of its disks above all.
        (_, "53" | "58") => Code::ResourceExhausted,
        _ => Code::Internal,
    }
}

/// Whether PostgreSQL would say the same again: not where the connection, the server or another session was in the way.
pub fn is_refusal(error: &tokio_postgres::Error) -> bool {
    postgres_code(error) == Code::Internal
}

/// Classes of SQLSTATE that may be a row's own: what PL/pgSQL raises, cardinality, data, integrity.
const OF_A_ROW: &[&str] = &["P0", "21", "22", "23"];

/// Of a row that PostgreSQL would not take: OUT_OF_RANGE where it may be taken later. The function of a check constraint, domain or
/// generated column may read tables that are not loaded yet, and say in any of these ways that it misses something; where foreign
/// keys fire they may refer to them.
pub fn of_row(doing: &str, error: &tokio_postgres::Error) -> Status {
    let status = postgres(doing, error);
    match error.code() {
        Some(state) if OF_A_ROW.contains(&&state.code()[..2]) => {
            Status::out_of_range(status.message())
        }
        _ => status,
    }
}

/// What the Storage API said. What might have passed was tried often enough by then.
pub fn storage(doing: &str, error: storage::Error) -> Status {
    use storage::Error;
    let code = match error {
        Error::Key(_) => Code::PermissionDenied,
        // The file is to be sent again, from its beginning.
        Error::Changed | Error::Lost(_) => Code::Aborted,
        Error::NotFound(_) | Error::TooLarge(_) | Error::Refused(_) | Error::Passing { .. } => {
            Code::Internal
        }
    };
    Status::new(code, format!("{doing}: {error}"))
}

impl From<database::Error> for Status {
    fn from(error: database::Error) -> Self {
        let code = if error.transient() {
            Code::Unavailable
        } else {
            Code::Internal
        };
        Self::new(code, error.to_string())
    }
}

impl From<snapshot::Error> for Status {
    fn from(error: snapshot::Error) -> Self {
        match error {
            snapshot::Error::Database(error) => error.into(),
            snapshot::Error::Postgres(error) => postgres("reading under the snapshot", &error),
            snapshot::Error::Lost => Self::failed_precondition(error.to_string()),
            snapshot::Error::Unstable(_) => Self::aborted(error.to_string()),
        }
    }
}

impl From<scan::Error> for Status {
    fn from(error: scan::Error) -> Self {
        match error {
            scan::Error::Snapshot(error) => error.into(),
            scan::Error::Postgres(error) => postgres("digesting", &error),
            scan::Error::Rows { .. } => Self::internal(error.to_string()),
            scan::Error::Spill { .. } => Self::resource_exhausted(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cancelled_or_has_no_disk_is_no_refusal() {
        let code = |states: &[&str]| states.iter().map(|s| state_code(s)).collect::<Vec<_>>();
        assert_eq!(code(&["57014", "40P01", "40001"]), [Code::Aborted; 3]);
        assert_eq!(
            code(&["57P01", "57P03", "53300", "08006"]),
            [Code::Unavailable; 4]
        );
        assert_eq!(
            code(&["53100", "53200", "58030", "58000"]),
            [Code::ResourceExhausted; 4]
        );
        // A library that the target does not have; an unknown role; what an extension raises.
        assert_eq!(code(&["58P01", "42704", "XX000"]), [Code::Internal; 3]);
    }
}

//! Files of storage buckets at this end: uploaded through the Storage API while they come, their rows put right after it, and the ledger's
//! entries of them.
//!
//! Invariants: a file is complete only after its digest agreed; what the API changed of its row, and the ledger's entry, are put right in one
//! transaction; without an entry the file is copied again, whatever the API has of it; nothing is uploaded to, or deleted from, an API that is
//! not that of the target database ([`Home`]).
mod entry;
mod home;
mod list;
mod put;
mod remove;
mod row;

pub use entry::keep_read;
pub use home::Home;
pub use list::list;
pub use put::put;
pub use remove::{remove, to_withdraw, withdraw};

use pgconvoy_agent_core::status;
use tokio_postgres::error::SqlState;
use tonic::Status;

fn failed(error: tokio_postgres::Error) -> Status {
    let absent = [
        Some(&SqlState::UNDEFINED_TABLE),
        Some(&SqlState::INVALID_SCHEMA_NAME),
    ];
    match absent.contains(&error.code()) {
        true => Status::failed_precondition(format!(
            "the target has no table storage.objects, or no ledger: {}",
            status::postgres_text(&error)
        )),
        false => status::postgres("storage.objects and its entries", &error),
    }
}

//! Files of storage buckets: what rows there are, and each file's way from the API of this end to the target agent.
mod copy;
mod rows;

pub use copy::{Job, copy};
pub use rows::{Place, When, list};

//! What both agents must agree on about PostgreSQL: sessions, inventory, row splitting, digests, snapshots, children.
pub mod agent;
pub mod child;
pub mod database;
pub mod dbtls;
pub mod describe;
pub mod facts;
pub mod inventory;
pub mod large_objects;
pub mod narrow;
pub mod progress;
pub mod rows;
pub mod scan;
pub mod session;
pub mod snapshot;
pub mod status;
pub mod tools;

//! The harness of the end-to-end tests: real PostgreSQL servers, the real programs as processes, a network that can be
//! stopped, cut and falsified, and PostgreSQL's own tools as the judge.
//!
//! Every process belongs to a value and ends with it, also when a test panics. Nothing waits for a length of time:
//! whoever waits polls a condition with [`eventually`].
pub mod buckets;
pub mod corpus;
pub mod falsifier;
pub mod gate;
pub mod hold;
pub mod majors;
pub mod oracle;
pub mod pair;
pub mod program;
pub mod random;
pub mod storage_api;
pub mod workload;

use std::io::Write as _;
use std::time::{Duration, Instant};

pub use pair::Pair;
pub use pgconvoy_coordinator::demo;

/// Long enough for a slow machine with other things to do; nobody waits so long unless something is wrong.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Polls until the condition holds.
///
/// # Panics
/// When it still does not hold after `deadline`.
#[track_caller]
pub fn eventually(what: &str, deadline: Duration, condition: impl FnMut() -> bool) {
    assert!(
        within(deadline, condition),
        "after {deadline:?} still not: {what}"
    );
}

/// Polls until the condition holds, or tells that it did not. The only place where the tests sleep.
pub fn within(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    while !condition() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// For what a reader of the test's output has to know. Past the capturing of libtest, which hides what passing tests print.
pub fn say_aloud(what: &str) {
    // Without a stderr there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "NOTE: {what}");
}

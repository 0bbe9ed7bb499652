//! How long the source's snapshot outlives whoever stopped asking for it: not long, where there is nothing to resume; and a command that is at
//! work keeps it, however long the target takes.
use std::time::{Duration, Instant};

use pgconvoy_tests::hold::Hold;
use pgconvoy_tests::pair::DATABASE;
use pgconvoy_tests::{PATIENCE, Pair, eventually};

use crate::{depot, rehearse};

/// Longer than the short lease (coordinator/src/inventory.rs), and the source agent's look at it.
const OUTLASTED: Duration = Duration::from_secs(66);

fn sessions_at_source(pair: &Pair, of: &str) -> bool {
    let found = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '{of}'");
    pair.at_source(&found).expect("the source answers") != "0"
}

#[test]
fn a_killed_rehearsal_lets_go_of_the_source_and_a_verify_keeps_it_while_the_target_is_busy() {
    let pair = depot::pair();
    pair.migrate(&[]);
    rehearse::kill_while_it_copies(&pair);
    assert!(sessions_at_source(&pair, "pgconvoy rehearsal-%"));

    pair.at_source("UPDATE depot.big SET load = 'late' WHERE id = 7")
        .expect("a difference");
    // Digests begin with a row of the ledger, which they keep from changing; schemas are compared without.
    let busy = "LOCK TABLE pgconvoy.tables IN EXCLUSIVE MODE";
    let busy = Hold::transaction(&pair.target, DATABASE, busy).expect("the ledger is taken");
    let verify = pair.spawn(&["verify", "--detailed"]).expect("it starts");
    eventually("verify waits for the target", PATIENCE, || {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'";
        sessions_at_source(&pair, "pgconvoy verify-%") && depot::count(&pair, waiting) > 0
    });
    let since = Instant::now();
    eventually("the rehearsal's snapshot is closed", PATIENCE, || {
        since.elapsed() > OUTLASTED && !sessions_at_source(&pair, "pgconvoy rehearsal-%")
    });
    busy.release();
    verify
        .wait(PATIENCE)
        .expect("verify ends")
        .expect(3)
        .says("1 differences");
}

//! `rehearse`: a whole migration beside the target, which pg_dump does not see change; nothing stays, whatever is killed.
use pgconvoy_tests::pair::DATABASE;
use pgconvoy_tests::{PATIENCE, Pair, eventually};

use crate::depot;
use crate::rollback::{assert_same, target_dump};

const SCRATCH: &str =
    "SELECT count(*) FROM pg_database WHERE datname LIKE 'pgconvoy\\_rehearsal-%'";

/// The target is in use; the source has roles of its own.
fn pair() -> Pair {
    let pair = depot::pair();
    pair.at_source("CREATE ROLE clerk; GRANT SELECT ON depot.big TO clerk; COMMENT ON DATABASE app IS 'of the source'")
        .expect("a role of the source");
    pair.at_target(
        "CREATE TABLE mine AS SELECT 1 AS id; COMMENT ON DATABASE app IS 'of the target'",
    )
    .expect("a table of the target");
    pair
}

#[test]
fn a_rehearsal_is_proven_and_timed_and_leaves_the_target_as_it_was() {
    let pair = pair();
    let before = target_dump(&pair);
    let rehearse = pair
        .pgconvoy(&["rehearse", "--json"])
        .expect("rehearse runs")
        .expect(0);
    let result = rehearse.result();
    assert_eq!(result["verdict"], "proven");
    let phases = result["phases"].as_array().expect("phases");
    let seconds = |phase: &serde_json::Value| phase["seconds"].as_f64().expect("seconds");
    let sum: f64 = phases.iter().map(seconds).sum();
    assert!(
        sum > 0.0 && (sum - result["predicted_seconds"].as_f64().expect("seconds")).abs() < 1e-6
    );
    assert!(phases.iter().any(|phase| phase["phase"] == "copy"));
    assert_same(&before, &target_dump(&pair));
    assert_eq!(
        depot::count(&pair, SCRATCH),
        0,
        "the scratch database is dropped"
    );
    let ledger = "SELECT count(*) FROM pg_namespace WHERE nspname = 'pgconvoy'";
    assert_eq!(depot::count(&pair, ledger), 0, "the target has no ledger");
}

/// Starts a rehearsal, whose coordinator then dies.
pub fn kill_while_it_copies(pair: &Pair) {
    let killed = pair
        .spawn(&["rehearse", "--streams", "1"])
        .expect("rehearse starts");
    let copying = "SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'pgconvoy\\_rehearsal-0%' AND query LIKE 'COPY%'";
    eventually("the rehearsal copies", PATIENCE, || {
        depot::count(pair, copying) > 0
    });
    killed.kill().expect("the coordinator dies");
}

#[test]
fn what_a_killed_rehearsal_left_is_dropped_by_the_next_and_by_clean_and_nothing_else_is() {
    let pair = pair();
    let before = target_dump(&pair);
    pair.target
        .psql(
            DATABASE,
            "CREATE DATABASE \"pgconvoy_rehearsal-of-somebody\"",
        )
        .expect("somebody's database");
    for ends in ["rehearse", "clean"] {
        kill_while_it_copies(&pair);
        assert_eq!(depot::count(&pair, SCRATCH), 2, "something is left behind");
        pair.pgconvoy(&[ends])
            .expect("it runs")
            .expect(0)
            .says("scratch database");
        assert_eq!(depot::count(&pair, SCRATCH), 1, "somebody's database stays");
        assert_same(&before, &target_dump(&pair));
    }
}

/// The agent died between making a scratch database and marking it.
#[test]
fn a_scratch_database_without_its_mark_is_dropped_while_it_holds_nothing() {
    let pair = pair();
    let name = |digit: &str| format!("pgconvoy_rehearsal-{}", digit.repeat(24));
    for digit in ["a", "b"] {
        pair.target
            .psql(
                DATABASE,
                &format!("CREATE DATABASE \"{}\" TEMPLATE template0", name(digit)),
            )
            .expect("a database");
    }
    pair.target
        .psql(&name("b"), "CREATE VIEW theirs AS SELECT 1")
        .expect("a view");
    pair.pgconvoy(&["clean"])
        .expect("clean runs")
        .expect(0)
        .says(&name("a"));
    let left = "SELECT string_agg(datname, ' ') FROM pg_database WHERE datname LIKE 'pgconvoy\\_%'";
    assert_eq!(pair.at_target(left).expect("databases"), name("b"));
}

//! Kill any of the processes while files are on their way: `resume` ends proven, every file is there once, and the rows are as at the source.
use std::sync::atomic::Ordering;

use pgconvoy_tests::buckets::Buckets;
use pgconvoy_tests::storage_api::{Fault, Kind};
use pgconvoy_tests::{PATIENCE, eventually};

const MIB: u64 = 1 << 20;

#[derive(Clone, Copy, Debug)]
enum Victim {
    SourceAgent,
    TargetAgent,
    Coordinator,
}

/// Where it is held when it dies.
#[derive(Clone, Copy, Debug)]
enum At {
    /// A piece of a resumable upload is on its way.
    Piece,
    /// The API has the file and has written its row, the agent does not know.
    Answer,
    ReadBack,
}

fn survives(victim: Victim, at: At) {
    let mut buckets = Buckets::new().expect("a pair with buckets");
    buckets
        .fill(&[100, 20 * MIB, 7 * MIB, 1000, 2000])
        .expect("files");
    let held = match at {
        At::Piece => Fault::new("PATCH", "resumable", Kind::Hold),
        At::Answer => Fault::new("POST", "avatars/3", Kind::HoldAnswer),
        At::ReadBack => Fault::new("GET", "authenticated/avatars/3", Kind::Hold),
    };
    let struck = buckets.target.faults().inject(held);
    let migrate = buckets.pair.spawn(&["migrate", "--storage-objects"]);
    let migrate = migrate.expect("migrate starts");
    eventually("a file is held", PATIENCE, || {
        struck.load(Ordering::Relaxed) > 0
    });

    match victim {
        Victim::SourceAgent => buckets.pair.source_agent.kill().expect("dies"),
        Victim::TargetAgent => buckets.pair.target_agent.kill().expect("dies"),
        Victim::Coordinator => drop(migrate.kill().expect("dies")),
    }
    buckets.target.faults().lift_all();
    buckets.pair.source_agent.restart().expect("restarts");
    buckets.pair.target_agent.restart().expect("restarts");
    eventually("the migration is nobody's", PATIENCE, || {
        let driven =
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgconvoy%'";
        buckets.pair.at_target(driven).expect("the target answers") == "0"
    });
    let unfinished = "SELECT count(*) FROM pgconvoy.migrations WHERE verdict IS NULL";
    let unfinished = buckets.pair.at_target(unfinished).expect("the ledger");
    assert_eq!(unfinished, "1", "it was killed too late");

    buckets
        .pair
        .pgconvoy(&["resume"])
        .expect("resume runs")
        .expect(0);

    buckets.assert_equal_files();
    buckets.assert_stored(5, 1);
    let verdict = buckets
        .pair
        .at_target("SELECT verdict FROM pgconvoy.migrations");
    assert_eq!(verdict.expect("the ledger"), "proven");
    buckets
        .pair
        .pgconvoy(&["verify"])
        .expect("verify runs")
        .expect(0);
}

#[test]
fn a_sync_of_files_survives_the_death_of_the_target_agent() {
    let mut buckets = Buckets::new().expect("a pair with buckets");
    buckets.fill(&[100, 7 * MIB, 1000]).expect("files");
    buckets.pair.migrate(&["--storage-objects"]);
    buckets
        .fill(&[150, 8 * MIB, 1000, 2000])
        .expect("other files");
    // The API has written to the row, and nobody has put it right.
    let held = Fault::new("POST", "avatars/0", Kind::HoldAnswer);
    let struck = buckets.target.faults().inject(held);
    let sync = buckets.pair.spawn(&["sync"]).expect("sync starts");
    eventually("a file is held", PATIENCE, || {
        struck.load(Ordering::Relaxed) > 0
    });
    buckets.pair.target_agent.kill().expect("dies");
    buckets.target.faults().lift_all();
    sync.wait(PATIENCE).expect("sync gives up").expect(1);
    buckets.pair.target_agent.restart().expect("restarts");

    buckets
        .pair
        .pgconvoy(&["resume"])
        .expect("resume runs")
        .expect(0);

    buckets.assert_equal_files();
    buckets.assert_stored(4, 1);
    buckets
        .pair
        .pgconvoy(&["verify"])
        .expect("verify runs")
        .expect(0);
}

#[test]
fn files_survive_the_death_of_the_source_agent_in_a_resumable_upload() {
    survives(Victim::SourceAgent, At::Piece);
}

#[test]
fn files_survive_the_death_of_the_target_agent_in_a_resumable_upload() {
    survives(Victim::TargetAgent, At::Piece);
}

#[test]
fn files_survive_the_death_of_the_coordinator_in_a_resumable_upload() {
    survives(Victim::Coordinator, At::Piece);
}

#[test]
fn files_survive_the_death_of_the_target_agent_before_it_knows_that_one_is_there() {
    survives(Victim::TargetAgent, At::Answer);
}

#[test]
fn files_survive_the_death_of_the_target_agent_while_it_reads_them_back() {
    survives(Victim::TargetAgent, At::ReadBack);
}

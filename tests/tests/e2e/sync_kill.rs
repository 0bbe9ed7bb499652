//! Whatever is killed: a copy that is resumed under another snapshot keeps what has arrived, and a sync leaves no table half done.
use std::fs;

use pgconvoy_tests::hold::Hold;
use pgconvoy_tests::pair::DATABASE;
use pgconvoy_tests::workload::Workload;
use pgconvoy_tests::{PATIENCE, Pair, eventually};

use crate::depot::{self, BIG_ROWS, Halfway, SMALL_PARTS};

/// Rows move, change, come and go; of a table of many parts, and of one without a key.
const WORK: &str = "
    UPDATE depot.big SET load = depot.noise('new' || random(), 800) WHERE id IN (SELECT (random() * 7500)::int FROM generate_series(1, 20));
    DELETE FROM depot.keyless WHERE ctid IN (SELECT ctid FROM depot.keyless ORDER BY random() LIMIT 2);
    INSERT INTO depot.keyless SELECT 7, depot.noise('keyless' || (random() * 10)::int, 160) FROM generate_series(1, 3);
    INSERT INTO depot.big (state, load) SELECT 'new', depot.noise('more' || random(), 160) FROM generate_series(1, 3);";

#[test]
fn a_copy_that_lost_its_snapshot_keeps_what_has_arrived() {
    let mut pair = depot::pair();
    pair.at_source(
        "CREATE TABLE of_two_keys (a int NOT NULL, b int NOT NULL); INSERT INTO of_two_keys VALUES (1, 2);
         CREATE UNIQUE INDEX first ON of_two_keys (a); CREATE UNIQUE INDEX second ON of_two_keys (b)",
    )
    .expect("a table of two keys");
    let application = Workload::start(&pair.source, DATABASE, WORK).expect("it works");
    let Halfway { migrate, trap } = Halfway::in_the_copy_of_a_table(&pair);
    eventually("the application has changed something", PATIENCE, || {
        application.done() > 3
    });
    pair.source_agent.kill().expect("the source agent dies");
    trap.disarm(&pair);
    let stopped = migrate.wait(PATIENCE).expect("migrate gives up");
    assert_ne!(stopped.code, 0, "{}", stopped.text());
    let arrived = depot::count(&pair, "SELECT count(*) FROM depot.big");
    assert!(
        0 < arrived && arrived < BIG_ROWS,
        "{arrived} rows of the largest table"
    );
    let loaded = "SELECT string_agg(table_oid || '/' || number || '/' || committed_at, ' ' ORDER BY 1) FROM pgconvoy.parts
                  WHERE snapshot = (SELECT snapshot FROM pgconvoy.parts ORDER BY committed_at LIMIT 1)";
    let before = pair.at_target(loaded).expect("parts");
    // The second one is the key by now.
    pair.at_source("REINDEX INDEX CONCURRENTLY first")
        .expect("an index is built anew");
    pair.source_agent
        .restart()
        .expect("the source agent comes back");

    let resume = pair
        .pgconvoy(&["resume", "--json"])
        .expect("resume runs")
        .expect(0);
    assert!(resume.text().contains("these stay"), "{}", resume.text());
    assert_eq!(
        before,
        pair.at_target(loaded).expect("parts"),
        "what had arrived was thrown away"
    );
    application.stop().expect("it stops");
    let result = resume.result();
    let bytes = |n: usize, what: &str| result["crossed"][n][what].as_u64().expect("bytes");
    let second = bytes(1, "parts") + bytes(1, "syncs");
    assert!(
        bytes(1, "syncs") > 0 && bytes(0, "parts") > 0,
        "{}",
        result["crossed"]
    );
    println!(
        "first snapshot: {} bytes, second: {second}",
        bytes(0, "parts")
    );
    pair.pgconvoy(&["sync"]).expect("sync runs").expect(0);
    pair.assert_equal_ends();
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    SourceAgent,
    TargetAgent,
    Coordinator,
    TargetPostgres,
    SourcePostgres,
}

/// A sync that has brought over some tables and waits in the middle of another one, whose rows are deleted.
fn survives(victim: Victim, second: &str) {
    let mut pair = depot::pair();
    pair.migrate(&SMALL_PARTS);
    pair.at_source(
        "UPDATE depot.big SET load = depot.noise('new' || id, 160) WHERE id % 3 = 0;
         DELETE FROM depot.shelf_1 WHERE id % 2 = 0; UPDATE depot.shelf_2 SET label = 'new'; TRUNCATE depot.keyless;
         UPDATE depot.shelf_5 SET id = id + 1000000 WHERE id < 300; UPDATE depot.fleeting SET load = NULL;",
    )
    .expect("changes");
    // An index of the table calls a function that stands still where a setting says so.
    let held = Hold::advisory_lock(&pair.target, DATABASE, 4711).expect("the lock");
    pair.at_target("ALTER DATABASE app SET pgconvoy_test.hold = 'index'")
        .expect("a setting of the target");
    let sync = pair.spawn(&["sync"]).expect("sync starts");
    eventually(
        "the sync stands still beside finished tables",
        PATIENCE,
        || {
            let synced = "SELECT count(*) FROM pgconvoy.syncs WHERE how <> 'equal'";
            depot::waiting(&pair) > 0 && depot::count(&pair, synced) >= 3
        },
    );
    depot::assert_unfinished(&pair);
    let half = "SELECT (SELECT count(*) FROM depot.shelf_5), (SELECT max(id) FROM depot.shelf_5)";
    assert_eq!(
        pair.at_target(half).expect("rows"),
        "500|500",
        "a half synced table is seen"
    );

    match victim {
        Victim::SourceAgent => pair.source_agent.kill().expect("it dies"),
        Victim::TargetAgent => pair.target_agent.kill().expect("it dies"),
        Victim::Coordinator => {}
        Victim::TargetPostgres => pair.target.stop_immediate().expect("it dies"),
        Victim::SourcePostgres => pair.source.stop_immediate().expect("it dies"),
    }
    let sync = match victim {
        Victim::Coordinator => sync.kill().expect("it dies"),
        _ => sync.wait(PATIENCE).expect("sync gives up"),
    };
    assert_ne!(sync.code, 0, "{}", sync.text());
    match victim {
        Victim::SourceAgent => pair.source_agent.restart().expect("it comes back"),
        Victim::TargetAgent => pair.target_agent.restart().expect("it comes back"),
        Victim::Coordinator => {}
        Victim::TargetPostgres => pair.target.restart().expect("it comes back"),
        Victim::SourcePostgres => pair.source.restart().expect("it comes back"),
    }
    pair.at_target("ALTER DATABASE app RESET pgconvoy_test.hold")
        .expect("a setting of the target");
    depot::assert_unfinished(&pair);
    assert_eq!(
        pair.at_target(half).expect("rows"),
        "500|500",
        "a half synced table is seen"
    );
    pair.pgconvoy(&[second]).expect("it runs").expect(0);
    drop(held);
    pair.assert_equal_ends();
    let verdict = pair
        .at_target("SELECT verdict FROM pgconvoy.migrations")
        .expect("the ledger");
    assert_eq!(verdict, "proven");
}

#[test]
fn a_sync_survives_the_death_of_the_source_agent() {
    survives(Victim::SourceAgent, "resume");
}

#[test]
fn a_sync_survives_the_death_of_the_target_agent() {
    survives(Victim::TargetAgent, "sync");
}

#[test]
fn a_sync_survives_the_death_of_the_coordinator() {
    survives(Victim::Coordinator, "resume");
}

#[test]
fn a_sync_survives_the_crash_of_the_target_server() {
    survives(Victim::TargetPostgres, "sync");
}

#[test]
fn a_sync_survives_the_crash_of_the_source_server() {
    survives(Victim::SourcePostgres, "sync");
}

/// Everything is brought over and nothing that follows from it is begun: no table says any more that there is something left to do.
#[test]
fn a_sync_that_was_killed_behind_its_last_row_refreshes_what_reads_the_rows() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(
        "CREATE TABLE apple (id int PRIMARY KEY); INSERT INTO apple SELECT generate_series(1, 9);
         CREATE MATERIALIZED VIEW apples AS SELECT count(*) AS n FROM apple",
    )
    .expect("apples");
    pair.migrate(&[]);
    pair.at_source("INSERT INTO apple VALUES (10); REFRESH MATERIALIZED VIEW apples")
        .expect("a change");
    let hold = Hold::transaction(
        &pair.target,
        DATABASE,
        "LOCK TABLE pgconvoy.steps IN SHARE MODE",
    )
    .expect("a lock");
    // Somebody has begun to verify before, and ends when the sync is under way.
    let checks = "[[check]]\nname = 'slow'\nexpect = 'at-least 1'\nsql = 'SELECT count(*) FROM pg_advisory_xact_lock_shared(4711)'\n";
    fs::write(pair.folder().join("checks.toml"), checks).expect("a file");
    let standing = Hold::advisory_lock(&pair.target, DATABASE, 4711).expect("the lock");
    let verify = pair
        .spawn(&["verify", "--checks", "checks.toml"])
        .expect("verify starts");
    eventually("verify has read the rows", PATIENCE, || {
        depot::waiting(&pair) > 0
    });
    let sync = pair.spawn(&["sync"]).expect("sync starts");
    eventually("the sync is about to record its steps", PATIENCE, || {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'pgconvoy.steps'::regclass";
        depot::count(&pair, waiting) > 0
    });
    assert_eq!(depot::count(&pair, "SELECT count(*) FROM apple"), 10);
    sync.kill().expect("it dies");
    hold.release();
    standing.release();
    let verify = verify.wait(PATIENCE).expect("verify ends");
    verify.expect(3).says("its ledger is left alone");
    depot::assert_unfinished(&pair);
    pair.pgconvoy(&["resume"]).expect("resume runs").expect(0);
    assert_eq!(depot::count(&pair, "SELECT n FROM apples"), 10);
}

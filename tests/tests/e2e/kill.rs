//! Whatever is killed, and in whatever phase: `resume` ends proven, and the target is the source. Every test sees in the
//! ledger and in the catalog that its phase was half done when it struck.
use pgconvoy_tests::hold::Background;
use pgconvoy_tests::majors;
use pgconvoy_tests::pair::{DATABASE, Options};
use pgconvoy_tests::program::{Outcome, Running};
use pgconvoy_tests::{PATIENCE, Pair, eventually};
use rustix::process::{Pid, Signal, kill_process};

use crate::depot::{self, Halfway, Trap};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    SourceAgent,
    TargetAgent,
    Coordinator,
    /// Immediate shutdown: as if the machine had lost its power.
    TargetPostgres,
    SourcePostgres,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Copy,
    Indexes,
    Ddl,
}

fn a_migration_survives(victim: Victim, phase: Phase) {
    survives(depot::pair(), victim, phase);
}

fn survives(mut pair: Pair, victim: Victim, phase: Phase) {
    let Halfway { migrate, trap } = match (phase, victim) {
        // Its rows are gone after the crash, while the ledger has them.
        (Phase::Copy, Victim::TargetPostgres) => {
            Halfway::in_the_copy_behind_the_unlogged_table(&pair)
        }
        (Phase::Copy, _) => Halfway::in_the_copy_of_a_table(&pair),
        // Once the last row is there nobody needs the source agent: see the last test.
        (Phase::Indexes, Victim::SourceAgent) => {
            Halfway::in_the_indexes_before_the_last_rows(&pair)
        }
        (Phase::Indexes, _) => Halfway::in_the_indexes(&pair),
        (Phase::Ddl, _) => Halfway::in_the_ddl(&pair),
    };

    let (migrate, orphans) = strike(&mut pair, victim, phase, migrate, trap);
    assert_ne!(
        migrate.code,
        0,
        "migrate claims to be done without its {victim:?}:\n{}",
        migrate.text()
    );

    // Otherwise `resume` would have nothing to do, and its success would prove nothing.
    depot::assert_unfinished(&pair);
    if matches!((phase, victim), (Phase::Copy, Victim::Coordinator)) {
        // Somebody looks at it. What he has read of half a table is nothing to `resume`, nor is the snapshot his.
        pair.pgconvoy(&["verify"])
            .expect("verify runs")
            .expect(3)
            .says("rows-differ");
        let id = pair.at_target("SELECT id FROM pgconvoy.migrations");
        let id = id.expect("the ledger");
        pair.pgconvoy(&["plan", "--migration", &id])
            .expect("plan runs")
            .expect(4);
    }
    // Somebody wants a table for himself, and waits for the snapshot: `resume` does not queue behind him.
    let locker = matches!((phase, victim), (Phase::Copy, Victim::Coordinator)).then(|| {
        let lock = "BEGIN; LOCK TABLE ONLY depot.big; ROLLBACK";
        let locker = Background::psql(&pair.source, DATABASE, lock).expect("a session");
        eventually("it waits for a lock", PATIENCE, || {
            let waits =
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'depot.big'::regclass";
            pair.at_source(waits).expect("the source answers") == "1"
        });
        locker
    });
    let resume = pair.pgconvoy(&["resume"]).expect("resume runs").expect(0);
    if let Some(mut locker) = locker {
        resume.says("the snapshot is alive");
        eventually("it is done once the copy is", PATIENCE, || {
            locker.finished().expect("it succeeds")
        });
    }
    // Only now may they go on: had `resume` left them alive, they would still be there.
    assert_eq!(
        depot::waiting(&pair),
        0,
        "sessions of the dead agent have outlived `resume`"
    );
    drop(orphans);
    pair.assert_equal_ends();
    let verdict = pair
        .at_target("SELECT DISTINCT verdict FROM pgconvoy.migrations")
        .expect("the ledger");
    assert_eq!(verdict, "proven");
}

/// Kills, disarms the trap for sessions to come, waits until `migrate` has given up, and brings the victim back to life.
/// Answers what still stops the sessions that were there: ending those is the task of `resume`.
fn strike(
    pair: &mut Pair,
    victim: Victim,
    phase: Phase,
    migrate: Running,
    mut trap: Trap,
) -> (Outcome, Option<Trap>) {
    let given_up = |migrate: Running| migrate.wait(PATIENCE).expect("migrate gives up");
    match victim {
        Victim::Coordinator => {
            let migrate = migrate.kill().expect("the coordinator dies");
            trap.disarm(pair);
            (migrate, Some(trap))
        }
        Victim::SourceAgent => {
            pair.source_agent.kill().expect("the source agent dies");
            trap.disarm(pair);
            if matches!(phase, Phase::Ddl) {
                // It finds out when it wants rows, which come after.
                trap.let_go();
            }
            let migrate = given_up(migrate);
            pair.source_agent
                .restart()
                .expect("the source agent comes back");
            (migrate, Some(trap))
        }
        Victim::TargetAgent => {
            pair.target_agent.kill().expect("the target agent dies");
            trap.disarm(pair);
            let migrate = given_up(migrate);
            pair.target_agent
                .restart()
                .expect("the target agent comes back");
            (migrate, Some(trap))
        }
        // No session of the server outlives it.
        Victim::SourcePostgres => {
            pair.source.stop_immediate().expect("PostgreSQL dies");
            trap.disarm(pair);
            trap.let_go();
            let migrate = given_up(migrate);
            pair.source.restart().expect("PostgreSQL comes back");
            (migrate, None)
        }
        Victim::TargetPostgres => {
            pair.target.stop_immediate().expect("PostgreSQL dies");
            trap.open_gate();
            let migrate = given_up(migrate);
            pair.target.restart().expect("PostgreSQL comes back");
            trap.disarm(pair);
            trap.let_go();
            (migrate, None)
        }
    }
}

#[test]
fn a_migration_survives_the_death_of_the_source_agent_in_the_copy() {
    a_migration_survives(Victim::SourceAgent, Phase::Copy);
}

#[test]
fn a_migration_survives_the_death_of_the_source_agent_while_indexes_are_built() {
    a_migration_survives(Victim::SourceAgent, Phase::Indexes);
}

#[test]
fn a_migration_survives_the_death_of_the_source_agent_while_pg_restore_runs() {
    a_migration_survives(Victim::SourceAgent, Phase::Ddl);
}

#[test]
fn a_migration_survives_the_death_of_the_target_agent_in_the_copy() {
    a_migration_survives(Victim::TargetAgent, Phase::Copy);
}

#[test]
fn a_migration_survives_the_death_of_the_target_agent_while_indexes_are_built() {
    a_migration_survives(Victim::TargetAgent, Phase::Indexes);
}

#[test]
fn a_migration_survives_the_death_of_the_target_agent_while_pg_restore_runs() {
    a_migration_survives(Victim::TargetAgent, Phase::Ddl);
}

/// pg_restore is too new for the server: the agent runs its script.
#[test]
fn a_migration_to_an_older_server_survives_the_death_of_the_target_agent_while_it_restores() {
    if let Some(options) = majors::options(17, 15) {
        survives(depot::pair_with(options), Victim::TargetAgent, Phase::Ddl);
    }
}

#[test]
fn a_migration_survives_the_death_of_the_coordinator_in_the_copy() {
    a_migration_survives(Victim::Coordinator, Phase::Copy);
}

#[test]
fn a_migration_survives_the_death_of_the_coordinator_while_indexes_are_built() {
    a_migration_survives(Victim::Coordinator, Phase::Indexes);
}

#[test]
fn a_migration_survives_the_death_of_the_coordinator_while_pg_restore_runs() {
    a_migration_survives(Victim::Coordinator, Phase::Ddl);
}

#[test]
fn a_migration_survives_the_crash_of_the_target_server_in_the_copy() {
    a_migration_survives(Victim::TargetPostgres, Phase::Copy);
}

#[test]
fn a_migration_survives_the_crash_of_the_target_server_while_indexes_are_built() {
    a_migration_survives(Victim::TargetPostgres, Phase::Indexes);
}

#[test]
fn a_migration_survives_the_crash_of_the_target_server_while_pg_restore_runs() {
    a_migration_survives(Victim::TargetPostgres, Phase::Ddl);
}

#[test]
fn a_migration_survives_the_crash_of_the_source_server_in_the_copy() {
    a_migration_survives(Victim::SourcePostgres, Phase::Copy);
}

/// Commits of parts do not wait for the disk: what the ledger said a moment ago may be gone after a crash, and its rows with it.
#[test]
fn a_part_whose_commit_did_not_reach_the_disk_is_lost_with_its_rows_and_copied_again() {
    // Nothing but a commit that waits, or the writer that is stopped here, takes the log to the disk.
    let settings = vec![("wal_buffers".to_owned(), "64MB".to_owned())];
    let mut pair = depot::pair_with(Options {
        settings,
        ..Options::default()
    });
    let writer = depot::count(
        &pair,
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'",
    );
    let writer = i32::try_from(writer).ok().and_then(Pid::from_raw);
    kill_process(writer.expect("a process"), Signal::STOP).expect("the log's writer stops");

    let Halfway { migrate, trap } = Halfway::in_the_copy_of_a_table(&pair);
    let before = depot::committed_parts(&pair);
    pair.target.stop_immediate().expect("PostgreSQL dies");
    trap.open_gate();
    let migrate = migrate.wait(PATIENCE).expect("migrate gives up");
    assert_ne!(migrate.code, 0, "{}", migrate.text());
    pair.target.restart().expect("PostgreSQL comes back");

    let after = depot::committed_parts(&pair);
    assert!(
        after < before,
        "{after} of {before} parts: nothing was lost"
    );
    let rows_of_parts = "SELECT coalesce(sum(rows), 0) FROM pgconvoy.parts p JOIN pgconvoy.tables t ON t.oid = p.table_oid
                         WHERE t.name = 'big'";
    assert_eq!(
        depot::count(&pair, rows_of_parts),
        depot::count(&pair, "SELECT count(*) FROM depot.big"),
        "rows and their entries are lost together"
    );
    depot::assert_unfinished(&pair);
    pair.pgconvoy(&["resume"]).expect("resume runs").expect(0);
    pair.assert_equal_ends();
}

#[test]
fn what_migrate_says_agrees_with_the_ledger_when_the_source_agent_dies_after_the_last_row() {
    let mut pair = depot::pair();
    let Halfway { migrate, mut trap } = Halfway::in_the_indexes(&pair);
    let tables = "SELECT count(*) FROM pgconvoy.tables";
    let loaded = "SELECT count(DISTINCT table_oid) FROM pgconvoy.parts";
    eventually("the last row is there", PATIENCE, || {
        depot::count(&pair, tables) == depot::count(&pair, loaded)
    });

    pair.source_agent.kill().expect("the source agent dies");
    trap.disarm(&pair);
    trap.let_go();
    let migrate = migrate.wait(PATIENCE).expect("migrate ends");
    let verdict = pair
        .at_target("SELECT verdict FROM pgconvoy.migrations")
        .expect("the ledger");

    // Whether it needs the source to the end is its own affair. What it tells the operator is not.
    assert_eq!(
        migrate.code == 0,
        verdict == "proven",
        "the ledger says `{verdict}`: {}",
        migrate.text()
    );
    pair.source_agent
        .restart()
        .expect("the source agent comes back");
    pair.pgconvoy(&["resume"]).expect("resume runs").expect(0);
    pair.assert_equal_ends();
}

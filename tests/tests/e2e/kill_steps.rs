//! Deaths in each phase, at a place that the ledger shows: where a step begins, and where its work is done and the ledger does not know. `resume` ends proven, and `rollback` from there brings back what was.
use pgconvoy_tests::program::Running;
use pgconvoy_tests::{PATIENCE, Pair, say_aloud};

use crate::rollback::{assert_same, target_dump};
use crate::stops::{self, Stop, proven};

#[derive(Clone, Copy, Debug)]
enum Victim {
    Coordinator,
    SourceAgent,
    TargetAgent,
}

/// In the order in which a migration comes to them. The midst of the copy, what a platform's rows need, and files have tests of their own; so
/// have sequences and statistics, below.
const PLACES: &[&str] = &[
    "roles done",
    "pre-data done",
    "access running",
    "phase copy",
    "attach-indexes running",
    "foreign-key done",
    "post-data done",
    "large-objects running",
    "refresh done",
    "index running",
    "database done",
    "phase verify",
    "phase done",
];

/// Kills, and waits until nothing of the migration runs. An agent that dies takes its coordinator with it: how that one gives up by itself is seen
/// elsewhere.
fn kill(pair: &mut Pair, victim: Victim, running: Running) {
    match victim {
        Victim::Coordinator => {}
        Victim::SourceAgent => pair.source_agent.kill().expect("the source agent dies"),
        Victim::TargetAgent => pair.target_agent.kill().expect("the target agent dies"),
    }
    let ended = running.kill().expect("the coordinator dies");
    assert_ne!(ended.code, 0, "it was over already:\n{}", ended.text());
    match victim {
        Victim::Coordinator => {}
        Victim::SourceAgent => pair.source_agent.restart().expect("it comes back"),
        Victim::TargetAgent => pair.target_agent.restart().expect("it comes back"),
    }
}

const VICTIMS: [Victim; 3] = [
    Victim::Coordinator,
    Victim::TargetAgent,
    Victim::SourceAgent,
];

#[test]
fn a_migration_survives_a_death_in_each_phase() {
    let mut pair = stops::pair();
    let mut stop = Stop::lay(&pair);
    let mut command = "migrate";
    for (place, victim) in PLACES.iter().zip(VICTIMS.into_iter().cycle()) {
        say_aloud(&format!("{command} up to {place}: {victim:?} dies"));
        let running = stop.at(&pair, place, command);
        kill(&mut pair, victim, running);
        command = "resume";
    }
    stop.disarm(&pair);
    proven(&pair, "resume");
    stop.remove(&pair);
    pair.assert_equal_ends();
}

#[test]
fn a_migration_is_taken_back_from_each_phase() {
    let mut pair = stops::pair();
    let before = target_dump(&pair);
    for (place, victim) in PLACES.iter().zip(VICTIMS.into_iter().cycle()) {
        say_aloud(&format!("{victim:?} dies at {place}"));
        taken_back_from(&mut pair, place, victim);
        assert_same(&before, &target_dump(&pair));
    }
}

fn taken_back_from(pair: &mut Pair, place: &str, victim: Victim) {
    let mut stop = Stop::lay(pair);
    let running = stop.at(pair, place, "migrate");
    kill(pair, victim, running);
    stop.remove(pair);
    proven(pair, "rollback");
}

/// Whoever dies there, the target agent also alone: the coordinator goes on without it for as long as it can, and gives up.
fn survives_every_death_in(kind: &str) {
    let mut pair = stops::pair();
    let before = target_dump(&pair);
    let (running, done) = (format!("{kind} running"), format!("{kind} done"));
    for (victim, place) in VICTIMS.into_iter().zip([&running, &done, &done]) {
        taken_back_from(&mut pair, place, victim);
        assert_same(&before, &target_dump(&pair));
    }

    let mut stop = Stop::lay(&pair);
    let mut command = "migrate";
    for (victim, place) in VICTIMS.into_iter().zip([&done, &running, &running]) {
        let running = stop.at(&pair, place, command);
        kill(&mut pair, victim, running);
        command = "resume";
    }
    let resume = stop.at(&pair, &done, "resume");
    pair.target_agent.kill().expect("the target agent dies");
    let ended = resume.wait(PATIENCE).expect("resume gives up");
    assert_ne!(ended.code, 0, "{}", ended.text());
    pair.target_agent.restart().expect("it comes back");
    stop.disarm(&pair);
    proven(&pair, "resume");
    stop.remove(&pair);
    pair.assert_equal_ends();
}

#[test]
fn a_sync_without_rows_that_was_killed_is_resumed_and_nothing_less_takes_its_place() {
    let mut pair = stops::pair();
    pair.migrate(&["--no-verify"]);
    pair.at_source("SELECT setval('receipt', 5000)")
        .expect("a sequence goes on");
    let mut stop = Stop::lay(&pair);
    let running = stop.at(&pair, "sequences running", "sync --skip-data");
    kill(&mut pair, Victim::TargetAgent, running);
    stop.remove(&pair);
    let receipt = || {
        pair.at_target("SELECT last_value FROM receipt")
            .expect("the target")
    };
    assert_eq!(receipt(), "4242");
    pair.pgconvoy(&["sync", "--skip-data", "--table", "account"])
        .expect("sync runs")
        .expect(1)
        .says("pgconvoy resume");
    let resume = pair
        .pgconvoy(&["resume", "--json"])
        .expect("resume runs")
        .expect(0);
    assert_eq!(resume.result()["verdict"], "ok");
    assert_eq!(receipt(), "5000");
    let verdict = "SELECT verdict FROM pgconvoy.migrations";
    assert_eq!(pair.at_target(verdict).expect("the ledger"), "unverified");
}

#[test]
fn whoever_dies_while_sequences_are_set_it_is_resumed_and_taken_back() {
    survives_every_death_in("sequences");
}

#[test]
fn whoever_dies_while_statistics_are_gathered_it_is_resumed_and_taken_back() {
    survives_every_death_in("statistics");
}

//! Deaths in each phase, at a place that the ledger shows: where a step begins, and where its work is done and the ledger does not know. `resume` ends proven, and `rollback` from there brings back what was.
use pgconvoy_proto::signals::is_ignored;
use pgconvoy_tests::hold::Hold;
use pgconvoy_tests::pair::DATABASE;
use pgconvoy_tests::program::Running;
use pgconvoy_tests::{PATIENCE, Pair, eventually, say_aloud};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::SignalKind;

use crate::depot;
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

/// The terminal is closed, and then somebody cancels a statement of the migration: neither is PostgreSQL's last word.
#[test]
fn a_hangup_is_an_interruption_and_a_statement_that_somebody_cancels_is_run_again() {
    let pair = stops::pair();
    let mut stop = Stop::lay(&pair);
    let migrate = stop.at(&pair, "foreign-key running", "migrate");
    signal(migrate.pid(), hangup());
    migrate
        .wait(PATIENCE)
        .expect("migrate ends")
        .expect(130)
        .says("pgconvoy resume");

    let resume = stop.at(&pair, "foreign-key running", "resume");
    let writer = "LOCK TABLE branch IN ROW EXCLUSIVE MODE";
    let writer = Hold::transaction(&pair.target, DATABASE, writer).expect("a writer");
    stop.disarm(&pair);
    let cancelled = "SELECT count(pg_cancel_backend(pid)) FROM (
        SELECT DISTINCT pid FROM pg_locks WHERE NOT granted AND locktype = 'relation') AS waiting";
    eventually("the foreign key waits and is cancelled", PATIENCE, || {
        depot::count(&pair, cancelled) > 0
    });
    writer.release();
    resume
        .wait(PATIENCE)
        .expect("resume ends")
        .expect(0)
        .says("canceling statement");
    stop.remove(&pair);
    pair.assert_equal_ends();
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.try_into().expect("a pid"));
    kill_process(pid.expect("a process"), signal).expect("it gets the signal");
}

/// The archive was received, and the agent comes back with an empty --data-dir: what it needs of it is sent again.
#[test]
fn a_data_dir_that_was_lost_is_filled_again_by_resume() {
    let mut pair = stops::pair();
    pair.at_source("ALTER ROLE teller LOGIN PASSWORD 'told to nobody'")
        .expect("a password");
    let mut stop = Stop::lay(&pair);
    let migrate = stop.at(&pair, "roles running", "migrate");
    pair.target_agent.kill().expect("the target agent dies");
    migrate.kill().expect("the coordinator dies");
    let data_dir = pair.folder().join("target-data");
    std::fs::remove_dir_all(&data_dir).expect("the folder was there");
    pair.target_agent.restart().expect("it comes back");
    stop.disarm(&pair);
    proven(&pair, "resume");
    stop.remove(&pair);
    let password = "SELECT rolpassword FROM pg_authid WHERE rolname = 'teller'";
    assert_eq!(
        pair.at_target(password).expect("the target answers"),
        pair.at_source(password).expect("the source answers")
    );
    pair.assert_equal_ends();
}

/// Whoever read their log has gone: it does not matter to what they do.
#[test]
fn agents_whose_log_nobody_reads_work_and_end_and_leave_no_session() {
    let mut pair = stops::pair();
    pair.source_agent.lose_stderr();
    pair.target_agent.lose_stderr();
    pair.source_agent.restart().expect("it comes back");
    pair.target_agent.restart().expect("it comes back");
    let sessions = |pair: &Pair| {
        let used = "SELECT count(*) FROM pg_stat_activity
                    WHERE application_name ~ '^pgconvoy ' AND application_name <> 'pgconvoy health'";
        depot::count(pair, used)
    };
    pair.migrate(&[]);
    eventually("the migration's sessions are closed", SOON, || {
        sessions(&pair) == 0
    });
    for command in ["verify", "clean"] {
        pair.pgconvoy(&[command]).expect("it runs").expect(0);
    }
    eventually("the verification's sessions are closed", SOON, || {
        sessions(&pair) == 0
    });
    for (pid, told) in [
        (pair.source_agent.pid(), hangup()),
        (pair.target_agent.pid(), Signal::TERM),
    ] {
        signal(pid, told);
        eventually("the agent ends", SOON, || is_over(pid));
    }
}

/// Where whoever runs these tests has hangups ignored, as nohup does, so do the programs that they start.
fn hangup() -> Signal {
    if !is_ignored(SignalKind::hangup()) {
        return Signal::HUP;
    }
    say_aloud("hangups are ignored here: the programs are terminated instead");
    Signal::TERM
}

/// Much less than the minute for which idle sessions are kept at most.
const SOON: std::time::Duration = std::time::Duration::from_secs(30);

/// It ended, and nobody has asked how (proc_pid_stat(5), state).
fn is_over(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
}

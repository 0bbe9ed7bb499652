#![allow(clippy::unwrap_used)]
use std::io::{BufRead, BufReader};
use std::process;
use std::time::Instant;

use super::*;

fn sh(script: &str) -> Command {
    let mut command = command(Path::new("/bin/sh"));
    command.args(["-c", script]);
    command
}

#[tokio::test]
async fn stdout_is_streamed_and_warnings_come_back() {
    let mut out = Vec::new();
    let warnings = run(sh("echo one; echo careful >&2; echo two"), &mut out)
        .await
        .unwrap();
    assert_eq!(out, b"one\ntwo\n");
    assert_eq!(warnings, "careful");
}

#[tokio::test]
async fn a_failure_has_the_program_its_status_and_no_sql() {
    let script = "echo 'pg_restore: error: no' >&2; echo 'Command was: s3cret' >&2; exit 3";
    let error = run(sh(script), &mut tokio::io::sink())
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(error, "sh failed (exit status: 3): pg_restore: error: no");
    let missing = run(
        command(Path::new("/nonexistent/pg_dump")),
        &mut tokio::io::sink(),
    )
    .await
    .unwrap_err();
    assert!(
        missing.to_string().starts_with("cannot run pg_dump: "),
        "{missing}"
    );
}

#[tokio::test]
async fn a_dropped_child_is_killed() {
    let mut running = Running::start(sh("echo $$; exec sleep 600")).await.unwrap();
    let mut line = String::new();
    tokio::io::AsyncBufReadExt::read_line(
        &mut tokio::io::BufReader::new(running.stdout()),
        &mut line,
    )
    .await
    .unwrap();
    drop(running);
    wait_until_gone(line.trim());
}

fn wait_until_gone(pid: &str) {
    let started = Instant::now();
    // A zombie that waits for its new parent is dead too.
    let alive = || {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.contains(") Z ") && !stat.contains(") X "))
    };
    while alive() {
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "process {pid} is still there"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

const ROLE: &str = "PGCONVOY_TEST_ROLE";

/// This test binary again, running one of the two tests below.
fn play(role: &str) -> process::Command {
    let mut command = process::Command::new("/proc/self/exe");
    command.args([
        "--exact",
        &format!("child::tests::plays_the_{role}"),
        "--nocapture",
        "--include-ignored",
    ]);
    command.env(ROLE, role).stdin(Stdio::null());
    command
}

#[test]
#[ignore = "part of a_child_dies_with_its_agent"]
fn plays_the_agent() {
    if std::env::var(ROLE).as_deref() == Ok("agent") {
        play("child")
            .env("PGCONVOY_TEST_PARENT", process::id().to_string())
            .status()
            .unwrap();
    }
}

#[test]
#[ignore = "part of a_child_dies_with_its_agent"]
fn plays_the_child() {
    if std::env::var(ROLE).as_deref() == Ok("child") {
        let parent = std::env::var_os("PGCONVOY_TEST_PARENT").unwrap();
        let arguments: Vec<OsString> = vec![
            parent,
            "sh".into(),
            "-c".into(),
            "echo; echo pid $$; exec sleep 600".into(),
        ];
        panic!("{}", become_child(arguments.into_iter()));
    }
}

#[test]
fn a_child_dies_with_its_agent() {
    let mut agent = play("agent").stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(agent.stdout.take().unwrap()).lines();
    let child = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("pid ").map(str::to_owned))
        .unwrap();
    assert!(std::fs::exists(format!("/proc/{child}")).unwrap());
    agent.kill().unwrap(); // SIGKILL: no code of the agent runs any more
    agent.wait().unwrap();
    wait_until_gone(&child);
}

#[test]
fn an_orphan_does_not_become_the_program() {
    // Our own parent is not the parent of our child.
    let elsewhere = getppid().map_or(i32::MAX, |parent| parent.as_raw_nonzero().get());
    let played = play("child")
        .env("PGCONVOY_TEST_PARENT", elsewhere.to_string())
        .output()
        .unwrap();
    let said = [played.stdout, played.stderr].concat();
    assert!(!played.status.success());
    assert!(String::from_utf8_lossy(&said).contains("the agent is gone"));
}

#[test]
fn the_agents_own_use_of_the_flag_is_its_own() {
    assert!(become_child(std::iter::empty()).contains("own use"));
    assert!(become_child(["0".into(), "true".into()].into_iter()).contains("own use"));
}

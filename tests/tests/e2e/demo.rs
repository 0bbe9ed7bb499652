//! `pgconvoy demo` is the product's first impression: it runs by itself, and leaves nothing.
use std::fs;
use std::path::Path;
use std::process::Command;

use pgconvoy_tests::demo::agent::clean_command;
use pgconvoy_tests::program::{self, Outcome, Running};
use pgconvoy_tests::{PATIENCE, eventually};

fn demo(temporary: &Path, arguments: &[&str]) -> Running {
    let mut command = clean_command(&program::path("pgconvoy"));
    command
        .arg("demo")
        .args(arguments)
        .env("TMPDIR", temporary)
        .current_dir(temporary);
    Running::start(command, temporary).expect("the demo starts")
}

/// A temporary folder that the servers' user may pass through. What a failing demo leaves running in it is ended.
struct Temporary(tempfile::TempDir);

impl Temporary {
    fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::Builder::new()
            .prefix("pgconvoy-test-")
            .tempdir()
            .expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))
            .expect("its permissions");
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        for (pid, _) in processes_in(self.path()) {
            let _ = Command::new("/bin/kill").args(["-KILL", &pid]).status();
        }
    }
}

fn left_behind(temporary: &Path) -> Vec<String> {
    let entries = fs::read_dir(temporary).expect("the folder");
    let names = entries.map(|entry| {
        entry
            .expect("an entry")
            .file_name()
            .to_string_lossy()
            .into_owned()
    });
    names.filter(|name| name.starts_with("pgconvoy")).collect()
}

/// Processes that have the folder in their command line: process id and command line.
fn processes_in(temporary: &Path) -> Vec<(String, String)> {
    let folder = temporary.to_string_lossy().into_owned();
    let processes = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    let with_command = processes.filter_map(|process| {
        let line = fs::read(process.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        Some((process.file_name().to_string_lossy().into_owned(), line))
    });
    with_command
        .filter(|(_, line)| line.contains(&folder))
        .collect()
}

fn running_in(temporary: &Path) -> Vec<String> {
    processes_in(temporary)
        .into_iter()
        .map(|(_, line)| line)
        .collect()
}

#[test]
fn the_demo_migrates_a_shop_and_shows_every_table() {
    let temporary = Temporary::new();
    let outcome: Outcome = demo(temporary.path(), &[])
        .wait(PATIENCE * 3)
        .expect("the demo ends")
        .expect(0);
    for table in [
        "order_item",
        "event_2025_01",
        "category",
        "session",
        "invoice",
    ] {
        assert!(
            outcome.text().contains(table),
            "the report lacks {table}:\n{}",
            outcome.text()
        );
    }
    let outcome = outcome.says("proven");
    assert_eq!(
        left_behind(temporary.path()),
        Vec::<String>::new(),
        "{}",
        outcome.text()
    );
    assert_eq!(running_in(temporary.path()), Vec::<String>::new());
}

#[test]
fn an_interrupted_demo_cleans_up() {
    let temporary = Temporary::new();
    let demo = demo(temporary.path(), &[]);
    eventually("both agents run", PATIENCE, || {
        running_in(temporary.path())
            .iter()
            .filter(|line| line.contains("--listen"))
            .count()
            == 2
    });
    let interrupt = Command::new("/bin/kill")
        .args(["-TERM", &demo.pid().to_string()])
        .status();
    assert!(interrupt.expect("kill runs").success());
    demo.wait(PATIENCE).expect("the demo ends").expect(130);
    assert_eq!(left_behind(temporary.path()), Vec::<String>::new());
    assert_eq!(running_in(temporary.path()), Vec::<String>::new());
}

#[test]
fn a_demo_that_is_kept_says_how_to_stop_it() {
    let temporary = Temporary::new();
    let outcome = demo(temporary.path(), &["--keep"])
        .wait(PATIENCE * 3)
        .expect("the demo ends");
    let stop = outcome
        .stderr
        .lines()
        .map(str::trim)
        .find(|line| line.ends_with("stop.sh"))
        .map(str::to_owned);
    // Before anything is asserted, or a failure would leave it running.
    let stop = stop.expect("it says how to stop it");
    let psql = outcome
        .stderr
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with("PGPASSFILE="))
        .map(str::to_owned);
    let rows = shell(&format!(
        "{} -XAtc 'SELECT count(*) FROM shop.customer'",
        psql.expect("it says how to look")
    ));
    let stopped = shell(&stop);
    let outcome = outcome.expect(0);
    assert_eq!(rows.trim(), "20000", "{}", outcome.text());
    assert_eq!(stopped, "");
    assert_eq!(left_behind(temporary.path()), Vec::<String>::new());
    assert_eq!(running_in(temporary.path()), Vec::<String>::new());
}

fn shell(line: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", line])
        .output()
        .expect("a shell");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

//! What an operator gets wrong is told in words that name it, with the exit code that goes with it, and changes nothing.
use std::fs;
use std::path::Path;

use pgconvoy_tests::pair::{DATABASE, Options};
use pgconvoy_tests::program::{self, Outcome, Running};
use pgconvoy_tests::{PATIENCE, Pair};

const COULD_NOT: i32 = 1;
const USAGE: i32 = 2;
const BLOCKED: i32 = 4;

fn pair() -> Pair {
    Pair::new().expect("two servers and two agents")
}

fn pair_with(options: Options) -> Pair {
    Pair::with(options).expect("two servers and two agents")
}

/// A table, so that there is something to move.
fn with_a_table(pair: Pair) -> Pair {
    pair.at_source("CREATE TABLE item (id int PRIMARY KEY); INSERT INTO item VALUES (1), (2)")
        .expect("a table");
    pair
}

/// `migrate` is stopped before it does anything: both it and preflight end with the code.
#[track_caller]
fn stopped(pair: &Pair, code: i32) -> Outcome {
    pair.pgconvoy(&["preflight"])
        .expect("preflight runs")
        .expect(code);
    let migrate = pair
        .pgconvoy(&["migrate"])
        .expect("migrate runs")
        .expect(code);
    let tables = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
                  AND relname = 'item'";
    assert_eq!(
        pair.at_target(tables).expect("the target answers"),
        "0",
        "a table was made at the target"
    );
    migrate
}

#[test]
fn an_agent_that_does_not_run_is_named() {
    let mut pair = with_a_table(pair());
    pair.source_agent.stop().expect("the source agent stops");
    let address = pair.source_agent.url().replace("https://", "");
    stopped(&pair, COULD_NOT)
        .says(&address)
        .says("is the agent running");
}

#[test]
fn an_address_that_is_none_is_named() {
    let pair = pair();
    let preflight = pair
        .pgconvoy(&["preflight", "--target", "http://127.0.0.1:1"])
        .expect("preflight runs");
    assert!(
        [COULD_NOT, USAGE].contains(&preflight.code),
        "{}",
        preflight.text()
    );
    preflight.says("https://");
}

#[test]
fn a_database_that_is_not_there_is_named() {
    let pair = pair_with(Options {
        source_url: Some(|server| server.url("nowhere")),
        ..Options::default()
    });
    stopped(&pair, COULD_NOT).says("nowhere");
}

#[test]
fn a_wrong_password_is_told_and_not_shown() {
    let url = |server: &pgconvoy_tests::demo::server::Server| {
        server.url_as("postgres", Some("guessed-wrongly"), DATABASE)
    };
    let pair = pair_with(Options {
        source_url: Some(url),
        ..Options::default()
    });
    let migrate = stopped(&pair, COULD_NOT).says("password");
    let everything = migrate.text() + &pair.source_agent.log();
    assert!(
        !everything.contains("guessed-wrongly"),
        "the password is shown"
    );
}

#[test]
fn a_missing_pg_dump_is_a_blocker() {
    let empty = tempfile::tempdir().expect("a folder");
    let bin = Some(empty.path().to_owned());
    let pair = with_a_table(pair_with(Options {
        source_pg_bin: bin,
        ..Options::default()
    }));
    stopped(&pair, BLOCKED).says("pg_dump").says("--pg-bin");
}

#[test]
fn a_pg_dump_older_than_the_server_is_a_blocker() {
    let old = tempfile::tempdir().expect("a folder");
    program::fake(old.path(), "pg_dump", "echo 'pg_dump (PostgreSQL) 9.6.24'").expect("a script");
    let bin = Some(old.path().to_owned());
    let pair = with_a_table(pair_with(Options {
        source_pg_bin: bin,
        ..Options::default()
    }));
    stopped(&pair, BLOCKED).says("9.6").says("older");
}

#[test]
fn a_missing_pg_restore_is_a_blocker() {
    let empty = tempfile::tempdir().expect("a folder");
    let bin = Some(empty.path().to_owned());
    let pair = with_a_table(pair_with(Options {
        target_pg_bin: bin,
        ..Options::default()
    }));
    stopped(&pair, BLOCKED).says("pg_restore");
}

#[test]
fn a_target_that_is_not_empty_is_a_blocker_and_stays_as_it_is() {
    let pair = with_a_table(pair());
    pair.at_target("CREATE TABLE precious (id int); INSERT INTO precious VALUES (42)")
        .expect("something precious");
    stopped(&pair, BLOCKED).says("precious");
    assert_eq!(
        pair.at_target("SELECT id FROM precious")
            .expect("still there"),
        "42"
    );
}

#[test]
fn a_role_that_row_level_security_would_filter_is_a_blocker() {
    let options = Options {
        source_url: Some(|server| server.url_as("reader", Some("reading"), DATABASE)),
        before_agents: Some(|pair| {
            pair.at_source(
                "CREATE ROLE reader LOGIN PASSWORD 'reading';
                 CREATE TABLE item (id int PRIMARY KEY, owner text);
                 INSERT INTO item VALUES (1, 'reader'), (2, 'somebody');
                 GRANT SELECT ON item TO reader;
                 ALTER TABLE item ENABLE ROW LEVEL SECURITY;
                 CREATE POLICY own ON item USING (owner = current_user);",
            )
            .map(drop)
        }),
        ..Options::default()
    };
    let pair = pair_with(options);
    stopped(&pair, BLOCKED)
        .says("row level security")
        .says("item");
}

#[test]
fn a_missing_extension_is_a_blocker() {
    let pair = with_a_table(pair());
    // No machine has its files, and the source needs none to say that it is installed.
    pair.at_source(
        "INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
         VALUES (99999, 'nowhere_to_be_had', 10, 'public'::regnamespace, false, '1.0')",
    )
    .expect("an extension");
    stopped(&pair, BLOCKED).says("nowhere_to_be_had");
}

#[test]
fn an_unknown_key_of_the_settings_file_is_a_usage_error() {
    let pair = pair();
    fs::write(
        pair.folder().join("pgconvoy.toml"),
        "[coordinator]\nstrems = 4\n",
    )
    .expect("a settings file");
    pair.pgconvoy(&["preflight"])
        .expect("preflight runs")
        .expect(USAGE)
        .says("strems");
}

#[test]
fn an_unknown_key_of_an_agents_settings_file_is_a_usage_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("agent.toml");
    fs::write(&file, "listn = \"127.0.0.1:0\"\n").expect("a settings file");
    for program in ["pgconvoy-source", "pgconvoy-target"] {
        agent_refuses(program, &file).expect(USAGE).says("listn");
    }
}

fn agent_refuses(program: &str, file: &Path) -> Outcome {
    let mut command = pgconvoy_tests::demo::agent::clean_command(&program::path(program));
    let folder = file.parent().expect("a folder");
    command
        .arg("--config")
        .arg(file)
        .args(["--listen", "127.0.0.1:0", "--identity", "none.pem"])
        .current_dir(folder);
    if program == "pgconvoy-target" {
        command.args(["--data-dir", "data"]);
    }
    Running::start(command, folder)
        .expect("it starts")
        .wait(PATIENCE)
        .expect("it ends")
}

#[test]
fn an_unknown_flag_is_a_usage_error() {
    pair()
        .pgconvoy(&["migrate", "--sterams", "4"])
        .expect("it runs")
        .expect(USAGE)
        .says("--sterams");
}

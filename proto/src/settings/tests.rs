#![allow(clippy::unwrap_used)]
use clap::{Args, Subcommand};

use super::*;

#[derive(Parser, Debug)]
#[command(name = "pgconvoy")]
struct Cli {
    /// Address of the source agent.
    #[arg(long, env = "PGCONVOY_TEST_SOURCE")]
    source: String,
    /// The variable is set by cargo and by any shell: it stands for one of ours.
    #[arg(long, env = "PATH", default_value = "unset")]
    from_env: String,
    #[arg(long, env = "PGCONVOY_TEST_URL")]
    database_url: Option<String>,
    #[command(subcommand)]
    command: Option<Verb>,
}

#[derive(Subcommand, Debug)]
enum Verb {
    Migrate(Migrate),
    Status,
}

#[derive(Args, Debug)]
struct Migrate {
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    streams: u16,
    #[arg(long)]
    exclude_table: Vec<String>,
    #[arg(long)]
    force: bool,
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

fn run(toml: &str, args: &[&str]) -> Result<Cli, clap::Error> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(FILE), toml).unwrap();
    parse_from(
        "coordinator",
        ["pgconvoy"].iter().chain(args),
        directory.path(),
    )
}

fn refused(toml: &str, args: &[&str]) -> String {
    let error = run(toml, args).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    error.to_string()
}

fn migrate(cli: Cli) -> Migrate {
    match cli.command {
        Some(Verb::Migrate(migrate)) => migrate,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_file_fills_required_arguments_lists_numbers_and_switches() {
    let toml = "source = 'https://s:1'\nstreams = 8\nexclude_table = ['a.*', 'b']\nforce = true\nlog-format = 'json'";
    let cli = run(toml, &["migrate"]).unwrap();
    assert_eq!(cli.source, "https://s:1");
    let migrate = migrate(cli);
    assert_eq!(
        (migrate.streams, migrate.force, migrate.log_format),
        (8, true, LogFormat::Json)
    );
    assert_eq!(migrate.exclude_table, ["a.*", "b"]);
    assert!(matches!(
        run(toml, &["status"]).unwrap().command,
        Some(Verb::Status)
    ));
}

#[test]
fn a_flag_wins_over_a_variable_and_a_variable_over_the_file() {
    let toml = "source = 'file'\nfrom-env = 'file'\nstreams = 8\nexclude-table = ['file']";
    let cli = run(
        toml,
        &[
            "--source",
            "flag",
            "migrate",
            "--streams",
            "2",
            "--exclude-table",
            "flag",
        ],
    )
    .unwrap();
    assert_eq!(cli.source, "flag");
    assert_eq!(cli.from_env, std::env::var("PATH").unwrap());
    let migrate = migrate(cli);
    assert_eq!(
        (migrate.streams, migrate.exclude_table),
        (2, vec!["flag".to_owned()])
    );
    assert_eq!(run(toml, &["--from-env", "flag"]).unwrap().from_env, "flag");
}

#[test]
fn without_a_file_clap_alone_decides() {
    let directory = tempfile::tempdir().unwrap();
    let cli: Cli = parse_from(
        "coordinator",
        ["pgconvoy", "--source", "s"],
        directory.path(),
    )
    .unwrap();
    assert_eq!(cli.database_url, None);
    let error = parse_from::<Cli>("coordinator", ["pgconvoy"], directory.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MissingRequiredArgument);
}

#[test]
fn one_file_serves_every_program() {
    let toml =
        "source = 'top'\n[coordinator]\nsource = 'own'\nstreams = 3\n[source-agent]\nlisten = ':1'";
    let cli = run(toml, &["migrate"]).unwrap();
    assert_eq!(cli.source, "own");
    assert_eq!(migrate(cli).streams, 3);
    assert!(
        refused("source = 's'\n[sauce-agent]\na = 1", &[])
            .contains("unknown table [sauce-agent]; the tables are [")
    );
}

#[test]
fn an_unknown_key_is_named_with_the_likely_one() {
    let message = refused("source = 's'\nsteams = 4", &["migrate"]);
    assert!(
        message.contains("pgconvoy.toml: unknown key \"steams\"; did you mean \"streams\"?"),
        "{message}"
    );
    let message = refused("source = 's'\n[coordinator]\nsteams = 4", &[]);
    assert!(
        message.contains("pgconvoy.toml, [coordinator]: unknown key \"steams\""),
        "{message}"
    );
    assert!(
        refused("listen = ':1'", &[])
            .contains("unknown key \"listen\"; the keys of one program only go into")
    );
    assert!(refused("config = 'x'", &[]).contains("unknown key \"config\""));
    assert!(
        refused("exclude-table = ['a']\nexclude_table = ['b']", &[])
            .contains("\"exclude-table\" is given twice")
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_with_the_right_one() {
    for (toml, message) in [
        (
            "streams = 'many'",
            "\"streams\": invalid value \"many\": invalid digit found in string",
        ),
        (
            "streams = 65",
            "\"streams\": invalid value \"65\": 65 is not in 1..=64",
        ),
        (
            "streams = [1, 2]",
            "\"streams\" takes one value, not a list",
        ),
        (
            "streams = true",
            "\"streams\" takes a value, not true or false",
        ),
        ("force = 'yes'", "\"force\" is a switch: give true or false"),
        (
            "exclude-table = [['a']]",
            "\"exclude-table\" takes a string or a number, not a list, a table",
        ),
        (
            "log-format = 'xml'",
            "\"log-format\": invalid value \"xml\"; possible values: text, json",
        ),
        ("source = 's'\nstreams = ", "pgconvoy.toml:2: "),
    ] {
        let shown = refused(toml, &["migrate"]);
        assert!(shown.contains(message), "{toml}: {shown}");
    }
}

#[test]
fn a_file_can_be_named_and_must_then_exist() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("other.toml"), "source = 'other'").unwrap();
    for args in [
        &["x", "--config", "other.toml"][..],
        &["x", "--config=other.toml"],
        &["x", "status", "--config", "other.toml"],
    ] {
        let cli: Cli = parse_from("coordinator", args, directory.path()).unwrap();
        assert_eq!(cli.source, "other");
    }
    let error = parse_from::<Cli>(
        "coordinator",
        ["x", "--config", "gone.toml"],
        directory.path(),
    )
    .unwrap_err();
    assert!(
        error.to_string().contains("cannot read the settings file")
            && error.to_string().contains("gone.toml")
    );
}

#[test]
fn a_database_url_is_never_shown() {
    let secret = "postgres://u:hunter2@h/d";
    let good = format!("source = 's'\ndatabase-url = '{secret}'");
    assert_eq!(
        run(&good, &[]).unwrap().database_url.as_deref(),
        Some(secret)
    );
    let help = run(&good, &["--help"]).unwrap_err().to_string();
    assert!(
        help.contains("--database-url") && !help.contains("hunter2"),
        "{help}"
    );
    for broken in [
        format!("database-url = '{secret}"),
        format!("database-url = ['{secret}']"),
        format!("database-uri = '{secret}'"),
        format!("database-url = '{secret}'\nsteams = 1"),
    ] {
        let message = refused(&broken, &[]);
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn a_database_url_that_a_parser_refuses_is_not_shown_either() {
    #[derive(Parser, Debug)]
    struct Agent {
        #[arg(long, value_parser = refuse)]
        database_url: String,
    }
    fn refuse(_: &str) -> Result<String, String> {
        Err("no host".into())
    }
    let directory = tempfile::tempdir().unwrap();
    let by_flag = parse_from::<Agent>(
        "source-agent",
        ["x", "--database-url", "hunter2"],
        directory.path(),
    )
    .unwrap_err();
    assert!(
        by_flag.to_string().contains("no host") && !by_flag.to_string().contains("hunter2"),
        "{by_flag}"
    );
    std::fs::write(
        directory.path().join(FILE),
        "[source-agent]\ndatabase-url = 'hunter2'",
    )
    .unwrap();
    let by_file = parse_from::<Agent>("source-agent", ["x"], directory.path())
        .unwrap_err()
        .to_string();
    assert!(
        by_file.contains("the value of \"database-url\" is not valid")
            && !by_file.contains("hunter2"),
        "{by_file}"
    );
}

#[test]
fn help_works_beside_a_broken_file() {
    let error = run("steams = 4", &["--help"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DisplayHelp);
    assert!(error.to_string().contains("--config <FILE>"));
}

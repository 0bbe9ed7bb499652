//! No password leaves its end: neither those of the connection URLs nor those that the schema and the roles hold are in an output,
//! a log, an artefact, the ledger, or the command line of a process.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pgconvoy_tests::demo::installation::Installation;
use pgconvoy_tests::pair::Options;
use pgconvoy_tests::{Pair, program};

/// A foreign data wrapper without a handler needs no extension; the subscription connects to nobody.
const SECRETIVE: &str = "
CREATE ROLE keeper LOGIN PASSWORD 'keeper-secret';
CREATE TABLE plain (id int PRIMARY KEY);
ALTER TABLE plain OWNER TO keeper;
ALTER ROLE keeper SET app.settings.key = 'role-setting-secret';
ALTER DATABASE app SET app.settings.jwt_secret = 'database-setting-secret';
ALTER ROLE keeper IN DATABASE app SET app.settings.other = 'both-setting-secret';
INSERT INTO plain SELECT generate_series(1, 100);
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER nowhere OPTIONS (host 'elsewhere.example.org');
CREATE USER MAPPING FOR postgres SERVER elsewhere OPTIONS (\"user\" 'me', password 'mapping-secret-1');
CREATE USER MAPPING FOR PUBLIC SERVER elsewhere OPTIONS (password 'mapping-secret-2');
CREATE SUBSCRIPTION listener CONNECTION 'host=127.0.0.1 port=1 dbname=x password=conninfo-secret'
  PUBLICATION news WITH (connect = false, slot_name = NONE);";

const IN_THE_SCHEMA: [&str; 6] = [
    "mapping-secret-1",
    "mapping-secret-2",
    "conninfo-secret",
    "role-setting-secret",
    "database-setting-secret",
    "both-setting-secret",
];

/// What the source keeps of the role's password.
fn verifier(pair: &Pair) -> String {
    let read = "SELECT rolpassword FROM pg_authid WHERE rolname = 'keeper'";
    let verifier = pair.at_source(read).expect("the source answers");
    assert!(verifier.starts_with("SCRAM-SHA-256$"), "no verifier");
    verifier
}

/// Every secret of a pair, as given and as written in a URL.
fn secrets(pair: &Pair) -> Vec<String> {
    let mut secrets: Vec<String> = IN_THE_SCHEMA
        .iter()
        .map(|secret| (*secret).to_owned())
        .collect();
    secrets.extend(["keeper-secret".to_owned(), verifier(pair)]);
    for server in [&pair.source, &pair.target] {
        let url = server.url("x");
        let (_, after) = url.split_once("postgres:").expect("the URL has a password");
        let (escaped, _) = after.split_once('@').expect("the URL has a host");
        secrets.push(escaped.replace("%2B", "+").replace("%2F", "/"));
        secrets.push(escaped.to_owned());
    }
    secrets
}

/// # Panics
/// When one of the secrets is in the text.
#[track_caller]
fn assert_no_secret(pair: &Pair, place: &str, text: &str) {
    for secret in secrets(pair) {
        if let Some(at) = text.find(&secret) {
            let line = text[..at].lines().count();
            panic!("a password is in {place}, line {line}");
        }
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry"))
    {
        let path = entry.path();
        // `latest` is a link to a folder that is looked into anyway.
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            files.extend(files_below(&path))
        } else {
            files.push(path)
        }
    }
    files
}

/// A folder with pg_dump and pg_restore that write down how they were called.
fn recording_programs(folder: &Path) -> PathBuf {
    let real = Installation::find(None).expect("an installation");
    let bin = folder.join("bin");
    fs::create_dir(&bin).expect("a folder");
    for name in ["pg_dump", "pg_restore"] {
        let calls = folder.join("calls");
        let script = format!(
            "echo \"$0 $*\" >> '{}'\nexec '{}' \"$@\"",
            calls.display(),
            real.program(name).display()
        );
        program::fake(&bin, name, &script).expect("a script");
    }
    bin
}

#[track_caller]
fn nothing_tells_a_secret(pair: &Pair) {
    for (place, text) in [
        ("the source agent's log", pair.source_agent.log()),
        ("the target agent's log", pair.target_agent.log()),
        (
            "the source agent's greeting",
            pair.source_agent.ready_line().to_owned(),
        ),
        (
            "the target agent's greeting",
            pair.target_agent.ready_line().to_owned(),
        ),
    ] {
        assert_no_secret(pair, place, &text);
    }
    let artefacts = files_below(&pair.folder().join("runs"));
    assert!(!artefacts.is_empty(), "no artefacts to look into");
    for path in artefacts {
        let text = String::from_utf8_lossy(&fs::read(&path).expect("an artefact")).into_owned();
        assert_no_secret(pair, &path.display().to_string(), &text);
    }
    for agent in [&pair.source_agent, &pair.target_agent] {
        let command_line =
            fs::read(format!("/proc/{}/cmdline", agent.pid())).expect("a command line");
        assert_no_secret(
            pair,
            "the command line of an agent",
            &String::from_utf8_lossy(&command_line),
        );
    }
}

/// Every row of every table of the ledger.
fn the_ledger(pair: &Pair) -> String {
    let tables = "SELECT string_agg(format('SELECT to_jsonb(t)::text FROM pgconvoy.%I t', relname), ' UNION ALL ')
                  FROM pg_class WHERE relnamespace = 'pgconvoy'::regnamespace AND relkind = 'r'";
    let everything = pair.at_target(tables).expect("the ledger's tables");
    pair.at_target(&everything).expect("the ledger")
}

#[test]
fn no_password_is_in_any_output_log_or_artefact() {
    let folder = tempfile::tempdir().expect("a folder");
    let bin = recording_programs(folder.path());
    let options = Options {
        source_pg_bin: Some(bin.clone()),
        target_pg_bin: Some(bin),
        settings: vec![("log_statement".into(), "all".into())],
        ..Options::default()
    };
    let pair = Pair::with(options).expect("two servers and two agents");
    pair.at_source(SECRETIVE).expect("a schema with secrets");

    for command in [
        &["preflight"][..],
        &["plan"],
        &["migrate"],
        &["status"],
        &["verify"],
        &["report"],
        &["report", "--json"],
    ] {
        let outcome = pair.pgconvoy(command).expect("it runs").expect(0);
        assert_no_secret(
            &pair,
            &format!("the output of {command:?}"),
            &outcome.text(),
        );
    }

    nothing_tells_a_secret(&pair);
    let calls = fs::read_to_string(folder.path().join("calls"))
        .expect("pg_dump and pg_restore were called");
    assert!(
        calls.contains("pg_dump") && calls.contains("pg_restore"),
        "{calls}"
    );
    assert_no_secret(&pair, "the command line of pg_dump or pg_restore", &calls);
    // They have crossed all the same, from agent to agent.
    let mappings = pair
        .at_target("SELECT umoptions FROM pg_user_mappings ORDER BY 1")
        .expect("the mappings");
    assert!(
        mappings.contains("mapping-secret-1") && mappings.contains("mapping-secret-2"),
        "the mappings are lost"
    );
    // So have the settings and the role's verifier; the server's log, which has every statement, does not know it.
    let keeper = "SELECT rolpassword FROM pg_authid WHERE rolname = 'keeper'";
    let kept = pair.at_target(keeper).expect("the role");
    assert!(kept == verifier(&pair), "the role has another password");
    let server_log = pair.target.log();
    assert!(
        server_log.contains("CREATE ROLE \"keeper\""),
        "nothing is logged"
    );
    assert!(
        !server_log.contains(&kept),
        "the verifier is in the server's log"
    );
    let ledger = the_ledger(&pair);
    assert!(ledger.contains("keeper"), "the ledger is not read");
    assert_no_secret(&pair, "the ledger", &ledger);
    let files = files_below(&pair.folder().join("target-data"));
    let secrets = |path: &PathBuf| path.ends_with("secrets.json");
    assert!(!files.iter().any(secrets), "the secrets are not forgotten");
    let settings = "SELECT string_agg(setconfig::text, ' ' ORDER BY setdatabase, setrole) FROM pg_db_role_setting";
    let settings = pair.at_target(settings).expect("the settings");
    for secret in &IN_THE_SCHEMA[3..] {
        assert!(settings.contains(secret), "a setting is lost");
        assert!(
            !server_log.contains(secret),
            "a setting's value is in the server's log"
        );
    }
    // The archive holds them, for the agent alone.
    for file in files_below(&pair.folder().join("target-data")) {
        let mode = file.metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} may be read by others", file.display());
    }
}

#[test]
fn a_refused_statement_does_not_tell_the_secret_in_it() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(SECRETIVE).expect("a schema with secrets");
    pair.at_target(
        "CREATE SCHEMA pgconvoy;
         CREATE FUNCTION pgconvoy.refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'no mappings here'; END $$;
         CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('CREATE USER MAPPING')
         EXECUTE FUNCTION pgconvoy.refuse();",
    )
    .expect("a target that refuses user mappings");
    let migrate = pair.pgconvoy(&["migrate"]).expect("migrate runs");
    assert_ne!(
        migrate.code,
        0,
        "the target took what it refuses: {}",
        migrate.text()
    );
    let migrate = migrate.says("no mappings here");
    assert_no_secret(&pair, "the output of migrate", &migrate.text());
    nothing_tells_a_secret(&pair);
}

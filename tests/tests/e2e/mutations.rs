//! Each of more than a hundred changes at the target, of an object of every kind and of rows, is found by `verify` and named; and where
//! nothing was changed nothing is found.
use std::collections::BTreeSet;
use std::path::Path;

use pgconvoy_tests::demo::server::Server;
use pgconvoy_tests::pair::DATABASE;
use pgconvoy_tests::program::Outcome;
use pgconvoy_tests::{Pair, corpus, say_aloud};

const ROLES: &str = include_str!("mutations/roles.sql");
const EVERY_KIND: &str = include_str!("mutations/every_kind.sql");
const LARGE_OBJECT: &str =
    "SELECT lo_create(4711); GRANT SELECT ON LARGE OBJECT 4711 TO app_reader;
                            COMMENT ON LARGE OBJECT 4711 IS 'large';";
/// What no dump carries: made at both ends once all is migrated.
const OF_EXTENSION: &str = "
    CREATE TABLE every.kept (n int);
    ALTER EXTENSION hstore ADD TABLE every.kept;
    ALTER TABLE every.kept ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON every.kept USING (n > 0);
    CREATE TRIGGER kept_touch BEFORE INSERT ON every.kept FOR EACH ROW EXECUTE FUNCTION every.touch();
    CREATE TRIGGER kept_call BEFORE INSERT ON every.kept FOR EACH ROW EXECUTE FUNCTION every.touch('hush');";
const TABLES: &str = include_str!("mutations/tables.sql");
const PROGRAMS: &str = include_str!("mutations/programs.sql");
const ACCESS: &str = include_str!("mutations/access.sql");
const ROWS: &str = include_str!("mutations/rows.sql");
const SECRETS: &[&str] = &[
    "secret of the database",
    "server secret",
    "mapping secret",
    "hush",
    "loud",
];

struct Mutation {
    /// What verify must name, all of it and nothing else.
    objects: BTreeSet<String>,
    change: String,
    undo: String,
}

/// `--# object | object`, a change, `--undo`, what takes it back.
fn mutations(file: &str) -> Vec<Mutation> {
    let parse = |text: &str| {
        let (objects, rest) = text.split_once('\n').expect("a line of objects");
        let (change, undo) = rest.split_once("--undo\n").expect("an undo");
        Mutation {
            objects: objects.split('|').map(|o| o.trim().to_owned()).collect(),
            change: change.trim().to_owned(),
            undo: undo.trim().to_owned(),
        }
    };
    file.split("--# ").skip(1).map(parse).collect()
}

fn migrated() -> Pair {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(ROLES).expect("roles at the source");
    pair.at_target(ROLES).expect("roles at the target");
    pair.at_source(EVERY_KIND)
        .expect("a database with everything");
    pair.at_source(LARGE_OBJECT).expect("a large object");
    pair.migrate(&[]);
    pair.at_source(OF_EXTENSION)
        .expect("a member at the source");
    pair.at_target(OF_EXTENSION)
        .expect("a member at the target");
    pair
}

fn verify(pair: &Pair) -> Outcome {
    pair.pgconvoy(&["verify", "--json"]).expect("verify runs")
}

/// The objects of all findings that are differences.
fn differing(outcome: &Outcome) -> BTreeSet<String> {
    let result = outcome.result();
    let findings = result["findings"].as_array().cloned().unwrap_or_default();
    let differences = findings.iter().filter(|f| f["severity"] == "difference");
    differences
        .map(|f| f["object"].as_str().expect("an object").to_owned())
        .collect()
}

/// Why a mutation was not found as it should be.
fn missed(pair: &Pair, mutation: &Mutation) -> Option<String> {
    pair.at_target(&format!(
        "SET allow_system_table_mods = on; {}",
        mutation.change
    ))
    .expect("the change");
    let outcome = verify(pair);
    pair.at_target(&format!(
        "SET allow_system_table_mods = on; {}",
        mutation.undo
    ))
    .expect("the undo");
    for secret in SECRETS {
        assert!(
            !outcome.text().contains(secret),
            "a secret is told: {}",
            outcome.text()
        );
    }
    let named = if outcome.code == 3 {
        differing(&outcome)
    } else {
        BTreeSet::new()
    };
    (named != mutation.objects).then(|| {
        format!(
            "{}\n  expected {:?}\n  exit {} and {named:?}\n{}",
            mutation.change, mutation.objects, outcome.code, outcome.stderr
        )
    })
}

#[track_caller]
fn all_are_found(kind: &str, file: &str) {
    let pair = migrated();
    let before = verify(&pair).expect(0);
    assert_eq!(differing(&before), BTreeSet::new());
    let mutations = mutations(file);
    let missed: Vec<String> = mutations.iter().filter_map(|m| missed(&pair, m)).collect();
    let found = mutations.len() - missed.len();
    say_aloud(&format!(
        "{kind}: {found} of {} mutations found",
        mutations.len()
    ));
    assert!(missed.is_empty(), "{}", missed.join("\n\n"));
    verify(&pair).expect(0);
}

#[test]
fn mutations_of_tables_are_found() {
    all_are_found("tables and what is built on them", TABLES);
}

#[test]
fn mutations_of_types_and_routines_are_found() {
    all_are_found("types, routines, text search, views", PROGRAMS);
}

#[test]
fn mutations_of_access_are_found() {
    all_are_found("triggers, policies, grants, roles, comments", ACCESS);
}

#[test]
fn mutations_of_rows_and_the_rest_are_found() {
    all_are_found("rows, sequences, replication, foreign data", ROWS);
}

#[test]
fn there_are_enough_mutations() {
    let all = [TABLES, PROGRAMS, ACCESS, ROWS].map(|file| mutations(file).len());
    assert!(all.iter().sum::<usize>() >= 60, "{all:?}");
}

/// Runs a file with psql.
fn load(server: &Server, file: &Path) {
    let output = server
        .psql_command(DATABASE)
        .args(["-v", "ON_ERROR_STOP=1", "-f"])
        .arg(file)
        .output()
        .expect("psql runs");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {complaints}", file.display());
}

#[test]
fn a_database_of_everything_odd_has_no_difference_once_it_is_migrated() {
    let purpose = "the comparison of what crossed of it";
    let Some(roles) = corpus::file("nasty/nasty_roles_dev.sql", purpose) else {
        return;
    };
    let Some(database) = corpus::file("nasty/nasty_dev.sql", purpose) else {
        return;
    };
    let pair = Pair::new().expect("two servers and two agents");
    load(&pair.source, &roles);
    load(&pair.source, &database);
    let migrate = pair.pgconvoy(&["migrate", "--json"]).expect("migrate runs");
    assert_eq!(differing(&migrate), BTreeSet::new(), "{}", migrate.stderr);
    migrate.expect(0);
    pair.pgconvoy(&["verify", "--detailed"])
        .expect("verify runs")
        .expect(0);
}

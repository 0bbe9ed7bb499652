//! Databases cross and are proven equal by pg_dump and by fingerprints, neither of which is ours.
use std::time::Duration;

use pgconvoy_tests::demo::SAMPLE;
use pgconvoy_tests::pair::{DATABASE, Options};
use pgconvoy_tests::program::peak_resident_bytes;
use pgconvoy_tests::{Pair, corpus, say_aloud};

const NASTY: &str = include_str!("nasty.sql");
const GIGABYTE: u64 = 1 << 30;

fn pair() -> Pair {
    Pair::new().expect("two servers and two agents")
}

/// Migrates what is at the source and asks the oracle.
#[track_caller]
fn crosses(pair: &Pair) {
    pair.migrate(&[]);
    pair.assert_equal_ends();
    let verdict = pair
        .at_target("SELECT verdict FROM pgconvoy.migrations")
        .expect("the ledger");
    assert_eq!(verdict, "proven");
}

#[test]
fn a_shop_crosses() {
    let pair = pair();
    pair.at_source(SAMPLE).expect("the sample data");
    crosses(&pair);
}

#[test]
fn a_database_of_odd_names_and_types_crosses() {
    let pair = pair();
    pair.at_source(NASTY).expect("the nasty data");
    crosses(&pair);
}

#[test]
fn an_empty_database_crosses() {
    crosses(&pair());
}

#[test]
fn a_pgbench_database_crosses() {
    let scale = std::env::var("PGCONVOY_TEST_SCALE").unwrap_or_else(|_| {
        say_aloud("pgbench at scale 2; PGCONVOY_TEST_SCALE=50 makes it 5 million rows");
        "2".to_owned()
    });
    let pair = pair();
    let output = pair
        .source
        .installation()
        .command("pgbench")
        .args(["-i", "-q", "-s", &scale, "--foreign-keys"])
        .arg(pair.source.url(DATABASE))
        .output()
        .expect("pgbench runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    crosses(&pair);
    let expected = scale.parse::<u64>().expect("a number") * 100_000;
    let rows = pair
        .at_target("SELECT count(*) FROM pgbench_accounts")
        .expect("rows");
    assert_eq!(rows, expected.to_string());
}

fn a_sample_crosses(name: &str) {
    let pair = pair();
    if corpus::load_sample(&pair.source, DATABASE, name).expect("the sample is loaded") {
        crosses(&pair);
    }
}

#[test]
fn pagila_crosses() {
    a_sample_crosses("pagila");
}

#[test]
fn chinook_crosses() {
    a_sample_crosses("chinook");
}

#[test]
fn northwind_crosses() {
    a_sample_crosses("northwind");
}

#[test]
fn iso3166_crosses() {
    a_sample_crosses("iso3166");
}

/// A row with 100 MB that do not compress; `column` decides about the format.
fn a_wide_row_crosses(column: &str, format: &str) {
    let pair = pair();
    pair.at_source(&format!(
        "CREATE TYPE mood AS ENUM ('calm');
         CREATE TABLE wide (id int PRIMARY KEY, {column}, load bytea);
         ALTER TABLE wide ALTER load SET STORAGE EXTERNAL;
         INSERT INTO wide (id, load)
         SELECT 1, string_agg(piece, ''::bytea) FROM generate_series(1, 10),
           (SELECT string_agg(decode(md5(i::text), 'hex'), ''::bytea) AS piece FROM generate_series(1, 655360) i) p;
         INSERT INTO wide (id, load) VALUES (2, 'narrow');",
    ))
    .expect("a wide row");
    let bytes = pair
        .at_source("SELECT length(load) FROM wide WHERE id = 1")
        .expect("its length");
    assert_eq!(bytes, "104857600");

    pair.migrate(&["--streams", "1"]);

    let plan = pair
        .at_target("SELECT plan->>'format' FROM pgconvoy.tables WHERE name = 'wide'")
        .expect("the ledger");
    assert_eq!(plan, format, "the format that the column asks for");
    let digest = "SELECT id, md5(load), length(load) FROM wide ORDER BY id";
    assert_eq!(
        pair.at_target(digest).expect("rows"),
        pair.at_source(digest).expect("rows")
    );
    for (name, agent) in [
        ("source", &pair.source_agent),
        ("target", &pair.target_agent),
    ] {
        let peak = peak_resident_bytes(agent.pid()).expect("its memory");
        say_aloud(&format!(
            "{format}: the {name} agent's peak was {} MB",
            peak >> 20
        ));
        assert!(
            peak < GIGABYTE,
            "the {name} agent had {} MB resident",
            peak >> 20
        );
    }
}

#[test]
fn a_row_of_100_megabytes_crosses_in_binary() {
    a_wide_row_crosses("n bigint", "binary");
}

#[test]
fn a_row_of_100_megabytes_crosses_in_text() {
    a_wide_row_crosses("m mood", "text");
}

#[test]
fn orphans_at_the_source_leave_their_foreign_key_unvalidated_and_are_told() {
    let pair = pair();
    pair.at_source(
        "CREATE TABLE parent (id int PRIMARY KEY);
         INSERT INTO parent SELECT generate_series(1, 10);
         CREATE TABLE child (id int PRIMARY KEY, parent int CONSTRAINT child_parent REFERENCES parent);
         CREATE TABLE healthy (id int PRIMARY KEY, parent int CONSTRAINT healthy_parent REFERENCES parent);
         INSERT INTO healthy SELECT i, i FROM generate_series(1, 10) i;
         SET session_replication_role = replica;
         INSERT INTO child SELECT i, i FROM generate_series(1, 13) i;",
    )
    .expect("children without parents");
    let migrate = pair.pgconvoy(&["migrate"]).expect("migrate runs");
    assert!(
        [0, 3].contains(&migrate.code),
        "the rest goes on: {}",
        migrate.text()
    );
    migrate.says("child_parent").says("3");
    let keys = "SELECT conname, convalidated FROM pg_constraint
                WHERE contype = 'f' AND connamespace = 'public'::regnamespace ORDER BY 1";
    assert_eq!(
        pair.at_target(keys).expect("the keys"),
        "child_parent|f\nhealthy_parent|t"
    );
    assert_eq!(
        pair.at_target("SELECT count(*) FROM child").expect("rows"),
        "13"
    );
}

#[test]
fn checkpoints_that_the_log_forces_are_told_with_what_helps() {
    let pair = Pair::with(Options {
        settings: vec![
            ("max_wal_size".into(), "32MB".into()),
            ("min_wal_size".into(), "32MB".into()),
        ],
        ..Options::default()
    })
    .expect("two servers and two agents");
    pair.at_source(
        "CREATE TABLE log (id int, line text);
         INSERT INTO log SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 300000) i",
    )
    .expect("100 MB");
    pair.migrate(&[])
        .says("[checkpoints]")
        .says("of WAL")
        .says("ALTER SYSTEM SET max_wal_size");
}

#[test]
fn a_migration_goes_on_while_the_source_is_written_to() {
    let pair = pair();
    pair.at_source(
        "CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL);
         INSERT INTO account SELECT i, 1000 FROM generate_series(1, 20000) i;",
    )
    .expect("accounts");
    // Money only moves: every snapshot has the same sum, and no mixture of two does.
    let mut clerk = pgconvoy_tests::hold::Background::psql(
        &pair.source,
        DATABASE,
        // Chosen beforehand: in a WHERE clause random() would be another number for every row.
        "DO $$ DECLARE a int; b int; BEGIN LOOP
           a := 1 + (random() * 9999)::int;
           b := 10001 + (random() * 9998)::int;
           UPDATE account SET balance = balance - 1 WHERE id = a;
           UPDATE account SET balance = balance + 1 WHERE id = b;
           COMMIT;
         END LOOP; END $$",
    )
    .expect("a clerk");
    pgconvoy_tests::eventually("the clerk works", Duration::from_secs(60), || {
        pair.at_source("SELECT count(*) FROM account WHERE balance <> 1000")
            .expect("the source")
            != "0"
    });
    pair.migrate(&[]);
    assert!(
        !clerk.finished().expect("the clerk goes on"),
        "nobody wrote during the migration"
    );
    let sums = "SELECT count(*), sum(balance) FROM account";
    let right = "20000|20000000";
    assert_eq!(
        pair.at_source(sums).expect("the source"),
        right,
        "the clerk cheats"
    );
    assert_eq!(pair.at_target(sums).expect("the target"), right);
}

//! What the other commands say and leave.
use pgconvoy_tests::Pair;

fn pair() -> Pair {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(
        "CREATE TABLE item (id int PRIMARY KEY, name text);
         INSERT INTO item SELECT i, 'item ' || i FROM generate_series(1, 1000) i;
         CREATE TABLE \"Odd name\" (id int);
         INSERT INTO \"Odd name\" VALUES (1), (1), (NULL);",
    )
    .expect("two tables");
    pair
}

const RELATIONS: &str = "SELECT count(*) FROM pg_class WHERE relnamespace::regnamespace::text !~ '^(pg_|information_schema)'";

#[test]
fn preflight_and_plan_change_nothing() {
    let pair = pair();
    let before = pair.at_target(RELATIONS).expect("the target");
    pair.pgconvoy(&["preflight"])
        .expect("preflight runs")
        .expect(0);
    pair.pgconvoy(&["plan"])
        .expect("plan runs")
        .expect(0)
        .says("item")
        .says("Odd name");
    pair.pgconvoy(&["migrate", "--dry-run"])
        .expect("it runs")
        .expect(0)
        .says("Odd name");
    assert_eq!(pair.at_target(RELATIONS).expect("the target"), before);
}

#[test]
fn the_report_has_every_table_with_its_rows_and_digests_of_both_ends() {
    let pair = pair();
    pair.migrate(&[]);
    pair.pgconvoy(&["report"])
        .expect("report runs")
        .expect(0)
        .says("item")
        .says("Odd name")
        .says("1000")
        .says("proven");
    let report = pair
        .pgconvoy(&["report", "--json"])
        .expect("report runs")
        .expect(0);
    let ledger = "SELECT name, source_rows, target_rows, coalesce(source_digest, ''), target_digest FROM pgconvoy.tables";
    for line in pair.at_target(ledger).expect("the ledger").lines() {
        let fields: Vec<&str> = line.split('|').collect();
        assert!(
            report.stdout.contains(fields[0]),
            "{} is not in the report",
            fields[0]
        );
        assert!(
            fields[4].len() == 32 && report.stdout.contains(fields[4]),
            "the target's digest of {line}"
        );
    }
    let digests = pair
        .at_target("SELECT count(DISTINCT target_digest) FROM pgconvoy.tables")
        .expect("the ledger");
    assert_eq!(digests, "2", "different tables have different digests");
}

#[test]
fn status_knows_a_migration_from_the_ledger_alone() {
    let pair = pair();
    pair.pgconvoy(&["status"])
        .expect("status runs")
        .says("no ledger");
    pair.migrate(&["--no-verify"]);
    pair.at_target("UPDATE pgconvoy.migrations SET verdict = NULL, finished_at = NULL")
        .expect("as if it had been killed before its end");
    let unfinished = pair.pgconvoy(&["status", "--json"]).expect("status runs");
    let unfinished = unfinished.expect(0).result();
    assert_eq!(unfinished["verdict"], "ok");
    assert!(unfinished["migration_verdict"].is_null());
    pair.pgconvoy(&["report"]).expect("report runs").expect(130);
    pair.pgconvoy(&["resume"]).expect("resume runs").expect(0);
    pair.pgconvoy(&["verify"]).expect("verify runs").expect(0);
    std::fs::remove_dir_all(pair.folder().join("runs")).expect("the run folders are gone");
    pair.pgconvoy(&["status"])
        .expect("status runs")
        .expect(0)
        .says("proven");
}

#[test]
fn a_finished_migration_is_not_repeated() {
    let pair = pair();
    pair.migrate(&[]);
    pair.at_target("INSERT INTO item VALUES (0, 'of the target')")
        .expect("a row");
    let again = pair.pgconvoy(&["migrate"]).expect("migrate runs");
    assert_eq!(
        pair.at_target("SELECT count(*) FROM item").expect("rows"),
        "1001",
        "{}",
        again.text()
    );
}

#[test]
fn clean_removes_the_ledger_and_nothing_else() {
    let pair = pair();
    let others = pair.folder().join("target-data/supabase");
    std::fs::create_dir_all(others.join("volumes")).expect("somebody else's folder");
    pair.migrate(&["--migration", "supabase"]);
    let ledger = |sql: &str| pair.at_target(sql).expect("the ledger");
    ledger(
        "INSERT INTO pgconvoy.migrations
         SELECT (jsonb_populate_record(m, '{\"id\": \"another\"}')).* FROM pgconvoy.migrations m",
    );
    let clean = ["clean", "--migration", "supabase"];
    pair.pgconvoy(&clean).expect("clean runs").expect(0);
    assert!(others.join("volumes").is_dir());
    assert_eq!(ledger("SELECT id FROM pgconvoy.migrations"), "another");
    for table in ["tables", "parts", "steps", "findings", "before"] {
        let rows = ledger(&format!("SELECT count(*) FROM pgconvoy.{table}"));
        assert_eq!(rows, "0", "pgconvoy.{table}");
    }
    pair.pgconvoy(&["clean"]).expect("clean runs").expect(0);
    let schema = pair
        .at_target("SELECT count(*) FROM pg_namespace WHERE nspname = 'pgconvoy'")
        .expect("the target");
    assert_eq!(schema, "0");
    pair.assert_equal_ends();
}

#[test]
fn nothing_is_left_at_the_source() {
    let pair = pair();
    let before = pair
        .at_source("SELECT count(*), sum(oid::bigint) FROM pg_class")
        .expect("the source");
    pair.migrate(&[]);
    let after = pair
        .at_source("SELECT count(*), sum(oid::bigint) FROM pg_class")
        .expect("the source");
    assert_eq!(after, before, "the source's catalog has changed");
    let traces = "SELECT (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_publication)";
    assert_eq!(pair.at_source(traces).expect("the source"), "0");
    let snapshots = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'app' AND state LIKE 'idle in transaction%'";
    assert_eq!(
        pair.at_source(snapshots).expect("the source"),
        "0",
        "the snapshot is held on"
    );
}

#[test]
fn json_ends_with_the_verdict() {
    let pair = pair();
    let migrate = pair.migrate(&["--json"]);
    assert_eq!(migrate.result()["verdict"], "proven");
    for line in migrate.stdout.lines() {
        let value: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
        assert!(
            value["event"].is_string(),
            "an event without a name: {line}"
        );
    }
}

#[test]
fn who_stops_reading_does_not_end_what_is_done() {
    let pair = pair();
    let mut migrate = pair.command(&["migrate", "--json"]);
    let mut migrate = migrate
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("migrate runs");
    drop((migrate.stdout.take(), migrate.stderr.take()));
    let ended = migrate.wait().expect("it ends");
    assert_eq!(ended.code(), Some(0));
    pair.assert_equal_ends();
}

#[test]
fn without_verification_nothing_is_called_proven() {
    let pair = pair();
    let migrate = pair.migrate(&["--no-verify", "--json"]);
    assert_eq!(migrate.result()["verdict"], "unverified");
    pair.assert_equal_ends();
}

//! Preflight is the checklist: what goes on at the source, where may be written, how long it will take.
use pgconvoy_tests::hold::Background;
use pgconvoy_tests::pair::{DATABASE, Options};
use pgconvoy_tests::program::Outcome;
use pgconvoy_tests::{PATIENCE, Pair, eventually};

fn severity<'a>(outcome: &'a serde_json::Value, code: &str) -> Option<&'a str> {
    let findings = outcome["findings"].as_array().expect("findings");
    let found = findings.iter().find(|finding| finding["code"] == code)?;
    found["severity"].as_str()
}

fn preflight(pair: &Pair, arguments: &[&str]) -> Outcome {
    let mut all = vec!["preflight", "--json"];
    all.extend(arguments);
    pair.pgconvoy(&all).expect("preflight runs")
}

#[test]
fn the_checklist_tells_what_goes_on_at_the_source() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(
        "CREATE TABLE item (id int PRIMARY KEY, name text);
         INSERT INTO item SELECT i, 'item ' || i FROM generate_series(1, 1000) i;
         CREATE TABLE fresh (id int) WITH (autovacuum_enabled = off);
         INSERT INTO fresh VALUES (1);
         CREATE SCHEMA cron;
         CREATE TABLE cron.job (jobid bigint PRIMARY KEY, schedule text, command text, active bool, jobname text);
         INSERT INTO cron.job VALUES (1, '0 3 * * *', 'SELECT 1', true, 'nightly'), (2, '* * * * *', 'SELECT 1', false, 'off');
         ANALYZE item",
    )
    .expect("a source");

    // Nobody writes: maintenance mode is on.
    let quiet = preflight(&pair, &["--sample", "300ms"]).expect(0).result();
    assert_eq!(severity(&quiet, "no-writes"), Some("info"), "{quiet}");
    assert_eq!(
        severity(&quiet, "scheduled-jobs"),
        Some("warning"),
        "{quiet}"
    );
    assert_eq!(severity(&quiet, "estimate"), Some("info"), "{quiet}");
    let table = |name: &str| {
        let tables = quiet["tables"].as_array().expect("tables").iter();
        let mut named = tables.filter(|table| table["table"] == name);
        named.next().cloned().expect("the table")
    };
    assert_eq!(table("item")["rows"], 1000);
    assert_eq!(table("item")["rows_are_estimated"], true);
    assert!(table("fresh")["rows"].is_null(), "{}", table("fresh"));
    assert!(
        quiet["estimate"]["downtime_with_sync_seconds"].is_f64(),
        "{quiet}"
    );

    // Somebody does, and has not ended.
    pair.at_source("CREATE TABLE hot (id int)")
        .expect("a table");
    let writer = "DO $$ BEGIN FOR i IN 1..100000 LOOP
        INSERT INTO hot VALUES (i); COMMIT; PERFORM pg_sleep(0.01); END LOOP; END $$";
    let busy = Background::psql(&pair.source, "app", writer).expect("a writer");
    eventually("the application writes", PATIENCE, || {
        pair.at_source("SELECT count(*) > 0 FROM hot")
            .is_ok_and(|text| text == "t")
    });
    let written = preflight(&pair, &["--sample", "1s"])
        .expect(0)
        .says("maintenance mode");
    let written = written.result();
    assert_eq!(
        severity(&written, "writes-seen"),
        Some("warning"),
        "{written}"
    );
    assert_eq!(severity(&written, "sessions"), Some("warning"), "{written}");
    drop(busy);

    // Only what stands in the way.
    let critical = preflight(&pair, &["--critical-only"]).expect(0).result();
    assert_eq!(
        critical["findings"].as_array().map(Vec::len),
        Some(0),
        "{critical}"
    );
}

#[test]
fn folders_that_cannot_be_written_stand_in_the_way() {
    // A role that may not even look up the names of pg_cron's tables.
    let pair = Pair::with(Options {
        source_url: Some(|server| server.url_as("reader", Some("reading"), DATABASE)),
        before_agents: Some(|pair| {
            pair.at_source(
                "CREATE ROLE reader LOGIN PASSWORD 'reading';
                 CREATE SCHEMA cron; CREATE TABLE cron.job (jobid bigint PRIMARY KEY, schedule text, active bool);
                 CREATE TABLE item (id int PRIMARY KEY); GRANT SELECT ON item TO reader;",
            )
            .map(drop)
        }),
        ..Options::default()
    })
    .expect("two servers and two agents");
    let file = pair.folder().join("a-file");
    std::fs::write(&file, "").expect("a file");
    let inside = file.join("runs");
    let run_dir = inside.to_str().expect("a path");
    let blocked = preflight(
        &pair,
        &[
            "--critical-only",
            "--exclude-schema",
            "cron",
            "--run-dir",
            run_dir,
        ],
    )
    .expect(4);
    assert_eq!(severity(&blocked.result(), "run-dir"), Some("blocker"));

    let data = pair.folder().join("target-data");
    std::fs::rename(&data, pair.folder().join("elsewhere")).expect("the data folder is gone");
    let blocked = preflight(&pair, &["--sample", "0s", "--exclude-schema", "cron"])
        .expect(4)
        .says("target-data");
    assert_eq!(severity(&blocked.result(), "data-dir"), Some("blocker"));
    assert_eq!(severity(&blocked.result(), "jobs-unknown"), Some("warning"));
}

#[test]
fn a_schema_that_is_left_out_need_not_be_readable() {
    let pair = Pair::with(Options {
        before_agents: Some(|pair| {
            pair.at_source(
                "CREATE ROLE mover LOGIN PASSWORD 'moving'; CREATE SCHEMA hr; CREATE TABLE hr.\"Sal.ary\" (n int);
                 CREATE TABLE shown (id int PRIMARY KEY); INSERT INTO shown VALUES (1);
                 CREATE VIEW hr.v AS SELECT * FROM shown; GRANT SELECT ON shown TO mover",
            )?;
            Ok(())
        }),
        source_url: Some(|server| server.url_as("mover", Some("moving"), DATABASE)),
        ..Options::default()
    })
    .expect("two servers and two agents");
    let all = preflight(&pair, &[]);
    assert_eq!(
        severity(&all.expect(4).result(), "source-unreadable"),
        Some("blocker")
    );
    pair.migrate(&["--exclude-schema", "hr"]).says("proven");
    let there =
        "SELECT string_agg(relname, ' ') FROM pg_class WHERE relname IN ('Sal.ary', 'shown')";
    assert_eq!(pair.at_target(there).expect("the target"), "shown");
}

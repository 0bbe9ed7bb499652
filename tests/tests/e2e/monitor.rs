//! `monitor`: the target in the days after.
use pgconvoy_tests::Pair;
use pgconvoy_tests::majors;
use pgconvoy_tests::pair::Options;

#[test]
fn monitor_tells_what_asks_for_attention_and_what_differs_since() {
    let pair = Pair::with(Options {
        settings: vec![(
            "shared_preload_libraries".into(),
            "pg_stat_statements".into(),
        )],
        ..Options::default()
    })
    .expect("two servers and two agents");
    pair.at_source(
        "CREATE TABLE item (id serial PRIMARY KEY, name text);
         INSERT INTO item (name) SELECT 'item ' || i FROM generate_series(1, 100) i;
         CREATE INDEX item_name ON item (name);
         CREATE TABLE small (id smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
         SELECT setval('small_id_seq', 30000);",
    )
    .expect("two tables");
    pair.migrate(&[]);

    let target = pair.target_agent.url();
    let alone = || {
        let identity = pair.pki().join("coordinator.pem");
        let mut command =
            pgconvoy_tests::demo::agent::clean_command(&pgconvoy_tests::program::path("pgconvoy"));
        command
            .args(["monitor", "--json", "--target", &target, "--identity"])
            .arg(identity);
        let monitor = pgconvoy_tests::program::Running::start(command, pair.folder())
            .expect("monitor starts");
        monitor
            .wait(pgconvoy_tests::PATIENCE)
            .expect("monitor ends")
            .expect(0)
    };
    let seen = alone();
    let health = &seen.result()["health"];
    assert_eq!(health["slowest"], "missing", "{health}");
    assert_eq!(
        health["sequences"][0]["name"], "public.small_id_seq",
        "{health}"
    );
    assert_eq!(health["sequences"][0]["limit"], 32767, "{health}");
    assert!(
        health["connections"]["used"]
            .as_u64()
            .is_some_and(|n| n > 0),
        "{health}"
    );
    let item = health["largest"]
        .as_array()
        .and_then(|all| all.iter().find(|size| size["table"] == "public.item"));
    assert_eq!(
        item.map(|item| &item["live_rows"]),
        Some(&serde_json::json!(100)),
        "{health}"
    );
    assert!(seen.result()["since"].is_null());
    assert!(
        seen.says("[sequence] public.small_id_seq")
            .text()
            .contains("92 %")
    );

    pair.at_target(
        "CREATE EXTENSION pg_stat_statements;
         UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'item_name'::regclass;
         INSERT INTO item (name) VALUES ('a-constant-of-somebody');
         CREATE TABLE news (id int PRIMARY KEY);",
    )
    .expect("the application goes on");
    pair.at_target("SELECT count(*) FROM item WHERE name = 'a-constant-of-somebody'")
        .expect("a query");
    let seen = pair
        .pgconvoy(&["monitor", "--json"])
        .expect("monitor runs")
        .expect(0);
    let result = seen.result();
    let statements = result["health"]["slowest"]["statements"].to_string();
    assert!(
        statements.contains("SELECT count(*) FROM item WHERE name = $1"),
        "{statements}"
    );
    assert!(
        !seen.text().contains("a-constant-of-somebody"),
        "{}",
        seen.text()
    );
    assert_eq!(result["health"]["invalid_indexes"][0], "public.item_name");
    let tables = result["since"]["tables"].as_array().expect("tables");
    let item = tables
        .iter()
        .find(|table| table["table"] == "item")
        .expect("item");
    assert_eq!(
        (&item["source_rows"], &item["target_rows"]),
        (&100.into(), &101.into())
    );
    assert!(
        result["since"]["schema"]
            .to_string()
            .contains("public.news"),
        "{result}"
    );
    let screen = pair.pgconvoy(&["monitor"]).expect("monitor runs").expect(0);
    let screen = screen.says("100 rows at the source").says("index-invalid");
    assert!(screen.stdout.lines().count() < 60, "{}", screen.stdout);
    // The ledger is cleaned, and some day the source is gone: the target is looked at all the same.
    pair.pgconvoy(&["monitor", "--source", "https://127.0.0.1:1"])
        .expect("monitor runs")
        .expect(0)
        .says("source-not-compared")
        .says("connections");
    // It is no verdict on the migration.
    let verdict = pair
        .at_target("SELECT verdict FROM pgconvoy.migrations")
        .expect("the ledger");
    assert_eq!(verdict, "proven");
}

/// From the oldest server that pgconvoy knows to the newest, and the other way: what each of these commands asks, both answer.
fn every_look_is_answered(source: u32, target: u32) {
    let Some(options) = majors::options(source, target) else {
        return;
    };
    let pair = Pair::with(options).expect("two servers and two agents");
    pair.at_source(
        "CREATE TABLE item (id int PRIMARY KEY, parent int REFERENCES item);
         INSERT INTO item SELECT i, 1 FROM generate_series(1, 10) i;
         CREATE FUNCTION ask() RETURNS text LANGUAGE sql RETURN 'https://old.example.org/x'",
    )
    .expect("a table");
    let runs = |arguments: &[&str]| pair.pgconvoy(arguments).expect("it runs").expect(0);
    runs(&["preflight", "--sample", "100ms"]);
    std::fs::write(
        pair.folder().join("checks.sql"),
        "-- check: c\n-- expect: equal\nSELECT count(*) FROM public.item",
    )
    .expect("a checks file");
    runs(&["migrate", "--checks", "checks.sql"]).says("old.example.org is written into it");
    runs(&["verify", "--critical-only"]).says("checks=1 checks_failed=0");
    runs(&["monitor"]).says(&format!("PostgreSQL {target}."));
}

#[test]
fn the_oldest_and_the_newest_server_answer_every_look() {
    every_look_is_answered(14, 18);
    every_look_is_answered(18, 14);
}

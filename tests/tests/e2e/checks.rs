//! Business checks: what must hold in the databases, told by their owner.
use std::fs;

use pgconvoy_tests::Pair;
use pgconvoy_tests::program::Outcome;

const SHOP: &str = "
    CREATE SCHEMA shop;
    CREATE TABLE shop.profile (id int PRIMARY KEY, role text);
    INSERT INTO shop.profile SELECT i, CASE i % 2 WHEN 0 THEN 'admin' ELSE 'driver' END FROM generate_series(1, 100) i;
    CREATE TABLE shop.item (id int PRIMARY KEY, profile int);
    INSERT INTO shop.item SELECT i, i FROM generate_series(1, 50) i;
    CREATE FUNCTION shop.forget() RETURNS bigint LANGUAGE sql AS 'DELETE FROM shop.item RETURNING id::bigint';";

const CHECKS: &str = r#"
[[check]]
name = "valid roles"
sql = "SELECT id, role FROM shop.profile WHERE role NOT IN ('admin', 'driver')"
expect = "no-rows"
at = "both"
hint = "ask the owner of the roles"

[[check]]
name = "items per profile"
sql = "SELECT profile % 7, count(*) FROM shop.item GROUP BY 1"
expect = "equal"

[[check]]
name = "profiles are there"
sql = "SELECT count(*) FROM shop.profile"
expect = "at-least 100"
"#;

fn pair() -> Pair {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(SHOP).expect("a shop");
    pair
}

fn run(pair: &Pair, command: &str, name: &str, checks: &str) -> Outcome {
    fs::write(pair.folder().join(name), checks).expect("a checks file");
    pair.pgconvoy(&[command, "--json", "--checks", name])
        .expect("it runs")
}

/// The codes of the findings about a check.
fn found(outcome: &Outcome, check: &str) -> Vec<String> {
    let result = outcome.result();
    let findings = result["findings"].as_array().expect("findings").iter();
    findings
        .filter(|finding| finding["object"] == format!("check {check}"))
        .map(|finding| finding["code"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn checks_are_part_of_the_proof_and_are_run_again_with_each_verification() {
    let pair = pair();
    let migrate = run(&pair, "migrate", "checks.toml", CHECKS).expect(0);
    let checks = &migrate.result()["checks"];
    assert_eq!(checks.as_array().map(Vec::len), Some(3), "{checks}");
    assert_eq!(checks[0]["holds"], true, "{checks}");
    pair.pgconvoy(&["report"])
        .expect("report runs")
        .expect(0)
        .says("holds  valid roles");

    // Without a file: those of the migration.
    pair.at_target("UPDATE shop.profile SET role = 'thief' WHERE id IN (3, 4)")
        .expect("a change");
    let verify = pair.pgconvoy(&["verify", "--json"]).expect("it runs");
    let verify = verify.expect(3).says("2 rows: 3, 4").says("ask the owner");
    assert_eq!(found(&verify, "valid roles"), ["check-failed"]);
    assert_eq!(found(&verify, "items per profile"), [""; 0]);
    assert_eq!(verify.result()["checks"][0]["holds"], false);

    // Other checks do not make good for those.
    let other = "-- check: another\n-- expect: no-rows\nSELECT 1 WHERE false";
    let verify = run(&pair, "verify", "other.sql", other).expect(3);
    assert_eq!(found(&verify, "valid roles"), ["check-failed"]);
    assert_eq!(verify.result()["checks"].as_array().map(Vec::len), Some(4));

    // Mended: the finding of before is forgotten.
    pair.at_target(
        "UPDATE shop.profile SET role = CASE id % 2 WHEN 0 THEN 'admin' ELSE 'driver' END",
    )
    .expect("a change");
    let verify = pair.pgconvoy(&["verify", "--json"]).expect("it runs");
    assert_eq!(verify.expect(0).result()["verdict"], "proven");

    // A sync asks them as well: of what the source has by now.
    pair.at_source("INSERT INTO shop.profile VALUES (101, 'thief')")
        .expect("a change");
    let sync = pair
        .pgconvoy(&["sync", "--json"])
        .expect("it runs")
        .expect(3);
    assert_eq!(sync.result()["checks"][0]["holds"], false);
    pair.at_source("DELETE FROM shop.profile WHERE id = 101")
        .expect("a change");
    let sync = pair
        .pgconvoy(&["sync", "--json"])
        .expect("it runs")
        .expect(0);
    assert_eq!(sync.result()["checks"][0]["holds"], true);

    // A check fails at the end that was asked.
    pair.at_target("DELETE FROM shop.item WHERE id = 50; DELETE FROM shop.profile WHERE id = 100")
        .expect("a change");
    let verify = pair.pgconvoy(&["verify", "--json"]).expect("it runs");
    let verify = verify.expect(3).says("(target: 99)");
    assert_eq!(found(&verify, "items per profile"), ["check-failed"]);
    assert_eq!(found(&verify, "profiles are there"), ["check-failed"]);
    assert_eq!(found(&verify, "valid roles"), [""; 0]);
}

#[test]
fn a_check_cannot_write_and_does_not_run_for_ever() {
    let pair = pair();
    pair.migrate(&[]);
    let bad = [
        ("delete", "DELETE FROM shop.item"),
        ("returning", "DELETE FROM shop.item RETURNING id"),
        ("function", "SELECT shop.forget()"),
        ("two", "SELECT 1; DELETE FROM shop.item"),
        ("program", "COPY shop.item TO PROGRAM 'touch written'"),
        ("endless", "SELECT pg_catalog.pg_sleep(600)"),
        ("unqualified", "SELECT id FROM item"),
        ("typing", "SELECT id\nFROM shop.item\nWHEER id = 1"),
    ];
    let checks: String = bad
        .iter()
        .map(|(name, sql)| {
            format!("-- check: {name}\n-- expect: no-rows\n-- timeout: 300ms\n{sql};\n\n")
        })
        .collect();
    let verify = run(&pair, "verify", "bad.sql", &checks).expect(3);
    for (name, _) in bad {
        assert_eq!(found(&verify, name), ["check-not-run"], "{name}");
    }
    let verify = verify
        .says("did not end within 0.3 s")
        .says("read-only transaction")
        .says("refused")
        .says("line 41 of the file")
        .says("0 of 8 business checks hold")
        .says("checks=8 checks_failed=8");
    assert_eq!(verify.result()["verdict"], "differs");
    // What a verification has spoilt a sync does not mend, and says so.
    pair.pgconvoy(&["sync"])
        .expect("it runs")
        .expect(3)
        .says("check-not-run");
    let rows = pair
        .at_target("SELECT count(*) FROM shop.item")
        .expect("rows");
    assert_eq!(rows, "50", "a check has written");
}

#[test]
fn a_bad_file_stops_a_migration_before_it_begins() {
    let pair = pair();
    run(
        &pair,
        "migrate",
        "broken.toml",
        "[[check]]\nname = \"a\nsql = 1",
    )
    .expect(2)
    .says("broken.toml")
    .says("line 2");
    run(&pair, "migrate", "headless.sql", "SELECT 1;")
        .expect(2)
        .says("line 1: a check begins");
    let typing = "-- check: typing\n-- expect: no-rows\nSELEC 1;\n";
    run(&pair, "migrate", "typing.sql", typing)
        .expect(4)
        .says("line 3 of the file");
    let there = "SELECT count(*) FROM pg_namespace WHERE nspname IN ('shop', 'pgconvoy')";
    assert_eq!(pair.at_target(there).expect("the target"), "0");
}

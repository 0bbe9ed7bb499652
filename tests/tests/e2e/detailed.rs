//! `verify --detailed` names the rows that differ, by key, and their columns; values only when asked.
use pgconvoy_tests::Pair;
use pgconvoy_tests::program::{Outcome, peak_resident_bytes};
use serde_json::Value;

const SHOP: &str = "
    CREATE TABLE item (id int PRIMARY KEY, name text, qty int, twice int GENERATED ALWAYS AS (qty * 2) STORED);
    INSERT INTO item SELECT i, 'secret ' || i, i FROM generate_series(1, 5000) i;
    CREATE TABLE log (line text);
    INSERT INTO log SELECT 'line ' || i % 10 FROM generate_series(1, 1000) i;
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
    CREATE TABLE hashed (m mood, id int, v text, PRIMARY KEY (m, id)) PARTITION BY HASH (m);
    CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    INSERT INTO hashed SELECT (enum_range(NULL::mood))[1 + i % 3], i, 'v' || i FROM generate_series(1, 300) i;
    CREATE TABLE \"Odd \"\"name\" (b text NOT NULL, c xml, a int NOT NULL, UNIQUE (b, a));
    INSERT INTO \"Odd \"\"name\" SELECT E'tab\\t' || i, '<c/>', i FROM generate_series(1, 100) i;
    CREATE TABLE nothing ();
    INSERT INTO nothing SELECT FROM generate_series(1, 2);
    CREATE TABLE untouched (id int PRIMARY KEY);
    INSERT INTO untouched SELECT generate_series(1, 1000);";

const CHANGES: &str = "
    UPDATE item SET name = 'other' WHERE id = 500;
    UPDATE item SET qty = 7 WHERE id = 3;
    UPDATE item a SET name = b.name FROM item b WHERE a.id + b.id = 41 AND a.id IN (20, 21);
    DELETE FROM item WHERE id = 5000;
    INSERT INTO item VALUES (-1, NULL, 1);
    INSERT INTO log SELECT 'line 3' FROM generate_series(1, 2);
    UPDATE log SET line = 'NULL' WHERE ctid = (SELECT ctid FROM log WHERE line = 'line 7' LIMIT 1);
    UPDATE hashed SET v = NULL WHERE id = 17;
    UPDATE \"Odd \"\"name\" SET c = NULL WHERE a = 5;
    DELETE FROM nothing WHERE ctid = (SELECT min(ctid) FROM nothing);";

/// The findings about rows, as `object: message (source value; target value)`, sorted.
fn rows(verify: &Outcome) -> Vec<String> {
    let result = verify.result();
    let findings = result["findings"].as_array().expect("findings");
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let mut rows: Vec<String> = findings
        .iter()
        .filter(|finding| text(finding, "code").starts_with("row-"))
        .map(|finding| {
            format!(
                "{}: {} ({}; {})",
                text(finding, "object"),
                text(finding, "message"),
                text(finding, "source_value"),
                text(finding, "target_value")
            )
        })
        .collect();
    rows.sort();
    rows
}

#[test]
fn rows_that_differ_are_named_with_their_columns() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(SHOP).expect("a shop");
    pair.migrate(&[]);
    pair.pgconvoy(&["verify", "--detailed"])
        .expect("verify runs")
        .expect(0);
    pair.at_target(CHANGES).expect("changes");

    let masked = pair
        .pgconvoy(&["verify", "--detailed", "--json"])
        .expect("verify runs")
        .expect(3);
    let expected = [
        "public.Odd \"name: row b=tab\\t5, a=5: c differs (; )",
        "public.hashed: row m=happy, id=17: v differs (; )",
        "public.item: row id=-1: extra at the target (; )",
        "public.item: row id=20: name differs (; )",
        "public.item: row id=21: name differs (; )",
        "public.item: row id=3: qty, twice differ (; )",
        "public.item: row id=5000: missing at the target (; )",
        "public.item: row id=500: name differs (; )",
        "public.log: a row: extra at the target (2 times) (; )",
        "public.log: a row: extra at the target (; )",
        "public.log: a row: missing at the target (; )",
        "public.nothing: a row: missing at the target (; )",
    ];
    assert_eq!(rows(&masked), expected);
    for (output, what) in [(masked.text(), "the output"), (logs(&pair), "a log")] {
        assert!(
            !output.contains("secret"),
            "{what} shows a value:\n{output}"
        );
    }

    let shown = pair
        .pgconvoy(&["verify", "--detailed", "--show-values", "--json"])
        .expect("verify runs")
        .expect(3);
    let shown = rows(&shown);
    for expected in [
        "public.item: row id=500: name differs (name='secret 500'; name='other')",
        "public.item: row id=20: name differs (name='secret 20'; name='secret 21')",
        "public.item: row id=3: qty, twice differ (qty='3', twice='6'; qty='7', twice='14')",
        "public.item: row id=-1: extra at the target (; name=NULL, qty='1', twice='2')",
        "public.log: a row: extra at the target (; line='NULL')",
        "public.log: a row: missing at the target (line='line 7'; )",
        "public.hashed: row m=happy, id=17: v differs (v='v17'; v=NULL)",
    ] {
        assert!(
            shown.iter().any(|row| row == expected),
            "{expected} is not among {shown:#?}"
        );
    }

    let one = pair
        .pgconvoy(&["verify", "--detailed", "--rows", "1", "--json"])
        .expect("verify runs")
        .expect(3);
    assert_eq!(rows(&one).len(), 5, "one row for each of five tables");
    one.says("4 changed, 1 missing at the target, 1 extra at the target");
}

fn logs(pair: &Pair) -> String {
    pair.source_agent.log() + &pair.target_agent.log()
}

#[test]
fn a_generated_column_that_was_computed_otherwise_is_found() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(
        "CREATE FUNCTION twice(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 2';
         CREATE TABLE item (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (public.twice(id)) STORED);
         INSERT INTO item SELECT generate_series(1, 100);",
    )
    .expect("a table");
    pair.migrate(&[]);
    // The stored values are of the function as it was; the columns that were copied are equal.
    pair.at_target(
        "CREATE OR REPLACE FUNCTION twice(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 3';
         UPDATE item SET id = id WHERE id = 50;
         CREATE OR REPLACE FUNCTION twice(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 2';",
    )
    .expect("another value");
    pair.pgconvoy(&["verify"])
        .expect("verify runs")
        .expect(3)
        .says("generated-differ")
        .says("public.item");
    // What a sync would copy is equal: it brings nothing, and proves nothing.
    for sync in [&["sync", "--dry-run"][..], &["sync"]] {
        let synced = pair.pgconvoy(sync).expect("sync runs");
        let code = if sync.len() > 1 { 0 } else { 3 };
        synced.expect(code).says("generated-differ");
    }
    let verdict = "SELECT verdict FROM pgconvoy.migrations";
    assert_eq!(pair.at_target(verdict).expect("the ledger"), "differs");
}

#[test]
fn half_a_table_that_differs_is_counted_in_bounded_memory() {
    const LIMIT: u64 = 256 << 20;
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(
        "CREATE TABLE big (id bigint PRIMARY KEY, note text);
         INSERT INTO big SELECT i, 'note ' || i FROM generate_series(1, 300000) i;",
    )
    .expect("a table");
    pair.migrate(&[]);
    pair.at_target("UPDATE big SET note = note || '!' WHERE id % 2 = 0")
        .expect("changes");
    let verify = pair
        .pgconvoy(&["verify", "--detailed", "--json"])
        .expect("verify runs")
        .expect(3)
        .says("150000 changed");
    assert_eq!(rows(&verify).len(), 20);
    for agent in [&pair.source_agent, &pair.target_agent] {
        let peak = peak_resident_bytes(agent.pid()).expect("its memory");
        assert!(peak < LIMIT, "an agent used {} MB", peak >> 20);
    }
}

//! `verify` finds what has changed since, and says where.
use pgconvoy_tests::Pair;

fn migrated() -> Pair {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(
        "CREATE SCHEMA shop;
         CREATE TABLE shop.item (id int PRIMARY KEY, name text);
         INSERT INTO shop.item SELECT i, 'item ' || i FROM generate_series(1, 1000) i;
         CREATE TABLE shop.untouched (id int PRIMARY KEY);
         INSERT INTO shop.untouched SELECT generate_series(1, 1000);
         CREATE TABLE shop.log (line text);
         INSERT INTO shop.log SELECT 'line ' || i % 10 FROM generate_series(1, 1000) i;",
    )
    .expect("a shop");
    pair.migrate(&[]);
    pair
}

/// `verify` after `change` at the target ends with 3 and names the table, and no other.
fn a_change_is_found(change: &str, table: &str) {
    let pair = migrated();
    pair.pgconvoy(&["verify"]).expect("verify runs").expect(0);
    pair.at_target(change).expect("a change");
    let verify = pair
        .pgconvoy(&["verify", "--json"])
        .expect("verify runs")
        .expect(3);
    assert_eq!(verify.result()["verdict"], "differs");
    let verify = pair
        .pgconvoy(&["verify"])
        .expect("verify runs")
        .expect(3)
        .says(table);
    let text = verify.text();
    let complaints = text
        .lines()
        .filter(|line| line.contains("untouched") && line.contains("differ"))
        .count();
    assert_eq!(
        complaints, 0,
        "a table that is equal is said to differ:\n{text}"
    );
}

#[test]
fn a_changed_row_is_found() {
    a_change_is_found(
        "UPDATE shop.item SET name = 'Item 500' WHERE id = 500",
        "shop.item",
    );
}

#[test]
fn a_missing_row_is_found() {
    a_change_is_found("DELETE FROM shop.item WHERE id = 1000", "shop.item");
}

#[test]
fn a_doubled_row_of_a_table_without_a_key_is_found() {
    a_change_is_found(
        "INSERT INTO shop.log SELECT * FROM shop.log LIMIT 1",
        "shop.log",
    );
}

#[test]
fn a_row_swapped_for_an_equally_long_one_is_found() {
    a_change_is_found(
        "UPDATE shop.log SET line = 'line X' WHERE ctid = '(0,1)'",
        "shop.log",
    );
}

#[test]
fn critical_only_counts_rows_and_looks_for_orphans_and_invalid_indexes() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(
        "CREATE TABLE person (id int PRIMARY KEY);
         INSERT INTO person SELECT generate_series(1, 10);
         CREATE TABLE item (id int PRIMARY KEY, person int REFERENCES person);
         INSERT INTO item SELECT i, i FROM generate_series(1, 10) i;
         CREATE INDEX item_person ON item (person);
         ALTER TABLE item ENABLE ROW LEVEL SECURITY;
         CREATE POLICY mine ON item USING (true);",
    )
    .expect("two tables");
    pair.migrate(&[]);
    let quick = |code: i32| {
        let quick = pair.pgconvoy(&["verify", "--critical-only", "--verbose"]);
        quick.expect("verify runs").expect(code)
    };
    let ok = quick(0).says("rows at source");
    let line = ok.stdout.lines().last().unwrap_or_default();
    assert_eq!(
        line,
        "verdict=ok tables=2 differences=0 warnings=0 checks=0 checks_failed=0"
    );

    // Contents that differ are not seen; numbers, orphans, indexes and policies are.
    pair.at_target("UPDATE item SET person = 1 WHERE id = 2")
        .expect("a change");
    quick(0);
    pair.at_target(
        "SET session_replication_role = replica;
         DELETE FROM person WHERE id = 3;
         UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'item_person'::regclass;
         ALTER TABLE item DISABLE ROW LEVEL SECURITY;",
    )
    .expect("damage");
    let differs = quick(3)
        .says("[counts-differ] public.person")
        .says("[orphans] public.item: item_person_fkey: 1 rows refer to nothing")
        .says("[index-invalid] public.item: item_person")
        .says("[policy-idle] public.item: mine");
    assert!(
        differs
            .stdout
            .lines()
            .last()
            .unwrap_or_default()
            .starts_with("verdict=differs tables=2")
    );
    // It is no verdict on the migration: the ledger has what was proven.
    let verdict = "SELECT verdict FROM pgconvoy.migrations";
    assert_eq!(pair.at_target(verdict).expect("the ledger"), "proven");
    let verbose = pair
        .pgconvoy(&["verify", "--verbose"])
        .expect("verify runs");
    verbose
        .expect(3)
        .says("digest at source")
        .says("verdict=differs");
}

#[test]
fn a_key_is_looked_at_with_its_own_operators_and_an_index_that_waits_for_partitions_is_no_difference()
 {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(
        "CREATE EXTENSION citext; CREATE SCHEMA numbers; CREATE EXTENSION isn SCHEMA numbers;
         CREATE TYPE mood AS ENUM ('calm');
         CREATE TABLE person (name citext PRIMARY KEY, book numbers.isbn UNIQUE, town text COLLATE \"C\" UNIQUE, mood mood UNIQUE, code char(4) UNIQUE);
         INSERT INTO person VALUES ('Alice', '978-0-393-04002-9', 'x', 'calm', 'a');
         CREATE TABLE item (id int PRIMARY KEY, person citext CONSTRAINT item_person REFERENCES person,
             book numbers.isbn REFERENCES person (book), town text COLLATE \"POSIX\" REFERENCES person (town),
             mood mood REFERENCES person (mood), code varchar(9) REFERENCES person (code));
         INSERT INTO item VALUES (1, 'alice', '978-0-393-04002-9', 'x', 'calm', 'a');
         -- Keys bind the rows of these tables alone.
         CREATE TABLE kind (id int PRIMARY KEY); CREATE TABLE kind_of_child () INHERITS (kind);
         INSERT INTO kind_of_child VALUES (2);
         CREATE TABLE thing (kind int CONSTRAINT thing_kind REFERENCES kind); CREATE TABLE thing_of_child () INHERITS (thing);
         INSERT INTO thing_of_child VALUES (7);
         CREATE TABLE part (id int PRIMARY KEY, at int) PARTITION BY RANGE (id);
         CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (9);
         INSERT INTO part VALUES (1, 1);
         CREATE INDEX part_at ON ONLY part (at);
         CREATE TABLE part_of (a int, b int, part int CONSTRAINT part_of_part REFERENCES part) PARTITION BY LIST (a);
         CREATE TABLE part_of_1 PARTITION OF part_of DEFAULT;
         INSERT INTO part_of VALUES (1, 1, 1), (1, 1, NULL);",
    )
    .expect("keys");
    pair.migrate(&[]);
    let quick = |code: i32| {
        let quick = pair.pgconvoy(&["verify", "--critical-only"]);
        quick.expect("verify runs").expect(code)
    };
    quick(0)
        .says("[index-invalid] public.part: part_at: the index is not valid: a partition has none");
    // One side of each key is synced.
    for table in ["public.person", "public.kind", "public.part_1"] {
        let synced = pair.pgconvoy(&["sync", "--table", table]);
        synced.expect("sync runs").expect(0);
    }
    pair.at_target(
        "SET session_replication_role = replica;
         INSERT INTO item VALUES (2, 'bob'); INSERT INTO thing VALUES (2); INSERT INTO part_of VALUES (1, 1, 3);",
    )
    .expect("orphans");
    let orphaned = quick(3)
        .says("[orphans] public.item: item_person: 1 rows refer to nothing in public.person (for example bob)")
        .says("[orphans] public.thing: thing_kind: 1 rows refer to nothing in public.kind (for example 2)")
        .says("[orphans] public.part_of: part_of_part: 1 rows refer to nothing in public.part (for example 3)");
    assert_eq!(orphaned.text().matches("[orphans]").count(), 3);
}

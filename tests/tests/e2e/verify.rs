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

//! The oracle itself: it sees what differs, and nothing where nothing does. Moved by pg_dump and psql alone.
use std::process::Stdio;

use pgconvoy_tests::demo::SAMPLE;
use pgconvoy_tests::demo::server::Server;
use pgconvoy_tests::oracle::{assert_equal, dumps_differ};
use pgconvoy_tests::pair::{DATABASE, Options, start_server};

fn servers() -> (Server, Server) {
    let options = Options::default();
    let source = start_server("source", &options).expect("a server");
    let target = start_server("target", &options).expect("another server");
    (source, target)
}

fn sql(server: &Server, sql: &str) {
    server.psql(DATABASE, sql).expect("it runs");
}

/// `pg_dump | psql`.
fn copy(source: &Server, target: &Server) {
    let mut dump = source
        .installation()
        .command("pg_dump")
        .args(["-d", &source.url(DATABASE)])
        .stdout(Stdio::piped())
        .spawn()
        .expect("pg_dump starts");
    let output = dump.stdout.take().expect("stdout is piped");
    let restored = target
        .psql_command(DATABASE)
        .stdin(output)
        .stdout(Stdio::null())
        .status()
        .expect("psql runs");
    assert!(
        dump.wait().expect("pg_dump ends").success() && restored.success(),
        "pg_dump | psql"
    );
}

fn agrees_with_pg_dump(database: &str) {
    let (source, target) = servers();
    sql(&source, database);
    copy(&source, &target);
    assert_equal(&source, &target);
}

#[test]
fn the_oracle_finds_a_restored_shop_equal() {
    agrees_with_pg_dump(SAMPLE);
}

#[test]
fn the_oracle_finds_a_restored_database_of_odd_names_and_types_equal() {
    agrees_with_pg_dump(include_str!("nasty.sql"));
}

#[test]
fn the_oracle_finds_a_restored_depot_equal() {
    agrees_with_pg_dump(include_str!("depot.sql"));
}

#[test]
fn the_oracle_sees_what_differs() {
    let (source, target) = servers();
    for server in [&source, &target] {
        sql(
            server,
            "CREATE TABLE item (id int, name text); CREATE INDEX item_name ON item (name); CREATE SEQUENCE s;
             INSERT INTO item SELECT i, 'item ' || i FROM generate_series(1, 100) i;",
        );
    }
    assert_equal(&source, &target);
    let differs = |change: &str, undo: &str, words: &[&str]| {
        sql(&target, change);
        let difference = dumps_differ(&source, &target).expect("pg_dump");
        for word in words {
            assert!(
                difference.contains(word),
                "after {change}: no `{word}` in:\n{difference}"
            );
        }
        sql(&target, undo);
        assert_equal(&source, &target);
    };
    differs(
        "UPDATE item SET name = 'other' WHERE id = 7",
        "UPDATE item SET name = 'item 7' WHERE id = 7",
        &["7\titem 7", "7\tother"],
    );
    differs(
        "INSERT INTO item VALUES (1, 'item 1')",
        "DELETE FROM item WHERE ctid = (SELECT max(ctid) FROM item WHERE id = 1)",
        &["101 at the target"],
    );
    differs(
        "DROP INDEX item_name",
        "CREATE INDEX item_name ON item (name)",
        &["only at the source", "item_name"],
    );
    differs(
        "SELECT nextval('s')",
        "SELECT setval('s', 1, false)",
        &["setval"],
    );
    differs(
        "GRANT SELECT ON item TO PUBLIC",
        "REVOKE ALL ON item FROM PUBLIC",
        &["GRANT SELECT"],
    );
    differs(
        "CREATE TABLE extra ()",
        "DROP TABLE extra",
        &["only at the target", "extra"],
    );
}

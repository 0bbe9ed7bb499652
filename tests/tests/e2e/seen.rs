//! What was seen to break in other hands, one test each, where no other module has it.
//!
//! Elsewhere: grants and default privileges (`locks`), unlogged tables and crashes (`kill`), orphans (`migrate`), triggers that
//! always fire (`options`), reg* columns and partitions by the hash of an enum (`judge`, `values`, `detailed`), secrets (`secrets`).
use pgconvoy_tests::Pair;

fn pair() -> Pair {
    Pair::new().expect("two servers and two agents")
}

#[track_caller]
fn same(pair: &Pair, sql: &str) {
    let source = pair.at_source(sql).expect("the source");
    assert_eq!(pair.at_target(sql).expect("the target"), source);
    assert_ne!(source, "", "nothing is compared");
}

#[test]
fn settings_of_database_and_role_change_no_value() {
    let pair = pair();
    for end in [&pair.source, &pair.target] {
        let settings = [
            "array_nulls = off",
            "xmloption = document",
            "\"DateStyle\" = 'German, DMY'",
            "\"IntervalStyle\" = sql_standard",
            "bytea_output = escape",
            "extra_float_digits = 0",
            "\"TimeZone\" = 'Asia/Kathmandu'",
            "default_transaction_isolation = serializable",
            "default_transaction_deferrable = on",
            "row_security = off",
            "statement_timeout = '1ms'",
            "idle_in_transaction_session_timeout = '1ms'",
            "lock_timeout = '1ms'",
            "search_path = evil, pg_catalog",
            "quote_all_identifiers = on",
            "standard_conforming_strings = off",
            "default_transaction_read_only = on",
        ];
        // In one session: the next one would be subject to them, and a millisecond is not much for a busy machine.
        let alter = |whom: &str| -> String {
            let each = settings
                .iter()
                .map(|setting| format!("ALTER {whom} SET {setting};"));
            each.collect()
        };
        end.psql(
            "postgres",
            &(alter("DATABASE app") + &alter("ROLE postgres")),
        )
        .expect("settings");
    }
    let calm = "SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0;
                SET default_transaction_read_only = off; SET default_transaction_isolation = 'read committed';
                SET array_nulls = on; SET xmloption = content; SET search_path = public; SET standard_conforming_strings = on;";
    pair.at_source(&format!(
        "{calm} CREATE TABLE v (id int PRIMARY KEY, a text[], x xml, d date, i interval, b bytea, f float8, t timestamptz);
         INSERT INTO v VALUES (1, '{{NULL,\"NULL\",\"\"}}', 'no root<a/>', '2024-02-03', '-1 mon 2 days -3:04:05', '\\x00ff5c',
             0.1::float8 + 0.2::float8, '2024-03-31 02:30:00+05:45');
         CREATE TABLE v2 (id int PRIMARY KEY, b bytea, f float8, t timestamptz);
         INSERT INTO v2 SELECT id, b, f, t FROM v;"
    ))
    .expect("values");
    pair.migrate(&[]);
    for table in ["v", "v2"] {
        let rows = format!(
            "{calm} SET extra_float_digits = 1; SET bytea_output = hex; SET \"TimeZone\" = 'UTC'; SET \"DateStyle\" = 'ISO';
             SELECT {table}::text FROM {table}"
        );
        same(&pair, &rows);
    }
}

#[test]
fn a_materialized_view_of_a_tenant_is_filled_as_its_owner_sees_it() {
    let pair = pair();
    let roles = "CREATE ROLE tenant; CREATE ROLE other;";
    pair.at_source(roles).expect("roles");
    pair.at_target(roles).expect("roles");
    pair.at_source(
        "CREATE SCHEMA t AUTHORIZATION tenant;
         CREATE TABLE t.item (id int PRIMARY KEY, owner name);
         INSERT INTO t.item SELECT i, CASE i % 2 WHEN 0 THEN 'tenant' ELSE 'other' END FROM generate_series(1, 100) i;
         ALTER TABLE t.item ENABLE ROW LEVEL SECURITY;
         ALTER TABLE t.item FORCE ROW LEVEL SECURITY;
         CREATE POLICY own ON t.item TO tenant USING (owner = current_user);
         ALTER TABLE t.item OWNER TO tenant;
         CREATE MATERIALIZED VIEW t.mine AS SELECT * FROM t.item;
         ALTER MATERIALIZED VIEW t.mine OWNER TO tenant;
         REFRESH MATERIALIZED VIEW t.mine;",
    )
    .expect("a tenant");
    let rows = "SELECT count(*), min(owner), max(owner) FROM t.mine";
    assert_eq!(pair.at_source(rows).expect("rows"), "50|tenant|tenant");
    pair.migrate(&[]);
    same(&pair, rows);
}

#[test]
fn orphans_of_a_partitioned_table_leave_the_other_leaves_valid() {
    let pair = pair();
    pair.at_source(
        "CREATE TABLE parent (id int PRIMARY KEY);
         INSERT INTO parent SELECT generate_series(1, 10);
         CREATE TABLE child (id int, parent int CONSTRAINT child_parent REFERENCES parent) PARTITION BY RANGE (id);
         CREATE TABLE child_1 PARTITION OF child FOR VALUES FROM (1) TO (100);
         CREATE TABLE child_2 PARTITION OF child FOR VALUES FROM (100) TO (200);
         INSERT INTO child SELECT i, i FROM generate_series(1, 5) i;
         SET session_replication_role = replica;
         INSERT INTO child SELECT 100 + i, 100 + i FROM generate_series(1, 7) i;",
    )
    .expect("children without parents");
    let migrate = pair.pgconvoy(&["migrate"]).expect("migrate runs");
    migrate.says("foreign-key-orphans").says("7 rows");
    assert_eq!(
        pair.at_target(
            "SELECT conrelid::regclass, convalidated FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace ORDER BY 1"
        )
        .expect("keys"),
        "child_1|t\nchild_2|f"
    );
}

#[test]
fn grants_to_a_role_that_is_missing_take_no_other_grant_along() {
    let pair = pair();
    pair.at_source("CREATE ROLE here; CREATE ROLE gone; CREATE TABLE t (a int, b int);
        GRANT SELECT ON t TO gone; GRANT INSERT, SELECT ON t TO here; GRANT UPDATE (a) ON t TO here; GRANT UPDATE (b) ON t TO gone;
        CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; REVOKE ALL ON FUNCTION f() FROM PUBLIC; GRANT EXECUTE ON FUNCTION f() TO gone;")
        .expect("grants");
    pair.at_target("CREATE ROLE here").expect("a role");
    let migrate = pair
        .pgconvoy(&["migrate", "--force", "--roles", "none"])
        .expect("migrate runs");
    migrate.says("gone");
    let here = "SELECT privilege_type FROM information_schema.role_table_grants WHERE grantee = 'here' ORDER BY 1";
    assert_eq!(pair.at_target(here).expect("grants"), "INSERT\nSELECT");
    assert_eq!(
        pair.at_target(
            "SELECT attacl::text FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'a'"
        )
        .expect("grants"),
        "{here=w/postgres}"
    );
    assert_eq!(
        pair.at_target("SELECT has_function_privilege('here', 'f()', 'EXECUTE')")
            .expect("PUBLIC"),
        "f"
    );
}

#[test]
fn a_child_that_may_be_null_where_its_parent_may_not_keeps_its_rows() {
    let pair = pair();
    pair.at_source(
        "CREATE TABLE parent (id int PRIMARY KEY, name text NOT NULL);
         CREATE TABLE child (more text) INHERITS (parent);
         CREATE TABLE grandchild () INHERITS (child);
         ALTER TABLE child ALTER COLUMN name DROP NOT NULL;
         INSERT INTO parent VALUES (1, 'one');
         INSERT INTO child VALUES (2, NULL, 'two');
         INSERT INTO grandchild VALUES (3, 'three', NULL);",
    )
    .expect("a family");
    pair.migrate(&[]);
    same(
        &pair,
        "SELECT attrelid::regclass, attnotnull FROM pg_attribute
         WHERE attname = 'name' AND attrelid IN ('parent'::regclass, 'child'::regclass, 'grandchild'::regclass) ORDER BY 1",
    );
    same(&pair, "SELECT id, name, more FROM child ORDER BY 1");
}

#[test]
fn a_foreign_partition_whose_server_is_away_stops_neither_migration_nor_verify() {
    let pair = pair();
    pair.at_source(
        "CREATE EXTENSION postgres_fdw;
         CREATE SERVER away FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1');
         CREATE USER MAPPING FOR postgres SERVER away OPTIONS (user 'u', password 'p');
         CREATE TABLE event (id int) PARTITION BY RANGE (id);
         CREATE TABLE event_1 PARTITION OF event FOR VALUES FROM (1) TO (100);
         CREATE FOREIGN TABLE event_2 PARTITION OF event FOR VALUES FROM (100) TO (200) SERVER away;
         INSERT INTO event SELECT generate_series(1, 50);",
    )
    .expect("a foreign partition");
    pair.migrate(&[]);
    pair.pgconvoy(&["verify", "--detailed"])
        .expect("verify runs")
        .expect(0);
    same(&pair, "SELECT count(*) FROM event_1");
}

/// Supabase: what a role was granted WITH GRANT OPTION before it became the owner. It says nothing more, but pg_dump tells it.
#[test]
fn grant_options_of_an_owner_are_kept() {
    let pair = pair();
    pair.at_source(
        "CREATE ROLE keeper;
         CREATE TABLE item (id int PRIMARY KEY); CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
         GRANT SELECT ON item TO keeper WITH GRANT OPTION; GRANT SELECT (id) ON item TO keeper WITH GRANT OPTION;
         GRANT EXECUTE ON FUNCTION f TO keeper WITH GRANT OPTION;
         GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_waldir() TO postgres WITH GRANT OPTION;
         ALTER TABLE item OWNER TO keeper; ALTER FUNCTION f OWNER TO keeper;",
    )
    .expect("an owner who was granted it before");
    pair.migrate(&[]);
    same(&pair, "SELECT relacl FROM pg_class WHERE relname = 'item'");
    same(
        &pair,
        "SELECT proacl FROM pg_proc WHERE proname IN ('f', 'pg_ls_waldir') ORDER BY proname",
    );
    pair.assert_equal_ends();
}

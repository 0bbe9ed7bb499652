//! What a database has beside its objects crosses; and no setting of a database or a role is in the way of a migration.
use pgconvoy_tests::Pair;

fn pair() -> Pair {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(
        "CREATE ROLE clerk; CREATE ROLE nobody;
         CREATE SCHEMA evil;
         CREATE TABLE item (id int PRIMARY KEY, name text NOT NULL, price numeric CHECK (price > 0));
         INSERT INTO item SELECT i, 'item ' || i, i FROM generate_series(1, 500) i;
         CREATE TABLE sale (id int PRIMARY KEY, item int REFERENCES item, at timestamptz DEFAULT now());
         INSERT INTO sale SELECT i, i, '2024-01-01 12:00+05' FROM generate_series(1, 500) i;
         CREATE MATERIALIZED VIEW dear AS SELECT * FROM item WHERE price > 100;
         CREATE INDEX ON sale (at);
         ALTER TABLE item ENABLE ROW LEVEL SECURITY;
         CREATE POLICY cheap ON item TO clerk USING (price < 10);
         CREATE FUNCTION evil.has_table_privilege(oid, text) RETURNS bool LANGUAGE sql AS 'SELECT false';
         GRANT SELECT ON item TO clerk;",
    )
    .expect("a shop");
    pair
}

/// For sessions that begin from now on.
const HOSTILE: &str = r#"
ALTER DATABASE app SET default_transaction_read_only = on;
ALTER DATABASE app SET default_transaction_deferrable = on;
ALTER DATABASE app SET default_transaction_isolation = 'serializable';
ALTER DATABASE app SET statement_timeout = '1ms';
ALTER DATABASE app SET lock_timeout = '1ms';
ALTER DATABASE app SET search_path = evil, pg_catalog;
ALTER DATABASE app SET row_security = off;
ALTER DATABASE app SET quote_all_identifiers = on;
ALTER DATABASE app SET session_replication_role = replica;
ALTER DATABASE app SET "DateStyle" = 'German';
ALTER DATABASE app SET shop.note = 'it''s';
ALTER ROLE postgres IN DATABASE app SET role = 'nobody';
ALTER ROLE clerk IN DATABASE app SET work_mem = '9MB';
"#;

/// Of the database, from outside of it: inside they would hit the question.
const SETTINGS: &str = "
SELECT coalesce(r.rolname, ''), s.setconfig FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
LEFT JOIN pg_roles r ON r.oid = s.setrole WHERE d.datname = 'app' ORDER BY 1";

const UNSET: &str = "
ALTER DATABASE app RESET ALL;
ALTER ROLE postgres IN DATABASE app RESET ALL;";

#[track_caller]
fn unset(pair: &Pair) {
    for server in [&pair.source, &pair.target] {
        server.psql("postgres", UNSET).expect("settings are reset");
    }
}

#[test]
fn hostile_settings_cross_and_stop_nobody() {
    let pair = pair();
    pair.source
        .psql("postgres", HOSTILE)
        .expect("hostile settings");
    pair.migrate(&[]);
    let settings = |server: &pgconvoy_tests::demo::server::Server| {
        server.psql("postgres", SETTINGS).expect("settings")
    };
    let source = settings(&pair.source);
    assert_eq!(settings(&pair.target), source);
    assert_eq!(source.lines().count(), 3, "{source}");
    assert!(source.contains("search_path=evil, pg_catalog"), "{source}");
    pair.pgconvoy(&["verify"]).expect("verify runs").expect(0);
    unset(&pair);
    pair.assert_equal_ends();
}

#[test]
fn a_target_with_hostile_settings_is_loaded_all_the_same() {
    let pair = pair();
    let roles = "CREATE ROLE clerk; CREATE ROLE nobody;";
    let hostile = format!("{roles}{HOSTILE}");
    pair.target
        .psql("postgres", &hostile)
        .expect("hostile settings");
    pair.migrate(&[]);
    unset(&pair);
    pair.assert_equal_ends();
}

#[test]
fn grants_and_comment_of_the_database_cross() {
    let pair = pair();
    pair.at_source(
        "COMMENT ON DATABASE app IS 'the shop''s';
         REVOKE ALL ON DATABASE app FROM PUBLIC;
         GRANT CONNECT ON DATABASE app TO clerk;
         GRANT CREATE ON DATABASE app TO clerk WITH GRANT OPTION;
         ALTER DATABASE app SET work_mem = '9MB';
         ALTER ROLE clerk SET local_preload_libraries = 'no_such_library';
         ALTER ROLE clerk IN DATABASE app SET session_preload_libraries = 'no_such_library';
         ALTER DATABASE app CONNECTION LIMIT 50;",
    )
    .expect("a database of its own kind");
    pair.at_target("CREATE ROLE backup; GRANT TEMPORARY ON DATABASE app TO backup; ALTER DATABASE app SET work_mem = '7MB'")
        .expect("what the target has of its own");
    pair.migrate(&[])
        .says("database-grant-extra")
        .says("database-differs")
        // With either of them the role could not log in.
        .says("role-setting-not-kept")
        .says("database-setting-not-kept");
    let described = "SELECT shobj_description(d.oid, 'pg_database'), a.grantee::regrole, a.privilege_type, a.is_grantable
                     FROM pg_database d, aclexplode(datacl) a WHERE datname = 'app' AND a.grantee::regrole::text <> 'backup'
                     ORDER BY 2, 3";
    let source = pair.at_source(described).expect("the source answers");
    assert_eq!(
        pair.at_target(described).expect("the target answers"),
        source
    );
    assert!(source.contains("the shop's|clerk|CREATE|t"), "{source}");
    let own =
        "SELECT has_database_privilege('backup', 'app', 'TEMPORARY'), current_setting('work_mem'),
                      (SELECT datconnlimit FROM pg_database WHERE datname = 'app')";
    assert_eq!(pair.at_target(own).expect("the target answers"), "t|7MB|-1");
}

#[test]
fn a_selection_leaves_the_settings_of_the_database_behind() {
    let pair = pair();
    pair.at_source(
        "ALTER DATABASE app SET work_mem = '9MB'; COMMENT ON DATABASE app IS 'the shop'",
    )
    .expect("a setting");
    pair.migrate(&["--exclude-table", "public.sale"]);
    let have = "SELECT current_setting('work_mem'), shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'app'";
    assert_eq!(
        pair.at_target(have).expect("the target answers"),
        "4MB|the shop"
    );
}

#[test]
fn security_labels_whose_provider_the_target_lacks_are_told() {
    let pair = pair();
    // No provider comes with PostgreSQL: as if one had been loaded.
    pair.at_source(
        "SET allow_system_table_mods = on;
         INSERT INTO pg_shseclabel SELECT oid, 'pg_authid'::regclass, 'guard', 'secret' FROM pg_authid WHERE rolname = 'clerk'
         UNION ALL SELECT oid, 'pg_database'::regclass, 'guard', 'top' FROM pg_database WHERE datname = 'app';",
    )
    .expect("labels");
    pair.pgconvoy(&["migrate"])
        .expect("migrate runs")
        .expect(3)
        .says("role-label-not-kept")
        .says("database-label-not-kept")
        .says("role clerk: it differs in label of guard");
}

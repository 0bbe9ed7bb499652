//! Grants on PostgreSQL's own objects: what was changed of them at the source is changed at the target, and nothing else.
use std::collections::BTreeSet;

use pgconvoy_tests::majors;
use pgconvoy_tests::{Pair, say_aloud};

use crate::roles::managed;

/// Of every kind of object that PostgreSQL has of its own, and of columns.
const CHANGES: &str = "
    CREATE ROLE app_admin; CREATE ROLE app_user; CREATE ROLE app_deputy;
    CREATE TABLE item (id int PRIMARY KEY); INSERT INTO item SELECT generate_series(1, 100);
    GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO app_admin WITH GRANT OPTION;
    SET ROLE app_admin; GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO app_deputy; RESET ROLE;
    REVOKE EXECUTE ON FUNCTION pg_catalog.pg_sleep(double precision) FROM PUBLIC;
    REVOKE EXECUTE ON FUNCTION pg_catalog.lo_import(text) FROM postgres;
    GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_waldir() TO pg_monitor WITH GRANT OPTION;
    REVOKE SELECT ON pg_catalog.pg_roles FROM PUBLIC;
    GRANT SELECT (rolname, oid) ON pg_catalog.pg_roles TO app_user;
    REVOKE SELECT ON pg_catalog.pg_proc FROM PUBLIC;
    GRANT SELECT ON pg_catalog.pg_proc TO app_user;
    REVOKE SELECT (subname) ON pg_catalog.pg_subscription FROM PUBLIC;
    GRANT SELECT ON information_schema.tables TO app_user;
    REVOKE SELECT ON information_schema.routines FROM PUBLIC;
    REVOKE USAGE ON TYPE pg_catalog.money FROM PUBLIC;
    GRANT USAGE ON TYPE pg_catalog.money TO app_user;
    REVOKE USAGE ON LANGUAGE sql FROM PUBLIC;
    REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC;
    GRANT USAGE ON LANGUAGE plpgsql TO app_user;
    REVOKE USAGE ON SCHEMA information_schema FROM PUBLIC;
    GRANT USAGE ON SCHEMA information_schema TO app_user;";

/// Every grant on PostgreSQL's own objects.
const GRANTS: &str = "
    SELECT name, grantor::regrole, grantee::regrole, privilege_type, is_grantable FROM (
        SELECT oid::regclass::text, coalesce(relacl, acldefault('r', relowner)) FROM pg_class WHERE oid < 16384 AND relkind IN ('r', 'v')
        UNION ALL SELECT attrelid::regclass || '.' || attname, attacl FROM pg_attribute WHERE attrelid < 16384
        UNION ALL SELECT oid::regprocedure::text, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc WHERE oid < 16384
        UNION ALL SELECT oid::regtype::text, coalesce(typacl, acldefault('T', typowner)) FROM pg_type WHERE oid < 16384
        UNION ALL SELECT lanname, coalesce(lanacl, acldefault('l', lanowner)) FROM pg_language WHERE oid < 16384
        UNION ALL SELECT nspname, nspacl FROM pg_namespace WHERE nspname IN ('pg_catalog', 'information_schema')) o (name, acl)
    CROSS JOIN LATERAL aclexplode(acl) ORDER BY 1, 2, 3, 4";

/// What one end grants and the other does not.
fn apart(source: &str, target: &str) -> Vec<String> {
    let lines = |text: &str| -> BTreeSet<String> { text.lines().map(str::to_owned).collect() };
    let (source, target) = (lines(source), lines(target));
    source.symmetric_difference(&target).cloned().collect()
}

#[test]
fn what_was_granted_and_revoked_crosses_with_its_roles() {
    let pair = Pair::new().expect("two servers and two agents");
    let before = pair.at_target(GRANTS).expect("as initdb made them");
    pair.at_source(CHANGES).expect("changes");
    let migrate = pair.migrate(&[]);
    for code in ["not-kept", "not-revoked", "were-there"] {
        assert!(!migrate.text().contains(code), "{code}: {}", migrate.text());
    }
    let source = pair.at_source(GRANTS).expect("the source");
    let target = pair.at_target(GRANTS).expect("the target");
    assert_eq!(apart(&source, &target), Vec::<String>::new());
    assert!(apart(&source, &before).len() > 15, "too little was changed");
    pair.assert_equal_ends();
    pair.pgconvoy(&["verify"]).expect("verify runs").expect(0);
    // A part of a database carries nothing that belongs to the whole.
    pair.pgconvoy(&["verify", "--include-schema", "public"])
        .expect("verify runs")
        .expect(0);
}

#[test]
fn a_selection_leaves_postgresqls_own_objects_alone() {
    let pair = Pair::new().expect("two servers and two agents");
    let before = pair.at_target(GRANTS).expect("as initdb made them");
    pair.at_source(CHANGES).expect("changes");
    pair.migrate(&["--include-schema", "public"]);
    let after = pair.at_target(GRANTS).expect("the target");
    assert_eq!(apart(&before, &after), Vec::<String>::new());
    pair.pgconvoy(&["verify"]).expect("verify runs").expect(0);
}

#[test]
fn what_the_target_had_of_its_own_stays_and_is_told_once() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_target(
        "CREATE ROLE operator;
         GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO operator;
         REVOKE EXECUTE ON FUNCTION pg_catalog.pg_sleep_for(interval) FROM PUBLIC;",
    )
    .expect("the target's own");
    pair.at_source(CHANGES).expect("changes");
    let migrate = pair.migrate(&[]).says("system-grants-were-there");
    assert!(
        migrate.text().contains("pg_sleep_for"),
        "{}",
        migrate.text()
    );
    let may = "SELECT has_function_privilege('operator', 'pg_read_file(text)', 'EXECUTE'),
                      has_function_privilege('app_deputy', 'pg_read_file(text)', 'EXECUTE'),
                      has_function_privilege('app_user', 'pg_sleep_for(interval)', 'EXECUTE'),
                      has_function_privilege('app_user', 'pg_sleep(float8)', 'EXECUTE')";
    assert_eq!(pair.at_target(may).expect("the target"), "t|t|f|f");
    pair.pgconvoy(&["verify"]).expect("verify runs").expect(0);
    pair.at_target("GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO PUBLIC")
        .expect("a hole");
    pair.pgconvoy(&["verify"])
        .expect("verify runs")
        .expect(3)
        .says("function pg_read_file(text)");
}

/// As on a managed server: what the agent may not grant is told, and costs nothing else.
#[test]
fn what_the_target_agent_may_not_grant_is_told() {
    let pair = managed();
    pair.at_source(
        "CREATE ROLE app_user; CREATE ROLE keeper; CREATE TABLE item (id int PRIMARY KEY); ALTER TABLE item OWNER TO keeper;
         ALTER SCHEMA public OWNER TO keeper;
         GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO app_user;
         REVOKE EXECUTE ON FUNCTION pg_catalog.pg_sleep(double precision) FROM PUBLIC;",
    )
    .expect("changes");
    let migrate = pair.migrate(&["--force"]);
    let migrate = migrate
        .says("grant-not-kept")
        .says("pg_read_file")
        .says("system-grant-not-revoked");
    assert!(migrate.text().contains("pg_sleep"), "{}", migrate.text());
    pair.pgconvoy(&["verify"]).expect("verify runs").expect(0);
}

#[test]
fn across_majors_the_change_crosses_and_what_the_target_does_not_know_is_told() {
    for (source, target) in [(15, 18), (17, 15)] {
        let Some(options) = majors::options(source, target) else {
            continue;
        };
        let pair = Pair::with(options).expect("two servers and two agents");
        pair.at_source(CHANGES).expect("changes");
        if source > target {
            pair.at_source("REVOKE EXECUTE ON FUNCTION pg_catalog.to_bin(int) FROM PUBLIC")
                .expect("a function that the target does not have");
        }
        let migrate = pair.migrate(&[]);
        let text = migrate.text();
        let unknown: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("system-object-missing"))
            .collect();
        assert_eq!(!unknown.is_empty(), source > target, "{text}");
        assert!(unknown.iter().all(|line| line.contains("to_bin")), "{text}");
        assert!(!text.contains("system-grants-were-there"), "{text}");
        let may = "SELECT has_function_privilege('app_deputy', 'pg_read_file(text)', 'EXECUTE'),
                          has_function_privilege('app_user', 'pg_sleep(float8)', 'EXECUTE'),
                          has_column_privilege('app_user', 'pg_roles', 'rolname', 'SELECT'),
                          has_column_privilege('app_user', 'pg_roles', 'rolsuper', 'SELECT'),
                          has_schema_privilege('app_admin', 'information_schema', 'USAGE'),
                          has_type_privilege('app_admin', 'money', 'USAGE')";
        assert_eq!(pair.at_target(may).expect("the target"), "t|f|t|f|f|f");
        pair.pgconvoy(&["verify"]).expect("verify runs").expect(0);
        say_aloud(&format!(
            "grants on PostgreSQL's own objects: {source} to {target}"
        ));
    }
}

//! The source goes on working during the copy: what would take rows away from it waits, what it grants is what arrives.
use pgconvoy_tests::gate::Gate;
use pgconvoy_tests::hold::Background;
use pgconvoy_tests::pair::{AgentProcess, DATABASE};
use pgconvoy_tests::program::scheduling_policies;
use pgconvoy_tests::{PATIENCE, Pair, eventually};

use crate::depot::{self, BIG_ROWS, SMALL_PARTS};

/// Runs `sql` at the source between two parts of a table: it has to wait, and no row may be missing for it.
fn waits_for_the_copy(sql: &str) {
    let pair = depot::pair();
    let rows =
        "SELECT count(*), sum(hashtext(id || state::text || encode(load, 'hex'))) FROM depot.big";
    let before = pair.at_source(rows).expect("the source's rows");

    let gate = Gate::to(pair.target_agent.port()).expect("a gate").shut();
    let url = gate.url();
    let arguments = [
        &["migrate", "--target-from-source", &url, "--streams", "1"],
        &SMALL_PARTS[..],
    ]
    .concat();
    let migrate = pair.spawn(&arguments).expect("migrate starts");
    gate.feed_until("the first part of the table is committed", || {
        depot::committed_parts(&pair) > 0
    });
    let loaded = depot::count(&pair, "SELECT count(*) FROM depot.big");
    assert!(
        0 < loaded && loaded < BIG_ROWS,
        "{loaded} of {BIG_ROWS} rows: not between two parts"
    );

    let mut other = Background::psql(&pair.source, DATABASE, sql).expect("somebody else's session");
    eventually("it waits for a lock", PATIENCE, || {
        let waits =
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'
                     AND relation = 'depot.big'::regclass";
        pair.at_source(waits).expect("the source answers") == "1"
    });
    gate.open();
    migrate.wait(PATIENCE).expect("migrate ends").expect(0);
    eventually("it is done once the copy is", PATIENCE, || {
        other.finished().expect("it succeeds")
    });

    assert_eq!(
        pair.at_target(rows).expect("the target's rows"),
        before,
        "rows are missing at the target"
    );
}

#[test]
fn a_truncate_at_the_source_between_two_parts_waits_for_the_copy() {
    waits_for_the_copy("TRUNCATE depot.big CASCADE");
}

#[test]
fn a_vacuum_full_at_the_source_between_two_parts_waits_for_the_copy() {
    waits_for_the_copy("VACUUM FULL depot.big");
}

/// What everybody may do, as PostgreSQL sees it: owners and column grants too.
const ACCESS: &str = "
SELECT n.nspname, c.relname, c.relkind, r.rolname, '' AS col, a.grantee::regrole, a.privilege_type, a.is_grantable
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles r ON r.oid = c.relowner
LEFT JOIN LATERAL aclexplode(coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", c.relowner))) a ON true
WHERE n.nspname IN ('office', 'public') AND c.relkind IN ('r', 'v', 'm', 'S', 'p')
UNION ALL
SELECT n.nspname, c.relname, c.relkind, '', t.attname, a.grantee::regrole, a.privilege_type, a.is_grantable
FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(t.attacl) a
WHERE n.nspname IN ('office', 'public')
UNION ALL
SELECT n.nspname, p.oid::regprocedure::text, 'f', r.rolname, '', a.grantee::regrole, a.privilege_type, a.is_grantable
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_roles r ON r.oid = p.proowner,
  aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
WHERE n.nspname IN ('office', 'public')
UNION ALL
SELECT n.nspname, '', 'n', r.rolname, '', a.grantee::regrole, a.privilege_type, a.is_grantable
FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
WHERE n.nspname = 'office'
UNION ALL
SELECT n.nspname, t.typname, 't', r.rolname, '', a.grantee::regrole, a.privilege_type, a.is_grantable
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace JOIN pg_roles r ON r.oid = t.typowner,
  aclexplode(coalesce(t.typacl, acldefault('T', t.typowner))) a
WHERE n.nspname IN ('office', 'public') AND t.typtype IN ('e', 'd')
ORDER BY 1, 2, 3, 4, 5, 6, 7, 8";

const ROLES: &str = "CREATE ROLE clerk; CREATE ROLE \"the Boss\"; CREATE ROLE visitor;";

const OFFICE: &str = "
CREATE SCHEMA office AUTHORIZATION \"the Boss\";
GRANT USAGE ON SCHEMA office TO clerk;
CREATE TABLE office.letter (id int PRIMARY KEY, sender text, body text);
INSERT INTO office.letter SELECT i, 'sender ' || i, 'body ' || i FROM generate_series(1, 100) i;
ALTER TABLE office.letter OWNER TO \"the Boss\";
GRANT SELECT, INSERT ON office.letter TO clerk WITH GRANT OPTION;
GRANT SELECT (id, sender) ON office.letter TO visitor;
GRANT UPDATE (sender) ON office.letter TO PUBLIC;
CREATE TABLE office.safe (id int PRIMARY KEY, what text);
INSERT INTO office.safe VALUES (1, 'gold');
REVOKE ALL ON office.safe FROM postgres;
CREATE VIEW office.sender AS SELECT sender FROM office.letter;
GRANT SELECT ON office.sender TO visitor;
CREATE SEQUENCE office.number;
GRANT USAGE ON SEQUENCE office.number TO clerk;
CREATE FUNCTION office.burn() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'SELECT';
REVOKE EXECUTE ON FUNCTION office.burn() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION office.burn() TO \"the Boss\";
CREATE FUNCTION office.hello() RETURNS text LANGUAGE sql AS $$ SELECT 'hello' $$;
CREATE TYPE office.colour AS ENUM ('red');
REVOKE USAGE ON TYPE office.colour FROM PUBLIC;";

#[test]
fn default_privileges_of_the_target_give_nobody_more_than_the_source_does() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(ROLES).expect("roles at the source");
    pair.at_target(ROLES).expect("roles at the target");
    pair.at_source(OFFICE).expect("an office");
    pair.at_target(
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO visitor;
         ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO visitor, PUBLIC;
         ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO visitor;
         ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO visitor;
         ALTER DEFAULT PRIVILEGES GRANT USAGE ON TYPES TO visitor;
         ALTER DEFAULT PRIVILEGES FOR ROLE \"the Boss\" GRANT ALL ON TABLES TO visitor;",
    )
    .expect("default privileges at the target");
    let defaults =
        "SELECT defaclrole::regrole, defaclobjtype, defaclacl FROM pg_default_acl ORDER BY 1, 2";
    let defaults_before = pair.at_target(defaults).expect("the default privileges");

    pair.migrate(&[]);

    let source = pair.at_source(ACCESS).expect("access at the source");
    assert!(
        source.contains("clerk|SELECT|t") && source.contains("visitor"),
        "the query sees no grants:\n{source}"
    );
    assert_eq!(
        pair.at_target(ACCESS).expect("access at the target"),
        source
    );
    // They are the target's own and stay.
    assert_eq!(
        pair.at_target(defaults).expect("the default privileges"),
        defaults_before
    );
}

#[test]
fn a_table_is_closed_before_its_first_row_is_loaded() {
    let pair = depot::pair();
    pair.at_target("CREATE ROLE visitor; ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO visitor;")
        .expect("default privileges at the target");
    let gate = Gate::to(pair.target_agent.port()).expect("a gate").shut();
    let url = gate.url();
    let migrate = pair
        .spawn(&["migrate", "--target-from-source", &url])
        .expect("migrate starts");
    gate.feed_until("the first rows are committed", || {
        depot::committed_parts(&pair) > 0
    });

    let open = "SELECT count(*) FROM pg_class c, aclexplode(c.relacl) a
                WHERE c.relnamespace = 'depot'::regnamespace AND a.grantee = 'visitor'::regrole";
    assert_eq!(
        depot::count(&pair, open),
        0,
        "rows arrive in tables that a visitor may read"
    );
    let secured =
        "SELECT count(*) FROM pg_class WHERE oid = 'depot.shelf_1'::regclass AND relrowsecurity";
    assert_eq!(
        depot::count(&pair, secured),
        1,
        "rows arrive before row level security"
    );

    gate.open();
    migrate.wait(PATIENCE).expect("migrate ends").expect(0);
}

#[test]
fn no_agent_takes_a_processor_from_who_has_it() {
    const BATCH: u32 = 3;
    const IDLE: u32 = 5;
    let mut pair = Pair::new().expect("two servers and two agents");
    let policies = |agent: &AgentProcess| scheduling_policies(agent.pid()).expect("its threads");
    for agent in [&pair.source_agent, &pair.target_agent] {
        assert_eq!(policies(agent), [BATCH]);
    }
    pair.source_agent.schedule("--idle");
    pair.source_agent.restart().expect("the source agent");
    assert_eq!(
        policies(&pair.source_agent),
        [IDLE],
        "who started it wanted this"
    );
}

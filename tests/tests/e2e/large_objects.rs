//! Large objects cross with everything about them, and are proven like rows. PostgreSQL's own md5 is the judge.
use pgconvoy_tests::gate::Gate;
use pgconvoy_tests::pair::{DATABASE, Options};
use pgconvoy_tests::program::{Running, peak_resident_bytes};
use pgconvoy_tests::{PATIENCE, Pair, majors, say_aloud};

use crate::depot::{SMALL_PARTS, assert_unfinished, count};

/// Memory of an agent: far below the size of the largest object.
const FRUGAL: u64 = 80 << 20;

/// Everything about every large object, but where default grants are spelled out.
const EVERYTHING: &str = "
    SELECT m.oid, length(lo_get(m.oid)), md5(lo_get(m.oid)), pg_get_userbyid(lomowner),


           (SELECT string_agg(concat_ws(' ', pg_get_userbyid(grantor), CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END,
                                        privilege_type, is_grantable), ', ' ORDER BY privilege_type, grantee::regrole::text)
            FROM aclexplode(coalesce(lomacl, acldefault('L', lomowner)))),
           obj_description(m.oid, 'pg_largeobject')
    FROM pg_largeobject_metadata m ORDER BY m.oid";

const ROLES: &str = "CREATE ROLE archivist; CREATE ROLE reader;";

/// One page has 256 KiB.
const ODD: &str = r#"
    SELECT lo_create(70001);
    SELECT lo_from_bytea(70002, ''), lo_put(70002, 5000000, 'the end of a hole');
    SELECT lo_from_bytea(70003, decode(repeat('5a', 262144), 'hex'));
    SELECT lo_from_bytea(70004, decode(repeat('5a', 262145), 'hex'));
    SELECT lo_from_bytea(70005, decode(repeat('00', 600000), 'hex'));
    SELECT lo_from_bytea(70006, decode(repeat('00', 262144), 'hex'));
    SELECT lo_from_bytea(70007, 'a'), lo_put(70007, 262144 * 3, 'b');
    SELECT lo_from_bytea(70008, '\x00');
    SELECT lo_from_bytea(70009, 'owned'), lo_from_bytea(70010, 'granted'), lo_from_bytea(70011, 'revoked'),
           lo_from_bytea(70012, 'commented');
    ALTER LARGE OBJECT 70009 OWNER TO archivist;
    GRANT SELECT ON LARGE OBJECT 70009 TO PUBLIC;
    GRANT SELECT ON LARGE OBJECT 70010 TO reader WITH GRANT OPTION;
    GRANT UPDATE ON LARGE OBJECT 70010 TO archivist;
    REVOKE ALL ON LARGE OBJECT 70011 FROM CURRENT_USER;
    COMMENT ON LARGE OBJECT 70012 IS 'it''s a "comment" with a \ and a
new line';
    SELECT lo_from_bytea(4294967295, 'the last OID');
    CREATE TABLE document (id int PRIMARY KEY, content oid);
    INSERT INTO document VALUES (1, 70012), (2, 4294967295);"#;

fn pair() -> Pair {
    pair_with(Options::default())
}

fn pair_with(options: Options) -> Pair {
    let pair = Pair::with(options).expect("two servers and two agents");
    pair.at_source(ROLES).expect("roles");
    pair.at_target(ROLES).expect("the same roles");
    pair
}

#[track_caller]
fn assert_equal_objects(pair: &Pair) {
    let source = pair.at_source(EVERYTHING).expect("the source's objects");
    let target = pair.at_target(EVERYTHING).expect("the target's objects");
    assert!(source == target, "source:\n{source}\ntarget:\n{target}");
}

fn objects_at_target(pair: &Pair) -> u64 {
    count(pair, "SELECT count(*) FROM pg_largeobject_metadata")
}

#[test]
fn odd_large_objects_cross_with_owner_grants_and_comment() {
    let pair = pair();
    pair.at_source(ODD).expect("odd objects");
    pair.migrate(&[]).says("proven").says("pg_largeobject");
    assert_equal_objects(&pair);
    pair.assert_equal_ends();
    assert_eq!(objects_at_target(&pair), 13);
    let rows = "SELECT sum(rows) FROM pgconvoy.parts WHERE table_oid = 2613";
    // One page each, but a second one of 70004, and of 70007 only the two that are not zeros.
    assert_eq!(count(&pair, rows), 15);
    pair.pgconvoy(&["verify"]).expect("verify runs").expect(0);
}

#[test]
fn an_object_of_100_megabytes_crosses_in_little_memory() {
    let pair = pair();
    pair.at_source(
        "SELECT lo_from_bytea(70001, string_agg(piece, ''::bytea)) FROM generate_series(1, 10),
           (SELECT string_agg(decode(md5(i::text), 'hex'), ''::bytea) AS piece FROM generate_series(1, 655360) i) p",
    )
    .expect("a large large object");
    pair.migrate(&["--streams", "1"]);
    let length = "SELECT length(lo_get(70001))";
    assert_eq!(count(&pair, length), 100 << 20);
    assert_equal_objects(&pair);
    for (name, agent) in [
        ("source", &pair.source_agent),
        ("target", &pair.target_agent),
    ] {
        let peak = peak_resident_bytes(agent.pid()).expect("its memory");
        say_aloud(&format!("the {name} agent's peak was {} MB", peak >> 20));
        assert!(peak < FRUGAL, "the {name} agent had {} MB", peak >> 20);
    }
}

#[test]
fn many_small_objects_of_another_owner_cross() {
    let pair = pair();
    pair.at_source(
        "SET ROLE archivist;
         SELECT count(lo_from_bytea(70000 + i, convert_to(md5(i::text), 'UTF8'))) FROM generate_series(1, 100000) i;
         ALTER LARGE OBJECT 120000 OWNER TO archivist;
         GRANT SELECT ON LARGE OBJECT 120001 TO reader",
    )
    .expect("many objects");
    pair.migrate(&["--streams", "2"]);
    assert_equal_objects(&pair);
    let parts = "SELECT count(*) FROM pgconvoy.parts WHERE table_oid = 2613";
    assert!(count(&pair, parts) > 1, "several streams can work");
    let ranges = "SELECT sum(jsonb_array_length(a -> 'ranges')) FROM pgconvoy.steps, jsonb_array_elements(work -> 'access') a
                  WHERE kind = 'large-objects'";
    assert_eq!(count(&pair, ranges), 3, "the plan stays small");
}

#[test]
fn an_owner_who_is_no_superuser_migrates_his_objects() {
    let pair = Pair::with(Options {
        before_agents: Some(|pair| {
            pair.at_source(
                "CREATE ROLE shopkeeper LOGIN PASSWORD 'shop'; ALTER DATABASE app OWNER TO shopkeeper;
                 SET ROLE shopkeeper; SELECT lo_from_bytea(70001, 'mine'); SELECT lo_create(70002);
                 COMMENT ON LARGE OBJECT 70001 IS 'my own'; GRANT SELECT ON LARGE OBJECT 70002 TO PUBLIC",
            )?;
            pair.at_target("CREATE ROLE shopkeeper")?;
            Ok(())
        }),
        source_url: Some(|server| server.url_as("shopkeeper", Some("shop"), DATABASE)),
        ..Options::default()
    })
    .expect("two servers and two agents");
    let reader =
        "SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name LIKE 'pgconvoy%'";
    pair.migrate(&[]).says("proven");
    assert_equal_objects(&pair);
    let sessions = pair.at_source(reader).expect("the source's sessions");
    assert!(
        sessions.is_empty() || sessions == "shopkeeper",
        "the source was read by {sessions}"
    );

    let target = "SELECT lo_unlink(oid) FROM pg_largeobject_metadata; DROP SCHEMA pgconvoy CASCADE";
    pair.at_target(target).expect("the target is empty again");
    pair.at_source("SELECT lo_from_bytea(70003, 'of another')")
        .expect("an object that shopkeeper may not read");
    let migrate = pair.pgconvoy(&["migrate"]).expect("migrate runs");
    migrate
        .expect(4)
        .says("may not read 1 large objects")
        .says("70003");
}

#[test]
fn what_differs_at_the_target_is_found() {
    let pair = pair();
    pair.at_source(ODD).expect("odd objects");
    pair.migrate(&[]);
    let differs = |change: &str, undo: &str, what: &str| {
        pair.at_target(change).expect("a change");
        let verify = pair
            .pgconvoy(&["verify", "--detailed"])
            .expect("verify runs");
        verify.expect(3).says("pg_largeobject").says(what);
        pair.at_target(undo).expect("undone");
        pair.pgconvoy(&["verify"]).expect("verify runs").expect(0);
    };
    differs(
        "SELECT lo_put(70004, 262144, 'X')",
        "SELECT lo_put(70004, 262144, '\\x5a')",
        "loid=70004, page=1: data differs",
    );
    // Zeros at the end: only the length has changed.
    differs(
        "SELECT lo_put(70006, 262144, '\\x00')",
        "SELECT lo_truncate(lo_open(70006, 131072), 262144)",
        "loid=70006, page=1: extra at the target",
    );
    differs(
        "SELECT lo_create(80000)",
        "SELECT lo_unlink(80000)",
        "loid=80000, page=0: extra at the target",
    );
    differs(
        "SELECT lo_unlink(70001)",
        "SELECT lo_create(70001)",
        "loid=70001, page=0: missing at the target",
    );
}

#[test]
fn a_target_with_objects_of_its_own_has_no_room_for_others() {
    let pair = pair();
    pair.at_source("SELECT lo_from_bytea(70001, 'mine')")
        .expect("an object");
    pair.at_target("SELECT lo_from_bytea(70005, 'somebody else''s')")
        .expect("an object of the target");
    let migrate = pair.pgconvoy(&["migrate"]).expect("migrate runs");
    migrate.expect(4).says("not-empty").says("70005");
    pair.migrate(&["--skip-data"]).says("unverified");
    assert_eq!(objects_at_target(&pair), 1);
}

#[test]
fn a_selection_of_tables_leaves_large_objects_out_and_says_so() {
    let pair = pair();
    pair.at_source(ODD).expect("odd objects");
    pair.at_source("CREATE TABLE beside (id int GENERATED ALWAYS AS IDENTITY, n serial)")
        .expect("a table with sequences that nobody asks for");
    let migrate = pair.migrate(&["--include-table", "public.document"]);
    let migrate = migrate
        .says("large-objects-left-out")
        .says("13 large objects");
    assert!(!migrate.text().contains("_seq"), "{}", migrate.text());
    assert_eq!(objects_at_target(&pair), 0);
    assert_eq!(count(&pair, "SELECT count(*) FROM document"), 2);
}

#[test]
fn large_objects_cross_into_a_schema_that_is_there() {
    let pair = pair();
    pair.at_source(ODD).expect("odd objects");
    pair.at_target("CREATE TABLE document (id int PRIMARY KEY, content oid)")
        .expect("the same schema");
    pair.migrate(&["--skip-schema"]).says("proven");
    assert_equal_objects(&pair);
}

const HALF_MEGABYTES: &str = "
    CREATE FUNCTION pg_temp.noise(seed int) RETURNS bytea LANGUAGE sql AS
      $$ SELECT string_agg(decode(md5(seed || ':' || i), 'hex'), ''::bytea) FROM generate_series(1, 32768) i $$;
    SELECT count(lo_from_bytea(70000 + i, pg_temp.noise(i))) FROM generate_series(1, 24) i;
    ALTER LARGE OBJECT 70005 OWNER TO archivist;
    COMMENT ON LARGE OBJECT 70006 IS 'before';";
const MADE: u64 = 24;

/// Some of the objects are committed, and the network has stopped.
fn halfway(pair: &Pair) -> (Running, Gate) {
    pair.at_source(HALF_MEGABYTES).expect("objects");
    let gate = Gate::to(pair.target_agent.port()).expect("a gate").shut();
    let url = gate.url();
    let mut arguments = vec!["migrate", "--target-from-source", &url, "--streams", "2"];
    arguments.extend(SMALL_PARTS);
    let migrate = pair.spawn(&arguments).expect("migrate starts");
    gate.feed_until("some objects are committed", || objects_at_target(pair) > 0);
    let there = objects_at_target(pair);
    assert!(
        there < MADE,
        "{there} of {MADE} objects: nothing is half done"
    );
    assert_unfinished(pair);
    (migrate, gate)
}

#[test]
fn large_objects_survive_the_death_of_the_target_agent_in_the_copy() {
    let mut pair = pair();
    let (migrate, gate) = halfway(&pair);
    let at_snapshot = pair.at_source(EVERYTHING).expect("the source's objects");
    pair.at_source("SELECT count(lo_put(oid, 5, 'later')) FROM pg_largeobject_metadata; SELECT lo_unlink(70024)")
        .expect("the application goes on");
    pair.target_agent.kill().expect("the target agent dies");
    gate.open();
    let migrate = migrate.wait(PATIENCE).expect("migrate gives up");
    assert_ne!(migrate.code, 0, "{}", migrate.text());
    pair.target_agent.restart().expect("it comes back");
    let parts = "SELECT number || ' at ' || committed_at FROM pgconvoy.parts ORDER BY number";
    let before = pair.at_target(parts).expect("the parts");
    pair.pgconvoy(&["resume"])
        .expect("resume runs")
        .expect(0)
        .says("the snapshot is alive");
    let after = pair.at_target(parts).expect("the parts");
    for part in before.lines() {
        assert!(
            after.contains(part),
            "part {part} was copied again: {after}"
        );
    }
    let there = pair.at_target(EVERYTHING).expect("the target's objects");
    assert!(at_snapshot == there, "then:\n{at_snapshot}\nnow:\n{there}");
}

#[test]
fn large_objects_are_of_one_snapshot_after_the_first_was_lost() {
    let mut pair = pair();
    let (migrate, gate) = halfway(&pair);
    pair.source_agent.kill().expect("the source agent dies");
    gate.open();
    let migrate = migrate.wait(PATIENCE).expect("migrate gives up");
    assert_ne!(migrate.code, 0, "{}", migrate.text());
    pair.source_agent.restart().expect("it comes back");
    pair.at_source(
        "SELECT lo_put(70001, 100, 'changed'), lo_unlink(70002), lo_from_bytea(80000, 'new');
         ALTER LARGE OBJECT 80000 OWNER TO archivist;
         ALTER LARGE OBJECT 70005 OWNER TO reader;
         COMMENT ON LARGE OBJECT 70006 IS 'after'",
    )
    .expect("the application goes on");
    pair.pgconvoy(&["resume"])
        .expect("resume runs")
        .expect(0)
        .says("opening a new one");
    assert_equal_objects(&pair);
    let ledger = "SELECT count(*) FROM pgconvoy.large_objects l FULL JOIN pg_largeobject_metadata m ON m.oid = l.oid
                  WHERE l.oid IS NULL OR m.oid IS NULL";
    assert_eq!(count(&pair, ledger), 0, "the ledger knows what it made");
}

/// From 18 on default privileges are for large objects too.
#[test]
fn nobody_reads_a_large_object_by_the_targets_default_privileges() {
    let Some(options) = majors::options(14, 18) else {
        return;
    };
    let pair = pair_with(options);
    pair.at_target("ALTER DEFAULT PRIVILEGES GRANT ALL ON LARGE OBJECTS TO PUBLIC, reader")
        .expect("default privileges");
    let (migrate, gate) = halfway(&pair);
    let open = "SELECT count(*) FROM pg_largeobject_metadata CROSS JOIN LATERAL aclexplode(lomacl) WHERE grantee <> lomowner";
    assert_eq!(count(&pair, open), 0, "somebody may read what has arrived");
    gate.open();
    migrate
        .wait(PATIENCE)
        .expect("migrate ends")
        .expect(0)
        .says("proven");
    assert_equal_objects(&pair);
}

#[test]
fn objects_that_the_migration_did_not_make_stay_when_its_own_are_copied_again() {
    let mut pair = pair();
    let (migrate, gate) = halfway(&pair);
    pair.source_agent.kill().expect("the source agent dies");
    gate.open();
    migrate.wait(PATIENCE).expect("migrate gives up");
    pair.at_target("SELECT lo_from_bytea(75000, 'not ours')")
        .expect("somebody else's object");
    pair.source_agent.restart().expect("it comes back");
    // It is one more than at the source.
    let resume = pair.pgconvoy(&["resume"]).expect("resume runs");
    resume.expect(3).says("pg_largeobject");
    let theirs = pair.at_target("SELECT convert_from(lo_get(75000), 'UTF8')");
    assert_eq!(theirs.expect("it is there"), "not ours");
}

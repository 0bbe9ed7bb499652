//! Large keys: the index first, while the table is digested, then the constraint that takes it over.
use pgconvoy_tests::hold::Hold;
use pgconvoy_tests::pair::DATABASE;
use pgconvoy_tests::{PATIENCE, Pair, eventually};

/// Every index above the size from which on keys are built in two steps.
const BIG: &str = "
    CREATE TABLE big (
        id bigint PRIMARY KEY,
        code text,
        n int NOT NULL CONSTRAINT big_n UNIQUE,
        CONSTRAINT \"the Code\" UNIQUE NULLS NOT DISTINCT (code) INCLUDE (n) WITH (fillfactor = 80) DEFERRABLE INITIALLY DEFERRED
    );
    ALTER TABLE big REPLICA IDENTITY USING INDEX big_n;
    COMMENT ON CONSTRAINT \"the Code\" ON big IS 'may be swapped';
    INSERT INTO big SELECT i, 'c' || i, i FROM generate_series(1, 420000) i;";

#[test]
fn a_large_table_is_digested_before_its_keys_are_constraints_and_a_kill_between_is_resumed() {
    let mut pair = Pair::new().expect("two servers and two agents");
    pair.at_source(BIG).expect("a large table");
    let migrate = pair.spawn(&["migrate"]).expect("migrate starts");
    let is = |sql: &str| pair.at_target(sql).is_ok_and(|answer| answer == "t");
    eventually("the rows are there", PATIENCE, || {
        is("SELECT count(*) > 0 FROM pgconvoy.parts")
    });
    // Who only reads lets indexes be built, and keeps constraints out.
    let reader = Hold::transaction(
        &pair.target,
        DATABASE,
        "LOCK TABLE big IN ACCESS SHARE MODE",
    )
    .expect("a reader");
    eventually("a constraint waits for the reader", PATIENCE, || {
        is(
            "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'big'::regclass AND mode = 'AccessExclusiveLock' AND NOT granted",
        )
    });
    assert!(is(
        "SELECT bool_and(target_digest IS NOT NULL) FROM pgconvoy.tables WHERE name = 'big'"
    ));
    let built = "SELECT string_agg(object, ' ' ORDER BY object) FROM pgconvoy.steps WHERE kind = 'key-index' AND state = 'done'";
    assert_eq!(
        pair.at_target(built).expect("the ledger"),
        "public.big_pkey public.the Code"
    );
    assert!(is(
        "SELECT count(*) = 0 FROM pg_constraint WHERE conrelid = 'big'::regclass AND contype = 'p'"
    ));

    pair.target_agent.kill().expect("the target agent dies");
    reader.release();
    migrate.wait(PATIENCE).expect("migrate gives up");
    pair.target_agent.restart().expect("it comes back");
    pair.pgconvoy(&["resume"]).expect("resume runs").expect(0);
    pair.assert_equal_ends();

    pair.pgconvoy(&["rollback"]).expect("it runs").expect(0);
    pair.migrate(&["--skip-data", "--index-jobs", "2"]);
    let keys = "SELECT count(*) FROM pg_constraint WHERE conrelid = 'big'::regclass AND contype IN ('p', 'u')";
    assert_eq!(pair.at_target(keys).expect("the target"), "3");
}

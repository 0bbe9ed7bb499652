//! What a migration could not do, and somebody did by hand afterwards: `verify` looks again, and believes what it sees.
use pgconvoy_tests::Pair;

/// An event trigger of the target's own that lets nobody make policies; its function is where a database may have one and be empty.
const REFUSE: &str = "
    SET allow_system_table_mods = on;
    CREATE FUNCTION pg_catalog.refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no policies here'; END $$;
    CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('CREATE POLICY') EXECUTE FUNCTION pg_catalog.refuse();
    ALTER EVENT TRIGGER refuse ENABLE ALWAYS;";
const ALLOW: &str = "
    SET allow_system_table_mods = on;
    DROP EVENT TRIGGER refuse; DROP FUNCTION pg_catalog.refuse();";

fn verify(pair: &Pair, code: i32) -> String {
    let verify = pair.pgconvoy(&["verify"]).expect("verify runs");
    verify.expect(code).text()
}

#[test]
fn an_entry_that_was_refused_is_looked_at_again() {
    let pair = Pair::new().expect("two servers and two agents");
    let policy = "CREATE POLICY small ON item USING (id < 10)";
    pair.at_source(&format!(
        "CREATE TABLE item (id int PRIMARY KEY); INSERT INTO item SELECT generate_series(1, 100);
         ALTER TABLE item ENABLE ROW LEVEL SECURITY; {policy};"
    ))
    .expect("a policy");
    pair.at_target(REFUSE).expect("a target that refuses it");
    pair.pgconvoy(&["migrate"])
        .expect("migrate runs")
        .expect(3)
        .says("not-restored");
    pair.at_target(ALLOW).expect("it does so no more");
    assert!(verify(&pair, 3).contains("not-restored"));

    pair.at_target("CREATE POLICY small ON item USING (id < 11)")
        .expect("nearly right");
    assert!(verify(&pair, 3).contains("policy small on public.item"));
    pair.at_target(&format!("DROP POLICY small ON item; {policy}"))
        .expect("by hand");
    // A part of the schema is looked at too.
    pair.pgconvoy(&["verify", "--include-table", "public.item"])
        .expect("verify runs")
        .expect(0);
    assert!(!verify(&pair, 0).contains("not-restored"));
    let report = pair.pgconvoy(&["report"]).expect("report runs").expect(0);
    assert!(!report.text().contains("not-restored"), "{}", report.text());

    // What was accepted as missing is missed when it is gone again.
    pair.at_target("DROP POLICY small ON item").expect("gone");
    assert!(verify(&pair, 3).contains("policy small on public.item"));
}

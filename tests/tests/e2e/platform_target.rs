//! On the platform of platform.rs: what stays the target's own, what of it is replaced with `--force`, and what comes back.
use pgconvoy_tests::hold::Hold;
use pgconvoy_tests::pair::DATABASE;
use pgconvoy_tests::{PATIENCE, Pair, eventually};

use crate::depot::count;
use crate::platform::{NEWER, OLDER, ONLY_NEWER, assert_arrived, dump, managed, pair, target};

#[test]
fn verify_sees_the_users_objects_on_the_platforms_tables_and_not_the_platforms_own() {
    let pair = pair(OLDER, OLDER);
    // Of the user's too, and alike.
    let same = "CREATE POLICY same ON files.box FOR SELECT TO member USING (open)";
    pair.at_source(same).expect("a policy");
    pair.at_target(same).expect("the same at the target");
    pair.migrate(&[]);
    // The target's service goes on by itself.
    pair.at_target("CREATE TABLE core.newest (id int); ALTER TABLE core.newest OWNER TO harbour_core; CREATE INDEX ON core.account (touched); ALTER TABLE core.log ADD origin text; INSERT INTO core.levels VALUES ('8')")
        .expect("the service is upgraded");
    pair.pgconvoy(&["verify"]).expect("verify runs").expect(0);
    let differs = |sql: &str, says: &str, back: &str| {
        pair.at_target(sql).expect("a change at the target");
        pair.pgconvoy(&["verify"])
            .expect("verify runs")
            .expect(3)
            .says(says);
        pair.at_target(back).expect("and back");
        pair.pgconvoy(&["verify"]).expect("verify runs").expect(0);
    };
    differs(
        "DROP POLICY uploads ON files.item",
        "policy uploads on files.item: it is missing",
        "CREATE POLICY uploads ON files.item FOR INSERT TO member WITH CHECK (box = 'open')",
    );
    differs(
        "ALTER POLICY same ON files.box USING (true)",
        "DIFFERENCE [managed-clash] policy same on files.box: it is yours, and differs in using",
        "ALTER POLICY same ON files.box USING (open)",
    );
    differs(
        "ALTER TABLE core.account DISABLE TRIGGER on_account",
        "trigger on_account on core.account: it differs",
        "ALTER TABLE core.account ENABLE TRIGGER on_account",
    );
    differs(
        "UPDATE core.token SET value = 'forged' WHERE id = 3",
        "core.token: 500 rows at both ends, with different contents",
        "UPDATE core.token SET value = 'token 3' WHERE id = 3",
    );
    differs(
        "ALTER PUBLICATION harbour_live DROP TABLE shop.orders",
        "publication harbour_live: it differs in tables",
        "ALTER PUBLICATION harbour_live ADD TABLE shop.orders",
    );
    differs(
        "ALTER PUBLICATION harbour_live SET (publish = 'insert')",
        "publication harbour_live: it differs in publishes",
        "ALTER PUBLICATION harbour_live SET (publish = 'insert, update, delete, truncate')",
    );
    pair.at_source("DROP PUBLICATION harbour_live; CREATE PUBLICATION harbour_live FOR ALL TABLES")
        .expect("another publication");
    pair.pgconvoy(&["preflight"])
        .expect("preflight runs")
        .expect(4)
        .says("WARNING [managed-publication] publication harbour_live: the target has this publication already")
        .says("CREATE PUBLICATION \"harbour_live\" FOR ALL TABLES WITH (publish = 'insert, update, delete, truncate'");
    pair.pgconvoy(&["verify"])
        .expect("verify runs")
        .expect(3)
        .says("publication harbour_live: it differs in all tables");
    pair.at_source("CREATE POLICY later ON files.item FOR DELETE TO member USING (true)")
        .expect("a new policy");
    pair.pgconvoy(&["verify"])
        .expect("verify runs")
        .expect(3)
        .says("policy later on files.item: it is missing at the target");
}

/// In schemas of the platform it may lie where each end has it; what is the user's names it where it lies.
fn extension_elsewhere(pair: &Pair) {
    pair.at_source("CREATE EXTENSION hstore SCHEMA public")
        .expect("the user's own place");
    pair.at_target("CREATE EXTENSION hstore SCHEMA files")
        .expect("the platform's");
    pair.pgconvoy(&["preflight"])
        .expect("preflight runs")
        .expect(4)
        .says("BLOCKER [extension-schema] hstore: the target has the extension in another schema");
    pair.at_source("ALTER EXTENSION hstore SET SCHEMA core")
        .expect("another one of the platform's");
    pair.pgconvoy(&["preflight"])
        .expect("preflight runs")
        .expect(4)
        .says("WARNING [extension-schema] hstore");
    for server in [&pair.source, &pair.target] {
        server
            .psql(DATABASE, "DROP EXTENSION hstore")
            .expect("it goes");
    }
}

/// At one level of the services.
#[test]
fn what_both_ends_have_and_have_differently_is_told_and_policies_stop_the_migration() {
    let pair = pair(OLDER, OLDER);
    let policies = |using: &str| {
        format!(
            "CREATE POLICY \"Sellers read\" ON files.item FOR SELECT TO member USING ({using}); CREATE POLICY same ON files.box FOR SELECT TO member USING (open);"
        )
    };
    pair.at_source("DROP POLICY \"Sellers read\" ON files.item")
        .expect("another one comes");
    pair.at_source(&policies("box = 'open'")).expect("policies");
    pair.at_source(
        "CREATE OR REPLACE FUNCTION core.uid() RETURNS text LANGUAGE sql STABLE AS $$ SELECT current_setting('mine.uid', true) $$;
         DROP INDEX core.account_note; CREATE INDEX account_note ON core.account (note, mail);
         GRANT SELECT ON core.account TO clerk, guest; GRANT SELECT (mail) ON core.account TO clerk",
    )
    .expect("what somebody has changed of the platform's");
    pair.at_target(&policies("true"))
        .expect("policies of the target's own");
    pair.at_target(
        "CREATE TRIGGER web_hook AFTER INSERT ON files.item FOR EACH ROW EXECUTE FUNCTION files.call_out('https://own.example.org/key')",
    )
    .expect("a webhook of the target's own");
    for server in [&pair.source, &pair.target] {
        server
            .psql(DATABASE, "CREATE EXTENSION citext SCHEMA core")
            .expect("an extension of the platform's");
    }
    pair.at_source(
        "GRANT EXECUTE ON FUNCTION core.citext_cmp(core.citext, core.citext) TO clerk;
         REVOKE EXECUTE ON FUNCTION core.citext_larger(core.citext, core.citext) FROM PUBLIC",
    )
    .expect("what somebody has changed of its members");
    extension_elsewhere(&pair);
    pair.at_target("CREATE POLICY own_only ON files.box FOR SELECT TO guest USING (true)")
        .expect("a policy that the target alone has");
    let before = (
        managed(&pair.target),
        target(&pair, "SELECT count(*) FROM pg_class"),
    );
    for command in ["plan", "preflight", "migrate"] {
        let told = pair
            .pgconvoy(&[command])
            .expect("it runs")
            .expect(4)
            .says("BLOCKER [managed-clash] trigger web_hook on files.item: it is yours, and the target has another one of this name, which differs in arguments (source: arguments: (masked); target: arguments: (masked))")
            .says("BLOCKER [managed-clash] policy \"Sellers read\" on files.item: it is yours, and the target has another one of this name, which differs in using")
            .says("source: using: (box = 'open'::text); target: using: true")
            .says("WARNING [managed-differs] function core.uid(): both ends have it, at one level of the service (7), and it differs in body")
            .says("current_setting('(masked, here only)', true)")
            .says("WARNING [managed-differs] index core.account_note: both ends have it")
            .says("WARNING [managed-grants] table core.account: the source grants more to roles of yours")
            .says("source: clerk=SELECT/(owner)")
            .says("WARNING [managed-grants] column core.account.mail")
            .says("WARNING [managed-grants] function core.citext_cmp(")
            .says("WARNING [managed-differs] extension citext: 1 of its members differ in grants")
            .says("PUBLIC=EXECUTE/(owner)")
            .says("it differs in grants: somebody has changed it at one end, or another release of the platform (source: grants: guest=SELECT/(owner); target: grants: nothing more)");
        assert!(
            !["own.example.org", "mine.uid", "harbour.uid"]
                .iter()
                .any(|text| told.text().contains(text)),
            "what may be a key is told"
        );
    }
    let after = (
        managed(&pair.target),
        target(&pair, "SELECT count(*) FROM pg_class"),
    );
    assert_eq!(before, after, "something was changed");
    // What is left out clashes with nothing.
    for left_out in [
        &["plan", "--exclude-schema", "files"][..],
        &["preflight", "--exclude-table", "files.item"],
        &["plan", "--skip-schema"],
    ] {
        let told = pair.pgconvoy(left_out).expect("it runs").text();
        assert!(!told.contains("managed-clash"), "{left_out:?}: {told}");
    }
    // Nor is it replaced: policies at the target are neither dropped nor brought.
    let policies_there = "SELECT string_agg(polname || coalesce(pg_get_expr(polqual, polrelid), ''), ' ' ORDER BY polname) FROM pg_policy WHERE polrelid::regclass::text LIKE 'files.%' AND polname NOT IN ('extra_read')";
    let own = target(&pair, policies_there);
    pair.migrate(&["--force", "--skip-rls"])
        .says("managed-clash")
        .says("[backup");
    assert_eq!(own, target(&pair, policies_there));
    pair.pgconvoy(&["rollback"])
        .expect("rollback runs")
        .expect(0);
    assert_eq!(own, target(&pair, policies_there));
    pair.migrate(&["--force"])
        .says("WARNING [managed-policy-extra] policies: policies on the platform's tables that the target alone has")
        .says("own_only on files.box")
        .says("is replaced by the source's")
        .says("[backup");
    let using = "SELECT string_agg(polname || pg_get_expr(polqual, polrelid), ' ' ORDER BY polname) FROM pg_policy WHERE polname IN ('Sellers read', 'same')";
    assert_eq!(
        target(&pair, using),
        "Sellers read(box = 'open'::text) sameopen"
    );
    let source = "SELECT prosrc FROM pg_proc WHERE proname = 'uid'";
    assert!(target(&pair, source).contains("harbour.uid"), "it stays");
    let hook = "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'web_hook'";
    assert!(target(&pair, hook).contains("old.example.org"), "replaced");
    // Told again, and no difference; what both ends had alike is compared too.
    pair.pgconvoy(&["verify"])
        .expect("verify runs")
        .expect(0)
        .says("WARNING [managed-differs] function core.uid()");
    pair.at_target("ALTER POLICY same ON files.box USING (true)")
        .expect("a change at the target");
    pair.pgconvoy(&["verify"])
        .expect("verify runs")
        .expect(3)
        .says("policy same on files.box");
    pair.pgconvoy(&["rollback"])
        .expect("rollback runs")
        .expect(0);
    assert_eq!(before.0, managed(&pair.target));
}

#[test]
fn taken_back_the_platform_is_as_its_services_made_it() {
    let pair = pair(NEWER, OLDER);
    let whole = |pair: &Pair| {
        let all: Vec<Vec<String>> = ["core", "files", "clock", "public"]
            .iter()
            .map(|schema| dump(&pair.target, schema, &[]))
            .collect();
        (
            all,
            target(pair, "SELECT pubname, tablename FROM pg_publication_tables"),
            target(pair, "SELECT rolname FROM pg_roles ORDER BY 1"),
        )
    };
    let before = whole(&pair);
    pair.migrate(&["--force"]);
    pair.pgconvoy(&["rollback"])
        .expect("rollback runs")
        .expect(0)
        .says("the target is what it was");
    assert_eq!(before, whole(&pair));
    // Services go on by themselves meanwhile: what they make is nobody's to take back.
    pair.migrate(&["--force"]);
    pair.at_target("CREATE TABLE core.newest (id int); ALTER TABLE core.newest OWNER TO harbour_core; ALTER TABLE core.log ADD origin text")
        .expect("the service is upgraded");
    pair.pgconvoy(&["rollback"])
        .expect("rollback runs")
        .expect(0)
        .says("the target is what it was");
    assert_eq!(count(&pair, "SELECT count(*) FROM core.newest"), 0);
    assert_eq!(count(&pair, "SELECT count(*) FROM core.account"), 0);
    // And again, over it.
    pair.migrate(&["--force"]);
}

#[test]
fn rows_that_the_target_has_already_are_replaced_with_force_alone_and_come_back() {
    let pair = pair(OLDER, OLDER);
    let fill = "SET session_replication_role = replica;
        INSERT INTO core.account (id, mail) VALUES (1, 'somebody@else.org'), (9001, 'more@else.org');
        INSERT INTO files.box VALUES ('open', false); INSERT INTO core.log VALUES (1, 'own')";
    pair.at_target(fill).expect("rows of the target's own");
    let before = dump(&pair.target, "core", &[]);
    pair.pgconvoy(&["migrate"])
        .expect("it runs")
        .expect(4)
        .says("[managed-not-empty] target: the platform's tables hold rows at the target: core.account has 2 rows, core.log has 1 rows, files.box has 1 rows");
    assert_eq!(before, dump(&pair.target, "core", &[]));
    pair.migrate(&["--force"])
        .says("are replaced")
        .says("[backup");
    assert_arrived(&pair);
    assert_eq!(
        count(&pair, "SELECT count(*) FROM core.account WHERE id = 9001"),
        0
    );
    pair.pgconvoy(&["rollback"])
        .expect("rollback runs")
        .expect(0);
    let (mut before, mut after) = (before, dump(&pair.target, "core", &[]));
    // Rows may lie in another order.
    before.sort();
    after.sort();
    assert_eq!(before, after);
}

#[test]
fn a_migration_that_was_replaced_leaves_nothing_of_the_users_old_part() {
    let pair = pair(OLDER, OLDER);
    pair.migrate(&[]);
    pair.at_source("DROP POLICY uploads ON files.item; CREATE OR REPLACE FUNCTION files.is_seller() RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT true $$; DROP TABLE shop.orders")
        .expect("the user's part has changed");
    // A policy is dropped where the source has one of its name alone.
    pair.migrate(&["--force"])
        .says("[managed-policy-extra]")
        .says("uploads on files.item");
    assert_eq!(
        target(
            &pair,
            "SELECT prosrc FROM pg_proc WHERE proname = 'is_seller'"
        )
        .trim(),
        "SELECT true"
    );
    assert_eq!(
        target(&pair, "SELECT to_regclass('shop.orders') IS NULL"),
        "t"
    );
}

#[test]
fn a_killed_migration_of_a_platform_is_resumed_with_the_same_rules() {
    let mut pair = pair(NEWER, OLDER);
    pair.at_source(ONLY_NEWER).expect("rows of the newer level");
    pair.at_target("CREATE TABLE public.gone (); DROP TABLE public.gone")
        .expect("the target answers");
    pair.at_source(
        "INSERT INTO core.token (account, value) SELECT 1 + i % 500, repeat(md5(i::text), 30) FROM generate_series(501, 4000) i",
    )
    .expect("tokens for several parts");
    // The last part waits for somebody who may yet commit a row of the same key.
    let hold = Hold::transaction(
        &pair.target,
        DATABASE,
        "INSERT INTO core.token (id) VALUES (4000)",
    )
    .expect("a row");
    let migrate = pair
        .spawn(&["migrate", "--force", "--part-size", "1"])
        .expect("migrate starts");
    eventually("some tokens and other tables are loaded", PATIENCE, || {
        let loaded = "SELECT CASE WHEN to_regclass('pgconvoy.parts') IS NULL THEN 0 ELSE 1 END";
        let parts = |of: &str| {
            let parts = format!(
                "SELECT count(*) FROM pgconvoy.parts p JOIN pgconvoy.tables t ON t.oid = p.table_oid
                 WHERE p.committed_at IS NOT NULL AND t.name {of} 'token'"
            );
            count(&pair, &parts)
        };
        target(&pair, loaded) == "1" && parts("=") > 1 && parts("<>") > 3
    });
    // The snapshot is open; the source's services go on with what is theirs.
    pair.at_source(
        "BEGIN; SET LOCAL lock_timeout = '10s'; LOCK TABLE core.sealed, core.flow, core.levels IN ACCESS EXCLUSIVE MODE;
         DROP TABLE live.message; COMMIT",
    )
    .expect("nobody holds the tables that are never carried");
    let locked =
        "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'core.token'::regclass AND granted";
    assert_eq!(pair.at_source(locked).expect("the source"), "t");
    pair.target_agent.kill().expect("the agent is killed");
    migrate.wait(PATIENCE).expect("it ends").expect(1);
    hold.release();
    pair.target_agent.restart().expect("the agent starts again");
    pair.source_agent
        .restart()
        .expect("and the source's, without its snapshot");
    pair.at_source("SET session_replication_role = replica; UPDATE core.account SET mail = 'meanwhile@example.org' WHERE id = 400;
                    -- From a part that has arrived into one that has not: it has its key at the target already.
                    UPDATE core.token SET value = repeat('moved', 200) WHERE id = 1")
        .expect("the application goes on");
    pair.pgconvoy(&["resume"]).expect("resume runs").expect(0);
    assert_arrived(&pair);
    assert_eq!(target(&pair, "SELECT count(*) FROM files.prefix"), "10");
}

#[test]
fn a_rehearsal_of_a_platform_is_of_its_schemas_too() {
    let pair = pair(NEWER, OLDER);
    pair.at_source(ONLY_NEWER).expect("rows of the newer level");
    let before = managed(&pair.target);
    pair.pgconvoy(&["rehearse"])
        .expect("rehearse runs")
        .expect(0)
        .says("[skew-table] core.passkey: 9 rows");
    assert_eq!(before, managed(&pair.target));
    let left = "SELECT count(*) FROM pg_database WHERE datname LIKE 'pgconvoy%'";
    assert_eq!(count(&pair, left), 0);
}

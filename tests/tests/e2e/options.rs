//! What a migration leaves out when it is asked to, and what it says of that.
use pgconvoy_tests::Pair;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use pgconvoy_proto::channel;
use pgconvoy_proto::identity::{Identity, Role};
use pgconvoy_tests::program::Outcome;
use pgconvoy_tests::{PATIENCE, eventually};

const SCHEMA: &str = "
    CREATE SCHEMA app;
    CREATE TABLE app.account (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE app.entry (id int PRIMARY KEY, account int CONSTRAINT entry_account REFERENCES app.account, note text);
    CREATE SCHEMA log;
    CREATE TABLE log.line (n int, entry int CONSTRAINT line_entry REFERENCES app.entry);
    ALTER TABLE app.entry ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON app.entry USING (note IS NOT NULL);
    COMMENT ON POLICY own ON app.entry IS 'what has a note';
    CREATE SEQUENCE app.number;";
const ROWS: &str = "
    SELECT setval('app.number', 4242);
    INSERT INTO app.account SELECT i, 'account ' || i FROM generate_series(1, 100) i;
    INSERT INTO app.entry SELECT i, 1 + i % 100, md5(i::text) FROM generate_series(1, 1000) i;
    INSERT INTO log.line SELECT i, 1 + i % 1000 FROM generate_series(1, 500) i;";

fn pair() -> Pair {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(&format!("{SCHEMA}{ROWS}"))
        .expect("an application");
    pair
}

#[track_caller]
fn run(pair: &Pair, command: &str, code: i32) -> Outcome {
    let arguments: Vec<&str> = command.split(' ').collect();
    pair.pgconvoy(&arguments).expect("it runs").expect(code)
}

fn verdict(pair: &Pair) -> String {
    target(pair, "SELECT verdict FROM pgconvoy.migrations")
}

fn target(pair: &Pair, query: &str) -> String {
    pair.at_target(query).expect("the target answers")
}

#[test]
fn what_is_not_selected_stays_away_and_what_misses_it_is_told() {
    let pair = pair();
    let migrate = pair.migrate(&["--exclude-table", "app.account", "--exclude-schema", "l*"]);
    migrate
        .says("foreign-key-outside-selection")
        .says("entry_account");
    let tables = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class
                  WHERE relkind = 'r' AND relnamespace::regnamespace::text IN ('app', 'log')";
    assert_eq!(target(&pair, tables), "entry");
    assert_eq!(target(&pair, "SELECT count(*) FROM app.entry"), "1000");
    // What is called wrongly is not taken for proven.
    let unknown = |command: &[&str], code| {
        let ended = pair.pgconvoy(command).expect("it runs").expect(code);
        ended.says("app.entri").says("is called so");
    };
    unknown(&["verify", "--include-table", "app.entri"], 1);
    unknown(
        &["verify", "--critical-only", "--include-table", "app.entri"],
        1,
    );
    unknown(&["sync", "--table", "app.entry", "--table", "app.entri"], 4);
    unknown(&["plan", "--include-table", "app.entri"], 4);
    unknown(&["preflight", "--include-table", "app.entri"], 4);
    for (command, code) in [
        ("plan --include-schema ap", 4),
        ("verify --include-schema ap", 1),
        ("sync --include-schema ap", 4),
    ] {
        run(&pair, command, code).says("is called so");
    }
    // The target is in use by now.
    run(&pair, "plan --exclude-table entri", 4)
        .says("filter-idle")
        .says("--exclude-table");
    // Without a schema it is the table of that name, wherever it is.
    let plan = run(&pair, "plan --exclude-table account --json", 4).result();
    let tables = plan["tables"].to_string();
    assert!(
        tables.contains("\"table\":\"entry\"") && !tables.contains("\"table\":\"account\""),
        "{tables}"
    );
    assert_eq!(
        target(
            &pair,
            "SELECT count(*) FROM pg_namespace WHERE nspname = 'log'"
        ),
        "0"
    );
}

#[test]
fn rows_cross_into_a_schema_that_is_there() {
    let pair = pair();
    pair.at_target(SCHEMA).expect("the same schema");
    // Would refuse every row, if it fired.
    pair.at_target(
        "CREATE FUNCTION app.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON app.entry FOR EACH ROW EXECUTE FUNCTION app.refuse();
         ALTER TABLE app.entry ENABLE ALWAYS TRIGGER refuse",
    )
    .expect("a trigger");
    // Of another type there, and with the same bytes.
    pair.at_source(
        "CREATE TABLE app.tag (code char(5) PRIMARY KEY); INSERT INTO app.tag VALUES ('ab')",
    )
    .expect("padded");
    pair.at_target("CREATE TABLE app.tag (code text PRIMARY KEY)")
        .expect("not padded");
    pair.migrate(&["--skip-schema"]).says("proven");
    assert_eq!(target(&pair, "SELECT length(code) FROM app.tag"), "5");
    let rows = "SELECT (SELECT count(*) FROM app.account), (SELECT count(*) FROM app.entry), (SELECT count(*) FROM log.line)";
    assert_eq!(target(&pair, rows), "100|1000|500");
    let trigger = "SELECT tgenabled FROM pg_trigger WHERE tgname = 'refuse'";
    assert_eq!(target(&pair, trigger), "A", "the trigger is as it was");

    // The schema is somebody else's. What cannot be read is told, and the rest is compared.
    pair.at_target(
        "ALTER TABLE app.account ADD mine int; ALTER TABLE log.line RENAME TO away; ALTER TABLE app.entry RENAME note TO text",
    )
    .expect("somebody goes on with it");
    for command in ["verify", "verify --critical-only"] {
        let differs = run(&pair, command, 3);
        differs
            .says("[table-missing] log.line")
            .says("[columns-differ] app.entry")
            .says("differences=2");
    }
    pair.at_target(
        "ALTER TABLE log.away RENAME TO line; ALTER TABLE app.entry RENAME text TO note",
    )
    .expect("it is as it was");
    run(&pair, "verify", 0);
    pair.at_target("ALTER TABLE app.account DROP mine")
        .expect("it is as it was");

    // Only the tables that are problematic, once the migration is nobody's affair any more: what the others hold stays.
    run(&pair, "clean", 0);
    pair.at_target("SET session_replication_role = replica; DELETE FROM app.entry")
        .expect("a table that others refer to is empty");
    let again = "migrate --skip-schema --include-table app.entry";
    run(&pair, &format!("{again} --skip-rls"), 4)
        .says("--skip-rls")
        .says("--force");
    run(&pair, again, 0).says("proven");
    assert_eq!(target(&pair, rows), "100|1000|500");
    run(&pair, "rollback", 0);
    assert_eq!(target(&pair, rows), "100|0|500", "what was empty is");
    assert_eq!(target(&pair, trigger), "A", "the trigger is as it was");
}

/// What COPY FREEZE asks for is a table that was just truncated.
#[test]
fn a_table_of_one_part_is_loaded_frozen_and_one_that_holds_rows_keeps_them() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(
        "CREATE TABLE one (id int PRIMARY KEY, note text);
         INSERT INTO one SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 40000) i;
         CREATE TABLE other (id int PRIMARY KEY, note text);
         INSERT INTO other SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 30000) i;",
    )
    .expect("two tables of more than 8 MiB");
    // The larger one is loaded first; meanwhile somebody writes to the other one.
    pair.at_target(
        "CREATE TABLE other (id int PRIMARY KEY, note text);
         CREATE FUNCTION write(id int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
             IF id = 1 THEN INSERT INTO public.other VALUES (0, 'somebody else''s'); END IF; RETURN true; END $$;
         CREATE TABLE one (id int PRIMARY KEY CHECK (write(id)), note text);",
    )
    .expect("the same tables");
    let migrate = pair.pgconvoy(&["migrate", "--skip-schema", "--streams", "1"]);
    migrate
        .expect("migrate runs")
        .expect(3)
        .says("public.other");
    let there = "SELECT count(*), min(id) FROM";
    assert_eq!(target(&pair, &format!("{there} one")), "40000|1");
    assert_eq!(target(&pair, &format!("{there} other")), "30001|0");
    pair.at_target("CREATE EXTENSION pg_visibility")
        .expect("PostgreSQL's contrib modules");
    let frozen = "SELECT all_frozen > 0 FROM pg_visibility_map_summary";
    assert_eq!(target(&pair, &format!("{frozen}('one')")), "t");
    assert_eq!(target(&pair, &format!("{frozen}('other')")), "f");
}

#[test]
fn a_schema_crosses_without_its_rows_and_these_by_sync() {
    let pair = pair();
    pair.migrate(&["--skip-data"]).says("unverified");
    assert_eq!(target(&pair, "SELECT count(*) FROM app.entry"), "0");
    let keys = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated AND connamespace::regnamespace::text <> 'pgconvoy'";
    assert_eq!(target(&pair, keys), "2");
    let policies = "SELECT count(*) FROM pg_policy";
    assert_eq!(target(&pair, policies), "1");

    run(&pair, "verify", 0)
        .says("verdict=ok tables=0 differences=0")
        .says("skipped=data");
    assert_eq!(verdict(&pair), "unverified", "nobody has compared a row");
    // Nobody has used the sequence at the target: nothing is set back.
    run(&pair, "sync --skip-data", 0).says("1 sequences");
    run(&pair, "sync --skip-data --table app.acount", 4).says("table-unknown");
    run(&pair, "sync --table app.account", 0);
    run(&pair, "verify", 0)
        .says("verdict=unverified tables=1")
        .says("rows-not-brought");
    assert_eq!(verdict(&pair), "unverified", "other tables have no rows");
    run(&pair, "sync", 0).says("proven: 3 tables");
    assert_eq!(target(&pair, "SELECT count(*) FROM app.entry"), "1000");
    assert_eq!(target(&pair, "SELECT last_value FROM app.number"), "4242");
    let analyzed = "SELECT count(*) FROM pg_stats WHERE schemaname = 'app' AND tablename = 'entry'";
    assert_ne!(target(&pair, analyzed), "0", "statistics follow from rows");
    run(&pair, "verify", 0).says("verdict=proven tables=3");
}

#[test]
fn row_level_security_is_left_out_only_by_force_and_that_is_told_until_somebody_has_made_it() {
    let pair = pair();
    run(&pair, "migrate --skip-rls", 4).says("--force");
    let migrate = run(&pair, "migrate --skip-rls --force", 0).says("rls-skipped");
    assert!(
        !migrate.text().contains("not-restored"),
        "{}",
        migrate.text()
    );
    let secured = "SELECT count(*) FROM pg_class WHERE relrowsecurity OR relforcerowsecurity";
    assert_eq!(target(&pair, secured), "0");
    let policies = std::fs::read_to_string(pair.latest_run().join("rls_policies.sql"));

    // What the migration leaves out its syncs leave out. A verification without the flag is about everything.
    run(&pair, "sync --skip-rls", 0).says("proven");
    run(&pair, "verify --skip-rls", 0)
        .says("verdict=proven tables=3")
        .says("skipped=rls");
    run(&pair, "verify", 3)
        .says("policy own on app.entry")
        .says("row security");
    run(&pair, "report", 3).says("differs");
    run(&pair, "verify --skip-rls", 0);
    assert_eq!(
        verdict(&pair),
        "differs",
        "what is missing is missing still"
    );
    pair.at_target(&policies.expect("the run folder has the policies"))
        .expect("they run");
    run(&pair, "verify", 0).says("verdict=proven");
    let report = run(&pair, "report", 0).text();
    assert!(!report.contains("rls-skipped"), "{report}");
}

#[test]
fn what_verify_leaves_out_is_said_and_proves_nothing() {
    let pair = pair();
    pair.migrate(&[]);
    pair.at_target("UPDATE app.entry SET note = 'other' WHERE id = 7")
        .expect("a row");
    run(&pair, "verify --skip-data", 0)
        .says("verdict=ok tables=0 differences=0 warnings=0 checks=0 checks_failed=0 skipped=data")
        .says("rows (--skip-data)");
    assert_eq!(verdict(&pair), "proven", "what was proven of rows stays");
    run(&pair, "verify --skip-rls", 3)
        .says("rows-differ")
        .says("skipped=rls");
    run(&pair, "sync --force", 0).says("1 changed");

    pair.at_target("DROP POLICY own ON app.entry")
        .expect("a policy");
    run(&pair, "verify --skip-rls", 0)
        .says("verdict=proven")
        .says("row level security (--skip-rls)");
    run(&pair, "verify --skip-data", 3).says("policy own on app.entry");
    // What is known of it stays, and is not told again by who leaves it out.
    run(&pair, "verify --skip-rls", 0).says("differences=0");
    run(&pair, "verify --skip-data --skip-rls --json", 0);
    let found = "SELECT count(*) FROM pgconvoy.findings WHERE object = 'policy own on app.entry'";
    assert_eq!(target(&pair, found), "1");
    assert_eq!(verdict(&pair), "differs");
    run(&pair, "verify --critical-only --skip-rls", 0)
        .says("verdict=ok")
        .says("skipped=rls");

    for nonsense in [
        "--skip-schema",
        "--detailed",
        "--critical-only",
        "--checks none.toml",
    ] {
        run(&pair, &format!("verify --skip-data {nonsense}"), 2).says("--skip-data");
    }
}

#[test]
fn a_sync_without_rows_brings_sequences_and_one_without_row_level_security_needs_force() {
    let pair = pair();
    pair.migrate(&[]);
    pair.at_source(
        "SELECT setval('app.number', 5000); INSERT INTO app.account VALUES (101, 'late')",
    )
    .expect("the source goes on");
    let number = "SELECT last_value FROM app.number";
    run(&pair, "sync --skip-data --dry-run", 0)
        .says("app.number")
        .says("1 sequences");
    assert_eq!(target(&pair, number), "4242");
    let sync = run(&pair, "sync --skip-data --json", 0);
    assert_eq!(sync.result()["verdict"], "ok");
    assert_eq!(sync.result()["sync"]["sequences"], 1);
    assert_eq!(target(&pair, number), "5000");
    assert_eq!(target(&pair, "SELECT count(*) FROM app.account"), "100");

    pair.at_target("SELECT setval('app.number', 6000)")
        .expect("somebody uses it");
    run(&pair, "sync --skip-data", 4)
        .says("target-written")
        .says("app.number");
    assert_eq!(target(&pair, number), "6000");
    run(&pair, "sync --skip-data --force", 0);
    assert_eq!(target(&pair, number), "5000");

    pair.at_target("DROP POLICY own ON app.entry")
        .expect("a policy");
    run(&pair, "sync --skip-rls", 4)
        .says("--force")
        .says("nothing was changed");
    assert_eq!(target(&pair, "SELECT count(*) FROM app.account"), "100");
    run(&pair, "sync --skip-rls --force", 0)
        .says("rls-skipped")
        .says("1 rows inserted");
    run(&pair, "verify", 3).says("policy own on app.entry");
    let told = "SELECT count(*) FROM pgconvoy.findings WHERE code = 'rls-skipped'";
    assert_eq!(target(&pair, told), "0", "it was looked at since");
}

#[test]
fn an_id_that_cannot_name_a_migration_is_a_usage_error() {
    let pair = pair();
    let migrate = pair
        .pgconvoy(&["migrate", "--migration", "../x"])
        .expect("migrate runs");
    migrate.expect(2).says("--migration");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_healthy_as_long_as_its_database_is() {
    let mut pair = pair();
    let identity = Identity::load(&pair.pki().join("coordinator.pem")).expect("the identity");
    let channel = channel::connect(&pair.target_agent.url(), &identity, Role::Target)
        .await
        .expect("the agent is there");
    let runtime = tokio::runtime::Handle::current();
    let healthy = || {
        let mut client = HealthClient::new(channel.clone());
        let answer = tokio::task::block_in_place(|| {
            runtime.block_on(client.check(HealthCheckRequest::default()))
        });
        answer
            .expect("the health service answers")
            .into_inner()
            .status()
            == ServingStatus::Serving
    };
    assert!(healthy());
    pair.target.stop_immediate().expect("PostgreSQL stops");
    eventually("the agent is unhealthy", PATIENCE, || !healthy());
    pair.target.restart().expect("PostgreSQL is back");
    eventually("the agent is healthy again", PATIENCE, healthy);
}

#[test]
fn one_list_of_flags_serves_migrate_sync_and_verify() {
    let pair = pair();
    let flags = "--profile plain --streams 2 --index-jobs 1 --compression off --force --backup --skip-rls --skip-storage";
    for command in ["migrate", "sync", "verify"] {
        let all: Vec<&str> = [command].into_iter().chain(flags.split(' ')).collect();
        let ended = pair.pgconvoy(&all).expect("it runs").expect(0);
        if command != "verify" {
            ended.says("read back");
        }
    }
    for command in ["sync", "verify"] {
        pair.pgconvoy(&[command, "--profile", "supabase"])
            .expect("it runs")
            .expect(2)
            .says("made with plain");
    }
}

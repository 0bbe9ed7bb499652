//! What a migration leaves out when it is asked to, and what it says of that.
use pgconvoy_tests::Pair;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use pgconvoy_proto::channel;
use pgconvoy_proto::identity::{Identity, Role};
use pgconvoy_tests::{PATIENCE, eventually};

const SCHEMA: &str = "
    CREATE SCHEMA app;
    CREATE TABLE app.account (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE app.entry (id int PRIMARY KEY, account int CONSTRAINT entry_account REFERENCES app.account, note text);
    CREATE SCHEMA log;
    CREATE TABLE log.line (n int, entry int CONSTRAINT line_entry REFERENCES app.entry);
    ALTER TABLE app.entry ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON app.entry USING (note IS NOT NULL);";
const ROWS: &str = "
    INSERT INTO app.account SELECT i, 'account ' || i FROM generate_series(1, 100) i;
    INSERT INTO app.entry SELECT i, 1 + i % 100, md5(i::text) FROM generate_series(1, 1000) i;
    INSERT INTO log.line SELECT i, 1 + i % 1000 FROM generate_series(1, 500) i;";

fn pair() -> Pair {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(&format!("{SCHEMA}{ROWS}"))
        .expect("an application");
    pair
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
    pair.migrate(&["--skip-schema"]).says("proven");
    let rows = "SELECT (SELECT count(*) FROM app.account), (SELECT count(*) FROM app.entry), (SELECT count(*) FROM log.line)";
    assert_eq!(target(&pair, rows), "100|1000|500");
    let trigger = "SELECT tgenabled FROM pg_trigger WHERE tgname = 'refuse'";
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
fn a_schema_crosses_without_its_rows() {
    let pair = pair();
    pair.migrate(&["--skip-data"]).says("unverified");
    assert_eq!(target(&pair, "SELECT count(*) FROM app.entry"), "0");
    let keys = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated AND connamespace::regnamespace::text <> 'pgconvoy'";
    assert_eq!(target(&pair, keys), "2");
    let policies = "SELECT count(*) FROM pg_policy";
    assert_eq!(target(&pair, policies), "1");
}

#[test]
fn row_level_security_is_left_out_only_by_force_and_that_is_told() {
    let pair = pair();
    let refused = pair
        .pgconvoy(&["migrate", "--skip-rls"])
        .expect("migrate runs");
    refused.expect(4).says("--force");
    pair.migrate(&["--skip-rls", "--force"]).says("rls-skipped");
    let secured = "SELECT count(*) FROM pg_class WHERE relrowsecurity OR relforcerowsecurity";
    assert_eq!(target(&pair, secured), "0");
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
    let flags = "--profile plain --streams 2 --index-jobs 1 --compression off --force --backup";
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

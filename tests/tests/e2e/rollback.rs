//! `rollback`: the target is what it was, by pg_dump of it before and after, whatever was killed and when.
use std::collections::BTreeSet;

use pgconvoy_coordinator::demo::agent::clean_command;
use pgconvoy_tests::demo::SAMPLE;
use pgconvoy_tests::hold::Hold;
use pgconvoy_tests::majors;
use pgconvoy_tests::pair::DATABASE;
use pgconvoy_tests::{PATIENCE, Pair, eventually};

use crate::depot::{self, Halfway};

const NASTY: &str = include_str!("nasty.sql");

/// Where there is no pg_dumpall of the server's major.
const ROLES: &str = "
    SELECT to_jsonb(r) - 'oid' FROM pg_authid r WHERE rolname !~ '^pg_'
    UNION ALL SELECT jsonb_build_array(m.roleid::regrole, m.member::regrole, m.grantor::regrole, m.admin_option) FROM pg_auth_members m
    UNION ALL SELECT jsonb_build_array(s.setrole::regrole, s.setconfig) FROM pg_db_role_setting s";

/// Whatever pg_dump says of the target, but for its order, with the database's own settings; and the server's roles.
pub fn target_dump(pair: &Pair) -> BTreeSet<String> {
    let installation = pair.target.installation();
    let of_server = |program: &str| installation.bin.join(program).is_file();
    let dump = |program: &str, arguments: &[&str]| {
        let mut command = installation.command(program);
        if !of_server(program) {
            // Servers that were fetched come without it.
            let clients = majors::clients(installation.major).expect("clients of its major");
            command = clean_command(&clients.join(program));
        }
        let output = command.args(arguments).output().expect("the program runs");
        assert!(
            output.status.success(),
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let url = pair.target.url(DATABASE);
    let roles = match of_server("pg_dumpall") {
        true => dump("pg_dumpall", &["--roles-only", "--dbname", &url]),
        false => pair.at_target(ROLES).expect("the server's roles"),
    };
    let text = dump("pg_dump", &["--create", "-N", "pgconvoy", "--dbname", &url]) + &roles;
    // psql's guard against injected commands is random.
    let random = |line: &&str| line.starts_with("\\restrict") || line.starts_with("\\unrestrict");
    let lines = text.lines().filter(|line| !random(line));
    lines.map(str::to_owned).collect()
}

#[track_caller]
pub fn assert_same(before: &BTreeSet<String>, after: &BTreeSet<String>) {
    let lone = |here: &BTreeSet<String>, there: &BTreeSet<String>| {
        let lines: Vec<String> = here.difference(there).take(20).cloned().collect();
        lines.join("\n  ")
    };
    assert!(
        before == after,
        "the target is not what it was.\nonly before:\n  {}\nonly after:\n  {}",
        lone(before, after),
        lone(after, before)
    );
}

/// Rolls back and compares; the ledger is gone.
#[track_caller]
fn rolls_back_to(pair: &Pair, before: &BTreeSet<String>) {
    let rollback = pair
        .pgconvoy(&["rollback", "--json"])
        .expect("rollback runs")
        .expect(0);
    assert_eq!(rollback.result()["verdict"], "proven");
    assert_same(before, &target_dump(pair));
    let ledger = "SELECT count(*) FROM pg_namespace WHERE nspname = 'pgconvoy'";
    assert_eq!(depot::count(pair, ledger), 0, "the ledger is gone");
}

#[test]
fn a_finished_migration_is_taken_back_and_may_be_made_again() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(SAMPLE).expect("the sample data");
    let before = target_dump(&pair);
    pair.migrate(&[]);
    pair.at_source(
        "DELETE FROM shop.review; UPDATE shop.warehouse SET opens = '09:00'; SELECT nextval('billing.invoice_number')",
    )
    .expect("the source goes on");
    pair.pgconvoy(&["sync"]).expect("sync runs").expect(0);
    rolls_back_to(&pair, &before);
    pair.migrate(&[]);
    pair.assert_equal_ends();
}

/// Odd names and kinds of objects, roles, grants on PostgreSQL's own objects, settings and comment of the database, large objects.
#[test]
fn a_bit_of_everything_is_taken_back() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(NASTY).expect("the nasty data");
    pair.at_source(
        "CREATE ROLE clerk LOGIN; CREATE ROLE boss; GRANT clerk TO boss;
         GRANT CREATE ON SCHEMA public TO clerk;
         COMMENT ON SCHEMA public IS 'of the source';
         COMMENT ON DATABASE app IS 'of the source';
         ALTER DATABASE app SET work_mem = '5MB';
         ALTER ROLE clerk IN DATABASE app SET work_mem = '6MB';
         REVOKE TEMP ON DATABASE app FROM PUBLIC;
         GRANT CREATE ON DATABASE app TO boss;
         REVOKE EXECUTE ON FUNCTION pg_catalog.pg_sleep(float8) FROM PUBLIC;
         GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text) TO clerk;
         ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO clerk;
         ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
         ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE ON SEQUENCES TO clerk;
         CREATE CAST (text AS point) WITH INOUT;
         CREATE TYPE hollow;
         SELECT lo_from_bytea(4711, 'large');",
    )
    .expect("more of everything");
    let before = target_dump(&pair);
    pair.migrate(&[]);
    assert_ne!(before, target_dump(&pair), "nothing was migrated");
    rolls_back_to(&pair, &before);
}

#[test]
fn what_was_there_before_stays() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(SAMPLE).expect("the sample data");
    pair.at_target(
        "CREATE ROLE keeper; CREATE EXTENSION citext; CREATE SCHEMA mine;
         ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO keeper;
         COMMENT ON SCHEMA public IS 'of the target'; ALTER SCHEMA public OWNER TO keeper;
         ALTER DATABASE app SET work_mem = '7MB'",
    )
    .expect("what the target has of its own");
    let before = target_dump(&pair);
    // What the target has of its own is a difference.
    pair.pgconvoy(&["migrate", "--force"])
        .expect("migrate runs")
        .expect(3);
    rolls_back_to(&pair, &before);
}

#[test]
fn tables_that_were_there_are_emptied_and_their_sequences_set_back() {
    let pair = Pair::new().expect("two servers and two agents");
    let tables = "CREATE TABLE item (id serial PRIMARY KEY, name text);
                  CREATE TABLE part (item int REFERENCES item, n int);";
    pair.at_source(tables).expect("tables at the source");
    pair.at_source("INSERT INTO item (name) SELECT 'x' FROM generate_series(1, 50); INSERT INTO part VALUES (1, 1)")
        .expect("rows");
    pair.at_target(tables).expect("tables at the target");
    let before = target_dump(&pair);
    pair.migrate(&["--skip-schema"]);
    rolls_back_to(&pair, &before);
}

#[test]
fn what_others_have_made_since_is_named_and_stays_unless_forced() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source("CREATE TABLE item (id int PRIMARY KEY)")
        .expect("a table");
    let before = target_dump(&pair);
    pair.migrate(&[]);
    pair.at_target("CREATE TABLE precious (id int); CREATE VIEW seen AS SELECT * FROM item")
        .expect("what somebody made");
    let with_theirs = target_dump(&pair);
    pair.pgconvoy(&["rollback"])
        .expect("rollback runs")
        .expect(1)
        .says("precious")
        .says("seen")
        .says("--force");
    assert_same(&with_theirs, &target_dump(&pair));
    let verdict = pair
        .at_target("SELECT verdict FROM pgconvoy.migrations")
        .expect("the ledger");
    assert_eq!(verdict, "proven", "the migration is as it was");
    pair.pgconvoy(&["rollback", "--force"])
        .expect("rollback runs")
        .expect(0);
    assert_same(&before, &target_dump(&pair));
}

#[test]
fn without_a_ledger_there_is_nothing_to_roll_back() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.pgconvoy(&["rollback"])
        .expect("rollback runs")
        .expect(1)
        .says("no ledger");
}

#[test]
fn a_migration_that_was_killed_in_the_copy_is_taken_back() {
    let mut pair = depot::pair();
    let before = target_dump(&pair);
    let Halfway { migrate, trap } = Halfway::in_the_copy_of_a_table(&pair);
    pair.target_agent.kill().expect("the target agent dies");
    let migrate = migrate.wait(PATIENCE).expect("migrate gives up");
    assert_ne!(migrate.code, 0, "{}", migrate.text());
    pair.target_agent.restart().expect("it comes back");
    // What the source agent still sends arrives while the target is rolled back.
    trap.open_gate();
    rolls_back_to(&pair, &before);
}

#[test]
fn a_migration_whose_coordinator_was_killed_in_the_copy_is_taken_back() {
    let pair = depot::pair();
    let before = target_dump(&pair);
    let Halfway { migrate, trap } = Halfway::in_the_copy_of_a_table(&pair);
    migrate.kill().expect("the coordinator dies");
    trap.open_gate();
    rolls_back_to(&pair, &before);
}

/// Somebody reads depot.big: a rollback waits for them, with some of its transactions behind it or none, and the target agent dies.
pub fn kill_rollback_behind_a_reader(pair: &mut Pair) -> Hold {
    let read = "LOCK TABLE depot.big IN ACCESS SHARE MODE";
    let reader = Hold::transaction(&pair.target, DATABASE, read).expect("a reader");
    let rollback = pair.spawn(&["rollback"]).expect("rollback starts");
    eventually("the rollback waits for the reader", PATIENCE, || {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'";
        depot::count(pair, waiting) > 0
    });
    pair.target_agent.kill().expect("the target agent dies");
    let rollback = rollback.wait(PATIENCE).expect("rollback gives up");
    assert_ne!(rollback.code, 0, "{}", rollback.text());
    pair.target_agent.restart().expect("it comes back");
    reader
}

#[test]
fn a_rollback_that_was_killed_is_run_again_and_nothing_else_is() {
    let mut pair = depot::pair();
    let before = target_dump(&pair);
    pair.migrate(&[]);
    let reader = kill_rollback_behind_a_reader(&mut pair);
    assert_eq!(
        pair.at_target("SELECT phase FROM pgconvoy.migrations")
            .expect("the ledger"),
        "rollback"
    );
    pair.pgconvoy(&["resume"])
        .expect("resume runs")
        .expect(1)
        .says("pgconvoy rollback");
    pair.pgconvoy(&["migrate"])
        .expect("migrate runs")
        .expect(1)
        .says("pgconvoy rollback");
    reader.release();
    rolls_back_to(&pair, &before);
}

#[test]
fn a_target_that_is_not_empty_any_more_when_the_plan_is_written_is_refused() {
    // The event that makes it so: the ledger's own schema is made in the transaction that writes the plan.
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source("CREATE TABLE item (id int PRIMARY KEY)")
        .expect("a table");
    pair.at_target(
        "CREATE SCHEMA pgconvoy;
         CREATE FUNCTION pgconvoy.intrude() RETURNS event_trigger LANGUAGE plpgsql AS $$
         BEGIN CREATE TABLE IF NOT EXISTS public.intruder (); END $$;
         CREATE EVENT TRIGGER intrude ON ddl_command_end WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION pgconvoy.intrude()",
    )
    .expect("an intruder");
    pair.pgconvoy(&["migrate"])
        .expect("migrate runs")
        .expect(1)
        .says("not empty any more")
        .says("intruder");
    let tables = "SELECT count(*) FROM pg_class WHERE relname IN ('migrations', 'item')";
    assert_eq!(depot::count(&pair, tables), 0, "nothing was changed");
}

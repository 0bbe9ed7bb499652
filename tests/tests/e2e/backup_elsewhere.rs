//! Backups, replacing and rolling back where the target is not the usual one: another major than the source's, an agent that is no superuser.
use pgconvoy_tests::demo::SAMPLE;
use pgconvoy_tests::majors;
use pgconvoy_tests::pair::{DATABASE, Options};
use pgconvoy_tests::{Pair, say_aloud};

use crate::backup::{MORE, NASTY, back_up, proven};
use crate::roles::{LOADER, managed};
use crate::rollback::{assert_same, target_dump};

/// The target is in use, is replaced, and comes back; and once more, from a backup that was made alone.
fn comes_back(source: u32, target: u32) {
    let Some(options) = majors::options(source, target) else {
        return;
    };
    say_aloud(&format!("PostgreSQL {source} to {target}"));
    // Two versions of pg_restore are needed where the target is the older one: they are looked for, as they are on an operator's machine.
    let newest = options.target_pg_bin.clone().expect("a folder");
    let mut pair = Pair::with(Options {
        target_pg_bin: None,
        ..options
    })
    .expect("two servers and two agents");
    let path = std::env::var("PATH").expect("a PATH");
    pair.target_agent
        .set("PATH", &format!("{}:{path}", newest.display()));
    pair.target_agent.restart().expect("it finds more programs");
    pair.at_source(SAMPLE).expect("the sample data");
    pair.at_target(NASTY).expect("the nasty data");
    pair.at_target(MORE).expect("more of everything");
    if target == 14 {
        // pg_dump 15 and newer write of it what no server of 14 knows; clients of 14 are not there.
        let backup = pair.pgconvoy(&["backup"]).expect("backup runs").expect(1);
        backup.says("nasty.unlogged").says("postgresql-client-14");
        pair.at_target("ALTER TABLE nasty.unlogged ALTER id DROP IDENTITY")
            .expect("an unlogged table without an identity");
    }
    let before = target_dump(&pair);
    let migrate = pair
        .pgconvoy(&["migrate", "--force"])
        .expect("migrate runs");
    // What was there of roles and default privileges may be told as a difference.
    assert!([0, 3].contains(&migrate.code), "{}", migrate.text());
    proven(&pair, &["rollback"]);
    assert_same(&before, &target_dump(&pair));

    let id = back_up(&pair);
    pair.at_target(
        "DROP SCHEMA nasty CASCADE; UPDATE worded SET w = 'other'; SELECT lo_unlink(4711)",
    )
    .expect("changes");
    proven(&pair, &["rollback", "--to-backup", &id]);
    assert_same(&before, &target_dump(&pair));
}

#[test]
fn a_target_of_a_newer_major_comes_back() {
    comes_back(15, 18);
}

#[test]
fn a_target_of_an_older_major_comes_back() {
    comes_back(17, 14);
}

/// What the owner of a database makes who is no superuser.
const OF_THE_LOADER: &str = "
    CREATE EXTENSION citext;
    CREATE SCHEMA yard;
    CREATE TYPE yard.state AS ENUM ('new', 'used');
    CREATE TABLE yard.post (id serial PRIMARY KEY, state yard.state, name citext DEFAULT 'none');
    INSERT INTO yard.post (state) SELECT 'new' FROM generate_series(1, 100);
    CREATE TABLE yard.gate (post int REFERENCES yard.post, secret text);
    INSERT INTO yard.gate SELECT i, 'secret ' || i FROM generate_series(1, 50) i;
    ALTER TABLE yard.gate ENABLE ROW LEVEL SECURITY;
    CREATE POLICY few ON yard.gate USING (post < 10);
    CREATE MATERIALIZED VIEW yard.posts AS SELECT state, count(*) FROM yard.post GROUP BY 1;
    CREATE FUNCTION yard.two() RETURNS int LANGUAGE sql AS 'SELECT 2';
    REVOKE ALL ON FUNCTION yard.two() FROM PUBLIC;
    CREATE TABLE plain (id int PRIMARY KEY);
    ALTER DEFAULT PRIVILEGES IN SCHEMA yard GRANT SELECT ON TABLES TO PUBLIC;
    COMMENT ON DATABASE app IS 'of the loader';
    ALTER DATABASE app SET work_mem = '7MB';
    SELECT lo_from_bytea(4711, 'large');";

fn as_loader(pair: &Pair, sql: &str) {
    let done = pair.target.psql_as("loader", Some(LOADER), DATABASE, sql);
    done.expect("the loader may do that");
}

/// Without row level security that binds the owner too, which a role like this cannot load.
fn source() -> String {
    format!(
        "{SAMPLE}; ALTER TABLE shop.address NO FORCE ROW LEVEL SECURITY; CREATE ROLE clerk; GRANT SELECT ON shop.product TO clerk"
    )
}

#[test]
fn an_agent_that_is_no_superuser_backs_up_replaces_and_brings_back_what_is_its_own() {
    let pair = managed();
    pair.at_source(&source()).expect("the sample data");
    as_loader(&pair, OF_THE_LOADER);
    let before = target_dump(&pair);
    let id = back_up(&pair);
    let migrate = pair
        .pgconvoy(&["migrate", "--force"])
        .expect("migrate runs");
    assert!([0, 3].contains(&migrate.code), "{}", migrate.text());
    let clerks = "SELECT count(*) FROM pg_roles WHERE rolname = 'clerk'";
    assert_eq!(pair.at_target(clerks).expect("the target"), "1");
    proven(&pair, &["rollback"]);
    assert_same(&before, &target_dump(&pair));

    as_loader(&pair, "DROP SCHEMA yard CASCADE; SELECT lo_unlink(4711)");
    proven(&pair, &["rollback", "--to-backup", &id]);
    assert_same(&before, &target_dump(&pair));
}

#[test]
fn what_the_agent_may_not_load_read_or_drop_is_named_before_anything_is_changed() {
    let pair = managed();
    pair.at_source(SAMPLE).expect("the sample data");
    as_loader(&pair, OF_THE_LOADER);
    let before = target_dump(&pair);
    let run = |command: &[&str], code: i32| pair.pgconvoy(command).expect("it runs").expect(code);
    run(&["migrate", "--force"], 4)
        .says("rls-forced")
        .says("shop.address")
        .says("BYPASSRLS");
    assert_same(&before, &target_dump(&pair));
    pair.at_source("ALTER TABLE shop.address NO FORCE ROW LEVEL SECURITY")
        .expect("it binds others only");

    let id = back_up(&pair);
    pair.at_target(
        "CREATE ROLE keeper; CREATE SCHEMA kept AUTHORIZATION keeper; CREATE TABLE kept.thing AS SELECT 1 AS id;
         ALTER TABLE kept.thing OWNER TO keeper; GRANT USAGE ON SCHEMA kept TO loader; CREATE TABLE of_admin AS SELECT 1 AS id;
         GRANT SELECT ON of_admin TO loader; ALTER TABLE yard.gate FORCE ROW LEVEL SECURITY;
         ALTER ROLE loader CREATEDB",
    )
    .expect("what is somebody else's");
    let before = target_dump(&pair);
    run(&["migrate", "--force"], 4)
        .says("target-not-owned")
        .says("kept.thing")
        .says("GRANT keeper TO loader")
        .says("of_admin");
    // Nothing of it is in the way of a rehearsal, which drops nothing.
    let rehearse = pair.pgconvoy(&["rehearse"]).expect("rehearse runs");
    assert!([0, 3].contains(&rehearse.code), "{}", rehearse.text());
    assert_same(&before, &target_dump(&pair));
    run(&["backup"], 1)
        .says("kept.thing of keeper")
        .says("yard.gate of loader")
        .says("nothing was changed");
    run(&["rollback", "--to-backup", &id, "--force"], 1)
        .says("kept.thing")
        .says("of_admin")
        .says("Nothing was changed");
    assert_same(&before, &target_dump(&pair));

    // What was named is what was missing. Without CREATEROLE the source's role does not come, and the rest does.
    pair.at_source("CREATE ROLE clerk; GRANT SELECT ON shop.product TO clerk")
        .expect("a role");
    pair.at_target("ALTER ROLE loader NOCREATEROLE")
        .expect("the owner of a database");
    pair.at_target("GRANT keeper TO loader; DROP TABLE of_admin; ALTER TABLE yard.gate NO FORCE ROW LEVEL SECURITY").expect("what is missing");
    let before = target_dump(&pair);
    let migrate = pair
        .pgconvoy(&["migrate", "--force"])
        .expect("migrate runs");
    assert!([0, 3].contains(&migrate.code), "{}", migrate.text());
    migrate
        .says("role-cannot-be-created")
        .says("grant-not-kept");
    proven(&pair, &["rollback"]);
    assert_same(&before, &target_dump(&pair));
}

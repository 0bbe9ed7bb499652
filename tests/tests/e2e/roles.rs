//! Roles cross with everything that makes them: compared with the source's catalog, by pg_dumpall, and by logging in.
use pgconvoy_tests::demo::server::Server;
use pgconvoy_tests::hold::Hold;
use pgconvoy_tests::pair::{DATABASE, Options};
use pgconvoy_tests::{PATIENCE, Pair, eventually};

use crate::depot::count;

const PASSWORD: &str = "the clerk's password";

const ROLES: &str = r#"
CREATE ROLE readers;
CREATE ROLE clerk LOGIN NOINHERIT CREATEDB CONNECTION LIMIT 5 VALID UNTIL '2131-02-03 04:05:06+07'
  PASSWORD 'the clerk''s password';
CREATE ROLE "Bo""ss" LOGIN BYPASSRLS CREATEROLE REPLICATION;
CREATE ROLE bystander LOGIN;
CREATE ROLE temp LOGIN PASSWORD 'the temp''s password'; CREATE ROLE staff; GRANT clerk, staff TO temp;
CREATE ROLE colleague; GRANT staff TO colleague;
CREATE ROLE root3 SUPERUSER; GRANT clerk TO root3;
GRANT readers TO clerk WITH ADMIN OPTION;
GRANT pg_monitor TO readers;
COMMENT ON ROLE clerk IS 'it''s the clerk';
ALTER ROLE clerk SET search_path = "$user", public, "odd, name";
ALTER ROLE clerk SET statement_timeout = '7s';
ALTER ROLE clerk SET shop.note = 'a, b = c';
CREATE SCHEMA shop AUTHORIZATION "Bo""ss";
CREATE TABLE shop.item (id int PRIMARY KEY, name text);
INSERT INTO shop.item SELECT i, 'item ' || i FROM generate_series(1, 100) i;
ALTER TABLE shop.item OWNER TO "Bo""ss";
GRANT USAGE ON SCHEMA shop TO clerk;
GRANT SELECT ON shop.item TO clerk;
GRANT SET ON PARAMETER log_min_messages TO clerk WITH GRANT OPTION;
"#;

/// Every role that a test may make, whole.
const DESCRIBED: &str = "
SELECT a.rolname, a.rolsuper, a.rolinherit, a.rolcreaterole, a.rolcreatedb, a.rolcanlogin, a.rolreplication, a.rolbypassrls,
       a.rolconnlimit, a.rolvaliduntil, a.rolpassword, shobj_description(a.oid, 'pg_authid'),
       (SELECT string_agg(setconfig::text, ';') FROM pg_db_role_setting WHERE setrole = a.oid AND setdatabase = 0),
       (SELECT string_agg(pg_get_userbyid(roleid) || ' ' || admin_option, ';' ORDER BY roleid::regrole::text)
        FROM pg_auth_members WHERE member = a.oid),
       (SELECT string_agg(parname || g.privilege_type || g.is_grantable, ';') FROM pg_parameter_acl, aclexplode(paracl) g WHERE g.grantee = a.oid)
FROM pg_authid a WHERE oid >= 16384 AND rolname NOT IN ('bystander', 'colleague', 'root3') ORDER BY a.oid";

fn pair() -> Pair {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(ROLES).expect("roles and what they own");
    pair
}

fn target(pair: &Pair, query: &str) -> String {
    pair.at_target(query).expect("the target answers")
}

fn is_there(pair: &Pair, role: &str) -> bool {
    let there = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{role}'");
    count(pair, &there) == 1
}

#[test]
fn the_roles_that_are_used_cross_whole() {
    let pair = pair();
    pair.pgconvoy(&["plan"])
        .expect("plan runs")
        .expect(0)
        .says("roles-created")
        .says("clerk, readers, staff, temp");
    assert!(!is_there(&pair, "clerk"), "a plan has created a role");

    pair.migrate(&[]).says("roles-created");
    let described = pair.at_source(DESCRIBED).expect("the source answers");
    assert_eq!(target(&pair, DESCRIBED), described);
    assert_eq!(described.lines().count(), 5, "{described}");
    for role in ["bystander", "colleague", "root3"] {
        assert!(!is_there(&pair, role), "nothing needs {role}");
    }
    pair.assert_equal_ends();

    // The password is the one that the source knows, and the settings are those of a session.
    let logged_in = pair.target.psql_as(
        "clerk",
        Some(PASSWORD),
        DATABASE,
        "SELECT count(*) || ' ' || current_setting('statement_timeout') || ' ' || current_setting('shop.note') FROM shop.item",
    );
    assert_eq!(logged_in.expect("the clerk logs in"), "100 7s a, b = c");
    let wrong = pair
        .target
        .psql_as("clerk", Some("wrong"), DATABASE, "SELECT");
    assert!(wrong.is_err(), "any password will do");

    // They stay, and it is said.
    pair.pgconvoy(&["clean"])
        .expect("clean runs")
        .expect(0)
        .says("stays: role clerk");
    assert!(is_there(&pair, "clerk"));
}

/// `pg_dumpall --roles-only` without its comments.
fn dumped_roles(server: &Server) -> Vec<String> {
    let output = server
        .installation()
        .command("pg_dumpall")
        .args(["--roles-only", "--no-role-passwords", "--dbname"])
        .arg(server.url("postgres"))
        .output()
        .expect("pg_dumpall runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let noise = |line: &&str| line.is_empty() || line.starts_with("--") || line.starts_with('\\');
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| !noise(line))
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

#[test]
fn all_roles_are_those_of_the_source_for_pg_dumpall() {
    let pair = pair();
    pair.at_source(
        "CREATE ROLE root2 SUPERUSER LOGIN VALID UNTIL '2001-01-01';
         CREATE ROLE forever LOGIN VALID UNTIL 'infinity' PASSWORD NULL;
         GRANT clerk TO bystander;
         SET ROLE clerk; GRANT readers TO forever; RESET ROLE;
         GRANT SET ON PARAMETER log_min_messages TO bystander WITH GRANT OPTION;
         GRANT ALTER SYSTEM ON PARAMETER shop.note TO bystander;",
    )
    .expect("more roles");
    pair.migrate(&["--roles", "all"]).says("root2 (superuser)");
    let source = dumped_roles(&pair.source);
    assert_eq!(dumped_roles(&pair.target), source);
    for words in [
        "GRANTED BY clerk",
        "ON PARAMETER log_min_messages",
        "bystander",
    ] {
        assert!(
            source.iter().any(|line| line.contains(words)),
            "{words}: {source:#?}"
        );
    }
}

#[test]
fn without_roles_a_missing_one_is_a_blocker() {
    let pair = pair();
    // What the table grants can never be as at the source; those of its column can.
    pair.at_source(
        "CREATE ROLE known; CREATE MATERIALIZED VIEW seen AS SELECT 1 AS n;
         GRANT SELECT ON seen TO clerk; GRANT REFERENCES ON seen TO known; GRANT SELECT (n) ON seen TO known",
    )
    .expect("a view");
    pair.at_target("CREATE ROLE known").expect("a role");
    pair.pgconvoy(&["migrate", "--roles", "none"])
        .expect("migrate runs")
        .expect(4)
        .says("role-missing")
        .says("clerk");
    pair.migrate(&["--roles", "none", "--force"])
        .says("grant-not-kept")
        .says("role-left-out");
    let column = "SELECT has_column_privilege('known', 'seen', 'n', 'SELECT')";
    assert_eq!(target(&pair, column), "t");
    pair.pgconvoy(&["verify"]).expect("verify runs").expect(0);
    assert!(!is_there(&pair, "clerk") && !is_there(&pair, "readers"));
    pair.pgconvoy(&["migrate", "--roles", "some"])
        .expect("migrate runs")
        .expect(2)
        .says("all, used or none");
}

#[test]
fn a_role_that_is_there_is_left_as_it_is() {
    let pair = pair();
    pair.at_target(
        "CREATE ROLE clerk CONNECTION LIMIT 7 PASSWORD 'its own'; CREATE ROLE readers;
         CREATE ROLE watcher LOGIN; GRANT clerk TO watcher; CREATE ROLE bystander; GRANT clerk TO bystander;",
    )
    .expect("roles of the same names, and members of them");
    let clerk = "SELECT to_jsonb(a)::text FROM pg_authid a WHERE rolname = 'clerk'";
    let before = target(&pair, clerk);
    pair.pgconvoy(&["preflight"])
        .expect("preflight runs")
        .expect(0)
        .says("membership-missing")
        .says("parameter-grant-missing");
    let migrate = pair.migrate(&["--json"]);
    for (code, role) in [
        ("role-was-there", "role watcher"),
        ("memberships-were-there", "role bystander"),
    ] {
        let told = |line: &str| line.contains(code) && line.contains(role);
        assert!(migrate.stdout.lines().any(told), "{code}");
    }
    let differs = migrate
        .stdout
        .lines()
        .find(|line| line.contains("role-differs") && line.contains("clerk"))
        .expect("the role differs");
    for words in [
        "CONNECTION LIMIT 5",
        "CONNECTION LIMIT 7",
        "NOLOGIN",
        "SET statement_timeout = 7s",
    ] {
        assert!(differs.contains(words), "{words}: {differs}");
    }
    assert_eq!(target(&pair, clerk), before);
    let members = "SELECT count(*) FROM pg_auth_members WHERE member = 'clerk'::regrole";
    assert_eq!(target(&pair, members), "0");
    assert!(is_there(&pair, "Bo\"ss"), "what is missing is created");
    assert_eq!(
        target(
            &pair,
            "SELECT string_agg(name, ' ' ORDER BY name) FROM pgconvoy.roles"
        ),
        "Bo\"ss staff temp"
    );
    // What they had is accepted; what they get from now on is not.
    pair.pgconvoy(&["verify"]).expect("verify runs").expect(0);
    pair.at_target("GRANT staff TO bystander")
        .expect("another membership");
    pair.pgconvoy(&["verify"])
        .expect("verify runs")
        .expect(3)
        .says("role bystander");
}

#[test]
fn two_databases_of_one_server_share_their_roles() {
    let pair = Pair::with(Options {
        target_url: Some(|source, _| source.url("copy")),
        before_agents: Some(|pair| pair.source.create_database("copy")),
        ..Options::default()
    })
    .expect("one server with two databases");
    pair.at_source(ROLES).expect("roles and what they own");
    let migrate = pair.migrate(&["--roles", "all"]);
    for code in [
        "roles-created",
        "role-differs",
        "membership-missing",
        "not-kept",
    ] {
        assert!(!migrate.text().contains(code), "{code}: {}", migrate.text());
    }
    let rows = pair.source.psql("copy", "SELECT count(*) FROM shop.item");
    assert_eq!(rows.expect("the copy"), "100");
}

pub const LOADER: &str = "loader-password";

/// Its target agent may create roles and owns its database, and no more: as on a managed server.
pub fn managed() -> Pair {
    Pair::with(Options {
        target_url: Some(|_, target| target.url_as("loader", Some(LOADER), DATABASE)),
        before_agents: Some(|pair| {
            let loader = format!(
                "CREATE ROLE loader LOGIN CREATEROLE PASSWORD '{LOADER}'; ALTER DATABASE app OWNER TO loader"
            );
            pair.at_target(&loader).map(drop)
        }),
        ..Options::default()
    })
    .expect("a target agent that is no superuser")
}

#[test]
fn a_target_agent_without_superuser_creates_what_it_may() {
    let pair = managed();
    pair.at_source(
        "CREATE ROLE owner CREATEDB;
         CREATE ROLE guard BYPASSRLS LOGIN PASSWORD 'guard-password';
         ALTER ROLE guard SET log_statement = 'all';
         ALTER ROLE guard SET work_mem = '9MB';
         CREATE SCHEMA yard AUTHORIZATION owner;
         CREATE TABLE yard.post (id int PRIMARY KEY);
         CREATE TABLE public.gate (id int PRIMARY KEY);
         INSERT INTO yard.post SELECT generate_series(1, 50);
         INSERT INTO public.gate SELECT generate_series(1, 50);
         ALTER TABLE yard.post OWNER TO owner; ALTER TABLE public.gate OWNER TO owner;
         ALTER TABLE yard.post ENABLE ROW LEVEL SECURITY;
         CREATE POLICY all_of_it ON yard.post TO guard USING (true);
         GRANT SELECT ON yard.post TO guard;",
    )
    .expect("roles and what they own");
    pair.pgconvoy(&["migrate"])
        .expect("migrate runs")
        .expect(4)
        .says("role-cannot-be-created")
        .says("BYPASSRLS");
    let migrate = pair.migrate(&["--force"]);
    let migrate = migrate
        .says("role-attribute-not-kept")
        .says("role-setting-not-kept");
    assert!(
        !migrate.text().contains("owner-not-kept"),
        "{}",
        migrate.text()
    );
    let roles = "SELECT string_agg(concat_ws(' ', rolname, rolcreatedb, rolbypassrls, rolcanlogin, rolconfig::text), ', ' ORDER BY rolname)
                 FROM pg_roles WHERE rolname IN ('owner', 'guard')";
    assert_eq!(
        target(&pair, roles),
        "guard f f t {work_mem=9MB}, owner t f f"
    );
    let owners =
        "SELECT string_agg(tableowner, ' ') FROM pg_tables WHERE schemaname IN ('yard', 'public')";
    assert_eq!(target(&pair, owners), "owner owner");
    let create = "SELECT has_schema_privilege('owner', 'public', 'CREATE')";
    assert_eq!(
        target(&pair, create),
        "f",
        "lent to take the table, and not taken back"
    );
    let login = pair
        .target
        .psql_as("guard", Some("guard-password"), DATABASE, "SELECT 1");
    login.expect("the guard logs in");

    pair.pgconvoy(&["verify"]).expect("verify runs").expect(0);
    let lent = "SELECT count(*) FROM pg_auth_members WHERE member = 'loader'::regrole";
    assert_eq!(target(&pair, lent), "2");
    pair.pgconvoy(&["clean"])
        .expect("clean runs")
        .expect(0)
        .says("membership of loader in guard");
    assert_eq!(target(&pair, lent), "0");
}

#[test]
fn a_kill_between_two_roles_leaves_each_whole_or_absent() {
    let mut pair = Pair::new().expect("two servers and two agents");
    pair.at_source(
        "CREATE ROLE alpha LOGIN PASSWORD 'alpha-password';
         CREATE ROLE beta LOGIN PASSWORD 'beta-password';
         CREATE ROLE gamma;
         GRANT gamma TO alpha, beta;
         ALTER ROLE alpha SET work_mem = '9MB'; ALTER ROLE beta SET work_mem = '9MB';
         CREATE TABLE t (id int PRIMARY KEY); GRANT SELECT ON t TO alpha, beta;",
    )
    .expect("three roles");
    // Who would create a role of this name waits for what becomes of this one.
    let hold =
        Hold::transaction(&pair.target, DATABASE, "CREATE ROLE beta").expect("an open transaction");
    let migrate = pair.spawn(&["migrate"]).expect("migrate starts");
    eventually("the agent waits between two roles", PATIENCE, || {
        is_there(&pair, "alpha")
            && count(
                &pair,
                "SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted",
            ) == 1
    });
    assert!(!is_there(&pair, "gamma"), "the last role is there already");
    let undone = "SELECT count(*) FROM pgconvoy.steps WHERE kind = 'roles' AND state = 'done'";
    assert_eq!(count(&pair, undone), 0);
    pair.target_agent.kill().expect("the target agent dies");
    let migrate = migrate.wait(PATIENCE).expect("migrate gives up");
    assert_ne!(migrate.code, 0, "{}", migrate.text());
    pair.target_agent
        .restart()
        .expect("the target agent comes back");
    hold.release();
    pair.pgconvoy(&["resume"]).expect("resume runs").expect(0);

    assert_eq!(
        target(&pair, DESCRIBED),
        pair.at_source(DESCRIBED).expect("the source answers")
    );
    let ours = "SELECT string_agg(name, ' ' ORDER BY name) FROM pgconvoy.roles";
    assert_eq!(target(&pair, ours), "alpha beta gamma");
    let appeared = "SELECT count(*) FROM pgconvoy.findings WHERE code IN ('role-appeared', 'membership-not-kept')";
    assert_eq!(count(&pair, appeared), 0);
    for (role, password) in [("alpha", "alpha-password"), ("beta", "beta-password")] {
        let login = pair
            .target
            .psql_as(role, Some(password), DATABASE, "SELECT 1");
        login.expect("the role logs in");
    }
}

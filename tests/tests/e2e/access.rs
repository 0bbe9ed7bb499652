//! What users may see is asked as those users, at both ends. The platform is one of our own, stated in `pgconvoy.toml`: its claims come in
//! settings of its own.
use std::fs;
use std::path::Path;

use pgconvoy_tests::Pair;
use pgconvoy_tests::demo::server::Server;
use pgconvoy_tests::pair::{DATABASE, Options};
use pgconvoy_tests::program::Outcome;
use serde_json::Value;

const PLATFORM: &str = include_str!("access/platform.sql");
const USER: &str = include_str!("access/user.sql");
const CLUB: &str = include_str!("access/club.toml");

/// The platform at both ends; the user's objects and rows, and `more`, at the source.
fn prepare(pair: &Pair, more: &str) {
    for server in [&pair.source, &pair.target] {
        sql(server, PLATFORM);
    }
    sql(&pair.source, USER);
    sql(&pair.source, more);
    fs::write(pair.folder().join("pgconvoy.toml"), CLUB).expect("the settings file");
}

fn sql(server: &Server, sql: &str) {
    server.psql(DATABASE, sql).expect("it runs");
}

fn pair(more: &str) -> Pair {
    let pair = Pair::new().expect("two servers and two agents");
    prepare(&pair, more);
    pair
}

/// Codes and objects of what is said about accesses.
fn told(outcome: &Outcome) -> Vec<(String, String)> {
    let result = outcome.result();
    let of = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    let findings = result["findings"].as_array().expect("findings").iter();
    findings
        .map(|finding| (of(finding, "code"), of(finding, "object")))
        .filter(|(code, object)| object.starts_with("access") && code != "access-compared")
        .collect()
}

#[track_caller]
fn is_told(outcome: &Outcome, code: &str, object: &str) {
    let told = told(outcome);
    assert!(
        told.contains(&(code.to_owned(), object.to_owned())),
        "{code} of {object}: {told:?}"
    );
}

fn verify(pair: &Pair) -> Outcome {
    pair.pgconvoy(&["verify", "--json"]).expect("verify runs")
}

/// Ids and roles of who was asked.
fn identities(outcome: &Outcome) -> Vec<(String, String)> {
    let result = outcome.result();
    let all = result["access"]["identities"]
        .as_array()
        .expect("who was asked");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    all.iter()
        .map(|one| (text(&one["id"]), text(&one["role"])))
        .collect()
}

/// Everything that was written to files below the folder.
fn written(folder: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.is_symlink() {
            all += &written(&path);
        } else if let Ok(bytes) = fs::read(&path) {
            all += &String::from_utf8_lossy(&bytes);
        }
    }
    all
}

#[test]
fn the_same_users_see_the_same_at_both_ends_and_nothing_of_theirs_is_written_down() {
    let pair = pair("");
    rehearsals_ask_too(&pair);
    let migrate = pair.pgconvoy(&["migrate", "--json"]).expect("it runs");
    let migrate = migrate.expect(0).says(
        "row level security: 10 identities asked for 6 tables: same rows and refusals at both ends",
    );
    assert_eq!(told(&migrate), []);
    let access = migrate.result()["access"].clone();
    assert_eq!(access["users"], 100, "{access}");
    // The news have more rows than are read.
    assert_eq!(access["both_many"], 10, "{access}");
    assert_eq!(access["different"], 0, "{access}");
    // Of eight members: notes, photos and events; of the others what they may, which is less.
    assert!(access["same_rows"].as_u64() >= Some(24), "{access}");
    assert!(access["same_refusals"].as_u64() >= Some(20), "{access}");

    let asked = identities(&migrate);
    let ids: Vec<u32> = asked.iter().filter_map(|(id, _)| id.parse().ok()).collect();
    assert_eq!(ids.len(), 8, "{asked:?}");
    for team in 0..4 {
        assert!(ids.iter().any(|id| id % 4 == team), "team {team}: {ids:?}");
    }
    assert!(
        ids.contains(&1) && ids.iter().any(|id| *id > 50),
        "not spread: {ids:?}"
    );
    assert_eq!(asked[0], (String::new(), "club_anon".into()));

    let again = verify(&pair).expect(0);
    assert_eq!(identities(&again), asked, "others were asked");
    pair.pgconvoy(&["report"])
        .expect("report runs")
        .expect(0)
        .says("row level security\n  10 identities asked");
    let html = fs::read_to_string(pair.latest_run().join("report.html")).expect("a report");
    assert!(html.contains("<h2>Row level security</h2>"));

    let ledger = "SELECT coalesce(string_agg(f::text, ' '), '') FROM pgconvoy.findings f";
    let everything = written(pair.folder()) + &pair.at_target(ledger).expect("the ledger");
    for personal in ["@club.example", "words of note", "the secret word"] {
        assert!(
            !everything.contains(personal),
            "{personal:?} was written down"
        );
    }
}

/// In the scratch database, which has what the target's services have made.
#[track_caller]
fn rehearsals_ask_too(pair: &Pair) {
    let rehearse = || {
        let rehearse = pair.pgconvoy(&["rehearse", "--json"]);
        rehearse.expect("rehearse runs")
    };
    let alike = rehearse().expect(0);
    let access = alike.result()["access"].clone();
    assert_eq!(access["different"], 0, "{access}");
    assert!(access["same_rows"].as_u64() >= Some(24), "{access}");
    assert!(access["same_refusals"].as_u64() >= Some(20), "{access}");
    assert_eq!(identities(&alike).len(), 10);
    let me = |sub: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION members.me() RETURNS int LANGUAGE sql STABLE
                AS $$ SELECT (nullif(current_setting('club.claims', true), '')::json ->> '{sub}')::int $$"
        )
    };
    sql(&pair.target, &me("subject"));
    let apart = rehearse().expect(3);
    assert_eq!(apart.result()["verdict"], "differs");
    is_told(&apart, "access-differs", "access to app.note");
    sql(&pair.target, &me("sub"));
}

/// At the target: a change, what undoes it, and what is said of it.
const CHANGES: &[(&str, &str, &str, &str)] = &[
    (
        "ALTER POLICY own ON app.note USING (true)",
        "ALTER POLICY own ON app.note USING (owner = members.me())",
        "access-differs",
        "access to app.note",
    ),
    (
        "DROP POLICY own ON app.event",
        "CREATE POLICY own ON app.event TO club_member USING (owner = members.me())",
        "access-differs",
        "access to app.event",
    ),
    (
        "ALTER TABLE app.photo DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE app.photo ENABLE ROW LEVEL SECURITY",
        "access-differs",
        "access to app.photo",
    ),
    (
        "ALTER FUNCTION app.is_friend SET search_path = pg_catalog, pg_temp",
        "ALTER FUNCTION app.is_friend RESET ALL",
        "access-differs",
        "access to app.photo",
    ),
    (
        "REVOKE SELECT ON app.photo FROM club_member",
        "GRANT SELECT ON app.photo TO club_member",
        "access-differs",
        "access to app.photo",
    ),
    (
        "GRANT SELECT ON app.secret TO club_anon",
        "REVOKE SELECT ON app.secret FROM club_anon",
        "access-differs",
        "access to app.secret",
    ),
    (
        "REVOKE USAGE ON SCHEMA app FROM club_anon",
        "GRANT USAGE ON SCHEMA app TO club_anon",
        "access-differs",
        "access to app.note",
    ),
    // Neither the schema nor the rows of the database differ: the role has come to a right by another way.
    (
        "ALTER ROLE club_anon BYPASSRLS",
        "ALTER ROLE club_anon NOBYPASSRLS",
        "access-differs",
        "access to app.note",
    ),
    (
        "REVOKE UPDATE ON app.note FROM club_member",
        "GRANT UPDATE ON app.note TO club_member",
        "rights-differ",
        "access to app.note",
    ),
    (
        "GRANT DELETE ON app.news TO club_editor; GRANT club_editor TO club_member",
        "REVOKE DELETE ON app.news FROM club_editor; REVOKE club_editor FROM club_member",
        "rights-differ",
        "access to app.news",
    ),
];

#[test]
fn whatever_lets_a_user_see_more_or_less_at_the_target_is_found() {
    let pair = pair("");
    pair.migrate(&[]);
    for (change, undo, code, object) in CHANGES {
        sql(&pair.target, change);
        let verify = verify(&pair).expect(3);
        is_told(&verify, code, object);
        assert_eq!(verify.result()["verdict"], "differs", "{change}");
        sql(&pair.target, undo);
    }
    // The users are named, with what they get.
    sql(&pair.target, CHANGES[0].0);
    verify(&pair)
        .expect(3)
        .says("user 1 (club_member) gets")
        .says("and 900 rows at the target");
    let report = pair.pgconvoy(&["report"]).expect("report runs").expect(3);
    report
        .says("ANSWERS DIFFER")
        .says("[access-differs] access to app.note");
    sql(&pair.target, CHANGES[0].1);
    let mended = verify(&pair).expect(0);
    assert_eq!(told(&mended), [], "what was found before is forgotten");
}

/// A sync asks as well, of what the source has by then.
#[test]
fn a_sync_asks_what_users_may_see() {
    let pair = pair("");
    pair.migrate(&[]);
    sql(
        &pair.source,
        "INSERT INTO app.note SELECT i, 1 + i % 100, 'team 1', true, 'more' FROM generate_series(901, 950) i",
    );
    let sync = pair.pgconvoy(&["sync", "--json"]).expect("sync runs");
    assert_eq!(told(&sync.expect(0)), []);
    sql(
        &pair.target,
        "ALTER TABLE app.event DISABLE ROW LEVEL SECURITY",
    );
    let sync = pair.pgconvoy(&["sync", "--json"]).expect("sync runs");
    let sync = sync.expect(3);
    assert_eq!(sync.result()["verdict"], "differs");
    let ledger = "SELECT count(*) FROM pgconvoy.findings WHERE code = 'access-differs' AND object = 'access to app.event'";
    assert_eq!(pair.at_target(ledger).expect("the ledger"), "1");
    // Another part of the tables does not mend it.
    let part = ["verify", "--json", "--include-table", "app.note"];
    let part = pair.pgconvoy(&part).expect("verify runs").expect(3);
    is_told(&part, "access-differs", "access to app.event");
}

/// Policies that fail, never end, or write: at both ends.
const AWKWARD: &str = "
    CREATE TABLE app.broken (id int PRIMARY KEY);
    INSERT INTO app.broken SELECT generate_series(1, 5);
    CREATE FUNCTION app.fails() RETURNS bool LANGUAGE plpgsql SECURITY DEFINER
        AS $$ BEGIN RAISE EXCEPTION 'not for %', (SELECT mail FROM members.person WHERE id = 1); END $$;
    CREATE POLICY p ON app.broken USING (app.fails());

    CREATE TABLE app.endless (id int PRIMARY KEY);
    INSERT INTO app.endless SELECT generate_series(1, 5);
    CREATE FUNCTION app.loops() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN SET LOCAL statement_timeout = 0; LOOP NULL; END LOOP; END $$;
    CREATE POLICY p ON app.endless USING (app.loops());

    CREATE TABLE app.counted (id int PRIMARY KEY);
    INSERT INTO app.counted SELECT generate_series(1, 5);
    CREATE TABLE app.tally (at timestamptz);
    CREATE FUNCTION app.counts() RETURNS bool LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO tally VALUES (now()); RETURN true; END $$;
    CREATE POLICY p ON app.counted USING (app.counts());

    CREATE TABLE app.turncoat (id int PRIMARY KEY);
    INSERT INTO app.turncoat SELECT generate_series(1, 5);
    CREATE FUNCTION app.turns() RETURNS bool LANGUAGE plpgsql AS $$
        BEGIN PERFORM set_config('club.claims', '{\"sub\": 1}', false); PERFORM set_config('row_security', 'off', false); RETURN true; END $$;
    CREATE POLICY p ON app.turncoat USING (app.turns());

    DO $$ DECLARE t text; BEGIN
        FOREACH t IN ARRAY '{broken,endless,counted,turncoat}'::text[] LOOP
            EXECUTE format('ALTER TABLE app.%I ENABLE ROW LEVEL SECURITY; GRANT SELECT ON app.%I TO club_member', t, t);
        END LOOP;
    END $$;";

#[test]
fn policies_that_fail_or_loop_or_write_are_told_and_stop_nothing() {
    let pair = pair(AWKWARD);
    let migrate = pair.pgconvoy(&["migrate", "--json"]).expect("it runs");
    let migrate = migrate
        .expect(0)
        .says("no answer within 0.4 s at both ends");
    is_told(&migrate, "access-fails-alike", "access to app.broken");
    is_told(&migrate, "access-not-compared", "access to app.endless");
    is_told(&migrate, "access-not-compared", "access to app.counted");
    assert_eq!(told(&migrate).len(), 3, "{:?}", told(&migrate));
    let access = migrate.result()["access"].clone();
    assert_eq!(access["same_errors"], 8, "{access}");
    // A slow table is asked for once; the one that writes by each.
    assert_eq!(access["not_compared"], 9, "{access}");
    let tally = "SELECT count(*) FROM app.tally";
    assert_eq!(pair.at_source(tally).expect("the source"), "0");
    let text = migrate.text() + &written(pair.folder());
    assert!(
        !text.contains("@club.example"),
        "what a policy raised was written down"
    );

    // An error in other words is another answer.
    sql(
        &pair.target,
        "CREATE OR REPLACE FUNCTION app.fails() RETURNS bool LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN RAISE EXCEPTION 'otherwise'; END $$",
    );
    is_told(
        &verify(&pair).expect(3),
        "access-differs",
        "access to app.broken",
    );
}

#[test]
fn a_role_that_may_not_be_taken_on_is_one_finding() {
    let pair = Pair::with(Options {
        source_url: Some(|server| server.url_as("reader", Some("reading"), DATABASE)),
        before_agents: Some(|pair| {
            prepare(pair, "");
            pair.at_source(
                "CREATE ROLE reader LOGIN PASSWORD 'reading' BYPASSRLS; GRANT pg_read_all_data TO reader; GRANT club_anon TO reader",
            )?;
            Ok(())
        }),
        ..Options::default()
    })
    .expect("two servers and two agents");
    // Rows of one key, of which the target takes one.
    let mails = "UPDATE members.person SET mail = 'person1@club.example' WHERE id IN (2, 3)";
    sql(&pair.source, mails);
    sql(
        &pair.target,
        "CREATE UNIQUE INDEX one_mail ON members.person (mail)",
    );
    let ghost = "\n[[platform.access.identities]]\nrole = \"club_ghost\"\n";
    fs::write(pair.folder().join("pgconvoy.toml"), CLUB.to_owned() + ghost)
        .expect("the settings file");
    let migrate = pair
        .pgconvoy(&["migrate", "--json", "--roles", "none", "--force"])
        .expect("it runs")
        .expect(0)
        .says("the source agent's role may not become it")
        .says("GRANT club_member TO the agent's role at the source");
    is_told(&migrate, "access-role", "access as club_member");
    is_told(&migrate, "access-role", "access as club_ghost");
    is_told(&migrate, "access-not-compared", "access to members.person");
    // club_ghost is nowhere; club_member and club_service can be had at the target.
    assert_eq!(told(&migrate).len(), 5, "{:?}", told(&migrate));
    assert_eq!(
        identities(&migrate),
        [(String::new(), "club_anon".to_owned())]
    );
}

#[test]
fn queries_of_the_platform_that_do_not_work_are_told() {
    let pair = pair("");
    let path = pair.folder().join("pgconvoy.toml");
    let broken = CLUB.replace("FROM members.person\"", "FROM members.persons\"");
    fs::write(&path, broken).expect("the settings file");
    let migrate = pair.pgconvoy(&["migrate", "--json"]).expect("it runs");
    let migrate = migrate
        .expect(0)
        .says("relation \\\"members.persons\\\" does not exist");
    is_told(&migrate, "access-not-compared", "access of users");
    assert_eq!(identities(&migrate).len(), 2);

    fs::write(&path, CLUB.replace("users = ", "# users = ")).expect("the settings file");
    let plan = pair.pgconvoy(&["plan"]).expect("it runs");
    plan.expect(2).says("neither without the other");
}

#[test]
fn without_a_platform_that_says_who_nobody_is_asked_and_nothing_is_claimed() {
    let pair = pair("");
    let migrate = pair
        .pgconvoy(&[
            "migrate",
            "--json",
            "--profile",
            "plain",
            "--include-schema",
            "app",
        ])
        .expect("it runs");
    assert_eq!(migrate.result()["access"], Value::Null);
    assert!(!migrate.text().contains("row level security:"));
}

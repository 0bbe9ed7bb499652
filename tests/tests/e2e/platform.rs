//! Databases that live on a platform: one of our own, of two levels that differ in columns, types, labels, tables and triggers, stated in
//! `pgconvoy.toml`. What its services have made stays as it is at the target; rows that both ends can hold and what is the user's arrive;
//! what would be lost stops the migration, or is counted.
use std::fs;

use pgconvoy_tests::Pair;
use pgconvoy_tests::demo::server::Server;
use pgconvoy_tests::majors;
use pgconvoy_tests::pair::{DATABASE, Options};

use crate::depot::count;
use crate::supabase;

const COMMON: &str = include_str!("platform/common.sql");
pub const OLDER: &str = include_str!("platform/older.sql");
pub const NEWER: &str = include_str!("platform/newer.sql");
const OWNERS: &str = include_str!("platform/owners.sql");
const USER: &str = include_str!("platform/user.sql");
const HARBOUR: &str = include_str!("platform/harbour.toml");

const SCHEMAS: [&str; 4] = ["core", "files", "clock", "live"];

/// The source at one level, with the user's objects and rows; the target at another, as its services have made it.
pub fn pair(source: &str, target: &str) -> Pair {
    pair_of(Options::default(), source, target)
}

pub fn pair_of(options: Options, source: &str, target: &str) -> Pair {
    let pair = Pair::with(options).expect("two servers and two agents");
    for (server, level) in [(&pair.source, source), (&pair.target, target)] {
        for sql in [COMMON, level, OWNERS] {
            server.psql(DATABASE, sql).expect("the platform");
        }
    }
    pair.at_source(USER).expect("the user's part");
    fs::write(pair.folder().join("pgconvoy.toml"), HARBOUR).expect("the settings file");
    pair
}

/// Rows that an older level has no place for.
pub const ONLY_NEWER: &str = "
    SET session_replication_role = replica;
    UPDATE core.account SET nick = 'n' || id WHERE id <= 40;
    UPDATE core.account SET locale = 'ka' WHERE id <= 3;
    INSERT INTO core.factor_of SELECT i, i, 'phone', 'yes' FROM generate_series(101, 120) i;
    INSERT INTO core.factor_of SELECT i, i, 'key', NULL FROM generate_series(121, 124) i;
    INSERT INTO core.claim SELECT i, 'claim ' || i FROM generate_series(101, 120) i;
    INSERT INTO core.passkey SELECT i, i FROM generate_series(1, 9) i;
    INSERT INTO core.device SELECT i, 'phone' FROM generate_series(1, 6) i;
    UPDATE files.item SET size = 5000000000 WHERE id = 1;
    UPDATE core.log SET origin = 'here';
    INSERT INTO core.contact SELECT i, 'Mail' || i, i, 'c' || i FROM generate_series(1, 50) i;
    INSERT INTO core.contact SELECT 50 + i, 'mail' || i, 5, 'c' FROM generate_series(1, 3) i;
    INSERT INTO core.contact VALUES (61, 'a', -1, 'c'), (62, 'b', -1, 'c'), (63, 'c', 1, 'too long'), (64, 'mail4', -5, 'c'),
        (0, 'mail99', -1, 'c'), (99, 'MAIL99', 9, 'c'), (100, 'Mail1', 100, 'c');
    UPDATE core.account SET secret = '{\"cipher\": 1}' WHERE id <= 2;";

pub fn dump(server: &Server, schema: &str, more: &[&str]) -> Vec<String> {
    let output = server
        .installation()
        .command("pg_dump")
        .args(["--schema", schema, "--dbname", &server.url(DATABASE)])
        .args(more)
        .output()
        .expect("pg_dump runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let noise = |line: &&str| line.is_empty() || line.starts_with("--") || line.starts_with('\\');
    text.lines()
        .filter(|line| !noise(line))
        .map(str::to_owned)
        .collect()
}

/// The platform's schemas as pg_dump sees them, without rows.
pub fn managed(server: &Server) -> Vec<Vec<String>> {
    let there = SCHEMAS.iter().filter(|schema| {
        let ask = format!("SELECT count(*) FROM pg_namespace WHERE nspname = '{schema}'");
        server.psql(DATABASE, &ask).expect("the server answers") == "1"
    });
    there
        .map(|schema| dump(server, schema, &["--schema-only"]))
        .collect()
}

/// Of each schema: see [`supabase::added`].
#[track_caller]
fn added(before: &[Vec<String>], after: &[Vec<String>]) -> Vec<String> {
    assert_eq!(before.len(), after.len(), "a schema came or went");
    let schemas = before.iter().zip(after);
    schemas
        .flat_map(|(before, after)| supabase::added(before, after))
        .collect()
}

pub fn target(pair: &Pair, query: &str) -> String {
    pair.at_target(query).expect("the target answers")
}

#[test]
fn what_would_be_lost_stops_the_migration_before_anything_is_changed() {
    let pair = pair(NEWER, OLDER);
    pair.at_source(ONLY_NEWER).expect("rows of the newer level");
    let before = (
        managed(&pair.target),
        target(&pair, "SELECT count(*) FROM pg_class"),
    );
    let told = |command: &str| {
        pair.pgconvoy(&[command])
            .expect("it runs")
            .expect(4)
            .says("both ends are harbour")
            .says("[skew-column] core.account.nick: 40 rows hold something in it")
            .says("[skew-column] core.account.locale: 3 rows")
            .says("[skew-labels] core.factor_of.kind: 20 rows have a label")
            .says("[skew-null] core.factor_of.seen: 4 rows have none")
            .says("[skew-table] core.passkey: 9 rows, and the target has no such table")
            .says("BLOCKER [skew-unique] core.contact: contact_mail: 5 rows have a key that another row has as well")
            .says("BLOCKER [skew-check] core.contact: grown: 4 rows do not fulfil this constraint")
            .says("BLOCKER [skew-check] core.contact: code_short: 1 rows do not fulfil")
            .says("WARNING [skew-unknown] core.contact: reachable: the target alone has this constraint")
            .says("[skew-type] files.item.size: 200 rows")
            .says("[skew-type] core.account.phone: 500 rows")
            .says("upgrade the target's core (container harbour-core) first (core.levels.level: 9 at the source, 7 at the target)")
            .says("WARNING [skew-column] core.log.origin: 30 rows")
            .says("info [managed-skew] column files.item.size: it differs in type, as the levels of the service do (10 at the source, 2 at the target)")
            .says("[encrypted-values] core.account.secret: 2 values")
            .says("[sealed-values] core.sealed: 2 of them: they need the root key")
            .says("[fixed-values] clock.job.active: 1 rows")
            .says("UPDATE clock.job SET active = true WHERE jobid IN (1)")
            .says("core.flow (7 rows)");
    };
    told("plan");
    told("preflight");
    told("migrate");
    let after = (
        managed(&pair.target),
        target(&pair, "SELECT count(*) FROM pg_class"),
    );
    assert_eq!(before, after, "something was changed");
}

/// What arrives whatever the two levels are.
pub fn assert_arrived(pair: &Pair) {
    let same = |query: &str| {
        let source = pair.at_source(query).expect("the source answers");
        assert_eq!(target(pair, query), source, "{query}");
        assert!(!source.is_empty(), "{query}");
    };
    for query in [
        "SELECT id, mail, secret, touched, known, created_at FROM core.account ORDER BY 1",
        "SELECT id, value, account FROM core.token ORDER BY 1",
        "SELECT last_value, is_called FROM core.token_id_seq",
        "SELECT last_value, is_called FROM clock.jobid_seq",
        "SELECT id, box, name FROM files.item ORDER BY 1",
        "SELECT * FROM files.box ORDER BY 1",
        "SELECT * FROM files.extra ORDER BY 1",
        "SELECT * FROM shop.profile ORDER BY 1",
        "SELECT * FROM shop.orders ORDER BY 1",
        "SELECT jobid, command FROM clock.job ORDER BY 1",
        // Objects of the user's, by the catalog.
        "SELECT polname, polrelid::regclass, polcmd, ARRAY(SELECT r::regrole::text FROM unnest(polroles) r ORDER BY 1), pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)
         FROM pg_policy WHERE polname NOT IN ('platform_reads', 'mine') ORDER BY 1",
        "SELECT tgname, pg_get_triggerdef(oid), tgenabled, obj_description(oid, 'pg_trigger') FROM pg_trigger
         WHERE tgname IN ('on_account', 'web_hook') ORDER BY 1",
        "SELECT p.oid::regprocedure::text, pg_get_functiondef(p.oid), proowner::regrole, ARRAY(SELECT a::text FROM unnest(proacl) a ORDER BY 1), obj_description(p.oid, 'pg_proc') FROM pg_proc p
         WHERE proname IN ('is_seller', 'welcome') ORDER BY 1",
        "SELECT c.oid::regclass::text, relowner::regrole, ARRAY(SELECT replace(a::text, 'xtm/', 'xt/') FROM unnest(relacl) a ORDER BY 1), relrowsecurity, relreplident FROM pg_class c
         WHERE relname IN ('extra', 'open_boxes', 'orders', 'profile') ORDER BY 1",
        "SELECT pubname, schemaname, tablename FROM pg_publication_tables ORDER BY 1, 2, 3",
        "SELECT conname, convalidated FROM pg_constraint WHERE connamespace = 'shop'::regnamespace ORDER BY 1",
        "SELECT rolname FROM pg_roles WHERE rolname IN ('seller', 'clerk') ORDER BY 1",
        "SELECT pg_has_role('guest', 'seller', 'MEMBER')",
        "SELECT defaclrole::regrole, defaclnamespace::regnamespace, defaclobjtype, ARRAY(SELECT replace(a::text, 'xtm/', 'xt/') FROM unnest(defaclacl) a WHERE a::text NOT LIKE 'harbour_live=%' ORDER BY 1)
         FROM pg_default_acl ORDER BY 1, 2, 3",
    ] {
        same(query);
    }
    assert_eq!(
        target(pair, "SELECT count(*) FROM clock.job WHERE active"),
        "0"
    );
    assert_eq!(
        target(pair, "SELECT sum(greeted) FROM shop.profile"),
        "0",
        "the user's trigger has fired"
    );
    for empty in ["core.flow", "core.sealed"] {
        assert_eq!(
            count(pair, &format!("SELECT count(*) FROM {empty}")),
            0,
            "{empty}"
        );
    }
}

#[test]
fn to_an_older_level_everything_arrives_that_both_can_hold_and_the_rest_is_counted() {
    let pair = pair(NEWER, OLDER);
    pair.at_source(ONLY_NEWER).expect("rows of the newer level");
    pair.at_source("CREATE POLICY mine ON live.message FOR SELECT TO member USING (true)")
        .expect("a policy on a table that the target lacks");
    let before = managed(&pair.target);
    pair.migrate(&["--force"])
        .says("managed-table-missing")
        .says("WARNING [skew-table] core.passkey: 9 rows")
        .says("managed-orphans")
        .says("20 rows refer to rows of core.factor_of that were left out")
        .says("[ ] the harbour's lights (2 boxes)");
    assert_arrived(&pair);

    let lost = [
        ("SELECT count(*) FROM core.factor_of", 60),
        ("SELECT count(*) FROM core.claim", 80),
        ("SELECT count(*) FROM core.device", 6),
        ("SELECT count(*) FROM core.account WHERE phone IS NULL", 500),
        ("SELECT count(*) FROM core.log", 30),
        // The first of each key that nothing else refuses.
        ("SELECT count(*) FROM core.contact", 52),
        (
            "SELECT count(*) FROM core.contact WHERE id BETWEEN 1 AND 50 OR id IN (99, 100)",
            52,
        ),
    ];
    for (query, rows) in lost {
        assert_eq!(count(&pair, query), rows, "{query}");
    }
    // What the older level computes from its rows.
    let derived = "SELECT count(*) FILTER (WHERE level = 3), count(*) FROM files.item";
    assert_eq!(target(&pair, derived), "200|200");
    assert_eq!(
        target(&pair, "SELECT count(*), min(name) FROM files.prefix"),
        "10|dir0/deep"
    );

    let more = added(&before, &managed(&pair.target));
    let users = [
        "is_seller",
        "extra",
        "open_boxes",
        "on_account",
        "web_hook",
        "Sellers read",
        "uploads",
        "LANGUAGE sql",
        "AS $$",
        "id integer",
        "item integer",
        "label text",
        ");",
        "AS integer",
        "START WITH",
        "INCREMENT BY",
        "NO MINVALUE",
        "NO MAXVALUE",
        "CACHE 1;",
        "SELECT",
        "FROM files.box",
        "WHERE",
        "REFERENCES",
        "ADD CONSTRAINT",
    ];
    for line in &more {
        assert!(
            users.iter().any(|word| line.contains(word)),
            "who has made this: {line}"
        );
    }
    for is_not in [
        "platform_reads",
        "account_nick",
        "users_index",
        "protect",
        "passkey",
    ] {
        assert!(
            !more.iter().any(|line| line.contains(is_not)),
            "{is_not} was carried"
        );
    }
    assert_eq!(
        target(
            &pair,
            "SELECT count(*) FROM pg_roles WHERE rolname = 'harbour_live'"
        ),
        "0"
    );

    // A second run has nothing to do.
    pair.migrate(&["--force", "--dry-run"]);
    pair.pgconvoy(&["migrate"])
        .expect("it runs")
        .expect(0)
        .says("it is finished");
    pair.pgconvoy(&["verify", "--detailed"])
        .expect("verify runs")
        .expect(0);
    pair.pgconvoy(&["verify", "--critical-only"])
        .expect("verify runs")
        .expect(0);
    pair.pgconvoy(&["sync"])
        .expect("sync runs")
        .expect(0)
        .says("0 rows inserted, 0 changed, 0 deleted");
}

/// Servers of two majors, and services of two levels.
fn moves(source: u32, target: u32) {
    let Some(options) = majors::options(source, target) else {
        return;
    };
    let pair = pair_of(options, NEWER, OLDER);
    pair.at_source(ONLY_NEWER).expect("rows of the newer level");
    let before = managed(&pair.target);
    pair.migrate(&["--profile", "harbour", "--force"])
        .says("WARNING [skew-unique] core.contact: contact_mail: 5 rows");
    assert_arrived(&pair);
    assert_eq!(count(&pair, "SELECT count(*) FROM core.contact"), 52);
    pair.pgconvoy(&["verify"]).expect("verify runs").expect(0);
    pair.pgconvoy(&["rollback"])
        .expect("rollback runs")
        .expect(0);
    assert_eq!(before, managed(&pair.target));
}

#[test]
fn from_15_to_17_with_another_level() {
    moves(15, 17);
}

#[test]
fn from_16_to_14_with_another_level() {
    moves(16, 14);
}

#[test]
fn to_a_newer_level_rows_arrive_and_its_own_columns_have_their_defaults() {
    let pair = pair(OLDER, NEWER);
    let before = managed(&pair.target);
    // The older level's own, computed from its rows: no loss.
    pair.at_source(
        "SET session_replication_role = replica; UPDATE files.item SET level = 3;
         INSERT INTO files.prefix SELECT DISTINCT box, files.prefix_of(name) FROM files.item",
    )
    .expect("what the level computes");
    pair.migrate(&[]);
    assert_arrived(&pair);
    assert_eq!(
        target(
            &pair,
            "SELECT count(*) FROM core.account WHERE locale = 'en' AND nick IS NULL"
        ),
        "500"
    );
    assert_eq!(
        target(
            &pair,
            "SELECT count(*) FROM core.account WHERE phone LIKE '+%'"
        ),
        "500"
    );
    let more = added(&before, &managed(&pair.target));
    assert!(
        !more
            .iter()
            .any(|line| line.contains("keep_prefix") || line.contains("account_note"))
    );
    assert_eq!(
        target(
            &pair,
            "SELECT tgenabled FROM pg_trigger WHERE tgname = 'protect'"
        ),
        "A"
    );
    pair.pgconvoy(&["verify"]).expect("verify runs").expect(0);

    // Deletes against a protected table, and rows that a level has no place for.
    pair.at_source(
        "SET session_replication_role = replica; DELETE FROM files.extra; DELETE FROM files.item WHERE id <= 20;
         UPDATE core.account SET mail = 'new@example.org' WHERE id = 7",
    )
    .expect("changes at the source");
    pair.pgconvoy(&["sync"]).expect("sync runs").expect(0);
    assert_eq!(count(&pair, "SELECT count(*) FROM files.item"), 180);
    pair.at_source("SET session_replication_role = replica; UPDATE core.account SET note = 'x' WHERE id < 5; INSERT INTO core.device VALUES (1)")
        .expect("rows that the newer level has no place for");
    pair.pgconvoy(&["sync"])
        .expect("sync runs")
        .expect(4)
        .says("[skew-column] core.account.note: 4 rows")
        .says("[skew-required] core.device: 1 rows have no place at the target: its column kind must be given");
    // Which is nothing to another table; and told again of all.
    for (table, ends) in [("shop.orders", 0), ("core.account", 4)] {
        pair.pgconvoy(&["sync", "--table", table])
            .expect("sync runs")
            .expect(ends);
    }
    pair.pgconvoy(&["sync"]).expect("sync runs").expect(4);
    pair.pgconvoy(&["sync", "--force"])
        .expect("sync runs")
        .expect(0);
    pair.pgconvoy(&["verify"]).expect("verify runs").expect(0);
}

#[test]
fn what_only_the_older_level_has_stops_a_migration_too() {
    let pair = pair(OLDER, NEWER);
    pair.at_source("SET session_replication_role = replica; UPDATE core.account SET note = 'x' WHERE id < 5; INSERT INTO core.device VALUES (1)")
        .expect("rows of the older level");
    pair.pgconvoy(&["migrate"])
        .expect("it runs")
        .expect(4)
        .says("[skew-column] core.account.note: 4 rows")
        .says("both ends' core (container harbour-core)")
        .says("[skew-required] core.device: 1 rows");
    let left_out = pair.pgconvoy(&["plan", "--exclude-schema", "core"]);
    let told = left_out.expect("plan runs").text();
    assert!(
        !told.contains("skew-column") && !told.contains("skew-required"),
        "{told}"
    );
    pair.migrate(&["--force"]);
    assert_arrived(&pair);
    assert_eq!(count(&pair, "SELECT count(*) FROM core.device"), 0);
}

#[test]
fn which_platform_it_is_can_be_said_and_is_said_wrongly_with_one_clear_error() {
    let pair = pair(OLDER, OLDER);
    pair.pgconvoy(&["plan", "--profile", "plain"])
        .expect("plan runs")
        .expect(4)
        .says("target-not-empty");
    pair.pgconvoy(&["plan", "--profile", "harbour"])
        .expect("plan runs")
        .expect(0)
        .says("both ends are harbour");
    pair.pgconvoy(&["plan", "--profile", "supabase"])
        .expect("plan runs")
        .expect(4)
        .says("[platform-absent] supabase: the source is not supabase: it lacks table auth.users");
    pair.pgconvoy(&["plan", "--profile", "nothing"])
        .expect("plan runs")
        .expect(2)
        .says("auto, plain, harbour, supabase");
    let config = pair.folder().join("pgconvoy.toml");
    let refused = |text: &str, says: &str| {
        fs::write(&config, text).expect("the settings file");
        pair.pgconvoy(&["plan"])
            .expect("plan runs")
            .expect(2)
            .says(says);
    };
    refused(
        "[platform]\nname = \"x\"\n",
        "[platform]: managed-schemas is empty",
    );
    refused(
        "[platform]\nname = \"x\"\nmanaged-schemas = [\"a\"]\nowner = 1\n",
        "unknown field `owner`",
    );
    refused(
        "[platform]\nname = \"x\"\nmanaged-schemas = [\"a[\"]\n",
        "a[",
    );
    // Without a platform of this name the schemas are the user's own.
    fs::write(&config, "").expect("the settings file");
    pair.pgconvoy(&["plan"])
        .expect("plan runs")
        .expect(4)
        .says("target-not-empty");
}

//! Backups of the target, and a target that is replaced: what was there comes back, by pg_dump of it before and after.
use std::path::PathBuf;

use pgconvoy_tests::demo::SAMPLE;
use pgconvoy_tests::pair::Options;
use pgconvoy_tests::program::{Outcome, Running, fake};
use pgconvoy_tests::{PATIENCE, Pair};

use crate::depot::{self, Halfway};
use crate::rollback::{assert_same, kill_rollback_behind_a_reader, target_dump};

pub const NASTY: &str = include_str!("nasty.sql");
pub const MORE: &str = "
    CREATE EXTENSION citext; CREATE TABLE worded (w citext PRIMARY KEY); INSERT INTO worded VALUES ('Some');
    CREATE ROLE keeper; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO keeper; GRANT SELECT ON worded TO keeper;
    COMMENT ON SCHEMA public IS 'of the target'; ALTER DATABASE app SET work_mem = '7MB';
    SELECT lo_from_bytea(4711, 'large')";

/// The target has a bit of everything of its own, the source the depot.
fn both_in_use() -> Pair {
    let pair = depot::pair();
    pair.at_target(NASTY).expect("the nasty data");
    pair.at_target(MORE).expect("more of everything");
    pair
}

fn backups(pair: &Pair) -> Vec<PathBuf> {
    let folder = pair.folder().join("target-data/target.backups");
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(_) => return Vec::new(),
    };
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

pub fn back_up(pair: &Pair) -> String {
    let backup = pair
        .pgconvoy(&["backup", "--json"])
        .expect("backup runs")
        .expect(0);
    backup.result()["backup"]
        .as_str()
        .expect("its id")
        .to_owned()
}

#[track_caller]
pub fn proven(pair: &Pair, arguments: &[&str]) -> Outcome {
    let all = [arguments, &["--json"]].concat();
    let outcome = pair.pgconvoy(&all).expect("it runs").expect(0);
    assert_eq!(outcome.result()["verdict"], "proven");
    outcome
}

#[test]
fn a_backup_brings_back_what_was_changed_and_dropped() {
    let pair = both_in_use();
    let before = target_dump(&pair);
    let id = back_up(&pair);
    assert_same(&before, &target_dump(&pair));
    pair.at_target(
        "DROP SCHEMA nasty CASCADE; UPDATE worded SET w = 'other'; SELECT lo_unlink(4711); CREATE TABLE theirs ();
         COMMENT ON SCHEMA public IS 'changed'; REVOKE SELECT ON worded FROM keeper",
    )
    .expect("changes");
    pair.pgconvoy(&["rollback", "--to-backup", &id])
        .expect("rollback runs")
        .expect(1)
        .says("theirs")
        .says("--force");
    let theirs = "SELECT count(*) FROM pg_class WHERE relname IN ('theirs', 'worded')";
    assert_eq!(depot::count(&pair, theirs), 2, "nothing was dropped");
    proven(&pair, &["rollback", "--to-backup", &id, "--force"]);
    assert_same(&before, &target_dump(&pair));
}

#[test]
fn what_a_dump_prints_otherwise_comes_back_and_an_invalid_index_is_no_difference() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source("CREATE TABLE item (id int PRIMARY KEY); INSERT INTO item VALUES (1)")
        .expect("a table");
    // As applications make them, and not as dumps do.
    pair.at_target(
        "CREATE TABLE told (id int PRIMARY KEY, st varchar(10) CHECK (st IN ('a', 'b')), n int CHECK (n BETWEEN 1 AND 5 AND n <> 3));
         CREATE INDEX usual ON told (id) WHERE st IN ('a', 'b');
         CREATE POLICY own ON told USING (st IN ('a', 'b'));
         CREATE VIEW seen AS SELECT id, st IN ('a', 'b') AS is FROM told WHERE n BETWEEN 1 AND 5 AND n <> 3;
         CREATE VIEW named AS SELECT id FROM told WHERE st IN (SELECT 'a' UNION SELECT st FROM told);
         INSERT INTO told VALUES (1, 'a', 2);
         -- The index that comes first is another one after a restore.
         CREATE TABLE keyed (a int NOT NULL, b int NOT NULL); CREATE UNIQUE INDEX z ON keyed (a); CREATE UNIQUE INDEX y ON keyed (b);
         INSERT INTO keyed VALUES (1, 2), (3, 4);
         CREATE INDEX idle ON keyed (a, b); UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idle'::regclass",
    )
    .expect("a target in use");
    let read =
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'told_st_check'";
    let before = pair.at_target(read).expect("a definition");
    pair.migrate(&["--force"]);
    proven(&pair, &["rollback"]).says("index \\\"public\\\".\\\"idle\\\"");
    let after = pair.at_target(read).expect("a definition");
    assert_ne!(before, after, "it reads as it did");
    let rows = "SELECT (SELECT count(*) FROM keyed), (SELECT count(*) FROM seen)";
    assert_eq!(pair.at_target(rows).expect("rows"), "2|1");
    // Made again by a dump, it is made again once more.
    let id = back_up(&pair);
    pair.at_target("DROP VIEW seen").expect("a view less");
    proven(&pair, &["rollback", "--to-backup", &id]);
}

#[test]
fn what_a_backup_cannot_make_again_is_named_and_everything_else_comes_back() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_target(
        "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int CONSTRAINT to_parent REFERENCES parent);
         SET session_replication_role = replica; INSERT INTO child VALUES (1); RESET session_replication_role;
         CREATE POLICY own ON child USING (id > 0); CREATE ROLE looker; GRANT SELECT ON child TO looker;
         CREATE PUBLICATION told FOR TABLE child",
    )
    .expect("a row that its foreign key would not take");
    let mut before = target_dump(&pair);
    let id = back_up(&pair);
    pair.at_target("DROP TABLE child, parent")
        .expect("both are gone");
    pair.pgconvoy(&["rollback", "--to-backup", &id])
        .expect("rollback runs")
        .expect(3)
        .says("to_parent");
    before.retain(|line| !line.contains("to_parent"));
    let after = target_dump(&pair);
    let missing: Vec<&String> = before.difference(&after).collect();
    assert!(
        missing
            .iter()
            .all(|line| line.contains("ALTER TABLE ONLY public.child")),
        "{missing:?}"
    );
}

#[test]
fn a_target_in_use_is_refused_and_forced_is_replaced_and_comes_back() {
    let pair = both_in_use();
    let before = target_dump(&pair);
    pair.pgconvoy(&["migrate"])
        .expect("migrate runs")
        .expect(4)
        .says("nasty")
        .says("--force");
    pair.pgconvoy(&["migrate", "--force", "--include-table", "depot.*"])
        .expect("migrate runs")
        .expect(4)
        .says("not empty");
    assert_same(&before, &target_dump(&pair));
    assert!(backups(&pair).is_empty(), "nothing was to be replaced");

    let migrate = pair
        .pgconvoy(&["migrate", "--force"])
        .expect("migrate runs")
        .says("backup");
    assert!([0, 3].contains(&migrate.code), "{}", migrate.text());
    let rows = "SELECT count(*) FROM depot.big";
    assert_eq!(depot::count(&pair, rows), depot::BIG_ROWS);
    let old = "SELECT count(*) FROM pg_namespace WHERE nspname = 'nasty'";
    assert_eq!(depot::count(&pair, old), 0, "what was there is replaced");
    assert_eq!(backups(&pair).len(), 1);

    // Back from after a sync, too.
    pair.at_source(
        "DELETE FROM depot.keyless; INSERT INTO depot.big (state, load) VALUES ('new', 'late')",
    )
    .expect("the source goes on");
    let sync = pair.pgconvoy(&["sync"]).expect("sync runs");
    assert!([0, 3].contains(&sync.code), "{}", sync.text());
    assert_eq!(depot::count(&pair, rows), depot::BIG_ROWS + 1);
    proven(&pair, &["rollback"]);
    assert_same(&before, &target_dump(&pair));
    assert_eq!(backups(&pair).len(), 1, "the backup stays");

    // And once more: there is no migration to take back, and the backup is restored as often as somebody asks.
    pair.pgconvoy(&["rollback"])
        .expect("rollback runs")
        .expect(1)
        .says("no ledger")
        .says("--to-backup");
    assert_same(&before, &target_dump(&pair));
    let backup = backups(&pair).remove(0);
    let id = backup.file_name().expect("a folder").to_string_lossy();
    proven(&pair, &["rollback", "--to-backup", &id]);
    assert_same(&before, &target_dump(&pair));
}

#[test]
fn a_replacing_migration_that_was_killed_in_the_copy_is_taken_back_and_a_killed_rollback_is_run_again()
 {
    let mut pair = both_in_use();
    let before = target_dump(&pair);
    let Halfway { migrate, trap } = Halfway::in_the_copy_forced(&pair);
    migrate.kill().expect("the coordinator dies");
    trap.open_gate();

    let reader = kill_rollback_behind_a_reader(&mut pair);
    reader.release();
    proven(&pair, &["rollback"]);
    assert_same(&before, &target_dump(&pair));
}

#[test]
fn a_damaged_backup_is_refused_before_anything_is_dropped() {
    let pair = both_in_use();
    let id = back_up(&pair);
    let before = target_dump(&pair);
    let archive = backups(&pair)[0].join("database.dump");
    let mut bytes = std::fs::read(&archive).expect("the archive");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&archive, &bytes).expect("a bit is turned");
    let refused = |bytes: &[u8]| {
        std::fs::write(&archive, bytes).expect("the archive is written");
        pair.pgconvoy(&["rollback", "--to-backup", &id])
            .expect("rollback runs")
            .expect(1)
            .says("damaged")
            .says("nothing was changed");
    };
    refused(&bytes);
    refused(&bytes[..middle]);
    std::fs::remove_file(&archive).expect("the archive is removed");
    pair.pgconvoy(&["rollback", "--to-backup", &id])
        .expect("rollback runs")
        .expect(1);
    pair.pgconvoy(&["rollback", "--to-backup", "no-such"])
        .expect("rollback runs")
        .expect(1)
        .says("no backup no-such");
    assert_same(&before, &target_dump(&pair));
}

#[test]
fn a_backup_that_fails_leaves_nothing_and_stops_the_migration() {
    let tools = tempfile::tempdir().expect("a folder");
    let pair = Pair::with(Options {
        target_pg_bin: Some(tools.path().to_owned()),
        ..Options::default()
    })
    .expect("two servers and two agents");
    let major = pair.target.installation().major;
    for name in ["pg_dump", "pg_restore"] {
        let script = format!(
            r#"case "$1" in --version) echo "{name} (PostgreSQL) {major}.0";; *) echo half; echo "no more" >&2; exit 1;; esac"#
        );
        fake(tools.path(), name, &script).expect("a program");
    }
    pair.at_source(SAMPLE).expect("the sample data");
    pair.at_target("CREATE TABLE mine AS SELECT 1 AS id")
        .expect("a table");
    let before = target_dump(&pair);
    pair.pgconvoy(&["backup"])
        .expect("backup runs")
        .expect(1)
        .says("no more")
        .says("nothing was changed");
    assert!(backups(&pair).is_empty(), "something is left");
    pair.pgconvoy(&["migrate", "--force"])
        .expect("migrate runs")
        .expect(1)
        .says("no more");
    assert!(backups(&pair).is_empty(), "something is left");
    assert_same(&before, &target_dump(&pair));
}

#[test]
fn without_a_backup_what_was_replaced_does_not_come_back_and_that_is_said() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source("CREATE TABLE item (id int PRIMARY KEY)")
        .expect("a table");
    pair.at_target("CREATE TABLE mine AS SELECT 1 AS id")
        .expect("a table");
    pair.pgconvoy(&["migrate", "--no-backup"])
        .expect("migrate runs")
        .expect(2);
    pair.migrate(&["--force", "--no-backup"]);
    assert!(backups(&pair).is_empty(), "there was to be none");
    let with_theirs = target_dump(&pair);
    pair.pgconvoy(&["rollback"])
        .expect("rollback runs")
        .expect(1)
        .says("--no-backup")
        .says("nothing was changed");
    assert_same(&with_theirs, &target_dump(&pair));
}

#[test]
fn the_runbooks_variable_asks_for_a_backup() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source("CREATE TABLE item (id int PRIMARY KEY)")
        .expect("a table");
    let run = |value: &str| {
        let mut command = pair.command(&["migrate"]);
        command.env("BACKUP_BEFORE_IMPORT", value);
        let running = Running::start(command, pair.folder()).expect("migrate starts");
        running.wait(PATIENCE).expect("migrate ends")
    };
    run("perhaps").expect(2).says("BACKUP_BEFORE_IMPORT");
    run("true").expect(0).says("read back");
    assert_eq!(backups(&pair).len(), 1);
    pair.pgconvoy(&["report"])
        .expect("report runs")
        .expect(0)
        .says("XXH3-128");
}

/// Of the target agent's folder, where the backup is written.
#[test]
fn a_full_disk_ends_a_backup_with_one_clear_error_and_changes_nothing() {
    let pair = depot::pair_with(Options {
        target_disk: Some(4 << 20),
        ..Options::default()
    });
    pair.at_target(
        "CREATE TABLE mine AS SELECT i AS id, string_agg(md5(random()::text), '') AS noise
         FROM generate_series(1, 3000) i, generate_series(1, 150) GROUP BY i",
    )
    .expect("a table that does not fit, compressed");
    let before = target_dump(&pair);
    // The agent's own view of it.
    let process = PathBuf::from(format!("/proc/{}/root", pair.target_agent.pid()));
    let folder = pair.folder().join("target-data");
    let folder = process.join(folder.strip_prefix("/").expect("an absolute path"));
    for command in [&["backup"][..], &["migrate", "--force"]] {
        let ended = pair.pgconvoy(command).expect("it runs").expect(1);
        ended.says("No space left on device").says("target-data");
        assert_same(&before, &target_dump(&pair));
        let backups = folder.join("target.backups");
        let left = backups.read_dir().expect("the folder of backups").count();
        assert_eq!(left, 0, "something is left of the backup that failed");
    }
    pair.at_target("DROP TABLE mine").expect("room");
    pair.migrate(&["--backup"]);
}

/// Two migrations in one ledger: the later one is the latest whatever the clock said, and taken back it is not followed by the earlier one.
#[test]
fn a_rollback_run_once_more_does_not_take_the_earlier_migration_back() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source("CREATE TABLE item (id int PRIMARY KEY); INSERT INTO item VALUES (1)")
        .expect("a table");
    let empty = target_dump(&pair);
    pair.migrate(&["--migration", "first"]);
    let before = target_dump(&pair);
    pair.at_source("INSERT INTO item VALUES (2)")
        .expect("the source goes on");
    pair.migrate(&["--migration", "second", "--force"]);
    pair.at_target(
        "UPDATE pgconvoy.migrations SET created_at = now() + '1 hour' WHERE id = 'first'",
    )
    .expect("a clock that was fast");
    let latest = pair.pgconvoy(&["status", "--json"]).expect("status runs");
    assert_eq!(latest.expect(0).result()["migration"], "second");

    proven(&pair, &["rollback"]);
    assert_same(&before, &target_dump(&pair));
    pair.pgconvoy(&["rollback"])
        .expect("rollback runs")
        .expect(1)
        .says("nothing was changed")
        .says("pgconvoy rollback --migration first");
    assert_same(&before, &target_dump(&pair));
    pair.pgconvoy(&["rollback", "--migration", "second"])
        .expect("rollback runs")
        .expect(1)
        .says("no migration second");
    proven(&pair, &["rollback", "--migration", "first"]);
    assert_same(&empty, &target_dump(&pair));
}

//! Rows that users put into an extension's configuration tables cross (pg_extension_config_dump(); PostgreSQL manual, 38.17.4
//! "Extension Configuration Tables"). No extension of PostgreSQL's own has such tables: the test's servers have one of the test's.
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use pgconvoy_tests::demo::installation::Installation;
use pgconvoy_tests::pair::{Options, Pair};
use tempfile::TempDir;

use crate::platform;

const CONTROL: &str = "default_version = '1.0'\nrelocatable = false\nschema = notes\n";

const SCRIPT: &str = "
    CREATE TABLE notes.rule (name text PRIMARY KEY, word text, builtin boolean NOT NULL);
    INSERT INTO notes.rule VALUES ('one', 'first', true), ('two', 'second', true);
    CREATE TABLE notes.everything (id int PRIMARY KEY, t text);
    CREATE TABLE notes.own (id int PRIMARY KEY);
    INSERT INTO notes.own VALUES (1);
    CREATE SEQUENCE notes.number;
    SELECT pg_catalog.pg_extension_config_dump('notes.rule', 'WHERE NOT builtin OR word IS NULL');
    SELECT pg_catalog.pg_extension_config_dump('notes.everything', '');
    SELECT pg_catalog.pg_extension_config_dump('notes.number', '');";

/// As pg_cron: one database of the server alone may have it, and no column owns the sequence of its keys.
const BOUND: &str = "
    DO $$ BEGIN IF current_database() <> 'app' THEN RAISE EXCEPTION 'can only create extension in database app'; END IF; END $$;
    CREATE SEQUENCE core.bound_seq;
    CREATE TABLE core.bound (id bigint PRIMARY KEY DEFAULT nextval('core.bound_seq'), t text);
    SELECT pg_catalog.pg_extension_config_dump('core.bound', '');
    SELECT pg_catalog.pg_extension_config_dump('core.bound_seq', '');";

/// The newest PostgreSQL of the machine, at another place: it finds its share folder relative to its programs
/// (src/port/path.c, make_relative_path), and that one has an extension more.
fn with_extension(root: &Path) -> Result<PathBuf> {
    let bin = Installation::find(None)?.bin;
    let share = asked(&bin, "--sharedir")?;
    let libraries = asked(&bin, "--pkglibdir")?;
    let place = |path: &Path| -> Result<PathBuf> { Ok(root.join(path.strip_prefix("/")?)) };
    let (new_bin, new_share, new_libraries) = (place(&bin)?, place(&share)?, place(&libraries)?);

    fs::create_dir_all(&new_bin)?;
    for program in fs::read_dir(&bin)? {
        let program = program?.path();
        fs::copy(
            &program,
            new_bin.join(program.file_name().context("a name")?),
        )?;
    }
    fs::create_dir_all(new_libraries.parent().context("a parent")?)?;
    symlink(&libraries, &new_libraries)?;
    let extensions = new_share.join("extension");
    fs::create_dir_all(&extensions)?;
    for (from, to) in [
        (share.clone(), &new_share),
        (share.join("extension"), &extensions),
    ] {
        for entry in fs::read_dir(from)? {
            let entry = entry?.path();
            let link = to.join(entry.file_name().context("a name")?);
            if link != extensions {
                symlink(&entry, link)?;
            }
        }
    }
    fs::write(extensions.join("notes.control"), CONTROL)?;
    fs::write(extensions.join("notes--1.0.sql"), SCRIPT)?;
    fs::write(
        extensions.join("bound.control"),
        "default_version = '1.0'\nschema = pg_catalog\n",
    )?;
    fs::write(extensions.join("bound--1.0.sql"), BOUND)?;
    Ok(new_bin)
}

fn options(root: &TempDir) -> Options {
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(root.path(), open).expect("a folder for the servers' user");
    let bin = with_extension(root.path()).expect("an installation of our own");
    Options {
        source_bin: Some(bin.clone()),
        target_bin: Some(bin),
        ..Options::default()
    }
}

#[test]
fn a_platform_with_extensions_is_rehearsed_and_numbers_of_their_tables_go_on() {
    let root = TempDir::new().expect("a folder");
    let pair = platform::pair_of(options(&root), platform::OLDER, platform::OLDER);
    pair.at_source(
        "CREATE EXTENSION bound; INSERT INTO core.bound (t) SELECT 'x' FROM generate_series(1, 9)",
    )
    .expect("an extension that one database alone may have");
    pair.at_target(
        "CREATE EXTENSION citext SCHEMA files; ALTER TABLE files.levels ADD note files.citext;
         CREATE ROLE steward; ALTER DEFAULT PRIVILEGES FOR ROLE steward GRANT SELECT ON TABLES TO guest",
    )
    .expect("a table of the platform's that needs an extension");
    let rehearse = || {
        pair.pgconvoy(&["rehearse"])
            .expect("rehearse runs")
            .expect(0)
            .says("WARNING [not-rehearsed] extension bound: the scratch database cannot have it: can only create extension in database app");
    };
    rehearse();
    pair.migrate(&[]);
    // Now the target has it too.
    rehearse();
    for sql in [
        "SELECT count(*), max(id) FROM core.bound",
        "SELECT last_value, is_called FROM core.bound_seq",
    ] {
        let source = pair.at_source(sql).expect("the source");
        assert_eq!(pair.at_target(sql).expect("the target"), source, "{sql}");
    }
}

fn asked(bin: &Path, what: &str) -> Result<PathBuf> {
    let output = Command::new(bin.join("pg_config")).arg(what).output()?;
    ensure!(output.status.success(), "pg_config {what} failed");
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

#[test]
fn rows_of_an_extensions_configuration_tables_cross() {
    let root = TempDir::new().expect("a folder");
    let pair = Pair::with(options(&root)).expect("two servers and two agents");
    pair.at_source(
        "CREATE SCHEMA notes;
         CREATE EXTENSION notes;
         INSERT INTO notes.rule VALUES ('three', 'third', false), ('four', NULL, true);
         INSERT INTO notes.everything SELECT i, 't' || i FROM generate_series(1, 500) i;
         INSERT INTO notes.own VALUES (2);
         SELECT setval('notes.number', 77);
         CREATE TABLE public.user (name text REFERENCES notes.rule);
         INSERT INTO public.user VALUES ('three'), ('one');",
    )
    .expect("an extension in use");
    pair.migrate(&[]);
    for sql in [
        "SELECT * FROM notes.rule ORDER BY name",
        "SELECT count(*), min(t), max(t) FROM notes.everything",
        "SELECT last_value, is_called FROM notes.number",
        "SELECT name FROM public.user ORDER BY 1",
    ] {
        let source = pair.at_source(sql).expect("the source");
        assert_eq!(pair.at_target(sql).expect("the target"), source, "{sql}");
    }
    // It has its keys before its rows: a copy that is resumed goes by that.
    let known = "SELECT count(*) FROM pgconvoy.tables WHERE (plan ->> 'of_extension')::boolean";
    assert_eq!(pair.at_target(known).expect("the ledger"), "2");
    // What the extension keeps to itself is not a user's.
    let own = pair.at_target("SELECT id FROM notes.own").expect("rows");
    assert_eq!(own, "1");
    pair.pgconvoy(&["verify"]).expect("verify runs").expect(0);
    pair.at_target("UPDATE notes.rule SET word = 'other' WHERE name = 'three'")
        .expect("a change");
    pair.pgconvoy(&["verify"])
        .expect("verify runs")
        .expect(3)
        .says("notes.rule");
    // A table that the extension was given at run time: no dump has it.
    pair.at_source(
        "CREATE TABLE notes.queue (id int); INSERT INTO notes.queue VALUES (1);
         ALTER EXTENSION notes ADD TABLE notes.queue;
         CREATE INDEX by_word ON notes.rule (word);
         CREATE TRIGGER hook BEFORE UPDATE ON notes.everything FOR EACH ROW EXECUTE FUNCTION tsvector_update_trigger('hook-secret', 'simple');",
    )
    .expect("a member");
    pair.pgconvoy(&["preflight"])
        .expect("preflight runs")
        .says("extension-table")
        .says("ALTER EXTENSION notes DROP TABLE notes.queue");
    let differs = pair
        .pgconvoy(&["verify"])
        .expect("verify runs")
        .expect(3)
        .says("object-missing")
        .says("table notes.queue")
        .says("index notes.by_word")
        .says("CREATE INDEX by_word ON notes.rule")
        .says("CREATE TRIGGER hook ON notes.everything (its arguments are not told)")
        .says("3 differences");
    // A webhook's arguments hold a key.
    let events = fs::read_to_string(pair.latest_run().join("events.jsonl")).expect("events");
    let ledger = pair.at_target("SELECT * FROM pgconvoy.findings");
    for told in [differs.text(), events, ledger.expect("the ledger")] {
        assert!(!told.contains("hook-secret"), "{told}");
    }
}

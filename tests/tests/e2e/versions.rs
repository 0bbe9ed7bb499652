//! From every major to every other: a database with a bit of everything arrives as PostgreSQL's own tools would have moved it.
//!
//! Some pairs run always, all of them with PGCONVOY_TEST_MATRIX=all. The servers come from scripts/majors.sh; a pair whose servers
//! are not there is left out aloud.
use std::panic::catch_unwind;

use pgconvoy_tests::corpus::load_sample;
use pgconvoy_tests::majors::{self, MAJORS};
use pgconvoy_tests::pair::{DATABASE, Options};
use pgconvoy_tests::{Pair, say_aloud};

const SQL: &str = include_str!("nasty.sql");

/// What an archive's script has in another order, and what looks like its comments.
const MORE: &str = "
    CREATE EXTENSION hstore SCHEMA nasty;
    CREATE EXTENSION pgcrypto;
    CREATE TABLE nasty.tags (id int PRIMARY KEY, tags nasty.hstore, price money DEFAULT 12.5::money);
    INSERT INTO nasty.tags VALUES (1, 'a=>1,b=>NULL'), (2, '');
    CREATE INDEX tags_gin ON nasty.tags USING gin (tags nasty.gin_hstore_ops);
    ALTER DEFAULT PRIVILEGES IN SCHEMA nasty GRANT SELECT ON TABLES TO PUBLIC;
    COMMENT ON EVENT TRIGGER watch_ddl IS 'it does nothing';
    CREATE FUNCTION nasty.look_alike() RETURNS text LANGUAGE sql AS $x$ SELECT '
--
-- TOC entry 1 (class 1 OID 1)
--
\\unrestrict me
SET default_table_access_method = heap;
--
'::text $x$;
    -- Names and types that majors spell differently: whose is whose must be seen all the same.
    CREATE TABLE nasty.json (json json, json_table int PRIMARY KEY);
    INSERT INTO nasty.json VALUES ('{}', 1);
    CREATE TABLE nasty.json_array (up int REFERENCES nasty.json (json_table));
    GRANT SELECT, INSERT ON nasty.json TO PUBLIC;
    CREATE FUNCTION nasty.of_json(json, json[]) RETURNS json LANGUAGE sql AS 'SELECT $1';
    CREATE FUNCTION nasty.json_value(nasty.json) RETURNS json LANGUAGE sql AS 'SELECT $1.json';
    REVOKE ALL ON FUNCTION nasty.of_json(json, json[]) FROM PUBLIC;
    REVOKE ALL ON FUNCTION nasty.json_value(nasty.json) FROM PUBLIC;
    SELECT lo_from_bytea(4242, decode(repeat('c0ffee', 300000), 'hex'));
    CREATE VIEW nasty.late AS SELECT id, kind, count(*) FROM nasty.parent GROUP BY id;";

/// Migrates between servers of these majors and judges what arrived.
fn moves(source: u32, target: u32) {
    let Some(options) = majors::options(source, target) else {
        return;
    };
    let pair = Pair::with(options).expect("two servers and two agents");
    pair.at_source(SQL).expect("a bit of everything");
    pair.at_source(MORE).expect("and a bit more");
    if source == 14 && target == 14 {
        // pg_dump 15 and newer write what no server of 14 knows; clients of 14 are not there.
        pair.at_source("ALTER TABLE nasty.unlogged ALTER id DROP IDENTITY")
            .expect("an unlogged table without an identity");
    }
    pair.migrate(&[]);
    pair.pgconvoy(&["verify"]).expect("verify runs").expect(0);
    pair.assert_equal_ends();
}

#[test]
fn from_15_to_17() {
    moves(15, 17);
}

#[test]
fn from_15_to_18() {
    moves(15, 18);
}

/// What servers keep in words of their own.
const SPELLED: &str = "
    CREATE COLLATION german (provider = icu, locale = 'de_DE');
    CREATE COLLATION phone (provider = icu, locale = 'de@collation=phonebook');
    CREATE COLLATION digits (provider = icu, locale = 'en_US@colNumeric=yes', deterministic = false);
    CREATE UNLOGGED TABLE scratch (id int GENERATED ALWAYS AS IDENTITY);";
/// What servers print in words of their own, which those before 16 do not take from later ones.
const PRINTED: &str = "
    CREATE TABLE document (id int PRIMARY KEY, a xml, b text GENERATED ALWAYS AS (XMLSERIALIZE(CONTENT a AS text)) STORED,
                           CHECK (length(XMLSERIALIZE(CONTENT a AS text)) > 1));
    INSERT INTO document (id, a) VALUES (1, '<a/>');";

#[test]
fn what_majors_spell_differently_is_the_same() {
    for (source, target, more) in [(15, 18, PRINTED), (18, 14, "")] {
        let Some(options) = majors::options(source, target) else {
            continue;
        };
        let pair = Pair::with(options).expect("two servers and two agents");
        pair.at_source(SPELLED).expect("collations");
        pair.at_source(more).expect("expressions");
        pair.migrate(&[]);
        let verify = || pair.pgconvoy(&["verify"]).expect("verify runs");
        verify().expect(0);
        pair.at_target(
            "DROP COLLATION phone; CREATE COLLATION phone (provider = icu, locale = 'de-u-co-standard')",
        )
        .expect("another collation");
        verify()
            .expect(3)
            .says("collation public.phone")
            .says("1 differences");
    }
}

#[test]
fn from_14_to_18() {
    moves(14, 18);
}

#[test]
fn from_17_to_15() {
    moves(17, 15);
}

/// The archive's text is UTF-8, whatever the source is encoded in.
#[test]
fn from_a_latin1_database_of_17_to_15() {
    let Some(options) = majors::options(17, 15) else {
        return;
    };
    let latin1 = |pair: &Pair| {
        pair.source.psql(
            "postgres",
            "DROP DATABASE app; CREATE DATABASE app TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'",
        )?;
        Ok(())
    };
    let pair = Pair::with(Options {
        before_agents: Some(latin1),
        ..options
    })
    .expect("two servers and two agents");
    pair.at_source(
        "SET client_encoding = 'UTF8';
         CREATE TABLE \"Straße\" (id int PRIMARY KEY, name text DEFAULT 'Zoë');
         COMMENT ON TABLE \"Straße\" IS 'ÄÖÜ';
         INSERT INTO \"Straße\" SELECT i, 'Größe ' || i FROM generate_series(1, 100) i;",
    )
    .expect("a table with names beyond ASCII");
    pair.migrate(&[]);
    let target = |sql: &str| pair.at_target(sql).expect("the target answers");
    assert_eq!(
        target("SELECT obj_description('\"Straße\"'::regclass)"),
        "ÄÖÜ"
    );
    assert_eq!(
        target("SELECT count(*) FROM \"Straße\" WHERE name LIKE 'Größe%'"),
        "100"
    );
    assert_eq!(
        target("INSERT INTO \"Straße\" (id) VALUES (0) RETURNING name"),
        "Zoë"
    );
}

/// Whether more than the usual pairs is asked for; else says what is left out.
fn all_are_asked_for(what: &str) -> bool {
    let asked = std::env::var_os("PGCONVOY_TEST_MATRIX").is_some_and(|asked| asked == "all");
    if !asked {
        say_aloud(&format!(
            "{what} are left out: PGCONVOY_TEST_MATRIX=all runs them"
        ));
    }
    asked
}

#[test]
fn samples_to_a_newer_and_to_an_older_server() {
    if !all_are_asked_for("samples across majors") {
        return;
    }
    for (source, target) in [(15, 18), (18, 15)] {
        for sample in ["pagila", "chinook", "northwind", "iso3166"] {
            let Some(options) = majors::options(source, target) else {
                continue;
            };
            let pair = Pair::with(options).expect("two servers and two agents");
            if load_sample(&pair.source, DATABASE, sample).expect("the sample loads") {
                pair.migrate(&[]);
                pair.assert_equal_ends();
            }
        }
    }
}

#[test]
fn every_pair_of_majors() {
    if !all_are_asked_for("the other pairs of majors") {
        return;
    }
    let pairs = MAJORS.flat_map(|source| MAJORS.map(move |target| (source, target)));
    let failed: Vec<(u32, u32)> = pairs
        .filter(|(source, target)| {
            say_aloud(&format!("PostgreSQL {source} to {target}"));
            catch_unwind(|| moves(*source, *target)).is_err()
        })
        .collect();
    assert!(failed.is_empty(), "not from and to: {failed:?}");
}

#[test]
fn rows_of_a_temporal_key_refer_to_what_they_lie_within() {
    let Some(options) = majors::options(18, 18) else {
        return;
    };
    let pair = Pair::with(options).expect("two servers and two agents");
    pair.at_source(
        "CREATE FUNCTION greet() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
         CREATE EVENT TRIGGER greeted ON login EXECUTE FUNCTION greet();
         CREATE TABLE price (id int4range, valid daterange, PRIMARY KEY (id, valid WITHOUT OVERLAPS));
         INSERT INTO price VALUES ('[1,1]', '[2026-01-01,2026-02-01)'), ('[1,1]', '[2026-02-01,2026-03-01)');
         CREATE TABLE sale (id int4range, valid daterange, FOREIGN KEY (id, PERIOD valid) REFERENCES price (id, PERIOD valid));
         INSERT INTO sale VALUES ('[1,1]', '[2026-01-15,2026-02-15)');",
    )
    .expect("a temporal key");
    pair.at_source(
        "CREATE TABLE old (a int NOT NULL, b int CONSTRAINT must NOT NULL); ALTER TABLE old RENAME TO renamed;
         CREATE TABLE heir () INHERITS (renamed); CREATE TABLE whole (k int NOT NULL) PARTITION BY LIST (k);
         CREATE TABLE piece PARTITION OF whole DEFAULT; CREATE TABLE later (n int);
         ALTER TABLE later ADD CONSTRAINT at_last NOT NULL n NOT VALID;",
    )
    .expect("names of NOT NULL constraints");
    pair.migrate(&[]).says("login-triggers").says("greeted");
    let whole = || pair.pgconvoy(&["verify"]).expect("verify runs");
    whole().expect(0);
    let rename = |from: &str, to: &str| {
        pair.at_target(&format!(
            "ALTER TABLE renamed RENAME CONSTRAINT {from} TO {to}"
        ))
        .expect("another name")
    };
    rename("must", "should");
    whole()
        .expect(3)
        .says("column public.renamed.b")
        .says("1 differences")
        .says("not null constraint: should");
    rename("should", "must");
    let verify = || {
        pair.pgconvoy(&["verify", "--critical-only"])
            .expect("verify runs")
    };
    verify().expect(0);
    let orphan = "SET session_replication_role = replica;
                  INSERT INTO sale VALUES ('[1,1]', '[2026-02-15,2026-03-15)')";
    pair.at_source(orphan).expect("an orphan");
    pair.at_target(orphan).expect("an orphan");
    verify().expect(3).says("1 rows refer to nothing");
}

//! From every major to every other: a database with a bit of everything arrives as PostgreSQL's own tools would have moved it.
//!
//! Some pairs run always, all of them with PGCONVOY_TEST_MATRIX=all. The servers come from scripts/majors.sh; a pair whose servers
//! are not there is left out aloud.
use std::panic::catch_unwind;

use pgconvoy_tests::majors::{self, MAJORS};
use pgconvoy_tests::oracle::assert_as_pg_dump_makes_it;
use pgconvoy_tests::{Pair, say_aloud};

const SQL: &str = include_str!("nasty.sql");

/// Migrates between servers of these majors and judges what arrived.
fn moves(source: u32, target: u32) {
    let Some(options) = majors::options(source, target) else {
        return;
    };
    let pair = Pair::with(options).expect("two servers and two agents");
    pair.at_source(SQL).expect("a bit of everything");
    if source == 14 && target == 14 {
        // pg_dump 15 and newer write what no server of 14 knows; clients of 14 are not there.
        pair.at_source("ALTER TABLE nasty.unlogged ALTER id DROP IDENTITY")
            .expect("an unlogged table without an identity");
    }
    pair.migrate(&[]);
    pair.pgconvoy(&["verify"]).expect("verify runs").expect(0);
    match majors::newest_clients() {
        Some(clients) => assert_as_pg_dump_makes_it(&pair.source, &pair.target, &clients),
        None => say_aloud("the newest clients are not there: left out pg_dump as the judge"),
    }
}

#[test]
fn from_15_to_17() {
    moves(15, 17);
}

#[test]
fn from_15_to_18() {
    moves(15, 18);
}

#[test]
fn from_14_to_18() {
    moves(14, 18);
}

#[test]
fn from_17_to_15() {
    moves(17, 15);
}

#[test]
fn every_pair_of_majors() {
    if std::env::var_os("PGCONVOY_TEST_MATRIX").is_none_or(|asked| asked != "all") {
        say_aloud("the other pairs of majors are left out: PGCONVOY_TEST_MATRIX=all runs them");
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

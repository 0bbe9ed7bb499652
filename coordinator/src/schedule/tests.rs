#![allow(clippy::unwrap_used)]
use pgconvoy_proto::model::{Format, Relation};

use super::*;

fn table(oid: Oid) -> Table {
    Table {
        oid,
        schema: "s".into(),
        name: format!("t{oid}"),
        relation: Relation::Table,
        columns: vec![],
        key_columns: 0,
        format: Format::Text,
        filter: None,
        size_bytes: 0,
        blocks: 2,
        through_root: false,
        unlogged: false,
        generated: Vec::new(),
        padded: Vec::new(),
        arrays: Vec::new(),
        fixed: Vec::new(),
        managed: false,
        of_extension: false,
    }
}

fn part(table: Oid, number: u32) -> Part {
    Part {
        table,
        number,
        first: number,
        end: None,
    }
}

fn build(step: u32, size_bytes: u64) -> Build {
    Build {
        step,
        table: 1,
        size_bytes,
    }
}

#[tokio::test]
async fn parts_then_constraints_then_indexes_and_digest() {
    let schedule = Schedule::new(vec![TableWork {
        table: table(1),
        parts: vec![part(1, 0), part(1, 1)],
        keys: vec![],
        constraints: vec![build(1, 0)],
        indexes: vec![build(2, SMALL_BUILD), build(3, 0)],
        converge: false,
        digest: true,
    }]);
    assert!(next(&schedule).await.is_some() && next(&schedule).await.is_some());
    assert!(!schedule.part_done(1));
    assert!(schedule.part_done(1));
    assert!(next(&schedule).await.is_none());
    let constraints = schedule.next_builds().await.unwrap();
    assert_eq!(constraints, [build(1, 0)]);
    schedule.builds_done(&constraints);
    assert_eq!(
        schedule.next_builds().await.unwrap(),
        [build(2, SMALL_BUILD)]
    );
    assert_eq!(schedule.next_builds().await.unwrap(), [build(3, 0)]);
    assert_eq!(schedule.next_digest().await.unwrap().oid, 1);
    assert!(schedule.next_builds().await.is_none());
    assert!(schedule.next_digest().await.is_none());
}

#[tokio::test]
async fn a_table_with_nothing_left_to_do_ends_the_queue_at_once() {
    let nothing = TableWork {
        table: table(1),
        parts: vec![],
        keys: vec![],
        constraints: vec![],
        indexes: vec![],
        converge: false,
        digest: false,
    };
    let schedule = Schedule::new(vec![nothing]);
    assert!(schedule.next_builds().await.is_none());
}

#[tokio::test]
async fn who_waits_is_woken() {
    let schedule = std::sync::Arc::new(Schedule::new(vec![TableWork {
        table: table(1),
        parts: vec![part(1, 0)],
        keys: vec![],
        constraints: vec![],
        indexes: vec![],
        converge: false,
        digest: true,
    }]));
    let waiting = tokio::spawn({
        let schedule = schedule.clone();
        async move { schedule.next_digest().await.map(|table| table.oid) }
    });
    tokio::task::yield_now().await;
    next(&schedule).await;
    schedule.part_done(1);
    assert_eq!(waiting.await.unwrap(), Some(1));
}

async fn next(schedule: &Schedule) -> Option<Oid> {
    let part = schedule.next_part().await.unwrap();
    part.map(|(table, _)| table.oid)
}

fn one_part_each(oids: &[Oid]) -> Schedule {
    let work = |oid: &Oid| TableWork {
        table: table(*oid),
        parts: vec![part(*oid, 0)],
        keys: vec![],
        constraints: vec![],
        indexes: vec![],
        converge: false,
        digest: false,
    };
    Schedule::new(oids.iter().map(work).collect())
}

fn refused(oid: Oid) -> PutOff {
    PutOff {
        table: table(oid),
        part: part(oid, 0),
        reason: format!("t{oid} violates check"),
    }
}

#[tokio::test]
async fn what_is_put_off_comes_again_when_all_others_are_done() {
    let schedule = one_part_each(&[1, 2, 3]);
    for oid in [1, 2] {
        assert_eq!(next(&schedule).await, Some(oid));
        schedule.put_off(refused(oid));
    }
    assert_eq!(next(&schedule).await, Some(3));
    let waiting = tokio::time::timeout(std::time::Duration::ZERO, schedule.next_part()).await;
    assert!(waiting.is_err(), "the third part is still running");
    schedule.part_done(3);
    assert_eq!(next(&schedule).await, Some(1));
    schedule.put_off(refused(1));
    assert_eq!(next(&schedule).await, Some(2));
    schedule.part_done(2);
    assert_eq!(next(&schedule).await, Some(1), "the second was loaded");
    schedule.part_done(1);
    assert_eq!(next(&schedule).await, None);
}

#[tokio::test]
async fn a_round_that_brings_nothing_in_is_the_last() {
    let schedule = one_part_each(&[1, 2]);
    assert_eq!(next(&schedule).await, Some(1));
    assert_eq!(next(&schedule).await, Some(2));
    schedule.part_done(2);
    schedule.put_off(refused(1));
    assert_eq!(next(&schedule).await, Some(1));
    schedule.put_off(refused(1));
    let error = schedule.next_part().await.unwrap_err();
    assert_eq!(error.0, [refused(1)]);
    assert!(error.to_string().contains("t1 violates check"), "{error}");
}

#[tokio::test]
async fn rows_of_several_snapshots_converge_before_anything_is_built_on_them() {
    let schedule = Schedule::new(vec![TableWork {
        table: table(1),
        parts: vec![part(1, 0)],
        keys: vec![],
        constraints: vec![build(1, 0)],
        indexes: vec![],
        converge: true,
        digest: true,
    }]);
    assert!(next(&schedule).await.is_some());
    schedule.part_done(1);
    assert!(schedule.lock().builds.is_empty());
    assert_eq!(schedule.next_to_converge().await.map(|t| t.oid), Some(1));
    schedule.converged(1);
    let builds = schedule.next_builds().await.unwrap();
    schedule.builds_done(&builds);
    assert_eq!(schedule.next_digest().await.map(|t| t.oid), Some(1));
    assert!(schedule.next_to_converge().await.is_none());
}

#[tokio::test]
async fn a_table_is_digested_beside_the_index_of_its_key_and_before_the_constraint() {
    let schedule = Schedule::new(vec![TableWork {
        table: table(1),
        parts: vec![],
        keys: vec![build(1, SMALL_BUILD)],
        constraints: vec![build(2, SMALL_BUILD)],
        indexes: vec![build(3, SMALL_BUILD)],
        converge: false,
        digest: true,
    }]);
    let key = schedule.next_builds().await.unwrap();
    let index = schedule.next_builds().await.unwrap();
    assert_eq!((key[0].step, index[0].step), (1, 3));
    assert_eq!(schedule.next_digest().await.unwrap().oid, 1);
    schedule.builds_done(&key);
    schedule.builds_done(&index);
    let mut constraint = std::pin::pin!(schedule.next_builds());
    let at_once = tokio::time::timeout(std::time::Duration::ZERO, constraint.as_mut());
    assert!(at_once.await.is_err());
    schedule.digested(1);
    let constraint = constraint.await.unwrap();
    assert_eq!(constraint[0].step, 2);
    schedule.builds_done(&constraint);
    assert!(schedule.next_builds().await.is_none());
    assert!(schedule.next_digest().await.is_none());
}

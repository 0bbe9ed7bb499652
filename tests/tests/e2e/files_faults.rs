//! What goes wrong between an agent and its Storage API: what passes is waited for, what does not is one clear error, and `resume` goes on.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pgconvoy_tests::buckets::Buckets;
use pgconvoy_tests::storage_api::{Fault, Kind};

const MIB: u64 = 1 << 20;

fn struck(fault: &Arc<AtomicUsize>) -> usize {
    fault.load(Ordering::Relaxed)
}

#[test]
fn connections_that_are_cut_are_taken_up_where_they_broke() {
    let buckets = Buckets::new().expect("a pair with buckets");
    buckets.fill(&[100_000, 20 * MIB, 500_000]).expect("files");
    let (source, target) = (buckets.source.faults(), buckets.target.faults());
    let cuts = [
        source.inject(Fault::new("GET", "avatars/1", Kind::CutAfter(5 * MIB + 3)).times(2)),
        source.inject(Fault::new("GET", "avatars/2", Kind::CutAfter(0)).times(1)),
        target.inject(Fault::new("POST", "avatars/0", Kind::CutAfter(50_000)).times(1)),
        // The first piece in part, the second not at all, the last whole but for the answer.
        target.inject(Fault::new("PATCH", "resumable", Kind::CutAfter(2 * MIB)).times(1)),
        target.inject(Fault::new("PATCH", "resumable", Kind::CutAfter(0)).times(1)),
        target.inject(Fault::new("GET", "avatars/1", Kind::CutAfter(9 * MIB)).times(1)),
    ];

    buckets.pair.migrate(&["--storage-objects"]);

    let counts: Vec<usize> = cuts.iter().map(struck).collect();
    assert_eq!(counts, [2, 1, 1, 1, 1, 1]);
    buckets.assert_equal_files();
    let seen = buckets.source.seen();
    let ranges: Vec<_> = seen
        .iter()
        .filter_map(|request| request.range.clone())
        .collect();
    // What was on its way when the connection was cut comes again.
    let goes_on = |range: &String| range.starts_with("bytes=") && range != "bytes=0-";
    assert!(ranges.iter().any(goes_on), "{ranges:?}");
    let creations = buckets.target.seen();
    let creations = creations
        .iter()
        .filter(|r| r.method == "POST" && r.path == "upload/resumable");
    assert_eq!(
        creations.count(),
        1,
        "the upload is continued, not begun again"
    );
    assert_eq!(buckets.target.files().expect("files"), 3);
}

#[test]
fn a_busy_api_is_left_alone_for_as_long_as_it_says() {
    let buckets = Buckets::new().expect("a pair with buckets");
    buckets.fill(&[100, 200]).expect("files");
    let busy = |retry_after| Kind::Answer {
        status: 429,
        body: r#"{"message":"too many requests"}"#.into(),
        retry_after: Some(retry_after),
    };
    let upload = buckets.target.faults();
    let upload = upload.inject(Fault::new("POST", "avatars/0", busy(3)).times(1));
    let failing = buckets.source.faults();
    let failing = failing.inject(Fault::status("GET", "avatars/1", 503).times(3));
    let begun = Instant::now();

    buckets.pair.migrate(&["--storage-objects"]);

    assert_eq!((struck(&upload), struck(&failing)), (1, 3));
    assert!(
        begun.elapsed() >= Duration::from_secs(3),
        "it was asked too early"
    );
    buckets.assert_equal_files();
}

#[test]
fn an_api_that_stays_broken_is_one_error_and_resume_goes_on() {
    let buckets = Buckets::new().expect("a pair with buckets");
    buckets.fill(&[100, 200, 7 * MIB]).expect("files");
    let broken = r#"{"statusCode":"500","error":"Internal","message":"the disk is gone"}"#;
    let broken = Kind::Answer {
        status: 500,
        body: broken.into(),
        retry_after: Some(0),
    };
    buckets
        .target
        .faults()
        .inject(Fault::new("POST", "avatars/1", broken));

    let migrate = buckets.pair.pgconvoy(&["migrate", "--storage-objects"]);
    let migrate = migrate.expect("migrate runs").expect(1);

    let said = migrate
        .says("the disk is gone")
        .says("avatars/1")
        .says("pgconvoy resume");
    assert_eq!(
        said.stderr.matches("the disk is gone").count(),
        1,
        "{}",
        said.stderr
    );
    buckets.target.faults().lift_all();
    buckets
        .pair
        .pgconvoy(&["resume"])
        .expect("resume runs")
        .expect(0);
    buckets.assert_equal_files();
}

#[test]
fn a_key_that_is_withdrawn_on_the_way_is_told_as_such() {
    let buckets = Buckets::new().expect("a pair with buckets");
    buckets.fill(&[100]).expect("files");
    let refused = r#"{"statusCode":"403","error":"Unauthorized","message":"new row violates row-level security policy"}"#;
    let refused = Kind::Answer {
        status: 400,
        body: refused.into(),
        retry_after: None,
    };
    buckets
        .target
        .faults()
        .inject(Fault::new("POST", "object/", refused));
    let migrate = buckets.pair.pgconvoy(&["migrate", "--storage-objects"]);
    let migrate = migrate.expect("migrate runs").expect(1);
    migrate.says("refuses the key").says("target agent");
    buckets.target.faults().lift_all();
    buckets
        .pair
        .pgconvoy(&["resume"])
        .expect("resume runs")
        .expect(0);
    buckets.assert_equal_files();
}

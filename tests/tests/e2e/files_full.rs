//! Many files of all sizes, agents killed on the way, memory bounded. The usual run has 150 files up to 20 MiB; the whole one
//! (`PGCONVOY_TEST_FILES=2000`) 2,000 up to 200 MB.
use std::sync::atomic::Ordering;
use std::time::Instant;

use pgconvoy_tests::buckets::Buckets;
use pgconvoy_tests::program::peak_resident_bytes;
use pgconvoy_tests::storage_api::{Fault, Kind};
use pgconvoy_tests::{PATIENCE, eventually, say_aloud};

const MIB: u64 = 1 << 20;
/// Of an agent, whatever the files' sizes: for four files at once, and what it needs anyway.
const MOST_MEMORY: u64 = 260 * MIB;

fn count() -> usize {
    let given = std::env::var("PGCONVOY_TEST_FILES").ok();
    given.map_or(150, |count| {
        count.parse().expect("PGCONVOY_TEST_FILES is a number")
    })
}

/// Most are small, some are around the 6 MiB above which they go in pieces, some are large.
fn sizes(count: usize) -> Vec<u64> {
    let large: &[u64] = if count < 1000 {
        &[20 * MIB, 6 * MIB + 1]
    } else {
        &[
            200_000_000,
            150_000_000,
            60_000_001,
            30 * MIB,
            12 * MIB,
            6 * MIB + 1,
            6 * MIB,
        ]
    };
    let small = (0..count - large.len()).map(|n| match n % 100 {
        0 => 0,
        1 => 3 * MIB + n as u64,
        n => (n * n * 13) as u64,
    });
    large.iter().copied().chain(small).collect()
}

fn held(buckets: &Buckets, method: &'static str, path: &str) -> impl Fn() -> bool + use<> {
    let struck = buckets
        .target
        .faults()
        .inject(Fault::new(method, path, Kind::Hold));
    move || struck.load(Ordering::Relaxed) > 0
}

#[test]
fn many_files_of_all_sizes_arrive_whatever_is_killed_in_bounded_memory() {
    let mut buckets = Buckets::new().expect("a pair with buckets");
    let sizes = sizes(count());
    buckets.fill(&sizes).expect("files");
    let begun = Instant::now();

    // In the largest file, which goes first, the target agent dies; in the middle of the small ones the source agent.
    let in_the_largest = held(&buckets, "PATCH", "resumable");
    let migrate = buckets.pair.spawn(&["migrate", "--storage-objects"]);
    let migrate = migrate.expect("migrate starts");
    eventually("a piece is held", PATIENCE, in_the_largest);
    buckets.pair.target_agent.kill().expect("dies");
    buckets.target.faults().lift_all();
    migrate.wait(PATIENCE).expect("migrate gives up").expect(1);
    buckets.pair.target_agent.restart().expect("restarts");

    let among_the_small = held(&buckets, "POST", "object/avatars/77");
    let resume = buckets.pair.spawn(&["resume"]).expect("resume starts");
    eventually("a small file is held", PATIENCE, among_the_small);
    let peaks = (
        peak(buckets.pair.source_agent.pid()),
        peak(buckets.pair.target_agent.pid()),
    );
    buckets.pair.source_agent.kill().expect("dies");
    buckets.target.faults().lift_all();
    resume.wait(PATIENCE).expect("resume gives up").expect(1);
    buckets.pair.source_agent.restart().expect("restarts");

    let resume = buckets.pair.pgconvoy(&["resume", "--json"]);
    let result = resume.expect("resume runs").expect(0).result();
    let seconds = begun.elapsed().as_secs_f64();
    let peaks = (
        peaks.0.max(peak(buckets.pair.source_agent.pid())),
        peaks.1.max(peak(buckets.pair.target_agent.pid())),
    );

    assert_eq!(
        result["objects"]["proven"],
        sizes.len(),
        "{}",
        result["objects"]
    );
    buckets.assert_equal_files();
    buckets.assert_stored(sizes.len(), 2);
    say_aloud(&format!(
        "{} files, {} MiB, two agents killed: {seconds:.1} s until proven; at most {} MiB in the source agent, {} MiB in the target agent",
        sizes.len(),
        sizes.iter().sum::<u64>() / MIB,
        peaks.0 / MIB,
        peaks.1 / MIB
    ));
    assert!(peaks.0 < MOST_MEMORY && peaks.1 < MOST_MEMORY, "{peaks:?}");
}

fn peak(pid: u32) -> u64 {
    peak_resident_bytes(pid).expect("it runs")
}

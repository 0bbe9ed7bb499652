//! A large table: few changes cost little, many stay within memory. PGCONVOY_TEST_ROWS makes it larger.
use std::time::Instant;

use pgconvoy_tests::gate::Gate;
use pgconvoy_tests::program::{Outcome, peak_resident_bytes};
use pgconvoy_tests::{PATIENCE, Pair, say_aloud, within};

const ROWS: u64 = 300_000;
const MEMORY: u64 = 256 << 20;
/// Of rows. In ten million of them that is a thousand.
const CHANGED_ONE_OF: u64 = 10_000;
const COUNTED: &str = "SELECT count(*), count(*) FILTER (WHERE note LIKE '%!'), count(*) FILTER (WHERE number < 0) FROM big";

/// A sync, and the most that the coordinator used meanwhile, in bytes.
fn watched(pair: &Pair, arguments: &[&str]) -> (Outcome, u64) {
    let mut running = pair
        .spawn(&[&["sync", "--json"], arguments].concat())
        .expect("sync starts");
    let mut peak = 0;
    let ended = within(20 * PATIENCE, || {
        // A process that has ended has no memory to be read.
        peak = peak_resident_bytes(running.pid()).unwrap_or(0).max(peak);
        !running.is_running()
    });
    assert!(ended, "the sync does not end");
    (running.wait(PATIENCE).expect("sync ended").expect(0), peak)
}

/// Two servers and two agents, and at the source a table of so many rows.
fn pair_with_a_large_table() -> (Pair, u64) {
    let asked = std::env::var("PGCONVOY_TEST_ROWS").ok();
    let rows: u64 = asked.map_or(ROWS, |text| {
        text.parse().expect("PGCONVOY_TEST_ROWS is a number")
    });
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(&format!(
        "CREATE TABLE big (id bigint PRIMARY KEY, number int, note text);
         INSERT INTO big SELECT i, i % 1000, 'note ' || md5(i::text) FROM generate_series(1, {rows}) i;"
    ))
    .expect("a table");
    (pair, rows)
}

#[test]
fn few_changes_cost_little_and_many_stay_within_memory() {
    let (pair, rows) = pair_with_a_large_table();
    let begun = Instant::now();
    let migrate = pair
        .pgconvoy(&["migrate", "--json", "--no-verify"])
        .expect("migrate runs")
        .expect(0);
    let copying = begun.elapsed().as_secs_f64();
    let bytes = migrate.result()["tables"][0]["source"]["bytes"]
        .as_u64()
        .expect("bytes");

    let changes = [
        (
            "few rows",
            format!("UPDATE big SET number = -1 WHERE id % {CHANGED_ONE_OF} = 7"),
            "rows",
        ),
        (
            "a fifth of the rows",
            "UPDATE big SET note = note || '!' WHERE id % 5 = 0".to_owned(),
            "rows",
        ),
        (
            "half of the rows",
            "UPDATE big SET note = note || '!' WHERE id % 2 = 0".to_owned(),
            "copy",
        ),
    ];
    for (what, change, how) in changes {
        pair.at_source(&change).expect("a change");
        let begun = Instant::now();
        let (outcome, peak) = watched(&pair, &[]);
        let seconds = begun.elapsed().as_secs_f64();
        let told = &outcome.result()["sync"];
        let (crossed, table) = (
            told["wire_bytes"].as_u64().expect("bytes"),
            &told["tables"][0],
        );
        assert_eq!(table["how"], how, "{what}: {table}");
        assert_eq!(
            pair.at_source(COUNTED).expect("counts"),
            pair.at_target(COUNTED).expect("counts")
        );
        let of = crossed as f64 / bytes as f64;
        if what == "few rows" {
            assert_eq!(
                table["changed"].as_u64(),
                Some(rows.div_ceil(CHANGED_ONE_OF)),
                "{table}"
            );
            assert!(of < 0.01, "{crossed} bytes crossed, of a table of {bytes}");
        }
        let mut peaks = vec![peak];
        for agent in [&pair.source_agent, &pair.target_agent] {
            peaks.push(peak_resident_bytes(agent.pid()).expect("its memory"));
        }
        assert!(
            peaks.iter().all(|peak| *peak < MEMORY),
            "{what}: {peaks:?} bytes"
        );
        let megabytes: Vec<u64> = peaks.iter().map(|peak| peak >> 20).collect();
        say_aloud(&format!(
            "sync of {what} of {rows}: {:.2} % of the table over the network, {seconds:.1} s (the copy {copying:.1} s), \
             coordinator and agents {megabytes:?} MB",
            of * 100.0
        ));
    }
}

/// Of a table whose snapshot is lost when four fifths of its parts have arrived.
#[test]
fn a_resume_after_a_lost_snapshot_moves_what_had_not_arrived_and_what_changed() {
    let (mut pair, rows) = pair_with_a_large_table();
    let part_size = (rows / 300_000).to_string();
    let gate = Gate::to(pair.target_agent.port()).expect("a gate").shut();
    let migrate = pair
        .spawn(&[
            "migrate",
            "--part-size",
            &part_size,
            "--target-from-source",
            &gate.url(),
        ])
        .expect("migrate starts");
    let share = "SELECT coalesce((SELECT sum(rows) FROM pgconvoy.parts), 0)";
    let arrived = || -> u64 {
        let there = pair.at_target("SELECT to_regclass('pgconvoy.parts') IS NOT NULL");
        let rows = match there.expect("the target").as_str() {
            "t" => pair.at_target(share).expect("the ledger"),
            _ => "0".to_owned(),
        };
        rows.parse().expect("a number")
    };
    gate.feed_until("four fifths of the rows have arrived", || {
        arrived() * 5 >= rows * 4
    });
    let before = arrived();
    assert!(before < rows, "all of it has arrived");
    pair.source_agent.kill().expect("the source agent dies");
    drop(gate);
    let stopped = migrate.wait(PATIENCE).expect("migrate gives up");
    assert_ne!(stopped.code, 0, "{}", stopped.text());
    pair.at_source(&format!(
        "UPDATE big SET number = -1 WHERE id % {CHANGED_ONE_OF} = 7"
    ))
    .expect("a change");
    pair.source_agent.restart().expect("it comes back");

    let resume = pair.pgconvoy(&["resume", "--json"]).expect("resume runs");
    let result = resume.expect(0).result();
    let bytes = |n: usize, what: &str| result["crossed"][n][what].as_u64().expect("bytes");
    let (first, second) = (bytes(0, "parts"), bytes(1, "parts") + bytes(1, "syncs"));
    let whole = first as f64 / before as f64 * rows as f64;
    let of = second as f64 / whole;
    say_aloud(&format!(
        "a snapshot was lost when {before} of {rows} rows had arrived: {first} bytes had crossed under it, {second} crossed under the next, \
         {:.1} % of a copy",
        of * 100.0
    ));
    assert!(of < 0.5, "{second} bytes, a copy is {whole:.0}");
    pair.assert_equal_ends();
}

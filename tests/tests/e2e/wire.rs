//! What is falsified on the wire never reaches the target; and what is slow on the wire reaches it.
use pgconvoy_tests::falsifier::Falsifier;
use pgconvoy_tests::gate::Gate;
use pgconvoy_tests::{PATIENCE, Pair};

use crate::depot::{self, SMALL_PARTS};

/// One bit of the rows is flipped behind the source's digest and before the target's.
fn a_flipped_bit_is_noticed(compression: &str) {
    let pair = depot::pair();
    let falsifier = Falsifier::to(pair.target_agent.port(), &pair.pki()).expect("a falsifier");
    let gate = Gate::to(falsifier.port()).expect("a gate").shut();
    let url = gate.url();
    let arguments = [
        &[
            "migrate",
            "--target-from-source",
            &url,
            "--streams",
            "1",
            "--compression",
            compression,
        ],
        &SMALL_PARTS[..],
    ]
    .concat();
    let migrate = pair.spawn(&arguments).expect("migrate starts");
    // From then on the big frames are rows.
    gate.feed_until("the first part is committed", || {
        depot::committed_parts(&pair) > 0
    });
    falsifier.arm(1);
    gate.open();
    let migrate = migrate.wait(PATIENCE).expect("migrate ends");

    assert_eq!(
        falsifier.flipped(),
        1,
        "nothing was falsified: {}",
        migrate.text()
    );
    let migrate = migrate.expect(0);
    let retries = retries(&pair);
    assert!(
        retries.iter().any(|reason| reason.contains("digest")),
        "no part was sent again because of its digest, but {retries:?}: {}",
        migrate.text()
    );
    pair.assert_equal_ends();
}

/// Why something was tried again, by the run's log.
fn retries(pair: &Pair) -> Vec<String> {
    let log = std::fs::read_to_string(pair.latest_run().join("events.jsonl")).expect("a log");
    let events = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let retries = events.filter(|event| event["event"] == "retry");
    retries.map(|event| event["reason"].to_string()).collect()
}

#[test]
fn a_bit_flipped_in_plain_rows_is_noticed_and_the_part_is_sent_again() {
    a_flipped_bit_is_noticed("off");
}

#[test]
fn a_bit_flipped_in_compressed_rows_is_noticed_and_the_part_is_sent_again() {
    a_flipped_bit_is_noticed("1");
}

/// 32 kbit/s: the answer to a sign of life would stand behind all that is under way.
#[test]
fn a_slow_link_is_no_dead_one() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(
        "CREATE TABLE noise (id int PRIMARY KEY, load bytea);
         ALTER TABLE noise ALTER load SET STORAGE EXTERNAL;
         INSERT INTO noise SELECT 1, string_agg(decode(md5(i::text), 'hex'), ''::bytea) FROM generate_series(1, 14000) i;",
    )
    .expect("what does not compress");
    let gate = Gate::to(pair.target_agent.port())
        .expect("a gate")
        .slow(4000);
    pair.migrate(&["--target-from-source", &gate.url(), "--streams", "1"]);
}

//! Random tables, random changes at both ends, and changes that go on: `sync` ends with equal ends by PostgreSQL's own tools.
use std::process::Stdio;

use pgconvoy_tests::demo::server;
use pgconvoy_tests::pair::DATABASE;
use pgconvoy_tests::random::{Random, TYPES_SQL, Table};
use pgconvoy_tests::workload::Workload;
use pgconvoy_tests::{PATIENCE, Pair, say_aloud};
use rustix::process::Signal;

const TABLES: usize = 8;
const ROUNDS: u64 = 4;
const CHANGES_PER_ROUND: u64 = 250;
/// How many seeds are tried, each with a migration and its rounds; PGCONVOY_TEST_SEEDS asks for more.
const SEEDS: u64 = 2;
const FIRST_SEED: u64 = 20_784_000;

fn converges(seed: u64) -> u64 {
    let mut random = Random::new(seed);
    let pair = Pair::new().expect("two servers and two agents");
    let tables: Vec<Table> = (0..TABLES)
        .map(|n| Table::new(&format!("t{n}"), &mut random))
        .collect();
    let sql: String = tables.iter().map(Table::sql).collect();
    pair.at_source(&format!("{TYPES_SQL}{sql}"))
        .unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    pair.migrate(&[]);
    let mut changes = 0;
    for round in 0..ROUNDS {
        // The target is written to as well, a little.
        for (server, count) in [
            (&pair.source, CHANGES_PER_ROUND),
            (&pair.target, CHANGES_PER_ROUND / 5),
        ] {
            let batch: Vec<String> = (0..count)
                .map(|_| tables[random.below(TABLES as u64) as usize].change(&mut random))
                .collect();
            server
                .psql(DATABASE, &batch.join("\n"))
                .unwrap_or_else(|error| panic!("seed {seed}, round {round}: {error:#}"));
            changes += count;
        }
        let sync = pair
            .pgconvoy(&["sync", "--force", "--json"])
            .expect("sync runs");
        assert_eq!(sync.code, 0, "seed {seed}, round {round}:\n{}", sync.text());
    }
    println!("seed {seed}: {changes} changes");
    pair.assert_equal_ends();
    changes
}

#[test]
fn random_changes_of_random_tables_converge() {
    let asked = std::env::var("PGCONVOY_TEST_SEEDS").ok();
    let seeds: u64 = asked.map_or(SEEDS, |text| {
        text.parse().expect("PGCONVOY_TEST_SEEDS is a number")
    });
    let changes: u64 = (0..seeds).map(|n| converges(FIRST_SEED + n)).sum();
    say_aloud(&format!(
        "sync: {changes} random changes over {seeds} seeds, from {} on, converged",
        FIRST_SEED
    ));
}

const BUSY: &str = "
    CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0, note text);
    INSERT INTO account SELECT i, 0, repeat(md5(i::text), 20) FROM generate_series(1, 20000) i;
    CREATE TABLE history (account int, delta int, at timestamptz DEFAULT now());
    CREATE TABLE moving (id bigint PRIMARY KEY, body text);
    INSERT INTO moving SELECT i, md5(i::text) FROM generate_series(1, 3000) i;
    CREATE TABLE queue (id serial PRIMARY KEY, job text);
    CREATE SEQUENCE moved START 1000000;";

/// What an application does, over and over, each time otherwise.
const WORK: &str = "
    UPDATE account SET balance = balance + 1 WHERE id IN (SELECT (random() * 20000)::int FROM generate_series(1, 50));
    INSERT INTO history (account, delta) SELECT (random() * 20000)::int, 1 FROM generate_series(1, 50);
    UPDATE moving SET id = nextval('moved') WHERE id IN (SELECT id FROM moving ORDER BY random() LIMIT 20);
    DELETE FROM moving WHERE id IN (SELECT id FROM moving ORDER BY random() LIMIT 5);
    INSERT INTO moving SELECT nextval('moved'), repeat(md5(random()::text), 5000) FROM generate_series(1, 3);
    INSERT INTO queue (job) SELECT 'job' FROM generate_series(1, 30);
    SET lock_timeout = '20ms';
    DO $$ BEGIN TRUNCATE queue; EXCEPTION WHEN lock_not_available THEN DELETE FROM queue WHERE id % 2 = 0; END $$;";

#[test]
fn a_copy_of_a_live_application_is_brought_up_to_date() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(BUSY).expect("an application");
    let application = Workload::start(&pair.source, DATABASE, WORK).expect("it works");
    let migrate = pair.migrate(&["--part-size", "1", "--then-sync", "--json"]);
    let done = application.stop().expect("it stops");
    let forecast = &migrate.result()["then_sync"];
    assert!(
        forecast["rows_changed"].as_u64() > Some(0),
        "{done} rounds: {forecast}"
    );
    assert!(
        forecast["downtime_seconds"].as_f64() > Some(0.0),
        "{forecast}"
    );
    assert!(
        migrate.text().contains("estimated downtime"),
        "{}",
        migrate.text()
    );
    let outcome = pair
        .pgconvoy(&["sync", "--json"])
        .expect("sync runs")
        .expect(0);
    let told = &outcome.result()["sync"];
    assert!(told["changed"].as_u64() > Some(0), "{done} rounds: {told}");
    pair.assert_equal_ends();
}

/// PostgreSQL's own load generator.
#[test]
fn a_copy_under_pgbench_is_brought_up_to_date() {
    let pair = Pair::new().expect("two servers and two agents");
    let pgbench = |arguments: &[&str]| {
        let mut command = pair.source.installation().command("pgbench");
        command.args(arguments).arg(pair.source.url(DATABASE));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    if !pgbench(&["-i", "-s", "1", "-q"])
        .status()
        .is_ok_and(|s| s.success())
    {
        return say_aloud("pgbench is not there: left out a copy under pgbench");
    }
    pair.at_source("ALTER TABLE pgbench_history ADD COLUMN id bigserial")
        .expect("a column more");
    let mut load = pgbench(&["-n", "-c", "2", "-T", "600"])
        .spawn()
        .expect("pgbench runs");
    let ended = pair.pgconvoy(&["migrate", "--part-size", "1"]);
    server::end(&mut load, Signal::INT, PATIENCE).expect("pgbench stops");
    ended.expect("migrate runs").expect(0);
    let outcome = pair
        .pgconvoy(&["sync", "--json"])
        .expect("sync runs")
        .expect(0);
    let told = &outcome.result()["sync"];
    assert!(told["changed"].as_u64() > Some(0), "{told}");
    pair.assert_equal_ends();
}

//! `watch` follows a migration from the ledger alone.
use pgconvoy_tests::{PATIENCE, eventually};

use crate::depot::{self, Halfway};

#[test]
fn watch_ends_with_the_migration_that_it_follows() {
    let pair = depot::pair();
    pair.pgconvoy(&["watch"])
        .expect("watch runs")
        .expect(1)
        .says("no ledger");

    let Halfway { migrate, trap } = Halfway::in_the_copy_of_a_table(&pair);
    let mut watch = pair
        .spawn(&["watch", "--interval", "100ms"])
        .expect("watch starts");
    eventually("watch has seen the copy", PATIENCE, || {
        watch
            .said_so_far()
            .is_ok_and(|text| text.contains("phase copy;"))
    });
    assert!(watch.is_running(), "watch ended before the migration");
    trap.disarm(&pair);
    migrate.wait(PATIENCE).expect("migrate ends").expect(0);
    let watch = watch.wait(PATIENCE).expect("watch ends").expect(0);
    assert!(watch.stdout.contains("proven"), "{}", watch.text());

    // There is nothing to wait for any more.
    let again = pair
        .pgconvoy(&["watch", "--json"])
        .expect("watch runs")
        .expect(0);
    assert_eq!(again.result()["verdict"], "proven");
}

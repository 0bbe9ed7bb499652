//! The database that tests stop half way, and the points where they stop it. Each point is seen in the ledger and the
//! catalog of the target before anything is done to anybody.
use pgconvoy_tests::gate::Gate;
use pgconvoy_tests::hold::Hold;
use pgconvoy_tests::pair::{DATABASE, Options};
use pgconvoy_tests::program::Running;
use pgconvoy_tests::{PATIENCE, Pair, eventually};

const SQL: &str = include_str!("depot.sql");
/// The advisory lock that depot.hold() asks for.
const KEY: i64 = 4711;
const TABLES: u64 = 11;
pub const BIG_ROWS: u64 = 7500;
/// MiB: cuts the largest table into several parts.
pub const SMALL_PARTS: [&str; 2] = ["--part-size", "1"];

pub fn pair() -> Pair {
    pair_with(Options::default())
}

pub fn pair_with(options: Options) -> Pair {
    let pair = Pair::with(options).expect("two servers and two agents");
    pair.at_source(SQL).expect("the depot is made");
    pair
}

/// One number from the target.
pub fn count(pair: &Pair, sql: &str) -> u64 {
    let text = pair.at_target(sql).expect("the target answers");
    text.parse()
        .unwrap_or_else(|_| panic!("not a number: {text:?} from {sql}"))
}

/// Parts in the ledger; none before there is one.
pub fn committed_parts(pair: &Pair) -> u64 {
    match count(
        pair,
        "SELECT (to_regclass('pgconvoy.parts') IS NOT NULL)::int",
    ) {
        0 => 0,
        _ => count(pair, "SELECT count(*) FROM pgconvoy.parts"),
    }
}

/// A migration that stands still, and what makes it stand.
pub struct Halfway {
    pub migrate: Running,
    pub trap: Trap,
}

pub struct Trap {
    gate: Option<Gate>,
    hold: Option<Hold>,
}

impl Halfway {
    /// The largest table is loaded in part, and the network has stopped.
    pub fn in_the_copy_of_a_table(pair: &Pair) -> Self {
        let halfway = Self::in_the_copy(
            pair,
            "some of the largest table's rows are committed",
            "big",
        );
        let rows = count(pair, "SELECT count(*) FROM depot.big");
        assert!(
            0 < rows && rows < BIG_ROWS,
            "{rows} of {BIG_ROWS} rows: the table is not half loaded"
        );
        halfway
    }

    /// The unlogged table's rows are committed, those of other tables are not, and the network has stopped.
    pub fn in_the_copy_behind_the_unlogged_table(pair: &Pair) -> Self {
        let halfway =
            Self::in_the_copy(pair, "the unlogged table's rows are committed", "fleeting");
        assert!(
            count(pair, "SELECT count(*) FROM depot.fleeting") > 0,
            "the unlogged table has no rows"
        );
        halfway
    }

    /// The same, of a target that is replaced.
    pub fn in_the_copy_forced(pair: &Pair) -> Self {
        let what = "some of the largest table's rows are committed";
        Self::in_the_copy_with(pair, what, "big", &["--force"])
    }

    fn in_the_copy(pair: &Pair, what: &str, table: &str) -> Self {
        Self::in_the_copy_with(pair, what, table, &[])
    }

    fn in_the_copy_with(pair: &Pair, what: &str, table: &str, more: &[&str]) -> Self {
        let gate = Gate::to(pair.target_agent.port()).expect("a gate").shut();
        let url = gate.url();
        let mut arguments = vec!["migrate", "--target-from-source", &url, "--streams", "2"];
        arguments.extend(SMALL_PARTS);
        arguments.extend(more);
        let migrate = pair.spawn(&arguments).expect("migrate starts");
        gate.feed_until(what, || {
            committed_parts(pair) > 0
                && count(
                    pair,
                    &format!(
                        "SELECT count(*) FROM pgconvoy.parts p JOIN pgconvoy.tables t ON t.oid = p.table_oid
                         WHERE t.name = '{table}'"
                    ),
                ) > 0
        });
        let tables = count(
            pair,
            "SELECT count(*) FROM pgconvoy.tables WHERE schema <> 'public'",
        );
        let begun = count(pair, "SELECT count(DISTINCT table_oid) FROM pgconvoy.parts");
        assert_eq!(tables, TABLES, "every table of the depot is in the ledger");
        assert!(
            begun < tables,
            "all tables have rows already: nothing is half done"
        );
        assert_unfinished(pair);
        Self {
            migrate,
            trap: Trap {
                gate: Some(gate),
                hold: None,
            },
        }
    }

    /// One index waits in the middle of its build, others are built.
    pub fn in_the_indexes(pair: &Pair) -> Self {
        let hold = stop_at(pair, "index");
        let migrate = pair.spawn(&["migrate"]).expect("migrate starts");
        eventually(
            "an index build stands still beside finished ones",
            PATIENCE,
            || waiting(pair) > 0 && built_indexes(pair) > 0,
        );
        let held = "SELECT count(*) FROM pg_index WHERE indexrelid = to_regclass('depot.held') AND indisvalid";
        assert_eq!(
            count(pair, held),
            0,
            "the index that stands still is there already"
        );
        let steps = |state: &str| {
            count(
                pair,
                &format!(
                    "SELECT count(*) FROM pgconvoy.steps WHERE kind IN ('index', 'constraint') AND state {state} 'done'"
                ),
            )
        };
        let (done, open) = (steps("="), steps("<>"));
        assert!(
            done > 0 && open > 0,
            "{done} index steps are done, {open} are not: nothing is half done"
        );
        assert_unfinished(pair);
        Self {
            migrate,
            trap: Trap {
                gate: None,
                hold: Some(hold),
            },
        }
    }

    /// One index waits in the middle of its build, others are built, and the rows of some tables are still to come: what
    /// happens to the source matters still.
    pub fn in_the_indexes_before_the_last_rows(pair: &Pair) -> Self {
        // The index of an expression waits for all rows.
        pair.at_target(DDL_TRAP)
            .expect("an event trigger at the target");
        let hold = stop_at(pair, "label");
        let gate = Gate::to(pair.target_agent.port()).expect("a gate").shut();
        let url = gate.url();
        let migrate = pair
            .spawn(&["migrate", "--target-from-source", &url, "--streams", "1"])
            .expect("migrate starts");
        gate.feed_until("an index build stands still beside finished ones", || {
            committed_parts(pair) > 0 && waiting(pair) > 0 && built_indexes(pair) > 0
        });
        let tables = count(
            pair,
            "SELECT count(*) FROM pgconvoy.tables WHERE schema <> 'public'",
        );
        let begun = count(pair, "SELECT count(DISTINCT table_oid) FROM pgconvoy.parts");
        assert!(
            begun < tables,
            "all rows are there: the source matters no more"
        );
        assert_unfinished(pair);
        Self {
            migrate,
            trap: Trap {
                gate: Some(gate),
                hold: Some(hold),
            },
        }
    }

    /// pg_restore has made some objects of the archive and waits in the middle of making a table.
    pub fn in_the_ddl(pair: &Pair) -> Self {
        pair.at_target(DDL_TRAP)
            .expect("an event trigger at the target");
        let hold = stop_at(pair, "ddl");
        let migrate = pair.spawn(&["migrate"]).expect("migrate starts");
        eventually("pg_restore stands still", PATIENCE, || waiting(pair) > 0);
        let made = "SELECT count(*) FROM pg_locks WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock'
                    AND pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)";
        assert!(
            count(pair, made) > 0,
            "pg_restore has made nothing yet: nothing is half done"
        );
        let last = "SELECT count(*) FROM pg_class WHERE relname = 'shelf_8'";
        assert_eq!(count(pair, last), 0, "the last table is there already");
        let done = "SELECT count(*) FROM pgconvoy.steps WHERE kind = 'pre-data' AND state = 'done'";
        assert_eq!(
            count(pair, done),
            0,
            "the ledger says that pre-data is done"
        );
        assert_unfinished(pair);
        Self {
            migrate,
            trap: Trap {
                gate: None,
                hold: Some(hold),
            },
        }
    }
}

impl Trap {
    /// Sessions of the target that begin from now on pass, and so does the network.
    pub fn disarm(&self, pair: &Pair) {
        pair.at_target(
            "ALTER DATABASE app RESET pgconvoy_test.hold;
             DROP EVENT TRIGGER IF EXISTS pgconvoy_test_trap;
             DROP FUNCTION IF EXISTS pgconvoy.test_trap();",
        )
        .expect("the trap is taken away");
        self.open_gate();
    }

    pub fn open_gate(&self) {
        if let Some(gate) = &self.gate {
            gate.open();
        }
    }

    /// Sessions that stand still go on.
    pub fn let_go(&mut self) {
        if let Some(hold) = self.hold.take() {
            hold.release();
        }
    }
}

/// Its function is in the schema of the ledger: the target counts as empty in spite of that one.
const DDL_TRAP: &str = "
CREATE SCHEMA IF NOT EXISTS pgconvoy;
CREATE FUNCTION pgconvoy.test_trap() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (
    SELECT FROM pg_event_trigger_ddl_commands()
    WHERE (current_setting('pgconvoy_test.hold', true), object_identity, command_tag)
       IN (('ddl', 'depot.shelf_5', 'CREATE TABLE'), ('label', 'depot.shelf_5_label', 'CREATE INDEX'))
  ) THEN
    PERFORM pg_advisory_lock_shared(4711);
  END IF;
END $$;
CREATE EVENT TRIGGER pgconvoy_test_trap ON ddl_command_end EXECUTE FUNCTION pgconvoy.test_trap();
";

/// Sessions of the target that begin from now on stop at the point, for as long as the answer lives.
fn stop_at(pair: &Pair, point: &str) -> Hold {
    let hold = Hold::advisory_lock(&pair.target, DATABASE, KEY).expect("the lock");
    pair.at_target(&format!(
        "ALTER DATABASE app SET pgconvoy_test.hold = '{point}'"
    ))
    .expect("a setting of the target");
    hold
}

/// Sessions that stand still at the lock.
pub fn waiting(pair: &Pair) -> u64 {
    count(
        pair,
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted",
    )
}

fn built_indexes(pair: &Pair) -> u64 {
    count(
        pair,
        "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
         WHERE c.relnamespace = to_regnamespace('depot') AND i.indisvalid",
    )
}

/// # Panics
/// When the ledger has no migration, or one that is done.
#[track_caller]
pub fn assert_unfinished(pair: &Pair) {
    let unfinished = count(
        pair,
        "SELECT count(*) FROM pgconvoy.migrations WHERE verdict IS NULL",
    );
    assert_eq!(unfinished, 1, "the ledger has one unfinished migration");
}

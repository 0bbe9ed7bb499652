//! A small database whose migration has work in every phase, and stops at any place of the ledger that a test names: where a step begins, where
//! its work is done and the ledger does not know yet, where a phase begins, where the verdict is about to be written.
use std::collections::BTreeSet;

use pgconvoy_tests::hold::Hold;
use pgconvoy_tests::pair::DATABASE;
use pgconvoy_tests::program::{Outcome, Running};
use pgconvoy_tests::{PATIENCE, Pair, eventually};

/// The ledger, so that a trap can be laid in it before there is a migration.
const LEDGER: &str = include_str!("../../../agent-target/src/ledger/schema.sql");
const KEY: i64 = 4713;

const SQL: &str = "
    CREATE ROLE teller;
    CREATE TABLE branch (id int PRIMARY KEY, name text NOT NULL);
    INSERT INTO branch SELECT i, 'branch ' || i FROM generate_series(1, 50) i;
    CREATE TABLE account (id bigserial PRIMARY KEY, branch int NOT NULL REFERENCES branch, owner text);
    INSERT INTO account (branch, owner) SELECT 1 + i % 50, md5(i::text) FROM generate_series(1, 2000) i;
    ALTER TABLE account ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON account USING (owner = current_user);
    GRANT SELECT ON account TO teller;
    ALTER TABLE branch OWNER TO teller;
    CREATE TABLE entry (day date, amount int) PARTITION BY RANGE (day);
    CREATE TABLE entry_1 PARTITION OF entry FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
    CREATE TABLE entry_2 PARTITION OF entry FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
    INSERT INTO entry SELECT date '2026-01-01' + i % 59, i FROM generate_series(1, 1000) i;
    CREATE INDEX entry_day ON entry (day);
    CREATE MATERIALIZED VIEW total AS SELECT day, sum(amount) AS amount FROM entry GROUP BY day;
    CREATE UNIQUE INDEX total_day ON total (day);
    CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
    CREATE TRIGGER stamp BEFORE INSERT ON branch FOR EACH ROW EXECUTE FUNCTION stamp();
    CREATE SEQUENCE receipt;
    SELECT setval('receipt', 4242);
    SELECT setval('account_id_seq', 9999);
    SELECT lo_from_bytea(4711, 'large');
    ALTER LARGE OBJECT 4711 OWNER TO teller;
    COMMENT ON DATABASE app IS 'of the source';
    ALTER DATABASE app SET work_mem = '5MB';
    GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text) TO teller;";

/// Whoever writes that a place is reached waits there until the test lets go of the lock; also where the agent keeps triggers from firing.
const TRAP: &str = "
    CREATE TABLE pgconvoy.test_stop (place text);
    CREATE FUNCTION pgconvoy.test_stop() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        entry jsonb := to_jsonb(NEW);
        reached text := coalesce((entry ->> 'kind') || ' ' || (entry ->> 'state'), 'phase ' || (entry ->> 'phase'));
    BEGIN
        IF EXISTS (SELECT FROM pgconvoy.test_stop WHERE place = reached) THEN
            PERFORM pg_advisory_lock_shared(4713);
            PERFORM pg_advisory_unlock_shared(4713);
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER test_stop BEFORE UPDATE ON pgconvoy.steps FOR EACH ROW EXECUTE FUNCTION pgconvoy.test_stop();
    CREATE TRIGGER test_stop BEFORE UPDATE ON pgconvoy.migrations FOR EACH ROW EXECUTE FUNCTION pgconvoy.test_stop();
    ALTER TABLE pgconvoy.steps ENABLE ALWAYS TRIGGER test_stop;
    ALTER TABLE pgconvoy.migrations ENABLE ALWAYS TRIGGER test_stop;";
const NO_TRAP: &str =
    "DROP FUNCTION IF EXISTS pgconvoy.test_stop() CASCADE; DROP TABLE IF EXISTS pgconvoy.test_stop";
const WAITING: &str =
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = 4713 AND NOT granted";

pub fn pair() -> Pair {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(SQL)
        .expect("a database with work in every phase");
    pair
}

/// Makes migrations stop; gone with what it was laid in, see [`Stop::disarm`].
pub struct Stop {
    hold: Option<Hold>,
    /// Sessions of the dead that have stopped there.
    old: BTreeSet<String>,
}

impl Stop {
    /// Lays the trap, at no place yet.
    pub fn lay(pair: &Pair) -> Self {
        let hold = Hold::advisory_lock(&pair.target, DATABASE, KEY).expect("the lock");
        let trap = format!("SET client_min_messages = warning; {LEDGER} {TRAP}");
        pair.at_target(&trap).expect("a trap in the ledger");
        Self {
            hold: Some(hold),
            old: BTreeSet::new(),
        }
    }

    /// Runs the command until it stops at the place.
    #[track_caller]
    pub fn at(&mut self, pair: &Pair, place: &str, command: &str) -> Running {
        pair.at_target(&format!(
            "DELETE FROM pgconvoy.test_stop; INSERT INTO pgconvoy.test_stop VALUES ('{place}')"
        ))
        .expect("a place to stop at");
        let arguments: Vec<&str> = command.split(' ').collect();
        let mut running = pair.spawn(&arguments).expect("it starts");
        let mut waiting = BTreeSet::new();
        eventually(&format!("{command} stops at {place}"), PATIENCE, || {
            waiting = sessions(pair);
            assert!(
                running.is_running(),
                "{command} has not stopped at {place}:\n{}",
                running.said_so_far().expect("what it said")
            );
            !waiting.is_subset(&self.old)
        });
        self.old = waiting;
        running
    }

    /// Whoever waits goes on, and nobody stops any more.
    pub fn disarm(&mut self, pair: &Pair) {
        pair.at_target("DELETE FROM pgconvoy.test_stop")
            .expect("no place to stop at");
        if let Some(hold) = self.hold.take() {
            hold.release();
        }
    }

    /// No trace is left but the ledger's own.
    pub fn remove(mut self, pair: &Pair) {
        self.disarm(pair);
        pair.at_target(NO_TRAP).expect("no trap");
    }
}

fn sessions(pair: &Pair) -> BTreeSet<String> {
    let waiting = pair.at_target(WAITING).expect("the target answers");
    waiting.lines().map(str::to_owned).collect()
}

/// Ends proven.
#[track_caller]
pub fn proven(pair: &Pair, command: &str) -> Outcome {
    let outcome = pair
        .pgconvoy(&[command, "--json"])
        .expect("it runs")
        .expect(0);
    assert_eq!(outcome.result()["verdict"], "proven", "{command}");
    outcome
}

//! `sync` brings the target up to what the source is at one new snapshot, whatever the tables are, and disturbs nothing.
use pgconvoy_tests::hold::Hold;
use pgconvoy_tests::pair::{DATABASE, Options};
use pgconvoy_tests::program::Outcome;
use pgconvoy_tests::{PATIENCE, Pair, eventually};

/// Everything on a target that could disturb a sync, or be disturbed by it.
const SHOP: &str = r#"
    CREATE TABLE customer (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text UNIQUE, name text,
                           loud text GENERATED ALWAYS AS (upper(name)) STORED);
    INSERT INTO customer (email, name) SELECT 'c' || i || '@x', 'name ' || i FROM generate_series(1, 2000) i;
    CREATE TABLE "order" (a int, b int, customer int REFERENCES customer ON DELETE CASCADE, note text,
                          PRIMARY KEY (a, b), UNIQUE (customer, note) DEFERRABLE INITIALLY DEFERRED);
    INSERT INTO "order" SELECT i % 50, i, 1 + i % 2000, 'n' || i FROM generate_series(1, 3000) i;
    CREATE TABLE log (line text, at timestamptz);
    INSERT INTO log SELECT 'line ' || i % 7, '2026-01-01' FROM generate_series(1, 700) i;
    CREATE TABLE audit (what text);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO public.audit VALUES (TG_OP || ' ' || TG_TABLE_NAME); RETURN coalesce(NEW, OLD); END $$;
    CREATE TRIGGER usual AFTER INSERT OR DELETE ON customer FOR EACH ROW EXECUTE FUNCTION note();
    CREATE TRIGGER always BEFORE INSERT OR DELETE ON customer FOR EACH ROW EXECUTE FUNCTION note();
    ALTER TABLE customer ENABLE ALWAYS TRIGGER always;
    CREATE RULE keep AS ON DELETE TO log DO INSTEAD NOTHING;
    ALTER TABLE log ENABLE ALWAYS RULE keep;
    CREATE TABLE part (id int, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
    CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (1000);
    CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (1000) TO (2000);
    CREATE TRIGGER of_part BEFORE DELETE ON part FOR EACH ROW EXECUTE FUNCTION note();
    ALTER TABLE part_2 ENABLE REPLICA TRIGGER of_part;
    INSERT INTO part SELECT i, 'v' || i FROM generate_series(1, 1900) i;
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
    CREATE TABLE hashed (m mood, id int, v text, PRIMARY KEY (m, id)) PARTITION BY HASH (m);
    CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    INSERT INTO hashed SELECT (enum_range(NULL::mood))[1 + i % 3], i, 'v' || i FROM generate_series(1, 300) i;
    CREATE TABLE guarded (id int PRIMARY KEY, v text);
    ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
    ALTER TABLE guarded FORCE ROW LEVEL SECURITY;
    CREATE POLICY none ON guarded USING (false);
    INSERT INTO guarded SELECT i, 'v' FROM generate_series(1, 100) i;
    CREATE UNLOGGED TABLE fleeting (id int PRIMARY KEY, v text);
    INSERT INTO fleeting SELECT i, 'v' FROM generate_series(1, 100) i;
    CREATE TABLE "Odd ""name" (b text NOT NULL, c xml, a int NOT NULL, big bytea, UNIQUE (b, a));
    INSERT INTO "Odd ""name" SELECT E'tab\t' || i, '<c/>', i, decode(repeat('00ff', 2000), 'hex') FROM generate_series(1, 100) i;
    CREATE TABLE nothing ();
    INSERT INTO nothing SELECT FROM generate_series(1, 5);
    CREATE TABLE untouched (id int PRIMARY KEY);
    INSERT INTO untouched SELECT generate_series(1, 1000);
    CREATE TABLE emptied (id int PRIMARY KEY);
    INSERT INTO emptied SELECT generate_series(1, 100);
    CREATE TABLE rewritten (id int PRIMARY KEY, v text);
    INSERT INTO rewritten SELECT i, 'old ' || i FROM generate_series(1, 500) i;
    CREATE SEQUENCE free START 5;
    CREATE MATERIALIZED VIEW many AS SELECT count(*) AS n, max(name) AS last FROM customer;
    SELECT lo_from_bytea(9001, 'first'), lo_from_bytea(9002, decode(repeat('ab', 600000), 'hex')), lo_from_bytea(9003, 'gone');"#;

const CHANGES: &str = r#"
    UPDATE customer SET name = 'other' WHERE id = 17;
    -- Unique values change places, keys change, rows go with those that they refer to.
    UPDATE customer SET email = 'swap' WHERE id = 1;
    UPDATE customer SET email = 'c1@x' WHERE id = 2; UPDATE customer SET email = 'c2@x' WHERE id = 1;
    DELETE FROM customer WHERE id BETWEEN 100 AND 120;
    INSERT INTO customer (email, name) SELECT 'new' || i, 'n' FROM generate_series(1, 30) i;
    UPDATE "order" SET b = b + 100000 WHERE a = 3;
    INSERT INTO log VALUES ('line 3', '2026-01-01'), ('line 3', '2026-01-01'), (NULL, NULL);
    ALTER TABLE log DISABLE RULE keep; DELETE FROM log WHERE ctid IN (SELECT ctid FROM log WHERE line = 'line 5' LIMIT 3);
    ALTER TABLE log ENABLE ALWAYS RULE keep;
    UPDATE part SET id = id + 1950 WHERE id < 10; DELETE FROM part WHERE id = 1500;
    UPDATE hashed SET v = 'w' WHERE id % 50 = 0; DELETE FROM hashed WHERE id = 7; INSERT INTO hashed VALUES ('sad', 999, 'x');
    UPDATE guarded SET v = 'w' WHERE id = 5;
    UPDATE fleeting SET v = NULL WHERE id = 5;
    UPDATE "Odd ""name" SET c = NULL WHERE a = 5; UPDATE "Odd ""name" SET big = decode(repeat('01', 3000000), 'hex') WHERE a = 7;
    DELETE FROM nothing WHERE ctid = (SELECT min(ctid) FROM nothing);
    TRUNCATE emptied;
    UPDATE rewritten SET v = 'new ' || id;
    SELECT nextval('free'), nextval('free');
    REFRESH MATERIALIZED VIEW many;
    SELECT lo_put(9001, 2, 'XX'), lo_truncate(lo_open(9002, 131072), 300000), lo_unlink(9003), lo_from_bytea(9004, 'new');"#;

fn shop() -> Pair {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(SHOP).expect("a shop");
    pair.migrate(&[]);
    pair
}

fn sync(pair: &Pair, arguments: &[&str]) -> Outcome {
    let all = [&["sync", "--json"], arguments].concat();
    pair.pgconvoy(&all).expect("sync runs")
}

/// `(how, inserted, changed, deleted)` of a table.
fn done(outcome: &Outcome, table: &str) -> (String, u64, u64, u64) {
    let result = outcome.result();
    let tables = result["sync"]["tables"].as_array().expect("tables");
    let found = tables.iter().find(|t| t["table"] == table);
    let found = found.unwrap_or_else(|| panic!("no table {table} in {tables:?}"));
    let number = |key: &str| found[key].as_u64().expect("a number");
    let how = found["how"].as_str().expect("how").to_owned();
    (
        how,
        number("inserted"),
        number("changed"),
        number("deleted"),
    )
}

#[test]
fn a_sync_brings_over_what_differs_and_disturbs_nothing() {
    let pair = shop();
    let nothing = sync(&pair, &[]).expect(0).result();
    assert_eq!(nothing["sync"]["wire_bytes"], 0, "{nothing}");
    pair.assert_equal_ends();
    pair.at_source(CHANGES).expect("changes");

    let dry = sync(&pair, &["--dry-run"]).expect(0);
    let ledger = "SELECT md5(string_agg(t::text, ',' ORDER BY oid)) FROM pgconvoy.tables t";
    let before = pair.at_target(ledger).expect("the ledger");
    assert_eq!(sync(&pair, &["--dry-run"]).expect(0).code, 0);
    assert_eq!(before, pair.at_target(ledger).expect("the ledger"));

    let outcome = sync(&pair, &[]).expect(0);
    let of = |table: &str| done(&outcome, table);
    let rows = |inserted, changed, deleted| ("rows".to_owned(), inserted, changed, deleted);
    assert_eq!(of("customer"), rows(30, 3, 21));
    assert_eq!(of("log"), rows(3, 0, 3));
    assert_eq!(of("hashed"), rows(1, 6, 1));
    assert_eq!(of("part_1"), rows(0, 0, 9));
    assert_eq!(of("part_2"), rows(9, 0, 1));
    assert_eq!(of("nothing"), rows(0, 0, 1));
    // Truncated there as well.
    assert_eq!(of("emptied"), ("copy".to_owned(), 0, 0, 100));
    assert_eq!(of("rewritten"), ("copy".to_owned(), 0, 500, 0));
    assert_eq!(of("untouched"), ("equal".to_owned(), 0, 0, 0));
    for table in [
        "customer",
        "order",
        "log",
        "hashed",
        "rewritten",
        "Odd \"name",
    ] {
        assert_eq!(of(table), done(&dry, table), "{table} in the dry run");
    }
    let result = outcome.result();
    assert_eq!(result["verdict"], "proven");
    assert_eq!(result["sync"]["source_moved"], "no", "{}", result["sync"]);
    pair.assert_equal_ends();
    pair.pgconvoy(&["verify"]).expect("verify runs").expect(0);
    let states =
        "SELECT string_agg(tgname || tgenabled::text, ' ' ORDER BY tgrelid::regclass::text, tgname)
                  FROM pg_trigger WHERE NOT tgisinternal";
    assert_eq!(
        pair.at_source(states).expect("triggers"),
        pair.at_target(states).expect("triggers")
    );
}

fn findings(outcome: &Outcome, code: &str) -> Vec<String> {
    let result = outcome.result();
    let all = result["findings"].as_array().cloned().unwrap_or_default();
    let of_code = all.iter().filter(|finding| finding["code"] == code);
    let object = |finding: &serde_json::Value| finding["object"].as_str().map(str::to_owned);
    of_code.filter_map(object).collect()
}

const FRUIT: &str = "
    CREATE TYPE mood AS ENUM ('ok', 'happy');
    CREATE TABLE basket (id int PRIMARY KEY, label text, mood mood DEFAULT 'ok');
    CREATE TABLE apple (id serial PRIMARY KEY, basket int REFERENCES basket, v text);
    CREATE TABLE pear (id serial PRIMARY KEY, v text);
    CREATE SEQUENCE free;
    INSERT INTO basket SELECT i, 'b' FROM generate_series(1, 10) i;
    INSERT INTO apple (basket, v) SELECT 1 + i % 10, 'v' || i FROM generate_series(1, 500) i;
    INSERT INTO pear (v) SELECT 'v' || i FROM generate_series(1, 500) i;";

fn fruit() -> Pair {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(FRUIT).expect("fruit");
    pair.migrate(&[]);
    pair
}

#[test]
fn what_others_wrote_at_the_target_is_overwritten_only_by_force() {
    let pair = fruit();
    pair.at_target("UPDATE apple SET v = 'mine' WHERE id = 3; DELETE FROM pear WHERE id = 4; INSERT INTO pear VALUES (4, 'v4')")
        .expect("somebody writes at the target");
    // That it was looked at meanwhile makes it nobody's.
    let verify = pair
        .pgconvoy(&["verify", "--skip-schema"])
        .expect("verify runs");
    verify.expect(3);
    pair.at_source("UPDATE basket SET label = 'new' WHERE id = 1")
        .expect("a change");
    let refused = sync(&pair, &[]).expect(4);
    // The pear is as it was, and nothing is lost by overwriting it.
    assert_eq!(findings(&refused, "target-written"), ["public.apple"]);
    assert_eq!(
        pair.at_target("SELECT v FROM apple WHERE id = 3")
            .expect("a row"),
        "mine"
    );
    let of_basket = "SELECT label FROM basket WHERE id = 1";
    assert_eq!(pair.at_target(of_basket).expect("a row"), "b");
    sync(&pair, &["--dry-run"]).expect(0).says("target-written");
    sync(&pair, &["--table", "basket"]).expect(0);
    assert_eq!(pair.at_target(of_basket).expect("a row"), "new");
    sync(&pair, &["--force"]).expect(0).says("target-written");
    pair.assert_equal_ends();
    sync(&pair, &[]).expect(0);
    // A sequence that the target's application has drawn from gives out no number twice.
    pair.at_target("SELECT setval('free', 6000)")
        .expect("somebody draws at the target");
    for more in [&["--table", "basket"][..], &["--dry-run"]] {
        sync(&pair, more).expect(0);
    }
    for more in [&[][..], &["--skip-schema"]] {
        let refused = sync(&pair, more).expect(4);
        assert_eq!(findings(&refused, "target-written"), ["public.free"]);
    }
    let at = "SELECT last_value FROM free";
    assert_eq!(pair.at_target(at).expect("a position"), "6000");
    sync(&pair, &["--force"]).expect(0).says("target-written");
    pair.assert_equal_ends();
}

#[test]
fn drift_is_named_before_anything_is_changed() {
    let pair = fruit();
    pair.at_source(
        "ALTER TABLE apple ADD COLUMN weight int DEFAULT 7; ALTER TABLE pear ALTER COLUMN v TYPE varchar(20);
         CREATE TABLE plum (id int PRIMARY KEY); INSERT INTO plum VALUES (1);
         UPDATE basket SET label = 'new' WHERE id = 1",
    )
    .expect("the source moves on");
    let refused = sync(&pair, &[]).expect(4);
    let mut drifted = findings(&refused, "columns-differ");
    drifted.extend(findings(&refused, "table-missing"));
    drifted.sort();
    assert_eq!(drifted, ["public.apple", "public.pear", "public.plum"]);
    refused.says("weight");
    let label = "SELECT label FROM basket WHERE id = 1";
    assert_eq!(pair.at_target(label).expect("a row"), "b");

    // What can be synced is, when that is said.
    sync(&pair, &["--force"]).expect(3);
    assert_eq!(pair.at_target(label).expect("a row"), "new");
    // Someone makes the same changes; the source's table is another one by now.
    pair.at_target(
        "ALTER TABLE apple ADD COLUMN weight int DEFAULT 7; ALTER TABLE pear ALTER COLUMN v TYPE varchar(20);
         CREATE TABLE plum (id int PRIMARY KEY)",
    )
    .expect("the target follows");
    pair.at_source(
        "UPDATE apple SET weight = 8 WHERE id = 5; BEGIN; ALTER TABLE plum RENAME TO old; ALTER INDEX plum_pkey RENAME TO old_pkey;
         CREATE TABLE plum (id int PRIMARY KEY); INSERT INTO plum SELECT generate_series(1, 10); DROP TABLE old; COMMIT",
    )
    .expect("the source moves on");
    sync(&pair, &["--force"]).expect(0);
    pair.assert_equal_ends();
    pair.at_source("DROP TABLE plum").expect("one table less");
    let refused = sync(&pair, &[]).expect(4);
    assert_eq!(findings(&refused, "table-extra"), ["public.plum"]);
    let verify = |code| {
        pair.pgconvoy(&["verify"])
            .expect("verify runs")
            .expect(code)
    };
    verify(3).says("[table-extra] public.plum");
    // What neither end has is equal.
    pair.at_target("DROP TABLE plum")
        .expect("the target follows");
    sync(&pair, &[]).expect(0);
    verify(0);
    // Another name: neither the old table nor the new one is as it was planned.
    pair.at_source("ALTER TABLE pear RENAME TO quince")
        .expect("the source moves on");
    verify(3)
        .says("[table-extra] public.pear")
        .says("[table-missing] public.quince");
    pair.at_target("ALTER TABLE pear RENAME TO quince")
        .expect("the target follows");
    verify(3).says("[table-missing] public.quince");
    pair.at_source("INSERT INTO quince (v) VALUES ('new')")
        .expect("a change");
    sync(&pair, &[]).expect(0);
    verify(0);
    pair.assert_equal_ends();

    // What would refuse a row in the middle of a sync is named before it.
    pair.at_source("ALTER TYPE mood ADD VALUE 'sad'")
        .expect("the source moves on");
    pair.at_source("UPDATE basket SET mood = 'sad'; UPDATE apple SET v = NULL WHERE id = 1; UPDATE quince SET v = ''")
        .expect("rows that use it");
    pair.at_target(
        "ALTER TABLE apple ALTER v SET NOT NULL; ALTER TABLE quince ADD CHECK (v <> '')",
    )
    .expect("the target is stricter");
    let refused = sync(&pair, &[]).expect(4);
    let mut drifted = findings(&refused, "columns-differ");
    drifted.sort();
    assert_eq!(drifted, ["public.apple", "public.basket", "public.quince"]);
    pair.at_target("ALTER TYPE mood ADD VALUE 'sad'; ALTER TABLE apple ALTER v DROP NOT NULL; ALTER TABLE quince DROP CONSTRAINT quince_v_check")
        .expect("the target follows");
    sync(&pair, &[]).expect(0);
    pair.assert_equal_ends();
}

#[test]
fn a_selection_is_synced_alone_with_what_belongs_to_it() {
    let pair = fruit();
    pair.at_source(
        "INSERT INTO basket VALUES (11, 'b'); INSERT INTO apple (basket, v) VALUES (11, 'new');
         INSERT INTO pear (v) VALUES ('new'); SELECT nextval('free')",
    )
    .expect("the source moves on");
    let outcome = sync(&pair, &["--table", "public.apple"]).expect(3);
    let result = outcome.result();
    let of_sync = result["sync"]["findings"].as_array().expect("findings");
    assert!(
        of_sync.iter().any(|f| f["code"] == "sync-orphans"),
        "an apple without its basket: {of_sync:?}"
    );
    let positions =
        "SELECT (SELECT last_value FROM apple_id_seq), (SELECT last_value FROM pear_id_seq),
                     (SELECT is_called FROM free), (SELECT count(*) FROM pear)";
    assert_eq!(
        pair.at_target(positions).expect("positions"),
        "501|500|f|500"
    );
    sync(&pair, &["--table", "basket", "--table", "apple"]).expect(0);
    // The others stand where the migration left them: nobody has moved them.
    let dry = sync(&pair, &["--skip-data", "--dry-run"]).expect(0);
    assert_eq!(findings(&dry, "target-written"), [""; 0]);
    sync(&pair, &[]).expect(0);
    pair.assert_equal_ends();
    // Copied again whole, beside somebody who reads it.
    pair.at_source("UPDATE pear SET v = 'all of them ' || id")
        .expect("the source moves on");
    let reader = Hold::transaction(&pair.target, DATABASE, "SELECT FROM pear").expect("a reader");
    let outcome = sync(&pair, &["--table", "pear"]).expect(0);
    assert_eq!(done(&outcome, "pear").0, "copy");
    reader.release();
    pair.assert_equal_ends();
    sync(&pair, &["--table", "no.such"])
        .expect(4)
        .says("table-unknown");
    sync(&pair, &["--table", "a[b"]).expect(1).says("a[b");
}

/// Foreign keys fire where the role may not set session_replication_role.
#[test]
fn a_role_that_cannot_silence_foreign_keys_deletes_nothing_that_others_hang_on() {
    let pair = Pair::with(Options {
        target_url: Some(|_, target| target.url_as("loader", Some("pw"), DATABASE)),
        before_agents: Some(|pair| {
            let loader = "CREATE ROLE loader LOGIN BYPASSRLS PASSWORD 'pw'; ALTER DATABASE app OWNER TO loader";
            pair.at_target(loader).map(drop)
        }),
        ..Options::default()
    })
    .expect("a target agent that is no superuser");
    pair.at_source(
        "CREATE TABLE basket (id int PRIMARY KEY, label text);
         CREATE TABLE apple (id int PRIMARY KEY, basket int REFERENCES basket ON DELETE CASCADE);
         CREATE TABLE audit (what text);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN INSERT INTO public.audit VALUES (TG_OP); RETURN coalesce(NEW, OLD); END $$;
         CREATE TRIGGER usual AFTER INSERT OR DELETE ON apple FOR EACH ROW EXECUTE FUNCTION note();
         INSERT INTO basket SELECT i, 'b' FROM generate_series(1, 10) i;
         INSERT INTO apple SELECT i, 1 + i % 10 FROM generate_series(1, 100) i; TRUNCATE audit;",
    )
    .expect("fruit");
    let migrate = pair
        .pgconvoy(&["migrate", "--force"])
        .expect("migrate runs");
    assert!([0, 3].contains(&migrate.code), "{}", migrate.text());
    pair.at_source("INSERT INTO basket VALUES (11, 'b'); DELETE FROM apple WHERE id < 5; INSERT INTO apple VALUES (500, 11); TRUNCATE audit")
        .expect("changes");
    let outcome = sync(&pair, &["--table", "*"]);
    assert!([0, 3].contains(&outcome.code), "{}", outcome.text());
    let apples = "SELECT count(*), max(id), (SELECT count(*) FROM audit) FROM apple";
    assert_eq!(pair.at_target(apples).expect("apples"), "97|500|0");
    pair.at_source("UPDATE basket SET label = 'c' WHERE id = 3")
        .expect("a change");
    sync(&pair, &["--table", "basket"])
        .expect(1)
        .says("session_replication_role")
        .says("apple");
    assert_eq!(pair.at_target(apples).expect("apples"), "97|500|0");
}

#[test]
fn writes_at_the_source_meanwhile_are_told() {
    let pair = fruit();
    pair.at_source("UPDATE apple SET v = 'new' WHERE id = 1")
        .expect("a change");
    // Somebody writes to the target's table without a commit: the sync waits for him, after its snapshot.
    let writer = Hold::transaction(
        &pair.target,
        DATABASE,
        "LOCK TABLE apple IN ROW EXCLUSIVE MODE",
    )
    .expect("a writer");
    let running = pair.spawn(&["sync", "--json"]).expect("sync starts");
    eventually("the sync waits for the writer", PATIENCE, || {
        let waiting =
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'apple'::regclass";
        pair.at_target(waiting).expect("locks") == "1"
    });
    pair.at_source("UPDATE pear SET v = 'later' WHERE id = 2")
        .expect("a change");
    writer.release();
    let outcome = running.wait(PATIENCE).expect("sync ends").expect(0);
    let result = outcome.result();
    let told = &result["sync"];
    assert_eq!(told["source_moved"], "yes", "{told}");
    assert_eq!(told["written_since"], serde_json::json!(["public.pear"]));
    assert_eq!(result["verdict"], "proven", "equal at the snapshot");
    // It was the snapshot that was proven, and the pear came later.
    pair.pgconvoy(&["verify", "--skip-schema"])
        .expect("verify runs")
        .expect(3)
        .says("public.pear");
    sync(&pair, &[]).expect(0);
    pair.assert_equal_ends();
}

#[test]
fn sync_needs_a_finished_migration() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.pgconvoy(&["sync"])
        .expect("sync runs")
        .expect(1)
        .says("migrate");
}

#[test]
fn rows_that_break_a_check_which_is_not_valid_come_again_and_published_rows_that_nothing_identifies_go()
 {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(
        "CREATE TABLE event (id int PRIMARY KEY, n int, v text);
         INSERT INTO event SELECT i, CASE WHEN i > 3 THEN i ELSE -i END, 'v' FROM generate_series(1, 100) i;
         ALTER TABLE event ADD CONSTRAINT positive CHECK (n > 0) NOT VALID;
         COMMENT ON CONSTRAINT positive ON event IS 'from now on';
         CREATE DOMAIN positive AS int;
         CREATE TABLE of_domain (id int PRIMARY KEY, n positive, v text);
         INSERT INTO of_domain SELECT id, n, v FROM event;
         ALTER DOMAIN positive ADD CONSTRAINT positive CHECK (VALUE > 0) NOT VALID;
         CREATE TABLE journal (line text); INSERT INTO journal SELECT 'line ' || i % 7 FROM generate_series(1, 100) i;
         CREATE TABLE place (id int NOT NULL UNIQUE, v text) PARTITION BY RANGE (id);
         CREATE TABLE place_1 PARTITION OF place FOR VALUES FROM (0) TO (1000);
         ALTER TABLE place_1 REPLICA IDENTITY NOTHING;
         INSERT INTO place SELECT i, 'v' FROM generate_series(1, 100) i;
         CREATE PUBLICATION told FOR TABLE journal, place;",
    )
    .expect("rows older than their checks");
    pair.migrate(&[]);
    // More than a third: else worth copying again whole.
    let changes =
        "UPDATE event SET v = 'w' WHERE id > 40; UPDATE of_domain SET v = 'w' WHERE id > 40";
    pair.at_source(changes).expect("changes");
    pair.at_target("UPDATE event SET n = 1 WHERE id = 1; DELETE FROM event WHERE id = 2")
        .expect("rows to mend");
    pair.at_target(
        "INSERT INTO journal VALUES ('tried'), ('line 3'); INSERT INTO place VALUES (101, 'tried')",
    )
    .expect("the target is tried out");
    sync(&pair, &["--force"]).expect(0);
    pair.assert_equal_ends();

    // Neither TRUNCATE nor a replica identity is to be had.
    let reader = Hold::transaction(&pair.target, DATABASE, "SELECT FROM journal");
    let reader = reader.expect("a reader");
    pair.at_source("TRUNCATE journal").expect("nothing is left");
    let refused = sync(&pair, &[]).expect(1);
    refused
        .says("public.journal")
        .says("REPLICA IDENTITY FULL at the target");
    reader.release();
    pair.pgconvoy(&["resume"]).expect("resume runs").expect(0);
    pair.assert_equal_ends();
}

#[test]
fn what_was_made_at_both_ends_later_is_brought_up_to_the_source_too() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(
        "CREATE TABLE apple (id int PRIMARY KEY); INSERT INTO apple SELECT generate_series(1, 9);
         CREATE TABLE keyed (a int NOT NULL, b int NOT NULL); INSERT INTO keyed SELECT i, -i FROM generate_series(1, 9) i",
    )
    .expect("apples");
    pair.migrate(&[]);
    let later = "CREATE MATERIALIZED VIEW apples AS SELECT count(*) AS n FROM apple; CREATE SEQUENCE free; ALTER TABLE keyed ADD PRIMARY KEY (b)";
    pair.at_target(later).expect("the target follows");
    pair.at_source(&format!(
        "{later}; INSERT INTO apple VALUES (10); REFRESH MATERIALIZED VIEW apples; SELECT setval('free', 77);
         CREATE ROLE painter; SELECT lo_from_bytea(9001, 'picture'); ALTER LARGE OBJECT 9001 OWNER TO painter"
    ))
    .expect("the source moves on");
    pair.at_target("CREATE ROLE painter; INSERT INTO keyed VALUES (0, 0)")
        .expect("a role, and a row of the target's own");
    // The key's column comes first, and what was left is known all the same.
    let refused = sync(&pair, &[]).expect(4);
    assert_eq!(findings(&refused, "target-written"), ["public.keyed"]);
    pair.at_target("DELETE FROM keyed WHERE a = 0")
        .expect("it is as it was");
    let same = pair.pgconvoy(&["verify", "--skip-schema", "--include-table", "keyed"]);
    same.expect("verify runs").expect(0);
    sync(&pair, &[]).expect(0);
    for sql in [
        "SELECT n FROM apples",
        "SELECT last_value FROM free",
        "SELECT lomowner::regrole FROM pg_largeobject_metadata",
    ] {
        let source = pair.at_source(sql).expect("the source");
        assert_eq!(pair.at_target(sql).expect("the target"), source, "{sql}");
    }
    pair.at_source("SELECT lo_unlink(9001)")
        .expect("the last large object goes");
    sync(&pair, &[]).expect(0);
    pair.pgconvoy(&["verify"]).expect("verify runs").expect(0);
}

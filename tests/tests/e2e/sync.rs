//! `sync` brings the target up to what the source is at one new snapshot, whatever the tables are, and disturbs nothing.
use pgconvoy_tests::Pair;
use pgconvoy_tests::program::Outcome;

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
    (how, number("inserted"), number("changed"), number("deleted"))
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
    for table in ["customer", "order", "log", "hashed", "rewritten", "Odd \"name"] {
        assert_eq!(of(table), done(&dry, table), "{table} in the dry run");
    }
    let result = outcome.result();
    assert_eq!(result["verdict"], "proven");
    assert_eq!(result["sync"]["source_moved"], "no", "{}", result["sync"]);
    pair.assert_equal_ends();
    pair.pgconvoy(&["verify"]).expect("verify runs").expect(0);
    let states = "SELECT string_agg(tgname || tgenabled, ' ' ORDER BY tgrelid::regclass::text, tgname)
                  FROM pg_trigger WHERE NOT tgisinternal";
    assert_eq!(
        pair.at_source(states).expect("triggers"),
        pair.at_target(states).expect("triggers")
    );
}

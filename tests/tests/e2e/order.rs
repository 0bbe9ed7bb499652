//! What needs something else comes after it; what cannot be had is told and holds up nothing.
use pgconvoy_tests::Pair;

fn pair() -> Pair {
    Pair::new().expect("two servers and two agents")
}

/// Each view that reads another was made before it: in the order of OIDs nothing could be filled.
const VIEWS: &str = "
    CREATE TABLE item (id int PRIMARY KEY);
    INSERT INTO item SELECT generate_series(1, 100);
    CREATE VIEW door AS SELECT id FROM item;
    CREATE FUNCTION known() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM item; END;
    CREATE FUNCTION hidden() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT n FROM public.counted); END $$;
    CREATE MATERIALIZED VIEW reads_hidden AS SELECT hidden() AS n WITH NO DATA;
    CREATE MATERIALIZED VIEW reads_known AS SELECT known() AS n;
    CREATE MATERIALIZED VIEW reads_door AS SELECT id + 1 AS next FROM door;
    CREATE MATERIALIZED VIEW even AS SELECT id FROM item WHERE id % 2 = 0;
    CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM item;
    CREATE MATERIALIZED VIEW never AS SELECT id FROM item WITH NO DATA;
    CREATE OR REPLACE VIEW door AS SELECT id FROM even;
    CREATE OR REPLACE FUNCTION known() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT sum(next) FROM reads_door; END;
    REFRESH MATERIALIZED VIEW reads_door;
    REFRESH MATERIALIZED VIEW reads_known;
    REFRESH MATERIALIZED VIEW reads_hidden;
    CREATE UNIQUE INDEX ON counted (n);
    CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no % here', tg_tag; END $$;
    CREATE EVENT TRIGGER closed ON ddl_command_start EXECUTE FUNCTION refuse();";

#[test]
fn materialized_views_are_refreshed_after_those_that_they_read() {
    let pair = pair();
    pair.at_source(VIEWS).expect("views upon views");
    pair.migrate(&[]).says("proven");
    let contents = "SELECT (SELECT n FROM reads_hidden), (SELECT n FROM reads_known), (SELECT sum(next) FROM reads_door),
                           (SELECT relispopulated FROM pg_class WHERE relname = 'never')";
    assert_eq!(
        pair.at_target(contents).expect("the views"),
        "100|2600|2600|f"
    );
    let planned = pair
        .at_target(
            "SELECT string_agg(v ->> 'name', ' ' ORDER BY n) FROM pgconvoy.steps,
               jsonb_array_elements(work -> 'views') WITH ORDINALITY AS views (v, n) WHERE kind = 'refresh'",
        )
        .expect("the plan");
    let at = |name: &str| planned.find(name).expect("it is planned");
    assert!(at("even") < at("reads_door"), "{planned}");
    assert!(at("reads_door") < at("reads_known"), "{planned}");
    // What only running the function tells: tried again.
    assert!(at("reads_hidden") < at("counted"), "{planned}");
    // The event trigger that refuses all DDL came too: it stands in nobody's way.
    pair.pgconvoy(&["clean"]).expect("clean runs").expect(0);
    let open = "DROP EVENT TRIGGER closed";
    pair.at_source(open).expect("it was there");
    pair.at_target(open).expect("it came");
    pair.assert_equal_ends();
}

/// The larger table goes first, and its rows need those of the other.
const DICTIONARY: &str = "
    CREATE SCHEMA zz;
    CREATE TABLE zz.dict (val text PRIMARY KEY);
    INSERT INTO zz.dict VALUES ('a'), ('b');
    CREATE FUNCTION zz.in_dict(p text) RETURNS boolean LANGUAGE sql STABLE SET search_path = zz
      AS $$ SELECT EXISTS (SELECT FROM dict WHERE val = p) $$;
    CREATE TABLE zz.word (id serial PRIMARY KEY, val text CONSTRAINT known CHECK (zz.in_dict(val)));
    INSERT INTO zz.word (val) SELECT CASE i % 2 WHEN 0 THEN 'a' ELSE 'b' END FROM generate_series(1, 10000) i;";

#[test]
fn rows_whose_check_reads_another_table_come_after_that_one() {
    let pair = pair();
    pair.at_source(DICTIONARY).expect("a dictionary");
    pair.migrate(&["--streams", "1"])
        .says("proven")
        .says("zz.word part 0 is put off");
    pair.assert_equal_ends();
}

/// The largest table goes first; its rows, and what is built on them, need those of `rate`, which need those of `currency`.
const RATES: &str = "
    CREATE TABLE currency (code text PRIMARY KEY);
    CREATE FUNCTION listed(c text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
      BEGIN
        PERFORM FROM public.currency WHERE code = c;
        IF NOT FOUND THEN RAISE EXCEPTION 'no currency %', c; END IF;
        RETURN true;
      END $$;
    CREATE TABLE rate (code text PRIMARY KEY CHECK (listed(code)), value numeric, pad text);
    CREATE FUNCTION rate(c text) RETURNS numeric LANGUAGE plpgsql IMMUTABLE AS $$
      DECLARE found numeric;
      BEGIN SELECT value INTO STRICT found FROM rate WHERE code = c; RETURN found; END $$;
    CREATE FUNCTION rate_or_none(c text) RETURNS numeric LANGUAGE sql IMMUTABLE
      AS 'SELECT value FROM public.rate WHERE code = c';
    CREATE FUNCTION same_rate(a text, b text) RETURNS boolean LANGUAGE sql IMMUTABLE AS
      'SELECT coalesce(public.rate_or_none(a) = public.rate_or_none(b), false)';
    CREATE OPERATOR ~~~ (LEFTARG = text, RIGHTARG = text, FUNCTION = same_rate);
    INSERT INTO currency SELECT 'C' || i FROM generate_series(1, 300) i;
    INSERT INTO rate SELECT code, substr(code, 2)::numeric, repeat('x', 300) FROM currency;
    CREATE TABLE bill (id int PRIMARY KEY, code text, worth numeric GENERATED ALWAYS AS (rate(code)) STORED);
    CREATE TABLE sale (id int PRIMARY KEY, code text);
    INSERT INTO bill SELECT i, 'C' || 1 + i % 2 FROM generate_series(1, 10000) i;
    INSERT INTO sale SELECT id, code FROM bill UNION ALL SELECT id + 10000, code FROM bill;
    CREATE INDEX by_rate ON sale (rate_or_none(code));
    CREATE INDEX alike ON sale (id) WHERE code ~~~ 'C2';";

#[test]
fn what_functions_make_of_rows_of_other_tables_is_made_when_these_are_there() {
    let pair = pair();
    pair.at_source(RATES).expect("rates");
    pair.migrate(&["--streams", "1"])
        .says("public.bill part 0 is put off")
        .says("public.rate part 0 is put off");
    let by_index = "SET enable_seqscan = off; SET enable_bitmapscan = off;
        SELECT count(*) FROM sale WHERE rate_or_none(code) = 2;
        SELECT count(*) FROM sale WHERE code ~~~ 'C2' AND id > 0";
    assert_eq!(
        pair.at_target(by_index).expect("the indexes"),
        "10000\n10000"
    );
    pair.assert_equal_ends();
}

#[test]
fn rows_whose_check_finds_its_table_by_the_search_path_of_its_caller_cross() {
    let pair = pair();
    pair.at_source(
        "CREATE SCHEMA zz;
         CREATE TABLE zz.zz_dict (val text PRIMARY KEY);
         INSERT INTO zz.zz_dict VALUES ('a'), ('c');
         CREATE FUNCTION zz.known(p text) RETURNS boolean LANGUAGE plpgsql STABLE
           AS $$ BEGIN RETURN EXISTS (SELECT FROM zz_dict WHERE val = p); END $$;
         SET search_path = zz;
         CREATE TABLE zz.word (id serial PRIMARY KEY, val text CHECK (known(val)), r regclass);
         INSERT INTO zz.word (val, r) VALUES ('a', 'pg_catalog.pg_class'), ('c', 'zz.word');",
    )
    .expect("a dictionary");
    pair.migrate(&["--streams", "1"]);
    pair.assert_equal_ends();
}

#[test]
fn rows_that_no_order_makes_right_are_told_with_their_constraint() {
    let pair = pair();
    pair.at_source(DICTIONARY).expect("a dictionary");
    pair.at_source("DELETE FROM zz.dict WHERE val = 'b'")
        .expect("rows that their own check would refuse");
    for command in ["migrate", "resume"] {
        pair.pgconvoy(&[command])
            .expect("it ends")
            .expect(1)
            .says("zz.word")
            .says("violates check constraint \"known\"");
    }
}

#[test]
fn a_sequence_that_is_missing_at_the_target_is_a_difference_and_no_error() {
    let pair = pair();
    pair.at_source(
        "CREATE TABLE item (id int PRIMARY KEY); INSERT INTO item VALUES (1);
         CREATE SEQUENCE a; CREATE SEQUENCE missing; CREATE SEQUENCE z;
         SELECT setval('a', 5), setval('missing', 6), setval('z', 7)",
    )
    .expect("sequences");
    pair.at_target("CREATE TABLE item (id int PRIMARY KEY); CREATE SEQUENCE a; CREATE SEQUENCE z")
        .expect("a schema that lacks one");
    pair.pgconvoy(&["migrate", "--skip-schema"])
        .expect("migrate runs")
        .expect(3)
        .says("sequence-not-set")
        .says("public.missing");
    let positions = "SELECT (SELECT last_value FROM a), (SELECT last_value FROM z), (SELECT count(*) FROM item)";
    assert_eq!(pair.at_target(positions).expect("the target"), "5|7|1");
}

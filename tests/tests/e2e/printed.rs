//! Expressions as applications write them: PostgreSQL prints what it read from a dump otherwise, and that is no difference.
use pgconvoy_tests::Pair;

const SCHEMA: &str = "
    CREATE TABLE t (
        id int PRIMARY KEY, a int, b text, st varchar(20), n numeric[],
        CONSTRAINT between_and CHECK (a BETWEEN 1 AND 5 AND a <> 3),
        CONSTRAINT in_or CHECK (id IN (1, a) OR b = 'x' OR id > 0),
        CONSTRAINT words CHECK (st IN ('new', 'it''s, done')),
        CONSTRAINT not_words CHECK (st NOT IN ('(a AND b) AND c', 'y')),
        g boolean GENERATED ALWAYS AS (a BETWEEN 1 AND 9 AND b IS NOT NULL) STORED
    );
    CREATE DOMAIN word AS varchar CHECK (VALUE IN ('a', 'b') AND VALUE <> 'c');
    CREATE TABLE u (w word DEFAULT 'a', d boolean DEFAULT (1 BETWEEN 0 AND 2 AND true));
    CREATE INDEX partly ON t (a) WHERE a BETWEEN 1 AND 5 AND st IN ('new', 'old');
    CREATE INDEX expression ON t ((a BETWEEN 1 AND 5 AND b = 'x'));
    CREATE STATISTICS both_of (dependencies) ON a, (st IN ('new', 'old') AND a BETWEEN 1 AND 2) FROM t;
    ALTER TABLE t ENABLE ROW LEVEL SECURITY;
    CREATE POLICY few ON t USING (a BETWEEN 1 AND 5 AND st IN ('new', 'old')) WITH CHECK (a BETWEEN 1 AND 4 AND b <> '');
    CREATE VIEW v AS SELECT id, - '1'::int AS minus, st IN ('new', 'old') AS known FROM t
        WHERE a BETWEEN 1 AND 5 AND b <> '' AND (id, a) = (1, 2);
    CREATE MATERIALIZED VIEW m AS SELECT * FROM t WHERE a BETWEEN 1 AND 5 AND st IN ('new', 'old');
    CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER sometimes BEFORE UPDATE ON t FOR EACH ROW
        WHEN (NEW.a BETWEEN 1 AND 5 AND NEW.st IN ('new', 'old')) EXECUTE FUNCTION touch();
    CREATE FUNCTION body(x int) RETURNS boolean LANGUAGE sql BEGIN ATOMIC SELECT x BETWEEN 1 AND 5 AND x <> 3; END;
    CREATE RULE never AS ON DELETE TO u WHERE OLD.w IN ('a', 'b') AND OLD.d AND OLD.w <> 'c' DO INSTEAD NOTHING;
    INSERT INTO t (id, a, b, st) VALUES (1, 2, 'x', 'new');";

#[test]
fn what_an_application_wrote_is_what_the_dump_says() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(SCHEMA).expect("an application's schema");
    // A sequence keeps what a transaction that is undone did.
    pair.at_source(
        "CREATE SEQUENCE ddl;
         CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('public.ddl'); END $$;
         CREATE EVENT TRIGGER noted ON ddl_command_start WHEN TAG IN ('CREATE VIEW') EXECUTE FUNCTION note();",
    )
    .expect("an event trigger");
    pair.migrate(&[]);
    pair.pgconvoy(&["verify"]).expect("verify runs").expect(0);
    let fired = pair.at_target("SELECT is_called FROM ddl").expect("ddl");
    assert_eq!(fired, "f", "verify prints views, and nobody is to notice");
    // What means something else is still found.
    pair.at_target(
        "ALTER TABLE t DROP CONSTRAINT words, ADD CONSTRAINT words CHECK (st IN ('new', 'it''s done'))",
    )
    .expect("another check");
    pair.at_target("CREATE OR REPLACE VIEW v AS SELECT id, - '1'::int AS minus, st IN ('new', 'old') AS known FROM t WHERE a BETWEEN 1 AND 6")
        .expect("another view");
    pair.pgconvoy(&["verify"])
        .expect("verify runs")
        .expect(3)
        .says("constraint words on public.t")
        .says("view public.v")
        .says("2 differences");
}

#[test]
fn what_was_told_and_accepted_does_not_hide_what_changes_later() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(
        "CREATE ROLE app LOGIN; CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t OWNER TO app",
    )
    .expect("a role");
    pair.at_target("CREATE ROLE app LOGIN CONNECTION LIMIT 3")
        .expect("another role of the name");
    pair.migrate(&[]).says("role-differs");
    let verify = |code| {
        pair.pgconvoy(&["verify"])
            .expect("verify runs")
            .expect(code)
    };
    verify(0);
    pair.at_target("ALTER ROLE app SUPERUSER")
        .expect("a change");
    verify(3).says("role app");
    verify(3).says("role app");
    pair.at_target("ALTER ROLE app NOSUPERUSER")
        .expect("as it was");
    verify(0);
}

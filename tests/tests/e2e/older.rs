//! Targets that are older than their source: what they do not know is named before anything is done, and where only single objects are
//! refused, everything else arrives.
use pgconvoy_tests::Pair;
use pgconvoy_tests::majors;

fn pair(source: u32, target: u32, sql: &str) -> Option<Pair> {
    let pair = Pair::with(majors::options(source, target)?).expect("two servers and two agents");
    pair.at_source(sql).expect("what the older does not know");
    Some(pair)
}

/// Each of these objects would cost a table, or a type of its columns.
const VITAL: &str = "
    CREATE TABLE virtual (a int, twice int GENERATED ALWAYS AS (a * 2) VIRTUAL);
    CREATE TABLE ordered (id uuid DEFAULT uuidv7() PRIMARY KEY);
    CREATE TABLE parent (a int CONSTRAINT alone NOT NULL NO INHERIT);
    CREATE TABLE patient (a int) WITH (autovacuum_vacuum_max_threshold = 1000);
    CREATE TABLE document (body text CONSTRAINT is_json CHECK (body IS JSON));
    CREATE COLLATION plain (provider = builtin, locale = 'C.UTF-8');
    CREATE TABLE sorted (t text COLLATE pg_unicode_fast);
    CREATE TABLE usual (id int PRIMARY KEY, body json CHECK (json_strip_nulls(body) IS NOT NULL));";

#[test]
fn what_would_cost_a_table_is_a_blocker_that_names_it() {
    let Some(pair) = pair(18, 15, VITAL) else {
        return;
    };
    let named = [
        "public.virtual.twice",
        "uuidv7()",
        "column public.ordered.id",
        "alone on public.parent",
        "public.patient: autovacuum_vacuum_max_threshold=1000",
        "constraint is_json on public.document",
        "public.plain",
        "collation pg_unicode_fast",
    ];
    let preflight = pair
        .pgconvoy(&["preflight"])
        .expect("preflight runs")
        .expect(4);
    let blockers: Vec<&str> = preflight
        .stderr
        .lines()
        .chain(preflight.stdout.lines())
        .filter(|line| line.contains("target-too-old"))
        .collect();
    for name in named {
        assert!(
            blockers
                .iter()
                .any(|line| line.contains("BLOCKER") && line.contains(name)),
            "no blocker names {name}: {blockers:#?}"
        );
    }
    assert!(
        blockers.iter().all(|line| !line.contains("usual")),
        "{blockers:#?}"
    );
    pair.pgconvoy(&["migrate"]).expect("migrate runs").expect(4);
    let made = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    assert_eq!(pair.at_target(made).expect("the target"), "0");
    // Without the tables that are too new the rest goes.
    let excluded = [
        "virtual", "ordered", "parent", "patient", "document", "sorted",
    ]
    .map(|table| format!("public.{table}"));
    pair.at_source("DROP COLLATION plain").expect("gone");
    let mut arguments = vec!["preflight"];
    for table in &excluded {
        arguments.extend(["--exclude-table", table.as_str()]);
    }
    let preflight = pair.pgconvoy(&arguments).expect("preflight runs").expect(0);
    assert!(
        !preflight.text().contains("target-too-old"),
        "{}",
        preflight.text()
    );
}

/// Each of these is lost alone.
const LOST: &str = "
    CREATE EXTENSION btree_gist;
    CREATE TABLE item (id int PRIMARY KEY, name text, body jsonb, owner int);
    INSERT INTO item SELECT i, 'item ' || i, '{\"a\": 1}', i FROM generate_series(1, 1000) i;
    CREATE UNIQUE INDEX item_name ON item (name) NULLS NOT DISTINCT;
    CREATE VIEW invoked WITH (security_invoker = true) AS SELECT id FROM item;
    CREATE VIEW any_item AS SELECT any_value(name) AS name FROM item;
    CREATE VIEW json_item AS SELECT JSON_VALUE(body, '$.a') AS a FROM item;
    CREATE TABLE part (item int, owner int,
        CONSTRAINT part_item FOREIGN KEY (item, owner) REFERENCES pair ON DELETE SET NULL (owner),
        CONSTRAINT not_now CHECK (item > 0) NOT ENFORCED);
    INSERT INTO part SELECT i, i FROM generate_series(1, 100) i;
    CREATE TABLE stay (room int, during tsrange, CONSTRAINT stay_key PRIMARY KEY (room, during WITHOUT OVERLAPS));
    INSERT INTO stay VALUES (1, '[2024-01-01,2024-01-02)'), (1, '[2024-01-02,2024-01-03)');
    CREATE TABLE split (id int GENERATED ALWAYS AS IDENTITY, n int) PARTITION BY RANGE (n);
    CREATE TABLE split_1 PARTITION OF split FOR VALUES FROM (0) TO (100);
    INSERT INTO split (n) SELECT i FROM generate_series(0, 99) i;
    CREATE PUBLICATION chosen FOR TABLE item (id) WHERE (id > 10);
    GRANT MAINTAIN ON item TO PUBLIC;
    CREATE FUNCTION usual() RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE FUNCTION \"look-alike\"() RETURNS text LANGUAGE sql AS $x$ SELECT '
--
-- TOC entry 1 (class 1 OID 1)
--
'::text $x$;
    CREATE VIEW plain AS SELECT id, name FROM item;";

#[test]
fn what_is_refused_alone_is_named_before_and_after_and_costs_nothing_else() {
    let referenced = "CREATE TABLE pair (id int, owner int, PRIMARY KEY (id, owner));
                      INSERT INTO pair SELECT i, i FROM generate_series(1, 100) i;";
    let Some(pair) = pair(18, 14, &format!("{referenced}{LOST}")) else {
        return;
    };
    let warned = [
        "public.item_name",
        "public.invoked",
        "any_value()",
        "view public.json_item",
        "part_item on public.part",
        "not_now on public.part",
        "stay_key on public.stay",
        "chosen",
        "public.split.id",
        "public.item to PUBLIC",
    ];
    let mut preflight = pair
        .pgconvoy(&["preflight"])
        .expect("preflight runs")
        .expect(0);
    for name in warned {
        preflight = preflight.says(name);
    }
    let mut migrate = pair.pgconvoy(&["migrate"]).expect("migrate runs").expect(3);
    for name in [
        "item_name",
        "invoked",
        "any_item",
        "json_item",
        "part_item",
        "not_now",
        "stay_key",
        "chosen",
    ] {
        migrate = migrate.says(name);
    }
    let target = |sql: &str| pair.at_target(sql).expect("the target answers");
    assert_eq!(
        target(
            "SELECT count(*) FROM item UNION ALL SELECT count(*) FROM part UNION ALL SELECT count(*) FROM stay"
        ),
        "1000\n100\n2"
    );
    assert_eq!(target("SELECT name FROM plain WHERE id = 7"), "item 7");
    target("INSERT INTO split (n) VALUES (1)");
    assert_eq!(target("SELECT max(id) FROM split"), "101");
    assert_eq!(target("SELECT usual()"), "1");
    assert_eq!(target("SELECT length(\"look-alike\"()) > 30"), "t");
    assert_eq!(
        target("SELECT count(*) FROM pg_index WHERE indrelid = 'item'::regclass AND indisprimary"),
        "1"
    );
}

/// PostgreSQL 16 prints NO INDENT with each XMLSERIALIZE, which 15 does not take.
#[test]
fn xmlserialize_is_named_before_and_made_by_hand_it_is_believed() {
    let view =
        "CREATE VIEW serial AS SELECT id, XMLSERIALIZE(CONTENT body AS text) AS body FROM item";
    let sql = format!(
        "CREATE TABLE item (id int PRIMARY KEY, body xml); INSERT INTO item SELECT i, '<a/>' FROM generate_series(1, 100) i;
         {view}; CREATE VIEW usual AS SELECT id, XMLPARSE(CONTENT '<b/>') AS body, '{{XMLEXPR :op 6'::text AS alike FROM item;"
    );
    let Some(pair) = pair(16, 15, &sql) else {
        return;
    };
    let preflight = pair
        .pgconvoy(&["preflight"])
        .expect("preflight runs")
        .expect(0);
    let text = preflight.text();
    let mut told = text.lines().filter(|line| line.contains("target-too-old"));
    let line = told.next().expect("XMLSERIALIZE is told");
    assert!(
        line.contains("WARNING") && line.contains("view public.serial"),
        "{line}"
    );
    assert!(!text.contains("public.usual"), "{text}");
    pair.pgconvoy(&["migrate"])
        .expect("migrate runs")
        .expect(3)
        .says("VIEW public serial");
    pair.pgconvoy(&["verify"]).expect("verify runs").expect(3);
    pair.at_target(view).expect("by hand");
    pair.pgconvoy(&["verify"]).expect("verify runs").expect(0);
}

//! The run folder: what a migration leaves for people.
use std::fs;

use pgconvoy_tests::Pair;

const SHOP: &str = r#"
    CREATE SCHEMA storage;
    CREATE TABLE storage.buckets (id text PRIMARY KEY, name text, public bool, allowed_mime_types text[], secret_token text);
    INSERT INTO storage.buckets VALUES ('avatars', 'it''s', true, '{image/png,image/jpeg}', 'hush-hush'), ('docs', NULL, false, NULL, NULL);
    CREATE TABLE storage.objects (id int PRIMARY KEY, bucket_id text);
    ALTER TABLE storage.objects ENABLE ROW LEVEL SECURITY;
    CREATE POLICY "read avatars" ON storage.objects FOR SELECT USING (bucket_id = 'avatars');
    CREATE TABLE "Odd name" (id int PRIMARY KEY, owner text);
    ALTER TABLE "Odd name" ENABLE ROW LEVEL SECURITY;
    ALTER TABLE "Odd name" FORCE ROW LEVEL SECURITY;
    CREATE POLICY "it's mine" ON "Odd name" AS RESTRICTIVE FOR UPDATE TO postgres
        USING (owner = current_user) WITH CHECK (owner = current_user AND id > 0);
    CREATE TABLE plain (id int PRIMARY KEY);
    INSERT INTO plain SELECT generate_series(1, 10);
    CREATE FUNCTION hook() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM 'https://me:hush-hush@old.example.org/hook?key=eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZSJ9';
        RETURN NULL; END $$;
    CREATE TRIGGER call AFTER INSERT ON plain FOR EACH ROW EXECUTE FUNCTION hook('wss://live.example.org/x');
    CREATE SCHEMA cron;
    CREATE TABLE cron.job (jobid bigint PRIMARY KEY, command text);
    INSERT INTO cron.job VALUES (7, $$SELECT net.http_post('https://jobs.example.org/hook', '{"Authorization": "Bearer hush-hush"}')$$);
    CREATE SCHEMA zone;
    DO $$ BEGIN FOR i IN 1..100 LOOP
        EXECUTE format('CREATE FUNCTION zone.call_%s() RETURNS text LANGUAGE sql AS %L', i, 'SELECT ''https://zone.example.org''');
    END LOOP; END $$;"#;

const SECURITY: &str = "
    SELECT c.oid::regclass::text, relrowsecurity, relforcerowsecurity, polname, polcmd, polpermissive,
           polroles::regrole[]::text, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)
    FROM pg_class c LEFT JOIN pg_policy p ON p.polrelid = c.oid
    WHERE relkind = 'r' AND relnamespace::regnamespace::text IN ('public', 'storage') ORDER BY 1, 4";

#[test]
fn the_run_folder_has_what_the_design_says_and_it_runs() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(SHOP).expect("a shop with storage");
    pair.migrate(&[]);
    let read = |name: &str| {
        let path = pair.latest_run().join(name);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    for name in [
        "events.jsonl",
        "schema.sql",
        "summary.txt",
        "verification.json",
        "report.html",
    ] {
        assert!(!read(name).is_empty(), "{name} is empty");
    }

    // Addresses in code are told, and what is secret in them is not.
    for name in ["summary.txt", "report.html"] {
        let text = read(name);
        for words in [
            "old.example.org is written into it, and a key",
            "live.example.org",
            "jobs.example.org is written into it",
            "3 more functions, triggers and jobs",
            "pgconvoy monitor",
        ] {
            assert!(text.contains(words), "{words} is not in {name}:\n{text}");
        }
        for secret in ["hush-hush", "eyJ", "/hook"] {
            assert!(!text.contains(secret), "{secret} is in {name}");
        }
    }

    // The policies, taken away at the target, come back as they are at the source.
    let wanted = pair.at_source(SECURITY).expect("the source");
    pair.at_target(
        "DROP POLICY \"it's mine\" ON \"Odd name\"; DROP POLICY \"read avatars\" ON storage.objects;
         ALTER TABLE \"Odd name\" DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;
         ALTER TABLE plain ENABLE ROW LEVEL SECURITY; ALTER TABLE storage.objects DISABLE ROW LEVEL SECURITY",
    )
    .expect("an open target");
    pair.at_target(&read("rls_policies.sql")).expect("it runs");
    assert_eq!(pair.at_target(SECURITY).expect("the target"), wanted);

    let storage = read("storage_config.sql");
    assert!(
        !storage.contains("hush-hush"),
        "a secret is in it:\n{storage}"
    );
    pair.at_target("DELETE FROM storage.buckets; DROP POLICY \"read avatars\" ON storage.objects")
        .expect("no buckets");
    pair.at_target(&storage).expect("it runs");
    let buckets = "SELECT id, name, public, allowed_mime_types FROM storage.buckets ORDER BY id";
    assert_eq!(
        pair.at_target(buckets).expect("the target"),
        pair.at_source(buckets).expect("the source")
    );
    assert_eq!(pair.at_target(SECURITY).expect("the target"), wanted);

    // The new place's key is written into the function; one is at either end only.
    pair.at_target(
        "CREATE OR REPLACE FUNCTION hook() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN -- was: eyJold
             PERFORM 'https://new.example.org/hook?key=eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoibmV3In0';
             RETURN NULL; END $$;
         CREATE FUNCTION own() RETURNS text LANGUAGE sql AS $$ SELECT 'eyJown' $$; DROP FUNCTION zone.call_1()",
    )
    .expect("a target with its own addresses");
    let told = pair
        .pgconvoy(&["verify"])
        .expect("verify runs")
        .expect(3)
        .says("function public.hook(): it differs in body")
        .says("PERFORM '(masked, here only)'")
        .says("SELECT '(masked)'");
    let ledger = pair
        .at_target("SELECT string_agg(f::text, ' ') FROM pgconvoy.findings f")
        .expect("the ledger");
    let kept = ["events.jsonl", "verification.json", "report.html"].map(read);
    for text in [told.text(), ledger].iter().chain(&kept) {
        for secret in ["eyJ", "new.example.org/hook", "zone.example.org'"] {
            assert!(!text.contains(secret), "{secret} is told:\n{text}");
        }
    }
}

#[test]
fn without_storage_the_file_says_so_and_the_report_is_one_file_without_secrets() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source(
        "CREATE TABLE \"<script>\" (id int PRIMARY KEY); INSERT INTO \"<script>\" VALUES (1)",
    )
    .expect("a table");
    pair.migrate(&[]);
    let storage = fs::read_to_string(pair.latest_run().join("storage_config.sql"));
    let storage = storage.expect("storage_config.sql");
    assert!(storage.contains("there is no schema"), "{storage}");

    pair.pgconvoy(&["report", "--html", "out.html"])
        .expect("report runs")
        .expect(0);
    let html = fs::read_to_string(pair.folder().join("out.html")).expect("out.html");
    for words in ["proven", "&lt;script&gt;", "NEXT_PUBLIC_SUPABASE_URL"] {
        assert!(
            html.contains(words),
            "{words} is not in the report:\n{html}"
        );
    }
    for part in ["<script", "src=", "href=", "url(", "@import"] {
        assert!(!html.contains(part), "the report has {part}");
    }
    for entry in fs::read_dir(pair.latest_run()).expect("the run folder") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("a text file");
        // How the passwords of both servers begin, as they are and in a URL.
        for password in ["pw+", "pw%2B"] {
            assert!(
                !text.contains(password),
                "a password is in {}",
                path.display()
            );
        }
    }
}

/// What is done is done, and its exit code says so, whether or not the folder takes the report.
#[test]
fn a_run_folder_that_takes_no_report_is_a_note() {
    let pair = Pair::new().expect("two servers and two agents");
    pair.at_source("CREATE TABLE item (id int PRIMARY KEY); INSERT INTO item VALUES (1)")
        .expect("a table");
    let folder = pair.folder().join("runs/one");
    for name in ["summary.txt", "rollback.json"] {
        fs::create_dir_all(folder.join(name)).expect("a folder where a file should be");
    }
    for command in [
        &["migrate", "--migration", "one"][..],
        &["verify"],
        &["sync"],
    ] {
        pair.pgconvoy(command)
            .expect("it runs")
            .expect(0)
            .says("the report could not be written")
            .says("pgconvoy report --html");
    }
    pair.pgconvoy(&["rollback"])
        .expect("rollback runs")
        .expect(0)
        .says("rollback.json could not be written");
}

//! Files of storage buckets go along (`--storage-objects`): through the Storage API of both ends, with their rows as they were, compared by
//! their bytes, which each end reads through its own API.
use std::fs;
use std::io::{Seek, SeekFrom, Write};

use pgconvoy_tests::buckets::Buckets;
use pgconvoy_tests::pair::{DATABASE, Options};
use pgconvoy_tests::storage_api::{Contents, Fault, Settings, StorageApi};

const MIB: u64 = 1 << 20;
/// Around the 6 MiB above which an upload is resumable, and what else is a border.
const SIZES: [u64; 9] = [
    0,
    1,
    4095,
    MIB,
    6 * MIB - 1,
    6 * MIB,
    6 * MIB + 1,
    12 * MIB,
    13 * MIB + 5,
];
const ODD_NAMES: [&str; 7] = [
    "ordner/ä ö.png",
    "q?x=1#frag",
    "100%25 +plus&.txt",
    "x//y",
    "\"quoted\" 'name'",
    "日本/語.txt",
    "dots../..three/...",
];

fn uploads(api: &StorageApi) -> Vec<String> {
    let seen = api.seen().into_iter();
    let of = seen.filter(|request| request.method == "POST");
    of.map(|request| request.path).collect()
}

#[test]
fn files_arrive_with_their_rows_and_are_proven() {
    let buckets = Buckets::new().expect("a pair with buckets");
    buckets.fill(&SIZES).expect("files");
    for (at, name) in ODD_NAMES.iter().enumerate() {
        let contents = Contents {
            content_type: "text/plain; charset=utf-8".into(),
            cache_control: "no-cache".into(),
            ..Contents::new(500, at as u64)
        };
        let upload = buckets.source.upload("docs 2", name, &contents);
        upload.expect("a file with an odd name");
    }
    let owners = "UPDATE storage.objects SET owner = gen_random_uuid(), owner_id = 'me', user_metadata = '{\"a\": 1.10}',
                  last_accessed_at = '2020-02-02', created_at = '2019-01-01 00:00:00.123456'";
    buckets.pair.at_source(owners).expect("owners");
    let watcher = "CREATE TABLE uploads (name text, at timestamptz);
                   CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS
                       'BEGIN INSERT INTO public.uploads VALUES (NEW.name, now()); RETURN NULL; END';
                   CREATE TRIGGER told AFTER INSERT OR UPDATE ON storage.objects FOR EACH ROW EXECUTE FUNCTION told()";
    buckets
        .pair
        .at_source(watcher)
        .expect("a trigger of the application");

    let plan = buckets
        .pair
        .pgconvoy(&["preflight", "--storage-objects", "--sample", "0s"]);
    plan.expect("preflight runs").expect(0).says("16 files");
    let done = buckets.pair.migrate(&["--storage-objects", "--json"]);

    let result = done.result();
    assert_eq!(result["objects"]["copied"], 16, "{result}");
    assert_eq!(result["objects"]["proven"], 16);
    assert_eq!(result["differences"], 0);
    buckets.assert_equal_files();
    let versions = "SELECT count(DISTINCT version) || ' ' || count(version) FROM storage.objects";
    let of_source = buckets
        .pair
        .at_source("SELECT string_agg(quote_literal(version), ',') FROM storage.objects");
    let same = format!(
        "SELECT count(*) FROM storage.objects WHERE version IN ({})",
        of_source.expect("versions")
    );
    assert_eq!(buckets.pair.at_target(versions).expect("versions"), "16 16");
    assert_eq!(
        buckets.pair.at_target(&same).expect("versions"),
        "0",
        "the API's own versions stay"
    );

    let report = buckets
        .pair
        .pgconvoy(&["report"])
        .expect("report runs")
        .expect(0);
    report.says("16 files of storage buckets");
    let html =
        fs::read_to_string(buckets.pair.latest_run().join("report.html")).expect("the report");
    assert!(html.contains("16 files of storage buckets"));
    let verify = buckets
        .pair
        .pgconvoy(&["verify"])
        .expect("verify runs")
        .expect(0);
    verify.says("files=16");
    nowhere_is_a_key(&buckets);
}

fn nowhere_is_a_key(buckets: &Buckets) {
    let keys = [buckets.source.key(), buckets.target.key()];
    let mut texts = vec![
        buckets.pair.source_agent.log(),
        buckets.pair.target_agent.log(),
        buckets.pair.source_agent.ready_line().to_owned(),
        buckets.pair.at_target("SELECT (SELECT string_agg(m::text, '') FROM pgconvoy.migrations m) || (SELECT string_agg(o::text, '') FROM pgconvoy.objects o)").expect("the ledger"),
    ];
    for entry in fs::read_dir(buckets.pair.latest_run()).expect("the run folder") {
        texts.push(fs::read_to_string(entry.expect("a file").path()).expect("text"));
    }
    for text in texts {
        assert!(
            keys.iter().all(|key| !text.contains(key)),
            "a key is in: {text}"
        );
    }
}

#[test]
fn verify_finds_a_flipped_byte_a_lost_and_an_extra_file_and_sync_mends_them() {
    let buckets = Buckets::new().expect("a pair with buckets");
    buckets.fill(&[100, 7 * MIB, 3000, 50]).expect("files");
    buckets.pair.migrate(&["--storage-objects"]);
    let flipped = buckets.target.file("avatars", "1").expect("a file");
    let mut file = fs::File::options()
        .write(true)
        .open(flipped)
        .expect("opens");
    file.seek(SeekFrom::Start(5 * MIB + 17)).expect("seeks");
    file.write_all(b"!").expect("writes");
    fs::remove_file(buckets.target.file("avatars", "2").expect("a file")).expect("removes");
    let extra = buckets
        .target
        .upload("docs 2", "extra.txt", &Contents::new(9, 9));
    extra.expect("uploads");

    let verify = buckets
        .pair
        .pgconvoy(&["verify", "--json"])
        .expect("verify runs")
        .expect(3);

    let found = verify.result()["findings"].clone();
    let of = |code: &str| -> Vec<String> {
        let all = found.as_array().expect("findings").iter();
        let of = all.filter(|finding| finding["code"] == code);
        of.map(|finding| finding["object"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(of("file-differs"), ["avatars/1"]);
    assert_eq!(of("file-lost"), ["avatars/2"]);
    assert_eq!(of("file-extra"), ["docs 2/extra.txt"]);

    let before = uploads(&buckets.target).len();
    let sync = buckets
        .pair
        .pgconvoy(&["sync", "--force"])
        .expect("sync runs");
    sync.expect(0)
        .says("2 of 4 files copied")
        .says("1 files deleted");
    assert_eq!(
        uploads(&buckets.target).len() - before,
        2,
        "one whole, one resumable"
    );
    buckets.assert_equal_files();
    buckets
        .pair
        .pgconvoy(&["verify"])
        .expect("verify runs")
        .expect(0);
    assert_eq!(
        buckets.target.files().expect("files"),
        4,
        "nothing is left behind"
    );
}

#[test]
fn sync_carries_what_is_new_or_changed_and_deletes_what_is_gone() {
    let buckets = Buckets::new().expect("a pair with buckets");
    buckets.fill(&[100, 200, 300, 400]).expect("files");
    buckets.pair.migrate(&["--storage-objects"]);
    let upload = |name: &str, bytes| {
        let contents = Contents::new(bytes, 77);
        buckets
            .source
            .upload("avatars", name, &contents)
            .expect("uploads");
    };
    upload("1", 250);
    upload("new/file.png", 8 * MIB);
    let edit =
        "SET storage.allow_delete_query = 'true'; DELETE FROM storage.objects WHERE name = '2';
                UPDATE storage.objects SET last_accessed_at = '2001-01-01' WHERE name = '3'";
    buckets.pair.at_source(edit).expect("edits");

    let before = uploads(&buckets.target).len();
    let counted = buckets
        .pair
        .pgconvoy(&["sync", "--dry-run"])
        .expect("sync runs");
    counted.expect(0).says("2 to copy, 1 to delete");
    buckets
        .pair
        .pgconvoy(&["sync"])
        .expect("sync runs")
        .expect(0);

    let mut uploaded = uploads(&buckets.target).split_off(before);
    uploaded.sort();
    assert_eq!(
        uploaded,
        ["object/avatars/1", "upload/resumable"],
        "and not 3, whose file is the same"
    );
    buckets.assert_equal_files();
    assert_eq!(buckets.target.files().expect("files"), 4);
    buckets
        .pair
        .pgconvoy(&["verify"])
        .expect("verify runs")
        .expect(0);
    let again = buckets
        .pair
        .pgconvoy(&["sync"])
        .expect("sync runs")
        .expect(0);
    again.says("0 of 4 files copied");
}

#[test]
fn a_migration_without_files_gets_them_by_sync() {
    let buckets = Buckets::new().expect("a pair with buckets");
    buckets.fill(&[100, 7 * MIB]).expect("files");
    buckets.pair.migrate(&[]);
    let verify = buckets
        .pair
        .pgconvoy(&["verify", "--storage-objects"])
        .expect("verify runs");
    verify.expect(3).says("file-lost");
    buckets
        .pair
        .pgconvoy(&["sync", "--storage-objects"])
        .expect("sync runs")
        .expect(0);
    buckets.assert_equal_files();
    let verify = buckets
        .pair
        .pgconvoy(&["verify"])
        .expect("verify runs")
        .expect(0);
    verify.says("files=2");
}

#[test]
fn rollback_takes_the_files_back_too() {
    let buckets = Buckets::new().expect("a pair with buckets");
    buckets.fill(&[100, 7 * MIB]).expect("files");
    buckets.pair.migrate(&["--storage-objects"]);
    assert_eq!(buckets.target.files().expect("files"), 2);
    let mut buckets = buckets;
    buckets.pair.target_agent.set("SUPABASE_URL", "");
    buckets.pair.target_agent.restart().expect("restarts");
    let back = buckets.pair.pgconvoy(&["rollback"]).expect("rollback runs");
    back.expect(1).says("2 files").says("Nothing was changed");
    buckets.assert_equal_files();
    let address = buckets.target.url();
    buckets.pair.target_agent.set("SUPABASE_URL", &address);
    buckets.pair.target_agent.restart().expect("restarts");
    let back = buckets.pair.pgconvoy(&["rollback", "--json"]);
    let removed = back.expect("rollback runs").expect(0).result()["removed"].to_string();
    assert!(removed.contains("2 files of storage buckets"), "{removed}");
    assert_eq!(buckets.target.files().expect("files"), 0);
}

#[test]
fn an_agent_that_cannot_use_its_api_is_a_blocker() {
    let mut buckets = Buckets::new().expect("a pair with buckets");
    buckets.fill(&[100]).expect("files");
    let untouched = "SELECT count(*) FROM pg_namespace WHERE nspname IN ('pgconvoy', 'storage')";
    let blocked = |buckets: &Buckets, words: &str| {
        let migrate = buckets.pair.pgconvoy(&["migrate", "--storage-objects"]);
        migrate.expect("migrate runs").expect(4).says(words);
        assert_eq!(buckets.pair.at_target(untouched).expect("the catalog"), "0");
    };
    buckets
        .pair
        .source_agent
        .set("SUPABASE_SERVICE_ROLE_KEY", "wrong-key");
    buckets.pair.source_agent.restart().expect("restarts");
    blocked(&buckets, "refuses the key");
    assert!(!buckets.pair.source_agent.log().contains("wrong-key"));
    buckets
        .pair
        .source_agent
        .set("SUPABASE_SERVICE_ROLE_KEY", "");
    buckets.pair.source_agent.restart().expect("restarts");
    blocked(&buckets, "SUPABASE_SERVICE_ROLE_KEY");
    buckets
        .pair
        .source_agent
        .set("SUPABASE_SERVICE_ROLE_KEY", buckets.source.key());
    buckets.pair.source_agent.restart().expect("restarts");
    buckets
        .pair
        .target_agent
        .set("SUPABASE_URL", "http://127.0.0.1:9");
    buckets.pair.target_agent.restart().expect("restarts");
    blocked(&buckets, "cannot be reached");
    let left_out = [
        "migrate",
        "--storage-objects",
        "--exclude-schema",
        "storage",
    ];
    let migrate = buckets.pair.pgconvoy(&left_out).expect("migrate runs");
    migrate.expect(4).says("storage-not-selected");
    let both = ["migrate", "--storage-objects", "--skip-storage"];
    buckets
        .pair
        .pgconvoy(&both)
        .expect("migrate runs")
        .expect(2);
}

#[test]
fn over_tls_the_api_s_certificate_is_checked() {
    let mut buckets = Buckets::new().expect("a pair with buckets");
    let settings = Settings {
        tls: Some(buckets.pair.pki().join("source.pem")),
        ..Settings::default()
    };
    let secure = StorageApi::start(&buckets.pair.source.url(DATABASE), settings);
    buckets.source = secure.expect("an API that speaks TLS");
    buckets.fill(&[100, 7 * MIB]).expect("files");
    let (address, key) = (buckets.source.url(), buckets.source.key().to_owned());
    let agent = &mut buckets.pair.source_agent;
    agent.set("SUPABASE_URL", &address);
    agent.set("SUPABASE_SERVICE_ROLE_KEY", &key);
    agent.restart().expect("restarts");
    let migrate = buckets.pair.pgconvoy(&["migrate", "--storage-objects"]);
    migrate.expect("migrate runs").expect(4).says("certificate");
    let authority = buckets.pair.pki().join("ca.pem").display().to_string();
    let agent = &mut buckets.pair.source_agent;
    agent.set("SSL_CERT_FILE", &authority);
    agent.restart().expect("restarts");
    buckets.pair.migrate(&["--storage-objects"]);
    buckets.assert_equal_files();
}

#[test]
fn a_row_without_a_file_is_told_and_a_refused_file_is_a_difference_with_its_remedy() {
    let buckets = Buckets::new().expect("a pair with buckets");
    buckets.fill(&[100, 7 * MIB, 300, 400]).expect("files");
    fs::remove_file(buckets.source.file("avatars", "0").expect("a file")).expect("removes");
    let longer = fs::File::options()
        .write(true)
        .open(buckets.source.file("avatars", "3").expect("a file"));
    longer.expect("opens").set_len(500).expect("is longer");
    let limit = "INSERT INTO storage.buckets (id, name, file_size_limit, allowed_mime_types) VALUES
                 ('tight', 'tight', 6300000, NULL), ('typed', 'typed', NULL, '{image/jpeg}')";
    buckets.pair.at_source(limit).expect("buckets");
    let large = Contents::new(7 * MIB, 1);
    buckets
        .source
        .upload("tight", "large", &large)
        .expect("uploads");
    buckets
        .source
        .upload("typed", "png", &Contents::new(7, 1))
        .expect("uploads");
    buckets
        .target
        .faults()
        .inject(Fault::status("POST", "object/avatars/2", 413));

    let migrate = buckets
        .pair
        .pgconvoy(&["migrate", "--storage-objects", "--json"]);
    let migrate = migrate.expect("migrate runs").expect(3);

    let result = migrate.result();
    assert_eq!(result["objects"]["refused"], 3, "{result}");
    assert_eq!(result["objects"]["missing"], 1);
    assert_eq!(result["objects"]["copied"], 2);
    let text = result["findings"].to_string();
    assert!(
        text.contains("file-changed")
            && text.contains("FILE_SIZE_LIMIT")
            && text.contains("allowed_mime_types"),
        "{text}"
    );
    buckets.target.faults().lift_all();
    let raise = "UPDATE storage.buckets SET file_size_limit = NULL, allowed_mime_types = NULL";
    buckets.pair.at_source(raise).expect("raises");
    let sync = buckets
        .pair
        .pgconvoy(&["sync"])
        .expect("sync runs")
        .expect(0);
    sync.says("file-missing");
    buckets.assert_equal_files();
    buckets
        .pair
        .pgconvoy(&["verify"])
        .expect("verify runs")
        .expect(0);
}

#[test]
fn where_the_api_leaves_rows_alone_they_keep_the_source_s_version() {
    let settings = Settings {
        without_rows: true,
        ..Settings::default()
    };
    let buckets = Buckets::with(Options::default(), settings).expect("a pair with buckets");
    buckets.fill(&[100, 300]).expect("files");
    let migrate = buckets
        .pair
        .pgconvoy(&["migrate", "--storage-objects", "--no-verify"]);
    let migrate = migrate.expect("migrate runs").expect(0);
    migrate.says("file-rows-not-written").says("2 files");
    let versions = "SELECT string_agg(version, ' ' ORDER BY name) FROM storage.objects";
    assert_eq!(
        buckets.pair.at_source(versions).expect("versions"),
        buckets.pair.at_target(versions).expect("versions")
    );
}

#[test]
fn skip_storage_leaves_the_schema_storage_out() {
    let buckets = Buckets::new().expect("a pair with buckets");
    buckets.fill(&[100]).expect("files");
    let large = "SELECT lo_from_bytea(0, 'x'); ALTER DATABASE app SET work_mem = '5MB'";
    buckets
        .pair
        .at_source(large)
        .expect("what else a database has");
    buckets.pair.migrate(&["--skip-storage"]);
    let there = "SELECT (SELECT count(*) FROM pg_namespace WHERE nspname = 'storage') || ' ' || (SELECT count(*) FROM profiles)
                 || ' ' || (SELECT count(*) FROM pg_largeobject_metadata) || ' ' || (SELECT count(*) FROM pg_db_role_setting)";
    assert_eq!(
        buckets.pair.at_target(there).expect("the target"),
        "0 100 1 1"
    );
    buckets
        .pair
        .pgconvoy(&["verify"])
        .expect("verify runs")
        .expect(0);
    buckets
        .pair
        .pgconvoy(&["sync", "--skip-storage"])
        .expect("sync runs")
        .expect(0);
}

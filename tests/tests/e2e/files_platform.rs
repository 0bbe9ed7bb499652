//! Supabase in one command, rows and files: the platform's profile writes the rows of storage.objects, whose service is of another level at
//! each end, and the Storage API of the target writes the files, and the same rows once more.
use std::sync::atomic::Ordering;

use pgconvoy_tests::buckets::{Buckets, STORAGE};
use pgconvoy_tests::demo::server::Server;
use pgconvoy_tests::pair::DATABASE;
use pgconvoy_tests::storage_api::{Contents, Fault, Kind, Settings, StorageApi};
use pgconvoy_tests::{PATIENCE, Pair, eventually};

use crate::depot::count;
use crate::platform::dump;
use crate::supabase;

const COMMON: &str = include_str!("files_platform/common.sql");
const NEWER: &str = include_str!("files_platform/newer.sql");
const OLDER: &str = include_str!("files_platform/older.sql");
const OWNERS: &str = include_str!("files_platform/owners.sql");
const USER: &str = include_str!("files_platform/user.sql");

const MIB: u64 = 1 << 20;
const SMALL: u64 = 200;
const ONE_COMMAND: [&str; 4] = ["migrate", "--profile", "supabase", "--storage-objects"];

/// The cloud's newer level, with what the user has made and files of 0 bytes to 8 MiB; and the older level of a self-hosted one.
fn buckets(small: u64) -> Buckets {
    let pair = Pair::new().expect("two servers and two agents");
    for (server, level) in [(&pair.source, NEWER), (&pair.target, OLDER)] {
        for sql in [STORAGE, COMMON, level, OWNERS] {
            server.psql(DATABASE, sql).expect("the platform");
        }
    }
    pair.at_source(USER).expect("the user's part");
    let buckets = Buckets::of(pair, Settings::default()).expect("an API at each end");
    let upload = |bucket: &str, name: &str, bytes, seed| {
        let contents = Contents::new(bytes, seed);
        let uploaded = buckets.source.upload(bucket, name, &contents);
        uploaded.expect("a file");
    };
    for at in 0..small {
        let name = format!("dir{}/deep/{at}.png", at % 7);
        upload("avatars", &name, at * at * 8, at);
    }
    for (at, bytes) in [6 * MIB, 6 * MIB + 1, 8 * MIB].into_iter().enumerate() {
        upload("docs 2", &format!("large {at}"), bytes, 900 + at as u64);
    }
    let as_it_was = "SET session_replication_role = replica;
        UPDATE storage.objects SET owner = (SELECT id FROM auth.users ORDER BY id LIMIT 1), owner_id = 'me', user_metadata = '{\"a\": 1.10}',
            created_at = '2024-02-03 04:05:06.789012', updated_at = '2024-02-04', last_accessed_at = '2024-02-05';
        TRUNCATE public.uploads";
    buckets.pair.at_source(as_it_was).expect("owners and times");
    buckets
}

fn managed(server: &Server) -> Vec<Vec<String>> {
    let dumped = ["auth", "storage"].map(|schema| dump(server, schema, &["--schema-only"]));
    dumped.to_vec()
}

fn uploads(api: &StorageApi) -> usize {
    let seen = api.seen().into_iter();
    seen.filter(|request| request.method == "POST").count()
}

/// Rows as at the source, bytes as at the source, and what the target's level computes of them.
#[track_caller]
fn assert_arrived(buckets: &Buckets) {
    buckets.assert_equal_files();
    let target = |query: &str| count(&buckets.pair, query);
    let files = target("SELECT count(*) FROM storage.objects");
    assert_eq!(
        target("SELECT count(*) FROM storage.objects WHERE level = storage.get_level(name)"),
        files
    );
    let wanted = "SELECT count(DISTINCT (bucket_id, p)) FROM storage.objects, unnest(storage.get_prefixes(name)) p";
    assert_eq!(
        target("SELECT count(*) FROM storage.prefixes"),
        target(wanted)
    );
    let probes = "SELECT count(*) FROM storage.buckets WHERE id LIKE 'pgconvoy%'";
    assert_eq!(target(probes), 0, "a bucket of ours is left");
}

#[test]
fn one_command_brings_rows_and_files_whatever_is_killed_and_takes_both_back() {
    let mut buckets = buckets(SMALL);
    let before = managed(&buckets.pair.target);
    let marker = "INSERT INTO storage.objects (bucket_id, name, is_delete_marker) VALUES ('avatars', 'gone', true)";
    buckets.pair.at_source(marker).expect("a deleted file");
    buckets
        .pair
        .pgconvoy(&["preflight", "--storage-objects", "--sample", "0s"])
        .expect("preflight runs")
        .expect(4)
        .says("[file-versions] storage.objects: 1 rows are of earlier versions")
        .says("[skew-column] storage.objects.is_delete_marker: 1 rows");
    let gone = "SET storage.allow_delete_query = 'true'; DELETE FROM storage.objects WHERE name = 'gone'; TRUNCATE public.uploads";
    buckets.pair.at_source(gone).expect("nothing is deleted");

    // The target agent dies while a large file is half there, and nobody waits for it.
    let held = Fault::new("PATCH", "resumable", Kind::Hold);
    let struck = buckets.target.faults().inject(held);
    let migrate = buckets.pair.spawn(&ONE_COMMAND).expect("migrate starts");
    eventually("a file is held", PATIENCE, || {
        struck.load(Ordering::Relaxed) > 0
    });
    buckets.pair.target_agent.kill().expect("dies");
    drop(migrate.kill().expect("dies"));
    buckets.target.faults().lift_all();
    buckets.pair.target_agent.restart().expect("restarts");
    let resume = buckets.pair.pgconvoy(&["resume", "--json"]);
    let resume = resume.expect("resume runs").expect(0);

    let result = resume.result();
    assert_eq!(result["verdict"], "proven");
    assert_eq!(result["objects"]["proven"], SMALL + 3, "{result}");
    assert_arrived(&buckets);
    assert_eq!(
        count(&buckets.pair, "SELECT count(*) FROM public.uploads"),
        0,
        "the user's trigger has fired"
    );
    assert_eq!(
        count(&buckets.pair, "SELECT count(*) FROM pg_policy"),
        2,
        "the user's policies"
    );
    let more = added(&before, &managed(&buckets.pair.target));
    let users = ["POLICY", "TRIGGER told"];
    for line in &more {
        assert!(users.iter().any(|word| line.contains(word)), "{line}");
    }
    let verify = buckets.pair.pgconvoy(&["verify", "--storage-objects"]);
    verify
        .expect("verify runs")
        .expect(0)
        .says(&format!("files={}", SMALL + 3));

    let uploaded = uploads(&buckets.target);
    buckets
        .pair
        .pgconvoy(&ONE_COMMAND)
        .expect("it runs")
        .expect(0)
        .says("it is finished");
    assert_eq!(
        uploads(&buckets.target),
        uploaded,
        "there was nothing to do"
    );

    sync(&buckets);

    let back = buckets.pair.pgconvoy(&["rollback", "--json"]);
    let removed = back.expect("rollback runs").expect(0).result()["removed"].to_string();
    let files = format!("{} files of storage buckets", SMALL + 3);
    assert!(removed.contains(&files), "{removed}");
    assert_eq!(before, managed(&buckets.pair.target));
    let rows = "SELECT (SELECT count(*) FROM storage.objects) + (SELECT count(*) FROM storage.buckets) + (SELECT count(*) FROM storage.prefixes)
                + (SELECT count(*) FROM auth.users)";
    assert_eq!(count(&buckets.pair, rows), 0);
    buckets.assert_stored(0, 1);
}

/// One file is changed, one is new, one is gone.
#[track_caller]
fn sync(buckets: &Buckets) {
    let upload = |name: &str, bytes| {
        let contents = Contents::new(bytes, 77);
        let uploaded = buckets.source.upload("avatars", name, &contents);
        uploaded.expect("a file");
    };
    upload("dir1/deep/1.png", 7 * MIB);
    upload("another/new.png", 300);
    let gone = "SET storage.allow_delete_query = 'true'; DELETE FROM storage.objects WHERE name = 'dir2/deep/2.png'";
    buckets.pair.at_source(gone).expect("a file goes");
    let before = uploads(&buckets.target);
    buckets
        .pair
        .pgconvoy(&["sync", "--storage-objects"])
        .expect("sync runs")
        .expect(0)
        .says(&format!("2 of {} files copied", SMALL + 3))
        .says("1 files deleted");
    assert_eq!(uploads(&buckets.target) - before, 2);
    assert_arrived(buckets);
    buckets.assert_stored(SMALL as usize + 3, 1);
    buckets
        .pair
        .pgconvoy(&["verify"])
        .expect("verify runs")
        .expect(0);
}

fn added(before: &[Vec<String>], after: &[Vec<String>]) -> Vec<String> {
    let schemas = before.iter().zip(after);
    schemas
        .flat_map(|(before, after)| supabase::added(before, after))
        .collect()
}

#[test]
fn files_that_the_target_has_of_its_own_are_there_again_after_a_rollback() {
    let buckets = buckets(20);
    // Its row has no place at the target.
    let long = "x".repeat(250);
    let uploaded = buckets
        .source
        .upload("docs 2", &long, &Contents::new(5000, 1));
    uploaded.expect("a file with a long name");
    let own = "INSERT INTO storage.buckets (id, name, public) VALUES ('avatars', 'avatars', true)";
    buckets
        .pair
        .at_target(own)
        .expect("a bucket of the target's own");
    for name in ["dir1/deep/1.png", "only here"] {
        let contents = Contents::new(5000, 4242);
        let uploaded = buckets.target.upload("avatars", name, &contents);
        uploaded.expect("a file of the target's own");
    }
    let rows = "SELECT to_jsonb(o) FROM storage.objects o ORDER BY name";
    let kept = |buckets: &Buckets| {
        let bytes = ["dir1/deep/1.png", "only here"].map(|name| {
            let path = buckets.target.file("avatars", name).expect("a row");
            std::fs::read(path).expect("the bytes")
        });
        (buckets.pair.at_target(rows).expect("rows"), bytes)
    };
    let before = kept(&buckets);
    buckets
        .pair
        .pgconvoy(&ONE_COMMAND)
        .expect("it runs")
        .expect(4)
        .says("storage.objects has 2 rows");
    let force = [
        "--profile",
        "supabase",
        "--storage-objects",
        "--force",
        "--json",
    ];
    let migrate = buckets
        .pair
        .migrate(&force)
        .says("[skew-check] storage.objects: name_short: 1 rows do not fulfil");
    assert_eq!(migrate.result()["objects"]["proven"], 20 + 3);
    let gone = format!(
        "SET storage.allow_delete_query = 'true'; DELETE FROM storage.objects WHERE name = '{long}'"
    );
    buckets
        .pair
        .at_source(&gone)
        .expect("what was left out goes");
    assert_arrived(&buckets);
    buckets
        .pair
        .pgconvoy(&["rollback"])
        .expect("rollback runs")
        .expect(0);
    assert_eq!(before, kept(&buckets), "its own files");
    buckets.assert_stored(2, 0);
}

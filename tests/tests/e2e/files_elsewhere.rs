//! An agent that was given the Storage API of another project: it stops before a file goes there, or is deleted there.
use std::fs;

use pgconvoy_tests::buckets::Buckets;
use pgconvoy_tests::pair::AgentProcess;
use pgconvoy_tests::program::Outcome;
use pgconvoy_tests::storage_api::{Contents, Settings, StorageApi};

/// As the operator mistypes it: address and key.
fn give(agent: &mut AgentProcess, api: &StorageApi, file: &std::path::Path) {
    fs::write(file, api.key()).expect("a key");
    // One of its names: an API that both agents use is known by its address.
    agent.set("SUPABASE_URL", &api.url().replace("127.0.0.1", "localhost"));
    agent.set("SUPABASE_KEY_FILE", &file.display().to_string());
    agent.restart().expect("restarts");
}

#[track_caller]
fn run(buckets: &Buckets, command: &[&str], code: i32) -> Outcome {
    let run = buckets.pair.pgconvoy(command).expect("it runs");
    run.expect(code)
}

fn is_untouched(api: &StorageApi) {
    for request in api.seen() {
        assert_eq!(request.method, "GET", "{request:?}");
    }
}

/// An API of another database of the server, with what it lists by itself.
fn stranger(buckets: &Buckets, sql: &str) -> StorageApi {
    let server = &buckets.pair.target;
    server.create_database("stranger").expect("a database");
    let schema = "CREATE SCHEMA storage;
        CREATE TABLE storage.buckets (id text PRIMARY KEY, name text, public boolean, created_at timestamptz);
        CREATE TABLE storage.objects (bucket_id text, name text, version text, metadata jsonb);";
    server.psql("stranger", schema).expect("its schema");
    server.psql("stranger", sql).expect("its buckets");
    StorageApi::start(&server.url("stranger"), Settings::default()).expect("its API")
}

#[test]
fn an_api_of_another_database_gets_no_file_and_loses_none() {
    let mut buckets = Buckets::new().expect("a pair with buckets");
    buckets.fill(&[100, 200, 300]).expect("files");
    let (own, file) = (
        buckets.pair.folder().join("own-key"),
        buckets.pair.folder().join("wrong-key"),
    );
    // Nothing tells it from the right one but that it does not see what the target database gets.
    let empty = stranger(&buckets, "");
    give(&mut buckets.pair.target_agent, &empty, &file);
    run(&buckets, &["migrate", "--storage-objects"], 1)
        .says("is not the Storage API of the target database")
        .says("Start the target agent with the --supabase-url")
        .says("pgconvoy resume");
    is_untouched(&empty);
    let entries = "SELECT (SELECT count(*) FROM pgconvoy.objects) || ' ' || (SELECT count(*) FROM storage.buckets)";
    assert_eq!(buckets.pair.at_target(entries).expect("the ledger"), "0 2");
    give(&mut buckets.pair.target_agent, &buckets.target, &own);
    run(&buckets, &["resume"], 0);
    buckets.assert_equal_files();

    // The source's own, which has files of these names.
    give(&mut buckets.pair.target_agent, &buckets.source, &file);
    let before = buckets.source.seen().len();
    run(&buckets, &["rollback"], 1)
        .says("is not the Storage API of the target database")
        .says("Nothing was changed");
    let gone =
        "SET storage.allow_delete_query = 'true'; DELETE FROM storage.objects WHERE name = '1'";
    buckets.pair.at_source(gone).expect("a file goes");
    run(&buckets, &["sync"], 1).says("is not the Storage API of the target database");
    let seen = buckets.source.seen().split_off(before);
    assert!(
        seen.iter().all(|request| request.method == "GET"),
        "{seen:?}"
    );
    give(&mut buckets.pair.target_agent, &buckets.target, &own);
    run(&buckets, &["resume"], 0);
    buckets.assert_equal_files();
    run(&buckets, &["rollback"], 0);
}

#[test]
fn buckets_that_are_others_are_a_blocker_at_either_end() {
    let mut buckets = Buckets::new().expect("a pair with buckets");
    let uploaded = buckets
        .source
        .upload("docs 2", "a.txt", &Contents::new(9, 9));
    uploaded.expect("a file");
    let strange = stranger(
        &buckets,
        "INSERT INTO storage.buckets VALUES ('avatars', 'avatars', true, '2020-01-01'), ('theirs', 'theirs', true, '2020-01-01')",
    );
    let file = buckets.pair.folder().join("wrong-key");
    let preflight = ["preflight", "--storage-objects", "--sample", "0s"];
    let key = strange.key().to_owned();
    let agent = &mut buckets.pair.source_agent;
    agent.set("SUPABASE_URL", &strange.url());
    agent.set("SUPABASE_SERVICE_ROLE_KEY", &key);
    agent.restart().expect("restarts");
    run(&buckets, &preflight, 4)
        .says("[storage-elsewhere] source agent")
        .says("avatars: made at 2020-01-01")
        .says("docs 2: only the database has it")
        .says("theirs: only the API has it");
    let (address, key) = (buckets.source.url(), buckets.source.key().to_owned());
    let agent = &mut buckets.pair.source_agent;
    agent.set("SUPABASE_URL", &address);
    agent.set("SUPABASE_SERVICE_ROLE_KEY", &key);
    agent.restart().expect("restarts");
    give(&mut buckets.pair.target_agent, &strange, &file);
    run(&buckets, &["migrate", "--storage-objects"], 4)
        .says("[storage-elsewhere] target agent")
        .says("avatars: this database has no buckets")
        .says("give the target agent the --supabase-url");
    is_untouched(&strange);
}

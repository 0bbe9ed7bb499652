//! Supabase itself, of the corpus: a cloud project of the newest level onto an empty self-hosted one of an older level, and the other way
//! round. Without the corpus these are left out, and say so; every rule is proven on a platform of our own (platform.rs).
use std::process::{Command, Stdio};

use pgconvoy_tests::buckets::Buckets;
use pgconvoy_tests::demo::server::Server;
use pgconvoy_tests::pair::{DATABASE, Options};
use pgconvoy_tests::storage_api::Settings;
use pgconvoy_tests::{Pair, corpus};

use crate::depot::count;

const SCHEMAS: &[&str] = &[
    "auth",
    "storage",
    "realtime",
    "extensions",
    "graphql_public",
    "pgbouncer",
];

/// Roles and dump of a level into the server. False: the corpus is not there.
fn load(server: &Server, name: &str) -> bool {
    let purpose = "the migration of a Supabase project";
    let (Some(roles), Some(dump)) = (
        corpus::file(&format!("supabase/{name}.roles.sql"), purpose),
        corpus::file(&format!("supabase/{name}.sql.xz"), purpose),
    ) else {
        return false;
    };
    // Of the cluster: the database that these are about has this name.
    let loaded = psql(server, "postgres")
        .arg("-f")
        .arg(roles)
        .output()
        .expect("psql runs");
    assert!(
        loaded.status.success(),
        "{}",
        String::from_utf8_lossy(&loaded.stderr)
    );
    let mut unpack = Command::new("xz")
        .arg("-dc")
        .arg(dump)
        .stdout(Stdio::piped())
        .spawn()
        .expect("xz runs");
    let sql = unpack.stdout.take().expect("its output");
    let loaded = psql(server, DATABASE)
        .arg("-f")
        .arg("-")
        .stdin(sql)
        .output()
        .expect("psql runs");
    assert!(unpack.wait().expect("xz ends").success());
    // The owner of one event trigger is no superuser, which PostgreSQL refuses, and nothing else.
    let said = String::from_utf8_lossy(&loaded.stderr).into_owned();
    let errors: Vec<&str> = said.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(
        errors
            .iter()
            .all(|line| line.contains("issue_pg_net_access")),
        "{said}"
    );
    server
        .psql(DATABASE, &format!(
            "ALTER ROLE postgres SUPERUSER; ALTER EVENT TRIGGER issue_pg_net_access OWNER TO postgres; ALTER ROLE postgres NOSUPERUSER;
             ALTER DATABASE {DATABASE} OWNER TO postgres"
        ))
        .expect("it is demoted as on the platform");
    true
}

/// psql that goes on after an error, as the dump's readme wants it.
fn psql(server: &Server, database: &str) -> Command {
    let mut psql = server.psql_command(database);
    psql.args(["-v", "ON_ERROR_STOP=0", "-o", "/dev/null"]);
    psql
}

fn pair() -> Pair {
    Pair::with(Options {
        superuser: Some("supabase_admin"),
        // As on the cloud: the source agent is no superuser.
        source_url: Some(|server| server.url_as("postgres", Some(POSTGRES), DATABASE)),
        before_agents: Some(|pair| {
            if load(&pair.source, "cloud-newest") && load(&pair.target, "selfhosted-empty-older") {
                pair.source.psql(
                    DATABASE,
                    &format!("ALTER ROLE postgres PASSWORD '{POSTGRES}'"),
                )?;
            }
            Ok(())
        }),
        ..Options::default()
    })
    .expect("two servers and two agents")
}

const POSTGRES: &str = "the-project-password";

fn is_loaded(pair: &Pair) -> bool {
    count_of(
        &pair.source,
        "SELECT count(*) FROM pg_namespace WHERE nspname = 'auth'",
    ) == 1
}

fn count_of(server: &Server, query: &str) -> u64 {
    server
        .psql(DATABASE, query)
        .expect("the server answers")
        .parse()
        .expect("a number")
}

/// Without rows, grants and comments included.
fn managed(server: &Server) -> Vec<String> {
    let mut command = server.installation().command("pg_dump");
    command.args(["--schema-only", "--dbname", &server.url(DATABASE)]);
    for schema in SCHEMAS {
        command.args(["--schema", schema]);
    }
    let output = command.output().expect("pg_dump runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let noise = |line: &&str| line.is_empty() || line.starts_with("--") || line.starts_with('\\');
    text.lines()
        .filter(|line| !noise(line))
        .map(str::to_owned)
        .collect()
}

/// No line of the platform's is gone or in another place; the lines that came.
#[track_caller]
pub fn added(before: &[String], after: &[String]) -> Vec<String> {
    let mut expected = before.iter().peekable();
    let mut more = Vec::new();
    for line in after {
        match expected.peek() {
            Some(next) if *next == line => drop(expected.next()),
            _ => more.push(line.clone()),
        }
    }
    let lost: Vec<&String> = expected.collect();
    assert!(
        lost.is_empty(),
        "what was the platform's has changed: {lost:#?}"
    );
    more
}

/// The user's objects and rows, by queries whose answers must be alike.
const ALIKE: &[&str] = &[
    "SELECT id, email, encrypted_password, confirmed_at, raw_app_meta_data, raw_user_meta_data, created_at, updated_at FROM auth.users ORDER BY 1",
    "SELECT * FROM auth.identities ORDER BY id",
    "SELECT id, token, user_id, revoked, parent, session_id, created_at, updated_at FROM auth.refresh_tokens ORDER BY 1",
    "SELECT id, user_id, created_at, updated_at, aal, not_after FROM auth.sessions ORDER BY 1",
    "SELECT * FROM auth.one_time_tokens ORDER BY id",
    "SELECT id, bucket_id, name, owner, owner_id, created_at, updated_at, last_accessed_at, metadata, user_metadata FROM storage.objects ORDER BY 1",
    "SELECT id, name, public, file_size_limit, allowed_mime_types FROM storage.buckets ORDER BY 1",
    "SELECT last_value, is_called FROM auth.refresh_tokens_id_seq",
    "SELECT schemaname, tablename, policyname, permissive, ARRAY(SELECT unnest(roles)::text ORDER BY 1), cmd, qual, with_check FROM pg_policies ORDER BY 1, 2, 3",
    "SELECT pg_get_triggerdef(oid), tgenabled FROM pg_trigger t WHERE NOT tgisinternal AND tgname = 'on_auth_user_created'",
    "SELECT pubname, schemaname, tablename FROM pg_publication_tables ORDER BY 1, 2, 3",
    "SELECT c.oid::regclass::text, relowner::regrole, ARRAY(SELECT a::text FROM unnest(relacl) a ORDER BY 1), relrowsecurity, relforcerowsecurity, relreplident FROM pg_class c
     WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'm', 'S') ORDER BY 1",
    "SELECT p.oid::regprocedure::text, proowner::regrole, ARRAY(SELECT a::text FROM unnest(proacl) a ORDER BY 1), prosrc FROM pg_proc p
     WHERE pronamespace = 'public'::regnamespace OR proname IN ('is_admin', 'get_user_role', 'validate_ownership') ORDER BY 1",
    "SELECT conname, convalidated, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1, 3",
];

#[track_caller]
fn assert_alike(pair: &Pair) {
    for query in ALIKE {
        let source = pair.at_source(query).expect("the source answers");
        assert!(!source.is_empty(), "{query}");
        assert!(
            pair.at_target(query).expect("the target answers") == source,
            "{query}"
        );
    }
    let tables = pair
        .at_source("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'")
        .expect("tables");
    for table in tables.lines() {
        let digest = format!(
            "SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM public.{table} t"
        );
        let source = pair.at_source(&digest).expect("the source answers");
        assert_eq!(
            pair.at_target(&digest).expect("the target answers"),
            source,
            "{table}"
        );
    }
}

/// Of the project's files these many, some of them large; of types that their buckets allow.
const FILES: u64 = 300;
const FEWER_FILES: &str = "
    SET session_replication_role = replica;
    DELETE FROM storage.objects WHERE id NOT IN (SELECT id FROM storage.objects ORDER BY id LIMIT 300);
    UPDATE storage.objects SET metadata = metadata || '{\"mimetype\": \"application/pdf\"}' WHERE bucket_id = 'documents';
    UPDATE storage.objects SET metadata = metadata || '{\"size\": 8388608}'
        WHERE id IN (SELECT id FROM storage.objects WHERE bucket_id IN ('documents', 'delivery-proofs') ORDER BY id LIMIT 5);
    UPDATE storage.objects SET metadata = metadata || '{\"size\": 0}' WHERE id IN (SELECT id FROM storage.objects ORDER BY id DESC LIMIT 2);";

#[test]
fn a_cloud_project_moves_to_an_older_self_hosted_one_and_users_log_in() {
    let pair = pair();
    if !is_loaded(&pair) {
        return;
    }
    pair.at_source(FEWER_FILES).expect("fewer files");
    let buckets = Buckets::of(pair, Settings::default()).expect("an API at each end");
    buckets.store_files().expect("their bytes");
    let pair = &buckets.pair;
    let before = managed(&pair.target);
    // The commands of docs/supabase.md, in its order.
    for command in ["preflight", "plan", "migrate"] {
        let told = pair
            .pgconvoy(&[command, "--storage-objects"])
            .expect("it runs")
            .expect(4)
            .says("both ends are supabase")
            .says("[skew-table] auth.webauthn_credentials: 40 rows")
            .says("[skew-labels] auth.mfa_factors.factor_type: 20 rows")
            .says("upgrade the target's auth (container supabase-auth) first")
            .says("info [managed-skew] type auth.factor_type: it differs in labels, as the levels of the service do");
        let text = told.text();
        assert!(
            !text.contains("managed-differs") && !text.contains("managed-clash"),
            "{text}"
        );
    }
    pair.pgconvoy(&["rehearse"])
        .expect("rehearse runs")
        .expect(0);
    assert_eq!(before, managed(&pair.target), "nothing was to be changed");
    pair.migrate(&["--force", "--then-sync", "--storage-objects"])
        .says("[ ] JWT secret (6000 sessions")
        .says("[ ] storage files (300 files in 5 buckets")
        .says("300 files of storage buckets")
        .says("row level security: 22 identities asked for")
        .says("same rows and refusals at both ends");
    assert_alike(pair);
    buckets.assert_equal_files();
    let more = added(&before, &managed(&pair.target));
    assert!(
        more.iter()
            .any(|line| line.contains("CREATE TRIGGER on_auth_user_created"))
    );
    for line in more
        .iter()
        .filter(|line| line.starts_with("CREATE") || line.starts_with("ALTER"))
    {
        let users = [
            "on_auth_user_created",
            "POLICY",
            "get_user_role",
            "is_admin",
            "validate_ownership",
        ];
        assert!(
            users.iter().any(|word| line.contains(word)),
            "who has made this: {line}"
        );
    }
    assert_eq!(
        count(
            pair,
            "SELECT count(*) FROM storage.objects WHERE level = storage.get_level(name)"
        ),
        FILES
    );
    assert!(count(pair, "SELECT count(*) FROM storage.prefixes") > 100);
    assert_eq!(count(pair, "SELECT count(*) FROM auth.flow_state"), 0);

    // A login: the service looks the hash up and compares with crypt(); a session goes on by its refresh token.
    pair.at_source(
        "UPDATE auth.users SET encrypted_password = extensions.crypt('correct horse', extensions.gen_salt('bf', 4))
         WHERE id IN (SELECT id FROM auth.users ORDER BY id LIMIT 20)",
    )
    .expect("a known password");
    pair.pgconvoy(&["sync"])
        .expect("sync runs")
        .expect(0)
        .says("20 changed");
    let login = |password: &str| {
        count(
            pair,
            &format!(
                "SELECT count(*) FROM (SELECT encrypted_password AS hash FROM auth.users ORDER BY id LIMIT 20) u
                 WHERE hash = extensions.crypt('{password}', hash)"
            ),
        )
    };
    assert_eq!(login("correct horse"), 20);
    assert_eq!(login("wrong horse"), 0);

    pair.pgconvoy(&["migrate"])
        .expect("it runs")
        .expect(0)
        .says("it is finished");
    pair.pgconvoy(&["report"])
        .expect("report runs")
        .expect(0)
        .says("not in the database, for you to do (supabase)");
    pair.pgconvoy(&["monitor"]).expect("monitor runs").expect(0);
    pair.pgconvoy(&["verify", "--detailed", "--storage-objects"])
        .expect("verify runs")
        .expect(0);
    pair.pgconvoy(&["rollback"])
        .expect("rollback runs")
        .expect(0)
        .says("the target is what it was");
    assert_eq!(before, managed(&pair.target));
    assert_eq!(count(pair, "SELECT count(*) FROM auth.users"), 0);
    buckets.assert_stored(0, 0);
}

/// The newest level as its services make it: nothing of a user's, no rows.
const EMPTIED: &str = "
    SET session_replication_role = replica;
    DO $$ DECLARE r record; BEGIN
      FOR r IN SELECT c.oid::regclass AS t FROM pg_class c WHERE relkind = 'r' AND relname NOT LIKE '%migrations'
               AND relnamespace::regnamespace::text IN ('auth', 'storage', 'realtime') LOOP EXECUTE 'DELETE FROM ' || r.t; END LOOP;
      FOR r IN SELECT polname, polrelid::regclass AS t FROM pg_policy WHERE polrelid IN
               (SELECT oid FROM pg_class WHERE relnamespace = 'storage'::regnamespace) LOOP EXECUTE format('DROP POLICY %I ON %s', r.polname, r.t); END LOOP;
    END $$;
    DROP TRIGGER on_auth_user_created ON auth.users;
    DROP FUNCTION storage.get_user_role(), storage.is_admin(), storage.validate_ownership(text, uuid);
    DROP SCHEMA public CASCADE; CREATE SCHEMA public AUTHORIZATION pg_database_owner; GRANT USAGE ON SCHEMA public TO PUBLIC;
    SELECT setval('auth.refresh_tokens_id_seq', 1, false);";

#[test]
fn an_older_project_moves_to_a_newer_one() {
    // What an older project holds is what the other direction has brought there.
    let first = pair();
    if !is_loaded(&first) {
        return;
    }
    first.migrate(&["--force"]);
    let second = Pair::with(Options {
        superuser: Some("supabase_admin"),
        before_agents: Some(|pair| {
            load(&pair.target, "cloud-newest");
            pair.target.psql(DATABASE, EMPTIED)?;
            load(&pair.source, "selfhosted-empty-older");
            Ok(())
        }),
        ..Options::default()
    })
    .expect("two servers and two agents");
    copy(&first.target, &second.source);
    let before = managed(&second.target);
    second.migrate(&[]);
    assert_alike(&second);
    let more = added(&before, &managed(&second.target));
    for is_not in ["prefixes", "level", "search_legacy"] {
        assert!(
            !more.iter().any(|line| line.contains(is_not)),
            "{is_not} was carried"
        );
    }
    second.pgconvoy(&["verify"]).expect("verify runs").expect(0);
    second
        .pgconvoy(&["rollback"])
        .expect("rollback runs")
        .expect(0);
    assert_eq!(before, managed(&second.target));
}

/// The whole database, by PostgreSQL's own tools, over one of the same level.
fn copy(from: &Server, to: &Server) {
    let drop = to.psql(
        "postgres",
        &format!("DROP DATABASE {DATABASE} WITH (FORCE)"),
    );
    drop.expect("the old one goes");
    to.create_database(DATABASE).expect("a new one");
    let mut dump = from
        .installation()
        .command("pg_dump")
        .args(["--exclude-schema=pgconvoy", "--dbname", &from.url(DATABASE)])
        .stdout(Stdio::piped())
        .spawn()
        .expect("pg_dump runs");
    let sql = dump.stdout.take().expect("its output");
    let loaded = psql(to, DATABASE)
        .arg("-f")
        .arg("-")
        .stdin(sql)
        .output()
        .expect("psql runs");
    assert!(loaded.status.success() && dump.wait().expect("pg_dump ends").success());
    to.psql(
        DATABASE,
        &format!("ALTER DATABASE {DATABASE} OWNER TO postgres"),
    )
    .expect("its owner");
}

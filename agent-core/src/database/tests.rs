#![allow(clippy::unwrap_used)]
use std::collections::HashMap;

use super::libpq::PGOPTIONS;
use super::*;
use crate::dbtls::Mode;

/// An environment with a home directory that has nothing in it.
fn env(pairs: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
    let mut map: HashMap<String, String> = pairs
        .iter()
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .collect();
    map.entry("HOME".into())
        .or_insert_with(|| "/nonexistent".into());
    move |name| map.get(name).cloned()
}

fn resolve(url: &str, pairs: &[(&str, &str)]) -> Database {
    Database::resolve(Some(url), env(pairs)).unwrap()
}

fn refusal(url: &str) -> String {
    Database::resolve(Some(url), env(&[]))
        .err()
        .unwrap()
        .to_string()
}

#[test]
fn a_url_says_it_all() {
    let database = resolve(
        "postgres://ann:s3cret@db.example.org:6543/app?sslmode=require",
        &[],
    );
    assert_eq!(database.describe(), "app at db.example.org:6543 as ann");
    assert_eq!(database.password.as_deref(), Some("s3cret"));
    assert_eq!(database.tls.mode, Mode::Require);
    assert_eq!(
        resolve("postgres://[::1]/app", &[("PGUSER", "u")]).describe(),
        "app at [::1]:5432 as u"
    );
}

#[test]
fn the_environment_completes_a_url_and_replaces_a_missing_one() {
    let pairs = [
        ("PGHOST", "h"),
        ("PGPORT", "7"),
        ("PGUSER", "u"),
        ("PGPASSWORD", "p"),
        ("PGSSLMODE", "disable"),
    ];
    let database = resolve("postgres:///app", &pairs);
    assert_eq!(database.describe(), "app at h:7 as u");
    assert_eq!(
        (database.password.as_deref(), database.tls.mode),
        (Some("p"), Mode::Disable)
    );
    let database = Database::resolve(None, env(&pairs)).unwrap();
    assert_eq!(database.describe(), "u at h:7 as u");
}

#[test]
fn without_anything_libpqs_defaults_hold() {
    let database = Database::resolve(None, env(&[])).unwrap();
    assert_eq!(database.name, database.user);
    assert_eq!(database.port, 5432);
    let socket = matches!(database.endpoint, Endpoint::Socket(_));
    assert_eq!(socket, Path::new(SOCKET_DIRECTORY).is_dir());
}

#[test]
fn the_runbooks_variables_hold_for_the_target_when_nothing_else_is_given() {
    let runbook = [
        ("SELF_HOSTED_DB_HOST", "vps"),
        ("SELF_HOSTED_DB_NAME", "app"),
        ("SELF_HOSTED_DB_USER", "ann"),
        ("SELF_HOSTED_DB_PASSWORD", "s3cret"),
        ("PGSSLMODE", "disable"),
    ];
    let target = Database::resolve_target(None, env(&runbook)).unwrap();
    assert_eq!(target.describe(), "app at vps:5432 as ann");
    assert_eq!(
        (target.password.as_deref(), target.tls.mode),
        (Some("s3cret"), Mode::Disable)
    );
    let mut with_pghost = runbook.to_vec();
    with_pghost.extend([("PGHOST", "h"), ("PGUSER", "u")]);
    assert_eq!(
        Database::resolve_target(None, env(&with_pghost))
            .unwrap()
            .describe(),
        "u at h:5432 as u"
    );
    let with_url = Database::resolve_target(Some("postgres://u@h/d"), env(&runbook)).unwrap();
    assert_eq!(
        (with_url.describe().as_str(), with_url.password),
        ("d at h:5432 as u", None)
    );
    assert_eq!(
        Database::resolve(None, env(&[("PGUSER", "u"), ("SELF_HOSTED_DB_NAME", "x")]))
            .unwrap()
            .name,
        "u"
    );
}

#[test]
fn a_password_file_is_read_when_no_password_is_given() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(".pgpass");
    std::fs::write(&file, "h:5432:app:ann:from-home\nlocalhost:*:*:*:local\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let home = home.path().to_str().unwrap();
    assert_eq!(
        resolve("postgres://ann@h/app", &[("HOME", home)])
            .password
            .as_deref(),
        Some("from-home")
    );
    assert_eq!(
        resolve("postgres://ann:own@h/app", &[("HOME", home)])
            .password
            .as_deref(),
        Some("own")
    );
    assert_eq!(
        resolve("host=/tmp user=ann", &[("HOME", home)])
            .password
            .as_deref(),
        Some("local")
    );
    let named = format!("host=h user=ann dbname=app passfile={}", file.display());
    assert_eq!(resolve(&named, &[]).password.as_deref(), Some("from-home"));
    assert!(refusal("host=h passfile=/nonexistent/pgpass").contains("/nonexistent/pgpass"));
}

#[test]
fn what_cannot_be_meant_is_refused_without_repeating_it() {
    assert!(refusal("postgres://a,b/app").contains("several hosts"));
    assert!(refusal("host=h target_session_attrs=standby").contains("read-write"));
    assert!(refusal("host=h sslmode=on").contains("verify-full"));
    assert!(refusal("host=h sslnegotiation=direct").contains("sslmode=prefer"));
    assert!(refusal("host=h connect_timeout=soon").contains("seconds"));
    for url in [
        "postgres://u:s3cret",
        "host=h port=s3cret",
        "hostaddr=s3cret",
    ] {
        assert!(!refusal(url).contains("s3cret"), "{url}");
    }
}

#[test]
fn nothing_that_is_printed_has_the_password() {
    let database = resolve("postgres://ann:s3cret@h/app", &[]);
    let libpq = database.libpq_with("pgconvoy test", PGOPTIONS).unwrap();
    for text in [
        format!("{database:?}"),
        database.describe(),
        format!("{libpq:?}"),
        format!("{:?}", libpq.set),
    ] {
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[test]
fn libpq_gets_the_same_connection_with_the_password_in_a_file() {
    let database = resolve("host=h user='an\\'n' password='a:b' dbname='my app'", &[]);
    let libpq = database.libpq_with("pgconvoy m1 dump", PGOPTIONS).unwrap();
    for part in [
        r"user='an\'n'",
        "dbname='my app'",
        "application_name='pgconvoy m1 dump'",
        "sslmode='prefer'",
    ] {
        assert!(
            libpq.conninfo.contains(part),
            "{part} in {}",
            libpq.conninfo
        );
    }
    let value = |name: &str| {
        libpq
            .set
            .iter()
            .find(|(set, _)| *set == name)
            .map(|(_, value)| value.clone())
    };
    assert_eq!(
        std::fs::read_to_string(value("PGPASSFILE").unwrap()).unwrap(),
        "*:*:*:*:a\\:b\n"
    );
    assert!(
        value("PGOPTIONS")
            .unwrap()
            .to_str()
            .unwrap()
            .contains("client_connection_check_interval=5000")
    );
    assert_eq!(value("LC_ALL").unwrap(), "C");
    assert!(
        resolve("host=h password='a\nb'", &[])
            .libpq_with("x", PGOPTIONS)
            .is_err()
    );
}

#[test]
fn options_of_a_proxy_stay_whole() {
    let switches = resolve("host=h options='-c geqo=off'", &[])
        .libpq_with("x", PGOPTIONS)
        .unwrap();
    assert!(
        format!("{:?}", switches.set).contains("-c geqo=off -c client_connection_check_interval")
    );
    let words = resolve("host=h options=reference=abc", &[])
        .libpq_with("x", PGOPTIONS)
        .unwrap();
    assert!(words.conninfo.ends_with("options='reference=abc'"));
    let refused = resolve("host=h", &[]).libpq_with("x", "").unwrap();
    assert!(!format!("{:?}", refused.set).contains("PGOPTIONS"));
    assert!(!words.set.iter().any(|(name, _)| *name == "PGOPTIONS"));
}

#[test]
fn a_role_is_kept_only_when_the_options_choose_one() {
    for (options, keeps) in [
        ("options='-c role=owner'", true),
        ("options='-c geqo=off -crole=owner'", true),
        ("options=--role=owner", true),
        ("options='-c xrole=owner'", false),
        ("options=reference=abc", false),
        ("", false),
    ] {
        let database = resolve(&format!("host=h {options}"), &[]);
        assert_eq!(database.chooses_role(), keeps, "{options}");
    }
}

#[test]
fn modes_lead_to_the_attempts_that_libpq_makes() {
    use tokio_postgres::config::SslMode::{Disable, Prefer, Require};
    let attempts = |text: &str| resolve(text, &[]).attempts();
    assert_eq!(attempts("host=h"), (Prefer, Some(Disable)));
    assert_eq!(attempts("host=h sslmode=allow"), (Disable, Some(Require)));
    assert_eq!(attempts("host=h sslmode=require"), (Require, None));
    assert_eq!(attempts("host=/tmp sslmode=require"), (Disable, None));
}

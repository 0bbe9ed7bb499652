#![allow(clippy::unwrap_used)]
use super::*;

fn pairs(text: &str) -> Vec<(String, String)> {
    let parsed = Conninfo::parse(text).unwrap();
    parsed
        .0
        .into_iter()
        .map(|(keyword, value)| (keyword.to_owned(), value))
        .collect()
}

fn expect(text: &str, wanted: &[(&str, &str)]) {
    let wanted: Vec<_> = wanted
        .iter()
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .collect();
    assert_eq!(pairs(text), wanted, "{text}");
}

fn refusal(text: &str) -> String {
    match Conninfo::parse(text) {
        Ok(_) => panic!("accepted"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn urls_are_read_as_libpq_reads_them() {
    expect(
        "postgresql://ann:p%40ss%2F@db.example.org:6543/app?sslmode=verify-full&application_name=x",
        &[
            ("dbname", "app"),
            ("host", "db.example.org"),
            ("password", "p@ss/"),
            ("port", "6543"),
            ("sslmode", "verify-full"),
            ("user", "ann"),
        ],
    );
    expect("postgres://", &[]);
    expect("postgres:///app", &[("dbname", "app")]);
    expect(
        "postgres://%2Fvar%2Frun/app",
        &[("dbname", "app"), ("host", "/var/run")],
    );
    expect(
        "postgres:///?host=/tmp&user=a@b",
        &[("host", "/tmp"), ("user", "a@b")],
    );
    expect(
        "postgres://[::1]:5433",
        &[("host", "::1"), ("port", "5433")],
    );
    expect(
        "postgres://u:a@b@h",
        &[("host", "h"), ("password", "a@b"), ("user", "u")],
    );
    expect(
        "postgres://h?ssl=true",
        &[("host", "h"), ("sslmode", "require")],
    );
}

#[test]
fn keyword_value_strings_are_read_with_their_quotes() {
    expect(
        r"host = h  password='it\'s a \\ secret' dbname=a\ b user=",
        &[
            ("dbname", "a b"),
            ("host", "h"),
            ("password", r"it's a \ secret"),
        ],
    );
    expect("", &[]);
}

#[test]
fn a_quoted_value_is_read_back_unchanged() {
    for value in ["plain", r"it's", r"back\slash", "two words", r"\'"] {
        let text = format!("dbname={} port=1", quote(value));
        expect(&text, &[("dbname", value), ("port", "1")]);
    }
}

#[test]
fn errors_name_the_keyword_and_nothing_else() {
    assert!(
        refusal("postgres://u:s3cret@h/d?pgbouncer=true").contains("unknown keyword \"pgbouncer\"")
    );
    assert!(refusal("service=prod").contains("\"service\""));
    for text in [
        "postgres://u:s3cret@h/d?S3CRET=1",
        "password=s3cret s3cret",
        "password=a s3cret=1",
        "postgres://u:s3cret/x@h/d",
        "postgres://u:s3cret?x=1@h/d",
        "postgres://u:s3cret%zz@h",
        "postgres://u@h:1:s3cret",
        "dbname='s3cret",
        "s3cret",
    ] {
        assert!(
            !refusal(text).to_lowercase().contains("s3cret"),
            "{}",
            refusal(text)
        );
    }
}

#[test]
fn the_environment_fills_only_what_is_absent() {
    let env = |name: &str| match name {
        "PGHOST" => Some("other".to_owned()),
        "PGUSER" => Some("ann".to_owned()),
        "PGPORT" => Some(String::new()),
        _ => None,
    };
    let mut parsed = Conninfo::parse("host=h").unwrap();
    parsed.fill_from(&env).unwrap();
    assert_eq!(parsed.get("host"), Some("h"));
    assert_eq!(parsed.get("user"), Some("ann"));
    assert_eq!(parsed.get("port"), None);
    let service = |name: &str| (name == "PGSERVICE").then(|| "prod".to_owned());
    assert!(Conninfo::default().fill_from(&service).is_err());
}

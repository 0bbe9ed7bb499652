#![allow(clippy::unwrap_used)]
use super::*;

const PLATFORM: &str = r#"
    name = "toy"
    managed-schemas = ["core"]
    encrypted = ["core.account.secret"]
    [rows]
    never = ["core.migrations"]
    optional = ["core.log"]
    [[versions]]
    column = "core.migrations.level"
    service = "core service"
    [[derived]]
    of = "core.account.rank"
    statements = []
"#;

fn column(name: &str, data_type: &str) -> HeldColumn {
    HeldColumn {
        name: name.into(),
        data_type: data_type.into(),
        ..HeldColumn::default()
    }
}

fn table(name: &str, columns: Vec<HeldColumn>) -> HeldTable {
    HeldTable {
        schema: "core".into(),
        name: name.into(),
        columns,
        ..HeldTable::default()
    }
}

fn judged(source: HeldTable, target: Option<HeldTable>, counts: &[u64], force: bool) -> Judged {
    let platform = Platform::parse(PLATFORM).unwrap();
    let rules = platform.rules().unwrap();
    let pairs = [(source, target)];
    let asked = questions(&platform, &rules, &pairs);
    assert_eq!(asked[0].counts.len(), counts.len(), "{asked:?}");
    let levels = Levels {
        platform: &platform,
        source: &|_| Some("9".into()),
        target: &|_| Some("7".into()),
    };
    judge(&levels, &rules, &pairs, &vec![Some(counts.to_vec())], force)
}

#[test]
fn a_column_that_only_the_source_has_is_a_loss_when_it_holds_something() {
    let source = || {
        table(
            "account",
            vec![
                column("id", "integer"),
                column("nick", "text"),
                column("rank", "integer"),
            ],
        )
    };
    let target = || Some(table("account", vec![column("id", "integer")]));
    let idle = judged(source(), target(), &[5, 0], false);
    assert!(idle.findings.is_empty());
    assert_eq!(idle.shapes[0].columns, ["id"]);
    let stops = judged(source(), target(), &[5, 3], false);
    let told = &stops.findings[0];
    assert_eq!(told.severity, Severity::Blocker);
    assert_eq!(told.object, "core.account.nick");
    assert!(told.message.starts_with("3 rows"));
    assert!(told.hint.contains("core service") && told.hint.contains("9 at the source, 7"));
    let forced = judged(source(), target(), &[5, 3], true);
    assert_eq!(forced.findings[0].severity, Severity::Warning);
    assert_eq!(forced.shapes[0].columns, ["id"]);
}

#[test]
fn labels_and_nulls_leave_out_rows() {
    let of = |labels: &[&str], not_null| HeldColumn {
        labels: labels.iter().map(|l| (*l).to_owned()).collect(),
        not_null,
        ..column("kind", "core.kind")
    };
    let source = table("account", vec![of(&["a", "b'"], false)]);
    let target = Some(table("account", vec![of(&["a"], true)]));
    let judged = judged(source, target, &[5, 2, 1], true);
    let filter = judged.shapes[0].filter.as_deref().unwrap();
    assert!(
        filter.contains("'b'''") && filter.ends_with("\"kind\" IS NOT NULL"),
        "{filter}"
    );
    assert_eq!(judged.findings.len(), 2);
}

#[test]
fn a_table_whose_rows_cannot_be_loaded_is_left_out_whole() {
    let must = HeldColumn {
        not_null: true,
        ..column("owner", "uuid")
    };
    let source = || table("account", vec![column("id", "integer")]);
    let target = || {
        Some(table(
            "account",
            vec![column("id", "integer"), must.clone()],
        ))
    };
    let judged_with = |rows| judged(source(), target(), &[rows], true);
    assert_eq!(judged_with(4).findings[0].code, "skew-required");
    assert!(judged_with(4).shapes.is_empty() && judged_with(0).findings.is_empty());
    let gone = judged(source(), None, &[4], false);
    assert_eq!(gone.findings[0].code, "skew-table");
}

#[test]
fn optional_rows_stop_nothing_and_unwanted_ones_are_told_once() {
    let log = table("log", vec![column("id", "integer")]);
    assert_eq!(
        judged(log, None, &[4], false).findings[0].severity,
        Severity::Warning
    );
    let never = table("migrations", vec![column("level", "text")]);
    let told = judged(never, None, &[4], false);
    assert_eq!(told.findings[0].code, "managed-rows-left");
}

#[test]
fn encrypted_values_are_counted() {
    let account = || table("account", vec![column("secret", "text")]);
    let told = judged(account(), Some(account()), &[4, 2], false);
    assert_eq!(told.findings[0].code, "encrypted-values");
    assert!(told.findings[0].message.starts_with("2 values"));
}

#[test]
fn constants_are_told_from_what_is_computed() {
    for sql in [
        "'{}'::jsonb",
        "''::character varying",
        "false",
        "0",
        "-1.5",
        "'it''s'::text",
        "NULL::\"pg_catalog\".\"text\"",
        "'{}'::text[]",
    ] {
        assert!(is_constant(sql), "{sql}");
    }
    for sql in [
        "now()",
        "gen_random_uuid()",
        "'a'::text || 'b'::text",
        "nextval('s'::regclass)",
        "('a'::text)",
        "'open",
    ] {
        assert!(!is_constant(sql), "{sql}");
    }
}

#[test]
fn types_fit_where_every_value_does() {
    assert!(
        fits("uuid", "text")
            && fits("integer", "bigint")
            && fits("character varying(10)", "character varying(20)")
    );
    assert!(fits("character varying(255)", "text"));
    assert!(
        !fits("text", "uuid")
            && !fits("bigint", "integer")
            && !fits("json", "jsonb")
            && !fits("character varying(20)", "character varying(10)")
    );
    assert!(!fits("text", "character varying(10)"));
}

#![allow(clippy::unwrap_used)]
use pgconvoy_proto::model::{Demand, HeldColumn, HeldConstraint, Key};

use super::types::{fits, is_constant};
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
    let counts: Vec<Option<u64>> = counts.iter().copied().map(Some).collect();
    judged_of(source, target, counts, force)
}

/// None: it was not counted.
fn judged_of(
    source: HeldTable,
    target: Option<HeldTable>,
    counts: Vec<Option<u64>>,
    force: bool,
) -> Judged {
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
    judge(&levels, &rules, &pairs, &vec![Some(counts)], force)
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
fn a_default_of_null_hides_nothing() {
    let nick = HeldColumn {
        default: Some("NULL::character varying".into()),
        ..column("nick", "character varying(40)")
    };
    let platform = Platform::parse(PLATFORM).unwrap();
    let source = table("account", vec![column("id", "integer"), nick]);
    let pairs = [(
        source,
        Some(table("account", vec![column("id", "integer")])),
    )];
    let asked = questions(&platform, &platform.rules().unwrap(), &pairs);
    let counted = Count::Data {
        column: "nick".into(),
        default: None,
    };
    assert_eq!(asked[0].counts, [Count::Rows, counted]);
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

fn check(name: &str, sql: &str, columns: &[&str]) -> HeldConstraint {
    HeldConstraint {
        name: name.into(),
        definition: format!("CHECK ({sql})"),
        demand: Demand::Check {
            sql: sql.into(),
            columns: columns.iter().map(|c| (*c).to_owned()).collect(),
        },
        fulfilled: true,
    }
}

fn unique(name: &str, columns: &[&str], predicate: Option<&str>) -> HeldConstraint {
    let key = |column: &&str| Key {
        sql: format!("\"{column}\""),
        column: Some((*column).to_owned()),
    };
    HeldConstraint {
        name: name.into(),
        definition: "CREATE UNIQUE INDEX".into(),
        demand: Demand::Unique {
            keys: columns.iter().map(key).collect(),
            predicate: predicate.map(str::to_owned),
            nulls_equal: false,
        },
        fulfilled: true,
    }
}

/// `id`, which must be given, `mail` and `nick`.
fn account(constraints: &[HeldConstraint]) -> HeldTable {
    let id = HeldColumn {
        not_null: true,
        ..column("id", "integer")
    };
    HeldTable {
        constraints: constraints.to_vec(),
        ..table(
            "account",
            vec![id, column("mail", "text"), column("nick", "text")],
        )
    }
}

#[test]
fn rows_that_a_constraint_of_the_target_would_refuse_are_counted() {
    let key = unique("account_pkey", &["id"], None);
    let source = || account(&[key.clone(), check("known", "mail <> ''", &["mail"])]);
    let target = || {
        Some(account(&[
            key.clone(),
            check("renamed", "mail <> ''", &["mail"]),
            unique("with_more", &["id", "mail"], None),
            check("short", "length(nick) < 9", &["nick"]),
            unique("one_mail", &["mail"], Some("nick IS NULL")),
        ]))
    };
    assert!(
        judged(source(), target(), &[9, 0, 0], false)
            .findings
            .is_empty()
    );
    let stops = judged(source(), target(), &[9, 3, 2], false);
    let told: Vec<_> = stops
        .findings
        .iter()
        .map(|f| (f.code.as_str(), f.severity, f.object.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("skew-check", Severity::Blocker, "core.account: short"),
            ("skew-unique", Severity::Blocker, "core.account: one_mail"),
        ]
    );
    assert_eq!(stops.findings[0].target_value, "CHECK (length(nick) < 9)");
    let forced = judged(source(), target(), &[9, 3, 2], true);
    let filter = forced.shapes[0].filter.as_deref().unwrap();
    assert_eq!(
        filter,
        "(length(nick) < 9) IS NOT FALSE AND NOT EXISTS (SELECT FROM (SELECT \"mail\" AS pgconvoy_key0, \"id\" AS pgconvoy_order0 \
         FROM \"core\".\"account\" WHERE ((length(nick) < 9) IS NOT FALSE) AND (nick IS NULL)) pgconvoy_other \
         WHERE pgconvoy_key0 = \"mail\" AND (nick IS NULL) AND (pgconvoy_order0) < (\"id\"))"
    );
    // A key of a column that the target has not orders no rows there.
    let mut with_code = source();
    let code = HeldColumn {
        not_null: true,
        ..column("code", "text")
    };
    with_code.columns.insert(0, code);
    with_code
        .constraints
        .insert(0, unique("account_code", &["code"], None));
    let forced = judged(with_code, target(), &[9, 0, 3, 2], true);
    assert_eq!(forced.shapes[0].filter.as_deref(), Some(filter));
    // What the source's rows need not fulfil keeps nothing: NOT VALID, and an index whose building has failed.
    let mut unfulfilled = source();
    for constraint in &mut unfulfilled.constraints {
        constraint.fulfilled = false;
    }
    let told = judged(unfulfilled, target(), &[9, 0, 0, 4, 0, 0], false);
    let objects: Vec<_> = told.findings.iter().map(|f| f.object.as_str()).collect();
    assert_eq!(objects, ["core.account: with_more"]);
}

#[test]
fn what_cannot_be_counted_is_told_and_leaves_nothing_out() {
    let exclusion = HeldConstraint {
        name: "apart".into(),
        ..HeldConstraint::default()
    };
    let strange = check("strange", "core.their(nick)", &["nick"]);
    let target = Some(account(&[exclusion, strange]));
    let told = judged_of(account(&[]), target, vec![Some(9), None], false);
    assert!(
        told.findings
            .iter()
            .all(|f| f.code == "skew-unknown" && f.severity == Severity::Warning)
    );
    assert_eq!(told.findings.len(), 2);
    assert_eq!(told.shapes[0].filter, None);
}

#[test]
fn columns_that_only_the_target_has_are_what_it_makes_them() {
    let with = |own: HeldColumn, constraint: HeldConstraint| {
        let mut target = account(&[constraint]);
        target.columns.push(own);
        Some(target)
    };
    let own = |default: Option<&str>| HeldColumn {
        default: default.map(str::to_owned),
        ..column("realm", "text")
    };
    // Asked: how many rows there are; and the key's surplus.
    let both = unique("both", &["mail", "realm"], None);
    assert!(
        judged(account(&[]), with(own(None), both.clone()), &[9], false)
            .findings
            .is_empty()
    );
    let null = with(own(Some("NULL::character varying")), both.clone());
    assert!(
        judged(account(&[]), null, &[9], false).findings.is_empty(),
        "no two nulls are alike"
    );
    let same = judged(
        account(&[]),
        with(own(Some("'main'::text")), both.clone()),
        &[9, 4],
        false,
    );
    assert_eq!(same.findings[0].code, "skew-unique");
    let unclear = judged(
        account(&[]),
        with(own(Some("random()::text")), both),
        &[9],
        false,
    );
    assert_eq!(unclear.findings[0].code, "skew-unknown");
    let of_it = check("of_it", "realm <> ''", &["realm"]);
    assert!(
        judged(account(&[]), with(own(None), of_it), &[9], false)
            .findings
            .is_empty()
    );
    let mixed = check("mixed", "realm <> mail", &["mail", "realm"]);
    let unclear = judged(account(&[]), with(own(None), mixed), &[9], false);
    assert_eq!(unclear.findings[0].code, "skew-unknown");
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
        "NULL",
        "NULL::character varying",
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

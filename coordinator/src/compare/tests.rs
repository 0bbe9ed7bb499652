//! Tests of the comparison, on descriptions made by hand.
#![allow(clippy::unwrap_used)]
use pgconvoy_proto::model::{Finding, Severity};

use super::findings::findings;
use super::known::leave_out;
use super::level::{Positions, level};
use super::own::take_own;
use super::*;
use crate::left_out::LeftOut;

const V14: u32 = 140_000;
const V15: u32 = 150_000;
const V17: u32 = 170_000;

fn object(name: (&str, &str), parent: &str, properties: &[(&str, &str)]) -> SchemaObject {
    SchemaObject {
        kind: name.0.into(),
        identity: name.1.into(),
        parent: parent.into(),
        properties: properties
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

fn catalog(version: u32, objects: &[SchemaObject]) -> Catalog {
    Catalog {
        version,
        objects: objects.to_vec(),
    }
}

/// The findings of a whole comparison.
fn compared(mut source: Catalog, mut target: Catalog, ledger: &[Finding]) -> Vec<Finding> {
    level(&mut source, &mut target, LeftOut::default(), None);
    findings(&leave_out(compare(&source, &target), ledger), Some(ledger))
}

fn column(name: &str, position: &str) -> SchemaObject {
    object(
        ("column", name),
        "table public.t",
        &[("position", position), ("type", "integer")],
    )
}

fn table(properties: &[(&str, &str)]) -> SchemaObject {
    object(("table", "public.t"), "schema public", properties)
}

fn warning(code: &str, object: &str) -> Finding {
    Finding::new(Severity::Warning, code, object, "")
}

#[test]
fn equal_ends_have_no_finding() {
    let all = [table(&[("owner", "a")]), column("public.t.c", "1")];
    assert_eq!(compared(catalog(V15, &all), catalog(V15, &all), &[]), []);
}

#[test]
fn a_missing_table_is_one_finding_that_counts_what_is_on_it() {
    let public = object(("schema", "public"), "", &[]);
    let key = object(("constraint", "t_pkey on public.t"), "table public.t", &[]);
    let source = [
        public.clone(),
        table(&[("persistence", "permanent")]),
        column("public.t.a", "1"),
        column("public.t.b", "2"),
        key,
    ];
    let found = compared(catalog(V15, &source), catalog(V15, &[public]), &[]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].code, "object-missing");
    assert_eq!(found[0].object, "table public.t");
    assert!(found[0].message.ends_with("with 2 columns, 1 constraint"));
    assert_eq!(found[0].source_value, "persistence: permanent");
}

#[test]
fn a_difference_names_the_property_and_both_values() {
    let of = |enabled| object(("trigger", "x on public.t"), "", &[("enabled", enabled)]);
    let found = compared(
        catalog(V15, &[of("origin")]),
        catalog(V15, &[of("disabled")]),
        &[],
    );
    assert_eq!(found[0].object, "trigger x on public.t");
    assert_eq!(found[0].source_value, "enabled: origin");
    assert_eq!(found[0].target_value, "enabled: disabled");
    assert_eq!(found[0].severity, Severity::Difference);
}

#[test]
fn a_property_that_one_end_lacks_differs() {
    let source = catalog(V15, &[table(&[("comment", "kept")])]);
    let found = compared(source, catalog(V15, &[table(&[])]), &[]);
    assert_eq!(found[0].target_value, "comment: none");
}

#[test]
fn a_missing_column_does_not_move_those_behind_it_but_another_order_shows() {
    let of = |names: &[&str]| -> Vec<SchemaObject> {
        let columns = names.iter().zip(1..);
        columns
            .map(|(n, at)| column(&format!("public.t.{n}"), &at.to_string()))
            .collect()
    };
    let ends = |source: &[&str], target: &[&str]| {
        let found = compared(catalog(V15, &of(source)), catalog(V15, &of(target)), &[]);
        found.into_iter().map(|f| f.object).collect::<Vec<_>>()
    };
    assert_eq!(ends(&["a", "b", "c"], &["a", "c"]), ["column public.t.b"]);
    // One that moved is one, however many it has passed.
    let back = ends(&["a", "b", "c", "d"], &["b", "c", "d", "a"]);
    assert_eq!(back, ["column public.t.a"]);
    let forth = ends(&["a", "b", "c", "d"], &["d", "a", "b", "c"]);
    assert_eq!(forth, ["column public.t.d"]);
    assert_eq!(ends(&["a", "b"], &["b", "a"]).len(), 1);
    assert_eq!(ends(&["a", "b", "c", "d"], &["d", "c", "b", "a"]).len(), 3);
}

#[test]
fn what_only_a_newer_server_knows_is_not_a_difference() {
    let old = table(&[("grants", "(owner)=INSERT,SELECT/(owner)")]);
    let new = table(&[(
        "grants",
        "(owner)=INSERT,MAINTAIN,SELECT/(owner)\nbob=MAINTAIN*/(owner)",
    )]);
    let found = |target| {
        let source = catalog(V15, std::slice::from_ref(&old));
        compared(source, catalog(target, std::slice::from_ref(&new)), &[])
    };
    assert_eq!(found(V17), []);
    let source = catalog(V17, &[old]);
    let found = compared(source, catalog(V17, &[new]), &[]);
    assert!(found[0].target_value.contains("bob=MAINTAIN*"), "{found:?}");
}

#[test]
fn a_foreign_key_that_is_told_to_have_orphans_is_not_told_again() {
    let key = |validated, definition| {
        object(
            ("constraint", r#""the key" on public."T""#),
            "",
            &[("validated", validated), ("definition", definition)],
        )
    };
    let told = [warning("foreign-key-orphans", "public.T: the key")];
    let ends = |target| {
        let source = catalog(V15, &[key("true", "FOREIGN KEY (a)")]);
        compared(source, catalog(V15, &[target]), &told)
    };
    assert_eq!(ends(key("false", "FOREIGN KEY (a)")), []);
    let found = ends(key("false", "FOREIGN KEY (b)"));
    assert_eq!(found[0].message, "it differs in definition");
}

#[test]
fn a_lost_grant_hides_no_other_one() {
    let of = |grants| table(&[("grants", grants)]);
    let told = [warning(
        "grant-not-kept",
        r#"table public.t: SELECT to "bob""#,
    )];
    let ends = |target| {
        let source = of("alice=INSERT/(owner)\nbob=INSERT,SELECT/(owner)");
        compared(catalog(V15, &[source]), catalog(V15, &[of(target)]), &told)
    };
    assert_eq!(ends("alice=INSERT/(owner)\nbob=INSERT/(owner)"), []);
    let found = ends("bob=INSERT/(owner)");
    assert_eq!(found[0].source_value, "grants: alice=INSERT/(owner)");
}

#[test]
fn an_owner_that_is_told_not_to_be_kept_is_not_told_again() {
    let of = |owner| table(&[("owner", owner)]);
    let told = [warning("owner-not-kept", "table public.t")];
    let ends = |told| compared(catalog(V15, &[of("a")]), catalog(V15, &[of("b")]), told);
    assert_eq!(ends(&told), []);
    assert_eq!(ends(&[])[0].message, "it differs in owner");
}

#[test]
fn an_entry_that_was_refused_is_not_told_again() {
    let policy = object(("policy", "own on public.t"), "", &[]);
    let told = [warning("not-restored", "POLICY public t own postgres")];
    let ends = |told| {
        compared(
            catalog(V15, std::slice::from_ref(&policy)),
            catalog(V15, &[]),
            told,
        )
    };
    assert_eq!(ends(&told), []);
    assert_eq!(ends(&[]).len(), 1);
}

#[test]
fn an_extension_that_was_there_before_is_for_information() {
    let extension = object(("extension", "hstore"), "", &[("version", "1.8")]);
    let member = object(
        ("function", "public.hstore(text,text)"),
        "extension hstore",
        &[("grants", "PUBLIC=EXECUTE/(owner)")],
    );
    let target = [extension, member];
    let ends = |told: &[Finding]| compared(catalog(V15, &[]), catalog(V15, &target), told);
    let severity = |told: &[Finding]| {
        let found = ends(told);
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].severity
    };
    assert_eq!(severity(&[]), Severity::Difference);
    assert_eq!(
        severity(&[warning("extension-was-there", "hstore")]),
        Severity::Info
    );
}

#[test]
fn what_an_extension_makes_is_compared_between_equal_versions() {
    let ends = |versions: [&str; 2], at_source: &[SchemaObject], at_target: &[SchemaObject]| {
        let of = |version, objects: &[SchemaObject]| {
            let extension = object(("extension", "cron"), "", &[("version", version)]);
            catalog(V15, &[&[extension], objects].concat())
        };
        let (source, target) = (of(versions[0], at_source), of(versions[1], at_target));
        let found = compared(source, target, &[]).into_iter();
        let found = found.filter(|f| f.object != "extension cron");
        found.map(|f| f.object).collect::<Vec<_>>()
    };
    let of_cron = |kind, identity, properties: &[(&str, &str)]| {
        [object((kind, identity), "extension cron", properties)]
    };
    let open = of_cron("table", "cron.job", &[]);
    let closed = of_cron("table", "cron.job", &[("row security", "enabled")]);
    let policy = of_cron("policy", "own on cron.job", &[("command", "all")]);
    let spy = of_cron("trigger", "spy on cron.job", &[("made by", "CREATE 1")]);
    let other = of_cron("trigger", "spy on cron.job", &[("made by", "CREATE 2")]);
    let cases: [(&[SchemaObject], &[SchemaObject], &str); 5] = [
        (&closed, &open, "table cron.job"),
        (&policy, &[], "policy own on cron.job"),
        (&[], &policy, "policy own on cron.job"),
        (&[], &spy, "trigger spy on cron.job"),
        (&spy, &other, "trigger spy on cron.job"),
    ];
    for (source, target, told) in cases {
        assert_eq!(ends(["1.6", "1.6"], source, target), [told]);
        assert!(ends(["1.4", "1.6"], source, target).is_empty(), "{told}");
    }
}

#[test]
fn default_privileges_that_were_there_are_the_targets_own() {
    let name = ("default privileges", "for role app on tables");
    let of = |grants| object(name, "", &[("grants", grants)]);
    let told = [warning(
        "default-privileges-were-there",
        r#"for role app on tables"#,
    )];
    let severities = |source: &[SchemaObject], told: &[Finding]| -> Vec<Severity> {
        let target = catalog(V15, &[of("bob=SELECT/(owner)")]);
        let found = compared(catalog(V15, source), target, told);
        found.into_iter().map(|f| f.severity).collect()
    };
    for source in [vec![], vec![of("alice=SELECT/(owner)")]] {
        assert_eq!(severities(&source, &told), [Severity::Info]);
        assert_eq!(severities(&source, &[]), [Severity::Difference]);
    }
}

#[test]
fn partitions_identity_is_another_matter_before_17() {
    let of =
        |identity: &[(&str, &str)]| object(("column", "public.p.id"), "table public.p", identity);
    let ends = |source| {
        let with = of(&[("identity of a partition", "always")]);
        compared(catalog(source, &[of(&[])]), catalog(V17, &[with]), &[]).len()
    };
    assert_eq!((ends(V15), ends(V17)), (0, 1));
}

#[test]
fn sequences_are_unlogged_from_15_on() {
    let of = |persistence| {
        let name = ("sequence", "of identity column public.t.id");
        object(name, "table public.t", &[("persistence", persistence)])
    };
    let ends = |target| {
        let source = catalog(V15, &[of("unlogged")]);
        compared(source, catalog(target, &[of("permanent")]), &[]).len()
    };
    assert_eq!((ends(V14), ends(V17)), (0, 1));
}

#[test]
fn roles_are_compared_when_the_source_uses_them() {
    let role = |name, used: &[(&str, &str)], attributes| {
        let properties = [used, &[("attributes", attributes)]].concat();
        object(("role", name), "", &properties)
    };
    let source = [
        role("app", &[("used", "yes")], "login"),
        role("idle", &[], "login"),
        role("root", &[("used", "yes")], "login"),
    ];
    let target = [
        role("app", &[], "nologin"),
        role("idle", &[], "nologin"),
        role("other", &[("used", "yes")], "login"),
        role("root", &[("built in", "yes")], "login, superuser"),
    ];
    let found = compared(catalog(V15, &source), catalog(V15, &target), &[]);
    let objects: Vec<&str> = found.iter().map(|f| f.object.as_str()).collect();
    assert_eq!(objects, ["role app", "role other"]);
}

#[test]
fn a_new_member_of_a_used_role_is_told() {
    let role = |name, properties: &[(&str, &str)]| object(("role", name), "", properties);
    let source = [
        role("app", &[("used", "yes")]),
        role("idle", &[("attributes", "login")]),
        role("agent", &[("used", "yes"), ("member of", "staff")]),
    ];
    let agent = role(
        "agent",
        &[
            ("agent", "yes"),
            ("used", "yes"),
            ("member of", "app\nstaff"),
        ],
    );
    let idle = [
        ("used", "yes"),
        ("attributes", "nologin"),
        ("member of", "app with admin option\nelsewhere"),
    ];
    let target = [
        role("app", &[]),
        role("idle", &idle),
        agent,
        role("intruder", &[("used", "yes"), ("member of", "app")]),
    ];
    let ends = || (catalog(V15, &source), catalog(V15, &target));
    let found = compared(ends().0, ends().1, &[]);
    let objects: Vec<&str> = found.iter().map(|f| f.object.as_str()).collect();
    assert_eq!(objects, ["role idle", "role intruder"]);
    assert_eq!(found[0].target_value, "member of: app with admin option");
    // When a migration compares for the first time, they were there before it.
    let (mut source, mut target) = ends();
    level(&mut source, &mut target, LeftOut::default(), None);
    let mut differences = compare(&source, &target);
    let own = take_own(&mut differences);
    assert_eq!(differences, []);
    let codes: Vec<&str> = own.iter().map(|f| f.code.as_str()).collect();
    assert_eq!(codes, ["memberships-were-there", "role-was-there"]);
    assert!(own.iter().all(|f| f.severity == Severity::Warning));
}

/// What was changed of PostgreSQL's own objects at either end.
fn changed(grants: &[(&str, &str)]) -> SchemaObject {
    let properties = [&[("system", "yes")], grants].concat();
    object(
        ("function", "pg_catalog.lo_export(oid,text)"),
        "",
        &properties,
    )
}

#[test]
fn what_was_changed_of_postgresqls_own_grants_is_compared_as_a_change() {
    let bob = changed(&[("grants", "bob=EXECUTE/(owner)")]);
    let closed = changed(&[("revoked grants", "PUBLIC=EXECUTE/(owner)")]);
    let ends = |source: &[SchemaObject], target: &[SchemaObject], told: &[Finding]| {
        compared(catalog(V15, source), catalog(V17, target), told)
    };
    let same = std::slice::from_ref(&bob);
    assert_eq!(ends(same, same, &[]), []);
    let found = ends(same, &[], &[]);
    assert_eq!(found[0].object, "function lo_export(oid,text)");
    assert_eq!(found[0].source_value, "grants: bob=EXECUTE/(owner)");
    assert_eq!(found[0].target_value, "grants: none");
    assert_eq!(ends(&[], same, &[]).len(), 1);

    let function = r#"function "pg_catalog"."lo_export"("oid","text")"#;
    let lost = warning("grant-not-kept", &format!("{function}: EXECUTE to bob"));
    assert_eq!(ends(same, &[], std::slice::from_ref(&lost)), []);
    let kept = warning(
        "system-grant-not-revoked",
        &format!("{function}: EXECUTE to PUBLIC"),
    );
    let closed = std::slice::from_ref(&closed);
    assert_eq!(ends(closed, &[], &[kept]), []);
    assert_eq!(ends(closed, &[], &[lost]).len(), 1);
    let unknown = warning("system-object-missing", function);
    assert_eq!(ends(closed, &[], &[unknown]), []);
}

#[test]
fn the_targets_own_grants_on_postgresqls_objects_are_a_warning_at_first() {
    let mut source = catalog(V15, &[changed(&[("grants", "bob=EXECUTE/(owner)")])]);
    let mut target = catalog(V15, &[changed(&[("grants", "alice=EXECUTE/(owner)")])]);
    level(&mut source, &mut target, LeftOut::default(), None);
    let mut differences = compare(&source, &target);
    let own = take_own(&mut differences);
    assert_eq!(own[0].code, "system-grants-were-there");
    assert_eq!(own[0].target_value, "grants: alice=EXECUTE/(owner)");
    let left = findings(&differences, Some(&[]));
    assert_eq!(left[0].source_value, "grants: bob=EXECUTE/(owner)");
    assert_eq!(left[0].target_value, "grants: none");
}

#[test]
fn what_a_step_could_not_do_is_settled_when_it_is_there_and_equal() {
    let trigger = object(("trigger", "x on public.t"), "", &[("enabled", "origin")]);
    let other = object(("trigger", "x on public.t"), "", &[("enabled", "disabled")]);
    let refused = warning("not-restored", "TRIGGER public t x postgres");
    let of_a_column = warning("not-restored", "DEFAULT public t c postgres");
    let is_settled = |finding: &Finding, there: &[SchemaObject]| {
        let source = catalog(V15, std::slice::from_ref(&trigger));
        let differences = compare(&source, &catalog(V15, there));
        super::known::is_settled(finding, &differences, &source, true)
    };
    assert!(!is_settled(&refused, &[]));
    assert!(!is_settled(&refused, std::slice::from_ref(&other)));
    assert!(is_settled(&refused, std::slice::from_ref(&trigger)));
    // What is no object by itself is settled when there is no difference at all.
    assert!(!is_settled(&of_a_column, &[other]));
    assert!(is_settled(&of_a_column, std::slice::from_ref(&trigger)));
}

#[test]
fn sequences_are_compared_by_where_the_migration_set_them() {
    let of = |position| {
        let properties = [("name", "public.s"), ("position", position)];
        object(("sequence", "public.s"), "", &properties)
    };
    let (mut source, mut target) = (catalog(V15, &[of("99")]), catalog(V15, &[of("7")]));
    let positions = Positions::from([("public.s".to_owned(), "7".to_owned())]);
    level(
        &mut source,
        &mut target,
        LeftOut::default(),
        Some(&positions),
    );
    assert_eq!(compare(&source, &target), []);
}

#[test]
fn secrets_are_shown_as_masked() {
    let of = |digest: &str| {
        let options = format!("user=(masked:00), password=(masked:{digest})");
        object(
            ("user mapping", "bob on server s"),
            "",
            &[("options", &options)],
        )
    };
    let found = compared(catalog(V15, &[of("a1")]), catalog(V15, &[of("b2")]), &[]);
    assert_eq!(
        found[0].target_value,
        "options: user=(masked), password=(masked)"
    );
}

#[test]
fn of_a_long_value_the_part_that_differs_is_shown() {
    let body = |word: &str| format!("{}{word}{}", "x".repeat(5000), "y".repeat(5000));
    let of = |word| {
        object(
            ("function", "f()"),
            "",
            &[("body", &body(word)), ("language", "sql")],
        )
    };
    let found = compared(catalog(V15, &[of("one")]), catalog(V15, &[of("two")]), &[]);
    assert!(found[0].source_value.contains("xoney"), "{found:?}");
    assert!(found[0].target_value.contains("xtwoy"));
    assert!(found[0].source_value.len() < 600);
    let (one, two) = (of("'one'"), of("'two'"));
    let found = compared(catalog(V15, &[one]), catalog(V15, &[two]), &[]);
    assert!(found[0].source_value.contains("x'(masked, here only)'y"));
    assert!(!found[0].target_value.contains("two"), "{found:?}");
}

#[test]
fn what_a_database_was_created_with_is_a_warning() {
    let of = |collate| object(("database", ""), "", &[("collate", collate)]);
    let found = compared(catalog(V15, &[of("C")]), catalog(V15, &[of("de_DE")]), &[]);
    assert_eq!(
        (found[0].severity, found[0].object.as_str()),
        (Severity::Warning, "database")
    );
    let made =
        |properties: &[(&str, &str)]| catalog(V15, &[object(("database", ""), "", properties)]);
    let template = [("connection limit", "3"), ("template", "yes")];
    let found = compared(made(&template), made(&[]), &[]);
    assert_eq!(found[0].severity, Severity::Warning);
    assert_eq!(found[0].source_value, "connection limit: 3; template: yes");
    let told = [warning("collation", "app")];
    assert_eq!(
        compared(
            catalog(V15, &[of("C")]),
            catalog(V15, &[of("de_DE")]),
            &told
        ),
        []
    );
    // What nobody told of and accepted is news later.
    let later = findings(&compare(&made(&template), &made(&[])), None);
    assert_eq!(later[0].severity, Severity::Difference);
}

#[test]
fn what_is_granted_to_the_other_ends_owner_of_a_member_is_his_by_owning() {
    let member = |owner: &str, grants: &str| {
        let properties = [("owner of a member", owner), ("grants", grants)];
        object(("function", "public.f()"), "extension e", &properties)
    };
    let source = member(
        "admin",
        "(owner)=EXECUTE/(owner)\nclerk=EXECUTE/(owner)\npostgres=EXECUTE*/(owner)",
    );
    let target = member("postgres", "(owner)=EXECUTE/(owner)\nclerk=EXECUTE/(owner)");
    let of = |target: &SchemaObject| {
        let (source, target) = (source.clone(), target.clone());
        compared(catalog(V15, &[source]), catalog(V15, &[target]), &[])
    };
    assert_eq!(of(&target), []);
    let found = of(&member("postgres", "(owner)=EXECUTE/(owner)"));
    assert_eq!(found.len(), 1, "what the clerk lost is told");
}

#[test]
fn of_the_superuser_that_initdb_made_the_settings_for_this_database_are_compared() {
    let root = |settings: &[(&str, &str)]| {
        let all = [&[("built in", "yes")], settings].concat();
        object(("role", "root"), "", &all)
    };
    let elsewhere = root(&[("setting work_mem", "9MB")]);
    let here = root(&[("setting row_security (in this database)", "off")]);
    let of = |target: &SchemaObject| {
        let source = catalog(V15, &[root(&[])]);
        compared(source, catalog(V15, std::slice::from_ref(target)), &[])
    };
    assert_eq!(of(&elsewhere), []);
    assert_eq!(of(&here).len(), 1);
}

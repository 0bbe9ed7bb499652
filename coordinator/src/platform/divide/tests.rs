#![allow(clippy::unwrap_used)]
use pgconvoy_proto::model::{Platform, Selection};

use super::*;
use crate::left_out::LeftOut;

const PLATFORM: &str = r#"
    name = "toy"
    managed-schemas = ["core"]
    owners = ["toy_*"]
    hooks = ["core.call_home"]
"#;

fn holding(oid: u32, kind: &str, identity: &str, owner: &str) -> Holding {
    Holding {
        entry: Entry { class: 1, oid },
        kind: kind.into(),
        identity: identity.into(),
        schema: Some("core".into()),
        owner: owner.into(),
        ..Holding::default()
    }
}

fn on(table: u32, mut object: Holding) -> Holding {
    object.of = Some(Entry {
        class: 1,
        oid: table,
    });
    object
}

fn trigger(oid: u32, function: (&str, &str, &str)) -> Holding {
    let mut object = on(
        1,
        holding(
            oid,
            "trigger",
            &format!("t{oid} on core.account"),
            "toy_admin",
        ),
    );
    object.function = Some((function.0.into(), function.1.into(), function.2.into()));
    object.definition = Some(format!("CREATE TRIGGER t{oid}"));
    object
}

fn divided(source: Vec<Holding>, target: Vec<Holding>) -> Division {
    let rules = Platform::parse(PLATFORM).unwrap().rules().unwrap();
    let of = |objects| Holdings {
        objects,
        ..Holdings::default()
    };
    let scope = Scope::new(&Selection::default(), LeftOut::default()).unwrap();
    divide(&rules, &of(source), &of(target), &scope)
}

fn carried(division: &Division) -> Vec<&str> {
    division
        .carried
        .iter()
        .map(|n| n.identity.as_str())
        .collect()
}

#[test]
fn what_the_target_lacks_is_the_users_unless_the_platform_owns_it() {
    let account = holding(1, "table", "core.account", "toy_admin");
    let source = vec![
        account.clone(),
        holding(2, "table", "core.newer", "toy_admin"),
        holding(3, "function", "core.mine()", "app"),
        on(2, holding(4, "policy", "p on core.newer", "toy_admin")),
        on(1, holding(5, "policy", "p on core.account", "toy_admin")),
        Holding {
            roles: vec!["toy_live".into()],
            ..on(1, holding(6, "policy", "q on core.account", "toy_admin"))
        },
    ];
    let division = divided(source, vec![account]);
    assert_eq!(carried(&division), ["core.mine()", "p on core.account"]);
    assert_eq!(
        division.left.len(),
        6,
        "four objects, and two tables' row security"
    );
}

#[test]
fn triggers_go_by_their_function() {
    let account = holding(1, "table", "core.account", "toy_admin");
    let source = vec![
        account.clone(),
        trigger(2, ("public", "welcome", "app")),
        trigger(3, ("core", "touch", "toy_admin")),
        trigger(4, ("core", "mine", "app")),
        trigger(5, ("core", "call_home", "toy_admin")),
    ];
    let division = divided(source, vec![account]);
    let users = [
        "t2 on core.account",
        "t4 on core.account",
        "t5 on core.account",
    ];
    assert_eq!(carried(&division), users);
    let told = &division.findings[0];
    assert_eq!(told.object, "core.account");
    assert_eq!(told.source_value, "CREATE TRIGGER t3");
}

#[test]
fn what_both_ends_have_is_the_targets_own_whoever_owns_it() {
    let function = holding(1, "function", "core.f()", "app");
    let division = divided(vec![function.clone()], vec![function]);
    assert!(division.carried.is_empty() && division.left.len() == 1);
}

#[test]
fn a_schema_that_the_target_lacks_comes_with_what_is_the_users_in_it() {
    let schema = holding(1, "schema", "core", "toy_admin");
    let alone = divided(vec![schema.clone()], vec![]);
    assert!(alone.carried.is_empty());
    let table = holding(2, "table", "core.mine", "app");
    let both = divided(vec![schema, table], vec![]);
    assert_eq!(carried(&both), ["core.mine", "core"]);
    assert!(both.left.is_empty());
}

#[test]
fn a_publication_of_the_users_that_publishes_otherwise_is_told() {
    let live = |owner: &str, definition: &str| Holding {
        schema: None,
        definition: Some(definition.into()),
        ..holding(1, "publication", "live", owner)
    };
    let told = |owner: &str, definition: &str| {
        let target = live("toy_admin", "CREATE PUBLICATION live");
        divided(vec![live(owner, definition)], vec![target]).findings
    };
    let all = "CREATE PUBLICATION live FOR ALL TABLES";
    let found = told("app", all);
    assert_eq!(found[0].code, "managed-publication");
    assert_eq!(found[0].source_value, all);
    assert!(told("app", "CREATE PUBLICATION live").is_empty());
    assert!(told("toy_admin", all).is_empty());
}

#[test]
fn of_the_whole_database_what_is_there_stays() {
    let wide = |oid, kind: &str, name: &str, owner: &str| Holding {
        schema: None,
        ..holding(oid, kind, name, owner)
    };
    let source = vec![
        wide(1, "publication", "live", "app"),
        wide(2, "publication", "mine", "app"),
        wide(3, "publication", "services", "toy_admin"),
        wide(4, "extension", "pgcrypto", "toy_admin"),
    ];
    let division = divided(source, vec![wide(9, "publication", "live", "toy_admin")]);
    let oids: HashSet<u32> = division.left.iter().map(|entry| entry.oid).collect();
    assert_eq!(oids, HashSet::from([1, 3]));
    assert_eq!(division.theirs.len(), 2);
}

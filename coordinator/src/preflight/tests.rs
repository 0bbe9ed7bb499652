use pgconvoy_proto::facts::{BuiltIn, BuiltInKind, Extension, Newer, OfAnother, ServerFacts};
use pgconvoy_proto::model::{Role, Roles};

use super::*;

fn server() -> ServerFacts {
    ServerFacts {
        version: 150_020,
        database: "app".into(),
        place: "app at db:5432 as postgres".into(),
        role: "postgres".into(),
        superuser: true,
        encoding: "UTF8".into(),
        max_connections: 100,
        max_locks_per_transaction: 64,
        session_stable: true,
        ..ServerFacts::default()
    }
}

fn roles() -> Roles {
    let postgres = Role {
        name: "postgres".into(),
        superuser: true,
        ..Role::default()
    };
    Roles {
        roles: vec![postgres],
        ..Roles::default()
    }
}

fn facts() -> Facts {
    Facts {
        source: SourceFacts {
            server: server(),
            size_bytes: 1 << 30,
            tables: 10,
            idle_globs: vec![],
            unreadable: vec![],
            filtered_by_rls: vec![],
            forced_rls: vec![],
            extensions: vec![],
            extension_tables: vec![],
            roles: vec![("postgres".into(), "owner of table t".into())],
            carried: roles(),
            reads_passwords: true,
            large_objects: 0,
            large_objects_unreadable: (0, vec![]),
            foreign_tables: vec![],
            tablespaces: vec![],
            subscriptions: vec![],
            event_triggers: vec![],
            pg_dump: Ok("pg_dump 15.20".into()),
            pg_dump_major: 15,
            newer: vec![],
            built_ins: vec![],
        },
        target: TargetFacts {
            server: server(),
            extensions_available: vec![],
            extensions_installed: vec![],
            default_privileges: vec![],
            of_others: vec![],
            roles: roles(),
            objects: 0,
            object_sample: vec![],
            tables: vec![],
            large_objects: 0,
            large_object_sample: vec![],
            unfinished: None,
            finished: None,
            can_create: true,
            can_set_replication_role: true,
            disk_free: Some(1 << 40),
            pg_restore: Ok(vec![15]),
        },
        unknown: vec![],
        link: MeasureLinkResponse {
            bytes: 1 << 20,
            seconds: 0.1,
            round_trip_seconds: 0.001,
        },
        clock_us: 0,
    }
}

fn blockers(edit: impl FnOnce(&mut Facts), intent: Intent) -> Vec<String> {
    let mut facts = facts();
    edit(&mut facts);
    let found = findings(&facts, intent);
    let blocking = found
        .into_iter()
        .filter(|f| f.severity == Severity::Blocker);
    blocking.map(|f| f.code).collect()
}

#[test]
fn a_plain_pair_has_no_blocker() {
    assert!(blockers(|_| {}, Intent::default()).is_empty());
}

#[test]
fn each_obstacle_is_named() {
    let of = |edit: fn(&mut Facts)| blockers(edit, Intent::default());
    let extension = Extension {
        name: "postgis".into(),
        version: "3".into(),
        ..Extension::default()
    };
    assert!(of(|f| f.source.large_objects = 1).is_empty());
    let target_has_one = |f: &mut Facts| {
        f.target.large_objects = 1;
        f.target.large_object_sample = vec!["16500".into()];
    };
    assert!(of(target_has_one).is_empty());
    let both_have_one = |f: &mut Facts| {
        f.source.large_objects = 1;
        target_has_one(f);
    };
    assert_eq!(
        blockers(both_have_one, Intent::default()),
        ["target-not-empty"]
    );
    // One that is replaced loses them, and that is told.
    let replacing = Intent {
        replace: true,
        ..Intent::default()
    };
    let replaced = |facts: &Facts| {
        let mut told = findings(facts, replacing).into_iter();
        told.find(|finding| finding.code == TARGET_REPLACED)
    };
    let mut facts = facts();
    assert!(replaced(&facts).is_none());
    target_has_one(&mut facts);
    let told = replaced(&facts).expect("a finding");
    assert_eq!(told.object, "large objects 16500");
    assert!(told.message.ends_with("replaced: 1 large objects"));
    let unreadable = |f: &mut Facts| f.source.large_objects_unreadable = (1, vec!["7".into()]);
    assert_eq!(of(unreadable), ["source-unreadable"]);
    let without_data = Intent {
        skip_data: true,
        ..Intent::default()
    };
    assert!(blockers(unreadable, without_data).is_empty());
    assert_eq!(
        of(|f| f.source.unreadable.push("t".into())),
        ["source-unreadable"]
    );
    assert_eq!(
        of(|f| f.source.filtered_by_rls.push("t".into())),
        ["rls-filters-role"]
    );
    assert_eq!(of(|f| f.source.pg_dump = Err("none".into())), ["pg-dump"]);
    assert_eq!(of(|f| f.source.pg_dump_major = 17), ["pg-restore"]);
    assert_eq!(of(|f| f.target.objects = 1), ["target-not-empty"]);
    assert_eq!(of(|f| f.target.disk_free = Some(1)), ["disk"]);
    assert_eq!(of(|f| f.source.tables = 20_000), ["locks"]);
    assert_eq!(
        of(|f| f.source.server.session_stable = false),
        ["transaction-pooler"]
    );
    assert_eq!(
        of(|f| f.target.server.encoding = "LATIN1".into()),
        ["encoding"]
    );
    assert_eq!(
        blockers(|f| f.source.extensions.push(extension), Intent::default()),
        ["extension-missing"]
    );
}

#[test]
fn a_role_that_cannot_be_created_can_be_forced() {
    let weaken = |f: &mut Facts| {
        f.target.server.superuser = false;
        f.target.server.role = "loader".into();
        f.target.roles.roles[0].name = "loader".into();
        f.source.reads_passwords = false;
        f.source.carried.roles[0].login = true;
    };
    assert_eq!(
        blockers(weaken, Intent::default()),
        ["role-cannot-be-created"]
    );
    let forced = Intent {
        force: true,
        ..Intent::default()
    };
    assert!(blockers(weaken, forced).is_empty());
    let mut facts = facts();
    weaken(&mut facts);
    let found = findings(&facts, forced);
    let told = |code: &str| found.iter().any(|finding| finding.code == code);
    assert!(told("roles-created") && told("role-password-not-carried"));
}

#[test]
fn a_missing_role_can_be_forced_and_skipping_rls_must_be() {
    let lose = |f: &mut Facts| f.target.roles.roles.clear();
    let none = Intent {
        roles: RoleChoice::None,
        ..Intent::default()
    };
    let forced = Intent {
        force: true,
        ..none
    };
    assert_eq!(blockers(lose, none), ["role-missing"]);
    assert!(blockers(lose, forced).is_empty());
    assert!(blockers(lose, Intent::default()).is_empty());
    assert_eq!(
        blockers(
            |_| {},
            Intent {
                skip_rls: true,
                ..Intent::default()
            }
        ),
        ["skip-rls"]
    );
}

fn newer(vital: bool) -> Newer {
    Newer {
        since: 18,
        what: "virtual generated columns".into(),
        vital,
        instead: "make them STORED".into(),
        count: 7,
        examples: vec!["public.t.a".into(), "public.t.b".into()],
    }
}

#[test]
fn what_an_older_target_does_not_know_blocks_where_rows_would_have_no_place() {
    let mut facts = facts();
    facts.source.server.version = 180_004;
    facts.source.newer = vec![newer(true), newer(false)];
    facts.unknown = vec![BuiltIn {
        kind: BuiltInKind::Function,
        name: "uuidv7".into(),
        arguments: 0,
        defaults: 0,
        vital: true,
        count: 1,
        examples: vec!["column public.t.id".into()],
    }];
    let found = findings(&facts, Intent::default());
    let too_old: Vec<&Finding> = found
        .iter()
        .filter(|f| f.code == "target-too-old")
        .collect();
    let severities: Vec<Severity> = too_old.iter().map(|f| f.severity).collect();
    assert_eq!(
        severities,
        [Severity::Blocker, Severity::Blocker, Severity::Warning]
    );
    assert_eq!(too_old[0].object, "public.t.a, public.t.b and 5 more");
    assert!(
        too_old[0]
            .message
            .contains("PostgreSQL 15 does not know virtual generated columns (18 does): 7")
    );
    assert!(too_old[0].hint.contains("make them STORED"));
    assert!(
        too_old[1]
            .message
            .contains("function uuidv7() with 0 arguments: 1 found")
    );
    assert!(found.iter().any(|f| f.code == "older-target"));
    let skipped = findings(
        &facts,
        Intent {
            skip_schema: true,
            ..Intent::default()
        },
    );
    assert!(skipped.iter().all(|f| f.code != "target-too-old"));
}

#[test]
fn another_version_of_an_extension_is_told_and_stops_nothing() {
    let mut facts = facts();
    let of = |version: &str| Extension {
        name: "hstore".into(),
        version: version.into(),
        ..Extension::default()
    };
    facts.source.extensions = vec![of("1.8")];
    facts.target.extensions_available = vec![of("1.9")];
    let found = findings(&facts, Intent::default());
    let told = found.iter().find(|f| f.code == "extension-version");
    let told = told.map(|f| (f.severity, f.source_value.as_str(), f.target_value.as_str()));
    assert_eq!(told, Some((Severity::Info, "1.8", "1.9")));
    facts.target.extensions_available = vec![of("1.8")];
    let found = findings(&facts, Intent::default());
    assert!(found.iter().all(|f| f.code != "extension-version"));
}

#[test]
fn whoever_could_not_roll_back_is_told_before_whatever_is_replaced() {
    let of_others = |facts: &mut Facts| {
        facts.target.of_others = vec![OfAnother {
            owner: "service".into(),
            count: 1,
            examples: vec!["table core.account".into()],
        }];
    };
    assert!(blockers(of_others, Intent::default()).is_empty());
    // Nothing of the user's is there: rows or a policy in a platform's schemas are replaced.
    let comes_back = Intent {
        force: true,
        comes_back: true,
        ..Intent::default()
    };
    assert_eq!(blockers(of_others, comes_back), ["target-not-owned"]);
}

#[test]
fn an_extension_in_another_schema_at_the_target_stops_the_migration() {
    let of = |schema: &str, relocatable| Extension {
        name: "hstore".into(),
        version: "1.8".into(),
        schema: schema.into(),
        relocatable,
    };
    let with = |source, there| {
        let mut facts = facts();
        facts.source.extensions = vec![source];
        facts.target.extensions_installed = vec![there];
        let found = findings(&facts, Intent::default());
        found.into_iter().find(|f| f.code == EXTENSION_SCHEMA)
    };
    let told = with(of("public", true), of("extensions", true)).expect("a finding");
    assert_eq!(told.severity, Severity::Blocker);
    assert!(told.hint.contains("SET SCHEMA public"), "{}", told.hint);
    let fixed = with(of("public", false), of("extensions", false)).expect("a finding");
    assert!(fixed.hint.contains("DROP EXTENSION"), "{}", fixed.hint);
    assert!(with(of("public", true), of("public", true)).is_none());
}

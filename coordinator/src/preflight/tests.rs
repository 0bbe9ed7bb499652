use pgconvoy_proto::facts::{Extension, ServerFacts};

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

fn facts() -> Facts {
    Facts {
        source: SourceFacts {
            server: server(),
            size_bytes: 1 << 30,
            tables: 10,
            unreadable: vec![],
            filtered_by_rls: vec![],
            extensions: vec![],
            roles: vec![("postgres".into(), "owner of table t".into())],
            large_objects: 0,
            large_objects_unreadable: (0, vec![]),
            foreign_tables: vec![],
            tablespaces: vec![],
            subscriptions: vec![],
            event_triggers: vec![],
            pg_dump: Ok("pg_dump 15.20".into()),
            pg_dump_major: 15,
        },
        target: TargetFacts {
            server: server(),
            extensions_available: vec![],
            extensions_installed: vec![],
            roles: vec!["postgres".into()],
            objects: 0,
            object_sample: vec![],
            tables: vec![],
            large_object_sample: vec![],
            unfinished: None,
            finished: None,
            can_create: true,
            can_set_replication_role: true,
            disk_free: Some(1 << 40),
            pg_restore: Ok(vec![15]),
        },
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
    };
    assert!(of(|f| f.source.large_objects = 1).is_empty());
    let target_has_one = |f: &mut Facts| f.target.large_object_sample = vec!["16500".into()];
    assert!(of(target_has_one).is_empty());
    assert_eq!(
        of(|f| {
            f.source.large_objects = 1;
            f.target.large_object_sample = vec!["16500".into()];
        }),
        ["target-not-empty"]
    );
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
fn a_missing_role_can_be_forced_and_skipping_rls_must_be() {
    let lose = |f: &mut Facts| f.target.roles.clear();
    assert_eq!(blockers(lose, Intent::default()), ["role-missing"]);
    assert!(
        blockers(
            lose,
            Intent {
                force: true,
                ..Intent::default()
            }
        )
        .is_empty()
    );
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

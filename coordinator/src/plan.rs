//! The plan: a pure value, made of an inventory and options. What it says is written into the ledger before anything is
//! done; resuming is the plan minus the ledger.
use std::collections::HashSet;

use pgconvoy_proto::model::{
    Entry, Finding, IndexOn, Oid, Options, RLS_SKIPPED, Severity, Step, Table, Work,
};

use crate::inventory::Inventory;
use crate::phases::Phase;

#[derive(Clone, Debug)]
pub struct Plan {
    pub snapshot: String,
    pub source: String,
    pub source_version: u32,
    pub options: Options,
    /// Largest first.
    pub tables: Vec<Table>,
    /// In the order of their phases.
    pub steps: Vec<Step>,
    pub skipped: Vec<Entry>,
    pub findings: Vec<Finding>,
}

impl Plan {
    pub fn new(inventory: Inventory, options: Options) -> Self {
        let Inventory {
            snapshot,
            database,
            server_version,
            mut tables,
            mut works,
            mut findings,
            skipped,
            ..
        } = inventory;
        if options.skip_data {
            tables.clear();
        }
        if options.skip_schema {
            // Whoever made the tables may have given their columns other types.
            tables.iter_mut().for_each(|table| table.padded.clear());
        }
        tables.sort_by_key(|table| (std::cmp::Reverse(table.size_bytes), table.oid));
        works.push(Work::PreData);
        if works.iter().any(|w| {
            matches!(
                w,
                Work::Index {
                    on: IndexOn::Partitioned,
                    ..
                }
            )
        }) {
            works.push(Work::AttachIndexes);
        }
        works.extend(tables.iter().map(|table| Work::Statistics {
            schema: table.schema.clone(),
            name: table.name.clone(),
            partitioned: table.through_root,
        }));
        // Tables that are copied by themselves, and read back.
        let digested: HashSet<Oid> = match options.no_verify {
            true => HashSet::new(),
            false => tables.iter().map(|table| table.oid).collect(),
        };
        works = works
            .into_iter()
            .flat_map(|work| key_first(work, &digested))
            .filter(|work| wanted(work, &options))
            .collect();
        if options.skip_rls {
            findings.push(
                Finding::new(
                    Severity::Warning,
                    RLS_SKIPPED,
                    "row level security",
                    match options.skip_schema {
                        true => "--skip-rls: the target's tables are as open or closed as they were",
                        false => "--skip-rls: the target's tables are open to every role that may read them",
                    },
                )
                .hint(
                    "run rls_policies.sql of the run folder at the target before anybody connects; pgconvoy verify says what is missing",
                ),
            );
        }
        // Stable: within a phase the source's order (the largest index first, roles before pre-data) stays.
        works.sort_by_key(Phase::of);
        let number = |(at, work)| Step {
            number: at as u32 + 1,
            work,
        };
        Self {
            snapshot,
            source: database,
            source_version: server_version,
            options,
            tables,
            steps: works.into_iter().enumerate().map(number).collect(),
            skipped,
            findings,
        }
    }

    pub fn size_bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.size_bytes).sum()
    }
}

/// The index of a large key as a step of its own, where the table is digested beside it; otherwise the archive's entry does both.
fn key_first(mut work: Work, digested: &HashSet<Oid>) -> Vec<Work> {
    let Work::Index {
        schema,
        name,
        table,
        key,
        size_bytes,
        ..
    } = &mut work
    else {
        return vec![work];
    };
    if !digested.contains(table) {
        *key = None;
    }
    let index = key.as_ref().map(|key| Work::KeyIndex {
        schema: schema.clone(),
        name: name.clone(),
        table: *table,
        create: key.create.clone(),
        size_bytes: *size_bytes,
    });
    index.into_iter().chain([work]).collect()
}

/// Statistics of a partitioned table come with the inventory; a root that is copied as a whole has them as a table.
fn wanted(work: &Work, options: &Options) -> bool {
    match work {
        // Large objects are made by the copy, also into a schema that is there.
        Work::Refresh { .. }
        | Work::Sequences { .. }
        | Work::LargeObjects { .. }
        | Work::Vacate { .. }
        | Work::Derive(_)
        | Work::ManagedKeys => !options.skip_data,
        Work::Statistics { .. } => !options.skip_data,
        _ => !options.skip_schema,
    }
}

#[cfg(test)]
mod tests {
    use pgconvoy_proto::model::{Properties, Roles};

    use super::*;

    fn index(on: IndexOn, name: &str) -> Work {
        Work::Index {
            entry: Entry {
                class: 1259,
                oid: 1,
            },
            schema: "s".into(),
            name: name.into(),
            table: 7,
            on,
            constraint: false,
            key: None,
            size_bytes: 0,
        }
    }

    fn inventory() -> Inventory {
        Inventory {
            works: vec![
                Work::Database(Properties::default()),
                Work::Roles(Roles::default()),
                Work::Sequences { values: vec![] },
                index(IndexOn::Partitioned, "p"),
                index(IndexOn::Table, "t"),
                Work::PostData { made: vec![] },
            ],
            ..Inventory::default()
        }
    }

    #[test]
    fn steps_are_in_the_order_of_their_phases() {
        let plan = Plan::new(inventory(), Options::default());
        let kinds: Vec<&str> = plan.steps.iter().map(|step| step.work.kind()).collect();
        assert_eq!(
            kinds,
            [
                "roles",
                "pre-data",
                "index",
                "index",
                "attach-indexes",
                "post-data",
                "sequences",
                "database"
            ]
        );
        assert_eq!(plan.steps[2].work.object(), "s.t");
    }

    #[test]
    fn large_objects_come_with_the_data() {
        let kinds = |options| {
            let mut inventory = inventory();
            inventory.works.push(Work::LargeObjects {
                access: vec![],
                notes: vec![],
            });
            let plan = Plan::new(inventory, options);
            let kinds = plan.steps.iter().map(|step| step.work.kind());
            kinds.filter(|kind| *kind == "large-objects").count()
        };
        let skip_schema = Options {
            skip_schema: true,
            ..Options::default()
        };
        let skip_data = Options {
            skip_data: true,
            ..Options::default()
        };
        assert_eq!(kinds(Options::default()), 1);
        assert_eq!(kinds(skip_schema), 1);
        assert_eq!(kinds(skip_data), 0);
    }

    #[test]
    fn skipping_the_schema_leaves_rows_and_sequences() {
        let options = Options {
            skip_schema: true,
            ..Options::default()
        };
        let plan = Plan::new(inventory(), options);
        let kinds: Vec<&str> = plan.steps.iter().map(|step| step.work.kind()).collect();
        assert_eq!(kinds, ["sequences"]);
    }
}

//! What of a platform's schemas a command is about: the rest of it is neither looked at nor replaced. Pure.
use std::collections::HashMap;

use pgconvoy_proto::model::{Entry, HeldTable, Holding, Holdings, Selection};
use pgconvoy_proto::selection::{Error, Filter};

use crate::compare::known::plain;
use crate::left_out::LeftOut;

pub struct Scope {
    pub selection: Selection,
    pub left_out: LeftOut,
    /// Definitions stay as they are.
    pub skip_schema: bool,
    filter: Filter,
}

/// Kinds that are admitted by their own name, as in an archive; what is part of them goes with them.
const RELATIONS: &[&str] = &[
    "table",
    "view",
    "materialized view",
    "foreign table",
    "sequence",
];

impl Scope {
    pub fn new(selection: &Selection, left_out: LeftOut) -> Result<Self, Error> {
        Ok(Self {
            selection: selection.clone(),
            left_out,
            skip_schema: false,
            filter: Filter::new(selection)?,
        })
    }

    pub fn skip_schema(self, skip_schema: bool) -> Self {
        Self {
            skip_schema,
            ..self
        }
    }

    pub fn admits_table(&self, table: &HeldTable) -> bool {
        self.filter.admits(&table.schema, &table.name)
    }

    /// What is of a whole schema, or of the whole database.
    pub fn admits_all_of(&self, schema: Option<&str>) -> bool {
        match schema {
            Some(schema) => self.filter.admits_schema(schema),
            None => self.selection.is_everything(),
        }
    }

    /// Of a table, of its columns and of its constraints: `schema.table.column`.
    pub fn admits_name(&self, name: &str) -> bool {
        let mut parts = name.splitn(3, '.');
        let mut next = || parts.next().unwrap_or_default();
        let (schema, table) = (next(), next());
        self.filter.admits(schema, table)
    }

    /// `there`: all of the same end, by their entries.
    pub fn admits(&self, there: &HashMap<Entry, &Holding>, object: &Holding) -> bool {
        if self.left_out.rls && object.kind == "policy" {
            return false;
        }
        let on = object.of.and_then(|of| there.get(&of).copied());
        let on = on.unwrap_or(object);
        let Some(schema) = &on.schema else {
            return true;
        };
        let identity = plain(&on.identity);
        let name = identity.strip_prefix(&format!("{schema}."));
        match name.filter(|_| RELATIONS.contains(&on.kind.as_str())) {
            Some(name) => self.filter.admits(schema, name),
            None => self.filter.admits_schema(schema),
        }
    }
}

pub fn by_entry(holdings: &Holdings) -> HashMap<Entry, &Holding> {
    holdings.objects.iter().map(|o| (o.entry, o)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn holding(oid: u32, kind: &str, identity: &str, of: Option<u32>) -> Holding {
        let entry = |oid| Entry { class: 1, oid };
        Holding {
            entry: entry(oid),
            kind: kind.into(),
            identity: identity.into(),
            schema: Some("core".into()),
            of: of.map(entry),
            ..Holding::default()
        }
    }

    #[test]
    fn what_is_part_of_a_table_goes_with_it() {
        let holdings = Holdings {
            objects: vec![
                holding(1, "table", "core.\"log\"", None),
                holding(2, "policy", "p on core.\"log\"", Some(1)),
                holding(3, "trigger", "t on core.\"log\"", Some(1)),
                holding(4, "function", "core.log()", None),
            ],
            ..Holdings::default()
        };
        let admitted = |edit: fn(&mut Selection), rls| {
            let mut selection = Selection::default();
            edit(&mut selection);
            let scope = Scope::new(&selection, LeftOut { data: false, rls }).unwrap();
            let there = by_entry(&holdings);
            let objects = holdings.objects.iter();
            objects
                .filter(|object| scope.admits(&there, object))
                .map(|object| object.entry.oid)
                .collect::<Vec<u32>>()
        };
        assert_eq!(admitted(|_| {}, false), [1, 2, 3, 4]);
        assert_eq!(admitted(|_| {}, true), [1, 3, 4]);
        let table = |s: &mut Selection| s.exclude_table.push("core.log".into());
        assert_eq!(admitted(table, false), [4]);
        let schema = |s: &mut Selection| s.exclude_schema.push("core".into());
        assert!(admitted(schema, false).is_empty());
    }

    #[test]
    fn a_name_is_admitted_as_its_table_is() {
        let mut selection = Selection::default();
        selection.include_table.push("core.log".into());
        let scope = Scope::new(&selection, LeftOut::default()).unwrap();
        assert!(scope.admits_name("core.log") && scope.admits_name("core.log.origin"));
        assert!(!scope.admits_name("core.account.nick"));
    }
}

//! Which tables and schemas a command is about.
use std::collections::HashSet;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};

use crate::model::{Malformed, Selection};

#[derive(Debug, thiserror::Error)]
#[error("--{flag} {glob}: {reason}")]
pub struct Error {
    flag: &'static str,
    glob: String,
    reason: String,
}

/// A [`Selection`], compiled. A table is admitted when its schema and its name are: each include list that is not empty must match, and
/// no exclude list may.
pub struct Filter {
    include_schema: Option<GlobSet>,
    exclude_schema: GlobSet,
    include_table: Option<GlobSet>,
    exclude_table: GlobSet,
    everything: bool,
    skip_storage: bool,
}

/// What --skip-storage leaves out: buckets, files' rows, policies.
pub const STORAGE: &str = "storage";

impl Filter {
    pub fn new(selection: &Selection) -> Result<Self, Error> {
        let some = |globs: &[String], set| (!globs.is_empty()).then_some(set);
        Ok(Self {
            include_schema: some(
                &selection.include_schema,
                compile("include-schema", &selection.include_schema)?,
            ),
            exclude_schema: compile("exclude-schema", &selection.exclude_schema)?,
            include_table: some(
                &selection.include_table,
                compile("include-table", &selection.include_table)?,
            ),
            exclude_table: compile("exclude-table", &selection.exclude_table)?,
            everything: selection.is_everything(),
            skip_storage: selection.skip_storage,
        })
    }

    /// Large objects are of no schema and no table: whoever chooses among those leaves them out, as with pg_dump -n and -t.
    pub fn admits_large_objects(&self) -> bool {
        self.everything
    }

    pub fn admits_schema(&self, schema: &str) -> bool {
        self.include_schema
            .as_ref()
            .is_none_or(|set| set.is_match(schema))
            && !self.exclude_schema.is_match(schema)
            && !(self.skip_storage && schema == STORAGE)
    }

    pub fn admits(&self, schema: &str, table: &str) -> bool {
        let name = format!("{schema}.{table}");
        self.admits_schema(schema)
            && self
                .include_table
                .as_ref()
                .is_none_or(|set| set.is_match(&name))
            && !self.exclude_table.is_match(&name)
    }
}

/// A glob that matches nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idle {
    /// Without its dashes: `include-table`.
    pub flag: String,
    pub glob: String,
}

/// Globs that match none of the schemas, or none of the relations, (schema, name).
pub fn idle(
    selection: &Selection,
    schemas: &[&str],
    relations: &[(&str, &str)],
) -> Result<Vec<Idle>, Error> {
    let relations: Vec<String> = relations
        .iter()
        .map(|(schema, name)| format!("{schema}.{name}"))
        .collect();
    let mut idle = Vec::new();
    for (flag, globs) in [
        ("include-schema", &selection.include_schema),
        ("exclude-schema", &selection.exclude_schema),
    ] {
        idle.extend(unmatched(flag, globs, schemas)?);
    }
    for (flag, globs) in [
        ("include-table", &selection.include_table),
        ("exclude-table", &selection.exclude_table),
    ] {
        idle.extend(unmatched(flag, globs, &relations)?);
    }
    Ok(idle)
}

fn unmatched(
    flag: &'static str,
    globs: &[String],
    names: &[impl AsRef<str>],
) -> Result<Vec<Idle>, Error> {
    let set = compile(flag, globs)?;
    let mut matched = vec![false; globs.len()];
    for name in names {
        for at in set.matches(name.as_ref()) {
            matched[at] = true;
        }
    }
    let globs = globs.iter().zip(matched).filter(|(_, matched)| !matched);
    let idle = |(glob, _): (&String, bool)| Idle {
        flag: flag.into(),
        glob: glob.clone(),
    };
    Ok(globs.map(idle).collect())
}

/// Globs over the names of schemas.
pub fn schemas(globs: &[String]) -> Result<GlobSet, Malformed> {
    compile("managed-schemas", globs).map_err(|error| Malformed::new(error.to_string()))
}

/// Tables of a platform that nobody reads: all in its schemas, but for those that are named. Who holds them locked makes its services wait,
/// which drop and make some every day.
#[derive(Clone, Default)]
pub struct Unread {
    schemas: GlobSet,
    read: HashSet<String>,
}

impl Unread {
    /// Globs over the names of schemas; `schema.table` of those that are read all the same.
    pub fn new(schemas: &[String], read: &[String]) -> Result<Self, Malformed> {
        Ok(Self {
            schemas: self::schemas(schemas)?,
            read: read.iter().cloned().collect(),
        })
    }

    pub fn holds(&self, schema: &str, table: &str) -> bool {
        self.schemas.is_match(schema) && !self.read.contains(&format!("{schema}.{table}"))
    }
}

fn compile(flag: &'static str, globs: &[String]) -> Result<GlobSet, Error> {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        let error = |reason: globset::Error| Error {
            flag,
            glob: glob.clone(),
            reason: reason.kind().to_string(),
        };
        set.add(
            GlobBuilder::new(glob)
                .literal_separator(false)
                .build()
                .map_err(error)?,
        );
    }
    set.build().map_err(|reason| Error {
        flag,
        glob: globs.join(" "),
        reason: reason.to_string(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn filter(edit: impl FnOnce(&mut Selection)) -> Filter {
        let mut selection = Selection::default();
        edit(&mut selection);
        Filter::new(&selection).unwrap()
    }

    #[test]
    fn nothing_asked_admits_everything() {
        let all = filter(|_| {});
        assert!(all.admits("a b", "c.d") && all.admits_large_objects());
    }

    #[test]
    fn large_objects_go_with_the_whole_database_only() {
        assert!(!filter(|s| s.include_schema.push("*".into())).admits_large_objects());
        assert!(!filter(|s| s.exclude_table.push("a.b".into())).admits_large_objects());
    }

    #[test]
    fn without_storage_the_rest_is_whole() {
        let filter = filter(|s| s.skip_storage = true);
        assert!(!filter.admits_schema("storage") && !filter.admits("storage", "objects"));
        assert!(filter.admits("storage2", "objects") && filter.admits_large_objects());
    }

    #[test]
    fn exclude_wins_over_include() {
        let filter = filter(|s| {
            s.include_schema.push("app*".into());
            s.exclude_table.push("app.log_*".into());
        });
        assert!(filter.admits("app", "users"));
        assert!(filter.admits("app2", "log_1"));
        assert!(!filter.admits("app", "log_1"));
        assert!(!filter.admits("public", "users"));
    }

    #[test]
    fn globs_that_match_nothing_are_known() {
        let selection = Selection {
            include_table: vec!["app.users".into(), "*.user".into(), "app.log*".into()],
            exclude_table: vec!["app.audit".into(), "app.log_1".into()],
            include_schema: vec!["app".into(), "ap".into()],
            ..Selection::default()
        };
        let tables = [("app", "users"), ("app", "log_1")];
        let idle = idle(&selection, &["app", "public"], &tables).unwrap();
        let idle: Vec<_> = idle.iter().map(|i| (&*i.flag, &*i.glob)).collect();
        let expected = [
            ("include-schema", "ap"),
            ("include-table", "*.user"),
            ("exclude-table", "app.audit"),
        ];
        assert_eq!(idle, expected);
    }

    #[test]
    fn a_broken_glob_names_its_flag() {
        let selection = Selection {
            include_table: vec!["a[".into()],
            ..Selection::default()
        };
        let error = Filter::new(&selection).err().unwrap().to_string();
        assert!(error.starts_with("--include-table a["), "{error}");
    }
}

//! What a command is told to leave out of what it looks at: rows (`--skip-data`), row level security (`--skip-rls`).
//!
//! What was not looked at is neither equal nor different: earlier findings about it stay as they are, and the answer names it.
use pgconvoy_proto::model::{
    Finding, OF_ACCESS, OF_CHECKS, OF_COMPARISON, OF_OBJECTS, OF_SCHEMA, Options, RLS_SKIPPED,
    SYNC_ORPHANS, SchemaObject, TOLD,
};

use crate::compare::findings::DIFFERS_IN;

pub const LARGE_OBJECT: &str = "large object";
const POLICY: &str = "policy";
const SEQUENCE: &str = "sequence";
/// Properties that are data: where a sequence stands, whether a materialized view holds rows.
const OF_DATA: &[(&str, &str)] = &[(SEQUENCE, "position"), ("materialized view", "populated")];
/// Properties of a table.
const OF_RLS: &[&str] = &["row security", "forced row security"];
/// How entries of an archive begin that are row level security, as pg_restore lists them.
const ENTRIES_OF_RLS: &[&str] = &["POLICY ", "ROW SECURITY "];
/// Steps that could not do what rows need.
const STEPS_OF_DATA: &[&str] = &["view-not-refreshed", "sequence-not-set", "orphans"];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    pub data: bool,
    pub rls: bool,
}

impl LeftOut {
    pub fn by_migration(options: &Options) -> Self {
        Self {
            data: options.skip_data,
            rls: options.skip_rls,
        }
    }

    /// More than the migration has left out.
    pub fn exceeds(self, options: &Options) -> bool {
        let migration = Self::by_migration(options);
        self.data && !migration.data || self.rls && !migration.rls
    }

    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// As the flags call it.
    pub fn names(self) -> Vec<&'static str> {
        let all = [(self.data, "data"), (self.rls, "rls")];
        let left_out = all.into_iter().filter(|(left_out, _)| *left_out);
        left_out.map(|(_, name)| name).collect()
    }

    /// `; not compared: rows (--skip-data)`, nothing where nothing is left out.
    pub fn words(self) -> String {
        let all = [
            (self.data, "rows (--skip-data)"),
            (self.rls, "row level security (--skip-rls)"),
        ];
        let left_out = all.into_iter().filter(|(left_out, _)| *left_out);
        let named: Vec<&str> = left_out.map(|(_, words)| words).collect();
        match named.is_empty() {
            true => String::new(),
            false => format!("; not compared: {}", named.join(", ")),
        }
    }

    /// Takes it out of a description; false: all of the object goes.
    pub fn forget(self, object: &mut SchemaObject) -> bool {
        if self.data {
            for (_, property) in OF_DATA.iter().filter(|(kind, _)| object.kind == *kind) {
                object.properties.remove(*property);
            }
        }
        if self.rls {
            for property in OF_RLS {
                object.properties.remove(*property);
            }
        }
        // Large objects are data, made by the copy of their pages.
        !(self.data && object.kind == LARGE_OBJECT || self.rls && object.kind == POLICY)
    }

    /// The finding says something about what is left out, whatever else it says.
    pub fn is_about(self, finding: &Finding) -> bool {
        self.data && is_about_data(finding) || self.rls && is_about_rls(finding)
    }
}

fn is_about_data(finding: &Finding) -> bool {
    let code = finding.code.as_str();
    let of = |kind: &str| finding.object.starts_with(&format!("{kind} "));
    let mut properties = OF_DATA.iter();
    [OF_COMPARISON, OF_OBJECTS, OF_CHECKS, OF_ACCESS]
        .iter()
        .any(|codes| codes.contains(&code))
        || STEPS_OF_DATA.contains(&code)
        || code == SYNC_ORPHANS
        || is_of_schema(code)
            && (of(LARGE_OBJECT)
                || properties.any(|(kind, property)| of(kind) && names(finding, property)))
}

fn is_about_rls(finding: &Finding) -> bool {
    let code = finding.code.as_str();
    let entry = |begins: &&str| finding.object.starts_with(*begins);
    OF_ACCESS.contains(&code)
        || code == RLS_SKIPPED
        || code == "policy-idle"
        || code == "not-restored" && ENTRIES_OF_RLS.iter().any(entry)
        || is_of_schema(code)
            && (finding.object.starts_with(&format!("{POLICY} "))
                || OF_RLS.iter().any(|property| names(finding, property)))
}

fn is_of_schema(code: &str) -> bool {
    OF_SCHEMA.contains(&code) || code == TOLD
}

/// The finding is about this property of its object: `it differs in row security, owner`, or, of what was told before, the property alone.
fn names(finding: &Finding, property: &str) -> bool {
    let said = finding.message.strip_prefix(DIFFERS_IN);
    let mut listed = said.unwrap_or(&finding.message).split(", ");
    listed.any(|one| one == property)
}

#[cfg(test)]
mod tests {
    use pgconvoy_proto::model::Severity;

    use super::*;

    const RLS: LeftOut = LeftOut {
        data: false,
        rls: true,
    };
    const DATA: LeftOut = LeftOut {
        data: true,
        rls: false,
    };

    fn finding(code: &str, object: &str, message: &str) -> Finding {
        Finding::new(Severity::Difference, code, object, message)
    }

    #[test]
    fn a_finding_is_about_what_is_left_out_whatever_else_it_says() {
        let missing = "it is missing at the target";
        let of_rls = [
            finding("object-missing", "policy own on public.t", missing),
            finding(
                "object-differs",
                "table public.t",
                "it differs in owner, row security",
            ),
            finding(TOLD, "table public.t", "forced row security"),
            finding("not-restored", "ROW SECURITY public t postgres", "refused"),
        ];
        for finding in &of_rls {
            assert!(RLS.is_about(finding), "{finding:?}");
            assert!(!DATA.is_about(finding), "{finding:?}");
        }
        let of_data = [
            finding("rows-differ", "public.t", "contents"),
            finding(
                "object-differs",
                "sequence public.s",
                "it differs in position",
            ),
            finding("object-missing", "large object 4711", missing),
        ];
        for finding in &of_data {
            assert!(DATA.is_about(finding), "{finding:?}");
            assert!(!RLS.is_about(finding), "{finding:?}");
        }
        let of_neither = [
            finding(
                "object-differs",
                "table public.t",
                "it differs in owner, grants",
            ),
            finding(
                "object-differs",
                "column public.t.c",
                "it differs in position",
            ),
            finding("not-restored", "TRIGGER public t watch postgres", "refused"),
        ];
        let both = LeftOut {
            data: true,
            rls: true,
        };
        for finding in &of_neither {
            assert!(!both.is_about(finding), "{finding:?}");
        }
    }

    #[test]
    fn what_is_left_out_is_named_by_its_flags() {
        assert_eq!(LeftOut::default().words(), "");
        assert!(RLS.words().contains("--skip-rls"));
        assert_eq!(DATA.names(), ["data"]);
    }
}

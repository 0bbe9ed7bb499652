//! A platform: what of a database belongs to whoever runs it, and what to the user. It is data: a TOML file, of ours or a table
//! `[platform]` of `pgconvoy.toml`, read by one parser. A maintainer adds a rule by adding a line there.
use std::collections::BTreeMap;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};

use super::AccessRules;

/// Those that pgconvoy knows by itself.
const KNOWN: &[&str] = &[include_str!("platform/supabase.toml")];

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Platform {
    pub name: String,
    /// All of them are there, or it is not this platform.
    pub signs: Signs,
    /// Globs. Their own objects are made by the platform's services, at both ends.
    pub managed_schemas: Vec<String>,
    /// Globs: roles whose objects in managed schemas are the platform's own.
    pub owners: Vec<String>,
    /// Globs: roles that are never created, altered, nor dropped. The owners are, too.
    pub reserved_roles: Vec<String>,
    /// Globs: functions of the platform, `schema.name`, that users make triggers of: such a trigger is the user's.
    pub hooks: Vec<String>,
    /// The level of each service: the highest value of a column, `schema.table.column`.
    pub versions: Vec<Version>,
    pub rows: RowRules,
    /// Settings of every session that deletes rows of managed tables.
    pub delete_settings: BTreeMap<String, String>,
    /// What some levels compute and others do not have.
    pub derived: Vec<Derived>,
    /// Columns that have one value at the target, whatever they have at the source.
    pub fixed: Vec<Fixed>,
    /// Columns, `schema.table.column`, that a service may encrypt with a key that is not in the database: a JSON object then.
    pub encrypted: Vec<String>,
    /// Tables whose contents are worth nothing without a key that is not in the database.
    pub sealed: Vec<Told>,
    /// What is not in the database and has to be seen to by hand.
    pub outside: Vec<Told>,
    /// Who is asked, at both ends, what they may see; none: nobody is, and nothing is claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessRules>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Signs {
    /// `schema.table`
    pub tables: Vec<String>,
    pub roles: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Version {
    pub column: String,
    /// Who makes the objects of that schema: "GoTrue (container supabase-auth)".
    pub service: String,
}

/// Globs over `schema.table`. What none of them matches is carried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RowRules {
    /// The services' own affair at each end.
    pub never: Vec<String>,
    /// Worth nothing after a few minutes.
    pub ephemeral: Vec<String>,
    /// Carried where they can be; what cannot be is told and stops nothing.
    pub optional: Vec<String>,
}

/// A table or column that one level has and another has not, computed from rows that both have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Derived {
    /// `schema.table` or `schema.table.column`. Where only the source has it nothing is lost; where only the target has it, it is filled.
    pub of: String,
    /// Fills it at the target, after the rows are in and whenever they have changed; a second time they do nothing.
    pub statements: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Fixed {
    /// `schema.table.column`
    pub column: String,
    /// As SQL writes it.
    pub value: String,
    /// `{}` in it is what `which` says.
    pub why: String,
    /// SQL whose one value names the rows that have another one; asked of the source.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub which: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Told {
    /// A table, `schema.table`, or what it is about.
    pub what: String,
    pub message: String,
    /// What to do.
    pub hint: String,
    /// SQL whose one value says how far it concerns this database; asked of the source.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub query: String,
    /// What it said.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub found: String,
}

/// What becomes of a managed table's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowRule {
    Never,
    Ephemeral,
    Optional,
    Carried,
}

/// Why a platform cannot be used as it is written.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Problem(String);

impl Platform {
    pub fn known() -> Result<Vec<Self>, Problem> {
        KNOWN.iter().map(|text| Self::parse(text)).collect()
    }

    /// A whole file.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let table: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| Problem(error.message().to_owned()))?;
        Self::from_table(table)
    }

    pub fn from_table(table: toml::Table) -> Result<Self, Problem> {
        let platform: Self = table
            .try_into()
            .map_err(|error: toml::de::Error| Problem(error.message().to_owned()))?;
        platform.rules()?;
        let parts = |name: &String, wanted: &[usize]| {
            let found = name.split('.').filter(|part| !part.is_empty()).count();
            match wanted.contains(&found) {
                true => Ok(()),
                false => Err(Problem(format!(
                    "{name:?}: expected schema.table{}",
                    if wanted == [2] { "" } else { ".column" }
                ))),
            }
        };
        let of = |names: Vec<&String>, wanted: &[usize]| {
            names.into_iter().try_for_each(|name| parts(name, wanted))
        };
        of(platform.versions.iter().map(|v| &v.column).collect(), &[3])?;
        of(platform.fixed.iter().map(|f| &f.column).collect(), &[3])?;
        of(platform.encrypted.iter().collect(), &[3])?;
        of(platform.derived.iter().map(|d| &d.of).collect(), &[2, 3])?;
        of(platform.sealed.iter().map(|s| &s.what).collect(), &[2])?;
        of(platform.signs.tables.iter().collect(), &[2])?;
        if let Some(problem) = platform.access.as_ref().and_then(AccessRules::problem) {
            return Err(Problem(problem.into()));
        }
        match platform.name.as_str() {
            "" => Err(Problem("it has no name".into())),
            "auto" | "plain" => Err(Problem(format!(
                "a platform cannot be called {}",
                platform.name
            ))),
            _ if platform.managed_schemas.is_empty() => {
                Err(Problem("managed-schemas is empty".into()))
            }
            _ => Ok(platform),
        }
    }

    /// Its globs, ready to be asked.
    pub fn rules(&self) -> Result<Rules, Problem> {
        let reserved = [self.reserved_roles.as_slice(), self.owners.as_slice()].concat();
        Ok(Rules {
            managed: compile(&self.managed_schemas)?,
            owners: compile(&self.owners)?,
            reserved: compile(&reserved)?,
            hooks: compile(&self.hooks)?,
            never: compile(&self.rows.never)?,
            ephemeral: compile(&self.rows.ephemeral)?,
            optional: compile(&self.rows.optional)?,
        })
    }

    /// The table or column is computed from others.
    pub fn is_derived(&self, name: &str) -> bool {
        self.derived.iter().any(|derived| derived.of == name)
    }
}

pub struct Rules {
    managed: GlobSet,
    owners: GlobSet,
    reserved: GlobSet,
    hooks: GlobSet,
    never: GlobSet,
    ephemeral: GlobSet,
    optional: GlobSet,
}

impl Rules {
    pub fn is_managed(&self, schema: &str) -> bool {
        self.managed.is_match(schema)
    }

    /// The role's objects in managed schemas are the platform's.
    pub fn is_owner(&self, role: &str) -> bool {
        self.owners.is_match(role)
    }

    pub fn is_reserved(&self, role: &str) -> bool {
        self.reserved.is_match(role)
    }

    pub fn is_hook(&self, function: &str) -> bool {
        self.hooks.is_match(function)
    }

    pub fn rows_of(&self, table: &str) -> RowRule {
        if self.never.is_match(table) {
            RowRule::Never
        } else if self.ephemeral.is_match(table) {
            RowRule::Ephemeral
        } else if self.optional.is_match(table) {
            RowRule::Optional
        } else {
            RowRule::Carried
        }
    }
}

fn compile(globs: &[String]) -> Result<GlobSet, Problem> {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        let built = GlobBuilder::new(glob).literal_separator(false).build();
        set.add(built.map_err(|error| Problem(format!("{glob:?}: {}", error.kind())))?);
    }
    set.build().map_err(|error| Problem(error.to_string()))
}

/// An object by the name that finds it at either end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Named {
    pub kind: String,
    pub identity: String,
}

/// How a table that both ends have is carried, where they have it differently.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shape {
    pub schema: String,
    pub name: String,
    pub columns: Vec<String>,
    /// Stored generated columns that both ends compute alike.
    pub generated: Vec<String>,
    /// Columns of one name and of two types: their values are alike as text.
    pub as_text: bool,
    /// Condition on the rows that the target can hold.
    pub filter: Option<String>,
    pub fixed: Vec<(String, String)>,
}

/// A database that lives on a platform: whose is what. Decided when the plan is made; kept in the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tenancy {
    pub platform: Platform,
    /// The user's, in managed schemas and on managed tables: carried, compared, taken back.
    pub carried: Vec<Named>,
    /// Of the whole database, and the platform's: left as they are at each end.
    pub theirs: Vec<Named>,
    /// Managed tables whose rows are carried.
    pub shapes: Vec<Shape>,
    /// Sequences in managed schemas that are set, `schema.name`.
    pub sequences: Vec<String>,
    /// Reserved roles that the target does not have: nothing is granted to them.
    pub absent_roles: Vec<String>,
    /// Managed schemas of either end, by name.
    pub schemas: Vec<String>,
}

impl Tenancy {
    pub fn shape(&self, schema: &str, table: &str) -> Option<&Shape> {
        let mut shapes = self.shapes.iter();
        shapes.find(|shape| shape.schema == schema && shape.name == table)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_known_is_well_formed() {
        let known = Platform::known().unwrap();
        assert_eq!(known[0].name, "supabase");
        let rules = known[0].rules().unwrap();
        assert!(rules.is_managed("auth") && !rules.is_managed("public"));
        assert!(rules.is_owner("supabase_auth_admin") && !rules.is_owner("postgres"));
        assert!(rules.is_reserved("postgres") && !rules.is_reserved("my_app"));
        assert_eq!(rules.rows_of("auth.schema_migrations"), RowRule::Never);
        assert_eq!(rules.rows_of("auth.users"), RowRule::Carried);
        assert!(
            !rules.is_managed("supabase_migrations"),
            "these are the user's"
        );
    }

    #[test]
    fn a_mistake_is_named() {
        let problem = |text: &str| Platform::parse(text).unwrap_err().to_string();
        assert!(problem("name = \"x\"").contains("managed-schemas"));
        assert!(problem("managed-schemas = [\"a\"]").contains("no name"));
        assert!(problem("name = \"x\"\nmanaged-schemas = [\"a[\"]").contains("a["));
        assert!(problem("name = \"x\"\nmanaged = 1").contains("managed"));
        let versions = "name = \"x\"\nmanaged-schemas = [\"a\"]\n[[versions]]\ncolumn = \"a.b\"";
        assert!(problem(versions).contains("schema.table.column"));
    }

    #[test]
    fn it_survives_json() {
        for platform in Platform::known().unwrap() {
            let json = serde_json::to_string(&platform).unwrap();
            assert_eq!(serde_json::from_str::<Platform>(&json).unwrap(), platform);
        }
    }
}

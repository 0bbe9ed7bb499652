//! Roles, which belong to the server and not to a database, and what a database has beside its objects. What is read at one end
//! is compared with, or made at, the other: all of it by name. Passwords are not here: see [`crate::secrets`].
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Grant;

/// Roles of this prefix are PostgreSQL's own; nobody may create one.
const BUILT_IN: &str = "pg_";

/// Which roles of the source are created at the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleChoice {
    /// All but PostgreSQL's own.
    All,
    /// Those that the selected objects need and their members, and those that all these are members of.
    #[default]
    Used,
    None,
}

impl FromStr for RoleChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            "used" => Ok(Self::Used),
            "none" => Ok(Self::None),
            _ => Err("all, used or none".into()),
        }
    }
}

/// A parameter's value for a role or a database, as pg_db_role_setting has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    pub name: String,
    /// Parameters that are lists are flat here: `"$user", public`.
    pub value: String,
    /// The value is a digest.
    #[serde(default)]
    pub veiled: bool,
}

impl Setting {
    /// From an item of setconfig, `name=value`.
    pub fn parse(item: &str) -> Option<Self> {
        let (name, value) = item.split_once('=')?;
        Some(Self {
            name: name.to_owned(),
            value: value.to_owned(),
            veiled: false,
        })
    }

    /// As it may be shown. Parameters with a dot in their names are anybody's, and applications keep keys in them (Supabase:
    /// `app.settings.jwt_secret`): of their values there is a short digest, which tells whether two are equal.
    pub fn veil(&self) -> Self {
        if self.veiled || !self.name.contains('.') {
            return self.clone();
        }
        Self {
            name: self.name.clone(),
            value: veiled(&self.value),
            veiled: true,
        }
    }
}

/// A short digest in the place of a value that is not shown: it tells whether two are equal.
pub fn veiled(value: &str) -> String {
    let digest = xxhash_rust::xxh3::xxh3_64(value.as_bytes()) as u32;
    format!("(not shown, {digest:08x})")
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.name, self.value)
    }
}

/// A role, without its password.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    pub name: String,
    pub superuser: bool,
    pub inherit: bool,
    pub create_role: bool,
    pub create_db: bool,
    pub login: bool,
    pub replication: bool,
    pub bypass_rls: bool,
    /// -1: no limit.
    pub connection_limit: i32,
    /// ISO, in UTC, or `infinity`.
    pub valid_until: Option<String>,
    pub comment: Option<String>,
    /// SECURITY LABEL: provider, label.
    #[serde(default)]
    pub labels: Vec<(String, String)>,
    /// For every database.
    pub settings: Vec<Setting>,
}

impl Role {
    /// The attributes that are on or off, as CREATE ROLE names them.
    pub fn flags(&self) -> [(&'static str, bool); 7] {
        [
            ("SUPERUSER", self.superuser),
            ("INHERIT", self.inherit),
            ("CREATEROLE", self.create_role),
            ("CREATEDB", self.create_db),
            ("LOGIN", self.login),
            ("REPLICATION", self.replication),
            ("BYPASSRLS", self.bypass_rls),
        ]
    }

    /// What this role is and the other is not, for people; empty when there is nothing.
    pub fn unlike(&self, other: &Self) -> String {
        let others = other.traits();
        let own = self.traits().into_iter();
        let lone: Vec<String> = own.filter(|own| !others.contains(own)).collect();
        lone.join(", ")
    }

    fn traits(&self) -> Vec<String> {
        let flag = |(name, on): (&str, bool)| format!("{}{name}", if on { "" } else { "NO" });
        let mut traits: Vec<String> = self.flags().into_iter().map(flag).collect();
        traits.push(format!("CONNECTION LIMIT {}", self.connection_limit));
        let until = self.valid_until.as_deref().unwrap_or("infinity");
        traits.push(format!("VALID UNTIL {until}"));
        traits.extend(self.settings.iter().map(|setting| format!("SET {setting}")));
        traits.extend(self.comment.iter().map(|text| format!("comment: {text}")));
        let labels = self.labels.iter();
        traits.extend(labels.map(|(provider, label)| format!("label of {provider}: {label}")));
        traits
    }
}

/// `member` is a member of `role`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    pub role: String,
    pub member: String,
    /// None: a role that is gone (before PostgreSQL 16), or the server's first superuser.
    pub grantor: Option<String>,
    pub admin: bool,
    /// None before PostgreSQL 16, where the member's INHERIT decides.
    pub inherit: Option<bool>,
    /// None before PostgreSQL 16, where every member may SET ROLE.
    pub set: Option<bool>,
}

impl Membership {
    /// For people, and unique among the memberships of a server before 16.
    pub fn object(&self) -> String {
        format!("{} in {}", self.member, self.role)
    }
}

/// GRANT ... ON PARAMETER; PostgreSQL 15 and later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParameterGrant {
    pub parameter: String,
    pub grant: Grant,
}

impl ParameterGrant {
    pub fn object(&self) -> String {
        let grantee = match self.grant.grantee.as_str() {
            "" => "PUBLIC",
            name => name,
        };
        format!(
            "{} on {} to {grantee}",
            self.grant.privilege, self.parameter
        )
    }
}

/// Roles with what ties them together: of a whole server, or those of it that are carried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Roles {
    /// Without PostgreSQL's own.
    pub roles: Vec<Role>,
    /// Also in PostgreSQL's own roles.
    pub memberships: Vec<Membership>,
    pub parameters: Vec<ParameterGrant>,
}

impl Roles {
    pub fn get(&self, name: &str) -> Option<&Role> {
        self.roles.iter().find(|role| role.name == name)
    }

    pub fn names(&self) -> Vec<String> {
        self.roles.iter().map(|role| role.name.clone()).collect()
    }

    /// The names, and every role that one of them is a member of, however far.
    pub fn with_groups(&self, names: impl IntoIterator<Item = String>) -> BTreeSet<String> {
        let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for membership in &self.memberships {
            let of_member = groups.entry(&membership.member).or_default();
            of_member.push(&membership.role);
        }
        let mut found = BTreeSet::new();
        let mut open: Vec<String> = names.into_iter().collect();
        while let Some(name) = open.pop() {
            let above = groups.get(name.as_str()).into_iter().flatten();
            open.extend(
                above
                    .filter(|up| !found.contains(**up))
                    .map(|up| (*up).to_owned()),
            );
            found.insert(name);
        }
        found
    }

    /// The names, and every role that is a member of one of them, however far: who uses what they may. Not the members of
    /// PostgreSQL's own roles, who are the server's; nor superusers, who need to be members of nothing.
    pub fn with_members(&self, names: impl IntoIterator<Item = String>) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut open: Vec<String> = names.into_iter().collect();
        while let Some(name) = open.pop() {
            let below = self
                .memberships
                .iter()
                .filter(|m| m.role == name && !is_built_in(&name));
            let ordinary = |member: &str| self.get(member).is_some_and(|role| !role.superuser);
            let members = below.map(|m| m.member.clone());
            let new = members.filter(|member| ordinary(member) && !found.contains(member));
            open.extend(new.collect::<Vec<_>>());
            found.insert(name);
        }
        found
    }

    /// The roles of these names, their memberships, and what parameters they may set.
    pub fn only(self, names: &BTreeSet<String>) -> Self {
        let Self {
            mut roles,
            mut memberships,
            mut parameters,
        } = self;
        roles.retain(|role| names.contains(&role.name));
        memberships.retain(|m| names.contains(&m.member));
        parameters.retain(|p| names.contains(&p.grant.grantee));
        Self {
            roles,
            memberships,
            parameters,
        }
    }

    /// What another server lacks of these: the roles, and the memberships and grants that need one of them. What is between
    /// roles that are there already is left to their owner: invariant 7 (nothing destroyed unasked).
    pub fn missing_at(&self, there: &Self) -> Self {
        let have: BTreeSet<&str> = there.roles.iter().map(|role| role.name.as_str()).collect();
        let own: BTreeSet<&str> = self.roles.iter().map(|role| role.name.as_str()).collect();
        let is_new = |name: &str| own.contains(name) && !have.contains(name);
        let roles = self.roles.iter().filter(|role| is_new(&role.name));
        let memberships = self.memberships.iter();
        let parameters = self.parameters.iter();
        Self {
            roles: roles.cloned().collect(),
            memberships: memberships
                .filter(|m| is_new(&m.role) || is_new(&m.member))
                .cloned()
                .collect(),
            parameters: parameters
                .filter(|p| is_new(&p.grant.grantee))
                .cloned()
                .collect(),
        }
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One of PostgreSQL's own roles.
pub fn is_built_in(role: &str) -> bool {
    role.starts_with(BUILT_IN)
}

/// What a database has beside its objects, and what pg_dump leaves out unless it creates the database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Properties {
    pub owner: String,
    pub comment: Option<String>,
    /// SECURITY LABEL: provider, label.
    pub labels: Vec<(String, String)>,
    /// ALTER DATABASE ... SET
    pub settings: Vec<Setting>,
    /// ALTER ROLE ... IN DATABASE ... SET, by role.
    pub role_settings: Vec<(String, Setting)>,
    /// Effective: where the catalog has none, the built-in default.
    pub grants: Vec<Grant>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str) -> Role {
        Role {
            name: name.into(),
            inherit: true,
            connection_limit: -1,
            ..Role::default()
        }
    }

    fn member(member: &str, role: &str) -> Membership {
        Membership {
            role: role.into(),
            member: member.into(),
            grantor: None,
            admin: false,
            inherit: None,
            set: None,
        }
    }

    fn server() -> Roles {
        Roles {
            roles: ["app", "readers", "staff", "alice"].map(role).to_vec(),
            memberships: vec![
                member("app", "readers"),
                member("readers", "pg_read_all_data"),
                member("alice", "staff"),
            ],
            parameters: Vec::new(),
        }
    }

    #[test]
    fn groups_are_followed_upwards_and_round_cycles() {
        let mut server = server();
        let groups = server.with_groups(["app".to_owned()]);
        let expected = ["app", "pg_read_all_data", "readers"].map(str::to_owned);
        assert_eq!(groups, BTreeSet::from(expected));
        server.memberships.push(member("readers", "app"));
        assert_eq!(server.with_groups(["app".to_owned()]), groups);
        let used = server.only(&groups);
        assert_eq!(used.names(), ["app", "readers"]);
        assert_eq!(used.memberships.len(), 3);
    }

    #[test]
    fn members_are_followed_downwards_but_for_superusers_and_those_of_postgresqls_own() {
        let mut server = server();
        server.roles.push(Role {
            superuser: true,
            ..role("root")
        });
        server.memberships.extend([
            member("alice", "app"),
            member("root", "app"),
            member("staff", "pg_read_all_data"),
        ]);
        let names = |of: &str| server.with_members([of.to_owned()]);
        assert_eq!(
            names("app"),
            BTreeSet::from(["alice", "app"].map(str::to_owned))
        );
        let below = ["alice", "app", "readers"].map(str::to_owned);
        assert_eq!(names("readers"), BTreeSet::from(below));
        assert_eq!(names("pg_read_all_data").len(), 1);
        server.memberships.push(member("readers", "alice"));
        assert_eq!(server.with_members(["readers".to_owned()]).len(), 3);
    }

    #[test]
    fn what_lies_between_roles_that_are_there_is_not_missing() {
        let there = Roles {
            roles: ["readers", "staff", "alice"].map(role).to_vec(),
            ..Roles::default()
        };
        let missing = server().missing_at(&there);
        assert_eq!(missing.names(), ["app"]);
        assert_eq!(missing.memberships, [member("app", "readers")]);
        assert!(server().missing_at(&server()).is_empty());
    }

    #[test]
    fn two_roles_are_compared_by_what_each_has_alone() {
        let mut other = role("app");
        assert_eq!(role("app").unlike(&other), "");
        other.login = true;
        other.valid_until = Some("2030-01-01 00:00:00+00".into());
        other.settings.extend(Setting::parse("work_mem=1MB"));
        assert_eq!(role("app").unlike(&other), "NOLOGIN, VALID UNTIL infinity");
        assert_eq!(
            other.unlike(&role("app")),
            "LOGIN, VALID UNTIL 2030-01-01 00:00:00+00, SET work_mem = 1MB"
        );
    }
}

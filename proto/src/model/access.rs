//! Access proven by behaviour: the same users, asked the same of their tables, get the same rows and the same refusals at both ends. Who
//! they are is the platform's to say; the agents only ask, and the coordinator judges.
//!
//! Claims hold what is personal of a user: they pass from one agent to the other through the coordinator's memory, and are in nothing that is
//! written or shown. Answers hold counts and digests, never values.
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Digest;

/// What came of asking, for the report: as JSON in the finding's source value.
pub const ACCESS_COMPARED: &str = "access-compared";

/// Findings that are made anew each time.
pub const OF_ACCESS: &[&str] = &[
    ACCESS_COMPARED,
    "access-differs",
    "access-fails-alike",
    "access-not-compared",
    "access-role",
    "rights-differ",
];

/// The section `[access]` of a platform: who asks, and how much an answer may cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct AccessRules {
    /// Query: id and kind of every user, both text. Some are asked of each kind, and the rest over the range of ids. Empty: no users.
    pub users: String,
    /// Query: role and claims (a JSON object as text) of the user $1, a text.
    pub claims: String,
    /// How many users are asked.
    pub sample: u32,
    /// Who asks besides: who has not signed in, and roles of the services.
    pub identities: Vec<Besides>,
    /// The setting that gets the claims whole.
    pub claims_setting: String,
    /// And the beginning of the names of settings that get them one by one.
    pub claim_prefix: String,
    /// Settings of every session that asks: as the application's have them.
    pub settings: BTreeMap<String, String>,
    /// Of one table, for one user: more rows than this are not read, only told to be more.
    pub rows: u32,
    /// Or more bytes of COPY data.
    pub bytes: u32,
    /// Of one question.
    pub timeout_ms: u32,
    /// Of all of them together; what has not been asked by then is told.
    pub total_seconds: u32,
}

impl Default for AccessRules {
    fn default() -> Self {
        Self {
            users: String::new(),
            claims: String::new(),
            sample: 20,
            identities: Vec::new(),
            claims_setting: String::new(),
            claim_prefix: String::new(),
            settings: BTreeMap::new(),
            rows: 10_000,
            bytes: 16 << 20,
            timeout_ms: 5_000,
            total_seconds: 600,
        }
    }
}

impl AccessRules {
    /// What is wrong with them.
    pub(super) fn problem(&self) -> Option<&'static str> {
        let is_json = |one: &Besides| {
            serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&one.claims).is_ok()
        };
        if self.users.is_empty() != self.claims.is_empty() {
            Some("access: users and claims are two queries, neither without the other")
        } else if self.users.is_empty() && self.identities.is_empty() {
            Some("access: nobody asks: state users and claims, or identities")
        } else if !self.identities.iter().all(is_json) {
            Some("access: claims of an identity are a JSON object")
        } else if self.identities.iter().any(|one| one.role.is_empty()) {
            Some("access: an identity has a role")
        } else if [self.rows, self.bytes, self.timeout_ms, self.total_seconds].contains(&0) {
            Some("access: rows, bytes, timeout-ms and total-seconds are more than 0")
        } else {
            None
        }
    }

    /// What the identity's session is told, in order.
    pub fn settings_of(&self, identity: &Identity) -> Vec<(String, String)> {
        let mut settings: Vec<(String, String)> = self.settings.clone().into_iter().collect();
        if !self.claims_setting.is_empty() {
            settings.push((self.claims_setting.clone(), identity.claims.clone()));
        }
        if !self.claim_prefix.is_empty() {
            settings.extend(identity.one_by_one(&self.claim_prefix));
        }
        settings
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Besides {
    pub role: String,
    /// A JSON object.
    #[serde(default = "nothing")]
    pub claims: String,
}

fn nothing() -> String {
    "{}".into()
}

/// Somebody who asks.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Of a user; empty: the role alone.
    pub id: String,
    pub role: String,
    /// A JSON object.
    pub claims: String,
}

impl Identity {
    /// Each claim as a setting of its own: a text as it is, anything else as JSON.
    fn one_by_one(&self, prefix: &str) -> Vec<(String, String)> {
        let claims: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&self.claims).unwrap_or_default();
        let usable = |name: &str| {
            let mut all = name.chars();
            all.next()
                .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
                && all.all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        let claims = claims.into_iter().filter(|(name, _)| usable(name));
        let text = |value| match value {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        claims
            .map(|(name, value)| (format!("{prefix}{name}"), text(value)))
            .collect()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id.as_str() {
            "" => write!(f, "{}", self.role),
            id => write!(f, "user {id} ({})", self.role),
        }
    }
}

/// Without the claims.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A table that is asked for: as an application names it, partitions and children with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedTable {
    pub schema: String,
    pub name: String,
    /// Those that both ends have.
    pub columns: Vec<String>,
    /// Condition on the rows that both ends can hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
}

impl fmt::Display for AskedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// Who is to be asked, and of which partitioned tables besides: the source's to say.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SampleAsked {
    pub rules: AccessRules,
    /// Schema and name of the tables that are compared.
    pub tables: Vec<(String, String)>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    pub identities: Vec<Identity>,
    /// How many users there are.
    pub users: u64,
    /// Partitioned tables above those that were named.
    pub roots: Vec<AskedTable>,
    /// Why the users could not be listed.
    pub unread: Option<String>,
}

/// What these roles may do with these tables.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RightsAsked {
    pub roles: Vec<String>,
    pub tables: Vec<AskedTable>,
}

/// Of one role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleRights {
    /// Why the agent's role may not become it.
    pub refused: Option<String>,
    /// In the order of the tables that were asked for; none: there is no such table, or no such role.
    pub tables: Vec<Option<TableRights>>,
}

/// On one table, by whatever way: grants to the role, to PUBLIC, to roles that it is a member of; superusers have all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRights {
    pub row_security: bool,
    /// "SELECT", "UPDATE (name)", "USAGE of the schema"
    pub rights: Vec<String>,
    /// Of the columns that were asked for.
    pub readable: Vec<String>,
}

impl TableRights {
    /// There is something to be seen, or to be kept from.
    pub fn is_in_question(&self) -> bool {
        self.row_security || self.rights.iter().any(|right| !right.starts_with("USAGE"))
    }
}

/// One identity's questions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProbeAsked {
    pub role: String,
    /// Set before the role is.
    pub settings: Vec<(String, String)>,
    pub tables: Vec<AskedTable>,
    pub rows: u32,
    pub bytes: u32,
    pub timeout_ms: u32,
    /// Of all of them.
    pub budget_ms: u32,
}

/// What an identity was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Probed {
    /// The agent's role may not become this one, or may not set its settings: PostgreSQL's words.
    NotAllowed(String),
    /// In the order of the tables.
    Answers(Vec<AccessAnswer>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessAnswer {
    Rows(Digest),
    /// More than are read.
    Many,
    Refused(AccessRefusal),
    TimedOut,
    /// The time for all had run out.
    NotAsked,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessRefusal {
    /// SQLSTATE
    pub code: String,
    /// XXH3-128 of the message, where a function of the user's has made it. The server's own words differ with its major and its language.
    pub raised: Option<String>,
    /// For people: only what names objects.
    pub told: String,
}

impl AccessRefusal {
    /// Nobody may, as opposed to something that went wrong.
    pub fn is_denial(&self) -> bool {
        self.code == "42501"
    }

    /// A function writes, which is not tried here.
    pub fn is_of_writing(&self) -> bool {
        self.code == "25006"
    }

    pub fn is_as(&self, other: &Self) -> bool {
        (&self.code, &self.raised) == (&other.code, &other.raised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            id: "7".into(),
            role: "member".into(),
            claims: r#"{"sub": "7", "email": "a@b", "app": {"team": 1}, "odd name": 1}"#.into(),
        }
    }

    #[test]
    fn claims_are_set_whole_and_one_by_one_and_never_shown() {
        let rules = AccessRules {
            claims_setting: "jwt.claims".into(),
            claim_prefix: "jwt.claim.".into(),
            ..AccessRules::default()
        };
        let settings = rules.settings_of(&identity());
        let of = |name: &str| {
            settings
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.as_str())
        };
        assert_eq!(of("jwt.claims"), Some(identity().claims.as_str()));
        assert_eq!(of("jwt.claim.sub"), Some("7"));
        assert_eq!(of("jwt.claim.app"), Some(r#"{"team":1}"#));
        assert_eq!(settings.len(), 4, "{settings:?}");
        assert!(!format!("{:?} {}", identity(), identity()).contains("a@b"));
    }

    #[test]
    fn half_of_the_rules_is_a_mistake() {
        let users = AccessRules {
            users: "SELECT 1".into(),
            ..AccessRules::default()
        };
        assert!(
            users
                .problem()
                .is_some_and(|text| text.contains("two queries"))
        );
        assert!(
            AccessRules::default()
                .problem()
                .is_some_and(|text| text.contains("nobody"))
        );
        let no_json = AccessRules {
            identities: vec![Besides {
                role: "anon".into(),
                claims: "sub".into(),
            }],
            ..AccessRules::default()
        };
        assert!(no_json.problem().is_some_and(|text| text.contains("JSON")));
    }
}

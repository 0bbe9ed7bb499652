//! What preflight is told by each end. Facts, not judgements: the coordinator's `preflight` turns them into findings.
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::Roles;
use crate::selection::Idle;

/// A server, as either agent sees its own.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ServerFacts {
    /// server_version_num
    pub version: u32,
    pub database: String,
    /// "app at db.example.org:5432 as postgres"
    pub place: String,
    pub role: String,
    pub superuser: bool,
    pub encoding: String,
    pub collate: String,
    pub ctype: String,
    pub locale_provider: String,
    pub max_connections: u32,
    pub used_connections: u32,
    pub max_locks_per_transaction: u32,
    pub max_prepared_transactions: u32,
    pub in_recovery: bool,
    /// A session keeps its backend across transactions: false behind a transaction pooler.
    pub session_stable: bool,
    /// Clock of the server and of the agent, microseconds since 1970.
    pub server_clock_us: i64,
    pub agent_clock_us: i64,
    pub cpus: u32,
    /// Which machine both the server and the agent run on, where that can be told.
    #[serde(default)]
    pub machine: Option<String>,
    /// Event triggers that fire when the agent connects (PostgreSQL 17).
    #[serde(default)]
    pub login_triggers: Vec<String>,
    pub agent_version: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    pub name: String,
    pub version: String,
    /// Where it is installed; empty of one that is not.
    #[serde(default)]
    pub schema: String,
    #[serde(default)]
    pub relocatable: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceFacts {
    pub server: ServerFacts,
    /// Of the selected tables, bytes.
    pub size_bytes: u64,
    pub tables: u64,
    /// Of the filters.
    #[serde(default)]
    pub idle_globs: Vec<Idle>,
    /// Tables that the role may not read.
    pub unreadable: Vec<String>,
    /// Tables whose rows row level security would filter for the role.
    pub filtered_by_rls: Vec<String>,
    /// Tables whose row level security is forced on their owners too.
    pub forced_rls: Vec<String>,
    pub extensions: Vec<Extension>,
    /// Tables that belong to an extension, are none of its configuration tables and hold rows: table, extension.
    #[serde(default)]
    pub extension_tables: Vec<(String, String)>,
    /// Roles that the selected objects need: role, one object as an example.
    pub roles: Vec<(String, String)>,
    /// Roles that were asked for, whole.
    pub carried: Roles,
    /// The agent's role may read what the server keeps of passwords.
    pub reads_passwords: bool,
    /// Of the selection: none where a filter leaves them out.
    pub large_objects: u64,
    /// Large objects that the role may not read: how many, and some of their OIDs.
    pub large_objects_unreadable: (u64, Vec<String>),
    pub foreign_tables: Vec<String>,
    pub tablespaces: Vec<String>,
    pub subscriptions: Vec<String>,
    pub event_triggers: Vec<String>,
    /// pg_dump: path and version, or why there is none.
    pub pg_dump: Result<String, String>,
    pub pg_dump_major: u32,
    /// What the target's major does not know; looked for when the target is older than the source or its pg_dump.
    pub newer: Vec<Newer>,
    /// What the objects use of PostgreSQL's own; looked for when the target is older.
    pub built_ins: Vec<BuiltIn>,
}

/// Objects of a kind that PostgreSQL has known only from a major on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newer {
    pub since: u32,
    /// "virtual generated columns"
    pub what: String,
    /// Rows have no place without them: a table, or a type of its columns, could not be made.
    pub vital: bool,
    /// What to do.
    pub instead: String,
    pub count: u64,
    /// Names of the first of them.
    pub examples: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BuiltInKind {
    Type,
    Function,
    /// A catalog or a view of PostgreSQL's.
    Relation,
    Collation,
    /// Of the server, set by a function.
    Setting,
}

impl BuiltInKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Function => "function",
            Self::Relation => "relation",
            Self::Collation => "collation",
            Self::Setting => "setting",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Type,
            Self::Function,
            Self::Relation,
            Self::Collation,
            Self::Setting,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == text)
    }
}

/// Something of PostgreSQL's own that objects of the source use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltIn {
    pub kind: BuiltInKind,
    pub name: String,
    /// How many a function takes; else 0.
    pub arguments: u32,
    /// How many of them have defaults.
    pub defaults: u32,
    /// As in [`Newer`].
    pub vital: bool,
    pub count: u64,
    /// The first of the objects that use it.
    pub examples: Vec<String>,
}

/// Objects of an owner whom the agent's role is no member of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfAnother {
    pub owner: String,
    pub count: u64,
    /// The first of them.
    pub examples: Vec<String>,
}

impl fmt::Display for OfAnother {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = match self.count - self.examples.len() as u64 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        write!(
            f,
            "{}{more} of role {}",
            self.examples.join(", "),
            self.owner
        )
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TargetFacts {
    pub server: ServerFacts,
    pub extensions_available: Vec<Extension>,
    pub extensions_installed: Vec<Extension>,
    /// As pg_identify_object() says it: "for role app in schema s on tables".
    pub default_privileges: Vec<String>,
    /// All of the server's.
    pub roles: Roles,
    /// User tables, views, functions and types: how many, and some of them.
    pub objects: u64,
    pub object_sample: Vec<String>,
    /// Tables, with whether they hold rows: for a migration into an existing schema.
    pub tables: Vec<(String, bool)>,
    /// How many large objects, and the OIDs of some of them.
    pub large_objects: u64,
    pub large_object_sample: Vec<String>,
    /// What the role can neither drop nor give back.
    pub of_others: Vec<OfAnother>,
    /// Id and phase of an unfinished migration.
    pub unfinished: Option<(String, String)>,
    /// Id and verdict of the latest finished one.
    pub finished: Option<(String, String)>,
    pub can_create: bool,
    pub can_set_replication_role: bool,
    /// Bytes free where the server keeps its data, when this host can see it.
    pub disk_free: Option<u64>,
    /// Versions of pg_restore found, major; or why there is none.
    pub pg_restore: Result<Vec<u32>, String>,
}

impl TargetFacts {
    /// There is something of somebody's.
    pub fn is_in_use(&self) -> bool {
        self.objects > 0 || self.large_objects > 0
    }
}

/// What an agent knows of the Storage API of its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StorageFacts {
    /// Where it is; or why it cannot be asked: no address, no key.
    pub place: Result<String, String>,
    /// How many buckets it lists; or what it said against it.
    pub buckets: Result<u64, String>,
    /// What shows that it is the API of another database: buckets that one of the two has alone; empty: nothing. Or why that could not be
    /// looked at.
    pub strange: Result<String, String>,
    /// Rows of storage.objects, and the bytes that they speak of; or why they cannot be read.
    pub objects: Result<(u64, u64), String>,
    /// The largest of them.
    pub largest: u64,
    /// Rows of earlier versions of files, which the API does not give by name.
    pub versions: u64,
}

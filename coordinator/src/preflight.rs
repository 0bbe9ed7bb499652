//! What would stand in the way: facts of both ends become findings. Pure, but for [`gather`].
mod activity;
mod capacity;
mod command;
pub mod estimate;
mod rights;
mod roles;
pub mod storage;
mod versions;

use pgconvoy_proto::facts::{BuiltIn, SourceFacts, TargetFacts};
use pgconvoy_proto::model::{Finding, RoleChoice, Selection, Severity};
use pgconvoy_proto::selection::Filter;
use pgconvoy_proto::wire::MeasureLinkResponse;

pub use command::preflight;
pub use versions::EXTENSION_SCHEMA;

use crate::ends::Ends;
use crate::platform::Ground;

pub struct Facts {
    pub source: SourceFacts,
    pub target: TargetFacts,
    /// What the source's objects use of PostgreSQL's own and the target does not know.
    pub unknown: Vec<BuiltIn>,
    pub link: MeasureLinkResponse,
    /// Of this machine, microseconds since 1970.
    pub clock_us: i64,
}

/// What is asked of the target.
#[derive(Clone, Copy, Debug, Default)]
pub struct Intent {
    pub skip_schema: bool,
    pub skip_data: bool,
    pub skip_rls: bool,
    pub force: bool,
    /// What is in the target is replaced.
    pub replace: bool,
    /// Something of it goes, if it be a policy alone: a rollback drops all that is in the target then, and brings back a backup.
    pub comes_back: bool,
    pub roles: RoleChoice,
    pub streams: Option<u32>,
}

pub async fn gather(
    ends: &mut Ends,
    selection: &Selection,
    roles: RoleChoice,
    ground: Option<&Ground>,
) -> anyhow::Result<Facts> {
    let managed = ground.map_or(&[][..], |ground| &ground.platform.managed_schemas);
    let mut measuring = ends.clone();
    let facts = async {
        let target = ends.target_facts(managed).await?;
        let major = target.server.version / 10_000;
        let source = ends.source_facts(selection, major, roles).await?;
        let unknown = ends.unknown(&source.built_ins).await?;
        anyhow::Ok((target, source, unknown))
    };
    let ((target, source, unknown), link) = tokio::try_join!(facts, measuring.measure_link())?;
    let mut facts = Facts {
        unknown,
        source,
        target,
        link,
        clock_us: jiff::Timestamp::now().as_microsecond(),
    };
    // Only what is selected is loaded: what other tables hold is nobody's affair.
    let chosen = Filter::new(selection)?;
    let is_chosen = |name: &str| match name.split_once('.') {
        Some((schema, table)) => chosen.admits(schema, table),
        None => true,
    };
    facts.target.tables.retain(|(name, _)| is_chosen(name));
    if let Some(ground) = ground {
        ground.settle_facts(&mut facts);
    }
    Ok(facts)
}

/// Code of the finding that what is in the target goes.
pub const TARGET_REPLACED: &str = "target-replaced";
/// How many names a message lists.
const NAMES: usize = 8;

pub fn findings(facts: &Facts, intent: Intent) -> Vec<Finding> {
    let mut found = Vec::new();
    source(facts, &mut found);
    if !intent.skip_data {
        large_objects(facts, intent, &mut found);
    }
    tools(facts, intent, &mut found);
    target(facts, intent, &mut found);
    schema(facts, intent, &mut found);
    login_triggers(facts, &mut found);
    versions::findings(facts, intent, &mut found);
    roles::roles(facts, intent, &mut found);
    capacity::capacity(facts, intent, &mut found);
    capacity::surroundings(facts, &mut found);
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found
}

pub fn is_blocked(findings: &[Finding]) -> bool {
    findings
        .iter()
        .any(|finding| finding.severity == Severity::Blocker)
}

fn blocker(code: &str, object: impl Into<String>, message: impl Into<String>) -> Finding {
    Finding::new(Severity::Blocker, code, object, message)
}

fn warning(code: &str, object: impl Into<String>, message: impl Into<String>) -> Finding {
    Finding::new(Severity::Warning, code, object, message)
}

fn info(code: &str, object: impl Into<String>, message: impl Into<String>) -> Finding {
    Finding::new(Severity::Info, code, object, message)
}

/// Some of the names, and how many more there are.
fn names(all: &[String]) -> String {
    let shown: Vec<&str> = all.iter().take(NAMES).map(String::as_str).collect();
    match all.len().saturating_sub(NAMES) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn source(facts: &Facts, found: &mut Vec<Finding>) {
    let source = &facts.source;
    let role = &source.server.role;
    if !source.unreadable.is_empty() {
        found.push(
            blocker(
                "source-unreadable",
                names(&source.unreadable),
                format!(
                    "role {role} may not read {} tables",
                    source.unreadable.len()
                ),
            )
            .hint(format!(
                "GRANT pg_read_all_data TO {role}, or use another role"
            )),
        );
    }
    if !source.filtered_by_rls.is_empty() {
        found.push(
            blocker(
                "rls-filters-role",
                names(&source.filtered_by_rls),
                format!("row level security would hide rows of these tables from role {role}"),
            )
            .hint(format!(
                "ALTER ROLE {role} BYPASSRLS, or use the tables' owner or a superuser"
            )),
        );
    }
    if !source.server.session_stable {
        found.push(
            blocker(
                "transaction-pooler",
                source.server.place.clone(),
                "a session does not keep its backend: this is a transaction pooler, which cannot hold a snapshot",
            )
            .hint("connect directly, or through a session pooler (Supabase: port 5432)"),
        );
    }
    if !source.foreign_tables.is_empty() {
        found.push(info(
            "foreign-tables",
            names(&source.foreign_tables),
            "foreign tables are created; their rows stay where they are",
        ));
    }
    if !source.subscriptions.is_empty() {
        found.push(
            warning(
                "subscriptions",
                names(&source.subscriptions),
                "subscriptions are created disabled and without a slot",
            )
            .hint("enable them at the target after the source's are dropped"),
        );
    }
    if !source.tablespaces.is_empty() {
        found.push(info(
            "tablespaces",
            names(&source.tablespaces),
            "tables of these tablespaces go into the target's default tablespace",
        ));
    }
}

/// They fire before anything can be set in a session, and what they do or refuse is done or refused to every session of an agent's.
fn login_triggers(facts: &Facts, found: &mut Vec<Finding>) {
    for (end, server) in [
        ("source", &facts.source.server),
        ("target", &facts.target.server),
    ] {
        if !server.login_triggers.is_empty() {
            let message = format!("these event triggers fire whenever the {end} agent connects");
            found.push(
                warning("login-triggers", names(&server.login_triggers), message).hint(
                    "options=-c%20event_triggers=off in the agent's connection URL (a superuser may), or disable them meanwhile",
                ),
            );
        }
    }
}

/// They keep their OIDs: a target that has some of its own has no room for them.
fn large_objects(facts: &Facts, intent: Intent, found: &mut Vec<Finding>) {
    let (source, target) = (&facts.source, &facts.target);
    let role = &source.server.role;
    let (count, sample) = &source.large_objects_unreadable;
    if *count > 0 {
        found.push(
            blocker(
                "source-unreadable",
                "large objects",
                format!("role {role} may not read {count} large objects (for example {})", sample.join(", ")),
            )
            .hint(format!("GRANT SELECT ON LARGE OBJECT ... TO {role}, make {role} a member of their owners, or use a superuser")),
        );
    }
    if source.large_objects > 0 && target.large_objects > 0 && !intent.replace {
        found.push(
            blocker(
                "target-not-empty",
                "large objects",
                format!(
                    "the target database has large objects (for example {}), the source has {}",
                    target.large_object_sample.join(", "),
                    source.large_objects
                ),
            )
            .hint("remove them (lo_unlink), if nothing needs them: nothing is overwritten"),
        );
    }
}

fn tools(facts: &Facts, intent: Intent, found: &mut Vec<Finding>) {
    if intent.skip_schema {
        return;
    }
    if let Err(error) = &facts.source.pg_dump {
        found.push(blocker("pg-dump", "source agent", error.clone()));
    }
    match &facts.target.pg_restore {
        Err(error) => found.push(blocker("pg-restore", "target agent", error.clone())),
        Ok(majors) if facts.source.pg_dump.is_ok() => {
            let newest = majors.iter().copied().max().unwrap_or(0);
            if newest < facts.source.pg_dump_major {
                found.push(
                    blocker(
                        "pg-restore",
                        "target agent",
                        format!(
                            "pg_restore {newest} cannot read an archive of pg_dump {}",
                            facts.source.pg_dump_major
                        ),
                    )
                    .hint(format!(
                        "install postgresql-client-{} beside it",
                        facts.source.pg_dump_major
                    )),
                );
            }
        }
        Ok(_) => {}
    }
}

fn target(facts: &Facts, intent: Intent, found: &mut Vec<Finding>) {
    let target = &facts.target;
    let database = &target.server.database;
    if target.server.in_recovery {
        found.push(blocker(
            "target-standby",
            database.clone(),
            "the target is a standby: it cannot be written",
        ));
    }
    if !target.server.session_stable {
        found.push(
            blocker(
                "transaction-pooler",
                target.server.place.clone(),
                "the target is behind a transaction pooler",
            )
            .hint("connect directly"),
        );
    }
    if intent.comes_back {
        found.extend(
            target
                .of_others
                .iter()
                .map(|others| rights::not_ours(facts, others)),
        );
    }
    found.extend(rights::forced_rls(facts, intent));
    if !target.can_create {
        found.push(
            blocker(
                "target-privilege",
                database.clone(),
                format!("role {} may not create schemas", target.server.role),
            )
            .hint(format!(
                "GRANT CREATE ON DATABASE {database} TO {}",
                target.server.role
            )),
        );
    }
    if intent.skip_schema {
        if !target.can_set_replication_role {
            found.push(
                warning("triggers-fire", database.clone(), "the role may not set session_replication_role: triggers are disabled table by table, foreign keys are checked")
                    .hint("use a superuser, or GRANT SET ON PARAMETER session_replication_role"),
            );
        }
        let full: Vec<String> = target
            .tables
            .iter()
            .filter(|(_, holds)| *holds)
            .map(|(name, _)| name.clone())
            .collect();
        if !full.is_empty() {
            found.push(
                blocker("target-not-empty", names(&full), format!("{} tables of the target hold rows", full.len()))
                    .hint("--skip-schema loads into empty tables: empty them first, nothing is overwritten"),
            );
        }
        if target.tables.is_empty() {
            found.push(
                blocker(
                    "target-without-schema",
                    database.clone(),
                    "--skip-schema, and the target has none of the tables",
                )
                .hint("leave --skip-schema out"),
            );
        }
    } else if intent.replace {
        found.extend(replaced(target));
    } else if target.objects > 0 {
        found.push(
            blocker(
                "target-not-empty",
                names(&target.object_sample),
                format!("the target database {database} is not empty: {} objects", target.objects),
            )
            .hint(
                "migrate into a new database (CREATE DATABASE ... TEMPLATE template0), or migrate --force, which backs all of it up and \
                 replaces it (without --include-* and --exclude-*; single tables: pgconvoy sync --table)",
            ),
        );
    }
}

/// Large objects go too.
fn replaced(target: &TargetFacts) -> Option<Finding> {
    let large = target.large_objects;
    let counts = [(target.objects, "objects"), (large, "large objects")];
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    let counts: Vec<String> = counts.map(|(count, of)| format!("{count} {of}")).collect();
    let object = match target.objects {
        0 => format!("large objects {}", names(&target.large_object_sample)),
        _ => names(&target.object_sample),
    };
    let message = format!(
        "all that is in the target database {} is dropped and replaced: {}",
        target.server.database,
        counts.join(" and ")
    );
    target
        .is_in_use()
        .then(|| warning(TARGET_REPLACED, object, message))
}

fn schema(facts: &Facts, intent: Intent, found: &mut Vec<Finding>) {
    let (source, target) = (&facts.source, &facts.target);
    if intent.skip_rls && !intent.force {
        found.push(
            blocker(
                "skip-rls",
                "row level security",
                match intent.skip_schema {
                    true => "--skip-rls: nobody looks whether the target's tables are as closed as the source's",
                    false => "--skip-rls leaves the target's tables open",
                },
            )
            .hint("add --force if that is meant"),
        );
    }
    if !intent.skip_schema {
        found.extend(crate::schema::were_there(source, target));
    }
    if source.server.encoding != target.server.encoding && target.server.encoding != "UTF8" {
        found.push(
            blocker(
                "encoding",
                target.server.database.clone(),
                "the target's encoding cannot hold every text",
            )
            .values(
                source.server.encoding.clone(),
                target.server.encoding.clone(),
            )
            .hint("create the target database with ENCODING 'UTF8' TEMPLATE template0"),
        );
    }
    if source.server.encoding == "SQL_ASCII" {
        found.push(
            warning(
                "encoding-unchecked",
                source.server.database.clone(),
                "its encoding is SQL_ASCII: text that is not UTF-8 stops the copy of its table",
            )
            .hint("look first: a SELECT of the table's text with client_encoding UTF8 stops at such a row"),
        );
    }
    for (code, what, at_source, at_target) in [
        (
            "collation",
            "default collation",
            &source.server.collate,
            &target.server.collate,
        ),
        (
            "ctype",
            "character classification",
            &source.server.ctype,
            &target.server.ctype,
        ),
        (
            "locale-provider",
            "locale provider",
            &source.server.locale_provider,
            &target.server.locale_provider,
        ),
    ] {
        if at_source != at_target {
            found.push(
                warning(
                    code,
                    target.server.database.clone(),
                    format!("the databases' {what} differs: sorting may too"),
                )
                .values(at_source, at_target),
            );
        }
    }
    if !source.event_triggers.is_empty() && !target.server.superuser {
        found.push(warning(
            "event-triggers",
            names(&source.event_triggers),
            format!(
                "role {} is no superuser: event triggers cannot be created",
                target.server.role
            ),
        ));
    }
}

#[cfg(test)]
mod tests;

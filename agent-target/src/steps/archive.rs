//! Steps that restore entries of the archive: pre-data, indexes, the attachment of partitions' indexes, the rest of post-data.
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use pgconvoy_agent_core::inventory::access;
use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{Access, Entry, Finding, Made, Work};
use tonic::Status;

use super::{Migration, Runner, key};
use crate::archive::{Line, Opened};
use crate::landing::find_neighbours;
use crate::ledger;
use crate::restore::{Restore, prepared};

/// Without these there is no place for the rows: refused, the migration cannot go on.
const VITAL: &[&str] = &[
    "SCHEMA",
    "EXTENSION",
    "TYPE",
    "SHELL TYPE",
    "DOMAIN",
    "TABLE",
    "TABLE ATTACH",
    "SEQUENCE",
];

/// Entries of one transaction: a table takes up to five locks, with its sequence and TOAST table.
const GROUP: usize = 400;

/// Kinds of pg_identify_object() that an empty target has none of.
const TELLING: &[&str] = &[
    "table",
    "view",
    "materialized view",
    "foreign table",
    "sequence",
    "function",
    "procedure",
    "aggregate",
    "type",
];

/// The same of late objects that a target may have had before, be it empty.
const OF_DATABASE: &[&str] = &[
    "publication",
    "publication namespace",
    "subscription",
    "event trigger",
];

/// Run a second time they do nothing.
const REPEATABLE: &[&str] = &[
    "COMMENT",
    "DEFAULT",
    "DEFAULT ACL",
    "EXTENSION",
    "ROW SECURITY",
    "SECURITY LABEL",
    "SEQUENCE OWNED BY",
];

fn read_failed(error: tokio_postgres::Error) -> Status {
    status::postgres("reading the target's catalogs", &error)
}

impl Runner {
    async fn open(&self, session: &Session, migration: &Migration) -> Result<Arc<Opened>, Status> {
        let major = session.server_version() / 10_000;
        let opened = self
            .store
            .open(&migration.id, &migration.skipped, major)
            .await?;
        opened.ok_or_else(|| self.store.lost())
    }

    /// Restores lines of the archive; those that are refused as findings.
    async fn restore(
        &self,
        session: &Session,
        migration: &Migration,
        opened: &Opened,
        lines: Vec<Line>,
        vital: impl Fn(&Line) -> bool,
    ) -> Result<Vec<Finding>, Status> {
        let restore = Restore {
            database: &self.sessions.database(&migration.id),
            session,
            migration,
            tool: &opened.tool,
            archive: &opened.path,
            prepared: None,
        };
        restore.run(lines, vital).await
    }

    /// Restores indexes, by what pg_restore wrote of all that are planned.
    async fn restore_indexes(
        &self,
        session: &Session,
        migration: &Migration,
        opened: &Opened,
        lines: Vec<Line>,
    ) -> Result<Vec<Finding>, Status> {
        let write = async || {
            let planned = planned_indexes(session, &migration.id).await?;
            let all = opened.contents.post_data.iter();
            let all: Vec<Line> = all
                .filter(|line| planned.contains_key(&line.entry))
                .cloned()
                .collect();
            let mut statements = prepared::write(&opened.tool, &opened.path, &all).await?;
            for line in &all {
                if let (Some(sql), Some(schema)) =
                    (statements.get_mut(&line.dump_id), planned.get(&line.entry))
                {
                    let first = format!("{};\n", find_neighbours(schema));
                    sql.splice(..0, first.into_bytes());
                }
            }
            Ok::<_, Status>(statements)
        };
        let statements = opened.indexes.get_or_try_init(write).await?;
        let restore = Restore {
            database: &self.sessions.database(&migration.id),
            session,
            migration,
            tool: &opened.tool,
            archive: &opened.path,
            prepared: Some(statements),
        };
        restore.run(lines, |_| false).await
    }

    /// Pre-data, and row level security: invariant 6 (no open window), it is on before the first row arrives.
    pub(super) async fn pre_data(
        &self,
        session: &Session,
        migration: &Migration,
    ) -> Result<Vec<Finding>, Status> {
        let planned = planned_access(session, &migration.id).await?;
        let here: HashSet<(String, String)> = access::read(session)
            .await
            .map_err(read_failed)?
            .into_iter()
            .map(|found| (found.access.kind, found.access.identity))
            .collect();
        let is_here =
            |object: &Access| here.contains(&(object.kind.clone(), object.identity.clone()));
        // Schemas and languages may have been there before; a target that was empty had none of these.
        let telling = |line: &Line| {
            let object = planned.get(&line.entry)?;
            TELLING
                .contains(&object.kind.as_str())
                .then(|| is_here(object))
        };
        let opened = self.open(session, migration).await?;
        let rls = |line: &&Line| line.is("ROW SECURITY") && !migration.options.skip_rls;
        let lines = opened.contents.pre_data.iter();
        let lines = lines
            .chain(opened.contents.post_data.iter().filter(rls))
            .cloned()
            .collect();
        let mut findings = Vec::new();
        for mut group in groups(lines, |line| telling(line).is_some()) {
            if group.iter().any(|line| telling(line) == Some(true)) {
                continue;
            }
            group.retain(|line| !planned.get(&line.entry).is_some_and(is_here));
            let whole = migration.options.selection.leaves_nothing_out();
            // What a selection leaves out, other entries may refer to; the selected tables must be there in any case.
            let vital = |line: &Line| {
                line.is("TABLE") && line.entry.class != 0
                    || line.is("ROW SECURITY")
                    || whole && line.is_any(VITAL)
            };
            findings.extend(
                self.restore(session, migration, &opened, group, vital)
                    .await?,
            );
        }
        Ok(findings)
    }

    /// Indexes and the constraints that they carry: those that are not there yet.
    pub(super) async fn indexes(
        &self,
        session: &Session,
        migration: &Migration,
        works: &[&Work],
    ) -> Result<Vec<Finding>, Status> {
        let mut wanted = HashMap::new();
        for work in works {
            if let Work::Index {
                entry,
                schema,
                name,
                ..
            } = work
            {
                wanted.insert(*entry, (schema.as_str(), name.as_str()));
            }
        }
        let (schemas, names): (Vec<&str>, Vec<&str>) = wanted.values().copied().unzip();
        let there: HashMap<(String, String), bool> = session
            .query(
                "SELECT n.nspname, c.relname, EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = c.oid AND k.contype IN ('p', 'u', 'x'))
                 FROM unnest($1::text[], $2::text[]) w (schema, name)
                 JOIN pg_namespace n ON n.nspname = w.schema
                 JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name AND c.relkind IN ('i', 'I')",
                &[&schemas, &names],
            )
            .await
            .map_err(read_failed)?
            .iter()
            .map(|row| ((row.get(0), row.get(1)), row.get(2)))
            .collect();
        let carries_constraint =
            |schema: &str, name: &str| there.get(&(schema.to_owned(), name.to_owned())).copied();
        let mut findings = Vec::new();
        for work in works {
            if let Work::Index {
                schema,
                name,
                key: Some(key),
                ..
            } = work
                && carries_constraint(schema, name) == Some(false)
            {
                findings.extend(key::adopt(session, work.object(), key).await?);
            }
        }
        wanted.retain(|_, (schema, name)| carries_constraint(schema, name).is_none());
        if wanted.is_empty() {
            return Ok(findings);
        }
        let opened = self.open(session, migration).await?;
        let lines: Vec<Line> = opened
            .contents
            .post_data
            .iter()
            .filter(|line| wanted.contains_key(&line.entry))
            .cloned()
            .collect();
        let unknown = wanted.len() - lines.len();
        if unknown > 0 {
            return Err(Status::internal(format!(
                "the archive lacks {unknown} of the planned indexes"
            )));
        }
        let restored = self
            .restore_indexes(session, migration, &opened, lines)
            .await?;
        findings.extend(restored);
        Ok(findings)
    }

    /// ALTER INDEX ... ATTACH PARTITION does nothing where it is done.
    pub(super) async fn attach_indexes(
        &self,
        session: &Session,
        migration: &Migration,
    ) -> Result<Vec<Finding>, Status> {
        let opened = self.open(session, migration).await?;
        let lines: Vec<Line> = opened
            .contents
            .post_data
            .iter()
            .filter(|line| is_attach(line))
            .cloned()
            .collect();
        let mut findings = Vec::new();
        for group in lines.chunks(GROUP) {
            findings.extend(
                self.restore(session, migration, &opened, group.to_vec(), |_| false)
                    .await?,
            );
        }
        Ok(findings)
    }

    /// What no other step makes: triggers, rules, policies, publications, comments...
    pub(super) async fn post_data(
        &self,
        session: &Session,
        migration: &Migration,
        made: &[Made],
    ) -> Result<Vec<Finding>, Status> {
        let here: HashSet<(String, String)> = access::late_objects(session)
            .await
            .map_err(read_failed)?
            .into_iter()
            .map(|object| (object.kind, object.identity))
            .collect();
        let is_here = |m: &Made| here.contains(&(m.kind.clone(), m.identity.clone()));
        // Those of the whole database may have been there before; what belongs to a table or a schema was not.
        let of_database = |m: &&Made| OF_DATABASE.contains(&m.kind.as_str());
        let before: HashSet<Entry> = made
            .iter()
            .filter(of_database)
            .filter(|m| is_here(m))
            .map(|m| m.entry)
            .collect();
        let made: HashMap<Entry, bool> = made
            .iter()
            .filter(|m| !of_database(m))
            .map(|m| (m.entry, is_here(m)))
            .collect();
        let opened = self.open(session, migration).await?;
        let built = planned_indexes(session, &migration.id).await?;
        let elsewhere = |line: &Line| {
            built.contains_key(&line.entry)
                || is_attach(line)
                || line.is_any(&["FK CONSTRAINT", "ROW SECURITY", "MATERIALIZED VIEW DATA"])
                || migration.options.skip_rls && (line.is("POLICY") || is_comment_on_policy(line))
        };
        let lines = opened
            .contents
            .post_data
            .iter()
            .filter(|line| !elsewhere(line))
            .cloned()
            .collect();
        let mut findings = Vec::new();
        for group in open_groups(lines, &made, &before) {
            findings.extend(
                self.restore(session, migration, &opened, group, |_| false)
                    .await?,
            );
        }
        Ok(findings)
    }
}

/// The groups of post-data that are still to be done. `made`: what the entries make, and whether it is there. `before`: made by the
/// migration or there before it, one as well as the other; left out only when the groups are cut, which must come out alike each time.
fn open_groups(
    lines: Vec<Line>,
    made: &HashMap<Entry, bool>,
    before: &HashSet<Entry>,
) -> Vec<Vec<Line>> {
    let mut groups = groups(lines, |line| made.contains_key(&line.entry));
    groups.retain(|group| {
        !group
            .iter()
            .any(|line| made.get(&line.entry) == Some(&true))
    });
    for group in &mut groups {
        group.retain(|line| !before.contains(&line.entry));
    }
    groups
}

/// Cuts entries into groups of one transaction each: a transaction that makes thousands of tables needs more locks than a server
/// has by default. All or nothing holds per group, so each must be telling: it has an entry whose object shows whether the group is
/// done, or nothing but entries that may be run twice.
fn groups(lines: Vec<Line>, tells: impl Fn(&Line) -> bool) -> Vec<Vec<Line>> {
    let telling = |group: &[Line]| {
        group.iter().any(&tells) || group.iter().all(|line| line.is_any(REPEATABLE))
    };
    let mut groups: Vec<Vec<Line>> = Vec::new();
    let mut group = Vec::new();
    for line in lines {
        group.push(line);
        if group.len() >= GROUP && telling(&group) {
            groups.push(std::mem::take(&mut group));
        }
    }
    match groups.last_mut() {
        Some(last) if !telling(&group) => last.append(&mut group),
        _ if group.is_empty() => {}
        _ => groups.push(group),
    }
    groups
}

/// `COMMENT public POLICY own ON entry postgres`. Where a name of something else looks like that, the comparison finds its comment missing.
fn is_comment_on_policy(line: &Line) -> bool {
    line.is("COMMENT") && line.rest.contains(" POLICY ") && line.rest.contains(" ON ")
}

/// An entry of its own kind has no object: a schema called "ATTACH" does not mislead.
fn is_attach(line: &Line) -> bool {
    line.is("INDEX ATTACH") && line.entry.class == 0
}

/// The planned objects of pre-data, by their archive entry.
async fn planned_access(session: &Session, id: &str) -> Result<HashMap<Entry, Access>, Status> {
    let rows = session
        .query(
            "SELECT work FROM pgconvoy.steps WHERE migration = $1 AND kind = 'access'",
            &[&id],
        )
        .await
        .map_err(ledger::failed)?;
    let mut planned = HashMap::new();
    for row in rows {
        if let Work::Access {
            late: false,
            objects,
        } = ledger::from_json(row.get(0))?
        {
            planned.extend(objects.into_iter().map(|object| (object.entry, object)));
        }
    }
    Ok(planned)
}

/// Entries of the planned indexes and their constraints, with their schemas.
async fn planned_indexes(session: &Session, id: &str) -> Result<HashMap<Entry, String>, Status> {
    let rows = session
        .query(
            "SELECT work -> 'entry', work ->> 'schema' FROM pgconvoy.steps WHERE migration = $1 AND kind IN ('index', 'constraint')",
            &[&id],
        )
        .await
        .map_err(ledger::failed)?;
    rows.into_iter()
        .map(|row| Ok((ledger::from_json(row.get(0))?, row.get(1))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(dump_id: u32, rest: &str) -> Line {
        let entry = Entry {
            class: 1,
            oid: dump_id,
        };
        Line {
            dump_id,
            entry,
            rest: rest.into(),
            text: String::new(),
        }
    }

    #[test]
    fn every_group_shows_whether_it_is_done() {
        let mut lines: Vec<Line> = (0..1000).map(|n| line(n, "TABLE s t o")).collect();
        lines.extend((1000..2000).map(|n| line(n, "TABLE ATTACH s t o")));
        lines.extend((2000..3000).map(|n| line(n, "COMMENT - t o")));
        let cut = groups(lines.clone(), |line| line.is("TABLE"));
        assert_eq!(cut.concat(), lines);
        for group in &cut {
            let tells = group.iter().any(|line| line.is("TABLE"));
            assert!(tells || group.iter().all(|line| line.is("COMMENT")));
        }
        assert_eq!(cut[0].len(), GROUP);
        assert!(cut.len() >= 3);
    }

    #[test]
    fn what_is_there_does_not_move_the_bounds_of_the_groups() {
        let publications = (0..100).map(|n| line(n, "PUBLICATION - p o"));
        let triggers = (100..1000).map(|n| line(n, "TRIGGER s t o"));
        let lines: Vec<Line> = publications.chain(triggers).collect();
        let is_trigger = |line: &&Line| line.is("TRIGGER");
        let at_first: HashMap<Entry, bool> = lines
            .iter()
            .filter(is_trigger)
            .map(|line| (line.entry, false))
            .collect();
        let whole = open_groups(lines.clone(), &at_first, &HashSet::new());
        assert_eq!(whole.concat(), lines);
        // The first group committed, then the agent was killed.
        let mut made = at_first;
        made.extend(
            whole[0]
                .iter()
                .filter(is_trigger)
                .map(|line| (line.entry, true)),
        );
        let before = lines[..100].iter().map(|line| line.entry).collect();
        assert_eq!(open_groups(lines, &made, &before), whole[1..]);
    }
}

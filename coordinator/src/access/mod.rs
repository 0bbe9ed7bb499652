//! Row level security by behaviour: a sample of the platform's users, and who has not signed in, are asked for what they may see, at both ends
//! at once. Rows that are equal, and schemas that are equal, do not say so: what a policy answers depends on functions, memberships, settings.
//!
//! Claims are in memory only: nothing here writes or shows an [`Identity`] but by its id and role.
mod ask;
mod judge;
mod told;

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use pgconvoy_proto::model::{
    ACCESS_COMPARED, AccessRules, AskedTable, Finding, Identity, OF_ACCESS, Relation, RoleRights,
    Severity, Table, Tenancy,
};
use pgconvoy_proto::wire;

pub use told::{json, text};

use crate::digest::Held;
use crate::ends::Ends;
use crate::events::{Event, Reporter};
use crate::ledger::Ledger;
use crate::left_out::LeftOut;
use ask::Asker;
use judge::{Judged, Outcome, judge};
use told::Told;

/// What came of it.
#[derive(Debug, Default)]
pub struct Compared {
    pub findings: Vec<Finding>,
    /// Objects that were looked at: what earlier runs found of them is void.
    about: HashSet<String>,
    /// All of the migration's tables were: and of anything else.
    whole: bool,
}

/// What is compared.
pub struct Asked<'a> {
    pub ledger: &'a Ledger,
    /// Tables whose rows are equal: of others the answers would differ for that.
    pub tables: Vec<Table>,
    /// Of which only rows are carried that others do not stand for: what a user sees of them depends on rows that the user may not see.
    dependent: Vec<Table>,
    /// They are all that the migration has.
    pub whole: bool,
    /// Nobody is asked, where it has to do with rows or row level security.
    pub left_out: LeftOut,
}

impl<'a> Asked<'a> {
    /// Leaves out tables that these findings are about.
    pub fn new(ledger: &'a Ledger, tables: &[Table], findings: &[Finding], whole: bool) -> Self {
        let differing: HashSet<&str> = findings.iter().map(|f| f.object.as_str()).collect();
        let equal = tables.iter().filter(|table| {
            table.relation == Relation::Table && !differing.contains(table.to_string().as_str())
        });
        let (dependent, tables) = equal.cloned().partition(Table::depends_on_other_rows);
        Self {
            ledger,
            tables,
            dependent,
            whole,
            left_out: LeftOut::by_migration(&ledger.options),
        }
    }

    fn rules(&self) -> Option<(&'a Tenancy, &'a AccessRules)> {
        let tenancy = self.ledger.options.tenancy.as_deref()?;
        let rules = tenancy.platform.access.as_ref()?;
        (self.left_out.is_nothing() && !self.tables.is_empty()).then_some((tenancy, rules))
    }
}

/// Asks, where the migration's platform says who; under the source's snapshot.
pub async fn run(
    ends: &Ends,
    asked: Asked<'_>,
    held: &Held,
    reporter: &Reporter,
) -> anyhow::Result<Compared> {
    let Some((tenancy, rules)) = asked.rules() else {
        return Ok(Compared::default());
    };
    let asker = Asker {
        ends,
        held,
        rules,
        migration: &asked.ledger.id,
        reporter,
        until: Instant::now() + Duration::from_secs(rules.total_seconds.into()),
    };
    let mut tables: Vec<AskedTable> = asked.tables.iter().map(named).collect();
    let sample = asker.sample(&tables).await?;
    let roots = sample.roots.iter();
    let roots: Vec<_> = roots
        .filter(|root| !tables.iter().any(|t| is_same(t, root)))
        .collect();
    tables.extend(roots.into_iter().cloned());
    let mut told = Told::new(tenancy, rules, &sample);
    for table in &asked.dependent {
        told.dependent(&named(table));
    }
    let mut survey = Survey::read(&asker, &sample.identities, tables).await?;
    told.rights(&mut survey);
    let questions = Questions {
        survey,
        identities: sample.identities,
    };
    questions.ask_all(&asker, &mut told).await?;
    let compared = told.conclude(&questions, asked.whole);
    for finding in compared
        .findings
        .iter()
        .filter(|f| f.code != ACCESS_COMPARED)
    {
        reporter.emit(&Event::Finding(finding.clone()));
    }
    if let Some(summary) = compared.findings.last() {
        reporter.note(format!("row level security: {}", summary.message));
    }
    Ok(compared)
}

fn named(table: &Table) -> AskedTable {
    AskedTable {
        schema: table.schema.clone(),
        name: table.name.clone(),
        columns: [table.columns.clone(), table.generated.clone()].concat(),
        filter: table.filter.clone(),
    }
}

fn is_same(one: &AskedTable, other: &AskedTable) -> bool {
    (&one.schema, &one.name) == (&other.schema, &other.name)
}

/// What is said about an access, so that it is not taken for what is said about the table.
fn object(table: &AskedTable) -> String {
    format!("access to {table}")
}

/// Who may do what at each end, by the catalogs.
pub struct Survey {
    pub tables: Vec<AskedTable>,
    /// By role: at the source, at the target.
    pub roles: BTreeMap<String, (RoleRights, RoleRights)>,
}

impl Survey {
    /// Of the tables that somebody may see, or is kept from by a policy, at either end.
    async fn read(
        asker: &Asker<'_>,
        identities: &[Identity],
        mut tables: Vec<AskedTable>,
    ) -> anyhow::Result<Self> {
        let mut names: Vec<String> = identities.iter().map(|one| one.role.clone()).collect();
        names.sort();
        names.dedup();
        let mut roles = asker.rights(&names, &tables).await?;
        let of = |rights: &RoleRights, at: usize| rights.tables.get(at).cloned().flatten();
        let in_question: Vec<bool> = (0..tables.len())
            .map(|at| {
                let mut all = roles.values();
                all.any(|(source, target)| match (of(source, at), of(target, at)) {
                    (Some(source), Some(target)) => {
                        source.is_in_question() || target.is_in_question()
                    }
                    // What is not there at one end is found by the comparison of schemas.
                    _ => false,
                })
            })
            .collect();
        retain(&mut tables, &in_question);
        for (source, target) in roles.values_mut() {
            retain(&mut source.tables, &in_question);
            retain(&mut target.tables, &in_question);
        }
        Ok(Self { tables, roles })
    }

    /// The role can be had at both ends.
    fn is_usable(&self, role: &str) -> bool {
        let both = self.roles.get(role);
        both.is_some_and(|(source, target)| source.refused.is_none() && target.refused.is_none())
    }

    /// With the columns that the role may read at the source; where it may read none, with all: a refusal then.
    fn question(&self, role: &str, at: usize) -> AskedTable {
        let mut table = self.tables[at].clone();
        let source = self.roles.get(role).map(|(source, _)| &source.tables);
        let rights = source
            .and_then(|tables| tables.get(at))
            .and_then(Option::as_ref);
        if let Some(rights) = rights.filter(|rights| !rights.readable.is_empty()) {
            table.columns.clone_from(&rights.readable);
        }
        table
    }
}

fn retain<T>(items: &mut Vec<T>, which: &[bool]) {
    let mut which = which.iter();
    items.retain(|_| which.next().copied().unwrap_or(false));
}

/// Who asks what.
pub struct Questions {
    pub survey: Survey,
    pub identities: Vec<Identity>,
}

impl Questions {
    async fn ask_all(&self, asker: &Asker<'_>, told: &mut Told<'_>) -> anyhow::Result<()> {
        // A table that has taken too long once is not asked for again.
        let mut slow = HashSet::new();
        for identity in &self.identities {
            if !self.survey.is_usable(&identity.role) {
                continue;
            }
            let open: Vec<usize> = (0..self.survey.tables.len())
                .filter(|at| !slow.contains(at))
                .collect();
            for some in open.chunks(ask::AT_ONCE) {
                for (at, judged) in self.ask(asker, identity, some).await? {
                    if matches!(judged.outcome, Outcome::TooSlow(_)) {
                        slow.insert(at);
                    }
                    told.answer(at, identity, judged);
                }
            }
        }
        Ok(())
    }

    /// A difference is asked for once more: a policy may read the clock, and the two ends do so one after the other.
    async fn ask(
        &self,
        asker: &Asker<'_>,
        identity: &Identity,
        tables: &[usize],
    ) -> anyhow::Result<Vec<(usize, Judged)>> {
        let mut judged = self.ask_once(asker, identity, tables).await?;
        let differs = |(_, judged): &&(usize, Judged)| judged.outcome == Outcome::Differs;
        let again: Vec<usize> = judged.iter().filter(differs).map(|(at, _)| *at).collect();
        if !again.is_empty() {
            judged.retain(|(at, _)| !again.contains(at));
            judged.extend(self.ask_once(asker, identity, &again).await?);
        }
        Ok(judged)
    }

    async fn ask_once(
        &self,
        asker: &Asker<'_>,
        identity: &Identity,
        tables: &[usize],
    ) -> anyhow::Result<Vec<(usize, Judged)>> {
        let questions = tables
            .iter()
            .map(|at| self.survey.question(&identity.role, *at));
        let (source, target) = asker.probe(identity, questions.collect()).await?;
        let each = tables.iter().zip(source.into_iter().zip(target));
        Ok(each
            .map(|(at, (source, target))| (*at, judge(source, target)))
            .collect())
    }
}

impl Compared {
    /// It could not be looked at all.
    pub fn not_looked(why: &str) -> Self {
        let finding = Finding::new(Severity::Info, "access-not-compared", "access", why)
            .hint("pgconvoy verify compares it");
        Self {
            findings: vec![finding],
            about: HashSet::from(["access".to_owned()]),
            whole: false,
        }
    }

    /// For the ledger, in place of what earlier runs said.
    pub fn entry(&self, ledger: &Ledger) -> wire::RecordRequest {
        if self.findings.is_empty() {
            return wire::RecordRequest::default();
        }
        let earlier = ledger.findings.iter().filter(|f| self.supersedes(f));
        // A part of the tables does not prove the whole.
        let told = self
            .findings
            .iter()
            .filter(|f| self.whole || f.code != ACCESS_COMPARED);
        wire::RecordRequest {
            findings: told.cloned().map(Into::into).collect(),
            compared: earlier.map(|finding| finding.object.clone()).collect(),
            ..Default::default()
        }
    }

    pub fn supersedes(&self, finding: &Finding) -> bool {
        OF_ACCESS.contains(&finding.code.as_str())
            && (self.whole || self.about.contains(&finding.object))
    }
}

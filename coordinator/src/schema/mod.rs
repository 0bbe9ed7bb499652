//! The schemas of both ends: described by the agents, compared, told.
mod catalogs;
mod refusing;
mod reprint;
mod shared;
mod told;

use std::collections::{BTreeSet, HashMap, HashSet};

use pgconvoy_proto::model::{
    Catalog, Finding, NOT_CALLED, OF_SCHEMA, OF_STEPS, REHEARSAL, RoleChoice, SCHEMA_COMPARED,
    SchemaObject, Selection, SequenceValue, Severity, TOLD, Table, Work,
};
use pgconvoy_proto::{names, wire};

use crate::compare::findings::{count_text, findings, is_chosen};
use crate::compare::known::{
    Fact, as_findings, facts, is_settled, leave_out, leave_out_facts, plain, told_before,
};
use crate::compare::level::{Positions, level};
use crate::compare::own::{take_own, take_unwanted_roles};
use crate::compare::{Counts, Difference, compare, counts};
use crate::ends::Ends;
use crate::events::Reporter;
use crate::ledger::Ledger;
use crate::left_out::{LARGE_OBJECT, LeftOut};
use crate::platform::{self, Scope, When};

use refusing::Refusing;
use reprint::Printer;
pub use shared::shared;
pub use told::{json, text, were_there};

/// What the source's sequences are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequences {
    /// Where they stood at the snapshot, as the ledger's steps hold it: a source that is alive has moved on.
    AtSnapshot,
    Now,
    /// Not at all, nor large objects: a sync is about to bring both over. What somebody else has moved at the target, it must not set back
    /// unasked.
    Coming,
}

/// What came of a comparison.
#[derive(Debug, Default)]
pub struct Compared {
    pub findings: Vec<Finding>,
    /// What was compared. None: nothing.
    pub summary: Option<Finding>,
    /// The migration's own comparison, which knows what is accepted as it is, is still to come: this one has left out more than it will.
    precedes_first: bool,
    /// For the ledger alone: what differs, is told elsewhere, and is accepted as it is.
    told_before: Vec<Finding>,
    /// Objects whose earlier findings are out of date.
    anew: Vec<String>,
    /// What a step could not do, and somebody has done by now.
    settled: Vec<Finding>,
    /// Tables and columns of the source that the target does not have.
    lost: HashSet<String>,
    /// Columns that are of another type at the target.
    retyped: HashSet<String>,
    /// What the target demands of rows, by table, and the source does not: of what was not told and accepted before.
    refusing: Refusing,
    /// Sequences that stand elsewhere at the target; while a sync is coming, those alone that do not stand where they were left.
    pub moved: Vec<Displaced>,
}

/// A sequence, and where it stands.
#[derive(Debug)]
pub struct Displaced {
    pub sequence: String,
    /// By a table's column.
    pub owned: bool,
    pub source: String,
    pub target: String,
}

impl Compared {
    /// The table can be read at the target, with the columns that it was copied with.
    pub fn is_readable(&self, table: &Table) -> bool {
        let lost = |column: &String| self.lost.contains(column);
        !self.lost.contains(&plain(&table.to_string())) && !columns(table).any(|c| lost(&c))
    }

    /// Columns of the table that are of another type at the target.
    pub fn retyped(&self, table: &Table) -> Vec<String> {
        columns(table)
            .filter(|column| self.retyped.contains(column))
            .collect()
    }

    /// What the table demands of rows at the target only.
    pub fn demands(&self, table: &Table) -> &[String] {
        let demands = self.refusing.get(&plain(&table.to_string()));
        demands.map_or(&[], Vec::as_slice)
    }

    /// An earlier finding, of something that this comparison has looked at.
    pub fn supersedes(&self, finding: &Finding) -> bool {
        OF_SCHEMA.contains(&finding.code.as_str()) && self.anew.contains(&finding.object)
            || self.settled.contains(finding)
    }

    /// For the ledger.
    pub fn entry(&self) -> wire::RecordRequest {
        let summary = self.summary.iter().filter(|_| !self.precedes_first);
        let findings = self.findings.iter().chain(summary);
        let findings = findings.chain(&self.told_before);
        wire::RecordRequest {
            findings: findings.cloned().map(Into::into).collect(),
            compared: self.anew.clone(),
            ..Default::default()
        }
    }
}

/// As the comparison calls them.
fn columns(table: &Table) -> impl Iterator<Item = String> {
    let name = plain(&table.to_string());
    let columns = table.columns.iter().chain(&table.generated);
    columns.map(move |column| format!("{name}.{}", plain(column)))
}

/// What is to be compared.
pub struct Question<'a> {
    pub ledger: &'a Ledger,
    /// A part of what was migrated.
    pub selection: &'a Selection,
    pub left_out: LeftOut,
    pub sequences: Sequences,
}

/// Has both agents describe their databases and compares.
pub async fn compare_ends(
    ends: &Ends,
    question: &Question<'_>,
    reporter: &Reporter,
) -> anyhow::Result<Compared> {
    let Question {
        ledger,
        selection,
        left_out,
        sequences,
    } = *question;
    let selections = [&ledger.options.selection, selection];
    let (mut source, mut target) = catalogs::both(ends, &selections, &ledger.id, reporter).await?;
    let positions = (sequences == Sequences::AtSnapshot).then(|| positions(ledger));
    let printer = Printer::of(ends, &ledger.id, &source, &target, reporter);
    let others =
        (sequences == Sequences::Coming).then(|| moved_by_others(&source, &target, ledger));
    level(&mut source, &mut target, left_out, positions.as_ref());
    let whole = ledger.options.selection.is_everything() && selection.is_everything();
    let mut of_platform = Vec::new();
    if let Some(tenancy) = &ledger.options.tenancy {
        let ground = platform::Ground::read(ends, tenancy.platform.clone(), &ledger.id).await?;
        let scope = Scope::new(&ledger.options.selection, left_out)?;
        let more = ground.divide(&scope).carried;
        // The scratch database of a rehearsal has not all that the target has.
        if whole && !ledger.id.starts_with(REHEARSAL) {
            let made = platform::made_extensions(&source, tenancy);
            let carried = [tenancy.carried.as_slice(), &more, &made].concat();
            let shared = ground.shared(&source, &target, &carried);
            let (shared, unclear) = printer.settle(shared).await?;
            of_platform = ground.judge_shared(&shared, When::After).findings;
            of_platform.extend(unclear);
        }
        let left = platform::leave_out(&mut source, &mut target, tenancy, &more);
        let name = &tenancy.platform.name;
        reporter.note(format!(
            "{left} objects are {name}'s own at one end or the other: they are not compared"
        ));
    }
    let mut differences = compare(&source, &target);
    if sequences == Sequences::AtSnapshot {
        // Which ones there are is proven by the digest of their pages, at the snapshot; the source may have others by now.
        differences.retain(|difference| {
            let differs = matches!(difference, Difference::Differs { .. });
            differs || difference.object().kind != LARGE_OBJECT
        });
    }
    let mut moved = moved(&differences);
    if let Some(others) = others {
        moved.retain(|moved| others.contains(&moved.sequence));
        differences = without_coming(differences);
    }
    let retyped = retyped(&differences);
    let (differences, unclear) = printer.settle(differences).await?;
    let lost = lost(&differences, &source, &target);
    let mut anew = anew(ledger, &source, &target, whole);
    anew.retain(|object| !is_partly_left_out(object, ledger, left_out));
    let mut settled = Vec::new();
    // Asked by a sync that is coming, and by nobody else.
    let refusing = match sequences {
        Sequences::Coming => {
            refusing::refusing(&news(differences.clone(), ledger), &source, &target)
        }
        _ => Refusing::new(),
    };
    let precedes_first = !ledger.is_compared() && left_out.exceeds(&ledger.options);
    let (mut found, mut told_before) = if ledger.is_compared() {
        let told = told_before(&ledger.findings);
        settled = self::settled(ledger, &differences, &source, whole);
        settled.retain(|finding| !left_out.is_about(finding));
        anew.extend(settled.iter().map(|finding| finding.object.clone()));
        let kept = still_told(&told, &differences, &anew);
        let news = leave_out_facts(differences, &told);
        (findings(&news, None), as_findings(&kept))
    } else {
        first_findings(differences, ledger)
    };
    found.extend(unclear);
    found.extend(of_platform);
    if precedes_first {
        told_before.clear();
    }
    let counts = counts(&source, &target);
    let is_difference = |f: &&Finding| f.severity == Severity::Difference;
    let differences = found.iter().filter(is_difference).count();
    let summary = summary(&counts, differences, left_out);
    reporter.note(summary.message.clone());
    Ok(Compared {
        findings: found,
        summary: Some(summary),
        precedes_first,
        told_before,
        anew,
        settled,
        lost,
        retyped,
        refusing,
        moved,
    })
}

/// Leaves out what a sync brings over.
fn without_coming(differences: Vec<Difference>) -> Vec<Difference> {
    let mut left = Vec::new();
    for mut difference in differences {
        if difference.object().kind == LARGE_OBJECT {
            continue;
        }
        if let Difference::Differs {
            source, changes, ..
        } = &mut difference
            && source.kind == "sequence"
        {
            changes.retain(|change| change.property != "position");
            if changes.is_empty() {
                continue;
            }
        }
        left.push(difference);
    }
    left
}

fn retyped(differences: &[Difference]) -> HashSet<String> {
    let of_another_type = |difference: &Difference| match difference {
        Difference::Differs {
            source, changes, ..
        } if source.kind == "column" => {
            let changed = changes.iter().any(|change| change.property == "type");
            changed.then(|| plain(&source.identity))
        }
        _ => None,
    };
    differences.iter().filter_map(of_another_type).collect()
}

fn moved(differences: &[Difference]) -> Vec<Displaced> {
    let elsewhere = |difference: &Difference| match difference {
        Difference::Differs {
            source, changes, ..
        } if source.kind == "sequence" => {
            let change = changes.iter().find(|c| c.property == "position")?;
            Some(Displaced {
                sequence: plain(&source.identity),
                owned: source.parent.starts_with("table "),
                source: change.source.clone().unwrap_or_default(),
                target: change.target.clone().unwrap_or_default(),
            })
        }
        _ => None,
    };
    differences.iter().filter_map(elsewhere).collect()
}

fn settled(
    ledger: &Ledger,
    differences: &[Difference],
    source: &Catalog,
    whole: bool,
) -> Vec<Finding> {
    let of_steps = ledger.findings.iter().filter(|finding| {
        finding.severity == Severity::Difference && OF_STEPS.contains(&finding.code.as_str())
    });
    of_steps
        .filter(|finding| is_settled(finding, differences, source, whole))
        .cloned()
        .collect()
}

/// What was told of and accepted is forgotten when it is so no more: the next time it is news. Of the objects whose findings are forgotten
/// anyway, what is still so.
fn still_told(
    told: &BTreeSet<Fact>,
    differences: &[Difference],
    anew: &[String],
) -> BTreeSet<Fact> {
    let now = facts(differences);
    told.iter()
        .filter(|fact| now.contains(fact) && anew.contains(&fact.0))
        .cloned()
        .collect()
}

/// Of the first comparison, a migration's own: its findings, and what is accepted as the migration has told it.
fn first_findings(differences: Vec<Difference>, ledger: &Ledger) -> (Vec<Finding>, Vec<Finding>) {
    let mut all = facts(&differences);
    let mut news = leave_out(differences, &ledger.findings);
    let mut found = take_own(&mut news);
    if ledger.options.roles == RoleChoice::None {
        found.extend(take_unwanted_roles(&mut news));
    }
    found.extend(findings(&news, Some(&ledger.findings)));
    // Nothing that is told as a difference is accepted; what was chosen for the database is, whatever else differs there.
    let open: HashSet<&str> = found
        .iter()
        .filter(|f| f.severity == Severity::Difference)
        .map(|f| f.object.as_str())
        .collect();
    all.retain(|(object, property, _)| {
        !open.contains(object.as_str()) || is_chosen(object, property)
    });
    (found, as_findings(&all))
}

/// What was not told and accepted before.
fn news(differences: Vec<Difference>, ledger: &Ledger) -> Vec<Difference> {
    match ledger.is_compared() {
        true => leave_out_facts(differences, &told_before(&ledger.findings)),
        false => leave_out(differences, &ledger.findings),
    }
}

/// The sequences that the migration, or a sync after it, has set.
pub fn left_sequences(ledger: &Ledger) -> impl Iterator<Item = &SequenceValue> {
    ledger
        .steps
        .iter()
        .flat_map(|entry| match &entry.step.work {
            Work::Sequences { values } => values.as_slice(),
            _ => &[],
        })
}

/// Where they were set to.
fn positions(ledger: &Ledger) -> Positions {
    left_sequences(ledger)
        .map(|v| (format!("{}.{}", v.schema, v.name), v.position()))
        .collect()
}

/// Sequences that do not stand at the target where they were left. One of which the ledger does not know that has been used when it is not
/// as it was made; one that could not be set was told of.
fn moved_by_others(source: &Catalog, target: &Catalog, ledger: &Ledger) -> HashSet<String> {
    let left = positions(ledger);
    let stands: HashMap<&str, &str> = sequences(target)
        .map(|object| (object.identity.as_str(), position(object)))
        .collect();
    let moved = sequences(source).filter(|object| {
        let name = object.get("name").unwrap_or_default();
        let now = stands.get(object.identity.as_str());
        let mut findings = ledger.findings.iter();
        !findings.any(|f| f.code == SEQUENCE_NOT_SET && f.object == name)
            && now.is_some_and(|now| match left.get(name) {
                Some(left) => left != now,
                None => !now.ends_with(NOT_CALLED),
            })
    });
    moved
        .map(|object| plain(&names::identity(&object.identity)))
        .collect()
}

/// Code of the target agent's finding.
const SEQUENCE_NOT_SET: &str = "sequence-not-set";

fn sequences(catalog: &Catalog) -> impl Iterator<Item = &SchemaObject> {
    let objects = catalog.objects.iter();
    objects.filter(|object| object.kind == "sequence")
}

fn position(object: &SchemaObject) -> &str {
    object.get("position").unwrap_or_default()
}

fn lost(differences: &[Difference], source: &Catalog, target: &Catalog) -> HashSet<String> {
    if !differences
        .iter()
        .any(|d| matches!(d, Difference::Missing { .. }))
    {
        return HashSet::new();
    }
    let of = |catalog: &Catalog| -> HashSet<String> {
        let tables = catalog.objects.iter();
        tables
            .filter(|o| o.kind == "table" || o.kind == "column")
            .map(|o| plain(&o.identity))
            .collect()
    };
    &of(source) - &of(target)
}

/// Everything when everything was compared; else what this comparison has seen at either end.
fn anew(ledger: &Ledger, source: &Catalog, target: &Catalog, whole: bool) -> Vec<String> {
    let mut objects: Vec<String> = ledger
        .findings
        .iter()
        .filter(|f| OF_SCHEMA.contains(&f.code.as_str()) || f.code == TOLD)
        .map(|finding| finding.object.clone())
        .collect();
    if !whole {
        let catalogs = source.objects.iter().chain(&target.objects);
        let seen: HashSet<String> = catalogs.map(|object| object.name()).collect();
        objects.retain(|object| seen.contains(object));
    }
    objects
}

/// A finding tells of the object what this comparison has not looked at: it stays.
fn is_partly_left_out(object: &str, ledger: &Ledger, left_out: LeftOut) -> bool {
    let mut findings = ledger.findings.iter();
    findings.any(|finding| finding.object == object && left_out.is_about(finding))
}

fn summary(counts: &Counts, differences: usize, left_out: LeftOut) -> Finding {
    let all: usize = counts.values().sum();
    let message = format!(
        "{all} objects compared, {differences} differences: {}{}",
        count_text(counts),
        left_out.words()
    );
    Finding::new(Severity::Info, SCHEMA_COMPARED, "schema", message)
        .values(serde_json::json!(counts).to_string(), "")
}

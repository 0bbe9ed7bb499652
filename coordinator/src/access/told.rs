//! What is said of it: findings by table, a summary, and the report's section. Users are named by their ids.
use std::collections::{BTreeMap, HashSet};

use pgconvoy_proto::model::{
    ACCESS_COMPARED, AccessRules, AskedTable, Finding, Identity, Named, Sample, Severity,
    TableRights, Tenancy,
};
use serde_json::{Value, json};

use super::judge::{Judged, Outcome, answer_text};
use super::{Compared, Questions, Survey, object};
use crate::ledger::Ledger;

/// Of those that see something else at the target, so many are named.
const NAMED: usize = 10;

pub struct Told<'a> {
    tenancy: &'a Tenancy,
    rules: &'a AccessRules,
    users: u64,
    findings: Vec<Finding>,
    /// By the table's place.
    answers: BTreeMap<usize, Vec<(String, Judged)>>,
}

impl<'a> Told<'a> {
    pub fn new(tenancy: &'a Tenancy, rules: &'a AccessRules, sample: &Sample) -> Self {
        let unread = sample.unread.as_ref().map(|why| {
            let what =
                format!("the users could not be listed at the source, and were not asked: {why}");
            Finding::new(
                Severity::Warning,
                "access-not-compared",
                "access of users",
                what,
            )
            .hint("the platform's [access] has the two queries: users, claims")
        });
        Self {
            tenancy,
            rules,
            users: sample.users,
            findings: unread.into_iter().collect(),
            answers: BTreeMap::new(),
        }
    }

    pub fn dependent(&mut self, table: &AskedTable) {
        let what = "rows of it were left out because another row has their key: what a user sees of the others depends on rows that the user may \
                    not see, so nobody was asked";
        self.findings.push(not_compared(table, what));
    }

    /// Roles that cannot be had, and rights that differ.
    pub fn rights(&mut self, survey: &mut Survey) {
        for (role, (source, target)) in &survey.roles {
            for (agent, end) in [("source", source), ("target", target)] {
                if let Some(why) = &end.refused {
                    let what = format!(
                        "the {agent} agent's role may not become it, so nobody of this role was asked: {why}"
                    );
                    let object = format!("access as {role}");
                    let hint = format!(
                        "GRANT {role} TO the agent's role at the {agent}, and verify again"
                    );
                    self.findings.push(
                        Finding::new(Severity::Warning, "access-role", object, what).hint(hint),
                    );
                }
            }
        }
        for (at, table) in survey.tables.iter().enumerate() {
            let differing: Vec<(&str, [String; 2])> = survey
                .roles
                .iter()
                .filter_map(|(role, (source, target))| {
                    let source = source.tables.get(at)?.as_ref()?;
                    let target = target.tables.get(at)?.as_ref()?;
                    Some((role.as_str(), beyond(source, target)?))
                })
                .collect();
            if let Some((role, [source, target])) = differing.first() {
                let roles: Vec<&str> = differing.iter().map(|(role, _)| *role).collect();
                let what = format!(
                    "{} may do something else with it at the target; the values are what {role} may at one end alone",
                    roles.join(", ")
                );
                self.findings.push(
                    Finding::new(self.of_rights(table), "rights-differ", object(table), what)
                        .values(source.clone(), target.clone())
                        .hint("compare the grants on the table and its schema, and what the role is a member of"),
                );
            }
        }
    }

    /// Grants on the platform's own tables are its services' affair, and differ with their level.
    fn of_rights(&self, table: &AskedTable) -> Severity {
        match self.is_managed(table) {
            true => Severity::Warning,
            false => Severity::Difference,
        }
    }

    /// And so are its own policies; what a policy of the user's answers is not.
    fn of_answers(&self, table: &AskedTable) -> Severity {
        let of = format!(" on {table}");
        let is_users = |named: &Named| {
            named.kind == "policy" && named.identity.replace('"', "").ends_with(&of)
        };
        match self.tenancy.carried.iter().any(is_users) {
            true => Severity::Difference,
            false => self.of_rights(table),
        }
    }

    fn is_managed(&self, table: &AskedTable) -> bool {
        self.tenancy.schemas.contains(&table.schema)
            && self.tenancy.shape(&table.schema, &table.name).is_some()
    }

    pub fn answer(&mut self, at: usize, identity: &Identity, judged: Judged) {
        let answers = self.answers.entry(at).or_default();
        answers.push((identity.to_string(), judged));
    }

    /// The summary comes last.
    pub fn conclude(mut self, questions: &Questions, whole: bool) -> Compared {
        let tables = &questions.survey.tables;
        for (at, answers) in std::mem::take(&mut self.answers) {
            let of_table = self.of_table(&tables[at], &answers);
            self.findings.extend(of_table);
            self.answers.insert(at, answers);
        }
        self.findings.extend(self.not_asked());
        let summary = self.summary(questions);
        let mut about: HashSet<String> = tables.iter().map(object).collect();
        about.extend(self.findings.iter().map(|finding| finding.object.clone()));
        self.findings.push(summary);
        Compared {
            findings: self.findings,
            about,
            whole,
        }
    }

    fn of_table(&self, table: &AskedTable, answers: &[(String, Judged)]) -> Vec<Finding> {
        let first = |wanted: fn(&Outcome) -> bool| {
            let mut all = answers.iter();
            all.find(|(_, judged)| wanted(&judged.outcome))
        };
        let mut findings = Vec::new();
        findings.extend(self.differs(table, answers));
        if let Some((who, judged)) = first(|outcome| matches!(outcome, Outcome::TooSlow(_)))
            && let Outcome::TooSlow(end) = judged.outcome
        {
            let limit = f64::from(self.rules.timeout_ms) / 1000.0;
            let what = format!(
                "{who} got no answer within {limit} s {}: nobody after it was asked",
                end.text()
            );
            findings.push(not_compared(table, &what).hint(
                "a policy is slow, or waits for a lock: an index on the columns that it compares helps, or a longer timeout-ms in the platform's [access]",
            ));
        }
        if let Some((who, _)) = first(|outcome| *outcome == Outcome::Writes) {
            let what = format!("a policy writes, which is refused here at both ends ({who})");
            findings.push(not_compared(table, &what).hint("try it with the application"));
        }
        if let Some((who, judged)) = first(|outcome| *outcome == Outcome::FailsAlike) {
            let what = format!(
                "an error for {who}, the same at both ends: {}",
                answer_text(&judged.source)
            );
            findings.push(Finding::new(
                Severity::Info,
                "access-fails-alike",
                object(table),
                what,
            ));
        }
        findings
    }

    fn differs(&self, table: &AskedTable, answers: &[(String, Judged)]) -> Option<Finding> {
        let differing = answers
            .iter()
            .filter(|(_, judged)| judged.outcome == Outcome::Differs);
        let differing: Vec<&(String, Judged)> = differing.collect();
        let (_, first) = differing.first()?;
        let each = differing.iter().take(NAMED).map(|(who, judged)| {
            let [source, target] = [&judged.source, &judged.target].map(answer_text);
            match source == target {
                true => format!("{who} gets {source} at the source and {target} at the target, not the same ones"),
                false => format!("{who} gets {source} at the source and {target} at the target"),
            }
        });
        let mut each: Vec<String> = each.collect();
        if differing.len() > NAMED {
            each.push(format!("and so for {} more", differing.len() - NAMED));
        }
        let finding = Finding::new(
            self.of_answers(table),
            "access-differs",
            object(table),
            format!(
                "{} of {} asked are answered differently: {}",
                differing.len(),
                answers.len(),
                each.join("; ")
            ),
        );
        Some(
            finding
                .values(answer_text(&first.source), answer_text(&first.target))
                .hint("compare policies and grants of the table, and the functions and memberships that they depend on"),
        )
    }

    fn not_asked(&self) -> Option<Finding> {
        match self.count(|outcome| *outcome == Outcome::NotAsked) {
            0 => None,
            left => {
                let what = format!(
                    "{left} questions were not asked: {} s were over",
                    self.rules.total_seconds
                );
                Some(
                    Finding::new(Severity::Warning, "access-not-compared", "access", what)
                        .hint("total-seconds in the platform's [access] is the limit for all"),
                )
            }
        }
    }

    fn count(&self, wanted: impl Fn(&Outcome) -> bool) -> usize {
        let all = self.answers.values().flatten();
        all.filter(|(_, judged)| wanted(&judged.outcome)).count()
    }

    fn summary(&self, questions: &Questions) -> Finding {
        let survey = &questions.survey;
        let asked = questions
            .identities
            .iter()
            .filter(|one| survey.is_usable(&one.role));
        let asked: Vec<&Identity> = asked.collect();
        let named: Vec<Value> = asked
            .iter()
            .map(|one| json!({ "id": one.id, "role": one.role }))
            .collect();
        let same = self.count(|o| *o == Outcome::SameRows);
        let many = self.count(|o| *o == Outcome::BothMany);
        let refused = self.count(|o| *o == Outcome::SameRefusal);
        let failing = self.count(|o| *o == Outcome::FailsAlike);
        let differing = self.count(|o| *o == Outcome::Differs);
        let open =
            self.count(|o| matches!(o, Outcome::Writes | Outcome::TooSlow(_) | Outcome::NotAsked));
        let mut message = format!(
            "{} identities asked for {} tables: ",
            asked.len(),
            survey.tables.len()
        );
        let alike = format!("{same} times the same rows, {refused} times the same refusal");
        message += &match (differing, same + refused) {
            (0, 0) => "nothing was compared".to_owned(),
            (0, _) => format!("same rows and refusals at both ends ({alike}"),
            (n, _) => format!("{n} ANSWERS DIFFER ({alike}"),
        };
        for (count, what) in [
            (many, "times both ends had more rows than are read"),
            (failing, "times the same error"),
            (open, "times not compared"),
        ] {
            if count > 0 && differing + same + refused > 0 {
                message += &format!(", {count} {what}");
            }
        }
        if differing + same + refused > 0 {
            message.push(')');
        }
        let value = json!({
            "identities": named, "users": self.users, "tables": survey.tables.len(), "same_rows": same, "same_refusals": refused,
            "both_many": many, "same_errors": failing, "different": differing, "not_compared": open, "summary": message,
        });
        Finding::new(Severity::Info, ACCESS_COMPARED, "access", message)
            .values(value.to_string(), "")
    }
}

fn not_compared(table: &AskedTable, what: &str) -> Finding {
    Finding::new(
        Severity::Warning,
        "access-not-compared",
        object(table),
        what,
    )
}

/// What each end has that the other has not; none: they are equal.
fn beyond(source: &TableRights, target: &TableRights) -> Option<[String; 2]> {
    let without = |of: &TableRights, other: &TableRights| {
        let more = of
            .rights
            .iter()
            .filter(|right| !other.rights.contains(right));
        match more.cloned().collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => "nothing more".to_owned(),
            more => more,
        }
    };
    (source.rights != target.rights).then(|| [without(source, target), without(target, source)])
}

/// For the report: the last run.
pub fn json(ledger: &Ledger) -> Value {
    let run = ledger.findings.iter().find(|f| f.code == ACCESS_COMPARED);
    run.and_then(|run| serde_json::from_str(&run.source_value).ok())
        .unwrap_or(Value::Null)
}

pub fn text(ledger: &Ledger) -> String {
    match json(ledger)["summary"].as_str() {
        Some(summary) => format!("\nrow level security\n  {summary}\n"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_told_by_what_one_end_has_more() {
        let of = |rights: &[&str]| TableRights {
            rights: rights.iter().map(|r| r.to_string()).collect(),
            ..TableRights::default()
        };
        let all = of(&["SELECT", "INSERT"]);
        assert_eq!(beyond(&all, &all), None);
        assert_eq!(
            beyond(&all, &of(&["SELECT"])),
            Some(["INSERT".to_owned(), "nothing more".to_owned()])
        );
    }
}

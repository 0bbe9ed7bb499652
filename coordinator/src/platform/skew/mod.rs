//! Two levels of a platform have tables of one name with other columns, types, labels and constraints: what of the rows both ends can hold, and
//! what would be lost. Pure: the source agent counts.
mod columns;
mod constraints;
mod table;
#[cfg(test)]
mod tests;
mod types;

use pgconvoy_proto::model::{
    Count, Counted, Finding, HeldTable, Platform, Question, RowRule, Rules, Severity, Shape,
};

use table::Judging;

/// Tables of the platform at the source, and what the target has of each.
pub type Pairs = [(HeldTable, Option<HeldTable>)];

/// Code of the finding that a column has another value at the target.
pub const FIXED_VALUES: &str = "fixed-values";

/// What a level is, of the service that a schema belongs to.
pub struct Levels<'a> {
    pub platform: &'a Platform,
    pub source: &'a dyn Fn(&str) -> Option<String>,
    pub target: &'a dyn Fn(&str) -> Option<String>,
}

/// What comes of it.
#[derive(Debug, Default)]
pub struct Judged {
    pub shapes: Vec<Shape>,
    pub findings: Vec<Finding>,
}

/// Something that the target's table has no room for, if there are such rows.
struct Apart {
    /// None: it cannot be counted.
    count: Option<Count>,
    code: &'static str,
    /// A column, or a constraint of the target's.
    name: String,
    loss: Loss,
    values: (String, String),
}

enum Loss {
    /// The column is left out.
    Column,
    /// Rows are left out that do not fulfil this.
    Rows(String),
    /// Of rows with one key all but one are left out.
    Surplus(constraints::Surplus),
}

/// What is asked about the rows of a table.
struct Inquiry {
    rule: RowRule,
    apart: Vec<Apart>,
    /// Columns, with their value at the target.
    fixed: Vec<(String, String)>,
    /// Columns.
    encrypted: Vec<String>,
}

impl Inquiry {
    fn of(
        platform: &Platform,
        rules: &Rules,
        source: &HeldTable,
        target: Option<&HeldTable>,
    ) -> Self {
        let rule = rules.rows_of(&source.plain());
        let apart = match (target, rule) {
            (Some(target), RowRule::Carried | RowRule::Optional) => {
                let mut apart = columns::apart(platform, source, target);
                apart.extend(constraints::apart(platform, source, target, &apart));
                apart
            }
            _ => Vec::new(),
        };
        let encrypted = platform.encrypted.iter().filter_map(|name| {
            let (table, column) = name.rsplit_once('.')?;
            let ours = table == source.plain() && source.column(column).is_some();
            ours.then(|| column.to_owned())
        });
        Self {
            rule,
            apart,
            fixed: match rule {
                RowRule::Never => Vec::new(),
                _ => fixed(platform, source),
            },
            encrypted: encrypted.collect(),
        }
    }

    /// In the order in which [`Self::answered`] takes the answers.
    fn counts(&self) -> Vec<Count> {
        let apart = self.apart.iter().filter_map(|apart| apart.count.clone());
        let fixed = self.fixed.iter().map(|(column, value)| Count::Data {
            column: column.clone(),
            default: Some(value.clone()),
        });
        let encrypted = self.encrypted.iter().map(|column| Count::Encrypted {
            column: column.clone(),
        });
        std::iter::once(Count::Rows)
            .chain(apart)
            .chain(fixed)
            .chain(encrypted)
            .collect()
    }

    fn answered(&self, counts: &[Option<u64>]) -> Answers {
        let mut counts = counts.iter().copied();
        // What is counted by comparing values can be counted.
        let known = |counts: &mut dyn Iterator<Item = Option<u64>>| counts.next().flatten();
        Answers {
            rows: known(&mut counts).unwrap_or(0),
            apart: self
                .apart
                .iter()
                .map(|apart| apart.count.as_ref().and_then(|_| known(&mut counts)))
                .collect(),
            fixed: self
                .fixed
                .iter()
                .map(|_| known(&mut counts).unwrap_or(0))
                .collect(),
            encrypted: self
                .encrypted
                .iter()
                .map(|_| known(&mut counts).unwrap_or(0))
                .collect(),
        }
    }
}

/// One for each of what was asked.
struct Answers {
    rows: u64,
    /// None: nobody knows.
    apart: Vec<Option<u64>>,
    fixed: Vec<u64>,
    encrypted: Vec<u64>,
}

/// One for each pair, in their order.
pub fn questions(platform: &Platform, rules: &Rules, pairs: &Pairs) -> Vec<Question> {
    let question = |(source, target): &(HeldTable, Option<HeldTable>)| Question {
        schema: source.schema.clone(),
        name: source.name.clone(),
        counts: Inquiry::of(platform, rules, source, target.as_ref()).counts(),
    };
    pairs.iter().map(question).collect()
}

/// `counted`: answers to [`questions`].
pub fn judge(
    levels: &Levels<'_>,
    rules: &Rules,
    pairs: &Pairs,
    counted: &Counted,
    force: bool,
) -> Judged {
    let mut judged = Judged::default();
    let mut unwanted: Vec<String> = Vec::new();
    for ((source, target), counts) in pairs.iter().zip(counted) {
        // Who may not read it is told elsewhere.
        let Some(counts) = counts else { continue };
        let inquiry = Inquiry::of(levels.platform, rules, source, target.as_ref());
        let answers = inquiry.answered(counts);
        let judging = Judging {
            levels,
            source,
            inquiry: &inquiry,
            answers: &answers,
            force,
        };
        match (inquiry.rule, target) {
            (RowRule::Never | RowRule::Ephemeral, _) if answers.rows == 0 => {}
            (RowRule::Never | RowRule::Ephemeral, _) => {
                unwanted.push(format!("{} ({} rows)", source.plain(), answers.rows));
            }
            (_, None) if levels.platform.is_derived(&source.plain()) => {}
            (_, None) => judged.findings.extend(judging.no_table()),
            (_, Some(target)) => judging.shape(target, &mut judged),
        }
        judged.findings.extend(judging.fixed());
        judged.findings.extend(judging.encrypted());
    }
    if !unwanted.is_empty() {
        let message = format!(
            "rows of the platform's services, and what is worth nothing after minutes, are not carried: {}",
            unwanted.join(", ")
        );
        judged.findings.push(Finding::new(
            Severity::Info,
            "managed-rows-left",
            levels.platform.name.clone(),
            message,
        ));
    }
    judged
}

fn is_fixed(platform: &Platform, column: &str) -> bool {
    platform.fixed.iter().any(|fixed| fixed.column == column)
}

fn fixed(platform: &Platform, table: &HeldTable) -> Vec<(String, String)> {
    let of = platform.fixed.iter().filter_map(|fixed| {
        let (name, column) = fixed.column.rsplit_once('.')?;
        let ours = name == table.plain() && table.column(column).is_some();
        ours.then(|| (column.to_owned(), fixed.value.clone()))
    });
    of.collect()
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    match text.contains('\\') {
        true => format!(" E'{}'", text.replace('\\', "\\\\").replace('\'', "''")),
        false => format!("'{}'", text.replace('\'', "''")),
    }
}

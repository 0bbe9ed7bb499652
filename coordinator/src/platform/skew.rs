//! Two levels of a platform have tables of one name with other columns, types and labels: what of the rows both ends can hold, and what
//! would be lost. Pure: the source agent counts.
use pgconvoy_proto::model::{
    Count, Counted, Finding, HeldColumn, HeldTable, Platform, Question, RowRule, Rules, Severity,
    Shape, Version,
};

/// Tables of the platform at the source, and what the target has of each.
pub type Pairs = [(HeldTable, Option<HeldTable>)];

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

/// One for each pair, in their order.
pub fn questions(platform: &Platform, rules: &Rules, pairs: &Pairs) -> Vec<Question> {
    let question = |(source, target): &(HeldTable, Option<HeldTable>)| {
        let mut counts = vec![Count::Rows];
        let rule = rules.rows_of(&source.plain());
        if let (Some(target), RowRule::Carried | RowRule::Optional) = (target, rule) {
            counts.extend(apart(platform, source, target).into_iter().map(|a| a.count));
        }
        let encrypted = platform.encrypted.iter().filter_map(|name| {
            let (table, column) = name.rsplit_once('.')?;
            let ours = table == source.plain() && source.column(column).is_some();
            ours.then(|| Count::Encrypted {
                column: column.to_owned(),
            })
        });
        counts.extend(encrypted);
        let other = |(column, value): (String, String)| Count::Data {
            column,
            default: Some(value),
        };
        if rule != RowRule::Never {
            counts.extend(fixed(platform, source).into_iter().map(other));
        }
        Question {
            schema: source.schema.clone(),
            name: source.name.clone(),
            counts,
        }
    };
    pairs.iter().map(question).collect()
}

/// Something that the target's table has no room for, if there are such rows.
struct Apart {
    count: Count,
    code: &'static str,
    column: String,
    loss: Loss,
    values: (String, String),
}

enum Loss {
    /// The column is left out.
    Column,
    /// Rows are left out that do not fulfil this.
    Rows(String),
}

fn apart(platform: &Platform, source: &HeldTable, target: &HeldTable) -> Vec<Apart> {
    let mut found = Vec::new();
    for column in source.columns.iter().filter(|column| !column.generated) {
        let name = format!("{}.{}", source.plain(), column.name);
        if platform.is_derived(&name) || is_fixed(platform, &name) {
            continue;
        }
        match target.column(&column.name) {
            None => found.push(Apart {
                count: data(column),
                code: "skew-column",
                column: column.name.clone(),
                loss: Loss::Column,
                values: (column.data_type.clone(), String::new()),
            }),
            // It is computed there.
            Some(there) if there.generated => {}
            Some(there) => found.extend(differing(column, there)),
        }
    }
    found
}

fn differing(column: &HeldColumn, there: &HeldColumn) -> Vec<Apart> {
    let values = (column.data_type.clone(), there.data_type.clone());
    let of = |count, code, loss| Apart {
        count,
        code,
        column: column.name.clone(),
        loss,
        values: values.clone(),
    };
    if column.data_type != there.data_type && !fits(&column.data_type, &there.data_type) {
        let count = Count::Data {
            column: column.name.clone(),
            default: None,
        };
        return vec![of(count, "skew-type", Loss::Column)];
    }
    let mut found = Vec::new();
    let unknown: Vec<String> = column
        .labels
        .iter()
        .filter(|label| !there.labels.is_empty() && !there.labels.contains(label))
        .cloned()
        .collect();
    let quoted = quote(&column.name);
    if !unknown.is_empty() {
        let labels: Vec<String> = unknown.iter().map(|label| literal(label)).collect();
        let others = format!(
            "({quoted} IS NULL OR {quoted}::pg_catalog.text <> ALL (ARRAY[{}]::pg_catalog.text[]))",
            labels.join(", ")
        );
        let count = Count::Labels {
            column: column.name.clone(),
            labels: unknown.clone(),
        };
        let mut labels = of(count, "skew-labels", Loss::Rows(others));
        labels.values = (column.labels.join(", "), there.labels.join(", "));
        found.push(labels);
    }
    if there.not_null && !column.not_null {
        let count = Count::Nulls {
            column: column.name.clone(),
        };
        let filled = format!("{quoted} IS NOT NULL");
        found.push(of(count, "skew-null", Loss::Rows(filled)));
    }
    found
}

fn is_fixed(platform: &Platform, column: &str) -> bool {
    platform.fixed.iter().any(|fixed| fixed.column == column)
}

fn data(column: &HeldColumn) -> Count {
    Count::Data {
        column: column.name.clone(),
        default: column.default.clone().filter(|sql| is_constant(sql)),
    }
}

/// A literal, cast or not: nothing that could be another value for every row.
fn is_constant(sql: &str) -> bool {
    let literal = match sql.strip_prefix('\'') {
        Some(rest) => match closing_quote(rest) {
            Some(end) => &rest[end + 1..],
            None => return false,
        },
        None => {
            let word = sql.trim_start_matches(|c: char| c.is_alphanumeric() || "-.".contains(c));
            let head = &sql[..sql.len() - word.len()];
            let number = head.parse::<f64>().is_ok();
            match number || ["true", "false", "NULL"].contains(&head) {
                true => word,
                false => return false,
            }
        }
    };
    let cast = |c: char| c.is_alphanumeric() || "\"._ []".contains(c);
    literal.split("::").enumerate().all(|(at, part)| match at {
        0 => part.is_empty(),
        _ => !part.is_empty() && part.chars().all(cast),
    })
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        at += text[at..].find('\'')?;
        if text[at + 1..].starts_with('\'') {
            at += 2;
        } else {
            return Some(at);
        }
    }
}

/// Every value of the one type is one of the other, and reads the same as text.
fn fits(source: &str, target: &str) -> bool {
    const INTEGERS: &[&str] = &["smallint", "integer", "bigint", "numeric"];
    const TEXTS: &[&str] = &["text", "character varying"];
    const AS_THEY_ARE: &[&str] = &[
        "uuid",
        "smallint",
        "integer",
        "bigint",
        "boolean",
        "text",
        "character varying",
    ];
    let place = |all: &[&str], name: &str| all.iter().position(|known| *known == name);
    if let (Some(from), Some(to)) = (place(INTEGERS, source), place(INTEGERS, target)) {
        return from <= to;
    }
    let (name, length) = source.split_once('(').unwrap_or((source, ""));
    if TEXTS.contains(&target) {
        return AS_THEY_ARE.contains(&name);
    }
    match target.split_once('(') {
        Some(("character varying", other)) if name == "character varying" => {
            let number = |text: &str| text.trim_end_matches(')').parse::<u32>().ok();
            number(length)
                .zip(number(other))
                .is_some_and(|(a, b)| a <= b)
        }
        _ => false,
    }
}

/// Columns that must be given at the target, and that the source does not have.
fn required(source: &HeldTable, target: &HeldTable, left_out: &[String]) -> Vec<String> {
    let missing = target.columns.iter().filter(|column| {
        let given = source
            .column(&column.name)
            .is_some_and(|c| !c.generated && !left_out.contains(&c.name));
        let filled = column.default.is_some() || column.identity || column.generated;
        column.not_null && !filled && !given
    });
    missing.map(|column| column.name.clone()).collect()
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
        let judging = Judging {
            levels,
            source,
            rule: rules.rows_of(&source.plain()),
            force,
            rows: counts.first().copied().unwrap_or(0),
        };
        match (judging.rule, target) {
            (RowRule::Never | RowRule::Ephemeral, _) if judging.rows == 0 => {}
            (RowRule::Never | RowRule::Ephemeral, _) => {
                unwanted.push(format!("{} ({} rows)", source.plain(), judging.rows));
            }
            (_, None) if levels.platform.is_derived(&source.plain()) => {}
            (_, None) => judged.findings.extend(judging.no_table()),
            (_, Some(target)) => judging.shape(target, &counts[1..], &mut judged),
        }
        // In the order in which they were asked for: these last.
        let fixed = match judging.rule {
            RowRule::Never => Vec::new(),
            _ => fixed(levels.platform, source),
        };
        let (counts, of_fixed) = counts.split_at(counts.len().saturating_sub(fixed.len()));
        judged.findings.extend(judging.fixed(&fixed, of_fixed));
        judged.findings.extend(judging.encrypted(counts));
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

struct Judging<'a> {
    levels: &'a Levels<'a>,
    source: &'a HeldTable,
    rule: RowRule,
    force: bool,
    rows: u64,
}

impl Judging<'_> {
    fn lost(&self, code: &str, object: String, message: String) -> Finding {
        let severity = match self.rule {
            RowRule::Optional => Severity::Warning,
            _ if self.force => Severity::Warning,
            _ => Severity::Blocker,
        };
        Finding::new(severity, code, object, message).hint(self.remedy())
    }

    /// Upgrading what is behind.
    fn remedy(&self) -> String {
        let of_schema =
            |column: &&Version| column.column.split('.').next() == Some(&self.source.schema);
        let version = self.levels.platform.versions.iter().find(of_schema);
        let Some(version) = version else {
            return "bring both ends to one level of the platform first; --force goes on without what has no place at the target"
                .into();
        };
        let level = |of: &dyn Fn(&str) -> Option<String>| {
            of(&version.column).unwrap_or_else(|| "none".into())
        };
        let (source, target) = (level(self.levels.source), level(self.levels.target));
        let which = match is_newer(&source, &target) {
            true => "the target's",
            false => "both ends'",
        };
        format!(
            "upgrade {which} {} first ({}: {source} at the source, {target} at the target); --force goes on without what has no \
             place at the target",
            version.service, version.column
        )
    }

    fn no_table(&self) -> Option<Finding> {
        (self.rows > 0).then(|| {
            let message = format!("{} rows, and the target has no such table", self.rows);
            self.lost("skew-table", self.source.plain(), message)
        })
    }

    fn shape(&self, target: &HeldTable, counts: &[u64], judged: &mut Judged) {
        let (source, platform) = (self.source, self.levels.platform);
        let apart = apart(platform, source, target);
        let mut filters = Vec::new();
        let mut left_out: Vec<String> = Vec::new();
        let mut findings = Vec::new();
        for (apart, count) in apart.iter().zip(counts) {
            let (what, filter) = match &apart.loss {
                Loss::Column => {
                    left_out.push(apart.column.clone());
                    ("hold something in it", None)
                }
                Loss::Rows(filter) => ("are left out", Some(filter)),
            };
            if *count > 0 {
                filters.extend(filter.cloned());
                findings.push(self.told(apart, *count, what));
            }
        }
        let required = required(source, target, &left_out);
        if !required.is_empty() {
            if self.rows > 0 {
                let message = format!(
                    "{} rows have no place at the target: its column {} must be given, and the source has nothing for it",
                    self.rows,
                    required.join(", ")
                );
                judged
                    .findings
                    .push(self.lost("skew-required", source.plain(), message));
            }
            return;
        }
        judged.findings.extend(findings);
        let kept = |column: &&HeldColumn| {
            let name = format!("{}.{}", source.plain(), column.name);
            !left_out.contains(&column.name) && !is_fixed(platform, &name)
        };
        let here = |column: &&HeldColumn| target.column(&column.name).map(|c| c.generated);
        let columns: Vec<&HeldColumn> = source
            .columns
            .iter()
            .filter(|column| !column.generated && here(column) == Some(false))
            .filter(kept)
            .collect();
        let other = |column: &&&HeldColumn| {
            target.column(&column.name).map(|c| &c.data_type) != Some(&column.data_type)
        };
        judged.shapes.push(Shape {
            schema: source.schema.clone(),
            name: source.name.clone(),
            as_text: columns.iter().any(|column| other(&column)),
            columns: columns.iter().map(|column| column.name.clone()).collect(),
            generated: alike(source, target),
            filter: (!filters.is_empty()).then(|| filters.join(" AND ")),
            fixed: fixed(platform, target),
        });
    }

    fn told(&self, apart: &Apart, count: u64, what: &str) -> Finding {
        let object = format!("{}.{}", self.source.plain(), apart.column);
        let message = match apart.code {
            "skew-column" => {
                format!("{count} rows {what}, and the target's table has no such column")
            }
            "skew-type" => format!(
                "{count} rows {what}, and the target's column is of a type that may not take it"
            ),
            "skew-labels" => format!(
                "{count} rows have a label that the target's type does not know: they {what}"
            ),
            _ => format!(
                "{count} rows have none, and the target's column must have one: they {what}"
            ),
        };
        let (source, target) = apart.values.clone();
        self.lost(apart.code, object, message)
            .values(source, target)
    }

    /// Columns that have another value at the target than in these rows.
    fn fixed(&self, fixed: &[(String, String)], counts: &[u64]) -> Vec<Finding> {
        let told = fixed.iter().zip(counts).filter(|(_, count)| **count > 0);
        let told = told.map(|((column, value), count)| {
            let name = format!("{}.{column}", self.source.plain());
            let mut all = self.levels.platform.fixed.iter();
            let why = all.find(|fixed| fixed.column == name);
            let message = format!(
                "{count} rows have another value than {value}, which they get at the target"
            );
            Finding::new(Severity::Warning, "fixed-values", name, message)
                .hint(why.map_or("", |fixed| &fixed.why))
        });
        told.collect()
    }

    fn encrypted(&self, counts: &[u64]) -> Vec<Finding> {
        let table = self.source.plain();
        let columns = self.levels.platform.encrypted.iter();
        let columns = columns.filter_map(|name| Some((name, name.rsplit_once('.')?)));
        let ours: Vec<&String> = columns
            .filter(|(_, (of, column))| *of == table && self.source.column(column).is_some())
            .map(|(name, _)| name)
            .collect();
        // They were asked for last.
        let of = counts.iter().rev().zip(ours.iter().rev());
        let told = of.filter(|(count, _)| **count > 0).map(|(count, name)| {
            Finding::new(
                Severity::Warning,
                "encrypted-values",
                name.to_string(),
                format!("{count} values are encrypted by the service, with a key that is not in the database"),
            )
            .hint("give the target's service the same key, or these are worth nothing there")
        });
        told.collect()
    }
}

/// Of numbers the larger, of other texts the later.
fn is_newer(source: &str, target: &str) -> bool {
    match (source.parse::<u64>(), target.parse::<u64>()) {
        (Ok(source), Ok(target)) => source > target,
        _ => source > target,
    }
}

/// Generated columns that are computed alike, from columns that both have.
fn alike(source: &HeldTable, target: &HeldTable) -> Vec<String> {
    let generated = source.columns.iter().filter(|column| column.generated);
    let alike = generated.filter(|column| target.column(&column.name) == Some(*column));
    alike.map(|column| column.name.clone()).collect()
}

fn fixed(platform: &Platform, target: &HeldTable) -> Vec<(String, String)> {
    let of = platform.fixed.iter().filter_map(|fixed| {
        let (table, column) = fixed.column.rsplit_once('.')?;
        let ours = table == target.plain() && target.column(column).is_some();
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

#[cfg(test)]
mod tests;

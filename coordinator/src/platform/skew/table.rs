//! One table of the platform: how its rows are carried, and what is told of those that are not.
use pgconvoy_proto::model::{Finding, HeldColumn, HeldTable, RowRule, Severity, Shape, Version};

use super::types::is_null;
use super::{Answers, Apart, FIXED_VALUES, Inquiry, Judged, Levels, Loss, fixed, is_fixed};

pub struct Judging<'a> {
    pub levels: &'a Levels<'a>,
    pub source: &'a HeldTable,
    pub inquiry: &'a Inquiry,
    pub answers: &'a Answers,
    pub force: bool,
}

impl Judging<'_> {
    fn lost(&self, code: &str, object: String, message: String) -> Finding {
        let severity = match self.inquiry.rule {
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

    pub fn no_table(&self) -> Option<Finding> {
        (self.answers.rows > 0).then(|| {
            let message = format!(
                "{} rows, and the target has no such table",
                self.answers.rows
            );
            self.lost("skew-table", self.source.plain(), message)
        })
    }

    pub fn shape(&self, target: &HeldTable, judged: &mut Judged) {
        let (source, platform) = (self.source, self.levels.platform);
        let mut filters: Vec<String> = Vec::new();
        let mut left_out: Vec<String> = Vec::new();
        let mut findings = Vec::new();
        for (apart, count) in self.inquiry.apart.iter().zip(&self.answers.apart) {
            if matches!(apart.loss, Loss::Column) {
                left_out.push(apart.name.clone());
            }
            match count {
                Some(0) => continue,
                Some(count) => findings.push(self.told(apart, *count)),
                None if self.answers.rows == 0 => continue,
                None => {
                    findings.push(self.unknown(apart));
                    continue;
                }
            }
            match &apart.loss {
                Loss::Column => {}
                Loss::Rows(filter) => filters.push(filter.clone()),
                Loss::Surplus(surplus) => filters.push(surplus.filter(source, target, &filters)),
            }
        }
        let required = required(source, target, &left_out);
        if !required.is_empty() {
            if self.answers.rows > 0 {
                let message = format!(
                    "{} rows have no place at the target: its column {} must be given, and the source has nothing for it",
                    self.answers.rows,
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

    fn told(&self, apart: &Apart, count: u64) -> Finding {
        let message = match apart.code {
            "skew-column" => {
                format!(
                    "{count} rows hold something in it, and the target's table has no such column"
                )
            }
            "skew-type" => format!(
                "{count} rows hold something in it, and the target's column is of a type that may not take it"
            ),
            "skew-labels" => format!(
                "{count} rows have a label that the target's type does not know: they are left out"
            ),
            "skew-check" => format!(
                "{count} rows do not fulfil this constraint, which the target alone has: they are left out"
            ),
            "skew-unique" => format!(
                "{count} rows have a key that another row has as well, which the target does not allow: they are left out"
            ),
            _ => format!(
                "{count} rows have none, and the target's column must have one: they are left out"
            ),
        };
        let (source, target) = apart.values.clone();
        self.lost(apart.code, self.object(apart), message)
            .values(source, target)
    }

    /// Whether it is fulfilled is seen when the rows arrive.
    fn unknown(&self, apart: &Apart) -> Finding {
        let (source, target) = apart.values.clone();
        let message = "the target alone has this constraint, and whether the source's rows fulfil it could not be looked at: one that does not \
                       stops the copy of its table";
        Finding::new(
            Severity::Warning,
            "skew-unknown",
            self.object(apart),
            message,
        )
        .values(source, target)
        .hint(self.remedy())
    }

    fn object(&self, apart: &Apart) -> String {
        let table = self.source.plain();
        match apart.code {
            "skew-check" | "skew-unique" => format!("{table}: {}", apart.name),
            _ => format!("{table}.{}", apart.name),
        }
    }

    /// Columns that have another value at the target than in these rows.
    pub fn fixed(&self) -> Vec<Finding> {
        let each = self.inquiry.fixed.iter().zip(&self.answers.fixed);
        let told = each
            .filter(|(_, count)| **count > 0)
            .map(|((column, value), count)| {
                let name = format!("{}.{column}", self.source.plain());
                let mut all = self.levels.platform.fixed.iter();
                let why = all.find(|fixed| fixed.column == name);
                let message = format!(
                    "{count} rows have another value than {value}, which they get at the target"
                );
                Finding::new(Severity::Warning, FIXED_VALUES, name, message)
                    .hint(why.map_or("", |fixed| &fixed.why))
            });
        told.collect()
    }

    pub fn encrypted(&self) -> Vec<Finding> {
        let each = self.inquiry.encrypted.iter().zip(&self.answers.encrypted);
        let told = each.filter(|(_, count)| **count > 0).map(|(column, count)| {
            Finding::new(
                Severity::Warning,
                "encrypted-values",
                format!("{}.{column}", self.source.plain()),
                format!("{count} values are encrypted by the service, with a key that is not in the database"),
            )
            .hint("give the target's service the same key, or these are worth nothing there")
        });
        told.collect()
    }
}

/// Columns that must be given at the target, and that the source does not have.
fn required(source: &HeldTable, target: &HeldTable, left_out: &[String]) -> Vec<String> {
    let missing = target.columns.iter().filter(|column| {
        let given = source
            .column(&column.name)
            .is_some_and(|c| !c.generated && !left_out.contains(&c.name));
        let default = column.default.as_deref();
        let has_default = default.is_some_and(|sql| !is_null(sql));
        let filled = has_default || column.identity || column.generated;
        column.not_null && !filled && !given
    });
    missing.map(|column| column.name.clone()).collect()
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

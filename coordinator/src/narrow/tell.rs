//! A row that differs, in words: which row, which columns, and the values where they were asked for.
use pgconvoy_proto::model::{Finding, Place, Severity, Table, Value};

use super::ByPlace;
use super::merge::Example;

/// A row as one end has it. No values: it was gone when it was read by its place.
#[derive(Clone, Copy)]
struct Side<'a> {
    end: &'static str,
    place: Place,
    values: Option<&'a [Value]>,
}

impl Side<'_> {
    fn place(&self) -> String {
        format!("ctid {} at the {}", self.place, self.end)
    }
}

pub fn finding(table: &Table, example: Example, source: &ByPlace, target: &ByPlace) -> Finding {
    let ours = |place| Side {
        end: "source",
        place,
        values: source.get(&place).map(Vec::as_slice),
    };
    let theirs = |place| Side {
        end: "target",
        place,
        values: target.get(&place).map(Vec::as_slice),
    };
    match example {
        Example::Changed { source, target } => changed(table, ours(source), theirs(target)),
        Example::Missing { source, count } => {
            let side = ours(source);
            let finding = lone(table, "row-missing", "missing at the target", side, count);
            finding.values(shown(table, side, None), "")
        }
        Example::Extra { target, count } => {
            let side = theirs(target);
            let finding = lone(table, "row-extra", "extra at the target", side, count);
            finding.values("", shown(table, side, None))
        }
    }
}

fn changed(table: &Table, ours: Side<'_>, theirs: Side<'_>) -> Finding {
    let what = match (ours.values, theirs.values) {
        (Some(ours), Some(theirs)) => {
            let columns: Vec<&str> = named(table, ours)
                .zip(theirs)
                .filter(|((_, our), their)| our.hash != their.hash)
                .map(|((name, _), _)| name)
                .collect();
            let verb = if columns.len() == 1 {
                "differs"
            } else {
                "differ"
            };
            format!("{} {verb}", columns.join(", "))
        }
        _ => "differed; it was written again while it was compared".into(),
    };
    let message = format!("{}: {what}", row(table, ours.values.or(theirs.values)));
    Finding::new(
        Severity::Difference,
        "row-changed",
        table.to_string(),
        message,
    )
    .values(
        shown(table, ours, theirs.values),
        shown(table, theirs, ours.values),
    )
    .hint(format!("{}, {}", ours.place(), theirs.place()))
}

/// A row that one end has alone.
fn lone(table: &Table, code: &str, what: &str, side: Side<'_>, count: u32) -> Finding {
    let times = match count {
        1 => String::new(),
        n => format!(" ({n} times)"),
    };
    let message = format!("{}: {what}{times}", row(table, side.values));
    Finding::new(Severity::Difference, code, table.to_string(), message).hint(side.place())
}

/// The row by its key.
fn row(table: &Table, values: Option<&[Value]>) -> String {
    let Some(values) = values.filter(|_| table.key_columns > 0) else {
        return "a row".into();
    };
    let key: Vec<String> = named(table, values)
        .take(table.key_columns)
        .map(|(name, value)| format!("{name}={}", text(value)))
        .collect();
    format!("row {}", key.join(", "))
}

/// What differs from the other end's values, all where there are none. Empty when values were not asked for.
fn shown(table: &Table, side: Side<'_>, other: Option<&[Value]>) -> String {
    let told: Vec<String> = named(table, side.values.unwrap_or_default())
        .enumerate()
        .skip(table.key_columns)
        .filter(|(at, (_, value))| {
            let other = other.and_then(|other| other.get(*at));
            value.text.is_some() && other.is_none_or(|other| other.hash != value.hash)
        })
        .map(|(_, (name, value))| format!("{name}={}", literal(value)))
        .collect();
    told.join(", ")
}

fn named<'a>(table: &'a Table, values: &'a [Value]) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let names = table.columns.iter().chain(&table.generated);
    names.map(String::as_str).zip(values)
}

fn text(value: &Value) -> &str {
    match value {
        Value { hash: None, .. } => "NULL",
        Value { text, .. } => text.as_deref().unwrap_or("(not shown)"),
    }
}

/// Quoted, so that the text NULL is not taken for none.
fn literal(value: &Value) -> String {
    match value.hash {
        None => "NULL".into(),
        Some(_) => format!("'{}'", text(value).replace('\'', "''")),
    }
}

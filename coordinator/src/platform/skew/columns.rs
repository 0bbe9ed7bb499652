//! Columns that the two ends do not have alike.
use pgconvoy_proto::model::{Count, HeldColumn, HeldTable, Platform};

use super::types::{fits, is_constant};
use super::{Apart, Loss, is_fixed, literal, quote};

pub fn apart(platform: &Platform, source: &HeldTable, target: &HeldTable) -> Vec<Apart> {
    let mut found = Vec::new();
    for column in source.columns.iter().filter(|column| !column.generated) {
        let name = format!("{}.{}", source.plain(), column.name);
        if platform.is_derived(&name) || is_fixed(platform, &name) {
            continue;
        }
        match target.column(&column.name) {
            None => found.push(Apart {
                count: Some(data(column)),
                code: "skew-column",
                name: column.name.clone(),
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
        count: Some(count),
        code,
        name: column.name.clone(),
        loss,
        values: values.clone(),
    };
    let alike = column.data_type == there.data_type || column.base() == there.base();
    if !alike && !fits(column.base(), there.base()) {
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

fn data(column: &HeldColumn) -> Count {
    Count::Data {
        column: column.name.clone(),
        default: column.default.clone().filter(|sql| is_constant(sql)),
    }
}

//! The order of columns: which of them have moved.
use std::collections::{HashMap, HashSet};

use pgconvoy_proto::model::{Catalog, SchemaObject};

/// Of columns the order counts, not the number: one that is missing does not move those behind it, and of those that both ends have, only
/// the fewest that explain another order are told as moved.
pub(super) fn columns(source: &mut Catalog, target: &mut Catalog) {
    let places = |catalog: &Catalog| -> HashMap<String, (String, u32)> {
        let placed = catalog.objects.iter();
        placed
            .filter_map(|o| Some((o.identity.clone(), (o.parent.clone(), position(o)?))))
            .collect()
    };
    let (at_source, at_target) = (places(source), places(target));
    let mut by_table: HashMap<&str, Vec<(u32, u32, &str)>> = HashMap::new();
    for (column, (table, here)) in &at_source {
        if let Some((_, there)) = at_target.get(column) {
            by_table
                .entry(table)
                .or_default()
                .push((*here, *there, column));
        }
    }
    let mut moved: HashMap<&str, [usize; 2]> = HashMap::new();
    for columns in by_table.values_mut() {
        columns.sort_unstable();
        let mut there: Vec<u32> = columns.iter().map(|(_, there, _)| *there).collect();
        let stays = longest_rise(&there);
        let order: Vec<u32> = there.clone();
        there.sort_unstable();
        for (at, (_, _, column)) in columns
            .iter()
            .enumerate()
            .filter(|(at, _)| !stays.contains(at))
        {
            let target = there.partition_point(|place| *place < order[at]);
            moved.insert(column, [at + 1, target + 1]);
        }
    }
    for (end, catalog) in [source, target].into_iter().enumerate() {
        for column in catalog.objects.iter_mut().filter(|o| position(o).is_some()) {
            match moved.get(column.identity.as_str()) {
                Some(places) => column
                    .properties
                    .insert("position".into(), places[end].to_string()),
                None => column.properties.remove("position"),
            };
        }
    }
}

/// Indexes of a longest rising subsequence, found by patience sorting.
fn longest_rise(values: &[u32]) -> HashSet<usize> {
    // Of each length the rise that ends lowest: where it ends.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(values.len());
    for (at, value) in values.iter().enumerate() {
        let length = ends.partition_point(|end| values[*end] < *value);
        before.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        match ends.get_mut(length) {
            Some(end) => *end = at,
            None => ends.push(at),
        }
    }
    std::iter::successors(ends.last().copied(), |at| before[*at]).collect()
}

fn position(object: &SchemaObject) -> Option<u32> {
    if object.kind != "column" {
        return None;
    }
    object.get("position")?.parse().ok()
}

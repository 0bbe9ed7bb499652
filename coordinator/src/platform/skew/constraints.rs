//! Constraints and unique indexes that the target's table has and the source's has not: rows that they would refuse are found before the copy.
use pgconvoy_proto::model::{
    Count, Demand, HeldColumn, HeldConstraint, HeldTable, Key, OTHER_ROWS, Platform,
};

use super::types::{is_constant, is_null};
use super::{Apart, Loss, is_fixed, quote};

/// `of_columns`: what is apart in columns; those that are left out have their default at the target.
pub fn apart(
    platform: &Platform,
    source: &HeldTable,
    target: &HeldTable,
    of_columns: &[Apart],
) -> Vec<Apart> {
    let left_out = of_columns
        .iter()
        .filter(|apart| matches!(apart.loss, Loss::Column))
        .map(|apart| apart.name.as_str());
    let both = Both {
        platform,
        source,
        target,
        left_out: left_out.collect(),
    };
    let only = target
        .constraints
        .iter()
        .filter(|own| !both.is_implied(own));
    only.filter_map(|own| both.apart(own)).collect()
}

struct Both<'a> {
    platform: &'a Platform,
    source: &'a HeldTable,
    target: &'a HeldTable,
    left_out: Vec<&'a str>,
}

impl Both<'_> {
    /// Rows that the source's constraints admit fulfil it.
    fn is_implied(&self, own: &HeldConstraint) -> bool {
        let known = self.source.constraints.iter();
        known
            .filter(|known| known.fulfilled)
            .any(|known| match (&known.demand, &own.demand) {
                (
                    Demand::Unique {
                        keys: narrow,
                        predicate: some,
                        nulls_equal: strict,
                    },
                    Demand::Unique {
                        keys: wide,
                        predicate,
                        nulls_equal,
                    },
                ) => {
                    let within = narrow.iter().all(|key| wide.contains(key));
                    within && (some.is_none() || some == predicate) && (*strict || !nulls_equal)
                }
                (known, own) => known == own,
            })
    }

    /// None: no row can fail.
    fn apart(&self, own: &HeldConstraint) -> Option<Apart> {
        let of = |count, code, loss| Apart {
            count,
            code,
            name: own.name.clone(),
            loss,
            values: (String::new(), own.definition.clone()),
        };
        match &own.demand {
            Demand::Check { sql, columns } => {
                let carried = columns.iter().filter(|name| self.is_carried(name)).count();
                // What every row gets at the target, its service has chosen.
                if carried == 0 {
                    return None;
                }
                let count = (carried == columns.len()).then(|| Count::Refused { by: sql.clone() });
                let fulfilled = format!("({sql}) IS NOT FALSE");
                Some(of(count, "skew-check", Loss::Rows(fulfilled)))
            }
            Demand::Unique {
                keys,
                predicate,
                nulls_equal,
            } => {
                let surplus = |keys| Surplus {
                    keys,
                    predicate: predicate.clone(),
                    nulls_equal: *nulls_equal,
                };
                let (count, surplus) = match self.keys(keys, *nulls_equal) {
                    Keys::Distinct => return None,
                    Keys::Unknown => (None, surplus(Vec::new())),
                    Keys::Of(keys) => {
                        let surplus = surplus(keys);
                        (Some(surplus.count()), surplus)
                    }
                };
                Some(of(count, "skew-unique", Loss::Surplus(surplus)))
            }
            Demand::Other => Some(of(None, "skew-check", Loss::Rows(String::new()))),
        }
    }

    /// The target's rows get the source's values.
    fn is_carried(&self, column: &str) -> bool {
        let name = format!("{}.{column}", self.source.plain());
        let there = self.source.column(column).is_some();
        there && !self.left_out.contains(&column) && !is_fixed(self.platform, &name)
    }

    /// What makes a key of the target's, of the source's columns.
    fn keys(&self, keys: &[Key], nulls_equal: bool) -> Keys {
        let mut known = Vec::new();
        for key in keys {
            let Some(column) = &key.column else {
                known.push(key.sql.clone());
                continue;
            };
            if self.is_carried(column) {
                known.push(key.sql.clone());
                continue;
            }
            let own = self.target.column(column);
            let filled = own.is_some_and(|own| own.generated || own.identity);
            let name = format!("{}.{column}", self.target.plain());
            if filled || self.platform.is_derived(&name) {
                return Keys::Unknown;
            }
            let default = own.and_then(|own: &HeldColumn| own.default.as_deref());
            match default.filter(|sql| !is_null(sql)) {
                None if nulls_equal => {}
                // Nulls are not alike.
                None => return Keys::Distinct,
                // One value for all rows.
                Some(default) if is_constant(default) => {}
                Some(_) => return Keys::Unknown,
            }
        }
        match known.is_empty() {
            true => Keys::Unknown,
            false => Keys::Of(known),
        }
    }
}

enum Keys {
    /// No two rows can have the same.
    Distinct,
    Unknown,
    /// As SQL.
    Of(Vec<String>),
}

/// Rows of one key more than one.
pub struct Surplus {
    keys: Vec<String>,
    predicate: Option<String>,
    nulls_equal: bool,
}

impl Surplus {
    fn count(&self) -> Count {
        Count::Surplus {
            keys: self.keys.clone(),
            predicate: self.predicate.clone(),
            nulls_equal: self.nulls_equal,
        }
    }

    /// Holds for the first row of each key, by a key of the table's own that both ends have; `others`: rows that do not fulfil these are left out anyway. Names
    /// within the inner query are its own: what else is named is of the row that is asked about.
    pub fn filter(&self, source: &HeldTable, target: &HeldTable, others: &[String]) -> String {
        let order = order(source, target);
        let inner = |of: &[String], prefix: &str| -> Vec<String> {
            let named = of.iter().enumerate();
            named
                .map(|(at, sql)| format!("{sql} AS {prefix}{at}"))
                .collect()
        };
        let columns = [
            inner(&self.keys, "pgconvoy_key"),
            inner(&order, "pgconvoy_order"),
        ]
        .concat();
        let conditions: Vec<String> = others
            .iter()
            .chain(&self.predicate)
            .map(|condition| format!("({condition})"))
            .collect();
        let conditions = match conditions.is_empty() {
            true => String::new(),
            false => format!(" WHERE {}", conditions.join(" AND ")),
        };
        let equal = match self.nulls_equal {
            true => "IS NOT DISTINCT FROM",
            false => "=",
        };
        let same = self.keys.iter().enumerate();
        let mut same: Vec<String> = same
            .map(|(at, sql)| format!("pgconvoy_key{at} {equal} {sql}"))
            .collect();
        same.extend(self.predicate.iter().map(|sql| format!("({sql})")));
        let before: Vec<String> = (0..order.len())
            .map(|at| format!("pgconvoy_order{at}"))
            .collect();
        format!(
            "NOT EXISTS (SELECT FROM (SELECT {} FROM {}.{}{conditions}) {OTHER_ROWS} WHERE {} AND ({}) < ({}))",
            columns.join(", "),
            quote(&source.schema),
            quote(&source.name),
            same.join(" AND "),
            before.join(", "),
            order.join(", ")
        )
    }
}

/// What no two rows of the source have alike: columns of a key that must be given and that both ends have, else where a row lies.
fn order(source: &HeldTable, target: &HeldTable) -> Vec<String> {
    let given = |key: &Key| {
        let Some(name) = &key.column else {
            return false;
        };
        let column = source.column(name);
        column.is_some_and(|column| column.not_null) && target.column(name).is_some()
    };
    let mut whole = source
        .constraints
        .iter()
        .filter(|own| own.fulfilled)
        .filter_map(|own| match &own.demand {
            Demand::Unique {
                keys,
                predicate: None,
                ..
            } if keys.iter().all(given) => Some(keys),
            _ => None,
        });
    match whole.next() {
        Some(keys) => keys.iter().map(|key| key.sql.clone()).collect(),
        None => vec!["ctid".to_owned()],
    }
}

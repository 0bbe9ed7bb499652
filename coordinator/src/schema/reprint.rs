//! Definitions that the two servers print differently: the target prints the source's as it would print its own.
use std::collections::{HashMap, HashSet};

use pgconvoy_proto::model::{
    COLLATION, Catalog, Definition, Finding, QUERIES, SchemaObject, Severity,
};
use pgconvoy_proto::{names, wire};

use crate::compare::{Change, Difference};
use crate::ends::{Ends, retry, said};
use crate::events::Reporter;

/// Definitions in one message, bytes; one alone may be larger.
const BATCH_BYTES: usize = 1 << 20;

pub struct Printer<'a> {
    ends: &'a Ends,
    /// Of a rehearsal the target is its scratch database.
    migration: &'a str,
    /// As the source's server prints them.
    definitions: Vec<Definition>,
    one_major: bool,
    reporter: &'a Reporter,
}

impl<'a> Printer<'a> {
    /// Of catalogs as the agents describe them.
    pub fn of(
        ends: &'a Ends,
        migration: &'a str,
        source: &Catalog,
        target: &Catalog,
        reporter: &'a Reporter,
    ) -> Self {
        Self {
            ends,
            migration,
            definitions: definitions(source),
            one_major: source.major() == target.major(),
            reporter,
        }
    }

    /// Forgets changes of definitions that are the target's own when it prints the source's. What it cannot print, a server of another
    /// major, is told as not compared.
    pub async fn settle(
        &self,
        differences: Vec<Difference>,
    ) -> anyhow::Result<(Vec<Difference>, Vec<Finding>)> {
        let printed = self.reprinted(&differences).await?;
        Ok(with_printed(differences, &printed, self.one_major))
    }

    /// By the object's name: the source's definition as the target prints it, of those that differ. Those that it does not take are not
    /// among them.
    async fn reprinted(
        &self,
        differences: &[Difference],
    ) -> anyhow::Result<HashMap<String, String>> {
        let differing: HashSet<String> = differences.iter().map(|d| d.object().name()).collect();
        let wanted = self
            .definitions
            .iter()
            .filter(|q| differing.contains(&q.object))
            .cloned();
        let mut all = HashMap::new();
        for batch in batches(wanted) {
            let request = wire::ReprintRequest {
                definitions: batch,
                migration: self.migration.to_owned(),
            };
            let printed = retry(self.reporter, "printing definitions at the target", || {
                let (mut target, request) = (self.ends.target.clone(), request.clone());
                async move { Ok(target.reprint(request).await?.into_inner().definitions) }
            })
            .await
            .map_err(said("target"))?;
            all.extend(printed.into_iter().map(Definition::from).map(|printed| {
                let query = names::value(DEFINITION, &printed.query);
                (printed.object, query)
            }));
        }
        Ok(all)
    }
}

const DEFINITION: &str = "definition";

/// The property that servers print in their own words: a view's query; the locale of an ICU collation, of which PostgreSQL 16 makes a
/// language tag and 15 keeps what was written.
fn printed_property(object: &SchemaObject) -> Option<&'static str> {
    match object.kind.as_str() {
        kind if QUERIES.contains(&kind) => Some(DEFINITION),
        COLLATION if object.get("provider") == Some("icu") => Some("locale"),
        _ => None,
    }
}

fn definitions(source: &Catalog) -> Vec<Definition> {
    let definition = |object: &SchemaObject| {
        Some(Definition {
            object: names::identity(&object.name()),
            query: object.get(printed_property(object)?)?.to_owned(),
        })
    };
    source.objects.iter().filter_map(definition).collect()
}

fn batches(definitions: impl Iterator<Item = Definition>) -> Vec<Vec<wire::Definition>> {
    let mut batches: Vec<Vec<wire::Definition>> = Vec::new();
    let mut bytes = BATCH_BYTES;
    for definition in definitions {
        let more = definition.object.len() + definition.query.len();
        if bytes + more > BATCH_BYTES {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += more;
        if let Some(batch) = batches.last_mut() {
            batch.push(definition.into());
        }
    }
    batches
}

fn with_printed(
    differences: Vec<Difference>,
    printed: &HashMap<String, String>,
    one_major: bool,
) -> (Vec<Difference>, Vec<Finding>) {
    let mut unclear = Vec::new();
    let mut left = Vec::new();
    for mut difference in differences {
        if let Difference::Differs {
            source, changes, ..
        } = &mut difference
            && let Some(property) = printed_property(source)
        {
            let name = source.name();
            let own = printed.get(&name);
            changes.retain(|change| match own {
                _ if change.property != property => true,
                Some(own) => Some(own) != change.target.as_ref(),
                None if one_major => true,
                None => {
                    unclear.push(not_compared(&name, change));
                    false
                }
            });
            if changes.is_empty() {
                continue;
            }
        }
        left.push(difference);
    }
    (left, unclear)
}

fn not_compared(name: &str, change: &Change) -> Finding {
    let message =
        "servers of two majors print it differently, and the target did not take the source's text";
    let (source, target) = (change.source.clone(), change.target.clone());
    Finding::new(Severity::Info, "definition-not-compared", name, message)
        .values(source.unwrap_or_default(), target.unwrap_or_default())
}

//! Owners, grants, comments and security labels of large objects: a schema-only archive has none of them.
use pgconvoy_agent_core::inventory::large_objects;
use pgconvoy_agent_core::session::{Session, quote_ident, quote_literal};
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{Access, Finding, LargeObjects, Note, Oid, Severity};
use tonic::Status;

use super::access::{self, Among};
use super::refusal;

/// Objects that are looked up and changed together.
const TOGETHER: i64 = 500;
/// Ranges that are looked up together: each may hold one object, or millions.
const RANGES_TOGETHER: usize = 500;

/// Makes owners and grants those of the source. What is refused for many objects alike is told once.
pub async fn own(
    session: &Session,
    source_version: u32,
    all: &[LargeObjects],
) -> Result<Vec<Finding>, Status> {
    let mut refused = Refused::default();
    for alike in all {
        for ranges in alike.ranges.chunks(RANGES_TOGETHER) {
            let mut next = Some(0);
            while let Some(from) = next {
                let oids = large_objects::in_ranges(session, ranges, from, TOGETHER)
                    .await
                    .map_err(|error| status::postgres("looking up large objects", &error))?;
                refused.add(own_some(session, source_version, alike, &oids).await?);
                next = oids.last().and_then(|oid| oid.checked_add(1));
            }
        }
    }
    Ok(refused.findings())
}

async fn own_some(
    session: &Session,
    source_version: u32,
    alike: &LargeObjects,
    oids: &[Oid],
) -> Result<Vec<Finding>, Status> {
    let wanted = |oid: &Oid| large_objects::entry(*oid, alike.owner.clone(), alike.grants.clone());
    let wanted: Vec<Access> = oids.iter().map(wanted).collect();
    let wanted: Vec<&Access> = wanted.iter().collect();
    access::apply(session, source_version, Among::LargeObjects(oids), &wanted).await
}

/// Findings that differ in nothing but the object: the first of them, and how many more there are.
#[derive(Default)]
struct Refused(Vec<(Finding, u64)>);

impl Refused {
    fn add(&mut self, findings: Vec<Finding>) {
        for finding in findings {
            let alike = |known: &&mut (Finding, u64)| {
                (&known.0.code, &known.0.message, &known.0.source_value)
                    == (&finding.code, &finding.message, &finding.source_value)
            };
            match self.0.iter_mut().find(alike) {
                Some((_, more)) => *more += 1,
                None => self.0.push((finding, 0)),
            }
        }
    }

    fn findings(self) -> Vec<Finding> {
        let told = |(mut finding, more): (Finding, u64)| {
            if more > 0 {
                finding.message += &format!("; so with {more} more large objects");
            }
            finding
        };
        self.0.into_iter().map(told).collect()
    }
}

pub async fn note(session: &Session, notes: &[Note]) -> Result<Vec<Finding>, Status> {
    let mut findings = Vec::new();
    for note in notes {
        let text = quote_literal(&note.text);
        let (code, statement) = match &note.provider {
            None => (
                "comment-not-kept",
                format!("COMMENT ON {} IS {text}", note.on),
            ),
            Some(provider) => (
                "security-label-not-kept",
                format!(
                    "SECURITY LABEL FOR {} ON {} IS {text}",
                    quote_ident(provider),
                    note.on
                ),
            ),
        };
        if let Err(error) = session.batch_execute(&statement).await {
            let object = note.on.to_lowercase();
            findings.push(refusal(Severity::Warning, code, object, &error)?);
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_alike_is_told_once() {
        let refusal = |oid: u32, message: &str| {
            let object = format!("large object {oid}");
            Finding::new(Severity::Warning, "owner-not-kept", object, message)
        };
        let mut refused = Refused::default();
        refused.add(vec![refusal(1, "no role"), refusal(2, "denied")]);
        refused.add(vec![refusal(3, "no role"), refusal(4, "no role")]);
        let told = refused.findings();
        let told: Vec<(&str, &str)> = told
            .iter()
            .map(|finding| (finding.object.as_str(), finding.message.as_str()))
            .collect();
        let expected = [
            ("large object 1", "no role; so with 2 more large objects"),
            ("large object 2", "denied"),
        ];
        assert_eq!(told, expected);
    }
}

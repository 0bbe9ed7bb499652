//! The questions, on their way to both agents at once.
use std::collections::BTreeMap;
use std::time::Instant;

use pgconvoy_proto::model::{
    AccessAnswer, AccessRules, AskedTable, Identity, ProbeAsked, Probed, RightsAsked, RoleRights,
    Sample, SampleAsked, parse_json, to_json,
};
use pgconvoy_proto::wire;

use crate::digest::Held;
use crate::ends::{Ends, retry, said};
use crate::events::Reporter;

/// Tables of one question to an agent.
pub const AT_ONCE: usize = 200;

pub struct Asker<'a> {
    pub ends: &'a Ends,
    pub held: &'a Held,
    pub rules: &'a AccessRules,
    pub migration: &'a str,
    pub reporter: &'a Reporter,
    /// What has not been asked by then is told.
    pub until: Instant,
}

impl Asker<'_> {
    pub async fn sample(&self, tables: &[AskedTable]) -> anyhow::Result<Sample> {
        let names = tables.iter().map(|t| (t.schema.clone(), t.name.clone()));
        let asked = to_json(&SampleAsked {
            rules: self.rules.clone(),
            tables: names.collect(),
        });
        let answer = retry(self.reporter, "a sample of users", || {
            let mut source = self.ends.source.clone();
            let request = wire::SampleUsersRequest {
                asked: asked.clone(),
                migration: self.held.key.clone(),
                snapshot: self.held.snapshot.clone(),
            };
            async move { source.sample_users(request).await }
        });
        Ok(parse_json(
            &answer.await.map_err(said("source"))?.into_inner().sample,
        )?)
    }

    /// By role, at the source and at the target.
    pub async fn rights(
        &self,
        roles: &[String],
        tables: &[AskedTable],
    ) -> anyhow::Result<BTreeMap<String, (RoleRights, RoleRights)>> {
        let mut all: BTreeMap<String, (RoleRights, RoleRights)> = BTreeMap::new();
        for some in tables.chunks(AT_ONCE) {
            let asked = to_json(&RightsAsked {
                roles: roles.to_vec(),
                tables: some.to_vec(),
            });
            let (source, target) =
                tokio::try_join!(self.rights_at_source(&asked), self.rights_at_target(&asked))?;
            anyhow::ensure!(
                source.len() == roles.len() && target.len() == roles.len(),
                "an agent did not tell the rights of every role"
            );
            for (role, (source, target)) in roles.iter().zip(source.into_iter().zip(target)) {
                let both = all.entry(role.clone()).or_default();
                for (of, more) in [(&mut both.0, source), (&mut both.1, target)] {
                    of.refused = more.refused;
                    of.tables.extend(more.tables);
                }
            }
        }
        Ok(all)
    }

    async fn rights_at_source(&self, asked: &str) -> anyhow::Result<Vec<RoleRights>> {
        let answer = retry(self.reporter, "rights at the source", || {
            let mut source = self.ends.source.clone();
            let request = wire::RightsRequest {
                asked: asked.to_owned(),
                migration: self.held.key.clone(),
                snapshot: self.held.snapshot.clone(),
            };
            async move { source.rights(request).await }
        });
        Ok(parse_json(
            &answer.await.map_err(said("source"))?.into_inner().rights,
        )?)
    }

    async fn rights_at_target(&self, asked: &str) -> anyhow::Result<Vec<RoleRights>> {
        let answer = retry(self.reporter, "rights at the target", || {
            let mut target = self.ends.target.clone();
            let request = wire::RightsRequest {
                asked: asked.to_owned(),
                migration: self.migration.to_owned(),
                snapshot: String::new(),
            };
            async move { target.rights(request).await }
        });
        Ok(parse_json(
            &answer.await.map_err(said("target"))?.into_inner().rights,
        )?)
    }

    /// One identity's answers at the source and at the target, in the order of the tables.
    pub async fn probe(
        &self,
        identity: &Identity,
        tables: Vec<AskedTable>,
    ) -> anyhow::Result<(Vec<AccessAnswer>, Vec<AccessAnswer>)> {
        let left = self.until.saturating_duration_since(Instant::now());
        let count = tables.len();
        let asked = to_json(&ProbeAsked {
            role: identity.role.clone(),
            settings: self.rules.settings_of(identity),
            tables,
            rows: self.rules.rows,
            bytes: self.rules.bytes,
            timeout_ms: self.rules.timeout_ms,
            budget_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
        });
        let (source, target) =
            tokio::try_join!(self.probe_source(&asked), self.probe_target(&asked))?;
        Ok((
            answers(source, count, identity, "source")?,
            answers(target, count, identity, "target")?,
        ))
    }

    async fn probe_source(&self, asked: &str) -> anyhow::Result<Probed> {
        let answer = retry(self.reporter, "what a user sees at the source", || {
            let mut source = self.ends.source.clone();
            let request = wire::ProbeAccessRequest {
                asked: asked.to_owned(),
                migration: self.held.key.clone(),
                snapshot: self.held.snapshot.clone(),
            };
            async move { source.probe_access(request).await }
        });
        Ok(parse_json(
            &answer.await.map_err(said("source"))?.into_inner().probed,
        )?)
    }

    async fn probe_target(&self, asked: &str) -> anyhow::Result<Probed> {
        let answer = retry(self.reporter, "what a user sees at the target", || {
            let mut target = self.ends.target.clone();
            let request = wire::ProbeAccessRequest {
                asked: asked.to_owned(),
                migration: self.migration.to_owned(),
                snapshot: String::new(),
            };
            async move { target.probe_access(request).await }
        });
        Ok(parse_json(
            &answer.await.map_err(said("target"))?.into_inner().probed,
        )?)
    }
}

/// That the role can be had was seen before; a setting that the platform states may still be refused.
fn answers(
    probed: Probed,
    count: usize,
    identity: &Identity,
    agent: &str,
) -> anyhow::Result<Vec<AccessAnswer>> {
    match probed {
        Probed::Answers(answers) if answers.len() == count => Ok(answers),
        Probed::Answers(answers) => {
            anyhow::bail!(
                "the {agent} agent answered {} of {count} questions",
                answers.len()
            )
        }
        Probed::NotAllowed(why) => anyhow::bail!(
            "at the {agent} no session can be had as {identity}: {why}: see the settings in the platform's [access]"
        ),
    }
}

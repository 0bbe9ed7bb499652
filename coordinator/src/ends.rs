//! The two agents, as the coordinator calls them.
use std::future::Future;
use std::time::Duration;

use anyhow::anyhow;
use pgconvoy_proto::channel;
use pgconvoy_proto::facts::{BuiltIn, SourceFacts, TargetFacts};
use pgconvoy_proto::identity::{Identity, Role};
use pgconvoy_proto::model::{Finding, RoleChoice, Selection, parse_json, to_json};
use pgconvoy_proto::survey::{SourceSurvey, TargetSurvey};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::source_client::SourceClient;
use pgconvoy_proto::wire::target_client::TargetClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::cli;
use crate::events::{Event, Reporter};

/// A message that the coordinator receives: facts and steps of large schemas.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// One Channel is one connection: calls that carry little share it.
#[derive(Clone)]
pub struct Ends {
    pub source: SourceClient<Channel>,
    pub target: TargetClient<Channel>,
    /// How the source agent reaches the target agent.
    pub target_address: String,
}

/// A wrong use of the command line that clap cannot see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

pub fn identity(ends: &cli::Ends) -> anyhow::Result<Identity> {
    Ok(Identity::load(&ends.identity)?.require(Role::Coordinator)?)
}

pub async fn connect(ends: &cli::Ends) -> anyhow::Result<Ends> {
    let address = ends
        .source
        .as_deref()
        .ok_or_else(|| Usage("this command needs --source https://HOST:PORT".into()))?;
    let identity = identity(ends)?;
    let source = channel::connect(address, &identity, Role::Source)
        .await
        .map_err(|error| anyhow!("the source agent: {error}"))?;
    Ok(Ends {
        source: SourceClient::new(source).max_decoding_message_size(MAX_MESSAGE_BYTES),
        target: target(ends).await?,
        target_address: ends
            .target_from_source
            .clone()
            .unwrap_or_else(|| ends.target.clone()),
    })
}

/// For commands that the ledger alone answers.
pub async fn target(ends: &cli::Ends) -> anyhow::Result<TargetClient<Channel>> {
    let channel = channel::connect(&ends.target, &identity(ends)?, Role::Target)
        .await
        .map_err(|error| anyhow!("the target agent: {error}"))?;
    Ok(TargetClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES))
}

/// What an agent answered, in words; which agent.
pub fn said(agent: &'static str) -> impl Fn(Status) -> anyhow::Error {
    move |status| {
        let text = channel::explain(&status).unwrap_or_else(|| status.message().to_owned());
        anyhow!("the {agent} agent: {text}")
    }
}

impl Ends {
    pub async fn source_facts(
        &mut self,
        selection: &Selection,
        target_major: u32,
        roles: RoleChoice,
    ) -> anyhow::Result<SourceFacts> {
        let request = wire::SourceFactsRequest {
            selection: Some(selection.clone().into()),
            target_major,
            roles: wire::RoleChoice::from(roles).into(),
        };
        let answer = self.source.facts(request).await.map_err(said("source"))?;
        Ok(parse_json(&answer.into_inner().facts)?)
    }

    /// `managed`: globs, schemas whose objects do not make the target one that is in use.
    pub async fn target_facts(&mut self, managed: &[String]) -> anyhow::Result<TargetFacts> {
        let request = wire::TargetFactsRequest {
            managed_schemas: managed.to_vec(),
        };
        let answer = self.target.facts(request).await.map_err(said("target"))?;
        Ok(parse_json(&answer.into_inner().facts)?)
    }

    pub async fn source_survey(
        &mut self,
        selection: &Selection,
        sample_ms: u32,
    ) -> anyhow::Result<SourceSurvey> {
        let request = wire::SourceSurveyRequest {
            selection: Some(selection.clone().into()),
            sample_ms,
        };
        let answer = self.source.survey(request).await.map_err(said("source"))?;
        Ok(parse_json(&answer.into_inner().survey)?)
    }

    pub async fn target_survey(&mut self) -> anyhow::Result<TargetSurvey> {
        let request = wire::TargetSurveyRequest {};
        let answer = self.target.survey(request).await.map_err(said("target"))?;
        Ok(parse_json(&answer.into_inner().survey)?)
    }

    /// What the target lacks of tables that a sync, or whoever reads them, is about; see Target.PlanSync.
    pub async fn plan_sync(
        &mut self,
        request: wire::PlanSyncRequest,
    ) -> anyhow::Result<Vec<Finding>> {
        let answer = self.target.plan_sync(request).await;
        let findings = answer.map_err(said("target"))?.into_inner().findings;
        let findings = findings.into_iter().map(Finding::try_from);
        Ok(findings.collect::<Result<_, _>>()?)
    }

    /// Those that the target's server does not know.
    pub async fn unknown(&mut self, built_ins: &[BuiltIn]) -> anyhow::Result<Vec<BuiltIn>> {
        if built_ins.is_empty() {
            return Ok(Vec::new());
        }
        let request = wire::UnknownRequest {
            built_ins: to_json(&built_ins),
        };
        let answer = self.target.unknown(request).await.map_err(said("target"))?;
        answer
            .into_inner()
            .positions
            .into_iter()
            .map(|at| {
                let asked = built_ins.get(at as usize).cloned();
                asked
                    .ok_or_else(|| anyhow!("the target agent names an object it was not asked for"))
            })
            .collect()
    }

    pub async fn measure_link(&mut self) -> anyhow::Result<wire::MeasureLinkResponse> {
        let request = wire::MeasureLinkRequest {
            target: self.target_address.clone(),
        };
        Ok(self
            .source
            .measure_link(request)
            .await
            .map_err(said("source"))?
            .into_inner())
    }
}

const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Calls until it goes well, for what may pass by itself: a connection that broke, a deadlock, a damaged chunk. Every call is
/// idempotent (the proto files say so).
pub async fn retry<T, F>(
    reporter: &Reporter,
    what: &str,
    mut call: impl FnMut() -> F,
) -> Result<T, Status>
where
    F: Future<Output = Result<T, Status>>,
{
    let mut pause = FIRST_PAUSE;
    for attempt in 1.. {
        match call().await {
            Err(status) if may_pass(&status) && attempt < ATTEMPTS => {
                let reason =
                    channel::explain(&status).unwrap_or_else(|| status.message().to_owned());
                reporter.emit(&Event::Retry {
                    what: what.into(),
                    attempt,
                    reason,
                });
                // A pause between attempts, not a wait for something: the other end needs time to come back.
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            ended => return ended,
        }
    }
    unreachable!("the last attempt returns")
}

fn may_pass(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Aborted | Code::DataLoss
    ) || channel::explain(status).is_some()
}

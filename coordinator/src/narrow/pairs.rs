//! The pairs of both ends, merged as they come: memory does not depend on how many there are.
use std::vec::IntoIter;

use anyhow::bail;
use pgconvoy_proto::model::{Pair, required};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::pairs_event::Event;
use tokio_stream::StreamExt;
use tonic::Streaming;

use super::merge::Differences;
use crate::ends::said;

/// The sorted pairs that one agent sends.
pub struct Pairs {
    agent: &'static str,
    events: Streaming<wire::PairsEvent>,
    /// Of the message at hand; the first one is `next`.
    rest: IntoIter<Pair>,
    next: Option<Pair>,
}

impl Pairs {
    /// Waits for the first of them: until the agent has read its table.
    pub async fn new(
        agent: &'static str,
        events: Streaming<wire::PairsEvent>,
    ) -> anyhow::Result<Self> {
        let mut pairs = Self {
            agent,
            events,
            rest: Vec::new().into_iter(),
            next: None,
        };
        pairs.advance().await?;
        Ok(pairs)
    }

    fn key(&self) -> Option<u128> {
        self.next.map(|pair| pair.key)
    }

    /// The pairs of `key`, if it is the next one.
    async fn take(&mut self, key: u128) -> anyhow::Result<Vec<Pair>> {
        let mut pairs = Vec::new();
        while let Some(pair) = self.next.filter(|pair| pair.key == key) {
            pairs.push(pair);
            self.advance().await?;
        }
        Ok(pairs)
    }

    async fn advance(&mut self) -> anyhow::Result<()> {
        let before = self.next;
        loop {
            self.next = self.rest.next();
            if self.next.is_some() {
                break;
            }
            let Some(event) = self.events.next().await else {
                return Ok(());
            };
            match required(event.map_err(said(self.agent))?.event, "event")? {
                Event::Progress(_) => {}
                Event::Pairs(packed) => {
                    self.rest = Pair::unpack_all(&packed)?.collect::<Vec<_>>().into_iter();
                }
            }
        }
        if self.next < before {
            bail!("the {} agent sent pairs out of order", self.agent);
        }
        Ok(())
    }
}

/// Counts the rows that differ, and keeps the first ones.
pub async fn merge(
    mut source: Pairs,
    mut target: Pairs,
    keep: usize,
) -> anyhow::Result<Differences> {
    let mut differences = Differences::new(keep);
    loop {
        let key = match (source.key(), target.key()) {
            (Some(ours), Some(theirs)) => ours.min(theirs),
            (Some(key), None) | (None, Some(key)) => key,
            (None, None) => return Ok(differences),
        };
        let ours = source.take(key).await?;
        differences.add(ours, target.take(key).await?);
    }
}

//! Which files there are, at either end. The lists are in memory: some 300 bytes for each file.
use std::collections::HashMap;

use pgconvoy_proto::model::object::{Object, ObjectEntry};
use pgconvoy_proto::model::required;
use pgconvoy_proto::wire;
use tokio_stream::StreamExt;

use super::Carrier;
use crate::ends::said;

#[derive(Clone, Debug)]
pub struct AtSource {
    pub object: Object,
    /// As the row says.
    pub bytes: u64,
    pub mark: String,
}

#[derive(Clone, Debug)]
pub struct AtTarget {
    /// There is a row.
    pub present: bool,
    /// And it is of the file that the entry is about.
    pub intact: bool,
    pub entry: Option<ObjectEntry>,
}

impl Carrier {
    pub async fn at_source(&self) -> anyhow::Result<Vec<AtSource>> {
        let request = wire::SourceObjectsRequest {
            migration: self.held.key.clone(),
            snapshot: self.held.snapshot.clone(),
            filter: self.rows.filter.clone(),
        };
        let mut source = self.ends.source.clone();
        let sent = source.list_objects(request).await.map_err(said("source"))?;
        let mut sent = sent.into_inner();
        let mut found = Vec::new();
        while let Some(some) = sent.next().await {
            for object in some.map_err(said("source"))?.objects {
                found.push(AtSource {
                    object: required(object.object, "object")?.try_into()?,
                    bytes: object.bytes,
                    mark: object.mark,
                });
            }
        }
        Ok(found)
    }

    /// `mend`: rows that were loaded anew get their file's version back first.
    pub async fn at_target(&self, mend: bool) -> anyhow::Result<HashMap<Object, AtTarget>> {
        let request = wire::TargetObjectsRequest {
            migration: self.migration.clone(),
            mend,
        };
        let mut target = self.ends.target.clone();
        let sent = target.list_objects(request).await.map_err(said("target"))?;
        let mut sent = sent.into_inner();
        let mut found = HashMap::new();
        while let Some(some) = sent.next().await {
            for object in some.map_err(said("target"))?.objects {
                let name = required(object.object, "object")?.try_into()?;
                let at = AtTarget {
                    present: object.present,
                    intact: object.intact,
                    entry: object.entry.map(TryInto::try_into).transpose()?,
                };
                found.insert(name, at);
            }
        }
        Ok(found)
    }
}

//! Files read through the API for their digests: what is proven of a file is what its own end gives back.
use std::sync::Arc;

use pgconvoy_proto::model::object::{FileDigest, FileDigester, Object};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::read_objects_event::Event;
use tokio::sync::mpsc;
use tonic::Status;

use super::{Download, Error, Storage};
use crate::progress::{Counters, REPORT_EVERY};
use crate::status;

/// Reads one after another and sends what each is, after `keep` has it.
pub async fn read_objects<F>(
    storage: &Storage,
    objects: Vec<Object>,
    events: mpsc::Sender<Result<wire::ReadObjectsEvent, Status>>,
    keep: impl Fn(Object, Option<FileDigest>) -> F,
) -> Result<(), Status>
where
    F: Future<Output = Result<(), Status>> + Send,
{
    let counters = Arc::new(Counters::default());
    let send = async |event| {
        let event = wire::ReadObjectsEvent { event: Some(event) };
        // A caller that has left takes the task with it.
        events.send(Ok(event)).await.ok();
    };
    let mut tick = tokio::time::interval(REPORT_EVERY);
    for object in objects {
        let file = {
            let mut reading = std::pin::pin!(digest(storage, &object, &counters));
            loop {
                tokio::select! {
                    read = &mut reading => break read,
                    _ = tick.tick() => send(Event::Progress(counters.read().into())).await,
                }
            }
        }
        .map_err(|error| status::storage(&format!("reading {object}"), error))?;
        keep(object.clone(), file).await?;
        send(Event::Read(wire::ObjectRead {
            object: Some(object.into()),
            file: file.map(Into::into),
        }))
        .await;
    }
    Ok(())
}

/// None: there is no such file.
async fn digest(
    storage: &Storage,
    object: &Object,
    counters: &Counters,
) -> Result<Option<FileDigest>, Error> {
    let mut download = match Download::open(storage, object).await {
        Ok(download) => download,
        Err(Error::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut digester = FileDigester::default();
    while let Some(data) = download.next().await? {
        counters.add(0, data.len() as u64, 0);
        digester.feed(&data);
    }
    Ok(Some(digester.finish()))
}

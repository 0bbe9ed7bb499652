//! Both databases as their agents describe them.
use pgconvoy_proto::model::{Catalog, Selection, required};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::describe_item::Item;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use crate::ends::{Ends, retry, said};
use crate::events::Reporter;

/// What all of the selections admit, of the source and of the target. `migration`: of a rehearsal the target is its scratch database.
pub async fn both(
    ends: &Ends,
    selections: &[&Selection],
    migration: &str,
    reporter: &Reporter,
) -> anyhow::Result<(Catalog, Catalog)> {
    let selections = selections.iter().map(|s| (*s).clone().into());
    let request = wire::DescribeRequest {
        selections: selections.collect(),
        salt: salt().into(),
        migration: migration.to_owned(),
    };
    tokio::try_join!(
        at_source(ends, &request, reporter),
        at_target(ends, &request, reporter)
    )
}

/// Nobody who sees the digests of two comparisons can tell whether a secret has changed between them.
fn salt() -> Vec<u8> {
    let random = [uuid::Uuid::now_v7(), uuid::Uuid::now_v7()];
    random.iter().flat_map(|id| *id.as_bytes()).collect()
}

async fn at_source(
    ends: &Ends,
    request: &wire::DescribeRequest,
    reporter: &Reporter,
) -> anyhow::Result<Catalog> {
    retry(reporter, "describing the source", || {
        let (mut source, request) = (ends.source.clone(), request.clone());
        async move { catalog(source.describe(request).await?.into_inner()).await }
    })
    .await
    .map_err(said("source"))
}

async fn at_target(
    ends: &Ends,
    request: &wire::DescribeRequest,
    reporter: &Reporter,
) -> anyhow::Result<Catalog> {
    retry(reporter, "describing the target", || {
        let (mut target, request) = (ends.target.clone(), request.clone());
        async move { catalog(target.describe(request).await?.into_inner()).await }
    })
    .await
    .map_err(said("target"))
}

async fn catalog(
    mut items: impl Stream<Item = Result<wire::DescribeItem, Status>> + Unpin,
) -> Result<Catalog, Status> {
    let mut catalog = Catalog::default();
    while let Some(item) = items.next().await {
        match required(item?.item, "description")? {
            Item::Header(header) => catalog.version = header.server_version,
            Item::Objects(some) => {
                for object in some.objects {
                    catalog.objects.push(object.try_into()?);
                }
            }
        }
    }
    if catalog.version == 0 {
        return Err(Status::unavailable("the description has no header"));
    }
    Ok(catalog)
}

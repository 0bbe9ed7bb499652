//! Both agents describe their databases.
use pgconvoy_proto::model::{Catalog, Selection, required};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::describe_item::Item;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use crate::ends::{Ends, retry, said};
use crate::events::Reporter;
use crate::ledger::Ledger;

/// The source's and the target's: what both the migration's selection and this one admit.
pub async fn both(
    ends: &Ends,
    ledger: &Ledger,
    selection: &Selection,
    reporter: &Reporter,
) -> anyhow::Result<(Catalog, Catalog)> {
    let selections = [&ledger.options.selection, selection].map(|s| s.clone().into());
    let request = wire::DescribeRequest {
        selections: selections.into(),
        salt: salt().into(),
        migration: ledger.id.clone(),
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

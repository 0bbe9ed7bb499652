//! Describes an agent's database to the coordinator, in one short transaction of its own.
use pgconvoy_proto::model::{SchemaObject, Selection};
use pgconvoy_proto::selection::Filter;
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::describe_item::Item;
use tokio::sync::mpsc;
use tonic::Status;

use crate::database::Database;
use crate::inventory::schema;
use crate::status;

/// Names and values of so many bytes go into one message, and at least one object.
const MESSAGE_BYTES: usize = 256 << 10;

/// Sends the header and every object that the request admits.
pub async fn describe(
    database: Database,
    request: wire::DescribeRequest,
    items: mpsc::Sender<Result<wire::DescribeItem, Status>>,
) -> Result<(), Status> {
    let selections: Vec<Selection> = request.selections.into_iter().map(Into::into).collect();
    let whole = selections.iter().all(Selection::is_everything);
    let filters: Result<Vec<Filter>, _> = selections.iter().map(Filter::new).collect();
    let filters = filters.map_err(|error| Status::invalid_argument(error.to_string()))?;

    let session = database.connect("pgconvoy describe").await?;
    let read = async {
        session
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await?;
        let objects = schema::read(&session, &request.salt, &filters, whole).await?;
        session.batch_execute("COMMIT").await?;
        Ok(objects)
    };
    let objects = read
        .await
        .map_err(|error| status::postgres("reading the catalogs", &error))?;

    let header = wire::DescribeHeader {
        server_version: session.server_version(),
    };
    let all = std::iter::once(Item::Header(header)).chain(messages(objects).map(Item::Objects));
    for item in all {
        if items
            .send(Ok(wire::DescribeItem { item: Some(item) }))
            .await
            .is_err()
        {
            tracing::debug!("the reader of the description left");
            break;
        }
    }
    Ok(())
}

fn messages(objects: Vec<SchemaObject>) -> impl Iterator<Item = wire::SchemaObjects> {
    let mut rest = objects.into_iter().peekable();
    std::iter::from_fn(move || {
        rest.peek()?;
        let mut bytes = 0;
        let mut objects = Vec::new();
        while bytes < MESSAGE_BYTES
            && let Some(object) = rest.next()
        {
            let of_properties = object.properties.iter().map(|(n, v)| n.len() + v.len());
            bytes += object.identity.len() + of_properties.sum::<usize>();
            objects.push(object.into());
        }
        Some(wire::SchemaObjects { objects })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_is_in_one_message_and_messages_are_bounded() {
        let object = |identity: usize| SchemaObject {
            kind: "function".into(),
            identity: identity.to_string(),
            properties: [("body".to_owned(), "x".repeat(MESSAGE_BYTES / 4))].into(),
            ..SchemaObject::default()
        };
        let sent: Vec<_> = messages((0..9).map(object).collect()).collect();
        let sizes: Vec<usize> = sent.iter().map(|message| message.objects.len()).collect();
        assert_eq!(sizes, [4, 4, 1]);
        let all = sent.iter().flat_map(|message| &message.objects);
        assert!(
            all.enumerate()
                .all(|(n, object)| object.identity == n.to_string())
        );
    }
}

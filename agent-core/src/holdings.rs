//! Tells the coordinator what a platform's schemas hold at this end.
use pgconvoy_proto::model::{HoldingsAsked, parse_json, to_json};
use pgconvoy_proto::wire;
use tokio::sync::mpsc;
use tonic::Status;

use crate::database::Database;
use crate::inventory::holdings::{ReadError, read};
use crate::status;

const PIECE_BYTES: usize = 256 << 10;

pub async fn send(
    database: Database,
    request: wire::HoldingsRequest,
    pieces: mpsc::Sender<Result<wire::HoldingsResponse, Status>>,
) -> Result<(), Status> {
    let asked: HoldingsAsked = parse_json(&request.asked)?;
    let session = database.connect("pgconvoy holdings").await?;
    let holdings = read(&session, &asked).await.map_err(|error| match error {
        ReadError::Malformed(error) => error.into(),
        ReadError::Postgres(error) => status::postgres("reading the catalogs", &error),
    })?;
    for piece in to_json(&holdings).as_bytes().chunks(PIECE_BYTES) {
        let piece = wire::HoldingsResponse {
            piece: piece.to_vec().into(),
        };
        if pieces.send(Ok(piece)).await.is_err() {
            tracing::debug!("the reader of the holdings left");
            break;
        }
    }
    Ok(())
}

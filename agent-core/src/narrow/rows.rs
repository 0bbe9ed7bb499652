//! Single rows, read by their places, and sent column by column: hashes, and the texts that were asked for.
use std::pin::pin;

use futures_util::TryStreamExt;
use pgconvoy_proto::model::{Format, Place, Relation, RowValues, Table, Value};
use pgconvoy_proto::wire;
use tokio::sync::mpsc;
use tonic::Status;
use xxhash_rust::xxh3::xxh3_128;

use crate::large_objects;
use crate::rows;
use crate::rows::fields::Rows;
use crate::scan::{self, Error};
use crate::session::{Session, quote_ident};

/// Longer texts are cut, characters.
const LONGEST_TEXT: usize = 1000;

/// Sends the rows that are still at their places, in text whatever the table's format: it is for people.
pub async fn send_rows(
    session: &Session,
    table: &Table,
    places: &[Place],
    show_values: bool,
    sender: &mpsc::Sender<Result<wire::RowValues, Status>>,
) -> Result<(), Status> {
    let statement = statement(table, places);
    let mut data = pin!(session.copy_out(&statement).await.map_err(Error::from)?);
    let mut rows = Rows::new(Format::Text);
    while let Some(bytes) = data.try_next().await.map_err(Error::from)? {
        let mut found = Vec::new();
        rows.feed(&bytes, |row| {
            found.push(values(table, row, show_values)?);
            Ok(())
        })
        .map_err(scan::unreadable(table))?;
        // Partitions have equal ctids, and so have pages of large objects.
        for row in found.into_iter().filter(|row| places.contains(&row.place)) {
            if sender.send(Ok(row.into())).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(rows.finish().map_err(scan::unreadable(table))?)
}

fn statement(table: &Table, places: &[Place]) -> String {
    let columns: Vec<String> = ["tableoid".to_owned(), "ctid".to_owned()]
        .into_iter()
        .chain(
            table
                .columns
                .iter()
                .chain(&table.generated)
                .map(|name| quote_ident(name)),
        )
        .collect();
    format!(
        "COPY (SELECT {} FROM {} WHERE ctid = ANY ({})) TO STDOUT",
        columns.join(", "),
        match table.relation {
            Relation::Table => scan::from(table),
            Relation::LargeObjects { .. } => large_objects::of_places(places),
        },
        scan::ctids(places)
    )
}

fn values(table: &Table, row: &[u8], show_values: bool) -> Result<RowValues, rows::Error> {
    let mut fields = row.split(|byte| *byte == b'\t');
    let place = place(fields.next(), fields.next()).ok_or(rows::Error::Columns)?;
    let values: Vec<Value> = fields
        .enumerate()
        .map(|(number, field)| value(field, show_values || number < table.key_columns))
        .collect();
    if values.len() == table.columns.len() + table.generated.len() {
        Ok(RowValues { place, values })
    } else {
        Err(rows::Error::Columns)
    }
}

fn place(table: Option<&[u8]>, ctid: Option<&[u8]>) -> Option<Place> {
    let text = |field| std::str::from_utf8(field).ok();
    Place::parse(text(table?)?, text(ctid?)?)
}

/// `\N` is COPY's null: a value of these two characters has its backslash doubled.
fn value(field: &[u8], show: bool) -> Value {
    let text = || {
        let text = String::from_utf8_lossy(field);
        match text.char_indices().nth(LONGEST_TEXT) {
            Some((end, _)) => format!("{}...", &text[..end]),
            None => text.into_owned(),
        }
    };
    Value {
        hash: (field != b"\\N").then(|| xxh3_128(field)),
        text: show.then(text),
    }
}

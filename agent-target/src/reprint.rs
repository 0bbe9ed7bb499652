//! Prints queries as this server's deparser does. A view's definition reads differently on servers of two majors; parsed and printed
//! by one of them, two definitions of the same meaning read alike.
use pgconvoy_agent_core::database::Database;
use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::Definition;
use tokio_postgres::Error;
use tonic::Status;

/// The definitions that this server takes, in its own words. Nothing is left of them: the views that they become for a moment are
/// temporary, and the transaction is undone.
pub async fn reprint(
    database: &Database,
    definitions: Vec<Definition>,
) -> Result<Vec<Definition>, Status> {
    let session = database.connect("pgconvoy describe").await?;
    try_reprint(&session, definitions)
        .await
        .map_err(|error| status::postgres("printing definitions", &error))
}

async fn try_reprint(
    session: &Session,
    definitions: Vec<Definition>,
) -> Result<Vec<Definition>, Error> {
    let mut printed = Vec::new();
    for Definition { object, query } in definitions {
        // As the description has them: every name quoted.
        session
            .batch_execute("BEGIN; SET LOCAL quote_all_identifiers = on")
            .await?;
        let query = query.trim_end().trim_end_matches(';');
        let create = format!("CREATE TEMPORARY VIEW pgconvoy_reprint AS {query}");
        // Not as a batch: it must be one statement.
        match session.execute(&create, &[]).await {
            Ok(_) => {
                let row = session
                    .query_one(
                        "SELECT pg_get_viewdef('pg_temp.pgconvoy_reprint'::regclass)",
                        &[],
                    )
                    .await?;
                let query = row.get(0);
                printed.push(Definition { object, query });
            }
            Err(error) if error.as_db_error().is_some() && !session.is_closed() => {
                tracing::info!(%object, reason = %status::postgres_text(&error), "not taken as a view");
            }
            Err(error) => return Err(error),
        }
        session.batch_execute("ROLLBACK").await?;
    }
    Ok(printed)
}

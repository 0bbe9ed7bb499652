//! Prints queries as this server's deparser does, and locales as it keeps them. A view's definition reads differently on servers of two
//! majors, and so does the locale of an ICU collation; taken and printed by one of them, two of the same meaning read alike.
use pgconvoy_agent_core::database::Database;
use pgconvoy_agent_core::session::{Session, quote_literal};
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{COLLATION, Definition};
use tokio_postgres::Error;
use tonic::Status;

use crate::clean::silence_event_triggers;

/// The definitions that this server takes, in its own words. Nothing is left of them: what they become for a moment is
/// temporary, and the transaction is undone.
pub async fn reprint(
    database: &Database,
    definitions: Vec<Definition>,
) -> Result<Vec<Definition>, Status> {
    let session = database.connect("pgconvoy describe").await?;
    let mut printed = Vec::new();
    for definition in definitions {
        printed.extend(print_one(&session, definition).await?);
    }
    Ok(printed)
}

/// None: the server does not take it. The session is in no transaction.
pub async fn print_one(
    session: &Session,
    Definition { object, query }: Definition,
) -> Result<Option<Definition>, Status> {
    let failed = |error: Error| status::postgres("printing definitions", &error);
    // As the description has them: every name quoted.
    session
        .batch_execute("BEGIN; SET LOCAL quote_all_identifiers = on")
        .await
        .map_err(failed)?;
    // One that refuses DDL would refuse this too; one that notes it has nothing to note.
    silence_event_triggers(session).await?;
    let is_collation = object
        .split_once(' ')
        .is_some_and(|(kind, _)| kind == COLLATION);
    let (create, print) = match is_collation {
        true => (create_collation(&query), LOCALE),
        false => (create_view(&query), QUERY),
    };
    // Not as a batch: it must be one statement.
    let printed = match session.execute(&create, &[]).await {
        Ok(_) => {
            let row = session.query_one(print, &[]).await.map_err(failed)?;
            let query = row.get(0);
            Some(Definition { object, query })
        }
        Err(error) if error.as_db_error().is_some() && !session.is_closed() => {
            tracing::info!(%object, reason = %status::postgres_text(&error), "not taken");
            None
        }
        Err(error) => return Err(failed(error)),
    };
    session.batch_execute("ROLLBACK").await.map_err(failed)?;
    Ok(printed)
}

const QUERY: &str = "SELECT pg_get_viewdef('pg_temp.pgconvoy_reprint'::regclass)";
/// As the description of the schema reads it.
const LOCALE: &str = "
    SELECT coalesce(to_jsonb(c) ->> 'colllocale', to_jsonb(c) ->> 'colliculocale', c.collcollate)
    FROM pg_collation c WHERE c.collname = 'pgconvoy_reprint' AND c.collnamespace = pg_my_temp_schema()";

fn create_view(query: &str) -> String {
    let query = query.trim_end().trim_end_matches(';');
    format!("CREATE TEMPORARY VIEW pgconvoy_reprint AS {query}")
}

fn create_collation(locale: &str) -> String {
    let locale = quote_literal(locale);
    format!("CREATE COLLATION pg_temp.pgconvoy_reprint (provider = icu, locale = {locale})")
}

//! Where COPY FROM puts the rows of a part: into their table, or on a temporary table from which large objects are made. All of
//! it in the part's transaction.
use pgconvoy_agent_core::scan;
use pgconvoy_agent_core::session::{Session, qualified, quote_ident};
use pgconvoy_proto::model::{Relation, Table};
use tokio_postgres::Error;
use tokio_postgres::types::Type;

use crate::large_objects;

pub struct Landing {
    /// COPY ... FROM STDIN
    pub copy_in: String,
    after: After,
}

/// What is left to be done once the rows are there.
enum After {
    /// Puts search_path and triggers back as they were.
    Restore(String),
    MakeLargeObjects,
}

impl Landing {
    pub async fn prepare(session: &Session, table: &Table) -> Result<Self, Error> {
        match table.relation {
            Relation::Table => Ok(Self {
                copy_in: scan::copy_in(table),
                after: After::Restore({
                    let restore = silence_triggers(session, table).await?;
                    find_neighbours(session, table).await?;
                    format!("SET LOCAL search_path = ''; {restore}")
                }),
            }),
            Relation::LargeObjects { .. } => Ok(Self {
                copy_in: large_objects::stage(session, table).await?,
                after: After::MakeLargeObjects,
            }),
        }
    }

    pub async fn settle(self, session: &Session, migration: &str) -> Result<(), Error> {
        match self.after {
            After::Restore(restore) => session.batch_execute(&restore).await,
            After::MakeLargeObjects => large_objects::make(session, migration).await,
        }
    }
}

/// Functions that check constraints, domains and generated columns call may find other objects by their caller's search_path:
/// those beside the table, most likely. What COPY reads means the same with it: pg_catalog still comes first, and everything
/// else was written qualified.
async fn find_neighbours(session: &Session, table: &Table) -> Result<(), Error> {
    let schema = quote_ident(&table.schema);
    session
        .batch_execute(&format!("SET LOCAL search_path = {schema}, public"))
        .await
}

/// Triggers ENABLE ALWAYS and ENABLE REPLICA fire even under session_replication_role = replica: disabled in this
/// transaction. Where the role may not set that, any enabled trigger would fire. The statements that put them back.
async fn silence_triggers(session: &Session, table: &Table) -> Result<String, Error> {
    let name = qualified(&table.schema, &table.name);
    let rows = session
        .query_typed(
            "SELECT t.tgname::text, t.tgenabled::text FROM pg_trigger t
             WHERE t.tgrelid = $1::text::regclass AND NOT t.tgisinternal
               AND (t.tgenabled IN ('A', 'R') OR t.tgenabled = 'O'
                    AND current_setting('session_replication_role') <> 'replica')",
            &[(&name, Type::TEXT)],
        )
        .await?;
    let (mut disable, mut restore) = (String::new(), String::new());
    for row in rows {
        let trigger = quote_ident(row.get(0));
        let how = match row.get::<_, &str>(1) {
            "A" => "ENABLE ALWAYS",
            "R" => "ENABLE REPLICA",
            _ => "ENABLE",
        };
        disable += &format!("ALTER TABLE {name} DISABLE TRIGGER {trigger};");
        restore += &format!("ALTER TABLE {name} {how} TRIGGER {trigger};");
    }
    if !disable.is_empty() {
        session.batch_execute(&disable).await?;
    }
    Ok(restore)
}

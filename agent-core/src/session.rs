//! A session: one connection whose settings are pinned, so that the same row gives the same bytes at both ends
//! whatever the server, the database or the role has configured.
//!
//! Dropping a [`Session`] closes its socket at once, and `client_connection_check_interval` then ends what the
//! backend still runs: an agent leaves nothing working behind. Notices are logged at debug, by their text alone.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Connection, SimpleQueryMessage};
use tokio_util::task::AbortOnDropHandle;

use crate::database::{Error, Opening};

/// Begins a transaction that only looks, and does not wait for ever for who has a table alone: he may wait for a snapshot of ours.
pub const LOOK: &str =
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL lock_timeout = '60s'";

const OLDEST: u32 = 140_000;
const CLOSING_TIMEOUT: Duration = Duration::from_secs(5);

/// What the batch of settings starts with.
const WHO: &str = "SELECT pg_catalog.current_setting('server_version_num'), pg_catalog.pg_backend_pid(), \
                   pg_catalog.current_setting('server_version')";

/// Settings that every supported server has.
const PINNED: &[(&str, &str)] = &[
    // Text of the wire: both ends must spell every value alike.
    ("client_encoding", "UTF8"),   // whatever the database is encoded in
    ("DateStyle", "ISO, MDY"),     // dates that read the same everywhere
    ("IntervalStyle", "postgres"), // what pg_dump uses; sql_standard loses signs
    ("TimeZone", "UTC"),           // timestamptz is printed in the session's zone
    ("extra_float_digits", "3"),   // floats survive the trip, also when read by an old server
    ("bytea_output", "hex"),       // escape depends on the encoding
    ("lc_monetary", "C"),          // money prints its currency and separators
    ("xmlbinary", "base64"),       // bytea inside of xml
    ("xmloption", "content"),      // a document fragment is refused under `document`
    ("array_nulls", "on"),         // off reads NULL in an array as a text
    ("standard_conforming_strings", "on"), // what quote_literal is written for
    // What is seen.
    ("row_security", "off"), // a policy then is an error instead of a silent subset
    ("search_path", ""),     // names mean what they say; output of names is qualified
    ("synchronize_seqscans", "off"), // scans start at the first block
    ("default_transaction_read_only", "off"), // some providers and roles set it
    ("default_transaction_isolation", "read committed"), // what is not said is meant so
    ("default_transaction_deferrable", "off"),
    ("quote_all_identifiers", "off"), // names of objects are compared as text
    // Catalog queries are estimated dear and are quick: compiling them takes longer than running them.
    ("jit", "off"),
    // No clock but ours ends a statement.
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"), // the exporting transaction idles for hours
    ("client_min_messages", "warning"),
    // The server notices a vanished agent in minutes, and lets go of its snapshot and locks.
    ("tcp_keepalives_idle", "60"),
    ("tcp_keepalives_interval", "10"),
    ("tcp_keepalives_count", "6"),
];

/// Settings that only newer servers have.
const PINNED_WHERE_KNOWN: &[(&str, &str)] = &[
    ("idle_session_timeout", "0"), // 14
    ("transaction_timeout", "0"),  // 17
];

/// Apart from the batch: servers on some operating systems refuse it, and can be used all the same.
const CHECK_INTERVAL: &str = "SET client_connection_check_interval = '5s'";

/// Alone and first: a batch that follows runs under the time limit that was there before it. Under a limit of a
/// millisecond this may itself be ended, and is tried again.
const NO_TIMEOUT: &str = "SET statement_timeout = 0";
const PINNING_ATTEMPTS: usize = 200;

/// ALTER ROLE ... SET role makes a session somebody else without being asked. What the connection's own options say stays.
const OWN_ROLE: &str = "SELECT pg_catalog.set_config('role', 'none', false);\n";

/// An open connection with pinned settings.
pub struct Session {
    // Before the client: so that dropping closes the socket instead of waiting for a running statement.
    connection: AbortOnDropHandle<()>,
    client: Client,
    loss: Arc<OnceLock<String>>,
    backend_pid: i32,
    server_version: u32,
}

impl Session {
    /// Takes charge of a fresh connection: drives it, and pins its settings in one round trip, unless it is a pooler's that lends it to others.
    pub(crate) async fn pin<S, T>(
        client: Client,
        connection: Connection<S, T>,
        opening: &Opening<'_>,
    ) -> Result<Self, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let loss = Arc::new(OnceLock::new());
        let connection = AbortOnDropHandle::new(tokio::spawn(drive(connection, Arc::clone(&loss))));
        let messages = match opening.pins {
            true => pin_settings(&client, opening).await?,
            false => {
                let asked = client.simple_query(WHO).await;
                asked.map_err(|error| opening.failed(&error))?
            }
        };
        let at = opening.at;
        let (server_version, backend_pid, version) =
            read_who(&messages).ok_or_else(|| Error::Other {
                at: at.to_owned(),
                reason: "it does not say which version it is".into(),
            })?;
        if server_version < OLDEST {
            return Err(Error::TooOld {
                at: at.to_owned(),
                version,
            });
        }
        Ok(Self {
            connection,
            client,
            loss,
            backend_pid,
            server_version,
        })
    }

    /// The process at the server, as pg_stat_activity knows it (also behind a pooler in session mode).
    pub fn backend_pid(&self) -> i32 {
        self.backend_pid
    }

    /// `server_version_num`: 150014 for 15.14.
    pub fn server_version(&self) -> u32 {
        self.server_version
    }

    /// Why the connection ended, when it did: queries then only say "connection closed".
    pub fn loss(&self) -> Option<&str> {
        self.loss.get().map(String::as_str)
    }

    /// Ends the session in good order and waits until its socket is closed. Dropping is enough where nobody waits
    /// for the server to forget it.
    pub async fn close(self) {
        let Self {
            client, connection, ..
        } = self;
        drop(client);
        if tokio::time::timeout(CLOSING_TIMEOUT, connection)
            .await
            .is_err()
        {
            tracing::debug!("a session did not end in time: its socket is closed");
        }
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("backend_pid", &self.backend_pid)
            .finish_non_exhaustive()
    }
}

async fn drive<S, T>(mut connection: Connection<S, T>, loss: Arc<OnceLock<String>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
    while let Some(message) = messages.next().await {
        match message {
            Ok(AsyncMessage::Notice(notice)) => {
                tracing::debug!(
                    severity = notice.severity(),
                    message = notice.message(),
                    "notice"
                );
            }
            Ok(_) => {}
            Err(error) => {
                let reason = match error.as_db_error() {
                    Some(refusal) => refusal.message().to_owned(),
                    None => std::error::Error::source(&error)
                        .map_or_else(|| error.to_string(), ToString::to_string),
                };
                tracing::debug!(%reason, "a database session was lost");
                loss.get_or_init(|| reason);
                return;
            }
        }
    }
}

fn timed_out(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::QUERY_CANCELED)
}

/// Pins all settings; gives the answer to [`WHO`].
async fn pin_settings(
    client: &Client,
    opening: &Opening<'_>,
) -> Result<Vec<SimpleQueryMessage>, Error> {
    let batch = pinning_sql(opening.keeps_role);
    let mut attempts = 0;
    let (pinned, checked) = loop {
        attempts += 1;
        // All are sent before any is answered; they stay in order.
        let (untimed, pinned, checked) = tokio::join!(
            client.batch_execute(NO_TIMEOUT),
            client.simple_query(&batch),
            client.batch_execute(CHECK_INTERVAL)
        );
        match untimed {
            Err(error) if timed_out(&error) && attempts < PINNING_ATTEMPTS => {}
            Err(error) => return Err(opening.failed(&error)),
            Ok(()) => break (pinned, checked),
        }
    };
    let messages = pinned.map_err(|error| opening.failed(&error))?;
    if let Err(error) = checked {
        let Some(refusal) = error.as_db_error() else {
            return Err(opening.failed(&error));
        };
        tracing::warn!(
            at = opening.at,
            reason = refusal.message(),
            "the server does not watch for lost clients: what a killed agent ran may go on for a while"
        );
    }
    Ok(messages)
}

fn pinning_sql(keeps_role: bool) -> String {
    let mut sql = format!("{WHO};\n");
    if !keeps_role {
        sql.push_str(OWN_ROLE);
    }
    for (name, value) in PINNED {
        sql.push_str(&format!("SET {name} = {};\n", quote_literal(value)));
    }
    for (name, value) in PINNED_WHERE_KNOWN {
        sql.push_str(&format!(
            "SELECT pg_catalog.set_config('{name}', '{value}', false) \
             WHERE pg_catalog.current_setting('{name}', true) IS NOT NULL;\n"
        ));
    }
    sql
}

fn read_who(messages: &[SimpleQueryMessage]) -> Option<(u32, i32, String)> {
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })?;
    Some((
        row.get(0)?.parse().ok()?,
        row.get(1)?.parse().ok()?,
        row.get(2)?.to_owned(),
    ))
}

/// An identifier in double quotes, whatever it is.
pub fn quote_ident(name: &str) -> String {
    postgres_protocol::escape::escape_identifier(name)
}

/// Whom GRANT and REVOKE name: the empty one is PUBLIC.
pub fn quote_grantee(grantee: &str) -> String {
    match grantee {
        "" => "PUBLIC".into(),
        role => quote_ident(role),
    }
}

/// A literal in single quotes; with a leading ` E` when it has a backslash.
pub fn quote_literal(text: &str) -> String {
    postgres_protocol::escape::escape_literal(text)
}

/// `"schema"."name"`
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quote_ident(schema), quote_ident(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_literals_are_quoted() {
        assert_eq!(quote_ident(r#"a"b"#), r#""a""b""#);
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal(r"a\b"), r" E'a\\b'");
        assert_eq!(qualified("Public", "my table"), r#""Public"."my table""#);
    }

    #[test]
    fn settings_are_one_batch_that_older_servers_understand() {
        let sql = pinning_sql(false);
        assert!(sql.starts_with("SELECT") && sql.contains("'role', 'none'"));
        assert!(!pinning_sql(true).contains("'role'"));
        assert!(sql.contains("SET search_path = '';"));
        assert!(!sql.contains("SET transaction_timeout"));
        assert!(sql.contains("set_config('transaction_timeout', '0', false)"));
    }
}

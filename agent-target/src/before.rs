//! The target as it was before a migration: read when its plan is written, kept in the ledger, and what `rollback` returns to and is
//! judged by.
//!
//! Objects are known by catalog and OID: what has another one was made later, whatever its name. No secret is in it: values of
//! settings are veiled, and what [`schema`] tells of secrets are digests.
use std::collections::HashSet;

use pgconvoy_agent_core::inventory::{access, built, default_privileges, roles, schema, system};
use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::snapshot::Scope;
use pgconvoy_proto::model::{
    Access, DefaultPrivileges, Entry, Properties, SchemaObject, Selection, SequenceValue,
    SystemGrants,
};
use pgconvoy_proto::selection::{Filter, Unread};
use serde::{Deserialize, Serialize};
use tokio_postgres::Error;

use crate::facts;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Before {
    /// Of the digests in `schema`, hexadecimal.
    salt: String,
    pub schema: Vec<SchemaObject>,
    /// Of everything that has an owner.
    pub access: Vec<Access>,
    /// Of what has none.
    pub ownerless: Vec<Entry>,
    pub default_privileges: Vec<DefaultPrivileges>,
    pub system: Vec<SystemGrants>,
    pub database: Properties,
    pub sequences: Vec<SequenceValue>,
    /// Tables, with whether they held rows.
    pub tables: Vec<(String, bool)>,
}

impl Before {
    /// The target as it is now, in one transaction.
    pub async fn read(session: &Session) -> Result<Self, Error> {
        in_transaction(session, Self::under(session)).await
    }

    /// As the session's transaction sees it.
    pub async fn under(session: &Session) -> Result<Self, Error> {
        let salt: String = session
            .query_one("SELECT md5(gen_random_uuid()::text)", &[])
            .await?
            .get(0);
        Self::read_with(session, salt).await
    }

    /// As it is now, with secrets digested as in this one: what is equal is equal.
    pub async fn again(&self, session: &Session) -> Result<Self, Error> {
        in_transaction(session, Self::read_with(session, self.salt.clone())).await
    }

    async fn read_with(session: &Session, salt: String) -> Result<Self, Error> {
        let schema = schema::read(session, salt.as_bytes(), &[everything()], true).await?;
        let owned = access::read(session).await?;
        Ok(Self {
            salt,
            schema,
            access: owned.into_iter().map(|found| found.access).collect(),
            ownerless: ownerless(session).await?.iter().map(|o| o.entry).collect(),
            default_privileges: default_privileges::read(session).await?,
            system: system::changed(session).await?,
            database: roles::properties(session, true).await?,
            sequences: built::sequences(session, &HashSet::new(), &Unread::default()).await?,
            tables: facts::tables(session).await?,
        })
    }

    pub fn entries(&self) -> HashSet<Entry> {
        let owned = self.access.iter().map(|access| access.entry);
        owned.chain(self.ownerless.iter().copied()).collect()
    }
}

async fn in_transaction<T>(
    session: &Session,
    read: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    session
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await?;
    let read = read.await?;
    session.batch_execute("COMMIT").await?;
    Ok(read)
}

fn everything() -> Filter {
    let selection = Selection::default();
    Filter::new(&selection).unwrap_or_else(|error| unreachable!("no glob is a good glob: {error}"))
}

/// Every table, to be locked and read.
pub fn every_table() -> Scope {
    Scope::Selected(everything(), Unread::default())
}

/// An object without an owner, or with one that cannot be changed, which does not go with another object.
pub struct Ownerless {
    /// What DROP calls it, and pg_restore's list.
    pub keyword: &'static str,
    pub listed: &'static str,
    /// As the list has it; empty: it says no name.
    pub name: String,
    pub identity: String,
    pub entry: Entry,
}

/// Keyword, how pg_restore's list calls it, and a query of name, identity, catalog, OID. Of subscriptions the columns that
/// everybody may read.
const OWNERLESS: &[(&str, &str, &str)] = &[
    (
        "EXTENSION",
        "EXTENSION",
        "SELECT extname::text, quote_ident(extname), tableoid, oid FROM pg_extension",
    ),
    (
        "SUBSCRIPTION",
        "SUBSCRIPTION",
        "SELECT subname::text, quote_ident(subname), 'pg_subscription'::regclass::oid, s.oid
         FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = current_database()",
    ),
    (
        "LANGUAGE",
        "PROCEDURAL LANGUAGE",
        "SELECT lanname::text, quote_ident(lanname), tableoid, oid FROM pg_language WHERE NOT lanpltrusted",
    ),
    (
        "ACCESS METHOD",
        "ACCESS METHOD",
        "SELECT amname::text, quote_ident(amname), tableoid, oid FROM pg_am",
    ),
    (
        "TEXT SEARCH PARSER",
        "TEXT SEARCH PARSER",
        "SELECT prsname::text, i.identity, p.tableoid, p.oid
         FROM pg_ts_parser p CROSS JOIN LATERAL pg_identify_object(p.tableoid, p.oid, 0) i",
    ),
    (
        "TEXT SEARCH TEMPLATE",
        "TEXT SEARCH TEMPLATE",
        "SELECT tmplname::text, i.identity, p.tableoid, p.oid
         FROM pg_ts_template p CROSS JOIN LATERAL pg_identify_object(p.tableoid, p.oid, 0) i",
    ),
    // One that was never defined: it can be given no owner.
    (
        "TYPE",
        "TYPE",
        "SELECT typname::text, i.identity, t.tableoid, t.oid
         FROM pg_type t CROSS JOIN LATERAL pg_identify_object(t.tableoid, t.oid, 0) i WHERE NOT typisdefined",
    ),
    (
        "CAST",
        "CAST",
        "SELECT '', i.identity, c.tableoid, c.oid FROM pg_cast c CROSS JOIN LATERAL pg_identify_object(c.tableoid, c.oid, 0) i",
    ),
    (
        "TRANSFORM",
        "TRANSFORM",
        "SELECT '', format('FOR %s LANGUAGE %I', format_type(trftype, NULL), lanname), t.tableoid, t.oid
         FROM pg_transform t JOIN pg_language l ON l.oid = trflang",
    ),
];

/// All of them, but members of extensions and what initdb made.
pub async fn ownerless(session: &Session) -> Result<Vec<Ownerless>, Error> {
    let mut found = Vec::new();
    for (keyword, listed, query) in OWNERLESS {
        let query = format!(
            "SELECT * FROM ({query}) o (name, identity, class, oid)
             WHERE oid >= 16384 AND NOT EXISTS (
                 SELECT FROM pg_depend d WHERE d.classid = o.class AND d.objid = o.oid AND d.deptype = 'e')
             ORDER BY identity"
        );
        let rows = session.query(&query, &[]).await?;
        found.extend(rows.iter().map(|row| Ownerless {
            keyword,
            listed,
            name: row.get(0),
            identity: row.get(1),
            entry: Entry {
                class: row.get(2),
                oid: row.get(3),
            },
        }));
    }
    Ok(found)
}

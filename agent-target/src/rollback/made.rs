//! What is new in the target since the plan was written: of the migration, or of somebody else.
use std::collections::HashSet;

use pgconvoy_agent_core::inventory::access;
use pgconvoy_agent_core::session::{Session, quote_ident};
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::{Access, Entry, Oid, Work};
use tokio_postgres::Error;
use tonic::Status;

use super::Undone;
use crate::archive::Store;
use crate::before::{self, Before, Ownerless};
use crate::large_objects;
use crate::rollback::added;

/// Dropped in one transaction. A table takes a lock for itself, for each of its indexes and for its TOAST table: so many fit into the lock
/// table of an untuned server.
const TOGETHER: usize = 200;
/// How many a message names.
const NAMES: usize = 8;

pub struct New {
    objects: Vec<Object>,
    strangers: Vec<String>,
}

struct Object {
    rank: Rank,
    name: String,
    drop: String,
}

/// The order in which kinds are dropped: what reacts to DDL first, what holds others last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Reacting,
    View,
    /// A tree of partitions goes leaf by leaf: its locks are many.
    Leaf,
    Table,
    /// Before the functions that came with it: a range's constructors.
    Type,
    Other,
    Extension,
    Language,
    Schema,
}

impl New {
    pub(super) async fn read(
        session: &Session,
        store: &Store,
        undone: &Undone,
    ) -> Result<Self, Status> {
        let failed = |error: Error| status::postgres("looking for what is new", &error);
        let were_there = undone.before.entries();
        let is_new = |entry: &Entry| !were_there.contains(entry);
        // A platform's services go on by themselves: what they have made since is nobody's to drop.
        let services = platforms(session, undone).await.map_err(failed)?;
        let mut owned: Vec<Access> = access::read(session)
            .await
            .map_err(failed)?
            .into_iter()
            .map(|found| found.access)
            .filter(|access| is_new(&access.entry) && !access.owner_keyword.is_empty())
            .collect();
        let leaves = leaves(session).await.map_err(failed)?;
        let mut ownerless = before::ownerless(session).await.map_err(failed)?;
        ownerless.retain(|object| is_new(&object.entry));
        let planned = planned(undone);
        let listed = listed(session, store, undone, &ownerless).await?;
        owned
            .retain(|access| !services.contains(&access.entry) || planned.contains(&named(access)));
        ownerless
            .retain(|object| !services.contains(&object.entry) || listed.contains(&object.entry));
        let strange = |access: &&Access| !planned.contains(&named(access));
        let strangers = owned.iter().filter(strange).map(named_text);
        let strange = |object: &&Ownerless| !listed.contains(&object.entry);
        let strangers = strangers.chain(ownerless.iter().filter(strange).map(ownerless_text));
        let mut strangers: Vec<String> = strangers.collect();
        let added = added::read(session, undone).await.map_err(failed)?;
        let strange = added.iter().filter(|added| !added.planned);
        strangers.extend(strange.map(|added| added.name.clone()));
        let mut new = Self::sorted(&owned, &ownerless, &leaves, strangers);
        let added = added.into_iter().map(|added| Object {
            rank: Rank::Reacting,
            name: added.name,
            drop: added.drop,
        });
        new.objects.splice(0..0, added);
        Ok(new)
    }

    /// All that is there, but for extensions that are to stay and what they are in. Strangers are those that neither the plan nor what is
    /// to be restored knows by name.
    pub(super) async fn everything(session: &Session, undone: &Undone) -> Result<Self, Status> {
        Self::of_everything(session, undone, |_| true).await
    }

    /// The same of what was there when the plan was written. On a platform its schemas and what is of the whole database stay, and of what
    /// is in these schemas the user's part that the migration brings anew goes.
    pub(super) async fn old(session: &Session, undone: &Undone) -> Result<Self, Status> {
        let were_there = undone.before.entries();
        let failed = |error: Error| status::postgres("looking at what is there", &error);
        let kept = platforms(session, undone).await.map_err(failed)?;
        Self::of_everything(session, undone, |entry| {
            were_there.contains(entry) && !kept.contains(entry)
        })
        .await
    }

    async fn of_everything(
        session: &Session,
        undone: &Undone,
        which: impl Fn(&Entry) -> bool,
    ) -> Result<Self, Status> {
        let failed = |error: Error| status::postgres("looking at what is there", &error);
        let housing = housing(session).await.map_err(failed)?;
        let mut known = planned(undone);
        known.extend(undone.before.access.iter().map(named));
        let stays = |access: &Access| {
            let restored = || {
                undone
                    .before
                    .access
                    .iter()
                    .any(|was| named(was) == named(access))
            };
            let schema = access.owner_keyword == "SCHEMA";
            schema
                && (housing.contains(&access.entry.oid) || access.identity == PUBLIC && restored())
        };
        let found = access::read(session).await.map_err(failed)?.into_iter();
        let owned: Vec<Access> = found
            .map(|found| found.access)
            .filter(|access| !access.owner_keyword.is_empty() && !stays(access))
            .filter(|access| which(&access.entry))
            .collect();
        let kept =
            |object: &Ownerless| {
                object.keyword == "EXTENSION"
                    && undone.before.schema.iter().any(|was| {
                        was.kind == "extension" && was.identity == quote_ident(&object.name)
                    })
            };
        let mut ownerless = before::ownerless(session).await.map_err(failed)?;
        ownerless.retain(|object| !kept(object) && which(&object.entry));
        let leaves = leaves(session).await.map_err(failed)?;
        let strange = |access: &&Access| !known.contains(&named(access));
        let strangers = owned.iter().filter(strange).map(named_text).collect();
        Ok(Self::sorted(&owned, &ownerless, &leaves, strangers))
    }

    fn sorted(
        owned: &[Access],
        ownerless: &[Ownerless],
        leaves: &HashSet<Oid>,
        mut strangers: Vec<String>,
    ) -> Self {
        strangers.sort();
        let owned = owned.iter().map(|access| owned_object(access, leaves));
        let mut objects: Vec<Object> = owned
            .chain(ownerless.iter().map(ownerless_object))
            .collect();
        objects.sort_by_key(|object| object.rank);
        Self { objects, strangers }
    }

    /// FAILED_PRECONDITION: there is what the migration did not make.
    pub fn refuse_strangers(&self, force: bool) -> Result<(), Status> {
        if self.strangers.is_empty() || force {
            return Ok(());
        }
        let more = match self.strangers.len().saturating_sub(NAMES) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let names: Vec<&str> = self
            .strangers
            .iter()
            .take(NAMES)
            .map(String::as_str)
            .collect();
        Err(Status::failed_precondition(format!(
            "the target has what was made since and is not of the migration: {}{more}. Nothing was changed: move it elsewhere \
             (pg_dump), or rollback --force, which drops it too",
            names.join(", ")
        )))
    }

    /// What was there before is there after each transaction, or the transaction is undone.
    pub async fn drop(&self, session: &Session, before: &Before) -> Result<Vec<String>, Status> {
        let failed = |error: Error| status::postgres(DROPPING, &error);
        let were_there: Vec<Entry> = before.entries().into_iter().collect();
        let gone = gone(session, &were_there).await.map_err(failed)?;
        let mut removed = Vec::new();
        for together in self.objects.chunks(TOGETHER) {
            drop_together(session, together).await.map_err(failed)?;
            let now = self::gone(session, &were_there).await.map_err(failed)?;
            if let Some(lost) = now.difference(&gone).next() {
                let lost = before.access.iter().find(|access| access.entry == *lost);
                let lost = lost.map_or_else(|| "an object without an owner".to_owned(), named_text);
                return Err(Status::failed_precondition(format!(
                    "{lost} was there before the migration and now needs what it made: change that, and run rollback again"
                )));
            }
            session.batch_execute("COMMIT").await.map_err(failed)?;
            removed.extend(together.iter().map(|object| object.name.clone()));
        }
        Ok(removed)
    }

    /// Drops it all, whatever was there before, with the large objects.
    pub async fn clear(&self, session: &Session) -> Result<Vec<String>, Status> {
        let failed = |error: Error| status::postgres(DROPPING, &error);
        let mut removed = Vec::new();
        for together in self.objects.chunks(TOGETHER) {
            drop_together(session, together).await.map_err(failed)?;
            session.batch_execute("COMMIT").await.map_err(failed)?;
            removed.extend(together.iter().map(|object| object.name.clone()));
        }
        large_objects::unlink_all(session).await.map_err(failed)?;
        Ok(removed)
    }
}

const DROPPING: &str = "dropping what is there";

/// In a transaction that stays open.
async fn drop_together(session: &Session, objects: &[Object]) -> Result<(), Error> {
    let statements: Vec<&str> = objects.iter().map(|o| o.drop.as_str()).collect();
    session
        .batch_execute(&format!("BEGIN; {}", statements.join("; ")))
        .await
}

/// What is not dropped on a platform: what its services have made, and what is of the whole database.
async fn platforms(session: &Session, undone: &Undone) -> Result<HashSet<Entry>, Error> {
    let Some(tenancy) = undone.tenancy() else {
        return Ok(HashSet::new());
    };
    let carried = |access: &Access| {
        let mut carried = tenancy.carried.iter();
        carried.any(|named| named.kind == access.kind && named.identity == access.identity)
    };
    let mut kept: HashSet<Entry> = before::ownerless(session)
        .await?
        .iter()
        .map(|object| object.entry)
        .collect();
    let found: Vec<Access> = access::read(session)
        .await?
        .into_iter()
        .map(|found| found.access)
        .collect();
    let schemas = schemas(session, &found).await?;
    for (access, schema) in found.iter().zip(schemas) {
        let is_platforms = match (&schema, access.owner_keyword.as_str()) {
            (_, "SCHEMA") => {
                let name = access.identity.replace('"', "");
                tenancy.schemas.contains(&name) || name == "public"
            }
            (None, _) => true,
            (Some(schema), _) => tenancy.schemas.contains(schema) && !carried(access),
        };
        if is_platforms {
            kept.insert(access.entry);
        }
    }
    Ok(kept)
}

/// The schema of each; none: it is in none.
async fn schemas(session: &Session, objects: &[Access]) -> Result<Vec<Option<String>>, Error> {
    let (classes, oids): (Vec<Oid>, Vec<Oid>) =
        objects.iter().map(|o| (o.entry.class, o.entry.oid)).unzip();
    let rows = session
        .query(
            "SELECT (parse_ident(i.schema))[1]::text FROM unnest($1::oid[], $2::oid[]) WITH ORDINALITY e (class, oid, n)
             CROSS JOIN LATERAL pg_identify_object(e.class, e.oid, 0) i ORDER BY n",
            &[&classes, &oids],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Schemas that stay when all goes: those that members of extensions are in, and `public`.
pub async fn staying_schemas(session: &Session) -> Result<HashSet<Oid>, Error> {
    let mut staying = housing(session).await?;
    let public = session
        .query("SELECT oid FROM pg_namespace WHERE nspname = 'public'", &[])
        .await?;
    staying.extend(public.iter().map(|row| row.get::<_, Oid>(0)));
    Ok(staying)
}

/// Schemas that members of extensions are in.
async fn housing(session: &Session) -> Result<HashSet<Oid>, Error> {
    let rows = session
        .query(
            "SELECT extnamespace FROM pg_extension
             UNION SELECT n.oid FROM pg_depend d
             CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, 0) i
             JOIN pg_namespace n ON n.oid = to_regnamespace(i.schema)
             WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass",
            &[],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// As [`access::read`] names it.
const PUBLIC: &str = "\"public\"";

fn ownerless_text(object: &Ownerless) -> String {
    format!("{} {}", object.keyword.to_lowercase(), object.identity)
}

fn named(access: &Access) -> (String, String) {
    (access.kind.clone(), access.identity.clone())
}

fn named_text(access: &Access) -> String {
    format!("{} {}", access.kind, access.identity)
}

/// What the plan makes, of what has an owner.
fn planned(undone: &Undone) -> HashSet<(String, String)> {
    let of_work = |work: &Work| match work {
        Work::Access { objects, .. } => objects.iter().map(named).collect(),
        _ => Vec::new(),
    };
    undone.works().flat_map(of_work).collect()
}

/// What the archive makes, of what has no owner.
async fn listed(
    session: &Session,
    store: &Store,
    undone: &Undone,
    new: &[Ownerless],
) -> Result<HashSet<Entry>, Status> {
    if new.is_empty() {
        return Ok(HashSet::new());
    }
    let server = session.server_version() / 10_000;
    let Some(migration) = &undone.migration else {
        return Ok(HashSet::new());
    };
    let skipped = &migration.skipped;
    let Some(archive) = store.open(&migration.id, skipped, server).await? else {
        return Ok(HashSet::new());
    };
    let all = || {
        let contents = &archive.contents;
        contents.pre_data.iter().chain(&contents.post_data)
    };
    let is_listed = |object: &&Ownerless| {
        all().any(|line| line.is(object.listed) && line.rest.contains(&object.name))
    };
    Ok(new.iter().filter(is_listed).map(|o| o.entry).collect())
}

fn owned_object(access: &Access, leaves: &HashSet<Oid>) -> Object {
    let keyword = access.owner_keyword.as_str();
    let rank = match keyword {
        "EVENT TRIGGER" | "PUBLICATION" => Rank::Reacting,
        "VIEW" | "MATERIALIZED VIEW" => Rank::View,
        "TABLE" | "FOREIGN TABLE" if leaves.contains(&access.entry.oid) => Rank::Leaf,
        "TABLE" | "FOREIGN TABLE" => Rank::Table,
        "TYPE" => Rank::Type,
        "LANGUAGE" => Rank::Language,
        "SCHEMA" => Rank::Schema,
        _ => Rank::Other,
    };
    Object {
        rank,
        name: named_text(access),
        drop: drop_statement(keyword, &access.identity),
    }
}

fn ownerless_object(object: &Ownerless) -> Object {
    let identity = &object.identity;
    let mut drop = drop_statement(object.keyword, identity);
    let rank = match object.keyword {
        "SUBSCRIPTION" => {
            // Its slot is the publisher's affair: pgconvoy made none.
            drop = format!(
                "ALTER SUBSCRIPTION {identity} DISABLE; ALTER SUBSCRIPTION {identity} SET (slot_name = NONE); {drop}"
            );
            Rank::Reacting
        }
        "EXTENSION" => Rank::Extension,
        "LANGUAGE" => Rank::Language,
        _ => Rank::Other,
    };
    Object {
        rank,
        name: ownerless_text(object),
        drop,
    }
}

/// CASCADE takes what depends on it: a foreign key, a default. What was there before is looked for afterwards.
fn drop_statement(keyword: &str, identity: &str) -> String {
    format!("DROP {keyword} IF EXISTS {identity} CASCADE")
}

/// Partitions, and children of inheritance.
async fn leaves(session: &Session) -> Result<HashSet<Oid>, Error> {
    let rows = session
        .query(
            "SELECT inhrelid FROM pg_inherits i WHERE NOT EXISTS (SELECT FROM pg_inherits c WHERE c.inhparent = i.inhrelid)",
            &[],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Those of the objects that are not there.
async fn gone(session: &Session, objects: &[Entry]) -> Result<HashSet<Entry>, Error> {
    let (classes, oids): (Vec<Oid>, Vec<Oid>) = objects.iter().map(|e| (e.class, e.oid)).unzip();
    let rows = session
        .query(
            "SELECT e.class, e.oid FROM unnest($1::oid[], $2::oid[]) e (class, oid)
             WHERE (pg_identify_object(e.class, e.oid, 0)).identity IS NULL",
            &[&classes, &oids],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| Entry {
            class: row.get(0),
            oid: row.get(1),
        })
        .collect())
}

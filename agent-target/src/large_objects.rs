//! Large objects at the target: made from the pages of a part, in its transaction, and taken away again.
//!
//! Which of them are a migration's is in the ledger, by OID: others are never touched.
use pgconvoy_agent_core::large_objects::{COLUMNS, PAGE_BYTES};
use pgconvoy_agent_core::session::{Session, quote_grantee};
use pgconvoy_proto::model::{Oid, Table};
use tokio_postgres::Error;

/// Pages between COPY and lo_put(): the server writes them twice, and nobody has to hold an object in memory.
const STAGE: &str = "pg_temp.pgconvoy_pages";

/// src/include/libpq/libpq-fs.h
const INV_WRITE: u32 = 0x20000;

/// lo_unlink() takes a lock for each object: so many fit beside others into the lock table of an untuned server.
const UNLINKED_TOGETHER: i64 = 500;

/// Makes the place for the pages; the COPY that fills it.
pub async fn stage(session: &Session, table: &Table) -> Result<String, Error> {
    let [oid, page, data] = COLUMNS;
    session
        .batch_execute(&format!(
            "CREATE TEMP TABLE pgconvoy_pages ({oid} oid NOT NULL, {page} int4 NOT NULL, {data} bytea NOT NULL) ON COMMIT DROP;
             ALTER TABLE {STAGE} ALTER {data} SET STORAGE EXTERNAL"
        ))
        .await?;
    Ok(format!(
        "COPY {STAGE} ({oid}, {page}, {data}) FROM STDIN (FORMAT {})",
        table.format
    ))
}

/// Makes the objects that have pages, under their OIDs, and fills them. One of ours that exists is emptied first, and keeps owner and
/// grants; another one is refused.
pub async fn make(session: &Session, migration: &str) -> Result<(), Error> {
    let [oid, page, data] = COLUMNS;
    let ours = "SELECT m.oid FROM pgconvoy.large_objects l JOIN pg_largeobject_metadata m ON m.oid = l.oid WHERE l.migration = $1";
    session
        .execute(
            &format!(
                "SELECT lo_close(fd) FROM (
                     SELECT fd, lo_truncate(fd, 0) FROM (
                         SELECT lo_open({oid}, {INV_WRITE}) AS fd FROM (SELECT DISTINCT {oid} FROM {STAGE}) o
                         WHERE {oid} IN ({ours}) OFFSET 0) opened OFFSET 0) emptied"
            ),
            &[&migration],
        )
        .await?;
    let made: Vec<Oid> = session
        .query(
            &format!(
                "INSERT INTO pgconvoy.large_objects (migration, oid)
                 SELECT $1, lo_create({oid}) FROM (SELECT DISTINCT {oid} FROM {STAGE}) o WHERE {oid} NOT IN ({ours})
                 ON CONFLICT (migration, oid) DO UPDATE SET surplus = false
                 RETURNING oid"
            ),
            &[&migration],
        )
        .await?
        .iter()
        .map(|row| row.get(0))
        .collect();
    revoke_default_privileges(session, &made).await?;
    let put =
        format!("SELECT count(lo_put({oid}, {page}::int8 * {PAGE_BYTES}, {data})) FROM {STAGE}");
    session.batch_execute(&put).await
}

/// Invariant 6 (no open window): from 18 on default privileges may grant what the source does not.
async fn revoke_default_privileges(session: &Session, made: &[Oid]) -> Result<(), Error> {
    let granted = session
        .query(
            "SELECT m.oid, coalesce(r.rolname, '')
             FROM pg_largeobject_metadata m CROSS JOIN LATERAL aclexplode(m.lomacl) a
             LEFT JOIN pg_roles r ON r.oid = a.grantee
             WHERE m.oid = ANY ($1) AND a.grantee <> m.lomowner GROUP BY 1, 2",
            &[&made],
        )
        .await?;
    let revoke = granted.iter().map(|row| {
        let (oid, role): (Oid, &str) = (row.get(0), row.get(1));
        let from = quote_grantee(role);
        format!("REVOKE ALL ON LARGE OBJECT {oid} FROM {from};")
    });
    session.batch_execute(&revoke.collect::<String>()).await
}

/// Of these objects those of ours that no page has come for are surplus. In the transaction that has made the others.
pub async fn mark_surplus(
    session: &Session,
    migration: &str,
    objects: &[Oid],
) -> Result<(), Error> {
    let mark = format!(
        "UPDATE pgconvoy.large_objects SET surplus = true
         WHERE migration = $1 AND oid = ANY ($2) AND oid NOT IN (SELECT {} FROM {STAGE})",
        COLUMNS[0]
    );
    session.execute(&mark, &[&migration, &objects]).await?;
    Ok(())
}

/// Takes the migration's large objects away.
pub async fn unlink(session: &Session, migration: &str) -> Result<(), Error> {
    unlink_those(session, migration, "true").await
}

/// Takes those away that are marked as surplus.
pub async fn unlink_surplus(session: &Session, migration: &str) -> Result<(), Error> {
    unlink_those(session, migration, "surplus").await
}

/// In transactions of their own. Interrupted and run again, it goes on: each object is forgotten in the transaction that unlinks it.
async fn unlink_those(session: &Session, migration: &str, which: &str) -> Result<(), Error> {
    loop {
        let forgotten: i64 = session
            .query_one(
                &format!(
                    "WITH ours AS (
                         DELETE FROM pgconvoy.large_objects
                         WHERE migration = $1 AND oid IN (
                             SELECT oid FROM pgconvoy.large_objects WHERE migration = $1 AND {which} ORDER BY oid LIMIT $2)
                         RETURNING oid)
                     SELECT count(*), count(lo_unlink(m.oid))
                     FROM ours LEFT JOIN pg_largeobject_metadata m ON m.oid = ours.oid"
                ),
                &[&migration, &UNLINKED_TOGETHER],
            )
            .await?
            .get(0);
        if forgotten == 0 {
            return Ok(());
        }
    }
}

/// Takes all large objects of the database away, some hundred in each transaction.
pub async fn unlink_all(session: &Session) -> Result<(), Error> {
    loop {
        let unlinked: i64 = session
            .query_one(
                "SELECT count(lo_unlink(oid)) FROM (SELECT oid FROM pg_largeobject_metadata ORDER BY oid LIMIT $1) o",
                &[&UNLINKED_TOGETHER],
            )
            .await?
            .get(0);
        if unlinked == 0 {
            return Ok(());
        }
    }
}

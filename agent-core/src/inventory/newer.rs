//! What a database holds that older majors of PostgreSQL do not know: looked for when the target is older than the source, so that
//! preflight can name it. Read from the catalogs of releases 15 to 18; columns that not every release has through to_jsonb().
use std::collections::HashSet;

use pgconvoy_proto::facts::Newer;
use pgconvoy_proto::model::Oid;
use tokio_postgres::Error;

use super::foreign_schema;
use crate::session::Session;

/// So many objects are named, all are counted.
pub(super) const EXAMPLES: usize = 5;

/// Something that PostgreSQL knows from a major on.
struct Feature {
    since: u32,
    what: &'static str,
    /// Without it there is no table, or no type of its columns: no place for rows. Else only the object itself is lost.
    vital: bool,
    instead: &'static str,
    /// Relation (0: none) and name of each object.
    query: &'static str,
}

const FEATURES: &[Feature] = &[
    Feature {
        since: 15,
        what: "numeric columns with a scale below 0 or above the precision",
        vital: true,
        instead: "declare them numeric without a scale",
        query: "SELECT relation, name FROM (
                    SELECT attrelid, attrelid::regclass || '.' || quote_ident(attname), atttypid, atttypmod
                    FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
                    WHERE c.relkind IN ('r', 'p', 'f', 'c') AND attnum > 0 AND NOT attisdropped
                    UNION ALL SELECT 0, 'domain ' || oid::regtype, typbasetype, typtypmod FROM pg_type WHERE oid >= 16384
                ) used (relation, name, type, modifier)
                WHERE type IN ('numeric'::regtype, 'numeric[]'::regtype) AND modifier >= 4
                  AND (((modifier - 4) & 2047) # 1024) - 1024 NOT BETWEEN 0 AND ((modifier - 4) >> 16) & 65535",
    },
    Feature {
        since: 15,
        what: "unique indexes and constraints NULLS NOT DISTINCT",
        vital: false,
        instead: "make a unique index of coalesce() expressions by hand",
        query: "SELECT indrelid, indexrelid::regclass::text FROM pg_index i WHERE to_jsonb(i) @> '{\"indnullsnotdistinct\": true}'",
    },
    Feature {
        since: 15,
        what: "views with security_invoker",
        vital: false,
        instead: "without it a view reads with its owner's rights: make it by hand only if that is safe",
        query: "SELECT oid, oid::regclass::text FROM pg_class WHERE relkind = 'v' AND reloptions::text ~ 'security_invoker='",
    },
    Feature {
        since: 15,
        what: "foreign keys with ON DELETE SET NULL or SET DEFAULT for some columns",
        vital: false,
        instead: "make the foreign key without the list of columns by hand",
        query: "SELECT conrelid, quote_ident(conname) || ' on ' || conrelid::regclass FROM pg_constraint k
                WHERE contype = 'f' AND conparentid = 0 AND jsonb_typeof(to_jsonb(k) -> 'confdelsetcols') = 'array'",
    },
    Feature {
        since: 15,
        what: "publications of schemas, of chosen rows or of chosen columns",
        vital: false,
        instead: "make the publication with whole tables by hand",
        query: "SELECT 0::oid, quote_ident(p.pubname) FROM pg_publication p
                WHERE EXISTS (SELECT FROM pg_publication_namespace n WHERE n.pnpubid = p.oid)
                   OR EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND (
                        to_jsonb(r) ->> 'prqual' IS NOT NULL OR to_jsonb(r) ->> 'prattrs' IS NOT NULL))",
    },
    Feature {
        since: 16,
        what: "ICU collations with rules of their own",
        vital: true,
        instead: "use a collation without rules",
        query: "SELECT 0::oid, quote_ident(nspname) || '.' || quote_ident(collname) FROM pg_collation c
                JOIN pg_namespace n ON n.oid = collnamespace WHERE to_jsonb(c) ->> 'collicurules' IS NOT NULL",
    },
    Feature {
        since: 16,
        what: "subscriptions with parallel streaming",
        vital: false,
        instead: "ALTER SUBSCRIPTION ... SET (streaming = on)",
        query: "SELECT 0::oid, quote_ident(subname) FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
                WHERE d.datname = current_database() AND s.substream::text = 'p'",
    },
    Feature {
        since: 17,
        what: "identity columns in partitions: only rows that go through the partitioned table get a value",
        vital: false,
        instead: "give the partitions' columns a default from a sequence, if the application inserts into them",
        query: "SELECT attrelid, attrelid::regclass || '.' || quote_ident(attname) FROM pg_attribute a
                JOIN pg_class c ON c.oid = attrelid WHERE c.relkind = 'p' AND NOT c.relispartition AND attidentity <> ''",
    },
    Feature {
        since: 17,
        what: "partitioned tables with an access method of their own",
        vital: true,
        instead: "ALTER TABLE ... SET ACCESS METHOD DEFAULT",
        query: "SELECT oid, oid::regclass::text FROM pg_class WHERE relkind = 'p' AND relam <> 0",
    },
    Feature {
        since: 17,
        what: "collations of the builtin provider",
        vital: true,
        instead: "use the collation \"C\" or an ICU collation",
        query: "SELECT 0::oid, quote_ident(nspname) || '.' || quote_ident(collname) FROM pg_collation c
                JOIN pg_namespace n ON n.oid = collnamespace WHERE c.collprovider = 'b' AND c.oid >= 16384",
    },
    Feature {
        since: 17,
        what: "exclusion constraints of partitioned tables",
        vital: false,
        instead: "make the constraint on each partition by hand",
        query: "SELECT conrelid, quote_ident(conname) || ' on ' || conrelid::regclass FROM pg_constraint k
                JOIN pg_class c ON c.oid = conrelid WHERE contype = 'x' AND c.relkind = 'p' AND conparentid = 0",
    },
    Feature {
        since: 17,
        what: "grants of MAINTAIN",
        vital: false,
        instead: "who was granted it needs the table's owner to VACUUM, ANALYZE, REINDEX or REFRESH there",
        query: "SELECT c.oid, c.oid::regclass || ' to ' || CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
                FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
                WHERE a.privilege_type = 'MAINTAIN' AND a.grantee <> c.relowner
                UNION ALL
                SELECT 0, 'default privileges of ' || defaclrole::regrole || ' to '
                          || CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
                FROM pg_default_acl CROSS JOIN LATERAL aclexplode(defaclacl) a
                WHERE a.privilege_type = 'MAINTAIN' AND a.grantee <> defaclrole",
    },
    Feature {
        since: 17,
        what: "event triggers on login",
        vital: false,
        instead: "there is none before",
        query: "SELECT 0::oid, quote_ident(evtname) FROM pg_event_trigger WHERE evtevent = 'login'",
    },
    Feature {
        since: 18,
        what: "virtual generated columns",
        vital: true,
        instead: "make them STORED, or columns of a view",
        query: "SELECT attrelid, attrelid::regclass || '.' || quote_ident(attname) FROM pg_attribute
                WHERE attgenerated = 'v' AND NOT attisdropped",
    },
    Feature {
        since: 18,
        what: "columns NOT NULL without inheritance, or in an inheriting table's own right",
        vital: true,
        instead: "ALTER TABLE ... ALTER COLUMN ... DROP NOT NULL, or use a CHECK constraint",
        query: "SELECT conrelid, quote_ident(conname) || ' on ' || conrelid::regclass FROM pg_constraint
                WHERE contype = 'n' AND convalidated AND conrelid <> 0 AND (connoinherit OR conislocal AND EXISTS (
                    SELECT FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                    WHERE a.attrelid = conrelid AND a.attnum = conkey[1] AND NOT a.attislocal AND NOT c.relispartition))",
    },
    Feature {
        since: 18,
        what: "storage parameters that are new in 18",
        vital: true,
        instead: "ALTER TABLE ... RESET them",
        query: "SELECT coalesce(t.oid, c.oid), coalesce(t.oid, c.oid)::regclass || ': ' || option FROM pg_class c
                CROSS JOIN LATERAL unnest(c.reloptions) option LEFT JOIN pg_class t ON t.reltoastrelid = c.oid
                WHERE option ~ '^(autovacuum_vacuum_max_threshold|vacuum_max_eager_freeze_failure_rate)='",
    },
    Feature {
        since: 18,
        what: "NOT NULL constraints NOT VALID",
        vital: false,
        instead: "make a CHECK (... IS NOT NULL) NOT VALID by hand",
        query: "SELECT conrelid, quote_ident(conname) || ' on ' || conrelid::regclass FROM pg_constraint
                WHERE contype = 'n' AND NOT convalidated",
    },
    Feature {
        since: 18,
        what: "temporal keys (WITHOUT OVERLAPS, PERIOD)",
        vital: false,
        instead: "make an exclusion constraint by hand",
        query: "SELECT conrelid, quote_ident(conname) || ' on ' || conrelid::regclass FROM pg_constraint k
                WHERE conparentid = 0 AND to_jsonb(k) @> '{\"conperiod\": true}'",
    },
    Feature {
        since: 18,
        what: "constraints NOT ENFORCED",
        vital: false,
        instead: "leave them out: they hold nothing",
        query: "SELECT conrelid, quote_ident(conname) || ' on ' || conrelid::regclass FROM pg_constraint k
                WHERE conparentid = 0 AND to_jsonb(k) @> '{\"conenforced\": false}'",
    },
    Feature {
        since: 18,
        what: "foreign keys of partitioned tables NOT VALID",
        vital: false,
        instead: "make the foreign key on each partition by hand",
        query: "SELECT conrelid, quote_ident(conname) || ' on ' || conrelid::regclass FROM pg_constraint k
                JOIN pg_class c ON c.oid = conrelid
                WHERE contype = 'f' AND NOT convalidated AND conparentid = 0 AND c.relkind = 'p'
                  AND NOT to_jsonb(k) @> '{\"conenforced\": false}'",
    },
    Feature {
        since: 18,
        what: "comments on NOT NULL constraints",
        vital: false,
        instead: "comment on the column",
        query: "SELECT conrelid, quote_ident(conname) || ' on ' || conrelid::regclass
                FROM pg_description JOIN pg_constraint k ON classoid = 'pg_constraint'::regclass AND objoid = k.oid
                WHERE contype = 'n' AND conrelid <> 0",
    },
    Feature {
        since: 18,
        what: "default privileges on large objects",
        vital: false,
        instead: "grant on each large object",
        query: "SELECT 0::oid, 'of ' || defaclrole::regrole FROM pg_default_acl WHERE defaclobjtype = 'L'",
    },
    Feature {
        since: 18,
        what: "publications of generated columns",
        vital: false,
        instead: "make the publication without publish_generated_columns by hand",
        query: "SELECT 0::oid, quote_ident(pubname) FROM pg_publication p WHERE to_jsonb(p) ->> 'pubgencols' NOT IN ('n', 'false')",
    },
];

/// Not a matter of the source alone: pg_dump 15 and newer spell the difference for older sources too.
const SEQUENCES: Feature = Feature {
    since: 15,
    what: "unlogged sequences, and logged identity sequences of unlogged tables",
    vital: true,
    instead: "ALTER SEQUENCE ... SET LOGGED, drop the identity of the unlogged table, or, from 14 to 14, install postgresql-client-14",
    query: "SELECT s.oid, s.oid::regclass::text FROM pg_class s
            LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid
                AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'i'
            LEFT JOIN pg_class t ON t.oid = d.refobjid
            WHERE s.relkind = 'S' AND s.relpersistence <> coalesce(t.relpersistence, 'p') AND s.relpersistence <> 't'",
};

/// What this database holds that a server of major `older` does not know, as a pg_dump of major `dump` spells it.
pub async fn features(
    session: &Session,
    excluded: &HashSet<Oid>,
    older: u32,
    dump: u32,
) -> Result<Vec<Newer>, Error> {
    let server = session.server_version() / 10_000;
    let excluded: Vec<Oid> = excluded.iter().copied().collect();
    // What is newer than the server it cannot hold, nor does it have the catalogs to ask for it.
    let known = FEATURES.iter().filter(|feature| feature.since <= server);
    let spelled = (dump >= SEQUENCES.since).then_some(&SEQUENCES);
    let mut found = Vec::new();
    for feature in known.chain(spelled).filter(|feature| feature.since > older) {
        let query = format!(
            "SELECT f.name FROM ({}) f (relation, name)
             WHERE f.relation <> ALL ($1) AND (f.relation = 0 OR {}) ORDER BY 1",
            feature.query,
            of_the_user("f.relation"),
        );
        let rows = session.query(&query, &[&excluded]).await?;
        if !rows.is_empty() {
            found.push(Newer {
                since: feature.since,
                what: feature.what.into(),
                vital: feature.vital,
                instead: feature.instead.into(),
                count: rows.len() as u64,
                examples: rows.iter().take(EXAMPLES).map(|row| row.get(0)).collect(),
            });
        }
    }
    Ok(found)
}

/// A condition: the relation is in no schema of PostgreSQL's or ours, and belongs to no extension.
pub(super) fn of_the_user(oid: &str) -> String {
    format!(
        "EXISTS (SELECT FROM pg_class own JOIN pg_namespace own_schema ON own_schema.oid = own.relnamespace
                 WHERE own.oid = {oid} AND NOT {} AND NOT EXISTS (
                     SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = own.oid AND e.deptype = 'e'))",
        foreign_schema("own_schema")
    )
}

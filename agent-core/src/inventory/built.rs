//! What is built on the tables or beside them: indexes and the constraints they carry, foreign keys, sequence positions,
//! materialized views; and what a selection leaves out of the archive.
use std::collections::HashSet;

use pgconvoy_proto::model::{
    Column, Entry, Finding, ForeignKey, IndexOn, KeyStatements, Oid, SequenceValue, Severity, View,
    Work,
};
use pgconvoy_proto::selection::{Filter, Unread};
use tokio_postgres::Error;

use super::{FIRST_NORMAL_OID, foreign_schema, query_quoted};
use crate::session::{Session, qualified};

/// Relations (tables, partitioned tables, views, materialized views, sequences) that a filter leaves out.
pub async fn excluded_relations(session: &Session, filter: &Filter) -> Result<HashSet<Oid>, Error> {
    let query = format!(
        "SELECT c.oid, n.nspname, coalesce(o.relname, c.relname), coalesce(o.nspname, n.nspname)
         FROM pg_class c
         JOIN pg_namespace n ON n.oid = c.relnamespace
         LEFT JOIN LATERAL (
             -- A sequence goes with the table that owns it.
             SELECT t.relname, tn.nspname FROM pg_depend d
             JOIN pg_class t ON t.oid = d.refobjid JOIN pg_namespace tn ON tn.oid = t.relnamespace
             WHERE c.relkind = 'S' AND d.classid = 'pg_class'::regclass AND d.objid = c.oid
               AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')) o ON true
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND NOT {}",
        foreign_schema("n"),
    );
    let rows = session.query(&query, &[]).await?;
    Ok(rows
        .iter()
        .filter(|row| !filter.admits(row.get(3), row.get(2)))
        .map(|row| row.get(0))
        .collect())
}

/// The archive's entries that belong to excluded relations or schemas.
pub async fn skipped_entries(
    session: &Session,
    filter: &Filter,
    excluded: &HashSet<Oid>,
) -> Result<Vec<Entry>, Error> {
    let query = format!(
        "SELECT oid, nspname FROM pg_namespace n WHERE NOT {}",
        foreign_schema("n")
    );
    let schemas: Vec<Oid> = session
        .query(&query, &[])
        .await?
        .iter()
        .filter(|row| !filter.admits_schema(row.get(1)))
        .map(|row| row.get(0))
        .collect();
    let relations: Vec<Oid> = excluded.iter().copied().collect();
    // Row level security's entries have no catalog of their own: (0, table).
    let rows = session
        .query(
            "SELECT 'pg_class'::regclass::oid, unnest($1::oid[])
             UNION ALL SELECT 0::oid, unnest($1::oid[])
             UNION ALL SELECT 'pg_class'::regclass::oid, indexrelid FROM pg_index WHERE indrelid = ANY ($1)
             UNION ALL SELECT tableoid, oid FROM pg_constraint WHERE conrelid = ANY ($1) OR confrelid = ANY ($1)
             UNION ALL SELECT tableoid, oid FROM pg_trigger WHERE tgrelid = ANY ($1)
             UNION ALL SELECT tableoid, oid FROM pg_rewrite WHERE ev_class = ANY ($1)
             UNION ALL SELECT tableoid, oid FROM pg_policy WHERE polrelid = ANY ($1)
             UNION ALL SELECT tableoid, oid FROM pg_attrdef WHERE adrelid = ANY ($1)
             UNION ALL SELECT tableoid, oid FROM pg_statistic_ext WHERE stxrelid = ANY ($1)
             UNION ALL SELECT tableoid, oid FROM pg_publication_rel WHERE prrelid = ANY ($1)
             UNION ALL SELECT 'pg_namespace'::regclass::oid, unnest($2::oid[])
             UNION ALL SELECT tableoid, oid FROM pg_proc WHERE pronamespace = ANY ($2)
             UNION ALL SELECT tableoid, oid FROM pg_type WHERE typnamespace = ANY ($2)
             UNION ALL SELECT tableoid, oid FROM pg_operator WHERE oprnamespace = ANY ($2)
             UNION ALL SELECT tableoid, oid FROM pg_opclass WHERE opcnamespace = ANY ($2)
             UNION ALL SELECT tableoid, oid FROM pg_opfamily WHERE opfnamespace = ANY ($2)
             UNION ALL SELECT tableoid, oid FROM pg_collation WHERE collnamespace = ANY ($2)
             UNION ALL SELECT tableoid, oid FROM pg_conversion WHERE connamespace = ANY ($2)
             UNION ALL SELECT tableoid, oid FROM pg_ts_dict WHERE dictnamespace = ANY ($2)
             UNION ALL SELECT tableoid, oid FROM pg_ts_config WHERE cfgnamespace = ANY ($2)
             UNION ALL SELECT tableoid, oid FROM pg_ts_parser WHERE prsnamespace = ANY ($2)
             UNION ALL SELECT tableoid, oid FROM pg_ts_template WHERE tmplnamespace = ANY ($2)",
            &[&relations, &schemas],
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

/// Bytes of an index from which on its key is built in two statements: below, it takes no time in which anybody could read.
const LARGE_KEY: i64 = 8 << 20;

/// Keys of which the archive's entry says no more than two statements can: it also clusters by the index, makes it the replica
/// identity, and sets its statistics, its dependence on an extension and its tablespace (pg_dump.c, dumpConstraint).
const KEY: &str = "k.contype IN ('p', 'u') AND t.relkind = 'r' AND x.relam = 403 AND x.reltablespace = 0
    AND k.conname = x.relname AND NOT i.indisclustered AND NOT i.indisreplident
    AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = x.oid AND a.attstattarget >= 0)
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = x.oid AND d.deptype = 'x')";

/// Functions of an index that may read tables: those that somebody made who does not write C. Found by what the index or its exclusion
/// constraint depends on, through operators, operator classes and domains. A table's own columns lead nowhere.
const MAY_READ: &str = "WITH RECURSIVE needs (class, oid, on_class, on_oid) AS (
         SELECT classid, objid, refclassid, refobjid FROM pg_depend
         WHERE classid IN ('pg_operator'::regclass, 'pg_type'::regclass, 'pg_constraint'::regclass)
         UNION ALL SELECT 'pg_opclass'::regclass, c.oid, 'pg_proc'::regclass, p.amproc
         FROM pg_opclass c JOIN pg_amproc p ON p.amprocfamily = c.opcfamily
         UNION ALL SELECT 'pg_opclass'::regclass, c.oid, 'pg_operator'::regclass, o.amopopr
         FROM pg_opclass c JOIN pg_amop o ON o.amopfamily = c.opcfamily
         UNION ALL SELECT 'pg_type'::regclass, contypid, 'pg_constraint'::regclass, oid FROM pg_constraint WHERE contypid <> 0
     ), calls (index, class, oid) AS (
         SELECT i.indexrelid, d.refclassid, d.refobjid
         FROM pg_index i LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype = 'x'
         JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
                          OR d.classid = 'pg_constraint'::regclass AND d.objid = k.oid
         WHERE i.indexprs IS NOT NULL OR i.indpred IS NOT NULL OR k.oid IS NOT NULL
         UNION SELECT c.index, n.on_class, n.on_oid FROM calls c JOIN needs n ON n.class = c.class AND n.oid = c.oid
     ), may_read AS (
         SELECT DISTINCT c.index FROM calls c JOIN pg_proc p ON p.oid = c.oid JOIN pg_language l ON l.oid = p.prolang
         WHERE c.class = 'pg_proc'::regclass AND l.lanname NOT IN ('internal', 'c')";

/// Indexes of user tables, partitioned tables and materialized views, the largest first. Invalid ones stay behind, as with pg_dump, but for
/// those of partitioned tables: they are invalid as long as a partition lacks its index.
pub async fn indexes(session: &Session, excluded: &HashSet<Oid>) -> Result<Vec<Work>, Error> {
    let query = format!(
        "{MAY_READ} AND p.oid >= {FIRST_NORMAL_OID})
         SELECT x.oid, n.nspname, x.relname, i.indrelid, t.relkind::text, k.oid, pg_relation_size(x.oid),
                'pg_class'::regclass::oid, 'pg_constraint'::regclass::oid,
                CASE WHEN {KEY} AND pg_relation_size(x.oid) >= {LARGE_KEY} THEN pg_get_indexdef(x.oid) END,
                format('ALTER TABLE ONLY %I.%I ADD CONSTRAINT %I %s USING INDEX %I%s%s', n.nspname, t.relname, x.relname,
                       CASE k.contype WHEN 'p' THEN 'PRIMARY KEY' ELSE 'UNIQUE' END, x.relname,
                       CASE WHEN k.condeferrable THEN ' DEFERRABLE' END,
                       CASE WHEN k.condeferred THEN ' INITIALLY DEFERRED' END),
                x.oid IN (SELECT index FROM may_read)
         FROM pg_index i
         JOIN pg_class x ON x.oid = i.indexrelid
         JOIN pg_class t ON t.oid = i.indrelid
         JOIN pg_namespace n ON n.oid = x.relnamespace
         LEFT JOIN pg_constraint k ON k.conindid = x.oid AND k.conrelid = t.oid AND k.contype IN ('p', 'u', 'x')
         WHERE NOT {} AND t.relkind IN ('r', 'p', 'm') AND t.relpersistence <> 't' AND (i.indisvalid OR t.relkind = 'p')
           AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                           AND d.objid = t.oid AND d.deptype = 'e')
         ORDER BY 7 DESC, 1",
        foreign_schema("n"),
    );
    let rows = query_quoted(session, &query, &[]).await?;
    let works = rows
        .iter()
        .filter(|row| !excluded.contains(&row.get(3)))
        .map(|row| {
            let constraint: Option<Oid> = row.get(5);
            let create: Option<String> = row.get(9);
            let size: i64 = row.get(6);
            let entry = match constraint {
                Some(oid) => Entry {
                    class: row.get(8),
                    oid,
                },
                None => Entry {
                    class: row.get(7),
                    oid: row.get(0),
                },
            };
            Work::Index {
                entry,
                schema: row.get(1),
                name: row.get(2),
                table: row.get(3),
                on: match row.get::<_, &str>(4) {
                    "p" => IndexOn::Partitioned,
                    "m" => IndexOn::MaterializedView,
                    _ if row.get(11) => IndexOn::TableAndOthers,
                    _ => IndexOn::Table,
                },
                constraint: constraint.is_some(),
                key: create.map(|create| KeyStatements {
                    create,
                    adopt: row.get(10),
                }),
                size_bytes: size as u64,
            }
        });
    Ok(works.collect())
}

/// A key's columns compared as PostgreSQL does (see ri_triggers.c): by the operators that it was made with, cast to their types, under the
/// referenced column's collation.
const EQUALITIES: &str = "
    SELECT array_agg(format('p.%I%s OPERATOR(%I.%s) c.%I%s%s', theirs.attname,
               CASE WHEN theirs.atttypid <> o.oprleft THEN format('::%I.%I', ln.nspname, l.typname) END,
               opn.nspname, o.oprname, mine.attname,
               CASE WHEN mine.atttypid <> o.oprright THEN format('::%I.%I', hn.nspname, h.typname) END,
               CASE WHEN mine.attcollation <> theirs.attcollation THEN format(' COLLATE %I.%I', cn.nspname, c.collname) END) ORDER BY u.n)
    FROM unnest(k.conkey, k.confkey, k.conpfeqop) WITH ORDINALITY u (mine, theirs, operator, n)
    JOIN pg_attribute mine ON mine.attrelid = k.conrelid AND mine.attnum = u.mine
    JOIN pg_attribute theirs ON theirs.attrelid = k.confrelid AND theirs.attnum = u.theirs
    JOIN pg_operator o ON o.oid = u.operator JOIN pg_namespace opn ON opn.oid = o.oprnamespace
    JOIN pg_type l ON l.oid = o.oprleft JOIN pg_namespace ln ON ln.oid = l.typnamespace
    JOIN pg_type h ON h.oid = o.oprright JOIN pg_namespace hn ON hn.oid = h.typnamespace
    LEFT JOIN pg_collation c ON c.oid = theirs.attcollation LEFT JOIN pg_namespace cn ON cn.oid = c.collnamespace";

/// Foreign keys, those of partitions that come with their parent's left out. One that points outside the selection
/// is a finding.
pub async fn foreign_keys(
    session: &Session,
    excluded: &HashSet<Oid>,
) -> Result<(Vec<ForeignKey>, Vec<Finding>), Error> {
    let query = format!(
        "SELECT k.conname, n.nspname, t.relname, t.oid, t.relkind = 'p', pg_get_constraintdef(k.oid),
                k.convalidated, rn.nspname, r.relname, r.oid, k.confmatchtype = 'f',
                (SELECT array_agg(a.attname::text ORDER BY u.n) FROM unnest(k.conkey) WITH ORDINALITY u (attnum, n)
                 JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = u.attnum),
                (SELECT array_agg(a.attname::text ORDER BY u.n) FROM unnest(k.confkey) WITH ORDINALITY u (attnum, n)
                 JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum = u.attnum),
                coalesce((to_jsonb(k) ->> 'conperiod')::bool, false), ({EQUALITIES}), r.relkind <> 'p'
         FROM pg_constraint k
         JOIN pg_class t ON t.oid = k.conrelid
         JOIN pg_namespace n ON n.oid = t.relnamespace
         JOIN pg_class r ON r.oid = k.confrelid
         JOIN pg_namespace rn ON rn.oid = r.relnamespace
         WHERE k.contype = 'f' AND k.conparentid = 0 AND NOT {}
           AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                           AND d.objid = t.oid AND d.deptype = 'e')
         ORDER BY 2, 3, 1",
        foreign_schema("n"),
    );
    let mut keys = Vec::new();
    let mut findings = Vec::new();
    for row in query_quoted(session, &query, &[]).await? {
        let key = ForeignKey {
            name: row.get(0),
            schema: row.get(1),
            table: row.get(2),
            table_oid: row.get(3),
            partitioned: row.get(4),
            definition: row.get(5),
            validated: row.get(6),
            columns: row.get(11),
            referenced_schema: row.get(7),
            referenced_table: row.get(8),
            referenced_columns: row.get(12),
            match_full: row.get(10),
            period: row.get(13),
            equalities: row.get(14),
            referenced_only: row.get(15),
        };
        match (
            excluded.contains(&key.table_oid),
            excluded.contains(&row.get(9)),
        ) {
            (true, _) => {}
            (false, false) => keys.push(key),
            (false, true) => findings.push(
                Finding::new(
                    Severity::Warning,
                    "foreign-key-outside-selection",
                    format!("{}.{}: {}", key.schema, key.table, key.name),
                    format!(
                        "it references {}.{}, which is not selected: not created",
                        key.referenced_schema, key.referenced_table
                    ),
                )
                .hint("select the referenced table too, or add the foreign key by hand"),
            ),
        }
    }
    Ok((keys, findings))
}

/// Columns of inheritance children that may be null although an ancestor's may not (PostgreSQL 17 and older let a child drop
/// what it inherits).
pub async fn nullable_children(
    session: &Session,
    excluded: &HashSet<Oid>,
) -> Result<Vec<Column>, Error> {
    let query = format!(
        "WITH RECURSIVE ancestors (oid, ancestor) AS (
             SELECT inhrelid, inhparent FROM pg_inherits
             UNION SELECT a.oid, i.inhparent FROM ancestors a JOIN pg_inherits i ON i.inhrelid = a.ancestor
         )
         SELECT c.oid, n.nspname, c.relname, a.attname
         FROM pg_attribute a
         JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE a.attinhcount > 0 AND NOT a.attnotnull AND NOT a.attisdropped AND c.relkind = 'r' AND NOT c.relispartition
           AND NOT {} AND EXISTS (
               SELECT FROM ancestors i JOIN pg_attribute p ON p.attrelid = i.ancestor
               WHERE i.oid = a.attrelid AND p.attname = a.attname AND p.attnotnull)
         ORDER BY 2, 3, a.attnum",
        foreign_schema("n"),
    );
    let rows = session.query(&query, &[]).await?;
    let columns = rows.iter().filter(|row| !excluded.contains(&row.get(0)));
    Ok(columns
        .map(|row| Column {
            schema: row.get(1),
            table: row.get(2),
            name: row.get(3),
        })
        .collect())
}

/// Where sequences stand. Positions are not transactional: read after the snapshot, they are never behind its rows. Those of tables that are
/// not read are left alone: reading one locks it until the transaction ends.
pub async fn sequences(
    session: &Session,
    excluded: &HashSet<Oid>,
    unread: &Unread,
) -> Result<Vec<SequenceValue>, Error> {
    let query = format!(
        "SELECT c.oid, n.nspname, c.relname, tn.nspname, t.relname
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
             AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
         LEFT JOIN pg_class t ON t.oid = d.refobjid
         LEFT JOIN pg_namespace tn ON tn.oid = t.relnamespace
         WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND NOT {} ORDER BY 2, 3",
        foreign_schema("n"),
    );
    type Names = (String, String);
    let named: Vec<(Names, Option<Names>)> = session
        .query(&query, &[])
        .await?
        .iter()
        .filter(|row| !excluded.contains(&row.get(0)))
        .map(|row| {
            let owner: (Option<String>, Option<String>) = (row.get(3), row.get(4));
            ((row.get(1), row.get(2)), owner.0.zip(owner.1))
        })
        .filter(|(_, owner): &(_, Option<Names>)| {
            let is_unread = |(schema, table): &Names| unread.holds(schema, table);
            !owner.as_ref().is_some_and(is_unread)
        })
        .collect();
    let mut values = Vec::with_capacity(named.len());
    for names in named.chunks(200) {
        let one = |(at, ((schema, name), _)): (usize, &(Names, _))| {
            format!(
                "SELECT {at}, last_value, is_called FROM {}",
                qualified(schema, name)
            )
        };
        let query: Vec<String> = names.iter().enumerate().map(one).collect();
        for row in session.query(&query.join(" UNION ALL "), &[]).await? {
            let ((schema, name), owner) = names[row.get::<_, i32>(0) as usize].clone();
            values.push(SequenceValue {
                schema,
                name,
                last_value: row.get(1),
                is_called: row.get(2),
                owner,
                stays: false,
            });
        }
    }
    Ok(values)
}

/// Materialized views that are populated, each after those that it reads: directly, through other views, or through functions whose
/// body pg_depend knows. What a view reads, reads less than the view itself: the number of views read is an order.
pub async fn materialized_views(
    session: &Session,
    excluded: &HashSet<Oid>,
) -> Result<Vec<View>, Error> {
    let query = format!(
        "WITH RECURSIVE needs (class, oid, on_class, on_oid) AS (
             SELECT classid, objid, refclassid, refobjid FROM pg_depend WHERE refobjid >= {FIRST_NORMAL_OID}
             -- A view's query is its rule.
             UNION SELECT 'pg_class'::regclass::oid, ev_class, 'pg_rewrite'::regclass::oid, oid FROM pg_rewrite
             WHERE rulename = '_RETURN' AND oid >= {FIRST_NORMAL_OID}
         ), reads (view, class, oid) AS (
             SELECT oid, 'pg_class'::regclass::oid, oid FROM pg_class WHERE relkind = 'm'
             UNION SELECT r.view, n.on_class, n.on_oid FROM reads r JOIN needs n ON n.class = r.class AND n.oid = r.oid
         ), ranks AS (
             SELECT r.view, count(*) AS rank FROM reads r JOIN pg_class m ON m.oid = r.oid AND m.relkind = 'm'
             WHERE r.class = 'pg_class'::regclass GROUP BY 1
         )
         SELECT c.tableoid, c.oid, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         JOIN ranks ON ranks.view = c.oid
         WHERE c.relkind = 'm' AND c.relispopulated AND NOT {} ORDER BY ranks.rank, c.oid",
        foreign_schema("n"),
    );
    let rows = session.query(&query, &[]).await?;
    let views = rows.iter().map(|row| View {
        entry: Entry {
            class: row.get(0),
            oid: row.get(1),
        },
        schema: row.get(2),
        name: row.get(3),
    });
    Ok(views
        .filter(|view| !excluded.contains(&view.entry.oid))
        .collect())
}

/// Partitioned tables: ANALYZE gathers their inherited statistics, autovacuum never does.
pub async fn partitioned_tables(
    session: &Session,
    excluded: &HashSet<Oid>,
) -> Result<Vec<(String, String)>, Error> {
    let query = format!(
        "SELECT c.oid, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'p' AND NOT {} AND NOT EXISTS (
             -- ANALYZE would ask the foreign server.
             SELECT FROM pg_partition_tree(c.oid) p JOIN pg_class f ON f.oid = p.relid WHERE f.relkind = 'f')
         ORDER BY 2, 3",
        foreign_schema("n"),
    );
    let rows = session.query(&query, &[]).await?;
    Ok(rows
        .iter()
        .filter(|row| !excluded.contains(&row.get(0)))
        .map(|row| (row.get(1), row.get(2)))
        .collect())
}

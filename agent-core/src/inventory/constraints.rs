//! What tables demand of their rows: check constraints, those of the domains that columns are of, unique indexes, exclusion constraints.
use pgconvoy_proto::model::{Demand, HeldConstraint, Key};
use tokio_postgres::{Error, Row};

use crate::session::Session;

/// NULLS NOT DISTINCT is known from here on.
const NULLS_NOT_DISTINCT_SINCE: u32 = 150_000;

/// By the table's OID.
pub async fn read(session: &Session, tables: &[u32]) -> Result<Vec<(u32, HeldConstraint)>, Error> {
    let mut found = Vec::new();
    for row in session.query(CHECKS, &[&tables]).await? {
        let demand = match row.get(4) {
            Some(sql) => Demand::Check {
                sql,
                columns: row.get(5),
            },
            None => Demand::Other,
        };
        found.push(constraint(&row, demand));
    }
    let nulls = match session.server_version() >= NULLS_NOT_DISTINCT_SINCE {
        true => "i.indnullsnotdistinct",
        false => "false",
    };
    let query = UNIQUE.replace("{nulls}", nulls);
    for row in session.query(&query, &[&tables]).await? {
        let (sql, columns): (Vec<String>, Vec<Option<String>>) = (row.get(4), row.get(5));
        let keys = sql.into_iter().zip(columns);
        let demand = Demand::Unique {
            keys: keys.map(|(sql, column)| Key { sql, column }).collect(),
            predicate: row.get(6),
            nulls_equal: row.get(7),
        };
        found.push(constraint(&row, demand));
    }
    Ok(found)
}

fn constraint(row: &Row, demand: Demand) -> (u32, HeldConstraint) {
    let constraint = HeldConstraint {
        name: row.get(1),
        definition: row.get(2),
        fulfilled: row.get(3),
        demand,
    };
    (row.get(0), constraint)
}

/// In the condition of a domain the value is called VALUE: within the inner query that is a column's name.
const CHECKS: &str = "
    WITH RECURSIVE domain AS (
        SELECT a.attrelid, a.attname, t.oid, t.typbasetype FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped AND t.typtype = 'd'
        UNION ALL SELECT d.attrelid, d.attname, t.oid, t.typbasetype FROM domain d JOIN pg_type t ON t.oid = d.typbasetype
        WHERE t.typtype = 'd')
    SELECT k.conrelid, k.conname::text, pg_get_constraintdef(k.oid), k.convalidated, CASE k.contype WHEN 'c' THEN pg_get_expr(k.conbin, k.conrelid) END,
           ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey) ORDER BY a.attnum)
    FROM pg_constraint k WHERE k.conrelid = ANY ($1) AND k.contype IN ('c', 'x')
    UNION ALL
    SELECT d.attrelid, k.conname::text, format('%s, of the domain %s of column %I', pg_get_constraintdef(k.oid), d.oid::regtype, d.attname),
           k.convalidated,
           format('(SELECT %s FROM (SELECT %I AS value) of_domain)', pg_get_expr(k.conbin, 0), d.attname), ARRAY[d.attname::text]
    FROM domain d JOIN pg_constraint k ON k.contypid = d.oid AND k.contype = 'c'
    ORDER BY 1, 2";

const UNIQUE: &str = "
    SELECT i.indrelid, x.relname::text, pg_get_indexdef(x.oid), i.indisvalid, k.sql, k.columns, pg_get_expr(i.indpred, i.indrelid), {nulls}
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid CROSS JOIN LATERAL (
        SELECT array_agg(pg_get_indexdef(x.oid, n, false) ORDER BY n) AS sql, array_agg(a.attname::text ORDER BY n) AS columns
        FROM generate_series(1, i.indnkeyatts) n
        LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[n - 1] AND a.attnum > 0) k
    WHERE i.indrelid = ANY ($1) AND i.indisunique AND i.indislive AND NOT i.indisexclusion
    ORDER BY 1, 2";

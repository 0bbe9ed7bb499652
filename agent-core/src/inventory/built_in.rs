//! What user objects use of PostgreSQL's own: types, functions, catalogs, collations, settings, syntax. pg_depend does not say (what
//! initdb made is pinned): expressions are asked for their nodes, in the text that the catalogs keep of them.
use std::collections::HashSet;

use pgconvoy_proto::facts::{BuiltIn, BuiltInKind, Newer};
use pgconvoy_proto::model::Oid;
use tokio_postgres::{Error, Row};

use super::newer::{EXAMPLES, of_the_user};
use crate::session::Session;

/// Parse nodes, by their tag, or how they begin (src/include/nodes/primnodes.h, parsenodes.h), and since when there is what they stand for.
const SYNTAX: &[(&str, u32, &str)] = &[
    ("MERGEACTION", 15, "MERGE"),
    ("JSONISPREDICATE", 16, "IS JSON"),
    ("JSONCONSTRUCTOREXPR", 16, "SQL/JSON constructors"),
    // The deparser of 16 writes NO INDENT into each. The sixth of XmlExprOp.
    ("XMLEXPR :op 6", 16, "XMLSERIALIZE with NO INDENT"),
    (
        "JSONEXPR",
        17,
        "JSON_EXISTS, JSON_QUERY, JSON_VALUE, JSON_TABLE",
    ),
    ("RETURNINGEXPR", 18, "OLD and NEW in RETURNING"),
];

/// Every expression: its relation (0: none), whether a table or a type cannot be made without it, whose it is, its nodes.
const TREES: &str = "
    SELECT adrelid, true, 'column ' || adrelid::regclass || '.' || quote_ident(attname), adbin::text
    FROM pg_attrdef JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
    UNION ALL
    SELECT conrelid, convalidated, 'constraint ' || quote_ident(conname) || ' on '
        || CASE conrelid WHEN 0 THEN contypid::regtype::text ELSE conrelid::regclass::text END, conbin::text
    FROM pg_constraint WHERE conbin IS NOT NULL AND oid >= 16384
    UNION ALL
    SELECT partrelid, true, 'partition key of ' || partrelid::regclass, partexprs::text
    FROM pg_partitioned_table WHERE partexprs IS NOT NULL
    UNION ALL
    SELECT indrelid, false, 'index ' || indexrelid::regclass, concat(indexprs, indpred)
    FROM pg_index WHERE indexprs IS NOT NULL OR indpred IS NOT NULL
    UNION ALL
    SELECT ev_class, false, CASE rulename WHEN '_RETURN' THEN 'view ' ELSE 'rule ' || quote_ident(rulename) || ' on ' END
        || ev_class::regclass, concat(ev_qual, ev_action)
    FROM pg_rewrite WHERE oid >= 16384
    UNION ALL
    SELECT polrelid, false, 'policy ' || quote_ident(polname) || ' on ' || polrelid::regclass, concat(polqual, polwithcheck)
    FROM pg_policy
    UNION ALL
    SELECT tgrelid, false, 'trigger ' || quote_ident(tgname) || ' on ' || tgrelid::regclass, tgqual::text
    FROM pg_trigger WHERE tgqual IS NOT NULL
    UNION ALL
    SELECT 0, false, 'function ' || p.oid::regprocedure, concat(prosqlbody, proargdefaults)
    FROM pg_proc p WHERE p.oid >= 16384 AND (prosqlbody IS NOT NULL OR proargdefaults IS NOT NULL)
        AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e')";

/// Kind, OID, name where there is no OID, and who uses it. Values of a node are bytes: no text of a user's looks like a node.
const USES: &str = "
    SELECT CASE m[1] WHEN 'relid' THEN 'relation' WHEN 'collOid' THEN 'collation' ELSE 'function' END,
           m[2]::oid, NULL, relation, vital, used_by
    FROM trees CROSS JOIN LATERAL regexp_matches(
        tree, ':(funcid|opfuncid|aggfnoid|winfnoid|relid|collOid) (\\d+)', 'g') m
    UNION ALL
    SELECT 'syntax', 0, m[1], relation, vital, used_by
    FROM trees CROSS JOIN LATERAL regexp_matches(tree, '\\{(XMLEXPR :op \\d+|[A-Z]+)', 'g') m WHERE m[1] = ANY ($2)
    UNION ALL
    SELECT u.kind, u.oid, NULL, attrelid, c.relkind NOT IN ('v', 'm'),
           'column ' || attrelid::regclass || '.' || quote_ident(attname)
    FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid JOIN pg_type t ON t.oid = atttypid
    CROSS JOIN LATERAL (VALUES ('type', CASE t.typcategory WHEN 'A' THEN t.typelem ELSE t.oid END),
                               ('collation', attcollation)) u (kind, oid)
    WHERE c.relkind IN ('r', 'p', 'f', 'c', 'v', 'm') AND attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT 'type', u.oid, NULL, 0, false, 'function ' || p.oid::regprocedure
    FROM pg_proc p CROSS JOIN LATERAL unnest(proargtypes::oid[] || prorettype) u (oid) WHERE p.oid >= 16384
    UNION ALL
    SELECT 'type', typbasetype, NULL, 0, true, 'domain ' || oid::regtype FROM pg_type WHERE typtype = 'd' AND oid >= 16384
    UNION ALL
    SELECT 'setting', 0, split_part(setting, '=', 1), 0, false, 'function ' || p.oid::regprocedure
    FROM pg_proc p CROSS JOIN LATERAL unnest(proconfig) setting WHERE p.oid >= 16384 AND setting !~ '^[^=]*\\.'";

/// What the selected objects use, and the syntax in it that a server of major `older` does not know.
pub async fn used(
    session: &Session,
    excluded: &HashSet<Oid>,
    older: u32,
) -> Result<(Vec<BuiltIn>, Vec<Newer>), Error> {
    let query = format!(
        "WITH trees (relation, vital, used_by, tree) AS MATERIALIZED ({TREES}),
         uses (kind, oid, name, relation, vital, used_by) AS ({USES}),
         named AS (
             SELECT kind, vital, used_by, coalesce(name, proname, typname, relname, collname) AS name, coalesce(pronargs, 0) AS arguments,
                    coalesce(pronargdefaults, 0) AS defaults
             FROM uses u
             LEFT JOIN pg_proc p ON kind = 'function' AND p.oid = u.oid
             LEFT JOIN pg_type t ON kind = 'type' AND t.oid = u.oid
             LEFT JOIN pg_class c ON kind = 'relation' AND c.oid = u.oid
             LEFT JOIN pg_collation l ON kind = 'collation' AND l.oid = u.oid
             WHERE u.oid < 16384 AND relation <> ALL ($1) AND (relation = 0 OR {})
         )
         SELECT kind, name::text, arguments::int4, max(defaults)::int4, bool_or(vital), count(DISTINCT used_by), (array_agg(DISTINCT used_by))[:{EXAMPLES}]
         FROM named WHERE name IS NOT NULL GROUP BY kind, name, arguments ORDER BY kind, name, arguments",
        of_the_user("relation"),
    );
    let excluded: Vec<Oid> = excluded.iter().copied().collect();
    let newer_syntax: Vec<&str> = SYNTAX
        .iter()
        .filter(|(_, since, _)| *since > older)
        .map(|(tag, ..)| *tag)
        .collect();
    let rows = session.query(&query, &[&excluded, &newer_syntax]).await?;
    let built_ins = rows.iter().filter_map(built_in).collect();
    let syntax = rows.iter().filter_map(syntax).collect();
    Ok((built_ins, syntax))
}

fn built_in(row: &Row) -> Option<BuiltIn> {
    Some(BuiltIn {
        kind: BuiltInKind::parse(row.get(0))?,
        name: row.get(1),
        arguments: row.get::<_, i32>(2) as u32,
        defaults: row.get::<_, i32>(3) as u32,
        vital: row.get(4),
        count: row.get::<_, i64>(5) as u64,
        examples: row.get(6),
    })
}

fn syntax(row: &Row) -> Option<Newer> {
    let tag: &str = row.get(1);
    let (_, since, what) = SYNTAX.iter().find(|(known, ..)| *known == tag)?;
    (row.get::<_, &str>(0) == "syntax").then(|| Newer {
        since: *since,
        what: format!("{what} in expressions, views and functions"),
        vital: row.get(4),
        instead: "write it in another way".into(),
        count: row.get::<_, i64>(5) as u64,
        examples: row.get(6),
    })
}

/// Those that the session's server does not know, as positions in the list. A function counts as known by its name and how many
/// arguments it may take: some changed their arguments' types, or got one more with a default, and take the same calls.
pub async fn unknown(session: &Session, built_ins: &[BuiltIn]) -> Result<Vec<usize>, Error> {
    let kinds: Vec<&str> = built_ins.iter().map(|b| b.kind.as_str()).collect();
    let names: Vec<&str> = built_ins.iter().map(|b| b.name.as_str()).collect();
    let arguments: Vec<i32> = built_ins.iter().map(|b| b.arguments as i32).collect();
    let defaults: Vec<i32> = built_ins.iter().map(|b| b.defaults as i32).collect();
    let rows = session
        .query(
            "SELECT position FROM unnest($1::text[], $2::text[], $3::int4[], $4::int4[])
                 WITH ORDINALITY b (kind, name, arguments, defaults, position)
             WHERE NOT CASE kind
                 WHEN 'function' THEN EXISTS (
                     SELECT FROM pg_proc WHERE proname = name AND oid < 16384
                     AND (pronargs >= arguments - defaults AND pronargs - pronargdefaults <= arguments OR provariadic <> 0))
                 WHEN 'type' THEN EXISTS (SELECT FROM pg_type WHERE typname = name AND oid < 16384)
                 WHEN 'relation' THEN EXISTS (SELECT FROM pg_class WHERE relname = name AND oid < 16384)
                 WHEN 'collation' THEN EXISTS (SELECT FROM pg_collation WHERE collname = name AND oid < 16384)
                 WHEN 'setting' THEN EXISTS (SELECT FROM pg_settings s WHERE lower(s.name) = lower(b.name))
                 ELSE true END
             ORDER BY 1",
            &[&kinds, &names, &arguments, &defaults],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| row.get::<_, i64>(0) as usize - 1)
        .collect())
}

//! What roles may do with tables, by whatever way they have come to it: this is what writing is compared by, which is not tried.
use std::collections::HashMap;

use pgconvoy_proto::model::{AskedTable, RightsAsked, RoleRights, TableRights, to_json};
use tokio_postgres::Error;
use tonic::Status;

use super::{become_role, failed, refusal};
use crate::session::Session;

/// By table whole, and by columns where not whole.
const RIGHTS: &str = "
    SELECT c.relrowsecurity,
           pg_catalog.has_schema_privilege(r.oid, n.oid, 'USAGE'),
           ARRAY(SELECT p FROM pg_catalog.unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) p
                 WHERE pg_catalog.has_table_privilege(r.oid, c.oid, p)),
           ARRAY(SELECT p || ' ' || a.attname
                 FROM pg_catalog.unnest('{SELECT,INSERT,UPDATE,REFERENCES}'::text[]) p, pg_catalog.pg_attribute a
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND t.columns::jsonb ? a.attname
                     AND NOT pg_catalog.has_table_privilege(r.oid, c.oid, p)
                     AND pg_catalog.has_column_privilege(r.oid, c.oid, a.attnum, p)
                 ORDER BY p, a.attname),
           t.at
    FROM unnest($2::text[], $3::text[], $4::text[]) WITH ORDINALITY t(schema, name, columns, at)
    JOIN pg_catalog.pg_namespace n ON n.nspname = t.schema
    JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.name
    JOIN pg_catalog.pg_roles r ON r.rolname = $1";

/// In the transaction that the session is in; the session is closed.
pub async fn rights(session: Session, asked: &RightsAsked) -> Result<Vec<RoleRights>, Status> {
    let mut rights = Vec::new();
    for role in &asked.roles {
        rights.push(RoleRights {
            refused: try_role(&session, role).await?,
            tables: of_role(&session, role, &asked.tables)
                .await
                .map_err(failed)?,
        });
    }
    session.close().await;
    Ok(rights)
}

/// Why the agent's role may not become it. The savepoint ends the attempt.
async fn try_role(session: &Session, role: &str) -> Result<Option<String>, Status> {
    session
        .batch_execute("SAVEPOINT role")
        .await
        .map_err(failed)?;
    let refused = match become_role(session, role).await {
        Ok(()) => None,
        Err(error) => Some(because(error)?),
    };
    session
        .batch_execute("ROLLBACK TO SAVEPOINT role")
        .await
        .map_err(failed)?;
    Ok(refused)
}

/// A role that is not there is an invalid value of a setting, whose message names the role alone.
fn because(error: Error) -> Result<String, Status> {
    let message = error.as_db_error().map(|said| said.message().to_owned());
    refusal(error)?;
    Ok(message.unwrap_or_default())
}

async fn of_role(
    session: &Session,
    role: &str,
    tables: &[AskedTable],
) -> Result<Vec<Option<TableRights>>, Error> {
    let names = |part: fn(&AskedTable) -> &String| tables.iter().map(part).collect::<Vec<_>>();
    let columns: Vec<String> = tables.iter().map(|table| to_json(&table.columns)).collect();
    let rows = session
        .query(
            RIGHTS,
            &[&role, &names(|t| &t.schema), &names(|t| &t.name), &columns],
        )
        .await?;
    let mut found: HashMap<i64, TableRights> = HashMap::new();
    for row in rows {
        let at: i64 = row.get(4);
        let Some(table) = tables.get(at as usize - 1) else {
            continue;
        };
        found.insert(
            at,
            told(table, row.get(0), row.get(1), row.get(2), row.get(3)),
        );
    }
    let all = (1..=tables.len() as i64).map(|at| found.remove(&at));
    Ok(all.collect())
}

fn told(
    table: &AskedTable,
    row_security: bool,
    usage: bool,
    whole: Vec<String>,
    of_columns: Vec<String>,
) -> TableRights {
    let of = |wanted: &str| -> Vec<String> {
        let split = of_columns.iter().filter_map(|text| text.split_once(' '));
        split
            .filter(|(right, _)| *right == wanted)
            .map(|(_, column)| column.to_owned())
            .collect()
    };
    let readable = match whole.iter().any(|right| right == "SELECT") {
        true => table.columns.clone(),
        false => {
            let some = of("SELECT");
            let columns = table.columns.iter();
            columns.filter(|c| some.contains(c)).cloned().collect()
        }
    };
    let mut rights: Vec<String> = usage
        .then(|| "USAGE of the schema".to_owned())
        .into_iter()
        .collect();
    rights.extend(whole);
    for right in ["SELECT", "INSERT", "UPDATE", "REFERENCES"] {
        let columns = of(right);
        if !columns.is_empty() {
            rights.push(format!("{right} ({})", columns.join(", ")));
        }
    }
    TableRights {
        row_security,
        rights,
        readable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_on_columns_say_what_can_be_read() {
        let table = AskedTable {
            schema: "s".into(),
            name: "t".into(),
            columns: ["id", "a b", "c"].map(str::to_owned).to_vec(),
            filter: None,
        };
        let of_columns = ["SELECT a b", "SELECT id", "UPDATE c"].map(str::to_owned);
        let told = told(
            &table,
            true,
            true,
            vec!["DELETE".into()],
            of_columns.to_vec(),
        );
        assert_eq!(told.readable, ["id", "a b"]);
        assert_eq!(
            told.rights,
            [
                "USAGE of the schema",
                "DELETE",
                "SELECT (a b, id)",
                "UPDATE (c)"
            ]
        );
    }
}

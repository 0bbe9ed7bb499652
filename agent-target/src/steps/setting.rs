//! Parameters of roles and databases: as ALTER ROLE and ALTER DATABASE take what pg_db_role_setting holds.
use pgconvoy_agent_core::database::Database;
use pgconvoy_agent_core::session::{Session, quote_ident, quote_literal};
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::Setting;
use pgconvoy_proto::names::list::{is_list, names};
use pgconvoy_proto::secrets::Secrets;
use tokio_postgres::Error;
use tonic::Status;

use super::attempt;

/// Runs `alter` (ALTER ROLE x, ALTER DATABASE x) with the setting. The reason, when it could not be, without a veiled value.
pub async fn set(
    session: &Session,
    alter: &str,
    setting: &Setting,
    secrets: &Secrets,
) -> Result<Option<String>, Error> {
    let Some(open) = secrets.reveal(setting) else {
        return Ok(Some("its value did not come along with the archive".into()));
    };
    let refused = attempt(session, &format!("{alter} {}", assignment(&open))).await?;
    Ok(refused.map(|reason| match setting.veiled {
        true => reason.replace(&open.value, "..."),
        false => reason,
    }))
}

/// `SET name TO value`. A list given as one literal would be one name.
fn assignment(setting: &Setting) -> String {
    let value = if is_list(&setting.name) {
        let names = names(&setting.value);
        let literals: Vec<String> = names.iter().map(|name| quote_literal(name)).collect();
        literals.join(", ")
    } else {
        quote_literal(&setting.value)
    };
    format!("SET {} TO {value}", quote_ident(&setting.name))
}

/// Why sessions could not begin with this setting: a library that cannot be loaded ends every one of them, ours too. Tried in a
/// session of its own.
pub async fn obstacle(database: &Database, setting: &Setting) -> Result<Option<String>, Status> {
    let folder = match setting.name.to_lowercase().as_str() {
        "session_preload_libraries" => "",
        "local_preload_libraries" => "$libdir/plugins/",
        _ => return Ok(None),
    };
    let session = database.connect("pgconvoy libraries").await?;
    for library in names(&setting.value).iter().filter(|name| !name.is_empty()) {
        let load = format!("LOAD {}", quote_literal(&format!("{folder}{library}")));
        if let Err(error) = session.batch_execute(&load).await {
            if error.as_db_error().is_none() {
                return Err(status::postgres("loading a library", &error));
            }
            return Ok(Some(status::postgres_text(&error)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: &str) -> String {
        assignment(&Setting {
            name: name.into(),
            value: value.into(),
            veiled: false,
        })
    }

    #[test]
    fn lists_are_given_name_by_name() {
        assert_eq!(
            set("search_path", r#""$user", public, "odd, ""name""""#),
            r#"SET "search_path" TO '$user', 'public', 'odd, "name"'"#
        );
        assert_eq!(set("search_path", r#""""#), r#"SET "search_path" TO ''"#);
        assert_eq!(set("search_path", ""), r#"SET "search_path" TO ''"#);
    }

    #[test]
    fn other_values_are_one_literal() {
        assert_eq!(
            set("pgrst.db_schemas", "a, b"),
            r#"SET "pgrst.db_schemas" TO 'a, b'"#
        );
        assert_eq!(set("x.y", "it's"), r#"SET "x.y" TO 'it''s'"#);
    }
}

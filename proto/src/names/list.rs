//! Parameters that are lists of names: text that the catalogs hold flat, as somebody wrote it, each name quoted or not.
use super::is_plain;

/// GUC_LIST_QUOTE in PostgreSQL's guc_tables.c, as in pg_dump's dumputils.c.
const LISTS: &[&str] = &[
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];
/// Of identifiers: what is not quoted is in lower case.
const IDENTIFIERS: &[&str] = &["search_path", "temp_tablespaces"];

pub fn is_list(parameter: &str) -> bool {
    LISTS.contains(&parameter.to_lowercase().as_str())
}

/// The names of a flat list. One empty name when there is none: `SET x TO` wants a value.
pub fn names(flat: &str) -> Vec<String> {
    let names = pieces(flat).into_iter();
    names.map(|(name, _)| name).collect()
}

/// The list as PostgreSQL writes one that it was given name by name: a dump gives it so.
pub(super) fn settled(parameter: &str, flat: &str) -> String {
    let folds = IDENTIFIERS.contains(&parameter.to_lowercase().as_str());
    let each = pieces(flat).into_iter().map(|(name, is_quoted)| {
        let name = match folds && !is_quoted {
            true => name.to_ascii_lowercase(),
            false => name,
        };
        match is_plain(&name) {
            true => name,
            false => format!("\"{}\"", name.replace('"', "\"\"")),
        }
    });
    each.collect::<Vec<_>>().join(", ")
}

/// The names, and which of them are quoted.
fn pieces(flat: &str) -> Vec<(String, bool)> {
    let mut names = Vec::new();
    let mut rest = flat.trim_start();
    while !rest.is_empty() {
        let (name, after) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (name, after) = quoted_name(quoted);
                ((name, true), after)
            }
            None => {
                let (name, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
                ((name.trim_end().to_owned(), false), after)
            }
        };
        names.push(name);
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    if names.is_empty() {
        names.push((String::new(), true));
    }
    names
}

/// Up to the closing quote, and what comes after it. Two quotes are one.
fn quoted_name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('"') {
        name.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return (name, after),
        }
    }
    (name + rest, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_written_in_one_way() {
        for (flat, written) in [
            ("public,pg_temp", "public, pg_temp"),
            (r#"$user,  "public" , "json""#, r#""$user", public, json"#),
            (r#"Public, "Public""#, r#"public, "Public""#),
            (r#""odd, ""name""",x"#, r#""odd, ""name""", x"#),
            ("", r#""""#),
            (r#""""#, r#""""#),
        ] {
            assert_eq!(settled("search_path", flat), written, "{flat}");
        }
        let libraries = "session_preload_libraries";
        assert_eq!(settled(libraries, "A,b"), r#""A", b"#);
    }
}

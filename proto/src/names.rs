//! Names as people read them, and values of properties as they are compared. The agents quote every name, since each major has its own
//! list of words that need it.
pub mod list;
mod sql;

/// Properties that are nobody's SQL: a quote in them is a quote.
const VERBATIM: &[&str] = &["body", "comment", "name"];

/// The value of a property, without needless quotes.
pub fn value(property: &str, value: &str) -> String {
    if property == "config" {
        let lines: Vec<String> = value.lines().map(config).collect();
        return lines.join("\n");
    }
    if let Some(parameter) = property.strip_prefix("setting ") {
        let parameter = parameter.split(' ').next().unwrap_or(parameter);
        return setting(parameter, value);
    }
    let verbatim = VERBATIM.contains(&property) || property.starts_with("label of ");
    if verbatim {
        value.to_owned()
    } else {
        sql::settled(&bare(value))
    }
}

/// A line of a function's SET clauses: `parameter=value`.
fn config(line: &str) -> String {
    match line.split_once('=') {
        Some((parameter, value)) => format!("{parameter}={}", setting(parameter, value)),
        None => line.to_owned(),
    }
}

/// What a parameter is set to. `FROM CURRENT` keeps a list as the session had it, and a dump gives it name by name.
fn setting(parameter: &str, value: &str) -> String {
    match list::is_list(parameter) {
        true => list::settled(parameter, value),
        false => value.to_owned(),
    }
}

/// An identity without needless quotes. PostgreSQL's own types go without their schema: those of everybody else have one.
pub fn identity(quoted: &str) -> String {
    bare(quoted).replace("pg_catalog.", "")
}

/// SQL whose names have quotes only where they would have another meaning without, keywords aside. What is in single quotes stays as
/// it is.
pub fn bare(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(at) = rest.find(['"', '\'']) {
        let (before, quoted) = rest.split_at(at);
        out += before;
        let quote = &quoted[..1];
        // A doubled quote ends one piece and begins the next: it comes out as it was.
        let Some(end) = quoted[1..].find(quote).map(|end| end + 2) else {
            return out + quoted;
        };
        let (piece, after) = quoted.split_at(end);
        let name = &piece[1..piece.len() - 1];
        let joined = after.starts_with(quote) || out.ends_with(quote);
        if quote == "\"" && is_plain(name) && !joined {
            out += name;
        } else {
            out += piece;
        }
        rest = after;
    }
    out + rest
}

fn is_plain(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_the_quotes_that_they_do_not_need() {
        assert_eq!(bare(r#""public"."t_1""#), "public.t_1");
        assert_eq!(bare(r#""Public"."a b"."1""#), r#""Public"."a b"."1""#);
        assert_eq!(bare(r#""a""b"."c""#), r#""a""b".c"#);
        assert_eq!(
            identity(r#""public"."f"("pg_catalog"."text",integer)"#),
            "public.f(text,integer)"
        );
    }

    #[test]
    fn what_is_in_single_quotes_is_left_alone() {
        let sql = r#"CHECK (("a" <> '{"a": "it''s"}'::"text"))"#;
        assert_eq!(bare(sql), r#"CHECK ((a <> '{"a": "it''s"}'::text))"#);
        assert_eq!(bare(r#"'"#), "'");
        assert_eq!(value("body", r#"SELECT "a""#), r#"SELECT "a""#);
        let said = "role=a,b\nsearch_path=public,pg_temp";
        assert_eq!(
            value("config", said),
            "role=a,b\nsearch_path=public, pg_temp"
        );
        let here = "setting search_path (in this database)";
        assert_eq!(value(here, "a,b"), "a, b");
        assert_eq!(value("setting x.y", r#""a",b"#), r#""a",b"#);
    }
}

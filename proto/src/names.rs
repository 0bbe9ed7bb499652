//! Names as people read them, and values of properties as they are compared. The agents quote every name, since each major has its own
//! list of words that need it.
mod sql;

/// Properties that are nobody's SQL: a quote in them is a quote.
const VERBATIM: &[&str] = &["body", "comment", "config", "name"];

/// The value of a property, without needless quotes.
pub fn value(property: &str, value: &str) -> String {
    let verbatim = VERBATIM.contains(&property)
        || property.starts_with("setting ")
        || property.starts_with("label of ");
    if verbatim {
        value.to_owned()
    } else {
        sql::settled(&bare(value))
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
    }
}

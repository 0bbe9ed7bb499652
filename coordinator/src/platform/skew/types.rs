//! Types and defaults as the catalog writes them: what values of one end are at the other.

/// `NULL`, cast or not: PostgreSQL keeps such a default where the type has a modifier. It is none.
pub fn is_null(sql: &str) -> bool {
    sql == "NULL" || sql.starts_with("NULL::")
}

/// A literal, cast or not: nothing that could be another value for every row. [`is_null`] is no value.
pub fn is_constant(sql: &str) -> bool {
    let literal = match sql.strip_prefix('\'') {
        Some(rest) => match closing_quote(rest) {
            Some(end) => &rest[end + 1..],
            None => return false,
        },
        None => {
            let word = sql.trim_start_matches(|c: char| c.is_alphanumeric() || "-.".contains(c));
            let head = &sql[..sql.len() - word.len()];
            let number = head.parse::<f64>().is_ok();
            match number || ["true", "false"].contains(&head) {
                true => word,
                false => return false,
            }
        }
    };
    let cast = |c: char| c.is_alphanumeric() || "\"._ []".contains(c);
    literal.split("::").enumerate().all(|(at, part)| match at {
        0 => part.is_empty(),
        _ => !part.is_empty() && part.chars().all(cast),
    })
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        at += text[at..].find('\'')?;
        if text[at + 1..].starts_with('\'') {
            at += 2;
        } else {
            return Some(at);
        }
    }
}

/// Every value of the one type is one of the other, and reads the same as text.
pub fn fits(source: &str, target: &str) -> bool {
    const INTEGERS: &[&str] = &["smallint", "integer", "bigint", "numeric"];
    const TEXTS: &[&str] = &["text", "character varying"];
    const AS_THEY_ARE: &[&str] = &[
        "uuid",
        "smallint",
        "integer",
        "bigint",
        "boolean",
        "text",
        "character varying",
    ];
    let place = |all: &[&str], name: &str| all.iter().position(|known| *known == name);
    if let (Some(from), Some(to)) = (place(INTEGERS, source), place(INTEGERS, target)) {
        return from <= to;
    }
    let (name, length) = source.split_once('(').unwrap_or((source, ""));
    if TEXTS.contains(&target) {
        return AS_THEY_ARE.contains(&name);
    }
    match target.split_once('(') {
        Some(("character varying", other)) if name == "character varying" => {
            let number = |text: &str| text.trim_end_matches(')').parse::<u32>().ok();
            number(length)
                .zip(number(other))
                .is_some_and(|(a, b)| a <= b)
        }
        _ => false,
    }
}

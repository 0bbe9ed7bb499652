//! Bodies of functions, as they may be shown. People write keys into them: what stands in string literals and comments is not told, only
//! which of them the other end does not have; names and structure are.
//!
//! Invariant 5 (credentials stay home): where it is not certain what a literal is, nothing more is shown.

/// Properties that are code.
pub const BODIES: &[&str] = &["body", "SQL body"];

const MASKED: &str = "(masked)";
/// What the other end does not have.
pub const HERE_ONLY: &str = "(masked, here only)";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece<'a> {
    Shown(&'a str),
    /// What begins it, what it says, and what ends it.
    Hidden(&'a str, &'a str, &'a str),
}

/// Without what its literals and comments say; `other`: the other end's.
pub fn masked(language: &str, body: &str, other: Option<&str>) -> String {
    if ["c", "internal"].contains(&language) {
        return body.to_owned();
    }
    let (pieces, others) = (pieces(language, body), other.map(|o| pieces(language, o)));
    let each = pieces.iter().map(|piece| match piece {
        Piece::Shown(text) => (*text).to_owned(),
        Piece::Hidden(begin, _, end) => {
            let here_only = others
                .as_ref()
                .is_some_and(|others| !others.contains(piece));
            let what = if here_only { HERE_ONLY } else { MASKED };
            format!("{begin}{what}{end}")
        }
    });
    each.collect()
}

fn pieces<'a>(language: &str, body: &'a str) -> Vec<Piece<'a>> {
    // What quotes are in other languages, only they know.
    if !["sql", "plpgsql"].contains(&language) {
        return vec![Piece::Hidden("", body, "")];
    }
    let mut pieces = Vec::new();
    let mut rest = body;
    while let Some((at, piece, after)) = next(rest) {
        pieces.extend([Piece::Shown(&rest[..at]), piece]);
        rest = after;
    }
    pieces.push(Piece::Shown(rest));
    pieces
}

/// The first that is hidden: where it begins, and what follows it.
fn next(text: &str) -> Option<(usize, Piece<'_>, &str)> {
    let mut at = 0;
    let mut before = ' ';
    while let Some(first) = text[at..].chars().next() {
        let here = &text[at..];
        let hidden = match first {
            '\'' => Some(literal(here, is_escaped(&text[..at]))),
            '-' if here.starts_with("--") => Some(until(here, "--", "\n")),
            '/' if here.starts_with("/*") => Some(comment(here)),
            '$' if !is_word(before) => tag(here).map(|tag| until(here, tag, tag)),
            _ => None,
        };
        if let Some((piece, after)) = hidden {
            return Some((at, piece, after));
        }
        at += match first {
            // A quoted name; a doubled quote ends one and begins the next.
            '"' => here[1..].find('"').map_or(here.len(), |end| end + 2),
            _ => first.len_utf8(),
        };
        before = first;
    }
    None
}

/// The rest where it does not end.
fn until<'a>(text: &'a str, begin: &str, end: &str) -> (Piece<'a>, &'a str) {
    let inner = begin.len();
    match text[inner..].find(end) {
        Some(length) => cut(text, inner, inner + length, end.len()),
        None => (Piece::Hidden(&text[..inner], &text[inner..], ""), ""),
    }
}

fn cut(text: &str, inner: usize, end: usize, closing: usize) -> (Piece<'_>, &str) {
    let after = end + closing;
    let piece = Piece::Hidden(&text[..inner], &text[inner..end], &text[end..after]);
    (piece, &text[after..])
}

/// `escaped`: a backslash takes the next character with it. In others that depends on a setting of whoever calls the function: after a
/// backslash before a quote nothing more is shown.
fn literal(text: &str, escaped: bool) -> (Piece<'_>, &str) {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if escaped => drop(chars.next()),
            '\\' if chars.peek().is_some_and(|(_, next)| *next == '\'') => break,
            '\'' if chars.next_if(|(_, next)| *next == '\'').is_none() => {
                return cut(text, 1, at, 1);
            }
            _ => {}
        }
    }
    (Piece::Hidden(&text[..1], &text[1..], ""), "")
}

/// `E'...'`
fn is_escaped(before: &str) -> bool {
    let mut chars = before.chars().rev();
    let is_e = matches!(chars.next(), Some('e' | 'E'));
    is_e && !chars.next().is_some_and(is_word)
}

/// They nest.
fn comment(text: &str) -> (Piece<'_>, &str) {
    let (mut depth, mut at) = (0, 0);
    while let Some(length) = text[at..].find(['/', '*']) {
        at += length;
        if text[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return cut(text, 2, at - 2, 2);
            }
        } else {
            at += 1;
        }
    }
    (Piece::Hidden(&text[..2], &text[2..], ""), "")
}

/// `$$` or `$name$`. `$1` is a parameter.
fn tag(text: &str) -> Option<&str> {
    let end = text[1..].find('$')? + 2;
    let name = &text[1..end - 1];
    let is_name = name.chars().all(is_word) && !name.starts_with(|c: char| c.is_ascii_digit());
    is_name.then_some(&text[..end])
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || !c.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(body: &str) -> String {
        masked("plpgsql", body, None)
    }

    #[test]
    fn names_and_structure_are_shown_and_what_literals_say_is_not() {
        for (body, shown) in [
            (
                "SELECT 'a''b' || \"it's\" || x",
                "SELECT '(masked)' || \"it's\" || x",
            ),
            (
                "SELECT E'a\\'b', name'c'",
                "SELECT E'(masked)', name'(masked)'",
            ),
            ("a -- don't\nb", "a --(masked)\nb"),
            (
                "a /* it's /* two */ 'x' */ b - c / d",
                "a /*(masked)*/ b - c / d",
            ),
            (
                "EXECUTE $q$ SELECT 'k' $q$ USING $1, $2",
                "EXECUTE $q$(masked)$q$ USING $1, $2",
            ),
            ("a$b$c 'x'", "a$b$c '(masked)'"),
            ("f($$x$$, 'y", "f($$(masked)$$, '(masked)"),
            ("g('\\', 'x')", "g('(masked)"),
            ("h('\\d', 'x')", "h('(masked)', '(masked)')"),
            ("é 'ü' — x", "é '(masked)' — x"),
        ] {
            assert_eq!(sql(body), shown, "{body}");
        }
    }

    #[test]
    fn what_the_other_end_does_not_have_is_marked() {
        let body = "f('key', 'same')";
        let shown = masked("sql", body, Some("f('other', 'same')"));
        assert_eq!(shown, "f('(masked, here only)', '(masked)')");
        assert_eq!(masked("sql", body, Some(body)), "f('(masked)', '(masked)')");
    }

    #[test]
    fn of_other_languages_nothing_is_shown() {
        assert_eq!(masked("plv8", "return `k`", None), "(masked)");
        assert_eq!(masked("plv8", "a", Some("b")), "(masked, here only)");
        assert_eq!(masked("c", "symbol", None), "symbol");
    }
}

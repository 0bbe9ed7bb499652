//! SQL as PostgreSQL prints it, made the same for expressions that are the same.
//!
//! What an application wrote and what a restored database has may be one expression printed in two ways: read back as text, a nested
//! `(a AND b) AND c` becomes one AND of three (src/backend/parser/gram.y, makeAndExpr), and a cast of an array constructor
//! moves into it (src/backend/parser/parse_expr.c, transformArrayExpr). `pg_dump | psql | pg_dump` changes the same. PostgreSQL 16 and later write NO INDENT in every XMLSERIALIZE that
//! has no INDENT, and those before it nothing. All these rules keep the meaning.
use std::iter::Peekable;
use std::vec::IntoIter;

/// A piece of SQL: a word, a quoted thing, a sign, or what stands between brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Token(String),
    /// The opening bracket, and what it holds.
    Group(char, Vec<Piece>),
}

use Piece::{Group, Token};

const XMLSERIALIZE: &str = "XMLSERIALIZE";

/// Settles how the expressions in it are printed. SQL that is not balanced stays as it is.
pub fn settled(sql: &str) -> String {
    let concerns = [" AND ", " OR ", "ARRAY[", XMLSERIALIZE];
    if !concerns.iter().any(|word| sql.contains(word)) {
        return sql.to_owned();
    }
    let mut tokens = tokens(sql).into_iter().peekable();
    match group(&mut tokens, None) {
        Some(pieces) => shown(&settle(pieces)),
        None => sql.to_owned(),
    }
}

/// Words, quoted things with their quotes, runs of spaces, `::`, and single characters.
fn tokens(sql: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\'' | '"' => quoted_length(rest, first),
            c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            c if c.is_whitespace() => rest
                .find(|c: char| !c.is_whitespace())
                .unwrap_or(rest.len()),
            _ if rest.starts_with("::") => 2,
            c => c.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token.to_owned());
        rest = after;
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// A doubled quote does not end it.
fn quoted_length(rest: &str, quote: char) -> usize {
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return at + c.len_utf8();
        }
    }
    rest.len()
}

/// Up to the closing bracket; none when brackets do not match.
fn group(tokens: &mut Peekable<IntoIter<String>>, close: Option<&str>) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    while let Some(token) = tokens.next() {
        match token.as_str() {
            "(" => pieces.push(Group('(', group(tokens, Some(")"))?)),
            "[" => pieces.push(Group('[', group(tokens, Some("]"))?)),
            ")" | "]" => return (close == Some(token.as_str())).then_some(pieces),
            _ => pieces.push(Token(token)),
        }
    }
    close.is_none().then_some(pieces)
}

fn shown(pieces: &[Piece]) -> String {
    let each = pieces.iter().map(|piece| match piece {
        Token(token) => token.clone(),
        Group('(', inner) => format!("({})", shown(inner)),
        Group(_, inner) => format!("[{}]", shown(inner)),
    });
    each.collect()
}

fn settle(pieces: Vec<Piece>) -> Vec<Piece> {
    let inner = pieces.into_iter().map(|piece| match piece {
        Group(open, inner) => Group(open, settle(inner)),
        token => token,
    });
    casts_inside(flat(without_no_indent(inner.collect())))
}

/// `XMLSERIALIZE(CONTENT a AS text NO INDENT)` as `XMLSERIALIZE(CONTENT a AS text)`.
fn without_no_indent(mut pieces: Vec<Piece>) -> Vec<Piece> {
    let words = [" ", "NO", " ", "INDENT"].map(|word| Token(word.into()));
    for at in 1..pieces.len() {
        let is_call = pieces[at - 1] == Token(XMLSERIALIZE.into());
        if let Group('(', inner) = &mut pieces[at]
            && is_call
            && inner.ends_with(&words)
        {
            inner.truncate(inner.len() - words.len());
        }
    }
    pieces
}

/// `(a AND b) AND c` as `a AND b AND c`, wherever the nested one stands. What is nested was made flat before.
fn flat(pieces: Vec<Piece>) -> Vec<Piece> {
    let Some(connective) = connective(&pieces) else {
        return pieces;
    };
    // A whole operand: what stands before and after it is nothing or the connective.
    let borders = |piece: Option<&Piece>| match piece {
        None => true,
        Some(Token(token)) => token == connective,
        Some(Group(..)) => false,
    };
    let is_space = |piece: &&Piece| matches!(piece, Token(t) if t.trim().is_empty());
    let mut flat = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let before = pieces[..at].iter().rev().find(|piece| !is_space(piece));
        let after = pieces[at + 1..].iter().find(|piece| !is_space(piece));
        match piece {
            Group('(', inner)
                if borders(before)
                    && borders(after)
                    && self::connective(inner) == Some(connective) =>
            {
                flat.extend(inner.iter().cloned());
            }
            piece => flat.push(piece.clone()),
        }
    }
    flat
}

/// AND or OR, where the pieces are operands of nothing else.
fn connective(pieces: &[Piece]) -> Option<&'static str> {
    const OTHERS: &[&str] = &["BETWEEN", "SELECT", "WHEN", "CASE", "WHERE", "ON", "HAVING"];
    let has = |word: &str| pieces.iter().any(|p| matches!(p, Token(t) if t == word));
    match (has("AND"), has("OR")) {
        _ if OTHERS.iter().any(|other| has(other)) => None,
        (true, false) => Some("AND"),
        (false, true) => Some("OR"),
        _ => None,
    }
}

/// `(ARRAY[a, b])::T[]` as `ARRAY[(a)::T, (b)::T]`.
fn casts_inside(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut settled = Vec::new();
    let mut at = 0;
    while at < pieces.len() {
        match cast_array(&pieces[at..]) {
            Some((length, array)) => {
                settled.extend(array);
                at += length;
            }
            None => {
                settled.push(pieces[at].clone());
                at += 1;
            }
        }
    }
    settled
}

/// An array constructor that is cast, at the beginning: how many pieces that takes, and the same with its elements cast.
fn cast_array(pieces: &[Piece]) -> Option<(usize, Vec<Piece>)> {
    let [Group('(', inner), Token(cast), rest @ ..] = pieces else {
        return None;
    };
    let [Token(array), Group('[', elements)] = inner.as_slice() else {
        return None;
    };
    if array != "ARRAY" || cast != "::" {
        return None;
    }
    let end = rest
        .iter()
        .position(|piece| !matches!(piece, Token(t) if is_of_type(t)) && !is_modifier(piece))?;
    if end == 0 || rest[end] != Group('[', Vec::new()) {
        return None;
    }
    let element_type = &rest[..end];
    let cast = |element: Vec<Piece>| match element.as_slice() {
        // An array in an array has the same type.
        [Token(word), Group('[', _)] if word == "ARRAY" => {
            let mut whole = vec![Group('(', element.clone()), Token("::".into())];
            whole.extend_from_slice(element_type);
            whole.push(Group('[', Vec::new()));
            casts_inside(whole)
        }
        _ => {
            let mut whole = vec![Group('(', element), Token("::".into())];
            whole.extend_from_slice(element_type);
            whole
        }
    };
    let each: Vec<Vec<Piece>> = listed(elements).into_iter().map(cast).collect();
    let comma = [Token(",".into()), Token(" ".into())];
    let array = vec![
        Token("ARRAY".into()),
        Group('[', each.join(comma.as_slice())),
    ];
    Some((2 + end + 1, array))
}

/// A token of a type's name: `character varying`, `public.t`.
fn is_of_type(token: &str) -> bool {
    token == "." || token.trim().is_empty() || token.starts_with(|c: char| is_word(c) || c == '"')
}

/// `(12,3)`
fn is_modifier(piece: &Piece) -> bool {
    matches!(piece, Group('(', _))
}

/// The elements between commas, without spaces around them.
fn listed(pieces: &[Piece]) -> Vec<Vec<Piece>> {
    let is_space = |piece: &Piece| matches!(piece, Token(t) if t.trim().is_empty());
    pieces
        .split(|piece| *piece == Token(",".into()))
        .map(|element| {
            let begin = element.iter().position(|piece| !is_space(piece));
            let end = element.iter().rposition(|piece| !is_space(piece));
            match (begin, end) {
                (Some(begin), Some(end)) => element[begin..=end].to_vec(),
                _ => Vec::new(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::settled;

    #[track_caller]
    fn same(ours: &str, theirs: &str) {
        assert_eq!(settled(ours), settled(theirs));
    }

    #[test]
    fn a_leading_and_is_one_with_the_and_around_it() {
        same(
            "CHECK ((((a >= 1) AND (a <= 5)) AND (a <> 3)))",
            "CHECK (((a >= 1) AND (a <= 5) AND (a <> 3)))",
        );
        same(
            "CHECK ((((id = 1) OR (id = a)) OR (b = 'x'::text)))",
            "CHECK (((id = 1) OR (id = a) OR (b = 'x'::text)))",
        );
        same("((a) AND ((b) AND (c)))", "((a) AND (b) AND (c))");
    }

    #[test]
    fn a_cast_of_an_array_is_a_cast_of_its_elements() {
        same(
            "CHECK (((st)::text = ANY ((ARRAY['a'::character varying, 'b, c'::character varying])::text[])))",
            "CHECK (((st)::text = ANY (ARRAY[('a'::character varying)::text, ('b, c'::character varying)::text])))",
        );
        same(
            "(ARRAY[ARRAY[1, 2], ARRAY[3, 4]])::bigint[]",
            "ARRAY[ARRAY[(1)::bigint, (2)::bigint], ARRAY[(3)::bigint, (4)::bigint]]",
        );
    }

    #[test]
    fn xml_that_is_not_indented_may_say_so() {
        same(
            "(length(XMLSERIALIZE(CONTENT a AS text NO INDENT)) > 1)",
            "(length(XMLSERIALIZE(CONTENT a AS text)) > 1)",
        );
    }

    #[test]
    fn what_means_something_else_stays_apart() {
        for (ours, theirs) in [
            ("((a OR b) AND c)", "(a OR b AND c)"),
            ("(f(a AND b) AND c)", "(fa AND b AND c)"),
            ("(NOT (a AND b) AND c)", "(NOT a AND b AND c)"),
            ("((a AND b) = d AND c)", "(a AND b = d AND c)"),
            ("(a AND (b AND c))", "(a AND b OR c)"),
            ("((a AND b) AND c)", "((a AND b) AND d)"),
            (
                "('(a AND b) AND c'::text OR d)",
                "('a AND b AND c'::text OR d)",
            ),
            (
                "XMLSERIALIZE(CONTENT a AS text INDENT)",
                "XMLSERIALIZE(CONTENT a AS text)",
            ),
            ("(ARRAY[a, b])::text[]", "(ARRAY[b, a])::text[]"),
            ("(ARRAY[a, b])::text[]", "(ARRAY[a, b])::integer[]"),
        ] {
            assert_ne!(settled(ours), settled(theirs), "{ours}");
        }
    }

    #[test]
    fn what_is_not_balanced_stays_as_it_is() {
        for sql in ["(a AND b", "a AND b)", "(a AND b]", "'a AND b", ""] {
            assert_eq!(settled(sql), sql);
        }
    }
}

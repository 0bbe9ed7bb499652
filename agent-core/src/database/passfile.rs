//! libpq's password file: `host:port:database:user:password`, `*` for any, `\` before `:` and `\`.
//!
//! Credentials stay home: a file that others can read is not used, and no line of it reaches a message.

use std::fs;
use std::io;
use std::path::Path;

use super::Error;

/// What a line has to match. A local socket directory also goes by the name `localhost`.
pub(super) struct Wanted<'a> {
    pub hosts: &'a [&'a str],
    pub port: u16,
    pub database: &'a str,
    pub user: &'a str,
}

/// The password of the first line that matches. A file that was named has to exist; the default one need not.
pub(super) fn look_up(
    path: &Path,
    named: bool,
    wanted: &Wanted<'_>,
) -> Result<Option<String>, Error> {
    let unreadable = |source| Error::File {
        what: "password file",
        path: path.to_owned(),
        source,
    };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !named => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    if !metadata.is_file() {
        tracing::warn!(path = %path.display(), "password file is not a plain file: not used");
        return Ok(None);
    }
    if readable_by_others(&metadata) {
        tracing::warn!(
            path = %path.display(),
            "password file can be read by group or others: not used (chmod 600 it)"
        );
        return Ok(None);
    }
    let text = fs::read(path).map_err(unreadable)?;
    Ok(find(&String::from_utf8_lossy(&text), wanted))
}

#[cfg(unix)]
fn readable_by_others(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    metadata.mode() & 0o077 != 0
}

fn find(text: &str, wanted: &Wanted<'_>) -> Option<String> {
    let port = wanted.port.to_string();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| {
            let mut rest = line;
            let mut next = || {
                let (field, after) = take_field(rest)?;
                rest = after;
                Some(field)
            };
            let (host, line_port, database, user) = (next()?, next()?, next()?, next()?);
            let any_host = wanted.hosts.iter().any(|wanted| matches(host, wanted));
            let all = any_host
                && matches(line_port, &port)
                && matches(database, wanted.database)
                && matches(user, wanted.user);
            all.then(|| unescape(take_field(rest).map_or(rest, |(password, _)| password)))
        })
}

/// Splits at the first `:` that no `\` precedes.
fn take_field(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    let end = text.bytes().position(|byte| {
        let ends = byte == b':' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    Some((&text[..end], &text[end + 1..]))
}

fn matches(field: &str, wanted: &str) -> bool {
    field == "*" || unescape(field) == wanted
}

fn unescape(field: &str) -> String {
    let mut chars = field.chars();
    let mut out = String::with_capacity(field.len());
    while let Some(char) = chars.next() {
        match char {
            '\\' => out.push(chars.next().unwrap_or('\\')),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const WANTED: Wanted<'_> = Wanted {
        hosts: &["db"],
        port: 5432,
        database: "app",
        user: "ann",
    };

    #[test]
    fn the_first_matching_line_wins() {
        let text = "# db:5432:app:ann:comment\n\nother:*:*:*:no\ndb:5433:*:*:no\ndb:5432:app:ann:yes\n*:*:*:*:late\n";
        assert_eq!(find(text, &WANTED).as_deref(), Some("yes"));
        assert_eq!(find("*:*:*:*:any\r\n", &WANTED).as_deref(), Some("any"));
        assert_eq!(find("db:5432:app:bob:no", &WANTED), None);
        assert_eq!(find("db:5432:app", &WANTED), None);
    }

    #[test]
    fn escapes_are_undone_in_every_field() {
        assert_eq!(find(r"*:*:*:*:a\:b\\c", &WANTED).as_deref(), Some(r"a:b\c"));
        assert_eq!(find("*:*:*:*:a:b", &WANTED).as_deref(), Some("a"));
        let odd = Wanted {
            hosts: &["::1"],
            database: r"a\b",
            ..WANTED
        };
        assert_eq!(find(r"\:\:1:*:a\\b:ann:yes", &odd).as_deref(), Some("yes"));
        let literal = Wanted {
            user: "*",
            ..WANTED
        };
        assert_eq!(find(r"*:*:*:\*:star", &literal).as_deref(), Some("star"));
        assert_eq!(find(r"*:*:*:\*:star", &WANTED), None);
    }

    #[test]
    fn a_file_that_others_can_read_is_not_used() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "*:*:*:*:secret\n").unwrap();
        assert_eq!(
            look_up(file.path(), true, &WANTED).unwrap().as_deref(),
            Some("secret")
        );
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(look_up(file.path(), true, &WANTED).unwrap(), None);
    }

    #[test]
    fn only_a_named_file_has_to_exist() {
        let missing = Path::new("/nonexistent/pgpass");
        assert_eq!(look_up(missing, false, &WANTED).unwrap(), None);
        assert!(look_up(missing, true, &WANTED).is_err());
    }
}

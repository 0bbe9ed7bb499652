//! Connection strings: a postgres:// URL or `keyword=value`, and libpq's environment, into one map.
//!
//! Credentials stay home: no error made here repeats any of the text it was given, except a keyword that looks
//! like one. tokio-postgres has a parser too, but it knows three of the six sslmodes and neither passfile nor
//! certificates, and pg_dump has to be given exactly what our own sessions use.

use std::collections::BTreeMap;

use super::Error;

/// What is understood, and the environment variable that fills it in when it is absent, as libpq does.
const KEYWORDS: &[(&str, &str)] = &[
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("dbname", "PGDATABASE"),
    ("passfile", "PGPASSFILE"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("sslnegotiation", "PGSSLNEGOTIATION"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    ("options", "PGOPTIONS"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
];

/// Accepted without effect: pgconvoy decides these itself, or they concern what it never does.
const IGNORED: &[&str] = &[
    "application_name",
    "fallback_application_name",
    "client_encoding",
    "gssencmode",
    "gsslib",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "ssl_min_protocol_version",
    "sslcompression",
    "sslsni",
    "tcp_user_timeout",
];

/// Known to libpq, but leaving them out would reach another server or weaken what was asked for.
const REFUSED: &[(&str, &str)] = &[
    ("service", "PGSERVICE"),
    ("require_auth", "PGREQUIREAUTH"),
    ("sslcrl", "PGSSLCRL"),
    ("sslcrldir", "PGSSLCRLDIR"),
    ("sslpassword", ""),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    ("requirepeer", "PGREQUIREPEER"),
    ("replication", ""),
];

/// Connection keywords with their values; an empty value counts as absent.
#[derive(Default)]
pub(super) struct Conninfo(BTreeMap<&'static str, String>);

impl Conninfo {
    /// Reads a URL or a `keyword=value` string.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let mut conninfo = Self::default();
        match text
            .strip_prefix("postgres://")
            .or_else(|| text.strip_prefix("postgresql://"))
        {
            Some(rest) => conninfo.parse_url(rest)?,
            None => conninfo.parse_pairs(text)?,
        }
        Ok(conninfo)
    }

    /// Fills what is absent from libpq's environment variables.
    pub(super) fn fill_from(&mut self, env: &impl Fn(&str) -> Option<String>) -> Result<(), Error> {
        for (keyword, variable) in KEYWORDS {
            if let Some(value) = env(variable).filter(|value| !value.is_empty()) {
                self.0.entry(keyword).or_insert(value);
            }
        }
        for (_, variable) in REFUSED {
            if env(variable).is_some_and(|value| !value.is_empty()) {
                return Err(Error::Conninfo(format!(
                    "{variable} is set, which pgconvoy does not read: unset it and give the database by URL or PGHOST"
                )));
            }
        }
        Ok(())
    }

    pub(super) fn get(&self, keyword: &str) -> Option<&str> {
        self.0.get(keyword).map(String::as_str)
    }

    fn set(&mut self, keyword: &str, value: String) -> Result<(), Error> {
        if let Some((known, _)) = KEYWORDS.iter().find(|(known, _)| *known == keyword) {
            if !value.is_empty() {
                self.0.insert(known, value);
            }
            return Ok(());
        }
        if IGNORED.contains(&keyword) && !(keyword == "gssencmode" && value == "require") {
            return Ok(());
        }
        let refused = keyword == "gssencmode" || REFUSED.iter().any(|(known, _)| *known == keyword);
        Err(Error::Conninfo(match (refused, looks_like_a_keyword(keyword)) {
            (true, _) => format!("pgconvoy does not support \"{keyword}\" (with this value): take it out"),
            (false, true) => format!("unknown keyword \"{keyword}\": take it out, or correct it"),
            (false, false) => {
                "there is an unknown keyword (not shown, it may be part of a password): quote values with spaces, \
                 and percent-encode special characters in a URL"
                    .into()
            }
        }))
    }

    /// `keyword=value keyword='quoted \' value'`, as libpq reads it.
    fn parse_pairs(&mut self, text: &str) -> Result<(), Error> {
        let mut rest = text;
        while !rest.is_empty() {
            let Some((keyword, after)) = rest.split_once('=') else {
                return Err(wrong(
                    "it is neither a postgres:// URL nor a list of keyword=value (a value with spaces needs quotes)",
                ));
            };
            let (value, after) = take_value(after.trim_start())?;
            self.set(keyword.trim(), value)?;
            rest = after.trim_start();
        }
        Ok(())
    }

    /// `[user[:password]@][host][:port][/dbname][?keyword=value&...]`, after the scheme.
    fn parse_url(&mut self, text: &str) -> Result<(), Error> {
        let (authority, tail) = text.split_at(text.find(['/', '?']).unwrap_or(text.len()));
        // The last @: a password with a raw @ cannot mean anything else, as no host name has one.
        let (credentials, host) = match authority.rsplit_once('@') {
            Some((credentials, host)) => (Some(credentials), host),
            None if tail
                .split('?')
                .next()
                .is_some_and(|path| path.contains('@'))
                || (tail.starts_with('?') && authority.contains(':') && tail.contains('@')) =>
            {
                return Err(wrong(
                    "the user or password has a / or ? in it: percent-encode it (%2F, %3F)",
                ));
            }
            None => (None, authority),
        };
        if let Some(credentials) = credentials {
            let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
            self.set("user", percent_decode(user)?)?;
            self.set("password", percent_decode(password)?)?;
        }
        let (host, port) = split_port(host)?;
        self.set("host", percent_decode(host)?)?;
        self.set("port", percent_decode(port)?)?;

        let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
        self.set(
            "dbname",
            percent_decode(path.strip_prefix('/').unwrap_or(path))?,
        )?;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (keyword, value) = pair.split_once('=').ok_or_else(|| {
                wrong("a parameter after the ? has no value: write keyword=value")
            })?;
            let (keyword, value) = (percent_decode(keyword)?, percent_decode(value)?);
            match (keyword.as_str(), value.as_str()) {
                ("ssl", "true") => self.set("sslmode", "require".into())?, // as JDBC spells it; libpq takes it too
                _ => self.set(&keyword, value)?,
            }
        }
        Ok(())
    }
}

/// A value quoted for a libpq connection string.
pub(super) fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn wrong(reason: &str) -> Error {
    Error::Conninfo(reason.into())
}

fn looks_like_a_keyword(text: &str) -> bool {
    (2..=32).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

fn take_value(text: &str) -> Result<(String, &str), Error> {
    let quoted = text.starts_with('\'');
    let body = &text[usize::from(quoted)..];
    let mut value = String::new();
    let mut chars = body.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &body[at + 1..])),
            space if !quoted && space.is_whitespace() => return Ok((value, &body[at..])),
            other => value.push(other),
        }
    }
    match quoted {
        true => Err(wrong("a quoted value has no closing quote")),
        false => Ok((value, "")),
    }
}

/// Splits `host:port`, `[::1]:port`.
fn split_port(text: &str) -> Result<(&str, &str), Error> {
    let unclear =
        || wrong("the host and port are not clear: write host:port, or [address]:port for IPv6");
    match text.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']').ok_or_else(unclear)?;
            match after.strip_prefix(':') {
                Some(port) => Ok((host, port)),
                None if after.is_empty() => Ok((host, "")),
                None => Err(unclear()),
            }
        }
        None => {
            let (host, port) = text.split_once(':').unwrap_or((text, ""));
            if port.contains(':') {
                Err(unclear())
            } else {
                Ok((host, port))
            }
        }
    }
}

fn percent_decode(text: &str) -> Result<String, Error> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let decoded = after.split_at_checked(2).and_then(|(hex, tail)| {
            Some((
                u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok()?,
                tail,
            ))
        });
        match decoded {
            Some((decoded, tail)) if decoded != 0 => {
                bytes.push(decoded);
                rest = tail;
            }
            _ => {
                return Err(wrong(
                    "a % is not followed by two hexadecimal digits: write %25 for a % itself",
                ));
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8 after decoding its %XX sequences"))
}

#[cfg(test)]
mod tests;

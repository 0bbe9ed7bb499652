//! Checks files: TOML, or SQL with headers. Either is refused as a whole, with the line, before anything is asked of a database.
use std::collections::HashSet;
use std::path::Path;
use std::str::FromStr;

use anyhow::Context;
use pgconvoy_proto::model::{At, Check, Expect, LONGEST_TIMEOUT_MS};
use serde::Deserialize;

use crate::ends::Usage;

const DEFAULT_TIMEOUT_MS: u32 = 60_000;

/// The checks of a file, by what its name ends with.
pub fn read(path: &Path) -> anyhow::Result<Vec<Check>> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("--checks {shown}"))?;
    let checks = match path.extension().and_then(|end| end.to_str()) {
        Some("toml") => from_toml(&text),
        Some("sql") => from_sql(&text),
        _ => Err("its name must end with .toml or .sql".into()),
    };
    let checks = checks.and_then(|checks| match problem(&checks) {
        Some(problem) => Err(problem),
        None => Ok(checks),
    });
    Ok(checks.map_err(|problem| Usage(format!("--checks {shown}: {problem}")))?)
}

fn problem(checks: &[Check]) -> Option<String> {
    if checks.is_empty() {
        return Some("there is no check in it".into());
    }
    let mut names = HashSet::new();
    checks.iter().find_map(|check| {
        let name = &check.name;
        if name.trim().is_empty() {
            Some("a check has no name".into())
        } else if !names.insert(name) {
            Some(format!("two checks have the name {name:?}"))
        } else if check.sql.trim().is_empty() {
            Some(format!("the check {name:?} has no statement"))
        } else if check.expect == Expect::Equal && check.at != At::Both {
            Some(format!("the check {name:?}: equal is asked at both ends"))
        } else {
            None
        }
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, rename = "check")]
    checks: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    sql: String,
    expect: Expect,
    at: Option<At>,
    timeout: Option<Timeout>,
    #[serde(default)]
    hint: String,
}

/// "30s", as milliseconds.
#[derive(Clone, Copy)]
struct Timeout(u32);

impl FromStr for Timeout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time = humantime::parse_duration(text.trim())
            .map_err(|error| format!("timeout {text:?}: {error}"))?;
        match u32::try_from(time.as_millis()) {
            Ok(ms @ 1..=LONGEST_TIMEOUT_MS) => Ok(Self(ms)),
            _ => Err(format!("timeout {text:?}: from 1ms to 1h")),
        }
    }
}

impl<'de> Deserialize<'de> for Timeout {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn from_toml(text: &str) -> Result<Vec<Check>, String> {
    // Its message names line and column, and shows them.
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    let checks = file.checks.into_iter().map(|entry| Check {
        at: entry.at.unwrap_or_else(|| usual_end(entry.expect)),
        name: entry.name,
        sql: entry.sql,
        line: 0,
        expect: entry.expect,
        timeout_ms: entry.timeout.map_or(DEFAULT_TIMEOUT_MS, |limit| limit.0),
        hint: entry.hint,
    });
    Ok(checks.collect())
}

fn usual_end(expect: Expect) -> At {
    match expect {
        Expect::Equal => At::Both,
        Expect::NoRows | Expect::AtLeast(_) => At::Target,
    }
}

/// A check begins with "-- check: NAME"; more headers may follow, then its statement, up to the next check.
fn from_sql(text: &str) -> Result<Vec<Check>, String> {
    let mut checks: Vec<Check> = Vec::new();
    let mut headers: Option<Headers> = None;
    for (line, number) in text.lines().zip(1..) {
        let header = header(line);
        if let Some(("check", name)) = header {
            finish(headers.take(), &mut checks)?;
            headers = Some(Headers::new(name, number));
            continue;
        }
        match (&mut headers, header) {
            (Some(open), Some((key, value))) if open.sql.is_empty() => open
                .set(key, value)
                .map_err(|problem| format!("line {number}: {problem}"))?,
            (Some(open), _) => open.add(line, number),
            (None, _) if line.trim().is_empty() || line.trim_start().starts_with("--") => {}
            (None, _) => {
                return Err(format!(
                    "line {number}: a check begins with `-- check: NAME`"
                ));
            }
        }
    }
    finish(headers, &mut checks)?;
    Ok(checks)
}

/// "-- key: value" of a key that is a header's.
fn header(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.strip_prefix("--")?.split_once(':')?;
    let key = key.trim();
    let known = ["check", "expect", "at", "timeout", "hint"].contains(&key);
    known.then(|| (key, value.trim()))
}

struct Headers {
    name: String,
    begins: u32,
    expect: Option<Expect>,
    at: Option<At>,
    timeout: Option<Timeout>,
    hint: String,
    sql: String,
    sql_line: u32,
}

impl Headers {
    fn new(name: &str, begins: u32) -> Self {
        Self {
            name: name.into(),
            begins,
            expect: None,
            at: None,
            timeout: None,
            hint: String::new(),
            sql: String::new(),
            sql_line: 0,
        }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "expect" => self.expect = Some(value.parse()?),
            "at" => self.at = Some(value.parse()?),
            "timeout" => self.timeout = Some(value.parse()?),
            _ => self.hint = value.into(),
        }
        Ok(())
    }

    fn add(&mut self, line: &str, number: u32) {
        if self.sql.is_empty() {
            if line.trim().is_empty() {
                return;
            }
            self.sql_line = number;
        }
        self.sql.push_str(line);
        self.sql.push('\n');
    }
}

fn finish(headers: Option<Headers>, checks: &mut Vec<Check>) -> Result<(), String> {
    let Some(open) = headers else {
        return Ok(());
    };
    let expect = open.expect.ok_or_else(|| {
        format!(
            "line {}: the check {:?} does not say `-- expect: no-rows`, `equal` or `at-least N`",
            open.begins, open.name
        )
    })?;
    checks.push(Check {
        at: open.at.unwrap_or_else(|| usual_end(expect)),
        name: open.name,
        sql: open.sql.trim_end().into(),
        line: open.sql_line,
        expect,
        timeout_ms: open.timeout.map_or(DEFAULT_TIMEOUT_MS, |limit| limit.0),
        hint: open.hint,
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let toml = from_toml(
            "[[check]]\nname = \"a\"\nsql = \"SELECT 1\"\nexpect = \"at-least 5\"\ntimeout = \"2s\"\nhint = \"h\"\n\
             [[check]]\nname = \"b\"\nsql = \"SELECT 2\"\nexpect = \"equal\"\n",
        );
        let sql = from_sql(
            "-- checks of the shop\n\n-- check: a\n-- expect: at-least 5\n-- timeout: 2s\n-- hint: h\n\nSELECT 1\n\n\
             -- check: b\n-- expect: equal\nSELECT 2\n",
        );
        let (toml, mut sql) = (toml.unwrap(), sql.unwrap());
        assert_eq!([sql[0].line, sql[1].line], [8, 12]);
        assert_eq!((toml[1].at, toml[0].at), (At::Both, At::Target));
        sql.iter_mut().for_each(|check| check.line = 0);
        assert_eq!(toml, sql);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, words) in [
            ("SELECT 1", "line 1: a check begins"),
            (
                "-- check: a\nSELECT 1",
                "line 1: the check \"a\" does not say",
            ),
            (
                "-- check: a\n-- expect: none\nSELECT 1",
                "line 2: \"none\" is none of",
            ),
            (
                "-- check: a\n-- expect: no-rows\n-- timeout: 2h\nSELECT 1",
                "line 3: timeout",
            ),
        ] {
            let problem = from_sql(text).unwrap_err();
            assert!(problem.contains(words), "{problem}");
        }
        let problem = from_toml("[[check]]\nname = \"a\"\nsql = \"x\nexpect = 1").unwrap_err();
        assert!(problem.contains("line 3"), "{problem}");
        let unknown =
            "[[check]]\nname = \"a\"\nsql = \"x\"\nexpect = \"equal\"\nwhere = \"source\"";
        let problem = from_toml(unknown).unwrap_err();
        assert!(
            problem.contains("line 5") && problem.contains("where"),
            "{problem}"
        );
    }

    #[test]
    fn names_are_unique_and_equal_has_two_ends() {
        let check = |name: &str, expect, at| Check {
            name: name.into(),
            sql: "SELECT 1".into(),
            line: 0,
            expect,
            at,
            timeout_ms: 1,
            hint: String::new(),
        };
        let once = check("a", Expect::NoRows, At::Target);
        assert_eq!(problem(std::slice::from_ref(&once)), None);
        assert!(
            problem(&[once.clone(), once])
                .unwrap()
                .contains("two checks")
        );
        assert!(
            problem(&[check("b", Expect::Equal, At::Source)])
                .unwrap()
                .contains("both ends")
        );
        assert!(problem(&[]).unwrap().contains("no check"));
    }
}

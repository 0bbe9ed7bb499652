//! Which platform is asked for: `--profile`, and the table `[platform]` of the settings file.
use std::convert::Infallible;
use std::path::Path;
use std::str::FromStr;

use anyhow::Context;
use pgconvoy_proto::model::Platform;

use crate::ends::Usage;
use crate::ledger::Ledger;

const FILE: &str = "pgconvoy.toml";
const TABLE: &str = "platform";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Profile {
    /// The one that both ends show the signs of, if there is one.
    Auto,
    /// None: every schema is the user's.
    Plain,
    Named(String),
}

impl FromStr for Profile {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "auto" => Self::Auto,
            "plain" => Self::Plain,
            name => Self::Named(name.to_owned()),
        })
    }
}

impl Profile {
    /// `sync` and `verify` go by the rules that the migration was made with: another profile is refused.
    pub fn check(&self, ledger: &Ledger) -> Result<(), Usage> {
        let asked = match self {
            Self::Auto => return Ok(()),
            Self::Plain => "plain",
            Self::Named(name) => name,
        };
        let tenancy = ledger.options.tenancy.as_ref();
        let made = tenancy.map_or("plain", |tenancy| &tenancy.platform.name);
        if asked == made {
            return Ok(());
        }
        Err(Usage(format!(
            "--profile {asked}: migration {} was made with {made}, and goes by its rules",
            ledger.id
        )))
    }
}

/// What the settings file states of a platform. `given`: the file that was named.
pub fn stated(given: Option<&Path>) -> anyhow::Result<Option<Platform>> {
    let path = given.unwrap_or(Path::new(FILE));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && given.is_none() => {
            return Ok(None);
        }
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    // What is wrong with the rest of it was told before.
    let mut file: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        Usage(format!("{}: {}", path.display(), error.message()))
    })?;
    let Some(toml::Value::Table(table)) = file.remove(TABLE) else {
        return Ok(None);
    };
    let platform = Platform::from_table(table)
        .map_err(|error| Usage(format!("{}, [{TABLE}]: {error}", path.display())))?;
    Ok(Some(platform))
}

/// Those that may be it; what the file states comes first, and hides a known one of its name.
pub fn candidates(profile: &Profile, stated: Option<Platform>) -> anyhow::Result<Vec<Platform>> {
    let known = Platform::known()?;
    let hidden = stated.as_ref().map(|platform| platform.name.clone());
    let known = known
        .into_iter()
        .filter(|known| Some(&known.name) != hidden.as_ref());
    let all: Vec<Platform> = stated.into_iter().chain(known).collect();
    match profile {
        Profile::Plain => Ok(Vec::new()),
        Profile::Auto => Ok(all),
        Profile::Named(name) => {
            let names: Vec<&str> = all.iter().map(|platform| platform.name.as_str()).collect();
            let names = names.join(", ");
            let wanted = all.into_iter().find(|platform| platform.name == *name);
            let unknown = || {
                Usage(format!(
                    "--profile {name}: there is no such platform; auto, plain, {names}, or state one in {FILE} as [{TABLE}]"
                ))
            };
            Ok(vec![wanted.ok_or_else(unknown)?])
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_stated_platform_comes_first_and_hides_its_namesake() {
        let names = |profile: &str, stated: Option<&str>| {
            let stated = stated.map(|name| Platform {
                name: name.into(),
                ..Platform::default()
            });
            let all = candidates(&profile.parse().unwrap(), stated).unwrap();
            all.into_iter()
                .map(|platform| platform.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names("auto", None), ["supabase"]);
        assert_eq!(names("auto", Some("mine")), ["mine", "supabase"]);
        assert_eq!(names("auto", Some("supabase")), ["supabase"]);
        assert_eq!(names("mine", Some("mine")), ["mine"]);
        assert!(names("plain", Some("mine")).is_empty());
        let unknown = candidates(&Profile::Named("x".into()), None).unwrap_err();
        assert!(unknown.to_string().contains("auto, plain, supabase"));
    }
}

//! What of roles and of the database is secret: password verifiers (SCRAM or md5: what PostgreSQL keeps of a password), and the
//! values of settings that are veiled in the plan.
//!
//! Invariant 5 (credentials stay home): who has a verifier can log in as the role, or guess its password. Secrets go from the
//! source agent to the target agent and nowhere else: no `Debug` shows one, and the coordinator sees none.
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{Malformed, Setting};

#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// By role.
    pub verifiers: BTreeMap<String, String>,
    /// Not veiled.
    pub settings: Vec<Setting>,
}

impl Secrets {
    pub fn verifier(&self, role: &str) -> Option<&str> {
        self.verifiers.get(role).map(String::as_str)
    }

    /// The setting with its value. None: it is veiled, and its value did not come along.
    pub fn reveal(&self, setting: &Setting) -> Option<Setting> {
        if !setting.veiled {
            return Some(setting.clone());
        }
        let mut open = self.settings.iter();
        open.find(|open| open.veil() == *setting).cloned()
    }

    /// How they travel and lie on disk: JSON.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_else(|error| unreachable!("{error}"))
    }

    /// The error quotes nothing of what was read.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        serde_json::from_slice(bytes).map_err(|_| Malformed::new("secrets that cannot be read"))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verifiers, settings) = (self.verifiers.len(), self.settings.len());
        write!(f, "Secrets({verifiers} verifiers, {settings} settings)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn they_survive_the_way_and_show_nothing() {
        let key = Setting::parse("app.jwt_secret=eyJ").unwrap();
        let secrets = Secrets {
            verifiers: [("app".to_owned(), "SCRAM-SHA-256$4096:salt$key".to_owned())].into(),
            settings: vec![key.clone()],
        };
        let decoded = Secrets::decode(&secrets.encode()).unwrap();
        assert_eq!(decoded.verifier("app"), Some("SCRAM-SHA-256$4096:salt$key"));
        assert_eq!(format!("{decoded:?}"), "Secrets(1 verifiers, 1 settings)");
        let broken = Secrets::decode(br#"{"verifiers":{"app":"SCRAM"#).unwrap_err();
        assert!(!broken.to_string().contains("SCRAM"));
        assert_eq!(decoded.reveal(&key.veil()), Some(key));
    }

    #[test]
    fn only_what_is_veiled_is_looked_up() {
        let open = Setting::parse("work_mem=1MB").unwrap();
        assert_eq!(open.veil(), open);
        assert_eq!(Secrets::default().reveal(&open), Some(open));
        let veiled = Setting::parse("app.key=eyJ").unwrap().veil();
        assert!(!veiled.to_string().contains("eyJ"));
        assert_eq!(Secrets::default().reveal(&veiled), None);
    }
}

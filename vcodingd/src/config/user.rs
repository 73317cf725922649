//! The user's own configuration: `<config>/config.toml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Error, parsed};

/// What only the user may decide.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct User {
    pub engine: Engine,
    pub agents: Agents,
    /// By secret name (`ANTHROPIC_API_KEY`): where that key's provider is, when it is not
    /// where the agent's manifest says.
    pub endpoints: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Engine {
    /// The engine's Unix socket; default: `DOCKER_HOST`, else the engine's own default.
    pub socket: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Agents {
    /// Base URL of the package registry that agents are fetched from.
    pub registry: Option<String>,
}

impl User {
    /// Reads `<config>/config.toml`; a missing file is an empty one.
    ///
    /// # Errors
    /// [`Error::Unreadable`], [`Error::Mistake`].
    pub fn load(config: &Path) -> Result<Self, Error> {
        let path = config.join("config.toml");
        match std::fs::read_to_string(&path) {
            Ok(text) => parsed(&text).map_err(|why| Error::Mistake { path, why }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(Error::Unreadable { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_the_users_to_set_and_unknown_keys_are_mistakes() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(User::load(dir.path()).unwrap(), User::default());
        let file = dir.path().join("config.toml");
        std::fs::write(&file, "[endpoints]\nANTHROPIC_API_KEY = \"http://127.0.0.1:1\"\n").unwrap();
        assert_eq!(User::load(dir.path()).unwrap().endpoints["ANTHROPIC_API_KEY"], "http://127.0.0.1:1");
        std::fs::write(&file, "[endpoint]\n").unwrap();
        assert!(matches!(User::load(dir.path()), Err(Error::Mistake { .. })));
    }
}

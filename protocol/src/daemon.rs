//! `daemon.*` and `rpc.discover`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Parameters of a method that takes none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoParams {}

/// Result of a method that has nothing to say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Done {}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DaemonStatus {
    /// The daemon's version, as `vcodingd --version` prints it.
    pub version: String,
    /// [`crate::VERSION`].
    pub protocol: u32,
    pub pid: u32,
    pub started: Timestamp,
    /// The state directory it owns; a client compares it with the one it expects.
    pub state_dir: PathBuf,
    pub workspaces: u32,
    pub running: u32,
    /// What it found lost at its start, and what came back: a line each, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

/// What stands in `<state>/daemon.json`, by which a client finds the socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonFile {
    pub socket: PathBuf,
    pub pid: u32,
    pub version: String,
}

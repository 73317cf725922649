//! `exec.*`: a command in the guest, on the caller's own descriptors.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Bytes, WorkspaceRef};

/// `exec.start`, sent with up to three descriptors (stdin, stdout, stderr, in this order; a
/// missing one is /dev/null). The reply is the command's end; closing the connection ends the
/// command and everything it started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecParams {
    pub workspace: WorkspaceRef,
    /// The caller's name for it, unique on its connection: what signal and resize name.
    pub exec: String,
    /// Empty: the user's shell, as a log-in shell.
    pub argv: Vec<Bytes>,
    /// `K=V`, on top of the image's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<Bytes>,
    /// Relative to `/work`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<Bytes>,
    /// With a terminal of this kind and size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<Terminal>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Terminal {
    /// The value of TERM.
    pub term: String,
    pub columns: u16,
    pub rows: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExecResult {
    /// 0–255; 128 + N if it died of signal N.
    pub status: u8,
    /// The guest's memory limit in bytes, where the command ended with 137 and the kernel has ended processes of the guest for
    /// that limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<u64>,
}

/// What happened to processes that a guest's memory limit ended, and how it is raised. `limit` is in bytes.
#[must_use]
pub fn over_memory(limit: u64) -> String {
    let as_written = |limit: u64| match limit {
        whole if whole % (1 << 30) == 0 => format!("{}g", whole >> 30),
        bytes => format!("{}m", bytes >> 20),
    };
    let (now, more) = (as_written(limit), as_written(limit.saturating_mul(2)));
    format!(
        "the guest's processes together used more memory than its limit, {now}, allows; [limits] memory = \"{more}\" in \
         vcoding.toml and vcodingctl up --rebuild raise it"
    )
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecSignalParams {
    pub exec: String,
    pub signal: Signal,
}

/// The signals that are passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Signal {
    Hup,
    Int,
    Quit,
    Kill,
    Term,
    Usr1,
    Usr2,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecResizeParams {
    pub exec: String,
    pub columns: u16,
    pub rows: u16,
}

//! `transfer.*`: work going home.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::workspace::WhileRunning;
use crate::{Bytes, WorkspaceRef};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyParams {
    pub workspace: WorkspaceRef,
    /// Default `vcoding/<workspace>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    #[serde(default, skip_serializing_if = "WhileRunning::is_refuse")]
    pub while_running: WhileRunning,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApplyResult {
    pub branch: String,
    /// The commit the branch points at, in the project's repository; absent if there was nothing
    /// to take home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The commit it grew from; absent where the project had none when it was copied in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The checkpoint it was made from.
    pub checkpoint: String,
    pub added: u64,
    pub changed: u64,
    pub deleted: u64,
    /// Files among them that something on the host may run or obey, with the reason; at most 1,000 are named.
    pub flagged: Vec<Flagged>,
    /// How many there are.
    #[serde(default)]
    pub flagged_total: u64,
    #[serde(default)]
    pub notes: Vec<String>,
    /// The project's HEAD has no commit yet: the branch can only be begun with.
    #[serde(default)]
    pub unborn: bool,
    /// Files of the project that git would refuse to write over when the branch is merged, since they are not committed; some of
    /// them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_the_way: Vec<Bytes>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Flagged {
    pub path: Bytes,
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CollectParams {
    pub workspace: WorkspaceRef,
    /// Relative to the work tree, as in a shell: `*` ends at a slash, `**` does not; one that names a directory means all in it.
    pub patterns: Vec<Bytes>,
    /// An absolute path on this computer; made if it is missing. Files keep their directories below it.
    pub to: std::path::PathBuf,
    /// Replaces files that are there and differ.
    #[serde(default)]
    pub force: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CollectResult {
    /// What was copied; at most 1,000 are named.
    pub files: Vec<Collected>,
    pub total: u64,
    pub bytes: u64,
    /// Files that were there already, with the same content.
    pub same: u64,
    /// Files among them that something on this computer may run or obey, with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flagged: Vec<Flagged>,
    /// How many there are; at most 1,000 are named.
    #[serde(default)]
    pub flagged_total: u64,
    /// What is there and differs, and stayed as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_the_way: Vec<Bytes>,
    pub in_the_way_total: u64,
    /// What matched and is no regular file: links are neither followed nor made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<crate::workspace::LeftOut>,
    pub skipped_total: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Collected {
    pub path: Bytes,
    pub size: u64,
}

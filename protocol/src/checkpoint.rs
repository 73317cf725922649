//! `checkpoint.*`: the time machine.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::workspace::WhileRunning;
use crate::{Bytes, RunId, Timestamp, WorkspaceRef};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointView {
    /// 40 hexadecimal digits.
    pub id: String,
    pub time: Timestamp,
    /// Why it was made: the command, mostly: `up`, `checkpoint`, `run-start`, `run`, `before-rollback`, `rollback`, `apply`, …
    pub cause: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Files added, changed and deleted since the one before.
    pub added: u64,
    pub changed: u64,
    pub deleted: u64,
    /// Names it answers to: `@`, `base`, `run:…`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckpointCreateParams {
    pub workspace: WorkspaceRef,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointResult {
    pub checkpoint: CheckpointView,
    /// False if the work tree was as the newest checkpoint already.
    pub created: bool,
    #[serde(default)]
    pub notes: Vec<String>,
    /// What is no work and in no checkpoint: caches, what the project's own rules ignore. A line for each of the two.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asides: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckpointListParams {
    pub workspace: WorkspaceRef,
    /// At most so many, newest first (default 1000).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointList {
    pub checkpoints: Vec<CheckpointView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiffParams {
    pub workspace: WorkspaceRef,
    /// Default `base`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Default: the work tree as it is now (a checkpoint is taken first).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<Bytes>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiffResult {
    pub from: String,
    pub to: String,
    pub files: Vec<FileChange>,
    /// A unified patch that `git apply` takes; cut at 2 MiB.
    pub patch: Bytes,
    pub truncated: bool,
    /// What of the work tree is in no checkpoint, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What is no work and in no checkpoint: caches, what the project's own rules ignore. A line for each of the two.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asides: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileChange {
    pub path: Bytes,
    /// Before a rename.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_path: Option<Bytes>,
    /// `A`, `M`, `D`, `R` or `T` (type changed), as git writes them.
    pub status: char,
    /// Lines; absent for binary files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackParams {
    pub workspace: WorkspaceRef,
    /// A checkpoint's name.
    pub to: String,
    /// Only these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<Bytes>,
    #[serde(default, skip_serializing_if = "WhileRunning::is_refuse")]
    pub while_running: WhileRunning,
    /// What no checkpoint holds and was made after `to` is moved to the trash; else it stays.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clean: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RollbackResult {
    /// The checkpoint that was appended, with the target's tree.
    pub checkpoint: CheckpointView,
    /// The one that was gone back to.
    pub target: String,
    /// The state before, which is `@~1` now.
    pub before: String,
    /// What of the work tree is in no checkpoint and stayed as it was, or was moved to the trash, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What is no work and in no checkpoint: caches, what the project's own rules ignore. A line for each of the two.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asides: Vec<String>,
}

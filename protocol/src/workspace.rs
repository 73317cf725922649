//! `workspace.*`: guests and their lifecycles.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Bytes, Timestamp, WorkspaceId, WorkspaceName, WorkspaceRef};

/// Where a workspace is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// `up` is making it.
    Creating,
    /// Its guest runs and a real command has come back from it.
    Ready,
    /// Its guest is stopped.
    Stopped,
    /// `start`, or the way back after the guest was lost, is under way.
    Starting,
    Stopping,
    Destroying,
    /// The last operation failed half-way; `up` or `start` repairs it.
    Broken,
}

/// A workspace, as everybody may see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkspaceView {
    pub id: WorkspaceId,
    pub name: WorkspaceName,
    /// The project's directory (its real path).
    pub project: PathBuf,
    pub phase: Phase,
    pub created: Timestamp,
    /// The image's tag, once it is built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The checkpoint that is `base`: 40 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// The newest checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// The newest checkpoint's tree is neither `base`'s nor the last applied one.
    pub unapplied: bool,
    /// Something was or is under way in the guest since the newest checkpoint: the work tree may hold more than that says.
    #[serde(default)]
    pub unrecorded: bool,
    /// Runs under way.
    pub runs: u32,
    /// Why it is `broken`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What was done to its guest that its user should know of: its processes were ended, since it took too much of the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// What the operation under way is at; none while nothing is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
}

/// What a workspace waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Waiting {
    /// A step of an operation as `progress` calls it (`image`, `walls`, `ssh`, …), or `its turn` after the daemon's start.
    pub what: String,
    pub since: Timestamp,
}

/// What isolates a guest, as the kernel and the engine report it, not as it was configured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Wall {
    /// Its network interfaces.
    pub interfaces: Vec<String>,
    pub uid: u32,
    pub gid: u32,
    /// The five capability sets of its first process, joined: `0` is none at all.
    pub capabilities: String,
    pub no_new_privileges: bool,
    /// The kernel filters its system calls.
    pub seccomp: bool,
    pub read_only_root: bool,
    /// Where the guest can write, and what of the host is mounted.
    pub mounts: Vec<WallMount>,
    /// How SSH's bytes get in: `socket` or `stream`.
    pub carrier: String,
    pub runtime: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WallMount {
    pub at: String,
    pub writable: bool,
    /// `work folder`, `tmpfs`, `engine`.
    pub from: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpParams {
    /// The project's directory; its real path is what counts.
    pub project: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<WorkspaceName>,
    /// Build the image again even if one with this content is there; what did not change comes from the engine's cache.
    #[serde(default)]
    pub rebuild: bool,
    /// Build it anew without the engine's cache.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_cache: bool,
    /// A destroyed workspace to be brought back: its id, or its name where the trash has only one of that name; with `:CHECKPOINT` its
    /// work tree goes back to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Send `progress` notifications.
    #[serde(default)]
    pub progress: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UpResult {
    pub workspace: WorkspaceView,
    /// False if the workspace was there already.
    pub created: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall: Option<Wall>,
    /// What was kept out of the guest, with the reason; at most 100 are listed.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
    /// How many were kept out in all.
    #[serde(default)]
    pub left_out_total: u64,
    /// Files copied in.
    #[serde(default)]
    pub files: u64,
    /// Remarks, each a sentence.
    #[serde(default)]
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeftOut {
    pub path: Bytes,
    pub why: String,
}

/// One step of a long operation; sent when it begins, when it says something, when it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// The step's name, for people: `image`, `guest`, `work tree`, …, or a step of the build.
    pub step: String,
    pub state: StepState,
    /// A line of output, or a remark: text from a stranger where it comes from a build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// How long the step took, in milliseconds, at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    Started,
    Output,
    Done,
    Cached,
    Failed,
}

/// A call that names one workspace and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceParams {
    pub workspace: WorkspaceRef,
}

/// What becomes of a call that runs under way would suffer from: it ends them, or changes files under them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhileRunning {
    /// It is refused as `runs-under-way`.
    #[default]
    Refuse,
    /// It waits until no run is under way.
    Wait,
    /// It is done all the same.
    Force,
}

impl WhileRunning {
    pub fn is_refuse(&self) -> bool {
        *self == Self::Refuse
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StopParams {
    pub workspace: WorkspaceRef,
    #[serde(default, skip_serializing_if = "WhileRunning::is_refuse")]
    pub while_running: WhileRunning,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkspaceList {
    pub workspaces: Vec<WorkspaceView>,
}

/// A destroyed workspace that is still kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrashView {
    pub id: WorkspaceId,
    /// Absent where its record cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<WorkspaceName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<PathBuf>,
    pub destroyed: Timestamp,
    /// It goes then, or before where all together take more than 20 GiB.
    pub kept_until: Timestamp,
    /// What it takes on the disk.
    pub bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrashList {
    /// The oldest first.
    pub trash: Vec<TrashView>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GcParams {
    /// Every destroyed workspace, not only those whose time is over.
    #[serde(default)]
    pub trash: bool,
    /// Only say what would go.
    #[serde(default)]
    pub dry_run: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GcResult {
    /// What went, or would go.
    pub freed: Vec<Freed>,
    /// Destroyed workspaces that stay, and what they take.
    pub trashed: u64,
    pub trash_bytes: u64,
}

/// Something that nobody needed any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Freed {
    pub kind: FreedKind,
    pub name: String,
    /// Of an image: what the engine says it takes, with layers that others may share.
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FreedKind {
    Workspace,
    Image,
}

/// What a guest may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Limits {
    /// Bytes, without swap.
    pub memory: u64,
    /// Thousandths of a processor.
    pub milli_cpus: u64,
    pub pids: u32,
    /// Bytes of the host's disk.
    pub disk: u64,
    pub open_files: u32,
    /// What was asked for, where this computer gives less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files_asked: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ShowResult {
    pub workspace: WorkspaceView,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall: Option<Wall>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Directories of the image that lie in memory (its VOLUMEs): what is in them ends with the guest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_memory: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DestroyParams {
    pub workspace: WorkspaceRef,
    /// Destroy even if there is work that was never applied.
    #[serde(default)]
    pub force: bool,
    /// Keep nothing in the trash.
    #[serde(default)]
    pub purge: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DestroyResult {
    pub id: WorkspaceId,
    pub name: WorkspaceName,
    /// Its work tree, home, record and history are kept until then, unless it was purged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_until: Option<Timestamp>,
    /// What of it was in no checkpoint, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

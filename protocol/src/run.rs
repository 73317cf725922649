//! `run.*`: agent runs and background commands.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::{Bytes, RunId, Timestamp, WorkspaceId, WorkspaceName, WorkspaceRef};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunStartParams {
    pub workspace: WorkspaceRef,
    /// An agent's name; without it, `argv` is a background command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// What the agent is asked; at most 1 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<Bytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Go on with that run's session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<RunId>,
    /// A wall-clock limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u64>,
    /// Send `progress` notifications (the agent may have to be fetched first).
    #[serde(default)]
    pub progress: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    Starting,
    Running,
    Succeeded,
    Failed,
    Cancelled,
    TimedOut,
    /// The model endpoint refused or failed.
    Endpoint,
    /// A budget was used up.
    Budget,
    /// The guest or the run's supervisor ended before it did.
    Lost,
    /// Its files in the guest are not what the supervisor writes: cut off, replaced, forged.
    Tampered,
}

impl RunState {
    pub fn is_over(self) -> bool {
        !matches!(self, RunState::Starting | RunState::Running)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunView {
    pub id: RunId,
    pub workspace: WorkspaceId,
    pub workspace_name: WorkspaceName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The prompt's or the command's beginning.
    pub title: String,
    pub state: RunState,
    pub started: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// The command's exit status, as the guest reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u8>,
    /// `vcodingctl`'s exit status for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<u8>,
    /// Checkpoint before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Checkpoint after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunParams {
    pub run: RunId,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunListParams {
    /// Only of this workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<WorkspaceRef>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunList {
    pub runs: Vec<RunView>,
}

/// `run.subscribe`: the events from `from` (default: the first) on, to the end of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunSubscribeParams {
    pub run: RunId,
    /// The `seq` of the first event wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<[u64; 2]>,
    /// End at the newest event instead of waiting for the run's end.
    #[serde(default)]
    pub once: bool,
    /// Every line as it was written, as `output` events: the agent's own format is not read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub raw: bool,
}

/// A `run.event` notification's `result`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RunItem {
    Event(Box<Event>),
    /// The run's record, last: nothing follows.
    End(Box<RunView>),
}

/// Everything about one run but its events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunReport {
    pub run: RunView,
    /// What the agent was asked; a command has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// From its start to its end, or to now; absent where its workspace is gone, or where there is no checkpoint of its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<crate::checkpoint::DiffResult>,
    /// From its start to its end, oldest first.
    pub checkpoints: Vec<crate::checkpoint::CheckpointView>,
}

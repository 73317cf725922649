//! Workspaces: the registry of all, and one task for each that owns everything about it.
//!
//! ```text
//! Registry ── names, look-up, creation, recovery
//!    └─ Handle ── commands into the inbox; the published snapshot, which needs no turn
//!          └─ Actor ── record, operation under way, timeline, connections, runs
//!                 machine  which steps an operation has (pure)
//!                 steps    what each step does (image_step: the longest of them)
//!                 up       which operation an `up` or `start` takes
//!                 active   runs: start, watch, end
//! ```
//!
//! An operation's intent is on disk before its first step, its outcome after its last
//! (`machine`); a daemon that was killed goes on where the intent says. A caller that goes away
//! changes nothing: the operation belongs to the workspace.

mod active;
mod actor;
mod agent;
mod apply;
mod cleaned;
mod consent;
mod disk;
mod doctor;
mod doings;
mod ending;
mod failure;
mod handle;
mod helper;
mod image_step;
mod leftovers;
mod machine;
mod memory;
mod points;
mod record;
mod recovery;
mod registry;
mod relay;
mod rollback;
mod run_calls;
mod steps;
#[cfg(test)]
mod tests;
mod trash;
mod turns;
mod up;
mod wall;

use std::path::PathBuf;
use std::sync::Arc;

use protocol::workspace::{Progress, StepState, Wall, WorkspaceView};
use tokio::sync::mpsc;

pub use active::{KnownRuns, RunEntry};
pub use agent::open_store;
pub use disk::Disk;
pub use doings::Doing;
pub use failure::of_secrets as failure_of_secrets;
pub use handle::Handle;
pub use points::Points;
#[cfg(debug_assertions)]
pub use points::all as kill_points;
pub use record::{LimitsRecord, WorkspaceRecord};
pub use recovery::Recovered;
pub use registry::Registry;
pub use turns::Turns;

use crate::provider::{InitProcess, Provider};
use crate::runs::RunRecord;
use crate::secrets::Secrets;
use crate::ssh::{self, Pool};
use crate::{agents, egress, store};

/// What all workspaces share.
#[derive(Debug)]
pub struct Shared {
    pub provider: Arc<dyn Provider>,
    pub workspaces: store::Table<WorkspaceRecord>,
    pub runs: store::Table<RunRecord>,
    /// The real path of the state directory.
    pub state_dir: PathBuf,
    pub config_dir: PathBuf,
    pub secrets: Secrets,
    pub points: Points,
    /// Which runs are known, for whoever looks at one.
    pub known_runs: KnownRuns,
    pub agents: agents::Store,
    /// How full the disk is.
    pub disk: Disk,
    /// The trash has become fuller.
    pub put_away: tokio::sync::Notify,
    /// Whose connections are made ahead, and when.
    pub warming: ssh::Warming,
    /// Who comes back when, after the daemon's start.
    pub turns: Turns,
    /// Connections to model endpoints.
    pub model_client: egress::Client,
}

/// What anybody may see of a workspace at any moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub view: WorkspaceView,
    /// The way in, while its guest is ready.
    pub pool: Option<Pool>,
    pub wall: Option<Wall>,
    /// Its guest's PID 1, once it was started.
    pub init: Option<InitProcess>,
    /// What its guest may use.
    pub limits: LimitsRecord,
    /// The image's VOLUMEs, which lie in memory.
    pub volumes: Vec<String>,
    /// Its first `up` came to its end.
    pub made: bool,
    /// What its image was built on, and vcoding.toml's wishes for agents.
    pub musl: bool,
    pub default_agent: String,
    pub models: std::collections::BTreeMap<String, String>,
    pub run: crate::config::Run,
}

/// Where an operation's progress goes; nobody may be there.
#[derive(Debug, Clone, Default)]
pub struct Say(Option<mpsc::Sender<Progress>>);

impl Say {
    pub fn to(sender: mpsc::Sender<Progress>) -> Self {
        Self(Some(sender))
    }

    /// A listener that is slow misses lines of output, but no step.
    async fn say(&self, step: &str, state: StepState, text: Option<String>, took_ms: Option<u64>) {
        let Some(sender) = &self.0 else { return };
        let progress = Progress { step: step.to_owned(), state, text, took_ms };
        let _gone = tokio::time::timeout(std::time::Duration::from_secs(1), sender.send(progress)).await;
    }

    /// A line of output; missed by a listener that is slow.
    fn output(&self, step: &str, text: String) {
        if let Some(sender) = &self.0 {
            let progress =
                Progress { step: step.to_owned(), state: StepState::Output, text: Some(text), took_ms: None };
            // Full or closed: nobody waits for it.
            let _missed = sender.try_send(progress);
        }
    }
}

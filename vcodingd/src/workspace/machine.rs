//! What an operation consists of, and what a workspace is meanwhile. Pure: no clock, no disk.
//!
//! ```text
//!            up                    stop                destroy
//!   (none) ──────▶ Creating ─▶ Ready ─────▶ Stopping ─▶ Stopped ─────▶ Destroying ─▶ (gone)
//!                     │          ▲              start │
//!                     ▼ failed   └──── Starting ◀─────┘
//!                  Broken ── up, start (the same steps again), destroy
//! ```
//!
//! An operation is an intent on disk, then its steps in order, each of which may run twice, then
//! the resting state on disk without the intent. A daemon that finds an intent at its start goes
//! on with the step that it names.

use protocol::workspace::Phase;
use serde::{Deserialize, Serialize};

use super::record::Rest;

/// An operation under way, and which of its steps is next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    pub operation: Operation,
    pub step: usize,
}

/// What can be done to a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// From a project to a guest that answers.
    Up {
        rebuild: bool,
        /// A rebuild without the engine's cache.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        no_cache: bool,
    },
    /// From a stopped or lost guest to one that answers.
    Start,
    Stop,
    Destroy {
        purge: bool,
        /// Although it holds work that was never applied.
        #[serde(default)]
        force: bool,
    },
    /// The work tree back to the tree of checkpoint `to`. `before` is the newest from [`Step::Freeze`] on.
    Rollback {
        to: String,
        #[serde(default)]
        before: Option<String>,
        paths: Vec<protocol::Bytes>,
        /// What no checkpoint holds and came after `to` goes to the trash.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        clean: bool,
    },
    /// The newest checkpoint home, as this branch.
    Apply {
        branch: String,
    },
}

/// One step; each may run again after it was cut off anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The workspace's directories, owned as they must be; a lost work tree as the newest checkpoint has it.
    Directories,
    /// The user's Dockerfile as an image.
    Image,
    /// The project into the work tree, and checkpoint `base`.
    Copy,
    /// Keys, accounts, sshd's configuration, the helper.
    Files,
    /// The container, stopped.
    Create,
    /// The container running, compared with the kernel's word.
    Start,
    /// A real command has come back over SSH.
    Connect,
    /// Every run of the workspace is over.
    EndRuns,
    /// A checkpoint, if the work tree is not as the newest; nothing writes there any more.
    Checkpoint,
    /// The SSH connections are gone.
    Disconnect,
    /// The container is stopped.
    Halt,
    /// The container is removed.
    Remove,
    /// The directories are in the trash, or gone; the keys are gone in either case.
    PutAway,
    /// Nothing writes to the work tree, and what it holds is a checkpoint.
    Freeze,
    /// The work tree is the checkpoint's.
    Restore,
    /// The branch is in the project's repository.
    Publish,
}

impl Operation {
    /// Its steps in order.
    pub fn steps(&self) -> &'static [Step] {
        use Step::{
            Checkpoint, Connect, Copy, Create, Directories, Disconnect, EndRuns, Files, Freeze, Halt, Image, Publish,
            PutAway, Remove, Restore, Start,
        };
        match self {
            Self::Up { rebuild: false, .. } => &[Directories, Image, Copy, Files, Create, Start, Connect],
            Self::Up { rebuild: true, .. } => {
                &[Directories, Image, Copy, Disconnect, Remove, Files, Create, Start, Connect]
            }
            Self::Start => &[Directories, Files, Create, Start, Connect],
            Self::Stop => &[EndRuns, Disconnect, Halt, Checkpoint],
            Self::Destroy { purge: true, force: true } => &[EndRuns, Disconnect, Remove, PutAway],
            Self::Destroy { .. } => &[EndRuns, Disconnect, Remove, Checkpoint, PutAway],
            Self::Rollback { .. } => &[Freeze, Restore],
            Self::Apply { .. } => &[Publish],
        }
    }

    /// What the workspace is while it goes on.
    pub fn phase(&self, from: Rest) -> Phase {
        match self {
            Self::Up { .. } if from == Rest::New => Phase::Creating,
            Self::Up { .. } | Self::Start => Phase::Starting,
            Self::Stop => Phase::Stopping,
            Self::Destroy { .. } => Phase::Destroying,
            Self::Rollback { .. } | Self::Apply { .. } => resting(from, false),
        }
    }

    /// Where the workspace rests after it; `None`: it is no more.
    pub fn rest_after(&self, from: Rest) -> Option<Rest> {
        match self {
            Self::Up { .. } | Self::Start => Some(Rest::Ready),
            // One that never came up is still to be made.
            Self::Stop if from == Rest::New => Some(Rest::New),
            Self::Stop => Some(Rest::Stopped),
            Self::Destroy { .. } => None,
            Self::Rollback { .. } | Self::Apply { .. } => Some(from),
        }
    }

    /// For people, and in the names of kill points.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Up { .. } => "up",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Destroy { .. } => "destroy",
            Self::Rollback { .. } => "rollback",
            Self::Apply { .. } => "apply",
        }
    }
}

/// What a workspace without an operation under way is.
pub fn resting(rest: Rest, problem: bool) -> Phase {
    match (rest, problem) {
        (Rest::Ready, false) => Phase::Ready,
        (Rest::Stopped, _) => Phase::Stopped,
        (Rest::New, _) | (Rest::Ready, true) => Phase::Broken,
    }
}

impl Step {
    /// For people, and in the names of kill points.
    pub fn word(self) -> &'static str {
        match self {
            Self::Directories => "directories",
            Self::Image => "image",
            Self::Copy => "work tree",
            Self::Files => "keys",
            Self::Create => "guest",
            Self::Start => "walls",
            Self::Connect => "ssh",
            Self::EndRuns => "runs",
            Self::Checkpoint => "checkpoint",
            Self::Disconnect => "disconnect",
            Self::Halt => "halt",
            Self::Remove => "remove",
            Self::PutAway => "put away",
            Self::Freeze => "freeze",
            Self::Restore => "restore",
            Self::Publish => "publish",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operations() -> Vec<Operation> {
        vec![
            Operation::Up { rebuild: false, no_cache: false },
            Operation::Up { rebuild: true, no_cache: true },
            Operation::Start,
            Operation::Stop,
            Operation::Destroy { purge: true, force: true },
            Operation::Destroy { purge: false, force: true },
            Operation::Destroy { purge: true, force: false },
            Operation::Rollback { to: "a".into(), before: None, paths: Vec::new(), clean: false },
            Operation::Apply { branch: "b".into() },
        ]
    }

    #[test]
    fn whatever_makes_a_guest_run_verifies_it_and_then_talks_to_it() {
        for operation in operations().iter().filter(|o| o.rest_after(Rest::Stopped) == Some(Rest::Ready)) {
            let steps = operation.steps();
            assert!(steps.ends_with(&[Step::Files, Step::Create, Step::Start, Step::Connect]), "{operation:?}");
        }
    }

    #[test]
    fn whatever_ends_a_guest_ends_its_runs_and_connections_before_it() {
        let at = |steps: &[Step], step| steps.iter().position(|s| *s == step);
        for operation in operations() {
            let steps = operation.steps();
            for end in [Step::Halt, Step::Remove] {
                let Some(end) = at(steps, end) else { continue };
                assert!(at(steps, Step::Disconnect).unwrap() < end, "{operation:?}");
            }
        }
    }

    #[test]
    fn what_is_kept_is_recorded_when_nothing_writes_any_more() {
        let at = |steps: &[Step], step| steps.iter().position(|s| *s == step);
        for operation in operations() {
            let steps = operation.steps();
            let still = [Step::Halt, Step::Remove, Step::Freeze].iter().find_map(|s| at(steps, *s));
            if let Some(recorded) = at(steps, Step::Checkpoint) {
                assert!(still.unwrap() < recorded, "{operation:?}");
            }
            for after in [Step::PutAway, Step::Restore] {
                if at(steps, after).is_some() && operation != (Operation::Destroy { purge: true, force: true }) {
                    let recorded = at(steps, Step::Checkpoint).or(at(steps, Step::Freeze));
                    assert!(recorded < at(steps, after), "{operation:?}");
                    assert!(recorded.is_some(), "{operation:?}");
                }
            }
        }
    }

    #[test]
    fn only_destroy_leaves_nothing() {
        for operation in operations() {
            let gone = operation.rest_after(Rest::Ready).is_none();
            assert_eq!(gone, matches!(operation, Operation::Destroy { .. }), "{operation:?}");
        }
        assert_eq!(resting(Rest::New, false), Phase::Broken, "an up that never ended");
    }
}

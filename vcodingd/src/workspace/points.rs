//! Places where a test lets the daemon die: before and after every step of every operation.
//!
//! A point is named `operation/step/before` or `…/after`. In a test of this crate the point tells
//! the test and never returns; in a debug build `VCODING_KILL_AT` names the point at which the
//! process kills itself. A release build has none.

use std::sync::Arc;

use tokio::sync::mpsc;

/// An operation's intent is written.
pub const INTENT: &str = "intent";
/// Its outcome is written.
pub const OUTCOME: &str = "outcome";

/// The engine has begun with an image.
pub const BUILDING: &str = "building";
/// The engine has the image, and nothing of ours says so yet.
pub const BUILT: &str = "built";

/// Every point there is, each with the command during which it is passed: `COMMAND OPERATION/STEP/SIDE`.
#[cfg(debug_assertions)]
pub fn all() -> Vec<String> {
    use super::machine::Operation;
    let rollback = Operation::Rollback { to: String::new(), before: None, paths: Vec::new(), clean: false };
    let commands = [
        ("up", Operation::Up { rebuild: false, no_cache: false }),
        ("rebuild", Operation::Up { rebuild: true, no_cache: false }),
        ("start", Operation::Start),
        ("stop", Operation::Stop),
        ("destroy", Operation::Destroy { purge: false, force: true }),
        ("purge", Operation::Destroy { purge: true, force: true }),
        ("rollback", rollback),
        ("apply", Operation::Apply { branch: String::new() }),
    ];
    let mut points = Vec::new();
    for (command, operation) in commands {
        let steps = operation.steps().iter().map(|step| step.word());
        let steps = std::iter::once(INTENT).chain(steps).chain([OUTCOME]);
        for step in steps {
            for side in ["before", "after"] {
                points.push(format!("{command} {}/{step}/{side}", operation.word()));
            }
        }
    }
    for (command, step) in [("up", BUILDING), ("up", BUILT), ("rebuild", BUILDING), ("rebuild", BUILT)] {
        points.push(format!("{command} up/{step}/after"));
    }
    // What is no more has no outcome.
    points.retain(|point| !point.ends_with("destroy/outcome/after"));
    points.extend(RUN.map(|point| format!("run run/{point}")));
    points
}

/// A run's points, which belong to no operation.
#[cfg(debug_assertions)]
const RUN: [&str; 6] = ["record/before", "record/after", "start/before", "start/after", "end/before", "end/after"];

/// Which side of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Before,
    After,
}

/// Where to die, if anywhere.
#[derive(Debug, Clone, Default)]
pub struct Points {
    kill: Option<Arc<Kill>>,
}

#[derive(Debug)]
struct Kill {
    at: String,
    /// `None`: the process dies for real.
    told: Option<mpsc::Sender<()>>,
}

impl Points {
    /// As the environment says; never in a release build.
    pub fn from_env() -> Self {
        if !cfg!(debug_assertions) {
            return Self::default();
        }
        let at = std::env::var("VCODING_KILL_AT").ok().filter(|at| !at.is_empty());
        Self { kill: at.map(|at| Arc::new(Kill { at, told: None })) }
    }

    /// The daemon of a test ends at this point: `told` hears of it, and the operation hangs there
    /// until it is dropped.
    #[cfg(test)]
    pub fn dying_at(at: &str, told: mpsc::Sender<()>) -> Self {
        Self { kill: Some(Arc::new(Kill { at: at.to_owned(), told: Some(told) })) }
    }

    pub async fn pass(&self, operation: &str, step: &str, side: Side) {
        let Some(kill) = &self.kill else { return };
        let side = match side {
            Side::Before => "before",
            Side::After => "after",
        };
        if kill.at != format!("{operation}/{step}/{side}") {
            return;
        }
        match &kill.told {
            Some(told) => drop(told.send(()).await),
            None => drop(nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL)),
        }
        std::future::pending::<()>().await;
    }
}

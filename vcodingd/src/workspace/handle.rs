//! The way to a workspace's owner: what it can be told, and what can be seen without asking it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use protocol::checkpoint::{CheckpointView, DiffResult, RollbackResult};
use protocol::run::RunView;
use protocol::transfer::{ApplyResult, CollectResult};
use protocol::workspace::{Phase, WhileRunning, WorkspaceView};
use protocol::{Bytes, Error, Kind, RunId};
use tokio::sync::{mpsc, oneshot, watch};

use super::active::Prepared;
use super::consent::{self, Proposed, Recipe};
use super::doings::{Doing, Doings};
use super::memory::MemoryKills;
use super::steps::Told;
use super::turns::Wanted;
use super::{Say, Snapshot, failure};
use crate::provider::{GuestState, Provider};
use crate::runs::RunRecord;
use crate::ssh::Pool;
use crate::timeline::{Notes, Timeline};
use crate::transfer::{self, CollectRequest};

pub(super) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What a workspace can be told.
#[derive(Debug)]
pub(super) enum Command {
    /// After the daemon's start: finish what was under way, find the guest and these runs again.
    Recover {
        runs: Vec<RunRecord>,
    },
    Up {
        rebuild: Rebuild,
        say: Say,
        reply: Reply<UpDone>,
    },
    Start {
        reply: Reply<()>,
    },
    Stop {
        force: bool,
        reply: Reply<()>,
    },
    Destroy {
        force: bool,
        purge: bool,
        reply: Reply<Vec<String>>,
    },
    Checkpoint {
        label: Option<String>,
        reply: Reply<(CheckpointView, bool, Notes)>,
    },
    Diff {
        from: Option<String>,
        to: Option<String>,
        paths: Vec<Bytes>,
        reply: Reply<DiffResult>,
    },
    Rollback {
        to: String,
        paths: Vec<Bytes>,
        clean: bool,
        force: bool,
        reply: Reply<RollbackResult>,
    },
    Apply {
        branch: Option<String>,
        force: bool,
        reply: Reply<ApplyResult>,
    },
    RunStart {
        prepared: Box<Prepared>,
        say: Say,
        reply: Reply<RunView>,
    },
    RunCancel {
        run: RunId,
        reply: Reply<()>,
    },
    /// To end every process of the guest but its init.
    Sweep {
        reply: Reply<()>,
    },
    /// Nothing: the answer says that everything before has been done.
    Turn {
        reply: Reply<()>,
    },
}

/// What becomes of the image that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebuild {
    /// It stays.
    No,
    /// It is built again, and what did not change is taken from the engine's cache.
    Cached,
    /// Nothing is taken from there.
    Anew,
}

/// What an `up` has to tell.
#[derive(Debug)]
pub struct UpDone {
    pub(super) told: Told,
    pub created: bool,
}

/// The way to a workspace's owner.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) inbox: mpsc::Sender<Command>,
    pub(super) snapshot: watch::Receiver<Arc<Snapshot>>,
    pub(super) timeline: Timeline,
    pub(super) doings: Doings,
    pub(super) memory_kills: MemoryKills,
    pub(super) provider: Arc<dyn Provider>,
    pub(super) wanted: Wanted,
}

impl Handle {
    /// As it is now. Somebody may have ended the guest, or restarted the engine, behind our back: its owner learns of that with the
    /// next command, whoever looks learns it here.
    pub fn view(&self) -> WorkspaceView {
        let snapshot = self.snapshot();
        let mut view = snapshot.view.clone();
        view.unrecorded = view.base.is_some() && (view.runs > 0 || self.doings.any());
        if view.phase == Phase::Ready && snapshot.init.is_some_and(|init| !self.provider.is_there(&init)) {
            view.phase = Phase::Broken;
            view.problem = Some("its guest has ended".to_owned());
        }
        view
    }

    /// A command is let into the guest, until the answer is dropped.
    pub fn doing(&self) -> Doing {
        self.doings.begin()
    }

    /// Of a command that ended by KILL: the guest's memory limit, if that was why.
    pub fn memory_limit_hit(&self) -> Option<u64> {
        let snapshot = self.snapshot();
        let hit = snapshot.init.is_some_and(|init| self.memory_kills.more(&*self.provider, init));
        hit.then_some(snapshot.limits.memory)
    }

    /// Of a command that was lost with its guest: the memory limit, if that was why.
    pub async fn memory_limit_ended_guest(&self) -> Option<u64> {
        let snapshot = self.snapshot();
        let guest = self.provider.inspect(&snapshot.view.id).await.ok().flatten()?;
        matches!(guest.state, GuestState::Exited { out_of_memory: true, .. }).then_some(snapshot.limits.memory)
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// Its owner has ended.
    pub(super) fn is_gone(&self) -> bool {
        self.inbox.is_closed()
    }

    /// The way into a guest that is ready; one that is being made or started is waited for.
    ///
    /// # Errors
    /// [`Kind::WorkspaceNotRunning`], with the command that mends it.
    pub async fn pool(&self) -> Result<Pool, Error> {
        if self.snapshot.borrow().pool.is_none() {
            self.wanted.now();
        }
        let mut watched = self.snapshot.clone();
        // The usual case costs no wait.
        let ready = |snapshot: &Arc<Snapshot>| {
            snapshot.pool.is_some() || !matches!(snapshot.view.phase, Phase::Creating | Phase::Starting)
        };
        let waited = tokio::time::timeout(Duration::from_secs(120), watched.wait_for(ready)).await;
        let snapshot = match waited {
            Ok(Ok(snapshot)) => snapshot.clone(),
            Ok(Err(_)) | Err(_) => self.snapshot(),
        };
        snapshot.pool.clone().ok_or_else(|| {
            let view = &snapshot.view;
            let state = word(view.phase);
            let (message, hint) = match (view.phase, &view.problem) {
                (Phase::Broken, Some(problem)) => {
                    (format!("workspace {} is broken: {problem}", view.name), "vcodingctl up")
                }
                (Phase::Stopped, _) => (format!("workspace {} is stopped", view.name), "vcodingctl start"),
                _ => (format!("workspace {} is {state}", view.name), "vcodingctl ls"),
            };
            Error::new(Kind::WorkspaceNotRunning, message).hint(hint)
        })
    }

    pub(super) async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.wanted.now();
        let name = &self.snapshot().view.name;
        self.inbox.try_send(command(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                Error::new(Kind::WorkspaceBusy, format!("workspace {name} has too many calls waiting"))
                    .hint("vcodingctl ls")
            }
            mpsc::error::TrySendError::Closed(_) => gone(name.as_str()),
        })?;
        answer.await.map_err(|_| gone(name.as_str()))?
    }

    /// Finishes what was under way when the daemon ended; nobody waits for it.
    pub(super) fn recover(&self, runs: Vec<RunRecord>) {
        // The first command of a fresh inbox always fits.
        let _fits = self.inbox.try_send(Command::Recover { runs });
    }

    pub async fn up(&self, rebuild: Rebuild, say: Say) -> Result<UpDone, Error> {
        self.ask(|reply| Command::Up { rebuild, say, reply }).await
    }

    pub async fn start(&self) -> Result<(), Error> {
        self.ask(|reply| Command::Start { reply }).await
    }

    pub async fn stop(&self, runs: WhileRunning) -> Result<(), Error> {
        self.beside_runs(runs, |force, reply| Command::Stop { force, reply }).await
    }

    /// Asks for what runs under way would suffer from.
    async fn beside_runs<T>(
        &self,
        runs: WhileRunning,
        command: impl Fn(bool, Reply<T>) -> Command,
    ) -> Result<T, Error> {
        loop {
            if runs == WhileRunning::Wait {
                // Closed: its owner has ended, which is said below.
                drop(self.snapshot.clone().wait_for(|snapshot| snapshot.view.runs == 0).await);
            }
            match self.ask(|reply| command(runs == WhileRunning::Force, reply)).await {
                // Another has begun since.
                Err(error) if runs == WhileRunning::Wait && error.kind() == Kind::RunsUnderWay => {}
                done => return done,
            }
        }
    }

    pub async fn destroy(&self, force: bool, purge: bool) -> Result<Vec<String>, Error> {
        self.ask(|reply| Command::Destroy { force, purge, reply }).await
    }

    pub async fn checkpoint(&self, label: Option<String>) -> Result<(CheckpointView, bool, Notes), Error> {
        self.ask(|reply| Command::Checkpoint { label, reply }).await
    }

    pub async fn diff(&self, from: Option<String>, to: Option<String>, paths: Vec<Bytes>) -> Result<DiffResult, Error> {
        self.ask(|reply| Command::Diff { from, to, paths, reply }).await
    }

    pub async fn rollback(
        &self,
        to: String,
        paths: Vec<Bytes>,
        clean: bool,
        runs: WhileRunning,
    ) -> Result<RollbackResult, Error> {
        let command = |force, reply| Command::Rollback { to: to.clone(), paths: paths.clone(), clean, force, reply };
        self.beside_runs(runs, command).await
    }

    pub async fn apply(&self, branch: Option<String>, runs: WhileRunning) -> Result<ApplyResult, Error> {
        self.beside_runs(runs, |force, reply| Command::Apply { branch: branch.clone(), force, reply }).await
    }

    /// Copies files of the work tree out; beside whatever the workspace does.
    ///
    /// # Errors
    /// What does not match, cannot be read or cannot be written.
    pub async fn collect(&self, state_dir: PathBuf, request: CollectRequest) -> Result<CollectResult, Error> {
        let paths = self.timeline.paths().clone();
        let wanted = tokio_util::sync::CancellationToken::new();
        // A caller that goes away drops this, and with it ends the copying.
        let _waiting = wanted.clone().drop_guard();
        super::steps::blocking(move || {
            let watch = |files: &[PathBuf]| watch(&state_dir, &paths.project, &request.to, files);
            transfer::collect(&paths.tree, &request, &|| wanted.is_cancelled(), &watch)
                .map_err(|e| failure::of_collect(&e))
        })
        .await
    }

    pub async fn run_start(&self, prepared: Prepared, say: Say) -> Result<RunView, Error> {
        self.ask(|reply| Command::RunStart { prepared: Box::new(prepared), say, reply }).await
    }

    pub async fn run_cancel(&self, run: RunId) -> Result<(), Error> {
        self.ask(|reply| Command::RunCancel { run, reply }).await
    }

    /// Ends every process of the guest but its init.
    pub(super) async fn sweep(&self) -> Result<(), Error> {
        self.ask(|reply| Command::Sweep { reply }).await
    }

    /// Waits until everything that was asked before has been done.
    pub(super) async fn turn(&self) -> Result<(), Error> {
        self.ask(|reply| Command::Turn { reply }).await
    }

    /// Checkpoints, newest first.
    pub async fn checkpoints(&self, limit: usize) -> Result<Vec<CheckpointView>, Error> {
        let snapshot = self.snapshot();
        // Neither made anew by a look, nor shown as empty.
        if snapshot.made && !self.timeline.is_there() {
            let message = format!("the history of workspace {} is gone", snapshot.view.name);
            return Err(Error::new(Kind::Internal, message).hint("vcodingctl up"));
        }
        if snapshot.view.base.is_none() {
            return Ok(Vec::new());
        }
        self.timeline.list(limit).await.map_err(|e| failure::of_timeline(&e))
    }
}

impl UpDone {
    pub fn into_result(self, handle: &Handle) -> protocol::workspace::UpResult {
        protocol::workspace::UpResult {
            workspace: handle.view(),
            created: self.created,
            wall: handle.snapshot().wall.clone(),
            left_out: self.told.left_out,
            left_out_total: self.told.left_out_total,
            files: self.told.files,
            notes: self.told.notes,
        }
    }
}

/// Of what is about to be written below `to`, what decides how a guest is made asks from now on: there, if that is in the project,
/// and where it would lie at the project's top.
fn watch(state_dir: &Path, project: &Path, to: &Path, files: &[PathBuf]) -> std::io::Result<()> {
    let recipe = Recipe::of(project);
    // It may not be there yet.
    let real = |above: &Path| Some(above.canonicalize().ok()?.join(to.strip_prefix(above).ok()?));
    let to = to.ancestors().find_map(real).unwrap_or_else(|| to.to_owned());
    let inside = to.strip_prefix(project).ok();
    let there = inside.into_iter().flat_map(|below| files.iter().map(move |file| below.join(file)));
    let proposed = Proposed::files(files.iter().cloned().chain(there), &recipe);
    consent::propose(state_dir, project, &recipe, &proposed)
}

fn gone(name: &str) -> Error {
    Error::new(Kind::WorkspaceNotFound, format!("workspace {name} is no more")).hint("vcodingctl ls")
}

pub(super) fn word(phase: Phase) -> String {
    match serde_json::to_value(phase) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "unknown".into(),
    }
}

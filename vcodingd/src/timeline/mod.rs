//! The time machine of one workspace: checkpoints, their log, diff and rollback.
//!
//! The crate `history` does the work, on blocking threads; this room gives it one owner, its
//! words on the socket and the names of checkpoints. Two callers take turns: a look at the log
//! waits for a scan, never the other way round for longer than the look takes.

mod names;
pub mod remarks;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

pub use history::{Activity, Notes};
use history::{History, Id, Meta, Owner, Settings};
use protocol::checkpoint::{CheckpointView, DiffResult, FileChange};
use protocol::{Bytes, Timestamp};

pub use names::of as names_of;

/// Where a workspace's work tree and history are, and who owns the files that are written there.
#[derive(Debug, Clone)]
pub struct Paths {
    pub host: PathBuf,
    pub tree: PathBuf,
    pub project: PathBuf,
    pub owner: Option<Owner>,
    pub max_file: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    History(#[from] history::Error),
    #[error("the workspace is being destroyed")]
    Closed,
    #[error("a task of the history broke off")]
    Task(#[from] tokio::task::JoinError),
}

/// Why a checkpoint is made.
#[derive(Debug, Clone)]
pub struct Cause {
    /// `up`, `request`, `run`, …
    pub word: &'static str,
    pub label: Option<String>,
    pub run: Option<protocol::RunId>,
}

impl Cause {
    pub fn of(word: &'static str) -> Self {
        Self { word, label: None, run: None }
    }

    fn meta(&self) -> Meta {
        Meta {
            cause: self.word.to_owned(),
            label: self.label.clone(),
            run: self.run.as_ref().map(ToString::to_string),
            time_ms: Timestamp::now().unix_ms(),
        }
    }
}

/// The ends of a history that everybody asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ends {
    pub base: Option<String>,
    pub head: Option<String>,
    pub unapplied: bool,
}

/// One workspace's history.
#[derive(Clone)]
pub struct Timeline {
    paths: Paths,
    history: Arc<Mutex<Slot>>,
}

/// A history that is opened when it is first needed.
#[derive(Default)]
enum Slot {
    #[default]
    Unopened,
    Open(Box<History>),
    /// Its directory is about to be moved, or was: nobody makes it anew.
    Closed,
}

impl std::fmt::Debug for Timeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Timeline").field("paths", &self.paths).finish_non_exhaustive()
    }
}

impl Timeline {
    /// Nothing is opened yet; the first use opens or makes the history.
    pub fn new(paths: Paths) -> Self {
        Self { paths, history: Arc::default() }
    }

    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Does `work` with the history on a blocking thread.
    pub(crate) async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut History, &Paths) -> Result<T, history::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (slot, paths) = (self.history.clone(), self.paths.clone());
        let done = tokio::task::spawn_blocking(move || {
            // A panic in another use leaves the directory as a kill would; opening anew mends that.
            let mut slot = slot.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
                let mut slot = poisoned.into_inner();
                *slot = Slot::Unopened;
                slot
            });
            let mut history = match std::mem::replace(&mut *slot, Slot::Unopened) {
                Slot::Open(history) => history,
                Slot::Unopened => Box::new(History::create(
                    &paths.host,
                    Settings { max_file: paths.max_file, ..Settings::default() },
                )?),
                Slot::Closed => {
                    *slot = Slot::Closed;
                    return Err(Error::Closed);
                }
            };
            let done = work(&mut history, &paths);
            *slot = Slot::Open(history);
            Ok(done?)
        });
        done.await?
    }

    /// Lets go of the history's files for good: they may then be moved.
    pub async fn close(&self) {
        let slot = self.history.clone();
        // Waits for whoever uses it.
        let closed = tokio::task::spawn_blocking(move || {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Slot::Closed;
        });
        if let Err(error) = closed.await {
            tracing::error!(%error, "a history was not closed");
        }
    }

    /// Lets go of what is held in memory, until the next use.
    pub async fn rest(&self) {
        let slot = self.history.clone();
        let rested = tokio::task::spawn_blocking(move || {
            let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            if matches!(*slot, Slot::Open(_)) {
                *slot = Slot::Unopened;
            }
        });
        if let Err(error) = rested.await {
            tracing::error!(%error, "a history was not let go of");
        }
    }

    /// After a [`Timeline::close`] that came to nothing.
    pub fn reopen(&self) {
        *self.history.lock().unwrap_or_else(PoisonError::into_inner) = Slot::Unopened;
    }

    /// Whether its directory is there.
    pub fn is_there(&self) -> bool {
        self.paths.host.join("history.git").is_dir()
    }

    pub async fn ends(&self) -> Result<Ends, Error> {
        self.with(|history, _| ends(history)).await
    }

    /// Whether the project's HEAD is another than when it was copied in.
    pub async fn project_moved_on(&self) -> Result<bool, Error> {
        self.with(|history, paths| history.project_moved_on(&paths.project)).await
    }

    /// Records the work tree as it is; nothing new if it is as the newest checkpoint.
    pub async fn checkpoint(&self, cause: Cause, activity: Activity) -> Result<(CheckpointView, bool, Notes), Error> {
        self.with(move |history, paths| {
            let made = history.checkpoint(&paths.tree, &cause.meta(), activity)?;
            Ok((view(history, &made.checkpoint)?, made.created, made.notes))
        })
        .await
    }

    /// Newest first.
    pub async fn list(&self, limit: usize) -> Result<Vec<CheckpointView>, Error> {
        self.with(move |history, _| history.list(limit)?.iter().map(|c| view(history, c)).collect()).await
    }

    /// The id of a checkpoint by any of its names.
    pub async fn resolve(&self, name: String) -> Result<Id, Error> {
        self.with(move |history, _| Ok(history.resolve(&name)?.id)).await
    }

    pub async fn diff(&self, from: Id, to: Id, paths: Vec<Bytes>) -> Result<DiffResult, Error> {
        self.with(move |history, _| {
            let paths: Vec<Vec<u8>> = paths.into_iter().map(|p| p.0).collect();
            let diff = history.diff(from, to, &paths)?;
            Ok(DiffResult {
                notes: Vec::new(),
                asides: Vec::new(),
                from: from.to_string(),
                to: to.to_string(),
                files: diff.files.into_iter().map(change).collect(),
                patch: diff.patch.into(),
                truncated: diff.truncated,
            })
        })
        .await
    }

    /// The first of `paths` that is neither in the checkpoint `id` nor in the newest.
    pub async fn missing(&self, id: Id, paths: Vec<Bytes>) -> Result<Option<Bytes>, Error> {
        self.with(move |history, _| {
            let newest = history.resolve("@")?.id;
            for path in paths {
                if !history.has(id, &path.0)? && !history.has(newest, &path.0)? {
                    return Ok(Some(path));
                }
            }
            Ok(None)
        })
        .await
    }

    /// The files in which the newest checkpoint differs from what was last taken home.
    pub async fn unapplied(&self) -> Result<Vec<FileChange>, Error> {
        self.with(|history, _| {
            let Some(head) = history.head()? else { return Ok(Vec::new()) };
            let Some(home) = history.applied()?.or(history.base()?) else { return Ok(Vec::new()) };
            Ok(history.diff(home, head, &[])?.files.into_iter().map(change).collect())
        })
        .await
    }

    /// Makes the empty directory `tree` what the newest checkpoint holds, and appends a checkpoint that
    /// says so.
    pub async fn bring_back(&self, tree: PathBuf) -> Result<(), Error> {
        self.with(move |history, paths| {
            let newest = history.resolve("@")?.id;
            let back = history::Rollback { to: newest, paths: &[], clean: None };
            history.rollback(&tree, paths.owner, &back, &Cause::of("recovery").meta()).map(drop)
        })
        .await
    }

    /// Brings the work tree to the tree of `to` and appends that as a checkpoint. The caller took one before, which was `before`, and
    /// keeps the guest from writing. What no checkpoint holds and came after `to` is moved into `clean`, or stays. May be repeated
    /// after it was cut off: a checkpoint that it had appended already is not appended twice.
    pub async fn rollback(
        &self,
        to: Id,
        before: Id,
        only: Vec<Bytes>,
        clean: Option<PathBuf>,
    ) -> Result<RolledBack, Error> {
        self.with(move |history, paths| {
            let newest = history.resolve("@")?;
            if newest.parent == Some(before) && newest.meta.cause == "rollback" {
                return Ok(RolledBack { checkpoint: view(history, &newest)?, found: None, lines: Vec::new() });
            }
            let only: Vec<Vec<u8>> = only.into_iter().map(|p| p.0).collect();
            let meta = Cause::of("rollback").meta();
            let back = history::Rollback { to, paths: &only, clean: clean.as_deref() };
            let done = history.rollback(&paths.tree, paths.owner, &back, &meta)?;
            let short: String = to.to_string().chars().take(10).collect();
            let mut lines = done.remarks;
            lines.extend(remarks::of_rollback(&short, &done.left, &done.moved, &clean.unwrap_or_default()));
            Ok(RolledBack { checkpoint: view(history, &done.checkpoint)?, found: Some(done.notes), lines })
        })
        .await
    }
}

/// What a rollback did.
#[derive(Debug)]
pub struct RolledBack {
    pub checkpoint: CheckpointView,
    /// What its last scan found, unless that was in an earlier life.
    pub found: Option<Notes>,
    /// What was moved, or stays although it was not there.
    pub lines: Vec<String>,
}

fn change(file: history::FileChange) -> FileChange {
    FileChange {
        path: file.path.into(),
        old_path: file.old_path.map(Into::into),
        status: file.status,
        added: file.lines.map(|(added, _)| added),
        deleted: file.lines.map(|(_, deleted)| deleted),
    }
}

fn ends(history: &History) -> Result<Ends, history::Error> {
    Ok(Ends {
        base: history.base()?.map(|id| id.to_string()),
        head: history.head()?.map(|id| id.to_string()),
        unapplied: history.unapplied()?,
    })
}

fn view(history: &History, checkpoint: &history::Checkpoint) -> Result<CheckpointView, history::Error> {
    Ok(CheckpointView {
        id: checkpoint.id.to_string(),
        time: Timestamp::from_unix_ms(checkpoint.meta.time_ms),
        cause: checkpoint.meta.cause.clone(),
        label: checkpoint.meta.label.clone(),
        run: checkpoint.meta.run.as_ref().and_then(|run| run.parse().ok()),
        added: checkpoint.added,
        changed: checkpoint.changed,
        deleted: checkpoint.deleted,
        names: names::of(history.base()?, history.head()?, checkpoint),
    })
}

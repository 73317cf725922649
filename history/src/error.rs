//! What can go wrong with a history, by what a caller would do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::Id;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no checkpoint is called {name}")]
    NoSuchCheckpoint { name: String },
    #[error("{name} could be more than one checkpoint; give more digits")]
    Ambiguous { name: String },
    /// Nothing was brought in yet.
    #[error("the history has no base: the project was not copied in")]
    NoBase,
    /// An import would empty a work tree that has a history beyond its base.
    #[error("the work tree has checkpoints beyond its base; it is not copied in again")]
    HasWork,
    /// Something of the history itself cannot be read as what it must be.
    #[error("the history is damaged: {what}")]
    Damaged { what: String },
    /// A tree that git would not accept, or that could lead out of the work tree.
    #[error("the tree {id} holds a bad entry: {why}")]
    BadTree { id: Id, why: String },
    /// Content made to collide with other content under SHA-1.
    #[error("the content is a SHA-1 collision")]
    Collision,
    /// A rollback whose result is not the target, after all tries.
    #[error("the work tree could not be brought to the checkpoint: {}", .notes.join("; "))]
    Inexact { notes: Vec<String> },
    #[error("{} is not a git repository", path.display())]
    NotARepository { path: PathBuf },
    #[error("{} belongs to another user", path.display())]
    NotOwned { path: PathBuf },
    /// A kind of repository that we cannot write to.
    #[error("{} is a kind of repository that cannot be written to here: {why}", path.display())]
    Unsupported { path: PathBuf, why: String },
    #[error("the commit {head} that the work tree was copied from is not in {} any more", path.display())]
    HeadGone { path: PathBuf, head: String },
    /// The branch would not hold what git makes of the same files.
    #[error("the branch would hold other files than git makes of them: {}", .reasons.join("; "))]
    Unfaithful { reasons: Vec<String> },
    #[error("{name} is not a name for a branch")]
    BadBranch { name: String },
    /// The branch is not where the last publishing left it.
    #[error("the branch {branch} exists already and is not where an apply of this workspace left it")]
    BranchExists {
        branch: String,
        /// A name that is free.
        free: String,
    },
    #[error("the branch {branch} is checked out")]
    BranchCheckedOut { branch: String },
    #[error("cannot {doing} {}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Files(#[from] fs::Error),
    #[error("cannot {doing}")]
    Git { doing: &'static str, source: git2::Error },
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { doing, path, source }
    }

    pub(crate) fn git(doing: &'static str) -> impl FnOnce(git2::Error) -> Self {
        move |source| Self::Git { doing, source }
    }

    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }
}

//! What can go wrong on the way into a guest, by what a caller would do about it.

use std::path::PathBuf;

use protocol::WorkspaceId;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No carrier got through, or SSH did not come up on it: another life of the guest helps.
    #[error("the guest does not answer: {why}")]
    Unreachable { id: WorkspaceId, why: String },
    /// Something answered that is not this guest.
    #[error("guest {id} is not who it should be: {why}")]
    WrongPeer { id: WorkspaceId, why: String },
    /// The connection went while it was in use; another one may be had.
    #[error("the connection into the guest was lost")]
    Lost,
    /// The guest took the connection but opens no further session on it.
    #[error("the guest opens no session: {why}")]
    NoSession { why: String },
    #[error("the guest does not forward port {port}: {why}")]
    NotForwarded { port: u16, why: String },
    /// The pool was closed: the guest is being stopped.
    #[error("the guest is being stopped")]
    Closed,
    /// A file of ours.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("the keys in {} cannot be used: {why}", path.display())]
    BadKeys { path: PathBuf, why: String },
}

impl Error {
    pub(super) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

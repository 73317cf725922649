//! What can go wrong below a root, by what a caller would do about it.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path that is not made of plain names: absolute, with `..`, empty, or with a NUL.
    #[error("{}: is not a path of plain names", path.display())]
    BadPath { path: PathBuf },
    #[error("{}: does not exist", path.display())]
    NotFound { path: PathBuf },
    #[error("{}: exists already", path.display())]
    Exists { path: PathBuf },
    /// A symbolic link, a magic link or a mount point lies in the way; following it could lead out.
    #[error("{}: a link or mount lies in the way", path.display())]
    Blocked { path: PathBuf },
    /// Opened as a file but is a directory, fifo, socket or device.
    #[error("{}: is not a regular file", path.display())]
    NotRegular { path: PathBuf },
    #[error("{}: is not a directory", path.display())]
    NotDirectory { path: PathBuf },
    /// Held by a lease until our patience ended.
    #[error("{}: is held by another process", path.display())]
    Busy { path: PathBuf },
    #[error("cannot {doing} {}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

impl Error {
    pub(crate) fn new(doing: &'static str, path: &Path, errno: Errno) -> Self {
        let path = path.to_path_buf();
        match errno {
            Errno::NOENT => Self::NotFound { path },
            Errno::EXIST => Self::Exists { path },
            Errno::LOOP | Errno::XDEV => Self::Blocked { path },
            Errno::NOTDIR => Self::NotDirectory { path },
            Errno::AGAIN => Self::Busy { path },
            // What opening a socket or a device without a driver answers.
            Errno::NXIO | Errno::NODEV => Self::NotRegular { path },
            errno => Self::Io { doing, path, source: errno.into() },
        }
    }

    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { doing, path: path.to_path_buf(), source }
    }

    /// Whether nothing is there: the name itself, or a directory on its way.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::NotDirectory { .. })
    }
}

//! Output that its reader does not take, in a file without a name.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};

/// More waits for the reader.
pub(super) const CAP: u64 = 1 << 30;
/// What is taken out at a time.
const PIECE: usize = 64 * 1024;

/// First in, first out. It takes no space on the disk once it is dropped, however that happens.
#[derive(Debug)]
pub(super) struct Spill {
    file: Arc<File>,
    read: u64,
    written: u64,
    /// Somebody has a place and writes.
    filling: bool,
}

impl Spill {
    pub(super) fn new() -> io::Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let fd = rustix::fs::open(std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Self { file: Arc::new(fd.into()), read: 0, written: 0, filling: false })
    }

    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.written + bytes as u64 <= CAP
    }

    /// Where the next bytes go, to be written without holding a lock; then [`Spill::wrote`].
    pub(super) fn place(&mut self) -> (Arc<File>, u64) {
        self.filling = true;
        (self.file.clone(), self.written)
    }

    pub(super) fn wrote(&mut self, bytes: usize) {
        self.written += bytes as u64;
        self.filling = false;
    }

    /// Whether everything was taken and nothing comes.
    pub(super) fn is_over(&self) -> bool {
        self.read == self.written && !self.filling
    }

    /// Where the oldest bytes lie, and how many to take; then [`Spill::took`].
    pub(super) fn oldest(&self) -> Option<(Arc<File>, u64, usize)> {
        let left = usize::try_from(self.written - self.read).unwrap_or(usize::MAX);
        (left > 0).then(|| (self.file.clone(), self.read, left.min(PIECE)))
    }

    pub(super) fn took(&mut self, bytes: usize) {
        self.read += bytes as u64;
    }
}

pub(super) fn take((file, at, length): (Arc<File>, u64, usize)) -> io::Result<Bytes> {
    let mut piece = vec![0; length];
    file.read_exact_at(&mut piece, at)?;
    Ok(piece.into())
}

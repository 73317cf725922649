//! What a name is, by `statx` that never follows it.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, StatxFlags, StatxTimestamp, makedev, statx};
use rustix::io::Errno;

use crate::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    /// Fifo, socket or device: named, never opened.
    Special,
}

impl Kind {
    pub(crate) fn of(kind: FileType) -> Self {
        match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            _ => Self::Special,
        }
    }
}

/// Seconds and nanoseconds since 1970; orders as time does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    pub sec: i64,
    pub nsec: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub kind: Kind,
    /// Permission bits with set-id and sticky (`07777`).
    pub mode: u32,
    pub size: u64,
    /// Bytes that it takes on the disk.
    pub allocated: u64,
    pub dev: u64,
    pub ino: u64,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    pub ctime: Time,
    /// When it was made, where the file system keeps that. Nobody can set it.
    pub born: Option<Time>,
}

impl Stat {
    /// Of an open file.
    pub fn of_file(file: &File) -> Result<Self> {
        of(file.as_fd(), Path::new("")).map_err(|errno| Error::new("look at", Path::new("an open file"), errno))
    }

    #[must_use]
    pub fn executable(&self) -> bool {
        self.mode & 0o100 != 0
    }
}

/// Of the single name `name` in `dir`, or of `dir` itself when it is empty.
pub(crate) fn of(dir: BorrowedFd<'_>, name: &Path) -> std::result::Result<Stat, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
    let found = statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
    let time = |time: StatxTimestamp| Time { sec: time.tv_sec, nsec: time.tv_nsec };
    Ok(Stat {
        kind: Kind::of(FileType::from_raw_mode(u32::from(found.stx_mode))),
        mode: u32::from(found.stx_mode) & 0o7777,
        size: found.stx_size,
        allocated: found.stx_blocks.saturating_mul(512),
        dev: makedev(found.stx_dev_major, found.stx_dev_minor),
        ino: found.stx_ino,
        nlink: found.stx_nlink,
        uid: found.stx_uid,
        gid: found.stx_gid,
        mtime: time(found.stx_mtime),
        ctime: time(found.stx_ctime),
        born: StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::BTIME).then(|| time(found.stx_btime)),
    })
}

//! New content under a name: written aside, then renamed over it.
//!
//! A rename breaks hard links instead of writing through them, and a reader sees the old content or the new one. The name written
//! aside lies in a pattern of our own, so that a scan can leave it out and whoever comes after a kill can remove it.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, unlinkat};
use rustix::io::Errno;

use crate::open::{self, Patience};

/// How every name that we make for a moment begins.
pub const TEMPORARY_PREFIX: &str = ".vcoding-tmp-";

/// Whether a name is one that was only made for a moment (and may be left over from a kill).
#[must_use]
pub fn is_temporary(name: &OsStr) -> bool {
    name.as_bytes().starts_with(TEMPORARY_PREFIX.as_bytes())
}

/// A temporary name this process has not used before.
pub(crate) fn temporary_name() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    PathBuf::from(format!("{TEMPORARY_PREFIX}{}-{number}", std::process::id()))
}

/// How many taken names we pass by. A guest could occupy some; it cannot know where the counter stands.
const TRIES: usize = 64;

/// A new file under a temporary name in `dir`; removed when dropped, unless it was renamed away.
pub(crate) struct Temporary<'dir> {
    dir: BorrowedFd<'dir>,
    pub(crate) name: PathBuf,
    pub(crate) file: File,
    pub(crate) renamed: bool,
}

impl<'dir> Temporary<'dir> {
    pub(crate) fn create(dir: BorrowedFd<'dir>, mode: Mode, patience: &Patience) -> Result<Self, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mut last = Errno::EXIST;
        for _ in 0..TRIES {
            let name = temporary_name();
            match open::beneath(dir, &name, flags, mode, patience) {
                Ok(fd) => return Ok(Self { dir, name, file: File::from(fd), renamed: false }),
                Err(Errno::EXIST) => last = Errno::EXIST,
                Err(errno) => return Err(errno),
            }
        }
        Err(last)
    }

    /// One that gets its name only by [`Temporary::give_name`]; where the filesystem has no such files, one that has it already.
    pub(crate) fn nameless(dir: BorrowedFd<'dir>, mode: Mode, patience: &Patience) -> Result<Self, Errno> {
        match open::beneath(dir, Path::new("."), OFlags::WRONLY | OFlags::TMPFILE, mode, patience) {
            Ok(fd) if Path::new("/proc/self/fd").is_dir() => {
                Ok(Self { dir, name: PathBuf::new(), file: File::from(fd), renamed: true })
            }
            // Without /proc it could not be given a name.
            Ok(_) | Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => Self::create(dir, mode, patience),
            Err(errno) => Err(errno),
        }
    }

    pub(crate) fn give_name(&mut self) -> Result<(), Errno> {
        if !self.name.as_os_str().is_empty() {
            return Ok(());
        }
        let here = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let mut last = Errno::EXIST;
        for _ in 0..TRIES {
            let name = temporary_name();
            match linkat(CWD, &here, self.dir, &name, AtFlags::SYMLINK_FOLLOW) {
                Ok(()) => {
                    (self.name, self.renamed) = (name, false);
                    return Ok(());
                }
                Err(Errno::EXIST) => last = Errno::EXIST,
                Err(errno) => return Err(errno),
            }
        }
        Err(last)
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.renamed {
            // Best effort: what stays is left out of scans and cleared with the next start.
            let _ = unlinkat(self.dir, Path::new(&self.name), AtFlags::empty());
        }
    }
}

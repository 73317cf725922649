//! Reading and writing other people's descriptors, which may block and must not be changed.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::FileType;
use rustix::io::{Errno, ReadWriteFlags};

/// Stands for "where the descriptor is" in the calls that take an offset.
const HERE: u64 = u64::MAX;
/// What a pipe or a terminal that is ready takes without blocking, as long as nobody else writes.
const PIECE: usize = 4096;
/// A thread here has no deep calls.
const STACK: usize = 128 * 1024;

/// Reads what is there. `AGAIN`: nothing is; `OPNOTSUPP`: only a blocking read would tell.
pub(super) fn read_now(fd: impl AsFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    retry(|| rustix::io::preadv2(fd.as_fd(), &mut [IoSliceMut::new(buffer)], HERE, ReadWriteFlags::NOWAIT))
}

/// Writes what fits. `AGAIN`: nothing does; `OPNOTSUPP`: only a blocking write would tell.
pub(super) fn write_now(fd: impl AsFd, bytes: &[u8]) -> Result<usize, Errno> {
    retry(|| rustix::io::pwritev2(fd.as_fd(), &[IoSlice::new(bytes)], HERE, ReadWriteFlags::NOWAIT))
}

/// Reads once, when there is something; `None` when woken.
pub(super) fn read_when_ready(fd: BorrowedFd<'_>, buffer: &mut [u8], wake: &Wake) -> Result<Option<usize>, Errno> {
    loop {
        if !wait(fd, PollFlags::IN, wake)? {
            return Ok(None);
        }
        match read_now(fd, buffer) {
            Err(Errno::AGAIN) => {}
            Err(Errno::OPNOTSUPP) => match retry(|| rustix::io::read(fd, &mut *buffer)) {
                Err(Errno::AGAIN) => {}
                other => return other.map(Some),
            },
            other => return other.map(Some),
        }
    }
}

/// Writes everything; false when woken before.
pub(super) fn write_when_ready(fd: BorrowedFd<'_>, mut bytes: &[u8], wake: &Wake) -> Result<bool, Errno> {
    while !bytes.is_empty() {
        if !wait(fd, PollFlags::OUT, wake)? {
            return Ok(false);
        }
        let written = match write_now(fd, bytes) {
            Err(Errno::OPNOTSUPP) => retry(|| rustix::io::write(fd, &bytes[..bytes.len().min(PIECE)])),
            other => other,
        };
        match written {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::AGAIN) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Waits for `fd`, or for being woken (false). Errors and hang-ups of `fd` show when it is used.
fn wait(fd: BorrowedFd<'_>, what: PollFlags, wake: &Wake) -> Result<bool, Errno> {
    let mut polled = [PollFd::from_borrowed_fd(fd, what), PollFd::new(&wake.0, PollFlags::IN)];
    retry(|| poll(&mut polled, None))?;
    Ok(polled[1].revents().is_empty())
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Wakes a thread out of its waiting, for good.
#[derive(Debug)]
pub(super) struct Wake(OwnedFd);

impl Wake {
    pub(super) fn new() -> Result<Self, Errno> {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map(Self)
    }

    pub(super) fn wake(&self) {
        // Full is awake, too.
        let _awake = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

pub(super) fn is_null(fd: &OwnedFd) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) == (1, 3)
    })
}

/// Whether both lead to the same place, so that what is written to them must keep its order.
pub(super) fn are_same(a: &OwnedFd, b: &OwnedFd) -> bool {
    match (rustix::fs::fstat(a), rustix::fs::fstat(b)) {
        (Ok(a), Ok(b)) => (a.st_dev, a.st_ino, a.st_rdev) == (b.st_dev, b.st_ino, b.st_rdev),
        _ => false,
    }
}

pub(super) fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(body)
}

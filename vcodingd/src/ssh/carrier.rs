//! SSH's bytes: over the socket that the guest's PID 1 holds, or over the engine's stream.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use guest::places;
use rustix::fs::{FileType, Mode, OFlags};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::provider::{Carrier, InitProcess};

/// Connecting to a socket takes no longer unless nobody accepts.
const CONNECT: Duration = Duration::from_secs(2);

/// Why a socket carries nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocketError {
    /// Not there (yet), or nobody listens.
    #[error("{0}")]
    Silent(io::Error),
    /// Somebody else's.
    #[error("{0}")]
    Strange(String),
}

/// The guest's socket in its run directory, which the guest may write: whatever lies there is
/// opened without being followed, must be a socket, and must have been made by the guest's init.
pub(super) async fn socket(run_dir: &Path, init: InitProcess) -> Result<UnixStream, SocketError> {
    let fd = pinned(&run_dir.join(places::CARRIER))?;
    // By the descriptor, so that what was looked at is what is connected to; and paths of sockets
    // are short.
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let stream = match tokio::time::timeout(CONNECT, UnixStream::connect(path)).await {
        Ok(connected) => connected.map_err(SocketError::Silent)?,
        Err(_) => return Err(SocketError::Silent(io::ErrorKind::TimedOut.into())),
    };
    drop(fd);
    let peer = stream.peer_cred().map_err(SocketError::Silent)?.pid();
    if peer != Some(init.pid) {
        let peer = peer.map_or_else(|| "an unknown process".to_owned(), |pid| format!("process {pid}"));
        return Err(SocketError::Strange(format!("its socket belongs to {peer}, not to its init {}", init.pid)));
    }
    // Credentials name who listened, even after it ended: the number must still be the init's.
    // Whether it may be seen changes once the init has closed itself off; only two that were seen can differ.
    let seen = init.pid_namespace.zip(InitProcess::pid_namespace_of(init.pid));
    let moved = seen.is_some_and(|(then, now)| then != now);
    if start_time(init.pid) != Some(init.start_time) || moved {
        return Err(SocketError::Strange(format!("its init {} is another process by now", init.pid)));
    }
    Ok(stream)
}

fn pinned(path: &Path) -> Result<OwnedFd, SocketError> {
    let silent = |e: rustix::io::Errno| SocketError::Silent(e.into());
    let fd =
        rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).map_err(silent)?;
    let stat = rustix::fs::fstat(&fd).map_err(silent)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Socket => Ok(fd),
        other => Err(SocketError::Strange(format!("a {other:?} lies where its socket should be"))),
    }
}

/// Field 22 of /proc/PID/stat; the name before it may hold blanks and brackets.
fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split_whitespace().nth(19)?.parse().ok()
}

/// A carrier that can be cut from outside, whatever the one who reads and writes it waits for.
pub(super) struct Cuttable {
    inner: Box<dyn Carrier>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Held as long as the task that serves the connection lives, by which it is joined.
    _alive: TaskTrackerToken,
}

impl Cuttable {
    pub(super) fn new(inner: Box<dyn Carrier>, cut: CancellationToken, alive: TaskTrackerToken) -> Self {
        Self { inner, cut: Box::pin(cut.cancelled_owned()), _alive: alive }
    }

    fn is_cut(&mut self, context: &mut Context<'_>) -> bool {
        self.cut.as_mut().poll(context).is_ready()
    }
}

fn cut() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

impl AsyncRead for Cuttable {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_cut(cx) {
            return Poll::Ready(Err(cut()));
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_cut(cx) {
            return Poll::Ready(Err(cut()));
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_cut(cx) {
            return Poll::Ready(Err(cut()));
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_cut(cx) {
            return Poll::Ready(Err(cut()));
        }
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn me() -> InitProcess {
        let pid = i32::try_from(std::process::id()).unwrap();
        InitProcess { pid, start_time: start_time(pid).unwrap(), pid_namespace: InitProcess::pid_namespace_of(pid) }
    }

    #[tokio::test]
    async fn the_inits_own_socket_connects_even_under_a_long_path() {
        let dir = tempfile::tempdir().unwrap();
        let short = dir.path().join("s");
        let long = dir.path().join("x".repeat(200));
        let _listener = UnixListener::bind(&short).unwrap();
        std::fs::create_dir(&long).unwrap();
        std::fs::rename(&short, long.join(places::CARRIER)).unwrap();
        socket(&long, me()).await.unwrap();
    }

    #[tokio::test]
    async fn whoever_is_not_the_init_is_a_stranger() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(places::CARRIER);
        assert!(matches!(socket(dir.path(), me()).await, Err(SocketError::Silent(_))));
        let listener = UnixListener::bind(&path).unwrap();
        let others = [
            InitProcess { pid: 1, ..me() },
            InitProcess { start_time: 1, ..me() },
            InitProcess { pid_namespace: Some(1), ..me() },
        ];
        for other in others {
            assert!(matches!(socket(dir.path(), other).await, Err(SocketError::Strange(_))));
        }
        drop(listener);
        assert!(matches!(socket(dir.path(), me()).await, Err(SocketError::Silent(_))));
    }

    #[tokio::test]
    async fn what_lies_there_is_not_followed_and_must_be_a_socket() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let real = elsewhere.path().join("real");
        let _listener = UnixListener::bind(&real).unwrap();
        let path = dir.path().join(places::CARRIER);
        symlink(&real, &path).unwrap();
        assert!(matches!(socket(dir.path(), me()).await, Err(SocketError::Strange(_))));
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert!(matches!(socket(dir.path(), me()).await, Err(SocketError::Strange(_))));
    }
}

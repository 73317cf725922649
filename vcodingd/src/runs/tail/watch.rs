//! Waits until a directory changes.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// After so long it may have changed without our noticing: a guest whose kernel is not ours
/// causes no notices, and a host has few watches to give.
const POLL: Duration = Duration::from_millis(200);
/// So many buffers of notices are thrown away at once; a guest can make them without end.
const DRAIN: usize = 16;

/// Notices of writes, new names and renames in one directory.
#[derive(Debug)]
pub(super) struct Watch {
    notices: Option<AsyncFd<OwnedFd>>,
}

impl Watch {
    /// Where the host has no watch to give, there is only the poll.
    pub(super) fn new(dir: BorrowedFd<'_>) -> Self {
        let notices = notices(dir);
        if let Err(error) = &notices {
            tracing::debug!(%error, "no watch on a run's directory; it is polled");
        }
        Self { notices: notices.ok() }
    }

    /// Returns when something changed, or when it is time to look anyway. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        let Some(notices) = &self.notices else {
            return tokio::time::sleep(POLL).await;
        };
        let Ok(ready) = tokio::time::timeout(POLL, notices.ready(Interest::READABLE)).await else { return };
        match ready {
            Ok(mut ready) => {
                let mut buffer = [0; 4096];
                for _ in 0..DRAIN {
                    // What changed does not matter: everything is looked at.
                    if rustix::io::read(notices.get_ref(), &mut buffer).is_err() {
                        ready.clear_ready();
                        return;
                    }
                }
            }
            Err(_) => self.notices = None,
        }
    }
}

fn notices(dir: BorrowedFd<'_>) -> std::io::Result<AsyncFd<OwnedFd>> {
    let notices = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    // The directory that is held open, whatever has its name now.
    let path = format!("/proc/self/fd/{}", dir.as_raw_fd());
    let what = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
    inotify::add_watch(&notices, path, what)?;
    #[expect(deprecated, reason = "its successor asks unsafe code to promise what an OwnedFd keeps anyway")]
    AsyncFd::with_interest(notices, Interest::READABLE)
}

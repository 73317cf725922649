//! The one way a path below a root becomes a descriptor.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// How long opens below one root may wait, all together, for files that are held by a lease.
///
/// The sum matters: a guest can hold as many leases as it has files, and each would cost the wait anew.
#[derive(Debug)]
pub struct Patience {
    left_us: AtomicU64,
}

impl Patience {
    /// Enough for an honest lease holder to let go, short enough that a hostile one cannot stall a checkpoint.
    pub const DEFAULT: Duration = Duration::from_secs(3);
    const PAUSE: Duration = Duration::from_millis(2);

    #[must_use]
    pub fn new(total: Duration) -> Self {
        Self { left_us: AtomicU64::new(u64::try_from(total.as_micros()).unwrap_or(u64::MAX)) }
    }

    /// Waits a little; false when nothing is left.
    fn wait(&self) -> bool {
        if self.left_us.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let start = Instant::now();
        std::thread::sleep(Self::PAUSE);
        let spent = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let left = |left: u64| Some(left.saturating_sub(spent));
        // The closure always answers `Some`, so the update cannot fail.
        let _ = self.left_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        true
    }
}

/// `openat2` beneath `dir`, links and mounts refused, `EAGAIN` and `EINTR` tried again.
pub(crate) fn beneath(
    dir: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    patience: &Patience,
) -> Result<OwnedFd, Errno> {
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    loop {
        match openat2(dir, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if patience.wait() => {}
            answer => return answer,
        }
    }
}

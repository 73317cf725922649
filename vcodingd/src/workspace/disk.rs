//! What guests take of the host's disk, and what is done about too much.
//!
//! A bind mount has no size of its own, and a quota takes a file system that was made for it. So one task looks at the file system of
//! the state directory every second, which costs one call; where it has become fuller by some amount, or too full, each owner of a
//! running guest counts what its workspace takes, one after the other. One that takes more than its limit has its guest's processes
//! ended, init excepted: the next command, a rollback or a destroy works and makes room. What is written in between is the price;
//! `fallocate` is refused in a guest (seccomp) and no file grows beyond the limit (`RLIMIT_FSIZE`), so that room has to be written.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::actor::Actor;

/// How often the file system is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// By so much it has to grow until somebody counts.
const BYTES: u64 = 256 << 20;
const NAMES: u64 = 20_000;
/// What the host keeps for itself: the smaller of a twentieth and this.
const RESERVE: u64 = 5 << 30;
/// A workspace that grew by so much since it was counted is one of those that fill the disk.
const GREW: u64 = 64 << 20;
/// Files, links and directories of one workspace.
const MOST_NAMES: u64 = 1_000_000;

/// How full the file system is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fill {
    used: u64,
    names: u64,
    /// Less is free than the host keeps for itself.
    pub short: bool,
}

/// Where owners hear that it is time to count.
#[derive(Debug, Clone)]
pub struct Disk {
    fill: watch::Receiver<Fill>,
    /// One counts at a time.
    turn: Arc<Semaphore>,
}

/// What a workspace takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    pub bytes: u64,
    pub names: u64,
}

/// What a workspace may take, and why it is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    Bytes,
    Names,
    /// The host's disk is nearly full, and this one fills it.
    Host,
}

impl Disk {
    /// The word for owners, and the task that gives it until `shutdown`.
    pub fn watch(state_dir: PathBuf, shutdown: CancellationToken) -> (Self, impl Future<Output = ()> + Send) {
        let (told, fill) = watch::channel(look(&state_dir).unwrap_or_default());
        let looking = async move {
            let mut turns = tokio::time::interval(LOOK);
            turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    _ = turns.tick() => {}
                }
                let Some(now) = look(&state_dir) else { continue };
                told.send_if_modified(|then| is_news(then, now));
            }
        };
        (Self { fill, turn: Arc::new(Semaphore::new(1)) }, looking)
    }

    /// Where a test says how full it is.
    #[cfg(test)]
    pub fn by_hand() -> (Self, watch::Sender<Fill>) {
        let (told, fill) = watch::channel(Fill::default());
        (Self { fill, turn: Arc::new(Semaphore::new(1)) }, told)
    }

    /// Waits until there is something to count. Cancel-safe.
    pub async fn changed(&mut self) -> Fill {
        if self.fill.changed().await.is_err() {
            // The daemon ends.
            std::future::pending::<()>().await;
        }
        *self.fill.borrow_and_update()
    }

    /// Counts what lies in a workspace's directory.
    pub async fn count(&self, own: PathBuf) -> Option<Taken> {
        let _turn = self.turn.acquire().await.ok()?;
        let counted = tokio::task::spawn_blocking(move || {
            // Beyond it is too much, whatever there is more.
            fs::Root::open(&own).and_then(|root| root.usage(MOST_NAMES + 1, &|| true)).ok()
        });
        let usage = counted.await.ok().flatten()?;
        Some(Taken { bytes: usage.bytes, names: usage.names })
    }
}

impl Taken {
    /// Why a workspace that took `before` takes too much now.
    pub fn excess(self, limit: u64, before: Option<Self>, fill: Fill) -> Option<Excess> {
        if self.bytes > limit {
            return Some(Excess::Bytes);
        }
        if self.names > MOST_NAMES {
            return Some(Excess::Names);
        }
        (fill.short && before.is_some_and(|before| self.grew_since(before))).then_some(Excess::Host)
    }

    /// Whether it still grows: what makes room after a guest's processes were ended is let go on.
    pub fn grew_since(self, before: Self) -> bool {
        self.bytes > before.bytes.saturating_add(GREW) || self.names > before.names.saturating_add(NAMES)
    }

    /// For people: what was done, and what makes room.
    pub fn told(self, excess: Excess, limit: u64) -> String {
        let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
        let why = match excess {
            Excess::Bytes => format!("it takes {} of the disk, and [limits] disk is {}", mib(self.bytes), mib(limit)),
            Excess::Names => format!("it has more than {MOST_NAMES} files and directories"),
            Excess::Host => format!("the host's disk is nearly full, and it grew to {}", mib(self.bytes)),
        };
        format!(
            "its guest's processes were ended: {why}; make room by vcodingctl exec -- rm …, or vcodingctl rollback --clean NAME"
        )
    }
}

impl Actor {
    pub(super) fn count(&mut self, fill: Fill) {
        let (disk, own) = (self.disk.clone(), self.places.own.clone());
        self.counting.spawn(async move { (fill, disk.count(own).await) });
    }

    /// Ends the guest's processes if the workspace takes too much of the disk.
    pub(super) async fn counted(&mut self, fill: Fill, taken: Taken) {
        let (limit, before) = (self.record.limits.disk, self.taken.replace(taken));
        let Some(excess) = taken.excess(limit, before, fill) else {
            self.swept = None;
            if self.warning.take().is_some() {
                self.publish();
            }
            return;
        };
        // Whatever makes room now is not what filled it.
        if self.swept.is_some_and(|swept| !taken.grew_since(swept)) {
            return;
        }
        self.swept = Some(taken);
        tracing::warn!(workspace = %self.record.id, bytes = taken.bytes, names = taken.names, ?excess, "a workspace takes too much of the disk");
        match self.sweep().await {
            Ok(()) => self.warning = Some(taken.told(excess, limit)),
            Err(error) => tracing::error!(workspace = %self.record.id, %error, "its guest's processes were not ended"),
        }
        self.publish();
    }
}

/// Whether `now` differs from what was told last by enough; then it is what is told.
fn is_news(then: &mut Fill, now: Fill) -> bool {
    let grew = now.used > then.used.saturating_add(BYTES) || now.names > then.names.saturating_add(NAMES);
    let news = grew || now.short;
    // What became free is where the next growth is measured from.
    let floor = Fill { used: then.used.min(now.used), names: then.names.min(now.names), short: now.short };
    *then = if news { now } else { floor };
    news
}

fn look(state_dir: &Path) -> Option<Fill> {
    let stat = statvfs(state_dir).ok()?;
    let unit = stat.fragment_size();
    let total = stat.blocks().saturating_mul(unit);
    let free = stat.blocks_available().saturating_mul(unit);
    Some(Fill {
        used: stat.blocks().saturating_sub(stat.blocks_free()).saturating_mul(unit),
        names: stat.files().saturating_sub(stat.files_free()),
        short: free < reserve(total),
    })
}

/// What the host keeps of a file system of this size.
pub(super) fn reserve(total: u64) -> u64 {
    (total / 20).min(RESERVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_told_once_and_measured_from_the_lowest_since() {
        let full = |used: u64| Fill { used, names: 0, short: false };
        let mut then = full(10 << 30);
        assert!(!is_news(&mut then, full((10 << 30) + BYTES)), "not by enough");
        assert!(is_news(&mut then, full((10 << 30) + BYTES + 1)));
        assert!(!is_news(&mut then, full((10 << 30) + BYTES + 1)), "told already");
        assert!(!is_news(&mut then, full(1 << 30)), "what becomes free is no news");
        assert!(is_news(&mut then, full((1 << 30) + BYTES + 1)), "and is where growth begins");
        let mut names = Fill { names: 5, ..full(0) };
        assert!(is_news(&mut names, Fill { names: 6 + NAMES, ..full(0) }));
        let mut short = full(0);
        assert!(is_news(&mut short, Fill { short: true, ..full(0) }));
        assert!(is_news(&mut short, Fill { short: true, ..full(0) }), "as long as it is short");
    }

    #[test]
    fn too_much_is_the_limit_the_names_or_growth_while_the_host_is_short() {
        let taken = |bytes: u64, names: u64| Taken { bytes, names };
        let (fine, short) = (Fill::default(), Fill { short: true, ..Fill::default() });
        let before = Some(taken(0, 0));
        assert_eq!(taken(100, 1).excess(100, before, fine), None);
        assert_eq!(taken(101, 1).excess(100, None, fine), Some(Excess::Bytes));
        assert_eq!(taken(1, MOST_NAMES + 1).excess(100, None, fine), Some(Excess::Names));
        let much = taken(GREW + 1, 1);
        assert_eq!(much.excess(u64::MAX, before, short), Some(Excess::Host));
        assert_eq!(much.excess(u64::MAX, Some(much), short), None, "it is another that fills it");
        assert_eq!(much.excess(u64::MAX, None, short), None, "nobody knows yet whether it grows");
        assert!(!taken(GREW, NAMES).grew_since(taken(0, 0)) && taken(0, NAMES + 1).grew_since(taken(0, 0)));
        assert_eq!((reserve(10 << 30), reserve(1 << 40)), ((10 << 30) / 20, RESERVE));
    }
}

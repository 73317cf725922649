//! Whether somebody has been in the guest since its work tree was last recorded: what is not recorded may be work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Shared by the workspace's owner and everybody who lets a command in.
#[derive(Debug, Clone, Default)]
pub(super) struct Doings(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    under_way: AtomicU32,
    since: AtomicBool,
}

/// A command under way.
#[derive(Debug)]
pub struct Doing(Doings);

impl Doings {
    pub(super) fn begin(&self) -> Doing {
        self.0.under_way.fetch_add(1, Ordering::SeqCst);
        self.unknown();
        Doing(self.clone())
    }

    /// The work tree may be another than was recorded.
    pub(super) fn unknown(&self) {
        self.0.since.store(true, Ordering::SeqCst);
    }

    /// Called before the look at the work tree: what begins during it counts as after it.
    pub(super) fn recorded(&self) {
        self.0.since.store(false, Ordering::SeqCst);
    }

    pub(super) fn any(&self) -> bool {
        self.0.under_way.load(Ordering::SeqCst) > 0 || self.0.since.load(Ordering::SeqCst)
    }
}

impl Drop for Doing {
    fn drop(&mut self) {
        self.0.unknown();
        self.0.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_during_a_checkpoint_is_not_recorded_by_it() {
        let doings = Doings::default();
        assert!(!doings.any());
        let doing = doings.begin();
        doings.recorded();
        assert!(doings.any());
        drop(doing);
        assert!(doings.any());
        doings.recorded();
        assert!(!doings.any());
    }
}

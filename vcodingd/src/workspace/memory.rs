//! Whether a process that was killed was killed for the guest's memory limit.
//!
//! The kernel counts; nobody is told. So the count is looked at when a command ends by KILL and at no other time, and what it
//! grew by since the last look was this command's, or one's that ended with it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::provider::{InitProcess, Provider};

/// Processes that end together are told together.
const TOGETHER: Duration = Duration::from_secs(2);

/// The count at the last look.
#[derive(Debug, Clone, Default)]
pub(super) struct MemoryKills(Arc<Mutex<Option<Seen>>>);

#[derive(Debug, Clone, Copy)]
struct Seen {
    init: InitProcess,
    kills: u64,
    grown: Option<Instant>,
}

impl MemoryKills {
    /// A guest is found or started: what was before is nobody's.
    pub fn begin(&self, provider: &dyn Provider, init: InitProcess) {
        let kills = provider.memory_kills(&init).unwrap_or(0);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Seen { init, kills, grown: None });
    }

    /// Whether the kernel ended some since the last look. Reads a few of the kernel's files.
    pub fn more(&self, provider: &dyn Provider, init: InitProcess) -> bool {
        let Some(kills) = provider.memory_kills(&init) else { return false };
        let now = Instant::now();
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = seen.filter(|seen| seen.init == init);
        if before.map_or(0, |seen| seen.kills) < kills {
            *seen = Some(Seen { init, kills, grown: Some(now) });
            return true;
        }
        before.and_then(|seen| seen.grown).is_some_and(|grown| now.duration_since(grown) < TOGETHER)
    }
}

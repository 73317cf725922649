//! Turns at coming back: after the daemon's start all guests are looked for, a few at a time.
//!
//! Fifty at once would each take as long as all of them together. A workspace that somebody waits
//! for takes no turn but goes ahead, and a turn is over after a moment whether its workspace is back or
//! not: one that is stuck makes nobody wait.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Guests looked for at a time; the machine's processors do the most of it.
const AT_ONCE: usize = 4;
/// A turn's length at most. A guest that is there is found in a tenth of it.
const TURN: Duration = Duration::from_secs(1);

/// The turns of all workspaces of a daemon.
#[derive(Debug, Clone)]
pub struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

/// Somebody waits for one workspace.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted(Arc<Notify>);

impl Wanted {
    /// Its owner need not wait for a turn any more.
    pub(super) fn now(&self) {
        self.0.notify_one();
    }
}

/// A place among those that come back; it holds nobody up for longer than a turn.
pub(super) struct Turn(Option<OwnedSemaphorePermit>);

impl Turns {
    /// Waits for a turn, or for somebody who wants this workspace. Cancel-safe.
    pub(super) async fn next(&self, wanted: &Wanted) -> Turn {
        tokio::select! {
            biased;
            () = wanted.0.notified() => Turn(None),
            // Nobody closes it; and without a turn it would go on as well.
            permit = self.0.clone().acquire_owned() => Turn(permit.ok()),
        }
    }
}

impl Turn {
    /// Does `work`, and gives the turn to the next when that is done or a turn is over.
    pub(super) async fn take<T>(self, work: impl Future<Output = T>) -> T {
        let over = async {
            tokio::time::sleep(TURN).await;
            drop(self.0);
            std::future::pending::<std::convert::Infallible>().await
        };
        tokio::select! {
            done = work => done,
            never = over => match never {},
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all_taken(turns: &Turns) -> Vec<Turn> {
        let mut taken = Vec::new();
        for _ in 0..AT_ONCE {
            taken.push(turns.next(&Wanted::default()).await);
        }
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_stuck_gives_its_turn_away() {
        let turns = Turns::default();
        let stuck = all_taken(&turns).await.into_iter().map(|turn| turn.take(std::future::pending::<()>()));
        let others = async {
            for _ in 0..100 {
                turns.next(&Wanted::default()).await.take(async {}).await;
            }
        };
        tokio::select! {
            _ = futures_util::future::join_all(stuck) => unreachable!("they never end"),
            () = others => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_wanted_takes_no_turn() {
        let turns = Turns::default();
        let _held = all_taken(&turns).await;
        let wanted = Wanted::default();
        let mut waiting = std::pin::pin!(turns.next(&wanted));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        wanted.now();
        waiting.await;
        // Wanted before it began to wait.
        wanted.now();
        turns.next(&wanted).await;
    }
}

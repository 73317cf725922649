//! What a guest can have the log say at will is said seldom: of each kind one line in a while, with how many were kept back.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Between two lines of one kind.
const WHILE: Duration = Duration::from_secs(60);

/// One guest's, or one run's: whoever causes the lines.
#[derive(Debug, Default)]
pub struct Seldom {
    /// When a kind was said last, and how often it was not since. The kinds are words of this program, so that they are few.
    kinds: Mutex<BTreeMap<&'static str, (Instant, u64)>>,
}

impl Seldom {
    /// Whether a line of this kind may be said now; then how many were kept back before it.
    ///
    /// ```ignore
    /// if let Some(kept_back) = seldom.may_say("no connection") {
    ///     tracing::warn!(%guest, kept_back, "no connection");
    /// }
    /// ```
    pub fn may_say(&self, kind: &'static str) -> Option<u64> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match kinds.get_mut(kind) {
            Some((said, kept_back)) if now.duration_since(*said) < WHILE => {
                *kept_back = kept_back.saturating_add(1);
                None
            }
            Some(last) => Some(std::mem::replace(last, (now, 0)).1),
            None => {
                kinds.insert(kind, (now, 0));
                Some(0)
            }
        }
    }
}

/// What a test's thread has the log say.
#[cfg(test)]
pub(crate) mod heard {
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::DefaultGuard;

    pub(crate) struct Heard {
        lines: Lines,
        _for_this_thread: DefaultGuard,
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Heard {
        pub(crate) fn on_this_thread() -> Self {
            let lines = Lines::default();
            let writer = lines.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_max_level(tracing::Level::TRACE)
                .with_ansi(false)
                .with_writer(move || writer.clone())
                .finish();
            Self { lines, _for_this_thread: tracing::subscriber::set_default(subscriber) }
        }

        /// What was said since the last time. From here on all is heard that was met before: a thread without a listener
        /// may have been the first to meet it.
        pub(crate) fn take_anew(&self) -> String {
            tracing::callsite::rebuild_interest_cache();
            String::from_utf8(std::mem::take(&mut *self.lines.0.lock().unwrap())).unwrap()
        }
    }

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn of_each_kind_one_line_a_minute_is_said_with_how_many_were_not() {
        let seldom = Seldom::default();
        assert_eq!(seldom.may_say("a"), Some(0));
        assert_eq!((seldom.may_say("a"), seldom.may_say("b")), (None, Some(0)));
        tokio::time::advance(WHILE / 2).await;
        assert_eq!(seldom.may_say("a"), None);
        tokio::time::advance(WHILE / 2).await;
        assert_eq!(seldom.may_say("a"), Some(2));
        assert_eq!(seldom.may_say("a"), None);
    }
}

//! What a run has used of its model, counted while it goes on.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

/// A provider that says more than this per answer is not believed.
const MOST_TOKENS: u64 = 1 << 40;

/// What a run has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Requests that were sent on to the provider.
    pub requests: u64,
    /// Requests that were refused here.
    pub refused: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// Tokens of input that the provider had kept.
    pub cache_read_tokens: u64,
    /// Tokens of input that the provider was asked to keep.
    pub cache_write_tokens: u64,
    /// A request was refused because the run's requests were used up.
    pub budget_exceeded: bool,
    /// The status of the provider's last answer.
    pub last_status: Option<u16>,
    /// What went wrong with the last request, if something did.
    pub failure: Option<Failure>,
}

/// What went wrong at the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// It answered with this status, which is none of success.
    Status(u16),
    /// No connection came about.
    Unreachable,
    /// It did not answer in time.
    Silent,
    /// Its answer broke off.
    Broken,
}

impl fmt::Display for Failure {
    /// What follows "the model endpoint".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(401) => f.write_str("refuses the key (401)"),
            Self::Status(403) => f.write_str("does not allow it with this key (403)"),
            Self::Status(429) => f.write_str("limits the rate (429)"),
            Self::Status(529) => f.write_str("is overloaded (529)"),
            Self::Status(status) => write!(f, "answered {status}"),
            Self::Unreachable => f.write_str("cannot be reached"),
            Self::Silent => f.write_str("does not answer"),
            Self::Broken => f.write_str("broke off its answer"),
        }
    }
}

/// The counters of a live run. Reading and counting wait for nobody; a snapshot may be between
/// two additions of one answer.
#[derive(Debug, Default)]
pub struct Counts {
    requests: AtomicU64,
    refused: AtomicU64,
    tokens: [AtomicU64; 4],
    budget_exceeded: AtomicBool,
    last_status: AtomicU32,
    failure: AtomicU32,
}

/// Tokens by kind: input, output, read from and written to the provider's cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tokens(pub [u64; 4]);

impl Counts {
    /// Goes on from what a run had used under an earlier daemon.
    pub(super) fn resume(spent: &Usage) -> Self {
        let Usage { input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, .. } = *spent;
        Self {
            requests: spent.requests.into(),
            refused: spent.refused.into(),
            tokens: [input_tokens, output_tokens, cache_read_tokens, cache_write_tokens].map(AtomicU64::new),
            budget_exceeded: spent.budget_exceeded.into(),
            last_status: spent.last_status.map_or(0, u32::from).into(),
            failure: encode(spent.failure).into(),
        }
    }

    pub fn snapshot(&self) -> Usage {
        let [input_tokens, output_tokens, cache_read_tokens, cache_write_tokens] =
            self.tokens.each_ref().map(|count| count.load(Relaxed));
        let status = self.last_status.load(Relaxed);
        Usage {
            requests: self.requests.load(Relaxed),
            refused: self.refused.load(Relaxed),
            input_tokens,
            output_tokens,
            cache_read_tokens,
            cache_write_tokens,
            budget_exceeded: self.budget_exceeded.load(Relaxed),
            last_status: u16::try_from(status).ok().filter(|&status| status != 0),
            failure: decode(self.failure.load(Relaxed)),
        }
    }

    /// Takes one request out of the budget; false if it is used up.
    pub(super) fn spend(&self, max_requests: Option<u64>) -> bool {
        let within = |spent: u64| max_requests.is_none_or(|most| spent < most).then(|| spent.saturating_add(1));
        let spent = self.requests.fetch_update(Relaxed, Relaxed, within).is_ok();
        if !spent {
            self.budget_exceeded.store(true, Relaxed);
        }
        spent
    }

    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// The provider answered.
    pub(super) fn answered(&self, status: u16) {
        self.last_status.store(status.into(), Relaxed);
        let failure = if (200..400).contains(&status) { None } else { Some(Failure::Status(status)) };
        self.failure.store(encode(failure), Relaxed);
    }

    pub(super) fn failed(&self, failure: Failure) {
        self.failure.store(encode(Some(failure)), Relaxed);
    }

    pub(super) fn add(&self, tokens: Tokens) {
        for (count, more) in self.tokens.iter().zip(tokens.0) {
            count.fetch_add(more.min(MOST_TOKENS), Relaxed);
        }
    }
}

/// A status is itself; the others lie above all of them.
fn encode(failure: Option<Failure>) -> u32 {
    match failure {
        None => 0,
        Some(Failure::Status(status)) => status.into(),
        Some(Failure::Unreachable) => 0x1_0000,
        Some(Failure::Silent) => 0x1_0001,
        Some(Failure::Broken) => 0x1_0002,
    }
}

fn decode(code: u32) -> Option<Failure> {
    match code {
        0 => None,
        0x1_0000 => Some(Failure::Unreachable),
        0x1_0001 => Some(Failure::Silent),
        0x1_0002 => Some(Failure::Broken),
        status => u16::try_from(status).ok().map(Failure::Status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_request_says_what_is_wrong() {
        let counts = Counts::default();
        assert_eq!(counts.snapshot(), Usage::default());
        counts.answered(429);
        assert_eq!(counts.snapshot().failure, Some(Failure::Status(429)));
        for failure in [Failure::Unreachable, Failure::Silent, Failure::Broken] {
            counts.failed(failure);
            assert_eq!(counts.snapshot().failure, Some(failure));
            assert_eq!(counts.snapshot().last_status, Some(429));
        }
        counts.answered(200);
        assert_eq!(counts.snapshot(), Usage { last_status: Some(200), ..Usage::default() });
    }

    #[test]
    fn a_budget_is_exact_among_many_threads() {
        let counts = Counts::default();
        let spent = std::thread::scope(|scope| {
            let threads = [(); 8].map(|()| scope.spawn(|| (0..100).filter(|_| counts.spend(Some(250))).count()));
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!(spent, 250);
        assert!(counts.snapshot().budget_exceeded);
        assert!(Counts::default().spend(Some(1)) && Counts::default().spend(None) && !Counts::default().spend(Some(0)));
    }

    #[test]
    fn a_later_daemon_goes_on_counting() {
        let counts = Counts::default();
        counts.spend(None);
        counts.add(Tokens([1, 2, 3, u64::MAX]));
        counts.refuse();
        counts.answered(401);
        let spent = counts.snapshot();
        assert_eq!(spent.cache_write_tokens, MOST_TOKENS);
        assert_eq!(Counts::resume(&spent).snapshot(), spent);
    }
}

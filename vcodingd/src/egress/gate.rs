//! Who may ask a model: the live runs of one workspace, each within its budget.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use protocol::RunId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::usage::{Counts, Usage};
use super::{Endpoint, Fingerprint, Token};

/// Requests of one workspace under way at one time.
const FLIGHTS: usize = 64;
/// How much of request bodies one workspace may have the daemon hold, in KiB.
const ROOM: usize = 64 << 10;
/// Headers of a run that are said to stay here; a guest can think of any number.
const MOST_SAID: usize = 32;

/// The gate of a workspace. A token is valid only here, so one that leaks to another workspace
/// is worth nothing there; between processes of one guest it attributes, it does not protect.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    live: RwLock<Vec<Arc<Admission>>>,
    flights: Arc<Semaphore>,
    room: Arc<Semaphore>,
}

/// A live run.
#[derive(Debug)]
pub(super) struct Admission {
    pub run: RunId,
    fingerprint: Fingerprint,
    pub endpoint: Endpoint,
    max_requests: Option<u64>,
    pub counts: Arc<Counts>,
    /// Cancelled when the run is over: what it has under way ends then.
    pub over: CancellationToken,
    /// What was said to stay here of its requests.
    said: Mutex<BTreeSet<String>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            live: RwLock::default(),
            flights: Arc::new(Semaphore::new(FLIGHTS)),
            room: Arc::new(Semaphore::new(ROOM)),
        }))
    }

    /// Admits a run; its earlier admission, if there is one, ends.
    ///
    /// # Errors
    /// If the system gives no random bits.
    pub fn admit(&self, run: &RunId, endpoint: Endpoint, max_requests: Option<u64>) -> io::Result<Token> {
        let token = Token::draw()?;
        self.restore(run, token.fingerprint(), endpoint, max_requests, &Usage::default());
        Ok(token)
    }

    /// Admits a run that an earlier daemon admitted, with what it had used by then.
    pub fn restore(
        &self,
        run: &RunId,
        fingerprint: Fingerprint,
        endpoint: Endpoint,
        max_requests: Option<u64>,
        spent: &Usage,
    ) {
        self.revoke(run);
        let admission = Admission {
            run: run.clone(),
            fingerprint,
            endpoint,
            max_requests,
            counts: Arc::new(Counts::resume(spent)),
            over: CancellationToken::new(),
            said: Mutex::default(),
        };
        self.write().push(Arc::new(admission));
    }

    /// Ends a run's admission and what it has under way; says what it used.
    pub fn revoke(&self, run: &RunId) -> Option<Usage> {
        let mut live = self.write();
        let at = live.iter().position(|admission| admission.run == *run)?;
        let admission = live.swap_remove(at);
        drop(live);
        admission.over.cancel();
        Some(admission.counts.snapshot())
    }

    /// What a live run has used so far.
    pub fn usage(&self, run: &RunId) -> Option<Usage> {
        self.counts(run).map(|counts| counts.snapshot())
    }

    /// The counters of a live run, for who looks often.
    pub fn counts(&self, run: &RunId) -> Option<Arc<Counts>> {
        self.read().iter().find(|admission| admission.run == *run).map(|admission| Arc::clone(&admission.counts))
    }

    /// The live run whose token each of `credentials` is. Every token is compared with all, so
    /// that the time taken tells nothing.
    pub(super) fn admitted<'a>(&self, credentials: impl IntoIterator<Item = &'a [u8]>) -> Option<Arc<Admission>> {
        let mut found = None;
        for credential in credentials {
            let shown = Fingerprint::of(credential);
            let mut owner = None;
            for admission in self.read().iter() {
                if admission.fingerprint.matches(&shown) {
                    owner = Some(Arc::clone(admission));
                }
            }
            let owner = owner?;
            match &found {
                None => found = Some(owner),
                Some(first) if Arc::ptr_eq(first, &owner) => {}
                // Two tokens at once: whose request would it be?
                Some(_) => return None,
            }
        }
        found
    }

    /// Leave for one more request under way.
    pub(super) fn flight(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.flights).try_acquire_owned().ok()
    }

    /// Leave to hold that much more of a body.
    pub(super) fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes.div_ceil(1024)).ok()?;
        Arc::clone(&self.0.room).try_acquire_many_owned(kib).ok()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Vec<Arc<Admission>>> {
        self.0.live.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Vec<Arc<Admission>>> {
        self.0.live.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admission {
    /// Takes one request out of the run's budget; false if it is used up.
    pub fn spend(&self) -> bool {
        self.counts.spend(self.max_requests)
    }

    /// Says what stays here of a request, each thing once in the run.
    pub fn dropped(&self, dropped: Vec<String>) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = Vec::new();
        for one in dropped {
            if said.len() < MOST_SAID && said.insert(one.clone()) {
                new.push(one);
            }
        }
        if !new.is_empty() {
            tracing::info!(run = %self.run, dropped = ?new, "headers that are not known to be harmless do not go to the model");
        }
    }

    pub fn max_requests(&self) -> Option<u64> {
        self.max_requests
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::Wire;
    use crate::secrets::Secret;

    const RUN: &str = "01jd0000000000000000000000";
    const OTHER: &str = "01jd0000000000000000000001";

    fn endpoint() -> Endpoint {
        Endpoint::new("https://a.example", Secret::new("key"), Wire::Anthropic, &[]).unwrap()
    }

    fn run(id: &str) -> RunId {
        id.parse().unwrap()
    }

    fn who(gate: &Gate, credentials: &[&str]) -> Option<String> {
        gate.admitted(credentials.iter().map(|text| text.as_bytes())).map(|admission| admission.run.to_string())
    }

    #[test]
    fn a_token_is_its_own_runs_while_the_run_lives_and_in_its_own_workspace() {
        let (gate, elsewhere) = (Gate::new(), Gate::new());
        let token = gate.admit(&run(RUN), endpoint(), None).unwrap();
        let other = gate.admit(&run(OTHER), endpoint(), None).unwrap();
        assert_eq!(who(&gate, &[token.expose()]).unwrap(), RUN);
        assert_eq!(who(&gate, &[other.expose()]).unwrap(), OTHER);
        assert_eq!(who(&gate, &[token.expose(), token.expose()]).unwrap(), RUN);
        assert_eq!(who(&elsewhere, &[token.expose()]), None);
        assert_eq!(gate.revoke(&run(RUN)), Some(Usage::default()));
        assert_eq!(gate.revoke(&run(RUN)), None);
        assert_eq!(who(&gate, &[token.expose()]), None);
        assert_eq!(who(&gate, &[other.expose()]).unwrap(), OTHER);
    }

    #[test]
    fn nothing_else_opens_the_gate() {
        let gate = Gate::new();
        let token = gate.admit(&run(RUN), endpoint(), None).unwrap();
        let other = gate.admit(&run(OTHER), endpoint(), None).unwrap();
        let fingerprint = String::from(token.fingerprint());
        for wrong in ["", "key", &token.expose()[..67], &token.expose().to_uppercase(), &fingerprint] {
            assert_eq!(who(&gate, &[wrong]), None, "{wrong}");
        }
        assert_eq!(who(&gate, &[]), None);
        assert_eq!(who(&gate, &[token.expose(), "sk-foreign"]), None, "a foreign key beside it");
        assert_eq!(who(&gate, &[token.expose(), other.expose()]), None, "two runs at once");
    }

    #[test]
    fn a_run_goes_on_under_the_next_daemon() {
        let token = Gate::new().admit(&run(RUN), endpoint(), Some(3)).unwrap();
        let next = Gate::new();
        let spent = Usage { requests: 2, ..Usage::default() };
        next.restore(&run(RUN), token.fingerprint(), endpoint(), Some(3), &spent);
        let admission = next.admitted([token.expose().as_bytes()]).unwrap();
        assert!(admission.spend() && !admission.spend());
        assert_eq!(next.usage(&run(RUN)), Some(Usage { requests: 3, budget_exceeded: true, ..spent }));
    }

    #[test]
    fn a_second_admission_ends_the_first() {
        let gate = Gate::new();
        let first = gate.admit(&run(RUN), endpoint(), None).unwrap();
        let over = gate.admitted([first.expose().as_bytes()]).unwrap().over.clone();
        gate.admit(&run(RUN), endpoint(), None).unwrap();
        assert!(over.is_cancelled());
        assert_eq!(who(&gate, &[first.expose()]), None);
    }

    #[test]
    fn a_workspace_holds_only_so_much() {
        let gate = Gate::new();
        let flights: Vec<_> = (0..FLIGHTS).map(|_| gate.flight().unwrap()).collect();
        assert!(gate.flight().is_none());
        drop(flights);
        assert!(gate.flight().is_some());
        let half = gate.room(ROOM / 2 * 1024).unwrap();
        assert!(gate.room(ROOM / 2 * 1024 + 1).is_none());
        drop(half);
        assert!(gate.room(ROOM * 1024).is_some());
    }
}

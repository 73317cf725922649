//! A started guest: what its processes share, from its start to its end.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::WorkspaceId;
use russh::server::Handle;
use tokio::runtime;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::provider::{GuestSpec, InitProcess};

pub(super) struct Life {
    id: WorkspaceId,
    init: InitProcess,
    /// The workspace's directory with `tree`, `home`, `run` and `etc`.
    own: PathBuf,
    over: CancellationToken,
    /// Cancelled and replaced when the carriers are cut.
    carriers: Mutex<CancellationToken>,
    frozen: watch::Sender<bool>,
    runtime: runtime::Handle,
    tasks: TaskTracker,
    children: AtomicUsize,
    /// Ends the background children that there are now.
    swept: Mutex<CancellationToken>,
    memory_kills: AtomicU64,
    runs: Mutex<Runs>,
    /// The forward that the daemon asked for last.
    relay: watch::Sender<Option<Relay>>,
}

#[derive(Default)]
struct Runs {
    /// Every run that was started: an id is not taken twice.
    known: BTreeSet<String>,
    live: HashMap<String, CancellationToken>,
}

/// The way from the guest's model port to the daemon.
#[derive(Clone)]
pub(super) struct Relay {
    pub handle: Handle,
    pub port: u32,
}

impl Life {
    pub fn new(spec: &GuestSpec, init: InitProcess, runtime: runtime::Handle) -> Self {
        Self {
            id: spec.id.clone(),
            init,
            own: spec.state_dir.join("workspaces").join(spec.id.as_str()),
            over: CancellationToken::new(),
            carriers: Mutex::default(),
            frozen: watch::Sender::new(false),
            runtime,
            tasks: TaskTracker::new(),
            children: AtomicUsize::new(0),
            swept: Mutex::default(),
            memory_kills: AtomicU64::new(0),
            runs: Mutex::default(),
            relay: watch::Sender::new(None),
        }
    }

    pub fn id(&self) -> &WorkspaceId {
        &self.id
    }

    /// One of its processes wanted more memory than there is.
    pub fn kill_for_memory(&self) {
        self.memory_kills.fetch_add(1, Relaxed);
    }

    pub fn memory_kills(&self) -> u64 {
        self.memory_kills.load(Relaxed)
    }

    pub fn init(&self) -> InitProcess {
        self.init
    }

    /// One of the guest's directories on this host: `tree`, `home`, `run`, `etc`.
    pub fn dir(&self, name: impl AsRef<Path>) -> PathBuf {
        self.own.join(name)
    }

    /// A process of the guest; it ends with the guest's life.
    pub fn spawn(self: &Arc<Self>, process: impl Future<Output = ()> + Send + 'static) {
        let over = self.over.clone();
        self.tasks.spawn_on(
            async move {
                tokio::select! {
                    () = process => {}
                    () = over.cancelled() => {}
                }
            },
            &self.runtime,
        );
    }

    /// KILL to all.
    pub fn end(&self) {
        self.over.cancel();
        self.tasks.close();
    }

    /// Waits until all have ended.
    pub async fn ended(&self) {
        self.tasks.wait().await;
    }

    pub fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }

    /// Waits while the guest is frozen.
    pub async fn thawed(&self) {
        let mut frozen = self.frozen.subscribe();
        // The sender lives as long as this does.
        let _never_fails = frozen.wait_for(|frozen| !frozen).await;
    }

    /// What ends a carrier that is made now.
    pub fn carrier(&self) -> CancellationToken {
        locked(&self.carriers).clone()
    }

    pub fn cut(&self) {
        std::mem::take(&mut *locked(&self.carriers)).cancel();
    }

    /// KILL to all but the init: runs have an end, carriers none.
    pub fn sweep(&self) {
        locked(&self.runs).live.values().for_each(CancellationToken::cancel);
        std::mem::take(&mut *locked(&self.swept)).cancel();
        self.cut();
    }

    pub fn children(&self) -> usize {
        self.children.load(Relaxed)
    }

    /// A background child that lives until the guest or `tree` ends, or all are swept away.
    pub fn spawn_child(self: &Arc<Self>, tree: CancellationToken) {
        /// Counts down however it ends.
        struct Child(Arc<Life>);
        impl Drop for Child {
            fn drop(&mut self) {
                self.0.children.fetch_sub(1, Relaxed);
            }
        }
        self.children.fetch_add(1, Relaxed);
        let child = Child(Arc::clone(self));
        let swept = locked(&self.swept).clone();
        self.spawn(async move {
            tokio::select! {
                () = tree.cancelled() => {}
                () = swept.cancelled() => {}
            }
            drop(child);
        });
    }

    /// Registers a run; `None` if there was one of that id.
    pub fn begin_run(&self, id: &str) -> Option<CancellationToken> {
        let mut runs = locked(&self.runs);
        if !runs.known.insert(id.to_owned()) {
            return None;
        }
        let cancel = CancellationToken::new();
        runs.live.insert(id.to_owned(), cancel.clone());
        Some(cancel)
    }

    /// Tells a live run to end; says whether there is one.
    pub fn cancel_run(&self, id: &str) -> bool {
        locked(&self.runs).live.get(id).map(CancellationToken::cancel).is_some()
    }

    pub fn end_run(&self, id: &str) {
        locked(&self.runs).live.remove(id);
    }

    pub fn set_relay(&self, relay: Relay) {
        self.relay.send_replace(Some(relay));
    }

    /// Takes the relay away if it is that connection's.
    pub fn clear_relay(&self, port: u32) {
        self.relay.send_if_modified(|relay| relay.take_if(|relay| relay.port == port).is_some());
    }

    /// The relay, as soon as there is one.
    pub async fn relay(&self) -> Option<Relay> {
        self.relay.subscribe().wait_for(Option::is_some).await.ok()?.clone()
    }
}

/// Ends the tree of a command when it is dropped.
pub(super) fn tree() -> (CancellationToken, DropGuard) {
    let tree = CancellationToken::new();
    let guard = tree.clone().drop_guard();
    (tree, guard)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

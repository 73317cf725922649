//! What an engine is to a daemon: it goes on when the daemon ends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::WorkspaceId;
use tokio::runtime::Runtime;

use super::images::{Image, Images};
use super::life::Life;
use crate::provider::{
    Error, Guest, GuestSpec, GuestState, ImageId, ImageInfo, InitProcess, RUN_BYTES, Result, SHM_BYTES, TMP_BYTES,
    WallReport, Walls,
};

/// The image that is there from the start, by its name.
const BASE: &str = "fake/base:1";
/// Above what a kernel gives, so that no process of this host is meant by mistake.
const FIRST_PID: i32 = 5_000_000;

/// The calls of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    Probe,
    Image,
    Build,
    Tag,
    RemoveImage,
    Peek,
    Create,
    Start,
    Stop,
    Remove,
    Pause,
    Unpause,
    Sweep,
    Inspect,
    List,
    InitProcess,
    CarrierStream,
}

/// Images, guests, and what is to fail. Guests run on the world's own threads: a test that ends
/// its daemon in the middle, runtime and all, finds them again with the next.
pub struct World {
    inner: Mutex<Inner>,
    /// Taken when the world ends.
    runtime: Option<Runtime>,
}

struct Inner {
    images: Images,
    guests: BTreeMap<WorkspaceId, Kept>,
    next_pid: i32,
    before: Failures,
    after: Failures,
    /// Guests whose start never comes to its end.
    stuck: BTreeSet<WorkspaceId>,
}

type Failures = VecDeque<(Op, Error)>;

struct Kept {
    spec: GuestSpec,
    state: State,
}

enum State {
    Created,
    Running { life: Arc<Life>, frozen: bool },
    Exited { code: i64, out_of_memory: bool },
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for kept in self.lock().guests.values() {
            if let State::Running { life, .. } = &kept.state {
                life.end();
            }
        }
        if let Some(runtime) = self.runtime.take() {
            // The world may end within another runtime, where waiting is not allowed.
            runtime.shutdown_background();
        }
    }
}

impl World {
    /// A world with one image, [`World::base_image`].
    ///
    /// # Errors
    /// If no thread can be had.
    pub fn new() -> io::Result<Arc<Self>> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("fake-guests")
            .enable_all()
            .build()?;
        let mut images = Images::new();
        let mut base = Image::base(BASE.as_bytes());
        base.info.names.push(BASE.to_owned());
        images.add(base);
        let inner = Inner {
            images,
            guests: BTreeMap::new(),
            next_pid: FIRST_PID,
            before: Failures::new(),
            after: Failures::new(),
            stuck: BTreeSet::new(),
        };
        Ok(Arc::new(Self { inner: Mutex::new(inner), runtime: Some(runtime) }))
    }

    pub fn base_image(&self) -> ImageId {
        Image::base(BASE.as_bytes()).info.id
    }

    /// Whoever starts this guest waits until the world ends, as with an engine that hangs over it.
    pub fn hang_over(&self, id: &WorkspaceId) {
        self.lock().stuck.insert(id.clone());
    }

    pub(super) async fn hang_if_stuck(&self, id: &WorkspaceId) {
        if self.lock().stuck.contains(id) {
            std::future::pending::<()>().await;
        }
    }

    /// Puts an image there; one with its id is replaced.
    pub fn add_image(&self, image: Image) {
        self.lock().images.add(image);
    }

    /// The guest ends by itself, as by a crash or for want of memory.
    pub fn crash(&self, id: &WorkspaceId, out_of_memory: bool) {
        let mut inner = self.lock();
        let Some(kept) = inner.guests.get_mut(id) else { return };
        if let State::Running { life, .. } = &kept.state {
            life.end();
            kept.state = State::Exited { code: 137, out_of_memory };
        }
    }

    /// Cuts the guest's carriers, as when its sshd is killed. Commands end, runs go on.
    pub fn cut(&self, id: &WorkspaceId) {
        if let Some(Kept { state: State::Running { life, .. }, .. }) = self.lock().guests.get(id) {
            life.cut();
        }
    }

    /// How many background children the guest has.
    pub fn children(&self, id: &WorkspaceId) -> usize {
        match self.lock().guests.get(id).map(|kept| &kept.state) {
            Some(State::Running { life, .. }) => life.children(),
            _ => 0,
        }
    }

    pub fn fail_next(&self, op: Op, error: Error) {
        self.lock().before.push_back((op, error));
    }

    pub fn fail_after(&self, op: Op, error: Error) {
        self.lock().after.push_back((op, error));
    }

    pub(super) fn failure_before(&self, op: Op) -> Result<()> {
        take(&mut self.lock().before, op)
    }

    pub(super) fn failure_after(&self, op: Op) -> Result<()> {
        take(&mut self.lock().after, op)
    }

    pub(super) fn images<T>(&self, act: impl FnOnce(&mut Images) -> T) -> T {
        act(&mut self.lock().images)
    }

    pub(super) fn image_info(&self, reference: &str) -> Result<ImageInfo> {
        self.images(|images| Ok(images.find(reference)?.info.clone()))
    }

    pub(super) fn create(&self, state_dir: &Path, spec: &GuestSpec) -> Result<()> {
        if spec.state_dir != state_dir {
            let what = format!("a guest of the state directory {}", spec.state_dir.display());
            return Err(Error::Refused { what, why: "this provider is for another".to_owned() });
        }
        let mut inner = self.lock();
        inner.images.find(&spec.image.0)?;
        if let Some(kept) = inner.guests.get(&spec.id) {
            return kept.same(spec);
        }
        if let Some(missing) = spec.binds().into_iter().find(|bind| !bind.source.exists()) {
            let message = format!("{} is not there to be mounted", missing.source.display());
            return Err(Error::Engine { doing: "creating a guest", message });
        }
        inner.guests.insert(spec.id.clone(), Kept { spec: spec.clone(), state: State::Created });
        Ok(())
    }

    pub(super) fn start(&self, spec: &GuestSpec) -> Result<Walls> {
        let mut inner = self.lock();
        let pid = inner.next_pid;
        let kept = inner.guests.get_mut(&spec.id).ok_or_else(|| Error::NoSuchGuest { id: spec.id.clone() })?;
        kept.same(spec)?;
        let life = match &kept.state {
            State::Running { frozen: true, .. } => {
                let message = "it is frozen".to_owned();
                return Err(Error::StartFailed { id: spec.id.clone(), message });
            }
            State::Running { life, .. } => Arc::clone(life),
            State::Created | State::Exited { .. } => {
                let runtime = self.runtime.as_ref().expect("it is taken in drop alone").handle().clone();
                // Ticks of a clock that moves with each start.
                let start_time = pid.unsigned_abs().into();
                let life = Arc::new(Life::new(spec, InitProcess { pid, start_time, pid_namespace: None }, runtime));
                kept.state = State::Running { life: Arc::clone(&life), frozen: false };
                inner.next_pid += 1;
                life
            }
        };
        Ok(Walls { init: life.init(), report: report(spec) })
    }

    pub(super) async fn stop(&self, id: &WorkspaceId, grace: Duration) -> Result<()> {
        let ended = {
            let mut inner = self.lock();
            let kept = inner.guests.get_mut(id).ok_or_else(|| Error::NoSuchGuest { id: id.clone() })?;
            kept.end()
        };
        finish(ended, grace).await;
        Ok(())
    }

    pub(super) async fn remove(&self, id: &WorkspaceId) -> Result<()> {
        let ended = self.lock().guests.remove(id).and_then(|mut kept| kept.end());
        finish(ended, Duration::from_secs(10)).await;
        Ok(())
    }

    pub(super) fn set_frozen(&self, id: &WorkspaceId, wanted: bool) -> Result<()> {
        let mut inner = self.lock();
        let kept = inner.guests.get_mut(id).ok_or_else(|| Error::NoSuchGuest { id: id.clone() })?;
        match &mut kept.state {
            State::Running { life, frozen } => {
                *frozen = wanted;
                life.freeze(wanted);
                Ok(())
            }
            _ => Err(kept.not_running()),
        }
    }

    pub(super) fn inspect(&self, id: &WorkspaceId) -> Option<Guest> {
        self.lock().guests.get(id).map(Kept::guest)
    }

    pub(super) fn list(&self, state_dir: &Path) -> Vec<Guest> {
        self.lock().guests.values().filter(|kept| kept.spec.state_dir == state_dir).map(Kept::guest).collect()
    }

    pub(super) fn has_init(&self, init: &InitProcess) -> bool {
        self.life_of(init).is_some()
    }

    pub(super) fn life_of(&self, init: &InitProcess) -> Option<Arc<Life>> {
        self.lock().guests.values().find_map(|kept| match &kept.state {
            State::Running { life, .. } if life.init() == *init => Some(Arc::clone(life)),
            _ => None,
        })
    }

    pub(super) fn running(&self, id: &WorkspaceId) -> Result<Arc<Life>> {
        let inner = self.lock();
        let kept = inner.guests.get(id).ok_or_else(|| Error::NoSuchGuest { id: id.clone() })?;
        match &kept.state {
            State::Running { life, frozen: false } => Ok(Arc::clone(life)),
            _ => Err(kept.not_running()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn same(&self, spec: &GuestSpec) -> Result<()> {
        if self.spec == *spec {
            return Ok(());
        }
        let differences = format!("it was made for another of image, user, helper or limits than {:?}", spec.limits);
        Err(Error::Conflict { id: spec.id.clone(), differences })
    }

    /// Ends what runs, at once; the caller waits for it.
    fn end(&mut self) -> Option<Arc<Life>> {
        let State::Running { life, .. } = &self.state else { return None };
        let life = Arc::clone(life);
        life.end();
        self.state = State::Exited { code: 143, out_of_memory: false };
        Some(life)
    }

    fn not_running(&self) -> Error {
        Error::NotRunning { id: self.spec.id.clone(), state: self.guest().state.word().to_owned() }
    }

    fn guest(&self) -> Guest {
        let state = match &self.state {
            State::Created => GuestState::Created,
            State::Running { life, frozen: false } => GuestState::Running { pid: life.init().pid },
            State::Running { life, frozen: true } => GuestState::Paused { pid: life.init().pid },
            State::Exited { code, out_of_memory } => GuestState::Exited { code: *code, out_of_memory: *out_of_memory },
        };
        Guest {
            id: self.spec.id.clone(),
            name: self.spec.name.as_str().to_owned(),
            image: self.spec.image.clone(),
            state,
        }
    }
}

fn take(failures: &mut Failures, op: Op) -> Result<()> {
    match failures.iter().position(|(next, _)| *next == op).and_then(|at| failures.remove(at)) {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

async fn finish(ended: Option<Arc<Life>>, grace: Duration) {
    if let Some(life) = ended {
        // A verb ends at its next await; one that does not is left to the world's end.
        let _late = tokio::time::timeout(grace, life.ended()).await;
    }
}

/// What the kernel would report of a sealed guest.
fn report(spec: &GuestSpec) -> WallReport {
    let mut shared: Vec<_> = spec
        .binds()
        .into_iter()
        .map(|bind| format!("{} ({})", bind.target, if bind.writable { "rw" } else { "ro" }))
        .collect();
    shared.sort();
    let memory = [("/dev/shm", SHM_BYTES), ("/run", RUN_BYTES), ("/tmp", TMP_BYTES)];
    WallReport {
        interfaces: vec!["lo".to_owned()],
        user: spec.user,
        capabilities: 0,
        no_new_privileges: true,
        seccomp_filters: 1,
        read_only_root: true,
        shared,
        memory: memory.into_iter().map(|(target, size)| format!("{target} {}m", size >> 20)).collect(),
        engine_files: ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"].map(str::to_owned).to_vec(),
    }
}

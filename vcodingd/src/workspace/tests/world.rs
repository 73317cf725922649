//! A state directory, a project, guests in memory, and a daemon's rooms that can be opened, ended
//! and killed over them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::workspace::{Phase, UpParams, UpResult, WorkspaceView};
use protocol::{Error, WorkspaceRef};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::exec;
use crate::provider::fake::{Fake, World as Guests};
use crate::secrets::Secrets;
use crate::store::Store;
use crate::workspace::{Disk, Handle, KnownRuns, Points, Recovered, Registry, Say, Shared, Turns, open_store};

/// Nothing here takes seconds; a test that waits longer has lost something.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct World {
    pub dir: tempfile::TempDir,
    pub guests: Arc<Guests>,
    pub project: PathBuf,
}

/// A daemon's rooms, without its socket.
pub struct Daemon {
    pub registry: Arc<Registry>,
    pub recovered: Recovered,
    /// Says that the disk has become fuller.
    pub fill: tokio::sync::watch::Sender<crate::workspace::disk::Fill>,
    shutdown: CancellationToken,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let project = dir.path().join("shop");
        std::fs::create_dir(&project).unwrap();
        std::fs::write(project.join("Dockerfile"), "FROM debian:bookworm-slim\n").unwrap();
        std::fs::write(project.join("a.txt"), "first\n").unwrap();
        std::fs::create_dir(dir.path().join("state")).unwrap();
        Self { guests: Guests::new().unwrap(), project: project.canonicalize().unwrap(), dir }
    }

    /// Another project.
    pub fn project_beside(&self, name: &str) -> PathBuf {
        let project = self.dir.path().join(name);
        std::fs::create_dir(&project).unwrap();
        std::fs::copy(self.project.join("Dockerfile"), project.join("Dockerfile")).unwrap();
        project.canonicalize().unwrap()
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state").canonicalize().unwrap()
    }

    pub async fn open(&self) -> Daemon {
        self.open_with(Points::default()).await
    }

    /// A daemon that will die at this point, and the word of its death.
    pub async fn open_to_die_at(&self, point: &str) -> (Daemon, mpsc::Receiver<()>) {
        let (told, death) = mpsc::channel(1);
        (self.open_with(Points::dying_at(point, told)).await, death)
    }

    async fn open_with(&self, points: Points) -> Daemon {
        let state_dir = self.state();
        // A daemon that was killed before lets go of the store when its last task is dropped.
        let began = Instant::now();
        let store = loop {
            match Store::open_or_set_aside(&state_dir.join("db"), |_| Ok(())) {
                Ok((store, _)) => break store,
                Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
            }
            tokio::task::yield_now().await;
        };
        let (disk, fill) = Disk::by_hand();
        let shared = Shared {
            disk,
            provider: Arc::new(Fake::new(self.guests.clone(), &state_dir)),
            workspaces: store.table().unwrap(),
            runs: store.table().unwrap(),
            secrets: Secrets::open(&state_dir.join("secrets"), []).unwrap(),
            config_dir: self.dir.path().join("config"),
            points,
            known_runs: KnownRuns::default(),
            turns: Turns::default(),
            put_away: tokio::sync::Notify::new(),
            warming: crate::ssh::Warming::default(),
            agents: open_store(&state_dir).unwrap(),
            model_client: crate::egress::Client::new(),
            state_dir,
        };
        let shutdown = CancellationToken::new();
        let (registry, recovered) = Registry::recover(Arc::new(shared), shutdown.clone()).await.unwrap();
        Daemon { registry: Arc::new(registry), recovered, fill, shutdown }
    }

    /// Guests that the engine has for this state directory.
    pub async fn containers(&self) -> usize {
        use crate::provider::Provider;
        Fake::new(self.guests.clone(), self.state()).list().await.unwrap().len()
    }
}

/// An event that others bring about, waited for.
pub async fn until<F: Future<Output = bool>>(what: &str, mut there: impl FnMut() -> F) {
    let began = Instant::now();
    while !there().await {
        assert!(began.elapsed() < PATIENCE, "{what} did not come");
        tokio::task::yield_now().await;
    }
}

impl Daemon {
    /// Whether the engine has an image of this reference.
    pub async fn has_image(&self, reference: &str) -> bool {
        self.registry.shared().provider.image(reference).await.is_ok()
    }

    pub async fn rebuild(&self, project: &Path) -> Result<UpResult, Error> {
        let params = UpParams { project: project.to_owned(), rebuild: true, ..UpParams::default() };
        self.registry.up(params, Say::default()).await
    }

    /// As `kill -9` does: nothing of it runs on, nothing is told.
    pub fn kill(self) {
        drop(self);
    }

    pub async fn end(self) {
        self.shutdown.cancel();
        self.registry.ended().await;
    }

    pub async fn up(&self, project: &Path) -> Result<UpResult, Error> {
        self.registry.up(UpParams { project: project.to_owned(), ..UpParams::default() }, Say::default()).await
    }

    pub fn handle(&self) -> Handle {
        self.registry.find(&WorkspaceRef::Name("shop".into())).unwrap()
    }

    pub fn view(&self) -> Option<WorkspaceView> {
        self.registry.list().into_iter().next()
    }

    /// Waits until no operation is under way any more.
    pub async fn settled(&self) -> Option<WorkspaceView> {
        let began = Instant::now();
        loop {
            match self.view() {
                Some(view)
                    if matches!(
                        view.phase,
                        Phase::Creating | Phase::Starting | Phase::Stopping | Phase::Destroying
                    ) => {}
                other => return other,
            }
            assert!(began.elapsed() < PATIENCE, "{:?}", self.view());
            tokio::task::yield_now().await;
        }
    }

    /// What a command prints in the guest.
    pub async fn exec(&self, argv: &[&str]) -> (u8, String) {
        self.try_exec(argv).await.unwrap()
    }

    /// The same where its connection may just have been cut.
    pub async fn try_exec(&self, argv: &[&str]) -> Result<(u8, String), exec::Error> {
        let pool = self.handle().pool().await.unwrap();
        let argv: Vec<Vec<u8>> = argv.iter().map(|a| a.as_bytes().to_vec()).collect();
        let done = exec::captured(&pool, guest::Frame::exec(argv), Vec::new(), 1 << 20, PATIENCE).await?;
        Ok((done.status, String::from_utf8(done.stdout).unwrap()))
    }
}

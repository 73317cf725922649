//! A guest as a sealed container of a local Docker engine.
//!
//! The engine is asked by bollard over its Unix socket; no type of bollard's leaves this
//! directory. A container is called `vcoding-<id>`, so that an engine refuses a second one, and
//! is ours only if its claim holds (`provider::claim`).

mod build;
mod config;
mod failure;
mod memory;
mod mountinfo;
mod peek;
mod progress;
mod stream;
#[cfg(test)]
pub(crate) mod tests;
mod verify;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, SystemInfoCgroupVersionEnum};
use bollard::query_parameters as query;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use protocol::WorkspaceId;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use build::OUTPUT_LINES;
pub(crate) use config::volume_in_our_way;
use failure::Asked;

use super::{
    BuildEvent, BuildSpec, Carrier, Claim, ClaimedBind, Engine, Error, Guest, GuestSpec, GuestState, ImageId,
    ImageInfo, InitProcess, Look, NamedImage, Peeked, Provider, Result, Walls, is_ours, recorded_nonce,
};

/// Questions about what is there.
const ASK: Duration = Duration::from_secs(30);
/// Making, starting, freezing and removing, on a busy machine.
/// How long the engine gets to settle on whether a guest is frozen, and how often.
const SETTLE: Duration = Duration::from_millis(50);
const SETTLING: usize = 5;
/// What the guest's init takes as the order to end every other process.
const SWEEP: &str = "SIGUSR1";
const ACT: Duration = Duration::from_secs(120);
/// How long a started init may take to become the helper.
const EXEC: Duration = Duration::from_secs(10);
/// What bollard itself waits for an answer; ours are shorter, but for builds.
const LONGEST: Duration = Duration::from_secs(3 * 3600);
/// How much of one file of /proc is read.
const PROC_BYTES: u64 = 4 << 20;

/// The engine behind one socket, for the guests of one state directory.
#[derive(Debug, Clone)]
pub struct Docker {
    socket: PathBuf,
    state_dir: PathBuf,
    /// Of this process, and no other's.
    instance: String,
}

impl Docker {
    /// `state_dir` must be a real path. Nothing is asked of the engine yet, so that a daemon
    /// starts without one.
    pub fn new(socket: impl Into<PathBuf>, state_dir: impl Into<PathBuf>) -> Self {
        let instance = ulid::Ulid::new().to_string().to_lowercase();
        Self { socket: socket.into(), state_dir: state_dir.into(), instance }
    }

    /// The engine that `docker` would use: `DOCKER_HOST`, else the usual socket, else that of an
    /// engine run by the user.
    ///
    /// # Errors
    /// [`Error::Refused`] if DOCKER_HOST is not a Unix socket: a guest's directories are on this
    /// machine.
    pub fn from_environment(state_dir: impl Into<PathBuf>) -> Result<Self> {
        let host = std::env::var_os("DOCKER_HOST").filter(|host| !host.is_empty());
        let socket = match host.as_ref().map(|host| host.to_string_lossy()) {
            Some(host) => match host.strip_prefix("unix://") {
                Some(path) => PathBuf::from(path),
                None => {
                    let why = "a guest's directories are on this machine; only unix:// can be used".to_owned();
                    return Err(Error::Refused { what: format!("DOCKER_HOST={host}"), why });
                }
            },
            None => {
                let usual = PathBuf::from("/var/run/docker.sock");
                let own = std::env::var_os("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("docker.sock"));
                match own {
                    Some(own) if !usual.exists() && own.exists() => own,
                    _ => usual,
                }
            }
        };
        Ok(Self::new(socket, state_dir))
    }

    /// A client costs no connection: each request makes its own.
    fn client(&self) -> Result<bollard::Docker> {
        let unreachable = |source| Error::EngineUnreachable { endpoint: self.endpoint(), source };
        let path = self.socket.to_str().ok_or_else(|| unreachable("its path is not UTF-8".into()))?;
        bollard::Docker::connect_with_unix(path, LONGEST.as_secs(), bollard::API_DEFAULT_VERSION)
            .map_err(|error| failure::classify(&self.endpoint(), "connecting", error))
    }

    fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Awaits `call` up to `deadline`.
    async fn ask<T>(
        &self,
        doing: &'static str,
        deadline: Duration,
        call: impl Future<Output = std::result::Result<T, bollard::errors::Error>>,
    ) -> Result<Asked<T>> {
        match tokio::time::timeout(deadline, call).await {
            Ok(answer) => failure::asked(&self.endpoint(), doing, answer),
            Err(_) => Err(Error::Timeout { doing, after: deadline }),
        }
    }

    /// The container of `id`, if it is there and its claim holds.
    async fn find(&self, id: &WorkspaceId) -> Result<Option<ContainerInspectResponse>> {
        let client = self.client()?;
        let name = container_name(id);
        let found = match self.ask("inspecting a guest", ASK, client.inspect_container(&name, None)).await? {
            Asked::Answer(found) => found,
            Asked::Missing(_) => return Ok(None),
            Asked::Conflict(message) => return Err(Error::Engine { doing: "inspecting a guest", message }),
        };
        match is_ours(&self.state_dir, &claim(&found), |id| recorded_nonce(&self.state_dir, id)) {
            Ok(ours) if ours == *id => Ok(Some(found)),
            Ok(other) => Err(not_ours(&name, &format!("it says it is {other}"))),
            Err(why) => Err(not_ours(&name, &why)),
        }
    }

    async fn found(&self, id: &WorkspaceId) -> Result<ContainerInspectResponse> {
        self.find(id).await?.ok_or_else(|| Error::NoSuchGuest { id: id.clone() })
    }

    async fn probe_engine(&self) -> Result<Engine> {
        let client = self.client()?;
        let info =
            self.ask("asking for the engine's description", ASK, client.info()).await?.needed("its description")?;
        let options = info.security_options.unwrap_or_default();
        let has =
            |name: &str| options.iter().any(|o| o.strip_prefix("name=").unwrap_or(o).split(',').next() == Some(name));
        Ok(Engine {
            name: "docker".to_owned(),
            version: info.server_version.unwrap_or_default(),
            storage_driver: info.driver.unwrap_or_default(),
            rootless: has("rootless"),
            seccomp: has("seccomp"),
            pids_limit: info.pids_limit.unwrap_or_default(),
            memory_limit: info.memory_limit.unwrap_or_default(),
            cgroup_version: if info.cgroup_version == Some(SystemInfoCgroupVersionEnum::_2) { 2 } else { 1 },
        })
    }

    async fn image_info(&self, reference: &str) -> Result<ImageInfo> {
        let client = self.client()?;
        let answer = self.ask("inspecting an image", ASK, client.inspect_image(reference)).await?;
        let Asked::Answer(image) = answer else {
            return Err(Error::NoSuchImage { reference: reference.to_owned() });
        };
        let config = image.config.unwrap_or_default();
        Ok(ImageInfo {
            id: ImageId(image.id.unwrap_or_default()),
            names: image.repo_tags.unwrap_or_default(),
            user: config.user.unwrap_or_default(),
            env: config.env.unwrap_or_default(),
            working_dir: config.working_dir.unwrap_or_default(),
            volumes: config.volumes.unwrap_or_default(),
            on_build: config.on_build.unwrap_or_default(),
            labels: config.labels.unwrap_or_default().into_iter().collect(),
            architecture: image.architecture.unwrap_or_default(),
        })
    }

    async fn create_guest(&self, spec: &GuestSpec) -> Result<()> {
        let image = self.image_info(&spec.image.0).await?;
        let config = config::container_config(spec, &image)?;
        let client = self.client()?;
        let options = query::CreateContainerOptionsBuilder::default().name(&container_name(&spec.id)).build();
        let deadline = Instant::now() + ACT;
        loop {
            if let Some(found) = self.find(&spec.id).await? {
                return same_spec(spec, &config, &found);
            }
            let creating = client.create_container(Some(options.clone()), config.clone());
            match self.ask("creating a guest", ACT, creating).await? {
                Asked::Answer(_) => return Ok(()),
                Asked::Missing(_) => return Err(Error::NoSuchImage { reference: spec.image.0.clone() }),
                // Another call was first. The name is taken before the container can be seen.
                Asked::Conflict(message) if Instant::now() >= deadline => {
                    return Err(Error::Engine { doing: "creating a guest", message });
                }
                Asked::Conflict(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn start_guest(&self, spec: &GuestSpec) -> Result<Walls> {
        let image = self.image_info(&spec.image.0).await?;
        let config = config::container_config(spec, &image)?;
        let found = self.found(&spec.id).await?;
        same_spec(spec, &config, &found)?;
        let client = self.client()?;
        let name = container_name(&spec.id);
        let begun = self.ask("starting a guest", ACT, client.start_container(&name, None)).await;
        match begun {
            Ok(Asked::Answer(())) => {}
            Ok(Asked::Missing(message) | Asked::Conflict(message)) | Err(Error::Engine { message, .. }) => {
                return Err(Error::StartFailed { id: spec.id.clone(), message });
            }
            Err(other) => return Err(other),
        }
        match self.verified(spec, &image).await {
            Ok(walls) => Ok(walls),
            Err(error) => {
                // Not handed over, whatever the reason. Its own failure matters more than the stop's.
                if let Err(stopping) = self.stop_guest(&spec.id, Duration::ZERO).await {
                    tracing::error!(workspace = %spec.id, error = %stopping, "a guest that failed its check could not be stopped");
                }
                Err(error)
            }
        }
    }

    /// Reads what the kernel says of the init, and compares.
    async fn verified(&self, spec: &GuestSpec, image: &ImageInfo) -> Result<Walls> {
        let deadline = Instant::now() + EXEC;
        loop {
            let found = self.found(&spec.id).await?;
            let Some(pid) = running_pid(&found) else {
                return Err(self.start_failed(&spec.id, &found).await);
            };
            // Between start and exec the process is still the runtime's, its filter not yet set.
            let comm = match read_proc(pid, "comm") {
                Ok(comm) => comm,
                Err(_) if Instant::now() < deadline => continue,
                Err(error) => return Err(error),
            };
            if comm.starts_with("runc:[") || comm.starts_with("crun") {
                if Instant::now() >= deadline {
                    return Err(Error::Timeout { doing: "starting the guest's helper", after: EXEC });
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
                continue;
            }
            let init = read_init(pid)?;
            let observed = verify::Observed {
                host_mountinfo: read_host("/proc/self/mountinfo")?,
                mountinfo: read_proc(pid, "mountinfo")?,
                status: read_proc(pid, "status")?,
                net_dev: read_proc(pid, "net/dev")?,
            };
            // The same process from the first reading to the last, and still the guest's.
            let again = self.found(&spec.id).await?;
            if running_pid(&again) != Some(pid) || read_init(pid).ok() != Some(init) {
                return Err(self.start_failed(&spec.id, &again).await);
            }
            let container = found.id.unwrap_or_default();
            return match verify::compare(&config::expected(spec, image, &container), &observed) {
                Ok(report) => Ok(Walls { init, report }),
                Err(odd) => Err(Error::Breached { id: spec.id.clone(), differences: odd.join("; ") }),
            };
        }
    }

    /// The end of the log says why, if anything does.
    async fn start_failed(&self, id: &WorkspaceId, found: &ContainerInspectResponse) -> Error {
        let state = found.state.clone().unwrap_or_default();
        let mut message = format!("it ended with status {}", state.exit_code.unwrap_or(-1));
        if let Some(error) = state.error.filter(|e| !e.is_empty()) {
            message = format!("{message}: {error}");
        }
        if let Ok(client) = self.client() {
            let options = query::LogsOptionsBuilder::default().stdout(true).stderr(true).tail("5").build();
            let tail = client.logs(&container_name(id), Some(options)).take(5).try_collect::<Vec<_>>();
            if let Ok(Ok(lines)) = tokio::time::timeout(ASK, tail).await {
                for line in lines {
                    let line: String = line.to_string().trim_end().chars().take(400).collect();
                    message = format!("{message}\n{line}");
                }
            }
        }
        Error::StartFailed { id: id.clone(), message }
    }

    async fn stop_guest(&self, id: &WorkspaceId, grace: Duration) -> Result<()> {
        let Some(found) = self.find(id).await? else {
            return Err(Error::NoSuchGuest { id: id.clone() });
        };
        if matches!(state_of(&found), GuestState::Paused { .. }) {
            self.set_paused(id, false).await?;
        }
        let client = self.client()?;
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = query::StopContainerOptionsBuilder::default().t(seconds).build();
        let name = container_name(id);
        let stopping = client.stop_container(&name, Some(options));
        match self.ask("stopping a guest", grace.saturating_add(ACT), stopping).await? {
            Asked::Answer(()) => Ok(()),
            Asked::Missing(_) => Err(Error::NoSuchGuest { id: id.clone() }),
            Asked::Conflict(message) => Err(Error::Engine { doing: "stopping a guest", message }),
        }
    }

    async fn remove_guest(&self, id: &WorkspaceId) -> Result<()> {
        if self.find(id).await?.is_none() {
            return Ok(());
        }
        let client = self.client()?;
        let options = query::RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let name = container_name(id);
        let removal = client.remove_container(&name, Some(options));
        match self.ask("removing a guest", ACT, removal).await? {
            Asked::Answer(()) | Asked::Missing(_) => Ok(()),
            // Another call removes it; it is gone when the name is free.
            Asked::Conflict(message) => {
                let deadline = Instant::now() + ACT;
                while self.find(id).await?.is_some() {
                    if Instant::now() >= deadline {
                        return Err(Error::Engine { doing: "removing a guest", message });
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Ok(())
            }
        }
    }

    /// The engine's word on whether a guest is frozen lags: it takes its own events for news, and
    /// an old one may arrive after what was done since. So it is told whatever it says, and what
    /// it says counts only when it refuses, a moment later.
    async fn set_paused(&self, id: &WorkspaceId, paused: bool) -> Result<()> {
        let is_so = |state: &GuestState| match state {
            GuestState::Paused { .. } => Ok(paused),
            GuestState::Running { .. } => Ok(!paused),
            _ => Err(Error::NotRunning { id: id.clone(), state: state.word().to_owned() }),
        };
        let name = container_name(id);
        is_so(&state_of(&self.found(id).await?))?;
        let mut attempts = SETTLING;
        loop {
            let client = self.client()?;
            let answer = if paused {
                self.ask("freezing a guest", ACT, client.pause_container(&name)).await
            } else {
                self.ask("thawing a guest", ACT, client.unpause_container(&name)).await
            };
            let refused = match answer {
                Ok(Asked::Answer(())) => return Ok(()),
                Ok(Asked::Missing(_)) => return Err(Error::NoSuchGuest { id: id.clone() }),
                Ok(Asked::Conflict(message)) => Error::Engine { doing: "freezing or thawing a guest", message },
                Err(error @ Error::Engine { .. }) => error,
                Err(error) => return Err(error),
            };
            tokio::time::sleep(SETTLE).await;
            if is_so(&state_of(&self.found(id).await?))? {
                return Ok(());
            }
            attempts -= 1;
            if attempts == 0 {
                return Err(refused);
            }
        }
    }

    /// Sends a signal to the guest's PID 1.
    async fn tell_init(&self, id: &WorkspaceId, signal: &str) -> Result<()> {
        let state = state_of(&self.found(id).await?);
        if !matches!(state, GuestState::Running { .. }) {
            return Err(Error::NotRunning { id: id.clone(), state: state.word().to_owned() });
        }
        let client = self.client()?;
        let name = container_name(id);
        let options = query::KillContainerOptionsBuilder::default().signal(signal).build();
        match self.ask("telling a guest's init", ACT, client.kill_container(&name, Some(options))).await? {
            Asked::Answer(()) => Ok(()),
            Asked::Missing(_) => Err(Error::NoSuchGuest { id: id.clone() }),
            Asked::Conflict(message) => Err(Error::Engine { doing: "telling a guest's init", message }),
        }
    }

    async fn list_guests(&self) -> Result<Vec<Guest>> {
        let client = self.client()?;
        let filters = std::collections::HashMap::from([(
            "label",
            vec![format!("{}={}", config::LABEL_STATE_DIR, self.state_dir.display())],
        )]);
        let options = query::ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let claims =
            self.ask("listing guests", ASK, client.list_containers(Some(options))).await?.needed("its list")?;
        let mut guests = Vec::new();
        for summary in claims {
            let Some(Ok(id)) = summary.labels.as_ref().and_then(|l| l.get(config::LABEL_ID)).map(|id| id.parse())
            else {
                continue;
            };
            match self.find(&id).await {
                Ok(Some(found)) => guests.push(guest(id, &found)),
                // It went meanwhile, or only says that it is ours.
                Ok(None) => {}
                Err(Error::Refused { what, why }) => {
                    tracing::warn!(%what, %why, "a container that is not ours carries our labels");
                }
                Err(other) => return Err(other),
            }
        }
        guests.sort_by(|a, b| a.id.cmp(&b.id));
        guests.dedup();
        Ok(guests)
    }

    async fn init_of(&self, id: &WorkspaceId) -> Result<InitProcess> {
        let found = self.found(id).await?;
        let Some(pid) = running_pid(&found) else {
            return Err(Error::NotRunning { id: id.clone(), state: state_of(&found).word().to_owned() });
        };
        read_init(pid)
    }
}

impl Provider for Docker {
    fn probe(&self) -> BoxFuture<'_, Result<Engine>> {
        self.probe_engine().boxed()
    }

    fn image<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<ImageInfo>> {
        self.image_info(reference).boxed()
    }

    fn build(&self, spec: BuildSpec, progress: mpsc::Sender<BuildEvent>) -> BoxFuture<'_, Result<ImageId>> {
        build::build(self, spec, progress).boxed()
    }

    fn tag<'a>(&'a self, image: &'a ImageId, name: &'a str) -> BoxFuture<'a, Result<()>> {
        build::tag(self, image, name).boxed()
    }

    fn images<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<NamedImage>>> {
        build::images(self, prefix).boxed()
    }

    fn remove_image<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<()>> {
        build::remove_image(self, reference).boxed()
    }

    fn peek<'a>(&'a self, image: &'a ImageId, looks: &'a [Look<'a>]) -> BoxFuture<'a, Result<Vec<Peeked>>> {
        peek::peek(self, image, looks).boxed()
    }

    fn create<'a>(&'a self, spec: &'a GuestSpec) -> BoxFuture<'a, Result<()>> {
        self.create_guest(spec).boxed()
    }

    fn start<'a>(&'a self, spec: &'a GuestSpec) -> BoxFuture<'a, Result<Walls>> {
        self.start_guest(spec).boxed()
    }

    fn stop<'a>(&'a self, id: &'a WorkspaceId, grace: Duration) -> BoxFuture<'a, Result<()>> {
        self.stop_guest(id, grace).boxed()
    }

    fn remove<'a>(&'a self, id: &'a WorkspaceId) -> BoxFuture<'a, Result<()>> {
        self.remove_guest(id).boxed()
    }

    fn pause<'a>(&'a self, id: &'a WorkspaceId) -> BoxFuture<'a, Result<()>> {
        self.set_paused(id, true).boxed()
    }

    fn unpause<'a>(&'a self, id: &'a WorkspaceId) -> BoxFuture<'a, Result<()>> {
        self.set_paused(id, false).boxed()
    }

    fn sweep<'a>(&'a self, id: &'a WorkspaceId) -> BoxFuture<'a, Result<()>> {
        self.tell_init(id, SWEEP).boxed()
    }

    fn inspect<'a>(&'a self, id: &'a WorkspaceId) -> BoxFuture<'a, Result<Option<Guest>>> {
        async move { Ok(self.find(id).await?.map(|found| guest(id.clone(), &found))) }.boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Guest>>> {
        self.list_guests().boxed()
    }

    fn clean(&self) -> BoxFuture<'_, Result<usize>> {
        peek::clean(self).boxed()
    }

    fn init_process<'a>(&'a self, id: &'a WorkspaceId) -> BoxFuture<'a, Result<InitProcess>> {
        self.init_of(id).boxed()
    }

    fn is_there(&self, init: &InitProcess) -> bool {
        read_init(init.pid).is_ok_and(|now| now.start_time == init.start_time)
    }

    fn memory_kills(&self, init: &InitProcess) -> Option<u64> {
        memory::kills(init)
    }

    fn carrier_stream<'a>(&'a self, id: &'a WorkspaceId) -> BoxFuture<'a, Result<Box<dyn Carrier>>> {
        self.carrier(id).boxed()
    }
}

fn container_name(id: &WorkspaceId) -> String {
    format!("vcoding-{id}")
}

fn not_ours(name: &str, why: &str) -> Error {
    Error::Refused { what: format!("container {name}"), why: format!("it is not one of ours: {why}") }
}

fn same_spec(
    spec: &GuestSpec,
    wanted: &bollard::models::ContainerCreateBody,
    found: &ContainerInspectResponse,
) -> Result<()> {
    let odd = config::differences(wanted, found);
    if odd.is_empty() { Ok(()) } else { Err(Error::Conflict { id: spec.id.clone(), differences: odd.join(", ") }) }
}

fn claim(found: &ContainerInspectResponse) -> Claim {
    let labels = found.config.as_ref().and_then(|config| config.labels.as_ref());
    let label = |name: &str| labels.and_then(|labels| labels.get(name)).cloned();
    let binds = found.mounts.iter().flatten().map(|mount| ClaimedBind {
        target: mount.destination.clone().unwrap_or_default(),
        source: mount.source.clone().or_else(|| mount.name.clone()).unwrap_or_default().into(),
        writable: mount.rw.unwrap_or(true),
    });
    Claim {
        id: label(config::LABEL_ID),
        state_dir: label(config::LABEL_STATE_DIR),
        nonce: label(config::LABEL_NONCE),
        binds: binds.collect(),
    }
}

fn guest(id: WorkspaceId, found: &ContainerInspectResponse) -> Guest {
    let labels = found.config.as_ref().and_then(|config| config.labels.as_ref());
    Guest {
        id,
        name: labels.and_then(|labels| labels.get(config::LABEL_NAME)).cloned().unwrap_or_default(),
        image: ImageId(found.image.clone().unwrap_or_default()),
        state: state_of(found),
    }
}

fn state_of(found: &ContainerInspectResponse) -> GuestState {
    let state = found.state.clone().unwrap_or_default();
    let pid = state.pid.and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
    let exited =
        GuestState::Exited { code: state.exit_code.unwrap_or(-1), out_of_memory: state.oom_killed.unwrap_or_default() };
    match state.status.unwrap_or(ContainerStateStatusEnum::EMPTY) {
        ContainerStateStatusEnum::CREATED => GuestState::Created,
        ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::STOPPING => GuestState::Running { pid },
        ContainerStateStatusEnum::PAUSED => GuestState::Paused { pid },
        ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::RESTARTING => exited,
        ContainerStateStatusEnum::REMOVING | ContainerStateStatusEnum::DEAD | ContainerStateStatusEnum::EMPTY => {
            GuestState::Dead
        }
    }
}

/// The init's pid while it runs or is frozen.
fn running_pid(found: &ContainerInspectResponse) -> Option<i32> {
    match state_of(found) {
        GuestState::Running { pid } | GuestState::Paused { pid } if pid > 0 => Some(pid),
        _ => None,
    }
}

fn read_init(pid: i32) -> Result<InitProcess> {
    let path = format!("/proc/{pid}/stat");
    let init = verify::start_time(pid, &read_host(&path)?).ok_or_else(|| Error::Host {
        path: path.into(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, "it has no start time"),
    })?;
    Ok(InitProcess { pid_namespace: InitProcess::pid_namespace_of(pid), ..init })
}

fn read_proc(pid: i32, file: &str) -> Result<String> {
    read_host(&format!("/proc/{pid}/{file}"))
}

/// A file of the kernel's, bounded. Its names may hold any bytes, which then compare as different.
fn read_host(path: &str) -> Result<String> {
    use std::io::Read;
    let host = |source| Error::Host { path: Path::new(path).to_owned(), source };
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(PROC_BYTES).read_to_end(&mut bytes)).map_err(host)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

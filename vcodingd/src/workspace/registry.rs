//! All workspaces: their names, their owners' tasks, and finding one by what a caller says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use protocol::consent::Consent;
use protocol::secret::{SecretSource, SecretView};
use protocol::workspace::{DestroyResult, UpParams, UpResult, WhileRunning, WorkspaceView};
use protocol::{Error, Kind, Timestamp, WorkspaceId, WorkspaceName, WorkspaceRef};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::actor;
use super::handle::{Handle, Rebuild};
use super::record::{LimitsRecord, Rest, WorkspaceRecord};
use super::recovery::{self, Recovered};
use super::{Say, Shared, cleaned, consent, failure, trash};
use crate::agents::{self};
use crate::config;
use crate::runs::RunRecord;
use crate::transfer::{self, Unsuitable};

/// The first uid of those that guests get when the daemon is root; no account of a usual host
/// is there, and sub-uid ranges begin at 100,000 and 165,536.
const FIRST_UID: u32 = 231_000;
/// How many there are.
const UIDS: u32 = 10_000;
/// How often the trash is looked through.
const SWEEP: Duration = Duration::from_secs(6 * 3600);

/// Every workspace of one state directory.
#[derive(Debug)]
pub struct Registry {
    pub(super) shared: Arc<Shared>,
    /// Directories that no project may hold or lie in.
    own: Vec<PathBuf>,
    inner: Mutex<Inner>,
    shutdown: CancellationToken,
}

#[derive(Debug, Default)]
struct Inner {
    /// By id, which is the order of their making.
    all: BTreeMap<WorkspaceId, Entry>,
    /// Names and uids of those that are just being brought back.
    reserved: Vec<(WorkspaceName, u32)>,
    /// Their owners' tasks.
    tasks: JoinSet<()>,
}

#[derive(Debug, Clone)]
struct Entry {
    handle: Handle,
    name: WorkspaceName,
    project: PathBuf,
    uid: u32,
}

impl Registry {
    /// Reads every record and starts its owner, which finishes what was under way. Returns before
    /// that is done: a call to a workspace waits for its turn. What the store has lost comes back
    /// first.
    ///
    /// # Errors
    /// If the store cannot be read or written.
    pub async fn recover(shared: Arc<Shared>, shutdown: CancellationToken) -> Result<(Self, Recovered), Error> {
        let recovered = recovery::reconcile(&shared).await?;
        let own = vec![shared.state_dir.clone(), shared.config_dir.clone()];
        let registry = Self { shared, own, inner: Mutex::default(), shutdown };
        let mut runs = live_runs(&registry.shared)?;
        for record in registry.shared.workspaces.list().map_err(|e| failure::of_store(&e))? {
            match record {
                Ok(record) => {
                    let live = runs.remove(&record.id).unwrap_or_default();
                    registry.adopt(record).recover(live);
                }
                Err(error) => {
                    tracing::error!(%error, "a workspace's record cannot be read; its directory is left alone");
                }
            }
        }
        let provider = registry.shared.provider.clone();
        // Beside everything else: the engine may be slow, or not there.
        registry.lock().tasks.spawn(async move {
            match provider.clean().await {
                Ok(0) => {}
                Ok(removed) => tracing::info!(removed, "containers that a killed daemon left were removed"),
                Err(error) => {
                    tracing::warn!(%error, "whether a killed daemon left something in the engine is not known");
                }
            }
        });
        let (shared, shutdown) = (registry.shared.clone(), registry.shutdown.clone());
        registry.lock().tasks.spawn(async move {
            let mut turns = tokio::time::interval(SWEEP);
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    _ = turns.tick() => {}
                    () = shared.put_away.notified() => {}
                }
                let sweep = trash::sweep(&shared, std::time::SystemTime::now(), trash::MOST);
                let Some(swept) = shutdown.run_until_cancelled(sweep).await else { return };
                for gone in swept {
                    tracing::info!(workspace = %gone.id, bytes = gone.bytes, "a destroyed workspace was kept long enough, or the trash had become too large");
                }
                let state_dir = shared.state_dir.clone();
                let cleaned = move || cleaned::sweep(&state_dir, std::time::SystemTime::now());
                if let Err(error) = tokio::task::spawn_blocking(cleaned).await {
                    tracing::warn!(%error, "what rollbacks moved away was not looked through");
                }
            }
        });
        Ok((registry, recovered))
    }

    fn adopt(&self, record: WorkspaceRecord) -> Handle {
        self.adopt_in(&mut self.lock(), record)
    }

    fn adopt_in(&self, inner: &mut Inner, record: WorkspaceRecord) -> Handle {
        let (id, name, project, uid) = (record.id.clone(), record.name.clone(), record.project.clone(), record.uid);
        let handle = actor::spawn(&mut inner.tasks, self.shared.clone(), record, self.shutdown.clone());
        inner.all.insert(id, Entry { handle: handle.clone(), name, project, uid });
        handle
    }

    /// Without those whose owner has ended: a destroy that an earlier daemon began ends here too.
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.all.retain(|_, entry| !entry.handle.is_gone());
        inner
    }

    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The keys that are there: those that are kept, and those of agents that the daemon's
    /// environment has.
    ///
    /// # Errors
    /// A directory that cannot be read; a manifest of the user's with a mistake.
    pub fn secrets(&self) -> Result<Vec<SecretView>, Error> {
        let secrets = &self.shared.secrets;
        let kept = secrets.list().map_err(|e| failure::of_secrets(&e))?;
        let manifests = agents::manifests(Some(&self.shared.config_dir.join("agents")));
        let manifests = manifests.map_err(|e| failure::of_agents(&e))?;
        let asked: BTreeSet<String> = manifests.into_values().map(|manifest| manifest.endpoint.key).collect();
        let found = asked.into_iter().filter(|name| secrets.in_environment(name) && !kept.contains(name));
        let found: Vec<SecretView> =
            found.map(|name| SecretView { name, source: SecretSource::Environment, time: None }).collect();
        let time = |name: &str| {
            let since = secrets.set_at(name)?.duration_since(std::time::UNIX_EPOCH).ok()?;
            Some(Timestamp::from_unix_ms(i64::try_from(since.as_millis()).ok()?))
        };
        let kept = kept.into_iter();
        Ok(kept.map(|name| SecretView { time: time(&name), name, source: SecretSource::Kept }).chain(found).collect())
    }

    /// Oldest first.
    pub fn list(&self) -> Vec<WorkspaceView> {
        let handles: Vec<_> = self.lock().all.values().map(|e| e.handle.clone()).collect();
        handles.iter().map(Handle::view).collect()
    }

    /// The workspace that a call means.
    ///
    /// # Errors
    /// [`Kind::WorkspaceNotFound`], with the names that there are.
    pub fn find(&self, reference: &WorkspaceRef) -> Result<Handle, Error> {
        let inner = self.lock();
        let all = &inner.all;
        let found = match reference {
            WorkspaceRef::Name(text) => all.iter().find(|(id, e)| e.name.as_str() == text || id.as_str() == text),
            WorkspaceRef::Project(of) => {
                let real = of.project.canonicalize().unwrap_or_else(|_| of.project.clone());
                all.iter().find(|(_, e)| e.project == real && of.name.as_ref().is_none_or(|n| *n == e.name))
            }
        };
        if let Some((_, entry)) = found {
            return Ok(entry.handle.clone());
        }
        let names: Vec<&str> = all.values().map(|e| e.name.as_str()).collect();
        Err(match reference {
            WorkspaceRef::Name(text) => {
                let shown: String = text.chars().take(80).collect();
                let error = Error::new(Kind::WorkspaceNotFound, format!("there is no workspace {shown:?}"));
                match config::nearest(&shown, &names) {
                    Some(near) => error.hint(format!("did you mean {near}? vcodingctl ls lists all")),
                    None => error.hint("vcodingctl ls"),
                }
            }
            WorkspaceRef::Project(of) => Error::new(
                Kind::WorkspaceNotFound,
                match &of.name {
                    Some(name) => format!("project {} has no workspace {name}", of.project.display()),
                    None => format!("project {} has no workspace yet", of.project.display()),
                },
            )
            .hint("vcodingctl up"),
        })
    }

    /// Makes a project's workspace, or makes sure that it runs.
    ///
    /// # Errors
    /// What is wrong with the project, the name, or a step on the way.
    pub async fn up(&self, params: UpParams, say: Say) -> Result<UpResult, Error> {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let own: Vec<&Path> = self.own.iter().map(PathBuf::as_path).collect();
        let project = transfer::suitable(&params.project, home.as_deref(), &own).map_err(|e| unsuitable(&e))?;
        let from = params.from.as_deref().map(|from| match from.split_once(':') {
            Some((from, checkpoint)) => (from.to_owned(), Some(checkpoint.to_owned())),
            None => (from.to_owned(), None),
        });
        let handle = match self.existing(&project, params.name.as_ref())? {
            Some(handle) if from.is_some() => {
                let name = &handle.snapshot().view.name;
                let message = format!("{} has a workspace already: {name}", project.display());
                return Err(Error::new(Kind::WorkspaceTaken, message).hint("vcodingctl up -w ANOTHER-NAME --from ID"));
            }
            Some(handle) => handle,
            None => {
                transfer::may_be_repository(&project).map_err(|e| unsuitable(&e))?;
                match &from {
                    Some((from, _)) => self.bring_back(&project, params.name, from).await?,
                    None => self.create(&project, params.name).await?,
                }
            }
        };
        let rebuild = match (params.rebuild, params.no_cache) {
            (_, true) => Rebuild::Anew,
            (true, false) => Rebuild::Cached,
            (false, false) => Rebuild::No,
        };
        let mut done = handle.up(rebuild, say).await?;
        if let Some((_, Some(checkpoint))) = from {
            let back = handle.rollback(checkpoint, Vec::new(), false, WhileRunning::Refuse).await?;
            done.told.notes.push(format!("its work tree is as it was at {}", back.target));
        }
        Ok(done.into_result(&handle))
    }

    /// What a project asks for that only the user may grant; `answer` grants what has this hash,
    /// or takes it back.
    ///
    /// # Errors
    /// [`Kind::NoProject`]; [`Kind::ConsentNeeded`]; a state directory that cannot be written.
    pub async fn consent(&self, project: PathBuf, answer: Option<(String, bool)>) -> Result<Consent, Error> {
        let state_dir = self.shared.state_dir.clone();
        super::steps::blocking(move || {
            let project = project.canonicalize().map_err(|e| {
                Error::new(Kind::NoProject, format!("{}: {e}", project.display())).hint("cd to your project")
            })?;
            match answer {
                Some((hash, agree)) => consent::set(&state_dir, &project, &hash, agree),
                None => consent::show(&state_dir, &project),
            }
        })
        .await
    }

    fn existing(&self, project: &Path, name: Option<&WorkspaceName>) -> Result<Option<Handle>, Error> {
        let inner = self.lock();
        if let Some(entry) =
            inner.all.values().find(|e| e.project == project && name.is_none_or(|name| *name == e.name))
        {
            return Ok(Some(entry.handle.clone()));
        }
        match name.and_then(|name| inner.all.values().find(|e| e.name == *name)) {
            Some(taken) => Err(taken_by_another(taken)),
            None => Ok(None),
        }
    }

    async fn create(&self, project: &Path, name: Option<WorkspaceName>) -> Result<Handle, Error> {
        let (state_dir, root) = (self.shared.state_dir.clone(), project.to_owned());
        let looked = move || Ok((consent::settings(&state_dir, &root)?, trash::uids(&state_dir)));
        let (settings, kept) = super::steps::blocking(looked).await?;
        if !project.join(&settings.dockerfile).is_file() {
            return Err(no_dockerfile(project, &settings.dockerfile));
        }
        let wanted = match (name, &settings.name) {
            (Some(name), _) => Wanted::This(name),
            (None, Some(text)) => Wanted::This(text.parse().map_err(|e: protocol::names::InvalidName| {
                Error::new(Kind::InvalidConfiguration, format!("vcoding.toml: [workspace] name: {e}"))
            })?),
            (None, None) => {
                Wanted::Like(WorkspaceName::suggested_by(&project.file_name().unwrap_or_default().to_string_lossy()))
            }
        };
        let (handle, record) = {
            // One turn from the look to the entry: two calls make one workspace.
            let mut inner = self.lock();
            let made_meanwhile = inner.all.values().find(|e| e.project == project && wanted.fits(&e.name));
            if let Some(entry) = made_meanwhile {
                return Ok(entry.handle.clone());
            }
            let record = new_record(&inner, project, wanted, settings, &kept)?;
            (self.adopt_in(&mut inner, record.clone()), record)
        };
        self.shared.workspaces.put(&record).await.map_err(|e| failure::of_store(&e))?;
        Ok(handle)
    }

    /// Ends a workspace.
    ///
    /// # Errors
    /// [`Kind::UnappliedWork`] without `force`; what a step says.
    pub async fn destroy(&self, reference: &WorkspaceRef, force: bool, purge: bool) -> Result<DestroyResult, Error> {
        let handle = self.find(reference)?;
        let view = handle.snapshot().view.clone();
        let notes = handle.destroy(force, purge).await?;
        self.lock().all.remove(&view.id);
        self.shared.put_away.notify_one();
        let kept = i64::try_from(trash::KEPT.as_millis()).unwrap_or(0);
        let kept_until = (!purge).then(|| Timestamp::from_unix_ms(Timestamp::now().unix_ms() + kept));
        Ok(DestroyResult { id: view.id, name: view.name, kept_until, notes })
    }

    /// Waits for every owner to end, after the shutdown was asked for.
    pub async fn ended(&self) {
        let mut tasks = std::mem::take(&mut self.lock().tasks);
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a workspace's task broke off");
            }
        }
    }
}

/// The runs that an earlier daemon left live, by their workspace.
fn live_runs(shared: &Shared) -> Result<BTreeMap<WorkspaceId, Vec<RunRecord>>, Error> {
    let mut live: BTreeMap<WorkspaceId, Vec<RunRecord>> = BTreeMap::new();
    for run in shared.runs.list().map_err(|e| failure::of_store(&e))? {
        match run {
            Ok(run) if run.state.is_over() => {}
            Ok(run) => live.entry(run.workspace.clone()).or_default().push(run),
            Err(error) => tracing::error!(%error, "a run's record cannot be read"),
        }
    }
    Ok(live)
}

/// A name and a uid that nobody else gets until they are filled or this is dropped.
pub(super) struct Reserved<'a> {
    registry: &'a Registry,
    name: WorkspaceName,
    uid: u32,
}

impl Registry {
    /// The name that a workspace is to be brought back under, with its uid.
    ///
    /// # Errors
    /// [`Kind::WorkspaceTaken`].
    pub(super) fn reserve(&self, wanted: Wanted, uid: u32) -> Result<Reserved<'_>, Error> {
        let mut inner = self.lock();
        let name = free_name(&inner, wanted)?;
        // Destroyed by a daemon that kept no files of it, and gave its uid away again.
        let other = inner.all.values().find(|entry| entry.uid == uid && nix::unistd::geteuid().is_root());
        if let Some(other) = other {
            let message =
                format!("its files would belong to the guest of workspace {}, which has its uid by now", other.name);
            return Err(Error::new(Kind::WorkspaceTaken, message).hint("vcodingctl ls --trash"));
        }
        inner.reserved.push((name.clone(), uid));
        Ok(Reserved { registry: self, name, uid })
    }
}

impl Reserved<'_> {
    pub(super) fn name(&self) -> &WorkspaceName {
        &self.name
    }

    /// Makes its owner.
    pub(super) fn fill(self, record: WorkspaceRecord) -> Handle {
        self.registry.adopt(record)
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut inner = self.registry.lock();
        if let Some(at) = inner.reserved.iter().position(|(name, uid)| (name, uid) == (&self.name, &self.uid)) {
            inner.reserved.swap_remove(at);
        }
    }
}

pub(super) enum Wanted {
    /// This and no other.
    This(WorkspaceName),
    /// This, or the same with a number.
    Like(WorkspaceName),
}

impl Wanted {
    fn fits(&self, name: &WorkspaceName) -> bool {
        match self {
            Self::This(wanted) => wanted == name,
            Self::Like(_) => true,
        }
    }
}

fn new_record(
    inner: &Inner,
    project: &Path,
    wanted: Wanted,
    settings: config::Project,
    kept: &BTreeSet<u32>,
) -> Result<WorkspaceRecord, Error> {
    let name = free_name(inner, wanted)?;
    let (uid, gid) = user_of_guest(inner, kept)?;
    Ok(WorkspaceRecord {
        id: new_id()?,
        revision: 0,
        name,
        project: project.to_owned(),
        created: Timestamp::now(),
        nonce: ulid::Ulid::new().to_string().to_lowercase(),
        uid,
        gid,
        rest: Rest::New,
        intent: None,
        problem: None,
        image: None,
        superseded: Vec::new(),
        helper: String::new(),
        // The image's step reads them again, with everything else of vcoding.toml.
        limits: LimitsRecord {
            memory: settings.limits.memory,
            milli_cpus: super::image_step::millis(settings.limits.cpus),
            pids: settings.limits.pids,
            disk: settings.limits.disk,
            open_files: settings.limits.open_files,
            open_files_asked: None,
        },
        max_file: settings.max_file,
        default_agent: settings.default_agent,
        models: settings.models,
        run: settings.run,
    })
}

fn free_name(inner: &Inner, wanted: Wanted) -> Result<WorkspaceName, Error> {
    let owner = |name: &WorkspaceName| inner.all.values().find(|e| e.name == *name);
    let reserved = |name: &WorkspaceName| inner.reserved.iter().any(|(other, _)| other == name);
    match wanted {
        Wanted::This(name) => match owner(&name) {
            Some(taken) => Err(taken_by_another(taken)),
            None if reserved(&name) => {
                Err(Error::new(Kind::WorkspaceTaken, format!("a workspace {name} is just being brought back"))
                    .hint("vcodingctl ls"))
            }
            None => Ok(name),
        },
        Wanted::Like(name) => {
            let Some(taken) = owner(&name) else { return Ok(name) };
            // Its project may just have moved: a second one would be made by mistake.
            if !taken.project.exists() {
                return Err(taken_by_another(taken));
            }
            (2..10_000)
                .map(|n| name.numbered(n))
                .find(|name| owner(name).is_none())
                .ok_or_else(|| taken_by_another(taken))
        }
    }
}

fn taken_by_another(taken: &Entry) -> Error {
    let (name, project) = (&taken.name, taken.project.display());
    if taken.project.exists() {
        Error::new(Kind::WorkspaceTaken, format!("the name {name} belongs to the workspace of {project}"))
            .hint("vcodingctl up -w ANOTHER-NAME")
    } else {
        Error::new(
            Kind::WorkspaceTaken,
            format!("the name {name} belongs to the workspace of {project}, which is gone"),
        )
        .hint(format!(
            "if it was moved here: ln -s \"$PWD\" {project} lets vcodingctl -w {name} apply bring its work home; \
             vcodingctl -w {name} destroy ends it; vcodingctl up -w ANOTHER-NAME makes a second"
        ))
    }
}

fn no_dockerfile(project: &Path, dockerfile: &Path) -> Error {
    if dockerfile == Path::new("Dockerfile") {
        return Error::new(Kind::NoDockerfile, format!("{} has no Dockerfile", project.display()))
            .hint("vcodingctl init   (writes one that fits the project)");
    }
    let why = format!("vcoding.toml names {}, which is not there", dockerfile.display());
    Error::new(Kind::InvalidConfiguration, why).hint("correct [workspace] dockerfile in vcoding.toml")
}

fn unsuitable(why: &Unsuitable) -> Error {
    match why {
        Unsuitable::Missing { .. } => Error::new(Kind::NoProject, why.to_string()).hint("cd to your project"),
        Unsuitable::Forbidden { .. } => Error::new(Kind::UnsuitableProject, why.to_string()).hint("cd to your project"),
        Unsuitable::Inside { repository, .. } => Error::new(Kind::UnsuitableProject, why.to_string()).hint(format!(
            "vcodingctl --project {} up (its vcoding.toml may name this directory's Dockerfile), or git init here first",
            repository.display()
        )),
        Unsuitable::NotOwned { path } => {
            Error::new(Kind::UnsuitableProject, why.to_string()).hint(failure::trust(path))
        }
    }
}

/// The daemon's own user, or, where that is root, one that is nobody's: neither an account of
/// this host nor another guest's.
/// `kept` are those of destroyed workspaces whose files are still there.
fn user_of_guest(inner: &Inner, kept: &BTreeSet<u32>) -> Result<(u32, u32), Error> {
    let me = nix::unistd::geteuid();
    if !me.is_root() {
        return Ok((me.as_raw(), nix::unistd::getegid().as_raw()));
    }
    let taken = |uid: u32| {
        inner.all.values().any(|e| e.uid == uid)
            || inner.reserved.iter().any(|(_, reserved)| *reserved == uid)
            || kept.contains(&uid)
            || !matches!(nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)), Ok(None))
            || !matches!(nix::unistd::Group::from_gid(nix::unistd::Gid::from_raw(uid)), Ok(None))
    };
    (FIRST_UID..FIRST_UID + UIDS)
        .find(|uid| !taken(*uid))
        .map(|uid| (uid, uid))
        .ok_or_else(|| Error::new(Kind::Internal, "every uid for guests is taken").hint("vcodingctl ls"))
}

fn new_id() -> Result<WorkspaceId, Error> {
    ulid::Ulid::new()
        .to_string()
        .to_lowercase()
        .parse()
        .map_err(|e: protocol::names::InvalidName| Error::new(Kind::Internal, e.to_string()))
}

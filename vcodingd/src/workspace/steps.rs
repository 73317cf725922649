//! What each step of an operation does. Every one may run again after it was cut off anywhere.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::workspace::{StepState, Wall, WallMount};
use protocol::{Error, Kind};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::actor::Actor;
use super::failure;
use super::machine::{Operation, Step};
use super::record::{self, ImageRecord, Rest};
use super::{Say, consent, helper, trash};
use crate::image::{self, ImageRequest};
use crate::provider::{BuildEvent, GuestState, Walls};
use crate::timeline::{Activity, Cause};
use crate::{config, exec, ssh, transfer};

/// A guest gets this long to end by itself.
const GRACE: Duration = Duration::from_secs(5);
/// The first command has to come back within this.
const FIRST_COMMAND: Duration = Duration::from_secs(30);
/// Of a longer Dockerfile only the beginning is compared.
const MAX_DOCKERFILE: u64 = 4 << 20;
/// A longer ENV is not taken: it has to fit into a guest's environment.
const MAX_ENV: usize = 256 << 10;

/// What an operation leaves to tell.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub files: u64,
    pub left_out: Vec<protocol::workspace::LeftOut>,
    pub left_out_total: u64,
    pub notes: Vec<String>,
    pub applied: Option<protocol::transfer::ApplyResult>,
    pub rolled_back: Option<protocol::checkpoint::CheckpointView>,
    /// The checkpoint of what a rollback replaced.
    pub before: Option<String>,
}

impl Actor {
    /// Does one step, telling it.
    pub(super) async fn step(
        &mut self,
        operation: &Operation,
        step: Step,
        say: &Say,
        told: &mut Told,
    ) -> Result<(), Error> {
        let began = Instant::now();
        // What only takes milliseconds is not news.
        let loud = matches!(step, Step::Image | Step::Copy | Step::Start | Step::Connect | Step::Halt | Step::Remove);
        if loud {
            say.say(step.word(), StepState::Started, None, None).await;
        }
        let done = self.perform(operation, step, say, told).await;
        let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(workspace = %self.record.id, operation = operation.word(), step = step.word(), took_ms = took, ok = done.is_ok(), "step");
        match &done {
            Ok(text) if loud => {
                let (state, text) = match text.as_deref() {
                    Some("cached") => (StepState::Cached, None),
                    _ => (StepState::Done, text.clone()),
                };
                say.say(step.word(), state, text, Some(took)).await;
            }
            Ok(_) => {}
            Err(error) => say.say(step.word(), StepState::Failed, Some(error.message.clone()), Some(took)).await,
        }
        done.map(drop)
    }

    async fn perform(
        &mut self,
        operation: &Operation,
        step: Step,
        say: &Say,
        told: &mut Told,
    ) -> Result<Option<String>, Error> {
        match step {
            Step::Directories => self.directories().await,
            Step::Image => {
                let (rebuild, no_cache) = match operation {
                    Operation::Up { rebuild, no_cache } => (*rebuild, *no_cache),
                    _ => (false, false),
                };
                return self.image(rebuild, no_cache, say, told).await;
            }
            Step::Copy => return self.copy(told).await,
            Step::Files => self.files().await,
            Step::Create => self.create().await,
            Step::Start => self.start_guest().await,
            Step::Connect => return self.connect().await.map(Some),
            Step::EndRuns => {
                self.end_runs().await;
                Ok(())
            }
            Step::Checkpoint => self.record_the_last(operation).await,
            Step::Disconnect => {
                self.disconnect().await;
                Ok(())
            }
            Step::Halt => self.halt().await,
            Step::Remove => self.shared.provider.remove(&self.record.id).await.map_err(|e| failure::of_provider(&e)),
            Step::PutAway => self.put_away(matches!(operation, Operation::Destroy { purge: true, .. })).await,
            Step::Freeze => self.freeze().await,
            Step::Restore => self.restore(operation, told).await,
            Step::Publish => self.publish_branch(operation, told).await,
        }?;
        Ok(None)
    }

    async fn directories(&mut self) -> Result<(), Error> {
        let places = self.places.clone();
        if self.record.rest != Rest::New && !places.mounted_are_there() {
            self.bring_back_what_is_gone().await?;
        }
        let user = self.record.user();
        blocking(move || {
            let make = |path: &Path, mode: u32| {
                std::fs::create_dir_all(path).map_err(|e| failure::of_file(path, &e))?;
                std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|e| failure::of_file(path, &e))
            };
            make(&places.own, 0o700)?;
            make(&places.host(), 0o700)?;
            make(&places.etc(), 0o755)?;
            for guests in [places.tree(), places.home(), places.run()] {
                make(&guests, 0o700)?;
                std::os::unix::fs::lchown(&guests, Some(user.uid), Some(user.gid))
                    .map_err(|e| failure::of_file(&guests, &e))?;
            }
            Ok(())
        })
        .await
    }

    /// Directories of a workspace were deleted behind our back: the guest that has them mounted ends,
    /// and the work tree is again what the newest checkpoint holds.
    async fn bring_back_what_is_gone(&mut self) -> Result<(), Error> {
        tracing::warn!(workspace = %self.record.id, "directories of a workspace are gone");
        self.disconnect().await;
        self.shared.provider.remove(&self.record.id).await.map_err(|e| failure::of_provider(&e))?;
        self.lose_runs_of_a_gone_guest().await;
        let (tree, user) = (self.places.tree(), self.record.user());
        // Only a history that is really gone may leave the work tree empty.
        if self.timeline.is_there() {
            self.look_at_history().await?;
        }
        if tree.is_dir() || self.ends.head.is_none() {
            return Ok(());
        }
        // Whole, or not there: an empty one would be taken for somebody's work.
        let fresh = tree.with_extension("new");
        let (path, made) = (fresh.clone(), fresh.clone());
        blocking(move || {
            std::fs::create_dir_all(&path).map_err(|e| failure::of_file(&path, &e))?;
            std::os::unix::fs::lchown(&path, Some(user.uid), Some(user.gid)).map_err(|e| failure::of_file(&path, &e))
        })
        .await?;
        self.timeline.bring_back(made).await.map_err(|e| failure::of_timeline(&e))?;
        blocking(move || std::fs::rename(&fresh, &tree).map_err(|e| failure::of_file(&tree, &e))).await?;
        self.look_at_history().await
    }

    /// The image of the record, made if it is not there. Once it is, only `rebuild` looks at the
    /// project again: a resident guest does not change because a file of the project did.
    async fn image(
        &mut self,
        rebuild: bool,
        no_cache: bool,
        say: &Say,
        told: &mut Told,
    ) -> Result<Option<String>, Error> {
        if !rebuild
            && let Some(image) = &self.record.image
            && self.shared.provider.image(&image.reference).await.is_ok()
        {
            return Ok(Some("cached".into()));
        }
        let (state_dir, root) = (self.shared.state_dir.clone(), self.record.project.clone());
        let project = blocking(move || consent::settings(&state_dir, &root)).await?;
        let source = source_of(&self.record.project, &project);
        let request = ImageRequest {
            project: self.record.project.clone(),
            dockerfile: project.dockerfile.clone(),
            context: project.context.clone(),
            target: project.target.clone(),
            args: project.build_args.clone(),
            name: self.record.name.clone(),
            workspace: self.record.id.clone(),
            rebuild,
            no_cache,
        };
        let scratch = self.places.host();
        let asked = request.clone();
        let prepared = blocking(move || {
            let secret = |path: &Path, head: &[u8]| history::rules::secret(path.as_os_str().as_bytes(), head);
            image::prepare(&asked, &secret, &scratch).map_err(|e| failure::of_image(&e))
        })
        .await?;
        told.notes.extend(left_out_of_image(&prepared.left_out));
        let (events, mut heard) = mpsc::channel(256);
        let provider = self.shared.provider.clone();
        let ensuring = image::ensure(&*provider, &request, prepared, events);
        let telling = async {
            let mut names = BTreeMap::new();
            while let Some(event) = heard.recv().await {
                tell_build(say, &mut names, event).await;
            }
        };
        let (built, ()) = tokio::join!(ensuring, telling);
        let built = built.map_err(|e| failure::of_image(&e))?;
        let accounts = image::accounts(&*provider, &built.image).await.map_err(|e| failure::of_provider(&e))?;
        self.keep_accounts(&accounts, &built, &project, source, told).await?;
        Ok((!built.built).then(|| "cached".to_owned()))
    }

    /// The image's accounts and settings, as the guest gets them.
    async fn keep_accounts(
        &mut self,
        accounts: &image::Accounts,
        built: &image::Built,
        project: &config::Project,
        source: String,
        told: &mut Told,
    ) -> Result<(), Error> {
        let user = self.record.user();
        let passwd = accounts.passwd(user, guest::places::HELPER);
        let group = accounts.group(user);
        let host = self.places.host();
        blocking(move || {
            for (name, text) in [("passwd", passwd), ("group", group)] {
                let path = host.join(name);
                record::write_synced(&path, 0o600, text.as_bytes()).map_err(|e| failure::of_file(&path, &e))?;
            }
            Ok(())
        })
        .await?;
        let mut env: Vec<String> = built.info.env.iter().filter(|line| is_plain_variable(line)).cloned().collect();
        if env.iter().map(String::len).sum::<usize>() > MAX_ENV {
            told.notes.push("the image's ENV is longer than 256 KiB and was left out".into());
            env.clear();
        }
        let inside = Path::new(&built.info.working_dir).starts_with("/work");
        if !inside && !matches!(built.info.working_dir.as_str(), "" | "/") {
            told.notes.push(format!(
                "commands begin in /work, where the project is; the image's WORKDIR {} holds its own copy",
                built.info.working_dir
            ));
        }
        if let Some(name) = project.name.as_deref().filter(|name| *name != self.record.name.as_str()) {
            told.notes.push(format!("vcoding.toml calls it {name}; a workspace keeps the name that it was made with"));
        }
        let shell = project.shell.clone().or_else(|| shell_of(accounts, &built.info.user)).unwrap_or("/bin/sh".into());
        self.record.image = Some(ImageRecord {
            id: built.image.0.clone(),
            reference: built.reference.clone(),
            source,
            env,
            directory: if inside { built.info.working_dir.clone() } else { guest::places::WORK.to_owned() },
            shell,
            musl: super::agent::libc_of(&self.shared, &built.image.0).await == crate::agents::Libc::Musl,
        });
        self.record.limits = record::LimitsRecord {
            memory: project.limits.memory,
            milli_cpus: millis(project.limits.cpus),
            pids: project.limits.pids,
            open_files: project.limits.open_files.min(most_open_files()),
        };
        self.record.max_file = project.max_file;
        self.record.default_agent.clone_from(&project.default_agent);
        self.record.models.clone_from(&project.models);
        self.record.run.clone_from(&project.run);
        self.save().await
    }

    async fn copy(&mut self, told: &mut Told) -> Result<Option<String>, Error> {
        if self.record.rest != Rest::New && self.ends.base.is_none() {
            // An import begins with an empty work tree; this one may hold all that is left of somebody's work.
            return Err(self.history_is_gone(Kind::Internal));
        }
        let project = self.record.project.clone();
        let made = blocking(move || {
            transfer::ensure_repository(&project).map_err(|e| {
                Error::new(
                    Kind::InvalidConfiguration,
                    format!("{} cannot become a git repository: {e}", project.display()),
                )
                .hint(format!("git init {}", project.display()))
            })
        })
        .await?;
        if made {
            told.notes.push(format!("{} had no git repository; it has one now", self.record.project.display()));
        }
        let copied = transfer::copy_in(&self.timeline).await.map_err(|e| failure::of_timeline(&e))?;
        self.look_at_history().await?;
        let text =
            (copied.files > 0).then(|| format!("{} file{}", copied.files, if copied.files == 1 { "" } else { "s" }));
        told.files = copied.files;
        told.left_out = copied.left_out;
        told.left_out_total = copied.left_out_total;
        told.notes.extend(copied.notes);
        Ok(text.or_else(|| Some("cached".into())))
    }

    async fn files(&mut self) -> Result<(), Error> {
        let image = self.image_record()?.clone();
        let (places, user) = (self.places.clone(), self.record.user());
        let state_dir = self.shared.state_dir.clone();
        // A resident guest keeps the helper it was made with; one that is made or started anew gets the newest.
        let made_with = if self.guest_runs().await? { self.record.helper.clone() } else { String::new() };
        let keys = blocking(move || {
            let installed = helper::install(&state_dir).map_err(|e| failure::of_file(&state_dir, &e))?;
            let there = state_dir.join("store/guest").join(&made_with).join("vcoding-guest").is_file();
            let helper = if made_with.is_empty() || !there { installed } else { made_with };
            let keys = match ssh::Keys::load(&places.keys()) {
                Ok(keys) => keys,
                Err(_) => {
                    let keys = ssh::Keys::generate().map_err(failure::of_ssh)?;
                    keys.store(&places.keys()).map_err(failure::of_ssh)?;
                    keys
                }
            };
            let read = |name: &str| {
                let path = places.host().join(name);
                std::fs::read_to_string(&path).map_err(|e| failure::of_file(&path, &e))
            };
            let files = ssh::GuestFiles {
                user,
                env: image.env,
                shell: image.shell,
                directory: image.directory,
                passwd: read("passwd")?,
                group: read("group")?,
                ports: ssh::ModelPorts { model: record::MODEL_PORT, relay: record::RELAY_PORT },
            };
            ssh::write_guest_files(&places.etc(), &keys, &files).map_err(failure::of_ssh)?;
            Ok((keys, helper))
        })
        .await?;
        self.keys = Some(Arc::new(keys.0));
        if self.record.helper != keys.1 {
            self.record.helper = keys.1;
            self.save().await?;
        }
        Ok(())
    }

    async fn create(&mut self) -> Result<(), Error> {
        let spec = self.spec()?;
        let created = self.shared.provider.create(&spec).await;
        match created {
            // Made from an older image, helper or limits: a stopped one holds nothing of its own.
            Err(crate::provider::Error::Conflict { .. }) if !self.guest_runs().await? => {
                self.shared.provider.remove(&spec.id).await.map_err(|e| failure::of_provider(&e))?;
                self.shared.provider.create(&spec).await.map_err(|e| failure::of_provider(&e))
            }
            other => other.map_err(|e| failure::of_provider(&e)),
        }
    }

    pub(super) async fn guest_runs(&self) -> Result<bool, Error> {
        let found = self.shared.provider.inspect(&self.record.id).await.map_err(|e| failure::of_provider(&e))?;
        Ok(matches!(found.map(|g| g.state), Some(GuestState::Running { .. } | GuestState::Paused { .. })))
    }

    async fn start_guest(&mut self) -> Result<(), Error> {
        let spec = self.spec()?;
        let provider = &self.shared.provider;
        let found = provider.inspect(&spec.id).await.map_err(|e| failure::of_provider(&e))?;
        // Only a rollback freezes, and one that was cut off leaves it so.
        if matches!(found.map(|g| g.state), Some(GuestState::Paused { .. })) {
            provider.unpause(&spec.id).await.map_err(|e| failure::of_provider(&e))?;
        }
        let walls = provider.start(&spec).await.map_err(|e| failure::of_provider(&e))?;
        self.walls = Some(walls);
        Ok(())
    }

    async fn connect(&mut self) -> Result<String, Error> {
        let (Some(walls), Some(keys)) = (self.walls.clone(), self.keys.clone()) else {
            return Err(Error::new(Kind::Internal, "a guest is connected to before it was started"));
        };
        if let Some(pool) = self.pool.take() {
            pool.close().await;
        }
        let target = ssh::Target {
            id: self.record.id.clone(),
            run_dir: self.places.run(),
            user: self.record.user(),
            init: walls.init,
            keys,
        };
        let pool = ssh::Pool::open(self.shared.provider.clone(), target).await.map_err(failure::of_ssh)?;
        // Ready means that a real command came back.
        let first = exec::captured(&pool, guest::Frame::exec(["true"]), Vec::new(), 4096, FIRST_COMMAND).await;
        match first {
            Ok(answer) if matches!(answer.status, 0 | 127) => {
                let carrier = pool.carrier();
                self.wall = Some(wall(&walls, carrier));
                self.pool = Some(pool);
                Ok(format!("carrier {carrier}"))
            }
            Ok(answer) => {
                pool.close().await;
                Err(Error::new(
                    Kind::GuestUnreachable,
                    format!("the guest's first command ended with status {}", answer.status),
                )
                .hint("vcodingctl up --rebuild"))
            }
            Err(error) => {
                pool.close().await;
                Err(error.into())
            }
        }
    }

    pub(super) async fn disconnect(&mut self) {
        self.close_forward().await;
        if let Some(pool) = self.pool.take() {
            pool.close().await;
        }
        self.publish();
    }

    async fn halt(&mut self) -> Result<(), Error> {
        self.walls = None;
        self.wall = None;
        match self.shared.provider.stop(&self.record.id, GRACE).await {
            Ok(()) | Err(crate::provider::Error::NoSuchGuest { .. }) => Ok(()),
            Err(error) => Err(failure::of_provider(&error)),
        }
    }

    async fn put_away(&mut self, purge: bool) -> Result<(), Error> {
        // Of a build that was cut off.
        let half_made = image::half_made(&self.record.name, &self.record.id);
        if let Err(error) = self.shared.provider.remove_image(&half_made).await {
            tracing::debug!(%error, "a half-made image was not removed");
        }
        if purge {
            self.forget_runs().await?;
            self.forget_image(self.record.image.as_ref().map(|image| image.reference.clone())).await;
        }
        self.timeline.close().await;
        let (state_dir, id) = (self.shared.state_dir.clone(), self.record.id.clone());
        let done =
            blocking(move || trash::put_away(&state_dir, &id, purge).map_err(|(path, e)| failure::of_file(&path, &e)));
        done.await.inspect_err(|_| self.timeline.reopen())
    }

    /// What is known of its runs, their prompts' beginnings among it.
    async fn forget_runs(&self) -> Result<(), Error> {
        let runs = self.shared.runs.list().map_err(|e| failure::of_store(&e))?;
        for run in runs.into_iter().flatten().filter(|run| run.workspace == self.record.id) {
            self.shared.runs.remove(run.id.as_str()).await.map_err(|e| failure::of_store(&e))?;
        }
        Ok(())
    }

    /// What the work tree holds when nothing writes to it any more; a destroy that was not forced
    /// goes on only if that is at home.
    async fn record_the_last(&mut self, operation: &Operation) -> Result<(), Error> {
        // One that was deleted by hand is in its newest checkpoint.
        if self.ends.base.is_none() || !self.places.tree().is_dir() {
            return Ok(());
        }
        let Operation::Destroy { force, .. } = operation else {
            return self.checkpoint(Cause::of("stop"), Activity::Still).await.map(drop);
        };
        let made = self.checkpoint(Cause::of("destroy"), Activity::Still).await;
        made.map_err(|e| e.hint("vcodingctl destroy --force --purge ends it without a last checkpoint"))?;
        if *force { Ok(()) } else { self.needs_to_be_home().await }
    }

    fn image_record(&self) -> Result<&ImageRecord, Error> {
        self.record.image.as_ref().ok_or_else(|| {
            Error::new(Kind::WorkspaceNotRunning, format!("workspace {} has no image yet", self.record.name))
                .hint("vcodingctl up")
        })
    }

    pub(super) fn spec(&self) -> Result<crate::provider::GuestSpec, Error> {
        self.image_record()?;
        self.record
            .spec(&self.shared.state_dir)
            .ok_or_else(|| Error::new(Kind::Internal, "a workspace with an image has no guest"))
    }
}

/// Runs what blocks on a thread for that.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|e| failure::of_task(&e))?
}

/// What the image was made from: the texts of Dockerfile and vcoding.toml. A change of either is
/// said at the next `up`; a file that the Dockerfile copies is not looked at.
pub(super) fn source_of(root: &Path, project: &config::Project) -> String {
    use std::fmt::Write;
    let mut hash = Sha256::new();
    let mut dockerfile = Vec::new();
    let opened = fs::Root::open(root).and_then(|root| root.open_file(&project.dockerfile));
    // One that cannot be read is said by the build.
    let _read = opened.is_ok_and(|file| file.take(MAX_DOCKERFILE).read_to_end(&mut dockerfile).is_ok());
    hash.update(dockerfile);
    hash.update([0]);
    hash.update(project.hash.as_bytes());
    hash.finalize()[..16].iter().fold(String::new(), |mut text, byte| {
        let _never_fails = write!(text, "{byte:02x}");
        text
    })
}

fn left_out_of_image(left_out: &[image::LeftOut]) -> Option<String> {
    let named: Vec<String> = left_out
        .iter()
        .filter(|l| l.path.file_name() != Some(std::ffi::OsStr::new(".git")))
        .take(5)
        .map(|l| format!("{} ({})", l.path.display(), l.why))
        .collect();
    (!named.is_empty()).then(|| format!("kept out of the image's build: {}", named.join(", ")))
}

/// `names` of the steps by number.
async fn tell_build(say: &Say, names: &mut BTreeMap<u32, String>, event: BuildEvent) {
    let named = |names: &BTreeMap<u32, String>, step| names.get(&step).cloned().unwrap_or_else(|| "image".to_owned());
    match event {
        // The builder's own errands; if one fails, the image's step says it.
        BuildEvent::Started { name, .. } | BuildEvent::Cached { name, .. } if is_errand(&name) => {}
        BuildEvent::Started { step, name } => {
            say.say(&name, StepState::Started, None, None).await;
            names.insert(step, name);
        }
        BuildEvent::Cached { name, .. } => say.say(&name, StepState::Cached, None, None).await,
        BuildEvent::Log { step, line } => say.output(&named(names, step), line),
        BuildEvent::Done { step, elapsed_ms } => {
            if let Some(name) = names.get(&step) {
                say.say(name, StepState::Done, None, Some(elapsed_ms)).await;
            }
        }
        BuildEvent::Failed { step, .. } => {
            if let Some(name) = names.get(&step) {
                say.say(name, StepState::Failed, None, None).await;
            }
        }
    }
}

/// No instruction of the Dockerfile.
fn is_errand(name: &str) -> bool {
    name.starts_with("[internal]") || name.starts_with("copy /context") || name.starts_with("exporting ")
}

/// `NAME=value` that every shell takes, and that is not ours to set.
fn is_plain_variable(line: &str) -> bool {
    let Some((name, value)) = line.split_once('=') else { return false };
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    !name.is_empty() && plain && !value.contains('\0') && !matches!(name, "HOME" | "USER" | "SHELL" | "LOGNAME")
}

/// The shell of the image's own user, where the image says one.
fn shell_of(accounts: &image::Accounts, user: &str) -> Option<String> {
    let name = user.split(':').next().unwrap_or_default();
    let wanted = if name.is_empty() { "root" } else { name };
    let found = accounts.accounts.iter().find(|a| a.name == wanted || a.uid.to_string() == wanted)?;
    let usable = found.shell.starts_with('/') && !found.shell.ends_with("nologin") && !found.shell.ends_with("false");
    usable.then(|| found.shell.clone())
}

/// What this machine lets a process open at most: an engine that was started under the same limit
/// refuses a guest with more.
fn most_open_files() -> u32 {
    use nix::sys::resource::{Resource, getrlimit};
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u32::MAX, |(_, hard)| u32::try_from(hard).unwrap_or(u32::MAX))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
pub(super) fn millis(cpus: f64) -> u64 {
    (cpus.clamp(0.01, 1024.0) * 1000.0).round() as u64
}

/// What of ours is mounted there.
fn source_of_mount(at: &str) -> &'static str {
    match at {
        "/work" => "work tree",
        "/home/work" => "home",
        "/run/vcoding" => "way in and runs",
        "/etc/vcoding" => "keys and sshd",
        "/etc/passwd" | "/etc/group" => "accounts",
        "/opt/vcoding/bin" => "helper",
        "/opt/vcoding/agents" => "agents' programs",
        _ => "state directory",
    }
}

/// What the kernel reported, as clients are told.
fn wall(walls: &Walls, carrier: &str) -> Wall {
    let report = &walls.report;
    let mut mounts: Vec<WallMount> = report
        .shared
        .iter()
        .map(|text| {
            let (at, writable) = match text.strip_suffix(" (rw)") {
                Some(at) => (at, true),
                None => (text.strip_suffix(" (ro)").unwrap_or(text), false),
            };
            WallMount { at: at.to_owned(), writable, from: source_of_mount(at).into() }
        })
        .collect();
    let memory = report.memory.iter().map(|text| WallMount { at: text.clone(), writable: true, from: "tmpfs".into() });
    mounts.extend(memory);
    mounts.extend(report.engine_files.iter().map(|at| WallMount {
        at: at.clone(),
        writable: false,
        from: "engine".into(),
    }));
    Wall {
        interfaces: report.interfaces.clone(),
        uid: report.user.uid,
        gid: report.user.gid,
        capabilities: format!("{:x}", report.capabilities),
        no_new_privileges: report.no_new_privileges,
        seccomp: report.seccomp_filters > 0,
        read_only_root: report.read_only_root,
        mounts,
        carrier: carrier.to_owned(),
        runtime: "docker".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_are_ours_or_no_variables_stay_out_of_the_guests_environment() {
        for good in ["PATH=/bin", "A_1=", "lang=x=y"] {
            assert!(is_plain_variable(good), "{good}");
        }
        for bad in ["HOME=/root", "USER=root", "=x", "A", "A B=c", "A=\0"] {
            assert!(!is_plain_variable(bad), "{bad:?}");
        }
    }

    #[test]
    fn the_users_shell_is_the_images_users_and_no_lock_out() {
        let accounts = image::Accounts::parse(
            "root:x:0:0::/root:/bin/bash\nnode:x:1000:1000::/home/node:/bin/zsh\nd:x:2:2::/:/usr/sbin/nologin\n",
            "",
        );
        assert_eq!(shell_of(&accounts, "").as_deref(), Some("/bin/bash"));
        assert_eq!(shell_of(&accounts, "1000:1000").as_deref(), Some("/bin/zsh"));
        assert_eq!(shell_of(&accounts, "d"), None);
        assert_eq!(shell_of(&accounts, "nobody"), None);
    }
}

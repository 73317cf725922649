//! What each step of an operation does. Every one may run again after it was cut off anywhere.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::workspace::StepState;
use protocol::{Error, Kind};

use super::actor::Actor;
use super::machine::{Operation, Step};
use super::record::{self, ImageRecord, Rest};
use super::{Say, helper, trash, up};
use super::{consent, failure};
use crate::image;
use crate::provider::GuestState;
use crate::timeline::{Activity, Cause};
use crate::{exec, ssh, transfer};

/// A guest gets this long to end by itself.
const GRACE: Duration = Duration::from_secs(5);
/// How often a guest is tried to be made while others change what it is made from.
const CREATES: usize = 3;
/// The first command has to come back within this.
const FIRST_COMMAND: Duration = Duration::from_secs(30);

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
        self.wait_for(step.word());
        let done = self.perform(operation, step, say, told).await;
        self.waits_no_more();
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
            Step::Create => self.create(say, told).await,
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
                // The work tree has the project's bits; what keeps others out is the directory above.
                if guests != places.tree() || !guests.is_dir() {
                    make(&guests, 0o700)?;
                }
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
        let (state_dir, project) = (self.shared.state_dir.clone(), self.record.project.clone());
        let let_in = blocking(move || consent::let_in(&state_dir, &project)).await?;
        let copied = transfer::copy_in(&self.timeline, let_in).await.map_err(|e| failure::of_timeline(&e))?;
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

    async fn create(&mut self, say: &Say, told: &mut Told) -> Result<(), Error> {
        let mut tries = 0..CREATES;
        loop {
            let spec = self.spec()?;
            match self.shared.provider.create(&spec).await {
                // Made from an older image, helper or limits: a stopped one holds nothing of its own.
                Err(crate::provider::Error::Conflict { .. })
                    if tries.next().is_some() && !self.guest_runs().await? =>
                {
                    self.shared.provider.remove(&spec.id).await.map_err(|e| failure::of_provider(&e))?;
                }
                // Somebody removed it since it was looked for: another daemon has images of the same content.
                Err(crate::provider::Error::NoSuchImage { .. }) if tries.next().is_some() => {
                    self.image(false, false, say, told).await?;
                }
                other => return other.map_err(|e| failure::of_provider(&e)),
            }
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
        self.memory_kills.begin(&**provider, walls.init);
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
            warming: self.shared.warming.clone(),
        };
        let pool = ssh::Pool::open(self.shared.provider.clone(), target).await.map_err(failure::of_ssh)?;
        // Ready means that a real command came back.
        let first = exec::captured(&pool, guest::Frame::exec(["true"]), Vec::new(), 4096, FIRST_COMMAND).await;
        match first {
            Ok(answer) if matches!(answer.status, 0 | 127) => {
                let carrier = pool.carrier();
                self.wall = Some(super::wall::wall(&walls, carrier));
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
            trash::forget_runs(&self.shared, &self.record.id).await?;
        }
        // One that is brought back builds it again, mostly from the engine's cache.
        for reference in self.record.images() {
            up::forget_image(&self.shared, &self.record.id, &reference).await;
        }
        self.timeline.close().await;
        let (state_dir, id) = (self.shared.state_dir.clone(), self.record.id.clone());
        let done =
            blocking(move || trash::put_away(&state_dir, &id, purge).map_err(|(path, e)| failure::of_file(&path, &e)));
        done.await.inspect_err(|_| self.timeline.reopen())
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

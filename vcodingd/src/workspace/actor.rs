//! The one owner of a workspace: a task with an inbox.

use std::sync::Arc;
use std::time::Duration;

use protocol::checkpoint::{CheckpointView, DiffResult, RollbackResult};
use protocol::transfer::ApplyResult;
use protocol::workspace::{Phase, Waiting, Wall, WorkspaceView};
use protocol::{Bytes, Error, Kind, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::active::{ActiveRuns, Over};
use super::disk::{Disk, Fill, Taken};
use super::doings::Doings;
use super::handle::{Command, Handle, Reply};
use super::machine::{self, Intent, Operation, Step};
use super::memory::MemoryKills;
use super::points::{INTENT, OUTCOME, Side};
use super::record::{Places, Rest, WorkspaceRecord};
use super::steps::Told;
use super::turns::Wanted;
use super::{Say, Shared, Snapshot, failure};
use crate::provider::Walls;
use crate::runs::RunRecord;
use crate::ssh::{Keys, Pool};
use crate::timeline::{Activity, Cause, Ends, Notes, Paths, Timeline, remarks};

/// How often a guest with live runs is looked after.
const LOOK: Duration = Duration::from_secs(5);
/// Commands that wait for their turn; a caller beyond is told that the workspace is busy.
const INBOX: usize = 32;

pub(super) struct Actor {
    pub(super) shared: Arc<Shared>,
    pub(super) record: WorkspaceRecord,
    pub(super) places: Places,
    pub(super) timeline: Timeline,
    pub(super) keys: Option<Arc<Keys>>,
    pub(super) walls: Option<Walls>,
    pub(super) wall: Option<Wall>,
    pub(super) pool: Option<Pool>,
    pub(super) runs: ActiveRuns,
    /// Tasks that watch runs; each ends with its run.
    pub(super) watching: JoinSet<Over>,
    pub(super) ends: Ends,
    pub(super) doings: Doings,
    wanted: Wanted,
    pub(super) disk: Disk,
    /// Counts what the workspace takes; one at a time.
    pub(super) counting: JoinSet<(Fill, Option<Taken>)>,
    /// What it took when it was counted last, and what had to be done about it.
    pub(super) taken: Option<Taken>,
    /// What it took when its guest's processes were ended, as long as it is too much.
    pub(super) swept: Option<Taken>,
    pub(super) warning: Option<String>,
    /// What the operation under way is at, and since when.
    waiting: Option<Waiting>,
    pub(super) memory_kills: MemoryKills,
    /// What the last scan of the work tree had to say: what it left out, what it could not read.
    pub(super) remarks: Notes,
    published: watch::Sender<Arc<Snapshot>>,
}

/// Makes the owner's task in `tasks`; it ends by `shutdown`, or when its workspace is no more.
pub(super) fn spawn(
    tasks: &mut JoinSet<()>,
    shared: Arc<Shared>,
    record: WorkspaceRecord,
    shutdown: CancellationToken,
) -> Handle {
    let places = Places::of(&shared.state_dir, &record.id);
    let timeline = Timeline::new(Paths {
        host: places.host(),
        tree: places.tree(),
        project: record.project.clone(),
        owner: Some(history::Owner { uid: record.uid, gid: record.gid }),
        max_file: record.max_file,
    });
    let (inbox, commands) = mpsc::channel(INBOX);
    let ends = Ends::default();
    let first = Arc::new(snapshot_of(&record, view_of(&record, &ends, 0, false, None)));
    let (published, snapshot) = watch::channel(first);
    let doings = Doings::default();
    let memory_kills = MemoryKills::default();
    // What happened while no daemon was there nobody knows; a stop ends with a checkpoint.
    if record.rest == Rest::Ready {
        doings.unknown();
    }
    let (provider, wanted) = (shared.provider.clone(), Wanted::default());
    let handle = Handle {
        inbox,
        snapshot,
        timeline: timeline.clone(),
        doings: doings.clone(),
        provider,
        wanted: wanted.clone(),
        memory_kills: memory_kills.clone(),
    };
    let actor = Actor {
        places,
        timeline,
        keys: None,
        walls: None,
        wall: None,
        pool: None,
        runs: ActiveRuns::new(),
        watching: JoinSet::new(),
        ends,
        doings,
        wanted,
        disk: shared.disk.clone(),
        counting: JoinSet::new(),
        taken: None,
        swept: None,
        warning: None,
        waiting: None,
        memory_kills,
        remarks: Notes::default(),
        published,
        shared,
        record,
    };
    tasks.spawn(actor.run(commands, shutdown));
    handle
}

/// Without a guest that runs.
fn snapshot_of(record: &WorkspaceRecord, view: WorkspaceView) -> Snapshot {
    Snapshot {
        view,
        pool: None,
        wall: None,
        init: None,
        limits: record.limits,
        volumes: record.image.as_ref().map(|image| image.volumes.clone()).unwrap_or_default(),
        made: record.rest != Rest::New,
        musl: record.image.as_ref().is_some_and(|i| i.musl),
        default_agent: record.default_agent.clone(),
        models: record.models.clone(),
        run: record.run.clone(),
    }
}

fn view_of(
    record: &WorkspaceRecord,
    ends: &Ends,
    runs: u32,
    connected: bool,
    waiting: Option<Waiting>,
) -> WorkspaceView {
    let phase = match &record.intent {
        Some(intent) => intent.operation.phase(record.rest),
        None => machine::resting(record.rest, record.problem.is_some()),
    };
    // A daemon that has just begun is still looking for the guest.
    let phase = if phase == Phase::Ready && !connected { Phase::Starting } else { phase };
    WorkspaceView {
        id: record.id.clone(),
        name: record.name.clone(),
        project: record.project.clone(),
        phase,
        created: record.created,
        image: record.image.as_ref().map(|i| i.reference.clone()),
        base: ends.base.clone(),
        head: ends.head.clone(),
        unapplied: ends.unapplied,
        unrecorded: false,
        runs,
        problem: record.problem.clone(),
        warning: None,
        waiting,
    }
}

impl Actor {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>, shutdown: CancellationToken) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let next = tokio::select! {
                () = shutdown.cancelled() => break,
                // A guest that dies takes its runs along, and nobody in it can say so.
                _ = look.tick(), if self.runs.any() => Next::Look,
                fill = self.disk.changed(), if self.pool.is_some() && self.counting.is_empty() => Next::Count(fill),
                Some(counted) = self.counting.join_next(), if !self.counting.is_empty() => Next::Counted(counted),
                Some(over) = self.watching.join_next(), if !self.watching.is_empty() => Next::Over(over),
                command = commands.recv() => match command {
                    Some(command) => Next::Command(command),
                    None => break,
                },
            };
            // A daemon that ends drops what is under way, as a kill would; its intent is on disk.
            let alive = tokio::select! {
                () = shutdown.cancelled() => break,
                alive = self.next(next) => alive,
            };
            if !alive {
                return;
            }
        }
        self.runs.stop_watching();
        while self.watching.join_next().await.is_some() {}
        self.disconnect().await;
    }

    /// False when the workspace is no more.
    async fn next(&mut self, next: Next) -> bool {
        match next {
            Next::Look => self.lose_runs_of_a_gone_guest().await,
            Next::Count(fill) => self.count(fill),
            Next::Counted(Ok((fill, Some(taken)))) => self.counted(fill, taken).await,
            Next::Counted(Ok((_, None))) => {}
            Next::Counted(Err(error)) => {
                tracing::error!(%error, "the task that counts what a workspace takes broke off");
            }
            Next::Over(Ok(over)) => self.run_over(over).await,
            Next::Over(Err(error)) => tracing::error!(%error, "the task that watched a run broke off"),
            Next::Command(command) => {
                let alive = self.obey(command).await;
                // What a guest filled memory with is given back when it stands still.
                if alive && self.record.rest == Rest::Stopped {
                    self.timeline.rest().await;
                }
                return alive;
            }
        }
        true
    }

    async fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Recover { runs } => return self.come_back(runs).await,
            Command::Up { rebuild, say, reply } => answer(reply, self.up(rebuild, &say).await),
            Command::Start { reply } => {
                let done = self.start().await;
                answer(reply, done);
            }
            Command::Stop { force, reply } => answer(reply, self.stop(force).await),
            Command::Destroy { force, purge, reply } => {
                let done = self.destroy(force, purge).await;
                let gone = done.is_ok();
                answer(reply, done);
                return !gone;
            }
            Command::Checkpoint { label, reply } => {
                let cause = Cause { word: "checkpoint", label, run: None };
                let done = self.checkpoint(cause, Activity::Running).await;
                answer(reply, done);
            }
            Command::Diff { from, to, paths, reply } => answer(reply, self.diff(from, to, paths).await),
            Command::Rollback { to, paths, clean, force, reply } => {
                answer(reply, self.rollback(to, paths, clean, force).await);
            }
            Command::Apply { branch, force, reply } => answer(reply, self.apply(branch, force).await),
            Command::RunStart { prepared, say, reply } => answer(reply, self.run_start(*prepared, &say).await),
            Command::RunCancel { run, reply } => answer(reply, self.run_cancel(&run).await),
            Command::Sweep { reply } => answer(reply, self.sweep().await),
            Command::Turn { reply } => answer(reply, Ok(())),
        }
        true
    }

    /// An operation from its intent to its outcome.
    pub(super) async fn operate(&mut self, operation: Operation, say: &Say) -> Result<Told, Error> {
        let points = self.shared.points.clone();
        let word = operation.word();
        points.pass(word, INTENT, Side::Before).await;
        self.record.intent = Some(Intent { operation, step: 0 });
        self.save().await?;
        points.pass(word, INTENT, Side::After).await;
        self.publish();
        self.go_on(say).await
    }

    /// The intent of the record, from the step that it names to the operation's end.
    async fn go_on(&mut self, say: &Say) -> Result<Told, Error> {
        let mut told = Told::default();
        let Some(Intent { mut operation, mut step }) = self.record.intent.clone() else { return Ok(told) };
        let points = self.shared.points.clone();
        let steps = operation.steps();
        while let Some(now) = steps.get(step) {
            points.pass(operation.word(), now.word(), Side::Before).await;
            if let Err(error) = self.step(&operation, *now, say, &mut told).await {
                tracing::warn!(workspace = %self.record.id, operation = operation.word(), step = now.word(), %error, "an operation failed");
                self.record.intent = None;
                // What was refused before anything changed leaves a workspace as it was.
                match (&operation, *now) {
                    (Operation::Rollback { to, .. }, Step::Restore) => {
                        let to: String = to.chars().take(10).collect();
                        self.record.problem =
                            Some(format!("a rollback to {to} broke off, do it again: {}", error.message));
                    }
                    (Operation::Rollback { .. } | Operation::Apply { .. }, _) => {}
                    // The guest that is there goes on as it was.
                    (Operation::Up { rebuild: true, .. }, Step::Directories | Step::Image | Step::Copy)
                        if self.pool.is_some() => {}
                    _ => self.record.problem = Some(error.message.clone()),
                }
                self.save().await?;
                self.publish();
                return Err(error);
            }
            points.pass(operation.word(), now.word(), Side::After).await;
            // A step may have found out what a later one needs.
            if let Some(intent) = &self.record.intent {
                operation = intent.operation.clone();
            }
            step += 1;
            if step < steps.len() {
                self.record.intent = Some(Intent { operation: operation.clone(), step });
                self.save().await?;
            }
        }
        points.pass(operation.word(), OUTCOME, Side::Before).await;
        let Some(rest) = operation.rest_after(self.record.rest) else {
            // PutAway has moved the directories: only the store still knows it.
            self.shared.workspaces.remove(self.record.id.as_str()).await.map_err(|e| failure::of_store(&e))?;
            return Ok(told);
        };
        self.record.rest = rest;
        self.record.intent = None;
        if !matches!(operation, Operation::Rollback { .. } | Operation::Apply { .. }) {
            self.record.problem = None;
        }
        self.save().await?;
        points.pass(operation.word(), OUTCOME, Side::After).await;
        self.publish();
        Ok(told)
    }

    /// Takes its turn among the workspaces that come back. False when it is no more.
    async fn come_back(&mut self, runs: Vec<RunRecord>) -> bool {
        let turns = self.shared.turns.clone();
        self.wait_for("its turn");
        let turn = turns.next(&self.wanted.clone()).await;
        self.wait_for("its directories");
        let there = turn.take(self.recover(runs)).await;
        self.waits_no_more();
        there
    }

    async fn recover(&mut self, runs: Vec<RunRecord>) -> bool {
        self.clean_directories().await;
        if let Err(error) = self.look_at_history().await {
            tracing::error!(workspace = %self.record.id, %error, "the history cannot be read");
        }
        self.find_runs(runs);
        self.lose_runs_of_a_gone_guest().await;
        if let Some(intent) = self.record.intent.clone() {
            tracing::info!(workspace = %self.record.id, operation = intent.operation.word(), step = intent.step, "going on");
            // Its guest may run: what a later step needs, an earlier one of this life has to find.
            if let Some(again) = restarted_at(&intent) {
                self.record.intent = Some(Intent { step: again, ..intent.clone() });
            }
            self.publish();
            let gone = matches!(intent.operation, Operation::Destroy { .. });
            if self.go_on(&Say::default()).await.is_ok() && gone {
                return false;
            }
        }
        if self.record.rest == Rest::Ready && self.pool.is_none() && self.record.intent.is_none() {
            let operation = self.way_to_run_again().await;
            if let Err(error) = self.operate(operation, &Say::default()).await {
                tracing::warn!(workspace = %self.record.id, %error, "a guest was not found again");
            }
        }
        self.watch_found_runs().await;
        if self.record.intent.is_none() && self.record.problem.is_none() {
            self.forget_superseded().await;
        }
        true
    }

    /// What a killed write left behind.
    async fn clean_directories(&self) {
        let host = self.places.host();
        let _none = tokio::task::spawn_blocking(move || {
            for entry in std::fs::read_dir(host).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().ends_with(".new") {
                    drop(std::fs::remove_file(entry.path()));
                }
            }
        })
        .await;
    }

    pub(super) async fn checkpoint(
        &mut self,
        cause: Cause,
        activity: Activity,
    ) -> Result<(CheckpointView, bool, Notes), Error> {
        self.needs_history()?;
        if let Some(label) = &cause.label
            && let Ok(there) = self.timeline.resolve(label.clone()).await
        {
            let short: String = there.to_string().chars().take(10).collect();
            return Err(Error::new(Kind::LabelTaken, format!("{label} is checkpoint {short} already"))
                .hint("vcodingctl checkpoint -m ANOTHER-NAME"));
        }
        self.doings.recorded();
        let made = self.timeline.checkpoint(cause, activity).await.map_err(|e| {
            self.doings.unknown();
            failure::of_timeline(&e)
        })?;
        self.remarks.clone_from(&made.2);
        self.look_at_history().await?;
        Ok(made)
    }

    pub(super) fn history_is_gone(&self, kind: Kind) -> Error {
        let (name, tree) = (&self.record.name, self.places.tree());
        let message =
            format!("the history of workspace {name} is gone; its work tree was left alone: {}", tree.display());
        Error::new(kind, message)
            .hint("copy from there what you need; then vcodingctl destroy --force, and vcodingctl up")
    }

    fn needs_history(&self) -> Result<(), Error> {
        if self.ends.base.is_some() && self.timeline.is_there() {
            return Ok(());
        }
        if self.record.rest != Rest::New {
            return Err(self.history_is_gone(Kind::Internal));
        }
        Err(Error::new(Kind::WorkspaceNotRunning, format!("workspace {} has no work tree yet", self.record.name))
            .hint("vcodingctl up"))
    }

    async fn diff(&mut self, from: Option<String>, to: Option<String>, paths: Vec<Bytes>) -> Result<DiffResult, Error> {
        self.needs_history()?;
        let mut found = Notes::default();
        let to = match to {
            Some(name) => name,
            None => {
                found = self.checkpoint(Cause::of("diff"), Activity::Running).await?.2;
                "@".into()
            }
        };
        let resolve = async |name: String| self.timeline.resolve(name).await.map_err(|e| failure::of_timeline(&e));
        let from = resolve(from.unwrap_or_else(|| "base".into())).await?;
        let to = resolve(to).await?;
        self.propose(from, to).await?;
        let diff = self.timeline.diff(from, to, paths).await.map_err(|e| failure::of_timeline(&e))?;
        Ok(DiffResult { notes: remarks::lines(&found), asides: remarks::asides(&found), ..diff })
    }

    async fn rollback(
        &mut self,
        to: String,
        paths: Vec<Bytes>,
        clean: bool,
        force: bool,
    ) -> Result<RollbackResult, Error> {
        self.needs_history()?;
        if !force {
            self.needs_no_runs()?;
        }
        // Named before the checkpoint that is taken on the way: `@` is what the caller saw as newest.
        let target = self.timeline.resolve(to).await.map_err(|e| failure::of_timeline(&e))?;
        if !paths.is_empty() {
            self.checkpoint(Cause::of("before-rollback"), Activity::Running).await?;
            let missing = self.timeline.missing(target, paths.clone()).await.map_err(|e| failure::of_timeline(&e))?;
            if let Some(path) = missing {
                let message = format!("neither that checkpoint nor the work tree has {}", path.to_text());
                return Err(Error::new(Kind::PathNotFound, message).hint("vcodingctl diff --stat"));
            }
        }
        let operation = Operation::Rollback { to: target.to_string(), before: None, paths, clean };
        let told = self.operate(operation, &Say::default()).await?;
        match (told.rolled_back, told.before) {
            (Some(checkpoint), Some(before)) => {
                let notes = told.notes.into_iter().chain(remarks::lines(&self.remarks)).collect();
                let asides = remarks::asides(&self.remarks);
                Ok(RollbackResult { checkpoint, target: target.to_string(), before, notes, asides })
            }
            _ => Err(Error::new(Kind::Internal, "a rollback ended without its checkpoint")),
        }
    }

    async fn apply(&mut self, branch: Option<String>, force: bool) -> Result<ApplyResult, Error> {
        self.needs_history()?;
        if !force {
            self.needs_no_runs()?;
        }
        let (_, _, found) = self.checkpoint(Cause::of("apply"), Activity::Running).await?;
        let branch = branch.unwrap_or_else(|| format!("vcoding/{}", self.record.name));
        let told = self.operate(Operation::Apply { branch }, &Say::default()).await?;
        let applied = told.applied.ok_or_else(|| Error::new(Kind::Internal, "an apply ended without its branch"))?;
        let notes = applied.notes.into_iter().chain(remarks::lines(&found)).collect();
        Ok(ApplyResult { notes, ..applied })
    }

    /// Reads the ends of the history again.
    pub(super) async fn look_at_history(&mut self) -> Result<(), Error> {
        if !self.timeline.is_there() {
            self.ends = Ends::default();
            self.publish();
            return Ok(());
        }
        self.ends = self.timeline.ends().await.map_err(|e| failure::of_timeline(&e))?;
        self.publish();
        Ok(())
    }

    /// The record, durable in the store and beside the history.
    pub(super) async fn save(&mut self) -> Result<(), Error> {
        self.record.revision += 1;
        let (record, host) = (self.record.clone(), self.places.host());
        super::steps::blocking(move || {
            if !host.is_dir() {
                // Before the first step made the directories there is only the store, and after the last step of a destroy.
                let ending =
                    matches!(&record.intent, Some(Intent { operation: Operation::Destroy { .. }, step }) if *step > 0);
                if record.rest == Rest::New || ending {
                    return Ok(());
                }
                // Deleted behind our back; without a record there its container is nobody's.
                std::fs::create_dir_all(&host).map_err(|e| failure::of_file(&host, &e))?;
            }
            record.write_copy(&host)
        })
        .await?;
        self.shared.workspaces.put(&self.record).await.map_err(|e| failure::of_store(&e))
    }

    /// Tells everybody what it is at from now on.
    pub(super) fn wait_for(&mut self, what: &str) {
        self.waiting = Some(Waiting { what: what.to_owned(), since: Timestamp::now() });
        self.publish();
    }

    pub(super) fn waits_no_more(&mut self) {
        self.waiting = None;
        self.publish();
    }

    /// Tells everybody how it is now.
    pub(super) fn publish(&self) {
        let view = view_of(&self.record, &self.ends, self.runs.count(), self.pool.is_some(), self.waiting.clone());
        let view = WorkspaceView { warning: self.warning.clone(), ..view };
        self.published.send_replace(Arc::new(Snapshot {
            pool: self.pool.clone(),
            wall: self.wall.clone(),
            init: self.walls.as_ref().map(|walls| walls.init),
            ..snapshot_of(&self.record, view)
        }));
    }
}

enum Next {
    Look,
    /// The disk has become fuller.
    Count(Fill),
    Counted(Result<(Fill, Option<Taken>), tokio::task::JoinError>),
    Command(Command),
    Over(Result<Over, tokio::task::JoinError>),
}

/// Steps that lean on what an earlier one kept in memory, or on an image that somebody may have removed meanwhile, begin again there.
fn restarted_at(intent: &Intent) -> Option<usize> {
    let at = |step| intent.operation.steps().iter().position(|s| *s == step);
    let first = at(machine::Step::Image).or(at(machine::Step::Files))?;
    (intent.step > first).then_some(first)
}

/// A caller that is gone misses its answer.
fn answer<T>(reply: Reply<T>, result: Result<T, Error>) {
    drop(reply.send(result));
}

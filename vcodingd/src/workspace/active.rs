//! Runs of a workspace: begun in order, watched by a task each, ended in order.
//!
//! A run belongs to the guest; the daemon only looks. What is needed to look again after the
//! daemon's end (state, the token's fingerprint, what was used) is in the run's record before the
//! agent is started.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use guest::run::End;
use protocol::run::{RunStartParams, RunState, RunView};
use protocol::{Error, Kind, RunId, Timestamp};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::actor::Actor;
use super::points::Side;
use super::record::MODEL_PORT;
use super::relay::Relay;
use super::{Say, failure};
use crate::agents::{self, Format};
use crate::egress::{self, Gate, Token, Usage};
use crate::exec;
use crate::provider::GuestState;
use crate::runs::{self, Admission, Facts, Log, RunEnding, RunRecord, TailError, Work};
use crate::seldom::Seldom;
use crate::timeline::{Activity, Cause};

/// Runs of one workspace at a time.
const MOST: usize = 16;
/// The exec that starts a run has to come back within this.
const START: Duration = Duration::from_secs(60);
/// A cancelled run ends within its supervisor's own deadlines (some 8 s); past this it is ended
/// from outside.
const CANCEL: Duration = Duration::from_secs(25);
/// Until a supervisor has been told; one that is not is not waited for.
const TELL: Duration = Duration::from_secs(10);
/// And how long after every process was ended.
const SWEPT: Duration = Duration::from_secs(10);
/// Between two tries to read a run's output.
const RETRY: Duration = Duration::from_secs(5);

/// A run that is live, for whoever looks at it.
#[derive(Debug, Clone)]
pub struct RunEntry {
    pub log: Log,
    pub record: watch::Receiver<RunRecord>,
}

/// The live runs of all workspaces.
#[derive(Debug, Clone, Default)]
pub struct KnownRuns(Arc<Mutex<HashMap<RunId, RunEntry>>>);

impl KnownRuns {
    pub fn get(&self, id: &RunId) -> Option<RunEntry> {
        self.lock().get(id).cloned()
    }

    fn insert(&self, id: RunId, entry: RunEntry) {
        self.lock().insert(id, entry);
    }

    fn remove(&self, id: &RunId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<RunId, RunEntry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run is over, or no longer watched.
#[derive(Debug)]
pub(super) struct Over {
    run: RunId,
    end: Result<End, TailError>,
}

#[derive(Debug)]
struct Active {
    record: watch::Sender<RunRecord>,
    log: Log,
    /// Ends the watching, not the run.
    stop: CancellationToken,
}

/// One workspace's live runs, its gate to the model, and the way there.
#[derive(Debug)]
pub(super) struct ActiveRuns {
    live: HashMap<RunId, Active>,
    pub(super) gate: Gate,
    pub(super) forward: Option<Relay>,
}

/// An agent that is there, and what it is asked: everything that can be known before the
/// workspace's turn.
#[derive(Debug)]
pub struct Prepared {
    pub params: RunStartParams,
    pub agent: Option<PreparedAgent>,
}

#[derive(Debug)]
pub struct PreparedAgent {
    pub manifest: agents::Manifest,
    pub installed: agents::Installed,
    pub endpoint: egress::Endpoint,
    /// The session to go on with.
    pub resume: Option<String>,
}

impl ActiveRuns {
    pub(super) fn new() -> Self {
        Self { live: HashMap::new(), gate: Gate::new(), forward: None }
    }

    pub(super) fn any(&self) -> bool {
        !self.live.is_empty()
    }

    /// The run that began last, and its title.
    pub(super) fn newest(&self) -> Option<(RunId, String)> {
        let newest = self.live.iter().max_by_key(|(id, _)| *id)?;
        Some((newest.0.clone(), newest.1.record.borrow().title.clone()))
    }

    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.live.len()).unwrap_or(u32::MAX)
    }

    /// The runs go on; nobody looks any more.
    pub(super) fn stop_watching(&self) {
        for active in self.live.values() {
            active.stop.cancel();
        }
    }
}

impl Actor {
    pub(super) async fn run_start(&mut self, prepared: Prepared, say: &Say) -> Result<RunView, Error> {
        let Some(pool) = self.pool.clone() else {
            return Err(Error::new(Kind::WorkspaceNotRunning, format!("workspace {} does not run", self.record.name))
                .hint("vcodingctl start"));
        };
        if self.runs.live.len() >= MOST {
            return Err(Error::new(
                Kind::WorkspaceBusy,
                format!("workspace {} has {MOST} runs already", self.record.name),
            )
            .hint("vcodingctl runs"));
        }
        let id = new_run_id()?;
        let (before, _, _) =
            self.checkpoint(Cause { word: "run-start", label: None, run: Some(id.clone()) }, Activity::Running).await?;
        let Prepared { params, agent } = prepared;
        let mut record = self.new_run(&id, &params, agent.as_ref());
        record.before = Some(before.id);
        // Before anything is opened for it: a full disk then leaves nothing behind.
        if let Some(prompt) = params.prompt.clone() {
            let dir = self.places.run_host(&id);
            super::steps::blocking(move || runs::write_prompt(&dir, &prompt).map_err(|e| failure::of_file(&dir, &e)))
                .await?;
        }
        let start = match agent {
            Some(agent) => {
                let token = self
                    .runs
                    .gate
                    .admit(&id, agent.endpoint.clone(), params.max_requests)
                    .map_err(|e| Error::new(Kind::Internal, format!("no token for the run: {e}")))?;
                record.admission = Some(Admission {
                    fingerprint: token.fingerprint(),
                    max_requests: params.max_requests,
                    usage: Usage::default(),
                });
                self.open_forward();
                let launch = launch(&params, &agent, &token, &id);
                record.session = Some(launch.session);
                // What the agent's way to its model needs is not a repository's to change.
                let ours: Vec<_> = launch.env.iter().filter_map(|line| line.split(|b| *b == b'=').next()).collect();
                let mut env = self.run_env(|name| !ours.contains(&name));
                env.extend(launch.env.iter().cloned());
                runs::Start {
                    argv: launch.argv,
                    env,
                    stdin: launch.stdin,
                    directory: Vec::new(),
                    timeout: params.timeout_ms.map(Duration::from_millis),
                }
            }
            None => runs::Start {
                argv: params.argv.iter().map(|a| a.0.clone()).collect(),
                env: self.run_env(|_| true),
                timeout: params.timeout_ms.map(Duration::from_millis),
                ..runs::Start::default()
            },
        };
        self.shared.points.pass("run", "record", Side::Before).await;
        self.save_run(&record).await?;
        self.shared.points.pass("run", "record", Side::After).await;
        self.shared.points.pass("run", "start", Side::Before).await;
        say.say("agent", protocol::workspace::StepState::Started, None, None).await;
        let started = exec::captured(&pool, runs::start_frame(&id, start), Vec::new(), 64 << 10, START).await;
        let refusal = match started {
            Ok(answer) if answer.status == 0 => None,
            Ok(answer) => {
                let said = String::from_utf8_lossy(&answer.stderr).trim().chars().take(500).collect::<String>();
                Some((answer.status, said))
            }
            // It may have begun: then it is PID 1's and goes on, and its directory tells how.
            Err(error) if error.has_started() => {
                tracing::warn!(run = %id, %error, "whether a run began is not known; it is looked for");
                None
            }
            Err(error) => Some((125, failure::chain(&error))),
        };
        self.shared.points.pass("run", "start", Side::After).await;
        if let Some((status, said)) = refusal {
            self.runs.gate.revoke(&id);
            record.state = RunState::Failed;
            record.status = Some(status);
            record.exit = Some(status);
            record.ended = Some(Timestamp::now());
            record.problem = Some(format!("it did not start: {said}"));
            self.save_run(&record).await?;
            self.close_forward_if_idle().await;
            return Ok(record.view());
        }
        record.state = RunState::Running;
        self.save_run(&record).await?;
        self.watch(record.clone())?;
        self.publish();
        Ok(record.view())
    }

    /// The project's variables for its runs, as `NAME=VALUE`.
    fn run_env(&self, allowed: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let variables = self.record.run.env.iter().filter(|(name, _)| allowed(name.as_bytes()));
        variables.map(|(name, value)| format!("{name}={value}").into_bytes()).collect()
    }

    fn new_run(&self, id: &RunId, params: &RunStartParams, agent: Option<&PreparedAgent>) -> RunRecord {
        RunRecord {
            id: id.clone(),
            workspace: self.record.id.clone(),
            workspace_name: self.record.name.clone(),
            agent: agent.map(|a| a.manifest.name.clone()),
            title: match &params.prompt {
                Some(prompt) => runs::title_of_prompt(prompt),
                None => runs::title_of_command(&params.argv),
            },
            argv: params.argv.clone(),
            format: agent.map_or(Format::Plain, |a| a.manifest.output),
            timeout_ms: params.timeout_ms,
            state: RunState::Starting,
            cancelled: false,
            started: Timestamp::now(),
            ended: None,
            status: None,
            exit: None,
            before: None,
            after: None,
            cost_usd: None,
            session: None,
            problem: None,
            admission: None,
            memory_limit: None,
        }
    }

    /// Looks at a run from now on.
    fn watch(&mut self, record: RunRecord) -> Result<(), Error> {
        let id = record.id.clone();
        let log = Log::open(&self.places.run_host(&id)).map_err(|e| failure::of_log(&e))?;
        let (sender, receiver) = watch::channel(record);
        let stop = CancellationToken::new();
        self.shared.known_runs.insert(id.clone(), RunEntry { log: log.clone(), record: receiver });
        let (run_dir, run, tailed, stopped) = (self.places.run(), id.clone(), log.clone(), stop.clone());
        self.watching.spawn(async move {
            let seldom = Seldom::default();
            loop {
                let end = runs::tail(&run_dir, &run, &tailed, stopped.clone()).await;
                match end {
                    // A full disk, say: the guest keeps what is not read, and waits.
                    Err(error @ (TailError::Log(_) | TailError::Read { .. } | TailError::Directory(_))) => {
                        if let Some(kept_back) = seldom.may_say("a run's output") {
                            tracing::warn!(%run, %error, kept_back, "a run's output cannot be read now");
                        }
                    }
                    end => return Over { run, end },
                }
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => {}
                    () = stopped.cancelled() => return Over { run, end: Err(TailError::Stopped) },
                }
            }
        });
        self.runs.live.insert(id, Active { record: sender, log, stop });
        Ok(())
    }

    /// What is to be done when a run has ended.
    pub(super) async fn run_over(&mut self, over: Over) {
        let Over { run, end } = over;
        if matches!(end, Err(TailError::Stopped | TailError::Busy)) {
            return;
        }
        let Some(active) = self.runs.live.get(&run) else { return };
        let (log, mut record) = (active.log.clone(), active.record.borrow().clone());
        if let Err(error) = &end {
            tracing::warn!(%run, %error, "a run was lost");
            if log.finished().is_none()
                && let Some(writer) = log.writer()
                && let Err(error) = writer.finish(None)
            {
                tracing::error!(%run, %error, "a lost run's log could not be closed");
            }
        }
        // What it did to its record it may go on doing to the work tree.
        if matches!(end, Err(TailError::Tampered { .. }))
            && let Err(error) = self.sweep().await
        {
            tracing::warn!(%run, %error, "the processes of a run that forged its record were not ended");
        }
        match self.checkpoint(Cause { word: "run", label: None, run: Some(run.clone()) }, Activity::RunEnded).await {
            Ok((after, _, _)) => record.after = Some(after.id),
            Err(error) => tracing::error!(%run, %error, "no checkpoint after a run"),
        }
        let usage = self.runs.gate.revoke(&run).unwrap_or_default();
        let mut verdict = match runs::verdict(&log, record.format).await {
            Ok(verdict) => verdict,
            Err(error) => {
                tracing::error!(%run, %error, "a run's log cannot be read");
                agents::Verdict::default()
            }
        };
        // What the host saw at the endpoint counts where the agent says nothing.
        verdict.endpoint_failed |= verdict.finished != Some(true) && usage.failure.is_some();
        let why;
        let ending = match &end {
            Ok(end) => RunEnding::Recorded(end),
            Err(TailError::Tampered { what }) => RunEnding::Tampered(what),
            Err(TailError::Missing { .. }) => RunEnding::Missing,
            Err(error) => {
                why = error.to_string();
                RunEnding::Unreadable(&why)
            }
        };
        let work = if record.agent.is_some() { Work::Agent(&verdict) } else { Work::Command };
        let memory_limit = self.memory_limit_hit(&end).await;
        let facts =
            Facts { ending, work, cancelled: record.cancelled, over_budget: usage.budget_exceeded, memory_limit };
        let outcome = runs::outcome(&facts);
        if let (Some(admission), true) = (&mut record.admission, usage != Usage::default()) {
            admission.usage = usage;
        }
        let session = record.session.take();
        record.end(outcome, &verdict, Timestamp::now());
        record.session = record.session.or(session);
        if record.state == RunState::Endpoint
            && let Some(failure) = usage.failure
        {
            record.problem = Some(format!("the model endpoint {failure}"));
        }
        self.shared.points.pass("run", "end", Side::Before).await;
        if let Err(error) = self.save_run(&record).await {
            tracing::error!(%run, %error, "a run's end was not written");
        }
        self.shared.points.pass("run", "end", Side::After).await;
        let (run_dir, cleared) = (self.places.run(), run.clone());
        let clearing = tokio::task::spawn_blocking(move || runs::clear(&run_dir, &cleared)).await;
        if let Ok(Err(error)) = clearing {
            tracing::warn!(%run, %error, "a run's directory was not cleared");
        }
        let active = self.runs.live.remove(&run);
        self.close_forward_if_idle().await;
        self.publish();
        // Last, and in this order: who is told of the end finds it wherever it looks, and who finds
        // the run no longer live finds its end in the store.
        if let Some(active) = active {
            active.record.send_replace(record);
        }
        self.shared.known_runs.remove(&run);
    }

    /// The guest's memory limit, if a run ended so for it.
    async fn memory_limit_hit(&self, end: &Result<End, TailError>) -> Option<u64> {
        let provider = &self.shared.provider;
        let hit = match end {
            Ok(end) if end.status() == runs::KILLED => {
                self.walls.as_ref().is_some_and(|walls| self.memory_kills.more(&**provider, walls.init))
            }
            Err(TailError::Missing { .. }) => {
                let guest = provider.inspect(&self.record.id).await.ok().flatten();
                guest.is_some_and(|guest| matches!(guest.state, GuestState::Exited { out_of_memory: true, .. }))
            }
            _ => false,
        };
        hit.then_some(self.record.limits.memory)
    }

    pub(super) async fn run_cancel(&mut self, run: &RunId) -> Result<(), Error> {
        let Some(active) = self.runs.live.get(run) else { return Ok(()) };
        let mut record = active.record.borrow().clone();
        record.cancelled = true;
        active.record.send_replace(record.clone());
        self.save_run(&record).await?;
        if let Some(pool) = self.pool.clone() {
            let told = exec::captured_afresh(&pool, runs::cancel_frame(run), 4096, TELL).await;
            match told {
                Ok(answer) if answer.status == 0 => {}
                Ok(answer) => tracing::warn!(%run, status = answer.status, "a run's supervisor was not told"),
                Err(error) => tracing::warn!(%run, %error, "a run's supervisor was not told"),
            }
        }
        Ok(())
    }

    /// The last resort for a run that cannot be ended by its supervisor, which the guest may have
    /// stopped: every process of the guest ends, and PID 1 writes the run's end.
    pub(super) async fn sweep(&mut self) -> Result<(), Error> {
        tracing::warn!(workspace = %self.record.id, "every process of the guest is ended");
        self.shared.provider.sweep(&self.record.id).await.map_err(|e| failure::of_provider(&e))
    }

    /// Ends every run, and waits for that; one that does not end is given up: the guest is
    /// stopped next.
    pub(super) async fn end_runs(&mut self) {
        let live: Vec<RunId> = self.runs.live.keys().cloned().collect();
        for run in &live {
            if let Err(error) = self.run_cancel(run).await {
                tracing::warn!(%run, %error, "a run was not cancelled");
            }
        }
        if !self.runs_end_within(CANCEL).await {
            match self.sweep().await {
                Ok(()) => drop(self.runs_end_within(SWEPT).await),
                Err(error) => tracing::warn!(%error, "the guest's processes were not ended"),
            }
        }
        self.lose_runs().await;
    }

    /// Whether every run has ended by then.
    async fn runs_end_within(&mut self, limit: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + limit;
        while self.runs.any() {
            match tokio::time::timeout_at(deadline, self.watching.join_next()).await {
                Ok(Some(Ok(over))) => self.run_over(over).await,
                Ok(Some(Err(error))) => tracing::error!(%error, "the task that watched a run broke off"),
                Ok(None) | Err(_) => return false,
            }
        }
        true
    }

    /// A run whose guest is gone, or that would not end: nobody will write its end any more.
    async fn lose_runs(&mut self) {
        self.runs.stop_watching();
        while let Some(ended) = self.watching.join_next().await {
            // One that came to its end meanwhile has one.
            if let Ok(over @ Over { end: Ok(_), .. }) = ended {
                self.run_over(over).await;
            }
        }
        let left: Vec<RunId> = self.runs.live.keys().cloned().collect();
        for run in left {
            let Some(log) = self.runs.live.get(&run).map(|active| active.log.clone()) else { continue };
            // What it wrote to its last moment is there all the same.
            let end = match runs::drain(&self.places.run(), &run, &log).await {
                Ok(Some(end)) => Ok(end),
                Ok(None) => {
                    let path = self.places.run().join(guest::places::RUNS).join(run.as_str());
                    Err(TailError::Missing { path })
                }
                Err(error) => Err(error),
            };
            self.run_over(Over { run, end }).await;
        }
    }

    /// Only where the engine says that the guest does not run: an engine that does not answer
    /// says nothing about the runs.
    pub(super) async fn lose_runs_of_a_gone_guest(&mut self) {
        if !self.runs.any() {
            return;
        }
        let gone = match &self.walls {
            // The same init, or another life of the guest.
            Some(walls) => match self.shared.provider.init_process(&self.record.id).await {
                Ok(init) => init != walls.init,
                Err(crate::provider::Error::NotRunning { .. } | crate::provider::Error::NoSuchGuest { .. }) => true,
                Err(_) => false,
            },
            None => matches!(self.guest_runs().await, Ok(false)),
        };
        if gone {
            self.lose_runs().await;
        }
    }

    /// After the daemon's start: the runs that an earlier one left live. Their tokens hold again
    /// before the guest's requests are taken.
    pub(super) fn find_runs(&mut self, records: Vec<RunRecord>) {
        for record in records {
            if let Some(admission) = &record.admission {
                match super::agent::endpoint_of_agent(&self.shared, record.agent.as_deref().unwrap_or_default()) {
                    Ok(endpoint) => self.runs.gate.restore(
                        &record.id,
                        admission.fingerprint,
                        endpoint,
                        admission.max_requests,
                        &admission.usage,
                    ),
                    Err(error) => tracing::warn!(run = %record.id, %error, "a run has no endpoint any more"),
                }
            }
            let id = record.id.clone();
            if let Err(error) = self.watch(RunRecord { state: RunState::Running, ..record }) {
                tracing::error!(run = %id, %error, "a run cannot be watched");
            }
        }
    }

    /// Once the guest answers again, its model requests do too.
    pub(super) async fn watch_found_runs(&mut self) {
        let needs = self.runs.live.values().any(|a| a.record.borrow().admission.is_some());
        if needs {
            self.open_forward();
        }
    }

    async fn save_run(&self, record: &RunRecord) -> Result<(), Error> {
        let (copy, dir) = (record.clone(), self.places.run_host(&record.id));
        super::steps::blocking(move || {
            copy.write_copy(&dir)
                .map_err(|e| Error::new(failure::full_or_internal(&e), failure::chain(&e)).hint("df -h"))
        })
        .await?;
        self.shared.runs.put(record).await.map_err(|e| failure::of_store(&e))
    }
}

fn launch(params: &RunStartParams, agent: &PreparedAgent, token: &Token, run: &RunId) -> agents::Launch {
    let session = match &agent.resume {
        Some(session) => agents::Session::Resume(session),
        None => agents::Session::New(run),
    };
    let request = agents::LaunchRequest {
        prompt: params.prompt.as_deref().unwrap_or_default(),
        model: params.model.as_deref(),
        session,
        model_port: MODEL_PORT,
        token: token.expose(),
    };
    agents::launch(&agent.manifest, &agent.installed, &request)
}

fn new_run_id() -> Result<RunId, Error> {
    ulid::Ulid::new()
        .to_string()
        .to_lowercase()
        .parse()
        .map_err(|e: protocol::names::InvalidName| Error::new(Kind::Internal, e.to_string()))
}

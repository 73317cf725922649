//! What callers ask of runs: start, list, look at, follow, end. By a run's id alone, whichever workspace it is in.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use guest::run::Stream;
use protocol::run::{RunItem, RunOutput, RunOutputPart, RunReport, RunStartParams, RunSubscribeParams, RunView};
use protocol::{Bytes, Error, Kind, RunId, Timestamp, WorkspaceRef};

use super::record::Places;
use super::registry::Registry;
use super::{Say, failure};
use crate::agents::{self, Libc};
use crate::runs::{self, Log, Origin, RunRecord};

/// A cancelled run ends within its supervisor's own deadlines (some 18 s).
const CANCEL: std::time::Duration = std::time::Duration::from_secs(25);
/// One whose supervisor does not get to it ends when every process of the guest is ended.
const SWEPT: std::time::Duration = std::time::Duration::from_secs(15);

impl Registry {
    /// Starts a run.
    ///
    /// # Errors
    /// What is missing for it: the workspace, the agent, its key, its program.
    pub async fn run_start(&self, params: RunStartParams, say: Say) -> Result<RunView, Error> {
        let handle = self.find(&params.workspace)?;
        // A guest that is just being started is waited for; one that is not there is said at once.
        handle.pool().await?;
        let snapshot = handle.snapshot();
        let libc = if snapshot.musl { Libc::Musl } else { Libc::Gnu };
        let model = |agent: &str| snapshot.models.get(agent).cloned();
        let params = RunStartParams {
            // A prompt without an agent is for the one that vcoding.toml names.
            agent: params.agent.or_else(|| params.prompt.as_ref().map(|_| snapshot.default_agent.clone())),
            timeout_ms: params.timeout_ms.or(snapshot.run.timeout_ms),
            max_requests: params.max_requests.or(snapshot.run.max_requests),
            ..params
        };
        let prepared = super::agent::prepare(&self.shared, params, libc, model, &say).await?;
        handle.run_start(prepared, say).await
    }

    /// Runs, newest first.
    ///
    /// # Errors
    /// If the store cannot be read, or the workspace is not found.
    pub fn runs(&self, of: Option<&WorkspaceRef>) -> Result<Vec<RunView>, Error> {
        let of = of.map(|reference| self.find(reference)).transpose()?.map(|h| h.snapshot().view.id.clone());
        let records = self.shared.runs.list().map_err(|e| failure::of_store(&e))?;
        let mut views: Vec<RunView> = records
            .into_iter()
            .filter_map(|record| match record {
                Ok(record) => Some(record),
                Err(error) => {
                    tracing::error!(%error, "a run's record cannot be read");
                    None
                }
            })
            .filter(|record| of.as_ref().is_none_or(|id| *id == record.workspace))
            .map(|record| record.view())
            .collect();
        // Ulids sort by time.
        views.sort_by(|a, b| b.id.cmp(&a.id));
        Ok(views)
    }

    /// One run.
    ///
    /// # Errors
    /// [`Kind::RunNotFound`].
    pub fn run(&self, id: &RunId) -> Result<RunView, Error> {
        if let Some(live) = self.shared.known_runs.get(id) {
            return Ok(live.record.borrow().view());
        }
        Ok(self.run_record(id)?.view())
    }

    fn run_record(&self, id: &RunId) -> Result<RunRecord, Error> {
        let record = self.shared.runs.get(id.as_str()).map_err(|e| failure::of_store(&e))?;
        record.ok_or_else(|| Error::new(Kind::RunNotFound, format!("there is no run {id}")).hint("vcodingctl runs"))
    }

    /// One run with what it was asked and what it did to the work tree.
    ///
    /// # Errors
    /// [`Kind::RunNotFound`]; a history that cannot be read.
    pub async fn run_report(&self, id: &RunId) -> Result<RunReport, Error> {
        /// Checkpoints that are looked through for those of the run.
        const MOST: usize = 1000;
        let run = self.run(id)?;
        let dir = Places::of(&self.shared.state_dir, &run.workspace).run_host(id);
        let prompt = super::steps::blocking(move || Ok(runs::read_prompt(&dir))).await?;
        let handle = match self.find(&WorkspaceRef::Name(run.workspace.to_string())) {
            Ok(handle) => handle,
            Err(error) if error.kind() == Kind::WorkspaceNotFound => {
                return Ok(RunReport { run, prompt, changes: None, checkpoints: Vec::new() });
            }
            Err(error) => return Err(error),
        };
        // A run that is over without a checkpoint at its end: what is there now is not only its own.
        let known = run.before.is_some() && (run.after.is_some() || !run.state.is_over());
        let changes = match known {
            true => handle.diff(run.before.clone(), run.after.clone(), Vec::new()).await.map(Some),
            false => Ok(None),
        };
        // Newest first: from its end to its start. Where the history is gone its events are there still.
        let (changes, all) = match (changes, handle.checkpoints(MOST).await) {
            (Ok(changes), Ok(all)) => (changes, all),
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(run = %id, %error, "a report without its changes");
                (None, Vec::new())
            }
        };
        let from = run.after.as_ref().and_then(|after| all.iter().position(|c| c.id == *after)).unwrap_or(0);
        let to = run.before.as_ref().and_then(|before| all.iter().position(|c| c.id == *before));
        let mut checkpoints = match to {
            Some(to) if known => all.get(from..=to).unwrap_or_default().to_vec(),
            _ => Vec::new(),
        };
        checkpoints.reverse();
        Ok(RunReport { run, prompt, changes, checkpoints })
    }

    /// Ends a run with its whole tree; returns when it has ended.
    ///
    /// # Errors
    /// [`Kind::RunNotFound`].
    pub async fn run_cancel(&self, id: &RunId) -> Result<RunView, Error> {
        let record = self.run_record(id)?;
        if record.state.is_over() {
            return Ok(record.view());
        }
        let handle = self.find(&WorkspaceRef::Name(record.workspace.to_string()))?;
        handle.run_cancel(id.clone()).await?;
        if let Some(mut live) = self.shared.known_runs.get(id) {
            // Ends with the run: its record's last change is its end.
            let over = live.record.wait_for(|record| record.state.is_over());
            let mut ended = tokio::time::timeout(CANCEL, over).await.is_ok();
            if !ended {
                handle.sweep().await?;
                let over = live.record.wait_for(|record| record.state.is_over());
                ended = tokio::time::timeout(SWEPT, over).await.is_ok();
            }
            if !ended {
                return Err(Error::new(Kind::TimedOut, format!("run {id} has not ended yet"))
                    .hint("vcodingctl stop ends the guest with everything in it"));
            }
        }
        self.run(id)
    }

    /// A run's events, or its output as it was written, then its record.
    ///
    /// # Errors
    /// [`Kind::RunNotFound`]; a log that cannot be read.
    pub async fn follow(&self, params: &RunSubscribeParams) -> Result<BoxStream<'static, RunItem>, Error> {
        let RunSubscribeParams { run: id, from, once, raw, bytes } = params;
        let record = self.run_record(id)?;
        let mut live = self.shared.known_runs.get(id);
        if live.is_none() && !record.state.is_over() {
            // A daemon that has just begun is still looking for it.
            self.find(&WorkspaceRef::Name(record.workspace.to_string()))?.turn().await?;
            live = self.shared.known_runs.get(id);
        }
        // It may have ended meanwhile.
        let record = self.run_record(id)?;
        let log = match &live {
            Some(live) => live.log.clone(),
            None => {
                let dir = Places::of(&self.shared.state_dir, &record.workspace).run_host(id);
                if !dir.is_dir() {
                    let why = format!("the events of run {id} are gone with workspace {}", record.workspace_name);
                    return Err(Error::new(Kind::RunNotFound, why).hint("vcodingctl runs"));
                }
                super::steps::blocking(move || Log::open(&dir).map_err(|e| failure::of_log(&e))).await?
            }
        };
        let origin = Origin { workspace: record.workspace.clone(), run: id.clone() };
        // A run that never started has a log that nobody finishes.
        let once = *once || (live.is_none() && record.state.is_over());
        let format = if *raw { agents::Format::Plain } else { record.format };
        let events = if *bytes {
            runs::output(&log, *from, once).map(|piece| piece.map(|piece| RunItem::Output(output_view(piece)))).boxed()
        } else {
            let events = runs::subscribe(&log, format, origin, *from, once);
            events.map(|event| event.map(|event| RunItem::Event(Box::new(event)))).boxed()
        };
        let events = events.filter_map(async |item| match item {
            Ok(item) => Some(item),
            Err(error) => {
                tracing::error!(%error, "a run's log cannot be read");
                None
            }
        });
        let last = async move {
            let view = match live {
                Some(mut live) => {
                    if !once {
                        // The end is recorded a moment after the last line.
                        let _ended_or_shut_down = live.record.wait_for(|record| record.state.is_over()).await;
                    }
                    live.record.borrow().view()
                }
                None => record.view(),
            };
            RunItem::End(Box::new(view))
        };
        Ok(events.chain(futures_util::stream::once(last)).boxed())
    }
}

fn output_view(piece: runs::Output) -> RunOutput {
    let part = |part| match part {
        runs::Part::Bytes { stream: Stream::Out, bytes } => RunOutputPart::Stdout(Bytes(bytes)),
        runs::Part::Bytes { stream: Stream::Err, bytes } => RunOutputPart::Stderr(Bytes(bytes)),
        runs::Part::Dropped { bytes } => RunOutputPart::Dropped(bytes),
    };
    let runs::Output { from, next, time_ms, parts } = piece;
    let time = Timestamp::from_unix_ms(time_ms);
    RunOutput { seq: from, next, time, parts: parts.into_iter().map(part).collect() }
}

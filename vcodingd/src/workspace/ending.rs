//! Stop and destroy, and what has to be so before.

use protocol::{Error, Kind};

use super::actor::Actor;
use super::machine::Operation;
use super::record::Rest;
use super::{Say, failure};
use crate::timeline::{Activity, Cause, remarks};

/// Files of unapplied work that an error names.
const LISTED: usize = 100;

impl Actor {
    /// Refuses while runs are under way, and names the newest.
    pub(super) fn needs_no_runs(&self) -> Result<(), Error> {
        let Some((id, title)) = self.runs.newest() else { return Ok(()) };
        let name = &self.record.name;
        let short: String = id.as_str().chars().rev().take(8).collect::<Vec<_>>().into_iter().rev().collect();
        let others = match self.runs.count() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        let message = format!("run {short} ({title}){others} is under way in workspace {name}");
        Err(Error::new(Kind::RunsUnderWay, message)
            .details(serde_json::json!({ "run": id, "runs": self.runs.count() }))
            .hint("vcodingctl cancel @ ends it; --wait waits for its end, --force goes ahead all the same"))
    }

    pub(super) async fn stop(&mut self, force: bool) -> Result<(), Error> {
        if !force {
            self.needs_no_runs()?;
        }
        match self.record.rest {
            Rest::Stopped => Ok(()),
            Rest::New | Rest::Ready => self.operate(Operation::Stop, &Say::default()).await.map(drop),
        }
    }

    /// What of it was in no checkpoint, for a reader.
    ///
    /// # Errors
    /// Runs under way, work that was never taken home, what a step says.
    pub(super) async fn destroy(&mut self, force: bool, purge: bool) -> Result<Vec<String>, Error> {
        if !force {
            self.needs_no_runs()
                .map_err(|e| e.hint("vcodingctl cancel @ ends it; vcodingctl destroy --force ends everything"))?;
            self.look_at_history()
                .await
                .map_err(|e| e.hint("vcodingctl destroy --force, if nothing of it is wanted"))?;
            if self.ends.base.is_some() && !self.places.tree().is_dir() {
                // What is gone cannot be recorded: the newest checkpoint is all there is.
                self.needs_to_be_home().await?;
            } else if self.ends.base.is_some() {
                self.checkpoint(Cause::of("destroy"), Activity::Running).await?;
            } else if self.record.rest != Rest::New {
                return Err(self.history_is_gone(Kind::UnappliedWork));
            }
            self.needs_to_be_home().await?;
        }
        self.operate(Operation::Destroy { purge, force }, &Say::default()).await?;
        let only_there = [remarks::only_here(&self.remarks), remarks::ignored(&self.remarks)];
        Ok(only_there.into_iter().flatten().map(|what| format!("in no checkpoint were {what}")).collect())
    }

    /// Refuses where the work tree holds what no checkpoint can: it would be gone for good.
    fn needs_nothing_left_out(&self) -> Result<(), Error> {
        let Some(only_here) = remarks::only_here(&self.remarks) else { return Ok(()) };
        Err(Error::new(
            Kind::UnappliedWork,
            format!("workspace {} holds what is in no checkpoint: {only_here}", self.record.name),
        )
        .hint("vcodingctl exec -- cat FILE > FILE takes one home, vcodingctl destroy --force ends it anyway"))
    }

    /// Refuses where there is work that was never taken home, and names it.
    pub(super) async fn needs_to_be_home(&self) -> Result<(), Error> {
        if !self.ends.unapplied {
            return self.needs_nothing_left_out();
        }
        let mut files = self.timeline.unapplied().await.map_err(|e| failure::of_timeline(&e))?;
        let total = files.len();
        files.truncate(LISTED);
        Err(Error::new(
            Kind::UnappliedWork,
            format!("workspace {} holds work that was never applied", self.record.name),
        )
        .details(serde_json::json!({ "files": files, "total": total }))
        .hint("vcodingctl diff shows it, vcodingctl apply takes it home, vcodingctl destroy --force ends it anyway"))
    }
}

//! A rollback: the guest stands still from before what it holds is recorded until it has gone back.

use protocol::{Error, Kind};

use super::actor::Actor;
use super::machine::{Intent, Operation};
use super::steps::Told;
use super::{cleaned, failure};
use crate::provider::{Error as ProviderError, GuestState};
use crate::timeline::{Activity, Cause};

impl Actor {
    /// The guest stands still, and what it wrote until then is a checkpoint: a guest that runs
    /// could undo every file that is written, and lose what it writes itself.
    pub(super) async fn freeze(&mut self) -> Result<(), Error> {
        self.hold().await?;
        match self.checkpoint(Cause::of("before-rollback"), Activity::Still).await {
            Ok((newest, _, _)) => {
                if let Some(Intent { operation: Operation::Rollback { before, .. }, .. }) = &mut self.record.intent {
                    *before = Some(newest.id);
                }
                Ok(())
            }
            Err(error) => {
                self.let_go().await;
                Err(error)
            }
        }
    }

    async fn hold(&mut self) -> Result<(), Error> {
        let provider = self.shared.provider.clone();
        let found = provider.inspect(&self.record.id).await.map_err(|e| failure::of_provider(&e))?;
        if !matches!(found.map(|g| g.state), Some(GuestState::Running { .. })) {
            return Ok(());
        }
        match provider.pause(&self.record.id).await {
            Ok(()) => Ok(()),
            Err(error) => {
                // It may stand still all the same.
                self.let_go().await;
                Err(failure::of_provider(&error))
            }
        }
    }

    /// The guest goes on. One that does not is no guest to talk to: the next `up` looks at it anew.
    async fn let_go(&mut self) {
        let provider = self.shared.provider.clone();
        // Whatever the engine says of it: its word on that lags.
        let freed = match provider.unpause(&self.record.id).await {
            Err(ProviderError::NotRunning { .. } | ProviderError::NoSuchGuest { .. }) => Ok(()),
            freed => freed,
        };
        if let Err(error) = freed {
            tracing::error!(workspace = %self.record.id, %error, "a guest stands still and was not set going");
            self.walls = None;
            self.record.problem = Some(format!("it stands still: {error}; vcodingctl start sets it going"));
        }
    }

    pub(super) async fn restore(&mut self, operation: &Operation, told: &mut Told) -> Result<(), Error> {
        let Operation::Rollback { to, before, paths, clean } = operation else {
            return Err(Error::new(Kind::Internal, "only a rollback restores"));
        };
        let id = |text: &str| {
            text.parse::<history::Id>()
                .map_err(|_| Error::new(Kind::Internal, format!("{text:?} is no checkpoint's id")))
        };
        let Some(before) = before else {
            return Err(Error::new(Kind::Internal, "a rollback restores before it has recorded what was there"));
        };
        let (to, before_id) = (id(to)?, id(before)?);
        // Again, where this is another life of the daemon.
        self.hold().await?;
        let clean = clean.then(|| cleaned::place(&self.places.host()));
        let done = self.timeline.rollback(to, before_id, paths.clone(), clean).await;
        self.let_go().await;
        told.before = Some(before.clone());
        let done = done.map_err(|e| failure::of_timeline(&e))?;
        told.rolled_back = Some(done.checkpoint);
        told.notes.extend(done.lines);
        if let Some(found) = done.found {
            self.remarks = found;
        }
        self.look_at_history().await
    }
}

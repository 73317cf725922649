//! The guest's way to its model, at the host's end.

use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::actor::Actor;
use super::record::RELAY_PORT;
use crate::egress::{self, Gate};
use crate::seldom::Seldom;

/// Between two tries to reach a guest's relay again.
const AGAIN: Duration = Duration::from_millis(500);

/// The task that answers the guest's model requests.
#[derive(Debug)]
pub(super) struct Relay {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Actor {
    /// Answers the guest's model requests from now on.
    pub(super) fn open_forward(&mut self) {
        if self.runs.forward.as_ref().is_some_and(|relay| !relay.task.is_finished()) {
            return;
        }
        let Some(pool) = self.pool.clone() else { return };
        let (gate, client) = (self.runs.gate.clone(), self.shared.model_client.clone());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = relay(pool, gate, client) => {}
            }
        });
        self.runs.forward = Some(Relay { stop, task });
    }

    pub(super) async fn close_forward(&mut self) {
        if let Some(relay) = self.runs.forward.take() {
            relay.stop.cancel();
            if let Err(error) = relay.task.await {
                tracing::error!(%error, "the model relay broke off");
            }
        }
    }

    pub(super) async fn close_forward_if_idle(&mut self) {
        if !self.runs.any() {
            self.close_forward().await;
        }
    }
}

/// Takes the guest's connections to the model and serves each; a connection of ours that is lost
/// is made again, while the guest's relay holds what comes meanwhile.
async fn relay(pool: crate::ssh::Pool, gate: Gate, client: egress::Client) {
    let mut serving = JoinSet::new();
    let seldom = Seldom::default();
    loop {
        match pool.forward(RELAY_PORT).await {
            Ok(mut forward) => loop {
                tokio::select! {
                    Some(_) = serving.join_next(), if !serving.is_empty() => {}
                    accepted = forward.accept() => match accepted {
                        Some(stream) => {
                            serving.spawn(egress::serve(stream, gate.clone(), client.clone()));
                        }
                        None => break,
                    },
                }
            },
            Err(crate::ssh::Error::Closed) => return,
            Err(error) => {
                if let Some(kept_back) = seldom.may_say("no way to the model") {
                    tracing::warn!(%error, kept_back, "the guest's way to the model is not open");
                }
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

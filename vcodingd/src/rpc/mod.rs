//! The socket: who may connect, what a line is, which method answers. It translates and
//! decides nothing.
//!
//! `crowd` says who may stay, `framing` cuts the stream into lines and their descriptors, `connection` parses a line
//! and finds its method, `methods` holds a function a method. jsonrpsee-core keeps the table
//! and the subscriptions; its own dispatcher is not used, as it knows neither notifications nor
//! batches nor several connections.

mod call;
mod connection;
mod crowd;
mod framing;
pub mod listener;
mod methods;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use jsonrpsee::Methods;
use protocol::{Error, Kind};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::crowd::{Crowd, Full, Place};
use crate::seldom::Seldom;

pub use methods::Context;

/// Connections that are ending, beside those that are served.
const ENDING: usize = 512;
/// Between two tries to take a connection where the process has no descriptor left.
const AGAIN: Duration = Duration::from_millis(100);

/// Serves until `shutdown`, then waits for the connections to end.
pub async fn serve(listener: UnixListener, context: Arc<Context>, shutdown: CancellationToken) {
    let table: Methods = methods::table(context.clone()).into();
    let (mut connections, mut crowd) = (JoinSet::new(), Crowd::default());
    let (seldom, mut ids) = (Seldom::default(), 1..);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => match ended {
                Ok(id) => crowd.left(id),
                Err(error) => tracing::error!(%error, "a connection's task broke off"),
            },
            accepted = listener.accept(), if connections.len() < crowd::IN_ALL + ENDING => match accepted {
                Ok((stream, _)) => {
                    let Some(id) = ids.next() else { break };
                    let Some((peer, place)) = entered(&mut crowd, id, &stream, &seldom) else { continue };
                    let connection =
                        connection::Connection { id, peer, stream, place, audit: context.audit.clone() };
                    let serving = connection::run(connection, table.clone(), shutdown.clone());
                    connections.spawn(async move {
                        // Caught, so that its place is free again.
                        if std::panic::AssertUnwindSafe(serving).catch_unwind().await.is_err() {
                            tracing::error!("a connection's task panicked");
                        }
                        id
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely: let some close.
                    if let Some(kept_back) = seldom.may_say("accept") {
                        tracing::error!(%error, kept_back, "accept failed");
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Who it is and its place, if it may stay; else it was told why not.
fn entered(crowd: &mut Crowd, id: u64, stream: &UnixStream, seldom: &Seldom) -> Option<(listener::Peer, Arc<Place>)> {
    let peer = match listener::admit(stream) {
        Ok(peer) => peer,
        Err(why) => {
            if let Some(kept_back) = seldom.may_say("refused") {
                tracing::warn!(why, kept_back, "a connection was refused");
            }
            return None;
        }
    };
    match crowd.enter(id, peer.pid) {
        Ok(place) => Some((peer, place)),
        Err(full) => {
            let why = match full {
                Full::Process => {
                    format!("process {} has {} connections to the daemon already", peer.pid, crowd::OF_A_PROCESS)
                }
                Full::All => format!("the daemon has {} connections already", crowd::IN_ALL),
            };
            if let Some(kept_back) = seldom.may_say("full") {
                tracing::warn!(pid = peer.pid, why, kept_back, "a connection was refused");
            }
            connection::refuse(stream, Error::new(Kind::DaemonBusy, why).hint("vcodingctl daemon status"));
            None
        }
    }
}

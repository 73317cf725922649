//! The socket: who may connect, what a line is, which method answers. It translates and
//! decides nothing.
//!
//! `framing` cuts the stream into lines and their descriptors, `connection` parses a line
//! and finds its method, `methods` holds a function a method. jsonrpsee-core keeps the table
//! and the subscriptions; its own dispatcher is not used, as it knows neither notifications nor
//! batches nor several connections.

mod call;
mod connection;
mod framing;
pub mod listener;
mod methods;

use std::sync::Arc;

use jsonrpsee::Methods;
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use methods::Context;

/// More clients than this wait in the kernel's queue.
const CONNECTIONS: usize = 512;

/// Serves until `shutdown`, then waits for the connections to end.
pub async fn serve(listener: UnixListener, context: Arc<Context>, shutdown: CancellationToken) {
    let table: Methods = methods::table(context.clone()).into();
    let mut connections = JoinSet::new();
    let mut next_id = 0;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                if let Err(error) = ended
                    && error.is_panic()
                {
                    tracing::error!(%error, "a connection's task panicked");
                }
            }
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    next_id += 1;
                    let peer = match listener::admit(&stream) {
                        Ok(peer) => peer,
                        Err(why) => {
                            tracing::warn!(why, "a connection was refused");
                            continue;
                        }
                    };
                    connections.spawn(connection::run(
                        connection::Connection { id: next_id, peer, stream, audit: context.audit.clone() },
                        table.clone(),
                        shutdown.clone(),
                    ));
                }
                Err(error) => {
                    // Out of descriptors, most likely: let some close.
                    tracing::error!(%error, "accept failed");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

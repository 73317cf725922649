//! A port of the guest's loopback that ends here.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use russh::client::Msg;
use russh::{Channel, ChannelStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::connection::Connection;

/// Listens in the guest until it is dropped.
pub struct Forward {
    connection: Connection,
    arrivals: mpsc::Receiver<Channel<Msg>>,
    places: Arc<Semaphore>,
    closing: CancellationToken,
}

impl Forward {
    /// Connections that wait to be accepted; further ones are refused.
    pub(super) const WAITING: usize = 16;
    /// Connections at once; further ones wait.
    const MOST: usize = 64;

    pub(super) fn new(
        connection: Connection,
        arrivals: mpsc::Receiver<Channel<Msg>>,
        closing: CancellationToken,
    ) -> Self {
        Self { connection, arrivals, places: Arc::new(Semaphore::new(Self::MOST)), closing }
    }

    /// The next connection; `None` once the guest, or the pool, is gone. Cancel-safe.
    pub async fn accept(&mut self) -> Option<Forwarded> {
        let closing = self.closing.clone();
        let next = async {
            let place = self.places.clone().acquire_owned().await.ok()?;
            // Ends with the connection's task, which holds the other end.
            let channel = self.arrivals.recv().await?;
            Some(Forwarded { stream: channel.into_stream(), _place: place })
        };
        tokio::select! {
            () = closing.cancelled() => None,
            next = next => next,
        }
    }

    /// Whether the guest may still connect.
    pub fn is_open(&self) -> bool {
        self.connection.is_usable() && !self.closing.is_cancelled()
    }
}

/// One connection out of the guest. Read and write it at once: while what came is not read, all
/// connections of the forward wait, for what they write, too.
pub struct Forwarded {
    stream: ChannelStream<Msg>,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Forwarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Forwarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

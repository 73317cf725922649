//! Standard input: the caller's descriptor as chunks.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::io::Errno;
use tokio::sync::{mpsc, oneshot};

use super::plumbing::{self, Wake};

/// A chunk: small ones cost a third of the throughput.
const CHUNK: usize = 64 * 1024;
/// Chunks read ahead of the guest.
const AHEAD: usize = 2;
/// How long a thread that was woken may take to end. It can only be longer if somebody else took
/// the input that poll had announced.
const ENDING: Duration = Duration::from_millis(200);

/// Reads a descriptor only when asked, and never after [`Inlet::stop`].
pub(super) struct Inlet {
    state: State,
}

enum State {
    /// Whatever is there at once is read right here.
    Direct(OwnedFd),
    /// What is not there yet is waited for by a thread.
    Thread(Thread),
    Ended,
}

struct Thread {
    chunks: mpsc::Receiver<Bytes>,
    wake: Arc<Wake>,
    /// Its other end is dropped with the thread.
    ended: oneshot::Receiver<()>,
}

impl Inlet {
    pub(super) fn new(fd: Option<OwnedFd>) -> Self {
        let state = match fd {
            Some(fd) if !plumbing::is_null(&fd) => State::Direct(fd),
            _ => State::Ended,
        };
        Self { state }
    }

    /// The next chunk; `None` at the end. What cannot be read (a directory) has ended. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        if let State::Direct(fd) = &self.state {
            let mut buffer = BytesMut::zeroed(CHUNK);
            match plumbing::read_now(fd, &mut buffer) {
                Ok(0) => self.state = State::Ended,
                Ok(read) => {
                    buffer.truncate(read);
                    // A file that is always ready must not keep the task from its other work.
                    tokio::task::consume_budget().await;
                    return Some(buffer.freeze());
                }
                Err(Errno::AGAIN | Errno::OPNOTSUPP) => self.start_thread(),
                Err(_) => self.state = State::Ended,
            }
        }
        match &mut self.state {
            State::Thread(thread) => thread.chunks.recv().await,
            State::Direct(_) | State::Ended => None,
        }
    }

    fn start_thread(&mut self) {
        let State::Direct(fd) = std::mem::replace(&mut self.state, State::Ended) else { return };
        let Ok(wake) = Wake::new().map(Arc::new) else { return };
        let (sender, chunks) = mpsc::channel(AHEAD);
        let (ending, ended) = oneshot::channel();
        let body = {
            let wake = wake.clone();
            move || {
                read_all(&fd, &sender, &wake);
                drop(ending);
            }
        };
        match plumbing::thread("exec-in", body) {
            Ok(_joined_by_its_other_end) => self.state = State::Thread(Thread { chunks, wake, ended }),
            Err(error) => tracing::error!(%error, "no thread for a command's input"),
        }
    }

    /// Takes nothing more from the caller, who may want to read its terminal itself again.
    pub(super) async fn stop(&mut self) {
        if let State::Thread(thread) = &mut self.state {
            thread.wake.wake();
            thread.chunks.close();
            if tokio::time::timeout(ENDING, &mut thread.ended).await.is_err() {
                tracing::warn!("a command's input is being read by somebody else, too");
            }
        }
        self.state = State::Ended;
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        if let State::Thread(thread) = &self.state {
            thread.wake.wake();
        }
    }
}

fn read_all(fd: &OwnedFd, sender: &mpsc::Sender<Bytes>, wake: &Wake) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(Some(read @ 1..)) = plumbing::read_when_ready(fd.as_fd(), &mut buffer, wake) {
        if sender.blocking_send(Bytes::copy_from_slice(&buffer[..read])).is_err() {
            return;
        }
    }
}

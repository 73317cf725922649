//! Standard output and error: chunks to the caller's descriptors.
//!
//! A chunk that fits is written right here. Else a thread writes it, and up to [`QUEUE`] bytes
//! wait for that. Beyond it the guest waits, if its command is alone on its connection; where
//! others share the connection, and would wait with it, the output is spilt into a file.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes};
use rustix::io::Errno;
use tokio::sync::Notify;

use super::Error;
use super::plumbing::{self, Wake};
use super::spill::{self, Spill};
use crate::ssh::{Company, Stalled};

/// Bytes that wait in memory for one descriptor.
const QUEUE: usize = 512 * 1024;

/// Both of a command. Where both lead to the same place they are one, so that what the command
/// wrote to them stays in order.
pub(super) struct Outlets {
    out: Option<Outlet>,
    err: Err,
}

enum Err {
    Own(Option<Outlet>),
    SameAsOut,
}

impl Outlets {
    pub(super) fn new(out: Option<OwnedFd>, err: Option<OwnedFd>, company: Company) -> Self {
        let err = match (&out, err) {
            (Some(out), Some(err)) if plumbing::are_same(out, &err) => Err::SameAsOut,
            (_, err) => Err::Own(err.map(|fd| Outlet::new(fd, company.clone()))),
        };
        Self { out: out.map(|fd| Outlet::new(fd, company)), err }
    }

    /// # Errors
    /// [`Error::ReaderGone`], [`Error::Descriptor`].
    pub(super) async fn out(&mut self, bytes: Bytes) -> Result<(), Error> {
        match &mut self.out {
            Some(outlet) => outlet.write(bytes).await.map_err(failed),
            None => Ok(()),
        }
    }

    /// Errors that nobody reads are dropped: they are no reason to end a command.
    ///
    /// # Errors
    /// As [`Outlets::out`], where both are one.
    pub(super) async fn err(&mut self, bytes: Bytes) -> Result<(), Error> {
        match &mut self.err {
            Err::SameAsOut => self.out(bytes).await,
            Err::Own(own) => {
                if let Some(outlet) = own
                    && outlet.write(bytes).await.is_err()
                {
                    *own = None;
                }
                Ok(())
            }
        }
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// As [`Outlets::out`].
    pub(super) async fn drain(&mut self) -> Result<(), Error> {
        if let Err::Own(Some(outlet)) = &mut self.err {
            let _nobody_reads = outlet.drain().await;
        }
        match &mut self.out {
            Some(outlet) => outlet.drain().await.map_err(failed),
            None => Ok(()),
        }
    }
}

fn failed(errno: Errno) -> Error {
    match errno {
        // A terminal that was closed says IO.
        Errno::PIPE | Errno::IO | Errno::CONNRESET => Error::ReaderGone,
        other => Error::Descriptor(other.into()),
    }
}

/// One descriptor.
struct Outlet {
    fd: Arc<OwnedFd>,
    company: Company,
    /// Whether the kernel can say at once that a write would block.
    direct: bool,
    queue: Option<Arc<Queue>>,
}

/// What waits for the thread.
struct Queue {
    state: Mutex<State>,
    /// For the thread: something came.
    filled: Condvar,
    /// For the task: something was written.
    written: Notify,
    wake: Wake,
}

#[derive(Default)]
struct State {
    chunks: VecDeque<Bytes>,
    /// Bytes in `chunks` and in the thread's hands.
    waiting: usize,
    /// Everything after `chunks`.
    spill: Option<Spill>,
    /// As long as there is a spill, no new command comes to the connection.
    stalled: Option<Stalled>,
    failed: Option<Errno>,
    over: bool,
}

impl State {
    fn is_empty(&self) -> bool {
        self.waiting == 0 && self.spill.is_none()
    }
}

impl Outlet {
    fn new(fd: OwnedFd, company: Company) -> Self {
        Self { fd: Arc::new(fd), company, direct: true, queue: None }
    }

    async fn write(&mut self, mut bytes: Bytes) -> Result<(), Errno> {
        if self.direct && self.queue.as_ref().is_none_or(|queue| queue.state().is_empty()) {
            match plumbing::write_now(&*self.fd, &bytes) {
                Ok(written) => bytes.advance(written),
                Err(Errno::AGAIN) => {}
                Err(Errno::OPNOTSUPP) => self.direct = false,
                Err(error) => return Err(error),
            }
            if bytes.is_empty() {
                return Ok(());
            }
        }
        let queue = self.started()?;
        self.push(&queue, bytes).await
    }

    /// The queue, with the thread that empties it.
    fn started(&mut self) -> Result<Arc<Queue>, Errno> {
        if let Some(queue) = &self.queue {
            return Ok(queue.clone());
        }
        let queue = Arc::new(Queue {
            state: Mutex::default(),
            filled: Condvar::new(),
            written: Notify::new(),
            wake: Wake::new()?,
        });
        let (fd, for_thread) = (self.fd.clone(), queue.clone());
        // It ends when the outlet is dropped, at once unless a write blocks that poll had allowed.
        plumbing::thread("exec-out", move || for_thread.empty_into(&fd)).map_err(|_| Errno::AGAIN)?;
        self.queue = Some(queue.clone());
        Ok(queue)
    }

    async fn push(&self, queue: &Queue, bytes: Bytes) -> Result<(), Errno> {
        let mut stalled = None;
        loop {
            // Armed before the look, so that what is written in between is not missed.
            let written = queue.written.notified();
            let spilling = {
                let mut state = queue.state();
                if let Some(error) = state.failed {
                    return Err(error);
                }
                if state.spill.is_none() && (state.waiting == 0 || state.waiting + bytes.len() <= QUEUE) {
                    state.waiting += bytes.len();
                    state.chunks.push_back(bytes);
                    queue.filled.notify_one();
                    return Ok(());
                }
                // From here on no command joins, so one that is alone stays so.
                stalled = stalled.or_else(|| self.company.stalled());
                if self.company.is_alone() && state.spill.is_none() { None } else { place(&mut state, bytes.len()) }
            };
            match spilling {
                Some((file, at)) => {
                    let length = bytes.len();
                    let writing = tokio::task::spawn_blocking(move || file.write_all_at(&bytes, at));
                    let done = writing.await.unwrap_or_else(|e| Err(io::Error::other(e)));
                    done.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
                    let mut state = queue.state();
                    if let Some(spill) = &mut state.spill {
                        spill.wrote(length);
                    }
                    state.stalled = state.stalled.take().or(stalled);
                    queue.filled.notify_one();
                    return Ok(());
                }
                None => written.await,
            }
        }
    }

    async fn drain(&mut self) -> Result<(), Errno> {
        let Some(queue) = &self.queue else { return Ok(()) };
        loop {
            let written = queue.written.notified();
            {
                let state = queue.state();
                if let Some(error) = state.failed {
                    return Err(error);
                }
                if state.is_empty() {
                    return Ok(());
                }
            }
            written.await;
        }
    }
}

/// A place in the spill, made if there is none; `None` where there can be none, or no more.
fn place(state: &mut State, length: usize) -> Option<(Arc<std::fs::File>, u64)> {
    if state.spill.is_none() {
        match Spill::new() {
            Ok(spill) => state.spill = Some(spill),
            Err(error) => tracing::warn!(%error, "no file for output that nobody reads"),
        }
    }
    state.spill.as_mut().filter(|spill| spill.has_room(length)).map(Spill::place)
}

impl Drop for Outlet {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.state().over = true;
            queue.filled.notify_one();
            queue.wake.wake();
        }
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread.
    fn empty_into(&self, fd: &OwnedFd) {
        while let Some(next) = self.next() {
            let written = match next {
                Next::Chunk(chunk) => self.write(fd, &chunk).inspect(|_| self.state().waiting -= chunk.len()),
                Next::Spilt(place) => spill::take(place)
                    .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
                    .and_then(|piece| self.write(fd, &piece).inspect(|_| self.took(piece.len()))),
            };
            match written {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => self.state().failed = Some(error),
            }
            self.written.notify_one();
        }
    }

    fn write(&self, fd: &OwnedFd, bytes: &[u8]) -> Result<bool, Errno> {
        plumbing::write_when_ready(fd.as_fd(), bytes, &self.wake)
    }

    fn took(&self, bytes: usize) {
        let mut state = self.state();
        let Some(spill) = &mut state.spill else { return };
        spill.took(bytes);
        if spill.is_over() {
            state.spill = None;
            state.stalled = None;
        }
    }

    /// What is to be written next; `None` when it is over.
    fn next(&self) -> Option<Next> {
        let mut state = self.state();
        loop {
            if state.over || state.failed.is_some() {
                return None;
            }
            if let Some(chunk) = state.chunks.pop_front() {
                return Some(Next::Chunk(chunk));
            }
            if let Some(place) = state.spill.as_ref().and_then(Spill::oldest) {
                return Some(Next::Spilt(place));
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

enum Next {
    Chunk(Bytes),
    Spilt((Arc<std::fs::File>, u64, usize)),
}

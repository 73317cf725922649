//! A command on the caller's descriptors, or with its output kept for the daemon itself.
//!
//! ```text
//! descriptor 0 ─ inlet ──► frame, then input ──► channel ──► the guest's shell, supervisor, command
//! descriptors 1, 2 ◄─ outlet ◄─ output, errors ◄─┘
//! ```
//!
//! The descriptors are the caller's, shared with its shell: they are never made non-blocking.
//! What can be read or written at once is, right here; for the rest there is a thread a
//! descriptor, made when it is first needed, that waits in poll and can be woken.

mod captured;
#[cfg(test)]
mod engine;
mod error;
mod inlet;
mod outlet;
mod plumbing;
mod spill;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::{Buf, Bytes};
use guest::frame;
use tokio::sync::mpsc;

use crate::ssh::{Message, Pty, Reader, Writer};
use inlet::Inlet;
use outlet::Outlets;

/// The way into a guest, which callers of this room hand over.
pub use crate::ssh::Pool;
#[cfg(test)]
pub(crate) use crate::ssh::testing;
pub use captured::{Captured, captured, captured_afresh};
pub use error::Error;

/// Until the guest's shell has taken a command. A guest can stop its shells, and its host may be
/// busy; a guest that is frozen for a rollback is thawed sooner.
const TAKEN: Duration = Duration::from_secs(30);
/// The status of a command whose output nobody reads any more: ended by SIGPIPE, as a shell says.
const SIGPIPE: u8 = 128 + 13;

/// The way to a command under way.
#[derive(Debug, Clone)]
pub struct Controls {
    pub commands: mpsc::Sender<Control>,
}

/// What its caller may tell a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    Signal(protocol::exec::Signal),
    Resize { columns: u16, rows: u16 },
}

/// A command to be run.
#[derive(Debug, Clone)]
pub struct Request {
    pub frame: guest::Frame,
    pub terminal: Option<protocol::exec::Terminal>,
    pub timeout: Option<Duration>,
}

/// Runs a command on `descriptors` (standard input, output, errors; a missing one is /dev/null)
/// and returns its status. Dropping the future ends the command with everything it started.
///
/// # Errors
/// [`Error`]; [`Error::has_started`] says whether the command may have run.
pub async fn attached(
    pool: &Pool,
    request: Request,
    descriptors: Vec<OwnedFd>,
    controls: mpsc::Receiver<Control>,
) -> Result<u8, Error> {
    let limit = request.timeout;
    let running = run(pool, request, descriptors, controls, TAKEN);
    match limit {
        Some(limit) => tokio::time::timeout(limit, running).await.map_err(|_| Error::TimedOut { after: limit })?,
        None => running.await,
    }
}

async fn run(
    pool: &Pool,
    request: Request,
    descriptors: Vec<OwnedFd>,
    mut controls: mpsc::Receiver<Control>,
    patience: Duration,
) -> Result<u8, Error> {
    let frame = Bytes::from(request.frame.encode()?);
    let pty = request.terminal.map(|t| Pty { term: t.term, columns: t.columns, rows: t.rows });
    let mut descriptors = descriptors.into_iter();
    let mut inlet = Inlet::new(descriptors.next());
    let mut session = pool.session(pty.as_ref()).await?;
    let mut outlets = Outlets::new(descriptors.next(), descriptors.next(), session.company());

    let (reader, writer) = session.halves();
    let taken = tokio::time::timeout(patience, hand_over(reader, writer, frame, pty.is_some())).await;
    let begun = taken.map_err(|_| Error::NotTaken { after: patience })??;
    outlets.out(begun.out).await?;
    outlets.err(begun.err.into()).await?;
    let ended = tokio::select! {
        // First what has come, then what goes.
        biased;
        ended = output(reader, &mut outlets, begun.end) => ended,
        never = input(writer, &mut inlet) => match never {},
        never = control(writer, &mut controls) => match never {},
    };
    // Whatever came of it, nothing of the caller's input is taken from here on.
    inlet.stop().await;
    match ended {
        Ok(status) => {
            session.finish().await;
            Ok(status)
        }
        Err(Error::ReaderGone) => Ok(SIGPIPE),
        Err(error) => Err(error),
    }
}

/// What had come of a command when its shell's word was read. sshd tells a status as it learns of
/// it and looks at output and errors one after the other: a command that takes no time may have
/// ended by then, and its errors may have overtaken the word.
#[derive(Debug, Default)]
struct Begun {
    out: Bytes,
    err: Vec<u8>,
    end: End,
}

/// Gives the shell its frame and waits for its word.
async fn hand_over(reader: &mut Reader, writer: &Writer, frame: Bytes, terminal: bool) -> Result<Begun, Error> {
    if terminal {
        let begun = ready(reader).await?;
        writer.send(frame).await?;
        return Ok(begun);
    }
    writer.send(frame).await?;
    ready(reader).await
}

async fn ready(reader: &mut Reader) -> Result<Begun, Error> {
    /// More than this is not what overtook the word.
    const MOST: usize = 1 << 20;
    let mut begun = Begun::default();
    loop {
        match reader.next().await {
            Some(Message::Output(mut bytes)) if bytes.first() == Some(&frame::READY) => {
                bytes.advance(1);
                begun.out = bytes;
                return Ok(begun);
            }
            Some(Message::Output(bytes)) if bytes.is_empty() => {}
            Some(Message::Errors(bytes)) if begun.err.len() < MOST => begun.err.extend_from_slice(&bytes),
            Some(Message::Status(status)) => begun.end.status = Some(status),
            Some(Message::Eof) => begun.end.eof = true,
            Some(Message::Refused) => return Err(Error::NotStarted),
            None if !reader.is_closed() => return Err(Error::Lost),
            Some(Message::Output(_) | Message::Errors(_)) | None => {
                return Err(Error::NotOurShell { said: begun.said() });
            }
        }
    }
}

impl Begun {
    /// What a shell that gave no word said instead.
    fn said(self) -> String {
        let said: String = String::from_utf8_lossy(&self.err).trim().chars().take(500).collect();
        match self.end.status {
            Some(status) if said.is_empty() => format!("it ended with status {status}"),
            _ => said,
        }
    }
}

/// Passes output on until the command has ended and all of it is written.
async fn output(reader: &mut Reader, outlets: &mut Outlets, mut end: End) -> Result<u8, Error> {
    while !end.is_complete() {
        match reader.next().await {
            Some(Message::Output(bytes)) => outlets.out(bytes).await?,
            Some(Message::Errors(bytes)) => outlets.err(bytes).await?,
            other => end.take(other.as_ref(), reader)?,
        }
    }
    outlets.drain().await?;
    end.status()
}

/// How far a command has ended: status and the end of output come in any order.
#[derive(Debug, Default)]
struct End {
    status: Option<u8>,
    eof: bool,
}

impl End {
    fn is_complete(&self) -> bool {
        self.eof && self.status.is_some()
    }

    /// A message that is not output; `None` is the channel's end.
    fn take(&mut self, message: Option<&Message>, reader: &Reader) -> Result<(), Error> {
        match message {
            Some(Message::Status(status)) => self.status = Some(*status),
            Some(Message::Eof) => self.eof = true,
            Some(Message::Refused) => return Err(Error::NotStarted),
            Some(Message::Output(_) | Message::Errors(_)) => {}
            None if reader.is_closed() && self.status.is_some() => self.eof = true,
            None if reader.is_closed() => return Err(Error::NoStatus),
            None => return Err(Error::Lost),
        }
        Ok(())
    }

    fn status(self) -> Result<u8, Error> {
        self.status.ok_or(Error::NoStatus)
    }
}

enum Never {}

/// Passes input on. It never ends: the command's end does not wait for its input's, and a
/// connection that is lost is seen by its reader.
async fn input(writer: &Writer, inlet: &mut Inlet) -> Never {
    while let Some(bytes) = inlet.next().await {
        if writer.send(bytes).await.is_err() {
            return std::future::pending().await;
        }
    }
    let _seen_by_the_reader = writer.eof().await;
    std::future::pending().await
}

async fn control(writer: &Writer, controls: &mut mpsc::Receiver<Control>) -> Never {
    while let Some(control) = controls.recv().await {
        let _seen_by_the_reader = match control {
            Control::Signal(signal) => writer.signal(signal).await,
            Control::Resize { columns, rows } => writer.resize(columns, rows).await,
        };
    }
    std::future::pending().await
}

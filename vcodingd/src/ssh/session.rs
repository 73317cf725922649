//! One command's channel, and what becomes of its connection afterwards.

use std::sync::Arc;

use bytes::Bytes;
use guest::frame;
use protocol::exec::Signal;
use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};

use super::pool::Lease;
use super::{Error, Result};

/// A terminal to be made in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pty {
    /// The value of TERM.
    pub term: String,
    pub columns: u16,
    pub rows: u16,
}

/// What comes from a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Output(Bytes),
    Errors(Bytes),
    /// As a shell would put it: 128 + N for signal N. Output may still follow.
    Status(u8),
    /// No more output.
    Eof,
    /// The guest could not make the terminal or the process.
    Refused,
}

/// A channel for one command. Dropped before [`Session::finish`] it ends the command: its channel
/// is closed, or its connection, if nobody else is on it.
pub struct Session {
    reader: Reader,
    writer: Arc<Writer>,
    lease: Option<Lease>,
}

/// The half that listens to the command.
pub struct Reader {
    half: ChannelReadHalf,
    /// The guest closed it: nothing is left to be closed.
    closed: bool,
}

/// The half that speaks to it.
pub struct Writer {
    half: ChannelWriteHalf<Msg>,
}

impl Session {
    pub(super) fn new(channel: Channel<Msg>, lease: Lease) -> Self {
        let (read, write) = channel.split();
        Self {
            reader: Reader { half: read, closed: false },
            writer: Arc::new(Writer { half: write }),
            lease: Some(lease),
        }
    }

    /// Both halves, to be used at once.
    pub fn halves(&mut self) -> (&mut Reader, &Writer) {
        (&mut self.reader, &self.writer)
    }

    /// Whether no other command is on this connection, so that not reading hurts nobody.
    pub fn is_alone(&self) -> bool {
        self.lease.as_ref().is_none_or(Lease::is_alone)
    }

    /// The same question, for whoever borrows the halves.
    pub fn company(&self) -> Company {
        Company { lease: self.lease.as_ref().map(Lease::watcher) }
    }

    /// After a clean end: the connection serves the next command.
    pub async fn finish(mut self) {
        if !self.reader.closed {
            // Read on meanwhile: the connection's task takes nothing from us while it waits for us.
            let unread = async { while self.reader.half.wait().await.is_some() {} };
            let closed = tokio::select! {
                biased;
                closed = self.writer.half.close() => closed.is_ok(),
                () = unread => true,
            };
            if !closed {
                return;
            }
        }
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.abandon(self.writer.clone());
        }
    }
}

/// Knows who else is on a connection, and tells the pool of readers that do not read.
#[derive(Clone)]
pub struct Company {
    lease: Option<super::pool::Watcher>,
}

impl Company {
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self { lease: None }
    }

    pub fn is_alone(&self) -> bool {
        self.lease.as_ref().is_none_or(super::pool::Watcher::is_alone)
    }

    /// As long as the answer lives, no new command comes to this connection.
    pub fn stalled(&self) -> Option<super::pool::Stalled> {
        self.lease.as_ref().map(super::pool::Watcher::stalled)
    }
}

impl Reader {
    /// The next message; `None` once the guest closed the channel or the connection is gone,
    /// which [`Reader::is_closed`] tells apart. Cancel-safe.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            match self.half.wait().await? {
                ChannelMsg::Data { data } => return Some(Message::Output(data)),
                ChannelMsg::ExtendedData { data, ext: 1 } => return Some(Message::Errors(data)),
                // SSH has 32 bits for it, a process 8.
                ChannelMsg::ExitStatus { exit_status } => return Some(Message::Status(exit_status.to_le_bytes()[0])),
                ChannelMsg::ExitSignal { signal_name, .. } => return Some(Message::Status(status_of(&signal_name))),
                ChannelMsg::Eof => return Some(Message::Eof),
                ChannelMsg::Failure => return Some(Message::Refused),
                ChannelMsg::Close => {
                    self.closed = true;
                    return None;
                }
                _ => {}
            }
        }
    }

    /// Whether the guest closed the channel in order.
    pub fn is_closed(&self) -> bool {
        self.closed
    }
}

impl Writer {
    /// Asks for a terminal; a refusal comes as [`Message::Refused`].
    pub(super) async fn request_pty(&self, pty: &Pty) -> Result<()> {
        let [columns, rows] = [pty.columns, pty.rows].map(u32::from);
        self.half.request_pty(true, &pty.term, columns, rows, 0, 0, &[]).await.map_err(lost)
    }

    /// Has the guest's shell read a frame. The answer is not waited for: a refusal comes as
    /// [`Message::Refused`].
    pub(super) async fn exec(&self) -> Result<()> {
        self.half.exec(true, frame::EXEC).await.map_err(lost)
    }

    /// Sends input; waits while the guest does not take it.
    pub async fn send(&self, bytes: impl Into<Bytes>) -> Result<()> {
        self.half.data_bytes(bytes).await.map_err(lost)
    }

    /// No more input.
    pub async fn eof(&self) -> Result<()> {
        self.half.eof().await.map_err(lost)
    }

    pub async fn signal(&self, signal: Signal) -> Result<()> {
        let name = match signal {
            Signal::Hup => Sig::HUP,
            Signal::Int => Sig::INT,
            Signal::Quit => Sig::QUIT,
            Signal::Kill => Sig::KILL,
            Signal::Term => Sig::TERM,
            Signal::Usr1 => Sig::USR1,
            Signal::Usr2 => Sig::Custom("USR2".into()),
        };
        self.half.signal(name).await.map_err(lost)
    }

    pub async fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        self.half.window_change(columns.into(), rows.into(), 0, 0).await.map_err(lost)
    }

    pub(super) async fn close(&self) -> Result<()> {
        self.half.close().await.map_err(lost)
    }
}

// Anything else that the crate may say here is a channel whose connection is gone.
fn lost(_: russh::Error) -> Error {
    Error::Lost
}

/// 128 + the signal's number on Linux; 255 for one without a name of its own in SSH.
fn status_of(signal: &Sig) -> u8 {
    let number = match signal {
        Sig::HUP => 1,
        Sig::INT => 2,
        Sig::QUIT => 3,
        Sig::ILL => 4,
        Sig::ABRT => 6,
        Sig::FPE => 8,
        Sig::KILL => 9,
        Sig::USR1 => 10,
        Sig::SEGV => 11,
        Sig::PIPE => 13,
        Sig::ALRM => 14,
        Sig::TERM => 15,
        Sig::Custom(name) => match name.as_str() {
            "TRAP" => 5,
            "BUS" => 7,
            "USR2" => 12,
            "SYS" => 31,
            _ => 127,
        },
    };
    128 + number
}

//! Waiting for the daemon while the clock ticks and somebody may press Ctrl-C.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use client::Client;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use protocol::message::{Incoming, ProgressOf};
use protocol::workspace::Progress;
use protocol::{Error, Kind, Method};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::printer::Printer;
use crate::progress::Steps;

/// Often enough for a clock that shows seconds.
pub const TICK: Duration = Duration::from_millis(250);

/// What ended a wait.
#[derive(Debug)]
pub enum Woken {
    Message(Incoming),
    /// Ctrl-C.
    Interrupted,
    Tick,
}

/// Ctrl-C as something to read. From its making on, the signal no longer ends the program; so
/// it is made after the connection, because a daemon that had to be started must not inherit
/// that.
#[derive(Debug)]
pub struct Interrupts(SignalFd);

impl Drop for Interrupts {
    fn drop(&mut self) {
        let _ = interrupt().thread_unblock();
    }
}

fn interrupt() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    set
}

impl Interrupts {
    /// # Errors
    /// [`Kind::Internal`] if the kernel has none to give.
    pub fn new() -> Result<Self, Error> {
        let broken = |e: nix::Error| Error::new(Kind::Internal, format!("Ctrl-C cannot be watched: {e}"));
        let mask = interrupt();
        mask.thread_block().map_err(broken)?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        SignalFd::with_flags(&mask, flags).map(Self).map_err(broken)
    }

    /// Waits for one at most so long.
    pub fn within(&self, time: Duration) -> bool {
        ready(&mut [PollFd::new(&self.0, PollFlags::IN)], time);
        matches!(self.0.read_signal(), Ok(Some(_)))
    }

    /// Waits until `fd` can be read; false if Ctrl-C came first.
    pub fn or_readable(&self, fd: BorrowedFd<'_>) -> bool {
        loop {
            let mut fds = [PollFd::new(&fd, PollFlags::IN), PollFd::new(&self.0, PollFlags::IN)];
            ready(&mut fds, TICK);
            let readable = !fds[0].revents().is_empty();
            if matches!(self.0.read_signal(), Ok(Some(_))) {
                return false;
            }
            if readable {
                return true;
            }
        }
    }

    /// The next thing to look at.
    ///
    /// # Errors
    /// [`Kind::DaemonUnreachable`] at the end of the connection.
    pub fn or_message(&self, client: &mut Client) -> Result<Woken, Error> {
        if let Some(message) = client.buffered()? {
            return Ok(Woken::Message(message));
        }
        let readable = {
            let socket = client.as_fd();
            let mut fds = [PollFd::new(&socket, PollFlags::IN), PollFd::new(&self.0, PollFlags::IN)];
            ready(&mut fds, TICK);
            !fds[0].revents().is_empty()
        };
        if matches!(self.0.read_signal(), Ok(Some(_))) {
            return Ok(Woken::Interrupted);
        }
        if readable {
            client.fill()?;
            if let Some(message) = client.buffered()? {
                return Ok(Woken::Message(message));
            }
        }
        Ok(Woken::Tick)
    }
}

/// Polls; an interruption is a tick.
fn ready(fds: &mut [PollFd<'_>], time: Duration) {
    let time =
        Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(time.subsec_nanos()) };
    let _ = poll(fds, Some(&time));
}

/// Calls a method that may take long: shows its progress, or at least that time passes. Ctrl-C
/// ends the wait, not the operation.
///
/// # Errors
/// What the daemon answered; [`Kind::DaemonUnreachable`]; [`Kind::Interrupted`].
pub fn call<M: Method>(
    client: &mut Client,
    printer: &Printer,
    doing: &str,
    params: &M::Params,
) -> Result<M::Output, Error> {
    let interrupts = Interrupts::new()?;
    let mut steps = Steps::new(printer, doing);
    let id = client.send::<M>(params, &[])?;
    let result = loop {
        match interrupts.or_message(client)? {
            Woken::Tick => steps.tick(),
            Woken::Interrupted => {
                let message = format!("interrupted; the daemon goes on {doing}");
                break Err(Error::new(Kind::Interrupted, message).hint(printer.typed("vcodingctl show")));
            }
            Woken::Message(message) => {
                if let Some(progress) = progress(&message) {
                    steps.show(&progress);
                }
                if let Some(result) = Client::answer_to::<M>(id, message) {
                    break result;
                }
            }
        }
    };
    printer.close_line();
    result
}

/// What a `progress` notification says; nothing for any other message.
pub fn progress(message: &Incoming) -> Option<Progress> {
    let raw = message.params.as_ref().filter(|_| message.method.as_deref() == Some("progress"))?;
    serde_json::from_str::<ProgressOf<Progress>>(raw.get()).ok().map(|p| p.progress)
}

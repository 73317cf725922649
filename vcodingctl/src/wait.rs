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
    /// Ctrl-C, or TERM where that is watched, too.
    Interrupted(Signal),
    /// The other descriptor can be read.
    Readable,
    Tick,
}

/// After TERM so long is waited for what has been told to end.
pub const GRACE: Duration = Duration::from_secs(10);

/// Ctrl-C as something to read, and TERM where it means the same. From its making on, the signal no longer ends the program; so
/// it is made after the connection, because a daemon that had to be started must not inherit
/// that.
#[derive(Debug)]
pub struct Interrupts {
    signals: SignalFd,
    held: SigSet,
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        let _ = self.held.thread_unblock();
    }
}

impl Interrupts {
    /// # Errors
    /// [`Kind::Internal`] if the kernel has none to give.
    pub fn new() -> Result<Self, Error> {
        Self::of(&[Signal::SIGINT])
    }

    /// TERM is one, too: what is waited for ends with this program.
    ///
    /// # Errors
    /// As [`Interrupts::new`].
    pub fn and_term() -> Result<Self, Error> {
        Self::of(&[Signal::SIGINT, Signal::SIGTERM])
    }

    fn of(signals: &[Signal]) -> Result<Self, Error> {
        let broken = |e: nix::Error| Error::new(Kind::Internal, format!("Ctrl-C cannot be watched: {e}"));
        let held: SigSet = signals.iter().copied().collect();
        held.thread_block().map_err(broken)?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        SignalFd::with_flags(&held, flags).map(|signals| Self { signals, held }).map_err(broken)
    }

    /// One that has come.
    pub fn come(&self) -> Option<Signal> {
        let received = self.signals.read_signal().ok().flatten()?;
        i32::try_from(received.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok())
    }

    /// Waits for one at most so long.
    pub fn within(&self, time: Duration) -> bool {
        ready(&mut [PollFd::new(&self.signals, PollFlags::IN)], time);
        self.come().is_some()
    }

    /// Waits until `fd` can be read; false if Ctrl-C came first.
    pub fn or_readable(&self, fd: BorrowedFd<'_>) -> bool {
        loop {
            let mut fds = [PollFd::new(&fd, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
            ready(&mut fds, TICK);
            let readable = !fds[0].revents().is_empty();
            if self.come().is_some() {
                return false;
            }
            if readable {
                return true;
            }
        }
    }

    /// Waits until `fd` takes something; false if a signal came first, which is there still, or some
    /// time passed.
    pub fn or_writable(&self, fd: BorrowedFd<'_>) -> bool {
        let mut fds = [PollFd::new(&fd, PollFlags::OUT), PollFd::new(&self.signals, PollFlags::IN)];
        ready(&mut fds, TICK);
        // A flood of output does not keep a signal waiting.
        fds[1].revents().is_empty() && !fds[0].revents().is_empty()
    }

    /// The next thing to look at.
    ///
    /// # Errors
    /// [`Kind::DaemonUnreachable`] at the end of the connection.
    pub fn or_message(&self, client: &mut Client) -> Result<Woken, Error> {
        self.or_message_or(client, None)
    }

    /// The same with another descriptor, which goes first.
    ///
    /// # Errors
    /// As [`Interrupts::or_message`].
    pub fn or_message_or(&self, client: &mut Client, other: Option<BorrowedFd<'_>>) -> Result<Woken, Error> {
        if let Some(message) = client.buffered()? {
            return Ok(Woken::Message(message));
        }
        let (readable, other) = {
            let socket = client.as_fd();
            let other = other.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN));
            let mut fds: Vec<_> = [PollFd::new(&socket, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)]
                .into_iter()
                .chain(other)
                .collect();
            ready(&mut fds, TICK);
            (!fds[0].revents().is_empty(), fds.get(2).is_some_and(|fd| !fd.revents().is_empty()))
        };
        if let Some(signal) = self.come() {
            return Ok(Woken::Interrupted(signal));
        }
        if other {
            return Ok(Woken::Readable);
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

/// Waits until `fd` can be read, or some time has passed.
pub fn readable(fd: BorrowedFd<'_>) {
    ready(&mut [PollFd::new(&fd, PollFlags::IN)], TICK);
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
            Woken::Tick | Woken::Readable => steps.tick(),
            Woken::Interrupted(_) => {
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

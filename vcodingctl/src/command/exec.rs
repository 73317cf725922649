//! `exec`, `shell`: a command in the guest, on this program's own descriptors.
//!
//! The descriptors travel to the daemon with the call; from then on this program only passes
//! signals on and waits for the status. Input and output do not come by here.
//!
//! A command that was asked to end and does not is not waited for: the connection's end is its
//! own and its whole tree's, whatever it does about signals.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use client::Client;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal as Number};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use protocol::exec::{ExecParams, ExecResizeParams, ExecResult, ExecSignalParams, Signal, Terminal, over_memory};
use protocol::methods::{ExecResize, ExecSignal, ExecStart};
use protocol::{Bytes, Error, Kind};
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{OptionalActions, tcgetattr, tcgetpgrp, tcsetattr};

use super::{Failure, Outcome, Session};
use crate::args::Exec;
use crate::printer::Printer;
use crate::terminal::{self, RawMode};

/// The one command of this connection.
const NAME: &str = "exec";
/// The exit status if the command never started.
const NOT_STARTED: u8 = 125;

/// What is passed on. TSTP is not: a stopped client would leave the daemon reading the terminal
/// that its user's shell reads, too; so it is held back, and with a terminal ^Z is the guest's.
const PASSED: [(Number, Signal); 6] = [
    (Number::SIGINT, Signal::Int),
    (Number::SIGTERM, Signal::Term),
    (Number::SIGHUP, Signal::Hup),
    (Number::SIGQUIT, Signal::Quit),
    (Number::SIGUSR1, Signal::Usr1),
    (Number::SIGUSR2, Signal::Usr2),
];

/// So long a command may take to end after TERM, and so long a second INT or TERM is a second one.
const GRACE: Duration = Duration::from_secs(10);

pub fn exec(args: &Exec, session: &Session, printer: &Printer) -> Outcome {
    let params = params(session, args).map_err(before_start)?;
    run(session, &params, printer)
}

pub fn shell(session: &Session, printer: &Printer) -> Outcome {
    let params = ExecParams {
        workspace: session.workspace().map_err(before_start)?,
        exec: NAME.into(),
        argv: Vec::new(),
        env: Vec::new(),
        directory: None,
        terminal: std::io::stdin().is_terminal().then(terminal_of_caller),
        timeout_ms: None,
    };
    run(session, &params, printer)
}

fn params(session: &Session, args: &Exec) -> Result<ExecParams, Error> {
    let bytes = |text: &OsString| Bytes::from(text.clone());
    Ok(ExecParams {
        workspace: session.workspace()?,
        exec: NAME.into(),
        argv: args.argv.iter().map(bytes).collect(),
        env: args.env.iter().filter_map(|entry| environment(entry, |name| std::env::var_os(name))).collect(),
        directory: args.directory.as_ref().map(bytes),
        terminal: args.tty.then(terminal_of_caller),
        timeout_ms: args.timeout,
    })
}

/// `K=V` as it is, `K` with the caller's value; nothing where it has none.
fn environment(entry: &OsStr, value: impl Fn(&OsStr) -> Option<OsString>) -> Option<Bytes> {
    if entry.as_bytes().contains(&b'=') {
        return Some(Bytes(entry.as_bytes().to_vec()));
    }
    let value = value(entry)?;
    Some(Bytes([entry.as_bytes(), b"=", value.as_bytes()].concat()))
}

fn terminal_of_caller() -> Terminal {
    let (columns, rows) = size().unwrap_or((80, 24));
    let term = std::env::var("TERM").ok().filter(|term| !term.is_empty()).unwrap_or_else(|| "xterm".into());
    Terminal { term, columns, rows }
}

fn size() -> Option<(u16, u16)> {
    terminal::size(stdin()).or_else(|| terminal::size(stdout())).or_else(|| terminal::size(stderr()))
}

fn run(session: &Session, params: &ExecParams, printer: &Printer) -> Outcome {
    // Before signals are held back: a daemon that this starts must not inherit that.
    let mut daemon = session.daemon().map_err(before_start)?;
    let signals = hold_signals(params.terminal.is_some()).map_err(before_start)?;
    let input = input().map_err(before_start)?;
    let raw = params.terminal.is_some().then(raw_mode).flatten();
    let id =
        daemon.send::<ExecStart>(params, &[input.as_fd(), stdout().as_fd(), stderr().as_fd()]).map_err(before_start)?;
    let ended = wait(&mut daemon, &signals, id);
    drop(raw);
    match ended {
        Ok(ExecResult { status, memory_limit }) => {
            if let Some(limit) = memory_limit {
                printer.warn(&over_memory(limit));
            }
            Ok(status)
        }
        Err(error) if has_started(&error) => Err(error.into()),
        Err(error) => Err(before_start(error)),
    }
}

/// From here on they come by a descriptor.
fn hold_signals(terminal: bool) -> Result<SignalFd, Error> {
    let failed = |e: nix::Error| Error::new(Kind::Internal, format!("signals: {e}"));
    let mut set: SigSet = PASSED.iter().map(|(number, _)| *number).collect();
    if terminal {
        set.add(Number::SIGWINCH);
    }
    let mut held = set;
    held.add(Number::SIGTSTP);
    held.thread_block().map_err(failed)?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map_err(failed)
}

/// Our standard input; nothing if it is a terminal that somebody else reads: as a background
/// job we would be stopped for reading it, and the daemon, which is in no job, would not.
fn input() -> Result<Input, Error> {
    let background = tcgetpgrp(stdin()).is_ok_and(|group| group != rustix::process::getpgrp());
    if !background {
        return Ok(Input::Ours);
    }
    let null = std::fs::File::open("/dev/null").map_err(|e| Error::new(Kind::Internal, format!("/dev/null: {e}")))?;
    Ok(Input::Null(null.into()))
}

enum Input {
    Ours,
    Null(OwnedFd),
}

impl AsFd for Input {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Ours => stdin(),
            Self::Null(null) => null.as_fd(),
        }
    }
}

/// Raw mode, if standard input is a terminal. Undone when dropped; in a panic, which drops
/// nothing, by the hook.
fn raw_mode() -> Option<RawMode<'static>> {
    let before = tcgetattr(stdin()).ok()?;
    let raw = RawMode::enter(stdin()).ok()?;
    let next = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let _gone = tcsetattr(stdin(), OptionalActions::Now, &before);
        next(info);
    }));
    Some(raw)
}

/// Passes signals on until the answer is there, or the command was asked to end and does not.
fn wait(daemon: &mut Client, signals: &SignalFd, id: u64) -> Result<ExecResult, Error> {
    let mut patience = Patience::default();
    loop {
        while let Some(message) = daemon.buffered()? {
            if let Some(answer) = Client::answer_to::<ExecStart>(id, message) {
                return answer;
            }
        }
        let mut polled =
            [PollFd::new(daemon.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let left = patience.left(Instant::now());
        match poll(&mut polled, left.map_or(PollTimeout::NONE, within)) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(e) => return Err(Error::new(Kind::Internal, format!("poll: {e}"))),
        }
        let [readable, signalled] = polled.map(|fd| fd.any().unwrap_or(false));
        if signalled {
            pass_on(daemon, signals, &mut patience)?;
        }
        if let Some(signal) = patience.over(Instant::now()) {
            return Ok(ExecResult { status: ended_by(signal), memory_limit: None });
        }
        if readable {
            daemon.fill()?;
        }
    }
}

/// Their answers are not waited for: a command that has just ended takes no more signals.
fn pass_on(daemon: &mut Client, signals: &SignalFd, patience: &mut Patience) -> Result<(), Error> {
    while let Ok(Some(received)) = signals.read_signal() {
        let number = i32::try_from(received.ssi_signo).ok().and_then(|n| Number::try_from(n).ok());
        if number == Some(Number::SIGWINCH) {
            if let Some((columns, rows)) = size() {
                daemon.send::<ExecResize>(&ExecResizeParams { exec: NAME.into(), columns, rows }, &[])?;
            }
        } else if let Some((_, signal)) = PASSED.iter().find(|(passed, _)| Some(*passed) == number) {
            patience.told(*signal, Instant::now());
            daemon.send::<ExecSignal>(&ExecSignalParams { exec: NAME.into(), signal: *signal }, &[])?;
        }
    }
    Ok(())
}

/// How long a command that was asked to end is waited for. A first INT has no deadline: programs
/// that go on after it are not few.
#[derive(Debug, Default)]
struct Patience {
    asked: Option<(Signal, Instant)>,
    again: Option<Signal>,
}

impl Patience {
    fn told(&mut self, signal: Signal, now: Instant) {
        if !matches!(signal, Signal::Int | Signal::Term) {
            return;
        }
        match self.asked {
            Some((_, at)) if now.duration_since(at) < GRACE => self.again = Some(signal),
            _ => self.asked = Some((signal, now)),
        }
    }

    /// Until there is none left, if it can end by itself.
    fn left(&self, now: Instant) -> Option<Duration> {
        match self.asked {
            Some((Signal::Term, at)) => Some((at + GRACE).saturating_duration_since(now)),
            _ => None,
        }
    }

    /// The signal by which the command has ended then.
    fn over(&self, now: Instant) -> Option<Signal> {
        self.again.or_else(|| self.left(now).filter(Duration::is_zero).map(|_| Signal::Term))
    }
}

/// At least so long, in poll's milliseconds.
fn within(time: Duration) -> PollTimeout {
    PollTimeout::try_from(time.as_millis() + 1).unwrap_or(PollTimeout::MAX)
}

/// The exit status as a shell has it.
fn ended_by(signal: Signal) -> u8 {
    let number = PASSED.iter().find(|(_, passed)| *passed == signal).map_or(0, |(number, _)| *number as i32);
    128 + u8::try_from(number).unwrap_or(0)
}

/// As the daemon says; one that went away while it was waited for had most likely started it.
fn has_started(error: &Error) -> bool {
    match error.data.details.get("started").and_then(serde_json::Value::as_bool) {
        Some(started) => started,
        None => error.kind() == Kind::DaemonUnreachable,
    }
}

/// An error of ours or of what we need; a command line that is wrong keeps its own status.
fn before_start(error: Error) -> Failure {
    let status = matches!(error.kind().exit(), 3..=7).then_some(NOT_STARTED);
    Failure { error, status }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_variable_without_a_value_takes_the_callers() {
        let value = |name: &OsStr| (name == "KNOWN").then(|| OsString::from("a=b"));
        let of = |entry: &str| environment(OsStr::new(entry), value).map(|bytes| bytes.to_text().into_owned());
        assert_eq!(of("A=b"), Some("A=b".into()));
        assert_eq!(of("A="), Some("A=".into()));
        assert_eq!(of("KNOWN"), Some("KNOWN=a=b".into()));
        assert_eq!(of("UNKNOWN"), None);
    }

    #[test]
    fn a_command_that_was_asked_to_end_is_waited_for_ten_seconds_or_until_it_is_asked_again() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let over = |told: &[(Signal, u64)], now| {
            let mut patience = Patience::default();
            told.iter().for_each(|(signal, second)| patience.told(*signal, at(*second)));
            patience.over(at(now))
        };
        assert_eq!(over(&[(Signal::Term, 0)], 9), None);
        assert_eq!(over(&[(Signal::Term, 0)], 10), Some(Signal::Term));
        assert_eq!(over(&[(Signal::Term, 0), (Signal::Term, 1)], 1), Some(Signal::Term));
        assert_eq!(over(&[(Signal::Term, 0), (Signal::Int, 1)], 1), Some(Signal::Int));
        assert_eq!(over(&[(Signal::Int, 0)], 1000), None, "it may mean something else");
        assert_eq!(over(&[(Signal::Int, 0), (Signal::Int, 9)], 9), Some(Signal::Int));
        assert_eq!(over(&[(Signal::Int, 0), (Signal::Int, 11)], 500), None);
        assert_eq!(over(&[(Signal::Int, 0), (Signal::Term, 11)], 21), Some(Signal::Term));
        assert_eq!(over(&[(Signal::Hup, 0), (Signal::Usr1, 0), (Signal::Quit, 0)], 100), None);
        assert_eq!([ended_by(Signal::Int), ended_by(Signal::Term)], [130, 143]);
    }

    #[test]
    fn what_failed_before_the_start_is_125_unless_the_command_line_was_wrong() {
        let status = |kind| before_start(Error::new(kind, "")).status;
        assert_eq!(status(Kind::WorkspaceNotFound), Some(125));
        assert_eq!(status(Kind::DaemonUnreachable), Some(125));
        assert_eq!(status(Kind::Usage), None);
        assert_eq!(status(Kind::TimedOut), None);
        let started = Error::new(Kind::GuestUnreachable, "").details(json!({ "started": true }));
        assert!(has_started(&started) && !has_started(&Error::new(Kind::GuestUnreachable, "")));
    }
}

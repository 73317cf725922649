//! A command's supervisor.
//!
//! The shell that sshd waits for forks the supervisor, and the supervisor starts the command by
//! `posix_spawn`. Two processes are needed: sshd ends the session when its child exits, and
//! background children need a parent that stays, or they could not be told from what a dead
//! supervisor left behind. The shell waits for one byte, the status, and exits with it.
//!
//! All three are one process group, sshd's: a signal for the channel reaches the command once, by
//! the kernel; shell and supervisor block it. (KILL ends all three, and PID 1 what was below.)
//!
//! The tree ends when the command's channel goes (its standard output has no reader while the
//! connection lives, or its terminal hangs up), or when the shell or its sshd dies. At a normal
//! end the supervisor lets go of the channel, reports the status, and stays for as long as
//! children live.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, getppid, pipe2};

use crate::process::Program;
use crate::{authority, say, sys, tree};

/// Tells that the parent died. None that sshd passes on for a channel, nor one that a terminal
/// sends.
const PARENT_DIED: Signal = Signal::SIGPWR;
/// How long the end of a tree may take here; PID 1 has the rest.
const END: Duration = Duration::from_secs(10);
/// The status when the supervisor was killed, as for the command.
const KILLED: u8 = 137;

/// The shell's first act: it dies with its sshd, and of nothing else.
pub fn shell_first() {
    let parent = getppid();
    let mut signals = SigSet::all();
    signals.remove(PARENT_DIED);
    // Neither fails with these arguments.
    let _infallible = (signals.thread_set_mask(), prctl::set_pdeathsig(PARENT_DIED));
    if getppid() != parent {
        std::process::exit(0);
    }
}

/// What a session turns out to be for.
pub enum Work {
    Command(Program),
    /// It is done already, with this status.
    Done(u8),
}

/// Does the session's work to its end, in the process that sshd waits for. `work` is asked in the
/// supervisor: where it has to wait for its frame, all that comes before the command is done.
pub fn command(work: impl FnOnce() -> Work) -> u8 {
    let forked = pipe2(OFlag::O_CLOEXEC).and_then(|pipe| Ok((pipe, sys::fork()?)));
    match forked {
        Ok(((status, report), ForkResult::Parent { .. })) => {
            drop(report);
            let mut byte = [KILLED];
            // A supervisor that was killed reports nothing.
            let _killed = std::fs::File::from(status).read_exact(&mut byte);
            byte[0]
        }
        Ok(((status, report), ForkResult::Child)) => {
            drop(status);
            supervise(work, report);
            std::process::exit(0);
        }
        Err(e) => {
            say(format!("no process for the command: {}", e.desc()).as_bytes());
            126
        }
    }
}

fn supervise(work: impl FnOnce() -> Work, report: OwnedFd) {
    let mut watched = SigSet::empty();
    watched.add(Signal::SIGCHLD);
    watched.add(PARENT_DIED);
    let shell = getppid();
    let prepared = SigSet::all()
        .thread_block()
        .and_then(|()| prctl::set_pdeathsig(PARENT_DIED))
        .and_then(|()| SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC));
    if getppid() != shell {
        return;
    }
    let status = match prepared {
        Ok(signals) => match authority::register().map(|()| work()) {
            Ok(Work::Command(program)) => supervised(&program, &signals),
            // What a run's start left behind is PID 1's, and not waited for.
            Ok(Work::Done(status)) => return tell(report, status),
            Err(e) => refused(format!("the guest's init does not answer: {e}").as_bytes(), 126),
        },
        Err(e) => refused(e.desc().as_bytes(), 126),
    };
    let Some(status) = status else {
        tree::end_own(END, |_| {});
        return;
    };
    // From here on nobody's death matters but the children's own.
    let _infallible = prctl::set_pdeathsig(None);
    let _kept_open = let_go();
    tell(report, status);
    while !matches!(waitpid(None, None), Err(e) if e != Errno::EINTR) {}
}

/// The shell may have been killed: then nobody asks.
fn tell(report: OwnedFd, status: u8) {
    let _unasked = std::fs::File::from(report).write_all(&[status]);
}

/// Runs the command below this process, which adopts what the command leaves behind.
fn supervised(program: &Program, signals: &SignalFd) -> Option<u8> {
    // Only now: it would adopt what a run's start leaves behind, too.
    match prctl::set_child_subreaper(true) {
        Ok(()) => attend(program, signals),
        Err(e) => refused(e.desc().as_bytes(), 126),
    }
}

fn refused(why: &[u8], status: u8) -> Option<u8> {
    say(why);
    Some(status)
}

/// Starts the command and waits for its end; `None` when its tree is to end first.
fn attend(program: &Program, signals: &SignalFd) -> Option<u8> {
    let mut early = taken_early();
    let command = match program.start(None, false) {
        Ok(pid) => pid,
        Err(refusal) => return refused(&refusal.why, refusal.status),
    };
    // They were for the command, which was not there yet; one that has just reached it is the same once more.
    early.extend(taken_early());
    for signal in early {
        let _ended = kill(command, signal);
    }
    let stdout = io::stdout();
    loop {
        let mut fds = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            // Only errors: no reader is left, or the terminal hung up.
            PollFd::new(stdout.as_fd(), PollFlags::empty()),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
        if fds[1].any() == Some(true) {
            return None;
        }
        // One may stand for several children; they are all asked for below.
        if fds[0].any() == Some(true) && signal(signals) == Some(PARENT_DIED) {
            return None;
        }
        if let Some(status) = reap(command) {
            return Some(status);
        }
    }
}

/// Takes the signals for the channel that have come so far; they are blocked here, and stay so.
fn taken_early() -> Vec<Signal> {
    const FOR_THE_CHANNEL: [Signal; 6] =
        [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let Ok(come) = SignalFd::with_flags(&FOR_THE_CHANNEL.into_iter().collect(), flags) else { return Vec::new() };
    std::iter::from_fn(|| signal(&come)).collect()
}

fn signal(signals: &SignalFd) -> Option<Signal> {
    let info = signals.read_signal().ok()??;
    Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok()
}

/// Reaps what ended; the command's status if it is among them.
fn reap(command: Pid) -> Option<u8> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return None,
            Ok(ended) if ended.pid() == Some(command) => return shell_status(ended),
            Ok(_) | Err(Errno::EINTR) => {}
            // No child at all: the command was reaped, which nobody else does.
            Err(_) => return Some(KILLED),
        }
    }
}

/// A status as a shell would put it.
pub fn shell_status(ended: WaitStatus) -> Option<u8> {
    match ended {
        WaitStatus::Exited(_, status) => u8::try_from(status).ok(),
        WaitStatus::Signaled(_, signal, _) => u8::try_from(128 + signal as i32).ok(),
        _ => None,
    }
}

/// Gives up descriptors 0–2 and the directory, so that nothing is held open from here.
pub fn let_go() -> io::Result<()> {
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    std::env::set_current_dir("/")
}

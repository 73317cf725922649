//! A run's supervisor, from its fork to the `end` file.
//!
//! ```text
//! running ──exit──────────────────────────► tree ended ► output drained ► end
//!    ├─TERM (cancel): INT, TERM, KILL ──exit─┘
//!    └─limit passed: TERM, KILL ────────exit─┘
//! ```

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use guest::run::{End, Stream};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, setsid};

use super::output::{Flow, Output};
use super::{Run, STANDS, claim, tell, write_end};
use crate::process::{Program, Refusal};
use crate::{authority, supervisor, tree};

/// How soon a held stream is looked at again.
const HELD: Duration = Duration::from_millis(50);
/// How long the end of the tree may take here.
const END: Duration = Duration::from_secs(10);
/// What is sent, and how long after the one before.
type Steps = &'static [(Signal, Duration)];
const CANCEL: Steps = &[
    (Signal::SIGINT, Duration::ZERO),
    (Signal::SIGTERM, Duration::from_secs(5)),
    (Signal::SIGKILL, Duration::from_secs(3)),
];
const LIMIT: Steps = &[(Signal::SIGTERM, Duration::ZERO), (Signal::SIGKILL, Duration::from_secs(3))];

/// Supervises a run to its end. `report` hears how it began.
pub fn run(run: &Run<'_>, program: &Program, report: File) {
    let claimed = stand(run.id).and_then(|signals| Ok((signals, claim(run.id)?)));
    let (signals, directory) = match claimed {
        Ok(all) => all,
        Err(refusal) => return tell(&report, Some(&refusal)),
    };
    // Before anything of the guest's runs that could keep it from being said.
    let _unheard = (&report).write_all(&[STANDS]);
    let end = match begin(run, program, &directory) {
        Ok((command, outputs)) => {
            tell(&report, None);
            drop(report);
            Attended { command, outputs, signals, ladder: None, ended: None }.attend(run.limit)
        }
        Err(refusal) => {
            let end =
                End::NotStarted { status: refusal.status, why: String::from_utf8_lossy(&refusal.why).into_owned() };
            let _kept = save(&directory, &end);
            return tell(&report, Some(&refusal));
        }
    };
    let _kept = save(&directory, &end);
}

/// A full disk may have room later; a directory that is gone has not.
fn save(directory: &Path, end: &End) -> io::Result<()> {
    loop {
        match write_end(directory, end) {
            Err(e) if e.kind() == io::ErrorKind::StorageFull => std::thread::sleep(HELD),
            other => return other,
        }
    }
}

/// Becomes independent of the session, and known to PID 1.
fn stand(id: &str) -> Result<SignalFd, Refusal> {
    let refuse = |why: &str| Refusal::new(126, id.as_bytes(), why);
    let mut watched = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM] {
        watched.add(signal);
    }
    let signals = SigSet::all()
        .thread_block()
        .and_then(|()| setsid())
        .and_then(|_| prctl::set_child_subreaper(true))
        .and_then(|()| SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK))
        .map_err(|e| refuse(e.desc()))?;
    supervisor::let_go().map_err(|e| refuse(&e.to_string()))?;
    match authority::register_run(id) {
        Ok(true) => Ok(signals),
        Ok(false) => Err(refuse("the run is alive")),
        Err(e) => Err(refuse(&format!("the guest's init does not answer: {e}"))),
    }
}

fn begin(run: &Run<'_>, program: &Program, directory: &Path) -> Result<(Pid, [Output; 2]), Refusal> {
    let refuse = |e: io::Error| Refusal::new(126, run.id.as_bytes(), &e.to_string());
    let stdin = input(run.stdin).map_err(refuse)?;
    let (out, out_source) = Output::new(directory, Stream::Out).map_err(|e| refuse(e.into()))?;
    let (err, err_source) = Output::new(directory, Stream::Err).map_err(|e| refuse(e.into()))?;
    let stdio = [stdin.as_fd(), out_source.as_fd(), err_source.as_fd()];
    let command = program.start(Some(stdio), true)?;
    // Nothing of the work tree is held from here.
    let _infallible = std::env::set_current_dir("/");
    Ok((command, [out, err]))
}

/// The command's input and then its end, with nobody who has to feed it.
fn input(bytes: &[u8]) -> io::Result<File> {
    if bytes.is_empty() {
        return File::open("/dev/null");
    }
    let mut file = File::from(memfd_create(c"input", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

struct Attended {
    command: Pid,
    outputs: [Output; 2],
    signals: SignalFd,
    ladder: Option<Ladder>,
    ended: Option<WaitStatus>,
}

impl Attended {
    fn attend(mut self, limit: Option<Duration>) -> End {
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut held = false;
        while self.ended.is_none() {
            let ladder = self.ladder.as_ref().map(Ladder::next);
            self.wait(if ladder.is_some() { ladder } else { until }, held);
            held = self.outputs.each_mut().map(Output::pass).contains(&Flow::Held);
            if self.told() && self.ladder.is_none() {
                self.ladder = Some(Ladder::new(End::Cancelled, CANCEL));
            }
            if self.ladder.is_none() && until.is_some_and(|until| Instant::now() >= until) {
                self.ladder = Some(Ladder::new(End::TimedOut, LIMIT));
            }
            if let Some(ladder) = &mut self.ladder {
                ladder.climb(self.command);
            }
            self.reap();
        }
        let command = self.command;
        tree::end_own(END, |_| {});
        self.drain();
        match (self.ladder, self.ended) {
            (Some(ladder), _) => ladder.end,
            (None, Some(WaitStatus::Signaled(pid, signal, _))) if pid == command => {
                End::Signalled(u8::try_from(signal as i32).unwrap_or(u8::MAX))
            }
            (None, Some(status)) => End::Exited(supervisor::shell_status(status).unwrap_or(u8::MAX)),
            (None, None) => End::Exited(u8::MAX),
        }
    }

    fn wait(&self, until: Option<Instant>, held: bool) {
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        // An ended stream would be ready for ever; its writers come back at no time.
        fds.extend(
            self.outputs.iter().filter(|o| !held && o.open()).map(|o| PollFd::new(o.as_fd(), PollFlags::POLLIN)),
        );
        let mut pause = until.map(|until| until.saturating_duration_since(Instant::now()));
        if held {
            pause = Some(pause.map_or(HELD, |pause| pause.min(HELD)));
        }
        // Rounded up, or the last part of a millisecond would be spent awake.
        let timeout = match pause {
            None => PollTimeout::NONE,
            Some(pause) => PollTimeout::try_from(pause + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX),
        };
        // Interrupted or not: all is looked at.
        let _ready = poll(&mut fds, timeout);
    }

    /// Whether somebody asked for the end.
    fn told(&self) -> bool {
        let mut told = false;
        while let Ok(Some(info)) = self.signals.read_signal() {
            told |= i32::try_from(info.ssi_signo) == Ok(libc::SIGTERM);
        }
        told
    }

    fn reap(&mut self) {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => return,
                Ok(ended) if ended.pid() == Some(self.command) => self.ended = Some(ended),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => {
                    // Without a child the command is among those that ended.
                    self.ended.get_or_insert(WaitStatus::Exited(self.command, 255));
                    return;
                }
            }
        }
    }

    /// What the tree wrote before its end. A writer elsewhere, that was handed the descriptor, is
    /// not waited for; nor is the host once somebody asks for the end.
    fn drain(&mut self) {
        while self.outputs.each_mut().map(Output::pass).contains(&Flow::Held) && !self.told() {
            std::thread::sleep(HELD);
        }
    }
}

/// The way to an end that was asked for: ever harder, until the command is gone.
struct Ladder {
    end: End,
    steps: Steps,
    at: Instant,
}

impl Ladder {
    fn new(end: End, steps: Steps) -> Self {
        Self { end, steps, at: Instant::now() }
    }

    fn next(&self) -> Instant {
        self.at
    }

    fn climb(&mut self, command: Pid) {
        let Some(((signal, _), rest)) = self.steps.split_first() else { return };
        if Instant::now() < self.at {
            return;
        }
        // The command leads its group; either may have ended by itself.
        let _gone = killpg(command, *signal);
        if *signal == Signal::SIGKILL {
            for pid in tree::descendants(Pid::this()) {
                let _gone = kill(pid, Signal::SIGKILL);
            }
        }
        self.steps = rest;
        // After the last step only the kernel's word is waited for.
        self.at += rest.first().map_or(Duration::from_secs(3600), |(_, pause)| *pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_the_bytes_and_then_the_end() {
        use std::io::Read as _;
        for text in ["", "a prompt\n"] {
            let mut read = String::new();
            input(text.as_bytes()).unwrap().read_to_string(&mut read).unwrap();
            assert_eq!(read, text);
        }
    }
}

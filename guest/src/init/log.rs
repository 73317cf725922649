//! What sshd says, passed on to the engine's log: bounded lines, and few of them.
//!
//! The guest can make sshd talk without end, and the engine would write it all to the host's disk.

use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{pipe2, read};

const LINE: usize = 256;
/// So many lines in each span of time.
const LINES: u32 = 20;
const SPAN: Duration = Duration::from_secs(10);

pub struct Log {
    output: OwnedFd,
    source: OwnedFd,
    line: Vec<u8>,
    budget: Budget,
}

impl AsFd for Log {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }
}

impl Log {
    pub fn new() -> io::Result<Self> {
        let (output, source) = pipe2(OFlag::O_CLOEXEC)?;
        nix::fcntl::fcntl(&output, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self { output, source, line: Vec::new(), budget: Budget::new(Instant::now()) })
    }

    /// Where sshd writes to.
    pub fn source(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }

    /// Passes on what was written so far.
    pub fn forward(&mut self) {
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = read(&self.output, &mut bytes) {
            for &byte in &bytes[..length] {
                if byte == b'\n' {
                    let line = std::mem::take(&mut self.line);
                    self.say(&line);
                } else if self.line.len() < LINE {
                    self.line.push(if (b' '..=b'~').contains(&byte) { byte } else { b'?' });
                }
            }
            // The rest comes with the next round.
            if length < bytes.len() {
                return;
            }
        }
    }

    /// A line of the log, unless there were too many.
    pub fn say(&mut self, line: &[u8]) {
        if line.is_empty() || !self.budget.take(Instant::now()) {
            return;
        }
        let mut stderr = io::stderr();
        // A pipe that has room takes a line of this length whole: PID 1 waits for nobody.
        let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
        if matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1)) && fds[0].revents() == Some(PollFlags::POLLOUT) {
            // A lost line of the log is a lost line.
            let _lost = stderr.write_all(&[line, b"\n"].concat());
        }
    }
}

struct Budget {
    since: Instant,
    left: u32,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { since: now, left: LINES }
    }

    fn take(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) >= SPAN {
            *self = Self::new(now);
        }
        let granted = self.left > 0;
        self.left = self.left.saturating_sub(1);
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_later_lines_pass_again() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        assert_eq!((0..1000).filter(|_| budget.take(start)).count(), LINES as usize);
        assert!(!budget.take(start + SPAN / 2));
        assert!(budget.take(start + SPAN));
    }
}

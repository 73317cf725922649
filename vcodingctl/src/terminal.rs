//! The caller's terminal: its size, raw mode, and putting everything back.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::termios::{self, LocalModes, OptionalActions, Termios};

/// Raw mode for as long as this lives.
#[derive(Debug)]
pub struct RawMode<'a> {
    fd: BorrowedFd<'a>,
    before: Termios,
}

/// What a guest may have left on: alternate screen, mouse reports, bracketed paste, hidden
/// cursor, application keys, colours. Turned off when its session ends. (1047, as 1049 would also
/// move the cursor where the screen had not been changed.)
const RESET: &[u8] = b"\x1b[?1047l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?25h\x1b[?1l\x1b>\x1b[0m";

impl<'a> RawMode<'a> {
    /// # Errors
    /// If `fd` is no terminal.
    pub fn enter(fd: BorrowedFd<'a>) -> rustix::io::Result<Self> {
        let before = termios::tcgetattr(fd)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(fd, OptionalActions::Drain, &raw)?;
        Ok(Self { fd, before })
    }
}

impl Drop for RawMode<'_> {
    fn drop(&mut self) {
        // Nothing better can be done about a terminal that is gone.
        if termios::isatty(std::io::stdout()) {
            let _gone = rustix::io::write(std::io::stdout(), RESET);
        }
        let _gone = termios::tcsetattr(self.fd, OptionalActions::Drain, &self.before);
    }
}

/// A terminal that does not show what is typed, for as long as this lives.
#[derive(Debug)]
pub struct Silent<'a> {
    fd: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> Silent<'a> {
    /// # Errors
    /// If `fd` is no terminal.
    pub fn enter(fd: BorrowedFd<'a>) -> rustix::io::Result<Self> {
        let before = termios::tcgetattr(fd)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        termios::tcsetattr(fd, OptionalActions::Flush, &silent)?;
        Ok(Self { fd, before })
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(self.fd, OptionalActions::Flush, &self.before);
    }
}

/// Columns and rows of the terminal at `fd`.
pub fn size(fd: impl AsFd) -> Option<(u16, u16)> {
    termios::tcgetwinsize(fd).ok().filter(|s| s.ws_col > 0 && s.ws_row > 0).map(|s| (s.ws_col, s.ws_row))
}

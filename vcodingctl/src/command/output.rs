//! A command's output on this program's own: byte for byte, each stream on its own descriptor. What is a terminal gets
//! whole lines, and nothing in them that it would obey.
//!
//! A reader that does not read is waited for, and so are signals meanwhile.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use protocol::event::OutputStream;
use protocol::run::{RunOutput, RunOutputPart};
use protocol::{Error, Kind};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use crate::printer::Printer;
use crate::render::text::{clean, counted};
use crate::wait::{self, Interrupts};

/// A line on a terminal that is longer is several.
const MOST: usize = 1 << 20;
/// What a pipe takes at once that takes anything.
const ATOMIC: usize = 4096;

/// Where the output goes.
#[derive(Debug)]
pub struct Outputs<'a> {
    printer: &'a Printer,
    /// What is there of a line, for a terminal.
    open: [Vec<u8>; 2],
    /// What was not written yet.
    waiting: VecDeque<(OutputStream, Vec<u8>)>,
}

impl<'a> Outputs<'a> {
    pub fn new(printer: &'a Printer) -> Self {
        Self { printer, open: Default::default(), waiting: VecDeque::new() }
    }

    pub fn write(&mut self, part: &RunOutputPart) {
        match part {
            RunOutputPart::Stdout(bytes) => self.bytes(OutputStream::Stdout, bytes.as_slice()),
            RunOutputPart::Stderr(bytes) => self.bytes(OutputStream::Stderr, bytes.as_slice()),
            RunOutputPart::Dropped(bytes) => {
                self.close();
                self.printer.warn(&format!("the log is full: {} of output were not kept", counted(*bytes, "byte")));
            }
        }
    }

    /// Nothing follows: what is there of a line is one.
    pub fn close(&mut self) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let line = std::mem::take(&mut self.open[at(stream)]);
            if !line.is_empty() {
                self.line(stream, &line);
            }
        }
    }

    fn bytes(&mut self, stream: OutputStream, bytes: &[u8]) {
        let terminal = match stream {
            OutputStream::Stdout => self.printer.data_terminal,
            OutputStream::Stderr => self.printer.talk_terminal,
        };
        if !terminal {
            return self.put(stream, bytes);
        }
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let open = &mut self.open[at(stream)];
            open.extend_from_slice(part);
            if part.ends_with(b"\n") || open.len() > MOST {
                let line = std::mem::take(open);
                self.line(stream, &line);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Writes what waits; false if a signal came first, or some time passed.
    pub fn flush(&mut self, interrupts: &Interrupts) -> bool {
        while let Some((stream, bytes)) = self.waiting.pop_front() {
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let fd = descriptor(stream);
                if !interrupts.or_writable(fd) {
                    self.waiting.push_front((stream, rest.to_vec()));
                    return false;
                }
                self.printer.close_line();
                match rustix::io::write(fd, &rest[..rest.len().min(ATOMIC)]) {
                    Ok(written) => rest = &rest[written..],
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(error) => match stream {
                        OutputStream::Stdout => self.printer.unwritable(&error.into()),
                        // Who closed it wants none of it; what else is wrong can be told nowhere.
                        OutputStream::Stderr if error == Errno::PIPE => break,
                        OutputStream::Stderr => std::process::exit(1),
                    },
                }
            }
        }
        true
    }

    fn line(&mut self, stream: OutputStream, line: &[u8]) {
        let mut line = shown(line.strip_suffix(b"\n").unwrap_or(line));
        line.push('\n');
        self.put(stream, line.as_bytes());
    }

    fn put(&mut self, stream: OutputStream, bytes: &[u8]) {
        match self.waiting.back_mut() {
            Some((last, waiting)) if *last == stream => waiting.extend_from_slice(bytes),
            _ => self.waiting.push_back((stream, bytes.to_vec())),
        }
    }
}

fn descriptor(stream: OutputStream) -> BorrowedFd<'static> {
    match stream {
        OutputStream::Stdout => rustix::stdio::stdout(),
        OutputStream::Stderr => rustix::stdio::stderr(),
    }
}

fn at(stream: OutputStream) -> usize {
    match stream {
        OutputStream::Stdout => 0,
        OutputStream::Stderr => 1,
    }
}

/// What a terminal would show of a line, and nothing that it would obey.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches('\r');
    let text = text.rsplit_once('\r').map_or(text, |(_, last)| last);
    clean(text).into_owned()
}

/// Through which a daemon's pieces come.
#[derive(Debug)]
pub struct Pipe {
    end: OwnedFd,
    buffer: Vec<u8>,
}

impl Pipe {
    /// One, and its writing end for the daemon; none where the host has no more to give.
    pub fn new() -> Option<(Self, OwnedFd)> {
        let (end, writing) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).ok()?;
        rustix::io::ioctl_fionbio(&end, true).ok()?;
        Some((Self { end, buffer: Vec::new() }, writing))
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }

    /// What is there, or comes soon, and whether there may be more later.
    ///
    /// # Errors
    /// [`Kind::InvalidMessage`] where it is no piece.
    pub fn read(&mut self) -> Result<(Vec<RunOutput>, bool), Error> {
        wait::readable(self.end.as_fd());
        let old = self.buffer.len();
        self.buffer.resize(old + (64 << 10), 0);
        let read = rustix::io::read(&self.end, &mut self.buffer[old..]);
        self.buffer.truncate(old + read.unwrap_or(0));
        let mut pieces = Vec::new();
        let mut at = 0;
        while let Some((piece, length)) = RunOutput::decode(&self.buffer[at..])
            .map_err(|what| Error::new(Kind::InvalidMessage, format!("the daemon sent output that is none: {what}")))?
        {
            pieces.push(piece);
            at += length;
        }
        self.buffer.drain(..at);
        Ok((pieces, matches!(read, Ok(1..) | Err(Errno::AGAIN | Errno::INTR))))
    }
}

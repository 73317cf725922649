//! A stream of bytes, cut into lines.

use guest::run::Stream;

use crate::runs::log::{self, Ending, MAX_LINE, Writer};

/// Whole lines of at most so many bytes are one frame of the log: a reader takes them together.
const TOGETHER: usize = 16 << 10;

/// Gathers a stream's bytes until a line is whole, or until nothing more is there: a program that
/// waits in the middle of a line has its reader see it.
#[derive(Debug)]
pub(super) struct Lines {
    stream: Stream,
    /// The offset behind the last line that was appended.
    consumed: u64,
    partial: Vec<u8>,
}

impl Lines {
    pub(super) fn new(stream: Stream, consumed: u64) -> Self {
        Self { stream, consumed, partial: Vec::new() }
    }

    /// The offset behind all bytes that were fed.
    pub(super) fn position(&self) -> u64 {
        self.consumed + self.partial.len() as u64
    }

    pub(super) fn feed(&mut self, mut bytes: &[u8], writer: &mut Writer) -> Result<(), log::Error> {
        while !bytes.is_empty() {
            let together = bytes.iter().take(TOGETHER).rposition(|byte| *byte == b'\n');
            if let (true, Some(last)) = (self.partial.is_empty(), together) {
                let (whole, rest) = bytes.split_at(last + 1);
                self.consumed += whole.len() as u64;
                writer.append_lines(self.stream, whole, self.consumed)?;
                bytes = rest;
                continue;
            }
            let room = MAX_LINE - self.partial.len();
            let newline = bytes.iter().take(room + 1).position(|byte| *byte == b'\n');
            match newline {
                Some(at) => {
                    self.append(&bytes[..at], Ending::Newline, writer)?;
                    bytes = &bytes[at + 1..];
                }
                None if bytes.len() > room => {
                    self.append(&bytes[..room], Ending::Cut, writer)?;
                    bytes = &bytes[room..];
                }
                None => {
                    self.partial.extend_from_slice(bytes);
                    bytes = &[];
                }
            }
        }
        Ok(())
    }

    /// Nothing follows for now: what is there of a line is shown.
    pub(super) fn flush(&mut self, writer: &mut Writer) -> Result<(), log::Error> {
        if self.partial.is_empty() { Ok(()) } else { self.append(&[], Ending::Cut, writer) }
    }

    /// Nothing follows.
    pub(super) fn finish(&mut self, writer: &mut Writer) -> Result<(), log::Error> {
        if self.partial.is_empty() { Ok(()) } else { self.append(&[], Ending::Last, writer) }
    }

    fn append(&mut self, rest: &[u8], ending: Ending, writer: &mut Writer) -> Result<(), log::Error> {
        let length = self.partial.len() + rest.len();
        let consumed = self.consumed + length as u64 + u64::from(ending == Ending::Newline);
        if self.partial.is_empty() {
            writer.append(self.stream, rest, ending, consumed)?;
        } else {
            self.partial.extend_from_slice(rest);
            writer.append(self.stream, &self.partial, ending, consumed)?;
            self.partial.clear();
            self.partial.shrink_to(64 << 10);
        }
        self.consumed = consumed;
        Ok(())
    }
}

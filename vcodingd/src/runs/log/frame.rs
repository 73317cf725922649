//! The log's bytes.
//!
//! ```text
//! file:     magic (7) · version (1) · frames
//! frame:    length of body (u32) · CRC-32 of body (u32) · body
//! body:     kind (1), then
//!   line      number (u64) · time (i64) · stream (1) · ending (1) · consumed (u64) · bytes
//!   position  stream (1) · consumed (u64) · dropped (u64)
//!   dropped   number (u64) · time (i64) · bytes (u64)
//!   finished  time (i64) · the guest's end record, or nothing
//!   lines     first number (u64) · time (i64) · stream (1) · consumed (u64) · whole lines, each with its newline
//! ```
//!
//! Version 1 has no `lines`: each line is a frame of its own there. A file is written on in its own version, so that the
//! daemon that began it could still read it.
//!
//! Numbers are little endian. A body is never empty, so that zeros, as a power cut leaves them
//! behind, are no frame.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use flate2::Crc;
use guest::run::Stream;

use super::{Ending, MAX_LINE};

pub(super) const MAGIC: &[u8; 7] = b"vcodlog";
pub(super) const VERSION: u8 = 2;
/// Where the first frame begins.
pub(super) const START: u64 = 8;

const HEAD: usize = 8;
/// The longest body: a line's fields and its bytes.
const MAX_BODY: usize = 64 + MAX_LINE;
/// So much is read at once.
const CHUNK: usize = 64 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    Line { number: u64, time_ms: i64, stream: Stream, ending: Ending, consumed: u64, bytes: &'a [u8] },
    Position { stream: Stream, consumed: u64, dropped: u64 },
    Dropped { number: u64, time_ms: i64, bytes: u64 },
    Finished { time_ms: i64, end: &'a [u8] },
    Lines { first: u64, time_ms: i64, stream: Stream, consumed: u64, bytes: &'a [u8] },
}

impl<'a> Frame<'a> {
    pub(super) fn number(&self) -> Option<u64> {
        match self {
            Self::Line { number, .. } | Self::Dropped { number, .. } | Self::Lines { first: number, .. } => {
                Some(*number)
            }
            Self::Position { .. } | Self::Finished { .. } => None,
        }
    }

    /// How many records it is.
    pub(super) fn records(&self) -> u64 {
        match self {
            Self::Line { .. } | Self::Dropped { .. } => 1,
            Self::Lines { bytes, .. } => newlines(bytes),
            Self::Position { .. } | Self::Finished { .. } => 0,
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let head = out.len();
        out.extend_from_slice(&[0; HEAD]);
        match self {
            Self::Line { number, time_ms, stream, ending, consumed, bytes } => {
                out.push(1);
                out.extend_from_slice(&number.to_le_bytes());
                out.extend_from_slice(&time_ms.to_le_bytes());
                out.push(stream_byte(*stream));
                out.push(ending_byte(*ending));
                out.extend_from_slice(&consumed.to_le_bytes());
                out.extend_from_slice(bytes);
            }
            Self::Position { stream, consumed, dropped } => {
                out.push(2);
                out.push(stream_byte(*stream));
                out.extend_from_slice(&consumed.to_le_bytes());
                out.extend_from_slice(&dropped.to_le_bytes());
            }
            Self::Dropped { number, time_ms, bytes } => {
                out.push(3);
                out.extend_from_slice(&number.to_le_bytes());
                out.extend_from_slice(&time_ms.to_le_bytes());
                out.extend_from_slice(&bytes.to_le_bytes());
            }
            Self::Finished { time_ms, end } => {
                out.push(4);
                out.extend_from_slice(&time_ms.to_le_bytes());
                out.extend_from_slice(end);
            }
            Self::Lines { first, time_ms, stream, consumed, bytes } => {
                out.push(5);
                out.extend_from_slice(&first.to_le_bytes());
                out.extend_from_slice(&time_ms.to_le_bytes());
                out.push(stream_byte(*stream));
                out.extend_from_slice(&consumed.to_le_bytes());
                out.extend_from_slice(bytes);
            }
        }
        let body = head + HEAD;
        let length = u32::try_from(out.len() - body).expect("a line is at most MAX_LINE long");
        let sum = checksum(&out[body..]);
        out[head..head + 4].copy_from_slice(&length.to_le_bytes());
        out[head + 4..body].copy_from_slice(&sum.to_le_bytes());
    }

    fn decode(body: &'a [u8]) -> Option<Self> {
        let mut rest = Fields(body);
        Some(match rest.take::<1>()?[0] {
            1 => Self::Line {
                number: rest.u64()?,
                time_ms: rest.i64()?,
                stream: stream_of(rest.take::<1>()?[0])?,
                ending: ending_of(rest.take::<1>()?[0])?,
                consumed: rest.u64()?,
                bytes: rest.0,
            },
            2 => {
                Self::Position { stream: stream_of(rest.take::<1>()?[0])?, consumed: rest.u64()?, dropped: rest.u64()? }
            }
            3 => Self::Dropped { number: rest.u64()?, time_ms: rest.i64()?, bytes: rest.u64()? },
            4 => Self::Finished { time_ms: rest.i64()?, end: rest.0 },
            5 => Self::Lines {
                first: rest.u64()?,
                time_ms: rest.i64()?,
                stream: stream_of(rest.take::<1>()?[0])?,
                consumed: rest.u64()?,
                bytes: Some(rest.0).filter(|bytes| bytes.last() == Some(&b'\n'))?,
            },
            _ => return None,
        })
    }
}

/// How many lines end in `bytes`.
pub(super) fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

fn checksum(body: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(body);
    crc.sum()
}

fn stream_byte(stream: Stream) -> u8 {
    match stream {
        Stream::Out => 1,
        Stream::Err => 2,
    }
}

fn stream_of(byte: u8) -> Option<Stream> {
    match byte {
        1 => Some(Stream::Out),
        2 => Some(Stream::Err),
        _ => None,
    }
}

fn ending_byte(ending: Ending) -> u8 {
    match ending {
        Ending::Newline => 0,
        Ending::Cut => 1,
        Ending::Last => 2,
    }
}

fn ending_of(byte: u8) -> Option<Ending> {
    match byte {
        0 => Some(Ending::Newline),
        1 => Some(Ending::Cut),
        2 => Some(Ending::Last),
        _ => None,
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_le_bytes)
    }
}

/// What comes next in the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// A frame, and where it begins.
    Frame { at: u64, frame: Frame<'a> },
    /// The end of what was asked for.
    End,
    /// From here on there is no whole frame.
    Torn { at: u64 },
}

/// Reads frames one after another, beside other readers and the writer.
#[derive(Debug)]
pub(super) struct Frames {
    file: Arc<File>,
    /// Where the next frame begins.
    at: u64,
    buffer: Vec<u8>,
    /// The next frame's place in the buffer.
    start: usize,
}

impl Frames {
    pub(super) fn new(file: Arc<File>, at: u64) -> Self {
        Self { file, at, buffer: Vec::new(), start: 0 }
    }

    /// The next frame before `end`, which is where a frame ends or the file does.
    pub(super) fn next(&mut self, end: u64) -> io::Result<Next<'_>> {
        let at = self.at;
        if at >= end {
            return Ok(Next::End);
        }
        if !self.fill(HEAD, end)? {
            return Ok(Next::Torn { at });
        }
        let number = |from: usize| u32::from_le_bytes(self.buffer[from..from + 4].try_into().expect("four bytes"));
        let length = number(self.start) as usize;
        let sum = number(self.start + 4);
        if length == 0 || length > MAX_BODY || !self.fill(HEAD + length, end)? {
            return Ok(Next::Torn { at });
        }
        let body = self.start + HEAD..self.start + HEAD + length;
        let bytes = &self.buffer[body.clone()];
        let frame = if checksum(bytes) == sum { Frame::decode(bytes) } else { None };
        Ok(match frame {
            Some(frame) => {
                self.start = body.end;
                self.at = at + (HEAD + length) as u64;
                Next::Frame { at, frame }
            }
            None => Next::Torn { at },
        })
    }

    /// Makes `wanted` bytes from the next frame on available; false if the file ends before.
    fn fill(&mut self, wanted: usize, end: u64) -> io::Result<bool> {
        let available = self.buffer.len() - self.start;
        if available >= wanted {
            return Ok(true);
        }
        if self.at + wanted as u64 > end {
            return Ok(false);
        }
        self.buffer.drain(..self.start);
        self.start = 0;
        let left = usize::try_from(end - self.at).unwrap_or(usize::MAX);
        self.buffer.resize(left.min(wanted.max(CHUNK)), 0);
        let mut filled = available;
        while filled < self.buffer.len() {
            match self.file.read_at(&mut self.buffer[filled..], self.at + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.buffer.truncate(available);
                    return Err(error);
                }
            }
        }
        self.buffer.truncate(filled);
        // A single long line shall not keep its room for good.
        if wanted <= CHUNK {
            self.buffer.shrink_to(2 * CHUNK);
        }
        Ok(filled >= wanted)
    }
}

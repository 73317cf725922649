//! The output itself, as the command wrote it: the records put together again.

use guest::run::Stream;

use super::frame::{Frame, Next};
use super::{Ending, Error, Reader, io_error, lock};

/// What a part takes beside its bytes, about, wherever it is kept or sent.
const PART: usize = 64;

/// A piece of the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Where it begins: the record, and the byte in it.
    pub from: [u64; 2],
    /// Where the next one does.
    pub next: [u64; 2],
    pub time_ms: i64,
    pub parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Bytes {
        stream: Stream,
        bytes: Vec<u8>,
    },
    /// So many bytes are not in the log.
    Dropped {
        bytes: u64,
    },
}

/// Reads the output in pieces of a bounded size, in the order in which it came to the log.
#[derive(Debug)]
pub struct OutputReader {
    reader: Reader,
    /// Where the next piece begins. A record's newline is a byte of it.
    at: [u64; 2],
    /// What did not fit into the last piece.
    rest: Option<Rest>,
}

/// The end of a frame whose beginning was read.
#[derive(Debug)]
struct Rest {
    time_ms: i64,
    stream: Stream,
    bytes: Vec<u8>,
    /// How many of them were read.
    read: usize,
    /// After them the record is over.
    whole: bool,
}

impl OutputReader {
    pub(super) fn new(reader: Reader, from: [u64; 2]) -> Self {
        Self { reader, at: from, rest: None }
    }

    /// The number of the next record that was not begun.
    pub fn next_number(&self) -> u64 {
        self.at[0]
    }

    /// The next piece, of about `room` bytes, before record `until`; none at the newest. Blocking.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn read(&mut self, room: usize, until: u64) -> Result<Option<Output>, Error> {
        let mut output = Output { from: self.at, next: self.at, time_ms: 0, parts: Vec::new() };
        let mut room = room;
        while room > 0 && self.at[0] < until {
            if self.rest.is_none() && !self.next_frame(&mut output)? {
                break;
            }
            if let Some(rest) = &mut self.rest {
                let (time_ms, stream) = (rest.time_ms, rest.stream);
                let taken = rest.take(room, &mut self.at);
                output.time_ms = time_ms;
                room = room.saturating_sub(taken.len() + output.add(stream, taken));
                if rest.read == rest.bytes.len() {
                    self.rest = None;
                }
            }
        }
        output.next = self.at;
        Ok((output.next != output.from).then_some(output))
    }

    /// Goes on to the next frame; false if there is none yet.
    fn next_frame(&mut self, output: &mut Output) -> Result<bool, Error> {
        let shared = &self.reader.log.shared;
        let end = lock(&shared.written).length;
        let frame = match self.reader.frames.next(end).map_err(io_error("read", &shared.path))? {
            Next::End => return Ok(false),
            Next::Torn { at } => return Err(Error::Damaged { path: shared.path.clone(), at }),
            Next::Frame { frame, .. } => frame,
        };
        // A record that was passed over, by an index that is coarser.
        if frame.number().is_none_or(|first| first + frame.records() <= self.at[0]) {
            return Ok(true);
        }
        match frame {
            Frame::Line { time_ms, stream, ending, bytes, .. } => {
                let mut bytes = bytes.to_vec();
                if ending == Ending::Newline {
                    bytes.push(b'\n');
                }
                let read = usize::try_from(self.at[1]).unwrap_or(usize::MAX).min(bytes.len());
                if read == bytes.len() {
                    self.at = [self.at[0] + 1, 0];
                    return Ok(true);
                }
                self.rest = Some(Rest { time_ms, stream, bytes, read, whole: ending != Ending::Newline });
            }
            Frame::Lines { first, time_ms, stream, bytes, .. } => {
                let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
                let passed = usize::try_from(self.at[0].saturating_sub(first)).unwrap_or(usize::MAX);
                let before: usize = lines.by_ref().take(passed).map(<[u8]>::len).sum();
                let length = lines.next().map_or(0, <[u8]>::len);
                let inside = usize::try_from(self.at[1]).unwrap_or(usize::MAX).min(length);
                if inside == length {
                    self.at = [self.at[0] + 1, 0];
                }
                let read = before + inside;
                if read < bytes.len() {
                    self.rest = Some(Rest { time_ms, stream, bytes: bytes.to_vec(), read, whole: false });
                }
            }
            Frame::Dropped { time_ms, bytes, .. } => {
                output.time_ms = time_ms;
                output.parts.push(Part::Dropped { bytes });
                self.at = [self.at[0] + 1, 0];
            }
            Frame::Position { .. } | Frame::Finished { .. } => {}
        }
        Ok(true)
    }
}

impl Rest {
    /// The next bytes, at most `room`; `at` goes on behind them.
    fn take(&mut self, room: usize, at: &mut [u64; 2]) -> &[u8] {
        let begin = self.read;
        self.read = self.bytes.len().min(begin.saturating_add(room));
        let taken = &self.bytes[begin..self.read];
        match taken.iter().rposition(|byte| *byte == b'\n').filter(|_| !self.whole) {
            Some(last) => *at = [at[0] + super::frame::newlines(taken), (taken.len() - last - 1) as u64],
            None => at[1] += taken.len() as u64,
        }
        if self.whole && self.read == self.bytes.len() {
            *at = [at[0] + 1, 0];
        }
        taken
    }
}

impl Output {
    /// Returns what a new part takes beside its bytes.
    fn add(&mut self, of: Stream, more: &[u8]) -> usize {
        if let Some(Part::Bytes { stream, bytes }) = self.parts.last_mut()
            && *stream == of
        {
            bytes.extend_from_slice(more);
            return 0;
        }
        self.parts.push(Part::Bytes { stream: of, bytes: more.to_vec() });
        PART
    }
}

//! Appending, and what becomes of output when the log is full.

use std::collections::VecDeque;
use std::os::unix::fs::FileExt;

use guest::run::{End, Stream};
use protocol::Timestamp;

use super::frame::{Frame, START, newlines};
use super::{Ending, Error, Extent, Finish, Log, MAX_LINE, io_error, lock};

/// Appends to a [`Log`]; there is at most one. What was appended is seen by readers after
/// [`Self::publish`], and durable after [`Self::sync`].
#[derive(Debug)]
pub struct Writer {
    log: Log,
    /// `None` only while it is handed back.
    state: Option<State>,
}

/// What the writer knows; it outlives the [`Writer`], so that the next goes on where it was.
#[derive(Debug)]
pub(super) struct State {
    cap: u64,
    /// See [`super::KEPT`].
    kept: usize,
    /// Whole lines share a frame: the file's version knows that.
    shared_frames: bool,
    /// The file's length without what is pending.
    length: u64,
    /// Encoded and not yet written.
    pending: Vec<u8>,
    next: u64,
    streams: [Consumed; 2],
    /// How much the [`Frame::Dropped`] in the file speaks of.
    told: u64,
    finished: bool,
    /// Bytes written since the last sync.
    unsynced: u64,
}

/// How far a stream was consumed.
#[derive(Debug, Default)]
struct Consumed {
    /// Up to here everything is in a frame, or was dropped.
    settled: u64,
    /// Up to here it is on the disk.
    durable: u64,
    /// What a frame in the file says.
    recorded: u64,
    dropped: u64,
    /// The last line goes on: what is in the file of it is a piece.
    open: bool,
    /// The newest lines of a full log, in memory until they are dropped or the log is finished.
    kept: VecDeque<Kept>,
    kept_size: usize,
}

#[derive(Debug)]
struct Kept {
    time_ms: i64,
    ending: Ending,
    consumed: u64,
    bytes: Vec<u8>,
}

impl Kept {
    /// The memory it takes: lines may be empty.
    fn size(&self) -> usize {
        self.bytes.len() + size_of::<Self>()
    }
}

impl State {
    pub(super) fn new(cap: u64, kept: usize, shared_frames: bool) -> Self {
        Self {
            cap,
            kept,
            shared_frames,
            length: START,
            pending: Vec::new(),
            next: 0,
            streams: Default::default(),
            told: 0,
            finished: false,
            unsynced: 0,
        }
    }

    /// The number of the next record.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Takes note of a frame found in the file.
    pub(super) fn replay(&mut self, frame: &Frame<'_>) {
        match *frame {
            Frame::Line { stream, consumed, ending, .. } => {
                self.streams[at(stream)].found(consumed);
                self.streams[at(stream)].open = ending == Ending::Cut;
            }
            Frame::Lines { stream, consumed, .. } => {
                self.streams[at(stream)].found(consumed);
                self.streams[at(stream)].open = false;
            }
            Frame::Position { stream, consumed, dropped } => {
                self.streams[at(stream)].found(consumed);
                self.streams[at(stream)].dropped = dropped;
            }
            Frame::Dropped { bytes, .. } => self.told += bytes,
            Frame::Finished { .. } => {}
        }
        if let Some(number) = frame.number() {
            self.next = number + frame.records();
        }
    }

    /// Takes note of the file's state after all its frames.
    pub(super) fn opened(&mut self, length: u64, finished: bool) {
        self.length = length;
        self.finished = finished;
    }

    /// Once it is, it stays so: the file never gets shorter.
    fn is_full(&self) -> bool {
        self.length + self.pending.len() as u64 >= self.cap
    }

    fn line(&mut self, stream: Stream, ending: Ending, consumed: u64, time_ms: i64, bytes: &[u8]) {
        let frame = Frame::Line { number: self.next, time_ms, stream, ending, consumed, bytes };
        frame.encode(&mut self.pending);
        self.next += 1;
        let stream = &mut self.streams[at(stream)];
        stream.settled = consumed;
        stream.recorded = consumed;
        stream.open = ending == Ending::Cut;
    }

    /// Whole lines, `consumed` behind the last of them.
    fn lines(&mut self, stream: Stream, consumed: u64, time_ms: i64, bytes: &[u8]) {
        let frame = Frame::Lines { first: self.next, time_ms, stream, consumed, bytes };
        frame.encode(&mut self.pending);
        self.next += newlines(bytes);
        let stream = &mut self.streams[at(stream)];
        stream.settled = consumed;
        stream.recorded = consumed;
        stream.open = false;
    }

    /// Writes down how far the streams were consumed, where no line says so.
    fn positions(&mut self) {
        for stream in [Stream::Out, Stream::Err] {
            let consumed = &mut self.streams[at(stream)];
            if consumed.settled > consumed.recorded {
                consumed.recorded = consumed.settled;
                let frame = Frame::Position { stream, consumed: consumed.settled, dropped: consumed.dropped };
                frame.encode(&mut self.pending);
            }
        }
    }
}

impl Consumed {
    fn found(&mut self, consumed: u64) {
        self.settled = consumed;
        self.recorded = consumed;
        self.durable = consumed;
    }

    fn keep(&mut self, line: Kept, most: usize) {
        self.kept_size += line.size();
        self.kept.push_back(line);
        while self.kept_size > most && self.kept.len() > 1 {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.kept_size -= oldest.size();
            self.dropped += oldest.consumed - self.settled;
            self.settled = oldest.consumed;
        }
    }
}

impl Writer {
    pub(super) fn new(log: Log, state: State) -> Self {
        Self { log, state: Some(state) }
    }

    fn state(&self) -> &State {
        self.state.as_ref().expect("taken by drop alone")
    }

    fn state_mut(&mut self) -> &mut State {
        self.state.as_mut().expect("taken by drop alone")
    }

    /// Where reading a stream goes on: the offset from its beginning behind all that was
    /// appended.
    pub fn position(&self, stream: Stream) -> u64 {
        let stream = &self.state().streams[at(stream)];
        stream.kept.back().map_or(stream.settled, |newest| newest.consumed)
    }

    /// Where reading a stream would go on after a power cut: what lies before can be forgotten.
    pub fn durable(&self, stream: Stream) -> u64 {
        self.state().streams[at(stream)].durable
    }

    /// What [`Self::durable`] will be after a sync.
    pub fn settled(&self, stream: Stream) -> u64 {
        self.state().streams[at(stream)].settled
    }

    /// How many bytes the next sync has to bring to the disk.
    pub fn unsynced(&self) -> u64 {
        self.state().unsynced + self.state().pending.len() as u64
    }

    /// How long the file is after a power cut, at least.
    #[cfg(test)]
    pub fn synced_length(&self) -> u64 {
        self.state().length - self.state().unsynced
    }

    /// Appends a line of at most [`MAX_LINE`] bytes. `consumed` is the offset in its stream
    /// behind it and its newline. In memory until [`Self::publish`], which should come soon.
    ///
    /// # Errors
    /// [`Error::Finished`].
    pub fn append(&mut self, stream: Stream, bytes: &[u8], ending: Ending, consumed: u64) -> Result<(), Error> {
        debug_assert!(bytes.len() <= MAX_LINE, "the caller cuts lines");
        let time_ms = Timestamp::now().unix_ms();
        self.not_finished()?;
        let state = self.state_mut();
        if state.is_full() {
            let line = Kept { time_ms, ending, consumed, bytes: bytes.to_vec() };
            state.streams[at(stream)].keep(line, state.kept);
        } else {
            state.line(stream, ending, consumed, time_ms, bytes);
        }
        Ok(())
    }

    /// Appends whole lines, each with its newline, at most [`MAX_LINE`] bytes; `consumed` as in
    /// [`Self::append`], behind the last of them. Each is a record of its own.
    ///
    /// # Errors
    /// [`Error::Finished`].
    pub fn append_lines(&mut self, stream: Stream, bytes: &[u8], consumed: u64) -> Result<(), Error> {
        debug_assert!(bytes.len() <= MAX_LINE && bytes.last() == Some(&b'\n'), "the caller gives whole lines");
        self.not_finished()?;
        let state = self.state_mut();
        if state.shared_frames && !state.is_full() {
            state.lines(stream, consumed, Timestamp::now().unix_ms(), bytes);
            return Ok(());
        }
        let mut before = consumed - bytes.len() as u64;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            before += line.len() as u64;
            self.append(stream, &line[..line.len() - 1], Ending::Newline, before)?;
        }
        Ok(())
    }

    /// Writes what was appended and shows it to readers. Blocking.
    ///
    /// # Errors
    /// [`Error::Io`]; nothing is lost then, and the next call tries again.
    pub fn publish(&mut self) -> Result<(), Error> {
        self.write(None)
    }

    /// Brings all that was appended to the disk. Blocking.
    ///
    /// # Errors
    /// [`Error::Io`]; nothing is lost then, and the next call tries again.
    pub fn sync(&mut self) -> Result<(), Error> {
        if self.state().is_full() {
            self.state_mut().positions();
        }
        self.publish()?;
        self.sync_file()
    }

    /// Ends the log with what the guest said of the run's end, if that can be believed. Durable
    /// when this returns. Blocking.
    ///
    /// # Errors
    /// [`Error::Finished`], [`Error::Io`].
    pub fn finish(mut self, end: Option<&End>) -> Result<(), Error> {
        self.not_finished()?;
        let time_ms = Timestamp::now().unix_ms();
        self.write_kept(time_ms);
        self.close_lines(time_ms);
        let content = end.map(End::encode).unwrap_or_default();
        let state = self.state_mut();
        let at = state.length + state.pending.len() as u64;
        Frame::Finished { time_ms, end: content.as_bytes() }.encode(&mut state.pending);
        let sealed = Finish { time_ms, end: End::decode(content.as_bytes()) };
        if let Err(error) = self.write(Some(sealed)) {
            // It can be tried again; the same frame must not be there twice.
            let state = self.state_mut();
            let before = usize::try_from(at - state.length).expect("what is pending is in memory");
            state.pending.truncate(before);
            return Err(error);
        }
        self.state_mut().finished = true;
        self.sync_file()
    }

    /// The end of a full log: how much is missing, then what was kept.
    fn write_kept(&mut self, time_ms: i64) {
        let state = self.state_mut();
        state.positions();
        let dropped: u64 = state.streams.iter().map(|stream| stream.dropped).sum();
        if dropped > state.told {
            Frame::Dropped { number: state.next, time_ms, bytes: dropped - state.told }.encode(&mut state.pending);
            state.next += 1;
            state.told = dropped;
        }
        for stream in [Stream::Err, Stream::Out] {
            state.streams[at(stream)].kept_size = 0;
            for line in std::mem::take(&mut state.streams[at(stream)].kept) {
                state.line(stream, line.ending, line.consumed, line.time_ms, &line.bytes);
            }
        }
    }

    /// What was shown of a line before its end came: there will be no more of it.
    fn close_lines(&mut self, time_ms: i64) {
        let state = self.state_mut();
        for stream in [Stream::Out, Stream::Err] {
            let Consumed { open, settled, .. } = state.streams[at(stream)];
            if open {
                state.line(stream, Ending::Last, settled, time_ms, &[]);
            }
        }
    }

    fn write(&mut self, finish: Option<Finish>) -> Result<(), Error> {
        let log = self.log.clone();
        let state = self.state_mut();
        if state.pending.is_empty() {
            return Ok(());
        }
        log.shared.file.write_all_at(&state.pending, state.length).map_err(io_error("write", &log.shared.path))?;
        let before = state.length;
        let records = log.extent().records;
        state.length += state.pending.len() as u64;
        state.unsynced += state.pending.len() as u64;
        state.pending.clear();
        state.pending.shrink_to(2 * MAX_LINE);
        let finished = finish.is_some();
        {
            let mut written = lock(&log.shared.written);
            written.note(before, records);
            written.length = state.length;
            written.finished = finish;
        }
        log.shared.extent.send_replace(Extent { records: state.next, finished });
        Ok(())
    }

    fn sync_file(&mut self) -> Result<(), Error> {
        let log = self.log.clone();
        log.shared.file.sync_data().map_err(io_error("sync", &log.shared.path))?;
        let state = self.state_mut();
        state.unsynced = 0;
        for stream in &mut state.streams {
            stream.durable = stream.recorded;
        }
        Ok(())
    }

    fn not_finished(&self) -> Result<(), Error> {
        if self.state().finished {
            return Err(Error::Finished { path: self.log.shared.path.clone() });
        }
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        *lock(&self.log.shared.writer) = self.state.take();
    }
}

fn at(stream: Stream) -> usize {
    match stream {
        Stream::Out => 0,
        Stream::Err => 1,
    }
}

//! A run's output, on the host: an append-only file of numbered records.
//!
//! The guest's files are the guest's to rewrite; this one is not. A record's number is fixed when
//! it is written and never changes, whatever later reads it. Each line carries how far its stream
//! was consumed with it, so the file itself says where reading the guest goes on: a daemon that
//! was killed anywhere finds neither gap nor duplicate. A record that was torn by a kill or a
//! power cut is cut off at opening.
//!
//! Records are seen by readers once written, and are on the disk after the next
//! [`Writer::sync`]; the guest's copy is let go only then. A power cut may therefore take the
//! newest records (and what a client saw of them); a killed daemon takes none.
//!
//! The file is bounded. Past its cap output is consumed and counted but not kept, except for the
//! newest [`KEPT`] bytes of each stream, which are written at the end behind one record that says
//! how much is missing: an agent's last words are the ones that matter most.

mod frame;
mod output;
mod writer;

#[cfg(test)]
mod tests;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use guest::run::{End, Stream};
use tokio::sync::watch;

use frame::{Frame, Frames, MAGIC, Next, START, VERSION};
pub use output::{Output, OutputReader, Part};
pub use writer::Writer;

/// The longest line of one record; a longer one is several.
pub const MAX_LINE: usize = 1 << 20;
/// How long a log becomes, in bytes, but for the output's end.
pub const CAP: u64 = 256 << 20;
/// So much of a stream's end is kept when the log is full.
pub const KEPT: usize = 1 << 20;

/// The file's name in a run's directory.
const NAME: &str = "log";
/// The index has one entry for so many bytes of log.
const INDEX_STEP: u64 = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {doing} the run's log {}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: is no log of a run", path.display())]
    NotALog { path: PathBuf },
    #[error("{}: was written by a newer vcodingd (version {found}, this one knows {VERSION})", path.display())]
    Newer { path: PathBuf, found: u8 },
    #[error("{}: is damaged at byte {at}", path.display())]
    Damaged { path: PathBuf, at: u64 },
    /// Nothing is appended to a log that was finished.
    #[error("{}: the run is over, its log takes no more", path.display())]
    Finished { path: PathBuf },
}

/// How a line of a record ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With a newline, which is not among the record's bytes.
    Newline,
    /// It goes on in the next record of its stream.
    Cut,
    /// With the output, without a newline.
    Last,
}

/// One numbered record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// From 0, without gap.
    pub number: u64,
    /// When the host read it; milliseconds since 1970.
    pub time_ms: i64,
    pub content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A line of output, or a piece of a very long one.
    Line { stream: Stream, ending: Ending, bytes: Vec<u8> },
    /// So many bytes of output were not kept. What follows is the output's end.
    Dropped { bytes: u64 },
}

/// How far a log is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// How many records there are.
    pub records: u64,
    /// None will be added.
    pub finished: bool,
}

/// A run's log. Clones are the same log; two of the same file must not be open at once.
#[derive(Debug, Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    file: Arc<File>,
    written: Mutex<Written>,
    extent: watch::Sender<Extent>,
    /// Taken by the one [`Writer`].
    writer: Mutex<Option<writer::State>>,
}

/// What readers may read.
#[derive(Debug)]
struct Written {
    length: u64,
    index: Vec<Mark>,
    finished: Option<Finish>,
}

/// A frame begins at `at`, and the first record from there on has this number.
#[derive(Debug, Clone, Copy)]
struct Mark {
    number: u64,
    at: u64,
}

/// How a finished log ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finish {
    pub time_ms: i64,
    /// `None` where the guest said nothing that can be believed.
    pub end: Option<End>,
}

impl Log {
    /// Opens the log in `dir`, the run's directory on the host, and makes both if they are
    /// missing. A torn end is cut off. Blocking, and reads the whole file.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NotALog`], [`Error::Newer`].
    pub fn open(dir: &Path) -> Result<Self, Error> {
        Self::open_bounded(dir, CAP, KEPT)
    }

    /// [`Self::open`] with bounds of its own.
    fn open_bounded(dir: &Path, cap: u64, kept: usize) -> Result<Self, Error> {
        let path = dir.join(NAME);
        let file = Arc::new(open_file(dir, &path)?);
        let (length, version) = check_head(&file, &path)?;
        let mut state = writer::State::new(cap, kept, version > 1);
        let mut written = Written { length: START, index: Vec::new(), finished: None };
        let mut frames = Frames::new(Arc::clone(&file), START);
        let torn = loop {
            match frames.next(length).map_err(io_error("read", &path))? {
                Next::Frame { at, frame } => {
                    if frame.number().is_some_and(|number| number != state.next()) || written.finished.is_some() {
                        break Some(at);
                    }
                    written.note(at, state.next());
                    if let Frame::Finished { time_ms, end } = frame {
                        written.finished = Some(Finish { time_ms, end: End::decode(end) });
                    }
                    state.replay(&frame);
                }
                Next::End => break None,
                Next::Torn { at } => break Some(at),
            }
        };
        written.length = torn.unwrap_or(length);
        if torn.is_some() {
            file.set_len(written.length).map_err(io_error("cut the torn end of", &path))?;
        }
        // What is there may have been written and not synced before a kill; from here on it counts
        // as durable.
        file.sync_data().map_err(io_error("sync", &path))?;
        state.opened(written.length, written.finished.is_some());
        let extent = Extent { records: state.next(), finished: written.finished.is_some() };
        let shared = Shared {
            path,
            file,
            written: Mutex::new(written),
            extent: watch::Sender::new(extent),
            writer: Mutex::new(Some(state)),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The one way to append, while no other has it.
    pub fn writer(&self) -> Option<Writer> {
        let state = lock(&self.shared.writer).take()?;
        Some(Writer::new(self.clone(), state))
    }

    /// Sees every growth, and the end.
    pub fn watch(&self) -> watch::Receiver<Extent> {
        self.shared.extent.subscribe()
    }

    pub fn extent(&self) -> Extent {
        *self.shared.extent.borrow()
    }

    /// How it ended, once it is finished.
    pub fn finished(&self) -> Option<Finish> {
        lock(&self.shared.written).finished.clone()
    }

    /// A reader of the output as it was written, from byte `from[1]` of record `from[0]` on.
    pub fn output(&self, from: [u64; 2]) -> OutputReader {
        OutputReader::new(self.reader(from[0]), from)
    }

    /// A reader that begins with record `from`.
    pub fn reader(&self, from: u64) -> Reader {
        let at = lock(&self.shared.written).seek(from);
        Reader { log: self.clone(), frames: Frames::new(Arc::clone(&self.shared.file), at), next: from }
    }
}

impl Written {
    fn note(&mut self, at: u64, number: u64) {
        if self.index.last().is_none_or(|last| at - last.at >= INDEX_STEP) {
            self.index.push(Mark { number, at });
        }
    }

    /// Where to begin reading for a record.
    fn seek(&self, number: u64) -> u64 {
        let after = self.index.partition_point(|mark| mark.number <= number);
        after.checked_sub(1).map_or(START, |before| self.index[before].at)
    }
}

/// Reads records one after another. Delays neither the writer nor other readers.
#[derive(Debug)]
pub struct Reader {
    log: Log,
    frames: Frames,
    next: u64,
}

impl Reader {
    /// The number of the next record.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// The next records that are there, until their bytes exceed `room`; none at the newest.
    /// Blocking.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Damaged`] where the disk lost what it had.
    pub fn read(&mut self, room: usize) -> Result<Vec<Record>, Error> {
        let path = &self.log.shared.path;
        let end = lock(&self.log.shared.written).length;
        let mut records = Vec::new();
        let mut size = 0;
        while size <= room {
            let frame = match self.frames.next(end).map_err(io_error("read", path))? {
                Next::End => break,
                Next::Torn { at } => return Err(Error::Damaged { path: path.clone(), at }),
                Next::Frame { frame, .. } => frame,
            };
            each_record(&frame, self.next, |record| {
                self.next = record.number + 1;
                // The record itself counts too: lines may be empty.
                size += size_of::<Record>();
                if let Content::Line { bytes, .. } = &record.content {
                    size += bytes.len();
                }
                records.push(record);
            });
        }
        Ok(records)
    }
}

/// The records of a frame, from number `from` on.
fn each_record(frame: &Frame<'_>, from: u64, mut take: impl FnMut(Record)) {
    let line = |stream, ending, bytes: &[u8]| Content::Line { stream, ending, bytes: bytes.to_vec() };
    match *frame {
        Frame::Line { number, time_ms, stream, ending, bytes, .. } if number >= from => {
            take(Record { number, time_ms, content: line(stream, ending, bytes) });
        }
        Frame::Dropped { number, time_ms, bytes } if number >= from => {
            take(Record { number, time_ms, content: Content::Dropped { bytes } });
        }
        Frame::Lines { first, time_ms, stream, bytes, .. } => {
            let lines = (first..).zip(bytes.split_inclusive(|byte| *byte == b'\n'));
            for (number, bytes) in lines.filter(|(number, _)| *number >= from) {
                let content = line(stream, Ending::Newline, &bytes[..bytes.len() - 1]);
                take(Record { number, time_ms, content });
            }
        }
        Frame::Line { .. } | Frame::Dropped { .. } | Frame::Position { .. } | Frame::Finished { .. } => {}
    }
}

fn open_file(dir: &Path, path: &Path) -> Result<File, Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error("make the directory of", path))?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits())
        .open(path)
        .map_err(io_error("open", path))
}

/// Checks the file's first bytes, or writes them where they are not all there yet; returns its
/// length and version.
fn check_head(file: &File, path: &Path) -> Result<(u64, u8), Error> {
    let length = file.metadata().map_err(io_error("look at", path))?.len();
    let mut expected = [0; START as usize];
    expected[..7].copy_from_slice(MAGIC);
    expected[7] = VERSION;
    let mut head = [0; START as usize];
    let found = usize::try_from(length.min(START)).expect("at most eight");
    file.read_exact_at(&mut head[..found], 0).map_err(io_error("read", path))?;
    // A file that was being made when the power went may also have come back as zeros.
    let unborn = head[..found] == expected[..found] || (length <= START && head == [0; START as usize]);
    if found == head.len() && !unborn {
        return match head.split_last() {
            Some((version @ 1..VERSION, magic)) if magic == MAGIC => Ok((length, *version)),
            Some((version, magic)) if magic == MAGIC => Err(Error::Newer { path: path.to_owned(), found: *version }),
            _ => Err(Error::NotALog { path: path.to_owned() }),
        };
    }
    if !unborn {
        return Err(Error::NotALog { path: path.to_owned() });
    }
    if head == expected {
        return Ok((length, VERSION));
    }
    file.write_all_at(&expected, 0).map_err(io_error("begin", path))?;
    file.sync_all().map_err(io_error("sync", path))?;
    for dir in path.ancestors().skip(1).take(3) {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync the directory of", path))?;
    }
    Ok((START, VERSION))
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { doing, path, source }
}

/// The locks here are held for a few assignments only, which cannot panic half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! One stream of a run, as segments in a directory that the guest may rewrite at any moment.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use fs::Root;
use guest::run::{Stream, UNREAD, segment};

use super::lines::Lines;
use super::{TailError, tampered};
use crate::runs::log::Writer;

/// So much is read at once: small, so that the streams take turns.
const CHUNK: usize = 64 << 10;

/// Reads a stream's segments in order.
#[derive(Debug)]
pub(super) struct Segments {
    stream: Stream,
    /// A segment's size in bytes.
    size: u64,
    lines: Lines,
    open: Option<Segment>,
    /// The first segment that may still be there.
    first: u64,
    buffer: Vec<u8>,
}

/// The segment that is being read. It stays open until it was read whole: what has this name
/// later is another file.
#[derive(Debug)]
struct Segment {
    number: u64,
    name: String,
    file: File,
    device: u64,
    inode: u64,
}

impl Segments {
    /// Goes on behind what the log has.
    pub(super) fn new(stream: Stream, size: u64, writer: &Writer) -> Self {
        let position = writer.position(stream);
        // A kill between a sync and the removal behind it leaves some of the segments before.
        let first = (writer.durable(stream) / size).saturating_sub(UNREAD as u64 + 1);
        let lines = Lines::new(stream, position);
        Self { stream, size, lines, open: None, first, buffer: vec![0; CHUNK] }
    }

    /// Reads some of what is there into the log; 0 if there is nothing new.
    pub(super) fn read(&mut self, dir: &Root, writer: &mut Writer) -> Result<usize, TailError> {
        let position = self.lines.position();
        let (number, offset) = (position / self.size, position % self.size);
        if self.open.as_ref().is_none_or(|open| open.number != number) {
            self.open = Segment::open(dir, segment(self.stream, number), number)?;
        }
        let Some(open) = &self.open else {
            let was_there = offset > 0;
            return if was_there { Err(tampered(&segment(self.stream, number), "was removed")) } else { Ok(0) };
        };
        open.check(dir, offset, self.size)?;
        let room = usize::try_from(self.size - offset).unwrap_or(CHUNK).min(CHUNK);
        let read = read_at(&open.file, &mut self.buffer[..room], offset).map_err(|source| open.unreadable(source))?;
        self.lines.feed(&self.buffer[..read], writer)?;
        Ok(read)
    }

    /// The first segment that can be removed after the next sync is not durable yet: the
    /// supervisor may be waiting for its removal.
    pub(super) fn wants_sync(&self, writer: &Writer) -> bool {
        writer.settled(self.stream) / self.size > writer.durable(self.stream) / self.size
    }

    /// Removes the segments that are in the log for good.
    pub(super) fn remove_durable(&mut self, dir: &Root, writer: &Writer) -> Result<(), TailError> {
        let kept = writer.durable(self.stream) / self.size;
        while self.first < kept {
            let name = segment(self.stream, self.first);
            match dir.remove_file(Path::new(&name)) {
                Ok(()) | Err(fs::Error::NotFound { .. }) => self.first += 1,
                Err(fs::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::IsADirectory => {
                    return Err(tampered(&name, "became a directory"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// There is nothing new: what is there of a line is shown.
    pub(super) fn flush(&mut self, writer: &mut Writer) -> Result<(), TailError> {
        Ok(self.lines.flush(writer)?)
    }

    /// Nothing follows: the last line needs no newline, and there must be no further segment.
    pub(super) fn finish(&mut self, dir: &Root, writer: &mut Writer) -> Result<(), TailError> {
        let next = segment(self.stream, self.lines.position() / self.size + 1);
        match dir.stat(Path::new(&next)) {
            Err(fs::Error::NotFound { .. }) => {}
            Ok(_) => return Err(tampered(&next, "was begun before the one before it was full")),
            Err(error) => return Err(error.into()),
        }
        self.lines.finish(writer)?;
        Ok(())
    }
}

impl Segment {
    fn open(dir: &Root, name: String, number: u64) -> Result<Option<Self>, TailError> {
        match open_file(dir, &name)? {
            Some(file) => {
                let found = file.metadata().map_err(|source| TailError::Read { name: name.clone(), source })?;
                Ok(Some(Self { number, name, file, device: found.dev(), inode: found.ino() }))
            }
            None => Ok(None),
        }
    }

    /// Whether the segment is still what was opened, and nothing that was read is gone from it.
    fn check(&self, dir: &Root, read: u64, size: u64) -> Result<(), TailError> {
        let found = self.file.metadata().map_err(|source| self.unreadable(source))?;
        let wrong = |how| Err(tampered(&self.name, how));
        match found.nlink() {
            0 => return wrong("was removed or replaced"),
            1 => {}
            _ => return wrong("has a second name"),
        }
        if found.len() < read {
            return wrong("was cut off");
        }
        if found.len() > size {
            return wrong("is longer than a segment");
        }
        match dir.stat(Path::new(&self.name)) {
            Ok(named) if (named.dev, named.ino) == (self.device, self.inode) => Ok(()),
            Ok(_) => wrong("was replaced"),
            Err(fs::Error::NotFound { .. }) => wrong("was removed"),
            Err(error) => Err(error.into()),
        }
    }

    fn unreadable(&self, source: std::io::Error) -> TailError {
        TailError::Read { name: self.name.clone(), source }
    }
}

/// Opens what must be a plain file, or is not there.
pub(super) fn open_file(dir: &Root, name: &str) -> Result<Option<File>, TailError> {
    match dir.open_file(Path::new(name)) {
        Ok(file) => Ok(Some(file)),
        Err(fs::Error::NotFound { .. }) => Ok(None),
        Err(fs::Error::Blocked { .. }) => Err(tampered(name, "is a link")),
        Err(fs::Error::NotRegular { .. }) => Err(tampered(name, "is no regular file")),
        // Our supervisor takes no lease.
        Err(fs::Error::Busy { .. }) => Err(tampered(name, "is held by a lease")),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            answer => return answer,
        }
    }
}

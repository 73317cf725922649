//! A stream of output on its way into segments.
//!
//! The host unlinks what it has read. While [`UNREAD`] full segments wait, nothing is read from
//! the command, which then waits too; a full disk is the same to it.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use guest::run::{SEGMENT, Stream, UNREAD, segment};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{pipe2, read};

const BUFFER: usize = 64 << 10;

/// What a look at a stream brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Nothing to read now.
    Dry,
    /// The host (or the disk) has to make room first.
    Held,
    /// All writers are gone, and all is written.
    Ended,
}

pub struct Output {
    pipe: OwnedFd,
    segments: Segments,
    /// Read, and not yet written.
    waiting: Vec<u8>,
    ended: bool,
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

impl Output {
    /// With the end that the command writes to.
    pub fn new(directory: &Path, stream: Stream) -> nix::Result<(Self, OwnedFd)> {
        let (pipe, source) = pipe2(OFlag::O_CLOEXEC)?;
        // Ours alone: the command's end stays as programs expect it.
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let segments = Segments::new(directory, stream, SEGMENT);
        Ok((Self { pipe, segments, waiting: Vec::new(), ended: false }, source))
    }

    /// Whether more may come.
    pub fn open(&self) -> bool {
        !self.ended
    }

    /// Moves what is there, at most a segment's worth, so that nothing else waits long.
    pub fn pass(&mut self) -> Flow {
        for _ in 0..=SEGMENT as usize / BUFFER {
            let written = self.segments.write(&self.waiting);
            self.waiting.drain(..written);
            if !self.waiting.is_empty() {
                return Flow::Held;
            }
            if self.ended {
                return Flow::Ended;
            }
            self.waiting.resize(BUFFER, 0);
            let length = match read(&self.pipe, &mut self.waiting) {
                Ok(length) => length,
                Err(Errno::EAGAIN | Errno::EINTR) => {
                    self.waiting.clear();
                    return Flow::Dry;
                }
                Err(_) => 0,
            };
            self.waiting.truncate(length);
            self.ended = length == 0;
        }
        // There is more; the next look comes at once, as the pipe is ready.
        Flow::Dry
    }
}

struct Segments {
    directory: PathBuf,
    stream: Stream,
    size: u64,
    /// The newest, while it has room.
    file: Option<(File, u64)>,
    /// The number of the next one.
    next: u64,
    /// All before were seen unlinked.
    oldest: u64,
}

impl Segments {
    fn new(directory: &Path, stream: Stream, size: u64) -> Self {
        Self { directory: directory.to_owned(), stream, size, file: None, next: 0, oldest: 0 }
    }

    /// Writes what there is room for, and says how much that was.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        let size = self.size;
        while written < bytes.len() {
            let Some((file, length)) = self.open() else { break };
            let rest = &bytes[written..];
            let room = usize::try_from(size - length).unwrap_or(usize::MAX).min(rest.len());
            let mut file: &File = file;
            // A full disk: later again.
            let Ok(taken @ 1..) = file.write(&rest[..room]) else { break };
            written += taken;
            let length = length + taken as u64;
            match &mut self.file {
                Some((_, known)) if length < size => *known = length,
                _ => self.file = None,
            }
        }
        written
    }

    /// The newest segment and its length; none while too many full ones wait.
    fn open(&mut self) -> Option<(&File, u64)> {
        if self.file.is_none() {
            while self.oldest < self.next && !self.exists(self.oldest) {
                self.oldest += 1;
            }
            if self.next - self.oldest >= UNREAD as u64 {
                return None;
            }
            let path = self.directory.join(segment(self.stream, self.next));
            let file = File::options().write(true).create_new(true).mode(0o600).open(path).ok()?;
            self.file = Some((file, 0));
            self.next += 1;
        }
        self.file.as_ref().map(|(file, length)| (file, *length))
    }

    fn exists(&self, number: u64) -> bool {
        self.directory.join(segment(self.stream, number)).symlink_metadata().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_segments_hold_the_writer_until_one_is_unlinked() {
        let directory = tempfile::tempdir().unwrap();
        let mut segments = Segments::new(directory.path(), Stream::Out, 10);
        let all: Vec<u8> = (0..100).collect();
        assert_eq!(segments.write(&all), 10 * UNREAD);
        assert_eq!(segments.write(&all[40..]), 0);
        std::fs::remove_file(directory.path().join("out.0")).unwrap();
        assert_eq!(segments.write(&all[40..]), 10);
        assert_eq!(std::fs::read(directory.path().join("out.4")).unwrap(), &all[40..50]);
        assert_eq!(segments.write(&all[50..]), 0);
    }

    #[test]
    fn a_stream_arrives_whole_and_its_end_is_told_after_the_last_byte() {
        let directory = tempfile::tempdir().unwrap();
        let (mut output, source) = Output::new(directory.path(), Stream::Err).unwrap();
        assert_eq!(output.pass(), Flow::Dry);
        File::from(source.try_clone().unwrap()).write_all(b"some").unwrap();
        assert_eq!(output.pass(), Flow::Dry);
        File::from(source).write_all(b" text").unwrap();
        assert_eq!(output.pass(), Flow::Ended);
        assert_eq!(std::fs::read(directory.path().join("err.0")).unwrap(), b"some text");
    }
}

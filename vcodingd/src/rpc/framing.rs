//! Lines and descriptors off a Unix socket.
//!
//! A descriptor belongs to the line whose bytes it arrived with (SCM_RIGHTS rides on the first
//! byte of the sender's write, and a write never spans a line of another call).

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use protocol::{MAX_DESCRIPTORS, MAX_LINE};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// How much is asked of the kernel at a time.
const CHUNK: usize = 64 * 1024;

/// One line, without its newline, and what came with it.
#[derive(Debug)]
pub(super) struct Line {
    pub text: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

#[derive(Debug)]
pub(super) enum Received {
    Line(Line),
    /// A line over the limit; it was skipped to its end.
    TooLong,
}

#[derive(Debug, Default)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    scanned: usize,
    descriptors: Vec<OwnedFd>,
    /// Inside a line that is too long.
    skipping: bool,
}

impl Lines {
    /// The next line; `None` at the end of the stream (a last line without newline is dropped,
    /// as it may be half of one). Cancel-safe: what was read stays here.
    pub(super) async fn next(&mut self, stream: &UnixStream) -> io::Result<Option<Received>> {
        loop {
            if let Some(found) = self.take() {
                return Ok(Some(found));
            }
            if self.buffer.len() > MAX_LINE {
                self.skipping = true;
                self.buffer.clear();
                self.scanned = 0;
                self.descriptors.clear();
            }
            stream.readable().await?;
            match stream.try_io(Interest::READABLE, || self.receive(stream)) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn take(&mut self) -> Option<Received> {
        let Some(at) = self.buffer[self.scanned..].iter().position(|b| *b == b'\n') else {
            self.scanned = self.buffer.len();
            return None;
        };
        let end = self.scanned + at;
        let mut text: Vec<u8> = self.buffer.drain(..=end).collect();
        text.pop();
        self.scanned = 0;
        if std::mem::take(&mut self.skipping) || text.len() >= MAX_LINE {
            self.descriptors.clear();
            return Some(Received::TooLong);
        }
        Some(Received::Line(Line { text, descriptors: std::mem::take(&mut self.descriptors) }))
    }

    fn receive(&mut self, stream: &UnixStream) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let old = self.buffer.len();
        self.buffer.resize(old + CHUNK, 0);
        let got = recvmsg(
            stream.as_fd(),
            &mut [IoSliceMut::new(&mut self.buffer[old..])],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        );
        self.buffer.truncate(old + got.as_ref().map_or(0, |m| m.bytes));
        let bytes = got?.bytes;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        // More than one line may take is a mistake of the sender; the surplus is closed.
        self.descriptors.truncate(MAX_DESCRIPTORS);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn lines_of(bytes: Vec<u8>) -> Vec<String> {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let sender = tokio::spawn(async move {
            ours.write_all(&bytes).await.unwrap();
        });
        let mut lines = Lines::default();
        let mut out = Vec::new();
        while let Some(received) = lines.next(&theirs).await.unwrap() {
            out.push(match received {
                Received::Line(line) => String::from_utf8(line.text).unwrap(),
                Received::TooLong => "(too long)".into(),
            });
        }
        sender.await.unwrap();
        out
    }

    #[tokio::test]
    async fn lines_come_apart_whatever_the_pieces_and_the_unfinished_last_is_dropped() {
        assert_eq!(lines_of(b"a\n\nbc\nunfinished".to_vec()).await, ["a", "", "bc"]);
    }

    #[tokio::test]
    async fn a_line_over_the_limit_is_skipped_and_the_next_one_is_read() {
        let mut bytes = vec![b'x'; MAX_LINE * 3];
        bytes.extend_from_slice(b"\nnext\n");
        assert_eq!(lines_of(bytes).await, ["(too long)", "next"]);
        let mut bytes = vec![b'x'; MAX_LINE - 1];
        bytes.push(b'\n');
        let exact = lines_of(bytes).await;
        assert_eq!(exact[0].len(), MAX_LINE - 1);
    }
}

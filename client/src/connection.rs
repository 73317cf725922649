//! One connection to the daemon.

use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, getsockopt, sendmsg, sockopt};
use protocol::message::{Incoming, ProgressOf, Request};
use protocol::methods::{RunStart, RunSubscribe};
use protocol::{Error, Kind, MAX_LINE, Method};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Places;
use crate::start::{self, Told};

/// How often a call is made again whose daemon ended before it had it.
const AGAIN: u8 = 3;

/// A connection. Calls on it are answered in any order; this client makes one at a time,
/// except that [`Client::send`] and [`Client::receive`] leave the order to the caller.
///
/// A daemon may end while a call is on its way. One that cannot have run is made again with the
/// next daemon, where [`start::connect_or_start`] made the connection: because its line was not
/// read to the end, or because it only looks. Any other may have run, and its caller is told.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// Bytes of `buffer` before this hold no newline.
    scanned: usize,
    next_id: u64,
    patience: Option<Duration>,
    /// Calls that were sent and not answered.
    unanswered: usize,
    /// The one that was not, while there is one alone and nothing else goes on here.
    last: Option<Sent>,
    /// Notifications of it would not come on another connection.
    subscribed: bool,
    /// The way to the next daemon.
    next: Option<(Places, Told)>,
    again: u8,
}

/// A call on its way.
#[derive(Debug)]
struct Sent {
    method: &'static str,
    line: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Client {
    /// Connects, and makes sure that the other side is this user's own daemon: the directory
    /// and the peer belong to this uid, and nobody else may enter the directory.
    ///
    /// # Errors
    /// [`Kind::DaemonUnreachable`].
    pub fn connect(socket: &Path) -> Result<Self, Error> {
        let unreachable = |what: String| Error::new(Kind::DaemonUnreachable, what).hint("vcodingctl daemon start");
        let me = nix::unistd::geteuid();
        let directory = socket.parent().unwrap_or(Path::new("/"));
        let meta = std::fs::symlink_metadata(directory)
            .map_err(|e| unreachable(format!("no daemon at {}: {e}", socket.display())))?;
        if !meta.is_dir() || meta.uid() != me.as_raw() || meta.mode() & 0o077 != 0 {
            return Err(Error::new(
                Kind::DaemonUnreachable,
                format!(
                    "{} is not a directory of yours alone (uid {}, mode {:o})",
                    directory.display(),
                    meta.uid(),
                    meta.mode() & 0o7777
                ),
            )
            .hint(format!("ls -ld {}", directory.display())));
        }
        let stream = UnixStream::connect(socket).map_err(|e| match e.kind() {
            std::io::ErrorKind::InvalidInput => {
                Error::new(Kind::Usage, format!("{} is too long for a socket", socket.display()))
                    .hint("a shorter --socket or VCODING_SOCKET")
            }
            _ => unreachable(format!("no daemon answers at {}: {e}", socket.display())),
        })?;
        let peer = getsockopt(&stream, sockopt::PeerCredentials)
            .map_err(|e| unreachable(format!("the peer at {} has no credentials: {e}", socket.display())))?;
        if peer.uid() != me.as_raw() {
            return Err(unreachable(format!("{} belongs to uid {}, not to you", socket.display(), peer.uid())));
        }
        Ok(Self {
            stream,
            buffer: Vec::new(),
            scanned: 0,
            next_id: 1,
            patience: None,
            unanswered: 0,
            last: None,
            subscribed: false,
            next: None,
            again: AGAIN,
        })
    }

    pub(crate) fn starting(self, places: &Places, told: Told) -> Self {
        Self { next: Some((places.clone(), told)), ..self }
    }

    /// How long an answer may be waited for; without this, for ever.
    ///
    /// # Errors
    /// [`Kind::DaemonUnreachable`].
    pub fn wait_at_most(&mut self, patience: Duration) -> Result<(), Error> {
        self.patience = Some(patience);
        self.stream.set_read_timeout(Some(patience)).map_err(|e| gone(&e))
    }

    /// Calls a method and waits for its result.
    ///
    /// # Errors
    /// What the daemon answered, or [`Kind::DaemonUnreachable`] if it went away.
    pub fn call<M: Method>(&mut self, params: &M::Params) -> Result<M::Output, Error> {
        self.call_with::<M, serde_json::Value>(params, |_| {})
    }

    /// The same, with every `progress` notification on the way.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn call_with<M: Method, P: DeserializeOwned>(
        &mut self,
        params: &M::Params,
        mut progress: impl FnMut(P),
    ) -> Result<M::Output, Error> {
        let id = self.send::<M>(params, &[])?;
        loop {
            let message = self.receive()?;
            if message.method.as_deref() == Some("progress")
                && let Some(raw) = &message.params
                && let Ok(of) = serde_json::from_str::<ProgressOf<P>>(raw.get())
            {
                progress(of.progress);
            }
            if let Some(result) = answer::<M>(id, message) {
                return result;
            }
        }
    }

    /// Sends a call, with descriptors that travel on its bytes; returns its id.
    ///
    /// # Errors
    /// [`Kind::DaemonUnreachable`], or [`Kind::InvalidParameters`] for a call over [`MAX_LINE`].
    pub fn send<M: Method>(&mut self, params: &M::Params, descriptors: &[BorrowedFd<'_>]) -> Result<u64, Error> {
        let id = self.next_id;
        self.next_id += 1;
        let line = line_of(&Request::new(id, M::NAME, params))?;
        self.unanswered += 1;
        // Where several are under way, which of them was read is not known.
        let alone = self.unanswered == 1 && !self.subscribed && self.next.is_some();
        let kept: std::io::Result<Vec<_>> = descriptors.iter().map(BorrowedFd::try_clone_to_owned).collect();
        self.last = match kept {
            Ok(descriptors) if alone => Some(Sent { method: M::NAME, line: line.clone(), descriptors }),
            _ => None,
        };
        match self.write(&line, descriptors) {
            Ok(()) => Ok(id),
            // A line that was not written to its end has not run.
            Err(error) => self.make_again(&error).map(|()| id),
        }
    }

    fn write(&mut self, line: &[u8], descriptors: &[BorrowedFd<'_>]) -> std::io::Result<()> {
        let mut rest = line;
        if !descriptors.is_empty() {
            let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
            let sent = sendmsg::<()>(
                self.stream.as_raw_fd(),
                &[IoSlice::new(rest)],
                &[ControlMessage::ScmRights(&raw)],
                MsgFlags::MSG_NOSIGNAL,
                None,
            )?;
            rest = &rest[sent..];
        }
        self.stream.write_all(rest)
    }

    /// The daemon went away. A socket that is closed with bytes in it that nobody read is reset
    /// (unix(7)): of the only call that was under way those are its end.
    fn lost(&mut self, error: &std::io::Error) -> Result<(), Error> {
        let waited_enough = matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
        let Some(sent) = self.last.as_ref().filter(|_| !waited_enough) else { return Err(gone(error)) };
        if error.kind() == std::io::ErrorKind::ConnectionReset || only_looks(sent.method) {
            return self.make_again(error);
        }
        let message = format!("the daemon ended while it had the call {}, which may have run", sent.method);
        let hint = if sent.method == RunStart::NAME { "vcodingctl runs" } else { "vcodingctl ls" };
        Err(Error::new(Kind::DaemonUnreachable, message).hint(hint))
    }

    /// Makes the call that was under way with the next daemon.
    fn make_again(&mut self, error: &std::io::Error) -> Result<(), Error> {
        while let (Some(sent), Some((places, told)), 1..) = (self.last.take(), &self.next, self.again) {
            self.again -= 1;
            let next = start::connect_or_start(places, *told)?;
            self.stream = next.stream;
            self.stream.set_read_timeout(self.patience).map_err(|e| gone(&e))?;
            self.buffer.clear();
            self.scanned = 0;
            let descriptors: Vec<_> = sent.descriptors.iter().map(AsFd::as_fd).collect();
            let written = self.write(&sent.line, &descriptors);
            self.last = Some(sent);
            if written.is_ok() {
                return Ok(());
            }
        }
        Err(gone(error))
    }

    /// The next message, waited for.
    ///
    /// # Errors
    /// [`Kind::DaemonUnreachable`] at the end of the connection.
    pub fn receive(&mut self) -> Result<Incoming, Error> {
        loop {
            if let Some(message) = self.buffered()? {
                return Ok(message);
            }
            self.fill()?;
        }
    }

    /// Reads once from the socket; blocks if nothing is there. For callers that poll
    /// [`AsFd::as_fd`] themselves; [`Client::buffered`] then gives the messages.
    ///
    /// # Errors
    /// [`Kind::DaemonUnreachable`] at the end of the connection.
    pub fn fill(&mut self) -> Result<(), Error> {
        let old = self.buffer.len();
        if old > MAX_LINE {
            return Err(Error::new(Kind::InvalidMessage, "the daemon sent a line that is too long"));
        }
        self.buffer.resize(old + 64 * 1024, 0);
        let got = loop {
            match self.stream.read(&mut self.buffer[old..]) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(old + got.as_ref().map_or(0, |n| *n));
        match got {
            Ok(0) => self.lost(&std::io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(()),
            Err(e) => self.lost(&e),
        }
    }

    /// A message that has been read already.
    ///
    /// # Errors
    /// [`Kind::InvalidMessage`] if a line is not one.
    pub fn buffered(&mut self) -> Result<Option<Incoming>, Error> {
        let Some(at) = self.buffer[self.scanned..].iter().position(|b| *b == b'\n') else {
            self.scanned = self.buffer.len();
            return Ok(None);
        };
        let end = self.scanned + at;
        let parsed: Result<Incoming, _> = serde_json::from_slice(&self.buffer[..end])
            .map_err(|e| Error::new(Kind::InvalidMessage, format!("the daemon sent a line that is no message: {e}")));
        self.buffer.drain(..=end);
        self.scanned = 0;
        if let Ok(message) = &parsed {
            self.heard(message);
        }
        parsed.map(Some)
    }

    fn heard(&mut self, message: &Incoming) {
        if message.method.is_none() {
            self.unanswered = self.unanswered.saturating_sub(1);
            self.subscribed |= self.last.take().is_some_and(|sent| sent.method == RunSubscribe::NAME);
        }
    }
}

fn line_of(message: &impl Serialize) -> Result<Vec<u8>, Error> {
    let mut line = serde_json::to_vec(message)
        .map_err(|e| Error::new(Kind::Internal, format!("a call cannot be written as JSON: {e}")))?;
    line.push(b'\n');
    if line.len() > MAX_LINE {
        return Err(Error::new(
            Kind::InvalidParameters,
            format!("the call has {} bytes; at most {MAX_LINE} are allowed", line.len()),
        ));
    }
    Ok(line)
}

/// What changes nothing may be called twice.
fn only_looks(method: &str) -> bool {
    use protocol::methods::*;
    matches!(
        method,
        Status::NAME
            | Doctor::NAME
            | List::NAME
            | Show::NAME
            | RunList::NAME
            | RunShow::NAME
            | RunReportOf::NAME
            | RunSubscribe::NAME
            | CheckpointList::NAME
            | CheckpointDiff::NAME
            | ConsentShow::NAME
            | SecretListAll::NAME
            | AuditSearch::NAME
    )
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// The answer to call `id`, if `message` is it.
pub(crate) fn answer<M: Method>(id: u64, message: Incoming) -> Option<Result<M::Output, Error>> {
    // An error without an id answers a line that could not be read: ours, we send one at a time.
    let ours = message.id == Some(id.into())
        || (message.error.is_some() && message.id.as_ref().is_none_or(serde_json::Value::is_null));
    if message.method.is_some() || !ours {
        return None;
    }
    Some(match (message.error, message.result) {
        (Some(error), _) => Err(match Error::from(error) {
            error if error.kind() == Kind::UnknownMethod => {
                another_version(format!("the daemon that runs does not know {}: it is of another version", M::NAME))
            }
            error => error,
        }),
        (None, Some(raw)) => serde_json::from_str(raw.get())
            .map_err(|e| another_version(format!("the daemon's answer to {} is not understood: {e}", M::NAME))),
        (None, None) => serde_json::from_str("null")
            .map_err(|_| Error::new(Kind::InvalidMessage, format!("the daemon's answer to {} is empty", M::NAME))),
    })
}

/// A daemon goes on as it is, whatever is installed meanwhile, until somebody ends it.
fn another_version(what: String) -> Error {
    Error::new(Kind::VersionMismatch, what)
        .hint("vcodingctl daemon stop; the next command starts the one that is installed")
}

impl Client {
    /// The answer to call `id`, if `message` is it; for callers that poll.
    pub fn answer_to<M: Method>(id: u64, message: Incoming) -> Option<Result<M::Output, Error>> {
        answer::<M>(id, message)
    }
}

fn gone(e: &std::io::Error) -> Error {
    Error::new(Kind::DaemonUnreachable, format!("the daemon closed the connection: {e}"))
        .hint("vcodingctl daemon status")
}

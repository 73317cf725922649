//! What can go wrong with a command, by what its caller would do about it.

use std::time::Duration;

use protocol::Kind;

use crate::ssh;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command and its environment do not fit.
    #[error("{0}")]
    TooLong(#[from] guest::frame::Invalid),
    #[error(transparent)]
    Ssh(#[from] ssh::Error),
    #[error("the guest could not start another process or terminal")]
    NotStarted,
    #[error("the guest's shell did not take the command{}", said_of(.said))]
    NotOurShell { said: String },
    /// It may take it yet.
    #[error("the guest's shell stands still: it did not take the command within {} s", .after.as_secs())]
    NotTaken { after: Duration },
    #[error("the connection into the guest was lost while the command ran")]
    Lost,
    #[error("the guest ended the command without a status")]
    NoStatus,
    #[error("the command took more than {} s and was ended", .after.as_secs_f32())]
    TimedOut { after: Duration },
    /// Nobody reads its output any more.
    #[error("the command's output has no reader")]
    ReaderGone,
    #[error("the command's output cannot be written: {0}")]
    Descriptor(std::io::Error),
    #[error("the command wrote more than {limit} bytes and was ended")]
    TooMuch { limit: usize },
}

/// What it said instead, a stranger's text.
fn said_of(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

impl Error {
    /// Whether the command may have run.
    pub fn has_started(&self) -> bool {
        !matches!(self, Self::TooLong(_) | Self::Ssh(_) | Self::NotStarted | Self::NotOurShell { .. })
    }
}

impl From<Error> for protocol::Error {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let with = |kind: Kind| Self::new(kind, message);
        match error {
            Error::Ssh(error) => unreachable_guest(&error),
            Error::TooLong(_) => with(Kind::InvalidParameters),
            Error::NotStarted => with(Kind::GuestUnreachable).hint("vcodingctl show, for the limit of processes"),
            Error::Lost | Error::NoStatus => {
                with(Kind::GuestUnreachable).hint("vcodingctl up, which looks after the guest")
            }
            Error::NotOurShell { .. } | Error::NotTaken { .. } => {
                with(Kind::GuestUnreachable).hint("vcodingctl stop, then vcodingctl start: its files stay")
            }
            Error::TimedOut { .. } => with(Kind::TimedOut),
            Error::ReaderGone | Error::TooMuch { .. } => with(Kind::Internal),
            Error::Descriptor(source) if source.raw_os_error() == Some(rustix::io::Errno::NOSPC.raw_os_error()) => {
                with(Kind::NoSpace)
            }
            Error::Descriptor(_) => with(Kind::Internal),
        }
    }
}

fn unreachable_guest(error: &ssh::Error) -> protocol::Error {
    let message = error.to_string();
    match error {
        ssh::Error::Closed => protocol::Error::new(Kind::WorkspaceNotRunning, message).hint("vcodingctl start"),
        ssh::Error::File { .. } | ssh::Error::BadKeys { .. } => protocol::Error::new(Kind::Internal, message),
        ssh::Error::Unreachable { .. }
        | ssh::Error::WrongPeer { .. }
        | ssh::Error::Lost
        | ssh::Error::NoSession { .. }
        | ssh::Error::NotForwarded { .. } => {
            protocol::Error::new(Kind::GuestUnreachable, message).hint("vcodingctl up, which looks after the guest")
        }
    }
}

//! The files of a run: `/run/vcoding/runs/<id>/`.
//!
//! ```text
//! out.N  err.N   output, N from 0, SEGMENT bytes each but the newest; the host unlinks a segment
//!                that it has read and synced into its own log
//! end            written once, by rename, after the last byte of output
//! ```
//!
//! At most [`UNREAD`] full segments of a stream wait for the host; then the supervisor stops
//! reading, so that the command waits and nothing is lost.

/// A segment's size in bytes.
pub const SEGMENT: u64 = 16 << 20;
/// Segments of one stream that may wait unread.
pub const UNREAD: usize = 4;
/// The name of the end record.
pub const END: &str = "end";
/// A longer end record is no end record.
pub const MAX_END: usize = 4096;

/// The name of a segment: `out.0`, `err.3`.
pub fn segment(stream: Stream, number: u64) -> String {
    match stream {
        Stream::Out => format!("out.{number}"),
        Stream::Err => format!("err.{number}"),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    Out,
    Err,
}

/// How a run ended, as the guest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Exited(u8),
    /// By this signal.
    Signalled(u8),
    /// The command could not be started: 126 or 127, and why.
    NotStarted {
        status: u8,
        why: String,
    },
    /// The limit of the frame passed; the tree was ended.
    TimedOut,
    /// It was cancelled; the tree was ended.
    Cancelled,
    /// PID 1 found its supervisor dead.
    SupervisorKilled,
}

impl End {
    /// The file's content: a line, its first word the version.
    pub fn encode(&self) -> String {
        match self {
            Self::Exited(status) => format!("1 exited {status}\n"),
            Self::Signalled(signal) => format!("1 signalled {signal}\n"),
            Self::NotStarted { status, why } => {
                let why: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(1000).collect();
                format!("1 not-started {status} {why}\n")
            }
            Self::TimedOut => "1 timed-out\n".into(),
            Self::Cancelled => "1 cancelled\n".into(),
            Self::SupervisorKilled => "1 supervisor-killed\n".into(),
        }
    }

    /// Reads the file's content; `None` for what is not of the form.
    pub fn decode(content: &[u8]) -> Option<Self> {
        if content.len() > MAX_END {
            return None;
        }
        let line = std::str::from_utf8(content).ok()?.strip_suffix('\n')?;
        let (word, rest) = match line.strip_prefix("1 ")?.split_once(' ') {
            Some((word, rest)) => (word, Some(rest)),
            None => (line.strip_prefix("1 ")?, None),
        };
        Some(match (word, rest) {
            ("exited", Some(status)) => Self::Exited(status.parse().ok()?),
            ("signalled", Some(signal)) => Self::Signalled(signal.parse().ok()?),
            ("not-started", Some(rest)) => {
                let (status, why) = rest.split_once(' ')?;
                Self::NotStarted { status: status.parse().ok()?, why: why.to_owned() }
            }
            ("timed-out", None) => Self::TimedOut,
            ("cancelled", None) => Self::Cancelled,
            ("supervisor-killed", None) => Self::SupervisorKilled,
            _ => return None,
        })
    }

    /// The exit status as a shell would put it.
    pub fn status(&self) -> u8 {
        match self {
            Self::Exited(status) | Self::NotStarted { status, .. } => *status,
            Self::Signalled(signal) => 128u8.saturating_add(*signal),
            Self::TimedOut => 124,
            Self::Cancelled => 130,
            Self::SupervisorKilled => 137,
        }
    }
}

/// Whether a text names a run: a ULID in lower case. Checked on both sides, as it becomes a path.
pub fn is_id(text: &str) -> bool {
    text.len() == 26 && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_survives_the_file_and_other_text_is_none() {
        for end in [
            End::Exited(0),
            End::Exited(255),
            End::Signalled(9),
            End::NotStarted { status: 127, why: "no such file".into() },
            End::TimedOut,
            End::Cancelled,
            End::SupervisorKilled,
        ] {
            assert_eq!(End::decode(end.encode().as_bytes()), Some(end));
        }
        for bad in ["", "1 exited 0", "2 exited 0\n", "1 exited 256\n", "1 exited\n", "1 cancelled x\n", "1 \n", "\n"] {
            assert_eq!(End::decode(bad.as_bytes()), None, "{bad:?}");
        }
        let long = End::NotStarted { status: 126, why: "x\n".repeat(9000) };
        assert!(End::decode(long.encode().as_bytes()).is_some());
    }
}

//! An engine's refusals, sorted by what a caller would do about them.

use std::error::Error as _;

use bollard::errors::Error as Refusal;

use crate::provider::{Error, Result};

/// An answer, or one of the two refusals that are answers of their own kind.
#[derive(Debug)]
pub(super) enum Asked<T> {
    Answer(T),
    /// 404: there is no such thing. The engine's words.
    Missing(String),
    /// 409: it exists already, or is busy. The engine's words.
    Conflict(String),
}

impl<T> Asked<T> {
    /// For questions that every engine answers.
    pub fn needed(self, doing: &'static str) -> Result<T> {
        match self {
            Self::Answer(answer) => Ok(answer),
            Self::Missing(message) | Self::Conflict(message) => Err(Error::Engine { doing, message }),
        }
    }
}

pub(super) fn asked<T>(
    endpoint: &str,
    doing: &'static str,
    answer: std::result::Result<T, Refusal>,
) -> Result<Asked<T>> {
    match answer {
        Ok(answer) => Ok(Asked::Answer(answer)),
        Err(Refusal::DockerResponseServerError { status_code: 404, message }) => Ok(Asked::Missing(message)),
        Err(Refusal::DockerResponseServerError { status_code: 409, message }) => Ok(Asked::Conflict(message)),
        Err(other) => Err(classify(endpoint, doing, other)),
    }
}

pub(super) fn classify(endpoint: &str, doing: &'static str, refusal: Refusal) -> Error {
    let endpoint = endpoint.to_owned();
    match refusal {
        Refusal::DockerResponseServerError { message, .. } | Refusal::DockerStreamError { error: message } => {
            if is_no_space(&message) {
                Error::NoSpace { doing, message }
            } else {
                Error::Engine { doing, message }
            }
        }
        Refusal::SocketNotFoundError(_) => {
            Error::EngineUnreachable { endpoint, source: std::io::Error::from(std::io::ErrorKind::NotFound).into() }
        }
        other => match io_kind(&other) {
            Some(std::io::ErrorKind::PermissionDenied) => Error::PermissionDenied { endpoint },
            Some(_) => Error::EngineUnreachable { endpoint, source: other.into() },
            None if matches!(other, Refusal::HyperLegacyError { .. } | Refusal::HyperResponseError { .. }) => {
                Error::EngineUnreachable { endpoint, source: other.into() }
            }
            None => Error::Engine { doing, message: other.to_string() },
        },
    }
}

pub(super) fn is_no_space(message: &str) -> bool {
    message.to_ascii_lowercase().contains("no space left on device")
}

/// The system's error at the bottom of the chain. bollard's own errors show their text and not
/// always their source, so the wrapped one is looked at too.
fn io_kind(refusal: &Refusal) -> Option<std::io::ErrorKind> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = match refusal {
        Refusal::HyperLegacyError { err } => Some(err),
        Refusal::HyperResponseError { err } => Some(err),
        Refusal::IOError { err } => return Some(err.kind()),
        other => other.source(),
    };
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_for_a_caller_differs_in_kind() {
        let server = |status_code, message: &str| Refusal::DockerResponseServerError {
            status_code,
            message: message.to_owned(),
        };
        let classified = |refusal| classify("unix:///x", "testing", refusal);
        assert!(matches!(classified(server(500, "write /x: No space left on device")), Error::NoSpace { .. }));
        assert!(matches!(classified(server(500, "else")), Error::Engine { .. }));
        assert!(matches!(classified(Refusal::SocketNotFoundError(String::new())), Error::EngineUnreachable { .. }));
        let io = |kind: std::io::ErrorKind| Refusal::IOError { err: kind.into() };
        assert!(matches!(classified(io(std::io::ErrorKind::PermissionDenied)), Error::PermissionDenied { .. }));
        assert!(matches!(classified(io(std::io::ErrorKind::ConnectionRefused)), Error::EngineUnreachable { .. }));
        assert!(matches!(asked::<()>("e", "t", Err(server(404, "x"))), Ok(Asked::Missing(_))));
        assert!(matches!(asked::<()>("e", "t", Err(server(409, "x"))), Ok(Asked::Conflict(_))));
    }
}

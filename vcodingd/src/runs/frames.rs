//! What the guest's helper is told about a run.

use std::time::Duration;

use guest::{Frame, frame::Job};
use protocol::RunId;

/// What a run begins with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Start {
    pub argv: Vec<Vec<u8>>,
    /// `NAME=value`, on top of the image's.
    pub env: Vec<Vec<u8>>,
    /// The whole of its standard input.
    pub stdin: Vec<u8>,
    /// Absolute, or relative to the work tree; empty is the default.
    pub directory: Vec<u8>,
    /// Held in the guest, so that it passes without a daemon too.
    pub timeout: Option<Duration>,
}

/// Starts a run. The exec ends with 0 once the supervisor has taken over, with 126 or 127 and a
/// line on standard error if it could not.
pub fn start_frame(id: &RunId, start: Start) -> Frame {
    // A frame's 0 is no limit; a limit of less than a millisecond is still one.
    let limit = |limit: Duration| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1);
    let timeout_ms = start.timeout.map_or(0, limit);
    let job = Job::Run { id: id.to_string(), stdin: start.stdin, timeout_ms };
    Frame { job, env: start.env, directory: start.directory, ..Frame::exec(start.argv) }
}

/// Ends a run and its whole process tree. The exec ends with 0 when the supervisor was told, with
/// 3 if there is no such run.
pub fn cancel_frame(id: &RunId) -> Frame {
    Frame { job: Job::Cancel { id: id.to_string() }, ..Frame::exec(Vec::<Vec<u8>>::new()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_has_a_frame_that_the_guest_takes() {
        let id: RunId = "01jd0000000000000000000000".parse().unwrap();
        let start = Start {
            argv: vec![b"claude".to_vec()],
            stdin: b"fix it".to_vec(),
            timeout: Some(Duration::from_micros(1)),
            ..Start::default()
        };
        let frame = start_frame(&id, start);
        assert!(matches!(&frame.job, Job::Run { timeout_ms: 1, .. }));
        for frame in [frame, cancel_frame(&id)] {
            let bytes = frame.encode().unwrap();
            assert_eq!(Frame::decode(&bytes[guest::frame::HEAD..]).unwrap(), frame);
        }
    }
}

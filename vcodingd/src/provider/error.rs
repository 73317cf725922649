//! What can go wrong with a guest, by what a caller would do about it.

use std::path::PathBuf;
use std::time::Duration;

use protocol::WorkspaceId;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the engine at {endpoint} cannot be reached")]
    EngineUnreachable {
        endpoint: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("this user may not use the engine at {endpoint}")]
    PermissionDenied { endpoint: String },
    #[error("the engine lacks what a sealed guest needs: {why}")]
    Unsuitable { why: String },
    #[error("there is no image {reference:?}")]
    NoSuchImage { reference: String },
    #[error("there is no guest {id}")]
    NoSuchGuest { id: WorkspaceId },
    #[error("guest {id} is {state}, not running")]
    NotRunning { id: WorkspaceId, state: String },
    /// `output` is the end of the failing step's output, at most [`super::docker::OUTPUT_LINES`]
    /// lines, as the build wrote it: text from a stranger.
    #[error("the image's build failed at {step:?}: {cause}")]
    BuildFailed { step: String, cause: String, output: Vec<String> },
    #[error("the image's build took longer than {} and was ended", minutes(.after))]
    BuildTooLong { after: Duration },
    #[error("no space is left for {doing}: {message}")]
    NoSpace { doing: &'static str, message: String },
    /// A rule of ours forbids it; asking again will not help.
    #[error("{what} is refused: {why}")]
    Refused { what: String, why: String },
    #[error("guest {id} exists with another configuration: {differences}")]
    Conflict { id: WorkspaceId, differences: String },
    #[error("guest {id} did not start: {message}")]
    StartFailed { id: WorkspaceId, message: String },
    /// It was stopped again.
    #[error("guest {id} is not as sealed as it was asked to be, and was stopped: {differences}")]
    Breached { id: WorkspaceId, differences: String },
    #[error("the engine did not finish {doing} in {} s", .after.as_secs())]
    Timeout { doing: &'static str, after: Duration },
    #[error("{doing} failed at the engine: {message}")]
    Engine { doing: &'static str, message: String },
    #[error("{path} cannot be read")]
    Host { path: PathBuf, source: std::io::Error },
}

fn minutes(after: &Duration) -> String {
    match after.as_secs() {
        seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

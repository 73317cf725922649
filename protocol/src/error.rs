//! The one error type of the socket: what happened to what, and the next command to type.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

macro_rules! kinds {
    ($($(#[doc = $about:literal])* $variant:ident = $exit:literal,)*) => {
        /// What went wrong, as a stable word. Each belongs to one exit status of `vcodingctl`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "kebab-case")]
        pub enum Kind { $($(#[doc = $about])* $variant,)* }

        impl Kind {
            /// Every kind, in the order of docs/errors.md.
            pub const ALL: &'static [Kind] = &[$(Kind::$variant,)*];

            /// The exit status of `vcodingctl` for it.
            pub fn exit(self) -> u8 {
                match self { $(Kind::$variant => $exit,)* }
            }

            /// When it is said, for docs/errors.md.
            pub fn about(self) -> &'static str {
                match self { $(Kind::$variant => concat!($($about,)*),)* }
            }
        }
    };
}

kinds! {
    /// Something of ours broke; the daemon's log has the details.
    Internal = 1,
    /// A line on the socket is not a JSON-RPC message, or too long.
    InvalidMessage = 2,
    /// A method does not exist; `vcodingctl` says `version-mismatch` of a daemon that answers so.
    UnknownMethod = 2,
    /// Parameters do not fit the method.
    InvalidParameters = 2,
    /// The command line is wrong.
    Usage = 2,
    /// vcoding.toml or the user's configuration has mistakes.
    InvalidConfiguration = 2,
    /// There is no project here: no vcoding.toml, no .git, no Dockerfile.
    NoProject = 2,
    /// The project has no Dockerfile.
    NoDockerfile = 2,
    /// The directory cannot be a project (the home directory, `/`, our own state).
    UnsuitableProject = 2,
    /// No workspace of that name, or none for this project.
    WorkspaceNotFound = 3,
    /// No checkpoint of that name.
    CheckpointNotFound = 3,
    /// Neither the checkpoint nor the work tree has such a path.
    PathNotFound = 3,
    /// No run of that id.
    RunNotFound = 3,
    /// No agent of that name.
    AgentNotFound = 3,
    /// No key of that name is kept.
    SecretNotFound = 3,
    /// A rule of the image wall refuses it (ONBUILD, our labels, volumes or links at our mounts).
    ImageRefused = 4,
    /// The guest is not what was asked for; it was stopped.
    WallBreached = 4,
    /// The workspace holds work that was never applied.
    UnappliedWork = 4,
    /// The repository asks for more than the defaults and nobody has agreed.
    ConsentNeeded = 4,
    /// A branch would hold other files than git makes of them: sparse checkout, filters, line ends, modes.
    BranchUnfaithful = 4,
    /// A budget is used up.
    BudgetExceeded = 4,
    /// Another operation holds the workspace.
    WorkspaceBusy = 5,
    /// Runs are under way that this would cut off, or whose files it would change under them.
    RunsUnderWay = 5,
    /// The name belongs to another project.
    WorkspaceTaken = 5,
    /// The workspace is stopped, or not what the operation needs.
    WorkspaceNotRunning = 5,
    /// A checkpoint is called that already.
    LabelTaken = 5,
    /// The branch exists and is not ours to move.
    BranchExists = 5,
    /// A run with that id, or an exec with that name, is under way.
    AlreadyRunning = 5,
    /// The daemon has as many connections as it takes, in all or of one process.
    DaemonBusy = 5,
    /// Another daemon owns the state directory.
    DaemonRunning = 5,
    /// The container engine does not answer.
    EngineUnreachable = 6,
    /// The container engine's socket may not be used by this user.
    EnginePermissionDenied = 6,
    /// The container engine failed at something.
    EngineFailed = 6,
    /// The Dockerfile did not build.
    ImageBuildFailed = 6,
    /// The disk is full.
    NoSpace = 6,
    /// The guest does not answer over SSH.
    GuestUnreachable = 6,
    /// The agent's files could not be fetched or verified.
    AgentUnavailable = 6,
    /// There is no key for the model endpoint.
    KeyMissing = 6,
    /// The model endpoint refused or failed.
    ModelEndpoint = 6,
    /// The daemon cannot be reached or started.
    DaemonUnreachable = 7,
    /// The daemon is of another version.
    VersionMismatch = 7,
    /// The time limit passed.
    TimedOut = 124,
    /// The user interrupted.
    Interrupted = 130,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The serialised form is the name; a unit variant always serialises to a string.
        match serde_json::to_value(self) {
            Ok(Value::String(word)) => f.write_str(&word),
            _ => f.write_str("internal"),
        }
    }
}

/// An error as it crosses the socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Error {
    /// JSON-RPC's own codes for its own errors; 1000 + exit status for ours.
    pub code: i32,
    /// What happened to what.
    pub message: String,
    pub data: ErrorData,
}

/// The part of an [`Error`] that programs read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorData {
    pub kind: Kind,
    /// The next command to type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// More, by kind: the tail of a build's output, the names that exist, …
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub details: Value,
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        let code = match kind {
            Kind::InvalidMessage => -32600,
            Kind::UnknownMethod => -32601,
            Kind::InvalidParameters => -32602,
            Kind::Internal => -32603,
            other => 1000 + i32::from(other.exit()),
        };
        Self { code, message: message.into(), data: ErrorData { kind, hint: None, details: Value::Null } }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.data.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn details(mut self, details: Value) -> Self {
        self.data.details = details;
        self
    }

    pub fn kind(&self) -> Kind {
        self.data.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// The whole chain of causes, as one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_kebab_case_words_with_a_text_and_an_exit_status() {
        for kind in Kind::ALL {
            let word = kind.to_string();
            assert!(word.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{word}");
            assert!(!kind.about().trim().is_empty(), "{word}");
            assert!(matches!(kind.exit(), 1..=7 | 124 | 130), "{word}");
        }
    }

    #[test]
    fn an_error_on_the_wire_has_code_message_kind_and_hint() {
        let error = Error::new(Kind::WorkspaceNotFound, "no workspace \"x\"").hint("vcodingctl ls");
        assert_eq!(
            serde_json::to_string(&error).unwrap(),
            r#"{"code":1003,"message":"no workspace \"x\"","data":{"kind":"workspace-not-found","hint":"vcodingctl ls"}}"#
        );
    }
}

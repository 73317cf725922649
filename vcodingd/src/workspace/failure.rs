//! Every room's errors as what a client is told: kind, message, and the next command to type.

pub use protocol::error::chain;
use protocol::{Error, Kind};

use crate::{agents, config, exec, image, provider, runs, secrets, ssh, store, timeline, transfer};

pub fn of_provider(error: &provider::Error) -> Error {
    use provider::Error as E;
    let (kind, hint) = match error {
        E::EngineUnreachable { .. } => (Kind::EngineUnreachable, Some("docker info")),
        E::PermissionDenied { .. } => {
            (Kind::EnginePermissionDenied, Some("sudo usermod -aG docker $USER, then log in again"))
        }
        E::Unsuitable { .. } => (Kind::EngineFailed, Some("docker info")),
        E::NoSuchImage { .. } => (Kind::EngineFailed, Some("vcodingctl up --rebuild")),
        E::NoSuchGuest { .. } | E::NotRunning { .. } => (Kind::WorkspaceNotRunning, Some("vcodingctl start")),
        E::BuildFailed { .. } => (Kind::ImageBuildFailed, Some("mend the Dockerfile, then: vcodingctl up")),
        E::BuildTooLong { .. } => (
            Kind::ImageBuildFailed,
            Some("vcodingctl up goes on with the step that it was at; if that one never ends: mend the Dockerfile"),
        ),
        E::NoSpace { .. } => (Kind::NoSpace, Some("docker system df; df -h")),
        E::Refused { .. } => (Kind::ImageRefused, None),
        E::Conflict { .. } => (Kind::WorkspaceBusy, Some("vcodingctl up --rebuild")),
        E::StartFailed { .. } => (Kind::EngineFailed, Some("vcodingctl up --rebuild")),
        E::Breached { .. } => (Kind::WallBreached, Some("vcodingctl up --rebuild")),
        E::Timeout { .. } => (Kind::EngineFailed, Some("docker info")),
        E::Engine { message, .. } if is_no_space(message) => (Kind::NoSpace, Some("docker system df; df -h")),
        E::Engine { .. } | E::Host { .. } => (Kind::EngineFailed, Some("docker info")),
    };
    let mut answer = Error::new(kind, chain(error));
    if let Some(hint) = hint {
        answer = answer.hint(hint);
    }
    if let E::BuildFailed { step, output, .. } = error {
        answer = answer.details(serde_json::json!({"step": step, "output": output}));
    }
    answer
}

/// Whether the disk was full, however deep that lies.
fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .any(|error| matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded))
}

fn is_no_space(text: &str) -> bool {
    text.to_ascii_lowercase().contains("no space left on device")
}

pub fn of_image(error: &image::Error) -> Error {
    use image::Error as E;
    let answer = match error {
        E::Provider(inner) => of_provider(inner),
        E::Context { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Error::new(Kind::NoDockerfile, chain(error))
        }
        E::Context { .. } if is_full(error) => Error::new(Kind::NoSpace, chain(error)).hint("df -h"),
        E::Context { .. } | E::Outside { .. } | E::TooLarge { .. } => {
            Error::new(Kind::InvalidConfiguration, chain(error))
                .hint("vcoding.toml and .dockerignore say what is taken")
        }
        E::CopiesSecret { .. } | E::Unsuitable { .. } => Error::new(Kind::ImageRefused, chain(error)),
    };
    match error.hint() {
        Some(hint) => answer.hint(hint),
        None => answer,
    }
}

pub fn of_config(error: &config::Error) -> Error {
    let answer = Error::new(Kind::InvalidConfiguration, chain(error));
    match error {
        config::Error::Unsupported { .. } => answer.hint("take these lines out of vcoding.toml"),
        config::Error::Unreadable { path, .. } => answer.hint(format!("ls -l {}", path.display())),
        config::Error::Mistake { .. } => answer.hint("docs/configuration.md says what may stand there"),
    }
}

pub fn of_store(error: &store::Error) -> Error {
    if is_full(error) {
        return Error::new(Kind::NoSpace, chain(error)).hint("df -h");
    }
    Error::new(Kind::Internal, chain(error)).hint("vcodingctl daemon status")
}

pub fn of_ssh(error: ssh::Error) -> Error {
    exec::Error::from(error).into()
}

pub fn of_timeline(error: &timeline::Error) -> Error {
    match error {
        timeline::Error::History(error) => of_history(error),
        timeline::Error::Closed => Error::new(Kind::WorkspaceNotFound, chain(error)).hint("vcodingctl ls"),
        timeline::Error::Task(_) => Error::new(Kind::Internal, chain(error)).hint("vcodingctl daemon status"),
    }
}

fn of_history(error: &history::Error) -> Error {
    use history::Error as E;
    let (kind, hint) = match error {
        E::NoSuchCheckpoint { .. } | E::Ambiguous { .. } => (Kind::CheckpointNotFound, "vcodingctl log"),
        E::HasWork => (Kind::WorkspaceBusy, "vcodingctl diff"),
        E::NoBase => (Kind::WorkspaceNotRunning, "vcodingctl up"),
        E::Damaged { .. } | E::BadTree { .. } | E::Collision => (Kind::Internal, "vcodingctl show"),
        E::Inexact { .. } => (Kind::Internal, "vcodingctl diff shows what differs; then the same rollback again"),
        E::NotARepository { .. } => (Kind::InvalidConfiguration, "git init, then vcodingctl apply"),
        E::NotOwned { path } => return Error::new(Kind::InvalidConfiguration, chain(error)).hint(trust(path)),
        E::Unsupported { .. } => {
            (Kind::InvalidConfiguration, "vcodingctl diff > work.patch, then git apply work.patch")
        }
        E::HeadGone { .. } => (Kind::InvalidConfiguration, "vcodingctl diff > work.patch, then git apply work.patch"),
        E::Unfaithful { .. } => (
            Kind::BranchUnfaithful,
            "vcodingctl diff > work.patch, then git apply work.patch; or file by file: vcodingctl collect PATH",
        ),
        E::BadBranch { .. } => (Kind::InvalidParameters, "vcodingctl apply --branch NAME"),
        E::BranchExists { branch, free } => {
            let hint = format!("vcodingctl apply --branch {free}; or, if you do not need it: git branch -D {branch}");
            return Error::new(Kind::BranchExists, chain(error)).hint(hint);
        }
        E::BranchCheckedOut { .. } => (Kind::BranchExists, "vcodingctl apply --branch ANOTHER-NAME"),
        E::Io { .. } | E::Files(_) if is_full(error) => (Kind::NoSpace, "df -h"),
        E::Files(fs::Error::NotFound { .. }) => {
            (Kind::WorkspaceNotRunning, "vcodingctl up brings it back as it was at @")
        }
        E::Io { .. } | E::Files(_) | E::Git { .. } => (Kind::Internal, "df -h; vcodingctl daemon status"),
    };
    Error::new(kind, chain(error)).hint(hint)
}

/// The way to work in a repository of another user: git's own.
pub fn trust(project: &std::path::Path) -> String {
    format!("if you trust it: git config --global --add safe.directory {}", project.display())
}

pub fn of_collect(error: &transfer::CollectError) -> Error {
    use transfer::CollectError as E;
    let (kind, hint) = match error {
        E::NoMatch { .. } => (Kind::PathNotFound, "vcodingctl exec -- ls"),
        E::To { .. } | E::Files(_) | E::Unwatched(_) if is_full(error) => (Kind::NoSpace, "df -h"),
        E::Files(inner) if inner.is_missing() => {
            (Kind::WorkspaceNotRunning, "vcodingctl up brings it back as it was at @")
        }
        E::Unwatched(_) => (Kind::Internal, "df -h; vcodingctl daemon status"),
        E::To { .. } | E::Files(_) => (Kind::Internal, "ls -ld that path; df -h"),
        E::TooMany => (Kind::InvalidParameters, "vcodingctl exec -- tar c DIR > DIR.tar"),
        E::Abandoned => (Kind::Interrupted, "vcodingctl collect again"),
    };
    Error::new(kind, chain(error)).hint(hint)
}

pub fn of_log(error: &runs::LogError) -> Error {
    Error::new(full_or_internal(error), chain(error)).hint("df -h")
}

/// Of something that could not be written.
pub fn full_or_internal(error: &(dyn std::error::Error + 'static)) -> Kind {
    if is_full(error) { Kind::NoSpace } else { Kind::Internal }
}

pub fn of_agents(error: &agents::Error) -> Error {
    use agents::Error as E;
    match error {
        E::Unknown { .. } => Error::new(Kind::AgentNotFound, chain(error)).hint("vcodingctl run claude PROMPT"),
        E::Manifest { .. } => Error::new(Kind::InvalidConfiguration, chain(error)),
        E::Unsupported { .. } | E::Tampered { .. } | E::Package { .. } => {
            Error::new(Kind::AgentUnavailable, chain(error))
        }
        E::Registry { .. } => Error::new(Kind::AgentUnavailable, chain(error)).hint(
            "config.toml: [agents] registry names another one; a proxy's authority belongs into the system's store",
        ),
        E::Store(_) | E::Write(_) => Error::new(Kind::AgentUnavailable, chain(error)).hint("df -h"),
    }
}

pub fn of_secrets(error: &secrets::Error) -> Error {
    use secrets::Error as E;
    match error {
        E::Host { .. } => Error::new(Kind::Internal, chain(error)).hint("df -h"),
        E::Name { .. } | E::Empty { .. } | E::TooLong { .. } => {
            Error::new(Kind::InvalidParameters, chain(error)).hint("vcodingctl secret set NAME")
        }
    }
}

/// A file of the host's own that could not be written or read.
pub fn of_file(path: &std::path::Path, error: &std::io::Error) -> Error {
    let kind = if error.raw_os_error() == Some(28) { Kind::NoSpace } else { Kind::Internal };
    Error::new(kind, format!("{}: {error}", path.display())).hint("df -h")
}

/// A task of ours that panicked.
pub fn of_task(error: &tokio::task::JoinError) -> Error {
    Error::new(Kind::Internal, format!("a task broke off: {error}")).hint("vcodingctl daemon status")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_build_shows_the_step_and_the_end_of_its_output() {
        let error = of_provider(&provider::Error::BuildFailed {
            step: "RUN make".into(),
            cause: "status 2".into(),
            output: vec!["a".into(), "b".into()],
        });
        assert_eq!(error.kind(), Kind::ImageBuildFailed);
        assert_eq!(error.data.details["output"][1], "b");
        assert!(error.message.contains("RUN make"), "{error}");
    }

    #[test]
    fn an_engine_without_us_says_what_to_type() {
        let denied = of_provider(&provider::Error::PermissionDenied { endpoint: "unix:///x".into() });
        assert_eq!((denied.kind(), denied.kind().exit()), (Kind::EnginePermissionDenied, 6));
        assert!(denied.data.hint.unwrap().contains("usermod"));
        let source: Box<dyn std::error::Error + Send + Sync> = "no such file".into();
        let gone = of_provider(&provider::Error::EngineUnreachable { endpoint: "unix:///x".into(), source });
        assert!(gone.message.contains("unix:///x") && gone.message.contains("no such file"), "{gone}");
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_the_lines_to_take_out() {
        let error = config::Error::Unsupported { path: "/p/vcoding.toml".into(), what: vec!["[network] allow".into()] };
        let answer = of_config(&error);
        assert_eq!(answer.kind().exit(), 2);
        assert!(answer.message.contains("[network] allow") && answer.data.hint.unwrap().contains("vcoding.toml"));
    }
}

//! The user's Dockerfile, built as it is, and OpenSSH on top where it is missing.
//!
//! ```text
//! prepare (blocking)   project → context without links, secrets and what .dockerignore names;
//!                      its archive and content hash
//! ensure               hash → image there? else build → inspect and refuse → OpenSSH → name
//! ```
//!
//! What an image says about itself is text from a stranger (wall 3): see [`refusal`].

mod accounts;
mod context;
mod dockerfile;
mod ignore;
mod layer;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::{WorkspaceId, WorkspaceName};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use accounts::{Account, Accounts, Group, accounts};
pub use context::{LeftOut, Prepared, fingerprint, prepare};

use crate::provider::{self, BuildEvent, BuildSpec, ImageId, ImageInfo, Provider};

/// What to build, as configuration and the command line gave it.
#[derive(Debug, Clone)]
pub struct ImageRequest {
    /// The project's real path.
    pub project: PathBuf,
    /// Relative to the project, beneath it.
    pub dockerfile: PathBuf,
    /// Relative to the project, beneath it; `.` is the project itself.
    pub context: PathBuf,
    pub target: Option<String>,
    pub args: BTreeMap<String, String>,
    pub name: WorkspaceName,
    /// Whose build it is: two of one name and content do not meet half-way.
    pub workspace: WorkspaceId,
    /// Builds, even if an image of this content is there.
    pub rebuild: bool,
    /// Without the engine's cache.
    pub no_cache: bool,
}

/// Why a file must not leave the host, if so: asked with the path relative to the context and
/// the beginning of the content (empty for a directory, which then is left out as a whole).
pub type SecretGate<'a> = &'a dyn Fn(&Path, &[u8]) -> Option<String>;

/// An image that a guest can be made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    pub image: ImageId,
    /// `vcoding/<name>:<content hash>`.
    pub reference: String,
    /// What the image says: ENV, WORKDIR and USER are the user's own.
    pub info: ImageInfo,
    /// False if it was there already.
    pub built: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path} cannot be read for the build")]
    Context { path: PathBuf, source: std::io::Error },
    #[error("{path} is not taken for the build: {why}")]
    Outside { path: PathBuf, why: &'static str },
    #[error("the build context {path} is too large: {why}")]
    TooLarge { path: PathBuf, why: String },
    #[error("line {line} of {dockerfile}: it copies {path}, which was kept out of the build: {why}")]
    CopiesSecret { dockerfile: PathBuf, line: usize, path: PathBuf, why: String },
    #[error("the image is refused: {why}")]
    Unsuitable { why: String },
    #[error(transparent)]
    Provider(#[from] provider::Error),
}

impl Error {
    /// What to do about it, where there is something to say beyond the message.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::CopiesSecret { .. } => {
                Some("name it under build_secrets in vcoding.toml and mount it: RUN --mount=type=secret,id=NAME …")
            }
            Self::Provider(provider::Error::BuildFailed { output, cause, .. }) => {
                let of_certificates = |text: &str| {
                    let text = text.to_ascii_lowercase();
                    CERTIFICATE_TROUBLE.iter().any(|trouble| text.contains(trouble))
                };
                if of_certificates(cause) || output.iter().any(|line| of_certificates(line)) {
                    return Some(
                        "a proxy with its own certificate authority? COPY its certificate in the Dockerfile and run update-ca-certificates",
                    );
                }
                if REGISTRY_TROUBLE.iter().any(|trouble| cause.contains(trouble)) {
                    return Some(
                        "no registry answered; docker pull IMAGE tries it alone, and an image that is here needs none",
                    );
                }
                None
            }
            _ => None,
        }
    }
}

/// In lower case, as curl, git, Python, Node, Go and apt put it.
const CERTIFICATE_TROUBLE: [&str; 7] = [
    "certificate verify failed",
    "certificate verification failed",
    "ssl certificate problem",
    "x509: certificate",
    "unable to get local issuer certificate",
    "self-signed certificate",
    "unable_to_get_issuer_cert",
];

/// As the engine says that nobody was reached where a base image would come from.
const REGISTRY_TROUBLE: [&str; 6] = [
    "failed to do request",
    "no such host",
    "connection refused",
    "i/o timeout",
    "network is unreachable",
    "TLS handshake timeout",
];

/// How long a build may take, ours on top of it included: it downloads and compiles, and has to end some day all the same.
const LIMIT: Duration = Duration::from_secs(3600);

/// Whose build it was.
const BUILD_LABEL: &str = "vcoding-build";

/// Makes sure that the image is there.
///
/// # Errors
/// [`Error::Unsuitable`] for an image that would not be sealed, [`Error::Provider`].
pub async fn ensure(
    provider: &dyn Provider,
    request: &ImageRequest,
    prepared: Prepared,
    progress: mpsc::Sender<BuildEvent>,
) -> Result<Built, Error> {
    let reference = reference(request, &prepared);
    let users = half_made(&request.name, &request.workspace);
    if !request.rebuild {
        match provider.image(&reference).await {
            Ok(info) => {
                // Of a build that was cut off behind its last step.
                if let Err(error) = provider.remove_image(&users).await {
                    tracing::debug!(%error, "a half-made image was not removed");
                }
                return Ok(Built { image: info.id.clone(), reference, info, built: false });
            }
            Err(provider::Error::NoSuchImage { .. }) => {}
            Err(other) => return Err(other.into()),
        }
    }
    let began = Instant::now();
    let build = BuildSpec {
        context: prepared.archive,
        dockerfile: prepared.dockerfile,
        target: request.target.clone(),
        args: request.args.clone(),
        tag: users.clone(),
        // An image of its own, whatever others of the same content do with theirs meanwhile: the engine removes one with its last name,
        // also while another build is about to name it.
        labels: BTreeMap::from([(BUILD_LABEL.to_owned(), request.workspace.to_string())]),
        no_cache: request.no_cache,
        caches: caches(&request.project),
        limit: LIMIT,
    };
    provider.build(build, progress.clone()).await?;
    let left = LIMIT.saturating_sub(began.elapsed());
    let finished = finish(provider, &users, &reference, left, progress).await;
    // Only a name: the layers stay as long as the final image needs them.
    let unnamed = provider.remove_image(&users).await;
    let info = finished.map_err(of_the_whole)?;
    unnamed?;
    Ok(Built { image: info.id.clone(), reference, info, built: true })
}

/// The last part of a build had less time, which is not what its user waited for.
fn of_the_whole(error: Error) -> Error {
    match error {
        Error::Provider(provider::Error::BuildTooLong { .. }) => provider::Error::BuildTooLong { after: LIMIT }.into(),
        other => other,
    }
}

/// By what a project's cache mounts are told from those of others, and from those of builds that are none of ours.
fn caches(project: &Path) -> String {
    let hash = Sha256::digest(project.as_os_str().as_bytes());
    let digits: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("vcoding-{digits}")
}

/// The name of the image: another Dockerfile, context or setting makes another one.
pub fn reference(request: &ImageRequest, prepared: &Prepared) -> String {
    format!("vcoding/{}:{}", repository(&request.name), prepared.hash)
}

/// What the names of all workspaces' images begin with.
pub const NAMESPACE: &str = "vcoding/";

/// Whether workspaces of this name may have an image of that reference.
pub fn is_of(reference: &str, name: &WorkspaceName) -> bool {
    let rest = reference.strip_prefix("vcoding/").and_then(|rest| rest.strip_prefix(&repository(name)));
    rest.is_some_and(|rest| rest.starts_with(':'))
}

/// The name of a workspace's image between the user's Dockerfile and ours; one build at a time has it.
pub fn half_made(name: &WorkspaceName, workspace: &WorkspaceId) -> String {
    format!("vcoding/{}:building-{workspace}", repository(name))
}

async fn finish(
    provider: &dyn Provider,
    users: &str,
    reference: &str,
    left: Duration,
    progress: mpsc::Sender<BuildEvent>,
) -> Result<ImageInfo, Error> {
    let info = provider.image(users).await?;
    if let Some(why) = refusal(&info) {
        return Err(Error::Unsuitable { why });
    }
    let found = layer::look(provider, &info.id).await?;
    if found.has_sshd {
        provider.tag(&info.id, reference).await?;
    } else {
        let (events, mut heard) = mpsc::channel(64);
        let telling = async {
            let mut told = layer::Told::default();
            while let Some(event) = heard.recv().await {
                if let Some(event) = told.of(event) {
                    // Nobody listens any more: the build goes on.
                    let _gone = progress.send(event).await;
                }
            }
        };
        let (built, ()) = tokio::join!(provider.build(layer::build(users, reference, &info, left)?, events), telling);
        built?;
    }
    Ok(provider.image(reference).await?)
}

/// Why no guest is made from such an image, by what it says of itself.
pub fn refusal(info: &ImageInfo) -> Option<String> {
    if let Some(trigger) = info.on_build.first() {
        return Some(format!("it has an ONBUILD trigger ({})", shortened(trigger)));
    }
    if let Some(label) = info.labels.keys().find(|label| label.starts_with("vcoding.")) {
        return Some(format!("it carries the label {}, which is ours to give", shortened(label)));
    }
    info.volumes.iter().find_map(|volume| provider::docker::volume_in_our_way(volume))
}

fn shortened(text: &str) -> String {
    format!("{:?}", text.chars().take(100).collect::<String>())
}

/// A workspace's name as an engine takes it: no separator at an end, none beside another.
fn repository(name: &WorkspaceName) -> String {
    let words = name.as_str().split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

//! Building an image: by BuildKit, or by the classic builder where an engine has no other.

use std::collections::HashMap;
use std::io::{Seek, SeekFrom};

use bollard::models::{BuildInfo, BuildInfoAux};
use bollard::query_parameters as query;
use futures_util::TryStreamExt;
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;

use super::failure::{Asked, classify, is_no_space};
use super::progress::Progress;
use super::{ACT, ASK, Docker};
use crate::provider::{BuildEvent, BuildSpec, Error, ImageId, NamedImage, Result};

pub use super::progress::OUTPUT_LINES;

/// BuildKit puts it before the name of every cache mount, so that the `/root/.cache` of one Dockerfile is not that of another
/// (measured with 20.10.24). Its frontend takes it out of the arguments: no RUN sees it, and no other step is built anew for it.
const CACHES: &str = "BUILDKIT_CACHE_MOUNT_NS";

pub(super) async fn build(docker: &Docker, spec: BuildSpec, events: mpsc::Sender<BuildEvent>) -> Result<ImageId> {
    let doing = "building an image";
    let tag = spec.tag.clone();
    let engine = docker.clone();
    alone(async move {
        let whole = async {
            match run(&engine, &spec, query::BuilderVersion::BuilderBuildKit, &events).await {
                Err(Failed::NotOffered) => match run(&engine, &spec, query::BuilderVersion::BuilderV1, &events).await {
                    Err(Failed::NotOffered) => {
                        Err(Error::Engine { doing, message: "it offers neither of the builders".to_owned() })
                    }
                    Err(Failed::Error(error)) => Err(error),
                    Ok(()) => Ok(()),
                },
                Err(Failed::Error(error)) => Err(error),
                Ok(()) => Ok(()),
            }
        };
        // The engine ends what its caller does not wait for.
        tokio::time::timeout(spec.limit, whole).await.unwrap_or(Err(Error::BuildTooLong { after: spec.limit }))
    })
    .await?;
    Ok(docker.image_info(&tag).await?.id)
}

/// Runs a build in a runtime of its own, which ends with it, or with whoever waits for it.
///
/// The client library serves BuildKit's session in a task that it starts and never ends: its connection would stay open, and be asked
/// for its health by the engine, as long as this process lives.
async fn alone(build: impl Future<Output = Result<()>> + Send + 'static) -> Result<()> {
    let doing = "building an image";
    let failed = |message: String| Error::Engine { doing, message };
    let (_waited_for, given_up) = tokio::sync::oneshot::channel::<()>();
    let built = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| failed(format!("no runtime for it: {error}")))?;
        runtime.block_on(async {
            tokio::select! {
                built = build => built,
                _ = given_up => Err(failed("nobody waits for it any more".to_owned())),
            }
        })
    });
    built.await.map_err(|error| failed(error.to_string()))?
}

enum Failed {
    /// The engine does not know this builder.
    NotOffered,
    Error(Error),
}

async fn run(
    docker: &Docker,
    spec: &BuildSpec,
    version: query::BuilderVersion,
    events: &mpsc::Sender<BuildEvent>,
) -> std::result::Result<(), Failed> {
    let client = docker.client().map_err(Failed::Error)?;
    let host = |source| Failed::Error(Error::Host { path: "the build context".into(), source });
    let mut context = spec.context.try_clone().map_err(host)?;
    context.seek(SeekFrom::Start(0)).map_err(host)?;
    let body = bollard::body_try_stream(ReaderStream::with_capacity(tokio::fs::File::from_std(context), 64 * 1024));

    let mut progress = Progress::default();
    let mut stream = Box::pin(client.build_image(options(spec, version), None, Some(body)));
    loop {
        match stream.try_next().await {
            Ok(Some(info)) => take(&mut progress, info, events).await,
            Ok(None) => break,
            Err(bollard::errors::Error::DockerResponseServerError { status_code, message })
                if version == query::BuilderVersion::BuilderBuildKit
                    && progress.is_empty()
                    && no_buildkit(status_code, &message) =>
            {
                tracing::info!(%message, "the engine has no BuildKit; building with the classic builder");
                return Err(Failed::NotOffered);
            }
            Err(bollard::errors::Error::DockerStreamError { error }) => {
                return Err(Failed::Error(failed(progress, error, events).await));
            }
            // The classic builder answers a Dockerfile it cannot parse with a status.
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 400 | 500, message }) => {
                return Err(Failed::Error(failed(progress, message, events).await));
            }
            Err(other) => return Err(Failed::Error(classify(&docker.endpoint(), "building an image", other))),
        }
    }
    for event in progress.finish() {
        say(events, event).await;
    }
    Ok(())
}

/// Engines without it say so: "buildkit is not supported", "invalid version 2".
fn no_buildkit(status: u16, message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    matches!(status, 400 | 500 | 501) && (message.contains("buildkit") || message.contains("invalid version"))
}

async fn take(progress: &mut Progress, info: BuildInfo, events: &mpsc::Sender<BuildEvent>) {
    let mut said = Vec::new();
    match info.aux {
        Some(BuildInfoAux::BuildKit(status)) => {
            for vertex in status.vertexes {
                let elapsed = match (&vertex.started, &vertex.completed) {
                    (Some(from), Some(to)) => {
                        Some(milliseconds(to.seconds, to.nanos).saturating_sub(milliseconds(from.seconds, from.nanos)))
                    }
                    _ => None,
                };
                let began = vertex.started.is_some();
                said.extend(progress.step(&vertex.digest, &vertex.name, began, vertex.cached, elapsed, &vertex.error));
            }
            for log in status.logs {
                said.extend(progress.output(&log.vertex, &log.msg));
            }
        }
        Some(BuildInfoAux::Default(_)) | None => {}
    }
    if let Some(text) = info.stream {
        said.extend(progress.classic(&text));
    }
    for event in said {
        say(events, event).await;
    }
}

async fn failed(mut progress: Progress, cause: String, events: &mpsc::Sender<BuildEvent>) -> Error {
    let (error, last) = progress.failed(&cause);
    for event in last {
        say(events, event).await;
    }
    match error {
        Error::BuildFailed { cause, .. } if is_no_space(&cause) => {
            Error::NoSpace { doing: "building an image", message: cause }
        }
        other => other,
    }
}

/// A listener that went away does not end a build: the image is still wanted.
async fn say(events: &mpsc::Sender<BuildEvent>, event: BuildEvent) {
    let _listening = events.send(event).await;
}

fn milliseconds(seconds: i64, nanos: i32) -> u64 {
    let millis = u64::try_from(nanos / 1_000_000).unwrap_or_default();
    u64::try_from(seconds).unwrap_or_default().saturating_mul(1000).saturating_add(millis)
}

fn options(spec: &BuildSpec, version: query::BuilderVersion) -> query::BuildImageOptions {
    let map = |from: &std::collections::BTreeMap<String, String>| -> HashMap<String, String> {
        from.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    let (mut args, labels) = (map(&spec.args), map(&spec.labels));
    if version == query::BuilderVersion::BuilderBuildKit && !spec.caches.is_empty() {
        args.insert(CACHES.to_owned(), spec.caches.clone());
    }
    let session = ulid::Ulid::new().to_string();
    let mut options = query::BuildImageOptionsBuilder::default()
        .dockerfile(&spec.dockerfile)
        .t(&spec.tag)
        .nocache(spec.no_cache)
        .rm(true)
        .forcerm(true)
        .buildargs(&args)
        .labels(&labels)
        .version(version);
    if let Some(target) = &spec.target {
        options = options.target(target);
    }
    if version == query::BuilderVersion::BuilderBuildKit {
        options = options.session(&session);
    }
    options.build()
}

pub(super) async fn tag(docker: &Docker, image: &ImageId, name: &str) -> Result<()> {
    let client = docker.client()?;
    let (repo, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
    let options = query::TagImageOptionsBuilder::default().repo(repo).tag(tag).build();
    match docker.ask("naming an image", ACT, client.tag_image(&image.0, Some(options))).await? {
        Asked::Answer(()) => Ok(()),
        Asked::Missing(_) => Err(Error::NoSuchImage { reference: image.0.clone() }),
        Asked::Conflict(message) => Err(Error::Engine { doing: "naming an image", message }),
    }
}

pub(super) async fn images(docker: &Docker, prefix: &str) -> Result<Vec<NamedImage>> {
    let client = docker.client()?;
    let filters = HashMap::from([("reference", vec![format!("{prefix}*")])]);
    let options = query::ListImagesOptionsBuilder::default().filters(&filters).build();
    let found = docker.ask("listing images", ASK, client.list_images(Some(options))).await?.needed("its list")?;
    let named = found.into_iter().flat_map(|image| {
        let bytes = u64::try_from(image.size).unwrap_or(0);
        image.repo_tags.into_iter().map(move |name| NamedImage { name, bytes })
    });
    Ok(named.filter(|image| image.name.starts_with(prefix)).collect())
}

pub(super) async fn remove_image(docker: &Docker, reference: &str) -> Result<()> {
    let client = docker.client()?;
    let options = query::RemoveImageOptionsBuilder::default().build();
    match docker.ask("removing an image", ACT, client.remove_image(reference, Some(options), None)).await? {
        Asked::Answer(_) | Asked::Missing(_) => Ok(()),
        Asked::Conflict(message) => Err(Error::Engine { doing: "removing an image", message }),
    }
}

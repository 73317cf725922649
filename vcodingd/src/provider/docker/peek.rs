//! What lies at a path in an image, read by the engine from a container that never starts.

use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters as query;
use futures_util::TryStreamExt;
use std::collections::HashMap;
use std::io::Read;

use super::failure::Asked;
use super::{ACT, ASK, Docker};
use crate::provider::{Error, ImageId, Look, PathKind, Peeked, Result};

/// On a container that is only looked into; its value is the state directory.
const LABEL: &str = "vcoding.peek";

/// Beside it: which daemon made it.
const BY: &str = "vcoding.peek-by";

/// A tar archive's head and padding around one file.
const ARCHIVE_BYTES: usize = Peeked::MAX_FILE + 64 * 1024;

pub(super) async fn peek(docker: &Docker, image: &ImageId, looks: &[Look<'_>]) -> Result<Vec<Peeked>> {
    let (docker, image) = (docker.clone(), image.clone());
    let looks: Vec<_> = looks.iter().map(|look| (look.path().to_owned(), matches!(look, Look::Into(_)))).collect();
    // In a task, so that a caller who goes away leaves no container behind.
    let task = tokio::spawn(async move {
        let container = make(&docker, &image).await?;
        let looked = look(&docker, &container, &looks).await;
        let client = docker.client()?;
        let options = query::RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        docker.ask("removing a container", ACT, client.remove_container(&container, Some(options))).await?;
        looked
    });
    match task.await {
        Ok(looked) => looked,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(Error::Engine { doing: "looking into an image", message: error.to_string() }),
    }
}

/// Removes the containers that were made to be looked into and whose daemon did not live to remove them.
pub(super) async fn clean(docker: &Docker) -> Result<usize> {
    let client = docker.client()?;
    let filters = HashMap::from([
        ("label", vec![format!("{LABEL}={}", docker.state_dir.display())]),
        ("status", vec!["created".to_owned()]),
    ]);
    let options = query::ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let found = docker.ask("listing what was looked into", ASK, client.list_containers(Some(options))).await?;
    let mut removed = 0;
    for container in found.needed("its list")? {
        let ours = container.labels.as_ref().and_then(|labels| labels.get(BY)) == Some(&docker.instance);
        let (Some(id), false) = (container.id, ours) else { continue };
        let options = query::RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        docker.ask("removing a container", ACT, client.remove_container(&id, Some(options))).await?;
        removed += 1;
    }
    Ok(removed)
}

async fn make(docker: &Docker, image: &ImageId) -> Result<String> {
    let client = docker.client()?;
    let body = ContainerCreateBody {
        image: Some(image.0.clone()),
        // Some command must be named; it is never run.
        entrypoint: Some(vec!["/never-started".to_owned()]),
        labels: Some(HashMap::from([
            (LABEL.to_owned(), docker.state_dir.display().to_string()),
            (BY.to_owned(), docker.instance.clone()),
        ])),
        host_config: Some(HostConfig { network_mode: Some("none".to_owned()), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    };
    match docker.ask("looking into an image", ACT, client.create_container(None, body)).await? {
        Asked::Answer(made) => Ok(made.id),
        Asked::Missing(_) => Err(Error::NoSuchImage { reference: image.0.clone() }),
        Asked::Conflict(message) => Err(Error::Engine { doing: "looking into an image", message }),
    }
}

async fn look(docker: &Docker, container: &str, looks: &[(String, bool)]) -> Result<Vec<Peeked>> {
    let client = docker.client()?;
    let mut all = Vec::with_capacity(looks.len());
    for (path, into) in looks {
        let options = query::ContainerArchiveInfoOptionsBuilder::default().path(path).build();
        let asked =
            docker.ask("looking into an image", ASK, client.get_container_archive_info(container, Some(options)));
        let kind = match asked.await? {
            Asked::Answer(stat) => kind_of(stat.file_mode),
            Asked::Missing(_) => PathKind::Missing,
            Asked::Conflict(message) => return Err(Error::Engine { doing: "looking into an image", message }),
        };
        let content = match kind {
            PathKind::File if *into => Some(read(docker, container, path).await?),
            PathKind::Missing | PathKind::File | PathKind::Directory | PathKind::Link | PathKind::Other => None,
        };
        all.push(Peeked { kind, content });
    }
    Ok(all)
}

/// The engine reports Go's file mode bits (io/fs.FileMode).
fn kind_of(mode: u32) -> PathKind {
    const DIRECTORY: u32 = 1 << 31;
    const LINK: u32 = 1 << 27;
    // Device, pipe, socket, character device, irregular.
    const OTHER: u32 = 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19;
    if mode & LINK != 0 {
        PathKind::Link
    } else if mode & DIRECTORY != 0 {
        PathKind::Directory
    } else if mode & OTHER != 0 {
        PathKind::Other
    } else {
        PathKind::File
    }
}

async fn read(docker: &Docker, container: &str, path: &str) -> Result<Vec<u8>> {
    let client = docker.client()?;
    let options = query::DownloadFromContainerOptionsBuilder::default().path(path).build();
    let too_long = || Error::Refused {
        what: format!("the image's {path}"),
        why: format!("it is longer than {} bytes", Peeked::MAX_FILE),
    };
    let mut stream = Box::pin(client.download_from_container(container, Some(options)));
    let whole = async {
        let mut archive = Vec::new();
        while let Some(piece) = stream.try_next().await? {
            if archive.len() + piece.len() > ARCHIVE_BYTES {
                return Ok::<_, bollard::errors::Error>(None);
            }
            archive.extend_from_slice(&piece);
        }
        Ok(Some(archive))
    };
    let archive = docker.ask("reading a file of an image", ASK, whole).await?.needed("reading a file of an image")?;
    first_file(&archive.ok_or_else(too_long)?)
        .map_err(|why| Error::Refused { what: format!("the image's {path}"), why })
}

/// The content of the one regular file of an archive.
fn first_file(archive: &[u8]) -> std::result::Result<Vec<u8>, String> {
    let mut archive = tar::Archive::new(archive);
    let broken = |error: std::io::Error| format!("the engine's archive cannot be read: {error}");
    let entry = archive.entries().map_err(broken)?.next().ok_or("the engine's archive is empty")?.map_err(broken)?;
    if !entry.header().entry_type().is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let mut content = Vec::new();
    entry.take(Peeked::MAX_FILE as u64 + 1).read_to_end(&mut content).map_err(broken)?;
    if content.len() > Peeked::MAX_FILE {
        return Err(format!("it is longer than {} bytes", Peeked::MAX_FILE));
    }
    Ok(content)
}

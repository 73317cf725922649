//! Where destroyed workspaces go: their record and history, for a while, and never their keys.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use protocol::{Error, WorkspaceId};

use super::record::{Places, WorkspaceRecord};
use super::{Shared, failure};

/// How long a destroyed workspace's record and history are kept.
pub const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Moves a workspace's directory to the trash, keys, home and run directory removed; with
/// `purge` nothing is kept. May be repeated; blocking.
pub fn put_away(state_dir: &Path, id: &WorkspaceId, purge: bool) -> Result<(), (PathBuf, io::Error)> {
    let own = Places::of(state_dir, id);
    let trash = state_dir.join("trash");
    let kept = trash.join(id.as_str());
    let named = |path: &Path| {
        let path = path.to_owned();
        move |e: io::Error| (path, e)
    };
    if own.own.exists() {
        // The keys first: whatever happens then, nobody gets in with them any more.
        remove(&own.keys())?;
        for dir in [own.etc(), own.run(), own.home(), own.tree()] {
            remove(&dir)?;
        }
        if purge {
            remove(&own.own)?;
        } else {
            std::fs::create_dir_all(&trash).map_err(named(&trash))?;
            std::fs::rename(&own.own, &kept).map_err(named(&kept))?;
            std::fs::File::open(&trash).and_then(|d| d.sync_all()).map_err(named(&trash))?;
        }
    }
    if purge {
        remove(&kept)?;
    }
    Ok(())
}

/// Ends what has been in the trash for longer than [`KEPT`], with its runs and its image; returns how many. What knows of a
/// directory goes before it: cut off anywhere, the next turn finds the rest.
pub(super) async fn sweep(shared: &Shared, now: SystemTime) -> usize {
    let state_dir = shared.state_dir.clone();
    let look = move || (go_on(&state_dir), old(&state_dir, now));
    let (mut ended, all) = tokio::task::spawn_blocking(look).await.unwrap_or_default();
    for (id, directory) in all {
        if let Err(error) = forget_runs(shared, &id).await {
            tracing::warn!(workspace = %id, %error, "the runs of a destroyed workspace were not forgotten");
            continue;
        }
        let host = directory.join("host");
        let record = tokio::task::spawn_blocking(move || WorkspaceRecord::read_copy(&host).ok()).await.ok().flatten();
        let record = record.filter(|record| record.id == id);
        let mut settled = true;
        for reference in record.map_or_else(Vec::new, |record| record.images()) {
            settled &= super::up::forget_image(shared, &id, &reference).await;
        }
        if !settled {
            continue;
        }
        match tokio::task::spawn_blocking(move || end(&directory)).await {
            Ok(Ok(())) => ended += 1,
            Ok(Err((path, error))) => tracing::warn!(%error, path = %path.display(), "the trash was not emptied"),
            Err(error) => tracing::warn!(%error, "the trash was not emptied"),
        }
    }
    ended
}

/// How what is being removed is called: it is no workspace's any more, however young it looks.
const ENDING: &str = "ending-";

/// Removes an entry of the trash, under a name that tells the next turn to go on. Blocking.
fn end(directory: &Path) -> Result<(), (PathBuf, io::Error)> {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    let ending = directory.with_file_name(format!("{ENDING}{name}"));
    std::fs::rename(directory, &ending).map_err(|e| (directory.to_owned(), e))?;
    remove(&ending)
}

/// Goes on with what was being removed when a daemon ended; how many. Blocking.
fn go_on(state_dir: &Path) -> usize {
    let entries = std::fs::read_dir(state_dir.join("trash")).into_iter().flatten().flatten();
    let ending = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(ENDING));
    ending.filter(|entry| remove(&entry.path()).is_ok()).count()
}

/// What has been there for longer than [`KEPT`]. Blocking.
pub(super) fn old(state_dir: &Path, now: SystemTime) -> Vec<(WorkspaceId, PathBuf)> {
    let entries = std::fs::read_dir(state_dir.join("trash")).into_iter().flatten().flatten();
    // The directory's time is that of its last change: the rename's parent, its entries' end.
    let is_old = |entry: &std::fs::DirEntry| {
        let changed = entry.metadata().and_then(|meta| meta.modified());
        changed.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > KEPT))
    };
    let ours = |entry: std::fs::DirEntry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()));
    entries.filter(is_old).filter_map(ours).collect()
}

/// What is known of a workspace's runs, their prompts' beginnings among it.
pub(super) async fn forget_runs(shared: &Shared, workspace: &WorkspaceId) -> Result<(), Error> {
    let runs = shared.runs.list().map_err(|e| failure::of_store(&e))?;
    for run in runs.into_iter().flatten().filter(|run| run.workspace == *workspace) {
        shared.runs.remove(run.id.as_str()).await.map_err(|e| failure::of_store(&e))?;
    }
    Ok(())
}

/// A directory that a guest could write, to any depth, following nothing.
fn remove(path: &Path) -> Result<(), (PathBuf, io::Error)> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    if !path.exists() && !path.is_symlink() {
        return Ok(());
    }
    fs::Root::open(parent)
        .and_then(|root| root.remove_all(Path::new(name)))
        .map_err(|e| (path.to_owned(), io::Error::other(e.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(state: &Path) -> WorkspaceId {
        let id: WorkspaceId = "01jd0000000000000000000000".parse().unwrap();
        let places = Places::of(state, &id);
        for dir in
            [places.keys(), places.tree(), places.home(), places.run(), places.etc(), places.host().join("history.git")]
        {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("f"), b"x").unwrap();
        }
        id
    }

    #[test]
    fn the_history_is_kept_and_the_keys_never() {
        let state = tempfile::tempdir().unwrap();
        let id = made(state.path());
        put_away(state.path(), &id, false).unwrap();
        put_away(state.path(), &id, false).expect("once more is fine");
        let kept = state.path().join("trash").join(id.as_str());
        assert!(kept.join("host/history.git/f").is_file());
        for gone in ["host/keys", "tree", "home", "run", "etc"] {
            assert!(!kept.join(gone).exists(), "{gone}");
        }
        assert!(!Places::of(state.path(), &id).own.exists());
        let later = SystemTime::now() + KEPT;
        assert_eq!(old(state.path(), later - Duration::from_secs(3600)), []);
        assert_eq!(old(state.path(), later + Duration::from_secs(60)), [(id, kept.clone())]);
        // One whose removal was cut off looks young, and goes all the same.
        let ending = kept.with_file_name(format!("{ENDING}x"));
        std::fs::rename(&kept, &ending).unwrap();
        assert_eq!(old(state.path(), later + Duration::from_secs(60)), []);
        assert_eq!(go_on(state.path()), 1);
        assert!(!ending.exists());
    }

    #[test]
    fn a_purge_leaves_nothing() {
        let state = tempfile::tempdir().unwrap();
        let id = made(state.path());
        put_away(state.path(), &id, true).unwrap();
        assert!(!Places::of(state.path(), &id).own.exists());
        assert!(!state.path().join("trash").join(id.as_str()).exists());
    }
}

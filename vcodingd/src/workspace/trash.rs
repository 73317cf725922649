//! Where destroyed workspaces go: all that they were but for their keys, for a while and up to a size, and the way back.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use protocol::{Error, WorkspaceId};

use super::record::{Places, WorkspaceRecord};
use super::{Shared, failure};

/// How long a destroyed workspace is kept.
pub const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// What all of them may take; beyond it the oldest go before their time.
pub const MOST: u64 = 20 << 30;
/// So many names of one are counted.
const COUNTED: u64 = 5_000_000;
/// What a workspace takes, written once: nothing in the trash changes.
const USAGE: &str = "usage.json";

/// A destroyed workspace.
#[derive(Debug, Clone)]
pub struct Kept {
    pub id: WorkspaceId,
    pub directory: PathBuf,
    /// None where its record cannot be read; its history can, by git.
    pub record: Option<WorkspaceRecord>,
    pub since: SystemTime,
    pub bytes: u64,
}

/// Everything that is kept, the longest there first. Blocking: what is new there is counted.
pub fn kept(state_dir: &Path) -> Vec<Kept> {
    let mut all: Vec<Kept> = there(state_dir)
        .map(|(id, directory, since)| {
            let record = WorkspaceRecord::read_copy(&directory.join("host")).ok().filter(|record| record.id == id);
            Kept { bytes: bytes_of(&directory), id, directory, record, since }
        })
        .collect();
    all.sort_by(|a, b| (a.since, &a.id).cmp(&(b.since, &b.id)));
    all
}

/// Whose files lie there: a guest that had one of these uids could be given another's files.
pub fn uids(state_dir: &Path) -> std::collections::BTreeSet<u32> {
    let records =
        there(state_dir).filter_map(|(_, directory, _)| WorkspaceRecord::read_copy(&directory.join("host")).ok());
    records.map(|record| record.uid).collect()
}

fn bytes_of(directory: &Path) -> u64 {
    let written = directory.join("host").join(USAGE);
    if let Some(known) = std::fs::read(&written).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
        return known;
    }
    let Ok(usage) = fs::Root::open(directory).and_then(|root| root.usage(COUNTED, &|| true)) else { return 0 };
    if let Err(error) = std::fs::write(&written, usage.bytes.to_string()) {
        tracing::debug!(%error, path = %written.display(), "what a destroyed workspace takes is counted again");
    }
    usage.bytes
}

/// Moves one back among the workspaces, under this record; durable when it returns. Blocking.
///
/// The record beside it says first that it rests: cut off before the move, it is kept as it was; after it, the next daemon finds a
/// workspace that its store does not have.
///
/// # Errors
/// The path that could not be written or moved.
pub fn bring_back(state_dir: &Path, record: &WorkspaceRecord) -> Result<(), Error> {
    let (own, kept) = (Places::of(state_dir, &record.id).own, state_dir.join("trash").join(record.id.as_str()));
    record.write_copy(&kept.join("host"))?;
    let moved = |path: &Path, e: io::Error| failure::of_file(path, &e);
    match std::fs::remove_file(kept.join("host").join(USAGE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(moved(&kept, error)),
        _ => {}
    }
    std::fs::rename(&kept, &own).map_err(|e| moved(&kept, e))?;
    for parent in [own.parent(), kept.parent()].into_iter().flatten() {
        std::fs::File::open(parent).and_then(|dir| dir.sync_all()).map_err(|e| moved(parent, e))?;
    }
    Ok(())
}

/// Moves a workspace's directory to the trash, keys and run directory removed; with
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
        for dir in [own.etc(), own.run()] {
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

/// Ends what has been in the trash for longer than [`KEPT`], and of the rest the oldest until it takes `most` bytes at most, with
/// their runs and images; returns what went. What knows of a directory goes before it: cut off anywhere, the next turn finds the rest.
pub(super) async fn sweep(shared: &Shared, now: SystemTime, most: u64) -> Vec<Kept> {
    let state_dir = shared.state_dir.clone();
    let look = move || {
        go_on(&state_dir);
        too_much(kept(&state_dir), now, most)
    };
    let all = tokio::task::spawn_blocking(look).await.unwrap_or_default();
    let mut ended = Vec::new();
    for entry in all {
        let (id, directory) = (entry.id.clone(), entry.directory.clone());
        if let Err(error) = forget_runs(shared, &id).await {
            tracing::warn!(workspace = %id, %error, "the runs of a destroyed workspace were not forgotten");
            continue;
        }
        let mut settled = true;
        for reference in entry.record.as_ref().map_or_else(Vec::new, WorkspaceRecord::images) {
            settled &= super::up::forget_image(shared, &id, &reference).await;
        }
        if !settled {
            continue;
        }
        match tokio::task::spawn_blocking(move || end(&directory)).await {
            Ok(Ok(())) => ended.push(entry),
            Ok(Err((path, error))) => tracing::warn!(%error, path = %path.display(), "the trash was not emptied"),
            Err(error) => tracing::warn!(%error, "the trash was not emptied"),
        }
    }
    ended
}

/// Of what is kept, oldest first, that which is to go.
pub(super) fn too_much(all: Vec<Kept>, now: SystemTime, most: u64) -> Vec<Kept> {
    let mut bytes: u64 = all.iter().map(|entry| entry.bytes).sum();
    let is_old = |entry: &Kept| now.duration_since(entry.since).is_ok_and(|age| age > KEPT);
    let goes = |entry: &Kept| {
        let goes = is_old(entry) || bytes > most;
        if goes {
            bytes = bytes.saturating_sub(entry.bytes);
        }
        goes
    };
    all.into_iter().filter(goes).collect()
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
    let is_old = |since: SystemTime| now.duration_since(since).is_ok_and(|age| age > KEPT);
    there(state_dir).filter(|(_, _, since)| is_old(*since)).map(|(id, directory, _)| (id, directory)).collect()
}

/// What lies in the trash, and since when. The directory's time is that of its last change: the end of its keys.
fn there(state_dir: &Path) -> impl Iterator<Item = (WorkspaceId, PathBuf, SystemTime)> {
    let entries = std::fs::read_dir(state_dir.join("trash")).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let since = entry.metadata().ok().filter(std::fs::Metadata::is_dir)?.modified().ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, entry.path(), since))
    })
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
pub(super) fn remove(path: &Path) -> Result<(), (PathBuf, io::Error)> {
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
    fn everything_is_kept_but_the_keys() {
        let state = tempfile::tempdir().unwrap();
        let id = made(state.path());
        put_away(state.path(), &id, false).unwrap();
        put_away(state.path(), &id, false).expect("once more is fine");
        let kept = state.path().join("trash").join(id.as_str());
        for there in ["host/history.git/f", "tree/f", "home/f"] {
            assert!(kept.join(there).is_file(), "{there}");
        }
        for gone in ["host/keys", "run", "etc"] {
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
    fn what_is_too_much_goes_oldest_first() {
        let now = SystemTime::now();
        let entry = |days: u64, bytes: u64| Kept {
            id: "01jd0000000000000000000000".parse().unwrap(),
            directory: PathBuf::from(days.to_string()),
            record: None,
            since: now - Duration::from_secs(days * 24 * 3600),
            bytes,
        };
        let all = || vec![entry(31, 10), entry(20, 50), entry(10, 30), entry(1, 40)];
        let gone = |most| too_much(all(), now, most).into_iter().map(|entry| entry.bytes).collect::<Vec<_>>();
        assert_eq!(gone(1000), [10], "its time is over");
        assert_eq!(gone(120), [10]);
        assert_eq!(gone(119), [10, 50]);
        assert_eq!(gone(0), [10, 50, 30, 40]);
    }

    #[test]
    fn what_is_kept_is_counted_once() {
        let state = tempfile::tempdir().unwrap();
        let id = made(state.path());
        put_away(state.path(), &id, false).unwrap();
        let first = kept(state.path());
        assert_eq!((first.len(), &first[0].id, first[0].record.is_none()), (1, &id, true));
        assert!(first[0].bytes > 0);
        std::fs::write(first[0].directory.join("host").join(USAGE), "7").unwrap();
        assert_eq!(kept(state.path())[0].bytes, 7);
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

//! Where destroyed workspaces go: their record and history, for a while, and never their keys.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::WorkspaceId;

use super::record::Places;

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

/// Ends what has been in the trash for longer than [`KEPT`]; returns how many. Blocking.
pub fn sweep(state_dir: &Path, now: std::time::SystemTime) -> usize {
    let mut ended = 0;
    for entry in std::fs::read_dir(state_dir.join("trash")).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.parse::<WorkspaceId>().is_ok());
        // The directory's time is that of its last change: the rename's parent, its entries' end.
        let old = entry
            .metadata()
            .and_then(|m| m.modified())
            .is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > KEPT));
        if ours && old {
            match remove(&entry.path()) {
                Ok(()) => ended += 1,
                Err((path, error)) => tracing::warn!(%error, path = %path.display(), "the trash was not emptied"),
            }
        }
    }
    ended
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
        let later = std::time::SystemTime::now() + KEPT;
        assert_eq!(sweep(state.path(), later - Duration::from_secs(3600)), 0);
        assert_eq!(sweep(state.path(), later + Duration::from_secs(60)), 1);
        assert!(!kept.exists());
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

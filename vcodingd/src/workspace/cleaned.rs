//! What a rollback moved out of a work tree: kept beside its history for as long as a destroyed workspace is.
//!
//! ```text
//! <workspace>/host/cleaned/<milliseconds since 1970>/<path in the work tree>
//! ```

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use protocol::Timestamp;

use super::trash::{self, KEPT};

/// Where a rollback that begins now moves things.
pub(super) fn place(host: &Path) -> PathBuf {
    host.join("cleaned").join(Timestamp::now().unix_ms().to_string())
}

/// Ends what has been there for longer than [`KEPT`], in all workspaces; how many. Blocking.
pub(super) fn sweep(state_dir: &Path, now: SystemTime) -> usize {
    let within = |dir: PathBuf| std::fs::read_dir(dir).into_iter().flatten().flatten();
    let all = within(state_dir.join("workspaces")).flat_map(|workspace| within(workspace.path().join("host/cleaned")));
    let ended = all.filter(|entry| is_old(&entry.file_name().to_string_lossy(), now)).filter(|entry| {
        let removed = trash::remove(&entry.path());
        if let Err((path, error)) = &removed {
            tracing::warn!(%error, path = %path.display(), "what a rollback moved away was not removed");
        }
        removed.is_ok()
    });
    ended.count()
}

fn is_old(name: &str, now: SystemTime) -> bool {
    let Ok(ms) = name.parse::<u64>() else { return false };
    let moved = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(ms);
    now.duration_since(moved).is_ok_and(|age| age > KEPT)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_moved_away_goes_after_its_time_and_nothing_else_does() {
        let state = tempfile::tempdir().unwrap();
        let host = state.path().join("workspaces/w/host");
        let moved = place(&host);
        for dir in [moved.join("deep/er"), host.join("cleaned/odd"), host.join("history.git")] {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("f"), b"x").unwrap();
        }
        let now = SystemTime::now();
        assert_eq!(sweep(state.path(), now + KEPT - Duration::from_secs(60)), 0);
        assert!(moved.exists());
        assert_eq!(sweep(state.path(), now + KEPT + Duration::from_secs(60)), 1);
        assert!(!moved.exists() && host.join("cleaned/odd/f").exists() && host.join("history.git/f").exists());
    }
}

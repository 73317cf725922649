//! The program inside, as it is embedded in this one, put where guests mount it from.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};

/// The static program, built with this crate.
static PROGRAM: &[u8] = include_bytes!(env!("VCODING_GUEST"));

/// What names it: 16 hexadecimal digits of its SHA-256.
pub fn hash() -> String {
    use std::fmt::Write;
    Sha256::digest(PROGRAM)[..8].iter().fold(String::new(), |mut text, byte| {
        let _never_fails = write!(text, "{byte:02x}");
        text
    })
}

/// Makes sure that `store/guest/<hash>/vcoding-guest` and `store/agents` are there; returns the
/// hash. A resident guest keeps the helper it was made with, so older ones stay. Blocking.
pub fn install(state_dir: &Path) -> io::Result<String> {
    let hash = hash();
    let store = state_dir.join("store");
    let directory = store.join("guest").join(&hash);
    for dir in [&store, &store.join("guest"), &directory, &store.join("agents")] {
        std::fs::create_dir_all(dir)?;
        // The guest's user reads here; the state directory above is closed to everybody else.
        std::fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    }
    let path = directory.join("vcoding-guest");
    let there = std::fs::read(&path).is_ok_and(|found| found == PROGRAM);
    if !there {
        super::record::write_synced(&path, 0o755, PROGRAM)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o555))?;
    }
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helper_is_static_and_installed_once_under_its_hash() {
        assert_eq!(&PROGRAM[..4], b"\x7fELF");
        let dir = tempfile::tempdir().unwrap();
        let hash = install(dir.path()).unwrap();
        let path = dir.path().join("store/guest").join(&hash).join("vcoding-guest");
        let first = std::fs::metadata(&path).unwrap();
        assert_eq!(first.permissions().mode() & 0o777, 0o555);
        assert_eq!(install(dir.path()).unwrap(), hash);
        assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), first.modified().unwrap());
        // A torn one is replaced.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, b"torn").unwrap();
        install(dir.path()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), PROGRAM);
    }
}

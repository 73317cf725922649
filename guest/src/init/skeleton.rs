//! The first content of the home directory: the image's /etc/skel.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Files and bytes of each that are copied; a skeleton is a handful of small ones.
const FILES: usize = 256;
const BYTES: u64 = 1 << 20;
const DEPTH: usize = 4;

/// Copies regular files and directories, if the home is empty.
pub fn seed(skeleton: &Path, home: &Path) -> io::Result<()> {
    if !skeleton.is_dir() || fs::read_dir(home)?.next().is_some() {
        return Ok(());
    }
    copy(skeleton, home, DEPTH, &mut FILES.clone())
}

fn copy(from: &Path, to: &Path, depth: usize, left: &mut usize) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target, kind) = (entry.path(), to.join(entry.file_name()), entry.file_type()?);
        if *left == 0 {
            return Ok(());
        }
        *left -= 1;
        if kind.is_dir() && depth > 0 {
            fs::create_dir(&target)?;
            copy(&source, &target, depth - 1, left)?;
        } else if kind.is_file() {
            let executable = entry.metadata()?.permissions().mode() & 0o100;
            let content = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&source);
            // What the image keeps from its user is not for the home.
            let Ok(content) = content else { continue };
            let mode = if executable == 0 { 0o644 } else { 0o755 };
            let mut file = File::options().write(true).create_new(true).mode(mode).open(&target)?;
            io::copy(&mut content.take(BYTES), &mut file)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_home_gets_files_and_directories_and_no_links_and_a_used_one_nothing() {
        let (skeleton, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(skeleton.path().join("sub")).unwrap();
        fs::write(skeleton.path().join("sub/file"), "text").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", skeleton.path().join("link")).unwrap();
        seed(skeleton.path(), home.path()).unwrap();
        assert_eq!(fs::read_to_string(home.path().join("sub/file")).unwrap(), "text");
        assert!(home.path().join("link").symlink_metadata().is_err());
        fs::write(skeleton.path().join("later"), "").unwrap();
        seed(skeleton.path(), home.path()).unwrap();
        assert!(!home.path().join("later").exists());
    }
}

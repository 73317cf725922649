//! The socket's place in the file system, and who may use it.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Who calls: as the kernel reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub uid: u32,
    pub pid: i32,
}

/// Listens at `path`, in a directory that is this user's alone. The caller holds the lock on
/// the state directory, so that a socket found there is a dead daemon's.
///
/// # Errors
/// With the path in the text.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    let directory = path.parent().ok_or_else(|| io::Error::other("the socket's path has no directory"))?;
    private_directory(directory)?;
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(named(&e, path)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(|e| named(&e, path))?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|e| named(&e, path))?;
    Ok(listener)
}

/// The socket that a service manager listens on for us and where it is, if one started this process.
///
/// # Errors
/// If it is something else than a Unix socket at a path.
pub fn inherited() -> io::Result<Option<(std::os::unix::net::UnixListener, PathBuf)>> {
    let Some(listener) = listenfd::ListenFd::from_env().take_unix_listener(0)? else { return Ok(None) };
    let address = listener.local_addr()?;
    let path = address.as_pathname().ok_or_else(|| io::Error::other("the socket that was handed over has no path"))?;
    let path = path.to_owned();
    if let Some(directory) = path.parent() {
        private_directory(directory)?;
    }
    Ok(Some((listener, path)))
}

/// Serves on a socket that was handed over. It stays where it is when the daemon ends.
///
/// # Errors
/// If it cannot be made non-blocking.
pub fn adopt(listener: std::os::unix::net::UnixListener) -> io::Result<UnixListener> {
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Makes a directory that only this user may enter; one that is another's is refused, one of
/// ours that is too open is closed.
///
/// # Errors
/// With the path in the text.
pub fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| named(&e, path))?;
    let meta = std::fs::symlink_metadata(path).map_err(|e| named(&e, path))?;
    let me = nix::unistd::geteuid().as_raw();
    if !meta.is_dir() || meta.uid() != me {
        return Err(io::Error::other(format!("{} is not a directory of uid {me}", path.display())));
    }
    if meta.mode() & 0o077 != 0 {
        std::fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(|e| named(&e, path))?;
    }
    Ok(())
}

fn named(error: &io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Only this user's own processes may speak: whoever can, can drive every guest.
pub(super) fn admit(stream: &UnixStream) -> Result<Peer, String> {
    let credentials = stream.peer_cred().map_err(|e| format!("no credentials: {e}"))?;
    let me = nix::unistd::geteuid().as_raw();
    if credentials.uid() != me {
        return Err(format!("uid {} is not {me}", credentials.uid()));
    }
    Ok(Peer { uid: credentials.uid(), pid: credentials.pid().unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_and_its_directory_are_the_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/vcodingd.sock");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        std::fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
        let _listener = bind(&path).unwrap();
        let mode = |p: &Path| std::fs::symlink_metadata(p).unwrap().mode() & 0o777;
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(mode(&path), 0o600);
    }

    #[tokio::test]
    async fn a_directory_that_is_a_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("run")).unwrap();
        assert!(bind(&dir.path().join("run/s")).is_err());
    }
}

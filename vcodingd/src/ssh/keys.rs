//! A guest's two keys: the host's, which logs in, and the guest's own, which is pinned.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey, PublicKey};

use super::{Error, Result};

/// The key that logs in, in the directory of keys.
const CLIENT: &str = "client_key";
/// The guest's own.
const HOST: &str = "host_key";
/// No key of ours is longer.
const MAX_FILE: u64 = 16 * 1024;

/// Both of one guest, made together and gone together.
#[derive(Debug)]
pub struct Keys {
    client: Arc<PrivateKey>,
    host: PrivateKey,
}

impl Keys {
    /// # Errors
    /// [`Error::BadKeys`], which only a broken source of randomness could bring about.
    pub fn generate() -> Result<Self> {
        Ok(Self { client: Arc::new(generate()?), host: generate()? })
    }

    /// Keeps both in `dir`, for this user alone, synced. Keys that are there already are replaced.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn store(&self, dir: &Path) -> Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::file(dir))?;
        for (name, key) in [(CLIENT, &*self.client), (HOST, &self.host)] {
            let text = openssh(key, dir)?;
            let temporary = dir.join(format!(".{name}.new"));
            let write = || -> std::io::Result<()> {
                let mut file =
                    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
                file.write_all(text.as_bytes())?;
                file.sync_all()?;
                std::fs::rename(&temporary, dir.join(name))
            };
            write().map_err(Error::file(dir.join(name)))?;
        }
        File::open(dir).and_then(|d| d.sync_all()).map_err(Error::file(dir))
    }

    /// # Errors
    /// [`Error::File`], [`Error::BadKeys`].
    pub fn load(dir: &Path) -> Result<Self> {
        Ok(Self { client: Arc::new(load(dir, CLIENT)?), host: load(dir, HOST)? })
    }

    pub(super) fn client(&self) -> Arc<PrivateKey> {
        self.client.clone()
    }

    pub(super) fn host_public(&self) -> &PublicKey {
        self.host.public_key()
    }

    /// The guest's own key as its sshd reads it.
    pub(super) fn host_private_text(&self) -> Result<String> {
        Ok(openssh(&self.host, Path::new(HOST))?.to_string())
    }

    /// The line of `authorized_keys`.
    pub(super) fn authorized_line(&self) -> Result<String> {
        let public = self.client.public_key().to_openssh().map_err(|e| bad(Path::new(CLIENT), &e))?;
        Ok(format!("{public}\n"))
    }

    #[cfg(test)]
    pub(super) fn host_private(&self) -> PrivateKey {
        self.host.clone()
    }
}

fn generate() -> Result<PrivateKey> {
    PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).map_err(|e| bad(Path::new("(new)"), &e))
}

fn openssh(key: &PrivateKey, path: &Path) -> Result<impl std::ops::Deref<Target = String>> {
    key.to_openssh(LineEnding::LF).map_err(|e| bad(path, &e))
}

fn load(dir: &Path, name: &str) -> Result<PrivateKey> {
    let path = dir.join(name);
    let mut text = String::new();
    File::open(&path)
        .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
        .map_err(Error::file(path.clone()))?;
    let key = PrivateKey::from_openssh(&text).map_err(|e| bad(&path, &e))?;
    if key.algorithm() != Algorithm::Ed25519 {
        return Err(Error::BadKeys { path, why: format!("{} is not Ed25519", key.algorithm()) });
    }
    Ok(key)
}

fn bad(path: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::BadKeys { path: path.to_owned(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_come_back_as_they_were_and_are_this_users_alone() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("keys");
        let keys = Keys::generate().unwrap();
        keys.store(&dir).unwrap();
        keys.store(&dir).expect("once more is fine");
        let back = Keys::load(&dir).unwrap();
        assert_eq!(back.host_public(), keys.host_public());
        assert_eq!(back.authorized_line().unwrap(), keys.authorized_line().unwrap());
        assert_ne!(back.host_public(), back.client().public_key());
        for entry in std::fs::read_dir(&dir).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_missing_and_a_broken_key_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Keys::load(dir.path()), Err(Error::File { .. })));
        Keys::generate().unwrap().store(dir.path()).unwrap();
        std::fs::write(dir.path().join(HOST), "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
        assert!(matches!(Keys::load(dir.path()), Err(Error::BadKeys { .. })));
    }
}

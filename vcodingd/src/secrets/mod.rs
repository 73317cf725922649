//! Where keys come from and where they are kept: a file each under `<state>/secrets`, else the
//! environment in which the daemon was started.
//!
//! A value leaves this room as a [`Secret`] only: it cannot be printed, serialised or logged by
//! mistake, and what is shown of it to anyone is its name.

mod secret;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

pub use secret::Secret;

/// A longer value is refused.
pub const MAX_VALUE: usize = 64 << 10;
/// A longer name is refused.
pub const MAX_NAME: usize = 64;
/// The name's beginning of a file that is not finished; no secret's name begins with it.
const UNFINISHED: &str = ".new-";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{name:?} is not a secret's name: capital letters, digits and _, at most {MAX_NAME}")]
    Name { name: String },
    #[error("the value of {name} is empty")]
    Empty { name: String },
    #[error("the value of {name} is longer than {MAX_VALUE} bytes")]
    TooLong { name: String },
    #[error("{doing} {path} failed: {source}")]
    Host { doing: &'static str, path: PathBuf, source: io::Error },
}

/// The user's secrets.
pub struct Secrets {
    dir: PathBuf,
    environment: BTreeMap<String, Secret>,
    /// Held while a file is written, so that two writers do not meet in one temporary file.
    writing: Mutex<()>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Secrets {
    /// Makes `dir` if it is not there, for its owner alone, and clears what a kill left unfinished.
    /// `environment` is the daemon's at its start; only what could be a secret is kept of it.
    ///
    /// # Errors
    /// [`Error::Host`].
    pub fn open(dir: &Path, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, Error> {
        let failed = |doing| move |source| Error::Host { doing, path: dir.to_owned(), source };
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed("making")(error)),
            _ => {}
        }
        std::fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(failed("closing to others"))?;
        for entry in std::fs::read_dir(dir).map_err(failed("listing"))? {
            let entry = entry.map_err(failed("listing"))?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                std::fs::remove_file(entry.path()).map_err(failed("clearing"))?;
            }
        }
        let environment = environment
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_vec())))
            .filter(|(name, value)| is_name(name) && (1..=MAX_VALUE).contains(&value.len()))
            .map(|(name, value)| (name, Secret::new(value)))
            .collect();
        Ok(Self { dir: dir.to_owned(), environment, writing: Mutex::new(()) })
    }

    /// Keeps a value under a name, synced; one that is there is replaced. Newlines at its end do
    /// not belong to it: it may come from a file or a here-document.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Empty`], [`Error::TooLong`], [`Error::Host`].
    pub fn set(&self, name: &str, value: &[u8]) -> Result<(), Error> {
        let path = self.path(name)?;
        let value = without_newline(value);
        if value.is_empty() {
            return Err(Error::Empty { name: name.to_owned() });
        }
        if value.len() > MAX_VALUE {
            return Err(Error::TooLong { name: name.to_owned() });
        }
        let _one = self.writing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let unfinished = self.dir.join(format!("{UNFINISHED}{name}"));
        let written = write(&unfinished, value)
            .and_then(|()| std::fs::rename(&unfinished, &path))
            .and_then(|()| File::open(&self.dir)?.sync_all());
        written.map_err(|source| {
            // What is left is cleared at the next start if not now.
            let _gone_or_not = std::fs::remove_file(&unfinished);
            Error::Host { doing: "writing", path, source }
        })
    }

    /// The value of a name: what was [`set`](Self::set), else the environment's.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::TooLong`], [`Error::Host`].
    pub fn get(&self, name: &str) -> Result<Option<Secret>, Error> {
        let path = self.path(name)?;
        match read(&path) {
            Ok(value) if value.len() > MAX_VALUE => Err(Error::TooLong { name: name.to_owned() }),
            Ok(value) => Ok(Some(Secret::new(without_newline(&value).to_vec()))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(self.environment.get(name).cloned()),
            Err(source) => Err(Error::Host { doing: "reading", path, source }),
        }
    }

    /// The names that are kept here, sorted; the environment's are not among them.
    ///
    /// # Errors
    /// [`Error::Host`].
    pub fn list(&self) -> Result<Vec<String>, Error> {
        let failed = |source| Error::Host { doing: "listing", path: self.dir.clone(), source };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            names.extend(name.into_string().ok().filter(|name| is_name(name)));
        }
        names.sort();
        Ok(names)
    }

    /// When a name that is kept here was set.
    pub fn set_at(&self, name: &str) -> Option<SystemTime> {
        let path = self.path(name).ok()?;
        path.symlink_metadata().and_then(|meta| meta.modified()).ok()
    }

    /// Whether the daemon's environment has it.
    pub fn in_environment(&self, name: &str) -> bool {
        self.environment.contains_key(name)
    }

    /// Forgets a name; says whether there was one. The environment's stays.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Host`].
    pub fn remove(&self, name: &str) -> Result<bool, Error> {
        let path = self.path(name)?;
        match std::fs::remove_file(&path).and_then(|()| File::open(&self.dir)?.sync_all()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(source) => Err(Error::Host { doing: "removing", path, source }),
        }
    }

    fn path(&self, name: &str) -> Result<PathBuf, Error> {
        if is_name(name) { Ok(self.dir.join(name)) } else { Err(Error::Name { name: name.chars().take(80).collect() }) }
    }
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

fn without_newline(value: &[u8]) -> &[u8] {
    let end = value.iter().rposition(|b| !matches!(b, b'\n' | b'\r')).map_or(0, |last| last + 1);
    &value[..end]
}

fn write(path: &Path, value: &[u8]) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(value)?;
    file.sync_all()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = rustix::fs::OFlags::NOFOLLOW.union(rustix::fs::OFlags::NONBLOCK).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)?;
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut value = Vec::with_capacity(MAX_VALUE + 2);
    file.take(MAX_VALUE as u64 + 1).read_to_end(&mut value)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path) -> Secrets {
        let environment = [("A_KEY", "from outside"), ("lower", "x"), ("EMPTY", "")];
        Secrets::open(dir, environment.map(|(name, value)| (name.into(), value.into()))).unwrap()
    }

    fn value(secrets: &Secrets, name: &str) -> Option<Vec<u8>> {
        secrets.get(name).unwrap().map(|secret| secret.expose().to_vec())
    }

    #[test]
    fn a_value_is_kept_replaced_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("secrets");
        let secrets = open(&dir);
        assert_eq!(value(&secrets, "KEY"), None);
        secrets.set("KEY", b"one\n").unwrap();
        secrets.set("KEY", b"two\r\n\n").unwrap();
        secrets.set("OTHER_2", b"\xff\0").unwrap();
        assert_eq!(value(&open(&dir), "KEY").unwrap(), b"two");
        assert_eq!(value(&secrets, "OTHER_2").unwrap(), b"\xff\0");
        assert_eq!(secrets.list().unwrap(), ["KEY", "OTHER_2"]);
        assert!(secrets.remove("KEY").unwrap());
        assert!(!secrets.remove("KEY").unwrap());
        assert_eq!(value(&secrets, "KEY"), None);
    }

    #[test]
    fn the_environment_answers_where_nothing_was_set() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = open(dir.path());
        assert_eq!(value(&secrets, "A_KEY").unwrap(), b"from outside");
        assert_eq!(value(&secrets, "EMPTY"), None);
        secrets.set("A_KEY", b"set").unwrap();
        assert_eq!(value(&secrets, "A_KEY").unwrap(), b"set");
        secrets.remove("A_KEY").unwrap();
        assert_eq!(value(&secrets, "A_KEY").unwrap(), b"from outside");
        assert!(secrets.list().unwrap().is_empty());
    }

    #[test]
    fn nobody_else_may_read_them() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("secrets");
        std::fs::create_dir(&dir).unwrap();
        std::fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
        let secrets = open(&dir);
        secrets.set("KEY", b"x").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&dir.join("KEY")), 0o600);
    }

    #[test]
    fn names_that_are_none_reach_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = open(dir.path());
        for name in ["", "key", "../KEY", "A/B", ".new-KEY", "KEY\0", "KEY ", "ÄÖ", &"K".repeat(65)] {
            assert!(matches!(secrets.set(name, b"x"), Err(Error::Name { .. })), "{name:?}");
            assert!(matches!(secrets.get(name), Err(Error::Name { .. })), "{name:?}");
            assert!(matches!(secrets.remove(name), Err(Error::Name { .. })), "{name:?}");
        }
        secrets.set(&"K".repeat(64), b"x").unwrap();
    }

    #[test]
    fn values_have_a_bound_and_a_content() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = open(dir.path());
        assert!(matches!(secrets.set("KEY", b"\n"), Err(Error::Empty { .. })));
        assert!(matches!(secrets.set("KEY", &vec![b'x'; MAX_VALUE + 1]), Err(Error::TooLong { .. })));
        secrets.set("KEY", &vec![b'x'; MAX_VALUE]).unwrap();
        assert_eq!(value(&secrets, "KEY").unwrap().len(), MAX_VALUE);
        std::fs::write(dir.path().join("KEY"), vec![b'x'; MAX_VALUE + 1]).unwrap();
        assert!(matches!(secrets.get("KEY"), Err(Error::TooLong { .. })));
    }

    #[test]
    fn what_a_kill_left_is_cleared_and_never_a_secret() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".new-KEY"), "half").unwrap();
        let secrets = open(dir.path());
        assert_eq!(value(&secrets, "KEY"), None);
        assert!(secrets.list().unwrap().is_empty());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = open(dir.path());
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("KEY")).unwrap();
        assert!(matches!(secrets.get("KEY"), Err(Error::Host { .. })));
    }

    #[test]
    fn no_debug_form_shows_a_value() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = open(dir.path());
        secrets.set("KEY", b"hush-hush").unwrap();
        let shown = format!("{secrets:?} {secrets:#?} {:?} {:#?}", secrets.get("KEY"), secrets.get("A_KEY"));
        assert!(!shown.contains("hush") && !shown.contains("outside"), "{shown}");
        let error = secrets.set("KEY", &b"hush-hush".repeat(9000)).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hush"));
    }
}

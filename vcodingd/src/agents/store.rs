//! The agents' programs, shared by all guests: `<state>/store/agents/<name>/<version>-<platform>/`.
//!
//! A program is fetched and unpacked aside, in `.new`, synced, and then renamed into place, so
//! what has its name is whole. `.new` belongs to whoever has the turn; what a killed daemon left there is
//! cleared by the next one.

#[cfg(test)]
mod tests;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::manifest::{Manifest, Package, Platform};
use super::{Error, fetch, unpack};

/// Where agents come from, when the user's configuration names no other registry.
pub const REGISTRY: &str = "https://registry.npmjs.org";

const NEW: &str = ".new";
const ARCHIVE: &str = ".new/package.tgz";
const TREE: &str = ".new/tree";

/// The shared store. One per state directory and process.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
    /// One fetch at a time: a second caller waits, and mostly finds its agent then.
    turn: Arc<Semaphore>,
}

/// An agent's program in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Its path in a guest.
    pub program: String,
    /// Its path on this host, where it is never run.
    pub host: PathBuf,
    /// Whether it had to be fetched now.
    pub fetched: bool,
}

impl Store {
    /// Opens `<state>/store/agents`, made where it is missing, and clears what was left half done.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Write`].
    pub fn open(dir: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(dir)?;
        // Guests of other users read it.
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))?;
        fs::Root::open(dir)?.remove_all(Path::new(NEW))?;
        Ok(Self { dir: dir.to_path_buf(), turn: Arc::new(Semaphore::new(1)) })
    }

    /// The agent's program; fetched from the registry if it is not here yet, and without network if it is.
    /// `progress` gets the bytes that have come and those expected (0: not known).
    ///
    /// # Errors
    /// [`Error::Unsupported`], [`Error::Registry`], [`Error::Tampered`], [`Error::Package`]; nothing is
    /// installed then.
    pub async fn ensure(
        &self,
        registry: &str,
        manifest: &Manifest,
        platform: Platform,
        mut progress: impl FnMut(u64, u64) + Send,
    ) -> Result<Installed, Error> {
        let package = manifest.package(platform)?;
        let key = format!("{}-{platform}", manifest.version);
        let place = Path::new(&manifest.name).join(&key);
        if let Some(installed) = self.installed(&place, package)? {
            return Ok(installed);
        }
        // Its holder has deadlines of its own, and it is never closed.
        let turn = Arc::clone(&self.turn).acquire_owned().await.expect("the store's turn is never closed");
        if let Some(installed) = self.installed(&place, package)? {
            return Ok(installed);
        }
        let url = fetch::tarball(registry, &package.package, &manifest.version)?;
        let archive = self.make_room()?;
        fetch::fetch(url, archive, package.integrity, &mut progress).await?;
        let work = Unpacking { dir: self.dir.clone(), place: place.clone(), package: package.clone(), turn };
        // Runs to its end even if nobody waits for it any more, and keeps the turn so long.
        tokio::task::spawn_blocking(move || work.run()).await.map_err(std::io::Error::other)??;
        let installed = self.installed(&place, package)?;
        let why = || format!("it was removed from {} while it was installed", self.dir.display());
        installed
            .map(|installed| Installed { fetched: true, ..installed })
            .ok_or_else(|| Error::Package { package: package.package.clone(), why: why() })
    }

    fn installed(&self, place: &Path, package: &Package) -> Result<Option<Installed>, Error> {
        let program = place.join(&package.binary);
        match fs::Root::open(&self.dir)?.stat(&program) {
            Ok(_) => Ok(Some(Installed {
                program: format!("{}/{}", guest::places::AGENTS, program.display()),
                host: self.dir.join(&program),
                fetched: false,
            })),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Clears what a caller that gave up has left, and opens the file for the archive.
    fn make_room(&self) -> Result<std::fs::File, Error> {
        let root = fs::Root::open(&self.dir)?;
        root.remove_all(Path::new(NEW))?;
        root.make_dir(Path::new(NEW), 0o700)?;
        Ok(root.create_new(Path::new(ARCHIVE), 0o600)?)
    }
}

struct Unpacking {
    dir: PathBuf,
    place: PathBuf,
    package: Package,
    turn: OwnedSemaphorePermit,
}

impl Unpacking {
    fn run(self) -> Result<(), Error> {
        let root = fs::Root::open(&self.dir)?;
        let archive = root.open_file(Path::new(ARCHIVE))?;
        root.make_dir(Path::new(TREE), 0o755)?;
        let tree = root.dir(Path::new(TREE))?;
        unpack::unpack(archive, &tree, &self.package)?;
        let parent = self.place.parent().unwrap_or(Path::new(""));
        let above = root.make_dirs(parent, 0o755)?;
        unpack::open_to_all(&above)?;
        root.rename(Path::new(TREE), &self.place)?;
        above.sync()?;
        root.sync()?;
        root.remove_all(Path::new(NEW))?;
        drop(self.turn);
        Ok(())
    }
}

//! A workspace's history on disk, opened.
//!
//! ```text
//! <host>/history.git     objects and references      refs/heads/main       the newest checkpoint
//!                                                    refs/vcoding/base     the project as last brought in
//!                                                    refs/vcoding/applied  the checkpoint last applied
//! <host>/scan-cache      what unchanged files hold   (a hint, may be lost)
//! <host>/rules           what is left out            (the host's copy, from the import)
//! <host>/modes           bits of its directories     (those of the project that git cannot hold)
//! <host>/origin          where it came from          (the project's HEAD, what was kept out)
//! ```

use std::path::{Path, PathBuf};

use crate::cache::Cache;
use crate::commit::{self, Checkpoint};
use crate::modes::Modes;
use crate::object::Kind;
use crate::origin::Origin;
use crate::rules::Rules;
use crate::store::Store;
use crate::{Error, Id, Result};

pub(crate) const HEAD: &str = "refs/heads/main";
pub(crate) const BASE: &str = "refs/vcoding/base";
pub(crate) const APPLIED: &str = "refs/vcoding/applied";

#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Files larger than this (bytes) are left out.
    pub max_file: u64,
    /// How many names a scan may hold, whatever the project was: see `walk` on what counts as one.
    pub most: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_file: 50 << 20, most: 200_000 }
    }
}

/// Who files made in the work tree shall belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// The past of one directory. Every operation may be killed between any two steps and simply be run again.
pub struct History {
    pub(crate) host: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) rules: Rules,
    pub(crate) modes: Modes,
    pub(crate) cache: Cache,
    /// Files read since the cache was saved.
    unsaved: u64,
}

/// So many files may have to be read again after a kill. Saving at every checkpoint would cost as much as the checkpoint.
const MAX_UNSAVED: u64 = 256;

impl History {
    /// Makes the history of a workspace below its host directory; what is there already is opened.
    pub fn create(host: &Path, settings: Settings) -> Result<Self> {
        std::fs::create_dir_all(host).map_err(Error::io("make", host))?;
        let store = Store::create(&host.join("history.git"))?;
        Self::with(host, settings, store)
    }

    /// Opens a history and clears what a kill left.
    pub fn open(host: &Path, settings: Settings) -> Result<Self> {
        let store = Store::open(&host.join("history.git"))?;
        Self::with(host, settings, store)
    }

    fn with(host: &Path, settings: Settings, store: Store) -> Result<Self> {
        let rules = Rules::load(&host.join("rules"))?;
        let modes = Modes::load(&host.join("modes"));
        let cache = Cache::load(&host.join("scan-cache"), |id| store.knows(id));
        let history = Self { host: host.to_path_buf(), settings, store, rules, modes, cache, unsaved: 0 };
        for name in [HEAD, BASE, APPLIED] {
            if let Some(id) = history.store.reference(name)?
                && !history.store.knows(&id)
            {
                return Err(Error::damaged(format!("{name} names {id}, which is not there")));
            }
        }
        Ok(history)
    }

    /// The newest checkpoint.
    pub fn head(&self) -> Result<Option<Id>> {
        self.store.reference(HEAD)
    }

    /// The project as it was last brought in.
    pub fn base(&self) -> Result<Option<Id>> {
        self.store.reference(BASE)
    }

    /// The checkpoint that was last applied.
    pub fn applied(&self) -> Result<Option<Id>> {
        self.store.reference(APPLIED)
    }

    /// Whether the project has gone on since it was copied in: its HEAD is another, and no tree that this history has, as that of a
    /// merged branch of ours would be. What cannot be read has not moved.
    pub fn project_moved_on(&self, project: &Path) -> Result<bool> {
        let (Some(then), Ok(repository)) = (self.project_head()?, crate::project::open(project)) else {
            return Ok(false);
        };
        let Some(now) = repository.head().ok().and_then(|head| head.peel_to_commit().ok()) else { return Ok(false) };
        Ok(now.id().to_string() != then
            && Id::from_slice(now.tree_id().as_bytes()).is_some_and(|tree| !self.store.knows(&tree)))
    }

    /// The project's HEAD at the time it was brought in.
    pub fn project_head(&self) -> Result<Option<String>> {
        Ok(Origin::load(&self.host.join("origin"))?.and_then(|origin| origin.head))
    }

    /// Whether there is work that was never taken home: the newest tree is neither that of the base nor the one last applied.
    pub fn unapplied(&self) -> Result<bool> {
        let Some(head) = self.head()? else {
            return Ok(false);
        };
        let tree = self.checkpoint_at(head)?.tree;
        for home in [self.base()?, self.applied()?].into_iter().flatten() {
            if self.checkpoint_at(home)?.tree == tree {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(crate) fn checkpoint_at(&self, id: Id) -> Result<Checkpoint> {
        commit::read(id, &self.store.read(Kind::Commit, id)?)
    }

    /// The newest checkpoint, which every operation but the import needs.
    pub(crate) fn newest(&self) -> Result<Checkpoint> {
        self.checkpoint_at(self.head()?.ok_or(Error::NoBase)?)
    }

    /// Takes over what a scan saw, and saves it once enough is new.
    pub(crate) fn remember(&mut self, cache: Cache, read: u64) -> Result<()> {
        self.cache = cache;
        self.unsaved += read;
        if self.unsaved > MAX_UNSAVED { self.save_cache() } else { Ok(()) }
    }

    /// Forgets what every file was seen as; the saved copy goes with the next thing that is made durable beside it.
    pub(crate) fn forget(&mut self) -> Result<()> {
        self.cache = Cache::default();
        let path = self.host.join("scan-cache");
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    fn save_cache(&mut self) -> Result<()> {
        self.cache.save(&self.host.join("scan-cache"))?;
        self.unsaved = 0;
        Ok(())
    }
}

impl Drop for History {
    fn drop(&mut self) {
        if self.unsaved > 0 {
            // What is lost is read again.
            let _ = self.save_cache();
        }
    }
}

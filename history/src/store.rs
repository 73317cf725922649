//! The bare repository: objects, references, and what is known to be in it.
//!
//! It is the host's alone. libgit2 makes it and reads objects; packs, trees, commits and references are written by us. Automatic
//! collection is off and there are no hooks. Each object that is there is known by its id, so nothing is written twice and no lookup
//! goes to disk.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::object::Kind;
use crate::pack::{self, Writer};
use crate::record::{self, Durability};
use crate::tree::{self, Entry, Strict};
use crate::{Error, Id, Result, names};

pub(crate) struct Store {
    directory: PathBuf,
    repository: git2::Repository,
    known: HashSet<Id>,
}

impl Store {
    /// Makes the repository, or opens it if it is there.
    pub(crate) fn create(directory: &Path) -> Result<Self> {
        let mut options = git2::RepositoryInitOptions::new();
        options.bare(true).mkpath(true).external_template(false).initial_head("main");
        let repository =
            git2::Repository::init_opts(directory, &options).map_err(Error::git("make the history's repository"))?;
        let local = repository.config().and_then(|config| config.open_level(git2::ConfigLevel::Local));
        local
            .and_then(|mut config| config.set_i32("gc.auto", 0))
            .map_err(Error::git("configure the history's repository"))?;
        drop(repository);
        Self::open(directory)
    }

    /// Opens it, and clears what a kill left.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        let repository = git2::Repository::open_bare(directory).map_err(Error::git("open the history's repository"))?;
        let packs = directory.join("objects/pack");
        std::fs::create_dir_all(&packs).map_err(Error::io("make", &packs))?;
        pack::sweep(&packs, true)?;
        let mut store = Self { directory: directory.to_path_buf(), repository, known: HashSet::new() };
        store.learn()?;
        Ok(store)
    }

    /// Reads what is there from the packs' indexes.
    fn learn(&mut self) -> Result<()> {
        self.known.clear();
        for pack in pack::list(&self.packs())? {
            self.known.extend(pack::ids(&pack.with_extension("idx"))?);
        }
        Ok(())
    }

    fn packs(&self) -> PathBuf {
        self.directory.join("objects/pack")
    }

    pub(crate) fn repository(&self) -> &git2::Repository {
        &self.repository
    }

    pub(crate) fn knows(&self, id: &Id) -> bool {
        self.known.contains(id)
    }

    /// A pack in the making; nothing of it is there until [`Store::keep`].
    pub(crate) fn writer(&self) -> Writer<'_> {
        Writer::new(&self.packs(), &self.known)
    }

    /// Takes over what a finished writer made. (The writer borrows what is known, so it cannot do that itself.)
    pub(crate) fn keep(&mut self, finished: pack::Finished) -> Result<()> {
        if finished.pack.is_none() {
            return Ok(());
        }
        self.known.extend(finished.ids);
        pack::merge(&self.packs())?;
        self.repository.odb().and_then(|odb| odb.refresh()).map_err(Error::git("look at the new pack"))
    }

    pub(crate) fn read(&self, kind: Kind, id: Id) -> Result<Vec<u8>> {
        let missing =
            |source: git2::Error| Error::damaged(format!("cannot read the {} {id}: {}", kind.name(), source.message()));
        let odb = self.repository.odb().map_err(Error::git("open the history's objects"))?;
        let object = odb.read(id.oid()).map_err(missing)?;
        if object.kind() != kind.git() {
            return Err(Error::damaged(format!("{id} is not a {}", kind.name())));
        }
        Ok(object.data().to_vec())
    }

    /// How long an object is; its content is not read.
    pub(crate) fn size(&self, id: Id) -> Result<u64> {
        let odb = self.repository.odb().map_err(Error::git("open the history's objects"))?;
        odb.read_header(id.oid()).map(|(size, _)| size as u64).map_err(Error::git("look at an object"))
    }

    /// The entries of a tree, validated.
    pub(crate) fn read_tree(&self, id: Id) -> Result<Vec<Entry>> {
        if id == Id::EMPTY_TREE {
            return Ok(Vec::new());
        }
        tree::read(id, &self.read(Kind::Tree, id)?, Strict::History)
    }

    /// The entry at `path` below `tree`.
    pub(crate) fn lookup(&self, tree: Id, path: &[u8]) -> Result<Option<Entry>> {
        find(|id| self.read_tree(id), tree, path)
    }

    /// Where a reference stands.
    pub(crate) fn reference(&self, name: &str) -> Result<Option<Id>> {
        let path = self.directory.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let id = text.trim_end().parse();
                id.map(Some).map_err(|_| Error::damaged(format!("the reference {name} holds no id")))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    /// Moves a reference, durably. The repository has one writer, so loose files by rename are all that is needed.
    pub(crate) fn set_reference(&self, name: &str, id: Id) -> Result<()> {
        let path = self.directory.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(Error::io("make", parent))?;
        }
        record::write(&path, &[format!("{id}\n").as_bytes()], Durability::Synced)
    }
}

/// The entry at `path` below `tree`, where `read` gives a tree's entries.
pub(crate) fn find(read: impl Fn(Id) -> Result<Vec<Entry>>, tree: Id, path: &[u8]) -> Result<Option<Entry>> {
    let mut at = tree;
    let (directory, name) = names::split(path);
    for component in directory.split(|&byte| byte == b'/').filter(|component| !component.is_empty()) {
        match read(at)?.into_iter().find(|entry| entry.name == component) {
            Some(entry) if entry.mode.is_directory() => at = entry.id,
            _ => return Ok(None),
        }
    }
    Ok(read(at)?.into_iter().find(|entry| entry.name == name))
}

//! A history's tree as the user's repository shall have it.

use std::collections::BTreeMap;

use super::refused;
use crate::graft::{Made, Wanted, graft, is_plain, make};
use crate::object::Kind;
use crate::store::{Store, find};
use crate::tree::{self, Entry, Mode, Strict};
use crate::{Error, Id, Result, names};

pub(super) struct Home<'a> {
    store: &'a Store,
    repository: &'a git2::Repository,
    kept_out: &'a [Vec<u8>],
    /// The tree of the commit that the branch grows from.
    start: Id,
    made: &'a mut Made,
    refused: BTreeMap<Vec<u8>, &'static str>,
    /// Of the tree that was brought last.
    links: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl<'a> Home<'a> {
    pub(super) fn new(
        store: &'a Store,
        repository: &'a git2::Repository,
        kept_out: &'a [Vec<u8>],
        start: Id,
        made: &'a mut Made,
    ) -> Self {
        Self { store, repository, kept_out, start, made, refused: BTreeMap::new(), links: BTreeMap::new() }
    }

    /// A tree of the history without empty directories and with the project's own entries where something was kept out; and the
    /// paths at which that changed what the history has.
    pub(super) fn bring(&mut self, tree: Id) -> Result<(Id, Vec<Vec<u8>>)> {
        self.links.clear();
        let stripped = self.strip(tree, b"")?.unwrap_or(Id::EMPTY_TREE);
        let mut wanted: Vec<Wanted> = Vec::new();
        let mut kept = Vec::new();
        for path in self.kept_out.iter().filter(|path| is_plain(path)) {
            let entry = |entry: Option<Entry>| entry.map(|entry| (entry.mode, entry.id));
            let theirs = entry(find(|id| read_project(self.repository, id), self.start, path)?);
            let ours = entry(find(|id| self.read(id), stripped, path)?);
            if theirs == ours {
                continue;
            }
            if ours.is_some() {
                kept.push(path.clone());
            }
            wanted.push((path.clone(), theirs));
        }
        // What the project has under such a name it keeps.
        for path in self.refused.keys() {
            if let Some(theirs) = find(|id| read_project(self.repository, id), self.start, path)? {
                wanted.push((path.clone(), Some((theirs.mode, theirs.id))));
            }
        }
        if wanted.is_empty() {
            return Ok((stripped, kept));
        }
        let (store, repository) = (self.store, self.repository);
        let read = |id| read_either(store, repository, id);
        let tree = graft(&read, stripped, &wanted, Strict::Project, self.made)?;
        Ok((tree, kept))
    }

    pub(super) fn read(&self, id: Id) -> Result<Vec<Entry>> {
        match self.made.get(&id) {
            Some(bytes) => tree::read(id, bytes, Strict::Project),
            None => read_either(self.store, self.repository, id),
        }
    }

    /// A file's content, wherever it is kept.
    pub(super) fn content(&self, id: Id) -> Result<Vec<u8>> {
        if self.store.knows(&id) {
            return self.store.read(Kind::Blob, id);
        }
        let blob = self.repository.find_blob(id.oid()).map_err(Error::git("read a file of the project"))?;
        Ok(blob.content().to_vec())
    }

    /// The same, or nothing of what is longer, which is not read.
    pub(super) fn content_up_to(&self, id: Id, most: usize) -> Result<Vec<u8>> {
        let is_short = self.store.knows(&id) && self.store.size(id)? <= most as u64;
        if is_short { self.content(id) } else { Ok(Vec::new()) }
    }

    /// What was left out of all that was brought, since git would not check it out, with why.
    pub(super) fn refused(&self) -> Vec<(Vec<u8>, &'static str)> {
        self.refused.iter().map(|(path, why)| (path.clone(), *why)).collect()
    }

    /// The links of the tree that was brought last, with their targets.
    pub(super) fn links(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.links
    }

    fn refuses(&mut self, entry: &Entry, path: &[u8]) -> Result<Option<&'static str>> {
        if let Some(why) = refused::name(&entry.name, entry.mode) {
            return Ok(Some(why));
        }
        if entry.mode != Mode::Symlink {
            return Ok(None);
        }
        let target = self.store.read(Kind::Blob, entry.id)?;
        let why = refused::link(&target);
        if why.is_none() {
            self.links.insert(path.to_vec(), target);
        }
        Ok(why)
    }

    /// The tree without what git refuses and directories in which nothing lies; `None` if that is all of it. As deep as a scan goes, which is bounded.
    fn strip(&mut self, id: Id, path: &[u8]) -> Result<Option<Id>> {
        let before = self.store.read_tree(id)?;
        let mut after = Vec::with_capacity(before.len());
        for entry in &before {
            let path = names::join(path, &entry.name);
            if let Some(why) = self.refuses(entry, &path)? {
                self.refused.insert(path, why);
            } else if entry.mode.is_directory() {
                after.extend(self.strip(entry.id, &path)?.map(|id| Entry { id, ..entry.clone() }));
            } else {
                after.push(entry.clone());
            }
        }
        if after.is_empty() {
            return Ok(None);
        }
        if after == before { Ok(Some(id)) } else { make(after, Strict::Project, self.made).map(Some) }
    }
}

fn read_either(store: &Store, repository: &git2::Repository, id: Id) -> Result<Vec<Entry>> {
    if id == Id::EMPTY_TREE || store.knows(&id) { store.read_tree(id) } else { read_project(repository, id) }
}

fn read_project(repository: &git2::Repository, id: Id) -> Result<Vec<Entry>> {
    if id == Id::EMPTY_TREE {
        return Ok(Vec::new());
    }
    let odb = repository.odb().map_err(Error::git("open the project's objects"))?;
    let object = odb.read(id.oid()).map_err(Error::git("read a tree of the project"))?;
    if object.kind() != Kind::Tree.git() {
        return Err(Error::BadTree { id, why: "it is no tree".to_owned() });
    }
    tree::read(id, object.data(), Strict::Project)
}
